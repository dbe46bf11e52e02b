import sys

import pytest
import torch
from torch import nn
from torch.func import functional_call, hessian

from hessketch.errors import InputError
from hessketch.networks.layers import initialise
from hessketch.networks.registry import NETWORKS, build_network
from hessketch.networks.resnet import resnet18_smooth


def size(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "channels", "classes", "parameters"),
    [
        ("vgg11", 3, 10, 28_157_706),
        ("vgg11", 1, 10, 28_156_554),
        ("vgg11", 3, 100, 28_526_436),
        ("resnet18", 3, 10, 11_173_962),
        ("resnet18", 1, 10, 11_172_810),
        ("resnet18", 3, 100, 11_220_132),
    ],
)
def test_parameter_counts_are_those_of_the_papers_networks(name, channels, classes, parameters):
    assert size(build_network(name, input_shape=(channels, 32, 32), classes=classes)) == parameters


def test_the_smooth_resnet_with_one_output_has_11169344_parameters_and_no_relu():
    model = resnet18_smooth(3, 1)
    assert size(model) == 11_169_344
    assert not any(isinstance(module, nn.ReLU) for module in model.modules())


@pytest.mark.parametrize(
    ("name", "shape", "classes", "parameters"),
    [
        ("mlp_tanh", (1, 16, 16), 10, 7_030),
        ("3c3d", (3, 32, 32), 10, 895_210),
        ("allcnnc", (3, 32, 32), 100, 1_387_108),
    ],
)
def test_parameter_counts_are_those_of_the_eigenspaces_papers_networks(name, shape, classes, parameters):
    assert size(build_network(name, input_shape=shape, classes=classes, norm="none")) == parameters


def test_the_tanh_network_starts_as_torch_initialises_it():
    model = build_network("mlp_tanh", input_shape=(1, 16, 16), classes=10, norm="none")
    first, *others = [parameter.detach() for parameter in model.parameters() if parameter.ndim == 2]
    assert 0.99 / 16 < first.abs().max() <= 1 / 16
    assert all(0.95 / 20**0.5 < weight.abs().max() <= 1 / 20**0.5 for weight in others)
    assert torch.stack([layer.bias.abs().max() for layer in model if isinstance(layer, nn.Linear)]).min() > 0.1 / 4
    assert abs(float(first.std()) - 1 / 16 / 3**0.5) < 4 * 1 / 16 / 3**0.5 * (0.8 / 4 / first.numel()) ** 0.5


def test_an_unknown_initialisation_is_named_with_what_there_is():
    with pytest.raises(InputError, match="'kaiming' is unknown; allowed: small, he, xavier, torch"):
        initialise(nn.Linear(2, 2), torch.Generator(), "kaiming")


def test_vgg_without_normalisation_has_a_bias_for_each_hidden_unit_in_place_of_two_norm_parameters():
    with_norm = size(build_network("vgg11", input_shape=(3, 32, 32), classes=10))
    units_of_convolutions, units_of_head = 64 + 128 + 2 * 256 + 4 * 512, 2 * 4096
    without = size(build_network("vgg11", input_shape=(3, 32, 32), classes=10, norm="none"))
    assert with_norm - without == 2 * units_of_convolutions + units_of_head


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("width", [1 / 64, 1 / 16])
def test_every_network_norm_and_width_gives_finite_outputs_and_gradients_of_every_parameter(name, norm, width):
    model = build_network(name, input_shape=(1, 32, 32), classes=7, width=width, norm=norm, seed=3)
    images = torch.randn(6, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    outputs = model(images)
    assert outputs.shape == (6, 7)
    outputs.square().sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), parameter_name


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("name", ["vgg11", "resnet18"])
def test_outputs_depend_on_the_input_at_initialisation(name, norm):
    """A signal that dies in the head, or a group of one feature, would make the outputs constant."""
    model = build_network(name, input_shape=(1, 32, 32), classes=10, width=1 / 8, norm=norm, seed=1)
    images = torch.randn(16, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    outputs = model(images).detach()
    assert outputs.std(0).min() > 1e-4


def test_a_seed_fixes_the_weights_and_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    first = build_network("resnet18", input_shape=(1, 32, 32), classes=10, width=1 / 16, seed=5)
    again = build_network("resnet18", input_shape=(1, 32, 32), classes=10, width=1 / 16, seed=5)
    other = build_network("resnet18", input_shape=(1, 32, 32), classes=10, width=1 / 16, seed=6)
    assert torch.equal(torch.random.get_rng_state(), before)
    weights = [torch.cat([p.flatten() for p in model.parameters()]) for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert all(torch.isfinite(buffer).all() for buffer in first.buffers())


def test_initial_spreads_are_those_of_the_papers_code():
    model = build_network("vgg11", input_shape=(3, 32, 32), classes=10, seed=0)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    for layer in convolutions[3:]:
        assert layer.weight.std().item() == pytest.approx((2 / (9 * layer.out_channels)) ** 0.5, rel=0.01)
        assert layer.bias.abs().max() == 0
    for layer in (m for m in model.modules() if isinstance(m, nn.Linear)):
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.02)


def test_he_and_xavier_spreads_follow_the_fans():
    layer = nn.Sequential(nn.Linear(400, 100))
    for rule, variance in (("he", 2 / 400), ("xavier", 2 / 500)):
        initialise(layer, torch.Generator().manual_seed(0), rule)
        assert layer[0].weight.std().item() == pytest.approx(variance**0.5, rel=0.02)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_work_under_torch_func_in_double_precision(name):
    """The dense oracles differentiate functional calls twice."""
    model = build_network(name, input_shape=(1, 32, 32), classes=3, width=1 / 128, norm="batch", seed=0).double().eval()
    parameters = {key: value.detach() for key, value in model.named_parameters()}
    last = list(parameters)[-1]
    image = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)).double()

    def loss(part):
        return functional_call(model, {**parameters, last: part}, image).square().sum()

    assert torch.isfinite(hessian(loss)(parameters[last])).all()


def test_no_activation_works_in_place():
    for name in NETWORKS:
        model = build_network(name, input_shape=(1, 32, 32), classes=3, width=1 / 32)
        assert not any(getattr(module, "inplace", False) for module in model.modules())


def test_a_mistyped_network_names_the_nearest_one():
    with pytest.raises(InputError, match="nearest valid name: resnet18"):
        build_network("resnet-18", input_shape=(1, 32, 32), classes=10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": "layer"}, "batch, group, none"),
        ({"width": 0.0}, "above 0"),
        ({"input_shape": (1, 28, 28)}, r"\(channels, 32, 32\)"),
        ({"input_shape": (50,)}, "use mlp"),
        ({"classes": 0}, "at least 1 output"),
    ],
)
def test_arguments_that_no_network_takes_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        build_network("vgg11", **{"input_shape": (1, 32, 32), "classes": 10, **change})


@pytest.fixture
def users_module(tmp_path, monkeypatch):
    (tmp_path / "users_nets.py").write_text(
        "from torch import nn\n"
        "def fixed():\n    return nn.Sequential(nn.Flatten(), nn.Linear(12, 4))\n"
        "def fitted(input_shape, classes):\n    return nn.Linear(input_shape[0], classes)\n"
        "def wrong():\n    return 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("users_nets", None)


@pytest.mark.usefixtures("users_module")
def test_a_users_own_network_is_called_with_what_it_takes_and_seeded():
    before = torch.random.get_rng_state()
    fixed = build_network("users_nets:fixed", input_shape=(12,), classes=4, seed=1)
    again = build_network("users_nets:fixed", input_shape=(12,), classes=4, seed=1)
    assert torch.equal(fixed[1].weight, again[1].weight)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert build_network("users_nets:fitted", input_shape=(5,), classes=2).out_features == 2


@pytest.mark.usefixtures("users_module")
@pytest.mark.parametrize(
    ("name", "message"),
    [("users_nets:absent", "has no 'absent'"), ("no_such_module:f", "PYTHONPATH"), ("users_nets:wrong", "Module")],
)
def test_a_users_own_network_that_cannot_be_made_says_why(name, message):
    with pytest.raises(InputError, match=message):
        build_network(name, input_shape=(5,), classes=2)
