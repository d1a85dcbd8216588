"""Early exit: the auxiliary networks of local learning answer for the images that are easy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from repertoire.errors import ConfigError
from repertoire.local._units import Chain
from repertoire.ops import evaluating

__all__ = ["Exits"]


class Exits(nn.Module):
    r"""A network in blocks with a classifier after each: what local learning leaves behind, used for prediction.

    An image leaves at the first block k whose classifier is sure of it,

    .. math:: \max_c\ \operatorname{softmax}\big(a_k(h_k)\big)_c \ge \theta,

    or at the end of the network. Images that left take no part in what follows: the others are gathered into a smaller
    batch, so that the work is saved. The idea is that of Teerapittayanon, McDanel and Kung, *BranchyNet* (ICPR 2016),
    with confidence in place of entropy.

    Args:
        chain: the network.
        ends: the last unit of each block.
        auxiliaries: the auxiliary networks of all blocks but the last.

    Attributes:
        work: multiplications that an image takes which leaves at each exit, the exits on its way included, relative to
            the network without exits. The last entry is above 1.

    Example:
        >>> import torch
        >>> from repertoire.local import Exits, LocalLearning
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> learner = LocalLearning(net, blocks=2, auxiliary="linear", example=torch.zeros(2, 4),
        ...                         optimizer=lambda block: torch.optim.SGD(block.parameters(), lr=0.1))
        >>> exits = Exits(learner.chain, learner.ends, learner.auxiliaries).eval()
        >>> logits, left = exits.predict(torch.randn(5, 4), confidence=0.0)
        >>> logits.shape, left.tolist()
        (torch.Size([5, 3]), [0, 0, 0, 0, 0])
    """

    def __init__(self, chain: Chain, ends: Sequence[int], auxiliaries: nn.ModuleList) -> None:
        super().__init__()
        self.names = [chain.units[end].name for end in ends]
        if len(ends) > 1 and ends[-1] == ends[-2]:
            self.names[-1] = "head"
        starts = [0, *(end + 1 for end in ends[:-1])]
        units = [[u.module for u in chain.units[a : b + 1]] for a, b in zip(starts, ends, strict=True)]
        self.blocks = nn.ModuleList([nn.Sequential(*block) for block in units])
        self.classifiers = nn.ModuleList([*auxiliaries, chain.tail])
        self.image = chain.image
        self.work = self._work()

    def forward(self, images: Tensor) -> list[Tensor]:
        """Logits `[N, K]` of every exit; the last are the network's."""
        found, x = [], images
        for block, classifier in zip(self.blocks, self.classifiers, strict=True):
            x = block(x)
            found.append(classifier(x))
        return found

    def predict(self, images: Tensor, confidence: float) -> tuple[Tensor, Tensor]:
        """Logits `[N, K]` of the exit that each image leaves by, and the number of that exit, int64 `[N]` from 0.

        Args:
            images: what the network takes.
            confidence: probability of the most probable class that lets an image leave, in [0, 1]. At 1 images leave
                early only where the softmax rounds to 1.

        Raises:
            ConfigError: a confidence out of range.
        """
        if not 0 <= confidence <= 1:
            raise ConfigError(f"the confidence of an early exit is {confidence}; expected a probability, from 0 to 1")
        left = torch.full((len(images),), len(self.blocks) - 1, device=images.device)
        remaining = torch.arange(len(images), device=images.device)
        answers: Tensor | None = None
        x = images
        for number, (block, classifier) in enumerate(zip(self.blocks, self.classifiers, strict=True)):
            x = block(x)
            logits = classifier(x)
            if answers is None:
                answers = logits.new_empty(len(images), logits.shape[1])
            if number == len(self.blocks) - 1:
                answers[remaining] = logits
                break
            sure = logits.float().softmax(1).amax(1) >= confidence
            answers[remaining[sure]] = logits[sure]
            left[remaining[sure]] = number
            remaining, x = remaining[~sure], x[~sure]
            if not len(remaining):
                break
        assert answers is not None
        return answers, left

    def _work(self) -> list[float]:
        like = next(self.parameters())
        x = torch.zeros(1, *self.image, device=like.device, dtype=like.dtype)
        body, heads = [], []
        with evaluating(self), torch.no_grad():
            for block, classifier in zip(self.blocks, self.classifiers, strict=True):
                with FlopCounterMode(display=False) as counter:
                    x = block(x)
                body.append(counter.get_total_flops())
                with FlopCounterMode(display=False) as counter:
                    classifier(x)
                heads.append(counter.get_total_flops())
        full = max(1, sum(body) + heads[-1])
        return [(sum(body[: i + 1]) + sum(heads[: i + 1])) / full for i in range(len(body))]
