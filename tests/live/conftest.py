"""The small real model, fetched once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mellea_cli.models.store import ModelStore, default_root

SMALL = "smollm2-135m"


@pytest.fixture(scope="session")
def small_store() -> ModelStore:
    """A store that has the small model: in `MELLEA_TEST_CACHE`, else in the user's own cache."""
    chosen = os.environ.get("MELLEA_TEST_CACHE")
    store = ModelStore(Path(chosen).expanduser() / "models" if chosen else default_root())
    store.pull(SMALL)
    return store


@pytest.fixture(scope="session")
def small_model(small_store: ModelStore) -> Path:
    """The small model's file."""
    path = small_store.find(SMALL)
    assert path is not None
    return path
