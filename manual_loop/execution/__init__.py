"""How a step is run: eagerly, as a graph, as one XLA program; one or several steps per call."""
