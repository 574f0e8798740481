"""pictures.py, which goes into the exported folder, reads what handful reads, pixel by pixel."""

import io

import numpy as np
import pytest
from PIL import Image

from handful.data import decode
from handful.data.decoding.value_range import ValueRange
from handful.exporting.folder import pictures
from image_files import noise, smooth

SIZE = 16


def alike(path, size=SIZE, scale=None, ranges=None):
    """Compare both readers for each aspect and number of channels."""
    with decode.guarded():
        for aspect in decode.ASPECTS:
            for channels in (1, 3):
                expected = decode.read(path, size, aspect, channels, scale)
                found = pictures.load(path, size, channels, aspect, ranges or {})
                assert np.array_equal(found, expected), (path.name, aspect, channels)


def written(path, image, **options):
    image.save(path, **options)
    return path


@pytest.mark.parametrize("orientation", range(0, 10))
def test_photographs_are_turned_upright_as_handful_does(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(smooth(90, 130, seed=orientation))
    alike(written(tmp_path / "a.jpg", image, exif=exif))
    alike(written(tmp_path / "a.png", image, exif=exif))
    alike(written(tmp_path / "a.webp", image, exif=exif))
    alike(written(tmp_path / "a.tif", image, exif=exif))


@pytest.mark.parametrize("ending", ["jpg", "png", "gif", "bmp", "webp", "ppm", "tif"])
def test_each_format_and_shape_gives_the_pixels_of_handful(tmp_path, ending):
    for shape in ((16, 16), (7, 40), (61, 50), (1, 30)):
        alike(written(tmp_path / f"a.{ending}", Image.fromarray(noise(*shape, seed=3))))


def test_a_large_jpeg_is_decoded_at_a_part_of_its_size_as_in_training(tmp_path):
    for mode in ("RGB", "L", "CMYK"):
        image = Image.fromarray(smooth(200, 330, seed=1)).convert(mode)
        alike(written(tmp_path / f"{mode}.jpg", image))


@pytest.mark.thorough
def test_a_very_large_picture_is_reduced_before_it_is_resized(tmp_path):
    image = Image.fromarray(smooth(2100, 2003, seed=2))
    alike(written(tmp_path / "a.png", image))
    image.putalpha(Image.fromarray(smooth(2100, 2003, seed=5)[..., 0]))
    alike(written(tmp_path / "b.png", image))


def test_transparency_is_put_on_white_or_black_or_ignored_as_in_training(tmp_path):
    rgba = Image.fromarray(noise(30, 40, seed=4, channels=3)).convert("RGBA")
    for name, alpha in {"half": 128, "none": 0, "full": 255}.items():
        rgba.putalpha(alpha)
        alike(written(tmp_path / f"{name}.png", rgba))
    white = Image.new("RGBA", (30, 20), (255, 255, 255, 0))
    white.paste((255, 255, 255, 255), (5, 5, 15, 15))
    alike(written(tmp_path / "white.png", white))
    alike(written(tmp_path / "grey.png", white.convert("LA")))
    palette = Image.fromarray(noise(30, 40, seed=4)).quantize(8)
    alike(written(tmp_path / "palette.png", palette, transparency=3))
    alike(written(tmp_path / "palette.gif", palette, transparency=3))
    alike(written(tmp_path / "one.png", palette.convert("1")))


@pytest.mark.parametrize(
    ("dtype", "real"), [(np.uint16, False), (np.int32, False), (np.float32, True)]
)
def test_pictures_of_more_than_8_bits_are_scaled_by_the_range_of_the_run(tmp_path, dtype, real):
    values = (noise(30, 44, seed=6, channels=1).astype(np.float64) * 16).astype(dtype)
    path = written(tmp_path / "a.tif", Image.fromarray(values))
    scale = ValueRange(0, 4095, real)
    alike(path, scale=scale, ranges={"real" if real else "whole": [0, 4095]})
    with pytest.raises(ValueError, match="more than 8 bits, which no training image had"):
        pictures.load(path, SIZE, 1, "crop", {})


def test_pictures_that_pillow_would_misread_are_refused(tmp_path):
    import tifffile

    colour = noise(12, 10, seed=1).astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "rgb16.tif", colour, photometric="rgb")
    tifffile.imwrite(tmp_path / "stack.tif", colour[None, ..., 0].astype(np.uint8), imagej=True)
    tifffile.imwrite(
        tmp_path / "planes.tif", np.moveaxis(colour, -1, 0).astype(np.uint8),
        photometric="rgb", planarconfig="separate",
    )  # fmt: skip
    (tmp_path / "deep.ppm").write_bytes(b"P6 2 2 1023\n" + bytes(24))
    for name in ("rgb16.tif", "stack.tif", "planes.tif", "deep.ppm"):
        with pytest.raises(ValueError, match="more bits or bands than Pillow reads"):
            pictures.load(tmp_path / name, SIZE, 3, "crop", {"whole": [0, 65535]})


def test_a_picture_is_read_from_memory_too(tmp_path):
    path = written(tmp_path / "a.jpg", Image.fromarray(smooth(90, 130, seed=0)))
    inside = pictures.load(io.BytesIO(path.read_bytes()), SIZE, 3, "crop", {})
    assert np.array_equal(inside, pictures.load(path, SIZE, 3, "crop", {}))
