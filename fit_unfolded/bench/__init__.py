"""The benchmarks: cases, the machine's limits, peers, and the report; `benchmarks/` runs them."""
