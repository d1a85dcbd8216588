"""Former name of `repertoire.weights`, kept for one version."""

import warnings

from repertoire.weights import *  # noqa: F403
from repertoire.weights import __all__ as __all__

_MESSAGE = "repertoire.merge is now repertoire.weights; the old name goes with the next version"
warnings.warn(_MESSAGE, DeprecationWarning, stacklevel=2)
