"""Bad input stops before the first job and writes nothing; a killed run resumes to the same result."""

import os
import re
import resource
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, TINY

from hessketch.records import read_record, read_tensors


def dataset(**changes):
    return {"digits": {**TINY["datasets"]["digits"], **changes}}


BAD = {
    "unknown key": ({"sedes": [0]}, "sedes: unknown key; allowed: .*nearest valid name: seeds"),
    "unknown data set": ({"datasets": {"digit": dataset()["digits"]}}, "nearest valid name: digits"),
    "unknown network": ({"networks": [{"name": "vgg"}]}, "nearest valid name: vgg11"),
    "YAML's text": ({"datasets": dataset(learning_rates=["1e-2"])}, "YAML reads 1e-2 as text, write 0.01"),
    "too many examples": ({"datasets": dataset(examples_per_class=[999])}, "999 given, the smallest class has 124"),
    "rate of zero": ({"datasets": dataset(learning_rates=[0])}, "0 given; allowed: a number above 0"),
    "empty list": ({"losses": []}, "losses: empty"),
}


@pytest.mark.parametrize(("changes", "line"), BAD.values(), ids=BAD.keys())
def test_a_bad_config_stops_at_once_and_writes_nothing(project, changes, line):
    project.configure(**changes)
    stopped = project.snakemake()
    assert stopped.returncode != 0
    assert re.search(line, stopped.stdout), stopped.stdout
    assert "Traceback" not in stopped.stdout
    assert project.made() == []


def test_missing_data_without_network_stop_before_the_first_job(project):
    """A host that does not resolve stands for a machine without network."""
    catalog = project.folder / "src/hessketch/data/catalog.py"
    text = catalog.read_text().replace("ossci-datasets.s3.amazonaws.com", "nowhere.invalid")
    catalog.write_text(text)
    mnist = {"mnist": dataset()["digits"], **dataset()}
    project.configure(datasets=mnist, data_folder="my_data")
    stopped = project.snakemake()
    assert stopped.returncode != 0
    assert "data_folder: my_data holds no files of mnist (train-images-idx3-ubyte" in stopped.stdout
    assert "Traceback" not in stopped.stdout
    assert project.made() == []
    again = project.snakemake("-n")  # the lock was released
    assert again.returncode == 0


def test_a_results_folder_that_cannot_be_written_stops_before_the_first_job(project):
    (project.folder / "results").write_text("a file where a folder should be")
    stopped = project.snakemake()
    assert stopped.returncode != 0
    assert "results/tiny: cannot be written" in stopped.stdout
    assert not (project.folder / "resources").exists()


def test_damaged_prepared_data_are_named_with_what_to_delete(project):
    assert project.snakemake("data").returncode == 0
    path = project.folder / "resources/digits.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    stopped = project.snakemake("models", "--rerun-triggers", "params")
    assert stopped.returncode != 0
    assert "resources/digits.safetensors: cannot be read, it is damaged or cut short" in stopped.stdout
    path.unlink()
    assert project.snakemake("models").returncode == 0


def test_the_papers_profile_lists_its_jobs_in_under_thirty_seconds(project):
    """Seconds of the processor: what else runs does not count."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "snakemake", "-n", "--configfile", "config/paper.yaml"]
    planned = subprocess.run(command, cwd=project.folder, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert planned.returncode == 0, planned.stdout[-2000:] + planned.stderr[-2000:]
    assert 0 < after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 30
    assert re.search(r"^train +880$", planned.stdout, re.MULTILINE)


LONG = {
    "datasets": dataset(examples_per_class=[6], learning_rates=[0.02], epochs=80),
    "training": {"batch_size": 16, "checkpoint_epochs": [1, 80]},
}


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_a_killed_run_resumes_to_the_same_weights_bit_for_bit(project, tmp_path):
    """SIGKILL of Snakemake and its jobs in the middle of a training, then the same command again."""
    project.configure(**LONG)
    folder = project.folder / "results/tiny/runs/digits/noise0/n6/vgg11-batch-w0.015625/cross_entropy/sgd/lr0.02/seed0"
    process = project.start("models", HESSKETCH_SAVE_EVERY="0")
    wait_for((folder / "resume.safetensors").exists, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / "model.safetensors").exists()
    assert project.snakemake("--unlock").returncode == 0
    resumed = project.snakemake("models")
    assert resumed.returncode == 0, resumed.stdout
    record = read_record(folder / "record.json")
    assert 0 < record["resumed_from_epoch"] < 80
    assert not (folder / "resume.safetensors").exists()

    undisturbed = tmp_path / "undisturbed"
    arguments = [record["run"], "--data", project.folder / "resources/digits.safetensors", "--output", undisturbed]
    arguments += ["--epochs", "80", "--batch-size", "16", "--device", "cpu", "--threads", "1"]
    arguments += ["--checkpoint-epochs", "1", "80"]
    subprocess.run([sys.executable, ROOT / "workflow/scripts/train.py", *map(str, arguments)], check=True)
    assert read_record(undisturbed / "record.json")["resumed_from_epoch"] == 0
    for name in ("model", "epoch1", "epoch80"):
        first, second = (read_tensors(path / f"{name}.safetensors") for path in (folder, undisturbed))
        assert all((first[0][key] == second[0][key]).all() for key in second[0])
        assert first[1] == second[1]
    assert read_tensors(folder / "epoch1.safetensors")[1]["epoch"] == 1


def test_when_every_rate_diverges_the_error_says_so(project):
    project.configure(datasets=dataset(examples_per_class=[3], learning_rates=[1e18, 1e20]))
    stopped = project.snakemake("models")
    assert stopped.returncode != 0
    assert "every learning rate diverged" in stopped.stdout
    assert "add smaller values to learning_rates" in stopped.stdout


def test_what_some_data_sets_lack_is_not_drawn(project):
    """Label noise of one data set alone, train spectra alone, no deflation: only figures that can be filled."""
    noisy = dataset(examples_per_class=[3], learning_rates=[0.05], label_noise=[0, 0.25])
    clusters = {"clusters-k3-d5-s2": dataset(examples_per_class=[3], learning_rates=[0.05])["digits"]}
    project.configure(
        datasets={**noisy, **clusters},
        networks=[{"name": "mlp", "norm": "none", "width": 0.05}],
        spectrum={**TINY["spectrum"], "splits": ["train"], "deflation_rank": 0},
    )
    done = project.snakemake("--until", "full_spectrum_figure")
    assert done.returncode == 0, done.stdout[-5000:]
    figures = project.folder / "figures/tiny/full_spectrum"
    expected = {"figure1-mlp-none-w0.05", "accuracy", "outlier_count", "bulk_energy", "negative_mass"}
    for variant in ("cross_entropy", "cross_entropy-noise0.25"):
        assert {path.stem for path in (figures / variant).glob("*.png")} == expected
