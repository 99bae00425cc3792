"""What travels with an exported model: what it is, where it came from, and examples of what it must answer."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from kfp_image_classification.components.step.errors import StageFailed

StartParameter = Literal["weights", "initial_model"]

# The Keras model beside the versions, for further training.
KERAS_MODEL = "model.keras"
# TensorFlow Serving leaves this folder of a version alone.
MODEL_CARD = "assets.extra/model.json"
ONNX_MODEL = "assets.extra/model.onnx"


class Example(BaseModel):
    """A request and the answer it must get.

    Attributes:
        label: The true class name.
        png: The image, base64 of PNG.
        logits: What the trained model answered, one number a class.
        probabilities: Their softmax.
    """

    label: str
    png: str
    logits: list[float]
    probabilities: list[float]


class StartedFrom(BaseModel):
    """Which weights a training began with, where it did not draw its own.

    Attributes:
        parameter: As what they were given: `weights`, all layers but the head, or `initial_model`, all layers.
        source: Where they came from: `imagenet`, a path or a URI.
        sha256: Of the file that was read.
        new_head: Whether the last layer began with weights of its own.
        model_type: Of the model that they are from, where that is known.
        run: The pipeline run that trained it, where that is known.
        dataset: What it was trained on, where that is known.
    """

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    parameter: StartParameter
    source: str
    sha256: str = ""
    new_head: bool = True
    model_type: str = ""
    run: str = ""
    dataset: str = ""

    @property
    def words(self) -> str:
        """The same for people."""
        known = {"": self.model_type, "of run ": self.run, "trained on ": self.dataset}
        told = ", ".join(f"{before}{value}" for before, value in known.items() if value)
        digest = f", SHA-256 {self.sha256}" if self.sha256 else ""
        layers = "all layers but the head, which is new" if self.new_head else "all layers"
        return f"{self.parameter} = {self.source}{f' ({told})' if told else ''}{digest}: {layers}"


class ModelCard(BaseModel):
    """The metadata of one version of a model.

    Attributes:
        model_type: Name of the model variant.
        parameters: Number of weights.
        image_shape: (height, width, channels) of the model's input.
        class_names: In the order of the logits.
        dataset: Name of the data set.
        dataset_fingerprint: Identifies its content.
        dataset_images: Images of all its splits; None in cards of earlier versions.
        options: Parameters of the training.
        run: The pipeline run.
        git_revision: Commit of this package, where known.
        versions: Of Python and the packages that made the model.
        examples: For smoke predictions.
        onnx_sha256: Of the same model as ONNX, from pixels to logits; empty where there is none.
        started_from: Which weights the training began with; None where it drew its own.
    """

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    model_type: str
    parameters: int
    image_shape: tuple[int, int, int]
    class_names: list[str]
    dataset: str
    dataset_fingerprint: str
    dataset_images: int | None = None
    options: dict[str, Any]
    run: str
    git_revision: str
    versions: dict[str, str]
    examples: list[Example]
    onnx_sha256: str = ""
    started_from: StartedFrom | None = None


def model_versions(model_directory: str | Path) -> list[Path]:
    """The version folders, the one with the highest number first.

    Raises:
        StageFailed: When there is none.
    """
    folder = Path(model_directory)
    versions = sorted((path for path in folder.glob("*") if path.name.isdigit()), key=lambda path: -int(path.name))
    if not versions:
        raise StageFailed(f"model = {str(folder)!r}: no numbered version folder with a SavedModel in it")
    return versions


def newest_version(model_directory: str | Path) -> Path:
    """The version folder that a model server would load: the one with the highest number.

    Raises:
        StageFailed: When there is none.
    """
    return model_versions(model_directory)[0]


def read_model_card(model_directory: str | Path) -> ModelCard:
    """Reads the card of a model's newest version.

    Raises:
        StageFailed: When it is missing or unreadable.
    """
    path = newest_version(model_directory) / MODEL_CARD
    try:
        return ModelCard.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StageFailed(f"model = {str(model_directory)!r}: no readable {MODEL_CARD} ({error})") from None
