from .card import (
    Architecture,
    Card,
    ClassName,
    Crop,
    Fraction,
    Normalisation,
    Number,
    Positive,
    Text,
    Voxels,
    dump_card,
    load_card,
)
from .compare import Comparison, compare_models
from .draft import Draft, draft_card
from .export import export_model, import_model
from .mlflow_notes import build_note
from .networks import new_network
from .paces import Paces
from .references import MODEL_URI, alias_fault, check_alias
from .runs import BUILDS, TRAININGS, TUNINGS, DataUsed, MetricPoint, Runs, RunStatus
from .soup import (
    Averaging,
    SoupMember,
    average_members,
    averaged_card,
    check_members,
    member_in_file,
    member_shares,
    registered_member,
)
from .store import ModelVersion, Registry
from .verify import Verification, verify_model
from .weights import load_network, save_weights

__all__ = [
    "BUILDS",
    "MODEL_URI",
    "TRAININGS",
    "TUNINGS",
    "Architecture",
    "Averaging",
    "Card",
    "ClassName",
    "Comparison",
    "Crop",
    "DataUsed",
    "Draft",
    "Fraction",
    "MetricPoint",
    "ModelVersion",
    "Normalisation",
    "Number",
    "Paces",
    "Positive",
    "Registry",
    "RunStatus",
    "Runs",
    "SoupMember",
    "Text",
    "Verification",
    "Voxels",
    "alias_fault",
    "average_members",
    "averaged_card",
    "build_note",
    "check_alias",
    "check_members",
    "compare_models",
    "draft_card",
    "dump_card",
    "export_model",
    "import_model",
    "load_card",
    "load_network",
    "member_in_file",
    "member_shares",
    "new_network",
    "registered_member",
    "save_weights",
    "verify_model",
]
