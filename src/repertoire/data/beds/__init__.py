"""Small real data sets by name: photographs, letters, drawings, sounds, tables, texts, a graph.

Nothing of them comes with Repertoire. Each is read from an installed package, or from a folder that the environment
variable REPERTOIRE_DATA names; a source that is not here says in one line what to install.
"""

from repertoire.data.beds._images import cifar10, emoji, fashion_mnist, glyphs, mnist5k, omniglot, spoken_digits
from repertoire.data.beds._vectors import cifar10_lite0, cora, intents, reviews, tables, yeast

dna = tables["dna"]
landsat = tables["landsat"]
letters = tables["letters"]
segment = tables["segment"]
shuttle = tables["shuttle"]
vowel = tables["vowel"]

__all__ = [
    "cifar10",
    "cifar10_lite0",
    "cora",
    "dna",
    "emoji",
    "fashion_mnist",
    "glyphs",
    "intents",
    "landsat",
    "letters",
    "mnist5k",
    "omniglot",
    "reviews",
    "segment",
    "shuttle",
    "spoken_digits",
    "vowel",
    "yeast",
]
