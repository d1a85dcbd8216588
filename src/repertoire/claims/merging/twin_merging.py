"""The claim of *Twin-Merging: Dynamic Integration of Modular Expertise in Model Merging* (2024)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.experts import TASKS, TITLE, Experts, experts, mean, raw_of
from repertoire.weights import State, Stored, TwinRouter, linear, task_arithmetic, ties, twin

SCALES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
RANK = 16


@claim(
    "twin-merging",
    statement=(
        "On a stream of four tasks, Twin-Merging keeps more of the accuracy of four fine-tuned networks, by 5 "
        "percentage points of theirs, than task arithmetic does."
    ),
    metric="mean test accuracy as a share of that of the expert for the task",
    method="shared network, experts of rank 16 and a router",
    baseline="task arithmetic",
    bed="mnist5k",
    data=TITLE,
    threshold=0.05,
    learned=0.005,
    learned_by="best",
    guard="raw pixels or the network before fine-tuning, whichever is better; the rival may lose what merging costs",
)
def twin_merging(budget: Budget, seed: int) -> Measured:
    """Lu et al., *Twin-Merging: Dynamic Integration of Modular Expertise in Model Merging* (2024). The scales of task
    arithmetic, TIES and of the shared network are each chosen among seven on validation images. What is given to the
    merged network is an image and whose head is asked, and not which expert to take: that is the router's to tell. The
    trivial answer is what raw pixels give, or the network before any fine-tuning under the same heads, whichever is
    better: 0.91 and 0.77 of the experts on a pilot seed, where the arms have 0.97 and 0.77. Until experts were
    fine-tuned for longer, they were below the pixels themselves. `extra` has TIES, the plain average, the share of all
    images for which the router takes the right expert, and the bytes of the result beside those of the experts."""
    four = experts(budget, seed)
    base, states = four.named
    scales = budget.pick(smoke=(0.3,), small=SCALES, full=SCALES)
    ceiling = [four.scored(state)[of] for of, state in enumerate(states)]

    def kept(accuracies: list[float]) -> float:
        return mean([found / best for found, best in zip(accuracies, ceiling, strict=True)])

    scale, added = four.best(lambda scale: task_arithmetic(states, base, scale=scale), scales)
    _, elected = four.best(lambda scale: ties(states, base, scale=3 * scale), scales)
    stored = twin(states, base, four.network, four.batches, rank=RANK, scale=scale)
    ours, right = routed(four, stored)
    size = sum(value.numel() * value.element_size() for value in base.values())
    return Measured(
        kept(ours),
        kept(four.scored(added)),
        {
            "TIES": kept(four.scored(elected)),
            "plain average": kept(four.scored(linear(states))),
            "right expert": right,
            "bytes of the result for each of one network": stored.bytes / size,
            "accuracy of the experts": mean(ceiling),
        },
        trivial=max(kept(four.scored(base)), kept([raw_of(budget, task) for task in TASKS])),
    )


def routed(four: Experts, stored: Stored) -> tuple[list[float], float]:
    """Accuracy at each task, and how often the router's first choice is the task's own expert."""
    found, right = [], []
    for of, rows in enumerate(four.rows):
        head: State = {f"1.{name}": value for name, value in four.heads[of].state_dict().items()}
        whole = Stored(stored.form, {**stored.tensors, **head}, stored.settings)
        network = whole.build(four.network(four.named[0], of))
        found.append(float((network(rows.test_x).argmax(1) == rows.test_y).float().mean()))
        router = network.get_submodule("twin_router")
        assert isinstance(router, TwinRouter)
        assert router.shares is not None
        right.append(float((router.shares.argmax(1) == of).float().mean()))
    return found, mean(right)
