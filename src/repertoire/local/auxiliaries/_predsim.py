"""Local error signals: prediction and similarity matching."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.data import Batch
from repertoire.errors import ConfigError, ShapeError
from repertoire.local.auxiliaries._base import Auxiliary, LocalLoss, Site, averaged, judged
from repertoire.losses import ViewsLoss
from repertoire.methods import Step
from repertoire.registry import register

__all__ = ["PredSim", "similarity_matching_loss"]


def similarity_matching_loss(features: Tensor, targets: Tensor, classes: int) -> Tensor:
    r"""Mean squared difference between the similarities of features and those of their classes.

    Nøkland and Eidnes, *Training Neural Networks with Local Error Signals* (ICML 2019). With S the cosine similarities
    of rows from which their own mean was taken ("adjusted cosine"), and Y the classes, one-hot,

    .. math:: \mathcal L = \frac{1}{N^2} \lVert S(H) - S(Y) \rVert_F^2

    so that S(Y) is 1 for two samples of a class and -1 / (K - 1) for others. The N x N matrices are not built where the
    rows are shorter than N: the sum is

    .. math:: \lVert Z^\top Z \rVert_F^2 - 2 \lVert Z^\top T \rVert_F^2 + \lVert T^\top T \rVert_F^2

    with Z and T the normalised rows. Computed in float32 at least.

    Args:
        features: float `[N, d]`.
        targets: int64 `[N]` in 0..K-1, or -1 for samples without a label, which are left out.
        classes: K.

    Returns:
        A scalar; zero where no sample has a label.

    Raises:
        ShapeError: shapes that do not fit.

    Example:
        >>> import torch
        >>> from repertoire.local import similarity_matching_loss
        >>> features = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])  # two classes, perfectly apart
        >>> round(float(similarity_matching_loss(features, torch.tensor([0, 0, 1]), 2)), 6)
        0.0
    """
    if features.dim() != 2 or targets.shape != features.shape[:1]:
        raise ShapeError(
            f"expected features [N, d] and targets [N], found {list(features.shape)}, {list(targets.shape)}"
        )
    with torch.autocast(features.device.type, enabled=False):
        known = (targets >= 0)[:, None]
        rows = features if features.dtype == torch.float64 else features.float()
        # A sample without a label becomes a row of zeros, which is similar to nothing on both sides.
        z = _adjusted(rows) * known
        t = _adjusted(F.one_hot(targets.clamp_min(0), classes).to(z.dtype)) * known
        if len(z) <= max(z.shape[1], classes):
            total = (z @ z.T - t @ t.T).square().sum()
        else:
            # The sum is not negative, and rounding must not make it so.
            total = ((z.T @ z).square().sum() - 2 * (z.T @ t).square().sum() + (t.T @ t).square().sum()).clamp_min(0)
        return total / known.sum().clamp_min(1).square()


def _adjusted(rows: Tensor) -> Tensor:
    return F.normalize(rows - rows.mean(1, keepdim=True), dim=1, eps=1e-8)


@register("auxiliaries", "predsim")
class PredSim(Auxiliary):
    r"""A linear classifier, and features whose similarities are to match those of the classes.

    Nøkland and Eidnes, *Training Neural Networks with Local Error Signals* (ICML 2019):

    .. math:: \mathcal L = (1 - \beta)\,\ell(Wh, y) + \beta\,\mathcal L_{sim}

    with the similarity-matching term of :func:`repertoire.local.similarity_matching_loss` on a 3x3 convolution of the
    block's output, each of whose channels counts with its standard deviation over the grid; where there is no grid, on
    a linear layer. The classifier sees the maps, averaged down until they have no more than `dimensions` numbers. Its
    weights begin at zero, as in the released code. The supervised term is the method's own loss. A loss on views uses
    no labels, and then there is no similarity term.

    Samples are compared within the batch: it cannot be accumulated from pieces.

    Args:
        site: where the network stands.
        beta: share of the similarity term, from 0 to 1; 0.99 by default, the paper's choice.
        dimensions: largest number of inputs of the classifier; 4096 by default, one average a channel at least.

    Raises:
        ConfigError: an option out of range.

    Example:
        >>> import torch
        >>> from repertoire.local import LocalLearning
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> learner = LocalLearning(net, blocks=2, auxiliary="predsim:beta=0.9", example=torch.zeros(2, 4),
        ...                         optimizer=lambda block: torch.optim.SGD(block.parameters(), lr=0.1))
        >>> sorted(learner.step(torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])))
        ['accuracy', 'block1_accuracy', 'block1_loss', 'block1_similarity_loss', 'loss']
    """

    per_sample = False

    def __init__(self, site: Site, beta: float = 0.99, dimensions: int = 4096) -> None:
        if not 0 <= beta <= 1:
            raise ConfigError(f"predsim: beta is {beta}; expected a number from 0 to 1")
        if dimensions < 1:
            raise ConfigError(f"predsim: dimensions is {dimensions}; expected 1 or more")
        channels, *grid = site.grid
        height, width = grid if grid else (1, 1)
        while channels * height * width > dimensions and height * width > 1:
            height, width = -(-height // 2), -(-width // 2)
        features = channels * height * width
        classifier = nn.Linear(features, site.classes)
        nn.init.zeros_(classifier.weight)
        super().__init__(site, features, classifier)
        self._maps = site.maps
        self.beta = beta
        self.classes = site.classes
        self.side = (height, width)
        self.similar: nn.Module = (
            nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            if grid
            else nn.Linear(channels, channels, bias=False)
        )

    def embed(self, x: Tensor) -> Tensor:
        x = self._maps(x)
        if x.dim() == 4 and tuple(x.shape[2:]) != self.side:
            x = averaged(x, self.side)
        return x.flatten(1)

    def objective(self, x: Tensor, batch: Batch, loss: LocalLoss) -> Step:
        if batch.targets.dim() != 1 or batch.targets.is_floating_point():
            raise ConfigError(
                "auxiliary network 'predsim' compares the classes of samples, and the batch has targets "
                f"{batch.targets.dtype} {list(batch.targets.shape)}: use auxiliary=conv, or mix=none"
            )
        step = judged(self.classifier, self.embed(x), batch, loss)
        compared = self.similar(self._maps(x))
        if isinstance(loss, ViewsLoss):
            # The layer takes part without effect: wrappers for several ranks want a gradient for every parameter.
            return Step(step.loss + 0.0 * compared.mean(), step.logs)
        if compared.dim() == 4 and compared.shape[1] > 3 and compared.shape[2] * compared.shape[3] > 1:
            compared = compared.flatten(2).std(2)
        targets = batch.targets.repeat(len(batch.views))
        similarity = similarity_matching_loss(compared.flatten(1), targets, self.classes)
        total = (1 - self.beta) * step.loss + self.beta * similarity
        return Step(total, {**step.logs, "similarity_loss": similarity.detach()})
