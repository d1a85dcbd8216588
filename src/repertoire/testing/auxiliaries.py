"""What every auxiliary network must do, behind maps, tokens and vectors: it trains its block and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from repertoire import backbones, heads, losses
from repertoire.data import Batch
from repertoire.local import Auxiliary, LocalLearning, Site
from repertoire.methods import Classifier, Normalize
from repertoire.testing._check import Check, agree, checks, described, example_options, refusal_of

__all__ = ["check_auxiliary"]

_CLASSES, _BLOCKS = 3, 3


def check_auxiliary(
    factory: Callable[..., Auxiliary], *, behind: tuple[str, ...] = ("maps", "tokens", "vectors"), **options: Any
) -> list[Check]:
    """Checks of an auxiliary network against :class:`repertoire.local.Auxiliary`.

    Args:
        factory: the class, built from the `site` that it is put at.
        behind: the kinds of activations to look at it behind: "maps", "tokens", "vectors".
        options: further options to build it with.

    Returns:
        The checks; each is called without arguments.

    Example:
        >>> from repertoire.local import LinearReadout
        >>> from repertoire.testing import check_auxiliary
        >>> for check in check_auxiliary(LinearReadout, behind=("vectors",)):
        ...     check()
    """
    return checks(_Auxiliaries(factory, behind, options))


def _network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == "vectors":
        layers = [nn.Linear(10, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 9)]
        return nn.Sequential(*layers, nn.Linear(9, _CLASSES))
    if kind == "tokens":
        net: backbones.Backbone = backbones.ViT(in_channels=1, image_size=8, patch=4, dim=12, depth=2, heads=2)
    else:
        net = backbones.ResNet(8, in_channels=1, width=4)
    return Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, _CLASSES))


def _samples(kind: str, count: int = 24) -> tuple[Tensor, Tensor]:
    """Samples in [0, 1], noisy copies of one a class."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(count) % _CLASSES
    shape = (10,) if kind == "vectors" else (1, 8, 8)
    prototypes = torch.rand(_CLASSES, *shape, generator=generator)
    noise = torch.rand(count, *shape, generator=generator)
    return 0.7 * prototypes[labels] + 0.3 * noise, labels


def _adam(block: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam([p for p in block.parameters() if p.requires_grad], lr=0.01)


class _Auxiliaries:
    def __init__(self, factory: Callable[..., Auxiliary], behind: tuple[str, ...], options: dict[str, Any]) -> None:
        self.factory, self.behind, self.options = factory, behind, {**example_options(factory), **options}

    def build(self, site: Site) -> Auxiliary:
        return self.factory(site=site, **self.options)

    def learner(self, kind: str, **how: Any) -> LocalLearning:
        net = _network(kind)
        torch.manual_seed(2)
        return LocalLearning(net, _BLOCKS, self.build, _adam, example=_samples(kind)[0][:2], **how)

    def objectives(self, learner: LocalLearning) -> Iterator[tuple[Any, Auxiliary]]:
        """The blocks of a learner, with the auxiliary network of each that has one."""
        for block in learner.trainer.blocks:
            found = getattr(block.objective, "auxiliary", None)
            if isinstance(found, Auxiliary):
                yield block, found

    def check_it_is_documented(self) -> None:
        described(self.factory)
        assert any(True for _ in self.objectives(self.learner(self.behind[0])))

    def check_blocks_learn(self) -> None:
        for kind in self.behind:
            x, y = _samples(kind)
            learner = self.learner(kind)
            logs = [learner.step(x, y) for _ in range(12)]
            for name in ("block1_loss", "block2_loss", "loss"):
                assert logs[-1][name] < logs[0][name], f"{name} does not fall, behind {kind}"

    def check_its_state_is_complete(self) -> None:
        for kind in self.behind:
            x, y = _samples(kind)
            learner, other = self.learner(kind), self.learner(kind)
            for _ in range(3):
                learner.step(x, y)
            assert set(learner.model.state_dict()) == set(_network(kind).state_dict()), "the network gets more state"
            other.model.load_state_dict(copy.deepcopy(learner.model.state_dict()))
            other.load_state_dict(copy.deepcopy(learner.state_dict()))
            for _ in range(2):
                found = []
                for one in (learner, other):
                    torch.manual_seed(3)
                    found.append(one.step(x, y))
                agree(found[0], found[1], rtol=0, atol=0)
            agree(dict(other.auxiliaries.state_dict()), dict(learner.auxiliaries.state_dict()), rtol=0, atol=0)

    def check_a_block_gets_its_gradient_from_its_own_loss(self) -> None:
        for kind in self.behind:
            x, y = _samples(kind)
            learner = self.learner(kind)
            batch = Batch((x,), y, torch.arange(len(y)))
            everything = {p for block in learner.trainer.blocks for p in block.parameters()}
            for block in learner.trainer.blocks:
                loss, logs = block(x, batch)
                assert loss.shape == ()
                assert all(value.grad_fn is None and value.shape == () for value in logs.values())
                loss.backward()
                wanted = {p for p in block.parameters() if p.requires_grad}
                reached = {p for p in everything if p.grad is not None}
                assert reached == wanted, "every parameter of the block has a gradient, and no other"
                assert any(p.grad is not None and p.grad.any() for unit in block.units for p in unit.parameters())
                for parameter in everything:
                    parameter.grad = None
                x = block.take()
                assert not x.requires_grad

    def check_exits_give_class_scores(self) -> None:
        for kind in self.behind:
            x, y = _samples(kind)
            learner = self.learner(kind)
            agree(dict(learner.model.state_dict()), dict(_network(kind).state_dict()), rtol=0, atol=0)
            for _ in range(3):
                learner.step(x, y)
            learner.eval()
            found = learner.exits(x)
            assert [tuple(logits.shape) for logits in found] == [(len(x), _CLASSES)] * _BLOCKS
            for whole, single in zip(found, learner.exits(x[4:5]), strict=True):
                agree(whole[4:5], single, rtol=1e-4, atol=1e-5)

    def check_any_loss_or_a_reason_why_not(self) -> None:
        for kind in self.behind:
            x, y = _samples(kind)
            block, auxiliary = next(self.objectives(self.learner(kind)))
            views, index = (x, x.flip(-1)), torch.arange(len(y))
            h = block.run(torch.cat(views)).detach().requires_grad_()
            some = torch.where(index < 6, -1, y)
            for loss in (losses.SupCon(), losses.AlignUniform()):
                reason = refusal_of(auxiliary.check_loss, loss)
                if reason is not None:
                    assert type(loss).__name__ in reason, reason
                    continue
                for labels in (some, torch.full_like(y, -1)):
                    step = auxiliary.objective(h, Batch(views, labels, index), loss)
                    learned = [p for p in auxiliary.parameters() if p.requires_grad]
                    assert step.loss.isfinite()
                    assert all(g.isfinite().all() for g in torch.autograd.grad(step.loss, [h, *learned]))

    def check_half_precision_and_channels_last(self) -> None:
        from lightning_fabric import Fabric

        for kind in self.behind:
            if kind == "vectors":
                continue
            x, y = _samples(kind)
            learner = self.learner(kind, fabric=Fabric(accelerator="cpu", precision="bf16-mixed"))
            for module in (learner.model, learner.auxiliaries):
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            logs = [learner.step(x.to(memory_format=torch.channels_last), y) for _ in range(10)]
            assert logs[-1]["block1_loss"] < logs[0]["block1_loss"]
            assert all(value.isfinite() for value in logs[-1].values())
            assert all(p.dtype == torch.float32 for p in learner.auxiliaries.parameters())
