"""The comparison of both sides: workloads, what match means, measuring, the command line."""
