"""The claim of *Know2Vec: A Black-Box Proxy for Neural Network Retrieval* (2024)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.heads import drawn_characters, mean, outputs_of, subsets, trained_heads
from repertoire.zoo import Index, leep, log_me

WIDTH = 64
TITLE = (
    "Omniglot, characters of eight alphabets and drawings that nothing learned from, features of a pretrained network"
)
DRAWINGS = {"trained": slice(0, 6), "labelled": slice(12, 17), "tested": slice(17, 20)}
"""Which of the twenty drawings of a character networks learn, and a search is for."""

KNOWN = 12
"""The first so many are in the data sets that the index learns from, some in each."""


def gathered(characters: Tensor, chosen: Tensor, part: str) -> tuple[Tensor, Tensor]:
    """Rows `[M, size * drawings, d]` of subsets of the characters, and their labels, which are the same for all."""
    rows = characters[chosen][:, :, DRAWINGS[part]]
    return rows.flatten(1, 2), torch.arange(chosen.shape[1], device=rows.device).repeat_interleave(rows.shape[2])


def known_drawings(characters: Tensor, chosen: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Three drawings of each character, drawn anew for each data set, and three others: `[M, size * 3, d]` each."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(*chosen.shape, KNOWN, generator=generator).argsort(2)[:, :, :6].to(chosen.device)
    rows = characters[chosen[:, :, None], order]
    return rows[:, :, :3].flatten(1, 2), rows[:, :, 3:].flatten(1, 2)


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
        "Of sixty networks that cannot be looked into, the one whose vector is nearest to that of a data set, in a "
        "space learned from two thousand other data sets of the same characters, serves it better than the one that "
        "LEEP finds by asking all of them."
    ),
    metric="accuracy of the chosen network, mean of 100 data sets of four characters",
    method="the nearest vector, no network asked",
    baseline="LEEP, all networks asked",
    bed="omniglot-all",
    data=TITLE,
    threshold=0.01,
    effect=0.01,
    learned=0.05,
    guard="a network of the sixty at random",
    ceiling=1.0,
)
def nearest_vector(budget: Budget, seed: int) -> Measured:
    """Shang et al., *Know2Vec: A Black-Box Proxy for Neural Network Retrieval* (2024). As in the released code, the
    vectors are learned with the networks that are searched, from data sets for which it is known how well each of them
    does, and the search is for other images of the same classes; subsets of four characters seldom come twice. Probes
    are of characters that no network knows. The trivial answer is a network at random; `extra` has the best choice
    there is, LogME, the index before it has learned, and the same three for other networks that know other characters,
    of which the vectors have learned nothing."""
    data = drawn_characters(budget, seed, WIDTH)
    steps = budget.pick(smoke=10, small=150, full=300)
    size, wanted = budget.pick(smoke=(2, 2), small=(8, 4), full=(8, 4))
    probes = data.others.flatten(0, 1)[:: budget.pick(smoke=1, small=3, full=1)]
    models, known, asked = budget.pick(smoke=(6, 8, 4), small=(60, 2000, 100), full=(200, 5000, 500))

    def trained(characters: Tensor, number: int) -> tuple[Tensor, Tensor, Index]:
        """Networks that know some of the characters each, and an index of them."""
        zoo = subsets(models, size, len(characters), number)
        heads = trained_heads(*gathered(characters, zoo, "trained"), number, steps)
        index = Index(probes)
        for place, said in enumerate(outputs_of(heads, probes).softmax(2)):
            index.add(str(place), said)
        return zoo, heads, index

    def served(heads: Tensor, x: Tensor, test_x: Tensor) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        """Labelled drawings of data sets, and how well each network serves these `[count, models]`."""
        y, test_y = (torch.arange(wanted, device=x.device).repeat_interleave(len(e[0]) // wanted) for e in (x, test_x))
        scores = [usefulness(heads, one, y, test, test_y) for one, test in zip(x, test_x, strict=True)]
        return [(rows, y) for rows in x], torch.stack(scores)

    def searched(
        characters: Tensor, zoo: Tensor, heads: Tensor, number: int
    ) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        tasks = queries(zoo, asked, wanted, number)
        return served(heads, *(gathered(characters, tasks, part)[0] for part in ("labelled", "tested")))

    def found(index: Index, tasks: list[tuple[Tensor, Tensor]], scores: Tensor) -> float:
        return mean([float(scores[i, int(index.search(*task, 1)[0].name)]) for i, task in enumerate(tasks)])

    zoo, heads, index = trained(data.known, 1000 * seed)
    tasks, scores = searched(data.known, zoo, heads, 1000 * seed + 1)
    plain = found(index, tasks, scores)
    sets = known_drawings(data.known, queries(zoo, known, wanted, 1000 * seed + 2), 1000 * seed + 2)
    index.align(*served(heads, *sets), steps=budget.pick(smoke=3, small=200, full=1000), seed=seed)
    ours = found(index, tasks, scores)

    answers = [outputs_of(heads, x).softmax(2) for x, _ in tasks]

    def asking(score: Callable[[Tensor, Tensor], float]) -> float:
        chosen = [max(range(models), key=[score(each, y) for each in a].__getitem__) for a, (_, y) in pairs]
        return mean([float(scores[i, model]) for i, model in enumerate(chosen)])

    pairs = list(zip(answers, tasks, strict=True))
    extra = {"the best": float(scores.amax(1).mean()), "LogME": asking(log_me), "before it has learned": plain}
    zoo, others, unknown = trained(data.unseen, 1000 * seed + 3)
    new = searched(data.unseen, zoo, others, 1000 * seed + 4)
    extra["other characters, before it has learned"] = found(unknown, *new)
    unknown.alignment = index.alignment
    extra["other characters"] = found(unknown, *new)
    extra["other characters, at random"] = float(new[1].mean())
    return Measured(ours, asking(leep), extra, trivial=float(scores.mean()))
