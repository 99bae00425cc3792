"""Whether there is something to learn in what a source has."""

from collections.abc import Mapping

from kfp_image_classification.components.contracts.split_names import SplitName

MOST_NAMED = 10


def why_not_learnable(class_counts: Mapping[SplitName, Mapping[str, int]]) -> list[str]:
    """What keeps a model from learning, one sentence each; empty when nothing does.

    Args:
        class_counts: Images by split and class.
    """
    trained = {name for name, count in class_counts.get("train", {}).items() if count}
    problems = []
    if len(trained) == 1:
        problems.append(f"there is one class alone, {next(iter(trained))!r}: nothing to tell it from; add another")
    for split, counts in class_counts.items():
        untrained = sorted(name for name, count in counts.items() if count and name not in trained)
        if untrained:
            named = ", ".join(repr(name) for name in untrained[:MOST_NAMED])
            more = f" and {len(untrained) - MOST_NAMED:,} more" if len(untrained) > MOST_NAMED else ""
            problems.append(
                f"the {split} split has images of {named}{more}, and the train split has none: add some, or remove them"
            )
    return problems
