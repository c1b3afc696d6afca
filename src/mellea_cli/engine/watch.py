"""What one question tells whoever follows it: a worker turns it into events, a thunk into a stream."""

from __future__ import annotations


class Watch:
    """Follows one question to the model. This one looks away; followers override what they need.

    Every method is called in the loop that asks, returns at once and does not raise.
    """

    __slots__ = ()

    def text(self, piece: str) -> None:
        """A piece of the answer has arrived."""

    def failed(self, kind: str, message: str) -> None:
        """The attempt has failed: what had arrived of its answer is void."""

    def resend(self) -> bool:
        """The transport has failed. Return whether the request may be sent again: not when somebody has seen pieces."""
        return True

    def retry(self, delay_s: float, attempt: int) -> None:
        """The request will be sent again after `delay_s` seconds, as number `attempt`."""


UNWATCHED = Watch()
