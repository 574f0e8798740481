"""The images that were answered last, and how an answer is changed."""

from pathlib import Path

from labeling.pages import Client, folder, label, opened
from labeling.test_session import answer, opinion, rows


def numbers(state: dict) -> list[int]:
    return [item["number"] for item in state["recent"]]


def test_the_last_answers_are_listed_the_latest_first(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos", 30)) as page:
        for number in range(20):
            answer(page.session, number)
        state = page.session.state()
        assert numbers(state) == list(range(19, 7, -1))
        page.session.undo("u")
        assert numbers(page.session.state())[0] == 18


def test_a_changed_answer_replaces_the_first_and_undo_brings_it_back(tmp_path: Path) -> None:
    source = folder(tmp_path / "photos", 30)
    with opened(source) as page:
        client = Client(page)
        label(client, 3, "cat")
        label(client, 4, "cat")
        state = label(client, 3, "dog", act="again")
        assert numbers(state) == [3, 4] and state["labels"] == 2
        assert rows(page)["003.png"]["label"] == "dog"
    with opened(source) as page:  # nothing of it is lost with the process
        undone = page.session.undo("u")
        assert undone["undone"] and undone["recent"][0]["label"] == "cat"
        assert rows(page)["003.png"]["label"] == "cat"


def test_undo_says_whether_there_was_something_to_undo(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos")) as page:
        answer(page.session, 3)
        answer(page.session, 3, "dog")
        assert [page.session.undo(act)["undone"] for act in "abc"] == [True, True, False]


def test_the_list_tells_what_was_seen_and_nothing_of_the_classifier(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos", 30)) as page:
        session = page.session
        inside, outside = session.shuffled[0], session.shuffled[-1]
        answer(session, inside)
        answer(session, outside, seen="suggested")
        opinion(session, [])
        first, second = session.state()["recent"]
        assert (first["seen"], second["seen"]) == ("suggested", "blind")
        assert first.keys() == {"number", "name", "kind", "label", "seen"}
        answer(session, inside, "dog", second["seen"])
        answer(session, outside, "dog", first["seen"])
        found = rows(page)
        origins = [found[session.names[n]]["origin"] for n in (inside, outside)]
        assert origins == ["random", "chosen"]


def test_a_renamed_class_is_no_answer_to_an_image(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos", 30)) as page:
        answer(page.session, 3)
        answer(page.session, 4)
        answer(page.session, 5, "dog")
        page.session.rename_class("r", "cat", "lynx")
        assert [item["label"] for item in page.session.state()["recent"]] == [
            "dog", "lynx", "lynx",
        ]  # fmt: skip
        assert numbers(page.session.state()) == [5, 4, 3]
