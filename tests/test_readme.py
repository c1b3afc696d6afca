"""What the README and the other documents say is what the program does."""

from __future__ import annotations

import ast
import itertools
import json
import re
import shlex
import shutil
import tomllib
from pathlib import Path
from typing import Any

import duckdb
import pytest
import typer.main
from markdown_it import MarkdownIt

from inprocess import run_in_process
from mellea_cli.cli.app import app
from mellea_cli.errors import ExitCode
from mellea_cli.io.corrections import Correction, CorrectionsFile
from rowfiles import write_rows

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

GROUP: Any = typer.main.get_command(app)


def flags_of(command: Any) -> set[str]:
    inner = [flags_of(one) for one in getattr(command, "commands", {}).values()]
    own = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return own.union(*inner)


# The reference shows usage lines, and tests/test_extending.py runs the commands of its page.
_PAGES = [path for path in DOCUMENTS if path.name not in {"commands.md", "extending.md"}]
# What needs a provider, servers, a cluster or a download is only parsed.
_NEEDS_MORE = re.compile(
    r" --(?:offload|export-batch|import-batch|engine|pool|base-url|pull)\b|^mellea (?:jobs|models) "
    # A terminal, no end, themes in both files, or a file of proposals.
    r"|^mellea review \S+$|^mellea watch-folder |theme:| --accept "
)


def examples(document: Path) -> list[tuple[str, str]]:
    """Each `mellea ...` command in the blocks of a document, with what is piped into it, without what follows it."""
    found = []
    for block in MarkdownIt("commonmark").parse(document.read_text(encoding="utf-8")):
        for line in block.content.splitlines() if block.type == "fence" and block.info in {"console", ""} else ():
            before = ""
            for part in re.split(
                r"\||&&|(?<= )#", re.sub(r" 2>> .*|^\$ |^(?:[\d*]+ ){5} *(?:/\S+/(?=mellea ))?", "", line)
            ):
                if part.strip().startswith("mellea "):
                    found.append((part.strip(), before))
                before = part.strip()
    return found


def mentions(document: Path) -> list[str]:
    """Each `mellea ...` command in running text; it may stand without its arguments."""
    return re.findall(r"`(mellea [a-z]+(?: [^`|>\n]*)?)`", document.read_text(encoding="utf-8"))


EXAMPLES = dict.fromkeys((path, command) for path in _PAGES for command, _ in examples(path))
MENTIONS = dict.fromkeys((path, command) for path in _PAGES for command in mentions(path))


SHOP = """extends = "single"

[fields.wanted_change]
description = "What the customer wants to be different"
type = "text"
nullable = true
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the documents name, as the program would have written them."""
    folder = tmp_path_factory.mktemp("files")
    rows = [json.loads(line) for line in (ROOT / "samples" / "feedback.jsonl").read_text(encoding="utf-8").splitlines()]
    for name in ("feedback.jsonl", "big.jsonl"):
        write_rows(folder / name, rows)
    for name in ("feedback.csv", "reviews.csv", "in.csv", "prices.csv"):
        shutil.copy(ROOT / "samples" / "feedback.csv", folder / name)
    page = (ROOT / "docs" / "getting-started.md").read_text(encoding="utf-8")
    for name in ("survey.csv", "qualtrics.csv"):
        (folder / name).write_text(page.split("```csv\n")[1].split("```")[0], encoding="utf-8")
    (folder / "notes.txt").write_text("The shop opens at nine.\n", encoding="utf-8")
    products = [{**row, "product": f"P{number % 3}", "nps_score": number % 11} for number, row in enumerate(rows)]
    write_rows(folder / "products.jsonl", products)
    with duckdb.connect(folder / "shop.duckdb") as shop:
        shop.execute("CREATE TABLE tickets AS SELECT 1 AS id, 'Late again.' AS body, true AS closed")
    (folder / "exports").mkdir()
    for name in ("monday.csv", "tuesday.csv"):
        shutil.copy(ROOT / "samples" / "feedback.csv", folder / "exports" / name)
    (folder / "shop.toml").write_text(SHOP, encoding="utf-8")
    for name in ("results.jsonl", "results.csv", "out.jsonl", "last-week.jsonl", "w45.jsonl", "w46.jsonl", "w47.jsonl"):
        done = run_in_process(("summarise", "products.jsonl", "-o", name, "-q"), folder, env=SCRIPTED)
        assert done.returncode == 0, done.stderr
    labels = [f"{row['id']},{('positive', 'negative')[number % 2]}" for number, row in enumerate(rows)]
    (folder / "labels.csv").write_text("\n".join(["id,label", *labels]) + "\n", encoding="utf-8")
    (folder / "gold.csv").write_text("\n".join(["id,sentiment", *labels]) + "\n", encoding="utf-8")
    for name in ("results.csv.corrections.jsonl", "results.csv.judgements.jsonl"):
        CorrectionsFile(folder / name).add([one for row in rows[:8] for one in _judged(row)])
    return folder


def _judged(row: dict[str, Any]) -> list[Correction]:
    values = {
        "sentiment": "negative",
        "urgency": "high",
        "main_complaint": "too slow",
        "positive_aspect": None,
        "summary": "The customer finds it too slow.",
    }
    return [
        Correction(row["id"], row["text"], name, "positive", value, "eva", when=row["id"], seed=1)
        for name, value in values.items()
    ]


SCRIPTED = {"MELLEA_BACKEND": "scripted", "MELLEA_MODEL": "scripted"}


def test_the_second_command_is_the_one_that_ci_runs() -> None:
    """The test command in the README stands in .ci/run letter by letter."""
    commands = re.findall(r"```console\n(.*?)\n```", README, re.DOTALL)
    assert commands[1].endswith("pytest --quiet")
    assert f'"{commands[1]}"' in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "mellea summarise samples/feedback.jsonl" in commands[0]


def test_the_row_shown_is_one_that_the_default_model_wrote() -> None:
    """It stands letter by letter in the sample's results."""
    (shown,) = [line for line in README.splitlines() if line.startswith('{"id": "F-')]
    assert shown in (ROOT / "samples" / "results.jsonl").read_text(encoding="utf-8").splitlines()


def test_the_sample_run_is_complete(tmp_path: Path) -> None:
    """Each row of the table has its answer, the report counts them, and the page that ships is such a report."""
    samples = ROOT / "samples"
    ids = [line.split(",")[0] for line in (samples / "three-industries.csv").read_text(encoding="utf-8").splitlines()]
    results = samples / "three-industries.results.jsonl"
    rows = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in rows] == ids[1:]
    done = run_in_process(("report", str(results), "--by", "industry", "--json"), tmp_path)
    assert json.loads(done.stdout)["rows"] == len(rows) == 60
    page = (samples / "three-industries.report.html").read_text(encoding="utf-8")
    assert all(f'"{row["id"]}"' in page for row in rows)


def test_a_crontab_line_has_no_bare_percent_sign_and_a_full_path() -> None:
    """Cron ends a command at `%`, and does not have the `PATH` of a shell."""
    lines = [
        line for page in DOCUMENTS for line in re.findall(r"^(?:[\d*]+ ){5}.*", page.read_text("utf-8"), re.MULTILINE)
    ]
    assert lines
    for line in lines:
        assert not re.search(r"(?<!\\)%", line), line
        assert re.match(r"(?:[\d*]+ ){5} *(?:sh )?/", line), line


def parse(command: str) -> None:
    name, *arguments = shlex.split(command)[1:]
    inner = GROUP.commands[name]
    while arguments and arguments[0] in getattr(inner, "commands", {}):
        inner = inner.commands[arguments.pop(0)]
    inner.make_context(name, arguments, resilient_parsing="--help" in arguments or not (arguments or inner.params))


@pytest.mark.parametrize("path", dict.fromkeys(path for path, _ in EXAMPLES), ids=lambda path: path.name)
def test_every_example_parses(path: Path) -> None:
    """Flags and arguments of the commands in blocks exist."""
    for command in (command for document, command in EXAMPLES if document == path):
        parse(command)


@pytest.mark.parametrize("path", dict.fromkeys(path for path, _ in MENTIONS), ids=lambda path: path.name)
def test_every_command_in_running_text_parses(path: Path) -> None:
    """So do those between words."""
    for command in (command for document, command in MENTIONS if document == path):
        try:
            parse(command)
        except Exception as error:
            # Typer has no public names for them.
            if type(error).__name__ not in {"MissingParameter", "BadOptionUsage"}:
                raise


def expanded(words: list[str], folder: Path) -> list[str]:
    """The words with patterns such as exports/*.csv replaced by the files, as the shell does."""
    found = [sorted(folder.glob(word)) if "/*" in word else [word] for word in words]
    return [str(one.relative_to(folder)) if isinstance(one, Path) else one for some in found for one in some]


@pytest.mark.parametrize("document", [path for path in _PAGES if examples(path)], ids=lambda path: path.name)
def test_every_example_runs(document: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of a page run in their order, with answers that need no model; each ends with the exit code 0."""
    for name in ("CONFIG", "STATE", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    shutil.copytree(ROOT / "samples", tmp_path / "samples")
    shutil.copytree(files / "exports", tmp_path / "exports")
    for command, before in examples(document):
        if _NEEDS_MORE.search(command):
            continue
        arguments = expanded(shlex.split(command.replace("/data/", ""))[1:], tmp_path)
        for name in (*arguments, *(f"{name}.corrections.jsonl" for name in arguments), *before.split()):
            if (files / name).is_file() and not (tmp_path / name).exists():
                shutil.copy(files / name, tmp_path)
        if "-o" in arguments and not (tmp_path / f"{arguments[arguments.index('-o') + 1]}.journal").exists():
            (tmp_path / arguments[arguments.index("-o") + 1]).unlink(missing_ok=True)
        # A conversation at a terminal is asked one question here.
        stdin = (tmp_path / before.split()[1]).read_bytes() if before.startswith("cat ") else b"What is bad?"
        done = run_in_process(arguments, tmp_path, stdin, SCRIPTED)
        assert done.returncode == 0, f"{command}\n{done.stderr}"


def test_every_flag_that_is_named_exists() -> None:
    """A flag in backticks anywhere in the README is one that a command takes."""
    known = flags_of(GROUP) | {"--help", "--help-all"}
    named = set(re.findall(r"`(--[a-z][a-z-]+)", README))
    assert named
    assert named <= known, named - known


def test_the_start_page_leads_to_every_guide() -> None:
    """Each guide of the site has a line in the table of docs/index.md."""
    site = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))
    sections = {name: pages for one in site["project"]["nav"] for name, pages in one.items()}
    guides = {page for one in sections["Guides"] for page in one.values()}
    table = (ROOT / "docs" / "index.md").read_text(encoding="utf-8").split("## Where to start")[1].split("\n## ")[0]
    # One line leads to the page about scaling, which leads to these.
    assert guides - set(re.findall(r"\]\(([a-z-]+\.md)", table)) <= {"offload.md", "ray.md", "servers.md"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_heading_has_an_empty_line_before_it(document: Path) -> None:
    """Some viewers take it for text otherwise."""
    lines = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL).splitlines()
    pairs = itertools.pairwise(lines)
    assert [line for before, line in pairs if re.match(r"#{1,4} ", line) and before.strip()] == []


def test_the_exit_codes_are_all_there() -> None:
    """The table has each code of the enum and no other."""
    table = README.split("## Exit codes")[1].split("##")[0]
    codes = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE) for code in row.split(",")}
    assert codes == {int(code) for code in ExitCode}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    """Every relative link and picture is a file."""
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_every_module_says_what_it_is() -> None:
    """Every module has a docstring: a newcomer reads it first."""
    modules = sorted((ROOT / "src").rglob("*.py"))
    assert [path for path in modules if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))] == []


def test_paths_in_the_documents_exist() -> None:
    """A path that architecture and contributing name is there."""
    for document in (ROOT / "CONTRIBUTING.md", ROOT / "docs" / "architecture.md"):
        for name in re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)`", document.read_text(encoding="utf-8")):
            assert (ROOT / name).exists() or (ROOT / "src" / "mellea_cli" / name).exists(), name
