"""The interface of a launcher."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Verdict:
    """What a job's status means.

    Attributes:
        state: Whether the job goes on, is done, or is lost.
        reason: For a failure, what happened and where, in words for the user.
        retryable: Whether starting again from the last checkpoint can help.
    """

    state: Literal["running", "succeeded", "failed"]
    reason: str = ""
    retryable: bool = False


class Launcher(ABC):
    """Runs one training job."""

    @abstractmethod
    def submit(self) -> str:
        """Starts the job, or adopts it where it runs already.

        Returns:
            The job's name.
        """

    @abstractmethod
    def wait(self) -> Verdict:
        """Follows the job to its end, passing on the logs of all its workers and its changes of state."""

    @abstractmethod
    def cancel(self) -> None:
        """Ends the job and waits until no worker is left. Does nothing when there is none."""
