"""From the command to the pixels: 12-bit images in 16-bit files, and the scale that a run keeps."""

import json
import shutil
import struct
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import handful as package
from handful.data import decode
from handful.data.sources import load
from handful.data.values import FULL, ValueRange
from image_files import class_folder, save, smooth

SIDE = 12
OLD = Path(__file__).parent / "fixtures" / "run-of-0.1"


def deep_folder(root: Path, divide: int = 1) -> Path:
    """Three classes by brightness, values up to 4,095 // divide, half PNG and half TIFF."""
    for number, name in enumerate(("dark", "mid", "bright")):
        for seed in range(4):
            rng = np.random.default_rng(10 * number + seed)
            values = (rng.integers(0, 1366, (SIDE, SIDE)) + 1365 * number) // divide
            path = root / name / f"{seed}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if seed % 2:
                tifffile.imwrite(path.with_suffix(".tif"), values.astype(np.uint16))
            else:
                Image.fromarray(values.astype(np.uint16)).save(path.with_suffix(".png"))
    return root


def brightest(images) -> int:
    return int(images.at(SIDE).max())


def test_a_run_keeps_the_scale_it_was_trained_with(tmp_path, handful, monkeypatch):
    train, darker = deep_folder(tmp_path / "train"), deep_folder(tmp_path / "darker", 16)
    run = tmp_path / "run"
    words = (
        "--method",
        "supervised",
        "--set",
        "steps=2",
        "--set",
        "backbone.base=8",
        "--precision",
        "fp32",
        "--estimate",
        "none",
        "--out",
        run,
    )
    status, out, err = handful("fit", train, *words)
    assert status == 0, err
    assert "scaled from 0 to 4095" in " ".join((out + err).split())
    assert json.loads((run / "run.json").read_text())["input"]["value_range"] == [0, 4095, False]
    assert load(darker).value_range == (0, 255, False) and brightest(load(darker)) > 240

    scales, really_read = set(), decode.read

    def read(path, size, fit, channels, scale=None):
        pixels = really_read(path, size, fit, channels, scale)
        assert pixels.max() <= 16
        scales.add(scale)
        return pixels

    monkeypatch.setattr(decode, "read", read)
    assert handful("predict", run, darker)[0] == 0
    assert scales == {ValueRange(0, 4095)}
    scales.clear()
    shutil.rmtree(tmp_path / "darker")
    assert handful("evaluate", run, deep_folder(tmp_path / "darker", 17))[0] == 0
    assert scales == {ValueRange(0, 4095)}


def test_a_run_from_before_ranges_scales_by_the_type(tmp_path):
    images = load(deep_folder(tmp_path / "train"))
    predictor = package.open_run(OLD).predictor
    assert predictor.value_range == FULL
    assert brightest(images.scaled_by(predictor.value_range)) == 16  # 4,095 of 65,535


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("kind", ["png", "tif", "planar"])
def test_a_turned_deep_image_is_its_upright_copy(tmp_path, kind, orientation):
    bands = smooth(20, 30, seed=3).astype(np.uint16) * 16
    upright = np.moveaxis(bands, -1, 0) if kind == "planar" else bands[..., 0]
    stored = decode.turned(bands, {6: 8, 8: 6}.get(orientation, orientation))
    stored = np.moveaxis(stored, -1, 0) if kind == "planar" else stored[..., 0]
    paths = [tmp_path / f"{name}.{'png' if kind == 'png' else 'tif'}" for name in "ab"]
    for path, values, turn in zip(paths, (stored, upright), (orientation, 1), strict=True):
        values = np.ascontiguousarray(values)
        if kind == "png":
            exif = Image.Exif()
            exif[0x0112] = turn
            Image.fromarray(values).save(path, exif=exif)
        else:
            planar = {"photometric": "rgb", "planarconfig": "separate"} if kind == "planar" else {}
            tifffile.imwrite(path, values, extratags=[(274, 3, 1, turn, True)], **planar)
    turned, straight = map(decode.inspect, paths)
    assert (turned.height, turned.width) == (20, 30) and "rotated" in turned.notes
    assert turned.fingerprint == straight.fingerprint
    first, second = (decode.read(path, 20, "crop", 3) for path in paths)
    assert np.array_equal(first, second)


def test_what_tifffile_cannot_unpack_is_not_misread(tmp_path, monkeypatch):
    """Colour of 16 bits is refused with the reason; one band is the same through Pillow."""
    colour = smooth(16, 16, seed=1).astype(np.uint16) * 16
    tifffile.imwrite(tmp_path / "colour.tif", colour, photometric="rgb")
    tifffile.imwrite(tmp_path / "grey.tif", colour[..., 0])
    expected = decode.read(tmp_path / "grey.tif", 16, "crop", 1)

    def fails(*args):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(decode.tiff, "read_planes", fails)
    with pytest.raises(decode.Unreadable, match="LZW needs a library: .* imagecodecs"):
        decode.inspect(tmp_path / "colour.tif")
    assert np.array_equal(decode.read(tmp_path / "grey.tif", 16, "crop", 1), expected)
    monkeypatch.setattr(decode.tiff, "look", lambda path: None)
    with pytest.raises(decode.Unreadable, match="bands or bits"):
        decode.inspect(tmp_path / "colour.tif")


@pytest.mark.skipif(not find_spec("imagecodecs"), reason="needs the extra tiff")
@pytest.mark.parametrize("compression", ["lzw", "packbits"])
def test_packed_colour_of_sixteen_bits_is_read_with_the_extra(tmp_path, compression):
    colour = smooth(16, 16, seed=1).astype(np.uint16) * 16
    packed, plain = tmp_path / "packed.tif", tmp_path / "plain.tif"
    tifffile.imwrite(packed, colour, photometric="rgb", compression=compression)
    tifffile.imwrite(plain, colour, photometric="rgb")
    assert decode.inspect(packed) == decode.inspect(plain)
    first, second = (decode.read(path, 16, "crop", 3) for path in (packed, plain))
    assert np.array_equal(first, second)


@pytest.mark.skipif(find_spec("imagecodecs") is not None, reason="the extra tiff is there")
def test_packed_colour_of_sixteen_bits_names_the_extra(tmp_path):
    path = tmp_path / "packed.tif"
    colour = np.zeros((16, 16, 3), np.uint16)
    tifffile.imwrite(path, colour, photometric="rgb")
    content = bytearray(path.read_bytes())
    place = content.index(struct.pack("<HHI", 259, 3, 1))
    content[place + 8 : place + 10] = struct.pack("<H", 5)  # said to be LZW
    path.write_bytes(content)
    with pytest.raises(decode.Unreadable, match="LZW needs .* imagecodecs .the extra tiff"):
        decode.inspect(path)


def test_a_compression_that_may_unpack_to_more_than_is_said_is_not_read(tmp_path):
    path = tmp_path / "packed.tif"
    tifffile.imwrite(path, np.zeros((16, 16, 3), np.uint16), photometric="rgb")
    content = bytearray(path.read_bytes())
    place = content.index(struct.pack("<HHI", 259, 3, 1))
    content[place + 8 : place + 10] = struct.pack("<H", 34712)  # said to be JPEG 2000
    path.write_bytes(content)
    with pytest.raises(decode.Unreadable, match="compression JPEG2000 is not read"):
        decode.inspect(path)


def test_blank_images_do_not_join_groups_or_leave_the_training_part(tmp_path):
    class_folder(tmp_path / "train")
    class_folder(tmp_path / "test", per_class=2, classes=("cat", "dog"))
    for number, name in enumerate(("cat/0.png", "dog/0.png", "dog/1.png", "cat/1.png")):
        save(tmp_path / "test" / name, seed=500 + number)
    for name in ("train/cat/b.png", "train/dog/b.png", "test/cat/b.png"):
        save(tmp_path / name, np.full((8, 8), 9, np.uint8))
    images = load(tmp_path)
    assert len(images) == 8 and images.store.skipped == () and images.groups is None


def test_a_heic_folder_is_opened_twice_and_streamed(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    class_folder(tmp_path)
    photo = smooth(64, 64, seed=1)
    pillow_heif.from_pillow(Image.fromarray(photo)).save(tmp_path / "cat" / "phone.HEIC")
    Image.OPEN.pop("HEIF", None)
    decode._register_heif.cache_clear()
    for _ in range(2):  # the second time, the manifest is cached and nothing is inspected
        images = load(tmp_path)
        [row] = [at for at, name in enumerate(images.names) if name.endswith("HEIC")]
        Image.OPEN.pop("HEIF", None)
        decode._register_heif.cache_clear()
        [pixels] = images.store.batches(np.array([row]), 64, "crop", 3)
        assert np.abs(pixels[0].transpose(1, 2, 0) - photo.astype(float)).mean() < 6
