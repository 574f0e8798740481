import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from handful.csv_files import read_csv
from handful.data.source_names import default_run_folder
from handful.errors import HandfulError
from handful.labeling.fitting import RUNS
from handful.labeling.serve import check_host, close
from handful.labeling.start import Wanted, keys_of, open_page
from labeling.pages import Client, folder, label, opened


def test_class_folders_give_labels_and_a_test_part_is_not_shown(tmp_path: Path) -> None:
    names = [f"{part}/{c}/{n}.png" for part in ("train", "test") for c in "ab" for n in range(4)]
    with opened(folder(tmp_path / "photos", names=names)) as page:
        assert page.session.state()["labels"] == 16
        assert page.session.state()["images"] == 8
        assert page.about["question"] == ""
        page.session.write_table()
        assert len(read_csv(tmp_path / "labels.csv")) == 16


def test_empty_text_is_not_the_folder_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder(tmp_path / "photos"))
    with pytest.raises(HandfulError, match="the source is empty text"):
        open_page(Wanted("", Path("labels.csv")), print)


def test_folders_that_may_be_groups_are_asked_about_once(tmp_path: Path) -> None:
    names = [f"{site}/{c}/{n}.png" for site in ("east", "west") for c in "ab" for n in range(3)]
    source = folder(tmp_path / "photos", names=names)
    with opened(source) as page:
        assert "--folders groups" in page.about["question"]
        assert page.session.state()["labels"] == 0
        page.folders({"answer": "groups"})
        assert set(page.session.marks.labeled().values()) == {"a", "b"}
        page.session.write_table()
        assert {row["group"] for row in read_csv(tmp_path / "labels.csv")} == {"east", "west"}
    with opened(source) as page:
        assert page.about["question"] == ""


def test_folders_named_like_dates_give_no_label_where_they_are_ignored(tmp_path: Path) -> None:
    names = [f"2024-0{m}/{n}.png" for m in (1, 2) for n in range(3)]
    with opened(folder(tmp_path / "photos", names=names), folders="ignore") as page:
        assert page.session.state()["labels"] == 0
        assert page.fitting.command("")[-2:] == ["--folders", "ignore"]


def test_a_label_file_of_another_tool_stays_as_it_is(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("file,label,diameter\n000.png,cat,3\n")
    with opened(folder(tmp_path / "photos")) as page:
        assert page.session.marks.labeled() == {"000.png": "cat"}
        assert page.session.table.name == "labels-labelled.csv"
    assert table.read_text() == "file,label,diameter\n000.png,cat,3\n"


def test_labels_of_an_earlier_run_are_taken_over_with_their_origins(tmp_path: Path) -> None:
    run = tmp_path / "before"
    run.mkdir()
    (run / "labels.csv").write_text("file,label,origin,pixels\n000.png,cat,random,x\n")
    with opened(folder(tmp_path / "photos"), after=run) as page:
        assert page.session.marks.of["000.png"].origin == "random"
        assert page.fitting.command("3m")[-2:] == ["--after", str(run)]


def said_at_the_start(source: Path, **wanted: Any) -> list[str]:
    said: list[str] = []
    table = source.parent / "labels.csv"
    close(open_page(Wanted(str(source), labels=table, **wanted), said.append))
    return said


def test_labels_of_images_that_are_not_here_are_counted_apart(tmp_path: Path) -> None:
    run = tmp_path / "before"
    run.mkdir()
    rows = ["file,label,origin", "000.png,cat,random", "gone.png,dog,random"]
    (run / "labels.csv").write_text("\n".join(rows))
    source = folder(tmp_path / "photos")
    assert said_at_the_start(source, after=run) == [
        f"1 label taken over from {run}; 1 more are of images that are not in {source}"
    ]


def test_an_earlier_run_has_a_list_of_other_images(tmp_path: Path) -> None:
    run = a_run(tmp_path / "before")
    (run / "label-next.csv").write_text("file,label,why\n001.png,,random\n")
    said = said_at_the_start(folder(tmp_path / "photos"), after=run)
    assert len(said) == 2 and said[1].endswith(f"they are others than in {run / 'label-next.csv'}")


def test_only_a_label_file_that_was_there_before_is_said_to_be_missing(tmp_path: Path) -> None:
    """The journal of a new page holds the labels of the earlier run, and no file was lost."""
    run = tmp_path / "before"
    run.mkdir()
    (run / "labels.csv").write_text("file,label,origin\n000.png,cat,random\n")
    source = folder(tmp_path / "photos")
    assert said_at_the_start(source, after=run) == [f"1 label taken over from {run}"]
    assert not (tmp_path / "labels.csv").exists()  # nobody has given a label yet
    with opened(source) as page:
        label(Client(page), 1, "dog")
    (tmp_path / "labels.csv").unlink()
    assert "labels.csv was missing and is made again" in said_at_the_start(source)[0]


def test_an_annotator_has_a_file_of_their_own(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos"), annotator="Ann-Lie") as page:
        assert page.session.table == tmp_path / "labels-Ann-Lie.csv"


@pytest.mark.parametrize("name", ["../x", "a/b", "a" * 41, ".", "x\n"])
def test_an_annotator_cannot_name_another_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(HandfulError, match="--annotator"):
        with opened(folder(tmp_path / "photos"), annotator=name):
            pass


def test_classes_can_be_given_in_the_order_of_their_keys(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos"), classes=("Hündin", "猫")) as page:
        assert page.session.marks.classes == ["Hündin", "猫"]


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(HandfulError, match="holds no image"):
        with opened(tmp_path / "photos"):
            pass


def test_other_machines_are_refused_unless_allowed() -> None:
    with pytest.raises(HandfulError, match="not encrypted"):
        check_host("0.0.0.0", 0, False)
    check_host("0.0.0.0", 0, True)
    check_host("127.0.0.1", 0, False)


# What opening the page leaves as it is


def test_opening_a_page_writes_no_label_that_the_user_did_not_give(tmp_path: Path) -> None:
    names = [f"{c}/{n}.png" for c in ("cat", "dog") for n in "12"]
    source = folder(tmp_path / "photos", names=names)
    with opened(source) as page:
        assert page.session.state()["by_folder"] == page.session.state()["labels"] == 4
    assert not (tmp_path / "labels.csv").exists()
    with opened(source) as page:  # the labels are still those of the folders
        assert page.session.state()["labels"] == 4
        label(Client(page), 0, "cow")
    rows = {row["file"]: row["label"] for row in read_csv(tmp_path / "labels.csv")}
    assert rows == {"cat/1.png": "cow", "cat/2.png": "cat", "dog/1.png": "dog", "dog/2.png": "dog"}
    with opened(source) as page:
        assert page.session.state()["by_folder"] == 3


def test_folders_of_one_stem_are_asked_about(tmp_path: Path) -> None:
    source = folder(tmp_path / "photos", names=[f"plant_{c}/{n}.png" for c in "AB" for n in "12"])
    with opened(source) as page:
        assert "plant_A, plant_B" in page.about["question"]
        assert page.session.state()["left"] == 4 and not page.session.marks.classes


@pytest.mark.parametrize("written", [False, True])
def test_folders_that_turn_out_to_be_sites_give_no_label(tmp_path: Path, written: bool) -> None:
    names = [f"{c}/{n}.png" for c in ("east", "west") for n in "12"]
    source = folder(tmp_path / "photos", names=names)
    with opened(source) as page:
        if written:  # as earlier versions did when a page was opened
            label(Client(page), 0, "cow")
    with opened(source) as page:
        page.folders({"answer": "groups"})
        assert page.session.marks.labeled() == ({"east/1.png": "cow"} if written else {})
        assert page.session.marks.classes == (["cow"] if written else [])
        assert page.session.groups["west/2.png"] == "west"
        assert page.session.state()["left"] == 4 - written
    if written:
        assert [row["label"] for row in read_csv(tmp_path / "labels.csv")] == ["cow"]
    with opened(source) as page:
        assert len(page.session.marks.labeled()) == written


def test_an_earlier_version_wrote_the_folders_into_the_journal(tmp_path: Path) -> None:
    names = [f"{c}/{n}.png" for c in ("east", "west") for n in "12"]
    source = folder(tmp_path / "photos", names=names)
    with opened(source) as page:
        page.session.write_table()
    journal = tmp_path / "labels.csv.journal"
    journal.write_text(journal.read_text().replace('"from": "folders", ', ""))
    assert len(read_csv(tmp_path / "labels.csv")) == 4
    said = said_at_the_start(source, folders="groups")
    assert said[0].startswith("4 labels of an earlier session were names of sub-folders")
    assert read_csv(tmp_path / "labels.csv") == []


def test_a_label_file_of_the_user_stays_as_it_is_until_a_label_is_given(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    content = "file,label\n003.png,dog\n000.png,cat\n"
    table.write_text(content)
    source = folder(tmp_path / "photos")
    said = said_at_the_start(source)
    assert "stays as it is until you give a label here; then it is written anew" in said[0]
    assert table.read_text() == content
    with opened(source) as page:
        Client(page).act("/api/class", id="1", name="cow")
    assert table.read_text() == content  # a class is no label
    with opened(source) as page:
        label(Client(page), 1, "cow")
    assert [row["file"] for row in read_csv(table)] == ["000.png", "001.png", "003.png"]
    assert said_at_the_start(source) == []


def test_labels_of_a_file_are_never_taken_for_names_of_folders(tmp_path: Path) -> None:
    names = [f"{c}/{n}.png" for c in ("east", "west") for n in "12"]
    source = folder(tmp_path / "photos", names=names)
    (tmp_path / "labels.csv").write_text("file,label\neast/1.png,east\nwest/2.png,west\n")
    with opened(source, folders="groups") as page:
        assert page.session.state()["labels"] == 2 and not page.session.state()["by_folder"]
    with opened(source, folders="groups") as page:
        assert page.session.state()["labels"] == 2


@pytest.mark.parametrize(
    "classes, keys",
    [
        (["fox", "hare"], "12"),
        ([str(digit) for digit in range(10)], "0123456789"),
        (["A", "b"], "ab"),
        (["a", "n"], "an"),
        (["10", "2"], "12"),
        ([], ""),
    ],
)
def test_classes_that_are_named_after_keys_have_these(classes, keys):
    found = keys_of(classes)
    assert found[: len(classes)] == keys
    assert len(set(found)) == len(found)


def a_run(folder: Path, *words: object) -> Path:
    """A folder with the record of a fit by this command."""
    folder.mkdir()
    record = {"command": ["fit", *map(str, words)]}
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "labels.csv").write_text("file,label,origin\n000.png,cat,random\n")
    return folder


def done(source: Path, **wanted: Any) -> tuple[list[str], list[str]]:
    """The command of the button Done of a page with its usual run folder, and what it says."""
    said: list[str] = []
    page = open_page(Wanted(str(source), **wanted), said.append)
    close(page)
    return page.fitting.command(""), said


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of photos, beside the present folder."""
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "photos")
    return Path("photos")


def test_done_puts_its_run_where_fit_does(photos: Path) -> None:
    command, said = done(photos)
    assert command == ["fit", "photos", "--labels", "labels.csv", "--out", "photos-run"]
    assert command[-1] == str(default_run_folder(str(photos))) and said == []


PAGE = ["photos", "--labels", "labels.csv", "--out", "photos-run-2", "--budget", "3m"]


def begun(run: Path, words: list[str]) -> None:
    """Let the journal say that a page began this run."""
    page = open_page(Wanted("photos"))
    page.session.set(RUNS, {str(run.resolve()): ["fit", *words]})
    close(page)


def test_done_replaces_a_run_of_its_own_and_no_other(photos: Path) -> None:
    a_run(Path("photos-run"), "photos/", "--budget", "3m")  # of a fit that was typed
    command, said = done(photos)
    assert command[-2:] == ["--out", "photos-run-2"]
    assert said == ["photos-run is another run and stays: Done makes photos-run-2"]
    a_run(Path("photos-run-2"), *PAGE)  # typed, too, though a page might have begun it
    assert done(photos)[0][-2:] == ["--out", "photos-run-3"]
    begun(Path("photos-run-2"), PAGE)
    command, said = done(photos)
    assert command[-3:] == ["--out", "photos-run-2", "--overwrite"]
    assert said[0] == "1 label taken over from photos-run-2"  # labels.csv is not there
    command, _ = done(photos, labels=Path("others.csv"))
    assert command[-2:] == ["--out", "photos-run-3"]
    assert done(photos, after=Path("photos-run"))[0][5] == "photos-run-2"
    shutil.rmtree("photos-run-2")
    a_run(Path("photos-run-2"), *PAGE[:-1], "10h")  # typed where the page's was
    assert done(photos)[0][-2:] == ["--out", "photos-run-3"]


MINE = ["photos", "--labels", "labels.csv", "--out", "mine"]


def test_a_run_that_was_typed_is_replaced_only_if_a_page_began_it(photos: Path) -> None:
    run = a_run(Path("mine"), *MINE, "--budget", "3m")  # typed, though a page might have begun it
    with pytest.raises(HandfulError) as refused:
        done(photos, run=run)
    assert str(refused.value) == (
        "mine holds another run, finished, that no page with labels.csv began; give another --run "
        "(--after FOLDER goes on from its labels), or --overwrite to let Done put its own in its "
        "place"
    )
    assert done(photos, run=run, overwrite=True)[0][-3:] == ["--out", "mine", "--overwrite"]
    begun(run, [*MINE, "--budget", "3m"])
    begun(run, [*MINE, "--budget", "10m"])  # stopped before it had a record
    assert done(photos, run=run)[0][-3:] == ["--out", "mine", "--overwrite"]
    with pytest.raises(HandfulError, match="no page with others.csv began"):
        done(photos, run=run, labels=Path("others.csv"))
    (run / "run.json").write_text(json.dumps({"command": ["fit", *MINE, "--seed", "1"]}))
    with pytest.raises(HandfulError, match="holds another run, finished"):
        done(photos, run=run)


def test_a_folder_typed_for_the_run_that_holds_something_else_is_refused(photos: Path) -> None:
    Path("new").mkdir()
    assert done(photos, run=Path("new"))[0][-2:] == ["--out", "new"]
    Path("new/checkpoint").mkdir()
    with pytest.raises(HandfulError, match="holds another run, unfinished"):
        done(photos, run=Path("new"))
    assert done(photos, run=Path("new"), overwrite=True)[0][-1] == "--overwrite"
    with pytest.raises(HandfulError, match="photos holds other files; give --run a folder"):
        done(photos, run=photos, overwrite=True)
    with pytest.raises(HandfulError, match="give --run, too"):
        done(photos, overwrite=True)


def test_a_run_that_was_killed_while_it_took_its_place_is_one(photos: Path) -> None:
    run = Path("mine")
    run.mkdir()
    a_run(run / ".new", *MINE)
    (run / "model.safetensors").write_text("")
    with pytest.raises(HandfulError, match="mine holds another run, finished"):
        done(photos, run=run)
    assert done(photos, run=run, overwrite=True)[0][-1] == "--overwrite"
    begun(run, MINE)
    assert done(photos, run=run)[0][-1] == "--overwrite"  # with more labels it is another run


def test_a_run_that_is_typed_while_the_page_is_open_is_not_replaced(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = open_page(Wanted(str(photos), run=Path("mine")))
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a fit was begun"))
    a_run(Path("mine"), "photos")
    with pytest.raises(HandfulError, match="mine holds another run, finished"):
        page.start_fit({"budget": "3m"})
    close(page)


@pytest.mark.parametrize("value", [3, ["x"], {"photos-run": 3}, None])
def test_a_journal_that_names_no_runs_is_read_all_the_same(photos: Path, value: object) -> None:
    page = open_page(Wanted("photos"))
    page.session.set(RUNS, value)
    close(page)
    assert done(photos)[0][-2:] == ["--out", "photos-run"]


def test_done_goes_on_with_its_run_that_was_interrupted(photos: Path) -> None:
    Path("photos-run/checkpoint").mkdir(parents=True)
    assert done(photos)[0][-2:] == ["--out", "photos-run-2"]  # of whom it is, nobody knows
    words = ["fit", "photos", "--labels", "labels.csv", "--out", "photos-run"]
    begun(Path("photos-run"), words[1:])
    assert done(photos)[0][-2:] == ["--out", "photos-run-2"]  # it may be one that was typed since
    kept = Path("photos-run/checkpoint/command.json")
    kept.write_text(json.dumps([*words, "--method", "simclr"]))
    assert done(photos)[0][-2:] == ["--out", "photos-run-2"]
    kept.write_text(json.dumps([*words, "--overwrite"]))
    command, said = done(photos)
    # There may be more labels by now, with which the fit refuses to go on without this word.
    assert command[-3:] == ["--out", "photos-run", "--overwrite"] and said == []


def test_done_goes_on_with_the_run_of_an_earlier_version(photos: Path) -> None:
    a_run(Path("run"), "photos/", "--labels", "labels.csv", "--out", "run", "--budget", "3m")
    command, said = done(photos)
    assert command[-3:] == ["--out", "run", "--overwrite"]
    assert said[-1] == "Done goes on with run, where an earlier version put its run"
    assert done(photos, after=Path("run"))[0][5] == "run-2"
    folder(Path("others"))
    assert done(Path("others"), labels=Path("o.csv"))[0][-2:] == ["--out", "others-run"]


STRANGE = '{"command": ["fit", "\\u0000", "--labels", "~nobody/x", "--out", "photos-run"]}'


@pytest.mark.parametrize(
    "text", ["", "[]", '{"command": null}', '{"command": ["fit", 3]}', STRANGE]
)
def test_a_record_that_says_nothing_is_of_another_run(photos: Path, text: str) -> None:
    Path("photos-run").mkdir()
    Path("photos-run/run.json").write_text(text)
    assert done(photos)[0][-2:] == ["--out", "photos-run-2"]


def test_a_run_that_is_made_while_the_page_is_open_stays(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = open_page(Wanted(str(photos)))
    started: list[list[str]] = []

    def process(words: list[str], **how: object) -> Any:
        started.append(words[3:])
        return SimpleNamespace(stdout=[], poll=lambda: 0, terminate=lambda: None)

    monkeypatch.setattr("subprocess.Popen", process)
    page.fitting.start("3m")  # it fails, and makes no folder
    a_run(Path("photos-run"), "photos")
    page.start_fit({"budget": "3m"})
    Path("photos-run-2").mkdir()  # what the fit makes, before it has a record
    page.start_fit({"budget": "3m"})
    assert page.session.marks.settings[RUNS][str(Path("photos-run-2").resolve())] == started[-1]
    close(page)
    assert [words[5] for words in started] == ["photos-run", "photos-run-2", "photos-run-2"]
