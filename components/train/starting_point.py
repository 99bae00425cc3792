"""The weights that a training begins with: found, compared with what is to be trained, and kept in the job's folder."""

import logging
import secrets
from pathlib import Path

from kfp_image_classification.components.contracts.dataset_manifest import DatasetManifest
from kfp_image_classification.components.contracts.deployed_model import DEPLOYED, NOTHING_DEPLOYED
from kfp_image_classification.components.contracts.model_card import (
    ModelCard,
    StartedFrom,
    StartParameter,
)
from kfp_image_classification.components.step.errors import InvalidInput, StageFailed
from kfp_image_classification.components.train.job_files import START_DIRECTORY
from kfp_image_classification.components.train.model_settings import ModelSettings
from kfp_image_classification.components.train.options import TrainOptions
from kfp_image_classification.components.train.weight_source import (
    IMAGENET,
    NONE,
    FoundWeights,
    find_weights,
)


def starting_point(
    options: TrainOptions,
    manifest: DatasetManifest,
    directory: Path,
    log: logging.Logger,
    deployed_uri: str = NOTHING_DEPLOYED,
) -> StartedFrom | None:
    """Finds the weights that the options name, and copies their file into the job's folder.

    There it stays the same for all workers and restarts, whatever becomes of the source.

    Args:
        options: The parameters.
        manifest: Of the data set.
        directory: The job's folder.
        log: Told what was found.
        deployed_uri: Of the deployed model; `none` where there is none.

    Raises:
        InvalidInput: When there are no such weights, or of another architecture.
        StageFailed: When the job's folder cannot be written.
    """
    if options.weights == IMAGENET:
        # The chief downloads them: this step may have neither Keras nor a way to the outside.
        return StartedFrom(parameter="weights", source=IMAGENET)
    if options.initial_model == DEPLOYED:
        return _of_deployed(options, manifest, directory, log, deployed_uri)
    found = find_named(options)
    return _taken(options, found, manifest, directory, log) if found else None


def find_named(options: TrainOptions) -> FoundWeights | None:
    """Finds the weights that the options name by a path or URI; None where they name none.

    Raises:
        InvalidInput: When there are no such weights, or of another architecture.
    """
    parameter, source = _named(options)
    if source in (NONE, IMAGENET, DEPLOYED):
        return None
    found = find_weights(parameter, source)
    if found.card and (theirs := _architecture(found.card)) != options.architecture:
        raise InvalidInput(
            f"{parameter} = {source!r}: is a model of {theirs}, and {options.architecture} is to be trained; train "
            f"{theirs}, or give each model its own, as in {theirs}:{parameter}=..."
        )
    return found


def _of_deployed(
    options: TrainOptions, manifest: DatasetManifest, directory: Path, log: logging.Logger, deployed_uri: str
) -> StartedFrom | None:
    if deployed_uri in ("", NOTHING_DEPLOYED):
        log.info("initial_model = deployed: nothing is deployed; trained from the beginning")
        return None
    try:
        found = find_weights("initial_model", deployed_uri)
    except InvalidInput as error:  # no reason to train nothing: whoever asked for this knew no model by its name
        log.warning("initial_model = deployed: it cannot be read, so trained from the beginning: %s", error)
        return None
    if found.card is None:
        log.warning("initial_model = deployed: %s is no Model artifact; trained from the beginning", deployed_uri)
        return None
    for what, its, ours in (
        ("a model of", _architecture(found.card), options.architecture),
        ("for images of", found.card.image_shape, manifest.image_shape),
    ):
        if its != ours:
            log.info("initial_model = deployed: it is %s %s, not %s; trained from the beginning", what, its, ours)
            return None
    return _taken(options, found, manifest, directory, log)


def _taken(
    options: TrainOptions, found: FoundWeights, manifest: DatasetManifest, directory: Path, log: logging.Logger
) -> StartedFrom:
    parameter, source = _named(options)
    card = found.card
    if card:
        is_new = card.class_names != manifest.class_names
    else:
        is_new = found.outputs not in (None, len(manifest.class_names))
    is_new = is_new or parameter == "weights"
    start = StartedFrom(
        parameter=parameter,
        source=source,
        sha256=found.sha256,
        new_head=is_new,
        **({"model_type": card.model_type, "run": card.run, "dataset": card.dataset} if card else {}),
    )
    _write(found, directory / START_DIRECTORY)
    log.info("begins with %s", start.words)
    if parameter == "initial_model" and is_new:
        names = f" ({', '.join(card.class_names[:10])})" if card else ""
        log.info(
            "its head is new, as that model knew %s other classes%s than the %d of the data set",
            found.outputs,
            names,
            len(manifest.class_names),
        )
    return start


def _named(options: TrainOptions) -> tuple[StartParameter, str]:
    """The parameter that says which weights, and what it says."""
    return ("initial_model", options.initial_model) if options.initial_model else ("weights", options.weights)


def _architecture(card: ModelCard) -> str:
    return ModelSettings.parse(card.model_type).architecture


def _write(found: FoundWeights, folder: Path) -> None:
    partial = folder / f"{secrets.token_hex(4)}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(found.content)
        # By its content: another job that has this folder keeps its own, until this one is refused.
        partial.replace(folder / f"{found.sha256}-{found.name}")
    except OSError as error:
        raise StageFailed(f"{folder}: the initial weights cannot be written there: {error}") from None
    finally:
        partial.unlink(missing_ok=True)
