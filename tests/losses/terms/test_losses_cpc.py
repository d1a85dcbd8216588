from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import cpc_loss, info_nce_loss


def reference(latents: Tensor, predictions: Tensor, first: int, temperature: float) -> float:
    """One prediction after the other, as the paper says."""
    count, length, _ = latents.shape
    everything = latents.flatten(0, 1).tolist()
    means = []
    for k, ahead in enumerate(predictions.tolist()):
        losses = []
        for n in range(count):
            for t in range(length - first - k):
                scores = [sum(p * z for p, z in zip(ahead[n][t], other, strict=True)) for other in everything]
                target = scores[n * length + t + first + k] / temperature
                losses.append(math.log(sum(math.exp(s / temperature) for s in scores)) - target)
        if losses:
            means.append(sum(losses) / len(losses))
    return sum(means) / len(means) if means else 0.0


def drawn(count: int, length: int, width: int, steps: int, seed: int, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(count, length, width, generator=generator, dtype=torch.float64)
    predictions = torch.randn(steps, count, length, width, generator=generator, dtype=torch.float64)
    return latents.to(dtype), predictions.to(dtype)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 4),
    st.integers(0, 5),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 6),
    st.sampled_from([0.3, 1.0, 10.0]),
    st.integers(0, 999),
)
def test_agrees_with_the_formula(count, length, width, steps, first, temperature, seed):
    latents, predictions = drawn(count, length, width, steps, seed)
    found = cpc_loss(latents, predictions, first=first, temperature=temperature)
    assert found.item() == pytest.approx(reference(latents, predictions, first, temperature), rel=1e-9, abs=1e-12)


def test_gradient():
    latents, predictions = drawn(2, 4, 3, 2, seed=0)
    assert torch.autograd.gradcheck(cpc_loss, (latents.requires_grad_(), predictions.requires_grad_()))


def test_half_precision_is_computed_in_full():
    latents, predictions = drawn(3, 4, 5, 2, seed=1, dtype=torch.bfloat16)
    found = cpc_loss(latents, predictions)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, cpc_loss(latents.float(), predictions.float()))


def test_sequences_of_two_steps_are_info_nce_with_the_first_steps_as_negatives():
    latents, predictions = drawn(5, 2, 3, 1, seed=2)
    options = {"normalize": False, "temperature": 1.0}
    ahead, after, before = predictions[0, :, 0], latents[:, 1], latents[:, 0]
    alone = info_nce_loss(ahead, after, **options)
    positive = (ahead * after).sum(1)
    everything = torch.logaddexp((ahead @ after.T).logsumexp(1), (ahead @ before.T).logsumexp(1))
    found = cpc_loss(latents, predictions)
    torch.testing.assert_close(found, (everything - positive).mean())
    assert found > alone


def test_the_order_of_the_sequences_does_not_matter():
    latents, predictions = drawn(4, 3, 3, 2, seed=3)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(cpc_loss(latents, predictions), cpc_loss(latents[order], predictions[:, order]))


@pytest.mark.parametrize(("count", "length", "first"), [(0, 4, 1), (3, 0, 1), (3, 1, 1), (3, 4, 4)])
def test_nothing_to_predict_is_a_zero_with_a_zero_gradient(count, length, first):
    latents, predictions = drawn(count, length, 2, 2, seed=4)
    latents.requires_grad_()
    loss = cpc_loss(latents, predictions.requires_grad_(), first=first)
    loss.backward()
    assert loss.item() == 0
    assert not latents.grad.any()
    assert not predictions.grad.any()


@pytest.mark.parametrize(
    ("latents", "predictions", "options", "said"),
    [
        (torch.zeros(3, 4), torch.zeros(1, 3, 4), {}, r"latents must be a floating point \[N, T, d\]"),
        (torch.zeros(3, 4, 2).long(), torch.zeros(1, 3, 4, 2), {}, "torch.int64"),
        (torch.zeros(3, 4, 2), torch.zeros(3, 4, 2), {}, r"predictions must be torch.float32 \[K, 3, 4, 2\]"),
        (torch.zeros(3, 4, 2), torch.zeros(1, 3, 4, 2).double(), {}, "torch.float64"),
        (torch.zeros(3, 4, 2), torch.zeros(1, 3, 5, 2), {}, r"found torch.float32 \[1, 3, 5, 2\]"),
        (torch.zeros(3, 4, 2), torch.zeros(1, 3, 4, 2), {"first": 0}, "first must be positive, found 0"),
    ],
)
def test_what_does_not_fit_is_named(latents, predictions, options, said):
    with pytest.raises((ConfigError, ShapeError), match=said):
        cpc_loss(latents, predictions, **options)


def test_a_temperature_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="temperature"):
        cpc_loss(torch.zeros(1, 2, 1), torch.zeros(1, 1, 2, 1), temperature=-1.0)
