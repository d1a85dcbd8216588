from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from repertoire import backbones, heads, losses
from repertoire.data import Batch
from repertoire.errors import ConfigError, RepertoireWarning
from repertoire.methods import EWC, Classifier, Consolidation, FeatureKD, L2Previous, LwF, Normalize, Stage, YDistil

FIRST = Stage(0, 3, ("a", "b"), new=(0, 1))
SECOND = Stage(1, 3, ("a", "b", "c", "d"), new=(2, 3))


def network(classes: int = 2, head: type = heads.Linear) -> Classifier:
    torch.manual_seed(0)
    net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
    return Classifier(Normalize([0.5], [0.25]), net, head(net.out_features, classes))


def batch(classes: tuple[int, ...], count: int = 8, seed: int = 0) -> Batch:
    images = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return Batch((images,), torch.tensor(classes).repeat(count)[:count], torch.arange(count))


def in_second_stage(kind: type, head: type = heads.Linear, **options: object):
    """A method after a first stage and at the beginning of the second, where the head has grown."""
    method = kind(network(head=head), losses.CrossEntropy(), **options)
    first = batch((0, 1))
    method.begin(Stage(0, 3, ("a", "b"), (0, 1), batches=lambda: [first]))
    method.end(Stage(0, 3, ("a", "b"), (0, 1), batches=lambda: [first]))
    state = method.state_dict()
    grown = network(head=head)
    grown.load_state_dict({n.removeprefix("model."): v for n, v in state.items() if n.startswith("model.")})
    grown.head.grow(4)
    later = kind(grown, losses.CrossEntropy(), **options)
    for name, own in later.state_dict().items():  # as the next stage of a run takes over
        if name in state and not name.startswith("model."):
            own[: len(state[name])] = state[name]
    later.begin(Stage(1, 3, SECOND.classes, SECOND.new, batches=lambda: [batch((2, 3), seed=1)]))
    return later


def moved(method: nn.Module, by: float = 0.1) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in method.model.parameters():
            weight.add_(by * torch.randn(weight.shape, generator=generator))


@pytest.mark.parametrize("kind", [L2Previous, LwF, FeatureKD, EWC, Consolidation, YDistil])
def test_the_first_stage_is_supervised_training(kind):
    method = kind(network(), losses.CrossEntropy())
    method.begin(FIRST)
    there = batch((0, 1))
    expected = nn.functional.cross_entropy(method.model(there.images), there.targets)
    torch.testing.assert_close(method.step(there).loss, expected)


def test_only_classes_of_the_stage_compete():
    there = batch((2, 3))
    for among, columns in (("stage", slice(2, None)), ("known", slice(None))):
        method = in_second_stage(LwF, among=among, weight=0).eval()
        targets = there.targets - (2 if among == "stage" else 0)
        expected = nn.functional.cross_entropy(method.model(there.images)[:, columns], targets)
        torch.testing.assert_close(method.step(there).loss, expected)


def test_an_old_class_that_comes_back_competes():
    method = LwF(network(4), losses.CrossEntropy(), weight=0)
    method.begin(Stage(1, 2, SECOND.classes, SECOND.new, batches=lambda: [batch((1, 2, 3))]))
    there = batch((1, 2, 3))
    expected = nn.functional.cross_entropy(method.model(there.images)[:, 1:], there.targets - 1)
    torch.testing.assert_close(method.step(there).loss, expected)


def test_old_answers_are_distilled_over_old_classes_with_a_temperature():
    method = in_second_stage(LwF, weight=3.0, temperature=2.5).eval()
    before = copy.deepcopy(method.model)
    moved(method)
    there = batch((2, 3))
    total = 0.0
    for image, target in zip(there.images, there.targets, strict=True):
        new, old = method.model(image[None])[0].double().tolist(), before(image[None])[0].double().tolist()
        total += math.log(math.exp(new[2]) + math.exp(new[3])) - new[int(target)]
        p, q = ([math.exp(z / 2.5) for z in scores[:2]] for scores in (old, new))
        p, q = ([value / sum(each) for value in each] for each in (p, q))
        total += 3.0 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert method.step(there).loss.item() == pytest.approx(total / len(there), rel=1e-4)


def test_features_are_held_by_their_squared_distance():
    method = in_second_stage(FeatureKD, weight=2.0).eval()
    there = batch((2, 3))
    old = method.model.embed(there.images).detach()
    moved(method)
    expected = (method.model.embed(there.images) - old).square().mean()
    torch.testing.assert_close(method.step(there).logs["feature_loss"], expected.detach())


def test_the_teacher_stays_what_it_was():
    method = in_second_stage(LwF).train()
    state = {name: value.clone() for name, value in method.teacher.state_dict().items()}
    for seed in range(2):
        method.step(batch((2, 3), seed=seed)).loss.backward()
    assert all(torch.equal(value, state[name]) for name, value in method.teacher.state_dict().items())
    assert all(weight.grad is None for weight in method.teacher.parameters())


@pytest.mark.parametrize("head", [heads.Linear, heads.Cosine])
def test_the_distance_from_earlier_weights_leaves_new_rows_out(head):
    method = in_second_stage(L2Previous, head=head, strength=0.5)
    before = {name: weight.detach().clone() for name, weight in method.model.named_parameters()}
    assert method.penalty().item() == 0
    moved(method)
    expected = 0.0
    for name, weight in method.model.named_parameters():
        apart = (weight.double() - before[name]).square()
        rows = name.removeprefix("head.") in method.model.head.per_class
        expected += 0.5 * float((apart[:2] if rows else apart).sum().detach())
    assert method.penalty().item() == pytest.approx(expected, rel=1e-5)


def test_only_names_a_part_of_the_network():
    method = in_second_stage(L2Previous, only="head", strength=1.0)
    with torch.no_grad():
        for weight in method.model.backbone.parameters():
            weight.add_(1)
    assert method.penalty().item() == 0
    with pytest.raises(ConfigError, match="is in the name of no weight that learns"):
        L2Previous(network(), losses.CrossEntropy(), only="attention")


def test_information_is_the_expected_square_of_the_gradient_of_each_sample():
    method = EWC(network(), losses.CrossEntropy())
    there = batch((0, 1), 5)
    method.end(Stage(0, 2, FIRST.classes, FIRST.new, batches=lambda: [there]))
    method.eval()
    weights = dict(method.model.named_parameters())
    expected = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for image in there.images:
        for c in range(2):
            log_p = method.model(image[None]).log_softmax(1)[0]
            found = torch.autograd.grad(log_p[c], list(weights.values()))
            for name, gradient in zip(weights, found, strict=True):
                expected[name] += log_p[c].detach().exp() * gradient.square() / len(there)
    for name, value in expected.items():
        torch.testing.assert_close(method.precision[name], value, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("form", ["online", "separate"])
@pytest.mark.parametrize("stages", [2, 3])
def test_with_the_exact_hessian_parabolas_end_at_their_joint_optimum(form, stages):
    """Around the last weights, the information of all stages gives the optimum of all; a penalty for each stage around
    its own end counts the first of three twice."""
    generator = torch.Generator().manual_seed(1)
    method = EWC(network().double(), losses.CrossEntropy(), form=form, strength=1.0, only="head.linear.bias")
    bias = method.model.head.linear.bias
    hessians = torch.rand(3, len(bias), generator=generator, dtype=torch.float64) + 0.1
    best = torch.randn(3, len(bias), generator=generator, dtype=torch.float64)
    for t in range(stages):
        a, c = next(iter(method.precision)), next(iter(method.anchor))
        with torch.no_grad():
            # Where the new parabola and the penalty together are least.
            bias.copy_((hessians[t] * best[t] + a * c) / (hessians[t] + a))
        method.information = lambda *args, t=t: {"head.linear.bias": hessians[t]}
        method.end(Stage(t))
    joint = (hessians[:stages] * best[:stages]).sum(0) / hessians[:stages].sum(0)
    assert torch.allclose(bias, joint) == (form == "online" or stages == 2)


def test_separate_penalties_are_summed_to_one_parabola():
    generator = torch.Generator().manual_seed(2)
    method = EWC(network(), losses.CrossEntropy(), form="separate")
    shapes = {name: method.model.get_parameter(name) for name in method.anchor.names}
    kept = []
    for t in range(3):
        moved(method, by=0.3)
        fresh = {name: torch.rand(w.shape, generator=generator) for name, w in shapes.items()}
        kept.append((fresh, {name: w.detach().clone() for name, w in shapes.items()}))
        method.information = lambda *args, fresh=fresh: fresh
        method.end(Stage(t))
    gradients = []
    for own in (True, False):
        moved_to = {name: (w.detach() + 0.5).requires_grad_() for name, w in shapes.items()}
        parts = [(method.precision, method.anchor)] if own else kept
        total = sum((f[n] * (moved_to[n] - a[n]).square()).sum() for f, a in parts for n in shapes)
        gradients.append(torch.autograd.grad(total, list(moved_to.values())))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_decay_lets_go_of_earlier_stages():
    method = EWC(network(), losses.CrossEntropy(), decay=0.25)
    ones = {name: torch.ones_like(weight) for name, weight in method.model.named_parameters()}
    method.information = lambda *args: ones
    for t in range(2):
        method.end(Stage(t))
    assert all(bool((value == 1.25).all()) for value in method.precision)


def test_new_rows_have_no_information_and_old_ones_go_on():
    method = in_second_stage(EWC)
    rows = method.precision["head.linear.weight"]
    assert rows[:2].any()
    assert not rows[2:].any()
    assert method.penalty().item() == 0
    with torch.no_grad():
        method.model.head.linear.weight[2:].add_(1)
    assert method.penalty().item() == 0


def test_without_information_it_says_so():
    method = EWC(network(4), losses.CrossEntropy())
    with pytest.warns(RepertoireWarning, match="has no information of the stages before"):
        method.begin(SECOND)


@pytest.mark.parametrize("importance", ["task", "fisher"])
def test_frozen_weights_are_the_same_bit_for_bit(importance):
    method = in_second_stage(Consolidation, freeze="backbone", importance=importance).train()
    optimizer = torch.optim.SGD(method.parameters(), lr=0.5, momentum=0.9, weight_decay=0.1)
    before = {name: value.clone() for name, value in method.model.backbone.state_dict().items()}
    head = method.model.head.linear.weight.detach().clone()
    for seed in range(3):
        optimizer.zero_grad()
        method.step(batch((2, 3), seed=seed)).loss.backward()
        optimizer.step()
        method.after_update()
    assert all(torch.equal(value, before[name]) for name, value in method.model.backbone.state_dict().items())
    assert not torch.equal(method.model.head.linear.weight, head)


def test_frozen_old_rows_tell_apart_only_where_all_known_classes_compete():
    for among, apart in (("known", True), ("stage", False)):
        found = []
        for kind, options in ((Consolidation, {"freeze": "head", "decay": 0.0}), (L2Previous, {})):
            method = in_second_stage(kind, among=among, strength=0.1, **options).train()
            optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
            for seed in range(3):
                optimizer.zero_grad()
                method.step(batch((2, 3), seed=seed)).loss.backward()
                optimizer.step()
                method.after_update()
            found.append(torch.cat([value.flatten() for value in method.model.state_dict().values()]))
        assert torch.equal(*found) == (not apart)


def test_one_strength_for_all_is_the_distance_from_earlier_weights():
    ours = in_second_stage(Consolidation, freeze="", strength=0.5)
    theirs = in_second_stage(L2Previous, strength=0.5)
    for method in (ours, theirs):
        moved(method)
    torch.testing.assert_close(ours.penalty(), theirs.penalty())


def test_twice_the_information_is_elastic_weight_consolidation():
    ours = in_second_stage(Consolidation, freeze="", strength=0.5, importance="fisher")
    theirs = in_second_stage(EWC, strength=1.0)
    for method in (ours, theirs):
        moved(method)
    torch.testing.assert_close(ours.penalty(), theirs.penalty())


def test_the_proximal_step_holds_at_any_strength():
    method = in_second_stage(Consolidation, freeze="", strength=1e6, rate=0.1)
    before = method.model.backbone.blocks[0].conv.weight.detach().clone()
    assert method.penalty() is None
    moved(method, by=1.0)
    method.after_update()
    torch.testing.assert_close(method.model.backbone.blocks[0].conv.weight, before, rtol=0, atol=1e-4)


def test_a_weight_is_not_both_frozen_and_free():
    with pytest.raises(ConfigError, match="both name"):
        Consolidation(network(), losses.CrossEntropy(), freeze="head", free="head")


def test_the_old_head_teaches_through_the_trunk_and_learns_nothing():
    method = in_second_stage(YDistil, weight=1.0, among="stage")
    moved(method)
    there = batch((2, 3))
    whole = method.step(there).loss
    assert all(weight.grad is None for weight in method.teacher_head.parameters())
    trunk = next(method.model.backbone.parameters())
    (through_both,) = torch.autograd.grad(whole, trunk, retain_graph=True)
    features = method.model.embed(there.images)
    told = method.teacher_head(features.detach())[:, :2].div(2).log_softmax(1)
    said = method.model.head(features)[:, :2].div(2).log_softmax(1)
    alone = (told.exp() * (told - said)).sum(1).mean()
    new = nn.functional.cross_entropy(method.model.head(features)[:, 2:], there.targets - 2)
    (through_one,) = torch.autograd.grad(new + alone, trunk)
    torch.testing.assert_close(new + alone, whole)
    assert not torch.allclose(through_both, through_one)


def test_the_student_is_pulled_away_from_the_teacher_where_all_classes_compete():
    there = batch((2, 3))
    for among, parted in (("known", True), ("stage", False)):
        method = in_second_stage(YDistil, among=among)
        optimizer = torch.optim.SGD(method.parameters(), lr=0.5)
        for _ in range(3):
            optimizer.zero_grad()
            step = method.step(there)
            step.loss.backward()
            optimizer.step()
        assert (step.logs["distillation_loss"].item() > 1e-6) == parted


@pytest.mark.parametrize("kept", [True, False])
def test_weights_go_back_a_part_of_the_way_and_new_rows_stay(kept):
    method = in_second_stage(YDistil, alpha=0.25, heads="kept" if kept else "learned")
    before = {name: value.clone() for name, value in method.model.state_dict().items()}
    moved(method)
    after = {name: value.clone() for name, value in method.model.state_dict().items()}
    method.end(SECOND)
    for name, value in method.model.state_dict().items():
        expected = before[name] + 0.25 * (after[name] - before[name])
        if name.startswith("head."):
            old = before[name][:2] if kept else expected[:2]
            expected = torch.cat([old, after[name][2:]])
        torch.testing.assert_close(value, expected if value.is_floating_point() else after[name])
