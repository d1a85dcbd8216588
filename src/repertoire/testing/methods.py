"""What every method must do: a scalar loss, state in buffers that move once an update, needs that are true."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from repertoire.data import Batch
from repertoire.methods import Method, Needs
from repertoire.ops import Memory, Queue, discard_memories
from repertoire.testing._bed import CLASSES, SAMPLES, batch_for, build_method, followers, memory_of, same
from repertoire.testing._check import Check, agree, checks, described, options_of

__all__ = ["check_method"]


def check_method(factory: Callable[..., Method], *, loss: str | None = None, **options: Any) -> list[Check]:
    """Checks of a method against :class:`repertoire.methods.Method`, on small images, with all that it needs.

    What the method declares in `needs` decides what it is given and what is checked.

    Args:
        factory: the class.
        loss: spec of the loss to build it with; what it declares if None.
        options: further options to build it with.

    Returns:
        The checks; each is called without arguments.

    Example:
        >>> from repertoire.methods import Supervised
        >>> from repertoire.testing import check_method
        >>> for check in check_method(Supervised):
        ...     check()
    """
    return checks(_Methods(factory, loss, options))


def _loss_of(method: Method, batch: Batch) -> Tensor:
    torch.manual_seed(0)
    return method.step(batch).loss


def _remembered(method: Method) -> dict[str, Tensor]:
    """All memories, but for what counts updates."""
    return {name: value for name, value in memory_of(method).items() if not name.endswith(("updates", "turn"))}


def _as(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor


class _Methods:
    def __init__(self, factory: Callable[..., Method], loss: str | None, options: dict[str, Any]) -> None:
        self.factory, self.loss, self.options = factory, loss, options

    def build(self) -> Method:
        return build_method(self.factory, self.loss, **self.options)

    def check_it_is_documented(self) -> None:
        described(self.factory)
        assert isinstance(self.build(), Method)

    def check_a_step_is_a_scalar_whose_gradient_reaches_every_parameter(self) -> None:
        method = self.build()
        step = method.step(batch_for(method))
        assert step.loss.shape == ()
        assert step.loss.isfinite()
        assert "loss" in step.logs
        assert not any(value.requires_grad for value in step.logs.values()), "logs are detached"
        step.loss.backward()
        for seed in range(32 if method.takes_turns else 0):
            torch.manual_seed(seed)
            method.step(batch_for(method, seed=seed)).loss.backward()
        for name, parameter in method.named_parameters():
            # A teacher follows the network without gradients.
            assert (parameter.grad is not None) == parameter.requires_grad, name
            assert parameter.requires_grad or name.startswith("teacher"), f"{name} takes no gradient"

    def check_needs_are_declared_and_true(self) -> None:
        method = self.build()
        needs, kind = method.needs, type(method)
        assert isinstance(needs, Needs)
        assert isinstance(kind.needs, Needs), "the class declares, and options may change it"
        assert ("step" in vars(kind)) <= (needs.step == "whole")
        assert method.parts()
        assert needs.loss == "" or "loss" in inspect.signature(kind).parameters
        batch = batch_for(method)
        if needs.step == "objective":
            # Only targets, index and fields are where the features are.
            blind = replace(batch, views=tuple(view.to("meta") for view in batch.views))
            features = method.model.embed(torch.cat(batch.views))
            values = []
            for given in (blind, batch):
                torch.manual_seed(0)
                values.append(method.objective(features, given).loss)
            agree(values[0], values[1], rtol=0, atol=0)
        if needs.labels != "required":
            assert method.step(batch_for(method, labelled=False)).loss.isfinite()

    def check_a_batch_is_the_mean_of_its_pieces_where_that_is_declared(self) -> None:
        method = self.build()
        if not method.needs.per_sample:
            return
        method.double().eval()
        batch = batch_for(method, 11).map(_as(torch.float64))
        pieces = list(batch.split(3))
        assert len(pieces) == 3
        whole = torch.stack([_loss_of(method, piece) * len(piece) / len(batch) for piece in pieces]).sum()
        agree(_loss_of(method, batch), whole, rtol=1e-6, atol=1e-8)

    def check_what_it_draws_goes_into_no_pieces(self) -> None:
        """What a step draws (a mixture, where a search begins) it would draw anew for each piece of a batch. What
        `transform` draws is drawn once, for all of them."""
        method = self.build().train()
        batch = replace(batch_for(method), transformed=True)
        torch.manual_seed(0)
        before = torch.get_rng_state()
        _loss_of(method, batch)
        drew = not torch.equal(torch.get_rng_state(), before)
        assert not (drew and method.needs.per_sample), "its step draws: declare per_sample=False"

    def check_its_state_is_complete(self) -> None:
        """After some steps, into a copy that is otherwise: what was kept answers alike, however it was brought over."""
        method = self.build()
        for seed in range(3):
            _loss_of(method, batch_for(method, seed=seed))
            method.after_update()
        other = copy.deepcopy(method)
        with torch.no_grad():
            for tensor in (*other.parameters(), *(b for b in other.buffers() if b.is_floating_point())):
                tensor.add_(1)
        for way in ("load", "assign", "copy"):
            twin = copy.deepcopy(other)
            if way == "copy":
                for name, tensor in twin.state_dict().items():
                    tensor.data.copy_(method.state_dict()[name])
            else:
                twin.load_state_dict(copy.deepcopy(method.state_dict()), assign=way == "assign")
            lengths = [[len(m) for m in module.modules() if isinstance(m, Queue)] for module in (method, twin)]
            assert lengths[0] == lengths[1], way
            batch = batch_for(method, seed=9)
            assert torch.equal(_loss_of(copy.deepcopy(method), batch), _loss_of(twin, batch)), way

    def check_what_is_about_a_training_set_is_declared(self) -> None:
        """A next stage of training, which has other samples, then does not go on with what was true of these."""
        told: list[dict[str, Any]] = [
            {"samples": SAMPLES, "unlabelled": SAMPLES, "counts": torch.arange(1, CLASSES + 1)},
            {"samples": SAMPLES + 1, "unlabelled": SAMPLES + 1, "counts": torch.arange(CLASSES, 0, -1)},
        ]
        known = options_of(self.factory)
        first, second = (
            build_method(self.factory, self.loss, **self.options, **{k: v for k, v in facts.items() if k in known})
            for facts in told
        )
        anew = {
            f"{prefix}.{name}".lstrip(".")
            for prefix, module in first.named_modules()
            for name in getattr(type(module), "begins_anew", ())
        }
        assert anew <= first.state_dict().keys(), "what begins anew is a parameter or a buffer"
        buffers, other = dict(first.named_buffers()), second.state_dict()
        found = {
            name
            for name, value in first.state_dict().items()
            if value.shape != other[name].shape
            or (name in buffers and not torch.allclose(value, other[name], equal_nan=True))
        }
        assert found <= anew, f"{sorted(found - anew)} depend on the training set: declare begins_anew"

    def check_memories_move_once_an_update_and_never_in_between(self) -> None:
        method = self.build()
        batch, before, teachers = batch_for(method), _remembered(method), followers(method)
        for _ in range(2):
            _loss_of(method, batch)
        assert same(_remembered(method), before), "a memory moves in forward"
        assert same(followers(method), teachers), "a teacher moves in forward"
        discard_memories(method)
        method.after_update()
        assert same(_remembered(method), before), "what was seen in vain is remembered"
        _loss_of(method, batch)
        method.after_update()
        moved = _remembered(method)
        assert before.keys() == moved.keys()
        assert not same(moved, before) or not any(m.remembers for m in method.modules() if isinstance(m, Memory))
        method.after_update()
        assert same(_remembered(method), moved), "a memory moves twice"
        _loss_of(method.eval(), batch)
        method.after_update()
        assert same(_remembered(method), moved), "a memory moves in evaluation"

    def check_a_spoilt_batch_does_not_spoil_what_is_remembered(self) -> None:
        method = self.build()
        spoilt = batch_for(method).map(lambda tensor: tensor * torch.nan if tensor.is_floating_point() else tensor)
        before = _remembered(method)
        _loss_of(method, spoilt)
        method.after_update()
        assert same(_remembered(method), before)

    def check_an_empty_batch_and_labels_of_any_integers(self) -> None:
        method = self.build().eval()
        batch = batch_for(method)
        step = method.step(batch.map(lambda tensor: tensor[:0]))
        assert step.loss.isfinite()
        step.loss.backward()
        if not batch.targets.is_floating_point():
            agree(_loss_of(method, replace(batch, targets=batch.targets.int())), _loss_of(method, batch))

    def check_forward_is_step(self) -> None:
        method = self.build().eval()
        batch = batch_for(method)
        torch.manual_seed(0)
        agree(method(batch).loss, _loss_of(method, batch), rtol=0, atol=0)

    def check_weights_of_another_precision_give_the_same_loss(self) -> None:
        """And memories of theirs: in float64 nothing is rounded to less on the way."""
        for dtype, tolerance in ((torch.float64, 1e-4), (torch.bfloat16, 0.2)):
            method, found = self.build(), []
            batch = batch_for(method)
            other = copy.deepcopy(method).to(dtype)
            for each, given in ((method, batch), (other, batch.map(_as(dtype)))):
                values = []
                for _ in range(2):
                    values.append(_loss_of(each, given))
                    each.after_update()
                found.append(torch.stack(values))
            assert dtype != torch.float64 or found[1].dtype == dtype, "something is rounded on the way"
            rough = tolerance if dtype == torch.bfloat16 else 1e-5
            agree(found[1].double(), found[0].double(), rtol=tolerance, atol=rough)

    def check_two_steps_in_mixed_precision(self) -> None:
        method = self.build()
        for _ in range(2):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                step = method.step(batch_for(method))
            assert step.loss.isfinite()
            step.loss.backward()
            method.after_update()
