"""The pipeline of a run as a picture: a box a step, a branch a model, in a wide layout and in a tall one for phones."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kfp_image_classification.pipelines.runner.local.run_record import RunRecord, Step

_TEMPLATES = Environment(
    loader=PackageLoader("kfp_image_classification.pipelines.runner.local", "."),
    autoescape=True,
    undefined=StrictUndefined,
)

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
        "ingest": str(record.parameters["dataset"]).rstrip("/").rsplit("/", 1)[-1],
        "select": best,
        "deploy": str(record.parameters["service_name"]),
        "track": "MLflow",
    }


def _wide(record: RunRecord, names: dict[str, str]) -> tuple[int, float, list[Box], Sequence[Line]]:
    rows, last = _models(record), _last_steps(record)
    pitch = HEIGHT + GAP
    height = max(len(rows), len(last)) * pitch - GAP

    def box(step: Step, column: int, row: float) -> Box:
        return _box(record, step, column * WIDE_COLUMN, row * pitch, WIDE_BOX, names)

    middle = (height - HEIGHT) / 2 / pitch
    ingest, select = box(record.step("ingest"), 0, middle), box(record.step("select"), 3, middle)
    boxes, lines = [ingest, select], []
    for index, step in enumerate(last):
        boxes.append(box(step, 4, middle + index - (len(last) - 1) / 2))
        lines.append(_curve(select, boxes[-1]))
    for index, model in enumerate(rows):
        row = middle + index - (len(rows) - 1) / 2
        train, evaluate = box(record.step("train", model), 1, row), box(record.step("evaluate", model), 2, row)
        boxes += [train, evaluate]
        lines += [_curve(ingest, train), _curve(train, evaluate), _curve(evaluate, select)]
    return WIDE, height, boxes, _important_last(lines)


def _tall(record: RunRecord, names: dict[str, str]) -> tuple[int, float, list[Box], Sequence[Line]]:
    rows, last = _models(record), _last_steps(record)
    pitch = HEIGHT + GAP

    def box(step: Step, x: float, row: int, width: float) -> Box:
        return _box(record, step, x, row * pitch, width, names)

    ingest = box(record.step("ingest"), 0, 0, TALL)
    select = box(record.step("select"), 0, len(rows) + 1, TALL)
    boxes, lines = [ingest, select], []
    for index, step in enumerate(last, start=len(rows) + 2):
        end = box(step, 0, index, TALL)
        boxes.append(end)
        lines.append(Line(f"M{TALL / 2} {end.y - GAP}V{end.y}", _reached(end), end.on_the_way))
    for index, model in enumerate(rows, start=1):
        train = box(record.step("train", model), TALL_INDENT, index, TALL_BOX)
        evaluate = box(record.step("evaluate", model), TALL - TALL_INDENT - TALL_BOX, index, TALL_BOX)
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
    return TALL, max(end.y for end in boxes) + HEIGHT, boxes, _important_last(lines)


def _box(record: RunRecord, step: Step, x: float, y: float, width: float, names: dict[str, str]) -> Box:
    chosen = record.ranking.best.name if record.ranking and record.ranking.passed else None
    on_the_way = chosen is not None and step.model in ("", chosen) and step.state in ("done", "cached")
    return Box(step, x, y, width, step.model or names.get(step.stage, step.stage), on_the_way)


def _models(record: RunRecord) -> list[str]:
    return [step.model for step in record.steps if step.stage == "train"]


def _last_steps(record: RunRecord) -> list[Step]:
    """What follows the selection: deploy, and whatever else a pipeline does with the selected model."""
    return [step for step in record.steps if step.stage not in ("ingest", "train", "evaluate", "select")]


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
