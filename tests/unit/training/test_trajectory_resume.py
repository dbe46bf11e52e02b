"""What a kill loses of a followed training: nothing."""

from dataclasses import replace

import pytest
import torch
from followed_training import KEPT, SEED, SETTINGS, TEST, TRAIN, Following, Killed, assert_same, examples, network


@pytest.mark.parametrize("batch_size", [8, 0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_killed_training_ends_with_what_an_uninterrupted_one_has_to_the_last_bit(tmp_path, batch_size, dtype):
    """Killed while weights are kept, in the midst of an epoch, and after the last step was saved."""
    settings = replace(SETTINGS, steps=130, batch_size=batch_size, momentum=0.9, decay_factor=0.3)
    arguments = {"settings": settings, "keep_at": [0, 1, 50, 77, 130], "make": lambda: network(dtype)}
    arguments["splits"] = (examples(25, 0, dtype), examples(11, 1, dtype))
    expected = Following(**arguments)
    whole = expected.run()
    killed, resume = Following(**arguments), {"resume_file": tmp_path / "resume.safetensors", "save_every_seconds": 0}

    def die_after(last):
        def progress(done, total):
            if done >= last:
                raise Killed

        return progress

    for death, resumed_from in (
        ({"die_in_keep": 0}, None),
        ({"die_in_keep": 1}, None),
        ({"progress": die_after(20)}, 20),
        ({"die_in_keep": 77}, 75),
        ({"progress": die_after(101)}, 101),
        ({"progress": die_after(130)}, 130),
    ):
        with pytest.raises(Killed):
            killed.run(**death, **resume)
        assert (tmp_path / "resume.safetensors").is_file() == (resumed_from is not None)
    result = killed.run(**resume)
    assert result.resumed_from_step == 130 and whole.resumed_from_step == 0
    assert_same(killed, result, expected, whole)


@pytest.mark.parametrize("switch", [20, 21, 22])
def test_a_training_killed_on_either_side_of_its_switch_ends_with_the_same_weights(tmp_path, switch):
    """Killed once before it or at it, and once after it: the state is of step 20, then of step 31."""
    settings = replace(SETTINGS, momentum=0.9, switch_step=switch, later_batch_size=3)
    expected, killed = Following(settings=settings), Following(settings=settings)
    whole = expected.run()
    options = {"resume_file": tmp_path / "resume.safetensors", "save_every_seconds": 0}
    for last in (20, 31):

        def die(done, total, last=last):
            if done == last:
                raise Killed

        with pytest.raises(Killed):
            killed.run(progress=die, **options)
    result = killed.run(**options)
    assert result.resumed_from_step == 31
    assert_same(killed, result, expected, whole)


def test_steps_that_were_kept_before_a_kill_are_not_kept_again(tmp_path):
    options = {"resume_file": tmp_path / "resume.safetensors", "save_every_seconds": 0}
    killed, resumed = Following(), Following()
    with pytest.raises(Killed):
        killed.run(die_in_keep=23, **options)
    result = resumed.run(**options)
    assert list(killed.kept) == [0, 1, 17] and list(resumed.kept) == [23, 40]
    assert result.resumed_from_step == 22
    assert [row["step"] for row in result.history] == list(range(41))


def test_nothing_is_saved_before_it_is_time(tmp_path):
    Following().run(resume_file=tmp_path / "resume.safetensors", save_every_seconds=1000)
    assert not list(tmp_path.iterdir())


OTHERS = {
    "rate": {"settings": replace(SETTINGS, learning_rate=0.06)},
    "steps": {"settings": replace(SETTINGS, steps=41)},
    "batch size": {"settings": replace(SETTINGS, batch_size=9)},
    "momentum": {"settings": replace(SETTINGS, momentum=0.1)},
    "weight decay": {"settings": replace(SETTINGS, weight_decay=0.1)},
    "decay": {"settings": replace(SETTINGS, decay_factor=0.5)},
    "switch": {"settings": replace(SETTINGS, switch_step=30, later_batch_size=4)},
    "loss": {"loss": "mean_squared_error"},
    "kept steps": {"keep_at": [0, 40]},
    "examples": {"splits": (examples(24), TEST)},
    "test examples": {"splits": (TRAIN, examples(12, 1))},
}


@pytest.mark.parametrize("changes", OTHERS.values(), ids=OTHERS)
def test_a_state_of_other_settings_is_not_continued(tmp_path, changes):
    options = {"resume_file": tmp_path / "resume.safetensors", "save_every_seconds": 0}
    with pytest.raises(Killed):
        Following().run(die_in_keep=23, **options)
    other, fresh = Following(**changes), Following(**changes)
    result = other.run(resume_file=tmp_path / "resume.safetensors")
    assert result.resumed_from_step == 0
    assert_same(other, result, fresh, fresh.run())


@pytest.mark.parametrize("options", [{"seed": SEED + 1}, {"identity": {"run": "another"}}], ids=["seed", "identity"])
def test_a_state_of_another_seed_or_identity_is_not_continued(tmp_path, options):
    state = tmp_path / "resume.safetensors"
    with pytest.raises(Killed):
        Following().run(die_in_keep=23, resume_file=state, save_every_seconds=0, identity={"run": "this"})
    following = Following()
    result = following.run(resume_file=state, **{"identity": {"run": "this"}, **options})
    assert result.resumed_from_step == 0 and list(following.kept) == KEPT


def test_a_damaged_state_is_not_continued(tmp_path):
    state = tmp_path / "resume.safetensors"
    with pytest.raises(Killed):
        Following().run(die_in_keep=23, resume_file=state, save_every_seconds=0)
    state.write_bytes(state.read_bytes()[:100])
    following, fresh = Following(), Following()
    result = following.run(resume_file=state)
    assert result.resumed_from_step == 0
    assert_same(following, result, fresh, fresh.run())
