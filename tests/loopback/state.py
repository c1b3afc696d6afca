"""What the server has counted; the server's own figures, not the client's."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class State:
    """Counts of one server. Read it from any thread; `ModelServer.wait` waits until it says something."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.clear()

    def clear(self) -> None:
        """Set every count to zero."""
        with self.changed:
            self.requests = 0
            """Chat requests that arrived."""
            self.lookups: list[str] = []
            """Paths of all other requests, in order."""
            self.attempts: Counter[str] = Counter()
            """Chat requests by prompt."""
            self.in_flight = 0
            self.max_in_flight = 0
            self.completed = 0
            """Answers that were sent to their finish reason."""
            self.answered: list[tuple[str, float, float]] = []
            """The mark in the prompt of each, when it was asked for and when it had been sent (`time.monotonic()`)."""
            self.refused = 0
            """Requests beyond `max_parallel`."""
            self.disconnects = 0
            """Clients that went before their answer was complete."""
            self.pieces = 0
            """Pieces of text written, over all answers."""
            self.started: list[float] = []
            """`time.monotonic()` of each chat request's arrival."""
            self.bodies: list[dict[str, Any]] = []
            """Chat requests' bodies, in order, when the settings say `record`."""
            self.headers: list[dict[str, str]] = []
            """Chat requests' headers, in order, names in lower case, likewise."""
            self.connections: set[tuple[Any, ...]] = set()
            """Client addresses: one for each connection that was opened."""

            self.uploads = 0
            """Files that were uploaded."""
            self.uploaded: list[bytes] = []
            """What was in them."""
            self.batches = 0
            """Batches that were created, refused ones included."""
            self.queue_calls = 0
            """Requests to the queue's routes, counted as they arrive."""
            self.looks = 0
            """Looks at batches."""
            self.batch_rows: Counter[str] = Counter()
            """Requests of batches that were taken on, by custom id."""

    @contextmanager
    def change(self) -> Iterator[None]:
        """Change counts, and wake whoever waits for them."""
        with self.changed:
            yield
            self.changed.notify_all()

    def arrive(self, prompt: str) -> tuple[int, int]:
        """Count a chat request in; return its index and the attempt it is for its prompt."""
        with self.change():
            index = self.requests
            self.requests += 1
            self.attempts[prompt] += 1
            self.in_flight += 1
            self.max_in_flight = max(self.max_in_flight, self.in_flight)
            self.started.append(time.monotonic())
            return index, self.attempts[prompt]

    def wait(self, until: Callable[[State], bool], timeout: float) -> None:
        """Wait until the predicate holds; raise `TimeoutError` with the counts when it does not in time."""
        with self.changed:
            if not self.changed.wait_for(lambda: until(self), timeout):
                raise TimeoutError(f"the server's state never came: {self.counts()}")

    def counts(self) -> dict[str, int]:
        """Return the plain counts, for messages and for other processes."""
        with self.changed:
            names = "requests in_flight max_in_flight completed refused disconnects pieces"  # fields that are numbers
            return {name: getattr(self, name) for name in names.split()}
