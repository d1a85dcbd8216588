"""Small real data sets: read from made-up files of the same form, since none of the real ones comes with the tests."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repertoire.data import digest, load
from repertoire.errors import ConfigError, DataError

SOURCES = (
    *("fashion-mnist", "omniglot", "emoji", "cifar10", "spoken-digits", "letters", "landsat", "shuttle", "dna"),
    *("vowel", "segment", "yeast", "cora", "cifar10-lite0", "intents", "intents:collection=clinc150", "reviews"),
)
RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPERTOIRE_DATA", str(tmp_path))


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_that_is_not_here_says_in_one_line_what_to_install(source: str):
    with pytest.raises(DataError, match=f"'{source.partition(':')[0]}' is not here: .*REPERTOIRE_DATA") as caught:
        load(source)
    assert "\n" not in str(caught.value)


def images(count: int, side: int = 28) -> np.ndarray:
    return RANDOM.integers(0, 256, (count, side, side), dtype=np.uint8)


def test_fashion_from_an_archive_and_from_idx_files(tmp_path: Path):
    train, test = images(60), images(20)
    labels = np.arange(60, dtype=np.uint8) % 10, np.arange(20, dtype=np.uint8) % 10
    parts = (("train", train, labels[0]), ("t10k", test, labels[1]))
    for part, pixels, classes in parts:
        head = b"\x00\x00\x08\x03" + np.array(pixels.shape, ">u4").tobytes()
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + pixels.tobytes()))
        head = b"\x00\x00\x08\x01" + np.array(classes.shape, ">u4").tobytes()
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(head + classes.tobytes()))
    from_idx = load("fashion-mnist")
    np.savez(
        tmp_path / "fashion-mnist.npz",
        train_images=train,
        train_labels=labels[0],
        test_images=test,
        test_labels=labels[1],
    )
    whole = load("fashion-mnist")
    assert digest(whole) == digest(from_idx)
    np.testing.assert_array_equal(whole.test.pixels(slice(None))[..., 0], test)
    assert (len(whole.train) + len(whole.val), whole.classes[9]) == (60, "Ankle boot")
    some = load("fashion-mnist:count=40,tested=10", seed=3)
    assert (len(some.train) + len(some.val), len(some.test)) == (40, 10)
    assert digest(some) != digest(load("fashion-mnist:count=40,tested=10", seed=4))
    assert load("fashion-mnist", size=16).train.size == (16, 16)
    with pytest.raises(ConfigError, match="count must be from 1 to 60"):
        load("fashion-mnist:count=61")
    (tmp_path / "fashion-mnist.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match="get it again"):
        load("fashion-mnist")


def test_a_truncated_idx_file_is_named(tmp_path: Path):
    for part in ("train", "t10k"):
        for what in ("images-idx3", "labels-idx1"):
            (tmp_path / f"{part}-{what}-ubyte.gz").write_bytes(gzip.compress(b"\x00\x00\x08\x01\x00\x00\x00\x05abc"))
    with pytest.raises(DataError, match="holds 3 values, and its head says 5"):
        load("fashion-mnist")


def test_omniglot_is_divided_by_who_drew(tmp_path: Path):
    character, drawer = (grid.ravel() for grid in np.meshgrid(np.arange(6), np.arange(1, 11), indexing="ij"))
    np.savez(
        tmp_path / "omniglot-small.npz",
        images=images(60),
        character=character.astype(np.uint16),
        drawer=drawer.astype(np.uint8),
        alphabet=(character // 3).astype(np.uint8),
        alphabet_names=np.array(["A", "B"]),
        character_names=np.array([f"A/{n}" for n in range(6)]),
    )
    splits = load("omniglot")
    drawers = [set(part.factors["group"].tolist()) for part in (splits.train, splits.val, splits.test)]
    assert len(set.union(*drawers)) == sum(map(len, drawers))
    assert load("omniglot:alphabets=1").classes == ("A/0", "A/1", "A/2")
    with pytest.raises(ConfigError, match="alphabets must be from 1 to 2"):
        load("omniglot:alphabets=3")


def test_emoji_show_no_colour_that_is_transparent(tmp_path: Path):
    drawings = RANDOM.integers(0, 256, (40, 64, 64, 4), dtype=np.uint8)
    drawings[:, :20, :, 3], drawings[:, 20:, :, 3] = 0, 255
    np.savez(
        tmp_path / "emoji-google.npz",
        images=drawings,
        category=np.repeat(np.arange(4, dtype=np.uint8), 10),
        category_names=np.array(["Faces", "Food", "Flags", "Rare"]),
    )
    splits = load("emoji:least=5")
    assert splits.classes == ("Faces", "Food", "Rare")
    shown = splits.train.pixels(slice(None))
    assert (shown[:, :20] == 255).all()
    assert not splits.train.object_masks(slice(None))[:, :20].any()
    assert splits.train.object_masks(slice(None))[:, 20:].all()
    assert load("emoji:least=5,flags=true").classes[2] == "Flags"
    assert load("emoji:least=5", size=32).train.object_masks([0]).shape == (1, 32, 32)
    with pytest.raises(DataError, match="emoji-twitter"):
        load("emoji:vendor=twitter")


def test_cifar_from_a_zip_file_and_from_a_folder(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "cifar10.zip", "w") as archive:
        for part, count in (("train", 12), ("test", 3)):
            for name in ("cat", "dog"):
                for number in range(count):
                    data = io.BytesIO()
                    Image.fromarray(RANDOM.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(data, "png")
                    archive.writestr(f"{part}/{name}/{number:04}.png", data.getvalue())
    zipped = load("cifar10")
    assert (len(zipped.train) + len(zipped.val), len(zipped.test), zipped.classes) == (24, 6, ("cat", "dog"))
    some = load("cifar10:count=16,tested=4")
    assert np.concatenate([some.train.labels, some.val.labels]).tolist().count(0) == 8
    with zipfile.ZipFile(tmp_path / "cifar10.zip") as archive:
        archive.extractall(tmp_path / "cifar10")
    assert digest(load("cifar10")) == digest(zipped)
    for spec, message in (("count=15", "multiple of the 2 classes"), ("count=26", "13 train images of 'cat'")):
        with pytest.raises(ConfigError, match=message):
            load(f"cifar10:{spec}")


def test_glyphs_are_letters_of_fonts_and_no_font_is_in_two_parts():
    splits = load("glyphs:script=digits")
    assert splits.classes[:2] == ("digit zero", "digit one")
    fonts = [set(part.factors["group"].tolist()) for part in (splits.train, splits.val, splits.test)]
    assert len(set.union(*fonts)) == sum(map(len, fonts))
    shown = splits.train.pixels(slice(None))[..., 0].astype(float)
    assert (shown.max((1, 2)) > 200).all()
    zero, one = (shown[splits.train.labels == label].mean() for label in (0, 1))
    assert zero > one, "a zero has more ink than a one"


def test_spoken_digits_are_spectra(tmp_path: Path):
    rate, count = 8000, 60
    pitch = 500.0 * (1 + np.arange(count) % 6)
    waves = [np.sin(2 * np.pi * f * np.arange(2000 + 10 * i) / rate) for i, f in enumerate(pitch)]
    waves = [wave + 0.01 * RANDOM.normal(size=len(wave)) for wave in waves]
    ends = np.cumsum([0, *map(len, waves)])
    np.savez(
        tmp_path / "spoken-digits.npz",
        samples=(np.concatenate(waves) * 9000).astype(np.int16),
        offsets=ends,
        digit=(np.arange(count) // 6).astype(np.uint8),
        speaker=(np.arange(count) % 6).astype(np.uint8),
        speaker_names=np.array(list("abcdef")),
        rate=np.array(rate),
    )
    splits = load("spoken-digits")
    for part in (splits.train, splits.test):
        loudest = 31 - part.pixels(slice(None))[..., 0].astype(float).mean(2).argmax(1)  # from the bottom
        expected = 500.0 * (1 + part.factors["group"]) / (rate / 2) * 32 - 1
        np.testing.assert_allclose(loudest, expected, atol=1)
    assert load("spoken-digits:label=speaker,by=recording").classes == tuple("abcdef")
    with pytest.raises(ConfigError, match="by=recording"):
        load("spoken-digits:label=speaker")


def test_tables_are_scaled_and_speakers_stay_together(tmp_path: Path):
    rows = (RANDOM.normal(5, 3, (90, 4))).astype(np.float32)
    common = {"X": rows, "y": np.arange(90, dtype=np.uint8) % 3, "class_names": np.array(["a", "b", "c"])}
    np.savez(tmp_path / "vowel.npz", speaker=(np.arange(90) // 9).astype(np.uint8), **common)
    np.savez(tmp_path / "letter.npz", **common)
    splits = load("vowel")
    assert not set(splits.train.factors["group"].tolist()) & set(splits.test.factors["group"].tolist())
    every = np.concatenate([part.inputs(slice(None)) for part in (splits.train, splits.val, splits.test)])
    np.testing.assert_allclose(every.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(every.std(0), 1, atol=1e-5)
    some = load("letters:count=20")
    assert len(some.train) + len(some.val) + len(some.test) == 20
    with pytest.raises(ConfigError, match="size is for images"):
        load("letters", size=8)


def test_a_long_tail_keeps_its_rarest_classes(tmp_path: Path):
    labels = np.repeat(np.arange(3, dtype=np.uint8), [500, 40, 4])
    rows = RANDOM.normal(size=(len(labels), 2)).astype(np.float32)
    np.savez(tmp_path / "shuttle.npz", X=rows, y=labels, class_names=np.array(["a", "b", "c"]))
    splits = load("shuttle:count=60")
    assert all(part.counts().min() >= 1 for part in (splits.train, splits.val, splits.test))
    assert splits.train.counts()[0] > 25


def test_genes_have_several_functions(tmp_path: Path):
    functions = RANDOM.integers(0, 2, (60, 5)).astype(np.uint8)
    rows = RANDOM.normal(size=(60, 7)).astype(np.float32)
    np.savez(tmp_path / "yeast.npz", X=rows, Y=functions, label_names=np.array(list("vwxyz")))
    assert (load("yeast").kind, load("yeast").classes) == ("labels", tuple("vwxyz"))


def test_words_of_cited_papers_are_averaged(tmp_path: Path):
    words = np.eye(30, dtype=np.uint8)
    edges = np.array([[0, 1], [1, 0]], np.int32)
    np.savez(
        tmp_path / "cora.npz",
        edge_index=edges,
        labels=(np.arange(30) % 2).astype(np.int16),
        features_data=np.ones(30, np.uint8),
        features_indices=np.arange(30, dtype=np.int32),
        features_indptr=np.arange(31, dtype=np.int32),
        features_shape=np.array(words.shape, np.int32),
    )
    splits = load("cora:hops=1")
    rows = {}
    for part in (splits.train, splits.val, splits.test):
        rows |= dict(zip(map(int, part.names), part.inputs(slice(None)), strict=True))
    # Papers 0 and 1 cite each other and nothing else: each has half of its own words and half of the other's.
    np.testing.assert_allclose(rows[0][:2], [0.5, 0.5])
    np.testing.assert_allclose(rows[5], np.eye(30)[5])
    with pytest.raises(ConfigError, match="hops"):
        load("cora:hops=-1")


def test_texts_are_their_words(tmp_path: Path):
    lines = [("train", f"my card is lost {n}", "lost") for n in range(12)]
    lines += [("train", f"what is the rate {n}", "rate") for n in range(12)]
    lines += [("test", "card lost", "lost"), ("test", "the rate", "rate")]
    text = "split,text,intent\n" + "\n".join(",".join(line) for line in lines)
    (tmp_path / "banking77.csv.gz").write_bytes(gzip.compress(text.encode()))
    splits = load("intents")
    rows, test = splits.train.inputs(slice(None)), splits.test.inputs(slice(None))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    nearest = splits.train.labels[(test @ rows.T).argmax(1)]
    assert nearest.tolist() == splits.test.labels.tolist() == [0, 1]
    held = {part: [[f"{part} word{n}", "a" if n % 2 else "b"] for n in range(10)] for part in ("train", "val", "test")}
    (tmp_path / "clinc150.json.gz").write_bytes(gzip.compress(json.dumps(held).encode()))
    other = load("intents:collection=clinc150")
    assert (len(other.train) + len(other.val), len(other.test)) == (20, 10)
    reviews = text.replace("split,text,intent", "split,text,label")
    (tmp_path / "food-reviews.csv.gz").write_bytes(gzip.compress(reviews.encode()))
    assert load("reviews:count=20").classes == ("lost", "rate")
