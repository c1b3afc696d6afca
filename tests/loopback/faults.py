"""A maker for each kind of fault, and plans that say which request gets which."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from loopback.plan import Call, Fault, FaultPlan


def status(
    http_status: int, /, *, message: str = "no", headers: Mapping[str, str] | None = None, **error: Any
) -> Fault:
    """Answer this status with an error object of `message` and further fields such as `code=` or `type=`."""
    body = json.dumps({"error": {"message": message, **error}})
    return Fault(status=http_status, body=body, headers={"Content-Type": "application/json", **(headers or {})})


def raw_status(code: int, body: str = "", headers: Mapping[str, str] | None = None) -> Fault:
    """Answer `code` with exactly this body."""
    return Fault(status=code, body=body, headers=headers or {})


def cut(after: int = 3) -> Fault:
    """Close the connection abruptly after so many pieces."""
    return Fault(after=after, then="cut")


def no_finish(after: int = 3) -> Fault:
    """End the stream cleanly after so many pieces, without a finish reason."""
    return Fault(after=after, then="end")


def stall(after: int = 0) -> Fault:
    """Say nothing more after so many pieces, until the client goes or the server closes."""
    return Fault(after=after, then="stall")


def half_json(after: int = 2) -> Fault:
    """End the stream in the middle of a JSON object."""
    return Fault(after=after, then="half")


def error_object(after: int = 2, *, error: Mapping[str, Any] | str = "the model runner has crashed") -> Fault:
    """Send an error object inside the 200 stream."""
    return Fault(after=after, then="error", error=error)


def says(text: str, finish: str | None = "stop") -> Fault:
    """Answer with this text."""
    return Fault(text=text, finish=finish)


def empty() -> Fault:
    """Answer with nothing."""
    return says("")


def length(text: str = '{"summary": "The customer wri') -> Fault:
    """Be stopped by the length limit."""
    return says(text, "length")


def not_json() -> Fault:
    """Answer with prose where JSON was asked for."""
    return says("Sure! Here is what I think about it.")


def wrong_schema() -> Fault:
    """Answer with JSON of another shape."""
    return says('{"colour": ["blue"], "summary": 7}')


def white_space() -> Fault:
    """Pad white space for ever, as JSON modes do."""
    return Fault(text='{"summary":', endless="\n  ")


def repetition() -> Fault:
    """Repeat one phrase for ever."""
    return Fault(text='{"summary": "', endless="the service is slow and ")


def drip(interval_s: float = 0.2) -> Fault:
    """Send a few characters now and then, for ever, so that no read timeout fires."""
    return Fault(text="", endless="a", drip_s=interval_s)


def huge(characters: int = 30_000_000) -> Fault:
    """Answer with very much text."""
    return says("A" * characters)


def once(fault: Fault) -> FaultPlan:
    """Give the fault to the first attempt of every prompt."""
    return first(1, fault)


def first(attempts: int, fault: Fault) -> FaultPlan:
    """Give the fault to the first so many attempts of every prompt."""
    return lambda call: fault if call.attempt <= attempts else None


def always(fault: Fault) -> FaultPlan:
    """Give the fault to every request."""
    return lambda _: fault


def drawn(seed: int, share: float, *faults: Fault) -> FaultPlan:
    """Give `share` of the requests one of the faults, drawn from (seed, prompt, attempt): the same at any order."""

    def plan(call: Call) -> Fault | None:
        digest = hashlib.sha256(f"{seed}\0{call.attempt}\0{call.prompt}".encode()).digest()
        if int.from_bytes(digest[:4]) / 2**32 >= share:
            return None
        return faults[int.from_bytes(digest[4:8]) % len(faults)]

    return plan
