import hashlib
import pickle
import struct
import urllib.error

import numpy as np
import pytest
import torch

import handful
from handful.data.source_names import NAMES
from handful.data.sources import SOURCES, load
from handful.data.splits import draw
from handful.errors import HandfulError
from handful.progress import Important
from image_files import class_folder, noise, save


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


def test_a_folder_named_like_a_data_set_is_reached_by_its_path_and_mentioned(tmp_path, monkeypatch):
    class_folder(tmp_path / "digits", classes=("cat", "dog"))
    monkeypatch.chdir(tmp_path)
    said = []
    assert len(load("digits", say=said.append)) == 1438
    assert said == ["digits is the data set of that name; for the folder here type ./digits"]
    assert load("./digits", say=said.append).classes == ("cat", "dog")
    assert load(tmp_path.joinpath("digits").relative_to(tmp_path)).classes == ("cat", "dog")
    monkeypatch.chdir(tmp_path / "digits")
    load("digits", say=said.append)
    assert sum("of that name" in text for text in said) == 1


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_mnist(root, name="MNIST"):
    """Write four training and two test images in MNIST's format."""
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    for part, n in (("train", 4), ("t10k", 2)):
        images = noise(n, 28 * 28, seed=n, channels=1)
        header = struct.pack(">iiii", 2051, n, 28, 28)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = struct.pack(">ii", 2049, n) + bytes(range(n))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(labels)


def write_cifar10(root, monkeypatch):
    from torchvision.datasets import CIFAR10

    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    batches = {"data_batch_1": ([0, 1], 1), "data_batch_2": ([1], 2), "test_batch": ([0], 3)}
    for name, (labels, seed) in batches.items():
        data = noise(len(labels), 3072, seed=seed, channels=1)
        (folder / name).write_bytes(pickle.dumps({"data": data, "labels": labels}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["airplane", "car"]}))
    lists = [[name, md5(folder / name)] for name in batches]
    monkeypatch.setattr(CIFAR10, "train_list", lists[:2])
    monkeypatch.setattr(CIFAR10, "test_list", lists[2:])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": md5(folder / "batches.meta")}
    monkeypatch.setattr(CIFAR10, "meta", meta)
    return noise(2, 3072, seed=1, channels=1)


def write_stl10(root, monkeypatch):
    from torchvision.datasets import STL10

    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    contents = {
        "train_X.bin": noise(2, 27648, seed=1, channels=1).tobytes(),
        "train_y.bin": bytes([1, 2]),
        "unlabeled_X.bin": noise(3, 27648, seed=2, channels=1).tobytes(),
        "test_X.bin": noise(1, 27648, seed=3, channels=1).tobytes(),
        "test_y.bin": bytes([2]),
        "class_names.txt": b"airplane\nbird\n",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    listed = {name: [name, md5(folder / name)] for name in contents}
    train = [listed[name] for name in ("train_X.bin", "train_y.bin", "unlabeled_X.bin")]
    monkeypatch.setattr(STL10, "train_list", train)
    monkeypatch.setattr(STL10, "test_list", [listed["test_X.bin"], listed["test_y.bin"]])
    return noise(2, 27648, seed=1, channels=1)


def test_digits_come_with_a_fixed_test_part():
    images = load("digits")
    assert (len(images), len(images.test)) == (1438, 359)
    assert images.classes == tuple("0123456789")
    assert (images.native_size, images.channels) == ((8, 8), 1)
    assert np.bincount(images.test.labels).tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]
    assert images.at(8).max() == 255
    assert images.test.hash == load("digits").test.hash


@pytest.mark.parametrize("name, folder", [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_mnist_files_already_there_are_read_without_network(tmp_path, name, folder):
    write_mnist(tmp_path, folder)
    images = load(name, data_root=tmp_path)
    assert images.names == ["train/00000", "train/00001", "train/00002", "train/00003"]
    assert images.test.names == ["test/00000", "test/00001"]
    assert images.labels.tolist() == [0, 1, 2, 3]
    expected = torch.from_numpy(noise(4, 28 * 28, seed=4, channels=1)).view(4, 1, 28, 28)
    assert torch.equal(images.at(28), expected)
    assert len(images.classes) == 10


def test_cifar10_files_already_there_are_read_without_network(tmp_path, monkeypatch):
    first = write_cifar10(tmp_path, monkeypatch)
    images = load("cifar10", data_root=tmp_path)
    assert images.labels.tolist() == [0, 1, 1]
    assert images.classes == ("airplane", "car")
    assert torch.equal(images.at(32)[:2], torch.from_numpy(first).view(2, 3, 32, 32))


def test_stl10_has_unlabeled_images_and_its_columns_become_rows(tmp_path, monkeypatch):
    first = write_stl10(tmp_path, monkeypatch)
    images = load("stl10", data_root=tmp_path)
    assert images.labels.tolist() == [0, 1, -1, -1, -1]
    assert images.names[1:3] == ["train/00001", "unlabeled/00000"]
    expected = torch.from_numpy(first).view(2, 3, 96, 96).transpose(2, 3)
    assert torch.equal(images.at(96)[:2], expected)
    assert images.test.labels.tolist() == [1]


def test_a_data_set_that_cannot_be_had_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="cannot get mnist in .*; check the network, or put its"):
        load("mnist", data_root=tmp_path)


def test_the_data_folder_is_taken_from_the_environment(tmp_path, monkeypatch):
    write_mnist(tmp_path)
    monkeypatch.setenv("HANDFUL_DATA", str(tmp_path))
    assert len(load("mnist")) == 4


def test_a_mistyped_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError) as error:
        load("mnits")
    assert str(error.value) == (
        "no source 'mnits' and no folder of that name. Did you mean 'mnist'? "
        "Sources: cifar10, digits, fashion-mnist, mnist, stl10, or the path of a folder"
    )
    assert tuple(SOURCES) == NAMES == ("digits", "mnist", "fashion-mnist", "cifar10", "stl10")


def test_a_missing_folder_is_not_taken_for_a_name():
    with pytest.raises(ValueError, match="no folder 'photos/mnist'; check the path"):
        load("photos/mnist")


def test_empty_text_is_not_the_folder_here(tmp_path, monkeypatch):
    save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    for ask in (load, handful.fit, handful.embed):
        with pytest.raises(HandfulError, match="the source is empty text; give the path of a fold"):
            ask("")
    with pytest.raises(HandfulError, match="the source is empty text"):
        load("", {"a.png": "fox"}, labeled=False)
    assert len(load(".", labeled=False)) == 1


SPELLING = "classes that differ in spelling only: 'Cat', 'cat'; if they are one, give them one name"


def test_classes_that_differ_in_case_only_are_told_in_python(tmp_path):
    given = {f"{k}.png": ("Cat", "cat ", "dog")[k % 3] for k in range(6)}
    for seed, name in enumerate(given):
        save(tmp_path / "flat" / name, seed=seed)
    class_folder(tmp_path / "named", classes=("Cat", "cat", "dog"))
    pictures = [noise(8, 8, seed=seed) for seed in range(6)]
    for source, labels in (
        (tmp_path / "flat", given), (tmp_path / "named", None), (pictures, list(given.values()))
    ):  # fmt: skip
        with pytest.warns(UserWarning, match=SPELLING):
            assert load(source, labels).classes == ("Cat", "cat", "dog")
    load(tmp_path / "named", labeled=False)  # to predict: no warning


def test_labels_are_for_folders():
    with pytest.raises(ValueError, match="digits has its own labels"):
        load("digits", "labels.csv")


def test_sub_folders_are_classes_and_the_rest_has_no_label(tmp_path):
    class_folder(tmp_path, per_class=2, classes=("10", "9"))
    save(tmp_path / "loose.png", seed=50)
    save(tmp_path / "unlabeled" / "deep" / "one.png", seed=51)
    images = load(tmp_path)
    assert images.classes == ("9", "10")
    assert dict(zip(images.names, images.labels.tolist(), strict=True)) == {
        "10/0.png": 1, "10/1.png": 1, "9/0.png": 0, "9/1.png": 0,
        "loose.png": -1, "unlabeled/deep/one.png": -1,
    }  # fmt: skip
    assert images.test is None


def test_train_and_test_folders_are_parts(tmp_path):
    class_folder(tmp_path / "train")
    save(tmp_path / "test" / "dog" / "far" / "1.png", seed=70)
    save(tmp_path / "test" / "loose.png", seed=71)
    save(tmp_path / "test" / "horse" / "1.png", seed=72)
    save(tmp_path / "train" / "loose.png", seed=73)
    save(tmp_path / "elsewhere" / "1.png", seed=74)
    images = load(tmp_path)
    assert len(images) == 7 and images.names[-1] == "train/loose.png"
    assert images.test.names == ["test/dog/far/1.png"]
    assert images.test.labels.tolist() == [1]
    assert dict(images.store.skipped) == {
        "test/loose.png": "a test image without a class folder",
        "test/horse/1.png": "no training image of its class: horse",
        "elsewhere/1.png": "beside the folders that hold the data set",
    }


def test_a_validation_folder_is_the_test_part_where_there_is_no_other(tmp_path):
    class_folder(tmp_path / "train")
    save(tmp_path / "val" / "cat" / "1.png", seed=70)
    assert load(tmp_path).test.names == ["val/cat/1.png"]
    save(tmp_path / "test" / "cat" / "1.png", seed=71)
    images = load(tmp_path)
    assert images.test.names == ["test/cat/1.png"]
    assert images.names[-1] == "val/cat/1.png" and images.labels[-1] == 0


def test_a_class_may_be_called_train(tmp_path):
    class_folder(tmp_path, classes=("train", "ship"))
    assert load(tmp_path).classes == ("ship", "train")


def test_a_test_part_is_cut_on_request(tmp_path):
    class_folder(tmp_path, per_class=10)
    images = load(tmp_path, test_fraction=0.2, seed=3)
    assert (len(images), len(images.test)) == (16, 4)
    assert np.bincount(images.test.labels).tolist() == [2, 2]
    with pytest.raises(ValueError, match="digits already has a test part of 359 images"):
        load("digits", test_fraction=0.2)


@pytest.mark.parametrize("classes, message", [
    ((), "holds 1 image but no label, and there is no labels.csv here; label some"),
    (("cat",), "has labels of one class only \\('cat'\\); a classifier needs two or more"),
])  # fmt: skip
def test_too_few_labels_are_refused_unless_none_are_needed(tmp_path, classes, message):
    class_folder(tmp_path, classes=classes)
    save(tmp_path / "loose.png", seed=9)
    with pytest.raises(ValueError, match=message):
        load(tmp_path)
    assert len(load(tmp_path, labeled=False)) == 1 + 3 * len(classes)


def test_one_file_can_be_loaded_to_predict_it(tmp_path):
    path = save(tmp_path / "one.png")
    save(tmp_path / "other.png", seed=1)
    images = load(path, labeled=False)
    assert images.names == ["one.png"]
    assert images.at(8).shape == (1, 3, 8, 8)


def test_identical_images_form_a_group_that_no_part_splits(tmp_path):
    class_folder(tmp_path, per_class=4)
    for number in range(4):
        save(tmp_path / "dog" / f"copy{number}.png", seed=1001)
    images = load(tmp_path)
    same = [images.names.index(name) for name in ("dog/1.png", "dog/copy0.png", "dog/copy3.png")]
    assert len(set(images.groups[same])) == 1
    assert len(set(images.groups)) == 8
    drawn = draw(images.labels, 2, 0, images.groups)
    assert len(set(same) & set(drawn)) in (0, 3)


def test_training_images_that_are_also_test_images_are_left_out_and_named(tmp_path):
    class_folder(tmp_path / "train")
    save(tmp_path / "test" / "dog" / "a.png", seed=1001)
    save(tmp_path / "test" / "dog" / "b.png", seed=90)
    images = load(tmp_path)
    assert "train/dog/1.png" not in images.names and len(images) == 5
    assert images.store.skipped == (
        ("train/dog/1.png", "same pixels as a test image: test/dog/a.png"),
    )
    assert len(load(tmp_path, keep_leaks=True)) == 6


@pytest.mark.thorough
@pytest.mark.parametrize("name, n", [("mnist", 60_000), ("fashion-mnist", 60_000)])
def test_the_published_files_hold_what_they_should(data_root, name, n):
    if name == "fashion-mnist" and not (data_root / "FashionMNIST").is_dir():
        pytest.skip("Fashion-MNIST is not in the data folder")
    images = load(name, data_root=data_root)
    assert (len(images), len(images.test)) == (n, 10_000)
    assert images.native_size == (28, 28)


def test_a_missing_file_is_called_a_file(tmp_path):
    with pytest.raises(ValueError, match="no file 'photos/nope.jpg'; check the path"):
        load("photos/nope.jpg")


def test_folders_that_group_the_images_are_not_said_to_give_nothing(tmp_path):
    class_folder(tmp_path / "photos", classes=("east", "west"), per_class=2)
    table = tmp_path / "labels.csv"
    table.write_text("file,label\neast/0.png,x\nwest/1.png,y\n")
    for groups, told in ((None, True), ("folder", False)):
        said = []
        load(tmp_path / "photos", table, groups=groups, say=said.append)
        assert any("its 2 sub-folders give none; if they are" in one for one in said) == told


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("east/0.png,east\nwest/1.png,west", "2 images in them have no label; after this fit, "),
        ("east/0.png,east\nwest/1.png,west\neast/1.png,east", "1 image in them has no label; "),
        ("east/0.png,east\neast/1.png,east\nwest/0.png,west\nwest/1.png,west", ""),
        ("east/0.png,east\nwest/1.png,south", None),  # west is no class
        ("east/0.png,west\nwest/1.png,west\nwest/0.png,east", None),  # the table says otherwise
    ],
)
def test_folders_named_like_classes_of_the_table_are_told_to_give_labels_later(
    tmp_path, rows, told
):
    photos = tmp_path / "photos"
    class_folder(photos, classes=("east", "west"), per_class=2)
    table = tmp_path / "labels.csv"
    table.write_text(f"file,label\n{rows}\n")
    said = []
    load(photos, table, say=said.append)
    about = [one for one in said if "sub-folders" in one]
    assert len(about) == 1
    if told is None:
        assert "if they are sites" in about[0]
        return
    assert "(east, west) are named like classes of the table, and give no label" in about[0]
    assert isinstance(about[0], Important) == bool(told) and told in about[0]
    if told:
        assert f"handful fit {photos} --after RUN without --labels takes th" in about[0]
    else:
        assert "each image in them has one" in about[0]
