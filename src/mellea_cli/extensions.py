"""Extension points: objects that installed packages register as entry points."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar, cast

from mellea_cli.errors import UsageError

T = TypeVar("T")


class ExtensionPoint(Generic[T]):
    """One group of entry points, such as `mellea.backends`.

    Args:
        group: the group's name in `[project.entry-points."GROUP"]`.
        built_in: this package's own entry points, as `pyproject.toml` declares them too; they win over others.
    """

    def __init__(self, group: str, built_in: Mapping[str, str]) -> None:
        self.group = group
        self._built_in = built_in

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

    def added(self) -> list[str]:
        """Names that other packages have registered, sorted."""
        return sorted({entry.name for entry in self._scan()} - set(self._built_in))

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
