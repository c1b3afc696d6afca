"""docs/extending.md: its examples, installed as a package, are found and do what the page says."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from inprocess import run_in_process
from mellea_cli.models.catalogue import ModelFile
from mellea_cli.models.store import ModelStore
from rowfiles import read_rows, write_rows

ROOT = Path(__file__).parent.parent
PROJECT = ROOT / "samples" / "extension"
ANSWER = {"positive_aspect": None, "main_complaint": "late", "urgency": "low", "sentiment": "negative"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip has installed the project, from nothing but what is here."""
    folder = tmp_path_factory.mktemp("site")
    flags = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check")
    install = [sys.executable, "-m", "pip", "install", *flags, "--target", str(folder), str(PROJECT)]
    subprocess.run(install, check=True, timeout=100)
    return folder


@pytest.fixture
def installed(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The project is installed, and this user has no files."""
    monkeypatch.syspath_prepend(site)
    for name in ("CONFIG", "STATE", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))


class _Completion(BaseHTTPRequestHandler):
    """`/health` and `/completion`, as llama.cpp's server answers them."""

    def do_GET(self) -> None:
        self._send("application/json", b'{"status": "ok"}')

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert request["stream"]
        assert "MARK" in request["prompt"]
        answer = json.dumps({**ANSWER, "summary": "It is late."})
        events = (
            {"content": answer, "stop": False},
            {"content": "", "stop": True, "stop_type": "eos", "tokens_evaluated": 90, "tokens_predicted": 7},
        )
        self._send("text/event-stream", "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode())

    def _send(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def completion_url() -> Iterator[str]:
    """A server that speaks `/completion`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Completion) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("installed")
def test_the_backend_answers_a_run(tmp_path: Path, completion_url: str) -> None:
    """`-b llama-completion` asks the server for each row."""
    write_rows(tmp_path / "in.jsonl", [{"text": f"MARK {number}"} for number in range(3)])
    flags = ("-b", "llama-completion", "-m", "default", "--base-url", completion_url, "--json")
    done = run_in_process(("summarise", "in.jsonl", "-o", "out.jsonl", *flags), tmp_path)
    assert done.returncode == 0, done.stderr
    assert [row["summary"] for row in read_rows(tmp_path / "out.jsonl")] == ["It is late."] * 3
    assert json.loads(done.stderr.splitlines()[-1])["completion_tokens"] == 21


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("names", [("in.stanza", "out.stanza"), ("in", "out", "--format", "stanza")])
def test_the_format_is_read_and_written(tmp_path: Path, names: tuple[str, ...]) -> None:
    """By its suffix or by its name; what is written can be read again."""
    (tmp_path / names[0]).write_text("Text: The door is stuck.\nsummary: mine\n\n\nText: It is good.\n")
    more = (*names[2:], "--output-format", "stanza") if len(names) > 2 else ()
    flags = ("-o", names[1], "-b", "scripted", "--text-field", "Text", *more)
    done = run_in_process(("summarise", names[0], *flags), tmp_path)
    assert done.returncode == 0, done.stderr
    first, second, _ = (tmp_path / names[1]).read_text().split("\n\n")
    assert first.startswith("Text: The door is stuck.\nsummary: mine\nmellea_summary: ")
    assert second.startswith("Text: It is good.\nsummary: ")
    again = run_in_process(("report", names[1], *(("--input-format", "stanza") if more else ())), tmp_path)
    assert again.returncode == 0, again.stderr


@pytest.mark.usefixtures("installed")
def test_the_executor_answers_a_run(tmp_path: Path) -> None:
    """`--engine words` answers each row, and checks the flags."""
    write_rows(tmp_path / "in.jsonl", [{"text": "A great car."}, {"text": "The door is stuck."}, {"text": "Blue."}])
    command = ("summarise", "in.jsonl", "-o", "out.jsonl", "--engine", "words", "-b", "scripted")
    done = run_in_process(command, tmp_path)
    assert done.returncode == 0, done.stderr
    found = [row["sentiment"] for row in read_rows(tmp_path / "out.jsonl")]
    assert found == ["positive", "negative", "neutral"]
    refused = run_in_process((*command, "-p", "steps"), tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--engine words answers the pipeline single only" in refused.stderr


@pytest.mark.usefixtures("installed")
def test_the_model_source_is_asked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model in the folder is copied from there."""
    monkeypatch.setenv("EXAMPLE_MODELS", str(tmp_path))
    data = b"GGUF" + bytes(5_000)
    (tmp_path / "tiny.gguf").write_bytes(data)
    model = ModelFile("tiny", "tiny.gguf", len(data), hashlib.sha256(data).hexdigest(), "MIT")
    sources: list[str] = []
    store = ModelStore(tmp_path / "store", catalogue={"tiny": model})
    path = store.pull("tiny", lambda progress: sources.append(progress.source))
    assert path.read_bytes() == data
    assert "shared folder" in sources


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("flag", "name", "near"),
    [
        ("--backend", "llama-completions", "llama-completion"),
        ("--format", "stanzas", "stanza"),
        ("--engine", "word", "words"),
    ],
)
def test_a_wrong_name_is_told_the_nearest(tmp_path: Path, flag: str, name: str, near: str) -> None:
    """Names of other packages are suggested, too."""
    write_rows(tmp_path / "in.jsonl", [{"text": "x"}])
    done = run_in_process(("summarise", "in.jsonl", flag, name), tmp_path)
    assert done.returncode == 2
    assert f"did you mean {near}?" in done.stderr


@pytest.mark.usefixtures("installed")
def test_doctor_lists_them(tmp_path: Path) -> None:
    """Each with its group and its package."""
    done = run_in_process(("doctor",), tmp_path)
    for name in ("llama-completion", "stanza", "words", "folder"):
        assert re.search(rf"{name} +.*mellea-example", done.stdout), done.stdout


def test_the_page_shows_the_project() -> None:
    """Every code block is a file of the project, letter by letter."""
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    blocks = set(re.findall(r"```(?:python|toml)\n(.*?)```", page, re.DOTALL))
    files = [PROJECT / "pyproject.toml", *sorted((PROJECT / "src" / "mellea_example").glob("[a-z]*.py"))]
    assert blocks == {path.read_text(encoding="utf-8") for path in files}
