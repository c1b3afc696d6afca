"""`mellea summarise --engine ray` on a real cluster of two raylets; program and server are processes on loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.conftest import RayNodes
from loopback import ModelServer
from mellea_cli.cluster.ray_cluster import check_address, chosen_address
from mellea_cli.errors import UsageError
from rowfiles import write_rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROWS = 2_000
KEY = "sk-loopback-9d1f4e"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two thousand rows, each with a text of its own."""
    rows = [{"id": number, "text": f"Late. MARK-i{number:05d}x"} for number in range(ROWS)]
    return write_rows(tmp_path / "in.jsonl", rows)


@pytest.fixture
def quick(serve: Callable[..., ModelServer]) -> ModelServer:
    """A server that wants a key, and answers in one piece: thousands of answers shall not cost minutes."""

    def reply(prompt: str, _: object) -> str:
        mark = prompt[prompt.rindex("MARK-") :][:12]
        answer = {"positive_aspect": None, "main_complaint": mark, "urgency": "low", "sentiment": "negative"}
        return json.dumps({**answer, "summary": f"The customer says {mark}."}, separators=(",", ":"))

    return serve(reply=reply, latency_s=0.05, record=False, api_key=KEY)


def command(source: Path, output: str, server: ModelServer, *more: str) -> list[str]:
    """The command line of a run against the server."""
    run = ["summarise", str(source), "-o", output, "--base-url", server.openai_url, "-m", "test-model", "-c", "32"]
    return [sys.executable, "-W", "error", "-m", "mellea_cli", *run, *more]


def on_ray(nodes: RayNodes) -> tuple[str, ...]:
    """The flags that put a run on the cluster."""
    return ("--engine", "ray", "--ray-address", nodes.address)


def one_machine(source: Path, server: ModelServer) -> bytes:
    """The output of a run without a cluster."""
    env = {**os.environ, "OPENAI_API_KEY": KEY}
    done = subprocess.run(command(source, "-", server, "-q"), capture_output=True, env=env, timeout=200, check=True)
    assert done.stderr == b""
    server.state.clear()
    return done.stdout


def test_two_nodes_write_what_one_machine_writes(
    raynodes: RayNodes, quick: ModelServer, source: Path, tmp_path: Path
) -> None:
    """2,000 items: the same output byte for byte, each asked once, within `-c`; the key is in no file of Ray's."""
    expected = one_machine(source, quick)
    env = {**raynodes.environ, "OPENAI_API_KEY": KEY}
    output = tmp_path / "out.jsonl"
    run = command(source, str(output), quick, *on_ray(raynodes))
    done = subprocess.run(run, capture_output=True, env=env, timeout=200, check=False)
    assert (done.returncode, done.stdout) == (0, b""), done.stderr.decode()
    assert output.read_bytes() == expected
    assert quick.state.requests == ROWS
    assert quick.state.max_in_flight <= 32
    said = done.stderr.decode()
    assert "2 workers for 2 Ray nodes" in said
    assert all(line.startswith("mellea: ") for line in said.splitlines()), said
    assert KEY not in said
    logs = [path for path in Path("/tmp/ray/session_latest/logs").rglob("*") if path.is_file()]  # noqa: S108 - Ray's own
    assert logs
    assert not [path for path in logs if KEY.encode() in path.read_bytes()]


def test_a_node_killed_at_half_costs_only_what_it_had_in_hand(
    raynodes: RayNodes, quick: ModelServer, source: Path, tmp_path: Path
) -> None:
    """Every item is answered, none twice, stdout holds rows and nothing else, and little is asked again."""
    expected = one_machine(source, quick)
    env = {**raynodes.environ, "OPENAI_API_KEY": KEY}
    with (tmp_path / "rows").open("wb") as rows, (tmp_path / "said").open("wb") as said:
        run = subprocess.Popen(command(source, "-", quick, *on_ray(raynodes)), stdout=rows, stderr=said, env=env)
        try:
            quick.wait(lambda state: state.completed >= ROWS // 2, timeout=120)
            raynodes.kill_second()
            code = run.wait(timeout=120)
        finally:
            run.kill()
            run.wait()
    raynodes.add_second()
    assert code == 0, (tmp_path / "said").read_text()
    assert (tmp_path / "rows").read_bytes() == expected
    assert "was lost" in (tmp_path / "said").read_text()
    # Sixteen places and four items that lay ready.
    assert ROWS <= quick.state.requests <= ROWS + 20


def test_interrupted_it_keeps_what_is_done(quick: ModelServer, source: Path, tmp_path: Path) -> None:
    """Ctrl-C at a cluster of its own: exit code 130, whole rows, and nothing of Ray is left running."""
    env = {**os.environ, "OPENAI_API_KEY": KEY, "HOME": str(tmp_path)}
    output = tmp_path / "out.jsonl"
    run = subprocess.Popen(
        command(source, str(output), quick, "--engine", "ray", "--ray-workers", "2", "-q"),
        env=env,
        start_new_session=True,
        stderr=subprocess.PIPE,
    )
    try:
        quick.wait(lambda state: state.completed >= 100, timeout=120)
        # As a terminal does it: to every process of the group.
        os.killpg(run.pid, signal.SIGINT)
        _, said = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode == 130, said.decode()
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert 100 <= len(rows) < ROWS
    assert len(rows) == quick.state.completed
    assert not (tmp_path / ".ray").exists()
    with pytest.raises(ProcessLookupError):
        os.killpg(run.pid, 0)


def refused(*flags: str, env: dict[str, str] | None = None, without_ray: bool = False) -> str:
    """What a command line that is refused says."""
    hide = "import sys; sys.modules['ray'] = None; " if without_ray else "import sys; "
    program = f"{hide}sys.argv = ['mellea', *sys.argv[1:]]; from mellea_cli.cli.entry import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "summarise", "-", "--backend", "scripted", *flags],
        input=b'{"text": "x"}\n',
        capture_output=True,
        env={**os.environ, **(env or {})},
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, b""), done.stderr.decode()
    return done.stderr.decode()


def test_without_ray_one_line_says_how_to_get_it() -> None:
    """The extra's pip command is the hint."""
    said = refused("--engine", "ray", without_ray=True)
    assert "Ray, which is not installed" in said
    assert "pip install 'mellea-cli[ray]'" in said


def test_flags_for_ray_want_ray() -> None:
    """An address without the engine is a mistake that is named."""
    assert "--engine ray" in refused("--ray-address", "auto")


def test_an_address_where_no_cluster_listens_is_refused_soon() -> None:
    """One line instead of minutes of attempts."""
    pytest.importorskip("ray", reason="Ray is not installed")
    assert "no Ray cluster answers at 127.0.0.1:9" in refused("--engine", "ray", "--ray-address", "127.0.0.1:9")


@pytest.mark.parametrize("address", ["auto", "ray://192.0.2.77:10001", "192.0.2.77:6379"])
def test_local_only_refuses_a_cluster_that_may_lead_elsewhere(address: str) -> None:
    """Only a cluster of our own, or one at an address of this machine, is certain to stay here."""
    with pytest.raises(UsageError, match="may lead to other machines"):
        check_address(address, local_only=True)
    check_address(address, local_only=False)


def test_local_only_lets_this_machine_pass() -> None:
    """Loopback is this machine under any spelling."""
    for address in ("local", "127.0.0.1:6379", "ray://localhost:10001"):
        check_address(address, local_only=True)


def test_the_address_is_the_flag_then_the_variable_then_a_cluster_of_its_own() -> None:
    """As Ray users know it."""
    assert chosen_address("auto", {"RAY_ADDRESS": "10.0.0.1:6379"}) == "auto"
    assert chosen_address(None, {"RAY_ADDRESS": "10.0.0.1:6379"}) == "10.0.0.1:6379"
    assert chosen_address(None, {}) == "local"


def test_only_the_engine_that_wants_ray_imports_it() -> None:
    """A run on one machine loads neither Ray nor the cluster package."""
    program = (
        "import sys; sys.argv = ['mellea', 'summarise', '-', '--backend', 'scripted'];"
        "import atexit; atexit.register(lambda: sys.stderr.write(repr([name for name in sys.modules if"
        " name.split('.')[0] == 'ray' or name.startswith('mellea_cli.cluster')])));"
        "from mellea_cli.cli.entry import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=b'{"text": "x"}\n', capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0
    assert done.stderr.decode().endswith("[]")
