from pathlib import Path

import pytest

from hessketch.commands.plan import read_config
from hessketch.config_text import repeated_keys
from hessketch.errors import InputError

ROOT = Path(__file__).parents[3]


def written(folder, text):
    file = folder / "profile.yaml"
    file.write_text(text)
    return file


def test_a_key_that_yaml_would_keep_the_last_of_is_named_with_both_lines(tmp_path):
    text = "seeds: [0]\ntraining:\n  momentum: 0.9\n  runs: [{a: 1}, {b: 2,\n     b: 3}]\n  momentum: 0.5\nseeds: [1]\n"
    file = written(tmp_path, text)
    end = f" of {file}; allowed: once; remove one"
    assert repeated_keys(file) == [
        f"training.runs[1].b: given twice, in lines 4 and 5{end}",
        f"training.momentum: given twice, in lines 3 and 6{end}",
        f"seeds: given twice, in lines 1 and 7{end}",
    ]


def test_the_same_key_in_two_mappings_and_a_number_beside_its_text_are_no_repetition(tmp_path):
    assert repeated_keys(written(tmp_path, 'a: {x: 1}\nb: {x: 1}\n1: one\n"1": text\n')) == []


def test_a_plan_of_a_profile_with_a_repeated_key_is_refused(tmp_path):
    text = (ROOT / "config/demo.yaml").read_text() + "\nprofile: other\n"
    with pytest.raises(InputError, match=r"profile: given twice, in lines \d+ and \d+ of .*profile\.yaml"):
        read_config(written(tmp_path, text), ROOT / "config/schema.yaml")
