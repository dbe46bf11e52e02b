"""VGG11 for 32x32 images (Simonyan and Zisserman 2015, configuration A), with its 4096-wide head."""

from torch import nn

from hessketch.networks.layers import norm_of_images, norm_of_vectors, scaled

_POOL = "pool"
_STAGES = (64, _POOL, 128, _POOL, 256, 256, _POOL, 512, 512, _POOL, 512, 512, _POOL)
_HEAD = 4096


def vgg11(channels: int, classes: int, width: float = 1.0, norm: str = "batch") -> nn.Sequential:
    """Eight 3x3 convolutions, five poolings (32x32 to 1x1) and three linear layers, no dropout.

    With normalisation the two hidden linear layers have no bias of their own. 28,157,706 parameters with batch norm,
    3 channels and 10 classes. Layers stay uninitialised as torch makes them: see `layers.initialise`.
    """
    layers: list[nn.Module] = []
    incoming = channels
    for stage in _STAGES:
        if isinstance(stage, str):
            layers.append(nn.MaxPool2d(2))
            continue
        outgoing = scaled(stage, width)
        layers += [nn.Conv2d(incoming, outgoing, 3, padding=1), *norm_of_images(norm, outgoing), nn.ReLU()]
        incoming = outgoing
    layers.append(nn.Flatten())
    for _ in range(2):
        hidden = scaled(_HEAD, width)
        layers += [nn.Linear(incoming, hidden, bias=norm == "none"), *norm_of_vectors(norm, hidden), nn.ReLU()]
        incoming = hidden
    return nn.Sequential(*layers, nn.Linear(incoming, classes))
