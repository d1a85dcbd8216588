"""Stitchable networks: the front of a small network and the back of a large one, joined wherever one likes."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import islice
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from repertoire import registry
from repertoire.data import Batch
from repertoire.errors import CheckpointError, ConfigError
from repertoire.ops import evaluating
from repertoire.ranges import AtLeast, Positive, Share, checked
from repertoire.weights._batchnorm import images_of, refresh_in_parts
from repertoire.weights._flops import count_flops
from repertoire.weights._progress import Kept, Learning, Progress
from repertoire.weights._state import State
from repertoire.weights._stored import Stored, form

__all__ = ["Route", "Stitched", "stitch", "train_stitched"]

Inputs = Iterable[Tensor | Batch | tuple[Tensor, ...]]

_LEARNED = "routes"
"""Under which name the middle of training is kept."""


@dataclass(frozen=True)
class Route:
    """A way through a stitched network.

    Attributes:
        front: number of the network that it begins in.
        back: number of the network that it ends in; that of `front` for a network by itself.
        leaves: the last block of the front that it passes; -1 for a network by itself.
        enters: the first block of the back that it passes; 0 for a network by itself.
        join: number of the stitching layer between them; -1 for a network by itself.
        flops: operations for one input, as :func:`repertoire.weights.count_flops` counts them.
    """

    front: int
    back: int
    leaves: int
    enters: int
    join: int
    flops: int

    @classmethod
    def whole(cls, number: int) -> Route:
        """That of a network by itself."""
        return cls(number, number, -1, 0, -1, 0)


class Stitched(nn.Module):
    """Networks joined by stitching layers; one route through them is taken at a time.

    It begins on the route of the largest network. Statistics of batch normalisation belong to a route: the same layer
    meets other activations on each of them.

    Attributes:
        anchors: the networks, the smallest first.
        stitches: the stitching layers, one for each route from one network to the next.
        routes: all ways through, by rising cost.
        route: number of the one that is taken.
        scores: how good each route is, higher being better, where that was measured; else empty.
    """

    def __init__(self, anchors: Sequence[nn.Module], stitches: Sequence[nn.Module], routes: Sequence[Route]) -> None:
        super().__init__()
        self.anchors = nn.ModuleList(anchors)
        self.stitches = nn.ModuleList(stitches)
        self.routes = sorted(routes, key=lambda route: route.flops)
        self.scores: list[float] = []
        self.statistics = nn.ModuleList(_Statistics() for _ in routes)
        last = len(anchors) - 1
        self.route = next(n for n, route in enumerate(self.routes) if route.front == route.back == last)

    @property
    def largest(self) -> nn.Module:
        """The network that is largest by itself."""
        return self.anchors[-1]

    @property
    def normalize(self) -> nn.Module:
        """That of the network in which the route begins."""
        return getattr(self.anchors[self.routes[self.route].front], "normalize", None) or nn.Identity()

    @property
    def backbone(self) -> nn.Module:
        """That of the network in which the route ends."""
        return self.anchors[self.routes[self.route].back].backbone  # type: ignore[return-value]

    @property
    def head(self) -> nn.Module:
        """That of the network in which the route ends."""
        return self.anchors[self.routes[self.route].back].head  # type: ignore[return-value]

    def use(self, route: int) -> Stitched:
        """Takes another route from now on, with the statistics that were measured for it.

        Raises:
            ConfigError: there is no such route.
        """
        if not 0 <= route < len(self.routes):
            raise ConfigError(f"route must be one of 0 to {len(self.routes) - 1}, found {route}")
        self.route = route
        measured = dict(self.statistics[route].named_buffers())
        for name, norm in self._norms(route):
            for own in ("running_mean", "running_var"):
                key = f"{name}.{own}".replace(".", "/")
                if key in measured:
                    getattr(norm, own).copy_(measured[key])
        return self

    def within(self, budget: float) -> int:
        """The best route that costs no more than a share of the largest network; the dearest if nothing was measured.

        Args:
            budget: share of the operations of the largest network; 1 allows it, and all that cost less.

        Raises:
            ConfigError: no route is as cheap as that; the message says how cheap the cheapest is.
        """
        whole = next(r.flops for r in self.routes if r.front == r.back == len(self.anchors) - 1)
        fitting = [number for number, route in enumerate(self.routes) if route.flops <= budget * whole]
        if not fitting:
            least = self.routes[0].flops / whole
            raise ConfigError(f"budget is {budget:g} of the largest network, and the cheapest route takes {least:.3f}")
        return max(fitting, key=lambda number: (self.scores[number] if self.scores else 0, self.routes[number].flops))

    def forward(self, images: Tensor) -> Tensor:
        return self.embed_and_score(images)[1]

    def embed(self, images: Tensor) -> Tensor:
        """Features `[N, d]` of the network in which the route ends."""
        return self.embed_and_score(images)[0]

    def embed_and_score(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features `[N, d]` and logits `[N, K]`, in one pass."""
        return self._passes(self.route)(images)

    @torch.no_grad()
    def measure_statistics(self, batches: Callable[[], Inputs], progress: Progress | None = None) -> None:
        """Measures the statistics of batch normalisation for every route, on its own activations.

        Args:
            batches: called once a route: training inputs as evaluation sees them.
            progress: where those of each route are kept once they are measured; by default nowhere.
        """
        for number in range(len(self.routes)):
            refresh_in_parts(self._passes(number), batches(), progress or Progress(), f"statistics-{number}")
            found = _Statistics()
            for name, norm in self._norms(number):
                for own in ("running_mean", "running_var"):
                    found.register_buffer(f"{name}.{own}".replace(".", "/"), getattr(norm, own).clone())
            self.statistics[number] = found
        self.use(self.route)

    def stored(self, **settings: Any) -> Stored:
        """What is written of it, with the settings of the form that are not its own; see `stitched_form`."""
        sizes = [[s.linear.in_features, s.linear.out_features] for s in self.stitches]  # type: ignore[union-attr]
        told = {"routes": [list(astuple(r)) for r in self.routes], "sizes": sizes, "scores": self.scores}
        return Stored("stitched", dict(self.state_dict()), {**told, **settings})

    def _passes(self, number: int) -> nn.Module:
        route = self.routes[number]
        return _Passes(self.anchors, route, self.stitches[route.join] if route.join >= 0 else None)

    def _norms(self, number: int) -> Iterator[tuple[str, _BatchNorm]]:
        passed = {id(module) for module in self._passes(number).modules()}
        for name, module in self.named_modules():
            if isinstance(module, _BatchNorm) and module.track_running_stats and id(module) in passed:
                yield name, module


class _Statistics(nn.Module):
    """The running statistics of a route, as buffers; names have slashes for dots."""

    def _load_from_state_dict(self, state: State, prefix: str, *args: Any) -> None:
        # Which there are is known only when they are loaded.
        for name in state:
            if name.startswith(prefix):
                self.register_buffer(name.removeprefix(prefix), torch.empty_like(state[name]))
        super()._load_from_state_dict(state, prefix, *args)


class _Passes(nn.Module):
    """What a route passes, and nothing else: inputs to features and logits."""

    def __init__(self, anchors: Sequence[nn.Module] | nn.ModuleList, route: Route, join: nn.Module | None) -> None:
        super().__init__()
        front, back = anchors[route.front], anchors[route.back]
        self.normalize = getattr(front, "normalize", None) or nn.Identity()
        before = list(_blocks(front))[: route.leaves + 1]
        after = list(_blocks(back))[route.enters :]
        self.parts = nn.ModuleList([*before, *([] if join is None else [join]), *after])
        self.head = back.head
        self.pool = back.backbone.pool  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.normalize(x)
        for part in self.parts:
            x = part(x)
        features: Tensor = self.pool(x)  # type: ignore[operator]
        return features, self.head(features)  # type: ignore[operator]


class _Stitch(nn.Module):
    """A linear map of channels at every place: of maps `[N, C, h, w]`, tokens `[N, T, d]` or vectors `[N, d]`."""

    def __init__(self, channels: int, into: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, into)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 4:
            return F.conv2d(x, self.linear.weight[:, :, None, None], self.linear.bias)
        return self.linear(x)


def _blocks(anchor: nn.Module) -> nn.ModuleList:
    return anchor.backbone.blocks  # type: ignore[return-value, union-attr]


def _rows(x: Tensor) -> Tensor:
    return (x.movedim(1, -1) if x.dim() == 4 else x).flatten(0, -2)


@torch.no_grad()
def stitch(
    anchors: Sequence[nn.Module],
    batches: Inputs,
    *,
    initial: Literal["least-squares", "random"] = "least-squares",
    progress: Progress | None = None,
) -> Stitched:
    r"""Trained networks of several sizes in one, with a route from each into the next after almost every block.

    Pan, Cai and Zhuang, *Stitchable Neural Networks* (2023). A stitching layer takes the activations :math:`A_1`
    `[n, d_1]` behind a block of the smaller network, at all places, to those of the larger one:

    .. math:: M = \arg\min_M \lVert [A_1, 1]\,M - A_2 \rVert^2 = [A_1, 1]^{+} A_2

    Routes go from a network to the next larger one, never back, as the authors found best. Behind each block of the
    larger network but the last enters the block of the smaller one that stands nearest by its share of the depth and
    has as many places. Each of these positions has a stitching layer of its own, where the authors share one among
    neighbours. Afterwards :func:`train_stitched` trains all routes together.

    Args:
        anchors: two or more, as runs leave them behind (`run.model`): each with a `backbone` made of blocks and a
            `head`, for the same classes. Sorted here by their operations; they become parts of the result.
        batches: training inputs as evaluation sees them; tensors, `Batch`, or tuples whose first element is the inputs.
        initial: "least-squares" (default), or "random" for layers as PyTorch draws them.
        progress: where the sums of the least squares are kept; by default nowhere.

    Returns:
        The network, in evaluation mode, with statistics of batch normalisation as the networks have them: where they
        have any, `measure_statistics` is to be called before it is used.

    Raises:
        ConfigError: there are fewer than two networks or no batches, a network has no blocks, or no block of one fits a
            block of the next.

    Example:
        >>> import torch
        >>> from repertoire.backbones import ConvNet
        >>> from repertoire.weights import stitch
        >>> class Net(torch.nn.Module):
        ...     def __init__(self, width):
        ...         super().__init__()
        ...         self.backbone = ConvNet(1, 8, width, depth=3)
        ...         self.head = torch.nn.Linear(self.backbone.out_features, 2)
        >>> images = torch.rand(20, 1, 8, 8)
        >>> net = stitch([Net(4), Net(8)], [images])
        >>> [(route.front, route.back) for route in net.routes]
        [(0, 0), (0, 1), (0, 1), (1, 1)]
        >>> net.measure_statistics(lambda: [images])
        >>> net.use(net.within(0.5))(images).shape
        torch.Size([20, 2])
    """
    if len(anchors) < 2:
        raise ConfigError(f"stitching takes two networks or more, {len(anchors)} given")
    for anchor in anchors:
        if not hasattr(getattr(anchor, "backbone", None), "blocks"):
            raise ConfigError(f"{type(anchor).__name__} has no backbone with blocks, so there is no place to stitch it")
    inputs = (images_of(batch) for batch in batches)
    first = next(inputs, None)
    if first is None:
        raise ConfigError("batches is empty; give some training inputs to fit the stitching layers on")
    alone = [(anchor, _flops([anchor], Route.whole(0), None, first)) for anchor in anchors]
    ordered = [anchor for anchor, _ in sorted(alone, key=lambda pair: pair[1])]
    with evaluating(*ordered):
        shapes = [[x.shape[1:] for x in _outputs(anchor, first[:1])] for anchor in ordered]
        routes: list[Route] = []
        joins: list[_Join] = []
        for number in range(len(ordered) - 1):
            found = _positions(shapes[number], shapes[number + 1])
            if not found:
                raise ConfigError(f"no block of network {number} has as many places as one of network {number + 1}")
            for leaves, enters in found:
                routes.append(Route(number, number + 1, leaves, enters, len(joins), 0))
                joins.append(_Join(shapes[number][leaves], shapes[number + 1][enters - 1]))
        if initial == "least-squares":
            fitted = itertools.chain([first], inputs)
            for images in (progress or Progress()).through("joins", fitted, *_sums_of(joins)):
                given = [_outputs(anchor, images) for anchor in ordered]
                for route, join in zip(routes, joins, strict=True):
                    join.add(given[route.front][route.leaves], given[route.back][route.enters - 1])
        stitches: list[nn.Module] = [join.layer(first, initial) for join in joins]
    routes = [replace(r, flops=_flops(ordered, r, layer, first)) for r, layer in zip(routes, stitches, strict=True)]
    for number in range(len(ordered)):
        routes.append(replace(Route.whole(number), flops=_flops(ordered, Route.whole(number), None, first)))
    return Stitched(ordered, stitches, routes).eval()


def _sums_of(
    joins: Sequence[_Join],
) -> tuple[Callable[[], tuple[dict[str, Tensor], dict[str, Any]]], Callable[[Kept], None]]:
    """How the sums of stitching layers are kept, and put back."""
    sums = {f"{number}.moments": join.moments for number, join in enumerate(joins)}
    sums |= {f"{number}.answers": join.answers for number, join in enumerate(joins)}

    def put_back(kept: Kept) -> None:
        for name, value in sums.items():
            value.copy_(kept.tensors[name])

    return lambda: (sums, {}), put_back


def _flops(anchors: Sequence[nn.Module], route: Route, join: nn.Module | None, images: Tensor) -> int:
    return count_flops(_Passes(anchors, route, join), images[:1])


def _outputs(anchor: nn.Module, images: Tensor) -> list[Tensor]:
    """What each block gives."""
    x = anchor.normalize(images) if hasattr(anchor, "normalize") else images  # type: ignore[operator]
    found = []
    for block in _blocks(anchor):
        x = block(x)
        found.append(x)
    return found


def _positions(small: Sequence[Sequence[int]], large: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """The block of the small network to leave behind, and that of the large one to enter, which is not its first.

    Args:
        small, large: the shapes of what each block gives, without the batch.
    """
    found = []
    for entered in range(1, len(large)):
        fitting = [i for i, shape in enumerate(small[:-1]) if _places(shape) == _places(large[entered - 1])]
        if fitting:
            share = entered / len(large)
            found.append((min(fitting, key=lambda i: (abs((i + 1) / len(small) - share), i)), entered))
    return found


def _places(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(shape[1:]) if len(shape) == 3 else tuple(shape[:-1])


class _Join:
    """The least squares of one stitching layer, batch by batch: sums are in float64, whatever their number."""

    def __init__(self, small: Sequence[int], large: Sequence[int]) -> None:
        self.sizes = tuple(shape[0] if len(shape) == 3 else shape[-1] for shape in (small, large))
        self.moments = torch.zeros(self.sizes[0] + 1, self.sizes[0] + 1, dtype=torch.float64)
        self.answers = torch.zeros(self.sizes[0] + 1, self.sizes[1], dtype=torch.float64)

    def add(self, small: Tensor, large: Tensor) -> None:
        x, y = (_rows(value).cpu().double() for value in (small, large))
        x = F.pad(x, (0, 1), value=1.0)
        self.moments += x.T @ x
        self.answers += x.T @ y

    def layer(self, like: Tensor, initial: str) -> _Stitch:
        layer = _Stitch(*self.sizes).to(like.device)
        if initial == "least-squares":
            # What a dead channel is multiplied with is 0, as in the pseudo-inverse.
            solution = torch.linalg.lstsq(self.moments, self.answers, driver="gelsd").solution
            layer.linear.weight.copy_(solution[:-1].T)
            layer.linear.bias.copy_(solution[-1])
        return layer


@checked
def train_stitched(
    net: Stitched,
    batches: Callable[[], Iterable[Batch]],
    *,
    epochs: Annotated[int, AtLeast(1)] = 5,
    lr: Annotated[float, Positive] = 1e-3,
    temperature: Annotated[float, Positive] = 1.0,
    distil: Annotated[float, Share] = 0.5,
    seed: int = 0,
    statistics: Callable[[], Inputs] | None = None,
    progress: Progress | None = None,
) -> Stitched:
    r"""Trains all routes of a stitched network together: each step takes one of them, drawn at random.

    Pan, Cai and Zhuang, *Stitchable Neural Networks* (2023). A step minimises

    .. math:: (1 - \alpha)\,\mathrm{CE}(f_r(x), y) + \alpha\,T^2\,\mathrm{KL}\big(p_T(x)\,\Vert\,f_r(x)\big)

    where :math:`f_r` is the route, p are the probabilities of the largest network as it was before, and both are
    softened by the temperature T. The authors distil from a network outside; here the largest of those within is the
    teacher. Everything learns, the networks themselves included, by AdamW with a rate that falls to 0 as a cosine.

    Args:
        net: changed in place.
        batches: called once to count them, and once an epoch: training samples with their classes. Who goes on with
            what was kept calls it as often, and looks at what is left.
        epochs: over the batches; 5 by default.
        lr: learning rate at the beginning.
        temperature: T.
        distil: alpha, from 0 (the classes alone) to 1 (the teacher alone).
        seed: of the routes that are drawn.
        statistics: called once a route: inputs as evaluation sees them, to measure the statistics of batch
            normalisation on; `batches` where there is no augmentation (None, by default).
        progress: where networks, the state of their optimiser, the random numbers and the epoch are kept while they are
            trained, and statistics once they are measured; by default nowhere.

    Returns:
        The network, in evaluation mode, with statistics of batch normalisation that were measured for every route.

    Raises:
        ConfigError: there are no batches, or an option is out of its range.
    """
    teacher = copy.deepcopy(_Passes([net.largest], Route.whole(0), None)).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(seed)
    progress, counted = progress or Progress(), batches()
    steps = epochs * progress.value("batches", lambda: sum(1 for _ in counted))
    if steps == 0:
        raise ConfigError("batches is empty; give some training samples")
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    learning = Learning({**dict(net.named_parameters()), **dict(net.named_buffers())}, optimizer, schedule, [generator])
    begun = passed = 0
    if (found := progress.load(_LEARNED)) is not None:
        learning.put_back(found)
        begun, passed = found.told["epoch"], found.told["passed"]
    kept = net.route
    net.train()
    try:
        for epoch in range(epochs):
            given = batches()
            if epoch < begun:
                continue
            for batch in islice(given, passed, None):
                net.route = int(torch.randint(len(net.routes), (), generator=generator))
                logits = net(batch.images)
                with torch.no_grad():
                    soft = (teacher(batch.images)[1] / temperature).softmax(1)
                likeness = F.kl_div((logits / temperature).log_softmax(1), soft, reduction="batchmean")
                loss = (1 - distil) * F.cross_entropy(logits, batch.targets) + distil * temperature**2 * likeness
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                passed += 1
                if progress.due():
                    tensors, told = learning.state()
                    progress.save(_LEARNED, tensors, {**told, "epoch": epoch, "passed": passed})
            passed = 0
        if begun < epochs:
            tensors, told = learning.state()
            progress.save(_LEARNED, tensors, {**told, "epoch": epochs, "passed": 0})
    finally:
        net.route = kept
        net.eval()
    net.measure_statistics(statistics or batches, progress)
    return net


@form("stitched")
def stitched_form(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    routes: Sequence[Sequence[int]],
    sizes: Sequence[Sequence[int]],
    networks: Sequence[Mapping[str, Any]],
    scores: Sequence[float] = (),
) -> nn.Module:
    """A stitched network.

    Args:
        model: the largest of its networks, as a run leaves it behind.
        tensors: the state of all.
        routes: numbers of each, as `Route` has them.
        sizes: for each stitching layer, channels of what it takes and gives.
        networks: for each other network the specs of its `backbone` and `head`, and what these are built for
            (`in_channels`, `image_size`, `num_classes`).
        scores: how good each route is.
    """
    anchors = []
    for told in networks:
        anchor = copy.deepcopy(model)
        size = {"in_channels": told["in_channels"], "image_size": told["image_size"]}
        spec = registry.parse(told["backbone"])
        options = {name: value for name, value in spec.kwargs.items() if name != "pretrained"}
        without = registry.Spec(spec.name, spec.args, options)
        backbone = registry.build("backbones", without, pretrained=False, **size)
        wide = {"in_features": backbone.out_features, "num_classes": told["num_classes"]}
        anchor.backbone, anchor.head = backbone, registry.build("heads", told["head"], **wide)
        anchors.append(anchor)
    net = Stitched([*anchors, model], [_Stitch(*pair) for pair in sizes], [Route(*route) for route in routes])
    net.scores = list(scores)
    try:
        net.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise CheckpointError(f"the tensors do not fit the network: {' '.join(str(error).split())}") from None
    return net.use(net.route).eval()
