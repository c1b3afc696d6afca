"""The command `mellea`: its subcommands, the look of help, and what holds for all commands."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from mellea_cli.cli.error_boundary import asks_for_json, boundary
from mellea_cli.errors import MelleaError


@dataclass(frozen=True, slots=True)
class CommandEntry:
    """A subcommand in the help, before its module is loaded.

    Args:
        location: its module and the name in it: a function or a Typer app.
        summary: its line in the help.
        hidden: whether the help omits it.
    """

    location: str
    summary: str
    hidden: bool = False


COMMANDS: Mapping[str, CommandEntry] = {
    "summarise": CommandEntry("summarise:summarise", "Write a summary, the sentiment and the issues for each row."),
    "summarize": CommandEntry("summarise:summarise", "Another spelling of summarise.", hidden=True),
    "run": CommandEntry("run:run", "Your own fields for each row of INPUT."),
    "watch-folder": CommandEntry(
        "watch_folder:watch_folder", "Process each file that appears in DIR once, when it is complete."
    ),
    "pipeline": CommandEntry(
        "pipeline_file:pipeline_app", "Write, check, show and try a pipeline file: your own fields."
    ),
    "themes": CommandEntry(
        "themes:themes", "Find themes in complaints and praise, and label every row of RESULTS with them."
    ),
    "report": CommandEntry("report:report", "Show a finished run: sentiment, urgency, themes, trends, quotes."),
    "show": CommandEntry("report:show", "Show the rows of a finished run: search, sort, select."),
    "export": CommandEntry("report:export", "Write rows of a finished run to a file of another format."),
    "compare": CommandEntry("report:compare", "Show what changed between two finished runs."),
    "status": CommandEntry("runs:status", "Show the current runs on this machine."),
    "pause": CommandEntry("runs:pause", "Pause a run: requests in flight are finished."),
    "resume": CommandEntry("runs:resume", "Continue a paused run."),
    "stop": CommandEntry("runs:stop", "Stop a run as Ctrl-C does."),
    "tune": CommandEntry("runs:tune", "Change the limits of a running run."),
    "runs": CommandEntry("runs:runs", "Show the latest runs on this machine."),
    "review": CommandEntry("review:review", "Judge a random sample and the doubtful rows of a finished run."),
    "evaluate": CommandEntry("review:evaluate", "Say how right a run is, by gold labels or by its review."),
    "watch": CommandEntry(
        "watch:watch", "Compare two finished runs, and exit with 10 when a condition holds beyond chance."
    ),
    "chat": CommandEntry("chat:chat", "Talk with a model; ask about files or about the output of mellea summarise."),
    "jobs": CommandEntry("jobs:jobs_app", "List and cancel batches that --offload has submitted."),
    "models": CommandEntry("models:models_app", "List, download and remove the embedded backend's models."),
    "help": CommandEntry(
        "help_pages:help_command", "Show a short page: exit codes, variables, settings, formats, filters, or a command."
    ),
    "skill": CommandEntry("agents:skill", "Print a SKILL.md for coding agents."),
    "mcp": CommandEntry("agents:mcp", "Serve feedback to an assistant over the Model Context Protocol."),
    "doctor": CommandEntry("doctor:doctor", "Show version, settings, backends, models and terminal."),
}
"""The subcommands, in the order of the help."""


# Help in plain sections of two columns, headings in bold at a terminal. It is drawn with Click's own formatter: Rich's
# tables take longer than all the rest of a start.

HELP_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}  # Context settings of every command

_NAMES_WIDTH = 32


class UsualPanel(str):
    """The panel of a flag that most people need: the short help of a command with many flags has only these."""

    __slots__ = ()


def flag_sections(parameters: Iterable[Any], ctx: Any) -> list[tuple[str, list[tuple[str, str]]]]:
    """Arguments, then flags panel by panel: spellings and text of each."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for parameter in parameters:
        record = parameter.get_help_record(ctx)
        if record is None:
            continue
        argument = parameter.param_type_name == "argument"
        panel = "Arguments" if argument else getattr(parameter, "rich_help_panel", None) or "Options"
        names, text = record
        for word, plain in ((" range>", ">"), ("<str>", "<text>"), ("<int>", "<n>"), ("<float>", "<n>")):
            names = names.replace(word, plain)
        # Click puts a default that is given as text into parentheses.
        text = re.sub(r"\[default: \((\w+)\)", r"[default: \1", text)
        sections.setdefault(panel, []).append((names, text))
    # Click adds the help flag last; its section must not come before the others.
    return sorted(sections.items(), key=lambda one: (one[0] != "Arguments", one[0] == "Options"))


def _write_flags(parameters: Iterable[Any], ctx: Any, formatter: Any) -> None:
    for panel, rows in flag_sections(parameters, ctx):
        _write_section(formatter, panel, rows)


def _is_usual(parameter: Any) -> bool:
    argument = parameter.param_type_name == "argument"
    return argument or isinstance(getattr(parameter, "rich_help_panel", None), UsualPanel) or parameter.name == "help"


def styled_heading(text: str) -> str:
    """A heading on stdout: in bold at a terminal."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty()
    return text if plain else typer.style(text, bold=True)


def _write_section(formatter: Any, heading: str, rows: list[tuple[str, str]]) -> None:
    with formatter.section(styled_heading(heading)):
        formatter.write_dl(rows, col_max=_NAMES_WIDTH)


def _show_first_minute(command: str) -> None:
    """Show what the program, or a command, does and end; nothing for a command that has no such page."""
    from mellea_cli.cli.help_pages import first_minute, has_first_minute

    name = "summarise" if command == "summarize" else command
    if has_first_minute(name):
        typer.echo(first_minute(name))
        raise typer.Exit(0)


class SectionedCommand(TyperCommand):
    """A command with help in sections, and with completion that loads nothing heavy."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        settings["rich_markup_mode"] = None
        settings["context_settings"] = {**HELP_SETTINGS, **(settings.get("context_settings") or {})}
        super().__init__(*args, **settings)

    @property
    def has_short_help(self) -> bool:
        """Whether `--help` shows only the usual flags: where there are several, not only one that commands share."""
        return sum(isinstance(getattr(one, "rich_help_panel", None), UsualPanel) for one in self.params) > 2

    def format_options(self, ctx: Any, formatter: Any) -> None:
        parameters = self.get_params(ctx)
        if not self.has_short_help or ctx.meta.get("help_all"):
            _write_flags(parameters, ctx, formatter)
            return
        _write_flags([one for one in parameters if _is_usual(one)], ctx, formatter)
        others = len([one for one in parameters if not _is_usual(one)])
        formatter.write(f"\n{ctx.command_path} --help-all shows {others} more flags; mellea help lists topics.\n")

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:
            if not args and sys.stdout.isatty() and sys.stdin is not None and sys.stdin.isatty():
                _show_first_minute(self.name or "")
            flags = args[: args.index("--")] if "--" in args else args
            if "--help-all" in flags:
                ctx.meta["help_all"] = True
                args = ["--help"]
            return super().parse_args(ctx, args)
        # A completion needs no converted values, and what converts them is slow to load.
        # Without the flag whose value is completed: the parser gives up where that is missing.
        whole = args[:-1] if args and args[-1].startswith("-") else args
        values, ctx.args, _ = self.make_parser(ctx).parse_args(args=list(whole))
        ctx.params = {parameter.name: values.get(parameter.name) for parameter in self.get_params(ctx)}
        return list(ctx.args)


class LazyCommands(Mapping[str, Any]):
    """Subcommands by name; each one's module is loaded when it is asked for."""

    def __init__(self, entries: Mapping[str, CommandEntry]) -> None:
        self._entries = entries
        self._built: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._built:
            self._built[name] = self._build(name, self._entries[name])
        return self._built[name]

    def _build(self, name: str, entry: CommandEntry) -> Any:
        module, attribute = entry.location.split(":")
        command = getattr(importlib.import_module(f"mellea_cli.cli.{module}"), attribute)
        if not isinstance(command, typer.Typer):
            single = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
            single.command(name, cls=SectionedCommand, hidden=entry.hidden)(command)
            command = single
        built = typer.main.get_command(command)
        built.name = name
        return built

    def __contains__(self, name: object) -> bool:
        # The inherited one would load the module.
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


class LazyGroup(TyperGroup):
    """The group of all commands: loads only the one that runs, and every error ends at the boundary."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = LazyCommands(COMMANDS)  # type: ignore[assignment]  # no command is added or removed

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta["json"] = asks_for_json(args)
        if not args and not ctx.resilient_parsing and sys.stdout.isatty():
            _show_first_minute("")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        with boundary(ctx.meta):
            return super().invoke(ctx)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _write_section(formatter, "Commands", _visible_commands())
        _write_flags(self.get_params(ctx), ctx, formatter)

    def main(self, *args: Any, **settings: Any) -> Any:
        if "_MELLEA_COMPLETE" in os.environ:
            _register_shells()
        return super().main(*args, **settings)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        from typer.core import CompletionItem  # type: ignore[attr-defined]  # Typer has no public name for it

        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [CompletionItem(name, help=text) for name, text in _visible_commands() if name.startswith(incomplete)]


def _visible_commands() -> list[tuple[str, str]]:
    return [(name, entry.summary) for name, entry in COMMANDS.items() if not entry.hidden]


def _register_shells() -> None:
    # Typer registers the shells by itself only where its own completion flags are used.
    from typer.completion import get_completion_inspect_parameters

    get_completion_inspect_parameters()


app = typer.Typer(
    name="mellea",
    cls=LazyGroup,
    help="Run a large set of feedback through a language model: summaries, sentiment and issues.",
    no_args_is_help=True,
    # Typer's own flags for help and completion load what converts values at every start; those below do not.
    add_help_option=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=HELP_SETTINGS,
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


def command_group(summary: str, **more: Any) -> typer.Typer:
    """A group of commands, which shows its help when none of them is named."""
    group = typer.Typer(
        help=summary,
        invoke_without_command=True,
        context_settings=HELP_SETTINGS,
        add_completion=False,
        rich_markup_mode=None,
        **more,
    )
    group.callback()(_show_help_without_command)
    return group


def _show_help_without_command(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
        raise typer.Exit(0)


def _install_completion(ctx: typer.Context, parameter: Any, value: bool) -> None:
    if value:
        from typer.completion import install_callback

        _register_shells()
        install_callback(ctx, parameter, value)


def _show_completion(ctx: typer.Context, parameter: Any, value: bool) -> None:
    if value:
        from typer.completion import show_callback

        _register_shells()
        show_callback(ctx, parameter, value)


@app.callback()
def configure(
    ctx: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
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
        bool, typer.Option("--help", "-h", help="Show this help and exit.", is_eager=True, callback=_show_help)
    ] = False,
) -> None:
    """Run a large set of feedback through a language model: summaries, sentiment and issues."""
    from mellea_cli.cli.settings import config_path, default_map, read_config

    path = config_path()
    try:
        if config := read_config(path):
            ctx.default_map = default_map(config, ctx.command, path)
    except MelleaError as error:
        # The doctor reports it among the settings; every other command stops here.
        if ctx.invoked_subcommand != "doctor":
            raise
        ctx.obj = error


def run() -> None:
    """Run the command line."""
    app(prog_name="mellea")
