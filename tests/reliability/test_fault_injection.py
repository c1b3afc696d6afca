"""A few of the system calls that `fault_injection.py` makes fail one by one."""

from __future__ import annotations

from pathlib import Path

import pytest
from fault_injection import inject, why_not

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("call", "when"), [("pwrite64", 3), ("fdatasync", 3), ("rename", 1), ("openat", 2)])
def test_the_nth_call_of_a_kind_fails(call: str, when: int, tmp_path: Path) -> None:
    """Exit 5 with the file named, nothing that was committed is asked for again, and the next run completes it."""
    if reason := why_not():
        pytest.skip(reason)
    seen = inject(call, when, tmp_path)
    assert seen.good, seen
    assert seen.code == 5
