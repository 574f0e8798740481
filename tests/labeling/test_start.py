from pathlib import Path
from typing import Any

import pytest

from handful.csv_files import read_csv
from handful.errors import HandfulError
from handful.labeling.serve import check_host, close
from handful.labeling.start import Wanted, open_page
from labeling.pages import folder, opened


def test_class_folders_give_labels_and_a_test_part_is_not_shown(tmp_path: Path) -> None:
    names = [f"{part}/{c}/{n}.png" for part in ("train", "test") for c in "ab" for n in range(4)]
    with opened(folder(tmp_path / "photos", names=names)) as page:
        assert page.session.state()["labels"] == 16
        assert page.session.state()["images"] == 8
        assert page.about["question"] == ""
        page.session.write_table()
        assert len(read_csv(tmp_path / "labels.csv")) == 16


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


def test_only_a_label_file_that_was_there_before_is_said_to_be_missing(tmp_path: Path) -> None:
    """The journal of a new page holds the labels of the earlier run, and no file was lost."""
    run = tmp_path / "before"
    run.mkdir()
    (run / "labels.csv").write_text("file,label,origin\n000.png,cat,random\n")
    source = folder(tmp_path / "photos")
    assert said_at_the_start(source, after=run) == [f"1 label taken over from {run}"]
    (tmp_path / "labels.csv").unlink(missing_ok=True)
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
