"""Further streams beside the main one, and samples that are not images: what the loader makes of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repertoire.data import CropFlip, FeatureSet, ImageSet, Loader, StreamSource, plain
from repertoire.errors import ConfigError, DataError


def image_set(count: int, seed: int = 0, labels: np.ndarray | None = None) -> ImageSet:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    targets = np.arange(count) % 2 if labels is None else labels
    names = [str(number) for number in range(count)]
    return ImageSet(pixels, targets, names, ("a", "b"), np.arange(count, dtype=np.uint64))


def feature_set(count: int = 30) -> FeatureSet:
    values = np.random.default_rng(1).normal(size=(count, 5)).astype(np.float16)
    factors = {"group": np.arange(count) // 3}
    names = [str(number) for number in range(count)]
    return FeatureSet(values, np.arange(count) % 3, names, ("a", "b", "c"), np.arange(count, dtype=np.uint64), factors)


def loader(size: int = 7, **options) -> Loader:
    streams = {"unlabelled": StreamSource(image_set(50, 1), size, CropFlip(), 2)}
    return Loader(image_set(24), 6, augmentation=CropFlip(), seed=3, **{"streams": streams, **options})


def equal(a, b) -> bool:
    return all(map(torch.equal, a.views, b.views)) and torch.equal(a.index, b.index)


def test_a_stream_changes_nothing_else():
    with_stream, without = list(loader().epoch(2)), list(loader(streams={}).epoch(2))
    assert len(with_stream) == len(without) == 4
    for one, other in zip(with_stream, without, strict=True):
        assert equal(one, other)
        assert not other.streams
    second = {"unlabelled": StreamSource(image_set(50, 1), 7, CropFlip(), 2), "outliers": StreamSource(image_set(9), 4)}
    for one, other in zip(with_stream, loader(streams=second).epoch(2), strict=True):
        assert equal(one, other)
        assert equal(one.streams["unlabelled"], other.streams["unlabelled"])
        assert torch.equal(
            other.streams["outliers"].images,
            plain(torch.from_numpy(image_set(9).images))[other.streams["outliers"].index],
        )


def test_a_stream_goes_through_its_samples_before_any_comes_again():
    index = torch.cat([batch.streams["unlabelled"].index for epoch in range(4) for batch in loader().epoch(epoch)])
    assert len(index) == 4 * 4 * 7
    laps = index[:50], index[50:100]
    assert all(sorted(lap.tolist()) == list(range(50)) for lap in laps)
    assert not torch.equal(*laps)


def test_a_run_that_resumes_goes_on_in_every_stream():
    whole = list(loader().epoch(1))
    for one, other in zip(whole[2:], loader().epoch(1, start=2), strict=True):
        assert equal(one, other)
        assert equal(one.streams["unlabelled"], other.streams["unlabelled"])


def test_ranks_share_a_stream():
    alone = list(loader(8).epoch(0))
    shares = [list(loader(8, rank=rank, world_size=2).epoch(0)) for rank in range(2)]
    for whole, first, second in zip(alone, *shares, strict=True):
        parts = [batch.streams["unlabelled"].index.tolist() for batch in (first, second)]
        assert [len(part) for part in parts] == [4, 4]
        assert sorted(parts[0] + parts[1]) == sorted(whole.streams["unlabelled"].index.tolist())


def test_a_stream_smaller_than_a_step():
    streams = {"probe": StreamSource(image_set(3), 7)}
    for batch in loader(streams=streams).epoch(0):
        assert torch.bincount(batch.streams["probe"].index, minlength=3).min() >= 2


def test_features_are_batched_as_they_are():
    samples = feature_set()
    batch = next(Loader(samples, 10, fields=("group",)).epoch(0))
    assert batch.views[0].dtype == torch.float32
    torch.testing.assert_close(batch.views[0], torch.from_numpy(samples.features[batch.index.numpy()]).float())
    assert torch.equal(batch.targets, batch.index % 3)
    assert torch.equal(batch.fields["group"], batch.index // 3)
    with pytest.raises(DataError, match="vectors have no object masks"):
        Loader(samples, 10, fields=("mask",))
    with pytest.raises(DataError, match="no field 'site'; its fields are: group"):
        Loader(samples, 10, fields=("site",))


def test_several_labels_of_which_nobody_knows_some():
    labels = np.array([[1, 0], [0, 255]] * 10, dtype=np.uint8)
    batch = next(Loader(image_set(20, labels=labels), 20, shuffle=False).epoch(0))
    assert batch.targets[:2].tolist() == [[1, 0], [0, -1]]
    assert batch.targets.dtype == torch.float32
    numbers = np.linspace(0, 1, 20, dtype=np.float32)[:, None]
    batch = next(Loader(image_set(20, labels=numbers), 20, shuffle=False).epoch(0))
    assert torch.equal(batch.targets, torch.from_numpy(numbers))


def test_named_views():
    views = {"weak": None, "strong": CropFlip(pixels=2), "same": plain}
    batch = next(Loader(image_set(6), 6, views=views, shuffle=False).epoch(0))
    assert batch.names == ("weak", "strong", "same")
    assert torch.equal(batch.view("same"), plain(torch.from_numpy(image_set(6).images)))
    for empty in (0, {}):
        with pytest.raises(ConfigError, match="views"):
            Loader(image_set(6), 6, views=empty)
