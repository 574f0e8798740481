"""Shards: images are divided without rest, and the parts are what one process writes."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from handful import HandfulError
from handful.data import sources
from handful.data.objects.files import Objects
from handful.data.shards import shard_of
from handful.pipeline import shards
from handful.pipeline.merge_parts import merge_parts
from image_files import noise, save

RUN = Path(__file__).parents[1] / "fixtures" / "run-of-0.1"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with 20 images, one of which cannot be read, and a run."""
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "cache"))
    for number in range(19):
        save(tmp_path / "photos" / f"{number:02}.png", noise(8, 8, seed=number, channels=1))
    (tmp_path / "photos" / "broken.png").write_bytes(b"no image")
    shutil.copytree(RUN, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def predicted(of=3, source="photos", out="parts", run="run", **options):
    return [
        shards.predict_shard(Path(run), source, f"{k}/{of}", Path(out), **options)
        for k in range(1, of + 1)
    ]


def test_every_image_is_in_one_shard_and_on_every_machine_in_the_same():
    names = [f"photo-{number}.jpg" for number in range(3000)]
    held = Counter(k for name in names for k in range(1, 9) if shard_of(f"{k}/8").holds(name))
    assert sum(held.values()) == 3000
    assert min(held.values()) > 300
    assert [k for k in range(1, 65) if shard_of(f"{k}/64").holds("fox-1.png")] == [33]
    assert sum(shard_of(f"{k}/5").holds("\udcff.png") for k in range(1, 6)) == 1


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "-1/4", "1/0", "a/b", "1/4/5", "1/999999"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(HandfulError, match="the third of 64 is --shard 3/64"):
        shard_of(text)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_the_merged_parts_are_what_one_process_writes(place, handful, ending):
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    handful("predict", "run", "photos", "--out", f"one.{ending}")
    assert sum(len(done.part.at) for done in predicted()) == 19
    status, out, _ = handful("merge", "parts", "--out", f"merged.{ending}")
    assert status == 0
    assert "19 images from 3 shards" in out
    assert "1 left out; the first is broken.png: not an image in a known format" in out
    assert Path(f"merged.{ending}").read_bytes() == Path(f"one.{ending}").read_bytes()


def test_blocks_are_in_the_order_of_all_images(place, monkeypatch):
    monkeypatch.setattr("handful.pipeline.parts.ROWS", 4)
    predicted()
    merge_parts(Path("parts"), Path("merged.csv"))
    names = [line.split(",")[0] for line in Path("merged.csv").read_text().splitlines()[1:]]
    assert names == [f"{number:02}.png" for number in range(19)]


@pytest.mark.thorough
def test_a_data_set_is_divided_with_its_test_part(place, handful):
    handful("predict", "run", "digits", "--out", "one.csv")
    predicted(source="digits", of=2)
    merge_parts(Path("parts"), Path("merged.csv"))
    assert Path("merged.csv").read_bytes() == Path("one.csv").read_bytes()


def test_a_finished_part_is_not_made_again(place, monkeypatch):
    first = predicted()
    monkeypatch.setattr("handful.pipeline.run.Run.predict", lambda *_: pytest.fail("predicted"))
    again = predicted()
    assert [done.before for done in first + again] == [False] * 3 + [True] * 3


def test_a_part_of_other_images_or_another_run_is_made_again(place):
    predicted()
    save(place / "photos" / "new.png", noise(8, 8, seed=99, channels=1))
    assert not any(done.before for done in predicted())
    record = json.loads(Path("run/run.json").read_text())
    record["estimate"]["abstentions"] = [
        {"sure": 0.8, "threshold": 0.6, "share": 0.37, "accuracy": 0.9, "held": 0.9}
    ]
    Path("run/run.json").write_text(json.dumps(record))
    assert not any(done.before for done in predicted(abstain=0.75))
    assert merge_parts(Path("parts"), Path("merged.csv")).images == 20


def test_a_part_of_another_place_with_equal_names_is_made_again(place):
    first = predicted()
    shutil.copytree(place / "photos", place / "elsewhere")
    again = predicted(source="elsewhere")
    absolute = predicted(source=str(place / "elsewhere"))
    assert [done.before for done in first + again + absolute] == [False] * 6 + [True] * 3
    assert str(place) not in json.dumps(first[0].part.about)


def test_a_part_with_images_that_could_not_be_fetched_is_tried_again(place, monkeypatch):
    (place / "list.csv").write_text("path\nphotos/00.png\nphotos/01.png\nphotos/02.png\n")
    whole = Objects.fetch

    def fetch(self, name):
        if name == "photos/01.png":
            from handful.data.decode import Unreadable

            raise Unreadable("cannot be fetched: reset by peer")
        return whole(self, name)

    with monkeypatch.context() as broken:
        broken.setattr(Objects, "fetch", fetch)
        (done,) = predicted(of=1, source="list.csv")
        assert (done.part.about["left_out"], done.part.about["unfetched"]) == (1, 1)
    (done,) = predicted(of=1, source="list.csv")
    assert not done.before
    assert (len(done.part.at), done.part.about["unfetched"]) == (3, 0)


@pytest.mark.thorough
def test_a_shard_without_an_image_is_an_empty_part(place):
    parts = predicted(of=40)
    assert any(not len(done.part.at) for done in parts)
    assert merge_parts(Path("parts"), Path("merged.csv")).images == 19


def test_parts_without_an_image_say_why_none_could_be_read(place):
    for path in Path("photos").iterdir():
        path.write_bytes(b"no image")
    predicted()
    said = "the parts in parts hold no image; 00.png: not an image in a known format"
    with pytest.raises(HandfulError, match=said):
        merge_parts(Path("parts"), Path("merged.csv"))


def test_python_loads_a_shard_of_a_folder_and_of_a_data_set(place):
    for source, n in (("photos", 19), ("digits", 1797)):
        found = [sources.load(source, labeled=False, shard=f"{k}/2") for k in (1, 2)]
        names = [name for one in found for name in one.names + (one.test.names if one.test else [])]
        assert len(set(names)) == len(names) == n


def test_only_images_of_the_shard_are_read(place, monkeypatch):
    seen = []
    whole = sources.load_folder

    def load_folder(*words, **named):
        images = whole(*words, **named)
        seen.append(images.names)
        return images

    monkeypatch.setattr(sources, "load_folder", load_folder)
    predicted()
    assert sorted(name for names in seen for name in names) == [f"{n:02}.png" for n in range(19)]


# --- what merge refuses


def refused(said):
    with pytest.raises(HandfulError, match=said) as error:
        merge_parts(Path("parts"), Path("merged.csv"))
    assert "\n" not in str(error.value)
    assert not Path("merged.csv").exists()


def test_a_missing_shard_is_named(place):
    predicted(of=4)
    Path("parts/00002-of-00004.safetensors").unlink()
    Path("parts/00003-of-00004.safetensors").unlink()
    refused(r"2 of 4 shards are not in parts: 2, 3; run them with --shard 2/4")


def test_a_doubled_shard_is_named(place):
    predicted()
    shutil.copy("parts/00002-of-00003.safetensors", "parts/copy.safetensors")
    refused(r"are both shard 2 of 3; remove one of them")


def test_parts_of_another_number_of_shards_are_refused(place):
    predicted()
    shards.predict_shard(Path("run"), "photos", "1/4", Path("parts"))
    refused(
        "holds parts of another number of shards, too: of 4 and of 3; if those of 4 are left "
        "over, remove them: 00001-of-00004.safetensors"
    )


def test_parts_of_other_images_are_refused(place):
    predicted()
    save(place / "photos" / "new.png", noise(8, 8, seed=99, channels=1))
    shards.predict_shard(Path("run"), "photos", "2/3", Path("parts"))
    refused("are of other images: the source has changed")


def test_parts_of_another_run_are_refused(place):
    predicted()
    shutil.copytree("run", "other")
    with safe_open("other/model.safetensors", "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    name = next(name for name in tensors if "head" in name)
    tensors[name] = tensors[name] + 1
    save_file(tensors, "other/model.safetensors", metadata)
    shards.predict_shard(Path("other"), "photos", "2/3", Path("parts"))
    refused("are made with other options|are made by another run")


def altered(path, change, about=None):
    """Write a part again after a change of its tensors or of what it says of itself."""
    with safe_open(path, "pt") as file:
        told = json.loads(file.metadata()["part"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    change(tensors)
    save_file(tensors, path, {"part": json.dumps({**told, **(about or {})})})


def test_parts_in_int8_and_in_32_bits_are_refused(place):
    predicted()
    altered("parts/00002-of-00003.safetensors", lambda t: None, {"precision": "int8"})
    refused("computed in (bf16|fp32) and int8, which differ too much")


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.pop("at"),
        lambda t: t.update(at=t["at"].flip(0)),
        lambda t: t.update(at=t["at"] + 1000),
        lambda t: t.update(at=t["at"].float()),
        lambda t: t.update(ends=t["ends"] + 1),
        lambda t: t.update(probabilities=t["probabilities"][1:]),
        lambda t: t.update(probabilities=t["probabilities"] * torch.nan),
        lambda t: t.update(more=torch.zeros(1)),
        lambda t: t.update(probabilities=t["probabilities"][:, 1:].contiguous()),
        lambda t: t.update(left_out=torch.tensor([*b"[3]"], dtype=torch.uint8)),
        lambda t: t.update(left_out=torch.tensor([255], dtype=torch.uint8)),
    ],
)
def test_a_damaged_part_is_named(place, change):
    predicted()
    altered("parts/00002-of-00003.safetensors", change)
    refused("00002-of-00003.safetensors is damaged")


@pytest.mark.parametrize(
    "about",
    [
        {"number": 0},
        {"of": "3"},
        {"images": -1},
        {"kind": "other"},
        {"made": 3},
        {"made": {}},
        {"made": {"classes": "ab", "threshold": 0, "none_of_these": False}},
    ],
)
def test_a_part_that_says_something_impossible_is_named(place, about):
    predicted()
    altered("parts/00002-of-00003.safetensors", lambda tensors: None, about)
    refused("00002-of-00003.safetensors does not hold what handful writes there")


def test_a_part_without_what_it_says_to_have_is_named(place):
    predicted()
    made = {"classes": list("0123456789"), "threshold": 0.0, "none_of_these": True}
    altered("parts/00002-of-00003.safetensors", lambda tensors: None, {"made": made})
    refused("00002-of-00003.safetensors is damaged")


def test_images_of_another_shard_are_refused(place):
    predicted()
    altered(
        "parts/00001-of-00003.safetensors",
        lambda t: t.update(names=torch.from_numpy(np.roll(t["names"].numpy(), 3).copy())),
    )
    refused("which is not of its shard")


def test_what_is_no_part_is_refused_and_never_replaced(place):
    Path("parts").mkdir()
    refused("holds no part")
    Path("parts/00001-of-00003.safetensors").write_bytes(b"\x08" + b"\0" * 20)
    with pytest.raises(HandfulError):
        shards.predict_shard(Path("run"), "photos", "1/3", Path("parts"))
    assert Path("parts/00001-of-00003.safetensors").read_bytes() == b"\x08" + b"\0" * 20


def test_an_output_that_handful_did_not_write_stays(place):
    predicted()
    Path("merged.csv").write_text("mine,yours\n1,2\n")
    with pytest.raises(HandfulError, match="is not what handful writes there"):
        merge_parts(Path("parts"), Path("merged.csv"))
    assert Path("merged.csv").read_text() == "mine,yours\n1,2\n"


# --- the command line


@pytest.mark.parametrize(
    "words, said",
    [
        (("predict", "run", "photos", "--shard", "1/2"), "give --out a folder for the parts"),
        (("predict", "run", "photos", "--shard", "1/2", "--out", "x.csv"), "handful merge parts/"),
        (("predict", "run", "photos", "--shard", "1/2", "--into", "x"), "--into sorts all images"),
        (("predict", "run", "photos", "--shard", "3/2", "--out", "x"), "is no shard"),
        (("embed", "photos", "--shard", "1/2", "--out", "x", "--budget", "1m"), "--budget needs"),
        (("embed", "photos", "--shard", "1/2", "--out", "x", "--folders", "classes"), "--folders"),
        (("merge", "nowhere", "--out", "x.csv"), "no folder 'nowhere'"),
    ],
)
def test_what_does_not_go_together_is_said(place, handful, words, said):
    status, _, err = handful(*words)
    assert status == 2
    assert said in " ".join(err.split())


def test_the_command_says_what_it_wrote_and_what_was_there(place, handful):
    words = ("predict", "run", "photos", "--shard", "2/3", "--out", "parts")
    _, first, _ = handful(*words)
    assert "shard 2/3: " in first and "parts/00002-of-00003.safetensors" in first
    _, again, _ = handful(*words)
    assert "shard 2/3 is there already" in again
    _, told, _ = handful(*words, "--json")
    assert json.loads(told)["done_before"] is True


@pytest.mark.thorough
@pytest.mark.parametrize("ending", ["npz", "parquet"])
def test_features_of_shards_are_those_of_one_process(place, handful, ending):
    table = pytest.importorskip("pyarrow.parquet")
    whole = ("embed", "photos", "--size", 32, "--folders", "ignore", "--out", f"one.{ending}")
    assert handful(*whole)[0] == 0
    for k in (1, 2):
        handful("embed", "photos", "--size", 32, "--shard", f"{k}/2", "--out", "parts")
    status, out, _ = handful("merge", "parts", "--out", f"merged.{ending}")
    assert (status, "19 images from 2 shards" in out) == (0, True)
    if ending == "parquet":
        assert table.read_table("merged.parquet").equals(table.read_table("one.parquet"))
        return
    one, merged = np.load("one.npz"), np.load("merged.npz")
    for key in one:
        assert key == "hash" or np.array_equal(one[key], merged[key]), key


def test_parquet_has_all_digits_and_no_label_without_an_answer(place, handful):
    table = pytest.importorskip("pyarrow.parquet")
    from handful.pipeline.run import open_run

    found = open_run(Path("run")).predict("photos")
    found.save("all.parquet")
    read = table.read_table("all.parquet")
    assert read.column_names == ["file", "label", "confidence", *(f"p({n})" for n in range(10))]
    assert np.array_equal(
        np.stack([read[f"p({n})"].to_numpy() for n in range(10)], axis=1), found.probabilities
    )
    assert read["label"].to_pylist() == found.labels


def test_features_of_a_shard_are_made_as_those_of_all_images(place, monkeypatch):
    """The last bits depend on how many images are in a pass."""
    from handful.models import feature_cache

    monkeypatch.setattr(feature_cache, "_PASS", 16 * 8 * 8)  # 16 images in a pass
    found = [sources.load("photos", labeled=False, shard=f"{k}/3") for k in (1, 2, 3)]
    assert [images.in_source for images in found] == [20] * 3
    found += [sources.load("photos", labeled=False)]
    found += [found[-1][:2], sources.load("photos", {"00.png": "a"}, labeled_only=5, labeled=False)]
    for images in found:
        assert feature_cache.features(images, _SizeOfPass(), 8).tolist() == [[16.0]] * len(images)
    (alone,) = feature_cache.features(
        sources.load("photos/00.png", labeled=False), _SizeOfPass(), 8
    )
    assert alone.tolist() == [1.0]  # a single image is not slowed down


class _SizeOfPass(torch.nn.Module):
    """How many images are in the pass."""

    def forward(self, images):
        return torch.full((len(images), 1), float(len(images)))
