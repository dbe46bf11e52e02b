"""Sound sections that keep weights on the way."""

import re
from copy import deepcopy

from sound_config import SCHEMA, SOUND

from hessketch.config import config_problems, fill_defaults
from hessketch.trajectory_configs import (
    DYNAMICS,
    PREDICTOR,
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


def named(section, line, config):
    """Whether a line that begins with the section's name says so; all lines where none does."""
    problems = config_problems(config, SCHEMA)
    assert [p for p in problems if re.match(rf"{section}\..*{line}", p)], problems
    return True
