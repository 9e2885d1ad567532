"""The errors of this package as one small tree. Every message is one clear line for people."""

from __future__ import annotations


class BusError(Exception):
    """Root of all errors of this package."""


class BadNameError(BusError, ValueError):
    """A name that a subject token cannot carry."""


class UndecodableError(BusError, ValueError):
    """A body that is not a message of v1. ``reason`` is one line, fit for a dead letter."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NotJsonError(UndecodableError):
    """The body is not a JSON object, or is truncated."""


class UnknownTypeError(UndecodableError):
    """The body's ``type`` is missing, of another version, or not one of ours."""


class WrongContentError(UndecodableError):
    """The body's ``type`` is known but its fields do not match v1."""


class TooLargeError(UndecodableError):
    """More bytes than a message may have."""


class BusUnreachableError(BusError):
    """No server answered in time."""


class BusRefusedError(BusUnreachableError):
    """A server answered and refused the connection: bad, expired or missing credentials, or a bad certificate."""


class ServerTooOldError(BusUnreachableError):
    """A server answered without what decisions are stored with. ``remedy``: what to do; the text says both."""

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(f"{cause}: {remedy}")
        self.cause = cause
        self.remedy = remedy


class BusAwayError(BusError, TimeoutError):
    """The server did not answer. What was sent may or may not be stored; the same message ids may be sent again."""


class NoServiceError(BusAwayError):
    """Nothing serves the request: the stream is missing, or its cluster elects a leader at this moment."""


class NotPermittedError(BusAwayError):
    """No answer, and the server reported that our role lacks the permission."""


class NotStoredError(BusError):
    """The server did not store a message in time, or refused it for a reason other than the fence."""

    def __init__(self, text: str, err_code: int = 0) -> None:
        super().__init__(text)
        self.err_code = err_code


class ProvisionRefusedError(BusError):
    """The server refused a change of a stream; the text names the request and the reason."""


class LeadershipLostError(BusError):
    """This planner no longer leads: publish nothing under this term."""


class FenceRefusedError(LeadershipLostError):
    """The server refused a decision because another planner holds the lease."""


class ConsumerGoneError(BusError):
    """The consumer does not exist on the server (yet, or no longer)."""
