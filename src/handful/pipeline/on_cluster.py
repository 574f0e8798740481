"""Predict or embed all shards of a source on a cluster, and merge their parts.

What runs on the cluster is `--shard`. So a part that is there is not made again, a killed command
goes on where it was, and the result is what one process writes.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from handful.clusters import Job, check_address, cluster
from handful.data.shards import Share
from handful.data.shares import divided
from handful.errors import HandfulError
from handful.files import sole_writer, tidy
from handful.output import FEATURES, PREDICTIONS, output_target
from handful.parquet_files import check_parquet
from handful.pipeline.merge_parts import Merged, merge_parts
from handful.pipeline.parts import ending
from handful.pipeline.run import about_answers, open_run
from handful.pipeline.shards import embed_shard, predict_shard
from handful.progress import QUIET, Reporter


class Made(NamedTuple):
    """What a machine of the cluster says of a part."""

    path: Path
    before: bool  # the part was there
    unfetched: int  # images that could not be had


def predict_on(
    on: str,
    run: Path,
    source: str,
    out: Path,
    *,
    abstain: float | None = None,
    none_of_these: bool = False,
    reporter: Reporter = QUIET,
    **where: Any,
) -> Merged:
    """Classify the images of a source on a cluster, and write the file `out`.

    The machines of the cluster see the run, the source and the folder of `out` at the same paths.

    Args:
        on: see `handful.clusters.cluster`.
        where: `follow_links` and `data_root`, as in `load`.

    Raises:
        HandfulError: there is no cluster, or what `predict_shard` raises on one of its machines.
    """
    trained = open_run(run)  # an error in what was typed is told before a cluster starts
    for line in about_answers(trained, abstain, none_of_these):
        reporter.say(line)  # here at once, though each part says it, too
    options = {"abstain": abstain, "none_of_these": none_of_these, **where}

    def job(shard: str, share: Share | None, parts: Path) -> tuple[Any, ...]:
        return (run, source, shard, parts, share, options)

    return _on(on, source, out, PREDICTIONS, _predicted, job, reporter, where)


def embed_on(
    on: str,
    source: str,
    out: Path,
    backbone: str = "lite0",
    *,
    reporter: Reporter = QUIET,
    where: dict[str, Any] | None = None,
    **how: Any,
) -> Merged:
    """Turn the images of a source into features on a cluster, and write the file `out`.

    The file has no labels: folders are names only.

    Args:
        on: see `handful.clusters.cluster`.
        where: `follow_links` and `data_root`, as in `load`.
        how: options of `handful.embed`, but for the budget.

    Raises:
        HandfulError: there is no cluster, or what `embed_shard` raises on one of its machines.
    """
    where = where or {}

    def job(shard: str, share: Share | None, parts: Path) -> tuple[Any, ...]:
        return (source, shard, parts, backbone, share, {**how, "where": where})

    return _on(on, source, out, FEATURES, _embedded, job, reporter, where)


def _on(
    on: str,
    source: str,
    out: Path,
    kind: Any,
    function: Callable[..., Made],
    job: Callable[[str, Share | None, Path], tuple[Any, ...]],
    reporter: Reporter,
    where: dict[str, Any],
) -> Merged:
    check_address(on)
    check_parquet(out)
    output_target(out, kind)
    parts = out.with_name(f"{out.name}-parts")
    of, shares = divided(source, bool(where.get("follow_links")))

    def jobs() -> Iterator[Job]:
        for number, share in enumerate(shares, 1):
            shard = f"{number}/{of}"
            yield Job(number, f"shard {shard}", job(shard, share, parts))

    unfetched = 0
    try:
        with sole_writer(parts):
            _remove(parts, but=ending(of))
            with cluster(on, reporter.say) as nodes:
                for _, made in reporter.track(nodes.results(function, jobs()), of, "shards"):
                    unfetched += made.unfetched
                    if not (parts / made.path.name).exists():
                        raise HandfulError(
                            f"a machine of the cluster wrote {made.path}, which is not here; give "
                            f"--out a place that all machines see at the same path"
                        )
            merged = merge_parts(parts, out, reporter.say)
            if unfetched:
                reporter.say(
                    f"{unfetched:,} images could not be fetched; the same command tries them "
                    f"again, and takes the rest from {parts}"
                )
            else:
                _remove(parts)
                tidy(parts)
    finally:
        with suppress(OSError):  # it is not empty, or was never made
            parts.rmdir()
    return merged


def _remove(parts: Path, but: str = "/") -> None:
    """Remove the parts in a folder, but for those whose names end in `but`."""
    for path in parts.glob("[0-9]*-of-[0-9]*.safetensors"):
        if not path.name.endswith(but):
            path.unlink(missing_ok=True)


# --- what runs on the machines of the cluster


def _predicted(
    run: Path,
    source: str,
    shard: str,
    parts: Path,
    share: Share | None,
    options: dict[str, Any],
    reporter: Reporter,
) -> Made:
    made = predict_shard(run, source, shard, parts, share=share, reporter=reporter, **options)
    return Made(made.part.path, made.before, made.part.about["unfetched"])


def _embedded(
    source: str,
    shard: str,
    parts: Path,
    backbone: str,
    share: Share | None,
    options: dict[str, Any],
    reporter: Reporter,
) -> Made:
    made = embed_shard(source, shard, parts, backbone, share=share, reporter=reporter, **options)
    return Made(made.part.path, made.before, made.part.about["unfetched"])
