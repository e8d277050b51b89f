"""One file for each pitfall; what a file defines is said in `fit_unfolded/pitfalls/__init__.py`."""
