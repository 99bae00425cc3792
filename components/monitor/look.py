"""A look at a service: reads what the model knows and what it was asked lately, and compares."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import tensorflow as tf

from kfp_image_classification.components.contracts.dataset_manifest import Dataset, DatasetManifest
from kfp_image_classification.components.contracts.evaluation import (
    NO_CHAMPION_FILE,
    Evaluation,
    NoChampion,
    read_answers,
)
from kfp_image_classification.components.contracts.folders import open_folder
from kfp_image_classification.components.contracts.preprocessing import decode_image
from kfp_image_classification.components.monitor.drift import Sample, compared, confidence_counts
from kfp_image_classification.components.monitor.feedback import (
    hits,
    labelled_images,
    read_labels,
    unknown_labels,
    write_image_list,
)
from kfp_image_classification.components.monitor.findings import Findings, decided, live_accuracy
from kfp_image_classification.components.monitor.monitor_page import monitor_page
from kfp_image_classification.components.monitor.options import LIST_PREFIX, MonitorOptions
from kfp_image_classification.components.monitor.prometheus_text import prometheus_text, push
from kfp_image_classification.components.monitor.seen import LogReader, Seen

MOST_NAMED = 5


@dataclass(frozen=True)
class Look:
    """What came out.

    Attributes:
        retrain: Whether to train anew.
        dataset: On what, as ingest takes it.
        metrics: Numbers, by name.
        prometheus: The same for Prometheus.
        page: An HTML document.
        words: What was found and what follows, in a sentence.
        warnings: What did not work, and stops nothing.
    """

    retrain: bool
    dataset: str
    metrics: dict[str, float]
    prometheus: str
    page: str
    words: str
    warnings: list[str]


def look(shards: Path, evaluation: Path, options: MonitorOptions) -> Look:
    """Looks at a service.

    Args:
        shards: Folder of the data set.
        evaluation: Folder of the model's evaluation on it.
        options: What to look at.

    Raises:
        InvalidInput: When the labels or places are not what they should be.
        StageFailed: When something cannot be read or written.
    """
    manifest = Dataset(shards).manifest
    labels = read_labels(options.feedback) if options.feedback else {}
    image_shape = manifest.image_shape

    # Traced once: eagerly, an image takes twenty times as long.
    decode = tf.function(lambda file: decode_image(file, image_shape), input_signature=[tf.TensorSpec([], tf.string)])

    def fitted(file: bytes) -> np.ndarray:
        try:
            pixels: np.ndarray = decode(tf.constant(file)).numpy()
        except tf.errors.OpError as error:
            raise ValueError(str(error)) from None
        return pixels

    reader = LogReader(manifest.class_names, image_shape, fitted, options.most_images, labels)
    since = datetime.now(UTC) - timedelta(hours=options.hours)
    seen = reader.read(open_folder(options.events, "events"), since, options.service_name)
    samples = [*_pixel_samples(manifest, seen), *_answer_samples(manifest, evaluation, seen)]
    right, known = hits(seen, labels)
    labelled = labelled_images(seen, labels)
    dataset, new_labels = options.dataset, 0
    if labelled and options.labelled_dir:
        written = write_image_list(labelled, options.labelled_dir, options.base_list)
        dataset, new_labels = LIST_PREFIX + written.place, written.new
    findings = Findings(
        comparisons=compared(samples, options.threshold),
        live=live_accuracy(right, known),
        live_images=known,
        new_labels=new_labels,
        new_images=options.new_images,
        known_images=options.known_images,
    )
    decision = decided(findings, options.retrain_on, options.min_new_images)
    warnings = []
    if unknown := unknown_labels(labels, manifest.class_names):
        named = ", ".join(map(repr, unknown[:MOST_NAMED])) + (" and others" if len(unknown) > MOST_NAMED else "")
        warnings.append(f"feedback: {named}: no class of the data set; where images are learnt from, it becomes one")
    if options.push_to and (failed := push(findings, options.push_to, options.service_name)):
        warnings.append(failed)
    return Look(
        retrain=decision.retrain,
        dataset=dataset,
        metrics=_metrics(findings, seen),
        prometheus=prometheus_text(findings),
        page=monitor_page(findings, decision, seen, samples, manifest.class_names, options.threshold),
        words=f"{findings.words}; {decision.words}",
        warnings=warnings,
    )


def _pixel_samples(manifest: DatasetManifest, seen: Seen) -> list[Sample]:
    """None from a data set of an earlier version, whose manifest has no report."""
    if manifest.report is None:
        return []
    known = manifest.report.splits["train"].pixels
    return [
        Sample("brightness", np.array(known.brightness), np.array(seen.pixels.brightness), is_ordered=True),
        Sample("contrast", np.array(known.contrast), np.array(seen.pixels.contrast), is_ordered=True),
    ]


def _answer_samples(manifest: DatasetManifest, evaluation: Path, seen: Seen) -> list[Sample]:
    """None where no model could be measured on the data set."""
    if NoChampion.read(evaluation / NO_CHAMPION_FILE):
        return []
    Evaluation.read(evaluation)
    answers = read_answers(evaluation, "validation")
    predicted = np.bincount(answers["predicted"], minlength=len(manifest.class_names))
    known = confidence_counts(answers["confidence"])
    return [
        Sample("confidence", known, confidence_counts(np.array(seen.confidences, float)), is_ordered=True),
        Sample("classes", predicted, seen.classes, is_ordered=False),
    ]


def _metrics(findings: Findings, seen: Seen) -> dict[str, float]:
    found: dict[str, float] = {
        "requests": seen.requests,
        "drifted": len(findings.drifted),
        "new_images": findings.all_new,
    }
    for one in findings.comparisons:
        if one.verdict != "too few":
            found[f"{one.name}_index"] = one.index
            found[f"{one.name}_by_chance"] = one.p_value
    if findings.live:
        found["live_accuracy"] = findings.live.value
        found["labels"] = findings.live_images
    return found
