"""The served model as the protocols see it, whichever they are."""

from kfp_image_classification.components.deploy.server.batching import Batcher, Images, Overloaded
from kfp_image_classification.components.deploy.server.image_files import UnusableImage
from kfp_image_classification.components.deploy.server.loaded_model import Answer, LoadedModel
from kfp_image_classification.components.deploy.server.refused import Refused, bad_request
from kfp_image_classification.components.deploy.server.statistics import Told
from kfp_image_classification.components.deploy.server.versions import Versions

RETRY_SECONDS = 1


class Classifier:
    """Answers with the newest version.

    Attributes:
        name: The model's name in URLs.
        leaving: Set while the process ends: it still answers, but calls itself not ready, so that no new clients come.
    """

    def __init__(self, name: str, versions: Versions, batcher: Batcher) -> None:
        self.name = name
        self.leaving = False
        self._versions = versions
        self._batcher = batcher

    @property
    def model(self) -> LoadedModel:
        """The version that answers now; a request must take it once, and stay with it."""
        return self._versions.current

    def statistics(self, version: str) -> Told:
        """What a version has answered in this process, for Triton's clients."""
        return self._batcher.statistics.told(version)

    def index(self) -> list[dict[str, str]]:
        """The versions in the model's folder, for Triton's clients: which one answers, and why the others do not."""
        return [
            {
                "name": self.name,
                "version": version,
                "state": "UNAVAILABLE" if reason or self.leaving else "READY",
                "reason": reason or ("the server is going down" if self.leaving else ""),
            }
            for version, reason in self._versions.reasons().items()
        ]

    async def answer(self, model: LoadedModel, images: Images) -> Answer:
        """Answers one request.

        Raises:
            Refused: When an image cannot be decoded, or too many wait already.
        """
        try:
            return await self._batcher.answer(model, images)
        except UnusableImage as error:
            raise bad_request(str(error)) from None
        except Overloaded:
            raise Refused(
                503, "the server is busy; try again in a moment", {"retry-after": str(RETRY_SECONDS)}
            ) from None
