"""A run that an earlier version left stays readable, and answers as it did.

tests/fixtures/run-of-0.1 was made at commit 88c1d4e: 20 labelled digits, 40 steps.
"""

import csv
import json
import shutil
from pathlib import Path

import pytest

import handful
from handful import report

FIXTURE = Path(__file__).parents[1] / "fixtures" / "run-of-0.1"


@pytest.fixture
def old(tmp_path):
    return Path(shutil.copytree(FIXTURE, tmp_path / "old"))


@pytest.fixture(scope="module")
def digits():
    return handful.load("digits")


def test_an_old_run_predicts_what_it_predicted(old, digits):
    with open(old / "predictions.csv", newline="") as file:
        before = list(csv.DictReader(file))
    at = {name: position for position, name in enumerate(digits.names)}
    rows = [at[row["file"]] for row in before]
    now = handful.open_run(old).predict(digits[rows])
    assert list(now.labels) == [row["label"] for row in before]
    shares = [[float(row[f"p({name})"]) for name in now.classes] for row in before]
    assert abs(now.probabilities.numpy() - shares).max() < 1e-3


def test_an_old_run_scores_as_it_did(old, digits):
    scored = handful.open_run(old).evaluate(digits.test).as_json()
    before = json.loads((old / "test.json").read_text())
    assert scored["n"] == before["n"]
    assert scored["accuracy"] == pytest.approx(before["accuracy"], abs=1.5 / before["n"])


def test_an_old_run_has_its_estimate(old):
    run = handful.open_run(old)
    assert run.estimate["low"] < run.estimate["accuracy"] < run.estimate["high"]


def test_a_share_that_rounding_put_above_one_is_read_as_one(old):
    path = old / "run.json"
    record = json.loads(path.read_text())
    for written, read in ((1.0000000000000004, 1.0), (0.9999999, 0.9999999)):
        path.write_text(json.dumps(record | {"estimate": record["estimate"] | {"high": written}}))
        assert handful.open_run(old).estimate["high"] == read
    path.write_text(json.dumps(record | {"estimate": record["estimate"] | {"high": 1.0001}}))
    with pytest.raises(handful.HandfulError, match="estimate.high"):
        handful.open_run(old)


def test_an_old_run_gets_a_report(handful, old, tmp_path):
    status, _, said = handful("report", old, "--out", tmp_path / "report.html")
    assert status == 0, said
    assert "supervised" in (tmp_path / "report.html").read_text()


@pytest.mark.thorough
def test_a_fit_goes_on_from_an_old_run(handful, old, tmp_path):
    words = ["--per-class", 2, "--draw", 1, "--after", old, "--set", "steps=2"]
    words += ["--method", "supervised", "--estimate", "none"]
    status, _, said = handful("fit", "digits", *words, "--out", tmp_path / "next")
    assert status == 0, said
    assert json.loads((tmp_path / "next" / "run.json").read_text())["data"]["labeled"] == 20


@pytest.mark.parametrize("key", ["abstentions", "caveats", "balanced_accuracy"])
def test_a_key_inside_the_record_that_was_not_written_has_its_default(old, key):
    record = json.loads((old / "run.json").read_text())
    assert record["estimate"].pop(key, None) is not None or key == "balanced_accuracy"
    (old / "run.json").write_text(json.dumps(record))
    assert key in handful.open_run(old).estimate
    assert "estimate" in report.render([old])
