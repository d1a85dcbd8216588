"""Codes that are read back exactly, vectors of signs, and how many bytes they take."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from repertoire.errors import CheckpointError, ConfigError
from repertoire.weights import Stored, TaskVector, TernaryVector, ternary
from repertoire.weights._rice import decode, encode, rice_bits


def code(number: int, bits: int) -> tuple[str, str]:
    """One number, as the definition has it."""
    return "1" * (number // 2**bits) + "0", format(number % 2**bits, f"0{bits}b") if bits else ""


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 300), max_size=30), st.integers(0, 9))
def test_codes_are_those_of_the_definition_and_are_read_back(numbers, bits):
    high, low = encode(np.array(numbers, np.int64), bits)
    parts = [code(number, bits) for number in numbers]
    for packed, column in ((high, 0), (low, 1)):
        expected = "".join(part[column] for part in parts)
        found = "".join(map(str, np.unpackbits(packed)))
        assert found == expected.ljust(-(-len(expected) // 8) * 8, "0")
    assert decode(high, low, len(numbers), bits).tolist() == numbers
    best = rice_bits(np.array(numbers, np.int64))
    sizes = [sum(len(a) + len(b) for a, b in (code(n, k) for n in numbers)) for k in range(12)]
    assert sizes[best] == min(sizes)
    with pytest.raises(ValueError, match="the codes hold"):
        decode(high, low, len(numbers) + 9, bits + 1)


def vector(sizes: tuple[int, ...] = (700, 300), seed: int = 0) -> TaskVector:
    generator = torch.Generator().manual_seed(seed)
    return TaskVector(
        {f"w{i}": (i + 1) * torch.randn(size // 10, 10, generator=generator) for i, size in enumerate(sizes)}
    )


@pytest.mark.parametrize("by_tensor", [False, True])
def test_only_signs_of_the_largest_are_kept(by_tensor, tmp_path):
    given = vector()
    small = given.compress(density=0.1, alpha=2.0, by_tensor=by_tensor)
    everything = torch.cat([given[name].flatten() for name in given])
    for name in given:
        over = given[name].flatten() if by_tensor else everything
        kept = sorted(over.abs().tolist(), reverse=True)[: int(0.1 * len(over))]
        size = 2.0 * float(over.double().std(correction=0))
        expected = torch.where(given[name].abs() >= kept[-1], size * given[name].sign(), torch.zeros(()))
        torch.testing.assert_close(small[name], expected)
    small.save(tmp_path / "small.safetensors")
    assert (tmp_path / "small.safetensors").stat().st_size == small.bytes
    torch.testing.assert_close(dict(TernaryVector.load(tmp_path / "small.safetensors")), dict(small), rtol=0, atol=0)


@pytest.mark.parametrize("density", [0.02, 0.05, 0.2, 0.5])
def test_the_file_is_as_small_as_the_entropy_allows(density):
    """Positions and signs of independent entries take n (H(k) + k) bits at least; the rest of the file is a header."""
    count = 400_000
    small = ternary({"w": torch.randn(count, generator=torch.Generator().manual_seed(0))}, density=density)
    entropy = -density * math.log2(density) - (1 - density) * math.log2(1 - density)
    bound = count * (entropy + density) / 8
    assert bound < small.bytes < 1.05 * bound + 500


def test_it_is_a_task_vector_like_any_other():
    first, second = vector(seed=1).compress(0.3), vector(seed=2).compress(0.3)
    base = {"w0": torch.ones(70, 10), "w1": torch.ones(30, 10), "head": torch.ones(2)}
    found = (first + 2 * second).add_to(base, 0.5)
    torch.testing.assert_close(found["w1"], 1 + 0.5 * first["w1"] + second["w1"])
    torch.testing.assert_close(found["head"], base["head"])
    assert repr(first) == f"TernaryVector(2 tensors, {first.bytes} bytes)"


def test_stored_for_a_network_it_wants_the_weights_that_were_fine_tuned():
    torch.manual_seed(0)
    base, fine = nn.Linear(5, 4), nn.Linear(5, 4)
    start = {name: value.clone() for name, value in base.state_dict().items()}
    small = TaskVector(fine.state_dict(), start).compress(density=0.5, base=start)
    built = small.stored.build(base)
    torch.testing.assert_close(dict(built.state_dict()), small.add_to(start), rtol=0, atol=0)
    with pytest.raises(CheckpointError, match="must hold the weights that were fine-tuned"):
        small.stored.build(nn.Linear(5, 4))
    with pytest.raises(CheckpointError, match="lacks weight, bias"):
        TaskVector(fine.state_dict(), start).compress(0.5).stored.build(nn.Sequential(nn.Linear(5, 4)))


def test_corners():
    nothing = ternary({"w": torch.zeros(5), "empty": torch.zeros(0, 3), "one": torch.zeros(())})
    assert nothing.stored.settings["count"] == 0
    torch.testing.assert_close(nothing["w"], torch.zeros(5))
    assert nothing["empty"].shape == (0, 3)
    whole = ternary({"w": torch.tensor([2.0, -1.0, 0.0])}, density=1.0)
    torch.testing.assert_close(whole["w"].sign(), torch.tensor([1.0, -1.0, 0.0]))
    last = ternary({"w": torch.tensor([0.0, 0.0, -3.0])}, density=0.1)
    torch.testing.assert_close(last["w"], torch.tensor([0.0, 0.0, -math.sqrt(2.0)]))
    with pytest.raises(ConfigError, match="density must lie in"):
        ternary({"w": torch.ones(3)}, density=0.0)


def test_damaged_codes_are_refused():
    stored = vector().compress(0.1).stored
    lacking = {name: value for name, value in stored.tensors.items() if name != "signs"}
    with pytest.raises(CheckpointError, match="damaged: 'signs'"):
        TernaryVector(Stored("ternary", lacking, stored.settings))
    short = {**stored.tensors, "high": stored.tensors["high"][:2]}
    with pytest.raises(CheckpointError, match="damaged: the codes hold"):
        TernaryVector(Stored("ternary", short, stored.settings))
    with pytest.raises(CheckpointError, match="do not fit the shapes"):
        TernaryVector(Stored("ternary", stored.tensors, {**stored.settings, "shapes": {"w0": [7, 10]}}))
    with pytest.raises(CheckpointError, match="found 'dense'"):
        TernaryVector(Stored("dense", {}))
