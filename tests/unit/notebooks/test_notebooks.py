"""Notebooks run from top to bottom: on recorded tables, and on a network of one's own.

In this process rather than in a kernel each, which would cost seconds of imports. The pipeline's tests execute those of
full_spectrum, outlier_hierarchy, sharper_sketching, predictor_hessian and sgd_dynamics in kernels, on tables just made;
each study's tests of figures run its notebook on tables of every form.
"""

import json
from pathlib import Path

import matplotlib
import pytest
from IPython.core.interactiveshell import InteractiveShell

from hessketch.claims.catalog import STUDIES

ROOT = Path(__file__).parents[3]
RECORDED = ROOT / "results/reference/fashion_mnist_cpu"


def cells_of(name: str) -> list[dict]:
    return json.loads((ROOT / f"notebooks/{name}.ipynb").read_text())["cells"]


def code_of(name: str) -> list[str]:
    return ["".join(cell["source"]) for cell in cells_of(name) if cell["cell_type"] == "code"]


def run(name: str) -> dict:
    """The names that a notebook leaves behind; its first error is raised."""
    shell = InteractiveShell()
    with matplotlib.rc_context():
        for source in code_of(name):
            done = shell.run_cell(source.replace("%matplotlib inline", ""))
            assert done.success, f"{source}\n{done.error_before_exec or done.error_in_exec!r}"
    shell.user_ns["shown_last"] = done.result
    return shell.user_ns


@pytest.mark.parametrize("name", ["full_spectrum", "basins", "eigenspaces"])
def test_a_studys_notebook_runs_on_the_recorded_tables_and_ends_with_its_claims(name, monkeypatch):
    monkeypatch.setenv("HESSKETCH_RESULTS", str(RECORDED))
    claims = run(name)["shown_last"].data
    assert set(claims["verdict"]) <= {"supported", "contradicted", "not tested at this scale"}
    assert claims["value"].notna().any()


def test_the_notebook_of_ones_own_model_finds_a_spectrum_whose_parts_obey_weyls_inequality():
    left = run("own_model")
    largest = left["of_residual"].pairs.values
    bounds = left["of_hessian"].pairs.residuals[0] + left["of_ggn"].pairs.residuals[0]
    first = abs(left["of_hessian"].pairs.values[0] - left["of_ggn"].pairs.values[0])
    assert first <= abs(largest).max() + bounds + left["of_residual"].pairs.residuals[0]
    assert (left["spectrum"].pairs.residuals <= 1e-3 * abs(left["spectrum"].pairs.values)).all()


def test_a_spectrum_of_ones_own_model_takes_at_most_ten_lines():
    cell = next(source for source in code_of("own_model") if "fast_spectrum(" in source)
    assert len([line for line in cell.splitlines() if line.strip()]) <= 10


def test_every_study_has_a_notebook_that_loads_it_by_one_call_and_ends_with_its_claims_and_what_to_try():
    for study in STUDIES:
        sources = code_of(study)
        assert sum(f'hessketch.load("{study}")' in source for source in sources) == 1
        assert f'hessketch.verdicts("{study}")' in sources[-1]
        assert "".join(cells_of(study)[-1]["source"]).startswith("## To go on")


def test_notebooks_are_kept_without_outputs():
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells_of(path.stem)), path.name
