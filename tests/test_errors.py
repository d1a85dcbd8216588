import pytest

from repertoire.errors import (
    MissingExtra,
    RepertoireError,
    UnknownName,
    Unreadable,
    UnreadableImages,
    ascii_path,
    nearest,
)


def test_nearest_forgives_case_and_separators():
    assert nearest("SUPCON", ["supcon", "focal"]) == "supcon"
    assert nearest("cross_entropy", ["cross-entropy", "focal"]) == "cross-entropy"
    assert nearest("zzz", ["supcon", "focal"]) is None


def test_unknown_name_suggests_and_lists():
    error = UnknownName("loss", "supcom", ["supcon", "focal"])
    assert "did you mean 'supcon'?" in str(error)
    assert "focal, supcon" in str(error)
    assert isinstance(error, RepertoireError)
    assert isinstance(error, KeyError)


def test_unknown_name_without_a_near_one_makes_no_suggestion():
    assert "did you mean" not in str(UnknownName("loss", "zzz", ["supcon"]))


def test_unreadable_images_are_all_named_up_to_fifty():
    error = UnreadableImages([Unreadable(f"{i}.jpg", "truncated") for i in range(60)], 100)
    assert "60 of 100" in str(error)
    assert "49.jpg: truncated" in str(error)
    assert "50.jpg" not in str(error)
    assert "10 more" in str(error)


@pytest.mark.parametrize(
    ("path", "shown"),
    [("a b.jpg", "a b.jpg"), ("a\nb", "a\\nb"), ("\x1b[31m", "\\x1b[31m"), ("été", "été"), ("\udcff", "\\udcff")],
)
def test_ascii_path_stays_on_one_line(path: str, shown: str):
    assert ascii_path(path) == shown


def test_missing_extra_says_what_to_install():
    assert "repertoire-learn[timm]" in str(MissingExtra("timm", "backbone 'timm:x'"))
