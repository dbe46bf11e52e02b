"""Every mistake in a profile is named at once, with its key, what is allowed and the nearest valid name."""

import gzip
import math
import re
import struct
import subprocess
import sys
from copy import deepcopy
from dataclasses import fields

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from sound_config import CONFIG, PROFILES, SCHEMA, SOUND

from hessketch.config import (
    LANCZOS_STEPS,
    METHOD_KEYS,
    config_problems,
    data_problems,
    fill_defaults,
    folder_problems,
    runs_of,
)
from hessketch.curvature.losses import LOSSES
from hessketch.linalg.methods import METHODS
from hessketch.networks.layers import NORMS
from hessketch.networks.registry import NETWORKS
from hessketch.runs import Run
from hessketch.training.settings import TrainingSettings


def changed(key, value):
    """SOUND with one key changed, `a.b.c` being the path to it; a value of None removes it."""
    config = deepcopy(SOUND)
    *folders, last = key.split(".")
    place = config
    for folder in folders:
        place = place[int(folder) if isinstance(place, list) else folder]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return config


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_the_shipped_profiles_are_sound_and_named_as_their_files(path):
    config = yaml.safe_load(path.read_text())
    assert config_problems(config, SCHEMA) == []
    assert config["profile"] == path.stem


_NASTY = [
    "..",
    "/",
    "\0",
    "\n",
    " ",
    ";",
    "$(x)",
    "-",
    ".",
    "'",
    "<script>",
    "digits",
    "mnist-classes3",
    "clusters-k2-d3-s1",
    "14x14",
]


@given(st.lists(st.sampled_from(_NASTY), max_size=4).map("".join) | st.text(max_size=20))
def test_no_name_of_a_data_set_that_is_let_through_leads_out_of_a_folder(name):
    settings = SOUND["datasets"]["digits"] if "digits" in SOUND["datasets"] else next(iter(SOUND["datasets"].values()))
    problems = config_problems({**SOUND, "datasets": {name: settings}}, SCHEMA)
    assert any(line.startswith(f"datasets.{name}: ") for line in problems) or re.fullmatch(r"[a-z][\w+.-]*", name)


def test_a_sound_config_has_no_problem():
    assert config_problems(SOUND, SCHEMA) == []


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("sedes", [0], "sedes: unknown key; allowed: profile, .*; nearest valid name: seeds"),
        ("spectrum.lanczos_step", 9, "spectrum.lanczos_step: unknown key; .*; nearest valid name: lanczos_steps"),
        ("datasets.digitz", SOUND["datasets"]["digits"], "datasets.digitz: unknown data set .*name: digits"),
        ("networks.0.name", "resnet-18", r"networks\[0\].name: .* unknown; allowed: .*; nearest valid name: resnet18"),
        ("seeds", None, "seeds: missing; allowed: a list with at least 1 entry"),
        ("seeds", [], "seeds: empty; allowed: a list with at least 1 entry"),
        ("seeds", [1, 1], "seeds: holds an entry twice"),
        ("seeds", 3, "seeds: 3 is int; allowed: a list"),
        ("datasets.digits.learning_rates", [], "datasets.digits.learning_rates: empty"),
        ("datasets.digits.learning_rates", [0], r"learning_rates\[0\]: 0 given; allowed: a number above 0"),
        ("datasets.digits.learning_rates", ["1e-2"], "YAML reads 1e-2 as text, write 0.01; allowed: a number above 0"),
        ("datasets.digits.epochs", "ten", "datasets.digits.epochs: 'ten' is str; allowed: a whole number at least 1"),
        ("datasets.digits.examples_per_class", [200], "examples_per_class: 200 given, the smallest class has 124"),
        ("datasets.digits.test_examples_per_class", 51, "51 given, the smallest class has 50"),
        ("datasets.digits.test_examples_per_class", "every", "'every' is str; allowed: .* or the word all"),
        ("training.batch_size", 1.5, "training.batch_size: 1.5 is float; allowed: a whole number at least 1"),
        ("training.batch_size", 3.0, "training.batch_size: 3.0 is float: write 3; allowed: a whole number at least 1"),
        ("datasets.digits.epochs", "1e2", "YAML reads 1e2 as text, write 100; allowed: a whole number"),
        ("datasets.digits.learning_rates", ["1e-9"], "YAML reads 1e-9 as text, write 1.0e-09; allowed"),
        ("datasets.digits.learning_rates", [float("inf")], r"learning_rates\[0\]: inf is float; allowed: a number"),
        ("training.weight_decay", float("nan"), "training.weight_decay: nan is float; allowed: a number at least 0"),
        ("seeds", [True], r"seeds\[0\]: True is bool; allowed: a whole number at least 0"),
        ("networks", 5, "networks: 5 is int; allowed: a list"),
        ("training.checkpoint_epochs", 5, "training.checkpoint_epochs: 5 is int; allowed: a list"),
        ("training.momentum", 1, "training.momentum: 1 given; allowed: a number at least 0 below 1"),
        ("training.checkpoint_epochs", [3], "checkpoint_epochs: 3 is beyond the 2 epochs of datasets.digits"),
        ("spectrum.grid_points", 30, "spectrum.grid_points: 30 given; allowed: at least as many as the 48"),
        ("spectrum.lanczos_steps", 2000, "spectrum.grid_points: 1024 given; allowed: at least as many as the 2000"),
        ("spectrum.max_steps", 20, "spectrum.max_steps: 20 given; allowed: at least as many as the 48 lanczos_steps"),
        ("spectrum.margin", 0.1, "spectrum.margin: belongs to method paper, here is fast; remove it, or write method"),
        (
            "spectrum",
            {"method": "paper", "tolerance": 0.1},
            "spectrum.tolerance: belongs to method fast, here is paper",
        ),
        ("spectrum.method", "quick", "spectrum.method: 'quick' is unknown; allowed: one of fast, paper"),
        ("spectrum.kpm_moments", 1, "spectrum.kpm_moments: 1 .*; allowed: 0 or a whole number at least 2"),
        ("losses", ["hinge"], "losses.0.: 'hinge' is unknown; allowed: one of cross_entropy"),
        ("datasets", {}, "datasets: empty"),
        ("datasets", ["digits"], "datasets: .* is list; allowed: a mapping"),
        ("profile", "My Profile", "profile: 'My Profile' given; allowed: text matching"),
        ("profile", "../../x", "profile: '../../x' given; allowed: text matching"),
        ("profile", "/tmp/x", "profile: '/tmp/x' given; allowed: text matching"),
        ("profile", "demo\n", r"profile: 'demo\\n' given; allowed: text matching"),
        ("profile", "a\0b", r"profile: 'a\\x00b' given; allowed: text matching"),
        ("profile", "x" * 65, "profile: 'x+' given; allowed: text matching"),
        ("data_folder", "", "data_folder: '' given; allowed: text matching"),
        ("data_folder", "a\0b", r"data_folder: 'a\\x00b' given; allowed: text matching"),
        ("data_folder", "-rf", "data_folder: '-rf' given; allowed: text matching"),
        ("jobs_per_gpu", 0, "jobs_per_gpu: 0 given; allowed: a whole number at least 1"),
        ("spectrum.processes", "two", "spectrum.processes: .*; allowed: a whole number at least 1 or the word all"),
    ],
)
def test_a_mistake_is_named_with_its_key_and_what_is_allowed(key, value, line):
    problems = config_problems(changed(key, value), SCHEMA)
    assert [p for p in problems if re.search(line, p)], problems


@pytest.mark.parametrize("number", [1e-9, 1e20, 0.01, 2.5e-7])
def test_the_advised_spelling_of_a_number_is_read_as_that_number(number):
    (line,) = config_problems(changed("datasets.digits.learning_rates", [f"{number:.0e}"]), SCHEMA)
    advised = re.search("write (.*); allowed", line)[1]
    assert yaml.safe_load(advised) == float(f"{number:.0e}")


def test_batches_of_one_need_a_network_without_batch_norm():
    config = changed("training.batch_size", 1)
    assert config_problems(config, SCHEMA) == []
    config["networks"] = [{"name": "mlp"}]
    (line,) = config_problems(config, SCHEMA)
    assert line.startswith("training.batch_size: 1 given; allowed with batch norm: at least 2")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("networks", [{"name": "mlp"}, {"name": "mlp", "norm": "batch"}]),
        ("datasets.digits.learning_rates", [0.1, 0.1000000000000001]),
    ],
)
def test_a_run_asked_for_twice_is_named(key, value):
    (line,) = config_problems(changed(key, value), SCHEMA)
    assert re.match("config: asks 2 times for digits/noise0/n2/mlp-.*; allowed: once", line)


def test_a_network_of_images_on_vectors_is_refused():
    config = changed("networks", [{"name": "vgg11"}])
    config["datasets"] = {"clusters-k3-d5-s4": SOUND["datasets"]["digits"]}
    assert config_problems(config, SCHEMA) == [
        "networks: vgg11 needs images, clusters-k3-d5-s4 holds vectors; allowed there: mlp, mlp_tanh"
    ]


def test_all_mistakes_are_named_at_once():
    config = changed("seeds", [])
    config["losses"] = ["hinge"]
    config["trainning"] = {}
    assert len(config_problems(config, SCHEMA)) == 3


def test_the_schema_knows_the_names_and_defaults_of_the_package():
    """A profile's defaults are those of the command line and of the package."""
    network = SCHEMA["properties"]["networks"]["items"]["properties"]
    assert network["name"]["enum"] == list(NETWORKS)
    assert network["norm"]["enum"] == list(NORMS)
    assert SCHEMA["properties"]["losses"]["items"]["enum"] == list(LOSSES)
    filled = fill_defaults(SOUND, SCHEMA)
    training = TrainingSettings()
    for key, value in filled["training"].items():
        assert key == "checkpoint_epochs" or value == getattr(training, key), key
    spectrum = SCHEMA["properties"]["spectrum"]["properties"]
    assert spectrum["method"]["enum"] == list(METHODS) and spectrum["method"]["default"] == next(iter(METHODS))
    for method, settings in METHODS.items():
        names = {field.name for field in fields(settings)} - {"top", "deflation_rank"}
        assert LANCZOS_STEPS[method] == settings().lanczos_steps
        assert set(METHOD_KEYS[method]) == names - {f.name for m in METHODS if m != method for f in fields(METHODS[m])}
        for name in names:
            default, text = getattr(settings(), name), spectrum[name]["description"]
            shown = str(default).lower() if isinstance(default, bool) else str(default)
            assert filled["spectrum"].get(name, default) == default, name
            assert name in filled["spectrum"] or re.search(rf"default [^()]*\b{re.escape(shown)}\b", text), (name, text)


def test_filling_defaults_leaves_the_given_config_alone():
    before = deepcopy(SOUND)
    filled = fill_defaults(SOUND, SCHEMA)
    assert before == SOUND
    assert filled["networks"] == [{"name": "mlp", "norm": "none", "width": 1}]
    assert filled["datasets"]["digits"]["label_noise"] == [0]


def test_a_config_asks_for_every_combination_once():
    config = fill_defaults(changed("seeds", [0, 1]), SCHEMA)
    config["datasets"]["digits"]["label_noise"] = [0, 0.2]
    runs = runs_of(config)
    assert len(runs) == len({run.path for run in runs}) == 2 * 2 * 2
    assert all(Run.from_path(run.path) == run for run in runs)


def test_the_papers_profile_has_its_whole_ladder():
    """Papyan 2018: four data sets, 20 sizes, two networks; five rates on grey images, six on colour."""
    config = fill_defaults(yaml.safe_load((CONFIG / "paper.yaml").read_text()), SCHEMA)
    runs = runs_of(config)
    assert len(runs) == 2 * 20 * (5 + 5 + 6 + 6)
    assert len({run.cell.path for run in runs}) == 2 * 20 * 4


def test_data_out_of_reach_are_named_with_folder_files_and_host(tmp_path):
    config = {"datasets": {"mnist": {}, "digits": {}}, "data_folder": str(tmp_path)}
    (line,) = data_problems(config, lambda host: False)
    assert line.startswith(f"data_folder: {tmp_path} holds no files of mnist (train-images-idx3-ubyte,")
    assert "cannot be reached" in line
    assert data_problems(config, lambda host: True) == []


def test_damaged_raw_files_are_named_before_any_job(tmp_path):
    for name, dimensions in (("images-idx3", (2, 28, 28)), ("labels-idx1", (2,))):
        header = struct.pack(f">{1 + len(dimensions)}i", 2048 + len(dimensions), *dimensions)
        for prefix in ("train", "t10k"):
            path = tmp_path / f"{prefix}-{name}-ubyte.gz"
            path.write_bytes(gzip.compress(header + bytes(math.prod(dimensions))))
    config = {"datasets": {"mnist": {}}, "data_folder": str(tmp_path)}
    assert data_problems(config, lambda url: False) == []
    whole = path.read_bytes()
    for damaged in (whole[:-4], gzip.compress(gzip.decompress(whole)[:-1]), b"", gzip.compress(b"something else")):
        path.write_bytes(damaged)
        (line,) = data_problems(config, lambda url: False)
        assert f"{path} is damaged or cut short" in line and line.endswith("delete or replace it")


def test_a_results_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "results").write_text("")
    (line,) = folder_problems([str(tmp_path / "results/demo")])
    assert "cannot be written" in line and "a file, not a folder" in line


def test_reading_a_config_imports_neither_torch_nor_pandas():
    """Snakemake parses the Snakefile in every job of a cluster."""
    code = "import sys, hessketch.config, hessketch.devices; sys.exit(bool({'torch', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_checking_a_config_imports_no_checkers_of_formats_and_leaves_them_to_others():
    lines = [
        "import sys, hessketch.config_schema",
        "assert 'jsonschema' in sys.modules and 'rfc3987_syntax' not in sys.modules",
    ]
    subprocess.run([sys.executable, "-c", "; ".join(lines)], check=True)
