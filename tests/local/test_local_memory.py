"""What a block held is gone when the next block begins, however it is trained."""

from __future__ import annotations

import weakref

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from repertoire import backbones, heads, losses
from repertoire.data import Batch
from repertoire.local import Local
from repertoire.methods import Classifier, Method, Normalize, Supervised
from repertoire.plan import Ledger
from repertoire.recipe import WeightAverage

WAYS = ("plain", "bf16", "pieces", "channels last", "moving average")
SIZE = 16


def prepared(
    way: str, blocks: int | str, depth: int = 20, compile: bool | str = False
) -> tuple[Local, Method, Batch, WeightAverage | None]:
    torch.manual_seed(0)
    net = backbones.ResNet(depth, in_channels=3, width=8)
    model = Classifier(Normalize([0.5] * 3, [0.25] * 3), net, heads.Linear(net.out_features, 3))
    method = Supervised(model, losses.CrossEntropy())
    images = torch.rand(32, 3, SIZE, SIZE)
    if way == "channels last":
        method = method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        images = images.contiguous(memory_format=torch.channels_last)
    rule = Local(blocks=blocks, auxiliary="linear", compile=compile)  # type: ignore[arg-type]
    rule.setup(
        method,
        lambda block: torch.optim.SGD(block.parameters(), lr=0.01, momentum=0.9),
        fabric=Fabric(accelerator="cpu", devices=1, precision="bf16-mixed" if way == "bf16" else "32-true"),
        accumulate=4 if way == "pieces" else 1,
        example=images[:2],
    )
    average = WeightAverage(method, 0.9) if way == "moving average" else None
    return rule, method.train(), Batch((images,), torch.arange(32) % 3, torch.arange(32)), average


def step(rule: Local, method: Method, batch: Batch, average: WeightAverage | None) -> None:
    rule.step(method, batch)
    if average is not None:
        average.update(method, 0)


class Kept:
    """A tensor that a graph holds for its backward pass."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


@pytest.mark.parametrize("way", WAYS)
def test_graphs_and_gradients_are_gone_before_the_next_block(way: str, monkeypatch: pytest.MonkeyPatch):
    rule, method, batch, average = prepared(way, 4)
    step(rule, method, batch, average)
    trainer = rule.trainer
    kept: list[weakref.ref[Kept]] = []
    found: list[tuple[int, int]] = []
    original = trainer._block

    def pack(tensor: Tensor) -> Kept:
        held = Kept(tensor)
        kept.append(weakref.ref(held))
        return held

    def block(*arguments: object) -> object:
        found.append((sum(ref() is not None for ref in kept), sum(p.grad is not None for p in method.parameters())))
        return original(*arguments)

    monkeypatch.setattr(trainer, "_block", block)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda held: held.tensor):
        step(rule, method, batch, average)
    assert len(kept) > 100
    assert found == [(0, 0)] * 4
    assert all(p.grad is None for p in method.parameters())


@pytest.mark.parametrize("way", WAYS)
def test_the_peak_is_that_of_the_largest_block(way: str):
    peaks = []
    for blocks in (1, "all"):
        parts = prepared(way, blocks)
        step(*parts)
        with Ledger() as ledger:
            weights = (*parts[1].parameters(), *parts[1].buffers())
            ledger.book(weights, "weights")
            ledger.forget()
            step(*parts)
        peaks.append(ledger.peak - sum(t.nbytes for t in weights))
    # In pieces the activations of back-propagation are a quarter, and what passes between blocks is not.
    assert peaks[1] < (0.45 if way == "pieces" else 0.3) * peaks[0]


# Left alone, one block would not be compiled. What pytest puts back in settings of PyTorch is not there afterwards.
@torch._dynamo.config.patch(recompile_limit=2)
def test_every_block_is_compiled_and_keeps_as_little():
    graphs: list[object] = []

    @torch._dynamo.register_backend
    def counting(graph: nn.Module, inputs: list[Tensor]) -> object:
        graphs.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    torch._dynamo.reset()
    peaks = []
    for compile in (False, "counting"):
        parts = prepared("plain", "all", depth=8, compile=compile)
        for _ in range(2):
            step(*parts)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
            step(*parts)
        now = peak = 0
        for event in sorted(record.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
            if event.name() == "[memory]":
                now += event.nbytes()
                peak = max(peak, now)
        peaks.append(peak)
    assert len(graphs) == 4
    assert peaks[1] < 1.02 * peaks[0]


def test_gradients_of_one_block_are_all_there_are(monkeypatch: pytest.MonkeyPatch):
    """While an optimiser steps, no other block has a gradient."""
    rule, method, batch, _ = prepared("plain", "all")
    seen = []
    for block, optimizer in zip(rule.trainer.blocks, rule.trainer.optimizers, strict=True):
        inner: torch.optim.Optimizer = optimizer.optimizer

        def look(*_: object, own: nn.Module = block) -> None:
            mine = {id(p) for p in own.parameters()}
            held = {id(p) for p in method.parameters() if p.grad is not None}
            seen.append(held <= mine and bool(held))

        inner.register_step_pre_hook(look)
    rule.step(method, batch)
    assert seen == [True] * len(rule.partition)
