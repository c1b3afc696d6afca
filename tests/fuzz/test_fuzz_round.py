"""A short round of each fuzz target, over the same seeds and over changes of them; the long rounds are `make fuzz`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz import readers, streams

pytestmark = pytest.mark.slow


@cache
def _seeds(name: str) -> list[bytes]:
    return {"readers": readers, "streams": streams}[name].seeds()


@st.composite
def mutated(draw: st.DrawFn, name: str) -> bytes:
    """A seed with a few places changed: bytes put in, taken out, doubled, or taken from another seed."""
    data = draw(st.sampled_from(_seeds(name)))[:2_000]
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        to = min(len(data), at + draw(st.integers(0, 9)))
        new = draw(
            st.binary(max_size=6)
            | st.sampled_from([b"\r", b"\n", b'"', b"\0", b"\xff", b"{}[", b",", b"1e9", data[at:to] * 2])
        )
        data = data[:at] + new + data[to:]
    return data


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutated("readers"))
def test_readers_take_any_bytes(data: bytes) -> None:
    """Items, bad rows or one line of refusal, the same however the bytes arrive; never anything else."""
    readers.fuzz(data)


@pytest.fixture(scope="module")
def stream_fuzz() -> Iterator[streams.Fuzz]:
    """The target with its event loop."""
    fuzz = streams.Fuzz()
    yield fuzz
    fuzz.close()


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=mutated("streams"))
def test_stream_decoders_take_any_bytes(stream_fuzz: streams.Fuzz, data: bytes) -> None:
    """Chunks or one error of a backend, the same however the bytes are split; never anything else."""
    stream_fuzz(data)


def test_the_seeds_themselves(stream_fuzz: streams.Fuzz) -> None:
    """Every odd file and every answer that the tests know."""
    for data in _seeds("readers"):
        readers.fuzz(data)
    for data in _seeds("streams"):
        stream_fuzz(data)
