"""`mellea themes`; its flags are in `mellea_cli.cli.flags`."""

from __future__ import annotations

import typer

from mellea_cli.cli.summarise import RunOptions, batch_command
from mellea_cli.errors import ExitCode


@batch_command(
    "themes",
    inputs=typer.Argument(metavar="RESULTS...", help="Output of mellea summarise; - for stdin.", show_default=False),
)
def themes(options: RunOptions) -> ExitCode:
    """Find themes in complaints and praise, and label every row of RESULTS with them.

    With --theme-field the texts of any other column take their place, such as those of an own field.

    The same command again asks only for rows that are missing, failed, or affected by an edit of the themes file.

    With --propose it suggests changes of that file in FILE.proposal.toml. With --accept it makes those changes.
    """
    from mellea_cli.cli.theme_run import accept, run_themes

    return run_themes(options) if options.accept is None else accept(options)
