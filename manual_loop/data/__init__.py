"""From the data that a user has to batches: arrays in memory, or streams of batches."""
