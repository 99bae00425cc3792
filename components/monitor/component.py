from kfp import dsl

from kfp_image_classification.components.cluster.images import TENSORFLOW_IMAGE
from kfp_image_classification.components.monitor.options import MonitorOptions
from kfp_image_classification.components.step.options import described_by


@dsl.component(base_image=TENSORFLOW_IMAGE, install_kfp_package=False)
@described_by(MonitorOptions)
def monitor(
    shards: dsl.Input[dsl.Dataset],
    evaluation: dsl.Input[dsl.Metrics],
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
    events: str,
    service_name: str = "",
    hours: float = 24.0,
    most_images: int = 5000,
    threshold: float = 0.2,
    feedback: str = "",
    labelled_dir: str = "",
    dataset: str = "",
    retrain_on: str = "drift",
    min_new_images: float = 100.0,
    new_images: int = 0,
    known_images: int = 0,
    push_to: str = "",
) -> str:
    """Compares what a service was asked and answered lately with what its model knows.

    Args:
        shards: The data set from ingest on which the model was trained.
        evaluation: The model's metrics on it, from evaluate or measure_champion.
        metrics: Index, chance and verdict of each comparison, and the live accuracy where there are labels.
        report: A page that shows both, and what follows.

    Returns:
        What to train on anew, a new data set with the labelled images, else `dataset`; empty without a reason to train.
    """
    arguments = locals()
    from pathlib import Path

    from kfp_image_classification.components.monitor.options import MonitorOptions
    from kfp_image_classification.components.step.errors import reported
    from kfp_image_classification.components.step.lean_import import import_without
    from kfp_image_classification.components.step.options import options_from
    from kfp_image_classification.components.step.process_start import start_process
    from kfp_image_classification.components.step.stage_log import stage_log

    start_process()
    with reported("monitor"):
        options = options_from(MonitorOptions, arguments)
        with import_without("keras"):
            import tensorflow  # noqa: F401
        from kfp_image_classification.components.monitor.look import look

        found = look(Path(shards.path), Path(evaluation.path), options)
        for name, value in found.metrics.items():
            metrics.log_metric(name, value)
        # kfp.local takes an output without a file for lost.
        Path(metrics.path).write_text(found.prometheus, encoding="utf-8")
        report.metadata["found"] = found.words
        Path(report.path).write_text(found.page, encoding="utf-8")
        log = stage_log("monitor")
        log.info(found.words)
        for warning in found.warnings:
            log.warning(warning)
        # One value: kfp.local understands no condition on an output that has a name.
        return found.dataset if found.retrain else ""
