"""Contexts: what has been said so far, as a linked list of immutable nodes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from mellea_cli.messages import CHARACTERS_PER_TOKEN, Message
from mellea_cli.session.thunk import ModelOutputThunk


@dataclass(frozen=True, slots=True)
class ContextTurn:
    """An input and the model's answer to it; either is `None` when it is missing."""

    model_input: Any
    output: ModelOutputThunk | None


class Context:
    """One node of a conversation. A context without a previous node is the root.

    A context is immutable: `add` returns a new node, and the older ones stay as they are.
    """

    __slots__ = ("_data", "_previous")

    def __init__(self) -> None:
        self._previous: Self | None = None
        self._data: Any = None

    def add(self, c: Any) -> Self:
        """Return a new context with `c` (something said, or a `ModelOutputThunk`) at its end."""
        node = self.reset_to_new()
        node._previous, node._data = self, c  # noqa: SLF001 - a node of this very class
        return node

    def reset_to_new(self) -> Self:
        """Return an empty context of the same kind and with the same settings."""
        return type(self)()

    @property
    def is_root_node(self) -> bool:
        """Whether nothing has been said yet."""
        return self._previous is None

    @property
    def previous_node(self) -> Self | None:
        """The context as it was before its last node; `None` for the root."""
        return self._previous

    @property
    def node_data(self) -> Any:
        """The data of the last node; `None` for the root."""
        return self._data

    def as_list(self, last_n_components: int | None = None) -> list[Any]:
        """The data of all nodes, or of the last `last_n_components`, oldest first."""
        return list(itertools.islice(self._backwards(), last_n_components))[::-1]

    def last_output(self, check_last_n_components: int = 3) -> ModelOutputThunk | None:
        """The model's last answer among the last nodes, or `None` when there is none."""
        latest = itertools.islice(self._backwards(), check_last_n_components)
        return next(filter(None, map(_answer, latest)), None)

    def last_turn(self) -> ContextTurn | None:
        """The last input with its answer; `None` when nothing has been said."""
        *before, last = self.as_list(2) or [None]
        if last is None:
            return None
        if (output := _answer(last)) is None:
            return ContextTurn(last, None)
        return ContextTurn(before[0] if before and _answer(before[0]) is None else None, output)

    def view_for_generation(self) -> list[Any]:
        """The data that the model is shown before the next input, oldest first."""
        return self.as_list()

    def _backwards(self) -> Iterator[Any]:
        node = self
        while node._previous is not None:
            yield node._data
            node = node._previous


class SimpleContext(Context):
    """A context of independent calls: the model is shown nothing of what was said before.

    Only the last turn is kept, for validators and `last_output()`, so a session may run for any time.

    Args:
        keep_history: keep every turn; the model is still shown none of them.
    """

    __slots__ = ("keep_history",)

    def __init__(self, *, keep_history: bool = False) -> None:
        super().__init__()
        self.keep_history = keep_history

    def reset_to_new(self) -> Self:
        """Return an empty context with the same settings."""
        return type(self)(keep_history=self.keep_history)

    def add(self, c: Any) -> Self:
        """Return a new context with `c` at its end; a new input drops the turn before it."""
        if self.keep_history or _answer(c) is not None:
            return super().add(c)
        return super(SimpleContext, self.reset_to_new()).add(c)

    def view_for_generation(self) -> list[Any]:
        """Return nothing: calls are independent."""
        return []


class ChatContext(Context):
    """A conversation: the model is shown what was said before.

    Args:
        window_size: show at most this many nodes; a turn has two, the input and the answer. `None` shows all.
        token_context_length_limit: show at most about this many tokens, counted as four characters each. `None` sets
            no limit.
        token_limit: another name of it.

    All nodes are kept. Where a limit cuts the conversation, what is shown does not begin with an answer, because chat
    templates need a question first.

    Raises:
        ValueError: a limit is below 0.
    """

    __slots__ = ("token_limit", "window_size")

    def __init__(
        self,
        *,
        window_size: int | None = None,
        token_context_length_limit: int | None = None,
        token_limit: int | None = None,
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.token_limit = token_context_length_limit if token_limit is None else token_limit
        if min(self.window_size or 0, self.token_limit or 0) < 0:
            raise ValueError("a context's limits cannot be negative")

    def reset_to_new(self) -> Self:
        """Return an empty context with the same limits."""
        return type(self)(window_size=self.window_size, token_limit=self.token_limit)

    def view_for_generation(self) -> list[Any]:
        """The last nodes that fit both limits, oldest first."""
        shown: list[Any] = []
        characters_left = None if self.token_limit is None else self.token_limit * CHARACTERS_PER_TOKEN
        for data in self._backwards():
            if characters_left is not None:
                characters_left -= len(text_of(data))
            too_long = characters_left is not None and characters_left < 0
            if too_long or (self.window_size is not None and len(shown) >= self.window_size):
                while shown and _answer(shown[-1]) is not None:
                    shown.pop()
                break
            shown.append(data)
        return shown[::-1]


def _answer(data: Any) -> ModelOutputThunk | None:
    """A node's data as an answer, if it is one: a thunk, or an assistant's message that a caller has added."""
    if isinstance(data, Message) and data.role == "assistant":
        return ModelOutputThunk(data.content, parsed_repr=data)
    return data if isinstance(data, ModelOutputThunk) else None


def text_of(data: Any) -> str:
    """The text of a node's data, as the model is shown it."""
    if isinstance(data, str):
        return data
    if isinstance(data, ModelOutputThunk):
        return data.value or ""
    content = getattr(data, "content", None)
    return content if isinstance(content, str) else str(data.text())
