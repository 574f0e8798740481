"""Label files: contents that are read and contents that are refused, on real files."""

import os
import re
from threading import Thread

import numpy as np
import pytest

from handful.csv_files import read_csv
from handful.data.labels.label_file import LabelFile, match_labels
from handful.data.labels.match_files import FileMatcher
from handful.data.sources import load
from handful.errors import HandfulError
from image_files import save

NAMES = ("a.png", "b.png", "sub/c.png", "d, e.png")


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate(NAMES):
        save(tmp_path / "photos" / name, seed=seed)
    return tmp_path / "photos"


def labels(folder, content, **options):
    """File → label, loaded with a label file of this content beside the folder."""
    table = folder.parent / "labels.csv"
    table.write_bytes(content if isinstance(content, bytes) else content.encode())
    images = load(folder, table, **options)
    names = (*images.classes, None)
    return {name: names[at] for name, at in zip(images.names, images.labels, strict=True)}


A_AND_B = {"a.png": "x", "b.png": "y", "sub/c.png": None, "d, e.png": None}
WORKS = {
    "comma": "file,label\na.png,x\nb.png,y\n",
    "semicolon": "file;label\na.png;x\nb.png;y\n",
    "tab": "file\tlabel\na.png\tx\nb.png\ty\n",
    "byte order mark": b"\xef\xbb\xbffile,label\na.png,x\nb.png,y\n",
    "carriage returns": "file,label\r\na.png,x\r\nb.png,y\r\n",
    "old Mac": "file,label\ra.png,x\rb.png,y\r",
    "no last line end": "file,label\na.png,x\nb.png,y",
    "quotes": '"file","label"\n"a.png","x"\n"b.png","y"\n',
    "another order": "label,file\nx,a.png\ny,b.png\n",
    "other columns": "id,file,when,label\n1,a.png,now,x\n2,b.png,,y\n",
    "capitals and spaces": " File , LABEL \n a.png , x \nb.png,y\n",
    "empty lines": "\n\nfile,label\n\na.png,x\n,\nb.png,y\n\n",
    "blank is unlabelled": "file,label\na.png,x\nb.png,y\nsub/c.png,\n",
    "a remark alone": "file,label,remark\na.png,x,\n,,by Ann\nb.png,y,\n",
    "short line is unlabelled": "file,label\na.png,x\nb.png,y\nsub/c.png\n",
    "empty cells at the end": "file,label\na.png,x,,\nb.png,y,,\n",
    "twice the same": "file,label\na.png,x\nb.png,y\na.png,x\n",
    "twice, once blank": "file,label\na.png,\nb.png,y\na.png,x\n",
    "two spellings of a path": "file,label\na.png,x\n./a.png,x\nb.png,y\n",
    "relative to the label file": "file,label\nphotos/a.png,x\nphotos/b.png,y\n",
}


@pytest.mark.parametrize("content", WORKS.values(), ids=WORKS.keys())
def test_spreadsheets_are_read_as_they_are_meant(folder, content):
    assert labels(folder, content) == A_AND_B


@pytest.mark.filterwarnings("ignore:classes that differ in spelling only")
def test_labels_are_text_and_never_missing_values(folder):
    content = 'file,label\na.png,01\nb.png,1\nsub/c.png,NA\n"d, e.png",None\n'
    assert labels(folder, content) == {
        "a.png": "01", "b.png": "1", "sub/c.png": "NA", "d, e.png": "None"
    }  # fmt: skip
    assert labels(folder, "file,label\na.png,null\nb.png,nan\n")["b.png"] == "nan"


def test_a_row_of_zeros_without_a_file_is_no_label(folder):
    found = labels(folder, "image,fox,hare\na.png,1,0\n,0,0\nb.png,0,1\n")
    assert (found["a.png"], found["b.png"]) == ("fox", "hare")
    with pytest.raises(HandfulError, match="line 3 names no file"):
        labels(folder, "image,fox,hare\na.png,1,0\n,0,1\nb.png,0,1\n")


FLOATS = {
    "as pandas writes numbers beside blanks": ("file,label\na.png,3.0\nb.png,10.0\nsub/c.png,\n"),
    "a spreadsheet's comma": ("file;label\na.png;3,0\nb.png;10,00\n"),
    "some typed by hand": ("file,label\na.png,3\nb.png,10.0\n"),
    "another column": ("image,class_id,file_size\na.png,3.0,1\nb.png,10.0,2.5\n"),
    "JSON": ('[{"file": "a.png", "label": 3.0}, {"file": "b.png", "label": 10}]'),
}


@pytest.mark.parametrize("content", FLOATS.values(), ids=FLOATS.keys())
def test_whole_numbers_written_as_floats_are_the_numbers(folder, content):
    found = labels(folder, content)
    assert found == {"a.png": "3", "b.png": "10", "sub/c.png": None, "d, e.png": None}


@pytest.mark.filterwarnings("ignore:classes that differ in spelling only")
@pytest.mark.parametrize("other", ["1.5", "v2", "03", "2.000", "1e3", "2.", "2.0.0"])
def test_a_column_with_anything_but_whole_numbers_keeps_its_text(folder, other):
    found = labels(folder, f"file,label\na.png,3.0\nb.png,{other}\n")
    assert (found["a.png"], found["b.png"]) == ("3.0", other)


def test_names_may_hold_delimiters_quotes_and_backslashes(folder):
    content = 'file,label\n"d, e.png",x\nsub\\c.png,"say ""hi"", please"\n'
    found = labels(folder, content)
    assert found["d, e.png"] == "x" and found["sub/c.png"] == 'say "hi", please'


def test_an_encoding_can_be_told(folder):
    content = "file,label\na.png,café\nb.png,y\n"
    assert labels(folder, content.encode("cp1252"), encoding="cp1252")["a.png"] == "café"
    assert labels(folder, content.encode("utf-16"), encoding="utf-16")["a.png"] == "café"
    assert labels(folder, content)["a.png"] == "café"


def test_files_that_are_not_there_are_listed(folder):
    table = folder.parent / "labels.csv"
    table.write_text("file,label\na.png,x\nb.png,y\ngone.png,x\n../outside.png,x\n")
    with pytest.warns(UserWarning) as told:
        images = load(folder, table)
    assert images.store.skipped == (
        ("gone.png", f"only in the label file: line 4 of {table}"),
        ("../outside.png", f"only in the label file: line 5 of {table}"),
    )
    assert [str(one.message) for one in told] == [
        f"2 of 4 labels in {table} are not used, as there is no such image: 'gone.png', "
        f"'../outside.png'"
    ]
    assert told[0].filename == __file__  # the caller's line, not one of handful


def test_rows_without_a_label_may_name_what_is_not_there(folder):
    content = "file,label\na.png,x\nb.png,y\ngone.png,\n"
    assert labels(folder, content) == A_AND_B  # a warning would be an error


def test_labels_that_are_not_used_are_said_where_somebody_listens(folder):
    said = []
    labels(folder, "file,label\na.png,x\nb.png,y\ngone.png,x\n", say=said.append)
    assert said[0].startswith("1 of 3 labels in") and said[0].endswith("no such image: 'gone.png'")


def test_a_broken_image_in_the_table_is_listed_once_as_broken(folder):
    (folder / "empty.png").touch()
    table = folder.parent / "labels.csv"
    table.write_text("file,label\na.png,x\nb.png,y\nempty.png,x\n")
    with pytest.warns(UserWarning, match=r"1 labelled image of .*labels.csv cannot be read: 'emp"):
        images = load(folder, table)
    assert images.store.skipped == (("empty.png", "empty file (0 bytes)"),)


def test_the_table_may_lie_in_the_folder_and_sub_folders_are_no_classes(folder):
    table = folder / "labels.csv"
    table.write_text("file,label\na.png,x\nb.png,y\n")
    images = load(folder, table)
    assert images.classes == ("x", "y")
    assert images.labels[images.names.index("sub/c.png")] == -1


def test_labelled_images_in_a_test_folder_are_the_test_part(tmp_path):
    for seed, name in enumerate(["train/a.png", "train/b.png", "test/c.png", "test/d.png"]):
        save(tmp_path / name, seed=seed)
    table = tmp_path / "labels.csv"
    table.write_text("file,label\ntrain/a.png,x\ntrain/b.png,y\ntest/c.png,x\n")
    images = load(tmp_path, table)
    assert images.names == ["test/d.png", "train/a.png", "train/b.png"]
    assert images.test.names == ["test/c.png"]


def test_groups_become_numbers_and_images_without_one_stay_alone(folder):
    table = folder.parent / "labels.csv"
    table.write_text("group,file,label\nann,a.png,x\nbob,b.png,y\nann,sub/c.png,\n")
    images = load(folder, table)
    a, b, c, d = (images.groups[images.names.index(name)] for name in NAMES)
    assert a == c and len({a, b, d}) == 3


def test_identical_images_join_their_groups(folder):
    save(folder / "copy.png", seed=0)
    table = folder.parent / "labels.csv"
    table.write_text(
        "file,label,group\na.png,x,ann\nb.png,y,ann\ncopy.png,x,bob\nsub/c.png,y,bob\n"
    )
    images = load(folder, table)
    numbers = {name: images.groups[images.names.index(name)] for name in images.names}
    assert len({numbers[name] for name in ("a.png", "b.png", "copy.png", "sub/c.png")}) == 1
    assert numbers["d, e.png"] != numbers["a.png"]
    assert np.issubdtype(images.groups.dtype, np.integer)


REFUSED = {
    "file,label,group\na.png,x,ann\na.png,x,bob\n":
        "{table} gives 'a.png' the group 'ann' on line 2 and 'bob' on line 3; keep one of them",
    "foo,bar,baz\na.png,x,1\n":
        "{table} has the columns 'foo', 'bar', 'baz', and its first line does not tell which holds "
        "the file names and which the labels; give --file-column NAME --label-column NAME (in "
        "Python handful.load(..., file_column=..., label_column=...)), or name the columns file "
        "and label",
    "foo,label,baz\na.png,x,1\n":
        "{table} has the columns 'foo', 'label', 'baz', and its first line does not tell which "
        "holds the file names; give --file-column NAME (in Python "
        "handful.load(..., file_column=...)), or name the columns file and label",
    "file,bar,baz\na.png,x,1\n":
        "{table} has the columns 'file', 'bar', 'baz', and its first line does not tell which "
        "holds the labels; give --label-column NAME (in Python "
        "handful.load(..., label_column=...)), or name the columns file and label",
    "": "{table} needs a first line with the columns file and label (and group, if wanted); "
        "it starts with ''",
    "file,label,label\na.png,x,x\n": "{table} has 2 columns 'label'",
    "file,label\n": "{table} names no file; write one line per image below the header",
    "file,label\nd, e.png,x\nb.png,y\n":
        "{table} line 2 has 3 cells where the header has 2; put names that hold ',' in double "
        "quotes",
    "file,label\n,x\nb.png,y\n":
        "{table} line 2 names no file; fill its file cell or remove the line",
    "file,label,remark\na.png,x,\n,,by Ann\n,y,\nb.png,y,\n":
        "{table} line 4 names no file; fill its file cell or remove the line",
    "file,label,remark\n,,by Ann\n":
        "{table} names no file; write one line per image below the header",
    'file,label\n"a.png,x\nb.png,y\n':
        "{table} line 2 cannot be read as CSV: unexpected end of data",
    b"file,label\na.png,caf\xe9\nb.png,y\n":
        "{table} line 2 is not utf-8; save it as UTF-8 or name its encoding, for example "
        "--encoding cp1252",
    "file,label\na.png,x\0\n":
        "{table} holds zero bytes, so it is not utf-8 text; the file is "
        "damaged or not a table; save the table again as 'CSV UTF-8'",
    "file,label\nQ.PNG,x\nzzz.png,y\n":
        "none of the 2 files named in {table} is an image in {folder} (the first is 'Q.PNG'); "
        "paths must be relative to the folder or to the label file",
    "file,label\na.png,\nb.png,\n":
        "{folder} holds 4 images but no label: {table} names some of its images, but gives none "
        "a label; fill in its column of labels",
    "file,label\na.png,x\nb.png,x\n":
        "{folder} has labels of one class only ('x'); a classifier needs two or more",
}  # fmt: skip


@pytest.mark.parametrize("content, message", REFUSED.items())
def test_senseless_label_files_are_refused(folder, content, message):
    with pytest.raises(ValueError) as error:
        labels(folder, content)
    table = folder.parent / "labels.csv"
    assert str(error.value) == message.format(table=table, folder=folder)


def test_a_table_that_is_missing_or_a_folder_is_refused(folder):
    with pytest.raises(ValueError, match="cannot read the label file .*: No such file"):
        load(folder, folder / "nowhere.csv")
    with pytest.raises(ValueError, match="cannot read the label file .*: Is a directory"):
        load(folder, folder)


def test_an_unknown_encoding_is_refused(tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("file,label\na.png,x\n")
    message = "no encoding 'klingon'; try utf-8, latin-1, cp1252 or utf-16"
    with pytest.raises(ValueError, match=re.escape(message)):
        match_labels(LabelFile(table, "klingon"), [], tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
@pytest.mark.parametrize("good", [True, False], ids=["text", "not UTF-8"])
def test_a_label_file_that_is_a_pipe_is_read_once(folder, handful, good):
    pipe, run = folder.parent / "pipe", folder.parent / "run"
    os.mkfifo(pipe)
    word = b"y" if good else "Bär".encode("latin-1")
    content = b"file,label,origin\na.png,x,random\nb.png," + word + b",chosen\nsub/c.png,,\n"
    writer = Thread(target=pipe.write_bytes, args=(content,), daemon=True)
    writer.start()
    status, _, err = handful(
        "fit", folder, "--labels", pipe, "--out", run, "--estimate", "none",
        "--set", "steps=2", "--set", "backbone.base=8", "--precision", "fp32",
    )  # fmt: skip
    writer.join(5)
    if good:
        assert status == 0, err
        rows = {row["file"]: row["origin"] for row in read_csv(run / "labels.csv")}
        assert rows == {"a.png": "random", "b.png": "chosen"}
    else:
        assert status == 2 and "line 3 is not utf-8; save it as UTF-8 or name its" in err


@pytest.mark.parametrize("beside", ["photos", ".", "photos/more", "..", "other"])
def test_plain_cells_are_looked_up_without_paths_but_with_the_same_result(
    tmp_path, monkeypatch, beside
):
    """A cell with `./` at its start is not plain, and needs a path."""
    names = ["a.png", "more/a.png", "more/b.png", "photos/c.png", f"{tmp_path.name}/d.png"]
    matcher = FileMatcher(names, tmp_path / "photos", tmp_path / beside)
    cells = [*names, "b.png", "photos/a.png", "photos/more/b.png", f"{tmp_path.name}/photos/a.png"]

    def meant(cell):
        found = matcher.find(cell)
        return found and (found.names, found.whole)

    slow = [meant(f"./{cell}") for cell in cells]
    monkeypatch.setattr(os.path, "relpath", None)
    assert list(map(meant, cells)) == slow


# The labels that `handful label` left in the present folder.


@pytest.fixture
def flat(tmp_path):
    for seed, name in enumerate(("a.png", "b.png", "c.png")):
        save(tmp_path / "flat" / name, seed=seed)
    return tmp_path / "flat"


def page_table(monkeypatch, where, *rows):
    where.mkdir(exist_ok=True)
    monkeypatch.chdir(where)
    (where / "labels.csv").write_text("\n".join(["file,label,origin,seen,mark", *rows]) + "\n")


def told(source, **how):
    said = []
    return load(source, say=said.append, **how), said


def test_labels_of_the_page_are_used_where_a_folder_has_none(flat, tmp_path, monkeypatch):
    page_table(monkeypatch, tmp_path / "here", "a.png,x,random,blind,", "b.png,y,chosen,blind,")
    for how in ({}, {"labeled_only": 10}):
        images, said = told(flat, **how)
        assert sorted(images.classes) == ["x", "y"] and len(images.labeled) == 2
        assert f"{flat}: it has no labels of its own, and 2 labels of its images" in said[0]
    with pytest.warns(UserWarning, match="in labels.csv here, where handful label writes them"):
        load(flat)
    assert len(load(flat, labeled=False).labeled) == 0  # to predict, none are needed


def test_labels_of_the_page_never_override_those_of_the_folder(tmp_path, monkeypatch):
    photos = tmp_path / "photos"
    for name in ("cat/1.png", "dog/2.png", "3.png"):
        save(photos / name)
    page_table(monkeypatch, tmp_path / "here", "cat/1.png,x,,,", "3.png,y,,,")
    both = (
        f"labels.csv is here and is not used, as the sub-folders of {photos} give the labels; "
        f"after this fit, handful fit {photos} --after RUN --labels labels.csv uses both"
    )
    images, said = told(photos)
    assert images.classes == ("cat", "dog") and said.count(both) == 1
    assert len(told(photos, folders="ignore")[0].labeled) == 2  # folders without a meaning
    for rows in (["cat/1.png,cat,,,"], ["other.png,x,,,"]):  # nothing that the folders do not say
        page_table(monkeypatch, tmp_path / "here", *rows)
        assert not any("labels.csv" in text for text in told(photos)[1])


@pytest.mark.parametrize("rows, reason", [
    (None, "and there is no labels.csv here; label some"),
    (["z.png,x,,,"], "and the labels.csv here names none of its images; label some"),
    (["a.png,,,,unsure"], "and the labels.csv here gives none of its images a label"),
    (["a.png,x,,,", *[f"z{i}.png,y,,," for i in range(5)]],
     "most images that the labels.csv here names are not in it (--labels labels.csv uses it)"),
])  # fmt: skip
def test_without_labels_it_is_told_where_they_were_looked_for(
    flat, tmp_path, monkeypatch, rows, reason
):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    if rows is not None:
        page_table(monkeypatch, here, *rows)
    for how in ({}, {"labeled_only": 10}):
        with pytest.raises(ValueError) as error:
            told(flat, **how)
        assert reason in str(error.value)


def test_a_given_table_without_a_label_is_named_as_the_one_to_fill_in(flat, tmp_path):
    table = tmp_path / "mine.csv"
    table.write_text("file,label\na.png,\n")
    for how in ({}, {"labeled_only": 10}):
        with pytest.raises(ValueError, match="mine.csv names some of its images, but gives none"):
            load(flat, table, **how)


def test_labelled_images_that_cannot_be_read_are_said_to_be_so(flat, tmp_path):
    (flat / "broken.png").write_text("nothing")
    table = tmp_path / "mine.csv"
    table.write_text("file,label\nbroken.png,x\n")
    said = "that can be read: none of 1 image with a label, such as broken.png: "
    with pytest.raises(ValueError, match=said):
        load(flat, table, labeled_only=10)
