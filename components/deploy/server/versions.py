"""Serves the highest numbered version of a model directory, and follows when another is put there or taken away."""

import asyncio
import gc
import logging
from pathlib import Path

from kfp_image_classification.components.contracts.model_card import newest_version
from kfp_image_classification.components.deploy.server.loaded_model import BackendChoice, LoadedModel, load_model
from kfp_image_classification.components.deploy.server.server_metrics import MODEL_INFO
from kfp_image_classification.components.step.errors import StageFailed


class Versions:
    """The version that answers now.

    A request keeps the version that it began with, so nothing fails when another takes over. A folder must appear
    whole, as a renamed one does. One that cannot be loaded is told once, and the version before it goes on.

    Args:
        directory: The model's folder, with numbered version folders.
        backend: See `load_model`.
        threads: See `load_model`.
        log: Told what is loaded, and what cannot be.
    """

    def __init__(self, directory: Path, backend: BackendChoice, threads: int, log: logging.Logger) -> None:
        self._directory = directory
        self._backend = backend
        self._threads = threads
        self._log = log
        self._unusable: tuple[Path, float] | None = None
        folder = newest_version(directory)
        self._serve(load_model(folder, backend, threads, log))
        self._serving = _identity(folder)

    async def follow(self, seconds: float) -> None:
        """Looks every so many seconds whether there is another version; returns never."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await asyncio.to_thread(self._look)
            except Exception:
                self._log.exception("looking for another version failed; trying again in %g s", seconds)

    def _look(self) -> None:
        try:
            folder = newest_version(self._directory)
            found = _identity(folder)
        except (StageFailed, OSError):  # taken away; what is in memory goes on
            return
        if found in (self._serving, self._unusable):
            return
        try:
            loaded = load_model(folder, self._backend, self._threads, self._log)
        except StageFailed as error:
            self._unusable = found
            self._log.error("%s; version %s goes on serving", error, self.current.version)
            return
        self._serve(loaded)
        self._serving, self._unusable = found, None

    def _serve(self, model: LoadedModel) -> None:
        self.current = model
        MODEL_INFO.clear()
        MODEL_INFO.labels(model.version, model.card.model_type, model.backend).set(1)
        # What is in memory now stays, so later collections need not look at it again. What stayed the last time may be
        # garbage by now: the model before, held by the errors of requests that were being answered then.
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        self._log.info("version %s (%s) is served with %s", model.version, model.card.model_type, model.backend)


def _identity(folder: Path) -> tuple[Path, float]:
    return folder, folder.stat().st_mtime
