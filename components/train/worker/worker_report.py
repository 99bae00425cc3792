"""What a worker tells its launcher when it is done: where its time went, and a checksum of its weights."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from kfp_image_classification.components.step.whole_file import write_whole

# A worker knocks at its peers' doors; then all have exchanged their first message.
JoiningStage = Literal["joining", "joined"]


class WorkerReport(BaseModel):
    """Written by each worker at the end of its training.

    Attributes:
        index: The worker's index.
        seconds: Wall-clock seconds of this process by phase, from its start on.
        weights_sha256: Checksum of the final weights: equal on all workers, or they were not in step.
    """

    index: int
    seconds: dict[str, float] = Field(default_factory=dict)
    weights_sha256: str = ""

    @staticmethod
    def sign(directory: str, index: int, stage: JoiningStage) -> Path:
        """The file by which a worker tells how far it has come in joining its peers."""
        return Path(directory, "reports", f"worker-{index}.{stage}")

    def reached(self, directory: str, stage: JoiningStage) -> None:
        """Tells the launcher, which notices by this that a worker hangs where it can tell nothing itself."""
        path = self.sign(directory, self.index, stage)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    @staticmethod
    def path(directory: str, index: int) -> Path:
        return Path(directory, "reports", f"worker-{index}.json")

    def write(self, directory: str) -> None:
        path = self.path(directory, self.index)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, self.model_dump_json(indent=2))
