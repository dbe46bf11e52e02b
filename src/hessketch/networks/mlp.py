"""A plain fully connected network."""

from collections.abc import Callable, Sequence

from torch import nn

from hessketch.networks.layers import norm_of_vectors, scaled


def mlp(
    inputs: int,
    classes: int,
    hidden: Sequence[int] = (256, 256),
    width: float = 1.0,
    norm: str = "none",
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """Flattens its input, then linear layers with an activation after each hidden one.

    With normalisation the hidden layers have no bias of their own.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    incoming = inputs
    for units in hidden:
        outgoing = scaled(units, width)
        layers += [nn.Linear(incoming, outgoing, bias=norm == "none"), *norm_of_vectors(norm, outgoing), activation()]
        incoming = outgoing
    return nn.Sequential(*layers, nn.Linear(incoming, classes))


def mlp_tanh(inputs: int, classes: int, width: float = 1.0, norm: str = "none") -> nn.Sequential:
    """Five hidden layers of 20 units with tanh: 7,030 parameters with 256 inputs and 10 classes.

    The network on 16x16 images of Fernandez et al. 2025.
    """
    return mlp(inputs, classes, (20,) * 5, width, norm, nn.Tanh)
