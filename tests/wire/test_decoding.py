"""The stream decoders give the same payloads wherever the network splits the bytes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_cli.backends import wire_format
from mellea_cli.backends.wire_format import MAX_LINE, Decoder, DocumentDecoder, NdjsonDecoder, SseDecoder, valid_unicode
from mellea_cli.errors import StreamBroken

payload_texts = st.text().map(lambda text: json.dumps({"t": text}, ensure_ascii=False))
ends = st.sampled_from(["\n", "\r\n", "\r"])


def decoded(decoder: Decoder, parts: list[bytes]) -> list[str]:
    payloads = [payload for part in parts for payload in decoder.feed(part)]
    return payloads + decoder.flush()


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


@given(st.lists(payload_texts), ends, st.lists(st.integers(0, 10_000)), st.booleans(), st.booleans())
def test_events_survive_any_split(
    payloads: list[str], end: str, cuts: list[int], with_bom: bool, with_noise: bool
) -> None:
    """Server-sent events come out whole for any split, line end, byte order mark and comment."""
    noise = f": keep-alive{end}event: delta{end}id: 7{end}" if with_noise else ""
    text = ("\ufeff" if with_bom else "") + "".join(f"{noise}data: {payload}{end}{end}" for payload in payloads)
    assert decoded(SseDecoder(), split(text.encode(), cuts)) == payloads


@given(st.lists(payload_texts), ends, st.lists(st.integers(0, 10_000)), st.booleans(), st.booleans())
def test_json_lines_survive_any_split(
    payloads: list[str], end: str, cuts: list[int], with_bom: bool, last_end: bool
) -> None:
    """JSON lines come out whole for any split and line end, the last line's missing end included."""
    text = ("\ufeff" if with_bom else "") + end.join(payloads) + (end if last_end else "")
    assert decoded(NdjsonDecoder(), split(text.encode(), cuts)) == payloads


@given(st.lists(st.binary(max_size=40), max_size=30))
def test_no_bytes_make_the_decoders_fail(parts: list[bytes]) -> None:
    """Whatever bytes come, the decoders return texts."""
    for decoder in (SseDecoder(), NdjsonDecoder(), DocumentDecoder()):
        assert all(isinstance(payload, str) for payload in decoded(decoder, parts))


@pytest.mark.parametrize(
    ("text", "payloads"),
    [
        (b"data: a\n\n", ["a"]),
        (b"data:a\n\n", ["a"]),
        (b"data:  a\n\n", [" a"]),
        (b"data: a\ndata: b\n\n", ["a\nb"]),
        (b"data: a\r\ndata: b\r\n\r\n", ["a\nb"]),
        (b"data: a\r\rdata: b\r\r", ["a", "b"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", ["a", "b"]),
        (b"data: a", ["a"]),
        (b"data: a\n", ["a"]),
        (b":\n\n: ping\n\n", []),
        (b"\n\n\n", []),
        (b"data:\n\n", []),
        (b"database: a\n\n", []),
        (b"data: \xff\n\n", ["\ufffd"]),
        (b"", []),
    ],
)
def test_the_forms_of_an_event(text: bytes, payloads: list[str]) -> None:
    """Each form that a server may write comes out as the standard says, byte by byte as well."""
    assert decoded(SseDecoder(), [text]) == payloads
    assert decoded(SseDecoder(), [text[at : at + 1] for at in range(len(text))]) == payloads


def test_an_event_is_given_out_at_its_lone_cr() -> None:
    """A blank line that ends in CR ends the event at once: nothing waits for an LF that may never come."""
    decoder = SseDecoder()
    assert decoder.feed(b"data: a\r\r") == ["a"]
    assert decoder.feed(b"\ndata: b\n\n") == ["b"]


def feed_for_ever(decoder: Decoder, data: bytes) -> None:
    """Feed the same bytes until the decoder gives up, but no more than twice of what it may take."""
    for _ in range(2 * wire_format.MAX_LINE // len(data)):
        assert decoder.feed(data) == []


@pytest.mark.parametrize("decoder", [SseDecoder(), NdjsonDecoder(), DocumentDecoder()])
def test_a_line_without_end_is_given_up(decoder: Decoder) -> None:
    """Memory stays bounded when a server never ends its line."""
    with pytest.raises(StreamBroken, match=f"longer than {MAX_LINE}"):
        feed_for_ever(decoder, b"x" * (1 << 20))


def test_an_event_of_endless_lines_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event may not grow without end by many short lines either."""
    monkeypatch.setattr(wire_format, "MAX_LINE", 1000)
    with pytest.raises(StreamBroken, match="longer than 1000"):
        feed_for_ever(SseDecoder(), b"data: four\n")


@given(st.text())
def test_good_text_is_left_alone(text: str) -> None:
    """Text that can be written is returned as it is."""
    assert valid_unicode(text) == text


@pytest.mark.parametrize(("text", "repaired"), [("\ud83d\ude00", "😀"), ("a\ud83d", "a\ufffd"), ("\ude00é", "\ufffdé")])
def test_surrogates_become_writable(text: str, repaired: str) -> None:
    """A pair of surrogates becomes its letter, a lone one the replacement mark."""
    assert valid_unicode(text) == repaired
