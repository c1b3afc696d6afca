"""The stream of one answer: pieces, one reader, and when it counts as settled."""

from __future__ import annotations

import asyncio

import pytest

from mellea_cli.session.thunk import Stream


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


def test_one_who_only_asks_is_told_in_the_end() -> None:
    """A stream that nobody reads says once more that it is not settled, and then that it is."""
    stream = filled("a")
    assert not stream.settled()
    stream.end("a")
    assert [stream.settled(), stream.settled()] == [False, True]


async def test_a_reader_who_has_the_whole_text_has_nothing_to_wait_for() -> None:
    """After `avalue()` the reader's own stream is settled; somebody else's `avalue()` does not end it."""
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


async def test_a_second_reader_is_told_so() -> None:
    """While one waits for a piece another gets a clear error, and the first its piece."""
    stream = Stream(live=True)
    first = asyncio.create_task(stream.next())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="one reader at a time"):
        await stream.next()
    stream.text("a")
    assert await first == "a"


async def test_a_cancelled_reader_makes_room_for_another() -> None:
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


async def test_a_stream_that_is_not_live_hands_the_answer_over_whole() -> None:
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


async def test_a_reader_whose_loop_is_gone_harms_nobody() -> None:
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
