"""What each endpoint of a pool did, as lines for people and as a record for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mellea_cli.ui.figures import count, duration

if TYPE_CHECKING:
    from mellea_cli.engine.lane import EndpointFigures


def endpoint_lines(endpoints: Sequence[EndpointFigures], between: str) -> Iterator[tuple[bool, str]]:
    """A line for each endpoint, and whether it serves; what is not worth saying is left out."""
    for one in endpoints:
        facts = [one.name, f"{count(one.answered)} answered ({one.share:.0%})"]
        if one.median_s is not None:
            facts.append(f"{_short(one.median_s)} median")
        if one.usage.total_tokens:
            facts.append(f"{count(one.usage.total_tokens)} tokens")
        if one.failures:
            facts.append(f"{count(one.failures)} of {count(one.requests)} requests failed")
        if one.state:
            facts.append(f"{one.state}: {one.reason}" if one.reason else one.state)
        yield not one.state, between.join(facts)


def endpoint_record(one: EndpointFigures) -> dict[str, Any]:
    """What `--json` says of an endpoint. Keys are only ever added."""
    return {
        "name": one.name,
        "backend": one.backend,
        "model": one.model,
        "requests": one.requests,
        "answered": one.answered,
        "failures": one.failures,
        "probes": one.probes,
        "prompt_tokens": one.usage.prompt_tokens,
        "completion_tokens": one.usage.completion_tokens,
        "median_s": None if one.median_s is None else round(one.median_s, 3),
        "share": round(one.share, 4),
        "state": one.state or None,
        "reason": one.reason or None,
    }


def _short(seconds: float) -> str:
    """A latency: with decimals while they mean something."""
    return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s" if seconds < 60 else duration(seconds)
