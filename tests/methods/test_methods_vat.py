"""Virtual adversarial training, and losses on predictions of unlabelled samples, as methods."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire import backbones, heads, losses
from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.methods import VAT, Classifier, Normalize, UnlabelledLoss
from repertoire.ops import unit_changes
from repertoire.rules import Backprop


def classifier(std: float = 0.25, batch_norm: bool = True) -> Classifier:
    torch.manual_seed(0)
    net = (
        backbones.ConvNet(in_channels=1, image_size=8, width=4, depth=2)
        if batch_norm
        else backbones.MLP(in_channels=1, image_size=8, hidden=16)
    )
    return Classifier(Normalize([0.5], [std]), net, heads.Linear(net.out_features, 3))


def batch_of(count: int = 6, unlabelled: int = 12, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)

    def images(n: int) -> Tensor:
        return torch.rand(n, 1, 8, 8, generator=generator)

    batch = Batch((images(count),), torch.arange(count) % 3, torch.arange(count))
    if unlabelled:
        batch.streams = {
            "unlabelled": Batch((images(unlabelled),), torch.full((unlabelled,), -1), torch.arange(unlabelled))
        }
    return batch


@pytest.mark.parametrize("unlabelled", [0, 12])
@pytest.mark.parametrize("entropy", [False, True])
def test_is_its_formula_with_random_directions(unlabelled: int, entropy: bool):
    """Of length epsilon in inputs of deviation 1, of labelled and unlabelled samples alike."""
    model = classifier(std=0.2).double().eval()
    method = VAT(model, losses.CrossEntropy(), epsilon=3.0, weight=0.7, entropy=entropy, steps=0).eval()
    batch = batch_of(unlabelled=unlabelled).map(lambda t: t.double() if t.is_floating_point() else t)
    images = torch.cat([batch.images, *(s.images for s in batch.streams.values())])
    torch.manual_seed(4)
    change = 3.0 * 0.2 * unit_changes(torch.randn(images.shape).double())
    p, q = model(images).softmax(1), model(images + change).softmax(1)
    smooth = (p * (p.log() - q.log())).sum(1).mean()
    expected = F.cross_entropy(model(batch.images), batch.targets) + 0.7 * smooth
    if entropy:
        expected = expected - (p * p.log()).sum(1).mean()
    torch.manual_seed(4)
    step = method.step(batch)
    torch.testing.assert_close(step.loss, expected)
    torch.testing.assert_close(step.logs["adversarial_loss"], smooth.detach())


def test_epsilon_means_the_same_at_every_scale_of_the_inputs():
    """Features in metres or in millimetres, images of much contrast or of little."""
    values = []
    for scale in (1.0, 1000.0):
        torch.manual_seed(0)
        model = Classifier(
            Normalize([0.0] * 5, [scale] * 5), backbones.Identity(in_channels=5, image_size=1), heads.Linear(5, 3)
        )
        torch.manual_seed(1)
        x = torch.randn(8, 5, dtype=torch.float64) * scale
        method = VAT(model, losses.CrossEntropy(), epsilon=0.5).double()
        torch.manual_seed(2)
        values.append(method.step(Batch((x,), torch.arange(8) % 3, torch.arange(8))).loss)
    torch.testing.assert_close(values[0], values[1], rtol=1e-5, atol=1e-6)


def test_statistics_follow_the_first_pass_only():
    method = VAT(classifier(), losses.CrossEntropy()).train()
    other = classifier().train()
    batch = batch_of()
    other.embed(torch.cat([batch.images, batch.streams["unlabelled"].images]))
    method.step(batch)
    for (name, found), expected in zip(method.model.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(found, expected), name


def test_training_flattens_the_answers_around_the_samples():
    def trained(weight: float) -> float:
        method = VAT(classifier(batch_norm=False), losses.CrossEntropy(), epsilon=4.0, weight=weight)
        rule = Backprop()
        rule.setup(method, lambda module: torch.optim.Adam(module.parameters(), lr=1e-2))
        torch.manual_seed(0)
        for _ in range(60):
            logs = rule.step(method, batch_of())
        assert logs["accuracy"] > 0.9
        torch.manual_seed(9)
        return float(VAT(method.model, losses.CrossEntropy(), epsilon=4.0).step(batch_of()).logs["adversarial_loss"])

    assert trained(1.0) < 0.4 * trained(0.0)


def test_a_term_on_predictions_is_added_with_its_weight():
    model = classifier().eval()
    batch = batch_of()
    for term, function in (("label-encoding", losses.label_encoding_risk), ("entropy", losses.entropy_loss)):
        method = UnlabelledLoss(model, losses.CrossEntropy(), term=term, weight=0.3).eval()
        step = method.step(batch)
        guess = function(model(batch.streams["unlabelled"].images))
        torch.testing.assert_close(step.loss, F.cross_entropy(model(batch.images), batch.targets) + 0.3 * guess)
        torch.testing.assert_close(step.logs["unlabelled_loss"], guess.detach())


def test_the_streams_are_as_large_as_asked_for():
    assert VAT(classifier(), losses.CrossEntropy(), ratio=2.5).needs.streams["unlabelled"].per_sample == 2.5
    assert UnlabelledLoss(classifier(), losses.CrossEntropy(), ratio=3).needs.streams["unlabelled"].per_sample == 3


def test_what_does_not_fit_is_refused():
    with pytest.raises(
        ConfigError, match=r"term must be a loss on predictions \(entropy, label-encoding.*one on logits"
    ):
        UnlabelledLoss(classifier(), losses.CrossEntropy(), term="focal")
    with pytest.raises(ConfigError, match="must give one number"):
        UnlabelledLoss(classifier(), losses.CrossEntropy(), term="entropy:reduction=none")
    with pytest.raises(ConfigError, match="no stream 'unlabelled'"):
        UnlabelledLoss(classifier(), losses.CrossEntropy()).step(batch_of(unlabelled=0))
    with pytest.raises(ConfigError, match="unlabelled-loss:term="):
        VAT(classifier(), losses.LabelEncodingRisk())
    with pytest.raises(ConfigError, match="epsilon must be 0 or more"):
        VAT(classifier(), losses.CrossEntropy(), epsilon=-1.0)
