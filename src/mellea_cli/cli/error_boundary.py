"""Where errors end: one line for the user, the next step, an exit code; a bug leaves a report file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from mellea_cli.errors import ExitCode, MelleaError, ReaderGone


@contextmanager
def boundary() -> Iterator[None]:
    """Turn what is raised inside into an exit code and, where there is something to say, one line on stderr.

    Expected errors say what happened and what to do next. An interruption exits with 130. Anything else is a bug of
    ours: its traceback goes into a report file and only the file's name to the screen.
    """
    try:
        yield
    except ReaderGone:
        # The reader has what it wanted (`| head`): nothing to say.
        _forget_stdout()
        raise typer.Exit(ExitCode.READER_GONE) from None
    except MelleaError as error:
        _say_error(error.message, error.hint)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt:
        _say_error("interrupted", "")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    except BrokenPipeError:
        _forget_stdout()
        raise typer.Exit(ExitCode.READER_GONE) from None
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        if _is_usage(error):
            _say_error(*_usage(error))
            raise typer.Exit(ExitCode.USAGE) from error
        words = _without_key(f"this is a bug in mellea: {type(error).__name__}: {error}")
        _say_error(words, f"the report is in {_report(error)}")
        raise typer.Exit(ExitCode.BUG) from error


def _is_usage(error: Exception) -> bool:
    """Whether Typer itself knows how to show this error."""
    return hasattr(error, "format_message") and hasattr(error, "exit_code")


def _usage(error: Any) -> tuple[str, str]:
    """What is wrong with a command line, a variable or a setting, in one line, and where the value came from."""
    message = " ".join(error.format_message().split())
    ctx, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    if ctx is not None and parameter is not None:
        source = getattr(ctx.get_parameter_source(parameter.name), "name", "")
        if source == "ENVIRONMENT":
            message += f" (from {parameter.envvar})"
        elif source == "DEFAULT_MAP":
            message += " (from the configuration file)"
    command = ctx.command_path if ctx is not None else "mellea"
    return message.rstrip("."), f"{command} --help"


def _say_error(message: str, hint: str) -> None:
    import os

    from mellea_cli.ui.console import say_error

    say_error(sys.stderr, os.environ, message, hint)


def _without_key(text: str) -> str:
    import os

    from mellea_cli.backends.security import Secrets

    return Secrets.from_environ(os.environ).scrub(text)


def _forget_stdout() -> None:
    # Python flushes stdout once more at exit, which would complain about the closed pipe.
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(error: BaseException) -> Path:
    """Write everything a developer needs, and nothing of the user's data, to a file."""
    import platform
    import tempfile
    import traceback
    from datetime import UTC, datetime

    from mellea_cli import __version__

    now = datetime.now(UTC)
    lines = [
        f"mellea {__version__}, Python {platform.python_version()}, {platform.platform()}",
        f"{now.isoformat(timespec='seconds')}",
        f"arguments: {sys.argv[1:]}",
        "",
        *traceback.format_exception(error),
    ]
    name = f"mellea-bug-{now:%Y%m%d-%H%M%S}.txt"
    for folder in (_state_folder(), Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / name
            path.touch(mode=0o600)
            path.write_text(_without_key("\n".join(lines)), encoding="utf-8", errors="backslashreplace")
        except OSError:
            continue
        return path
    return Path("(it could not be written)")


def _state_folder() -> Path:
    from platformdirs import user_state_path

    return user_state_path("mellea")
