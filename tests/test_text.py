"""Words for messages."""

import shlex

import pytest

from handful.cli.terminal import print_selection
from handful.text import NBSP, name_in_text, shell_command, similar_file, some_names, sure, time


def test_a_name_that_is_a_number_is_quoted_and_no_other():
    for name in ("7", "2024-05-01", "1.5", "50 %", "3/"):
        assert name_in_text(name) == f"'{name}'"
    for name in ("cat", "cat 7", "7b", "", "-", "n°1", "七"):
        assert name_in_text(name) == name
    assert some_names(["cat", "7", "8", "9"], 2) == "cat, '7' and 2 more"


def test_a_printed_command_can_be_pasted_into_a_shell():
    typed = shell_command("data", "my photos/Übersicht", "--first-labels", 20)
    assert shlex.split(typed) == ["handful", "data", "my photos/Übersicht", "--first-labels", "20"]
    assert shell_command("fit", "photos/") == "handful fit photos/"


@pytest.mark.parametrize(
    ("confidence", "digits", "shown"),
    [
        (0.967, 0, "97 %"),
        (0.9949, 0, "99 %"),
        (0.995, 0, "over 99 %"),
        (1.0, 0, "over 99 %"),
        (0.9994, 1, "99.9 %"),
        (0.9996, 1, "over 99.9 %"),
    ],
)
def test_a_confidence_is_never_said_to_be_100_per_cent(confidence, digits, shown):
    assert sure(confidence, digits).replace(NBSP, " ") == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "under 0.1 s"), (0.04, "under 0.1 s"), (0.06, "0.1 s"), (12.3, "12 s"), (110, "1.8 min")],
)
def test_a_time_is_never_said_to_be_nothing(seconds, shown):
    assert time(seconds).replace(NBSP, " ") == shown


def test_the_table_of_candidates_says_how_long_each_was_tried(capsys):
    row = {"backbone": "lite0", "accuracy": 0.5, "verdict": "it is ahead"}
    print_selection(
        [
            {**row, "method": "features", "seconds": 0.01, "chosen": True},
            {**row, "method": "supervised", "seconds": 130.0, "chosen": False},
        ]
    )
    shown = capsys.readouterr().out.replace(NBSP, " ")
    assert "tried for" in shown and "under 0.1 s" in shown and "2.2 min" in shown


def test_a_path_that_is_not_there_leads_to_its_neighbour(tmp_path):
    (tmp_path / "Mappe1.csv").touch()
    assert similar_file(tmp_path / "Mape1.csv") == ". Did you mean 'Mappe1.csv'?"
    assert similar_file(tmp_path / "labels.txt") == ""
    assert similar_file(tmp_path / "gone" / "Mappe1.csv") == ""
