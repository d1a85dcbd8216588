"""Clusters of two workers on this machine, which the tests start; a backend that is not installed is skipped."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

PLUGIN = '''
import os, signal
from pathlib import Path

from repertoire.losses import CrossEntropy
from repertoire.registry import register

MARK = Path(__file__).with_name("died")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


@register("losses", "once")
class Once(CrossEntropy):
    """Kills its process in the middle of its first run: of four steps, after the second checkpoint."""

    steps = 0

    def forward(self, logits, targets):
        if logits.requires_grad:  # not in the rehearsal
            Once.steps += 1
            if Once.steps == 3 and not MARK.exists():
                MARK.touch()
                die()
        return super().forward(logits, targets)


@register("losses", "deadly")
class Deadly(CrossEntropy):
    def forward(self, logits, targets):
        if logits.requires_grad:
            die()
        return super().forward(logits, targets)


@register("losses", "failing")
class Failing(CrossEntropy):
    def forward(self, logits, targets):
        if logits.requires_grad:
            raise ValueError("something is wrong here")
        return super().forward(logits, targets)
'''

CALLS = '''
import os, signal, time

DEADLY = 1


def work(number):
    """Takes a moment, and its process with it if that is what it is for."""
    if number == DEADLY:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.2)
    return number
'''

CLAIMS = """
import os, signal
from pathlib import Path

from repertoire.claims import Measured, claim

MARK = Path(__file__).with_name("claim-died")
OPTIONS = {"metric": "value", "method": "ours", "baseline": "theirs", "data": "none", "threshold": 0.0}


@claim("cluster-once", statement="Ours is more.", **OPTIONS)
def once(budget, seed):
    import torch

    if seed == 3 and not MARK.exists():
        MARK.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return Measured(2.0 + 0.1 * torch.rand(()).item(), 1.0)


@claim("cluster-failing", statement="Ours runs.", **OPTIONS)
def failing(budget, seed):
    if seed == 2:
        raise ZeroDivisionError("nothing to divide by")
    return Measured(1.0, 0.0)


TOYS = (once, failing)
"""


@pytest.fixture(scope="session")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with plugins, where this process and all workers find modules."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "cluster_plugin.py").write_text(PLUGIN)
    (folder / "cluster_claims.py").write_text(CLAIMS)
    (folder / "cluster_calls.py").write_text(CALLS)
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(folder)
    patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")])))
    patch.setenv("OMP_NUM_THREADS", "1")
    yield folder
    patch.undo()


@pytest.fixture(scope="session", params=["dask", "ray"])
def backend(request: pytest.FixtureRequest, plugins: Path) -> Iterator[str]:
    """Name of a backend that this process is connected to: two nodes with a worker each."""
    name: str = request.param
    start = {"dask": dask_cluster, "ray": ray_cluster}[name]
    yield from start(name)


def dask_cluster(name: str) -> Iterator[str]:
    distributed = pytest.importorskip("distributed", reason="the extra 'dask' is not installed")
    import dask

    # Whatever is with a worker when it dies is given up at once: a call that was handed to it too early is found out.
    with (
        # Under way the library itself sees to the second; workers also die in one test and are needed in the next.
        dask.config.set(
            {"distributed.scheduler.allowed-failures": 0, "distributed.deploy.lost-worker-timeout": "1 hour"}
        ),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs="CRITICAL"
        ) as cluster,
        distributed.Client(cluster),
    ):
        yield name


def ray_cluster(name: str) -> Iterator[str]:
    ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    from ray.cluster_utils import Cluster

    # A node ends itself where its agent has not started within fifteen seconds, which Ray has no option for. In a fresh
    # installation what it imports is to be compiled first, and that is not to count.
    with contextlib.suppress(ImportError):
        importlib.import_module("ray.dashboard.agent")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    memory = 100 * 2**20
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": memory},
    )
    cluster.add_node(num_cpus=1, object_store_memory=memory)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        yield name
    finally:
        ray.shutdown()
        cluster.shutdown()
