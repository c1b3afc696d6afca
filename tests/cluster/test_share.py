"""How a run's limits are split among workers, and what of it may be seen."""

from __future__ import annotations

import pytest
from run.ends import plan

from mellea_cli.backends.base import BackendSettings
from mellea_cli.backends.security import NetworkPolicy, Secrets
from mellea_cli.cluster.worker_messages import Rhythm, pack, shares, unpack


@pytest.mark.parametrize(("concurrency", "workers"), [(16, 1), (16, 3), (7, 2), (3, 8), (1, 5)])
def test_all_shares_together_are_what_the_user_set(concurrency: int, workers: int) -> None:
    """Requests in flight, requests and tokens a minute add up to the whole run's; nobody gets nothing."""
    whole = plan(concurrency=concurrency, rpm=90.0, tpm=5_000.0)
    parts = [share.plan() for share in shares(whole, BackendSettings(), workers, pull=False)]
    assert len(parts) == min(workers, concurrency)
    assert sum(part.concurrency for part in parts) == concurrency
    assert max(part.concurrency for part in parts) - min(part.concurrency for part in parts) <= 1
    assert sum(part.rpm or 0 for part in parts) == pytest.approx(90.0)
    assert sum(part.tpm or 0 for part in parts) == pytest.approx(5_000.0)


def test_a_share_arrives_as_it_was_sent() -> None:
    """The worker's plan asks the same questions: its fingerprint is the driver's."""
    whole = plan(concurrency=4, redacted=True)
    (share,) = shares(whole, BackendSettings(model="m", api_key="sk-x"), 1, pull=True)
    arrived = unpack(pack(share))
    assert arrived == share
    assert arrived.plan().fingerprint == whole.fingerprint
    assert arrived.plan() == whole


def test_a_share_can_be_shown_without_its_key() -> None:
    """A traceback or a log that shows a share does not show the key."""
    secrets = Secrets(variables={"OPENAI_API_KEY": "sk-secret"})
    network = NetworkPolicy(local_only=True)
    (share,) = shares(plan(concurrency=1), BackendSettings(network=network, secrets=secrets), 1, pull=False)
    arrived = unpack(pack(share)).settings
    assert (arrived.network, arrived.secrets.key()) == (network, "sk-secret")
    assert "sk-secret" not in repr(share)


def test_a_worker_has_the_next_items_ready() -> None:
    """It holds a few more items than it works on, so that no place stays empty while the driver is asked."""
    (share,) = shares(plan(concurrency=16), BackendSettings(), 1, pull=False)
    assert share.places == 20


@pytest.mark.parametrize("workers", [1, 10, 100, 1_000])
def test_reports_grow_rarer_with_the_number_of_workers(workers: int) -> None:
    """The driver reads about 200 reports a second at most, up to 200 workers; none waits longer than a second."""
    rhythm = Rhythm.of(workers, 16 * workers)
    assert workers <= 200 * rhythm.linger_s or rhythm.linger_s == 1.0
    assert 16 * workers / rhythm.text_s <= 1_000
