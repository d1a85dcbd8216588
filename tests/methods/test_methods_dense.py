"""CPC, DenseCL, and BYOL that labels its batch, against their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from small import batch_of, classifier, goes_on_exactly, leaves_no_trace
from torch import Tensor
from torch.nn import functional as F

from repertoire import backbones
from repertoire.errors import ConfigError
from repertoire.losses import cpc_loss
from repertoire.methods import BYOL, CPC, DenseCL, MoCo, SelfLabelBYOL

MADE = {
    "cpc": lambda: CPC(classifier(), hidden=8, dimensions=5),
    "cpc-map": lambda: CPC(classifier(), latents="map", hidden=8, dimensions=5),
    "densecl": lambda: DenseCL(classifier(), momentum=0.9, queue=8, dimensions=5, warm_up=1),
    "self-labels": lambda: SelfLabelBYOL(classifier(), momentum=0.9, dimensions=5, positive=0.1),
    "self-labels-sigmoid": lambda: SelfLabelBYOL(classifier(), "sigmoid", 0.6, 0.4, momentum=0.9, dimensions=5),
}


@pytest.mark.parametrize("name", MADE)
def test_a_run_that_resumes_goes_on_exactly(name):
    torch.manual_seed(1)
    goes_on_exactly(MADE[name]())


@pytest.mark.parametrize("name", MADE)
def test_a_rehearsal_leaves_no_trace(name):
    leaves_no_trace(MADE[name]())


def test_cpc_on_patches_is_its_formula():
    method = CPC(classifier(), patch=4, stride=2, steps=2, first=1, hidden=8, dimensions=5).eval()
    images = batch_of(views=1).images
    logged = method.step(batch_of(views=1)).logs["loss"]
    rows = []
    for top in (0, 2, 4):
        row = [method.model.embed(images[:, :, top : top + 4, left : left + 4]) for left in (0, 2, 4)]
        rows.append(torch.stack(row, 2))
    grid = torch.stack(rows, 2)
    targets, ahead = method.targets(grid), method.predictors(method.context(grid))
    # Column by column: a sequence of rows.
    latents = torch.cat([targets[:, :, :, column].transpose(1, 2) for column in range(3)])
    made = [torch.cat([ahead[:, 5 * k : 5 * k + 5, :, c].transpose(1, 2) for c in range(3)]) for k in range(2)]
    torch.testing.assert_close(logged, cpc_loss(latents, torch.stack(made)).detach())


def test_the_context_of_cpc_sees_no_row_below_its_own():
    method = CPC(classifier(), hidden=8, layers=3)
    grid = torch.randn(2, 8, 5, 4, requires_grad=True)
    contexts = method.context(grid)
    for row in range(5):
        (slope,) = torch.autograd.grad(contexts[:, :, row].sum(), grid, retain_graph=True)
        assert not slope[:, :, row + 1 :].any()
        seen = slope[:, :, max(0, row - 3) : row + 1].abs().sum((0, 1, 3))
        assert (seen > 0).all(), "it sees its own row and as many above as there are layers"


def test_cpc_predicts_first_what_shares_no_pixel():
    method = CPC(classifier(), hidden=8)
    assert method._patches(torch.rand(2, 1, 32, 32))[0].shape == (2, 8, 7, 7)
    assert method._patches(torch.rand(2, 1, 32, 32))[1] == 2
    assert CPC(classifier(), patch=4, stride=4)._patches(torch.rand(2, 1, 16, 16))[1] == 1
    assert CPC(classifier(), patch=5, stride=2)._patches(torch.rand(2, 1, 16, 16))[1] == 3


def test_cpc_says_what_a_grid_or_a_backbone_lacks():
    one = batch_of(views=1)
    with pytest.raises(ConfigError, match="a grid of 1 x 1 has no row"):
        CPC(classifier(), patch=8).step(one)
    with pytest.raises(ConfigError, match="patch is 9 pixels"):
        CPC(classifier(), patch=9).step(one)
    vit = backbones.ViT(in_channels=1, image_size=8, patch=2, dim=6, depth=1, heads=1)
    with pytest.raises(ConfigError, match="use latents=map"):
        CPC(classifier(net=vit), patch=4).step(one)
    assert CPC(classifier(net=vit), latents="map", hidden=8).step(one).loss.isfinite()


def test_densecl_is_its_formula_and_its_queues_hold_the_last_keys():
    method = DenseCL(classifier(), dense=0.3, momentum=0.5, queue=10, dimensions=5, temperature=0.4).eval()
    with torch.no_grad():
        for parameter in method.teacher.parameters():
            parameter.mul_(1.2)
    generator = torch.Generator().manual_seed(5)
    whole, places = (F.normalize(torch.randn(10, 5, generator=generator)) for _ in range(2))
    method.queue.push(whole)
    method.dense_queue.push(places)
    batch = batch_of()
    logged = method.step(batch).logs["loss"]
    _, net, projectors = method.teacher.network
    query_map = method.model.backbone.forward_map(method.model.normalize(batch.views[0])).detach()
    key_map = net.forward_map(method.model.normalize(batch.views[1])).detach()

    def term(query: Tensor, key: Tensor, queue: Tensor) -> float:
        query, key = (F.normalize(row.detach(), dim=0).double() for row in (query, key))
        positive = math.exp(float(query @ key) / 0.4)
        return -math.log(positive / (positive + float((queue.double() @ query / 0.4).exp().sum())))

    dense, one = [], []
    for n in range(6):
        q = method.projector["whole"](query_map[n].mean((1, 2)))
        one.append(term(q, projectors["whole"](key_map[n].mean((1, 2))), whole))
        here, there = query_map[n].flatten(1).T, key_map[n].flatten(1).T
        for place in here:
            match = max(range(len(there)), key=lambda j: float(F.cosine_similarity(place, there[j], dim=0)))
            dense.append(term(method.projector["places"](place), projectors["places"](there[match]), places))
    expected = 0.7 * sum(one) / len(one) + 0.3 * sum(dense) / len(dense)
    assert float(logged) == pytest.approx(expected, rel=1e-4)

    method.train().step(batch)
    keys = [queue._pending[0][1]["rows"] for queue in (method.queue, method.dense_queue)]
    method.after_update()
    for queue, pushed in zip((method.queue, method.dense_queue), keys, strict=True):
        assert all((queue.rows == row).all(1).any() for row in pushed)
        torch.testing.assert_close(pushed.norm(dim=1), torch.ones(6))


def test_densecl_without_weight_or_while_it_warms_up_is_moco():
    batch = batch_of()
    weightless = DenseCL(classifier(), dense=0.0, queue=8, dimensions=5).eval()
    warming = DenseCL(classifier(), warm_up=2, queue=8, dimensions=5).eval()
    moco = MoCo(classifier(), queue=8, dimensions=5).eval()
    for method in (weightless, warming):
        moco.projector.load_state_dict(method.projector["whole"].state_dict())
        moco.teacher.network[2].load_state_dict(method.projector["whole"].state_dict())
        torch.testing.assert_close(method.step(batch).logs["loss"], moco.step(batch).logs["loss"])
    before = warming.step(batch).logs["loss"]
    warming.teacher.updates.fill_(2)
    assert warming.step(batch).logs["loss"] != before


@pytest.mark.parametrize("seed", range(3))
def test_self_labels_are_their_formula(seed):
    generator = torch.Generator().manual_seed(seed)
    predicted, targets = (torch.randn(10, 4, generator=generator, dtype=torch.float64).float() for _ in range(2))
    by_cosine = SelfLabelBYOL(classifier(), positive=0.3, weight=0.5, dimensions=4)
    by_sigmoid = SelfLabelBYOL(classifier(), "sigmoid", 0.7, 0.3, weight=0.5, dimensions=4)
    plain = float(BYOL(classifier(), dimensions=4).match(predicted, targets))
    ccsl = cssl = 0.0
    for q, z in zip(predicted.double().chunk(2), targets.double().chunk(2), strict=True):
        for i in range(5):
            s = {j: float(F.cosine_similarity(q[i], z[j], dim=0)) for j in range(5) if j != i}
            alike = [x for x in s.values() if x >= 0.3]
            ccsl += sum(x * (2 - 2 * x) for x in alike) / sum(alike) / 5 if alike else 0
            p = [1 / (1 + math.exp(-float(q[i] @ z[j]))) for j in s]
            terms = [-math.log(x) for x in p if x >= 0.7] + [-math.log(1 - x) for x in p if x <= 0.3]
            cssl += sum(terms) / len(terms) / 5 if terms else 0
    assert float(by_cosine.match(predicted, targets)) == pytest.approx(plain + 0.5 * ccsl, rel=1e-5)
    assert float(by_sigmoid.match(predicted, targets)) == pytest.approx(plain + 0.5 * cssl, rel=1e-5)


def test_without_other_images_alike_it_is_byol():
    batch = batch_of()
    ours = SelfLabelBYOL(classifier(), positive=1.5, dimensions=5).eval()
    theirs = BYOL(classifier(), dimensions=5).eval()
    theirs.load_state_dict(ours.state_dict())
    assert torch.equal(ours.step(batch).loss, theirs.step(batch).loss)


def test_labels_of_its_own_take_no_gradient():
    """With one other image alike, the slope of its cosine is that of 2 - 2 s, whatever the weight."""
    method = SelfLabelBYOL(classifier(), positive=0.5, dimensions=2)
    angles = torch.tensor([0.0, 0.5], dtype=torch.float64)
    targets = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    predicted = torch.stack([angles.cos(), angles.sin()], 1).float().requires_grad_()
    loss = method._others(predicted, targets)
    (slope,) = torch.autograd.grad(loss[0], predicted)
    torch.testing.assert_close(loss[0], torch.tensor(0.0))
    turned = torch.tensor([[math.cos(0.4), math.sin(0.4)], [0.0, 1.0]], requires_grad=True)
    (slope,) = torch.autograd.grad(method._others(turned, targets)[0], turned)
    torch.testing.assert_close(slope[0], 2 * math.sin(0.4) * torch.tensor([-math.sin(0.4), math.cos(0.4)]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: CPC(classifier(), latents="pixels"),
        lambda: CPC(classifier(), steps=0),
        lambda: DenseCL(classifier(), dense=1.5),
        lambda: DenseCL(classifier(), warm_up=-1),
        lambda: DenseCL(classifier(), queue=0),
        lambda: SelfLabelBYOL(classifier(), by="distance"),
        lambda: SelfLabelBYOL(classifier(), by="sigmoid", positive=0.2, negative=0.8),
        lambda: SelfLabelBYOL(classifier(), positive=0.0),
        lambda: SelfLabelBYOL(classifier(), weight=-1.0),
    ],
)
def test_options_out_of_range_are_refused(make):
    with pytest.raises(ConfigError):
        make()


@pytest.mark.parametrize(
    "make", [lambda: CPC(classifier(), temperature=0.0), lambda: DenseCL(classifier(), temperature=-1)]
)
def test_temperatures_that_are_not_positive_are_refused(make):
    with pytest.raises(ValueError, match="temperature"):
        make()
