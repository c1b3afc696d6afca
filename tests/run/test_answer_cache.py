"""Which answers need not be asked for."""

from __future__ import annotations

import asyncio
import sys

import pytest
from run_io import plan

from mellea_cli.errors import UsageError
from mellea_cli.io.journal import MemoryAnswers
from mellea_cli.items import Failure, Item, Success
from mellea_cli.messages import Usage
from mellea_cli.pipelines.own_fields import own_pipeline
from mellea_cli.pipelines.pipeline import AnswerUnit
from mellea_cli.pipelines.pipeline_spec import PipelineSpec
from mellea_cli.run import answer_cache
from mellea_cli.run.answer_cache import (
    AnswerCache,
    Claim,
    NearDuplicates,
    UnitAnswers,
    completed,
    forecast,
    row_answers,
)

KEY = b"k" * 16
GOOD, BAD = Success({"summary": "s"}), Failure("parse", "no")


def item(number: int) -> Item:
    return Item(number, number, "same")


async def test_the_first_asks_and_the_others_wait() -> None:
    """One claim for a text in flight; the rest come back when it is settled, in their order."""
    cache = AnswerCache(MemoryAnswers())
    assert await cache.claim(KEY, item(0)) is Claim.ASK
    assert [await cache.claim(KEY, item(n)) for n in (1, 2)] == [Claim.PARKED] * 2
    assert [one.position for one in cache.settle(KEY, GOOD)] == [1, 2]
    assert cache.known(KEY) == GOOD


async def test_an_answer_is_known_from_settling_to_commit_and_after() -> None:
    """There is no instant at which an identical text would be asked twice."""
    answers = MemoryAnswers()
    cache = AnswerCache(answers)
    await cache.claim(KEY, item(0))
    cache.settle(KEY, GOOD)
    assert cache.known(KEY) == GOOD
    answers.commit([(KEY, GOOD)])
    cache.committed([KEY])
    assert cache.known(KEY) == GOOD


async def test_only_answers_of_this_run_are_settled_and_no_key_is_kept() -> None:
    """What an earlier run has stored is known, and told apart by the journal: nothing grows with the rows."""
    answers = MemoryAnswers()
    answers.commit([(KEY, GOOD)])
    cache = AnswerCache(answers)
    assert cache.known(KEY) == GOOD
    assert not cache.is_of_this_run(KEY)
    for number in range(100):
        key = number.to_bytes(16)
        await cache.claim(key, item(number))
        cache.settle(key, GOOD)
        answers.commit([(key, GOOD)])
        cache.committed([key])
    assert all(cache.is_of_this_run(number.to_bytes(16)) for number in range(100))
    assert not any(getattr(kept, "__len__", lambda: 0)() for name, kept in vars(cache).items() if name != "_answers")


async def test_a_question_that_was_given_up_can_be_claimed_again() -> None:
    """A leader without an outcome leaves nothing behind."""
    cache = AnswerCache(MemoryAnswers())
    await cache.claim(KEY, item(0))
    assert cache.settle(KEY, None) == []
    assert cache.known(KEY) is None
    assert await cache.claim(KEY, item(1)) is Claim.ASK


async def test_failures_of_this_run_stand_and_those_of_earlier_ones_get_another_chance() -> None:
    """A failure is asked again by the next run, not by the next identical row."""
    answers = MemoryAnswers()
    answers.commit([(KEY, BAD)])
    cache = AnswerCache(answers)
    assert cache.known(KEY) is None
    assert cache.stored(KEY) == BAD
    await cache.claim(KEY, item(0))
    cache.settle(KEY, BAD)
    assert cache.known(KEY) == BAD
    answers.commit([(KEY, BAD)])
    cache.committed([KEY])
    assert cache.known(KEY) == BAD
    assert cache.is_of_this_run(KEY)
    assert AnswerCache(answers, retry_failed=False).known(KEY) == BAD


async def test_those_that_wait_are_bounded(monkeypatch: object) -> None:
    """Beyond the bound a worker waits itself, and looks again when the answer has landed."""
    cache = AnswerCache(MemoryAnswers())
    await cache.claim(KEY, item(0))
    cache._parked = answer_cache._MOST_PARKED
    waiting = asyncio.ensure_future(cache.claim(KEY, item(1)))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert cache.settle(KEY, GOOD) == []
    assert await waiting is Claim.ANSWERED


# Units.

UNITS = (AnswerUnit("built-in fields", ("summary", "issues"), {}, is_builtin=True), AnswerUnit("team", ("team",), {}))
ROW = b"a" * 16 + b"b" * 16


def test_a_row_is_known_when_all_of_its_units_are() -> None:
    """Each is stored under its own key; a key of fewer units finds them, too."""
    store = MemoryAnswers()
    answers = UnitAnswers(store, UNITS)
    assert answers.lookup(ROW) is None
    assert answers.missing(ROW) == (["built-in fields", "team"], ROW)
    store.commit([(ROW[:16], Success({"summary": "s", "issues": {"urgency": "low"}}, Usage(5, 1), 0.5, 2))])
    assert answers.lookup(ROW) is None
    assert answers.known(ROW) == {"summary": "s", "issues": {"urgency": "low"}}
    assert answers.missing(ROW) == (["team"], ROW[16:])
    mark = answers.mark()
    asked = completed(Success({"team": "billing"}, Usage(7, 2), 0.25, 1), answers.known(ROW))
    assert asked == Success(
        {"summary": "s", "issues": {"urgency": "low"}, "team": "billing"}, Usage(7, 2), 0.25, 1, asked=("team",)
    )
    answers.commit([(ROW, asked)])
    assert store.lookup(ROW[:16]) == Success({"summary": "s", "issues": {"urgency": "low"}}, Usage(5, 1), 0.5, 2)
    assert store.lookup(ROW[16:]) == Success({"team": "billing"}, Usage(7, 2), 0.25, 1)
    found = answers.lookup(ROW)
    assert found == Success({"summary": "s", "issues": {"urgency": "low"}, "team": "billing"}, Usage(12, 3), 0.5, 2)
    assert answers.stored_after(mark, ROW)
    assert not answers.stored_after(mark, ROW[:16])


def test_a_failure_keeps_what_was_answered() -> None:
    """The row has failed, one unit has its answer, and the cost counts once."""
    store = MemoryAnswers()
    answers = UnitAnswers(store, UNITS)
    failed = Failure("parse", "no", "fields", 3, usage=Usage(9, 3), answered={"team": "other"})
    answers.commit([(ROW, failed)])
    assert isinstance(answers.lookup(ROW), Failure)
    assert answers.known(ROW) == {"team": "other"}
    outcomes = [store.lookup(ROW[:16]), store.lookup(ROW[16:])]
    assert sum((one.usage for one in outcomes if one is not None), Usage()) == Usage(9, 3)
    # What was known before the row failed stays known.
    again = completed(Failure("unavailable", "gone"), answers.known(ROW))
    answers.commit([(ROW, again)])
    assert answers.known(ROW) == {"team": "other"}


def test_a_pipeline_without_units_needs_no_such_store() -> None:
    """The journal itself has the rows."""
    store = MemoryAnswers()
    assert row_answers(store, plan()) is store
    own = plan(pipeline=own_pipeline(PipelineSpec.model_validate({"fields": {"a": {}, "b": {}}})))
    assert isinstance(row_answers(store, own), UnitAnswers)
    assert len(own.key("text")) == 32


def test_a_forecast_counts_rows_by_unit() -> None:
    """Units of rows that would be asked, the calls for them, and the first of these rows."""
    spec = {"fields": {"a": {}, "b": {}}, "steps": [{"name": "x", "fields": ["a"]}, {"name": "y", "fields": ["b"]}]}
    own = plan(pipeline=own_pipeline(PipelineSpec.model_validate(spec)))
    store = MemoryAnswers()
    rows = [Item(number, number, f"text {number}") for number in range(4)]
    UnitAnswers(store, own.pipeline.units).commit([(own.key("text 0"), Success({"a": "1", "b": "2"}))])
    store.commit([(own.key("text 1")[:16], Success({"a": "1"}))])
    found = answer_cache.forecast(rows, own, store)
    assert (found.known, found.new, found.calls) == (1, 3, 5)
    assert found.units == {"a": 2, "b": 3}
    assert found.first is not None
    assert (found.first.id, found.first.known) == (1, {"a": "1"})


def test_a_forecast_counts_nearly_identical_texts_once() -> None:
    """As a run would ask them; one that is answered answers the others."""
    texts = ["Great", "great.", "Great", "great?", " ", "Bad"]
    rows = [Item(place, place, text) for place, text in enumerate(texts)]
    shared, answers = plan(normalise=True), MemoryAnswers()
    found = forecast(rows, shared, answers)
    assert (found.new, found.identical, found.alike, found.blank) == (3, 1, 1, 1)
    answers.commit([(shared.key("great"), GOOD)])
    found = forecast(rows, shared, answers)
    assert (found.new, found.known, found.identical, found.alike) == (2, 1, 1, 1)
    assert forecast(rows, plan(), MemoryAnswers()).alike == 0


STORY = "We stayed for three nights in {}, and the heating in our room was broken the whole time."
STORY += (
    " The staff at the desk changed it at once, breakfast was fresh and plenty. I would recommend it to my friends."
)


def groups(*texts: str) -> list[int]:
    """For each text the place of the first one of its group."""
    near, keys = NearDuplicates(), [text.encode() for text in texts]
    firsts = [near.first(Item(place, place, text), keys[place]) for place, text in enumerate(texts)]
    assert firsts == [near.first(Item(place, place, text), keys[place]) for place, text in enumerate(texts)]
    return [keys.index(first) for first in firsts]


@pytest.mark.parametrize(
    ("other", "is_near"),
    [
        (STORY.format("June").replace("stayed for", "stayed  FOR"), True),
        (STORY.format("June 2026!"), True),
        (STORY.format("Jume"), True),
        (STORY.format("June").replace("would rec", "would not rec"), False),
        (STORY.format("June").replace("I would", "I wouldn't"), False),
        (STORY.format("a small town by the sea that we liked"), False),
        ("Something else, of about the same length. " * 5, False),
    ],
)
def test_texts_that_are_nearly_the_same_are_a_group(other: str, is_near: bool) -> None:
    """By nine tenths of their pieces, whatever the capitals and blanks; a negation in one of them keeps them apart."""
    assert groups(STORY.format("June"), other) == [0, 0 if is_near else 1]


def test_the_first_of_a_group_stands_for_it() -> None:
    """Each text has the group that it is nearest to, and all are found among many others."""
    others = [f"{'-'.join(str(n * k) for k in range(3, 30))} is what row {n} says about its order" for n in range(200)]
    texts = [*others, *(f"{text}!" for text in others)]
    assert groups(*texts) == [*range(200), *range(200)]


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra."""
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(UsageError, match="--near-duplicates needs datasketch") as refused:
        NearDuplicates()
    assert refused.value.hint == "pip install 'mellea-cli[duplicates]'"
