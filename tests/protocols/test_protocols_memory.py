from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from repertoire.data import FeatureSet, ImageSet, step_seed
from repertoire.errors import CheckpointError, ConfigError, DataError
from repertoire.protocols import Memory


def images(count: int, label: int, first: int = 0, classes: int = 4) -> ImageSet:
    """Images whose pixels say which of all samples each is."""
    number = np.arange(first, first + count)
    pixels = np.zeros((count, 3, 3, 1), dtype=np.uint8)
    pixels[:, 0, 0, 0], pixels[:, 0, 1, 0] = number % 256, number // 256
    names = [str(n) for n in number]
    return ImageSet(pixels, np.full(count, label), names, ("a", "b", "c", "d")[:classes], number.astype(np.uint64))


def numbers(memory: Memory) -> list[int]:
    """Which samples are kept; labels, names, keys and pixels agree."""
    kept = memory.samples
    pixels = kept.inputs(slice(None)).astype(int)
    found = pixels[:, 0, 0, 0] + 256 * pixels[:, 0, 1, 0]
    assert found.tolist() == kept.keys.tolist() == [int(name) for name in kept.names]
    return found.tolist()


def features(samples) -> np.ndarray:
    return samples.inputs(slice(None)).reshape(len(samples), -1).astype(np.float32)


@pytest.mark.parametrize("keep", ["reservoir", "herding", "typical"])
@pytest.mark.parametrize(("budget", "most"), [(10, 10), ("170B", 10), (0, 0), ("16B", 0), (100, 60)])
def test_the_budget_is_never_exceeded(keep: str, budget: int | str, most: int):
    memory = Memory(budget, keep)
    for stage in range(3):
        memory.update(images(20, stage, 20 * stage), features)
        assert len(memory) <= most
        assert memory.nbytes == 17 * len(memory)
        if len(memory):
            labels = np.array(numbers(memory)) // 20
            np.testing.assert_array_equal(memory.samples.labels, labels)
    assert memory.seen == 60
    if keep == "reservoir":
        assert len(memory) == min(most, 60)


def test_a_reservoir_is_a_uniform_sample_of_all_that_was_seen():
    counts = np.zeros(60)
    for seed in range(600):
        memory = Memory(6, seed=seed)
        for stage in range(3):
            memory.update(images(20, stage, 20 * stage))
        counts[numbers(memory)] += 1
    assert counts.sum() == 3600
    # Each is kept with probability 1 / 10: a chi-squared test with 59 degrees of freedom.
    assert ((counts - 60) ** 2 / (60 * 0.9)).sum() < 100


def test_a_reservoir_is_what_one_sample_at_a_time_would_keep():
    """Vitter's algorithm R in its own words, on the same random numbers."""
    memory, slots, seen = Memory(5, seed=3), [], 0
    for stage in range(3):
        generator = np.random.Generator(np.random.Philox(step_seed(3, seen, 2**64 - 4)))
        draws = generator.integers(0, seen + np.arange(20) + 1)
        for i in range(20):
            if len(slots) < 5:
                slots.append(20 * stage + i)
            elif draws[i] < 5:
                slots[draws[i]] = 20 * stage + i
            seen += 1
        # The memory puts what came in behind what stayed.
        slots.sort(key=lambda number: number >= 20 * stage)
        memory.update(images(20, stage, 20 * stage))
        assert numbers(memory) == slots


def test_herding_keeps_the_running_mean_near_that_of_the_class():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(30, 4)).astype(np.float32)
    keys = np.arange(30, dtype=np.uint64)
    samples = FeatureSet(x, np.zeros(30, dtype=np.int64), [str(i) for i in range(30)], ("a",), keys)
    memory = Memory(5, "herding")
    memory.update(samples, lambda s: s.inputs(slice(None)))
    z = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    chosen: list[int] = []
    for _ in range(5):
        rest = [i for i in range(30) if i not in chosen]
        chosen.append(min(rest, key=lambda i: np.linalg.norm(z.mean(0) - z[[*chosen, i]].mean(0))))
    assert memory.samples.keys.tolist() == chosen


def test_herding_shares_the_budget_and_lets_the_last_chosen_go_first():
    memory = Memory(12, "herding")
    memory.update(images(20, 0), features)
    first = numbers(memory)
    assert len(first) == 12
    memory.update(images(20, 1, 20), features)
    assert numbers(memory)[:6] == first[:6]
    memory.update(images(20, 2, 40), features)
    assert numbers(memory)[:4] == first[:4]
    assert np.bincount(memory.samples.labels).tolist() == [4, 4, 4]


def test_herding_weighs_new_samples_of_a_known_class_against_the_kept_ones():
    memory = Memory(4, "herding")
    memory.update(images(20, 0), features)
    memory.update(images(20, 0, 300), features)
    assert len(memory) == 4
    assert any(number >= 300 for number in numbers(memory))


def test_typical_samples_are_spread_over_the_distances_and_none_is_of_the_furthest_tenth():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(40, 4)).astype(np.float32) + 3
    keys = np.arange(40, dtype=np.uint64)
    samples = FeatureSet(x, np.zeros(40, dtype=np.int64), [str(i) for i in range(40)], ("a",), keys)
    z = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    rank = np.linalg.norm(z - z.mean(0), axis=1).argsort().argsort()
    for budget in (1, 3, 7, 36):
        memory = Memory(budget, "typical")
        memory.update(samples, lambda s: s.inputs(slice(None)))
        kept = np.sort(rank[memory.samples.keys.astype(int)])
        assert len(kept) == budget
        assert kept.max() < 36, "the furthest four of forty"
        # No gap is more than twice what even spacing has.
        gaps = np.diff(np.concatenate([[-1], kept, [36]]))
        assert gaps.max() <= 2 * 37 / (budget + 1) + 1
    memory = Memory(40, "typical")
    memory.update(samples, lambda s: s.inputs(slice(None)))
    assert len(memory) == 40, "where there is room for all, all stay"


@pytest.mark.parametrize("keep", ["reservoir", "herding", "typical"])
def test_what_is_saved_goes_on_to_the_same_memory(tmp_path: Path, keep: str):
    one, two = Memory(9, keep, seed=1), Memory(9, keep, seed=1)
    for stage in range(3):
        one.update(images(20, stage, 20 * stage), features)
        two.update(images(20, stage, 20 * stage), features)
        two.save(tmp_path / "memory.npz")
        two = Memory(9, keep, seed=1)
        two.load(tmp_path / "memory.npz")
        assert numbers(one) == numbers(two)
        assert one.samples.labels.tolist() == two.samples.labels.tolist()
        assert two.seen == one.seen


def test_a_damaged_memory_is_named(tmp_path: Path):
    Memory(3).save(tmp_path / "empty.npz")
    empty = Memory(3)
    empty.load(tmp_path / "empty.npz")
    assert len(empty) == 0
    path = tmp_path / "memory.npz"
    memory = Memory(3)
    memory.update(images(20, 0))
    memory.save(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match=r"memory\.npz is damaged"):
        Memory(3).load(path)
    with pytest.raises(CheckpointError, match=r"none\.npz is damaged"):
        Memory(3).load(tmp_path / "none.npz")


def test_what_it_cannot_keep():
    with pytest.raises(ConfigError, match="memory is 'much'"):
        Memory("much")
    with pytest.raises(ConfigError, match="memory is -1"):
        Memory(-1)
    with pytest.raises(ConfigError, match="keep must be"):
        Memory(3, "best")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="features_of"):
        Memory(3, "herding").update(images(20, 0))
    with pytest.raises(DataError, match="one class each"):
        Memory(3).update(images(20, -1))
    memory = Memory(3)
    memory.update(images(20, 0))
    x = np.zeros((2, 3), dtype=np.float32)
    with pytest.raises(DataError, match="the memory holds"):
        memory.update(FeatureSet(x, np.zeros(2, dtype=np.int64), ["0", "1"], ("a",), np.arange(2, dtype=np.uint64)))
