"""Run.save: a copy is whole, and nothing that lies there is lost."""

import warnings

import pytest

import handful
from handful.errors import HandfulError
from handful.files import read_json, write_json
from handful.pipeline.run import read_record
from tiny import striped

QUICK = {"steps": 2, "batch": 8, "backbone.base": 8}
LABELS = {f"{name}.png": "ab"[k % 2] for k, name in enumerate("abcdef")}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return striped(tmp_path_factory.mktemp("stripes"))


def fitted(photos, out=None, **options):
    return handful.fit(
        photos, "supervised", labels=LABELS, out=out, settings=QUICK, estimate="none",
        precision="fp32", **options,
    )  # fmt: skip


@pytest.fixture
def run(photos, tmp_path):
    return fitted(photos, tmp_path / "run")


@pytest.fixture
def in_memory(photos):
    return fitted(photos)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_copy_has_all_that_the_run_has_and_the_run_stays_where_it_is(run, photos, tmp_path):
    (run.folder / "notes.txt").write_text("mine")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.save(tmp_path / "copy")
    expected = contents(tmp_path / "run")
    assert len(expected) > 6 and expected.pop("notes.txt")
    assert contents(tmp_path / "copy") == expected
    assert run.folder == tmp_path / "run"
    for one in (run, handful.open_run(tmp_path / "copy")):
        assert len(one.predict(photos, none_of_these=True)) == 8
        assert one.source_folder == photos


def test_a_table_that_was_changed_after_the_run_is_so_in_the_copy(run, tmp_path):
    labels = tmp_path / "run" / "labels.csv"
    labels.write_text(labels.read_text().replace(",a,", ",b,"))
    run.save(tmp_path / "copy")
    assert labels.stat().st_mtime > (tmp_path / "run" / "run.json").stat().st_mtime
    for name in ("run.json", "labels.csv"):
        first, copied = (tmp_path / folder / name for folder in ("run", "copy"))
        assert first.stat().st_mtime_ns == copied.stat().st_mtime_ns


@pytest.mark.parametrize("opened", [False, True])
def test_a_run_saved_over_itself_loses_nothing(run, tmp_path, opened):
    (tmp_path / "run" / "history.jsonl").write_text('{"step": 1}\n')
    before = contents(tmp_path / "run")
    run = handful.open_run(tmp_path / "run") if opened else run
    record = read_record(run.folder)
    run.save(tmp_path / "run" / ".." / "run")
    assert read_record(run.folder) == record
    after = contents(tmp_path / "run")
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} <= {"run.json"}  # its order


def test_what_lies_in_a_folder_is_refused_as_by_fit(run, in_memory, photos, tmp_path):
    other = fitted(photos, tmp_path / "other", seed=1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.png").write_bytes((photos / "a.png").read_bytes())
    (tmp_path / "file").write_text("mine")
    for name, why in (
        ("other", "holds another run, finished, made with other images, labels, settings"),
        ("mine", "holds other files; give --out a folder that is new or empty"),
        ("file", "is a file; give --out a folder that is new or empty"),
    ):
        before = contents(tmp_path / name) if name != "file" else "mine"
        for one in (run, in_memory):
            with pytest.raises(HandfulError, match=f"{name} {why}") as refused:
                one.save(tmp_path / name)
            with pytest.raises(HandfulError) as by_fit:
                fitted(photos, tmp_path / name)
            assert str(refused.value) == str(by_fit.value)
        after = contents(tmp_path / name) if name != "file" else (tmp_path / name).read_text()
        assert after == before
    assert run.folder == tmp_path / "run" and in_memory.folder is None
    run.save(tmp_path / "other", overwrite=True)
    assert contents(tmp_path / "other") == contents(tmp_path / "run")
    with pytest.raises(HandfulError, match="other holds another run, finished"):
        other.save(tmp_path / "other")  # it was its own folder


def test_an_empty_folder_is_taken_and_what_a_run_in_memory_lacks_is_told(in_memory, tmp_path):
    (tmp_path / "copy").mkdir()
    with pytest.warns(UserWarning, match="copy has the model and the record alone, as this run"):
        in_memory.save(tmp_path / "copy")
    assert in_memory.folder == tmp_path / "copy"
    assert handful.open_run(tmp_path / "copy").classes == ("a", "b")
    in_memory.save(tmp_path / "copy")  # the cell of a notebook is run again: no warning


def test_a_run_that_is_there_already_stays_and_another_training_of_it_is_refused(
    run, in_memory, tmp_path
):
    before = contents(tmp_path / "run")
    in_memory.save(tmp_path / "run")
    assert contents(tmp_path / "run") == before
    again = handful.open_run(tmp_path / "run")
    again.folder = None
    for weights in again.predictor.model.head.parameters():
        weights.data += 1
    with pytest.raises(HandfulError, match="run holds another run, finished"):
        again.save(tmp_path / "run")
    assert contents(tmp_path / "run") == before


def test_nothing_is_copied_from_a_folder_that_holds_another_run_by_now(run, tmp_path):
    record = read_json(tmp_path / "run" / "run.json")
    write_json(tmp_path / "run" / "run.json", record | {"fingerprint": "sha256:other"})
    with pytest.warns(UserWarning, match="has the model and the record alone"):
        run.save(tmp_path / "copy")
    assert set(contents(tmp_path / "copy")) == {"model.safetensors", "run.json"}
