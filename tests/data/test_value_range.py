"""Images of 12 bits in 16-bit files: their scale, and how a run keeps it."""

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
from handful.data.decoding.value_range import FULL, Ranges, ValueRange
from handful.data.sources import load
from handful.pipeline.compare import compare
from handful.pipeline.pretrain import pretrain
from handful.pipeline.pretrained import on_scale_of
from handful.pipeline.record_schema import Input
from handful.progress import Reporter
from image_files import class_folder, save, smooth

SIDE = 12
QUICK = ("--method", "supervised", "--set", "steps=2", "--set", "backbone.base=8",
         "--precision", "fp32", "--estimate", "none")  # fmt: skip
OLD = Path(__file__).parents[1] / "fixtures" / "run-of-0.1"


def deep_folder(root: Path, divide: int = 1) -> Path:
    """Write three classes of brightness, values up to 4,095 // divide, half PNG and half TIFF."""
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
    status, out, err = handful("fit", train, *QUICK, "--out", run)
    assert status == 0, err
    assert "scaled from 0 to 4095" in " ".join((out + err).split())
    assert json.loads((run / "run.json").read_text())["input"]["value_range"] == [0, 4095, False]
    assert load(darker).value_range == (0, 255, False) and brightest(load(darker)) > 240

    scales, really_read = set(), decode.read

    def read(path, size, aspect, channels, scale=None):
        pixels = really_read(path, size, aspect, channels, scale)
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


def mixed_folder(root: Path) -> Path:
    """Write files of 12 bits, and floating-point files of different ranges."""
    deep_folder(root)
    for number, name in enumerate(("dark", "mid", "bright")):
        for seed in range(4):
            values = smooth(SIDE, SIDE, seed=20 * number + seed)[..., 0] / 255 * (number + 1) / 3
            tifffile.imwrite(root / name / f"real-{seed}.tif", values.astype(np.float32))
    return root


def test_files_of_both_kinds_have_one_range_each_which_the_run_keeps(tmp_path, handful):
    train, alone = mixed_folder(tmp_path / "train"), tmp_path / "alone"
    images = load(train)
    assert images.value_range == Ranges(ValueRange(0, 4095), ValueRange(0, 1, True))
    names = [name for name in images.names if "dark/real" in name]
    rows = [images.names.index(name) for name in names]
    assert images.at(SIDE)[rows].max() < 90  # a third of white: images are not scaled one by one
    run = tmp_path / "run"
    status, out, err = handful("fit", train, *QUICK, "--out", run)
    assert status == 0, err
    assert "from 0 to 4095 (floating-point files from 0 to 1)" in " ".join((out + err).split())
    kept = json.loads((run / "run.json").read_text())["input"]["value_range"]
    assert kept == [[0, 4095, False], [0, 1, True]]
    predictor = package.open_run(run).predictor
    assert predictor.value_range == images.value_range
    alone.mkdir()
    for name in names:
        shutil.copy(train / name, alone)
    darker = load(alone, labeled=False).scaled_by(predictor.value_range)
    assert darker.value_range == ValueRange(0, 1, True) and brightest(darker) < 90


@pytest.mark.parametrize("scale", [[[0, 1, True], [0, 1, True]], [[0, 1, False]], [[1, 0, False]]])
def test_a_damaged_pair_of_ranges_is_refused(scale):
    with pytest.raises(ValueError, match="range"):
        Input(size=8, channels=1, aspect="crop", flips=False, value_range=scale)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A pretrained backbone from images with values up to 4,095, and its reported sentences."""
    root, said = tmp_path_factory.mktemp("stage"), []
    images = load(deep_folder(root / "train"), labeled=False)
    settings = {"steps": "2", "batch": "8", "looks": "1", "backbone.base": "8"}
    stage = pretrain(
        images, "simclr", out=root / "pre", settings=settings, precision="fp32",
        pictures=False, say=said.append,
    )  # fmt: skip
    return stage, said


def test_a_stage_keeps_the_scale_it_was_trained_with(learned):
    stage, said = learned
    assert any("scaled from 0 to 4095; fit --init keeps this scale" in line for line in said)
    assert stage.record["input"]["value_range"] == [0, 4095, False]
    assert stage.value_range == ValueRange(0, 4095)


@pytest.mark.parametrize("divide", [1, 16])
def test_a_fit_from_a_stage_takes_its_scale_and_says_where_its_images_differ(
    tmp_path, learned, handful, divide
):
    stage, _ = learned
    train, run = deep_folder(tmp_path / "photos", divide), tmp_path / "run"
    status, out, err = handful(
        "fit", train, "--init", stage.folder, "--method", "features", "--estimate", "none",
        "--precision", "fp32", "--out", run,
    )  # fmt: skip
    assert status == 0, err
    shown = " ".join((out + err).split())
    assert "are scaled from 0 to 4095 for all files" in shown
    differs = (
        f"values of {train} go from 0 to 255, those that {stage.folder} learned from go from 0 to "
        f"4095; the scale from 0 to 4095 is taken"
    )
    assert (differs in shown) == (divide == 16) == ("learned from go" in shown)
    assert package.open_run(run).predictor.value_range == ValueRange(0, 4095)


def test_a_comparison_from_a_stage_says_where_its_images_differ(tmp_path, learned):
    stage, _ = learned
    said = []
    images = load(deep_folder(tmp_path / "photos", 16), test_fraction=0.5)
    compare(
        images, ["features"], [0], 1, tmp_path / "cmp", estimate="none", init=stage.folder,
        precision="fp32", reporter=Reporter(say=said.append),
    )  # fmt: skip
    assert any("the scale from 0 to 4095 is taken" in line for line in said)
    assert any("are scaled from 0 to 4095 for all files" in line for line in said)


def test_images_of_8_bits_beside_a_stage_of_more_bits_are_reported(tmp_path, learned):
    stage, _ = learned
    said = []
    images = load(class_folder(tmp_path))
    assert on_scale_of(images, stage.folder, said.append) is images
    assert said == [
        f"values of {tmp_path} have 8 bits, those that {stage.folder} learned from go from 0 to "
        f"4095"
    ]


def test_a_stage_from_before_ranges_changes_no_scale(tmp_path, learned):
    stage, _ = learned
    old, said = shutil.copytree(stage.folder, tmp_path / "old"), []
    record = json.loads((old / "pretrained.json").read_text())
    del record["input"]["value_range"]
    (old / "pretrained.json").write_text(json.dumps(record))
    images = load(deep_folder(tmp_path / "photos", 16))
    assert on_scale_of(images, old, said.append) is images and not said


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
    """Colours of 16 bits are refused with the reason; Pillow reads a single band rightly."""
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
    content[place + 8 : place + 10] = struct.pack("<H", 5)  # declared as LZW
    path.write_bytes(content)
    with pytest.raises(decode.Unreadable, match="LZW needs .* imagecodecs .the extra tiff"):
        decode.inspect(path)


def test_a_compression_that_may_unpack_to_more_than_declared_is_not_read(tmp_path):
    path = tmp_path / "packed.tif"
    tifffile.imwrite(path, np.zeros((16, 16, 3), np.uint16), photometric="rgb")
    content = bytearray(path.read_bytes())
    place = content.index(struct.pack("<HHI", 259, 3, 1))
    content[place + 8 : place + 10] = struct.pack("<H", 34712)  # declared as JPEG 2000
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
