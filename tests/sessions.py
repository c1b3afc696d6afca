"""Sessions on a loopback server of either protocol, closed when the test ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from loopback import ModelServer
from mellea_cli import MelleaSession, start_session

Open = Callable[..., MelleaSession]


@pytest.fixture(params=["ollama", "openai"])
def protocol(request: pytest.FixtureRequest) -> str:
    """The protocol that the session speaks."""
    return str(request.param)


@pytest.fixture
def open_session(protocol: str) -> Iterator[Open]:
    """Open sessions on a server, speaking the protocol of this test."""
    opened: list[MelleaSession] = []

    def start(server: ModelServer, **settings: Any) -> MelleaSession:
        url = server.openai_url if protocol == "openai" else server.url
        model = settings.pop("model_id", "test-model")
        session = start_session(protocol, model, base_url=url, **settings)
        opened.append(session)
        return session

    yield start
    for session in opened:
        session.close()


@pytest.fixture
def m(server: ModelServer, open_session: Open) -> MelleaSession:
    """A session on a server that does what it should."""
    return open_session(server)
