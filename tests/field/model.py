"""What a case is: where it comes from, what is done, and what must come of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from field.wire import Rule

GIVEN = "given"
"""The source of the cases that the issue came with."""

Words = tuple[str | tuple[str, ...], ...]
"""Words that must all be said; of a tuple inside one is enough. Case does not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expect:
    """What must come of one run of the program; what is not named may be anything.

    Args:
        exit: the exit code, or the possible ones.
        rows: rows of the output.
        answered: rows of the output with a sentiment.
        failed: rows of the output with an error.
        kinds: the errors' kinds, as one of each must be among these.
        requests: chat requests that reached the server in this run, at most.
        says: words on stderr.
        silent: words that may be neither on stderr nor on stdout.
        stdout: words on stdout.
        talk: lines on stderr, at most; those that tell of progress do not count.
        summaries: what the summaries contain, row by row.
        columns: columns that the output has.
        without: columns that it may not have.
        cells: row (from 0), column and value.
        starts: what the output's bytes begin with.
        sends: conditions for one of the requests of this run at least, see `field.server.holds`.
        never: conditions that may hold for none of them.
        absent: files that may not be there afterwards.
        untouched: files that must have the same bytes as before.
    """

    exit: int | tuple[int, ...] = 0
    rows: int | None = None
    answered: int | None = None
    failed: int | None = None
    kinds: tuple[str, ...] = ()
    requests: int | None = None
    says: Words = ()
    silent: tuple[str, ...] = ()
    stdout: Words = ()
    talk: int | None = None
    summaries: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    cells: tuple[tuple[int, str, str], ...] = ()
    starts: bytes = b""
    sends: tuple[Mapping[str, Any], ...] = ()
    never: tuple[Mapping[str, Any], ...] = ()
    absent: tuple[str, ...] = ()
    untouched: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Run the program.

    In the arguments `{url}` stands for the address of the case's server, `{nobody}` for one where nobody listens.

    Args:
        args: the command line behind `mellea`.
        expect: what must come of it.
        output: the file with the rows; `-` for stdout.
        stdin: what is piped in.
        env: variables, besides those that every case has; `None` removes one. `{files}` stands for the folder of the
            given files, `{folder}` for the one that the case runs in, `{path}` for the PYTHONPATH of the tests.
        closed: file descriptors that are closed when it starts.
        signals: seconds after the start, and the signal's name.
        seconds: it must have ended by itself within this time behind the last signal.
    """

    args: tuple[str, ...]
    expect: Expect
    output: str = "out.jsonl"
    stdin: str | None = None
    env: Mapping[str, str | None] = field(default_factory=dict)
    closed: tuple[int, ...] = ()
    signals: tuple[tuple[float, str], ...] = ()
    seconds: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """Write a file, or add to it; `None` removes it.

    Args:
        name: the file.
        content: its text.
        add: whether what is there stays in front.
        encoding: how the text is written.
        packed: whether the file is compressed with gzip.
    """

    name: str
    content: str | None
    add: bool = False
    encoding: str = "utf-8"
    packed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """Change what is in a cell of a CSV or JSONL file, as a person does."""

    name: str
    row: int
    column: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Save:
    """Open a table in a spreadsheet program, change something, and save it as that program does.

    Args:
        name: the file.
        cells: row (from 0), column and value.
        order: the rows that remain, in their new order.
        columns: the columns that remain, in their new order; those that were not there are empty.
        renamed: columns that get another name.
        added: rows that are added at the end.
        delimiter: what stands between cells.
        encoding: how the text is written.
        quote_all: whether all cells are quoted.
    """

    name: str
    cells: tuple[tuple[int, str, str], ...] = ()
    order: tuple[int, ...] | None = None
    columns: tuple[str, ...] | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)
    added: tuple[Mapping[str, str], ...] = ()
    delimiter: str = ","
    encoding: str = "utf-8"
    quote_all: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Make the file that a provider's batch queue gives back for a file of requests.

    Args:
        requests: what `--export-batch` wrote.
        name: the file to make.
        form: `plain`, or with a `bom`, `gz`, `crlf`, or `useless`: only lines that are none.
        line: makes the value of a line, by the request's name and the answer, where the provider has a form of its own.
        others: lines in front of the answers.
    """

    requests: str
    name: str
    form: Literal["plain", "bom", "gz", "crlf", "useless", "utf-16", "array", "empty"] = "plain"
    line: Callable[[str, str], Any] | None = None
    others: tuple[str, ...] = ()


Step = Run | Put | Edit | Save | Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One case.

    Args:
        id: its name, which is also the path of its server.
        kind: the kind that it stands for.
        source: `given`, or the public report or documented format it was found in; empty for those made up to complete
            a kind.
        about: what happens, in one sentence.
        steps: what is done, in order.
        files: files of `tests/field/files` that are there at the start.
        rules: what the server does.
        models: what it lists.
    """

    id: str
    kind: str
    source: str
    about: str
    steps: tuple[Step, ...]
    files: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    models: tuple[str, ...] = ("m",)
