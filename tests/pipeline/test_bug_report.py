"""`handful bug-report`: what a report of a fault needs, and no name of a user's."""

import json

import pytest

from handful.errors import HandfulError
from handful.pipeline import bug_report
from handful.pipeline.fit import fit
from image_files import class_folder

SECRET = "Rosalind"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose classes, files, folders and command name someone."""
    root = tmp_path_factory.mktemp(SECRET)
    photos = class_folder(root / f"{SECRET}-photos", classes=(f"{SECRET} cat", f"{SECRET} dog"))
    command = ["fit", str(photos), f"--out={root}/{SECRET}", "--prior", f"{SECRET} cat=0.5"]
    settings = {"steps": 1, "batch": 4, "backbone.base": 8}
    return fit(
        photos,
        "supervised",
        settings=settings,
        precision="fp32",
        estimate="none",
        pictures=False,
        out=root / "run",
        command=command,
        groups=f"({SECRET}|.)[.]png",
    ).folder


def test_a_report_has_figures_and_options_and_no_name(run, handful, monkeypatch):
    monkeypatch.setenv("HANDFUL_DATA", f"/home/{SECRET}")
    status, out, _ = handful("bug-report", run)
    assert status == 0
    assert SECRET not in out
    assert str(run.parent) not in out
    for said in (
        '"labeled": 6',
        "classes: 2",
        '["fit", "--out", "--prior"]',
        "supervised",
        "torch",
    ):
        assert said in out
    assert '"HANDFUL_DATA": "set"' in out


def test_a_report_is_json_too(run, handful):
    _, out, _ = handful("bug-report", run, "--json")
    found = json.loads(out)
    assert found["run"]["data: numbers"]["labeled"] == 6
    assert found["machine"]["backbones"] == sorted(found["machine"]["backbones"])


def test_a_record_of_a_stranger_shows_no_text_of_its_own(run, tmp_path):
    record = json.loads((run / "run.json").read_text())
    bad = f"/home/{SECRET}\x1b[2J"
    for part, key in (("method", "name"), ("backbone", "name"), ("input", "aspect")):
        record[part][key] = bad
    record["versions"] = {"torch": bad}
    record["training"]["device"] = bad
    record["data"]["labeled"] = 7
    (tmp_path / "run.json").write_text(json.dumps(record))
    text = bug_report.as_text(bug_report.about_run(tmp_path))
    assert SECRET not in text
    assert "\x1b" not in text
    assert '"labeled": 7' in text


def test_a_report_comes_about_where_a_package_fails(monkeypatch):
    def broken():
        raise OSError("libtorch.so is damaged")

    monkeypatch.setattr(bug_report, "_device", broken)
    assert bug_report.about_machine()["device"] == "not known (OSError)"


def test_a_folder_without_a_run_is_said(tmp_path):
    with pytest.raises(HandfulError, match="holds no run.json; give the folder"):
        bug_report.about_run(tmp_path)
