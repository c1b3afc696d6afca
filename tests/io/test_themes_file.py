"""The themes file: written once, read as a person left it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mellea_cli.errors import OutputError, UsageError
from mellea_cli.io.themes_file import (
    Proposal,
    accept_proposals,
    read_proposals,
    read_themes,
    write_proposals,
    write_themes,
)
from mellea_cli.pipelines.theme_prompts import Theme

NASTY = Theme(
    'Say "no" \\ <b>',
    "Tab and \u00e9\U0001f600 \x7f {{ x }} # no comment.",
    "both",
    (
        "'''",
        '"""',
    ),
)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    """Every letter comes back, also those that TOML has a meaning for."""
    path = tmp_path / "t.toml"
    themes = (Theme("Late delivery", "It came late.", "complaint", ("late", "a day late")), NASTY)
    write_themes(path, themes)
    assert read_themes(path) == themes
    assert path.read_text().startswith("# ")
    assert [one.name for one in tmp_path.iterdir()] == ["t.toml"]


def test_a_parent_is_a_heading(tmp_path: Path) -> None:
    """Spellings that differ in capitals are one; a heading that is also a theme is refused with its line."""
    path = tmp_path / "t.toml"
    themes = (Theme("Late", "It came late.", parent="Delivery"), Theme("Lost", "It never came.", parent="DELIVERY"))
    write_themes(path, themes)
    assert [one.parent for one in read_themes(path) or ()] == ["Delivery", "Delivery"]
    path.write_text(path.read_text().replace('"DELIVERY"', '"late"'))
    with pytest.raises(UsageError, match=r"t.toml:\d+: the parent 'late' is a theme of its own"):
        read_themes(path)


def test_a_file_that_is_there_is_never_written_over(tmp_path: Path) -> None:
    """An edited file is the user's."""
    path = tmp_path / "t.toml"
    path.write_text("mine")
    with pytest.raises(UsageError, match="it is unchanged"):
        write_themes(path, (NASTY,))
    assert path.read_text() == "mine"


def test_no_folder_no_file(tmp_path: Path) -> None:
    """A file that cannot be written is an output's error."""
    with pytest.raises(OutputError):
        write_themes(tmp_path / "none" / "t.toml", (NASTY,))


def test_a_missing_file_is_none(tmp_path: Path) -> None:
    """Then themes are found."""
    assert read_themes(tmp_path / "t.toml") is None


def test_kind_and_examples_may_be_left_out(tmp_path: Path) -> None:
    """A theme needs a name and a definition; white space in them is evened out."""
    path = tmp_path / "t.toml"
    path.write_text('\ufeff[[theme]]\nname = " Long   waits"\ndefinition = """One\nline"""\n', encoding="utf-8")
    assert read_themes(path) == (Theme("Long waits", "One line", "both", ()),)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("theme = [", "cannot be read"),
        ("", "holds no themes"),
        ("theme = 3", "holds no themes"),
        ("[[theme]]\nname='a'\ndefinition='b'\n[[thema]]\nname='c'", "unknown key 'thema'"),
        ("[[theme]]\ndefinition='b'", "theme 1: name is missing"),
        ("[[theme]]\nname='a'", "theme 1 .a.: definition is missing"),
        ("[[theme]]\nname=''\ndefinition='b'", "name: it should have at least 1 character"),
        ("[[theme]]\nname='a | b'\ndefinition='b'", "cannot contain"),
        ("[[theme]]\nname='=a'\ndefinition='b'", "formula"),
        ("[[theme]]\nname='Other'\ndefinition='b'", "exist in every run"),
        ("[[theme]]\nname='a'\ndefinition='b'\nkind='bad'", "kind: it should be 'complaint', 'praise' or 'both'"),
        ("[[theme]]\nname='a'\ndefinition='b'\nexamples='c'", "examples: it should be a valid list"),
        ("[[theme]]\nname='a'\ndefinition='b'\nexamples=[3]", "examples: it should be a valid string"),
        ("[[theme]]\nname='a'\ndefinition='b'\ncolour='c'", "unknown key 'colour'"),
        ("[[theme]]\nname='a'\ndefinition='b'\n[[theme]]\nname='A'\ndefinition='c'", "'A' has the same name as 'a'"),
        ("[[theme]]\nname='a'\ndefinition='b'\n[[theme]]\nname='c'\ndefinition='B'", "the same definition"),
        (f"[[theme]]\nname='{'a' * 61}'\ndefinition='b'", "name: it should have at most 60 characters"),
        ("".join(f"[[theme]]\nname='a{n}'\ndefinition='b{n}'\n" for n in range(51)), "51 themes"),
    ],
)
def test_what_is_no_theme_is_said_with_the_way_out(tmp_path: Path, content: str, said: str) -> None:
    """The file and the theme are named, and what to do."""
    path = tmp_path / "t.toml"
    path.write_text(content)
    with pytest.raises(UsageError, match=said) as caught:
        read_themes(path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("# a\n[[theme]]\nname='a'\ndefinition='b'\n\n[[theme]]\nname='c'\n", 6),
        ("[[theme]]\nname='a'\ndefinition='b'\nkind='bad'\n", 4),
        ("[[theme]]\nname='a'\ndefinition='b'\nexamples=[\n'c',\n3]\n", 6),
        ("[[theme]]\nname='a'\ndefinition='b'\ncolour='c'\n", 4),
        ("[[theme]]\nname='a'\ndefinition='b'\n[[thema]]\nname='c'\n", 4),
        ("[[theme]]\nname='a'\ndefinition='b'\n[[theme]]\ndefinition='c'\nname='A'\n", 6),
        ("[[theme]]\nname='a'\ndefinition='b'\n[[theme]]\nname='c'\ndefinition='B'\n", 6),
        ("".join(f"[[theme]]\nname='a{n}'\ndefinition='b{n}'\n" for n in range(51)), 151),
        ("\r\n[[theme]]\r\nname=a\r\n", 3),
        ("theme = 3\n", 1),
    ],
)
def test_errors_have_the_line(tmp_path: Path, content: str, line: int) -> None:
    """The line of the key, or of the theme where the key is missing."""
    path = tmp_path / "t.toml"
    path.write_bytes(content.encode())
    with pytest.raises(UsageError) as caught:
        read_themes(path)
    assert caught.value.message.startswith(f"{path}:{line}: ")


def test_misspelled_key_brings_the_nearest_one(tmp_path: Path) -> None:
    """Although the right key is missing too, the hint says which key was meant."""
    path = tmp_path / "t.toml"
    path.write_text("[[theme]]\nname='a'\ndefinition='b'\n[[theme]]\nname='c'\ndefinitoin='d'")
    with pytest.raises(UsageError, match=r"theme 2 \(c\): unknown key 'definitoin'") as caught:
        read_themes(path)
    assert caught.value.hint == "did you mean definition?"


def test_only_two_examples_are_read(tmp_path: Path) -> None:
    """Further examples are ignored, whatever they are."""
    path = tmp_path / "t.toml"
    path.write_text("[[theme]]\nname='a'\ndefinition='b'\nexamples=['c', 'd  e', '', 3]")
    assert read_themes(path) == (Theme("a", "b", "both", ("c", "d e")),)


SPLIT = Proposal(
    "split", 'so \x7f"many"', (Theme("New", "n", parent="Old"), NASTY), ("Old",), (("7", "a | \u2028 b"),), 2
)
MINE = """\
# Mine.
[[theme]]
name = "Old"
definition = "x \u2028 y"
examples = [
  "a",
]
# About Kept.
[[theme]]
name = "Kept" # yes
definition = "k"
"""


def test_proposals_are_read_as_they_were_written(tmp_path: Path) -> None:
    """Next to the themes file, which stays; the next ones take their place, and none leave no file."""
    path = tmp_path / "t.toml"
    other = Proposal("new", "r", (Theme("More", "m"),), number=3)
    assert read_proposals(path) == []
    target = write_proposals(path, [SPLIT, other])
    assert (target.name, read_proposals(path)) == ("t.proposal.toml", [SPLIT, other])
    assert not path.exists()
    write_proposals(path, [])
    assert not target.exists()


def test_an_accepted_proposal_changes_the_file_and_leaves_the_rest(tmp_path: Path) -> None:
    """Comments and other themes stay as they are; the other proposals keep their numbers."""
    path = tmp_path / "t.toml"
    path.write_text(MINE, encoding="utf-8")
    other = Proposal("new", "r", (Theme("More", "m"),), number=3)
    write_proposals(path, [SPLIT, other])
    changed = accept_proposals(path, [SPLIT])
    assert changed == read_themes(path)
    assert [theme.name for theme in changed] == ["Kept", "New", NASTY.name]
    assert path.read_text(encoding="utf-8").startswith('# Mine.\n# About Kept.\n[[theme]]\nname = "Kept" # yes\n')
    assert read_proposals(path) == [other]


@pytest.mark.parametrize(
    ("mine", "said"),
    [
        (MINE.replace("Old", "Older"), "has no theme 'Old' any more"),
        (MINE.replace("Kept", "new"), "'New' has the same name as 'new'"),
        (
            'theme = [{name = "Old", definition = "o"}, {name = "Kept", definition = "k"}]\n',
            "not written as [[theme]] tables",
        ),
    ],
)
def test_a_proposal_that_does_not_fit_changes_nothing(tmp_path: Path, mine: str, said: str) -> None:
    """The file may have been edited since, or be written in another form."""
    path = tmp_path / "t.toml"
    path.write_text(mine, encoding="utf-8")
    write_proposals(path, [SPLIT])
    with pytest.raises(UsageError, match=re.escape(said)):
        accept_proposals(path, [SPLIT])
    assert (path.read_text(encoding="utf-8"), read_proposals(path)) == (mine, [SPLIT])


def test_a_broken_proposals_file_names_the_line(tmp_path: Path) -> None:
    """It may be edited too; a name that is no label is refused when it is accepted."""
    path = tmp_path / "t.toml"
    path.write_text(MINE, encoding="utf-8")
    source = write_proposals(path, [SPLIT])
    good = source.read_text()
    source.write_text(good.replace('"split"', '"rename"'))
    with pytest.raises(UsageError, match=r"t.proposal.toml:7: change: Input should be 'new', 'split' or 'merge'"):
        read_proposals(path)
    source.write_text(good.replace('"New"', '"A | B"'))
    with pytest.raises(UsageError, match=r"t.proposal.toml: name: a name cannot contain '\|'"):
        accept_proposals(path, read_proposals(path))
    source.write_text(good.replace('"New"', '" So   new"'))
    assert [one.name for one in accept_proposals(path, read_proposals(path))] == ["Kept", "So new", NASTY.name]
