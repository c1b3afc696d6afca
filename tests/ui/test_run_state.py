"""Events fold into a state that always adds up; rates, panel slots and partial answers."""

from __future__ import annotations

import json
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
from mellea_cli.ui.run_state import (
    Field,
    ItemState,
    ItemStatus,
    PanelSlots,
    Phase,
    RunState,
    SlidingRate,
    Snapshot,
    StepSnapshot,
    TokenEstimate,
    answer_fields,
)

STEPS = ("summary", "issues", "sentiment")


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(clock: Clock) -> RunState:
    state = RunState(clock)
    state(RunStarted("steps", STEPS, "granite", "ollama", 4, 100))
    return state


def start(position: int, text: str = "some feedback") -> ItemStarted:
    return ItemStarted(position, f"id{position}", text)


def finish(position: int, *, ok: bool = True, tokens: int = 0, reused: bool = False) -> ItemFinished:
    kind, message = ("", "") if ok else ("parse", "not JSON")
    return ItemFinished(position, f"id{position}", ok, kind, message, Usage(10, tokens), 1.5, reused)


def shown(snapshot: Snapshot) -> list[str | None]:
    return [panel.id if panel else None for panel in snapshot.panels]


def step(snapshot: Snapshot, place: int, name: str) -> StepSnapshot:
    panel = snapshot.panels[place]
    assert panel is not None
    return next(step for step in panel.steps if step.name == name)


def test_a_step_goes_from_waiting_to_done(state: RunState) -> None:
    """A panel shows each step's state and what has streamed of it."""
    state(start(0))
    assert step(state.snapshot(1), 0, "issues").phase is Phase.WAITING
    state(StepStarted(0, "issues"))
    assert step(state.snapshot(1), 0, "issues").phase is Phase.ASKED
    state(TokensReceived(0, "issues", '{"urgency"'))
    state(TokensReceived(0, "issues", ': "low"}'))
    streaming = step(state.snapshot(1), 0, "issues")
    assert (streaming.phase, streaming.text) == (Phase.STREAMING, '{"urgency": "low"}')
    state(StepFinished(0, "issues", Usage(5, 6)))
    assert step(state.snapshot(1), 0, "issues").phase is Phase.DONE
    assert step(state.snapshot(1), 0, "sentiment").phase is Phase.WAITING


def test_a_failed_attempt_voids_what_streamed(state: RunState, clock: Clock) -> None:
    """The panel forgets the text, tells why, counts down to the next attempt and streams that one alone."""
    state(start(0))
    state(StepStarted(0, "summary"))
    state(TokensReceived(0, "summary", "half of it"))
    state(AttemptFailed(0, "summary", "stream-broken", "the stream ended too early"))
    failed = step(state.snapshot(1), 0, "summary")
    assert (failed.phase, failed.text, failed.reason) == (Phase.FAILED, "", "the stream ended too early")
    state(RetryScheduled(0, "summary", 2.5, 2))
    waiting = step(state.snapshot(1), 0, "summary")
    assert (waiting.phase, waiting.retry_in_s, waiting.attempt) == (Phase.RETRYING, 3, 2)
    clock.now += 2.6
    assert step(state.snapshot(1), 0, "summary").phase is Phase.ASKED
    state(TokensReceived(0, "summary", "all"))
    again = step(state.snapshot(1), 0, "summary")
    assert (again.phase, again.text, again.attempt) == (Phase.STREAMING, "all", 2)
    assert state.snapshot().progress.retries == 1
    state(RetryScheduled(0, "summary", 0.0, 3, reprompt=True))
    assert step(state.snapshot(1), 0, "summary").attempt == 3
    assert state.snapshot().progress.retries == 1


def test_an_item_keeps_its_panel(state: RunState, clock: Clock) -> None:
    """Panels do not jump: what is over stays until it has been seen and another item needs the place."""
    for position in range(3):
        state(start(position))
    assert shown(state.snapshot(3)) == ["id0", "id1", "id2"]
    state(finish(1))
    state(start(3))
    lingering = state.snapshot(3)
    assert shown(lingering) == ["id0", "id1", "id2"]
    assert lingering.panels[1] is not None
    assert lingering.panels[1].status is ItemStatus.OK
    assert lingering.more == 1
    clock.now += 1
    assert shown(state.snapshot(3)) == ["id0", "id3", "id2"]
    state(finish(0, ok=False))
    clock.now += 10
    failed = state.snapshot(3).panels[0]
    assert failed is not None
    assert (failed.status, failed.kind, failed.message) == (ItemStatus.FAILED, "parse", "not JSON")


def test_more_items_than_panels_are_counted(state: RunState) -> None:
    """Those without a panel are a number, and when the screen grows they get one, with all they have said."""
    for position in range(10):
        state(start(position))
        state(TokensReceived(position, "summary", f"text {position}"))
    assert state.snapshot(4).more == 6
    grown = state.snapshot(10)
    assert grown.more == 0
    assert shown(grown)[:4] == ["id0", "id1", "id2", "id3"]
    assert sorted(step(grown, place, "summary").text for place in range(10)) == [f"text {n}" for n in range(10)]


def test_a_smaller_screen_keeps_those_who_are_busy(state: RunState) -> None:
    """When panels are lost, an item that is still working moves into the place of one that is over."""
    for position in range(4):
        state(start(position))
    state.snapshot(4)
    state(finish(0))
    assert shown(state.snapshot(2)) == ["id2", "id1"]
    assert state.snapshot(0).more == 3


def test_an_item_that_starts_again_has_one_panel(state: RunState, clock: Clock) -> None:
    """A second start of the same item replaces the first."""
    state(start(0))
    state(TokensReceived(0, "summary", "old"))
    state.snapshot(2)
    state(start(0, "new"))
    clock.now += 2
    snapshot = state.snapshot(2)
    assert snapshot.more == 0
    assert [panel.text for panel in snapshot.panels if panel and panel.status is ItemStatus.RUNNING].count("new") == 1


def test_reused_answers_count_but_do_not_count_for_the_rate(state: RunState, clock: Clock) -> None:
    """Answers that were there already are done at once and say nothing about the time left."""
    for position in range(50):
        state(finish(position, reused=True))
    clock.now += 1
    snapshot = state.snapshot()
    assert (snapshot.progress.done, snapshot.progress.reused) == (50, 50)
    assert snapshot.progress.items_per_s == 0
    assert snapshot.progress.left_s is None


def test_time_left_comes_from_the_recent_rate(state: RunState, clock: Clock) -> None:
    """Nothing is claimed before every worker had its chance; then it is what remains at the present rate."""
    for position in range(3):
        state(start(position))
        clock.now += 0.5
        state(finish(position))
    assert state.snapshot().progress.left_s is None
    for position in range(3, 60):
        clock.now += 0.5
        state(finish(position))
        snapshot = state.snapshot()
    assert snapshot.progress.items_per_s == pytest.approx(2, rel=0.1)
    assert snapshot.progress.left_s == pytest.approx(20, rel=0.1)
    state(Paused("rate limit", 30))
    assert state.snapshot().progress.left_s == pytest.approx(50, rel=0.1)


def test_tokens_are_seen_while_they_stream(state: RunState, clock: Clock) -> None:
    """The token rate moves before a single item is over, and the server's own count corrects it without a jump."""
    state(start(0))
    for _ in range(80):
        clock.now += 0.1
        state(TokensReceived(0, "summary", " word"))
        state.snapshot()
    before = state.snapshot().progress.tokens_per_s
    assert before == pytest.approx(10, rel=0.1)
    state(finish(0, tokens=80))
    assert state.snapshot().progress.tokens_per_s == pytest.approx(before, rel=0.1)


def test_a_pause_is_seen_until_it_is_over(state: RunState, clock: Clock) -> None:
    """The reason is shown with a countdown and disappears by itself."""
    state(Paused("the server does not answer", 4.2))
    assert (state.snapshot().paused, state.snapshot().paused_s) == ("the server does not answer", 5)
    clock.now += 3
    assert state.snapshot().paused_s == 2
    clock.now += 2
    assert (state.snapshot().paused, state.snapshot().paused_s) == ("", 0)


def test_notes_are_handed_out_once(state: RunState) -> None:
    """A note is printed by one display, one time."""
    state(Note("column renamed"))
    assert state.take_notes() == ["column renamed"]
    assert state.take_notes() == []


def test_events_about_unknown_items_are_ignored(state: RunState) -> None:
    """Events may come late, early or for unknown steps: nothing breaks and nothing is invented."""
    state(TokensReceived(7, "summary", "x"))
    state(StepStarted(7, "summary"))
    state(finish(7))
    state(start(8))
    state(TokensReceived(8, "extra", "y"))
    snapshot = state.snapshot(1)
    assert snapshot.progress.done == 1
    assert step(snapshot, 0, "extra").text == "y"


def test_the_last_failures_are_kept(state: RunState) -> None:
    """A few failures stay for display."""
    for position in range(9):
        state(finish(position, ok=False))
    assert [failure.id for failure in state.snapshot().progress.failures] == ["id6", "id7", "id8"]


def test_an_endless_answer_does_not_fill_the_memory(state: RunState) -> None:
    """Of a stream only its end is kept, whether it comes in drops or in lumps, and whether anybody looks or not."""
    state(start(0, "feedback " * 100_000))
    for number in range(50_000):
        state(TokensReceived(0, "summary", f" word{number}"))
    for _ in range(20):
        state(TokensReceived(0, "issues", "y" * 1_000_000))
    held = [sum(map(len, one.chunks)) for one in state._active[0]._steps.values()]
    assert max(held) < 40_000
    snapshot = state.snapshot(1)
    assert snapshot.panels[0] is not None
    assert len(snapshot.panels[0].text) <= 800
    assert step(snapshot, 0, "summary").clipped
    assert step(snapshot, 0, "summary").text.endswith("word49999")
    assert len(step(snapshot, 0, "summary").text) <= 2 * 8192


def test_two_threads_may_meet(state: RunState) -> None:
    """Snapshots taken while events pour in are whole."""
    over = threading.Event()
    faults: list[Exception] = []

    def look() -> None:
        try:
            while not over.is_set():
                snapshot = state.snapshot(3)
                assert len(snapshot.panels) == 3
                assert snapshot.more <= 5
        except Exception as error:  # noqa: BLE001 - carried into the test's own thread
            faults.append(error)

    watcher = threading.Thread(target=look)
    watcher.start()
    for round_ in range(200):
        for position in range(5):
            state(start(round_ * 5 + position))
            for _ in range(20):
                state(TokensReceived(round_ * 5 + position, "summary", "ab "))
        for position in range(5):
            state(finish(round_ * 5 + position, tokens=20))
    over.set()
    watcher.join()
    assert not faults
    assert state.snapshot().progress.done == 1000


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
    state = RunState(clock)
    state(RunStarted("steps", STEPS, "m", "b", 4, None))
    counts: Counter[str] = Counter()
    active: set[int] = set()
    for event, pause, panels in story:
        state(event)
        clock.now += pause
        counts["retries"] += isinstance(event, RetryScheduled)
        if isinstance(event, ItemStarted):
            active.add(event.position)
        elif isinstance(event, ItemFinished):
            active.discard(event.position)
            counts["done" if event.ok else "failed"] += 1
            counts["reused"] += event.reused
        if panels is None:
            continue
        snapshot = state.snapshot(panels)
        progress = snapshot.progress
        assert len(snapshot.panels) == panels
        assert (progress.done, progress.failed, progress.reused) == (counts["done"], counts["failed"], counts["reused"])
        assert progress.retries == counts["retries"]
        running = [panel.position for panel in snapshot.panels if panel and panel.status is ItemStatus.RUNNING]
        assert len(set(running) & active) + snapshot.more == len(active)
        assert progress.items_per_s >= 0
        assert progress.tokens_per_s >= 0
        assert progress.left_s is None or progress.left_s > 0


WHOLE = '{"positive_aspect": null, "main_complaint": "CSV \\"export\\" crashes", "urgency": "high"}'


def test_fields_fill_as_the_text_grows() -> None:
    """Each prefix shows what is there, in order, with the last value growing."""
    seen = [answer_fields(WHOLE[:end]) for end in range(len(WHOLE) + 1)]
    assert seen[0] is None
    assert seen[1] == []
    assert seen[-1] == [Field("praise", ""), Field("complaint", 'CSV "export" crashes'), Field("urgency", "high")]
    counts = [len(found) for found in seen if found is not None]
    assert counts == sorted(counts)
    values = [found[1].value for found in seen if found is not None and len(found) > 1]
    assert all(values[-1].startswith(value) for value in values)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('```json\n{"a": 1}\n```', [Field("a", "1")]),
        ('{"a": 1} and that is that {', [Field("a", "1")]),
        ('{"issues": {"urgency": "low", "tags": ["x", "y"], "deep": {"k": true}}}',
         [Field("urgency", "low"), Field("tags", "x, y"), Field("deep", "k yes")]),
        ("The customer is happy.", None),
        ('Here: {"a": 1}', None),
        ("[1, 2]", None),
        ("{nonsense", None),
        ("", None),
    ],
)  # fmt: skip
def test_what_is_json_is_read_and_what_is_not_is_left(text: str, expected: list[Field] | None) -> None:
    """Fences and trailing remarks do not hide the object; prose is not taken for one."""
    assert answer_fields(text) == expected


_LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
_TREES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=6), _TREES, max_size=6), st.data())
def test_any_prefix_of_any_object_is_survived(value: dict[str, object], data: st.DataObject) -> None:
    """A cut anywhere gives fields or nothing, never an error."""
    text = json.dumps(value)
    found = answer_fields(text[: data.draw(st.integers(0, len(text)))])
    assert found is None or len(found) <= 24


def test_the_window_forgets_the_start() -> None:
    """A fast start does not flatter a slow present."""
    rate = SlidingRate(10)
    counted = 0.0
    for second in range(60):
        counted += 100 if second < 20 else 2
        rate.observe(float(second), counted)
    assert rate.per_second() == pytest.approx(2)


def test_a_slow_run_has_a_rate_too() -> None:
    """One item every 30 s is a rate, though most windows of 20 s are empty."""
    rate = SlidingRate(20, least=4)
    for second in range(600):
        rate.observe(float(second), float(second // 30))
    assert rate.per_second() == pytest.approx(1 / 30, rel=0.3)


def test_a_standstill_wears_the_rate_down_within_bounds() -> None:
    """When nothing happens any more the rate falls, and the samples stay few."""
    rate = SlidingRate(20, least=50)
    for step in range(40):
        rate.observe(step / 4, float(step))
    before = rate.per_second()
    for step in range(20_000):
        rate.observe(10 + step / 4, 40.0)
    assert rate.per_second() < before / 100
    assert len(rate._samples) <= 1024


def test_a_counter_that_is_corrected_downwards_is_no_negative_rate() -> None:
    """An estimate that turns out too high shows as a standstill."""
    rate = SlidingRate(10)
    rate.observe(0, 100)
    rate.observe(1, 90)
    assert rate.per_second() == 0


def test_nothing_is_claimed_from_one_sample() -> None:
    """A rate needs two points in time."""
    rate = SlidingRate(10)
    assert rate.per_second() == 0
    rate.observe(5, 3)
    assert rate.per_second() == 0


def test_tokens_are_scaled_by_what_servers_say() -> None:
    """After usage has come in, estimates use its ratio; a server without usage leaves them as they are."""
    meter = TokenEstimate()
    assert meter.raw(0, 0) == 0
    assert meter.raw(10, 40) == 10
    assert meter.raw(1, 400) == 80
    assert meter.scaled(10) == 10
    meter.learn(100, 150)
    assert meter.scaled(10) == pytest.approx(15)
    meter.learn(100, 0)
    assert meter.scaled(10) == pytest.approx(15)


def item(position: int, *, finished_at: float | None = None) -> ItemState:
    made = ItemState(position, f"id{position}", "text", ("step",))
    if finished_at is not None:
        made.status = ItemStatus.OK
        made.finished_at = finished_at
    return made


def positions(shown: list[ItemState | None]) -> list[int | None]:
    return [one.position if one is not None else None for one in shown]


def test_finished_items_leave_half_of_the_panels_to_those_whose_tokens_arrive() -> None:
    """With quick answers the oldest results give way at once; the newest may be read."""
    slots = PanelSlots()
    first = {number: item(number) for number in range(4)}
    assert positions(slots.arrange(4, first, now=10.0)) == [0, 1, 2, 3]
    for number, one in first.items():
        one.status = ItemStatus.OK
        one.finished_at = 10.1 + number / 100
    running = {number: item(number) for number in range(4, 8)}
    shown = positions(slots.arrange(4, running, now=10.2))
    assert shown[2:] == [2, 3]
    assert set(shown[:2]) <= {4, 5, 6, 7}


def test_a_single_result_may_be_read() -> None:
    """One finished item among running ones keeps its panel for a moment, then gives way."""
    slots = PanelSlots()
    first = {number: item(number) for number in range(4)}
    slots.arrange(4, first, now=10.0)
    done = first.pop(1)
    done.status, done.finished_at = ItemStatus.OK, 10.1
    first[4] = item(4)
    assert positions(slots.arrange(4, first, now=10.2)) == [0, 1, 2, 3]
    assert positions(slots.arrange(4, first, now=11.5)) == [0, 4, 2, 3]
