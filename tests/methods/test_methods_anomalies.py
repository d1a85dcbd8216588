"""Methods that learn what is normal: mean-shifted contrast, and unilateral aggregation at several depths."""

from __future__ import annotations

import pytest
import torch

from repertoire import backbones, heads
from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.losses import mean_shifted_loss, nt_xent_loss, supcon_loss, unilateral_aggregation_loss
from repertoire.methods import Classifier, MeanShifted, Normalize, Stage, UniConHA


def classifier(depth: int = 3) -> Classifier:
    torch.manual_seed(0)
    net = backbones.ConvNet(in_channels=1, image_size=8, width=4, depth=depth)
    return Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2))


def batch(views: int, count: int = 5, targets: torch.Tensor | None = None) -> Batch:
    images = torch.rand(views, count, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return Batch(tuple(images), torch.full((count,), -1) if targets is None else targets, torch.arange(count))


def test_the_centre_is_that_of_the_training_set_before_training():
    method = MeanShifted(classifier(), angular=0.5).train()
    seen = [batch(1, 6), batch(1, 3)]
    method.begin(Stage(batches=lambda: seen))
    assert method.training
    twin = classifier().eval()
    with torch.no_grad():
        features = torch.cat([twin.embed(part.images) for part in seen])
    expected = torch.stack([row / row.norm() for row in features]).mean(0)
    torch.testing.assert_close(method.loss.centre, expected, rtol=1e-5, atol=1e-6)
    two = batch(2)
    method.eval()
    with torch.no_grad():
        views = [method.model.embed(view) for view in two.views]
    logs = method.step(two).logs
    torch.testing.assert_close(logs["loss"], mean_shifted_loss(*views, centre=expected, angular=0.5))
    state = method.state_dict()
    other = MeanShifted(classifier())
    other.load_state_dict(state)
    torch.testing.assert_close(other.loss.centre, expected)


def test_before_a_stage_begins_it_is_nt_xent():
    method = MeanShifted(classifier()).eval()
    method.begin(Stage())
    two = batch(2)
    with torch.no_grad():
        views = [method.model.embed(view) for view in two.views]
    torch.testing.assert_close(method.step(two).logs["loss"], nt_xent_loss(*views, temperature=0.25))


def test_not_centred_it_stays_nt_xent():
    method = MeanShifted(classifier(), centred=False)
    method.begin(Stage(batches=lambda: [batch(1)]))
    assert not method.loss.centre.any()


def test_batch_normalisation_of_published_weights_keeps_its_statistics():
    assert not MeanShifted(classifier()).model.keeps_statistics
    model = classifier()
    model.backbone.preset = backbones.Preset((0.5,), (0.25,), 8)
    assert MeanShifted(model).model.keeps_statistics


def stage_by_hand(method: UniConHA, given: Batch, number: int, normal: list[int], soft: bool) -> torch.Tensor:
    """The loss of one stage with a pass for each view of each turn of each image."""
    model, end = method.model, method.ends[number]
    rows, labels = [], []
    for turn in range(4):
        for view in given.views[2 * number : 2 * number + 2]:
            for i, image in enumerate(view):
                x = model.normalize(torch.rot90(image, turn, (1, 2))[None])
                for block in model.backbone.blocks[: end + 1]:
                    x = block(x)
                last = end == len(model.backbone.blocks) - 1
                pooled = model.backbone.pool(x) if last else x.mean((2, 3))
                rows.append(method.projectors[number](pooled)[0])
                labels.append(normal[i] if turn == 0 else -100 - 10 * i - turn)
    options = {"temperature": 0.5, "weight_temperature": 0.5 if soft else None}
    return unilateral_aggregation_loss(torch.stack(rows), torch.tensor(labels), **options)


@pytest.mark.parametrize(
    ("stages", "soft", "normal"), [(3, True, "together"), (2, False, "by-class"), (1, True, "by-class")]
)
def test_every_stage_gathers_normal_views_and_scatters_turned_ones(stages, soft, normal):
    method = UniConHA(classifier(), 8, stages, soft=soft, normal=normal, dimensions=6).eval()
    targets = torch.tensor([0, 1, 1, 0, -1])
    given = batch(2 * stages, targets=targets)
    labels = targets.tolist() if normal == "by-class" else [0] * 5
    parts = [stage_by_hand(method, given, s, labels, soft and s == stages - 1) for s in range(stages)]
    logs = method.step(given).logs
    torch.testing.assert_close(logs["loss"], torch.stack(parts).mean(), rtol=1e-4, atol=1e-5)
    for number, part in enumerate(parts, 1):
        torch.testing.assert_close(logs[f"stage_{number}_loss"], part.detach(), rtol=1e-4, atol=1e-5)
    assert method.needs.labels == ("used" if normal == "by-class" else "unused")


def test_apart_it_is_simclr_of_images_and_turned_ones():
    method = UniConHA(classifier(), 8, 1, normal="apart", dimensions=6).eval()
    given = batch(2)
    turned = [torch.cat([view.rot90(turn, (2, 3)) for turn in range(4)]) for view in given.views]
    projected = [method.projectors[0](method.model.embed(images)) for images in turned]
    torch.testing.assert_close(method.step(given).logs["loss"], nt_xent_loss(*projected, temperature=0.5).detach())


def test_views_are_weak_first_and_those_of_the_run_last():
    views = UniConHA(classifier(), 8).needs.views
    assert list(views.values()) == [
        "simclr:scale=(0.733,1),strength=0.167,grey=0.0667,blur=0",
        "simclr:scale=(0.733,1),strength=0.167,grey=0.0667,blur=0",
        "simclr:scale=(0.467,1),strength=0.333,grey=0.133,blur=0",
        "simclr:scale=(0.467,1),strength=0.333,grey=0.133,blur=0",
        "",
        "",
    ]


def test_early_stages_send_no_gradient_to_later_ones():
    method = UniConHA(classifier(), 8)
    method.zero_grad()
    features = method._pooled(batch(1).images, method.ends[0])
    supcon_loss(method.projectors[0](features), torch.zeros(5, dtype=torch.int64)).backward()
    later = [p for block in method.model.backbone.blocks[method.ends[0] + 1 :] for p in block.parameters()]
    assert later
    assert all(p.grad is None for p in later)


def test_what_cannot_be_turned_is_refused():
    with pytest.raises(ConfigError, match="this data holds vectors"):
        UniConHA(classifier(), None)
    method = UniConHA(classifier(), 8, 1)
    wide = Batch((torch.rand(2, 1, 8, 6),) * 2, torch.full((2,), -1), torch.arange(2))
    with pytest.raises(ConfigError, match="square"):
        method.step(wide)
