"""The lines of a statement, or of what comes before its body."""

import pytest

from fit_unfolded.common.statements import statement

LINES = """\
@decorated
def f(
    x,
):
    y = g(
        x,
        h(x),
    )
    if (
        x
        and y
    ):  # a condition: over lines

        @decorated
        def inner(): return x
    elif y: return {
        "y": y,
    }
    else:
        y = x; x = y
    try:
        with open(x) as a, open(
            y
        ) as b:
            pass
    except OSError:
        raise
    return y
"""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("def f(", "def f(|x,|):"),
        ("    y = g(", "y = g(|x,|h(x),|)"),
        ("        h(x),", "y = g(|x,|h(x),|)"),
        ("    if (", "if (|x|and y|):  # a condition: over lines"),
        ("        and y", "if (|x|and y|):  # a condition: over lines"),
        ("        def inner(): return x", "def inner(): return x"),
        ("    elif y: return {", 'elif y: return {|"y": y,|}'),
        ("    else:", "else:"),
        ("        y = x; x = y", "y = x; x = y"),
        ("    try:", "try:"),
        ("        with open(x) as a, open(", "with open(x) as a, open(|y|) as b:"),
        ("    except OSError:", "except OSError:"),
        ("", ""),
        ("    return y", "return y"),
    ],
)
def test_the_lines_of_a_statement(tmp_path, line, expected):
    file = tmp_path / "file.py"
    file.write_text(LINES)
    lines = LINES.splitlines()
    found = statement(str(file), lines.index(line) + 1)
    assert "|".join(lines[number - 1].strip() for number in found) == expected
