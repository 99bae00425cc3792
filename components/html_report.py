"""The look of every HTML artifact: one self-contained page, light and dark, no network needed to open it."""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TEMPLATES = Environment(loader=PackageLoader("components", "."), autoescape=True, undefined=StrictUndefined)
_MACROS: Any = _TEMPLATES.get_template("page.html.j2").module


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it; `body` comes from the functions below, which escape their input."""

    heading: str
    body: Markup


def page(title: str, summary: str, sections: Iterable[Section]) -> str:
    """Renders a whole HTML document."""
    return _TEMPLATES.get_template("page.html.j2").render(title=title, summary=summary, sections=list(sections))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], highlighted_row: int | None = None) -> Markup:
    """A table; numbers are set right-aligned, floats with four decimals."""
    cells = [[_cell(value) for value in row] for row in rows]
    return Markup(_MACROS.table(columns, cells, highlighted_row))


def bars(labels: Sequence[str], values: Sequence[float]) -> Markup:
    """Horizontal bars, scaled so that the largest value leaves room for its number."""
    top = max(values, default=0) or 1
    return Markup(_MACROS.bars([(label, value, 85 * value / top) for label, value in zip(labels, values, strict=True)]))


def note(text: str) -> Markup:
    return Markup(_MACROS.note(text))


def picture(figure: "Figure", description: str) -> Markup:
    """A matplotlib figure as an embedded PNG, with its description for those who cannot see it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144, bbox_inches="tight", facecolor="white")
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return Markup(_MACROS.picture(encoded, description))


def _cell(value: object) -> tuple[str, bool]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value), False
    return (f"{value:,}" if isinstance(value, int) else f"{value:.4f}"), True
