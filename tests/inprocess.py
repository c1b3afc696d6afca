"""Run `mellea` inside the test's own process, with real descriptors for stdin, stdout and stderr."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from mellea_cli.cli.app import app
from rowfiles import Process


def run_in_process(
    arguments: Sequence[str], folder: Path, stdin: bytes | None = None, env: Mapping[str, str] | None = None
) -> Process:
    """Run `mellea ARGUMENTS` in `folder`, as a shell would see it: exit code, stdout and stderr.

    Typer's `CliRunner` replaces only `sys.stdin` and `sys.stdout`; the program reads and writes the descriptors.
    Without `stdin` the input is /dev/null.
    """
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        patch.chdir(folder)
        for name, value in (env or {}).items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["mellea", *arguments])
        with _process_state_restored(), _streams(patch, stdin, out.fileno(), err.fileno()):
            try:
                app(prog_name="mellea")
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return Process(["mellea", *arguments], code, *texts)


@contextlib.contextmanager
def _streams(patch: pytest.MonkeyPatch, stdin: bytes | None, out: int, err: int) -> Iterator[None]:
    """Put a pipe or /dev/null and two files in the place of the descriptors 0, 1 and 2."""
    writer: threading.Thread | None = None
    if stdin is None:
        source = os.open(os.devnull, os.O_RDONLY)
    else:
        source, into = os.pipe()
        writer = threading.Thread(target=_feed, args=(into, stdin))
        writer.start()
    saved = [os.dup(number) for number in range(3)]
    for number, descriptor in enumerate((source, out, err)):
        os.dup2(descriptor, number)
    os.close(source)
    try:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.FileIO(0, closefd=False), encoding="utf-8"))
        for number, name in ((1, "stdout"), (2, "stderr")):
            raw = io.BufferedWriter(io.FileIO(number, "w", closefd=False))
            errors = "strict" if number == 1 else "backslashreplace"
            patch.setattr(sys, name, io.TextIOWrapper(raw, encoding="utf-8", errors=errors, line_buffering=number == 2))
        yield
    finally:
        for number, descriptor in enumerate(saved):
            os.dup2(descriptor, number)
            os.close(descriptor)
        if writer is not None:
            writer.join()


def _feed(pipe: int, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), open(pipe, "wb") as file:
        file.write(data)


@contextlib.contextmanager
def _process_state_restored() -> Iterator[None]:
    """Restore what a command changes for the rest of its process: logging and the garbage collector."""
    logger, thresholds = logging.getLogger("mellea_cli"), gc.get_threshold()
    before = logger.level, logger.propagate, logger.handlers.copy()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
        logger.level, logger.propagate, logger.handlers[:] = before[0], before[1], before[2]
        logger.manager._clear_cache()  # type: ignore[attr-defined]  # as `Logger.setLevel` does
