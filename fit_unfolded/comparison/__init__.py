"""The comparison: both implementations trained from one seed, everything compared, and shown."""
