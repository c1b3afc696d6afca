"""What a run comes to, in figures."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from mellea_cli.engine.lane import EndpointFigures
from mellea_cli.errors import ExitCode, MelleaError
from mellea_cli.items import Failure, Outcome, Success
from mellea_cli.messages import Usage


@dataclass(slots=True)
class Tally:
    """Counts that grow with each outcome that has become durable.

    The counts reconcile: `done + failed` is the number of rows in the output.
    """

    done: int = 0
    """Items with an answer, reused and blank ones included."""
    failed: int = 0
    reused: int = 0
    """Items with a text whose outcome was there already, by an earlier run or an identical text."""
    same: int = 0
    """Those of them that were answered with an identical text of this run."""
    blank: int = 0
    """Items without any text: nothing was asked."""
    offloaded: int = 0
    """Texts that a batch queue has answered in this run."""
    calls: int = 0
    """Requests that were sent, retries included."""
    usage: Usage = field(default_factory=Usage)
    failures: Counter[str] = field(default_factory=Counter)
    """Failed items by kind."""
    values: dict[str, Counter[str]] = field(default_factory=dict)
    """How often each value of a categorical column occurs, by column."""

    def count(self, outcome: Outcome, *, reused: bool, same: bool = False) -> None:
        """Add one item's outcome; `same` when it is that of an identical text of this run."""
        if isinstance(outcome, Success) and not outcome.attempts:
            self.blank += 1  # there was nothing to ask, so nothing was saved
        elif reused:
            self.reused += 1
            self.same += same
        else:
            self.calls += outcome.attempts
            self.usage += outcome.usage
        match outcome:
            case Failure():
                self.failed += 1
                self.failures[outcome.kind] += 1
            case Success():
                self.done += 1
                self._count_values(outcome)

    def spend(self, usage: Usage, calls: int = 0) -> None:
        """Add what was paid for without an outcome: items that were cut short, questions of our own."""
        self.usage += usage
        self.calls += calls

    def _count_values(self, outcome: Success) -> None:
        sentiment = outcome.values.get("sentiment")
        issues = outcome.values.get("issues")
        urgency = issues.get("urgency") if isinstance(issues, dict) else None
        for column, value in (("sentiment", sentiment), ("urgency", urgency)):
            if isinstance(value, str):
                self.values.setdefault(column, Counter())[value] += 1


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended.

    Args:
        tally: the figures.
        elapsed_s: seconds from the first item to the finished output.
        retries: requests that were sent again because of the transport.
        peak_in_flight: the most requests in flight at once.
        concurrency: requests in flight that the run was allowed, or found to be the best.
        bad_rows: input rows that could not be read and were skipped.
        exit_code: what the process should end with.
        stopped: why it ended before its input did; empty when it did not.
        error: the error that ended it, if one did.
        finished: whether the output was put into its place; if not, an earlier one stays as it was.
        endpoints: what each endpoint of a pool did; empty without a pool.
    """

    tally: Tally
    elapsed_s: float
    retries: int
    peak_in_flight: int
    concurrency: int
    bad_rows: int
    exit_code: ExitCode
    stopped: str = ""
    error: MelleaError | None = None
    finished: bool = True
    endpoints: tuple[EndpointFigures, ...] = ()
