"""The store gives out checked files only, survives interruptions, and lets one process fetch at a time."""

from __future__ import annotations

import dataclasses
import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mellea_cli.errors import ModelFileError, UsageError
from mellea_cli.models.catalogue import CATALOGUE, ModelFile
from mellea_cli.models.download import Hub, Progress
from mellea_cli.models.store import ModelStore, check_gguf, default_root, is_path

if TYPE_CHECKING:
    from conftest import FakeHub, Seen


PULLER = """
import json, os, sys
from pathlib import Path
from mellea_cli.errors import ModelFileError
from mellea_cli.models.catalogue import ModelFile
from mellea_cli.models.download import Hub
from mellea_cli.models.store import ModelStore

facts = json.loads(sys.argv[1])
if limit := facts.pop("limit"):
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
model = ModelFile(**facts)
store = ModelStore(Path(sys.argv[2]), catalogue={model.name: model}, sources=[Hub(os.environ)])
try:
    print("done", store.pull(model.name, lambda progress: print(progress.phase, progress.done, flush=True)))
except ModelFileError as error:
    sys.exit(f"{error.message} | {error.hint}")
"""


@pytest.fixture
def store(tmp_path: Path, model: ModelFile, hub: FakeHub) -> ModelStore:
    """An empty store that fetches from the hub on loopback."""
    return ModelStore(
        tmp_path / "store", catalogue={model.name: model}, sources=[Hub({"HF_ENDPOINT": hub.url}, stall_s=20.0)]
    )


def puller(store: ModelStore, model: ModelFile, hub: FakeHub, *, limit: int = 0) -> subprocess.Popen[str]:
    """Pull in another process; it prints each phase as it comes."""
    facts = {**dataclasses.asdict(model), "wheels": [], "limit": limit}
    return subprocess.Popen(
        [sys.executable, "-c", PULLER, json.dumps(facts), str(store.root)],
        env={**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for a puller; return its exit code and what it printed."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def until(lines: Iterator[str], word: str) -> None:
    """Read lines until one starts with `word`."""
    for line in lines:
        if line.startswith(word):
            return
    pytest.fail(f"the process ended without saying {word!r}")


def test_an_absent_model_is_none(store: ModelStore) -> None:
    """Looking for a file neither fetches nor fails, nor makes the folder."""
    assert store.find("tiny") is None
    assert not store.root.exists()
    assert store.size() == 0


def test_an_unknown_name_is_an_error(store: ModelStore) -> None:
    """Every way in knows the same names."""
    for call in (store.find, store.pull, store.remove):
        with pytest.raises(UsageError, match="no model is called 'tinny'"):
            call("tinny")


def test_a_path_is_taken_as_it_is(store: ModelStore, tmp_path: Path, payload: bytes) -> None:
    """A GGUF file of the user's own is not looked up in the catalogue."""
    path = tmp_path / "own.gguf"
    path.write_bytes(payload)
    assert store.find(str(path)) == path
    with pytest.raises(ModelFileError, match="no model file at"):
        store.find(str(tmp_path / "other.gguf"))


def test_a_pulled_file_is_hashed_once(store: ModelStore, hub: FakeHub, payload: bytes, seen: Seen) -> None:
    """After a pull the file is found without hashing, and a second pull asks nobody."""
    path = store.pull("tiny")
    assert store.find("tiny", seen) == path
    assert store.pull("tiny", seen) == path
    assert seen.all == []
    assert len(hub.requests) == 1
    assert path.read_bytes() == payload


@pytest.mark.skipif(os.name == "nt", reason="file modes are a matter of POSIX")
def test_a_pulled_file_has_the_mode_of_any_other(store: ModelStore, tmp_path: Path) -> None:
    """Neither private nor executable: what the user's umask says."""
    (tmp_path / "any").touch()
    assert store.pull("tiny").stat().st_mode == (tmp_path / "any").stat().st_mode


def test_a_file_put_there_by_hand_is_hashed_before_use(store: ModelStore, payload: bytes, seen: Seen) -> None:
    """The first use checks it, the second one trusts the record."""
    store.root.mkdir()
    (store.root / "tiny-model.gguf").write_bytes(payload)
    assert store.entries()[0].state == "unchecked"
    store.find("tiny", seen)
    assert seen.phases() == ["checking"]
    assert seen.all[-1].done == len(payload)
    assert store.entries()[0].state == "verified"


def test_a_changed_file_is_found_out(store: ModelStore, payload: bytes) -> None:
    """Touched bytes are hashed again; a wrong file is renamed and never given out."""
    path = store.pull("tiny")
    path.write_bytes(payload[:-1] + b"?")
    with pytest.raises(ModelFileError, match="is not the file it should be") as caught:
        store.find("tiny")
    assert caught.value.hint == "mellea models pull tiny"
    assert store.find("tiny") is None
    assert (store.root / "tiny-model.gguf.rejected").exists()
    assert store.pull("tiny").read_bytes() == payload
    assert not (store.root / "tiny-model.gguf.rejected").exists()


def test_a_pull_replaces_a_wrong_file(store: ModelStore, hub: FakeHub, payload: bytes) -> None:
    """A broken file in the place does not stop the pull that repairs it."""
    store.root.mkdir()
    (store.root / "tiny-model.gguf").write_bytes(b"GGUF but wrong")
    assert store.pull("tiny").read_bytes() == payload
    assert len(hub.requests) == 1


def test_a_record_of_another_hash_is_not_trusted(store: ModelStore, payload: bytes, seen: Seen) -> None:
    """A record from an older catalogue leads to a new look at the file."""
    path = store.pull("tiny")
    record = path.with_name(path.name + ".checked.json")
    facts = json.loads(record.read_text())
    record.write_text(json.dumps({**facts, "sha256": "0" * 64}))
    assert store.find("tiny", seen) == path
    assert seen.phases() == ["checking"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"size": 1, "mtime_ns": 2, "sha256": "3", "more": 4}'])
def test_a_broken_record_is_made_again(store: ModelStore, text: str, seen: Seen) -> None:
    """The record is a convenience: without it the file is hashed."""
    path = store.pull("tiny")
    path.with_name(path.name + ".checked.json").write_text(text)
    assert store.find("tiny", seen) == path
    assert seen.phases() == ["checking"]


def test_a_keyboard_interrupt_leaves_a_beginning(store: ModelStore, hub: FakeHub, payload: bytes) -> None:
    """Ctrl-C in the middle costs nothing: the next pull asks for the rest."""

    def interrupt(progress: Progress) -> None:
        if progress.done > 100_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.pull("tiny", interrupt)
    entry = store.entries()[0]
    assert entry.state == "partial"
    assert 100_000 < entry.size < len(payload)
    assert store.pull("tiny").read_bytes() == payload
    assert hub.asked_ranges() == ["", f"bytes={entry.size}-"]


def test_a_torn_tail_is_found_by_the_hash(store: ModelStore, hub: FakeHub, payload: bytes) -> None:
    """After a power failure the end of a partial file may be damaged: the whole file is fetched again, once."""
    store.root.mkdir()
    (store.root / "tiny-model.gguf.partial").write_bytes(payload[:50_000] + b"\0" * 9000)
    assert store.pull("tiny").read_bytes() == payload
    assert hub.asked_ranges() == ["bytes=59000-", ""]


def test_what_version_0_1_left_is_used_and_removed(store: ModelStore, hub: FakeHub, payload: bytes) -> None:
    """Its partial file is resumed, and removing a model takes its note too."""
    store.root.mkdir()
    partial = store.root / "tiny-model.gguf.partial"
    partial.write_bytes(payload[:50_000])
    partial.with_name(partial.name + ".json").write_text('{"kept": 50000}')
    assert store.pull("tiny").read_bytes() == payload
    assert hub.asked_ranges() == ["bytes=50000-"]
    store.remove("tiny")
    assert store.size() == 0


def test_a_killed_pull_can_be_repeated(store: ModelStore, model: ModelFile, hub: FakeHub, payload: bytes) -> None:
    """A kill -9 leaves no lock behind and no file that passes for whole."""
    hub.stall_after = 120_000
    process = puller(store, model, hub)
    assert process.stdout is not None
    until(process.stdout, "fetching")
    process.kill()
    finish(process)
    assert store.find("tiny") is None
    hub.stall_after = None
    assert store.pull("tiny").read_bytes() == payload


def test_two_processes_fetch_once(store: ModelStore, model: ModelFile, hub: FakeHub) -> None:
    """The second one waits, says so, and finds the file."""
    hub.gate.clear()
    first = puller(store, model, hub)
    while not hub.requests:
        assert first.poll() is None
        hub.gate.wait(0.02)
    second = puller(store, model, hub)
    assert second.stdout is not None
    until(second.stdout, "waiting")
    hub.gate.set()
    code, out, err = finish(first)
    assert (code, err) == (0, "")
    assert "waiting" not in out
    code, out, err = finish(second)
    assert (code, err) == (0, "")
    assert out.startswith("done")
    assert len(hub.requests) == 1


def test_a_model_in_flight_is_not_removed(store: ModelStore, hub: FakeHub, payload: bytes) -> None:
    """Removing what another process is fetching is refused."""
    hub.gate.clear()
    thread = threading.Thread(target=store.pull, args=("tiny",))
    thread.start()
    try:
        while not hub.requests:
            hub.gate.wait(0.02)
        with pytest.raises(ModelFileError, match="another process is fetching"):
            store.remove("tiny")
    finally:
        hub.gate.set()
        thread.join()
    assert store.remove("tiny") > len(payload)
    assert store.find("tiny") is None


def test_remove_frees_what_is_there(store: ModelStore, payload: bytes, model: ModelFile) -> None:
    """File, record and beginning go; nothing there is nothing freed."""
    assert store.remove("tiny") == 0
    store.pull("tiny")
    assert store.size() > len(payload)
    assert store.remove("tiny") >= len(payload)
    assert store.entries()[0].state == "absent"
    assert store.size() == 0
    (store.root / "tiny-model.gguf.partial").write_bytes(b"x" * 10)
    assert store.remove("tiny") == 10


def test_room_is_checked_first(store: ModelStore, model: ModelFile, hub: FakeHub) -> None:
    """A file that cannot fit is not begun."""
    huge = dataclasses.replace(model, size=10**18)
    store = ModelStore(store.root, catalogue={"tiny": huge}, sources=[Hub({"HF_ENDPOINT": hub.url})])
    with pytest.raises(ModelFileError, match="not enough room in") as caught:
        store.pull("tiny")
    assert "MELLEA_CACHE_DIR" in caught.value.hint
    assert hub.requests == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file size")
def test_a_full_disk_is_one_line(store: ModelStore, model: ModelFile, hub: FakeHub, payload: bytes) -> None:
    """A write that fails says where; with room again the pull goes on."""
    code, _, err = finish(puller(store, model, hub, limit=150_000))
    assert code == 1
    assert err.startswith(f"cannot use {store.root}: ")
    assert "too large" in err
    assert "MELLEA_CACHE_DIR" in err
    assert store.pull("tiny").read_bytes() == payload


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, model: ModelFile) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "file").touch()
    store = ModelStore(tmp_path / "file" / "models", catalogue={model.name: model}, sources=[])
    with pytest.raises(ModelFileError, match="cannot use"):
        store.pull("tiny")


def test_all_reasons_are_named(store: ModelStore, model: ModelFile) -> None:
    """Every source's reason stands in one line, the way out in the hint."""
    offline = Hub({"HF_HUB_OFFLINE": "1"})
    store = ModelStore(store.root, catalogue={"tiny": model}, sources=[offline, offline])
    with pytest.raises(ModelFileError) as caught:
        store.pull("tiny")
    reason = "Hugging Face hub: not asked, HF_HUB_OFFLINE is set"
    assert caught.value.message == f"cannot fetch the model tiny: {reason}; {reason}"
    assert "https://huggingface.co/some-org/tiny-GGUF" in caught.value.hint
    assert "-m tiny-model.gguf" in caught.value.hint


def test_the_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MELLEA_CACHE_DIR first, else the user's cache folder as the platform has it."""
    assert default_root({"MELLEA_CACHE_DIR": str(tmp_path)}) == tmp_path / "models"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    root = default_root({})
    assert root.name == "models"
    assert "mellea" in root.parts
    if sys.platform == "linux":
        assert root == tmp_path / "xdg" / "mellea" / "models"


def test_the_default_store_knows_the_catalogue(tmp_path: Path) -> None:
    """One entry a model, in the catalogue's order, and nothing present in a new folder."""
    entries = ModelStore(tmp_path / "new").entries()
    assert [entry.model for entry in entries] == list(CATALOGUE.values())
    assert {entry.state for entry in entries} == {"absent"}


HEADER = struct.pack("<4sIQQ", b"GGUF", 3, 2, 5)


def test_a_gguf_header_is_enough(tmp_path: Path) -> None:
    """The path comes back when the file starts like a model."""
    path = tmp_path / "a.gguf"
    path.write_bytes(HEADER + b"rest")
    assert check_gguf(path) == path


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PK\x03\x04 some archive of some length", "not a GGUF"),
        (b"<html>not found</html>", "not a GGUF"),
        (b"", "cut off"),
        (b"GG", "cut off"),
        (HEADER[:20], "cut off"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 0, 5), "no tensors"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    """Other formats, empty and cut files have their own sentences."""
    path = tmp_path / "a.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=reason) as caught:
        check_gguf(path)
    assert str(path) in caught.value.message


def test_a_folder_is_refused(tmp_path: Path) -> None:
    """A folder is called one."""
    with pytest.raises(ModelFileError, match="is a folder"):
        check_gguf(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The error has the path, the hint a command."""
    with pytest.raises(ModelFileError, match=r"no model file at .*gone\.gguf") as caught:
        check_gguf(tmp_path / "gone.gguf")
    assert "mellea models list" in caught.value.hint


@pytest.mark.parametrize(
    ("word", "path"),
    [("smollm2-135m", False), ("model.gguf", True), ("MODEL.GGUF", True), ("./smollm2-135m", True), ("a/b", True)],
)
def test_a_path_is_told_from_a_name(word: str, *, path: bool) -> None:
    """A slash or the suffix makes a path."""
    assert is_path(word) is path
