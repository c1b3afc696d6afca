"""Corrections: what people have said about the rows of an output, in a file next to it.

Each line is one judgement of one field of one row. Lines are only ever added, and the last one about a field wins. A
line with `withdrawn` takes the earlier ones of the same person back.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import math
import os
import re
import unicodedata
from collections import Counter
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
    """One judgement of one field of one row."""

    item: str  # The row's id as text
    text: str  # The feedback
    field: str  # The column, or the part of a nested one, such as `urgency`
    model: Any  # The model's value
    person: Any  # The person's value; equal to the model's where it was accepted
    who: str = ""  # The person
    when: str = ""  # The time, in ISO form
    sample: Sample = "random"  # Why the row was judged
    seed: int | None = None  # The seed of the random sample
    size: int | None = None  # The rows that the random sample is to have
    withdrawn: bool = False  # Whether this takes the person's earlier judgements of the field back

    def line(self) -> str:
        """The judgement as a line of the file."""
        optional = ("seed", "size", "withdrawn")
        record = {name: value for name, value in asdict(self).items() if name not in optional or value}
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


def same_value(one: Any, other: Any) -> bool:
    """Whether two values of a field say the same; nothing is written in several ways."""
    return one == other or (one in (None, "", []) and other in (None, "", []))


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
        self.seed: int | None = None  # The seed of the last random sample
        self.size: int | None = None
        """The rows that the last random sample is to have; `None` where the file does not say."""
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
            self.size = record.size or self.size

    def __bool__(self) -> bool:
        return bool(self._rows)

    def __len__(self) -> int:
        """The number of fields with a judgement."""
        return sum(1 for _ in self)

    def note(self, path: Path) -> str:
        """What the user should know about these judgements of a file."""
        number = len(self)
        return f"{path.name}: {number:,} judgement{'s' * (number > 1)} of people, which win"

    def __iter__(self) -> Iterator[Correction]:
        """The judgement of each field that counts."""
        for items in self._rows.values():
            for of_item in items.values():
                yield from _that_count(of_item).values()

    def rows(self) -> Iterator[tuple[str, dict[str, Correction]]]:
        """The text of each judged row, and the judgements of its fields."""
        for items in self._rows.values():
            for of_item in items.values():
                if said := _that_count(of_item):
                    yield next(iter(said.values())).text, said

    def row(self, item: object, text: str, *, has_id: bool = True) -> dict[str, Correction]:
        """The judgements of a row by field: its own, else those of another row with the same text.

        Of another row an edited cell is none of them, unless rows have no ids and may have changed their numbers.
        """
        items = self._rows.get(key := text_key(text), {})
        if (own := items.get(str(item))) is not None:
            return _that_count(own)
        others = map(_that_count, items.values()) if key else ()
        return {name: one for said in others for name, one in said.items() if not (has_id and one.sample == "edited")}

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


def _that_count(of_item: Mapping[str, dict[str, Correction]]) -> dict[str, Correction]:
    """Of the judgements of a row the last one about each field."""
    return {name: next(reversed(people.values())) for name, people in of_item.items() if people}


def read_lines(path: Path, *, must_exist: bool = False) -> list[Correction]:
    """The judgements of a file, one for each line; an absent one has none unless it must exist.

    Raises:
        InputError: it cannot be read, or a line is bad.
    """
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
    if not isinstance(record.get("withdrawn", False), bool) or not all(
        isinstance(record.get(name, 0), int) for name in ("seed", "size")
    ):
        raise bad("'seed' and 'size' must be whole numbers, and 'withdrawn' true or false")
    return Correction(**record)


# Rows that teach.

EXAMPLES = 6  # The rows that a prompt shows as worked examples
_LONGEST_EXAMPLE = 800


@dataclass(frozen=True, slots=True)
class ReviewedRow:
    """What is known about all fields of a judged row."""

    text: str  # The feedback
    values: Mapping[str, Any]  # The person's values by field
    wrong: frozenset[str]  # The fields in which the model had another value


def reviewed_rows(corrections: Corrections, names: Iterable[str]) -> list[ReviewedRow]:
    """The rows with a text in which all these fields are judged, in the order of the file."""
    wanted = set(names)
    found = []
    for text, said in corrections.rows():
        if text.strip() and len(text) <= _LONGEST_EXAMPLE and wanted <= said.keys():
            values = {name: said[name].person for name in said if name in wanted}
            wrong = frozenset(name for name in wanted if said[name].person != said[name].model)
            found.append(ReviewedRow(text, values, wrong))
    return found


def teaching_rows(rows: Sequence[ReviewedRow], label: str, most: int = EXAMPLES) -> list[ReviewedRow]:
    """Choose the rows that a prompt shows as examples: by the similarity of their texts, the same ones in each run.

    Only the corrections decide, not the rows of a run, so that the prompt stays the same while the input grows. Each
    value of `label` gets one row, so that no value is forgotten. The others go to the values with most errors. Within
    a value, rows where the model was wrong come first, and each next one is that which makes the chosen ones most
    similar to all of them (facility location, greedily; cosine of TF-IDF vectors of words).
    """
    groups: dict[str, list[ReviewedRow]] = {}
    for row in rows:
        groups.setdefault(json.dumps(row.values.get(label), sort_keys=True), []).append(row)
    errors = {name: sum(bool(row.wrong) for row in group) for name, group in groups.items()}
    if not any(errors.values()):
        return []
    vectors = _vectors([row.text for row in rows])
    by_text = {row.text: vector for row, vector in zip(rows, vectors, strict=True)}
    ranked = {name: _representative(group, by_text) for name, group in groups.items()}
    order = sorted(groups, key=lambda name: (-errors[name], -len(groups[name]), name))
    chosen = [ranked[name].pop(0) for name in order[:most]]
    # One more row for whichever value has the most errors for each row that it has already.
    shown = Counter(order[:most])
    while len(chosen) < most:
        left = [name for name in order if ranked[name] and ranked[name][0].wrong]
        if not left:
            break
        name = max(left, key=lambda one: (errors[one] / (shown[one] + 1), -order.index(one)))
        chosen.append(ranked[name].pop(0))
        shown[name] += 1
    return chosen


def _representative(rows: Sequence[ReviewedRow], vectors: Mapping[str, Mapping[str, float]]) -> list[ReviewedRow]:
    """The first rows of a group, the most telling one first."""
    wrong = [row for row in rows if row.wrong]
    found: list[ReviewedRow] = []
    for pool in (wrong, [row for row in rows if not row.wrong]):
        covered = [0.0] * len(pool)
        similar = [[_cosine(vectors[one.text], vectors[other.text]) for other in pool] for one in pool]
        left = list(range(len(pool)))
        while left and len(found) < EXAMPLES:
            best = max(left, key=lambda at: sum(max(0.0, s - c) for s, c in zip(similar[at], covered, strict=True)))
            covered = [max(pair) for pair in zip(covered, similar[best], strict=True)]
            left.remove(best)
            found.append(pool[best])
    return found


def _vectors(texts: Sequence[str]) -> list[dict[str, float]]:
    words = [Counter(re.findall(r"\w+", text.casefold())) for text in texts]
    rows = Counter(word for one in words for word in one)
    vectors = []
    for one in words:
        weights = {word: number * math.log((1 + len(texts)) / rows[word]) for word, number in one.items()}
        length = math.sqrt(sum(weight**2 for weight in weights.values())) or 1.0
        vectors.append({word: weight / length for word, weight in weights.items()})
    return vectors


def _cosine(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    shorter, longer = (one, other) if len(one) < len(other) else (other, one)
    return sum(weight * longer.get(word, 0.0) for word, weight in shorter.items())


class CorrectionsFile:
    """Adds judgements to a corrections file, which the first one creates; each call is on the disk when it returns."""

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
