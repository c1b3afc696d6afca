"""`mellea models`."""

from __future__ import annotations

from pathlib import Path

import pytest

from mellea_cli.models.store import ModelStore, default_root
from rowfiles import Run


def test_the_list_names_every_model_and_where_it_stands(mellea: Run) -> None:
    """Plain text off a terminal: name, size, state, licence."""
    shown = mellea("models", "list")
    assert shown.returncode == 0
    lines = shown.stdout.splitlines()
    assert any("qwen2.5-coder-1.5b" in line and "1,117 MB" in line and "not here" in line for line in lines)
    assert any("smollm2-135m" in line and "Apache-2.0" in line for line in lines)


def test_the_path_of_a_missing_model_is_an_error_with_the_command(mellea: Run) -> None:
    """Exit code 2, nothing on stdout, and what to type."""
    done = mellea("models", "path", "smollm2-135m")
    assert (done.returncode, done.stdout) == (2, "")
    assert "mellea models pull smollm2-135m" in done.stderr


@pytest.mark.parametrize("command", ["pull", "path", "rm"])
def test_an_unknown_model_is_refused_with_the_nearest(mellea: Run, command: str) -> None:
    """A mistyped name finds its neighbour."""
    done = mellea("models", command, "smollm-135m")
    assert done.returncode == 2
    assert "smollm2-135m" in done.stderr


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("MELLEA_CACHE_DIR", str(tmp_path))
    return tmp_path


def put_model() -> Path:
    """Put a file of 98 MB where the smallest model belongs."""
    entries = ModelStore(default_root()).entries()
    file = next(entry.path for entry in entries if entry.model.name == "smollm2-135m")
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as opened:
        opened.truncate(98_000_000)
    return file


def test_what_is_not_here_cannot_be_removed(mellea: Run, cache: Path) -> None:
    """It is said, and nothing is left behind; what is there goes with its lock."""
    done = mellea("models", "rm", "smollm2-135m")
    assert done.returncode == 2
    assert "smollm2-135m is not on this machine" in done.stderr
    assert [path for path in cache.rglob("*") if path.is_file()] == []
    put_model()
    done = mellea("models", "rm", "smollm2-135m")
    assert (done.returncode, done.stderr) == (0, "mellea: removed smollm2-135m: frees 98 MB\n")
    assert [path for path in cache.rglob("*") if path.is_file()] == []


@pytest.mark.usefixtures("cache")
def test_a_person_is_asked_before_a_model_is_removed(mellea: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its size; no keeps it, and --yes is the answer in advance."""
    monkeypatch.setattr("mellea_cli.cli.backend_setup.at_terminal", lambda: True)
    assert mellea("models", "rm", "smollm2-135m", stdin="n\n").returncode == 2
    file = put_model()
    done = mellea("models", "rm", "smollm2-135m", stdin="n\n")
    assert (done.returncode, file.exists()) == (0, True)
    assert "Remove smollm2-135m (98 MB)? Another download is needed to use it again. [y/N]" in done.stderr
    assert "smollm2-135m is kept" in done.stderr
    assert "removed" in mellea("models", "rm", "smollm2-135m", stdin="y\n").stderr
    assert not file.exists()
    put_model()
    assert "Remove" not in mellea("models", "rm", "smollm2-135m", "--yes").stderr
    assert not file.exists()
