"""`handful merge`: the parts of all shards become one file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from handful.data.skipped import Skipped
from handful.errors import HandfulError
from handful.models.classifier import BackboneSpec
from handful.models.engine import INT8
from handful.output import FEATURES, PREDICTIONS, output_target
from handful.parquet_files import check_parquet, is_parquet, write_parquet
from handful.pipeline.embed import Embedding, feature_columns
from handful.pipeline.parts import Parts, open_parts
from handful.pipeline.predictions import Predictions, write_predictions
from handful.pipeline.typed_labels import keep_typed_labels
from handful.progress import Say, silent


class Merged(NamedTuple):
    """What one file was made of."""

    images: int
    shards: int
    kind: str
    left_out: int
    examples: list[Skipped]  # of the files that were left out


def merge_parts(folder: Path, out: Path, say: Say = silent) -> Merged:
    """Make one file of the parts that `--shard` left in a folder: what one process would write.

    Args:
        out: a CSV for predictions, an .npz for features; or Parquet, by its ending.
        say: receives a sentence where the parts are alike but for the last digits.

    Raises:
        HandfulError: a shard is missing or there twice, or parts are of different runs, options or
            images.
    """
    check_parquet(out)
    parts = open_parts(folder)
    target = output_target(out, PREDICTIONS if parts.kind == "predictions" else FEATURES)
    if not len(parts):
        why = [f"{one.name}: {one.reason}" for one in parts.left_out[:1]]
        raise HandfulError("; ".join([f"the parts in {folder} hold no image", *why]))
    if len(parts.precisions) > 1 and INT8 in parts.precisions:
        both = " and ".join(parts.precisions)
        raise HandfulError(
            f"the parts were computed in {both}, which differ too much to be put together; make "
            f"them again with the same --precision on all machines"
        )
    if len(parts.precisions) > 1:
        say(
            f"the parts were computed in {' and '.join(parts.precisions)}, on different "
            f"processors: their last digits differ"
        )
    if parts.kind == "predictions":
        if not is_parquet(out):
            keep_typed_labels(target, say)
        write_predictions(target, _predictions(parts), csv=not is_parquet(out))
    else:
        _write_features(parts, target, out)
    left_out = sum(part.about["left_out"] for part in parts.parts)
    return Merged(len(parts), len(parts.parts), parts.kind, left_out, parts.left_out)


def _predictions(parts: Parts) -> Iterator[Predictions]:
    made = next(part.about["made"] for part in parts.parts if len(part.at))
    marked = ["out_of_distribution"] if made["none_of_these"] else []
    for names, found in parts.blocks("probabilities", *marked):
        yield Predictions(
            tuple(names),
            tuple(made["classes"]),
            torch.from_numpy(found["probabilities"]),
            made["threshold"],
            torch.from_numpy(found[marked[0]]).bool() if marked else None,
        )


def _write_features(parts: Parts, target: Path, out: Path) -> None:
    first = next(part for part in parts.parts if len(part.at))
    made: dict[str, Any] = first.about["made"]
    if is_parquet(out):
        blocks = (
            feature_columns(
                names, found["features"], [None] * len(names), np.zeros(len(names), bool)
            )
            for names, found in parts.blocks("features")
        )
        about = {**made, "precision": first.about["precision"], "hash": parts.about["hash"]}
        write_parquet(target, "features", blocks, about)
        return
    every = list(parts.blocks("features"))
    names = tuple(name for some, _ in every for name in some)
    Embedding(
        features=np.concatenate([found["features"] for _, found in every]),
        labels=np.full(len(names), -1, np.int64),
        test=np.zeros(len(names), bool),
        names=names,
        classes=(),
        backbone=BackboneSpec(**made["backbone"]),
        weights=made["weights"],
        size=made["size"],
        aspect=made["aspect"],
        view=made["view"],
        precision=first.about["precision"],
        hash=f"names:{parts.about['hash']}",
    ).save(target)
