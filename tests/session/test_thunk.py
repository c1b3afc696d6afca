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
from mellea_cli.errors import BackendError

Serve = Callable[..., ModelServer]
Open = Callable[..., MelleaSession]

REPLY = default_reply("", None)
LIVE = {ModelOption.STREAM: True}


async def test_a_thunk_with_a_text_stands_at_birth() -> None:
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


async def test_a_streaming_thunk_that_nobody_reads_runs_to_its_end(m: MelleaSession, server: ModelServer) -> None:
    """It gives its connection back, and its text waits for whoever comes."""
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


async def test_copies_are_of_answers_that_stand(serve: Serve, open_session: Open) -> None:
    """A thunk on its way cannot be copied; a copy of one that stands has its facts and no generation."""
    server = serve(latency_s=0.2)
    thunk = await open_session(server).ainstruct("Say something.")
    with pytest.raises(RuntimeError, match="can be copied"):
        copy.deepcopy(thunk)
    await thunk
    for twin in (copy.copy(thunk), copy.deepcopy(thunk)):
        assert (twin.value, twin.usage, twin.is_computed()) == (REPLY, thunk.usage, True)


async def test_a_failure_that_nobody_asks_for_is_logged(
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
        "a generation failed and nobody asked for its answer"
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
    """One that has not been sent yet is given up without a request, and the others go on."""
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
