from __future__ import annotations

import copy
import math

import pytest
import torch
from torch.nn import functional as F

from repertoire import losses
from repertoire.backbones import ConvNet, Identity
from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.heads import Experts as ExpertsHead
from repertoire.heads import Linear
from repertoire.methods import Classifier, Experts, Normalize, Stage, Supervised, brought_head
from repertoire.rules import Backprop

COUNTS = torch.tensor([100, 30, 4])


def classifier(count: int = 3, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    net = ConvNet(in_channels=1, image_size=8, width=4, depth=2)
    return Classifier(Normalize([0.5], [0.25]), net, ExpertsHead(net.out_features, 3, count=count, hidden=6)).double()


def batch(views: int = 2, count: int = 9) -> Batch:
    generator = torch.Generator().manual_seed(1)
    images = tuple(torch.rand(count, 1, 8, 8, generator=generator, dtype=torch.float64) for _ in range(views))
    return Batch(images, torch.arange(count) % 3, torch.arange(count), names=("weak", "strong")[:views])


def softmax(values: list[float]) -> list[float]:
    top = max(values)
    total = sum(math.exp(v - top) for v in values)
    return [math.exp(v - top) / total for v in values]


@pytest.mark.parametrize("distil", [0.0, 0.6])
def test_agrees_with_the_released_formula(distil: float):
    """The values of the released code for three experts: exponents of the counts, and the mean over what is right."""
    model = classifier()
    method = Experts(model, losses.LogitAdjusted(COUNTS), distil=distil, counts=COUNTS, image_size=8).double().eval()
    given = batch()
    with torch.no_grad():
        features = model.embed(torch.cat(given.views))
        plain = [expert(features).tolist() for expert in model.head.experts]
    targets = given.targets.tolist()
    expected = 0.0
    for rows, power in zip(plain, (-0.5, 1.0, 2.5), strict=True):
        p = [softmax([v + math.log(n**power) for v, n in zip(row, COUNTS.tolist(), strict=True)]) for row in rows]
        expected += sum(-math.log(p[i][targets[i % 9]]) for i in range(18)) / 18
        apart = [
            sum(a * math.log(a / b) for a, b in zip(p[i], p[i + 9], strict=True))
            for i in range(9)
            if max(p[i]) == p[i][targets[i]]
        ]
        expected += distil * sum(apart) / max(1, len(apart))
    assert float(method.step(given).loss.detach()) == pytest.approx(expected, rel=1e-6)


def test_what_answers_is_the_mean_of_logits_that_nobody_shifted():
    model = classifier()
    images = batch(1).images
    each = torch.stack([expert(model.embed(images)) for expert in model.head.experts])
    torch.testing.assert_close(model(images), each.mean(0))


def test_one_expert_with_one_view_is_supervised():
    model = classifier(count=1)
    loss = losses.LogitAdjusted(COUNTS)
    ours = Experts(copy.deepcopy(model), loss, count=1, strong="none", counts=COUNTS, image_size=8)
    plain = Supervised(copy.deepcopy(model), loss)
    for method in (ours, plain):
        method.step(batch(1)).loss.backward()
    assert ours.needs.view_count == 1
    for (name, a), (_, b) in zip(ours.model.named_parameters(), plain.model.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)


def test_no_gradient_flows_into_the_weak_view():
    method = (
        Experts(classifier(), losses.LogitAdjusted(COUNTS), distil=1e6, counts=COUNTS, image_size=8).double().eval()
    )
    weak, strong = (view.requires_grad_() for view in batch().views)
    given = Batch((weak, strong), torch.arange(9) % 3, torch.arange(9), names=("weak", "strong"))
    features = method.model.embed(torch.cat(given.views))
    kept = method.objective(features, given)
    alone = Experts(method.model, losses.LogitAdjusted(COUNTS), distil=0, counts=COUNTS, image_size=8).double().eval()
    plain = alone.objective(features, given)
    (of_weak, of_strong) = torch.autograd.grad(kept.loss - plain.loss, (weak, strong))
    assert of_weak.abs().max() < 1e-6
    assert of_strong.abs().max() > 1.0


def test_what_is_wrong_in_the_weak_view_is_not_distilled():
    method = Experts(classifier(), losses.CrossEntropy(), distil=1.0, spread=0, image_size=8).double().eval()
    given = batch()
    answers = method.model.head.each(method.model.embed(given.images)).argmax(2)
    wrong = (answers.amax(0) + 1) % 3
    wrong = torch.where((answers == wrong).any(0), (wrong + 1) % 3, wrong)
    if bool((answers == wrong).any()):
        pytest.skip("some expert says each class")
    logs = method.step(Batch(given.views, wrong, given.index, names=given.names)).logs
    assert logs["distilled"] == 0
    assert logs["self_distillation"] == 0


def test_distillation_rises_over_the_first_tenth_of_the_epochs():
    method = Experts(classifier(), losses.CrossEntropy(), image_size=8)
    assert method.rise == 1.0
    method.begin(Stage(epochs=50))
    found = []
    for epoch in (0, 1, 4, 5, 49):
        method.begin_epoch(epoch)
        found.append(method.rise)
    assert found == [0.0, 0.2, 0.8, 1.0, 1.0]


def test_vectors_get_a_noisy_view_in_units_of_each_feature():
    torch.manual_seed(0)
    model = Classifier(Normalize([0.0, 5.0], [1.0, 10.0]), Identity(2), ExpertsHead(2, 3, hidden=4))
    method = Experts(model, losses.LogitAdjusted(COUNTS), noise=0.5, counts=COUNTS).train()
    assert method.needs.view_count == 1
    rows = Batch((torch.zeros(4000, 2),), torch.arange(4000) % 3, torch.arange(4000))
    weak, strong = method.transform(rows).views
    assert not weak.any()
    torch.testing.assert_close(strong.std(0), torch.tensor([0.5, 5.0]), rtol=0.05, atol=0)
    assert len(method.eval().transform(rows).views) == 1
    assert method.train().step(rows).loss.isfinite()


def test_a_batch_is_not_split_where_a_mean_is_over_what_is_right():
    loss = losses.LogitAdjusted(COUNTS)
    whole = Experts(classifier(), loss, counts=COUNTS, image_size=8)
    with pytest.raises(ConfigError, match="accumulate"):
        Backprop().check(whole, accumulate=2)
    Backprop().check(Experts(classifier(), loss, distil=0, counts=COUNTS, image_size=8), accumulate=2)


def test_the_head_follows_the_options_of_the_method():
    assert brought_head("experts:count=5") == "experts:count=5"
    assert brought_head("experts:5,spread=1") == "experts:count=5"
    assert brought_head("experts") == "experts:count=3"
    net = ConvNet(in_channels=1, image_size=8, width=4, depth=2)
    model = Classifier(Normalize([0.5], [0.25]), net, Linear(net.out_features, 3))
    with pytest.raises(ConfigError, match="leave the head out"):
        Experts(model, losses.CrossEntropy())
    with pytest.raises(ConfigError, match="head experts:count=3"):
        Experts(classifier(), losses.CrossEntropy(), count=4)


def test_a_head_of_experts_trains_each_alone_in_any_method():
    head = ExpertsHead(4, 3, count=2, hidden=0).double()
    z, y = torch.randn(6, 4, dtype=torch.float64), torch.arange(6) % 3
    found = torch.stack([w * F.cross_entropy(logits, y) for w, logits in head.outputs(z, y)]).sum()
    alone = torch.stack([F.cross_entropy(expert(z), y) for expert in head.experts]).sum()
    torch.testing.assert_close(found, alone)
