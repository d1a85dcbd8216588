"""A newcomer's day, replayed: what was typed when it failed, and what is answered now.

Each test is a row of what was found by using the package as its users would: with photographs, from the prompt of
Python, from the command line, and with data as it lies about. What takes more than seconds is held by the tests of the
parts themselves.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from pkgutil import resolve_name
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch.utils.data import DataLoader

import repertoire
from repertoire import backbones, errors, losses, registry, train
from repertoire.cli import main
from repertoire.data import decode, load
from repertoire.recipe import make_config, pinned
from repertoire.statistics import interval
from repertoire.train import Run, rehearse

ROOT = Path(__file__).parents[1]
RNG = np.random.default_rng(0)
SMALL = {"backbone": "convnet:width=8,depth=2", "size": 16, "epochs": 1, "batch_size": 8, "device": "cpu"}


def photograph(path: Path, height: int = 40, width: int = 60, shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 120, (height, width, 3), dtype=np.uint8) + np.uint8(shade)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Photographs of mixed sizes in three classes, some new ones, and a run on them."""
    root = tmp_path_factory.mktemp("day")
    for number, name in enumerate(("cat", "dog", "owl")):
        for i in range(14):
            photograph(root / "photos" / name / f"{i}.png", 30 + i, 70 - i, 60 * number)
    photograph(root / "new" / "crop 002.png", 36, 52)
    photograph(root / "new" / "other.png", 60, 20)
    run = repertoire.fit(root / "photos", out=root / "run", **SMALL)
    return SimpleNamespace(root=root, photos=root / "photos", new=root / "new", run=run)


def typed(capsys: pytest.CaptureFixture, *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main([*map(str, words)])
    said = capsys.readouterr()
    return int(stop.value.code or 0), said.out, said.err


# Pretrained weights, and images without labels.


def test_weights_come_as_a_checkpoint_of_torch_as_a_run_and_for_another_size(day: SimpleNamespace, tmp_path: Path):
    net = backbones.resnet20(width=4)
    torch.save({"state_dict": net.state_dict()}, tmp_path / "net.pth")
    assert len(backbones.load_weights(backbones.resnet20(width=4), tmp_path / "net.pth").missing) == 0
    again = registry.build("backbones", SMALL["backbone"], in_channels=3, image_size=16)
    assert backbones.load_weights(again, day.run.path).matched
    small, large = (registry.build("backbones", "vit:dim=16,depth=1,heads=2,patch=4", image_size=s) for s in (16, 32))
    torch.save(small.state_dict(), tmp_path / "vit.pt")
    assert any("pos" in name for name in backbones.load_weights(large, tmp_path / "vit.pt").adapted)


@pytest.mark.parametrize(
    ("given", "answer"), [("resnet18", "timm:resnet18"), ("resnet50", "timm:resnet50"), ("efficientnet_b0", "timm:")]
)
def test_networks_are_found_by_the_names_that_others_give_them(given: str, answer: str):
    with pytest.raises(errors.UnknownName, match=answer):
        registry.get("backbones", given)


@pytest.mark.parametrize("layout", ["flat", "one folder", "archive", "archive without labels"])
def test_methods_without_labels_take_images_however_they_lie(layout: str, day: SimpleNamespace, tmp_path: Path):
    data = tmp_path / "data"
    if layout.startswith("archive"):
        data = tmp_path / "data.npz"
        held = {"images": RNG.integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)}
        np.savez(data, **held, **({"labels": np.full(24, -1)} if layout == "archive" else {}))
    else:
        for i in range(24):
            photograph(data / ("" if layout == "flat" else "all") / f"{i}.png")
    config = make_config(data=str(data), **{**SMALL, "size": 16}, method="simclr", from_scratch=True)
    rehearse(config)


def test_a_folder_holds_unlabelled_images_beside_its_classes(day: SimpleNamespace, tmp_path: Path):
    shutil.copytree(day.photos, tmp_path / "photos")
    photograph(tmp_path / "photos" / "unlabelled" / "x.png")
    splits = load(tmp_path / "photos", size=16)
    assert splits.classes == ("cat", "dog", "owl")
    assert len(splits.extra["unlabelled"]) == 1


# The Python door.


def test_data_in_memory_is_trained_on(day: SimpleNamespace, tmp_path: Path):
    images = RNG.integers(0, 256, (30, 16, 16, 3), dtype=np.uint8)
    for number, data in enumerate([load(day.photos, size=16), (images, ["a", "b", "c"] * 10)]):
        run = repertoire.fit(data, out=tmp_path / str(number), **{**SMALL, "size": None})
        assert run.metrics["images"] > 0


@pytest.mark.parametrize(
    "what", ["bytes", "open file", "PIL", "PIL list", "array", "many", "folder", "pattern", "path", "tensor"]
)
def test_predict_takes_whatever_is_an_image(what: str, day: SimpleNamespace):
    one = day.new / "crop 002.png"
    array = np.asarray(Image.open(one))
    given: dict[str, Callable[[], object]] = {
        "bytes": lambda: [one.read_bytes()],
        "open file": lambda: io.BytesIO(one.read_bytes()),
        "PIL": lambda: Image.open(one),
        "PIL list": lambda: [Image.open(one)],
        "array": lambda: array,
        "many": lambda: array[None],
        "folder": lambda: day.new,
        "pattern": lambda: f"{day.new}/*.png",
        "path": lambda: one,
        "tensor": lambda: torch.from_numpy(array).permute(2, 0, 1) / 255,
    }
    found = day.run.predict(given[what]())
    assert found.shape == (2 if what in ("folder", "pattern") else 1, 3)
    if what != "tensor":  # whose values are resized as floats
        np.testing.assert_allclose(found[0], day.run.predict(one)[0], atol=1e-6)


def test_a_run_is_an_estimator(day: SimpleNamespace, tmp_path: Path):
    run = day.run
    assert run.evaluate(day.photos)["images"] == 42
    assert str(run.to("cpu").device) == "cpu"
    assert run.predict_proba(day.new).sum(1) == pytest.approx(1)
    assert set(run.predict_classes(day.new)) <= set(run.classes)
    assert run.explain(day.new).shape == (2, 16, 16)
    assert run.export("backbone", tmp_path / "b.safetensors").exists()
    assert run.report(tmp_path / "r.html").exists()


def test_one_bad_upload_does_not_lose_the_others(day: SimpleNamespace):
    with pytest.raises(errors.UnreadableImages, match="skip_unreadable=True"):
        day.run.predict([b"no image", day.new / "other.png"])
    with pytest.warns(errors.RepertoireWarning, match="1 of 2 images"):
        found = day.run.predict([b"no image", day.new / "other.png"], skip_unreadable=True)
    assert np.isnan(found[0]).all()
    assert found[1].sum() == pytest.approx(1)


def test_sets_are_torch_data_sets_and_are_shown_in_a_line(day: SimpleNamespace):
    splits = load(day.photos, size=16)
    image, label = splits.train[0]
    assert image.shape == (3, 16, 16)
    assert label in (0, 1, 2)
    images, _ = next(iter(DataLoader(splits.train, batch_size=4)))
    assert images.shape == (4, 3, 16, 16)
    assert repr(splits.train).count("\n") == 0
    assert len(repr(splits.train)) < 200


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (lambda d: repertoire.fit(d, learning_rate=0.1), "lr"),
        (lambda d: repertoire.fit(d, model="resnet20"), "backbone"),
        (lambda d: repertoire.fit(d, loss="ce"), "cross-entropy"),
        (lambda d: losses.SupConLoss, "SupCon"),
        (lambda d: losses.NTXentLoss, "NTXent"),
        (lambda d: losses.TripletMarginLoss, "Triplet"),
    ],
)
def test_names_from_elsewhere_are_answered(call: Callable[[Path], object], answer: str, day: SimpleNamespace):
    with pytest.raises((errors.UnknownName, AttributeError, ImportError), match=answer):
        call(day.photos)


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (lambda d: train("photos/"), r"repertoire\.train is a module and cannot be called: repertoire\.fit\(data"),
        (lambda d: repertoire.compare("photos/"), r"repertoire\.compare\.compare\(data, vary="),
        (lambda d: repertoire.explain("x.png"), r"run\.explain\(images\)"),
        (lambda d: repertoire.report("runs/a"), r"run\.report\(\)"),
        (lambda d: importlib.import_module("repertoire.plan")("photos/"), r"repertoire\.plan\.plan\(data\)"),
        (lambda d: importlib.import_module("repertoire.select")(3), r"repertoire\.select\.select\('margin'"),
        (lambda d: d.run.save("model.pt"), r"repertoire\.load opens it; run\.export\('onnx'\)"),
        (lambda d: d.run.state_dict(), "here it is called 'model'"),
        (lambda d: d.run.score(d.photos), "here it is called 'evaluate'"),
        (lambda d: d.run.fit(3), "here it is called 'extend'"),
        (lambda d: d.run.nothing_of_the_kind, "'Run' object has no attribute 'nothing_of_the_kind'$"),
    ],
)
def test_what_is_tried_first_is_answered(call: Callable, answer: str, day: SimpleNamespace):
    with pytest.raises((TypeError, AttributeError), match=answer):
        call(day)


def test_a_property_that_fails_says_why_itself(day: SimpleNamespace, monkeypatch: pytest.MonkeyPatch):
    def fails(self: Run) -> None:
        raise AttributeError("what really happened")

    monkeypatch.setattr(Run, "noun", property(fails))
    with pytest.raises(AttributeError, match="what really happened"):
        _ = day.run.noun


def test_fit_shows_its_options():
    import inspect

    assert {"backbone", "epochs", "lr", "callbacks", "fold"} <= set(inspect.signature(repertoire.fit).parameters)


# Pictures, evidence, papers, pages.


def test_explanations_lie_on_the_photograph(day: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture):
    code, *_ = typed(capsys, "explain", day.run.path, day.new / "crop 002.png", "--out", tmp_path / "maps")
    assert code == 0
    made = [Image.open(path).size for path in (tmp_path / "maps").rglob("*.png")]
    assert made
    assert all(size == (52, 36) for size in made)


def test_evidence_of_ones_own_lies_in_a_folder_of_ones_own(monkeypatch: pytest.MonkeyPatch):
    from repertoire.papers import user_folder

    monkeypatch.delenv("REPERTOIRE_EVIDENCE", raising=False)
    assert Path(repertoire.__file__).parent not in user_folder().parents


def test_the_first_page_says_how_to_install():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "pip install" in text
    assert "activate" in text


@pytest.mark.parametrize("need", ["few labels, long-tailed classes", "fine-tune a pretrained network on few images"])
def test_what_can_be_performed_is_found_first(need: str, capsys: pytest.CaptureFixture):
    code, out, _ = typed(capsys, "papers", "search", need)
    assert code == 0
    first = [line.split("\t") for line in out.strip().split("\n")[1:4]]
    assert all(row[2] != "open" for row in first), first


def test_tables_of_the_guide_are_tables():
    for page in (ROOT / "docs").rglob("*.md"):
        lines = page.read_text(encoding="utf-8").split("\n")
        for before, line in pairwise(lines):
            if re.match(r"^\|[ :|-]+\|$", line):
                assert before.startswith("|"), page
        starts = [i for i, line in enumerate(lines) if line.startswith("| ") and not lines[i - 1].startswith("|")]
        assert all(i == 0 or not lines[i - 1].strip() for i in starts), page


# What is exported, compared and printed.


def test_what_is_exported_says_how_it_is_fed(day: SimpleNamespace, tmp_path: Path):
    target = day.run.export("torchscript", tmp_path / "model.ts")
    about = json.loads((tmp_path / "model.ts.json").read_text())
    assert about["input"]["layout"] == "NCHW"
    assert about["input"]["order"] == "RGB"
    assert about["preprocessing"]["fit"] == "crop"
    assert about["preprocessing"]["resize"]["filter"] == "bicubic"
    for count in (1, 2, 5):
        assert torch.jit.load(target)(torch.rand(count, 3, 16, 16)).shape == (count, 3)


def test_the_interval_of_a_share_is_one_of_shares():
    low, high = interval([0.2, 0.675], bounds=(0, 1))
    assert 0 <= low < high <= 1


def test_commands_leave_out_what_training_left_out(day: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture):
    shutil.copytree(day.photos, tmp_path / "photos")
    (tmp_path / "photos" / "cat" / "broken.png").write_bytes(b"no image")
    run = repertoire.fit(tmp_path / "photos", out=tmp_path / "run", skip_unreadable=True, **SMALL)
    assert len(run.info["skipped"]) == 1
    for words in (
        ("evaluate", run.path, tmp_path / "photos"),
        ("predict", run.path, tmp_path / "photos", "--format", "csv"),
    ):
        assert typed(capsys, *words)[0] == 0
    # A plan looks at no image, and has nothing against one.
    code, out, _ = typed(
        capsys, "plan", tmp_path / "photos", "--backbone", SMALL["backbone"], "--tune", "all", "--size", 16
    )
    assert code == 0
    assert "--rule backprop" in out


def test_an_image_comes_through_a_pipe(
    day: SimpleNamespace, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    data = (day.new / "other.png").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    code, out, _ = typed(capsys, "predict", day.run.path, "-")
    assert code == 0
    assert out.count("\n") == 1


@pytest.mark.parametrize("ending", ["\r\n", "\n"])
def test_a_list_comes_from_windows(
    ending: str, day: SimpleNamespace, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    names = "".join(f"{path}{ending}" for path in sorted(day.new.iterdir()))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbf" + names.encode())))
    code, out, _ = typed(capsys, "predict", day.run.path, "-")
    assert code == 0
    assert out.count("\n") == 2


@pytest.mark.parametrize(
    ("flag", "ours"),
    [
        ("--pretrained", "--weights|pretrained"),
        ("--model", "--backbone"),
        ("--learning-rate", "--lr"),
        ("--imgsz", "--size"),
        ("--image-size", "--size"),
        ("--freeze", "--tune"),
        ("--mixup", "supervised:mix=mixup"),
        ("--cv", "--folds"),
    ],
)
def test_options_from_elsewhere_are_answered(flag: str, ours: str, capsys: pytest.CaptureFixture):
    code, _, err = typed(capsys, "train", "digits", f"{flag}=1")
    assert code == 2
    assert re.search(ours, err), err


def test_a_finished_run_is_extended_and_one_without_a_report_stays_so(
    day: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture
):
    words = ("--backbone", SMALL["backbone"], "--size", 16, "--epochs", 1, "--device", "cpu", "-q")
    assert typed(capsys, "train", day.photos, *words, "--no-report", "-o", tmp_path / "run")[0] == 0
    assert typed(capsys, "train", "--resume", tmp_path / "run", "--epochs", 2, "-q")[0] == 0
    assert len(train.load(tmp_path / "run").history) == 2
    assert not (tmp_path / "run" / "report.html").exists()


def test_the_jobs_that_others_do(capsys: pytest.CaptureFixture):
    known = {kind: set(registry.names(kind)) for kind in ("augmentations", "methods", "losses")}
    assert {"randaugment", "trivialaugment", "erasing"} <= known["augmentations"]
    rehearse(make_config(data="digits", **{**SMALL, "size": None}, method="supervised:mix=cutmix", from_scratch=True))
    fields = repertoire.train.TrainConfig.model_fields
    assert "wandb" in str(fields["track"].annotation)
    for command, options in {
        "predict": ("--tta", "--top", "--ensemble"),
        "evaluate": ("--tta", "--ensemble", "--probe"),
        "export": ("--half", "--int8", "--backbone"),
        "train": ("--folds", "--fold", "--epochs", "--resume"),
    }.items():
        code, out, _ = typed(capsys, command, "--help")
        assert code == 0
        assert all(option in out for option in options), command
    assert (ROOT / "docs" / "guide" / "serve.py").exists()


# A directory of one's own, and data as it lies about.


def test_a_directory_with_files_of_ones_own_is_left_alone(
    day: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture
):
    home = tmp_path / "project"
    (home / "explanations").mkdir(parents=True)
    (home / "explanations" / "a.txt").write_text("mine")
    (home / "metrics.json").write_text("mine")
    (home / "config.yaml").write_text(f"# mine\ndata: {day.photos}\nepochs: 1\n")
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    for more in ((), ("--overwrite",)):
        code, _, err = typed(capsys, "train", "-c", home / "config.yaml", "--out", home, "-q", *more)
        assert code == 2
        assert "nothing in it was touched" in err
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "parts",
    [
        ("Train", "Test"),
        ("Training", "Testing"),
        ("TRAIN", "TEST"),
        ("seg_train", "seg_test"),
        ("training_set", "test_set"),
    ],
)
def test_parts_by_their_usual_names_are_no_classes(parts: tuple[str, str], tmp_path: Path):
    for part, count in zip(parts, (8, 3), strict=True):
        for name in ("cat", "dog"):
            for i in range(count):
                photograph(tmp_path / part / name / f"{i}.png", 16, 16)
    splits = load(tmp_path, size=16)
    assert splits.classes == ("cat", "dog")
    assert len(splits.test) == 6


def test_weighted_cross_entropy_is_that_of_its_pieces():
    logits, labels = torch.randn(30, 5), torch.randint(0, 5, (30,))
    loss = losses.CrossEntropy(weight=torch.tensor([0.2, 0.5, 1.0, 2.0, 1.3]))
    pieces = [loss(logits[i : i + 10], labels[i : i + 10]) for i in (0, 10, 20)]
    torch.testing.assert_close(torch.stack(pieces).mean(), loss(logits, labels))


def test_a_file_that_was_replaced_is_noticed(tmp_path: Path):
    for name, shade in (("cat", 0), ("dog", 120)):
        for i in range(6):
            pixels = np.full((8, 8, 3), shade + i, np.uint8)
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.bmp")
    before = load(tmp_path, size=8)
    path = tmp_path / "cat" / "0.bmp"
    status = path.stat()
    with open(path, "r+b") as file:  # of the same length, in the same place, with the same time
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = load(tmp_path, size=8)
    keys = [set(np.concatenate([part.keys for part in (s.train, s.val, s.test)]).tolist()) for s in (before, after)]
    assert len(keys[0] - keys[1]) == 1


@pytest.mark.parametrize("kind", ["uint16", "float with one pixel too bright", "int32"])
def test_images_of_more_than_eight_bits_are_not_black(kind: str, tmp_path: Path):
    def stored(i: int, name: str) -> np.ndarray:
        base = np.linspace(0, 1, 64).reshape(8, 8) * (0.5 if name == "cat" else 1) + i / 1000
        if kind == "uint16":
            return (4000 * base).astype(np.uint16)
        if kind == "int32":
            return (200 * base).astype(np.int32)
        base = base.astype(np.float32)
        base[0, 0] = 1.01 if i == 0 else base[0, 0]
        return base

    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(6):
            Image.fromarray(stored(i, name)).save(tmp_path / name / f"{i}.tiff")
    splits = load(tmp_path, size=8)
    pixels = np.concatenate([part.pixels(slice(None)) for part in (splits.train, splits.val, splits.test)])
    assert pixels.max() > 180
    assert len(np.unique(pixels)) > 30
    # Two images of one set are as far apart in brightness as they were.
    labels = np.concatenate([part.labels for part in (splits.train, splits.val, splits.test)])
    bright = [np.median(pixels[labels == k]) for k in (0, 1)]
    assert 1.6 < bright[1] / bright[0] < 2.4


def test_data_that_changed_is_said_and_not_shown(day: SimpleNamespace, tmp_path: Path):
    shutil.copytree(day.photos, tmp_path / "photos")
    run = repertoire.fit(tmp_path / "photos", out=tmp_path / "run", **SMALL)
    shutil.rmtree(tmp_path / "photos" / "cat")
    photograph(tmp_path / "photos" / "cat" / "0.png")
    for i in range(6):
        photograph(tmp_path / "photos" / "cat" / f"{i}.png")
    again = train.load(run.path)
    with pytest.warns(errors.RepertoireWarning, match="changed since it was trained"):
        again.evaluate()
    assert "no longer what it was" in again.report(tmp_path / "r.html").read_text()


@pytest.mark.filterwarnings("always::repertoire.errors.RepertoireWarning")
@pytest.mark.parametrize(
    "words",
    [
        ("evaluate",),
        ("explain", "--judge", "--sample", 12, "--explainer", "eigen-cam", "--explainer", "gradient"),
        ("diagnose",),
        ("report",),
    ],
)
def test_files_that_were_renamed_are_said_by_whatever_looks_at_the_test_images(
    words: tuple[object, ...], day: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture
):
    """The split is the same, and the order of the images another: stored answers are those of other images."""
    shutil.copytree(day.photos, tmp_path / "photos")
    shutil.copytree(day.run.path, tmp_path / "run")
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump({**config, "data": str(tmp_path / "photos")}))
    for folder in sorted((tmp_path / "photos").iterdir()):
        names = sorted(folder.iterdir())
        for number, path in enumerate(names):
            path.rename(folder / f"z{len(names) - number:02d}.png")
    command, *rest = words
    code, _, err = typed(capsys, command, tmp_path / "run", *rest, "--out", tmp_path / "out" / "written")
    assert code == 0, err
    if command == "report":
        assert "no longer what it was" in (tmp_path / "out" / "written").read_text()
    else:
        assert "changed since it was trained" in err


@pytest.mark.parametrize("name", ["@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"])
def test_what_storage_leaves_behind_is_no_data(name: str, day: SimpleNamespace, tmp_path: Path):
    shutil.copytree(day.photos, tmp_path / "photos")
    photograph(tmp_path / "photos" / "cat" / name / "x.png" / "SYNOPHOTO_THUMB_M.jpg")
    photograph(tmp_path / "photos" / name / "y.png")
    (tmp_path / "photos" / "cat" / "Icon\r").touch()
    splits = load(tmp_path / "photos", size=16)
    assert splits.classes == ("cat", "dog", "owl")
    assert sum(len(part) for part in (splits.train, splits.val, splits.test)) == 42


def test_classes_that_look_alike_are_named(tmp_path: Path):
    for name in ("caf\u00e9", "cafe\u0301"):
        for i in range(4):
            photograph(tmp_path / name / f"{i}.png", 16, 16)
    with pytest.raises(errors.DataError, match="differ in spaces or in the form of their Unicode"):
        load(tmp_path, size=16)


@pytest.mark.parametrize("labels", [np.array([3, 10**8] * 12), np.array([3, 10**15] * 12, np.uint64)])
def test_labels_may_be_numbers_of_any_size(labels: np.ndarray, tmp_path: Path):
    np.savez(tmp_path / "ids.npz", images=RNG.integers(0, 256, (24, 8, 8), dtype=np.uint8), labels=labels)
    assert load(tmp_path / "ids.npz").classes == ("3", str(labels[1]))


def test_a_header_alone_asks_for_no_memory(tmp_path: Path):
    import zipfile

    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**12, 1)})
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue())
        archive.writestr("labels.npy", header.getvalue())
    with pytest.raises(errors.DataError, match="its header says") as caught:
        load(tmp_path / "huge.npz")
    assert "\n" not in str(caught.value)


# Runs.


def test_heads_of_distances_are_exported(tmp_path: Path):
    run = repertoire.fit("digits", head="harmonic", out=tmp_path / "run", **{**SMALL, "size": None})
    assert run.export("torchscript").exists()


@pytest.mark.parametrize("stream", ["closed", "full"])
def test_who_only_watches_ends_nothing(stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stderr", None if stream == "closed" else open("/dev/full", "w"))  # noqa: SIM115

    def fails(row: object) -> None:
        raise OSError("gone")

    with pytest.warns(errors.RepertoireWarning, match="gone"):
        run = repertoire.fit("digits", quiet=False, callbacks=[fails], out=tmp_path / "r", **{**SMALL, "size": None})
    assert run.info["status"] == "finished"


def test_paths_in_a_source_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    assert pinned(make_config(data="hf:data")).data == f"hf:{tmp_path / 'data'}"


@pytest.mark.parametrize("harm", ["damaged", "missing"])
def test_a_run_whose_best_weights_are_gone_answers_and_can_be_finished(harm: str, day: SimpleNamespace, tmp_path: Path):
    shutil.copytree(day.run.path, tmp_path / "run")
    best = tmp_path / "run" / "checkpoints" / "best.safetensors"
    best.write_bytes(best.read_bytes()[:100]) if harm == "damaged" else best.unlink()
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({**info, "status": "interrupted"}))
    with pytest.warns(errors.RepertoireWarning, match="last weights"):
        run = train.resume(tmp_path / "run")
    assert run.info["status"] == "finished"


def test_long_names_of_any_script_have_a_file(day: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture):
    name = "\u5199" * 80
    photograph(tmp_path / f"{name}.png")
    code, *_ = typed(capsys, "explain", day.run.path, tmp_path / f"{name}.png", "--top", 2, "--out", tmp_path / "maps")
    assert code == 0
    assert len(list((tmp_path / "maps").rglob("*.png"))) == 2


def test_large_pictures_are_refused_before_they_take_memory():
    # A header without pixels: what is said of it is said before any memory is taken.
    with pytest.raises(ValueError, match=r"decompression bomb|bytes of memory"):
        decode(b"P5\n30000 30000\n255\n", 32, "crop", None)


def test_metrics_keep_a_row_of_the_confusion_on_a_line(day: SimpleNamespace):
    text = day.run.directory.metrics_file.read_text()
    assert len(text.split("\n")) < 150
    assert re.search(r'"confusion": \[\n\s+\[\d+, \d+, \d+\],', text)


@pytest.mark.parametrize("format", ["csv", "json", "table"])
def test_a_terminal_that_knows_few_characters(
    format: str, day: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    photograph(tmp_path / "\u0436.png")
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="latin-1"))
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(day.run.path), str(tmp_path / "\u0436.png"), "--format", format])
    assert not stop.value.code
    assert b"\\u0436" in raw.getvalue()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epochs: 3\nepochs: 4\n", "set twice"),
        ("batch-size: 8\nbatch_size: 9\n", "twice"),
        ("epochs: yes\n", "yes, no, on and off"),
        ("lr: 1e-4\ntrack: tensorboard\nepochs: 1\n", ""),
    ],
)
def test_files_of_options(text: str, words: str, tmp_path: Path):
    (tmp_path / "c.yaml").write_text(text)

    def read() -> repertoire.train.TrainConfig:
        return make_config(data="digits", **repertoire.train.read_config(tmp_path / "c.yaml"))

    if words:
        with pytest.raises(errors.ConfigError, match=words):
            read()
    else:
        assert (read().lr, read().track) == (1e-4, ("tensorboard",))


def test_the_command_line_takes_back_what_a_file_says(tmp_path: Path):
    from repertoire.cli.train import UNSET, fields_of

    (tmp_path / "c.yaml").write_text("data: digits\nema: 0.9\npatience: 3\n")
    assert fields_of(tmp_path / "c.yaml", {"ema": UNSET}) == {"data": "digits", "patience": 3}


# Security.


def test_opening_a_run_runs_no_code(day: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(day.run.path, tmp_path / "run")
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump({**config, "plugins": ["evilmod"]}))
    (tmp_path / "run" / "evilmod.py").write_text("open('owned', 'w').close()")
    monkeypatch.chdir(tmp_path / "run")
    Run(".").predict(day.new / "other.png")
    info = json.loads(Path("run.json").read_text())
    Path("run.json").write_text(json.dumps({**info, "status": "interrupted"}))
    with pytest.raises(errors.RunError, match="names plugins"):
        train.resume(".")
    assert not Path("owned").exists()


@pytest.mark.parametrize("field", ["size", "classes", "mean", "format"])
def test_a_hostile_record_ends_in_a_line(field: str, day: SimpleNamespace, tmp_path: Path):
    shutil.copytree(day.run.path, tmp_path / "run")
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    values = {"size": 10**6, "classes": 5, "mean": None, "format": "x"}
    (tmp_path / "run" / "run.json").write_text(json.dumps({**info, field: values[field]}))
    with pytest.raises(errors.RunError) as caught:
        _ = Run(tmp_path / "run").model
    assert "\n" not in str(caught.value)


def test_weights_that_are_no_numbers_answer_nothing(day: SimpleNamespace, tmp_path: Path):
    shutil.copytree(day.run.path, tmp_path / "run")
    # Written as a run writes it: what is whole and holds no numbers is another matter than what is damaged.
    checkpoint = resolve_name("repertoire.train._checkpoint")
    best = checkpoint.load(tmp_path / "run" / "checkpoints" / "best.safetensors")
    nan = float("nan")
    spoilt = {name: value * nan if value.is_floating_point() else value for name, value in best.tensors.items()}
    checkpoint.save(tmp_path / "run" / "checkpoints" / "best.safetensors", spoilt, best.values)
    with pytest.raises(errors.CheckpointError, match="not finite"):
        train.load(tmp_path / "run").predict(day.new)


def test_names_that_a_spreadsheet_would_run_are_text(
    day: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture
):
    photograph(tmp_path / "=cmd\x1b[31m.png")
    monkey = os.getcwd()
    os.chdir(tmp_path)
    try:
        code, out, _ = typed(capsys, "predict", day.run.path, "=cmd\x1b[31m.png", "--format", "csv")
    finally:
        os.chdir(monkey)
    assert code == 0
    assert "\x1b" not in out
    assert "'=cmd" in out
