"""Words for messages."""

import shlex

from handful.text import shell_command


def test_a_printed_command_can_be_pasted_into_a_shell():
    typed = shell_command("data", "my photos/Übersicht", "--first-labels", 20)
    assert shlex.split(typed) == ["handful", "data", "my photos/Übersicht", "--first-labels", "20"]
    assert shell_command("fit", "photos/") == "handful fit photos/"
