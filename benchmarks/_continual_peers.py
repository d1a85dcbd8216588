"""The learners of stages beside those of Avalanche, on the same stream: `python benchmarks/continual.py --peers`, and
with `--draws` what their differences are made of.

CIFAR-10 as features of lite0, five stages of two classes. Both start each seed from the same weights, with the classes
in the same order: a hidden layer of 256 with batch normalisation, batches of 64, ten epochs a stage, SGD with a
constant learning rate of 0.02, Nesterov momentum of 0.9 and no weight decay, and 200 samples for replay. Accuracies
come from one evaluation for both. A line says which classes compete in the loss: all that are known, as in Avalanche,
or those of the stage, which Avalanche does with a criterion that is given to it. "Difference" is here less Avalanche,
order by order.

What differs, and is left so:

- Batches are drawn from other random numbers, and so are the rows of the head for new classes; Avalanche's optimiser
  also keeps the momentum of the stage before, where here each stage has a new one. Where the classes of the stage alone
  compete, nothing compares their logits with the old ones, and these draws decide several points: either library by
  itself differs by as much between two runs on one order of classes. All lines of an order share these draws, and so
  differ together. In the lines "same draws" Avalanche gets the batches, the rows and the new momentum of the run here.
- Replay: both add remembered samples to each batch of new ones. Avalanche passes over its memory again and again, and
  each pass ends with a short batch: of 200 samples 64, 64, 64 and 8, so that a step sees 50 on average instead of 64
  here. The line "no short batch" asks it for batches of 67. It keeps equally many samples of each stage, whereas the
  reservoir here does so only on average.
- Strengths of EWC: Avalanche has no factor of 1/2, and squares the gradient of the mean loss of a batch instead of that
  of each sample, which near a minimum is smaller by the size of the batch. Strengths are made equal by both factors, so
  that 1 here is 32 there with batches of 64. That is not exact: its batches are in the order of the data, which its
  stream sorts by class, and the mean gradient of a single class does not vanish at the minimum; where all classes
  compete, a strength of 100 here then is too much there, and training breaks down. In the lines "one
  sample at a time" Avalanche's own code takes batches of one, with half of the strength here, which is the same
  importance. It is that of the labels of the data on both sides (`labels=given`), as Avalanche has no other; the
  default here is the expectation over the network's answers.
- LwF: Avalanche's copy of the network stays in training mode, so that its batch normalisation uses the statistics of
  the new batch; here the copy answers as in evaluation. The lines "copy in evaluation mode" put Avalanche's copy into
  it.
- Seconds are of one process and thread. Here they contain a checkpoint after each epoch and validation, which Avalanche
  was not asked for. EWC here squares the gradient of each sample, which of linear layers is a product of matrices and
  needs no passes over single samples. Avalanche reads samples one at a time through a data
  loader; here batches are cut from the array.
"""

from __future__ import annotations

import contextlib
import copy
import io
import re
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.utils.data
from torch import Tensor, nn

from repertoire import protocols, recipe, registry
from repertoire.backbones import import_torchvision
from repertoire.data import Loader, Splits, load
from repertoire.methods import Stage
from repertoire.protocols import measure

MEMORY = 200
BATCH = 64
EPOCHS = 10
RATE = 0.02
STEP = 2
HOW_TO = "the comparison needs Avalanche: pip install avalanche-lib"


@dataclass(frozen=True)
class Pair:
    """A learner here and its peer.

    Attributes:
        title: of the line.
        spec: of the method here.
        peer: name of the strategy of Avalanche.
        options: of the strategy.
        among: which classes compete in its criterion: "known" or "stage".
        matched: whether Avalanche's strategy is changed where it differs (see above).
        same: what it takes from the run here: "batches", "rows" of new classes, and a new "momentum" for each stage.
    """

    title: str
    spec: str
    peer: str
    options: dict[str, Any]
    among: str = "known"
    matched: bool = False
    same: Collection[str] = ()


def pairs(strength: float, strength_of_stage: float) -> list[Pair]:
    """All lines of the table, with the strength of EWC where all classes compete, and where those of the stage do."""
    found = [
        Pair("plain training", "supervised", "Naive", {}),
        Pair(f"replay, {MEMORY} samples", "replay", "Replay", {"mem_size": MEMORY}),
        Pair(f"replay, {MEMORY} samples, no short batch", "replay", "Replay", {"mem_size": MEMORY}, matched=True),
    ]
    draws = ("batches", "rows", "momentum")
    title = "plain training, those of the stage compete"
    for same, more in (((), ""), (draws, ", same draws")):
        found.append(Pair(f"{title}{more}", "lwf:weight=0,among=stage", "Naive", {}, "stage", same=same))
    lwf = {"alpha": 1.0, "temperature": 2.0}
    strengths = {"known": strength, "stage": strength_of_stage}
    titles = {"known": "all classes compete", "stage": "those of the stage compete"}
    for among, title in titles.items():
        # Where all classes compete, nothing is left to tell the changed plugins from the others.
        changes = [(False, ()), (True, ()), (True, draws)] if among == "stage" else [(False, ())]
        for matched, same in changes:
            more = ", copy in evaluation mode" * matched + ", same draws" * bool(same)
            found.append(Pair(f"LwF, {title}{more}", f"lwf:among={among}", "LwF", lwf, among, matched, same))
    for among, title in titles.items():
        for form in ("online", "separate"):
            spec = f"ewc:strength={strengths[among]:g},form={form},labels=given,among={among}"
            # Of a batch, the importance is too large for the step where all classes compete (see above).
            changes = [(False, ()), (True, ()), (True, draws)] if among == "stage" else [(True, ())]
            for matched, same in changes:
                factor = 0.5 if matched else BATCH / 2
                options = {"mode": form, "ewc_lambda": strengths[among] * factor}
                if form == "online":
                    options["decay_factor"] = 1.0
                more = ", one sample at a time" * matched + ", same draws" * bool(same)
                found.append(Pair(f"EWC, {form}, {title}{more}", spec, "EWC", options, among, matched, same))
    return found


def import_avalanche() -> types.ModuleType:
    """Avalanche's strategies. What it imports for logging and downloads alone may be missing."""
    # Its evaluation is not used, and a torchvision that does not fit torch would stop it.
    import_torchvision()
    for name in ("wandb", "gdown"):
        try:
            __import__(name)
        except ImportError:
            sys.modules[name] = types.ModuleType(name)
    import avalanche.training.supervised as strategies

    return strategies


class Network(nn.Module):
    """The first network of a run here, with a head that Avalanche lets grow."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        from avalanche.models import IncrementalClassifier

        self.normalize, self.backbone = copy.deepcopy(model.normalize), copy.deepcopy(model.backbone)
        linear = model.head.linear
        self.head = IncrementalClassifier(linear.in_features, linear.out_features, masking=False)
        self.head.classifier.load_state_dict(linear.state_dict())

    def state(self) -> dict[str, Tensor]:
        """As a method here names it."""
        return {f"model.{n.replace('head.classifier', 'head.linear')}": v for n, v in self.state_dict().items()}

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(self.normalize(x)))


class Drawn:
    """The batches that a run here takes in a stage, an epoch each time that they are asked for."""

    def __init__(self, loader: Loader) -> None:
        self.loader, self.epoch = loader, 0

    def __len__(self) -> int:
        return self.loader.steps_per_epoch

    def __iter__(self) -> Iterator[list[Tensor]]:
        for batch in self.loader.epoch(self.epoch):
            yield [batch.images, batch.targets, torch.zeros_like(batch.targets)]
        self.epoch += 1


class Competing(nn.Module):
    """Cross-entropy among all classes, or among those from `first` on."""

    def __init__(self) -> None:
        super().__init__()
        self.first = 0

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits[:, self.first :], labels - self.first)


def config_of(spec: str, seed: int) -> recipe.TrainConfig:
    return recipe.make_config(
        data=recipe.IN_MEMORY,
        backbone="mlp:hidden=256,depth=1",
        method=spec,
        epochs=EPOCHS,
        batch_size=BATCH,
        lr=RATE,
        momentum=0.9,
        schedule="constant",
        warmup=0,
        weight_decay=0,
        seed=seed,
        device="cpu",
    )


def ours(pair: Pair, splits: Splits, seed: int) -> np.ndarray:
    """Accuracy after each stage on each."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = protocols.follow(
            f"classes:step={STEP},memory={MEMORY}", config_of(pair.spec, seed), splits, out=folder, bounds=False
        )
        return outcome.matrix


def theirs(pair: Pair, splits: Splits, seed: int) -> np.ndarray:
    """The same of Avalanche's strategy."""
    strategies = import_avalanche()
    from avalanche.benchmarks.scenarios.supervised import class_incremental_benchmark
    from avalanche.training.plugins import EvaluationPlugin

    stages = list(registry.build("protocols", f"classes:step={STEP}").stages(splits, seed))
    model = Network(recipe.build(config_of("supervised", seed), stages[0].splits(splits)).method.model)
    x = torch.cat([torch.from_numpy(stage.train.inputs(slice(None))) for stage in stages]).float()
    y = torch.cat([torch.from_numpy(np.array(stage.train.labels)) for stage in stages]).long()
    data: Any = torch.utils.data.TensorDataset(x, y)
    data.targets = y.tolist()
    stream = class_incremental_benchmark(
        {"train": data}, class_order=list(range(len(splits.classes))), num_experiences=len(stages)
    ).train_stream

    torch.manual_seed(seed)
    criterion = Competing()
    strategy = getattr(strategies, pair.peer)(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, nesterov=True),
        criterion=criterion,
        train_mb_size=BATCH,
        train_epochs=EPOCHS,
        device="cpu",
        evaluator=EvaluationPlugin(),
        **pair.options,
    )
    if pair.matched:
        match(strategy)
    matrix = np.full((len(stages), len(stages)), np.nan)
    for t, experience in enumerate(stream):
        criterion.first = stages[t].new[0] if pair.among == "stage" else 0
        if pair.same:
            take(pair.same, strategy, stages, t, config_of(pair.spec, seed), splits)
        strategy.train(experience)
        matrix[t, : t + 1] = [accuracy(strategy.model, samples) for samples in stages[t].evaluate.values()]
    return matrix


def take(
    same: Collection[str], strategy: Any, stages: Sequence[Any], t: int, config: recipe.TrainConfig, splits: Splits
) -> None:
    """Gives Avalanche what a run here draws for a stage."""
    stage, known = stages[t], len(stages[t].classes) - len(stages[t].new)
    at = Stage(t, len(stages), stage.classes, stage.new, len(stage.train), EPOCHS)
    start = recipe.StageStart(at, strategy.model.state() if t else None, known)
    built = recipe.build(config, stage.splits(splits), stage_start=start)
    if "batches" in same:
        strategy.make_train_dataloader = lambda **_: setattr(strategy, "dataloader", Drawn(built.loader()))
    if "momentum" in same:
        strategy.optimizer.state.clear()
    head = strategy.model.head
    grow = type(head).adaptation

    def adaptation(experience: Any) -> None:
        before = head.classifier.out_features
        grow(head, experience)
        if head.classifier.out_features > before:
            with torch.no_grad():
                for name, own in built.method.model.head.linear.named_parameters():
                    head.classifier.get_parameter(name)[before:] = own[before:]

    if "rows" in same:
        head.adaptation = adaptation


def match(strategy: Any) -> None:
    """Replays batches of about one size, takes the importance of a sample at a time, and lets the copy of the network
    answer in evaluation mode."""
    for plugin in strategy.plugins:
        if hasattr(plugin, "batch_size_mem"):
            # A pass over 200 samples in batches of 67 ends with one of 66; in batches of 64, with one of 8.
            plugin.batch_size_mem = 67
        if hasattr(plugin, "compute_importances"):
            own = plugin.compute_importances
            # All arguments before the size of the batch are the strategy's.
            plugin.compute_importances = lambda *args, own=own, **options: own(*args[:5], 1, **options)
        if hasattr(plugin, "lwf"):
            adapted = plugin.lwf.post_adapt

            def post_adapt(*args: Any, plugin: Any = plugin, adapted: Callable[..., None] = adapted) -> None:
                adapted(*args)
                plugin.lwf.prev_model.eval()

            plugin.lwf.post_adapt = post_adapt


@torch.no_grad()
def accuracy(model: nn.Module, samples: Any) -> float:
    model.eval()
    found = model(torch.from_numpy(samples.inputs(slice(None))).float()).argmax(1).numpy()
    return float((found == samples.labels).mean())


def timed(run: Callable[[Pair, Splits, int], np.ndarray], pair: Pair, splits: Splits, seed: int) -> dict[str, float]:
    started = time.process_time()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        matrix = run(pair, splits, seed)
    return {**measure(matrix), "seconds": time.process_time() - started}


def main(
    seeds: int = 3, first: int = 0, strength: float = 100.0, strength_of_stage: float = 10.0, only: str = ""
) -> None:
    """Prints the table, or those of its lines in whose titles a pattern is found."""
    try:
        import_avalanche()
    except ImportError as error:
        raise SystemExit(f"{HOW_TO} ({error})") from None
    splits = load("cifar10-lite0")
    print(f"\n**CIFAR-10, frozen features, 5 stages of {STEP}, beside Avalanche**, {seeds} orders\n")
    columns = ("at the end, %", "Avalanche", "difference", "forgetting, points", "Avalanche", "seconds", "Avalanche")
    print(f"| learner | {' | '.join(columns)} |")
    print(f"| --- |{' ---: |' * len(columns)}", flush=True)
    done: dict[str, list[dict[str, float]]] = {}
    for pair in pairs(strength, strength_of_stage):
        if not re.search(only, pair.title):
            continue
        numbers = range(first, first + seeds)
        if pair.spec not in done:
            done[pair.spec] = [timed(ours, pair, splits, seed) for seed in numbers]
        here, there = done[pair.spec], [timed(theirs, pair, splits, seed) for seed in numbers]
        apart = [a["accuracy"] - b["accuracy"] for a, b in zip(here, there, strict=True)]
        cells = [
            *(percent([each["accuracy"] for each in side]) for side in (here, there)),
            percent(apart, "+"),
            *(percent([each["forgetting"] for each in side]) for side in (here, there)),
            *(f"{np.mean([each['seconds'] for each in side]):.1f}" for side in (here, there)),
        ]
        print(f"| {pair.title} | {' | '.join(cells)} |", flush=True)


def draws(seed: int = 1000) -> None:
    """Prints what remains of the difference as Avalanche gets more and more of the draws of the run here, of one order
    of classes: with all of them, nothing but rounding."""
    import_avalanche()
    splits = load("cifar10-lite0")
    sets = [("own draws", ()), ("same rows", ("rows",)), ("new momentum", ("momentum",))]
    sets += [("same rows, new momentum", ("rows", "momentum")), ("same batches, new momentum", ("batches", "momentum"))]
    sets += [("same rows and batches", ("rows", "batches")), ("same draws", ("rows", "batches", "momentum"))]
    print(f"| learner | here, % | {' | '.join(title for title, _ in sets)} |")
    print(f"| --- | {' ---: |' * (len(sets) + 1)}", flush=True)
    for pair in pairs(100.0, 10.0):
        if pair.among != "stage" or not pair.same or "separate" in pair.title:
            continue
        there = [timed(theirs, replace(pair, same=same), splits, seed) for _, same in sets]
        values = [each["accuracy"] for each in (timed(ours, pair, splits, seed), *there)]
        title = pair.title.removesuffix(", same draws")
        print(f"| {title} | {' | '.join(f'{100 * value:.2f}' for value in values)} |", flush=True)


def percent(values: list[float], sign: str = "") -> str:
    """Mean and range, in hundredths."""
    mean, low, high = (f"{100 * value:{sign}.1f}" for value in (np.mean(values), min(values), max(values)))
    return f"{mean} ({low} to {high})"
