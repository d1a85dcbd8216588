"""Every command as a user would type it, on a folder of image files with awkward names."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from commands import run_cli
from repertoire import cli, train

AWKWARD = ["plain", "with space", "quo'te\"s", "new\nline", "ünï", "<script>alert(1)</script>", "semi;colon", "-dash"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of RGB images of mixed sizes and formats, a class name among them that is a script."""
    root = tmp_path_factory.mktemp("photos") / "my photos"
    generator = np.random.default_rng(0)
    for k, name in enumerate(["a class", "<script>alert(1)</script>".replace("/", "∕"), "ünï"]):
        (root / name).mkdir(parents=True)
        for i in range(24):
            height, width = generator.integers(14, 40, 2)
            pixels = generator.integers(0, 90, (height, width, 3), dtype=np.uint8)
            pixels[..., k] += 120
            stem = AWKWARD[i % len(AWKWARD)].replace("/", "∕")
            Image.fromarray(pixels).save(root / name / f"{stem}{i}.{'png' if i % 2 else 'jpg'}")
    return root


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> train.Run:
    out = tmp_path_factory.mktemp("runs") / "a"
    return train.fit(
        photos, out=out, size=16, backbone="convnet:width=8,depth=2", epochs=4, batch_size=16, lr=0.05, device="cpu"
    )


def test_train_prints_the_result_and_what_to_try_next(photos: Path, tmp_path: Path, capsys):
    status, out, err = run_cli(
        capsys, "train", photos, "--size", 16, "--backbone", "convnet:width=8,depth=2", "--epochs", 1,
        "--out", tmp_path / "a",
    )  # fmt: skip
    assert status == 0, err
    assert "test accuracy" in out
    assert f"report: {tmp_path / 'a' / 'report.html'}" in out
    assert out.strip().splitlines()[-1].startswith("try next: repertoire predict")
    assert "epoch   1/1" in err
    assert (tmp_path / "a" / "report.html").exists()


@pytest.mark.parametrize("fast", [True, False])
def test_bfloat16_that_the_processor_emulates_is_said(photos: Path, tmp_path: Path, capsys, monkeypatch, fast: bool):
    monkeypatch.setattr("repertoire.backbones.fast_bfloat16", lambda device: fast)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    status, _, err = run_cli(
        capsys, "train", photos, "--size", 16, "--backbone", "convnet:width=4,depth=2", "--epochs", 1,
        "--precision", "bf16", "--device", "cpu", "--no-report", "--out", tmp_path / "a",
    )  # fmt: skip
    assert status == 0, err
    assert ("no instructions for bfloat16" in err) == (not fast)


def test_the_command_line_overrides_the_file(tiny: Path, tmp_path: Path, capsys):
    config = tmp_path / "c.yaml"
    config.write_text(f"data: {tiny}\nbackbone: 'convnet:width=8,depth=1'\nepochs: 9\nseed: 5\naugment: none\n")
    status, _, err = run_cli(capsys, "train", "-c", config, "--epochs", 1, "--out", tmp_path / "a", "--no-report", "-q")
    assert status == 0, err
    assert err == ""
    made = train.load(tmp_path / "a").config
    assert (made.epochs, made.seed, made.backbone) == (1, 5, "convnet:width=8,depth=1")


def test_resume_of_a_finished_run_prints_its_result(run: train.Run, capsys):
    status, out, _ = run_cli(capsys, "train", "--resume", run.path, "--no-report")
    assert status == 0
    assert f"test accuracy {run.metrics['accuracy']:.1%}" in out


def test_evaluate_prints_a_row_per_class_and_writes_metrics(run: train.Run, photos: Path, tmp_path: Path, capsys):
    status, out, err = run_cli(capsys, "evaluate", run.path, photos, "--out", tmp_path / "metrics.json")
    assert status == 0, err
    assert all(name in out for name in ("a class", "ünï", "ECE", "precision"))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["images"] == 72
    status, out, _ = run_cli(capsys, "evaluate", run.path)
    assert status == 0
    assert (run.path / "evaluation-test" / "metrics.json").exists()


def test_evaluate_probes_the_features(run: train.Run, capsys):
    for kind, said in (("knn", "nearest"), ("linear", "logistic regression")):
        status, out, err = run_cli(capsys, "evaluate", run.path, "--probe", kind)
        assert status == 0, err
        assert said in out
        metrics = json.loads((run.path / f"evaluation-test-{kind}" / "metrics.json").read_text())
        assert metrics["probe"]["kind"] == kind
        assert 0 <= metrics["accuracy"] <= 1
    status, _, err = run_cli(capsys, "evaluate", run.path, "--probe", "knm")
    assert status == 2
    assert "knn" in err


def test_evaluate_refuses_a_class_that_the_run_does_not_know(run: train.Run, tmp_path: Path, capsys):
    (tmp_path / "stranger").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "stranger" / "a.png")
    status, _, err = run_cli(capsys, "evaluate", run.path, tmp_path)
    assert status == 2
    assert "stranger" in err


@pytest.mark.parametrize("format", ["table", "csv", "json"])
def test_predict_prints_a_class_for_each_image(run: train.Run, photos: Path, capsys, format: str):
    status, out, err = run_cli(capsys, "predict", run.path, photos / "a class", "--format", format, "--top", 2)
    assert status == 0, err
    if format == "json":
        rows = json.loads(out)
        assert len(rows) == 24
        assert all(len(row["top"]) == 2 and row["class"] == row["top"][0]["class"] for row in rows)
        assert any("new\nline" in row["image"] for row in rows)
    elif format == "csv":
        rows = list(csv.DictReader(io.StringIO(out)))
        assert len(rows) == 48
        assert {row["rank"] for row in rows} == {"1", "2"}
    else:
        assert len(out.strip().splitlines()) == 24


def test_predictions_agree_with_python(run: train.Run, photos: Path, capsys):
    paths = sorted((photos / "ünï").glob("*.png"))
    _, out, _ = run_cli(capsys, "predict", run.path, *paths, "--format", "json")
    expected = run.predict(paths)
    for row, probabilities in zip(json.loads(out), expected, strict=True):
        assert row["probability"] == pytest.approx(probabilities.max(), abs=1e-5)
        assert row["class"] == run.classes[probabilities.argmax()]


@pytest.mark.parametrize(("separator", "flags"), [("\n", []), ("\0", ["-0"])])
def test_a_list_of_files_comes_on_standard_input(
    python, run: train.Run, photos: Path, separator: str, flags: list[str]
):
    paths = sorted(photos.glob("a class/*.png"))
    if separator == "\n":
        paths = [p for p in paths if "\n" not in p.name]
    command = ["-m", "repertoire", "predict", str(run.path), *flags, "--format", "csv"]
    done = python(*command, given=separator.join(map(str, paths)).encode(), apart=True)
    out, err = done.communicate(timeout=120)
    assert done.returncode == 0, err
    assert len(list(csv.DictReader(io.StringIO(out)))) == len(paths)


def test_predict_names_all_unusable_images_after_the_others(run: train.Run, photos: Path, tmp_path: Path, capsys):
    good = next((photos / "ünï").glob("*.png"))
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:60])
    paths = [tmp_path / "empty.jpg", good, tmp_path / "cut.png"]
    status, out, err = run_cli(capsys, "predict", run.path, *paths)
    assert status == 2
    assert str(good) in out
    assert "2 of 3 images cannot be used" in err
    assert "empty.jpg" in err
    assert "cut.png" in err
    status, _, err = run_cli(capsys, "predict", run.path, *paths, "--skip-unreadable")
    assert status == 0
    assert "2 of 3 images were skipped" in err


def test_embed_writes_features_with_names(run: train.Run, photos: Path, tmp_path: Path, capsys):
    status, out, err = run_cli(capsys, "embed", run.path, photos, "--out", tmp_path / "f.npz")
    assert status == 0, err
    assert "72 x 16 features" in out
    with np.load(tmp_path / "f.npz", allow_pickle=False) as saved:
        assert saved["features"].shape == (72, 16)
        assert len(set(saved["names"].tolist())) == 72
        first = saved["names"][0]
        np.testing.assert_allclose(saved["features"][0], run.embed([str(first)])[0], atol=1e-5)


def test_embed_puts_features_of_several_runs_side_by_side(run: train.Run, photos: Path, tmp_path: Path, capsys):
    where = ["--concat", "--out", tmp_path / "f.npz"]
    status, out, err = run_cli(capsys, "embed", run.path, run.path, photos, *where)
    assert status == 0, err
    assert "72 x 32 features" in out
    with np.load(tmp_path / "f.npz", allow_pickle=False) as saved:
        np.testing.assert_array_equal(saved["features"][:, :16], saved["features"][:, 16:])
    status, _, err = run_cli(capsys, "embed", run.path, photos, *where)
    assert status == 2
    assert "two runs or more, found 1" in err


def test_explain_writes_a_picture_an_image(run: train.Run, photos: Path, tmp_path: Path, capsys):
    status, out, err = run_cli(capsys, "explain", run.path, photos / "ünï", "--out", tmp_path, "--class", "a class")
    assert status == 0, err
    assert "24 pictures" in out
    pictures = list(tmp_path.glob("*.png"))
    assert len(pictures) == 24
    with Image.open(pictures[0]) as picture:
        assert picture.mode == "RGB"


def test_report_and_export(run: train.Run, tmp_path: Path, capsys):
    status, out, err = run_cli(capsys, "report", run.path, "--out", tmp_path / "r.html")
    assert status == 0, err
    assert (tmp_path / "r.html").stat().st_size > 10_000
    status, out, err = run_cli(capsys, "export", run.path, "--format", "pt2", "--out", tmp_path / "m.pt2")
    assert status == 0, err
    assert "checked" in out


def test_list_names_components_with_their_options(capsys):
    for room, name in [("losses", "supcon"), ("backbones", "resnet20"), ("rules", "sam"), ("data", "shapes")]:
        status, out, _ = run_cli(capsys, "list", room)
        assert status == 0
        assert any(line.startswith(name) for line in out.splitlines()), room
    status, out, _ = run_cli(capsys, "list")
    assert status == 0
    assert "explainers" in out
    assert "in_features" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "Did you mean 'train'"),
        (["train", "digits", "--epoch", "3"], "--epochs"),
        (["train", "digits", "--epochs", "0"], "epochs is 0"),
        (["train", "digits", "--loss", "supcom"], "did you mean 'supcon'"),
        (["train", "digits", "--backbone", "resnt20"], "did you mean 'resnet20'"),
        (["train", "digit"], "did you mean 'digits'"),
        (["train"], "say what to train on"),
        (["train", "no/such/folder"], "there is no folder"),
        (["train", "--resume", "no-run"], "there is no run directory"),
        (["train", "-c", "none.yaml"], "no configuration file"),
        (["train", "digits", "--resume", "x"], "no other options"),
        (["predict", "no-run", "x.jpg"], "there is no run directory"),
        (["list", "loses"], "did you mean 'losses'"),
        (["papers", "show", "supcom"], "did you mean 'supcon'"),
    ],
)
def test_mistakes_get_one_helpful_line_and_status_2(
    capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
):
    monkeypatch.chdir(tmp_path)
    status, _, err = run_cli(capsys, *arguments)
    assert status == 2
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").glob("*/run.json"))


def test_an_unknown_file_is_named(run: train.Run, tmp_path: Path, capsys):
    status, _, err = run_cli(capsys, "predict", run.path, tmp_path / "none.jpg", tmp_path / "nor this.jpg")
    assert status == 2
    assert "none.jpg" in err
    assert "nor this.jpg" in err


def test_a_file_that_is_gone_does_not_stop_the_others(run: train.Run, photos: Path, tmp_path: Path, capsys):
    good = next((photos / "ünï").glob("*.png"))
    status, out, err = run_cli(capsys, "predict", run.path, tmp_path / "gone.jpg", good, "--skip-unreadable")
    assert status == 0
    assert len(out.strip().splitlines()) == 1
    assert "1 of 2 images were skipped" in err


def test_evaluations_do_not_replace_each_other(run: train.Run, photos: Path, capsys):
    for _ in range(2):
        status, _, err = run_cli(capsys, "evaluate", run.path, photos)
        assert status == 0, err
    assert (run.path / "evaluation-my photos" / "metrics.json").exists()
    assert (run.path / "evaluation-my photos-2" / "metrics.json").exists()


def test_options_of_the_command_are_no_configuration(tmp_path: Path, capsys):
    (tmp_path / "c.yaml").write_text("data: digits\nout: runs/x\n")
    status, _, err = run_cli(capsys, "train", "-c", tmp_path / "c.yaml")
    assert status == 2
    assert "out can be given on the command line only" in err


def test_debug_raises(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from repertoire.errors import RunError

    with pytest.raises(RunError):
        cli.main(["predict", str(tmp_path / "none"), "x", "--debug"])


def test_ctrl_c_ends_with_status_130(python, tiny: Path, tmp_path: Path):
    process = python(
        "-m", "repertoire", "train", str(tiny), "--backbone", "convnet:width=8,depth=2",
        "--epochs", "10000", "--out", str(tmp_path / "a"), "--augment", "shift", apart=True,
    )  # fmt: skip
    while "\nepoch" not in process.said()[1]:
        assert process.poll() is None, process.said()
        time.sleep(0.02)
    process.send_signal(2)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"repertoire train --resume {tmp_path / 'a'}" in err
    assert train.load(tmp_path / "a").info["status"] == "interrupted"


@pytest.mark.parametrize(
    ("given", "busy", "found"),
    [
        ({}, True, cli.SPINS),
        ({}, False, "None"),
        ({"GOMP_SPINCOUNT": "7"}, True, "7"),
        ({"OMP_WAIT_POLICY": "active"}, True, "None"),
    ],
)
def test_threads_that_wait_sleep_soon_on_a_busy_machine(given: dict[str, str], busy: bool, found: str):
    program = (
        f"import os; from repertoire import cli\ncli.shares_cores = lambda: {busy}\n"
        "try: cli.main(['--version'])\nexcept SystemExit: pass\nprint(os.environ.get('GOMP_SPINCOUNT'))"
    )
    known = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=known | given, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == found


@pytest.mark.parametrize(
    ("load", "limit", "busy"),
    [
        ("0.00 0.01 0.05 1/321 4711", "max 100000", False),
        ("9.00 9.01 9.05 2/321 4711", "max 100000", False),  # what ran before is gone
        ("0.00 0.01 0.05 3/321 4711", "max 100000", True),
        ("0.00 0.01 0.05 1/321 4711", "150000 100000", True),
        ("0.00 0.01 0.05 1/321 4711", "400000 100000", False),
        (None, None, False),
        ("nonsense", "nonsense", False),
    ],
)
def test_cores_are_shared_where_others_run_or_a_container_has_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: str | None, limit: str | None, busy: bool
):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    files = tmp_path / "loadavg", tmp_path / "cpu.max"
    for file, text in zip(files, (load, limit), strict=True):
        if text is not None:
            file.write_text(text)
    assert cli.shares_cores(*files) == busy


def test_where_torch_is_loaded_already_the_environment_is_left_alone(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert "GOMP_SPINCOUNT" not in os.environ


def test_help_is_quick_and_loads_no_torch():
    command = [sys.executable, "-X", "importtime", "-m", "repertoire", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for heavy in ("torch", "numpy", "pydantic", "sklearn"):
        assert f" {heavy}\n" not in done.stderr
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "repertoire", "--help"], capture_output=True, check=True)
    # The benchmark measures 0.35 s on a quiet machine; here it must only not be a second.
    assert time.perf_counter() - start < 2


def test_training_and_its_report_load_no_more_than_they_need():
    """Imports are a good part of the second run of `--tune head`, and each of these would add much to them."""
    code = (
        "import sys, repertoire; repertoire.train.fit, repertoire.report.write_report, repertoire.explain.judge; "
        "print(*(name for name in ('sklearn', 'pandas', 'scipy.stats', 'matplotlib', 'timm', 'torchvision', "
        "'torch._inductor.compile_fx', 'transformers', 'datasets') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_options_of_train_are_those_of_the_configuration(capsys):
    status, out, _ = run_cli(capsys, "train", "--help")
    assert status == 0
    for name in train.TrainConfig.model_fields:
        if name != "data":
            assert f"--{name.replace('_', '-')}" in out, name


def test_the_command_line_takes_back_what_a_file_says(tiny: Path, tmp_path: Path, capsys):
    (tmp_path / "c.yaml").write_text(f"data: {tiny}\npatience: 1\nema: 0.9\ntrack: [tensorboard]\nepochs: 1\n")
    status, _, err = run_cli(
        capsys, "train", "-c", tmp_path / "c.yaml", "--backbone", "convnet:width=4,depth=2", "--patience", "none",
        "--ema", "none", "--track", "none", "-o", tmp_path / "a", "--no-report", "-q",
    )  # fmt: skip
    assert (status, err) == (0, "")
    config = train.load(tmp_path / "a").config
    assert (config.patience, config.ema, config.track) == (None, None, ())
    status, _, err = run_cli(capsys, "train", "--resume", tmp_path / "a", "--patience", "none")
    assert status == 2
    assert "takes back nothing" in err


def test_cells_of_tables_are_no_formulas_and_hold_no_control_characters(run: train.Run, tmp_path: Path, capsys):
    name = tmp_path / "=cmd|x\x1b[2J.png"
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(name)
    monkey = Path.cwd()
    os.chdir(tmp_path)
    try:
        status, out, _ = run_cli(capsys, "predict", run.path, name.name, "--format", "csv")
    finally:
        os.chdir(monkey)
    assert status == 0
    assert "\x1b" not in out
    assert out.splitlines()[1].startswith("'=cmd|x\\x1b[2J.png,")
