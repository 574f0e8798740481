"""Sources that are no folder: the same images, and nothing that a stranger's file can break."""

import contextlib
import gzip
import io
import json
import pickle
import stat
import tarfile
import tempfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import handful
from handful import HandfulError
from handful.data.decode import Unreadable
from handful.data.objects import address, contents, find, readers
from handful.data.objects.files import Objects
from image_files import class_folder, noise, save

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


pytestmark = pytest.mark.usefixtures("waited")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path):
    """A folder cat/, dog/ with three images each."""
    return class_folder(tmp_path / "photos")


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*.png"))}


def as_zip(photos, path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files(photos).items():
            archive.writestr(name, content)


def as_tar(photos, path, mode="w", more=()):
    with tarfile.open(path, mode) as archive:
        for name, content in [*files(photos).items(), *more]:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def as_rows(photos, path, **options):
    rows = [{"bytes": content, "path": name} for name, content in files(photos).items()]
    pq.write_table(pa.table({"image": rows}), path, row_group_size=4, **options)


def as_plain_rows(photos, path):
    held = files(photos)
    table = {"jpg": pa.array(held.values(), pa.binary()), "file_name": list(held)}
    pq.write_table(pa.table(table), path)


def as_list(photos, path):
    path.write_text("uri\n" + "".join(f"photos/{name}\n" for name in files(photos)))


def as_table_of_paths(photos, path):
    pq.write_table(pa.table({"path": [f"photos/{name}" for name in files(photos)]}), path)


WAYS = {
    "p.zip": as_zip,
    "p.tar": as_tar,
    "p.tar.gz": lambda photos, path: as_tar(photos, path, "w:gz"),
    "p.tar.xz": lambda photos, path: as_tar(photos, path, "w:xz"),
    "rows.parquet": as_rows,
    "plain.parquet": as_plain_rows,
    "list.csv": as_list,
    "list.parquet": as_table_of_paths,
}


@pytest.mark.parametrize("kind", WAYS)
def test_an_archive_a_table_or_a_list_has_the_images_of_the_folder(photos, tmp_path, kind):
    WAYS[kind](photos, tmp_path / kind)
    here = handful.load(photos, labeled=False)
    for _ in range(2):  # the second time what is in it comes from the cache
        there = handful.load(tmp_path / kind, labeled=False)
        assert [name.removeprefix("photos/") for name in there.names] == here.names
        assert (there.store.fingerprints == here.store.fingerprints).all()
        assert (there.at(8).numpy() == here.at(8).numpy()).all()


def test_decoded_images_are_shared_with_the_folder(photos, tmp_path, monkeypatch):
    as_zip(photos, tmp_path / "p.zip")
    handful.load(photos).at(8)
    there = handful.load(tmp_path / "p.zip")
    monkeypatch.setattr(Objects, "fetch", lambda *_: pytest.fail("it was fetched"))
    assert len(there.at(8)) == 6


def test_a_bucket_has_the_images_of_the_folder_and_its_classes(photos, bucket):
    at, system = bucket
    for name, content in files(photos).items():
        system.pipe(f"{at}/pets/{name}", content)
    system.pipe(f"{at}/pets/notes.txt", b"no image")
    system.pipe(f"{at}/pets/raw.cr2", b"no image that is read")
    system.pipe(f"{at}/pets/.hidden/x.png", b"")
    here, there = handful.load(photos), handful.load(f"{at}/pets/")
    assert there.names == here.names
    assert there.classes == here.classes
    assert (there.labels == here.labels).all()
    assert dict(there.store.other) == {".txt": 1}
    assert [one.name for one in there.store.skipped] == ["raw.cr2"]
    assert handful.load(f"{at}/pets/cat/0.png", labeled=False).names == ["0.png"]


def test_a_folder_of_archives_is_read_as_one(photos, tmp_path, bucket):
    at, system = bucket
    (tmp_path / "held").mkdir()
    as_tar(photos, tmp_path / "held" / "a.tar")
    save(tmp_path / "more" / "other.png", seed=77)
    save(tmp_path / "more" / "cat" / "0.png", seed=78)
    as_zip(tmp_path / "more", tmp_path / "held" / "b.zip")
    for path in (tmp_path / "held").iterdir():
        system.pipe(f"{at}/held/{path.name}", path.read_bytes())
    for source in (tmp_path / "held", f"{at}/held"):
        found = handful.load(source, labeled=False, folders="ignore")
        assert len(found) == 8
        # What two archives call alike is named after its archive, too.
        assert {"a.tar/cat/0.png", "b.zip/cat/0.png", "cat/1.png", "other.png"} <= {*found.names}


# --- labels that the source gives itself


def test_a_webdataset_has_its_labels_beside_the_pictures(photos, tmp_path):
    beside = [("cat/0.cls", b"3\n"), ("cat/1.json", b'{"label": "fox"}'), ("dog/0.cls", b"4")]
    as_tar(photos, tmp_path / "p.tar", more=beside)
    found = handful.load(tmp_path / "p.tar")
    assert found.classes == ("3", "4", "fox")
    assert dict(zip(found.names, found.labels.tolist(), strict=True)) == {
        "cat/0.png": 0, "cat/1.png": 2, "cat/2.png": -1,
        "dog/0.png": 1, "dog/1.png": -1, "dog/2.png": -1,
    }  # fmt: skip


def test_classes_of_a_hugging_face_table_have_their_names(photos, tmp_path):
    held = files(photos)
    table = pa.table({
        "image": [{"bytes": content, "path": None} for content in held.values()],
        "label": [0, 0, 0, 1, 1, 1],
    })  # fmt: skip
    about = {"info": {"features": {"label": {"names": ["a cat", "a dog"], "_type": "ClassLabel"}}}}
    table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
    pq.write_table(table, tmp_path / "train.parquet")
    found = handful.load(tmp_path / "train.parquet")
    assert found.classes == ("a cat", "a dog")
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.names[0] == "train-0000000"  # the rows have no names


def test_a_list_may_have_labels(photos, tmp_path):
    rows = [f"photos/{name},{name[:3] if '0' in name else ''}" for name in files(photos)]
    (tmp_path / "list.csv").write_text("\n".join(["file;label".replace(";", ","), *rows]))
    found = handful.load(tmp_path / "list.csv")
    assert found.classes == ("cat", "dog")
    assert len(found.labeled) == 2


def test_lists_and_tables_with_whole_numbers_as_floats_have_the_numbers_as_classes(
    photos, tmp_path
):
    names = list(files(photos))
    texts = ["3.0", "10.0", "", "3.0", "10.0", "3.0"]
    numbers = [float(text) if text else None for text in texts]
    lines = [f"photos/{name},{text}\n" for name, text in zip(names, texts, strict=True)]
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(lines))
    for name, column in (("text.parquet", texts), ("floats.parquet", numbers)):
        held = [{"bytes": content, "path": None} for content in files(photos).values()]
        pq.write_table(pa.table({"image": held, "label": column}), tmp_path / name)
    lines = [f"{name},{text}\n" for name, text in zip(names, texts, strict=True)]
    (photos / "metadata.csv").write_text("file_name,label\n" + "".join(lines))
    for source in ("list.csv", "text.parquet", "floats.parquet", "photos"):
        found = handful.load(tmp_path / source)
        assert found.classes == ("3", "10")
        assert sorted(found.labels.tolist()) == [-1, 0, 0, 0, 1, 1]


def test_metadata_csv_labels_a_folder_and_a_bucket(photos, bucket):
    (photos / "metadata.csv").write_text("file_name,label\ncat/0.png,x\ndog/1.png,y\n")
    at, system = bucket
    for name, content in files(photos).items():
        system.pipe(f"{at}/{name}", content)
    system.pipe(f"{at}/metadata.csv", (photos / "metadata.csv").read_bytes())
    for source in (photos, at):
        found = handful.load(source)
        assert found.classes == ("x", "y")
        assert [found.names[row] for row in found.labeled] == ["cat/0.png", "dog/1.png"]
    assert handful.load(photos, folders="classes").classes == ("cat", "dog")


def test_a_label_file_labels_an_archive(photos, tmp_path):
    as_zip(photos, tmp_path / "p.zip")
    found = handful.load(tmp_path / "p.zip", labels={"cat/0.png": "x", "dog/0.png": "y"})
    assert len(found.labeled) == 2


# --- what is kept, and what is looked at again


def test_an_archive_is_listed_once_until_it_changes(photos, tmp_path, monkeypatch):
    as_tar(photos, tmp_path / "p.tar")
    listed = []
    whole = contents.container
    monkeypatch.setattr(contents, "container", lambda at: listed.append(at) or whole(at))
    for _ in range(2):
        assert len(handful.load(tmp_path / "p.tar")) == 6
    assert len(listed) == 1
    save(photos / "cat" / "new.png", seed=50)
    as_tar(photos, tmp_path / "p.tar")
    assert len(handful.load(tmp_path / "p.tar")) == 7
    assert len(listed) == 2


@pytest.mark.parametrize("kind", ["p.tar", "p.zip", "rows.parquet"])
def test_a_member_of_an_archive_that_changed_is_inspected_again(photos, tmp_path, kind):
    WAYS[kind](photos, tmp_path / kind)
    handful.load(tmp_path / kind)
    length = (photos / "cat" / "0.png").stat().st_size
    changed = save(tmp_path / "other.png", seed=99).read_bytes()
    assert len(changed) <= length
    (photos / "cat" / "0.png").write_bytes(changed.ljust(length, b"\0"))  # of the same size
    WAYS[kind](photos, tmp_path / kind)
    here, there = handful.load(photos), handful.load(tmp_path / kind, folders="classes")
    assert (there.store.fingerprints == here.store.fingerprints).all()


def test_an_object_is_inspected_again_when_its_version_changes(bucket, monkeypatch, tmp_path):
    at, system = bucket
    for number in range(2):
        path = save(tmp_path / f"{number}.png", noise(9, 9, seed=number))
        system.pipe(f"{at}/{number}.png", path.read_bytes())
    before = handful.load(at, labeled=False)
    fetched = []
    whole = Objects.fetch
    monkeypatch.setattr(Objects, "fetch", lambda s, name: fetched.append(name) or whole(s, name))
    handful.load(at, labeled=False)
    assert fetched == []
    changed = save(tmp_path / "1.png", noise(9, 9, seed=5)).read_bytes()
    system.pipe(f"{at}/1.png", changed)
    after = handful.load(at, labeled=False)
    assert fetched == ["1.png"]
    same = (after.store.fingerprints == before.store.fingerprints).all(1)
    assert same.tolist() == [True, False]


def test_what_tells_no_version_is_read_each_time(photos, tmp_path, monkeypatch):
    as_list(photos, tmp_path / "list.csv")
    monkeypatch.setattr(find.Objects, "ask", lambda self, file: file)
    handful.load(tmp_path / "list.csv", labeled=False)
    fetched = []
    whole = Objects.fetch
    monkeypatch.setattr(Objects, "fetch", lambda s, name: fetched.append(name) or whole(s, name))
    handful.load(tmp_path / "list.csv", labeled=False)
    assert len(fetched) == 6


def test_an_object_of_another_size_than_listed_is_left_out(photos, bucket, monkeypatch):
    at, system = bucket
    for name, content in files(photos).items():
        system.pipe(f"{at}/{name}", content)
    whole = readers.ObjectReader.read
    monkeypatch.setattr(readers.ObjectReader, "read", lambda *a: whole(*a) + b"more")
    with pytest.raises(HandfulError, match="0.png: changed while it was read"):
        handful.load(at)


@pytest.fixture
def s3(monkeypatch):
    """An S3 server on this machine with `s3://bucket`: its file system, and what it was asked."""
    s3fs, server = pytest.importorskip("s3fs"), pytest.importorskip("moto.server")
    from moto.s3.models import s3_backends
    from werkzeug.serving import make_server

    application, asked = server.create_backend_app("s3"), []

    def counted(environ, start_response):
        asked.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        return application(environ, start_response)

    made = make_server("127.0.0.1", 0, counted, threaded=True)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{made.server_port}")
    s3fs.S3FileSystem.clear_instance_cache()
    system = s3fs.S3FileSystem()
    system.mkdir("bucket")
    yield system, asked
    s3fs.S3FileSystem.clear_instance_cache()
    made.shutdown()
    made.server_close()
    s3_backends["123456789012"]["aws"].reset()  # moto's account


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_object_of_s3_costs_one_request_and_no_search_among_the_listed(photos, s3, monkeypatch):
    system, asked = s3
    system.pipe({f"bucket/p/{name}": content for name, content in files(photos).items()})
    system.pipe("bucket/p/metadata.csv", b"file_name,label\ncat/0.png,cat\n")
    searched = []
    search = type(system)._ls_from_cache
    monkeypatch.setattr(type(system), "_ls_from_cache", lambda *a: searched.append(a) or search(*a))
    found = find.find("s3://bucket/p/").files
    searched.clear(), asked.clear()
    sent = pickle.loads(pickle.dumps(found))  # as to a cluster
    for one in (found, sent):
        assert {name: one.fetch(name) for name in one.entries} == files(photos)
    assert sorted(asked) == sorted(2 * [("GET", f"/bucket/p/{name}") for name in files(photos)])
    assert not searched and not system.dircache


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("at", ["bucket", "bucket/p", "bucket/p/", "bucket/p/cat/0.png"])
def test_all_pages_of_a_listing_of_s3_are_read(photos, s3, at):
    system, asked = s3
    system.pipe({f"bucket/p/{name}": content for name, content in files(photos).items()})
    system.pipe({"bucket/q.png": b"x", "bucket/p/cat/deep/é.png": b"x", "bucket/p.png": b"x"})
    place = address.place_of(f"s3://{at}")
    expected = {path: address.stamp_of(info) for path, info in system.find(at, detail=True).items()}
    asked.clear()
    system.req_kw = {"MaxKeys": 2}
    assert dict(address.listed(place)) == expected and expected
    assert len(asked) >= len(expected) // 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("change", [b"more", b"", None])
def test_an_object_of_s3_that_changed_since_it_was_listed_is_left_out(photos, s3, change):
    system, _ = s3
    content = files(photos)["cat/0.png"]
    system.pipe("bucket/p/0.png", content)
    found = find.find("s3://bucket/p/").files
    if change is None:
        system.rm_file("bucket/p/0.png")
    else:
        system.pipe("bucket/p/0.png", content + change if change else content[:-1])
    with pytest.raises(Unreadable, match="vanished" if change is None else "changed while"):
        found.fetch("0.png")


# --- reading that fails


def failing(monkeypatch, fails):
    """Let reads of objects fail where `fails(key, attempt)` returns an error."""
    attempts = {}
    whole = readers.ObjectReader.read

    def read(self, key, size):
        attempts[key] = attempts.get(key, 0) + 1
        if error := fails(key, attempts[key]):
            raise error
        return whole(self, key, size)

    monkeypatch.setattr(readers.ObjectReader, "read", read)
    return attempts


def test_a_read_that_fails_is_done_again_after_a_while(photos, bucket, monkeypatch, waited):
    at, system = bucket
    for name, content in files(photos).items():
        system.pipe(f"{at}/{name}", content)
    failing(monkeypatch, lambda key, n: OSError("slow down") if "cat" in key and n < 3 else None)
    found = handful.load(at)
    assert len(found) == 6
    assert not found.store.skipped
    assert sorted(waited) == [0.25] * 3 + [0.5] * 3


def test_an_object_that_cannot_be_had_is_listed_like_a_broken_file(photos, bucket, monkeypatch):
    at, system = bucket
    for name, content in files(photos).items():
        system.pipe(f"{at}/{name}", content)
    errors = {"cat/1": OSError("reset by peer"), "dog/2": PermissionError("no")}
    attempts = failing(
        monkeypatch, lambda key, n: next((e for k, e in errors.items() if k in key), None)
    )
    found = handful.load(at)
    assert [tuple(one) for one in found.store.skipped] == [
        ("cat/1.png", "cannot be fetched: reset by peer"),
        ("dog/2.png", "cannot be fetched: no"),
    ]
    tried = {key[-9:]: n for key, n in attempts.items()}
    assert (tried["cat/1.png"], tried["dog/2.png"]) == (address.TRIES, 1)
    monkeypatch.undo()


def test_a_refusal_of_a_web_server_is_not_repeated_and_a_busy_one_is():
    class Refused(Exception):
        def __init__(self, status):
            self.status = status

    for status, calls in ((403, 1), (404, 1), (429, address.TRIES), (503, address.TRIES)):
        made = []

        def read(status=status, made=made):
            made.append(status)
            raise Refused(status)

        with pytest.raises(Refused):
            address.retried(read, lambda seconds: None)
        assert len(made) == calls


# --- a stranger's file


def test_names_in_an_archive_are_only_names(photos, tmp_path):
    picture = (photos / "cat" / "0.png").read_bytes()
    names = ("../../out.png", "/etc/out.png", "a/../../b.png", "C:\\out.png")
    before = {path for path in tmp_path.rglob("*") if "cache" not in path.parts}
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        for name in names:
            archive.writestr(name, picture)
    as_tar(tmp_path / "none", tmp_path / "p.tar", more=[(name, picture) for name in names])
    for source in ("p.zip", "p.tar"):
        found = handful.load(tmp_path / source, labeled=False, folders="ignore")
        assert sorted(found.names) == sorted(names)
        assert found.at(4).shape == (4, 3, 4, 4)
    after = {path for path in tmp_path.rglob("*") if "cache" not in path.parts}
    assert {path.name for path in after - before} == {"p.zip", "p.tar"}


def test_links_and_devices_in_a_tar_file_are_passed_over(photos, tmp_path):
    with tarfile.open(tmp_path / "p.tar", "w") as archive:
        for name, kind in (("link.png", tarfile.SYMTYPE), ("hard.png", tarfile.LNKTYPE),
                           ("device.png", tarfile.CHRTYPE)):  # fmt: skip
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
        archive.add(photos / "cat" / "0.png", "real.png")
    found = handful.load(tmp_path / "p.tar", labeled=False)
    assert found.names == ["real.png"]
    assert not found.store.skipped


def test_members_that_are_too_large_are_left_out_unread(photos, tmp_path, monkeypatch):
    big = noise(200, 200, seed=1)
    save(photos / "cat" / "big.png", big)
    monkeypatch.setattr(address, "LARGEST", 50_000)
    monkeypatch.setattr(readers, "LARGEST", 50_000)
    for kind in ("p.zip", "p.tar", "rows.parquet", "list.csv"):
        WAYS[kind](photos, tmp_path / kind)
        found = handful.load(tmp_path / kind, labeled=False)
        assert len(found) == 6
        assert [one.reason for one in found.store.skipped] == ["larger than 0 MB"]


def test_a_zip_member_that_holds_more_than_it_says_is_damaged(photos, tmp_path):
    with zipfile.ZipFile(tmp_path / "p.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", b"\0" * 5_000_000)
        archive.write(photos / "cat" / "0.png", "0.png")
    content = bytearray((tmp_path / "p.zip").read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 24 : at + 28] = (1000).to_bytes(4, "little")  # its size in the directory
    (tmp_path / "p.zip").write_bytes(content)
    found = handful.load(tmp_path / "p.zip", labeled=False)
    assert found.names == ["0.png"]
    assert "damaged" in found.store.skipped[0].reason


def test_a_compressed_tar_file_that_unpacks_without_bound_is_refused(tmp_path):
    with gzip.open(tmp_path / "p.tar.gz", "wb") as file:
        for _ in range(40):
            file.write(b"\0" * 2**20)
    with pytest.raises(HandfulError, match="unpacks to more than 20 times its size"):
        handful.load(tmp_path / "p.tar.gz")


@pytest.mark.parametrize("kind", ["p.zip", "p.tar", "p.tar.gz", "rows.parquet", "list.csv"])
@pytest.mark.parametrize("content", [b"", b"\0" * 600, b"PK\x03\x04 and no more", b"\xff\xfe"])
def test_what_is_no_archive_is_an_error_of_one_line(tmp_path, kind, content):
    (tmp_path / kind).write_bytes(content)
    with pytest.raises(HandfulError) as error:
        handful.load(tmp_path / kind)
    assert "\n" not in str(error.value)


def test_a_cut_archive_gives_what_is_whole(photos, tmp_path):
    as_tar(photos, tmp_path / "p.tar")
    content = (tmp_path / "p.tar").read_bytes()
    cut = content.index(files(photos)["dog/1.png"]) + 100
    (tmp_path / "p.tar").write_bytes(content[:cut])
    found = handful.load(tmp_path / "p.tar", labeled=False)
    assert {"cat/0.png", "cat/1.png", "cat/2.png", "dog/0.png"} == {*found.names}


def test_an_encrypted_member_is_left_out(photos, tmp_path):
    as_zip(photos, tmp_path / "p.zip")
    content = bytearray((tmp_path / "p.zip").read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "p.zip").write_bytes(content)
    found = handful.load(tmp_path / "p.zip", labeled=False)
    assert len(found) == 5
    assert found.store.skipped[0] == ("cat/0.png", "encrypted")


def test_a_list_from_elsewhere_names_no_file_of_this_machine(photos, bucket, tmp_path):
    at, system = bucket
    picture = (photos / "cat" / "0.png").read_bytes()
    system.pipe(f"{at}/a/1.png", picture)
    secret = photos / "dog" / "0.png"
    lines = ["uri", "a/1.png", f"{secret}", f"file://{secret}", "~/x.png", "../x.png",
             f"zip://x::file://{secret}", "github://a:b@c/x.png"]  # fmt: skip
    system.pipe(f"{at}/list.csv", "\n".join(lines).encode())
    found = handful.load(f"{at}/list.csv", labeled=False)
    assert found.names == ["a/1.png"]
    assert len(found.store.skipped) == 6
    assert all("may not name" in one.reason for one in found.store.skipped)


def test_a_list_names_each_image_once_and_says_what_is_missing(photos, tmp_path):
    lines = ["photos/cat/0.png", "photos/cat/0.png", "photos/none.png"]
    (tmp_path / "list.csv").write_text("\n".join(["path", *lines]))
    found = handful.load(tmp_path / "list.csv", labeled=False)
    assert found.names == ["photos/cat/0.png"]
    assert [tuple(one) for one in found.store.skipped] == [
        ("photos/cat/0.png", "listed before"),
        ("photos/none.png", "there is nothing at this address"),
    ]


@pytest.mark.parametrize(
    "source, said",
    [
        ("memory://nowhere-at-all/x/", "holds no image|there is nothing at"),
        ("nosuch://x/y", "Protocol not known: nosuch"),
        ("memory://a::zip://b", "chains addresses"),
    ],
)
def test_an_address_that_cannot_be_opened_is_an_error_of_one_line(source, said):
    with pytest.raises(HandfulError, match=said):
        handful.load(source)


def test_a_list_without_a_column_of_images_says_what_it_needs(tmp_path):
    (tmp_path / "list.csv").write_text("a,b\n1,2\n")
    with pytest.raises(HandfulError, match="has no column of images"):
        handful.load(tmp_path / "list.csv")


def test_a_missing_package_is_named(monkeypatch, bucket):
    def missing(*_):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(HandfulError, match=r"needs a package: Install s3fs.*handful\[remote\]"):
        handful.load("s3://bucket/photos")


def test_no_temporary_file_stays_and_others_may_not_read_it(photos, tmp_path, monkeypatch):
    as_zip(photos, tmp_path / "p.zip")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    store = handful.load(tmp_path / "p.zip").store
    with store.opened(0) as path:
        assert path.parent == tmp_path / "temporary"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(RuntimeError), store.opened(0):
        raise RuntimeError
    assert not list((tmp_path / "temporary").iterdir())


def test_images_are_fetched_ahead_of_their_decoding(photos, tmp_path, monkeypatch):
    as_zip(photos, tmp_path / "p.zip")
    store = handful.load(tmp_path / "p.zip").store
    fetch, two = Objects.fetch, threading.Barrier(2, timeout=30)

    def fetched_with_another(self, name):
        two.wait()  # one that is fetched alone waits in vain
        return fetch(self, name)

    monkeypatch.setattr(Objects, "fetch", fetched_with_another)
    assert store.batch(np.arange(6), 8, "crop", 3).any(axis=(1, 2, 3)).all()


def test_objects_can_be_sent_to_another_process(photos, tmp_path):
    for kind in ("p.zip", "p.tar.gz", "rows.parquet"):
        WAYS[kind](photos, tmp_path / kind)
        store = handful.load(tmp_path / kind, labeled=False).store
        again = pickle.loads(pickle.dumps(store))
        rows = np.arange(6)
        assert (again.batch(rows, 8, "crop", 3) == store.batch(rows, 8, "crop", 3)).all()


def test_images_of_an_archive_are_not_sorted_into_folders(handful, photos, tmp_path):
    as_zip(photos, tmp_path / "p.zip")
    run = Path(__file__).parents[1] / "fixtures" / "run-of-0.1"
    status, _, said = handful("predict", run, tmp_path / "p.zip", "--into", tmp_path / "sorted")
    assert status == 2
    assert "--into copies the files of a folder" in " ".join(said.split())


def test_a_list_of_addresses_in_python_is_in_its_order(photos, bucket):
    at, system = bucket
    held = files(photos)
    for name, content in held.items():
        system.pipe(f"{at}/{name}", content)
    names = [f"{at}/dog/1.png", str(photos / "cat/0.png")]
    found = handful.load(names, labeled=False)
    here = handful.load([photos / "dog/1.png", photos / "cat/0.png"], labeled=False)
    assert found.names == names
    assert (found.at(8).numpy() == here.at(8).numpy()).all()
    with pytest.raises(HandfulError, match="cannot read memory://.*none.png: vanished"):
        handful.load([f"{at}/none.png"], labeled=False)


class _Site(BaseHTTPRequestHandler):
    """A web server with pictures; /more/ sends more than it announces."""

    pictures: ClassVar[dict[str, bytes]] = {}

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.partition("?")[0]
        content = self.pictures.get(path.removeprefix("/more"))
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        if not path.startswith("/more"):
            self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{len(content)}"')
        self.end_headers()
        if self.command == "GET":
            with contextlib.suppress(OSError):
                self.wfile.write(content)
                for _ in range(200 if path.startswith("/more") else 0):
                    self.wfile.write(b"\0" * 2**16)

    def log_message(self, *_):
        return


@pytest.fixture
def site(photos):
    pytest.importorskip("aiohttp")
    _Site.pictures = {f"/{name}": content for name, content in files(photos).items()}
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_web_server_gives_a_list_and_its_pictures(photos, site, monkeypatch):
    monkeypatch.setattr(address, "LARGEST", 2_000_000)
    lines = ["uri,label", "cat/0.png,cat", f"{site}/dog/0.png?key=1,dog", "none.png,dog",
             f"{site}/more/dog/1.png,dog"]  # fmt: skip
    _Site.pictures["/list.csv"] = "\n".join(lines).encode()
    found = handful.load(f"{site}/list.csv?key=2")
    assert found.names == ["cat/0.png", f"{site}/dog/0.png?key=1"]
    assert [one.reason for one in found.store.skipped] == [
        "larger than 1 MB",
        "there is nothing at this address",
    ]
    here = handful.load([photos / "cat/0.png", photos / "dog/0.png"], labeled=False)
    assert (found.at(8).numpy() == here.at(8).numpy()).all()
    assert handful.load(f"{site}/cat/1.png", labeled=False).names == ["1.png"]
