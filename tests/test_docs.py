"""The commands and the Python of README.md and docs/: they exist, and the tutorial runs."""

import re
import shlex
import zipfile
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

from handful.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [
    page
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if page.name not in ("results.md", "commands.md")  # commands of benchmarks, and printed help
]


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def commands(page):
    """The commands of handful in the shell blocks of a page, as words."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("handful ")]


def parsed(words):
    """Parse a command without running it; raises for an unknown option or a missing argument."""
    group = typer.main.get_command(app)
    command = group
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context("handful", list(words))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_the_documentation_exist(page):
    for words in commands(page):
        parsed(words)
    for block in blocks(page, "python"):
        compile(block, page.name, "exec")


def test_there_are_commands_to_look_at():
    found = {words[0] for page in PAGES for words in commands(page)}
    assert {"label", "fit", "predict", "data", "report", "pretrain", "export"} <= found


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with `photos/`, a table of labels, and what the tutorial leaves behind."""
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    rows = ["file,label"]
    for i in range(40):
        pixels = rng.integers(0, 120, (32, 32, 3), dtype=np.uint8)
        pixels[..., 2 * (i % 2)] += 100
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i:02}.png")
        rows.append(f"{i:02}.png,{('red', 'blue')[i % 2] if i < 24 else ''}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.thorough
def test_the_tutorial_can_be_followed(handful, folder):
    before = {path.name: path.read_bytes() for path in (folder / "photos").iterdir()}
    for words in commands(ROOT / "docs" / "tutorial.md"):
        if words[0] == "label":  # the page waits for a person
            continue
        more = ["--budget", "10s"] if words[0] == "fit" else []
        status, _, err = handful(*words, *more)
        assert status == 0, (words, err)
    assert {path.name: path.read_bytes() for path in (folder / "photos").iterdir()} == before
    assert (folder / "photos-run" / "report.html").exists()
    assert len(list((folder / "sorted").rglob("*.png"))) == 40


@pytest.mark.thorough
def test_the_page_on_camera_traps_can_be_followed(handful, folder):
    """Every command of the page works, on photos with boxes and a table of labels."""
    rows = ["file,x_min,y_min,width,height"]
    rows += [f"{path.name},4,4,20,20" for path in sorted((folder / "photos").iterdir())]
    (folder / "detections.json").write_text("\n".join(rows))  # the content tells the format
    for words in commands(ROOT / "docs" / "how-to" / "camera-traps.md"):
        for name in ("label-first.csv", "first-run/label-next.csv"):
            if name in words:
                _fill_in(folder / name)
        more = ["--budget", "10s"] if words[0] == "fit" else []
        status, _, err = handful(*words, *more)
        assert status == 0, (words, err)
    assert len(list((folder / "sorted").rglob("*.png"))) == 40
    assert (folder / "recognitions.json").exists() and (folder / "by-photo.csv").exists()
    assert (folder / "next-run" / "run.json").exists()


def _fill_in(table):
    """Give some crops of a table the labels that a person would."""
    header, *rows = table.read_text().splitlines()
    at = header.split(",").index("label")
    cells = [row.split(",") for row in rows]
    for row in cells[:24]:
        row[at] = ("red", "blue")[int(row[0][:2]) % 2]
    table.write_text("\n".join([header, *map(",".join, cells)]))


@pytest.fixture
def bucket(folder, monkeypatch):
    """The photos on an S3 server on this machine, in `s3://bucket`, and as photos.zip here."""
    pytest.importorskip("pyarrow")
    s3fs, moto = pytest.importorskip("s3fs"), pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
    system = s3fs.S3FileSystem()
    system.mkdir("bucket")
    names = []
    with zipfile.ZipFile("photos.zip", "w") as archive:
        for path in sorted((folder / "photos").iterdir()):
            archive.write(path, path.name)
            system.pipe(f"bucket/photos/{path.name}", path.read_bytes())
            names.append(f"photos/{path.name}")
    system.pipe("bucket/list.csv", "\n".join(["uri", *names]).encode())
    yield system
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")
def test_the_page_on_buckets_and_shards_can_be_followed(handful, folder, bucket):
    for words in commands(ROOT / "docs" / "how-to" / "sources.md"):
        more = ["--budget", "10s"] if words[0] == "fit" else []
        status, _, err = handful(*words, *more)
        assert status == 0, (words, err)
    from pyarrow.parquet import read_table

    listed, merged = read_table("listed.parquet"), read_table("predictions.parquet")
    assert [name.removeprefix("photos/") for name in listed["file"].to_pylist()] == merged[
        "file"
    ].to_pylist()
    assert listed.drop(["file"]).equals(merged.drop(["file"]))
    assert len(read_table("features.parquet")) == 40
