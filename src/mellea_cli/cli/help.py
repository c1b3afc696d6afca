"""How help looks: plain sections in two columns, headings in bold at a terminal.

Drawn with the command line library's own formatter: Rich's tables would take longer than all the rest of a start.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import typer
from typer.core import TyperCommand

WIDTH = 100
"""The widest help in columns; a narrower terminal gets narrower help."""
HELP = {"help_option_names": ["-h", "--help"], "max_content_width": WIDTH}
"""Context settings of every command."""

_NAMES_WIDTH = 32


class HelpedCommand(TyperCommand):
    """A command whose help shows its flags by the panel they stand in."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        settings["rich_markup_mode"] = None
        settings["context_settings"] = {**HELP, **(settings.get("context_settings") or {})}
        super().__init__(*args, **settings)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then the flags panel by panel."""
        write_flags(self.get_params(ctx), ctx, formatter)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line; for a completion without converting values, which would load what converts them."""
        if not ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        values, ctx.args, _ = self.make_parser(ctx).parse_args(args=list(args))
        ctx.params = {parameter.name: values.get(parameter.name) for parameter in self.get_params(ctx)}
        return list(ctx.args)


def write_flags(parameters: Iterable[Any], ctx: Any, formatter: Any) -> None:
    """Write what a command takes, in sections: arguments first, then each panel of flags."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for parameter in parameters:
        record = parameter.get_help_record(ctx)
        if record is None:
            continue
        argument = parameter.param_type_name == "argument"
        panel = "Arguments" if argument else getattr(parameter, "rich_help_panel", None) or "Options"
        sections.setdefault(panel, []).append((_names(record[0]), record[1]))
    # The help flag is the last one: it must not open a section of its own before the others.
    for panel in sorted(sections, key=lambda name: (name != "Arguments", name == "Options")):
        write_section(formatter, panel, sections[panel])


def write_section(formatter: Any, heading: str, rows: list[tuple[str, str]]) -> None:
    """Write one section in two columns."""
    with formatter.section(bold(heading)):
        formatter.write_dl(rows, col_max=_NAMES_WIDTH)


def _names(written: str) -> str:
    """The names of a flag and what it takes, without what is only the library's word for it."""
    return written.replace(" range>", ">").replace("<str>", "<text>").replace("<int>", "<n>").replace("<float>", "<n>")


def bold(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """`text` in bold where the help goes to a terminal that wants it."""
    plain = environ.get("NO_COLOR") or environ.get("TERM") == "dumb" or not sys.stdout.isatty()
    return text if plain else typer.style(text, bold=True)
