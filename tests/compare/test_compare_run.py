"""Comparisons that are really run, in this process, on a data set that is learnt in a second."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repertoire import train
from repertoire.compare import Comparison, _jobs, compare
from repertoire.compare._jobs import Job, execute
from repertoire.errors import ConfigError, DataError, Interrupted, MissingExtra, RunError, UnknownName

SHARED: dict[str, Any] = {
    "backbone": "mlp:hidden=8,depth=1",
    "augment": "none",
    "epochs": 1,
    "batch_size": 64,
    "device": "cpu",
}


def small(tiny: Path, out: Path, **options: Any) -> Comparison:
    given = {"vary": {"loss": "cross-entropy,squentropy"}, "seeds": 2, "jobs": 1, **SHARED, **options}
    return compare(tiny, out=out, **given)


@pytest.fixture(scope="module")
def done(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    return small(tiny, tmp_path_factory.mktemp("comparison") / "a")


@pytest.fixture
def copy(done: Comparison, tmp_path: Path) -> Path:
    return shutil.copytree(done.path, tmp_path / "copy")


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The jobs that are really begun."""
    jobs: list[Job] = []

    def watched(job: Job, worker: bool = True) -> Any:
        jobs.append(job)
        return execute(job, worker)

    monkeypatch.setattr("repertoire.compare._pool.execute", watched)
    return jobs


def test_a_row_for_each_and_a_run_directory_for_each_seed(done: Comparison):
    assert [row.label for row in done.table] == ["cross-entropy", "squentropy"]
    assert done.baseline == "cross-entropy"
    for row in done.table:
        assert len(row.values) == 2
        assert row.seconds is not None
        assert row.memory is not None
        for run in row.runs:
            opened = train.load(run.path)
            assert (opened.config.loss, opened.config.seed) == (row.label, run.seed)
            assert opened.metrics["accuracy"] == run.value
    assert json.loads((done.path / "summary.json").read_text()) == json.loads(done.to_json())
    assert not (done.path / ".working").exists()


def test_runs_of_a_seed_share_their_images_and_those_of_another_do_not(done: Comparison):
    digests = [[train.load(run.path).info["data_digest"] for run in row.runs] for row in done.table]
    assert digests[0] == digests[1]
    assert digests[0][0] != digests[0][1]


def test_a_run_is_the_one_that_train_gives(done: Comparison, tiny: Path, tmp_path: Path):
    alone = train.fit(tiny, out=tmp_path / "alone", loss="squentropy", seed=1, **SHARED)
    assert alone.metrics == train.load(done.table[1].runs[1].path).metrics


def test_the_same_again_runs_nothing(done: Comparison, copy: Path, tiny: Path, executed: list[Job]):
    again = small(tiny, copy)
    assert executed == []
    assert [row.values for row in again.table] == [row.values for row in done.table]


def test_more_values_and_seeds_only_add(copy: Path, tiny: Path, executed: list[Job]):
    small(tiny, copy, vary={"loss": "cross-entropy,squentropy,focal"}, seeds=3)
    assert [(job.label, job.config.seed) for job in executed] == [
        ("focal", 0), ("focal", 1), ("cross-entropy", 2), ("squentropy", 2), ("focal", 2)
    ]  # fmt: skip


def test_another_field_adds_as_well(copy: Path, tiny: Path, executed: list[Job]):
    vary = {"loss": "cross-entropy", "momentum": "0.9,0.5"}
    small(tiny, copy, vary=vary, seeds=1)
    assert [job.label for job in executed] == ["momentum=0.5"], "cross-entropy with a momentum of 0.9 is there"


def test_an_unfinished_run_goes_on(copy: Path, tiny: Path, executed: list[Job], done: Comparison):
    run = copy / "runs" / done.table[1].runs[0].path.parent.name / "seed-0"
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**info, "status": "running"}))
    (run / "metrics.json").unlink()
    damaged = copy / "runs" / done.table[0].runs[1].path.parent.name / "seed-1"
    (damaged / "run.json").write_text("{")
    again = small(tiny, copy)
    assert len(executed) == 2
    assert [row.values for row in again.table] == [row.values for row in done.table]


def test_stopping_leaves_what_can_go_on(tiny: Path, tmp_path: Path, monkeypatch, executed: list[Job]):
    from repertoire.train import Loop

    whole = Loop.run

    def stopped(self: Loop) -> None:
        if self.config.loss == "squentropy":
            self._stop = True
        whole(self)

    monkeypatch.setattr(Loop, "run", stopped)
    with pytest.raises(Interrupted, match="give the same command again"):
        small(tiny, tmp_path / "a", seeds=1)
    monkeypatch.setattr(Loop, "run", whole)
    assert [job.label for job in executed] == ["cross-entropy", "squentropy"]
    assert not small(tiny, tmp_path / "a", seeds=1).failures
    assert [job.label for job in executed[2:]] == ["squentropy"]


def test_a_run_that_fails_is_named_and_the_rest_goes_on(tiny: Path, tmp_path: Path):
    found = small(tiny, tmp_path / "a", vary={"lr": "0.05,1e30,0.1"}, seeds=2)
    assert [len(row.values) for row in found.table] == [2, 0, 2]
    assert [(label, seed) for label, seed, _ in found.failures] == [("lr=1e+30", 0), ("lr=1e+30", 1)]
    assert "Try a lower lr" in found.failures[0][2]
    assert "lr=1e+30 cannot be compared: every run failed." in found.sentences
    assert found.row("lr=0.1").difference is not None


def test_one_seed(tiny: Path, tmp_path: Path):
    found = small(tiny, tmp_path / "a", seeds=1)
    assert found.table[1].difference_interval is None
    assert "A single seed says nothing about chance" in str(found)


def test_all_invalid_members_are_named_before_anything_runs(tiny: Path, tmp_path: Path):
    vary = {"loss": "cross-entropy,supcom,supcon", "method": "auto,simclr", "epochs": "1,0"}
    shared = {name: value for name, value in SHARED.items() if name != "epochs"}
    with pytest.raises(ConfigError) as caught:
        compare(tiny, vary=vary, out=tmp_path / "a", jobs=1, **shared)
    message = str(caught.value)
    assert message.startswith("9 of 12 configurations cannot be run, and nothing was begun:")
    assert "did you mean 'supcon'" in message
    assert "supcon + simclr + epochs=1: method 'simclr' has a loss of its own" in message
    assert "cross-entropy + auto + epochs=0" in message
    assert "cross-entropy + auto + epochs=1" not in message
    assert "cross-entropy + simclr + epochs=1" not in message
    assert not (tmp_path / "a").exists()


def test_a_member_on_other_test_images(tiny: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"test=0\.4: it would be tested on other images"):
        small(tiny, tmp_path / "a", vary={"test": "0.2,0.4"})


def test_other_comparisons_and_other_files_are_left_alone(copy: Path, tiny: Path, tmp_path: Path):
    with pytest.raises(RunError, match=r"holds another comparison: epochs was 1, is 2; choose another out"):
        small(tiny, copy, epochs=2)
    with pytest.raises(RunError, match="threads was 1, is 2"):
        small(tiny, copy, threads=2)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="is not empty and holds no comparison"):
        small(tiny, other)
    (copy / "comparison.json").write_text("{")
    with pytest.raises(RunError, match="damaged"):
        small(tiny, copy)


def test_images_that_changed(tiny: Path, tmp_path: Path):
    data = tmp_path / "data.npz"
    shutil.copy(tiny, data)
    small(data, tmp_path / "a", seeds=1)
    with np.load(tiny) as arrays:
        np.savez(data, **{**arrays, "images": arrays["images"] // 2})
    with pytest.raises(RunError, match=r"images of .* changed"):
        small(data, tmp_path / "a", seeds=1)


def test_without_a_name_it_goes_on_where_it_began(tiny: Path, tmp_path: Path, monkeypatch, executed: list[Job]):
    monkeypatch.chdir(tmp_path)
    options = {**SHARED, "vary": {"momentum": "0.9,0.5"}, "seeds": 1, "jobs": 1}
    assert compare(tiny, **options).path == Path("comparisons/tiny-1")
    assert compare(tiny, **options).path == Path("comparisons/tiny-1")
    assert len(executed) == 2
    assert compare(tiny, **{**options, "epochs": 2}).path == Path("comparisons/tiny-2")


def test_a_search_gives_each_the_same_budget_and_the_runs_what_it_found(
    tiny: Path, tmp_path: Path, executed: list[Job]
):
    options = {"search": {"lr": "1e-3..1e-1:log"}, "trials": 3, "seeds": 2}
    found = small(tiny, tmp_path / "a", **options)
    assert {label: len(trials) for label, trials in found.trials.items()} == {"cross-entropy": 3, "squentropy": 3}
    for row in found.table:
        best = max(trial.value for trial in found.trials[row.label])
        assert row.found["lr"] in [trial.settings["lr"] for trial in found.trials[row.label] if trial.value == best]
        assert train.load(row.runs[0].path).config.lr == row.found["lr"]
        assert {run.seed for run in row.runs} == {0, 1}
    trials = [job for job in executed if job.trial is not None]
    assert len(trials) == 6
    assert {job.config.seed for job in trials} == {10_000}
    before = len(executed)
    again = small(tiny, tmp_path / "a", **options)
    assert len(executed) == before
    assert again.to_json() == found.to_json()


def test_a_search_in_which_everything_fails(tiny: Path, tmp_path: Path):
    found = small(tiny, tmp_path / "a", vary={"momentum": "0.9,0.5"}, search={"lr": "1e29..1e30"}, trials=2, seeds=1)
    assert all("every trial of the search failed" in reason for _, _, reason in found.failures)
    assert len(found.failures) == 2


@pytest.mark.parametrize("seeds", [0, -1, True])
def test_too_few_seeds(seeds: int, tiny: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="must be 1 or more"):
        small(tiny, tmp_path / "a", seeds=seeds)


def test_what_does_not_exist(tiny: Path, tmp_path: Path):
    with pytest.raises(UnknownName, match="did you mean 'macro_f1'"):
        small(tiny, tmp_path / "a", metric="macro-f")
    with pytest.raises(UnknownName, match="no backend is named 'spark'"):
        small(tiny, tmp_path / "a", backend="spark")
    with pytest.raises(UnknownName, match="training option is named 'epoch'"):
        small(tiny, tmp_path / "a", epoch=3)
    with pytest.raises(ConfigError, match="jobs is 0"):
        small(tiny, tmp_path / "a", jobs=0)
    with pytest.raises(ConfigError, match="trials is 0"):
        small(tiny, tmp_path / "a", search={"lr": "0.1..1"}, trials=0)
    with pytest.raises(DataError, match="there is no folder"):
        compare(tmp_path / "nowhere", vary={"loss": "cross-entropy,focal"}, out=tmp_path / "a", jobs=1)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(("backend", "module"), [("ray", "ray"), ("dask", "distributed")])
def test_backends_that_are_not_installed(backend: str, module: str, tiny: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"backend='{backend}' needs .*\[{backend}\]"):
        small(tiny, tmp_path / "a", backend=backend)


def test_images_are_loaded_once_for_a_seed(tiny: Path, tmp_path: Path, monkeypatch):
    loaded: list[int] = []
    load = _jobs.load_splits
    monkeypatch.setattr(_jobs, "load_splits", lambda config: loaded.append(config.seed) or load(config))
    small(tiny, tmp_path / "a", vary={"loss": "cross-entropy,squentropy,focal"}, seeds=2)
    assert loaded == [0, 1]


def test_two_at_once_in_one_directory(copy: Path, tiny: Path):
    from repertoire.files import lock_directory

    with lock_directory(copy), pytest.raises(RunError, match="another process is writing"):
        small(tiny, copy)
