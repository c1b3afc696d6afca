"""The errors that this package raises on purpose, and their exit codes.

The tree::

    MelleaError                        exit_code, hint
    |- UsageError                      a flag, setting or argument cannot be used                   2
    |- InputError                      input that cannot be read, with file and line                2
    |- OutputError                     output that cannot be written                                5
    |  |- OutputBusy                   another run holds the output                                 2
    |  `- ReaderGone                   the reader of a pipe went away                             141
    |- ModelFileError                  a model file is missing, broken or cannot be fetched         2
    |- TemplateError                   a prompt template names what is not there                    2
    |- BackendError                    a model server refused or did not answer      scope below   4
    |  |- BackendUnavailable           no connection, no answer in time               RETRY
    |  |- RateLimited                  429 and similar                                RETRY
    |  |- ServerFault                  5xx, an error object inside a stream           RETRY
    |  |- StreamBroken                 the stream ended without a finish reason       RETRY
    |  |- RequestRefused               any other 4xx                                  ITEM
    |  |- ContextTooLong               the prompt does not fit the model's window     ITEM
    |  |- ContentFiltered              the server refused this content                ITEM
    |  |- BadOutput                    the server refused what the model wrote        ITEM
    |  |- NotAuthorized                wrong or missing key                           RUN
    |  |- QuotaSpent                   the account's quota is used up                 RUN
    |  |- EndpointMissing              no chat endpoint at this address               RUN
    |  |- ModelMissing                 the server does not have this model            RUN
    |  `- NoLogprobs                   the server gives no log-probabilities          RUN
    `- AnswerError                     the model's answer cannot be used
       |- EmptyAnswer                  nothing but white space
       |- CutAnswer                    stopped by the length limit
       |- RunawayAnswer                endless repetition or white space
       |- ParseError                   not the requested JSON, or not the requested type
       `- RequirementFailed            a requirement does not hold

A `BackendError` is a fault of the transport and an `AnswerError` one of the model: their retry budgets are separate.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, IntEnum
from typing import Any, ClassVar


class ExitCode(IntEnum):
    """Exit codes of the command; the README has the same table."""

    OK = 0
    BUG = 1
    USAGE = 2
    SOME_FAILED = 3
    STOPPED_EARLY = 4
    CANNOT_WRITE = 5
    ALERT = 10
    HUNG_UP = 129
    INTERRUPTED = 130
    READER_GONE = 141
    TERMINATED = 143


class Scope(Enum):
    """What a backend's error affects."""

    RETRY = "retry"  # Nothing: the same request may succeed when it is sent again
    ITEM = "item"  # This request: it cannot succeed, the next one may
    RUN = "run"  # The run: none of its requests can succeed


class MelleaError(Exception):
    """Base of every error raised on purpose.

    Args:
        message: what happened and where, in one line.
        hint: what to type or do next, in one line, or empty.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.USAGE
    kind: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def record(self) -> dict[str, Any]:
        """The error for programs: the keys of docs/json.md."""
        return error_record(
            self.kind,
            self.message,
            self.hint,
            self.exit_code,
            file=getattr(self, "path", ""),
            line=getattr(self, "line", None),
        )


def error_record(
    code: str, message: str, hint: str, exit_code: int, *, file: str = "", line: int | None = None
) -> dict[str, Any]:
    """What programs are told about an error."""
    told = {"code": code, "message": message, "hint": hint or None, "file": file or None, "line": line}
    return {"error": {**told, "exit_code": int(exit_code)}}


class UsageError(MelleaError):
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
    exit_code = ExitCode.CANNOT_WRITE
    kind = "output"


class OutputBusy(OutputError):
    exit_code = ExitCode.USAGE
    kind = "output-busy"


class ReaderGone(OutputError):
    """The reader of our pipe closed it (`| head -3`): a normal end, without a message."""

    exit_code = ExitCode.READER_GONE
    kind = "reader-gone"


class ModelFileError(MelleaError):
    kind = "model-file"


class TemplateError(MelleaError):
    kind = "template"


class BackendError(MelleaError):
    """A model server refused a request, failed at it, or could not be reached.

    Args:
        message: what happened, with the server's address.
        status: the HTTP status, or `None` when there was none.
        retry_after_s: how long the server asks to wait, in seconds.
        partial: the text that arrived before the failure.
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
        self.attempts = 1  # How often the request was sent before this error was raised
        self.charged = True  # Whether it counts against the retry budget; an open circuit breaker does not

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed when it is sent again."""
        return self.scope is Scope.RETRY


class BackendUnavailable(BackendError):
    kind = "unavailable"


class RateLimited(BackendError):
    kind = "rate-limited"


class ServerFault(BackendError):
    kind = "server-fault"


class StreamBroken(BackendError):
    kind = "stream-broken"


class RequestRefused(BackendError):
    kind = "refused"
    scope = Scope.ITEM


class ContextTooLong(BackendError):
    kind = "context-too-long"
    scope = Scope.ITEM


class ContentFiltered(BackendError):
    kind = "content-filter"
    scope = Scope.ITEM


class BadOutput(BackendError):
    """The server refused the model's answer, which `partial` holds where it is known: a fault of the model."""

    kind = "bad-answer"
    scope = Scope.ITEM


class NotAuthorized(BackendError):
    kind = "not-authorized"
    scope = Scope.RUN


class QuotaSpent(BackendError):
    kind = "quota-spent"
    scope = Scope.RUN


class EndpointMissing(BackendError):
    kind = "endpoint-missing"
    scope = Scope.RUN


class ModelMissing(BackendError):
    kind = "model-missing"
    scope = Scope.RUN


class NoLogprobs(BackendError):
    kind = "no-logprobs"
    scope = Scope.RUN


class AnswerError(MelleaError):
    """The model's answer cannot be used.

    Args:
        message: the reason, worded so that it can be shown to the model.
        text: the answer.
    """

    exit_code = ExitCode.SOME_FAILED
    kind = "bad-answer"

    def __init__(self, message: str, *, text: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.text = text
        self.attempts = 1  # How many answers were checked before this error was raised


class EmptyAnswer(AnswerError):
    kind = "empty"


class CutAnswer(AnswerError):
    kind = "length"


class RunawayAnswer(AnswerError):
    kind = "runaway"


class ParseError(AnswerError):
    kind = "parse"


class RequirementFailed(AnswerError):
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


def nearest_first(name: str, known: Iterable[str]) -> list[str]:
    """Sort known names by their similarity to `name`, the most similar one first."""
    import difflib

    wanted = name.casefold()
    return sorted(known, key=lambda one: -difflib.SequenceMatcher(None, wanted, one.casefold()).ratio())


def name_some(names: Iterable[str], most: int = 5) -> str:
    """Join the first names of a list for a message, and say how many more there are."""
    known = list(names)
    more = len(known) - most
    return ", ".join(known[:most]) + (f" and {more} more" if more > 0 else "")


def first_error(error: BaseException) -> BaseException:
    """The first error inside an exception group, however deeply nested; any other error as it is."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
