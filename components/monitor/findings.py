"""What monitor found, and what follows from it."""

import math
from dataclasses import dataclass

from scipy import stats

from kfp_image_classification.components.contracts.measures import CONFIDENCE, Score
from kfp_image_classification.components.monitor.drift import Comparison
from kfp_image_classification.components.monitor.options import RetrainOn


@dataclass(frozen=True)
class Findings:
    """A look at a service.

    Attributes:
        comparisons: Of all that was compared.
        live: Share of the answers with a label that were right; None without labels.
        live_images: Answers with a label.
        new_labels: Labelled requests that became training data.
        new_images: Images that the source has beyond those that the model was trained on.
        known_images: Those; 0 where that is not known.
    """

    comparisons: list[Comparison]
    live: Score | None = None
    live_images: int = 0
    new_labels: int = 0
    new_images: int = 0
    known_images: int = 0

    @property
    def all_new(self) -> int:
        """What could be learnt from and was not."""
        return self.new_images + self.new_labels

    @property
    def drifted(self) -> list[Comparison]:
        return [one for one in self.comparisons if one.verdict == "drift"]

    @property
    def silent(self) -> bool:
        """Whether nothing can be said, as there is too little data for every comparison."""
        return all(one.verdict == "too few" for one in self.comparisons)

    @property
    def words(self) -> str:
        """What was found, in a sentence."""
        if self.drifted:
            return "drift: " + ", ".join(f"{one.name} ({one.index:.2f})" for one in self.drifted)
        if not self.silent:
            unsaid = [one.name for one in self.comparisons if one.verdict == "too few"]
            rest = f"; too few images to tell of {', '.join(unsaid)}" if unsaid else ""
            return f"no drift{rest}"
        needed = [one.needed for one in self.comparisons if one.needed is not None]
        images = max((one.images for one in self.comparisons), default=0)
        if not needed:
            return "nothing can be said: the data set has too few images to compare with"
        return f"nothing can be said: {images} images, and it takes {min(needed)}"


def live_accuracy(right: int, known: int) -> Score | None:
    """A share with Wilson's interval; None without labels."""
    if not known:
        return None
    interval = stats.binomtest(right, known).proportion_ci(CONFIDENCE, method="wilson")
    return Score(value=right / known, low=float(interval.low), high=float(interval.high))


@dataclass(frozen=True)
class Decision:
    """What follows.

    Attributes:
        retrain: Whether to train anew.
        words: That, and why, in a clause.
    """

    retrain: bool
    words: str


def decided(findings: Findings, retrain_on: RetrainOn, min_new_images: float) -> Decision:
    """Whether to train anew.

    Args:
        findings: What was found.
        retrain_on: What is a reason.
        min_new_images: New images that are enough; below 1, a share of those that the model was trained on.
    """
    if retrain_on == "always":
        return Decision(True, "trains anew, as it always does")
    if findings.drifted:
        return Decision(True, "trains anew, as it has drifted")
    if retrain_on == "drift":
        return Decision(False, "does not train anew")
    enough = images_enough(min_new_images, findings.known_images)
    if findings.all_new >= enough:
        labelled = f", {findings.new_labels:,} of them labelled requests" if findings.new_labels else ""
        return Decision(True, f"trains anew, as {findings.all_new:,} images are new{labelled}; {enough:,} are enough")
    return Decision(False, f"does not train anew, as {findings.all_new:,} images are new, and it takes {enough:,}")


def images_enough(min_new_images: float, known_images: int) -> int:
    """How many new images it takes: at least one."""
    return max(1, math.ceil(min_new_images * known_images if min_new_images < 1 else min_new_images))
