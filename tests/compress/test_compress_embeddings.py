from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import nn

from repertoire.compress import (
    HashEmbedding,
    LowRankEmbedding,
    MixedDimensionEmbedding,
    ProductCodeEmbedding,
    PrunedEmbedding,
    QuantisedEmbedding,
    QuotientRemainderEmbedding,
    TensorTrainEmbedding,
    embedding,
)
from repertoire.compress.embeddings._embedding import EmbeddingKind
from repertoire.errors import ConfigError, ShapeError

COUNT, DIM = 70, 12


def target(count: int = COUNT, dim: int = DIM) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(3))


WHOLE = [
    QuotientRemainderEmbedding(COUNT, DIM, rows=COUNT),
    QuotientRemainderEmbedding(COUNT, DIM, rows=COUNT, combine="sum"),
    LowRankEmbedding(COUNT, DIM, rank=DIM),
    TensorTrainEmbedding(COUNT, DIM, rank=1000),
    MixedDimensionEmbedding(COUNT, DIM, sizes=(20, 50), dims=(DIM, DIM)),
    MixedDimensionEmbedding(COUNT, DIM, sizes=(60, 10), dims=(DIM, DIM - 1)),
    ProductCodeEmbedding(COUNT, DIM, parts=3, codes=COUNT),
    PrunedEmbedding(COUNT, DIM, density=1.0),
]


@pytest.mark.parametrize("table", WHOLE[:5] + WHOLE[6:], ids=lambda table: type(table).__name__)
def test_as_large_as_the_vocabulary_it_represents_any_table(table):
    torch.testing.assert_close(table.fit(target()).table(), target(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("table", WHOLE, ids=lambda table: type(table).__name__)
def test_it_is_called_like_nn_embedding(table):
    ids = torch.tensor([[0, 5, COUNT - 1], [5, 5, 69]])
    plain = nn.Embedding.from_pretrained(table.table().detach())
    torch.testing.assert_close(table(ids), plain(ids))
    assert table(torch.zeros(0, dtype=torch.int64)).shape == (0, DIM)
    for wrong in (-1, COUNT):
        with pytest.raises(ShapeError, match=r"0\.\.69"):
            table(torch.tensor([0, wrong]))


def test_the_hash_is_what_it_says_and_ids_collide_otherwise_with_another_seed():
    table = HashEmbedding(1000, 4, rows=50, seed=7)
    a, b = table.factors
    expected = [((a * i + b) % (2**31 - 1)) % 50 for i in range(1000)]
    assert table.places(torch.arange(1000)).tolist() == expected
    assert HashEmbedding(1000, 4, rows=50, seed=8).places(torch.arange(1000)).tolist() != expected
    assert HashEmbedding(1000, 4, rows=50, seed=None).places(torch.arange(103)).tolist()[-3:] == [0, 1, 2]
    # No row is used much more than any other.
    assert max(expected.count(row) for row in range(50)) < 45


def test_hash_rows_become_means():
    table = HashEmbedding(6, 2, rows=2, seed=None).fit(torch.arange(12.0).view(6, 2))
    assert table.weight.tolist() == [[4.0, 5.0], [6.0, 7.0]]


@pytest.mark.parametrize("combine", ["mul", "sum"])
def test_quotient_and_remainder_are_found_again(combine):
    torch.manual_seed(0)
    truth = QuotientRemainderEmbedding(50, 4, rows=7, combine=combine)
    with torch.no_grad():
        for part in truth.parameters():
            part.abs_().add_(0.5)
    found = QuotientRemainderEmbedding(50, 4, rows=7, combine=combine).fit(truth.table())
    torch.testing.assert_close(found.table(), truth.table(), rtol=1e-4, atol=1e-4)
    i = 23
    parts = truth.remainder[23 % 7], truth.quotient[23 // 7]
    expected = parts[0] * parts[1] if combine == "mul" else parts[0] + parts[1]
    assert torch.equal(truth(torch.tensor(i)), expected)


def test_tensor_train_against_a_loop():
    torch.manual_seed(0)
    table = TensorTrainEmbedding(COUNT, DIM, rank=3).double()
    (_, n2, n3), (d1, d2, d3) = table.digits, table.axes
    assert d1 * d2 * d3 == DIM
    for i in (0, 1, 17, 69):
        matrices = table.cores[0][:, i // (n2 * n3)], table.cores[1][:, i // n3 % n2], table.cores[2][:, i % n3]
        for j in range(DIM):
            folded = j // (d2 * d3), j // d3 % d2, j % d3
            value = torch.eye(1, dtype=torch.float64)
            for part, place in zip(matrices, folded, strict=True):
                value = value @ part[:, place]
            torch.testing.assert_close(table(torch.tensor([i]))[0, j], value[0, 0])


def test_fitted_low_rank_is_the_best_of_its_rank():
    table = LowRankEmbedding(COUNT, DIM, rank=3).fit(target())
    s = torch.linalg.svdvals(target())
    torch.testing.assert_close((table.table() - target()).norm(), s[3:].norm())


def test_a_mixed_table_is_full_at_the_front():
    table = MixedDimensionEmbedding(COUNT, DIM, sizes=(20, 50), dims=(DIM, 2)).fit(target())
    torch.testing.assert_close(table.table()[:20], target()[:20])
    s = torch.linalg.svdvals(target()[20:])
    torch.testing.assert_close((table.table() - target())[20:].norm(), s[2:].norm())


def test_product_codes_are_the_nearest_and_both_learn():
    torch.manual_seed(0)
    table = ProductCodeEmbedding(COUNT, DIM, parts=3, codes=4)
    ids = torch.tensor([3, 3, 60])
    for row, codes in zip(table.rows.detach()[ids].view(3, 3, 4), table.codes(ids), strict=True):
        for part in range(3):
            distances = [float((row[part] - c).norm()) for c in table.centroids.detach()[part]]
            assert int(codes[part]) == min(range(4), key=distances.__getitem__)
    torch.testing.assert_close(table(ids)[2, 4:8], table.centroids[1, table.codes(ids)[2, 1]])
    table(ids).sum().backward()
    assert table.rows.grad[3].tolist() == [2.0] * DIM
    assert float(table.centroids.grad.sum()) == pytest.approx(3 * DIM)


def test_quantised_rows_are_whole_numbers_of_steps():
    table = QuantisedEmbedding(COUNT, DIM, bits=3).fit(target())
    step = target().abs().amax(1, keepdim=True) / 3
    torch.testing.assert_close(table.table(), (target() / step).round() * step)
    whole = QuantisedEmbedding(COUNT, DIM).fit(target())
    assert bool(((whole.table() - target()).abs() <= 0.501 * target().abs().amax(1, keepdim=True) / 127).all())
    whole.table().sum().backward()
    assert float(whole.weight.grad.min()) == float(whole.weight.grad.max()) == 1


def test_pruning_goes_on_from_what_was_pruned():
    table = PrunedEmbedding(COUNT, DIM, density=0.1).fit(target())
    kept = table.mask.clone()
    assert int(kept.sum()) == int(0.1 * COUNT * DIM)
    assert float(target()[kept].abs().min()) >= float(target()[~kept].abs().max())
    table.weight.data[~kept] = 100.0  # what was removed does not come back
    table.prune(0.05)
    assert bool((table.mask <= kept).all())
    assert int(table.mask.sum()) == int(0.05 * COUNT * DIM)


@pytest.mark.parametrize("kind", get_args(EmbeddingKind))
@pytest.mark.parametrize("share", [0.15, 0.5])
def test_each_kind_keeps_to_its_memory_and_learns(kind, share):
    torch.manual_seed(0)
    table = embedding(kind, 300, 32, share=share)
    if kind == "pruned":
        table.prune()
    assert 0.5 * share * 300 * 32 * 4 < table.bytes <= share * 300 * 32 * 4
    # What is counted is what there is, for those that keep nothing but floats.
    if kind not in ("product-codes", "quantised", "pruned"):
        assert table.bytes == 4 * sum(p.numel() for p in table.parameters()) == table.training_bytes
    assert 0.3 < float(table.table().detach().std()) < 3
    optimizer = torch.optim.Adam(table.parameters(), lr=0.05)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (table.table() - target(300, 32)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_bytes_of_codes_are_counted_in_bits():
    table = ProductCodeEmbedding(1001, 16, parts=2, codes=6)
    assert table.bytes == 4 * 6 * 16 + math.ceil(1001 * 2 * 3 / 8)
    assert QuantisedEmbedding(1001, 15, bits=3).bytes == 4 * 1001 + math.ceil(1001 * 15 * 3 / 8)


def test_what_does_not_fit_is_refused():
    for kind in get_args(EmbeddingKind):
        with pytest.raises(ConfigError):
            embedding(kind, 10_000, 8, share=1e-5)
    with pytest.raises(ConfigError, match="divide"):
        MixedDimensionEmbedding(10, 4, sizes=(5, 4), dims=(4, 4))
    with pytest.raises(ConfigError, match="dims must lie"):
        MixedDimensionEmbedding(10, 4, sizes=(5, 5), dims=(4, 5))
    with pytest.raises(ConfigError, match="does not divide the width"):
        ProductCodeEmbedding(10, 4, parts=3, codes=2)
    with pytest.raises(ConfigError, match="kind must be"):
        embedding("sparse", 10, 4)
    with pytest.raises(ShapeError, match="this embedding has"):
        LowRankEmbedding(10, 4, rank=2).fit(torch.zeros(4, 10))
