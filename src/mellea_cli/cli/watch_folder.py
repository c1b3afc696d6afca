"""`mellea watch-folder`: each file that appears in a folder is processed once, when it is complete."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mellea_cli.cli.flags import source_options
from mellea_cli.cli.summarise import RunOptions, batch_command
from mellea_cli.errors import ExitCode, InputError, UsageError
from mellea_cli.extensions import extra_module

if TYPE_CHECKING:
    from mellea_cli.io.files import OutputTarget

_STATE_FILE = "watch-folder.json"
_RESULTS = "results"
_LOOK_MS = 500  # A folder on another machine tells nothing about its changes: it is looked at so often
_RETRY_S = 60.0  # After a run that a server has ended
_SETTLED = (ExitCode.OK, ExitCode.SOME_FAILED, ExitCode.USAGE)


@batch_command(
    "watch-folder",
    inputs=typer.Argument(metavar="DIR", help="Folder in which files appear.", show_default=False),
)
def watch_folder(options: RunOptions) -> ExitCode:
    """Process each file that appears in DIR once, when it is complete.

    The output of each file has its name, in DIR/results or --output-dir. A file that changes is processed again: only
    new rows are asked. After a restart what was processed is known. Ctrl-C ends it.
    """
    from mellea_cli.cli.run import chosen_pipeline
    from mellea_cli.io.files import OutputLock, resolve_output

    watchfiles = extra_module("watchfiles", "mellea watch-folder")
    for flag, given in (("--dry-run", options.dry_run), ("--estimate", options.estimate)):
        if given:
            raise UsageError(f"watch-folder has no {flag}", hint=f"try the files there are: mellea run … DIR {flag}")
    # What cannot be read is said now, not with the first file.
    options.caps()
    _ = options.target_agreement
    source_options(options, format=options.format, cells=options.range)
    folder = _folder(options)
    results = Path(options.output_dir or folder / _RESULTS)
    if os.path.realpath(results) == os.path.realpath(folder):
        raise UsageError(f"{results}: is the folder that is watched", hint="choose another --output-dir")
    pipeline = chosen_pipeline(options)
    from mellea_cli.cli.batch_run import check_several_outputs, make_folder, run_file

    check_several_outputs(options)
    make_folder(results)
    target = resolve_output(str(results / _STATE_FILE))
    options = replace(options, inputs=[str(folder)], output_dir=str(results))
    with OutputLock(target.lock, target.name):
        watched = _Watched(options, target, lambda one: run_file(one, pipeline))
        return _watch(watched, watchfiles, folder)


def _folder(options: RunOptions) -> Path:
    paths = options.inputs or []
    if len(paths) != 1:
        raise UsageError("watch-folder takes one folder", hint="mellea watch-folder DIR -p PIPELINE")
    folder = Path(paths[0])
    if not folder.is_dir():
        kind = "is no folder" if folder.exists() else "no such folder"
        raise InputError(kind, path=paths[0], hint="name the folder in which files appear")
    return folder


class _Watched:
    """The files of a watched folder, and which of them are processed, as the file `target` remembers."""

    def __init__(self, options: RunOptions, target: OutputTarget, run: Callable[[RunOptions], ExitCode]) -> None:
        self.options = options
        self.processed = 0
        self._target = target
        self._run = run
        self._known: dict[str, Any] = self._read()
        self._seen: dict[str, tuple[list[int], float]] = {}  # What is not complete yet: its state, and since when
        self._not_before = 0.0

    def step(self, stop: threading.Event) -> ExitCode:
        """Process the files that are complete; the exit code is that of a run that was interrupted, else 0."""
        from mellea_cli.cli.batch_run import output_name

        for path in self._complete():
            if stop.is_set() or time.monotonic() < self._not_before:
                break
            state = _state(path)
            if state is None:
                continue
            output = Path(self.options.output_dir or "") / output_name(str(path), self.options.output_format)
            if (other := self._owner(output.name, path.name)) is not None:
                self._say(f"{path}: not processed, as {other} has the output {output}; rename one of them")
                code = ExitCode.USAGE
            else:
                code = self._run(replace(self.options, inputs=[str(path)], output=str(output), output_dir=None))
            if code not in _SETTLED:
                if code != ExitCode.STOPPED_EARLY:
                    return code
                self._not_before = time.monotonic() + _RETRY_S
                self._say(f"{path}: tried again in {_RETRY_S:g} s")
                break
            self.processed += code != ExitCode.USAGE
            self._known[path.name] = {"state": state, "output": output.name, "exit_code": int(code)}
            self._write()
        return ExitCode.OK

    def _owner(self, output: str, name: str) -> str | None:
        return next((one for one, entry in self._known.items() if entry["output"] == output and one != name), None)

    def _complete(self) -> Iterator[Path]:
        """The files that are new or changed and have stayed the same for a while."""
        from mellea_cli.cli.batch_run import folder_files

        now = time.monotonic()
        for path in folder_files(Path(self.options.input), self.options.pattern):
            state = _state(path)
            if state is None or self._known.get(path.name, {}).get("state") == state:
                continue
            before, since = self._seen.get(path.name, (None, now))
            if before != state:
                # A file that was there long before is complete at once.
                age = max(0.0, time.time() - state[1] / 1e9)
                self._seen[path.name] = (state, since := now - age if before is None else now)
            if now - since >= self.options.settle and state[0]:
                self._seen.pop(path.name, None)
                yield path

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self._target.path.read_text(encoding="utf-8"))
            return {name: entry for name, entry in found["files"].items() if {"state", "output"} <= entry.keys()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"does not say which files are processed: {error}",
                path=self._target.name,
                hint="remove it: finished answers are kept in the journals of the outputs",
            ) from error

    def _write(self) -> None:
        from mellea_cli.io.files import atomic_write

        text = json.dumps({"files": self._known}, ensure_ascii=False, indent=1)
        atomic_write(self._target, (text, "\n"))

    def _say(self, message: str) -> None:
        from mellea_cli.ui.console import say

        if not self.options.nightly:
            say(sys.stderr, message)


def _state(path: Path) -> list[int] | None:
    """Size and time of the last change; `None` for a file that is gone."""
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def _watch(watched: _Watched, watchfiles: Any, folder: Path) -> ExitCode:
    from mellea_cli.ui.console import plural, say

    options = watched.options
    talks = not (options.quiet or options.nightly)
    if talks:
        say(sys.stderr, f"watching {folder}; outputs in {options.output_dir}; Ctrl-C ends it")
    with _stop_on_terminate() as stop:
        changes = watchfiles.watch(
            folder,
            recursive=False,
            stop_event=stop,
            yield_on_timeout=True,
            rust_timeout=_LOOK_MS,
            raise_interrupt=False,
        )
        try:
            code = watched.step(stop)
            # Without an interruption the loop ends when the watcher is stopped.
            while code == ExitCode.OK and next(changes, None) is not None:
                code = watched.step(stop)
        except KeyboardInterrupt:
            code = ExitCode.OK
    if talks:
        say(sys.stderr, f"no longer watching {folder}: {plural(watched.processed, 'file')} processed")
    return code


@contextmanager
def _stop_on_terminate() -> Iterator[threading.Event]:
    """An event that SIGTERM sets; a run in between has its own handler."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
