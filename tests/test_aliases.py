from __future__ import annotations

import pytest

from repertoire import _aliases, registry
from repertoire._aliases import answer_for, missing_attribute
from repertoire.errors import UnknownName


@pytest.mark.parametrize(
    ("name", "ours"),
    [("learning_rate", "lr"), ("lr0", "lr"), ("imgsz", "size"), ("image-size", "size"), ("model", "backbone"),
     ("num_epochs", "epochs"), ("optim", "optimizer"), ("BatchSize", "batch_size")],
)  # fmt: skip
def test_options_of_others_are_answered_with_ours(name: str, ours: str):
    if name == "BatchSize":  # only the spelling differs: the nearest name is found without a table
        assert answer_for("training option", name, [ours]) is None
        return
    assert answer_for("training option", name, [ours]) == f"here it is called {ours!r}"


@pytest.mark.parametrize("name", ["workers", "pretrained", "mixup", "label_smoothing"])
def test_what_does_not_exist_is_explained(name: str):
    assert len(answer_for("training option", name, ["lr"])) > 20


@pytest.mark.parametrize("kind", ["training option", "method", "augmentation"])
def test_mixing_is_answered_wherever_it_is_looked_for(kind: str):
    assert "supervised:mix=mixup" in answer_for(kind, "MixUp", ["lr", "supervised"])
    spec = registry.parse("supervised:mix=mixup")
    assert "mix" in registry.options(registry.get("methods", spec.name).factory)


def test_folds_are_an_option_of_the_command_and_a_function_in_python():
    assert answer_for("training option", "kfold", ["lr", "folds"]) == "here it is called 'folds'"
    assert "fit_folds" in answer_for("training option", "folds", ["lr", "fold"])


def test_nothing_is_answered_that_does_not_exist():
    assert answer_for("training option", "learning_rate", ["epochs"]) is None
    assert answer_for("loss", "ce", ["supcon"]) is None


@pytest.mark.parametrize(
    ("kind", "name", "ours"),
    [("losses", "ce", "cross-entropy"), ("losses", "CrossEntropyLoss", "cross-entropy"),
     ("losses", "SupConLoss", "supcon"), ("losses", "SigLipLoss", "sigmoid-pairwise"),
     ("backbones", "resnet18", "timm:resnet18"),
     ("backbones", "vit_b_16", "timm:vit_base_patch16_224"), ("explainers", "gradcam", "grad-cam")],
)  # fmt: skip
def test_components_of_others_are_answered_with_ours(kind: str, name: str, ours: str):
    with pytest.raises(UnknownName, match=ours):
        registry.get(kind, name)


def test_every_name_in_the_table_of_components_exists():
    kinds = {known.singular: kind for kind, known in registry.KINDS.items()}
    for what, table in _aliases._COMPONENTS.items():
        if what in kinds:
            known = registry.names(kinds[what])
            assert [name for name in table if name not in known] == [], what
            assert [alias for aliases in table.values() for alias in aliases if alias in known] == [], what


def test_classes_of_others_are_answered_with_ours():
    import repertoire

    known = {
        *repertoire.losses.__all__,
        *repertoire.heads.__all__,
        *repertoire.explain.__all__,
        *repertoire.data.__all__,
    }
    assert [name for name in _aliases._CLASSES if name not in known] == []
    with pytest.raises(ImportError, match="here it is called 'Focal'"):
        from repertoire.losses import FocalLoss  # noqa: F401
    assert not hasattr(repertoire.losses, "Nonsense")
    assert str(missing_attribute("m", "nonsense", ["Focal"])) == "module 'm' has no attribute 'nonsense'"


@pytest.mark.parametrize("name", ["efficientnet_lite0", "tf_efficientnet_lite2", "tf_efficientnet_lite1.in1k"])
def test_built_in_networks_are_not_sent_to_timm(name: str):
    found = answer_for("backbone", name, ["lite0", "lite1", "lite2", "timm"])
    assert found == f"here it is called 'lite{name[name.index('lite') + 4]}', with its weights"


def test_every_room_answers_names_of_others():
    import repertoire.data
    import repertoire.explain

    with pytest.raises(ImportError, match="GradCAM"):
        _ = repertoire.explain.GradCam
    with pytest.raises(ImportError, match="ImageSet"):
        _ = repertoire.data.ImageFolder
    assert not hasattr(repertoire.data, "nonsense")
