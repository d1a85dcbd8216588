"""Losses with a queue of earlier embeddings."""

from __future__ import annotations

import copy

import pytest
import torch

from repertoire.errors import ConfigError
from repertoire.losses import LOOK, MemoryInfoNCE, look_loss, memory_info_nce_loss, supcon_loss

LOSSES = {
    "look": (lambda **options: LOOK(neighbours=4, **options), lambda *a, **k: look_loss(*a, neighbours=4, **k)),
    "memory-info-nce": (MemoryInfoNCE, memory_info_nce_loss),
}


def batch(seed, n=6):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 5, generator=generator), torch.randint(0, 3, (n,), generator=generator)


@pytest.mark.parametrize("name", LOSSES)
def test_the_queue_joins_what_a_batch_is_compared_with(name):
    module, function = LOSSES[name]
    loss = module(queue=12, dimensions=5)
    (a, a_labels), (b, b_labels), (c, c_labels) = batch(0), batch(1), batch(2)
    torch.testing.assert_close(loss(a, a_labels), function(a, a_labels))
    loss.after_update()
    loss(b, b_labels)
    loss.after_update()
    everything = {"reference": torch.cat([c, a, b]), "reference_labels": torch.cat([c_labels, a_labels, b_labels])}
    expected = function(c, c_labels, **everything, exclude=torch.arange(6))
    torch.testing.assert_close(loss(c, c_labels), expected)
    # A reference set takes the place of the batch, not of the queue.
    expected = function(
        c, c_labels, reference=torch.cat([b, a, b]), reference_labels=torch.cat([b_labels, a_labels, b_labels])
    )
    torch.testing.assert_close(loss(c, c_labels, b, b_labels), expected)


@pytest.mark.parametrize("name", LOSSES)
def test_remembers_only_what_it_was_trained_on(name):
    loss = LOSSES[name][0](queue=12, dimensions=5)
    loss(*batch(0))
    assert not len(loss.queue)
    loss.eval()
    loss(*batch(1))
    loss.after_update()
    assert torch.equal(loss.queue.labels, batch(0)[1])  # the evaluation between pass and update left no trace
    loss.after_update()
    assert len(loss.queue) == 6


@pytest.mark.parametrize("name", LOSSES)
def test_a_copy_goes_on_alike(name):
    loss = LOSSES[name][0](queue=9, dimensions=5)
    for seed in range(3):
        loss(*batch(seed))
        loss.after_update()
    loss(*batch(3))
    twin = copy.deepcopy(loss)
    twin.after_update()  # a copy has seen nothing yet
    assert torch.equal(twin.queue.memory, loss.queue.memory)
    twin(*batch(3))
    loss.after_update()
    twin.after_update()
    assert torch.equal(loss(*batch(4)), twin(*batch(4)))


@pytest.mark.parametrize("name", LOSSES)
def test_a_queue_needs_dimensions(name):
    loss = LOSSES[name][0](queue=12)
    with pytest.raises(ConfigError, match="dimensions of the embeddings are not known"):
        loss(*batch(0))
    loss.prepare(5)
    loss(*batch(0))
    with pytest.raises(ConfigError, match="embeddings of 5 dimensions and the method makes 4"):
        loss.prepare(4)
    with pytest.raises(ConfigError, match="queue must be 0"):
        LOSSES[name][0](queue=-1)


def test_with_one_positive_each_info_nce_is_supcon():
    (x, _), (y, _) = batch(0), batch(1)
    labels = torch.arange(6)
    keys = {"reference": torch.cat([y, x.flip(0)]), "reference_labels": torch.cat([labels, torch.full((6,), -1)])}
    torch.testing.assert_close(
        memory_info_nce_loss(x, labels, temperature=0.1, **keys), supcon_loss(x, labels, temperature=0.1, **keys)
    )


def test_neighbours_must_be_positive():
    with pytest.raises(ConfigError, match="neighbours must be positive"):
        LOOK(neighbours=0)


def test_a_state_whose_width_is_not_known_yet_is_refused_with_the_way_out():
    loss = LOOK(queue=4, dimensions=5)
    with pytest.raises(RuntimeError, match=r"LOOK does not know yet how wide .* call prepare"):
        LOOK(queue=4).load_state_dict(loss.state_dict())
    other = LOOK(queue=4)
    other.prepare(5)
    other.load_state_dict(loss.state_dict())
