"""A request that gets no prediction, with the reason in words for the client."""


class Refused(Exception):
    """An answer that is an error.

    Attributes:
        status: HTTP status code.
        reason: For the client: what is wrong, and what would be right.
        headers: HTTP headers of the answer.
    """

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers or {}


def bad_request(reason: str) -> Refused:
    """The client's mistake."""
    return Refused(400, reason)
