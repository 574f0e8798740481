import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from handful import load
from handful.csv_files import read_csv, write_csv
from handful.errors import HandfulError
from handful.labeling.opinions import Labeled, with_random_shares
from handful.labeling.server import Page
from handful.labeling.session import (
    PAGE_LABELS,
    PAGE_PRECISION,
    PAGE_TILE,
    Opinion,
    Session,
    sample_size,
)
from labeling.pages import folder, opened


def answer(session: Session, number: int, label: str = "cat", seen: str = "blind") -> None:
    item = {"number": number, "kind": "label", "label": label, "seen": seen}
    session.answer(f"{number}{label}{seen}", [item])


def opinion(session: Session, order: list[int], classes: tuple[str, ...] = ("cat", "dog")) -> None:
    """An opinion that gives image number n the first class with probability 1 - n / 1000."""
    count = len(session.names)
    first = 1 - np.arange(count, dtype=np.float32) / 1000
    shares = np.stack([first, 1 - first], axis=1)
    row = np.arange(count, dtype=np.int32)
    session.opinion = Opinion(
        1, classes, row, shares, tuple(order), session.changes, suggested=(classes, shares)
    )


def rows(page: Page) -> dict[str, dict[str, str]]:
    page.session.write_table()
    return {row["file"]: row for row in read_csv(page.session.table)}


def test_random_images_have_no_suggestion_and_chosen_ones_have(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos", 40)) as page:
        session = page.session
        opinion(session, [n for n in range(40) if n not in session.sample])
        items = session.next("tab", [], 12)
        blind = [item["number"] in session.sample for item in items]
        assert blind == [True, False, False, False] * 3
        assert [item["suggestion"] is None for item in items] == blind


def test_all_images_are_random_until_there_is_an_order_to_choose_by(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos", 40)) as page:
        session = page.session
        first = [item["number"] in session.sample for item in session.next("tab", [], 7)]
        assert first == 7 * [True]


def test_only_blind_labels_of_the_random_sample_are_random(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos", 30)) as page:
        session = page.session
        inside, other = session.shuffled[:2]
        outside = session.shuffled[-1]
        answer(session, inside)
        answer(session, other, seen="page")
        answer(session, outside)
        found = rows(page)
        kinds = [found[session.names[n]]["origin"] for n in (inside, other, outside)]
        assert kinds == ["random", "chosen", "chosen"]
        assert found[session.names[inside]]["seen"] == "blind"


def test_the_random_sample_is_in_no_page_of_tiles(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos", 40)) as page:
        session = page.session
        answer(session, session.shuffled[-1])
        opinion(session, [])
        numbers = {tile["number"] for tile in session.tiles("class", "cat", 48)["tiles"]}
        assert numbers == set(range(40)) - session.sample - {session.shuffled[-1]}
        everything = session.tiles_of(range(40), "cat")
        assert numbers == {tile["number"] for tile in everything}


def test_a_page_has_the_surest_tiles_first(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos", 40)) as page:
        opinion(page.session, [])
        page.session.add_class("1", "cat")
        tiles = [tile["number"] for tile in page.session.tiles("class", "cat", 24)["tiles"]]
        assert tiles == sorted(tiles) and len(tiles) == 24
        least = [tile["number"] for tile in page.session.tiles("unsure", None, 24)["tiles"]]
        assert least == sorted(least, reverse=True)


def test_what_was_taken_out_of_a_page_comes_next_with_another_guess(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos", 40)) as page:
        session = page.session
        opinion(session, [])
        out = session.shuffled[-1]
        session.confirm("1", [], [{"number": out, "label": "cat"}])
        shown = session.next("tab", [], 2)[1]
        assert (shown["number"], shown["suggestion"]) == (out, "dog")


def test_an_answer_that_is_sent_twice_counts_once(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos")) as page:
        answer(page.session, 3)
        answer(page.session, 3)
        page.session.undo("u")
        assert page.session.state()["labels"] == 0


def test_two_tabs_get_different_images(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos", 30)) as page:
        one, two = (page.session.next(tab, [], 6) for tab in ("one", "two"))
        assert not {item["number"] for item in one} & {item["number"] for item in two}


def test_what_a_closed_tab_held_comes_up_when_nothing_else_is_left(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos", 5)) as page:
        assert len(page.session.next("closed", [], 5)) == 5
        assert len(page.session.next("open", [], 5)) == 5


def test_a_session_goes_on_where_it_was(tmp_path: Path) -> None:
    source = folder(tmp_path / "photos", 20)
    with opened(source) as page:
        answer(page.session, 3)
        answer(page.session, 4, "dog")
    with opened(source) as page:
        assert page.session.state()["labels"] == 2
        assert page.session.marks.classes == ["cat", "dog"]
        page.session.undo("u")
        assert [row["file"] for row in rows(page).values()] == ["003.png"]


def test_the_label_file_is_made_again_from_the_journal(tmp_path: Path) -> None:
    source = folder(tmp_path / "photos", 20)
    with opened(source) as page:
        answer(page.session, 3)
    (tmp_path / "labels.csv").unlink()
    with opened(source) as page:
        assert rows(page)["003.png"]["label"] == "cat"


def test_a_label_file_that_lags_behind_the_journal_loses_nothing(tmp_path: Path) -> None:
    source = folder(tmp_path / "photos", 20)
    with opened(source) as page:
        answer(page.session, 3)
        page.session.write_table()
        old = (tmp_path / "labels.csv").read_bytes()
        answer(page.session, 4)
    (tmp_path / "labels.csv").write_bytes(old)  # as a crash would leave it
    with opened(source) as page:
        assert page.session.state()["labels"] == 2


def test_what_was_edited_by_hand_between_sessions_counts(tmp_path: Path) -> None:
    source = folder(tmp_path / "photos", 20)
    with opened(source) as page:
        answer(page.session, 3)
    write_csv(tmp_path / "labels.csv", ["file", "label"], [["003.png", "dog"], ["004.png", "cow"]])
    with opened(source) as page:
        assert page.session.marks.labeled() == {"003.png": "dog", "004.png": "cow"}


def test_what_was_edited_during_a_session_is_kept_aside(tmp_path: Path) -> None:
    said: list[str] = []
    table = tmp_path / "labels.csv"
    with opened(folder(tmp_path / "photos", 20), say=said.append) as page:
        for number in (3, 4):
            answer(page.session, number)
            page.session.write_table()
            table.write_text(f"file,label\n007.png,mine {number}\n")
            page.session.write_table()
        shown = page.session.state()["problem"]
    kept = [tmp_path / f"labels (edited elsewhere{more}).csv" for more in ("", ", 2")]
    assert ["mine 3" in kept[0].read_text(), "mine 4" in kept[1].read_text()] == [True, True]
    told = [f"{table} was edited while the page was open; the edited file is {one}" for one in kept]
    assert said[-2:] == told and shown == told[1]


def test_fit_reads_the_label_file_and_counts_blind_labels_only(tmp_path: Path) -> None:
    source = folder(tmp_path / "photos", 30)
    with opened(source) as page:
        session = page.session
        inside, other = session.shuffled[:2]
        answer(session, inside)
        answer(session, other, "dog", seen="page")
        answer(session, session.shuffled[-1], "dog")
        session.answer("x", [{"number": session.shuffled[5], "kind": "unsure", "seen": "blind"}])
        names = [session.names[n] for n in (inside, other, session.shuffled[-1])]
    images = load(source, labels=tmp_path / "labels.csv")
    assert images.origins == dict(zip(names, ["random", "chosen", "chosen"], strict=True))
    assert len(images.labeled) == 3


def test_a_random_label_with_a_suggestion_does_not_count_wherever_it_comes_from(
    tmp_path: Path,
) -> None:
    source = folder(tmp_path / "photos", 4)
    table = tmp_path / "other.csv"
    table.write_text(
        "file,label,origin,seen\n000.png,a,random,blind\n001.png,b,random,suggested\n"
        "002.png,b,random,\n"
    )
    images = load(source, labels=table)
    assert images.origins == {"000.png": "random", "001.png": "chosen", "002.png": "random"}


@pytest.mark.parametrize("number", [-1, 12, 10**12, True, None, "3", 2.0])
def test_an_image_that_is_not_there_is_refused(tmp_path: Path, number: object) -> None:
    with opened(folder(tmp_path / "photos", 12)) as page:
        with pytest.raises(HandfulError):
            page.session.answer("1", [{"number": number, "kind": "unsure", "seen": "blind"}])
        assert page.session.state()["unsure"] == 0


def test_an_image_to_look_at_again_comes_next_with_its_label_and_no_guess(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos", 30)) as page:
        session = page.session
        number = session.shuffled[-1]
        answer(session, number, seen="suggested")
        opinion(session, [])
        session.look_again([number])
        item = session.next("tab", [], 1)[0]
        assert item["number"] == number and item["suggestion"] is None
        assert (item["again"], item["seen"]) == ("cat", "suggested")
        assert "again" not in session.next("tab", [], 1)[0]


def test_an_image_that_was_asked_for_twice_comes_up_again_once(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos", 30)) as page:
        session = page.session
        answer(session, 3)
        session.look_again([3])
        assert session.next("tab", [], 1)[0]["number"] == 3
        session.look_again([3])
        session.answer("second", [{"number": 3, "kind": "label", "label": "cat", "seen": "blind"}])
        assert session.next("tab", [], 1)[0]["number"] != 3


def test_a_label_that_was_confirmed_is_in_doubt_no_more_also_after_a_restart(
    tmp_path: Path,
) -> None:
    def said(session: Session, act: str, name: str) -> None:
        item = {"number": 3, "kind": "label", "label": name, "seen": "blind"}
        session.answer(act, [item])

    source = folder(tmp_path / "photos", 30)
    with opened(source) as page:
        said(page.session, "1", "cat")
        assert page.session.in_doubt({3: "cat", 4: "cat"}) == [3]
        assert page.session.in_doubt({3: "dog"}) == []  # it has another label by now
        said(page.session, "2", "cat")
        assert page.session.in_doubt({3: "cat"}) == []
        page.session.undo("3")
        assert page.session.in_doubt({3: "cat"}) == [3]
        said(page.session, "4", "cat")
    with opened(source) as page:
        assert page.session.in_doubt({3: "cat"}) == []
        said(page.session, "5", "dog")  # the label changes, and so it may be wrong again
        assert page.session.in_doubt({3: "dog"}) == [3]
        page.session.undo("6")
        assert page.session.in_doubt({3: "cat"}) == []


def test_a_confirmed_label_counts_in_the_estimate_as_before(tmp_path: Path) -> None:
    source = folder(tmp_path / "photos", 30)
    with opened(source) as page:
        outside = page.session.names[page.session.shuffled[-1]]
    table = tmp_path / "labels.csv"
    # Drawn at random when the folder had other images, and none of today's sample.
    write_csv(table, ["file", "label", "origin", "seen"], [[outside, "cat", "random", "blind"]])
    with opened(source) as page:
        page.session.look_again([page.session.number[outside]])
        item = page.session.next("tab", [], 1)[0]
        answer(page.session, item["number"], item["again"], item["seen"])
        found = rows(page)[outside]
        assert (found["origin"], found["seen"]) == ("random", "blind")
        assert page.session.in_doubt({item["number"]: "cat"}) == []


def test_the_page_counts_the_labels_that_are_still_in_doubt(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos", 30)) as page:
        learner = page.learner
        answer(page.session, 3)
        answer(page.session, 4)
        learner._assessed = SimpleNamespace(issues=(1, 0))
        learner._assessed_labels = [(3, "cat"), (4, "cat")]
        learner.estimate = {"issues": 2}
        assert learner.issues() == [4, 3]
        answer(page.session, 4, seen="page")
        assert learner.issues() == [3] and learner.state()["estimate"] == {"issues": 1}


def test_a_label_that_is_edited_in_the_file_is_confirmed_no_more(tmp_path: Path) -> None:
    source = folder(tmp_path / "photos", 30)
    with opened(source) as page:
        for act in ("1", "2"):
            item = {"number": 3, "kind": "label", "label": "cat", "seen": "blind"}
            page.session.answer(act, [item])
        table = page.session.table
    table.write_text(table.read_text().replace("cat", "dog"))
    with opened(source) as page:
        assert page.session.in_doubt({3: "dog"}) == [3]


def test_a_confirmed_label_is_one_for_fit_and_for_a_page_without_the_journal(
    tmp_path: Path,
) -> None:
    source = folder(tmp_path / "photos", 30)
    with opened(source) as page:
        for number, label in ((3, "cat"), (4, "dog"), (3, "cat")):
            item = {"number": number, "kind": "label", "label": label, "seen": "blind"}
            page.session.answer(f"{number}", [item])
            page.session.answer(f"{number} again", [item] if number == 3 else [])
        names, table = page.session.names, page.session.table
        assert [rows(page)[names[n]]["mark"] for n in (3, 4)] == ["confirmed", ""]
    assert load(source, labels=table).confirmed == {names[3]}
    table.with_name(f"{table.name}.journal").unlink()
    with opened(source) as page:
        assert page.session.in_doubt({3: "cat", 4: "dog"}) == [4]
        answer(page.session, 5, "dog")
        assert rows(page)[names[3]]["mark"] == "confirmed"


def test_the_random_sample_is_the_same_when_images_are_added(tmp_path: Path) -> None:
    source = folder(tmp_path / "photos", 30)
    with opened(source) as page:
        before = {page.session.names[n] for n in page.session.sample}
    folder(source, names=[f"late-{n}.png" for n in range(3)])
    with opened(source) as page:
        after = {page.session.names[n] for n in page.session.sample}
        first = [page.session.names[n] for n in page.session.shuffled]
    assert after - before <= {name for name in first[: len(after)]}
    assert sorted(after) == sorted(first[: len(after)])


def test_the_sample_leaves_most_images_to_choose_from() -> None:
    assert [sample_size(n) for n in (0, 1, 2, 30, 900, 2062, 5500, 100_000)] == [
        0, 1, 1, 10, 100, 206, 500, 500,
    ]  # fmt: skip


def test_labels_from_many_threads_are_all_recorded(tmp_path: Path) -> None:
    source = folder(tmp_path / "photos", 64)
    with opened(source) as page:
        threads = [
            threading.Thread(target=answer, args=(page.session, number)) for number in range(64)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with opened(source) as page:
        assert page.session.state()["labels"] == 64


def test_a_disk_that_is_full_is_told_and_no_label_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from handful.labeling import journal

    def full(file: object, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    with opened(folder(tmp_path / "photos")) as page:
        with monkeypatch.context() as patched:
            patched.setattr(journal, "_write_all", full)
            with pytest.raises(journal.NotSaved):
                answer(page.session, 3)
        assert page.session.state()["labels"] == 0
        answer(page.session, 3)
        assert page.session.state()["labels"] == 1


def test_an_opinion_is_fresh_until_a_label_is_given(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos", 40)) as page:
        opinion(page.session, [])
        assert page.session.state()["fresh"]
        answer(page.session, 3)
        assert not page.session.state()["fresh"]


def ready(session: Session, labels: int = PAGE_LABELS, precision: float = 1.0) -> None:
    """Give the class cat so many labels, and its guesses this precision, out of fold."""
    for number in session.shuffled[:labels]:
        answer(session, number)
    session.precision = {"cat": precision, "dog": precision}
    opinion(session, [])


def offered(session: Session) -> list[str]:
    return [offer["label"] for offer in session.offers(24)]


def test_a_page_is_offered_of_a_class_with_labels_precision_and_sure_tiles(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos", 60)) as page:
        session = page.session
        ready(session, PAGE_LABELS - 1)
        assert offered(session) == []
        answer(session, session.shuffled[PAGE_LABELS - 1])
        assert offered(session) == ["cat"]
        session.precision = {"cat": PAGE_PRECISION - 0.01}
        assert offered(session) == []
        session.precision = {}  # no estimate yet
        assert offered(session) == []


def test_a_page_has_sure_tiles_and_48_of_them_where_these_are_very_sure(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos", 100)) as page:
        session = page.session
        ready(session)

        def tiles(*sure: float) -> list[int]:
            """Tiles of each page that is offered, for images of these confidences."""
            first = np.array([*sure, *[0.5] * (100 - len(sure))], np.float32)
            shares = np.zeros((100, 2), np.float32)
            outside = (
                session.shuffled[len(session.sample) :] + session.shuffled[: len(session.sample)]
            )
            shares[outside, 0] = first
            shares[:, 1] = 1 - shares[:, 0]
            row = np.arange(100, dtype=np.int32)
            session.opinion = Opinion(2, ("cat", "dog"), row, shares, ())
            return [offer["tiles"] for offer in session.offers()]

        assert tiles() == []
        assert tiles(*[0.97] * 50) == [48]
        assert tiles(*[0.9] * 50) == [24]
        assert tiles(*[0.9] * 7, *[PAGE_TILE - 0.01] * 40) == [7]
        assert tiles(*[0.75] * 30) == []  # each is sure enough, and together they are not


def test_after_a_page_with_many_wrong_tiles_the_class_waits_for_labels(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos", 60)) as page:
        session = page.session
        ready(session)
        outside = session.shuffled[len(session.sample) :]
        right = [{"number": n, "kind": "label", "label": "cat", "seen": "page"} for n in outside]
        wrong = [{"number": n, "label": "cat"} for n in outside]
        session.confirm("1", right[:6], wrong[6:8], of_class=True)  # a quarter: no more than that
        assert offered(session) == ["cat"]
        session.confirm("2", [], wrong[8:10], of_class=False)  # a page of unsure images
        assert offered(session) == ["cat"]
        session.confirm("3", right[10:11], wrong[11:13], of_class=True)
        assert offered(session) == []
        for number in outside[20:24]:
            answer(session, number)
        assert offered(session) == ["cat"]


def test_what_was_taken_out_may_be_on_a_page_of_another_class_only(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos", 40)) as page:
        session = page.session
        opinion(session, [])
        first, second = session.shuffled[-2:]
        session.add_class("1", "cat")
        session.confirm("2", [], [{"number": first, "label": "cat"}])
        session.confirm("3", [], [{"number": second, "label": "dog"}])
        tiles = {tile["number"] for tile in session.tiles("class", "cat", 48)["tiles"]}
        assert first not in tiles and second in tiles
        session.confirm("4", [], [{"number": second, "label": "cat"}])
        assert session.item(second)["suggestion"] is None  # both classes are ruled out


def test_pages_are_guessed_at_the_class_shares_of_random_labels() -> None:
    found = Labeled.__new__(Labeled)
    found.classes = ("cat", "dog")
    found.labels = np.array([0] * 7 + [1] * 3)
    found.origins = ["chosen"] * 6 + ["random"] * 4  # one cat, three dogs
    even = with_random_shares(np.full((1, 2), 0.5), found)
    odds = (2 / 6) / (8 / 12), (4 / 6) / (4 / 12)  # with one label more for each
    assert even[0] == pytest.approx(np.array(odds) / sum(odds))
