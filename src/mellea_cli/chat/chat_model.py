"""The model of a chat: one session, opened by the first question, and the options that `/set` knows."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mellea_cli.backends.base import BackendSettings
from mellea_cli.backends.model_options import ModelOption
from mellea_cli.backends.registry import open_backend
from mellea_cli.backends.security import NetworkPolicy, Secrets
from mellea_cli.chat.conversation import Turn
from mellea_cli.errors import MelleaError, UsageError, nearest
from mellea_cli.messages import Message
from mellea_cli.session.session import MelleaSession, start_session
from mellea_cli.session.thunk import ModelOutputThunk
from mellea_cli.stdlib.context import ChatContext

DEFAULT_WINDOW = 8192  # Context window in tokens, prompt and answer together, where this program chooses it
_MODEL_LIST_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class ModelAddress:
    """Which model, where."""

    backend: str
    model: str
    base_url: str | None = None
    window: int | None = None  # Context window in tokens, as the user said; `None` for the default, or for unknown
    network: NetworkPolicy | None = None  # Hosts that may be reached; `None` takes the policy of the environment
    secrets: Secrets | None = None  # `None` takes the key of the environment

    @property
    def name(self) -> str:
        """The model's name for display: a file without its folder."""
        return self.model.replace("\\", "/").rsplit("/", 1)[-1] if self.model.endswith(".gguf") else self.model

    @property
    def known_window(self) -> int | None:
        """The context window where it is known: Ollama and the embedded server get it from us."""
        return self.window or (DEFAULT_WINDOW if self.backend in {"ollama", "local"} else None)


class ChatModel:
    """Asks one model, in a session with a `ChatContext`."""

    def __init__(self, address: ModelAddress) -> None:
        # The chat itself shows what the session would log.
        logging.getLogger("mellea_cli").addHandler(logging.NullHandler())
        self.address = address
        self._session: MelleaSession | None = None

    async def ask(
        self, question: str, turns: Sequence[Turn], system: str, options: Mapping[str, Any]
    ) -> ModelOutputThunk:
        """Ask a question after these turns; returns at once, while the answer is generated.

        Raises:
            UsageError: an option or the address cannot be used.
        """
        if self._session is None:
            # Somebody waits at the prompt: failures are reported within seconds, and only Ctrl-C ends a long answer.
            self._session = start_session(
                open_backend(self.address.backend, self._settings()),
                self.address.model,
                ctx=ChatContext(),
                concurrency=1,
                max_retries=2,
                retry_for=15.0,
                timeout=None,
            )
        context = ChatContext()
        for turn in turns:
            context = context.add(Message("user", turn.question)).add(ModelOutputThunk(turn.answer))
        self._session.ctx = context
        sent = {**options, ModelOption.STREAM: True, ModelOption.SYSTEM_PROMPT: system or None}
        if self.address.backend == "ollama":
            sent[ModelOption.CONTEXT_WINDOW] = self.address.known_window
        return await self._session.aact(Message("user", question), model_options=sent)

    async def models(self) -> list[str]:
        """The models that this one can be switched to; empty when the server does not say."""
        if self.address.backend == "local":
            from mellea_cli.models.catalogue import CATALOGUE

            return list(CATALOGUE)
        with suppress(MelleaError, TimeoutError):
            backend = open_backend(self.address.backend, self._settings())
            try:
                async with asyncio.timeout(_MODEL_LIST_TIMEOUT_S):
                    return await backend.models()
            finally:
                await backend.aclose()
        return []

    def at(self, **changes: Any) -> ChatModel:
        """A new model with a changed address."""
        return ChatModel(dataclasses.replace(self.address, **changes))

    async def aclose(self) -> None:
        """Cancel what is running and close the connections. May be called twice."""
        session, self._session = self._session, None
        if session is not None:
            await session.aclose()

    def _settings(self) -> BackendSettings:
        address = self.address
        return BackendSettings(
            model=address.model,
            base_url=address.base_url,
            concurrency=1,
            context_per_slot=address.known_window or DEFAULT_WINDOW,
            connect_timeout_s=5.0,
            network=address.network,
            secrets=address.secrets,
        )


@dataclass(frozen=True, slots=True)
class ChatOption:
    """One option of `/set`."""

    key: str  # The session's name for it; empty for one that is not sent with a request
    read: Callable[[str], Any]
    expects: str  # What a value must be, in words


def _number(low: float, high: float) -> Callable[[str], float]:
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


def _switch(text: str) -> bool | str:
    return {"true": True, "yes": True, "on": True, "false": False, "no": False}.get(text.lower(), text)


CHAT_OPTIONS: Mapping[str, ChatOption] = {
    "temperature": ChatOption(ModelOption.TEMPERATURE, _number(0, 2), "a number from 0 to 2"),
    "top_p": ChatOption("top_p", _number(0, 1), "a number from 0 to 1"),
    "max_tokens": ChatOption(ModelOption.MAX_NEW_TOKENS, _positive, "a whole number above 0"),
    "seed": ChatOption(ModelOption.SEED, int, "a whole number"),
    "stop": ChatOption(ModelOption.STOP_SEQUENCES, lambda text: [text], "a text that ends the answer"),
    "thinking": ChatOption(ModelOption.THINKING, _switch, "on, no, or a level such as low"),
    "context": ChatOption("", _positive, "the window's size in tokens"),
}
_DEFAULT_WORDS = frozenset({"", "default", "none", "off"})


def read_option(name: str, text: str) -> Any:
    """Read a value for an option; `None` for `default`, which leaves the choice to the server.

    Raises:
        UsageError: there is no such option, or it does not take this value.
    """
    option = CHAT_OPTIONS.get(name)
    if option is None:
        near = nearest(name, CHAT_OPTIONS)
        hint = f"did you mean /set {near}?" if near else f"the options are {', '.join(CHAT_OPTIONS)}"
        raise UsageError(f"there is no option {name!r}", hint=hint)
    if text.strip().lower() in _DEFAULT_WORDS:
        return None
    try:
        return option.read(text.strip())
    except ValueError as error:
        raise UsageError(f"{name} must be {option.expects}, not {text!r}", hint=f"/set {name} VALUE|default") from error
