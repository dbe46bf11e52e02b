"""Seeds that depend on what they are for, and records of what made a result."""

import json
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from hessketch.provenance import Stopwatch, code_digest, environment
from hessketch.seeds import derive_seed


@given(st.integers(0, 2**31), st.text(max_size=30), st.text(max_size=30))
def test_a_seed_is_one_that_every_generator_takes_and_always_the_same(seed, identity, purpose):
    derived = derive_seed(seed, identity, purpose)
    assert 0 <= derived < 2**63
    assert derived == derive_seed(seed, identity, purpose)


def test_seeds_of_different_runs_purposes_and_profiles_differ():
    seeds = {derive_seed(*parts) for parts in product(range(5), map(str, range(20)), ("order", "initialisation"))}
    assert len(seeds) == 200
    assert derive_seed(0, "published value", "test") == 7263193754779600484  # results would change with it


def test_a_record_names_versions_device_and_cost_as_json():
    record = json.loads(json.dumps({**environment("cpu"), **Stopwatch().cost()}))
    assert record["packages"]["torch"].startswith("2.")
    assert record["device"] == "cpu" and record["threads"] >= 1
    assert record["peak_memory_mib"] > 10 and record["wall_seconds"] >= 0
    assert len(code_digest()) == 64
