"""Write small image files that take a decoder much memory or time."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, features

SIDE = 9_400  # sides of the largest images that are read: 88 million pixels
BITS = {"1": (1, 0, 1), "P": (8, 3, 1), "L": (8, 0, 1), "LA": (8, 4, 2), "RGB": (8, 2, 3),
        "RGBA": (8, 6, 4), "L16": (16, 0, 1), "LA16": (16, 4, 2), "RGB16": (16, 2, 3),
        "RGBA16": (16, 6, 4)}  # fmt: skip
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
         (0, 1, 1, 2))  # fmt: skip
Make = Callable[[], bytes]


def deflated(block: bytes, times: int) -> bytes:
    """A zlib stream of `block` repeated: compressed once, with the right checksum."""
    packer = zlib.compressobj(9)
    head = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    part = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    check = 1
    for _ in range(times):
        check = zlib.adler32(block, check)
    end = zlib.compressobj(9)
    end.compress(b"")
    return head + part * times + b"\x03\x00" + struct.pack(">I", check)


def chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def png(
    width: int, height: int, mode: str, *extra: bytes, interlace: int = 0, rows: int = 0
) -> Make:
    """A PNG of one half-transparent colour, with `rows` more or fewer than its header says."""

    def make() -> bytes:
        bits, kind, bands = BITS[mode]
        header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, interlace)
        if interlace:
            packer, pixels = zlib.compressobj(1), b""
            for left, top, right, down in ADAM7:
                wide, high = -(-(width - left) // right), -(-(height - top) // down)
                row = b"\0" + b"\x07" * (wide * bits * bands // 8)
                pixels += b"".join(packer.compress(row) for _ in range(high))
            pixels += packer.flush()
        row = b"\0" + b"\x07" * ((width * bits * bands + 7) // 8)
        some = min(height, max(1, 2_000_000 // len(row)))
        pixels = pixels if interlace else deflated(row * some, max(1, (height + rows) // some))
        pixels = pixels[: len(pixels) // 2] if rows < 0 else pixels
        palette = chunk(b"PLTE", bytes(range(256)) * 3) if mode == "P" else b""
        return (
            b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + palette + b"".join(extra)
            + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
        )  # fmt: skip

    return make


def saved(image: Callable[[], Image.Image], kind: str, **options) -> Make:
    def make() -> bytes:
        file = io.BytesIO()
        image().save(file, format=kind, **options)
        return file.getvalue()

    return make


def flat(mode: str, width: int, height: int) -> Callable[[], Image.Image]:
    return lambda: Image.new(mode, (width, height))


def tall_jpeg(mode: str, width: int, height: int, **options) -> Make:
    """A JPEG of repeated rows: eight strips between restart markers."""

    def make() -> bytes:
        lines = 8 if mode == "L" else 16
        content = saved(flat(mode, width, 8 * lines), "JPEG", restart_marker_rows=1, **options)()
        frame = content.index(b"\xff\xc0") + 5
        scan = content.index(b"\xff\xda")
        scan += 2 + int.from_bytes(content[scan + 2 : scan + 4], "big")
        part = content[scan:-2] + b"\xff\xd7"
        head = content[:frame] + struct.pack(">H", height) + content[frame + 2 : scan]
        return head + part * -(-height // (8 * lines)) + b"\xff\xd9"

    return make


def claimed_jpeg(width: int, height: int, times: int = 1, progressive: bool = False) -> Make:
    """A small JPEG whose header says another size, with its last scan repeated `times`."""

    def make() -> bytes:
        content = saved(flat("RGB", 64, 64), "JPEG", progressive=progressive)()
        frame = content.index(b"\xff\xc2" if progressive else b"\xff\xc0") + 5
        content = content[:frame] + struct.pack(">HH", height, width) + content[frame + 4 :]
        last = content.rindex(b"\xff\xda")
        return content[:last] + content[last:-2] * times + b"\xff\xd9"

    return make


def jpeg_with(middle: bytes) -> Make:
    """A small JPEG with additional bytes after its first marker."""
    content = saved(flat("RGB", 64, 64), "JPEG")
    return lambda: content()[:2] + middle + content()[2:]


def gif(width: int, height: int, frames: int = 1, frame: tuple[int, int] = (1, 1)) -> Make:
    """A GIF of frames of zeros on a large canvas; the codes grow in length and are reset."""

    def make() -> bytes:
        inner = saved(flat("P", *frame), "GIF")()
        start = inner.index(b"\x2c", 13 + 3 * 2 ** ((inner[10] & 7) + 1) if inner[10] & 128 else 13)
        head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
        return head + inner[start:-1] * frames + b"\x3b"

    return make


def tiff(tags: dict[int, tuple[int, int]], content: bytes = b"", following: int = 0) -> Make:
    """A TIFF of one directory: {tag: (type, value)}; the pixels begin at 512."""

    def make() -> bytes:
        entries = b"".join(
            struct.pack("<HHI", tag, kind, 1) + struct.pack("<I", value)
            for tag, (kind, value) in sorted(tags.items())
        )
        head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", following)
        return head.ljust(512, b"\0") + content

    return make


def tags(width: int, height: int, bits: int = 8, compression: int = 1, **other: int) -> dict:
    found = {256: width, 257: height, 258: bits, 259: compression, 262: 1, 273: 512, 277: 1,
             278: height, 279: 1_000}  # fmt: skip
    found.update({int(name[1:]): value for name, value in other.items()})
    return {tag: (4, value) for tag, value in found.items()}


def strip_bomb(width: int, bits: int, compression: int, content: Make, **other: int) -> Make:
    def make() -> bytes:
        found = content()
        return tiff(tags(width, width, bits, compression, t279=len(found), **other), found)()

    return make


def directories(count: int) -> bytes:
    """A TIFF of many directories, each of one pixel."""
    entries = tags(1, 1)
    size = 2 + 12 * len(entries) + 4
    parts, at = [b"II*\0" + struct.pack("<I", 8)], 8
    for number in range(count):
        at += size
        parts.append(tiff(entries, following=at if number + 1 < count else 0)()[8 : 8 + size])
    return b"".join(parts)


def written(pixels: Callable[[], np.ndarray], **options) -> Make:
    def make() -> bytes:
        file = io.BytesIO()
        tifffile.imwrite(file, pixels(), **options)
        return file.getvalue()

    return make


def imagej() -> bytes:
    text = "ImageJ=1.53\nimages=1000000000\nchannels=900000\nslices=1000\nhyperstack=true\n"
    return written(lambda: np.zeros((64, 64), np.uint16), description=text, metadata=None)()


def webp_canvas() -> bytes:
    """An animation of one small frame on the largest canvas."""
    still = saved(flat("RGB", 16, 16), "WEBP", lossless=True)()[12:]
    three = lambda number: struct.pack("<I", number)[:3]  # noqa: E731
    frame = three(0) * 2 + three(15) * 2 + three(100) + b"\0" + still
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + three(16_382) * 2
    body += b"ANIM" + struct.pack("<I", 6) + bytes(6) + b"ANMF" + struct.pack("<I", len(frame))
    body += frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bmp(width: int, height: int, codes: bytes) -> Make:
    """A run-length BMP with `codes` as its pixels."""
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(codes), 0, 0, 256, 0)
    offset = 14 + len(header) + 1024
    head = b"BM" + struct.pack("<IHHI", offset + len(codes), 0, 0, offset)
    return lambda: head + header + bytes(1024) + codes


def many(head: bytes, times: int, kind: bytes = b"IDAT") -> bytes:
    return chunk(kind, head) * times


MEGABYTE = zlib.compress(bytes(1_000_000))
TURNED = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
ZEROS = deflated(bytes(1_000_000), 100)
# Name, how it is made, the reason if it is refused; "" is read, "*" is either.
BOMBS: dict[str, tuple[Make, str]] = {
    **{f"square-{mode}.png": (png(SIDE, SIDE, mode), "") for mode in
       ("1", "P", "L", "LA", "RGB", "RGBA", "L16")},
    "square-LA16.png": (png(SIDE, SIDE, "LA16"), "takes"),
    "square-RGB16.png": (png(SIDE, SIDE, "RGB16"), "takes"),
    "square-RGBA16.png": (png(SIDE, SIDE, "RGBA16"), "takes"),
    "deep-RGBA16.png": (png(5_000, 5_000, "RGBA16"), ""),
    "again-RGBA.png": (png(SIDE, SIDE, "RGBA"), ""),
    "third-RGBA.png": (png(SIDE, SIDE, "RGBA"), ""),
    "turned-RGBA.png": (png(SIDE, SIDE, "RGBA", chunk(b"eXIf", TURNED)), ""),
    "interlaced.png": (png(SIDE, SIDE, "RGBA", interlace=1), ""),
    "interlaced-16.png": (png(5_000, 5_000, "RGB16", interlace=1), ""),
    "keyed.png": (png(SIDE, SIDE, "RGB", chunk(b"tRNS", b"\0\1\0\1\0\1")), ""),
    "bits.png": (png(30_000, 30_000, "1"), "more than 89 million"),
    "all-bits.png": (png(65_535, 65_535, "1"), "more than 89 million"),
    "line.png": (png(89_000_000, 1, "1"), "a side of more"),
    "column.png": (png(1, 89_000_000, "L"), "a side of more"),
    "ribbon.png": (png(65_535, 1_360, "RGBA"), ""),
    "cut.png": (png(SIDE, SIDE, "RGBA", rows=-1), "damaged"),
    "more-rows.png": (png(64, 64, "RGBA", rows=4_000_000), "*"),
    "text.png": (png(4, 4, "L", chunk(b"zTXt", b"c\0\0" + ZEROS)), ""),
    "texts.png": (png(4, 4, "L", many(b"c\0\0" + MEGABYTE, 200, b"zTXt")), ""),
    "long-text.png": (png(4, 4, "L", chunk(b"iTXt", b"c\0\1\0\0\0" + ZEROS)), ""),
    "profile.png": (png(4, 4, "L", chunk(b"iCCP", b"p\0\0" + ZEROS)), ""),
    "pieces.png": (png(4, 4, "L", many(b"", 200_000)), "*"),
    "frames.png": (png(64, 64, "RGBA", chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))), "*"),
    "endless-chunk.png": (lambda: png(4, 4, "L")()[:33] + b"\x7f\xff\xff\xffIDATx", "damaged"),
    "claimed.jpg": (claimed_jpeg(65_500, 65_500), "more than 358 million"),
    "claimed-small.jpg": (claimed_jpeg(10_000, 10_000), "*"),
    "claimed-progressive.jpg": (claimed_jpeg(9_000, 9_000, progressive=True), "*"),
    "scans.jpg": (claimed_jpeg(64, 64, 300, progressive=True), "more than 100 scans"),
    "scans-large.jpg": (claimed_jpeg(10_000, 10_000, 90, progressive=True), "99 scans of 100"),
    "scans-ten.jpg": (saved(flat("RGB", 6_000, 6_000), "JPEG", progressive=True), ""),
    "grey.jpg": (tall_jpeg("L", 18_000, 19_500), ""),
    "long.jpg": (tall_jpeg("RGB", 5_400, 65_500, subsampling=0), "*"),
    "cmyk.jpg": (tall_jpeg("CMYK", 9_000, 9_000), ""),
    "fill.jpg": (jpeg_with(b"\xff" * 5_000_000), "more than 10,000 seg"),
    "comments.jpg": (jpeg_with(b"\xff\xfe\0\2" * 500_000), "more than 10,000 seg"),
    "profiles.jpg": (jpeg_with((b"\xff\xe2\xff\xff" + bytes(65_533)) * 80), "*"),
    "canvas.gif": (gif(65_535, 65_535), "more than 89 million"),
    "canvas-read.gif": (gif(SIDE, SIDE), "*"),
    "frames.gif": (gif(64, 64, 20_000), "*"),
    "square.gif": (gif(SIDE, SIDE, 1, (SIDE, SIDE)), "*"),
    "square.webp": (saved(flat("RGB", 16_383, 2_000), "WEBP", lossless=True, method=0), ""),
    "canvas.webp": (webp_canvas, "more than 89 million"),
    "strip.tif": (tiff(tags(40_000, 40_000)), "takes"),
    "tile.tif": (tiff(tags(40_000, 40_000, t322=40_000, t323=40_000)), "takes"),
    "tile-of-64.tif": (strip_bomb(64, 8, 8, lambda: ZEROS, t322=40_000, t323=40_000, t324=512,
                                  t325=1_000), "takes"),
    "deep-strip.tif": (tiff(tags(40_000, 40_000, 16)), "takes"),
    "deflate.tif": (strip_bomb(64, 8, 8, lambda: ZEROS), "*"),
    "deep-deflate.tif": (strip_bomb(64, 16, 8, lambda: deflated(bytes(10_000_000), 100)), "*"),
    "lzma.tif": (written(lambda: np.zeros((5_000, 5_000), np.uint16), compression="lzma"), "*"),
    "lzw.tif": (saved(flat("RGB", 8_000, 8_000), "TIFF", compression="tiff_lzw"), ""),
    "loop.tif": (tiff(tags(4, 4), bytes(1_000), following=8), "*"),
    "directories.tif": (lambda: directories(60_000), "*"),
    "thirteen.tif": (written(lambda: np.zeros((3_000, 3_000, 13), np.uint16), compression="zlib",
                             photometric="minisblack", planarconfig="contig"), ""),
    "planes.tif": (written(lambda: np.zeros((3, 4_000, 4_000), np.uint16), photometric="rgb",
                           planarconfig="separate", compression="zlib"), ""),
    "stack.tif": (imagej, "*"),
    "counts.tif": (lambda: b"II+\0\x08\0\0\0" + struct.pack("<QQHHQQ", 16, 1, 273, 16, 2**40, 64)
                   + bytes(64), "*"),
    "cut.ppm": (lambda: b"P6 9400 9400 255\n" + bytes(100), "damaged"),
    "cut-16.pgm": (lambda: b"P5 9400 9400 65535\n" + bytes(100), "takes"),
    "header.ppm": (lambda: b"P6 " + b"9" * 5_000_000, "its header"),
    "comment.ppm": (lambda: b"P6 #" + b"x" * 5_000_000 + b"\n4 4 255\n" + bytes(48), "its header"),
    "text.pbm": (lambda: b"P1 9400 9400\n" + b"1 0 " * 2_000_000, "takes"),
    "text.ppm": (lambda: b"P3 1000 1000 255\n" + b"7 " * 3_000_000, "*"),
    "lines.bmp": (bmp(SIDE, SIDE, b"\1\7\0\0" * SIDE + b"\0\1"), "run-length"),
    "moves.bmp": (bmp(SIDE, SIDE, b"\0\2\xff\xff" * 50 + b"\0\1"), "run-length"),
    "claimed.bmp": (bmp(65_535, 65_535, b"\0\1"), "more than 89 million"),
}  # fmt: skip
if features.check("avif"):
    BOMBS["square.avif"] = (saved(flat("RGB", 8_000, 8_000), "AVIF", speed=10), "*")
FAST = ("line.png", "column.png", "all-bits.png", "texts.png", "profile.png", "claimed.jpg",
        "scans.jpg", "canvas.webp", "tile-of-64.tif", "deep-deflate.tif", "loop.tif", "stack.tif",
        "header.ppm", "cut-16.pgm", "claimed.bmp")  # fmt: skip


def write(folder: Path, names: tuple[str, ...] = ()) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or BOMBS:
        (folder / name).write_bytes(BOMBS[name][0]())
