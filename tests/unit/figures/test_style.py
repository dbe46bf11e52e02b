import matplotlib as mpl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hessketch.errors import InputError
from hessketch.figures import style


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("vgg11", "VGG11"),
        ("vgg11-batch-w1", "VGG11"),
        ("vgg11-batch-w0.0625", "VGG11, width 1/16"),
        ("resnet18-group-w1", "ResNet18, group norm"),
        ("resnet18_smooth-group-w1", "ResNet18 (GELU), group norm"),
        ("mlp-none-w0.3", "MLP, no norm, width 0.3"),
        ("mlp-batch-w2.5", "MLP, width 2.5"),
        ("my-package.nets:make", "my-package.nets:make"),
        ("my-package.nets:make-none-w1", "my-package.nets:make, no norm"),
    ],
)
def test_network_labels_are_made_readable(label, name):
    assert style.network_name(label) == name


@given(st.lists(st.from_regex("[a-c]([a-c -]{0,10}[a-c])?", fullmatch=True), min_size=1, max_size=6))
def test_title_lines_are_short_and_break_after_commas_only(parts):
    lines = style.title_lines(", ".join(parts)).split("\n")
    assert max(map(len, lines)) <= 38
    assert " ".join(lines).split(", ") == parts


def test_data_sets_stand_in_the_papers_order_and_unknown_ones_last():
    given_order = ["zeta", "cifar100", "alpha", "mnist", "mnist", "cifar10"]
    assert style.ordered(given_order) == ["mnist", "cifar10", "cifar100", "alpha", "zeta"]


def test_a_wrapped_grid_has_as_many_panels_as_asked_for():
    for count in (1, 2, 3, 5):
        figure, axes = style.wrapped_grid(count)
        assert len(axes) == len(figure.axes) == count


def test_drawing_leaves_the_global_settings_alone():
    before = dict(mpl.rcParams)
    seen = style.styled(lambda: dict(mpl.rcParams))()
    assert seen["pdf.fonttype"] == 42 != before["pdf.fonttype"]
    assert dict(mpl.rcParams) == before


@pytest.fixture
def figure():
    figure, [[ax]] = style.grid(1, 1)
    ax.plot([0, 1], [1, 2])
    ax.set_xlabel("eigenvalue")
    return figure


def test_a_saved_figure_is_in_the_format_of_its_suffix(figure, tmp_path):
    paths = style.save_figure(figure, tmp_path / "new/a.pdf", str(tmp_path / "a.png"), tmp_path / "a.svg")
    assert paths == (tmp_path / "new/a.pdf", tmp_path / "a.png", tmp_path / "a.svg")
    starts = [path.read_bytes()[:5] for path in paths]
    assert starts == [b"%PDF-", b"\x89PNG\r", b"<?xml"]


def test_fonts_are_embedded_as_truetype(figure):
    content = style.render(figure, "pdf")
    assert b"/Type3" not in content and b"/FontFile2" in content


@pytest.mark.parametrize("format", ["pdf", "png", "svg"])
def test_the_same_figure_gives_the_same_bytes(figure, format):
    assert style.render(figure, format) == style.render(figure, format)


def test_an_unknown_format_is_refused_before_anything_is_written(figure, tmp_path):
    with pytest.raises(InputError, match=r"a\.jpg.*\.pdf, \.png, \.svg"):
        style.save_figure(figure, tmp_path / "a.png", tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(figure, tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    monkeypatch.setattr("os.replace", lambda *names: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        style.save_figure(figure, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
