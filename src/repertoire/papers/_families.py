"""The families of papers, each described for a person who does not know its name."""

from __future__ import annotations

from dataclasses import dataclass

from repertoire.errors import UnknownName

__all__ = ["Family", "families", "family"]


@dataclass(frozen=True)
class Family:
    """A group of papers that answer the same need.

    Attributes:
        slug: name of the family and of its file of cards.
        title: the field's name for it.
        description: the need that it answers, in plain language.
    """

    slug: str
    title: str
    description: str


_FAMILIES = (
    Family(
        "local-learning",
        "Local learning",
        "Training a deep network part by part, each part with a loss of its own, so that no backward pass runs "
        "through the whole network: less GPU memory, deeper networks on small devices, layers that learn "
        "independently.",
    ),
    Family(
        "explanation",
        "Explanation",
        "Seeing why a network decided as it did: heat maps of where it looks in an image, examples and prototypes it "
        "relies on, circuits inside it, and tests of whether an explanation can be trusted.",
    ),
    Family(
        "loss-classification",
        "Losses for classification",
        "Alternatives to cross-entropy when training a classifier: better accuracy or calibrated probabilities, "
        "several labels per image, shorter features that can be cut to size, the choice to abstain.",
    ),
    Family(
        "loss-metric",
        "Metric and supervised contrastive losses",
        "Training an embedding with labels so that images of one class lie close together and others far apart: for "
        "searching similar images, verification, re-identification, and better features for a classifier.",
    ),
    Family(
        "ssl",
        "Self-supervised learning",
        "Learning useful features from images without any labels, by comparing augmented views, predicting hidden "
        "parts or matching pictures to text; pre-training before a task for which few labels exist.",
    ),
    Family(
        "semi-supervised",
        "Semi-supervised learning",
        "Training with few labelled and many unlabelled examples: pseudo-labels, consistency between augmentations, "
        "and unlabelled data that may be off-topic or unbalanced.",
    ),
    Family(
        "weak-supervision",
        "Weak and noisy supervision",
        "Training when labels are wrong, incomplete or indirect: noisy labels, disagreeing annotators, labelling "
        "rules, labels only for a whole bag or slide, only positive examples.",
    ),
    Family(
        "long-tail",
        "Long-tailed and imbalanced classes",
        "Training when some classes have many examples and others very few: rare classes, imbalanced data, "
        "minority classes that the classifier ignores.",
    ),
    Family(
        "few-shot",
        "Few-shot learning",
        "Recognising new classes from one or a handful of examples each, by meta-learning across many small tasks or "
        "by a good frozen embedding with a simple classifier on top.",
    ),
    Family(
        "novel-class",
        "Novel classes, open sets and anomalies",
        "Dealing with classes never seen in training: finding and grouping unknown categories, rejecting unfamiliar "
        "inputs, anomaly and out-of-distribution detection, recognition from a description alone (zero-shot).",
    ),
    Family(
        "continual",
        "Continual learning",
        "Learning new tasks or classes one after another without forgetting the old ones, with or without keeping old "
        "data.",
    ),
    Family(
        "active-learning",
        "Active learning",
        "Choosing which images or examples to label next, or which data to keep, so that a small labelling budget is "
        "spent well.",
    ),
    Family(
        "federated",
        "Federated learning",
        "Training one model across many devices or sites that keep their data private and whose data differ.",
    ),
    Family(
        "unlearning",
        "Unlearning",
        "Making a trained model forget: deleting the influence of some training data, a person, a class or a concept, "
        "without training again from the start, and checking that it is gone.",
    ),
    Family(
        "merging",
        "Merging and combining models",
        "Combining trained models into one by averaging or adding their weights, without training again; stitching "
        "parts of networks, comparing models and making their features compatible.",
    ),
    Family(
        "compression",
        "Compression and distillation",
        "Making a model or a data set smaller and faster: pruning, quantisation, low rank, a small student that learns "
        "from a large teacher, a few synthetic images in place of many.",
    ),
    Family(
        "adaptation",
        "Adaptation and transfer",
        "Using a pre-trained model on another task or kind of data: fine-tuning with few parameters and little memory, "
        "adapting to a new domain without labels or at test time, staying robust to shift and shortcuts.",
    ),
    Family(
        "retrieval",
        "Retrieval",
        "Searching a large collection by meaning: embeddings of text and images, hashing to short codes, hard "
        "negatives, ranking, fast nearest neighbours.",
    ),
    Family(
        "regularisation",
        "Regularisation",
        "Making a network generalise better than its training data alone would: mixing samples, flat minima, extra "
        "tasks, less overfitting.",
    ),
    Family(
        "architecture",
        "Architectures",
        "How a network is built: residual connections, mixtures of experts, normalisation and activation layers, depth "
        "against width, new kinds of layer.",
    ),
    Family(
        "diagnostics",
        "Diagnostics",
        "Measuring a trained network or a data set: loss landscapes, the quality of features, class separability, "
        "unfair subgroups, browsing images, when not to trust a prediction.",
    ),
    Family(
        "theory",
        "Theory",
        "Why learning works, proved or measured: generalisation bounds, over-parametrised networks, what contrastive "
        "learning recovers, sample complexity, convergence.",
    ),
    Family(
        "generative",
        "Generative models",
        "Making images: diffusion, adversarial networks, in-painting, translation from one style to another, synthetic "
        "training data.",
    ),
    Family(
        "dense",
        "Dense prediction and vision tasks",
        "Predictions for every pixel, box, frame or point: segmentation, detection, depth, pose, video, "
        "three-dimensional scenes, image restoration.",
    ),
    Family(
        "graph",
        "Graphs",
        "Learning on nodes and edges: graph neural networks, clustering of graphs, molecules, circuits, documents.",
    ),
    Family(
        "tabular-ts",
        "Tables and time series",
        "Learning from columns of numbers and categories, sensors and sequences in time: boosting, feature selection, "
        "forecasting, activity recognition.",
    ),
    Family(
        "llm",
        "Language models",
        "Large language models and text: prompting, in-context examples, fine-tuning, code, multimodal models.",
    ),
    Family(
        "preference",
        "Learning from preferences",
        "Aligning language models with what people prefer: human feedback, preference optimisation, reward models.",
    ),
    Family(
        "rl",
        "Reinforcement learning",
        "Agents that learn by acting: rewards, control from pixels, exploration, imitation, bandits.",
    ),
    Family(
        "speech",
        "Speech and audio",
        "Recordings rather than images: recognising speakers and words, voices, captions of sound.",
    ),
    Family(
        "medical",
        "Medical imaging",
        "Scans and slides: reconstruction of MRI, segmentation of tumours, learning from reports.",
    ),
    Family(
        "other",
        "Other",
        "Papers that fit nowhere else: remote sensing data sets, reviews, automatic machine learning, applications.",
    ),
)


def families() -> list[Family]:
    """All families, the ones closest to the heart of Repertoire first.

    >>> [family.slug for family in families()][:2]
    ['local-learning', 'explanation']
    """
    return list(_FAMILIES)


def family(slug: str) -> Family:
    """The family of that name.

    >>> family("few-shot").title
    'Few-shot learning'

    Raises:
        UnknownName: there is none; the message suggests the nearest.
    """
    for candidate in _FAMILIES:
        if candidate.slug == slug:
            return candidate
    raise UnknownName("family", slug, [candidate.slug for candidate in _FAMILIES])
