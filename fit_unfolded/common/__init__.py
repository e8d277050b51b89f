"""Small things that the other packages share; nothing here imports TensorFlow at once."""
