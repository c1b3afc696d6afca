"""Wires one `mellea summarise --engine ray`: a cluster, and a worker of the same engine on each of its nodes."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from mellea_cli.cli.backend_setup import Chosen, Wanted, choose
from mellea_cli.cli.flags import Flags
from mellea_cli.errors import UsageError

if TYPE_CHECKING:
    from mellea_cli.cluster.ray_cluster import RayCluster
    from mellea_cli.run.batch import RunIO, RunResult
    from mellea_cli.run.plan import RunPlan
    from mellea_cli.ui.run_display import RunDisplay


_SERVER_VARIABLES = {"openai": "OPENAI_BASE_URL", "ollama": "OLLAMA_HOST"}
# Requests in flight of one worker where the user does not say; the embedded model's are those of one machine.
_EACH = {"openai": 16, "ollama": 4}
# An embedded model answers no faster with more slots than this, on each node.
_MOST_SLOTS = 8


def check_engine(flags: Flags) -> None:
    """Refuse what does not go together, before anything is opened.

    Raises:
        UsageError: Ray is missing, the address may not be used, or a flag for Ray stands without it.
    """
    if flags.engine != "ray":
        for value, name in ((flags.ray_address, "--ray-address"), (flags.ray_workers, "--ray-workers")):
            if value is not None:
                raise UsageError(f"{name} is for --engine ray", hint="add --engine ray, or leave it out")
        return
    if flags.queued or flags.pool or len(flags.base_urls) > 1:
        raise UsageError(
            "--engine ray goes with one server, not with a pool or a batch queue", hint="leave one of them out"
        )
    from mellea_cli.cluster.ray_cluster import check_address, chosen_address, require_ray

    require_ray()
    check_address(chosen_address(flags.ray_address, os.environ), local_only=_local_only(flags))


async def choose_for_nodes(wanted: Wanted) -> Chosen:
    """Decide on backend and model for the nodes: `auto` means a model on each, unless an address was given.

    The concurrency is the most that one machine would try.
    """
    if wanted.backend == "auto" and wanted.base_url is None:
        wanted = dataclasses.replace(wanted, backend="local")
    return await choose(dataclasses.replace(wanted, concurrency=None))


def run_on_ray(
    flags: Flags, chosen: Chosen, plan_of: Callable[[Chosen], RunPlan], ends: RunIO, show: RunDisplay
) -> tuple[RunPlan, RunResult]:
    """Run on a Ray cluster.

    Args:
        flags: what the user asked for.
        chosen: backend and model, with the concurrency of one worker.
        plan_of: makes the run's plan, given the concurrency of all.
        ends: the two ends of the run; both stay with this process.
        show: the display.

    Returns:
        The plan of the whole run, and how it ended.

    Raises:
        MelleaError: there is no cluster to be used, or nothing more can be written.
    """
    from mellea_cli.cluster.ray_cluster import chosen_address, connected

    address = chosen_address(flags.ray_address, os.environ)
    show.say(
        "starting a Ray cluster on this machine" if address == "local" else f"joining the Ray cluster at {address}"
    )
    with connected(address, workers=flags.ray_workers, local_only=_local_only(flags)) as cluster:
        workers = _workers(flags, chosen, cluster, show)
        concurrency = _in_flight(flags, chosen, workers)
        workers = min(workers, concurrency)
        plan = plan_of(dataclasses.replace(chosen, concurrency=concurrency, start=None))
        nodes = len(cluster.nodes)
        show.say(
            f"{workers} worker{'s' * (workers > 1)} for {nodes} Ray node{'s' * (nodes > 1)}, "
            f"{concurrency} requests in flight at most in all"
        )
        return plan, asyncio.run(_run(flags, plan, cluster, workers, ends, show))


def _in_flight(flags: Flags, chosen: Chosen, workers: int) -> int:
    """Requests in flight of all workers together. Several that seek the best number would disturb each other."""
    each = _EACH.get(chosen.backend, chosen.concurrency)
    most = flags.max_concurrency or each * workers
    concurrency = flags.concurrency or min(each * workers, most)
    return min(concurrency, _MOST_SLOTS * workers) if chosen.backend == "local" else concurrency


def _workers(flags: Flags, chosen: Chosen, cluster: RayCluster, show: RunDisplay) -> int:
    """One for each node, or as many as were asked for; an embedded model is there once on each node at most."""
    nodes = len(cluster.nodes)
    wanted = flags.ray_workers or nodes
    if chosen.backend == "local" and wanted > nodes:
        show.say(f"each node runs one embedded model, and there are {nodes}: so there are {nodes} workers")
        return nodes
    return wanted


async def _run(
    flags: Flags, plan: RunPlan, cluster: RayCluster, workers: int, ends: RunIO, show: RunDisplay
) -> RunResult:
    from mellea_cli.backends.base import BackendSettings
    from mellea_cli.backends.security import API_KEY, NetworkPolicy, Secrets
    from mellea_cli.cluster.cluster_executor import open_executor
    from mellea_cli.cluster.worker_messages import split_plan
    from mellea_cli.engine.workers import Stop
    from mellea_cli.run.batch import run_with

    key = Secrets.from_environ(os.environ).key() if plan.backend == "openai" else ""
    settings = BackendSettings(
        model=plan.model,
        base_url=flags.base_url or os.environ.get(_SERVER_VARIABLES.get(plan.backend, "")) or None,
        verbose=flags.verbose > 1,
        network=NetworkPolicy.from_environ(os.environ),
        # The key alone goes to the workers, and nothing else of this environment.
        secrets=Secrets(variables={API_KEY: key}),
    )
    setups = split_plan(plan, settings, workers, pull=flags.pull)
    stop = Stop(show.say)
    observer = show.begin()
    launcher = cluster.launcher(one_per_node=plan.backend == "local")
    with stop.on_signals():
        async with open_executor(
            setups, launcher, observer=observer, stop=stop, start_timeout_s=plan.max_wait_s
        ) as executor:
            return await run_with(plan, executor, ends, observer=observer, stop=stop)


def _local_only(flags: Flags) -> bool:
    from mellea_cli.backends.security import NetworkPolicy

    return flags.local_only or NetworkPolicy.from_environ(os.environ).local_only
