"""Comparisons on a cluster: the runs are those of one machine, and what dies or fails is said with its node."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any, Literal

import pytest
from safetensors.torch import load_file

from repertoire.compare import Comparison, cluster, compare
from repertoire.errors import Interrupted
from repertoire.train import RunDirectory

PATIENCE = 300.0
"""Seconds after which what has not happened will not. How long it takes is for others on the machine to say: a worker
that took the place of another has all of PyTorch to import."""

SHARED: dict[str, Any] = {
    "backbone": "mlp:hidden=8,depth=1",
    "augment": "none",
    "epochs": 2,
    "batch_size": 64,
    "save_every": 1,
    "device": "cpu",
}


@pytest.fixture(scope="session")
def here(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """What the processes of this machine give."""
    out = tmp_path_factory.mktemp("here") / "a"
    return compare(tiny, vary={"loss": "cross-entropy,squentropy"}, seeds=2, jobs=2, out=out, **SHARED)


def same_runs(ours: Comparison, theirs: Comparison) -> None:
    for mine, other in zip(ours.table, theirs.table, strict=True):
        assert mine.values == other.values
        for a, b in zip(mine.runs, other.runs, strict=True):
            same_weights(a.path, b.path)


def same_weights(ours: Path, theirs: Path) -> None:
    one, two = (load_file(RunDirectory(path).best_file) for path in (ours, theirs))
    assert list(one) == list(two)
    for name, value in one.items():
        assert value.numpy().tobytes() == two[name].numpy().tobytes(), name


def test_the_runs_are_those_of_this_machine_bit_for_bit(backend: str, here: Comparison, tiny: Path, tmp_path: Path):
    vary = {"loss": "cross-entropy,squentropy"}
    found = compare(tiny, vary=vary, seeds=2, out=tmp_path / "a", backend=backend, **SHARED)
    assert not found.failures
    same_runs(found, here)
    assert not (tmp_path / "a" / ".working").exists()


def test_a_worker_that_dies_takes_only_its_own_call_along(backend: Literal["dask", "ray"], plugins: Path):
    """Also where calls are more than workers."""
    calls = importlib.import_module("cluster_calls")
    work, deadly = calls.work, calls.DEADLY
    with cluster(backend) as workers:
        until = time.monotonic() + PATIENCE
        while workers.slots < 2 and time.monotonic() < until:
            time.sleep(0.1)  # another test has killed one
        assert workers.slots == 2
        futures = [workers.submit(work, number) for number in range(7)]
        unwanted = workers.submit(work, deadly)
        assert unwanted.cancel()
        for number, future in enumerate(futures):
            if number == deadly:
                with pytest.raises(BrokenExecutor):
                    future.result(timeout=PATIENCE)
            else:
                assert future.result(timeout=PATIENCE) == number
        again = workers.submit(work, deadly + 1)
        assert again.result(timeout=PATIENCE) == deadly + 1, "a worker has taken the place of the one that died"


OWN = """
import sys, time

import dask
from cluster_calls import DEADLY, work

from repertoire.compare import cluster

if __name__ == "__main__":
    dask.config.set({"distributed.deploy.lost-worker-timeout": "10ms"})
    with cluster("dask") as workers:
        count, until = workers.slots, time.monotonic() + float(sys.argv[1])
        print(type(workers.submit(work, DEADLY).exception(timeout=float(sys.argv[1]))).__name__)
        time.sleep(1)  # of which Dask would take a hundredth to give the worker up
        while workers.slots < count and time.monotonic() < until:
            time.sleep(0.1)
        print(workers.slots == count, workers.submit(work, DEADLY + 1).result(timeout=float(sys.argv[1])))
"""


def test_a_worker_of_this_machine_comes_back_however_long_it_takes(plugins: Path, tmp_path: Path):
    """Where no cluster is named there is one for the time being, in which Dask gives up who is slow to come back."""
    pytest.importorskip("distributed", reason="the extra 'dask' is not installed")
    (tmp_path / "own.py").write_text(OWN)
    command = [sys.executable, tmp_path / "own.py", str(PATIENCE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3 * PATIENCE)
    assert done.stdout.split() == ["BrokenExecutor", "True", "2"], done.stderr[-3000:]


def test_who_dies_goes_on_elsewhere_and_who_fails_is_named_with_the_node(
    backend: str, here: Comparison, plugins: Path, tiny: Path, tmp_path: Path
):
    (plugins / "died").unlink(missing_ok=True)
    vary = {"loss": "cross-entropy,once,deadly,failing"}
    found = compare(
        tiny, vary=vary, seeds=1, out=tmp_path / "a", backend=backend, plugins=("cluster_plugin",), **SHARED
    )
    assert (plugins / "died").exists(), "a worker was killed in the middle of a run"
    plain, once, deadly, failing = found.table
    assert plain.values == [here.table[0].values[0]]
    same_weights(once.runs[0].path, here.table[0].runs[0].path)
    reasons = {label: reason for label, _, reason in found.failures}
    assert sorted(reasons) == ["deadly", "failing"]
    assert not deadly.values
    assert not failing.values
    place = f"on {socket.gethostname()} ({backend} {'worker tcp://127.0.0.1:' if backend == 'dask' else 'node '}"
    assert reasons["failing"].startswith(f"ValueError: something is wrong here, {place}")
    assert reasons["deadly"].startswith("its process was killed")
    assert place in reasons["deadly"]


@pytest.fixture
def _heard() -> Iterator[None]:
    """Python hears Ctrl-C, also where it was started in the background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_heard")
def test_ctrl_c_saves_and_the_same_call_goes_on(backend: str, tiny: Path, tmp_path: Path):
    over, until = threading.Event(), time.monotonic() + PATIENCE

    def press() -> None:
        while not over.wait(0.1):
            # What has not begun after so long will not, and the test is to fail and not to wait.
            if len(list(tmp_path.glob("a/runs/*/seed-0/metrics.jsonl"))) == 2 or time.monotonic() > until:
                os.kill(os.getpid(), signal.SIGINT)
                return

    options = {**SHARED, "vary": {"momentum": "0.9,0.5"}, "seeds": 1, "epochs": 10**6, "save_every": None}
    thread = threading.Thread(target=press)
    thread.start()
    try:
        with pytest.raises(Interrupted, match="give the same command again"):
            compare(tiny, out=tmp_path / "a", backend=backend, **options)
    finally:
        over.set()
    thread.join()
    infos = [path.read_text() for path in tmp_path.glob("a/runs/*/seed-0/run.json")]
    assert len(infos) == 2
    assert all('"status": "interrupted"' in info for info in infos)
    assert not (tmp_path / "a" / ".stop").exists()
