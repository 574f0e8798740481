"""--overwrite: the old run stays until the new one is complete, and files of users stay."""

import json
import os
import shutil

import pytest
from safetensors.torch import load_file

import handful
from handful.errors import HandfulError
from handful.pipeline import replacement
from handful.pipeline.artifacts import RUN_LAYOUT
from handful.pipeline.pretrain import pretrain
from handful.pipeline.run_folder import acquire, finish, write_command
from handful.pipeline.typed_labels import has_typed_labels, keep_typed_labels
from handful.progress import Important, silent
from image_files import save, smooth
from tiny import stripes

QUICK = {"steps": "2", "backbone.base": "8"}
HEADER = "file,label,why,prediction,confidence,rank\n"


def run_like(folder, mark, text):
    """Write files named as those of a run, with this content."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_text(text)
    (folder / "labels.csv").write_text(f"file,label\n{text}.png,a\n")
    (folder / "label-next.csv").write_text(f"{HEADER}{text}.png,,random,a,0.5,1\n")
    (folder / "run.json").write_text(json.dumps({"fingerprint": mark, "text": text}))
    for name in ("labels.csv", "label-next.csv", "model.safetensors"):
        os.utime(folder / name, (1e9, 1e9))


def built(folder, mark="new"):
    """Build a complete new run of this fingerprint in .new, not yet put in place."""
    place = acquire(folder, mark, overwrite=True)
    run_like(place, mark, "new")
    return place


def contents(folder):
    return {p.name: p.read_text() for p in folder.iterdir() if p.is_file()}


@pytest.fixture
def old(tmp_path):
    run_like(tmp_path / "run", "old", "old")
    return tmp_path / "run"


def test_an_old_run_is_untouched_until_the_new_one_is_whole(old):
    before = contents(old)
    place = acquire(old, "new", overwrite=True)
    assert place == old / ".new"
    assert contents(old) == before
    assert acquire(old, "new", overwrite=True) == place  # the same command goes on


def test_a_new_run_takes_the_place_and_leaves_what_is_not_of_a_run(old):
    (old / "notes.txt").write_text("mine")
    (old / "history.jsonl").write_text("of the old run alone")
    finish(old, built(old))
    assert json.loads((old / "run.json").read_text())["text"] == "new"
    assert (old / "model.safetensors").read_text() == "new"
    assert (old / "notes.txt").read_text() == "mine"
    assert {p.name for p in old.iterdir()} == {
        "run.json",
        "model.safetensors",
        "labels.csv",
        "label-next.csv",
        "notes.txt",
    }


def test_typed_labels_are_kept_under_a_name_that_says_so(old):
    typed = HEADER + "1.png,cat,random,a,0.5,1\n"
    (old / "label-next.csv").write_text(typed)
    os.utime(old / "label-next.csv", (1795910400, 1795910400))  # 29 November 2026
    said = []
    finish(old, built(old), say=said.append)
    kept = [p for p in old.iterdir() if "your labels" in p.name]
    assert [p.read_text() for p in kept] == [typed]
    assert kept[0].name.startswith("label-next (your labels, 2026-11-")
    assert "new.png" in (old / "label-next.csv").read_text()
    assert len(said) == 1 and str(kept[0]) in said[0]
    assert isinstance(said[0], Important)  # also with --quiet


def test_where_typed_labels_are_is_said_by_whatever_command_finishes_a_replacement(old):
    built(old)
    (old / "run.json").unlink()  # killed: the new run is whole, the old one is not
    (old / "label-next.csv").write_text(HEADER + "1.png,cat,random,a,0.5,1\n")
    with pytest.warns(UserWarning, match=r"typed into label-next.csv are kept in .*your labels"):
        replacement.finish_replacement(old, RUN_LAYOUT)


def test_a_table_that_was_changed_after_the_run_is_kept_too(old):
    (old / "labels.csv").write_text("file,label\n1.png,corrected\n")
    made = (old / "run.json").stat().st_mtime
    os.utime(old / "labels.csv", (made + 60, made + 60))
    finish(old, built(old), say=silent)
    kept = [p for p in old.iterdir() if p.name.startswith("labels (your labels")]
    assert "corrected" in kept[0].read_text()


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", range(1, 12))
def test_taking_the_place_may_end_at_any_change_and_is_completed(old, monkeypatch, moment):
    typed = HEADER + "1.png,cat,random,a,0.5,1\n"
    (old / "label-next.csv").write_text(typed)
    place, count = built(old), [0]

    def dying(real):
        def change(*given, **named):
            count[0] += 1
            if count[0] == moment:
                raise Killed
            return real(*given, **named)

        return change

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", dying(os.replace))
        patch.setattr("pathlib.Path.unlink", dying(type(old).unlink))
        patch.setattr("shutil.rmtree", dying(replacement.shutil.rmtree))
        try:
            finish(old, place, say=silent)
        except Killed:
            pass
    texts = [p.read_text() for p in old.rglob("*.csv")]
    assert typed in texts
    assert (old / "run.json").exists() or replacement.interrupted(old, RUN_LAYOUT)
    replacement.finish_replacement(old, RUN_LAYOUT, silent)
    now = json.loads((old / "run.json").read_text())["text"]
    assert (old / "model.safetensors").read_text() == now
    if acquire(old, "new", overwrite=True, say=silent) is not None and now == "old":
        run_like(old / ".new", "new", "new")
        finish(old, old / ".new", say=silent)
    assert (old / "model.safetensors").read_text() == "new"
    assert typed in [p.read_text() for p in old.rglob("*.csv")]


def test_a_replacement_that_was_completed_is_not_made_again(old):
    place = built(old)
    replacement.shutil.rmtree(place / "checkpoint")
    assert acquire(old, "new", overwrite=True) is None  # it goes on, and is at its end
    assert acquire(old, "new", overwrite=True) == old / ".new"  # asked for once more


def test_a_record_of_something_else_is_not_overwritten(tmp_path):
    (tmp_path / "run.json").write_text('{"training": "of another tool"}')
    with pytest.raises(HandfulError, match="was not written by handful"):
        acquire(tmp_path, "new", overwrite=True)


@pytest.mark.parametrize(
    ("name", "text", "typed"),
    [
        ("label-next.csv", HEADER + "1.png,,random,a,0.5,1\n", False),
        ("label-next.csv", HEADER + "1.png, cat ,random,a,0.5,1\n", True),
        ("label-next.csv", HEADER.replace(",", ";") + "1.png;cat;random;a;0,5;1\n", True),
        ("label-next.csv", "notes of my own\n", True),
        ("label-next.csv", "", True),
        ("predictions.csv", "file,label,confidence,p(a),p(b)\n1.png,a,0.9,0.9,0.1\n", False),
        ("predictions.csv", "file,label,confidence,p(a),p(b)\n1.png,,0.5,0.5,0.5\n", False),
        ("predictions.csv", "file,label,confidence,p(a),p(b)\n1.png,b,0.9,0.9,0.1\n", True),
    ],
)
def test_typed_labels_are_told_by_the_column_label(tmp_path, name, text, typed):
    (tmp_path / name).write_text(text)
    assert has_typed_labels(tmp_path / name) is typed


def test_a_table_saved_as_utf_16_is_read(tmp_path):
    path = tmp_path / "label-next.csv"
    path.write_bytes((HEADER + "1.png,cat,random,a,0.5,1\n").replace(",", "\t").encode("utf-16"))
    assert has_typed_labels(path)
    path.write_bytes((HEADER + "1.png,,random,a,0.5,1\n").replace(",", "\t").encode("utf-16"))
    assert not has_typed_labels(path)


def test_two_tables_of_one_day_are_both_kept(tmp_path):
    path, said = tmp_path / "label-next.csv", []
    for label in ("cat", "dog"):
        path.write_text(HEADER + f"1.png,{label},random,a,0.5,1\n")
        os.utime(path, (1e9, 1e9))
        keep_typed_labels(path, said.append)
    assert sorted(p.read_text().split(",")[-5] for p in tmp_path.iterdir()) == ["cat", "dog"]
    assert len(said) == 2


def test_a_failed_overwrite_leaves_the_old_run_open(tmp_path, monkeypatch):
    images = stripes()
    first = handful.fit(images, "supervised", settings=QUICK, estimate="none", out=tmp_path / "run")
    weights = load_file(tmp_path / "run" / "model.safetensors")

    def stop(*_, **__):
        raise KeyboardInterrupt

    again = {"settings": QUICK, "estimate": "none", "out": tmp_path / "run", "overwrite": True}
    with monkeypatch.context() as patch:
        patch.setattr("handful.pipeline.fit.save_artifacts", stop)
        with pytest.raises(KeyboardInterrupt):
            handful.fit(images, "supervised", seed=1, **again)
    assert handful.open_run(tmp_path / "run").record["fingerprint"] == first.record["fingerprint"]
    after = load_file(tmp_path / "run" / "model.safetensors")
    assert all((after[key] == weights[key]).all() for key in weights)
    second = handful.fit(images, "supervised", seed=1, **again)
    assert second.folder == tmp_path / "run"
    opened = handful.open_run(tmp_path / "run")
    assert opened.record["fingerprint"] == second.record["fingerprint"]
    assert not [p.name for p in (tmp_path / "run").iterdir() if p.name.startswith(".")]


@pytest.mark.thorough
def test_pretrain_overwrite_keeps_a_picture_of_the_users(tmp_path):
    out = tmp_path / "pre"
    options = {"settings": {"steps": "2", "batch": "8"}, "out": out, "precision": "fp32"}
    pretrain(stripes(), "simclr", **options)
    (out / "pictures" / "mine.png").write_bytes(b"mine")
    pretrain(stripes(), "simclr", seed=1, overwrite=True, **options)
    assert (out / "pictures" / "mine.png").read_bytes() == b"mine"


@pytest.mark.thorough
def test_a_list_that_a_killed_overwrite_has_put_away_already_is_not_missed(handful, tmp_path):
    """The process ended between putting typed labels away and the new list.

    The folders of the photos are no classes: the labels are those of the tables alone.
    """
    photos, run, table = tmp_path / "photos", tmp_path / "run", tmp_path / "labels.csv"
    rows = ["file,label"]
    for at in range(30):
        file = f"{('north', 'south')[at % 2]}/{at}.png"
        save(photos / file, smooth(12, 12, seed=at))
        rows += [f"{file},{'ab'[at // 2 % 2]}"] if at < 20 else []
    table.write_text("\n".join(rows))
    quick = ["--method", "supervised", "--set", "steps=2", "--set", "backbone.base=8"]
    assert handful("fit", photos, "--labels", table, "--out", run, *quick)[0] == 0
    shutil.copytree(run, tmp_path / "before")
    listed = run / "label-next.csv"
    rows = listed.read_text().splitlines()
    listed.write_text("\n".join([rows[0], rows[1].replace(",", ",a", 1), *rows[2:]]) + "\n")
    words = ["fit", photos, "--labels", listed, "--after", run, "--out", run, "--overwrite", *quick]
    status, _, err = handful(*words)
    assert status == 0, err
    new = json.loads((run / "run.json").read_text())
    typed = next(path for path in run.iterdir() if "your labels" in path.name)
    (tmp_path / "before" / "label-next.csv").unlink()
    shutil.copy(typed, tmp_path / "before")
    shutil.move(run, tmp_path / "before" / ".new")
    (tmp_path / "before" / ".new" / typed.name).unlink()
    fingerprint = {"fingerprint": new["fingerprint"], "files": ["model.safetensors"]}
    (tmp_path / "before" / ".replaced").write_text(json.dumps(fingerprint))
    shutil.move(tmp_path / "before", run)
    for name, after in (("label-nxt.csv", run), ("label-next.csv", tmp_path / "other")):
        status, _, err = handful(*words[:3], run / name, "--after", after, *words[6:])
        assert status == 2 and "no file" in err, err
    labels = (run / ".new" / "labels.csv").read_text()
    status, _, err = handful(*words)
    assert status == 0, err
    assert json.loads((run / "run.json").read_text()) == new
    assert (run / "labels.csv").read_text() == labels
    assert listed.exists() and (run / typed.name).exists()


def test_a_list_to_label_without_its_run_is_refused_before_labels_are_lost(handful, tmp_path):
    run_like(tmp_path / "run", "old", "old")
    listed = tmp_path / "run" / "label-next.csv"
    words = ["fit", tmp_path, "--labels", listed, "--out", tmp_path / "run", "--overwrite"]
    status, _, err = handful(*words)
    assert status == 2
    assert f"--labels {listed} --after {tmp_path / 'run'}" in err
    assert "old.png" in (tmp_path / "run" / "labels.csv").read_text()


def test_an_unfinished_run_says_how_it_differs_and_how_to_go_on_with_it(tmp_path):
    asked = {"images": "sha256:a", "budget": 40.0, "seed": 0}

    def begun(**changes):
        now = asked | changes
        write_command(acquire(tmp_path / "run", f"{now}", overwrite=False, asked=now), [], now)

    (tmp_path / "run").mkdir()
    begun()
    for changes, told in (
        ({"budget": 20.0}, r"made with budget 40 s, and this one has budget 20 s \(the same call"),
        (
            {"seed": 1},
            r"made with seed 0, and this one has seed 1 \(the same call with seed 0 goes",
        ),
        ({"images": "sha256:b", "seed": 1}, "made with other images or labels; give another"),
    ):
        with pytest.raises(HandfulError, match=told):
            begun(**changes)
    with pytest.raises(HandfulError, match="made with other settings; give another"):
        acquire(tmp_path / "run", "other", overwrite=False, asked=asked)
    (tmp_path / "run" / "checkpoint" / "asked.json").unlink()  # of an earlier version
    with pytest.raises(HandfulError, match="made with other images, labels, settings, time or"):
        begun(budget=20.0)
