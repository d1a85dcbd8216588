"""Comparisons over processes: a worker that is killed, and Ctrl-C."""

from __future__ import annotations

import os
import signal
import textwrap
import time
from pathlib import Path

import pytest

from repertoire.compare import compare
from repertoire.compare._jobs import Job
from repertoire.compare._pool import Crew, _backend, dismiss, in_order, warm_up
from repertoire.recipe import make_config

SHARED = {"backbone": "mlp:hidden=8,depth=1", "augment": "none", "epochs": 1, "batch_size": 64, "device": "cpu"}

PLUGIN = """
import os, signal
from repertoire.losses import CrossEntropy
from repertoire.registry import register

@register("losses", "deadly")
class Deadly(CrossEntropy):
    def forward(self, logits, targets):
        if logits.requires_grad:  # not in the rehearsal
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(logits, targets)
"""


@pytest.mark.slow
def test_a_worker_that_is_killed_takes_only_its_own_run_with_it(tiny: Path, tmp_path: Path, monkeypatch):
    """And the processes give what this one would."""
    (tmp_path / "deadly_plugin.py").write_text(PLUGIN)
    monkeypatch.chdir(tmp_path)
    vary = {"loss": "squentropy,deadly"}
    found = compare(tiny, vary=vary, seeds=1, jobs=2, out="a", plugins=("deadly_plugin",), **SHARED)
    assert [len(row.values) for row in found.table] == [1, 0]
    ((label, seed, reason),) = found.failures
    assert (label, seed) == ("deadly", 0)
    assert "its process was killed" in reason
    alone = compare(tiny, vary={"loss": "squentropy,focal"}, seeds=1, jobs=1, out="b", **SHARED)
    assert alone.table[0].values == found.table[0].values


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_saves_and_the_same_command_goes_on(python, tiny: Path, tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            f"""
            from repertoire.cli import main
            main(["compare", {str(tiny)!r}, "--vary", "momentum=0.9,0.5", "--seeds", "1", "--jobs", "2", "-o", "a",
                  "--backbone", "mlp:hidden=8,depth=1", "--augment", "none", "--device", "cpu", "--epochs", "4000"])
            """
        )
    )
    running = python(str(script), folder=tmp_path, apart=True)
    for _ in range(600):
        if len(list(tmp_path.glob("a/runs/*/seed-0/metrics.jsonl"))) == 2 or running.poll() is not None:
            break
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130, out + err
    assert "stopping after this step" in err
    assert "give the same command again" in err
    infos = [path.read_text() for path in tmp_path.glob("a/runs/*/seed-0/run.json")]
    assert len(infos) == 2
    assert all('"status": "interrupted"' in info for info in infos)
    assert not (tmp_path / "a" / ".stop").exists()
    assert not (tmp_path / "a" / ".working").exists()


def test_what_takes_long_comes_first_once_it_is_known():
    jobs = [
        Job(label, make_config(data="digits", seed=seed), Path(f"{label}{seed}"), Path("m"), Path("s"))
        for seed in range(2)
        for label in "abc"
    ]
    took: dict[str, float] = {}
    order = in_order(jobs, took)
    assert [next(order).label for _ in range(3)] == ["a", "b", "c"]
    took.update(a=1.0, b=3.0, c=2.0)
    assert [(job.label, job.config.seed) for job in order] == [("b", 1), ("c", 1), ("a", 1)]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no list of children")
def test_workers_that_were_started_ahead_are_the_ones_that_work():
    from joblib import Parallel, delayed

    crew = Crew("loky", 2)
    warming = warm_up(crew, 5)
    assert warming is not None
    warming.join()
    children = {int(pid) for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()}
    with _backend(crew, 4):
        pids = set(Parallel(batch_size=1)(delayed(os.getpid)() for _ in range(4)))
    dismiss(crew)
    assert pids <= children
    assert warm_up(Crew("loky", 1), 5) is None, "this process does the work"
    assert warm_up(crew, 0) is None, "nothing is left to do"
