import math

import pytest

from hessketch.report.words import NOTHING, Commands, anchor, duration, listed, measured, number, sentence, size, title


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.1235"), (-2.0, "\u22122"), (44550, "44\u202f550"), (1.5e-7, "1.5e\u22127"), (math.nan, NOTHING),
        (None, NOTHING), (math.inf, "∞"), (True, "True"), ("text", "text"), (2.5e12, "2.5e12"),
    ],
)  # fmt: skip
def test_numbers_are_short_and_whole_ones_are_in_full(value, text):
    assert number(value) == text


def test_a_measured_value_has_its_error_and_unit_where_there_are_any():
    assert measured(0.93456, 0.0213, "nats") == "0.935 ± 0.021 nats"
    assert measured(1 / 6, 0.17) == "0.17 ± 0.17" and measured(-2.0, 0.5) == "\u22122.00 ± 0.50"
    assert measured(1.5e-9, 2.5e-10) == "1.5e\u22129 ± 2.5e\u221210"
    assert measured(0.5, math.nan) == "0.5"
    assert measured(math.nan, math.nan, "nats") == NOTHING


def test_targets_of_a_command_stand_before_its_config_files_and_odd_names_are_quoted():
    commands = Commands(("config/a.yaml", "my b.yaml"))
    assert commands.making("x/y.png") == "snakemake --cores all x/y.png --configfile config/a.yaml 'my b.yaml'"
    assert Commands().making() == "snakemake --cores all"
    assert Commands().making("a;rm") == "snakemake --cores all 'a;rm'"


def test_bytes_and_seconds_have_the_unit_that_a_reader_wants():
    assert [size(n) for n in (7, 1234, 56_000, 1.8e9)] == ["7 B", "1.2 kB", "56 kB", "1.8 GB"]
    assert [duration(s) for s in (4.23, 250.2, 12_000)] == ["4.2 s", "4 min 10 s", "3 h 20 min"]


def test_a_place_in_the_page_holds_nothing_that_ends_an_attribute():
    assert anchor("figure", "a b", '"><script>') == "figure-a-b--script-"


def test_names_of_files_read_as_titles():
    assert [title(n) for n in ("overlap_over_steps", "sgd_dynamics", "figure_3")] == [
        "Overlap over steps", "SGD dynamics", "Figure 3",
    ]  # fmt: skip


def test_lists_say_how_many_they_leave_out_and_part_what_has_commas_by_semicolons():
    assert listed([1, 2, 2, 3], most=2) == "1, 2, and 1 more"
    assert listed(["MLP, no norm", "VGG"]) == "MLP, no norm; VGG"
    assert listed([]) == NOTHING


def test_a_sentence_has_its_capital_and_stop_and_code_in_it_but_no_markup():
    assert sentence("the profile `<paper>` has <them>") == "The profile <code>&lt;paper&gt;</code> has &lt;them&gt;."
