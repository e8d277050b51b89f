"""`python -m fit_unfolded`: the command line."""

from fit_unfolded.cli import main

main()
