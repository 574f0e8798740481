import pytest

from handful.errors import HandfulError
from handful.labeling.marks import CLEAR, Mark, Marks, as_event, class_name


def mark(marks: Marks, identity: str, **of: Mark) -> None:
    marks.apply({"do": "mark", "id": identity, "marks": as_event(of)})


def test_undo_takes_acts_back_one_by_one_until_none_is_left() -> None:
    marks = Marks()
    mark(marks, "1", a=Mark(label="cat"))
    mark(marks, "2", a=Mark(label="dog"), b=Mark("unsure"))
    assert marks.apply({"do": "undo", "id": "3"}) == ["a", "b"]
    assert marks.labeled() == {"a": "cat"} and "b" not in marks.of
    marks.apply({"do": "undo", "id": "4"})
    assert marks.of == {} and not marks.can_undo
    assert marks.apply({"do": "undo", "id": "5"}) == []


def test_labels_that_were_there_before_cannot_be_undone() -> None:
    marks = Marks()
    marks.apply({"do": "import", "id": "", "marks": as_event({"a": Mark(label="cat")})})
    assert not marks.can_undo and marks.classes == ["cat"]


def test_a_cleared_image_has_no_mark() -> None:
    marks = Marks()
    mark(marks, "1", a=Mark(label="cat"))
    mark(marks, "2", a=Mark(CLEAR))
    assert marks.of == {}


def test_renaming_to_another_class_joins_both_and_can_be_undone() -> None:
    marks = Marks()
    mark(marks, "1", a=Mark(label="cat"), b=Mark(label="kat"))
    marks.apply({"do": "rename", "id": "2", "old": "kat", "new": "cat"})
    assert marks.classes == ["cat"] and marks.counts() == {"cat": 2}
    marks.apply({"do": "undo", "id": "3"})
    assert marks.classes == ["cat", "kat"] and marks.labeled()["b"] == "kat"


@pytest.mark.parametrize("given", ["", "  ", "\u200b", None, 3, "x" * 101, "\ud800"])
def test_a_class_needs_a_name_that_can_be_shown(given: object) -> None:
    with pytest.raises(HandfulError):
        class_name(given, [])


def test_another_letter_case_is_the_same_class() -> None:
    assert class_name(" bär ", ["Bär"]) == "Bär"
    assert class_name("熊猫", ["Bär"]) == "熊猫"
    assert class_name("bar", ["Bär"]) == "bar"
