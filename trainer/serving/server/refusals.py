"""Why a request is not answered: one class for both protocols."""

from configs.errors import UserError


class RefusedError(Exception):
    """A request that is turned away.

    Attributes:
        status: of HTTP; gRPC has a code for each (`service`).
        retry_after_s: when to try again, for 503.
    """

    def __init__(self, status: int, text: str, retry_after_s: int | None = None) -> None:
        super().__init__(text)
        self.status, self.retry_after_s = status, retry_after_s


class UnreadError(RefusedError):
    """A request that is turned away before its body is read to the end: its connection ends with the answer."""


def refused(error: Exception, mistake: int) -> RefusedError | None:
    """`error` as a refusal; None if it is a fault of the server. mistake: status for what the client did wrong."""
    if isinstance(error, RefusedError):
        return error
    return RefusedError(mistake, str(error)) if isinstance(error, UserError) else None
