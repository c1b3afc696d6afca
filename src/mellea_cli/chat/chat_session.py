"""One chat: a conversation, the model that answers, the file it is kept in, and what it has been given to read."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mellea_cli.chat.attachments import Document, Table, read_data, read_file
from mellea_cli.chat.chat_model import SETTABLE, ChatModel
from mellea_cli.chat.chat_store import ChatFile, ChatStore, answer_facts
from mellea_cli.chat.citations import Citations
from mellea_cli.chat.system_prompt import preamble, reminder
from mellea_cli.chat.turns import Conversation, Meter, Turn, answer_room, left_out
from mellea_cli.errors import ContextTooLong, MelleaError, OutputError, UsageError
from mellea_cli.messages import Usage
from mellea_cli.session.thunk import ModelOutputThunk

# The share of the window that must stay for what has been said.
_LEAST_FOR_HISTORY = 0.15


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that is being answered."""

    question: str
    thunk: ModelOutputThunk
    notes: tuple[str, ...] = ()
    """What the user should know about what the model was shown."""


@dataclass(slots=True)
class Memory:
    """Where a chat is kept.

    Args:
        store: the folder of chats; `None` keeps nothing.
        file: this chat's file; `None` keeps nothing.
    """

    store: ChatStore | None = None
    file: ChatFile | None = None
    broken: str = ""
    """Why the file is not written any more."""

    def note(self, kind: str, **facts: Any) -> None:
        """Keep a record. A disk that takes nothing must not end a chat: it is told once, by `broken`."""
        if self.file is None or self.broken:
            return
        try:
            self.file.append(kind, **facts)
        except OutputError as error:
            self.broken = error.message

    def use(self, file: ChatFile | None) -> None:
        """Go on in another file."""
        if self.file is not None:
            self.file.close()
        self.file, self.broken = file, ""


@dataclass(slots=True)
class Chat:
    """Everything about one chat but its looks.

    Attributes:
        partner: the model that answers.
        memory: where it is kept.
        said: the conversation.
        options: what `/set` has set, by the names of `SETTABLE`.
        material: files and data to answer from.
        hidden: how many of the oldest turns the model is no longer shown.
    """

    partner: ChatModel
    memory: Memory = field(default_factory=Memory)
    said: Conversation = field(default_factory=Conversation)
    options: dict[str, Any] = field(default_factory=dict)
    material: list[Document | Table] = field(default_factory=list)
    hidden: int = 0
    meter: Meter = field(default_factory=Meter)
    told: tuple[str, ...] = ()

    async def ask(self, question: str) -> Asked:
        """Ask the model. The question is kept before it is sent.

        Raises:
            UsageError: the question does not fit the model's window, or an option cannot be used.
        """
        system, notes = self._fit(question)
        asked = {SETTABLE[name].key: value for name, value in self.options.items() if SETTABLE[name].key}
        sent = question + reminder(self.tables())
        thunk = await self.partner.ask(sent, self.said.turns[self.hidden :], system, asked)
        self.said.pending = question
        self.memory.note("question", text=question)
        told, self.told = self.told, tuple(notes)
        return Asked(question, thunk, tuple(note for note in notes if note not in told))

    def answered(self, asked: Asked, text: str, finish: str = "") -> Turn:
        """Take the answer to a question, whole or as far as it came, and keep it.

        Args:
            asked: the question.
            text: the answer.
            finish: how it ended, where the answer itself does not say.
        """
        thunk = asked.thunk
        turn = Turn(
            asked.question,
            text,
            thunk.model or self.partner.address.model,
            thunk.usage or Usage(),
            thunk.first_token_s or 0.0,
            thunk.total_s or 0.0,
            finish or ("cut" if thunk.cancelled else thunk.finish_reason or "stop"),
        )
        self.said.turns.append(turn)
        self.said.pending = ""
        self.memory.note("answer", **answer_facts(turn))
        if thunk.usage is not None and thunk.messages:
            self.meter.learn([message.content for message in thunk.messages], thunk.usage.prompt_tokens)
        return turn

    def shorten(self) -> bool:
        """The server says that it is too long: hide half of the turns; `False` when there are none left."""
        left = len(self.said.turns) - self.hidden
        self.hidden += (left + 1) // 2
        return left > 0

    def used(self) -> int:
        """Tokens of the window that are in use: the server's count, or a guess after a change."""
        turns = self.said.turns
        if turns and turns[-1].usage.prompt_tokens:
            return turns[-1].usage.total_tokens
        return sum(self.meter.turn(turn) for turn in turns[self.hidden :]) + self.meter.tokens(self.said.system)

    def set_system(self, text: str) -> None:
        """Set the system prompt; empty for none."""
        self.said.system = text
        self.memory.note("system", text=text)

    def citations(self) -> Citations | None:
        """What knows the rows' ids; `None` without rows."""
        tables = self.tables()
        return Citations(frozenset().union(*(table.ids for table in tables))) if tables else None

    def tables(self) -> list[Table]:
        """The rows among the material."""
        return [one for one in self.material if isinstance(one, Table)]

    def attach(self, kind: str, path: str) -> Document | Table:
        """Give the chat a file (`"file"`) or a `summarise` output (`"data"`).

        Raises:
            InputError: it cannot be read.
        """
        one = read_data(path) if kind == "data" else read_file(path)
        # Where the chat is opened again may be another folder.
        place = str(Path(path).expanduser().absolute())
        if (kind, place) in self.said.attached:
            # Given once more: what it holds now takes the place of what it held.
            self.material = [other for other in self.material if other.name != one.name]
        else:
            self.said.attached.append((kind, place))
            self.memory.note("attached", what=kind, path=place)
        self.material.append(one)
        return one

    def resume(self, file: ChatFile, said: Conversation) -> list[str]:
        """Go on with a kept conversation; returns a note for each of its files that is not there any more."""
        self.memory.use(file)
        self.said, self.hidden, self.told = said, 0, ()
        self.material.clear()
        notes: list[str] = []
        for kind, path in said.attached:
            try:
                self.material.append(read_data(path) if kind == "data" else read_file(path))
            except MelleaError as error:
                notes.append(f"not attached any more: {error.message}")
        return notes

    async def switch(self, partner: ChatModel) -> None:
        """Let another model answer from here on; the conversation stays."""
        before, self.partner = self.partner, partner
        self.hidden = 0
        await before.aclose()

    async def aclose(self) -> None:
        """Close connections and file."""
        self.memory.use(None)
        await self.partner.aclose()

    def _fit(self, question: str) -> tuple[str, list[str]]:
        """The system message, and what to tell; hides the turns that do not fit."""
        window, tokens = self.partner.address.known_window, self.meter.tokens
        if window is None:
            made = preamble(self.said.system, self.material, question, None, tokens)
            return made.text, list(made.notes)
        free = window - answer_room(window, self.options.get("max_tokens"))
        free -= tokens(question) + tokens(self.said.system) + 32
        if free < 0:
            raise UsageError(
                f"this is about {tokens(question):,} tokens, more than the model's window of {window:,} has room for",
                hint="shorten it, or make the window larger: /set context TOKENS",
            )
        made = preamble(self.said.system, self.material, question, int(free * (1 - _LEAST_FOR_HISTORY)), tokens)
        free -= tokens(made.text) - tokens(self.said.system)
        before, self.hidden = self.hidden, max(self.hidden, left_out(self.said.turns, free, self.meter))
        notes = list(made.notes)
        if self.hidden > before:
            notes.append(hidden_note(self.hidden, window))
        return made.text, notes


def hidden_note(hidden: int, window: int | None) -> str:
    """What to say when the oldest turns leave."""
    size = f"window of {window:,} tokens" if window else "window"
    turns = "the oldest turn is" if hidden == 1 else f"the oldest {hidden} turns are"
    return f"the model's {size} is nearly full: {turns} no longer shown to it"


def too_long(error: BaseException | None) -> bool:
    """Whether a question failed only because the conversation has outgrown the model's window."""
    return isinstance(error, ContextTooLong)


def open_memory(folder: Path) -> Memory:
    """A memory in this folder, with a file of its own that is made by its first record."""
    store = ChatStore(folder)
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Memory(store, store.new())
