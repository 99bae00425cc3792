"""Serves the highest numbered version that can be loaded, and follows when another is put there or taken away."""

import asyncio
import gc
import logging
from pathlib import Path

from kfp_image_classification.components.contracts.model_card import model_versions
from kfp_image_classification.components.deploy.server.loaded_model import BackendChoice, LoadedModel, load_model
from kfp_image_classification.components.deploy.server.server_metrics import MODEL_INFO
from kfp_image_classification.components.step.errors import StageFailed

# A folder, and when it was last changed.
Identity = tuple[Path, float]


class Versions:
    """The version that answers now.

    A request keeps the version that it began with, so nothing fails when another takes over. A folder must appear
    whole, as a renamed one does. One that cannot be loaded is told once, and the next lower one is served, in the
    beginning as later.

    Args:
        directory: The model's folder, with numbered version folders.
        backend: See `load_model`.
        threads: See `load_model`.
        log: Told what is loaded, and what cannot be.
        at_most: The highest number to begin with, if it matters.
    """

    def __init__(
        self,
        directory: Path,
        backend: BackendChoice,
        threads: int,
        log: logging.Logger,
        at_most: int | None = None,
    ) -> None:
        self._directory = directory
        self._backend = backend
        self._threads = threads
        self._log = log
        self._unusable: dict[Identity, str] = {}
        self._serving: Identity | None = None
        self._next: tuple[Identity, LoadedModel] | None = None
        self.look(at_most)
        self.take_over()
        if self._serving is None:
            raise StageFailed("\n".join(self._unusable.values()))

    def reasons(self) -> dict[str, str]:
        """The versions that are there, the newest first, each with why it does not answer; empty where it does."""
        unusable = {folder.name: reason for (folder, _), reason in list(self._unusable.items())}
        try:
            found = [folder.name for folder in model_versions(self._directory)]
        except (StageFailed, OSError):
            found = []
        answers = self.current.version
        told = {name: unusable.get(name, f"version {answers} is served") for name in found}
        return {**told, answers: ""}

    async def follow(self, seconds: float) -> None:
        """Looks every so many seconds whether there is another version; returns never."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await asyncio.to_thread(self.look)
                self.take_over()
            except Exception:
                self._log.exception("looking for another version failed; trying again in %g s", seconds)

    def look(self, at_most: int | None = None) -> None:
        """Loads the highest version, up to a number, that can be loaded, unless it is the one that is served."""
        self._next = None
        try:
            folders = model_versions(self._directory)
            found = [_identity(folder) for folder in folders if at_most is None or int(folder.name) <= at_most]
        except (StageFailed, OSError):
            if self._serving is None:
                raise
            return  # taken away; what is in memory goes on
        self._unusable = {version: reason for version, reason in self._unusable.items() if version in found}
        for version in found:
            if version == self._serving:
                return
            if version not in self._unusable and self._load(version):
                return

    def _load(self, version: Identity) -> bool:
        folder = version[0]
        try:
            loaded = load_model(folder, self._backend, self._threads, self._log)
        except MemoryError:  # which may well be enough a moment later
            raise
        except Exception as error:
            expected = isinstance(error, StageFailed)
            self._unusable[version] = str(error) if expected else f"model = {str(folder)!r}: {_words(error)}"
            goes_on = f"version {self.current.version} goes on serving" if self._serving else "looking for a lower one"
            self._log.error("%s; %s", self._unusable[version], goes_on, exc_info=None if expected else error)
            return False
        self._next = version, loaded
        return True

    def take_over(self) -> None:
        """Serves what the last look has found."""
        if self._next is None:
            return
        (self._serving, model), self._next = self._next, None
        self.current = model
        MODEL_INFO.clear()
        MODEL_INFO.labels(model.version, model.card.model_type, model.backend).set(1)
        # What is in memory now stays, so later collections need not look at it again. What stayed the last time may be
        # garbage by now: the model before, held by the errors of requests that were being answered then.
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        self._log.info("version %s (%s) is served with %s", model.version, model.card.model_type, model.backend)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _identity(folder: Path) -> Identity:
    return folder, folder.stat().st_mtime
