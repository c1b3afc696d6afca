"""Thunks by themselves: what they are before, without and after a generation."""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
from collections.abc import Callable

import pytest

from loopback import ModelServer, faults
from loopback.replies import default_reply, pieces
from mellea_cli import MelleaSession, ModelOption, ModelOutputThunk, wait_for_all_mots
from mellea_cli.core import ComputedModelOutputThunk
from mellea_cli.errors import BackendError
from mellea_cli.session.thunk import Stream

Serve = Callable[..., ModelServer]
Open = Callable[..., MelleaSession]

REPLY = default_reply("", None)
LIVE = {ModelOption.STREAM: True}


async def test_a_thunk_with_a_text_is_complete_at_once() -> None:
    """It can be awaited, read and printed, but has nothing to stream."""
    thunk = ModelOutputThunk("text")
    assert thunk.is_computed()
    assert (await thunk, await thunk.avalue(), str(thunk)) == (thunk, "text", "text")
    assert [piece async for piece in thunk] == []
    with pytest.raises(RuntimeError, match="never streamed"):
        await thunk.astream()
    assert repr(thunk) == "ModelOutputThunk('text')"


async def test_a_thunk_without_a_generation_never_blocks() -> None:
    """Nothing will ever come, and every way to wait says so."""
    thunk = ModelOutputThunk()
    assert (thunk.is_computed(), thunk.value, repr(thunk)) == (False, None, "ModelOutputThunk(...)")
    for read in (thunk.avalue, thunk.astream, lambda: wait_for_all_mots([thunk])):
        with pytest.raises(RuntimeError, match="no generation"):
            await read()
    with pytest.raises(RuntimeError, match="no generation"):
        str(thunk)


def test_a_value_is_a_text() -> None:
    """Nothing but a str is taken."""
    with pytest.raises(TypeError, match="int"):
        ModelOutputThunk(7)


async def test_a_whole_stream_joins_to_the_value(m: MelleaSession) -> None:
    """The tutorial's loop gets every piece, one for each of the wire's, however fast the answer was."""
    thunk = await m.ainstruct("Say something.", strategy=None, model_options=LIVE)
    read = []
    while not thunk.is_computed():
        read.append(await thunk.astream())
    assert "".join(read) == thunk.value == REPLY
    assert [piece for piece in read if piece] == pieces(REPLY)


async def test_the_whole_text_after_a_part_of_the_stream(m: MelleaSession) -> None:
    """`avalue()` gives all of it to one who has read a part, and then there is nothing to wait for."""
    thunk = await m.ainstruct("Say something.", strategy=None, model_options=LIVE)
    assert await thunk.astream() == pieces(REPLY)[0]
    assert await thunk.avalue() == REPLY
    assert thunk.is_computed()


async def test_a_streaming_thunk_without_a_reader_runs_to_its_end(m: MelleaSession, server: ModelServer) -> None:
    """It releases its connection, and its text can be read later."""
    thunk = await m.ainstruct("Say something.", strategy=None, model_options=LIVE)
    await server.until(lambda state: state.completed == 1 and state.in_flight == 0)
    assert await thunk.avalue() == REPLY


async def test_two_readers_at_once_are_one_too_many(serve: Serve, open_session: Open) -> None:
    """While one task waits for a piece, a second reader gets an error, and the first its pieces."""
    server = serve(latency_s=0.2)
    thunk = await open_session(server).ainstruct("Say something.", strategy=None, model_options=LIVE)
    first = asyncio.create_task(thunk.astream())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="one reader at a time"):
        await thunk.astream()
    assert await first == pieces(REPLY)[0]


async def test_only_complete_answers_can_be_copied(serve: Serve, open_session: Open) -> None:
    """An incomplete thunk cannot be copied; the copy of a complete one has its facts and no generation."""
    server = serve(latency_s=0.2)
    thunk = await open_session(server).ainstruct("Say something.")
    with pytest.raises(RuntimeError, match="can be copied"):
        copy.deepcopy(thunk)
    await thunk
    for twin in (copy.copy(thunk), copy.deepcopy(thunk)):
        assert (twin.value, twin.usage, twin.is_computed()) == (REPLY, thunk.usage, True)


async def test_a_failure_that_is_never_read_is_logged(
    serve: Serve, open_session: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """A dropped thunk that had failed leaves one line; one that was read leaves none."""
    server = serve(fault=faults.always(faults.status(400)))
    m = open_session(server)
    read, unread = await m.ainstruct("Say MARK-1."), await m.ainstruct("Say MARK-2.")
    with pytest.raises(BackendError):
        await read.avalue()
    await wait_for_all_mots([unread], return_exceptions=True)
    with caplog.at_level(logging.WARNING, "mellea_cli"):
        del read, unread
        gc.collect()
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "a generation failed and its answer was never read"
    ]


async def test_cancelling_with_an_error_is_what_readers_get(serve: Serve, open_session: Open) -> None:
    """`cancel_generation(error)` makes every read raise it."""
    server = serve(fault=faults.always(faults.stall(1)))
    thunk = await open_session(server).ainstruct("Say something.")
    reason = ValueError("not wanted any more")
    await thunk.cancel_generation(reason)
    with pytest.raises(ValueError, match="not wanted") as seen:
        await thunk.avalue()
    assert seen.value is reason
    assert thunk.cancelled


async def test_a_thunk_waiting_for_the_limiter_can_be_cancelled(serve: Serve, open_session: Open) -> None:
    """One that has not been sent yet is cancelled without a request, and the others continue."""
    server = serve(latency_s=0.2)
    m = open_session(server, concurrency=1)
    first, second, third = [await m.ainstruct(f"Say MARK-{number}.") for number in range(3)]
    await second.cancel_generation()
    assert (second.value, second.cancelled) == ("", True)
    assert await third.avalue() == default_reply("MARK-2", None)
    assert first.is_computed()
    assert server.state.requests == 2


async def test_waiting_for_all_raises_the_first_failure_at_once(serve: Serve, open_session: Open) -> None:
    """The failure does not wait for the others, which go on and can be read."""
    server = serve(latency_s=0.3, fault=lambda call: faults.status(400) if "MARK-1" in call.prompt else None)
    m = open_session(server)
    thunks = [await m.ainstruct(f"Say MARK-{number}.") for number in range(3)]
    with pytest.raises(BackendError):
        await wait_for_all_mots(thunks)
    assert not thunks[0].is_computed()
    assert await thunks[2].avalue() == default_reply("MARK-2", None)


async def test_waiting_for_all_can_collect_the_failures(serve: Serve, open_session: Open) -> None:
    """With `return_exceptions` every thunk has ended, and each failed one holds its error."""
    server = serve(fault=lambda call: faults.status(400) if "MARK-1" in call.prompt else None)
    m = open_session(server)
    thunks = [await m.ainstruct(f"Say MARK-{number}.") for number in range(3)]
    await wait_for_all_mots(thunks, return_exceptions=True)
    assert [thunk.error is None for thunk in thunks] == [True, False, True]
    await wait_for_all_mots([])


async def test_thunks_of_several_sessions_wait_together(serve: Serve, open_session: Open) -> None:
    """A list may hold thunks of more than one session, and texts that stand already."""
    first, second = open_session(serve()), open_session(serve())
    thunks = [await first.ainstruct("Say MARK-1."), ModelOutputThunk("there"), await second.ainstruct("Say MARK-2.")]
    await wait_for_all_mots(thunks)
    assert [thunk.value for thunk in thunks] == [
        default_reply("MARK-1", None),
        "there",
        default_reply("MARK-2", None),
    ]


# The stream of one answer: pieces, one reader, and when it counts as settled.


def filled(*texts: str, live: bool = True) -> Stream:
    """A stream into which these pieces have come."""
    stream = Stream(live=live)
    for text in texts:
        stream.text(text)
    return stream


async def read_all(stream: Stream) -> list[str]:
    """Read as the tutorial's loop reads."""
    read = []
    while not stream.settled():
        read.append(await stream.next())
    return read


async def test_each_piece_is_handed_over_once_and_alone() -> None:
    """Pieces that had piled up come one by one, none of them batched with another."""
    stream = filled("a", "b", "c")
    assert [await stream.next(), await stream.next()] == ["a", "b"]
    stream.text("d")
    stream.end("abcd")
    assert [await stream.next(), await stream.next()] == ["c", "d"]
    assert stream.over


async def test_a_loop_over_settled_misses_nothing() -> None:
    """A reader that begins after the end gets every piece, and so does one that was slow."""
    late = filled("a", "b")
    late.end("ab")
    assert await read_all(late) == ["a", "b"]
    slow = filled("a")
    assert await slow.next() == "a"
    slow.text("b")
    slow.text("c")
    slow.end("abc")
    assert not slow.settled()
    assert await read_all(slow) == ["b", "c"]


def test_a_stream_without_a_reader_is_settled_at_the_second_look() -> None:
    """A stream without a reader is unsettled once more after its end, and then settled."""
    stream = filled("a")
    assert not stream.settled()
    stream.end("a")
    assert [stream.settled(), stream.settled()] == [False, True]


async def test_a_reader_who_has_the_whole_text_has_nothing_to_wait_for() -> None:
    """After `avalue()` the reader's own stream is settled; another task's `avalue()` does not end it."""
    stream = filled("a", "b")
    await stream.next()
    stream.end("ab")
    await asyncio.gather(give_whole(stream))
    assert not stream.settled()
    stream.given_whole()
    assert stream.settled()


async def give_whole(stream: Stream) -> None:
    """What `avalue()` does, in a task of its own."""
    stream.given_whole()


async def test_a_second_reader_gets_an_error() -> None:
    """While one waits for a piece another gets a clear error, and the first its piece."""
    stream = Stream(live=True)
    first = asyncio.create_task(stream.next())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="one reader at a time"):
        await stream.next()
    stream.text("a")
    assert await first == "a"


async def test_another_reader_may_follow_a_cancelled_one() -> None:
    """Cancelling a reader loses no piece."""
    stream = Stream(live=True)
    first = asyncio.create_task(stream.next())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    stream.text("a")
    assert await stream.next() == "a"


async def test_the_last_call_may_be_empty_and_the_one_after_is_refused() -> None:
    """When the end comes after the last piece was read, one call returns nothing, and the next is an error."""
    stream = filled("a")
    assert await stream.next() == "a"
    stream.end("a")
    assert stream.settled()
    assert await stream.next() == ""
    with pytest.raises(RuntimeError, match="read to its end"):
        await stream.next()


async def test_a_stream_that_is_not_live_gives_the_answer_whole() -> None:
    """Pieces stay inside until the end, and the answer that counts comes as one."""
    stream = filled("bad ", "answer", live=False)
    waiting = asyncio.create_task(stream.next())
    await asyncio.sleep(0)
    assert not waiting.done()
    stream.failed("requirement", "it is bad")
    stream.text("good")
    stream.end("good")
    assert await waiting == "good"
    assert stream.over


async def test_what_was_not_read_can_be_taken_back() -> None:
    """A request may be sent again until a piece was handed over; what had arrived is void."""
    stream = filled("a")
    assert stream.resend()
    stream.text("b")
    assert stream.partial == "b"
    assert await stream.next() == "b"
    assert not stream.resend()
    assert stream.partial == "b"


async def test_a_reader_whose_loop_is_closed_loses_no_piece() -> None:
    """A piece that arrives when the waiting loop has been closed is kept."""
    stream = Stream(live=True)

    def wait_in_a_loop_that_ends() -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(stream.next())
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        task.get_coro().close()
        task._log_destroy_pending = False

    await asyncio.to_thread(wait_in_a_loop_that_ends)
    stream.text("a")
    assert stream.partial == "a"


async def test_reading_a_value_too_early_is_said_once(
    serve: Serve, open_session: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """The line names both cures, once in a session; a value that stands says nothing."""
    server = serve(fault=faults.always(faults.stall(0)))
    m = open_session(server)
    thunks = [await m.ainstruct("Say something."), await m.ainstruct("Say something else.")]
    assert [thunk.value for thunk in thunks] == [None, None]
    [record] = caplog.records
    assert "await thunk" in record.message
    assert "await_result=True" in record.message


async def test_a_gather_block_waits_for_its_calls(m: MelleaSession, server: ModelServer) -> None:
    """Every call that is started inside is complete after it, in order; those outside are not its own."""
    before = await m.ainstruct("Before.")
    async with m.gather() as calls:
        for number in range(3):
            await m.ainstruct(f"Item {number}.")
        await m.aquery("x", "Which?", await_result=True)
    assert calls.values == [default_reply("", None)] * 3
    assert before not in calls.thunks
    assert (await m.ainstruct("After.")) not in calls.thunks


async def test_a_gather_block_raises_the_first_failure_and_cancels_the_others(serve: Serve, open_session: Open) -> None:
    """The error comes out where the block ends; an error inside the block cancels all calls."""
    server = serve(fault=lambda call: faults.status(400) if "bad" in call.prompt else faults.stall(0))
    m = open_session(server)
    failing, broken = m.gather(), m.gather()

    async def fail() -> None:
        async with failing:
            for text in ("good", "bad", "good too"):
                await m.ainstruct(text, strategy=None)

    async def break_off() -> None:
        async with broken:
            await m.ainstruct("good", strategy=None)
            raise KeyError

    with pytest.raises(BackendError):
        await fail()
    assert [thunk.cancelled for thunk in failing.thunks] == [True, False, True]
    with pytest.raises(KeyError):
        await break_off()
    assert broken.thunks[0].cancelled
    await server.until(lambda state: state.in_flight == 0)


async def test_a_complete_thunk_may_be_marked_as_such(m: MelleaSession) -> None:
    """Sync methods and `await_result=True` return marked thunks; marking keeps the object."""
    thunk: ModelOutputThunk[str] = await m.ainstruct("Say something.")
    assert not isinstance(thunk, ComputedModelOutputThunk)
    await thunk
    assert ComputedModelOutputThunk(thunk) is thunk
    assert isinstance(thunk, ComputedModelOutputThunk)
    assert isinstance(await m.ainstruct("Say something.", await_result=True), ComputedModelOutputThunk)
    assert isinstance(await asyncio.to_thread(m.instruct, "Say something."), ComputedModelOutputThunk)
    with pytest.raises(ValueError, match="not complete"):
        ComputedModelOutputThunk(ModelOutputThunk())
    assert ModelOutputThunk[str]("x", {"seen": 1}).meta == {"seen": 1}
