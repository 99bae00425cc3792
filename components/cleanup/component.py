from kfp import dsl

from kfp_image_classification.components.cluster.images import LAUNCHER_IMAGE


@dsl.component(base_image=LAUNCHER_IMAGE, install_kfp_package=False)
def cleanup(days: float = 7.0, dry_run: bool = False) -> int:
    """Removes what nobody uses any more from the shared volume: the files of old runs, and data sets.

    Models are safe: train has published each as an artifact. A data set that is needed again is made again. Mount the
    volume with `mount_storage(task, pvc)`.

    Args:
        days: Runs' folders and data sets that nobody has used for so long go.
        dry_run: Whether only to tell what would go.

    Returns:
        Number of folders removed, or to be removed.
    """
    from kfp_image_classification.components.cleanup.unused_folders import remove_unused
    from kfp_image_classification.components.cluster.storage import run_id, storage_path
    from kfp_image_classification.components.step.errors import reported
    from kfp_image_classification.components.step.process_start import start_process
    from kfp_image_classification.components.step.stage_log import stage_log

    start_process()
    with reported("cleanup"):
        log = stage_log("cleanup")
        done = remove_unused(storage_path(), days, run_id(), dry_run, log)
        told = "would be removed" if dry_run else "removed"
        log.info("folders: %d %s (%s bytes), %d kept", len(done.removed), told, f"{done.freed_bytes:,}", done.kept)
        return len(done.removed)
