"""The claim of *Online Class Incremental Learning on Stochastic Blurry Task Boundary via Mask and ...* (2023)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims._stages import before_forgetting, class_means, staged
from repertoire.claims.beds import feature_stages as bed

MEMORY = 50
"""Samples that both arms keep, five a class."""

RATE = {"mvp": 0.02, "replay": 0.005}
"""Of each, what did best of 0.001, 0.005 and 0.02 on the first two stages of two pilot seeds."""


@arm
def streamed(
    budget: Budget, seed: int, *, method: str, rate: float | None = None, memory: int = MEMORY, until: int | None = None
) -> dict[str, float]:
    """A head on features of photographs that come once, in five stages of the Si-Blurry stream, in batches of 16."""
    return staged(
        budget,
        seed,
        splits=bed.photographs(budget, seed),
        method=method,
        protocol=f"si-blurry:stages=5,memory={memory}",
        until=until,
        backbone="identity",
        optimizer="adamw",
        weight_decay=0.0,
        warmup=0,
        lr=rate or RATE[method.partition(":")[0]],
        schedule="constant",
        batch_size=16,
        epochs=1,
    )


def chance(budget: Budget, seed: int) -> float:
    """Chance, if both arms know what has just come better than class means of the features do."""
    arms = [streamed(budget, seed, method=method) for method in ("mvp", "replay")]
    means = class_means(bed.photographs(budget, seed), seed, "si-blurry:stages=5")
    return before_forgetting(arms, means, arms[0]["chance"])


@claim(
    "si-blurry-mvp",
    statement=(
        "Of photographs that come once, in a stream without neat stages, prompts, masks and weights for overlooked "
        "samples leave a head on frozen features that is more accurate in the mean over the stream than replay with "
        "the same memory, by two points or more."
    ),
    metric="accuracy on the classes so far, in the mean over stages",
    method="MVP",
    baseline="replay",
    data="CIFAR-10, frozen features of a pretrained network, in the Si-Blurry stream of five stages",
    bed="cifar10-lite0",
    threshold=0.02,
    strict=False,
    floor=chance,
    learned=0.2,
    guard="chance, and better than class means of the features just after a stage: these forget less, and keep 0.69",
    ceiling=1.0,
    draws=3,
)
def stream(budget: Budget, seed: int) -> Measured:
    """Moon et al., *Online Class Incremental Learning on Stochastic Blurry Task Boundary via Mask and Visual Prompt
    Tuning* (2023), on features: prompts are shifts.

    The accuracy after each stage, in the mean over stages, stands for that at any time. `extra` has the accuracy in the
    end, what is forgotten, and each part left out. Class means of the features, which keep what they have seen, are
    better than both on the way (0.80 on pilot seeds) and in the end, but not just after a stage.
    """
    ours, plain = (streamed(budget, seed, method=method) for method in ("mvp", "replay"))
    extra = {name: ours[key] for name, key in (("in the end", "accuracy"), ("forgotten", "forgetting"))}
    extra |= {"replay: in the end": plain["accuracy"], "replay: forgotten": plain["forgetting"]}
    if budget.name != "smoke":
        for name, method in (
            ("all samples alike", "mvp:alpha=0"),
            ("features as they are", "mvp:margin=none"),
            ("one prompt", "mvp:prompts=1"),
        ):
            extra[name] = streamed(budget, seed, method=method)["accuracy_of_curve"]
    return Measured(ours["accuracy_of_curve"], plain["accuracy_of_curve"], extra)
