"""What a worker is sent: its share of a run, as plain data that can be pickled."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mellea_cli.backends.registry import BackendSettings
from mellea_cli.run.plan import RunPlan

# The driver reads so many reports a second at most, however many workers there are...
_REPORTS_PER_S = 200
_SOONEST_S, _LATEST_S = 0.02, 1.0
# ... and so many pieces of text, which only a screen needs.
_TEXTS_PER_S = 1_000
_TEXT_SOONEST_S = 0.1
# Items that lie ready at a worker, as a share of those it works on: the next one must be there when a place is free.
_AHEAD = 0.25


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often a worker reports.

    Args:
        linger_s: from an outcome to the report with it, in seconds: those that come meanwhile share it.
        text_s: from one report with pieces of text to the next, in seconds.
    """

    linger_s: float = _SOONEST_S
    text_s: float = _TEXT_SOONEST_S

    @classmethod
    def of(cls, workers: int, concurrency: int) -> Rhythm:
        """The rhythm that keeps the driver cheap with so many workers and requests in flight."""
        linger_s = min(_LATEST_S, max(_SOONEST_S, workers / _REPORTS_PER_S))
        return cls(linger_s, max(_TEXT_SOONEST_S, linger_s, concurrency / _TEXTS_PER_S))


@dataclass(frozen=True, slots=True)
class Share:
    """One worker's share of a run.

    Args:
        pipeline: the pipeline's name: both ends know what it stands for.
        facts: the other fields of the worker's `RunPlan`, its share of the limits among them.
        settings: what its backend is opened with. The key is in there: a share goes nowhere but to its worker.
        environ: variables to set there before anything connects: how far traffic may go.
        pull: fetch the embedded model's file where it is missing.
        rhythm: how often it reports.
    """

    pipeline: str
    facts: Mapping[str, Any]
    settings: BackendSettings
    environ: Mapping[str, str]
    pull: bool
    rhythm: Rhythm

    @property
    def places(self) -> int:
        """Items that the worker holds at once: those it works on, and the next few."""
        concurrency: int = self.facts["concurrency"]
        return concurrency + math.ceil(concurrency * _AHEAD)

    def plan(self) -> RunPlan:
        """The worker's own plan.

        Raises:
            KeyError: there is no such pipeline.
        """
        from mellea_cli.pipelines.feedback import PIPELINES

        return RunPlan(pipeline=PIPELINES[self.pipeline], **self.facts)


def shares(
    plan: RunPlan, settings: BackendSettings, workers: int, *, environ: Mapping[str, str], pull: bool
) -> list[Share]:
    """Split a run's limits among workers, so that all of them together keep what the user set.

    Requests in flight are split as evenly as they can be, the limits by the minute in proportion to them. What is
    counted over the whole run (failed items, tokens, money, time) is the driver's own business and not split.

    Args:
        plan: the whole run's.
        settings: what each backend is opened with.
        workers: how many there could be; more than requests in flight are of no use.
        environ: see `Share`.
        pull: see `Share`.
    """
    workers = min(workers, plan.concurrency)
    rhythm = Rhythm.of(workers, plan.concurrency)
    split = []
    for number in range(workers):
        concurrency = plan.concurrency // workers + (number < plan.concurrency % workers)
        part = concurrency / plan.concurrency
        own = dataclasses.replace(
            plan,
            concurrency=concurrency,
            rpm=plan.rpm * part if plan.rpm else None,
            tpm=plan.tpm * part if plan.tpm else None,
        )
        facts = {field.name: getattr(own, field.name) for field in dataclasses.fields(own) if field.name != "pipeline"}
        opened = dataclasses.replace(settings, concurrency=concurrency)
        split.append(Share(plan.pipeline.name, facts, opened, environ, pull, rhythm))
    return split
