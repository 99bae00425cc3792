"""The look of every HTML artifact: one self-contained page, light and dark, no network needed to open it.

Charts are inline SVG and images are embedded, so a page is one file, sharp at any size, and follows the reader's theme.
A run's report is put together from the sections of its steps' pages: both show the same things in the same way.
"""

import base64
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kfp_image_classification.components.report.chart_axis import Axis, linear_axis

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

_TEMPLATES = Environment(
    loader=PackageLoader("kfp_image_classification.components.report", "."), autoescape=True, undefined=StrictUndefined
)
_PAGE = _TEMPLATES.get_template("page.html.j2")
_MACROS: Any = _PAGE.module

# Colours of series in the style sheet; later series use them again.
PALETTE_SIZE = 8
# Embedded images are shown small: a larger one would only make the page heavy.
MOST_PIXELS = 96
# Images up to this size are shown pixel by pixel, not smoothed.
TINY_PIXELS = 48
# Above this, numbers in the cells of a matrix are not legible.
MOST_CLASSES_WITH_NUMBERS = 20
MATRIX_COLOUR = (31, 102, 214)
# Of the plot in the drawing of `line_chart` in the template.
PLOT_LEFT, PLOT_RIGHT, PLOT_TOP, PLOT_BOTTOM = 46, 428, 12, 236
# Where a chart of shares ends: its last tick has a long name.
SHARES_RIGHT = 418


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it; `body` comes from the functions below, which escape their input."""

    heading: str
    body: Markup

    @property
    def anchor(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.heading.lower()).strip("-")


@dataclass(frozen=True)
class Series:
    """A line of a chart.

    Attributes:
        name: What the legend calls it.
        points: (x, y), ascending in x.
        colour: Number of a colour in the palette.
        minor: Drawn thin and broken, beside the lines that matter.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: int = 0
    minor: bool = False


@dataclass(frozen=True)
class Dot:
    """A point of a chart of shares.

    Attributes:
        x: From 0 to 1.
        y: From 0 to 1.
        low: Where the interval about y begins.
        high: Where it ends.
        weight: How much it counts, the heaviest of a chart 1.
        words: Shown under the pointer.
    """

    x: float
    y: float
    low: float
    high: float
    weight: float
    words: str


class Figure(str):
    """A number that is written in its own way, such as a percentage; a table sets it as the numbers."""


@dataclass(frozen=True)
class Tile:
    """A number to be seen first; `tone` is `good`, `bad` or empty."""

    label: str
    value: str
    detail: str = ""
    tone: str = ""


def page(title: str, summary: str, sections: Iterable[Section], opening: Markup | None = None) -> str:
    """Renders a whole HTML document; `opening` stands above the sections, without a frame."""
    return _PAGE.render(title=title, summary=summary, opening=opening or "", sections=list(sections))


def section_of(document: str, heading: str) -> Section | None:
    """Finds a section in a page that `page` rendered; None when it has none of that heading."""
    anchor = Section(heading, Markup("")).anchor
    found = re.search(rf'<section id="{anchor}"><h2>[^<]*</h2>\n(.*?)\n</section>', document, re.DOTALL)
    return Section(heading, Markup(found[1])) if found else None


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], highlighted_row: int | None = None) -> Markup:
    """A table; numbers and figures are set right-aligned, floats with four decimals."""
    cells = [[_cell(value) for value in row] for row in rows]
    return Markup(_MACROS.table(columns, cells, highlighted_row))


def bars(labels: Sequence[str], values: Sequence[float]) -> Markup:
    """Horizontal bars, scaled so that the largest value leaves room for its number."""
    top = max(values, default=0) or 1
    return Markup(_MACROS.bars([(label, value, 85 * value / top) for label, value in zip(labels, values, strict=True)]))


def note(text: str) -> Markup:
    return Markup(_MACROS.note(text))


def tiles(items: Iterable[Tile]) -> Markup:
    return Markup(_MACROS.tiles(list(items)))


def facts(pairs: Mapping[str, object]) -> Markup:
    """Names and values in columns."""
    return Markup(_MACROS.facts([(name, str(value)) for name, value in pairs.items()]))


def command(text: str, label: str) -> Markup:
    """A command to be copied, under a line that tells what it does."""
    return Markup(_MACROS.command(text, label))


def banner(tone: str, text: str) -> Markup:
    """The outcome in a sentence; `tone` is `good`, `warn` or `bad`."""
    return Markup(_MACROS.banner(tone, text))


def subheading(text: str) -> Markup:
    return Markup("<h3>{}</h3>").format(text)


def links(label: str, targets: Mapping[str, str]) -> Markup:
    """Links by their text; relative ones, so that a folder can be moved as a whole."""
    return Markup(_MACROS.links(label, list(targets.items())))


def timeline(title: str, rows: Sequence[tuple[str, float, float, str, bool]], total: float) -> Markup:
    """Bars along a common time axis.

    Args:
        title: Heading.
        rows: Label, start and duration in seconds, the duration in words, and whether the row is to stand out.
        total: Length of the axis in seconds.
    """
    placed = [
        # Start and duration may be measured by different clocks: a bar never leaves the axis.
        (label, 100 * start / total, min(100 * long / total, 100 - 100 * start / total), words, bad)
        for label, start, long, words, bad in rows
    ]
    return Markup(_MACROS.timeline(title, placed))


def log_lines(lines: Iterable[str]) -> Markup:
    return Markup(_MACROS.log_lines("\n".join(lines)))


def gallery(images: "Iterable[np.ndarray]", captions: Sequence[Sequence[str]]) -> Markup:
    """Images in a grid that fits the screen, each over the lines of its caption.

    Args:
        images: uint8 [height, width, channels] each.
        captions: The lines of each image's caption.
    """
    shown = [
        (_png(image), max(image.shape) <= TINY_PIXELS, lines) for image, lines in zip(images, captions, strict=True)
    ]
    return Markup(_MACROS.gallery(shown))


def line_chart(title: str, series: Sequence[Series], unit: str = "", x_label: str = "epoch") -> Markup:
    """Lines over whole numbers, one legend entry a colour, with the values under the pointer.

    Args:
        title: What the y axis measures.
        series: The lines.
        unit: `%` to show shares as percentages.
        x_label: What the x axis counts.
    """
    xs = sorted({x for line in series for x, _ in line.points})
    # What the minor lines begin with would squeeze the others: only where they end has to be in the picture.
    ys = [y for line in series for _, y in (line.points[-1:] if line.minor else line.points)]
    x_axis = linear_axis(xs, PLOT_LEFT, PLOT_RIGHT, whole_numbers=True)
    y_axis = linear_axis(ys, PLOT_BOTTOM, PLOT_TOP)
    lines = [
        (line, " ".join(f"{x_axis.at(x):.1f},{y_axis.at(y):.1f}" for x, y in line.points), line.colour % PALETTE_SIZE)
        for line in series
    ]
    hover = {
        "x": [[x, round(x_axis.at(x), 1)] for x in xs],
        "label": x_label,
        "series": [
            {"name": line.name, "colour": colour, "y": {f"{x:g}": _number(y, unit) for x, y in line.points}}
            for line, _, colour in lines
        ],
    }
    return Markup(
        _MACROS.line_chart(title, x_label, lines, _ticks(x_axis, ""), _ticks(y_axis, unit), json.dumps(hover))
    )


def diagonal_chart(title: str, dots: Sequence[Dot], x_label: str) -> Markup:
    """Shares over shares, with the line on which both are equal; a heavier dot is drawn larger."""
    x_axis, y_axis = linear_axis((0, 1), PLOT_LEFT, SHARES_RIGHT), linear_axis((0, 1), PLOT_BOTTOM, PLOT_TOP)
    points = [
        (
            x_axis.at(dot.x),
            y_axis.at(dot.y),
            y_axis.at(dot.low),
            y_axis.at(dot.high),
            3 + 5 * dot.weight**0.5,
            dot.words,
        )
        for dot in dots
    ]
    ticks = [(x_axis.at(tick), y_axis.at(tick), f"{tick:.0%}") for tick in x_axis.ticks]
    return Markup(_MACROS.diagonal_chart(title, x_label, points, ticks))


def legend(names: Sequence[str], minor: str = "") -> Markup:
    """What the colours of the charts in the same section mean, in the order of the palette; hides lines on a click."""
    return Markup(_MACROS.legend([(name, index % PALETTE_SIZE) for index, name in enumerate(names)], minor))


def charts(*drawn: Markup) -> Markup:
    """Charts of equal width, side by side where there is room."""
    return Markup('<div class="charts">{}</div>').format(Markup("").join(drawn))


def beside(first: Markup, second: Markup) -> Markup:
    """Two things side by side, or one under the other where the first leaves no room for the second."""
    return Markup('<div class="beside"><div>{}</div><div>{}</div></div>').format(first, second)


def matrix(counts: "np.ndarray", names: Sequence[str]) -> Markup:
    """A confusion matrix; colours show shares of the row (the true class), numbers count.

    Args:
        counts: int [n, n], by true class (row) and predicted class (column).
        names: Of the classes.
    """
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    if len(names) > MOST_CLASSES_WITH_NUMBERS:
        return Markup(_MACROS.matrix_picture(_shares_png(shares), len(names)))
    rows = [
        (name, [(int(count), float(share)) for count, share in zip(row, row_shares, strict=True)])
        for name, row, row_shares in zip(names, counts, shares, strict=True)
    ]
    return Markup(_MACROS.matrix(names, rows, max(map(len, names)) > 3))


def _png(pixels: "np.ndarray") -> str:
    from PIL import Image

    image = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
    image.thumbnail((MOST_PIXELS, MOST_PIXELS))
    return _base64_png(image)


def _shares_png(shares: "np.ndarray") -> str:
    import numpy as np
    from PIL import Image

    # One colour of varying opacity: it suits a light page as well as a dark one.
    pixels = np.empty((*shares.shape, 4), np.uint8)
    pixels[..., :3] = MATRIX_COLOUR
    pixels[..., 3] = np.round(255 * np.sqrt(shares))
    return _base64_png(Image.fromarray(pixels))


def _base64_png(image: "Image.Image") -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="png", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def _ticks(axis: Axis, unit: str) -> list[tuple[float, str]]:
    digits = max(0, -axis.power - (2 if unit == "%" else 0))
    scale = 100 if unit == "%" else 1
    return [(axis.at(tick), f"{tick * scale:.{digits}f}{unit}") for tick in axis.ticks]


def _number(value: float, unit: str) -> str:
    return f"{value:.2%}" if unit == "%" else f"{value:.4f}"


def _cell(value: object) -> tuple[str, bool]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value), isinstance(value, Figure)
    return (f"{value:,}" if isinstance(value, int) else f"{value:.4f}"), True
