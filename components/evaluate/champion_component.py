from kfp import dsl

from kfp_image_classification.components.cluster.images import TENSORFLOW_IMAGE


@dsl.component(base_image=TENSORFLOW_IMAGE, install_kfp_package=False)
def measure_champion(
    champion: dsl.Input[dsl.Model],
    shards: dsl.Input[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
):
    """Measures the deployed model on the validation images of today, as evaluate measures a new one.

    Args:
        champion: What find_champion found: the model, or a note that there is none.
        shards: The data set from ingest, the one on which the new models were trained.
        metrics: The champion's scores and, as files, its answers image by image; or why there are none.
    """
    from pathlib import Path

    from kfp_image_classification.components.step.errors import reported
    from kfp_image_classification.components.step.lean_import import import_without
    from kfp_image_classification.components.step.process_start import start_process
    from kfp_image_classification.components.step.stage_log import stage_log

    start_process()
    with reported("measure-champion"):
        from kfp_image_classification.components.contracts.evaluation import NO_CHAMPION_FILE, NoChampion

        log, folder, output = stage_log("measure-champion"), Path(champion.path), Path(metrics.path)
        output.mkdir(parents=True, exist_ok=True)
        none = NoChampion.read(folder)
        if none is None:
            with import_without("keras"):
                import tensorflow  # noqa: F401
            from kfp_image_classification.components.contracts.dataset_manifest import Dataset
            from kfp_image_classification.components.evaluate.champion import measured_champion
            from kfp_image_classification.components.evaluate.metrics import metrics_of

            measured = measured_champion(folder, champion.uri, Dataset(shards.path), output)
            if isinstance(measured, NoChampion):
                none = measured
                log.warning("the deployed model is not measured: %s", none.reason)
            else:
                measured.write(output)
                for name, value in metrics_of(measured).items():
                    metrics.log_metric(name, value)
                log.info("%s, val_accuracy %.4f", measured.model_type, measured.splits["validation"].accuracy.value)
        if none:
            none.write(output / NO_CHAMPION_FILE)
