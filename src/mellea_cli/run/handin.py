"""Writes requests into files within a queue's limits, and passes each file on as soon as it is full."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from mellea_cli.backends.batch_lines import request_line
from mellea_cli.engine.way import Way
from mellea_cli.errors import AnswerError, BackendError, Scope
from mellea_cli.io.batchfile import BatchFile
from mellea_cli.io.jobs import Gone, Job, JobBook
from mellea_cli.messages import Completion, GenerateRequest, Usage
from mellea_cli.run.queue import QueueLimits
from mellea_cli.run.room import Room

Body = Callable[[GenerateRequest], dict[str, Any]]
HandIn = Callable[[Job, list[str]], Awaitable[bool]]


class Files:
    """Takes requests for a queue; see `mellea_cli.run.gather.Outgoing`.

    The very first request is asked live instead: a wrong key, an unknown model or a parameter that the server refuses
    comes to light before thousands of requests have been handed in, and the answer counts like any other.

    Args:
        plan: the plan's fingerprint in hex.
        model: the model's name.
        base_url: the server.
        book: where replies are kept.
        limits: what a file may hold.
        body: writes a request's body as the server takes it.
        sender: the live way to the server.
    """

    def __init__(
        self, plan: str, model: str, base_url: str, book: JobBook, limits: QueueLimits, body: Body, sender: Way
    ) -> None:
        self._plan = plan
        self._model = model
        self._base_url = base_url
        self._book = book
        self._limits = limits
        self._body = body
        self._sender = sender
        self._probed = False
        self._file: BatchFile | None = None
        self._names: set[str] = set()
        self._expected = Usage()
        self._hand_in: HandIn | None = None
        self._room: Room | None = None
        self.asked_one = False
        """Whether the last look asked a question live."""
        self.held_back = False
        """Whether the last look left requests behind because the queue takes no more files for now."""
        self._open = True

    def begin(self, hand_in: HandIn, room: Room, *, may: bool = True) -> None:
        """A new look through the input begins.

        Args:
            hand_in: takes a file that is on the disk, and says whether another one may follow now.
            room: what the caps leave.
            may: whether the queue takes another file now.
        """
        self._hand_in, self._room = hand_in, room
        self._names.clear()
        self.asked_one = self.held_back = False
        self._open = may

    def has(self, name: str) -> bool:
        """Whether a request is in the file that is being written."""
        return name in self._names

    async def add(self, name: str, request: GenerateRequest) -> None:
        """Take a request, unless the queue or the caps have no room for it."""
        if not self._open:
            self.held_back = True
            return
        expected = self._room.take(request) if self._room is not None else Usage()
        if expected is None:
            return
        if not self._probed:
            await self._probe(name, request)
            return
        line = request_line(name, self._body(request))
        if len(line) > self._limits.size:
            self._book.bring(self._plan, [(name, Gone("it is too long for a batch file"))])
            self.asked_one = True
            return
        if self._file is not None and self._is_full(self._file, len(line)) and not await self._pass_on():
            self.held_back = True
            return
        if self._file is None:
            self._file = BatchFile(self._new_path())
        self._file.add(name, line)
        self._names.add(name)
        self._expected += expected

    def _is_full(self, file: BatchFile, more: int) -> bool:
        return len(file.custom_ids) >= self._limits.requests or file.size + more > self._limits.size

    async def finish(self) -> None:
        """Pass the last file on."""
        if self._file is not None:
            await self._pass_on()

    def discard(self) -> None:
        """Give up what is being written."""
        if self._file is not None:
            self._file.discard()
            self._file = None

    async def _pass_on(self) -> bool:
        file, self._file = self._file, None
        if file is None or self._hand_in is None:
            return self._open
        file.finish()
        job = Job(
            tag=tag_of(self._book.path, file.path),
            plan=self._plan,
            base_url=self._base_url,
            model=self._model,
            state="written",
            file=file.path.name,
            requests=len(file.custom_ids),
            prompt=self._expected.prompt_tokens,
            completion=self._expected.completion_tokens,
            created=time.time(),
        )
        self._expected = Usage()
        self._open = await self._hand_in(job, file.custom_ids)
        self._names.clear()
        return self._open

    async def _probe(self, name: str, request: GenerateRequest) -> None:
        reply: Completion | Gone
        try:
            reply = await self._sender.send(request)
        except AnswerError as error:
            reply = Gone(error.message)
        except BackendError as error:
            if error.scope is not Scope.ITEM:
                raise
            reply = Gone(error.message)
        self._probed = self.asked_one = True
        self._book.bring(self._plan, [(name, reply)])

    def _new_path(self) -> Path:
        tag = f"{int(time.time()):x}-{secrets.token_hex(6)}"
        return self._book.path.with_name(f"{_stem(self._book.path)}{tag}.jsonl")


def tag_of(journal: Path, file: Path) -> str:
    """The tag in a file's name."""
    return file.name.removeprefix(_stem(journal)).removesuffix(".jsonl")


def clear_leftovers(journal: Path, wanted: set[str]) -> None:
    """Remove files of requests that a killed run left and that no job needs: they hold feedback."""
    for path in journal.parent.iterdir():
        name = path.name
        if name.startswith(_stem(journal)) and name.endswith(".jsonl") and name not in wanted:
            path.unlink(missing_ok=True)


def _stem(journal: Path) -> str:
    return f"{journal.name.removesuffix('.journal')}.batch-"
