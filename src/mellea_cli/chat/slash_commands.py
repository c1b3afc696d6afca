"""The slash commands of a chat."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mellea_cli.chat.chat_model import CHAT_OPTIONS, read_option
from mellea_cli.chat.chat_session import Chat
from mellea_cli.chat.chat_store import ChatStore, answer_record, last_code_block, write_export
from mellea_cli.errors import ModelFileError, UsageError, nearest


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What the screen has to do after a command, in this order."""

    notes: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()  # A table to print
    headers: Sequence[str] = ()
    show_turns: int = 0  # Print this many of the last turns again
    copy: str = ""  # Put this on the clipboard
    ask: str = ""  # Ask this question
    draft: str | None = None  # Put this into the prompt
    edit: bool = False  # Open the editor with the draft
    toggle_multiline: bool = False  # Change what Enter does
    confirm: str = ""  # Ask this, and run `confirmed` after a yes
    confirmed: str = ""
    exit: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """A slash command."""

    name: str
    argument: str
    help: str
    run: Callable[[Chat, str], Awaitable[CommandResult]]
    completes: str = ""  # What its argument is completed with: `model`, `path`, `option`, `session`; empty for nothing


# What people type to leave or to get help in other programs. Nobody asks a model this.
_WORDS = {"exit": "/exit", "quit": "/exit", "bye": "/exit", ":q": "/exit", "?": "/help", "help": "/help"}
_ALIASES = {"quit": "exit", "bye": "exit", "q": "exit", "?": "help"}


def as_command(line: str) -> str:
    """The command that a line such as `exit`, `quit` or `?` stands for; any other line as it is."""
    return _WORDS.get(line.strip().lower(), line)


def is_command(line: str) -> bool:
    """Whether a line is meant as a command; a question about a path such as `/etc/hosts` is not."""
    word = line.partition("\n")[0].split(maxsplit=1)[:1]
    return bool(word) and line.startswith("/") and "/" not in word[0][1:]


async def run_command(chat: Chat, line: str) -> CommandResult:
    """Run the command in `line`.

    Raises:
        UsageError: there is no such command, or it was misused.
        MelleaError: it failed.
    """
    name, _, argument = line[1:].strip().partition(" ")
    wanted = name.strip().lower()
    command = COMMANDS.get(_ALIASES.get(wanted, wanted))
    if command is None:
        near = nearest(name, COMMANDS, 0.5)
        hint = f"did you mean /{near}?" if near else "/help lists the commands"
        raise UsageError(f"there is no command /{name}", hint=hint)
    return await command.run(chat, argument.strip())


async def _help(_: Chat, __: str) -> CommandResult:
    commands = [(f"/{one.name} {one.argument}".rstrip(), one.help) for one in COMMANDS.values()]
    keys = [
        ('"""', "begins and ends a text of several lines; Alt-Enter breaks a line anywhere"),
        ("Ctrl-C", "stops an answer, or clears the line; twice at an empty prompt exits"),
        ("Ctrl-R", "searches what you have typed; Ctrl-D exits"),
    ]
    return CommandResult(rows=[*commands, *keys])


async def _model(chat: Chat, name: str) -> CommandResult:
    address = chat.model.address
    known = await chat.model.models()
    if not name:
        rows = [("*" if one == address.model else "", one) for one in known]
        return CommandResult(
            notes=[f"the model is {address.name} ({address.backend}); change it: /model NAME"], rows=rows
        )
    if name == address.model:
        return CommandResult(notes=[f"the model is {name} already"])
    notes: list[str] = []
    near = nearest(name, known)
    if address.backend == "local":
        from mellea_cli.models.store import ModelStore

        if ModelStore().find(name) is None:
            raise ModelFileError(f"the model {name} is not on this machine", hint=f"mellea models pull {name}")
    elif known and name not in known and f"{name}:latest" not in known:
        if address.backend == "ollama":
            hint = f"did you mean {near}?" if near else f"fetch it with: ollama pull {name}"
            raise UsageError(f"Ollama does not have the model {name}", hint=hint)
        notes.append("the server does not list this model" + (f"; did you mean {near}?" if near else ""))
    await chat.switch(chat.model.at(model=name))
    turns = len(chat.conversation.turns)
    with_turns = f"; it gets the {turns} turns so far" if turns > 1 else ""
    return CommandResult(notes=[*notes, f"the model is {name} from here on{with_turns}"])


async def _system(chat: Chat, text: str) -> CommandResult:
    system = chat.conversation.system
    if not text:
        return CommandResult(notes=[f"the system prompt is: {system}" if system else "no system prompt"])
    if text in {"none", "off"}:
        chat.set_system("")
        return CommandResult(notes=["the system prompt is removed"])
    chat.set_system(text)
    return CommandResult(notes=["the system prompt is set"])


async def _file(chat: Chat, path: str) -> CommandResult:
    if path:
        return CommandResult(notes=[chat.attach("file", path)])
    names = ", ".join(one.name for one in chat.attachments)
    return CommandResult(notes=[f"attached: {names}" if names else "no file is attached; attach one: /file PATH"])


async def _multi(_: Chat, __: str) -> CommandResult:
    return CommandResult(toggle_multiline=True)


async def _edit(_: Chat, text: str) -> CommandResult:
    return CommandResult(draft=text, edit=True)


async def _retry(chat: Chat, _: str) -> CommandResult:
    return CommandResult(ask=chat.conversation.pending or _remove_last_turn(chat))


async def _undo(chat: Chat, _: str) -> CommandResult:
    question = _remove_last_turn(chat)
    return CommandResult(notes=["the last turn is removed; its question is below"], draft=question)


def _remove_last_turn(chat: Chat) -> str:
    turns = chat.conversation.turns
    if not turns:
        raise UsageError("the conversation is empty", hint="ask something first")
    question = turns.pop().question
    chat.hidden = min(chat.hidden, len(turns))
    chat.history.append("undo")
    return question


async def _clear(chat: Chat, _: str) -> CommandResult:
    chat.conversation.turns.clear()
    chat.conversation.pending, chat.hidden = "", 0
    chat.history.append("clear")
    return CommandResult(notes=["the conversation is cleared; the system prompt and files stay"])


async def _save(chat: Chat, name: str) -> CommandResult:
    store = _store(chat, hint="write it to a file: /export FILE.md")
    if not name:
        path = chat.history.file.path if chat.history.file else ""
        return CommandResult(notes=[f"this chat is saved in {path}; name it: /save NAME"])
    file, conversation = store.new(name), chat.conversation
    if conversation.system:
        file.append("system", text=conversation.system)
    for kind, path in conversation.attached:
        file.append("attached", what=kind, path=path)
    for turn in conversation.turns:
        file.append("question", text=turn.question)
        file.append("answer", **answer_record(turn))
    chat.history.use(file)
    return CommandResult(notes=[f"saved as {name}, and continued there: mellea chat --resume {name}"])


async def _load(chat: Chat, name: str) -> CommandResult:
    store = _store(chat, hint="start mellea chat without it")
    if not name:
        raise UsageError("/load needs the id of a chat", hint="/sessions lists them")
    file, conversation = store.open(name)
    notes = chat.resume(file, conversation)
    this = f"this is {file.id}, {len(conversation.turns)} turns"
    return CommandResult(notes=[*notes, this], show_turns=2, draft=conversation.pending)


def _store(chat: Chat, hint: str) -> ChatStore:
    if chat.history.store is None:
        raise UsageError("this chat is not kept (--no-history)", hint=hint)
    return chat.history.store


async def _sessions(chat: Chat, _: str) -> CommandResult:
    chats = chat.history.store.summaries() if chat.history.store else []
    if not chats:
        return CommandResult(notes=["no chat is kept"])
    current = chat.history.file.id if chat.history.file else ""
    rows = [
        ("*" if one.id == current else "", one.id, f"{one.changed:%Y-%m-%d %H:%M}", str(one.turns), one.first_line)
        for one in chats
    ]
    return CommandResult(rows=rows, headers=("", "id", "changed", "turns", "first line"))


async def _export(chat: Chat, path: str) -> CommandResult:
    if not path:
        raise UsageError("/export needs a file", hint="/export FILE.md")
    first, _, rest = path.partition(" ")
    overwrite = first == "--overwrite"
    path = rest.strip() if overwrite else path
    if not overwrite and _exists(path):
        return CommandResult(confirm=f"{path} exists; replace it?", confirmed=f"/export --overwrite {path}")
    return CommandResult(notes=[f"written to {write_export(chat.conversation, path)}"])


def _exists(path: str) -> bool:
    return Path(path).expanduser().exists()


async def _usage(chat: Chat, _: str) -> CommandResult:
    used, window = chat.tokens_used(), chat.model.address.known_window
    turns, total = chat.conversation.turns, chat.conversation.usage
    of = f" of {window:,} ({used / window:.0%})" if window else "; the window's size is unknown (--context TOKENS)"
    hidden = f", the oldest {chat.hidden} not sent to the model" if chat.hidden else ""
    rows = [
        ("window", f"{used:,} tokens{of}"),
        ("turns", f"{len(turns)}{hidden}"),
        ("prompts", f"{total.prompt_tokens:,} tokens"),
        ("answers", f"{total.completion_tokens:,} tokens"),
    ]
    if turns:
        speed = f"{turns[-1].tokens_per_s:.1f} tokens/s, first token after {turns[-1].first_token_s:.1f} s"
        rows.append(("last answer", speed))
    return CommandResult(rows=rows)


async def _set(chat: Chat, text: str) -> CommandResult:
    name, _, value = text.partition(" ")
    if not value.strip():
        if name:
            read_option(name, "")
        window = chat.model.address.known_window
        values = {**chat.options, "context": f"{window:,}" if window else None}
        defaults = dict.fromkeys(CHAT_OPTIONS, "default")
        shown = defaults | {key: str(one) for key, one in values.items() if one is not None}
        return CommandResult(rows=list(shown.items()))
    setting = read_option(name, value)
    if name == "context":
        await chat.switch(chat.model.at(window=setting))
    elif setting is None:
        chat.options.pop(name, None)
    else:
        chat.options[name] = setting
    return CommandResult(notes=[f"{name} is {'the default' if setting is None else value.strip()}"])


async def _copy(chat: Chat, _: str) -> CommandResult:
    block = last_code_block(chat.conversation.turns)
    if block is None:
        raise UsageError("the answers have no code block", hint="select the text with the mouse")
    lines = block.count("\n") + 1
    note = f"copied {lines} line{'s' if lines > 1 else ''}, if your terminal supports OSC 52"
    return CommandResult(notes=[note], copy=block)


async def _exit(_: Chat, __: str) -> CommandResult:
    return CommandResult(exit=True)


_ALL = (
    Command("help", "", "list the commands", _help),
    Command("model", "[NAME]", "switch to another model, or list the models", _model, "model"),
    Command("system", "[TEXT]", "set the system prompt, or show it; none removes it", _system),
    Command("file", "PATH", "attach a file: text, JSONL or CSV", _file, "path"),
    Command("multi", "", "let Enter break lines and Alt-Enter send, or back", _multi),
    Command("edit", "[TEXT]", "write the question in $EDITOR", _edit),
    Command("retry", "", "ask the last question again", _retry),
    Command("undo", "", "remove the last turn", _undo),
    Command("clear", "", "forget the conversation", _clear),
    Command("save", "[NAME]", "save the chat under a name", _save),
    Command("load", "ID", "continue another chat", _load, "session"),
    Command("sessions", "", "list the chats that are kept", _sessions),
    Command("export", "FILE.md", "write the chat to a Markdown file", _export, "path"),
    Command("usage", "", "show tokens used", _usage),
    Command("set", "[OPTION VALUE]", "set temperature, max_tokens, seed …; VALUE may be default", _set, "option"),
    Command("copy", "", "copy the last code block", _copy),
    Command("exit", "", "exit", _exit),
)
COMMANDS = {command.name: command for command in _ALL}  # The commands by name, in the order in which /help lists them
