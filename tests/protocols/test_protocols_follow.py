from __future__ import annotations

import ast
import copy
import json
import re
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import pytest
import torch

from repertoire import load, protocols, recipe, registry
from repertoire.data import Batch, Loader
from repertoire.errors import CheckpointError, ConfigError, DataError, RunError
from repertoire.losses import CrossEntropy, Loss
from repertoire.methods import Classifier, Method, Needs, Stage, Step
from repertoire.protocols import Memory, Outcome, _follow
from repertoire.rules import Backprop
from repertoire.train import last_state, outputs
from stopping import crash

SPEC = "classes:step=1,memory=24"


@pytest.fixture(scope="module")
def config(options: dict) -> recipe.TrainConfig:
    own = {"epochs": 2, "save_every": 2, "method": "replay", "ema": 0.5}
    return recipe.make_config(**{**options, **own})


@pytest.fixture(scope="module")
def whole(config: recipe.TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return protocols.follow(SPEC, config, out=tmp_path_factory.mktemp("whole") / "stages")


def content(outcome: Outcome) -> dict[str, torch.Tensor]:
    """All that is left: the state after each stage, and the memory."""
    found = {}
    for t in range(len(outcome.names)):
        found |= {f"{t}/{name}": value for name, value in last_state(outcome.path / f"{t:02d}").items()}
        found |= {f"{t}/best/{n}": v for n, v in load(outcome.path / f"{t:02d}").model.state_dict().items()}
    with np.load(outcome.path / f"{len(outcome.names) - 1:02d}-memory.npz") as memory:
        found["memory"] = torch.from_numpy(memory["images"])
    return found


def assert_same(one: Outcome, two: Outcome) -> None:
    np.testing.assert_array_equal(one.matrix, two.matrix)
    np.testing.assert_array_equal(one.within, two.within)
    assert one.metrics.items() <= two.metrics.items()
    a, b = content(one), content(two)
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_replay_keeps_what_plain_training_forgets_as_the_example_says(tmp_path: Path):
    config = recipe.make_config(data="digits", method="replay", epochs=2, device="cpu")
    outcome = protocols.follow("classes:step=5", config, out=tmp_path / "stages")
    promised = ast.literal_eval(re.search(r"\{'finetune'.*\}", protocols.follow.__doc__)[0])
    assert outcome.metrics["finetune"] + 0.2 < outcome.metrics["accuracy"] < outcome.metrics["joint"] + 0.02
    assert {name: outcome.metrics[name] for name in promised} == pytest.approx(promised, abs=0.05)
    assert outcome.matrix[1, 0] > 0.85


def test_what_is_written_is_what_is_given(whole: Outcome):
    assert len(whole.names) == 3
    assert {"joint", "finetune", "forgetting"} <= whole.metrics.keys()
    assert whole.metrics["memory_bytes"] == 24 * (64 + 8)
    np.testing.assert_allclose(whole.curve[-1], whole.metrics["accuracy"])
    assert np.nanmin(whole.within - whole.matrix) >= 0
    record = json.loads((whole.path / "outcome.json").read_text())
    assert record["matrix"][0][1:] == [None, None]
    assert record["metrics"] == whole.metrics


def test_a_stage_is_a_run_whose_head_has_grown(config: recipe.TrainConfig, whole: Outcome):
    heads = [last_state(whole.path / f"{t:02d}")["model.head.linear.weight"] for t in range(3)]
    assert [len(head) for head in heads] == [1, 2, 3]
    run = load(whole.path / "02")
    assert len(run.classes) == 3
    assert "+".join(run.classes) == "+".join(whole.names)
    with pytest.raises(DataError, match="in memory"):
        _ = run.splits
    assert run.info["stage"]["of"] == 3
    test = recipe.load_splits(config).test
    order = [run.classes.index(name) for name in test.classes]
    found = run.predict(test.pixels(slice(None))).argmax(1)
    right = (found == np.array(order)[test.labels]).mean()
    assert right == pytest.approx(run.metrics["accuracy"])
    assert right == pytest.approx(whole.matrix[-1].mean(), abs=0.05)


def test_a_stage_begins_with_the_weights_of_the_one_before(
    config: recipe.TrainConfig, whole: Outcome, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    seen = []
    original = Backprop.step

    def step(self, method, batch):
        if not seen or seen[-1][0] != method.model.head.num_classes:
            state = {name: value.clone() for name, value in method.state_dict().items()}
            seen.append((method.model.head.num_classes, state, batch.streams.keys()))
        return original(self, method, batch)

    monkeypatch.setattr(Backprop, "step", step)
    outcome = protocols.follow(SPEC, config, out=tmp_path / "stages", bounds=False)
    assert [width for width, _, _ in seen] == [1, 2, 3]
    assert [list(streams) for _, _, streams in seen] == [[], ["replay"], ["replay"]]
    for t in (1, 2):
        before = last_state(outcome.path / f"{t - 1:02d}")
        for name, value in seen[t][1].items():
            assert torch.equal(value[: len(before[name])] if value.ndim else value, before[name]), name
    np.testing.assert_array_equal(outcome.matrix, whole.matrix)


class Stop(Exception):
    """Stands for a crash."""


@pytest.mark.parametrize("step", [0, 1, 5, 9])
def test_killed_inside_a_stage_it_ends_in_the_same_bits(
    config: recipe.TrainConfig, whole: Outcome, tmp_path: Path, step: int
):
    with crash(Backprop, after=step):
        protocols.follow(SPEC, config, out=tmp_path / "stages", bounds=False)
    assert_same(protocols.follow(SPEC, config, out=tmp_path / "stages", bounds=False), whole)


@pytest.mark.parametrize("where", ["memory", "record", "measure", "state"])
@pytest.mark.parametrize("stage", [0, 1])
def test_killed_between_stages_it_ends_in_the_same_bits(
    config: recipe.TrainConfig, whole: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, stage: int
):
    names = {"memory": (Memory, "save"), "record": (_follow, "write_json"), "measure": (_follow, "_measured")}
    owner, name = names.get(where, (_follow, "last_state"))
    original, calls = getattr(owner, name), []

    def crash(*args, **kwargs):
        # What is written first says what the stages are.
        if where != "record" or args[0].name != "stages.json":
            calls.append(1)
        if len(calls) > stage:
            raise Stop
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, crash)
        with pytest.raises(Stop):
            protocols.follow(SPEC, config, out=tmp_path / "stages", bounds=False)
    assert_same(protocols.follow(SPEC, config, out=tmp_path / "stages", bounds=False), whole)


def test_called_again_it_trains_nothing(config: recipe.TrainConfig, whole: Outcome, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args, **kwargs):
        raise AssertionError

    monkeypatch.setattr(Backprop, "step", refuse)
    again = protocols.follow(SPEC, config, out=whole.path.parent)
    assert_same(again, whole)
    assert again.metrics == whole.metrics


def test_nothing_of_earlier_stages_is_read_but_the_memory(
    config: recipe.TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Everything that a loader reads while training belongs to the stage, or to the memory, which is in its budget."""
    splits = recipe.load_splits(config)
    label_of = {int(key): int(label) for key, label in zip(splits.train.keys, splits.train.labels, strict=True)}
    per_stage: list[dict[str, set[int]]] = []
    original = Loader.__init__

    def init(self, samples, *args, **kwargs):
        original(self, samples, *args, **kwargs)
        keys = set(map(int, samples.keys))
        if keys <= label_of.keys() and kwargs.get("shuffle", True):
            sources = kwargs.get("streams") or {}
            memory = sources["replay"].samples if "replay" in sources else None
            per_stage.append({"main": keys, "replay": set() if memory is None else set(map(int, memory.keys))})

    monkeypatch.setattr(Loader, "__init__", init)
    protocols.follow(SPEC, config, splits, out=tmp_path / "stages", bounds=False)
    # The first two rehearse the growth of the head.
    trained = [each for each in per_stage if each["main"]][-3:]
    earlier: set[int] = set()
    for stage in trained:
        assert len({label_of[key] for key in stage["main"]}) == 1
        assert len(stage["replay"]) <= 24
        assert stage["replay"] <= earlier
        assert not stage["main"] & earlier
        earlier |= stage["main"]


def test_domains_are_followed_with_a_head_of_one_width(tmp_path: Path):
    config = recipe.make_config(
        data="shapes:count=240",
        size=16,
        backbone="convnet:width=4,depth=2",
        epochs=1,
        method="replay",
        device="cpu",
    )
    spec = "domains:factor=background,memory=20KB,keep=herding"
    outcome = protocols.follow(spec, config, out=tmp_path / "stages", bounds=False)
    assert np.isfinite(outcome.matrix).all()
    assert outcome.within is None
    assert "zero_shot" in outcome.metrics
    assert 0 < outcome.metrics["memory_bytes"] <= 20_000


def test_a_method_without_a_memory_and_one_with_a_teacher(config: recipe.TrainConfig, tmp_path: Path):
    plain = config.model_copy(update={"method": "supervised", "ema": None, "tune": "auto"})
    outcome = protocols.follow(SPEC, plain, out=tmp_path / "stages", bounds=False)
    assert outcome.metrics["memory_bytes"] == 0
    assert not list(outcome.path.glob("*-memory.npz"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"head": "legendre"}, "cannot grow"),
        ({"head": "simplex:slots=2"}, "2 slots"),
    ],
)
def test_what_cannot_go_through_the_stages_is_refused_before_the_first(
    config: recipe.TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict, words: str
):
    monkeypatch.setattr(Backprop, "step", None)
    spec = "classes:step=1,first=2"
    with pytest.raises((ConfigError, DataError), match=words):
        protocols.follow(spec, config.model_copy(update=changes), out=tmp_path / "stages")


def test_a_loss_with_outputs_beside_the_classes_is_refused(
    config: recipe.TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(CrossEntropy, "width", lambda self, outputs: outputs + 1)
    with pytest.raises(ConfigError, match="'cross-entropy' has 4 outputs for 3 classes"):
        protocols.follow(SPEC, config, out=tmp_path / "stages")


def test_bad_places(config: recipe.TrainConfig, whole: Outcome, tmp_path: Path):
    with pytest.raises(RunError, match="holds something else"):
        protocols.follow(SPEC, config, out=whole.path / "00")
    with pytest.raises(RunError, match="not a run"):
        last_state(tmp_path)
    with pytest.raises(DataError, match="smaller step"):
        protocols.follow("classes:step=3", config, out=tmp_path)


def test_a_memory_that_is_gone_is_no_empty_one(
    config: recipe.TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setattr(_follow, "last_state", lambda path: (_ for _ in ()).throw(Stop))
        with pytest.raises(Stop):
            protocols.follow(SPEC, config, out=tmp_path / "stages")
    (kept,) = (tmp_path / "stages").glob("*/00-memory.npz")
    kept.write_bytes(b"")
    with pytest.raises(CheckpointError, match="damaged"):
        protocols.follow(SPEC, config, out=tmp_path / "stages")
    kept.unlink()
    with pytest.raises(RunError, match="the memory of stage 1 is gone"):
        protocols.follow(SPEC, config, out=tmp_path / "stages")


def test_the_outcome_as_text(whole: Outcome):
    text = str(whole)
    assert text.count("\n") > 10
    for words in ("stage 1: ", "forgetting: ", "everything at once: ", " - "):
        assert words in text


class Counting(Method):
    """Keeps the network of the stage before, and counts what it is told."""

    needs = Needs(labels="required", targets=frozenset({"classes"}))

    def __init__(self, model: Classifier, loss: Loss) -> None:
        super().__init__()
        self.model, self.loss = model, loss
        self.register_buffer("ends", torch.zeros(()))
        self.register_buffer("per_class", torch.zeros(model.head.num_classes))
        self.register_buffer("means", torch.zeros(model.normalize.mean.numel()))
        self.told: list[tuple] = []

    def begin(self, stage: Stage) -> None:
        self.told.append(("begin", stage))
        self.means = torch.cat([batch.images for batch in stage.batches()]).mean((0, 2, 3))
        if stage.index:
            self.old = copy.deepcopy(self.model).requires_grad_(False)

    def end(self, stage: Stage) -> None:
        self.ends += 1
        labels = torch.cat([batch.targets for batch in stage.batches()])
        assert len(labels) == stage.samples
        assert set(labels.tolist()) == set(stage.new)
        index = torch.cat([batch.index for batch in stage.batches()])
        assert index.tolist() == list(range(stage.samples)), "once over, in order"
        self.per_class[list(stage.new)] += 1 + stage.index

    def objective(self, features: torch.Tensor, batch: Batch) -> Step:
        loss = self.loss(self.model.head(features), batch.targets)
        return Step(loss, {"loss": loss.detach()})


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(
        registry._REGISTRY["methods"], "counting", registry.Entry("methods", "counting", Counting, None)
    )


@pytest.mark.parametrize("crash", ["", "end", "finish"])
def test_a_method_is_told_of_stages_and_what_it_keeps_goes_on(
    counting: None, config: recipe.TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash: str
):
    own = config.model_copy(update={"method": "counting"})
    where = {"end": "repertoire.train:Loop._save_best", "finish": "repertoire.train._session:_finish"}.get(crash)
    if where is not None:
        original, calls = resolve_name(where), []

        def stop(*args, **kwargs):
            ended = args[0].progress.ended if crash == "end" else True
            calls.extend([1] if ended else [])
            if len(calls) == 2:
                raise Stop
            return original(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(where.replace(":", "."), stop)
            with pytest.raises(Stop):
                protocols.follow(SPEC, own, out=tmp_path / "stages", bounds=False)
    outcome = protocols.follow(SPEC, own, out=tmp_path / "stages", bounds=False)
    states = [last_state(outcome.path / f"{t:02d}") for t in range(3)]
    assert [float(state["ends"]) for state in states] == [1, 2, 3]
    assert [state["per_class"].tolist() for state in states] == [[1], [1, 2], [1, 2, 3]]
    assert not any(name.startswith("old.") for name in states[0])
    # What the images of each stage are like, unchanged, whatever the augmentation does.
    for t, stage in enumerate(registry.build("protocols", SPEC).stages(recipe.load_splits(config), config.seed)):
        expected = stage.train.inputs(slice(None)).mean((0, 1, 2)) / 255
        np.testing.assert_allclose(states[t]["means"].numpy(), expected, rtol=1e-4)
    for t in (1, 2):
        before = states[t - 1]["model.backbone.blocks.0.conv.weight"]
        assert torch.equal(states[t]["old.backbone.blocks.0.conv.weight"], before)
        assert not torch.equal(states[t]["model.backbone.blocks.0.conv.weight"], before)


def test_features_that_are_learned_without_labels_are_measured_by_their_neighbours(options: dict, tmp_path: Path):
    """Each measured value again, from the last network of its stage, by a slow count of votes."""
    config = recipe.make_config(**{**options, "epochs": 1, "method": "simclr"})
    splits = recipe.load_splits(config)
    outcome = protocols.follow("classes:step=2,first=1", config, out=tmp_path / "stages")
    assert outcome.matrix[0, 0] == 1  # of one class there is nothing to tell
    assert {"finetune", "joint"} <= outcome.metrics.keys()
    assert outcome.metrics["finetune"] == outcome.metrics["accuracy"], "of SimCLR, the bound below is itself"
    stages = list(protocols.ClassIncremental(step=2, first=1).stages(splits, config.seed))
    model = load(outcome.path / "01").model.eval()
    state = last_state(outcome.path / "01")
    model.load_state_dict({k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")})

    def unit(samples):
        z = outputs(model, samples).embeddings.astype(np.float64)
        return z / np.linalg.norm(z, axis=1, keepdims=True)

    bank = np.concatenate([unit(stage.train) for stage in stages])
    labels = np.concatenate([stage.train.labels for stage in stages])
    for i, samples in enumerate(stages[-1].evaluate.values()):
        right = []
        for z, truth in zip(unit(samples), samples.labels, strict=True):
            near = np.argsort(-bank @ z)[:20]
            votes = np.bincount(labels[near], np.exp(bank[near] @ z / 0.07), minlength=3)
            right.append(votes.argmax() == truth)
        assert outcome.matrix[1, i] == pytest.approx(np.mean(right), abs=0.02)
        assert outcome.within[1, i] >= outcome.matrix[1, i]
