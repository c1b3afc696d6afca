"""The life of the embedded server's process, seen from the parent."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, Self

from mellea_cli.backends.llama_server import ServerConfig
from mellea_cli.errors import BackendUnavailable, ModelFileError, UsageError

_START_S = 300.0
"""A gigabyte from a slow disk takes a minute; nothing takes five."""
_STOP_S = 3.0
_LOG_TAIL = 16 * 1024


class EmbeddedServer:
    """One running server process. Made by `start`; ends with `stop`, or by itself when this process ends.

    Attributes:
        url: the server's address on loopback.
        api_key: what requests must carry; random, and told to the child over its stdin only.
    """

    def __init__(self, process: asyncio.subprocess.Process, log: BinaryIO | None) -> None:
        self._process = process
        self._log = log
        self._last_error = ""
        self.url = ""
        self.api_key = secrets.token_urlsafe(32)

    @classmethod
    async def start(
        cls,
        model: Path,
        *,
        name: str,
        slots: int,
        context_per_slot: int,
        log: bool = False,
        states: Path | None = None,
    ) -> Self:
        """Start a server and wait until it answers.

        Args:
            model: the GGUF file.
            name: what the server calls the model.
            slots: requests that are worked on at once.
            context_per_slot: tokens of prompt and answer together, for each slot.
            log: pass the server's log on to stderr.
            states: a folder in which the state of a slot may be saved.

        Raises:
            UsageError: the llama.cpp binding is not installed.
            ModelFileError: the server cannot load this model.
            BackendUnavailable: the process died, or was not ready in time.
        """
        # llama.cpp's reason for a failure stands in its log only: kept in an unnamed file, it costs no reader.
        kept = None if log else tempfile.TemporaryFile()  # noqa: SIM115 - closed by `stop`
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # a file `json.py` in the current folder must not be imported
                "-m",
                "mellea_cli.backends.llama_server",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=kept,
                start_new_session=True,  # out of a terminal's Ctrl-C even while Python is starting
            )
        except BaseException as error:
            if kept is not None:
                kept.close()
            if isinstance(error, OSError):
                raise BackendUnavailable(f"cannot start the embedded server: {error.strerror or error}") from error
            raise
        server = cls(process, kept)
        kept_in = str(states) if states else ""
        config = ServerConfig(str(model), name, slots, context_per_slot, server.api_key, os.getpid(), log, kept_in)
        try:
            server.url = await server._ready(config)
        except BaseException:
            await server.stop()
            raise
        return server

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the child was running when the event loop last looked."""
        return self._process.returncode is None

    async def gone(self, within_s: float) -> bool:
        """Wait a moment for the child to end: a broken connection is often noticed before the death behind it."""
        try:
            async with asyncio.timeout(within_s):
                await self._process.wait()
        except TimeoutError:
            return False
        return True

    def obituary(self) -> str:
        """How the child ended, with the last error of its log."""
        code = self._process.returncode
        if code is None:
            return "is still running"
        how = _signal_name(-code) if code < 0 else f"exit code {code}"
        if code == -signal.SIGKILL:
            how += ", as the system does when memory runs out"
        reason = self._reason()
        return f"died ({how})" + (f": {reason}" if reason else "")

    async def stop(self) -> None:
        """Close the child's stdin, which ends it, and kill it if that does not help. May be called twice."""
        process = self._process
        if process.stdin is not None:
            process.stdin.close()
        try:
            if not await self.gone(_STOP_S if self.url else 0.0):
                process.kill()
                await process.wait()
        except BaseException:
            if process.returncode is None:
                process.kill()
            raise
        finally:
            if self._log is not None:
                self._last_error = self._reason()
                self._log.close()
                self._log = None

    async def _ready(self, config: ServerConfig) -> str:
        """Send the configuration, wait for the reply, return the address in it."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("the child was started without pipes")
        try:
            async with asyncio.timeout(_START_S):
                stdin.write(json.dumps(asdict(config)).encode() + b"\n")
                await stdin.drain()
                line = await stdout.readline()
        except TimeoutError:
            raise BackendUnavailable(
                f"the embedded server was not ready after {_START_S:.0f} s",
                hint="is the disk or the network drive with the model very slow? -vv shows the server's log",
            ) from None
        except (BrokenPipeError, ConnectionResetError):
            line = b""
        if not line:
            await self.gone(_STOP_S)
            raise BackendUnavailable(
                f"the embedded server {self.obituary()}", hint="-vv shows its log; a smaller model needs less memory"
            )
        reply = json.loads(line)
        if "url" in reply:
            return str(reply["url"])
        raise self._refusal(reply["cause"], reply["error"], config.model)

    def _refusal(self, cause: str, error: str, model: str) -> UsageError | ModelFileError:
        if cause == "not-installed":
            return UsageError(f"the embedded server is not installed ({error})", hint="pip install 'mellea-cli[local]'")
        return ModelFileError(
            f"the embedded server cannot load {model}: {self._reason() or error}",
            hint="if it is out of memory try a smaller --concurrency or model; -vv shows the server's log",
        )

    def _reason(self) -> str:
        """The first error of the log's tail, without its time and place; the later ones only follow from it."""
        if self._log is None:
            return self._last_error
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - _LOG_TAIL))
        lines = self._log.read().decode("utf-8", "replace").splitlines()
        errors = [line.partition(" E ")[2] for line in lines if " E " in line]
        found = errors[0] if errors else next((line for line in reversed(lines) if line.strip()), "")
        return " ".join(found.split())[:300]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
