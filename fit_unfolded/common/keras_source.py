"""Where the source of the installed Keras is on the web."""

import importlib.metadata
import re

VERSION = importlib.metadata.version("keras")


def keras_source() -> str:
    """The tag of the installed Keras's release.

    Returns:
        str: an address that a file's name and `#L` with a line's number follow; "" for a version
            that is no release.
    """
    is_release = re.fullmatch(r"\d+\.\d+\.\d+", VERSION)
    return f"https://github.com/keras-team/keras/blob/v{VERSION}/" if is_release else ""
