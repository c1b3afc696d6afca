"""A Ray cluster of two nodes (two raylets) on this machine, as a process: `python raynodes.py`.

It prints the cluster's address and reads commands from stdin: `kill` ends the second node's processes at once.
When stdin ends it takes the cluster down.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Serve until stdin ends."""
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 4, "object_store_memory": 80 * 1024 * 1024}
    cluster = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    second = cluster.add_node(**small)
    say(cluster.address)
    for line in sys.stdin:
        if line.strip() == "kill":
            cluster.remove_node(second, allow_graceful=False)
            say("killed")
        elif line.strip() == "add":
            second = cluster.add_node(**small)
            say("added")
    cluster.shutdown()


def say(word: str) -> None:
    """Answer on stdout."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
