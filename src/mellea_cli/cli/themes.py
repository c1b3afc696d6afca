"""`mellea themes`: what a pile of summarised feedback is about, counted to the row.

Its flags are those of `mellea summarise`, which stand there once, and a few of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from mellea_cli.cli.flags import flag
from mellea_cli.cli.summarise import summarise

THEMES = "Themes"

# Themes are found and labelled live, by one process: the queue of a provider and a cluster are ways of `summarise`.
_NOT_HERE = (
    "pipeline",
    "offload",
    "wait",
    "export_batch",
    "import_batch",
    "batch_requests",
    "batch_bytes",
    "batch_window",
    "batch_poll",
    "engine",
    "ray_address",
    "ray_workers",
)


def _with_flags_of(other: Callable[..., None], *, without: tuple[str, ...]) -> Callable[[Callable[..., None]], Any]:
    """Give a command the flags of another one, after its own; Typer reads them from the signature."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True).parameters
        named = [one for one in own.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
        shared = inspect.signature(other, eval_str=True).parameters
        more = [one for name, one in shared.items() if name not in own and name not in without]
        parameters = [*named, *more]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # functions take attributes
        command.__annotations__ = {one.name: one.annotation for one in parameters}
        return command

    return decorate


@_with_flags_of(summarise, without=_NOT_HERE)
def themes(
    ctx: typer.Context,
    input: Annotated[
        str | None,
        typer.Argument(metavar="RESULTS", help="What mellea summarise wrote; - for stdin.", show_default=False),
    ] = None,
    themes_file: Annotated[
        str | None,
        flag(THEMES, "--themes-file", help="TOML with the themes: used as it is, or written; by default OUTPUT.toml."),
    ] = None,
    max_themes: Annotated[
        int, flag(THEMES, "--max-themes", min=1, max=50, help="Find so many at most, complaints and praise together.")
    ] = 12,
    find_only: Annotated[
        bool, flag(THEMES, "--find-only", help="Write the themes file and stop, so that it can be edited first.")
    ] = False,
    **_: Any,
) -> None:
    """Themes over the complaints and praise in RESULTS, and which rows they are in.

    Typed again, the same command asks only for what is missing, failed, or changed by an edit of the themes file.
    """
    from mellea_cli.cli.batch_run import stdin_has_data, stdin_is_terminal
    from mellea_cli.cli.flags import Flags
    from mellea_cli.cli.pools import weighed
    from mellea_cli.cli.theme_run import ThemeFlags, label_rows

    usual = inspect.signature(summarise).parameters
    parameters = {
        **{name: usual[name].default for name in _NOT_HERE},
        **weighed(ctx.params, ctx.get_parameter_source),
        "pipeline": "themes",
    }
    if parameters["input"] is None:
        if stdin_is_terminal() and not parameters["nightly"]:
            typer.echo(ctx.get_help())
            raise typer.Exit(0)
        # A forgotten input, as under a scheduler, is refused where every other error is.
        parameters["input"] = "-" if stdin_has_data() else ""
    flags = Flags.read(parameters)
    own = ThemeFlags(parameters["themes_file"], parameters["max_themes"], parameters["find_only"])
    raise typer.Exit(label_rows(flags, own))
