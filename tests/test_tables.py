"""The tables in README.md and docs/ say what the lines in benchmarks/results/ say."""

import subprocess
import sys
from pathlib import Path

import pytest

from handful.methods import METHODS

ROOT = Path(__file__).parent.parent


def test_the_tables_are_those_of_the_results():
    command = [sys.executable, str(ROOT / "benchmarks" / "tables.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_section_with_its_settings_and_figures(name):
    page = (ROOT / "docs" / "methods.md").read_text()
    assert f": `{name}`\n" in page
    assert f"<!-- table settings_{name} -->" in page and f"<!-- table figures_{name} -->" in page


def test_every_setting_has_a_comment_beside_it(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from fields import settings

    bare = [
        f"{name}.{field.name}"
        for name, method in METHODS.items()
        for field in settings(method)
        if not field.comment
    ]
    assert not bare
