"""Events fold into a state that always adds up."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from mellea_cli.ui.run_state import Fate, Phase, RunState, Snapshot, StepView

STEPS = ("summary", "issues", "sentiment")


class Clock:
    """A time that passes when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def view(clock: Clock) -> RunState:
    view = RunState(clock)
    view(RunStarted("steps", STEPS, "granite", "ollama", 4, 100))
    return view


def start(position: int, text: str = "some feedback") -> ItemStarted:
    return ItemStarted(position, f"id{position}", text)


def finish(position: int, *, ok: bool = True, tokens: int = 0, reused: bool = False) -> ItemFinished:
    kind, message = ("", "") if ok else ("parse", "not JSON")
    return ItemFinished(position, f"id{position}", ok, kind, message, Usage(10, tokens), 1.5, reused)


def shown(snapshot: Snapshot) -> list[str | None]:
    return [panel.id if panel else None for panel in snapshot.panels]


def step(snapshot: Snapshot, place: int, name: str) -> StepView:
    panel = snapshot.panels[place]
    assert panel is not None
    return next(step for step in panel.steps if step.name == name)


def test_a_step_goes_from_waiting_to_done(view: RunState) -> None:
    """A panel shows each step's state and what has streamed of it."""
    view(start(0))
    assert step(view.snapshot(1), 0, "issues").phase is Phase.WAITING
    view(StepStarted(0, "issues"))
    assert step(view.snapshot(1), 0, "issues").phase is Phase.ASKED
    view(TokensReceived(0, "issues", '{"urgency"'))
    view(TokensReceived(0, "issues", ': "low"}'))
    streaming = step(view.snapshot(1), 0, "issues")
    assert (streaming.phase, streaming.text) == (Phase.STREAMING, '{"urgency": "low"}')
    view(StepFinished(0, "issues", Usage(5, 6)))
    assert step(view.snapshot(1), 0, "issues").phase is Phase.DONE
    assert step(view.snapshot(1), 0, "sentiment").phase is Phase.WAITING


def test_a_failed_attempt_voids_what_streamed(view: RunState, clock: Clock) -> None:
    """The panel forgets the text, tells why, counts down to the next attempt and streams that one alone."""
    view(start(0))
    view(StepStarted(0, "summary"))
    view(TokensReceived(0, "summary", "half of it"))
    view(AttemptFailed(0, "summary", "stream-broken", "the stream ended too early"))
    failed = step(view.snapshot(1), 0, "summary")
    assert (failed.phase, failed.text, failed.reason) == (Phase.FAILED, "", "the stream ended too early")
    view(RetryScheduled(0, "summary", 2.5, 2))
    waiting = step(view.snapshot(1), 0, "summary")
    assert (waiting.phase, waiting.retry_in_s, waiting.attempt) == (Phase.RETRYING, 3, 2)
    clock.now += 2.6
    assert step(view.snapshot(1), 0, "summary").phase is Phase.ASKED
    view(TokensReceived(0, "summary", "all"))
    again = step(view.snapshot(1), 0, "summary")
    assert (again.phase, again.text, again.attempt) == (Phase.STREAMING, "all", 2)
    assert view.snapshot().progress.retried == 1


def test_an_item_keeps_its_panel(view: RunState, clock: Clock) -> None:
    """Panels do not jump: what is over stays until it has been seen and another item needs the place."""
    for position in range(3):
        view(start(position))
    assert shown(view.snapshot(3)) == ["id0", "id1", "id2"]
    view(finish(1))
    view(start(3))
    lingering = view.snapshot(3)
    assert shown(lingering) == ["id0", "id1", "id2"]
    assert lingering.panels[1] is not None
    assert lingering.panels[1].fate is Fate.OK
    assert lingering.more == 1
    clock.now += 1
    assert shown(view.snapshot(3)) == ["id0", "id3", "id2"]
    view(finish(0, ok=False))
    clock.now += 10
    failed = view.snapshot(3).panels[0]
    assert failed is not None
    assert (failed.fate, failed.kind, failed.message) == (Fate.FAILED, "parse", "not JSON")


def test_more_items_than_panels_are_counted(view: RunState) -> None:
    """Those without a panel are a number, and when the screen grows they get one, with all they have said."""
    for position in range(10):
        view(start(position))
        view(TokensReceived(position, "summary", f"text {position}"))
    assert view.snapshot(4).more == 6
    grown = view.snapshot(10)
    assert grown.more == 0
    assert shown(grown)[:4] == ["id0", "id1", "id2", "id3"]
    assert sorted(step(grown, place, "summary").text for place in range(10)) == [f"text {n}" for n in range(10)]


def test_a_smaller_screen_keeps_those_who_are_busy(view: RunState) -> None:
    """When panels are lost, an item that is still working moves into the place of one that is over."""
    for position in range(4):
        view(start(position))
    view.snapshot(4)
    view(finish(0))
    assert shown(view.snapshot(2)) == ["id2", "id1"]
    assert view.snapshot(0).more == 3


def test_an_item_that_starts_again_has_one_panel(view: RunState, clock: Clock) -> None:
    """A second start of the same item replaces the first."""
    view(start(0))
    view(TokensReceived(0, "summary", "old"))
    view.snapshot(2)
    view(start(0, "new"))
    clock.now += 2
    snapshot = view.snapshot(2)
    assert snapshot.progress.in_flight == 1
    assert snapshot.more == 0
    assert [panel.text for panel in snapshot.panels if panel and panel.fate is Fate.RUNNING].count("new") == 1


def test_reused_answers_count_but_do_not_set_the_pace(view: RunState, clock: Clock) -> None:
    """Answers that were there already are done at once and say nothing about the time left."""
    for position in range(50):
        view(finish(position, reused=True))
    clock.now += 1
    snapshot = view.snapshot()
    assert (snapshot.progress.done, snapshot.progress.reused) == (50, 50)
    assert snapshot.progress.items_per_s == 0
    assert snapshot.progress.left_s is None


def test_time_left_comes_from_the_recent_rate(view: RunState, clock: Clock) -> None:
    """Nothing is claimed before every worker had its chance; then it is what remains at the pace of now."""
    for position in range(3):
        view(start(position))
        clock.now += 0.5
        view(finish(position))
    assert view.snapshot().progress.left_s is None
    for position in range(3, 60):
        clock.now += 0.5
        view(finish(position))
        snapshot = view.snapshot()
    assert snapshot.progress.items_per_s == pytest.approx(2, rel=0.1)
    assert snapshot.progress.left_s == pytest.approx(20, rel=0.1)
    view(Paused("rate limit", 30))
    assert view.snapshot().progress.left_s == pytest.approx(50, rel=0.1)


def test_tokens_are_seen_while_they_stream(view: RunState, clock: Clock) -> None:
    """The token rate moves before a single item is over, and the server's own count corrects it without a jump."""
    view(start(0))
    for _ in range(80):
        clock.now += 0.1
        view(TokensReceived(0, "summary", " word"))
        view.snapshot()
    before = view.snapshot().progress.tokens_per_s
    assert before == pytest.approx(10, rel=0.1)
    view(finish(0, tokens=80))
    assert view.snapshot().progress.tokens_per_s == pytest.approx(before, rel=0.1)


def test_a_pause_is_seen_until_it_is_over(view: RunState, clock: Clock) -> None:
    """The reason stands there with a countdown and goes by itself."""
    view(Paused("the server does not answer", 4.2))
    assert (view.snapshot().paused, view.snapshot().paused_s) == ("the server does not answer", 5)
    clock.now += 3
    assert view.snapshot().paused_s == 2
    clock.now += 2
    assert (view.snapshot().paused, view.snapshot().paused_s) == ("", 0)


def test_notes_are_handed_out_once(view: RunState) -> None:
    """A note is printed by one display, one time."""
    view(Note("column renamed"))
    assert view.take_notes() == ["column renamed"]
    assert view.take_notes() == []


def test_events_about_nobody_are_survived(view: RunState) -> None:
    """Events may come late, early or for unknown steps: nothing breaks and nothing is invented."""
    view(TokensReceived(7, "summary", "x"))
    view(StepStarted(7, "summary"))
    view(finish(7))
    view(start(8))
    view(TokensReceived(8, "extra", "y"))
    snapshot = view.snapshot(1)
    assert snapshot.progress.done == 1
    assert step(snapshot, 0, "extra").text == "y"


def test_the_last_failures_are_kept(view: RunState) -> None:
    """A few failures stay for display, and their kinds are counted."""
    for position in range(9):
        view(finish(position, ok=False))
    assert [failure.id for failure in view.snapshot().progress.failures] == ["id6", "id7", "id8"]
    assert view.failed_kinds() == {"parse": 9}


def test_an_endless_answer_does_not_fill_the_memory(view: RunState) -> None:
    """Of a stream only its end is kept, whether it comes in drops or in lumps, and whether anybody looks or not."""
    view(start(0, "feedback " * 100_000))
    for number in range(50_000):
        view(TokensReceived(0, "summary", f" word{number}"))
    for _ in range(20):
        view(TokensReceived(0, "issues", "y" * 1_000_000))
    held = [sum(map(len, one.parts)) for one in view._active[0]._steps.values()]
    assert max(held) < 40_000
    snapshot = view.snapshot(1)
    assert snapshot.panels[0] is not None
    assert len(snapshot.panels[0].text) <= 800
    assert step(snapshot, 0, "summary").clipped
    assert step(snapshot, 0, "summary").text.endswith("word49999")
    assert len(step(snapshot, 0, "summary").text) <= 2 * 8192


def test_two_threads_may_meet(view: RunState) -> None:
    """Snapshots taken while events pour in are whole."""
    over = threading.Event()
    faults: list[Exception] = []

    def look() -> None:
        try:
            while not over.is_set():
                snapshot = view.snapshot(3)
                assert snapshot.progress.in_flight <= 5
        except Exception as error:  # noqa: BLE001 - carried into the test's own thread
            faults.append(error)

    watcher = threading.Thread(target=look)
    watcher.start()
    for round_ in range(200):
        for position in range(5):
            view(start(round_ * 5 + position))
            for _ in range(20):
                view(TokensReceived(round_ * 5 + position, "summary", "ab "))
        for position in range(5):
            view(finish(round_ * 5 + position, tokens=20))
    over.set()
    watcher.join()
    assert not faults
    assert view.snapshot().progress.done == 1000


_POSITIONS = st.integers(0, 8)
_NAMES = st.sampled_from([*STEPS, "surprise"])
_EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(start, _POSITIONS, st.text(max_size=5)),
    st.builds(StepStarted, _POSITIONS, _NAMES),
    st.builds(TokensReceived, _POSITIONS, _NAMES, st.text(max_size=20)),
    st.builds(AttemptFailed, _POSITIONS, _NAMES, st.just("parse"), st.text(max_size=5)),
    st.builds(RetryScheduled, _POSITIONS, _NAMES, st.floats(0, 20), st.integers(2, 5)),
    st.builds(StepFinished, _POSITIONS, _NAMES, st.builds(Usage, st.integers(0, 9), st.integers(0, 9))),
    st.builds(finish, _POSITIONS, ok=st.booleans(), tokens=st.integers(0, 50), reused=st.booleans()),
    st.builds(Paused, st.text(max_size=5), st.floats(0, 20)),
    st.builds(Note, st.text(max_size=5)),
    st.builds(RunFinished, *[st.integers(0, 9)] * 3, st.just(Usage()), st.floats(0, 9), st.just("")),
)


@given(st.lists(st.tuples(_EVENTS, st.floats(0, 3), st.none() | st.integers(0, 6)), max_size=60))
def test_any_story_adds_up(story: list[tuple[Event, float, int | None]]) -> None:
    """Whatever comes in whatever order: counts reconcile, no item has two panels, rates and times make sense."""
    clock = Clock()
    view = RunState(clock)
    view(RunStarted("steps", STEPS, "m", "b", 4, None))
    told: Counter[str] = Counter()
    active: set[int] = set()
    for event, pause, panels in story:
        view(event)
        clock.now += pause
        told["retried"] += isinstance(event, RetryScheduled)
        if isinstance(event, ItemStarted):
            active.add(event.position)
        elif isinstance(event, ItemFinished):
            active.discard(event.position)
            told["done" if event.ok else "failed"] += 1
            told["reused"] += event.reused
        if panels is None:
            continue
        snapshot = view.snapshot(panels)
        progress = snapshot.progress
        assert len(snapshot.panels) == panels
        assert (progress.done, progress.failed, progress.reused) == (told["done"], told["failed"], told["reused"])
        assert progress.retried == told["retried"]
        assert progress.in_flight == len(active)
        running = [panel.position for panel in snapshot.panels if panel and panel.fate is Fate.RUNNING]
        assert len(set(running) & active) + snapshot.more == len(active)
        assert progress.items_per_s >= 0
        assert progress.tokens_per_s >= 0
        assert progress.left_s is None or progress.left_s > 0
    assert sum(view.failed_kinds().values()) == told["failed"]
