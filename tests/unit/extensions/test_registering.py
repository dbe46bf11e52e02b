"""What extensions may register, how mistakes are told, and what a config, a digest and a checkpoint make of it."""

import re
import sys
from pathlib import Path
from textwrap import dedent

import pytest
import torch
import yaml
from torch import nn

from hessketch import extensions
from hessketch.__main__ import main
from hessketch.checkpoints import Architecture, save_model
from hessketch.config import config_problems
from hessketch.curvature.job import load_network
from hessketch.curvature.losses import loss_function
from hessketch.curvature.named import named_operator, operator_names, register_operator
from hessketch.curvature.operators import COMPONENTS
from hessketch.data.catalog import describe, register_dataset
from hessketch.data.dataset import Dataset
from hessketch.data.prepared import prepare_dataset
from hessketch.errors import InputError, NotFiniteError
from hessketch.extensions import load_extensions
from hessketch.federated.methods.interface import Stateless
from hessketch.federated.methods.registry import build_method, register_method
from hessketch.federated.settings import FederatedSettings
from hessketch.federation_config import trainers_of
from hessketch.ledger import file_digest
from hessketch.networks.registry import build_network, register_network
from hessketch.provenance import code_digest, made_by
from hessketch.trainers import Trainer

SCHEMA = yaml.safe_load((Path(__file__).parents[3] / "config/schema.yaml").read_text())
NETWORK = """
from torch import nn
from hessketch.networks.registry import register_network

def linear(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0], classes))

register_network("linear", linear)
"""


def linear(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0], classes))


def data(): ...


def vectors(name, per_class):
    return Dataset(name, 2, 0, 2, per_class, (5, 5))


def profile(**changes) -> dict:
    data = {"examples_per_class": [2], "test_examples_per_class": 2, "learning_rates": [0.1], "epochs": 1}
    return {
        "profile": "own",
        "seeds": [0],
        "datasets": {"clusters-k3-d4-s4": data},
        "networks": [{"name": "mlp", "norm": "none"}],
        "losses": ["cross_entropy"],
        "training": {},
        "spectrum": {},
        "figures": {},
        **changes,
    }


def test_the_schema_names_every_operator_of_the_package_that_all_profiles_do_not_have_anyway():
    further = SCHEMA["properties"]["spectrum"]["properties"]["operators"]["items"]["enum"]
    assert [*COMPONENTS, *further] == list(operator_names())


def test_a_registered_network_follows_its_seed_and_leaves_the_global_generator_alone():
    register_network("linear", linear)
    before = torch.get_rng_state()
    first, again, other = (build_network("linear", input_shape=(4,), classes=3, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first[1].weight, again[1].weight) and not torch.equal(first[1].weight, other[1].weight)


@pytest.mark.parametrize(
    ("register", "message"),
    [
        (lambda: register_network("vgg11", linear), "network 'vgg11' is there already; choose another"),
        (lambda: register_network("My-Net", linear), "allowed are names of lower-case letters, digits and underscores"),
        (lambda: register_network("deep", lambda depth: None), "'deep': its function asks for depth; allowed: .*width"),
        (lambda: register_network("deep", None), "'deep': None given; allowed: a function of input_shape"),
        (lambda: register_method("mine_ef", lambda dimension: None), "_ef at its end means error feedback"),
        (lambda: register_method("top_r", lambda dimension: None), "method 'top_r' is there already"),
        (lambda: register_method("mine", lambda reduction: None), "does not take dimension; .* at least dimension"),
        (lambda: register_operator("ggn", lambda model, loss, batches: None), "operator 'ggn' is there already"),
        (lambda: register_operator("mine", lambda model: None), "does not take loss, batches"),
        (lambda: register_dataset(vectors("digits", (5, 5)), data), "'digits' is there already"),
        (lambda: register_dataset(vectors("two", (5,)), data), r"train_per_class \(5,\) given; .* its 2"),
        (lambda: register_dataset(Dataset("two", 2, 1, 8, (5, 5), (5, 5)), data), r"mean \(\) and std \(\) given"),
    ],
)  # fmt: skip
def test_what_cannot_be_registered_is_told_in_words(register, message):
    with pytest.raises(InputError, match=message):
        register()


def test_a_name_is_not_taken_twice_but_the_same_function_may_come_again():
    register_network("linear", linear)
    register_network("linear", linear)
    with pytest.raises(InputError, match="network 'linear' is there already"):
        register_network("linear", lambda classes: nn.Identity())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"networks": [{"name": "linaer"}]}, "networks.0..name: 'linaer' is unknown; .*linear, or one that .*: linear"),
        ({"spectrum": {"operators": ["ggnn"]}}, "operators.*'ggnn' is unknown; .*gradient_covariance, mine, or one"),
        ({"datasets": {"moons": profile()["datasets"]["clusters-k3-d4-s4"]}}, "unknown data set 'moons'; .* extension"),
        ({"extensions": ["no_such.py"]}, "extensions: extension no_such.py: no Python file is there"),
        ({"extensions": ["no_such.smk"]}, "extensions: no_such.smk: no such file"),
        ({"extensions": ["linear"]}, "extensions.0.: 'linear' given; allowed: text matching"),
        ({"spectrum": {"operators": ["mine"], "processes": 2}}, "spectrum.processes: 2 given; allowed with mine .*: 1"),
    ],
)  # fmt: skip
def test_a_config_with_a_wrong_name_is_refused_with_the_nearest(tmp_path, monkeypatch, changes, message):
    monkeypatch.chdir(tmp_path)
    register_network("linear", linear)
    register_operator("mine", lambda model, loss, batches: None)
    [problem] = config_problems(profile(**changes), SCHEMA)
    assert re.search(message, problem), problem


def test_a_config_runs_its_extensions_and_may_use_their_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my_linear.py").write_text(NETWORK)
    config = profile(extensions=["my_linear.py"], networks=[{"name": "linear", "norm": "none"}])
    assert not config_problems(config, SCHEMA)
    assert build_network("linear", input_shape=(4,), classes=3)[1].weight.shape == (3, 4)


def test_methods_have_reductions_and_error_feedback_where_their_functions_take_them():
    register_method("sign", lambda dimension: None)
    register_method("quantised", lambda dimension, reduction, error_feedback: None)
    methods = ["sign", "quantised", "quantised_ef", "sign_ef"]
    labels = [trainer.label for trainer in trainers_of({"methods": methods, "reductions": [2, 4]})]
    assert labels == ["sign", "quantised-x2", "quantised-x4", "quantised_ef-x2", "quantised_ef-x4"]
    assert Trainer.parse("quantised_ef-x4") == Trainer("quantised", True, 4.0)
    for label, message in (("sign-x2", "it has none to choose; write sign"), ("sign_ef", "sign has no error feedback")):
        with pytest.raises(InputError, match=message):
            Trainer.parse(label)


def test_a_method_that_lacks_a_part_is_refused_before_training():
    class Deaf(Stateless):
        upload_numbers = 4

        def __init__(self, dimension, error_feedback=False): ...
        def encode(self, update, step): return update  # fmt: skip

    register_method("half", lambda dimension: object())
    register_method("deaf", Deaf)
    with pytest.raises(InputError, match=r"returned has no change, decode, .*; derive its class from .*Stateless"):
        build_method(Trainer("half"), 4, FederatedSettings(), seed=0)
    with pytest.raises(InputError, match="deaf_ef: its error_feedback is False; set it"):
        build_method(Trainer("deaf", True), 4, FederatedSettings(), seed=0)
    assert build_method(Trainer("deaf"), 4, FederatedSettings(), seed=0).upload_parts[0].count == 4


@pytest.mark.parametrize(
    ("product", "error", "message"),
    [
        (lambda v: v.cumsum(0), InputError, "'mine' is not symmetric"),
        (lambda v: v[1:], InputError, r"its product with \(15, 2\) has shape \(14, 2\)"),
        (lambda v: v / 0, NotFiniteError, "'mine': a product holds NaN or infinity"),
    ],
)
def test_an_operator_that_is_none_is_refused(product, error, message):
    register_operator("mine", lambda model, loss, batches: product)
    model = linear((4,), 3).eval()
    with pytest.raises(error, match=message):
        named_operator("mine", model, loss_function("cross_entropy"), [(torch.ones(2, 4), torch.tensor([0, 1]))])


def test_a_registered_operator_may_be_a_matrix_and_takes_vectors_and_blocks():
    matrix = torch.randn(15, 15)
    matrix = matrix + matrix.T
    register_operator("mine", lambda model, loss, batches: matrix)
    operator = named_operator("mine", linear((4,), 3).eval(), loss_function("cross_entropy"), [])
    v = torch.randn(15, 2)
    assert torch.equal(operator @ v, matrix @ v) and torch.allclose(operator @ v[:, 0], matrix @ v[:, 0])


def test_images_of_ones_own_are_enlarged_and_have_parts():
    def read():
        images, labels = torch.arange(4 * 64, dtype=torch.uint8).view(4, 1, 8, 8), torch.tensor([0, 1, 0, 1])
        return {"train": (images, labels), "test": (images, labels)}

    register_dataset(Dataset("tiles", 2, 1, 8, (2, 2), (2, 2), mean=(0.5,), std=(0.5,)), read)
    assert prepare_dataset("tiles", "nowhere").train_images.shape == (4, 1, 32, 32)
    part = prepare_dataset("tiles-classes1+0-4x4", "nowhere")
    assert part.train_images.shape == (4, 1, 4, 4) and part.train_labels.tolist() == [1, 0, 1, 0]
    assert describe("tiles-classes1+0-4x4").input_shape == (1, 4, 4)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"train": (torch.zeros(2, 3), torch.tensor([0, 1]))}, "no inputs and labels of test"),
        ((torch.zeros(2, 3).double(), torch.tensor([0, 1])), "train inputs of torch.float64"),
        ((torch.zeros(2, 3), torch.tensor([0, -1])), "int64 from 0"),
        ((torch.full((2, 3), torch.nan), torch.tensor([0, 1])), "its train inputs hold NaN"),
        ((torch.zeros(2, 4), torch.tensor([0, 1])), r"hold 2 images of shape \(4,\)|vectors of shape \(4,\)"),
    ],
)
def test_data_that_are_not_as_described_are_refused(raw, message):
    given = raw if isinstance(raw, dict) else {"train": raw, "test": raw}
    register_dataset(Dataset("own", 2, 0, 3, (1, 1), (1, 1)), lambda: given)
    with pytest.raises(InputError, match=message):
        prepare_dataset("own", "nowhere")


def test_a_checkpoint_brings_no_code_with_it(tmp_path, monkeypatch):
    """One of an extension's network opens where the user has named the extension, and nowhere else."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("my_linear.py").write_text(NETWORK)
    architecture = Architecture("linear", (4,), 3, norm="none")
    save_model(linear((4,), 3), architecture, "model.safetensors", extension="my_linear.py")
    with pytest.raises(InputError, match=r"network 'linear' is unknown; .* or one that an extension registers"):
        load_network(Path("model.safetensors"))
    assert "my_linear" not in sys.modules
    load_extensions(["my_linear.py"])
    assert load_network(Path("model.safetensors"))[0][1].weight.shape == (3, 4)


def test_code_that_an_extension_changed_is_other_code(tmp_path, monkeypatch):
    """What it began is not continued, and records name the file as it was run."""
    monkeypatch.chdir(tmp_path)
    alone, digests = code_digest(), set()
    for text in (NETWORK, NETWORK + "# changed\n"):
        Path("my_linear.py").write_text(text)
        load_extensions(["my_linear.py"])
        assert made_by()["extensions"] == {"my_linear.py": file_digest(Path("my_linear.py"))}
        digests.add(code_digest())
        extensions._digests.clear()
        del sys.modules["my_linear"]
    assert len(digests) == 2 and alone not in digests and "extensions" not in made_by()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("my_broken.py", "import no_such_module", "extension .*my_broken.py: ModuleNotFoundError: No module named"),
        ("json.py", "", "a module json is there already; rename the file"),
        ("this.py", "", "a module this is there already; rename the file"),  # not imported yet
        ("my_text.txt", "", "my_text.txt: no Python file is there"),
    ],
)
def test_an_extension_that_cannot_run_ends_the_command_in_words(tmp_path, capsys, name, text, message):
    (tmp_path / name).write_text(dedent(text))
    with pytest.raises(SystemExit, match=f"error: {message}|{message}"):
        main(["plan", "--extension", str(tmp_path / name)])
