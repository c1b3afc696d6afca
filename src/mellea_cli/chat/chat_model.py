"""The model at the other end of a chat: one session, opened by the first question."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mellea_cli.backends.base import BackendSettings
from mellea_cli.backends.model_option import ModelOption
from mellea_cli.backends.registry import open_backend
from mellea_cli.backends.security import NetworkPolicy, Secrets
from mellea_cli.chat.turns import Turn
from mellea_cli.errors import MelleaError, UsageError, nearest
from mellea_cli.messages import Message
from mellea_cli.session.contexts import ChatContext
from mellea_cli.session.session import MelleaSession, start_session
from mellea_cli.session.thunk import ModelOutputThunk

# What `/set` can set.

_UNSET = frozenset({"", "default", "none", "off"})


@dataclass(frozen=True, slots=True)
class Settable:
    """One option."""

    key: str
    """The session's name for it; empty for what is not sent with a request."""
    read: Callable[[str], Any]
    kind: str
    """What a value must be, in words."""


def _switch(text: str) -> bool | str:
    return {"true": True, "yes": True, "on": True, "false": False, "no": False}.get(text.lower(), text)


def _between(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return read


def _positive(text: str) -> int:
    value = int(text.replace(",", "").replace("_", ""))
    if value < 1:
        raise ValueError(text)
    return value


SETTABLE: Mapping[str, Settable] = {
    "temperature": Settable(ModelOption.TEMPERATURE, _between(0, 2), "a number from 0 to 2"),
    "top_p": Settable("top_p", _between(0, 1), "a number from 0 to 1"),
    "max_tokens": Settable(ModelOption.MAX_NEW_TOKENS, _positive, "a whole number above 0"),
    "seed": Settable(ModelOption.SEED, int, "a whole number"),
    "stop": Settable(ModelOption.STOP_SEQUENCES, lambda text: [text], "a text that ends the answer"),
    "thinking": Settable(ModelOption.THINKING, _switch, "on, no, or a level such as low"),
    "context": Settable("", _positive, "the window's size in tokens"),
}


def read_setting(name: str, text: str) -> Any:
    """Read a value for an option; `None` for `default`, which leaves the choice to the server.

    Raises:
        UsageError: there is no such option, or the value is not one for it.
    """
    known = SETTABLE.get(name)
    if known is None:
        near = nearest(name, SETTABLE)
        hint = f"did you mean /set {near}?" if near else f"there are {', '.join(SETTABLE)}"
        raise UsageError(f"there is no option {name!r}", hint=hint)
    if text.strip().lower() in _UNSET:
        return None
    try:
        return known.read(text.strip())
    except ValueError as error:
        raise UsageError(f"{name} is {known.kind}, not {text!r}", hint=f"/set {name} VALUE, or default") from error


DEFAULT_WINDOW = 8192
"""Tokens of prompt and answer together, where we may choose it."""
_LIST_S = 3.0


@dataclass(frozen=True, slots=True)
class Address:
    """Which model, where."""

    backend: str
    model: str
    base_url: str | None = None
    window: int | None = None
    """Tokens of prompt and answer together, as the user said; `None` for the default, or for not known."""
    verbose: bool = False
    network: NetworkPolicy | None = None
    """Hosts that may be reached; `None` takes the policy from the environment."""
    secrets: Secrets | None = None
    """`None` takes the key from the environment."""

    @property
    def name(self) -> str:
        """The model as a person is shown it: a file without its folder."""
        return self.model.replace("\\", "/").rsplit("/", 1)[-1] if self.model.endswith(".gguf") else self.model

    @property
    def known_window(self) -> int | None:
        """The window, where it is known: an Ollama and the embedded server are told how large to make it."""
        return self.window or (DEFAULT_WINDOW if self.backend in {"ollama", "local"} else None)


class ChatModel:
    """Asks one model, in a session with a `ChatContext`.

    A partner that somebody else takes the place of is closed, which closes its connections and its server.

    Args:
        address: which model, where.
    """

    def __init__(self, address: Address) -> None:
        # What the session would warn about, the chat says itself.
        logging.getLogger("mellea_cli").addHandler(logging.NullHandler())
        self.address = address
        self._session: MelleaSession | None = None

    async def ask(
        self, question: str, turns: Sequence[Turn], system: str, options: Mapping[str, Any]
    ) -> ModelOutputThunk:
        """Ask a question after these turns; returns at once, with an answer that is on its way.

        Raises:
            UsageError: an option or the address cannot be used.
        """
        session = self._opened()
        context = ChatContext()
        for turn in turns:
            context = context.add(Message("user", turn.question)).add(ModelOutputThunk(turn.answer))
        session.ctx = context
        chosen = {**options, ModelOption.STREAM: True, ModelOption.SYSTEM_PROMPT: system or None}
        if self.address.backend == "ollama":
            chosen[ModelOption.CONTEXT_WINDOW] = self.address.known_window
        return await session.aact(Message("user", question), model_options=chosen)

    async def models(self) -> list[str]:
        """Names that the model may be switched to; empty where the server does not tell."""
        if self.address.backend == "local":
            from mellea_cli.models.catalogue import CATALOGUE

            return list(CATALOGUE)
        with suppress(MelleaError, TimeoutError):
            backend = open_backend(self.address.backend, self._settings())
            try:
                async with asyncio.timeout(_LIST_S):
                    return await backend.models()
            finally:
                await backend.aclose()
        return []

    def at(self, **changes: Any) -> ChatModel:
        """A partner at an address that differs in this from ours."""
        return ChatModel(dataclasses.replace(self.address, **changes))

    async def aclose(self) -> None:
        """Give up what is running and close the connections. May be called twice."""
        session, self._session = self._session, None
        if session is not None:
            await session.aclose()

    def _opened(self) -> MelleaSession:
        if self._session is None:
            # A person waits: trouble is told after seconds, and what takes long is stopped by hand.
            self._session = start_session(
                open_backend(self.address.backend, self._settings()),
                self.address.model,
                ctx=ChatContext(),
                concurrency=1,
                max_retries=2,
                retry_for=15.0,
                timeout=None,
            )
        return self._session

    def _settings(self) -> BackendSettings:
        address = self.address
        return BackendSettings(
            model=address.model,
            base_url=address.base_url,
            concurrency=1,
            context_per_slot=address.known_window or DEFAULT_WINDOW,
            connect_timeout_s=5.0,
            verbose=address.verbose,
            network=address.network,
            secrets=address.secrets,
        )
