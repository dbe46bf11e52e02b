import pytest
from small_throughput import CONSTANTS, write_throughput

from hessketch.errors import InputError
from hessketch.planning.sizes import NetworkSize
from hessketch.planning.throughput import GPUS, find_device
from hessketch.planning.work import OPERATIONS, dense, passes, side_by_side

NETWORK = NetworkSize("a", "matrices", 3000, 5000.0, 400, 64, 6, 64, 10)


def test_the_constants_of_a_device_are_found_from_its_measurements(tmp_path):
    write_throughput(tmp_path)
    device = find_device(None, tmp_path)
    units = (6, 5000 * 50, 400 * 50, 3000)
    expected = sum(c * u for c, u in zip(CONSTANTS, units, strict=True))
    assert device.name == "cpu-toy"
    assert device.seconds(passes("train", NETWORK, 100, 3, batch=50)) == pytest.approx(6 * expected, rel=1e-6)


def test_decompositions_take_time_by_the_cube_of_their_size(tmp_path):
    device = find_device(None, write_throughput(tmp_path).parent)
    assert device.seconds(dense("eigh", 2000)) == pytest.approx(0.8)
    assert device.seconds(dense("svd", 1000, 500, times=4)) == pytest.approx(0.1)


def test_a_gpu_without_measurements_is_planned_by_its_data_sheet_and_says_so(tmp_path):
    write_throughput(tmp_path)
    h200, a100 = (find_device(name, tmp_path) for name in ("h200", "a100"))
    large = passes("train", NETWORK, 1e9)
    assert "ESTIMATE" in h200.said and "not measured" in h200.said
    assert 1 < a100.seconds(large) / h200.seconds(large) < GPUS["h200"].float32 / GPUS["a100"].float32 + 1
    assert h200.starts["job"] > 2.0


def test_an_unknown_device_is_refused_with_those_that_are_known(tmp_path):
    write_throughput(tmp_path)
    with pytest.raises(InputError, match=r"'h2000' is unknown; allowed: cpu-toy, h200.*nearest valid name: h200"):
        find_device("h2000", tmp_path)


def test_without_measurements_the_command_that_makes_them_is_named(tmp_path):
    with pytest.raises(InputError, match=r"python -m benchmarks\.throughput --output"):
        find_device(None, tmp_path)


def test_measurements_that_lack_a_kind_are_refused(tmp_path):
    path = write_throughput(tmp_path) / "measurements.csv"
    path.write_text("\n".join(line for line in path.read_text().splitlines() if not line.startswith("ggn,")) + "\n")
    with pytest.raises(InputError, match="lacks ggn; measure anew"):
        find_device(None, tmp_path)


def test_more_examples_vectors_and_steps_are_more_operations():
    one = passes("gradient", NETWORK, 100)
    assert one.operations == OPERATIONS["gradient"] * 5000 * 100
    assert (one * 3).operations == 3 * one.operations
    both = side_by_side("clients", NETWORK, 10, vectors=20, at_once=8) + one
    assert both.operations == one.operations + 3 * 5000 * 200
    assert (both.steps, both.gradients) == (20, 300)
