"""Methods that tell images apart by their number, or as the same or not, against their formulas."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch.nn import functional as F

from repertoire import backbones, heads
from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.methods import Classifier, DatumIndex, InstanceDiscrimination, Normalize, Relational
from repertoire.rules import Backprop

N = 12


def classifier(classes: int = 3) -> Classifier:
    torch.manual_seed(0)
    net = backbones.ConvNet(in_channels=1, image_size=8, width=4, depth=2)
    return Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, classes))


def batch_of(seed: int = 0, count: int = 6, views: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = tuple(torch.rand(count, 1, 8, 8, generator=generator) for _ in range(views))
    return Batch(images, torch.arange(count) % 3, torch.randperm(N, generator=generator)[:count])


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(6, classifier().backbone.out_features, generator=torch.Generator().manual_seed(5))


def test_the_class_of_an_image_is_its_number(features):
    method, batch = DatumIndex(classifier(), samples=N), batch_of()
    expected = 0.0
    for row, number in zip(features, batch.index.tolist(), strict=True):
        target = torch.full((N,), 0.8 / N, dtype=torch.float64)
        target[number] += 0.2
        expected -= (target * (method.indices.weight.double() @ row.double()).log_softmax(0)).sum() / 6
    torch.testing.assert_close(method.objective(features, batch).logs["loss"].double(), expected.detach())


def test_the_softmax_over_the_bank_is_its_formula(features):
    method = InstanceDiscrimination(classifier(), samples=N, negatives=None, proximal=0.7, dimensions=5)
    method.seen[:7] = True
    batch = batch_of()
    z = F.normalize(method.projector(features)).double().detach()
    bank, expected = method.bank.double(), 0.0
    for row, number in zip(z, batch.index.tolist(), strict=True):
        expected += ((bank @ row / 0.07).logsumexp(0) - bank[number] @ row / 0.07) / 6
        expected += 0.7 * (row - bank[number]).square().sum() / 6 * (number < 7)
    torch.testing.assert_close(method.objective(features, batch).logs["loss"].double(), expected, rtol=1e-5, atol=1e-6)


def test_the_noise_contrastive_estimate_is_its_formula_and_its_normaliser_is_kept(features):
    method = InstanceDiscrimination(classifier(), samples=N, negatives=9, dimensions=5, temperature=0.5).train()
    batch = batch_of()
    z, bank, kept = F.normalize(method.projector(features)).double().detach(), method.bank.double(), None
    for seed in range(2):
        torch.manual_seed(seed)
        drawn = torch.randint(N, (9,))
        torch.manual_seed(seed)
        loss = method.objective(features, batch).logs["loss"]
        remembered = method._take()
        weights = (z @ bank.T / 0.5).exp()
        kept = N * weights[:, drawn].mean() if kept is None else kept
        expected = 0.0
        for i, number in enumerate(batch.index.tolist()):
            h = [weights[i, j] / kept / (weights[i, j] / kept + 9 / N) for j in (number, *drawn.tolist())]
            expected -= (h[0].log() + sum((1 - value).log() for value in h[1:])) / 6
        torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=1e-5)
        if not seed:
            # The bank stays as it was, so that the second round sees the same one.
            method.log_normaliser.copy_(remembered["log_normaliser"])
    assert float(method.log_normaliser) == pytest.approx(math.log(float(kept)), rel=1e-5)


def test_the_bank_takes_what_was_said_of_each_image(features):
    method = InstanceDiscrimination(classifier(), samples=N, dimensions=5, momentum=0.25).train()
    batch, old = batch_of(), method.bank.clone()
    method.objective(features, batch)
    z = F.normalize(method.projector(features)).detach()
    method.after_update()
    torch.testing.assert_close(method.bank[batch.index], F.normalize(0.25 * old[batch.index] + 0.75 * z))
    others = [i for i in range(N) if i not in batch.index.tolist()]
    assert torch.equal(method.bank[others], old[others])
    assert method.seen.nonzero().squeeze(1).tolist() == sorted(batch.index.tolist())


@pytest.mark.parametrize("negatives", [None, 5])
def test_a_run_with_a_bank_resumes_exactly(negatives):
    method = InstanceDiscrimination(classifier(), samples=N, negatives=negatives, dimensions=5)

    def train(method: InstanceDiscrimination, seeds: range) -> list[float]:
        rule = Backprop()
        rule.setup(method.train(), lambda module: torch.optim.SGD(module.parameters(), lr=0.1))
        losses = []
        for seed in seeds:
            torch.manual_seed(seed)  # as the loader does for every batch
            losses.append(float(rule.step(method, batch_of(seed))["loss"]))
        return losses

    train(method, range(3))
    other = copy.deepcopy(method)
    for tensor in (*other.parameters(), *other.buffers()):
        tensor.data.zero_()
    other.load_state_dict(method.state_dict())
    assert train(method, range(3, 6)) == train(other, range(3, 6))


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_relations_are_their_formula(gamma):
    method = Relational(classifier(), views=3, gamma=gamma, hidden=7).eval()
    count, width = 4, classifier().backbone.out_features
    features = torch.randn(3 * count, width, generator=torch.Generator().manual_seed(2))
    batch = batch_of(count=count, views=3)
    views, total, shift, right = features.view(3, count, width), 0.0, 0, 0
    for i in range(3):
        for j in range(i + 1, 3):
            shift += 1
            for n in range(count):
                for other, same in ((n, True), ((n - shift) % count, False)):
                    score = method.relation(torch.cat([views[i, n], views[j, other]])[None]).item()
                    p = 1 / (1 + math.exp(-score if same else score))
                    total -= (1 - p) ** gamma * math.log(p) / 24
                    right += p > 0.5
    logs = method.objective(features, batch).logs
    assert float(logs["loss"]) == pytest.approx(total, rel=1e-4)
    assert float(logs["relation_accuracy"]) == pytest.approx(right / 24)


def test_no_image_is_told_apart_from_itself():
    """However many views there are, the shifts stay below the size of the batch."""
    method = Relational(classifier(), views=4)
    seen = []
    method.relation.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    features = torch.arange(3.0).repeat(4)[:, None].expand(12, classifier().backbone.out_features)
    method.objective(features, batch_of(count=3, views=4))
    left, right = seen[0].chunk(2, 1)
    equal = (left == right).all(1)
    assert equal.tolist() == [True] * 18 + [False] * 18


@pytest.mark.parametrize(
    "make",
    [
        lambda: DatumIndex(classifier(), samples=0),
        lambda: DatumIndex(classifier(), samples=3, label_smoothing=1.5),
        lambda: InstanceDiscrimination(classifier(), samples=3, negatives=0),
        lambda: InstanceDiscrimination(classifier(), samples=3, temperature=0.0),
        lambda: InstanceDiscrimination(classifier(), samples=3, momentum=1.0),
        lambda: InstanceDiscrimination(classifier(), samples=3, proximal=-1.0),
        lambda: Relational(classifier(), views=1),
        lambda: Relational(classifier(), gamma=-1.0),
    ],
)
def test_options_out_of_range_are_refused(make):
    with pytest.raises(ConfigError):
        make()
