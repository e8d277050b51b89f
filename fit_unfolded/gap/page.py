"""The terminal page: the verdict, the table of parts, what was checked."""

import math
import textwrap

from rich.console import Console
from rich.text import Text

from fit_unfolded.common.tables import plain_table
from fit_unfolded.gap.decompose import DETAILS, Gap, Part

WIDEST = 100  # columns that running text is set in
SMALLEST = -4  # power of ten of losses below which there are exponents
NAMED = 0.15  # share of the whole from which on the verdict names a part


def print_page(console: Console, heading: str, gap: Gap) -> None:
    """The whole page."""
    console.print(heading, markup=False, highlight=False)
    console.print()
    _print_text(console, verdict(gap), "bold")
    number = _numbers(gap)
    rows = [["loss", "", "", number(gap.loss), f"In the log of fit, epoch {gap.epoch}."]]
    for part in gap.parts:
        if part.name == "rows":
            rows.append(_evaluated(number(gap.evaluate)))
        why = f"{part.why} (detail {DETAILS[part.name]})"
        rows.append([f"  {part.title}", change(gap, part), _share(gap, part), "", why])
    if gap.val_loss is None:
        rows.append(_evaluated(number(gap.evaluate)))
    else:
        why = "In the log of fit: evaluate on the validation rows."
        rows.append(["val_loss", "", "", number(gap.val_loss), why])
    headers = ["", "change", "share", "loss", "why"]
    console.print(plain_table(headers, rows, text=("why",)))
    for line in _notes(gap, number):
        _print_text(console, line)
    _print_text(console, *_proof(gap, number))
    _print_text(console, "The parts: docs/gap.md. The details: docs/details.md.")


def _evaluated(value: str) -> list[str]:
    return ["evaluate(train)", "", "", value, "evaluate on the training rows after the epoch."]


def verdict(gap: Gap) -> str:
    """The result in a sentence or two."""
    end = "evaluate on the training rows" if gap.val_loss is None else "val_loss"
    if gap.whole == 0:
        return f"{end} equals loss, {gap.loss:.4g}.{_cancel(gap)}"
    if abs(gap.whole) <= gap.rounding:
        return f"{end} and loss differ only by rounding.{_cancel(gap)}"
    number = _numbers(gap)
    side = "lower" if gap.whole < 0 else "higher"
    sentence = f"{end} is {side} than loss by {number(abs(gap.whole))}"
    parts = sorted(gap.parts, key=lambda part: -abs(part.change))
    along = [part for part in parts if part.change * gap.whole > 0]
    against = [part for part in parts if part.change * gap.whole < 0]
    along = along[:1] + [part for part in along[1:] if _is_large(gap, part)]
    against = [part for part in against if _is_large(gap, part)]
    if not against:
        return f"{sentence}: {_reasons(along, number, '{} of it')}."
    words = ("lowered", "raised") if gap.whole < 0 else ("raised", "lowered")
    return (
        f"{sentence}: {words[0]} {_reasons(along, number, 'by {}')}; {words[1]} "
        f"{_reasons(against, number, 'by {}')}."
    )


def _reasons(parts: list[Part], number: "Numbers", amount: str) -> str:
    """The largest three parts: "0.1 of it because ..., and 0.2 of it because ..."."""
    reasons = [
        f"{amount.format(number(abs(part.change)))} because {part.because}" for part in parts[:3]
    ]
    return ", and ".join([", ".join(reasons[:-1]), reasons[-1]] if reasons[1:] else reasons)


def _is_large(gap: Gap, part: Part) -> bool:
    return abs(part.change) >= NAMED * abs(gap.whole)


def _cancel(gap: Gap) -> str:
    if any(abs(part.change) > gap.rounding for part in gap.parts):
        return " The parts cancel each other."
    return ""


def _notes(gap: Gap, number: "Numbers") -> list[str]:
    notes = []
    if gap.val_loss is None:
        notes.append(
            "This epoch has no validation, so the chain ends at evaluate on the training rows. "
            "For one, use validation_data or validation_split."
        )
    if abs(gap.plain_mean - gap.loss) > gap.rounding:
        difference = number.signed(gap.plain_mean - gap.loss)
        notes.append(
            "The mean over batches is no part: fit weights each batch by its rows, in training "
            f"and in evaluation. A plain mean of the batch losses would be "
            f"{number(gap.plain_mean)} ({difference})."
        )
    if any(gap.penalties):
        before, after = map(number, gap.penalties)
        notes.append(
            f"Regularizers add {before} to loss, a mean over the epoch, and {after} to evaluate."
        )
    if gap.after_fit is not None:
        notes.append(
            f"evaluate on the validation rows after fit gives {number(gap.after_fit)}: after the "
            "last validation, fit or a callback replaced the weights (averages of the optimizer, "
            "or those of the best epoch)."
        )
    return notes


def _proof(gap: Gap, number: "Numbers") -> tuple[str, str]:
    """What was checked, and its style."""
    if gap.replay_ulp:
        return (
            f"The replay does not equal fit's log: {gap.replay_ulp:.0f} ULP. Something that the "
            "replay does not repeat acts within the epoch: a callback, random numbers that come "
            "from elsewhere than a keras.random.SeedGenerator, or data in another order. The first "
            "part contains this difference.",
            "bold red",
        )
    text = "The replay of the epoch equals fit's log: 0 ULP."
    if gap.validation_ulp is not None:
        text += f" That of the validation: {gap.validation_ulp:.0f} ULP."
    if gap.validation_ulp:
        text += " Its dataset gives other batches each time that it is read."
    total = math.fsum(part.change for part in gap.parts)
    return f"{text} The parts add up to {number.signed(total)}.", "green"


def _share(gap: Gap, part: Part) -> str:
    share = gap.share(part)
    return "" if share is None else f"{share + 0.0:.0%}".replace("-0%", "0%")


def change(gap: Gap, part: Part) -> str:
    """The change of the loss in figures, with its sign."""
    if part.change == 0:
        return "0"
    if abs(part.change) <= gap.rounding:
        return "rounding"
    text = _numbers(gap).signed(part.change)
    return text if float(text) else f"{part.change:+.0e}"


def value(gap: Gap, loss: float) -> str:
    """A loss in figures."""
    return _numbers(gap)(loss)


class Numbers:
    """Formats losses of one size alike.

    Attributes:
        decimals: how many; three figures of the largest change are shown. None for figures such as
            3.277e-05.
    """

    def __init__(self, loss: float, largest_change: float):
        digits = max(3 - _exponent(loss), 2 - _exponent(largest_change), 0)
        self.decimals = min(digits, 8) if _exponent(loss) >= SMALLEST else None

    def __call__(self, value: float) -> str:
        return f"{value:.3e}" if self.decimals is None else f"{value:.{self.decimals}f}"

    def signed(self, value: float) -> str:
        return f"{value:+.2e}" if self.decimals is None else f"{value:+.{self.decimals}f}"


def _numbers(gap: Gap) -> Numbers:
    changes = [abs(part.change) for part in gap.parts if abs(part.change) > gap.rounding]
    return Numbers(max(abs(gap.loss), abs(gap.last)), max(changes, default=0.0))


def _exponent(value: float) -> int:
    return math.floor(math.log10(value)) if value else 0


def _print_text(console: Console, text: str, style: str = "") -> None:
    filled = textwrap.fill(text, min(console.width, WIDEST))
    console.print(Text(filled + "\n", style=style), soft_wrap=True)
