"""Where the command begins: what can be answered without the command line's library is answered first."""

from __future__ import annotations

import sys


def main() -> None:
    """Run `mellea`."""
    if sys.argv[1:] == ["--version"]:
        from mellea_cli import __version__

        sys.stdout.write(f"mellea {__version__}\n")
        return
    from mellea_cli.cli.app import run

    run()
