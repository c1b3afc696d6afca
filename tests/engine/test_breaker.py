"""An endpoint's circuit breaker, by the clock that the test reads to it."""

from __future__ import annotations

from mellea_cli.engine.circuit_breaker import BreakerState, CircuitBreaker


def aside(breaker: CircuitBreaker, now: float = 0.0) -> CircuitBreaker:
    while not breaker.failed(now):
        pass
    return breaker


def test_only_failures_in_a_row_set_an_endpoint_aside() -> None:
    """An answer in between shows that it is there."""
    breaker = CircuitBreaker(after=3)
    for _ in range(5):
        assert not breaker.failed(0.0)
        assert not breaker.failed(0.0)
        breaker.answered()
    assert breaker.standing is BreakerState.SERVING
    assert [breaker.failed(0.0) for _ in range(3)] == [False, False, True]
    assert breaker.standing is BreakerState.ASIDE


def test_the_intervals_grow_until_the_longest() -> None:
    """Each probe that fails doubles the time to the next one."""
    breaker = aside(CircuitBreaker(first_s=1.0, longest_s=5.0))
    times = []
    for _ in range(4):
        times.append(breaker.probe_at)
        breaker.set_aside(breaker.probe_at)
    assert times == [1.0, 3.0, 7.0, 12.0]


def test_after_a_probe_one_request_shows_whether_it_serves() -> None:
    """On trial a single failure is enough, and the intervals go on growing; an answer brings it back in full."""
    breaker = aside(CircuitBreaker(first_s=1.0))
    breaker.probed()
    assert breaker.standing is BreakerState.TRIAL
    assert breaker.failed(10.0)
    assert (breaker.standing, breaker.probe_at) == (BreakerState.ASIDE, 12.0)
    breaker.probed()
    breaker.answered()
    assert breaker.standing is BreakerState.SERVING
    assert aside(breaker, 20.0).probe_at == 21.0


def test_a_late_answer_counts_as_a_probe() -> None:
    """A request that was under way when the others failed shows that somebody is there."""
    breaker = aside(CircuitBreaker())
    breaker.answered()
    assert breaker.standing is BreakerState.TRIAL


def test_what_is_left_out_stays_out() -> None:
    """Neither an answer nor a probe brings it back, and a failure changes nothing."""
    breaker = CircuitBreaker()
    breaker.leave_out()
    breaker.answered()
    breaker.probed()
    assert breaker.failed(0.0)
    assert breaker.standing is BreakerState.GONE
