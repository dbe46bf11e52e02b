"""A killed training whose saved state or kept weights are damaged begins anew, to the same results."""

import pytest
import torch

from hessketch.data.examples import load_examples
from hessketch.data.of_run import subset_seed
from hessketch.data.prepared import prepare_dataset
from hessketch.progress import Progress
from hessketch.records import read_tensors
from hessketch.runs import Run
from hessketch.training.job import train_run
from hessketch.training.settings import TrainingSettings
from hessketch.training.trajectories import follow_runs
from hessketch.training.trajectory import TrajectorySettings

RUN = Run("digits-8x8", 0.0, 4, "mlp", "none", 0.02, "cross_entropy", "sgd", 0.05, 0)
FOLLOWED = Run("digits-8x8", 0.0, 4, "mlp", "none", 0.02, "cross_entropy", "sgd-b10", 0.05, 0)


class Kill(BaseException):
    """What no handler of errors catches."""


class KilledAt(Progress):
    """Ends the training after so many epochs or steps."""

    def __init__(self, count):
        super().__init__("training")
        self._count = count

    def stage(self, name):
        def report(done, total):
            if done == self._count:
                raise Kill

        return report


@pytest.fixture(scope="module")
def splits():
    prepared = prepare_dataset("digits-8x8", "absent")
    return [load_examples(prepared, RUN.dataset, split, 4, 0.0, subset_seed(RUN)) for split in ("train", "test")]


def trained(splits, folder, progress=None):
    settings = TrainingSettings(learning_rate=0.05, epochs=6, batch_size=8)
    options = {"device": torch.device("cpu"), "checkpoint_epochs": [2, 5], "save_every_seconds": 0.0}
    return train_run(RUN, *splits, settings, folder, progress=progress, **options)["resumed_from_epoch"]


def followed(splits, folder, progress=None):
    (record,) = follow_runs(
        [FOLLOWED], lambda run: splits, lambda run, train: (TrajectorySettings(steps=12), [0, 2, 12]),
        lambda run: folder, device=torch.device("cpu"), save_every_seconds=0.0, progress=progress,
    )  # fmt: skip
    return record["resumed_from_step"]


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-20])


def flip(path):
    """One bit of a number: the structure stays whole."""
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def same(one, two):
    names = {path.name for path in one.glob("*.safetensors")}
    assert names == {path.name for path in two.glob("*.safetensors")} and names
    for name in names:
        first, second = (read_tensors(folder / name)[0] for folder in (one, two))
        assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    return True


CASES = {
    "state of a training": (trained, "resume.safetensors"),
    "kept epoch of a training": (trained, "partial/epoch2.safetensors"),
    "state of a followed training": (followed, "partial/resume.safetensors"),
    "kept step of a followed training": (followed, "partial/kept-*/step000000002.safetensors"),
}


@pytest.mark.parametrize("harm", [cut_off, flip, lambda path: path.unlink()], ids=["cut off", "flipped", "gone"])
@pytest.mark.parametrize(("train", "name"), CASES.values(), ids=CASES)
def test_a_training_whose_state_is_damaged_begins_anew_with_the_same_results(splits, tmp_path, train, name, harm):
    train(splits, tmp_path / "whole")
    with pytest.raises(Kill):
        train(splits, tmp_path / "killed", KilledAt(4))
    (path,) = (tmp_path / "killed").glob(name)
    harm(path)
    assert train(splits, tmp_path / "killed") == 0
    assert same(tmp_path / "killed", tmp_path / "whole")
    assert not (tmp_path / "killed/partial").exists()


@pytest.mark.parametrize("train", [trained, followed])
def test_a_training_whose_state_is_whole_goes_on(splits, tmp_path, train):
    with pytest.raises(Kill):
        train(splits, tmp_path, KilledAt(4))
    assert train(splits, tmp_path) > 0


def test_a_training_killed_while_its_checkpoints_take_their_places_goes_on(splits, tmp_path, monkeypatch):
    """A workflow then deletes those that are there already."""
    trained(splits, tmp_path / "whole")
    killed = tmp_path / "killed"

    def kill(*arguments, **options):
        raise Kill

    monkeypatch.setattr("hessketch.training.job.save_model", kill_after_checkpoints := Counting(kill))
    with pytest.raises(Kill):
        trained(splits, killed)
    assert kill_after_checkpoints.calls == 3  # epochs 2 and 5, then the trained network
    for path in killed.glob("epoch*.safetensors"):
        path.unlink()
    monkeypatch.undo()
    assert trained(splits, killed) > 0
    assert same(killed, tmp_path / "whole")


class Counting:
    """The real `save_model` until the network that the training ended with is saved."""

    def __init__(self, then):
        from hessketch.checkpoints import save_model

        self._save, self._then, self.calls = save_model, then, 0

    def __call__(self, model, architecture, path, **metadata):
        self.calls += 1
        return (self._then if path.name == "model.safetensors" else self._save)(model, architecture, path, **metadata)
