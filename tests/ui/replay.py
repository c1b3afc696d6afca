"""A run that never happens: the events of a realistic one, made up from a seed, to look at a display with.

Run it at a terminal: `python tests/ui/replay.py --help`.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from mellea_cli.events import (
    AttemptFailed,
    Event,
    ItemFinished,
    ItemStarted,
    Note,
    Paused,
    RetryScheduled,
    RunFinished,
    RunStarted,
    StepFinished,
    StepStarted,
    TokensReceived,
)
from mellea_cli.messages import Usage
from mellea_cli.ui.run_display import choose_display, make_display
from mellea_cli.ui.run_state import RunState
from mellea_cli.ui.summary import RunSummary, print_summary

Timed = tuple[float, Event]
"""Seconds since the run's start, and what happens then."""

FEEDBACK: tuple[tuple[str, dict[str, str | None]], ...] = (
    (
        "I love the new dashboard, it is clean and fast. But exporting to CSV crashes, and support has been silent.",
        {
            "positive_aspect": "clean and fast new dashboard",
            "main_complaint": "CSV export crashes, support does not answer",
            "urgency": "high",
            "sentiment": "mixed",
            "summary": "The customer likes the fast new dashboard, but CSV export crashes and support is silent.",
        },
    ),
    (
        "Best purchase this year! Setup took two minutes and the battery lasts for days 🎉",
        {
            "positive_aspect": "quick setup and long battery life",
            "main_complaint": None,
            "urgency": "low",
            "sentiment": "positive",
            "summary": "The customer is delighted with the two-minute setup and a battery that lasts for days.",
        },
    ),
    (
        "I was charged twice in March and nobody reacts to my mails. I want my money back or I go to my bank.",
        {
            "positive_aspect": None,
            "main_complaint": "charged twice, no reaction to mails",
            "urgency": "high",
            "sentiment": "negative",
            "summary": "The customer was charged twice, gets no reply and demands a refund.",
        },
    ),
    (
        "Die Lieferung kam pünktlich, aber das Paket war beschädigt und zwei Tassen waren zerbrochen.",
        {
            "positive_aspect": "delivery on time",
            "main_complaint": "parcel damaged, two cups broken",
            "urgency": "medium",
            "sentiment": "mixed",
            "summary": "The delivery was on time, but the parcel was damaged and two cups arrived broken.",
        },
    ),
    (
        "The app is slow since the last update. Scrolling through my orders takes forever on an older phone.",
        {
            "positive_aspect": None,
            "main_complaint": "slow since the last update on older phones",
            "urgency": "medium",
            "sentiment": "negative",
            "summary": "Since the last update the app has become slow, above all when scrolling on older phones.",
        },
    ),
    (
        "ok",
        {
            "positive_aspect": None,
            "main_complaint": None,
            "urgency": "low",
            "sentiment": "positive",
            "summary": "The customer is satisfied and says no more than that.",
        },
    ),
    (
        "客服很有耐心、问题当天就解决了。只是希望应用能支持深色模式。",
        {
            "positive_aspect": "patient support, solved the same day",
            "main_complaint": "no dark mode",
            "urgency": "low",
            "sentiment": "mixed",
            "summary": "Support solved the problem patiently on the same day; the customer would like a dark mode.",
        },
    ),
)
STEPS = {
    "single": (("analysis", ("positive_aspect", "main_complaint", "urgency", "sentiment", "summary")),),
    "steps": (
        ("summary", ("summary",)),
        ("issues", ("positive_aspect", "main_complaint", "urgency")),
        ("sentiment", ("sentiment",)),
    ),
}


@dataclass(frozen=True)
class Story:
    """What kind of run to make up."""

    pipeline: str = "single"
    items: int = 40
    concurrency: int = 6
    tokens_per_s: float = 25.0
    """Of each stream."""
    seed: int = 7
    first_token_s: float = 0.5
    trouble: float = 0.12
    """Share of the attempts that fail."""
    reused: int = 0
    pause_at: float | None = None
    known: bool = True


def tell(story: Story) -> Iterator[Timed]:
    """The events of a run, in order of time."""
    chance = random.Random(story.seed)  # noqa: S311 - a story, not a secret
    names = tuple(name for name, _ in STEPS[story.pipeline])
    total = story.items if story.known else None
    yield 0.0, RunStarted(story.pipeline, names, "qwen2.5-coder-1.5b", "local", story.concurrency, total)
    yield 0.0, Note("column 'summary' is in the input already: the answer goes to 'summary_2'")
    for position in range(story.reused):
        yield 0.0, ItemFinished(position, str(position + 1), True, "", "", Usage(), 0.0, True)
    free = [(0.01 * worker, worker) for worker in range(story.concurrency)]
    upcoming: list[tuple[float, int, Event]] = []
    if story.pause_at is not None:
        upcoming.append((story.pause_at, -1, Paused("127.0.0.1:8080 does not answer", 4.0)))
    order = done = failed = 0
    now = 0.0
    for position in range(story.reused, story.items):
        begin, worker = heapq.heappop(free)
        end = begin
        for end, event in _item(story, position, begin, chance):
            order += 1
            heapq.heappush(upcoming, (end, order, event))
            if isinstance(event, ItemFinished):
                done, failed = done + event.ok, failed + (not event.ok)
        heapq.heappush(free, (end + 0.02, worker))
        while upcoming and upcoming[0][0] <= free[0][0]:
            now, _, event = heapq.heappop(upcoming)
            yield now, event
    while upcoming:
        now, _, event = heapq.heappop(upcoming)
        yield now, event
    yield now, RunFinished(done + story.reused, failed, story.reused, Usage(310 * done, 70 * done), now, "")


def _item(story: Story, position: int, begin: float, chance: random.Random) -> list[Timed]:
    text, values = FEEDBACK[position % len(FEEDBACK)]
    name = str(position + 1)
    timed: list[Timed] = [(begin, ItemStarted(position, name, text))]
    ends: dict[str, float] = {}
    usage = Usage()
    for step, columns in STEPS[story.pipeline]:
        start = ends.get("summary", begin) if step == "sentiment" else begin
        answer = json.dumps({column: values[column] for column in columns}, ensure_ascii=False)
        events, ok = _step(story, (position, step), answer, start, chance)
        timed += events
        ends[step] = timed[-1][0]
        usage += Usage(310, len(answer) // 4)
        if not ok:
            why = "the answer is not the JSON that was asked for"
            took = ends[step] - begin
            timed.append((ends[step], ItemFinished(position, name, False, "parse", why, usage, took, False)))
            return sorted(timed, key=lambda one: one[0])
    end = max(ends.values()) + 0.05
    timed.append((end, ItemFinished(position, name, True, "", "", usage, end - begin, False)))
    return sorted(timed, key=lambda one: one[0])


def _step(
    story: Story, place: tuple[int, str], answer: str, start: float, chance: random.Random
) -> tuple[list[Timed], bool]:
    timed: list[Timed] = [(start, StepStarted(*place))]
    now = start
    for attempt in range(1, 4):
        now += story.first_token_s * chance.uniform(0.6, 1.6)
        fails = chance.random() < story.trouble
        for at in range(0, int(len(answer) * 0.7) if fails else len(answer), 4):
            now += chance.uniform(0.5, 1.5) / story.tokens_per_s
            timed.append((now, TokensReceived(*place, answer[at : at + 4])))
        if not fails:
            timed.append((now, StepFinished(*place, Usage(310, len(answer) // 4))))
            return timed, True
        timed.append(
            (now, AttemptFailed(*place, "requirement", "the summary has 34 words, it must have fewer than 30"))
        )
        if attempt < 3:
            timed.append((now, RetryScheduled(*place, 1.5, attempt + 1)))
            now += 1.5
    return timed, False


def play(story: Story, *, speed: float, no_live: bool = False, environ: dict[str, str]) -> None:
    """Show the run on stderr as the real command would."""
    state = RunState()
    name = "plain" if no_live else choose_display(sys.stderr, environ)
    began = time.monotonic()
    last = None
    with make_display(name, state, sys.stderr, environ):
        for when, last in tell(story):
            wait = began + when / speed - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            state(last)
    assert isinstance(last, RunFinished)
    values = {
        "sentiment": {"positive": last.done // 2, "mixed": last.done // 3, "negative": last.done // 5},
        "urgency": {"high": last.done // 4, "medium": last.done // 2, "low": last.done // 5},
    }
    summary = RunSummary(
        model="qwen2.5-coder-1.5b",
        total=story.items,
        done=last.done,
        failed=last.failed,
        asked=last.done + last.failed - last.reused,
        reused=last.reused,
        failures={"parse": last.failed} if last.failed else {},
        calls=story.items + 5,
        retries=5,
        usage=last.usage,
        elapsed_s=last.elapsed_s / speed,
        items_per_s=(last.done + last.failed - last.reused) * speed / last.elapsed_s,
        output="analysed.jsonl",
        values=values,
        next_command="mellea summarise feedback.jsonl -o analysed.jsonl" if last.failed else "",
    )
    print_summary(summary, sys.stderr, environ)


def main() -> None:
    """Read the flags and play."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pipeline", choices=sorted(STEPS), default="single")
    parser.add_argument("--items", type=int, default=40)
    parser.add_argument("-c", "--concurrency", type=int, default=6)
    parser.add_argument("--tokens", type=float, default=25.0, help="tokens a second of each stream")
    parser.add_argument("--trouble", type=float, default=0.12)
    parser.add_argument("--reused", type=int, default=0)
    parser.add_argument("--pause-at", type=float)
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--unknown", action="store_true", help="the number of items is not known")
    parser.add_argument("--no-live", action="store_true")
    flags = parser.parse_args()
    story = Story(
        pipeline=flags.pipeline,
        items=flags.items,
        concurrency=flags.concurrency,
        tokens_per_s=flags.tokens,
        trouble=flags.trouble,
        reused=flags.reused,
        pause_at=flags.pause_at,
        known=not flags.unknown,
    )
    try:
        play(story, speed=flags.speed, no_live=flags.no_live, environ=dict(os.environ))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201 - the demo's own last word
        sys.exit(130)


if __name__ == "__main__":
    main()
