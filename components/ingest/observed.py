"""What is noted of each example while it is written, and what becomes of the notes: the data set's report.

Notes are a few bytes an example, and add up: those of ranges, of processes and of parts are put together in any order,
and the report is the same.
"""

import hashlib
from collections.abc import Mapping

import numpy as np

from kfp_image_classification.components.contracts.data_report import (
    Copy,
    DataReport,
    PixelReport,
    Shared,
    SizeCount,
    SplitReport,
)
from kfp_image_classification.components.contracts.dataset_manifest import RAW, SPLITS, RecordLayout, SplitName
from kfp_image_classification.components.contracts.pixel_sums import PixelSums
from kfp_image_classification.components.ingest.image_header import image_header
from kfp_image_classification.components.ingest.sources.source import Content, Source
from kfp_image_classification.components.ingest.split_plan import SplitPlan

ENCODINGS = ("PNG", "JPEG", "pixels")
# One example: its number among those of the source's split, its class, and of its content what tells it from others.
NOTE = np.dtype(
    [
        ("index", "u4"),
        ("label", "i4"),
        ("digest", "u8"),
        ("width", "u4"),
        ("height", "u4"),
        ("orientation", "u1"),
        ("encoding", "u1"),
    ]
)
# Pixels are measured of so many images of a split, evenly spread.
MEASURED = 5_000
# Where images are kept as files, only for that they are decoded in full: of one in fifty, but of so many at least.
MEASURED_FILES, MEASURED_SHARE = 32, 50
MOST_SIZES = 12
MOST_COPIES = 60


def note(index: int, label: int, content: Content) -> tuple[int, ...]:
    """A row of `NOTE` about an example that decodes.

    Args:
        index: Its number in the source's split.
        label: Its class.
        content: As the source gave it.
    """
    if isinstance(content, bytes):
        encoding, width, height, orientation = image_header(content)
    else:
        encoding, (height, width), orientation = "pixels", content.shape[:2], 1
    digest = hashlib.sha256(content if isinstance(content, bytes) else content.tobytes()).digest()
    return index, label, int.from_bytes(digest[:8]), width, height, orientation, ENCODINGS.index(encoding)


def is_measured(position: int, count: int, layout: RecordLayout) -> bool:
    """Whether the pixels of a split's example are measured.

    Args:
        position: Its place among the examples of the split, in ascending order of their index.
        count: How many the split has.
        layout: How images are kept.
    """
    wanted = MEASURED if layout == RAW else min(MEASURED, max(MEASURED_FILES, count // MEASURED_SHARE))
    return position % -(-count // wanted) == 0


def data_report(
    source: Source, plan: SplitPlan, notes: Mapping[SplitName, np.ndarray], sums: Mapping[SplitName, PixelSums]
) -> DataReport:
    """Reports what was seen.

    Args:
        source: What was read.
        plan: Which of it went where.
        notes: `NOTE` [n] of each split, in any order.
        sums: Over the pixels of each split.
    """
    ordered = {split: notes[split][np.argsort(notes[split]["index"])] for split in SPLITS}
    copies = _Copies(source, plan, ordered)
    return DataReport(
        splits={split: _split_report(ordered[split], copies.within(split), sums[split].report()) for split in SPLITS},
        skipped=dict(source.skipped),
        shared=copies.shared(),
        contradictions=copies.contradictions(),
        copies=copies.some(),
    )


def _split_report(notes: np.ndarray, copies: int, pixels: PixelReport) -> SplitReport:
    # As one number each: numpy is many times slower with fields of structures.
    sizes, counts = np.unique(notes["width"].astype(np.int64) << 32 | notes["height"], return_counts=True)
    widths, heights = sizes >> 32, sizes & 0xFFFF_FFFF
    by_count = np.argsort(-counts, kind="stable")[:MOST_SIZES]
    smallest, largest = (widths * heights).argmin(), (widths * heights).argmax()
    encodings = np.bincount(notes["encoding"], minlength=len(ENCODINGS))
    return SplitReport(
        encodings={name: int(count) for name, count in zip(ENCODINGS, encodings, strict=True) if count},
        turned=int(np.count_nonzero(notes["orientation"] > 1)),
        sizes=[SizeCount(width=int(widths[at]), height=int(heights[at]), images=int(counts[at])) for at in by_count],
        other_sizes=int(counts.sum() - counts[by_count].sum()),
        smallest=(int(widths[smallest]), int(heights[smallest])),
        largest=(int(widths[largest]), int(heights[largest])),
        copies=copies,
        pixels=pixels,
    )


class _Copies:
    """Examples of the same content, found by sorting their digests."""

    def __init__(self, source: Source, plan: SplitPlan, notes: Mapping[SplitName, np.ndarray]) -> None:
        self._source, self._plan = source, plan
        roles = np.concatenate([np.full(len(notes[split]), role, np.uint8) for role, split in enumerate(SPLITS)])
        every = np.concatenate([notes[split] for split in SPLITS])
        order = np.argsort(every["digest"], kind="stable")
        digests = every["digest"][order]
        # Examples whose digest another has, too, groups one after the other; within one first those of train.
        same = digests[1:] == digests[:-1]
        again = np.concatenate([[False], same]) | np.concatenate([same, [False]])
        self._notes, self._roles = every[order][again], roles[order][again]
        digests = self._notes["digest"]
        is_first = np.ones(len(digests), bool)
        is_first[1:] = digests[1:] != digests[:-1]
        self._starts, self._group = np.flatnonzero(is_first), np.cumsum(is_first) - 1

    def within(self, split: SplitName) -> int:
        """How many of a split are the second, third, ... of their content there."""
        groups = self._group[self._roles == SPLITS.index(split)]
        return len(groups) - len(np.unique(groups))

    def shared(self) -> list[Shared]:
        found = []
        pairs: list[tuple[SplitName, SplitName]] = [("train", "test"), ("validation", "test"), ("train", "validation")]
        for first, second in pairs:
            known = self._group[self._roles == SPLITS.index(first)]
            images = int(np.isin(self._group[self._roles == SPLITS.index(second)], known).sum())
            if images:
                found.append(Shared(first=first, second=second, images=images))
        return found

    def contradictions(self) -> int:
        """How many examples have a copy of another class."""
        first_labels = self._notes["label"][self._starts][self._group]
        mixed = np.unique(self._group[self._notes["label"] != first_labels])
        return int(np.isin(self._group, mixed).sum())

    def some(self) -> list[Copy]:
        first = self._starts[self._group]
        others = np.flatnonzero(np.arange(len(self._notes)) != first)
        alike_role = self._roles[others] == self._roles[first[others]]
        alike_class = self._notes["label"][others] == self._notes["label"][first[others]]
        shown = others[np.lexsort((alike_class, alike_role))][:MOST_COPIES]
        return [self._copy(int(first[one]), int(one)) for one in shown]

    def _copy(self, first: int, second: int) -> Copy:
        (first_split, first_name, first_class), (second_split, second_name, second_class) = map(
            self._told, (first, second)
        )
        return Copy(
            first=first_name,
            first_split=first_split,
            first_class=first_class,
            second=second_name,
            second_split=second_split,
            second_class=second_class,
        )

    def _told(self, at: int) -> tuple[SplitName, str, str]:
        split = SPLITS[self._roles[at]]
        (examples, _), *_ = self._plan.parts(split)
        return split, examples.name(int(self._notes["index"][at])), self._source.class_names[self._notes["label"][at]]
