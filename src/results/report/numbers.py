"""How numbers are written for a person: the same in the terminal, in figures and on the page."""

from src.measure.stats import Interval


def points(share: float) -> str:
    """A difference of shares in points, signed: 0.014 is +1.4."""
    return f"{100 * share:+.1f}".replace("-", "−")


def interval(drop: Interval) -> str:
    return f"[{points(drop.low)}, {points(drop.high)}]"


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}"


def digits(number: float, significant: int = 3) -> str:
    """That many significant digits, no exponent."""
    if number == 0:
        return "0"
    if number >= 10**significant:
        return f"{number:,.0f}"
    exponent = int(f"{number:.{significant - 1}e}".partition("e")[2])
    return f"{number:.{max(0, significant - 1 - exponent)}f}"


def three(number: float) -> str:
    """Three significant digits without an exponent."""
    if number >= 1:
        return f"{number:.{max(0, 3 - len(str(int(number))))}f}"
    return f"{number:.3g}" if number >= 1e-4 else f"{number:.6f}"


def size(count: float) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB" if count >= 1e3 else f"{count:.0f} B"


def count(number: float) -> str:
    """Of parameters or multiply-adds, with three significant digits: 12.5 M."""
    for power, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= power:
            return f"{digits(number / power)} {unit}"
    return f"{number:.0f}"


def times(ratio: float) -> str:
    """How many times, with three significant digits: 1.36, 10.2, 0.00117."""
    return digits(ratio)


def images(count: int, split: str) -> str:
    return f"{count:,} {split} image{'s' * (count != 1)}"
