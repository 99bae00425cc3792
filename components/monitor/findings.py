"""What monitor found, and what follows from it."""

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
        new_labels: Images that became training data.
    """

    comparisons: list[Comparison]
    live: Score | None = None
    live_images: int = 0
    new_labels: int = 0

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


def retrains(findings: Findings, retrain_on: RetrainOn, min_labels: int) -> bool:
    """Whether to train anew."""
    if retrain_on == "always" or findings.drifted:
        return True
    return retrain_on == "labels" and findings.new_labels >= min_labels
