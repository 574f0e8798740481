"""Sources from strangers: what they take of memory, what they may name, what is shown of them."""

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

import handful
from handful import HandfulError
from handful.data.objects import address, contents, files, find, readers
from handful.data.source_names import default_run_folder, redacted, source_name
from image_files import class_folder, noise, save

RUN = Path(__file__).parents[1] / "fixtures" / "run-of-0.1"


pytestmark = pytest.mark.usefixtures("waited")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path):
    """A folder cat/, dog/ with three images each."""
    return class_folder(tmp_path / "photos")


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


# --- what a small file holds in memory


def dictionary_of_one(path, *, bytes_, rows, group=10**6):
    """Parquet whose rows all hold one picture, which is in the file once."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    held = pa.DictionaryArray.from_arrays(
        pa.array([0] * rows, pa.int32()), pa.array([b"\0" * bytes_], pa.binary())
    )
    table = pa.table({"image": held})
    pq.write_table(table, path, compression="zstd", store_schema=False, row_group_size=group)
    return path


def test_a_row_group_is_bounded_by_what_it_holds_and_not_by_what_it_says(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MOST_GROUP", 2_000_000)
    path = dictionary_of_one(tmp_path / "p.parquet", bytes_=100_000, rows=64)
    reader = readers.RowReader(str(path), "image")
    opened = []
    whole = reader._group
    monkeypatch.setattr(reader, "_group", lambda group: opened.append(group) or whole(group))
    for row in (0, 63, 5):
        with pytest.raises(readers.Unreadable, match="in a row group of more than 1 MB"):
            reader.read((0, row), -1)
    assert opened == [0]  # it is not read again to fail again
    monkeypatch.setattr(readers, "MOST_GROUP", 7_000_000)
    assert readers.RowReader(str(path), "image").read((0, 63), -1) == b"\0" * 100_000


def test_a_table_of_more_rows_than_bytes_or_than_are_read_is_refused_unread(tmp_path, monkeypatch):
    path = dictionary_of_one(tmp_path / "p.parquet", bytes_=10, rows=30_000)
    monkeypatch.setattr(contents, "_rows", lambda *_: pytest.fail("its rows were read"))
    with pytest.raises(HandfulError, match="p.parquet has more rows .30,000. than bytes"):
        handful.load(path)
    monkeypatch.setattr(contents, "MOST", 20_000)
    with pytest.raises(HandfulError, match="more than 20,000 images in one source"):
        handful.load(path)


def test_images_fetched_ahead_are_bounded_in_bytes(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "p.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(12):
            archive.writestr(f"{number}.png", b"\0" * 1000)
    monkeypatch.setattr(files, "MOST_AHEAD", 2500)
    source = find.find(str(tmp_path / "p.zip")).files
    whole, fetched = files.Objects.fetch, []
    monkeypatch.setattr(
        files.Objects, "fetch", lambda self, name: fetched.append(name) or whole(self, name)
    )
    names = [f"{number}.png" for number in range(12)]
    for at, file in enumerate(source.each(names)):
        with file as path:
            assert path.stat().st_size == 1000
        assert len(fetched) <= at + 1 + 2
    assert sorted(fetched) == sorted(names)
    assert files._ahead.bytes == 0
    waiting = source.each(names)
    next(waiting)
    waiting.close()  # the caller stops, and never reads the image that it was handed
    assert files._ahead.bytes == 0


def test_an_image_larger_than_what_is_fetched_ahead_is_fetched_when_it_is_wanted(
    tmp_path, monkeypatch
):
    with zipfile.ZipFile(tmp_path / "p.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(4):
            archive.writestr(f"{number}.png", b"\0" * 1000)
    monkeypatch.setattr(files, "MOST_AHEAD", 10)
    source = find.find(str(tmp_path / "p.zip")).files
    opened = list(source.each([f"{number}.png" for number in range(4)]))  # none is held yet
    assert files._ahead.bytes == 0
    for file in opened:
        with file as path:
            assert path.read_bytes() == b"\0" * 1000


def test_a_table_of_labels_in_a_bucket_is_read_up_to_a_size(bucket, photos, monkeypatch):
    at, system = bucket
    system.pipe(f"{at}/0.png", (photos / "cat" / "0.png").read_bytes())
    system.pipe(f"{at}/metadata.csv", b"file_name,label\n0.png,fox\n")
    assert handful.load(at, labeled=False).classes == ("fox",)
    monkeypatch.setattr(contents, "LARGEST_METADATA", 20)
    read = []
    monkeypatch.setattr(type(system), "cat_file", lambda *_, **__: read.append(1))
    with pytest.raises(HandfulError, match=r"metadata.csv is larger than 0 MB"):
        handful.load(at, labeled=False)
    assert not read


# --- tables of labels beside the images


def test_a_table_of_labels_that_names_no_image_is_not_used_and_said(photos, bucket):
    at, system = bucket
    table = b"file_name,label\nmeadow/0.png,fox\nmeadow/1.png,hare\n"
    (photos / "metadata.csv").write_bytes(table)
    for path in sorted(photos.rglob("*.*")):
        system.pipe(f"{at}/{path.relative_to(photos).as_posix()}", path.read_bytes())
    said = []
    here, there = handful.load(photos, say=said.append), handful.load(at)
    for found in (here, there):
        assert found.classes == ("cat", "dog")
        assert len(found.labeled) == 6
    why = "no file_name in it is that of an image, so it labels none"
    assert any(why.replace("it is", "its metadata.csv is") in one for one in said)
    assert ("metadata.csv", why) in there.store.skipped


def test_a_table_of_labels_that_is_no_csv_is_named(photos, bucket):
    at, system = bucket
    (photos / "metadata.csv").write_text(f"file_name,label\ncat/0.png,{'x' * 140_000}\n")
    system.pipe(f"{at}/0.png", (photos / "cat" / "0.png").read_bytes())
    system.pipe(f"{at}/metadata.csv", (photos / "metadata.csv").read_bytes())
    for source in (photos, at):
        with pytest.raises(HandfulError, match="/metadata.csv is no CSV .field larger than"):
            handful.load(source)


def test_a_table_of_labels_in_a_folder_is_read_up_to_a_size(photos, monkeypatch):
    (photos / "metadata.csv").write_text("file_name,label\ncat/0.png,x\n")
    monkeypatch.setattr(find, "LARGEST_METADATA", 20)
    with pytest.raises(HandfulError, match="/metadata.csv is larger than 0 MB"):
        handful.load(photos)


# --- files without an ending, and damaged ones


def test_a_mark_without_an_ending_hides_no_tables_beside_it(photos, bucket):
    at, system = bucket
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.write(photos / "cat" / "0.png", "0.png")
    system.pipe(f"{at}/out/_SUCCESS", b"")
    system.pipe(f"{at}/out/part-0.zip", content.getvalue())
    assert handful.load(f"{at}/out", labeled=False).names == ["0.png"]
    assert handful.load(f"{at}/out/", labeled=False).names == ["0.png"]


@pytest.mark.parametrize("how", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED])
def test_a_damaged_member_is_damaged_and_not_read_again(tmp_path, waited, how):
    picture = save(tmp_path / "0.png", noise(30, 30, seed=1)).read_bytes()
    with zipfile.ZipFile(tmp_path / "p.zip", "w", how) as archive:
        archive.writestr("0.png", picture)
        archive.writestr("1.png", picture)
    content = bytearray((tmp_path / "p.zip").read_bytes())
    content[60:300] = bytes(255 - byte for byte in content[60:300])
    (tmp_path / "p.zip").write_bytes(content)
    found = handful.load(tmp_path / "p.zip", labeled=False)
    assert found.names == ["1.png"]
    assert found.store.skipped[0].reason.startswith("damaged: ")
    assert not waited


@pytest.mark.parametrize("time", ["inf", "nan", "1e300"])
def test_a_member_of_an_impossible_time_is_read(tmp_path, waited, time):
    picture = save(tmp_path / "0.png").read_bytes()
    with tarfile.open(tmp_path / "p.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("0.png")
        member.size, member.pax_headers = len(picture), {"mtime": time}
        archive.addfile(member, io.BytesIO(picture))
    assert handful.load(tmp_path / "p.tar", labeled=False).names == ["0.png"]
    assert not waited


def test_a_compressed_tar_file_of_unknown_size_is_held_to_what_was_read(
    photos, tmp_path, monkeypatch
):
    picture = save(tmp_path / "big.png", noise(800, 800, seed=1)).read_bytes()
    assert len(picture) > 2**20
    with tarfile.open(tmp_path / "p.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "big.png", "big.png")
    with gzip.open(tmp_path / "bomb.tar.gz", "wb") as file:
        file.write(b"\0" * 2**23)
    local = type(address.place_of(str(tmp_path)).system)
    monkeypatch.setattr(local, "size", lambda *_: None)
    assert handful.load(tmp_path / "p.tar.gz", labeled=False).names == ["big.png"]
    with pytest.raises(HandfulError, match="unpacks to more than 20 times its size"):
        handful.load(tmp_path / "bomb.tar.gz")


@pytest.mark.parametrize("packed", ["bz2", "xz", "gz"])
def test_a_damaged_compressed_tar_file_is_unpacked_once(tmp_path, waited, packed):
    path = tmp_path / f"p.tar.{packed}"
    save(tmp_path / "big.png", noise(200, 200, seed=1))
    with tarfile.open(path, f"w:{packed}") as archive:
        archive.add(tmp_path / "big.png", "big.png")
    content = bytearray(path.read_bytes())
    at = len(content) // 2
    content[at : at + 100] = b"\xff" * 100
    path.write_bytes(content)
    with pytest.raises(HandfulError, match="is damaged|is no tar file"):
        handful.load(path)
    assert not waited


def test_a_damaged_table_is_damaged_and_not_read_again(tmp_path, waited):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    picture = save(tmp_path / "0.png", noise(30, 30, seed=1)).read_bytes()
    pq.write_table(
        pa.table({"image": [picture]}), tmp_path / "p.parquet", use_dictionary=False,
        compression="zstd",
    )  # fmt: skip
    content = bytearray((tmp_path / "p.parquet").read_bytes())
    content[4:1500] = b"\xff" * 1496
    (tmp_path / "p.parquet").write_bytes(content)
    with pytest.raises(HandfulError, match="p-0000000: damaged: "):
        handful.load(tmp_path / "p.parquet", labeled=False)
    assert not waited


def test_a_single_object_is_shown_by_its_address(photos, bucket):
    at, system = bucket
    system.pipe(f"{at}/a.png", (photos / "cat" / "0.png").read_bytes())
    assert handful.load(f"{at}/a.png", labeled=False).store.shown(0) == f"{at}/a.png"
    assert handful.load(at, labeled=False).store.shown(0) == f"{at}/a.png"


# --- credentials in addresses

SECRET = "https://user:PASSW@example.org/a/photos.zip?X-Amz-Signature=SIGN&key=SIGN"


@pytest.mark.parametrize(
    "given, shown",
    [
        (SECRET, "https://example.org/a/photos.zip?X-Amz-Signature=...&key=..."),
        ("https://TOKEN@h/my photo.jpg?SIGN", "https://h/my photo.jpg?..."),
        ("https://h/a#SIGN", "https://h/a"),
        ("zip://a::https://u:p@h/b?c=d", "zip://a::https://h/b?c=..."),
        ("abfs://container@account.net/a.png", "abfs://container@account.net/a.png"),
        ("s3://bucket/a@2x.png", "s3://bucket/a@2x.png"),
        (f"--source={SECRET}", "--source=https://example.org/a/photos.zip?X-Amz-Signature=...&key=..."),
        ("photos/what?a=b#c", "photos/what?a=b#c"),
    ],
)  # fmt: skip
def test_addresses_are_shown_without_credentials(given, shown):
    assert redacted(given) == shown
    assert redacted(shown) == shown


def test_a_run_folder_and_a_card_are_named_without_credentials():
    assert default_run_folder("https://user:PASSW@localhost?X-Amz-Signature=SIGN") == Path(
        "localhost-run"
    )
    assert default_run_folder(SECRET) == Path("photos-run")
    assert source_name(SECRET) == "photos.zip"
    assert source_name("s3://bucket/photos/") == source_name("/home/me/photos") == "photos"
    assert source_name("digits") == "digits"


@pytest.mark.parametrize(
    "error",
    [PermissionError(SECRET), FileNotFoundError(SECRET), ImportError(SECRET), OSError(SECRET)],
)
def test_errors_and_what_is_kept_name_no_credentials(tmp_path, monkeypatch, error):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(contents, "container", fails)
    monkeypatch.setattr(find, "place_now", lambda at: address.place_of(str(tmp_path)))
    with pytest.raises(HandfulError) as raised, address.explained(SECRET):
        handful.load(SECRET)
    assert "example.org" in str(raised.value)
    for word in ("PASSW", "SIGN"):
        assert word not in str(raised.value)


def test_a_set_of_images_knows_its_address_without_credentials(photos, tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for name in ("cat/0.png", "dog/0.png"):
            archive.write(photos / name, name)
    here = address.place_of(str(tmp_path / "photos.zip"))
    for module in (find, readers):
        monkeypatch.setattr(module, "place_of", lambda at: here)
    monkeypatch.setattr(find, "place_now", lambda at: here)
    monkeypatch.setattr(contents, "ending", lambda at: ".zip")
    images = handful.load(SECRET, labeled=False)
    kept = b"".join(path.read_bytes() for path in (tmp_path / "cache").rglob("*.about*"))
    assert b"example.org" in kept
    for said in (repr(images), images.source, images.store.source, images.store.shown(0), kept):
        assert "PASSW" not in str(said) and "SIGN" not in str(said)


def test_only_a_folder_is_to_be_labelled_with_the_page(photos, tmp_path):
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.write(photos / "cat" / "0.png", "0.png")
    (tmp_path / "flat").mkdir()
    (photos / "cat" / "0.png").rename(tmp_path / "flat" / "0.png")
    for how in ({}, {"labeled_only": 3}):
        for source, offered in ((tmp_path / "p.zip", False), (tmp_path / "flat", True)):
            with pytest.raises(HandfulError, match="--labels") as error:
                handful.load(source, **how)
            assert ("handful label" in str(error.value)) == offered


def test_a_long_text_without_an_address_is_kept_at_once():
    """The cache keeps the fingerprints of a set as one word: a search would take minutes."""
    word = "a0" * 500_000
    assert redacted(word) == word
