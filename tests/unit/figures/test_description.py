from matplotlib.figure import Figure
from PIL import Image

from hessketch.figures.description import description
from hessketch.figures.style import message, save_figure


def drawn():
    figure = Figure()
    left, right = figure.subplots(1, 2)
    left.plot([1, 2], label="Hessian")
    left.set(title="Train,\n$n$ = 3", xlabel="eigenvalue", ylabel="density", yscale="log")
    left.legend()
    right.set(xlabel="rank", xscale="symlog")
    figure.suptitle("Spectra")
    figure.legend(handles=left.lines, labels=["GGN"])
    return figure


def test_a_figure_says_its_panels_axes_and_legends():
    assert description(drawn()) == (
        "2 panels. Spectra. Train, n = 3: density (logarithmic) against eigenvalue; Hessian. "
        "rank (logarithmic on both sides of a linear part). Legend: GGN."
    )


def test_a_figure_without_panels_says_what_is_written_in_it():
    assert description(message("nothing to draw: all runs diverged")) == "nothing to draw: all runs diverged."


def test_the_png_of_a_figure_keeps_its_words(tmp_path):
    save_figure(drawn(), tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").info["Description"] == description(drawn())
