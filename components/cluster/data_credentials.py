"""Credentials for buckets of images: a Secret of the cluster becomes the environment of the steps that read them."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kfp import dsl

# In the namespace of the run. Without it, a pod's own identity is what opens a bucket.
SECRET = "image-data"
# Keys of the Secret, and variables of the step; each may be absent.
VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_ENDPOINT_URL",
    "GOOGLE_APPLICATION_CREDENTIALS_JSON",
)


def give_data_credentials(task: "dsl.PipelineTask") -> Any:
    """Gives a step what the Secret `image-data` holds, where there is one; locally, does nothing.

    Args:
        task: A step that reads images from a bucket.

    Returns:
        The task.
    """
    from kfp import kubernetes

    return kubernetes.use_secret_as_env(task, SECRET, {name: name for name in VARIABLES}, optional=True)
