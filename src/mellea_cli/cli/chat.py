"""`mellea chat`: flags in, and one of three forms: a conversation at a terminal, one answer, or a script of turns."""

from __future__ import annotations

from typing import Annotated

import typer

from mellea_cli.cli.flags import DISPLAY, INPUT, MODEL, OUTPUT, SAFETY, BackendName, flag


def chat(
    ctx: typer.Context,
    prompt: Annotated[str | None, typer.Argument(help="The first question.", show_default=False)] = None,
    model: Annotated[
        str | None, flag(MODEL, "--model", "-m", help="A name the backend knows, or a .gguf file.", show_default=False)
    ] = None,
    backend: Annotated[
        BackendName, flag(MODEL, "--backend", "-b", help="auto: a running Ollama that has the model, else local.")
    ] = "auto",
    base_url: Annotated[
        str | None, flag(MODEL, "--base-url", help="Where the server is; the key comes from OPENAI_API_KEY.")
    ] = None,
    key_file: Annotated[
        str | None,
        flag(MODEL, "--key-file", metavar="FILE", help="A file with the server's key that only you can read."),
    ] = None,
    system: Annotated[str, flag(MODEL, "--system", "-s", help="What the model is told before everything else.")] = "",
    context: Annotated[
        int | None,
        flag(MODEL, "--context", min=256, help="The model's window in tokens; by default 8192, if it is ours."),
    ] = None,
    pull: Annotated[bool, flag(MODEL, "--pull", help="Fetch the embedded model first if it is missing.")] = False,
    file: Annotated[
        list[str] | None,
        flag(INPUT, "--file", "-f", help="Attach a file: text, JSONL or CSV; - for stdin. Repeatable."),
    ] = None,
    data: Annotated[
        str | None, flag(INPUT, "--data", help="Ask about an output of mellea summarise; answers cite row ids.")
    ] = None,
    turns: Annotated[bool, flag(INPUT, "--turns", help="Each line of stdin is a turn of one conversation.")] = False,
    last: Annotated[bool, flag(OUTPUT, "--continue", "-c", help="Go on with the last chat.")] = False,
    resume: Annotated[str | None, flag(OUTPUT, "--resume", metavar="ID", help="Go on with this chat.")] = None,
    no_history: Annotated[bool, flag(OUTPUT, "--no-history", help="Keep nothing of this chat.")] = False,
    json: Annotated[bool, flag(DISPLAY, "--json", help="One JSON object for each answer.")] = False,
    local_only: Annotated[
        bool, flag(SAFETY, "--local-only", help="Refuse every connection but those to this machine.")
    ] = False,
    allow_http: Annotated[bool, flag(SAFETY, "--allow-http", help="Allow http without TLS to other machines.")] = False,
) -> None:
    """Talk with a model; ask about files, or about what mellea summarise has written.

    At a terminal this is a conversation: /help lists its commands. `echo QUESTION | mellea chat` answers once.
    """
    from mellea_cli.cli.chat_run import Wishes, run_chat

    raise typer.Exit(run_chat(Wishes.read(ctx.params)))
