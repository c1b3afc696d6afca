"""Answers by key: what a journal keeps, the form it keeps them in, and a journal that lives in memory only."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Protocol

from mellea_cli.items import Failure, Outcome, Success
from mellea_cli.messages import Usage

MEMORY_ANSWERS = 10_000
"""Answers that are remembered when there is no file to keep them beside."""


class Answers(Protocol):
    """Outcomes by a 16-byte key that the caller makes from the plan and the item's text."""

    def lookup(self, key: bytes) -> Outcome | None:
        """Return what is known for a key; quick enough for an event loop."""
        ...

    def mark(self) -> int:
        """Return where in the order of storing the next answer will be."""
        ...

    def stored_after(self, mark: int, key: bytes) -> bool:
        """Return whether the answer for a key, if there is one, was stored after that `mark`."""
        ...

    def commit(self, records: Sequence[tuple[bytes, Outcome]]) -> None:
        """Keep outcomes, all or none; the later one for a key wins. It is durable when this returns."""
        ...

    def facts(self) -> dict[str, str]:
        """Return what is noted about the run that wrote the answers."""
        ...

    def note_facts(self, facts: Mapping[str, str]) -> None:
        """Note something about the run, such as the program's version; other facts stay."""
        ...

    def close(self) -> None:
        """Let go of the answers."""
        ...


class MemoryAnswers:
    """Answers of one run, for outputs that nothing can stand beside: standard output, a pipe, a device.

    Identical texts are still asked once. Of more than `bound` answers those that were used longest ago go.
    """

    def __init__(self, bound: int = MEMORY_ANSWERS) -> None:
        self._bound = bound
        self._known: OrderedDict[bytes, tuple[int, Outcome]] = OrderedDict()
        self._stored = 0
        self._facts: dict[str, str] = {}
        self._guard = Lock()

    def lookup(self, key: bytes) -> Outcome | None:
        """Return what is known for a key, which counts as using it."""
        with self._guard:
            found = self._known.get(key)
            if found is None:
                return None
            self._known.move_to_end(key)
            return found[1]

    def mark(self) -> int:
        """Return how many answers have been stored."""
        return self._stored

    def stored_after(self, mark: int, key: bytes) -> bool:
        """Return whether the answer for a key is remembered and newer than that `mark`."""
        with self._guard:
            found = self._known.get(key)
            return found is not None and found[0] > mark

    def commit(self, records: Sequence[tuple[bytes, Outcome]]) -> None:
        """Remember outcomes."""
        with self._guard:
            for key, outcome in records:
                self._stored += 1
                self._known[key] = self._stored, outcome
                self._known.move_to_end(key)
            while len(self._known) > self._bound:
                self._known.popitem(last=False)

    def facts(self) -> dict[str, str]:
        """Return what was noted."""
        return dict(self._facts)

    def note_facts(self, facts: Mapping[str, str]) -> None:
        """Note something about the run."""
        self._facts.update(facts)

    def close(self) -> None:
        """Forget everything."""
        self._known.clear()


def outcome_to_text(outcome: Outcome) -> str:
    """Return an outcome as one line of ASCII JSON that `text_to_outcome` turns back into an equal one."""
    usage = [outcome.usage.prompt_tokens, outcome.usage.completion_tokens]
    told = {"usage": usage, "latency_s": outcome.latency_s, "attempts": outcome.attempts}
    if isinstance(outcome, Success):
        return json.dumps({"values": dict(outcome.values), **told})
    why = {"kind": outcome.kind, "message": outcome.message, "step": outcome.step, "status": outcome.status}
    return json.dumps({**why, **told})


def text_to_outcome(text: str) -> Outcome:
    """Read an outcome back.

    Raises:
        ValueError: the text is not what `outcome_to_text` writes.
    """
    stored = json.loads(text)
    try:
        usage, latency_s, attempts = Usage(*stored["usage"]), stored["latency_s"], stored["attempts"]
        if "values" in stored:
            return Success(stored["values"], usage, latency_s, attempts)
        return Failure(
            kind=stored["kind"],
            message=stored["message"],
            step=stored["step"],
            attempts=attempts,
            status=stored["status"],
            usage=usage,
            latency_s=latency_s,
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not an outcome: {error}") from error
