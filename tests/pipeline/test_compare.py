"""Comparisons: cells on common draws, computed once, scored on the test part."""

import json
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from handful import cli
from handful.cli import terminal
from handful.pipeline import compare
from handful.pipeline.compare import Cell, Comparison, spread
from handful.progress import Reporter
from tiny import stripes

SETTINGS = {
    "supervised.steps": "3",
    "supervised.backbone.base": "8",
    "self_training.rounds": "1",
}


@pytest.fixture(scope="module")
def images():
    """60 labelled training images and a test part of 20."""
    every = stripes(80, size=16, labeled=80)
    return replace(every[np.arange(60)], test=every[np.arange(60, 80)])


def run(images, out, names=("supervised", "self_training"), draws=range(2), **changes):
    settings = {key: value for key, value in SETTINGS.items() if key.split(".")[0] in names}
    changes = {"settings": settings, "estimate": "none", "precision": "fp32", "size": 16} | changes
    return compare.compare(images, names, draws, 4, out, **changes)


@pytest.fixture
def fits(monkeypatch):
    """Every fit in order: (method, draw), images and run."""
    made = []
    fit = compare.fit

    def watched(images, method, **changes):
        done = fit(images, method, **changes)
        made.append(((method, changes["seed"]), images, done))
        return done

    monkeypatch.setattr(compare, "fit", watched)
    return made


def given(**accuracies):
    names = tuple(accuracies)
    draws = tuple(range(len(accuracies[names[0]])))
    cells = tuple(
        Cell(name, draw, accuracies[name][draw], None, 1.0) for draw in draws for name in names
    )
    return Comparison(names, draws, cells)


def test_a_paired_interval_is_the_one_worked_out_by_hand():
    found = given(a=[0.80, 0.70, 0.60], b=[0.82, 0.74, 0.66]).as_json()
    # Differences 0.02, 0.04, 0.06: mean 0.04, deviation 0.02. Student's t for 90 % and two degrees
    # of freedom is 2.919986, so the interval is 0.04 +- 2.919986 * 0.02 / sqrt(3) = 0.0337171.
    (pair,) = found["paired"]
    assert (pair["a"], pair["b"], pair["n"]) == ("b", "a", 3)
    assert pair["difference"] == pytest.approx(0.04)
    assert pair["low"] == pytest.approx(0.0062829, abs=1e-6)
    assert pair["high"] == pytest.approx(0.0737171, abs=1e-6)
    of_a = found["summary"][0]
    assert (of_a["method"], of_a["n"]) == ("a", 3)
    assert (of_a["mean"], of_a["std"]) == pytest.approx((0.7, 0.1))
    assert of_a["high"] - of_a["mean"] == pytest.approx(2.919986 * 0.1 / math.sqrt(3), abs=1e-6)


def test_one_draw_has_no_interval():
    found = given(a=[0.8], b=[0.9], c=[0.9]).as_json()
    assert found["summary"][0] == {
        "method": "a", "mean": 0.8, "std": None, "low": None, "high": None, "n": 1,
    }  # fmt: skip
    assert [(pair["a"], pair["b"]) for pair in found["paired"]] == [
        ("b", "a"), ("c", "a"), ("c", "b"),
    ]  # fmt: skip
    assert found["paired"][0]["low"] is None


def test_equal_values_have_an_interval_of_no_width():
    assert spread([0.5, 0.5, 0.5]) == (0.5, 0.0, 0.5, 0.5, 3)


@pytest.mark.thorough
def test_every_method_sees_the_same_labels_of_a_draw_and_no_test_part(images, fits, tmp_path):
    found = run(images, tmp_path / "cmp", estimate="folds", draws=[3])
    (_, first, _), (_, second, _) = fits
    assert np.array_equal(first.labels, second.labels)
    assert (first.labels >= 0).sum() == 8
    assert first.test is second.test is None
    for cell, (key, _, done) in zip(found.cells, fits, strict=True):
        assert (cell.method, cell.draw) == key
        assert cell.test_accuracy == done.evaluate(images.test).accuracy
        assert cell.estimate == done.estimate
        assert cell.estimate["low"] <= cell.estimate["high"]


@pytest.mark.thorough
def test_a_killed_comparison_goes_on_after_its_finished_cells(images, monkeypatch, tmp_path):
    straight = run(images, tmp_path / "straight")
    fit, made = compare.fit, []

    def killed(images, method, **changes):
        if made:
            raise KeyboardInterrupt
        made.append(method)
        return fit(images, method, **changes)

    monkeypatch.setattr(compare, "fit", killed)
    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path / "cmp")
    kept = {path.name for path in (tmp_path / "cmp").iterdir()}
    assert kept == {"fingerprint.json", "supervised-0.json"}
    monkeypatch.setattr(compare, "fit", fit)
    first = (tmp_path / "cmp" / "supervised-0.json").read_text()
    resumed = run(images, tmp_path / "cmp")
    assert (tmp_path / "cmp" / "supervised-0.json").read_text() == first
    assert [replace(cell, seconds=0) for cell in resumed.cells] == [
        replace(cell, seconds=0) for cell in straight.cells
    ]


@pytest.mark.thorough
def test_cells_share_the_features_of_an_image(tmp_path, monkeypatch):
    from handful.models import feature_cache

    every = stripes(80, size=16, labeled=80, seed=7)  # images that no other test has embedded
    images = replace(every[np.arange(60)], test=every[np.arange(60, 80)])
    seen, embed = [], feature_cache.compute_features

    def counted(images, *rest, **how):
        seen.append(len(images))
        return embed(images, *rest, **how)

    monkeypatch.setattr(feature_cache, "compute_features", counted)
    found = run(images, tmp_path / "cmp", names=("features", "self_training"), estimate="folds")
    assert len(found.cells) == 4
    assert sum(seen) == 60 + 20  # folds, draws and methods embed none again


@pytest.mark.thorough
def test_finished_cells_are_not_made_again_and_draws_may_be_added(images, fits, tmp_path):
    run(images, tmp_path / "cmp", names=["supervised"])
    assert [key for key, *_ in fits] == [("supervised", 0), ("supervised", 1)]
    found = run(images, tmp_path / "cmp", draws=range(3))
    assert [key for key, *_ in fits[2:]] == [
        ("self_training", 0), ("self_training", 1), ("supervised", 2), ("self_training", 2),
    ]  # fmt: skip
    assert len(found.cells) == 6
    assert json.loads((tmp_path / "cmp" / "comparison.json").read_text()) == found.as_json()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"estimate": "folds"}, "comparison of other images, labels per class or estimates"),
        ({"settings": {"supervised.steps": "4"}}, "supervised with other settings"),
    ],
)
def test_another_comparison_in_the_same_folder_is_refused(images, tmp_path, changes, message):
    run(images, tmp_path / "cmp", names=["supervised"], draws=[0])
    with pytest.raises(ValueError, match=message):
        run(images, tmp_path / "cmp", names=["supervised"], draws=[0], **changes)


def test_a_folder_with_other_files_is_refused(images, tmp_path):
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files"):
        run(images, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": []}, "got 0 methods and 2 draws"),
        ({"names": ["supervised"] * 2}, "'supervised' is named twice"),
        ({"names": ["supervize"]}, "Did you mean 'supervised'"),
        ({"settings": {"features.folds": "3"}}, "features.folds is for a method that is not"),
        ({"settings": {"steps": "3"}}, "self_training: no setting 'steps'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(images, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        run(images, tmp_path / "cmp", **changes)
    assert not (tmp_path / "cmp").exists()


@pytest.mark.thorough
def test_permuting_the_test_labels_changes_no_weight_and_no_choice(images, fits, tmp_path):
    labels = np.random.default_rng(0).permutation(images.test.labels)
    assert (labels != images.test.labels).any()
    permuted = replace(images, test=images.test.with_labels(labels))
    plain = run(images, tmp_path / "plain", draws=[0], estimate="folds")
    other = run(permuted, tmp_path / "permuted", draws=[0], estimate="folds")
    for (_, _, one), (_, _, two) in zip(fits[:2], fits[2:], strict=True):
        weights = [done.predictor.model.state_dict() for done in (one, two)]
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
        assert one.record["fingerprint"] == two.record["fingerprint"]
        assert one.record["method"] == two.record["method"]
    for one, two in zip(plain.cells, other.cells, strict=True):
        assert one.estimate == two.estimate
    assert plain.accuracies("self_training") != other.accuracies("self_training")


def handful(*words):
    sys.argv = ["handful", *map(str, words)]
    try:
        cli.main()
        return 0
    except SystemExit as leaving:
        return leaving.code or 0


WORDS = ["compare", "digits", "--per-class", 3, "--draws", 2, "--estimate", "none"]
QUICK = ["--set", "steps=3", "--set", "backbone.base=8", "--methods", "supervised"]


@pytest.mark.thorough
def test_the_command_prints_one_object_and_then_every_draw(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", [])
    words = [*WORDS, *QUICK, "--first-draw", 5, "--out", tmp_path / "cmp"]
    assert handful(*words, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"data", "command", "changed", "cells", "summary", "paired"}
    assert found["changed"] == {"steps": "3", "backbone.base": "8", "estimate": "none"}
    assert [cell["draw"] for cell in found["cells"]] == [5, 6]
    assert set(found["cells"][0]) == {
        "method",
        "draw",
        "test_accuracy",
        "estimate",
        "seconds",
        "trouble",
    }
    assert found["summary"][0]["n"] == 2
    assert found["paired"] == []
    assert handful(*words) == 0  # every cell is known: only printed
    table = capsys.readouterr().out
    for draw, cell in zip((5, 6), found["cells"], strict=True):
        assert any(
            str(draw) in line and f"{100 * cell['test_accuracy']:.1f}" in line
            for line in table.splitlines()
        )


def test_the_interval_of_a_mean_accuracy_ends_at_100_per_cent(capsys):
    terminal.print_comparison(given(a=[1.0, 0.9, 1.0]))
    assert "86.9 to 100.0" in capsys.readouterr().out
    low, high = (given(a=[0.0, 0.1, 0.0]).as_json()["summary"][0][end] for end in ("low", "high"))
    assert (low, round(high, 3)) == (0.0, 0.131)


def test_differences_to_the_first_method_are_on_screen(capsys):
    terminal.print_comparison(given(a=[0.80, 0.70, 0.60], b=[0.82, 0.74, 0.66]))
    printed = capsys.readouterr().out
    assert "minus a" in printed and "+4.0" in printed and "+0.6 to +7.4" in printed


def test_what_went_wrong_in_a_cell_is_said_kept_and_printed(images, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(
        "handful.training.failure.FailureDetector.nothing_learned", lambda *_: "nothing was learned"
    )
    said = []
    changes = {"names": ["supervised"], "draws": [0]}
    changes["settings"] = {"steps": "3", "backbone.base": "8"}
    reporter = Reporter(say=said.append)
    (cell,) = run(images, tmp_path / "cmp", **changes, reporter=reporter).cells
    assert cell.trouble.startswith("nothing was learned; the averaged weights of step ")
    assert said[-1].endswith(f"; its training went wrong: {cell.trouble}")
    plan = "1 cell to fit: supervised, 1 draw; a cell of supervised trains a network"
    assert said[0] == f"{plan}, which may take minutes"
    assert f"{plan} 5 times, which" in compare._plan([(0, "supervised")], 0, "folds")
    assert compare._plan([(0, "features")], 2, "folds").endswith("1 draw; 2 are there already")
    known = run(images, tmp_path / "cmp", **changes, reporter=Reporter(say=said.append))
    assert known.cells == (cell,) and len(said) == 2
    terminal.print_comparison(known)
    assert f"supervised, draw 0: training went wrong: {cell.trouble}" in capsys.readouterr().out
    path = tmp_path / "cmp" / "supervised-0.json"
    old = json.loads(path.read_text())
    del old["trouble"]  # as cells of older versions have it
    path.write_text(json.dumps(old))
    assert run(images, tmp_path / "cmp", **changes).cells[0].trouble == ""


def test_a_source_without_a_test_part_is_told_what_to_do(capsys, images, tmp_path):
    with pytest.raises(ValueError, match="no labelled test part .* --test-fraction 0.3"):
        run(images[:], tmp_path / "cmp")


def test_a_budget_is_of_every_fit_and_a_part_of_what_a_cell_is(images, tmp_path, monkeypatch):
    given = []

    def fitted(images, method, **changes):
        given.append(changes["budget"])
        raise KeyboardInterrupt

    monkeypatch.setattr(compare, "fit", fitted)
    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path / "cmp", budget=7.0)
    assert given == [7.0]
    options = {"precision": "fp32", "size": 16}
    names = [
        compare._fingerprint_of(images, "supervised", 4, 0, {}, options | more)
        for more in ({}, {"budget": None}, {"budget": 7.0}, {"budget": 8.0})
    ]
    assert names[0] == names[1] and len(set(names)) == 3


def test_a_folder_without_a_test_part_is_refused_before_an_image_is_read(
    handful, tmp_path, monkeypatch
):
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "1.png").write_bytes(b"not read")
    monkeypatch.setattr("handful.data.sources.load", lambda *_, **__: pytest.fail("read"))
    words = ["compare", tmp_path / "photos", "--per-class", 1, "--out", tmp_path / "cmp"]
    status, _, err = handful(*words)
    assert status == 2 and "no test part to compare on" in err
    assert not (tmp_path / "cmp").exists()
