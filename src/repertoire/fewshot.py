"""Former name of `repertoire.estimators`, kept for one version."""

import warnings

from repertoire.estimators import *  # noqa: F403
from repertoire.estimators import __all__ as __all__

_MESSAGE = "repertoire.fewshot is now repertoire.estimators; the old name goes with the next version"
warnings.warn(_MESSAGE, DeprecationWarning, stacklevel=2)
