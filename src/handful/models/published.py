"""The networks of the reports that this project reproduces, without their last Linear layer.

The method adds the head, one `Linear(width, K)`. Initial weights are PyTorch's defaults (Kaiming
uniform with a = sqrt 5, arXiv:1502.01852), as in the reports. Three networks have a `mean` and
`std` of 0.5, since their reports scaled pixels as (x - 0.5) / 0.5.

Letters in shapes: N images, C channels, D features.
"""

from torch import Tensor, nn

from handful.errors import HandfulError
from handful.models.blocks import Residual, conv_norm_relu, flat_width


class MLP(nn.Module):
    """Linear layers of 512, 128 and 64 outputs on all pixels, each with ReLU, then BatchNorm."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        widths = (channels * size * size, 512, 128, 64)
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in zip(widths, widths[1:], strict=False):
            layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.BatchNorm1d(outputs)]
        self.layers = nn.Sequential(*layers)
        self.width = widths[-1]

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class CNN(nn.Module):
    """Three 3x3 convolutions (32, 64, 128), the last two unpadded, then layers of 192 and 64."""

    width = 64

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()

        def convolutions() -> nn.Module:
            return nn.Sequential(
                *conv_norm_relu(channels, 32),
                nn.MaxPool2d(2),
                *conv_norm_relu(32, 64, padding=0),
                nn.MaxPool2d(2),
                *conv_norm_relu(64, 128, padding=0),
                nn.MaxPool2d(2),
                nn.Flatten(),
            )

        flat = flat_width("cnn", convolutions, channels, size)
        self.convolutions = convolutions()
        self.dense = nn.Sequential(
            nn.Linear(flat, 192),
            nn.BatchNorm1d(192),
            nn.ReLU(),
            nn.Linear(192, 64),
            nn.BatchNorm1d(64),
            nn.ReLU(),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.dense(self.convolutions(images))


class SimpleCNN(nn.Module):
    """Two 3x3 convolutions of 32 channels, one pooling, 512 features, dropout; no BatchNorm."""

    width = 512

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.mean = self.std = (0.5,) * channels

        def convolutions() -> nn.Module:
            return nn.Sequential(
                nn.Conv2d(channels, 32, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(32, 32, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Dropout(0.25),
                nn.Flatten(),
            )

        flat = flat_width("simple-cnn", convolutions, channels, size)
        self.convolutions = convolutions()
        self.dense = nn.Sequential(nn.Linear(flat, 512), nn.ReLU(), nn.Dropout(0.5))

    def forward(self, images: Tensor) -> Tensor:
        return self.dense(self.convolutions(images))


class DeepCNN(nn.Module):
    """Two blocks of 3x3, 3x3 and strided 5x5 convolutions (32, 64), 128 features, dropout."""

    width = 128

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.mean = self.std = (0.5,) * channels

        def convolutions() -> nn.Module:
            return nn.Sequential(
                *conv_norm_relu(channels, 32),
                *conv_norm_relu(32, 32),
                *conv_norm_relu(32, 32, 5, stride=2),
                nn.Dropout(0.3),
                *conv_norm_relu(32, 64),
                *conv_norm_relu(64, 64),
                *conv_norm_relu(64, 64, 5, stride=2),
                nn.Dropout(0.4),
                nn.Flatten(),
            )

        flat = flat_width("deep-cnn", convolutions, channels, size)
        self.convolutions = convolutions()
        self.dense = nn.Sequential(nn.Linear(flat, 128), nn.ReLU(), nn.Dropout(0.5))

    def forward(self, images: Tensor) -> Tensor:
        return self.dense(self.convolutions(images))


class CifarCNN(nn.Module):
    """Three 3x3 convolutions (16, 32, 64), each with ReLU and pooling, then 500 features.

    Args:
        dropout: rate after the last convolution block and after the dense layer, in [0, 1).
        bias: whether convolutions, the dense layer and the head (`head_bias`) have one.
        norm: whether BatchNorm follows each convolution's ReLU.
    """

    width = 500

    def __init__(
        self,
        channels: int,
        size: int,
        *,
        dropout: float = 0.0,
        bias: bool = True,
        norm: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise HandfulError(f"dropout is a share of the features in [0, 1), got {dropout}")
        self.mean = self.std = (0.5,) * channels
        self.head_bias = bias

        def convolutions() -> nn.Module:
            layers: list[nn.Module] = []
            widths = (channels, 16, 32, 64)
            for inputs, outputs in zip(widths, widths[1:], strict=False):
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias), nn.ReLU()]
                layers += [nn.BatchNorm2d(outputs)] if norm else []
                layers += [nn.MaxPool2d(2)]
            return nn.Sequential(*layers, nn.Dropout(dropout), nn.Flatten())

        flat = flat_width("cifar-cnn", convolutions, channels, size)
        self.convolutions = convolutions()
        self.dense = nn.Sequential(nn.Linear(flat, 500, bias=bias), nn.ReLU(), nn.Dropout(dropout))

    def forward(self, images: Tensor) -> Tensor:
        return self.dense(self.convolutions(images))


class _Encoder(nn.Module):
    """Convolutions with flattened output, which the reports pre-train without labels."""

    name: str

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.width = flat_width(self.name, lambda: self.layers_for(channels), channels, size)
        self.layers = self.layers_for(channels)

    def layers_for(self, channels: int) -> nn.Sequential:
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class BasicEncoder(_Encoder):
    """Two 3x3 convolutions (32, 64), each with ReLU and pooling."""

    name = "basic-encoder"

    def layers_for(self, channels: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )


class ResNetEncoder(_Encoder):
    """A 3x3 convolution of 32 and residual blocks of 32, 64 (stride 2) and 64 (stride 2)."""

    name = "resnet-encoder"

    def layers_for(self, channels: int) -> nn.Sequential:
        return nn.Sequential(
            *conv_norm_relu(channels, 32),
            Residual(32, 32),
            Residual(32, 64, stride=2),
            Residual(64, 64, stride=2),
            nn.Flatten(),
        )


class ComplexEncoder(_Encoder):
    """Three 3x3 convolutions (64, 128, 256), each with BatchNorm, ReLU, pooling, dropout 0.3."""

    name = "complex-encoder"

    def layers_for(self, channels: int) -> nn.Sequential:
        return nn.Sequential(
            *conv_norm_relu(channels, 64),
            nn.MaxPool2d(2),
            nn.Dropout(0.3),
            *conv_norm_relu(64, 128),
            nn.MaxPool2d(2),
            nn.Dropout(0.3),
            *conv_norm_relu(128, 256),
            nn.MaxPool2d(2, padding=1),
            nn.Dropout(0.3),
            nn.Flatten(),
        )


_SMALL_ENCODER_CHANNELS = (12, 24, 48, 24)


class SmallEncoder(_Encoder):
    """Four 4x4 convolutions of stride 2 (12, 24, 48, 24), ReLU after each."""

    name = "small-encoder"

    def layers_for(self, channels: int) -> nn.Sequential:
        widths = (channels, *_SMALL_ENCODER_CHANNELS)
        layers: list[nn.Module] = []
        for inputs, outputs in zip(widths, widths[1:], strict=False):
            layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.ReLU()]
        return nn.Sequential(*layers, nn.Flatten())


class SmallDecoder(nn.Module):
    """Decoder of `SmallEncoder`: (N, D) features -> (N, C, size, size) pixels in [0, 1]."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        widths = (channels, *_SMALL_ENCODER_CHANNELS)
        sizes = [size >> halvings for halvings in range(len(widths))]
        if sizes[-1] < 1:
            raise HandfulError(
                f"size={size} is too small for small-encoder; the smallest is size=16"
            )
        self.shape = (widths[-1], sizes[-1], sizes[-1])
        layers: list[nn.Module] = []
        for level in reversed(range(len(widths) - 1)):
            layers += [
                nn.ConvTranspose2d(
                    widths[level + 1],
                    widths[level],
                    4,
                    stride=2,
                    padding=1,
                    output_padding=sizes[level] % 2,  # the encoder rounds odd sizes down
                ),
                nn.ReLU() if level else nn.Sigmoid(),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features.unflatten(1, self.shape))
