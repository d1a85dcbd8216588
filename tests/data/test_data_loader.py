"""The loader: every image once, and randomness that remembers nothing."""

from __future__ import annotations

import threading
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.data import CropFlip, StrongAugmentation, plain
from repertoire.data._loader import Loader, step_seed
from repertoire.data._types import Batch, ImageSet
from repertoire.errors import ConfigError, DataError


def image_set(count: int = 50, classes: int = 5, labels: np.ndarray | None = None) -> ImageSet:
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(count) % classes if labels is None else labels
    keys = np.arange(count, dtype=np.uint64)
    return ImageSet(images, labels, [str(i) for i in range(count)], tuple(map(str, range(classes))), keys)


def same(left: list[Batch], right: list[Batch]) -> bool:
    def equal(a: Batch, b: Batch) -> bool:
        tensors = zip((*a.views, a.targets, a.index), (*b.views, b.targets, b.index), strict=True)
        return all(torch.equal(x, y) for x, y in tensors)

    return len(left) == len(right) and all(map(equal, left, right))


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 60),
    batch_size=st.integers(1, 20),
    world_size=st.integers(1, 4),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
)
def test_every_image_once_over_all_ranks(
    count: int, batch_size: int, world_size: int, shuffle: bool, drop_last: bool
) -> None:
    images = image_set(count)
    options = {"shuffle": shuffle, "drop_last": drop_last, "world_size": world_size}
    if batch_size < world_size:
        with pytest.raises(ConfigError, match="batch_size"):
            Loader(images, batch_size, **options)
        return
    full, rest = divmod(count, batch_size)
    kept = rest > 0 and not drop_last and not (shuffle and rest < 2 * world_size)
    if full + kept == 0:
        with pytest.raises(DataError, match="no batch can be made"):
            Loader(images, batch_size, **options)
        return
    seen = []
    for rank in range(world_size):
        loader = Loader(images, batch_size, rank=rank, **options)
        assert loader.steps_per_epoch == full + kept
        batches = list(loader.epoch(2))
        if shuffle:
            assert len(batches) == loader.steps_per_epoch
        for batch in batches:
            index = batch.index.numpy()
            assert 0 < len(index) <= -(-batch_size // world_size)
            assert torch.equal(batch.images, plain(torch.from_numpy(images.images[index])))
            np.testing.assert_array_equal(batch.targets.numpy(), images.labels[index])
            seen.append(index)
    visited = np.sort(np.concatenate(seen))
    assert len(visited) == full * batch_size + rest * kept
    assert len(np.unique(visited)) == len(visited)
    if not shuffle:
        np.testing.assert_array_equal(visited, np.arange(len(visited)))


@pytest.mark.parametrize("prefetch", [False, True])
@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("augmentation", [CropFlip(), StrongAugmentation(), None])
def test_an_epoch_resumes_at_any_step_bit_for_bit(
    augmentation: torch.nn.Module | None, views: int, prefetch: bool
) -> None:
    def loader() -> Loader:
        return Loader(image_set(), 8, augmentation=augmentation, views=views, seed=5, prefetch=prefetch)

    whole = list(loader().epoch(3))
    assert len(whole) == 7
    for start in (0, 1, 4, 7):
        resumed = []
        for batch in loader().epoch(3, start=start):
            torch.rand(torch.randint(1, 9, ()).item())  # dropout, say
            resumed.append(batch)
        assert same(whole[start:], resumed)


def test_what_a_step_draws_later_is_resumed_too() -> None:
    loader = Loader(image_set(), 8, augmentation=CropFlip())
    whole = [torch.rand(3) for _ in loader.epoch(0)]
    torch.manual_seed(99)
    assert all(torch.equal(a, b) for a, b in zip(whole[3:], [torch.rand(3) for _ in loader.epoch(0, 3)], strict=True))


def test_prefetching_changes_nothing() -> None:
    plainly, ahead = (Loader(image_set(), 8, augmentation=CropFlip(), prefetch=flag) for flag in (False, True))
    assert same(list(plainly.epoch(1)), list(ahead.epoch(1)))


def test_prefetching_stops_when_the_consumer_does() -> None:
    before = threading.active_count()
    batches = Loader(image_set(), 8, prefetch=True).epoch(0)
    next(batches)
    assert threading.active_count() == before + 1
    batches.close()
    assert threading.active_count() == before


def test_an_error_while_reading_ahead_reaches_the_consumer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: ImageSet, index: np.ndarray) -> np.ndarray:
        raise OSError("disk gone")

    monkeypatch.setattr(ImageSet, "pixels", fail)
    with pytest.raises(OSError, match="disk gone"):
        next(Loader(image_set(), 8, prefetch=True).epoch(0))


def test_seed_epoch_step_rank_and_view_all_matter() -> None:
    images = image_set()

    def first(seed: int = 0, epoch: int = 0) -> torch.Tensor:
        return next(Loader(images, 8, augmentation=CropFlip(), seed=seed).epoch(epoch)).index

    assert torch.equal(first(), first())
    assert not torch.equal(first(), first(seed=1))
    assert not torch.equal(first(), first(epoch=1))
    views = next(Loader(images, 8, augmentation=CropFlip(), views=2).epoch(0)).views
    assert not torch.equal(*views)
    # The same image at two steps, or on two ranks, is not changed in the same way.
    copies = ImageSet(np.repeat(images.images[:1], 64, 0), np.zeros(64, int), range(64), ("a", "b"), np.zeros(64, "u8"))
    steps = [batch.images for batch in Loader(copies, 32, augmentation=CropFlip()).epoch(0)]
    assert not torch.equal(*steps)
    ranks = [next(Loader(copies, 64, augmentation=CropFlip(), rank=r, world_size=2).epoch(0)).images for r in (0, 1)]
    assert not torch.equal(*ranks)


def test_step_seed_is_a_64_bit_hash_of_its_arguments() -> None:
    seeds = {step_seed(a, b, c, d) for a in range(4) for b in range(4) for c in range(4) for d in range(4)}
    assert len(seeds) == 256
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert max(seeds) > 2**60
    # Checkpoints of one version are resumed by the next, so the value must not move.
    assert step_seed(1, 2, 3, 4) == 0xD2E09B25A4E6A3EB


def test_evaluation_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    batches = list(Loader(image_set(), 8, shuffle=False).epoch(0))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(torch.cat([batch.index for batch in batches]), torch.arange(50))


def test_orders_are_uniform() -> None:
    loader = Loader(image_set(4), 4)
    counts = np.zeros((4, 4))
    for epoch in range(800):
        counts[np.arange(4), loader._order(epoch)] += 1
    assert counts.min() > 150  # 200 expected, standard deviation 12
    assert counts.max() < 250


def test_balanced_draws_classes_equally_often() -> None:
    labels = np.repeat([0, 1, 3, -1], [80, 15, 5, 20])  # class 2 has no image, and twenty images no label
    loader = Loader(image_set(120, 4, labels), 10, balanced=True)
    assert loader.steps_per_epoch == 10
    targets = torch.cat([batch.targets for batch in loader.epoch(0)])
    assert sorted(torch.bincount(targets, minlength=4).tolist()) == [0, 33, 33, 34]
    reached = torch.cat([batch.index for epoch in range(20) for batch in loader.epoch(epoch)]).unique()
    assert reached.max() < 100
    assert len(reached) > 95


def test_subsets_are_read_through_their_rows() -> None:
    images = image_set()
    part = images.subset([3, 41, 7, 20])
    batch = next(Loader(part, 4, shuffle=False).epoch(0))
    assert batch.index.tolist() == [0, 1, 2, 3]
    assert torch.equal(batch.images, plain(torch.from_numpy(images.images[[3, 41, 7, 20]])))


def test_skipped_steps_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    pixels = ImageSet.pixels
    loader = Loader(image_set(), 5)
    monkeypatch.setattr(ImageSet, "pixels", lambda self, index: reads.append(1) or pixels(self, index))
    assert len(list(islice(loader.epoch(0, start=8), 5))) == 2
    assert len(reads) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": 0}, "views must be at least 1, found 0"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"rank": 1}, "rank"),
        ({"world_size": 9}, "batch_size must be at least 1 for each of 9"),
        ({"balanced": True, "shuffle": False}, "balanced"),
    ],
)
def test_options_out_of_range(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Loader(image_set(), 8, **options)


def test_epochs_and_starts_out_of_range() -> None:
    loader = Loader(image_set(), 8)
    with pytest.raises(ConfigError, match=r"start must be in \[0, 7\]"):
        loader.epoch(0, start=8)
    with pytest.raises(ConfigError, match="number of an epoch"):
        loader.epoch(-1)


def test_sets_that_give_no_batch() -> None:
    with pytest.raises(DataError, match="no labelled image"):
        Loader(image_set(5, labels=np.full(5, -1)), 2, balanced=True)
    with pytest.raises(DataError, match="none of 8 is full, and drop_last leaves out all others"):
        Loader(image_set(5), 8, drop_last=True)
    with pytest.raises(DataError, match="no image to load"):
        Loader(image_set(5).subset([]), 8, shuffle=False)
    with pytest.raises(DataError, match=r"made of 1 training image: it takes at least two, .* Add some, or provide"):
        Loader(image_set(1), 8)
    with pytest.raises(DataError, match="of 3 training images: it takes at least two for each of 2 processes"):
        Loader(image_set(3), 8, world_size=2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_are_made_on_the_gpu() -> None:
    loader = Loader(image_set(), 8, augmentation=StrongAugmentation(), device="cuda")
    whole = list(loader.epoch(0))
    assert all(batch.images.is_cuda and batch.targets.is_cuda and batch.index.is_cuda for batch in whole)
    assert same(whole[2:], list(loader.epoch(0, start=2)))


def grouped_set(sizes: list[int]) -> ImageSet:
    images = image_set(sum(sizes))
    group = np.random.default_rng(1).permutation(np.repeat(np.arange(len(sizes)), sizes))
    return replace(images, factors={"site": group})


@settings(max_examples=20, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    batch_size=st.integers(2, 9),
    world_size=st.integers(1, 2),
)
def test_batches_of_one_group_each(sizes: list[int], batch_size: int, world_size: int) -> None:
    images = grouped_set(sizes)
    batch_size = max(batch_size, world_size)
    options = {"grouped": "site", "world_size": world_size}
    expected = []
    for size in sizes:
        parts = [len(part) for part in np.array_split(np.arange(size), -(-size // batch_size))]
        expected += parts if min(parts) >= 2 * world_size else [batch_size] * (size // batch_size)
    if not expected:
        with pytest.raises(DataError, match="no batch can be made"):
            Loader(images, batch_size, **options)
        return
    loaders = [Loader(images, batch_size, rank=rank, **options) for rank in range(world_size)]
    for number in range(2):
        ranks = [list(loader.epoch(number)) for loader in loaders]
        assert {len(batches) for batches in ranks} == {loaders[0].steps_per_epoch} == {len(expected)}
        seen = []
        for parts in zip(*ranks, strict=True):
            index = np.concatenate([part.index.numpy() for part in parts])
            assert len(np.unique(images.factors["site"][index])) == 1
            assert world_size == 1 or all(part.together == len(index) for part in parts)
            seen.append(index)
        assert sorted(map(len, seen)) == sorted(expected)
        visited = np.concatenate(seen)
        assert len(np.unique(visited)) == len(visited)


@pytest.mark.parametrize("prefetch", [False, True])
def test_grouped_batches_resume_at_any_step_and_come_in_a_new_order(prefetch: bool) -> None:
    images = grouped_set([11, 7, 20])
    loader = Loader(images, 4, grouped="site", seed=5, prefetch=prefetch)
    whole = list(loader.epoch(3))
    for start in range(len(whole) + 1):
        assert same(whole[start:], list(Loader(images, 4, grouped="site", seed=5).epoch(3, start)))
    sites = [[int(images.factors["site"][batch.index[0]]) for batch in loader.epoch(number)] for number in (3, 4)]
    assert sites[0] != sites[1]


def test_grouped_needs_one_value_each_and_a_drawn_order() -> None:
    images = grouped_set([5, 5])
    with pytest.raises(DataError, match=r"grouped by 'camera'.*site"):
        Loader(images, 4, grouped="camera")
    for options in ({"balanced": True}, {"drop_last": True}, {"shuffle": False}):
        with pytest.raises(ConfigError, match="grouped=site"):
            Loader(images, 4, grouped="site", **options)
