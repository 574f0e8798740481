"""Load a picture as the model saw pictures in training; needs numpy and pillow."""

import math
from contextlib import suppress

import numpy as np
from PIL import Image, TiffImagePlugin, WebPImagePlugin  # noqa: F401

with suppress(ImportError):  # for HEIC: pip install pillow-heif
    from pillow_heif import register_heif_opener

    register_heif_opener()
with suppress(ImportError):  # of Pillow 11.3
    from PIL import AvifImagePlugin  # noqa: F401
Image.preinit()  # with the three above; Image.init() takes twice as long
KINDS = {"JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF", "AVIF", "HEIF"} & set(Image.OPEN)
TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # EXIF orientation → Image.Transpose
LARGE = 4_000_000  # pixels; larger pictures are reduced before they are resized
DEEP = ("LA;16B", "RGB;16B", "RGBA;16B")  # PNGs of which Pillow drops the low bytes


def load(file, size, channels, aspect, ranges):
    """Pixels (channels, size, size) uint8 of a picture file.

    `ranges` has the values that become black and white in pictures of more than 8 bits, under
    "whole" for integers and under "real" for floating point. ValueError for pictures that would
    be read otherwise than in training.
    """
    with Image.open(file, formats=sorted(KINDS)) as image:
        refuse_misread(image)
        image.draft(None, (2 * size, 2 * size))  # decodes a large JPEG at a part of its size
        image.load()
        turn = TURNS.get(image.getexif().get(0x0112))
        if image.mode[0] in "IF":
            image, turn = turned(eight_bit(image, ranges), turn), None
        image = opaque(image)
        part = min(image.size) // (2 * size) if image.width * image.height > LARGE else 1
        image = turned(image.reduce(part) if part > 1 else image, turn)
        pixels = np.asarray(square(image.convert("L" if channels == 1 else "RGB"), size, aspect))
        return pixels.reshape(size, size, channels).transpose(2, 0, 1)


def refuse_misread(image):
    """ValueError for pictures of which Pillow drops bits, bands or planes."""
    codec, packed = image.tile[0][::3] if image.tile else ("", "")
    wrong = codec == "ppm" or packed in DEEP
    if image.format == "TIFF":
        tags = image.tag_v2
        bits, about = tags.get(258, (1,)), str(tags.get(270, ""))
        wrong = len(bits) > 1 and (max(bits) > 8 or tags.get(284, 1) != 1 or len(bits) == 2)
        wrong |= max(bits) > 8 and tags.get(262) != 1
        wrong |= about.startswith("ImageJ") or "<OME" in about
    if wrong:
        raise ValueError("more bits or bands than Pillow reads; use `handful predict`")


def eight_bit(image, ranges):
    """A picture of more than 8 bits, scaled by the range of the training images."""
    low, high = ranges.get("real" if image.mode == "F" else "whole", (0, 0))
    if low == high:
        raise ValueError("more than 8 bits, which no training image had; use `handful predict`")
    values = np.nan_to_num(np.asarray(image, np.float64), nan=low, posinf=high, neginf=low)
    values = np.rint((values - low) * (255 / (high - low))).clip(0, 255)
    return Image.fromarray(values.astype(np.uint8))


def turned(image, turn):
    return image if turn is None else image.transpose(turn)


def opaque(image):
    """The picture on white, or on black where it has no contrast on white."""
    if not image.has_transparency_data:
        return image.convert("L" if image.mode in ("1", "L") else "RGB")
    image = image.convert("RGBA")
    least, most = image.getchannel("A").getextrema()
    if least == 255 or most == 0:
        return image.convert("RGB")
    paper = [Image.new("RGBA", image.size, colour) for colour in ("white", "black")]
    on = [Image.alpha_composite(one, image).convert("RGB") for one in paper]
    step = math.isqrt(image.width * image.height // LARGE) + 1
    ends = [one.resize([max(1, n // step) for n in one.size], 0).getextrema() for one in on]
    white, black = (max(high - low for low, high in one) for one in ends)
    return on[white < 16 and black > white]


def square(image, size, aspect):
    """`size` pixels a side: "crop" to the centre, "pad" with black, or "stretch"."""
    width, height = image.size
    if aspect == "crop" and width != height:
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if aspect != "pad" or width == height:
        return image.resize((size, size), Image.Resampling.BICUBIC)
    scale, whole = size / max(width, height), Image.new(image.mode, (size, size))
    inner = [max(1, round(side * scale)) for side in (width, height)]
    corner = (size - inner[0]) // 2, (size - inner[1]) // 2
    whole.paste(image.resize(inner, Image.Resampling.BICUBIC), corner)
    return whole
