"""Ranks models: by validation accuracy, then size, then validation loss. Test accuracy is shown, never used."""

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from kfp_image_classification.components.cluster.kubernetes_client import in_cluster
from kfp_image_classification.components.contracts.deployed_model import DeployedModel
from kfp_image_classification.components.report import html_report


class SelectOptions(BaseModel):
    """Parameters of select.

    Attributes:
        min_accuracy: Gate: validation accuracy below which nothing is deployed.
        deploy_backend: Where the model will be deployed, as deploy takes it; only a cluster has a model to match.
        service_name: The InferenceService whose model the best one must not be worse than; empty for none.
        namespace: Where that service is; empty for the namespace of the step.
        force: Deploy a model that is good enough even if the deployed one has a better validation accuracy.
    """

    model_config = ConfigDict(frozen=True)

    min_accuracy: float = Field(ge=0, le=1)
    deploy_backend: Literal["auto", "local", "kserve"] = "auto"
    service_name: str = ""
    namespace: str = ""
    force: bool = False

    @property
    def has_champion(self) -> bool:
        """Whether there may be a deployed model to match."""
        to_cluster = self.deploy_backend == "kserve" or (self.deploy_backend == "auto" and in_cluster())
        return bool(self.service_name) and to_cluster and not self.force


class Candidate(BaseModel):
    """One evaluated model.

    Attributes:
        name: The model variant.
        uri: Where the model lies.
        evaluation_uri: Where its metrics lie.
        dataset_uri: Where the data set lies on which it was trained.
        val_accuracy: What the ranking goes by.
        val_loss: Decides between models that are equal in accuracy and size.
        test_accuracy: For the reader.
        test_macro_f1: For the reader.
        parameters: Number of weights; of two equally accurate models the smaller one wins.
        bytes: Size of the served model.
        images_per_second: Speed of the training.
        dataset_fingerprint: Identifies the data set's content.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    uri: str
    evaluation_uri: str
    dataset_uri: str
    val_accuracy: float
    val_loss: float
    test_accuracy: float
    test_macro_f1: float
    parameters: int
    bytes: int
    images_per_second: float = 0.0
    dataset_fingerprint: str = ""


class Leaderboard(BaseModel):
    """The ranking and the decision.

    Attributes:
        candidates: The best first.
        min_accuracy: The gate.
        champion: The deployed model; None where there is none to match.
    """

    candidates: list[Candidate]
    min_accuracy: float
    champion: DeployedModel | None = None

    @property
    def best(self) -> Candidate:
        return self.candidates[0]

    @property
    def passed(self) -> bool:
        """Whether the best model is good enough to be deployed, and not worse than the one that is."""
        return self.best.val_accuracy >= self.min_accuracy and self.best.val_accuracy >= self._champions_accuracy

    @property
    def decision(self) -> str:
        reached = f"{self.best.name} is the best with a validation accuracy of {self.best.val_accuracy:.2%}"
        if self.best.val_accuracy < self.min_accuracy:
            return f"{reached}, below the gate min_accuracy = {self.min_accuracy:.2%}: nothing is deployed."
        if self.champion is None:
            return f"{reached}."
        champion = (
            f"{self.champion.model_type or 'a model'}{f' of run {self.champion.run}' if self.champion.run else ''}"
        )
        deployed = f"the deployed model, {champion}, has {self._champions_accuracy:.2%}{self._on_another_data_set}"
        if self.passed:
            return f"{reached}; {deployed}."
        return f"{reached}, but {deployed}: nothing is deployed. force = true deploys all the same."

    @property
    def _champions_accuracy(self) -> float:
        known = self.champion.val_accuracy if self.champion else None
        return 0.0 if known is None else known

    @property
    def _on_another_data_set(self) -> str:
        fingerprints = {self.best.dataset_fingerprint, self.champion.dataset_fingerprint if self.champion else ""}
        return " (measured on other images than these)" if len(fingerprints - {""}) > 1 else ""


def rank(candidates: Iterable[Candidate], options: SelectOptions, champion: DeployedModel | None = None) -> Leaderboard:
    """Orders the candidates; those that are equal in all three respects stay in the order given."""
    ordered = sorted(
        candidates, key=lambda candidate: (-candidate.val_accuracy, candidate.parameters, candidate.val_loss)
    )
    return Leaderboard(candidates=ordered, min_accuracy=options.min_accuracy, champion=champion)


def leaderboard_page(leaderboard: Leaderboard) -> str:
    """Renders the ranking as an HTML page."""
    columns = ["model", "validation accuracy", "test accuracy", "test macro F1", "parameters", "kilobytes", "images/s"]
    rows: list[list[Any]] = [
        [
            candidate.name,
            candidate.val_accuracy,
            candidate.test_accuracy,
            candidate.test_macro_f1,
            candidate.parameters,
            round(candidate.bytes / 1000),
            round(candidate.images_per_second),
        ]
        for candidate in leaderboard.candidates
    ]
    return html_report.page(
        "Leaderboard",
        leaderboard.decision,
        [
            html_report.Section(
                "Models",
                html_report.table(columns, rows, highlighted_row=0 if leaderboard.passed else None)
                + html_report.note(
                    "Ranked by validation accuracy, then by fewer parameters, then by validation loss. The "
                    "test split decides nothing: its "
                    "accuracy is what to expect of new images."
                ),
            )
        ],
    )
