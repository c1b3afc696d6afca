"""Corrections: what people have said about the rows of an output, in a file next to it.

Each line is one judgement of one field of one row. Lines are only ever added, and the last one about a field wins. A
line with `withdrawn` takes the earlier ones of the same person back.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from mellea_cli.errors import InputError, OutputError
from mellea_cli.io.files import output_error, resolve_output

Sample = Literal["random", "doubtful", "edited"]
"""Why a row was judged: drawn at random, the model was unsure, or a cell of the output was edited by hand."""
_SAMPLES = get_args(Sample)
MODEL_VALUES = "model values"
"""The fact of a journal with what the model says about corrected rows, where the corrections file says otherwise."""


@dataclass(frozen=True, slots=True)
class Correction:
    """One judgement of one field of one row.

    Args:
        item: the row's id as text.
        text: the feedback.
        field: the column, or the part of a nested one, such as `urgency`.
        model: the model's value.
        person: the person's value; equal to the model's where it was accepted.
        who: the person.
        when: the time, in ISO form.
        sample: why the row was judged.
        seed: the seed of the random sample.
        withdrawn: whether this takes the person's earlier judgements of the field back.
    """

    item: str
    text: str
    field: str
    model: Any
    person: Any
    who: str = ""
    when: str = ""
    sample: Sample = "random"
    seed: int | None = None
    withdrawn: bool = False

    def line(self) -> str:
        """The judgement as a line of the file."""
        record = {name: value for name, value in asdict(self).items() if name not in ("seed", "withdrawn") or value}
        if self.seed is not None:
            record["seed"] = self.seed
        return json.dumps(record, ensure_ascii=False) + "\n"


def corrections_path(output: str | Path) -> Path:
    """The corrections file of an output; links are followed, as they are for its journal."""
    path = resolve_output(str(output)).path
    return path.with_name(f"{path.name}.corrections.jsonl")


def this_person() -> str:
    """The name of the user of this machine."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def now() -> str:
    """The present time in the form of the file."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def text_key(text: str) -> str:
    """The text without what files change: two rows with one key have the same feedback."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def sample_rank(seed: int, item: str, text: str) -> bytes:
    """The place of a row in the random order of a seed: a sample is the rows with the smallest ranks.

    A larger sample contains the smaller one, and rows that are added later get their place among the others.
    """
    data = f"{item}\0{text_key(text)}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=16, key=str(seed).encode()).digest()


class Corrections:
    """All judgements of a file.

    Args:
        records: the judgements in the order of the file.
    """

    def __init__(self, records: Iterable[Correction] = ()) -> None:
        # By text, item and field: each person's judgement, the last one at the end.
        self._rows: dict[str, dict[str, dict[str, dict[str, Correction]]]] = {}
        self._random: dict[tuple[str, str], int] = {}
        self._limit: bytes | None = None
        self.seed: int | None = None
        """The seed of the last random sample."""
        for record in records:
            self._add(record)

    def _add(self, record: Correction) -> None:
        key = text_key(record.text)
        people = self._rows.setdefault(key, {}).setdefault(record.item, {}).setdefault(record.field, {})
        people.pop(record.who, None)
        if record.withdrawn:
            return
        people[record.who] = record
        if record.sample == "random":
            self._random[key, record.item] = record.seed or 0
            self.seed = record.seed if record.seed is not None else self.seed

    def __len__(self) -> int:
        """The number of fields with a judgement."""
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[Correction]:
        """The judgement of each field that counts."""
        for items in self._rows.values():
            for of_item in items.values():
                yield from (last for people in of_item.values() if (last := _last(people)) is not None)

    def row(self, item: object, text: str) -> dict[str, Correction]:
        """The judgements of a row by field: its own, else those of another row with the same text."""
        items = self._rows.get(key := text_key(text))
        if items is None:
            return {}
        own = items.get(str(item))
        if own is None and key:
            own = {name: people for of_item in items.values() for name, people in of_item.items()}
        return {name: last for name, people in (own or {}).items() if (last := _last(people)) is not None}

    def is_random(self, item: object, text: str) -> bool:
        """Whether this row itself was drawn at random and still has a judgement."""
        key = text_key(text)
        return (key, str(item)) in self._random and any(self._rows[key][str(item)].values())

    def expects(self, item: object, text: str) -> bool:
        """Whether a row belongs to the random sample, so far as that was reviewed, by its place in the random order."""
        if self.seed is None:
            return False
        if self._limit is None:
            ranks = (sample_rank(self.seed, one, key) for (key, one) in self._random if self.is_random(one, key))
            self._limit = max(ranks, default=b"")
        return sample_rank(self.seed, str(item), text) <= self._limit

    def by_people(self) -> Iterator[Mapping[str, Correction]]:
        """For each field of each row, the judgement of each person."""
        for items in self._rows.values():
            for of_item in items.values():
                yield from (people for people in of_item.values() if people)


def _last(people: Mapping[str, Correction]) -> Correction | None:
    return next(reversed(people.values())) if people else None


def read_corrections(path: Path, *, must_exist: bool = False) -> Corrections:
    """Read a corrections file; an absent one is empty unless it must exist.

    Raises:
        InputError: it cannot be read, or a line is bad.
    """
    return Corrections(read_lines(path, must_exist=must_exist))


def read_lines(path: Path, *, must_exist: bool = False) -> list[Correction]:
    """The judgements of a file, one for each line."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        if not must_exist:
            return []
        hint = "write one first: mellea review OUT"
        raise InputError("there is no such corrections file", path=str(path), hint=hint) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=str(path)) from error
    lines = data.split(b"\n")
    # What follows the last line break is a line that was cut off while it was written, unless it is whole.
    found = [_read(line, path, number) for number, line in enumerate(lines[:-1], 1) if line.strip()]
    if lines[-1].strip() and _is_json(lines[-1]):
        found.append(_read(lines[-1], path, len(lines)))
    return found


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


_NAMES = {one.name for one in fields(Correction)}
_REQUIRED = ("item", "field", "model", "person")


def _read(line: bytes, path: Path, number: int) -> Correction:
    def bad(what: str) -> InputError:
        return InputError(f"is no correction: {what}", path=str(path), line=number, hint="correct or delete the line")

    try:
        record = json.loads(line)
    except ValueError as error:
        raise bad(f"it is not valid JSON ({error})") from error
    if not isinstance(record, dict):
        raise bad("it is not a JSON object")
    if missing := [name for name in _REQUIRED if name not in record]:
        raise bad(f"there is no {missing[0]!r}")
    if unknown := [name for name in record if name not in _NAMES]:
        raise bad(f"{unknown[0]!r} is no key of it")
    record = {"text": "", **record, "item": str(record["item"])}
    for name in ("text", "field", "who", "when"):
        if not isinstance(record.get(name, ""), str):
            raise bad(f"{name!r} must be text")
    if record.get("sample", "random") not in _SAMPLES:
        raise bad(f"'sample' must be one of {', '.join(_SAMPLES)}")
    if not isinstance(record.get("seed", 0), int) or not isinstance(record.get("withdrawn", False), bool):
        raise bad("'seed' must be a whole number, and 'withdrawn' true or false")
    return Correction(**record)


class CorrectionsFile:
    """Adds judgements to a corrections file; each call is on the disk when it returns.

    Args:
        path: the file; created with the first judgement.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, records: Sequence[Correction]) -> None:
        """Add judgements, all or none.

        Raises:
            OutputError: the file cannot be written.
        """
        if not records:
            return
        data = "".join(record.line() for record in records).encode("utf-8", "backslashreplace")
        try:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                self._end_line(file)
                # One write, so that a process that is killed leaves all of it or nothing.
                if os.write(file, data) < len(data):
                    raise OutputError(f"{self.path}: cannot be written: the disk is full", hint="free some space")
                os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            raise output_error(str(self.path), error) from error

    def _end_line(self, file: int) -> None:
        """Cut off a line that was not written to its end, and end one that only lacks its line break."""
        size = os.lseek(file, 0, os.SEEK_END)
        if not size:
            return
        with open(os.dup(file), "rb") as whole:  # noqa: PTH123 - a descriptor has no path
            whole.seek(max(0, size - _LONGEST_TAIL))
            tail = whole.read()
        last = tail[tail.rfind(b"\n") + 1 :]
        if last and _is_json(last):
            os.write(file, b"\n")
        elif last:
            os.ftruncate(file, size - len(last))


_LONGEST_TAIL = 4_000_000
