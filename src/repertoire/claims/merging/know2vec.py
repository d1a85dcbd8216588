"""The claim of *Know2Vec: A Black-Box Proxy for Neural Network Retrieval* (2024)."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.heads import (
    TITLE,
    drawn_characters,
    gathered,
    mean,
    outputs_of,
    subsets,
    trained_heads,
)
from repertoire.zoo import Index, leep, log_me

WIDTH = 64


def queries(models: Tensor, count: int, asked: int, seed: int) -> Tensor:
    """Subsets `[count, asked]` of what some model knows: a zoo is searched for what it may hold."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        known = models[int(torch.randint(len(models), (1,), generator=generator))]
        found.append(known[torch.randperm(len(known), generator=generator)[:asked]])
    return torch.stack(found)


def usefulness(heads: Tensor, x: Tensor, y: Tensor, test_x: Tensor, test_y: Tensor) -> Tensor:
    """Accuracy `[M]` of each network as it is, on classes of a user: whatever it says stands for the class that was
    labelled when it said so."""
    said = outputs_of(heads, x).softmax(2)
    classes = torch.nn.functional.one_hot(y).to(said)
    joint = classes.T @ said
    guess = outputs_of(heads, test_x).softmax(2) @ (joint / joint.sum(1, keepdim=True).clamp_min(1e-12)).transpose(1, 2)
    return (guess.argmax(2) == test_y).double().mean(1)


@claim(
    "know2vec",
    statement=(
        "Of sixty networks that cannot be looked into, the one whose vector is nearest to that of a data set serves it "
        "better than the one that LEEP finds by asking all of them."
    ),
    metric="accuracy of the chosen network, mean of 60 data sets of four characters",
    method="the nearest vector, no network asked",
    baseline="LEEP, all networks asked",
    bed="omniglot-all",
    data=TITLE,
    threshold=0.0,
    effect=0.01,
    learned=0.05,
    ceiling=1.0,
)
def nearest_vector(budget: Budget, seed: int) -> Measured:
    """Shang et al., *Know2Vec: A Black-Box Proxy for Neural Network Retrieval* (2024). What the vectors learn from are
    networks and data sets of other characters, and the probes are of none of either. The trivial answer is a network at
    random; `extra` has the best choice there is, LogME, and the index before it has learned."""
    data = drawn_characters(budget, seed, WIDTH)
    steps = budget.pick(smoke=10, small=150, full=300)
    size, wanted = budget.pick(smoke=(2, 2), small=(8, 4), full=(8, 4))
    probes = data.others.flatten(0, 1)[:: budget.pick(smoke=1, small=3, full=1)]

    def world(
        characters: Tensor, models: int, asked: int, number: int
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]], Tensor]:
        """Networks that know some of the characters, labelled drawings of others, and how well each serves these."""
        zoo = subsets(models, size, len(characters), number)
        heads = trained_heads(*gathered(characters, zoo, "trained"), number, steps)
        tasks = queries(zoo, asked, wanted, number)
        x, y = gathered(characters, tasks, "labelled")
        test_x, test_y = gathered(characters, tasks, "tested")
        scores = [usefulness(heads, x[i], y, test_x[i], test_y) for i in range(asked)]
        return heads, [(rows, y) for rows in x], torch.stack(scores)

    def index_of(heads: Tensor) -> Index:
        index = Index(probes)
        for number, said in enumerate(outputs_of(heads, probes).softmax(2)):
            index.add(str(number), said)
        return index

    counts = budget.pick(smoke=(8, 8), small=(150, 400), full=(600, 5000))
    heads, tasks, scores = world(data.known, *counts, 1000 * seed)
    taught = index_of(heads)
    taught.align(tasks, scores, steps=budget.pick(smoke=3, small=150, full=1000), seed=seed)

    asked = budget.pick(smoke=4, small=60, full=200)
    heads, tasks, scores = world(data.unseen, budget.pick(smoke=6, small=60, full=200), asked, 1000 * seed + 1)
    index = index_of(heads)

    def chosen(found: list[int]) -> float:
        return mean([float(scores[i, model]) for i, model in enumerate(found)])

    plain = chosen([int(index.search(*task, 1)[0].name) for task in tasks])
    index.alignment = taught.alignment
    said = [outputs_of(heads, x).softmax(2) for x, _ in tasks]
    evidence = [[leep(said[i][m], tasks[i][1]) for m in range(len(heads))] for i in range(asked)]
    answers = [[log_me(said[i][m], tasks[i][1]) for m in range(len(heads))] for i in range(asked)]
    return Measured(
        chosen([int(index.search(*task, 1)[0].name) for task in tasks]),
        chosen(torch.tensor(evidence).argmax(1).tolist()),
        extra={
            "the best": float(scores.amax(1).mean()),
            "LogME": chosen(torch.tensor(answers).argmax(1).tolist()),
            "before it has learned": plain,
        },
        trivial=float(scores.mean()),
    )
