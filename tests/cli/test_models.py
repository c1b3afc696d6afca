"""`mellea models` and `mellea doctor`."""

from __future__ import annotations

from pathlib import Path

import pytest

from loopback import ModelServer
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


def test_a_model_other_than_the_default_is_not_fetched_unasked(mellea: Run, feedback: Path) -> None:
    """Off a terminal nobody can be asked: the run is refused before anything is fetched."""
    done = mellea("summarise", str(feedback), "--backend", "local", "-m", "smollm2-135m")
    assert done.returncode == 2
    assert "mellea models pull smollm2-135m" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_doctor_says_what_is_missing(mellea: Run) -> None:
    """Without Ollama and without the model file the default run would not work: non-zero, and the command."""
    done = mellea("doctor", env={"OLLAMA_HOST": "http://127.0.0.1:9"})
    assert done.returncode != 0
    assert "mellea models pull qwen2.5-coder-1.5b" in done.stdout
    for part in ("program", "settings", "backends", "models", "terminal", "default run"):
        assert part in done.stdout


def test_the_doctor_is_content_with_an_ollama_that_has_the_model(mellea: Run, tmp_path: Path) -> None:
    """Exit code 0, and each setting with the place it comes from."""
    config = tmp_path / "config.toml"
    config.write_text("[summarise]\nconcurrency = 7\n")
    with ModelServer(models=("granite4.1:3b",)) as server:
        env = {"OLLAMA_HOST": server.url, "MELLEA_CONFIG": str(config), "MELLEA_TEMPERATURE": "0.5"}
        done = mellea("doctor", env={**env, "OPENAI_API_KEY": "sk-secret-of-mine"})
    assert done.returncode == 0, done.stdout
    assert "granite4.1:3b" in done.stdout
    assert f"7 (from {config})" in done.stdout
    assert "0.5 (from MELLEA_TEMPERATURE)" in done.stdout
    assert "sk-secret-of-mine" not in done.stdout + done.stderr
