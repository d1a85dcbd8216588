from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.diagnostics import (
    class_overlap,
    compare_representations,
    label_errors,
    near_duplicates,
    neighbour_votes,
    relative_representation,
    stitching,
)
from repertoire.diagnostics._stream import blocks, class_moments, moments, sample
from repertoire.errors import DataError, ShapeError


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 30), st.integers(1, 5), st.integers(1, 7), st.integers(0, 999))
def test_moments_in_blocks_are_those_of_the_whole(count, width, rows, seed):
    x = 1e6 + torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = moments(x, rows)
    centred = x - x.mean(0)
    torch.testing.assert_close(found.mean, x.mean(0))
    torch.testing.assert_close(found.scatter, centred.T @ centred, rtol=1e-6, atol=1e-6)


def test_class_moments():
    generator = torch.Generator().manual_seed(0)
    x, labels = torch.randn(30, 4, generator=generator), torch.arange(30) % 3 - 1
    found, index = class_moments(list(x.split(8)), labels)
    within = sum((y - y.mean(0)).T @ (y - y.mean(0)) for k in range(-1, 2) for y in [x[labels == k].double()])
    torch.testing.assert_close(found.within, within)
    assert index.tolist() == (labels + 1).tolist()
    assert found.counts.tolist() == [10, 10, 10]


def test_only_a_block_of_a_memory_map_is_read(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(20, dtype=np.float32).reshape(10, 2))
    parts = list(blocks(np.load(tmp_path / "x.npy", mmap_mode="r"), 4))
    assert [len(part) for part in parts] == [4, 4, 2]
    assert parts[2].tolist() == [[16.0, 17.0], [18.0, 19.0]]


def test_a_sample_is_the_same_however_the_rows_come():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    rows, index = sample(x, 20)
    assert torch.equal(rows, x[index])
    assert index.tolist() == sorted(set(index.tolist()))
    for other in (x.numpy(), list(x.split(7)), lambda: x.split(9)):
        again, where = sample(other, 20)
        assert torch.equal(again, rows)
        assert torch.equal(where, index)
    assert torch.equal(sample(x, 99)[0], x)


def test_bad_blocks():
    with pytest.raises(ShapeError, match="blocks of 2 and of 3 columns"):
        list(blocks([torch.zeros(1, 2), torch.zeros(1, 3)]))
    with pytest.raises(ShapeError, match="tensors or arrays"):
        list(blocks([[1.0, 2.0]]))
    with pytest.raises(DataError, match=r"row 5;"):
        list(blocks([torch.zeros(3, 2), torch.tensor([[0.0, 0.0], [0.0, 0.0], [torch.nan, 0.0]])]))
    assert len(list(blocks(torch.full((2, 2), 3e38)))) == 1  # the sum overflows float32, the values do not
    with pytest.raises(ShapeError, match="integers"):
        class_moments(torch.zeros(2, 2), torch.zeros(2))
    with pytest.raises(ShapeError, match="labels are needed"):
        class_moments(torch.zeros(2, 2), None)


def given(x, folder):
    """A matrix in all the ways in which features may be given."""
    np.save(folder / "x.npy", x.numpy())
    return {
        "array": x.numpy(),
        "memory map": np.load(folder / "x.npy", mmap_mode="r"),
        "blocks": list(x.split(7)),
        "function": lambda: iter(x.split(11)),
    }


def test_functions_that_need_all_rows_take_features_in_every_form(tmp_path):
    """The registered diagnostics are looked at by their contract; these are the others."""
    x, labels = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3
    p = (3 * x[:, :3]).softmax(1)
    calls = {
        "near_duplicates": lambda z: near_duplicates(z, z).match,
        "neighbour_votes": lambda z: neighbour_votes(z, labels.numpy(), 3, queries=z),
        "relative_representation": lambda z: relative_representation(z, z),
        "compare_representations": lambda z: torch.tensor(compare_representations(z, z).jaccard),
        "stitching": lambda z: torch.tensor(stitching((z, z), labels.numpy(), (z, z), labels).own),
        "class_overlap": lambda z: class_overlap(z, labels).shares,
    }
    for form, z in given(x, tmp_path).items():
        for name, call in calls.items():
            torch.testing.assert_close(call(z), call(x), msg=f"{name} of {form}")
    for form, z in given(p, tmp_path).items():
        found = label_errors(z, labels.numpy())
        torch.testing.assert_close(found.index, label_errors(p, labels).index, msg=form)
    with pytest.raises(DataError, match="row 3"):
        neighbour_votes(x.index_fill(0, torch.tensor([3]), torch.nan), labels, 3)
    with pytest.raises(ShapeError, match=r"labels must lie in 0\.\.1"):
        neighbour_votes(x, labels, 2)
