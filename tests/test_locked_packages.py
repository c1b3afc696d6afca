"""The lock file: every dependency in one version, with hashes, in step with pyproject.toml; it names no server."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements.lock"
ENTRY = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^ ;\\]+)(?: ; (?P<marker>[^\\]+?))? ?\\?$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}(?: \\)?$")


def entries() -> dict[str, list[Requirement]]:
    """The packages in the lock file by name; several when they differ by platform."""
    found: dict[str, list[Requirement]] = {}
    for line in LOCK.read_text().splitlines():
        if line and not line.startswith(("#", " ")):
            entry = ENTRY.match(line)
            assert entry, line
            marker = f" ; {entry['marker']}" if entry["marker"] else ""
            one = Requirement(f"{entry['name']}=={entry['version']}{marker}")
            found.setdefault(canonicalize_name(one.name), []).append(one)
    return found


def wanted() -> list[Requirement]:
    """What pyproject.toml asks for, with the extras that the checks use."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return [Requirement(text) for text in (*project["dependencies"], *extras["local"], *extras["dev"])]


def version_of(one: Requirement) -> str:
    return next(iter(one.specifier)).version


def test_every_line_is_a_package_or_one_of_its_hashes() -> None:
    """Nothing unpinned, nothing without a hash, no option, no address."""
    hashed = True
    for line in LOCK.read_text().splitlines():
        if line.startswith("#"):
            continue
        if not line.startswith(" "):
            assert hashed, f"no hash stands before {line}"
            assert ENTRY.match(line), line
        else:
            assert HASH.match(line), line
        hashed = line.startswith(" ")
    assert hashed
    assert "://" not in LOCK.read_text()
    assert len(entries()) > 30


def test_it_is_in_step_with_the_project() -> None:
    """Each dependency of the project is locked, in a version that it allows."""
    locked = entries()
    for need in wanted():
        ours = locked.get(canonicalize_name(need.name), [])
        assert ours, f"{need.name} is not in the lock file: make lock"
        assert all(version_of(one) in need.specifier for one in ours), f"{need} is locked otherwise: make lock"


def test_nothing_that_the_project_needs_is_missing() -> None:
    """From what is installed: every package that ours need here, and those that they need, stands in the lock file."""
    installed = {canonicalize_name(one.metadata["Name"]): one for one in distributions()}
    locked = entries()
    left, seen = [(need.name, need.extras) for need in wanted()], set()
    while left:
        name, extras = left.pop()
        name = canonicalize_name(name)
        if (name, frozenset(extras)) in seen or name not in installed:
            continue
        seen.add((name, frozenset(extras)))
        assert name in locked, f"{name} is not in the lock file: make lock"
        for text in installed[name].requires or []:
            need = Requirement(text)
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                left.append((need.name, need.extras))
    assert len(seen) > 20


def test_nothing_is_listed_that_nobody_needs() -> None:
    """Each entry that is for this platform is a dependency of the project, or of a package that is installed here."""
    installed = {canonicalize_name(one.metadata["Name"]): one for one in distributions()}
    needed = {canonicalize_name(need.name) for need in wanted()}
    for one in installed.values():
        needed |= {canonicalize_name(Requirement(text).name) for text in one.requires or []}
    here = {
        name for name, ones in entries().items() if any(one.marker is None or one.marker.evaluate() for one in ones)
    }
    assert here <= needed
