"""Sources from strangers: what they hold in memory, what they may name, and what is shown of them."""

import io
import zipfile
from pathlib import Path

import fsspec
import pytest

import handful
from handful import HandfulError
from handful.data.objects import address, contents, files, find, readers
from image_files import class_folder, noise, save

RUN = Path(__file__).parents[1] / "fixtures" / "run-of-0.1"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def waited(monkeypatch):
    waited = []
    monkeypatch.setattr(address.time, "sleep", waited.append)
    return waited


@pytest.fixture
def photos(tmp_path):
    """A folder cat/, dog/ with three images each."""
    return class_folder(tmp_path / "photos")


@pytest.fixture
def bucket(tmp_path):
    """The address of an empty place in memory, and its file system."""
    system = fsspec.filesystem("memory")
    place = f"/{tmp_path.name}"
    yield f"memory://{place}", system
    if system.exists(place):
        system.rm(place, recursive=True)


# --- files of this machine


def archive_that_names_a_private_file(tmp_path):
    """A folder whose only file is a zip file with a member of the name of a private file."""
    secret = save(tmp_path / "w" / "private" / "secret.png", noise(8, 8, seed=1, channels=1))
    (tmp_path / "w" / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "w" / "in" / "p.zip", "w") as archive:
        archive.writestr("../private/secret.png", secret.read_bytes())
    return tmp_path / "w" / "in"


def test_a_folder_of_archives_is_not_sorted_into_folders(handful, tmp_path):
    folder = archive_that_names_a_private_file(tmp_path)
    status, _, said = handful("predict", RUN, folder, "--into", tmp_path / "sorted")
    assert status == 2
    assert "--into copies the files of a folder" in " ".join(said.split())
    assert not (tmp_path / "sorted").exists()


def test_predictions_for_an_archive_are_not_sorted_into_folders_in_python(tmp_path):
    folder = archive_that_names_a_private_file(tmp_path)
    found = handful.open_run(RUN).predict(folder)
    for some in (found, found[:1]):
        with pytest.raises(HandfulError, match="are of no folder.s files"):
            some.into_folders(folder, tmp_path / "sorted")
    assert not (tmp_path / "sorted").exists()


def test_a_folder_of_archives_is_known_by_its_whole_path(photos, tmp_path, monkeypatch):
    (tmp_path / "held").mkdir()
    with zipfile.ZipFile(tmp_path / "held" / "p.zip", "w") as archive:
        archive.write(photos / "cat" / "0.png", "0.png")
    monkeypatch.chdir(tmp_path)
    store = handful.load("held", labeled=False).store
    assert store.files.identity == store.source == str(tmp_path / "held")
