"""On a cluster: the rows, features and figures of one process; what is killed is done again."""

import json
import os
import pickle
import shutil
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from handful import HandfulError, clusters
from handful.data import sources
from handful.data.shards import Shard
from handful.data.shares import divided, shards_for
from handful.pipeline import compare, on_cluster
from handful.pipeline.on_cluster import Made, embed_on, predict_on
from handful.pipeline.recipes import reproduce as recipes
from handful.progress import Reporter
from handful.text import GUESSES
from image_files import noise, save
from tiny import stripes

RUN = Path(__file__).parents[1] / "fixtures" / "run-of-0.1"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder with 1,600 small images, three shards, and one file that is none."""
    folder = tmp_path_factory.mktemp("of") / "photos"
    for number in range(1600):
        save(folder / f"{number:04}.png", noise(8, 8, seed=number, channels=1))
    (folder / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "cache"))
    shutil.copytree(RUN, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Here:
    """A cluster that does the jobs in this process, with copies of what they are given."""

    at_once = 2

    def share(self, value):
        return value

    def results(self, function, jobs):
        for job in jobs:
            given = pickle.loads(pickle.dumps(job.arguments))
            yield job.key, function(*given, reporter=Reporter())


@pytest.fixture
def here(monkeypatch):
    @contextmanager
    def cluster(address, say):
        yield Here()

    for module in (on_cluster, compare, recipes):
        monkeypatch.setattr(module, "cluster", cluster)


# --- without a cluster


def test_shards_are_larger_than_a_pass_and_bounded():
    assert [shards_for(n) for n in (0, 1, 999, 1600, 60_000, 10**7)] == [1, 1, 1, 3, 64, 2500]


def test_a_source_is_listed_once_and_divided_without_rest(place, monkeypatch):
    monkeypatch.setattr("handful.data.shares.FEWEST", 4)
    for number in range(19):
        save(place / "photos" / f"{number:02}.png", noise(8, 8, seed=number, channels=1))
    whole = sources.load("photos", labeled=False)
    of, shares = divided("photos", False)
    assert of == 4
    seen, told, names = [], set(), []
    monkeypatch.setattr("handful.data.image_folder.list_source", lambda *_: pytest.fail("listed"))
    for number, share in enumerate(shares, 1):
        shard = Shard(number, of, lambda *words: seen.append(words), share)
        found = sources.load("photos", labeled=False, shard=shard)
        assert all(shard.holds(name) for name in found.names)
        assert [whole.names[share.at[name]] for name in found.names] == found.names
        told.add(share.listed)
        names += found.names
    assert sorted(names) == whole.names
    assert len(told) == 1 and told.pop().images == 19
    assert len(seen) == 4


def test_a_folder_that_a_machine_does_not_see_is_told(place, here):
    save(place / "photos" / "a.png", noise(8, 8, seed=1, channels=1))
    of, shares = divided("photos", False)
    shutil.rmtree("photos")
    with pytest.raises(HandfulError, match="no source 'photos' and no folder of that name"):
        sources.load("photos", labeled=False, shard=Shard(1, of, share=next(shares)))


def test_a_part_that_is_not_seen_here_is_told(place, here, monkeypatch):
    save(place / "photos" / "a.png", noise(8, 8, seed=1, channels=1))
    monkeypatch.setattr(
        on_cluster, "_predicted", lambda *words, reporter: Made(Path("/other/x"), False, 0)
    )
    with pytest.raises(HandfulError, match="wrote /other/x, which is not here; give --out a place"):
        predict_on("ray", Path("run"), "photos", Path("x.csv"))


@pytest.mark.parametrize("guessing", [False, True])
def test_answers_that_may_be_guesses_are_called_so_before_a_cluster_starts(
    place, here, monkeypatch, guessing
):
    save(place / "photos" / "a.png", noise(8, 8, seed=1, channels=1))
    record = json.loads(Path("run/run.json").read_text())
    record["estimate"] |= {"n": 60, "guessing": guessing}
    Path("run/run.json").write_text(json.dumps(record))
    said, at_start = [], []
    start = on_cluster.cluster
    monkeypatch.setattr(
        on_cluster, "cluster", lambda on, say: at_start.extend(said) or start(on, say)
    )
    predict_on("ray", Path("run"), "photos", Path("x.csv"), reporter=Reporter(say=said.append))
    assert (GUESSES in at_start) == (GUESSES in said) == guessing


def test_parts_stay_where_images_could_not_be_fetched(place, here, monkeypatch):
    save(place / "photos" / "a.png", noise(8, 8, seed=1, channels=1))
    real, said = on_cluster._predicted, []

    def unfetched(*words, reporter):
        return real(*words, reporter=reporter)._replace(unfetched=2)

    monkeypatch.setattr(on_cluster, "_predicted", unfetched)
    Path("x.csv-parts").mkdir()
    Path("x.csv-parts/00002-of-00009.safetensors").touch()  # of fewer images, an earlier time
    predict_on("ray", Path("run"), "photos", Path("x.csv"), reporter=Reporter(say=said.append))
    assert [path.name for path in Path("x.csv-parts").iterdir()] == ["00001-of-00001.safetensors"]
    assert "2 images could not be fetched" in said[-1]
    monkeypatch.setattr(on_cluster, "_predicted", real)
    predict_on("ray", Path("run"), "photos", Path("x.csv"))
    assert not Path("x.csv-parts").exists()


@pytest.fixture(scope="module")
def images():
    """60 labelled training images and a test part of 20."""
    every = stripes(80, size=16, labeled=80)
    return replace(every[np.arange(60)], test=every[np.arange(60, 80)])


def compared(images, out, on=None, names=("features",), draws=range(3), **more):
    how = {"estimate": "none", "precision": "fp32", "size": 16, "settings": {}} | more
    return compare.compare(images, names, draws, 4, out, on=on, **how)


def figures(found):
    return [{k: v for k, v in asdict(cell).items() if k != "seconds"} for cell in found.cells]


def test_a_cell_leaves_out_what_its_machine_cannot_read(place, here, monkeypatch):
    for kind, value in (("dark", 20), ("light", 200)):
        for number in range(8):
            for seed, part in enumerate(("train", "test")):
                pixels = noise(8, 8, seed=2 * number + seed, channels=1) // 8 + value
                save(place / "photos" / part / kind / f"{number}.png", pixels)
    how = {
        "names": ("supervised",),
        "draws": (0,),
        "size": 8,
        "settings": {"supervised.steps": "2", "supervised.backbone.base": "4"},
    }
    images = sources.load("photos")
    (place / "photos" / "train" / "dark" / "3.png").unlink()
    found = compared(images, "on", on="ray", **how)
    assert [one.name for one in images.store.skipped] == ["train/dark/3.png"]
    assert figures(found) == figures(compared(sources.load("photos"), "here", **how))


def test_trainings_are_handed_over_first_and_the_time_left_is_that_of_all_workers(
    images, here, tmp_path, monkeypatch
):
    order, said = [], []

    def fitted(images, name, draw, per_class, options, reporter):
        order.append((name, draw))
        return compare.Cell(name, draw, 0.5, None, 600.0 if name == "uda" else 60.0)

    monkeypatch.setattr(compare, "_fitted_cell", fitted)
    names, reporter = ("features", "uda", "propagation", "supervised"), Reporter(say=said.append)
    compared(images, tmp_path / "on", "ray", names, range(2), reporter=reporter)
    trained = [("uda", 0), ("supervised", 0), ("uda", 1), ("supervised", 1)]
    heads = [("features", 0), ("propagation", 0), ("features", 1), ("propagation", 1)]
    assert order == trained + heads
    assert said[-3].endswith("; 2 to go, about 60 s")  # 60 s each, by two workers
    order.clear()
    compared(images, tmp_path / "here", None, names, range(2))
    assert order[:4] == [(name, 0) for name in names]


# --- on a real cluster of two workers of one CPU


@pytest.fixture(scope="module")
def nodes():
    pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clusters, "cores", lambda: 2)
        patch.delenv("RAY_ADDRESS", raising=False)
        with clusters.cluster("ray") as found:
            yield found


def killed_once(mark, where):
    """What replaces `_predicted`: the first process is killed before it writes its part."""

    def predicted(*words, reporter):
        import os
        import signal

        from handful.pipeline import on_cluster, parts

        write = parts.Job.write

        def killing(self, *args, **named):
            try:
                mark.touch(exist_ok=False)
            except FileExistsError:
                return write(self, *args, **named)
            os.kill(os.getpid(), signal.SIGKILL)

        parts.Job.write = killing
        try:
            return getattr(on_cluster, where)(*words, reporter=reporter)
        finally:
            parts.Job.write = write

    return predicted


@pytest.mark.thorough
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_predictions_are_those_of_one_process_though_a_worker_is_killed(
    nodes, place, photos, handful, monkeypatch, ending
):
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    assert handful("predict", "run", photos, "--out", f"one.{ending}")[0] == 0
    mark = place / "killed"
    monkeypatch.setattr(on_cluster, "_predicted", killed_once(mark, "_predicted"))
    status, out, _ = handful("predict", "run", photos, "--on", "ray", "--out", f"ray.{ending}")
    assert status == 0
    assert "1,600 images from 3 shards" in out
    assert "1 left out; the first is broken.png: not an image in a known format" in out
    assert mark.exists()
    assert Path(f"ray.{ending}").read_bytes() == Path(f"one.{ending}").read_bytes()
    assert sorted(os.listdir()) == sorted(
        ["cache", "killed", "run", f"one.{ending}", f"ray.{ending}"]
    )


@pytest.mark.thorough
def test_a_command_that_was_stopped_goes_on_with_the_parts_that_are_there(
    nodes, place, photos, handful, monkeypatch
):
    handful("predict", "run", photos, "--out", "one.csv")

    def stopped(run, source, shard, parts, share, options, reporter):
        import time

        from handful import HandfulError
        from handful.pipeline import on_cluster

        if not shard.startswith("3/"):
            return on_cluster._predicted(
                run, source, shard, parts, share, options, reporter=reporter
            )
        while len(list(parts.glob("[0-9]*"))) < 2:
            time.sleep(0.05)
        raise HandfulError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(on_cluster, "_predicted", stopped)
        with pytest.raises(HandfulError, match="shard 3/3: the disk is full"):
            predict_on("ray", Path("run"), str(photos), Path("ray.csv"))
    assert not Path("ray.csv").exists()
    assert len(list(Path("ray.csv-parts").glob("[0-9]*"))) == 2

    def going_on(run, source, shard, parts, share, options, reporter):
        from handful.pipeline import on_cluster

        words = (run, source, shard, parts, share, options)
        made = on_cluster._predicted(*words, reporter=reporter)
        assert made.before == (not shard.startswith("3/"))
        return made

    monkeypatch.setattr(on_cluster, "_predicted", going_on)
    predict_on("ray", Path("run"), str(photos), Path("ray.csv"))
    assert Path("ray.csv").read_bytes() == Path("one.csv").read_bytes()


@pytest.mark.thorough
def test_a_data_set_by_name_is_divided(nodes, place, handful):
    handful("predict", "run", "digits", "--out", "one.csv")
    done = predict_on("ray", Path("run"), "digits", Path("ray.csv"))
    assert (done.images, done.shards) == (1797, 4)
    assert Path("ray.csv").read_bytes() == Path("one.csv").read_bytes()


@pytest.mark.thorough
def test_features_are_those_of_one_process(nodes, place, photos, handful, monkeypatch):
    some = place / "some"
    for path in sorted(photos.iterdir())[:1100]:
        some.mkdir(exist_ok=True)
        shutil.copy(path, some / path.name)
    handful("embed", some, "--size", 32, "--folders", "ignore", "--out", "one.npz")
    mark = place / "killed"
    monkeypatch.setattr(on_cluster, "_embedded", killed_once(mark, "_embedded"))
    embed_on("ray", str(some), Path("ray.npz"), size=32)
    one, ray = np.load("one.npz"), np.load("ray.npz")
    assert mark.exists() and len(ray["names"]) == 1100
    for key in one:
        assert key == "hash" or np.array_equal(one[key], ray[key]), key


@pytest.mark.thorough
def test_cells_are_those_of_one_thread_though_a_worker_is_killed(nodes, images, place, monkeypatch):
    mark = place / "killed"

    def killed(images, name, draw, *words, reporter):
        import os
        import signal

        from handful.pipeline import compare

        fitted = compare.fit

        def killing(*args, **named):
            run = fitted(*args, **named)
            if draw == 1:
                try:
                    mark.touch(exist_ok=False)
                except FileExistsError:
                    return run
                os.kill(os.getpid(), signal.SIGKILL)
            return run

        compare.fit = killing
        try:
            return compare._fitted_cell(images, name, draw, *words, reporter=reporter)
        finally:
            compare.fit = fitted

    alone = compared(images, "here", names=("features", "supervised"), draws=range(2), **STEPS)
    monkeypatch.setattr(compare, "_fitted_cell", killed)
    found = compared(images, "on", "ray", names=("features", "supervised"), draws=range(2), **STEPS)
    assert mark.exists()
    assert figures(found) == figures(alone)
    cells = sorted(path.name for path in Path("on").glob("*-*.json"))
    assert cells == sorted(f"{name}-{draw}.json" for name in ("features", "supervised")
                           for draw in range(2))  # fmt: skip
    whole = json.loads(Path("on/comparison.json").read_text())
    assert len(whole["cells"]) == 4
    monkeypatch.setattr(compare, "_fitted_cell", lambda *_, **named: 1 / 0)
    again = compared(images, "on", "ray", names=("features", "supervised"), draws=range(2), **STEPS)
    assert figures(again) == figures(alone)


STEPS = {"settings": {"supervised.steps": "5", "supervised.backbone.base": "8"}}


@pytest.mark.thorough
def test_draws_of_a_recipe_are_those_of_one_thread(nodes, place, monkeypatch):
    from test_recipes import TINY

    opened = replace(stripes(48, labeled=48), test=stripes(20, labeled=20, seed=1))
    monkeypatch.setattr(recipes, "load", lambda *args, **options: opened)
    alone = list(recipes.reproduce(TINY, range(2), Path("here")))
    found = list(recipes.reproduce(TINY, range(2), Path("on"), on="ray"))
    assert [one.draw for one in found] == [0, 1]
    assert [one[:4] for one in found] == [one[:4] for one in alone]
    weights = [Path(of, "draw-1/model.safetensors").read_bytes() for of in ("here", "on")]
    assert weights[0] == weights[1]
