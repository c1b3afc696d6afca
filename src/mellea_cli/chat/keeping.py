"""Slash commands that change, keep or hand out what has been said."""

from __future__ import annotations

from mellea_cli.chat.chat import Chat
from mellea_cli.chat.conversation import Conversation
from mellea_cli.chat.effect import Effect
from mellea_cli.chat.export import code_blocks
from mellea_cli.chat.export import export as write
from mellea_cli.chat.store import ChatFile, answer_facts
from mellea_cli.errors import UsageError


async def retry(chat: Chat, _: str) -> Effect:
    """Ask the last question again."""
    if chat.said.pending:
        return Effect(ask=chat.said.pending)
    question = _withdraw(chat)
    return Effect(ask=question)


async def undo(chat: Chat, _: str) -> Effect:
    """Take the last turn back."""
    question = _withdraw(chat)
    return Effect(notes=["the last turn is gone; its question is below"], draft=question)


def _withdraw(chat: Chat) -> str:
    if not chat.said.turns:
        raise UsageError("nothing has been said yet", hint="ask something first")
    question = chat.said.turns.pop().question
    chat.hidden = min(chat.hidden, len(chat.said.turns))
    chat.memory.note("undo")
    return question


async def clear(chat: Chat, _: str) -> Effect:
    """Forget the conversation."""
    chat.said.turns.clear()
    chat.said.pending, chat.hidden = "", 0
    chat.memory.note("clear")
    return Effect(notes=["the conversation is cleared; the system prompt and files stay"])


async def save(chat: Chat, name: str) -> Effect:
    """Give the chat a name, and go on under it."""
    store = chat.memory.store
    if store is None:
        raise UsageError("this chat keeps nothing (--no-history)", hint="write it to a file: /export FILE.md")
    if not name:
        file = chat.memory.file
        return Effect(notes=[f"kept as it grows: {file.path if file else ''}; /save NAME gives it a name"])
    file = store.new(name)
    _copy(chat.said, file)
    chat.memory.use(file)
    return Effect(notes=[f"saved as {name}, and goes on there: mellea chat --resume {name}"])


def _copy(said: Conversation, file: ChatFile) -> None:
    if said.system:
        file.append("system", text=said.system)
    for kind, path in said.attached:
        file.append("attached", what=kind, path=path)
    for turn in said.turns:
        file.append("question", text=turn.question)
        file.append("answer", **answer_facts(turn))


async def load(chat: Chat, name: str) -> Effect:
    """Go on with another chat."""
    store = chat.memory.store
    if store is None:
        raise UsageError("this chat keeps nothing (--no-history)", hint="start mellea chat without it")
    if not name:
        raise UsageError("/load needs the id of a chat", hint="/sessions lists them")
    file, said = store.open(name)
    notes = chat.resume(file, said)
    return Effect(notes=[*notes, f"this is {file.id}, {len(said.turns)} turns"], show_turns=2, draft=said.pending)


async def sessions(chat: Chat, _: str) -> Effect:
    """List the chats that are kept."""
    listed = chat.memory.store.listed() if chat.memory.store else []
    if not listed:
        return Effect(notes=["no chat is kept"])
    current = chat.memory.file.id if chat.memory.file else ""
    rows = [
        (
            "*" if one.id == current else "",
            one.id,
            f"{one.changed:%Y-%m-%d %H:%M}",
            str(one.turns),
            one.first_line,
        )
        for one in listed
    ]
    return Effect(rows=rows, headers=("", "id", "changed", "turns", "first line"))


async def export(chat: Chat, path: str) -> Effect:
    """Write the chat to a Markdown file."""
    if not path:
        raise UsageError("/export needs a file", hint="/export FILE.md")
    return Effect(notes=[f"written to {write(chat.said, path)}"])


async def copy_code(chat: Chat, _: str) -> Effect:
    """Copy the last code block."""
    blocks = code_blocks(chat.said.turns)
    if not blocks:
        raise UsageError("there is no code block in the answers", hint="select the text with the mouse")
    lines = blocks[-1].count("\n") + 1
    return Effect(
        notes=[f"copied {lines} line{'s' if lines > 1 else ''}, if your terminal takes OSC 52"], copy=blocks[-1]
    )
