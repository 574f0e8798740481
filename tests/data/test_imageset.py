from dataclasses import replace

import numpy as np
import pytest
import torch

from handful.data import store as store_module
from handful.data.imageset import ImageSet, sorted_classes
from handful.data.in_memory import with_labels
from handful.data.sources import load
from handful.data.store import array_store, resized
from image_files import class_folder, noise, save, smooth


def array_set(pixels, labels, classes=("a", "b")):
    """An ImageSet of images (N, H, W, C)."""
    store = array_store(pixels.transpose(0, 3, 1, 2), [str(n) for n in range(len(pixels))])
    return ImageSet(store, np.arange(len(pixels)), np.asarray(labels), classes)


@pytest.fixture
def images():
    pixels = np.stack([noise(6, 8, seed=seed) for seed in range(5)])
    return array_set(pixels, [0, 1, -1, 0, 1])


def test_labels_and_positions_of_known_and_unknown_ones(images):
    assert len(images) == 5
    assert images.labeled.tolist() == [0, 1, 3, 4]
    assert images.unlabeled.tolist() == [2]
    assert images.native_size == (6, 8)
    assert images.channels == 3


def test_seen_removes_every_other_label(images):
    assert images.seen(np.array([1, 3])).labels.tolist() == [-1, 1, -1, 0, -1]
    assert images.labels.tolist() == [0, 1, -1, 0, 1]


def test_a_label_that_changes_is_confirmed_no_more(images):
    known = replace(images, confirmed=frozenset(images.names[:3]))
    assert known.with_labels([0, 0, -1, 0, 1]).confirmed == {"0", "2"}
    assert known.seen([1]).confirmed >= {"1"} and "0" not in known.seen([1]).confirmed
    assert not with_labels(known, ["b", "a", "b", "a", "b"]).confirmed & {"0", "1"}


def test_a_subset_keeps_its_pixels_and_names(images):
    part = images[np.array([4, 0])]
    assert part.names == ["4", "0"]
    assert part.labels.tolist() == [1, 0]
    assert torch.equal(part.at(5), images.at(5)[[4, 0]])
    assert images[images.labels == 1].names == ["1", "4"]


def test_labels_must_fit_images_and_classes(images):
    with pytest.raises(ValueError, match="got 2 labels for 5 images"):
        images.with_labels([0, 1])
    with pytest.raises(
        ValueError, match="class numbers from 0 to 1, or -1 for unknown; got 0 to 2"
    ):
        images.with_labels([0, 1, 2, 0, 0])


def test_relabeled_counts_by_name_in_another_list(images):
    other = images.relabeled(("b", "c", "a"))
    assert other.labels.tolist() == [2, 0, -1, 2, 0]
    with pytest.raises(ValueError, match="class 'b' of .* is not among the 2 known classes: a, c"):
        images.relabeled(("a", "c"))


def test_the_hash_follows_pixels_labels_and_classes_only(images):
    again = array_set(np.stack([noise(6, 8, seed=seed) for seed in range(5)]), images.labels)
    assert images.hash == again.hash
    assert images.hash.startswith("sha256:")
    other_pixels = array_set(np.stack([noise(6, 8, seed=seed) for seed in range(1, 6)]), [0] * 5)
    different = [images.seen([0]), images[:4], other_pixels]
    assert len({images.hash, *(one.hash for one in different)}) == 4


def test_numbers_as_class_names_keep_their_order():
    assert sorted_classes({"10", "9", "2"}) == ("2", "9", "10")
    assert sorted_classes({"1", "01", "2"}) == ("01", "1", "2")
    assert sorted_classes({"10", "9", "b"}) == ("10", "9", "b")


@pytest.mark.parametrize("aspect", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [5, 16, 24])
def test_files_and_arrays_are_resized_alike(tmp_path, aspect, size):
    pixels = np.stack([smooth(20, 30, seed=seed) for seed in range(4)])
    for number, image in enumerate(pixels):
        save(tmp_path / f"{'ab'[number % 2]}" / f"{number}.png", image)
    from_files = load(tmp_path).at(size, aspect)[[0, 2, 1, 3]]
    from_arrays = array_set(pixels, [0, 1, 0, 1]).at(size, aspect)
    assert from_files.shape == (4, 3, size, size)
    assert (from_files.int() - from_arrays.int()).abs().max() <= 2


def test_crop_keeps_the_centre_and_pad_keeps_everything():
    image = torch.zeros(1, 1, 4, 8)
    image[..., :2] = image[..., 6:] = 255  # the sides, which a crop cuts off
    assert resized(image, 4, "crop").max() == 0
    padded = resized(image, 8, "pad")
    assert padded[0, 0, :2].max() == padded[0, 0, 6:].max() == 0
    assert torch.equal(padded[0, 0, 2:6], image[0, 0])


def test_pixels_at_their_own_size_are_untouched(images):
    square = array_set(np.stack([noise(6, 6, seed=seed) for seed in range(3)]), [0, 1, 0])
    assert torch.equal(square.at(6)[1].permute(1, 2, 0), torch.from_numpy(noise(6, 6, seed=1)))


def test_grey_and_colour_convert_into_each_other(images):
    grey = images.at(6, channels=1)
    assert grey.shape == (5, 1, 6, 6)
    luma = images.at(6).float() * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    assert (grey.float() - luma.sum(1, keepdim=True)).abs().max() <= 2
    one = array_set(noise(6, 6, seed=0, channels=1)[None, ..., None].repeat(3, axis=3), [0])
    assert one.channels == 1
    colour = one.at(6, channels=3)
    assert torch.equal(colour[:, 0], colour[:, 2])


@pytest.mark.parametrize("size, aspect, message", [
    (0, "crop", "size=0 is no image size; it must be 1 pixel or more"),
    (8, "squash", "no aspect 'squash'; aspect is one of crop, pad, stretch"),
])  # fmt: skip
def test_a_wrong_size_or_aspect_is_refused(images, tmp_path, size, aspect, message):
    for source in (images, load(class_folder(tmp_path))):
        with pytest.raises(ValueError, match=message):
            source.at(size, aspect)


def test_stream_gives_the_pixels_of_at_in_batches(tmp_path, images):
    for source in (images, load(class_folder(tmp_path))):
        before = list(source.stream(7, batch=2))
        assert [len(batch) for batch in before][:2] == [2, 2]
        assert torch.equal(torch.cat(before), source.at(7))
        assert torch.equal(torch.cat(list(source.stream(7, batch=2))), source.at(7))


def test_pixels_past_the_memory_limit_are_mapped_and_equal(tmp_path, monkeypatch):
    folder = class_folder(tmp_path)
    held = load(folder).at(9)
    monkeypatch.setattr(store_module, "MEMORY_LIMIT", 10)
    monkeypatch.setattr("handful.data.imageset.MEMORY_LIMIT", 10)
    images = load(folder)
    assert torch.equal(images.at(9), held)
    assert isinstance(images.store.pixels(images.rows, 9, "crop", 3)[0], np.memmap)
    scattered = np.array([5, 0, 3])
    assert torch.equal(images[scattered].at(9), held[[5, 0, 3]])


def test_progress_is_shown_once_and_the_cache_is_used_after(tmp_path):
    shown = []

    def track(items, total, what):
        shown.append((total, what))
        return items

    class_folder(tmp_path)
    load(tmp_path, track=track).at(11, track=track)
    assert shown == [(1, "looking at files"), (1, "decoding")]
    load(tmp_path, track=track).at(11, track=track)
    assert len(shown) == 2
