"""The connection to an MLflow server, and what is said when there is none."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from kfp_image_classification.components.step.errors import InvalidInput, StageFailed

# MLflow's own defaults keep a step waiting for four minutes when the server is gone.
RETRIES = "3"
CREDENTIALS = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"

os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", RETRIES)
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # track tells the address itself

try:
    import mlflow
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
except ImportError:
    raise InvalidInput(
        "mlflow_uri: tracking needs a package that is not installed: pip install 'kfp-image-classification[mlflow]'"
    ) from None


@contextmanager
def connected(uri: str) -> Iterator[MlflowClient]:
    """A client of a server that answers and lets us in.

    Raises:
        StageFailed: When the server cannot be reached, refuses the credentials, or fails at anything done with it.
    """
    mlflow.set_tracking_uri(uri)  # what is uploaded to the server's artifact store finds its way by this
    client = MlflowClient(uri)
    try:
        client.search_experiments(max_results=1)
        yield client
    except MlflowException as error:
        raise StageFailed(f"mlflow_uri = {uri!r}: {_words(error)}") from None


def check_server(uri: str) -> None:
    """Asks a server whether it would let us in.

    Raises:
        StageFailed: When it does not.
    """
    with connected(uri):
        pass


def _words(error: MlflowException) -> str:
    message = str(error)
    if "error code 401" in message or error.error_code == "UNAUTHENTICATED":
        return f"the MLflow server wants credentials, or other ones: set {CREDENTIALS} in the environment"
    if "error code 403" in message or error.error_code == "PERMISSION_DENIED":
        return f"the MLflow server does not allow this to the user of {CREDENTIALS}, or to this host name"
    if "error code 404" in message:
        return "something answers there, but it is no MLflow server"
    if "Max retries exceeded" in message:
        return (
            "no MLflow server can be reached there; `make mlflow` starts one on this machine, at http://127.0.0.1:5000"
        )
    return message.splitlines()[0]
