"""List what is in a bucket, an archive, a list or a table: names, sizes, versions and labels.

An image is known by the ending of its name, or has none; nothing is read to find out. Hidden and
system files are passed over, as in a folder. Labels are those that the source itself gives: a
column of a table, `.cls` or `.json` beside a picture in a WebDataset, `metadata.csv` beside images.
"""

import csv
import io
import json
import math
import os
import posixpath
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from handful.data.decode import ENDINGS
from handful.data.decoding.unread_formats import EXPORT, FORMAT, ending_of
from handful.data.labels.columns import FILES, LABELS, key_of
from handful.data.labels.given import class_text, column_texts
from handful.data.labels.tables import DELIMITERS
from handful.data.objects.address import (
    LISTABLE,
    Place,
    explained,
    forget_listing,
    listed,
    place_of,
    retried,
    scheme_of,
    stamp_of,
)
from handful.data.objects.readers import (
    PACKED,
    AddressReader,
    ObjectReader,
    Reader,
    RowReader,
    TarReader,
    ZipReader,
    parquet_file,
)
from handful.data.scan import SYSTEM, UNKNOWN
from handful.data.skipped import Skipped
from handful.data.source_names import redacted, source_name
from handful.errors import HandfulError

LISTS = (".csv", ".tsv")
TABLES = (*LISTS, ".parquet")
ARCHIVES = (".zip", ".tar", *PACKED)
MOST = 50_000_000  # entries of one source
LONGEST = 4096  # characters of a name
LARGEST_LIST = 2**31  # bytes of a CSV of addresses
SMALL = 64 * 1024  # bytes of a label beside a picture in a WebDataset
METADATA = "metadata.csv"

LARGEST_METADATA = 2**29  # bytes of all metadata.csv of a source
ADDRESSES = ("uri", "uris", "urls", *FILES)  # columns of a list, the most telling first
PICTURES = ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp", "bytes")


class Item(NamedTuple):
    """An image: its name, size and version as in `Stamp`, and what its reader knows it by."""

    name: str
    bytes: int
    version: int
    key: Any
    label: str | None = None


class Part(NamedTuple):
    """What one reader can read."""

    reader: Reader
    items: list[Item]
    skipped: list[Skipped]
    other: Counter[str]  # ending → files that are no images
    labeled: bool = False  # whether the labels are the source's own, even if there is none


class _Sorted:
    """Names sorted into images, files that are not read and others."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.skipped: list[Skipped] = []
        self.other: Counter[str] = Counter()

    def add(self, item: Item, any_ending: bool = False) -> None:
        name = item.name
        check_count(len(self.items) + 1)
        if "\0" in name or len(name) > LONGEST:
            self.skipped.append(Skipped(name[:100].replace("\0", ""), "no name of an image"))
            return
        if any(p.startswith(".") and p not in ("..", ".") or p.lower() in SYSTEM
               for p in name.split("/")) and not any_ending:  # fmt: skip
            return
        ending = PurePosixPath(name).suffix.lower()
        if any_ending or not ending or ending in ENDINGS:
            self.items.append(item)
        elif ending in FORMAT:
            self.skipped.append(Skipped(name, f"{ending} not read: {FORMAT[ending]}; {EXPORT}"))
        else:
            self.other[ending_of(name)] += 1

    def part(self, reader: Reader, labeled: bool = False) -> Part:
        return Part(reader, self.items, self.skipped, self.other, labeled)


def is_image(name: str) -> bool:
    """Whether a name has the ending of an image."""
    return PurePosixPath(name).suffix.lower() in ENDINGS


def check_count(images: int) -> None:
    """HandfulError for more images than a source may have."""
    if images > MOST:
        raise HandfulError(f"more than {MOST:,} images in one source; give it in parts")


def ending(address: str) -> str:
    """The ending of the file that an address names, such as ".tar.gz"; "" if there is none."""
    path = urlsplit(address).path if scheme_of(address) else address
    name = path.rstrip("/").lower()
    packed = next((end for end in PACKED if name.endswith(end)), None)
    return packed or os.path.splitext(name)[1]


def is_container(address: str) -> bool:
    """Whether a file of this name holds images, or addresses of images."""
    return not address.endswith("/") and ending(address) in (*TABLES, *ARCHIVES)


def container(address: str) -> Part:
    """What is in an archive, a table or a list, by the ending of its name."""
    kind = ending(address)
    with explained(address):
        if kind == ".zip":
            return _zip(address)
        if kind in ARCHIVES:
            return _tar(address)
        return _csv(address) if kind in LISTS else _parquet(address)


def objects(address: str, place: Place) -> tuple[Part, list[str]]:
    """What lies below an address, and the addresses of the archives and tables there."""
    with explained(address):
        found = sorted(listed(place))
    start = place.path.rstrip("/") + "/"
    images, inside, metadata = _Sorted(), [], []
    for path, stamp in found:
        name = path.removeprefix(start)
        if posixpath.basename(name) == METADATA:
            metadata.append(name)
        if is_container(name) and ending(name) not in LISTS:
            inside.append(str(place.system.unstrip_protocol(path)))
        images.add(Item(name, *stamp, path))
    labels: dict[str, str] = {}
    room = LARGEST_METADATA
    for name in metadata:
        at = f"{address.rstrip('/')}/{name}"
        with explained(at):
            text = _metadata(at, Place(place.system, start + name), room)
        room -= len(text)
        labels |= metadata_labels(posixpath.dirname(name), text.decode("utf-8-sig", "replace"), at)
    if labels and not any(item.name in labels for item in images.items):
        why = "no file_name in it is that of an image, so it labels none"
        images.skipped += [Skipped(name, why) for name in metadata]
        labels = {}
    forget_listing(place)
    part = images.part(ObjectReader(address), bool(labels))
    if labels:
        part.items[:] = [item._replace(label=labels.get(item.name)) for item in part.items]
    return part, inside


def _metadata(address: str, place: Place, most: int) -> bytes:
    """The bytes of a metadata.csv; HandfulError if there are more than `most`."""

    def read() -> bytes:
        with place.system.open(place.path, "rb") as file:
            content: bytes = file.read(most + 1)
        return content

    check_metadata(address, retried(lambda: place.system.size(place.path)) or 0, most)
    content = retried(read)
    check_metadata(address, len(content), most)
    return content


def check_metadata(address: str, size: int, most: int) -> None:
    """HandfulError for a metadata.csv of more bytes than are read."""
    if size > most:
        raise HandfulError(
            f"{redacted(address)} is larger than {most >> 20} MB, the most of labels that "
            f"are read; take it "
            f"away, or divide the images"
        )


def one_object(address: str, place: Place) -> Part:
    """A single image at an address."""
    with explained(address):
        info = retried(lambda: place.system.info(place.path))
    name = posixpath.basename(urlsplit(address).path.rstrip("/")) or "image"
    images = _Sorted()
    images.add(Item(name, *stamp_of(info), place.path), any_ending=True)
    return images.part(ObjectReader(address))


def metadata_labels(folder: str, text: str, address: str) -> dict[str, str]:
    """Name → label from the text of a metadata.csv in `folder`, which has file_name and label.

    Empty for a table without these columns.

    Args:
        address: where the table is, for messages.
    """
    rows = _cells(text, address)
    header = [key_of(name) for name in next(rows, [])]
    if "file_name" not in header or "label" not in header:
        return {}
    at, to = header.index("file_name"), header.index("label")
    whole = ((row[at].strip(), row[to].strip()) for row in rows if len(row) > max(at, to))
    return {
        posixpath.join(folder, file): label for file, label in _with_label_texts(whole) if label
    }


def _zip(address: str) -> Part:
    reader = ZipReader(address)
    images = _Sorted()
    for number, member in enumerate(retried(reader.opened).infolist()):
        if member.is_dir():
            continue
        if member.flag_bits & 1:
            images.skipped.append(Skipped(member.filename[:LONGEST], "encrypted"))
            continue
        images.add(Item(member.filename, member.file_size, member.CRC, number))
    return images.part(reader)


def _tar(address: str) -> Part:
    """The members of a tar file; a WebDataset has labels beside the pictures."""
    reader = TarReader(address)

    def members() -> tuple[_Sorted, dict[str, str]]:
        images, labels = _Sorted(), dict[str, str]()
        try:
            with tarfile.open(fileobj=reader.file(), mode="r:") as archive:
                for number, member in enumerate(archive):
                    archive.members = []  # type: ignore[attr-defined]  # else all headers stay
                    if number > 2 * MOST:
                        raise HandfulError(
                            f"{redacted(address)} has more than {2 * MOST:,} members"
                        )
                    _sort_member(archive, member, images, labels)
        except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
            if isinstance(error, HandfulError):
                raise
            if not images.items:
                raise HandfulError(
                    f"{redacted(address)} is no tar file ({error}); get it anew"
                ) from error
            images.skipped.append(Skipped(source_name(address), f"damaged: {error}"))
        return images, labels

    images, labels = retried(members)
    if labels:
        images.items = [item._replace(label=_beside(item.name, labels)) for item in images.items]
    return images.part(reader, bool(labels))


def _sort_member(
    archive: tarfile.TarFile, member: tarfile.TarInfo, images: _Sorted, labels: dict[str, str]
) -> None:
    name = member.name.removeprefix("./")
    if not member.isreg() or getattr(member, "sparse", None) is not None:
        return
    kind = name.rpartition("/")[2].partition(".")[2]
    if kind in ("cls", "json") and member.size <= SMALL:
        file = archive.extractfile(member)
        if label := _label_beside(kind, file.read() if file else b""):
            labels[name.removesuffix(kind)] = label
        return
    time = int(member.mtime) if math.isfinite(member.mtime) else 0
    images.add(Item(name, member.size, max(0, time), member.offset_data))


def _beside(name: str, labels: dict[str, str]) -> str | None:
    """The label of a picture in a WebDataset: both have the name up to the first dot."""
    folder, slash, file = name.rpartition("/")
    return labels.get(f"{folder}{slash}{file.partition('.')[0]}.")


def _label_beside(kind: str, content: bytes) -> str:
    text = content.decode("utf-8", "replace").strip()
    if kind == "cls":
        return text[:LONGEST]
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    said = found.get("label", found.get("class")) if isinstance(found, dict) else None
    return class_text(said) if isinstance(said, str | int) else ""


def _csv(address: str) -> Part:
    place = place_of(address)
    size = retried(lambda: place.system.info(place.path)).get("size")
    if isinstance(size, int) and size > LARGEST_LIST:
        raise HandfulError(
            f"{redacted(address)} is larger than {LARGEST_LIST >> 30} GB; write the list "
            f"as Parquet, or in "
            f"several parts"
        )

    def text() -> str:
        with place.system.open(place.path, "rb") as file:
            content: bytes = file.read(LARGEST_LIST + 1)
        return content.decode("utf-8-sig", "surrogateescape")

    rows = _cells(retried(text), address)
    header = [key_of(name) for name in next(rows, [])]
    at = next((header.index(name) for name in ADDRESSES if name in header), None)
    if at is None:
        raise HandfulError(
            f"{redacted(address)} has no column of images: a list has a line with the "
            f"names of its columns, "
            f"one of them uri, url, path or file"
        )
    to = next((header.index(name) for name in LABELS if name in header), None)

    def cell(row: list[str], column: int | None) -> str:
        return row[column].strip() if column is not None and column < len(row) else ""

    return _listed(address, ((cell(row, at), cell(row, to)) for row in rows), to is not None)


def _cells(text: str, address: str) -> Iterator[list[str]]:
    """The rows of a CSV whose first line says by what cells are divided; blank lines are left out.

    HandfulError for text that is no CSV.
    """
    first = text[: text.find("\n") + 1] or text
    delimiter = max(DELIMITERS, key=first.count)
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            if any(cell.strip() for cell in row):
                yield row
    except csv.Error as error:
        raise HandfulError(
            f"{redacted(address)} is no CSV ({error}); mend it, or take it away"
        ) from None


def _listed(address: str, rows: Iterable[tuple[str, str]], labeled: bool) -> Part:
    """The images that a list names, relative to the place where the list is.

    A list from elsewhere names no file of this machine.
    """
    far = bool(scheme_of(address))
    base = address.split("?")[0].rpartition("/")[0] if far else os.path.dirname(address)
    images, seen = _Sorted(), set()
    for text, label in _with_label_texts(rows):
        if not text:
            continue
        key, why = _key(text, base, far)
        if why or text in seen:
            images.skipped.append(Skipped(text[:LONGEST], why or "listed before"))
            continue
        seen.add(text)
        images.add(Item(text, -1, UNKNOWN, key, label or None), any_ending=True)
    return images.part(AddressReader(address), labeled=True)


def _with_label_texts(rows: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """(text, label) of all rows, with `column_texts` of the labels."""
    whole = list(rows)
    labels = column_texts([label for _, label in whole])
    return [(text, label) for (text, _), label in zip(whole, labels, strict=True)]


def _key(text: str, base: str, far: bool) -> tuple[str, str]:
    """The address of a line of a list, or why it is not read."""
    scheme = scheme_of(text)
    if scheme == "file" and not far:
        return place_of(text).path, ""
    if scheme and (scheme not in LISTABLE or "::" in text):
        return "", f"a list may not name {scheme}:// addresses"
    if scheme:
        return text, ""
    if not far:
        return os.path.join(base, os.path.expanduser(text)), ""
    if os.path.isabs(text) or text.startswith(("~", "\\")) or ".." in PurePosixPath(text).parts:
        return "", "a list from elsewhere may not name files of this machine"
    return f"{base}/{text}", ""


def _parquet(address: str) -> Part:
    """The pictures in the rows of a Parquet file, or the addresses in them."""
    file = retried(lambda: parquet_file(address))
    count = file.metadata.num_rows
    check_count(count)
    schema = file.schema_arrow
    names = {key_of(field.name): field.name for field in schema}
    to = next((names[name] for name in LABELS if name in names), None)
    held = _picture_column(schema)
    if held is None:
        column = next((names[name] for name in ADDRESSES if name in names), None)
        if column is None:
            raise HandfulError(
                f"{redacted(address)} has no column of images: neither one that holds "
                f"pictures, as bytes, "
                f"nor one called uri, url, path or file"
            )
        return _listed(address, _rows(file, schema, column, to), to is not None)
    images = _Sorted()
    stem = posixpath.basename(urlsplit(address).path if scheme_of(address) else address)
    stem = stem.rpartition(".")[0]
    named = held.paths or next((names[name] for name in FILES if name in names
                                and names[name] != held.column.split(".")[0]), None)  # fmt: skip
    keys = (
        (group, row)
        for group in range(file.metadata.num_row_groups)
        for row in range(file.metadata.row_group(group).num_rows)
    )
    place = place_of(address)
    size = retried(lambda: place.system.size(place.path))
    if size is not None and count > size:
        raise HandfulError(
            f"{redacted(address)} has more rows ({count:,}) than bytes, so most hold no "
            f"picture of their own"
        )
    rows = _with_label_texts(_rows(file, schema, named, to))
    whole = len({name for name, _ in rows} - {""}) == len(rows)  # else the names are not used
    for number, (key, (name, label)) in enumerate(zip(keys, rows, strict=True)):
        name = name if whole else f"{stem}-{number:07d}"
        images.add(Item(name, -1, 0, key, label or None), any_ending=True)
    return images.part(RowReader(address, held.column), labeled=to is not None)


class _Held(NamedTuple):
    """The column of a Parquet file that holds pictures, and the one with their names."""

    column: str
    paths: str | None


def _picture_column(schema: Any) -> _Held | None:
    import pyarrow.types as types

    def binary(kind: Any) -> bool:
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    found = []
    for field in schema:
        if types.is_struct(field.type):
            inner = {one.name: one.type for one in field.type}
            if binary(inner.get("bytes")) if "bytes" in inner else False:
                paths = f"{field.name}.path" if "path" in inner else None
                found.append(_Held(f"{field.name}.bytes", paths))
        elif binary(field.type):
            found.append(_Held(field.name, None))
    usual = [one for one in found if key_of(one.column.split(".")[0]) in PICTURES]
    return next(iter(usual or found), None)


def _rows(file: Any, schema: Any, column: str | None, to: str | None) -> Iterator[tuple[str, str]]:
    """The texts of a column, "" where there is none, and the labels."""
    classes = _class_names(schema, to)
    columns = [name for name in (column, to) if name is not None]
    if not columns:
        yield from (("", "") for _ in range(file.metadata.num_rows))
        return
    for batch in file.iter_batches(columns=columns):
        texts: list[Any] = [None] * len(batch)
        if column is not None:
            found = batch.column(batch.schema.get_field_index(column.split(".")[0]))
            texts = (found.field(0) if "." in column else found).to_pylist()
        labels = batch.column(batch.schema.get_field_index(to)).to_pylist() if to else texts
        for text, label in zip(texts, labels, strict=True):
            yield text if isinstance(text, str) else "", _label(label, classes) if to else ""


def _class_names(schema: Any, to: str | None) -> list[str]:
    """The names of classes that a data set of Hugging Face keeps in a Parquet file; else none."""
    try:
        about = json.loads((schema.metadata or {})[b"huggingface"])
        names = about["info"]["features"][to]["names"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


def _label(value: Any, classes: list[str]) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(classes):
        return classes[value]
    return class_text(value) if value is None or isinstance(value, str | int | float) else ""
