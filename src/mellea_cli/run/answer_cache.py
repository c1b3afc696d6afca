"""Answer cache: which answers are known already, from an earlier run or for an identical text of this one."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from mellea_cli.errors import UsageError
from mellea_cli.io.journal import Answers, RowAnswers
from mellea_cli.io.writers import ANSWERED_BY, BY_MODEL
from mellea_cli.items import Failure, Item, Outcome, Success
from mellea_cli.messages import Usage
from mellea_cli.pipelines.pipeline import AnswerUnit
from mellea_cli.run.plan import KEY_BYTES, RunPlan

# Items that wait for the in-flight answer of an identical text. More of them keep their workers waiting instead, so
# that memory stays bounded.
_MOST_PARKED = 10_000


class UnitAnswers:
    """Answers of rows over a store that has the answer of each unit of their pipeline by itself.

    A row's key is the keys of its units, joined. A row is answered when all of them are, and has failed when one has.
    """

    def __init__(self, answers: Answers, units: Sequence[AnswerUnit]) -> None:
        self._answers = answers
        self._units = units
        self.mark = answers.mark

    def lookup(self, key: bytes) -> Outcome | None:
        found = [self._answers.lookup(part) for part in _parts(key)]
        failure = next((one for one in found if isinstance(one, Failure)), None)
        if failure is not None or None in found:
            return failure
        good = [one for one in found if isinstance(one, Success)]
        return Success(
            {column: value for one in good for column, value in one.values.items()},
            sum((one.usage for one in good), Usage()),
            max(one.latency_s for one in good),
            max(one.attempts for one in good),
            answered_by=max(one.answered_by for one in good),
        )

    def known(self, key: bytes) -> dict[str, Any]:
        """The columns of a row that are answered, also when others are not."""
        found = (self._answers.lookup(part) for part in _parts(key))
        return {column: value for one in found if isinstance(one, Success) for column, value in one.values.items()}

    def missing(self, key: bytes) -> tuple[list[str], bytes]:
        """The names of a row's units without an answer, and their keys, joined."""
        parts = zip(self._units, _parts(key), strict=True)
        found = [(unit.name, part) for unit, part in parts if not isinstance(self._answers.lookup(part), Success)]
        return [name for name, _ in found], b"".join(part for _, part in found)

    def stored_after(self, mark: int, key: bytes) -> bool:
        return any(self._answers.stored_after(mark, part) for part in _parts(key))

    def commit(self, records: Sequence[tuple[bytes, Outcome]]) -> None:
        """Store the outcomes of rows, all or none: one record for each unit that was asked."""
        self._answers.commit([record for key, outcome in records for record in self._of_units(key, outcome)])

    def _of_units(self, key: bytes, outcome: Outcome) -> Iterator[tuple[bytes, Outcome]]:
        if isinstance(outcome, Success):
            answered, asked = outcome.values, outcome.asked
        else:
            answered, asked = outcome.answered or {}, ()
        usage = outcome.usage
        for unit, part in zip(self._units, _parts(key), strict=True):
            if asked and not any(column in asked for column in unit.columns):
                continue
            if all(column in answered for column in unit.columns):
                values = {column: answered[column] for column in unit.columns}
                by = outcome.answered_by if isinstance(outcome, Success) else ""
                yield part, Success(values, usage, outcome.latency_s, outcome.attempts, answered_by=by)
            else:
                yield part, replace(outcome, usage=usage)
            usage = Usage()  # what they have cost together counts once


def _parts(key: bytes) -> list[bytes]:
    return [key[at : at + KEY_BYTES] for at in range(0, len(key), KEY_BYTES)]


def completed(outcome: Outcome, known: Mapping[str, Any]) -> Outcome:
    """The outcome of a row of which only the columns that were not known have been asked."""
    if isinstance(outcome, Success):
        return replace(outcome, values={**known, **outcome.values}, asked=tuple(outcome.values))
    return replace(outcome, answered={**known, **(outcome.answered or {})})


def row_answers(answers: Answers, plan: RunPlan) -> RowAnswers | UnitAnswers:
    """The answers of whole rows by the plan's keys."""
    units = plan.pipeline.units
    return UnitAnswers(answers, units) if units else answers


_PERMUTATIONS = 64
_CANDIDATE = 0.85  # Similarity from which MinHash finds most pairs
_NEAR = 0.9
_PIECE = 5
# Words that turn what a text says, in the usual languages of feedback.
_TURNS = re.compile(
    "\\b(?:not|no|never|none|nothing|nobody|without|cannot|nicht|kein(?:e[nrms]?)?|nie(?:mals)?|nichts|ohne|ne|pas|jamais|sans"
    "|aucune?|rien|nunca|jam[aá]s|sin|nada|ning[uú]na?|non|mai|senza|niente|nessun[oa]?|não|sem|nenhuma?|niet|geen|nooit"
    "|zonder|niets)\\b|n['\u2019]t\\b"
)


class NearDuplicates:
    """Groups of long texts that are nearly the same, by their first one; the same input in the same order groups alike.

    MinHash finds candidates, and their pieces of 5 characters decide. Holds the text and about 2 KB for each group.

    Raises:
        UsageError: datasketch is not installed.
    """

    def __init__(self) -> None:
        try:
            from datasketch import MinHash, MinHashLSH
        except ImportError as error:
            hint = "pip install 'mellea-cli[duplicates]'"
            raise UsageError("--near-duplicates needs datasketch", hint=hint) from error

        self._empty = MinHash(num_perm=_PERMUTATIONS, hashfunc=zlib.crc32)
        self._index = MinHashLSH(threshold=_CANDIDATE, num_perm=_PERMUTATIONS)
        self._texts: dict[bytes, tuple[str, str]] = {}  # The id and the text of each group's first row, by its key
        self._groups: dict[bytes, bytes] = {}  # The first row's key, by the keys of the others

    def first(self, item: Item, key: bytes) -> bytes:
        """The key of the first row of an item's group: its own `key` where it is the first."""
        if key in self._texts:
            return key
        if (known := self._groups.get(key)) is not None:
            return known
        text = " ".join(item.text.lower().split())
        pieces, sketch = _pieces(text), self._empty.copy()
        sketch.update_batch([piece.encode("utf-8", "surrogatepass") for piece in pieces])
        turns, best = Counter(_TURNS.findall(text)), (_NEAR, b"")
        for candidate in self._index.query(sketch):
            other = self._texts[candidate][1]
            theirs = _pieces(other)
            if turns == Counter(_TURNS.findall(other)):
                best = max(best, (len(pieces & theirs) / len(pieces | theirs), candidate))
        if best[1]:
            self._groups[key] = best[1]
            return best[1]
        self._texts[key] = str(item.id), text
        self._index.insert(key, sketch, check_duplication=False)
        return key

    def answered(self, outcome: Outcome, shared: bytes) -> Outcome:
        """The outcome of the first row of a group for another one, which says whose it is."""
        if not isinstance(outcome, Success) or shared not in self._texts:
            return outcome
        return replace(outcome, answered_by=f"duplicate of {self._texts[shared][0]}")


def _pieces(text: str) -> set[str]:
    return {text[at : at + _PIECE] for at in range(len(text) - _PIECE + 1)}


def with_answered_by(outcome: Outcome) -> Outcome:
    """The outcome with the column that says what has answered."""
    if not isinstance(outcome, Success):
        return outcome
    by = outcome.answered_by or (BY_MODEL if outcome.attempts else None)
    return replace(outcome, values={**outcome.values, ANSWERED_BY: by})


class Claim(Enum):
    """Result of a claim to ask a question."""

    ASK = "ask"  # The caller asks, and calls `settle` afterwards
    PARKED = "parked"  # The question is in flight; `settle` returns the item
    ANSWERED = "answered"  # The question was in flight and is done: look again whether the answer is known


@dataclass(slots=True)
class _InFlight:
    """A question in flight, and the items that wait for the same answer."""

    followers: list[Item] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)


class AnswerCache:
    """Finds answers that need not be asked for.

    Only the event loop's thread uses it. An answer is known here from the claim until it can be looked up in the
    journal, so there is no moment at which an identical text would be asked twice.

    Args:
        answers: the journal.
        retry_failed: whether an item that failed in an earlier run is asked again.
    """

    def __init__(self, answers: RowAnswers, *, retry_failed: bool = True) -> None:
        self._answers = answers
        self._retry_failed = retry_failed
        self._in_flight: dict[bytes, _InFlight] = {}
        self._uncommitted: dict[bytes, Outcome] = {}
        # The journal tells by the order of storing which answers are of this run, so no key stays in memory.
        self._began = answers.mark()
        self._parked = 0

    def known(self, key: bytes) -> Outcome | None:
        """The outcome for `key` that this run may use as it is."""
        outcome = self.stored(key)
        if isinstance(outcome, Success) or outcome is None:
            return outcome
        # A failure of this run also stands for identical texts; one of an earlier run is asked again.
        return outcome if not self._retry_failed or self.is_of_this_run(key) else None

    def stored(self, key: bytes) -> Outcome | None:
        """The outcome for `key` of any run, also a failure of an earlier one."""
        return self._uncommitted.get(key) or self._answers.lookup(key)

    def is_of_this_run(self, key: bytes) -> bool:
        """Whether the outcome for `key` is of this run."""
        return key in self._uncommitted or self._answers.stored_after(self._began, key)

    async def claim(self, key: bytes, item: Item) -> Claim:
        """Take on the question for `key`, or park `item` with the one in flight."""
        question = self._in_flight.get(key)
        if question is None:
            self._in_flight[key] = _InFlight()
            return Claim.ASK
        if self._parked < _MOST_PARKED:
            self._parked += 1
            question.followers.append(item)
            return Claim.PARKED
        await question.done.wait()
        return Claim.ANSWERED

    def settle(self, key: bytes, outcome: Outcome | None, own: bytes = b"") -> list[Item]:
        """End the question for `key`; `outcome` is `None` when it was given up.

        Args:
            key: the key that was claimed.
            outcome: what became of it.
            own: the key of the text that was asked, where nearly identical ones share `key`.

        Returns:
            The items that waited for it.
        """
        question = self._in_flight.pop(key)
        if outcome is not None:
            self._uncommitted[key] = outcome
            self._uncommitted[own or key] = outcome
        self._parked -= len(question.followers)
        question.done.set()
        return question.followers

    def committed(self, keys: Iterable[bytes]) -> None:
        """Forget answers that can be looked up in the journal from now on."""
        for key in keys:
            self._uncommitted.pop(key, None)


@dataclass(slots=True)
class Forecast:
    """Items of an input by what a run would do with them; the counts add up to all items."""

    new: int = 0  # Not asked about yet, or not with this plan
    known: int = 0  # Answered by an earlier run
    failed: int = 0  # Failed in an earlier run
    blank: int = 0  # Without any text: nothing is asked
    identical: int = 0  # Same text as an earlier item of the input: asked once
    alike: int = 0  # Not the same text as an earlier item, but a nearly identical one: asked once
    again: int = 0  # Those of the new ones that were answered with other settings
    calls: int = 0
    """Model calls for the new and the failed ones when nothing has to be asked again, and every step is asked."""
    least_calls: int = 0  # Those of them whose steps have no condition
    units: Counter[str] = field(default_factory=Counter)
    """How many of these rows each unit of the pipeline is asked for, where it has units."""
    first: Item | None = None  # The first item that would be asked
    asked: int = 0  # The new ones, and the failed ones if they are asked again
    characters: int = 0  # Characters of the texts of these

    def asks(self, *, retry_failed: bool) -> int:
        """Items that a run would ask about."""
        return self.new + (self.failed if retry_failed else 0)


def forecast(
    items: Iterable[Item],
    plan: RunPlan,
    answers: Answers,
    *,
    carried: Callable[[Item], Outcome | None] | None = None,
    earlier: Sequence[bytes] = (),
    retry_failed: bool = True,
    asked: Callable[[Item], None] = lambda _: None,
) -> Forecast:
    """Go through the items of an input without asking anything; holds 16 bytes for each distinct text.

    Args:
        items: the items.
        plan: the run.
        answers: the journal.
        carried: finds an answer that need not be asked for, see `mellea_cli.run.batch.RunIO`.
        earlier: the fingerprints of plans of earlier runs.
        retry_failed: whether an item that failed in an earlier run is asked again.
        asked: receives each item that would be asked.
    """
    found = Forecast(units=Counter({unit.name: 0 for unit in plan.pipeline.units}))
    seen: set[bytes] = set()
    rows = row_answers(answers, plan)
    for item in items:
        if not item.text.strip():
            found.blank += 1
            continue
        key = plan.key(item.text, item.id, item.fields)
        shared = plan.shared_key(item, key)
        if shared in seen:
            is_alike = shared != key and key not in seen
            found.alike += is_alike
            found.identical += not is_alike
            continue
        seen.update((shared, key))
        outcome = rows.lookup(key) or (rows.lookup(shared) if shared != key else None)
        if not isinstance(outcome, Success) and carried is not None:
            outcome = carried(item) or outcome
        if isinstance(outcome, Success):
            found.known += 1
            continue
        if outcome is None:
            found.new += 1
            keys = (plan.key(item.text, item.id, item.fields, fingerprint=one) for one in earlier)
            found.again += any(isinstance(rows.lookup(key), Success) for key in keys)
        else:
            found.failed += 1
        if outcome is None or retry_failed:
            pipeline = plan.pipeline
            if isinstance(rows, UnitAnswers):
                found.units.update(rows.missing(key)[0])
                item = replace(item, known=rows.known(key))  # noqa: PLW2901 - the same item
                pipeline = pipeline.narrowed(item.known or {})
            least, most = pipeline.calls(item.text)
            found.least_calls += least
            found.calls += most
            found.first = found.first or item
            found.asked += 1
            found.characters += len(item.text)
            asked(item)
    return found
