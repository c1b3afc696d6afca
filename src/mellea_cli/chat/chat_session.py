"""One chat: a conversation, the model that answers, its attachments, and the file it is kept in."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mellea_cli.chat.attachments import CountTokens, DataTable, Document, read_data, read_file
from mellea_cli.chat.chat_model import CHAT_OPTIONS, ChatModel
from mellea_cli.chat.chat_store import ChatFile, ChatStore, answer_record
from mellea_cli.chat.citations import Citations
from mellea_cli.chat.conversation import Conversation, TokenEstimator, Turn, answer_room, turns_to_hide
from mellea_cli.errors import ContextTooLong, MelleaError, OutputError, UsageError
from mellea_cli.messages import Usage
from mellea_cli.session.thunk import ModelOutputThunk

# The share of the window that attachments leave to the conversation.
_MIN_CONVERSATION_SHARE = 0.15
# Headers and separators of the request.
_SPARE_TOKENS = 32


@dataclass(frozen=True, slots=True)
class PendingAnswer:
    """A question that is being answered."""

    question: str
    thunk: ModelOutputThunk
    notes: tuple[str, ...] = ()  # What the user should know about what the model was shown


@dataclass(slots=True)
class ChatHistory:
    """Where a chat is kept; without a store and a file it is not kept."""

    store: ChatStore | None = None
    file: ChatFile | None = None
    write_error: str = ""  # Why nothing is written any more; empty while all is well

    @classmethod
    def in_folder(cls, folder: Path) -> ChatHistory:
        """A history with a new file in this folder; its first record creates the file."""
        store = ChatStore(folder)
        with suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return cls(store, store.new())

    def append(self, kind: str, **facts: Any) -> None:
        """Keep a record. A disk that takes nothing must not end a chat: see `write_error`."""
        if self.file is None or self.write_error:
            return
        try:
            self.file.append(kind, **facts)
        except OutputError as error:
            self.write_error = error.message

    def use(self, file: ChatFile | None) -> None:
        """Continue in another file."""
        if self.file is not None:
            self.file.close()
        self.file, self.write_error = file, ""


@dataclass(slots=True)
class Chat:
    """Everything about one chat but its looks."""

    model: ChatModel
    history: ChatHistory = field(default_factory=ChatHistory)
    conversation: Conversation = field(default_factory=Conversation)
    options: dict[str, Any] = field(default_factory=dict)  # What `/set` has set, by the names of `CHAT_OPTIONS`
    attachments: list[Document | DataTable] = field(default_factory=list)
    hidden: int = 0  # How many of the oldest turns are no longer sent to the model
    estimator: TokenEstimator = field(default_factory=TokenEstimator)
    _shown_notes: tuple[str, ...] = ()  # Of the last question: a note is not repeated while it holds

    async def ask(self, question: str) -> PendingAnswer:
        """Ask the model. The question is kept before it is sent.

        Raises:
            UsageError: the question does not fit the model's window, or an option cannot be used.
        """
        system, notes = self._fit(question)
        options = {CHAT_OPTIONS[name].key: value for name, value in self.options.items() if CHAT_OPTIONS[name].key}
        sent = question + reminder(self.tables())
        thunk = await self.model.ask(sent, self.conversation.turns[self.hidden :], system, options)
        self.conversation.pending = question
        self.history.append("question", text=question)
        news = tuple(note for note in notes if note not in self._shown_notes)
        self._shown_notes = tuple(notes)
        return PendingAnswer(question, thunk, news)

    def add_answer(self, pending: PendingAnswer, text: str, finish: str = "") -> Turn:
        """Keep an answer, whole or as far as it came; `finish` says how it ended, where the thunk does not know."""
        thunk = pending.thunk
        turn = Turn(
            pending.question,
            text,
            thunk.model or self.model.address.model,
            thunk.usage or Usage(),
            thunk.first_token_s or 0.0,
            thunk.total_s or 0.0,
            finish or ("cut" if thunk.cancelled else thunk.finish_reason or "stop"),
        )
        self.conversation.turns.append(turn)
        self.conversation.pending = ""
        self.history.append("answer", **answer_record(turn))
        if thunk.usage is not None and thunk.messages:
            self.estimator.learn([message.content for message in thunk.messages], thunk.usage.prompt_tokens)
        return turn

    def shorten(self, error: MelleaError | None) -> bool:
        """Hide half of the turns when the server finds the conversation too long.

        Returns whether the question should be asked again; not when something else failed, or no turn is left to hide.
        """
        if not isinstance(error, ContextTooLong):
            return False
        shown = len(self.conversation.turns) - self.hidden
        self.hidden += (shown + 1) // 2
        return shown > 0

    def tokens_used(self) -> int:
        """Tokens of the window in use: the server's count, or an estimate after a change."""
        turns = self.conversation.turns
        if turns and turns[-1].usage.prompt_tokens:
            return turns[-1].usage.total_tokens
        shown = sum(self.estimator.turn(turn) for turn in turns[self.hidden :])
        return shown + self.estimator.tokens(self.conversation.system)

    def set_system(self, text: str) -> None:
        """Set the system prompt; empty for none."""
        self.conversation.system = text
        self.history.append("system", text=text)

    def tables(self) -> list[DataTable]:
        return [one for one in self.attachments if isinstance(one, DataTable)]

    def citations(self) -> Citations:
        """The checker of cited row ids; without rows it finds none."""
        return Citations(frozenset().union(*(table.ids for table in self.tables())))

    def attach(self, kind: str, path: str) -> str:
        """Attach a file (`"file"`) or a `summarise` output (`"data"`); returns what it is, in words.

        Raises:
            InputError: it cannot be read.
        """
        attachment = _read(kind, path)
        # A resumed chat may run in another folder.
        absolute = str(Path(path).expanduser().absolute())
        if (kind, absolute) in self.conversation.attached:
            # Attached again: its content may have changed.
            self.attachments = [other for other in self.attachments if other.name != attachment.name]
        else:
            self.conversation.attached.append((kind, absolute))
            self.history.append("attached", what=kind, path=absolute)
        self.attachments.append(attachment)
        if isinstance(attachment, Document):
            return f"attached {attachment.name}: about {self.estimator.tokens(attachment.text):,} tokens"
        rows, skipped = len(attachment.rows), attachment.skipped
        ignored = f"; {skipped:,} rows without a usable text are ignored" if skipped else ""
        return f"attached {attachment.name}: {rows:,} row{'s' if rows > 1 else ''}{ignored}"

    def resume(self, file: ChatFile, conversation: Conversation) -> list[str]:
        """Continue a kept conversation; returns a note for each attachment that cannot be read any more."""
        self.history.use(file)
        self.conversation, self.hidden, self._shown_notes = conversation, 0, ()
        self.attachments.clear()
        notes: list[str] = []
        for kind, path in conversation.attached:
            try:
                self.attachments.append(_read(kind, path))
            except MelleaError as error:
                notes.append(f"no longer attached: {error.message}")
        return notes

    async def switch(self, model: ChatModel) -> None:
        """Let another model answer from here on; the conversation stays."""
        previous, self.model = self.model, model
        self.hidden = 0
        await previous.aclose()

    async def aclose(self) -> None:
        """Close connections and file."""
        self.history.use(None)
        await self.model.aclose()

    def _fit(self, question: str) -> tuple[str, list[str]]:
        """Build the system message and hide the turns that do not fit; returns it with notes for the user."""
        window, tokens = self.model.address.known_window, self.estimator.tokens
        system, turns = self.conversation.system, self.conversation.turns
        if window is None:
            return system_message(system, self.attachments, question, None, tokens)
        room = window - answer_room(window, self.options.get("max_tokens"))
        room -= tokens(question) + tokens(system) + _SPARE_TOKENS
        if room < 0:
            raise UsageError(
                f"the question has about {tokens(question):,} tokens, too many for the model's window of {window:,}",
                hint="shorten it, or enlarge the window: /set context TOKENS",
            )
        for_attachments = int(room * (1 - _MIN_CONVERSATION_SHARE))
        message, notes = system_message(system, self.attachments, question, for_attachments, tokens)
        room -= tokens(message) - tokens(system)
        hidden = turns_to_hide(turns, room, self.estimator)
        if hidden > self.hidden:
            self.hidden = hidden
            oldest = "the oldest turn is" if hidden == 1 else f"the oldest {hidden} turns are"
            notes.append(f"the model's window of {window:,} tokens is nearly full: {oldest} no longer sent")
        return message, notes


def _read(kind: str, path: str) -> Document | DataTable:
    return read_data(path) if kind == "data" else read_file(path)


def system_message(
    system: str,
    attachments: list[Document | DataTable],
    question: str,
    room: int | None,
    tokens: CountTokens,
) -> tuple[str, list[str]]:
    """The user's system prompt, whole, then the attachments in `room` tokens; and notes about what was left out.

    Rows that do not all fit are chosen by the question. Without a `room`, because the window is unknown, all are sent.
    """
    parts, notes = [system] if system else [], []
    for place, attachment in enumerate(attachments):
        share = None if room is None else max(0, room) // (len(attachments) - place)
        text, note = attachment.render(question, share, tokens)
        parts.append(text)
        notes += [note] if note else []
        room = None if room is None else room - tokens(text)
    return "\n\n".join(parts), notes


def reminder(tables: list[DataTable]) -> str:
    """What is sent after a question about rows: by then small models have forgotten the system message."""
    if not tables:
        return ""
    ids = " ".join(f"[{row.id}]" for row in tables[-1].rows[:2])
    return (
        "\n\nAnswer from the rows, in a few full sentences. After each sentence write the ids of the rows that it rests"
        f" on, in square brackets as they stand there, such as {ids}."
    )
