"""The error that the command line shows as one line."""


class InputError(ValueError):
    """An argument cannot be used; the message names it and says how to fix it."""
