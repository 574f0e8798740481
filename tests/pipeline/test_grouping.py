"""`fit` keeps images of one scene together: found, typed, given by the source, or not at all."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import handful
from handful.data.grouping.find import Found
from handful.data.sources import load
from handful.errors import HandfulError
from handful.pipeline.earlier_run import earlier_groups
from handful.pipeline.grouping import Grouping, group_images
from handful.pipeline.summary import summary
from handful.progress import QUIET, Reporter
from scenes import frame

QUICK = ["--method", "supervised", "--set", "steps=3", "--set", "backbone.base=8",
         "--precision", "fp32"]  # fmt: skip


@pytest.fixture
def tracks(tmp_path):
    """Two frames of each of 10 scenes, named by scene and frame."""
    root = tmp_path / "photos"
    for scene in range(10):
        for number, move in enumerate([0, 2]):
            path = root / "ab"[scene % 2] / f"{scene:03d}_{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(frame(scene, move)).resize((24, 24)).save(path)
    return root


@pytest.fixture
def fit(handful, tracks, tmp_path):
    def run(out, *words):
        folder = tmp_path / out
        status, _, err = handful("fit", tracks, "--out", folder, *QUICK, *words)
        record = json.loads((folder / "run.json").read_text()) if status == 0 else None
        return status, " ".join(err.split()), record

    return run


def test_found_scenes_are_said_kept_together_and_recorded(fit, tmp_path):
    status, err, record = fit("run")
    assert status == 0, err
    found = (
        "the 20 labelled images show about 10 scenes, judging by images that look almost the same"
    )
    assert f"{found}; images of one scene are kept together" in err
    groups = record["groups"]
    assert (groups["asked"], groups["by"], groups["labels"], groups["scenes"]) == (
        "auto", "found", 20, 10
    )  # fmt: skip
    assert groups["signs"] and groups["likely"] is None
    caveat = record["estimate"]["caveats"][0]
    assert caveat == (
        f"{found}. Images of one scene are kept together, so the figure is for new scenes. If "
        f"these images have nothing to do with each other, fit with --groups none "
        f'(in Python groups="none")'
    )
    screen = " ".join(summary(handful.open_run(tmp_path / "run"), "photos"))
    assert caveat[1:] in screen and "are of 10 groups" not in screen
    again, err, same = fit("run")
    assert again == 0 and "already holds this run" in err
    assert same["fingerprint"] == record["fingerprint"]
    status, err, _ = fit("run", "--groups", "none")
    assert status == 2 and "--overwrite" in err


def test_groups_can_be_turned_off_and_typed_and_after_keeps_them(fit, tmp_path):
    _, err, record = fit("none", "--groups", "none")
    assert record["groups"]["scenes"] == 20 and "scenes, judging by" not in err
    _, err, record = fit("typed", "--groups", "^([0-9]+)_")
    assert record["groups"]["by"] == record["groups"]["asked"] == "^([0-9]+)_"
    assert record["groups"]["scenes"] == 10
    assert "the 20 labels are of 10 groups, by --groups ^([0-9]+)_" in err
    _, _, record = fit("after", "--after", tmp_path / "typed")
    assert record["groups"]["asked"] == "^([0-9]+)_" and record["groups"]["scenes"] == 10
    _, _, record = fit("again", "--after", tmp_path / "typed", "--groups", "none")
    assert record["groups"]["asked"] == "none" and record["groups"]["scenes"] == 20


@pytest.mark.parametrize(
    ("rule", "said"), [("(", "regular expression for file names, and '(' is none"),
                       ("folder", "--groups folder finds no group")],
)  # fmt: skip
def test_a_rule_that_cannot_be_used_is_one_line_and_status_2(fit, rule, said):
    status, err, _ = fit("run", "--groups", rule)
    assert status == 2 and said in err and "Traceback" not in err


def test_without_an_estimate_no_groups_are_looked_for(fit):
    _, err, record = fit("run", "--estimate", "none")
    assert record["groups"]["by"] == "copies" and "judging by" not in err


def test_groups_of_the_source_count_and_a_rule_beside_them_is_named(tracks):
    images = load(tracks)
    images = replace(images, groups=np.arange(20) // 4)
    said = []
    grouped, grouping = group_images(images, "^([0-9]+)_", True, Reporter(say=said.append))
    assert grouped is images and (grouping.by, grouping.scenes) == ("source", 5)
    assert said == ["groups come with the images, so --groups ^([0-9]+)_ is not used"]
    grouped, grouping = group_images(images, None, True, Reporter(say=said.append))
    assert grouping.found is None and len(said) == 1


def test_images_without_a_label_and_the_test_part_keep_their_own_groups(tracks):
    images = load(tracks, test_fraction=0.2)
    labels = images.labels.copy()
    labels[np.arange(len(labels)) % 4 == 3] = -1
    grouped, grouping = group_images(images.with_labels(labels), None, True, QUIET)
    assert grouping.by == "found"
    assert len(grouped.groups) == len(images) and len(grouped.test.groups) == len(images.test)
    assert not set(grouped.groups[grouped.unlabeled]) & set(grouped.groups[grouped.labeled])
    assert not set(grouped.groups) & set(grouped.test.groups)


def likely(count=60, mates=20):
    """`count` labels, of which the first `mates` are two and two of one likely scene."""
    groups = np.arange(count)
    groups[1:mates:2] = groups[0:mates:2]
    found = Found(np.arange(count), (), groups, ("running numbers in the names of files",))
    return Grouping("auto", "copies", count, count, found)


def assessed(right, accuracy=0.8, origins=None, **others):
    figures = {"accuracy": accuracy, "low": 0.7, "high": 0.9, "n": 60, "guessing": False} | others
    return SimpleNamespace(
        estimate=SimpleNamespace(accuracy=accuracy, figures=figures),
        out=SimpleNamespace(right=np.asarray(right, float)),
        origins=origins or ["random"] * len(right),
    )


def test_what_the_figure_would_be_with_likely_groups_comes_from_images_that_are_alone():
    right = np.ones(60)
    right[20:40] = 0  # of the 40 that are alone, half are right; of all, two thirds
    assert likely().accuracy_if_likely(assessed(right)) == pytest.approx(0.8 + 0.5 - 2 / 3)
    assert likely().caveats(assessed(right)) == [
        "perhaps the 60 labelled images show only 50 scenes: judging by running numbers in the "
        "names of files, some seem to belong together. This is not sure, so each counts by itself. "
        "If they do, the figure for new scenes is about 63 % rather than 80 %. To keep them "
        "together, fit with --groups folder, --groups REGEX or a column group in the label file"
    ]
    [withheld] = likely().caveats(assessed(right, guessing=True))
    assert "the figure may be too high" in withheld and " %" not in withheld
    [bound] = likely().caveats(assessed(right, accuracy=1.0))
    assert "is about 83 %. To keep" in bound


def test_groups_that_make_no_difference_are_said_to_make_none():
    right = np.ones(60)
    right[:20] = 0.5  # those in a scene with another one are right less often
    [text] = likely().caveats(assessed(right))
    assert "so the figure should hold" in text and "rather than" not in text


def test_no_figure_is_given_where_few_images_tell():
    assert likely(60, mates=18).accuracy_if_likely(assessed(np.ones(60))) is None
    assert likely().accuracy_if_likely(None) is None
    assert likely().accuracy_if_likely(assessed(np.ones(60), accuracy=None)) is None
    assert "the figure may be too high" in likely().caveats(None)[0]
    chosen = ["random"] * 35 + ["chosen"] * 25
    assert likely().accuracy_if_likely(assessed(np.ones(60), origins=chosen)) is None


def earlier(asked):
    return SimpleNamespace(folder="old/", record={"groups": asked and {"asked": asked}})


def test_an_earlier_run_repeats_what_was_typed_but_no_slow_expression():
    assert earlier_groups(earlier(None)) is None and earlier_groups(earlier("auto")) is None
    assert earlier_groups(SimpleNamespace(folder="old/", record={})) is None
    assert earlier_groups(earlier("folder")) == "folder"
    with pytest.raises(HandfulError, match="may take very long"):
        earlier_groups(earlier("(a+)+$"))
    with pytest.raises(HandfulError, match="is none: missing"):
        earlier_groups(earlier("("))
