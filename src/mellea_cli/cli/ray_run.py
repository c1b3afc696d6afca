"""`mellea summarise --engine ray`: a Ray cluster with a remote worker on each node."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from mellea_cli.backends.registry import backend_info
from mellea_cli.errors import UsageError

if TYPE_CHECKING:
    from mellea_cli.cli.backend_setup import ModelChoice
    from mellea_cli.cli.flags import RunOptions
    from mellea_cli.cluster.ray_cluster import RayCluster
    from mellea_cli.run.batch import RunIO, RunResult
    from mellea_cli.run.plan import RunPlan
    from mellea_cli.ui.run_display import RunDisplay


def check_flags(options: RunOptions) -> None:
    """Refuse flags that do not go together, before anything is opened.

    Raises:
        UsageError: Ray is missing, the address is not allowed, or a flag for Ray is set without `--engine ray`.
    """
    if options.engine != "ray":
        for value, name in ((options.ray_address, "--ray-address"), (options.ray_workers, "--ray-workers")):
            if value is not None:
                raise UsageError(f"{name} is for --engine ray", hint="add --engine ray, or omit it")
        return
    if options.uses_batch_files or options.has_pool:
        raise UsageError("--engine ray needs one server, not a pool or a batch queue", hint="omit one of them")
    from mellea_cli.cluster.ray_cluster import check_address, chosen_address, require_ray

    require_ray()
    check_address(chosen_address(options.ray_address, os.environ), local_only=options.local_only)


def run_on_ray(
    options: RunOptions,
    chosen: ModelChoice,
    plan_for: Callable[[ModelChoice], RunPlan],
    run_io: RunIO,
    show: RunDisplay,
) -> tuple[RunPlan, RunResult]:
    """Run on a Ray cluster.

    Args:
        options: the run's flags.
        chosen: backend and model, with the concurrency of one worker.
        plan_for: makes the plan from a choice with the concurrency of all workers.
        run_io: source and sink; both stay in this process.
        show: the display.

    Returns:
        The plan of the whole run, and how it ended.

    Raises:
        MelleaError: no cluster can be used, or the output cannot be written any more.
    """
    from mellea_cli.cluster.ray_cluster import chosen_address, connected

    address = chosen_address(options.ray_address, os.environ)
    show.say(
        "starting a Ray cluster on this machine" if address == "local" else f"joining the Ray cluster at {address}"
    )
    with connected(address, workers=options.ray_workers, local_only=options.local_only) as cluster:
        nodes = len(cluster.nodes)
        workers = options.ray_workers or nodes
        if chosen.backend == "local" and workers > nodes:
            show.say(f"each node runs one embedded model: {nodes} workers for {nodes} nodes")
            workers = nodes
        concurrency = _concurrency(options, chosen, workers)
        workers = min(workers, concurrency)
        plan = plan_for(dataclasses.replace(chosen, concurrency=concurrency, start=None))
        show.say(
            f"{workers} worker{'s' * (workers > 1)} for {nodes} Ray node{'s' * (nodes > 1)}, "
            f"{concurrency} requests in flight at most in all"
        )
        return plan, asyncio.run(_run(options, plan, cluster, workers, run_io, show))


def _concurrency(options: RunOptions, chosen: ModelChoice, workers: int) -> int:
    """Requests in flight of all workers together. It is fixed: several adaptive workers would disturb each other."""
    info = backend_info(chosen.backend)
    # A choice for the embedded or the scripted backend has the number that suits one machine.
    default = (chosen.concurrency if info.adaptive_start is None else info.concurrency) * workers
    concurrency = options.concurrency or min(default, options.max_concurrency or default)
    return min(concurrency, info.max_concurrency * workers) if chosen.backend == "local" else concurrency


async def _run(
    options: RunOptions, plan: RunPlan, cluster: RayCluster, workers: int, run_io: RunIO, show: RunDisplay
) -> RunResult:
    from mellea_cli.backends.base import BackendSettings
    from mellea_cli.backends.security import API_KEY, Secrets
    from mellea_cli.cli.backend_setup import network_policy, secrets
    from mellea_cli.cluster.cluster_executor import open_executor
    from mellea_cli.cluster.worker_messages import split_plan
    from mellea_cli.engine.workers import Stop
    from mellea_cli.run.batch import run_with

    settings = BackendSettings(
        model=plan.model,
        base_url=options.server_url or os.environ.get(backend_info(plan.backend).address_variable) or None,
        verbose=options.verbose > 1,
        network=network_policy(options),
        # The key alone goes to the workers, and nothing else of this environment.
        secrets=Secrets(variables={API_KEY: secrets(options).key() if plan.backend == "openai" else ""}),
    )
    setups = split_plan(plan, settings, workers, pull=options.pull)
    stop = Stop(show.say)
    observer = show.begin()
    launcher = cluster.launcher(one_per_node=plan.backend == "local")
    with stop.on_signals():
        async with open_executor(
            setups, launcher, observer=observer, stop=stop, start_timeout_s=plan.max_wait_s
        ) as executor:
            return await run_with(plan, executor, run_io, observer=observer, stop=stop)
