"""Self-training: what is chosen of a pool, what each phase learns, and that it goes on wherever it was stopped."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import repertoire
from repertoire.data import load, load_feature_set
from repertoire.errors import ConfigError, DataError, RunError, UnknownName
from repertoire.report import write_self_training
from repertoire.train import SelfTraining, fit, self_train

OPTIONS = {"epochs": 6, "batch_size": 16, "device": "cpu"}


def vectors(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three classes whose centres are apart, with much noise around them."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    return (2.2 * np.eye(3, 8)[labels] + generator.normal(size=(count, 8))).astype(np.float32), labels


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("files")
    rows, labels = vectors(240, 0)
    np.savez(root / "few.npz", features=rows, labels=labels, classes=["a", "b", "c"])
    np.savez(root / "pool.npz", features=vectors(300, 1)[0])
    return root


@pytest.fixture(scope="module")
def teacher(files: Path) -> repertoire.train.Run:
    return fit(files / "few.npz", out=files / "teacher", labels=4, epochs=30, device="cpu")


@pytest.fixture(scope="module")
def done(files: Path, teacher: repertoire.train.Run) -> SelfTraining:
    return self_train(teacher.path, files / "pool.npz", top=30, most=1, out=files / "done", **OPTIONS)


def state(run: repertoire.train.Run) -> dict[str, torch.Tensor]:
    return repertoire.train.last_state(run.path)


def test_each_class_takes_what_the_teacher_scores_highest_for_it(done: SelfTraining, files: Path):
    pool = load_feature_set(files / "pool.npz")
    scores = done.teacher.predict(pool)
    rows = list(csv.DictReader((done.path / "chosen.csv").open()))
    assert len(rows) == 90
    for number, name in enumerate("abc"):
        best = scores.argmax(1) == number
        order = [i for i in np.argsort(-scores[:, number], kind="stable") if best[i]][:30]
        assert [int(row["vector"]) for row in rows if row["class"] == name] == order
    assert [row["taken"] for row in done.summary["classes"]] == [30, 30, 30]
    assert done.summary["chosen"] == {"samples": 90, "several": 0, "pairs": 90}


def test_the_student_learns_the_choice_first_and_ends_with_labels_alone(done: SelfTraining, files: Path):
    assert done.pretrained.info["counts"]["train"] == [30, 30, 30]
    assert done.run.config.start == str((done.path / "pretrain").resolve())
    assert done.run.info["start"]["head"] == "3 of 3 classes taken over"
    built = repertoire.recipe.build(done.run.config, done.run.splits)
    assert built.splits.train.counts().tolist() == [4, 4, 4]
    kept = repertoire.recipe.build(done.teacher.config, done.teacher.splits).splits.train
    assert sorted(built.splits.train.keys) == sorted(kept.keys)


def test_the_labels_alone_get_as_many_steps_and_looks(done: SelfTraining):
    assert done.labels_alone is not None
    steps, epochs = (sum(run.info[k] for run in (done.pretrained, done.run)) for k in ("steps", "epochs"))
    assert done.labels_alone.info["epochs"] == epochs
    assert 0 <= done.labels_alone.info["steps"] - steps < epochs
    counts = done.labels_alone.info["counts"]["train"]
    assert max(counts) - min(counts) <= max(counts) / 2
    assert done.labels_alone.config.start is None
    assert done.labels_alone.config.augment == done.pretrained.config.augment


def test_all_are_tested_on_the_same_samples_in_pairs(done: SelfTraining):
    test = load(done.teacher.config.data).test
    right = {}
    for name, run in (("student", done.run), ("labels alone", done.labels_alone), ("teacher", done.teacher)):
        right[name] = (run.predict(test).argmax(1) == test.labels).astype(float)
    for row in done.summary["differences"]:
        values = right["student"] - right[row["from"]]
        assert row["difference"] == pytest.approx(values.mean())
        half = 2.01 * values.std(ddof=1) / np.sqrt(len(values))
        assert row["interval"][1] - row["difference"] == pytest.approx(half, rel=0.01, abs=1e-12)
    said = str(done)
    assert "Each of 3 classes took 30 vectors of a pool of 300: 90 different ones." in said
    assert "Against the labels alone for as many steps: " in said


def test_a_finished_one_is_given_back_and_opened(done: SelfTraining, files: Path):
    before = (done.path / "finetune" / "run.json").stat().st_mtime_ns
    again = self_train(done.teacher, files / "pool.npz", top=30, most=1, out=done.path, **OPTIONS)
    assert again.summary == done.summary
    assert (done.path / "finetune" / "run.json").stat().st_mtime_ns == before
    assert SelfTraining.read(done.path).summary == done.summary
    page = write_self_training(done).read_text(encoding="utf-8")
    for words in ("Did the pool help?", "labels alone", "What each class took", ".bar.full"):
        assert words in page


@pytest.mark.parametrize("phase", ["pretrain", "finetune", "labels-alone"])
def test_what_was_cut_in_any_phase_ends_in_the_same_weights(
    done: SelfTraining, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str
):
    class Stopped(Exception):
        pass

    original = repertoire.train.Loop._finish_epoch

    def stop(self: repertoire.train.Loop, *args: object) -> None:
        original(self, *args)
        if self.directory is not None and self.directory.path.name == phase and self.progress.epoch == 2:
            raise Stopped

    options = {"top": 30, "most": 1, "out": tmp_path / "cut", **OPTIONS}
    with monkeypatch.context() as patch:
        patch.setattr(repertoire.train.Loop, "_finish_epoch", stop)
        with pytest.raises(Stopped):
            self_train(done.teacher, files / "pool.npz", **options)
    with pytest.raises(RunError, match="not finished"):
        SelfTraining.read(tmp_path / "cut")
    again = self_train(done.teacher, files / "pool.npz", **options)
    for ours, theirs in ((again.pretrained, done.pretrained), (again.run, done.run)):
        for name, value in state(theirs).items():
            assert torch.equal(state(ours)[name], value), name
    assert again.summary["differences"] == done.summary["differences"]


def test_copies_of_labelled_and_test_samples_are_left_out(files: Path, teacher: repertoire.train.Run, tmp_path: Path):
    splits = load(files / "few.npz")
    held = np.concatenate([splits.test.inputs(slice(None)), splits.val.inputs(slice(None)), vectors(60, 5)[0]])
    np.savez(tmp_path / "pool.npz", features=held)
    options = {"top": 10, "labels_alone": False, **OPTIONS}
    found = self_train(teacher, tmp_path / "pool.npz", out=tmp_path / "a", **options)
    assert found.summary["pool"]["scored"] == 60
    names = [int(row["vector"]) for row in csv.DictReader((tmp_path / "a" / "chosen.csv").open())]
    assert min(names) >= len(splits.test) + len(splits.val)
    assert found.labels_alone is None
    assert "are copies of labelled, validation or test vectors" in str(found)


def test_a_larger_teacher_and_a_small_student(files: Path, tmp_path: Path):
    large = fit(files / "few.npz", out=tmp_path / "t", labels=4, epochs=3, backbone="mlp:hidden=16", device="cpu")
    options = {"top": 20, "labels_alone": False, "finetune_epochs": 2, "finetune_lr": 0.001, **OPTIONS}
    found = self_train(large, files / "pool.npz", out=tmp_path / "a", backbone="mlp:hidden=4", **options)
    assert found.run.config.backbone == found.pretrained.config.backbone == "mlp:hidden=4"
    assert (found.run.config.epochs, found.run.config.lr) == (2, 0.001)
    assert found.run.info["start"]["weights"]["matched"] == found.run.info["start"]["weights"]["total"]


def test_images_from_a_folder(tiny: Path, tmp_path: Path):
    from PIL import Image

    first = fit(tiny, out=tmp_path / "t", labels=6, epochs=2, backbone="convnet:width=4,depth=2", device="cpu")
    more = tmp_path / "more" / "below"
    more.mkdir(parents=True)
    for i, pixels in enumerate(np.random.default_rng(3).integers(0, 255, (30, 8, 8), dtype=np.uint8)):
        Image.fromarray(pixels).save(more / f"{i}.png")
    found = self_train(first, tmp_path / "more", top=5, out=tmp_path / "a", epochs=1, device="cpu")
    assert found.summary["pool"]["scored"] == 30
    assert found.run.config.augment == first.config.augment
    assert found.run.predict(str(more / "0.png")).shape == (1, 3)


def test_what_is_refused_before_anything_is_written(files: Path, teacher: repertoire.train.Run, tmp_path: Path):
    pool = files / "pool.npz"
    out = tmp_path / "a"
    for fields, error, message in (
        ({"top": 300}, DataError, r"every class takes 300 vectors of the pool, which has 300.*top=30"),
        ({"top": 0}, ConfigError, "top is 0"),
        ({"seed": 3}, ConfigError, "seed is the teacher's"),
        ({"epoch": 3}, UnknownName, "epochs"),
        ({"method": "fixmatch"}, ConfigError, "a student learns from samples with a class each"),
        ({"backbone": "resnet20"}, ConfigError, "looks at images"),
    ):
        with pytest.raises(error, match=message):
            self_train(teacher, pool, out=out, **{**OPTIONS, "top": 20, **fields})
    assert not out.exists() or not any(p.is_dir() for p in out.iterdir())
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty and holds no self-training"):
        self_train(teacher, pool, top=20, out=tmp_path, **OPTIONS)


def test_another_question_or_another_pool_is_refused(done: SelfTraining, files: Path, tmp_path: Path):
    with pytest.raises(RunError, match="top was 30, is 31"):
        self_train(done.teacher, files / "pool.npz", top=31, most=1, out=done.path, **OPTIONS)
    with pytest.raises(RunError, match="epochs was 6, is 7"):
        self_train(done.teacher, files / "pool.npz", top=30, most=1, out=done.path, **{**OPTIONS, "epochs": 7})
    copied = tmp_path / "copied"
    shutil.copytree(done.path, copied)
    shutil.rmtree(copied / "pretrain")
    np.savez(tmp_path / "pool.npz", features=vectors(300, 9)[0])
    manifest = json.loads((copied / "self-train.json").read_text())
    (copied / "self-train.json").write_text(json.dumps({**manifest, "pool": str((tmp_path / "pool.npz").resolve())}))
    with pytest.raises(RunError, match="the pool changed since"):
        self_train(done.teacher, tmp_path / "pool.npz", top=30, most=1, out=copied, **OPTIONS)


def test_a_teacher_of_numbers_cannot_choose(files: Path, tmp_path: Path):
    rows, labels = vectors(60, 0)
    np.savez(tmp_path / "n.npz", features=rows, labels=labels.astype(np.float32))
    run = fit(tmp_path / "n.npz", out=tmp_path / "t", epochs=1, device="cpu")
    with pytest.raises(RunError, match="does not tell classes apart: it learned number"):
        self_train(run, files / "pool.npz", out=tmp_path / "a")
