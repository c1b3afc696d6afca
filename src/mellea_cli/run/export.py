"""Batch files that go by hand: requests written for another program, and its replies brought in."""

from __future__ import annotations

from pathlib import Path

from mellea_cli.backends.batch_lines import read_reply, request_line
from mellea_cli.io.batchfile import BatchFile, is_ours, reply_lines
from mellea_cli.io.jobs import Answered, Gone, JobBook
from mellea_cli.messages import GenerateRequest
from mellea_cli.run.handin import Body

_GROUP = 500


class ExportFile:
    """Writes every request that can be asked now into one file; see `mellea_cli.run.gather.Outgoing`.

    Args:
        path: the file. An old one of this name is replaced, but only by something.
        body: writes a request's body.
    """

    def __init__(self, path: Path, body: Body) -> None:
        self._path = path
        self._body = body
        self._file: BatchFile | None = None
        self._names: set[str] = set()

    @property
    def requests(self) -> int:
        """Requests that were written."""
        return len(self._names)

    def has(self, name: str) -> bool:
        """Whether a request is in the file."""
        return name in self._names

    async def add(self, name: str, request: GenerateRequest) -> None:
        """Write one request. Raises `OutputError` when it cannot be written."""
        if self._file is None:
            self._file = BatchFile(self._path.with_name(f"{self._path.name}.new"))
        self._file.add(name, request_line(name, self._body(request)))
        self._names.add(name)

    async def finish(self) -> None:
        """Bring the file to the disk. Raises `OutputError` when that fails."""
        if self._file is not None:
            file, self._file = self._file, None
            file.finish()
            file.path.replace(self._path)

    def discard(self) -> None:
        """Give up what has not been finished."""
        if self._file is not None:
            self._file.discard()
            self._file = None


class NothingGoesOut:
    """Takes no request: what is missing is asked live. See `mellea_cli.run.gather.Outgoing`."""

    def has(self, name: str) -> bool:  # noqa: ARG002 - the protocol's form
        """Hold nothing."""
        return False

    async def add(self, name: str, request: GenerateRequest) -> None:
        """Leave it to the live run."""

    async def finish(self) -> None:
        """Do nothing."""


def bring_in(path: Path, plan: str, book: JobBook) -> tuple[int, int, int]:
    """Bring a file of replies into the book, line by line.

    Args:
        path: an output or error file of a batch, or what `vllm run-batch` has written.
        plan: the plan's fingerprint in hex.
        book: where replies are kept; one that is there already stays.

    Returns:
        Answers, requests without an answer, and lines that are no replies to requests of ours.

    Raises:
        InputError: the file cannot be read.
        OutputError: the book cannot be written.
    """
    answers = errors = strange = 0
    group: list[Answered] = []
    for _, line in reply_lines(path):
        reply = read_reply(line, str(path))
        if reply is None or not is_ours(reply.custom_id):
            strange += 1
            continue
        answers += reply.completion is not None
        errors += reply.completion is None
        group.append((reply.custom_id, reply.completion or Gone(reply.error)))
        if len(group) >= _GROUP:
            book.bring(plan, group)
            group = []
    book.bring(plan, group)
    return answers, errors, strange
