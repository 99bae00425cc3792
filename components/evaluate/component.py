from kfp import dsl

from kfp_image_classification.components.cluster.images import TENSORFLOW_IMAGE


@dsl.component(base_image=TENSORFLOW_IMAGE, install_kfp_package=False)
def evaluate(
    model: dsl.Input[dsl.Model],
    shards: dsl.Input[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    confusion: dsl.Output[dsl.ClassificationMetrics],
    report: dsl.Output[dsl.HTML],
):
    """Measures an exported model on the validation and test splits, through the signature that will serve it.

    Args:
        model: A model from train.
        shards: The data set from ingest on which it was trained.
        metrics: The scores of both splits with their 95% intervals, number of parameters, size and speed; as files,
            the model's answers image by image.
        confusion: Confusion matrix of the test split.
        report: A page with the confusion matrix, scores by class, and the most confidently wrong images.
    """
    import json
    from pathlib import Path

    from kfp_image_classification.components.step.errors import reported
    from kfp_image_classification.components.step.lean_import import import_without
    from kfp_image_classification.components.step.process_start import start_process
    from kfp_image_classification.components.step.stage_log import stage_log

    start_process()
    model_type = str(model.metadata.get("model_type", model.name))
    stage = f"evaluate {model_type}"
    with reported(stage):
        with import_without("keras"):
            import tensorflow  # noqa: F401
        from kfp_image_classification.components.cluster.storage import in_use
        from kfp_image_classification.components.contracts.dataset_manifest import Dataset
        from kfp_image_classification.components.contracts.measures import score_words
        from kfp_image_classification.components.evaluate.evaluation_page import evaluation_page
        from kfp_image_classification.components.evaluate.measuring import evaluation_of, measure_split
        from kfp_image_classification.components.evaluate.metrics import metrics_of
        from kfp_image_classification.components.evaluate.predictions import ServedModel, check_fits

        folder, dataset = Path(model.path), Dataset(shards.path)
        check_fits(folder, dataset)
        output = Path(metrics.path)
        output.mkdir(parents=True, exist_ok=True)
        served = ServedModel(folder, dataset.manifest.class_names)
        with in_use(Path(dataset.manifest.root or shards.path)):
            validation = measure_split(served, dataset, "validation", output)
            test = measure_split(served, dataset, "test", output)
        evaluation = evaluation_of(folder, model.uri, served, dataset, {"validation": validation, "test": test})
        evaluation.write(output)
        for name, value in metrics_of(evaluation).items():
            metrics.log_metric(name, value)
        confusion.log_confusion_matrix(dataset.manifest.class_names, test.tally.confusion.tolist())
        # kfp.local takes an output without a file for lost, and would never use the step's cached results.
        Path(confusion.path).write_text(json.dumps(confusion.metadata), encoding="utf-8")
        Path(report.path).write_text(evaluation_page(model_type, evaluation.splits, test), encoding="utf-8")
        stage_log(stage).info(
            ", ".join(
                f"{split} accuracy {score_words('accuracy', scores.accuracy)}"
                for split, scores in evaluation.splits.items()
            )
        )
