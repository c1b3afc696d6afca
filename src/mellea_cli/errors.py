"""Every error this package raises on purpose, and the exit codes they lead to.

The tree::

    MelleaError                        exit_code, hint
    |- UsageError                      a flag, setting or argument cannot be used                   2
    |- InputError                      input that cannot be read, with file and line                2
    |- OutputError                     output that cannot be written                                5
    |  |- OutputBusy                   another run holds the output                                 2
    |  `- ReaderGone                   the reader of a pipe went away                             141
    |- ModelFileError                  a model file is missing, broken or cannot be fetched         2
    |- TemplateError                   a prompt template names what is not there                    2
    |- BackendError                    a model server said no, or nothing             scope below   4
    |  |- BackendUnavailable           no connection, no answer in time               RETRY
    |  |- RateLimited                  429 and its kin                                RETRY
    |  |- ServerFault                  5xx, an error object inside a stream           RETRY
    |  |- StreamBroken                 the stream ended without a finish reason       RETRY
    |  |- RequestRefused               any other 4xx                                  ITEM
    |  |- ContextTooLong               the prompt does not fit the model's window     ITEM
    |  |- ContentFiltered              the server refused this content                ITEM
    |  |- NotAuthorized                wrong or missing key                           RUN
    |  |- QuotaSpent                   the account has nothing left                   RUN
    |  |- EndpointMissing              no chat endpoint at this address               RUN
    |  `- ModelMissing                 the server does not have this model            RUN
    `- AnswerError                     the model answered, but not what was asked for
       |- EmptyAnswer                  nothing but white space
       |- CutAnswer                    stopped by the length limit
       |- RunawayAnswer                repeats itself or pads white space without end
       |- ParseError                   not the JSON, or not the type, that was asked for
       `- RequirementFailed            a requirement does not hold

A `BackendError` is the transport's trouble and an `AnswerError` is the model's: they have separate retry budgets.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """What the process tells its caller; the README lists the same table."""

    OK = 0
    BUG = 1
    USAGE = 2
    SOME_FAILED = 3
    STOPPED_EARLY = 4
    CANNOT_WRITE = 5
    HUNG_UP = 129
    INTERRUPTED = 130
    READER_GONE = 141
    TERMINATED = 143


class Scope(Enum):
    """How far a backend's error reaches."""

    RETRY = "retry"
    """Ask again: the same request may well succeed."""
    ITEM = "item"
    """This request cannot succeed, the next one may."""
    RUN = "run"
    """No request of this run can succeed."""


class MelleaError(Exception):
    """Base of every error raised on purpose.

    Args:
        message: what happened and where, in one line.
        hint: what to type or do next, in one line; empty when there is nothing to say.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.USAGE
    kind: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(MelleaError):
    """A flag, a setting or an argument cannot be used as given."""

    kind = "usage"


class InputError(MelleaError):
    """Input that cannot be read.

    Args:
        message: what is wrong.
        path: the file, or `<stdin>`.
        line: the physical line, counted from 1; `None` when the whole file is meant.
        hint: what to type next.
    """

    kind = "input"

    def __init__(self, message: str, *, path: str = "", line: int | None = None, hint: str = "") -> None:
        place = f"{path}:{line}" if path and line is not None else path
        super().__init__(f"{place}: {message}" if place else message, hint=hint)
        self.reason = message
        self.path = path
        self.line = line


class OutputError(MelleaError):
    """Output that cannot be written: disk full, no permission, I/O error."""

    exit_code = ExitCode.CANNOT_WRITE
    kind = "output"


class OutputBusy(OutputError):
    """Another run is writing this output."""

    exit_code = ExitCode.USAGE
    kind = "output-busy"


class ReaderGone(OutputError):
    """The reader of the pipe we write to went away (`| head -3`): a normal end, not worth a message."""

    exit_code = ExitCode.READER_GONE
    kind = "reader-gone"


class ModelFileError(MelleaError):
    """A model file is missing, does not match its checksum, or cannot be fetched."""

    kind = "model-file"


class TemplateError(MelleaError):
    """A prompt template cannot be rendered: it names a variable that is not there, or does not parse."""

    kind = "template"


class BackendError(MelleaError):
    """A model server refused a request, failed at it, or could not be reached.

    Args:
        message: what happened, with the server's address.
        status: the HTTP status, or `None` when there was none.
        retry_after_s: how long the server asks to be left alone, in seconds.
        partial: the text that had arrived before the failure.
        hint: what to type next.
    """

    exit_code = ExitCode.STOPPED_EARLY
    kind = "backend"
    scope: ClassVar[Scope] = Scope.RETRY

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        partial: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.retry_after_s = retry_after_s
        self.partial = partial
        self.attempts = 1
        """How many times the request was sent before this error was let through."""
        self.charged = True
        """Whether it counts against the request; a server's absence does not."""

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed when it is sent again."""
        return self.scope is Scope.RETRY


class BackendUnavailable(BackendError):
    """No connection, or no answer in time."""

    kind = "unavailable"


class RateLimited(BackendError):
    """The server asks for fewer requests (429, or 503 with Retry-After)."""

    kind = "rate-limited"


class ServerFault(BackendError):
    """The server failed at the request: 5xx, or an error object inside the stream."""

    kind = "server-fault"


class StreamBroken(BackendError):
    """The stream ended, or stopped making sense, before it said that it was finished."""

    kind = "stream-broken"


class RequestRefused(BackendError):
    """The server will not do this request, however often it is asked."""

    kind = "refused"
    scope = Scope.ITEM


class ContextTooLong(BackendError):
    """The prompt does not fit into the model's context window."""

    kind = "context-too-long"
    scope = Scope.ITEM


class ContentFiltered(BackendError):
    """The server's content filter stopped the request or its answer."""

    kind = "content-filter"
    scope = Scope.ITEM


class NotAuthorized(BackendError):
    """The server wants another key, or one at all."""

    kind = "not-authorized"
    scope = Scope.RUN


class QuotaSpent(BackendError):
    """The account behind the key has nothing left to spend."""

    kind = "quota-spent"
    scope = Scope.RUN


class EndpointMissing(BackendError):
    """There is a server at this address, but no chat endpoint (404, 405, a redirect, a web page)."""

    kind = "endpoint-missing"
    scope = Scope.RUN


class ModelMissing(BackendError):
    """The server does not have the model that was asked for."""

    kind = "model-missing"
    scope = Scope.RUN


class AnswerError(MelleaError):
    """The model answered, but not what was asked for.

    Args:
        message: the reason, worded so that it can be shown to the model.
        text: the answer as it came.
    """

    exit_code = ExitCode.SOME_FAILED
    kind = "bad-answer"

    def __init__(self, message: str, *, text: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.text = text
        self.attempts = 1
        """How many answers were judged before this error was let through."""


class EmptyAnswer(AnswerError):
    """The answer holds nothing but white space."""

    kind = "empty"


class CutAnswer(AnswerError):
    """The answer was cut off by the length limit."""

    kind = "length"


class RunawayAnswer(AnswerError):
    """The answer repeated itself or padded white space without end, and was stopped."""

    kind = "runaway"


class ParseError(AnswerError):
    """The answer is not the JSON, or not the type, that was asked for."""

    kind = "parse"


class RequirementFailed(AnswerError):
    """The answer breaks a requirement."""

    kind = "requirement"


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return the known name most similar to `name`, for a "did you mean" hint; empty when none is close.

    Case and white space do not count. `cutoff` is the least similarity, from 0 (nothing in common) to 1 (the same).
    """
    import difflib

    # Reversed, so that the first of several names that differ only by case wins.
    folded = {" ".join(one.split()).casefold(): one for one in reversed(list(known))}
    found = difflib.get_close_matches(" ".join(name.split()).casefold(), folded, n=1, cutoff=cutoff)
    return folded[found[0]] if found else ""
