"""What `handful predict` says of its promises."""

import json
import shutil
from pathlib import Path

import pytest

OLD = Path(__file__).parents[1] / "fixtures" / "run-of-0.1"


@pytest.fixture
def run(tmp_path):
    """A run with the thresholds that a function is given."""

    def made(**changes):
        folder = Path(shutil.copytree(OLD, tmp_path / "run"))
        record = json.loads((folder / "run.json").read_text())
        row = {"sure": 0.8, "threshold": 0.6, "share": 0.37, "accuracy": 0.9} | changes
        record["estimate"]["abstentions"] = [row]
        (folder / "run.json").write_text(json.dumps(record))
        return folder

    return made


@pytest.fixture
def photo(tmp_path):
    from image_files import save, smooth

    save(tmp_path / "new" / "1.png", smooth(8, 8, seed=0))
    return tmp_path / "new"


def test_abstaining_is_said_to_be_right_at_least_so_often_for_nine_in_ten_sets(run, photo, handful):
    status, _, said = handful("predict", run(held=0.9), photo, "--abstain", 0.75)
    assert status == 0, said
    words = " ".join(said.split())
    assert "about 37 % of images like the labelled ones get an answer" in words
    assert "at least 80 % of the answers are right, for nine in ten sets of labels" in words


@pytest.mark.parametrize("parts", [[], ["--shard", "1/1", "--out", "parts"]])
@pytest.mark.parametrize("guessing", [False, True])
def test_answers_that_may_be_guesses_are_called_so(run, photo, handful, guessing, parts, tmp_path):
    parts = [tmp_path / word if word == "parts" else word for word in parts]
    folder = run()
    record = json.loads((folder / "run.json").read_text())
    record["estimate"] |= {"n": 60, "guessing": guessing}
    (folder / "run.json").write_text(json.dumps(record))
    status, _, said = handful("predict", folder, photo, *parts)
    assert status == 0, said
    assert ("any of its answers may be a guess" in " ".join(said.split())) == guessing


def test_a_threshold_of_an_earlier_version_is_said_to_be_about_right(run, photo, handful):
    status, _, said = handful("predict", run(), photo, "--abstain", 0.8)
    assert status == 0, said
    words = " ".join(said.split())
    assert "about 80 % of the answers are right: this run was made by an earlier version" in words
    assert "at least 80 %" not in words


def test_more_than_the_labels_show_is_refused_with_the_number_that_it_takes(run, photo, handful):
    status, _, said = handful("predict", run(held=0.9), photo, "--abstain", 0.98)
    words = " ".join(said.split())
    assert status == 2
    assert "cannot promise that 98 % of the answers are right; ask for 0.8 at most" in words
    assert "at least 143 labels that count, all of them predicted rightly" in words
