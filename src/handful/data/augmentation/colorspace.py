"""Convert batches from RGB in [0, 1] to the colour spaces Lab and YCbCr.

The functions take and return float (N, 3, H, W). They agree with scikit-image's rgb2lab and
rgb2ycbcr.
"""

import torch
from torch import Tensor

_WHITE = (0.95047, 1.0, 1.08883)  # XYZ of the white of illuminant D65, observer of 2 degrees
_XYZ_FROM_RGB = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
_YCBCR_FROM_RGB = (  # ITU-R BT.601, Y from 16 to 235, Cb and Cr from 16 to 240
    (65.481, 128.553, 24.966),
    (-37.797, -74.203, 112.0),
    (112.0, -93.786, -18.214),
)
_YCBCR_OFFSET = (16.0, 128.0, 128.0)
_BEND = 6 / 29  # below it a line replaces the cube root of Lab


def rgb_to_lab(images: Tensor) -> Tensor:
    """sRGB in [0, 1] → CIE Lab: L from 0 to 100, a and b from about -108 to 99.

    Source: IEC 61966-2-1 (sRGB) and CIE 15 (Lab).
    """
    linear = torch.where(images > 0.04045, ((images + 0.055) / 1.055) ** 2.4, images / 12.92)
    xyz = _times_matrix(linear, torch.tensor(_XYZ_FROM_RGB)) / _column(_WHITE, images)
    f = torch.where(xyz > _BEND**3, xyz.clamp_min(_BEND**3) ** (1 / 3), _line(xyz))
    x, y, z = f.unbind(dim=1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def rgb_to_ycbcr(images: Tensor) -> Tensor:
    """RGB in [0, 1] → Y from 16 to 235, Cb and Cr from 16 to 240 (ITU-R BT.601)."""
    scaled = _times_matrix(images, torch.tensor(_YCBCR_FROM_RGB))
    return scaled + _column(_YCBCR_OFFSET, images)


def _times_matrix(images: Tensor, matrix: Tensor) -> Tensor:
    """Multiply every pixel by a 3x3 matrix, in the images' precision even under autocast."""
    with torch.autocast(images.device.type, enabled=False):
        return torch.einsum("dc,nchw->ndhw", matrix.to(images), images)


def _line(xyz: Tensor) -> Tensor:
    return xyz / (3 * _BEND**2) + 4 / 29


def _column(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(1, 3, 1, 1)
