import pytest

from kfp_image_classification.components.contracts.deployed_model import DeployedModel
from kfp_image_classification.components.select.leaderboard import Candidate, SelectOptions, leaderboard_page, rank
from kfp_image_classification.components.step.errors import InvalidInput, checked


def candidate(name: str, val_accuracy: float, test_accuracy: float = 0.5, parameters: int = 10, val_loss: float = 0.1):
    return Candidate(
        name=name,
        uri=f"/{name}",
        evaluation_uri="",
        dataset_uri="",
        val_accuracy=val_accuracy,
        val_loss=val_loss,
        test_accuracy=test_accuracy,
        test_macro_f1=0.5,
        parameters=parameters,
        bytes=1000,
    )


@pytest.mark.parametrize(
    ("candidates", "order"),
    [
        ([candidate("low", 0.8), candidate("high", 0.9)], ["high", "low"]),
        ([candidate("a", 0.9, test_accuracy=0.1), candidate("b", 0.8, test_accuracy=0.99)], ["a", "b"]),
        ([candidate("big", 0.9, parameters=20), candidate("small", 0.9, parameters=10)], ["small", "big"]),
        ([candidate("sure", 0.9, val_loss=0.2), candidate("surer", 0.9, val_loss=0.1)], ["surer", "sure"]),
        ([candidate("first", 0.9), candidate("second", 0.9)], ["first", "second"]),
    ],
)
def test_order(candidates: list[Candidate], order: list[str]) -> None:
    assert [c.name for c in rank(candidates, SelectOptions(min_accuracy=0)).candidates] == order


@pytest.mark.parametrize(("gate", "passed"), [(0.0, True), (0.9, True), (0.9001, False)])
def test_gate(gate: float, passed: bool) -> None:
    ranking = rank([candidate("a", 0.9, test_accuracy=1.0)], SelectOptions(min_accuracy=gate))
    assert ranking.passed is passed
    assert ("nothing is deployed" in ranking.decision) is not passed
    page = leaderboard_page(ranking)
    assert ('class="best"' in page) is passed


def test_names_cannot_break_the_page() -> None:
    page = leaderboard_page(rank([candidate("<script>alert(1)</script>", 0.9)], SelectOptions(min_accuracy=0)))
    assert "<script>alert" not in page


@pytest.mark.parametrize("gate", [-0.1, 1.1, float("nan")])
def test_bad_gate(gate: float) -> None:
    with pytest.raises(InvalidInput, match="^min_accuracy = "):
        checked(SelectOptions, min_accuracy=gate)


@pytest.mark.parametrize(
    ("champion", "gate", "passed", "decision"),
    [
        (None, 0.5, True, "a is the best with a validation accuracy of 90.00%."),
        (
            0.89,
            0.5,
            True,
            "a is the best with a validation accuracy of 90.00%; the deployed model, cnn of run r1, has 89",
        ),
        (0.9, 0.5, True, "has 90.00%."),
        (0.91, 0.5, False, "has 91.00%: nothing is deployed. force = true deploys all the same."),
        (0.91, 0.95, False, "below the gate min_accuracy = 95.00%"),
    ],
)
def test_champion(champion: float | None, gate: float, passed: bool, decision: str) -> None:
    deployed = None if champion is None else DeployedModel(val_accuracy=champion, model_type="cnn", run="r1")
    ranking = rank([candidate("a", 0.9), candidate("b", 0.8)], SelectOptions(min_accuracy=gate), deployed)
    assert ranking.passed is passed
    assert decision in ranking.decision
    assert decision.split("%")[0] in leaderboard_page(ranking)


def test_champion_of_another_data_set_is_compared_and_told() -> None:
    deployed = DeployedModel(val_accuracy=0.95, dataset_fingerprint="theirs")
    best = candidate("a", 0.9).model_copy(update={"dataset_fingerprint": "ours"})
    ranking = rank([best], SelectOptions(min_accuracy=0), deployed)
    assert not ranking.passed
    assert "the deployed model, a model, has 95.00% (measured on other images than these)" in ranking.decision


@pytest.mark.parametrize(
    ("values", "has_champion"),
    [
        ({"service_name": "digits", "deploy_backend": "kserve"}, True),
        ({"service_name": "digits", "deploy_backend": "kserve", "force": True}, False),
        ({"service_name": "", "deploy_backend": "kserve"}, False),
        ({"service_name": "digits", "deploy_backend": "local"}, False),
        ({"service_name": "digits"}, False),
    ],
)
def test_when_a_deployed_model_is_looked_for(values: dict, has_champion: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert checked(SelectOptions, min_accuracy=0.0, **values).has_champion is has_champion
