"""Task vectors: what is computed, in which order nothing matters, and how little is held."""

from __future__ import annotations

import pytest
import torch
from live import live_bytes
from torch import Tensor

from repertoire.errors import CheckpointError
from repertoire.weights import LazyState, TaskVector, linear, save_state, task_arithmetic, ties


def state(seed: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "w": torch.randn(4, 3, generator=generator).to(dtype),
        "b": torch.randn((), generator=generator).to(dtype),
        "steps": torch.tensor(10 + seed),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_added_to_its_base_it_is_the_state_bit_for_bit(dtype):
    fine, base = state(0, dtype), state(1, dtype)
    vector = TaskVector(fine, base)
    assert set(vector) == {"w", "b"}
    found = vector.add_to(base)
    torch.testing.assert_close(found, fine | {"steps": base["steps"]}, rtol=0, atol=0)
    torch.testing.assert_close(vector.add_to(base, scale=0.0), base, rtol=0, atol=0)
    for tensor in (*found.values(), *vector.values()):
        tensor.zero_()
    torch.testing.assert_close(fine, state(0, dtype), rtol=0, atol=0)
    torch.testing.assert_close(base, state(1, dtype), rtol=0, atol=0)


def test_differences_of_half_precision_are_float32():
    vector = TaskVector({"w": torch.tensor([1.0]).bfloat16()}, {"w": torch.tensor([1.0078125]).bfloat16()})
    assert vector["w"].dtype == torch.float32
    assert vector["w"].item() == -0.0078125


def test_arithmetic_is_that_of_the_tensors():
    base, a, b = state(0, torch.float64), state(1, torch.float64), state(2, torch.float64)
    first, second = TaskVector(a, base), TaskVector(b, base)
    made = (sum([first, second]) * 2 - first / 4) * 0.5 + -second
    expected = (2 * (a["w"] + b["w"] - 2 * base["w"]) - (a["w"] - base["w"]) / 4) / 2 - (b["w"] - base["w"])
    torch.testing.assert_close(made["w"], expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(made.add_to(base, 3.0)["w"], base["w"] + 3 * expected, rtol=1e-12, atol=1e-12)
    found = task_arithmetic([a, b], base, scale=0.25, weights=(2.0, 1.0))
    torch.testing.assert_close((2 * first + second).add_to(base, 0.25)["w"], found["w"], rtol=1e-12, atol=1e-12)


def test_a_vector_can_be_given_as_it_is():
    vector = TaskVector({"w": torch.ones(2)})
    torch.testing.assert_close(
        vector.add_to({"w": torch.zeros(2), "head": torch.ones(1)}, 2.0)["w"], torch.full((2,), 2.0)
    )


def test_what_does_not_fit_is_named():
    base = state(0)
    with pytest.raises(CheckpointError, match="lacks more"):
        TaskVector({**state(1), "more": torch.ones(1)}, base)
    with pytest.raises(CheckpointError, match=r"other shapes: w \[4, 3\], expected \[2\]"):
        TaskVector({"w": torch.ones(2)}, base)
    with pytest.raises(CheckpointError, match="only one has b"):
        TaskVector(state(1), base) + TaskVector({"w": torch.ones(4, 3)}, base)
    with pytest.raises(CheckpointError, match="lacks w"):
        TaskVector(state(1), base).add_to({"b": base["b"]})
    with pytest.raises(TypeError):
        TaskVector(state(1), base) + 1
    with pytest.raises(KeyError):
        TaskVector(state(1), base)["steps"]


def test_merging_files_holds_one_result_and_little_else(tmp_path):
    """Eight tensors of 4 MB: a result of 32 MB, and less than 1.3 times the largest tensor beside it; for a sign
    election, which has to know how large the changes of a tensor are, less than four times."""
    size = 1 << 20
    for number in range(3):
        generator = torch.Generator().manual_seed(number)
        save_state(
            {f"w{i}": torch.randn(size, generator=generator) for i in range(8)}, tmp_path / f"{number}.safetensors"
        )
    base, *fine = (LazyState(tmp_path / f"{number}.safetensors") for number in range(3))
    result, tensor = 8 * 4 * size, 4 * size
    merged = {
        "linear": (lambda: linear(fine), 1.3),
        "task arithmetic": (lambda: task_arithmetic(fine, base), 1.3),
        "a vector": (lambda: (TaskVector(fine[0], base) + TaskVector(fine[1], base)).add_to(base), 1.3),
        "ties": (lambda: ties(fine, base), 4.0),
    }
    for name, (merge, allowed) in merged.items():
        with live_bytes() as seen:
            found = merge()
        assert result <= seen.peak < result + allowed * tensor + 2 * (1 << 20) * 8, (name, seen.peak / 2**20)
    with live_bytes() as seen:
        save_state(found, tmp_path / "out.safetensors")
    assert seen.peak == 0  # what is written is the result itself
