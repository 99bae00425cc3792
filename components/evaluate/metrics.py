"""An evaluation as the flat numbers that Kubeflow Pipelines and MLflow show."""

from kfp_image_classification.components.contracts.evaluation import Evaluation
from kfp_image_classification.components.contracts.measures import MeasureName

# What training calls its loss is the same number.
NAMES: dict[MeasureName, str] = {
    "accuracy": "accuracy",
    "log_loss": "loss",
    "macro_f1": "macro_f1",
    "balanced_accuracy": "balanced_accuracy",
    "top5": "top5",
}
PREFIXES = {"validation": "val", "test": "test"}


def metrics_of(evaluation: Evaluation) -> dict[str, float]:
    """The numbers by name: each score, and with `_low` and `_high` behind its name the ends of its interval."""
    metrics: dict[str, float] = {}
    for split, scores in evaluation.splits.items():
        for measure, score in scores.measured().items():
            name = f"{PREFIXES[split]}_{NAMES[measure]}"
            metrics |= {name: score.value, f"{name}_low": score.low, f"{name}_high": score.high}
        metrics[f"{PREFIXES[split]}_ece"] = scores.ece
    return {
        **metrics,
        "parameters": evaluation.parameters,
        "bytes": evaluation.bytes,
        "answer_milliseconds": 1000 * evaluation.answer_seconds,
    }
