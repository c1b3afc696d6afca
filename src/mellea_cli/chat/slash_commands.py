"""The slash commands by name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from mellea_cli.chat.attachments import Document
from mellea_cli.chat.chat_model import SETTABLE, read_setting
from mellea_cli.chat.chat_session import Chat
from mellea_cli.chat.chat_store import ChatFile, answer_facts, code_blocks
from mellea_cli.chat.chat_store import write_export as write
from mellea_cli.chat.turns import Conversation
from mellea_cli.errors import UsageError, nearest

# What a slash command is, and what it asks of the screen.


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command leaves for the screen to do, in this order."""

    notes: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    """A table to print."""
    headers: Sequence[str] = ()
    show_turns: int = 0
    """Print so many of the last turns again."""
    copy: str = ""
    """Put this on the clipboard."""
    ask: str = ""
    """Ask this."""
    draft: str | None = None
    """Put this into the prompt."""
    edit: bool = False
    """Open the editor on the draft."""
    multi: bool = False
    """Change what Enter does."""
    leave: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """A slash command."""

    name: str
    argument: str
    help: str
    run: Callable[[Chat, str], Awaitable[CommandResult]] = field(repr=False)
    completes: str = ""
    """What its argument is one of: `model`, `path`, `option`, `session`; empty for anything."""


# Slash commands that change, keep or hand out what has been said.


async def retry(chat: Chat, _: str) -> CommandResult:
    """Ask the last question again."""
    if chat.said.pending:
        return CommandResult(ask=chat.said.pending)
    question = _withdraw(chat)
    return CommandResult(ask=question)


async def undo(chat: Chat, _: str) -> CommandResult:
    """Take the last turn back."""
    question = _withdraw(chat)
    return CommandResult(notes=["the last turn is gone; its question is below"], draft=question)


def _withdraw(chat: Chat) -> str:
    if not chat.said.turns:
        raise UsageError("nothing has been said yet", hint="ask something first")
    question = chat.said.turns.pop().question
    chat.hidden = min(chat.hidden, len(chat.said.turns))
    chat.memory.note("undo")
    return question


async def clear(chat: Chat, _: str) -> CommandResult:
    """Forget the conversation."""
    chat.said.turns.clear()
    chat.said.pending, chat.hidden = "", 0
    chat.memory.note("clear")
    return CommandResult(notes=["the conversation is cleared; the system prompt and files stay"])


async def save(chat: Chat, name: str) -> CommandResult:
    """Give the chat a name, and go on under it."""
    store = chat.memory.store
    if store is None:
        raise UsageError("this chat keeps nothing (--no-history)", hint="write it to a file: /export FILE.md")
    if not name:
        file = chat.memory.file
        return CommandResult(notes=[f"kept as it grows: {file.path if file else ''}; /save NAME gives it a name"])
    file = store.new(name)
    _copy(chat.said, file)
    chat.memory.use(file)
    return CommandResult(notes=[f"saved as {name}, and goes on there: mellea chat --resume {name}"])


def _copy(said: Conversation, file: ChatFile) -> None:
    if said.system:
        file.append("system", text=said.system)
    for kind, path in said.attached:
        file.append("attached", what=kind, path=path)
    for turn in said.turns:
        file.append("question", text=turn.question)
        file.append("answer", **answer_facts(turn))


async def load(chat: Chat, name: str) -> CommandResult:
    """Go on with another chat."""
    store = chat.memory.store
    if store is None:
        raise UsageError("this chat keeps nothing (--no-history)", hint="start mellea chat without it")
    if not name:
        raise UsageError("/load needs the id of a chat", hint="/sessions lists them")
    file, said = store.open(name)
    notes = chat.resume(file, said)
    return CommandResult(
        notes=[*notes, f"this is {file.id}, {len(said.turns)} turns"], show_turns=2, draft=said.pending
    )


async def sessions(chat: Chat, _: str) -> CommandResult:
    """List the chats that are kept."""
    listed = chat.memory.store.listed() if chat.memory.store else []
    if not listed:
        return CommandResult(notes=["no chat is kept"])
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
    return CommandResult(rows=rows, headers=("", "id", "changed", "turns", "first line"))


async def export(chat: Chat, path: str) -> CommandResult:
    """Write the chat to a Markdown file."""
    if not path:
        raise UsageError("/export needs a file", hint="/export FILE.md")
    return CommandResult(notes=[f"written to {write(chat.said, path)}"])


async def copy_code(chat: Chat, _: str) -> CommandResult:
    """Copy the last code block."""
    blocks = code_blocks(chat.said.turns)
    if not blocks:
        raise UsageError("there is no code block in the answers", hint="select the text with the mouse")
    lines = blocks[-1].count("\n") + 1
    return CommandResult(
        notes=[f"copied {lines} line{'s' if lines > 1 else ''}, if your terminal takes OSC 52"], copy=blocks[-1]
    )


def is_command(line: str) -> bool:
    """Whether a line is meant as a command; a path such as `/etc/hosts is what?` is none."""
    word = line.partition("\n")[0].split(maxsplit=1)[:1]
    return bool(word) and line.startswith("/") and "/" not in word[0][1:]


async def run_command(chat: Chat, line: str) -> CommandResult:
    """Run the command in `line`.

    Raises:
        UsageError: there is no such command, with the nearest that there is, or it was misused.
        MelleaError: it failed.
    """
    name, _, argument = line[1:].strip().partition(" ")
    command = COMMANDS.get(name.strip().lower())
    if command is None:
        near = nearest(name, COMMANDS, 0.5)
        hint = f"did you mean /{near}?" if near else "/help lists the commands"
        raise UsageError(f"there is no command /{name}", hint=hint)
    return await command.run(chat, argument.strip())


async def _help(_: Chat, __: str) -> CommandResult:
    rows = [(f"/{one.name} {one.argument}".rstrip(), one.help) for one in COMMANDS.values()]
    keys = [
        ('"""', "begins and ends a text of several lines; Alt-Enter breaks a line anywhere"),
        ("Ctrl-C", "stops an answer, or clears the line; twice at an empty prompt leaves"),
        ("Ctrl-R", "searches what you have typed; Ctrl-D leaves"),
    ]
    return CommandResult(rows=[*rows, *keys])


async def _model(chat: Chat, name: str) -> CommandResult:
    address = chat.partner.address
    known = await chat.partner.models()
    if not name:
        rows = [("*" if one == address.model else "", one) for one in known]
        return CommandResult(notes=[f"{address.name} ({address.backend}) answers; /model NAME changes that"], rows=rows)
    if name == address.model:
        return CommandResult(notes=[f"{name} answers already"])
    notes: list[str] = []
    if address.backend == "local":
        _check_local(name)
    elif known and name not in known and f"{name}:latest" not in known:
        near = nearest(name, known)
        if address.backend == "ollama":
            hint = f"did you mean {near}?" if near else f"fetch it with: ollama pull {name}"
            raise UsageError(f"Ollama does not have the model {name}", hint=hint)
        notes.append("the server does not list this model" + (f"; did you mean {near}?" if near else ""))
    await chat.switch(chat.partner.at(model=name))
    kept = len(chat.said.turns)
    also = f"; it goes on with the {kept} turns so far" if kept > 1 else ""
    return CommandResult(notes=[*notes, f"{name} answers from here on{also}"])


def _check_local(name: str) -> None:
    """Raises `UsageError` or `ModelFileError` unless the embedded server could load this model now."""
    from mellea_cli.errors import ModelFileError
    from mellea_cli.models.store import ModelStore

    if ModelStore().find(name) is None:
        raise ModelFileError(f"the model {name} is not on this machine", hint=f"mellea models pull {name}")


async def _system(chat: Chat, text: str) -> CommandResult:
    if not text:
        return CommandResult(
            notes=[f"the system prompt is: {chat.said.system}" if chat.said.system else "no system prompt"]
        )
    chat.set_system("" if text in {"none", "off"} else text)
    return CommandResult(notes=["the system prompt is set" if chat.said.system else "the system prompt is gone"])


async def _file(chat: Chat, path: str) -> CommandResult:
    if not path:
        names = [one.name for one in chat.material]
        return CommandResult(
            notes=[f"attached: {', '.join(names)}" if names else "no file is attached; /file PATH does it"]
        )
    return CommandResult(notes=[attached(chat, "file", path)])


def attached(chat: Chat, kind: str, path: str) -> str:
    """Attach a file and say what it is. Raises `InputError` when it cannot be read."""
    one = chat.attach(kind, path)
    if isinstance(one, Document):
        return f"attached {one.name}: about {chat.meter.tokens(one.text):,} tokens"
    left = f"; {one.skipped:,} rows without a usable text are left out" if one.skipped else ""
    return f"attached {one.name}: {len(one.rows):,} row{'s' if len(one.rows) > 1 else ''}{left}"


async def _multi(_: Chat, __: str) -> CommandResult:
    return CommandResult(multi=True)


async def _edit(_: Chat, text: str) -> CommandResult:
    return CommandResult(draft=text, edit=True)


async def _usage(chat: Chat, _: str) -> CommandResult:
    used, window, total = chat.used(), chat.partner.address.known_window, chat.said.usage
    of = f" of {window:,} ({used / window:.0%})" if window else "; the window's size is not known (--context TOKENS)"
    turns = chat.said.turns
    rows = [
        ("window", f"{used:,} tokens{of}"),
        ("turns", f"{len(turns)}" + (f", the oldest {chat.hidden} not shown to the model" if chat.hidden else "")),
        ("prompts", f"{total.prompt_tokens:,} tokens"),
        ("answers", f"{total.completion_tokens:,} tokens"),
    ]
    if turns:
        rows.append(
            ("last answer", f"{turns[-1].tokens_per_s:.1f} tokens/s, first token after {turns[-1].first_token_s:.1f} s")
        )
    return CommandResult(rows=rows)


async def _set(chat: Chat, text: str) -> CommandResult:
    name, _, value = text.partition(" ")
    if not value.strip():
        if name:
            read_setting(name, "")
        window = chat.partner.address.known_window
        now = {**chat.options, "context": f"{window:,}" if window else None}
        return CommandResult(
            rows=[(one, str(now.get(one) if now.get(one) is not None else "default")) for one in SETTABLE]
        )
    setting = read_setting(name, value)
    if name == "context":
        await chat.switch(chat.partner.at(window=setting))
    elif setting is None:
        chat.options.pop(name, None)
    else:
        chat.options[name] = setting
    return CommandResult(notes=[f"{name} is {'left to the default' if setting is None else value.strip()}"])


async def _exit(_: Chat, __: str) -> CommandResult:
    return CommandResult(leave=True)


_ALL = (
    Command("help", "", "list the commands", _help),
    Command("model", "[NAME]", "let another model answer, or list the models", _model, "model"),
    Command("system", "[TEXT]", "set the system prompt, or show it; none removes it", _system),
    Command("file", "PATH", "attach a file: text, JSONL or CSV", _file, "path"),
    Command("multi", "", "let Enter break lines and Alt-Enter send, or back", _multi),
    Command("edit", "[TEXT]", "write the question in $EDITOR", _edit),
    Command("retry", "", "ask the last question again", retry),
    Command("undo", "", "take the last turn back", undo),
    Command("clear", "", "forget the conversation", clear),
    Command("save", "[NAME]", "save the chat under a name", save),
    Command("load", "ID", "go on with another chat", load, "session"),
    Command("sessions", "", "list the chats that are kept", sessions),
    Command("export", "FILE.md", "write the chat to a Markdown file", export, "path"),
    Command("usage", "", "show tokens used", _usage),
    Command("set", "[OPTION VALUE]", "set temperature, max_tokens, seed …; VALUE may be default", _set, "option"),
    Command("copy", "", "copy the last code block", copy_code),
    Command("exit", "", "leave", _exit),
)
COMMANDS = {command.name: command for command in _ALL}
"""The commands by name, in the order in which /help lists them."""
