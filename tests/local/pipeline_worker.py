"""One process of a pipeline; `test_local_pipeline` starts several.

Its arguments: names of functions below, separated by commas, and a file to write to.
"""

from __future__ import annotations

import copy
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, distributed, nn

from repertoire import backbones, heads, losses
from repertoire.data import Batch
from repertoire.errors import ConfigError, NonFiniteLoss, RankLost
from repertoire.local import Auxiliary, Local, LocalLearning, Pipeline, Site
from repertoire.local.pipeline._stages import Survey
from repertoire.methods import Classifier, Embedding, Method, Normalize, Step, Supervised
from repertoire.ops import Memory, Queue
from repertoire.registry import register

EXAMPLE = torch.zeros(2, 3, 10, 10).contiguous(memory_format=torch.channels_last)


def sgd(block: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(block.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)


def network() -> nn.Sequential:
    """Five convolutions with batch normalisation and dropout."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    channels = 3
    for index, width in enumerate((8, 8, 12, 12, 12)):
        stride = 2 if index == 2 else 1
        layers += [nn.Conv2d(channels, width, 3, stride, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.3)]
        channels = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def batches(sizes: tuple[int, ...], share: slice = slice(None)) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for size in sizes:
        images = torch.rand(size, 3, 10, 10, generator=generator)[share]
        labels = torch.randint(4, (size,), generator=generator)[share]
        yield images.contiguous(memory_format=torch.channels_last), labels


def trained(
    pipeline: Pipeline | None,
    auxiliary: str = "conv:depth=1",
    accumulate: int = 1,
    sizes: tuple[int, ...] = (12, 12, 6, 12, 16, 12),
    share: slice = slice(None),
    seed: int = 9,
    **options: object,
) -> LocalLearning:
    """A learner after a step for each size; the sizes shrink and grow, so that messages do."""
    model = network()
    torch.manual_seed(5)
    learner = LocalLearning(
        model, 5, auxiliary, sgd, example=EXAMPLE, pipeline=pipeline, accumulate=accumulate, clip=1.0, **options
    )  # type: ignore[arg-type]
    torch.manual_seed(seed)
    for images, labels in batches(sizes, share):
        if pipeline is None or pipeline.first:
            learner.step(images, labels)
        else:
            learner.step()
    learner.gather()
    return learner


def state_of(learner: LocalLearning) -> dict[str, Tensor]:
    found = {f"model.{name}": value for name, value in learner.model.state_dict().items()}
    found.update({f"auxiliaries.{name}": value for name, value in learner.auxiliaries.state_dict().items()})
    for block, state in enumerate(learner.state_dict()["optimizers"]):
        found.update({f"momentum.{block}.{i}": value["momentum_buffer"] for i, value in state["state"].items()})
    return {name: value.contiguous() for name, value in found.items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different, different


def exact() -> None:
    """The weights, running statistics and momenta of one process, bit for bit."""
    for auxiliary, accumulate, crossed in (
        ("conv:depth=1", 1, 0),
        ("infopro", 1, 0),
        ("conv:depth=1", 2, 0),
        ("conv:depth=1", 1, 1),
        ("infopro", 2, 2),
        ("linear", 1, 9),
    ):
        pipeline = Pipeline()
        assert pipeline.replicas == 1
        learner = trained(pipeline, auxiliary, accumulate, overlap=crossed)
        held = learner.trainer.held
        assert len(learner.optimizers) == len(held), "a process keeps the optimisers of its own blocks only"
        if pipeline.first:
            same(state_of(learner), state_of(trained(None, auxiliary, accumulate, overlap=crossed)))
        else:
            raises(ConfigError, learner.state_dict, "must call gather")
        print(f"{auxiliary} {accumulate} {crossed}: blocks {held}")


def method_of(kind: str) -> Method:
    torch.manual_seed(0)
    net = backbones.ResNet(8, in_channels=3, width=4)
    model = Classifier(Normalize([0.5] * 3, [0.25] * 3), net, heads.Linear(net.out_features, 4))
    return Embedding(model, losses.SupCon(), dimensions=8) if kind == "views" else Supervised(model, losses.Focal())


def rules() -> None:
    """The rule, with one view and with two."""
    for kind in ("supervised", "views"):
        states = []
        pipelines = (Pipeline(), None)
        for pipeline in pipelines:
            method = method_of(kind)
            rule = Local(blocks=3, auxiliary="linear", overlap=int(kind == "views"))
            rule.setup(method, sgd, example=EXAMPLE, pipeline=pipeline)
            torch.manual_seed(3)
            for images, labels in batches((8, 8, 8)):
                views = (images, images.flip(3)) if kind == "views" else (images,)
                mine = pipeline is None or pipeline.first
                rule.step(method, Batch(views, labels, torch.arange(len(labels))) if mine else pipeline.receive())
            rule.trainer.gather()
            states.append(dict(method.state_dict()))
        if distributed.get_rank() == 0:
            same(*states)


def raises(kind: type[Exception], call: Callable[[], object], text: str) -> None:
    with pytest.raises(kind, match=re.escape(text)):
        call()


@register("auxiliaries", "secretive")
class Secretive(Auxiliary):
    """Says that it looks at images, which must then be sent along."""

    looks_at_images = True

    def __init__(self, site: Site) -> None:
        super().__init__(site, site.grid[0])

    def embed(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))

    def objective(self, x, batch, loss):  # type: ignore[no-untyped-def]
        step = super().objective(x, batch, loss)
        step.loss = step.loss + batch.images.square().mean()
        return step


class Remembering(losses.LogitsLoss, Memory):
    """A loss with a memory."""

    remembers: ClassVar = {"mean": "mean"}

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        self.remember(len(logits), mean=logits.mean())
        return nn.functional.cross_entropy(logits, targets)

    def commit(self, mean: Tensor) -> None:
        self.mean.lerp_(mean, 0.1)


class Centres(losses.LogitsLoss):
    """A loss with parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.scale * logits, targets)


class Counting(Method):
    """A method whose last block has a memory."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model
        self.queue = Queue(4, 2)

    @property
    def block_loss(self) -> losses.Loss:
        return losses.CrossEntropy()

    def objective(self, features: Tensor, batch: Batch) -> Step:
        return Step(self.block_loss(self.model.head(features), batch.targets))


def refusals() -> None:
    """What cannot be a pipeline is refused by all processes alike, before any weight changes."""
    pipeline = Pipeline()
    raises(ConfigError, lambda: Pipeline(stages=3), "cannot be divided into pipelines of 3")
    for options, text in (
        ({"blocks": 1}, "a pipeline of 2 processes needs 2 blocks or more, and there are 1"),
        ({"auxiliary": "man"}, "(MAN) follows the weights of a later block"),
        ({"loss": Remembering()}, "the loss Remembering, which has a memory"),
        ({"loss": Centres()}, "the loss Centres: all blocks share its parameters"),
        ({"example": None}, "give an example"),
    ):
        chosen = {"blocks": 5, "auxiliary": "linear", "example": EXAMPLE, "pipeline": pipeline, **options}
        raises(ConfigError, lambda chosen=chosen: LocalLearning(network(), optimizer=sgd, **chosen), text)
    model = method_of("supervised").model
    rule = Local(blocks=3, auxiliary="linear")
    raises(
        ConfigError,
        lambda: rule.setup(Counting(model), sgd, example=EXAMPLE, pipeline=pipeline),
        "cannot train Queue: it has a memory",
    )
    learner = LocalLearning(network(), 5, "secretive", sgd, example=EXAMPLE, pipeline=pipeline)
    images, labels = next(batches((8,)))
    if pipeline.first:
        raises(ConfigError, learner.step, "takes images and labels")
        raises(ConfigError, pipeline.receive, "give it images")
        assert "block1_loss" in learner.step(images, labels)
    else:
        raises(ConfigError, lambda: learner.step(images, labels), "only the first process")
        assert "loss" in learner.step(), "images are sent along to an auxiliary network that looks at them"


def nonfinite() -> None:
    """A NaN in the last block ends both processes with the same message."""
    pipeline = Pipeline()
    model = network()
    learner = LocalLearning(model, 5, "linear", sgd, example=EXAMPLE, pipeline=pipeline)
    with torch.no_grad():
        model[-1].weight.fill_(3e38)
    start = time.monotonic()
    text = r"the loss of block 5 of 5 \(12 to 22\) became .* blocks 1 to 4 have taken this step"

    def train() -> None:
        for images, labels in batches((8,) * 200):
            learner.step(images, labels) if pipeline.first else learner.step()

    with pytest.raises(NonFiniteLoss, match=text):
        train()
    if pipeline.first:
        assert time.monotonic() - start < 5, "it heard of it at once, and not when the other process was gone"
    raises(RankLost, train, "given up")


class Slow(nn.Linear):
    """Takes its time, and no processor."""

    seconds = 0.05

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            time.sleep(self.seconds)
        return super().forward(x)


def overlap() -> None:
    """The first process is at the next batch, and further, before the second is done with this one."""
    pipeline = Pipeline()
    # Sleep takes no time of a processor, which is what is measured otherwise.
    pipeline._survey = lambda *_: [Survey(1.0, False)] * 4  # type: ignore[method-assign]
    model = nn.Sequential(*(Slow(6, 6) for _ in range(4)))
    example = torch.zeros(2, 6)
    learner = LocalLearning(model, 4, "linear", sgd, example=example, at=("0", "1", "2"), pipeline=pipeline)
    assert len(learner.trainer.held) == 2
    images, labels = torch.randn(8, 6), torch.arange(8) % 6
    distributed.barrier()
    times = []
    for _ in range(20):
        start = time.monotonic()  # one clock for all processes
        learner.step(images, labels) if pipeline.first else learner.step()
        times.append((start, time.monotonic()))
    found: list[list[tuple[float, float]]] = [[], []]
    distributed.all_gather_object(found, times)
    first, second = found
    early = [after[0] < now[1] for after, now in zip(first[1:], second, strict=False)]
    assert sum(early) >= 17, early
    late = [after[1] < now[0] for after, now in zip(first[3:], second, strict=False)]
    assert not any(late), "it does not run away: what is sent must be received"


def waiting() -> None:
    """Where blocks overlap, the first process needs weights that the second has changed, and trains its other block
    until it has them: it asks for them while the second is at the batch before."""
    pipeline = Pipeline()
    pipeline._survey = lambda *_: [Survey(1.0, False)] * 4  # type: ignore[method-assign]
    model = nn.Sequential(*(Slow(6, 6) for _ in range(4)))
    model[-1].seconds = 0.2
    chosen = {"example": torch.zeros(2, 6), "at": ("0", "1", "2"), "pipeline": pipeline, "overlap": 1}
    learner = LocalLearning(model, 4, "linear", sgd, **chosen)  # type: ignore[arg-type]
    images, labels = torch.randn(8, 6), torch.arange(8) % 6
    times: list[float] = []
    take = pipeline.take_back
    pipeline.take_back = lambda: (times.append(time.monotonic()), take())[1]  # type: ignore[method-assign]
    distributed.barrier()
    for _ in range(20):
        learner.step(images, labels) if pipeline.first else learner.step()
        if not pipeline.first:
            times.append(time.monotonic())
    found: list[list[float]] = [[], []]
    distributed.all_gather_object(found, times)
    asked, ended = found
    assert len(asked) == 19, "once for each step but the first"
    assert sum(early < late for early, late in zip(asked, ended, strict=False)) >= 16, found


def resumed() -> None:
    """A state that is loaded while weights are under way is what the next step begins with."""
    states = []
    for pipeline in (Pipeline(), None):
        learner = trained(pipeline, overlap=1)
        kept = {name: value.clone() for name, value in network().state_dict().items()}
        mine = [None] * 2
        state = learner.state_dict() if pipeline is None or pipeline.first else None
        if pipeline is not None:
            distributed.all_gather_object(mine, state)
            state = mine[0]
        state = copy.deepcopy(state)  # what is in it is what is being trained
        torch.manual_seed(4)
        for images, labels in batches((8, 8)):
            learner.step(images, labels) if pipeline is None or pipeline.first else learner.step()
        learner.model.load_state_dict(kept)
        learner.load_state_dict(state)  # type: ignore[arg-type]
        for images, labels in batches((8, 8)):
            learner.step(images, labels) if pipeline is None or pipeline.first else learner.step()
        learner.gather()
        if pipeline is None or pipeline.first:
            states.append(state_of(learner))
        if distributed.get_rank():
            return
    same(*states)


def replicated() -> None:
    """Two stages, two replicas."""
    pipeline = Pipeline(stages=2)
    assert (pipeline.stages, pipeline.replicas) == (2, 2)
    learner = trained(pipeline, share=slice(pipeline.replica, None, 2), seed=9 + pipeline.replica)
    if distributed.get_rank() == 0:
        save_file(state_of(learner), sys.argv[2])


def plain() -> None:
    """Two processes, each with the whole network."""
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    rank = distributed.get_rank()
    learner = trained(None, share=slice(rank, None, 2), seed=9 + rank, fabric=fabric)
    if rank == 0:
        save_file(state_of(learner), sys.argv[2])


def crossing() -> None:
    """Blocks that overlap, over two processes with the whole network each: the weights of one process."""
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    rank = distributed.get_rank()
    learned = []
    for share, how in ((slice(rank, None, 2), {"fabric": fabric}), (slice(None), {})):
        torch.manual_seed(0)
        layers = [nn.Sequential(nn.Conv2d(3 if i == 0 else 6, 6, 3), nn.Tanh()) for i in range(3)]
        model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(96, 4))
        learner = LocalLearning(model, 4, "linear", sgd, example=EXAMPLE, overlap=1, accumulate=2, **how)  # type: ignore[arg-type]
        for images, labels in batches((12, 8, 16), share):
            learner.step(images, labels)
        learned.append({**learner.model.state_dict(), **learner.auxiliaries.state_dict(prefix="auxiliaries.")})
    torch.testing.assert_close(*learned)
    # With batch normalisation, whose statistics are brought into line between the two halves of a backward pass.
    learner = trained(None, share=slice(rank, None, 2), seed=9 + rank, fabric=fabric, overlap=2)
    found: list[dict[str, Tensor]] = [{}, {}]
    weights = {name: p.detach() for name, p in learner.model.named_parameters()}
    distributed.all_gather_object(found, weights)
    same(*found)


def _endless(die: Callable[[], None], timeout: float) -> None:
    pipeline = Pipeline(timeout=timeout)
    learner = LocalLearning(network(), 5, "linear", sgd, example=EXAMPLE, pipeline=pipeline)
    for number, (images, labels) in enumerate(batches((8,) * 10_000)):
        if number == 20 and pipeline.stage == 1:
            Path(sys.argv[2]).write_text(str(time.time()))
            die()
        learner.step(images, labels) if pipeline.first else learner.step()


def killed() -> None:
    """The process in the middle is killed."""
    _endless(lambda: os.kill(os.getpid(), signal.SIGKILL), 300)


def hung() -> None:
    """The process in the middle no longer answers."""
    _endless(lambda: time.sleep(8), 2)


if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    try:
        for name in sys.argv[1].split(","):
            globals()[name]()
            print(f"{name} passed")
    except RankLost as error:
        print(f"lost after {time.time() - float(Path(sys.argv[2]).read_text()):.2f} s: {error}")
        sys.exit(3)
    distributed.barrier()
    distributed.destroy_process_group()
