"""The sections `predictor_hessian` and `sgd_dynamics`: their runs, and every mistake named with its key."""

import re
import subprocess
import sys
from collections import Counter
from copy import deepcopy
from dataclasses import fields
from itertools import product

import pytest
import yaml
from sound_config import PROFILES, SCHEMA, SOUND

from hessketch.config import config_problems, data_problems, datasets_of, fill_defaults, runs_of
from hessketch.config_runs import job_of
from hessketch.curvature.losses import LOSSES
from hessketch.curvature.predictor_settings import ESTIMATORS, PredictorSettings
from hessketch.dynamics.job import DynamicsSettings
from hessketch.runs import Run
from hessketch.trainers import Trainer
from hessketch.training.trajectory import TrajectorySettings
from hessketch.trajectory_configs import (
    DYNAMICS,
    PREDICTOR,
    dynamics_runs_of,
    followed_size,
    predictor_runs_of,
    predictor_trainers_of,
    rank_problems,
    top_of,
)

MLP = {"name": "mlp", "norm": "none", "width": 0.05}
WIDER = {"name": "mlp", "norm": "none", "width": 0.1}
SMOOTH = {"name": "resnet18_smooth", "width": 0.0625}
PREDICTORS = {
    "datasets": {
        "digits-classes3+8": {
            "examples_per_class": 5,
            "learning_rates": {"binary_cross_entropy": 0.1, "mean_squared_error": 0.02},
        },
        "digits": {"examples_per_class": 2, "learning_rates": {"cross_entropy": 0.1}},
    },
    "networks": [SMOOTH, MLP],
    "seeds": [0, 1],
    "epochs": 20,
    "checkpoint_epochs": [0, 20],
    "examples": [0, 9],
}
OF_DIGITS = {"examples_per_class": [6, 3, 4], "label_noise": [0, 0.2], "learning_rate": 0.1, "networks": [MLP, WIDER]}
DYNAMIC = {
    "datasets": {
        "digits-8x8": OF_DIGITS,
        "clusters-k2-d50-s2": {"examples_per_class": [20], "learning_rate": 0.05, "networks": [MLP]},
    },
    "seeds": [0, 1],
    "batch_sizes": [10, "all"],
    "steps": 100,
    "checkpoint_steps": [0, 100],
}
FEDERATION = {
    "datasets": {"digits": {"examples_per_class": 10, "test_examples_per_class": 3}},
    "networks": [MLP],
    "seeds": [0],
    "methods": ["uncompressed", "count_sketch", "top_r_ef"],
    "reductions": [10, 50],
    "learning_rates": [0.1],
    "clients": 4,
    "checkpoint_rounds": [1],
}


def with_sections(**sections):
    return {**deepcopy(SOUND), **deepcopy(sections)}


def predicting(federation=None, **changes):
    """SOUND with a section `predictor_hessian`, some of its keys changed."""
    federation = {} if federation is None else {"federation": federation}
    return with_sections(**{PREDICTOR: {**PREDICTORS, **changes}, **federation})


def moving(digits=None, **changes):
    """SOUND with a section `sgd_dynamics`, some of its keys, or of its first data set, changed."""
    section = deepcopy({**DYNAMIC, **changes})
    if digits is not None:
        section["datasets"]["digits-8x8"].update(digits)
    return with_sections(**{DYNAMICS: section})


def filled(config):
    assert config_problems(config, SCHEMA) == []
    return fill_defaults(config, SCHEMA)


def smooth_on(dataset):
    return moving(datasets={dataset: {**OF_DIGITS, "networks": [{**SMOOTH, "norm": "group"}]}})


def test_predictors_have_a_run_for_each_network_loss_and_seed_at_the_rate_of_its_loss():
    config = filled(predicting())
    runs = predictor_runs_of(config)
    assert len(runs) == len({run.path for run in runs}) == (2 + 1) * 2 * 2
    assert all(Run.from_path(run.path) == run for run in runs)
    assert {(run.dataset, run.examples_per_class, run.loss, run.learning_rate) for run in runs} == {
        ("digits-classes3+8", 5, "binary_cross_entropy", 0.1),
        ("digits-classes3+8", 5, "mean_squared_error", 0.02),
        ("digits", 2, "cross_entropy", 0.1),
    }
    assert {run.network_label for run in runs} == {"resnet18_smooth-batch-w0.0625", "mlp-none-w0.05"}
    assert {(run.trainer, run.label_noise) for run in runs} == {("sgd-full", 0)}
    assert {run.seed for run in runs} == {0, 1}
    mini = predictor_runs_of(filled(predicting(batch_size=5)))
    assert {run.trainer for run in mini} == {"sgd-b5"} and len(mini) == len(runs)


def test_dynamics_cross_noise_and_batch_size_for_the_first_network_alone():
    config = filled(moving())
    runs = dynamics_runs_of(config)
    assert len(runs) == len({run.path for run in runs})
    assert all(Run.from_path(run.path) == run for run in runs)
    digits = [run for run in runs if run.dataset == "digits-8x8"]
    found = Counter((run.width, run.label_noise, run.trainer, run.examples_per_class) for run in digits)
    first = product([0.05], [0, 0.2], ["sgd-b10", "sgd-full"], [6])
    wider = product([0.1], [0, 0.2], ["sgd-b10"], [6])
    fewer = product([0.05], [0], ["sgd-b10"], [3, 4])
    assert found == dict.fromkeys([*first, *wider, *fewer], 2)  # seeds
    clusters = [run for run in runs if run.dataset != "digits-8x8"]
    assert Counter((run.trainer, run.label_noise, run.learning_rate) for run in clusters) == {
        ("sgd-b10", 0, 0.05): 2, ("sgd-full", 0, 0.05): 2,
    }  # fmt: skip
    assert {run.loss for run in runs} == {"cross_entropy"}
    assert {followed_size(config, run) for run in digits} == {6} and followed_size(config, clusters[0]) == 20


def test_the_first_batch_size_may_be_all():
    runs = dynamics_runs_of(filled(moving(batch_sizes=["all", 10])))
    assert {run.trainer for run in runs if run.width == 0.1 or run.examples_per_class == 3} == {"sgd-full"}


def test_a_config_without_the_sections_has_no_followed_run():
    config = fill_defaults(SOUND, SCHEMA)
    assert PREDICTOR not in config and DYNAMICS not in config
    assert predictor_runs_of(config) == dynamics_runs_of(config) == rank_problems(config) == []
    assert predictor_trainers_of(config) == []


def test_other_runs_and_sections_stay_as_they_are():
    assert runs_of(filled(moving())) == runs_of(filled(predicting())) == runs_of(filled(SOUND))


def test_runs_of_a_data_set_and_network_share_a_job_unless_each_is_to_have_one():
    config = filled(moving())
    runs = dynamics_runs_of(config)
    jobs = Counter(job_of(config[DYNAMICS], run) for run in runs)
    assert jobs == {
        "digits-8x8/mlp-none-w0.05": 12, "digits-8x8/mlp-none-w0.1": 4, "clusters-k2-d50-s2/mlp-none-w0.05": 4,
    }  # fmt: skip
    config = filled(moving(runs_per_job="one"))
    assert [job_of(config[DYNAMICS], run) for run in runs] == [run.path for run in runs]


def test_as_many_eigenvalues_are_followed_as_there_are_classes_or_as_is_said():
    section = filled(moving())[DYNAMICS]
    assert [top_of(section, name) for name in section["datasets"]] == [10, 2]
    section = filled(moving(top=7))[DYNAMICS]
    assert [top_of(section, name) for name in section["datasets"]] == [7, 7]


def test_data_of_both_sections_are_prepared_and_looked_for(tmp_path):
    config = {**predicting(), DYNAMICS: DYNAMIC}
    assert datasets_of(config) == ["digits", "digits-classes3+8", "digits-8x8", "clusters-k2-d50-s2"]
    of_network = {"datasets": {"digits": {}}, "data_folder": str(tmp_path)}
    for section, name in ((PREDICTOR, "mnist"), (DYNAMICS, "cifar10-grey16x16")):
        (line,) = data_problems({**of_network, section: {"datasets": {name: {}}}}, lambda url: False)
        assert f"holds no files of {name.partition('-')[0]} (" in line


def test_trainers_of_predictors_are_those_of_the_federation_however_they_are_spelled():
    config = filled(predicting(FEDERATION, trainers=["count_sketch-x10.0", "uncompressed"]))
    assert predictor_trainers_of(config) == ["count_sketch-x10", "uncompressed"]


PREDICTOR_MISTAKES = [
    ({"checkpoint_epochs": [0, 21, 30]}, "checkpoint_epochs: 21 is beyond the 20 epochs; allowed: 0 to 20"),
    ({"checkpoint_epochs": [0, 21, 30]}, "checkpoint_epochs: 30 is beyond the 20 epochs; allowed: 0 to 20"),
    ({"checkpoint_epochs": [-1]}, r"checkpoint_epochs\[0\]: -1 given; allowed: a whole number at least 0"),
    ({"checkpoint_epochs": []}, "checkpoint_epochs: empty; allowed: a list with at least 1 entry"),
    (
        {"examples": [3, 10]},
        r"examples: 10 given, datasets.digits-classes3\+8 has 10 training examples; allowed: 0 to 9; or give more",
    ),
    ({"examples": [20]}, "examples: 20 given, datasets.digits has 20 training examples; allowed: 0 to 19"),
    ({"examples": [-1]}, r"examples\[0\]: -1 given; allowed: a whole number at least 0"),
    ({"examples": [1, 1]}, "examples: holds an entry twice"),
    ({"examples": [1.5]}, r"examples\[0\]: 1.5 is float; allowed: a whole number"),
    ({"batch_size": 11}, r"batch_size: 11 given, datasets.digits-classes3\+8 has 10 training examples; .* at most 10"),
    ({"batch_size": 1}, "batch_size: 1 given; allowed with batch norm: at least 2"),
    ({"momentum": 1}, "momentum: 1 given; allowed: a number at least 0 below 1"),
    ({"grid_points": 64}, "grid_points: 64 given; allowed: at least as many as the 100 lanczos_steps"),
    ({"fast_steps": 2000}, "grid_points: 1024 given; allowed: at least as many as the 2000 fast_steps"),
    ({"estimators": ["papre"]}, r"estimators\[0\]: 'papre' is unknown; allowed: .*; nearest valid name: paper"),
    ({"epoch": 3}, "epoch: unknown key; allowed: .*; nearest valid name: epochs"),
    ({"exampels": [0]}, "exampels: unknown key; allowed: .*; nearest valid name: examples"),
    ({"seeds": []}, "seeds: empty"),
    ({"runs_per_job": "two"}, "runs_per_job: 'two' is unknown; allowed: one of group, one"),
    ({"trainers": ["count_sketsch-x10"]}, "trainers: 'count_sketsch-x10' is no trainer; .* valid name: count_sketch"),
    ({"trainers": ["count_sketch"]}, "trainers: count_sketch without a reduction; write for example count_sketch-x10"),
]
OF_DATASETS = [
    ("digitz", {}, "datasets.digitz: unknown data set .*nearest valid name: digits"),
    ("digits-classes3+8", {"examples_per_class": 200}, "examples_per_class: 200 given, the smallest class has 1"),
    ("digits-classes3", {}, "at least two different classes from 0 to 9"),
    ("digits-9x9", {}, "9x9 given; allowed: exactly SIDExSIDE, SIDE a whole number from 1 to 8"),
    ("digits", {"learning_rates": {"hinge": 0.1}}, "hinge: unknown key; allowed: cross_entropy, binary_cross_entropy"),
    ("digits", {"learning_rates": {}}, "learning_rates: empty; allowed: a mapping with at least 1 entry"),
    ("digits", {"learning_rates": {"cross_entropy": 0}}, "cross_entropy: 0 given; allowed: a number above 0"),
    ("digits", {"learning_rates": {"cross_entropy": "1e-2"}}, "YAML reads 1e-2 as text, write 0.01"),
    ("clusters-k3-d5-s2", {}, "networks: resnet18_smooth needs images, clusters-k3-d5-s2 holds vectors; .*: mlp"),
    ("digits-8x8", {}, "networks: resnet18_smooth needs images of 32x32, those of digits-8x8 are 8x8; .*: mlp"),
    ("cifar10-grey16x16", {}, "resnet18_smooth needs images of 32x32, those of cifar10-grey16x16 are 16x16"),
]
OF_DATASETS = [
    ({"datasets": {name: {**PREDICTORS["datasets"]["digits"], **changes}}, "examples": [0]}, line)
    for name, changes, line in OF_DATASETS
]


@pytest.mark.parametrize(("changes", "line"), PREDICTOR_MISTAKES + OF_DATASETS)
def test_a_mistake_in_the_predictors_is_named_with_its_key_and_what_is_allowed(changes, line):
    assert named(PREDICTOR, line, predicting(FEDERATION, **changes))


def named(section, line, config):
    """Whether a line that begins with the section's name says so; all lines where none does."""
    problems = config_problems(config, SCHEMA)
    assert [p for p in problems if re.match(rf"{section}\..*{line}", p)], problems
    return True


def test_trainers_that_the_federation_lacks_are_named_with_the_nearest_one():
    config = predicting(FEDERATION, trainers=["top_r_ef-x500", "uncompressed"])
    (line,) = config_problems(config, SCHEMA)
    assert line.startswith("predictor_hessian.trainers: top_r_ef-x500 is not among the trainers of federation; ")
    assert "allowed: uncompressed, count_sketch-x10, count_sketch-x50, top_r_ef-x10, top_r_ef-x50;" in line
    assert line.endswith("nearest valid name: top_r_ef-x50")


def test_trainers_without_a_federation_are_refused():
    (line,) = config_problems(predicting(trainers=["uncompressed"]), SCHEMA)
    assert line.startswith("predictor_hessian.trainers: uncompressed is not among the trainers of federation; ")
    assert line.endswith("allowed: none without a section federation")


def test_trainers_whose_rounds_are_not_kept_are_refused():
    without = {key: value for key, value in FEDERATION.items() if key != "checkpoint_rounds"}
    for federation in (without, {**without, "checkpoint_losses": [1.0]}):
        (line,) = config_problems(predicting(federation, trainers=["uncompressed"]), SCHEMA)
        assert line == ("predictor_hessian.trainers: no rounds of them are kept; give federation.checkpoint_rounds")
    assert config_problems(predicting(without), SCHEMA) == []


def test_where_the_federation_names_no_known_method_nothing_is_said_of_trainers():
    config = predicting({**FEDERATION, "methods": ["count_sketsch"]}, trainers=["count_sketch-x10"])
    (line,) = config_problems(config, SCHEMA)
    assert line.startswith("federation.methods[0]: 'count_sketsch' is unknown")


def test_examples_must_exist_among_those_of_the_federation_too_where_its_networks_are_looked_at():
    few = {**FEDERATION, "datasets": {"digits-classes3+8": {"examples_per_class": 4, "test_examples_per_class": 3}}}
    (line,) = config_problems(predicting(few, trainers=["uncompressed"]), SCHEMA)
    assert line.startswith(
        "predictor_hessian.examples: 9 given, federation.datasets.digits-classes3+8 has 8 training examples; "
    )
    assert config_problems(predicting(few), SCHEMA) == []


DYNAMICS_MISTAKES = [
    ({"checkpoint_steps": [0, 101]}, "checkpoint_steps: 101 is beyond the 100 steps; allowed: 0 to 100"),
    ({"checkpoint_steps": [0, -5]}, r"checkpoint_steps\[1\]: -5 given; allowed: a whole number at least 0"),
    ({"checkpoint_steps": [10, 100]}, "checkpoint_steps: without 0, the initial weights .*; add 0"),
    ({"steps": 0}, "steps: 0 given; allowed: a whole number at least 1"),
    ({"batch_sizes": [10, 61]}, "batch_sizes: 61 given, datasets.digits-8x8 has 60 training examples; .* at most 60"),
    ({"batch_sizes": [41]}, "batch_sizes: 41 given, datasets.clusters-k2-d50-s2 has 40 training examples"),
    ({"batch_sizes": [31]}, "batch_sizes: 31 given, datasets.digits-8x8 has 30 training examples"),
    ({"batch_sizes": [0]}, r"batch_sizes\[0\]: .*; allowed: a whole number at least 1 or the word all"),
    ({"batch_sizes": ["every"]}, "'every' is str; allowed: a whole number at least 1 or the word all"),
    ({"top": 40}, "top: 40 eigenvalues asked for, .* 40 training examples of datasets.clusters-k2-d50-s2 has rank 39"),
    ({"top": 60}, "top: 60 eigenvalues .* 60 training examples of datasets.digits-8x8 has rank 59 at most; .* 1 to 59"),
    ({"top": 0}, "top: .*; allowed: a whole number at least 1 or the word classes"),
    ({"top": "class"}, "top: 'class' is str; allowed: a whole number at least 1 or the word classes"),
    ({"digits": {"label_noise": [0, 1]}}, r"label_noise\[1\]: 1 given; allowed: a number at least 0 below 1"),
    ({"digits": {"label_noise": [-0.1]}}, r"label_noise\[0\]: -0.1 given; allowed: a number at least 0 below 1"),
    ({"digits": {"label_noise": [1.5]}}, r"label_noise\[0\]: 1.5 given; allowed: a number at least 0 below 1"),
    ({"digits": {"label_noise": 0.2}}, "label_noise: 0.2 is float; allowed: a list"),
    ({"digits": {"examples_per_class": [6, 200]}}, "examples_per_class: 200 given, the smallest class has 124"),
    ({"digits": {"examples_per_class": []}}, "examples_per_class: empty"),
    ({"digits": {"test_examples_per_class": 51}}, "test_examples_per_class: 51 given, the smallest class has 50"),
    ({"digits": {"networks": [{"name": "resnet18"}]}}, "networks: resnet18 needs images of 32x32, .* are 8x8; .*mlp"),
    ({"digits": {"networks": [{"name": "mpl"}]}}, r"networks\[0\].name: 'mpl' is unknown; .*nearest valid name: mlp"),
    ({"digits": {"learning_rates": [0.1]}}, "learning_rates: unknown key; .*nearest valid name: learning_rate"),
    ({"digits": {"learning_rate": "1e-1"}}, "YAML reads 1e-1 as text, write 0.1"),
    ({"batch_sizes": [1], "digits": {"networks": [{"name": "mlp"}]}}, "batch_sizes: 1 given; allowed with batch norm"),
    ({"batchsizes": [1]}, "batchsizes: unknown key; allowed: .*; nearest valid name: batch_sizes"),
    ({"loss": "cross_entrpy"}, "loss: 'cross_entrpy' is unknown; .*; nearest valid name: cross_entropy"),
    ({"confidence": 1}, "confidence: 1 given; allowed: a number above 0 below 1"),
    ({"bound_probability": 0.5}, "bound_probability: 0.5 given; allowed: a number above 0 below 0.5"),
    ({"samples": 1}, "samples: 1 given; allowed: a whole number at least 2"),
    ({"sigmas": [1, 0]}, r"sigmas\[1\]: 0 given; allowed: a number above 0"),
    ({"datasets": {"digits-8x9": OF_DIGITS}}, "datasets.digits-8x9: .*8x9 given; allowed: exactly SIDExSIDE"),
    ({"datasets": {}}, "datasets: empty; allowed: a mapping with at least 1 entry"),
]


@pytest.mark.parametrize(("changes", "line"), DYNAMICS_MISTAKES)
def test_a_mistake_in_the_dynamics_is_named_with_its_key_and_what_is_allowed(changes, line):
    assert named(DYNAMICS, line, moving(**changes))


def test_networks_of_images_are_refused_on_vectors_in_the_dynamics_too():
    assert named(
        DYNAMICS, "networks: resnet18_smooth needs images, clusters-k2-d5-s2 holds", smooth_on("clusters-k2-d5-s2")
    )
    assert config_problems(smooth_on("digits"), SCHEMA) == []


def test_batch_norm_is_refused_where_frozen_networks_are_held_against_their_training():
    networks = [{"name": "mlp", "norm": "none"}, {"name": "mlp", "norm": "batch"}]
    assert named(DYNAMICS, "norm batch given", moving(digits={"networks": networks}))
    assert named(DYNAMICS, "norm batch given", moving(digits={"networks": [{"name": "mlp"}]}))  # the default
    assert config_problems(moving(digits={"networks": [{"name": "mlp", "norm": "group"}]}), SCHEMA) == []


def test_the_full_batch_is_not_asked_for_twice():
    n = 10 * OF_DIGITS["examples_per_class"][0]
    assert named(DYNAMICS, f"all and {n} are the same", moving(batch_sizes=["all", n]))
    assert config_problems(moving(batch_sizes=["all", 30]), SCHEMA) == []


def test_all_mistakes_are_named_at_once():
    config = moving(checkpoint_steps=[0, 200], top=50, batch_sizes=[70], digits={"label_noise": [2]})
    problems = config_problems(config, SCHEMA)
    assert (
        len(problems) == 1 + 1 + 4 + 1
    )  # 50 is above the rank of 40 examples alone; 70 above every number of examples
    assert len(config_problems({**config, PREDICTOR: {**PREDICTORS, "examples": [10]}}, SCHEMA)) == 7 + 1


def test_only_the_first_number_of_examples_meets_every_batch_size_and_is_looked_at_along_the_way():
    """So of the others neither the second batch size nor the rank is checked."""
    few = {"examples_per_class": [6, 2]}
    assert config_problems(moving(digits=few, batch_sizes=[20, 30]), SCHEMA) == []
    assert config_problems(moving(digits=few, top=25), SCHEMA) == []
    assert len(config_problems(moving(digits=few, batch_sizes=[30, 20]), SCHEMA)) == 1


@pytest.mark.parametrize("section", [PREDICTOR, DYNAMICS])
@pytest.mark.parametrize(
    "given", [None, [], 3, "all", {}, {"datasets": []}, {"datasets": {"digits": 3}, "networks": 5, "seeds": "0"}]
)
def test_a_section_of_the_wrong_shape_is_named_without_a_crash(section, given):
    problems = config_problems({**SOUND, section: given}, SCHEMA)
    assert problems and all(line.startswith(section) for line in problems)


@pytest.mark.parametrize(
    ("config", "path"),
    [
        (
            predicting(networks=[{"name": "mlp"}, {"name": "mlp", "norm": "batch"}]),
            "digits-classes3.8/noise0/n5/mlp-batch",
        ),
        (moving({"networks": [MLP, {**MLP, "width": 0.0500000000000001}]}), "digits-8x8/noise0/n6/mlp-none-w0.05/"),
        (moving({"label_noise": [0.2, 0.2000000000001]}), "digits-8x8/noise0.2/n6/"),
    ],
)
def test_runs_that_are_asked_for_twice_are_named(config, path):
    (line,) = config_problems(config, SCHEMA)
    assert re.match(rf"config: asks 2 times for {path}.*; allowed: once; remove the repeated network", line)


def test_the_two_sections_may_ask_for_the_same_run():
    """Each study has trainings of its own."""
    predictors = {
        **PREDICTORS,
        "datasets": {"digits-8x8": {"examples_per_class": 6, "learning_rates": {"cross_entropy": 0.1}}},
        "networks": [MLP],
        "batch_size": 10,
    }
    config = filled({**moving(), PREDICTOR: predictors})
    assert {run.path for run in predictor_runs_of(config)} < {run.path for run in dynamics_runs_of(config)}


def test_more_eigenvalues_than_parameters_are_refused_with_how_many_there_are():
    small = {"name": "mlp", "norm": "none", "width": 0.001}  # one unit a layer
    datasets = {"clusters-k2-d5-s2": {"examples_per_class": [20], "learning_rate": 0.1, "networks": [small, MLP]}}
    p = (5 + 1) + (1 + 1) + 2 * (1 + 1)
    assert rank_problems(filled(moving(datasets=datasets, top=p))) == []
    (line,) = rank_problems(filled(moving(datasets=datasets, top=p + 1)))
    assert line == (
        f"sgd_dynamics.top: {p + 1} eigenvalues asked for, mlp of width 0.001 on clusters-k2-d5-s2 has {p} parameters; "
        f"allowed: at most {p}; or a wider network"
    )
    single = filled(moving(datasets=datasets, top=p, loss="binary_cross_entropy"))
    assert f"has {p - 2} parameters" in rank_problems(single)[0]  # one output instead of two


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_the_shipped_profiles_are_sound_and_their_networks_large_enough(path):
    config = yaml.safe_load(path.read_text())
    assert config_problems(config, SCHEMA) == []
    assert rank_problems(fill_defaults(config, SCHEMA)) == []


def test_the_demo_has_runs_of_both_sections():
    (demo,) = [path for path in PROFILES if path.stem == "demo"]
    config = fill_defaults(yaml.safe_load(demo.read_text()), SCHEMA)
    assert {run.loss for run in predictor_runs_of(config)} >= {"binary_cross_entropy", "mean_squared_error"}
    assert len({run.label_noise for run in dynamics_runs_of(config)}) >= 3
    assert len(predictor_trainers_of(config)) >= 2


def properties(section):
    return SCHEMA["properties"][section]["properties"]


def test_the_schema_of_both_sections_is_that_of_the_package():
    """Defaults as the commands have them, so that a key left out changes nothing."""
    predictor, dynamics = properties(PREDICTOR), properties(DYNAMICS)
    assert predictor["estimators"]["items"]["enum"] == list(ESTIMATORS)
    assert predictor["networks"] == SCHEMA["properties"]["networks"]
    rates = predictor["datasets"]["additionalProperties"]["properties"]["learning_rates"]["properties"]
    assert list(rates) == dynamics["loss"]["enum"] == list(LOSSES)
    for section, settings in (
        (predictor, PredictorSettings),
        (dynamics, DynamicsSettings),
        (predictor, TrajectorySettings),
    ):
        for field in fields(settings):
            if field.name in section and "default" in section[field.name] and field.name != "top":
                default = section[field.name]["default"]
                assert (tuple(default) if isinstance(default, list) else default) == field.default, field.name
    told = {field.name for settings in (PredictorSettings, TrajectorySettings) for field in fields(settings)}
    assert set(predictor) - told == {
        "datasets", "networks", "seeds", "epochs", "checkpoint_epochs", "examples", "trainers", "runs_per_job",
    }  # fmt: skip
    told = {field.name for settings in (DynamicsSettings, TrajectorySettings) for field in fields(settings)}
    assert set(dynamics) - told == {
        "datasets", "loss", "seeds", "batch_sizes", "checkpoint_steps", "sigmas", "runs_per_job",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("section", "settings", "name"),
    [
        (section, settings, field.name)
        for section, settings in ((PREDICTOR, PredictorSettings), (DYNAMICS, DynamicsSettings))
        for field in fields(settings)
        if field.type in ("int", int)
        and field.name in properties(section)
        and "minimum" in properties(section)[field.name]
    ],
)
def test_what_the_schema_allows_the_package_allows(section, settings, name):
    settings(
        **{name: properties(section)[name]["minimum"]} | ({"fast_steps": 2} if settings is PredictorSettings else {})
    )


def test_every_followed_run_says_its_batches_in_its_trainer():
    for run in [*predictor_runs_of(filled(predicting())), *dynamics_runs_of(filled(moving()))]:
        assert Trainer.parse(run.trainer).batch_size is not None


@pytest.mark.parametrize("module", ["hessketch.trajectory_configs", "hessketch.publishing"])
def test_neither_torch_nor_pandas_is_imported(module):
    check = (
        f"import sys, {module}; found = {{'torch', 'pandas'}} & set(sys.modules); sys.exit(str(found) if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
