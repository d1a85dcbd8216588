"""What every explainer must do."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from repertoire import backbones, heads
from repertoire.errors import ConfigError
from repertoire.explain import Explainer
from repertoire.methods import Classifier, Normalize
from repertoire.testing._check import Check, agree, checks, described, example_options, refused

__all__ = ["check_explainer"]

_CLASSES, _SIZE = 4, 16
_TARGETS = torch.tensor([0, 3, 1])

#: Networks, and which of `Explainer.kinds` each is.
_NETWORKS = {"convnet": {"maps"}, "vit": {"tokens"}, "parts": {"maps", "parts"}}


def check_explainer(factory: Callable[..., Explainer], **options: Any) -> list[Check]:
    """Checks of an explainer against :class:`repertoire.explain.Explainer`, on networks of the kinds that it declares.

    Args:
        factory: the class.
        options: options to build it with.

    Returns:
        The checks; each is called without arguments.

    Example:
        >>> from repertoire.explain import GradCAM
        >>> from repertoire.testing import check_explainer
        >>> for check in check_explainer(GradCAM):
        ...     check()
    """
    return checks(_Explainers(factory, options))


def _network(kind: str) -> Classifier:
    torch.manual_seed(0)
    if kind == "vit":
        net: backbones.Backbone = backbones.ViT(image_size=_SIZE, patch=4, dim=12, depth=2, heads=2)
    else:
        net = backbones.ConvNet()
    head = heads.SupportTrivial if kind == "parts" else heads.Linear
    return Classifier(Normalize([0.5] * 3, [0.25] * 3), net, head(net.out_features, _CLASSES)).eval()


@cache
def _compiled(kind: str) -> Callable[..., Any]:
    """A network with code that was compiled for the images; explainers leave it as it was, so all share it."""
    compiled: Callable[..., Any] = torch.compile(_network(kind), backend="aot_eager")
    with torch.no_grad():
        compiled(_images())
    return compiled


def _images(count: int = 3) -> Tensor:
    return torch.rand(count, 3, _SIZE, _SIZE, generator=torch.Generator().manual_seed(0))


def _trace(model: nn.Module) -> tuple[Any, ...]:
    """All of a network that a visitor could have changed."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return (
        copy.deepcopy(model.state_dict()),
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [parameter.grad for parameter in model.parameters()],
        ["forward" in vars(module) for module in model.modules()],
        [[len(getattr(module, name)) for name in hooks] for module in model.modules()],
    )


class _Explainers:
    def __init__(self, factory: Callable[..., Explainer], options: dict[str, Any]) -> None:
        self.factory, self.options = factory, {**example_options(factory), **options}

    def build(self) -> Explainer:
        return self.factory(**self.options)

    def fitting(self) -> Iterator[str]:
        """The kinds of networks that it can explain."""
        return (kind for kind, what in _NETWORKS.items() if what & set(self.build().kinds))

    def check_it_is_documented(self) -> None:
        described(self.factory)
        assert next(self.fitting(), None), f"it declares none of the kinds {_NETWORKS}"

    def check_a_map_for_each_image(self) -> None:
        for kind in self.fitting():
            for training, targets in ((False, None), (True, _TARGETS)):
                model, x = _network(kind).train(training), _images()
                before = _trace(model)
                maps = self.build()(model, x, targets)
                assert maps.shape == (3, _SIZE, _SIZE)
                assert maps.is_floating_point()
                assert not maps.requires_grad
                assert maps.isfinite().all()
                assert (maps >= 0).all()
                assert (maps <= 1).all()
                agree(_trace(model), before, rtol=0, atol=0)
                agree(x, _images(), rtol=0, atol=0)
                assert torch.is_grad_enabled()

    def check_networks_that_it_cannot_explain_are_refused(self) -> None:
        for kind in _NETWORKS.keys() - set(self.fitting()):
            model = _network(kind).train()
            before = _trace(model)
            refused(ConfigError, "", self.build(), model, _images())
            agree(_trace(model), before, rtol=0, atol=0)

    def check_without_targets_the_predicted_class(self) -> None:
        model, x = _network(next(self.fitting())), _images()
        agree(self.build()(model, x), self.build()(model, x, model(x).argmax(1)))

    def check_images_do_not_depend_on_each_other(self) -> None:
        model, x = _network(next(self.fitting())), _images()
        agree(self.build()(model, x, _TARGETS)[1:2], self.build()(model, x[1:2], _TARGETS[1:2]))

    def check_frozen_weights_and_callers_without_gradients(self) -> None:
        model = _network(next(self.fitting()))
        expected = self.build()(model, _images())
        model.requires_grad_(False)
        for context in (torch.no_grad, torch.inference_mode):
            with context():
                maps = self.build()(model, _images())
            agree(maps, expected)

    def check_a_compiled_network_has_the_same_maps(self) -> None:
        kind = next(self.fitting())
        expected = self.build()(_network(kind), _images(), _TARGETS)
        agree(self.build()(_compiled(kind), _images(), _TARGETS), expected)  # type: ignore[arg-type]

    def check_an_empty_batch(self) -> None:
        assert self.build()(_network(next(self.fitting())), _images(0)).shape == (0, _SIZE, _SIZE)

    def check_no_trace_where_the_network_fails(self) -> None:
        model = _network(next(self.fitting())).train()
        before = _trace(model)
        refused(RuntimeError, "", self.build(), model, torch.rand(2, 5, _SIZE, _SIZE))  # five channels
        agree(_trace(model), before, rtol=0, atol=0)
        assert torch.is_grad_enabled()
