"""A run as an estimator: images in any form, answers in order, one run or several."""

from __future__ import annotations

import csv
import json
import shutil
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import repertoire
from repertoire import train
from repertoire.errors import (
    ConfigError,
    DataError,
    RepertoireWarning,
    RunError,
    ShapeError,
    UnknownName,
    UnreadableImages,
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of RGB images of mixed sizes: reddish and bluish."""
    root = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for k, name in enumerate(["red", "blue"]):
        (root / name).mkdir()
        for i in range(30):
            height, width = generator.integers(14, 40, 2)
            pixels = generator.integers(0, 110, (height, width, 3), dtype=np.uint8)
            pixels[..., 2 * k] += 100
            Image.fromarray(pixels).save(root / name / f"{i:02}.png")
    return root


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> train.Run:
    out = tmp_path_factory.mktemp("runs") / "a"
    return repertoire.fit(
        photos, out=out, size=16, backbone="convnet:width=8,depth=2", epochs=3, batch_size=16, lr=0.05, device="cpu",
        augment="crop-flip", tune="all",
    )  # fmt: skip


@pytest.fixture(scope="module")
def paths(photos: Path) -> list[Path]:
    return sorted(photos.rglob("*.png"))


def test_top_level_names_open_and_make_runs(run: train.Run):
    assert repertoire.load(run.path).metrics == run.metrics
    assert repertoire.fit is train.fit


def test_every_door_leads_to_the_same_answers(run: train.Run, photos: Path, paths: list[Path]):
    expected = run.predict(paths)
    assert expected.shape == (60, 2)
    np.testing.assert_allclose(expected.sum(1), 1)
    doors = {
        "folder": photos,
        "pattern": str(photos / "*" / "*.png"),
        "bytes": [path.read_bytes() for path in paths],
        "pil": [Image.open(path) for path in paths],
        "arrays": [np.asarray(Image.open(path)) for path in paths],
        "generator": (path for path in paths),
        "small batches": None,
    }
    for name, images in doors.items():
        found = run.predict(paths, batch_size=7) if images is None else run.predict(images)
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=name)
    with open(paths[0], "rb") as file:
        np.testing.assert_allclose(run.predict(file), expected[:1], atol=1e-5)
    np.testing.assert_allclose(run.predict(paths[0]), expected[:1], atol=1e-5)
    assert run.predict_classes(paths[:1]) == [run.classes[expected[0].argmax()]]
    np.testing.assert_array_equal(run.predict_proba(paths), expected)
    assert run.predict([]).shape == (0, 2)
    assert run.embed([]).shape == (0, 16)


def test_a_stream_gives_what_predict_gathers(run: train.Run, paths: list[Path]):
    parts = list(run.stream(iter(paths), batch_size=7))
    assert [len(part.index) for part in parts] == [7] * 8 + [4]
    np.testing.assert_array_equal(np.concatenate([part.index for part in parts]), np.arange(60))
    np.testing.assert_allclose(np.concatenate([part.values for part in parts]), run.predict(paths), atol=1e-6)
    features = np.concatenate([part.values for part in run.stream_features(paths)])
    np.testing.assert_array_equal(features, run.embed(paths))


def test_one_bad_image_does_not_lose_the_others(run: train.Run, paths: list[Path], tmp_path: Path):
    (tmp_path / "bad.jpg").write_bytes(b"nothing")
    images = [paths[0], tmp_path / "bad.jpg", paths[1]]
    with pytest.raises(UnreadableImages, match=r"skip_unreadable=True") as error:
        run.predict(images)
    assert "--skip" not in str(error.value)
    assert error.value.total == 3
    with pytest.warns(RepertoireWarning, match=r"1 of 3 .* NaN: .*bad\.jpg"):
        found = run.predict(images, skip_unreadable=True)
    assert np.isnan(found[1]).all()
    np.testing.assert_allclose(found[[0, 2]], run.predict(paths[:2]), atol=1e-6)
    with pytest.warns(RepertoireWarning):
        assert run.predict_classes(images, skip_unreadable=True)[1] is None
    with pytest.warns(RepertoireWarning):
        assert np.isnan(run.embed(images, skip_unreadable=True)[1]).all()


def test_a_run_that_skipped_in_training_skips_after_it(run: train.Run, paths: list[Path], tmp_path: Path):
    copied = Path(shutil.copytree(run.path, tmp_path / "a"))
    text = (copied / "config.yaml").read_text().replace("skip_unreadable: false", "skip_unreadable: true")
    (copied / "config.yaml").write_text(text)
    with pytest.warns(RepertoireWarning, match="1 of 2"):
        assert np.isnan(train.load(copied).predict([b"nothing", paths[0]])[0]).all()
    with pytest.raises(UnreadableImages):
        train.load(copied).predict([b"nothing", paths[0]], skip_unreadable=False)


def test_many_threads_share_one_run(run: train.Run, paths: list[Path]):
    fresh = train.load(run.path)
    expected, found, models = run.predict(paths), [], []

    def ask() -> None:
        found.append(fresh.predict(paths, batch_size=16))
        models.append(fresh.model)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len({id(model) for model in models}) == 1
    for one in found:
        np.testing.assert_allclose(one, expected, atol=1e-6)


def test_devices_are_named_and_refused(run: train.Run, paths: list[Path]):
    assert run.device == torch.device("cpu")
    assert run.to("cpu") is run
    assert train.load(run.path, device="auto").device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    for wrong in ("gpu", "cuda:99", "meta"):
        with pytest.raises(ConfigError, match="device is"):
            run.predict(paths[:1], device=wrong)


def test_every_entrance_asks_the_model_of_its_device(
    run: train.Run, paths: list[Path], monkeypatch: pytest.MonkeyPatch
):
    """There may be no second device here, but who asks for it can be seen."""
    asked: list[object] = []
    monkeypatch.setattr(run, "_find", lambda device: asked.append(device) or torch.device("cpu"))
    run.predict(paths[:2], device="there")
    run.embed(paths[:2], device="there")
    run.evaluate(device="there")
    run.evaluate(device="there", tta=True)
    run.probe(device="there")
    run.explain(paths[:1], device="there")
    assert set(asked) == {"there"}


def test_test_time_augmentation_is_the_mean_over_versions(run: train.Run, paths: list[Path]):
    images = run.read(paths[:5])
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1), mode="replicate")
    versions = [padded[:, :, y : y + 16, x : x + 16] for y, x in ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2))]
    versions += [version.flip(3) for version in versions]
    expected = np.mean([run.predict(version) for version in versions], 0)
    np.testing.assert_allclose(run.predict(paths[:5], tta=True), expected, atol=1e-5)
    assert run.evaluate(tta=True)["images"] == run.metrics["images"]


def test_evaluate_takes_a_folder_a_list_and_a_set(run: train.Run, photos: Path, paths: list[Path], tmp_path: Path):
    expected = run.evaluate(photos)
    assert expected["images"] == 60
    listed = tmp_path / "list.csv"
    with open(listed, "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(["Image", "extra", "Class"])
        writer.writerows([str(path), "x", path.parent.name] for path in paths)
        writer.writerow([str(paths[0]), "x", ""])  # nobody knows
    found = run.evaluate(listed)
    assert found["confusion"] == expected["confusion"]
    assert found["nll"] == pytest.approx(expected["nll"], abs=1e-6)
    assert run.evaluate(run.splits.test)["accuracy"] == run.metrics["accuracy"]
    assert run.probe("knn", photos)["images"] == 60
    assert run.probe("knn", listed)["images"] == 60


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "no column of paths"),
        ("path,b\n1,2\n", "no column of labels"),
        ("path,label\nx.png,rde\n", "line 2: 'rde' is not a class of the run; did you mean 'red'"),
        ("path,label\n", "lists no image"),
        ("", "no column of paths"),
    ],
)
def test_lists_that_cannot_be_used_say_why(run: train.Run, tmp_path: Path, text: str, message: str):
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        run.evaluate(tmp_path / "l.csv")


def test_what_is_no_labelled_set_is_refused(run: train.Run, tmp_path: Path):
    with pytest.raises(DataError, match="does not exist"):
        run.evaluate(tmp_path / "none")
    with pytest.raises(DataError, match="found a list"):
        run.evaluate([1, 2])  # type: ignore[arg-type]


def test_data_that_changed_since_is_said_once(photos: Path, run: train.Run, tmp_path: Path):
    data = Path(shutil.copytree(photos, tmp_path / "data"))
    copied = Path(shutil.copytree(run.path, tmp_path / "a"))
    (copied / "config.yaml").write_text((copied / "config.yaml").read_text().replace(str(photos), str(data)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train.load(copied).evaluate()
    for i in range(5):
        Image.new("RGB", (20, 20), (250, i, 0)).save(data / "red" / f"new{i}.png")
    with pytest.warns(RepertoireWarning, match="changed since it was trained"):
        train.load(copied).evaluate()


def test_explain_maps_images_in_any_form(run: train.Run, paths: list[Path]):
    maps = run.explain(paths[:3], target="red")
    assert maps.shape == (3, 16, 16)
    assert 0 <= maps.min() <= maps.max() <= 1
    again = run.explain([path.read_bytes() for path in paths[:3]], "grad-cam", target=run.classes.index("red"))
    np.testing.assert_allclose(again, maps, atol=1e-5)
    with pytest.raises(UnknownName, match="did you mean 'red'"):
        run.explain(paths[:1], target="rde")
    with pytest.raises(UnknownName):
        run.explain(paths[:1], "gradcom")


def test_report_and_export_are_methods(run: train.Run, tmp_path: Path):
    assert run.report(tmp_path / "r.html").stat().st_size > 10_000
    assert run.export("pt2", tmp_path / "m.pt2").exists()


def test_an_ensemble_is_the_mean_of_its_runs(run: train.Run, photos: Path, paths: list[Path], tmp_path: Path):
    options = {"size": 12, "backbone": "mlp", "epochs": 1, "batch_size": 16, "device": "cpu", "tune": "all"}
    other = train.fit(photos, out=tmp_path / "b", **options)
    both = train.Ensemble([run, other])
    expected = (run.predict(paths) + other.predict(paths)) / 2
    np.testing.assert_allclose(both.predict(paths), expected, atol=1e-9)
    np.testing.assert_allclose(both.predict(iter(paths)), expected, atol=1e-9)
    labels = np.array([run.classes.index(path.parent.name) for path in paths])
    assert both.evaluate(photos)["accuracy"] == pytest.approx((expected.argmax(1) == labels).mean())
    with pytest.raises(RunError, match="name labelled images"):
        both.evaluate()
    with pytest.raises(RunError, match="two runs or more"):
        train.Ensemble([run])


def test_an_ensemble_refuses_other_classes(run: train.Run, options: dict, tmp_path: Path):
    other = train.fit(out=tmp_path / "b", **{**options, "epochs": 1})
    with pytest.raises(RunError, match="an ensemble needs the same"):
        train.Ensemble([run, other])


PLUGIN = """
from pathlib import Path
Path(__file__).with_name("ran").touch()
from repertoire.backbones import MLP
from repertoire.registry import register

@register("backbones", "mine-of-{name}")
class Mine(MLP):
    pass
"""


def test_opening_a_run_runs_no_code(options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The configuration of somebody's run names a module that lies beside it, where the user happens to stand."""
    run = train.fit(out=tmp_path / "a", **{**options, "epochs": 1, "backbone": "mlp"})
    (tmp_path / "evilmod.py").write_text(PLUGIN.format(name="evil"))
    text = run.directory.config_file.read_text()
    run.directory.config_file.write_text(
        text.replace("plugins: []", "plugins: [evilmod]").replace("backbone: mlp", "backbone: mine-of-evil")
    )
    monkeypatch.chdir(tmp_path)
    opened = train.load(run.path)
    assert opened.metrics == run.metrics
    with pytest.raises(RunError, match=r"plugins evilmod; opening a run imports none\. .*plugins='evilmod'"):
        opened.predict(torch.rand(2, 1, 8, 8))
    assert not (tmp_path / "ran").exists()
    trusted = train.load(run.path, plugins=("evilmod",))
    assert (tmp_path / "ran").exists()
    np.testing.assert_allclose(trusted.predict(torch.zeros(2, 1, 8, 8)), run.predict(torch.zeros(2, 1, 8, 8)))


def test_weights_that_are_not_finite_predict_nothing(run: train.Run, tmp_path: Path):
    from repertoire.errors import CheckpointError
    from repertoire.train import _checkpoint

    copied = Path(shutil.copytree(run.path, tmp_path / "a"))
    best = _checkpoint.load(copied / "checkpoints" / "best.safetensors")
    name = next(name for name, value in best.tensors.items() if value.is_floating_point())
    spoilt = {**best.tensors, name: best.tensors[name] * torch.nan}
    _checkpoint.save(copied / "checkpoints" / "best.safetensors", spoilt, best.values)
    with pytest.raises(CheckpointError, match="not finite"):
        train.load(copied).predict(torch.zeros(1, 3, 16, 16))


class TestExtend:
    def test_it_goes_on_from_where_it_was(self, options: dict, tmp_path: Path):
        short = train.fit(out=tmp_path / "a", **{**options, "epochs": 2})
        before = [row["train_loss"] for row in short.history]
        longer = short.extend(4)
        assert [row["epoch"] for row in longer.history] == [1, 2, 3, 4]
        assert [row["train_loss"] for row in longer.history][:2] == before
        assert (longer.config.epochs, longer.info["status"]) == (4, "finished")
        assert longer.info["extended"] == [{"from": 2, "to": 4}]
        assert longer.metrics["best_epoch"] <= 4

    def test_the_rates_of_new_epochs_are_those_of_a_longer_run(self, options: dict, tmp_path: Path):
        longer = train.fit(out=tmp_path / "a", **{**options, "epochs": 2}).extend(4)
        whole = train.fit(out=tmp_path / "b", **{**options, "epochs": 4})
        rates = [[row["lr"] for row in run.history][2:] for run in (longer, whole)]
        assert rates[0] == pytest.approx(rates[1])

    def test_it_is_resumed_like_any_run(self, options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        first = train.fit(out=tmp_path / "a", **{**options, "epochs": 2})
        shutil.copytree(first.path, tmp_path / "b")
        expected = first.extend(5).model.state_dict()
        from repertoire.train import _fit

        def killed(*_: object, **__: object) -> None:
            raise RuntimeError("killed")

        with monkeypatch.context() as patch:
            patch.setattr(_fit, "resume", killed)
            with pytest.raises(RuntimeError, match="killed"):
                train.load(tmp_path / "b").extend(5)
        again = train.load(tmp_path / "b")
        assert (again.info["status"], again.metrics) == ("interrupted", {})
        found = train.resume(tmp_path / "b").model.state_dict()
        for name, value in expected.items():
            assert torch.equal(found[name], value), name

    def test_other_ranks_wait_for_the_first(self, options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        from repertoire.train import _extend, _fit

        run = train.fit(out=tmp_path / "a", **{**options, "epochs": 1})
        monkeypatch.setenv("LOCAL_RANK", "1")
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setattr(_fit, "resume", lambda path, **options: train.load(path))
        change = threading.Timer(0.5, lambda: run.directory.write_config(run.config.model_copy(update={"epochs": 7})))
        change.start()
        assert run.extend(7).config.epochs == 7
        with pytest.raises(RunError, match="did not extend"):
            _extend.wait_for(run, {"epochs": 9}, seconds=0.1)

    def test_what_cannot_be_extended_says_why(self, options: dict, tmp_path: Path):
        run = train.fit(out=tmp_path / "a", **{**options, "epochs": 2})
        with pytest.raises(ConfigError, match="has had 2 of 2 already"):
            run.extend(2)
        info = json.loads(run.directory.info_file.read_text())
        run.directory.info_file.write_text(json.dumps({**info, "status": "failed"}))
        with pytest.raises(RunError, match="finish it first"):
            train.load(run.path).extend(5)


class TestOtherTargets:
    """Runs that predict several labels, or numbers, from the same doors."""

    @pytest.fixture(scope="class")
    @classmethod
    def labels(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return cls.make(tmp_path_factory.mktemp("labels"), lambda red, blue: (int(red > 100), int(blue > 100)))

    @pytest.fixture(scope="class")
    @classmethod
    def numbers(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return cls.make(tmp_path_factory.mktemp("numbers"), lambda red, blue: (red / 10.0, 3.0 - blue / 100.0))

    @staticmethod
    def make(root: Path, targets) -> Path:
        generator = np.random.default_rng(0)
        with open(root / "labels.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "warm", "cold"])
            for i in range(60):
                red, blue = generator.integers(0, 200, 2)
                pixels = np.zeros((12, 12, 3), np.uint8)
                pixels[..., 0], pixels[..., 2] = red, blue
                Image.fromarray(pixels + generator.integers(0, 20, pixels.shape, dtype=np.uint8)).save(
                    root / f"{i}.png"
                )
                writer.writerow([f"{i}.png", *targets(red, blue)])
        return root

    def fit(self, data: Path, out: Path) -> train.Run:
        options = {"size": 8, "backbone": "convnet:width=8,depth=1", "batch_size": 16, "epochs": 2, "device": "cpu"}
        return train.fit(data, out=out, augment="none", tune="all", **options)

    def test_several_labels(self, labels: Path, tmp_path: Path):
        run = self.fit(labels, tmp_path / "a")
        found = run.predict(labels)
        assert found.shape == (60, 2)
        assert ((found >= 0) & (found <= 1)).all()
        assert run.evaluate(labels / "labels.csv")["samples"] == 60
        np.testing.assert_allclose(run.predict(labels, tta=True), found, atol=0.2)

    def test_numbers(self, numbers: Path, tmp_path: Path):
        run = self.fit(numbers, tmp_path / "a")
        found = run.predict([numbers / f"{i}.png" for i in range(60)])
        with open(numbers / "labels.csv") as file:
            rows = list(csv.DictReader(file))
        truth = np.array([[float(row["warm"]), float(row["cold"])] for row in rows])
        metrics = run.evaluate(numbers / "labels.csv")
        assert metrics["samples"] == 60
        for k, row in enumerate(metrics["per_number"]):
            name = run.classes.index(row["number"])
            assert row["mae"] == pytest.approx(np.abs(found[:, name] - truth[:, k]).mean(), rel=1e-4)
        with pytest.raises(RunError, match="predicts numbers"):
            run.predict_proba(numbers)
        target = run.export("pt2", tmp_path / "m.pt2")
        images = run.read([numbers / "0.png", numbers / "1.png"])
        exported = torch.export.load(target).module()(images).detach().numpy()
        np.testing.assert_allclose(exported, found[:2], rtol=1e-3, atol=1e-4)


def test_a_run_on_features_takes_features(tmp_path: Path):
    generator = np.random.default_rng(0)
    labels = np.arange(90) % 3
    features = (generator.normal(size=(90, 6)) + 3 * np.eye(6)[labels]).astype(np.float32)
    np.savez(tmp_path / "f.npz", features=features, labels=labels, classes=np.array(["a", "b", "c"]))
    run = train.fit(tmp_path / "f.npz", out=tmp_path / "a", epochs=5, batch_size=16, device="cpu")
    found = run.predict(features)
    assert found.shape == (90, 3)
    np.testing.assert_allclose(run.predict(tmp_path / "f.npz"), found, atol=1e-6)
    np.testing.assert_allclose(run.predict(torch.from_numpy(features[0])), found[:1], atol=1e-6)
    with pytest.raises(ShapeError, match=r"float \[N, 6\]"):
        run.predict(np.zeros((2, 5), np.float32))
    with pytest.raises(ShapeError, match="finite"):
        run.predict(np.full((2, 6), np.nan, np.float32))
