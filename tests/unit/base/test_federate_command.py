"""`python -m hessketch federate` as a user would: one run, its spectrum, two processes, what one may get wrong."""

import subprocess
import sys
from dataclasses import asdict, fields

import pytest

from hessketch.__main__ import main, parser
from hessketch.cli import settings_from
from hessketch.federated.job import FILES
from hessketch.federated.settings import FederatedSettings
from hessketch.records import read_record, read_table, read_tensors
from hessketch.trainers import FEDERATED
from hessketch.trajectories import read_trajectory

DATA = ["--dataset", "digits", "--examples-per-class", "6", "--device", "cpu", "--seed", "3"]
NETWORK = ["--network", "mlp", "--norm", "batch", "--width", "0.03"]
SMALL = ["--clients", "7", "--rounds", "6", "--local-steps", "2", "--learning-rate", "0.2"]
SKETCHED = ["--method", "count_sketch", "--error-feedback", "--reduction", "4"]
KEPT = ["--checkpoint-rounds", "2", "6", "--checkpoint-losses", "2", "0.001"]


def federate(output, *words, sizes=SMALL):
    main(["federate", *DATA, *NETWORK, *sizes, "--output", str(output), *map(str, words)])


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("federation")
    federate(folder, *SKETCHED, *KEPT)
    return folder


def test_it_writes_weights_rounds_checkpoints_and_a_record_and_says_where(run_folder, tmp_path, capsys):
    assert {path.name for path in run_folder.iterdir()} == set(FILES)
    record = read_record(run_folder / "record.json")
    assert (record["method"], record["error_feedback"], record["reduction"]) == ("count_sketch", True, 4.0)
    assert record["run"] == "digits/noise0/n6/mlp-batch-w0.03/cross_entropy/count_sketch_ef-x4/lr0.2/seed3"
    assert (record["status"], record["n"], record["clients"], record["rounds"]) == ("finished", 60, 7, 6)
    rounds = read_table(run_folder / "rounds.parquet")
    assert rounds["train_loss"].iloc[-1] < rounds["train_loss"].iloc[0]
    _, kept = read_trajectory(run_folder / "checkpoints.safetensors")
    assert [facts["round"] for facts, _ in kept if facts["kind"] == "round"] == [2, 6]
    assert all(facts["target_loss"] == 2 for facts, _ in kept if facts["kind"] == "loss")
    federate(tmp_path, "--method", "uncompressed", "--participation", "0.3")
    said = capsys.readouterr().out
    assert f"weights: {tmp_path}/model.safetensors" in said and f"record:  {tmp_path}/record.json" in said
    assert read_record(tmp_path / "record.json")["participants"] == 2


def test_the_spectrum_of_its_checkpoint_averages_over_its_own_training_examples(run_folder, tmp_path):
    words = [
        "spectrum",
        "--checkpoint",
        str(run_folder / "model.safetensors"),
        "--dataset",
        "digits",
        "--device",
        "cpu",
    ]
    words += ["--operators", "hessian", "--lanczos-steps", "12", "--deflation-rank", "3", "--output", str(tmp_path)]
    main(words)
    record, run = read_record(tmp_path / "record.json"), read_record(run_folder / "record.json")
    assert (record["n"], record["p"]) == (60, run["p"])
    assert record["mean_loss"] == pytest.approx(run["train_loss"], rel=1e-6)
    assert (tmp_path / "spectrum.png").stat().st_size > 0


def test_every_setting_is_a_flag_with_its_default_and_its_words():
    text = parser()._subparsers._group_actions[0].choices["federate"].format_help()
    said = " ".join(text.split())
    for field in fields(FederatedSettings):
        assert f"--{field.name.replace('_', '-')}" in text
        assert f"(default: {field.default})" in said
        assert field.metadata["help"] in said, field.name
        assert not field.metadata["choices"] or "{" + ",".join(field.metadata["choices"]) + "}" in said
    assert "{" + ",".join(FEDERATED) + "}" in said and "torchrun" in said and "examples:" in text
    for flag in ("--reduction", "--error-feedback", "--checkpoint-rounds", "--checkpoint-losses", "--save-every"):
        assert flag in text


def test_every_setting_reaches_the_federation(tmp_path):
    changed = {
        "participation": 0.5, "server_rate": 0.9, "decay_factor": 0.5, "weight_decay": 0.01, "partition": "dirichlet",
        "alpha": 3.0, "least_examples": 3, "placement": "shift",
        "fetch_rows": 3, "fetch_top": 0.2, "fetch_momentum": 0.5, "fetch_error": "subtract", "fetch_rate": "after",
        "chunk": 2, "micro_batch": 5, "local_batch_size": 3, "clients": 6, "rounds": 2, "local_steps": 3,
        "learning_rate": 0.02,
    }  # fmt: skip
    words = [word for key, value in changed.items() for word in (f"--{key.replace('_', '-')}", value)]
    federate(tmp_path, "--method", "fetch_sgd", "--reduction", 3, "--no-fetch-masking", *words, sizes=[])
    stored = read_record(tmp_path / "record.json")["settings"]
    assert all(stored.pop(key) == value for key, value in {**changed, "fetch_masking": False}.items())
    others = {"rows": 2, "hashes": "fixed", "shards_per_client": 3}
    words = [word for key, value in others.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    given = parser().parse_args(["federate", *DATA, *NETWORK, "--output", str(tmp_path), *words])
    assert stored.keys() == others.keys() and asdict(settings_from(given, FederatedSettings)).items() >= others.items()
    defaults = FederatedSettings()
    assert all(value != getattr(defaults, key) for key, value in {**changed, **others}.items())


def test_two_processes_of_torchrun_write_what_one_writes(run_folder, tmp_path):
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "hessketch"]
    words = ["federate", *DATA, *NETWORK, *SMALL, *SKETCHED, *KEPT, "--threads", "1", "--output", str(tmp_path / "two")]
    done = subprocess.run([*run, *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("weights: ") == 1
    assert {path.name for path in (tmp_path / "two").iterdir()} == set(FILES)
    one, two = (read_record(folder / "record.json") for folder in (run_folder, tmp_path / "two"))
    assert (one["processes"], two["processes"]) == (1, 2)
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-5)
    expected = read_tensors(run_folder / "model.safetensors")[0]
    for name, tensor in read_tensors(tmp_path / "two/model.safetensors")[0].items():
        assert (tensor - expected[name]).abs().max() <= 1e-6 * max(1.0, float(tensor.abs().max())), name
    rounds = [read_table(folder / "rounds.parquet") for folder in (run_folder, tmp_path / "two")]
    assert rounds[1]["train_loss"].tolist() == pytest.approx(rounds[0]["train_loss"].tolist(), rel=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "--method top_r --reduction 4 --fetch-momentum .5",
            "fetch_momentum: 0.5 given, which method top_r does not read; allowed: its default, 0.0; leave it out, or "
            "give method fetch_sgd",
        ),
        (
            "--method fetch_sgd --reduction 4 --rows 3",
            "rows: 3 given, which method fetch_sgd does not read; allowed: its default, 1; leave it out, or give "
            "method count_sketch",
        ),
        ("--method uncompressed --alpha 0.1", "alpha: 0.1 given, which partition iid does not read"),
        ("--method count_sketch", "count_sketch without a reduction; write for example count_sketch-x10"),
        ("--method top_r --reduction 0.5", "a reduction of 0.5; allowed: finite and at least 1"),
        ("--reduction nan", "allowed: finite and at least 1"),
        ("--reduction 1e6", "with 8378 parameters; allowed: from 1 to 8378;"),
        ("--method top_r --reduction 5000", "with 8378 parameters; allowed: from 1 to 4189;"),
        ("--method fetch_sgd --reduction 5000 --fetch-rows 3", "with 8378 parameters; allowed: from 1 to 2792."),
        ("--method uncompressed --reduction 10", "it sends everything"),
        ("--method uncompressed --error-feedback", "no error is left to feed back"),
        ("--method fetchsgd --reduction 10", "invalid choice: 'fetchsgd'"),
        ("--method fetch_sgd --reduction 10 --fetch-rows 4", "fetch_rows: 4 given; allowed: an odd number"),
        ("--reduction 10 --clients 61", "61 clients and 60 examples; allowed: at most 60 clients"),
        ("--reduction 10 --clients 60", "batch norm over a single example"),
        ("--reduction 10 --local-batch-size 1", "local_batch_size is 1"),
        (
            "--reduction 10 --clients 20 --partition dirichlet --alpha 0.01",
            "the smallest client has 0, allowed: at least 1; choose a larger alpha",
        ),
        ("--reduction 10 --partition iit", "invalid choice: 'iit'"),
        ("--reduction 10 --partition shards --shards-per-client 30", "allowed: at most 8 shards each"),
        ("--reduction 10 --participation 0", "participation: 0.0 given; allowed: a number in (0, 1]"),
        ("--reduction 10 --checkpoint-rounds 7", "weights of round 7 asked for; allowed: rounds 1 to 6"),
        ("--reduction 10 --checkpoint-rounds 0", "whole number of at least 1"),
        ("--reduction 10 --dataset digitz", "nearest valid name: digits"),
    ],
)
def test_what_a_user_may_get_wrong_is_said_with_what_is_allowed_and_nothing_is_written(
    words, message, tmp_path, capsys
):
    with pytest.raises(SystemExit) as stopped:
        federate(tmp_path / "out", *words.split())
    assert stopped.value.code != 0
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said
    assert not (tmp_path / "out").exists()
