"""The files around the code: hooks, workflows, templates, the Makefile and .ci/run."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
WORKFLOWS = ROOT / ".github" / "workflows"
YAML_FILES = [ROOT / ".pre-commit-config.yaml", *sorted((ROOT / ".github").rglob("*.yml"))]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
CI_RUN = (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def parsed(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def steps(workflow: Any) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.name)
def test_yaml_files_parse(path: Path) -> None:
    """Each is a mapping."""
    assert isinstance(parsed(path), dict)


def test_the_matrix_has_every_version_that_the_project_names() -> None:
    """Python 3.11 to 3.14, as the classifiers say, on Linux and macOS."""
    matrix = parsed(WORKFLOWS / "ci.yml")["jobs"]["quick"]["strategy"]["matrix"]
    classifiers = "\n".join(PYPROJECT["project"]["classifiers"])
    assert matrix["python"] == re.findall(r"Python :: (3\.\d+)$", classifiers, re.MULTILINE)
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos"}


@pytest.mark.parametrize("name", ["ci.yml", "release.yml"])
def test_workflows_call_what_exists(name: str) -> None:
    """Their `make` targets exist, each action has a version, each job a time limit, and none may write."""
    workflow = parsed(WORKFLOWS / name)
    assert workflow["permissions"] == {"contents": "read"}
    assert all(job["timeout-minutes"] <= 60 for job in workflow["jobs"].values())
    for step in steps(workflow):
        assert "uses" not in step or re.fullmatch(r"[\w./-]+@[\w./]+", step["uses"])
        for target in re.findall(r"^make (\w+)$", step.get("run", ""), re.MULTILINE):
            assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target


def test_a_tag_publishes_only_what_was_checked() -> None:
    """The release workflow runs on tags; publishing needs the build, which runs .ci/run."""
    workflow = parsed(WORKFLOWS / "release.yml")
    assert workflow[True] == {"push": {"tags": ["v*"]}}  # YAML reads `on` as a truth value
    assert workflow["jobs"]["publish"]["needs"] == "build"
    assert any(".ci/run" in step.get("run", "") for step in workflow["jobs"]["build"]["steps"])


def test_hooks_run_the_tools_of_make_lint() -> None:
    """The hooks before a commit are the commands of `make lint`."""
    hooks = [hook for repo in parsed(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    entries = {hook["entry"].removesuffix(" --fix") for hook in hooks if "stages" not in hook}
    lint = MAKEFILE.split("\nlint:")[1].split("\n\n")[0].splitlines()[1:]
    assert entries == {line.strip().removesuffix(" .").removesuffix(" --check") for line in lint}
    for hook in hooks:
        for path in re.findall(r"tests/\S+", hook["entry"]):
            assert (ROOT / path).exists(), path


def test_issue_forms_are_complete() -> None:
    """Each has a name and a description, and each field a label."""
    forms = [path for path in YAML_FILES if path.parent.name == "ISSUE_TEMPLATE" and path.name != "config.yml"]
    assert len(forms) >= 2
    for form in map(parsed, forms):
        assert form["name"]
        assert form["description"]
        assert all(field["type"] == "markdown" or field["attributes"]["label"] for field in form["body"])


def test_make_help_lists_every_target() -> None:
    """Each target has a line of help, and is phony."""
    targets = re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE)
    assert re.findall(r"^([a-z]+):.*## \w+", MAKEFILE, re.MULTILINE) == targets
    assert MAKEFILE.splitlines()[0].split()[1:] == targets


def test_ci_runs_each_test_once() -> None:
    """The quick tests, then the slow ones; no failed test gets another try, and both results count."""
    commands = re.findall(r"pytest [^\"]*", CI_RUN.split("failed=0")[1])
    assert [command.split(" ||")[0] for command in commands] == ["pytest --quiet -m slow"]
    assert '\nbash -c "$install_and_test" || failed=1\n' in CI_RUN
    assert CI_RUN.rstrip().endswith('exit "$failed"')
    options = PYPROJECT["tool"]["pytest"]["ini_options"]["addopts"]
    assert not re.search(r"reruns|--lf\b|last-failed", CI_RUN + options)
