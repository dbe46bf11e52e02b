"""Settings of a federation: what is refused, participants, the server's rate."""

import math
from dataclasses import fields
from itertools import pairwise

import pytest

from hessketch.errors import InputError
from hessketch.federated.settings import FederatedSettings
from hessketch.schedules import decayed, is_due


def test_the_defaults_are_the_papers_clients_and_local_steps():
    settings = FederatedSettings()
    assert (settings.clients, settings.local_steps, settings.local_batch_size, settings.participants) == (
        100,
        5,
        0,
        100,
    )
    assert (settings.hashes, settings.fetch_error, settings.fetch_rate) == ("fresh", "zero", "before")
    assert all(field.metadata["help"] for field in fields(settings))


OUT_OF_RANGE = {
    "learning_rate": (0, -0.1, math.inf, math.nan),
    "clients": (0, -3),
    "participation": (0, 1.01, math.nan),
    "rounds": (0,),
    "local_steps": (0,),
    "local_batch_size": (-1,),
    "server_rate": (0, math.inf),
    "decay_factor": (0, 1.5),
    "weight_decay": (-1e-9, math.nan),
    "partition": ("idd", ""),
    "alpha": (0, math.inf, math.nan),
    "shards_per_client": (0,),
    "least_examples": (0,),
    "rows": (0,),
    "placement": ("shifted",),
    "hashes": ("stale",),
    "fetch_rows": (0, 2, 4, -1),
    "fetch_top": (0, math.nan),
    "fetch_momentum": (-0.1, 1, math.nan),
    "fetch_error": ("keep",),
    "fetch_rate": ("during",),
    "chunk": (-1,),
    "micro_batch": (0,),
}


@pytest.mark.parametrize("key", OUT_OF_RANGE)
def test_a_value_out_of_range_is_refused_with_its_name_and_what_is_allowed(key):
    for value in OUT_OF_RANGE[key]:
        with pytest.raises(InputError) as refused:
            FederatedSettings(**{key: value})
        assert str(refused.value).startswith(f"{key}: {value!r} ") and "allowed: " in str(refused.value)


def test_every_setting_but_the_switch_has_a_range():
    assert {*OUT_OF_RANGE, "fetch_masking"} == {field.name for field in fields(FederatedSettings)}


def test_all_bad_values_are_named_at_once_with_the_nearest_word():
    with pytest.raises(InputError) as refused:
        FederatedSettings(fetch_rows=4, rounds=0, partition="dirichlett")
    said = str(refused.value)
    assert "fetch_rows: 4 given; allowed: an odd number, for a median" in said
    assert "rounds: 0 given; allowed: a whole number of at least 1" in said
    assert "partition: 'dirichlett' is unknown; allowed: iid, shards, dirichlet; nearest valid name: dirichlet" in said


def test_whole_numbers_must_be_whole():
    for key in ("clients", "rounds", "local_steps", "local_batch_size", "rows", "fetch_rows", "chunk", "micro_batch"):
        with pytest.raises(InputError, match=f"{key}: 2.5 given; allowed: "):
            FederatedSettings(**{key: 2.5})


@pytest.mark.parametrize(
    ("clients", "share", "expected"), [(100, 1.0, 100), (100, 0.1, 10), (10, 0.25, 2), (7, 0.5, 4), (20, 0.01, 1)]
)
def test_participants_are_the_share_of_the_clients_and_at_least_one(clients, share, expected):
    assert FederatedSettings(clients=clients, participation=share).participants == expected


def test_the_server_rate_falls_at_one_and_two_thirds_of_the_rounds():
    settings = FederatedSettings(rounds=9, server_rate=2.0, decay_factor=0.1)
    assert [settings.server_rate_at(step) for step in range(9)] == pytest.approx([2] * 3 + [0.2] * 3 + [0.02] * 3)
    assert [FederatedSettings(rounds=4).server_rate_at(step) for step in range(4)] == [1.0] * 4
    assert decayed(1.0, 0.5, 0, 1) == 1.0


@pytest.mark.parametrize("steps", [1, 7, 19, 20, 21, 50, 1000])
def test_something_done_twenty_times_is_done_after_the_last_step(steps):
    due = [step for step in range(steps) if is_due(step, steps, 20)]
    assert len(due) == min(20, steps) and due[-1] == steps - 1
    gaps = {after - before for before, after in pairwise(due)}
    assert len(gaps) <= 2 and (not gaps or max(gaps) - min(gaps) <= 1)
