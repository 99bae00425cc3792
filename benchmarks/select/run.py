"""How often a model is deployed that is no better than the deployed one: `python -m benchmarks.select.run`.

Models answer simulated images that are hard or easy for all of them alike. The old rule compared the best of the new
models with the accuracy that was noted when the deployed model was new, on other images; the new rule is select's own.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from kfp_image_classification.components.contracts.evaluation import ANSWER, Evaluation
from kfp_image_classification.components.contracts.measures import Score, SplitScores
from kfp_image_classification.components.select.decision import Contender, Deployed, decide
from kfp_image_classification.components.select.leaderboard import Candidate
from kfp_image_classification.components.select.options import SelectOptions

CLASSES = 10
CHAMPION = 0.97
NEW_MODELS = 3
# How much of what makes an image hard is the same for all models.
SHARED = 0.7
RESULTS = Path(__file__).with_name("results.json")


@dataclass(frozen=True)
class Outcome:
    """Shares of decisions.

    Attributes:
        images: Validation images.
        better: How much more accurate the new models are in truth.
        before: How often the old rule deployed one of them.
        after: How often the new one does.
    """

    images: int
    better: float
    before: float
    after: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--decisions", type=int, default=500, help="for each line of the table (default: 500)")
    arguments = parser.parse_args()
    outcomes = [
        simulate(images, better, arguments.decisions)
        for images in (400, 2000, 10000)
        for better in (-0.01, 0.0, 0.005, 0.01, 0.02)
    ]
    print("| validation images | new models in truth | deployed before | deployed now |\n|---|---|---|---|")
    for one in outcomes:
        print(f"| {one.images:,} | {100 * one.better:+.1f} points | {one.before:.1%} | {one.after:.1%} |")
    RESULTS.write_text(json.dumps([asdict(one) for one in outcomes], indent=2) + "\n", encoding="utf-8")


def simulate(images: int, better: float, decisions: int, seed: int = 0) -> Outcome:
    """Lets both rules decide about three new models, all as good as each other.

    Args:
        images: Validation images, drawn anew for each decision.
        better: What the new models' true accuracy is above the deployed one's.
        decisions: How many.
        seed: Of the images.
    """
    drawn = np.random.default_rng([seed, images])
    options = SelectOptions(gate=0.0, deploy_backend="kserve")
    before = after = 0
    for _ in range(decisions):
        hard = drawn.normal(size=images)
        champion = _answers(CHAMPION, hard, drawn)
        noted = _accuracy(_answers(CHAMPION, drawn.normal(size=images), drawn))
        answers = [_answers(CHAMPION + better, hard, drawn) for _ in range(NEW_MODELS)]
        before += max(map(_accuracy, answers)) >= noted
        contenders = [_contender(f"model-{number}", one) for number, one in enumerate(answers)]
        after += decide(contenders, options, Deployed(_evaluation("champion", champion), champion)).passed
    return Outcome(images, better, before / decisions, after / decisions)


def _answers(accuracy: float, hard: np.ndarray, drawn: np.random.Generator) -> np.ndarray:
    own = drawn.normal(size=len(hard))
    wrong = np.sqrt(SHARED) * hard + np.sqrt(1 - SHARED) * own > stats.norm.ppf(accuracy)
    answers = np.zeros(len(hard), ANSWER)
    answers["label"] = np.arange(len(hard)) % CLASSES
    answers["predicted"] = (answers["label"] + wrong) % CLASSES
    return answers


def _accuracy(answers: np.ndarray) -> float:
    return float(np.mean(answers["label"] == answers["predicted"]))


def _evaluation(name: str, answers: np.ndarray) -> Evaluation:
    score = Score(value=_accuracy(answers), low=0, high=1)
    scores = SplitScores(
        images=len(answers), accuracy=score, macro_f1=score, balanced_accuracy=score, log_loss=score, ece=0
    )
    return Evaluation(
        model_type=name,
        uri=name,
        parameters=1,
        bytes=1,
        image_shape=(1, 1, 1),
        measured_on="",
        class_names=[str(number) for number in range(CLASSES)],
        answer_seconds=0.001,
        splits={"validation": scores},
        recalls=[1.0] * CLASSES,
    )


def _contender(name: str, answers: np.ndarray) -> Contender:
    evaluation = _evaluation(name, answers)
    scores = evaluation.splits["validation"]
    candidate = Candidate(
        name=name,
        uri=name,
        evaluation_uri="",
        dataset_uri="",
        validation=scores,
        test=scores,
        parameters=1,
        bytes=1,
    )
    return Contender(candidate, evaluation, answers)


if __name__ == "__main__":
    main()
