"""The pipeline of a run as a picture: a box a step, a branch a model, in a wide layout and in a tall one for phones."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipelines.run_record import RunRecord, Step

_TEMPLATES = Environment(loader=PackageLoader("pipelines", "."), autoescape=True, undefined=StrictUndefined)

HEIGHT, GAP = 70, 14
WIDE, WIDE_BOX, WIDE_COLUMN = 960, 168, 198
TALL, TALL_INDENT, TALL_BOX = 320, 20, 134
LETTER = 8.2  # width of a bold letter, on average
STATE_WORDS = {"cached": "from cache", "failed": "failed", "skipped": "skipped", "waiting": "skipped"}


@dataclass(frozen=True)
class Box:
    """A step at its place; `on_the_way` marks those that lead to the deployed model."""

    step: Step
    x: float
    y: float
    width: float
    name: str
    on_the_way: bool

    @property
    def shown_name(self) -> str:
        room = int((self.width - 28) / LETTER)
        return self.name if len(self.name) <= room else f"{self.name[: room - 1]}…"

    @property
    def status(self) -> str:
        took = seconds_text(self.step.seconds)
        word = STATE_WORDS.get(self.step.state, "")
        return " after ".join(filter(None, [word, took])) if self.step.state == "failed" else word or took

    @property
    def left(self) -> tuple[float, float]:
        return self.x, self.y + HEIGHT / 2

    @property
    def right(self) -> tuple[float, float]:
        return self.x + self.width, self.y + HEIGHT / 2


@dataclass(frozen=True)
class Line:
    """From one box to the next, as an SVG path."""

    path: str
    reached: bool
    on_the_way: bool


def pipeline_picture(record: RunRecord) -> Markup:
    """Draws the steps with their states and times, both layouts; the style sheet shows the one that fits."""
    names = _names(record)
    template = _TEMPLATES.get_template("pipeline_picture.html.j2")
    return Markup(
        template.render(layouts=[("wide", *_wide(record, names)), ("tall", *_tall(record, names))], height=HEIGHT)
    )


def seconds_text(seconds: float | None) -> str:
    """A duration as people write it; empty for None."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _names(record: RunRecord) -> dict[str, str]:
    best = record.ranking.best.name if record.ranking else "best model"
    return {
        "ingest": str(record.parameters["dataset"]),
        "select": best,
        "deploy": str(record.parameters["service_name"]),
    }


def _wide(record: RunRecord, names: dict[str, str]) -> tuple[int, float, list[Box], Sequence[Line]]:
    rows = _models(record)
    height = len(rows) * (HEIGHT + GAP) - GAP
    middle = (height - HEIGHT) / 2

    def box(stage: str, model: str, column: int, y: float) -> Box:
        return _box(record, record.step(stage, model), column * WIDE_COLUMN, y, WIDE_BOX, names)

    ingest, select, deploy = box("ingest", "", 0, middle), box("select", "", 3, middle), box("deploy", "", 4, middle)
    boxes, lines = [ingest, select, deploy], [_curve(select, deploy)]
    for index, model in enumerate(rows):
        y = index * (HEIGHT + GAP)
        train, evaluate = box("train", model, 1, y), box("evaluate", model, 2, y)
        boxes += [train, evaluate]
        lines += [_curve(ingest, train), _curve(train, evaluate), _curve(evaluate, select)]
    return WIDE, height, boxes, _important_last(lines)


def _tall(record: RunRecord, names: dict[str, str]) -> tuple[int, float, list[Box], Sequence[Line]]:
    rows = _models(record)
    pitch = HEIGHT + GAP

    def box(stage: str, model: str, x: float, row: int, width: float) -> Box:
        return _box(record, record.step(stage, model), x, row * pitch, width, names)

    ingest = box("ingest", "", 0, 0, TALL)
    select = box("select", "", 0, len(rows) + 1, TALL)
    deploy = box("deploy", "", 0, len(rows) + 2, TALL)
    boxes = [ingest, select, deploy]
    lines = [Line(f"M{TALL / 2} {select.y + HEIGHT}V{deploy.y}", _reached(deploy), deploy.on_the_way)]
    for index, model in enumerate(rows, start=1):
        train = box("train", model, TALL_INDENT, index, TALL_BOX)
        evaluate = box("evaluate", model, TALL - TALL_INDENT - TALL_BOX, index, TALL_BOX)
        boxes += [train, evaluate]
        lines += [
            Line(f"M9 {HEIGHT}V{train.left[1]}H{train.x}", _reached(train), train.on_the_way),
            _curve(train, evaluate),
            Line(
                f"M{evaluate.right[0]} {evaluate.right[1]}H{TALL - 9}V{select.y}",
                _reached(select),
                evaluate.on_the_way and select.on_the_way,
            ),
        ]
    return TALL, deploy.y + HEIGHT, boxes, _important_last(lines)


def _box(record: RunRecord, step: Step, x: float, y: float, width: float, names: dict[str, str]) -> Box:
    chosen = record.ranking.best.name if record.ranking and record.ranking.passed else None
    on_the_way = chosen is not None and step.model in ("", chosen)
    return Box(step, x, y, width, step.model or names[step.stage], on_the_way)


def _models(record: RunRecord) -> list[str]:
    return [step.model for step in record.steps if step.stage == "train"]


def _curve(start: Box, end: Box) -> Line:
    (x1, y1), (x2, y2) = start.right, end.left
    middle = (x1 + x2) / 2
    path = f"M{x1} {y1:g}C{middle:g} {y1:g} {middle:g} {y2:g} {x2} {y2:g}"
    return Line(path, _reached(end), start.on_the_way and end.on_the_way)


def _reached(box: Box) -> bool:
    return box.step.state not in ("skipped", "waiting")


def _important_last(lines: Iterable[Line]) -> Sequence[Line]:
    """What is drawn last lies on top."""
    return sorted(lines, key=lambda line: (line.on_the_way, line.reached))
