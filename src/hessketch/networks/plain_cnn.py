"""Two convolutional networks without normalisation for 32x32 images, as Fernandez et al. 2025 take them.

Both come from the optimiser benchmark DeepOBS (Schneider et al. 2019).
"""

from torch import nn

from hessketch.networks.layers import norm_of_images, norm_of_vectors, scaled

_ALL_CNN = ((96, 1), (96, 1), (96, 2), (192, 1), (192, 1), (192, 2))  # channels and stride of 3x3 convolutions


def three_conv_three_dense(channels: int, classes: int, width: float = 1.0, norm: str = "none") -> nn.Sequential:
    """3c3d: three convolutions, each followed by a pooling, and three linear layers with ReLU.

    895,210 parameters with 3 channels, 10 classes and no normalisation. The 3x3 poolings take what is left of a window
    at the right and lower edge, so that 28, 12 and 6 pixels become 14, 6 and 3.
    """
    layers: list[nn.Module] = []
    incoming = channels
    for units, side, padding in ((64, 5, 0), (96, 3, 0), (128, 3, 1)):
        outgoing = scaled(units, width)
        convolution = nn.Conv2d(incoming, outgoing, side, padding=padding, bias=norm == "none")
        layers += [convolution, *norm_of_images(norm, outgoing), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True)]
        incoming = outgoing
    layers.append(nn.Flatten())
    incoming *= 3 * 3
    for units in (512, 256):
        outgoing = scaled(units, width)
        layers += [nn.Linear(incoming, outgoing, bias=norm == "none"), *norm_of_vectors(norm, outgoing), nn.ReLU()]
        incoming = outgoing
    return nn.Sequential(*layers, nn.Linear(incoming, classes))


def all_cnn_c(channels: int, classes: int, width: float = 1.0, norm: str = "none") -> nn.Sequential:
    """All-CNN-C (Springenberg et al. 2015): nine convolutions, strides in place of poolings, a mean over what is left.

    1,387,108 parameters with 3 channels, 100 classes and no normalisation. Without the dropout of the original.
    """
    layers: list[nn.Module] = []
    incoming = channels
    shapes = [*((units, 3, stride, 1) for units, stride in _ALL_CNN), (192, 3, 1, 0), (192, 1, 1, 0)]
    for units, side, stride, padding in shapes:
        outgoing = scaled(units, width)
        convolution = nn.Conv2d(incoming, outgoing, side, stride, padding, bias=norm == "none")
        layers += [convolution, *norm_of_images(norm, outgoing), nn.ReLU()]
        incoming = outgoing
    last = [nn.Conv2d(incoming, classes, 1), nn.ReLU()]
    return nn.Sequential(*layers, *last, nn.AdaptiveAvgPool2d(1), nn.Flatten())
