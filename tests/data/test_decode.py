"""Decoding: depths, channels, transparency, truncation and limits."""

import os
import platform
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from handful.data import decode
from handful.data.decoding.containers import jpeg_scans
from handful.data.decoding.memory import budget
from handful.data.decoding.value_range import FULL, ValueRange, Values, scaled, value_range
from handful.data.sources import load
from handful.errors import HandfulError
from image_files import class_folder, save, smooth

SIDE = 32
PHOTO = smooth(SIDE, SIDE, seed=5)
DEEP = PHOTO.astype(np.uint16) * 16  # 12 bits
RAMP = np.linspace(0, 1, SIDE * SIDE).reshape(SIDE, SIDE)


def chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def png16(path: Path, pixels: np.ndarray, *extra: bytes) -> None:
    """Write a 16-bit PNG of values (H, W, C); 2, 3 and 4 bands are grey with alpha, RGB, RGBA."""
    height, width, bands = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[bands], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(extra)
        + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )  # fmt: skip


def read(path: Path, channels: int = 3, scale: ValueRange | None = None) -> np.ndarray:
    pixels = decode.read(path, SIDE, "crop", channels, scale)
    return pixels.transpose(1, 2, 0).astype(float)


def tif(**options):
    return lambda path, pixels: tifffile.imwrite(path, pixels, **options)


GREY_OF_RED = np.repeat(PHOTO[..., :1], 3, 2)
TIFFS = [
    ("planar", np.moveaxis(DEEP, -1, 0), tif(photometric="rgb", planarconfig="separate"), PHOTO),
    ("imagej", np.moveaxis(DEEP, -1, 0), tif(imagej=True, metadata={"axes": "CYX"}), PHOTO),
    ("imagej8", np.moveaxis(PHOTO, -1, 0), tif(imagej=True, metadata={"axes": "CYX"}), PHOTO),
    ("ome", np.moveaxis(DEEP, -1, 0), tif(ome=True, metadata={"axes": "CYX"}), PHOTO),
    ("white", 65535 - DEEP[..., 0], tif(photometric="miniswhite"), GREY_OF_RED),
    ("four", np.repeat(PHOTO[..., :1], 4, 2),
     tif(photometric="minisblack", planarconfig="contig"), GREY_OF_RED),
    ("thirteen", np.repeat(DEEP[..., :1], 13, 2),
     tif(photometric="minisblack", planarconfig="contig"), GREY_OF_RED),
    ("signed", DEEP[..., 0].astype(np.int16), tif(), GREY_OF_RED),
    ("wide", DEEP[..., 0].astype(np.uint32), tif(), GREY_OF_RED),
    ("unit", PHOTO[..., 0].astype(np.float32) / 255, tif(), GREY_OF_RED),
    ("near-infrared", np.dstack([PHOTO, PHOTO[..., 0]]),
     tif(photometric="rgb", extrasamples=["unspecified"]), PHOTO),
]  # fmt: skip


@pytest.mark.parametrize("name, stored, write, truth", TIFFS, ids=[row[0] for row in TIFFS])
def test_a_tiff_of_any_channels_and_bits_gives_its_colours(tmp_path, name, stored, write, truth):
    write(tmp_path / "a.tif", stored)
    assert np.abs(read(tmp_path / "a.tif") - truth).max() <= 2
    decode.inspect(tmp_path / "a.tif")


@pytest.mark.parametrize("top", [65535, 4095, 1023, 255])
def test_sixteen_bit_files_keep_all_levels_that_they_use(tmp_path, top):
    values = (RAMP * top).round().astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "grey.png")
    png16(tmp_path / "colour.png", np.repeat(values[..., None], 3, 2))
    for name in ("grey.png", "colour.png"):
        assert np.abs(read(tmp_path / name)[..., 1] - RAMP * 255).max() <= 1
        assert decode.inspect(tmp_path / name).notes == ("16-bit",)


def test_sixteen_bit_alpha_is_not_scaled_by_the_range_of_the_colours(tmp_path):
    opaque = np.full((SIDE, SIDE, 1), 65535, np.uint16)
    png16(tmp_path / "rgba.png", np.concatenate([DEEP, opaque], 2))
    assert np.abs(read(tmp_path / "rgba.png") - PHOTO).max() <= 1
    png16(tmp_path / "la.png", np.concatenate([DEEP[..., :1], opaque], 2))
    assert np.abs(read(tmp_path / "la.png", 1)[..., 0] - PHOTO[..., 0]).max() <= 1


def test_a_folder_has_one_range_and_its_dark_images_stay_dark(tmp_path):
    class_folder(tmp_path)
    for part, name in ((1, "bright"), (4, "dark")):
        values = (RAMP * 4095 / part).round().astype(np.uint16)
        Image.fromarray(values).save(tmp_path / "cat" / f"{name}.png")
    images = load(tmp_path)
    assert images.value_range == (0, 4095, False)
    pixels = images.at(SIDE)
    assert pixels[images.names.index("cat/bright.png")].max() == 255
    assert pixels[images.names.index("cat/dark.png")].max() == 64


def test_the_scale_of_a_run_replaces_that_of_the_folder_but_not_in_the_shared_store(tmp_path):
    class_folder(tmp_path)
    Image.fromarray((RAMP * 1023).round().astype(np.uint16)).save(tmp_path / "cat" / "deep.png")
    images = load(tmp_path)
    other = images.scaled_by(ValueRange(0, 4095))
    row = images.names.index("cat/deep.png")
    assert (images.at(SIDE)[row].max(), other.at(SIDE)[row].max()) == (255, 64)
    assert images.value_range == (0, 1023, False)
    different = (images.store.fingerprints != other.store.fingerprints).any(axis=1)
    assert different.nonzero()[0].tolist() == [
        row
    ]  # only images whose pixels differ are cached again


@pytest.mark.parametrize("ends, expected", [
    ([(0, 4000)] * 30 + [(0, 65535)], (0, 4095, False)),
    ([(29_000, 31_000)], (29_000, 31_000, False)),
    ([(-1000, 3000)], (-1000, 3000, False)),
    ([(0, 65_536)], (0, 131_071, False)),
])  # fmt: skip
def test_one_range_for_many_files(ends, expected):
    assert value_range([Values(low, high, False) for low, high in ends]) == expected
    assert value_range([]) is None


def test_values_that_are_no_number_become_black():
    pixels = np.array([[0.0, np.nan], [1.0, np.inf]], np.float32)
    assert scaled(pixels, ValueRange(0, 1, True)).tolist() == [[0, 0], [255, 255]]
    assert scaled(np.array([[65535]], np.uint16), FULL).tolist() == [[255]]


def icon(colour: int, alpha: np.ndarray) -> np.ndarray:
    return np.dstack([np.full((SIDE, SIDE, 3), colour, np.uint8), alpha.astype(np.uint8)])


def test_a_white_icon_is_seen_on_black_and_a_black_one_on_white(tmp_path):
    shape = (RAMP > 0.5) * 255
    for colour, seen in ((255, shape), (0, 255 - shape)):
        save(tmp_path / "icon.png", icon(colour, shape))
        assert np.array_equal(read(tmp_path / "icon.png")[..., 0], seen)
        assert not decode.inspect(tmp_path / "icon.png").blank


def test_an_image_that_is_transparent_everywhere_is_shown(tmp_path):
    save(tmp_path / "a.png", np.dstack([PHOTO, np.zeros((SIDE, SIDE), np.uint8)]))
    assert np.array_equal(read(tmp_path / "a.png"), PHOTO)
    assert decode.inspect(tmp_path / "a.png").notes == ("ignored alpha",)


def test_blank_images_are_counted_and_are_no_copies(tmp_path):
    from handful.data.checks import check

    class_folder(tmp_path)
    for name in ("a", "b"):
        save(tmp_path / "cat" / f"{name}.png", np.full((8, 8), 200, np.uint8))
    findings = check(load(tmp_path), near=False)
    texts = {problem.kind: problem.text for problem in findings.problems}
    assert texts["blank"].startswith("2 blank images") and "copies" not in texts


def test_a_png_with_much_text_or_profile_is_read(tmp_path):
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(3_000_000)))
    profile = chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(3_000_000)))
    png16(tmp_path / "a.png", DEEP, text, profile)
    assert np.abs(read(tmp_path / "a.png") - PHOTO).max() <= 1


def test_a_jpeg_without_its_last_bytes_is_read_and_half_a_jpeg_is_not(tmp_path):
    photo = smooth(640, 640, seed=1)
    path = save(tmp_path / "a.jpg", photo, quality=90)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * 0.98)])
    assert decode.inspect(path).notes == ("truncated",)
    small = np.asarray(Image.fromarray(photo).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    assert np.abs(read(path) - small)[: SIDE - 2].max() <= 12
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(decode.Unreadable, match="truncated, .*% is there"):
        decode.inspect(path)


def test_camera_raw_is_not_read_as_its_preview(tmp_path):
    path = tmp_path / "a.dng"
    with tifffile.TiffWriter(path) as writer:
        writer.write(PHOTO, photometric="rgb", subfiletype=1, subifds=1)
        writer.write(np.zeros((64, 64), np.uint16), photometric="minisblack")
    (tmp_path / "b.raf").write_bytes(b"FUJIFILMCCD-RAW " + bytes(64))
    (tmp_path / "c.cr3").write_bytes(b"\0\0\0\x18ftypcrx " + bytes(64))
    class_folder(tmp_path)
    reasons = {skip.reason for skip in load(tmp_path).store.skipped}
    assert reasons == {"camera raw; export JPEGs"}
    assert len(load(tmp_path).store.skipped) == 3


def test_avif_is_read(tmp_path):
    save(tmp_path / "a.avif", PHOTO, quality=95)
    assert np.abs(read(tmp_path / "a.avif") - PHOTO).mean() < 6


def test_a_file_of_endless_scans_or_a_long_side_is_refused_without_decoding(tmp_path):
    path = save(tmp_path / "a.jpg", PHOTO, progressive=True)
    content = path.read_bytes()
    start = content.rindex(b"\xff\xda")
    path.write_bytes(content[:start] + content[start:-2] * 150 + b"\xff\xd9")
    with pytest.raises(decode.Unreadable, match="more than 100 scans"):
        decode.inspect(path)
    save(tmp_path / "a.png", np.zeros((1, 70_000), np.uint8))
    with pytest.raises(decode.Unreadable, match="a side of more than 65,535"):
        decode.inspect(tmp_path / "a.png")


def test_memory_that_is_short_leaves_out_one_file(tmp_path, monkeypatch):
    class_folder(tmp_path)
    save(tmp_path / "cat" / "large.png", np.zeros((2000, 2000, 4), np.uint8))
    monkeypatch.setenv("HANDFUL_DECODE_MEMORY", "16")
    [skip] = load(tmp_path).store.skipped
    assert skip.name == "cat/large.png" and "HANDFUL_DECODE_MEMORY" in skip.reason
    monkeypatch.setenv("HANDFUL_DECODE_MEMORY", "lots")
    with pytest.raises(HandfulError, match="HANDFUL_DECODE_MEMORY='lots' .* in MB"):
        budget()


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"progressive": True, "subsampling": 0}]
)
def test_the_largest_photos_of_phones_are_read(tmp_path, options):
    photo = Image.linear_gradient("L").resize((12_000, 9_000)).convert("RGB")
    photo.save(tmp_path / "phone.jpg", **options)
    facts = decode.inspect(tmp_path / "phone.jpg")
    assert (facts.height, facts.width) == (9_000, 12_000)
    pixels = decode.read(tmp_path / "phone.jpg", 32, "stretch", 3)
    assert pixels[:, 0].max() < 10 and pixels[:, -1].min() > 245


@pytest.mark.parametrize("subsampling, samples", [(0, 3), (1, 2), (2, 1.5)])
def test_a_jpeg_held_as_a_whole_costs_what_its_colours_take(tmp_path, subsampling, samples):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.jpg", progressive=True, subsampling=subsampling)
    assert jpeg_scans((tmp_path / "a.jpg").read_bytes()).samples == samples


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_strips_of_a_turned_image_are_those_of_the_upright_one(monkeypatch, orientation, mode):
    monkeypatch.setattr(decode, "STRIP", 100)
    noise = np.random.default_rng(0).integers(0, 256, (37, 23, len(mode)), np.uint8)
    image = Image.fromarray(noise, mode)
    parts = [np.asarray(part) for part in decode._parts(image, orientation)]
    assert len(parts) > 1
    upright = np.asarray(image.transpose(decode.TURNS[orientation]))
    assert np.array_equal(np.concatenate(parts), upright)


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA"])
def test_compositing_strip_by_strip_equals_compositing_at_once(monkeypatch, mode):
    noise = np.random.default_rng(0).integers(0, 256, (37, 23, 4), np.uint8)
    image = Image.fromarray(noise, "RGBA").convert(mode)
    background = decode._background(image)
    whole = np.asarray(decode._flat(image, background))
    monkeypatch.setattr(decode, "STRIP", 100)
    assert np.array_equal(np.asarray(decode._small(image, background, 100)), whole)


@pytest.mark.thorough
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators do as they do")
def test_memory_of_a_large_image_is_returned_to_the_system(tmp_path):
    """Runs in its own process, whose memory no other test has used."""
    Image.new("RGBA", (5_000, 5_000), (1, 2, 3, 4)).save(tmp_path / "a.png", compress_level=1)
    script = f"""
import re, threading
from pathlib import Path
from handful.data import decode
held = lambda: int(re.search(r"RssAnon:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
decode.inspect(Path({str(tmp_path / "a.png")!r}))
before = held()
def twice():
    for _ in range(2):
        decode.read(Path({str(tmp_path / "a.png")!r}), 32, "crop", 3)
thread = threading.Thread(target=twice)
thread.start(); thread.join()
print(held() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 60_000  # kilobytes: about 28,000; 80,000 and more if it is kept


def test_a_memory_error_is_a_reason(tmp_path, monkeypatch):
    def short(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(Image, "open", short)
    with pytest.raises(decode.Unreadable, match="not enough memory"):
        decode.inspect(save(tmp_path / "a.png"))


@pytest.mark.thorough
def test_a_tree_deeper_than_python_calls_is_walked(tmp_path):
    class_folder(tmp_path)
    deepest = str(tmp_path / "cat")
    for _ in range(1_500):
        deepest += "/d"
        os.mkdir(deepest)
    try:
        assert len(load(tmp_path)) == 6
    finally:
        os.removedirs(deepest)  # pytest's own removal exceeds the recursion limit
