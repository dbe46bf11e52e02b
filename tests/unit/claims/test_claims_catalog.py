"""All claims together: complete, consistent with the workflow and the document, and measurable on recorded tables."""

import re
import string
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import pytest

from hessketch.__main__ import main
from hessketch.claims.catalog import CLAIMS, STUDIES, TABLES
from hessketch.claims.claim import NotTested
from hessketch.claims.document import document
from hessketch.claims.of_study import verdicts_of_study
from hessketch.claims.papers import PAPERS
from hessketch.claims.verdicts import COLUMNS, NOT_TESTED, VERDICTS, judged
from hessketch.errors import InputError
from hessketch.extensions import VARIABLE, registered

ROOT = Path(__file__).parents[3]
RECORDED = ROOT / "results/reference/fashion_mnist_cpu"


def test_every_paper_has_six_claims_or_more_and_every_study_of_a_paper_has_one():
    for key, paper in PAPERS.items():
        own = [claim for claim in CLAIMS if claim.paper == key]
        assert len(own) >= 6 and {claim.study for claim in own} == set(paper.studies)
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_a_claim_is_complete(claim):
    assert set(claim.name) <= set(string.ascii_lowercase + string.digits + "_")
    for text in (claim.place, claim.statement, claim.quantity, claim.why, claim.figure, claim.pictured):
        assert text and text == " ".join(text.split())
    assert claim.statement.endswith(".") and len(claim.why) > 10
    assert claim.sense in ("at least", "at most") and claim.over in ("every case", "mean of cases")
    assert claim.tables and claim.tables[0].split("/")[0] == claim.study


def test_the_tables_of_the_claims_are_outputs_of_the_studies_rules():
    named = {study: (ROOT / f"workflow/rules/{study}.smk").read_text() for study in STUDIES}
    for table in TABLES:
        study, name = table.split("/")
        assert re.search(rf'"{name}(\.parquet)?"|/{name}\.parquet', named[study]), table


def test_the_figures_of_the_claims_are_figures_of_the_studies():
    recorded = {study: (RECORDED / study / "figures.json").read_text() for study in STUDIES
                if (RECORDED / study).is_dir()}  # fmt: skip
    for claim in CLAIMS:
        if claim.study in recorded:
            figures = re.findall(r'"([^"/]+/[^"/ ]+)":', recorded[claim.study])
            assert any(fnmatch(figure, claim.figure) for figure in figures), claim.name


@pytest.fixture(scope="module")
def found():
    return judged(RECORDED)


def test_recorded_results_decide_all_claims_or_say_why_not(found):
    assert tuple(found.claims) == COLUMNS and found.claims["claim"].tolist() == [claim.name for claim in CLAIMS]
    assert set(found.claims["verdict"]) <= set(VERDICTS)
    untested = found.claims["verdict"] == NOT_TESTED
    assert (found.claims.loc[untested, "reason"] != "").all()
    assert found.claims.loc[~untested, ["value", "scale"]].notna().all(axis=None)
    observed = found.observations.groupby("claim").size()
    assert set(observed.index) >= set(found.claims.loc[~untested, "claim"])


def test_no_case_of_a_claim_has_two_observations_of_a_seed(found):
    keys = ["claim", "dataset", "network", "width", "case", "seed"]
    twice = found.observations[found.observations.duplicated(keys, keep=False)]
    assert sorted(set(twice["claim"])) == []


def test_the_document_is_as_the_catalog_has_it():
    assert (ROOT / "docs/claims.md").read_text() == document(), "python -m hessketch.claims.document > docs/claims.md"


def test_the_command_prints_one_papers_claims_and_the_observations_of_one(capsys):
    main(["claims", str(RECORDED), "--paper", "papyan2018", "--observations", "residual_is_nearly_symmetric"])
    text = capsys.readouterr().out
    assert "Papyan (2018)" in text and "Shrivastava" not in text and "fashion_mnist, vgg11-batch x 0.125" in text


def test_the_command_and_a_notebook_know_claims_of_ones_own(tmp_path, monkeypatch, capsys):
    own = replace(CLAIMS[0], name="catalog_test_claim", paper="mine2030", measure=no_measure)
    monkeypatch.setitem(registered("claim"), own.name, own)
    main(["claims", str(RECORDED), "--paper", "mine2030"])
    text = capsys.readouterr().out
    assert "mine2030" in text and "nothing of mine" in text and "Papyan" not in text
    (tmp_path / "my_claims.py").write_text("raise ValueError('it was run')")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "my_claims.py"))
    with pytest.raises(InputError, match="it was run"):
        verdicts_of_study("full_spectrum", RECORDED)


def no_measure(tables):
    raise NotTested("nothing of mine was measured")


def test_the_command_names_the_papers_that_there_are(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["claims", str(RECORDED), "--paper", "papyan2019"])
    assert ended.value.code and "papyan2018" in f"{capsys.readouterr()}{ended.value}"


def test_the_command_names_the_claims_that_there_are(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["claims", str(RECORDED), "--paper", "papyan2018", "--observations", "residual_is_symmetric"])
    assert ended.value.code and "residual_is_nearly_symmetric" in f"{capsys.readouterr()}{ended.value}"
