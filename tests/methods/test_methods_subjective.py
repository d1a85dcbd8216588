"""Several networks for data that contradicts itself."""

from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from repertoire import backbones, heads, losses
from repertoire.data import Batch, FeatureSet, Splits
from repertoire.errors import ConfigError
from repertoire.methods import Classifier, Normalize, Subjective, Supervised
from repertoire.recipe import build, make_config, resolve
from repertoire.train import in_memory


def classifier(width: int = 3, kind: str = "convnet") -> Classifier:
    torch.manual_seed(0)
    net = backbones.ConvNet(in_channels=1, image_size=8, width=4, depth=2)
    return Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, width))


def batch_of(count: int = 6, seed: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return Batch((torch.rand(count, 1, 8, 8, generator=generator),), torch.arange(count) % 3, torch.arange(count))


def test_one_network_is_supervised_training():
    model = classifier()
    ours, plain = (
        Subjective(copy.deepcopy(model), losses.CrossEntropy(), models=1),
        Supervised(model, losses.CrossEntropy()),
    )
    found, expected = ours.step(batch_of()), plain.step(batch_of())
    assert torch.equal(found.loss, expected.loss)
    for one, other in zip(
        torch.autograd.grad(found.loss, list(ours.parameters())),
        torch.autograd.grad(expected.loss, list(plain.parameters())),
        strict=True,
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize("seed", range(4))
def test_the_network_with_the_least_loss_is_trained_and_no_other(seed: int):
    method = Subjective(classifier(), losses.CrossEntropy(), models=3, warmup=0)
    batch = batch_of(seed=seed)
    # The loss of each by hand, from a copy: in training mode a pass would move statistics.
    said = []
    for network in copy.deepcopy(method).networks:
        logits = network(batch.images).detach().double()
        each = [-float(row.softmax(0)[y].log()) for row, y in zip(logits, batch.targets.tolist(), strict=True)]
        said.append(sum(each) / len(each))
    best = int(np.argmin(said))
    torch.testing.assert_close(
        method.losses_of(batch).double(), torch.tensor(said, dtype=torch.float64), atol=1e-5, rtol=0
    )
    before = copy.deepcopy(method.state_dict())
    optimizer = torch.optim.AdamW(method.parameters(), lr=0.01)
    step = method.step(batch)
    assert float(step.logs[f"to_{best}"]) == 1 == sum(float(step.logs[f"to_{k}"]) for k in range(3))
    step.loss.backward()
    optimizer.step()
    for k, prefix in enumerate(("model.", "others.0.", "others.1.")):
        moved = [not torch.equal(v, before[n]) for n, v in method.state_dict().items() if n.startswith(prefix)]
        assert any(moved) == (k == best), "statistics of batch normalisation included"


def test_looking_leaves_nothing_behind():
    method = Subjective(classifier(), losses.CrossEntropy(), models=2)
    before, random = copy.deepcopy(method.state_dict()), torch.get_rng_state()
    method.choose(batch_of())
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


def test_at_first_batches_go_anywhere():
    method = Subjective(classifier(), losses.CrossEntropy(), models=3, warmup=40)
    torch.manual_seed(0)
    got = torch.zeros(3)
    for _ in range(40):
        logs = method.step(batch_of()).logs
        got += torch.stack([logs[f"to_{k}"] for k in range(3)])
        method.after_update()
    assert got.min() >= 5
    best = method.choose(batch_of())
    assert float(method.step(batch_of()).logs[f"to_{best}"]) == 1


def test_allocating_whole_batches_again_never_raises_the_loss():
    """Hard EM: neither step raises the sum of the losses of all batches, each with the network that it has."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 12, 1, generator=generator, dtype=torch.float64)
    y = torch.stack([2 * x[0], -x[1] + 1, 2 * x[2], -x[3] + 1])
    slopes = torch.randn(2, 2, generator=generator, dtype=torch.float64)
    totals = []
    for _ in range(6):
        fit = torch.stack([((a * x + b - y) ** 2).mean((1, 2)) for a, b in slopes])
        chosen = fit.argmin(0)
        totals.append(float(fit.min(0).values.sum()))
        for k in range(2):
            if (own := chosen == k).any():
                rows = torch.cat([x[own].flatten()[:, None], torch.ones(int(own.sum()) * 12, 1, dtype=x.dtype)], 1)
                slopes[k] = torch.linalg.lstsq(rows, y[own].flatten()[:, None]).solution[:, 0]
    assert all(later <= earlier + 1e-9 for earlier, later in pairwise(totals))


def lines(count: int, seed: int) -> FeatureSet:
    """Numbers that one half of the people reads off one line, and the other off another."""
    draw = np.random.default_rng(seed)
    x = draw.uniform(-1, 1, (count, 1)).astype(np.float32)
    who = np.arange(count) % 2
    y = np.where(who[:, None] == 0, 2 * x, -2 * x).astype(np.float32)
    return FeatureSet(x, y, [str(i) for i in range(count)], ("y",), np.arange(count, dtype=np.uint64), {"who": who})


def test_contradicting_numbers_are_learned_apart():
    splits = Splits(lines(400, 0), lines(40, 1), lines(100, 2), "<memory>")
    config = make_config(
        data=splits.source, method="subjective:models=2,group=who,warmup=4", backbone="mlp:hidden=32,depth=1",
        optimizer="adamw", lr=0.01, batch_size=20, epochs=15, seed=0, device="cpu",
    )  # fmt: skip
    method = in_memory(build(resolve(config, splits), splits), validate=False).method.eval()
    assert isinstance(method, Subjective)
    x, y = torch.from_numpy(splits.train.features), torch.from_numpy(splits.train.labels)
    y = y / y.std()
    own = []
    for who in range(2):
        rows = slice(who, None, 2)
        errors = [float(F.mse_loss(net(x[rows]), y[rows])) for net in method.networks]
        own.append(int(np.argmin(errors)))
        assert min(errors) < 0.1 < 1 < max(errors)
    assert sorted(own) == [0, 1]


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigError, match="models"):
        Subjective(classifier(), losses.CrossEntropy(), models=0)
    method = Subjective(classifier(), losses.CrossEntropy())
    monkeypatch.setattr("repertoire.methods._subjective.ranks_of", lambda: 2)
    with pytest.raises(ConfigError, match="one device"):
        method.step(batch_of())
