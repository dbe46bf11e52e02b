"""Every mistake in the section `sgd_dynamics` named with its key; both sections against the package."""

import re
import subprocess
import sys
from dataclasses import fields

import pytest
import yaml
from followed_config import MLP, OF_DIGITS, PREDICTORS, SMOOTH, filled, moving, named, predicting
from sound_config import PROFILES, SCHEMA, SOUND

from hessketch.config import config_problems, fill_defaults
from hessketch.curvature.losses import LOSSES
from hessketch.curvature.predictor_settings import ESTIMATORS, PredictorSettings
from hessketch.dynamics.job import DynamicsSettings
from hessketch.trainers import Trainer
from hessketch.training.trajectory import TrajectorySettings
from hessketch.trajectory_configs import (
    DYNAMICS,
    PREDICTOR,
    dynamics_runs_of,
    predictor_runs_of,
    predictor_trainers_of,
    rank_problems,
)


def smooth_on(dataset):
    return moving(datasets={dataset: {**OF_DIGITS, "networks": [{**SMOOTH, "norm": "group"}]}})


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
