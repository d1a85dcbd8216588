"""The parts of the pseudo-labeller: prototypes, a shrunk space of classes, losses of samples; against slow loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from repertoire import losses, registry
from repertoire.data import Batch
from repertoire.errors import ConfigError, ShapeError
from repertoire.methods import (
    Classifier,
    ClassQueue,
    FixMatch,
    Normalize,
    PrototypeBlend,
    PseudoLabels,
    SampleLosses,
    ShrunkSpace,
    Threshold,
    rejoined,
)
from repertoire.rules import Backprop

C = 4


def classifier(classes: int = C) -> Classifier:
    torch.manual_seed(0)
    net = registry.build("backbones", "vit:patch=4,dim=12,depth=1,heads=2", in_channels=1, image_size=8)
    head = registry.build("heads", "linear", in_features=net.out_features, num_classes=classes)
    return Classifier(Normalize([0.5], [0.25]), net, head)


def batch_of(count: int = 4, unlabelled: int = 8, seed: int = 0, names: tuple[str, ...] = ("weak", "strong")) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    views = tuple(torch.rand(unlabelled, 1, 8, 8, generator=generator) for _ in names)
    main = Batch((torch.rand(count, 1, 8, 8, generator=generator),), torch.arange(count) % C, torch.arange(count))
    stream = Batch(views, torch.full((unlabelled,), -1), torch.arange(unlabelled), names=names)
    main.streams = {"unlabelled": stream}
    return main


def shrunk(row: list[float], threshold: float) -> set[int] | None:
    """Every prefix of rivals is tried, the shortest first; None where none helps."""
    order = sorted(range(len(row)), key=lambda c: -row[c])
    for dropped in range(1, len(row) - 1):
        rest = order[1 + dropped :]
        if row[order[0]] / (row[order[0]] + sum(row[c] for c in rest)) >= threshold:
            return {order[0], *rest}
    return None


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 8), st.integers(1, 6), st.sampled_from([0.5, 0.8, 0.95, 0.999]), st.integers(0, 999))
def test_the_shrunk_space_is_the_largest_in_which_the_answer_is_sure(classes, count, threshold, seed):
    generator = torch.Generator().manual_seed(seed)
    q = (3 * torch.randn(count, classes, generator=generator, dtype=torch.float64)).softmax(1)
    sure = q.amax(1) >= threshold
    space = ShrunkSpace(threshold)
    space.certain.fill_(0.25)
    kept, weight = space(q, sure)
    for i, row in enumerate(q.tolist()):
        expected = None if sure[i] else shrunk(row, threshold)
        if expected is None:
            assert weight[i] == 0
            assert kept[i].all()
        else:
            assert set(kept[i].nonzero().flatten().tolist()) == expected
            assert float(weight[i]) == pytest.approx(0.25 * max(row))


def test_two_classes_leave_nothing_to_shrink():
    kept, weight = ShrunkSpace(0.95)(torch.tensor([[0.6, 0.4], [0.99, 0.01]]), torch.tensor([False, True]))
    assert kept.all()
    assert not weight.any()


def test_the_share_of_sure_samples_starts_with_the_first_batch_and_follows_slowly():
    space = ShrunkSpace(0.9, decay=0.75).train()
    q = torch.tensor([[0.5, 0.45, 0.03, 0.02]] * 4)
    _, first = space(q, torch.tensor([True, False, False, False]))
    assert first.tolist() == pytest.approx([0, 0.125, 0.125, 0.125])
    space.after_update()
    assert float(space.certain) == 0.25
    space(q, torch.tensor([True, True, True, True]))
    assert float(space.certain) == 0.25  # nothing moves before the weights have
    space.after_update()
    assert float(space.certain) == pytest.approx(0.75 * 0.25 + 0.25)


def test_shrunk_fixmatch_is_its_formula():
    """Dropped classes are out of the softmax, and not merely zero in it."""
    batch = batch_of()
    model = classifier().eval()
    method = FixMatch(model, losses.CrossEntropy(), threshold=0.6, ratio=2, space="shrunk", weight=0.7).eval()
    method.pseudo.space.certain.fill_(0.5)
    weak, strong = batch.streams["unlabelled"].views
    total, used = 0.0, 0
    with torch.no_grad():
        scores = method.auxiliary(model.embed(strong)).double()
        for q, z in zip(model(weak).double().softmax(1).tolist(), scores.tolist(), strict=True):
            kept = None if max(q) >= 0.6 else shrunk(q, 0.6)
            if kept is not None:
                used += 1
                best = q.index(max(q))
                total -= 0.5 * max(q) * math.log(math.exp(z[best]) / sum(math.exp(z[c]) for c in kept))
    assert used
    assert float(method.step(batch).logs["shrunk_loss"]) == pytest.approx(0.7 * total / 8, rel=1e-5)


def test_what_is_dropped_takes_no_gradient():
    model = classifier()
    method = FixMatch(model, losses.CrossEntropy(), threshold=0.6, ratio=2, space="shrunk").eval()
    method.pseudo.space.certain.fill_(1.0)
    scores: list[Tensor] = []

    def keep(module: object, inputs: object, output: Tensor) -> None:
        output.retain_grad()
        scores.append(output)

    method.auxiliary.register_forward_hook(keep)
    method.step(batch_of()).loss.backward()
    q = model(batch_of().streams["unlabelled"].views[0]).softmax(1)
    for row, gradient in zip(q.tolist(), scores[0].grad, strict=True):
        kept = shrunk(row, 0.6)
        if kept is not None and max(row) < 0.6:
            assert set(gradient.nonzero().flatten().tolist()) == kept


def test_a_class_queue_keeps_the_last_of_each_class():
    queue = ClassQueue(classes=3, dimensions=2, size=4)
    kept: list[list[list[float]]] = [[], [], []]
    generator = torch.Generator().manual_seed(0)
    for count in (1, 3, 9, 2, 12):
        features = torch.rand(count, 2, generator=generator)
        labels = torch.randint(-1, 2, (count,), generator=generator)
        queue.push(features, labels)
        for row, label in zip(features.tolist(), labels.tolist(), strict=True):
            if label >= 0:
                kept[label] = [*kept[label], row][-4:]
        for c in range(3):
            held = min(int(queue.pushed[c]), 4)
            assert sorted(queue.memory[c, :held].tolist()) == sorted(kept[c])
            mean = torch.tensor(kept[c]).mean(0) if kept[c] else torch.zeros(2)
            torch.testing.assert_close(queue.prototypes[c], mean)
    assert min(len(kept[0]), len(kept[1])) == 4
    assert not kept[2]


@pytest.mark.parametrize("tempering", [0.3, 1.0, 1.5])
def test_the_blend_is_its_formula(tempering: float):
    generator = torch.Generator().manual_seed(1)
    blend = PrototypeBlend(C, 3, temperature=0.2, tempering=tempering, warm_up=0, decay=0.8)
    features, labels = torch.randn(12, 3, generator=generator), torch.arange(12) % C
    blend.see(features, labels)
    blend.after_update()
    shares = [1 / C] * C
    for _ in range(3):
        p = (2 * torch.randn(6, C, generator=generator)).softmax(1)
        z = torch.randn(6, 3, generator=generator)
        found = blend(p, z)
        for row, feature, blended in zip(p.tolist(), z, found.tolist(), strict=True):
            cosines = [
                float(F.cosine_similarity(feature.double(), features[labels == c].double().mean(0), dim=0))
                for c in range(C)
            ]
            total = sum(math.exp(value / 0.2) for value in cosines)
            near = [math.exp(value / 0.2) / total for value in cosines]
            v = (shares[row.index(max(row))] / max(shares)) ** (1 / tempering)
            assert blended == pytest.approx([(1 - v) * a + v * b for a, b in zip(row, near, strict=True)], abs=1e-5)
        answers = found.argmax(1).tolist()
        shares = [0.8 * m + 0.2 * answers.count(c) / 6 for c, m in enumerate(shares)]
        blend.after_update()
        torch.testing.assert_close(blend.shares.tolist(), shares, rtol=1e-5, atol=1e-6)
    assert len(set(shares)) > 1


def test_even_shares_leave_the_prototypes_alone():
    blend = PrototypeBlend(C, 3, warm_up=0)
    blend.queue.push(torch.randn(8, 3), torch.arange(8) % C)
    p, z = torch.randn(5, C).softmax(1), torch.randn(5, 3)
    assert blend.strength().tolist() == [1.0] * C
    torch.testing.assert_close(blend(p, z), blend.similarities(z).softmax(1))


def test_nothing_is_blended_before_the_warm_up_is_over():
    blend = PrototypeBlend(C, 3, warm_up=2)
    blend.queue.push(torch.randn(8, 3), torch.arange(8) % C)
    p, z = torch.randn(5, C).softmax(1), torch.randn(5, 3)
    for _ in range(2):
        torch.testing.assert_close(blend(p, z), p)
        blend.after_update()
    assert not torch.allclose(blend(p, z), p)


def test_blended_fixmatch_aligns_strong_views_with_weak_ones():
    batch = batch_of()
    model = classifier().eval()
    method = FixMatch(model, losses.CrossEntropy(), threshold=0.0, ratio=2, blend="prototypes", warm_up=0).eval()
    blend = method.pseudo.blend
    blend.queue.push(torch.randn(8, 12), torch.arange(8) % C)
    weak, strong = batch.streams["unlabelled"].views
    q = [
        F.cosine_similarity(model.embed(view)[:, None], blend.queue.prototypes, dim=2) / 0.05 for view in (weak, strong)
    ]
    expected = -(q[0].softmax(1) * q[1].log_softmax(1)).sum(1).mean()
    step = method.step(batch)
    torch.testing.assert_close(step.logs["similarity_loss"], expected.detach(), rtol=1e-4, atol=1e-5)
    # The labels are those of the blend.
    labels = method.pseudo(model(weak), torch.arange(8), model.embed(weak)).labels
    hard = F.cross_entropy(model(strong), labels)
    torch.testing.assert_close(step.logs["unlabelled_loss"], hard.detach(), rtol=1e-4, atol=1e-5)


def test_queues_hold_features_of_labelled_samples_by_the_moving_average_alone():
    method = FixMatch(classifier(), losses.CrossEntropy(), threshold=0.0, ratio=2, blend="prototypes", warm_up=0)
    with torch.no_grad():
        for parameter in method.teacher.parameters():
            parameter.mul_(1.1)
    batch = batch_of()
    method.step(batch)
    features = method.teacher.network.embed(batch.images)
    method.after_update()
    queue = method.pseudo.blend.queue
    assert queue.pushed.tolist() == [1, 1, 1, 1]
    torch.testing.assert_close(queue.memory[:, 0], features, rtol=1e-4, atol=1e-5)


def test_losses_of_samples_are_averaged_and_divided_once_a_pass():
    history = SampleLosses(samples=6, decay=0.25)
    expected: dict[int, float] = {}
    steps = (((0, 1, 2), (0.1, 4.0, 0.2)), ((3, 4), (5.0, 0.3)), ((0, 3), (0.5, 1.0)), ((1, 5), (0.4, 9.0)))
    for number, (index, found) in enumerate(steps):
        history.see(torch.tensor(index), torch.tensor(found))
        history.after_update()
        for i, value in zip(index, found, strict=True):
            expected[i] = 0.25 * expected[i] + 0.75 * value if i in expected else value
        told = [expected.get(i, -1.0) for i in range(6)]
        torch.testing.assert_close(history.losses.tolist(), told, rtol=1e-5, atol=1e-6)
        if number < 2:
            assert not history.naive.any()
        elif number == 2:
            # Seven were seen of six: 0.1 -> 0.4, 4, 0.2, 5 -> 2, 0.3; the sixth never, and it is not naive.
            assert history.naive.tolist() == [True, False, True, False, True, False]
    assert history.naive[1].item() is False  # its loss has fallen, and the pass is not over


def test_halves_come_from_the_other_version():
    first, second = torch.zeros(64, 1, 6, 6), torch.ones(64, 1, 6, 6)
    torch.manual_seed(0)
    joined = rejoined(first, second)
    left, upper = torch.zeros(6, 6), torch.zeros(6, 6)
    left[:, :3], upper[:3] = 1, 1
    kinds = [0 if torch.equal(image, left) else 1 if torch.equal(image, upper) else 2 for image in joined[:, 0]]
    assert set(kinds) == {0, 1}


@pytest.mark.parametrize("diverse", ["learned", "all"])
def test_learned_samples_alone_get_the_harder_view(diverse: str):
    method = FixMatch(classifier(), losses.CrossEntropy(), threshold=0.0, ratio=2, diverse=diverse, unlabelled=8)
    batch = batch_of(names=("weak", "strong", "other"))
    naive = torch.arange(8) % 3 == 0
    if diverse == "learned":
        method.samples.naive.copy_(naive)
    seen: list[Tensor] = []
    method.model.normalize.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    torch.manual_seed(3)
    method.step(batch)
    _, strong, other = batch.streams["unlabelled"].views
    hard = seen[0][4:12]
    for i in range(8):
        changed = bool(naive[i]) or diverse == "all"
        assert torch.equal(hard[i], strong[i]) is not changed
        assert bool(torch.isin(hard[i], torch.cat([strong[i], other[i]])).all())


def test_the_loss_of_a_sample_is_recorded_before_any_threshold():
    method = FixMatch(classifier(), losses.CrossEntropy(), threshold=1.0, ratio=2, diverse="learned", unlabelled=8)
    batch = batch_of(names=("weak", "strong", "other"))
    step = method.step(batch)
    assert float(step.logs["confident"]) == 0
    method.after_update()
    assert (method.samples.losses > 0).all()


def test_outputs_for_missing_classes_are_asked_for():
    batch = batch_of()
    batch.targets = batch.targets.clamp(max=2)
    model = classifier().eval()
    method = FixMatch(
        model, losses.CrossEntropy(), threshold=1.0, ratio=2, missing_classes=1, counts=torch.tensor([2, 1, 1, 0])
    ).eval()
    plain = FixMatch(model, losses.CrossEntropy(), threshold=1.0, ratio=2).eval()
    mean = model(batch.streams["unlabelled"].views[0]).double().softmax(1).mean(0)
    uneven = math.log(C) + float((mean * mean.log()).sum())
    found, base = method.step(batch), plain.step(batch)
    assert float(found.logs["uneven"]) == pytest.approx(uneven, rel=1e-4)
    torch.testing.assert_close(found.loss, base.loss + found.logs["uneven"])
    # What the mean of a batch says, its parts do not.
    assert plain.needs.per_sample
    assert not method.needs.per_sample
    aligned = FixMatch(model, losses.CrossEntropy(), align=True, missing_classes=1, counts=torch.tensor([4, 2, 3, 0]))
    # Of the class without labels nobody knows the share: it gets that of the mean.
    torch.testing.assert_close(aligned.pseudo.alignment.shares, torch.tensor([4.0, 2, 3, 3]) / 12)


OPTIONS = {
    "shrunk": {"space": "shrunk", "threshold": 0.4},
    "prototypes": {"blend": "prototypes", "warm_up": 1, "threshold": 0.4},
    "diverse": {"diverse": "learned", "unlabelled": 8},
    "missing": {"missing_classes": 1, "threshold": "self-adaptive"},
    "everything": {
        "space": "shrunk", "blend": "prototypes", "warm_up": 1, "diverse": "learned", "unlabelled": 8,
        "threshold": "class-adaptive", "level": 0.4, "align": True, "even": 0.5,
    },
}  # fmt: skip


def trained(method: FixMatch, seeds: range, pieces: int = 1) -> FixMatch:
    rule = Backprop()
    rule.setup(method, lambda module: torch.optim.SGD(module.parameters(), lr=0.1), accumulate=pieces)
    for seed in seeds:
        torch.manual_seed(seed)
        rule.step(method, batch_of(seed=seed, names=tuple(method.needs.streams["unlabelled"].views)))
    return method


def made(name: str) -> FixMatch:
    method = FixMatch(classifier(), losses.CrossEntropy(), ratio=2, **OPTIONS[name])
    return method.train()


@pytest.mark.parametrize("name", OPTIONS)
def test_a_state_dict_is_all_there_is_to_resume_from(name: str):
    whole = trained(made(name), range(6))
    first = trained(made(name), range(3))
    second = made(name)
    second.load_state_dict(first.state_dict())
    resumed = trained(second, range(3, 6))
    for key, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value), key


def test_a_batch_in_pieces_moves_the_memories_alike():
    whole, pieces = trained(made("prototypes"), range(1)), trained(made("prototypes"), range(1), pieces=2)
    for (key, value), other in zip(whole.named_buffers(), pieces.buffers(), strict=True):
        torch.testing.assert_close(other, value, rtol=1e-4, atol=1e-5, msg=key)


def test_what_is_refused():
    with pytest.raises(ConfigError, match="needs features"):
        PseudoLabels(Threshold(), blend=PrototypeBlend(C, 3))(torch.zeros(2, C), torch.arange(2))
    with pytest.raises(ShapeError, match="halves are joined of images"):
        rejoined(torch.zeros(2, 5), torch.zeros(2, 5))
    for make, text in (
        (lambda: ShrunkSpace(1.5), "threshold must lie in"),
        (lambda: PrototypeBlend(C, 3, temperature=0.0), "temperature must be positive"),
        (lambda: ClassQueue(C, 3, size=0), "size must be positive"),
        (lambda: SampleLosses(0), "samples must be positive"),
    ):
        with pytest.raises(ConfigError, match=text):
            make()
