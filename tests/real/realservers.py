"""The real servers that variables name, the program as a process, and what its rows must look like.

| variable | meaning |
|---|---|
| `MELLEA_REAL_OLLAMA` | address of an Ollama, such as `http://127.0.0.1:11434` |
| `MELLEA_REAL_LITELLM` | address of a LiteLLM proxy, with its `/v1` |
| `MELLEA_REAL_LLAMACPP` | address of a llama.cpp server, with its `/v1` |
| the same with `_MODEL` | the name of a model there |
| the same with `_KEY` | the key that the server wants, if it wants one |
| the same with `_RESTART` | a command that stops the server, starts it, and returns when it answers again |
| `MELLEA_REAL_LITELLM_RPM_MODEL` | a model on the LiteLLM proxy that is limited to two requests a minute |

A server whose address or model is not given is left out, and its tests say so.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TIMEOUT_S = 900
# `clean_environment` hides these variables from every test, so they are read here.
_VARIABLES = {name: value for name, value in os.environ.items() if name.startswith("MELLEA_REAL_")}

# What a small model does wrong. Nothing here is the server's fault or the program's.
MODEL_FAULTS = {"requirement", "parse", "length", "runaway", "empty"}

TEXTS = (
    "The onboarding was confusing and took far too long.",
    "Fast delivery, exactly as described. Will order again.",
    "Billing charged me twice. Still waiting for a refund.",
    "The mobile app crashes when I export a report.",
    "Support was friendly and solved it in five minutes.",
    "The new invoice lists two visits, but there was one.",
    "Good value, although the manual is hard to read.",
    "Nobody answered the hotline on Monday.",
    "The technician came on time and was polite.",
    "The parcel was wet and the box was open.",
    "I like the new search page.",
    "The price went up without any notice.",
)
# A very small model answers this one badly. It is then asked again at once, on the connection that is open.
ASKED_AGAIN = "Absolutely love the new dark mode 😍🌙 and the search is finally fast. Best update this year!"

Process = subprocess.CompletedProcess[str]
Run = Callable[..., Process]


@dataclass(frozen=True)
class RealServer:
    """A model server that somebody else has started."""

    name: str
    backend: str
    url: str
    model: str
    key: str = ""
    restart: tuple[str, ...] = ()

    def flags(self) -> list[str]:
        """The flags that name this server and its model."""
        return ["-b", self.backend, "-m", self.model, "--base-url", self.url]

    def environ(self) -> dict[str, str]:
        """The variables that the program needs."""
        return {"OPENAI_API_KEY": self.key} if self.key else {}


def real_server(name: str) -> RealServer:
    """The server of this name, or a skipped test."""
    kind, _, protocol = name.partition("-")
    prefix = f"MELLEA_REAL_{kind.upper()}"
    for variable in (prefix, f"{prefix}_MODEL"):
        if not _VARIABLES.get(variable):
            pytest.skip(f"{variable} is not set")
    url = _VARIABLES[prefix].rstrip("/")
    return RealServer(
        name,
        "ollama" if name == "ollama" else "openai",
        f"{url}/v1" if protocol else url,
        _VARIABLES[f"{prefix}_MODEL"],
        _VARIABLES.get(f"{prefix}_KEY", ""),
        tuple(shlex.split(_VARIABLES.get(f"{prefix}_RESTART", ""))),
    )


def limited_model() -> str:
    """The model that is limited to two requests a minute, or a skipped test."""
    name = "MELLEA_REAL_LITELLM_RPM_MODEL"
    if not _VARIABLES.get(name):
        pytest.skip(f"{name} is not set")
    return _VARIABLES[name]


def write_feedback(path: Path, texts: Sequence[str]) -> Path:
    """Write one row for each text."""
    rows = [{"id": f"R-{number}", "text": text} for number, text in enumerate(texts, 1)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read rows of JSONL."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def summary_of(done: Process) -> dict[str, Any]:
    """The closing summary that `--json` prints."""
    summary: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])
    return summary


def check_rows(rows: Sequence[dict[str, Any]], texts: Sequence[str], talk: str = "") -> None:
    """Every row is there in its order, and ends in an answer of the right form or in a fault of the model."""
    assert [row["id"] for row in rows] == [f"R-{number}" for number in range(1, len(texts) + 1)], talk
    assert [row["text"] for row in rows] == list(texts), talk
    for row in rows:
        if "error" in row:
            assert row["error"]["kind"] in MODEL_FAULTS, (row["error"], talk)
            continue
        assert isinstance(row["summary"], str)
        assert row["summary"].strip()
        assert row["sentiment"] in {"positive", "negative", "mixed"}
        assert set(row["issues"]) == {"main_complaint", "positive_aspect", "urgency"}
        assert row["issues"]["urgency"] in {"low", "medium", "high"}
