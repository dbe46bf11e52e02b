"""Calls of a few minutes end in whole results: stopped in a training, on a fresh copy, where all weights are lost."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time

import pytest
from conftest import ROOT, TINY, WARM

from hessketch.errors import InputError
from hessketch.records import read_record, read_table

CELL = "clusters-k3-d5-s2/noise0/n10/mlp-none-w0.05/cross_entropy/sgd"
RECORD = f"results/tiny/spectra/{CELL}/seed0/train/record.json"
ONE = {
    "datasets": {
        "clusters-k3-d5-s2": {
            "examples_per_class": [10], "test_examples_per_class": 2, "learning_rates": [0.05], "epochs": 150,
        }
    },
    "networks": [{"name": "mlp", "norm": "none", "width": 0.05}],
    "training": {"batch_size": 4},
    "spectrum": {"lanczos_steps": 6, "grid_points": 64, "deflation_rank": 2, "splits": ["train"]},
}  # fmt: skip
SPECTRUM = ["--lanczos-steps", "6", "--grid-points", "64", "--deflation-rank", "2", "--test-examples-per-class", "2"]


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """The script as a module, in an empty folder."""
    spec = importlib.util.spec_from_file_location("run_in_calls", ROOT / "workflow/run_in_calls.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)
    return module


def start(project, *arguments):
    command = [sys.executable, "workflow/run_in_calls.py", "--minutes", "8", "--configfile", "config/tiny.yaml"]
    paths = os.pathsep.join([str(WARM), str(project.folder / "src")])
    environment = {**os.environ, "PYTHONPATH": paths, "HESSKETCH_SAVE_EVERY": "0"}
    return subprocess.Popen(
        [*command, "--cores", "2", "--export", "packed", *arguments],
        cwd=project.folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said[-5000:]
    return said


def test_three_calls_with_a_kill_and_a_loss_end_in_the_spectra_of_an_undisturbed_run(project, tmp_path):
    project.configure(**ONE)
    process = start(project, RECORD)
    state = project.folder / f"results/tiny/runs/{CELL}/lr0.05/seed0/resume.safetensors"
    deadline = time.monotonic() + 200
    while not state.exists():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert state.exists() and not (project.folder / RECORD).exists()

    for file in (path for name in ("src", "workflow", "config") for path in (project.folder / name).rglob("*.*")):
        os.utime(file)  # as in a fresh copy of the tree
    said = finish(start(project, RECORD))
    assert 0 < read_record(state.with_name("record.json"))["resumed_from_epoch"] < 150, said

    data = shutil.copy(project.folder / "resources/clusters-k3-d5-s2.safetensors", tmp_path)
    for lost in ("results", "resources", ".snakemake"):
        shutil.rmtree(project.folder / lost)
    said = finish(start(project, "full_spectrum_tables", "--restore", "packed/tiny.tar.gz"))
    assert "Training" not in said and "Spectra of" not in said
    assert not list((project.folder / "results").rglob("*.safetensors"))

    folders = (project.folder / RECORD).parent, tmp_path / "undisturbed"
    undisturbed(folders[1], data)
    for name in ("density", "eigenvalues", "ritz", "sums"):
        ours, theirs = (read_table(folder / f"{name}.parquet") for folder in folders)
        assert len(ours) and ours.equals(theirs), name
    assert len(read_table(project.folder / "results/tiny/full_spectrum/outliers.parquet"))


def undisturbed(output, data):
    """The spectra of a training that nothing stopped, by the scripts alone."""
    model = output / "model.safetensors"
    scripts = {
        "train.py": [f"{CELL}/lr0.05/seed0", "--epochs", "150", "--batch-size", "4"],
        "spectrum.py": [f"{CELL}/seed0", "--split", "train", "--model", model, *SPECTRUM],
    }
    for script, own in scripts.items():
        arguments = [*own, "--data", data, "--output", output, "--device", "cpu", "--threads", "1"]
        subprocess.run([sys.executable, ROOT / "workflow/scripts" / script, *map(str, arguments)], check=True)


def test_when_time_is_up_nothing_runs_on(calls, monkeypatch):
    sleep = "import time; time.sleep(60)"
    child = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {sleep!r}]); {sleep}"
    monkeypatch.setattr(calls.Calls, "command", lambda self, *words: [sys.executable, "-c", child])
    began = time.monotonic()
    assert calls.Calls("config/tiny.yaml", "1", began + 1).run("all") == calls.MORE
    assert time.monotonic() - began < 20
    group = int(calls.UNDER_WAY.read_text())
    deadline = time.monotonic() + 10
    while any_of(group):
        assert time.monotonic() < deadline, "the group runs on"
        time.sleep(0.05)
    calls.LOCKS.mkdir(parents=True)
    calls.unlock()
    assert not calls.LOCKS.exists() and not calls.UNDER_WAY.exists()


def any_of(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_lock_of_what_runs_is_left_alone(calls):
    calls.LOCKS.mkdir(parents=True)
    calls.unlock()  # no call of ours was stopped: the lock is another's
    assert calls.LOCKS.exists()
    calls.UNDER_WAY.write_text(str(os.getpgid(0)))
    with pytest.raises(InputError, match="earlier call"):
        calls.unlock()
    assert calls.LOCKS.exists()


def test_a_pack_holds_results_without_weights(calls, tmp_path):
    folder = tmp_path / "results/tiny/runs/a"
    (folder / "partial").mkdir(parents=True)
    for name in ("record.json", "model.safetensors", "partial/record.json", "history.parquet"):
        (folder / name).write_text("x")
    with tarfile.open(calls.pack("tiny", tmp_path / "packed")) as tar:
        assert sorted(tar.getnames()) == [f"results/tiny/runs/a/{name}" for name in ("history.parquet", "record.json")]


def test_pieces_are_networks_then_federated_trainers(calls):
    federation = {
        "datasets": {"digits": {"examples_per_class": 10, "label_noise": 0}}, "losses": ["cross_entropy"],
        "networks": TINY["networks"], "seeds": [0, 1], "methods": ["uncompressed", "top_r"], "reductions": [10],
        "learning_rates": [0.1],
    }  # fmt: skip
    datasets = {"digits": {**TINY["datasets"]["digits"], "label_noise": [0]}}
    config = {**TINY, "datasets": datasets, "federation": federation, "spectrum": {"splits": ["train", "test"]}}
    pieces = calls.pieces_of(config)
    assert [len(piece) for piece in pieces] == [2, 2, 2, 2]
    assert "/n3/" in pieces[0][0] and "/n6/" in pieces[1][0]
    assert "uncompressed" in pieces[2][0] and pieces[3][1].endswith("top_r-x10/lr0.1/seed1/record.json")
