"""The command `mellea`: its subcommands, and what holds for all of them."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from mellea_cli.cli.error_boundary import boundary

# How help looks: plain sections in two columns, headings in bold at a terminal.
#
# Drawn with the command line library's own formatter: Rich's tables would take longer than all the rest of a start.

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


@dataclass(frozen=True, slots=True)
class Listed:
    """A subcommand as the help lists it, before its module is loaded.

    Args:
        home: its module and the name in it, a function or a Typer app.
        about: its line in the help.
        hidden: whether it is left out there.
    """

    home: str
    about: str
    hidden: bool = False


COMMANDS: Mapping[str, Listed] = {
    "summarise": Listed("summarise:summarise", "Summary, sentiment and issues for each piece of feedback."),
    "summarize": Listed("summarise:summarise", "Another spelling of summarise.", hidden=True),
    "themes": Listed("themes:themes", "Themes over the complaints and praise in RESULTS, and which rows they are in."),
    "report": Listed("report:report", "What a finished run says: sentiment, urgency, themes, trends, quotes."),
    "compare": Listed("compare:compare", "What changed between two finished runs."),
    "chat": Listed("chat:chat", "Talk with a model; ask about files, or about what mellea summarise has written."),
    "jobs": Listed("jobs:jobs_app", "List and cancel what --offload has handed to a batch queue."),
    "models": Listed("models:models_app", "List, fetch and remove the embedded backend's models."),
    "doctor": Listed("doctor:doctor", "Show version, settings, backends, models and terminal."),
}
"""The subcommands, in the order in which the help shows them."""


class LazyCommands(MutableMapping[str, Any]):
    """Subcommands by name; each is built from its module when it is asked for."""

    def __init__(self, listed: Mapping[str, Listed]) -> None:
        self._listed = dict(listed)
        self._built: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._built:
            self._built[name] = _build(name, self._listed[name])
        return self._built[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._listed[name] = Listed("", command.get_short_help_str(), command.hidden)
        self._built[name] = command

    def __delitem__(self, name: str) -> None:
        del self._listed[name]
        self._built.pop(name, None)

    def __contains__(self, name: object) -> bool:
        return name in self._listed

    def __iter__(self) -> Iterator[str]:
        return iter(self._listed)

    def __len__(self) -> int:
        return len(self._listed)


def _build(name: str, listed: Listed) -> Any:
    module, attribute = listed.home.split(":")
    command = getattr(importlib.import_module(f"mellea_cli.cli.{module}"), attribute)
    if not isinstance(command, typer.Typer):
        alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
        alone.command(name, cls=HelpedCommand, hidden=listed.hidden)(command)
        command = alone
    built = typer.main.get_command(command)
    built.name = name
    return built


class BoundedGroup(TyperGroup):
    """A group of commands in which every error ends at the boundary, and of which only the wanted one is loaded."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = LazyCommands(COMMANDS)

    def invoke(self, ctx: Any) -> Any:
        """Run the command inside the boundary."""
        with boundary():
            return super().invoke(ctx)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the subcommands, then the flags that hold without one."""
        write_section(formatter, "Commands", list(_visible()))
        write_flags(self.get_params(ctx), ctx, formatter)

    def main(self, *args: Any, **settings: Any) -> Any:
        """Run the program, or answer a shell that wants a completion."""
        if "_MELLEA_COMPLETE" in os.environ:
            _know_shells()
        return super().main(*args, **settings)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Complete a subcommand's name without loading it."""
        from typer.core import CompletionItem  # type: ignore[attr-defined]  # Typer has no public name for it

        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [CompletionItem(name, help=about) for name, about in _visible() if name.startswith(incomplete)]


def _know_shells() -> None:
    """Let Typer register the shells it can complete for; it does so by itself only where its own flags are used."""
    from typer.completion import get_completion_inspect_parameters

    get_completion_inspect_parameters()


def _visible() -> Iterator[tuple[str, str]]:
    return ((name, listed.about) for name, listed in COMMANDS.items() if not listed.hidden)


app = typer.Typer(
    name="mellea",
    cls=BoundedGroup,
    help="Run a pile of feedback through a language model: summaries, sentiment and issues.",
    no_args_is_help=True,
    # Typer's own flags for help and completion load what converts values at every start; ours, below, do not.
    add_help_option=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=HELP,
)


def _show_version(value: bool) -> None:
    if value:
        from mellea_cli import __version__

        typer.echo(f"mellea {__version__}")
        raise typer.Exit(0)


def _show_help(ctx: typer.Context, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        typer.echo(ctx.get_help())
        raise typer.Exit(0)


def _install_completion(ctx: typer.Context, parameter: Any, value: bool) -> None:
    if value:
        from typer.completion import install_callback

        _know_shells()
        install_callback(ctx, parameter, value)


def _show_completion(ctx: typer.Context, parameter: Any, value: bool) -> None:
    if value:
        from typer.completion import show_callback

        _know_shells()
        show_callback(ctx, parameter, value)


@app.callback()
def configure(
    ctx: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool, typer.Option("--version", help="Show the version and leave.", is_eager=True, callback=_show_version)
    ] = False,
    install_completion: Annotated[  # noqa: ARG001 - as above
        bool,
        typer.Option("--install-completion", help="Install completion for this shell.", callback=_install_completion),
    ] = False,
    show_completion: Annotated[  # noqa: ARG001 - as above
        bool,
        typer.Option("--show-completion", help="Print this shell's completion script.", callback=_show_completion),
    ] = False,
    help_: Annotated[  # noqa: ARG001 - as above
        bool, typer.Option("--help", "-h", help="Show this help and leave.", is_eager=True, callback=_show_help)
    ] = False,
) -> None:
    """Run a pile of feedback through a language model: summaries, sentiment and issues."""
    from mellea_cli.cli.settings import config_path, defaults_for, read_config

    path = config_path()
    if config := read_config(path):
        group: Any = ctx.command
        commands = {
            name: frozenset(parameter.name for parameter in command.params if parameter.name != "help")
            for name, command in group.commands.items()
        }
        lists = {
            name: frozenset(parameter.name for parameter in command.params if getattr(parameter, "multiple", False))
            for name, command in group.commands.items()
        }
        ctx.default_map = defaults_for(config, commands, path, lists)


def run() -> None:
    """Run the command line."""
    app(prog_name="mellea")
