"""Extension points: packages that register backends and model sources are found, and built-in names need no search."""

from __future__ import annotations

import importlib.metadata
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from mellea_cli.backends.registry import BACKEND_FACTORIES, BackendInfo, backend_info, open_backend
from mellea_cli.backends.security import NetworkPolicy
from mellea_cli.cli import flags
from mellea_cli.errors import UsageError
from mellea_cli.io.formats import FORMATS
from mellea_cli.models.store import MODEL_SOURCES, open_sources
from mellea_cli.run.executor import EXECUTORS

ROOT = Path(__file__).parent.parent
MODULE = """
class Backend:
    name = "echo"
    def __init__(self, settings):
        self.model = settings.model
class Source:
    name = "our mirror"
    def __init__(self, environ, network):
        self.network = network
"""

Install = Callable[[str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a package with these entry points, as pip lays one out."""

    def package(entry_points: str) -> None:
        (tmp_path / "our_plugin.py").write_text(MODULE)
        info = tmp_path / "our_plugin-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: our-plugin\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(entry_points)
        monkeypatch.syspath_prepend(tmp_path)

    return package


def test_a_backend_of_another_package_opens_by_its_name(install: Install) -> None:
    """Its factory gets the settings; its defaults are general ones; errors list its name."""
    install("[mellea.backends]\necho = our_plugin:Backend\n")
    assert open_backend("echo").name == "echo"
    assert backend_info("echo") == BackendInfo()
    with pytest.raises(UsageError) as caught:
        open_backend("ekko")
    assert caught.value.hint.endswith("scripted, echo")


def test_a_model_source_of_another_package_is_tried_first(install: Install) -> None:
    """It gets the network policy; the built-in sources follow."""
    install("[mellea.model_sources]\nmirror = our_plugin:Source\n")
    network = NetworkPolicy(local_only=True)
    first, *others = open_sources({}, network)
    assert (first.name, vars(first)["network"]) == ("our mirror", network)
    assert [source.name for source in others] == ["hub cache", "Hugging Face hub", "Python index"]


@pytest.mark.parametrize("value", ["no_such_module:Backend", "our_plugin:NoSuchClass"])
def test_a_broken_extension_names_its_package(install: Install, value: str) -> None:
    """The error says which package to update; built-in names still work."""
    install(f"[mellea.backends]\necho = {value}\nscripted = {value}\n")
    with pytest.raises(UsageError, match="our-plugin registers echo") as caught:
        open_backend("echo")
    assert caught.value.hint == "update or uninstall our-plugin"
    assert open_backend("scripted").name == "scripted"


def test_built_in_names_need_no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entry points are not read for them: that takes as long as a start."""
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: pytest.fail("the entry points were read"))
    assert BACKEND_FACTORIES.load("ollama") is not None
    assert MODEL_SOURCES.load("hub") is not None


def test_the_tables_match_the_entry_points_of_this_package() -> None:
    """The built-in extensions register as all others do."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    points = (BACKEND_FACTORIES, FORMATS, EXECUTORS, MODEL_SOURCES)
    assert {point.group: dict(point._built_in) for point in points} == declared


def test_flags_know_the_built_in_names() -> None:
    """The flags list them without importing the tables."""
    for point, flag in ((BACKEND_FACTORIES, flags.BACKENDS), (FORMATS, flags.FORMATS), (EXECUTORS, flags.EXECUTORS)):
        assert flag["metavar"] == "|".join(point.names())
