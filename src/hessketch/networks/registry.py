"""Networks by name, initialised from an explicit seed."""

import importlib
import math
from collections.abc import Callable
from dataclasses import asdict

import torch
from torch import nn

from hessketch.checkpoints import Architecture
from hessketch.errors import InputError, nearest
from hessketch.extensions import HINT, call_with, register, registered, require_takes
from hessketch.networks.layers import initialise, require_norm
from hessketch.networks.mlp import mlp, mlp_tanh
from hessketch.networks.plain_cnn import all_cnn_c, three_conv_three_dense
from hessketch.networks.resnet import resnet18, resnet18_smooth
from hessketch.networks.vgg import vgg11

_OF_IMAGES: dict[str, Callable[..., nn.Module]] = {
    "vgg11": vgg11,
    "resnet18": resnet18,
    "resnet18_smooth": resnet18_smooth,
    "3c3d": three_conv_three_dense,
    "allcnnc": all_cnn_c,
}
_OF_VECTORS: dict[str, Callable[..., nn.Module]] = {"mlp": mlp, "mlp_tanh": mlp_tanh}
NETWORKS = (*_OF_IMAGES, *_OF_VECTORS)
_INITIALISED = {"mlp": "he", "mlp_tanh": "torch", "3c3d": "xavier", "allcnnc": "torch"}  # others as Papyan's code


def build_network(
    name: str, *, input_shape: tuple[int, ...], classes: int, width: float = 1.0, norm: str = "batch", seed: int = 0
) -> nn.Module:
    """A freshly initialised float32 network on the CPU; the global random generator stays as it is.

    `input_shape` is one example's: anything for mlp and mlp_tanh, (channels, 32, 32) for the others. `classes` is the
    number of outputs, `width` multiplies every hidden layer's units. `name` may be one of `register_network`, or
    `module:function` of the user's own, which is called alike.

    Raises InputError for an unknown name, norm, width or an input shape that the network does not take.
    """
    require_norm(norm)
    if not 0 < width <= 16 or classes < 1:
        raise InputError(
            f"width {width!r} and {classes!r} outputs given; allowed: width above 0 up to 16, at least 1 output"
        )
    if ":" in name or name in registered("network"):
        make = registered("network").get(name) or _users_function(name)
        return _users_network(name, make, seed, input_shape=input_shape, classes=classes, width=width, norm=norm)
    if name not in NETWORKS:
        known = (*NETWORKS, *registered("network"))
        allowed = f"{', '.join(known)}, module:function of your own{HINT}"
        raise InputError(f"network {name!r} is unknown; allowed: {allowed}{nearest(name, known, cutoff=0.4)}")
    if name in _OF_IMAGES and (len(input_shape) != 3 or tuple(input_shape[1:]) != (32, 32)):
        raise InputError(f"{name} takes images (channels, 32, 32), not {tuple(input_shape)}; use mlp or pad the images")
    # On the meta device torch's own initialisation costs nothing and draws no random numbers.
    with torch.device("meta"):
        if name in _OF_IMAGES:
            model = _OF_IMAGES[name](input_shape[0], classes, width=width, norm=norm)
        else:
            model = _OF_VECTORS[name](math.prod(input_shape), classes, width=width, norm=norm)
    model = model.to_empty(device="cpu")
    scheme = "he" if name == "vgg11" and norm == "none" else _INITIALISED.get(name, "small")
    initialise(model, torch.Generator().manual_seed(seed), scheme)
    return model


def register_network(name: str, build: Callable[..., nn.Module]) -> None:
    """Makes a network of the user's own known by a name, wherever one of NETWORKS is allowed.

    `build` is called with those of input_shape, classes, width and norm that it takes, and returns a float32 module
    whose outputs are (n, classes). What it draws from torch's global generator follows from the run's seed.

    Raises InputError for a name that is taken or not of lower-case letters, digits and underscores, and for a function
    that needs other arguments.
    """
    require_takes(f"network {name!r}", build, ("input_shape", "classes", "width", "norm"))
    register("network", name, build, NETWORKS, build)


def network_of(architecture: Architecture, seed: int = 0) -> nn.Module:
    """The freshly initialised network of an architecture; see `build_network`."""
    arguments = {key: value for key, value in asdict(architecture).items() if key != "network"}
    return build_network(architecture.network, **arguments, seed=seed)


def _users_network(name: str, make: Callable[..., nn.Module], seed: int, **arguments) -> nn.Module:
    """Calls the user's function with the global generator seeded, and restores the generator afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = call_with(make, arguments)
    if not isinstance(model, nn.Module):
        raise InputError(f"network {name!r} returned {type(model).__name__}; it must return a torch.nn.Module")
    return model


def _users_function(name: str) -> Callable[..., nn.Module]:
    module, _, function = name.partition(":")
    if not module or module.startswith(".") or not function:
        raise InputError(f"network {name!r}: allowed: module:function, such as my_package.nets:make")
    try:
        return getattr(importlib.import_module(module), function)
    except ImportError as error:
        raise InputError(f"network {name!r}: cannot import {module} ({error}); is it on PYTHONPATH?") from error
    except AttributeError:
        raise InputError(f"network {name!r}: {module} has no {function!r}") from None
