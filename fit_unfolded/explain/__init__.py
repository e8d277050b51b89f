"""What fit does, event by event, beside the loop that does the same."""
