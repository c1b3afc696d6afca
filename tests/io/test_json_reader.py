"""The JSON stream reader: any cut of the text gives the same rows, line numbers and errors."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mellea_cli.errors import InputError
from mellea_cli.io.byte_input import Encoding, Lines
from mellea_cli.io.json_reader import JsonStream, is_empty_page, read_jsonl, rows_inside, table_inside
from mellea_cli.io.source import SourceOptions, open_source

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.lists(st.dictionaries(st.text(max_size=4), VALUES, max_size=4), max_size=6)


def cut(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def outcome(chunks: list[str]) -> list[object]:
    got: list[object] = []
    try:
        rows = JsonStream(iter(chunks), "in").rows()
        got.extend((row.line, row.message) if isinstance(row, InputError) else row for row in rows)
    except InputError as error:
        got.append((error.line, error.message))
    return got


@settings(deadline=None)
@given(OBJECTS, st.sampled_from([None, 1, "\r\n"]), st.booleans(), st.booleans(), st.integers(1, 30))
def test_array_and_sequence_come_back_equal(
    objects: list[dict[str, object]], indent: object, ascii_only: bool, as_array: bool, size: int
) -> None:
    """Compact or pretty, escaped or not, in an array or one after the other: the same objects."""
    # An object around one list of objects is a wrapper, and the objects inside are the rows.
    first = objects[0] if objects and not as_array else {}
    assume(not (rows_inside(first, ()) or table_inside(first) or is_empty_page(first)))
    width = 1 if indent == 1 else None
    texts = [json.dumps(value, indent=width, ensure_ascii=ascii_only) for value in objects]
    joint = "\r\n" if indent == "\r\n" else "\n"
    text = "[" + f",{joint}".join(texts) + "]" if as_array else joint.join(texts)
    rows = list(JsonStream(iter(cut(text, size)), "in").rows())
    assert [row[1] for row in rows if not isinstance(row, InputError)] == objects
    assert [json.loads(row[2] or "") for row in rows if not isinstance(row, InputError)] == objects


@pytest.mark.parametrize(
    "text",
    [
        '[{"text": "a"},\n{"text": "b"}]',
        '{"text": "a"}\r\n\r\n{"text": "b"}\r{"text": "\\u00e9\\ud83d\\ude00"}',
        '[{"a": -1.5e-7, "b": true, "c": null, "d": "\\\\\\"x"}]',
        '[{"a": 1},\n{"b": tru}]',
        '[{"a": 1},\n\n{"b": NaN}]',
        '[{"a": 1},\n{"b": "\\x"}]',
        '[{"a": 1},\n{"b": "c\nd"}]',
        '[{"a": 1}\n,,]',
        '[{"a": 1},\n]',
        '[{"a": 1},\n{"b": 2',
        '[{"a": 1}\n',
        '[1, "x", {"a": 1}, [2], {}]',
        "[]\n\nx",
        "hello",
        "",
        " \n ",
    ],
)
def test_cuts_change_neither_rows_nor_errors(text: str) -> None:
    """Whatever the pieces, the same rows come, then the same error with the same line."""
    whole = outcome([text])
    for size in range(1, 14):
        assert outcome(cut(text, size)) == whole


def test_lines_are_those_on_which_elements_start() -> None:
    """Every element has its own physical line, blank lines counted."""
    text = '[\n\n{"a":\n1}, {"b": 2},\r\n{"c": 3}\n]'
    assert [row[0] for row in JsonStream(iter([text]), "in").rows() if not isinstance(row, InputError)] == [3, 4, 5]


def test_malformed_element_is_told_at_once() -> None:
    """Broken syntax is not mistaken for a value that has not wholly arrived."""

    def slow() -> object:
        yield '[{"a" 1}, {"b": 2}, {"c": "' + "x" * 100
        raise AssertionError("asked for more")

    with pytest.raises(InputError, match="Expecting ':' delimiter at column 7"):
        list(JsonStream(slow(), "in").rows())  # type: ignore[arg-type] # a generator of text


@pytest.mark.parametrize("size", [1, 5, 1_000])
def test_the_column_is_that_of_the_line(size: int) -> None:
    """However the text arrives, and whatever was read of its line before."""
    text = '[{"a": 1},\n  {"b": 2}, {"c" 3}, {"d": 4}]'
    with pytest.raises(InputError, match=r":2: .* at column 18$"):
        list(JsonStream(iter(cut(text, size)), "in").rows())


@pytest.mark.parametrize("number", ["12", "1.5", "1e5", "1e+5", "-0.25E-3"])
def test_a_number_cut_in_two_is_one_number(number: str) -> None:
    """An element that is a number is one bad row, not the end of the array, wherever it was cut."""
    text = f'[{number}, {{"a": 1}}]'
    for size in range(1, len(text)):
        bad, row = JsonStream(iter(cut(text, size)), "in").rows()
        assert isinstance(bad, InputError)
        assert not isinstance(row, InputError)


def test_what_stands_before_a_bad_byte_is_read(tmp_path: Path) -> None:
    """Rows of an array come out up to the byte that is no text, also when all of it arrives at once."""
    path = tmp_path / "in.json"
    path.write_bytes(b'[{"text": "a"},\n{"text": "b"},\n{"text": "M\xfc"}]')
    with open_source(str(path)) as source:
        items = iter(source)
        assert [next(items).text, next(items).text] == ["a", "b"]
        with pytest.raises(InputError, match=r"in\.json:3: byte 0xfc"):
            next(items)


def test_long_element_in_small_pieces_takes_no_quadratic_time() -> None:
    """Two megabytes in pieces of 100 characters are parsed a few dozen times, not 20,000 times."""
    text = json.dumps([{"text": "a}" * 1_000_000}])
    (row,) = JsonStream(iter(cut(text, 100)), "in").rows()
    assert not isinstance(row, InputError)
    assert len(row[1]["text"]) == 2_000_000


@pytest.mark.parametrize(
    "text",
    [
        '{"count": 2, "next": null, "tickets": [{"text": "a", "n": 1.10}, {"text": "b"}]}',
        '{"meta": {"page": 1},\n "data": {"reviews":\n [{"text": "a", "n": 1.10},\n {"text": "b"}]}}',
        '\ufeff{"data" :[{"text": "a", "n": 1.10},{"text": "b"}], "users": []}\n\n',
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_rows_inside_one_object_are_found(text: str, size: int) -> None:
    """An API's page is one object with its rows in a list: they come letter by letter, with their lines."""
    stream = JsonStream(iter(cut(text, size)), "in.json")
    rows = [row for row in stream.rows() if not isinstance(row, InputError)]
    assert [row[2] for row in rows] == ['{"text": "a", "n": 1.10}', '{"text": "b"}']
    assert [row[0] for row in rows] == [
        1 + text[: text.index(found)].count("\n") for found in ('{"text": "a', '{"text": "b')
    ]
    assert "the rows are under" in stream.notes[0]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (
            '{"rows": [{"text": "a"}], "next": 2}\n{"rows": [{"text": "b"}], "next": 3}\n{"rows": [], "next": 0}',
            (),
        ),
        ('[{"text": "a"}]\n[{"text": "b"}]', ()),
        ('{"data": [{"text": "a"}, {"text": "b"}], "included": [{"kind": "reply"}]}', ()),
        ('{"feed": {"entry": [{"text": "a"}, {"text": "b"}], "link": [{"content": "x"}]}}', ("text",)),
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_pages_and_their_rows_are_found(text: str, names: tuple[str, ...], size: int) -> None:
    """Pages follow each other; of several lists that with the named column, or with a text, is meant."""
    rows = [row for row in JsonStream(iter(cut(text, size)), "in", names).rows() if not isinstance(row, InputError)]
    assert [row[1]["text"] for row in rows] == ["a", "b"]


@pytest.mark.parametrize(
    "line",
    [
        '{"n": NaN, "text": "a"}{"text": "b"}',
        '{"text": "a"}, {"text": "b"},',
        "{'text': 'a'}\n{u'text': 'b', 'n': None}",
    ],
)
def test_loose_lines_are_read(line: str) -> None:
    """Several objects on a line, commas behind them, and what Python prints."""
    rows = list(read_jsonl(Lines(iter((line.encode(),)), Encoding("utf-8"), "in")))
    assert [json.loads(row[2] or "")["text"] for row in rows if not isinstance(row, InputError)] == ["a", "b"]


@pytest.mark.parametrize("line", ['{"text": "a"} and', "{'text': open('a')}", "{'text': {1}}", '{"text": "a"},,'])
def test_what_is_not_json_is_one_bad_row(line: str) -> None:
    """Neither half a line nor an expression counts."""
    (row,) = read_jsonl(Lines(iter((line.encode(),)), Encoding("utf-8"), "in"))
    assert isinstance(row, InputError)


@pytest.mark.parametrize(
    "text",
    [
        '{"k1": {"text": "a"}, "k2": {"text": "b"}}',
        '{"data": {"rows": {"k1": {"text": "a"}, "k2": {"text": "b"}}}}',
        '{"values": [["text"], ["a"], ["b"]]}',
        '[["text"], ["a"], ["b"],]',
        ")]}'\n" + '[{"text": "a"}, {"text": "b"}]',
        'window.x.part0 = [{"text": "a"}, {"text": "b"}];',
        'callback([{"text": "a"}, {"text": "b"}]);\n',
        '\x1e{"text": "a"}\n\x1e{"text": "b"}\n',
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_other_forms_of_rows_are_read(text: str, size: int) -> None:
    """Objects under ids, lists below a header, and what scripts put around JSON."""
    assert [row[1]["text"] for row in JsonStream(iter(cut(text, size)), "in").rows()] == ["a", "b"]  # type: ignore[index]


def test_rows_under_two_names_are_refused() -> None:
    """Tickets and users: nobody says which ones are meant."""
    text = '{"tickets": [{"text": "a"}], "users": [{"comment": "b"}]}'
    with pytest.raises(InputError, match="rows under 'tickets' and 'users'"):
        list(JsonStream(iter((text,)), "in.json").rows())


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('{"text": "a", "tags": [{"x": 1}]}', ()),
        ('{"said": "a", "tags": [{"x": 1}]}', ("said",)),
        ('{"said": "a", "tags": [{"x": "b"}]}', ("tags.0.x",)),
        ('{"said": "a", "tags": [{"x": 1}]} {"said": "b", "tags": [{"x": 1}]}', ()),
        ('{"said": "a", "tags": [1, 2]}', ()),
    ],
)
def test_row_with_a_list_is_a_row(text: str, names: tuple[str, ...]) -> None:
    """A row of its own text, with a named column, or one of several is not taken apart."""
    rows = list(JsonStream(iter((text,)), "in.json", names).rows())
    assert all(not isinstance(row, InputError) and "tags" in row[1] for row in rows)


@pytest.mark.parametrize("form", ["jsonl", "json"])
def test_nan_is_read_as_null(form: str) -> None:
    """What Python's json writes is read, and written back as JSON; the same word in a text stays."""
    data = b'{"text": "NaN", "n": 1.10}\n{"text": "b", "n": NaN, "m": [-Infinity]}\n'
    with open_source("-", SourceOptions(format=form), stream=io.BytesIO(data)) as source:
        first, second = source
    assert first.raw == '{"text": "NaN", "n": 1.10}'
    assert (second.fields["n"], second.raw) == (None, '{"text": "b", "n": null, "m": [null]}')
