"""`predict --into`: copies in class folders, and no file harmed.

Files hold a few bytes of text here: sorting does not decode images.
"""

import errno
import json
import os
from pathlib import Path

import pytest
from filelock import FileLock

from handful.cli.terminal import left_out_of, print_sorted
from handful.errors import HandfulError
from handful.pipeline.sorting import check_target, execute, sort_into_folders
from handful.pipeline.sorting.manifest import MANIFEST
from handful.pipeline.sorting.names import Kind, folder_names, portable

CLASSES = ("fox", "hare")


def put(root: Path, files: dict[str, str]) -> Path:
    """Write files, {path: text}."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def tree(root: Path) -> dict[str, str]:
    """Every file below `root` with its text, and empty folders; but not the manifest."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file() and name != MANIFEST:
            found[name] = path.read_text()
        elif path.is_dir() and not any(path.iterdir()):
            found[f"{name}/"] = ""
    return found


def states(root: Path) -> dict[Path, tuple[int, int, int]]:
    """What tells whether anything below `root` was written; not when it was read."""
    found = {path: path.stat() for path in root.rglob("*")}
    return {path: (s.st_ino, s.st_size, s.st_mtime_ns) for path, s in found.items()}


def sort(source, target, labels, classes=CLASSES, strange=(), **options):
    """Sort images with these labels, {name: class}."""
    reasons = ["none of these" if name in strange else "" for name in labels]
    return sort_into_folders(
        source, target, list(labels), list(labels.values()), reasons, classes, **options
    )


def test_a_second_card_with_the_same_names_is_sorted_beside_the_first(tmp_path):
    names = [f"IMG_{number}.JPG" for number in range(5)]
    for card in "ab":
        source = put(tmp_path / card, {name: card + name for name in names})
        found = sort(source, tmp_path / "to", dict.fromkeys(names, "fox"))
    assert len(found.numbered) == 5
    assert tree(tmp_path / "to") == {
        **{f"fox/IMG_{n}.JPG": f"aIMG_{n}.JPG" for n in range(5)},
        **{f"fox/IMG_{n} (2).JPG": f"bIMG_{n}.JPG" for n in range(5)},
    }


def test_a_card_that_is_mounted_where_another_was_replaces_nothing(tmp_path):
    for text in ("first", "second"):
        put(tmp_path / "card", {"1.jpg": text})
        sort(tmp_path / "card", tmp_path / "to", {"1.jpg": "fox"})
    assert tree(tmp_path / "to") == {"fox/1.jpg": "first", "fox/1 (2).jpg": "second"}


@pytest.mark.parametrize("name", ["../private/1.jpg", "a/../../private/1.jpg", "{whole}"])
def test_a_name_that_leads_out_of_the_source_is_refused(tmp_path, name):
    put(tmp_path / "private", {"1.jpg": "secret"})
    source = put(tmp_path / "from", {"1.jpg": "1"})
    name = name.format(whole=tmp_path / "private" / "1.jpg")
    with pytest.raises(HandfulError, match="is no file of"):
        sort(source, tmp_path / "to", {"1.jpg": "fox", name: "fox"})
    assert not list((tmp_path / "to").rglob("*.jpg"))


def test_the_same_call_again_changes_nothing(tmp_path):
    source = put(tmp_path / "from", {"1.jpg": "1", "2.jpg": "2"})
    labels = {"1.jpg": "fox", "2.jpg": "hare"}
    assert sort(source, tmp_path / "to", labels).counts() == {"copied": 2}
    before = states(tmp_path / "to")
    assert sort(source, tmp_path / "to", labels).counts() == {"already_there": 2}
    assert states(tmp_path / "to") == before


def test_a_newer_run_moves_what_was_put_and_touches_nothing_else(tmp_path):
    names = ["moves.jpg", "stays.jpg", "edited.jpg", "renamed.jpg"]
    source, target = put(tmp_path / "from", {name: name for name in names}), tmp_path / "to"
    sort(source, target, dict.fromkeys(names, "fox"))
    (target / "fox" / "renamed.jpg").rename(target / "fox" / "Bella.jpg")
    put(target, {"fox/edited.jpg": "edited by hand", "fox/own.jpg": "own", "own.txt": "own"})
    found = sort(source, target, {**dict.fromkeys(names, "hare"), "stays.jpg": "fox"})
    assert found.counts() == {"moved": 1, "already_there": 1, "copied": 2}
    assert tree(target) == {
        "fox/Bella.jpg": "renamed.jpg",
        "fox/edited.jpg": "edited by hand",
        "fox/own.jpg": "own",
        "fox/stays.jpg": "stays.jpg",
        "hare/edited.jpg": "edited.jpg",
        "hare/moves.jpg": "moves.jpg",
        "hare/renamed.jpg": "renamed.jpg",
        "own.txt": "own",
    }


def test_emptied_class_folders_go_if_handful_made_them(tmp_path):
    source, target = put(tmp_path / "from", {"1.jpg": "1", "2.jpg": "2"}), tmp_path / "to"
    (target / "hare").mkdir(parents=True)
    sort(source, target, {"1.jpg": "fox", "2.jpg": "hare"})
    sort(source, target, {"1.jpg": "owl", "2.jpg": "owl"}, classes=("owl",))
    assert tree(target) == {"hare/": "", "owl/1.jpg": "1", "owl/2.jpg": "2"}


def test_two_images_that_change_places_are_both_there(tmp_path):
    source, target = put(tmp_path / "from", {"a/1.jpg": "a", "b/1.jpg": "b"}), tmp_path / "to"
    sort(source / "a", target, {"1.jpg": "fox"})
    sort(source / "b", target, {"1.jpg": "hare"})
    sort(source / "a", target, {"1.jpg": "hare"})
    sort(source / "b", target, {"1.jpg": "fox"})
    assert tree(target) == {"fox/1.jpg": "b", "hare/1 (2).jpg": "a"}


@pytest.mark.parametrize("again", ["renamed", "from/b"])
def test_a_source_that_is_called_by_another_path_is_known_again(tmp_path, again):
    put(tmp_path / "from" / "b", {"1.jpg": "1"})
    sort(tmp_path / "from" / "b", tmp_path / "to", {"1.jpg": "fox"})
    if again == "renamed":
        (tmp_path / "from" / "b").rename(tmp_path / "renamed")
        sort(tmp_path / "renamed", tmp_path / "to", {"1.jpg": "hare"})
        assert tree(tmp_path / "to") == {"hare/1.jpg": "1"}
    else:
        sort(tmp_path / "from", tmp_path / "to", {"b/1.jpg": "fox"})
        assert tree(tmp_path / "to") == {"fox/1.jpg": "1"}


def test_the_same_content_is_not_copied_twice_and_stays_the_users(tmp_path):
    source = put(tmp_path / "from", {"1.jpg": "1"})
    target = put(tmp_path / "to", {"fox/1.jpg": "1"})
    assert sort(source, target, {"1.jpg": "fox"}).counts() == {"already_there": 1}
    assert tree(target) == {"fox/1.jpg": "1"}
    sort(source, target, {"1.jpg": "hare"})
    assert tree(target) == {"fox/1.jpg": "1", "hare/1.jpg": "1"}
    sort(source, target, {"1.jpg": "fox"})  # where it lies already
    assert tree(target) == {"fox/1.jpg": "1"}


def test_originals_of_one_flattened_name_or_one_content_have_a_copy_each(tmp_path):
    source = put(tmp_path / "from", {"a/b_c.jpg": "1", "a_b/c.jpg": "1", "a/b/c.jpg": "2"})
    labels = dict.fromkeys(["a/b/c.jpg", "a/b_c.jpg", "a_b/c.jpg"], "fox")
    for _ in range(2):
        sort(source, tmp_path / "to", labels)
        assert tree(tmp_path / "to") == {
            "fox/a_b_c.jpg": "2",
            "fox/a_b_c (2).jpg": "1",
            "fox/a_b_c (3).jpg": "1",
        }


def test_no_link_in_the_target_is_written_through(tmp_path):
    source = put(tmp_path / "from", {"1.jpg": "1", "2.jpg": "2", "3.jpg": "3"})
    out = put(tmp_path / "out", {"own.jpg": "own", "folder/1.jpg": "own"})
    target = tmp_path / "to"
    (target / "fox").mkdir(parents=True)
    (target / "fox" / "1.jpg").symlink_to(out / "own.jpg")
    (target / "fox" / "2.jpg").symlink_to(source / "2.jpg")  # the same content, but not a copy
    (target / "hare").symlink_to(out / "folder")
    sort(source, target, {"1.jpg": "fox", "2.jpg": "fox", "3.jpg": "hare"})
    assert tree(out) == {"own.jpg": "own", "folder/1.jpg": "own"}
    copies = {name: text for name, text in tree(target).items() if not text.startswith("->")}
    assert copies == {"fox/1 (2).jpg": "1", "fox/2 (2).jpg": "2", "hare (2)/3.jpg": "3"}
    sort(source, target, {"1.jpg": "hare", "2.jpg": "hare", "3.jpg": "hare"})
    assert tree(out) == {"own.jpg": "own", "folder/1.jpg": "own"}
    assert len(tree(target)) == 3 + 3


def test_a_link_in_the_source_to_a_copy_in_the_target_makes_no_second_copy(tmp_path):
    source = put(tmp_path / "from", {"1.jpg": "1"})
    sort(source, tmp_path / "to", {"1.jpg": "fox"})
    (source / "old").symlink_to(tmp_path / "to" / "fox")
    found = sort(source, tmp_path / "to", {"1.jpg": "fox", "old/1.jpg": "hare"})
    assert tree(tmp_path / "to") == {"fox/1.jpg": "1"}
    assert found.left_out == (("old/1.jpg", "a link to a copy in the target"),)


@pytest.mark.parametrize("into", ["", "sorted", "fox/deeper/still", "../link", "../link/sorted"])
def test_the_source_and_what_is_in_it_is_refused(tmp_path, into):
    source = put(tmp_path / "from", {"0.png": "loose", "fox/0.png": "original"})
    (tmp_path / "link").symlink_to(source)
    before = tree(tmp_path)
    with pytest.raises(HandfulError, match="lies in .*originals.*outside"):
        sort(source, source / into, {"0.png": "fox"})
    assert tree(tmp_path) == before


def test_the_folder_that_a_run_learned_from_is_refused(tmp_path):
    learned = put(tmp_path / "learned", {"fox/0.png": "labelled"})
    new = put(tmp_path / "new", {"1.png": "new"})
    check_target(new, tmp_path / "sorted", CLASSES, learned)
    for target in (learned, learned / "sorted"):
        with pytest.raises(HandfulError, match="trained on.*outside"):
            check_target(new, target, CLASSES, learned)
    check_target(new, tmp_path / "gone" / "sorted", CLASSES, tmp_path / "gone")


def test_a_target_above_the_source_is_taken_unless_a_class_folder_holds_the_source(tmp_path):
    put(tmp_path, {"incoming/1.jpg": "1", "fox/inner/1.jpg": "2", "fox/2.jpg": "2"})
    sort(tmp_path / "incoming", tmp_path, {"1.jpg": "hare"})
    assert (tmp_path / "hare" / "1.jpg").read_text() == "1"
    for inside in ("fox", "fox/inner", "fox/2.jpg"):
        with pytest.raises(HandfulError, match="where the copies of 'fox' go"):
            sort(tmp_path / inside, tmp_path, {"2.jpg": "hare"})


@pytest.mark.parametrize("kind", ["file", "pipe", "link to nothing", "below a file"])
def test_a_target_that_is_no_folder_is_refused(tmp_path, kind):
    source, target = put(tmp_path / "from", {"1.jpg": "1"}), tmp_path / "to"
    if kind == "pipe":
        os.mkfifo(target)
    elif kind == "link to nothing":
        target.symlink_to(tmp_path / "nothing")
    else:
        target.write_text("own")
    place = target / "deeper" if kind == "below a file" else target
    with pytest.raises(HandfulError, match="is a file, or a link to nothing; give a folder"):
        sort(source, place, {"1.jpg": "fox"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["from", "to"]


def test_a_single_file_is_sorted_beside_itself(tmp_path):
    put(tmp_path, {"1.jpg": "1"})
    sort(tmp_path / "1.jpg", tmp_path / "sorted", {"1.jpg": "fox"})
    assert tree(tmp_path / "sorted") == {"fox/1.jpg": "1"}


class Full:
    """A file on a disk that gets full after some bytes."""

    def __init__(self, descriptor, mode, room):
        self.file, self.room = os.fdopen(descriptor, mode), room

    def write(self, data):
        self.file.write(data[: self.room])
        if len(data) > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)


@pytest.mark.parametrize("manifest", ["fits", "does not fit"])
def test_a_full_disk_leaves_no_part_and_names_the_target(tmp_path, monkeypatch, manifest):
    source = put(tmp_path / "from", {"1.jpg": "1", "2.jpg": "22222", "3.jpg": "3"})
    target, labels = tmp_path / "to", dict.fromkeys(["1.jpg", "2.jpg", "3.jpg"], "fox")

    def full_open(file, mode):
        if manifest != "fits":
            monkeypatch.setattr("handful.pipeline.sorting.manifest.write_json", no_room)
        return Full(file, mode, room=2)

    def no_room(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(execute, "open", full_open, raising=False)
        with pytest.raises(HandfulError) as told:
            sort(source, target, labels)
    monkeypatch.undo()
    assert f"cannot sort into {target}: no space is left; 1 images are sorted" in str(told.value)
    assert str(source) not in str(told.value)
    assert tree(target) == {"fox/1.jpg": "1"}
    assert sort(source, target, labels).counts() == {"already_there": 1, "copied": 2}
    sort(source, target, dict.fromkeys(labels, "hare"))  # the first copy is in the manifest, too
    assert tree(target) == {"hare/1.jpg": "1", "hare/2.jpg": "22222", "hare/3.jpg": "3"}


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path, monkeypatch):
    source, target = put(tmp_path / "from", {"1.jpg": "1"}), tmp_path / "to"
    link = os.link

    def late(old, new):
        put(target, {"fox/1.jpg": "another's"})
        link(old, new)

    monkeypatch.setattr(os, "link", late)
    found = sort(source, target, {"1.jpg": "fox"})
    assert tree(target) == {"fox/1.jpg": "another's", "fox/1 (2).jpg": "1"}
    assert [step.place for step in found.numbered] == ["fox/1 (2).jpg"]
    (entry,) = json.loads((target / MANIFEST).read_text())["files"]
    assert entry["place"] == "fox/1 (2).jpg"


def test_a_disk_without_hard_links_is_sorted_into_all_the_same(tmp_path, monkeypatch):
    def refuse(old, new):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    source, target = put(tmp_path / "from", {"1.jpg": "1"}), tmp_path / "to"
    put(target, {"hare/1.jpg": "own"})
    sort(source, target, {"1.jpg": "fox"})
    sort(source, target, {"1.jpg": "hare"})
    assert tree(target) == {"hare/1.jpg": "own", "hare/1 (2).jpg": "1"}


def test_a_name_that_the_file_system_refuses_is_changed_and_said(tmp_path, monkeypatch):
    source, target = put(tmp_path / "from", {"12:30.jpg": "1", "12_30.jpg": "2"}), tmp_path / "to"
    link = os.link

    def as_on_a_memory_card(old, new):
        if ":" in Path(new).name:
            raise OSError(errno.EINVAL, "Invalid argument")
        link(old, new)

    monkeypatch.setattr(os, "link", as_on_a_memory_card)
    monkeypatch.setattr(os, "rename", as_on_a_memory_card)
    for _ in range(2):
        found = sort(source, target, {"12:30.jpg": "fox", "12_30.jpg": "fox"})
        assert tree(target) == {"fox/12_30.jpg": "2", "fox/12_30 (2).jpg": "1"}
    assert found.counts() == {"already_there": 2}


def test_names_that_are_too_long_are_shortened_and_said(tmp_path):
    long = {f"{'é' * 100}/{'b' * 100}-{number}.jpg": str(number) for number in range(2)}
    source = put(tmp_path / "from", long)
    label = "c" * 300
    found = sort(source, tmp_path / "to", dict.fromkeys(long, label), classes=(label,))
    assert len(found.shortened) == 2 and not found.numbered
    assert list(found.renamed.values()) == ["c" * 255]
    copies = tree(tmp_path / "to")
    assert list(copies.values()) == ["0", "1"]
    assert all(name.endswith(f"{'b' * 100}-{text}.jpg") for name, text in copies.items())
    assert sort(source, tmp_path / "to", dict.fromkeys(long, label), (label,)).counts() == {
        "already_there": 2
    }


def test_what_is_said_of_a_sort_shows_names_as_they_are(tmp_path, capsys):
    """Without quotes and doubled backslashes; what a terminal obeys is escaped."""
    name = "it's \x1b[31m 猫.jpg"
    source = put(tmp_path / "from", {name: "1", "b.jpg": "2"})
    put(tmp_path / "to" / "it's_ fox_", {name: "other"})
    label = "it's: fox?"
    found = sort(
        source, tmp_path / "to", {name: label, "b.jpg": label, "gone's.jpg": label}, (label,)
    )
    print_sorted(found)
    told = capsys.readouterr().out
    assert "  it's_ fox_/ (it's: fox?): 2 copied" in told
    assert r"as another file has the name: it's_ fox_/it's \x1b[31m 猫 (2).jpg" in told
    assert left_out_of(found) == ["not sorted: gone's.jpg: vanished before it was copied"]


def test_long_names_that_become_one_are_numbered(tmp_path):
    names = {f"{letter}/{'b' * 251}.jpg": letter for letter in "xy"}
    sort(put(tmp_path / "from", names), tmp_path / "to", dict.fromkeys(names, "fox"))
    assert tree(tmp_path / "to") == {
        f"fox/{'b' * 251}.jpg": "x",
        f"fox/{'b' * 247} (2).jpg": "y",
    }


def test_a_target_too_deep_for_any_name_is_refused_before_anything_is_written(tmp_path):
    source, target = put(tmp_path / "from", {"1.jpg": "1"}), tmp_path / "to"
    deep = target.joinpath(*["d" * 200] * 20)
    with pytest.raises(HandfulError, match="path of .* is so long"):
        sort(source, deep, {"1.jpg": "fox"})
    assert not target.exists()


def test_classes_stay_in_folders_apart(tmp_path):
    classes = ("a/b", "a_b", "a:b", "A_B", "no answer", "CON", "x.", "x", "..", "none of these")
    names = {f"{number}.jpg": str(number) for number in range(len(classes) + 2)}
    labels = dict(zip(names, [*classes, "", ""], strict=True))
    source = put(tmp_path / "from", names)
    found = sort(source, tmp_path / "to", labels, classes, strange=["11.jpg"])
    assert {name: kind.name for kind, name in found.folders.items()} == {
        "a_b": "a_b",
        "A_B (2)": "A_B",
        "a_b (3)": "a/b",
        "a_b (4)": "a:b",
        "no answer": "no answer",
        "_CON": "CON",
        "x": "x",
        "x (2)": "x.",
        "_": "..",
        "none of these": "none of these",
        "none of these (2)": "none of these",
        "no answer (2)": "no answer",
    }
    assert sorted(tree(tmp_path / "to").values(), key=int) == list(names.values())
    assert len({Path(name).parent for name in tree(tmp_path / "to")}) == len(names)


def test_a_class_keeps_its_folder_when_other_classes_come(tmp_path):
    source, target = put(tmp_path / "from", {"1.jpg": "1", "2.jpg": "2"}), tmp_path / "to"
    sort(source, target, {"1.jpg": "a/b"}, classes=("a/b",))
    sort(source, target, {"1.jpg": "a/b", "2.jpg": "a_b"}, classes=("a/b", "a_b"))
    assert tree(target) == {"a_b/1.jpg": "1", "a_b (2)/2.jpg": "2"}


def test_a_file_that_is_called_like_a_class_stays(tmp_path):
    source = put(tmp_path / "from", {"1.jpg": "1"})
    target = put(tmp_path / "to", {"fox": "own"})
    sort(source, target, {"1.jpg": "fox"})
    assert tree(target) == {"fox": "own", "fox (2)/1.jpg": "1"}


@pytest.mark.parametrize("name", ["con", "NUL.txt", "Lpt1", "COM¹.jpg", "aux .x", "conin$"])
def test_names_that_windows_reserves_are_changed(name):
    assert portable(name) == f"_{name}"


@pytest.mark.parametrize("name", ["console", "com", "com10.jpg", "nulls", "a.con"])
def test_names_that_are_like_those_are_not(name):
    assert portable(name) == name


def test_classes_whose_letters_are_composed_otherwise_have_folders_apart():
    kinds = [Kind("class", name) for name in ("é", "e\u0301")]
    folders = folder_names(kinds, {}, lambda name: True, 255)
    assert list(folders.values()) == ["é", "e\u0301 (2)"]


def test_a_dry_run_says_what_a_run_does_and_changes_nothing(tmp_path):
    source = put(tmp_path / "from", {"1.jpg": "1", "2.jpg": "2", "3.jpg": "3"})
    target = put(tmp_path / "to", {"hare/3.jpg": "own"})
    sort(source, target, {"1.jpg": "fox", "2.jpg": "hare"})
    labels = {"1.jpg": "hare", "2.jpg": "hare", "3.jpg": "hare"}
    before = states(tmp_path)
    promised = sort(source, target, labels, dry_run=True)
    sort(source, tmp_path / "new", labels, dry_run=True)
    assert states(tmp_path) == before
    done = sort(source, target, labels)
    assert promised.counts() == {"moved": 1, "already_there": 1, "copied": 1}
    assert promised.as_json() == {**done.as_json(), "dry_run": True}


def test_what_vanishes_or_cannot_be_read_is_listed_and_the_rest_is_done(tmp_path, monkeypatch):
    source = put(tmp_path / "from", {f"{n}.jpg": str(n) for n in range(4)})
    (source / "0.jpg").unlink()
    (source / "1.jpg").unlink()
    os.mkfifo(source / "1.jpg")
    opened = execute.open_regular

    def vanished(path):
        if path.name == "2.jpg":
            path.unlink()
        return opened(path)

    monkeypatch.setattr(execute, "open_regular", vanished)
    found = sort(
        source, tmp_path / "to", dict.fromkeys(["0.jpg", "1.jpg", "2.jpg", "3.jpg"], "fox")
    )
    assert tree(tmp_path / "to") == {"fox/3.jpg": "3"}
    assert dict(found.left_out) == {
        "0.jpg": "vanished before it was copied",
        "1.jpg": "cannot be read: not a regular file",
        "2.jpg": "vanished before it was copied",
    }


def test_an_original_that_changes_while_it_is_copied_is_left_for_the_next_time(
    tmp_path, monkeypatch
):
    source, opened = put(tmp_path / "from", {"1.jpg": "1"}), execute.open_regular

    def changed(path):
        path.write_text("changed")
        return opened(path)

    with monkeypatch.context() as patched:
        patched.setattr(execute, "open_regular", changed)
        found = sort(source, tmp_path / "to", {"1.jpg": "fox"})
    assert found.left_out == (("1.jpg", "changed while it was copied"),)
    assert tree(tmp_path / "to") == {}
    sort(source, tmp_path / "to", {"1.jpg": "fox"})
    assert tree(tmp_path / "to") == {"fox/1.jpg": "changed"}


def test_a_copy_keeps_the_time_of_its_original(tmp_path):
    source = put(tmp_path / "from", {"1.jpg": "1"})
    os.utime(source / "1.jpg", ns=(10**18, 10**18))
    sort(source, tmp_path / "to", {"1.jpg": "fox"})
    assert (tmp_path / "to" / "fox" / "1.jpg").stat().st_mtime_ns == 10**18


def damaged(**changes):
    entry = {"place": "fox/1.jpg", "source": "/s", "name": "1.jpg", "bytes": 1, "sha256": "0" * 64}
    return json.dumps({"version": 1, "folders": [], "files": [{**entry, **changes}]})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 100_000,
        '{"version": 2, "folders": [], "files": []}',
        '{"version": 1, "folders": [{"folder": ".."}], "files": []}',
        '{"version": 1, "folders": 3, "files": []}',
        damaged(place="../1.jpg"),
        damaged(place="/etc/passwd"),
        damaged(place="fox/.."),
        damaged(place="fox/a/b"),
        damaged(place="fox/a\0"),
        damaged(place=3),
        damaged(was=["../../x"]),
        damaged(bytes=-1),
        damaged(bytes=True),
        damaged(sha256="0"),
        damaged(extra=1),
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path, text):
    source = put(tmp_path / "from", {"1.jpg": "1"})
    target = put(tmp_path / "to", {MANIFEST: text})
    with pytest.raises(HandfulError, match="damaged or was not written by handful.*delete it"):
        sort(source, target, {"1.jpg": "fox"})
    assert tree(target) == {}
    assert (target / MANIFEST).read_text() == text


def test_a_manifest_or_lock_that_is_a_link_is_not_followed(tmp_path):
    source = put(tmp_path / "from", {"1.jpg": "1"})
    own = put(tmp_path / "own", {"text": "own"})
    for name, message in ((MANIFEST, "no regular file"), (execute.LOCK, "is no lock of handful")):
        target = tmp_path / name[1:]
        target.mkdir()
        (target / name).symlink_to(own / "text")
        with pytest.raises(HandfulError, match=message):
            sort(source, target, {"1.jpg": "fox"})
    assert tree(own) == {"text": "own"}


def test_a_strangers_manifest_moves_no_file_with_other_content(tmp_path):
    source = put(tmp_path / "from", {"1.jpg": "1"})
    sort(source, tmp_path / "theirs", {"1.jpg": "fox"})
    manifest = (tmp_path / "theirs" / MANIFEST).read_text()
    mine = put(tmp_path / "mine", {MANIFEST: manifest, "fox/1.jpg": "my own"})
    sort(source, mine, {"1.jpg": "hare"})
    assert tree(mine) == {"fox/1.jpg": "my own", "hare/1.jpg": "1"}


def test_a_second_process_is_refused_while_the_first_one_sorts(tmp_path):
    source = put(tmp_path / "from", {"1.jpg": "1"})
    (tmp_path / "to").mkdir()
    with FileLock(tmp_path / "to" / execute.LOCK):
        with pytest.raises(HandfulError, match="another process sorts into .* now"):
            sort(source, tmp_path / "to", {"1.jpg": "fox"})
    assert not (tmp_path / "to" / "fox").exists()
    assert not (tmp_path / "to" / MANIFEST).exists()


def test_names_that_are_no_unicode_are_copied_byte_for_byte(tmp_path):
    name = os.fsdecode(b"photo\xff.jpg")
    source = put(tmp_path / "from", {name: "1"})
    for label in ("fox", "hare"):
        sort(source, tmp_path / "to", {name: label})
    assert [os.fsencode(p.name) for p in (tmp_path / "to" / "hare").iterdir()] == [b"photo\xff.jpg"]
    assert not (tmp_path / "to" / "fox").exists()
