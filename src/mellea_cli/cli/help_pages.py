"""`mellea help`: short pages at the terminal; scripts/reference.py writes the same text into the documentation.

A page is Markdown: headings, paragraphs, code blocks and tables.
"""

# No `from __future__ import annotations`, see `mellea_cli.cli.flags`.

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from mellea_cli.cli.app import COMMANDS, flag_sections, styled_heading
from mellea_cli.cli.flags import JsonFlag, write_json
from mellea_cli.errors import UsageError, nearest

EXIT_CODES = """\
# Exit codes

Every command ends with one of these codes. A script can decide by the code alone.

| code | meaning | what to do |
|---|---|---|
| 0 | every item has an answer; also: nothing was left to do | nothing |
| 1 | a bug in `mellea` | send the developers the report file that the message names |
| 2 | wrong usage or settings, unreadable input, or an output in use; nothing was sent | correct it |
| 3 | finished; some items failed, or rows could not be read | their `error` says why; the same command asks again |
| 4 | stopped early: the server, the account, or a limit that you set | remove the cause; the same command continues |
| 5 | the output cannot be written | free disk space or correct the path; the same command continues |
| 10 | `mellea watch`: a condition holds beyond chance | read the message on stdout |
| 129 | ended by a hang-up (SIGHUP) | type the same command to continue |
| 130 | ended by Ctrl-C (SIGINT) | type the same command to continue |
| 141 | the reader of stdout closed it (`mellea summarise … \\| head`) | nothing |
| 143 | ended by SIGTERM | type the same command to continue |

After 129, 130 and 143 the output holds all finished rows. The message prints the command that continues.

## Details by command

| command | when |
|---|---|
| `mellea summarise --offload --no-wait` | 4 while batches are at the server, 0 once all answers are collected |
| `mellea stop OUTPUT` | the run that is stopped ends with 4 |
| `mellea pause`, `resume`, `stop`, `tune` | 2 if there is no such run now, or it cannot do that |
| `--estimate` | 4 if no row of the sample was answered |
| `--output-dir` | the first code other than 0; the other files are processed unless the code is 4 or more |
| `mellea watch-folder` | 0 after Ctrl-C or SIGTERM while it waits; 130 or 143 if a file was in progress |
| `mellea themes` | 5 if the figures do not match the output; the message names the row |
| `mellea report`, `mellea compare` | 0 also for an empty file |
| `mellea watch` | 10 if a condition holds beyond chance, 0 if none does, 4 if `--notify` fails |
| `mellea show`, `mellea export` | 3 if some rows could not be read; the others are shown |
| `mellea chat` | 3 if an answer is empty or a turn failed, 4 if the server cannot be used |
| `mellea doctor` | 2 if something is marked `bad` |
| `mellea models path` | 2 if the model is not on this machine |

[cron.md](cron.md) shows the codes in a scheduled run.
"""

# Variables that no flag has, with what they do. tests/test_reference.py finds every variable that the source reads.
VARIABLES: Mapping[str, str] = {
    "MELLEA_CONFIG": "path of the configuration file",
    "MELLEA_CACHE_DIR": "folder for embedded models and saved prompts, instead of the cache folder",
    "MELLEA_LOOP": "`asyncio` keeps Python's own event loop where uvloop is installed",
    "OPENAI_API_KEY": "key of an OpenAI-compatible server",
    "OPENAI_BASE_URL": "address of an OpenAI-compatible server; `--base-url` beats it",
    "OLLAMA_HOST": "address of the Ollama server, as for Ollama itself",
    "OLLAMA_API_KEY": "key of an Ollama server behind a proxy, or of Ollama's cloud",
    "OLLAMA_MODELS": "folder of Ollama's models; the completion of `--model` reads their names",
    "OLLAMA_NUM_PARALLEL": "requests that a local Ollama server works on at once; sets where `-c auto` starts",
    "RAY_ADDRESS": "the Ray cluster, if `--ray-address` is not given",
    "RAY_AUTH_MODE": "authentication of a Ray cluster, as for Ray itself",
    "RAY_AUTH_TOKEN": "token of a Ray cluster, as for Ray itself",
    "HF_ENDPOINT": "address of the model hub from which embedded models are downloaded",
    "HF_HOME": "folder of the hub's own cache, which `mellea` reads",
    "HF_HUB_CACHE": "folder of the hub's cached models, which `mellea` reads",
    "HF_HUB_OFFLINE": "`1` does not ask the hub",
    "HF_TOKEN": "token of the hub; the models of the catalogue need none",
    "XDG_CACHE_HOME": "cache folder of your user account, for the hub's cache",
    "SSL_CERT_FILE": "file with the certificates to trust",
    "SSL_CERT_DIR": "folder with the certificates to trust",
    "NO_COLOR": "any value turns colours off",
    "FORCE_COLOR": "any value turns colours on, also in a pipe",
    "TERM": "`dumb` turns panels and colours off",
    "TTY_COMPATIBLE": "`0` treats the screen as no terminal, `1` as a terminal",
    "TTY_INTERACTIVE": "`0` shows plain lines instead of panels",
    "CI": "any value but `0` and `false` shows plain lines instead of panels",
    "EDITOR": "editor of `/edit` in the chat",
    "VISUAL": "editor of `/edit` in the chat; it beats `EDITOR`",
    "INPUTRC": "settings file of the line editor; Vi keys in the chat follow it",
}


CONFIG = """\
The file is TOML. A key is a flag without its dashes. A key at the top applies to every command that has the flag. A key
in a table applies to the command of that name. `[pool.NAME]` describes several servers: [scaling.md](scaling.md).

```toml
backend = "ollama"

[summarise]
concurrency = 8
max-errors = "5%"

[report]
by = ["channel"]
```

An unknown key is an error, and the message names the nearest key. `MELLEA_CONFIG` names another file.
"""

FILTERS = """\
# Conditions on rows

`--where EXPR` takes only the rows that meet a condition on columns and answers. `mellea summarise`, `run`, `themes`,
`report`, `compare`, `watch`, `show` and `export` have it.

```console
mellea summarise feedback.csv -o web.csv --where 'channel == "web" and length(text) > 40'
mellea report results.jsonl --where 'urgency == "high"'
mellea export results.jsonl -o refunds.csv --where 'text contains "refund" and not (id in ["F-007", "F-012"])'
```

## What can be written

| write | meaning |
|---|---|
| `rating`, `Größe` | a column; case and white space do not count |
| `` `Order number` `` | a column with blanks, or one that is named like a word of this table |
| `ticket.country`, `tags[0]` | a path into JSON |
| `urgency`, `issues.urgency` | an answer, in JSON and in tables alike |
| `"high"`, `'high'` | text |
| `4`, `-2.5`, `true`, `false`, `null` | a number, a truth value, nothing |
| `==` `!=` `<` `<=` `>` `>=` | comparisons; `=` and `<>` are the same as `==` and `!=` |
| `in`, `not in` | one of several: `channel in ["web", "phone"]`; or a part: `"App" in themes` |
| `contains`, `startswith`, `endswith` | a part of a text in any case, or an element of a list |
| `matches`, `=~` | a regular expression in any case: `text matches "refund\\|money back"` |
| `is null`, `is not null` | whether there is a value; an empty cell is none |
| `and`, `or`, `not`, `( )` | also `&&`, `\\|\\|` and `!` |
| `length(x)`, `lower(x)` | characters of a text or elements of a list; text in small letters |
| `refund` | a column alone means `refund == true` |

## How cells are read

Cells of CSV are text, so the other side decides. `rating >= 4` reads the cell as a number, and `id == "007"` as text. A
cell that is no number meets no comparison with a number. Two columns are compared as numbers if both are. Dates such as
2026-10-31 are in order as text.

A comparison with a missing value is false, and `!=` is true. Equality of text is exact: `High` is not `high`.

A wrong column is refused with the nearest name. In JSON the first thousand rows tell which columns there are.

## In a run

Rows are selected before anything is asked, and `--dry-run` counts them. `--sample` and `-n` choose among the selected
rows. A row without an id keeps its number in the input.

The journal keeps the answers of all rows. A run with another condition, or with none, asks only what is new. An output
with more rows is not replaced, unless you say `--overwrite`. So give a selection an output of its own.
"""


def _environment() -> str:
    return f"""\
# Variables

Most flags have a variable: `--max-errors` is `MELLEA_MAX_ERRORS`. A flag on the command line beats a variable, and a
variable beats the configuration file. [settings.md](settings.md) lists them all.

{environment_text()}"""


def environment_text() -> str:
    """What is said about variables at the terminal and in docs/settings.md."""
    rows = "\n".join(f"| `{name}` | {text} |" for name, text in VARIABLES.items())
    return f"""\
A variable for a switch takes `1` or `0`. `MELLEA_TEXT_FIELD` takes several columns on separate lines.

## Other variables

| variable | meaning |
|---|---|
{rows}

Proxies follow `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`. A pool names its own variables for keys with
`key_env`.
"""


def _config() -> str:
    from mellea_cli.cli.settings import config_path

    return f"""\
# The configuration file

It is `{config_path()}`. A flag on the command line beats a variable, and a variable beats the file. `mellea doctor`
shows every setting that differs from its default.

{CONFIG}"""


def _formats() -> str:
    from mellea_cli.io.formats import FORMATS, suffixes_of

    rows = []
    for name in FORMATS.names():
        what = (FORMATS.require(name).__doc__ or "").strip().split("\n")[0]
        rows.append(f"| `{name}` | {', '.join(f'`{suffix}`' for suffix in suffixes_of(name))} | {what} |\n")
    return f"""\
# File formats

The suffix of a file says its format, for inputs and for outputs. `.gz` after it means packed with gzip. The content of
an input corrects a wrong suffix where it is plain. `--format` and `--output-format` name a format.

| format | suffixes | what it is |
|---|---|---|
{"".join(rows)}
The text is UTF-8, or UTF-16 with its mark; `--encoding` names another encoding. `-` is stdin or stdout.
[input.md](input.md) says how the column with the feedback is found.
"""


PAGES: Mapping[str, Callable[[], str]] = {
    "exit-codes": lambda: EXIT_CODES,
    "environment": _environment,
    "config": _config,
    "formats": _formats,
    "filters": lambda: FILTERS,
}
_ABOUT = {
    "exit-codes": "what the exit codes mean",
    "environment": "variables that the program reads",
    "config": "the configuration file",
    "formats": "formats of inputs and outputs",
    "filters": "what --where can say",
}


def complete_topic(incomplete: str) -> list[str]:
    """Topics and commands that begin so."""
    return [name for name in (*PAGES, *COMMANDS) if name.startswith(incomplete) and name != "summarize"]


def help_command(
    ctx: typer.Context,
    topic: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TOPIC]", help="A topic or a command.", autocompletion=complete_topic, show_default=False
        ),
    ] = None,
    man: Annotated[bool, typer.Option("--man", help="Print a manual page: mellea help --man run | man -l -")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show a short page: exit codes, variables, settings, formats, filters, or a command."""
    words = list(topic or ())
    if man:
        typer.echo(manual_page(ctx.find_root(), words), nl=False)
        return
    if not words:
        _list_topics(as_json=as_json)
        return
    if words[0] in PAGES:
        page = PAGES[words[0]]()
        if as_json:
            title, *parts = blocks(page)
            write_json({"topic": words[0], "title": str(title)[2:], "parts": [_record(part) for part in parts]})
        else:
            _print_page(page)
        return
    command, own = command_named(ctx.find_root(), words)
    if as_json:
        write_json({"topic": " ".join(words), "title": own.command_path, "parts": [command.get_help(own)]})
    else:
        typer.echo(command.get_help(own))


def _list_topics(*, as_json: bool) -> None:
    if as_json:
        write_json(
            {"topics": _ABOUT, "commands": {name: one.summary for name, one in COMMANDS.items() if not one.hidden}}
        )
        return
    for name, text in _ABOUT.items():
        typer.echo(f"  mellea help {name:<12}  {text}")
    typer.echo("  mellea help COMMAND       flags of a command; mellea --help lists the commands")
    typer.echo("  mellea help --man         the manual page; mellea help --man COMMAND that of a command")


def command_named(root: Any, words: Sequence[str]) -> tuple[Any, Any]:
    """A command by its words, such as `models pull`, with a context for its help."""
    command, ctx = root.command, root
    for word in words:
        known = getattr(command, "commands", {})
        if word not in known:
            near = nearest(word, [*PAGES, *known])
            hint = f"did you mean {near!r}?" if near else "mellea help lists the topics"
            raise UsageError(f"there is no topic or command {word!r}", hint=hint)
        command = known[word]
        ctx = command.make_context(word, [], parent=ctx, resilient_parsing=True)
    return command, ctx


# At the terminal.

_LINK = re.compile(r"\[([^\]]+)\]\(([^)]+)\)")
_QUOTED = re.compile(r"`` (.+?) ``|`([^`]+)`")


def plain(text: str) -> str:
    """A paragraph or a cell without the marks of Markdown."""
    text = _LINK.sub(lambda found: f"docs/{found[2]}" if found[2].endswith(".md") else found[1], text)
    return _QUOTED.sub(lambda found: found[1] or found[2], text)


def blocks(page: str) -> Iterator[str | tuple[list[str], list[list[str]]]]:
    """The blocks of a page: headings, paragraphs and code as text, tables as headers and rows."""
    for block in re.split(r"\n\n(?=(?:[^`]|`(?!``))*(?:```(?:[^`]|`(?!``))*```(?:[^`]|`(?!``))*)*$)", page.strip()):
        if block.startswith("|"):
            headers, _, *rows = [
                [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
                for line in block.splitlines()
            ]
            yield headers, rows
        else:
            yield block


def _record(block: str | tuple[list[str], list[list[str]]]) -> Any:
    if isinstance(block, str):
        return {"code": _code(block)} if block.startswith("```") else plain(block)
    return {"headers": block[0], "rows": [[plain(cell) for cell in row] for row in block[1]]}


def _code(block: str) -> str:
    return "\n".join(block.splitlines()[1:-1])


def _print_page(page: str) -> None:
    import shutil
    import textwrap

    from mellea_cli.ui.console import print_table

    width = min(shutil.get_terminal_size().columns, 100) if sys.stdout.isatty() else 100
    for number, block in enumerate(blocks(page)):
        if number:
            typer.echo()
        if not isinstance(block, str):
            rows = [[plain(cell) for cell in row] for row in block[1]]
            print_table(rows, headers=block[0], stream=sys.stdout, environ=os.environ)
        elif block.startswith("```"):
            typer.echo(textwrap.indent(_code(block), "  "))
        elif block.startswith("#"):
            typer.echo(styled_heading(block.lstrip("# ")))
        else:
            typer.echo(textwrap.fill(plain(" ".join(block.split())), width, break_long_words=False))


# Manual pages.

_ROFF_START = re.compile(r"^([.'])", re.MULTILINE)


def _roff(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-")
    text = "".join(char if char.isascii() else f"\\[u{ord(char):04X}]" for char in text)
    return _ROFF_START.sub(r"\\&\1", text)


def manual_page(root: Any, words: Sequence[str] = ()) -> str:
    """The manual page of `mellea`, or of the command with these words, as man(1) reads it."""
    command, ctx = command_named(root, words)
    name = "-".join(("mellea", *words))
    first, *others = [" ".join(text.split()) for text in (command.help or "").split("\n\n")]
    path = " ".join(("mellea", *words))
    lines = [
        f'.TH "{_roff(name.upper())}" 1 "" "mellea" "mellea"',
        ".SH NAME",
        f"{_roff(name)} \\- {_roff(first.rstrip('.'))}",
        ".SH SYNOPSIS",
        f".B {_roff(path)}",
        _roff(" ".join(command.collect_usage_pieces(ctx))),
        ".SH DESCRIPTION",
        _roff(first),
    ]
    for paragraph in others:
        lines += [".PP", _roff(paragraph)]
    if below := _commands_below(command, words):
        lines.append(".SH COMMANDS")
        for below_name, text in below:
            lines += [".TP", f".B {_roff(below_name)}", _roff(text)]
    lines += list(_flag_lines(command, ctx))
    lines.append(".SH EXIT STATUS")
    codes = next(block for block in blocks(EXIT_CODES) if not isinstance(block, str))
    for code, meaning, _ in codes[1]:
        lines += [".TP", f".B {code}", _roff(plain(meaning))]
    lines += [
        ".SH SEE ALSO",
        _roff("mellea help lists the topics; mellea help COMMAND shows the flags of a command."),
    ]
    return "\n".join(lines) + "\n"


def _commands_below(command: Any, words: Sequence[str]) -> list[tuple[str, str]]:
    if not words:
        return [(name, one.summary) for name, one in COMMANDS.items() if not one.hidden]
    return [(name, (one.help or "").split("\n")[0]) for name, one in getattr(command, "commands", {}).items()]


def _flag_lines(command: Any, ctx: Any) -> Iterator[str]:
    for panel, rows in flag_sections(command.get_params(ctx), ctx):
        yield f".SH {_roff(panel.upper())}"
        for names, text in rows:
            yield ".TP"
            yield f".B {_roff(names)}"
            yield _roff(" ".join(text.split()))


# The first minute: what stands at a terminal where nobody says what to do.

_FIRST: Mapping[str, tuple[str, Sequence[tuple[str, str]], str]] = {
    "": (
        "mellea runs a large set of feedback through a language model: summaries, sentiment, issues, your own fields.",
        (
            ("mellea summarise feedback.csv -o results.csv", "summary, sentiment, issues"),
            ("mellea report results.csv", "what the rows say"),
            ("mellea show results.csv", "page through the rows"),
        ),
        "mellea doctor says whether a run works here. mellea --help lists the commands, mellea help the topics.",
    ),
    "summarise": (
        "mellea summarise writes a summary, the sentiment and the issues for each row of a table or JSON file.",
        (
            ("mellea summarise feedback.csv -o results.csv", "finds the column by itself"),
            ("mellea summarise feedback.csv --dry-run", "what would be sent"),
            ("mellea summarise feedback.csv -o results.csv -n 20", "the first 20 rows"),
        ),
        "The same command again continues. mellea summarise --help shows the usual flags, --help-all every flag.",
    ),
    "run": (
        "mellea run asks your own questions about each row of a table or JSON file; a pipeline file has them.",
        (
            ("mellea pipeline new support-tickets -o fields.toml", "a file to start from"),
            ("mellea pipeline try fields.toml feedback.csv", "a few rows"),
            ("mellea run fields.toml feedback.csv -o results.csv", "all rows"),
        ),
        "The same command again continues. mellea run --help shows the usual flags, --help-all every flag.",
    ),
    "themes": (
        "mellea themes finds themes in complaints and praise, and labels every row of an output with them.",
        (
            ("mellea summarise feedback.csv -o results.jsonl", "first the summaries"),
            ("mellea themes results.jsonl -o themes.jsonl", "then the themes"),
            ("mellea report themes.jsonl -o report.html", "a page with both"),
        ),
        "Edit themes.jsonl.toml, and the same command labels again. mellea themes --help shows the usual flags.",
    ),
}


def has_first_minute(command: str) -> bool:
    """Whether a command alone, at a terminal, shows what it does instead of an error."""
    return command in _FIRST


def first_minute(command: str = "") -> str:
    """About ten lines: what the program or a command does, three examples, where to read."""
    import shutil
    import textwrap

    what, examples, read = _FIRST[command]
    width = min(shutil.get_terminal_size().columns, 100)
    longest = max(len(line) for line, _ in examples)
    wide = width >= longest + 4 + max(len(meaning) for _, meaning in examples)
    lines = [textwrap.fill(what, width), ""]
    for line, meaning in examples:
        lines += [f"  {line.ljust(longest)}  {meaning}"] if wide else [f"  {line}", f"      {meaning}"]
    return "\n".join([*lines, "", textwrap.fill(read, width)])
