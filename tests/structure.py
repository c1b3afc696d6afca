"""Figures of the code's structure; `python tests/structure.py` prints them, `test_structure.py` holds their limits."""

from __future__ import annotations

import ast
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"
TESTS = ROOT / "tests"

# Names that several packages may use: their meaning is the package's.
SHARED_NAMES = ("__init__", "base")


@dataclass(frozen=True, slots=True)
class Structure:
    """Figures of the source and the tests."""

    modules: int
    lines: int
    """Lines of source, blank ones, comments and docstrings included."""
    single_importer: tuple[str, ...]
    """Modules that exactly one other module of the source imports."""
    duplicate_names: tuple[str, ...]
    """File names that more than one module has, without `SHARED_NAMES`."""
    comment_share: float
    """Share of the lines that are, or end in, a comment."""
    test_ratio: float
    """Lines of test for each line of source."""


def measure(source: Path = SOURCE, tests: Path = TESTS) -> Structure:
    """Measure the Python files below two folders."""
    files = {_module(path, source): path for path in sorted(source.rglob("*.py"))}
    importers: Counter[str] = Counter()
    for name, path in files.items():
        importers.update({found for found in _imports(path) if found in files} - {name})
    names = Counter(path.stem for path in files.values())
    lines = sum(map(_lines, files.values()))
    return Structure(
        modules=len(files),
        lines=lines,
        single_importer=tuple(name for name in files if importers[name] == 1 and files[name].stem != "__init__"),
        duplicate_names=tuple(name for name, count in names.items() if count > 1 and name not in SHARED_NAMES),
        comment_share=sum(map(_comment_lines, files.values())) / lines,
        test_ratio=sum(map(_lines, tests.rglob("*.py"))) / lines,
    )


def _module(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path) -> Iterator[str]:
    """Every name that a file imports: some are modules, the others are names inside modules."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _lines(path: Path) -> int:
    return len(path.read_bytes().splitlines())


def _comment_lines(path: Path) -> int:
    with path.open("rb") as file:
        return len({token.start[0] for token in tokenize.tokenize(file.readline) if token.type == tokenize.COMMENT})


def report(found: Structure) -> str:
    """The figures as text."""
    single = found.single_importer
    return "\n".join(
        (
            f"modules                        {found.modules:,}",
            f"lines of source                {found.lines:,}",
            f"modules with one importer      {len(single)}",
            *(f"    {name}" for name in single),
            f"duplicate module names         {len(found.duplicate_names)} {' '.join(found.duplicate_names)}".rstrip(),
            f"comment lines                  {found.comment_share:.1%}",
            f"lines of test / line of source {found.test_ratio:.2f}",
        )
    )


if __name__ == "__main__":
    print(report(measure()))  # noqa: T201 - this is what the script is for
