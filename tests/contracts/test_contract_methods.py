"""Every method: a scalar loss, detached logs, state in buffers that move once an update, needs that are true."""

from __future__ import annotations

import copy
import inspect
from dataclasses import replace

import pytest
import torch
from method_bed import batch_for, build_method, followers, memory_of, same

from repertoire import registry
from repertoire.methods import Method, Needs
from repertoire.ops import Memory, Queue, discard_memories

NAMES = registry.names("methods")


@pytest.fixture(params=NAMES)
def method(request: pytest.FixtureRequest) -> Method:
    return build_method(request.param)


def loss_of(method: Method, batch) -> torch.Tensor:
    torch.manual_seed(0)
    return method.step(batch).loss


@pytest.mark.parametrize("kind", ["methods", "rules", "heads"])
def test_nothing_registered_is_derived_from_what_is_registered(kind: str):
    factories = {entry.factory: entry.name for entry in registry.entries(kind)}
    for factory, name in factories.items():
        above = [factories[base] for base in factory.__mro__[1:] if base in factories]
        assert not above, f"{name} is derived from {above}: give both an abstract base"


def test_a_step_is_a_finite_scalar_whose_gradient_reaches_every_parameter(method: Method):
    step = method.step(batch_for(method))
    assert step.loss.shape == ()
    assert step.loss.isfinite()
    assert "loss" in step.logs
    assert not any(value.requires_grad for value in step.logs.values())
    step.loss.backward()
    for name, parameter in method.named_parameters():
        # A teacher follows the network without gradients.
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.requires_grad or name.startswith("teacher"), name
    with pytest.raises(TypeError, match="declare needs"):
        type("Bent", (Method,), {"step": lambda self, batch: step})


def test_needs_are_declared_and_true(method: Method):
    needs = method.needs
    assert isinstance(needs, Needs)
    assert isinstance(type(method).needs, Needs), "the class declares, and options may change it"
    assert ("step" in vars(type(method))) <= (needs.step == "whole")
    assert method.parts()
    assert needs.loss == "" or "loss" in inspect.signature(type(method)).parameters
    batch = batch_for(method)
    if needs.step == "objective":
        # Only targets, index and fields are where the features are.
        blind = copy.copy(batch)
        blind.views = tuple(view.to("meta") for view in batch.views)
        features = method.model.embed(torch.cat(batch.views))
        values = []
        for given in (blind, batch):
            torch.manual_seed(0)
            values.append(method.objective(features, given).loss)
        assert torch.equal(*values)
    if needs.labels != "required":
        assert method.step(batch_for(method, labelled=False)).loss.isfinite()


def test_the_loss_of_a_batch_is_the_mean_of_its_pieces_where_that_is_declared(method: Method):
    if not method.needs.per_sample:
        return
    method.double().eval()
    batch = batch_for(method, 11).map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)
    pieces = list(batch.split(3))
    assert len({len(piece) for piece in pieces}) == 2
    assert len(pieces) == 3
    whole = sum(loss_of(method, piece) * len(piece) / len(batch) for piece in pieces)
    torch.testing.assert_close(loss_of(method, batch), whole, rtol=1e-6, atol=1e-8)


def test_the_state_is_complete(method: Method):
    """After some steps, into a copy that is otherwise: what was kept answers alike, however it was brought over."""
    for seed in range(3):
        loss_of(method, batch_for(method, seed=seed))
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
        assert torch.equal(loss_of(copy.deepcopy(method), batch), loss_of(twin, batch)), way


def test_memories_move_once_an_update_and_never_in_between(method: Method):
    batch, before, teachers = batch_for(method), remembered(method), followers(method)
    for _ in range(2):
        loss_of(method, batch)
    assert same(remembered(method), before)
    assert same(followers(method), teachers)
    discard_memories(method)
    method.after_update()
    assert same(remembered(method), before), "what was seen in vain"
    loss_of(method, batch)
    method.after_update()
    moved = remembered(method)
    assert before.keys() == moved.keys()
    assert not same(moved, before) or not any(m.remembers for m in method.modules() if isinstance(m, Memory))
    method.after_update()
    assert same(remembered(method), moved), "once"
    loss_of(method.eval(), batch)
    method.after_update()
    assert same(remembered(method), moved), "in evaluation"


def test_a_spoilt_batch_does_not_spoil_what_is_remembered(method: Method):
    spoilt = batch_for(method).map(lambda tensor: tensor * torch.nan if tensor.is_floating_point() else tensor)
    before = remembered(method)
    loss_of(method, spoilt)
    method.after_update()
    assert same(remembered(method), before)


def remembered(method: Method) -> dict[str, torch.Tensor]:
    """All memories, but for what counts updates."""
    return {name: value for name, value in memory_of(method).items() if not name.endswith(("updates", "turn"))}


def test_an_empty_batch_costs_nothing_and_labels_may_be_of_any_integers(method: Method):
    method.eval()
    batch = batch_for(method)
    step = method.step(batch.map(lambda tensor: tensor[:0]))
    assert step.loss.isfinite()
    step.loss.backward()
    if not batch.targets.is_floating_point():
        assert torch.equal(loss_of(method, replace(batch, targets=batch.targets.int())), loss_of(method, batch))


def test_forward_is_step(method: Method):
    method.eval()
    batch = batch_for(method)
    torch.manual_seed(0)
    first = method(batch).loss
    assert torch.equal(first, loss_of(method, batch))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_weights_of_another_precision_give_the_same_loss(method: Method, dtype: torch.dtype):
    """And memories of theirs: in float64 nothing is rounded to less on the way."""
    expected, batch = [], batch_for(method)
    other = copy.deepcopy(method).to(dtype)
    for each, given in ((method, batch), (other, batch.map(lambda t: t.to(dtype) if t.is_floating_point() else t))):
        losses = []
        for _ in range(2):
            losses.append(loss_of(each, given))
            each.after_update()
        expected.append(torch.stack(losses).double())
    assert losses[0].dtype == (dtype if dtype == torch.float64 else losses[0].dtype)
    rough = dtype == torch.bfloat16
    torch.testing.assert_close(expected[1], expected[0], rtol=0.2 if rough else 1e-4, atol=0.2 if rough else 1e-5)


def test_two_steps_in_half_precision_are_finite(method: Method):
    for _ in range(2):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            step = method.step(batch_for(method))
        assert step.loss.isfinite()
        step.loss.backward()
        method.after_update()
