"""The whole protocol for one operator."""

import numpy as np
import pytest
import torch
from known_spectra import Counted, generator, integral, rotated

from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.paper_spectrum import PaperSettings, paper_spectrum, products_needed

VALUES = np.concatenate([np.linspace(-1, 1, 150), [20.0, 15.0, -12.0]])
SETTINGS = PaperSettings(
    normalization_steps=20,
    lanczos_steps=40,
    grid_points=512,
    start_vectors=2,
    deflation_rank=3,
    deflation_iterations=50,
    kpm_moments=30,
)


@pytest.fixture(scope="module")
def operator():
    return Counted(rotated(VALUES))


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def spectrum(operator, told):
    return paper_spectrum(operator, SETTINGS, generator(1), lambda *numbers: told.append(numbers))


def test_the_default_settings_are_the_papers():
    assert products_needed(PaperSettings()) == 64 + 256
    ten_classes = PaperSettings(deflation_rank=10)
    assert products_needed(ten_classes) == 64 + 256 + 10 * 256 + 64 + 256


def test_products_are_known_beforehand_counted_and_reported(operator, told, spectrum):
    planned = 2 * (20 + 2 * 40) + 3 * 50 + 2 * 15
    assert products_needed(SETTINGS) == planned
    assert spectrum.products == operator.products == planned
    done = [number for number, _ in told]
    assert {total for _, total in told} == {planned}
    assert done == sorted(done)
    assert (done[0], done[-1]) == (1, planned)


def test_the_raw_part_covers_the_whole_spectrum(spectrum):
    raw = spectrum.parts[0]
    assert not raw.deflated
    assert raw.bounds.lower <= -12 and raw.bounds.upper >= 20
    assert len(raw.ritz) == 2
    for pairs in raw.ritz:
        assert pairs.weights.sum() == pytest.approx(1)
        assert pairs.values[-1] == pytest.approx(20, abs=1e-8)
    assert len(raw.density.eigenvalues) == 512
    assert integral(raw.density) == pytest.approx(1, abs=1e-3)  # at so few steps the kernel passes the margin
    assert np.isfinite(raw.density.standard_error).all()


def test_the_deflated_part_is_left_with_the_bulk(spectrum):
    deflated = spectrum.parts[1]
    assert deflated.deflated
    assert -1.2 < deflated.bounds.lower <= -1 and 1.2 > deflated.bounds.upper >= 1
    assert all(np.abs(pairs.values).max() < 1 + 1e-6 for pairs in deflated.ritz)
    assert integral(deflated.density) == pytest.approx(1, abs=1e-3)


def test_the_pairs_are_the_outliers(spectrum):
    assert spectrum.pairs.values == pytest.approx([20, 15, -12], abs=1e-6)


def test_the_kpm_density_is_of_the_raw_operator(spectrum):
    assert integral(spectrum.kpm) == pytest.approx(1, abs=0.01)
    assert np.array_equal(spectrum.kpm.eigenvalues, spectrum.parts[0].density.eigenvalues)


def test_without_deflation_and_kpm_there_is_the_raw_part_only():
    spectrum = paper_spectrum(rotated(VALUES), PaperSettings(normalization_steps=9, lanczos_steps=20), generator())
    assert len(spectrum.parts) == 1
    assert spectrum.pairs is None and spectrum.kpm is None
    assert spectrum.products == 29


def test_a_seed_repeats_the_spectrum():
    settings = PaperSettings(normalization_steps=9, lanczos_steps=20, deflation_rank=2, deflation_iterations=5)
    first, same, other = (paper_spectrum(rotated(VALUES), settings, generator(seed)) for seed in (1, 1, 2))
    for a, b in zip(first.parts, same.parts, strict=True):
        assert np.array_equal(a.density.density, b.density.density)
    assert np.array_equal(first.pairs.values, same.pairs.values)
    assert not np.array_equal(first.parts[0].density.density, other.parts[0].density.density)


def test_reorthogonalisation_leaves_no_ghosts():
    matrix = rotated(np.concatenate([np.linspace(0, 1, 97), [30.0, 60.0, 100.0]]), dtype=torch.float32)
    above = []
    for reorthogonalize in (False, True):
        settings = PaperSettings(lanczos_steps=90, reorthogonalize=reorthogonalize)
        pairs = paper_spectrum(matrix, settings, generator()).parts[0].ritz[0]
        above.append((pairs.values > 10).sum())
    assert above[0] > 3
    assert above[1] == 3


def test_lanczos_that_ends_early_still_reports_the_end():
    told = []
    spectrum = paper_spectrum(
        torch.eye(5, dtype=torch.float64),
        PaperSettings(kpm_moments=2, start_vectors=2),
        generator(),
        lambda *numbers: told.append(numbers),
    )
    planned = 64 + 2 * 256 + 2
    assert spectrum.products == 1 + 2 + 2
    assert told[-1] == (planned, planned)
    done = [number for number, _ in told]
    assert done == sorted(done)


def test_a_zero_operator_has_a_spectrum():
    settings = PaperSettings(deflation_rank=2, deflation_iterations=3)
    spectrum = paper_spectrum(torch.zeros(6, 6), settings, generator())
    assert spectrum.pairs.values.tolist() == [0, 0]
    assert [part.ritz[0].values.tolist() for part in spectrum.parts] == [[0], [0]]


@pytest.mark.parametrize(
    ("bad_from", "message"),
    [
        (1, "fast Lanczos, step 1 of 20"),
        (25, "fast Lanczos, step 5 of 40"),
        (101, "low-rank deflation, iteration 1 of 50"),
        (251, "moment 2 of 30"),
    ],
)
def test_products_that_are_not_finite_name_algorithm_and_step(bad_from, message):
    with pytest.raises(NotFiniteError, match=message):
        paper_spectrum(Counted(rotated(VALUES), bad_from=bad_from), SETTINGS, generator())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"normalization_steps": 0}, "normalization_steps is 0"),
        ({"lanczos_steps": 1}, "lanczos_steps is 1"),
        ({"start_vectors": 0}, "start_vectors is 0"),
        ({"deflation_rank": -1}, "deflation_rank is -1"),
        ({"deflation_iterations": 0}, "deflation_iterations is 0"),
        ({"kpm_moments": 1}, "kpm_moments is 1"),
        ({"grid_points": 255}, "does not resolve"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        PaperSettings(**settings)


def test_a_bad_margin_is_refused():
    with pytest.raises(InputError, match="margin"):
        paper_spectrum(torch.eye(3), PaperSettings(margin=-1.0), generator())
