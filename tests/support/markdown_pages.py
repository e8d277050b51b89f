"""What the tests read in a Markdown page or a notebook: links, headings and their anchors."""

import itertools
import re

from website.pages import notebook, slug

# The text of a link may hold code with brackets in it, `[n, 1]`.
LINK = re.compile(r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)\s]+)\)")
HEADING = re.compile(r"(?m)^#+ (.+)$")
# A heading, or a code block, in which a comment looks like one.
HEADING_OR_CODE = re.compile(r"(?ms)^```.*?^```|^#+ [^\n]+$")


def text_of(path):
    """The text of a Markdown file; of a notebook, which is read from its source, as Markdown."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    return notebook(path.with_suffix(".py").read_text(encoding="utf-8"))


def links(page):
    """`(text, target)` of each link and image."""
    return LINK.findall(page)


def anchors(page):
    """The anchor of each heading, in order, as GitHub makes them; letters of any script stay."""
    return [anchor for anchor, _ in sections(page)]


def sections(page):
    """`(anchor, text)` of each heading: the text up to the next heading of any level."""
    found = HEADING_OR_CODE.finditer(page)
    starts = [match.start() for match in found if match[0].startswith("#")]
    for start, end in itertools.pairwise([*starts, len(page)]):
        text = page[start:end]
        yield slug(HEADING.match(text)[1]), text
