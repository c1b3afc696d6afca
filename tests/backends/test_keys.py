"""Where a key comes from, and which files are refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mellea_cli.backends.security import Secrets, read_key_file
from mellea_cli.errors import UsageError

KEY = "sk-from-a-file-77"


def private(folder: Path, content: str = KEY + "\n", mode: int = 0o600) -> Path:
    path = folder / "key"
    path.write_text(content)
    path.chmod(mode)
    return path


def test_the_file_beats_the_variable(tmp_path: Path) -> None:
    """A file that was named is meant; without one the variable counts; without both there is no key."""
    path = private(tmp_path)
    assert Secrets.from_environ({"MELLEA_KEY_FILE": str(path), "OPENAI_API_KEY": "other"}).key() == KEY
    assert Secrets.from_environ({"OPENAI_API_KEY": "other"}).key() == "other"
    assert Secrets.from_environ({}).key() == ""


def test_a_name_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Configuration files are not expanded by a shell."""
    private(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Secrets.from_environ({"MELLEA_KEY_FILE": "~/key"}).key() == KEY


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such modes")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o660, 0o777])
def test_a_file_that_others_may_touch_is_refused(mode: int, tmp_path: Path) -> None:
    """One line with the mode and the command that mends it, and without the key."""
    path = private(tmp_path, mode=mode)
    with pytest.raises(UsageError, match=f"mode 0{mode:o}") as caught:
        read_key_file(path)
    assert f"chmod 600 {path}" in caught.value.hint
    assert KEY not in caught.value.message + caught.value.hint


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such modes")
@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_private_file_is_read(mode: int, tmp_path: Path) -> None:
    """White space and a byte order mark around the key do not count."""
    assert read_key_file(private(tmp_path, f"\ufeff  {KEY}\r\n\n", mode)) == KEY


@pytest.mark.parametrize(
    ("content", "words"), [("", "is empty"), (" \n", "is empty"), ("a b", "more than one"), ("x" * 5_000, "more than")]
)
def test_what_is_no_key_is_refused(content: str, words: str, tmp_path: Path) -> None:
    """The file holds one key and nothing else; none of it is repeated."""
    with pytest.raises(UsageError, match=words) as caught:
        read_key_file(private(tmp_path, content))
    assert "xxx" not in caught.value.message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """It is named."""
    with pytest.raises(UsageError, match="nothing-here: the key file cannot be read"):
        read_key_file(tmp_path / "nothing-here")


def test_every_key_that_was_read_is_taken_out() -> None:
    """The usual one, that of a pool's server, one in a header, one in an address."""
    environ = {"OPENAI_API_KEY": KEY, "DESK_KEY": "desk-secret-77"}
    assert Secrets.from_environ(environ).key("DESK_KEY") == "desk-secret-77"
    said = f"{KEY}, desk-secret-77, Authorization: Bearer zzz-1 http://me:word@box/v1"
    assert Secrets.from_environ(environ).scrub(said) == "***, ***, *** http://***@box/v1"
