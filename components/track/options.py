"""What track takes, and what it accepts; needs no MLflow."""

from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from kfp_image_classification.components.step.errors import InvalidInput, checked

NAME = r"^[A-Za-z0-9][A-Za-z0-9_. -]*$"


def _web_address(address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or set(address) & set("'\"\\ "):
        raise ValueError("not an address such as http://127.0.0.1:5000; give an empty one for no tracking")
    return address.rstrip("/")


def _web_address_or_none(address: str) -> str:
    return _web_address(address) if address else ""


class TrackOptions(BaseModel):
    """Parameters of track.

    Attributes:
        mlflow_uri: Address of the MLflow server, without user name and password.
        mlflow_experiment: The experiment in which the runs are kept; made when there is none.
        registered_model: Name of the selected model in the model registry.
        alias: What the newest selected version is called there.
        kfp_ui: Address of the Kubeflow Pipelines UI, for a link to the pipeline run; empty for no link.
    """

    model_config = ConfigDict(frozen=True)

    mlflow_uri: Annotated[str, AfterValidator(_web_address)]
    mlflow_experiment: str = Field(default="image-classification", pattern=NAME, max_length=200)
    registered_model: str = Field(default="image-classifier", pattern=NAME, max_length=200)
    alias: str = Field(default="champion", pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", max_length=200)
    kfp_ui: Annotated[str, AfterValidator(_web_address_or_none)] = ""


def track_options(**values: Any) -> TrackOptions:
    """Builds the options from parameters.

    Raises:
        InvalidInput: With all problems. A password is never part of a message.
    """
    for name in ("mlflow_uri", "kfp_ui"):
        if "@" in urlsplit(values.get(name, "")).netloc:
            raise InvalidInput(
                f"{name}: has a user name or password in it, and a pipeline's parameters are shown to everybody; give "
                "the address without, and the rest in the environment: MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            )
    return checked(TrackOptions, **values)
