"""`mellea report` and `mellea compare`: what finished runs say, on one screen, as a page, as Markdown or as figures."""

# No `from __future__ import annotations`, see `mellea_cli.cli.flags`.

import os
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from io import StringIO
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING, Annotated, Literal

import typer

from mellea_cli.cli.flags import FORMATS, INPUT, OUTPUT, WHERE_HELP, option, options_command, row_filter
from mellea_cli.errors import ExitCode, InputError, UsageError

if TYPE_CHECKING:
    from mellea_cli.pipelines.theme_prompts import Theme
    from mellea_cli.report.figures import Figures
    from mellea_cli.report.results import Record


ReportFormat = Literal["text", "html", "md", "json"]
ComparisonFormat = Literal["text", "md", "json"]
REPORT = "Report"

# A variable such as MELLEA_OUTPUT is for the batch commands.
_flag = partial(option, env=False)

_SUFFIXES = {".html": "html", ".htm": "html", ".md": "md", ".markdown": "md", ".json": "json", ".txt": "text"}


@dataclass(frozen=True, slots=True)
class ReportFlags:
    """The flags of `mellea report`."""

    results: Annotated[
        str, typer.Argument(metavar="RESULTS", help="Output of mellea summarise or themes; - for stdin.")
    ]
    output: Annotated[str | None, _flag(OUTPUT, "A file (.html .md .json) or - for stdout.", "-o")] = None
    format: Annotated[ReportFormat | None, _flag(OUTPUT, "Output format (default: by suffix; text at a terminal).")] = (
        None
    )
    title: Annotated[str | None, _flag(OUTPUT, "Title of the report.")] = None
    where: Annotated[str | None, _flag(INPUT, WHERE_HELP, metavar="EXPR")] = None
    by: Annotated[list[str] | None, _flag(REPORT, "Split by a column. Repeatable.", metavar="COLUMN")] = None
    date: Annotated[
        str | None, _flag(REPORT, "Column with the date (default: created_at, date, …).", metavar="COLUMN")
    ] = None
    month_first: Annotated[
        bool | None,
        _flag(
            REPORT,
            "How to read 03/04/2026 (default: as the column's other dates tell).",
            "--month-first/--day-first",
            show_default=False,
        ),
    ] = None
    themes_file: Annotated[
        str | None, _flag(REPORT, "TOML file with the themes' definitions (default: RESULTS.toml if it exists).")
    ] = None
    input_format: Annotated[str | None, _flag(INPUT, "Format of RESULTS, if its suffix does not tell.", **FORMATS)] = (
        None
    )
    text_field: Annotated[list[str] | None, _flag(INPUT, "Column with the feedback. Repeatable.", metavar="NAME")] = (
        None
    )
    id_field: Annotated[str | None, _flag(INPUT, "Column with the id (default: id).")] = None
    encoding: Annotated[str | None, _flag(INPUT, "Encoding of RESULTS (default: UTF-8).")] = None
    delimiter: Annotated[str | None, _flag(INPUT, "CSV delimiter.", "-d")] = None


@options_command(ReportFlags)
def report(flags: ReportFlags) -> ExitCode:
    """Show a finished run: sentiment, urgency, themes, trends, quotes.

    Without -o it prints one screen. With -o report.html it writes one HTML page without outside references.
    """
    from mellea_cli.io.source import SourceOptions
    from mellea_cli.report.aggregate import Aggregator, ReportOptions
    from mellea_cli.report.results import open_results

    form = _output_format(flags.output, flags.format, ("text", "html", "md", "json"))
    _check_output(flags.output, (flags.results, *([flags.themes_file] if flags.themes_file else ())))
    themes = _themes(flags)
    options = SourceOptions(
        format=flags.input_format,
        text_field=tuple(flags.text_field or ()),
        id_field=flags.id_field,
        encoding=flags.encoding,
        delimiter=flags.delimiter,
        where=row_filter(flags.where),
    )
    aggregator = Aggregator(ReportOptions(tuple(flags.by or ()), flags.date, flags.month_first, themes))
    # Only the page shows every row; without it memory does not grow with them.
    records: list[Record] = []
    with open_results(flags.results, options) as results:
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
        page = to_html(figures, records, list(results.columns), title=title, written=written, next_steps=next_steps)
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


def _themes(flags: ReportFlags) -> "Sequence[Theme]":
    """The themes' definitions: from the named file, else from the one next to labelled rows."""
    from mellea_cli.io.themes_file import read_themes

    if flags.themes_file is None:
        return read_themes(Path(f"{flags.results}.toml")) or ()
    themes = read_themes(Path(flags.themes_file))
    if themes is None:
        raise InputError("cannot be read: no such file", path=flags.themes_file, hint="name another --themes-file")
    return themes


def _next_steps(flags: ReportFlags, figures: "Figures", form: str) -> list[str]:
    if not figures.rows or flags.results == "-":
        return []
    name = shlex.quote(flags.results)
    if figures.labels is None and figures.judged:
        steps = [f"mellea themes {name} -o themes.jsonl", "mellea report themes.jsonl -o report.html"]
        return steps if form == "html" else steps[:1]
    return [f"mellea report {name} -o report.html"] if form == "text" else []


@dataclass(frozen=True, slots=True)
class CompareFlags:
    """The flags of `mellea compare`."""

    old: Annotated[str, typer.Argument(metavar="OLD", help="Output of an earlier mellea summarise or themes.")]
    new: Annotated[str, typer.Argument(metavar="NEW", help="Output of a later one.")]
    output: Annotated[str | None, _flag(OUTPUT, "A file (.md .json .txt) or - for stdout.", "-o")] = None
    format: Annotated[
        ComparisonFormat | None, _flag(OUTPUT, "Output format (default: by suffix; text at a terminal).")
    ] = None
    text_field: Annotated[list[str] | None, _flag(INPUT, "Column with the feedback. Repeatable.", metavar="NAME")] = (
        None
    )
    id_field: Annotated[str | None, _flag(INPUT, "Column with the id (default: id).")] = None


@options_command(CompareFlags)
def compare(flags: CompareFlags) -> ExitCode:
    """Show what changed between two finished runs.

    Counts and shares of sentiment, urgency and themes, up and down, and rows that came and went. Rows are the same
    when their ids are, or their texts where there are no ids.
    """
    from mellea_cli.io.source import SourceOptions
    from mellea_cli.report.comparison import compare as compare_results
    from mellea_cli.report.comparison import comparison_to_json, comparison_to_markdown
    from mellea_cli.report.results import open_results
    from mellea_cli.ui.report_view import print_comparison

    if (flags.old, flags.new) == ("-", "-"):
        raise UsageError("both files cannot come from stdin", hint="name at least one of them: mellea compare OLD -")
    form = _output_format(flags.output, flags.format, ("text", "md", "json"))
    _check_output(flags.output, (flags.old, flags.new))
    options = SourceOptions(text_field=tuple(flags.text_field or ()), id_field=flags.id_field)
    with open_results(flags.old, options) as old, open_results(flags.new, options) as new:
        comparison = compare_results(old, new)
    if form == "json":
        _write(flags.output, [comparison_to_json(comparison)])
    elif form == "md":
        _write(flags.output, [comparison_to_markdown(comparison, "What changed")])
    else:
        _write_text(flags.output, lambda out: print_comparison(comparison, out, os.environ))
    return ExitCode.OK


def _output_format(output: str | None, wanted: str | None, known: tuple[str, ...]) -> str:
    """The format to write: the wanted one, else by the output's suffix; text for stdout."""
    if wanted is not None:
        return wanted
    if output is None or output == "-" or output.startswith("/dev/"):
        return "text"
    suffix = PurePath(output).suffix.lower()
    form = _SUFFIXES.get(suffix, "")
    if form in known:
        return form
    names = " or ".join(f".{name}" for name in known if name != "text")
    problem = f"cannot be written as {suffix}" if suffix else "has no suffix that names a format"
    raise UsageError(f"{output}: {problem}", hint=f"name it {names}, or use --format")


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
