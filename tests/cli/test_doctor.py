"""`mellea doctor`."""

from __future__ import annotations

from pathlib import Path

import pytest

from loopback import ModelServer
from rowfiles import Run


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


def test_the_default_run_is_that_of_the_settings(mellea: Run, tmp_path: Path) -> None:
    """A server in the configuration file makes a run without flags work, whatever else is missing here."""
    config = tmp_path / "config.toml"
    config.write_text('backend = "openai"\nmodel = "their-model"\nbase-url = "http://127.0.0.1:9/v1"\n')
    done = mellea("doctor", env={"OLLAMA_HOST": "http://127.0.0.1:9", "MELLEA_CONFIG": str(config)})
    assert done.returncode == 0, done.stdout
    assert "asking openai for their-model, as the settings say" in done.stdout
    missing = mellea("doctor", env={"OLLAMA_HOST": "http://127.0.0.1:9", "MELLEA_POOL": "gpus"})
    assert missing.returncode == 2
    assert "there is no pool 'gpus'" in missing.stdout


@pytest.mark.parametrize(
    ("config", "environ", "problem"),
    [
        ("[summarise]\nconcurency = 7\n", {}, "did you mean 'concurrency'?"),
        ("limit = = 3\n", {}, "cannot be read"),
        ("[summarise]\nconcurrency = 0\n", {}, "must be a number of requests"),
        ("", {"MELLEA_TIMEOUT": "soon"}, "(from MELLEA_TIMEOUT)"),
    ],
)
def test_the_doctor_reports_settings_that_cannot_be_used(
    mellea: Run, tmp_path: Path, config: str, environ: dict[str, str], problem: str
) -> None:
    """Every other part is shown as well; the exit code says that something is wrong."""
    path = tmp_path / "config.toml"
    path.write_text(config, encoding="utf-8")
    with ModelServer(models=("granite4.1:3b",)) as server:
        done = mellea("doctor", env={"OLLAMA_HOST": server.url, "MELLEA_CONFIG": str(path), **environ})
    assert (done.returncode, done.stderr) == (2, "")
    assert problem in " ".join(done.stdout.split())
    for part in ("program", "settings", "backends", "models", "terminal", "default run"):
        assert part in done.stdout
