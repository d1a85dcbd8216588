"""Time of Grad-CAM: Repertoire, pytorch-grad-cam, and the bare passes that any Grad-CAM has to make.

    python benchmarks/gradcam.py                            # a ResNet-18, 16 images of 224 pixels, two threads
    python benchmarks/gradcam.py --device cuda --batch 64

All ways explain the same classes at the same layer of the same network, in one process and in turn, so that a busy
machine slows all of them. Times are medians over the rounds. `bare` is the bound: a forward pass without a graph up to
the layer, with one from there to the scores, and the backward pass to the layer; no map is made of it. `whole graph` is
the same with a graph from the images on, which is what a hook on an ordinary forward and backward pass costs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from repertoire.backbones._timm import _import
from repertoire.errors import MissingExtra
from repertoire.explain import GradCAM


def network() -> tuple[str, nn.Module, nn.Module]:
    """A ResNet-18 with random weights and its last stage: timm's, or one of this file where timm cannot be imported."""
    try:
        # The bridge also mends a torchvision whose compiled part is missing, which the peer imports too.
        timm = _import("resnet18")
    except MissingExtra:
        model = resnet18()
        return "ResNet-18", model, model[-4]
    model = timm.create_model("resnet18", num_classes=1000)
    return "timm resnet18", model, model.layer4


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


def bare(model: nn.Module, layer: nn.Module, x: Tensor, targets: Tensor, whole: bool) -> Callable[[], Tensor]:
    def run() -> Tensor:
        kept: list[Tensor] = []

        def cut(module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
            torch.set_grad_enabled(True)
            kept.append(output if whole else output.detach().requires_grad_())
            return kept[0]

        handle = layer.register_forward_hook(cut)
        try:
            with torch.set_grad_enabled(whole):
                scores = model(x)
            with torch.enable_grad():
                return torch.autograd.grad(scores.gather(1, targets[:, None]).sum(), kept[0])[0]
        finally:
            handle.remove()

    return run


def ways(model: nn.Module, layer: nn.Module, x: Tensor, targets: Tensor) -> dict[str, Callable[[], object]]:
    explainer = GradCAM(layer)
    found: dict[str, Callable[[], object]] = {
        "bare": bare(model, layer, x, targets, whole=False),
        "whole graph": bare(model, layer, x, targets, whole=True),
        "repertoire": lambda: explainer(model, x, targets),
    }
    try:
        from pytorch_grad_cam import GradCAM as Peer
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except (ImportError, RuntimeError) as error:
        print(f"pytorch-grad-cam is left out: {error}\n")
        return found
    categories = [ClassifierOutputTarget(target) for target in targets.tolist()]

    def call_peer() -> object:
        with Peer(model, [layer]) as peer:  # made anew each time, so that its hooks do not slow the others
            return peer(x, categories)

    return {**found, "pytorch-grad-cam": call_peer}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(given.threads)
    name, model, layer = network()
    model.to(given.device).eval()
    x = torch.rand(given.batch, 3, given.size, given.size, device=given.device)
    with torch.no_grad():
        targets = model(x).argmax(1)
    runs = ways(model, layer, x, targets)
    times: dict[str, list[float]] = {way: [] for way in runs}
    for turn in range(given.rounds + 1):
        for way, run in runs.items():
            start = time.perf_counter()
            run()
            if given.device != "cpu":
                torch.cuda.synchronize()
            if turn:  # the first round warms up
                times[way].append(time.perf_counter() - start)
    bound = statistics.median(times["bare"])
    print(
        f"torch {torch.__version__}, {given.device}, {given.threads} threads, {name}, {given.batch} images of "
        f"{given.size} pixels, median of {given.rounds}\n\n| way | time | over bare |\n|---|--:|--:|"
    )
    for way, taken in times.items():
        print(f"| {way} | {statistics.median(taken) * 1e3:,.1f} ms | {statistics.median(taken) / bound:.2f} |")


if __name__ == "__main__":
    main()
