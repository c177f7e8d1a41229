"""How the figures look: colours, marks and sizes, and the kinds of variants that they tell apart."""

from dataclasses import dataclass

from src.results.variant import Result

# Colours in a PNG; on the page each is a variable, which has another value in the dark.
COLOURS = {
    "ink": "#1c1d20",
    "soft": "#6b6e76",
    "line": "#d9dadf",
    "band": "#eef0f4",
    "paper": "#ffffff",
    "baseline": "#1c1d21",
    "better": "#12805f",
    "equal": "#2f62c4",
    "no-worse": "#0e7490",
    "worse": "#b93a2b",
    "undecided": "#8a7320",
}
# Not by colour alone.
MARKERS = {"baseline": "D", "better": "^", "equal": "o", "no-worse": ">", "worse": "v", "undecided": "s"}
MOST_NAMES = 25  # in a figure: more find no room, and the table has them all
WIDE, NARROW = 9.3, 3.75  # inches of 96 CSS pixels: the room on a page of 1280 and of 400 pixels


@dataclass(frozen=True)
class Style:
    inches: float
    font_points: float
    marker_points: float

    @property
    def narrow(self) -> bool:
        return self.inches < 5


STYLES = {"wide": Style(WIDE, 9.5, 6.5), "narrow": Style(NARROW, 8.5, 5.5)}


def kind(result: Result) -> str:
    """The one word by which a variant is coloured."""
    if result.is_baseline:
        return "baseline"
    if result.no_number:
        return "worse"
    return result.verdict.short.replace(" ", "-") if result.verdict else "undecided"


def short(name: str, most: int) -> str:
    """A name without its middle, since variants differ at the ends: `magnitude-fiq …sparsity=0.45`."""
    return name if len(name) <= most else f"{name[: most // 2]}…{name[most // 2 - most + 1 :]}"
