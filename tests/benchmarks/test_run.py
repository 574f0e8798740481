"""`python -m benchmarks run` finds every benchmark, and each says what it does."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as command_line
from benchmarks.lib import paths, record

NAMES = command_line.modules()


def command(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["benchmarks", *words])
    command_line.main()


def test_without_a_name_all_are_listed_with_a_line_each(monkeypatch, capsys):
    command(monkeypatch, "run")
    printed = capsys.readouterr().out
    assert all(re.search(rf"^  {name} +\S", printed, re.MULTILINE) for name in NAMES)


def test_without_a_command_it_says_what_there_is(monkeypatch, capsys):
    command(monkeypatch)
    printed = capsys.readouterr().out
    for name in ("run", "tables", "resources", "check"):
        assert re.search(rf"^ +{name}\b", printed, re.MULTILINE)


def test_an_unknown_name_is_answered_with_those_there_are(monkeypatch):
    with pytest.raises(SystemExit, match=r"no benchmark drows; there are:\n[\s\S]*draws"):
        command(monkeypatch, "run", "drows")


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")  # what a benchmark imports may warn
@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_says_what_it_does_and_how_it_is_called(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as done:
        command(monkeypatch, "run", name, "--help")
    assert done.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith("usage: ") and f"python -m benchmarks run {name}" in printed
    assert command_line.first_line(NAMES[name]) in printed


def test_a_command_is_recorded_as_it_is_typed(monkeypatch):
    monkeypatch.setenv("HANDFUL_DATA", "/data")
    words = ["try", "/data/photos", "--set", "a=b c", "--out", "runs/one"]
    monkeypatch.setattr(sys, "argv", ["draws", *words])
    typed = "python -m benchmarks run draws try $HANDFUL_DATA/photos --set 'a=b c'"
    assert record.shown_command() == typed


def test_tests_that_benchmarks_use_are_found(monkeypatch):
    monkeypatch.setattr(sys, "path", [one for one in sys.path if "tests" not in Path(one).parts])
    paths.import_from_tests()
    shared = ("bombs", "soon")
    for name in (*shared, "test_bombs", "test_hostile_runs", "test_kill", "test_sorting_kill"):
        assert importlib.util.find_spec(name), name


@pytest.mark.thorough
def test_the_look_at_behaviour_is_one_file_that_needs_no_other(tmp_path):
    copied = tmp_path / "frozen_behaviour.py"
    copied.write_text(NAMES["frozen_behaviour"].read_text())
    done = subprocess.run([sys.executable, "-I", copied, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--only" in done.stdout, done.stderr
