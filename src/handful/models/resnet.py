"""ResNet-18 for small images: a 3x3 stem of stride 1 and no first pooling."""

from torch import Tensor, nn

from handful.models.blocks import Residual


class ResNet18(nn.Module):
    """(N, C, size, size) -> (N, 512): two blocks of each width, 64 to 512, and a mean over pixels.

    Initial weights are PyTorch's defaults.

    Source: He et al. 2015, arXiv:1512.03385; the stem is that of section 4.2.
    """

    width = 512

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 64, 3, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            *(Residual(64, 64), Residual(64, 64)),
            *(Residual(64, 128, stride=2), Residual(128, 128)),
            *(Residual(128, 256, stride=2), Residual(256, 256)),
            *(Residual(256, 512, stride=2), Residual(512, 512)),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).mean(dim=(2, 3))  # (N, 512, H, W) -> (N, 512)
