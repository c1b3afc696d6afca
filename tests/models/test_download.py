"""Partial files, the hub and its cache."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mellea_cli.errors import ModelFileError
from mellea_cli.models.catalogue import ModelFile
from mellea_cli.models.download import Hub, HubCache, PartialFile, SourceFailed, ignore_progress
from mellea_cli.models.store import ModelStore

if TYPE_CHECKING:
    from conftest import FakeHub, Seen


def store_of(tmp_path: Path, model: ModelFile, *sources: Hub | HubCache) -> ModelStore:
    return ModelStore(tmp_path / "store", catalogue={model.name: model}, sources=sources)


def hub_at(hub: FakeHub, **environ: str) -> Hub:
    return Hub({"HF_ENDPOINT": hub.url, **environ}, stall_s=5.0)


def test_a_file_is_fetched_from_the_endpoint(
    tmp_path: Path, hub: FakeHub, model: ModelFile, payload: bytes, seen: Seen
) -> None:
    """The file has its right name and bytes, and progress ends at its full size."""
    path = store_of(tmp_path, model, hub_at(hub)).pull("tiny", seen)
    assert path.read_bytes() == payload
    assert [request["path"] for request in hub.requests] == ["/some-org/tiny-GGUF/resolve/main/tiny-model.gguf"]
    assert seen.phases() == ["fetching", "checking"]
    fetching = [progress.done for progress in seen.all if progress.phase == "fetching"]
    assert fetching == sorted(fetching)
    assert fetching[-1] == model.size
    assert not list(path.parent.glob("*.partial*"))


def test_a_cut_transfer_is_gone_on_with(tmp_path: Path, hub: FakeHub, model: ModelFile, payload: bytes) -> None:
    """Each new request asks only for what is missing."""
    hub.cuts = [100_000, 50_000]
    path = store_of(tmp_path, model, hub_at(hub)).pull("tiny")
    assert path.read_bytes() == payload
    assert hub.asked_ranges() == ["", "bytes=100000-", "bytes=150000-"]


def test_the_next_pull_goes_on_where_the_last_one_failed(
    tmp_path: Path, hub: FakeHub, model: ModelFile, payload: bytes
) -> None:
    """A hub that breaks down for good costs no byte that had arrived."""
    store = store_of(tmp_path, model, hub_at(hub))
    hub.cuts = [70_000, 0]
    with pytest.raises(ModelFileError, match="cannot fetch the model tiny: Hugging Face hub"):
        store.pull("tiny")
    assert store.entries()[0].state == "partial"
    assert store.pull("tiny").read_bytes() == payload
    assert hub.asked_ranges() == ["", "bytes=70000-", "bytes=70000-"]


def test_a_hub_that_always_breaks_off_is_given_up(tmp_path: Path, hub: FakeHub, model: ModelFile) -> None:
    """The number of tries has a bound, even when each brings something."""
    hub.cuts = [1000] * 50
    with pytest.raises(ModelFileError):
        store_of(tmp_path, model, hub_at(hub)).pull("tiny")
    assert len(hub.requests) == 5


def test_a_server_without_ranges_sends_everything_again(
    tmp_path: Path, hub: FakeHub, model: ModelFile, payload: bytes
) -> None:
    """A whole answer replaces the beginning that was there."""
    hub.cuts, hub.ranges = [100_000], False
    assert store_of(tmp_path, model, hub_at(hub)).pull("tiny").read_bytes() == payload
    assert len(hub.requests) == 2


def test_other_bytes_are_thrown_away(tmp_path: Path, hub: FakeHub, model: ModelFile, payload: bytes) -> None:
    """A file of the right size with the wrong hash leaves nothing behind, and the reason says so."""
    hub.body = payload[:-1] + b"?"
    store = store_of(tmp_path, model, hub_at(hub))
    with pytest.raises(ModelFileError, match="sent other bytes than the model's"):
        store.pull("tiny")
    assert store.find("tiny") is None
    assert store.size() == 0


def test_a_wrong_beginning_is_fetched_again(tmp_path: Path, hub: FakeHub, model: ModelFile, payload: bytes) -> None:
    """When an earlier beginning is what spoils the hash, the same hub is asked for the whole file once."""
    store = store_of(tmp_path, model, hub_at(hub))
    store.root.mkdir()
    with PartialFile(store.root / "tiny-model.gguf.partial", model.size) as partial:
        partial.append(b"x" * 5000)
    assert store.pull("tiny").read_bytes() == payload
    assert hub.asked_ranges() == ["bytes=5000-", ""]


def test_the_next_source_is_tried(
    tmp_path: Path, make_hub: Callable[[], FakeHub], model: ModelFile, payload: bytes
) -> None:
    """The second hub goes on with what the first one gave."""
    first, second = make_hub(), make_hub()
    first.cuts = [60_000, 0]
    path = store_of(tmp_path, model, hub_at(first), hub_at(second)).pull("tiny")
    assert path.read_bytes() == payload
    assert second.asked_ranges() == ["bytes=60000-"]


@pytest.mark.parametrize("value", ["1", "true", "YES", "on"])
def test_offline_means_no_request(tmp_path: Path, hub: FakeHub, model: ModelFile, value: str) -> None:
    """HF_HUB_OFFLINE is honoured and named as the reason."""
    with pytest.raises(ModelFileError, match="HF_HUB_OFFLINE is set"):
        store_of(tmp_path, model, hub_at(hub, HF_HUB_OFFLINE=value)).pull("tiny")
    assert hub.requests == []


def test_offline_zero_means_online(tmp_path: Path, hub: FakeHub, model: ModelFile, payload: bytes) -> None:
    """HF_HUB_OFFLINE=0 changes nothing."""
    assert store_of(tmp_path, model, hub_at(hub, HF_HUB_OFFLINE="0")).pull("tiny").read_bytes() == payload


def test_the_token_stays_with_the_hub(
    tmp_path: Path, make_hub: Callable[[], FakeHub], model: ModelFile, payload: bytes
) -> None:
    """A redirect to another host is followed without the token."""
    hub, storage = make_hub(), make_hub()
    hub.redirect_to = storage.url
    path = store_of(tmp_path, model, hub_at(hub, HF_TOKEN="hf_secret")).pull("tiny")
    assert path.read_bytes() == payload
    assert hub.requests[0]["authorization"] == "Bearer hf_secret"
    assert "hf_secret" not in str(storage.requests)


def test_a_redirected_transfer_is_gone_on_with(
    tmp_path: Path, make_hub: Callable[[], FakeHub], model: ModelFile, payload: bytes
) -> None:
    """The range goes to the host that has the bytes."""
    hub, storage = make_hub(), make_hub()
    hub.redirect_to = storage.url
    storage.cuts = [90_000]
    assert store_of(tmp_path, model, hub_at(hub)).pull("tiny").read_bytes() == payload
    assert storage.asked_ranges() == ["", "bytes=90000-"]


def test_no_token_is_made_up(tmp_path: Path, hub: FakeHub, model: ModelFile) -> None:
    """Without HF_TOKEN nothing is sent that could identify the user."""
    store_of(tmp_path, model, hub_at(hub)).pull("tiny")
    assert "authorization" not in hub.requests[0]


def test_another_file_is_refused_before_it_is_fetched(
    tmp_path: Path, make_hub: Callable[[], FakeHub], model: ModelFile
) -> None:
    """A hash that the hub states on its redirect saves the download."""
    hub, storage = make_hub(), make_hub()
    hub.redirect_to, hub.linked_etag = storage.url, hashlib.sha256(b"another").hexdigest()
    storage.gate.clear()  # it would hang on the body
    with pytest.raises(ModelFileError, match="another file under this name"):
        store_of(tmp_path, model, hub_at(hub)).pull("tiny")


def test_the_stated_hash_may_be_ours(tmp_path: Path, hub: FakeHub, model: ModelFile, payload: bytes) -> None:
    """A stated hash that fits, or a tag that is no hash at all, is no obstacle."""
    hub.linked_etag = model.sha256
    assert store_of(tmp_path / "a", model, hub_at(hub)).pull("tiny").read_bytes() == payload
    hub.linked_etag = "0123-abc"
    assert store_of(tmp_path / "b", model, hub_at(hub)).pull("tiny").read_bytes() == payload


def test_another_size_is_refused_before_it_is_fetched(tmp_path: Path, hub: FakeHub, model: ModelFile) -> None:
    """The size is looked at before the body."""
    hub.body = hub.body + b"more"
    with pytest.raises(ModelFileError, match=f"has {model.size + 4} bytes under this name, not {model.size}"):
        store_of(tmp_path, model, hub_at(hub)).pull("tiny")


@pytest.mark.parametrize(("status", "reason"), [(404, "answered 404"), (500, "answered 500"), (401, "answered 401")])
def test_a_refusal_is_told(tmp_path: Path, hub: FakeHub, model: ModelFile, status: int, reason: str) -> None:
    """The status is the reason; it is asked once."""
    hub.status = status
    with pytest.raises(ModelFileError, match=reason):
        store_of(tmp_path, model, hub_at(hub)).pull("tiny")
    assert len(hub.requests) == 1


def test_a_refused_token_is_named(tmp_path: Path, hub: FakeHub, model: ModelFile) -> None:
    """An expired token spoils public files too: the message says what to do, and not what the token is."""
    hub.status = 401
    with pytest.raises(ModelFileError, match="refused HF_TOKEN") as caught:
        store_of(tmp_path, model, hub_at(hub, HF_TOKEN="hf_secret")).pull("tiny")
    assert "hf_secret" not in caught.value.message


def test_a_stalled_transfer_is_given_up(tmp_path: Path, hub: FakeHub, model: ModelFile) -> None:
    """A hub that stops sending is left after the stall time; what had come is kept."""
    hub.stall_after = 40_000
    with (
        PartialFile(tmp_path / "f.partial", model.size) as partial,
        pytest.raises(SourceFailed, match="stopped sending"),
    ):
        Hub({"HF_ENDPOINT": hub.url}, stall_s=0.3).fetch(model, partial, ignore_progress)
    assert (tmp_path / "f.partial").stat().st_size >= 40_000


def test_an_unreachable_hub_is_given_up_at_once(tmp_path: Path, hub: FakeHub, model: ModelFile) -> None:
    """Nobody listens: one try, then the next source."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        away = Hub({"HF_ENDPOINT": f"http://127.0.0.1:{taken.getsockname()[1]}"})
        store_of(tmp_path, model, away, hub_at(hub)).pull("tiny")
    assert len(hub.requests) == 1


@pytest.mark.parametrize("endpoint", ["not a url", "ftp://127.0.0.1/x", "http://127.0.0.1:99999"])
def test_a_senseless_endpoint_is_a_reason_not_a_crash(tmp_path: Path, model: ModelFile, endpoint: str) -> None:
    """A typing error in HF_ENDPOINT ends in one line that shows it."""
    with pytest.raises(ModelFileError, match="cannot fetch") as caught:
        store_of(tmp_path, model, Hub({"HF_ENDPOINT": endpoint})).pull("tiny")
    assert endpoint in caught.value.message


def cached(root: Path, payload: bytes) -> Path:
    """Lay a file into a hub cache as the hub's tools do, and return the blob."""
    repo = root / "models--some-org--tiny-GGUF"
    blob = repo / "blobs" / "0123abc"
    snapshot = repo / "snapshots" / "f00d" / "tiny-model.gguf"
    blob.parent.mkdir(parents=True)
    snapshot.parent.mkdir(parents=True)
    blob.write_bytes(payload)
    snapshot.symlink_to(Path("../../blobs/0123abc"))
    return blob


@pytest.mark.parametrize(
    ("variable", "below"),
    [("HF_HUB_CACHE", "."), ("HF_HOME", "hub"), ("XDG_CACHE_HOME", "huggingface/hub")],
)
def test_a_file_in_the_hub_cache_is_taken_over(
    tmp_path: Path, model: ModelFile, payload: bytes, variable: str, below: str
) -> None:
    """The cache is found where the environment says; the bytes are shared and not doubled."""
    blob = cached(tmp_path / "cache" / below, payload)
    store = store_of(tmp_path, model, HubCache({variable: str(tmp_path / "cache")}))
    path = store.pull("tiny")
    assert path.samefile(blob)
    assert not path.is_symlink()
    store.remove("tiny")
    assert blob.read_bytes() == payload


def test_a_spoilt_hub_cache_is_left_alone(tmp_path: Path, hub: FakeHub, model: ModelFile, payload: bytes) -> None:
    """A cached file with the wrong hash is neither used nor changed."""
    blob = cached(tmp_path / "cache", b"x" * len(payload))
    store = store_of(tmp_path, model, HubCache({"HF_HUB_CACHE": str(tmp_path / "cache")}), hub_at(hub))
    assert store.pull("tiny").read_bytes() == payload
    assert blob.read_bytes() == b"x" * len(payload)


def test_a_cached_file_of_another_size_is_passed_by(tmp_path: Path, model: ModelFile, payload: bytes) -> None:
    """An unfinished download of another tool is not taken for the file."""
    blob = cached(tmp_path / "cache", payload[:-5])
    store = store_of(tmp_path, model, HubCache({"HF_HUB_CACHE": str(tmp_path / "cache")}))
    with pytest.raises(ModelFileError, match="no copy in"):
        store.pull("tiny")
    assert blob.read_bytes() == payload[:-5]


def test_what_was_appended_is_there_next_time(tmp_path: Path) -> None:
    """A second opening goes on where the first ended."""
    path = tmp_path / "f.partial"
    with PartialFile(path, 6) as partial:
        partial.append(b"abc")
    with PartialFile(path, 6) as partial:
        assert partial.received == 3
        partial.append(b"def")
        assert partial.complete
        partial.move_to(tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == b"abcdef"
    assert [file.name for file in tmp_path.iterdir()] == ["f"]


def test_an_exception_keeps_what_has_arrived(tmp_path: Path) -> None:
    """Even a KeyboardInterrupt leaves a state to go on from."""
    path = tmp_path / "f.partial"

    def interrupted() -> None:
        with PartialFile(path, 6) as partial:
            partial.append(b"abcd")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with PartialFile(path, 6) as partial:
        assert partial.received == 4


def test_more_bytes_than_the_file_has_mean_a_new_start(tmp_path: Path) -> None:
    """What cannot be a beginning of the file is dropped."""
    (tmp_path / "f.partial").write_bytes(b"x" * 7)
    with PartialFile(tmp_path / "f.partial", 6) as partial:
        assert partial.received == 0


def test_too_many_bytes_are_refused(tmp_path: Path) -> None:
    """A source cannot fill the disk."""
    with PartialFile(tmp_path / "f.partial", 4) as partial:
        partial.append(b"abc")
        with pytest.raises(ValueError, match="more than the 4 bytes"):
            partial.append(b"de")
        assert partial.received == 3


def test_an_adopted_file_is_linked_and_never_written_to(tmp_path: Path) -> None:
    """Starting over removes our name for the file, not what is in it."""
    whole = tmp_path / "whole"
    whole.write_bytes(b"abcdef")
    with PartialFile(tmp_path / "f.partial", 6) as partial:
        partial.append(b"xx")
        partial.adopt(whole)
        assert partial.complete
        assert partial.path.samefile(whole)
        partial.restart()
        partial.append(b"zz")
    assert whole.read_bytes() == b"abcdef"


@pytest.mark.parametrize(("size", "received"), [(6, 6), (7, 0)])
def test_a_link_left_by_a_crash_is_not_written_to(tmp_path: Path, size: int, received: int) -> None:
    """A partial file may share its bytes with a cache: it is complete, or opening it drops the name only."""
    whole = tmp_path / "whole"
    whole.write_bytes(b"abcdef")
    path = tmp_path / "f.partial"
    path.hardlink_to(whole)
    with PartialFile(path, size) as partial:
        assert partial.received == received
        partial.append(b"x" * (size - received))
    assert whole.read_bytes() == b"abcdef"


def test_a_whole_file_of_another_size_is_not_adopted(tmp_path: Path) -> None:
    """Later bytes would be written into another program's file."""
    (tmp_path / "whole").write_bytes(b"abc")
    with PartialFile(tmp_path / "f.partial", 6) as partial:
        partial.adopt(tmp_path / "whole")
        assert partial.received == 0
