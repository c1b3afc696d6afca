"""Which answers need not be asked for."""

from __future__ import annotations

import asyncio

from mellea_cli.io.journal import MemoryAnswers
from mellea_cli.items import Failure, Item, Success
from mellea_cli.run import answer_cache
from mellea_cli.run.answer_cache import AnswerCache, Claim

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
