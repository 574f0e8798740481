"""Merging, the static page, the notebook, and the command line."""

import json
import re
from pathlib import Path

import pytest

from handful import load
from handful.csv_files import read_csv
from handful.errors import HandfulError
from handful.labeling.label_table import write_labels
from handful.labeling.marks import Mark
from handful.labeling.merge import merge
from handful.labeling.static_page import export_page, page_of
from labeling.pages import folder, opened


def two_files(root: Path) -> list[Path]:
    one, two = root / "labels-ann.csv", root / "labels-bo.csv"
    blind = {"origin": "random", "seen": "blind"}
    write_labels(
        one,
        {"a": Mark("label", "cat", by="ann", **blind), "b": Mark("label", "cat", by="ann"),
         "c": Mark("unsure", by="ann")},
        {"a": "east"},
    )  # fmt: skip
    write_labels(
        two,
        {"a": Mark("label", "cat", "chosen", "suggested", "bo"),
         "b": Mark("label", "dog", by="bo"), "d": Mark("label", "dog", by="bo")},
        {},
    )  # fmt: skip
    return [one, two]


def test_what_two_annotators_disagree_on_has_no_label(tmp_path: Path) -> None:
    paths = two_files(tmp_path)
    found = merge(paths)
    labels = {name: mark.label for name, mark in found.marks.items()}
    assert labels == {"a": "cat", "b": None, "c": None, "d": "dog"}
    assert found.disagreements == {"b": {str(paths[0]): "cat", str(paths[1]): "dog"}}
    assert found.marks["a"] == Mark("label", "cat", "random", "blind", "ann bo")
    assert found.groups == {"a": "east"} and found.agreed == 1
    assert merge(paths[::-1]).marks == found.marks


def test_merge_refuses_a_file_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("id,diagnosis\n1,2\n")
    with pytest.raises(HandfulError, match="was not written by"):
        merge([tmp_path / "x.csv", tmp_path / "x.csv"])
    with pytest.raises(HandfulError, match="two label files"):
        merge([tmp_path / "x.csv"])


def test_the_command_merges_and_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from handful.cli import app

    words = ["labels", "merge", *map(str, two_files(tmp_path)), "--out", str(tmp_path / "m.csv")]
    app(words, standalone_mode=False)
    said = capsys.readouterr().out
    assert "b: 'cat' in" in said and "1 image differ" in said
    assert {row["file"]: row["label"] for row in read_csv(tmp_path / "m.csv")}["a"] == "cat"
    with pytest.raises(HandfulError, match="--overwrite"):
        app(words, standalone_mode=False)


def test_a_static_page_holds_pictures_and_no_markup_of_names(tmp_path: Path) -> None:
    source = folder(tmp_path / "photos", names=["</script><b>.png".replace("/", "_"), "b.png"])
    target = tmp_path / "page.html"
    assert export_page(str(source), target, ["</script><img onerror=1>", "猫"], 10) == 2
    text = target.read_text("utf-8")
    assert text.count("</script>") == 2 and "<img" not in text
    data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])  # type: ignore[index]
    assert data["classes"] == ["</script><img onerror=1>", "猫"]
    assert {image["file"] for image in data["images"]} == {"<_script><b>.png", "b.png"}
    assert all(image["picture"].startswith("data:image/png;base64,") for image in data["images"])
    assert "default-src 'none'" in text and "unsafe" not in text


def test_a_static_page_shows_the_random_sample(tmp_path: Path) -> None:
    source = folder(tmp_path / "photos", 30)
    export_page(str(source), tmp_path / "page.html", [], 5)
    text = (tmp_path / "page.html").read_text("utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])  # type: ignore[index]
    with opened(source) as page:
        expected = [page.session.names[n] for n in page.session.shuffled[:5]]
    assert [image["file"] for image in data["images"]] == expected


def test_the_scripts_of_a_static_page_are_allowed_by_their_hash() -> None:
    text = page_of([], [], "x")
    script = re.search(r'<script type="module">(.*)</script>', text, re.DOTALL)[1]  # type: ignore[index]
    import base64
    import hashlib

    expected = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{expected}'" in text


def test_a_notebook_gets_the_labels_while_the_page_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from handful.labeling import learner

    monkeypatch.setattr(learner.Learner, "start", lambda self: None)
    images = load(folder(tmp_path / "photos", 30), labeled=False)
    running = images.label(tmp_path / "labels.csv", classes=["cat"])
    try:
        assert running.address.startswith("http://127.0.0.1:")
        session = running._page.session
        item = {"number": session.shuffled[0], "kind": "label", "label": "cat", "seen": "blind"}
        session.answer("1", [item])
        found = running.images
        name = session.names[session.shuffled[0]]
        assert found.origins[name] == "random" and len(found.labeled) == 1
        assert found.classes == ("cat",)
    finally:
        assert len(running.close().labeled) == 1
    assert [row["label"] for row in read_csv(tmp_path / "labels.csv")] == ["cat"]


def test_the_page_is_there_before_torch(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path\n"
        "from handful.labeling.start import Wanted, open_page\n"
        "from handful.labeling.serve import listening_server, close\n"
        f"page = open_page(Wanted({str(folder(tmp_path / 'photos'))!r}, "
        f"Path({str(tmp_path / 'labels.csv')!r})))\n"
        "with listening_server(page, '127.0.0.1', 0) as (server, sockets, address):\n"
        "    page.photos.picture(0, 200)\n"
        "close(page)\n"
        "assert 'torch' not in sys.modules and 'scipy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
