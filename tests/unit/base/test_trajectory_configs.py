"""The sections `predictor_hessian` and `sgd_dynamics`: the runs that they ask for, and what they share."""

from collections import Counter
from itertools import product

from followed_config import DYNAMIC, FEDERATION, filled, moving, predicting
from sound_config import SCHEMA, SOUND

from hessketch.config import data_problems, datasets_of, fill_defaults, runs_of
from hessketch.config_runs import job_of
from hessketch.runs import Run
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
