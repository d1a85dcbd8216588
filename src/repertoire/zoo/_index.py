"""An index of trained networks, which says which of them suits new data."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import ConfigError, DataError
from repertoire.files import atomic_path, write_json
from repertoire.zoo._know2vec import Alignment, check_width, class_nodes, model_nodes

__all__ = ["Found", "Index"]

_FORMAT = 1


@dataclass(frozen=True)
class Found:
    """A network that a search found.

    Attributes:
        name: of the network.
        score: how near it is to the data: a cosine, in [-1, 1].
    """

    name: str
    score: float


class Index:
    """Trained networks, known by their answers to probes, and a search for those that suit a data set.

    Shang et al., *Know2Vec: A Black-Box Proxy for Neural Network Retrieval* (2024). A network is asked once, when it
    is added, and no network is asked in a search: that needs nothing but the embeddings of the data in the reference
    network that has embedded the probes. An index that has learned (:meth:`align`) compares vectors in the space that
    it learned; one that has not, the classes of the data with those that each network knows, and takes for each the
    nearest.

    Args:
        probes: float `[P, d]`: the probes in the reference embedding.
        settings: what is to be kept with the index, of which JSON can be made: where the probes are from, say.

    Raises:
        ConfigError: fewer than two probes.

    Example:
        >>> import torch
        >>> from repertoire.zoo import Index
        >>> probes = torch.eye(4)
        >>> index = Index(probes)
        >>> index.add("first", torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.5, 0.5]]))
        >>> index.add("last", torch.tensor([[0.5, 0.5], [0.5, 0.5], [1.0, 0.0], [0.0, 1.0]]))
        >>> index.search(torch.tensor([[0.0, 0.0, 2.0, 0.1], [0.0, 0.1, 0.0, 3.0]]), torch.tensor([0, 1]))[0].name
        'last'
    """

    def __init__(self, probes: Tensor, settings: Mapping[str, Any] | None = None) -> None:
        if probes.ndim != 2 or len(probes) < 2:
            raise ConfigError(f"probes must be [P, d], two or more, found {list(probes.shape)}")
        self.probes = probes.detach().float().cpu()
        self.settings = dict(settings or {})
        self.nodes: dict[str, Tensor] = {}
        self.alignment: Alignment | None = None

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def names(self) -> tuple[str, ...]:
        """The networks, in the order in which they were added."""
        return tuple(self.nodes)

    def add(self, name: str, probabilities: Tensor) -> None:
        """Adds a network, or puts it in the place of one of the same name.

        Args:
            name: what a search will say.
            probabilities: float `[P, K]`: its answers to the probes, in their order.

        Raises:
            ShapeError: answers to other probes.
        """
        self.nodes[name] = model_nodes(probabilities.detach().float().cpu(), self.probes)

    def align(self, data: Sequence[tuple[Tensor, Tensor]], scores: Tensor, **options: Any) -> None:
        """Learns from data sets for which it is known how well each of the networks does.

        Args:
            data: the features `[N, d]` and labels `[N]` of each.
            scores: float `[data, networks]`, in the order of `names`.
            options: of :meth:`repertoire.zoo.Alignment.fit`.

        Raises:
            ConfigError: features of another width; an option out of range. ShapeError: scores of another shape.
        """
        nodes = [self._query(features, labels) for features, labels in data]
        self.alignment = Alignment(self.probes.shape[1]).fit(nodes, list(self.nodes.values()), scores, **options)

    @torch.no_grad()
    def search(self, features: Tensor, labels: Tensor, count: int | None = None) -> list[Found]:
        """The networks that suit a data set, the nearest first.

        Args:
            features: float `[N, d]`: the data in the reference embedding.
            labels: int `[N]`; negative for none.
            count: how many to give; all if None.

        Raises:
            ConfigError: the index is empty, or features of another width. ShapeError: no labels.
        """
        if not self.nodes:
            raise ConfigError("the index holds no network: add some first")
        query, models = self._query(features, labels), list(self.nodes.values())
        if self.alignment is None:
            scores = torch.tensor([_nearest(query, nodes, self.probes.mean(0)) for nodes in models])
        else:
            scores = self.alignment.similarity([query], models)[0]
        order = scores.argsort(descending=True, stable=True)[:count].tolist()
        return [Found(self.names[i], float(scores[i])) for i in order]

    def _query(self, features: Tensor, labels: Tensor) -> Tensor:
        check_width(features.shape[-1], self.probes.shape[1], "features")
        return class_nodes(features.detach().float().cpu(), labels.cpu())

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes a folder of two files, `index.json` and `index.safetensors`; gives its path back."""
        root = Path(path)
        root.mkdir(parents=True, exist_ok=True)
        tensors = {"probes": self.probes, **{f"nodes.{i}": nodes for i, nodes in enumerate(self.nodes.values())}}
        held: dict[str, Any] = {"format": _FORMAT, "names": list(self.names), "settings": self.settings}
        if self.alignment is not None:
            tensors |= {f"alignment.{name}": value for name, value in self.alignment.state_dict().items()}
            held["alignment"] = {"width": self.alignment.width, "sharpness": self.alignment.sharpness}
        with atomic_path(root / "index.safetensors") as temporary:
            save_file({name: value.contiguous() for name, value in tensors.items()}, temporary)
        write_json(root / "index.json", held)
        return root

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Index:
        """Reads what `save` wrote.

        Raises:
            DataError: there is no index, or it is damaged.
        """
        root = Path(path)
        try:
            held = json.loads((root / "index.json").read_text(encoding="utf-8"))
            tensors = load_file(root / "index.safetensors")
            index = cls(tensors["probes"], held["settings"])
            for number, name in enumerate(held["names"]):
                index.nodes[name] = tensors[f"nodes.{number}"]
            if "alignment" in held:
                index.alignment = Alignment(index.probes.shape[1], **held["alignment"]).eval()
                prefix = "alignment."
                state = {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}
                index.alignment.load_state_dict(state)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"{path} holds no index of networks that can be read: {reason}") from None
        return index


def _nearest(query: Tensor, nodes: Tensor, middle: Tensor) -> float:
    """The mean over classes of the cosine with the nearest node, as seen from the middle of the probes."""
    cosines = F.normalize(query - middle, dim=1) @ F.normalize(nodes - middle, dim=1).T
    return float(cosines.amax(1).mean())
