"""The others: bare loops over two HTTP clients, the OpenAI client, and Mellea 0.8.0, at the same calls.

    PYTHON benchmarks/contenders.py NAME BODIES URL CALLS IN_FLIGHT

BODIES holds request bodies, a line of JSON each, taken in turn. Every call is streamed and read to its end, every chunk
parsed. Prints `{"cpu_s", "wall_s", "calls"}` of the calls alone: imports and the first calls are left out. It runs in
any interpreter that has the contender, so nothing of this project is imported.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

_WARM_UP = 20

Call = Callable[[dict[str, Any]], Awaitable[str]]


def _text(data: str) -> str:
    choices = json.loads(data)["choices"]
    return (choices[0]["delta"].get("content") or "") if choices else ""


async def with_aiohttp(url: str, measure: Callable[[Call], Awaitable[None]]) -> None:
    """The fastest of the pure asyncio clients, by hand."""
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def call(body: dict[str, Any]) -> str:
            async with session.post(f"{url}/chat/completions", json=body) as response:
                lines = response.content
                return "".join([_text(line[6:].decode()) async for line in lines if line.startswith(b"data: {")])

        await measure(call)


async def with_httpx(url: str, measure: Callable[[Call], Awaitable[None]]) -> None:
    """Httpx over the transport that mellea uses."""
    import httpx
    from httpx_aiohttp import AiohttpTransport

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(transport=AiohttpTransport(limits=limits), timeout=60) as client:
        await measure(_httpx_call(client, url))


async def with_plain_httpx(url: str, measure: Callable[[Call], Awaitable[None]]) -> None:
    """Httpx as it comes."""
    import httpx

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=60) as client:
        await measure(_httpx_call(client, url))


def _httpx_call(client: Any, url: str) -> Call:
    async def call(body: dict[str, Any]) -> str:
        async with client.stream("POST", f"{url}/chat/completions", json=body) as response:
            lines = response.aiter_lines()
            return "".join([_text(line[6:]) async for line in lines if line.startswith("data: {")])

    return call


async def with_openai(url: str, measure: Callable[[Call], Awaitable[None]]) -> None:
    """The OpenAI client."""
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

        async def call(body: dict[str, Any]) -> str:
            chunks = await client.chat.completions.create(**body)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks if chunk.choices])

        await measure(call)


async def with_mellea(url: str, measure: Callable[[Call], Awaitable[None]]) -> None:
    """Mellea 0.8.0: an instruction with the same words and the same schema, streamed."""
    from mellea import MelleaSession
    from mellea.backends import ModelOption
    from mellea.backends.openai import OpenAIBackend
    from pydantic import create_model

    session = MelleaSession(OpenAIBackend("bench", base_url=url, api_key="none"))
    models: dict[str, Any] = {}

    async def call(body: dict[str, Any]) -> str:
        fields = body["response_format"]["json_schema"]["schema"]["properties"]
        kind = "_".join(fields)
        if kind not in models:
            types: Any = dict.fromkeys(fields, (str | None, ...))
            models[kind] = create_model(kind, **types)
        words = "\n".join(message["content"] for message in body["messages"])
        thunk = await session.ainstruct(
            "{{words}}",
            user_variables={"words": words},
            format=models[kind],
            strategy=None,
            model_options={ModelOption.STREAM: True},
        )
        return str(await thunk.avalue())

    await measure(call)


_CONTENDERS = {
    "aiohttp": with_aiohttp,
    "httpx-aiohttp": with_httpx,
    "httpx": with_plain_httpx,
    "openai": with_openai,
    "mellea-0.8.0": with_mellea,
}


async def run(name: str, bodies: list[dict[str, Any]], url: str, calls: int, in_flight: int) -> dict[str, float]:
    """Make the calls with one contender and return what they took."""
    found: dict[str, float] = {"calls": calls}

    async def measure(call: Call) -> None:
        for number in range(_WARM_UP):
            if not await call(bodies[number % len(bodies)]):
                raise RuntimeError(f"{name} got no answer")
        numbers = iter(range(calls))

        async def worker() -> None:
            for number in numbers:
                await call(bodies[number % len(bodies)])

        cpu, wall = time.process_time(), time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(in_flight):
                group.create_task(worker())
        found["cpu_s"], found["wall_s"] = time.process_time() - cpu, time.perf_counter() - wall

    await _CONTENDERS[name](url, measure)
    return found


def main() -> None:
    """Read the arguments, make the calls, print the figures."""
    logging.disable(logging.CRITICAL)
    name, path, url, calls, in_flight = sys.argv[1:]
    bodies = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    found = asyncio.run(run(name, bodies, url, int(calls), int(in_flight)))
    sys.stdout.write(f"FOUND {json.dumps(found)}\n")


if __name__ == "__main__":
    main()
