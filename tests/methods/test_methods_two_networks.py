"""Methods in which a network learns from a slow copy of itself, or from itself, against their formulas."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from small import batch_of, classifier, goes_on_exactly, leaves_no_trace
from torch import nn
from torch.nn import functional as F

from repertoire.errors import ConfigError
from repertoire.methods import BYOL, DINO, HardMoCo, Method, MoCo, SimSiam, Teacher, TriBYOL

MADE = {
    "byol": lambda: BYOL(classifier(), momentum=0.9, steps=8, dimensions=5),
    "simsiam": lambda: SimSiam(classifier(), dimensions=8),
    "moco": lambda: MoCo(classifier(), momentum=0.9, queue=8, dimensions=5),
    "dino": lambda: DINO(classifier(), momentum=0.9, prototypes=7, bottleneck=4),
    "tribyol": lambda: TriBYOL(classifier(), momentum=0.9, dimensions=5),
    "moco-hard": lambda: HardMoCo(classifier(), momentum=0.9, queue=8, dimensions=5),
}


@pytest.mark.parametrize("name", MADE)
def test_a_run_that_resumes_goes_on_exactly(name):
    torch.manual_seed(1)
    goes_on_exactly(MADE[name]())


@pytest.mark.parametrize("name", MADE)
def test_a_rehearsal_leaves_no_trace(name):
    leaves_no_trace(MADE[name]())


def test_the_teacher_is_the_moving_average_and_slows_down():
    student = nn.Linear(3, 2)
    teacher = Teacher(student, momentum=0.8, steps=4)
    expected = student.weight.detach().double()
    for step in range(6):
        with torch.no_grad():
            student.weight.add_(1.0)
        teacher.follow(student)
        momentum = 1 - (1 - 0.8) * (math.cos(math.pi * min(step, 4) / 4) + 1) / 2
        expected = momentum * expected + (1 - momentum) * student.weight.detach().double()
        torch.testing.assert_close(teacher.network.weight.double(), expected, rtol=1e-5, atol=1e-6)
    still = teacher.network.weight.clone()
    teacher.follow(student)
    assert torch.equal(teacher.network.weight, still)
    assert not any(p.requires_grad for p in teacher.parameters())


def test_a_teacher_keeps_batch_statistics_of_its_own():
    """Those of the batches that passed through it, and no average of the student's."""
    student = nn.BatchNorm1d(2, momentum=0.5)
    teacher = Teacher(student, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    seen, taught = (torch.randn(8, 2, generator=generator) + shift for shift in (3.0, -1.0))
    student(seen)
    teacher(taught)
    teacher.follow(student)
    torch.testing.assert_close(teacher.network.running_mean, taught.mean(0) / 2)
    torch.testing.assert_close(teacher.network.running_var, (1 + taught.var(0)) / 2)
    torch.testing.assert_close(student.running_mean, seen.mean(0) / 2)


@pytest.mark.parametrize(("momentum", "steps"), [(1.1, None), (-0.1, None), (0.9, 0)])
def test_a_teacher_out_of_range_is_refused(momentum, steps):
    with pytest.raises(ConfigError):
        Teacher(nn.Linear(1, 1), momentum, steps)


def scattered(method: Method) -> Method:
    """With weights, gains and running statistics that are none of the first ones."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, tensor in method.state_dict().items():
            if tensor.is_floating_point() and "running_var" not in name and "normalize" not in name:
                tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator))
            elif "running_var" in name:
                tensor.mul_(1.3)
    return method.eval()


def perceptron(module: nn.Module, x: torch.Tensor, *layers: str) -> torch.Tensor:
    """A perceptron as a paper draws it, in float64, from its weights alone: it must have these layers and no others."""
    state = {name: value.double() for name, value in module.state_dict().items() if "num_batches" not in name}
    x, place = x.double(), 0
    for layer in layers:
        x = x @ state.pop(f"{place}.weight").T
        if "norm" not in layer:
            x = x + state.pop(f"{place}.bias")
            x = x.clamp(min=0) if "relu" in layer else x
            place += 1 + ("relu" in layer)
            continue
        x = (x - state.pop(f"{place + 1}.running_mean")) / (state.pop(f"{place + 1}.running_var") + 1e-5).sqrt()
        if "plain" not in layer:
            x = x * state.pop(f"{place + 1}.weight") + state.pop(f"{place + 1}.bias")
        if "relu" in layer:
            x = x.clamp(min=0)
        place += 3
    assert not state, f"more than the paper has: {list(state)}"
    return x


def test_byol_is_its_formula():
    """Both networks end in a perceptron with one hidden layer; the student has one more (Grill et al., 2020)."""
    method = scattered(BYOL(classifier(), dimensions=5))
    seen = method.teacher.network[:-1]
    total = 0.0
    for one, other in (batch_of().views, batch_of().views[::-1]):
        z = perceptron(method.projector, method.model.embed(one), "norm relu", "linear")
        q = perceptron(method.predictor, z, "norm relu", "linear")
        t = perceptron(method.teacher.network[-1], seen(other), "norm relu", "linear")
        cosine = (q * t).sum(1) / (q.square().sum(1) * t.square().sum(1)).sqrt()
        total += (2 - 2 * cosine).mean()
    torch.testing.assert_close(method.step(batch_of()).logs["loss"].double(), total, rtol=1e-5, atol=1e-6)


def test_simsiam_is_its_formula_and_its_targets_take_no_gradient():
    """Three normalised layers, the last without gain, and a predictor with a bottleneck (Chen and He, 2021)."""
    method = scattered(SimSiam(classifier(), dimensions=8))
    batch = batch_of()
    features = torch.cat([method.model.embed(view) for view in batch.views]).detach().requires_grad_()

    def expected(targets: torch.Tensor) -> torch.Tensor:
        z = perceptron(method.projector, features, "norm relu", "norm relu", "norm plain")
        p = perceptron(method.predictor, z, "norm relu", "linear")
        count, total = len(features) // 2, 0.0
        for mine, other in ((p[:count], targets[count:]), (p[count:], targets[:count])):
            total -= ((mine * other).sum(1) / (mine.square().sum(1) * other.square().sum(1)).sqrt()).mean() / 2
        return total

    with torch.no_grad():
        targets = perceptron(method.projector, features, "norm relu", "norm relu", "norm plain")
    step = method.objective(features, batch)
    torch.testing.assert_close(step.logs["loss"].double(), expected(targets).detach(), rtol=1e-5, atol=1e-6)
    (found,) = torch.autograd.grad(step.loss, features, retain_graph=True)
    (wanted,) = torch.autograd.grad(expected(targets), features)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_moco_is_its_formula_and_its_queue_holds_the_last_keys():
    """Both networks end in a perceptron with one hidden layer and no normalisation (Chen et al., version 2, 2020)."""
    method = scattered(MoCo(classifier(), momentum=0.5, queue=10, dimensions=5, temperature=0.3)).train()
    keys = []
    for seed in range(3):
        batch = batch_of(seed)
        before = method.queue.rows.clone().double()
        step = method.step(batch)
        # Both pass once more through the backbone, which changes nothing but running statistics.
        k = perceptron(method.teacher.network[-1], method.teacher.network[:-1](batch.views[1]), "relu", "linear")
        q = perceptron(method.projector, method.model.embed(batch.views[0]), "relu", "linear")
        k, q = (x / x.square().sum(1, keepdim=True).sqrt() for x in (k, q))
        positive = (q * k).sum(1) / 0.3
        # Before there is a queue, the keys of the batch are the negatives.
        negative = (q @ (before if seed else k).T / 0.3).exp().sum(1) + (positive.exp() if seed else 0)
        torch.testing.assert_close(step.logs["loss"].double(), (negative.log() - positive).mean(), rtol=1e-4, atol=1e-5)
        keys.append(k)
        method.after_update()
    held = method.queue.rows.double()
    expected = torch.cat(keys)[-10:]
    assert held.shape == expected.shape
    distance = torch.cdist(held, expected)
    assert distance.amin(0).max() < 1e-5, "a key is not in the queue"
    assert distance.amin(1).max() < 1e-5, "something else is in the queue"


def test_tribyol_is_its_formula_and_its_teachers_take_turns():
    method = scattered(TriBYOL(classifier(), momentum=0.5, dimensions=5))
    v1, v2, v3 = views = batch_of(views=3).views
    logged = method.step(batch_of(views=3)).logs["loss"].double()
    layers = "norm relu", "linear"

    def unit(x: torch.Tensor) -> torch.Tensor:
        return x / x.square().sum(1, keepdim=True).sqrt()

    def said(teacher: Teacher, view: torch.Tensor) -> torch.Tensor:
        return unit(perceptron(teacher.network[-1], teacher.network[:-1](view), *layers))

    seen = [perceptron(method.projector, method.model.embed(view), *layers) for view in views]
    q = [unit(perceptron(method.predictor, z, *layers)) for z in seen]
    one, two = method.teacher, method.teacher_two
    pairs = [(q[0], said(one, v2)), (q[1], said(one, v1)), (q[0], said(two, v3)), (q[2], said(two, v1))]
    expected = sum((x - y).square().sum(1).mean() for x, y in pairs).detach() / 2
    torch.testing.assert_close(logged, expected, rtol=1e-5, atol=1e-6)
    turns = []
    for _ in range(4):
        method.after_update()
        turns.append((int(method.teacher.updates), int(method.teacher_two.updates)))
    assert turns == [(1, 0), (1, 1), (2, 1), (2, 2)]


def test_hard_moco_is_its_formula():
    method = HardMoCo(classifier(), hard=0.3, queue=20, dimensions=5, temperature=0.4)
    generator = torch.Generator().manual_seed(3)
    queue, q, k = (F.normalize(torch.randn(n, 5, generator=generator, dtype=torch.float64)) for n in (20, 6, 6))
    method.queue.push(queue)
    expected = 0.0
    for anchors, positives in ((q, k), (k, q)):
        for anchor, positive in zip(anchors, positives, strict=True):
            hardest = sorted((float(anchor @ n) for n in queue), reverse=True)[:6]
            total = math.exp(float(anchor @ positive) / 0.4)
            expected += math.log(1 + sum(math.exp(s / 0.4) for s in hardest) / total) / 12
    found = method.contrast(3 * q.float(), k.float())
    assert float(found) == pytest.approx(expected, rel=1e-4)


def assigned(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Cosines with prototypes behind three layers with GELU between them (Caron et al., 2021), in float64."""
    state, x = {name: value.double() for name, value in module.state_dict().items()}, x.double()
    for place in (0, 2, 4):
        x = x @ state.pop(f"layers.{place}.weight").T + state.pop(f"layers.{place}.bias")
        x = x if place == 4 else x * (1 + torch.erf(x / math.sqrt(2))) / 2
    prototypes = state.pop("prototypes")
    assert not state, f"more than the paper has: {list(state)}"
    lengths = x.norm(dim=1)[:, None] * prototypes.norm(dim=1)[None, :]
    return x @ prototypes.T / lengths


def test_dino_is_its_formula_and_its_centre_follows():
    method = scattered(DINO(classifier(), prototypes=7, bottleneck=4, centre_momentum=0.75)).train()
    method.centre.copy_(torch.linspace(-0.1, 0.1, 7))
    old, batch = method.centre.clone().double(), batch_of()
    step = method.step(batch)
    together = torch.cat(batch.views)
    with torch.no_grad():
        student = assigned(method.projector, method.model.embed(together)).chunk(2)
        # Batch normalisation does not mind the order of the views.
        teacher = assigned(method.teacher.network[-1], method.teacher.network[:-1](together)).chunk(2)
    total = 0.0
    for u, v in ((0, 1), (1, 0)):
        target = F.softmax((teacher[u] - old) / 0.04, 1)
        total += -(target * F.log_softmax(student[v] / 0.1, 1)).sum(1).mean() / 2
    torch.testing.assert_close(step.logs["loss"].double(), total, rtol=1e-4, atol=1e-5)
    method.after_update()
    expected = 0.75 * old + 0.25 * torch.cat(teacher).mean(0)
    torch.testing.assert_close(method.centre.double(), expected, rtol=1e-4, atol=1e-6)


def test_crops_learn_from_both_whole_views_of_the_teacher():
    method = DINO(classifier(), prototypes=7, bottleneck=4, crops=3).train()
    assert method.needs.view_count == 5
    assert list(method.needs.views.values())[:2] == ["", ""]
    assert DINO.needs.view_count == DINO(classifier()).needs.view_count == 2
    batch = batch_of()
    crops = tuple(torch.rand_like(batch.images) for _ in range(3))
    step = method.step(replace(batch, views=(*batch.views, *crops), names=()))
    with torch.no_grad():
        whole, parts = method.student(torch.cat(batch.views)).chunk(2), method.student(torch.cat(crops)).chunk(3)
        teacher = method.teacher(torch.cat(batch.views)).chunk(2)
    losses = [
        -(F.softmax(teacher[u] / 0.04, 1) * F.log_softmax(seen / 0.1, 1)).sum(1).mean()
        for u in range(2)
        for v, seen in enumerate((*whole, *parts))
        if u != v
    ]
    assert len(losses) == 8
    torch.testing.assert_close(step.logs["loss"], sum(losses) / 8, rtol=1e-4, atol=1e-5)
    assert step.logs["readout_loss"] > 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: BYOL(classifier(), dimensions=0),
        lambda: SimSiam(classifier(), bottleneck=0),
        lambda: MoCo(classifier(), queue=0),
        lambda: DINO(classifier(), teacher_temperature=0.0),
        lambda: DINO(classifier(), centre_momentum=2.0),
        lambda: DINO(classifier(), crops=-1),
        lambda: HardMoCo(classifier(), hard=0.0),
    ],
)
def test_options_out_of_range_are_refused(make):
    with pytest.raises(ConfigError):
        make()
