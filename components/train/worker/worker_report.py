"""What a worker tells its launcher when it is done: where its time went, and a checksum of its weights."""

from pathlib import Path

from pydantic import BaseModel, Field

from kfp_image_classification.components.step.whole_file import write_whole


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
    def path(directory: str, index: int) -> Path:
        return Path(directory, "reports", f"worker-{index}.json")

    def write(self, directory: str) -> None:
        path = self.path(directory, self.index)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, self.model_dump_json(indent=2))
