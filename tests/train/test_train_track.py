from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from repertoire.errors import MissingExtra, RepertoireWarning
from repertoire.recipe import make_config
from repertoire.train._track import TRACKERS, check_trackers, make_trackers

ROWS = [{"epoch": 1, "step": 6, "train_loss": 0.5, "best": True}, {"epoch": 2, "step": 12, "train_loss": 0.25}]


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """Stands for the library: remembers what it is told, under the names that it has."""
    told = types.SimpleNamespace(calls=[], active=None)
    module = types.ModuleType("mlflow")

    def start_run(**named: object) -> types.SimpleNamespace:
        told.calls.append(("start", named))
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id="abc123"))

    module.start_run = start_run
    module.active_run = lambda: told.active
    module.log_params = lambda params: told.calls.append(("params", params))
    module.log_metrics = lambda metrics, step: told.calls.append(("metrics", metrics, step))
    module.end_run = lambda: told.calls.append(("end",))
    monkeypatch.setitem(sys.modules, "mlflow", module)
    return told


def test_mlflow_is_told_once_and_goes_on_after_a_crash(mlflow: types.SimpleNamespace, tmp_path: Path):
    config = make_config(data="digits", track=("mlflow",))
    for session, row in enumerate(ROWS):
        (tracker,) = make_trackers(config, tmp_path, session * 6)
        tracker.log(row)
        tracker.close()
    kinds = [call[0] for call in mlflow.calls]
    assert kinds == ["start", "params", "metrics", "end", "start", "metrics", "end"]
    assert mlflow.calls[0][1] == {"run_name": tmp_path.name, "nested": False}
    assert mlflow.calls[4][1] == {"run_id": "abc123", "nested": False}
    assert mlflow.calls[2][1:] == ({"epoch": 1.0, "train_loss": 0.5, "best": 1.0}, 6)


def test_tensorboard_has_a_point_for_each_epoch(tmp_path: Path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = make_config(data="digits", track=("tensorboard",))
    (tracker,) = make_trackers(config, tmp_path, 0)
    for row in ROWS:
        tracker.log(row)
    tracker.close()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train_loss")] == [(6, 0.5), (12, 0.25)]


def test_what_is_not_installed_is_named_before_anything_starts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingExtra, match=r"repertoire-learn\[track\]"):
        check_trackers(make_config(data="digits", track=("mlflow",)))


def test_inside_a_run_of_the_user_ours_is_a_child(mlflow: types.SimpleNamespace, tmp_path: Path):
    mlflow.active = object()
    make_trackers(make_config(data="digits", track=("mlflow",)), tmp_path, 0)
    assert mlflow.calls[0][1]["nested"] is True


@pytest.mark.parametrize("when", ["start", "log", "close"])
def test_a_tracker_that_fails_is_named_once_and_dropped(
    mlflow: types.SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
):
    def fails(*_: object, **__: object) -> None:
        raise ConnectionError("server\nis gone")

    name = {"start": "start_run", "log": "log_metrics", "close": "end_run"}[when]
    monkeypatch.setattr(sys.modules["mlflow"], name, fails)

    def watch() -> None:
        (tracker,) = make_trackers(make_config(data="digits", track=("mlflow",)), tmp_path, 0)
        for row in ROWS:
            tracker.log(row)
        tracker.close()

    with pytest.warns(RepertoireWarning, match=r"mlflow failed \(server is gone\)") as told:
        watch()
    assert len(told) == 1


class _WandB(types.ModuleType):
    """Stands for the library: remembers what it is told."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.calls: list[tuple] = []

    def init(self, **named: object) -> types.SimpleNamespace:
        self.calls.append(("init", named["name"], named["id"]))
        return types.SimpleNamespace(
            id="w1",
            log=lambda values, step: self.calls.append(("log", values, step)),
            finish=lambda: self.calls.append(("finish",)),
        )


def test_wandb_is_told_and_goes_on_with_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module = _WandB()
    monkeypatch.setitem(sys.modules, "wandb", module)
    config = make_config(data="digits").model_copy(update={"track": ("wandb",)})
    check_trackers(config)
    for session, row in enumerate(ROWS):
        (tracker,) = make_trackers(config, tmp_path, session * 6)
        tracker.log(row)
        tracker.close()
    assert [call[0] for call in module.calls] == ["init", "log", "finish"] * 2
    assert [call[2] for call in module.calls if call[0] == "init"] == [None, "w1"]
    assert module.calls[1] == ("log", {"epoch": 1.0, "train_loss": 0.5, "best": 1.0}, 6)


def test_every_tracker_can_be_named():
    assert make_config(data="digits", track=tuple(TRACKERS)).track == tuple(TRACKERS)
