"""Words for messages."""

import shlex

from handful.text import shell_command, similar_file


def test_a_printed_command_can_be_pasted_into_a_shell():
    typed = shell_command("data", "my photos/Übersicht", "--first-labels", 20)
    assert shlex.split(typed) == ["handful", "data", "my photos/Übersicht", "--first-labels", "20"]
    assert shell_command("fit", "photos/") == "handful fit photos/"


def test_a_path_that_is_not_there_leads_to_its_neighbour(tmp_path):
    (tmp_path / "Mappe1.csv").touch()
    assert similar_file(tmp_path / "Mape1.csv") == ". Did you mean 'Mappe1.csv'?"
    assert similar_file(tmp_path / "labels.txt") == ""
    assert similar_file(tmp_path / "gone" / "Mappe1.csv") == ""
