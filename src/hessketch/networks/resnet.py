"""ResNet18 for 32x32 images (He et al. 2016): a 3x3 stem with stride 1 and no pooling before the blocks."""

from collections.abc import Callable

from torch import Tensor, nn

from hessketch.networks.layers import norm_of_images, scaled

Activation = Callable[[], nn.Module]
_STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))  # channels and stride of the first of two blocks


def _convolution(incoming: int, outgoing: int, side: int, stride: int, norm: str) -> list[nn.Module]:
    convolution = nn.Conv2d(incoming, outgoing, side, stride, padding=side // 2, bias=norm == "none")
    return [convolution, *norm_of_images(norm, outgoing)]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a strided 1x1 convolution where the shape changes."""

    def __init__(self, incoming: int, outgoing: int, stride: int, norm: str, activation: Activation):
        super().__init__()
        self.path = nn.Sequential(
            *_convolution(incoming, outgoing, 3, stride, norm),
            activation(),
            *_convolution(outgoing, outgoing, 3, 1, norm),
        )
        same = stride == 1 and incoming == outgoing
        self.shortcut = nn.Sequential(*([] if same else _convolution(incoming, outgoing, 1, stride, norm)))
        self.activation = activation()

    def forward(self, images: Tensor) -> Tensor:
        return self.activation(self.path(images) + self.shortcut(images))


def resnet18(
    channels: int,
    classes: int,
    width: float = 1.0,
    norm: str = "batch",
    activation: Activation = nn.ReLU,
    final_bias: bool = True,
) -> nn.Sequential:
    """Stem, four stages of two basic blocks, global average pooling, one linear layer.

    11,173,962 parameters with batch norm, 3 channels and 10 classes. Without normalisation the convolutions have
    biases.
    """
    incoming = scaled(64, width)
    layers = [*_convolution(channels, incoming, 3, 1, norm), activation()]
    for units, first_stride in _STAGES:
        outgoing = scaled(units, width)
        for stride in (first_stride, 1):
            layers.append(BasicBlock(incoming, outgoing, stride, norm, activation))
            incoming = outgoing
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(incoming, classes, bias=final_bias))


def resnet18_smooth(channels: int, classes: int, width: float = 1.0, norm: str = "batch") -> nn.Sequential:
    """ResNet18 with GELU for ReLU and no bias in the last layer, as in the code of Shrivastava et al. 2024.

    Twice differentiable everywhere, as a predictor Hessian needs; 11,169,344 parameters with one output and 3
    channels.
    """
    return resnet18(channels, classes, width, norm, activation=nn.GELU, final_bias=False)
