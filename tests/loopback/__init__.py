"""A model server on loopback for tests and benchmarks: real HTTP, both protocols, faults by plan, exact counts.

`with ModelServer(latency_s=0.1) as server:` starts it in a thread of its own, for sync and async tests alike;
`python -m loopback --port 0` runs it as a process and prints its address.
"""

from loopback import faults
from loopback.batches import BatchPlan
from loopback.plan import Call, Fault, Settings
from loopback.replies import default_reply, find_mark, pieces
from loopback.server import ModelServer
from loopback.state import State

__all__ = [
    "BatchPlan",
    "Call",
    "Fault",
    "ModelServer",
    "Settings",
    "State",
    "default_reply",
    "faults",
    "find_mark",
    "pieces",
]
