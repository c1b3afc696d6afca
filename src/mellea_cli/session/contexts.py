"""What has been said so far: immutable nodes, each of which knows the one before it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from mellea_cli.messages import CHARACTERS_PER_TOKEN
from mellea_cli.session.thunk import ModelOutputThunk


@dataclass(frozen=True, slots=True)
class ContextTurn:
    """One turn: what was said to the model, and its answer. Either is `None` where it is missing."""

    model_input: Any
    output: ModelOutputThunk | None


class Context:
    """One node of a conversation; a context without nodes is its root.

    Nothing is ever changed: `add` gives a new node, and whoever holds an older one goes on seeing what it saw.
    """

    __slots__ = ("_data", "_previous")

    def __init__(self) -> None:
        self._previous: Self | None = None
        self._data: Any = None

    def add(self, data: Any) -> Self:
        """Return a new context with `data` (something said, or a `ModelOutputThunk`) at its end."""
        node = self.new_instance()
        node._previous, node._data = self, data  # noqa: SLF001 - a node of this very class
        return node

    def new_instance(self) -> Self:
        """Return an empty context of the same kind and with the same settings."""
        return type(self)()

    def reset_to_new(self) -> Self:
        """Return an empty context of the same kind and with the same settings."""
        return self.new_instance()

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
        """What the last node holds; `None` for the root."""
        return self._data

    def as_list(self, last_n: int | None = None) -> list[Any]:
        """What the nodes hold, oldest first; only the last `last_n` of them when that is given."""
        backwards: list[Any] = []
        for data in self._backwards():
            if last_n is not None and len(backwards) >= last_n:
                break
            backwards.append(data)
        return backwards[::-1]

    def last_output(self, check_last_n_components: int = 3) -> ModelOutputThunk | None:
        """The model's last answer among the last nodes, or `None` when there is none."""
        for data in reversed(self.as_list(check_last_n_components)):
            if _is_output(data):
                answer: ModelOutputThunk = data
                return answer
        return None

    def last_turn(self) -> ContextTurn | None:
        """The last input with its answer; `None` when nothing has been said."""
        last = self.as_list(2)
        if not last:
            return None
        if not _is_output(last[-1]):
            return ContextTurn(last[-1], None)
        said = last[0] if len(last) == 2 and not _is_output(last[0]) else None
        return ContextTurn(said, last[-1])

    def view_for_generation(self) -> list[Any]:
        """What the model is shown of it before the next input, oldest first."""
        return self.as_list()

    def _backwards(self) -> Iterator[Any]:
        node = self
        while node._previous is not None:
            yield node._data
            node = node._previous


class SimpleContext(Context):
    """Each call stands for itself: the model is shown nothing of what was said before.

    Only the last turn is kept, for validators and `last_output()`, so that a session may run for ever.

    Args:
        keep_history: keep every turn; the model is shown none of them all the same.
    """

    __slots__ = ("keep_history",)

    def __init__(self, *, keep_history: bool = False) -> None:
        super().__init__()
        self.keep_history = keep_history

    def new_instance(self) -> Self:
        """Return an empty context with the same settings."""
        return type(self)(keep_history=self.keep_history)

    def add(self, data: Any) -> Self:
        """Return a new context with `data` at its end; a new input drops the turn before it."""
        if self.keep_history or _is_output(data):
            return super().add(data)
        return super(SimpleContext, self.new_instance()).add(data)

    def view_for_generation(self) -> list[Any]:
        """Nothing: each call stands for itself."""
        return []


class ChatContext(Context):
    """A conversation: the model is shown what was said before.

    Args:
        window_size: show at most this many nodes; a turn has two, the input and the answer. `None` shows all.
        token_limit: show at most about this many tokens, counted as four letters each. `None` sets no limit.

    What is shown never begins with an answer: chat templates want a question first. All nodes are kept.

    Raises:
        ValueError: a limit is below 0.
    """

    __slots__ = ("token_limit", "window_size")

    def __init__(self, *, window_size: int | None = None, token_limit: int | None = None) -> None:
        super().__init__()
        if min(window_size or 0, token_limit or 0) < 0:
            raise ValueError("a context's limits cannot be negative")
        self.window_size = window_size
        self.token_limit = token_limit

    def new_instance(self) -> Self:
        """Return an empty context with the same limits."""
        return type(self)(window_size=self.window_size, token_limit=self.token_limit)

    def view_for_generation(self) -> list[Any]:
        """The last nodes that fit both limits, oldest first."""
        shown: list[Any] = []
        letters_left = None if self.token_limit is None else self.token_limit * CHARACTERS_PER_TOKEN
        for data in self._backwards():
            if self.window_size is not None and len(shown) >= self.window_size:
                break
            if letters_left is not None:
                letters_left -= len(text_of(data))
                if letters_left < 0:
                    break
            shown.append(data)
        while shown and _is_output(shown[-1]):
            shown.pop()
        return shown[::-1]


def _is_output(data: Any) -> bool:
    return isinstance(data, ModelOutputThunk)


def text_of(data: Any) -> str:
    """The text that a node's data puts before the model."""
    if isinstance(data, str):
        return data
    if _is_output(data):
        return data.value or ""
    content = getattr(data, "content", None)
    return content if isinstance(content, str) else str(data.text())
