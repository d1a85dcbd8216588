"""What every registered explainer must do."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from repertoire import backbones, explain, heads, registry
from repertoire.errors import ConfigError
from repertoire.methods import Classifier, Normalize

NAMES = registry.names("explainers")
CLASSES = 4


def classifier(kind: str) -> Classifier:
    torch.manual_seed(0)
    net = backbones.ViT(image_size=16, patch=4, dim=12, depth=2, heads=2) if kind == "vit" else backbones.ConvNet()
    head = heads.SupportTrivial if kind == "parts" else heads.Linear
    return Classifier(Normalize([0.5] * 3, [0.25] * 3), net, head(net.out_features, CLASSES))


#: Networks, and which of `Explainer.kinds` each is.
KINDS = {"convnet": {"maps"}, "vit": {"tokens"}, "parts": {"maps", "parts"}}


def fitting(name: str) -> Classifier:
    """The first network that an explainer can explain."""
    kinds = registry.get("explainers", name).factory.kinds
    return classifier(next(kind for kind, what in KINDS.items() if what & set(kinds)))


def images(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def snapshot(model: nn.Module) -> tuple[object, ...]:
    return (
        copy.deepcopy(model.state_dict()),
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [parameter.grad for parameter in model.parameters()],
        ["forward" in vars(module) for module in model.modules()],
        [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks), len(m._backward_pre_hooks))
            for m in model.modules()
        ],
    )


def test_there_are_explainers():
    assert NAMES


@pytest.mark.parametrize("name", NAMES)
def test_is_public_and_documented(name):
    entry = registry.get("explainers", name)
    assert getattr(explain, entry.factory.__name__) is entry.factory
    assert entry.factory.__name__ in explain.__all__
    assert entry.summary.endswith(".")
    assert ">>>" in entry.factory.__doc__


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("training", [False, True])
def test_gives_a_map_for_each_image_and_leaves_no_trace(name, kind, training):
    model, x, explainer = classifier(kind).train(training), images(), registry.build("explainers", name)
    before, pixels = snapshot(model), x.clone()
    if not KINDS[kind] & set(explainer.kinds):
        with pytest.raises(ConfigError):
            explainer(model, x)
        torch.testing.assert_close(snapshot(model), before, rtol=0, atol=0)
        return
    for targets in (None, torch.tensor([0, 3, 1])):
        maps = explainer(model, x, targets)
        assert maps.shape == (3, 16, 16)
        assert maps.is_floating_point()
        assert maps.isfinite().all()
        assert (maps >= 0).all()
        assert (maps <= 1).all()
        assert not maps.requires_grad
    torch.testing.assert_close(snapshot(model), before, rtol=0, atol=0)
    torch.testing.assert_close(x, pixels, rtol=0, atol=0)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", NAMES)
def test_without_targets_explains_the_predicted_class(name):
    model, x, explainer = fitting(name).eval(), images(), registry.build("explainers", name)
    torch.testing.assert_close(explainer(model, x), explainer(model, x, model(x).argmax(1)))


@pytest.mark.parametrize("name", NAMES)
def test_images_do_not_depend_on_each_other(name):
    model, x, explainer = fitting(name), images(), registry.build("explainers", name)
    targets = torch.tensor([0, 3, 1])
    torch.testing.assert_close(explainer(model, x, targets)[1:2], explainer(model, x[1:2], targets[1:2]))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_frozen_weights_and_callers_without_gradients(name, context):
    model, explainer = fitting(name), registry.build("explainers", name)
    expected = explainer(model, images())
    model.requires_grad_(False)
    with context():
        maps = explainer(model, images())
    torch.testing.assert_close(maps, expected)


@pytest.fixture(scope="module")
def compiled():
    """Each kind of network, with code that was compiled for the images."""
    found = {}
    for kind in KINDS:
        found[kind] = torch.compile(classifier(kind).eval(), backend="aot_eager")
        with torch.no_grad():
            found[kind](images())
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_compiled_network_has_the_same_maps(name, compiled):
    kinds = registry.get("explainers", name).factory.kinds
    kind = next(kind for kind, what in KINDS.items() if what & set(kinds))
    explainer = registry.build("explainers", name)
    targets = torch.tensor([0, 3, 1])
    expected = explainer(classifier(kind).eval(), images(), targets)
    torch.testing.assert_close(explainer(compiled[kind], images(), targets), expected)


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_batch(name):
    assert registry.build("explainers", name)(fitting(name), images(0)).shape == (0, 16, 16)


@pytest.mark.parametrize("name", NAMES)
def test_leaves_no_trace_when_the_model_fails(name):
    model = fitting(name).train()
    before = snapshot(model)
    with pytest.raises(RuntimeError):
        registry.build("explainers", name)(model, torch.rand(2, 5, 16, 16))  # five channels
    torch.testing.assert_close(snapshot(model), before, rtol=0, atol=0)
    assert torch.is_grad_enabled()
