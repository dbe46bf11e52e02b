"""Predictor spectra along trainings as tables on disk: their rows, resuming and errors."""

import pandas
import pytest
import torch

from hessketch.checkpoints import Architecture
from hessketch.curvature import predictor_spectra as module
from hessketch.curvature.job import networks_of
from hessketch.curvature.predictor_estimators import spectra_of_example
from hessketch.curvature.predictor_settings import PredictorSettings
from hessketch.curvature.predictor_spectra import (
    DENSITY,
    KAPPA,
    SPECTRUM,
    Training,
    checkpoints_at_epochs,
    checkpoints_of_rounds,
    predictor_spectra,
)
from hessketch.data.examples import Examples
from hessketch.errors import InputError, NotFiniteError
from hessketch.networks.registry import build_network
from hessketch.records import read_record, read_table

COLUMNS = {"dataset": "clusters", "seed": 0, "error_feedback": False, "reduction": float("nan")}
QUICK = PredictorSettings(lanczos_steps=12, start_vectors=2, fast_steps=12, grid_points=64, top=2)
ARCHITECTURE = Architecture("mlp", (12,), 1, 1 / 16, "none")  # two hidden layers of 16 units


def states(count):
    options = {"input_shape": (12,), "classes": 1, "width": 1 / 16, "norm": "none"}
    return [build_network("mlp", **options, seed=seed).state_dict() for seed in range(count)]


def examples(n=6):
    inputs = torch.randn(n, 12, generator=torch.Generator().manual_seed(2))
    return Examples(inputs, torch.arange(n) % 2, 2)


def training(count=2, name="a run", **columns):
    facts = [{"kind": "epoch", "time": 10 * i, "train_loss": 1 / (i + 1)} for i in range(count)]
    networks = networks_of(ARCHITECTURE, list(zip(facts, states(count), strict=True)), "cpu")
    return Training(name, {**COLUMNS, **columns}, "binary_cross_entropy", examples(), networks, 5)


def tables(folder):
    """The two tables but for the time they took."""
    return read_table(folder / "kappa.parquet").drop(columns="seconds"), read_table(folder / "density.parquet")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("done")
    predictor_spectra([training(), training(1, "another", seed=1)], [0, 3], QUICK, folder)
    return folder


def test_a_row_says_which_example_and_weights_it_belongs_to(done):
    kappa, density = (read_table(done / f"{name}.parquet") for name in ("kappa", "density"))
    assert list(kappa) == [*COLUMNS, *SPECTRUM, *KAPPA]
    assert list(density) == [*COLUMNS, *SPECTRUM, *DENSITY]
    assert kappa["seed"].tolist() == [0] * 8 + [1] * 4
    assert kappa["time"].tolist() == [0] * 4 + [10] * 4 + [0] * 4
    assert kappa["example"].tolist() == [0, 0, 3, 3] * 3 and kappa["label"].tolist() == [0, 0, 1, 1] * 3
    assert kappa["estimator"].tolist() == ["paper", "fast"] * 6
    assert set(kappa["p"]) == {sum(t.numel() for t in states(1)[0].values())} and set(kappa["outputs"]) == {1}
    assert kappa["kappa_smoothed"].isna().tolist() == [False, True] * 6
    assert kappa["products"].tolist()[0] == 24
    assert kappa["train_loss"].tolist() == [1.0] * 4 + [0.5] * 4 + [1.0] * 4
    keys = ["seed", "time", "example", "estimator"]
    assert len(density.groupby(keys)) == 12 and (density.groupby(keys).size() == 64).all()


def test_rows_are_those_of_each_checkpoint_and_example_alone(done):
    row = read_table(done / "kappa.parquet").iloc[6]  # epoch 10, example 3, paper
    (_, model) = list(training().checkpoints)[1]
    data = examples()
    alone = spectra_of_example(model, "binary_cross_entropy", data.inputs[3:4], data.targets[3:4], QUICK, 5)
    for name, value in alone.rows["paper"].items():
        if name != "seconds":
            assert row[name] == value, name


def test_the_record_holds_settings_and_what_each_spectrum_took(done):
    record = read_record(done / "record.json")
    assert record["settings"]["lanczos_steps"] == 12 and record["examples"] == [0, 3]
    assert [t["name"] for t in record["trainings"]] == ["a run", "another"]
    assert len(record["spectra"]) == 6 and record["spectra"][0]["estimators"]["fast"]["unconverged"] == 0


def test_a_killed_job_takes_up_what_was_finished(done, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    real, calls = module.spectra_of_example, []

    def counted(*arguments, **options):
        if len(calls) == 3:
            raise Killed
        calls.append(arguments)
        return real(*arguments, **options)

    def job():
        predictor_spectra([training(), training(1, "another", seed=1)], [0, 3], QUICK, tmp_path)

    monkeypatch.setattr(module, "spectra_of_example", counted)
    with pytest.raises(Killed):
        job()
    assert len(calls) == 3 and not (tmp_path / "kappa.parquet").exists()
    calls.clear()  # three are left: a fourth would raise
    job()
    assert len(calls) == 3 and not (tmp_path / "partial").exists()
    for found, expected in zip(tables(tmp_path), tables(done), strict=True):
        pandas.testing.assert_frame_equal(found, expected, check_exact=True)


def test_what_other_settings_left_is_not_taken(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    real, calls = module.spectra_of_example, []

    def once(*arguments, **options):
        if calls:
            raise Killed
        calls.append(arguments)
        return real(*arguments, **options)

    monkeypatch.setattr(module, "spectra_of_example", once)
    with pytest.raises(Killed):
        predictor_spectra([training(1)], [0, 3], QUICK, tmp_path)
    monkeypatch.setattr(module, "spectra_of_example", lambda *a, **o: (calls.append(a), real(*a, **o))[1])
    other = PredictorSettings(lanczos_steps=11, start_vectors=2, fast_steps=12, grid_points=64, top=2)
    predictor_spectra([training(1)], [0, 3], other, tmp_path)
    assert len(calls) == 3
    assert set(read_table(tmp_path / "kappa.parquet").query("estimator == 'paper'")["products"]) == {22}


def test_one_estimator_may_be_left_out(tmp_path):
    settings = PredictorSettings(estimators=("fast",), fast_steps=12, grid_points=64, top=2)
    predictor_spectra([training(1)], [2], settings, tmp_path)
    assert read_table(tmp_path / "kappa.parquet")["estimator"].tolist() == ["fast"]


def test_without_checkpoints_the_tables_are_empty_and_have_their_columns(done, tmp_path):
    predictor_spectra([training(0)], [0], QUICK, tmp_path)
    for empty, full in zip(tables(tmp_path), tables(done), strict=True):
        assert len(empty) == 0
        assert empty.dtypes.to_dict() == full.dtypes.to_dict()


@pytest.mark.parametrize("index", [6, -1])
def test_an_example_that_does_not_exist_is_refused_before_anything_is_computed(index, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "spectra_of_example", lambda *a, **o: pytest.fail("computed"))
    with pytest.raises(InputError, match=f"example {index} given; allowed: 0 to 5"):
        predictor_spectra([training()], [0, index], QUICK, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_outputs_of_nan_name_the_run_and_the_checkpoint(tmp_path):
    pairs = list(training().checkpoints)
    next(pairs[1][1].parameters()).data.fill_(torch.nan)
    broken = Training("a run", COLUMNS, "binary_cross_entropy", examples(), pairs, 5)
    with pytest.raises(NotFiniteError, match=r"a run, epoch 10, example 4: .*diverged"):
        predictor_spectra([broken], [4], QUICK, tmp_path)


KEPT = [({"step": 20 * i, "epoch": 0.5 * i, "train_loss": 3.0 - i}, i) for i in range(5)]


def test_checkpoints_are_chosen_by_their_epoch():
    found = checkpoints_at_epochs(KEPT, [2, 0], "a run", diverged=False)
    assert found == [
        ({"kind": "epoch", "time": 2, "train_loss": -1.0}, 4),
        ({"kind": "epoch", "time": 0, "train_loss": 3.0}, 0),
    ]


def test_an_epoch_that_was_not_kept_is_refused_unless_the_run_diverged():
    with pytest.raises(InputError, match=r"a run: no weights of epoch 3, 7 .* there are epochs 0, 0.5, 1, 1.5, 2"):
        checkpoints_at_epochs(KEPT, [1, 3, 7], "a run", diverged=False)
    found = checkpoints_at_epochs(KEPT, [1, 3, 7], "a run", diverged=True)
    assert [facts["time"] for facts, _ in found] == [1]


def test_of_a_federated_training_the_rounds_alone_are_taken():
    kept = [
        ({"kind": "round", "round": 0, "train_loss": 2.0, "target_loss": None}, "a"),
        ({"kind": "loss", "round": 3, "train_loss": 1.0, "target_loss": 1.1}, "b"),
        ({"kind": "round", "round": 5, "train_loss": 0.5, "target_loss": None}, "c"),
    ]
    found = checkpoints_of_rounds(kept)
    assert [(f["kind"], f["time"], f["train_loss"], s) for f, s in found] == [
        ("round", 0, 2.0, "a"),
        ("round", 5, 0.5, "c"),
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"estimators": ("slow",)}, "estimators: .*allowed: one or more of paper, fast"),
        ({"estimators": ()}, "estimators"),
        ({"start_vectors": 0}, "start_vectors: 0 given"),
        ({"fast_steps": 100, "grid_points": 50}, "grid_points: 50 given"),
        ({"top": 0}, "top: 0 given"),
        ({"lanczos_steps": 10.5}, "lanczos_steps: 10.5 given; allowed: a whole number of at least 2"),
        ({"lanczos_steps": 1}, "lanczos_steps: 1 given"),
        ({"start_vectors": True}, "start_vectors: True given"),
        ({"fast_steps": 48.5}, "fast_steps: 48.5 given"),
        ({"grid_points": 64.0}, "grid_points: 64.0 given"),
        ({"estimators": "fast"}, r"estimators: 'fast' given; allowed: .* as a tuple, such as \('fast',\)"),
        ({"estimators": ("fast", "fast")}, "estimators"),
    ],
)
def test_settings_that_no_estimate_could_use_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        PredictorSettings(**given)
