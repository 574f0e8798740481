import os
from pathlib import Path

import pytest

from handful.errors import HandfulError
from handful.labeling import journal as journals
from handful.labeling.journal import Journal, NotSaved


def test_events_are_there_when_the_journal_is_opened_again(tmp_path: Path) -> None:
    first = Journal(tmp_path / "j")
    first.append({"do": "set", "key": "a", "value": "ü\udcff"})
    first.close()
    second = Journal(tmp_path / "j")
    assert second.events == [{"do": "set", "key": "a", "value": "ü\udcff"}]
    second.close()


def test_an_event_is_flushed_to_disk_before_append_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    journal = Journal(tmp_path / "j")
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append((tmp_path / "j").read_bytes()))
    journal.append({"do": "undo"})
    assert synced == [b'{"do": "undo"}\n']
    journal.close()


def test_an_unfinished_last_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_bytes(b'{"do": "undo"}\n{"do": "ma')
    journal = Journal(path)
    journal.append({"do": "set"})
    journal.close()
    assert path.read_bytes() == b'{"do": "undo"}\n{"do": "set"}\n'


def test_a_damaged_line_is_named_and_nothing_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_bytes(b'{"do": "undo"}\nnonsense\n{"do": "undo"}\n')
    with pytest.raises(HandfulError, match="damaged in line 2"):
        Journal(path)
    assert path.read_bytes().count(b"\n") == 3


def test_a_full_disk_leaves_the_journal_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "j"
    journal = Journal(path)
    journal.append({"do": "undo"})

    def half(file: object, content: bytes) -> None:
        os.write(journal._file.fileno(), content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(journals, "_write_all", half)
        with pytest.raises(NotSaved, match="No space left"):
            journal.append({"do": "set", "key": "k", "value": 1})
    assert path.read_bytes() == b'{"do": "undo"}\n'
    assert journal.events == [{"do": "undo"}]
    journal.append({"do": "set"})
    assert path.read_bytes() == b'{"do": "undo"}\n{"do": "set"}\n'
    journal.close()


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    with pytest.raises(HandfulError, match="another `handful label`"):
        Journal(tmp_path / "j")
    journal.close()
    Journal(tmp_path / "j").close()
