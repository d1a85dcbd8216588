"""What may be tried about a run: only what its own options leave open, and nothing against what was said before."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from repertoire import registry
from repertoire.report._text import label

if TYPE_CHECKING:
    from repertoire.recipe import TrainConfig

__all__ = ["Remedies"]


@dataclass(frozen=True)
class _Remedy:
    """One thing to try.

    Attributes:
        text: how it is put, with the option.
        fits: whether the run leaves it open.
        turns: what it turns, and which way; never said beside its opposite.
    """

    text: Callable[[Remedies], str]
    fits: Callable[[Remedies], bool] = lambda run: True
    turns: tuple[str, int] | None = None


class Remedies:
    """The remedies that are open to a run, offered in the order of the observations.

    Args:
        config: the run's resolved configuration.
        epochs: that were trained; fewer than configured where it stopped early.
        path: the run's directory.
        trained: whether it was; nothing of its configuration is to be changed of one that was made of others.
    """

    def __init__(
        self, config: TrainConfig, epochs: int | None = None, path: str = "RUN", *, trained: bool = True
    ) -> None:
        self.config = config
        self.epochs = config.epochs if epochs is None else epochs
        self.path = path
        self.trained = trained
        self.loss = registry.parse(config.loss)
        self._said: dict[str, int] = {}

    def offer(self, *names: str, otherwise: str) -> str:
        """A sentence with the remedies that are open, in this order; `otherwise` where none is."""
        found = list(self._open(names))
        if not found:
            return otherwise
        text = found[0] if len(found) == 1 else f"{', '.join(found[:-1])}, or {found[-1]}"
        return f"Try {text}."

    def allows(self, name: str) -> bool:
        """True if a remedy is open and not against what was said."""
        return bool(list(self._open((name,))))

    def _open(self, names: tuple[str, ...]) -> Iterator[str]:
        for name in names:
            remedy = _REMEDIES[name]
            if not self.trained or not remedy.fits(self):
                continue
            if remedy.turns is not None:
                what, way = remedy.turns
                if self._said.setdefault(what, way) != way:
                    continue
            yield remedy.text(self)

    @property
    def supervised(self) -> bool:
        """True if the classifier is what is trained, end to end, by a loss on its logits."""
        return self.config.method == "supervised"

    def named(self, *names: str) -> bool:
        """True if the loss is one of these."""
        return self.loss.name in names


_STRONG = ("strong", "simclr", "randaugment", "trivialaugment", "erasing")
_RARE = ("logit-adjusted", "balanced-softmax", "ldam")
_UNCORRELATED = ("vicreg", "barlow-twins", "w-mse", "intl", "tico")


def _augmentations(run: Remedies) -> set[str]:
    return {registry.parse(part).name for part in run.config.augment.split("+")}


def _smoothing(run: Remedies) -> float:
    return float(run.loss.kwargs.get("label_smoothing", 0))


def _anew(run: Remedies) -> str:
    words = ["repertoire", "train", run.config.data, "--start", run.path, "--tune", "head"]
    return f"the classifier anew on the frozen network ({' '.join(label(shlex.quote(word)) for word in words)})"


_REMEDIES = {
    "longer": _Remedy(
        lambda run: f"training longer (--epochs {2 * run.config.epochs})",
        lambda run: run.epochs >= run.config.epochs,
        ("length", 1),
    ),
    "shorter": _Remedy(
        lambda run: f"fewer epochs (--epochs {max(1, run.epochs // 2)})", lambda run: run.epochs > 1, ("length", -1)
    ),
    "rate": _Remedy(
        lambda run: f"another learning rate (--lr {run.config.lr / 3:.2g} or {run.config.lr * 3:.2g})",  # type: ignore[operator]
        lambda run: run.config.lr is not None and "rate" not in run._said,
    ),
    "slower": _Remedy(
        lambda run: f"a lower learning rate (--lr {run.config.lr / 3:.2g})",  # type: ignore[operator]
        lambda run: run.config.lr is not None,
        ("rate", -1),
    ),
    "warmup": _Remedy(lambda run: f"a longer warm-up (--warmup {2 * run.config.warmup + 1:g})"),
    "balanced": _Remedy(
        lambda run: "drawing classes equally often (--balanced)",
        lambda run: not (run.config.balanced or run.config.class_weights or run.named(*_RARE)),
        ("balance", 1),
    ),
    "class-weights": _Remedy(
        lambda run: "weighting the loss (--class-weights)",
        lambda run: run.supervised and not (run.config.balanced or run.config.class_weights or run.named(*_RARE)),
        ("balance", 1),
    ),
    "logit-adjusted": _Remedy(
        lambda run: "a loss that knows the frequencies (--loss logit-adjusted)",
        lambda run: run.supervised and not (run.config.balanced or run.config.class_weights or run.named(*_RARE)),
        ("balance", 1),
    ),
    "stronger": _Remedy(
        lambda run: "stronger augmentation (--augment strong)",
        lambda run: run.config.tune != "head" and not (_augmentations(run) & set(_STRONG)),
        ("augmentation", 1),
    ),
    "weaker": _Remedy(
        lambda run: "weaker augmentation (--augment crop-flip)",
        lambda run: run.supervised and bool(_augmentations(run) & set(_STRONG)),
        ("augmentation", -1),
    ),
    "decay": _Remedy(
        lambda run: f"more weight decay (--weight-decay {3 * (run.config.weight_decay or 1e-4):.2g})",
        turns=("decay", 1),
    ),
    "sam": _Remedy(
        lambda run: "a rule that looks for flat minima (--rule sam)",
        lambda run: registry.parse(run.config.rule).name == "backprop" and run.config.tune != "head",
    ),
    "head": _Remedy(
        lambda run: "training the head alone (--tune head)",
        lambda run: _pretrained(run.config) and run.config.tune != "head",
    ),
    "smoothing": _Remedy(
        lambda run: "label smoothing (--loss cross-entropy:label_smoothing=0.1)",
        lambda run: run.named("cross-entropy") and _smoothing(run) == 0,
        ("smoothing", 1),
    ),
    "no smoothing": _Remedy(
        lambda run: "no label smoothing (--loss cross-entropy)",
        lambda run: run.named("cross-entropy") and _smoothing(run) > 0,
        ("smoothing", -1),
    ),
    "trusting less": _Remedy(
        lambda run: "a loss that trusts a label less (--loss ensloss)",
        lambda run: run.supervised and not run.named("ensloss"),
    ),
    "supcon": _Remedy(
        lambda run: "a loss on embeddings (--loss supcon)", lambda run: run.supervised and run.config.tune != "head"
    ),
    "uncorrelated": _Remedy(
        lambda run: "one that keeps features apart (--loss vicreg)",
        lambda run: not run.named(*_UNCORRELATED) and run.config.tune != "head",
    ),
    "anew": _Remedy(_anew, lambda run: run.config.tune != "head"),
    "narrower": _Remedy(lambda run: "a narrower network", lambda run: not _pretrained(run.config)),
}


def _pretrained(config: TrainConfig) -> bool:
    from repertoire.recipe import is_pretrained

    return is_pretrained(config)
