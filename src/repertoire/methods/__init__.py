"""Methods: each owns its modules and turns a batch into a loss."""

from repertoire.methods._adamixup import AdaMixUp
from repertoire.methods._apply import apply_loss, on_features, own_state, right_answers
from repertoire.methods._base import REPLAY, Method, Needs, Stage, Step, Stream, brought_head
from repertoire.methods._batchformer import BatchFormer
from repertoire.methods._by_products import ByProducts, spots_of
from repertoire.methods._byol import BYOL
from repertoire.methods._classifier import Classifier, Normalize
from repertoire.methods._consolidation import Consolidation
from repertoire.methods._cpc import CPC
from repertoire.methods._datum_index import DatumIndex
from repertoire.methods._densecl import DenseCL
from repertoire.methods._dino import DINO
from repertoire.methods._distil import Distil, class_means
from repertoire.methods._dropout_views import DropoutViews
from repertoire.methods._embedding import Embedding
from repertoire.methods._er_ace import ERACE
from repertoire.methods._ewc import EWC
from repertoire.methods._experts import Experts
from repertoire.methods._feature_kd import FeatureKD
from repertoire.methods._fixmatch import FixMatch
from repertoire.methods._guided import Guided
from repertoire.methods._icarl import ICaRL
from repertoire.methods._instance_discrimination import InstanceDiscrimination
from repertoire.methods._l2_previous import L2Previous
from repertoire.methods._label_augmentation import LabelAugmentation
from repertoire.methods._lwf import LwF
from repertoire.methods._mae_cil import MAECIL
from repertoire.methods._masked_autoencoder import MaskedAutoencoder, Rebuilding, patches_of, pixels_of
from repertoire.methods._mean_shifted import MeanShifted
from repertoire.methods._mean_teacher import MeanTeacher
from repertoire.methods._meta_auxiliary import MetaAuxiliary
from repertoire.methods._mix import cutmix, mixup
from repertoire.methods._moco import MoCo
from repertoire.methods._moco_hard import HardMoCo
from repertoire.methods._mvp import MVP
from repertoire.methods._prd import PRD
from repertoire.methods._prepare import prepare_head
from repertoire.methods._pseudo import (
    Alignment,
    ClassQueue,
    ClassThresholds,
    PrototypeBlend,
    Pseudo,
    PseudoLabels,
    SelfThresholds,
    ShrunkSpace,
    Threshold,
)
from repertoire.methods._readout import read_scores
from repertoire.methods._regularised import Regularised
from repertoire.methods._relational import Relational
from repertoire.methods._relu_embedding import ReLUEmbedding
from repertoire.methods._replay import Replay
from repertoire.methods._representation_guide import RepresentationGuide
from repertoire.methods._robust_self_training import RobustSelfTraining
from repertoire.methods._robust_semi import RobustSemi
from repertoire.methods._sample_losses import SampleLosses, rejoined
from repertoire.methods._self_labels import SelfLabelBYOL
from repertoire.methods._semicon import SemiConReplay
from repertoire.methods._simclr import SimCLR
from repertoire.methods._simsiam import SimSiam
from repertoire.methods._subjective import Subjective
from repertoire.methods._supervised import Supervised
from repertoire.methods._support_trivial import SupportTrivialPrototypes
from repertoire.methods._sycon import ContinualContrast
from repertoire.methods._teacher import Teacher
from repertoire.methods._teacher_labels import TeacherLabels
from repertoire.methods._tribyol import TriBYOL
from repertoire.methods._unicon_ha import UniConHA
from repertoire.methods._unlabelled_loss import UnlabelledLoss
from repertoire.methods._unmixmatch import UnMixMatch
from repertoire.methods._vat import VAT
from repertoire.methods._y_distil import YDistil

__all__ = [
    "BYOL",
    "CPC",
    "DINO",
    "ERACE",
    "EWC",
    "MAECIL",
    "MVP",
    "PRD",
    "REPLAY",
    "VAT",
    "AdaMixUp",
    "Alignment",
    "BatchFormer",
    "ByProducts",
    "ClassQueue",
    "ClassThresholds",
    "Classifier",
    "Consolidation",
    "ContinualContrast",
    "DatumIndex",
    "DenseCL",
    "Distil",
    "DropoutViews",
    "Embedding",
    "Experts",
    "FeatureKD",
    "FixMatch",
    "Guided",
    "HardMoCo",
    "ICaRL",
    "InstanceDiscrimination",
    "L2Previous",
    "LabelAugmentation",
    "LwF",
    "MaskedAutoencoder",
    "MeanShifted",
    "MeanTeacher",
    "MetaAuxiliary",
    "Method",
    "MoCo",
    "Needs",
    "Normalize",
    "PrototypeBlend",
    "Pseudo",
    "PseudoLabels",
    "ReLUEmbedding",
    "Rebuilding",
    "Regularised",
    "Relational",
    "Replay",
    "RepresentationGuide",
    "RobustSelfTraining",
    "RobustSemi",
    "SampleLosses",
    "SelfLabelBYOL",
    "SelfThresholds",
    "SemiConReplay",
    "ShrunkSpace",
    "SimCLR",
    "SimSiam",
    "Stage",
    "Step",
    "Stream",
    "Subjective",
    "Supervised",
    "SupportTrivialPrototypes",
    "Teacher",
    "TeacherLabels",
    "Threshold",
    "TriBYOL",
    "UnMixMatch",
    "UniConHA",
    "UnlabelledLoss",
    "YDistil",
    "apply_loss",
    "brought_head",
    "class_means",
    "cutmix",
    "mixup",
    "on_features",
    "own_state",
    "patches_of",
    "pixels_of",
    "prepare_head",
    "read_scores",
    "rejoined",
    "right_answers",
    "spots_of",
]
