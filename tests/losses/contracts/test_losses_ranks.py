"""Losses that compare samples, in two processes with unequal shares of them, against one process with all of them."""

from __future__ import annotations

import copy
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn

from repertoire import registry
from repertoire.losses import (
    IndividualTemperatures,
    Loss,
    NTXent,
    SupCon,
    TiCo,
    ViewsLoss,
    compare_across_ranks,
    compared_losses,
)

WIDTH, ROWS, STEPS = 6, 16, 3
PARTS = (slice(0, 9), slice(9, ROWS))
"""What each rank has of the samples."""

NAMES = [entry.name for entry in registry.entries("losses") if entry.factory.contract != "logits"]
#: Options with which a loss remembers, or draws, beside its defaults.
MORE = {"look": {"queue": 24}, "memory-info-nce": {"queue": 24}, "w-mse": {"eps": 0.1}}


def built(name: str) -> Loss:
    factory = registry.get("losses", name).factory
    options = {"num_classes": 4, "samples": 64} | factory.example_options() | MORE.get(name, {})
    torch.manual_seed(0)
    loss = factory(**{n: value for n, value in options.items() if n in registry.options(factory)})
    loss.prepare(WIDTH)
    return loss.double()


def inputs_of(loss: Loss, step: int) -> tuple[list[Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(step)
    rows = [torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64) for _ in range(max(2, loss.views))]
    known = {
        "index": torch.randperm(ROWS, generator=generator),
        "transformation": torch.rand(ROWS, 4, generator=generator, dtype=torch.float64),
    }
    of_one = [rows[0]] if loss.contract == "predictions" else [rows[0], torch.arange(ROWS) % 4]
    inputs = rows if loss.contract == "views" else of_one
    return inputs, {name: known[name] for name in loss.wants}


def step_of(loss: Loss, step: int, part: slice, share: float) -> tuple[Tensor, list[Tensor]]:
    """Value and gradients, of what makes the embeddings and of what the loss itself learns."""
    inputs, known = inputs_of(loss, step)
    weight = (torch.eye(WIDTH, dtype=torch.float64) + 0.1).requires_grad_()
    given = [x[part] @ weight if x.is_floating_point() else x[part] for x in inputs]
    value = loss(*given, **{name: x[part] for name, x in known.items()})
    leaves = [weight, *(p for p in loss.parameters() if p.requires_grad)]
    return value.detach(), list(torch.autograd.grad(value * share, leaves, allow_unused=True, materialize_grads=True))


def draws(loss: Loss) -> bool:
    return any(isinstance(module, Loss) and module.random for module in loss.modules())


def alone(name: str) -> list[Any]:
    """What one process with all samples finds, step by step."""
    loss, found = built(name), []
    for step in range(STEPS):
        torch.manual_seed(step)
        if draws(loss):
            torch.manual_seed(int(torch.randint(2**62, ())))
        result = step_of(loss, step, slice(None), 1.0)
        loss.after_update()
        found.append((*result, copy.deepcopy(loss.state_dict())))
    return found


def together(name: str, rank: int, expected: list[Any]) -> None:
    loss = built(name)
    compare_across_ranks(nn.ModuleList([loss]))
    # As a moving average of the weights copies it.
    loss, part = copy.deepcopy(loss), PARTS[rank]
    share = (part.stop - part.start) * 2 / ROWS
    for step, (value, gradients, state) in enumerate(expected):
        # The random numbers of the first rank count.
        torch.manual_seed(step + 1000 * rank)
        mine, own = step_of(loss, step, part, share)
        next_one = torch.rand(())
        torch.manual_seed(step + 1000 * rank)
        if draws(loss):
            torch.randint(2**62, ())
        assert torch.equal(torch.rand(()), next_one), f"{name}: a rank goes on with random numbers of its own"
        close(mine, value, f"{name}, value of step {step}")
        for number, (a, b) in enumerate(zip(own, gradients, strict=True)):
            distributed.all_reduce(a)
            close(a / 2, b, f"{name}, gradient {number} of step {step}")
        loss.after_update()
        for key, held in state.items():
            close(loss.state_dict()[key], held, f"{name}, {key} after step {step}")


def close(found: Tensor, expected: Tensor, what: str) -> None:
    torch.testing.assert_close(
        found, expected, rtol=1e-7, atol=1e-9, equal_nan=True, msg=lambda text: f"{what}: {text}"
    )


class Apart(ViewsLoss):
    gathers = False

    def forward(self, *views: Tensor, **known: Any) -> Tensor:
        return views[0].new_tensor(len(views[0]))


def exceptions(rank: int) -> None:
    """What is not compared across ranks: by declaration, in evaluation, and with a reference set."""
    rows, labels = torch.randn(3 + rank, WIDTH), torch.arange(3 + rank) % 2
    loss = Apart()
    compare_across_ranks(loss)
    assert loss(rows, rows) == 3 + rank
    for loss, inputs in ((NTXent().eval(), (rows, rows)), (SupCon(), (rows, labels, rows.clone(), labels))):
        before = loss(*inputs)
        compare_across_ranks(loss)
        assert torch.equal(loss(*inputs), before)
    # A batch of which a rank has nothing.
    loss = NTXent()
    compare_across_ranks(loss)
    whole = torch.eye(4)
    mine = (whole[:0] if rank else whole).clone().requires_grad_()
    loss(mine, mine).backward()
    assert mine.grad.shape == mine.shape
    compare_across_ranks(loss)
    assert len(loss._forward_pre_hooks) == 1, "once, however often it is asked for"


def memories_of_all(rank: int) -> None:
    """A loss that compares the samples of its own rank still remembers those of all."""
    views = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(rank))
    tico, temperatures = TiCo(dimensions=3), IndividualTemperatures(9)
    tico(*views)
    tico.after_update()
    first = [torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(r))[0] for r in range(2)]
    z = nn.functional.normalize(torch.cat(first))
    torch.testing.assert_close(tico.covariance, 0.1 * z.T @ z / 8)
    temperatures(*views, index=torch.arange(4) + 4 * rank)
    temperatures.after_update()
    assert temperatures.log_means[:8].isfinite().all()
    assert temperatures.log_means[8] == -torch.inf
    for state in (tico.covariance, temperatures.temperatures, temperatures.log_means, temperatures.directions):
        of_first = state.clone()
        distributed.broadcast(of_first, 0)
        assert torch.equal(of_first, state)


def worker(folder: str) -> None:
    rank = int(os.environ["RANK"])
    expected = {name: alone(name) for name in NAMES}
    distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    failed = []
    for name in NAMES:
        try:
            together(name, rank, expected[name])
        except AssertionError as error:
            failed.append(str(error))
    assert not failed, "\n".join(failed)
    exceptions(rank)
    memories_of_all(rank)
    distributed.barrier()
    distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not distributed.is_available(), reason="needs torch.distributed")
def test_two_processes_give_value_gradient_and_memory_of_one(ranks, tmp_path: Path):
    runs = ranks(2, __file__, str(tmp_path))
    said = [run.communicate(timeout=240)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], "\n".join(text[-3000:] for text in said)


def test_in_one_process_nothing_changes():
    loss = NTXent()
    compare_across_ranks(loss)
    assert not loss._forward_pre_hooks
    assert list(compared_losses(nn.ModuleList([nn.Linear(1, 1), loss]))) == [loss]


if __name__ == "__main__":
    worker(sys.argv[1])
