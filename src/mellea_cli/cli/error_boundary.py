"""Where errors end: one line for the user, the next step, an exit code. An unexpected error leaves a report file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mellea_cli.errors import ExitCode, MelleaError, ReaderGone, error_record

if TYPE_CHECKING:
    from mellea_cli.backends.security import Secrets

NO_META: Mapping[str, Any] = {}


@contextmanager
def boundary(meta: Mapping[str, Any] = NO_META) -> Iterator[None]:
    """Turn every error into `typer.Exit` with the exit code, after at most one line and a hint on stderr.

    With `--json` it is one line of JSON. The traceback of an unexpected error goes to a report file; the screen names
    the file.

    Args:
        meta: Click's data of the running command: `key_file` names a file whose key must not be written anywhere, and
            `json` says that a program reads.
    """
    try:
        yield
    except (ReaderGone, BrokenPipeError):
        # The reader has what it wanted (`| head`): there is nothing to say.
        _discard_stdout()
        raise typer.Exit(ExitCode.READER_GONE) from None
    except MelleaError as error:
        _say_error(meta, error.record)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt:
        _say_error(meta, error_record("interrupted", "interrupted", "", ExitCode.INTERRUPTED))
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()  # type: ignore[attr-defined]  # Typer's own Click has no public name for it
            raise typer.Exit(ExitCode.USAGE) from None
        if is_click_error(error):
            _say_error(meta, error_record("usage", *describe_click_error(error), ExitCode.USAGE))
            raise typer.Exit(ExitCode.USAGE) from error
        from mellea_cli.backends.security import KEY_FILE, Secrets

        secrets = Secrets(meta.get("key_file") or os.environ.get(KEY_FILE, ""), os.environ)
        message = secrets.scrub(f"this is a bug in mellea: {type(error).__name__}: {error}")
        path = _write_report(error, secrets)
        _say_error(meta, error_record("bug", message, f"the report is in {path}", ExitCode.BUG))
        raise typer.Exit(ExitCode.BUG) from error


def is_click_error(error: Exception) -> bool:
    """Whether Click raised this error about the command line, a variable or the configuration file."""
    return hasattr(error, "format_message") and hasattr(error, "exit_code")


def describe_click_error(error: Any) -> tuple[str, str]:
    """What is wrong, in one line with the source of the value, and the command that shows the flags."""
    message = " ".join(error.format_message().split())
    ctx, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    if ctx is not None and parameter is not None:
        source = getattr(ctx.get_parameter_source(parameter.name), "name", "")
        if source == "ENVIRONMENT":
            message += f" (from {parameter.envvar})"
        elif source == "DEFAULT_MAP":
            from mellea_cli.cli.settings import config_path

            message += f" (from the configuration file {config_path()})"
    command = ctx.command_path if ctx is not None else "mellea"
    every = getattr(getattr(ctx, "command", None), "has_short_help", False)
    return message.rstrip("."), f"{command} --help{'-all' if every else ''}"


def _say_error(meta: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    from mellea_cli.ui.console import say_error, say_record

    if meta.get("json"):
        say_record(sys.stderr, record)
    else:
        told = record["error"]
        say_error(sys.stderr, os.environ, told["message"], told["hint"] or "")


def asks_for_json(arguments: Sequence[str]) -> bool:
    """Whether `--json` is among the arguments: errors in the other ones are told as JSON, too."""
    flags = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return any(one == "--json" or one.startswith("--json=") for one in flags)


def _discard_stdout() -> None:
    # Python flushes stdout once more at exit, which would complain about the closed pipe.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _write_report(error: BaseException, secrets: Secrets) -> Path:
    """Write what a developer needs, and none of the user's data, to a private file."""
    import platform
    import tempfile
    import traceback
    from datetime import UTC, datetime

    from platformdirs import user_state_path

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
    for folder in (user_state_path("mellea"), Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / name
            path.touch(mode=0o600)
            path.write_text(secrets.scrub("\n".join(lines)), encoding="utf-8", errors="backslashreplace")
        except OSError:
            continue
        return path
    return Path("(it could not be written)")
