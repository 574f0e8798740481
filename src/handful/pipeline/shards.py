"""Predict or embed one shard of a source, and merge the parts of all shards."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from handful import models
from handful.data.imageset import ImageSet
from handful.data.objects.find import is_elsewhere
from handful.data.shards import NothingInShard, Share
from handful.data.source_names import NAMES
from handful.data.sources import load
from handful.data.store import FileStore
from handful.models.classifier import Predictor
from handful.pipeline.embed import embed
from handful.pipeline.parts import Done, Job, Part
from handful.pipeline.run import about_answers, open_run
from handful.progress import QUIET, Reporter


class Shard(NamedTuple):
    """The part of a shard, and whether it was there before."""

    part: Part
    before: bool


def predict_shard(
    run: Path,
    source: str,
    shard: str,
    out: Path,
    *,
    abstain: float | None = None,
    none_of_these: bool = False,
    share: Share | None = None,
    reporter: Reporter = QUIET,
    **where: Any,
) -> Shard:
    """Classify the images of one shard, and write its part into the folder `out`.

    Args:
        shard: such as "3/64".
        share: the images of the shard, where the source was listed elsewhere.
        where: options of `load`.
    """
    trained = open_run(run)
    for line in about_answers(trained, abstain, none_of_these):
        reporter.say(line)
    predictor = trained.predictor
    threshold = 0.0 if abstain is None else trained.answering(abstain)["threshold"]
    made = {
        "model": models.fingerprint(predictor.model),
        "classes": list(predictor.classes),
        "size": predictor.size,
        "channels": predictor.channels,
        "aspect": predictor.aspect,
        "temperature": predictor.temperature,
        "pool_temperature": (trained.estimate or {}).get("pool_temperature"),
        "range": plain(predictor.value_range),
        "threshold": threshold,
        "none_of_these": none_of_these,
    }
    precision = predictor.precision_here()
    job = Job(out, shard, "predictions", made, share, _place(source, where))
    try:
        images = _images(job, source, where, reporter)
    except Done as done:
        return Shard(done.part, True)
    except NothingInShard as nothing:
        none = torch.empty(0, len(predictor.classes))
        return Shard(job.write([], none, made, precision, nothing.skipped), False)
    found = trained.predict(images, reporter.track, abstain, none_of_these, reporter.say)
    more = {}
    if found.out_of_distribution is not None:
        more["out_of_distribution"] = found.out_of_distribution.to(torch.uint8)
    part = job.write(
        found.names,
        found.probabilities,
        made,
        precision,
        images.store.skipped,
        scale_of(images, predictor),
        more,
    )
    return Shard(part, False)


def embed_shard(
    source: str,
    shard: str,
    out: Path,
    backbone: str = "lite0",
    *,
    share: Share | None = None,
    reporter: Reporter = QUIET,
    where: dict[str, Any] | None = None,
    **how: Any,
) -> Shard:
    """Turn the images of one shard into features, and write its part into the folder `out`.

    A part has no labels: folders are names only.

    Args:
        shard: such as "3/64".
        share: the images of the shard, where the source was listed elsewhere.
        where: options of `load`.
        how: options of `handful.embed`, but for the budget.
    """
    asked = {"backbone": backbone, **how}
    job = Job(out, shard, "features", asked, share, _place(source, where or {}))
    try:
        images = _images(job, source, where or {}, reporter)
    except Done as done:
        return Shard(done.part, True)
    except NothingInShard as nothing:
        return Shard(job.write([], torch.empty(0, 0), {}, "none", nothing.skipped), False)
    found = embed(images, backbone, reporter=reporter, **how)
    about = found.about()
    made = {key: about[key] for key in ("backbone", "weights", "size", "aspect", "view", "width")}
    made["channels"] = images.channels
    part = job.write(
        found.names,
        torch.from_numpy(found.features),
        made,
        found.precision,
        images.store.skipped,
        scale_of(images, None),
    )
    return Shard(part, False)


def _images(job: Job, source: str, where: dict[str, Any], reporter: Reporter) -> ImageSet:
    """The images of a job's shard; raises Done where its part is there, and NothingInShard."""
    return load(
        source,
        keep_leaks=True,
        labeled=False,
        folders="ignore",
        shard=job.shard,
        track=reporter.track,
        say=reporter.say,
        **where,
    )


def _place(source: str, where: dict[str, Any]) -> str:
    """What tells one source from others of the same names."""
    if source in NAMES:
        return f"{source} {where.get('data_root') or ''}"
    return source if is_elsewhere(source) else str(Path(source).expanduser().absolute())


def scale_of(images: ImageSet, predictor: Predictor | None) -> Any:
    """The scale that images of more than 8 bits got, as plain data; None without such images."""
    if predictor is not None:
        images = images.scaled_by(predictor.value_range)
    store = images.store
    deep = isinstance(store, FileStore) and bool(np.any(store.deep[images.rows]))
    return plain(images.value_range) if deep else None


def plain(scale: Any) -> Any:
    """A scale as plain data."""
    return None if scale is None else repr(scale)
