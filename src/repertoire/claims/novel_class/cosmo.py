"""The claim of *Adaptive Confidence Smoothing for Generalized Zero-Shot Learning* (2018)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.described import LETTERS, REDRAWN, chosen, curve, letters, ridges
from repertoire.claims.novel_class.calibrated_stacking import by_neighbours
from repertoire.zeroshot import COSMO, ESZSL, choose_gamma


@claim(
    "cosmo",
    statement=(
        "A gate between an expert for seen and one for unseen classes, with confidence smoothing, gives a better "
        "harmonic mean than calibrated stacking of the unseen expert."
    ),
    metric="harmonic mean of seen and unseen accuracy",
    method="gate and smoothing",
    baseline="calibrated stacking",
    data=LETTERS,
    overlap=REDRAWN,
    tier="real, small",
    threshold=0.01,
    ceiling=1.0,
    learned=0.02,
    floor=by_neighbours,
    guard="the class whose description is nearest to those of the five nearest rows, with the best constant",
)
def cosmo(budget: Budget, seed: int) -> Measured:
    """Atzmon and Chechik, *Adaptive Confidence Smoothing for Generalized Zero-Shot Learning* (2018). `extra` takes the
    smoothing away, and then the softness of the gate. Both arms learn what separates the two worlds on seen classes
    held out, and have the same unseen expert."""
    world = letters(budget, seed)
    told = world.descriptions
    ridge = chosen([ESZSL(ridge=ridge) for ridge in ridges(budget)], world, told).get_params()["ridge"]
    expert = ESZSL(ridge=ridge)
    gamma = choose_gamma(expert, world.x, world.y, told)
    stacked = curve(expert.fit(world.x, world.y, told), world)
    spec = f"eszsl:ridge={ridge:g}"
    arms = {
        "whole": COSMO(spec),
        "gate alone": COSMO(spec, smooth=False),
        "hard gate": COSMO(spec, smooth=False, gate="hard"),
    }
    curves = {name: curve(model.fit(world.x, world.y, told), world) for name, model in arms.items()}
    return Measured(
        curves["whole"].at(0.0)[2],
        stacked.at(gamma)[2],
        {
            "gate alone": curves["gate alone"].at(0.0)[2],
            "hard gate": curves["hard gate"].at(0.0)[2],
            "highest score of the unseen expert": stacked.at(0.0)[2],
            "AUSUC: gate and smoothing": curves["whole"].area,
            "AUSUC: unseen expert": stacked.area,
        },
    )
