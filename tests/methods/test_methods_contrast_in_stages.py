"""Methods of replay and contrast that go through stages: iCaRL, ER-ACE, PRD, Sy-CON and SemiCon."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from repertoire import backbones, heads, losses, recipe
from repertoire.data import Batch, FeatureSet, Splits
from repertoire.errors import ConfigError
from repertoire.methods import (
    ERACE,
    PRD,
    Classifier,
    ContinualContrast,
    ICaRL,
    Normalize,
    SemiConReplay,
    SimCLR,
    Stage,
)
from repertoire.train import in_memory

NAMES = ("a", "b", "c", "d")
SECOND = Stage(1, 2, NAMES, new=(2, 3))


def network(head: str, classes: int = 4) -> Classifier:
    torch.manual_seed(0)
    net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
    kinds = {"linear": heads.Linear, "mean": heads.NearestMean, "cosine": heads.NormalizedSoftmax}
    return Classifier(Normalize([0.5], [0.25]), net, kinds[head](net.out_features, classes))


def batch(count: int, first: int, seed: int, views: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = tuple(torch.rand(count, 1, 4, 4, generator=generator) for _ in range(views))
    return Batch(images, first + torch.arange(count) % 2, torch.arange(count))


def with_memory(views: int = 1) -> Batch:
    new = batch(6, 2, 0, views)
    new.streams = {"replay": batch(3, 0, 1, views)}
    return new


def log_softmax(scores: list[float]) -> list[float]:
    total = math.log(sum(math.exp(s) for s in scores))
    return [s - total for s in scores]


def test_er_ace_asks_new_samples_among_the_classes_of_their_batch_and_the_memory_among_all():
    method, given = ERACE(network("linear"), losses.CrossEntropy()).eval(), with_memory()
    total = 0.0
    for part, columns, size in ((given, [2, 3], 6), (given.streams["replay"], [0, 1, 2, 3], 3)):
        for scores, target in zip(method.model(part.images).double().tolist(), part.targets.tolist(), strict=True):
            total -= log_softmax([scores[c] for c in columns])[columns.index(target)] / size
    step = method.step(given)
    assert float(step.loss.detach()) == pytest.approx(total, rel=1e-5)
    del given.streams["replay"]
    method.zero_grad()
    method.step(given).loss.backward()
    assert not method.model.head.linear.weight.grad[:2].any(), "new samples push no old class away"


@pytest.mark.parametrize("outputs", ["sigmoid", "softmax"])
def test_icarl_learns_new_labels_and_old_answers(outputs: str):
    method = ICaRL(network("mean", 2), outputs=outputs, weight=0.7)
    old = copy.deepcopy(method.model)
    method.model.head.grow(4)
    method.begin(SECOND)
    with torch.no_grad():
        for parameter in method.model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    method.eval()
    given, total = with_memory(), 0.0
    for part in (given, given.streams["replay"]):
        now = method.model.head.linear(method.model.embed(part.images)).double().tolist()
        then = old.eval().head.linear(old.embed(part.images)).double().tolist()
        for scores, before, target in zip(now, then, part.targets.tolist(), strict=True):
            if outputs == "softmax":
                total -= log_softmax(scores)[target]
                wanted, found = (log_softmax([s / 2 for s in each[:2]]) for each in (before, scores))
                total += 0.7 * sum(math.exp(q) * (q - p) for q, p in zip(wanted, found, strict=True))
                continue
            for k, score in enumerate(scores):
                g = 1 / (1 + math.exp(-score))
                p = 1 / (1 + math.exp(-before[k])) if k < 2 else float(k == target)
                total -= (0.7 if k < 2 else 1) * (p * math.log(g) + (1 - p) * math.log(1 - g))
    assert float(method.step(given).loss.detach()) == pytest.approx(total / 9, rel=1e-4)


def told(method: ICaRL | SemiConReplay) -> tuple[Batch, Batch]:
    new, old = batch(6, 2, 0), batch(4, 0, 1)
    method.begin(SECOND)
    assert not method.model.head.told
    method.end(Stage(1, 2, NAMES, new=(2, 3), batches=lambda: [new], remembered=lambda: [old]))
    assert method.model.head.told
    return new, old


def test_at_the_end_of_a_stage_the_means_are_those_of_its_samples_and_of_the_memory():
    method = ICaRL(network("mean")).eval()
    parts = told(method)
    features = torch.cat([method.model.embed(part.images) for part in parts])
    labels = torch.cat([part.targets for part in parts])
    z = F.normalize(features)
    means = torch.stack([F.normalize(z[labels == k].mean(0), dim=0) for k in range(4)])
    torch.testing.assert_close(method.model.head.means, means)
    nearest = torch.cdist(z, means).argmin(1)
    assert torch.equal(method.model(torch.cat([part.images for part in parts])).argmax(1), nearest)
    before = method.model.head.means.clone()
    method.end(Stage(1, 2, NAMES, new=(2, 3), batches=lambda: [batch(2, 2, 5)]))
    torch.testing.assert_close(method.model.head.means[:2], before[:2])  # a class without samples keeps its mean
    assert not torch.allclose(method.model.head.means[2:], before[2:])


def test_semicon_knows_the_labels_that_were_asked_for_and_no_others():
    method = SemiConReplay(network("mean"), samples=6, share=0.5).eval()
    assert int(method.asked.sum()) == 3
    given = with_memory(views=2)
    spoilt = with_memory(views=2)
    spoilt.targets = torch.where(method.asked, spoilt.targets, 0)
    assert torch.equal(method.step(given).loss, method.step(spoilt).loss)
    spoilt.targets = torch.where(method.asked, 0, given.targets)
    assert not torch.equal(method.step(given).loss, method.step(spoilt).loss)
    new, _ = told(method)
    z = F.normalize(method.model.embed(new.images))
    chosen = method.asked & (new.targets == 2)
    if chosen.any():
        torch.testing.assert_close(method.model.head.means[2], F.normalize(z[chosen].mean(0), dim=0))


def test_semicon_without_unlabelled_samples_is_supcon_on_the_others():
    method = SemiConReplay(network("mean"), samples=6, share=0.5, unlabelled=False).eval()
    given = with_memory(views=2)
    pairs = zip(given.views, given.streams["replay"].views, strict=True)
    rows = torch.cat([torch.cat([a[method.asked], b]) for a, b in pairs])
    labels = torch.cat([given.targets[method.asked], given.streams["replay"].targets]).repeat(2)
    expected = losses.supcon_loss(method.projector(method.model.embed(rows)), labels)
    torch.testing.assert_close(method.step(given).logs["loss"], expected.detach())


def test_old_prototypes_learn_by_their_relations_alone():
    given = batch(8, 2, 0, views=2)
    for beta, moved in ((0.0, False), (1.0, True)):
        method = PRD(network("cosine", 2), beta=beta)
        method.model.head.grow(4)
        method.begin(SECOND)
        with torch.no_grad():  # otherwise nothing has moved yet
            for parameter in method.model.backbone.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        method.step(given).loss.backward()
        grad = method.model.head.weight.grad
        assert bool(grad[:2].any()) == moved
        assert grad[2:].any()
        (features,) = [method.model.embed(torch.cat(given.views))]
        scores = method.model.head(features.detach())
        assert scores.requires_grad


def test_prd_is_the_sum_of_its_terms():
    method = PRD(network("cosine", 2), alpha=0.5, beta=3.0).eval()
    old = copy.deepcopy(method.model)
    method.model.head.grow(4)
    method.begin(SECOND)
    with torch.no_grad():
        for parameter in method.model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    given = batch(8, 2, 0, views=2)
    images, labels = torch.cat(given.views), given.targets.repeat(2)
    z, before = method.model.embed(images), old.eval().embed(images)
    expected = losses.supcon_loss(method.projector(z), labels)
    expected = expected + 0.5 * F.cross_entropy(method.model.head(z)[:, 2:], labels - 2)
    weights = method.model.head.weight[:2], old.head.weight
    expected = expected + 3.0 * losses.relation_distillation(z, weights[0], before, weights[1])
    torch.testing.assert_close(method.step(given).loss, expected)


def test_features_learn_nothing_of_the_prototypes_loss():
    method, given = PRD(network("cosine"), alpha=1e4), batch(8, 0, 0, views=2)
    method.step(given).loss.backward()
    with_it = [p.grad.clone() for p in method.model.backbone.parameters()]
    plain = PRD(network("cosine"), alpha=0.0)
    plain.load_state_dict(method.state_dict())
    plain.step(given).loss.backward()
    for one, two in zip(with_it, plain.model.backbone.parameters(), strict=True):
        torch.testing.assert_close(one, two.grad)


def test_where_old_classes_come_again_all_prototypes_learn():
    method = PRD(network("cosine"), beta=0.0)
    again = batch(8, 1, 0, views=2)
    method.begin(Stage(1, 2, NAMES, new=(2, 3), batches=lambda: [again]))
    method.step(again).loss.backward()
    assert method.model.head.weight.grad[1:3].any(1).all()


@pytest.mark.parametrize("keep", ["sy-con", "cassle", "nothing"])
def test_the_first_stage_is_simclr_and_later_ones_keep(keep: str):
    method = ContinualContrast(network("linear"), keep=keep, batch_norm=False)
    plain = SimCLR(network("linear"), temperature=0.2)
    plain.projector.load_state_dict(method.projector.state_dict())
    given = batch(6, 0, 0, views=2)
    method.begin(Stage(0, 2, NAMES[:2], new=(0, 1)))
    torch.testing.assert_close(method.step(given).logs["loss"], plain.step(given).logs["loss"])
    state = method.projector.state_dict()
    method.begin(SECOND)
    if keep == "nothing":
        assert method.teacher is None
        return
    kept = {name: p for name, p in method.named_parameters() if name.startswith("teacher")}
    assert kept
    assert not any(p.requires_grad for p in kept.values())
    assert not method.train().teacher.training
    step = method.step(given)
    step.loss.backward()
    assert all(p.grad is not None for p in method.predictor.parameters())
    images = torch.cat(given.views)
    z = method.projector(method.model.embed(images))
    method.teacher_projector.load_state_dict(state)
    foreseen, before = method.predictor(z), method.teacher_projector(method.teacher.embed(images))
    if keep == "cassle":
        expected = losses.nt_xent_loss(*z.chunk(2), temperature=0.2)
        expected = expected + losses.info_nce_loss(foreseen, before, temperature=0.2)
    else:
        pair = [torch.stack(rows.chunk(2), 1) for rows in (foreseen, before)]
        expected = losses.sycon_loss(*z.chunk(2), temperature=0.2, predicted=pair[0], previous=pair[1])
    torch.testing.assert_close(step.logs["loss"], expected.detach())


def test_a_predictor_begins_alike_however_often_a_stage_is_begun():
    found = []
    for _ in range(2):
        method = ContinualContrast(network("linear"))
        torch.manual_seed(len(found))
        method.begin(SECOND)
        found.append(torch.cat([p.flatten() for p in method.predictor.parameters()]))
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("kind", "words"), [(ICaRL, "nearest mean"), (SemiConReplay, "nearest mean"), (PRD, "prototypes by cosine")]
)
def test_another_head_is_refused(kind: Any, words: str):
    with pytest.raises(ConfigError, match=words):
        kind(network("linear"))


def test_a_run_gives_a_method_what_is_remembered():
    rows = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)

    def part(first: int, count: int) -> FeatureSet:
        keys = np.arange(count, dtype=np.uint64)
        labels = first + np.arange(count) % 2
        return FeatureSet(rows[:count], labels, [str(i) for i in range(count)], NAMES, keys)

    splits = Splits(part(2, 40), part(2, 8), part(2, 8), "made up", extra={"replay": part(0, 10)})
    config = recipe.make_config(data="in memory", method="icarl", backbone="mlp:hidden=8", epochs=1, device="cpu")
    start = recipe.StageStart(SECOND)
    built = recipe.build(config, splits, stage_start=start)
    labels = torch.cat([each.targets for each in built.begun().remembered()])
    assert labels.tolist() == [0, 1] * 5
    head = in_memory(built, validate=False).method.model.head
    assert head.told
    assert head.means.any(1).all()
