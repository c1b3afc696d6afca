"""`mellea compare`: what changed between two finished runs."""

# No `from __future__ import annotations`, see `mellea_cli.cli.flags`.

import os
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import typer

from mellea_cli.cli.flags import INPUT, OUTPUT, option, options_command
from mellea_cli.errors import ExitCode, UsageError

ComparisonFormat = Literal["text", "md", "json"]

_flag = partial(option, env=False)


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
    """What changed between two finished runs.

    Counts and shares of sentiment, urgency and themes, up and down, and rows that came and went. Rows are the same
    when their ids are, or their texts where there are no ids.
    """
    from mellea_cli.cli.report import check_output, output_format, write, write_text
    from mellea_cli.io.source import SourceOptions
    from mellea_cli.report.comparison import compare as compare_results
    from mellea_cli.report.comparison import comparison_to_json, comparison_to_markdown
    from mellea_cli.report.results import open_results
    from mellea_cli.ui.report_view import print_comparison

    if (flags.old, flags.new) == ("-", "-"):
        raise UsageError("both files cannot come from stdin", hint="name at least one of them: mellea compare OLD -")
    form = output_format(flags.output, flags.format, ("text", "md", "json"))
    check_output(flags.output, (flags.old, flags.new))
    options = SourceOptions(text_field=tuple(flags.text_field or ()), id_field=flags.id_field)
    with open_results(flags.old, options) as old, open_results(flags.new, options) as new:
        comparison = compare_results(old, new)
    if form == "json":
        write(flags.output, [comparison_to_json(comparison)])
    elif form == "md":
        write(flags.output, [comparison_to_markdown(comparison, "What changed")])
    else:
        write_text(flags.output, lambda out: print_comparison(comparison, out, os.environ))
    return ExitCode.OK
