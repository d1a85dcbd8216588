"""Hugging Face datasets, read from local files."""

from __future__ import annotations

import socket
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from repertoire.data._hf import _split_of, hf
from repertoire.data._source import SourceRequest
from repertoire.errors import ConfigError, DataError, MissingExtra, UnknownName, UnreadableImages

datasets = pytest.importorskip("datasets")

NAMES = ["ape", "bee", "cat"]
PIXELS = np.random.default_rng(0).integers(0, 256, (36, 8, 8, 3), dtype=np.uint8)
LABELS = [number % 3 for number in range(36)]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def png(pixels: np.ndarray) -> bytes:
    out = BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def table(rows: slice = slice(None), labels: list[Any] | None = None, feature: Any = None) -> Any:
    return datasets.Dataset.from_dict(
        {
            "number": list(range(36))[rows],
            "image": [{"bytes": png(pixels), "path": None} for pixels in PIXELS[rows]],
            "label": LABELS[rows] if labels is None else labels,
        },
        features=datasets.Features(
            number=datasets.Value("int64"),
            image=datasets.Image(),
            label=feature or datasets.ClassLabel(names=NAMES),
        ),
    )


def check(splits: Any) -> None:
    """All 36 images, each with its label."""
    keys = {pixels.tobytes(): number for number, pixels in enumerate(PIXELS)}
    seen = []
    for part in (splits.train, splits.val, splits.test):
        for pixels, label in zip(part.pixels(slice(None)), part.labels, strict=True):
            number = keys[pixels.tobytes()]
            assert splits.classes[label] == NAMES[LABELS[number]]
            seen.append(number)
    assert sorted(seen) == list(range(36))


def test_a_folder_saved_to_disk(tmp_path: Path) -> None:
    table().save_to_disk(tmp_path / "one")
    splits = hf(SourceRequest(), str(tmp_path / "one"))
    check(splits)
    assert splits.classes == tuple(NAMES)
    assert splits.train.size == (8, 8)
    parts = {"train": table(slice(0, 20)), "validation": table(slice(20, 26)), "test": table(slice(26, 36))}
    parts["extra"] = table()
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "many")
    splits = hf(SourceRequest(), str(tmp_path / "many"))
    check(splits)
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [20, 6, 10]
    assert splits.notes == ("Splits that were not used: extra.",)


def test_parquet_and_arrow_files(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    table(slice(0, 12)).to_parquet(tmp_path / "data" / "train-00000-of-00002.parquet")
    table(slice(12, 24)).to_parquet(tmp_path / "data" / "train-00001-of-00002.parquet")
    table(slice(24, 36)).to_parquet(tmp_path / "data" / "test-00000-of-00001.parquet")
    splits = hf(SourceRequest(), str(tmp_path))
    check(splits)
    assert len(splits.test) == 12
    single = tmp_path / "single.parquet"
    table().to_parquet(single)
    check(hf(SourceRequest(), str(single)))
    table().save_to_disk(tmp_path / "saved")
    arrow = next((tmp_path / "saved").glob("*.arrow"))
    check(hf(SourceRequest(), str(arrow)))


def test_parquet_without_the_metadata_of_datasets(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    plain = pyarrow.table({"img": [png(pixels) for pixels in PIXELS], "target": [NAMES[label] for label in LABELS]})
    pyarrow.parquet.write_table(plain, tmp_path / "plain.parquet")
    check(hf(SourceRequest(), str(tmp_path / "plain.parquet")))


def test_a_folder_in_the_imagefolder_layout(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for number, pixels in enumerate(PIXELS):
        file = tmp_path / "train" / NAMES[LABELS[number]] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(pixels))
    check(hf(SourceRequest(), str(tmp_path)))
    assert "".join(capfd.readouterr()) == "", "no progress bars"


@pytest.mark.parametrize("layout", ["parts", "classes", "deep parts", "listed"])
def test_what_systems_and_storage_leave_is_passed_over(layout: str, tmp_path: Path) -> None:
    """The builder would take a folder of thumbnails for a class, or the depth of one for that of all."""
    root = tmp_path / "data [1]"
    first = {"parts": root / "train", "deep parts": root / "set" / "train", "listed": root}.get(layout, root)
    for number, pixels in enumerate(PIXELS):
        file = first / NAMES[LABELS[number]] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(pixels))
    if layout == "listed":
        rows = [f"{NAMES[label]}/{number}.png,{NAMES[label]}" for number, label in enumerate(LABELS)]
        (root / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    left = [
        first / NAMES[0] / "@eaDir" / "0.png" / "SYNOPHOTO_THUMB_M.png",
        first / "#recycle" / NAMES[0] / "gone.png",
        root / "#snapshot" / "test" / "x.png",
        first / ".trash" / "gone.png",
        root / "@eaDir" / "table.parquet",
        root / ".cache" / "table.arrow",
    ]
    for file in left:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(PIXELS[0]))
    splits = hf(SourceRequest(), str(root))
    check(splits)
    assert any("hidden or left by a system" in note for note in splits.notes)


@pytest.mark.parametrize(
    ("file", "split"),
    [
        ("set/train-00000-of-00002.parquet", "train"),
        ("set/data/validation-00000.parquet", "validation"),
        ("set/test/part-0.parquet", "test"),
        ("train/test.parquet", "test"),
        ("set/latest.parquet", "train"),
        ("set/cifar_test.arrow", "test"),
    ],
)
def test_the_split_of_a_file(file: str, split: str) -> None:
    assert _split_of(Path(file)) == split


def test_labels_as_integers_or_text_and_columns_of_other_names(tmp_path: Path) -> None:
    text = table(labels=[NAMES[label] for label in LABELS], feature=datasets.Value("string"))
    text = text.rename_columns({"image": "photo", "label": "animal"})
    text.save_to_disk(tmp_path / "text")
    check(hf(SourceRequest(), str(tmp_path / "text"), label_column="animal"))
    with pytest.raises(DataError, match="no column is known to hold the labels; name one of number, photo, animal"):
        hf(SourceRequest(), str(tmp_path / "text"))
    with pytest.raises(UnknownName, match="did you mean 'animal'"):
        hf(SourceRequest(), str(tmp_path / "text"), label_column="animals")
    integers = table(labels=[10 * label if label else None for label in LABELS], feature=datasets.Value("int64"))
    integers.save_to_disk(tmp_path / "integers")
    splits = hf(SourceRequest(), str(tmp_path / "integers"))
    assert splits.classes == ("10", "20")
    assert (splits.train.labels == -1).sum() == 12
    table(labels=[number % 2 == 0 for number in range(36)], feature=datasets.Value("bool")).save_to_disk(tmp_path / "b")
    with pytest.raises(DataError, match="must be integers, text, lists of them, or floats; found Value"):
        hf(SourceRequest(), str(tmp_path / "b"))


def test_numbers_and_several_labels(tmp_path: Path) -> None:
    keys = {pixels.tobytes(): number for number, pixels in enumerate(PIXELS)}
    values = [None if number == 5 else number / 2 for number in range(36)]
    table(labels=values, feature=datasets.Value("float64")).save_to_disk(tmp_path / "floats")
    splits = hf(SourceRequest(), str(tmp_path / "floats"))
    assert (splits.kind, splits.classes, len(splits.extra["unlabelled"])) == ("number", ("label",), 1)
    for pixels, value in zip(splits.test.pixels(slice(None)), splits.test.labels, strict=True):
        assert value == values[keys[pixels.tobytes()]]
    lists = [[0, 2] if number % 2 else [1] for number in range(36)]
    for name, feature in (("named", datasets.ClassLabel(names=NAMES)), ("bare", datasets.Value("int64"))):
        table(labels=lists, feature=datasets.List(feature)).save_to_disk(tmp_path / name)
        splits = hf(SourceRequest(), str(tmp_path / name))
        assert splits.classes == (tuple(NAMES) if name == "named" else ("0", "1", "2"))
        for pixels, label in zip(splits.train.pixels(slice(None)), splits.train.labels, strict=True):
            assert np.flatnonzero(label).tolist() == lists[keys[pixels.tobytes()]]


def test_splits_by_all_their_usual_names(tmp_path: Path) -> None:
    parts = {"Training": table(slice(0, 20)), "dev": table(slice(20, 26)), "Testing": table(slice(26, 36))}
    datasets.DatasetDict({**parts, "unlabeled": table(slice(0, 5)).remove_columns("label")}).save_to_disk(
        tmp_path / "set"
    )
    splits = hf(SourceRequest(), str(tmp_path / "set"))
    check(splits)
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [20, 6, 10]
    assert (splits.extra["unlabelled"].labels == [-1] * 5).all()
    for number, pixels in enumerate(PIXELS):
        file = tmp_path / "files" / ("Test" if number > 23 else "Train") / NAMES[LABELS[number]] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(pixels))
    splits = hf(SourceRequest(), str(tmp_path / "files"))
    check(splits)
    assert len(splits.test) == 12


def test_without_labels(tmp_path: Path) -> None:
    table().remove_columns("label").save_to_disk(tmp_path / "set")
    with pytest.raises(DataError, match="no column is known to hold the labels"):
        hf(SourceRequest(), str(tmp_path / "set"))
    splits = hf(SourceRequest(unlabelled=True), str(tmp_path / "set"))
    assert (splits.train.labels == -1).all()
    assert splits.classes == ()


def test_brightness_is_that_of_the_set(tmp_path: Path) -> None:
    deep = datasets.Dataset.from_dict(
        {
            "image": [{"bytes": png(np.full((8, 8), 100 * number, np.uint16)), "path": None} for number in range(36)],
            "label": LABELS,
        },
        features=datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=NAMES)),
    )
    deep.save_to_disk(tmp_path / "set")
    splits = hf(SourceRequest(), str(tmp_path / "set"))
    assert splits.levels == {"uint16": (0, 4095)}
    rows = np.array([int(name.partition("/")[2]) for name in splits.train.names])
    assert (splits.train.pixels(slice(None))[:, 0, 0, 0] == np.rint(rows * 100 * (255 / 4095))).all()
    assert any("white at 4095" in note for note in splits.notes)


def test_a_test_split_without_labels_is_not_used(tmp_path: Path) -> None:
    parts = {"train": table(), "test": table(slice(0, 5), labels=[-1] * 5)}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "set")
    splits = hf(SourceRequest(), str(tmp_path / "set"))
    check(splits)
    assert "no labels" in splits.notes[0]


def test_sizes(tmp_path: Path) -> None:
    table().save_to_disk(tmp_path / "set")
    assert hf(SourceRequest(size=20), str(tmp_path / "set")).train.size == (20, 20)


def test_unreadable_images_are_all_named(tmp_path: Path) -> None:
    broken = datasets.Dataset.from_dict(
        {
            "image": [{"bytes": png(p)[:40] if i in (3, 30) else png(p), "path": None} for i, p in enumerate(PIXELS)],
            "label": LABELS,
        },
        features=datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=NAMES)),
    )
    broken.save_to_disk(tmp_path / "set")
    with pytest.raises(UnreadableImages) as caught:
        hf(SourceRequest(), str(tmp_path / "set"))
    assert [failure.path for failure in caught.value.failures] == ["train/3", "train/30"]
    assert "damaged" in caught.value.failures[0].reason or "truncated" in caught.value.failures[0].reason
    splits = hf(SourceRequest(skip_unreadable=True), str(tmp_path / "set"))
    assert len(splits.train) + len(splits.val) + len(splits.test) == 34
    assert len(splits.skipped) == 2


def test_the_hub_only_when_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no file or folder 'user/flowers'.*only with download=True"):
        hf(SourceRequest(), "user/flowers")
    table().save_to_disk(tmp_path / "set")
    with pytest.raises(ConfigError, match="config='small' is for datasets on the hub"):
        hf(SourceRequest(), str(tmp_path / "set"), config="small")


def test_files_that_are_no_dataset(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 hello")
    with pytest.raises(DataError, match=r"cannot read .*bad\.parquet"):
        hf(SourceRequest(), str(tmp_path / "bad.parquet"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"cannot read .*empty"):
        hf(SourceRequest(), str(tmp_path / "empty"))
    datasets.DatasetDict({"left": table(), "right": table()}).save_to_disk(tmp_path / "odd")
    with pytest.raises(DataError, match="no split named train; it has left, right"):
        hf(SourceRequest(), str(tmp_path / "odd"))
    numbers = datasets.Dataset.from_dict({"image": list(range(36)), "label": [NAMES[label] for label in LABELS]})
    numbers.save_to_disk(tmp_path / "numbers")
    with pytest.raises(UnreadableImages, match="holds int, not an encoded image"):
        hf(SourceRequest(), str(tmp_path / "numbers"))


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"repertoire-learn\[hf\]"):
        hf(SourceRequest(), "anything")


def test_a_plan_decodes_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan wants shapes and targets: unreadable images are no reason to refuse one, and none costs time."""
    table().save_to_disk(str(tmp_path / "data"))
    whole = hf(SourceRequest(size=8), str(tmp_path / "data"))
    monkeypatch.setattr("repertoire.data._hf.decode_or_look", lambda *_: pytest.fail("an image was decoded"))
    found = hf(SourceRequest(size=8, shapes=True), str(tmp_path / "data"))
    assert not found.train.pixels(slice(0, 3)).any()
    assert found.train.shape == whole.train.shape
    assert sorted(len(part) for part in (found.train, found.val, found.test)) == sorted(
        len(part) for part in (whole.train, whole.val, whole.test)
    )
