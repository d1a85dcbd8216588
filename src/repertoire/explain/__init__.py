"""Where a network looked: heat maps of a decision, pictures of them, and how well they find the object."""

from repertoire.explain._explainer import Explainer
from repertoire.explain._gradcam import GradCAM
from repertoire.explain._overlay import overlay, save_overlay
from repertoire.explain._scores import energy_inside, pointing_game

__all__ = ["Explainer", "GradCAM", "energy_inside", "overlay", "pointing_game", "save_overlay"]
