"""The benchmark program on something tiny; the other libraries are left out where they are not installed."""

import json

import pandas as pd
import pytest

from benchmarks import curvature
from benchmarks.eigenvalues import least_setting
from hessketch.records import read_record


def test_products_are_measured_compared_and_written_with_their_provenance(tmp_path, capsys):
    words = "--parts products --networks vgg11 --width 0.03 --batch 4 --rounds 1"
    curvature.main([*words.split(), "--output", str(tmp_path)])
    (folder,) = tmp_path.iterdir()
    table = pd.read_csv(folder / "measurements.csv")
    assert {"hessian", "ggn", "together"} <= set(table["operator"])
    ours = table[(table["method"] == "hessketch") & (table["quantity"] == "gradients")]
    assert (ours["value"] > 0).all() and len(ours) == 3
    differences = table[table["quantity"] == "relative difference"]
    assert (differences["value"] < 1e-4).all(), differences
    assert {"double backward", "released protocol"} <= set(differences["method"])
    record = json.loads((folder / "record.json").read_text())
    assert "torch" in json.dumps(record) and record
    assert (folder / "products.png").stat().st_size > 0
    assert "Hessian" in capsys.readouterr().out
    curvature.write(_densities(), folder, {"measured": "later"})
    kept = pd.read_csv(folder / "measurements.csv")
    assert set(kept["part"]) == {"products", "density"} and len(kept) == len(table) + len(_densities())
    assert set(read_record(folder / "record.json")) == {"products", "density"}
    assert (folder / "density.png").stat().st_size > 0


def _densities() -> pd.DataFrame:
    rows = [
        ("density", "small", "hessian", method, f"{steps} steps", seed, quantity, value)
        for method in ("paper, not deflated", "fast, 1 start vector")
        for steps in (16, 32)
        for seed in (0, 1)
        for quantity, value in (
            ("products", steps), ("distance of Ritz values", 1 / steps), ("distance of curve", 2 / steps)
        )
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=curvature.COLUMNS)


def test_examples_that_do_not_fill_their_batches_are_refused(tmp_path):
    with pytest.raises(SystemExit, match="no multiple of a batch of 8"):
        curvature.main(["--batch", "8", "--examples", "9", "--output", str(tmp_path)])


@pytest.mark.parametrize("first", range(6))
def test_the_least_right_setting_is_found_by_bisection(first):
    ladder = [10, 20, 30, 40, 50]
    found = least_setting(ladder, lambda setting: setting >= 10 * (first + 1))
    assert found == (10 * (first + 1) if first < 5 else None)
