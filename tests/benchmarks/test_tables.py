"""The tables in README.md and docs/ agree with the lines in benchmarks/results/."""

from dataclasses import replace
from pathlib import Path

import pytest

import handful
from benchmarks.lib import cells, record
from benchmarks.lib.fields import settings
from benchmarks.lib.tables import budgets, gap, headline, minutes, python, recipes
from handful.methods import METHODS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_section_with_its_settings_and_figures(name):
    page = (ROOT / "docs" / "methods.md").read_text()
    assert f": `{name}`\n" in page
    assert f"<!-- table settings_{name} -->" in page and f"<!-- table figures_{name} -->" in page


def test_the_reference_of_python_names_what_is_public_and_says_what_it_is():
    assert set(python.documented()) == set(handful.__all__)
    rows = python.python_names().splitlines()[2:]
    assert len(rows) > len(handful.__all__)
    assert all(len(row.split(" | ")[1]) > 10 for row in rows)


def test_every_setting_has_a_comment_beside_it():
    bare = [
        f"{name}.{field.name}"
        for name, method in METHODS.items()
        for field in settings(method)
        if not field.comment
    ]
    assert not bare


def timed(name, kind, draw, budget, accuracy, hardware="2 cores"):
    line = {"name": name, "kind": kind, "draw": draw, "per_class": 10, "budget": budget}
    return line | {"figures": {"test_accuracy": accuracy}, "hardware": hardware, "command": "c"}


def test_differences_are_those_of_draws_that_both_have(monkeypatch):
    lines = [
        timed("sign-digits-supervised", "final", 0, "5m", 0.80),
        timed("sign-digits-supervised", "final", 1, "5m", 0.90),
        timed("sign-digits-supervised", "final", 2, "5m", 0.10),
        timed("sign-digits-fixmatch", "final", 0, "5m", 0.82),
        timed("sign-digits-fixmatch", "final", 1, "5m", 0.96),
        timed("sign-digits-fixmatch", "final", 2, "1m", 0.99),
        timed("sign-digits-fixmatch", "final", 2, "5m", 0.99, "1 core"),
        timed("sign-digits-fixmatch", "dev", 2, "5m", 0.99),
        timed("sign-digits-supervised", "final", 0, "5m", 0.70, "1 core"),
    ]
    monkeypatch.setattr(record, "read", lambda file: lines)
    *_, row = minutes.pairs().splitlines()
    names = "`fixmatch` | `supervised`"
    cells = f"| sign-digits | 10 | 5m | 2 cores | {names} | 2 | 85.0 % | 89.0 % | **+4.0** |"
    assert row == f"{cells} -8.6 to +16.6 |"  # 4 ± 6.31 * 2


def test_final_draws_with_a_budget_are_told_apart_by_what_was_given(monkeypatch):
    lines = [
        timed("tin10-simclr size=32", "final", 1, "60m", 0.44),
        timed("tin10-simclr size=32", "final", 0, "60m", 0.40),
        timed("tin10-simclr", "final", 0, "60m", 0.30),
        timed("tin10-simclr", "dev", 1000, "60m", 0.99),
    ]
    monkeypatch.setattr(record, "read", lambda file: lines)
    *_, given, plain = minutes.timed().splitlines()
    found = "**42.0** ± 2.8 % (n = 2) | 40.0 %, 44.0 %"
    assert given == f"| tin10 | 10 | 60m | 2 cores | `simclr size=32` | {found} |"
    assert plain == "| tin10 | 10 | 60m | 2 cores | `simclr` | **30.0** % (n = 1) | 30.0 % |"


def test_a_baseline_may_have_settings_too(monkeypatch):
    lines = [
        timed("tin10-supervised size=32", "final", 0, "60m", 0.50),
        timed("tin10-simclr size=32", "final", 0, "60m", 0.40),
    ]
    monkeypatch.setattr(record, "read", lambda file: lines)
    *_, row = minutes.pairs().splitlines()
    names = "`simclr size=32` | `supervised size=32`"
    assert row == f"| tin10 | 10 | 60m | 2 cores | {names} | 1 | 50.0 % | 40.0 % | **-10.0** | – |"


def test_the_first_table_has_rows_with_a_budget(monkeypatch):
    name = "cifar10-jpeg-simclr size=32"
    lines = [timed(name, "final", 0, "20m", 0.48), timed(name, "final", 0, "60m", 0.58)]
    monkeypatch.setattr(headline, "HEADLINE", {})
    monkeypatch.setattr(headline, "HEADLINE_TIMED", {(name, "20m"): ("CIFAR", 0.1984)})
    monkeypatch.setattr(record, "read", lambda file: lines)
    *_, row = headline.headline().splitlines()
    assert row == "| CIFAR | **48.0** % (n = 1) | 19.8 % | 20 min | `c` |"


def test_what_one_change_does_is_taken_seed_by_seed(monkeypatch):
    def line(name, draw, accuracy, **figures):
        figures |= {"test_accuracy": accuracy}
        return {"name": name, "kind": "final", "draw": draw, "figures": figures}

    kept = {
        "recipes": [line("a", 0, 0.70), line("a", 1, 0.72), line("a", 2, 0.99), line("b", 0, 0.1)],
        "gap": [
            line("a, compressed", 0, 0.68, pixel_change=4.42),
            line("a, compressed", 1, 0.71, pixel_change=4.42),
            line("a, fp32", 1, 0.72),
        ],
    }
    monkeypatch.setattr(record, "read", kept.get)
    *_, compressed, exact = gap.gap().splitlines()
    means = "**71.0** ± 1.4 % | **69.5** ± 2.1 % (n = 2)"
    assert compressed == f"| `a` | compressed | 4.4 | 2 | {means} | **-1.5** | -4.7 to +1.7 |"
    means = "**72.0** % | **72.0** % (n = 1)"
    assert exact == f"| `a` | fp32 | – | 1 | {means} | **+0.0** | – |"


def test_a_setting_may_hold_a_dash():
    assert cells.split_name("sign-digits-simclr lr=1e-3") == ("sign-digits", "simclr lr=1e-3")


def test_budgets_stand_in_order_and_draws_that_are_final_are_left_out(monkeypatch):
    lines = [
        timed("mnist-uda", "dev", 1000, "1m", 0.90),
        timed("mnist-uda", "dev", 1000, "30s", 0.80),
        timed("mnist-uda", "dev", 1001, "30s", 0.84),
        timed("mnist-uda", "final", 0, "30s", 0.10),
    ]
    monkeypatch.setattr(record, "read", lambda file: lines)
    header, _, row = minutes.minutes_grid().splitlines()
    assert header == "| source | labels per class | on | method | 30s | 1m |"
    assert row == "| mnist | 10 | 2 cores | uda | **82.0** ± 2.8 % (n = 2) | **90.0** % (n = 1) |"


def test_a_cell_of_given_hardware_wants_its_line_from_there(monkeypatch):
    lines = [
        timed("mnist-uda", "final", 0, "30s", 0.8, hardware="two cores"),
        timed("mnist-uda", "final", 0, "30s", 0.9, hardware="four cores"),
        timed("mnist-uda", "final", 1, "30s", 0.7, hardware="four cores"),
    ]
    monkeypatch.setattr(record, "read", lambda file: lines)
    cell = cells.Cell("mnist", 10, "uda", 0, "30s", "final", hardware="two cores")
    assert cells.accuracies("minutes", cell) == {0: 0.8}
    assert cells.accuracies("minutes", replace(cell, hardware="")) == {0: 0.9, 1: 0.7}


def test_fits_that_met_their_budget_are_counted_apart_by_how_they_kept_to_it(monkeypatch):
    def line(method, seconds, **figures):
        made = timed(f"mnist-{method}", "dev", 1000, "1m", 0.9)
        return made | {"figures": made["figures"] | {"seconds": seconds} | figures}

    lines = [
        line("uda", 63.0),
        line("fixmatch", 63.1),
        line("uda", 57.0, turns=2),
        line("uda", 66.0, turns=0),
        line("auto", 12.0, turns=0),  # ends early: no method is left to evaluate
    ]
    monkeypatch.setattr(record, "read", lambda file: lines)
    _, _, fixed, moved = budgets.budgets_kept().splitlines()
    assert fixed == "| fixed before the first | 2 cores | 1m | 2 | 1 | +5.0 to +5.2 % |"
    assert moved == "| moved on the way | 2 cores | 1m | 2 | 1 | -5.0 to +10.0 % |"
    _, _, auto, uda = budgets.budgets().splitlines()
    accuracy = "**90.0** ± 0.0 % (n = 2)"
    assert uda == f"| `uda` | mnist | 2 cores | 1m | **-5.0 %, +10.0 %** | 2, 0 | {accuracy} |"
    assert auto.startswith("| `auto` | mnist | 2 cores | 1m | **-80.0 %** | 0 |")


def test_recipes_are_compared_on_the_draws_that_both_have(monkeypatch):
    def line(name, draw, accuracy):
        figures = {"test_accuracy": accuracy}
        return {"name": name, "kind": "final", "draw": draw, "figures": figures}

    lines = [line("a", 0, 0.71), line("a", 1, 0.75), line("b", 1, 0.72), line("b", 2, 0.1)]
    monkeypatch.setattr(record, "read", lambda file: lines)
    monkeypatch.setattr(recipes, "TWINS", (("a", "b"),))
    *_, row = recipes.twins().splitlines()
    assert row == "| `a` | `b` | 1 | **72.0** % | **75.0** % | **+3.00** | – |"
