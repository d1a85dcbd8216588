from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from repertoire import load, protocols
from repertoire.errors import ConfigError, DataError, RunError
from repertoire.protocols import Continued, add_stage
from repertoire.rules import Backprop
from repertoire.train import Run, fit, last_state
from stopping import crash

NEW = {"epochs": 5, "batch_size": 16, "lr": 0.05}


def bands(path: Path, classes: tuple[str, ...], count: int = 80, seed: int = 0) -> Path:
    """Grey images of 8 pixels with a bright band at a place that the class says."""
    places = {"top": 0, "middle": 2, "bottom": 4, "lowest": 6}
    generator = np.random.default_rng(seed)
    labels = np.arange(count * len(classes)) % len(classes)
    images = generator.integers(0, 160, (len(labels), 8, 8, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[places[classes[label]] : places[classes[label]] + 2] += 90
    np.savez(path, images=images, labels=labels, classes=np.array(classes))
    return path


@pytest.fixture(scope="module")
def first(options: dict, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("first")
    data = bands(folder / "old.npz", ("top", "middle"))
    return fit(**{**options, "data": str(data), "ema": 0.5}, out=folder / "a")


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bands(tmp_path_factory.mktemp("more") / "more.npz", ("bottom", "top"), seed=1)


@pytest.fixture(scope="module")
def second(first: Run, more: Path) -> Continued:
    return add_stage(first, more, memory=24, out=first.path.parent / "b", **NEW)


def content(path: Path) -> dict[str, torch.Tensor]:
    with np.load(path / "stages" / "memory.npz") as memory:
        kept = {"memory": torch.from_numpy(memory["images"]), "labels": torch.from_numpy(memory["labels"])}
    return {**last_state(path), **kept, **{f"best/{n}": v for n, v in load(path).model.state_dict().items()}}


def test_the_new_run_knows_old_classes_and_new_ones(first: Run, second: Continued):
    assert second.run.classes == ("top", "middle", "bottom"), "the old ones first, in their order"
    assert first.classes == ("top", "middle"), "what was there stays"
    assert second.outcome.names == ("old", "more")
    assert second.outcome.matrix[0, 0] == pytest.approx(load(first.path).metrics["accuracy"])
    assert np.isnan(second.outcome.matrix[0, 1])
    assert second.outcome.matrix[1].min() > 0.6
    assert second.notes == ()
    # What the new run says of itself is about the test samples of both.
    assert second.run.metrics["images"] == len(load(first.path).splits.test) + 32


def test_what_is_replayed_is_what_may_be_kept(second: Continued):
    with np.load(second.run.path / "stages" / "memory.npz") as memory:
        assert len(memory["labels"]) == 24
        assert memory["classes"].tolist() == ["top", "middle", "bottom"]
        assert set(memory["labels"].tolist()) == {0, 1, 2}
    assert second.outcome.metrics["memory_bytes"] == 24 * (64 + 8)
    assert second.outcome.metrics["state_bytes"] == 0, "replay keeps nothing beside its network"


@pytest.mark.parametrize("step", [0, 3, 23])
def test_killed_it_ends_in_the_same_bits(first: Run, second: Continued, more: Path, tmp_path: Path, step: int):
    with crash(Backprop, after=step):
        add_stage(first, more, memory=24, out=tmp_path / "b", save_every=2, **NEW)
    found = add_stage(first, more, memory=24, out=tmp_path / "b", save_every=2, **NEW)
    np.testing.assert_array_equal(found.outcome.matrix, second.outcome.matrix)
    one, two = content(found.run.path), content(second.run.path)
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name


def test_killed_before_the_memory_is_written_it_ends_in_the_same_bits(
    first: Run, second: Continued, more: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setattr(protocols.Memory, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            add_stage(first, more, memory=24, out=tmp_path / "b", **NEW)
    found = add_stage(first, more, memory=24, out=tmp_path / "b", **NEW)
    one, two = content(found.run.path), content(second.run.path)
    assert all(torch.equal(one[name], two[name]) for name in two)


def test_a_third_stage_goes_on_from_what_the_second_kept(second: Continued, tmp_path: Path):
    data = bands(tmp_path / "third.npz", ("lowest",), seed=2)
    found = add_stage(second.run.path, data, memory=12, out=tmp_path / "c", **NEW)
    assert found.run.classes == ("top", "middle", "bottom", "lowest")
    assert found.outcome.names == ("old", "more", "third")
    assert found.outcome.matrix.shape == (3, 3)
    np.testing.assert_array_equal(found.outcome.matrix[1, :2], second.outcome.matrix[1])
    with np.load(tmp_path / "c" / "stages" / "memory.npz") as memory:
        assert len(memory["labels"]) == 12, "a smaller budget than before"


def test_without_a_memory_the_old_classes_are_forgotten(first: Run, tmp_path: Path):
    data = bands(tmp_path / "new.npz", ("bottom", "lowest"), seed=3)
    plain, replayed = (
        add_stage(first, data, by=by, memory=40, out=tmp_path / by, **{**NEW, "epochs": 10})
        for by in ("supervised", "replay")
    )
    assert plain.outcome.metrics["memory_bytes"] == 0
    assert not (tmp_path / "supervised" / "stages" / "memory.npz").exists()
    assert plain.outcome.metrics["forgetting"] > replayed.outcome.metrics["forgetting"] + 0.2


def test_where_old_data_is_gone_it_says_so_and_goes_on(options: dict, more: Path, tmp_path: Path):
    data = bands(tmp_path / "gone.npz", ("top", "middle"))
    run = fit(**{**options, "data": str(data)}, out=tmp_path / "a")
    data.unlink()
    found = add_stage(run.path, more, out=tmp_path / "b", **NEW)
    assert found.outcome.names == ("more",)
    assert len(found.notes) == 2
    assert "Nothing of gone is replayed" in found.notes[0]
    assert "Bring it back and begin again, overwrite=True; or add" in found.notes[0], "a way out"
    assert "gone is not measured" in found.notes[1]
    assert len(found.run.classes) == 3


def test_what_a_method_without_memory_left_is_taken_from_the_data(first: Run, more: Path, tmp_path: Path):
    own = {**NEW, "epochs": 1}
    data = bands(tmp_path / "third.npz", ("lowest",), seed=2)
    plain = add_stage(first, more, by="supervised", out=tmp_path / "b", **own)
    found = add_stage(plain.run, data, memory=40, out=tmp_path / "c", **own)
    assert found.notes == ()
    with np.load(tmp_path / "c" / "stages" / "memory.npz") as memory:
        assert set(memory["labels"].tolist()) == {0, 1, 2, 3}, "of all three stages"
    held = add_stage(plain.run, data, by="ewc", out=tmp_path / "d", **own)
    assert held.notes == ()
    assert last_state(tmp_path / "d")["precision.head__linear__weight"][:3].any(1).all(), "classes of both stages count"
    more.rename(tmp_path / "elsewhere.npz")
    try:
        (missing, *_) = add_stage(plain.run, data, memory=40, out=tmp_path / "e", **own).notes
    finally:
        (tmp_path / "elsewhere.npz").rename(more)
    assert missing.startswith("Nothing of more is replayed")
    assert missing.endswith("or add a stage of other samples of its classes.")


def test_a_note_that_was_shown_when_training_began_is_not_told_again(
    options: dict, more: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    data = bands(tmp_path / "gone.npz", ("top", "middle"))
    run = fit(**{**options, "data": str(data)}, out=tmp_path / "a")
    data.unlink()
    found = add_stage(run.path, more, out=tmp_path / "b", quiet=False, **{**NEW, "epochs": 1})
    assert found.notes == ()
    assert capfd.readouterr().err.count("Nothing of gone is replayed") == 1


def test_the_record_says_how_long_each_stage_took(second: Continued):
    took = json.loads((second.run.path / "stages" / "stages.json").read_text())["seconds"]
    assert took.keys() == {"old", "more"}
    assert all(seconds > 0 for seconds in took.values())


def test_another_command_does_not_go_on_with_what_lies_there(first: Run, second: Continued, more: Path):
    with pytest.raises(RunError, match="holds another run"):
        add_stage(first, more, memory=25, out=second.run.path, **NEW)
    with pytest.raises(RunError, match="stays as it is"):
        add_stage(first, more, out=first.path, **NEW)


def test_it_is_refused_before_anything_is_trained(first: Run, more: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="backbone"):
        add_stage(first, more, out=tmp_path / "b", backbone="resnet20")
    with pytest.raises(ConfigError, match="amount"):
        add_stage(first, more, out=tmp_path / "b", memory="lots")
    features = tmp_path / "features.npz"
    np.savez(features, features=np.zeros((40, 5), np.float32), labels=np.arange(40) % 2, classes=np.array(["a", "b"]))
    with pytest.raises(DataError, match="features"):
        add_stage(first, features, out=tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_memory_may_be_chosen_in_another_way_than_before(second: Continued, tmp_path: Path):
    data = bands(tmp_path / "third.npz", ("lowest",), seed=2)
    third = add_stage(second.run.path, data, memory=20, keep="herding", out=tmp_path / "c", **{**NEW, "epochs": 1})
    with np.load(tmp_path / "c" / "stages" / "memory.npz") as memory:
        assert np.bincount(memory["labels"]).tolist() == [5, 5, 5, 5]
    again = bands(tmp_path / "fourth.npz", ("lowest", "top"), seed=4)
    for keep in ("reservoir", "typical"):
        fourth = add_stage(third.run.path, again, memory=12, keep=keep, out=tmp_path / keep, **{**NEW, "epochs": 1})
        assert fourth.outcome.metrics["memory_bytes"] == 12 * (64 + 8)


def test_samples_that_are_known_already_are_kept_apart(first: Run, tmp_path: Path):
    """A copy of what earlier stages are tested on is not trained on, and one of what they learned is not tested on."""
    old = load(first.path).splits
    with np.load(bands(tmp_path / "fresh.npz", ("bottom",), count=60, seed=5)) as file:
        images = [file["images"], old.test.inputs(slice(None)), old.train.inputs(slice(None))]
    names = np.array([*["bottom"] * 60, *np.array(old.classes)[np.r_[old.test.labels, old.train.labels]]])
    classes, labels = np.unique(names, return_inverse=True)
    np.savez(tmp_path / "new.npz", images=np.concatenate(images), labels=labels, classes=classes)
    # Of the same seed, a copy of a test sample would be drawn for the test again.
    found = add_stage(first, tmp_path / "new.npz", seed=0, out=tmp_path / "b", **{**NEW, "epochs": 1})
    splits = found.run.splits
    assert not np.isin(splits.train.keys, old.test.keys).any()
    assert not np.isin(splits.val.keys, old.test.keys).any()
    assert not np.isin(splits.test.keys, old.train.keys).any()
    assert any("training samples are test samples of an earlier stage" in note for note in found.notes)
    assert any("test samples were trained on in an earlier stage" in note for note in found.notes)
    assert set(found.notes) <= set(found.run.info["notes"]), "the report of the run says so too"


def test_names_of_classes_are_compared_with_those_of_the_run(first: Run, tmp_path: Path):
    with np.load(bands(tmp_path / "new.npz", ("top", "lowest"), seed=6)) as file:
        content = dict(file)
    np.savez(tmp_path / "case.npz", **{**content, "classes": np.array(["Top", "lowest"])})
    found = add_stage(first, tmp_path / "case.npz", by="supervised", out=tmp_path / "b", **{**NEW, "epochs": 1})
    assert found.run.classes == ("top", "middle", "Top", "lowest")
    assert any("differ in case only" in note for note in found.notes)
    np.savez(tmp_path / "space.npz", **{**content, "classes": np.array(["top ", "lowest"])})
    with pytest.raises(DataError, match="differ in spaces"):
        add_stage(first, tmp_path / "space.npz", out=tmp_path / "c")


def test_what_is_replaced_leaves_no_memory_behind(first: Run, second: Continued, more: Path, tmp_path: Path):
    place, few = tmp_path / "b", {**NEW, "epochs": 1}
    add_stage(first, more, memory=24, out=place, **few)
    with pytest.raises(ConfigError, match="stays: name another by"):
        add_stage(first, more, by="icarl", out=place, overwrite=True, **few)
    assert load(place).classes == second.run.classes, "what is refused takes nothing away"
    add_stage(first, more, by="supervised", out=place, overwrite=True, **few)
    assert not (place / "stages" / "memory.npz").exists()
    assert (place / "stages" / "stages.json").exists()


def test_the_weights_and_not_the_place_say_which_run_it_was(options: dict, first: Run, more: Path, tmp_path: Path):
    few = {**NEW, "epochs": 1}
    old = str(first.config.data)
    run = fit(**{**options, "data": old}, out=tmp_path / "a")
    found = add_stage(run.path, more, out=tmp_path / "b", **few)
    run.path.rename(tmp_path / "elsewhere")
    again = add_stage(tmp_path / "elsewhere", more, out=tmp_path / "b", **few)
    np.testing.assert_array_equal(again.outcome.matrix, found.outcome.matrix)
    fit(**{**options, "data": old, "seed": 1}, out=tmp_path / "a")
    with pytest.raises(RunError, match="holds another run"):
        add_stage(tmp_path / "a", more, out=tmp_path / "b", **few)


def test_a_damaged_record_is_named(second: Continued, more: Path, tmp_path: Path):
    file = second.run.path / "stages" / "stages.json"
    whole = file.read_text()
    try:
        file.write_text(json.dumps({"rows": {}}))
        with pytest.raises(RunError, match=r"stages\.json is damaged"):
            add_stage(second.run.path, more, out=tmp_path / "c")
    finally:
        file.write_text(whole)


def test_features_go_on_as_images_do(options: dict, tmp_path: Path):
    generator = np.random.default_rng(0)

    def rows(name: str, classes: list[str]) -> Path:
        labels = np.arange(120) % len(classes)
        centres = {"a": 0, "b": 1, "c": 2}
        places = np.array([centres[c] for c in classes])[labels]
        features = 3 * np.eye(4, dtype=np.float32)[places] + generator.normal(size=(120, 4)).astype(np.float32) / 4
        np.savez(tmp_path / name, features=features, labels=labels, classes=np.array(classes))
        return tmp_path / name

    run = fit(str(rows("one.npz", ["a", "b"])), epochs=5, out=tmp_path / "a")
    found = add_stage(run, rows("two.npz", ["c"]), memory="1kB", out=tmp_path / "b", epochs=5)
    assert found.run.classes == ("a", "b", "c")
    assert found.outcome.metrics["memory_bytes"] <= 1000
    assert found.outcome.matrix[1].min() > 0.8


def test_a_method_looks_back_at_a_run_that_another_one_trained(first: Run, tmp_path: Path):
    """No run of supervised training holds what matters to the classes that it knows: a pass over them says it."""
    data = bands(tmp_path / "new.npz", ("bottom", "lowest"), seed=3)
    own = {**NEW, "epochs": 8}
    plain = add_stage(first, data, by="supervised", out=tmp_path / "plain", **own)
    held = add_stage(first, data, by="ewc:strength=1000", out=tmp_path / "ewc", **own)
    assert held.notes == ()
    assert any(value.any() for name, value in last_state(tmp_path / "ewc").items() if name.startswith("precision."))
    assert held.outcome.metrics["state_bytes"] > 0
    assert held.outcome.within[1, 0] >= plain.outcome.within[1, 0]
    moved = [
        sum(
            float((value - last_state(first.path)[name]).square().sum())
            for name, value in last_state(run.run.path).items()
            if name.startswith("model.backbone") and value.is_floating_point() and name.endswith("weight")
        )
        for run in (plain, held)
    ]
    assert moved[1] < 0.5 * moved[0], "weights that matter stay where they are"
