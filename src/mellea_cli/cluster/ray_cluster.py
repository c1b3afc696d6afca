"""Workers on a Ray cluster. Ray finds the places, starts the processes, carries the calls and notices the losses.

Ray is imported here and nowhere else, and only when somebody asks for it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import secrets
import signal
import socket
from collections.abc import Awaitable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from mellea_cli.cluster.remote_worker import Link, RemoteWorker, WorkerLost
from mellea_cli.errors import UsageError

_START = "start one with: ray start --head (one with tokens needs RAY_AUTH_MODE=token here too)"
_CLIENT_PORT = 10001
_KNOCK_S = 5.0
_EXTRA = "pip install 'mellea-cli[ray]'"
# Reports are small and go straight from process to process: Ray's store of shared objects stays all but empty.
_STORE_BYTES = 80 * 1024 * 1024

T = TypeVar("T")


class RayCluster:
    """A cluster that this process is connected to. Use `connected` to have one.

    Args:
        ray: the module.
        nodes: the ids of the nodes that can run workers.
        hosts: the machines' names, one for each.
    """

    def __init__(self, ray: Any, nodes: Sequence[str], hosts: Sequence[str]) -> None:
        self._ray = ray
        self.nodes = tuple(nodes)
        self.hosts = tuple(hosts)

    def links(self, *, one_a_node: bool) -> RayLinks:
        """Where workers come from.

        Args:
            one_a_node: worker number n runs on node number n or not at all; otherwise Ray spreads them, and starts
                one anew wherever there is room.
        """
        return RayLinks(self._ray, self.nodes if one_a_node else ())


class RayLinks:
    """Starts workers on the cluster; `mellea_cli.cluster.remote_worker.Links` for a crew.

    Args:
        ray: the module.
        nodes: the node of each worker; empty leaves the choice to Ray.
    """

    def __init__(self, ray: Any, nodes: Sequence[str]) -> None:
        self._ray = ray
        self._nodes = nodes
        self._actor = ray.remote(RemoteWorker)

    def hire(self, number: int) -> Link:
        """A new worker for place `number`. Ray does not start it again by itself: a new one would know nothing."""
        strategy: Any = "SPREAD"
        if self._nodes:
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            strategy = NodeAffinitySchedulingStrategy(self._nodes[number], soft=False)
        actor = self._actor.options(
            name=None, num_cpus=1, scheduling_strategy=strategy, max_restarts=0, max_task_retries=0
        ).remote()
        return RayLink(self._ray, actor, pinned=bool(self._nodes))


class RayLink:
    """The way to one worker; `mellea_cli.cluster.remote_worker.Link` for a crew.

    Args:
        ray: the module.
        actor: the worker's handle.
        pinned: it can run on one node only.
    """

    def __init__(self, ray: Any, actor: Any, *, pinned: bool) -> None:
        self._ray = ray
        self._actor = actor
        self._pinned = pinned

    async def up(self) -> None:
        """Wait until the worker runs."""
        await self._answer(self._actor.__ray_ready__.remote())

    async def open(self, version: str, packed: bytes) -> bytes:
        """Make it ready. The call goes straight to the worker's process: nothing of it is kept by the cluster."""
        return cast("bytes", await self._answer(self._actor.open.remote(version, packed)))

    async def serve(self) -> None:
        """Let it answer what it is given."""
        await self._answer(self._actor.serve.remote())

    async def give(self, packed: bytes) -> None:
        """Hand over items."""
        await self._answer(self._actor.give.remote(packed))

    async def collect(self) -> bytes:
        """Its next report."""
        return cast("bytes", await self._answer(self._actor.collect.remote()))

    async def wind_up(self) -> None:
        """Have it give back what it has not begun."""
        await self._answer(self._actor.wind_up.remote())

    async def close(self) -> None:
        """Have it stop its backend."""
        await self._answer(self._actor.close.remote())

    def kill(self) -> None:
        """End its process."""
        # It may be gone already, and the whole cluster with it.
        with contextlib.suppress(self._ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError):
            self._ray.kill(self._actor)

    async def _answer(self, call: Awaitable[T]) -> T:
        errors = self._ray.exceptions
        try:
            return await call
        except errors.RayTaskError:
            raise  # an error of the worker's own code
        except errors.ActorUnschedulableError as error:
            raise WorkerLost("its node is gone", for_good=True) from error
        except errors.RayError as error:
            raise WorkerLost(_in_short(error), for_good=self._pinned and _node_gone(error)) from error


def _in_short(error: Exception) -> str:
    """Ray's page-long messages in one line: the first sentence that says why."""
    text = str(error)
    if "No module named 'mellea_cli'" in text:
        return f"mellea is not installed on its node; there: {_EXTRA}"
    if _node_gone(error):
        return "its node is gone"
    if type(error).__name__ == "ActorUnavailableError":
        return "it cannot be reached any more"
    if type(error).__name__ == "ActorDiedError":
        return "its process has ended"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__


def _node_gone(error: Exception) -> bool:
    text = str(error)
    return "node has died" in text or "node died" in text.lower() or "NodeAffinity" in text


def require_ray() -> None:
    """Make sure that Ray is installed.

    Raises:
        UsageError: it is not; the hint is the command that installs it.
    """
    if importlib.util.find_spec("ray") is None:
        raise UsageError("--engine ray needs Ray, which is not installed", hint=_EXTRA)


def chosen_address(address: str | None, environ: MutableMapping[str, str]) -> str:
    """What is connected to: the address given, else `RAY_ADDRESS`, else a cluster of our own on this machine."""
    return address or environ.get("RAY_ADDRESS", "") or "local"


def permit(address: str, *, local_only: bool) -> None:
    """Let an address pass.

    Raises:
        UsageError: nothing but this machine may be connected to, and the address may lead elsewhere.
    """
    if not local_only or address == "local":
        return
    host = urlsplit(address if "://" in address else f"ray://{address}").hostname or ""
    if address == "auto" or not _is_here(host):
        raise UsageError(
            f"--ray-address {address} may lead to other machines, and --local-only allows nothing else than this one",
            hint="leave --ray-address out for a cluster of its own on this machine, or drop --local-only",
        )


def _is_here(host: str) -> bool:
    """Whether a name or an address is one of this machine's own: only those can be listened on."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
        for family, kind, protocol, _, place in found:
            with socket.socket(family, kind, protocol) as tried:
                tried.bind(place)
    except OSError:
        return False
    return True


@contextmanager
def connected(address: str, *, workers: int | None, local_only: bool) -> Iterator[RayCluster]:
    """Connect to a Ray cluster, or start one on this machine; leaving lets go of it again.

    Args:
        address: as `ray.init` takes it: `auto`, `HOST:PORT`, `ray://HOST:PORT`; `local` starts a cluster.
        workers: how many are wanted; a cluster of our own gets room for them.
        local_only: refuse a cluster with other machines.

    Raises:
        UsageError: Ray is missing, or there is no cluster to be used at the address.
    """
    require_ray()
    permit(address, local_only=local_only)
    _knock(address)
    _quieten(os.environ, own=address == "local")
    import ray

    before = signal.getsignal(signal.SIGTERM)
    own: dict[str, Any] = {}
    if address == "local":
        cpus = max(workers or 1, os.cpu_count() or 1)
        own = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": _STORE_BYTES}
    # Ray prints the cluster's mishaps to `sys.stdout` whatever it is told, and that is for rows; the sink has its own.
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            _init(ray, address, own)
            # Ray's own way with SIGTERM ends the process at once.
            signal.signal(signal.SIGTERM, before)
            yield _cluster(ray, address, local_only=local_only)
        finally:
            ray.shutdown()


def _knock(address: str) -> None:
    """Refuse an address where nobody listens: Ray itself would go on trying for minutes.

    Raises:
        UsageError: there is nobody.
    """
    try:
        parts = urlsplit(address if "://" in address else f"ray://{address}")
        place = (parts.hostname, parts.port or (_CLIENT_PORT if "://" in address else None))
    except ValueError:
        return  # not a port: Ray says what is wrong with it
    if place[0] is None or place[1] is None:
        return
    try:
        socket.create_connection((place[0], place[1]), _KNOCK_S).close()
    except OSError as error:
        why = error.strerror or str(error)
        raise UsageError(f"no Ray cluster answers at {address}: {why}", hint=_START) from error


def _quieten(environ: MutableMapping[str, str], *, own: bool) -> None:
    """Ray reads these when it is imported, and hands them to the processes that it starts."""
    environ["RAY_USAGE_STATS_ENABLED"] = "0"
    environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if own and "RAY_AUTH_MODE" not in environ:
        # A cluster runs the code of whoever reaches its ports: of ours only we know the word.
        environ["RAY_AUTH_MODE"] = "token"
        environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _init(ray: Any, address: str, own: dict[str, Any]) -> None:
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **own)
    except (ImportError, ConnectionError, OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        what = "a Ray cluster cannot be started here" if address == "local" else f"no Ray cluster answers at {address}"
        hint = "pip install 'ray[client]'" if "ray[client]" in str(error) else _START
        raise UsageError(f"{what}: {_in_short(error)}", hint=hint) from error


def _cluster(ray: Any, address: str, *, local_only: bool) -> RayCluster:
    """What there is of nodes with a processor to lend.

    Raises:
        UsageError: there is none, or one is another machine and none may be.
    """
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    if not nodes:
        raise UsageError(f"the Ray cluster at {address} has no node with a CPU for a worker", hint="see: ray status")
    for node in nodes:
        if local_only and not _is_here(node["NodeManagerAddress"]):
            raise UsageError(
                f"the Ray cluster at {address} has a node on {node['NodeManagerHostname']}, and --local-only allows"
                " nothing outside this machine",
                hint="leave --ray-address out for a cluster of its own on this machine, or drop --local-only",
            )
    return RayCluster(ray, [node["NodeID"] for node in nodes], [node["NodeManagerHostname"] for node in nodes])
