"""Where a deployed model answers."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from kfp_image_classification.components.step.whole_file import write_whole

ENDPOINT_FILE = "endpoint.json"
REQUEST_FILE = "request.json"


class Endpoint(BaseModel):
    """A service that passed its smoke prediction.

    Attributes:
        name: The model's name in URLs.
        url: Base URL.
        host: Host header that requests need, where they go through an ingress; empty for none.
        namespace: Namespace of an InferenceService; empty for a local server.
        model_directory: The folder or storage URI it serves.
        pid: Process id of a local server; 0 for a service on a cluster.
        example_label: True class of the image in `request.json`.
        example_answer: The class that the service answered for it.
        example_probability: How sure it was.
    """

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    name: str
    url: str
    host: str = ""
    namespace: str = ""
    model_directory: str
    pid: int = 0
    example_label: str
    example_answer: str
    example_probability: float

    @property
    def predict_url(self) -> str:
        return f"{self.url}/v1/models/{self.name}:predict"

    def write(self, directory: Path) -> None:
        write_whole(directory / ENDPOINT_FILE, self.model_dump_json(indent=2))

    @classmethod
    def read(cls, directory: Path) -> "Endpoint":
        return cls.model_validate_json((directory / ENDPOINT_FILE).read_text(encoding="utf-8"))
