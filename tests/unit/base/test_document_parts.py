"""The parts of the documents that are made: blocks between marks, the rule graph, claims in short, keys."""

import pandas as pd
import pytest

from hessketch.config_document import configuration_page
from hessketch.documents import claims_in_short, rule_graph, verdicts_of_study, with_block
from hessketch.errors import InputError

DAG = """flowchart TB
\tid0[all]
\tid1[study_figure - figure: a - folder: b]
\tid2[study_tables]
\tid3[config]
\tid4[train - run: x]
\tid5[train - run: y]
\tid6[prepare_data - dataset: digits]
\tid7[trajectories_study_digits_mlp]
\tid1 --> id0
\tid2 --> id1
\tid3 --> id2
\tid4 --> id2
\tid5 --> id2
\tid6 --> id2
\tid6 --> id4
\tid6 --> id5
\tid7 --> id2
\tstyle id0 fill:#D95757
"""


def test_a_block_is_replaced_between_its_marks_and_nothing_else_is():
    text = "before\n<!-- a -->\nold\n<!-- /a -->\n<!-- b -->\nkept\n<!-- /b -->\n"
    assert with_block(text, "a", "new\n") == text.replace("old", "new")
    assert with_block(text, "a", "") == text.replace("old\n", "")


@pytest.mark.parametrize("text", ["", "<!-- a -->\n", "<!-- a -->\n<!-- /a -->\n<!-- a -->\n<!-- /a -->\n"])
def test_a_block_whose_marks_are_missing_or_there_twice_is_refused(text):
    with pytest.raises(InputError, match="each once"):
        with_block(text, "a", "new")


def test_the_rule_graph_has_a_node_a_stage_and_no_arrow_that_others_tell():
    lines = [line.strip() for line in rule_graph(DAG).splitlines()]
    arrows = ["prepare_data --> train", "train --> study", "trajectories --> study"]
    assert lines == ["```mermaid", "flowchart LR", *arrows, "study([study])", "```"]


def test_a_text_without_jobs_is_no_graph():
    with pytest.raises(InputError, match="snakemake --dag"):
        rule_graph("Building DAG of jobs...")


def test_claims_in_short_count_verdicts_by_paper_and_profile():
    claims = pd.DataFrame({"paper": ["a", "a", "b"], "verdict": ["supported", "supported", "not tested at this scale"]})
    table = claims_in_short({"demo": claims, "large": claims[claims["paper"] == "b"]}, {"a": "A 2018", "b": "B 2020"})
    assert table.splitlines()[0].endswith("| demo | large |")
    assert table.splitlines()[2:] == ["| A 2018 | 2 / 0 / 0 | 0 / 0 / 0 |", "| B 2020 | 0 / 0 / 1 | 0 / 0 / 1 |"]


def test_verdicts_of_a_study_link_its_own_claims_and_leave_out_verdicts_that_none_has():
    columns = {"claim": ["a_b", "c", "other"], "study": ["s", "s", "t"], "verdict": ["contradicted"] * 3}
    links = "[a b](../claims.md#a_b), [c](../claims.md#c)"
    assert verdicts_of_study(pd.DataFrame(columns), "s") == f"- contradicted: {links}"
    with pytest.raises(InputError, match="allowed: s, t"):
        verdicts_of_study(pd.DataFrame(columns), "u")


def test_a_key_is_told_with_its_values_its_default_and_the_profiles_that_set_it():
    number = {"description": "Steps | a run.", "type": "integer", "minimum": 1, "default": 3}
    entry = {"type": "object", "properties": {"name": {"description": "Which.", "enum": ["x", "y"]}}}
    schema = {
        "properties": {
            "seed": {"description": "A seed.", "type": "integer"},
            "runs": {
                "description": "What is run.",
                "type": "object",
                "additionalProperties": {
                    "properties": {
                        "steps": number,
                        "networks": {"description": "Nets.", "type": "array", "items": entry},
                    }
                },
            },
        }
    }
    profiles = {
        "small": {"seed": 0, "runs": {"mine": {"steps": 2}}},
        "large": {"seed": 1, "runs": {"mine": {"networks": []}}},
    }
    page = configuration_page(schema, profiles)
    assert "1 `small`, 2 `large`" in page
    assert "| `seed` | A seed. | a whole number |  | all |" in page
    assert "## runs\n\nWhat is run. Set in: all." in page
    assert "| `NAME.steps` | Steps \\| a run. | a whole number at least 1 | `3` | 1 |" in page
    assert "| `NAME.networks[].name` | Which. | one of x, y |  | none |" in page
