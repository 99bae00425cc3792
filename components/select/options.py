"""What select takes, and what it accepts."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from kfp_image_classification.components.cluster.kubernetes_client import in_cluster
from kfp_image_classification.components.contracts.measures import TOP_FROM_CLASSES, MeasureName
from kfp_image_classification.components.step.errors import InvalidInput

# In `min_recall`, stands for every class that it does not name.
EVERY_CLASS = "*"
MOST_SHOWN = 20


class _Deployment(BaseModel):
    """Where the selected model will be deployed."""

    model_config = ConfigDict(frozen=True)

    deploy_backend: Literal["auto", "local", "kserve"] = "auto"

    @property
    def to_cluster(self) -> bool:
        return self.deploy_backend == "kserve" or (self.deploy_backend == "auto" and in_cluster())


class SelectOptions(_Deployment):
    """Parameters of select.

    Attributes:
        select_by: What the models are compared by, on the validation images: `accuracy`, `macro_f1`,
            `balanced_accuracy`, `log_loss` or `top5`.
        gate: What a model must reach in that to be deployed; of `log_loss`, what it must not exceed.
        min_recall: What share of a class's validation images a model must recognise to be deployed, by class, as JSON;
            `*` stands for every other class.
        deploy_backend: Where the model will be deployed, as deploy takes it; a deployed model that stays is served anew
            on this machine, and left alone on a cluster.
    """

    select_by: MeasureName = "accuracy"
    gate: float = Field(ge=0, allow_inf_nan=False)
    min_recall: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}

    @model_validator(mode="after")
    def _gate_is_a_share(self) -> "SelectOptions":
        if self.select_by != "log_loss" and self.gate > 1:
            raise ValueError(f"gate = {self.gate:g}: {self.select_by} is a share; give a number from 0 to 1")
        return self


def check_classes(options: SelectOptions, class_names: Sequence[str]) -> None:
    """Compares the options with the classes of a data set.

    Raises:
        InvalidInput: When a floor is of no class, or there are too few for the measure.
    """
    problems = [
        f"min_recall: {name!r} is no class of the data set; its classes are {', '.join(class_names[:MOST_SHOWN])}"
        + (f" and {len(class_names) - MOST_SHOWN} more" if len(class_names) > MOST_SHOWN else "")
        for name in options.min_recall
        if name not in class_names and name != EVERY_CLASS
    ]
    if options.select_by == "top5" and len(class_names) < TOP_FROM_CLASSES:
        problems.append(
            f"select_by = 'top5': says little of {len(class_names)} classes; it takes {TOP_FROM_CLASSES} or more"
        )
    if problems:
        raise InvalidInput(problems)


class ChampionOptions(_Deployment):
    """Parameters of find_champion.

    Attributes:
        deploy_backend: Where the model will be deployed, as deploy takes it; the deployed one is looked for there.
        service_name: The service whose model, the champion, a new one must beat by more than chance; empty for none.
        namespace: On a cluster, where that service is; empty for the namespace of the step.
        force: Deploy the best model that passes the gate, however good the deployed one is.
    """

    service_name: str = ""
    namespace: str = ""
    force: bool = False

    @property
    def has_champion(self) -> bool:
        """Whether there may be a deployed model to beat."""
        return bool(self.service_name) and not self.force
