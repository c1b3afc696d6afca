"""Extension points: objects that installed packages register as entry points."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar, cast

from mellea_cli.errors import UsageError, nearest

T = TypeVar("T")


def extra_module(name: str, what: str, extra: str = "tables") -> Any:
    """Import a module of an optional package.

    Args:
        name: the module.
        what: what needs it, for the message.
        extra: the extra of this package that installs it.

    Raises:
        UsageError: the package is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0] if not name.startswith("backports") else name
        raise UsageError(
            f"{what}: the package {package} is not installed", hint=f"pip install 'mellea-cli[{extra}]'"
        ) from error


class ExtensionPoint(Generic[T]):
    """One group of entry points, such as `mellea.backends`.

    Args:
        group: the group's name in `[project.entry-points."GROUP"]`.
        built_in: this package's own entry points, as `pyproject.toml` declares them too; they win over others.
        choices: names that are offered but not registered, such as `auto`.
    """

    def __init__(self, group: str, built_in: Mapping[str, str], choices: tuple[str, ...] = ()) -> None:
        self.group = group
        self.kind = group.rpartition(".")[2].removesuffix("s").replace("_", " ")
        """What it registers, in messages."""
        self._built_in = built_in
        self._choices = choices

    def load(self, name: str) -> T | None:
        """Return the object registered under `name`, or `None`.

        Raises:
            UsageError: another package registers it and cannot be imported.
        """
        # Entry points are read from the metadata of every installed package, which takes up to a tenth of a second:
        # the built-in names do without.
        if (built_in := self._built_in.get(name)) is not None:
            return cast("T", _resolve(built_in))
        return next((_load_foreign(entry) for entry in self._scan() if entry.name == name), None)

    def require(self, name: str) -> T:
        """Return the object registered under `name`.

        Raises:
            UsageError: nothing is registered under the name, or it cannot be imported.
        """
        if (found := self.load(name)) is None:
            raise self.unknown(name)
        return found

    def check(self, name: str) -> str:
        """Return `name` if it is registered or offered; nothing is imported.

        Raises:
            UsageError: it is neither.
        """
        if name in self._choices or name in self._built_in or name in self.added():
            return name
        raise self.unknown(name)

    def names(self) -> list[str]:
        """Every name: what is offered, the built-in ones, and those of other packages."""
        return [*self._choices, *self._built_in, *self.added()]

    def added(self) -> list[str]:
        """Names that other packages have registered, sorted."""
        return [name for name, _ in self.packages()]

    def packages(self) -> list[tuple[str, str]]:
        """Names that other packages have registered, sorted, and the package of each."""
        found = {entry.name: entry.dist.name if entry.dist else "" for entry in self._scan()}
        return sorted((name, found[name]) for name in found.keys() - self._built_in.keys() - set(self._choices))

    def unknown(self, name: str) -> UsageError:
        """The error for a name that is not registered."""
        names = self.names()
        near = nearest(name, names)
        hint = f"did you mean {near}? " if near else ""
        return UsageError(f"there is no {self.kind} {name!r}", hint=f"{hint}choose one of {', '.join(names)}")

    def _scan(self) -> Iterable[Any]:
        from importlib.metadata import entry_points

        return entry_points(group=self.group)


def _resolve(reference: str) -> Any:
    module, _, path = reference.partition(":")
    found: Any = importlib.import_module(module)
    for attribute in path.split("."):
        found = getattr(found, attribute)
    return found


def _load_foreign(entry: Any) -> Any:
    try:
        return entry.load()
    except (ImportError, AttributeError) as error:
        package = entry.dist.name if entry.dist else "a package"
        raise UsageError(
            f"{package} registers {entry.name} ({entry.value}), which cannot be loaded: {error}",
            hint=f"update or uninstall {package}",
        ) from error
