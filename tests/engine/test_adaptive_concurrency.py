"""The search for the best number of requests in flight, against servers that are only arithmetic."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from mellea_cli.engine.concurrency import AdaptiveConcurrency

Curve = Callable[[int], float]


def linear(at_once: int) -> float:
    """Every request more brings as much as the first."""
    return 100.0 * at_once


def slower_beyond_8(at_once: int) -> float:
    """More than eight get in each other's way."""
    return 100.0 * min(at_once, 8) * (1.0 if at_once <= 8 else (8 / at_once) ** 0.7)


def queue_beyond_12(at_once: int) -> float:
    """More than twelve only wait."""
    return 100.0 * min(at_once, 12)


def two_cores(at_once: int) -> float:
    """An embedded model on a small machine: batching helps a little, then no more."""
    return {1: 0.24, 2: 0.26, 3: 0.28, 4: 0.30, 5: 0.295, 6: 0.29, 7: 0.285}.get(at_once, 0.28) * 250


def batching(at_once: int) -> float:
    """A large server: gains shrink, but there are some up to the end."""
    return 3000 * at_once / (at_once + 20)


class Server:
    """Requests in flight that share out what the curve gives; answers differ in length by a factor of four."""

    def __init__(self, curve: Curve, seed: int, takes: int | None = None, cut_to: int | None = None) -> None:
        self.curve = curve
        self.takes = takes
        self.cut_to = takes if cut_to is None else cut_to
        self.random = random.Random(seed)  # noqa: S311 - a repeatable model of a server
        self.now = 0.0
        self.characters = 0.0
        self.running: list[list[float]] = []

    def fill(self, adaptive: AdaptiveConcurrency) -> None:
        while len(self.running) < adaptive.level:
            if self.takes is not None and self.cut_to is not None and len(self.running) >= self.takes:
                adaptive.refused(self.now, self.cut_to)
            else:
                self.running.append([self.random.uniform(100, 400), self.now])

    def next_answer(self) -> float:
        """Let time pass until an answer is complete; return when it was asked for."""
        rate = self.curve(len(self.running)) / len(self.running)
        first = min(self.running)
        took = first[0] / rate
        self.now += took
        for one in self.running:
            one[0] -= took * rate
            self.characters += took * rate
        self.running.remove(first)
        return first[1]

    def serve(self, adaptive: AdaptiveConcurrency) -> None:
        """One answer, and as many new requests as the search allows."""
        self.fill(adaptive)
        held = len(self.running)
        started = self.next_answer()
        adaptive.answered(self.now, started, int(self.characters), held)


def searched(
    curve: Curve, start: int, most: int, *, answers: int, seed: int, takes: int | None = None, cut_to: int | None = None
) -> AdaptiveConcurrency:
    """Let a search run for so many answers."""
    adaptive, server = AdaptiveConcurrency(start, most), Server(curve, seed, takes, cut_to)
    for _ in range(answers):
        server.serve(adaptive)
    return adaptive


@pytest.mark.parametrize("curve", [linear, slower_beyond_8, queue_beyond_12, two_cores, batching])
@pytest.mark.parametrize("start", [1, 4, 16])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_lands_near_the_best(curve: Curve, start: int, seed: int) -> None:
    """Wherever it begins, what it settles at brings at least nine tenths of the most."""
    best = max(curve(at_once) for at_once in range(1, 65))
    adaptive = searched(curve, start, 64, answers=12_000, seed=seed)
    assert adaptive.settled
    assert curve(adaptive.best) >= 0.9 * best, adaptive.best


def test_of_two_that_bring_the_same_it_takes_the_smaller() -> None:
    """Requests that only wait at the server are not sent yet: each answer comes sooner."""
    assert searched(queue_beyond_12, 4, 256, answers=12_000, seed=1).best <= 16


@pytest.mark.parametrize("cut_to", [24, 20, 15])
@pytest.mark.parametrize("start", [8, 40])
def test_it_stays_below_what_is_refused(start: int, cut_to: int) -> None:
    """A server that takes 24 at once gets about as many, soon, and to however few the refusal has cut them."""
    adaptive = searched(linear, start, 256, answers=2_400, seed=1, takes=24, cut_to=cut_to)
    assert 22 <= adaptive.best <= 24


def test_it_never_goes_beyond_the_most() -> None:
    """Although more would bring more."""
    assert searched(linear, 2, 10, answers=3_000, seed=1).best == 10


def test_it_rests_once_it_has_found_the_best() -> None:
    """Settled, nearly all answers come at the best number."""
    adaptive = searched(slower_beyond_8, 8, 64, answers=6_000, seed=2)
    server = Server(slower_beyond_8, 3)
    server.now = 1e9
    adaptive.refused(1e9, adaptive.best, first_time=False)
    levels = []
    for _ in range(6_000):
        server.serve(adaptive)
        levels.append(adaptive.level)
    assert sum(level == adaptive.best for level in levels) >= 0.8 * len(levels)


def test_a_server_that_has_become_another_one_is_searched_again() -> None:
    """What was best in the morning is not for ever."""
    adaptive, server = AdaptiveConcurrency(8, 64), Server(linear, 1)
    for curve in (linear, slower_beyond_8):
        server.curve = curve
        for _ in range(20_000):
            server.serve(adaptive)
    assert slower_beyond_8(adaptive.best) >= 0.9 * slower_beyond_8(8)


def test_a_number_that_is_not_used_is_not_judged() -> None:
    """When the input comes slowly, nothing can be learnt, and nothing changes."""
    adaptive = AdaptiveConcurrency(8, 64)
    for second in range(1_000):
        assert not adaptive.answered(float(second), float(second), 100 * second, 2)
    assert adaptive.level == 8
    assert not adaptive.settled


@pytest.mark.parametrize(("start", "most"), [(0, 4), (5, 4)])
def test_a_search_begins_within_its_bounds(start: int, most: int) -> None:
    """Anything else is a mistake of the caller."""
    with pytest.raises(ValueError, match="must be between"):
        AdaptiveConcurrency(start, most)
