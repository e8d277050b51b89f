"""The error that the command line shows as one line."""


class InputError(ValueError):
    """Something the user gave cannot be used; the message names it and says what to do."""
