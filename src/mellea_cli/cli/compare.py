"""`mellea compare`: what changed between two finished runs."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from mellea_cli.cli.flags import INPUT, OUTPUT

ComparisonFormat = Literal["text", "md", "json"]


def compare(
    old: Annotated[str, typer.Argument(metavar="OLD", help="What mellea summarise or themes wrote earlier.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="What it wrote now.")],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="A file (.md .json .txt) or - for stdout.", rich_help_panel=OUTPUT),
    ] = None,
    format: Annotated[
        ComparisonFormat | None,
        typer.Option("--format", help="Instead of the output's suffix; text at a terminal.", rich_help_panel=OUTPUT),
    ] = None,
    text_field: Annotated[
        str | None, typer.Option("--text-field", help="Column with the feedback itself.", rich_help_panel=INPUT)
    ] = None,
    id_field: Annotated[
        str | None, typer.Option("--id-field", help="Column with the id; by default id.", rich_help_panel=INPUT)
    ] = None,
) -> None:
    """What changed between two finished runs.

    Counts and shares of sentiment, urgency and themes, up and down, and rows that came and went. Rows are the same
    when their ids are, or their texts where there are no ids.
    """
    from mellea_cli.cli.report import write_comparison
    from mellea_cli.io.source import SourceOptions

    write_comparison((old, new), output, format, SourceOptions(text_field=text_field, id_field=id_field))
