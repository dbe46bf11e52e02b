"""The section `federation` of a profile: its runs, and every mistake named at once with its key and what is allowed."""

import re
from copy import deepcopy
from dataclasses import fields

import numpy as np
import pytest
import yaml
from sound_config import CONFIG, PROFILES, SCHEMA, SOUND

from hessketch.config import config_problems, data_problems, fill_defaults, runs_of
from hessketch.curvature.losses import LOSSES
from hessketch.errors import InputError
from hessketch.federated.job import seeds_of
from hessketch.federated.partition import KINDS, partition, partition_seed
from hessketch.federated.settings import FederatedSettings
from hessketch.federation_config import (
    SWEEP,
    federated_runs_of,
    group_of,
    reduction_problems,
    settings_of,
    spectra_of,
    trainers_of,
)
from hessketch.runs import Run
from hessketch.seeds import derive_seed
from hessketch.trainers import NAMED, trainer_columns

FEDERATION = {
    "datasets": {"digits": {"examples_per_class": 10, "test_examples_per_class": 3}},
    "networks": [{"name": "mlp", "norm": "none", "width": 0.0625}],
    "seeds": [0, 1],
    "methods": ["uncompressed", "count_sketch", "top_r_ef"],
    "reductions": [2.5, 20],
    "learning_rates": [0.1, 0.03],
    "clients": 4,
}


def federated(**changes):
    """SOUND with a section `federation`, some of its keys changed."""
    return {**deepcopy(SOUND), "federation": {**deepcopy(FEDERATION), **changes}}


def digits(**changes):
    return {"digits": {**FEDERATION["datasets"]["digits"], **changes}}


def test_a_sound_federation_has_no_problem_and_asks_for_every_combination_once():
    config = federated()
    assert config_problems(config, SCHEMA) == []
    filled = fill_defaults(config, SCHEMA)
    runs = federated_runs_of(filled)
    assert len(runs) == len({run.path for run in runs}) == 5 * 2 * 2
    assert {run.trainer for run in runs} == {
        "uncompressed", "count_sketch-x2.5", "count_sketch-x20", "top_r_ef-x2.5", "top_r_ef-x20"
    }  # fmt: skip
    assert len({group_of(run) for run in runs}) == 5
    assert all(run.path.startswith(group_of(run) + "/lr") for run in runs)
    assert all(Run.from_path(run.path) == run for run in runs)
    assert all(run.trainer == "sgd" for run in runs_of(filled)) and len(runs_of(filled)) == 2


def test_a_config_without_the_section_has_no_federated_run():
    filled = fill_defaults(SOUND, SCHEMA)
    assert "federation" not in filled and federated_runs_of(filled) == [] and reduction_problems(filled) == []


def test_all_examples_are_a_run_of_their_own():
    filled = fill_defaults(federated(datasets=digits(examples_per_class="all")), SCHEMA)
    assert {run.examples_per_class for run in federated_runs_of(filled)} == {None}
    assert config_problems(federated(datasets=digits(examples_per_class="all"), clients=1297), SCHEMA) == []


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"methods": ["count_sketsch"]},
            "federation.methods.0.: .* unknown; allowed: .*; nearest valid name: count_sketch",
        ),
        ({"reductions": [0.9]}, "federation.reductions.0.: 0.9 given; allowed: a number at least 1"),
        ({"reductions": []}, "federation.reductions: empty"),
        ({"methods": None}, "federation.methods: None is NoneType; allowed: a list"),
        ({"learning_rates": ["1e-2"]}, "YAML reads 1e-2 as text, write 0.01"),
        ({"client": 4}, "federation.client: unknown key; allowed: .*; nearest valid name: clients"),
        ({"datasets": {"digitz": digits()["digits"]}}, "federation.datasets.digitz: unknown data set .*name: digits"),
        ({"datasets": digits(examples_per_class=999)}, "federation.datasets.digits.examples_per_class: 999 given"),
        ({"datasets": digits(label_noise=1)}, "label_noise: 1 given; allowed: a number at least 0 below 1"),
        ({"clients": 101}, "federation.clients: 101 given, datasets.digits has 100 training examples; .* at most 100"),
        ({"clients": 1298, "datasets": digits(examples_per_class="all")}, "has 1297 training examples"),
        ({"fetch_rows": 2}, "federation.fetch_rows: 2 given, but a median needs an odd number of rows"),
        ({"checkpoint_rounds": [201]}, "checkpoint_rounds: 201 is beyond the 200 rounds; allowed: 1 to 200"),
        ({"checkpoint_losses": [0]}, "federation.checkpoint_losses.0.: 0 given; allowed: a number above 0"),
        ({"spectra_of": ["topr-x2"]}, "federation.spectra_of: .*topr-x2.*nearest valid name: top_r"),
        (
            {"spectra_of": ["top_r_ef-x2.6"]},
            "top_r_ef-x2.6 is not among the trainers .*nearest valid name: top_r_ef-x2.5",
        ),
        ({"spectra_of": ["uncompressed"]}, "spectra_of: no weights are kept for it; give checkpoint_rounds or"),
        (
            {"partition": "dirichlet", "alpha": 0.001, "clients": 50},
            "federation.partition: datasets.digits, seed 0: .*0.001.*choose a larger alpha",
        ),
        ({"partition": "shards", "shards_per_client": 30}, "federation.partition: datasets.digits, seed 0: "),
        ({"least_examples": 26}, "federation.partition: datasets.digits, seed 0: .*26"),
        (
            {"partition": "dirichlet", "datasets": digits(label_noise=0.2)},
            "federation.datasets.digits.label_noise: 0.2 given; allowed with partition dirichlet: 0, .*partition: iid",
        ),
        (
            {"networks": [{"name": "vgg11"}], "datasets": {"clusters-k3-d5-s4": digits()["digits"]}},
            "federation.networks: vgg11 needs images, clusters-k3-d5-s4 holds vectors; allowed there: mlp, mlp_tanh",
        ),
        (
            {"networks": [{"name": "mlp"}], "local_batch_size": 1},
            "federation.local_batch_size: 1 given; allowed with batch norm: 0 or at least 2; or write norm: group",
        ),
        (
            {"networks": [{"name": "mlp", "norm": "batch"}], "clients": 100},
            "federation.clients: of datasets.digits a client has a single example, whose batch norm has no variance",
        ),
    ],
)
def test_a_mistake_in_the_federation_is_named_with_its_key_and_what_is_allowed(changes, line):
    problems = config_problems(federated(**changes), SCHEMA)
    assert [p for p in problems if re.search(line, p)], problems


@pytest.mark.parametrize("given", [[], 3, "all", None, {"datasets": []}, {"seeds": "0", "clients": "4"}])
def test_a_federation_of_the_wrong_shape_is_named_without_a_crash(given):
    problems = config_problems({**SOUND, "federation": given}, SCHEMA)
    assert problems and all(line.startswith("federation") for line in problems)


@pytest.mark.parametrize("kind", ["iid", "shards"])
def test_noisy_labels_are_allowed_where_the_sizes_of_a_split_do_not_depend_on_labels(kind):
    """With 7 clients of 100 examples sizes differ, and from a split to the other the clients that are larger."""
    assert config_problems(federated(partition=kind, datasets=digits(label_noise=0.2), clients=7), SCHEMA) == []
    clean = np.repeat(np.arange(10), 10)
    noisy = np.random.default_rng(0).integers(0, 10, 100)
    sizes = [[[len(part) for part in partition(labels, 7, kind, s)] for s in range(20)] for labels in (clean, noisy)]
    assert sizes[0] == sizes[1] and len(set(sizes[0][0])) > 1


def test_sizes_of_a_dirichlet_split_depend_on_the_noise_of_labels():
    """Which is why the two together are refused: a split that passes a check without noise may fail with it."""
    clean = np.repeat(np.arange(10), 10)
    noisy = np.random.default_rng(0).integers(0, 10, 100)
    sizes = [[len(part) for part in partition(labels, 7, "dirichlet", 0)] for labels in (clean, noisy)]
    assert sizes[0] != sizes[1]
    assert config_problems(federated(partition="dirichlet", datasets=digits(label_noise=0)), SCHEMA) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_least_number_of_examples_holds_for_every_partition(kind):
    changes = {"partition": kind, "alpha": 1000.0, "least_examples": 26}
    assert [line for line in config_problems(federated(**changes), SCHEMA) if "at least 26" in line]


def test_without_a_known_method_nothing_is_said_of_the_trainers_of_spectra():
    changes = {"methods": ["count_sketsch"], "spectra_of": ["count_sketch-x20"], "checkpoint_rounds": [1]}
    (line,) = config_problems(federated(**changes), SCHEMA)
    assert line.startswith("federation.methods[0]: 'count_sketsch' is unknown")


def test_the_split_that_is_checked_is_the_one_that_will_be_made():
    """By class counts alone, as the simulation derives it: sizes of a Dirichlet division do not depend on the order."""
    (run, *_) = federated_runs_of(fill_defaults(federated(), SCHEMA))
    assert seeds_of(run)["partition"] == partition_seed(0, "digits", 10) == derive_seed(0, "digits/n10", "partition")
    everything = federated_runs_of(fill_defaults(federated(datasets=digits(examples_per_class="all")), SCHEMA))[0]
    every = partition_seed(0, "digits", None)
    assert seeds_of(everything)["partition"] == every == derive_seed(0, "digits/nall", "partition")
    seed = seeds_of(run)["partition"]
    shuffled = [label for _ in range(10) for label in (3, 1, 4, 0, 5, 9, 2, 6, 8, 7)]
    in_order = sorted(shuffled)
    sizes = [
        [len(part) for part in partition(np.array(labels), 4, "dirichlet", seed, alpha=0.5)]
        for labels in (shuffled, in_order)
    ]
    assert sizes[0] == sizes[1] and len(set(sizes[0])) > 1


def test_reductions_that_leave_nothing_to_send_are_named_with_the_most_allowed():
    config = fill_defaults(
        federated(methods=["uncompressed", "count_sketch", "top_r", "fetch_sgd"], reductions=[10, 4000, 10000, 17000]),
        SCHEMA,
    )
    parameters = 1024 * 16 + 16 + 16 * 16 + 16 + 16 * 10 + 10
    lines = reduction_problems(config)
    assert len(lines) == 1 + 2 + 3
    for method, most in (("count_sketch", parameters), ("top_r", parameters / 2), ("fetch_sgd", parameters / 5)):
        (line,) = [line for line in lines if f"{method}-x17000" in line]
        assert line.startswith("federation.reductions: mlp of width 0.0625 on digits: ")
        assert re.search(rf"\b{most:g}\b", line), (line, most)


def test_rows_that_leave_no_reduction_are_named_once_with_their_own_key():
    methods = ["count_sketch", "count_sketch_ef", "fetch_sgd", "top_r"]
    config = fill_defaults(federated(methods=methods, rows=100000, fetch_rows=100001), SCHEMA)
    parameters = 1024 * 16 + 16 + 16 * 16 + 16 + 16 * 10 + 10
    where = "mlp of width 0.0625 on digits"
    rows, fetch_rows = reduction_problems(config)
    assert rows.startswith(f"federation.rows: {where}: count_sketch: rows: 100000 given with {parameters} parameters")
    assert f"allowed: from 1 to {parameters};" in rows
    assert fetch_rows.startswith(f"federation.fetch_rows: {where}: fetch_sgd: fetch_rows: 100001 given")
    assert f"allowed: from 1 to {parameters - 1}, odd;" in fetch_rows


def test_the_schema_of_a_federation_is_that_of_the_package():
    section = SCHEMA["properties"]["federation"]["properties"]
    assert section["methods"]["items"]["enum"] == list(NAMED)
    assert section["losses"]["items"]["enum"] == list(LOSSES)
    assert section["networks"] == SCHEMA["properties"]["networks"]
    settings = {field.name: field for field in fields(FederatedSettings)}
    assert set(section) == (set(settings) - {"learning_rate"}) | set(SWEEP)
    for name, field in settings.items():
        if name == "learning_rate":
            continue
        assert section[name]["default"] == field.default and type(section[name]["default"]) is type(field.default)
        assert section[name].get("enum") == (list(field.metadata["choices"]) if field.metadata["choices"] else None)
    filled = fill_defaults(federated(), SCHEMA)["federation"]
    assert FederatedSettings(**settings_of(filled)) == FederatedSettings(clients=4)


@pytest.mark.parametrize(
    "name", sorted(field.name for field in fields(FederatedSettings) if field.type in ("int", int))
)
def test_what_the_schema_allows_the_package_allows(name):
    """The least whole number of the schema is sound, the one below is refused by both."""
    if name in ("seed", "learning_rate"):
        return
    least = SCHEMA["properties"]["federation"]["properties"][name]["minimum"]
    FederatedSettings(**{name: least})
    with pytest.raises(InputError, match=name):
        FederatedSettings(**{name: least - 1})


def test_labels_and_columns_of_trainers():
    filled = fill_defaults(federated(spectra_of=["count_sketch-x2.50"], checkpoint_rounds=[1]), SCHEMA)["federation"]
    assert spectra_of(filled) == ["count_sketch-x2.5"]
    assert [trainer.label for trainer in trainers_of(filled)][:2] == ["uncompressed", "count_sketch-x2.5"]
    run = federated_runs_of({"federation": filled})[-1]
    assert trainer_columns(run) == {"method": "top_r", "error_feedback": True, "reduction": 20.0}


def test_the_papers_federation_is_that_of_figure_1():
    """Shrivastava et al. 2024: 100 clients, 5 full-batch local steps, three methods with and without error feedback."""
    filled = fill_defaults(yaml.safe_load((CONFIG / "paper.yaml").read_text()), SCHEMA)["federation"]
    settings = FederatedSettings(**settings_of(filled))
    assert (settings.clients, settings.local_steps, settings.local_batch_size) == (100, 5, 0)
    assert filled["methods"] == list(NAMED) and len(filled["seeds"]) >= 3
    assert filled["reductions"] == [10, 50, 100, 500, 1000]


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_the_shipped_federations_can_be_reduced_as_they_ask(path):
    assert reduction_problems(fill_defaults(yaml.safe_load(path.read_text()), SCHEMA)) == []


def test_data_of_the_federation_are_looked_for_too(tmp_path):
    config = {"datasets": {"digits": {}}, "federation": {"datasets": {"mnist": {}}}, "data_folder": str(tmp_path)}
    (line,) = data_problems(config, lambda url: False)
    assert "holds no files of mnist" in line


def test_two_spellings_of_one_reduction_are_named():
    (line,) = config_problems(federated(reductions=[10, 10.0000000000001]), SCHEMA)
    assert re.match("config: asks 2 times for digits/noise0/n10/mlp-.*/count_sketch-x10/", line)


def test_a_sketch_with_rows_and_a_fetched_share_are_settings_of_the_package():
    filled = fill_defaults(federated(rows=3, fetch_top=0.5, fetch_masking=False), SCHEMA)["federation"]
    settings = FederatedSettings(**settings_of(filled))
    assert (settings.rows, settings.fetch_top, settings.fetch_masking) == (3, 0.5, False)
