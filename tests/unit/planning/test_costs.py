"""The plan of a profile as a whole, against Snakemake's own count and the package's own numbers."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_throughput import write_throughput

from hessketch.__main__ import main
from hessketch.commands.plan import read_config
from hessketch.curvature.class_terms import _LEAST_SHARING
from hessketch.curvature.dense import _BLOCK_BYTES, _MOST_ROWS
from hessketch.curvature.points import _NUMBERS_AT_ONCE
from hessketch.dynamics.schemes import SCHEMES
from hessketch.eigenspaces import metric_study
from hessketch.eigenspaces.room import FORMED
from hessketch.errors import InputError
from hessketch.federated import clients
from hessketch.federated import training as federated_training
from hessketch.landscape.paths import PathSettings
from hessketch.planning import spectra, studies, trainings
from hessketch.planning.costs import computing_jobs, costs_of, wall_time
from hessketch.planning.jobs import Job, Plan
from hessketch.planning.report import counted
from hessketch.planning.sizes import NetworkSize, Scale
from hessketch.planning.stages import DRAWN, by_stage, counted_by_snakemake, stage_of
from hessketch.planning.throughput import find_device
from hessketch.training import sgd, trajectory

ROOT = Path(__file__).resolve().parents[3]
SCHEMA = ROOT / "config/schema.yaml"


@pytest.fixture(scope="module")
def demo():
    return read_config(ROOT / "config/demo.yaml", SCHEMA)


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    return find_device(None, write_throughput(tmp_path_factory.mktemp("results")).parent)


@pytest.fixture(scope="module")
def there():
    return counted_by_snakemake(ROOT, ROOT / "config/demo.yaml")


def test_every_stage_has_the_jobs_that_snakemake_counts(demo, there):
    planned = Counter(stage_of(job.rule) for job in computing_jobs(Plan(demo, Scale(), 1e10)))
    assert planned == {stage: count for stage, count in by_stage(there).items() if stage not in DRAWN}
    assert sum(by_stage(there).values()) == sum(there.values()) - there["config"]


def test_a_plan_that_lists_other_jobs_than_the_workflow_is_refused(demo, device, there):
    with pytest.raises(InputError, match="trainings: 12, Snakemake 11"):
        costs_of(demo, there - Counter({"train": 1}), device, cores=1)


def test_costs_add_up_and_grow_with_examples_and_widths(demo, device, there):
    costs = costs_of(demo, there, device, cores=2)
    assert costs.total.jobs == sum(there.values()) - there["config"]
    assert costs.total.seconds == pytest.approx(sum(stage.seconds for stage in costs.stages))
    assert costs.total.seconds / 2 < costs.wall < costs.total.seconds
    by_name = {stage.stage: stage for stage in costs.stages}
    assert 1 < by_name["trainings"].with_examples < 2.1 and by_name["figures"].with_examples == 1
    assert all(stage.with_width >= 1 for stage in costs.stages)
    assert by_name["trainings"].steps == 30 * 4 * (4 + 5 + 9)  # epochs, networks and rates, mini-batches of 32


def test_numbers_that_the_model_takes_over_are_those_of_the_code():
    assert sgd._EVALUATIONS == trainings.EVALUATIONS and trajectory._EVALUATIONS == trainings.FOLLOWED_EVALUATIONS
    assert federated_training._EVALUATIONS == trainings.FEDERATED_EVALUATIONS
    batches = {sgd._EVALUATION_BATCH, trajectory._EVALUATION_BATCH, federated_training.EVALUATION_BATCH}
    assert batches == {trainings.EVALUATION_BATCH}
    assert (len(SCHEMES), FORMED, PathSettings().batch_size) == (studies.SCHEMES, studies.FORMED, studies.PATH_BATCH)
    assert (_NUMBERS_AT_ONCE["cpu"], _LEAST_SHARING) == (studies.NUMBERS_AT_ONCE, spectra.LEAST_SHARING)
    assert len(metric_study.PAIRS) == studies.KINDS_OF_PAIRS
    assert (_MOST_ROWS, _BLOCK_BYTES) == (studies.ROWS_AT_ONCE, studies.BLOCK_BYTES)
    network = NetworkSize("a", "matrices", 16842, 1.0, 1, 1, 1, 1, 1)
    for size in (1, 50, 500):
        expected = clients.clients_at_once(network.parameters, size, torch.device("cpu"))
        settings = {"local_batch_size": 0, "micro_batch": 1000, "chunk": 0}
        assert trainings.clients_at_once(settings, network, size) == expected


def test_jobs_wait_for_what_they_read_and_take_free_cores():
    jobs = [Job("train", "a"), Job("train", "b"), Job("spectrum", "c", after=("a",)), Job("train", "d")]
    seconds = {"a": 3.0, "b": 2.0, "c": 4.0, "d": 1.0}
    assert wall_time(jobs, seconds, 1) == 10
    assert wall_time(jobs, seconds, 2) == wall_time(jobs, seconds, 9) == 7
    assert wall_time([*jobs, replace(jobs[0], name="e", after=("c",))], {**seconds, "e": 1.0}, 2) == 8


def test_measured_jobs_stand_beside_planned_ones(tmp_path, capsys):
    write_throughput(tmp_path / "benchmarks/results")
    (tmp_path / "config").symlink_to(ROOT / "config")
    run = "digits/noise0/n26/vgg11-batch-w0.0625/cross_entropy/sgd/lr0.1/seed0"
    file = tmp_path / f"logs/train/{run}.tsv"
    file.parent.mkdir(parents=True)
    file.write_text("s\th:m:s\tmax_rss\tmean_load\tcpu_time\n40.0\t0:00:40\t500.0\t50.0\t12.0\n")
    main(["plan", "--workflow", str(tmp_path), "--measured", str(tmp_path / "logs")])
    row = re.search(r"^trainings +1 +([0-9.]+) s +20.0 s +([0-9.]+) ", capsys.readouterr().out, re.MULTILINE)
    assert float(row[1]) / 20.0 == pytest.approx(float(row[2]), abs=0.006)


def test_a_plan_names_what_is_wrong(tmp_path, capsys):
    write_throughput(tmp_path / "benchmarks/results")
    (tmp_path / "config").symlink_to(ROOT / "config")
    for words, said in (
        (["--device", "a10"], "device 'a10' is unknown; allowed: cpu-toy, h200, h100, a100"),
        (["--measured", str(tmp_path / "none")], "is no folder; give that of the benchmark files"),
        (["--configfile", "none.yaml"], "none.yaml cannot be read as a profile"),
        ([], "no Snakefile in"),
    ):
        with pytest.raises(SystemExit):
            main(["plan", "--workflow", str(tmp_path), *words])
        assert said in capsys.readouterr().err


def test_counts_are_told_in_two_digits():
    assert [counted(n) for n in (0, 7, 950, 1234, 99_700, 3.58e20)] == ["0", "7", "950", "1.2 k", "100 k", "358 E"]
