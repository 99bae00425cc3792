"""What evaluate hands on beside its metrics: a model's answers image by image, to compare models on the same images."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from kfp_image_classification.components.contracts.dataset_manifest import SplitName
from kfp_image_classification.components.contracts.measures import SplitScores
from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.components.step.whole_file import write_whole

EVALUATION_FILE, NO_CHAMPION_FILE = "evaluation.json", "no-champion.json"

# One image: its true class, the most likely one, the true one's place among all (0 the first), the logarithm of the
# true one's probability, and the probability of the most likely one. In the order of the split.
ANSWER = np.dtype(
    [("label", "<i4"), ("predicted", "<i4"), ("rank", "<i4"), ("log_likelihood", "<f4"), ("confidence", "<f4")]
)


class Evaluation(BaseModel):
    """A model as it was measured on a data set.

    Attributes:
        model_type: Name of the model variant.
        run: The pipeline run that trained it.
        uri: Where the model lies.
        parameters: Number of weights.
        bytes: Size of the served model.
        image_shape: (height, width, channels) that it takes.
        trained_on: Fingerprint of the data set it was trained on.
        measured_on: Fingerprint of the data set whose images it was shown.
        class_names: Of that data set, in the order of the labels.
        answer_seconds: What it takes for one image, at best.
        splits: Its scores.
        recalls: Of the validation images, by class; None for a class without images.
    """

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    model_type: str
    run: str = ""
    uri: str
    parameters: int
    bytes: int
    image_shape: tuple[int, int, int]
    trained_on: str = ""
    measured_on: str
    class_names: list[str]
    answer_seconds: float
    splits: dict[SplitName, SplitScores]
    recalls: list[float | None]

    def write(self, directory: Path) -> None:
        write_whole(directory / EVALUATION_FILE, self.model_dump_json(indent=2))

    @classmethod
    def read(cls, directory: Path) -> "Evaluation":
        """Reads what evaluate left in the folder of its metrics.

        Raises:
            InvalidInput: When it is not there, or of another version.
        """
        try:
            return cls.model_validate_json((directory / EVALUATION_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidInput(
                f"evaluations: {directory} holds no readable {EVALUATION_FILE} ({_first_line(error)}); evaluate the "
                "model again, not from the cache"
            ) from None


class NoChampion(BaseModel):
    """Why there is no deployed model to compare with.

    Attributes:
        reason: A clause that says it; empty where nothing is deployed.
        holds_back: Whether nothing is to be deployed for that reason.
    """

    # Told from what find_champion writes of a model, which has no field of it.
    model_config = ConfigDict(frozen=True, extra="forbid")

    reason: str = ""
    holds_back: bool = False

    def write(self, file: Path) -> None:
        write_whole(file, self.model_dump_json())

    @classmethod
    def read(cls, file: Path) -> "NoChampion | None":
        """What a file says; None where it is no such file."""
        try:
            return cls.model_validate_json(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None


@contextmanager
def answers_written(directory: Path, split: SplitName, images: int) -> Iterator[Callable[[np.ndarray], object]]:
    """Writes a split's answers as they come, so that memory holds a batch of them.

    Args:
        directory: The folder of the evaluation.
        split: Whose answers they are.
        images: How many there will be.

    Yields:
        Takes records of `ANSWER`.
    """
    header = {"descr": np.lib.format.dtype_to_descr(ANSWER), "fortran_order": False, "shape": (images,)}
    with (directory / f"{split}.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        yield lambda answers: file.write(answers.tobytes())


def read_answers(directory: Path, split: SplitName) -> np.ndarray:
    """The answers for a split, records of `ANSWER`.

    Raises:
        InvalidInput: When they are not there, or not whole.
    """
    path = directory / f"{split}.npy"
    try:
        answers: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InvalidInput(
            f"evaluations: {path} cannot be read ({_first_line(error)}); evaluate the model again, not from the cache"
        ) from None
    if answers.dtype != ANSWER:
        raise InvalidInput(f"evaluations: {path} is of another version; evaluate the model again, not from the cache")
    return answers


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
