"""The sections `over_parametrized`, `basins` and `outlier_hierarchy`: their runs, and every mistake named."""

import re
from copy import deepcopy

import pytest
from sound_config import SCHEMA, SOUND

from hessketch.config import config_problems, fill_defaults, runs_of, trajectory_runs_of
from hessketch.landscape_configs import (
    BASINS,
    HIERARCHY,
    OVER_PARAMETRIZED,
    basin_runs_of,
    exact_problems,
    is_of_hierarchy,
    over_parametrized_runs_of,
)
from hessketch.runs import Run
from hessketch.trainers import Trainer

MLP = {"name": "mlp", "norm": "none", "width": 0.04}
OF_DIGITS = {"examples_per_class": 20, "learning_rate": 0.1, "networks": [MLP, {**MLP, "width": 0.08}]}
WIDTHS = {
    "datasets": {"digits-8x8": OF_DIGITS, "clusters-k3-d20-s4": {**OF_DIGITS, "networks": [MLP]}},
    "seeds": [0, 1],
    "batch_size": 20,
    "steps": 100,
    "checkpoint_steps": [0, 100],
}
VALLEYS = {
    "datasets": {"digits-8x8": {**OF_DIGITS, "networks": [MLP]}},
    "seeds": [0, 1],
    "large_batch": 100,
    "small_batch": 10,
    "steps": 200,
    "switch_step": 100,
}
SECTIONS = {OVER_PARAMETRIZED: WIDTHS, BASINS: VALLEYS, HIERARCHY: {"examples_per_class": [4]}}


def asking(section, digits=None, **changes):
    given = deepcopy({**SECTIONS[section], **changes})
    given.get("datasets", {}).get("digits-8x8", {}).update(digits or {})
    return {**deepcopy(SOUND), section: given}


def filled(config):
    assert config_problems(config, SCHEMA) == []
    return fill_defaults(config, SCHEMA)


def test_a_sweep_has_a_run_for_each_network_of_each_data_set_and_seed():
    config = filled(asking(OVER_PARAMETRIZED))
    runs = over_parametrized_runs_of(config)
    assert len(runs) == len({run.path for run in runs}) == 6 and trajectory_runs_of(config)[OVER_PARAMETRIZED] == runs
    assert {run.trainer for run in runs} == {"sgd-b20"} and all(Run.from_path(run.path) == run for run in runs)


def test_basins_are_found_by_large_batches_by_small_ones_and_by_the_one_and_then_the_other():
    runs = basin_runs_of(filled(asking(BASINS)))
    assert [(run.trainer, run.seed) for run in runs] == [
        (trainer, seed) for trainer in ("sgd-b100", "sgd-b10", "sgd-b100-b10") for seed in (0, 1)
    ]
    assert Trainer.parse(runs[-1].trainer).first.label == "sgd-b100"
    runs = basin_runs_of(filled(asking(BASINS, large_batch="all")))
    assert {run.trainer for run in runs} == {"sgd-full", "sgd-b10", "sgd-full-b10"}


def test_the_hierarchy_is_of_the_sizes_that_are_named_of_networks_trained_with_cross_entropy():
    config = filled({**asking(HIERARCHY), "losses": ["cross_entropy", "mean_squared_error"]})
    assert {(run.examples_per_class, run.loss) for run in runs_of(config) if is_of_hierarchy(config, run)} == {
        (4, "cross_entropy")
    }


def test_without_the_sections_there_is_nothing_to_do():
    config = fill_defaults(SOUND, SCHEMA)
    assert over_parametrized_runs_of(config) == basin_runs_of(config) == exact_problems(config) == []
    assert not any(is_of_hierarchy(config, run) for run in runs_of(config))


@pytest.mark.parametrize(
    ("section", "changes", "line"),
    [
        (OVER_PARAMETRIZED, {"checkpoint_steps": [0, 101]}, "checkpoint_steps: 101 is beyond the 100 steps"),
        (OVER_PARAMETRIZED, {"batch_size": 61}, "batch_size: 61 given, datasets.clusters-k3-d20-s4 has 60 training ex"),
        (OVER_PARAMETRIZED, {"digits": {"examples_per_class": 200}}, "examples_per_class: 200 given, the smallest"),
        (OVER_PARAMETRIZED, {"digits": {"networks": [{"name": "vgg11"}]}}, "networks: vgg11 needs images of 32x32"),
        (OVER_PARAMETRIZED, {"top": -1}, "top: -1 given; allowed: a whole number at least 0"),
        (OVER_PARAMETRIZED, {"max_parameter": 3}, "max_parameter: unknown key; .*name: max_parameters"),
        (BASINS, {"small_batch": 100}, "small_batch: 100 given; allowed: less than the large_batch, 100"),
        (BASINS, {"large_batch": 201}, "large_batch: 201 given, datasets.digits-8x8 has 200 training examples"),
        (BASINS, {"switch_step": 200}, "switch_step: 200 given; allowed: 1 to 199, before the last of the 200 steps"),
        (BASINS, {"switch_step": 0}, "switch_step: 0 given; allowed: a whole number at least 1"),
        (BASINS, {"digits": {"networks": [{"name": "mlp"}]}}, "networks: norm batch given .*running statistics"),
        (HIERARCHY, {"examples_per_class": [3]}, "examples_per_class: no data set is trained with 3; allowed: 2, 4"),
        (HIERARCHY, {"examples_per_class": []}, "examples_per_class: empty"),
    ],
)
def test_a_mistake_is_named_with_its_key_and_what_is_allowed(section, changes, line):
    problems = config_problems(asking(section, **changes), SCHEMA)
    assert [p for p in problems if re.match(rf"{section}\..*{line}", p)], problems


def test_the_hierarchy_needs_spectra_of_training_examples_and_cross_entropy():
    problems = config_problems({**asking(HIERARCHY), "spectrum": {"splits": ["test"]}}, SCHEMA)
    assert problems == ["outlier_hierarchy: needs the spectra of the training examples; add train to spectrum.splits"]
    problems = config_problems({**asking(HIERARCHY), "losses": ["mean_squared_error"]}, SCHEMA)
    assert problems == ["outlier_hierarchy: is of cross-entropy; add cross_entropy to losses, or remove the section"]


def test_networks_too_large_to_be_decomposed_whole_are_said_before_the_run():
    lines = exact_problems(filled(asking(OVER_PARAMETRIZED, max_parameters=1000)))
    assert [re.search(r"width ([0-9.]+) on digits-8x8 has (\d+) parameters", line).groups() for line in lines] == [
        ("0.08", "1930")
    ]
    assert exact_problems(filled(asking(OVER_PARAMETRIZED))) == []
    (line,) = exact_problems(filled(asking(OVER_PARAMETRIZED, top=400)))
    assert exact_problems(filled(asking(OVER_PARAMETRIZED, top=353))) == []
    assert line.endswith("mlp of width 0.04 on clusters-k3-d20-s4 has 353 parameters; allowed: at most 353")
