"""The page that shows what a service was asked lately beside what its model knows."""

import itertools
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from kfp_image_classification.components.contracts.data_report import BINS
from kfp_image_classification.components.monitor.drift import CONFIDENCE_EDGES, Comparison, Sample
from kfp_image_classification.components.monitor.findings import Decision, Findings
from kfp_image_classification.components.monitor.seen import Seen
from kfp_image_classification.components.report import html_report
from kfp_image_classification.components.report.html_report import Figure, Section, Series, Tile

MOST_CLASSES = 30
# Smaller ones only tell how many images there are.
LEAST_CHANCE = 1e-6
SUMMARY = "What the service was asked and answered lately, beside what its model knows"
RULE = (
    "The index is the population stability index of the shares of ranges or classes. Something has drifted when the "
    "index is at the threshold or above and chance, by a chi-square test, does not make such a difference. Nothing is "
    "said from fewer images than find a drift of the threshold's size nine times in ten."
)


def monitor_page(
    findings: Findings,
    decision: Decision,
    seen: Seen,
    samples: Sequence[Sample],
    class_names: Sequence[str],
    threshold: float,
) -> str:
    """Renders the page.

    Args:
        findings: The verdicts.
        decision: What follows from them.
        seen: What was seen lately.
        samples: What was compared.
        class_names: In the model's order.
        threshold: The index from which on something has drifted.
    """
    tone = "bad" if findings.drifted else "warn" if findings.silent else "good"
    sections = [Section("Comparison", _comparison_table(findings.comparisons) + html_report.note(RULE))]
    if drawn := [_chart(sample) for sample in samples if len(sample.reference) == BINS and sample.is_ordered]:
        body = html_report.charts(*drawn) + html_report.legend(["the model knows", "lately"])
        sections.append(Section("Distributions", body))
    for sample in samples:
        if sample.name == "confidence":
            sections.append(Section("Confidence", _confidence_table(sample)))
        elif not sample.is_ordered:
            sections.append(Section("Answers", _classes_table(sample, class_names)))
    if seen.unused:
        sections.append(Section("Not used", html_report.table(["what", "how many"], seen.unused.most_common())))
    opening = html_report.banner(tone, f"{_sentence(findings.words)} {_sentence(decision.words)}") + html_report.tiles(
        _tiles(findings, seen, threshold)
    )
    return html_report.page("Monitor", SUMMARY, sections, opening)


def _tiles(findings: Findings, seen: Seen, threshold: float) -> list[Tile]:
    period = f"{seen.first:%Y-%m-%d %H:%M} to {seen.last:%Y-%m-%d %H:%M} UTC" if seen.first and seen.last else ""
    worst = max(findings.comparisons, key=lambda one: one.index * (one.verdict != "too few"), default=None)
    tiles = [Tile("requests", f"{seen.requests:,}", period), Tile("answers", f"{int(seen.classes.sum()):,}")]
    if worst and worst.verdict != "too few":
        tone = "bad" if worst.verdict == "drift" else "good"
        tiles.append(Tile("largest index", f"{worst.index:.2f}", f"{worst.name}; threshold {threshold:g}", tone))
    if findings.all_new:
        labelled = [f"{findings.new_labels:,} are labelled requests"] if findings.new_labels else []
        known = [f"the model was trained on {findings.known_images:,}"] if findings.known_images else []
        tiles.append(Tile("new images", f"{findings.all_new:,}", "; ".join([*labelled, *known])))
    if findings.live:
        low, high = findings.live.low, findings.live.high
        detail = f"{100 * low:.1f} to {100 * high:.1f}%, of {findings.live_images:,} answers with a label"
        tiles.append(Tile("live accuracy", f"{findings.live.value:.1%}", detail))
    return tiles


def _comparison_table(comparisons: Sequence[Comparison]) -> Markup:
    words = {"drift": "drift", "steady": "steady", "too few": "too few to tell"}
    rows = [
        [
            one.name,
            Figure("-" if one.verdict == "too few" else f"{one.index:.3f}"),
            Figure("-" if one.verdict == "too few" else _chance(one.p_value)),
            one.images,
            Figure("the data set is too small" if one.needed is None else f"{one.needed:,}"),
            words[one.verdict],
        ]
        for one in comparisons
    ]
    return html_report.table(["of", "index", "by chance", "images", "needed", "verdict"], rows)


def _chance(p_value: float) -> str:
    return f"{p_value:.2g}" if p_value > LEAST_CHANCE else f"< {LEAST_CHANCE:g}"


def _chart(sample: Sample) -> Markup:
    lines = []
    for colour, (name, counts) in enumerate((("the model knows", sample.reference), ("lately", sample.lately))):
        shares = counts / max(1, counts.sum())
        points = [(256 / BINS * (at + 0.5), share) for at, share in enumerate(shares.tolist())]
        lines.append(Series(name, points, colour))
    return html_report.line_chart(f"Share of images by {sample.name}", lines, "%", f"{sample.name}, 0 to 255")


def _confidence_table(sample: Sample) -> Markup:
    # A chart would be a wall at its right edge: most of a good model's answers are all but certain.
    known, lately = (counts / max(1, counts.sum()) for counts in (sample.reference, sample.lately))
    ranges = [f"{100 * low:g} to {100 * high:g}%" for low, high in itertools.pairwise(CONFIDENCE_EDGES)]
    rows = [
        [words, _share(before), _share(now), int(images)]
        for words, before, now, images in zip(ranges, known, lately, sample.lately, strict=True)
    ]
    return html_report.table(["sure by", "for validation images", "lately", "answers lately"], rows)


def _classes_table(sample: Sample, class_names: Sequence[str]) -> Markup:
    known, lately = (counts / max(1, counts.sum()) for counts in (sample.reference, sample.lately))
    order = np.argsort(-np.abs(known - lately), kind="stable")[:MOST_CLASSES]
    rows = [[class_names[at], _share(known[at]), _share(lately[at]), int(sample.lately[at])] for at in order]
    table = html_report.table(["class", "answered for validation images", "lately", "images lately"], rows)
    return table + html_report.note("Those that differ most come first.")


def _share(share: float) -> Figure:
    return Figure(f"{share:.1%}")


def _sentence(words: str) -> str:
    return words[0].upper() + words[1:] + "."
