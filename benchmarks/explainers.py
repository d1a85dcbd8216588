"""Time and memory of explainers, beside other libraries and the bare passes that any of them has to make.

    python benchmarks/explainers.py                                   # everything; takes ten minutes
    python benchmarks/explainers.py --family gradients --network vit  # one part, to be put together by --join
    python benchmarks/explainers.py --join part1.md part2.md
    python benchmarks/explainers.py --device cuda --batch 64

Networks have random weights: timm's ResNet-18, or one of this file where timm cannot be imported, and timm's ViT-S with
patches of 16 pixels. All ways of a family explain the same images and classes at the same layer of the same network, in
one process and in turn, so that a busy machine slows all of them. Times are medians over the rounds, after one that
warms up. `bare` is the bound of the family: the passes that no way of it can do without, with nothing made of them.
`over bare` is a time in units of that of `bare`. `memory` is what the tensors of a call hold at most beyond what there
was before it, as the allocator counts them, in a call that is not timed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from repertoire.backbones import import_timm
from repertoire.errors import MissingExtra
from repertoire.explain import (
    AblationCAM,
    EigenCAM,
    GradCAM,
    GradCAMPlusPlus,
    IntegratedGradients,
    LayerCAM,
    Occlusion,
    ScoreCAM,
    SmoothGrad,
)


class Setting(NamedTuple):
    """What is explained.

    Attributes:
        name: of the network.
        model, layer: the network and where the class activation methods look.
        tokens: whether the layer gives tokens with a class token before them, and not maps.
        x, targets: images and classes.
    """

    name: str
    model: nn.Module
    layer: nn.Module
    tokens: bool
    x: Tensor
    targets: Tensor


Ways = dict[str, Callable[[], Any]]


# --- Networks ---------------------------------------------------------------------------------------------------------


def network(kind: str, batch: int, size: int, device: str) -> Setting:
    torch.manual_seed(0)
    try:
        # The bridge also mends a torchvision whose compiled part is missing, which the peers import too.
        timm: ModuleType | None = import_timm("resnet18")
    except MissingExtra:
        timm = None
    if kind == "resnet":
        model = resnet18() if timm is None else timm.create_model("resnet18", num_classes=1000)
        name, layer = ("ResNet-18", model[-4]) if timm is None else ("timm resnet18", model.layer4)
    elif timm is None:
        raise MissingExtra("timm", "the ViT of this benchmark")
    else:
        model = timm.create_model("vit_small_patch16_224", num_classes=1000, img_size=size)
        name, layer = "timm vit_small_patch16_224", model.blocks[-1].norm1
    model.to(device).eval()
    x = torch.rand(batch, 3, size, size, device=device)
    with torch.no_grad():
        targets = model(x).argmax(1)
    return Setting(name, model, layer, kind == "vit", x, targets)


class Block(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU(inplace=True),
            nn.Conv2d(outer, outer, 3, 1, 1, bias=False), nn.BatchNorm2d(outer),
        )  # fmt: skip
        same = inner == outer and stride == 1
        self.skip = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))
        )

    def forward(self, x: Tensor) -> Tensor:
        return (self.body(x) + self.skip(x)).relu_()


def resnet18() -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    layers.append(nn.MaxPool2d(3, 2, 1))
    for inner, outer, stride in ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)):
        layers.append(nn.Sequential(Block(inner, outer, stride), Block(outer, outer, 1)))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


# --- Families: what is measured side by side; the first way is the bound --------------------------------------------


def ways_of_gradients(it: Setting) -> Ways:
    """Class activation from one forward pass and a gradient to the layer."""

    def bare(whole: bool) -> Tensor:
        kept: list[Tensor] = []

        def cut(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            torch.set_grad_enabled(True)
            kept.append(output if whole else output.detach().requires_grad_())
            return kept[0]

        handle = it.layer.register_forward_hook(cut)
        try:
            with torch.set_grad_enabled(whole):
                scores = it.model(it.x)
            with torch.enable_grad():
                return torch.autograd.grad(scores.gather(1, it.targets[:, None]).sum(), kept[0])[0]
        finally:
            handle.remove()

    found: Ways = {"bare: forward, and backward to the layer": lambda: bare(False)}
    found["bare, with a graph from the images on"] = lambda: bare(True)
    for method in (GradCAM, GradCAMPlusPlus, LayerCAM):
        found[f"repertoire {method.__name__}"] = _ours(method(it.layer), it)
        found |= _peer(method.__name__, it)
    return found


def ways_of_eigen(it: Setting) -> Ways:
    """Class activation from a forward pass that may end at the layer."""

    class Ended(Exception):
        pass

    def end(*_: Any) -> None:
        raise Ended

    def bare() -> None:
        handle = it.layer.register_forward_hook(end)
        try:
            with torch.no_grad():
                it.model(it.x)
        except Ended:
            pass
        finally:
            handle.remove()

    return {
        "bare: forward to the layer": bare,
        "repertoire EigenCAM": lambda: EigenCAM(it.layer)(it.model, it.x),
        **_peer("EigenCAM", it),
    }


def ways_of_masks(it: Setting) -> Ways:
    """Class activation from a pass for each map; not of all maps, so that it comes to an end."""
    masked = it.x.repeat_interleave(MASKS, 0)

    @torch.no_grad()
    def bare() -> None:
        it.model(it.x)
        for part in masked.split(32):
            it.model(part)

    return {
        f"bare: forward, of the images and {len(masked)} masked ones": bare,
        f"repertoire ScoreCAM, {MASKS} maps": _ours(ScoreCAM(it.layer, channels=MASKS, rows=32), it),
        f"repertoire AblationCAM, {MASKS} maps": _ours(AblationCAM(it.layer, channels=MASKS, rows=32), it),
    }


def ways_of_path(it: Setting) -> Ways:
    """Integrated gradients: a forward and a backward pass for each step of each image."""
    explainer = IntegratedGradients(STEPS, batch_size=STEPS * len(it.x))
    found: Ways = {f"bare: forward and backward, {STEPS} steps": _bare_to_inputs(it)}
    found["repertoire IntegratedGradients"] = _ours(explainer, it)
    if captum := _captum():
        peer = captum.IntegratedGradients(it.model)
        found["captum IntegratedGradients"] = lambda: peer.attribute(it.x, target=it.targets, n_steps=STEPS)
    return found


def ways_of_noise(it: Setting) -> Ways:
    """SmoothGrad: a forward and a backward pass for each sample of each image."""
    found: Ways = {f"bare: forward and backward, {STEPS} samples": _bare_to_inputs(it)}
    found["repertoire SmoothGrad"] = _ours(SmoothGrad(STEPS, batch_size=STEPS * len(it.x)), it)
    if captum := _captum():
        peer = captum.NoiseTunnel(captum.Saliency(it.model))
        # The peer sets what its inputs require.
        found["captum SmoothGrad"] = lambda: peer.attribute(
            it.x.clone().requires_grad_(), nt_samples=STEPS, stdevs=0.15, target=it.targets
        )
    return found


def ways_of_occlusion(it: Setting) -> Ways:
    """Occlusion: a forward pass for each square of each image, `ROWS` of them at once."""
    squares = -(-it.x.shape[2] // SQUARE) * -(-it.x.shape[3] // SQUARE)
    hidden = it.x.repeat_interleave(squares + 1, 0)

    @torch.no_grad()
    def bare() -> None:
        for part in hidden.split(ROWS):
            it.model(part)

    found: Ways = {f"bare: forward, of {squares} squares and the image": bare}
    found["repertoire Occlusion"] = _ours(Occlusion(patch=SQUARE, batch_size=ROWS), it)
    if captum := _captum():
        peer, window = captum.Occlusion(it.model), (it.x.shape[1], SQUARE, SQUARE)

        @torch.no_grad()
        def call_peer() -> Any:
            at_once = max(1, ROWS // len(it.x))
            return peer.attribute(it.x, window, window, target=it.targets, perturbations_per_eval=at_once)

        found["captum Occlusion"] = call_peer
    return found


def _bare_to_inputs(it: Setting) -> Callable[[], Tensor]:
    """All rows at once, and no gradient in the weights."""
    rows, targets = it.x.repeat(STEPS, 1, 1, 1), it.targets.repeat(STEPS)[:, None]

    def run() -> Tensor:
        needs = [parameter.requires_grad for parameter in it.model.parameters()]
        it.model.requires_grad_(False)
        x = rows.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(it.model(x).gather(1, targets).sum(), x)
        for parameter, needed in zip(it.model.parameters(), needs, strict=True):
            parameter.requires_grad = needed
        return gradient

    return run


def _captum() -> ModuleType | None:
    try:
        import captum.attr
    except (ImportError, RuntimeError) as error:
        print(f"captum is left out: {error}\n")
        return None
    return captum.attr


#: How many maps of a layer Score-CAM and Ablation-CAM look at.
MASKS = 32
#: Steps of a path, and samples of noise: few, so that all rows fit at once, as captum has it unless told otherwise.
STEPS = 2
#: Side of the squares of occlusion, and how many inputs pass at once.
SQUARE, ROWS = 32, 32

#: What a family is called, its ways, and how many images it is given at most.
FAMILIES: dict[str, tuple[str, Callable[[Setting], Ways], int]] = {
    "gradients": ("Class activation with a gradient", ways_of_gradients, 10**6),
    "eigen": ("Class activation without a class", ways_of_eigen, 10**6),
    "masks": ("Class activation with a pass for each map", ways_of_masks, 2),
    "path": (f"Integrated gradients of {STEPS} steps", ways_of_path, 10**6),
    "noise": (f"SmoothGrad of {STEPS} samples", ways_of_noise, 10**6),
    "occlusion": (f"Occlusion with squares of {SQUARE} pixels", ways_of_occlusion, 2),
}


def _ours(explainer: Callable[..., Tensor], it: Setting) -> Callable[[], Tensor]:
    return lambda: explainer(it.model, it.x, it.targets)


def _peer(name: str, it: Setting) -> Ways:
    """pytorch-grad-cam's method of that name; nothing where it cannot be imported."""
    try:
        import pytorch_grad_cam
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except (ImportError, RuntimeError) as error:
        print(f"pytorch-grad-cam is left out: {error}\n")
        return {}
    categories = [ClassifierOutputTarget(target) for target in it.targets.tolist()]

    def grid(tokens: Tensor) -> Tensor:
        side = int((tokens.shape[1] - 1) ** 0.5)
        return tokens[:, 1:].transpose(1, 2).unflatten(2, (side, side))

    def run() -> Any:
        # Made anew each time, so that its hooks do not slow the others.
        with getattr(pytorch_grad_cam, name)(it.model, [it.layer], grid if it.tokens else None) as peer:
            return peer(it.x, categories)

    return {f"pytorch-grad-cam {name}": run}


# --- Measuring --------------------------------------------------------------------------------------------------------


def measure(ways: Ways, rounds: int, device: str) -> dict[str, tuple[float, float]]:
    """Median time in seconds, and memory in bytes, of each way."""
    times: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(rounds + 1):
        for way, run in ways.items():
            start = time.perf_counter()
            run()
            if device != "cpu":
                torch.cuda.synchronize()
            if turn:  # the first round warms up
                times[way].append(time.perf_counter() - start)
    return {way: (statistics.median(taken), memory(ways[way], device)) for way, taken in times.items()}


def memory(run: Callable[[], Any], device: str) -> float:
    """Bytes of tensors that a call holds at most beyond what there was before."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    held = most = 0
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen:
        run()
    for event in seen.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def table(it: Setting, title: str, ways: Ways, rounds: int, device: str) -> str:
    found = measure(ways, rounds, device)
    bound = next(iter(found.values()))[0]
    lines = [
        f"{title}, {it.name}, {len(it.x)} images of {it.x.shape[2]} pixels, median of {rounds}:\n",
        "| way | time | over bare | memory |\n|---|--:|--:|--:|",
        *(
            f"| {way} | {taken * 1e3:,.0f} ms | {taken / bound:.2f} | {held / 2**20:,.0f} MiB |"
            for way, (taken, held) in found.items()
        ),
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", nargs="*", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--network", nargs="*", choices=["resnet", "vit"], default=["resnet", "vit"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--join", nargs="+", type=Path, help="put what parts printed together, and measure nothing")
    given = parser.parse_args()
    if given.join:
        parts = [path.read_text().strip().partition("\n\n") for path in given.join]
        print("\n\n".join([parts[0][0], *(rest for _, _, rest in parts)]))
        return
    torch.set_num_threads(given.threads)
    print(f"torch {torch.__version__}, {given.device}, {given.threads} threads")
    for kind in given.network:
        it = network(kind, given.batch, given.size, given.device)
        for family in given.family:
            title, ways_of, most = FAMILIES[family]
            few = it._replace(x=it.x[:most], targets=it.targets[:most])
            print(f"\n{table(few, title, ways_of(few), given.rounds, given.device)}", flush=True)


if __name__ == "__main__":
    main()
