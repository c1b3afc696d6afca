"""What `import mellea_cli` offers, pinned: whoever changes it changes this list too."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import subprocess
import sys

import pytest

import mellea_cli

OFFERED = {
    "AnsweredRow",
    "ChatContext",
    "Instruction",
    "MelleaSession",
    "Message",
    "ModelOption",
    "ModelOutputThunk",
    "MultiTurnStrategy",
    "PreconditionException",
    "RejectionSamplingStrategy",
    "RepairTemplateStrategy",
    "Requirement",
    "SamplingResult",
    "SimpleContext",
    "ValidationResult",
    "__version__",
    "arun",
    "check",
    "generative",
    "req",
    "run",
    "simple_validate",
    "start_session",
    "wait_for_all_mots",
}


def test_the_names_are_these() -> None:
    """`__all__` is the list above, sorted, and every name in it is there."""
    assert list(mellea_cli.__all__) == sorted(OFFERED)
    assert set(dir(mellea_cli)) >= OFFERED
    for name in OFFERED:
        assert getattr(mellea_cli, name) is not None


@pytest.mark.parametrize("name", sorted(OFFERED - {"__version__"}))
def test_every_name_has_its_docstring(name: str) -> None:
    """Every public name, and every public method of a class, says what it is for."""
    offered = getattr(mellea_cli, name)
    assert inspect.getdoc(offered)
    if inspect.isclass(offered):
        for attribute, value in vars(offered).items():
            if not attribute.startswith("_") and (callable(value) or isinstance(value, property)):
                assert inspect.getdoc(value), f"{name}.{attribute}"


def test_the_version_is_the_installed_one() -> None:
    """`__version__` comes from the package's metadata."""
    assert mellea_cli.__version__ == importlib.metadata.version("mellea-cli")


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As for any module; `backends` too."""
    for module in (mellea_cli, importlib.import_module("mellea_cli.backends")):
        with pytest.raises(AttributeError, match="made_up"):
            _ = module.made_up


def test_the_tutorial_s_import_paths_hold_the_same_objects() -> None:
    """The paths that the tutorial imports from give what the top level gives."""
    for path, name in (
        ("mellea_cli.backends", "ModelOption"),
        ("mellea_cli.helpers.async_helpers", "wait_for_all_mots"),
        ("mellea_cli.stdlib.context", "ChatContext"),
        ("mellea_cli.stdlib.context", "SimpleContext"),
    ):
        assert getattr(importlib.import_module(path), name) is getattr(mellea_cli, name)


def test_importing_loads_next_to_nothing() -> None:
    """The package alone imports no other room, no asyncio and no third-party module."""
    program = (
        "import sys; before = set(sys.modules); import mellea_cli;"
        "print(*sorted(name for name in set(sys.modules) - before if not name.startswith('mellea_cli.'))) or"
        " print(*(name for name in sys.modules if name.startswith('mellea_cli.')))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    loaded, ours = ran.stdout.splitlines()
    assert "mellea_cli" in loaded.split()
    assert not {"asyncio", "httpx", "pydantic", "typer", "jinja2", "logging"} & set(loaded.split())
    assert ours == ""
