"""FixMatch, mean teacher, and the pseudo-labels that they are made of, against their formulas in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire import losses, registry
from repertoire.data import Batch, ImageSet, Loader, StreamSource
from repertoire.errors import ConfigError, ShapeError
from repertoire.methods import (
    Alignment,
    Classifier,
    ClassThresholds,
    FixMatch,
    MeanTeacher,
    Normalize,
    PseudoLabels,
    SelfThresholds,
    Threshold,
)
from repertoire.rules import Backprop

C = 3


def classifier(head: str = "linear") -> Classifier:
    torch.manual_seed(0)
    net = registry.build("backbones", "vit:patch=4,dim=12,depth=1,heads=2", in_channels=1, image_size=8)
    built = registry.build("heads", head, in_features=net.out_features, num_classes=C)
    return Classifier(Normalize([0.5], [0.25]), net, built)


def batch_of(count: int = 4, unlabelled: int = 8, views: int = 1, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)

    def images(n: int) -> Tensor:
        return torch.rand(n, 1, 8, 8, generator=generator)

    stream = Batch((images(unlabelled), images(unlabelled)), torch.full((unlabelled,), -1), torch.arange(unlabelled))
    stream.names = ("weak", "strong")
    main = Batch(tuple(images(count) for _ in range(views)), torch.arange(count) % C, torch.arange(count))
    main.streams = {"unlabelled": stream}
    return main


def softmax(row: Tensor) -> list[float]:
    total = sum(math.exp(value) for value in row.tolist())
    return [math.exp(value) / total for value in row.tolist()]


@pytest.mark.parametrize("head", ["linear", "matryoshka"])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_fixmatch_is_its_formula(share: float, head: str):
    """With a threshold that all, half and none of the answers reach."""
    batch = batch_of()
    weak, strong = batch.streams["unlabelled"].views
    model = classifier(head).eval()
    tops = sorted(max(softmax(row)) for row in model(weak).double())
    threshold = {0.0: 0.0, 0.5: (tops[3] + tops[4]) / 2, 1.0: 1.0}[share]
    method = FixMatch(model, losses.CrossEntropy(), threshold=threshold, weight=0.7, ratio=2).eval()
    labelled = sum(
        w * F.cross_entropy(z, batch.targets) for w, z in model.head.outputs(model.embed(batch.images), batch.targets)
    )
    total, sure = 0.0, 0
    for easy, hard in zip(model(weak), model.embed(strong), strict=True):
        q = softmax(easy.double())
        if max(q) >= threshold:
            sure += 1
            answer = q.index(max(q))
            for weight, z in model.head.outputs(hard[None], torch.tensor([answer])):
                total -= weight * math.log(softmax(z[0].double())[answer])
    step = method.step(batch)
    assert float(step.loss) == pytest.approx(float(labelled) + 0.7 * total / 8, rel=1e-5)
    assert float(step.logs["confident"]) == pytest.approx(sure / 8)
    assert sure == 8 * (1 - share)


def test_the_weak_view_teaches_and_takes_no_gradient():
    method = FixMatch(classifier(), losses.CrossEntropy(), threshold=0.0).eval()
    batch = batch_of()
    weak, strong = (view.requires_grad_() for view in batch.streams["unlabelled"].views)
    method.step(batch).loss.backward()
    assert strong.grad.abs().sum() > 0
    assert weak.grad is None or not weak.grad.any()


def test_class_thresholds_are_those_of_flexmatch():
    generator = torch.Generator().manual_seed(3)
    policy = ClassThresholds(C, samples=10, threshold=0.5).train()
    chosen = [-1] * 10
    for _ in range(6):
        index = torch.randperm(10, generator=generator)[:6]
        q = (3 * torch.randn(6, C, generator=generator)).softmax(1)
        counts = [chosen.count(c) for c in range(C)]
        top = max(*counts, chosen.count(-1))
        bars = [n / top / (2 - n / top) * 0.5 for n in counts]
        torch.testing.assert_close(policy.bars().tolist(), bars, rtol=1e-6, atol=1e-7)
        expected = [max(row) >= bars[row.index(max(row))] for row in q.tolist()]
        assert policy(q, index).tolist() == expected
        policy.after_update()
        for i, row in zip(index.tolist(), q.tolist(), strict=True):
            if max(row) >= 0.5:
                chosen[i] = row.index(max(row))
        assert policy.chosen.tolist() == chosen
    assert max(chosen) >= 0


def test_self_adaptive_thresholds_are_those_of_freematch():
    generator = torch.Generator().manual_seed(3)
    policy = SelfThresholds(C, decay=0.8).train()
    level, marginal = 1 / C, [1 / C] * C
    for _ in range(4):
        q = (2 * torch.randn(7, C, generator=generator)).softmax(1).double()
        bars = [p / max(marginal) * level for p in marginal]
        expected = [max(row) >= bars[row.index(max(row))] for row in q.tolist()]
        assert policy(q.float(), torch.arange(7)).tolist() == expected
        policy.after_update()
        level = 0.8 * level + 0.2 * sum(max(row) for row in q.tolist()) / 7
        marginal = [0.8 * p + 0.2 * float(q[:, c].mean()) for c, p in enumerate(marginal)]
        torch.testing.assert_close(float(policy.level), level, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(policy.marginal.tolist(), marginal, rtol=1e-5, atol=1e-6)


def test_alignment_is_its_formula():
    alignment = Alignment(torch.tensor([6.0, 3.0, 1.0]), decay=0.5).train()
    q = torch.tensor([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]])
    alignment(q)
    alignment.after_update()
    mean = [0.5 / 3 + 0.5 * float(q[:, c].mean()) for c in range(3)]
    torch.testing.assert_close(alignment.mean.tolist(), mean, rtol=1e-6, atol=1e-7)
    weighted = [[p * s / m for p, s, m in zip(row, (0.6, 0.3, 0.1), mean, strict=True)] for row in q.tolist()]
    expected = [[value / sum(row) for value in row] for row in weighted]
    torch.testing.assert_close(alignment(q), torch.tensor(expected))


@pytest.mark.parametrize("threshold", [0.35, "class-adaptive", "self-adaptive"])
def test_every_policy_takes_the_same_state_from_a_batch_in_pieces(threshold: float | str):
    def trained(pieces: int) -> FixMatch:
        options = {"unlabelled": 8, "counts": torch.tensor([2, 1, 1]), "ratio": 2, "level": 0.35}
        method = FixMatch(classifier(), losses.CrossEntropy(), threshold=threshold, align=True, **options)
        rule = Backprop()
        rule.setup(method, lambda module: torch.optim.SGD(module.parameters(), lr=0.1), accumulate=pieces)
        for seed in range(3):
            rule.step(method, batch_of(seed=seed))
        return method

    whole, pieces = trained(1), trained(2)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(pieces.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    assert not torch.equal(whole.pseudo.alignment.mean, torch.full((C,), 1 / C))


@pytest.mark.parametrize("ramp_up", [0, 4])
def test_mean_teacher_is_its_formula_and_its_weight_rises(ramp_up: int):
    method = MeanTeacher(classifier(), losses.CrossEntropy(), weight=3.0, ramp_up=ramp_up, momentum=0.5).eval()
    with torch.no_grad():
        for parameter in method.teacher.parameters():
            parameter.mul_(1.3)
    batch = batch_of(views=2)
    method.teacher.updates.fill_(1)
    ramp = math.exp(-5 * (1 - 1 / 4) ** 2) if ramp_up else 1.0
    first = torch.cat([batch.views[0], batch.streams["unlabelled"].views[0]])
    second = torch.cat([batch.views[1], batch.streams["unlabelled"].views[1]])
    gaps = [
        sum((a - b) ** 2 for a, b in zip(softmax(s.double()), softmax(t.double()), strict=True)) / C
        for s, t in zip(method.model(first), method.teacher(second), strict=True)
    ]
    supervised = F.cross_entropy(method.model(batch.images), batch.targets)
    expected = float(supervised) + 3 * ramp * sum(gaps) / len(gaps)
    step = method.step(batch)
    assert float(step.loss) == pytest.approx(expected, rel=1e-5)
    step.loss.backward()
    assert all(p.grad is None for p in method.teacher.parameters())
    before = [p.clone() for p in method.teacher.network.parameters()]
    method.after_update()
    for old, new, student in zip(before, method.teacher.network.parameters(), method.model.parameters(), strict=True):
        torch.testing.assert_close(new, 0.5 * old + 0.5 * student.detach())


def test_batches_of_the_loader_are_what_fixmatch_asks_for():
    numbers = np.arange(12)
    pixels = (numbers[:, None, None, None] * 20 + np.zeros((12, 8, 8, 1))).astype(np.uint8)
    names = [str(i) for i in numbers]
    images = ImageSet(pixels, numbers % C, names, tuple("abc"), numbers.astype(np.uint64))
    unlabelled = ImageSet(pixels, np.full(12, -1), names, tuple("abc"), numbers.astype(np.uint64))
    method = FixMatch(classifier(), losses.CrossEntropy(), ratio=2)
    stream = method.needs.streams["unlabelled"]
    views = {name: registry.build("augmentations", spec or "shift") for name, spec in stream.views.items()}
    source = StreamSource(unlabelled, round(stream.per_sample * 4), views=views)
    for batch in Loader(images, 4, streams={"unlabelled": source}).epoch(0):
        assert len(batch.streams["unlabelled"]) == 2 * len(batch)
        assert method.step(batch).loss.isfinite()


def test_what_is_refused():
    model, plain = classifier(), losses.CrossEntropy()
    for options, text in (
        ({"threshold": 1.5}, "threshold must lie in"),
        ({"weight": -1.0}, "weight must be 0 or more"),
        ({"ratio": 0.0}, "ratio must be positive"),
        ({"threshold": "loose"}, "threshold must be a number in"),
        ({"threshold": "class-adaptive"}, "give their number, unlabelled"),
        ({"level": -0.1}, "level must lie in"),
        ({"space": "small"}, "space must be 'all' or 'shrunk'"),
        ({"blend": "means"}, "blend must be 'none' or 'prototypes'"),
        ({"diverse": "learned"}, "give their number, unlabelled"),
        ({"missing_classes": 3}, "none would have a label"),
        ({"even": -1.0}, "even must be 0 or more"),
        ({"mix": "cutmix", "alpha": 0.0}, "alpha must be positive"),
    ):
        with pytest.raises(ConfigError, match=text):
            FixMatch(model, plain, **options)
    with pytest.raises(ConfigError, match="loss Asymmetric is for targets of another kind"):
        FixMatch(model, losses.Asymmetric())
    with pytest.raises(ConfigError, match="no stream 'unlabelled'"):
        FixMatch(model, plain).step(Batch(batch_of().views, batch_of().targets, batch_of().index))
    with pytest.raises(ConfigError, match="1 view and the streams unlabelled"):
        MeanTeacher(model, plain).step(batch_of())
    for options, text in (({"ramp_up": -1}, "ramp_up"), ({"weight": -1.0}, "weight"), ({"ratio": 0.0}, "ratio")):
        with pytest.raises(ConfigError, match=text):
            MeanTeacher(model, plain, **options)
    with pytest.raises(ConfigError, match="shares must be positive"):
        Alignment(torch.tensor([1.0, 0.0]))
    with pytest.raises(ShapeError, match="index"):
        PseudoLabels(Threshold())(torch.zeros(3, C), torch.arange(2))
