"""Input bytes: packed data, read errors, encodings, and lines, however the bytes arrive."""

from __future__ import annotations

import errno
import gzip
import io
import json
import random
import sys
import tempfile
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mellea_cli.errors import InputError, UsageError
from mellea_cli.io.byte_input import (
    ByteInput,
    Encoding,
    Lines,
    choose_encoding,
    decoded_chunks,
    open_bytes,
    zstd_module,
)
from mellea_cli.io.source import open_source
from tablefiles import read_table, write_table


class Dribble(io.RawIOBase):
    """A stream that gives its bytes in pieces of a chosen size."""

    def __init__(self, data: bytes, size: int) -> None:
        self._rest = data
        self._size = size

    def read(self, size: int = -1) -> bytes:
        piece, self._rest = self._rest[: self._size], self._rest[self._size :]
        return piece


def read(data: bytes, size: int = 1 << 16) -> bytes:
    return b"".join(ByteInput("in", stream=Dribble(data, size)).chunks())  # type: ignore[arg-type] # all that is used


@settings(deadline=None)
@given(st.lists(st.binary(max_size=2000), max_size=4), st.integers(1, 64), st.integers(0, 40))
def test_gzip_members_come_out_whole_however_they_arrive(members: list[bytes], size: int, padding: int) -> None:
    """Several members, NUL padding and tiny reads make no difference."""
    packed = b"".join(gzip.compress(member) for member in members) + (bytes(padding) if members else b"")
    assume(not b"".join(members).startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")))
    assert read(packed, size) == b"".join(members)


def test_what_is_packed_twice_is_unpacked_twice() -> None:
    """A web server packs what is packed already."""
    assert read(gzip.compress(gzip.compress(CSV.encode()))) == CSV.encode()


def test_highly_packed_data_come_in_bounded_pieces() -> None:
    """A bomb is handed out piece by piece."""
    data = ByteInput("in", stream=Dribble(gzip.compress(bytes(50 << 20)), 1 << 16))  # type: ignore[arg-type] # as above
    sizes = [len(piece) for piece in data.chunks()]
    assert sum(sizes) == data.delivered == 50 << 20
    assert max(sizes) <= 1 << 16


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=400), st.integers(0, 10_000))
def test_cut_gzip_is_always_noticed(content: bytes, place: int) -> None:
    """Wherever it is cut behind its magic bytes, the end is missed."""
    packed = gzip.compress(content)
    keep = 2 + place % (len(packed) - 2)
    with pytest.raises(InputError, match="gzip data end too early"):
        read(packed[:keep])


@pytest.mark.parametrize("data", [b"", b"\x1f", b"a", b"ab", b"plain text"])
def test_short_and_plain_inputs_pass_through(data: bytes) -> None:
    """Fewer bytes than a magic number are data like any other."""
    assert read(data, 1) == data


def test_regular_file_is_read_again_from_the_start(tmp_path: Path) -> None:
    """Twice the same bytes, also after half a reading; its signature changes with its content."""
    content = random.Random(1).randbytes(300_000)  # noqa: S311 - repeatable, not secret
    path = tmp_path / "in"
    path.write_bytes(content)
    data = open_bytes(str(path))
    next(data.chunks())
    data.rewind()
    assert b"".join(data.chunks()) == content
    data.rewind()
    assert b"".join(data.chunks()) == content
    assert data.size == len(content)
    before = data.signature()
    assert before == data.signature()
    path.write_bytes(b"other")
    assert data.signature() != before
    data.close()
    data.close()


def test_read_error_is_named() -> None:
    """What the system says while reading ends up in one line with the name."""
    with pytest.raises(InputError, match="/proc/self/mem: cannot be read: Input/output error"):
        list(open_bytes("/proc/self/mem").chunks())


PIECES = st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n", "é".encode(), "\u2028".encode(), b"\x0b", b"b" * 40]))


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@settings(deadline=None)
@given(PIECES, st.lists(st.integers(0, 10_000)))
def test_lines_do_not_depend_on_how_the_bytes_arrive(pieces: list[bytes], places: list[int]) -> None:
    """LF, CR LF and a lone CR end a line, nothing else does, and cuts anywhere change nothing."""
    data = b"".join(pieces)
    lines = list(Lines(iter(cut(data, places)), Encoding("utf-8"), "in"))
    assert [line for _, line in lines] == data.splitlines(keepends=True)
    assert [number for number, _ in lines] == list(range(1, len(lines) + 1))


@settings(deadline=None)
@given(st.text(st.sampled_from("ab\r\né\u2028\U0001f600")), st.lists(st.integers(0, 10_000)))
def test_wide_encodings_split_at_the_same_places(text: str, places: list[int]) -> None:
    """UTF-16 is split like UTF-8, also when a cut falls inside a character."""
    chunks = iter(cut(text.encode("utf-16-le"), places))
    lines = Lines(chunks, Encoding("utf-16-le"), "in")
    assert [line.decode(lines.codec) for _, line in lines] == [
        line.decode() for line in text.encode().splitlines(keepends=True)
    ]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_line_is_handed_out_before_the_next_bytes_are_asked_for(end: bytes) -> None:
    """A slow writer's line does not wait for the one after it."""

    def slow() -> object:
        yield b"a" + end
        raise AssertionError("asked for more")

    lines = iter(Lines(slow(), Encoding("utf-8"), "in"))  # type: ignore[arg-type] # a generator of bytes
    assert next(lines) == (1, b"a" + end)


@pytest.mark.parametrize(
    ("text", "codec"),
    [
        ("Der Käse war gut, aber für uns zu spät\u2026", "cp1252"),
        ("Crème brûlée délicieuse, déjà vu", "cp1252"),
        ("Zboží je dobré, ale dodání přišlo příliš pozdě.", "cp1250"),
        ("Хороший товар, но доставка опоздала.", "cp1251"),
        ("\u03a4\u03bf προϊόν είναι καλό αλλά η παράδοση άργησε", "cp1253"),
        ("サポートの対応が悪い。返金してほしい。コーヒーはとても美味しかったです。", "shift-jis"),
        ("产品很好, 但交货很晚。", "gb18030"),
        ("제품은 좋은데 배송이 늦었어요.", "cp949"),
    ],
)
def test_wrong_encoding_ends_in_a_guess_that_can_be_checked(text: str, codec: str) -> None:
    """The hint names the flag with the likely encoding, and shows how the text reads with it."""
    data = b"text\n" + text.encode(codec) + b"\n"
    lines = Lines(iter([data]), Encoding("utf-8"), "in.csv")
    _, (number, line) = lines
    with pytest.raises(UnicodeDecodeError) as caught:
        line.decode(lines.codec)
    error = lines.undecodable(caught.value, number)
    assert error.message.startswith("in.csv:2: byte")
    assert f"--encoding {codec} if this reads right" in error.hint


_SENTENCES = {
    "de": "Köln;Die Straße nach München\nKöln;größer",
    "fi": "Hyvä tuote, mutta pitkä toimitusaika, äiti tykkäsi",
    "fr": "Le garçon était très sympathique, déjà vu à côté",
    "es": "El señor no contestó, ¿por qué? ¡Qué lástima!",
    "sv": "Jättebra skärm, men för dyr på nätet",
    "pt": "A instalação não funcionou, atenção",
}


@pytest.mark.parametrize("language", _SENTENCES)
@pytest.mark.parametrize("codec", ["cp1252", "latin-1", "mac-roman", "cp850", "cp437"])
def test_latin_letters_are_told_apart_by_where_they_stand(language: str, codec: str) -> None:
    """The guessed encoding reads the text right, also for old systems, whose bytes cp1252 accepts, too."""
    text = f"text\n{_SENTENCES[language]}\n"
    data = text.encode("cp850" if codec == "cp437" and language == "pt" else codec)  # cp437 has no tilde
    with pytest.raises(InputError) as caught:
        list(decoded_chunks(iter([data]), Encoding("utf-8"), "in.csv"))
    guess = caught.value.hint.removeprefix("add --encoding ").split()[0]
    assert data.decode(guess) == text
    if codec in ("cp1252", "latin-1"):
        assert guess == "cp1252"


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", ["Отличный товар", "产品很好", "제품은 좋지만", *_SENTENCES.values()])
def test_utf16_without_a_mark_is_recognised_in_every_script(text: str, codec: str) -> None:
    """Only spaces and line ends have a zero byte there, and that is enough."""
    with pytest.raises(InputError, match="looks like UTF-16") as caught:
        choose_encoding(f"id;text\n1;{text}\n".encode(codec), None, "in.csv")
    assert caught.value.hint == f"add --encoding {codec}"


# Archives and zstd.


def archive(path: Path, files: dict[str, str], **options: Any) -> Path:
    """A zip archive."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as packed:
        for name, text in files.items():
            packed.writestr(name, text)
    return path


CSV = "text\nGood.\n"


def test_a_zip_archive_with_one_file_is_that_file(tmp_path: Path) -> None:
    """Also with what macOS adds, through a pipe, and with a workbook inside."""
    path = archive(tmp_path / "in.zip", {"export/jan.tsv": "text\tn\nGood.\t1\n", "__MACOSX/._jan.tsv": "x", "d/": ""})
    assert read_table(path) == [{"text": "Good.", "n": "1"}]
    with open_source("-", stream=io.BytesIO(path.read_bytes())) as source:
        assert [item.text for item in source] == ["Good."]
    write_table(tmp_path / "out.xlsx", [{"text": "Good."}])
    with zipfile.ZipFile(tmp_path / "book.zip", "w") as packed:
        packed.write(tmp_path / "out.xlsx", "out.xlsx")
    assert read_table(tmp_path / "book.zip") == [{"text": "Good."}]


def test_a_zip_archive_with_several_files(tmp_path: Path) -> None:
    """All are named, and one is chosen behind the archive's name."""
    path = archive(tmp_path / "in.zip", {"a.csv": CSV, "b.jsonl": '{"text": "Late."}\n'})
    with pytest.raises(InputError, match=r"in\.zip: is a zip archive with 2 files: a\.csv, b\.jsonl") as caught:
        read_table(path)
    assert caught.value.hint == f"name one: {path}::a.csv"
    assert read_table(f"{path}::b.jsonl") == [{"text": "Late."}]
    with pytest.raises(InputError, match=r"no such file; it has a\.csv, b\.jsonl") as caught:
        read_table(f"{path}::b.json")
    assert caught.value.hint == f"did you mean {path}::b.jsonl?"


def test_a_zip_archive_that_cannot_be_read(tmp_path: Path) -> None:
    """Empty, cut off, or damaged inside."""
    with pytest.raises(InputError, match="is a zip archive without a file"):
        read_table(archive(tmp_path / "empty.zip", {"folder/": ""}))
    whole = archive(tmp_path / "in.zip", {"a.csv": CSV * 100}).read_bytes()
    for data in (whole[:-30], whole[:45] + b"\0\0\0\0" + whole[49:]):
        (tmp_path / "in.zip").write_bytes(data)
        with pytest.raises(InputError, match="broken zip archive"):
            read_table(tmp_path / "in.zip")


@settings(deadline=None)
@given(texts=st.lists(st.text(min_size=1).filter(lambda text: text.strip() and "\ufeff" not in text), max_size=5))
def test_zstd_is_unpacked_however_it_was_packed(texts: list[str]) -> None:
    """Several frames, one after the other, in pieces of any size."""
    lines = [json.dumps({"text": text}).encode() + b"\n" for text in texts]
    packed = b"".join(map(zstd_module().compress, [b'{"text": "first"}\n', *lines]))
    with open_source("-", stream=Dribble(packed, 7)) as source:  # type: ignore[arg-type]  # all that is used of it is there
        assert [item.fields["text"] for item in source] == ["first", *texts]


@pytest.mark.parametrize(("change", "words"), [(slice(0, -5), "end too early"), (slice(0, 9), "end too early")])
def test_zstd_that_ends_early(tmp_path: Path, change: slice, words: str) -> None:
    """The message says what to do."""
    (tmp_path / "in.csv.zst").write_bytes(zstd_module().compress(CSV.encode() * 50)[change])
    with pytest.raises(InputError, match=f"the zstd data {words}"):
        read_table(tmp_path / "in.csv.zst")


def test_broken_zstd(tmp_path: Path) -> None:
    """Bytes that only begin like it."""
    (tmp_path / "in.csv.zst").write_bytes(b"\x28\xb5\x2f\xfd" + b"\xff" * 40)
    with pytest.raises(InputError, match="broken zstd data"):
        read_table(tmp_path / "in.csv.zst")


@pytest.mark.parametrize(
    ("name", "data", "package"),
    [("in.csv.zst", b"\x28\xb5\x2f\xfd" + bytes(20), "backports.zstd"), ("in.parquet", b"PAR1" + bytes(20), "pyarrow"),
     ("in.xlsx", b"\xd0\xcf\x11\xe0" + bytes(20), "python_calamine"), ("in.db", bytes(8) + b"DUCK", "duckdb")],
)  # fmt: skip
def test_without_its_package_a_format_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, data: bytes, package: str
) -> None:
    """One line with the pip command."""
    (tmp_path / name).write_bytes(data)
    for module in [one for one in sys.modules if one.split(".")[0] == package or one == package]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=f"the package {package} is not installed") as caught:
        read_table(tmp_path / name)
    assert caught.value.hint == "pip install 'mellea-cli[tables]'"


@pytest.mark.parametrize("data", [b"PK\x03\x04 of a zip archive", b"rows"])
def test_a_full_temporary_folder_is_said(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is packed and comes through a pipe, and what a library reads from a file, is stored there first."""

    class Full(io.BytesIO):
        def writelines(self, lines: Any) -> None:
            list(lines)
            raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("TemporaryFile", "NamedTemporaryFile"):
        monkeypatch.setattr(tempfile, name, lambda **_: Full())
    source = ByteInput("<stdin>", stream=io.BytesIO(data))
    with pytest.raises(InputError, match="cannot be stored in a temporary file: No space left on device") as caught:
        source.file(source.chunks())
    assert "TMPDIR" in caught.value.hint
