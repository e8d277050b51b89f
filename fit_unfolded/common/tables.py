"""Tables for the terminal."""

from rich import box
from rich.table import Table


def plain_table(headers: list[str], rows: list[list[str]], text: tuple[str, ...] = ()) -> Table:
    """A table whose first column, and those named in `text`, are text; the others are figures."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for place, header in enumerate(headers):
        left = place == 0 or header in text
        table.add_column(header, justify="left" if left else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
