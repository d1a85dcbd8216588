"""What targets are, how answers are scored, and which run is better."""

from repertoire.tasks._base import Best as Best
from repertoire.tasks._base import Outputs as Outputs
from repertoire.tasks._base import Task as Task
from repertoire.tasks._classes import Classes as Classes
from repertoire.tasks._classes import calibration as calibration
from repertoire.tasks._classes import exit_table as exit_table
from repertoire.tasks._classes import score as score
from repertoire.tasks._classes import wilson as wilson
from repertoire.tasks._labels import Labels as Labels
from repertoire.tasks._maps import Maps as Maps
from repertoire.tasks._maps import MapTally as MapTally
from repertoire.tasks._maps import tally_maps as tally_maps
from repertoire.tasks._none import NoTargets as NoTargets
from repertoire.tasks._none import rank_me as rank_me
from repertoire.tasks._none import spread_out as spread_out
from repertoire.tasks._number import Number as Number
from repertoire.tasks._of import task_from as task_from
from repertoire.tasks._of import task_of as task_of
from repertoire.tasks._votes import Votes as Votes
from repertoire.tasks._votes import majority as majority
