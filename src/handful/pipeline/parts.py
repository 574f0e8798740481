"""Parts: what `--shard 3/64` leaves of a job, and how all of them become one file.

A part is a safetensors file: results, names, and the positions of its images in the list of all.
Its header says what it was made of, so that parts of another run or of other images are not mixed.

Letters in shapes: N images of a part, K classes, D features.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from handful._version import __version__
from handful.data.objects.files import UNFETCHED
from handful.data.shards import MOST, Listed, Shard, Share, shard_of
from handful.data.skipped import Skipped
from handful.errors import HandfulError
from handful.files import parse_json, read_tensors, write_tensors
from handful.pipeline.record_schema import ClassNames, Count, Side, StrictModel, Word, parsed
from handful.text import some_of

Kind = Literal["predictions", "features"]
RESULT = {"predictions": "probabilities", "features": "features"}  # kind → its tensor
TOLD = 10_000  # files that were left out that a part names
ROWS = 10_000  # of a block
SHOWN = 12  # shards in a sentence


class About(StrictModel):
    """What a part was made of."""

    kind: Kind
    number: int = Field(ge=1, le=MOST)
    of: int = Field(ge=1, le=MOST)
    handful: Word
    images: Count  # in the list of all
    hash: Word  # of their names, in their order
    source: Word = "none"  # hash of the place of the images
    asked: dict[str, Any]  # what was typed, as far as it changes the result
    made: dict[str, Any]  # the network and its settings
    precision: Word  # number format of the network: it differs between machines
    scale: Any = None  # of images with more than 8 bits; None without any
    left_out: Count
    unfetched: Count  # of those left out: could not be had


class MadePredictions(StrictModel):
    """What `made` of a part of predictions must have."""

    classes: ClassNames
    threshold: float = Field(ge=0, le=1)
    none_of_these: bool


class MadeBackbone(StrictModel):
    """The network of a part of features."""

    model_config = StrictModel.model_config | {"extra": "forbid"}
    name: Word
    options: dict[str, Any]


class MadeFeatures(StrictModel):
    """What `made` of a part of features must have."""

    backbone: MadeBackbone
    weights: Word
    size: Side
    aspect: Word
    view: Word
    width: int = Field(ge=1)


MADE: dict[str, type[StrictModel]] = {"predictions": MadePredictions, "features": MadeFeatures}


def ending(of: int) -> str:
    """How the names of the parts of a job of `of` shards end."""
    return f"-of-{of:05d}.safetensors"


class Done(Exception):
    """Raised while a source is listed whose part is there already."""

    def __init__(self, part: "Part") -> None:
        super().__init__(str(part.path))
        self.part = part


@dataclass
class Part:
    """A finished part."""

    path: Path
    about: dict[str, Any]  # as in `About`
    tensors: dict[str, Tensor]

    @cached_property
    def at(self) -> np.ndarray:
        """(N,) positions of the images in the list of all, rising."""
        return self.tensors["at"].numpy()

    @cached_property
    def names(self) -> list[str]:
        ends = self.tensors["ends"].tolist()
        content = self.tensors["names"].numpy().tobytes()
        starts = [0, *ends][: len(ends)]
        return [
            content[start:end].decode("utf-8", "surrogateescape")
            for start, end in zip(starts, ends, strict=True)
        ]

    @property
    def left_out(self) -> list[Skipped]:
        """The files that were left out, at most `TOLD` of them."""
        found = parse_json(self.tensors["left_out"].numpy().tobytes().decode(), self.path)
        return [Skipped(str(name), str(reason)) for name, reason in found]


class Job:
    """One shard of a job: its list of images, and the file for its result.

    Args:
        folder: where the parts are.
        shard: such as "3/64".
        asked: what was typed, as far as it changes the result. A finished part is not made again
            for the same list of images and the same `asked`.
        share: the images of the shard, where the source was listed elsewhere.
        source: the place of the images. A part of images of equal names elsewhere is made again.
    """

    def __init__(
        self,
        folder: Path,
        shard: str,
        kind: Kind,
        asked: dict[str, Any],
        share: Share | None = None,
        source: str = "",
    ) -> None:
        plain = shard_of(shard)
        if folder.exists() and not folder.is_dir():
            raise HandfulError(
                f"--out is a folder for the parts here, and {folder} is a file; give another name"
            )
        self.shard = Shard(plain.number, plain.of, self._seen, share)
        self.path = folder / f"{plain.number:05d}{ending(plain.of)}"
        self.kind, self.asked = kind, json.loads(json.dumps(asked))
        self.source = sha256(source.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        self._listed: Listed | None = None
        self._at: dict[str, int] = {}

    def _seen(self, listed: Listed, at: dict[str, int]) -> None:
        self._listed, self._at = listed, at
        if self.path.exists():
            part = open_part(self.path)
            about = part.about
            same = (
                about["kind"] == self.kind
                and (about["number"], about["of"]) == (self.shard.number, self.shard.of)
                and (about["images"], about["hash"]) == self._listed
                and about["source"] == self.source
                and about["asked"] == self.asked
                and about["handful"] == __version__
            )
            if same and not about["unfetched"]:
                raise Done(part)

    def write(
        self,
        names: Sequence[str],
        result: Tensor,
        made: dict[str, Any],
        precision: str,
        skipped: Sequence[Skipped] = (),
        scale: Any = None,
        more: dict[str, Tensor] | None = None,
    ) -> Part:
        """Write the part, whole or not at all, and return it.

        Args:
            names: N names of the images.
            result: (N, K) or (N, D).
            made: the network and its settings, as plain data.
            skipped: the files that were left out.
            more: further tensors, (N, ...).
        """
        assert self._listed is not None
        content = [name.encode("utf-8", "surrogateescape") for name in names]
        told = json.dumps([list(one) for one in skipped[:TOLD]]).encode()
        tensors = {
            RESULT[self.kind]: result,
            "at": torch.tensor([self._at[name] for name in names], dtype=torch.int64),
            "names": _bytes(b"".join(content)),
            "ends": torch.from_numpy(np.cumsum([len(name) for name in content], dtype=np.int64)),
            "left_out": _bytes(told),
            **(more or {}),
        }
        about = {
            "kind": self.kind,
            "number": self.shard.number,
            "of": self.shard.of,
            "handful": __version__,
            "images": self._listed.images,
            "hash": self._listed.hash,
            "source": self.source,
            "asked": self.asked,
            "made": made,
            "precision": precision,
            "scale": scale,
            "left_out": len(skipped),
            "unfetched": sum(one.reason.startswith(UNFETCHED) for one in skipped),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(self.path, tensors, {"part": json.dumps(about)})
        return open_part(self.path)


def open_part(path: Path) -> Part:
    """Read a part; HandfulError for a file that is none, or is damaged."""

    def check(shapes: dict[str, tuple[int, ...]], metadata: dict[str, str]) -> None:
        if "part" not in metadata:
            raise HandfulError(f"{path} is not what --shard writes; move it away")

    tensors, metadata = read_tensors(path, check)
    about = parsed(About, parse_json(metadata["part"], path), path)
    _check_tensors(path, about, tensors)
    part = Part(path, about, tensors)
    if len(part.at):
        made = parsed(MADE[about["kind"]], about["made"], path)
        width = made["width"] if about["kind"] == "features" else len(made["classes"])
        marked = made.get("none_of_these") and "out_of_distribution" not in tensors
        if tensors[RESULT[about["kind"]]].shape[1] != width or marked:
            raise HandfulError(f"{path} is damaged; remove it and start its shard again")
    try:
        part.left_out  # noqa: B018
    except (ValueError, TypeError) as error:
        raise HandfulError(
            f"{path} is damaged ({error}); remove it and start its shard again"
        ) from None
    return part


def _check_tensors(path: Path, about: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    kinds = {
        "at": torch.int64,
        "ends": torch.int64,
        "names": torch.uint8,
        "left_out": torch.uint8,
        RESULT[about["kind"]]: None,
    }
    fine = kinds.keys() <= tensors.keys() and all(
        kind is None or (tensors[name].dtype == kind and tensors[name].ndim == 1)
        for name, kind in kinds.items()
    )
    if fine:
        at, ends, result = tensors["at"], tensors["ends"], tensors[RESULT[about["kind"]]]
        images = about["images"]
        fine = (
            len(at) == len(ends) == len(result)
            and result.ndim == 2
            and result.dtype in (torch.float16, torch.float32)
            and bool(torch.isfinite(result).all())
            and bool((at.diff() > 0).all())
            and (not len(at) or 0 <= int(at[0]) <= int(at[-1]) < images)
            and bool((ends.diff() >= 0).all())
            and (int(ends[-1]) if len(ends) else 0) == len(tensors["names"])
            and all(len(tensor) in (len(at),) for name, tensor in tensors.items()
                    if name not in kinds)
        )  # fmt: skip
    if not fine:
        raise HandfulError(f"{path} is damaged; remove it and start its shard again")


@dataclass
class Parts:
    """All parts of one job, checked against each other."""

    parts: list[Part]

    @property
    def about(self) -> dict[str, Any]:
        return self.parts[0].about

    @property
    def kind(self) -> str:
        return str(self.about["kind"])

    def __len__(self) -> int:
        return sum(len(part.at) for part in self.parts)

    @property
    def precisions(self) -> list[str]:
        return sorted({part.about["precision"] for part in self.parts if len(part.at)})

    @property
    def left_out(self) -> list[Skipped]:
        return sorted(one for part in self.parts for one in part.left_out)

    def blocks(self, *tensors: str) -> Iterator[tuple[list[str], dict[str, np.ndarray]]]:
        """Names and tensors of `ROWS` images at most, in the order of the list of all."""
        full = [part for part in self.parts if len(part.at)]
        for start in range(0, self.about["images"], ROWS):
            names: list[str] = []
            at: list[np.ndarray] = []
            held: dict[str, list[np.ndarray]] = {name: [] for name in tensors}
            for part in full:
                low, high = np.searchsorted(part.at, (start, start + ROWS)).tolist()
                names += part.names[low:high]
                at.append(part.at[low:high])
                for name, rows in held.items():
                    rows.append(part.tensors[name][low:high].numpy())
            if names:
                order = np.argsort(np.concatenate(at))
                together = {name: np.concatenate(rows)[order] for name, rows in held.items()}
                yield [names[row] for row in order.tolist()], together


def open_parts(folder: Path) -> Parts:
    """The parts in a folder; HandfulError unless they are all parts of one job, each once."""
    if not folder.is_dir():
        raise HandfulError(f"no folder {str(folder)!r}; give the folder that --shard wrote to")
    paths = sorted(path for path in folder.glob("[!.]*.safetensors") if path.is_file())
    if not paths:
        raise HandfulError(f"{folder} holds no part; give the folder that --shard wrote to")
    parts = [open_part(path) for path in paths]
    first = parts[0]
    _check_one_number(folder, parts)
    for part in parts[1:]:
        _check_alike(first, part)
    of = first.about["of"]
    by_number: dict[int, Part] = {}
    for part in parts:
        number = part.about["number"]
        if number in by_number:
            raise HandfulError(
                f"{part.path} and {by_number[number].path} are both shard {number} of {of}; remove "
                f"one of them"
            )
        by_number[number] = part
    if missing := [n for n in range(1, of + 1) if n not in by_number]:
        named = some_of([str(number) for number in missing], SHOWN)
        raise HandfulError(
            f"{len(missing)} of {of} shards are not in {folder}: {named}; run them with "
            f"--shard {missing[0]}/{of} and so on"
        )
    for part in parts:
        shard = Shard(part.about["number"], of)
        wrong = next((name for name in part.names if not shard.holds(name)), None)
        if wrong is not None:
            raise HandfulError(f"{part.path} holds {wrong!r}, which is not of its shard")
    return Parts([by_number[number] for number in range(1, of + 1)])


def _check_one_number(folder: Path, parts: list[Part]) -> None:
    """HandfulError if the parts are of jobs with different numbers of shards."""
    by_of: dict[int, list[str]] = {}
    for part in parts:
        by_of.setdefault(part.about["of"], []).append(part.path.name)
    if len(by_of) > 1:
        fewest = min(by_of, key=lambda of: len(by_of[of]))
        others = " and of ".join(str(of) for of in by_of if of != fewest)
        raise HandfulError(
            f"{folder} holds parts of another number of shards, too: of {fewest} and of {others}; "
            f"if those of {fewest} are left over, remove them: {some_of(by_of[fewest], SHOWN)}"
        )


def _check_alike(first: Part, other: Part) -> None:
    """HandfulError unless two parts are of one job."""
    told: list[tuple[str, Callable[[Part], Any]]] = [
        ("made by other commands (predict and embed)", lambda part: part.about["kind"]),
        ("made by other versions of handful", lambda part: part.about["handful"]),
        ("of other images: the source has changed", lambda part: part.about["hash"]),
        ("made with other options", lambda part: part.about["asked"]),
    ]
    if len(first.at) and len(other.at):
        told.append(("made by another run or network", lambda part: part.about["made"]))
    if first.about["scale"] is not None and other.about["scale"] is not None:
        told.append(("scaled by other ranges of values", lambda part: part.about["scale"]))
    for what, of in told:
        if of(first) != of(other):
            raise HandfulError(
                f"{other.path} and {first.path} are {what}; run the shards of one of them again"
            )


def _bytes(content: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(content, np.uint8).copy())
