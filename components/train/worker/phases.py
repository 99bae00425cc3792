"""The phases of a training: with weights from elsewhere, first the head alone may be trained, and then all layers.

Each phase has an optimizer of its own, so all layers begin with moments that know nothing of the head's first,
large gradients. Which phase a step is in follows from its number alone, and both optimizers are in every checkpoint.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from kfp_image_classification.components.train.learning_rate import Schedule
from kfp_image_classification.components.train.options import TrainOptions
from kfp_image_classification.components.train.worker.optimizers import FusedAdam, FusedMomentum, build_optimizer
from kfp_image_classification.components.train.worker.trained_part import TrainedPart, head_alone, whole


@dataclass(frozen=True)
class Phase:
    """A stretch of the training in which the same weights are moved.

    Attributes:
        first_step: The step with which it begins.
        end_step: The one that is no more of it.
        part: What is trained.
        optimizer: What moves it.
        words: What the log says when it begins; empty for nothing.
    """

    first_step: int
    end_step: int
    part: TrainedPart
    optimizer: FusedAdam | FusedMomentum
    words: str = ""


def rates_of(options: TrainOptions, epoch_steps: int, frozen_steps: int) -> NDArray[np.float32]:
    """The learning rate of each step, float32 [steps]: the schedule's, and after the frozen phase a part of it.

    Args:
        options: The parameters.
        epoch_steps: Steps of an epoch.
        frozen_steps: In which the head alone is trained.
    """
    rates = Schedule.parse(options.learning_rates).rates(options.epochs, epoch_steps)
    if frozen_steps:
        rates[frozen_steps:] *= np.float32(options.fine_tuning_rate)
    return rates


def plan_phases(
    model: keras.Model, options: TrainOptions, rates: NDArray[np.float32], frozen_steps: int
) -> list[Phase]:
    """Plans the phases, and builds their optimizers; to be called under the strategy.

    Args:
        model: What is trained.
        options: The parameters.
        rates: The learning rate of each step, float32 [steps].
        frozen_steps: In which the head alone is trained; 0 for no such phase.

    Returns:
        One or two, the one that trains all layers last, though it may have no steps.

    Raises:
        InvalidInput: When a user's model has no head that could be trained alone.
    """
    planned = []
    if frozen_steps:
        part = head_alone(model, options.architecture)
        words = f"the head alone is trained: {sum(int(np.prod(one.shape)) for one in part.variables):,} weights"
        planned.append(Phase(0, frozen_steps, part, _optimizer(options, rates[:frozen_steps], part), words))
    part = whole(model)
    words = f"all layers are trained, at {options.fine_tuning_rate:g} of the learning rate" if frozen_steps else ""
    left = rates[frozen_steps:] if frozen_steps < len(rates) else rates[-1:]
    planned.append(Phase(frozen_steps, len(rates), part, _optimizer(options, left, part), words))
    return planned


def phase_at(phases: Sequence[Phase], step: int) -> Phase:
    """The phase of a step; of the step after the last one, the last phase that has any."""
    return next((phase for phase in phases if phase.first_step <= step < phase.end_step), phases[-1])


def _optimizer(options: TrainOptions, rates: NDArray[np.float32], part: TrainedPart) -> FusedAdam | FusedMomentum:
    optimizer = build_optimizer(options, rates)
    optimizer.build(part.variables)
    optimizer.average_also([*part.statistics])
    return optimizer
