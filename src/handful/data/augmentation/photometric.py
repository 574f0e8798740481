"""Photometric operations: they change colours of whole batches, with one factor per image.

The functions take and return float images (N, C, H, W) in [0, 1] and agree with torchvision's
functions. The operations draw the factors.

Letters in shapes: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from handful.data.augmentation.base import Operation, check_range, check_within, coin, uniform
from handful.data.augmentation.resample import Canvas, Fill, check_fill, fill_level

LUMA = (0.2989, 0.587, 0.114)  # weights of red, green and blue in grey, as torchvision has them


def luminance(images: Tensor) -> Tensor:
    """Grey version (N, 1, H, W) of the images; images of one channel are returned unchanged."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(dim=1)
    grey = red.mul(LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])
    return grey.unsqueeze(1)


def blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """`factor` (N,) times each image plus (1 - factor) times `other`, clipped to [0, 1]."""
    return torch.lerp(other, images, _each(factor)).clamp_(0, 1)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """The images times `factor` (N,), clipped to [0, 1]."""
    return images.mul(_each(factor)).clamp_(0, 1)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blend each image with its mean grey by `factor` (N,)."""
    return blend(images, luminance(images).mean(dim=(1, 2, 3), keepdim=True), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blend each image with its grey version by `factor` (N,)."""
    return images if images.shape[1] == 1 else blend(images, luminance(images), factor)


def hue(images: Tensor, turn: Tensor) -> Tensor:
    """Rotate the hues by `turn` (N,), where 1 is a full circle.

    A rotation keeps the largest and the smallest channel value of a pixel. So only the hue is
    computed, and each channel follows from it.
    """
    if images.shape[1] == 1:
        return images
    low, high = images.aminmax(dim=1)  # (N, H, W) each
    spread = high - low
    red, green, blue = images.unbind(dim=1)
    from_blue = (red - green).add_(spread, alpha=4)
    from_green = (blue - red).add_(spread, alpha=2)
    place = torch.where(green == high, from_green, from_blue)
    place = torch.where(red == high, green - blue, place)
    # Hue in sixths of the circle: red at 0, green at 2, blue at 4. For grey pixels any hue will do.
    place = place.div_(spread.clamp(min=1e-12)).add_(turn[:, None, None], alpha=6)
    place.sub_((place / 6).floor_(), alpha=6)  # modulo 6, four times as fast as remainder
    # Fall of each channel from high to low: 0 within one sixth of its own hue, 1 from two sixths.
    falls = (2 - (place - 3).abs_(), (place - 2).abs_().sub_(1), (place - 4).abs_().sub_(1))
    return torch.stack([high - fall.clamp_(0, 1).mul_(spread) for fall in falls], dim=1)


def blur(images: Tensor, sigma: Tensor, kernel: int) -> Tensor:
    """Gaussian blur with `sigma` (N,) pixels over `kernel` pixels, mirrored at the border.

    The blur along each axis is one batched matrix product.
    """
    reach = torch.arange(kernel, device=images.device) - (kernel - 1) / 2
    taps = torch.softmax(-(reach**2) / (2 * sigma[:, None] ** 2), dim=1)  # (N, kernel)
    n, _, height, width = images.shape
    down = (taps @ _shifts(height, kernel, images)).view(n, 1, height, height)
    across = (taps @ _shifts(width, kernel, images)).view(n, 1, width, width)
    return torch.matmul(torch.matmul(down, images), across.mT)


def _shifts(side: int, kernel: int, like: Tensor) -> Tensor:
    """Matrices (kernel, side * side): for each tap, the one that selects the pixel it weights."""
    reach = kernel // 2
    eye = torch.eye(side, device=like.device, dtype=like.dtype)
    padded = F.pad(eye[None], (reach, reach), mode="reflect")[0]  # (side, side + 2 reach)
    return padded.unfold(1, side, 1).permute(1, 2, 0).reshape(kernel, side * side)


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend each image with its smoothed version by `factor` (N,); border pixels are unchanged.

    Factors above 1 sharpen, factors below 1 smooth.
    """
    if min(images.shape[2:]) <= 2:
        return images
    inner = images[:, :, 1:-1, 1:-1]
    # The 3x3 kernel weights the middle 5/13 and its neighbours 1/13 each.
    smooth = F.avg_pool2d(images, 3, stride=1).mul_(9 / 13).add_(inner, alpha=4 / 13)
    sharpened = images.clone()
    sharpened[:, :, 1:-1, 1:-1] = blend(inner, smooth, factor)
    return sharpened


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep 2 ** `bits` levels of each channel; `bits` (N,) are whole numbers."""
    levels = _each(2**bits)
    return torch.minimum(images.mul(levels).floor_(), levels - 1).div_(levels)


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert the values that are `threshold` (N,) or more."""
    return torch.where(images >= _each(threshold), 1 - images, images)


def _each(values: Tensor) -> Tensor:
    return values[:, None, None, None]


class Photometric(Operation):
    """An operation that changes colours. Geometric operations before it are resampled first."""

    def apply(self, images: Tensor, values: Tensor) -> Tensor:
        """The changed images, as a new tensor."""
        raise NotImplementedError

    def on(self, canvas: Canvas, values: Tensor) -> Canvas:
        canvas = canvas.settled()
        return replace(canvas, images=self.apply(canvas.images, values.to(canvas.images.device)))


@dataclass(frozen=True)
class ColorJitter(Photometric):
    """Change brightness, contrast, saturation and hue, in this order.

    Values: (N, 4) three factors and a hue rotation. torchvision draws an order for each image; a
    fixed order lets the batch be changed as a whole.
    """

    brightness: float = 0.0  # the factor is drawn from 1 - brightness (or 0) to 1 + brightness
    contrast: float = 0.0  # likewise
    saturation: float = 0.0  # likewise
    hue: float = 0.0  # largest rotation either way, as a share of the colour circle
    probability: float = 1.0  # of changing an image

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            check_within(name, getattr(self, name), 0, 10)
        check_within("hue", self.hue, 0, 0.5)
        check_within("probability", self.probability, 0, 1)

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        n = shape[0]
        factors = [
            uniform(generator, max(0.0, 1 - amount), 1 + amount, n)
            for amount in (self.brightness, self.contrast, self.saturation)
        ]
        values = torch.stack([*factors, uniform(generator, -self.hue, self.hue, n)], dim=1)
        unchanged = ~coin(generator, self.probability, n)
        values[unchanged] = values.new_tensor([1.0, 1.0, 1.0, 0.0])
        return values

    def apply(self, images: Tensor, values: Tensor) -> Tensor:
        steps = (brightness, contrast, saturation, hue)
        amounts = (self.brightness, self.contrast, self.saturation, self.hue)
        for step, amount, factor in zip(steps, amounts, values.unbind(dim=1), strict=True):
            if amount:
                images = step(images, factor)
        return images


@dataclass(frozen=True)
class Grey(Photometric):
    """Convert to grey. Values: (N,) bool."""

    probability: float = 0.2

    def __post_init__(self) -> None:
        check_within("probability", self.probability, 0, 1)

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        return coin(generator, self.probability, shape[0])

    def apply(self, images: Tensor, values: Tensor) -> Tensor:
        return saturation(images, 1.0 - values.float())


@dataclass(frozen=True)
class Blur(Photometric):
    """Gaussian blur. Values: (N,) standard deviation in pixels; 0 leaves the image unchanged."""

    sigma: tuple[float, float] = (0.1, 2.0)  # pixels
    kernel: float = 0.1  # side of the window, as a share of the image's; made odd, at least 3
    probability: float = 0.5

    def __post_init__(self) -> None:
        check_range("sigma", self.sigma, 1e-3, 1e3)
        check_within("kernel", self.kernel, 0, 1)
        check_within("probability", self.probability, 0, 1)

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        sigma = uniform(generator, *self.sigma, shape[0])
        return sigma * coin(generator, self.probability, shape[0])

    def apply(self, images: Tensor, values: Tensor) -> Tensor:
        kernel = max(3, round(self.kernel * min(images.shape[2:])) // 2 * 2 + 1)
        chosen = values.nonzero().flatten()
        return images.index_copy(0, chosen, blur(images[chosen], values[chosen], kernel))


@dataclass(frozen=True)
class Noise(Photometric):
    """Add Gaussian noise. Values: (N, C, H, W) the noise itself."""

    sigma: tuple[float, float] = (0.0, 0.1)  # standard deviation; every image draws its own

    def __post_init__(self) -> None:
        check_range("sigma", self.sigma, 0, 1)

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        noise = torch.randn(shape, generator=generator, device=generator.device)
        return noise.mul_(_each(uniform(generator, *self.sigma, shape[0])))

    def apply(self, images: Tensor, values: Tensor) -> Tensor:
        return (images + values).clamp_(0, 1)


@dataclass(frozen=True)
class CutOut(Photometric):
    """Cover a random square. Values: (N, 4) top, left, bottom and right edge, in pixels.

    The middle of the square is anywhere in the image, so part of the square may lie outside.

    Source: DeVries and Taylor 2017, arXiv:1708.04552. Their squares have one size.
    With `size=(0, 0.5)` the squares are those of FixMatch, arXiv:2001.07685.
    """

    size: tuple[float, float] = (0.5, 0.5)  # side of the square, as a share of the image's
    fill: Fill = 0.5  # a grey level, or "background"

    def __post_init__(self) -> None:
        check_range("size", self.size, 0, 1)
        check_fill(self.fill, levels_only=True)

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        n, sides = shape[0], torch.tensor(shape[2:], device=generator.device)
        half = uniform(generator, *self.size, n, 1) * sides / 2
        middle = uniform(generator, 0, 1, n, 2) * sides
        return torch.cat([middle - half, middle + half], dim=1).round_()

    def apply(self, images: Tensor, values: Tensor) -> Tensor:
        top, left, bottom, right = values.to(images)[:, :, None].unbind(dim=1)  # (N, 1) each
        y = torch.arange(images.shape[2], device=images.device)
        x = torch.arange(images.shape[3], device=images.device)
        rows = (y >= top) & (y < bottom)  # (N, H)
        columns = (x >= left) & (x < right)  # (N, W)
        covered = rows[:, None, :, None] & columns[:, None, None, :]
        return torch.where(covered, fill_level(images, self.fill), images)
