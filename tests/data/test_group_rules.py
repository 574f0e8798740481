"""`--groups`: which rules are taken, and how they group images by folders and names."""

import numpy as np
import pytest

from handful.data.checks import check
from handful.data.grouping.rules import (
    check_rule,
    folder_key,
    grouped_by_rule,
    joined,
    linked,
    safe_to_repeat,
)
from handful.data.sources import load
from handful.errors import HandfulError
from image_files import save


def groups_of(images):
    """The names of the images of each group."""
    found = {}
    for name, group in zip(images.names, images.groups, strict=True):
        found.setdefault(int(group), set()).add(name)
    return sorted(found.values(), key=sorted)


@pytest.fixture
def tracks(tmp_path):
    names = ["cat/a/01_1.png", "cat/a/01_2.png", "cat/b/02_1.png", "cat/x.png", "dog/a/01_3.png"]
    for seed, name in enumerate([*names, "dog/y.png"]):
        save(tmp_path / name, seed=seed)
    return load(tmp_path)


@pytest.mark.parametrize("rule", ["none", "auto", "folder", "^([0-9]+)_", r"(?P<who>\w+)-\d"])
def test_words_and_regular_expressions_are_rules(rule):
    check_rule(rule)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("(", "and '(' is none: missing ), unterminated subpattern"),
        ("", "of at most 200 characters, got 0"),
        ("a" * 201, "of at most 200 characters, got 201"),
        ("[0-9]*", "matches nothing at all too"),
    ],
)
def test_what_is_no_rule_is_refused_and_an_example_is_given(rule, said):
    with pytest.raises(HandfulError) as error:
        check_rule(rule)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).startswith("groups is none, auto, folder or a regular expression")


def test_a_rule_of_a_stranger_is_repeated_only_if_it_is_fast_for_all_names():
    assert safe_to_repeat("^([0-9]+)_") and safe_to_repeat("patient[0-9]{3}")
    assert not safe_to_repeat("(a+)+$") and not safe_to_repeat(r"(a)\1")
    assert not safe_to_repeat(".*.*.*.*x") and not safe_to_repeat("(a|aa)*")


def test_folders_below_the_class_are_groups_and_other_images_are_alone(tracks):
    grouped = grouped_by_rule(tracks, "folder")
    assert groups_of(grouped) == [
        {"cat/a/01_1.png", "cat/a/01_2.png", "dog/a/01_3.png"},
        {"cat/b/02_1.png"},
        {"cat/x.png"},
        {"dog/y.png"},
    ]
    assert grouped.grouped_by == "folder" and tracks.groups is None


def test_the_first_bracket_of_a_match_is_the_group_else_the_whole_match(tracks):
    by_bracket = grouped_by_rule(tracks, "^([0-9]+)_")
    assert {"cat/a/01_1.png", "cat/a/01_2.png", "dog/a/01_3.png"} in groups_of(by_bracket)
    assert len(groups_of(by_bracket)) == 4
    by_match = grouped_by_rule(tracks, "^[0-9]+_")
    assert groups_of(by_match) == groups_of(by_bracket)
    frames = grouped_by_rule(tracks, "^[0-9]+_([0-9]+)")  # the bracket is not at the beginning
    assert {"cat/a/01_1.png", "cat/b/02_1.png"} in groups_of(frames)
    by_path = grouped_by_rule(tracks, "^(.+)/[0-9]+_")
    assert {"cat/a/01_1.png", "cat/a/01_2.png"} in groups_of(by_path)
    assert {"dog/a/01_3.png"} in groups_of(by_path)


def test_copies_stay_in_one_group(tmp_path):
    for seed, name in [
        (1, "cat/1_a.png"),
        (2, "cat/2_a.png"),
        (2, "dog/3_a.png"),
        (3, "dog/3_b.png"),
    ]:
        save(tmp_path / name, seed=seed)
    grouped = load(tmp_path, groups="^([0-9])")
    assert {"cat/2_a.png", "dog/3_a.png", "dog/3_b.png"} in groups_of(grouped)


def test_groups_of_the_source_count_whatever_the_rule(tmp_path):
    for seed in range(4):
        save(tmp_path / f"{seed}_a.png", seed=seed)
    table = tmp_path / "labels.csv"
    rows = ["0_a.png,x,ann", "1_a.png,x,ann", "2_a.png,y,bob", "3_a.png,y,bob"]
    table.write_text("\n".join(["file,label,group", *rows]))
    images = load(tmp_path, table, groups="^([0-9])")
    assert images.grouped_by == "source" and len(groups_of(images)) == 2


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("^([a-z]{9})", "finds no group: SOURCE has no names that match '^([a-z]{9})'"),
        ("(png)", "puts every image into the one group 'png'"),
    ],
)
def test_a_rule_that_tells_no_groups_apart_is_refused(tracks, rule, said):
    with pytest.raises(HandfulError) as error:
        grouped_by_rule(tracks, rule)
    assert said.replace("SOURCE", tracks.source) in str(error.value)


def test_a_test_part_is_drawn_without_splitting_the_groups_of_a_rule(tmp_path):
    for seed in range(40):
        save(tmp_path / "ab"[seed % 2] / f"{seed // 4}_{seed}.png", seed=seed)
    images = load(tmp_path, groups="^([0-9]+)_", test_fraction=0.3)
    assert not set(images.groups) & set(images.test.groups)
    assert "groups" not in {problem.kind for problem in check(images, near=False).problems}


def test_the_folder_of_the_class_is_no_group():
    assert folder_key("train/cat/site 1/a.png", "cat") == "site 1"
    assert folder_key("train/cat/a.png", "cat") is None
    assert folder_key("site/a.png", None) == "site" and folder_key("a.png", "cat") is None


def test_joining_follows_chains_of_groups_keys_and_pairs():
    assert joined(np.array([0, 1, 2, 3]), ["a", None, "a", None]).tolist() == [0, 1, 0, 2]
    assert linked(np.array([5, 5, 7, 9]), np.array([[1, 2]])).tolist() == [0, 0, 0, 1]
    assert linked(np.empty(0, np.int64), np.empty((0, 2), np.int64)).tolist() == []
