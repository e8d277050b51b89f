"""How a step is run: line by line, as a graph, as one XLA program; one or several steps per call."""
