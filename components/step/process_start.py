"""What every process of this package does before anything else."""

from collections.abc import Callable

from kfp_image_classification.components.step.environment import settle_environment
from kfp_image_classification.components.step.output import steady_streams
from kfp_image_classification.components.step.process_owner import leave_with_owner


def start_process(on_orphaned: Callable[[], None] | None = None, outlives_parent: bool = False) -> None:
    """Takes from the environment what is meant for this package, and no more; leaves when the owner is gone.

    Args:
        on_orphaned: Called once when the owner is gone; by default the process ends at once.
        outlives_parent: Whether it stays when the process is gone that started it.
    """
    steady_streams()
    settle_environment()
    leave_with_owner(on_orphaned, outlives_parent)
