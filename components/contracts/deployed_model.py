"""What an InferenceService says of the model it serves: deploy writes it, select reads it as the next run's champion.

It stands in the annotations of the predictor, from where KServe copies it to the pods: each pod leads back to the run
that made it, and during a canary both versions keep their own. On one machine, a file for each service name says it.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from kfp_image_classification.components.contracts.selected_model import selected_uri
from kfp_image_classification.components.step.whole_file import write_whole

GROUP, VERSION, PLURAL = "serving.kserve.io", "v1beta1", "inferenceservices"

_PREFIX = "kfp-image-classification"
REVISION_ANNOTATION = f"{_PREFIX}/revision"
# On one machine, the folder in which runs note what they served last; without it, nothing is noted.
SERVED_VARIABLE = "SERVED_MODELS"
# The predictor that this one took the place of, as JSON: what `rollback` goes back to.
REPLACES_ANNOTATION = f"{_PREFIX}/replaces"

# In place of a path or URI, as the `initial_model` of a training: the model that the service has now.
DEPLOYED = "deployed"
# In place of its URI. Not the empty text: kfp.local 2.17 puts the item of a loop in place of an empty parameter.
NOTHING_DEPLOYED = "none"
# That setting of one of `models`, in either form.
_BEGINS_WITH_IT = re.compile(rf'\binitial_model"?\s*[=:]\s*"?{DEPLOYED}\b')


class DeployedModel(BaseModel):
    """Where a served model came from.

    Attributes:
        run: The pipeline run that deployed it.
        model_uri: URI of the Model artifact.
        model_type: Name of the model variant.
        dataset: Name of the data set it was trained on.
        dataset_fingerprint: Identifies the content of that data set.
        dataset_images: Images of all its splits; None when it is not known.
        git_revision: Commit of this package that trained it, where known.
        val_accuracy: Validation accuracy that select went by; None when it is not known.
    """

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    run: str = ""
    model_uri: str = ""
    model_type: str = ""
    dataset: str = ""
    dataset_fingerprint: str = ""
    dataset_images: int | None = None
    git_revision: str = ""
    val_accuracy: float | None = None

    def annotations(self) -> dict[str, str]:
        """What is known, as annotations."""
        known = {name: value for name, value in self.model_dump().items() if value not in ("", None)}
        return {_annotation(name): str(value) for name, value in known.items()}

    @classmethod
    def of_artifact(cls, uri: str, metadata: Mapping[str, Any], run: str) -> "DeployedModel":
        """Reads the metadata of a Model artifact from train or select.

        Args:
            uri: Of the artifact.
            metadata: Of the artifact.
            run: The run that deploys it; empty for the one that trained it.
        """
        known = {name: metadata[name] for name in cls.model_fields if metadata.get(name) is not None}
        return cls.model_validate({**known, "model_uri": uri, "run": run or str(metadata.get("run", ""))})

    @classmethod
    def of_predictor(cls, predictor: Mapping[str, Any]) -> "DeployedModel":
        """Reads a predictor's annotations; a value that cannot be read counts as not known."""
        annotations = predictor.get("annotations") or {}
        values = {name: annotations.get(_annotation(name)) for name in cls.model_fields}
        values = {name: value for name, value in values.items() if value is not None}
        try:
            return cls.model_validate(values)
        except ValidationError:  # a number that somebody wrote by hand
            return cls.model_validate({**values, "val_accuracy": None, "dataset_images": None})


def champion(service: Mapping[str, Any]) -> DeployedModel:
    """The model that most requests get: during a canary the stable one, not the canary."""
    predictor = service["spec"]["predictor"]
    if predictor.get("canaryTrafficPercent", 100) < 100:  # Knative: the spec is the canary's
        return DeployedModel.of_predictor(replaced_predictor(predictor) or {})
    return DeployedModel.of_predictor(predictor)


def replaced_predictor(predictor: Mapping[str, Any]) -> dict[str, Any] | None:
    """The predictor that this one took the place of; None when there was none or it is not known."""
    text = (predictor.get("annotations") or {}).get(REPLACES_ANNOTATION)
    try:
        replaced = json.loads(text) if text else None
    except ValueError:
        return None
    return replaced if isinstance(replaced, dict) else None


def note_served(service_name: str, uri: str, metadata: Mapping[str, Any]) -> None:
    """Notes what a service of this machine serves from now on; arguments as for `DeployedModel.of_artifact`."""
    if folder := os.environ.get(SERVED_VARIABLE):
        Path(folder).mkdir(parents=True, exist_ok=True)
        # A copy that select made is the later one, but it is the same model as the one that was chosen.
        places = dict.fromkeys([selected_uri(uri, metadata), uri])
        models = [DeployedModel.of_artifact(place, metadata, "").model_dump() for place in places]
        write_whole(Path(folder, f"{service_name}.json"), json.dumps(models, indent=2))


def last_served(service_name: str) -> list[DeployedModel]:
    """Where the model lies that a service of this machine served last; empty when it is not known."""
    try:
        models = json.loads(Path(os.environ[SERVED_VARIABLE], f"{service_name}.json").read_text(encoding="utf-8"))
        return [DeployedModel.model_validate(model) for model in models]
    except (KeyError, OSError, ValueError, TypeError):
        return []


def begins_with_deployed(initial_model: str, models: Iterable[str]) -> bool:
    """Whether any training of a pipeline begins with the deployed model.

    Args:
        initial_model: As the pipeline takes it, for all models.
        models: As the pipeline takes them; one may have an `initial_model` of its own.
    """
    return initial_model == DEPLOYED or any(_BEGINS_WITH_IT.search(model) for model in models)


def _annotation(name: str) -> str:
    return f"{_PREFIX}/{name.replace('_', '-')}"
