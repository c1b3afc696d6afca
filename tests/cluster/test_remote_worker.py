"""What a worker needs before it answers items."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from cluster.near_workers import split
from mellea_cli import __version__
from mellea_cli.cluster.remote_worker import RemoteWorker, ensure_model
from mellea_cli.cluster.worker_messages import pack, unpack
from mellea_cli.errors import ModelFileError, UsageError
from mellea_cli.items import Item
from run.run_io import plan


async def test_another_version_is_refused_with_the_command_that_installs_the_right_one() -> None:
    """A worker of another version opens no backend, and its error carries the hint."""
    (setup,) = split(plan(concurrency=1), None, workers=1)
    error = unpack(await RemoteWorker().open("0.0.1", pack(setup)))
    assert isinstance(error, UsageError)
    assert __version__ in error.message
    assert "pip install 'mellea-cli[ray]==0.0.1'" in (error.hint or "")


async def test_items_that_were_not_started_are_returned() -> None:
    """`return_unstarted` reports them without a result."""
    (setup,) = split(plan(concurrency=1, backend="scripted"), None, workers=1)
    worker = RemoteWorker()
    assert isinstance(unpack(await worker.open(__version__, pack(setup))), str)
    await worker.add_items(pack([Item(3, "c", "text"), Item(4, "d", "text")]))
    await worker.return_unstarted()
    assert unpack(await worker.next_report()).results == [(3, None), (4, None)]
    await worker.close()


def test_a_missing_model_is_named_with_the_command_that_downloads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `--pull` only the default model is downloaded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ModelFileError, match="is not on this machine") as missing:
        ensure_model(plan(model="smollm2-135m"), network=None, pull=False, tell=print)
    assert "mellea models pull smollm2-135m" in (missing.value.hint or "")


def test_a_file_must_be_the_driver_s(tmp_path: Path) -> None:
    """A model file of another size than the driver's is refused."""
    path = tmp_path / "model.gguf"
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 1, 0))
    ensure_model(plan(model=str(path), identity="model.gguf:24"), network=None, pull=False, tell=print)
    with pytest.raises(ModelFileError, match="is another file"):
        ensure_model(plan(model=str(path), identity="model.gguf:25"), network=None, pull=False, tell=print)
