"""What a step of training will need, with each of the ways to train, before any of it is computed."""

from __future__ import annotations

from repertoire._aliases import answer_calls
from repertoire.plan._dry import Footprint as Footprint
from repertoire.plan._dry import augmentation_bytes as augmentation_bytes
from repertoire.plan._dry import dry_evaluation as dry_evaluation
from repertoire.plan._dry import dry_step as dry_step
from repertoire.plan._ledger import Ledger as Ledger
from repertoire.plan._ledger import Work as Work
from repertoire.plan._plan import Plan as Plan
from repertoire.plan._plan import PlanRow as PlanRow
from repertoire.plan._plan import make_plan as make_plan
from repertoire.plan._plan import plan as plan
from repertoire.plan._plan import seconds as seconds
from repertoire.plan._plan import settle as settle
from repertoire.plan._storage import Storage as Storage
from repertoire.plan._storage import StorageRow as StorageRow

answer_calls(__name__, "repertoire.plan.plan(data) says what a step will need")
