"""The figure of one network's spectra, from results and from tables."""

import torch

from hessketch.curvature.operators import ggn, hessian
from hessketch.figures.overview import spectra_figure
from hessketch.linalg.fast_spectrum import FastSettings, fast_spectrum


def found(operator):
    settings = FastSettings(top=2, lanczos_steps=8, max_steps=30, grid_points=64)
    return operator, fast_spectrum(operator, settings, torch.Generator().manual_seed(0))


def test_spectra_of_a_network_of_ones_own_are_drawn_with_their_leading_eigenvalues_and_sizes():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).double().eval()
    data = [(torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 1, 0, 1, 1]))]
    spectra = [found(build(model, torch.nn.CrossEntropyLoss(), data)) for build in (hessian, ggn)]
    figure = spectra_figure(*spectra, title="mine")
    assert figure.get_suptitle() == "mine, $n$ = 5, $p$ = 26"
    assert [ax.get_title() for ax in figure.axes] == ["Hessian", "GGN"]
    for ax, (_, spectrum) in zip(figure.axes, spectra, strict=True):
        assert set(spectrum.pairs.values.tolist()) == set(ax.lines[-1].get_xdata())
        assert (ax.lines[0].get_xdata() == spectrum.parts[0].density.eigenvalues).all()
