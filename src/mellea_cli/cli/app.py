"""The command `mellea`: its subcommands, and what holds for all of them."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mellea_cli.cli.boundary import boundary
from mellea_cli.cli.chat import chat
from mellea_cli.cli.doctor import doctor
from mellea_cli.cli.models import models_app
from mellea_cli.cli.summarise import summarise


class BoundedGroup(TyperGroup):
    """A group of commands in which every error ends at the boundary."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command inside the boundary."""
        with boundary():
            return super().invoke(ctx)


app = typer.Typer(
    name="mellea",
    cls=BoundedGroup,
    help="Run a pile of feedback through a language model: summaries, sentiment and issues.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> None:
    if value:
        from mellea_cli import __version__

        typer.echo(f"mellea {__version__}")
        raise typer.Exit(0)


@app.callback()
def configure(
    ctx: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool, typer.Option("--version", help="Show the version and leave.", is_eager=True, callback=_show_version)
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
        ctx.default_map = defaults_for(config, commands, path)


app.command("summarise")(summarise)
app.command("summarize", hidden=True, help="Another spelling of summarise.")(summarise)
app.command("chat")(chat)
app.add_typer(models_app, name="models")
app.command("doctor")(doctor)


def main() -> None:
    """Run the command line."""
    app(prog_name="mellea")
