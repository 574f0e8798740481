import html
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from rich.console import Console

from handful.data import near_duplicates as near_module
from handful.data.checks import check
from handful.data.findings import skipped_summary
from handful.data.near_duplicates import near_duplicates
from handful.data.sources import load
from handful.data.store import Skipped
from handful.report.data_page import render, write_page
from handful.report.data_summary import near_note, summary
from image_files import class_folder, noise, save, smooth


def kinds(findings):
    return [problem.kind for problem in findings.problems]


def text(findings, kind):
    [found] = [problem.text for problem in findings.problems if problem.kind == kind]
    return found


def test_a_sound_folder_has_counts_and_no_problem(tmp_path):
    class_folder(tmp_path / "train", per_class=4)
    save(tmp_path / "train" / "loose.png", seed=70)
    save(tmp_path / "test" / "dog" / "a.png", seed=71)
    findings = check(load(tmp_path))
    assert (findings.images, findings.labeled, findings.unlabeled, findings.test) == (9, 8, 1, 1)
    assert [tuple(vars(count).values()) for count in findings.classes] == [
        ("cat", 4, 0), ("dog", 4, 1)
    ]  # fmt: skip
    assert findings.smallest == findings.median == findings.largest == (12, 10)
    assert findings.grey == 0
    assert findings.problems == () and findings.identical == () and findings.near == ()


def test_everything_found_is_json(tmp_path):
    class_folder(tmp_path)
    save(tmp_path / "cat" / "copy.png", seed=1)
    (tmp_path / "cat" / "bad.png").touch()
    found = json.loads(json.dumps(check(load(tmp_path)).as_json()))
    assert found["skipped"] == [{"name": "cat/bad.png", "reason": "empty file (0 bytes)"}]
    assert [member["name"] for member in found["identical"][0]["members"]] == [
        "cat/1.png", "cat/copy.png"
    ]  # fmt: skip
    assert found["classes"][0] == {"name": "cat", "labeled": 4, "test": 0}
    assert check(load(tmp_path), near=False).as_json()["near"] is None


def test_identical_images_are_found_within_and_across_parts_and_with_other_labels(tmp_path):
    class_folder(tmp_path / "train")
    save(tmp_path / "train" / "dog" / "stray.png", seed=0)  # cat/0.png, called a dog
    save(tmp_path / "unlabeled" / "again.bmp", seed=1)  # cat/1.png, in another format
    save(tmp_path / "test" / "dog" / "known.png", seed=1002)  # train/dog/2.png
    findings = check(load(tmp_path, keep_leaks=True))
    found = {
        tuple(member.name for member in same.members): (same.across_test, same.conflicting)
        for same in findings.identical
    }
    assert found == {
        ("train/cat/0.png", "train/dog/stray.png"): (False, True),
        ("train/cat/1.png", "unlabeled/again.bmp"): (False, False),
        ("train/dog/2.png", "test/dog/known.png"): (True, False),
    }
    assert kinds(findings) == ["leak", "conflict", "copies"]
    assert text(findings, "leak") == (
        "1 image to train on is pixel for pixel in the test part too, such as train/dog/2.png "
        "(dog) and test/dog/known.png (dog); fit leaves them out"
    )
    assert text(findings, "conflict") == (
        "1 set of identical images with different labels, such as train/cat/0.png (cat) and "
        "train/dog/stray.png (dog)"
    )
    assert text(findings, "copies") == (
        "2 images are an exact copy of another, such as train/cat/0.png (cat) and "
        "train/dog/stray.png (dog); copies stay in one fold"
    )
    without = check(load(tmp_path))
    assert kinds(without) == ["skipped", "conflict", "copies"]
    assert text(without, "skipped") == (
        "1 left out: 1 same pixels as a test image; the first is train/dog/2.png "
        "(same pixels as a test image: test/dog/known.png)"
    )


def test_a_recompressed_and_a_resized_copy_are_near_duplicates(tmp_path):
    for seed in range(8):
        save(tmp_path / "ab"[seed % 2] / f"{seed}.png", smooth(64, 48, seed=seed))
    photo = Image.fromarray(smooth(64, 48, seed=3))
    photo.save(tmp_path / "a" / "pressed.jpg", quality=40)
    photo.resize((30, 40)).save(tmp_path / "b" / "small.png")
    findings = check(load(tmp_path))
    names = [{pair.first.name, pair.second.name} for pair in findings.near]
    assert len(names) in (2, 3)
    assert set.union(*names) == {"b/3.png", "a/pressed.jpg", "b/small.png"}
    assert all(pair.likeness > 0.95 and not pair.across_test for pair in findings.near)
    assert re.fullmatch(
        r"\d pairs of images look almost the same, .*; all kept", text(findings, "near")
    )
    assert findings.identical == ()


def slow_nearest(x, count):
    """The positions of the nearest others, one after the other."""
    agree = (x @ x.T).tolist()
    for one, row in enumerate(agree):
        others = sorted((at for at in range(len(x)) if at != one), key=lambda at: -row[at])
        yield others[:count]


def close_directions():
    """(200, 63); the nearest of most of them agree so much that bfloat16 errs."""
    draw = torch.Generator().manual_seed(0)
    few = torch.randn(15, 63, generator=draw)
    near = few.repeat(10, 1) + torch.randn(150, 63, generator=draw) / 10
    return F.normalize(torch.cat([torch.randn(50, 63, generator=draw), near]))


SMALL = {"BLOCK": 64, "TILE": 2048, "GROUP": 32, "GROUPS": 32, "AGREEMENTS": 2**25}


@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize(
    "changed",
    [
        {"BLOCK": 3},
        {"BLOCK": 7},
        {"TILE": 64, "BLOCK": 50},
        {"TILE": 8, "GROUP": 4},
        {"GROUPS": 5},  # most images are compared with all
        {"GROUPS": 5, "AGREEMENTS": 5},
        {"TILE": 32, "GROUP": 4, "GROUPS": 6, "AGREEMENTS": 1000},
    ],
    ids=str,
)
def test_the_nearest_others_are_found_whatever_the_block(monkeypatch, changed, bf16):
    for name, value in {**SMALL, **changed}.items():
        monkeypatch.setattr(near_module, name, value)
    monkeypatch.setattr(near_module, "has_bf16", lambda: bf16)
    x = close_directions()
    partners = near_module._nearest(x, 4, lambda items, *_: items)
    assert partners.tolist() == list(slow_nearest(x, 4))


@pytest.mark.parametrize("images", [6, 31, 32, 33, 65])
def test_images_that_all_disagree_have_their_nearest(monkeypatch, images):
    """What fills up the last group is never nearer than they are."""
    for name, value in {"TILE": 16, "GROUP": 2, "GROUPS": 6}.items():
        monkeypatch.setattr(near_module, name, value)
    draw = torch.Generator().manual_seed(0)
    corners = torch.eye(images) - 1 / images  # all disagree alike
    x = F.normalize(corners + torch.randn(images, images, generator=draw) / images**2)
    assert (x @ x.T).fill_diagonal_(-1).max() < 0
    partners = near_module._nearest(x, 4, lambda items, *_: items)
    assert partners.tolist() == list(slow_nearest(x, 4))


BLOBS = {"OF_MANY": 400, "CELL": 40, "LARGEST": 80, "GROUP": 4}


def blobs(spread=0.2):
    """(2000, 63) around 60 places, and the last 100 are nearly the first 100."""
    draw = torch.Generator().manual_seed(0)
    places = torch.randn(60, 63, generator=draw)
    some = places[torch.arange(1900) % 60] + spread * torch.randn(1900, 63, generator=draw)
    return F.normalize(torch.cat([some, some[:100] + torch.randn(100, 63, generator=draw) / 100]))


@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize("spread", [0.2, 2.0])
def test_of_many_images_nearly_all_neighbours_are_found(monkeypatch, spread, bf16):
    for name, value in BLOBS.items():
        monkeypatch.setattr(near_module, name, value)
    monkeypatch.setattr(near_module, "has_bf16", lambda: bf16)
    x = blobs(spread)
    partners = near_module._nearest(x, 4, near_module.quiet, near_module._cells(x))
    expected = torch.tensor(list(slow_nearest(x, 4)))
    found = (partners[:, :, None] == expected[:, None]).any(1).float().mean()
    assert found > (0.98 if spread == 0.2 else 0.6)
    copies = torch.arange(100)
    assert partners[copies, 0].equal(1900 + copies) and partners[1900 + copies, 0].equal(copies)
    assert (partners != torch.arange(2000)[:, None]).all()
    assert all(len(set(row)) == 4 for row in partners.tolist())


def test_cells_that_are_all_compared_miss_nothing(monkeypatch):
    for name, value in {**BLOBS, "OF_MANY": 2_000}.items():
        monkeypatch.setattr(near_module, name, value)
    x = blobs(2.0)
    partners = near_module._nearest(x, 4, near_module.quiet, near_module._cells(x))
    assert partners.tolist() == list(slow_nearest(x, 4))


@pytest.mark.parametrize("equal", [True, False])
def test_cells_hold_every_image_once_and_none_is_too_large(monkeypatch, equal):
    for name, value in BLOBS.items():
        monkeypatch.setattr(near_module, name, value)
    x = F.normalize(torch.ones(2000, 63)) if equal else blobs()
    cells = near_module._cells(x)
    assert torch.cat(cells).sort().values.equal(torch.arange(2000))
    assert max(map(len, cells)) <= 80


def test_a_small_part_of_a_cell_takes_the_images_of_the_nearest_parts(monkeypatch):
    monkeypatch.setattr(near_module, "FEWEST", 40)
    own = torch.Generator().manual_seed(0)
    places = F.normalize(torch.randn(3, 63, generator=own))
    places[1] = F.normalize(places[0] + 0.1 * places[1], dim=0)  # the nearest of the first
    x = F.normalize(places.repeat_interleave(30, 0) + torch.randn(90, 63, generator=own) / 100)
    kinds = near_module._Kinds(x, torch.arange(90).split(30))
    assert [kinds.around(number).sort().values.tolist() for number in (0, 1)] == 2 * [[*range(60)]]
    monkeypatch.setattr(near_module, "FEWEST", 1_000)
    assert kinds.around(2).sort().values.equal(torch.arange(90))


def test_it_is_said_that_not_all_images_were_compared(monkeypatch, tmp_path):
    for seed in range(6):
        save(tmp_path / "ab"[seed % 2] / f"{seed}.png", smooth(40, 40, seed=seed))
    assert check(load(tmp_path)).near_compared is None
    monkeypatch.setattr(near_module, "COMPARED", 5)
    monkeypatch.setattr(near_module, "OF_MANY", 3)
    findings = check(load(tmp_path))
    assert findings.as_json()["near_compared"] == 3
    assert near_note(findings) == (
        "Near-duplicates: of so many images, each is compared only with the 3 that are likeliest "
        "to look like it, so a few may be missing."
    )
    assert check(load(tmp_path), near=False).near_compared is None


def test_flat_images_do_not_count_as_compared(monkeypatch, tmp_path):
    """They are compared with none, so all others may still be compared with all."""
    for seed in range(6):
        picture = smooth(40, 40, seed=seed) if seed < 5 else np.full((40, 40, 3), 9, np.uint8)
        save(tmp_path / "ab"[seed % 2] / f"{seed}.png", picture)
    monkeypatch.setattr(near_module, "COMPARED", 5)
    assert check(load(tmp_path)).near_compared is None
    monkeypatch.setattr(near_module, "COMPARED", 4)
    monkeypatch.setattr(near_module, "OF_MANY", 3)
    assert check(load(tmp_path)).near_compared == 3


def test_bfloat16_alone_would_err():
    """So the test above is also one of rounding."""
    x = close_directions()
    agree = (x.bfloat16() @ x.bfloat16().T).float().fill_diagonal_(-1)
    assert agree.topk(4).indices.tolist() != list(slow_nearest(x, 4))


@pytest.mark.parametrize("groups", [5, 32])
def test_equal_pictures_have_partners(monkeypatch, groups):
    """Each of many equal pictures has others, and never itself."""
    monkeypatch.setattr(near_module, "GROUPS", groups)
    found = near_module._nearest(F.normalize(torch.ones(3000, 63)), 4, near_module.quiet)
    assert found.shape == (3000, 4) and (found != torch.arange(3000)[:, None]).all()
    assert all(len(set(row)) == 4 for row in found.tolist())


def test_pairs_are_those_of_comparing_all_partners_wholly(monkeypatch):
    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand(300, 1, 6, 6, generator=draw) * 255
    pictures = F.interpolate(coarse, (34, 34), mode="bicubic").clamp(0, 255).byte()
    moved = pictures[:100, :, 2:34, 1:33]
    noise = torch.randn(100, 1, 32, 32, generator=draw) * torch.arange(100).view(-1, 1, 1, 1)
    noisy = (pictures[100:200, :, 1:33, 1:33] + noise).clamp(0, 255).byte()
    pictures = torch.cat([pictures[..., 1:33, 1:33], moved, noisy])
    found = near_duplicates(pictures)
    asked = []

    def all_of_them(pictures, first, *_):
        asked.append(len(first))
        return torch.ones(len(first), dtype=torch.bool)

    monkeypatch.setattr(near_module, "may_be_alike", all_of_them)
    assert found == near_duplicates(pictures) and asked == [4 * 500]
    assert {pair[:2] for pair in found} >= {(one, 300 + one) for one in range(100)}
    assert 20 < sum(two >= 400 for _, two, _ in found) < 80  # some copies are too noisy


def test_pictures_alike_by_nature_are_not_near_duplicates():
    rng = np.random.default_rng(0)
    kind = smooth(32, 32, seed=1)[..., 0].astype(float)
    pictures = np.stack([kind + rng.normal(0, 12, kind.shape) for _ in range(40)])
    pictures[7] = pictures[30] + rng.normal(0, 1, kind.shape)
    pictures = torch.from_numpy(pictures.clip(0, 255).astype(np.uint8))[:, None]
    assert [pair[:2] for pair in near_duplicates(pictures)] == [(7, 30)]


def test_flat_and_few_pictures_have_no_near_duplicates():
    assert near_duplicates(torch.full((5, 1, 32, 32), 9, dtype=torch.uint8)) == []
    assert near_duplicates(torch.zeros(0, 1, 32, 32, dtype=torch.uint8)) == []


def test_few_labels_imbalance_and_look_alike_names_are_problems(tmp_path):
    class_folder(tmp_path, per_class=20, classes=("cat",))
    class_folder(tmp_path, per_class=1, classes=("Cat ", "dog"))
    with pytest.warns(UserWarning, match="classes that differ in spelling only: 'Cat', 'cat'"):
        findings = check(load(tmp_path), near=False)
    assert text(findings, "few") == "fewer than 2 labels in class Cat (1), dog (1)"
    assert text(findings, "imbalance") == "class cat has 20 labels and class Cat has 1"
    assert text(findings, "spelling") == (
        "classes that differ in spelling only: 'Cat', 'cat'; if they are one, give them one name"
    )


def test_unusual_sizes_and_shapes_are_a_problem(tmp_path):
    class_folder(tmp_path, per_class=10)
    save(tmp_path / "cat" / "long.png", noise(3, 60, seed=90))
    save(tmp_path / "cat" / "dot.png", noise(1, 1, seed=91))
    findings = check(load(tmp_path), near=False)
    assert {odd.name for odd in findings.odd} == {"cat/long.png", "cat/dot.png"}
    assert text(findings, "odd") == (
        "2 images of unusual size or shape, such as cat/dot.png (1 x 1)"
    )
    assert (findings.smallest, findings.largest) == ((1, 1), (3, 60))


def test_groups_across_the_test_boundary_are_a_problem(tmp_path):
    names = ["train/a.png", "train/b.png", "test/c.png"]
    for seed, name in enumerate(names):
        save(tmp_path / name, seed=seed)
    table = tmp_path / "labels.csv"
    table.write_text("file,label,group\ntrain/a.png,x,ann\ntrain/b.png,y,bob\ntest/c.png,x,ann\n")
    findings = check(load(tmp_path, table), near=False)
    assert text(findings, "groups") == (
        "1 groups have images in the training and in the test part; the test result will be too "
        "good"
    )


def test_skipped_files_are_counted_by_reason():
    skipped = [Skipped("a", "damaged: cut"), Skipped("b", "permission denied"),
               Skipped("c", "damaged: torn")]  # fmt: skip
    assert skipped_summary(skipped) == "3 left out: 2 damaged, 1 permission denied"


def test_the_public_digits_are_sound():
    findings = check(load("digits"), near=False)
    assert findings.grey == 1797 and findings.problems == ()


@pytest.fixture
def awkward(tmp_path):
    """Images whose names and classes would break a page that does not escape them."""
    class_folder(tmp_path, classes=("<script>alert(1)", "[red]dog & cat"))
    save(tmp_path / "[red]dog & cat" / "\udce9 copy.png", seed=1001)
    (tmp_path / "<b>.png").touch()
    return load(tmp_path)


def test_the_screen_shows_counts_and_problems(awkward):
    console = Console(width=120, record=True, file=open("/dev/null", "w"))
    with console.file:
        console.print(summary(check(awkward)))
    shown = console.export_text()
    assert "7 images (7 labelled, 0 unlabelled)" in shown
    assert "[red]dog & cat" in shown and "! 1 left out: 1 empty file (0 bytes)" in shown


class Tables(HTMLParser):
    """Parses the cells of every table by its id, and every address in the page."""

    def __init__(self):
        super().__init__()
        self.tables, self.addresses, self.tags = {}, [], set()
        self._table = None

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.add(tag)
        self.addresses += [attributes[key] for key in ("src", "href") if key in attributes]
        if tag == "table":
            self._table = self.tables.setdefault(attributes["id"], [])
        elif tag == "tr":
            self._table.append([])
        elif tag in ("td", "th"):
            self._table[-1].append("")

    def handle_endtag(self, tag):
        if tag == "table":
            self._table = None

    def handle_data(self, data):
        if self._table and self._table[-1]:
            self._table[-1][-1] += data.strip()


def test_the_page_is_escaped_whole_and_needs_no_network(awkward, tmp_path):
    findings = check(awkward)
    write_page(findings, awkward, tmp_path / "out" / "data.html")
    text = (tmp_path / "out" / "data.html").read_text(encoding="utf-8")
    page = Tables()
    page.feed(text)
    assert "script" not in page.tags and "link" not in page.tags
    pictures = [at for at in page.addresses if not at.startswith("#")]
    assert pictures and all(at.startswith("data:image/jpeg;base64,") for at in pictures)
    assert page.tables["by-folder"] == [
        ["folder", "images", "taken for"],
        ["[red]dog & cat/", "4", "class [red]dog & cat"],
        ["<script>alert(1)/", "3", "class <script>alert(1)"],
    ]
    assert page.tables["left-out"][1] == ["<b>.png", "empty file (0 bytes)"]
    assert "to test on" not in text  # there is no test part: no empty column
    assert "prefers-color-scheme: dark" in text
    assert html.escape(findings.hash) in text


def test_the_page_shows_examples_duplicates_and_look_alikes(tmp_path):
    class_folder(tmp_path, per_class=12)
    save(tmp_path / "cat" / "copy.png", seed=1)
    images = load(tmp_path)
    text = render(check(images), images)
    assert text.count("<img") == 24 + 2 * 8 + 2  # random ones, of each class, and the copies
    assert "Identical images" in text
    assert '<div class="file">cat/copy.png</div>' in text


def test_the_page_says_what_sub_folders_were_taken_for(tmp_path):
    folders = ["train/cat", "train/dog", "train/unlabeled", "test/cat", "test/dog"]
    for number, name in enumerate(folders * 3):
        save(tmp_path / name / f"{number}.png", seed=100 + number)
    images = load(tmp_path)
    page = Tables()
    page.feed(render(check(images), images))
    found = {row[0]: row[1:] for row in page.tables["by-folder"][1:]}
    assert found["train/cat/"] == ["3", "class cat"]
    assert found["train/unlabeled/"] == ["3", "no label"]
    assert found["test/dog/"][1] == "test part, class dog"
