"""Loading folders, in three tables: files that are read, skipped with a reason, and refused.

Every row makes real files. Beside the file of the row lie six good images of two classes.
"""

import os
import resource
import struct
import unicodedata
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from handful.data import decode, scan
from handful.data.sources import load
from handful.data.store import Skipped
from image_files import class_folder, noise, save, smooth

GOOD = 6
PHOTO = smooth(24, 20, seed=5)
GREY = noise(24, 20, seed=6, channels=1)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """Write a black one-bit PNG row by row, so that a large one takes no memory here."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    data = b"".join(packer.compress(row) for _ in range(height))
    pixels = png_chunk(b"IDAT", data + packer.flush())
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels + png_chunk(b"IEND", b"")


def rgba(alpha: int) -> np.ndarray:
    return np.dstack([PHOTO, np.full(PHOTO.shape[:2], alpha, np.uint8)])


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def damaged(path: Path, keep: float = 1.0, flip: int | None = None) -> None:
    """Truncate a file, or change one byte of it."""
    content = bytearray(path.read_bytes())
    if flip is not None:
        content[flip] ^= 0xFF
    path.write_bytes(content[: int(len(content) * keep)])


# Read: file name, how it is written, pixels (H, W, C) that it must give, tolerance, notes.


def cmyk(path: Path) -> None:
    Image.fromarray(PHOTO).convert("CMYK").save(path, quality=95, subsampling=0)


def palette_with_alpha(path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8).repeat(6, 0).repeat(3, 1)).convert("P")
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.save(path, transparency=0)


def animation(path: Path) -> None:
    first, second = Image.fromarray(GREY), Image.fromarray(255 - GREY)
    first.save(path, save_all=True, append_images=[second], loop=0)


def as_format(kind: str, pixels: np.ndarray = PHOTO, **options) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(pixels).save(path, format=kind, **options)


def jpeg(**options) -> Callable[[Path], None]:
    return as_format("JPEG", quality=95, subsampling=0, **options)


def one_bit(path: Path) -> None:
    Image.fromarray(GREY).convert("1").save(path)


WHITE_AND_BLUE = np.where(np.arange(6)[None, :, None] < 3, 255, [0, 0, 255]).repeat(6, 0)
WORKS = [
    ("plain.jpg", jpeg(), PHOTO, 9, ()),
    ("progressive.jpg", jpeg(progressive=True), PHOTO, 9, ()),
    ("grey.jpg", as_format("JPEG", GREY, quality=100), GREY, 6, ()),
    ("cmyk.jpg", cmyk, PHOTO, 8, ("cmyk",)),
    ("turned.jpg", jpeg(exif=exif(6)), np.rot90(PHOTO, -1), 9, ("rotated",)),
    ("turned.png", as_format("PNG", exif=exif(3)), np.rot90(PHOTO, 2), 0, ("rotated",)),
    ("turned.tiff", as_format("TIFF", exif=exif(8)), np.rot90(PHOTO), 0, ()),
    ("no-turn.jpg", jpeg(exif=exif(77)), PHOTO, 9, ()),
    ("bad-exif.jpg", jpeg(exif=b"Exif\0\0nonsense"), PHOTO, 9, ()),
    ("plain.png", as_format("PNG"), PHOTO, 0, ()),
    ("deep.png", as_format("PNG", GREY.astype(np.uint16) * 257), GREY, 0, ("16-bit",)),
    ("deep.tif", as_format("TIFF", GREY.astype(np.uint16) * 257), GREY, 0, ("16-bit",)),
    ("bits.png", one_bit, np.asarray(Image.fromarray(GREY).convert("1")) * 255, 0, ()),
    ("palette.png", lambda path: Image.fromarray(GREY).convert("P").save(path), GREY, 0, ()),
    ("palette-alpha.png", palette_with_alpha, WHITE_AND_BLUE, 0, ("alpha",)),
    ("clear.png", as_format("PNG", rgba(0)), PHOTO, 0, ("ignored alpha",)),
    ("half.png", as_format("PNG", rgba(128)), 255 - (255 - PHOTO.astype(int)) / 2, 2, ("alpha",)),
    ("opaque.png", as_format("PNG", rgba(255)), PHOTO, 0, ()),
    ("lossless.webp", as_format("WEBP", lossless=True), PHOTO, 0, ()),
    ("plain.bmp", as_format("BMP"), PHOTO, 0, ()),
    ("moving.gif", animation, GREY, 0, ("first frame",)),
    ("plain.ppm", as_format("PPM"), PHOTO, 0, ()),
    ("plain.pgm", as_format("PPM", GREY), GREY, 0, ()),
    ("plain.tiff", as_format("TIFF"), PHOTO, 0, ()),
    ("packed.tif", as_format("TIFF", compression="tiff_lzw"), PHOTO, 0, ()),
    ("SHOUTED.JPG", jpeg(), PHOTO, 9, ()),
    ("really-a-png.jpg", as_format("PNG"), PHOTO, 0, ("ending",)),
    ("no-ending", as_format("PNG"), PHOTO, 0, ("ending",)),
    ("spaces and, commas 'n \"quotes\".png", as_format("PNG"), PHOTO, 0, ()),
    ("名前-ñ-\N{PILE OF POO}.png", as_format("PNG"), PHOTO, 0, ()),
    (os.fsdecode(b"latin-\xe9.png"), as_format("PNG"), PHOTO, 0, ()),
    ("x" * 250 + ".png", as_format("PNG"), PHOTO, 0, ()),
    ("far/down/the/tree/1.png", as_format("PNG"), PHOTO, 0, ()),
    ("one-pixel.png", as_format("PNG", PHOTO[:1, :1]), PHOTO[:1, :1], 0, ()),
    ("a-line.png", as_format("PNG", np.zeros((1, 10_000), np.uint8)), np.zeros((1, 1)), 0, ()),
]  # fmt: skip


@pytest.mark.parametrize(
    "name, write, expected, tolerance, notes", WORKS, ids=[row[0] for row in WORKS]
)
def test_readable_files_give_their_pixels(tmp_path, name, write, expected, tolerance, notes):
    class_folder(tmp_path)
    path = tmp_path / "cat" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path)
    images = load(tmp_path)
    assert images.store.skipped == ()
    position = images.names.index(f"cat/{name}")
    assert images.labels[position] == 0
    assert images.store.notes[images.rows[position]] == notes
    # A crop of its own height: no resampling, so the pixels themselves can be compared.
    side = min(images.store.sizes[position])
    top, left = (images.store.sizes[position] - side) // 2
    expected = np.atleast_3d(expected)
    if expected.shape[:2] == tuple(images.store.sizes[position]):
        expected = expected[top : top + side, left : left + side]
    pixels = images[np.array([position])].at(int(side))[0].permute(1, 2, 0).numpy()
    assert np.abs(pixels - expected.astype(float)).max() <= tolerance


# Skipped: file name, how it is made, the reason. The six good images are loaded.


def truncated(kind: str, keep: float) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        Image.fromarray(noise(64, 64, seed=1)).save(path, format=kind)
        damaged(path, keep)

    return write


def broken_png(path: Path) -> None:
    save(path)
    damaged(path, flip=60)


def text_bomb(path: Path) -> None:
    text = png_chunk(b"zTXt", b"comment\0\0" + zlib.compress(bytes(100_000_000)))
    path.write_bytes(png(4, 4, text))


def link_out(path: Path) -> None:
    path.symlink_to(save(path.parent.parent.parent / "outside.png", seed=99))


def loop(path: Path) -> None:
    path.symlink_to(path.parent.parent, target_is_directory=True)


def forbidden(path: Path) -> None:
    save(path)
    path.chmod(0)


SKIPPED = [
    ("cut.jpg", truncated("JPEG", 0.5), "damaged: image file is truncated, * is there"),
    ("cut.png", truncated("PNG", 0.5), "damaged: image file is truncated*"),
    ("cut.gif", truncated("GIF", 0.5), "damaged: *"),
    ("cut.webp", truncated("WEBP", 0.5), "damaged: *"),
    ("cut.bmp", truncated("BMP", 0.5), "damaged: image file is truncated*"),
    ("cut.tif", truncated("TIFF", 0.5), "damaged: *"),
    ("cut.ppm", truncated("PPM", 0.5), "damaged: *"),
    ("broken.png", broken_png, "damaged: *"),
    ("letter.png", lambda path: path.write_text("Dear cat,"), "not an image in a known format"),
    ("empty.jpg", lambda path: path.touch(), "empty file (0 bytes)"),
    ("signature.png", lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n"), "*"),
    ("script.jpg", lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n"), "not an image in*"),
    ("new.heic", lambda path: path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(64)),
     "*" if find_spec("pillow_heif") else "HEIC needs a library: pip install pillow-heif"),
    ("bomb.png", lambda path: path.write_bytes(png(30_000, 30_000)),
     "more than 89 million pixels; refused without decoding*"),
    ("big.png", lambda path: path.write_bytes(png(10_000, 10_000)),
     "more than 89 million pixels; refused without decoding*"),
    ("pipe.jpg", os.mkfifo, "not a regular file"),
    ("forbidden.png", forbidden, "permission denied"),
    ("link.png", link_out, "a link out of the folder; --follow-links reads it"),
    ("dead.png", lambda path: path.symlink_to("nowhere.png"), "a link to nothing"),
    ("loop", loop, "a link back to a folder above it"),
]  # fmt: skip


@pytest.mark.parametrize("name, write, reason", SKIPPED, ids=[row[0] for row in SKIPPED])
def test_unreadable_files_are_skipped_and_listed(tmp_path, monkeypatch, name, write, reason):
    folder = class_folder(tmp_path / "photos")
    write(folder / "cat" / name)
    if name == "forbidden.png" and os.geteuid() == 0:
        forbid(monkeypatch, name)  # root may read all files
    images = load(folder)
    assert len(images) == GOOD
    [skipped] = images.store.skipped
    assert skipped.name == f"cat/{name}"
    start, _, end = reason.partition("*")
    assert skipped.reason.startswith(start) and skipped.reason.endswith(end)
    assert "\n" not in skipped.reason
    assert images.at(8).shape == (GOOD, 3, 8, 8)


def forbid(monkeypatch, name):
    def refuse(path, *args, **kwargs):
        if Path(path).name == name:
            raise PermissionError(13, "Permission denied")
        return open(path, *args, **kwargs)

    monkeypatch.setattr(decode, "open", refuse, raising=False)


@pytest.mark.skipif(not find_spec("pillow_heif"), reason="needs the extra heic")
def test_heic_is_read_with_the_extra(tmp_path):
    import pillow_heif

    pillow_heif.register_heif_opener()
    class_folder(tmp_path)
    Image.fromarray(smooth(64, 64, seed=1)).save(tmp_path / "cat" / "phone.HEIC", quality=90)
    images = load(tmp_path)
    assert "cat/phone.HEIC" in images.names and images.store.skipped == ()


def test_an_image_bomb_costs_no_memory(tmp_path):
    folder = class_folder(tmp_path)
    load(folder)
    (folder / "cat" / "bomb.png").write_bytes(png(30_000, 30_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    load(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kilobytes


def test_a_folder_linked_to_from_beside_is_no_loop_and_one_from_within_is(tmp_path):
    for folder in ("a/in", "b/in"):
        (tmp_path / folder).mkdir(parents=True)
    save(tmp_path / "a" / "in" / "photo.png")
    (tmp_path / "b" / "in" / "beside").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "a" / "in" / "above").symlink_to(tmp_path / "a", target_is_directory=True)
    found = list(scan._walk(tmp_path, False))
    names = sorted(item.name for item in found if isinstance(item, scan.Found))
    assert names == ["a/in/photo.png", "b/in/beside/in/photo.png"]
    loops = sorted(item.name for item in found if isinstance(item, Skipped))
    assert loops == ["a/in/above", "b/in/beside/in/above"]


def test_a_file_that_vanishes_between_scan_and_decode_is_listed(tmp_path, monkeypatch):
    class_folder(tmp_path)
    really_inspect = decode.inspect

    def inspect(path):
        (tmp_path / "dog" / "1.png").unlink(missing_ok=True)
        return really_inspect(path)

    monkeypatch.setattr(decode, "inspect", inspect)
    images = load(tmp_path)
    assert len(images) == GOOD - 1
    assert images.store.skipped == (("dog/1.png", "vanished while the folder was read"),)


@pytest.mark.parametrize("change, reason", [
    (lambda path: path.unlink(), "vanished"),
    (lambda path: save(path, seed=77, compress_level=0), "changed while it was read"),
])  # fmt: skip
def test_a_file_that_changes_after_it_was_inspected_stops_the_cache(tmp_path, change, reason):
    images = load(class_folder(tmp_path))
    change(tmp_path / "dog" / "1.png")
    with pytest.raises(ValueError) as error:
        images.at(131)  # a size no other test has, so that nothing is cached
    assert str(error.value) == (
        f"{tmp_path / 'dog' / '1.png'} could be read a moment ago, but not now ({reason}); "
        f"run the same command again to leave it out"
    )


IGNORED = [".hidden.png", "._1.png", "Thumbs.db", "notes.txt", "__MACOSX/1.png", ".git/1.png"]


@pytest.mark.parametrize("name", IGNORED)
def test_hidden_and_other_files_are_ignored(tmp_path, name):
    path = class_folder(tmp_path) / "cat" / name
    path.parent.mkdir(exist_ok=True)
    if name.endswith("png"):
        save(path, seed=9)
    else:
        path.write_text("nothing")
    images = load(tmp_path)
    assert len(images) == GOOD and images.store.skipped == ()


def test_links_inside_the_folder_are_read_and_others_on_request(tmp_path):
    folder = class_folder(tmp_path / "photos")
    (folder / "dog" / "again.png").symlink_to(folder / "dog" / "1.png")
    assert len(load(folder)) == GOOD + 1
    link_out(folder / "dog" / "out.png")
    images = load(folder, follow_links=True)
    assert "dog/out.png" in images.names and images.store.skipped == ()


def test_a_folder_may_be_named_like_a_file(tmp_path):
    class_folder(tmp_path, classes=("cat.jpg", "dog.png"))
    (tmp_path / "empty.gif").mkdir()
    assert load(tmp_path).classes == ("cat.jpg", "dog.png")


def test_the_same_base_name_in_two_folders_is_two_images(tmp_path):
    class_folder(tmp_path, per_class=0)
    for seed, place in enumerate(["cat/a", "cat/b", "dog/a"]):
        save(tmp_path / place / "1.png", seed=seed)
    assert load(tmp_path).names == ["cat/a/1.png", "cat/b/1.png", "dog/a/1.png"]


# Refused: how the folder is made, and the message, where {root} is the folder.


def nothing(root: Path) -> None:
    root.mkdir()


def only_text(root: Path) -> None:
    root.mkdir()
    (root / "notes.txt").write_text("no images here")


def only_broken(root: Path) -> None:
    (root / "cat").mkdir(parents=True)
    (root / "cat" / "1.jpg").touch()
    (root / "dog.png").write_text("x")


REFUSED = [
    (lambda root: None, "no folder '{root}'; check the path"),
    (nothing, "{root} holds no image"),
    (only_text, "{root} holds no image; it has 1 other file: 1 .txt"),
    (only_broken, "{root} holds no image that can be read; 2 left out, the first is "
     "cat/1.jpg: empty file (0 bytes)"),
    (os.mkfifo, "{root} is neither a folder nor a regular file; give a folder of images"),
    (lambda root: save(root / "1.png"), "{root} holds 1 image but no label, and there is no "
     "labels.csv here; label some (handful label {root}), put them into one sub-folder per class, "
     "or give a table with the columns file and label (--labels, in Python labels=)"),
    (lambda root: class_folder(root, classes=("cat",)), "{root} has labels of one class only "
     "('cat'); a classifier needs two or more"),
]  # fmt: skip


@pytest.mark.parametrize("make, message", REFUSED)
def test_wrong_folders_are_refused(tmp_path, make, message):
    root = tmp_path / "photos"
    make(root)
    with pytest.raises(ValueError) as error:
        load(root)
    assert str(error.value) == message.format(root=root)


def test_names_are_compared_as_people_see_them(tmp_path):
    composed, split = (unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD"))
    class_folder(tmp_path, classes=("x",))
    save(tmp_path / split, seed=60)
    table = tmp_path / "labels.csv"
    table.write_text(f"file,label\n{composed},a\nx/0.png,b\n", encoding="utf-8")
    images = load(tmp_path, table)
    assert images.labels[images.names.index(split)] == 0
