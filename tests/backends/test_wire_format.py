"""Decoding of bytes to JSON values however they are split, and encoding of requests."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_cli.backends import wire_format
from mellea_cli.backends.wire_format import (
    MAX_LINE,
    AnyDecoder,
    CachedJson,
    IdentityCache,
    JsonDecoder,
    SseDecoder,
    cached_message,
    decode,
    decode_all,
    encode,
    read_tokens,
    valid_unicode,
)
from mellea_cli.errors import StreamBroken, UsageError

Decoder = AnyDecoder | JsonDecoder | SseDecoder

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
    for decoder in (SseDecoder(), AnyDecoder()):
        assert decoded(decoder, split(text.encode(), cuts)) == payloads


@given(st.lists(payload_texts), ends, st.lists(st.integers(0, 10_000)), st.booleans(), st.booleans())
def test_json_lines_survive_any_split(
    payloads: list[str], end: str, cuts: list[int], with_bom: bool, last_end: bool
) -> None:
    """JSON lines come out whole for any split and line end, the last line's missing end included."""
    text = ("\ufeff" if with_bom else "") + end.join(payloads) + (end if last_end else "")
    for decoder in (JsonDecoder(), AnyDecoder()):
        assert decoded(decoder, split(text.encode(), cuts)) == payloads


@given(st.lists(st.binary(max_size=40), max_size=30))
def test_no_bytes_make_the_decoders_fail(parts: list[bytes]) -> None:
    """Whatever bytes come, the decoders return texts."""
    for decoder in (SseDecoder(), JsonDecoder(), AnyDecoder()):
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


@pytest.mark.parametrize(
    ("text", "payloads"),
    [
        (b'data: {"a":1}\ndata: {"b":2}\ndata: [DONE]\n', ['{"a":1}', '{"b":2}', "[DONE]"]),
        (b"data: [DONE] \n\n", ["[DONE]"]),
        (b'error: {"code":400,"message":"m"}\n\n', ['{"error": {"code": 400, "message": "m"}}']),
        (b"error: no memory\n\n", ['{"error": "no memory"}']),
        (b'event: error\ndata: {"code":422}\n\n', ['{"error": {"code": 422}}']),
        (b"event: error\ndata: gone\n\ndata: a\n\n", ['{"error": "gone"}', "a"]),
        (b'data: a\n\n{"error":"x"}\n', ["a", '{"error":"x"}']),
        (b'event: message\ndata: {"a":1}\n\n', ['{"a":1}']),
    ],
)
def test_what_servers_make_of_events(text: bytes, payloads: list[str]) -> None:
    """Events without a blank line, error lines, events named error and bare JSON come out, byte by byte as well."""
    assert decoded(AnyDecoder(), [text]) == payloads
    assert decoded(AnyDecoder(), [text[at : at + 1] for at in range(len(text))]) == payloads


@pytest.mark.parametrize(
    ("text", "payloads", "shown"),
    [
        (b'\n \n{"a":1}', ['{"a":1}'], ""),
        (b'{\n "a":\n 1\n}\n', ['{\n "a":\n 1\n}'], ""),
        (b'[{"a":1}]', ['[{"a":1}]'], ""),
        (b'\xef\xbb\xbf{"a":1}\n{"b":2}\n', ['{"a":1}', '{"b":2}'], ""),
        (b": ping\n\ndata: a\n\n", ["a"], ""),
        (b"<html>log in</html>", [], "<html>log in</html>"),
        (b"Ollama is running", [], "Ollama is running"),
        (b"no", [], "no"),
        (b"", [], ""),
        (b" \n\n", [], ""),
    ],
)
def test_the_bytes_tell_what_a_response_is(text: bytes, payloads: list[str], shown: str) -> None:
    """Events, lines of JSON, one document or a text are told apart without the content type."""
    for parts in ([text], [text[at : at + 1] for at in range(len(text))]):
        decoder = AnyDecoder()
        assert decoded(decoder, parts) == payloads
        assert decoder.text == shown


def test_an_event_is_given_out_at_its_lone_cr() -> None:
    """A blank line that ends in CR ends the event at once: nothing waits for an LF that may never come."""
    decoder = SseDecoder()
    assert decoder.feed(b"data: a\r\r") == ["a"]
    assert decoder.feed(b"\ndata: b\n\n") == ["b"]


def feed_for_ever(decoder: Decoder, data: bytes) -> None:
    """Feed the same bytes until the decoder gives up, but no more than twice of what it may take."""
    for _ in range(2 * wire_format.MAX_LINE // len(data)):
        assert decoder.feed(data) == []


@pytest.mark.parametrize("decoder", [SseDecoder(), JsonDecoder(), AnyDecoder()])
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


texts = st.text(st.characters(codec="utf-8"), max_size=30)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)
messages = st.lists(st.fixed_dictionaries({"role": texts, "content": texts}, optional={"name": texts}), max_size=5)


@given(st.dictionaries(texts, values, max_size=5), st.none() | messages)
def test_a_body_comes_back_as_it_was(body: dict[str, Any], said: list[Any] | None) -> None:
    """With and without messages, whatever else stands in them."""
    if said is not None:
        body["messages"] = said
    assert json.loads(encode(body)) == body


@pytest.mark.parametrize("value", [math.nan, math.inf, object(), {1, 2}])
def test_what_json_cannot_say_is_refused(value: object) -> None:
    """Inside the messages too."""
    for body in ({"x": value}, {"messages": [{"role": "user", "content": value}]}):
        with pytest.raises(UsageError, match="JSON"):
            encode(body)


@given(values)
def test_what_python_reads_is_read_alike(value: Any) -> None:
    """Whichever parser does the work."""
    assert decode(json.dumps(value)) == value


@pytest.mark.parametrize("text", ['"\\ud83d"', "1e999", "NaN", "123456789012345678901234567890", '{"a":1,"a":2}'])
def test_oddities_are_read_as_python_reads_them(text: str) -> None:
    """Halves of a character, endless numbers, huge ones, keys that come twice."""
    expected = json.loads(text)
    assert decode(text) == expected or expected != expected  # noqa: PLR0124 - NaN


@pytest.mark.parametrize("text", ["", "{", "nul", "[1,]", "[" * 100_000])
def test_what_is_not_json_is_an_error_to_hand_on(text: str) -> None:
    """It is returned, as the text must not stand in a traceback."""
    assert isinstance(decode(text), ValueError)


@given(st.lists(values, max_size=6))
def test_many_are_read_as_one_by_one(each: list[Any]) -> None:
    """Together, each stays itself."""
    assert decode_all([json.dumps(value) for value in each]) == each


def test_a_broken_one_among_many_is_the_only_one_broken() -> None:
    """Also where two halves, or two values in one text, would make sense once they are put together."""
    for given_texts in (['{"a":1}', "{", '{"b":2}'], ['{"a":1', '"b":2}'], ["1", "2,3"], ['{"a":"\\ud83d"}', "{}"]):
        read = decode_all(given_texts)
        alone = [decode(text) for text in given_texts]
        assert [str(one) for one in read] == [str(one) for one in alone]


def test_a_fixed_part_is_written_as_any_other() -> None:
    """It is only written once, and made once of each mapping."""
    schema = {"type": "object", "properties": {"a": {"enum": ["é", None]}}}
    made = IdentityCache(CachedJson)
    part = made(schema)
    assert made(schema) is part
    assert made(dict(schema)) is not part
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "format": part, "n": 1}
    assert json.loads(encode(body)) == {**body, "format": schema}
    for number in range(200):
        assert made({"n": number}) == {"n": number}


def test_shared_messages_are_encoded_as_any_other() -> None:
    """Cached or not, and whatever their text, messages and names come out as they were put in."""
    plain = {"role": "user", "content": 'é"\\\n'}
    body = {'na"me': 1, "messages": [cached_message("system", "x"), plain]}
    assert cached_message("system", "x") is cached_message("system", "x")
    assert json.loads(encode(body)) == {'na"me': 1, "messages": [{"role": "system", "content": "x"}, plain]}


@pytest.mark.parametrize(
    ("tokens", "found"),
    [
        (
            [
                {
                    "token": "a",
                    "logprob": -0.1,
                    "top_logprobs": [{"token": "a", "logprob": -0.1}, {"token": "b", "logprob": -3}],
                }
            ],
            [{"a": -0.1, "b": -3.0}],
        ),
        (
            [{"token": one, "logprob": -4, "top_logprobs": [{"token": "c", "logprob": -0.1}]} for one in "ab"],
            [{"c": -0.1, "a": -4.0}, {"c": -0.1, "b": -4.0}],
        ),
        ([{"token": "a", "logprob": -0.1, "top_logprobs": []}], []),
        ([{"token": "a", "logprob": -0.1}], []),
        (
            [{"top_logprobs": [{"token": None, "logprob": -1}, {"token": "b"}, "c", {"token": "d", "logprob": -2.5}]}],
            [{"d": -2.5}],
        ),
        ([], []),
        (None, []),
        ("positive", []),
    ],
)
def test_tokens_have_the_likely_ones_and_themselves(tokens: object, found: list[dict[str, float]]) -> None:
    """Whatever has another form is nothing, and never an error."""
    assert [token.likely for token in read_tokens(tokens)] == found
