"""The colors of figures can be seen on white, and no figure has others."""

import re
from pathlib import Path

import pytest

import fit_unfolded
from fit_unfolded.common import colors

COLORS = [colors.FIT, colors.LOOP, colors.MISTAKE, colors.GUIDE]
PLOTS = [
    path
    for path in Path(fit_unfolded.__file__).parent.rglob("plot.py")
    if "matplotlib" in path.read_text(encoding="utf-8")
]


def luminance(color):
    """The relative luminance of WCAG 2.2."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(c * weight for c, weight in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))


def contrast(one, other):
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_the_contrast_is_that_of_wcag():
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert contrast("#9ecae1", "#ffffff") < 3


@pytest.mark.parametrize("color", COLORS)
def test_lines_are_visible_on_white(color):
    assert contrast(color, "#ffffff") >= 3


def test_a_line_on_top_of_another_is_visible():
    assert contrast(colors.FIT, colors.LOOP) >= 3


@pytest.mark.parametrize("path", PLOTS, ids=lambda path: path.parent.name)
def test_figures_have_no_other_colors(path):
    assert re.findall(r"#[0-9a-fA-F]{6}", path.read_text(encoding="utf-8")) == []


def test_all_figures_are_looked_at():
    assert {path.parent.name for path in PLOTS} == {"comparison", "gap", "pitfalls"}
