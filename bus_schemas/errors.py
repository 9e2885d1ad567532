"""What can go wrong on the bus, as one small tree. Every text is one clear line for people."""

from __future__ import annotations


class BusError(Exception):
    """Root of all errors of this package."""


class BadNameError(BusError, ValueError):
    """A name that no subject token can carry."""


class UndecodableError(BusError, ValueError):
    """A body that is no message of v1. ``reason`` is one line, fit for a dead letter."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NotJsonError(UndecodableError):
    """The body is no JSON object, or is cut off."""


class UnknownTypeError(UndecodableError):
    """The body's ``type`` is missing, of another version, or not one of ours."""


class WrongContentError(UndecodableError):
    """The body's ``type`` is known but its fields are not what v1 says."""


class TooLargeError(UndecodableError):
    """More bytes than a message may have."""


class BusUnreachableError(BusError):
    """No server answered in time."""


class BusRefusedError(BusUnreachableError):
    """A server answered and refused us: wrong, expired or missing credentials, or no trust in its certificate."""


class BusAwayError(BusError, TimeoutError):
    """The server did not answer. What was sent may or may not be stored; the same message ids may be sent again."""


class NotPermittedError(BusAwayError):
    """No answer, and the server said that our role may not do this."""


class NotStoredError(BusError):
    """The server did not store a message in the time given, or refused it for another reason than the fence."""

    def __init__(self, text: str, err_code: int = 0) -> None:
        super().__init__(text)
        self.err_code = err_code


class ProvisionRefusedError(BusError):
    """The server refused a stream; the text says which and why."""


class LeadershipLostError(BusError):
    """This planner leads no more: publish nothing under this term."""


class FenceRefusedError(LeadershipLostError):
    """The server itself refused a decision, for the lease under it is no longer ours."""


class ConsumerGoneError(BusError):
    """The consumer does not exist on the server (yet, or no longer)."""
