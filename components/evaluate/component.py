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
        metrics: Accuracy, loss and macro F1 of both splits, number of parameters and size in bytes.
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
        from kfp_image_classification.components.contracts.model_card import read_model_card
        from kfp_image_classification.components.evaluate.evaluation_page import evaluation_page
        from kfp_image_classification.components.evaluate.predictions import predict_split
        from kfp_image_classification.components.evaluate.scores import score

        dataset = Dataset(shards.path)
        class_names = dataset.manifest.class_names
        with in_use(Path(dataset.manifest.root or shards.path)):
            validation = score(predict_split(Path(model.path), dataset, "validation"), class_names)
            predictions = predict_split(Path(model.path), dataset, "test")
        test = score(predictions, class_names)

        metrics.log_metric("val_accuracy", validation.accuracy)
        metrics.log_metric("val_loss", validation.loss)
        metrics.log_metric("test_accuracy", test.accuracy)
        metrics.log_metric("test_loss", test.loss)
        metrics.log_metric("test_macro_f1", test.macro_f1)
        metrics.log_metric("parameters", read_model_card(model.path).parameters)
        metrics.log_metric("bytes", sum(path.stat().st_size for path in Path(model.path, "1").rglob("*.*")))
        confusion.log_confusion_matrix(class_names, test.confusion.tolist())
        # kfp.local takes an output without a file for lost, and would never use the step's cached results.
        for output in (metrics, confusion):
            Path(output.path).write_text(json.dumps(output.metadata), encoding="utf-8")
        Path(report.path).write_text(
            evaluation_page(model_type, class_names, validation, test, predictions), encoding="utf-8"
        )
        stage_log(stage).info("val_accuracy %.4f, test_accuracy %.4f", validation.accuracy, test.accuracy)
