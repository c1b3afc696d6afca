"""`mellea chat`: its flags, and the form of conversation that stdin and stdout ask for."""

# No `from __future__ import annotations`, see `mellea_cli.cli.flags`.

from dataclasses import dataclass
from typing import Annotated

import typer

from mellea_cli.cli.flags import (
    DISPLAY,
    INPUT,
    MODEL,
    OUTPUT,
    AllowHttpFlag,
    BackendFlag,
    KeyFileFlag,
    LocalOnlyFlag,
    LogLevelFlag,
    ModelFlag,
    PullFlag,
    option,
    options_command,
)
from mellea_cli.errors import ExitCode


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """The flags of `mellea chat`."""

    prompt: Annotated[str | None, typer.Argument(help="The first question.", show_default=False)] = None
    model: ModelFlag = None
    backend: BackendFlag = "auto"
    base_url: Annotated[str | None, option(MODEL, "Server address; its key: OPENAI_API_KEY.", metavar="URL")] = None
    key_file: KeyFileFlag = None
    system: Annotated[str, option(MODEL, "System prompt.", "-s")] = ""
    context: Annotated[
        int | None, option(MODEL, "Context window in tokens (default: 8192 with local and ollama).", min=256)
    ] = None
    pull: PullFlag = False
    file: Annotated[
        list[str] | None, option(INPUT, "Attach a file: text, JSONL or CSV; - for stdin. Repeatable.", "-f")
    ] = None
    data: Annotated[str | None, option(INPUT, "Ask about an output of mellea summarise; answers cite row ids.")] = None
    turns: Annotated[bool, option(INPUT, "Each line of stdin is a turn of one conversation.")] = False
    last: Annotated[bool, option(OUTPUT, "Continue the last chat.", "--continue", "-c")] = False
    resume: Annotated[str | None, option(OUTPUT, "Continue this chat.", metavar="ID")] = None
    no_history: Annotated[bool, option(OUTPUT, "Do not save this chat.")] = False
    json: Annotated[bool, option(DISPLAY, "One JSON object for each answer.")] = False
    log_level: LogLevelFlag = None
    local_only: LocalOnlyFlag = False
    allow_http: AllowHttpFlag = False

    @property
    def server_url(self) -> str | None:
        """The server's address, as in `RunOptions`."""
        return self.base_url


@options_command(ChatOptions)
def chat(options: ChatOptions) -> ExitCode:
    """Talk with a model; ask about files, or about what mellea summarise has written.

    At a terminal this is a conversation: /help lists its commands. `echo QUESTION | mellea chat` answers once.
    """
    from mellea_cli.cli.chat_run import run_chat

    return run_chat(options)
