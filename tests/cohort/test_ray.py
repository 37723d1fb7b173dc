"""Ray does what processes do, to the byte: on this machine, and on two nodes that have networks of their own."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys

import pytest

from meddift import cohort

pytestmark = [
    pytest.mark.slow,  # Ray takes seconds to start, and each test starts it in a program of its own
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra cluster is not installed"),
]

_DRIVER = """
import json, signal, sys
from pathlib import Path
from cohort.fake_cohort import FakeCohort
from meddift import cohort
from meddift.cohort import ray_actors
from meddift.errors import MeddiftError
fake = FakeCohort(Path(sys.argv[1]))
changes = json.loads(sys.argv[2])
ray_actors._PENDING_S = changes.pop("pending_s", 120.0)
handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
try:
    cohort.run(fake.plan("ray", **changes))
except MeddiftError as error:
    sys.exit(f"{type(error).__name__}: {error}")
assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
import ray
assert not ray.is_initialized()
"""


def drive(fake, *before: str, code: str = _DRIVER, environment: dict[str, str] | None = None, **changes) -> str:
    """Run a cohort on Ray in a program of its own; returns the error with which it ends, or ""."""
    words = [str(fake.folder), json.dumps({"ray": "local", "threads": 1, **changes})]
    found = subprocess.run([*before, sys.executable, "-c", code, *words], env=environment, capture_output=True,
                           text=True, check=False)  # fmt: skip
    assert found.returncode == 0 or "Error: " in found.stderr, found.stderr[-3000:]
    return "" if found.returncode == 0 else found.stderr


def tables_are_equal(fake) -> bool:
    cohort.run(fake.plan("processes"))
    made = [(fake.folder / out / "cohort.tsv").read_bytes() for out in ("ray", "processes")]
    return made[0] == made[1]


def test_one_machine_makes_the_same_table(fake):
    assert drive(fake) == ""
    assert tables_are_equal(fake)
    encoded = [count for what, count in fake.asked("ray").items() if what.startswith("encode")]
    assert set(encoded) == {1}


def test_a_worker_with_other_code_is_refused(fake):
    assert "another code than this program ('newer'" in drive(fake, told={"code_of_worker": "newer"})


def test_actors_that_can_never_begin_are_said_with_what_is_free(fake):
    told = drive(fake, told={"memory_bytes": 10**9}, workers=2, pending_s=10.0, code=_DRIVER.replace(
        "try:", "ray_actors.RayActors._only_local = lambda self, count: {'num_cpus': 0}\ntry:", 1))  # fmt: skip
    assert "no worker has begun" in told
    assert "needs 1 processor" in told


def test_no_cluster_at_an_address_is_said(fake):
    assert "cannot be reached at 127.0.0.1:1" in drive(fake, ray="127.0.0.1:1")


@pytest.fixture
def two_nodes(tmp_path):
    """Address of a cluster of two nodes, and how to start a program beside the first."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need ip and root")
    drawn = secrets.token_hex(3)
    names = [f"md{drawn}{end}" for end in "ab"]
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32),
                   "RAY_USAGE_STATS_ENABLED": "0"}  # fmt: skip

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    def inside(name: str) -> list[str]:
        return ["ip", "netns", "exec", name]

    nodes: list[subprocess.Popen] = []
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", names[0], "type", "veth", "peer", "name", names[1])
        for number, name in enumerate(names, start=1):
            ip("link", "set", name, "netns", name)
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", name)
            ip("-n", name, "link", "set", name, "up")
            ip("-n", name, "link", "set", "lo", "up")
        start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1",
                 "--object-store-memory=100000000", "--disable-usage-stats"]  # fmt: skip
        # The second node finds the first only when that is up, and on a busy machine either may need another try.
        again = ["bash", "-c", 'until "$@"; do sleep 2; done', "node"]
        for number, more in ((1, ["--head", "--port=6399", "--include-dashboard=false"]),
                             (2, ["--address=10.77.0.1:6399"])):  # fmt: skip
            place = [f"--node-ip-address=10.77.0.{number}"]
            log = (tmp_path / f"node{number}.log").open("w")
            nodes.append(
                subprocess.Popen([*inside(names[number - 1]), *again, *start, *place, *more], env=environment,
                                 stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
            )  # fmt: skip
            log.close()
        yield "10.77.0.1:6399", inside(names[0]), environment
    finally:
        for node in nodes:
            os.killpg(node.pid, signal.SIGTERM)
        for node in nodes:
            try:
                node.wait(timeout=60)
            except subprocess.TimeoutExpired:
                os.killpg(node.pid, signal.SIGKILL)
                node.wait()
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


_WAIT = """
import ray, sys, time
for _ in range(120):
    try:
        ray.init(address="10.77.0.1:6399", log_to_driver=False)
        if ray.cluster_resources().get("CPU") == 2.0:
            break
        ray.shutdown()
    except Exception:
        pass
    time.sleep(1)
else:
    sys.exit("Error: the nodes do not find each other")
"""


def test_two_nodes_make_the_same_table(fake, two_nodes):
    address, inside, environment = two_nodes
    for code in (_WAIT, _DRIVER):
        assert drive(fake, *inside, code=code, environment=environment, ray=address) == ""
    assert tables_are_equal(fake)
    lines = (fake.folder / "ray-notes" / "workers.txt").read_text().splitlines()
    workers = [json.loads(line)["worker"] for line in lines]
    assert len({worker.split()[0] for worker in workers}) == 2  # both nodes have worked
