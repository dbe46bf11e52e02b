"""The section `eigenspaces`: its runs, and every mistake named with its key."""

import re
from copy import deepcopy

import pytest
import yaml
from sound_config import PROFILES, SCHEMA, SOUND

from hessketch.config import config_problems, datasets_of, fill_defaults, trajectory_runs_of
from hessketch.config_runs import job_of
from hessketch.eigenspace_config import (
    EIGENSPACES,
    eigenpair_problems,
    eigenspace_runs_of,
    eigenspace_trainers_of,
    kept_steps,
    with_dataset,
)
from hessketch.landscape_configs import exact_problems
from hessketch.runs import Run

MLP = {"name": "mlp_tanh", "norm": "none", "width": 0.5}
OF_DIGITS = {
    "examples_per_class": 40,
    "test_examples_per_class": 20,
    "hessian_examples_per_class": 10,
    "learning_rate": 0.3,
    "networks": [MLP, {**MLP, "width": 1}],
}
SECTION = {
    "datasets": {"digits-8x8": OF_DIGITS},
    "seeds": [0, 1],
    "batch_size": 50,
    "steps": 100,
    "checkpoint_steps": [0, 100],
    "stability_steps": [0, 50],
    "pairs": 20,
}
FEDERATION = {
    "datasets": {"digits": {"examples_per_class": 10, "test_examples_per_class": 3}},
    "networks": [{"name": "mlp", "norm": "none", "width": 0.01}],
    "seeds": [0],
    "methods": ["uncompressed"],
    "reductions": [10],
    "learning_rates": [0.1],
    "clients": 4,
    "checkpoint_rounds": [1],
}


def asking(digits=None, federation=None, **changes):
    """SOUND with the section, some of its keys, or of its data set, changed."""
    section = deepcopy({**SECTION, **changes})
    section["datasets"].get("digits-8x8", {}).update(digits or {})
    return {**deepcopy(SOUND), EIGENSPACES: section, **({"federation": federation} if federation else {})}


def filled(config):
    assert config_problems(config, SCHEMA) == []
    return fill_defaults(config, SCHEMA)


def test_each_network_and_seed_is_trained_once_with_the_sections_batches():
    config = filled(asking())
    runs = eigenspace_runs_of(config)
    assert {(run.width, run.seed) for run in runs} == {(0.5, 0), (0.5, 1), (1, 0), (1, 1)} and len(runs) == 4
    assert {(run.trainer, run.examples_per_class, run.learning_rate) for run in runs} == {("sgd-b50", 40, 0.3)}
    assert all(Run.from_path(run.path) == run for run in runs)
    assert trajectory_runs_of(config)[EIGENSPACES] == runs
    assert {job_of(config[EIGENSPACES], run) for run in runs} == {
        "digits-8x8/mlp_tanh-none-w0.5", "digits-8x8/mlp_tanh-none-w1",
    }  # fmt: skip


def test_every_example_and_full_batches_are_spelled_all():
    (run, *_) = eigenspace_runs_of(filled(asking(digits={"examples_per_class": "all"}, batch_size="all")))
    assert run.examples_per_class is None and run.trainer == "sgd-full" and "/nall/" in run.path


def test_weights_are_kept_where_they_are_looked_at_and_where_masks_are_compared():
    assert kept_steps(filled(asking())[EIGENSPACES]) == [0, 50, 100]


def test_without_the_section_there_is_nothing_to_do():
    config = fill_defaults(SOUND, SCHEMA)
    assert eigenspace_runs_of(config) == eigenspace_trainers_of(config) == eigenpair_problems(config) == []


def test_its_data_are_prepared():
    assert datasets_of(filled(asking())) == ["digits", "digits-8x8"]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"checkpoint_steps": [0, 101]}, "checkpoint_steps: 101 is beyond the 100 steps"),
        ({"stability_steps": [200]}, "stability_steps: 200 is beyond the 100 steps"),
        ({"pairs": 0}, "pairs: 0 .*allowed: .*at least 1 or .*above 0 below 1"),
        ({"pairs": 1.5}, "pairs: 1.5 .*allowed: "),
        (
            {"pairs": 60, "measurements": 50},
            "pairs: 60 given with 50 measurements; sketch_method fast needs at least 60; allowed: fewer pairs",
        ),
        (
            {"pairs": 60, "measurements": 100, "sketch_method": "paper"},
            "pairs: 60 given with 100 measurements; sketch_method paper needs at least 120; allowed: fewer",
        ),
        (
            {"digits": {"pairs": 60}, "measurements": 50},
            "datasets.digits-8x8.pairs: 60 given with 50 measurements; sketch_method fast needs",
        ),
        ({"digits": {"steps": 60}}, "datasets.digits-8x8.checkpoint_steps: 100 is beyond the 60 steps"),
        ({"digits": {"batch_size": 500}}, "datasets.digits-8x8.batch_size: 500 given, .* 400 training examples"),
        ({"ratios": [1]}, r"ratios\[0\]: 1 given; allowed: a number above 0 below 1"),
        ({"ratios": [0]}, r"ratios\[0\]: 0 given; allowed: a number above 0 below 1"),
        ({"methods": ["sketch"]}, r"methods\[0\]: 'sketch' is unknown; .*nearest valid name: sketched"),
        ({"measurement_kind": "gausian"}, "measurement_kind: 'gausian' is unknown; .*nearest valid name: gaussian"),
        ({"passes": 0}, "passes: 0 given; allowed: a whole number at least 1"),
        ({"batch_size": 401}, "batch_size: 401 given, datasets.digits-8x8 has 400 training examples"),
        ({"digits": {"hessian_examples_per_class": 21}}, "examples_per_class: 21 given, a class has 20 test examples"),
        ({"digits": {"hessian_examples_per_class": 41}}, "examples_per_class: 41 given, a class has 40 train examples"),
        ({"digits": {"networks": [{"name": "3c3d"}]}}, "networks: 3c3d needs images of 32x32"),
        ({"pair": 3}, "pair: unknown key; .*nearest valid name: pairs"),
        ({"trainers": ["uncompressed"]}, "trainers: uncompressed is not among the trainers of federation; .*none with"),
        ({"metric_study": {"samples": 1}}, "metric_study.samples: 1 given; allowed: a whole number at least 2"),
    ],
)
def test_a_mistake_is_named_with_its_key_and_what_is_allowed(changes, line):
    problems = config_problems(asking(**changes), SCHEMA)
    assert [p for p in problems if re.match(rf"{EIGENSPACES}\..*{line}", p)], problems


def test_test_examples_may_be_few_where_only_training_examples_are_looked_at():
    assert config_problems(asking(digits={"hessian_examples_per_class": 30}, splits=["train"]), SCHEMA) == []


def test_more_eigenpairs_than_parameters_and_more_measurements_are_said_before_the_run():
    """The networks have 1,200 and 3,190 parameters."""
    lines = eigenpair_problems(filled(asking(pairs=1200)))
    assert lines[0].startswith(
        "eigenspaces.pairs: 1200 eigenpairs asked for, mlp_tanh of width 0.5 on digits-8x8 has 12"
    )
    assert len(lines) == 1
    (line,) = eigenpair_problems(filled(asking(pairs=600)))
    assert "600 need 1210 measurements" in line and "allowed: at most 595 pairs, fewer measurements, or methods" in line
    assert eigenpair_problems(filled(asking(pairs=600, methods=["exact"]))) == []
    assert eigenpair_problems(filled(asking(pairs=0.05))) == []
    (line, _) = eigenpair_problems(filled(asking(pairs=5, methods=["exact"], exact_up_to=10)))
    assert "eigenspaces.methods: [exact] given, mlp_tanh of width 0.5" in line and "exact_up_to is 10; allowed" in line
    (line, _) = eigenpair_problems(filled(asking(pairs=5, passes=40)))
    assert "eigenspaces.passes: 40 given" in line and "takes 20 measurements; allowed: at most as many" in line
    (line,) = eigenpair_problems(filled(asking(pairs=10, measurements=2000)))
    assert "eigenspaces.measurements: 2000 given" in line and "1200 parameters; allowed: at most 1200, or 0" in line


def test_a_data_set_may_have_its_own_steps_batches_and_pairs():
    own = {"steps": 40, "checkpoint_steps": [0, 40], "stability_steps": [], "batch_size": "all", "pairs": 7}
    config = filled(asking(digits=own))
    assert {run.trainer for run in eigenspace_runs_of(config)} == {"sgd-full"}
    section = with_dataset(config[EIGENSPACES], "digits-8x8")
    assert kept_steps(section) == [0, 40] and section["pairs"] == 7
    assert with_dataset(config[EIGENSPACES], "another")["steps"] == 100


def test_networks_of_the_federation_are_looked_at_too():
    config = filled(asking(federation={**FEDERATION, "seeds": [0]}, trainers=["uncompressed"], pairs=400))
    assert eigenspace_trainers_of(config) == ["uncompressed"]
    assert eigenpair_problems(config) == []
    config = filled(asking(federation=FEDERATION, trainers=["uncompressed"], pairs=590, measurements=1100))
    config["federation"]["networks"][0]["width"] = 0.001  # one unit a layer: 1,047 parameters
    (line,) = eigenpair_problems(config)
    assert "(federation) has 1047 parameters" in line


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_networks_of_the_shipped_profiles_are_large_enough_and_none_is_too_large(path):
    config = fill_defaults(yaml.safe_load(path.read_text()), SCHEMA)
    assert eigenpair_problems(config) == exact_problems(config) == []
