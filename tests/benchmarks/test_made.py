"""Tables and resources are what the lines in benchmarks/results/ give, and `check` notices."""

import sys

import pytest

from benchmarks import __main__ as command_line
from benchmarks.lib import made


def command(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["benchmarks", *words])
    command_line.main()


@pytest.mark.thorough
def test_everything_is_what_the_results_give():
    assert made.stale() == []


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A page with one fresh table, beside nothing else."""
    page = tmp_path / "page.md"
    page.write_text("Before.\n\n<!-- table one -->\n| 96.5 % |\n<!-- end -->\n\nAfter.\n")
    monkeypatch.setattr(made, "PAGES", (page,))
    monkeypatch.setattr(made, "TABLES", {"one": lambda: "| 96.5 % |"})
    monkeypatch.setattr(made, "RESOURCES", {})
    return page


def test_check_says_nothing_of_what_is_fresh(page, monkeypatch):
    command(monkeypatch, "check")


def test_check_names_a_table_with_a_changed_figure(page, monkeypatch):
    whole = page.read_text()
    page.write_text(whole.replace("96.5", "97.5"))
    with pytest.raises(SystemExit, match="page.md: table one"):
        command(monkeypatch, "check")
    command(monkeypatch, "tables")
    assert page.read_text() == whole


def test_check_names_a_resource_with_a_changed_figure(page, tmp_path, monkeypatch):
    resource = tmp_path / "measured.json"
    monkeypatch.setattr(made, "RESOURCES", {resource: lambda: "0.965\n"})
    for stale in (None, "0.975\n"):
        if stale:
            resource.write_text(stale)
        with pytest.raises(SystemExit, match="measured.json"):
            command(monkeypatch, "check")
        command(monkeypatch, "resources")
        assert resource.read_text() == "0.965\n"
        command(monkeypatch, "check")


def test_a_table_that_nobody_makes_is_named(page, monkeypatch):
    page.write_text(page.read_text().replace("table one", "table two"))
    with pytest.raises(SystemExit, match="no table two; there are one"):
        command(monkeypatch, "check")


def test_every_table_has_its_place():
    marked = [found[1] for page in made.PAGES for found in made.MARKED.finditer(page.read_text())]
    assert set(marked) == set(made.TABLES)
