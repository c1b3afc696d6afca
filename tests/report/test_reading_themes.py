"""The themes file: what is read from it, and what is said of one that is broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from mellea_cli.errors import InputError
from mellea_cli.report.themesfile import Theme, read_themes


def test_themes_are_read_in_their_order(tmp_path: Path) -> None:
    """Name, definition, kind and examples; all but the name may be missing."""
    path = tmp_path / "themes.toml"
    path.write_text(
        '[[theme]]\nname = " Late "\ndefinition = "It came late."\nkind = "complaint"\nexamples = ["a", "b"]\n'
        '[[theme]]\nname = "Kind"\n',
        encoding="utf-8",
    )
    assert read_themes(path) == [Theme("Late", "It came late.", "complaint", ("a", "b")), Theme("Kind")]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[[theme]\n", "is not TOML"),
        ("x = 1\n", "holds no [[theme]] tables"),
        ("theme = [1]\n", "holds no [[theme]] tables"),
        ('[[theme]]\nname = "a"\n[[theme]]\ndefinition = "b"\n', "theme 2 has no name"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_broken_file_is_told_as_such(tmp_path: Path, content: str | None, said: str) -> None:
    """One line that names the file."""
    path = tmp_path / "themes.toml"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_themes(path)
    assert said in caught.value.message
    assert str(path) in caught.value.message
