"""The prototype network: its head against the formula, its training, and its explanation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire import backbones, heads, losses
from repertoire.data import Batch, plain
from repertoire.errors import ConfigError
from repertoire.explain import GradCAM, PrototypeParts, prototype_examples
from repertoire.methods import Classifier, Normalize, Supervised, SupportTrivialPrototypes
from repertoire.rules import Backprop
from repertoire.train import fit


def classifier(sets: str = "both", classes: int = 3) -> Classifier:
    torch.manual_seed(0)
    net = backbones.ConvNet(image_size=16, width=4, depth=2)
    head = heads.SupportTrivial(net.out_features, classes, per_class=2, width=6, sets=sets)
    return Classifier(Normalize([0.5] * 3, [0.25] * 3), net, head)


def images(count: int = 6) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def batch(count: int = 6) -> Batch:
    return Batch((images(count),), torch.arange(count) % 3, torch.arange(count))


def reference_logits(head: heads.SupportTrivial, maps: Tensor) -> np.ndarray:
    """Cell by cell and prototype by prototype, in double precision."""
    total = np.zeros((len(maps), head.num_classes))
    for part in head.prototypes().values():
        cells = part.project(maps.double()).numpy()
        vectors, weights = part.vectors.numpy(), part.connections.numpy()
        classes, per_class, _ = vectors.shape
        for n in range(len(maps)):
            best = []
            for c in range(classes):
                for k in range(per_class):
                    p, most = vectors[c, k], 0.0
                    for i in range(cells.shape[2]):
                        for j in range(cells.shape[3]):
                            z = cells[n, :, i, j]
                            most = max(most, float(z @ p) / math.sqrt(float(z @ z) * float(p @ p)))
                    best.append(most)
            total[n] += weights @ np.array(best)
    return total


@pytest.mark.parametrize("sets", ["both", "support", "trivial"])
def test_the_head_agrees_with_the_formula(sets):
    head = classifier(sets).head.double().requires_grad_(False)
    for part in head.prototypes().values():
        part.connections.add_(torch.randn_like(part.connections))
    maps = torch.randn(3, head.in_features, 4, 4, dtype=torch.float64)
    np.testing.assert_allclose(head(maps).numpy(), reference_logits(head, maps), atol=1e-9)
    vectors = maps[:, :, 0, 0]
    torch.testing.assert_close(head(vectors), head(vectors[:, :, None, None]))


def test_the_classifier_gives_the_head_its_maps():
    model = classifier().eval()
    with torch.no_grad():
        maps = model.backbone.grid(model.backbone.forward_map(model.normalize(images())))
        expected = model.head(maps)
        assert torch.equal(model(images()), expected)
        features, logits = model.embed_and_score(images())
        assert torch.equal(logits, expected)
        assert torch.equal(features, model.embed(images()))
        assert not torch.equal(model.head(features), expected)


def test_the_loss_is_that_of_the_set_whose_turn_it_is():
    model, given = classifier(), batch()
    method = SupportTrivialPrototypes(model, separation_support=0.3, separation_trivial=0.2)
    step = method.step(given)
    maps = model.maps(given.images)
    for turn, (name, between, separation) in enumerate(
        [("trivial", losses.discrimination_loss, 0.2), ("support", losses.closeness_loss, 0.3)]
    ):
        part = model.head.prototypes()[name]
        most = part.similarities(maps).amax((3, 4))
        cluster = torch.stack([most[n, given.targets[n]].max() for n in range(6)]).mean()
        others = torch.stack([torch.cat([most[n, c] for c in range(3) if c != n % 3]).max() for n in range(6)]).mean()
        own = torch.eye(3).repeat_interleave(2, 1).bool()
        expected = (
            F.cross_entropy(part.logits(part.similarities(maps)), given.targets)
            - 0.8 * cluster
            + separation * others
            + 1e-3 * losses.orthogonality_loss(part.vectors)
            + between(part.vectors)
            + 1e-4 * part.connections[~own].abs().sum()
        )
        torch.testing.assert_close(step.logs[f"{name}_loss"], expected.detach())
        torch.testing.assert_close(method.step(given).loss, expected)
        assert int(method.turn) == turn
        method.after_update()
    torch.testing.assert_close(method.step(given).loss, step.loss)


def test_only_the_set_whose_turn_it_is_learns():
    method = SupportTrivialPrototypes(classifier())
    rule = Backprop()
    rule.setup(method, lambda module: torch.optim.SGD(module.parameters(), lr=0.1))
    before = {name: part.vectors.detach().clone() for name, part in method.model.head.prototypes().items()}
    rule.step(method.train(), batch())
    changed = {
        name: not torch.equal(part.vectors, before[name]) for name, part in method.model.head.prototypes().items()
    }
    assert changed == {"trivial": True, "support": False}


def test_it_learns():
    method = SupportTrivialPrototypes(classifier())
    colours = torch.eye(3)[torch.arange(24) % 3][:, :, None, None].expand(24, 3, 16, 16)
    given = Batch((0.8 * colours + 0.1 * images(24),), torch.arange(24) % 3, torch.arange(24))
    optimizer = torch.optim.Adam(method.parameters(), lr=0.01)
    for _ in range(40):
        optimizer.zero_grad()
        method.step(given).loss.backward()
        optimizer.step()
        method.after_update()
    assert method.step(given).logs["accuracy"] == 1


def test_the_map_is_the_weighted_similarity_of_the_class():
    model, x, targets = classifier().eval(), images(3), torch.tensor([2, 0, 1])
    with torch.no_grad():
        maps, expected = model.maps(x), 0
        for part in model.head.prototypes().values():
            similarities = part.similarities(maps)
            for k in range(2):
                cells = torch.stack([similarities[n, t, k] for n, t in enumerate(targets.tolist())])
                weights = torch.stack([part.connections[t, 2 * t + k] for t in targets.tolist()])
                expected = expected + weights[:, None, None] * cells
    large = F.interpolate(expected[:, None], (16, 16), mode="bilinear", align_corners=False)[:, 0].relu()
    found = PrototypeParts(normalize=False)(model, x, targets)
    torch.testing.assert_close(found, large)
    several = PrototypeParts(normalize=False)(model, x, torch.stack([targets, targets], 1))
    torch.testing.assert_close(several, torch.stack([large, large], 1))
    halves = [PrototypeParts(sets=name, normalize=False)(model, x, targets) for name in ("support", "trivial")]
    torch.testing.assert_close(halves[0] + halves[1], large)
    assert GradCAM()(model, x).shape == (3, 16, 16)


def test_examples_are_the_most_similar_cells_of_the_class():
    model, given = classifier(), batch(6)
    found = prototype_examples(model.train(), [*given.split(3)])
    assert model.training
    with torch.no_grad():
        maps = model.eval().maps(given.images)
        for name, part in model.head.prototypes().items():
            similarities = part.similarities(maps)
            examples = found[name]
            assert examples.grid == tuple(maps.shape[2:])
            for c in range(3):
                for k in range(2):
                    own = similarities[given.targets == c, c, k]
                    torch.testing.assert_close(examples.similarity[c, k], own.max())
                    row, column = examples.cell[c, k].tolist()
                    n = int(examples.image[c, k])
                    assert given.targets[n] == c
                    torch.testing.assert_close(similarities[n, c, k, row, column], own.max())
    missing = prototype_examples(model, [Batch(given.views, torch.zeros_like(given.targets), given.index)])
    assert (missing["support"].image[1:] == -1).all()
    assert (missing["support"].similarity[1:] == 0).all()
    with pytest.raises(ConfigError, match="no batch"):
        prototype_examples(model, [])


def test_what_is_refused():
    plain = Classifier(Normalize([0.5] * 3, [0.25] * 3), backbones.ConvNet(width=4), heads.Linear(32, 3))
    with pytest.raises(ConfigError, match="needs a head with prototypes"):
        SupportTrivialPrototypes(plain)
    with pytest.raises(ConfigError, match="cluster must be 0 or more"):
        SupportTrivialPrototypes(classifier(), cluster=-1.0)
    with pytest.raises(ConfigError, match="no prototypes to show"):
        PrototypeParts()(plain, images())
    with pytest.raises(ConfigError, match="no support prototypes"):
        PrototypeParts(sets="support")(classifier("trivial"), images())
    with pytest.raises(ValueError, match="must be positive"):
        heads.SupportTrivial(4, 3, per_class=0)
    with pytest.raises(ValueError, match="sets must be"):
        heads.SupportTrivial(4, 3, sets="neither")
    assert isinstance(Supervised(plain, losses.CrossEntropy()), Supervised)


def test_a_run_brings_the_head_and_reads_it_again(tmp_path):
    options = {"size": 16, "backbone": "convnet:width=4,depth=2", "epochs": 1, "device": "cpu"}
    run = fit("shapes:count=120,classes=3", out=tmp_path / "run", method="support-trivial", **options)
    assert run.config.head == "support-trivial"
    assert isinstance(run.model.head, heads.SupportTrivial)
    pixels = run.splits.test.pixels(range(4))
    with torch.no_grad():
        expected = run.model.eval()(plain(torch.from_numpy(pixels))).softmax(1)
    np.testing.assert_allclose(run.predict(pixels), expected.numpy(), atol=1e-6)
    named = fit(
        "shapes:count=120,classes=3",
        out=tmp_path / "named",
        method="support-trivial",
        head="support-trivial:sets=support",
        **options,
    )
    assert list(named.model.head.prototypes()) == ["support"]
    with pytest.raises(ConfigError, match="looks at maps"):
        fit("shapes:count=120,classes=3", out=tmp_path / "no", head="support-trivial", **options)
