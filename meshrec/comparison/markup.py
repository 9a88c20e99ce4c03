"""Elements of web pages and of drawings in them: whatever comes from data is escaped."""

import html
import math
from collections.abc import Iterable
from dataclasses import dataclass

STEPS = (1.0, 2.0, 5.0, 10.0, 20.0)
"""Ticks stand so many units of a power of ten apart."""

INKS = 7
"""So many branches have colours of their own, those of their bodies on photographs."""


def tag(name: str, *content: str, **attributes: str | float | bool | None) -> str:
    """An element around content that is markup already; attributes are escaped.

    `class_` is class and `data_low` is data-low; lengths keep one decimal; None and False leave an attribute out.
    """
    known = {key: value for key, value in attributes.items() if value is not None and value is not False}
    written = "".join(f" {key.rstrip('_').replace('_', '-')}{_value(value)}" for key, value in known.items())
    return f"<{name}{written}>{''.join(content)}</{name}>"


def _value(value: str | float | bool) -> str:
    if value is True:
        return ""
    return f'="{html.escape(value if isinstance(value, str) else length(value))}"'


def text(words: object) -> str:
    """Words as they are read, whatever they hold."""
    return html.escape(str(words))


def length(value: float) -> str:
    """A length in a drawing: a tenth of a pixel is not seen."""
    return f"{value:.1f}".removesuffix(".0")


def ink(place: int) -> str:
    """The class that gives a branch its colour, by its place among the branches."""
    return f"ink{place % INKS}"


def polyline(points: Iterable[tuple[float, float]]) -> str:
    """Points as the attribute `points`."""
    return " ".join(f"{length(x)},{length(y)}" for x, y in points)


@dataclass(frozen=True)
class Scale:
    """A straight way from values to pixels."""

    low: float
    high: float
    start_px: float
    end_px: float

    def at(self, value: float) -> float:
        """Where a value lies, in pixels."""
        return self.start_px + (value - self.low) / (self.high - self.low) * (self.end_px - self.start_px)

    def ticks(self, most: int = 8) -> list[float]:
        """Round values from end to end, at most so many."""
        power = 10.0 ** math.floor(math.log10((self.high - self.low) / most))
        step = next(power * step for step in STEPS if (self.high - self.low) / (power * step) <= most - 1)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [step * count for count in range(first, last + 1)]


def decimals(largest: float) -> int:
    """How many decimals tell numbers up to `largest` apart."""
    if not math.isfinite(largest) or largest >= 10:
        return 1
    return 2 if largest >= 1 else 3


def number(value: float, places: int) -> str:
    """A number as it is read; a dash where there is none."""
    return f"{value:,.{places}f}".replace("-", "−") if math.isfinite(value) else "–"
