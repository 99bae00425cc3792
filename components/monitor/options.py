"""What monitor takes, and what it accepts."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

# As ingest names a data set that is a list of images.
LIST_PREFIX = "image_list:"

# Ten years: before that, there is no log, and at some time no year.
MOST_HOURS = 87_600

RetrainOn = Literal["drift", "new_data", "always"]


class MonitorOptions(BaseModel):
    """Parameters of monitor.

    Attributes:
        events: Where the payload log is: a folder, or a folder of a bucket (s3:// or gs://), as the collector or
            KServe's agent writes it.
        service_name: The service whose events count; empty for all that are there.
        hours: How far back to look.
        most_images: Images to look at, the newest ones, at most.
        threshold: Population stability index from which on something has drifted.
        feedback: CSV file of labels that came later, with the columns `id` (of the request), `label`, and `image` (its
            number within the request, from 0; may be left out); a path or a URL of a bucket. Empty for none.
        labelled_dir: Folder, or folder of a bucket, in which labelled requests become a data set for ingest; it must
            outlive the run. Empty for none.
        dataset: The data set that the model was trained on, as ingest takes it: what to train on anew where no image
            has a label. Where it is `image_list:` with a CSV file, the new data set begins with its images.
        retrain_on: When to train anew: on `drift`; on `new_data`, which is drift or enough new images; or `always`.
        min_new_images: New images that are enough, those of the source and labelled requests together; below 1 it is
            their share of the images that the model was trained on.
        new_images: Images that the source has beyond those that the model was trained on, from find_new_data.
        known_images: Images that the model was trained on, from find_new_data; 0 where that is not known.
        push_to: Address of a Prometheus Pushgateway that is told the findings; empty for none.
    """

    model_config = ConfigDict(frozen=True)

    events: str = Field(min_length=1)
    service_name: str = ""
    hours: float = Field(default=24.0, gt=0, le=MOST_HOURS, allow_inf_nan=False)
    most_images: int = Field(default=5000, ge=1)
    threshold: float = Field(default=0.2, gt=0, allow_inf_nan=False)
    feedback: str = ""
    labelled_dir: str = ""
    dataset: str = ""
    retrain_on: RetrainOn = "drift"
    min_new_images: float = Field(default=100, gt=0, allow_inf_nan=False)
    new_images: int = Field(default=0, ge=0)
    known_images: int = Field(default=0, ge=0)
    push_to: str = Field(default="", pattern=r"^$|^https?://[^\s/?#]+(/[^\s?#]*)?$")

    @property
    def base_list(self) -> str:
        """The list that a new one begins with; empty where the data set is no list."""
        return self.dataset.removeprefix(LIST_PREFIX) if self.dataset.startswith(LIST_PREFIX) else ""
