"""What a pretrained network is worth on few photographs: its frozen features, and `repertoire train` with its defaults.

    python benchmarks/pretrained.py photographs/ [--per-class 5,20,100] [--sizes 160,224] [--seeds 3] [--threads 2]
    python benchmarks/pretrained.py five/ twenty/ hundred/ --only train [--ways scratch,head,auto,timm]
    python benchmarks/pretrained.py hundred/ --only steps|commands|second-run [--rounds 3] [--threads 1]
    python benchmarks/pretrained.py hundred/ --only local [--rules "backprop checkpoint local:blocks=4"] [--threads 1]
    python benchmarks/pretrained.py . --only choice

A folder holds `train/CLASS/*` and `test/CLASS/*`. Features are computed once for each size and precision. On them, a
head trained by gradient descent is set beside scikit-learn's logistic regression, k nearest neighbours and nearest
class means, with the same images for all, drawn anew for each seed. Throughput is that of the forward pass alone, the
best of rounds in which all variants take turns, in images for a second of processor time: other programs would disturb
a clock.

`--only train` trains on each folder as `repertoire train` does: from random weights, the head alone, and with nothing
chosen (`auto`), beside scikit-learn's logistic regression on what the frozen network sees of the same training images,
and beside a bare loop around timm's network of the same weights, with batch, number of steps, learning rate and layers
as in `auto`, flips for an augmentation, and its last weights. `--only steps` sets an epoch of `--tune all` beside one
of that loop, and `--only commands` the whole command with `--tune head`, the first and the second time, beside a bare
pass of timm's network over the same files. `--only choice` simulates what rules that choose between the head and all
layers lose. Prints Markdown.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from torch import Tensor, nn

from repertoire import recipe, registry
from repertoire import train as training
from repertoire.backbones import Backbone, Preset, frozen, import_timm
from repertoire.data import Samples, Splits
from repertoire.methods import Method
from repertoire.plan import Footprint, dry_step, seconds

PRECISIONS = ("float32", "bfloat16")


def list_images(folder: Path, most: int) -> tuple[list[Path], np.ndarray]:
    """The first files of each class, and the number of their class."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    files = [sorted(path.glob("*.jpg"))[:most] for path in classes]
    return [file for own in files for file in own], np.repeat(np.arange(len(classes)), [len(own) for own in files])


def read(files: list[Path], preset: Preset, size: int) -> Tensor:
    """Normalised images `[N, C, size, size]`, squared as the preset says."""
    resample = Image.Resampling[preset.interpolation.upper()]
    pixels = []
    for file in files:
        with Image.open(file) as opened:
            image = opened.convert("RGB")
        side = round(min(image.size) * (preset.crop if min(image.size) > size else 1.0))
        left, top = ((length - side) / 2 for length in image.size)
        pixels.append(np.asarray(image.resize((size, size), resample, (left, top, left + side, top + side))))
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (preset.mean, preset.std))
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


def embed(net: Backbone, files: list[Path], preset: Preset, size: int, batch: int = 64) -> np.ndarray:
    with torch.inference_mode():
        parts = [net(read(files[start : start + batch], preset, size)) for start in range(0, len(files), batch)]
    return torch.cat(parts).numpy()


def train_head(features: np.ndarray, labels: np.ndarray, classes: int, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """A linear head on features of length one, from zero: AdamW, cosine decay, 300 steps of at most 256 samples."""
    torch.manual_seed(seed)
    x, y = nn.functional.normalize(torch.from_numpy(features)), torch.from_numpy(labels)
    head: nn.Module = registry.build("heads", "linear", in_features=x.shape[1], num_classes=classes)
    for parameter in head.parameters():
        nn.init.zeros_(parameter)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2, weight_decay=1.0)
    steps = 300
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        rows = torch.randperm(len(x))[:256]
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(x[rows]), y[rows]).backward()
        optimizer.step()
        schedule.step()

    def predict(of: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return head(nn.functional.normalize(torch.from_numpy(of))).argmax(1).numpy()

    return predict


def fit(name: str, features: np.ndarray, labels: np.ndarray, classes: int, seed: int) -> Callable[..., np.ndarray]:
    if name == "head":
        return train_head(features, labels, classes, seed)
    model = {
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        "the same, unit length": make_pipeline(Normalizer(), LogisticRegression(C=10, max_iter=1000)),
        "5 nearest neighbours": KNeighborsClassifier(5, metric="cosine"),
        "nearest mean, unit length": make_pipeline(Normalizer(), NearestCentroid()),
    }[name]
    return model.fit(features, labels).predict


FITS = (
    "head",
    "logistic regression",
    "the same, unit length",
    "5 nearest neighbours",
    "nearest mean, unit length",
)


def accuracy(arguments: argparse.Namespace, spec: str) -> None:
    net: Backbone = registry.build("backbones", spec, in_channels=3)
    preset = net.preset
    assert preset is not None, f"{spec} has no weights"
    counts = [int(value) for value in arguments.per_class.split(",")]
    train_files, train_labels = list_images(arguments.folders[0] / "train", arguments.pool)
    test_files, test_labels = list_images(arguments.folders[0] / "test", arguments.test)
    classes = int(train_labels.max()) + 1
    print(f"\n### Accuracy of {spec} on {len(test_files)} test images, mean of {arguments.seeds} draws\n")
    print(
        "| size | precision | images a class | " + " | ".join(FITS) + " | processor seconds: features, head, logistic |"
    )
    print("| --: | --- | --: |" + " --: |" * (len(FITS) + 1))
    for size in map(int, arguments.sizes.split(",")):
        for precision in PRECISIONS:
            copy = frozen(net, size, precision=precision)
            begun = time.process_time()
            train = embed(copy, train_files, preset, size)
            seconds = (time.process_time() - begun) / len(train_files)
            test = embed(copy, test_files, preset, size)
            for count in counts:
                scores: dict[str, list[float]] = {name: [] for name in FITS}
                spent: dict[str, list[float]] = {name: [] for name in FITS}
                for seed in range(arguments.seeds):
                    rng = np.random.default_rng(seed)
                    chosen = [rng.choice(np.flatnonzero(train_labels == k), count, False) for k in range(classes)]
                    rows = np.concatenate(chosen)
                    for name in FITS:
                        begun = time.process_time()
                        predict = fit(name, train[rows], train_labels[rows], classes, seed)
                        spent[name].append(time.process_time() - begun)
                        scores[name].append(float((predict(test) == test_labels).mean()))
                cells = " | ".join(f"{statistics.mean(scores[name]):.3f}" for name in FITS)
                fits = ", ".join(f"{statistics.median(spent[name]):.1f}" for name in FITS[:2])
                whole = seconds * count * classes
                print(f"| {size} | {precision} | {count} | {cells} | {whole:.1f}, {fits} |", flush=True)


def throughput(arguments: argparse.Namespace, spec: str, batch: int = 32) -> None:
    net: Backbone = registry.build("backbones", spec, in_channels=3).eval()
    print(f"\n### Images for a second of a core through {spec}, {arguments.threads} thread(s), batches of {batch}\n")
    print("| variant | " + " | ".join(f"{size} pixels" for size in arguments.sizes.split(",")) + " | first call |")
    print("| --- |" + " --: |" * (arguments.sizes.count(",") + 2))
    rows: dict[str, list[str]] = {}
    first: dict[str, float] = {}
    for size in map(int, arguments.sizes.split(",")):
        images = torch.randn(batch, 3, size, size)
        last = images.contiguous(memory_format=torch.channels_last)
        plain_last: nn.Module = registry.build("backbones", spec, in_channels=3).eval()
        plain_last = plain_last.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        folded = frozen(net, size)
        variants: dict[str, tuple[nn.Module, Tensor]] = {
            "as it is": (net, images),
            "channels last": (plain_last, last),
            "`frozen`: folded, channels last": (folded, last),
            "`frozen` in bfloat16": (frozen(net, size, precision="bfloat16"), last),
        }
        if arguments.compile:
            variants["`frozen`, compiled"] = (torch.compile(folded), last)  # type: ignore[assignment]
        best: dict[str, float] = {}
        with torch.inference_mode():
            for name, (module, x) in variants.items():
                begun = time.process_time()
                module(x)
                first.setdefault(name, time.process_time() - begun)
            for _ in range(arguments.rounds):
                for name, (module, x) in variants.items():
                    begun = time.process_time()
                    module(x)
                    best[name] = max(best.get(name, 0.0), batch / (time.process_time() - begun))
        for name, value in best.items():
            rows.setdefault(name, []).append(f"{value:.0f}")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} | {first[name]:.1f} s |", flush=True)


Result = tuple[float, float, str]
"""Test accuracy, processor seconds, and what there is to remark."""


def by_default(folder: Path, **options: object) -> Result:
    """`repertoire train` on a folder, without its report."""
    with tempfile.TemporaryDirectory() as place:
        begun = time.process_time()
        run = training.fit(folder, out=Path(place) / "run", **options)
        seconds = time.process_time() - begun
        config = run.config
        said = f"{config.backbone}, {config.size} px, {config.epochs} x {run.info['steps'] // run.info['epochs']} steps"
        alone = run.info.get("head_only", {}).get("accuracy")
        if alone is not None:
            best = f"validation: head {alone:.3f}, all {run.metrics['val_accuracy']:.3f}"
            said += f"; {'the head stayed' if not run.metrics['best_epoch'] else 'all of it learned'} ({best})"
        return run.metrics["accuracy"], seconds, said


def logistic(folder: Path) -> Result:
    """scikit-learn's logistic regression, as it comes, on the features that `--tune head` learns from."""
    begun = time.process_time()
    config = recipe.make_config(data=str(folder), backbone="lite0", tune="head")
    splits = recipe.build(config, recipe.load_splits(config)).splits
    model = LogisticRegression(max_iter=1000).fit(splits.train.inputs(slice(None)), splits.train.labels)
    accuracy = model.score(splits.test.inputs(slice(None)), splits.test.labels)
    return float(accuracy), time.process_time() - begun, f"{len(splits.train)} training images"


class Timm:
    """timm's network with the weights of `lite0`, and what a loop around it needs, with the options of a run."""

    def __init__(self, config: recipe.TrainConfig, splits: Splits) -> None:
        timm = import_timm("tf_efficientnet_lite0")
        torch.manual_seed(0)
        net = timm.create_model("tf_efficientnet_lite0", num_classes=len(splits.classes))
        own = registry.build("backbones", "lite0", in_channels=3)
        # The same tensors in the same order; timm's have a classifier behind them.
        pairs = zip(net.state_dict().items(), own.state_dict().values(), strict=False)
        net.load_state_dict({name: value for (name, _), value in pairs}, strict=False)
        self.net = net.to(memory_format=torch.channels_last)
        preset = own.preset
        assert preset is not None
        self.mean, self.std = (torch.tensor(values)[:, None, None] for values in (preset.mean, preset.std))
        self.splits, self.batch = splits, config.batch_size
        self.optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.learning_rate(config), weight_decay=0.05)
        steps = config.epochs * (len(splits.train) // self.batch)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, steps)
        self.labels = torch.from_numpy(np.ascontiguousarray(splits.train.labels))

    def read(self, samples: Samples, rows: np.ndarray) -> Tensor:
        images = torch.from_numpy(samples.inputs(rows)).permute(0, 3, 1, 2) / 255
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def epoch(self) -> None:
        self.net.train()
        for module in self.net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        order = torch.randperm(len(self.splits.train))
        for rows in order[: len(order) // self.batch * self.batch].split(self.batch):
            images = self.read(self.splits.train, rows.numpy())
            images = torch.where(torch.rand(len(rows), 1, 1, 1) < 0.5, images.flip(3), images)
            self.optimizer.zero_grad()
            nn.functional.cross_entropy(self.net(images), self.labels[rows]).backward()
            self.optimizer.step()
            self.schedule.step()


def bare(folder: Path) -> Result:
    """A loop of a dozen lines around timm's network."""
    config = recipe.make_config(data=str(folder), backbone="lite0")
    splits = recipe.load_splits(config)
    config = recipe.resolve(config, splits)
    begun = time.process_time()
    loop = Timm(config, splits)
    for _ in range(config.epochs):
        loop.epoch()
    seconds = time.process_time() - begun
    loop.net.eval()
    with torch.inference_mode():
        rows = np.array_split(np.arange(len(splits.test)), 16)
        parts = [loop.net(loop.read(splits.test, some)).argmax(1) for some in rows]
    said = f"{config.epochs} x {len(splits.train) // config.batch_size} steps"
    return float((torch.cat(parts).numpy() == splits.test.labels).mean()), seconds, said


def fine_tune(folder: Path) -> Result:
    """fastai's `fine_tune` with its defaults: the same weights, batch, size, and epochs after the frozen one."""
    import_timm("tf_efficientnet_lite0")  # also where torchvision does not fit this torch
    import fastai.callback.progress
    import fastai.callback.schedule  # noqa: F401 both give learners more methods
    from fastai.metrics import accuracy
    from fastai.vision.augment import Resize
    from fastai.vision.data import ImageDataLoaders, Normalize
    from fastai.vision.learner import vision_learner

    config = recipe.make_config(data=str(folder), backbone="lite0")
    config = recipe.resolve(config, recipe.load_splits(config))
    own = registry.build("backbones", "lite0", in_channels=3)
    begun = time.process_time()
    torch.manual_seed(0)
    data = ImageDataLoaders.from_folder(
        folder / "train",
        valid_pct=0.1,
        seed=0,
        item_tfms=Resize(config.size),
        batch_tfms=[Normalize.from_stats(own.preset.mean, own.preset.std)],
        bs=config.batch_size,
        num_workers=0,
        device=torch.device("cpu"),
    )
    learner = vision_learner(data, "tf_efficientnet_lite0", pretrained=False, metrics=accuracy)
    body = learner.model[0]
    pairs = zip(body.state_dict().items(), own.state_dict().values(), strict=False)
    missing = body.load_state_dict({name: value for (name, _), value in pairs}, strict=False).missing_keys
    assert not missing, missing
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(config.epochs)
    seconds = time.process_time() - begun
    with learner.no_bar():
        files = sorted((folder / "test").rglob("*.jpg"))
        found = learner.validate(dl=data.test_dl(files, with_labels=True))
    return float(found[1]), seconds, f"1 + {config.epochs} epochs"


def steps(arguments: argparse.Namespace, images: int = 128) -> None:
    """Epochs of `--tune all`, in turn with those of the bare loop."""
    config = recipe.make_config(
        data=str(arguments.folders[0]), backbone="lite0", tune="all", batch_size=32, device="cpu"
    )
    splits = recipe.load_splits(config)
    splits = replace(splits, train=splits.train.subset(np.linspace(0, len(splits.train) - 1, images).astype(int)))
    built = recipe.build(config, splits)
    theirs = Timm(built.config, splits)
    ours, others = [], []
    with tempfile.TemporaryDirectory() as place:
        loop = training.Loop(built, training.RunDirectory(Path(place)), recipe.make_fabric(built.config))
        loop.validates = False
        for _ in range(arguments.rounds + 1):
            begun = time.process_time()
            loop._epoch([])
            ours.append(time.process_time() - begun)
            begun = time.process_time()
            theirs.epoch()
            others.append(time.process_time() - begun)
    # The first epoch warms caches and allocators up.
    rate = images / statistics.median(ours[1:])
    ratio = statistics.median(a / b for a, b in zip(ours[1:], others[1:], strict=True))
    print(f"\n### An epoch of `--tune all`, {images} images in batches of 32, {arguments.threads} thread(s)\n")
    print("| loop | images for a second of a processor (median) | time, ratio (median of pairs) |")
    print("| --- | --: | --: |")
    print(f"| bare, around timm's network | {images / statistics.median(others[1:]):.1f} | 1.00 |")
    print(f"| Repertoire, augmentation and checkpoint included | {rate:.1f} | {ratio:.2f} |")


def bare_pass(folder: Path) -> None:
    """timm's network over all photographs of a folder of classes, from their files: what any use of them costs."""
    timm = import_timm("tf_efficientnet_lite0")
    net = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval().to(memory_format=torch.channels_last)
    preset = Preset((127 / 255,) * 3, (128 / 255,) * 3, 224, "bicubic", 0.875)
    files = sorted(folder.rglob("*.jpg"))
    embed(net, files, preset, 160, batch=32)


def commands(arguments: argparse.Namespace) -> None:
    """`repertoire train FOLDER --tune head`, first and once more, in turn with a bare pass; processes of their own."""
    folder = arguments.folders[0]
    spent: dict[str, list[tuple[float, float]]] = {}
    environment = dict(os.environ, OMP_NUM_THREADS=str(arguments.threads))
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as place:
            environment["REPERTOIRE_CACHE"] = f"{place}/cache"
            train = [sys.executable, "-m", "repertoire", "train", str(folder), "--tune", "head", "--quiet", "--out"]
            for name, command in {
                "a bare pass over the photographs": [sys.executable, __file__, str(folder), "--only", "pass"],
                "`repertoire train --tune head`": [*train, f"{place}/first"],
                "the same once more": [*train, f"{place}/second"],
            }.items():
                clock, before = time.perf_counter(), os.times()
                subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
                after = os.times()
                processor = sum(after[2:4]) - sum(before[2:4])
                spent.setdefault(name, []).append((processor, time.perf_counter() - clock))
                print(f"{name}: {processor:.1f} s of a processor", file=sys.stderr, flush=True)
    count = len(list(folder.rglob("*.jpg")))
    base = spent["a bare pass over the photographs"]
    print(
        f"\n### {count:,} photographs, {arguments.threads} thread(s), {arguments.rounds} round(s), imports included\n"
    )
    print("| | processor seconds (median) | ratio (median of rounds) | seconds on the clock, least |")
    print("| --- | --: | --: | --: |")
    for name, values in spent.items():
        ratio = statistics.median(a[0] / b[0] for a, b in zip(values, base, strict=True))
        processor, clock = statistics.median(v[0] for v in values), min(v[1] for v in values)
        print(f"| {name} | {processor:.1f} | {ratio:.2f} | {clock:.1f} |")


def second_run(arguments: argparse.Namespace) -> None:
    """`repertoire train FOLDER --tune head` on features that are kept, a process of its own each time, beside what such
    a process takes to import what it needs; in turn with another checkout, where one is named.

    Modules are compiled once, as an installation does it, whatever the environment says of writing bytecode."""
    folder = arguments.folders[0]
    imports = "import repertoire; repertoire.train.fit, repertoire.report.write_report"
    spent: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as place:
        environment = dict(os.environ, OMP_NUM_THREADS=str(arguments.threads), REPERTOIRE_CACHE=f"{place}/cache")
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        environment["PYTHONPYCACHEPREFIX"] = f"{place}/bytecode"
        older = dict(environment, PYTHONPATH=str(arguments.before))
        train = [sys.executable, "-m", "repertoire", "train", str(folder), "--tune", "head", "--quiet"]
        train += ["--overwrite", "--out", f"{place}/run"]
        commands = {
            "imports: `repertoire.train`, `repertoire.report`": ([sys.executable, "-c", imports], environment),
            "`repertoire train --tune head --no-report`": ([*train, "--no-report"], environment),
            "`repertoire train --tune head`": (train, environment),
        }
        if arguments.before is not None:
            commands["the same, of the other checkout"] = (train, older)
        for where in (environment, older) if arguments.before is not None else (environment,):
            subprocess.run(train, env=where, check=True, stdout=subprocess.DEVNULL)
        for _ in range(arguments.rounds):
            for name, (command, where) in commands.items():
                clock, before = time.perf_counter(), os.times()
                subprocess.run(command, env=where, check=True, stdout=subprocess.DEVNULL)
                after = os.times()
                spent.setdefault(name, []).append((sum(after[2:4]) - sum(before[2:4]), time.perf_counter() - clock))
    count = len(list(folder.rglob("*.jpg")))
    print(f"\n### The second run on {count:,} photographs, {arguments.threads} thread(s), {arguments.rounds} rounds\n")
    print("| | processor seconds (median) | seconds on the clock (median) |")
    print("| --- | --: | --: |")
    for name, values in spent.items():
        processor, clock = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"| {name} | {processor:.1f} | {clock:.1f} |")


WAYS: dict[str, Callable[[Path], Result]] = {
    "logistic": logistic,
    "scratch": lambda folder: by_default(folder, from_scratch=True),
    "head": lambda folder: by_default(folder, backbone="lite0", tune="head"),
    "auto": by_default,
    "timm": bare,
    "fastai": fine_tune,
}


def ways(arguments: argparse.Namespace) -> None:
    found: dict[str, list[float]] = {}
    print("| images | how | test accuracy | processor minutes | |")
    print("| --- | --- | --: | --: | --- |")
    for folder in arguments.folders:
        for name in arguments.ways.split(","):
            accuracy, seconds, said = WAYS[name](folder)
            found.setdefault(name, []).append(accuracy)
            print(f"| {folder.name} | {name} | {accuracy:.3f} | {seconds / 60:.2f} | {said} |", flush=True)
    if len(arguments.folders) > 1:
        for name, values in found.items():
            print(f"| mean of {len(values)} | {name} | {statistics.mean(values):.3f} | | |")


RULES = ("backprop", "checkpoint", "local:blocks=4,auxiliary=linear", "local:blocks=12,auxiliary=linear")


def peak(config: recipe.TrainConfig, splits: Splits, method: Method) -> Footprint:
    """What a step would hold and compute."""
    return dry_step(config, method, splits.train.shape, device=torch.device("cpu"), ranks=1, numbers=0)


CONV = "auxiliary=(conv:depth=1)"
LOCAL: tuple[tuple[str, dict[str, object]], ...] = (
    ("backprop", {}),
    ("checkpoint", {}),
    (f"local:blocks=8,{CONV}", {}),
    (f"local:blocks=8,{CONV}", {"layer_decay": 1.0}),
    (f"local:blocks=4,{CONV}", {}),
    ("backprop", {"tune": "last:3"}),
)
"""Rules, and options beside: all layers at one rate, and those near the images not at all."""


def local(arguments: argparse.Namespace) -> None:
    """`repertoire train --tune all` with several rules: accuracy, the memory of a step, and processor minutes."""
    folder = arguments.folders[0]
    side = int(arguments.sizes.split(",")[0])
    print(f"\n### Fine-tuning lite0 on {folder.name} at {side} pixels, {arguments.threads} thread(s)\n")
    print("| rule | test accuracy | peak, MiB | memory | processor minutes, epochs |")
    print("| --- | --: | --: | --: | --- |")
    chosen = [(rule, {}) for rule in arguments.rules.split()] if arguments.rules else LOCAL
    base: int | None = None
    for rule, options in chosen:
        given = {"backbone": "lite0", "size": side, "tune": "all", "device": "cpu", **options}
        if arguments.epochs and given["tune"] == "all":
            given["epochs"] = arguments.epochs
        config = recipe.make_config(data=str(folder), rule=rule, **given)
        built = recipe.build(config, recipe.load_splits(config))
        needed = peak(built.config, built.splits, built.method.to(memory_format=torch.channels_last)).peak
        base = needed if base is None else base
        name = ", ".join([f"`{rule}`", *(f"{key.replace('_', ' ')} {value}" for key, value in options.items())])
        row = f"{needed / 2**20:.0f} | {needed / base:.2f}"
        if rule == "checkpoint" and not arguments.rules:
            print(f"| {name} | the same gradients | {row} | |", flush=True)
            continue
        accuracy, seconds, _ = by_default(folder, rule=rule, **given)
        print(f"| {name} | {accuracy:.3f} | {row} | {seconds / 60:.1f}, {built.config.epochs} |", flush=True)


def memory(arguments: argparse.Namespace, batch: int = 32) -> None:
    """What a step of fine-tuning needs with several rules, with AdamW, as the planner predicts it."""
    size = int(arguments.sizes.split(",")[-1])
    for spec in arguments.backbones.split():
        options = {"backbone": spec, "size": size, "tune": "all", "batch_size": batch, "optimizer": "adamw"}
        config = recipe.make_config(data=str(arguments.folders[0]), device="cpu", **options)
        splits = recipe.load_splits(config, shapes=True)
        config = recipe.resolve(config, splits)
        print(
            f"\n### Memory of fine-tuning {spec}, {batch} images of {size} pixels, as `repertoire plan` predicts it\n"
        )
        print("| rule | peak, MiB | memory | time |\n| --- | --: | --: | --: |")
        method = recipe.build(config, splits, weights=False).method.to(memory_format=torch.channels_last)
        first: tuple[int, float] | None = None
        for rule, pieces in itertools.product(RULES, (1, 2, 4)):
            chosen = config.model_copy(update={"rule": rule, "accumulate": pieces})
            found = peak(chosen, splits, method)
            taken = seconds(found.work, torch.device("cpu"), config.precision)
            first = first or (found.peak, taken)
            name = f"{rule}, {pieces} pieces" if pieces > 1 else rule
            row = f"{found.peak / 2**20:.0f} | {found.peak / first[0]:.2f} | {taken / first[1]:.2f}"
            print(f"| {name} | {row} |", flush=True)


class Pair(NamedTuple):
    """Test accuracies that were measured on a set, as `docs/numbers/pretrained.md` has them, and its validation images.

    Attributes:
        logistic: of logistic regression on the frozen features; that of the head where it was not measured.
    """

    name: str
    logistic: float
    head: float
    everything: float
    validate: int


PAIRS = (
    Pair("CIFAR-10, 5 a class", 0.558, 0.570, 0.562, 10),
    Pair("CIFAR-10, 20 a class", 0.632, 0.614, 0.680, 20),
    Pair("CIFAR-10, 100 a class", 0.714, 0.714, 0.808, 100),
    Pair("CIFAR-10, 500 a class", 0.750, 0.750, 0.872, 500),
    Pair("CIFAR-10, 5 a class, another draw", 0.514, 0.524, 0.530, 10),
    Pair("Fashion-MNIST", 0.790, 0.792, 0.782, 20),
    Pair("Omniglot", 0.480, 0.445, 0.545, 20),
    Pair("emoji", 0.588, 0.575, 0.603, 16),
    Pair("CIFAR-10, grey", 0.544, 0.553, 0.588, 8),
    Pair("MNIST", 0.860, 0.858, 0.824, 20),
    Pair("MNIST, trained once more", 0.860, 0.858, 0.878, 20),
    Pair("CIFAR-10 of odd sizes", 0.753, 0.760, 0.823, 30),
    Pair("printed letters", 0.955, 0.936, 0.981, 26),
)

Rule = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""From validation accuracies of the head and of all layers, and their standard error, to whether all layers stay."""

CHOICES: dict[str, Rule] = {
    "all layers, unless worse by more than a standard error": lambda head, whole, error: whole >= head - error,
    "the better one, all layers where they are equal": lambda head, whole, error: whole >= head,
    "the better one, the head where they are equal": lambda head, whole, error: whole > head,
    "the head, unless all layers are better by a standard error": lambda head, whole, error: whole > head + error,
    "all layers, always": lambda head, whole, error: np.ones_like(head, dtype=bool),
    "the head, always": lambda head, whole, error: np.zeros_like(head, dtype=bool),
}


def choice(arguments: argparse.Namespace, draws: int = 20000, apart: float = 0.16) -> None:
    """What rules that choose between the head and all layers lose, were the measured accuracies the true ones:
    validation images are drawn, of which `apart` at least tell the two networks from each other."""
    generator = np.random.default_rng(0)
    lost: dict[str, list[tuple[float, float]]] = {name: [] for name in CHOICES}
    for pair in PAIRS:
        gain = pair.everything - pair.head
        most = 2 * (1 - max(pair.head, pair.everything)) + abs(gain)
        differ = min(max(apart, 1.3 * abs(gain)), most)
        only_whole, only_head = (differ + gain) / 2, (differ - gain) / 2
        shares = [pair.head - only_head, only_whole, only_head]
        both, whole, head, _ = generator.multinomial(pair.validate, [*shares, 1 - sum(shares)], draws).T
        heads, wholes = ((both + alone) / pair.validate for alone in (head, whole))
        best = np.maximum(heads, wholes)
        error = np.sqrt(best * (1 - best) / pair.validate)
        for name, rule in CHOICES.items():
            kept = np.where(rule(heads, wholes, error), pair.everything, pair.head)
            lost[name].append((max(pair.head, pair.everything) - kept.mean(), (pair.logistic - kept > 0.02).mean()))
    print("\n### What a choice between the head and all layers loses, as simulated from the accuracies above\n")
    print(
        "| what stays | lost, mean | lost, worst set | 100 a class | 500 a class | more than 2 points below logistic |"
    )
    print("| --- | --: | --: | --: | --: | --: |")
    for name, rows in lost.items():
        losses, below = zip(*rows, strict=True)
        cells = [statistics.mean(losses), max(losses), losses[2], losses[3], statistics.mean(below)]
        print(f"| {name} | {' | '.join(f'{cell:.3f}' for cell in cells)} |")


OTHERS: dict[str, Callable[[argparse.Namespace], None]] = {
    "train": ways,
    "steps": steps,
    "commands": commands,
    "memory": memory,
    "local": local,
    "choice": choice,
    "second-run": second_run,
    "pass": lambda arguments: bare_pass(arguments.folders[0]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="hold train/CLASS/* and test/CLASS/*")
    usual = ",".join(name for name in WAYS if name != "fastai")
    parser.add_argument("--ways", default=usual, help="how --only train trains, of " + ", ".join(WAYS))
    parser.add_argument("--before", type=Path, help="src/ of another checkout, for --only second-run")
    parser.add_argument("--rules", default="", help="rules of --only local, separated by spaces; a choice by default")
    parser.add_argument("--epochs", type=int, help="of --only local, where all layers learn; by default as the command")
    parser.add_argument("--backbones", default="lite0", help="specs, separated by spaces")
    parser.add_argument("--per-class", default="5,20,100", help="training images of each class")
    parser.add_argument("--pool", type=int, default=200, help="images of each class that the draws are from")
    parser.add_argument("--test", type=int, default=100, help="test images of each class")
    parser.add_argument("--sizes", default="160,224")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["throughput", "accuracy", *OTHERS])
    parser.add_argument("--compile", action="store_true", help="also torch.compile, which takes minutes")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.only in OTHERS:
        OTHERS[arguments.only](arguments)
        return
    for spec in arguments.backbones.split():
        if arguments.only != "accuracy":
            throughput(arguments, spec)
        if arguments.only != "throughput":
            accuracy(arguments, spec)


if __name__ == "__main__":
    main()
