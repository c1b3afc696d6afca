"""Circuit breaker of one endpoint, by the clock that the test passes."""

from __future__ import annotations

from mellea_cli.engine.circuit_breaker import BreakerState, CircuitBreaker


def opened(breaker: CircuitBreaker, now: float = 0.0) -> CircuitBreaker:
    while not breaker.blocks:
        breaker.record_failure(now)
    return breaker


def test_only_failures_in_a_row_open_it() -> None:
    """An answer in between shows that the endpoint is there."""
    breaker = CircuitBreaker(threshold=3)
    for _ in range(5):
        assert not breaker.record_failure(0.0)
        assert not breaker.record_failure(0.0)
        breaker.record_success()
    assert breaker.state is BreakerState.CLOSED
    for _ in range(3):
        breaker.record_failure(0.0)
    assert breaker.state is BreakerState.OPEN


def test_a_failure_is_charged_unless_it_was_open_already() -> None:
    """The failure that opens it still counts against its request; one of a request in flight then does not."""
    breaker = CircuitBreaker(threshold=2)
    assert [breaker.record_failure(0.0) for _ in range(4)] == [False, False, True, True]


def test_probes_come_later_each_time_up_to_the_longest_wait() -> None:
    """Each probe that fails doubles the time to the next one."""
    breaker = opened(CircuitBreaker(first_s=1.0, longest_s=5.0))
    times = []
    for _ in range(4):
        times.append(breaker.probe_at)
        breaker.open(breaker.probe_at)
    assert times == [1.0, 3.0, 7.0, 12.0]


def test_a_probe_waits_as_long_as_the_server_asks() -> None:
    """A Retry-After beyond the next wait is kept."""
    breaker = CircuitBreaker(first_s=1.0)
    breaker.open(0.0, at_least_s=30.0)
    assert breaker.probe_at == 30.0


def test_after_a_probe_one_request_decides() -> None:
    """Half-open, one failure opens it again, soon to be probed; one answer closes it."""
    breaker = opened(CircuitBreaker(first_s=1.0))
    breaker.open(1.0)
    breaker.probe_succeeded()
    assert breaker.state is BreakerState.HALF_OPEN
    assert not breaker.record_failure(10.0)
    assert (breaker.state, breaker.probe_at) == (BreakerState.OPEN, 11.0)
    breaker.probe_succeeded()
    breaker.record_success()
    assert breaker.state is BreakerState.CLOSED


def test_a_late_answer_counts_as_a_probe() -> None:
    """A request that was in flight when others failed shows that the endpoint is there."""
    breaker = opened(CircuitBreaker())
    breaker.record_success()
    assert breaker.state is BreakerState.HALF_OPEN


def test_a_disabled_one_stays_disabled() -> None:
    """Neither an answer nor a probe brings it back, and a failure changes nothing."""
    breaker = CircuitBreaker()
    breaker.disable()
    breaker.record_success()
    breaker.probe_succeeded()
    assert breaker.record_failure(0.0)
    assert breaker.state is BreakerState.DISABLED


def test_without_a_threshold_it_never_opens() -> None:
    """A session's calls fail within their own retries instead of waiting."""
    breaker = CircuitBreaker(threshold=None)
    assert not any(breaker.record_failure(0.0) for _ in range(1_000))
