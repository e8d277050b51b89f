"""What the tests read in a Markdown page: links, headings and their anchors."""

import re

from website.pages import slug

# The text of a link may hold code with brackets in it, `[n, 1]`.
LINK = re.compile(r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)\s]+)\)")
HEADING = re.compile(r"(?m)^#+ (.+)$")


def links(page):
    """`(text, target)` of each link and image."""
    return LINK.findall(page)


def anchors(page):
    """The anchor of each heading, in order, as GitHub makes them; letters of any script stay."""
    titles = HEADING.findall(page)
    return [slug(title) for title in titles]
