"""Every mistake in the section `predictor_hessian`, named with its key."""

import pytest
from followed_config import FEDERATION, PREDICTORS, named, predicting
from sound_config import SCHEMA

from hessketch.config import config_problems
from hessketch.trajectory_configs import (
    PREDICTOR,
)

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
