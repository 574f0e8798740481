"""Thousands of damaged files give a result or a known error, soon and in bounded memory."""

import io
import resource

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from handful.data import decode
from handful.data.imageset import ImageSet
from handful.data.sources import load
from image_files import class_folder, noise, smooth
from soon import soon

FUZZ = settings(derandomize=True)  # no deadline: conftest.py
LIMIT = 10  # seconds of processor time for one case


def encoded(kind, pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


PHOTO = smooth(24, 20, seed=1)
WHOLE = [
    encoded("JPEG", PHOTO, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"),
    encoded("JPEG", PHOTO, progressive=True),
    encoded("PNG", PHOTO),
    encoded("PNG", noise(24, 20, seed=2, channels=1).astype(np.uint16) * 257),
    encoded("PNG", np.dstack([PHOTO, PHOTO[..., 0]])),
    encoded("WEBP", PHOTO),
    encoded("BMP", PHOTO),
    encoded("GIF", PHOTO, save_all=True, append_images=[Image.fromarray(255 - PHOTO)]),
    encoded("PPM", PHOTO),
    encoded("TIFF", PHOTO),
    encoded("TIFF", PHOTO, compression="tiff_lzw"),
]


@st.composite
def damaged(draw):
    """An image with changed bytes, possibly truncated or with a repeated part."""
    content = bytearray(draw(st.sampled_from(WHOLE)))
    near_the_start = st.integers(0, min(80, len(content) - 1))
    anywhere = st.integers(0, len(content) - 1)
    for at in draw(st.lists(st.one_of(near_the_start, anywhere), max_size=6)):
        content[at] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        at, length = draw(anywhere), draw(st.integers(0, 40))
        content[at:at] = content[at : at + length]
    if draw(st.booleans()):
        content = content[: draw(anywhere)]
    return bytes(content)


@pytest.fixture
def bounded_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 1_000_000  # kilobytes; the largest image allowed takes a third of this


def few_or_many(few, many):
    """Decorate a test to run with few cases by default, and with many as a thorough test."""
    counts = [pytest.param(few, marks=pytest.mark.thorough)]
    counts.append(pytest.param(many, marks=pytest.mark.slow))
    return pytest.mark.parametrize("count", counts)


@few_or_many(400, 1500)
def test_any_bytes_are_an_image_or_unreadable(tmp_path, bounded_memory, count):
    path = tmp_path / "image.jpg"

    @settings(FUZZ, max_examples=count)
    @given(content=st.one_of(damaged(), st.binary(max_size=200)))
    def check(content):
        path.write_bytes(content)
        with decode.guarded(), soon(LIMIT):
            try:
                facts = decode.inspect(path)
                pixels = decode.read(path, 8, "crop", 3)
            except decode.Unreadable as error:
                assert str(error) and "\n" not in str(error)
            else:
                assert facts.height >= 1 and facts.width >= 1 and len(facts.fingerprint) == 16
                assert pixels.shape == (3, 8, 8) and pixels.dtype == np.uint8

    check()


CELLS = st.sampled_from(
    ["file", "label", "group", "cat/0.png", "dog/1.png", "./cat/0.png", "x", "y", "", " ", '"',
     '""', "é", "../..", "/", "\\", "~", "*", "\0", "\ufeff", "a" * 5000]
)  # fmt: skip
PUNCTUATION = st.sampled_from([",", ";", "\t", "\n", "\r\n", "\r", '"', ",,"])
TABLES = st.one_of(
    st.lists(st.one_of(CELLS, PUNCTUATION), max_size=40).map("".join).map(str.encode),
    st.lists(st.one_of(CELLS, PUNCTUATION), max_size=30).map(
        lambda cells: ("file,label,group\ncat/0.png,x\ndog/1.png,y\n" + "".join(cells)).encode()
    ),
    st.binary(max_size=300),
    st.binary(max_size=60).map(lambda tail: b"file,label\ncat/0.png,x\ndog/1.png,y\n" + tail),
)


@few_or_many(250, 800)
@pytest.mark.filterwarnings("ignore::UserWarning")  # of rows that name no image, or several
def test_any_bytes_are_a_label_file_or_a_value_error(tmp_path, bounded_memory, count):
    folder, table = class_folder(tmp_path / "photos"), tmp_path / "labels.csv"

    @settings(FUZZ, max_examples=count)
    @given(content=TABLES, encoding=st.sampled_from(["utf-8", "latin-1", "utf-16"]))
    def check(content, encoding):
        table.write_bytes(content)
        try:
            with soon(LIMIT):
                images = load(folder, table, encoding=encoding)
        except ValueError as error:
            assert str(error) and "\n" not in str(error)
        else:
            assert isinstance(images, ImageSet) and len(images) == 6
            assert len(images.labeled) >= 2

    check()
