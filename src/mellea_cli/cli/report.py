"""`mellea report`: what a finished run says, on one screen, as a page, as Markdown or as figures."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING, Annotated, Literal

import typer

from mellea_cli.cli.flags import INPUT, OUTPUT, FormatName
from mellea_cli.errors import InputError, UsageError

if TYPE_CHECKING:
    from mellea_cli.io.source import SourceOptions
    from mellea_cli.pipelines.theme_prompts import Theme
    from mellea_cli.report.figures import Figures
    from mellea_cli.report.results import Record


# Wires `mellea report` and `mellea compare`: rows in, figures, one of several faces out.

_SUFFIXES = {".html": "html", ".htm": "html", ".md": "md", ".markdown": "md", ".json": "json", ".txt": "text"}


@dataclass(frozen=True, slots=True)
class ReportWishes:
    """What was typed after `mellea report`."""

    results: str
    output: str | None = None
    format: str | None = None
    title: str | None = None
    by: tuple[str, ...] = ()
    date: str | None = None
    month_first: bool | None = None
    themes_file: str | None = None


def _themes(wishes: ReportWishes) -> Sequence[Theme]:
    """The themes' definitions: from the file that was named, else from the one that stands beside labelled rows."""
    from mellea_cli.io.themes_file import read_themes

    if wishes.themes_file is None:
        return read_themes(Path(f"{wishes.results}.toml")) or ()
    themes = read_themes(Path(wishes.themes_file))
    if themes is None:
        raise InputError("cannot be read: no such file", path=wishes.themes_file, hint="name another --themes-file")
    return themes


def write_report(wishes: ReportWishes, options: SourceOptions) -> None:
    """Read the rows, count them, and write the report.

    Raises:
        UsageError: the output would be written over an input, or has a suffix that says nothing.
        InputError: the rows or the themes cannot be read, or a column is not there.
        OutputError: the report cannot be written.
    """
    from mellea_cli.report.aggregate import Aggregator, ReportOptions
    from mellea_cli.report.results import open_results

    form = _form(wishes.output, wishes.format, ("text", "html", "md", "json"))
    _check_output(wishes.output, (wishes.results, *([wishes.themes_file] if wishes.themes_file else ())))
    themes = _themes(wishes)
    aggregator = Aggregator(ReportOptions(wishes.by, wishes.date, wishes.month_first, themes))
    # Only the page shows every row; without it memory does not grow with them.
    records: list[Record] = []
    with open_results(wishes.results, options) as results:
        for record in results:
            aggregator.add(record)
            if form == "html":
                records.append(record)
        figures = aggregator.figures(results)
        columns = list(results.columns)
    next_steps = _next_steps(wishes, figures, form)
    if form == "html":
        _write(wishes.output, _html(wishes, figures, records, columns, next_steps))
    elif form == "json":
        from mellea_cli.report.figures import figures_to_json

        _write(wishes.output, [figures_to_json(figures)])
    elif form == "md":
        from mellea_cli.report.markdown import to_markdown

        _write(wishes.output, [to_markdown(figures, _title(wishes), next_steps)])
    else:
        from mellea_cli.ui.report_view import print_report

        out = _text_output(wishes.output)
        print_report(figures, next_steps, out, os.environ)
        if isinstance(out, StringIO):
            _write(wishes.output, [out.getvalue()])


def write_comparison(paths: tuple[str, str], output: str | None, form: str | None, options: SourceOptions) -> None:
    """Read two outputs and write what changed; raises as `write_report` does."""
    from mellea_cli.report.comparison import compare, comparison_to_json, comparison_to_markdown
    from mellea_cli.report.results import open_results

    if paths == ("-", "-"):
        raise UsageError("both files cannot come from stdin", hint="name at least one of them: mellea compare OLD -")
    chosen = _form(output, form, ("text", "md", "json"))
    _check_output(output, paths)
    with open_results(paths[0], options) as old, open_results(paths[1], options) as new:
        comparison = compare(old, new)
    if chosen == "json":
        _write(output, [comparison_to_json(comparison)])
    elif chosen == "md":
        _write(output, [comparison_to_markdown(comparison, "What changed")])
    else:
        from mellea_cli.ui.report_view import print_comparison

        out = _text_output(output)
        print_comparison(comparison, out, os.environ)
        if isinstance(out, StringIO):
            _write(output, [out.getvalue()])


def _form(output: str | None, wanted: str | None, known: tuple[str, ...]) -> str:
    if wanted is not None:
        return wanted
    if output is None or output == "-" or output.startswith("/dev/"):
        return "text"
    suffix = PurePath(output).suffix.lower()
    form = _SUFFIXES.get(suffix, "")
    if form in known:
        return form
    names = " or ".join(f".{name}" for name in known if name != "text")
    what = f"cannot be written as {suffix}" if suffix else "has no suffix that says what to write"
    raise UsageError(f"{output}: {what}", hint=f"name it {names}, or give --format")


def _check_output(output: str | None, inputs: Iterable[str]) -> None:
    from mellea_cli.io.files import same_file

    for path in inputs:
        if output not in (None, "-") and path != "-" and same_file(str(output), path):
            raise UsageError(f"{path}: is the input and the output at once", hint="choose another file with -o")


def _title(wishes: ReportWishes) -> str:
    if wishes.title:
        return wishes.title
    name = PurePath(wishes.results).name
    return "Feedback" if wishes.results == "-" else f"Feedback in {name}"


def _next_steps(wishes: ReportWishes, figures: Figures, form: str) -> list[str]:
    """What to type next: how to get themes, and the page."""
    if not figures.rows or wishes.results == "-":
        return []
    name = shlex.quote(wishes.results)
    if figures.labels is None:
        steps = [f"mellea themes {name} -o themes.jsonl", "mellea report themes.jsonl -o report.html"]
        return steps if form == "html" else steps[:1]
    return [f"mellea report {name} -o report.html"] if form == "text" else []


def _html(
    wishes: ReportWishes, figures: Figures, records: list[Record], columns: list[str], next_steps: list[str]
) -> Iterable[str]:
    from datetime import datetime

    from mellea_cli.report.html_report import to_html

    written = datetime.now().astimezone().replace(microsecond=0)
    return to_html(figures, records, columns, title=_title(wishes), written=written, next_steps=next_steps)


def _text_output(output: str | None) -> IO[str]:
    """Where the picture is drawn: at stdout, or into memory for a file."""
    return sys.stdout if output in (None, "-") else StringIO()


def _write(output: str | None, pieces: Iterable[str]) -> None:
    from mellea_cli.io.files import atomic_write, resolve_output

    sys.stdout.flush()
    atomic_write(resolve_output(output), pieces)


ReportFormat = Literal["text", "html", "md", "json"]
_SHOWN = "Report"


def report(
    results: Annotated[
        str, typer.Argument(metavar="RESULTS", help="What mellea summarise or themes wrote; - for stdin.")
    ],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="A file (.html .md .json) or - for stdout.", rich_help_panel=OUTPUT),
    ] = None,
    format: Annotated[
        ReportFormat | None,
        typer.Option("--format", help="Instead of the output's suffix; text at a terminal.", rich_help_panel=OUTPUT),
    ] = None,
    title: Annotated[
        str | None, typer.Option("--title", help="What stands at the top.", rich_help_panel=OUTPUT)
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option("--by", metavar="COLUMN", help="Split by this column. Repeatable.", rich_help_panel=_SHOWN),
    ] = None,
    date: Annotated[
        str | None,
        typer.Option(
            "--date", metavar="COLUMN", help="The date; by default created_at, date, …", rich_help_panel=_SHOWN
        ),
    ] = None,
    month_first: Annotated[
        bool | None,
        typer.Option(
            "--month-first/--day-first",
            help="How to read 03/04/2026; by default as the column's other dates say.",
            rich_help_panel=_SHOWN,
            show_default=False,
        ),
    ] = None,
    themes_file: Annotated[
        str | None,
        typer.Option(
            "--themes-file",
            help="TOML with the themes' definitions and order; by default RESULTS.toml, if there.",
            rich_help_panel=_SHOWN,
        ),
    ] = None,
    input_format: Annotated[
        FormatName | None,
        typer.Option("--input-format", help="Instead of the suffix or first bytes of RESULTS.", rich_help_panel=INPUT),
    ] = None,
    text_field: Annotated[
        str | None, typer.Option("--text-field", help="Column with the feedback itself.", rich_help_panel=INPUT)
    ] = None,
    id_field: Annotated[
        str | None, typer.Option("--id-field", help="Column with the id; by default id.", rich_help_panel=INPUT)
    ] = None,
    encoding: Annotated[
        str | None, typer.Option("--encoding", help="Of RESULTS; by default UTF-8.", rich_help_panel=INPUT)
    ] = None,
    delimiter: Annotated[
        str | None, typer.Option("--delimiter", "-d", help="Between CSV columns.", rich_help_panel=INPUT)
    ] = None,
) -> None:
    """What a finished run says: sentiment, urgency, themes, trends, quotes.

    Without -o one screen at the terminal; with -o report.html one page that needs nothing but itself.
    """
    from mellea_cli.io.source import SourceOptions

    options = SourceOptions(
        format=input_format, text_field=text_field, id_field=id_field, encoding=encoding, delimiter=delimiter
    )
    write_report(ReportWishes(results, output, format, title, tuple(by or ()), date, month_first, themes_file), options)
