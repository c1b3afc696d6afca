"""Status: what `mellea doctor` found, what a dry run would do, and the state of batch jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Literal

from mellea_cli.messages import Message, Usage
from mellea_cli.ui.console import clean, print_table, say
from mellea_cli.ui.number_format import count, duration, money

if TYPE_CHECKING:
    from mellea_cli.backends.openai_batch import Batch
    from mellea_cli.run.estimate import Estimate
    from mellea_cli.run.plan import Prices
    from mellea_cli.ui.theme import Role


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `mellea doctor`."""

    part: str  # The part of the report that it belongs to
    subject: str
    state: Literal["ok", "note", "bad"]
    text: str


_STATE_ROLES: Mapping[str, Role] = {"ok": "good", "note": "warn", "bad": "bad"}


def print_findings(findings: Sequence[Finding], command: str, *, stream: IO[str], environ: Mapping[str, str]) -> None:
    """Print what was found, part by part, and the command that fixes it; none is printed when it is empty."""
    rows: list[Sequence[str | tuple[Role, str]]] = []
    part = ""
    for finding in findings:
        head = finding.part if finding.part != part else ""
        part = finding.part
        rows.append((("strong", head), finding.subject, (_STATE_ROLES[finding.state], finding.state), finding.text))
    print_table(rows, stream=stream, environ=environ)
    if command:
        say(stream, f"to fix it: {command}")


@dataclass(frozen=True, slots=True)
class Preview:
    """What a run would do (`--dry-run`)."""

    facts: Sequence[tuple[str, str]]  # What, and how much
    step: str  # The step whose prompt is shown
    messages: Sequence[Message]  # That prompt for the first item; empty when there is no item


def print_preview(preview: Preview, stream: IO[str], environ: Mapping[str, str]) -> None:
    """Print one rendered prompt, and below it what would run: the figures stay in view."""
    if preview.messages:
        stream.write(f"the prompt of step {preview.step!r} for the first item:\n")
        for message in preview.messages:
            stream.write(f"\n[{message.role}]\n")
            # Line by line: a prompt keeps its lines, and no escape sequence in it reaches the terminal.
            stream.writelines(f"{clean(line)}\n" for line in message.content.splitlines())
        stream.write("\n")
    print_table([[("strong", what), text] for what, text in preview.facts], stream=stream, environ=environ)
    stream.flush()


def estimate_lines(
    estimate: Estimate, prices: Prices | None, *, hint: str = "", whence: str = ""
) -> Iterator[tuple[str, str]]:
    """Tokens, time and cost that a run is expected to take.

    Args:
        estimate: what it is expected to take.
        prices: what tokens cost; `None` when unknown.
        hint: how to learn the time, where it is unknown.
        whence: where the sample comes from, if it is not of this run's rows.
    """
    prompt, answer = estimate.prompt_tokens, estimate.completion_tokens
    source = f"{estimate.sampled} rows {whence or 'timed'}" if estimate.sampled else ""
    if answer is None:
        how = "counted by the model's tokenizer" if estimate.counted else "estimated by characters"
        yield "tokens", f"about {_rounded(prompt.likely)} in ({how}); out: unknown"
        if prices is not None:
            of_prompts = prices.of(Usage(round(prompt.likely)))
            yield "cost", f"about {money(of_prompts, prices.currency)} for prompts, without the answers"
        yield "time", hint
        return
    yield "tokens", f"about {_rounded(prompt.likely)} in, {_rounded(answer.likely)} out"
    if (time := estimate.seconds) is not None:
        search = "; -c auto finds its speed within these" if estimate.searches else ""
        yield (
            "time",
            f"{duration(time.low)} to {duration(time.high)}, likely {duration(time.likely)} ({source}{search})",
        )
    if (cost := estimate.cost) is not None and prices is not None:
        low, likely, high = (money(one, prices.currency) for one in (cost.low, cost.likely, cost.high))
        yield "cost", f"{low} to {high}, likely {likely}"


def _rounded(number: float) -> str:
    """A number with three significant digits: an estimate has no more."""
    whole = round(number)
    digits = max(0, len(str(whole)) - 3)
    return count(round(whole, -digits))


_BATCH_STATES = {
    "validating": "being checked",
    "in_progress": "in progress",
    "finalizing": "being finished",
    "completed": "done",
    "expired": "expired",
    "cancelling": "being cancelled",
    "cancelled": "cancelled",
    "failed": "refused",
}


class BatchLines:
    """Prints how batches progress, but only what is new: another state, or another tenth done."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._printed: dict[str, tuple[str, int]] = {}

    def update(self, batch: Batch, requests: int) -> None:
        tenths = 10 * (batch.completed + batch.failed) // max(1, requests)
        if self._printed.get(batch.id) != (batch.status, tenths):
            self._printed[batch.id] = (batch.status, tenths)
            self._say(f"{batch.id}: {batch_state(batch, requests)}")


def batch_state(batch: Batch, requests: int) -> str:
    """The state of a batch in a few words."""
    done = f"{count(batch.completed)} of {count(requests)} answered" if batch.completed or batch.failed else ""
    failed = f"{count(batch.failed)} failed" if batch.failed else ""
    return ", ".join(filter(None, (_BATCH_STATES.get(batch.status, batch.status), done, failed)))
