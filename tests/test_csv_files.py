"""CSV files: texts are restored exactly, and no cell is a formula for a spreadsheet."""

import csv
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from handful.csv_files import defused, defused_name, read_csv, restored, restored_name, write_csv
from handful.errors import HandfulError

ODD = st.text(alphabet="=+-@'\"./;,\t\r\n 5aé\udcff\N{FULLWIDTH EQUALS SIGN}", max_size=8)
ANY = ODD | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@settings(max_examples=300)
@given(ANY)
@example("'=cmd")
@example("./'=cmd")
@example("''./-a")
@example("\t'\r=x")
def test_every_text_comes_back_from_a_defused_cell(text):
    assert restored(defused(text)) == text
    assert restored_name(defused_name(text)) == text


@settings(max_examples=300)
@given(ANY)
def test_no_part_between_separators_starts_as_a_formula_unless_it_is_a_number(text):
    for cell in (defused(text), defused_name(text)):
        for part in re.split("[;\t\r\n]", cell):
            start = part.lstrip('" ')
            number = re.fullmatch(r"'*[+-]?\d+(\.\d*)?([eE][+-]?\d+)?", part.lstrip("\" '"))
            assert not start.startswith(("=", "+", "-", "@")) or number


def test_rows_come_back_whatever_names_and_labels_hold(tmp_path):
    odd = [
        "=1",
        "./=1",
        "./a",
        "'b",
        "'=b",
        '"',
        "a\nb",
        "a\r\n=b",
        "caf\udce9",
        ";=x",
        " ",
        "-0.5",
    ]
    path = tmp_path / "labels.csv"
    write_csv(path, ["file", "label", "p(=x;=y)"], [[text, text, text] for text in odd])
    assert read_csv(path) == [{"file": t, "label": t, "p(=x;=y)": t} for t in odd]


def test_no_cell_runs_whether_a_spreadsheet_splits_at_commas_or_at_every_semicolon(tmp_path):
    bad = ["=cmd|'/c calc'!A0", "+x", "-y", "@z", "a;=cmd", 'a";"=cmd', "a\n=cmd", "\t=x", "\r=x"]
    path = tmp_path / "labels.csv"
    write_csv(path, ["file", "label", "p(;=x)"], [[text, text, "0.5"] for text in bad])
    with open(path, encoding="utf-8", newline="") as file:
        text = file.read()
    at_commas = [cell for row in csv.reader(text.splitlines()) for cell in row]
    at_semicolons = re.split("[;\r\n]", text)
    starts = [cell.strip('" \t') for cell in at_commas + at_semicolons]
    assert len(starts) >= 60
    assert not [cell for cell in starts if cell.startswith(("=", "+", "-", "@"))]


def test_numbers_stay_numbers(tmp_path):
    path = tmp_path / "a.csv"
    write_csv(path, ["file", "p"], [["a.png", "-0.5"], ["b.png", "-1e-05"]])
    assert path.read_text() == "file,p\na.png,-0.5\nb.png,-1e-05\n"


def test_a_cell_may_be_longer_than_the_csv_module_allows_and_its_limit_stays(tmp_path):
    before, path = csv.field_size_limit(), tmp_path / "a.csv"
    write_csv(path, ["file", "label"], [["a.png", "x" * 200_000]])
    assert len(read_csv(path)[0]["label"]) == 200_000
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("text", ["", "label\nx\n", "file,label\na\n", 'file,label\n"a,b\0\n'])
def test_a_damaged_csv_is_named(tmp_path, text):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(HandfulError, match=r"labels\.csv is damaged"):
        read_csv(tmp_path / "labels.csv")
