"""Where a value lies on a chart, and which values the axis names."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

MOST_TICKS = 6


@dataclass(frozen=True)
class Axis:
    """A linear scale.

    Attributes:
        low: Value at `start`.
        high: Value at `end`.
        start: Position in the drawing.
        end: Position in the drawing.
        ticks: Values to name: multiples of 1, 2 or 5 times a power of ten.
        power: That power.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    power: int

    def at(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def linear_axis(values: Sequence[float], start: float, end: float, whole_numbers: bool = False) -> Axis:
    """A scale for values: from and to a tick, or exactly the values' range for whole numbers."""
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    if low == high:
        low, high = (low - 0.5, high + 0.5) if whole_numbers else (low - abs(low) * 0.1 - 1e-3, high + abs(high) * 0.1)
    step, power = _step(high - low)
    if whole_numbers:
        step, power = max(1.0, step), max(0, power)
        first = math.ceil(low / step)
        last = math.floor(high / step)
    else:
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        low, high = first * step, last * step
    return Axis(low, high, start, end, tuple(number * step for number in range(first, last + 1)), power)


def _step(span: float) -> tuple[float, int]:
    raw = span / (MOST_TICKS - 1)
    power = math.floor(math.log10(raw))
    factor = next(factor for factor in (1, 2, 5, 10) if factor * 10.0**power >= raw * (1 - 1e-9))
    return (factor * 10.0**power, power) if factor < 10 else (10.0 ** (power + 1), power + 1)
