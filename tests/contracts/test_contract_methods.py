"""What holds for every method: a scalar loss, detached logs, all state in buffers, views as declared."""

from __future__ import annotations

import copy

import pytest
import torch

from repertoire import backbones, losses, registry
from repertoire.data import Batch
from repertoire.methods import Classifier, Method, Normalize

#: The loss that each method is tested with; None for one that has a loss of its own.
LOSSES = {
    "supervised": losses.CrossEntropy,
    "embedding": losses.SupCon,
    "dropout-views": losses.SupCon,
    "relu-embedding": losses.SupCon,
    "simclr": None,
    "byol": None,
    "simsiam": None,
    "moco": None,
    "dino": None,
    "tribyol": None,
    "moco-hard": None,
    "datum-index": None,
    "instance-discrimination": None,
    "relational": None,
    "guided": losses.CrossEntropy,
    "support-trivial": None,
    "cpc": None,
    "densecl": None,
    "byol-self-labels": None,
}


@pytest.fixture(params=registry.names("methods"))
def method(request: pytest.FixtureRequest) -> Method:
    assert request.param in LOSSES, f"say here which loss method {request.param!r} is tested with"
    torch.manual_seed(0)
    net = backbones.ConvNet(in_channels=1, image_size=8, width=4, depth=2)
    head = registry.get("methods", request.param).factory.needs.head or "linear"
    built = registry.build("heads", head, in_features=net.out_features, num_classes=3)
    model = Classifier(Normalize([0.5], [0.25]), net, built)
    loss = LOSSES[request.param]
    given = {"model": model, "image_size": 8, "samples": 6} | ({"loss": loss()} if loss else {})
    return registry.build("methods", request.param, **given)


def batch_for(method: Method, count: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(1)
    views = tuple(torch.rand(count, 1, 8, 8, generator=generator) for _ in range(method.needs.view_count))
    masks = {"mask": tuple((view > 0.5)[:, 0].float() for view in views)} if "mask" in method.needs.fields else {}
    return Batch(views, torch.arange(count) % 3, torch.arange(count), masks)


def test_a_step_gives_a_finite_scalar_and_detached_logs(method: Method):
    step = method.step(batch_for(method))
    assert step.loss.shape == ()
    assert step.loss.isfinite()
    assert step.loss.requires_grad
    assert {"loss", "accuracy"} <= step.logs.keys()
    assert not any(value.requires_grad for value in step.logs.values())


def test_every_parameter_gets_a_gradient(method: Method):
    method.step(batch_for(method)).loss.backward()
    for name, parameter in method.named_parameters():
        # A teacher follows the network without gradients.
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.requires_grad or name.startswith("teacher"), name


def test_the_state_is_complete(method: Method):
    copied = copy.deepcopy(method)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.add_(1)
    copied.load_state_dict(method.state_dict())
    torch.manual_seed(0)
    first = method.step(batch_for(method)).loss
    torch.manual_seed(0)
    assert torch.equal(first, copied.step(batch_for(method)).loss)


def test_embed_and_predict_have_their_shapes_and_agree_with_the_model(method: Method):
    images = batch_for(method).images
    method.eval()
    with torch.no_grad():
        assert method.embed(images).shape == (6, method.model.backbone.out_features)
        assert torch.equal(method.predict(images), method.model(images))
        assert method.predict(images).shape == (6, 3)


def test_forward_is_step(method: Method):
    method.eval()
    batch = batch_for(method)
    torch.manual_seed(0)
    first = method(batch).loss
    torch.manual_seed(0)
    assert torch.equal(first, method.step(batch).loss)


def test_two_steps_in_half_precision_are_finite(method: Method):
    for _ in range(2):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            step = method.step(batch_for(method))
        assert step.loss.isfinite()
        step.loss.backward()
        method.after_update()
