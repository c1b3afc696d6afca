"""The architecture's rules, held by walking the code: who may import whom, and who may own tasks."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "mellea_cli"

LAYERS = {
    "errors": 0,
    "messages": 0,
    "items": 0,
    "events": 0,
    "extensions": 0,
    "backends": 1,
    "models": 1,
    "requirements": 2,
    "pipelines": 2,
    "engine": 3,
    "io": 3,
    "run": 4,
    "report": 4,
    "cluster": 4,
    "ui": 5,
    "session": 5,
    "stdlib": 5,
    "chat": 5,
    "cli": 6,
    # The package itself and the names the tutorial imports only re-export what the session offers.
    "": 6,
    "__main__": 7,
    "core": 6,
    "helpers": 6,
}

# Rooms of one layer that may not know each other: the engine knows no file, session and chat no screen.
STRANGERS = {
    ("engine", "io"),
    ("io", "engine"),
    ("ui", "session"),
    ("session", "ui"),
    ("ui", "chat"),
    ("chat", "ui"),
    ("session", "chat"),
    ("run", "report"),
    ("report", "run"),
    ("run", "cluster"),
}

# Third-party modules that only one room may import.
ONLY_IN = {
    "rich": {"ui"},
    "prompt_toolkit": {"ui"},
    "typer": {"cli"},
    "httpx": {"backends", "models"},
    "httpx_aiohttp": {"backends"},
    "aiohttp": {"backends"},
    "xllamacpp": {"backends"},
    "jinja2": {"pipelines", "report"},
    "sqlite3": {"io"},
    "lark": {"io"},
    "ray": {"cluster"},
}

# Tasks that outlive the function which starts them, and who ends them.
LOOSE_TASKS = {
    "engine/row_groups.py": "several items wait for a group's request, and it is cancelled when none does any more",
    "session/thunk.py": "a thunk's generation owns its task, and cancels it when the thunk is dropped",
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every module that a file imports, lazily or not, with the line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((name.name, node.lineno) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            yield node.module or "", node.lineno
            if node.module == "mellea_cli":
                yield from ((f"mellea_cli.{name.name}", node.lineno) for name in node.names)


def named(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_imports_point_downwards(path: Path) -> None:
    """A module imports its own layer or lower ones, and no room that is a stranger to its own."""
    here = room(path)
    for module, line in imports(path):
        if not module.startswith("mellea_cli."):
            continue
        there = module.split(".")[1]
        if there.startswith("__"):
            continue
        assert there in LAYERS, f"{named(path)}:{line}: {there} has no layer"
        assert LAYERS[there] <= LAYERS[here], f"{named(path)}:{line}: {here or 'the package'} imports {module}"
        assert (here, there) not in STRANGERS, f"{named(path)}:{line}: {here} must not know {there}"


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_third_party_libraries_stay_in_their_room(path: Path) -> None:
    """Rich is imported in ui/ only, the HTTP client in backends/ and models/, Typer in cli/, and so on."""
    for module, line in imports(path):
        top = module.split(".")[0]
        if top in ONLY_IN:
            assert room(path) in ONLY_IN[top], f"{named(path)}:{line}: {top} does not belong here"


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_there_is_no_global_state_and_no_loose_task(path: Path) -> None:
    """No `global`, no task outside a task group but the session's own job, no print outside ui/."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert not isinstance(node, ast.Global), f"{named(path)}:{node.lineno}: global"
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called.endswith(("create_task", "ensure_future")) and called != "group.create_task":
            assert named(path) in LOOSE_TASKS, f"{named(path)}:{node.lineno}: {called}"
        assert called != "print" or room(path) == "ui", f"{named(path)}:{node.lineno}: print"


def test_the_rules_see_what_they_forbid(tmp_path: Path) -> None:
    """The walker finds a lazy import inside a function: a rule that sees nothing would hold for ever."""
    module = tmp_path / "bad.py"
    module.write_text("def f():\n    from mellea_cli.ui import console\n    import rich.live\n")
    assert [name for name, _ in imports(module)] == ["mellea_cli.ui", "rich.live"]


def test_every_module_belongs_to_a_layer() -> None:
    """There is no file outside the rooms that the table names."""
    assert {room(path) for path in MODULES} <= set(LAYERS)
