"""One streamed call: deadlines, watchdog, the pieces put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from streams import Streams, asking, raising, saying

from mellea_cli.engine.generate import CallObserver, Deadlines, generate, runaway
from mellea_cli.errors import BackendUnavailable, RunawayAnswer, ServerFault, StreamBroken
from mellea_cli.messages import Chunk, GenerateRequest, Usage

WORDS = "The quick brown fox jumps over the lazy dog and the customer is still waiting for the parcel from last week. "


class Heard(CallObserver):
    """Keeps every piece."""

    __slots__ = ("pieces",)

    def __init__(self) -> None:
        self.pieces: list[str] = []

    def text(self, piece: str) -> None:
        self.pieces.append(piece)


async def test_pieces_are_heard_and_put_together() -> None:
    """The text is the pieces in order, with finish reason and usage; the watch heard each one."""
    watch = Heard()
    completion = await generate(Streams(saying("Hel", "lo", usage=Usage(3, 2))), asking(), observer=watch)
    assert (completion.text, completion.finish_reason, completion.usage) == ("Hello", "stop", Usage(3, 2))
    assert watch.pieces == ["Hel", "lo"]
    assert 0 <= completion.first_token_s <= completion.total_s


async def silent(_: GenerateRequest) -> AsyncGenerator[Chunk, None]:
    await asyncio.Event().wait()
    yield Chunk()


async def stalling(_: GenerateRequest) -> AsyncGenerator[Chunk, None]:
    yield Chunk("The beginning")
    await asyncio.Event().wait()


async def dripping(_: GenerateRequest) -> AsyncGenerator[Chunk, None]:
    while True:
        await asyncio.sleep(0.01)
        yield Chunk("x y z "[:1])


async def musing(_: GenerateRequest) -> AsyncGenerator[Chunk, None]:
    while True:
        await asyncio.sleep(0.01)
        yield Chunk(thinking="hm ")


async def test_a_server_that_says_nothing_is_given_up() -> None:
    """The first-token deadline is an absence of the server, and the stream is closed."""
    backend = Streams(silent)
    with pytest.raises(BackendUnavailable, match="sent nothing"):
        await generate(backend, asking(), Deadlines(0.05, 60, 60))
    assert backend.closed == 1


async def test_a_stream_that_stalls_is_given_up_with_its_text_kept() -> None:
    """The deadline between tokens breaks the stream; what had arrived is in the error."""
    with pytest.raises(StreamBroken, match="stalled") as caught:
        await generate(Streams(stalling), asking(), Deadlines(60, 0.05, 60))
    assert caught.value.partial == "The beginning"


async def test_the_first_token_deadline_does_not_cut_a_stream_that_has_begun() -> None:
    """Once the answer has begun the deadline of its beginning is over."""

    async def slow(_: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        yield Chunk("a")
        await asyncio.sleep(0.4)
        yield Chunk("b", finish_reason="stop")

    completion = await generate(Streams(slow), asking(), Deadlines(0.2, 30, 30))
    assert completion.text == "ab"


@pytest.mark.parametrize("stream", [dripping, musing])
async def test_a_drip_ends_with_the_total_deadline(stream: object) -> None:
    """A server that sends a little for ever, answer or reasoning, is cut off by the time for the whole call."""
    with pytest.raises(StreamBroken, match="took too long"):
        await generate(Streams(stream), asking(), Deadlines(5, 5, 0.3))  # type: ignore[arg-type]  # both are streams


async def test_no_deadline_is_no_deadline() -> None:
    """`None` waits for ever; a quick answer still arrives."""
    completion = await generate(Streams(saying("ok")), asking(), Deadlines(None, None, None))
    assert completion.text == "ok"


async def test_a_stream_without_an_end_is_broken() -> None:
    """A stream that closes without a finish reason is no answer; its text is kept in the error."""
    with pytest.raises(StreamBroken, match="before the model server said") as caught:
        await generate(Streams(saying("half an ans", finish=None)), asking())
    assert caught.value.partial == "half an ans"


async def test_an_error_keeps_what_had_arrived() -> None:
    """A fault in the middle carries the text before it."""
    with pytest.raises(ServerFault) as caught:
        await generate(Streams(raising(ServerFault("crashed"), "so ", "far")), asking())
    assert caught.value.partial == "so far"


@pytest.mark.parametrize(
    ("piece", "reason"), [(" \n", "white space"), ("the service is slow and ", "repeats"), ("ab", "repeats")]
)
async def test_an_answer_that_runs_away_is_stopped_while_it_streams(piece: str, reason: str) -> None:
    """Endless padding or repetition ends within a few hundred characters, and the connection is closed."""
    given = 0

    async def endless(_: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        nonlocal given
        yield Chunk('{"summary": "')
        while True:
            given += len(piece)
            yield Chunk(piece)

    backend = Streams(endless)
    with pytest.raises(RunawayAnswer, match=reason) as caught:
        await generate(backend, asking())
    assert given < 700
    assert caught.value.text.startswith('{"summary"')
    assert backend.closed == 1


@pytest.mark.parametrize("thought", [False, True])
async def test_an_answer_without_end_does_not_fill_the_memory(thought: bool) -> None:
    """A server that ignores the length limit is stopped at a million characters, reasoning counted too."""

    async def endless(_: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        number = 0
        while True:
            number += 1
            words = " ".join(str(number * 7919 + k) for k in range(800))
            yield Chunk(thinking=words) if thought else Chunk(words)

    with pytest.raises(RunawayAnswer, match="longer than"):
        await generate(Streams(endless), asking())


@given(st.text(alphabet="abcdefgh ,.", min_size=400, max_size=900))
def test_the_watchdog_leaves_ordinary_text_alone(text: str) -> None:
    """Whatever is called a repetition really is one: its tail is the same passage again and again."""
    if runaway(text):
        tail = text[-400:]
        assert tail.isspace() or any(tail[period:] == tail[:-period] for period in range(1, 81))


@given(st.text(min_size=1, max_size=80), st.integers(0, 79))
def test_every_short_passage_that_repeats_is_noticed(passage: str, cut: int) -> None:
    """A passage of up to 80 characters, repeated through the tail, is noticed wherever the tail ends."""
    text = passage * (500 // len(passage) + 2)
    assert runaway(text[: len(text) - min(cut, len(passage) - 1)])


def test_prose_is_no_repetition() -> None:
    """A long passage that comes twice is not yet one without end."""
    assert runaway(WORDS * 6) == ""
    assert runaway("word " * 20) == ""
