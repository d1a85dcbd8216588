"""What claims are measured on: named beds of real data, and scenes that several claims share.

from repertoire.claims import beds
splits = beds.get("fashion-mnist").splits(budget, seed)
features = beds.features("cifar10", budget, seed)
"""

from repertoire.claims.beds._named import LETTERS_REDRAWN, NAMED, Bed, features, get, majority, neighbour_accuracy

__all__ = ["LETTERS_REDRAWN", "NAMED", "Bed", "features", "get", "majority", "neighbour_accuracy"]
