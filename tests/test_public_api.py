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
    "Backend",
    "CBlock",
    "ChatContext",
    "Component",
    "ComponentParseError",
    "ComputedModelOutputThunk",
    "Context",
    "Instruction",
    "MelleaError",
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
    "model_ids",
    "req",
    "run",
    "simple_validate",
    "start_backend",
    "start_session",
    "wait_for_all_mots",
}


def test_the_names_are_these() -> None:
    """`__all__` is the list above, sorted, and every name in it is there."""
    assert list(mellea_cli.__all__) == sorted(OFFERED)
    assert set(dir(mellea_cli)) - OFFERED == {"backends", "core", "helpers", "stdlib"}
    for name in OFFERED:
        assert getattr(mellea_cli, name) is not None


@pytest.mark.parametrize("name", sorted(OFFERED - {"__version__", "model_ids"}))
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


def test_completion_lists_show_the_public_surface_only() -> None:
    """No private name, and none of the methods that only this package uses."""
    thunk = mellea_cli.ModelOutputThunk("text")
    session = mellea_cli.start_session("scripted")
    for one in (thunk, session):
        shown = {name for name in dir(one) if not name.startswith("__")}
        assert not [name for name in shown if name.startswith("_")]
        assert not shown & {"start", "run", "resolve_or_cancel", "running", "complete", "fail", "of", "failed"}
    assert {"value", "avalue", "parsed_repr"} <= set(dir(thunk))
    assert {"ainstruct", "backend", "gather"} <= set(dir(session))
    assert "scripted" in repr(session)


def test_submodules_are_attributes() -> None:
    """After `import mellea_cli` alone, as in the reference library."""
    names = "m.core.CBlock.__name__, m.stdlib.context.__name__, m.model_ids.QWEN3_8B.on('ollama')"
    program = f"import mellea_cli as m, mellea_cli.stdlib.context; print({names})"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout == "CBlock mellea_cli.stdlib.context qwen3:8b\n"


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
        ("mellea_cli.backends.model_options", "ModelOption"),
        ("mellea_cli.core", "ComponentParseError"),
        ("mellea_cli.core", "ComputedModelOutputThunk"),
        ("mellea_cli.core.base", "CBlock"),
        ("mellea_cli.helpers", "wait_for_all_mots"),
        ("mellea_cli.stdlib.components", "Instruction"),
        ("mellea_cli.stdlib.components", "Message"),
        ("mellea_cli.stdlib.components.genstub", "generative"),
        ("mellea_cli.stdlib.requirements", "simple_validate"),
        ("mellea_cli.stdlib.sampling", "RejectionSamplingStrategy"),
        ("mellea_cli.stdlib.session", "start_session"),
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
