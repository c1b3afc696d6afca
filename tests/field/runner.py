"""Runs the steps of a case and says what is wrong about what came of them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from field.model import Answer, Case, Edit, Expect, Put, Run, Save, Words
from field.server import Behaviour, FieldServer, holds
from field.starter import Starter
from field.wire import ANSWER, whole

FILES = Path(__file__).parent / "files"
_NOBODY = "http://127.0.0.1:9"
_FOREIGN = ("OLLAMA_", "OPENAI_", "MELLEA_", "RAY_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT")
_KILLED = -9
# What an interpreter reads when it starts.
_AT_START = ("PYTHON", "LC_", "LANG", "TZ")
_PROGRESS = re.compile(r"mellea: [\d,]+(/[\d,]+)? done")


def run_case(case: Case, server: FieldServer, folder: Path, starter: Starter | None = None) -> list[str]:
    """Run a case in a folder of its own; returns what is wrong, which is nothing when it is right."""
    work = folder / "work"
    work.mkdir()
    for name in case.files:
        shutil.copyfile(FILES / name, work / name)
    behaviour = server.add(case.id, case.rules, case.models)
    for step in case.steps:
        if isinstance(step, Run):
            if wrong := _run(step, folder, behaviour, server.url(case.id), starter):
                return wrong
        elif isinstance(step, Put):
            _put(step, work)
        elif isinstance(step, Save):
            _save(step, work)
        elif isinstance(step, Edit):
            if wrong := _edit(step, work):
                return wrong
        elif wrong := _answer(step, work):
            return wrong
    return []


def _run(step: Run, folder: Path, behaviour: Behaviour, url: str, starter: Starter | None) -> list[str]:
    """Run the program and compare what came of it with what should."""
    work = folder / "work"
    before = {name: _bytes(work / name) for name in step.expect.untouched}
    seen = len(behaviour.requests)
    code, stdout, stderr = _process(step, folder, url, starter)
    requests = behaviour.requests[seen:]
    expect = step.expect
    wrong: list[str] = []
    codes = (expect.exit,) if isinstance(expect.exit, int) else expect.exit
    if code not in codes:
        ended = "no end in time" if code == _KILLED else f"exit {code}"
        wrong.append(f"{ended}, not {' or '.join(map(str, codes))}")
    if expect.requests is not None and len(requests) > expect.requests:
        wrong.append(f"{len(requests)} requests, not at most {expect.requests}")
    wrong += _unsaid(expect.says, stderr, "stderr") + _unsaid(expect.stdout, stdout, "stdout")
    wrong += [f"says {word!r}" for word in expect.silent if word.casefold() in (stdout + stderr).casefold()]
    # How many lines tell of progress depends on how fast the machine is.
    talk = [line for line in stderr.splitlines() if not _PROGRESS.match(line)]
    if expect.talk is not None and len(talk) > expect.talk:
        wrong.append(f"{len(talk)} lines on stderr, not at most {expect.talk}")
    wrong += [f"no request with {when}" for when in expect.sends if not any(holds(when, one) for one in requests)]
    wrong += [f"a request with {when}" for when in expect.never if any(holds(when, one) for one in requests)]
    wrong += [f"{name} is there" for name in expect.absent if (work / name).exists()]
    wrong += [f"{name} is another" for name, was in before.items() if _bytes(work / name) != was]
    data = stdout.encode() if step.output == "-" else _bytes(work / step.output)
    wrong += _wrong_output(expect, data, step.output)
    return [*wrong, f"$ mellea {' '.join(step.args)}", stderr.strip(), stdout.strip()] if wrong else []


def environment(folder: Path) -> dict[str, str]:
    """The variables of every run: nothing of the settings of whoever runs the tests."""
    # pytest changes a variable of its own meanwhile, in another thread.
    names = [name for name in list(os.environ) if not name.upper().startswith((*_FOREIGN, "PYTEST_"))]
    kept = {name: os.environ[name] for name in names}
    own = {f"XDG_{kind}_HOME": str(folder / kind.lower()) for kind in ("CONFIG", "STATE", "CACHE", "DATA")}
    fixed = {
        "HF_HUB_OFFLINE": "1",
        "MELLEA_LOOP": "asyncio",
        "OPENAI_API_KEY": "sk-field",
        "COLUMNS": "240",
        "NO_COLOR": "1",
    }
    return kept | own | fixed


def _process(step: Run, folder: Path, url: str, starter: Starter | None) -> tuple[int, str, str]:
    """Run the program to its end; what does not end is killed."""
    arguments = [argument.replace("{url}", url).replace("{nobody}", _NOBODY) for argument in step.args]
    variables = environment(folder)
    places = {"{files}": str(FILES), "{folder}": str(folder / "work"), "{path}": os.environ.get("PYTHONPATH", "")}
    for name, value in step.env.items():
        variables.pop(name, None)
        if value is not None:
            variables[name] = re.sub(r"\{\w+\}", lambda found: places[found[0]], value)
    given = None if step.stdin is None else step.stdin.encode()
    if starter is None or step.closed or any(name.startswith(_AT_START) for name in step.env):
        code, stdout, stderr = _real_start(step, arguments, folder / "work", variables, given)
    else:
        started = starter.start(arguments, folder / "work", variables, given)
        for after, name in step.signals:
            time.sleep(after)
            # It may have ended by now.
            with suppress(ProcessLookupError):
                os.kill(started.pid, signal.Signals[name])
        code, stdout, stderr = started.communicate(step.seconds)
    # A shell says 128 and the signal's number.
    return (
        code if code >= 0 or code == _KILLED else 128 - code,
        stdout.decode("utf-8", "replace"),
        stderr.decode("utf-8", "replace"),
    )


def _real_start(
    step: Run, arguments: list[str], work: Path, variables: dict[str, str], given: bytes | None
) -> tuple[int, bytes, bytes]:
    command = [sys.executable, "-m", "mellea_cli", *arguments]
    if step.closed:
        # The shell closes them, as `>&-` does.
        command = ["sh", "-c", 'exec "$0" "$@" ' + " ".join(f"{number}>&-" for number in step.closed), *command]
    process = subprocess.Popen(
        command,
        cwd=work,
        env=variables,
        stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        for after, name in step.signals:
            time.sleep(after)
            process.send_signal(signal.Signals[name])
        stdout, stderr = process.communicate(given, timeout=step.seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        stdout, stderr = process.communicate()
    return process.returncode, stdout, stderr


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _unsaid(words: Words, text: str, where: str) -> list[str]:
    folded = " ".join(text.split()).casefold()
    wanted = [(word,) if isinstance(word, str) else word for word in words]
    return [
        f"{where} does not say {' or '.join(map(repr, some))}"
        for some in wanted
        if not any(word.casefold() in folded for word in some)
    ]


def _wrong_output(expect: Expect, data: bytes, name: str) -> list[str]:
    """What is wrong about the rows."""
    if expect.starts and not data.startswith(expect.starts):
        return [f"the output begins with {data[:60]!r}"]
    try:
        columns, rows = _table(data, name)
    except (ValueError, csv.Error) as error:
        return [f"the output cannot be read: {error}"]
    answered = [row for row in rows if row.get("mellea_sentiment") or row.get("sentiment")]
    failed = [row for row in rows if row.get("mellea_error") or row.get("error")]
    wrong = []
    for what, count, wanted in (
        ("rows", len(rows), expect.rows),
        ("answered rows", len(answered), expect.answered),
        ("failed rows", len(failed), expect.failed),
    ):
        if wanted is not None and count != wanted:
            wrong.append(f"{count} {what}, not {wanted}")
    if expect.kinds:
        kinds = {_kind(row["error"]) for row in failed}
        wrong += [f"an error of kind {kind}" for kind in sorted(kinds - set(expect.kinds))]
    wrong += [f"no column {column!r} in {columns}" for column in expect.columns if column not in columns]
    wrong += [f"a column {column!r}" for column in expect.without if column in columns]
    summaries = [str(row.get("mellea_summary", row.get("summary")) or None) for row in rows]
    for number, words in enumerate(expect.summaries):
        said = summaries[number] if number < len(summaries) else "no row"
        if words.casefold() not in said.casefold():
            wrong.append(f"row {number} is summarised as {said!r}, without {words!r}")
    for number, column, value in expect.cells:
        found = rows[number].get(column) if number < len(rows) else None
        if str(found) != value:
            wrong.append(f"row {number} has {found!r} in {column!r}, not {value!r}")
    return wrong


def _table(data: bytes, name: str) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of an output."""
    text = data.decode("utf-8-sig")
    if name.rpartition(".")[2] not in ("csv", "tsv"):
        rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        return list(dict.fromkeys(column for row in rows for column in row)), rows
    start = text.partition("\n")[0]
    if start.lower().startswith(("sep=", '"sep=')):
        text = text.partition("\n")[2]
        start = text.partition("\n")[0]
    csv.field_size_limit(1 << 27)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t|^\x01", key=start.count))
    columns = next(reader, [])
    return columns, [dict(zip(columns, row, strict=False)) for row in reader if row]


def _kind(error: Any) -> str:
    return str(error.get("kind", "")) if isinstance(error, dict) else str(error).partition(":")[0]


def _put(step: Put, work: Path) -> None:
    path = work / step.name
    if step.content is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    data = step.content.encode(step.encoding, "surrogateescape")
    path.write_bytes((path.read_bytes() if step.add else b"") + (gzip.compress(data) if step.packed else data))


def _edit(step: Edit, work: Path) -> list[str]:
    """Change one cell and leave everything else as it is, as far as a person's program does."""
    path = work / step.name
    columns, rows = _table(_bytes(path), step.name)
    if len(rows) <= step.row:
        return [f"{step.name} has no row {step.row} to edit"]
    rows[step.row][step.column] = step.value
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    lines[step.row] = json.dumps(rows[step.row], ensure_ascii=False) + "\n"
    path.write_text("".join(lines), encoding="utf-8")
    return []


def _save(step: Save, work: Path) -> None:
    """Write a table again as a spreadsheet program does."""
    path = work / step.name
    columns, rows = _table(_bytes(path), step.name)
    for number, column, value in step.cells:
        rows[number][column] = value
    rows = [rows[number] for number in step.order] if step.order is not None else rows
    rows += map(dict, step.added)
    columns = [*step.columns] if step.columns is not None else list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.writer(out, delimiter=step.delimiter, quoting=csv.QUOTE_ALL if step.quote_all else csv.QUOTE_MINIMAL)
    writer.writerow([step.renamed.get(name, name) for name in columns])
    writer.writerows([row.get(name, "") for name in columns] for row in rows)
    path.write_bytes(out.getvalue().encode(step.encoding))


def _answer(step: Answer, work: Path) -> list[str]:
    """Answer a file of batch requests as a provider does."""
    requests = _bytes(work / step.requests).decode().splitlines()
    if not requests:
        return [f"{step.requests} holds no requests"]
    lines = []
    for request in requests:
        response = {"status_code": 200, "request_id": "r1", "body": whole(ANSWER)}
        name = json.loads(request)["custom_id"]
        value = {"id": "b1", "custom_id": name, "response": response, "error": None}
        lines.append(json.dumps(step.line(name, ANSWER) if step.line else value))
    lines = [*step.others, *lines]
    if step.form == "useless":
        lines = ["Batch output", "No results."]
    elif step.form == "array":
        lines = ["[", ",\n".join(lines), "]"]
    elif step.form == "empty":
        lines = []
    data = (("\r\n" if step.form == "crlf" else "\n").join(lines) + "\n").encode()
    if step.form == "bom":
        data = b"\xef\xbb\xbf" + data
    elif step.form == "utf-16":
        data = data.decode().encode("utf-16")
    (work / step.name).write_bytes(gzip.compress(data) if step.form == "gz" else data)
    return []
