"""Workers on a Ray cluster: Ray places and starts the processes, carries the calls and detects losses.

This is the only module that imports Ray, and only for a run that uses it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import logging
import os
import secrets
import signal
import socket
from collections.abc import Awaitable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mellea_cli.backends.base import BackendSettings
from mellea_cli.backends.registry import backend_info
from mellea_cli.backends.security import API_KEY, Secrets
from mellea_cli.cluster.cluster_executor import ClusterExecutor, open_executor
from mellea_cli.cluster.remote_worker import Method, RemoteWorker, WorkerHandle, WorkerLost
from mellea_cli.cluster.worker_messages import split_plan
from mellea_cli.engine.workers import Stop
from mellea_cli.errors import UsageError
from mellea_cli.events import Observer
from mellea_cli.run.executor import ExecutorFactory
from mellea_cli.run.plan import RunPlan

_START_HINT = "start one with: ray start --head (one with tokens needs RAY_AUTH_MODE=token here too)"
_INSTALL = "pip install 'mellea-cli[ray]'"
_OWN_CLUSTER_HINT = "leave --ray-address out for a cluster of its own on this machine, or drop --local-only"
_CLIENT_PORT = 10001
_CONNECT_S = 5.0
# Reports are small and go straight from process to process: Ray's object store stays almost empty.
_STORE_BYTES = 80 * 1024 * 1024


class RayExecutorFactory(ExecutorFactory):
    """Executor of `--engine ray`: remote workers on a Ray cluster; source and sink stay in this process."""

    def check(self) -> None:
        require_ray()
        check_address(self._address, local_only=self.flags["local_only"])

    @contextmanager
    def connect(self, plan: RunPlan) -> Iterator[RunPlan]:
        address, workers, say = self._address, self.flags["ray_workers"], self.say
        say("starting a Ray cluster on this machine" if address == "local" else f"joining the Ray cluster at {address}")
        with connected(address, workers=workers, local_only=self.flags["local_only"]) as cluster:
            nodes = len(cluster.nodes)
            workers = workers or nodes
            if plan.backend == "local" and workers > nodes:
                say(f"each node runs one embedded model: {nodes} workers for {nodes} nodes")
                workers = nodes
            concurrency = _concurrency(self.flags, plan, workers)
            self._workers = min(workers, concurrency)
            self._launcher = cluster.launcher(one_per_node=plan.backend == "local")
            say(
                f"{self._workers} worker{'s' * (self._workers > 1)} for {nodes} Ray node{'s' * (nodes > 1)}, "
                f"{concurrency} requests in flight at most in all"
            )
            yield dataclasses.replace(plan, concurrency=concurrency, start=None)

    def open(
        self, plan: RunPlan, settings: BackendSettings, observer: Observer, stop: Stop
    ) -> AbstractAsyncContextManager[ClusterExecutor]:
        # The key alone goes to the workers, and nothing else of this environment.
        key = (settings.secrets or Secrets.from_environ(os.environ)).key() if plan.backend == "openai" else ""
        setups = split_plan(
            plan,
            dataclasses.replace(
                settings,
                base_url=settings.base_url or os.environ.get(backend_info(plan.backend).address_variable) or None,
                secrets=Secrets(variables={API_KEY: key}),
            ),
            self._workers,
            pull=self.flags["pull"],
        )
        return open_executor(setups, self._launcher, observer=observer, stop=stop, start_timeout_s=plan.max_wait_s)

    @property
    def _address(self) -> str:
        return chosen_address(self.flags["ray_address"], os.environ)


def _concurrency(flags: Mapping[str, Any], plan: RunPlan, workers: int) -> int:
    """Requests in flight of all workers together. It is fixed: several adaptive workers would disturb each other."""
    info = backend_info(plan.backend)
    # A plan for the embedded or the scripted backend has the number that suits one machine.
    default = (plan.concurrency if info.adaptive_start is None else info.concurrency) * workers
    concurrency: int = flags["concurrency"] or min(default, flags["max_concurrency"] or default)
    return min(concurrency, info.max_concurrency * workers) if plan.backend == "local" else concurrency


def require_ray() -> None:
    """Make sure that Ray is installed.

    Raises:
        UsageError: it is not; the hint is the command that installs it.
    """
    if importlib.util.find_spec("ray") is None:
        raise UsageError("--engine ray needs Ray, which is not installed", hint=_INSTALL)


def chosen_address(address: str | None, environ: MutableMapping[str, str]) -> str:
    """The cluster's address: the one given, else `RAY_ADDRESS`, else `local` for an own cluster on this machine."""
    return address or environ.get("RAY_ADDRESS", "") or "local"


def check_address(address: str, *, local_only: bool) -> None:
    """Check an address against the network policy.

    Raises:
        UsageError: `local_only` is set, and the address may lead to another machine.
    """
    if not local_only or address == "local":
        return
    host = urlsplit(address if "://" in address else f"ray://{address}").hostname or ""
    if address == "auto" or not _is_this_machine(host):
        raise UsageError(
            f"--ray-address {address} may lead to other machines, and --local-only allows only this one",
            hint=_OWN_CLUSTER_HINT,
        )


def _is_this_machine(host: str) -> bool:
    """Whether a name or an address is this machine's: only such addresses can be listened on."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as listener:
                listener.bind(address)
    except OSError:
        return False
    return True


@contextmanager
def connected(address: str, *, workers: int | None, local_only: bool) -> Iterator[RayCluster]:
    """Connect to a Ray cluster, or start one on this machine; leaving disconnects, and ends an own cluster.

    Args:
        address: as `ray.init` takes it: `auto`, `HOST:PORT`, `ray://HOST:PORT`; `local` starts a cluster.
        workers: number of workers; an own cluster gets a CPU for each.
        local_only: refuse a cluster with other machines.

    Raises:
        UsageError: Ray is missing, or the cluster at the address cannot be used.
    """
    require_ray()
    check_address(address, local_only=local_only)
    _check_listening(address)
    _set_environment(os.environ, own=address == "local")
    import ray

    sigterm = signal.getsignal(signal.SIGTERM)
    own: dict[str, Any] = {}
    if address == "local":
        cpus = max(workers or 1, os.cpu_count() or 1)
        own = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": _STORE_BYTES}
    # Ray prints the cluster's faults to `sys.stdout` whatever its settings, and stdout is for rows. The sink does not
    # use `sys.stdout`.
    with Path(os.devnull).open("w", encoding="utf-8") as devnull, contextlib.redirect_stdout(devnull):
        try:
            _init(ray, address, own)
            # Ray's handler ends the process at once.
            signal.signal(signal.SIGTERM, sigterm)
            yield RayCluster(ray, _usable_nodes(ray, address, local_only=local_only))
        finally:
            ray.shutdown()


def _check_listening(address: str) -> None:
    # Where no cluster listens, Ray would try for minutes.
    try:
        parts = urlsplit(address if "://" in address else f"ray://{address}")
        host, port = parts.hostname, parts.port or (_CLIENT_PORT if "://" in address else None)
    except ValueError:
        return  # The port is no number, which Ray reports well.
    if host is None or port is None:
        return
    try:
        socket.create_connection((host, port), _CONNECT_S).close()
    except OSError as error:
        why = error.strerror or str(error)
        raise UsageError(f"no Ray cluster answers at {address}: {why}", hint=_START_HINT) from error


def _set_environment(environ: MutableMapping[str, str], *, own: bool) -> None:
    # Ray reads these when it is imported, and passes them on to the processes that it starts.
    environ["RAY_USAGE_STATS_ENABLED"] = "0"
    environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if own and "RAY_AUTH_MODE" not in environ:
        # A cluster runs the code of everyone who reaches its ports, so an own cluster gets a random token.
        environ["RAY_AUTH_MODE"] = "token"
        environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _init(ray: Any, address: str, own: dict[str, Any]) -> None:
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **own)
    except (ImportError, ConnectionError, OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        what = "a Ray cluster cannot be started here" if address == "local" else f"no Ray cluster answers at {address}"
        hint = "pip install 'ray[client]'" if "ray[client]" in str(error) else _START_HINT
        raise UsageError(f"{what}: {_short_reason(error)}", hint=hint) from error


def _usable_nodes(ray: Any, address: str, *, local_only: bool) -> list[str]:
    """The ids of the nodes with a CPU for a worker.

    Raises:
        UsageError: there is none, or one is another machine although `local_only` is set.
    """
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    if not nodes:
        raise UsageError(f"the Ray cluster at {address} has no node with a CPU for a worker", hint="see: ray status")
    for node in nodes:
        if local_only and not _is_this_machine(node["NodeManagerAddress"]):
            raise UsageError(
                f"the Ray cluster at {address} has a node on {node['NodeManagerHostname']}, and --local-only allows"
                " only this machine",
                hint=_OWN_CLUSTER_HINT,
            )
    return [node["NodeID"] for node in nodes]


class RayCluster:
    """A cluster that this process is connected to; made by `connected`.

    Args:
        ray: the module.
        nodes: the ids of the nodes that can run workers.
    """

    def __init__(self, ray: Any, nodes: Sequence[str]) -> None:
        self._ray = ray
        self.nodes = tuple(nodes)

    def launcher(self, *, one_per_node: bool) -> RayLauncher:
        """The launcher of a run's workers.

        Args:
            one_per_node: run worker number n on node number n only; otherwise Ray spreads the workers, and restarts
                one on any node with a free CPU.
        """
        return RayLauncher(self._ray, self.nodes if one_per_node else ())


class RayLauncher:
    """Starts workers as Ray actors; a `mellea_cli.cluster.remote_worker.WorkerLauncher`.

    Args:
        ray: the module.
        nodes: the node of each worker; empty to let Ray choose.
    """

    def __init__(self, ray: Any, nodes: Sequence[str]) -> None:
        self._ray = ray
        self._nodes = nodes
        self._actor = ray.remote(RemoteWorker)

    def start(self, number: int) -> WorkerHandle:
        """Start worker `number`."""
        strategy: Any = "SPREAD"
        if self._nodes:
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            strategy = NodeAffinitySchedulingStrategy(self._nodes[number], soft=False)
        # Ray does not restart an actor by itself: the new one would have to be opened first.
        actor = self._actor.options(
            name=None, num_cpus=1, scheduling_strategy=strategy, max_restarts=0, max_task_retries=0
        ).remote()
        return RayWorkerHandle(self._ray, actor, pinned=bool(self._nodes))


class RayWorkerHandle:
    """The handle of one actor; a `mellea_cli.cluster.remote_worker.WorkerHandle`.

    Calls go straight to the worker's process, and the cluster stores nothing of them.

    Args:
        ray: the module.
        actor: Ray's handle of the worker.
        pinned: whether the worker can run on one node only.
    """

    def __init__(self, ray: Any, actor: Any, *, pinned: bool) -> None:
        self._ray = ray
        self._actor = actor
        self._pinned = pinned

    async def started(self) -> None:
        await self._result(self._actor.__ray_ready__.remote())

    async def call(self, method: Method, *arguments: Any) -> Any:
        return await self._result(getattr(self._actor, method).remote(*arguments))

    def kill(self) -> None:
        # The worker may be gone already, and the whole cluster with it.
        with contextlib.suppress(self._ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError):
            self._ray.kill(self._actor)

    async def _result(self, call: Awaitable[Any]) -> Any:
        errors = self._ray.exceptions
        try:
            return await call
        except errors.RayTaskError:
            raise  # An error of the worker's own code.
        except errors.ActorUnschedulableError as error:
            raise WorkerLost("its node is gone", permanent=True) from error
        except errors.RayError as error:
            raise WorkerLost(_short_reason(error), permanent=self._pinned and _node_is_gone(error)) from error


def _short_reason(error: Exception) -> str:
    """One line instead of Ray's page-long message."""
    text = str(error)
    if "No module named 'mellea_cli" in text:
        return f"mellea is not installed on its node, or in another version; there: {_INSTALL}"
    if _node_is_gone(error):
        return "its node is gone"
    if type(error).__name__ == "ActorUnavailableError":
        return "it cannot be reached any more"
    if type(error).__name__ == "ActorDiedError":
        return "its process has ended"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__


def _node_is_gone(error: Exception) -> bool:
    text = str(error)
    return "node has died" in text or "node died" in text.lower() or "NodeAffinity" in text
