"""`mellea report`, `compare`, `show` and `export`: what finished runs say, as figures or row by row."""

# No `from __future__ import annotations`, see `mellea_cli.cli.flags`.

import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from io import StringIO
from itertools import chain, islice
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal

import typer

from mellea_cli.cli.flags import (
    COLUMN,
    FORMATS,
    INPUT,
    OUTPUT,
    DelimiterFlag,
    EncodingFlag,
    IdFieldFlag,
    InputFormatFlag,
    TextFieldFlag,
    WhereFlag,
    flag,
    options_command,
    source_options,
    typed_command,
)
from mellea_cli.errors import ExitCode, InputError, UsageError

if TYPE_CHECKING:
    from mellea_cli.io.formats import RawRow
    from mellea_cli.io.source import SourceOptions
    from mellea_cli.pipelines.theme_prompts import Theme
    from mellea_cli.report.comparison import Comparison
    from mellea_cli.report.figures import Figures
    from mellea_cli.report.results import OutputRows, Record
    from mellea_cli.report.score import ScoreKind


ReportFormat = Literal["text", "html", "md", "json"]
REPORT = "Report"

_SUFFIXES = {".html": "html", ".htm": "html", ".md": "md", ".markdown": "md", ".json": "json", ".txt": "text"}


ScoreFlag = Annotated[
    tuple[str, str] | None,
    flag(REPORT, "Score column: nps, csat or stars, then its name (default: by name).", metavar="KIND COLUMN"),
]
_Output = Annotated[str | None, flag(OUTPUT, "A file (.html .md .json .txt) or - for stdout.", "-o")]
_Format = Annotated[ReportFormat | None, flag(OUTPUT, "Output format (default: by suffix; text at a terminal).")]
_Json = Annotated[bool, flag(OUTPUT, "The same as --format json.")]
_Brand = Annotated[str | None, flag(OUTPUT, "Line above the title of a page, such as your company.")]


@dataclass(frozen=True, slots=True)
class ReportFlags:
    """The flags of `mellea report`."""

    results: Annotated[
        str, typer.Argument(metavar="RESULTS", help="Output of mellea summarise or themes; - for stdin.")
    ]
    output: _Output = None
    format: _Format = None
    json: _Json = False
    title: Annotated[str | None, flag(OUTPUT, "Title of the report.")] = None
    brand: _Brand = None
    where: WhereFlag = None
    by: Annotated[list[str] | None, flag(REPORT, "Split by a column. Repeatable.", metavar="COLUMN", **COLUMN)] = None
    score: ScoreFlag = None
    date: Annotated[
        str | None, flag(REPORT, "Column with the date (default: created_at, date, …).", metavar="COLUMN", **COLUMN)
    ] = None
    month_first: Annotated[
        bool | None,
        flag(
            REPORT,
            "How to read 03/04/2026 (default: as the column's other dates tell).",
            "--month-first/--day-first",
            show_default=False,
        ),
    ] = None
    themes_file: Annotated[
        str | None, flag(REPORT, "TOML file with the themes' definitions (default: that of mellea themes).")
    ] = None
    input_format: InputFormatFlag = None
    text_field: TextFieldFlag = None
    id_field: IdFieldFlag = None
    encoding: EncodingFlag = None
    delimiter: DelimiterFlag = None


@options_command(ReportFlags)
def report(flags: ReportFlags) -> ExitCode:
    """Show a finished run: sentiment, urgency, themes, trends, quotes.

    Without -o it prints one screen. With -o report.html it writes one HTML page without outside references.
    """
    from mellea_cli.report.aggregate import Aggregator, ReportOptions
    from mellea_cli.report.agreement import ReviewedTotals
    from mellea_cli.report.results import open_results

    form = _output_format(flags)
    _check_output(flags.output, (flags.results, *([flags.themes_file] if flags.themes_file else ())))
    themes = _themes([flags.results], flags.themes_file)
    options = source_options(flags, format=flags.input_format)
    # Only the page shows every row; without it memory does not grow with them.
    records: list[Record] = []
    with open_results(flags.results, options) as results:
        wishes = ReportOptions(tuple(flags.by or ()), flags.date, flags.month_first, themes, parse_score(flags.score))
        reviewed = None
        if results.corrections:
            reviewed = ReviewedTotals(results.corrections, results.own, whole=flags.where is None)
        aggregator = Aggregator(wishes, reviewed)
        for record in results:
            aggregator.add(record)
            if form == "html":
                records.append(record)
        figures = aggregator.figures(results)
    next_steps = _next_steps(flags, figures, form)
    title = flags.title or ("Feedback" if flags.results == "-" else f"Feedback in {PurePath(flags.results).name}")
    if form == "html":
        from mellea_cli.report.html_report import to_html

        written = datetime.now().astimezone().replace(microsecond=0)
        columns = list(results.columns)
        page = to_html(figures, records, columns, title=title, written=written, brand=flags.brand or "")
        _write(flags.output, page)
    elif form == "json":
        from mellea_cli.report.figures import figures_to_json

        _write(flags.output, [figures_to_json(figures)])
    elif form == "md":
        from mellea_cli.report.markdown import to_markdown

        _write(flags.output, [to_markdown(figures, title, next_steps)])
    else:
        from mellea_cli.ui.report_view import print_report

        _write_text(flags.output, lambda out: print_report(figures, next_steps, out, os.environ))
    return ExitCode.OK


def _themes(results: "Sequence[str]", themes_file: str | None) -> "Sequence[Theme]":
    """The themes' definitions: from the named file, else from that of the labelled rows, the last ones first."""
    from mellea_cli.io.themes_file import read_themes
    from mellea_cli.report.results import themes_files

    if themes_file is None:
        return next(filter(None, (read_themes(path) for one in reversed(results) for path in themes_files(one))), ())
    themes = read_themes(Path(themes_file))
    if themes is None:
        raise InputError("cannot be read: no such file", path=themes_file, hint="name another --themes-file")
    return themes


def _next_steps(flags: ReportFlags, figures: "Figures", form: str) -> list[str]:
    if not figures.rows or flags.results == "-":
        return []
    name = shlex.quote(flags.results)
    if figures.labels is None and figures.judged:
        return [f"mellea themes {name} -o themes.jsonl"]
    if form != "text":
        return []
    named = flags.output or flags.format
    return [f"mellea report {name} -o report.html" if named else typed_command("-o", "report.html")]


@dataclass(frozen=True, slots=True)
class CompareFlags:
    """The flags of `mellea compare`."""

    results: Annotated[
        list[str],
        typer.Argument(metavar="OLD... NEW", help="Two or more outputs of mellea summarise or themes, oldest first."),
    ]
    output: _Output = None
    format: _Format = None
    title: Annotated[str | None, flag(OUTPUT, "Title of the comparison.")] = None
    brand: _Brand = None
    where: WhereFlag = None
    score: ScoreFlag = None
    themes_file: Annotated[
        str | None, flag(REPORT, "TOML file with the themes' kinds and headings (default: that of mellea themes).")
    ] = None
    json: _Json = False
    text_field: TextFieldFlag = None
    id_field: IdFieldFlag = None


@options_command(CompareFlags)
def compare(flags: CompareFlags) -> ExitCode:
    """Show what changed between two finished runs.

    Counts and shares of sentiment, urgency and themes, up and down, and rows that came and went. Colour marks only
    changes beyond chance. Of more than two files the last two are compared, and all are shown as a series.
    """
    from mellea_cli.report.comparison import comparison_to_json, comparison_to_markdown
    from mellea_cli.ui.report_view import print_comparison

    form = _output_format(flags)
    _check_output(flags.output, flags.results)
    comparison = read_comparison(
        flags.results, source_options(flags), themes_file=flags.themes_file, score=parse_score(flags.score)
    )
    title = flags.title or "What changed"
    if form == "html":
        from mellea_cli.report.html_report import comparison_to_html

        written = datetime.now().astimezone().replace(microsecond=0)
        _write(flags.output, comparison_to_html(comparison, title=title, written=written, brand=flags.brand or ""))
    elif form == "json":
        _write(flags.output, [comparison_to_json(comparison)])
    elif form == "md":
        _write(flags.output, [comparison_to_markdown(comparison, title)])
    else:
        _write_text(flags.output, lambda out: print_comparison(comparison, out, os.environ))
    return ExitCode.OK


def read_comparison(
    paths: "Sequence[str]", options: "SourceOptions", *, themes_file: str | None, score: "tuple[ScoreKind, str] | None"
) -> "Comparison":
    """Compare two or more outputs, oldest first."""
    from mellea_cli.report.comparison import compare as compare_results
    from mellea_cli.report.results import open_results

    if len(paths) < 2:
        raise UsageError("one file cannot be compared", hint=f"name an earlier one, too: mellea compare OLD {paths[0]}")
    if list(paths).count("-") > 1:
        raise UsageError("two files cannot come from stdin", hint="name all but one of them: mellea compare OLD -")
    with ExitStack() as stack:
        results = [stack.enter_context(open_results(path, options)) for path in paths]
        return compare_results(*results, themes=_themes(paths, themes_file), score=score)


def parse_score(wanted: tuple[str, str] | None) -> "tuple[ScoreKind, str] | None":
    """Read `--score`."""
    from mellea_cli.report.score import SCORE_KINDS

    if wanted is None:
        return None
    kind = next((kind for kind in SCORE_KINDS if kind == wanted[0].lower()), None)
    if kind is None:
        names = ", ".join(SCORE_KINDS)
        raise UsageError(f"--score {wanted[0]}: is no kind of score", hint=f"one of {names}: --score nps {wanted[1]}")
    return kind, wanted[1]


_Results = Annotated[str, typer.Argument(metavar="RESULTS", help="Output of a run, or any table; - for stdin.")]
_Columns = Annotated[
    list[str] | None,
    flag(OUTPUT, "Columns in their order, such as id,urgency,text. Repeatable.", metavar="NAMES", **COLUMN),
]
_Sort = Annotated[str | None, flag(OUTPUT, "Sort by a column; -NAME: from the end.", metavar="NAME", **COLUMN)]
_Search = Annotated[str | None, flag(INPUT, "Only rows with this text in a column.", metavar="TEXT")]
_Limit = Annotated[int | None, flag(INPUT, "Only the first N rows of what is selected and sorted.", "-n", min=1)]


@dataclass(frozen=True, slots=True)
class ShowFlags:
    """The flags of `mellea show`."""

    results: _Results
    columns: _Columns = None
    sort: _Sort = None
    json: Annotated[
        str | None,
        flag(OUTPUT, "JSON with these columns, such as id,urgency; all: each one.", metavar="FIELDS", **COLUMN),
    ] = None
    pager: Annotated[bool, flag(OUTPUT, "Page at a terminal, or print lines.", "--pager/--no-pager")] = True
    where: WhereFlag = None
    search: _Search = None
    limit: _Limit = None
    input_format: InputFormatFlag = None
    encoding: EncodingFlag = None
    delimiter: DelimiterFlag = None


@options_command(ShowFlags)
def show(flags: ShowFlags) -> ExitCode:
    """Show the rows of a finished run: search, sort, select.

    At a terminal it pages: the arrow keys move, / searches, s sorts, w selects rows, c chooses columns, Enter shows a
    whole row, q quits. Anywhere else it prints a line for each row, with tabs between the columns.
    """
    from mellea_cli.report.results import OutputRows, usual_columns
    from mellea_cli.ui.terminal import can_draw

    names = _names([flags.json] if flags.json not in (None, "all") else flags.columns)
    paged = flags.json is None and flags.pager and all(can_draw(one, os.environ) for one in (sys.stdout, sys.stdin))
    flag = "--json" if flags.json is not None else "--columns"
    how = source_options(flags, format=flags.input_format, limit=None)
    with OutputRows(flags.results, how, names, flag=flag, sort=flags.sort) as rows:
        found = (fields for _, fields, _ in _selected(flags, rows))
        if paged:
            from mellea_cli.ui.full_screen import RowPager

            RowPager(rows.name, map(rows.flat, found), names, partial(usual_columns, own=rows.own)).run(os.environ)
        elif flags.json is not None:
            _write_array(rows.chosen(fields) for fields in found)
        else:
            _write_lines(rows, found, names)
    return _unreadable(rows)


def _selected(flags: "ShowFlags | ExportFlags", rows: "OutputRows") -> "Iterator[RawRow]":
    """The rows that `--search`, `--sort` and `--limit` choose."""
    from mellea_cli.io.row_filter import has_text, in_order

    found = iter(rows)
    if flags.search:
        found = (row for row in found if has_text(rows.flat(row[1]), flags.search))
    if flags.sort:
        found = in_order(found, lambda row: rows.sorting(row[1]), descending=flags.sort.startswith("-"))
    return islice(found, flags.limit)


def _names(texts: "Sequence[str | None] | None") -> tuple[str, ...]:
    """The columns of `--columns` and `--json`: separated by commas."""
    return tuple(name for text in texts or () for part in (text or "").split(",") if (name := part.strip(" `")))


def _write_array(rows: "Iterable[Mapping[str, Any]]") -> None:
    from mellea_cli.io.writers import encoded

    start = "["
    for row in rows:
        sys.stdout.write(f"{start}\n{encoded(row).decode()}")
        start = ","
    sys.stdout.write("[]\n" if start == "[" else "\n]\n")


_HEADER_ROWS = 1_000


def _write_lines(rows: "OutputRows", found: "Iterator[Mapping[str, Any]]", names: Sequence[str]) -> None:
    from mellea_cli.io.row_filter import cell_text
    from mellea_cli.ui.console import clean

    first = list(islice(found, _HEADER_ROWS))
    flat = [rows.flat(rows.chosen(fields)) for fields in first]
    columns = list(dict.fromkeys(name for row in flat for name in row)) or list(names)
    if columns:
        sys.stdout.write("\t".join(map(clean, columns)) + "\n")
    for row in chain(flat, (rows.flat(rows.chosen(fields)) for fields in found)):
        sys.stdout.write("\t".join(clean(cell_text(row.get(name))) for name in columns) + "\n")


def _unreadable(rows: "OutputRows") -> ExitCode:
    from mellea_cli.ui.console import say

    for error in rows.bad:
        say(sys.stderr, f"skipped: {error.message}")
    if rows.unreadable > len(rows.bad):
        say(sys.stderr, f"skipped: {rows.unreadable:,} rows in all")
    return ExitCode.SOME_FAILED if rows.unreadable else ExitCode.OK


@dataclass(frozen=True, slots=True)
class ExportFlags:
    """The flags of `mellea export`."""

    results: _Results
    output: Annotated[
        str, flag(OUTPUT, "Output file (.jsonl .json .csv .tsv .xlsx .parquet), or - for stdout.", "-o")
    ] = "-"
    output_format: Annotated[str | None, flag(OUTPUT, "Output format, if its suffix does not tell.", **FORMATS)] = None
    columns: _Columns = None
    sort: _Sort = None
    overwrite: Annotated[bool, flag(OUTPUT, "Replace a file that exists.")] = False
    json: Annotated[bool, flag(OUTPUT, "The closing line as JSON on stderr.")] = False
    raw_csv: Annotated[bool, flag(OUTPUT, "Do not escape CSV cells that a spreadsheet runs as formulas.")] = False
    where: WhereFlag = None
    search: _Search = None
    limit: _Limit = None
    input_format: InputFormatFlag = None
    encoding: EncodingFlag = None
    delimiter: DelimiterFlag = None


@options_command(ExportFlags)
def export(flags: ExportFlags) -> ExitCode:
    """Write rows of a finished run to a file of another format, or some of them.

    Nothing is asked. Without --columns a row of JSON is written unchanged; a table gets the parts of nested answers as
    columns of their own.
    """
    from mellea_cli.io.files import OutputLock, resolve_output
    from mellea_cli.io.formats import known_format, output_format
    from mellea_cli.io.sink import SinkOptions, open_sink
    from mellea_cli.io.writers import AddedColumns
    from mellea_cli.items import Item, Row
    from mellea_cli.report.results import OutputRows
    from mellea_cli.ui.console import plural, say, say_record

    target = resolve_output(flags.output)
    _check_output(flags.output, (flags.results,))
    form = known_format(flags.output_format) if flags.output_format else output_format(target.name)
    if target.kind == "file" and target.path.exists() and not flags.overwrite:
        raise UsageError(f"{flags.output}: exists", hint="choose another name with -o, or replace it with --overwrite")
    names = _names(flags.columns)
    nested = form in ("json", "jsonl")
    with ExitStack() as stack:
        how = source_options(flags, format=flags.input_format, limit=None)
        rows = stack.enter_context(OutputRows(flags.results, how, names, sort=flags.sort))
        if target.kind == "file":
            stack.enter_context(OutputLock(target.lock, target.name))
            stack.callback(target.partial.unlink, missing_ok=True)
        found = _selected(flags, rows)
        first = list(islice(found, 1))
        # Without any row a table still has its header.
        columns = () if first else tuple(rows.flat(rows.chosen(rows.first)))
        options = SinkOptions(
            format=form, columns=columns, raw_csv=flags.raw_csv, dialect=lambda: rows.dialect, types=lambda: rows.types
        )
        sink = stack.enter_context(open_sink(target, AddedColumns(), options, note=partial(say, sys.stderr)))
        written = 0
        for position, (line, fields, raw) in enumerate(chain(first, found)):
            kept = rows.chosen(fields)
            cells = kept if nested else rows.flat(kept)
            sink.write(Row(Item(position, position + 1, "", cells, line, raw if nested and not names else None), {}))
            written += 1
        sink.finish()
    code = _unreadable(rows)
    if flags.json:
        output = flags.output if target.kind == "file" else None
        say_record(sys.stderr, {"output": output, "rows": written, "unreadable": rows.unreadable})
    elif target.kind == "file":
        say(sys.stderr, f"{flags.output}: {plural(written, 'row')}")
    return code


def _output_format(flags: ReportFlags | CompareFlags) -> str:
    """The format to write: the wanted one, else by the output's suffix; text for stdout."""
    output = flags.output
    if flags.json and flags.format not in (None, "json"):
        raise UsageError(f"--json and --format {flags.format} ask for two formats", hint="omit one of them")
    if flags.json or flags.format is not None:
        return flags.format or "json"
    if output is None or output == "-" or output.startswith("/dev/"):
        return "text"
    suffix = PurePath(output).suffix.lower()
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    problem = f"cannot be written as {suffix}" if suffix else "has no suffix that names a format"
    raise UsageError(f"{output}: {problem}", hint="name it .html or .md or .json, or use --format")


def _check_output(output: str | None, inputs: Iterable[str]) -> None:
    from mellea_cli.io.files import same_file

    for path in inputs:
        if output not in (None, "-") and path != "-" and same_file(str(output), path):
            raise UsageError(f"{path}: is the input and the output at once", hint="choose another file with -o")


def _write(output: str | None, pieces: Iterable[str]) -> None:
    from mellea_cli.io.files import atomic_write, resolve_output

    sys.stdout.flush()
    atomic_write(resolve_output(output), pieces)


def _write_text(output: str | None, draw: Callable[[IO[str]], None]) -> None:
    if output in (None, "-"):
        draw(sys.stdout)
        return
    memory = StringIO()
    draw(memory)
    _write(output, [memory.getvalue()])
