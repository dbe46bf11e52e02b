"""`python -m hessketch`: train one network, then its spectrum, as a user would."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hessketch.__main__ import main, parser
from hessketch.records import read_record, read_table, write_tensors

SMALL = ["--lanczos-steps", "12", "--deflation-rank", "4", "--device", "cpu"]
PAPER = ["--method", "paper", "--normalization-steps", "4", "--lanczos-steps", "12", "--deflation-iterations", "2"]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    main(
        f"train --dataset digits --examples-per-class 6 --label-noise 0.5 --network mlp --norm none --width 0.05 "
        "--loss mean_squared_error --epochs 8 --learning-rate 0.05 --batch-size 16 --seed 3 --device cpu "
        f"--output {folder}".split()
    )
    return folder


def test_training_writes_weights_history_and_record(run_folder):
    record = read_record(run_folder / "record.json")
    assert record["status"] == "finished" and record["n"] == 60
    history = read_table(run_folder / "history.parquet")
    assert list(history["epoch"]) == list(range(1, 9))
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]


def test_the_spectrum_of_a_checkpoint_averages_over_its_own_training_examples(run_folder, tmp_path, capsys):
    """The mean loss over the examples that the checkpoint names is the training's own, wrong labels included."""
    checkpoint = str(run_folder / "model.safetensors")
    main(["spectrum", "--checkpoint", checkpoint, "--dataset", "digits", "--output", str(tmp_path), *SMALL])
    record, run = read_record(tmp_path / "record.json"), read_record(run_folder / "record.json")
    assert record["n"] == 60 and record["loss"] == "mean_squared_error"
    assert record["mean_loss"] == pytest.approx(run["train_loss"], rel=1e-6)
    said = capsys.readouterr().out
    assert "hessian: " in said and "residual" not in said.split("ggn: ")[0]
    for name in ("spectrum.pdf", "spectrum.png", "density.parquet", "ritz.parquet", "eigenvalues.parquet"):
        assert (tmp_path / name).stat().st_size > 0
    weights = read_table(tmp_path / "ritz.parquet").groupby(["operator", "deflated", "start_vector"])["weight"].sum()
    assert np.allclose(weights, 1)


def test_a_second_spectrum_with_the_same_seed_is_the_same(run_folder, tmp_path):
    checkpoint = str(run_folder / "model.safetensors")
    for name in ("a", "b"):
        words = ["spectrum", "--checkpoint", checkpoint, "--dataset", "digits", "--operators", "ggn"]
        main([*words, "--output", str(tmp_path / name), *SMALL])
    assert read_table(tmp_path / "a/ritz.parquet").equals(read_table(tmp_path / "b/ritz.parquet"))


def test_a_users_own_network_and_state_dict_work(tmp_path, monkeypatch):
    (tmp_path / "own_nets.py").write_text(
        "from torch import nn\ndef make(classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(1024, classes))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    torch.manual_seed(0)
    write_tensors({"1.weight": torch.randn(10, 1024), "1.bias": torch.zeros(10)}, tmp_path / "own.safetensors")
    words = f"spectrum --checkpoint {tmp_path}/own.safetensors --network own_nets:make --dataset digits --split test "
    main([*(words + f"--examples-per-class 3 --output {tmp_path}/out").split(), *SMALL])
    assert read_record(tmp_path / "out/record.json")["p"] == 10_250
    residual = read_table(tmp_path / "out/ritz.parquet").query("operator == 'residual'")
    assert residual["ritz_value"].abs().max() < 1e-6  # linear in its parameters: no curvature of the predictions


def error(capsys, *words):
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    assert stopped.value.code != 0
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


def test_what_a_user_may_get_wrong_is_said_without_a_traceback(run_folder, tmp_path, capsys):
    good, out = str(run_folder / "model.safetensors"), str(tmp_path / "out")
    spectrum = ("spectrum", "--output", out, "--dataset", "digits")
    assert "checkpoint of another network" in error(capsys, *spectrum, "--checkpoint", good, "--network", "vgg11")
    assert "no such file" in error(capsys, *spectrum, "--checkpoint", str(tmp_path / "absent.safetensors"))
    half = tmp_path / "half.safetensors"
    half.write_bytes((run_folder / "model.safetensors").read_bytes()[:-500])
    assert "no whole safetensors file" in error(capsys, *spectrum, "--checkpoint", str(half))
    torch.save({"weight": torch.ones(2)}, tmp_path / "mine.pt")
    assert "safetensors.torch.save_file" in error(capsys, *spectrum, "--checkpoint", str(tmp_path / "mine.pt"))
    assert "takes inputs of shape (1, 32, 32)" in error(
        capsys, "spectrum", "--output", out, "--dataset", "clusters-k10-d5-s3", "--checkpoint", good
    )
    clusters = "clusters-k3-d1024-s3"
    assert "has 10 outputs" in error(capsys, "spectrum", "--output", out, "--dataset", clusters, "--checkpoint", good)
    assert "the word classes" in error(capsys, *spectrum, "--checkpoint", good, "--deflation-rank", "some")
    assert "nearest valid name: digits" in error(
        capsys, "train", "--dataset", "digitz", "--network", "mlp", "--output", out
    )
    assert "learning_rate: 0.0 given" in error(
        capsys, "train", "--dataset", "digits", "--network", "mlp", "--output", out, "--learning-rate", "0"
    )
    assert not (tmp_path / "out").exists()


def test_the_papers_algorithms_are_one_flag_away_and_flags_of_another_method_are_refused(run_folder, tmp_path, capsys):
    words = ["spectrum", "--checkpoint", str(run_folder / "model.safetensors"), "--dataset", "digits"]
    main([*words, "--output", str(tmp_path / "paper"), "--operators", "ggn", "--device", "cpu", *PAPER])
    record = read_record(tmp_path / "paper/record.json")
    assert record["method"] == "paper" and record["settings"]["normalization_steps"] == 4
    assert record["runs"]["ggn"]["products"] == 4 + 12 + 2 * 10 + 4 + 12
    said = error(capsys, *words, "--output", str(tmp_path / "fast"), "--normalization-steps", "4")
    assert "--normalization-steps belongs to method paper: leave it out, or give --method paper" in said
    assert "a number of GiB" in error(capsys, *words, "--output", str(tmp_path / "x"), "--memory-gib", "much")


def test_the_record_says_the_arithmetic_and_what_was_kept(run_folder, tmp_path):
    words = ["spectrum", "--checkpoint", str(run_folder / "model.safetensors"), "--dataset", "digits", *SMALL]
    main([*words, "--output", str(tmp_path / "a"), "--operators", "second_moment", "--tf32"])
    main([*words, "--output", str(tmp_path / "b"), "--operators", "second_moment", "--memory-gib", "0"])
    kept, streamed = (read_record(tmp_path / name / "record.json")["runs"]["second_moment"] for name in "ab")
    assert kept["float32_products"] == "tf32 allowed" and streamed["float32_products"] == "ieee float32"
    assert kept["deterministic"] and kept["batches_kept"] == 1 and streamed["batches_kept"] == 0
    assert kept["reorthogonalization"] == "full, float32 basis on cpu"
    assert streamed["reorthogonalization"].startswith("none, for want of memory")


def test_two_processes_of_torchrun_write_the_tables_of_one(run_folder, tmp_path):
    words = ["spectrum", "--checkpoint", str(run_folder / "model.safetensors"), "--dataset", "digits", *SMALL]
    words += ["--operators", "hessian", "--threads", "1"]
    main([*words, "--output", str(tmp_path / "one")])
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "hessketch"]
    done = subprocess.run([*run, *words, "--output", str(tmp_path / "two")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("hessian: ") == 1
    records = [read_record(tmp_path / name / "record.json") for name in ("one", "two")]
    assert [record["processes"] for record in records] == [1, 2] and records[1]["n"] == 60
    one, two = (read_table(tmp_path / name / "eigenvalues.parquet")["eigenvalue"] for name in ("one", "two"))
    assert two.to_numpy() == pytest.approx(one.to_numpy(), rel=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--seed -1", "whole number of at least 0"),
        ("--examples-per-class 0", "whole number of at least 1"),
        ("--learning-rate inf", "learning_rate: inf given"),
        ("--width inf", "width above 0 up to 16"),
        ("--threads -2", "whole number of at least 1"),
        ("--network :f", "module:function, such as"),
        ("--network .a:f", "module:function, such as"),
        ("--batch-size 1", "at least 2 (one example has no variance)"),
        ("--save-every 10s", "a number of seconds"),
    ],
)
def test_a_flag_that_no_training_could_use_is_refused(words, message, tmp_path, capsys):
    command = ["train", "--dataset", "digits", "--network", "mlp", "--output", str(tmp_path / "out")]
    assert message in error(capsys, *command, *words.split())


def test_an_output_that_is_a_file_is_refused_at_once(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file/below"):
        said = error(capsys, "train", "--dataset", "digits", "--network", "mlp", "--output", str(output))
        assert "cannot be written" in said


def test_help_shows_examples_and_defaults():
    shown = subprocess.run([sys.executable, "-m", "hessketch", "--help"], capture_output=True, text=True)
    assert shown.returncode == 0 and "examples:" in shown.stdout and "spectrum --checkpoint" in shown.stdout
    for command in ("train", "spectrum"):
        text = parser()._subparsers._group_actions[0].choices[command].format_help()
        assert "example" in text and "default: " in text


class _Bomb:
    """Unpickling an object of this class makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("name", ["evil.pt", "evil.safetensors"])
def test_a_pickle_given_as_a_checkpoint_is_refused_and_its_code_does_not_run(tmp_path, capsys, name):
    torch.save(_Bomb(tmp_path / "burst"), tmp_path / name)
    words = ["spectrum", "--checkpoint", str(tmp_path / name), "--dataset", "digits", "--network", "mlp"]
    with pytest.raises(SystemExit):
        main([*words, "--output", str(tmp_path / "out"), *SMALL])
    assert "no whole safetensors file" in capsys.readouterr().err
    assert not (tmp_path / "burst").exists() and not (tmp_path / "out").exists()


def test_nothing_in_the_project_runs_what_a_file_holds():
    root = Path(__file__).parents[3]
    sources = [*root.glob("src/**/*.py"), *root.glob("workflow/**/*.py"), *root.glob("notebooks/*.ipynb")]
    running = r"\btorch\.load\(|\bpickle\.|\bimport pickle|allow_pickle=True|\byaml\.(unsafe_|full_)?load\("
    running += r"|(?<![\w.])(eval|exec)\("
    markup = r"\bHTML\(|\bMarkdown\(|escape=False"
    found = [path.name for path in sources if re.search(f"{running}|{markup}", path.read_text())]
    assert len(sources) > 150 and found == []
