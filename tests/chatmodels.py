"""A chat's model that answers nothing: it remembers what it was sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from mellea_cli.chat.chat_model import ChatModel, ModelAddress
from mellea_cli.chat.conversation import Turn


class EchoModel(ChatModel):
    """Records each question with the turns, the system message and the options that came with it."""

    def __init__(self, backend: str = "openai", model: str = "test-model", window: int | None = None) -> None:
        super().__init__(ModelAddress(backend, model, window=window))
        self.sent: list[tuple[str, list[Turn], str, dict[str, Any]]] = []
        self.closed = False

    async def ask(self, question: str, turns: Sequence[Turn], system: str, options: Mapping[str, Any]) -> Any:
        self.sent.append((question, list(turns), system, dict(options)))
        return SimpleNamespace(
            model="test-model", usage=None, first_token_s=0.5, total_s=1.0, cancelled=False, finish_reason="stop",
            messages=None,
        )  # fmt: skip

    async def models(self) -> list[str]:
        return ["granite4.1:3b", "test-model"]

    def at(self, **changes: Any) -> ChatModel:
        return EchoModel(**{"model": self.address.model, "backend": self.address.backend, **changes})

    async def aclose(self) -> None:
        self.closed = True
