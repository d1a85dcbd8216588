"""A memory of patches: what it keeps, what it gives back, and what it costs; and stages that go on with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire import protocols, recipe
from repertoire.data import FeatureSet, ImageSet
from repertoire.errors import ConfigError, DataError
from repertoire.methods import Rebuilding
from repertoire.protocols import Memory, Patches, add_stage
from repertoire.rules import Backprop
from repertoire.train import fit, last_state

NET = "vit:patch=2,dim=16,depth=2,heads=2"


def images(count: int, label: int = 0, size: int = 8, channels: int = 1, first: int = 0) -> ImageSet:
    pixels = np.random.default_rng(first).integers(0, 256, (count, size, size, channels), dtype=np.uint8)
    keys = np.arange(first, first + count, dtype=np.uint64)
    return ImageSet(pixels, np.full(count, label), [str(key) for key in keys], ("a", "b", "c", "d"), keys)


def flat(samples) -> np.ndarray:
    return samples.inputs(slice(None)).reshape(len(samples), -1).astype(np.float32)


class Black(torch.nn.Module):
    """Draws nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))


def black() -> Rebuilding:
    """A method that leaves black what it does not know, and never looks at it."""

    class _Black(Rebuilding):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.side = 4

        def rebuild(self, images, order):
            return self.joined(images, order, torch.zeros(len(images), 16, images.shape[1] * 4))

    return _Black()


@settings(max_examples=20, deadline=None)
@given(
    st.integers(2, 5),
    st.integers(5, 11),
    st.sampled_from([1, 3]),
    st.sampled_from([0.1, 0.25, 0.5, 0.9]),
    st.booleans(),
)
def test_it_keeps_so_many_patches_of_each_image_and_gives_them_back(side, size, channels, share, herding):
    memory = Patches(7, "herding" if herding else "reservoir", side=side, size=size, share=share)
    samples = images(20, size=size, channels=channels)
    memory.update(samples, flat)
    count = min(max(1, round(share * side**2)), side**2 - 1)
    edge = -(-size // side)
    assert len(memory) == 7
    assert memory.samples.images.shape == (7, count * edge, edge, channels)
    assert memory.nbytes == memory.samples.images.nbytes + 7 * (8 + 8), "patches, labels and keys, and nothing else"
    whole, places = memory.recall(), memory.places(memory.samples.keys)
    assert places.shape == (7, count)
    for row, key in enumerate(memory.samples.keys):
        own, found = samples.images[key], whole.images[row]
        known, rest = [], []
        for p in range(side**2):
            rows, columns = (slice(edge * i, edge * i + edge) for i in divmod(p, side))
            if p in places[row]:
                assert (found[rows, columns] == own[rows, columns]).all()
                padded = np.zeros((edge, edge, channels))
                part = own[rows, columns]
                padded[: part.shape[0], : part.shape[1]] = part
                known.append(padded)
            else:
                rest.append(found[rows, columns].reshape(-1, channels))
        mean = np.stack(known).mean((0, 1, 2))
        assert np.abs(np.concatenate(rest) - mean).max(initial=0) <= 0.51


def test_which_patches_are_kept_follows_from_the_image_and_all_of_them_are_kept_alike():
    memory = Patches(10, side=4, size=8)
    keys = np.random.default_rng(0).integers(0, 2**63, 4000).astype(np.uint64)
    places = memory.places(keys)
    assert (np.diff(places, axis=1) > 0).all()
    np.testing.assert_array_equal(memory.places(keys[::-1]), places[::-1])
    assert (Patches(10, side=4, size=8, seed=1).places(keys) != places).any()
    # Each is among 4 of 16 with probability 1 / 4; 15 degrees of freedom.
    counts = np.bincount(places.ravel(), minlength=16)
    assert ((counts - 1000) ** 2 / 750).sum() < 40
    # Keys that follow each other are no more alike than others.
    near = memory.places(np.arange(4000, dtype=np.uint64))
    assert ((np.bincount(near.ravel(), minlength=16) - 1000) ** 2 / 750).sum() < 40
    both = np.bincount((near[:, 0] == near[:, 1] - 1).astype(int))
    assert both.min() > 0


@pytest.mark.parametrize("keep", ["reservoir", "herding", "typical"])
@pytest.mark.parametrize(("budget", "most"), [("320B", 10), ("319B", 9), (12, 12), (0, 0), ("31B", 0)])
def test_the_budget_is_never_exceeded(keep: str, budget: int | str, most: int):
    memory = Patches(budget, keep, side=4, size=8)
    for stage in range(3):
        memory.update(images(20, stage, first=20 * stage), flat, black)
        assert len(memory) <= most
        assert memory.nbytes == 32 * len(memory)
        if len(memory):
            np.testing.assert_array_equal(memory.samples.labels, memory.samples.keys // 20)
    assert len(memory) == (most if keep == "reservoir" else most // 3 * 3)


def test_for_the_same_bytes_it_chooses_as_a_memory_of_more_whole_images_would():
    patches, whole = Patches("640B", "herding", side=4, size=8), Memory(20, "herding")
    for stage in range(2):
        for memory in (patches, whole):
            memory.update(images(30, stage, first=30 * stage), flat)
    assert patches.samples.names == whole.samples.names
    assert len(Memory("640B", "herding").samples or ()) == 0
    smaller = Memory("640B", "herding")
    smaller.update(images(30), flat)
    assert len(smaller) == 640 // 72


def test_a_method_draws_what_is_missing():
    memory = Patches(5, side=4, size=8)
    memory.update(images(9))
    found, plain = memory.recall(black), memory.recall()
    assert type(found) is ImageSet
    known = memory.places(memory.samples.keys)
    for row in range(5):
        for p in range(16):
            rows, columns = (slice(2 * i, 2 * i + 2) for i in divmod(p, 4))
            expected = plain.images[row, rows, columns] if p in known[row] else 0
            assert (found.images[row, rows, columns] == expected).all()
    np.testing.assert_array_equal(found.labels, memory.samples.labels)
    np.testing.assert_array_equal(found.keys, memory.samples.keys)


def test_of_a_class_that_comes_again_the_kept_images_are_seen_rebuilt():
    memory = Patches(4, "herding", side=4, size=8)
    memory.update(images(20), flat)
    kept, seen = memory.recall(black), []

    def watched(samples):
        seen.append(samples)
        return flat(samples)

    memory.update(images(20, first=300), watched, black)
    assert len(memory) == 4
    assert [each.shape for each in seen] == [(1, 8, 8)] * 2
    np.testing.assert_array_equal(seen[1].images, kept.images)


def test_it_is_the_same_after_saving(tmp_path: Path):
    memory = Patches("640B", "herding", 3, side=4, size=8)
    memory.update(images(30), flat)
    memory.save(tmp_path / "memory.npz")
    other = Patches("640B", "herding", 5, side=4, size=8)
    other.load(tmp_path / "memory.npz")
    np.testing.assert_array_equal(other.recall().images, memory.recall().images)
    assert other.nbytes == memory.nbytes
    for each in (memory, other):
        each.update(images(30, 1, first=30), flat)
    assert other.samples.names == memory.samples.names
    with np.load(tmp_path / "memory.npz") as file:
        assert file["images"].nbytes == 20 * 16, "whole images are nowhere"
    smaller = Patches("320B", "herding", side=4, size=8)
    smaller.load(tmp_path / "memory.npz")
    smaller.shrink()
    assert len(smaller) == 10
    with pytest.raises(ConfigError, match="4 of 16 patches of images of 8 pixels, and here 8 of 16"):
        Patches(9, "herding", side=4, size=8, share=0.5).load(tmp_path / "memory.npz")
    with pytest.raises(ConfigError, match="keep patches here, too"):
        Memory(9, "herding").load(tmp_path / "memory.npz")


def test_of_whole_images_that_were_kept_it_keeps_patches(tmp_path: Path):
    whole, memory = Memory(12), Patches(12, side=4, size=8)
    for each in (whole, memory):
        each.update(images(30))
    whole.save(tmp_path / "memory.npz")
    again = Patches(12, side=4, size=8)
    again.load(tmp_path / "memory.npz")
    np.testing.assert_array_equal(again.samples.images, memory.samples.images)


def test_what_it_cannot_keep_is_refused():
    memory = Patches(9, side=4, size=8)
    rows = FeatureSet(
        np.zeros((3, 4), np.float32), np.zeros(3, np.int64), list("abc"), ("a",), np.arange(3).astype("u8")
    )
    with pytest.raises(DataError, match="keeps images of 8x8 pixels"):
        memory.update(rows)
    with pytest.raises(DataError, match="keeps images of 8x8 pixels"):
        memory.update(images(3, size=9))
    memory.update(images(3))
    with pytest.raises(DataError, match="images of 1 channels, and these have 3"):
        memory.update(images(3, channels=3))


@pytest.mark.parametrize(
    ("options", "match"), [({"share": 0.0}, "share"), ({"share": 1.0}, "share"), ({"side": 1}, "side")]
)
def test_options_out_of_range(options: dict, match: str):
    with pytest.raises(ConfigError, match=match):
        Patches(9, **{"side": 4, "size": 8, **options})


def bands(path: Path, classes: tuple[str, ...], count: int = 40, seed: int = 0) -> Path:
    """Grey images of 8 pixels with a bright band at a place that the class says."""
    places = {"top": 0, "middle": 2, "bottom": 4, "lowest": 6}
    generator = np.random.default_rng(seed)
    labels = np.arange(count * len(classes)) % len(classes)
    pixels = generator.integers(0, 160, (len(labels), 8, 8, 1), dtype=np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        image[places[classes[label]] : places[classes[label]] + 2] += 90
    np.savez(path, images=pixels, labels=labels, classes=np.array(classes))
    return path


def config_of(data: Path, method: str = "mae-cil", **fields) -> recipe.TrainConfig:
    given = {
        "backbone": NET,
        "head": "linear",
        "epochs": 1,
        "batch_size": 16,
        "lr": 0.01,
        "device": "cpu",
        "save_every": 1,
    }
    return recipe.make_config(data=str(data), method=method, **{**given, **fields})


class Stop(Exception):
    """Stands for a crash."""


@pytest.mark.parametrize("keep", ["reservoir", "herding"])
def test_killed_in_its_third_stage_it_ends_in_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: str):
    data = bands(tmp_path / "bands.npz", ("top", "middle", "bottom", "lowest"))
    spec = f"classes:first=2,step=1,order=given,memory=320B,store=patches,keep={keep}"
    original, steps, replayed, crash = Backprop.step, [], [], False

    def step(self, trained, batch):
        rows = trained.model.head.num_classes
        if rows == 4:
            replayed.append(batch.streams["replay"].images.clone())
            if crash and len(steps) == 1:
                raise Stop
            steps.append(rows)
        return original(self, trained, batch)

    monkeypatch.setattr(Backprop, "step", step)
    whole = protocols.follow(spec, config_of(data), out=tmp_path / "whole", bounds=False)
    first, replayed[:], steps[:], crash = [each.clone() for each in replayed], [], [], True
    with pytest.raises(Stop):
        protocols.follow(spec, config_of(data), out=tmp_path / "stopped", bounds=False)
    replayed[:], steps[:], crash = [], [], False
    again = protocols.follow(spec, config_of(data), out=tmp_path / "stopped", bounds=False)
    for one, two in zip(first[-len(replayed) :], replayed, strict=True):
        assert torch.equal(one, two)
    for t in range(3):
        one, two = (last_state(outcome.path / f"{t:02d}") for outcome in (whole, again))
        assert one.keys() == two.keys()
        for name in one:
            assert torch.equal(one[name], two[name]), name
    np.testing.assert_array_equal(whole.matrix, again.matrix)
    assert whole.metrics["memory_bytes"] == (320 if keep == "reservoir" else 8 * 32)
    with np.load(whole.path / "02-memory.npz") as one, np.load(again.path / "02-memory.npz") as two:
        assert one["images"].shape[1:] == (8, 2, 1)
        for name in one:
            np.testing.assert_array_equal(one[name], two[name])
    assert not (whole.path / "01-memory.npz").exists()


def test_what_is_replayed_is_drawn_by_the_network_of_the_stage_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = bands(tmp_path / "bands.npz", ("top", "middle", "bottom", "lowest"))
    seen, original = [], Backprop.step

    def step(self, trained, batch):
        if trained.model.head.num_classes == 4 and "replay" in batch.streams:
            seen.append((batch.streams["replay"].images, batch.streams["replay"].index))
        return original(self, trained, batch)

    monkeypatch.setattr(Backprop, "step", step)
    config = config_of(data, augment="none")
    outcome = protocols.follow(
        "classes:step=2,order=given,memory=8,store=patches", config, out=tmp_path / "out", bounds=False
    )
    state = last_state(outcome.path / "00")
    split = next(protocols.ClassIncremental(2, order="given").stages(recipe.load_splits(config), 0))
    method = recipe.build(
        recipe.resolve(config, split.splits(recipe.load_splits(config))), split.splits(recipe.load_splits(config))
    ).method
    method.load_state_dict(state)
    memory = Patches(8, seed=config.seed, side=4, size=8)
    memory.update(split.train)
    expected = memory.recall(lambda: method).images
    assert np.abs(expected.astype(int) - memory.recall().images).max() > 1, "it has drawn"
    assert seen
    for pixels, index in seen:
        found = (pixels * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        np.testing.assert_array_equal(found, expected[index.numpy()])


@pytest.mark.parametrize(
    ("method", "fields", "match"),
    [
        ("replay", {}, "'replay' does not: use .*mae-cil"),
        ("mae-cil", {"backbone": "convnet:width=4,depth=2"}, "use backbone vit"),
    ],
)
def test_where_nothing_can_draw_patches_are_refused(tmp_path: Path, method: str, fields: dict, match: str):
    data = bands(tmp_path / "bands.npz", ("top", "middle", "bottom", "lowest"))
    with pytest.raises(ConfigError, match=match):
        protocols.follow("classes:step=2,store=patches", config_of(data, method, **fields), out=tmp_path / "out")
    assert not list((tmp_path / "out").glob("*/00"))


def test_features_have_no_patches(tmp_path: Path):
    generator = np.random.default_rng(0)
    np.savez(tmp_path / "f.npz", features=generator.normal(size=(80, 5)).astype(np.float32), labels=np.arange(80) % 4)
    with pytest.raises(ConfigError, match="keeps patches of images, and what is learned here are"):
        protocols.follow(
            "classes:step=2,store=patches",
            config_of(tmp_path / "f.npz", "replay", backbone="identity"),
            out=tmp_path / "out",
            bounds=False,
        )


def test_a_run_goes_on_with_patches_of_what_it_has_seen(tmp_path: Path):
    old = bands(tmp_path / "old.npz", ("top", "middle"))
    more, third = (bands(tmp_path / f"{n}.npz", (n,), seed=i + 1) for i, n in enumerate(("bottom", "lowest")))
    first = fit(config=config_of(old), out=tmp_path / "a")
    options = {"by": "mae-cil", "memory": "320B", "store": "patches", "epochs": 1, "batch_size": 16}
    second = add_stage(first, more, out=tmp_path / "b", **options)
    assert second.outcome.metrics["memory_bytes"] == 320
    with np.load(tmp_path / "b" / "stages" / "memory.npz") as file:
        assert file["images"].shape == (10, 8, 2, 1)
    again = add_stage(first, more, out=tmp_path / "b", **options)
    np.testing.assert_array_equal(again.outcome.matrix, second.outcome.matrix)
    other = add_stage(tmp_path / "b", third, out=tmp_path / "c", **options)
    assert other.run.classes == ("top", "middle", "bottom", "lowest")
    assert other.outcome.metrics["memory_bytes"] == 320
    with pytest.raises(ConfigError, match="keep patches here, too"):
        add_stage(tmp_path / "b", third, out=tmp_path / "d", **{**options, "store": "whole"})
    with pytest.raises(ConfigError, match="store must be 'whole' or 'patches'"):
        add_stage(tmp_path / "b", third, out=tmp_path / "d", **{**options, "store": "halves"})


def test_a_run_that_has_not_learned_to_draw_is_refused(tmp_path: Path):
    old, more = (bands(tmp_path / f"{n}.npz", (n, m)) for n, m in (("top", "middle"), ("bottom", "lowest")))
    first = fit(config=config_of(old, "supervised"), out=tmp_path / "a")
    with pytest.raises(ConfigError, match="trained by 'supervised', not by 'mae-cil'"):
        add_stage(first, more, by="mae-cil", store="patches", out=tmp_path / "b", epochs=1)
    with pytest.raises(ConfigError, match="'replay' does not: use"):
        add_stage(first, more, store="patches", out=tmp_path / "b", epochs=1)
    assert not (tmp_path / "b").exists()
