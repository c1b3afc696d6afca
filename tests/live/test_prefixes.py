"""The shared beginning of prompts, on the real small model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from mellea_cli.backends.local import LocalBackend
from mellea_cli.messages import GenerateRequest, Message, Options

pytestmark = [pytest.mark.live, pytest.mark.timeout(300)]

PREFIX = (
    Message("system", "You sort letters by their mood. " + "Read each one to its end before you say anything. " * 8),
    Message("user", "I am glad."),
    Message("assistant", "happy"),
)
SLOTS = 2


@asynccontextmanager
async def opened(model: Path, states: Path, told: list[str]) -> AsyncIterator[LocalBackend]:
    backend = LocalBackend(str(model), slots=SLOTS, context_per_slot=1024, prompt_cache=states)
    backend.share_prefixes([PREFIX], told.append)
    try:
        await backend.prepare(str(model))
        yield backend
    finally:
        await backend.aclose()


async def cached_tokens(backend: LocalBackend, slot: int) -> tuple[int, int]:
    """How many of a request's prompt tokens the slot had already, and how many there were."""
    assert backend._running is not None
    server = backend._running.server
    messages = [*PREFIX, Message("user", "It rains.")]
    body: dict[str, Any] = {"messages": [{"role": one.role, "content": one.content} for one in messages]}
    async with httpx.AsyncClient(timeout=120, headers={"Authorization": f"Bearer {server.api_key}"}) as client:
        answer = await client.post(f"{server.url}/v1/chat/completions", json={**body, "max_tokens": 1, "id_slot": slot})
    usage = answer.json()["usage"]
    return usage["prompt_tokens_details"]["cached_tokens"], usage["prompt_tokens"]


async def test_every_slot_starts_from_the_beginning_that_one_evaluated(small_model: Path, tmp_path: Path) -> None:
    """The first start evaluates and says so, the second takes it from disk; no slot evaluates it again."""
    first: list[str] = []
    async with opened(small_model, tmp_path, first) as backend:
        for slot in range(SLOTS):
            cached, whole = await cached_tokens(backend, slot)
            assert whole - cached < 20, slot
    assert len(first) == 1
    second: list[str] = []
    async with opened(small_model, tmp_path, second) as backend:
        for slot in range(SLOTS):
            cached, whole = await cached_tokens(backend, slot)
            assert whole - cached < 20, slot
    assert second == []
    assert len(list(tmp_path.glob("*.slot"))) == 1


async def test_a_damaged_state_is_made_anew(small_model: Path, tmp_path: Path) -> None:
    """A file that a crash cut short costs time, and nothing else."""
    async with opened(small_model, tmp_path, []):
        pass
    (state,) = tmp_path.glob("*.slot")
    whole = state.stat().st_size
    state.write_bytes(state.read_bytes()[: whole // 2])
    told: list[str] = []
    async with opened(small_model, tmp_path, told) as backend:
        request = GenerateRequest(str(small_model), (*PREFIX, Message("user", "Well.")), Options(max_tokens=3))
        text = "".join([chunk.text async for chunk in backend.stream(request)])
    assert told
    assert text
    assert state.stat().st_size == whole


async def test_other_prompts_keep_files_of_their_own(small_model: Path, tmp_path: Path) -> None:
    """Only the newest are kept."""
    backend = LocalBackend(str(small_model), slots=1, context_per_slot=1024, prompt_cache=tmp_path)
    for number in range(8):
        (tmp_path / f"old{number}.slot").write_bytes(b"x")
    backend.share_prefixes([PREFIX], lambda _: None)
    try:
        await backend.prepare(str(small_model))
    finally:
        await backend.aclose()
    kept = [path.name for path in tmp_path.glob("*.slot")]
    assert len(kept) == 6
    assert any(not name.startswith("old") for name in kept)
