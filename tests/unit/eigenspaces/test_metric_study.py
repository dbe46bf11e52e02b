import math
import runpy
from pathlib import Path

import pytest
import torch

from hessketch.eigenspaces.metric_study import PAIRS, metric_study, random_angles
from hessketch.errors import InputError
from hessketch.linalg.chance_overlaps import chance_overlap, mask_pair_chance
from hessketch.linalg.grassmannian import METRICS
from hessketch.progress import Progress
from hessketch.records import read_table

SCRIPT = Path(__file__).parents[3] / "workflow/scripts/metric_study.py"
COLUMNS = ["pair", "dimension", "ratio", "k", "metric", "samples", "q05", "q25", "q50", "q75", "q95", "expected"]


@pytest.fixture(scope="module")
def table():
    return metric_study([40, 100], [1, 0.9, 0.3, 0.01], samples=30)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize(("p", "k"), [(12, 3), (12, 6), (12, 9), (12, 11)])
def test_random_pairs_of_any_size_overlap_by_chance(pair, p, k):
    generator = torch.Generator().manual_seed(1)
    drawn = torch.stack([random_angles(pair, p, k, generator) for _ in range(250)])
    assert drawn.shape == (250, k)
    found = drawn.cos().square().mean(1)
    chance = mask_pair_chance(p, k) if pair == "masks" else chance_overlap(p, k)
    assert abs(float(found.mean()) - k / p) < 4 * chance.sd / math.sqrt(250)
    assert float(found.std()) == pytest.approx(chance.sd, rel=0.3)


@pytest.mark.parametrize("pair", PAIRS)
def test_spaces_of_more_than_half_the_dimensions_share_a_space_of_the_rest(pair):
    angles = random_angles(pair, 10, 7, torch.Generator().manual_seed(0))
    assert angles[:4].tolist() == [0] * 4 and (angles.diff() >= 0).all()
    if pair != "masks":
        assert float(angles[4]) > 1e-3
    assert random_angles(pair, 10, 10, torch.Generator()).tolist() == [0] * 10


def test_the_table_has_a_row_for_each_pair_dimension_ratio_and_metric(table):
    assert list(table) == COLUMNS
    assert len(table) == 3 * 2 * 4 * len(METRICS)
    assert not table.duplicated(["pair", "dimension", "ratio", "metric"]).any()
    assert set(table[table.ratio == 0.01].k) == {1} and set(table[table.ratio == 0.9].k) == {36, 90}
    quantiles = table[["q05", "q25", "q50", "q75", "q95"]].to_numpy()
    assert ((quantiles >= 0) & (quantiles <= 1)).all() and (quantiles[:, 1:] >= quantiles[:, :-1]).all()
    overlaps = table.metric == "overlap"
    assert (table.expected[overlaps] == table.k[overlaps] / table.dimension[overlaps]).all()
    assert table.expected[~overlaps].isna().all()


def test_sizes_are_the_nearest_whole_numbers():
    assert set(metric_study([100], [0.29], samples=1).k) == {29}  # 0.29 * 100 is 28.999... in float64


def test_overlaps_of_random_spaces_lie_at_chance_within_its_spread(table):
    for row in table[(table.metric == "overlap") & (table.ratio < 1) & (table.k > 5)].itertuples():
        sd = (mask_pair_chance if row.pair == "masks" else chance_overlap)(row.dimension, row.k).sd
        step = (row.pair == "masks") / row.k  # masks share whole numbers
        assert abs(row.q50 - row.expected) < 4 * 1.2533 * sd / math.sqrt(30) + step
        assert 2 * sd - step < row.q95 - row.q05 < 5 * sd + step  # 3.3 sd for a normal law


def test_the_largest_angle_and_fubini_study_tell_nothing_while_the_overlap_grows_with_the_ratio(table):
    random = table[(table.dimension == 100) & (table.pair != "masks") & table.ratio.isin([0.3, 0.9])]
    median = random.pivot(index=["pair", "ratio"], columns="metric", values="q50")
    assert (median[["chordal_max", "projection_max", "fubini_study"]] < 0.03).all(axis=None)
    assert (median["overlap"].xs(0.9, level="ratio") > 0.85).all()


def test_equal_spaces_are_wholly_similar_by_every_metric(table):
    whole = table[table.ratio == 1]
    assert (whole[["q05", "q50", "q95"]] == 1).all(axis=None)


def test_rows_depend_on_their_own_cell_and_the_seed_only(table):
    one = metric_study([100], [0.3], samples=30)
    same = table[(table.dimension == 100) & (table.ratio == 0.3)].reset_index(drop=True)
    assert one.equals(same)
    other = metric_study([100], [0.3], samples=30, seed=1)
    random = other.pair != "masks"
    assert (other.q50[random & (other.metric == "overlap")] != one.q50[random & (one.metric == "overlap")]).all()


def test_progress_ends_at_the_number_of_cells():
    seen = []
    metric_study([10], [0.5, 0.2], samples=1, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 6) for done in range(7)]


def test_settings_that_make_no_pairs_are_refused():
    with pytest.raises(InputError, match="dimension is 1"):
        metric_study([1], [0.5])
    for ratio in (0, 1.1, math.nan):
        with pytest.raises(InputError, match="above 0, up to 1"):
            metric_study([10], [ratio])
    with pytest.raises(InputError, match="samples is 0"):
        metric_study([10], [0.5], samples=0)
    for dimensions, ratios in (([], [0.5]), ([10, 10], [0.5]), ([10], []), ([10], [0.5, 0.5])):
        with pytest.raises(InputError, match="one or more, each once"):
            metric_study(dimensions, ratios)


def test_the_script_writes_the_table(tmp_path):
    names = runpy.run_path(str(SCRIPT))
    path, log = tmp_path / "metric_study.parquet", tmp_path / "log.txt"
    flags = ["--dimensions", "20", "--ratios", ".5", ".1", "--samples", "4", "--seed", "3", "--output", str(path)]
    progress = Progress("metric study", log)
    names["measure"](names["parser"].parse_args(flags), progress)
    progress.close()
    assert read_table(path).equals(metric_study([20], [0.5, 0.1], samples=4, seed=3))
    assert "random pairs of spaces 6/6" in log.read_text() and "42 rows" in log.read_text()


def test_the_script_refuses_numbers_that_are_not_whole(capsys):
    parser = runpy.run_path(str(SCRIPT))["parser"]
    with pytest.raises(SystemExit):
        parser.parse_args(["--dimensions", "1", "--ratios", ".5", "--output", "x.parquet"])
    assert "a whole number of at least 2" in capsys.readouterr().err
