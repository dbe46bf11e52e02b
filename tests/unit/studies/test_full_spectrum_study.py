"""Derived tables against what is known of the dense matrices that the synthetic tables were made from."""

import numpy as np
import pandas as pd
import pytest
from synthetic_tables import (
    DIMENSION,
    density_rows,
    eigenvalue_rows,
    planted_parts,
    ritz_rows,
    spectra,
    spectrum_columns,
)

from hessketch.studies.full_spectrum import components, outlier_positions, outliers, tails
from hessketch.studies.spectra import SPECTRUM_KEYS

NO_EIGENVALUES = eigenvalue_rows(spectrum_columns(), np.empty(0))


@pytest.fixture(scope="module")
def tables():
    return spectra(np.random.default_rng(0), [{"seed": 0}, {"seed": 1, "classes": 4}], vectors=2)


def exact_ritz(operator, values, **columns):
    """A ritz table whose weights are equal, so that its moments are the exact spectral moments."""
    return ritz_rows(spectrum_columns(operator, **columns), values, np.full(len(values), 1 / len(values)))


def wigner(random, p=300):
    matrix = random.normal(size=(p, p))
    return np.linalg.eigvalsh((matrix + matrix.T) / np.sqrt(2 * p))


@pytest.mark.parametrize("spikes", [0, 1, 9])
def test_planted_outliers_are_counted_on_their_own_side(spikes):
    bulk = wigner(np.random.default_rng(3))
    values = np.sort(np.concatenate([bulk, -5.0 - np.arange(spikes)]))
    row = outliers(exact_ritz("hessian", values), NO_EIGENVALUES).iloc[0]
    assert row["negative_outlier_count"] == spikes
    assert row["outlier_count"] == 0
    assert row["top_eigenvalue"] == bulk.max()
    assert row["examined"] == 50


def test_ggn_outliers_are_as_many_as_planted(tables):
    found = outliers(tables["ritz"], tables["eigenvalues"])
    assert set(SPECTRUM_KEYS) <= set(found)
    assert len(found) == 12
    ggn = found[found["operator"] == "ggn"]
    assert (ggn["outlier_count"] == ggn["classes"]).all()
    assert (ggn["negative_outlier_count"] == 0).all()


def test_eigenvalues_beyond_the_residual_are_counted_where_there_is_one(tables):
    found = outliers(tables["ritz"], tables["eigenvalues"])
    assert found[found["operator"] == "residual"]["beyond_residual"].isna().all()
    first = tables["ritz"].query("not deflated and start_vector == 0")
    names = [key for key in SPECTRUM_KEYS if key != "operator"]
    edges = first[first["operator"] == "residual"].groupby(names)["ritz_value"].agg(lambda v: v.abs().max())
    for row in found[found["operator"] != "residual"].to_dict("records"):
        edge = edges[tuple(row[name] for name in names)]
        values = first
        for key in SPECTRUM_KEYS:
            values = values[values[key] == row[key]]
        assert row["residual_edge"] == edge
        assert row["beyond_residual"] == (values["ritz_value"] > edge).sum() >= row["classes"]
    alone = outliers(tables["ritz"].query("operator == 'hessian'"), tables["eigenvalues"])
    assert alone["beyond_residual"].isna().all()


def test_the_top_eigenvalue_comes_from_deflation_where_it_was_done(tables):
    found = outliers(tables["ritz"], tables["eigenvalues"].assign(eigenvalue=123.0)).groupby("operator")
    assert (found["top_eigenvalue"].min()[["hessian", "ggn"]] == 123.0).all()
    assert found["top_eigenvalue"].max()["residual"] < 50.0


def test_ghosts_and_unconverged_values_are_no_eigenvalues():
    bulk = wigner(np.random.default_rng(4))
    values = np.sort(np.concatenate([bulk, [6.0, 7.0, 8.0]]))
    ritz = exact_ritz("hessian", values)
    ghosts = ritz[ritz["ritz_value"] > 5].assign(ritz_value=lambda f: f["ritz_value"] - 1e-7, weight=1e-12)
    coming = ritz.iloc[[-1]].assign(ritz_value=7.9, residual_bound=0.3, weight=1e-12)
    wild = ritz.iloc[[-1]].assign(ritz_value=20.0, residual_bound=5.0, weight=1e-12)
    plain, disturbed = (outliers(table, NO_EIGENVALUES) for table in (ritz, pd.concat([ritz, ghosts, coming, wild])))
    assert plain["outlier_count"].item() == disturbed["outlier_count"].item() == 3


def test_positions_pair_hessian_and_ggn_by_rank():
    keys = {operator: spectrum_columns(operator) for operator in ("hessian", "ggn")}
    rows = [eigenvalue_rows(keys["hessian"], [11.0, -4.0, 1.0]), eigenvalue_rows(keys["ggn"], [10.0, 5.0])]
    found = outlier_positions(pd.concat(rows))
    assert found["rank"].tolist() == [1, 2]
    assert found["hessian"].tolist() == [11.0, -4.0]
    assert found["ggn"].tolist() == [10.0, 5.0]
    assert found["relative_difference"].to_numpy() == pytest.approx([0.1, -1.8])
    assert found["hessian_residual_norm"].tolist() == found["ggn_residual_norm"].tolist() == [1e-6, 1e-6]


def test_positions_of_no_eigenvalues_are_an_empty_table():
    assert outlier_positions(NO_EIGENVALUES).empty


def test_energies_and_cross_term_are_those_of_the_dense_matrices():
    parts = planted_parts(np.random.default_rng(5), classes=10)
    ritz = pd.concat([exact_ritz(name, np.linalg.eigvalsh(matrix)) for name, matrix in parts.items()])
    found = components(ritz).set_index("operator")
    for name, matrix in parts.items():
        assert found.loc[name, "bulk_energy"] == pytest.approx(np.sum(matrix**2) / DIMENSION)
    cross = 2 * np.sum(parts["ggn"] * parts["residual"]) / DIMENSION
    assert found.loc["cross", "bulk_energy"] == pytest.approx(cross)
    assert not found["deflated"].any()


def test_the_bulk_is_what_deflation_left(tables):
    found = components(tables["ritz"])
    for operator in ("hessian", "ggn"):
        bulk = tables["ritz"][tables["ritz"]["deflated"] & (tables["ritz"]["operator"] == operator)]
        energy = bulk["weight"].mul(bulk["ritz_value"] ** 2).groupby([bulk["seed"], bulk["split"]]).sum() / 2
        rows = found[found["operator"] == operator].set_index(["seed", "split"])
        pd.testing.assert_series_equal(rows["bulk_energy"].sort_index(), energy.sort_index(), check_names=False)
    assert found.groupby("operator")["deflated"].all().to_dict() == {
        "cross": True,
        "ggn": True,
        "hessian": True,
        "residual": False,
    }


def test_shares_add_up_to_one_with_the_cross_term(tables):
    found = components(tables["ritz"])
    parts = found[found["operator"] != "hessian"]
    share = "bulk_energy_share"
    assert parts.groupby(["seed", "split"])[share].sum().to_numpy() == pytest.approx(1.0)
    assert (found.loc[found["operator"] == "hessian", share] == 1.0).all()


def test_standard_errors_are_those_over_start_vectors_and_absent_with_one():
    columns = spectrum_columns("ggn")
    vectors = [ritz_rows(columns, [2.0, 4.0], [0.5, 0.5], start_vector=0), ritz_rows(columns, [2.0, 4.0], [0.2, 0.8],
               start_vector=1)]  # fmt: skip
    energies = np.array([10.0, 13.6])
    both = components(pd.concat(vectors)).iloc[0]
    assert both["bulk_energy"] == pytest.approx(energies.mean())
    assert both["bulk_energy_standard_error"] == pytest.approx(energies.std(ddof=1) / np.sqrt(2))
    assert np.isnan(components(vectors[0]).iloc[0]["bulk_energy_standard_error"])


def test_unconverged_ritz_values_are_not_counted_beyond_the_residual():
    """Without reorthogonalisation a ghost on its way stands among the outliers."""
    ritz = exact_ritz("hessian", np.array([0.0, 0.1, 5.0, 7.0]))
    ghost = ritz.iloc[[-1]].assign(ritz_value=6.0, residual_bound=1.5, weight=1e-9)
    edge = exact_ritz("residual", np.array([-1.0, 0.5]))
    found = outliers(pd.concat([ritz, ghost, edge]), NO_EIGENVALUES).set_index("operator")
    assert found.loc["hessian", "beyond_residual"] == 2


def test_negative_mass_is_the_share_of_absolute_values_and_negative_energy_that_of_squares():
    found = components(exact_ritz("hessian", np.array([-10.0, -2.0, 0.0, 8.0, 100.0]))).iloc[0]
    assert found["negative_mass"] == pytest.approx(12.0 / 120.0)
    assert found["negative_energy_share"] == pytest.approx(104.0 / 10168.0)
    assert np.isnan(components(exact_ritz("hessian", np.zeros(5))).iloc[0]["negative_mass"])


def power_law_density(exponent, sides=(1.0, 1.0), operator="residual", **columns):
    """A density proportional to |lambda|^-exponent from 0.05 to 4 on both sides, scaled by `sides`."""
    keys = spectrum_columns(operator, p=100_000, **columns)
    rows = density_rows(keys, np.array([-4.0, 4.0]), np.array([0.5, 0.5]), points=4096)
    x = rows["eigenvalue"].to_numpy()
    law = np.where(np.abs(x) < 0.05, 0.0, np.maximum(np.abs(x), 1e-9) ** -exponent) * 1e-3
    return rows.assign(density=law * np.where(x > 0, *sides))


def test_tails_recover_the_exponent_on_both_sides():
    found = tails(power_law_density(2.6)).set_index("sign")
    assert found["exponent"].to_numpy() == pytest.approx(2.6, abs=0.02)
    assert found["coefficient"].to_numpy() == pytest.approx(1e-3, rel=0.02)
    assert (found["r_squared"] > 0.999).all() and (found["mp_r_squared"] < found["r_squared"]).all()
    assert found["asymmetry"].to_numpy() == pytest.approx(0.0, abs=1e-9)
    assert (found["reason"] == "").all()


def test_asymmetry_is_the_distance_between_the_sides_in_decades():
    found = tails(power_law_density(2.0, sides=(1.0, 0.1)))
    assert found["asymmetry"].to_numpy() == pytest.approx(1.0, abs=1e-6)


def test_a_side_without_eigenvalues_gets_a_reason_and_no_number():
    found = tails(power_law_density(2.0, sides=(1.0, 0.0))).set_index("sign")
    assert "fewer than 10 eigenvalues" in found.loc[-1, "reason"]
    assert np.isnan(found.loc[-1, "exponent"]) and np.isnan(found.loc[-1, "mp_r_squared"])
    assert found.loc[1, "reason"] == "" and found["asymmetry"].isna().all()


def test_tails_are_fitted_to_the_raw_residual_and_the_deflated_hessian_by_lanczos_only(tables):
    density = pd.concat([tables["density"], tables["density"].assign(estimator="kpm")])
    found = tails(density)
    assert set(zip(found["operator"], found["deflated"], strict=True)) == {("residual", False), ("hessian", True)}
    assert len(found) == 2 * 2 * 2 * 2  # runs, splits, spectra, signs


def test_no_input_is_modified(tables):
    before = {name: table.copy() for name, table in tables.items()}
    outliers(tables["ritz"], tables["eigenvalues"])
    outlier_positions(tables["eigenvalues"])
    components(tables["ritz"])
    tails(tables["density"])
    for name, table in tables.items():
        pd.testing.assert_frame_equal(table, before[name])
