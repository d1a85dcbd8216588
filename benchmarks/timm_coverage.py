"""How many of timm's networks can be cut into blocks: one line a network, and a table of the reasons.

    python benchmarks/timm_coverage.py --sample 40       # the smallest network of each of 40 families
    python benchmarks/timm_coverage.py                   # the smallest network of every family
    python benchmarks/timm_coverage.py --all             # every network; hours, and tens of gigabytes for the largest

A family is a module of timm. Networks get random weights and images of the size that timm states for them; nothing is
downloaded.
"""

from __future__ import annotations

import argparse
import re
import time
from collections import Counter
from collections.abc import Iterator

import torch

from repertoire.backbones import Timm
from repertoire.errors import ConfigError

#: Parameters and pixels a side above which a family's smallest network is left out, unless --all.
LARGEST = 60_000_000
WIDEST = 384


def families() -> Iterator[tuple[str, str]]:
    """Each family with its smallest network, counted on the meta device, where weights take no memory."""
    import timm

    for module in timm.list_modules():
        sizes = {}
        # The shortest names are of the plain networks; looking at all 1,300 would take many minutes.
        for name in sorted(timm.list_models(module=module), key=len)[:3]:
            with torch.device("meta"):
                sizes[name] = sum(p.numel() for p in timm.create_model(name, num_classes=0).parameters())
        if sizes:
            name = min(sizes, key=lambda n: sizes[n])
            if sizes[name] <= LARGEST and image_size(name) <= WIDEST:
                yield module, name


def image_size(name: str) -> int:
    """Side of the images that timm states for a network."""
    import timm

    return int((timm.get_pretrained_cfg_value(name, "input_size") or (3, 224, 224))[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, help="look at this many families, evenly spaced by name")
    parser.add_argument("--all", action="store_true", help="look at every network")
    options = parser.parse_args()
    Timm("resnet18")  # reports a missing timm before any work, and readies torchvision
    import timm

    chosen = [(name, name) for name in timm.list_models()] if options.all else list(families())
    if options.sample:
        step = max(len(chosen) / options.sample, 1)
        chosen = [chosen[int(i * step)] for i in range(min(options.sample, len(chosen)))]
    reasons: Counter[str] = Counter()
    print("```text")
    print(f"{'family':28} {'network':36} {'blocks':>6} {'stages':>6} {'width':>6} {'seconds':>7}")
    for family, name in chosen:
        began = time.perf_counter()
        try:
            net = Timm(name, image_size=image_size(name))
        except ConfigError as error:
            reason = str(error).split(": ", 1)[-1]
            reasons[re.sub(r"\(.*", "", reason).strip()] += 1
            print(f"{family:28} {name:36} refused: {reason}", flush=True)
            continue
        seconds = time.perf_counter() - began
        row = f"{len(net.blocks):6} {len(net.stage_ends):6} {net.out_features:6} {seconds:7.1f}"
        print(f"{family:28} {name:36} {row}", flush=True)
    print(f"\n{len(chosen) - sum(reasons.values())} of {len(chosen)} can be cut")
    for reason, count in reasons.most_common():
        print(f"{count:4}  {reason}")
    print("```")


if __name__ == "__main__":
    main()
