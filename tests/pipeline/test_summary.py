"""A run in sentences."""

from types import SimpleNamespace

import pytest

from handful.pipeline.summary import (
    Weak,
    _weak,
    _weak_in_words,
    how_right,
    labels_by_folder,
    summary,
    weak_classes,
)
from handful.report.sentences import headline
from handful.text import NBSP, about_right, so_far, withheld


def estimate(accuracy=0.75, low=0.59, high=0.87, n=60, **others):
    whole = {"accuracy": accuracy, "low": low, "high": high, "level": 0.9, "n": n}
    return whole | {"guessing": False, "caveats": [], "abstentions": []} | others


def run(record=None, **others):
    whole = {
        "data": {
            "labeled": 60, "unlabeled": 1960, "test": 0, "classes": ["cat", "dog", "fox"],
        },
        "estimate": estimate(), "after": None, "forecast": [], "label_issues": 0,
        "label_next": [], "interim": False,
    }  # fmt: skip
    whole |= record or {}
    return SimpleNamespace(record=whole, estimate=whole["estimate"], test=None, folder=None)


@pytest.mark.parametrize(
    "found, said",
    [
        (estimate(), "about 75 % right (59–87 %)"),
        (estimate(0.7549, 0.746, 0.764), "about 75.5 % right (74.6–76.4 %)"),
        (estimate(1.0, 0.42, 1.0, n=5), "above about 42 % right"),
        (estimate(1.0, 0.84, 1.0, n=24), "above about 84 % right"),
        (estimate(0.998, 0.992, 1.0, n=900), "about 99.8 % right (99.2–100.0 %)"),
        (estimate(None, None, None), "no figure yet"),
        (estimate(guessing=True), "not shown to be better than guessing"),
        (estimate(1.0, 0.4, 1.0, guessing=True), "not shown to be better than guessing"),
        (estimate(0.4, 0.1, 0.8, n=5, guessing=True), "above about 10 % right"),
    ],
)
def test_an_accuracy_is_as_exact_as_what_is_known(found, said):
    assert about_right(found) == said


def test_few_labels_give_a_bound_and_no_figure():
    said = how_right(estimate(1.0, 0.42, 1.0, n=5))
    assert said.startswith("above about 42 % right on new images")
    assert "100" not in said and "5 labels of random images are too few" in said
    assert "guessing" not in how_right(estimate(0.4, 0.1, 0.8, n=5, guessing=True))
    record = {"estimate": estimate(1.0, 0.42, 1.0, n=5), "forecast": [estimate() | {"labels": 9}]}
    assert "9 labels" not in " ".join(summary(run(record), "photos"))


def test_a_classifier_that_guesses_is_called_so_and_has_no_forecast():
    record = {"estimate": estimate(guessing=True), "forecast": [estimate() | {"labels": 120}]}
    said = summary(run(record), "photos")
    assert any(line.startswith("No better than guessing") for line in said)
    assert "120" not in " ".join(said)


def test_guessing_is_said_once_and_not_where_few_groups_cannot_tell():
    """A caveat of the estimate would say it again."""
    caveats = ["this holds", "no better than guessing: naming the commonest class"]
    said = summary(run({"estimate": estimate(guessing=True, caveats=caveats)}), "photos")
    assert sum("guessing" in line for line in said) == 1 and "This holds." in said
    groups = {"labels": 60, "scenes": 5}
    record = {"estimate": estimate(guessing=True, caveats=caveats), "groups": groups}
    said = summary(run(record), "photos")
    assert not any("guessing" in line for line in said)


@pytest.mark.parametrize("guessing", [False, True])
def test_the_table_of_answers_is_named_with_what_its_answers_are(tmp_path, guessing):
    (tmp_path / "predictions.csv").write_text("file,label,confidence\n")
    this = run({"estimate": estimate(guessing=guessing)})
    this.folder = tmp_path
    (tmp_path / "labels.csv").write_text("file,label,origin\n")
    line = next(line for line in summary(this, "photos") if line.startswith("answers"))
    assert line.endswith("; any of these answers may be a guess") == guessing


def test_a_forecast_that_says_no_more_than_nearly_always_is_left_out():
    forecast = [{"labels": 60, "accuracy": 0.998, "low": 0.9, "high": 1.0}]
    record = {"estimate": estimate(0.99, 0.85, 1.0), "forecast": forecast}
    assert "60 labels:" not in " ".join(summary(run(record), "photos"))


@pytest.mark.parametrize(
    ("count", "said"),
    [(6, "6 classes: a, b, c, d, e, f."), (8, "8 classes: a, b, c, d, e and 3 more.")],
)
def test_a_single_class_is_never_left_out_of_the_list(count, said):
    data = {"labeled": 60, "unlabeled": 1960, "test": 0, "classes": list("abcdefgh")[:count]}
    assert summary(run({"data": data}), "photos")[0].endswith(said)


def test_classes_that_are_numbers_are_quoted_where_counts_stand_beside_them():
    data = {"labeled": 60, "unlabeled": 9, "test": 0, "classes": [str(k) for k in range(10)]}
    first = summary(run({"data": data}), "photos")[0]
    assert first.endswith("10 classes: '0', '1', '2', '3', '4' and 5 more.")
    assert _weak_in_words(Weak("9", 10, 7, "7", 2)) == (
        "weak: '9', right for 7 of 10, most often taken for '7'"
    )


def test_scenes_that_were_found_are_told_by_the_caveat_alone_and_typed_groups_in_a_sentence():
    for signs, told in ((["near copies"], False), ([], True)):
        groups = {"labels": 60, "scenes": 30, "signs": signs}
        caveats = ["the 60 labelled images show about 30 scenes", "second", "third", "fourth"]
        record = {"groups": groups, "estimate": estimate(caveats=caveats)}
        said = " ".join(summary(run(record), "photos"))
        assert ("are of 30 groups" in said) == told
        assert "show about 30 scenes. Second. Third." in said and "Fourth" not in said


def test_labels_of_nearly_as_many_scenes_are_not_called_groups():
    for scenes, told in ((29, False), (15, True)):
        record = {"groups": {"labels": 30, "scenes": scenes}}
        assert ("groups (sites" in " ".join(summary(run(record), "photos"))) == told


def test_the_data_the_accuracy_and_the_forecast_are_said_in_this_order():
    said = summary(run({"forecast": [estimate(0.8, 0.7, 0.9) | {"labels": 120}]}), "photos")
    assert said[0].startswith("2,020 images: 60 with a label, 1,960 without; 3 classes: cat, dog")
    assert said[1] == "About 75 % right on new images (59–87 %, nine times in ten)."
    assert said[2] == "With 120 labels: about 80 % right (70–90 %)."
    where = "The report says how to learn what more labels should bring."
    for rough, others, interim, told in (
        (True, {}, False, 1),
        (True, {}, True, 0),
        (False, {}, False, 0),
        (True, {"guessing": True}, False, 0),
        (True, {"accuracy": 0.999}, False, 0),
    ):
        record = {"estimate": estimate(rough=rough, **others), "interim": interim}
        assert summary(run(record), "photos").count(where) == told


def test_a_weak_class_is_named_with_what_it_is_taken_for():
    pairs = [("cat", "cat")] * 10 + [("dog", "dog")] * 4 + [("dog", "fox")] * 6
    assert _weak(pairs) == [("dog", 10, 4, "fox", 6)]
    assert _weak([("cat", "cat")] * 10 + [("dog", "fox")] * 2) == []  # too few to tell
    assert _weak([("cat", "cat")] * 10 + [("dog", "dog")] * 9 + [("dog", "fox")]) == []


def test_a_class_is_weak_where_chance_would_hardly_give_so_few_right_answers():
    def of(name, right, n):
        return [(name, name)] * right + [(name, "fox")] * (n - right)

    easy = of("cat", 36, 40)
    assert _weak(easy + of("dog", 4, 7)) == [("dog", 7, 4, "fox", 3)]
    assert _weak(of("cat", 30, 40) + of("dog", 4, 7)) == []  # probability 0.30
    both = _weak(easy + of("dog", 4, 7) + of("ox", 0, 4))
    assert [weak.name for weak in both] == ["ox"]  # the average is lower with it
    larger = _weak(easy + of("dog", 5, 20) + of("ox", 0, 3))
    assert [weak.name for weak in larger] == ["dog", "ox"]  # 0 of 3 is less sure than 5 of 20


def test_a_weak_class_is_told_of_the_labels_that_count_as_in_the_report(tmp_path):
    labels, predicted = ["file,label,origin"], ["file,label,guess"]
    for i in range(30):
        label = "cat" if i < 10 else "ox"
        guess = "monkey" if i < 4 else "ox" if i < 7 else label
        labels.append(f"{i}.png,{label},{'chosen' if i < 4 else 'random'}")
        predicted.append(f"{i}.png,{label},{guess}")
    (tmp_path / "out-of-fold.csv").write_text("\n".join(predicted))
    this = SimpleNamespace(folder=tmp_path)
    assert weak_classes(this) == [("cat", 10, 3, "monkey", 4)]  # an older run without labels.csv
    (tmp_path / "labels.csv").write_text("\n".join(labels))
    assert weak_classes(this) == [("cat", 6, 3, "ox", 3)]
    (tmp_path / "labels.csv").write_text("\n".join(labels).replace("random", "chosen", 2))
    assert weak_classes(this) == []  # one of four may be wrong by chance


@pytest.mark.parametrize(
    "now, said", [(0.55, "two"), (0.751, "two"), (0.8, "two"), (0.3, "worse"), (0.98, "")]
)
def test_a_run_is_compared_with_the_earlier_one_as_far_as_the_labels_tell(now, said):
    earlier = {"estimate": estimate(0.75, 0.6, 0.87), "labeled": 40}
    record = {"after": earlier, "estimate": estimate(now, now - 0.1, now + 0.1)}
    text = " ".join(summary(run(record), "photos"))
    assert "The earlier run, from 40 labels: about 75 % right" in text
    for word, sentence in (
        ("two", "These labels cannot tell the two runs apart."),
        ("worse", "It is worse than before"),
    ):
        assert (sentence in text) == (word == said), text


def test_sure_answers_are_offered_where_they_are_better_than_all_answers():
    def sure(least):
        row = {"sure": least, "share": 0.5}
        return " ".join(summary(run({"estimate": estimate(abstentions=[row])}), "photos"))

    assert "--abstain 0.9" in sure(0.9)
    assert "--abstain" not in sure(0.7)


def test_a_few_groups_are_no_proof_of_guessing():
    few = how_right(estimate(0.96, 0.3, 1.0, n=50, guessing=True), groups=5)
    assert few == (
        "how often it is right on new images cannot be told from 5 groups (sites, scenes or "
        "copies); label images of more of them"
    )
    assert how_right(estimate(0.5, 0.4, 0.6, n=50, guessing=True), groups=40).startswith(
        "no better"
    )


def test_folders_that_may_be_sites_are_named_where_their_names_tell_nothing():
    sites = {"east/1.png": "east", "west/2.png": "west"}
    old = {"data": {}}  # of a version that did not record it
    assert labels_by_folder(old, sites)
    assert not labels_by_folder(old, sites | {"west/3.png": "fox"})
    assert not labels_by_folder(old, {})
    assert not labels_by_folder({"data": {"labels_by_folder": False}}, sites)
    said = how_right(estimate(guessing=True), by_folder=True)
    assert said.startswith("no better than guessing") and "--folders groups" in said
    assert "--folders" not in how_right(estimate(guessing=True))


def test_a_bound_has_its_reason():
    bound = estimate(0.999, 0.56, 1.0, n=50)
    said = how_right(bound, groups=5)
    assert said.startswith("above about 56 % right on new images. This is the lower end")
    assert "they are of 5 groups (sites, scenes or copies) only" in said
    assert "too few are wrong for a figure" in how_right(bound)


def test_an_interim_figure_is_no_bound():
    """The bound of the better of two classifiers may be the lower one."""
    assert so_far(estimate()) == about_right(estimate())
    few = so_far(estimate(0.8, 0.51, 0.9, n=11))
    assert few == "no figure yet: 11 labels count towards it, and it takes 20"
    assert "%" not in so_far(estimate(1.0, 0.56, 1.0, n=50))


@pytest.mark.parametrize(
    "found, why",
    [
        (estimate(), ""),
        (estimate(0.97, 0.41, 1.0, n=36, guessing=True), "guessing"),
        (estimate(0.97, 0.41, 1.0, n=12, guessing=True), "few"),
        (estimate(None, None, None, n=0, how="no estimate: every label was chosen"), "unknown"),
        (estimate(1.0, 0.84, 1.0, n=24), "all"),
    ],
)
@pytest.mark.parametrize("groups", [0, 3])
def test_no_figure_is_said_on_the_way_that_the_end_withholds(found, why, groups):
    assert withheld(found) == why
    about = f"about {100 * (found['accuracy'] or 0):.0f} %"
    said = [so_far(found, groups), how_right(found, groups), about_right(found)]
    told = [about in text for text in said]
    if found["accuracy"] is not None:
        told.append(about in headline(found).value.replace(NBSP, " "))
    assert set(told) == {not why}
    few_groups = "3 groups" in so_far(found, groups)
    assert few_groups == (why == "guessing" and groups == 3)


def test_a_figure_that_is_withheld_is_not_said_to_be_for_new_groups():
    groups = {"labels": 60, "scenes": 3}
    told = " ".join(summary(run({"estimate": estimate(guessing=True), "groups": groups}), "photos"))
    assert "cannot be told from 3 groups" in told and "the figure is" not in told
    assert told.count("3 groups") == 1
    more = {"estimate": estimate(guessing=True), "groups": {"labels": 60, "scenes": 30}}
    told = " ".join(summary(run(more), "photos"))
    assert "are of 30 groups" in told and "the figure is" not in told
    told = " ".join(summary(run({"groups": groups}), "photos"))
    assert "of 3 groups" in told and "the figure is for images of new groups" in told


def test_classes_that_differ_in_spelling_are_in_the_summary():
    record = run().record | {"data": run().record["data"] | {"classes": ["Dog", "cat", "dog"]}}
    said = summary(run(record), "photos")
    assert any(
        line.startswith("Classes that differ in spelling only: 'Dog', 'dog'") for line in said
    )
