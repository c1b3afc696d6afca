"""`mellea report`: what a finished run says, on one screen, as a page, as Markdown or as figures."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from mellea_cli.cli.options import INPUT, OUTPUT, FormatName

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
    from mellea_cli.cli.reporting import ReportWishes, write_report
    from mellea_cli.io.options import SourceOptions

    options = SourceOptions(
        format=input_format, text_field=text_field, id_field=id_field, encoding=encoding, delimiter=delimiter
    )
    write_report(ReportWishes(results, output, format, title, tuple(by or ()), date, month_first, themes_file), options)
