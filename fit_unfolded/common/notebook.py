"""How results show themselves in the cell of a notebook."""

import io
import re
from collections.abc import Callable
from html import escape
from typing import Any

from rich.console import Console

WIDTH = 100  # columns
HEIGHT = "44rem"
COLOR = re.compile(r"(?:text-decoration-|background-)?color: #\w+(?:; |(?=\"))")


def printed(print_page: Callable[..., Any], *arguments: Any) -> str:
    """What a terminal page prints, as HTML; without colors, to be legible on any background.

    Args:
        print_page: a function that is given a `rich.console.Console`, then `arguments`.
    """
    # else rich would display each line in the cell, besides what is returned
    console = Console(file=io.StringIO(), width=WIDTH, record=True, force_jupyter=False)
    print_page(console, *arguments)
    page = console.export_html(
        inline_styles=True,
        code_format='<pre style="line-height: 1.3; overflow-x: auto">{code}</pre>',
    )
    return COLOR.sub("", page)


def framed(page: str, title: str) -> str:
    """A page of its own in a frame: neither its styles nor its keys reach the notebook."""
    return (
        f'<iframe srcdoc="{escape(page)}" title="{escape(title)}" style="width: 100%; '
        f'height: {HEIGHT}; border: 1px solid #8888; border-radius: 6px"></iframe>'
    )
