"""Run a recipe: open its images, subsample the labels, fit, and score the test part once."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from handful.clusters import Job, check_address, cluster
from handful.data.cache import data_folder
from handful.data.findings import skipped_summary
from handful.data.imageset import ImageSet
from handful.data.sources import SOURCES, load
from handful.data.splits import first
from handful.errors import HandfulError
from handful.methods.base import Method
from handful.methods.self_supervised import SelfSupervised
from handful.models.classifier import BackboneSpec
from handful.pipeline.fit import Target, run_fit
from handful.pipeline.options import FitOptions, InputSpec
from handful.pipeline.recipes.copies import with_copies
from handful.pipeline.recipes.recipe import Data, Recipe
from handful.pipeline.run import Run
from handful.pipeline.setup import subsample_labels
from handful.progress import QUIET, Reporter
from handful.training.processes import check_devices, check_divisible, divided
from handful.training.settings import Settings

COPY_PIPELINES = ("rotate", "zoom", "shift", "shear", "affine")  # of report A


class Location(NamedTuple):
    """The place of a source in the data folder."""

    folder: str
    how: str  # what to put there, and where to get it


LOCATIONS = {
    "mnist": Location(
        "MNIST/raw",
        "the four files named train-images-idx3-ubyte.gz and so on, from "
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
    ),
    "cifar10": Location(
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html, unpacked",
    ),
    "cifar10-jpeg": Location(
        "cifar10-jpeg",
        "CIFAR-10 as JPEG files: train/<class>/NNNN.jpg and test/<class>/NNNN.jpg",
    ),
    "stl10": Location(
        "stl10_binary",
        "stl10_binary.tar.gz (2.6 GB) from https://cs.stanford.edu/~acoates/stl10/, unpacked",
    ),
    "tin10": Location(
        "tin10",
        "ten classes of Tiny ImageNet as train/<class>/ and test/<class>/, and images of the other "
        "190 classes in unlabeled/",
    ),
}


class DrawResult(NamedTuple):
    """The outcome of one draw."""

    draw: int
    on: str  # title of the data
    accuracy: float  # on the test part
    n: int  # test images
    seconds: float  # of the fit
    run: Run


def first_available(recipe: Recipe, root: Path) -> Data | None:
    """Return the first of the recipe's data that is in the data folder, or None."""
    found = (data for data in recipe.data if (root / LOCATIONS[data.source].folder).is_dir())
    return next(found, None)


def open_data(
    recipe: Recipe, data_root: Path | None = None, reporter: Reporter = QUIET
) -> tuple[Data, ImageSet]:
    """Return the data of a recipe and its images with all labels.

    If none of its data is in the data folder, the first is downloaded.

    Raises:
        HandfulError: the download fails; the message says which files to put where.
    """
    root = Path(data_root).expanduser() if data_root else data_folder()
    data = first_available(recipe, root) or recipe.data[0]
    public = data.source in SOURCES
    try:
        source = data.source if public else str(root / data.source)
        images = load(source, data_root=root, track=reporter.track)
    except HandfulError as error:
        ways = [
            f"{root / LOCATIONS[d.source].folder}: {LOCATIONS[d.source].how}" for d in recipe.data
        ]
        raise HandfulError(f"{recipe.name}: {error}. Put there {'; or '.join(ways)}") from None
    assert images.test is not None
    left_out = f"; {skipped_summary(images.store.skipped)}" if images.store.skipped else ""
    reporter.say(f"{recipe.name} on {data.title}: {len(images):,} images{left_out}")
    return data, images


def training_images(recipe: Recipe, data: Data, images: ImageSet, draw: int) -> ImageSet:
    """Return the training images of one draw: labels subsampled, without the test part."""
    images = images[:]
    if data.unlabeled:
        images = _fewer_unlabeled(images, data.unlabeled)
    if data.per_class:
        images = subsample_labels(images, data.per_class, draw)
    elif data.first:
        images = images.seen(first(images.labels, data.first))
    return with_copies(images, COPY_PIPELINES, recipe.copies, draw) if recipe.copies else images


def _fewer_unlabeled(images: ImageSet, count: int) -> ImageSet:
    """Return all labelled images and `count` others, which are equal in all draws."""
    kept = np.random.default_rng(0).permutation(images.unlabeled)[:count]
    return images[np.sort(np.concatenate([images.labeled, kept]))]


def method_of(recipe: Recipe, data: Data, draw: int) -> Method:
    """Return the method of one draw.

    All draws of labels share one pre-trained encoder. Where all labels are used, draws differ in
    the seed, also in that of the encoder.
    """
    method = recipe.method
    if isinstance(method, SelfSupervised) and not data.per_class:
        return replace(method, seed=draw)
    return method


def reproduce(
    recipe: Recipe,
    draws: Iterable[int],
    out: Path | None = None,
    data_root: Path | None = None,
    reporter: Reporter = QUIET,
    on: str | None = None,
    devices: int = 1,
) -> Iterator[DrawResult]:
    """Run the recipe on each draw, and yield its outcome.

    Args:
        out: folder for the run folders of the draws. Finished draws in it are not run again, an
            interrupted one is continued.
        on: run the draws on a cluster, each with one thread; see `handful.clusters.cluster`. Its
            machines see `out` at the same path.
        devices: number of those that train a draw together, see `pretrain`; for recipes that are
            made for it.
    """
    draws = tuple(draws)
    _check_devices(recipe, devices, on)
    if on is not None:
        check_address(on)
        if out is None:
            raise HandfulError("draws on a cluster are kept in folders; give out=")
    data, images = open_data(recipe, data_root, reporter)
    if devices > 1 and recipe.schedule is not None:
        reporter.say(f"batches{divided(recipe.schedule.batch, devices)}")
    if on is not None:
        _run_on(on, recipe, data, images, draws, out, reporter)
    for draw in draws:
        yield _result(recipe, data, images, draw, out, reporter, devices)


def _check_devices(recipe: Recipe, devices: int, on: str | None) -> None:
    if devices == 1:
        return
    if not recipe.on_devices:
        raise HandfulError(
            f"{recipe.name} trains on one device; leave out devices (cifar10-fast takes several)"
        )
    if on is not None:
        raise HandfulError("draws on a cluster train on one device each; leave out devices or on")
    check_devices(devices)
    network = recipe.backbone or BackboneSpec("small")
    check_divisible(Settings(recipe.method, recipe.schedule, network), devices)


def _run_on(
    on: str,
    recipe: Recipe,
    data: Data,
    images: ImageSet,
    draws: Iterable[int],
    out: Path | None,
    reporter: Reporter,
) -> None:
    """Run the draws on a cluster; each leaves its folder in `out`."""
    todo = [draw for draw in draws if not _finished(out, draw)]
    if not todo:
        return
    with cluster(on, reporter.say) as nodes:
        shared = nodes.share(images)
        jobs = (Job(draw, f"draw {draw}", (recipe, data, shared, draw, out)) for draw in todo)
        for draw, _ in reporter.track(nodes.results(_leave, jobs), len(todo), "draws"):
            if not _finished(out, draw):
                raise HandfulError(
                    f"a machine of the cluster left the run of draw {draw} where it is not seen "
                    f"here; give --out a folder that all machines see at the same path"
                )


def _finished(out: Path | None, draw: int) -> bool:
    return out is not None and (out / f"draw-{draw}" / "test.json").exists()


def _leave(
    recipe: Recipe, data: Data, images: ImageSet, draw: int, out: Path, reporter: Reporter
) -> None:
    """`_result` on a machine of the cluster, which leaves a run folder."""
    _result(recipe, data, images, draw, out, reporter)


def _result(
    recipe: Recipe,
    data: Data,
    images: ImageSet,
    draw: int,
    out: Path | None,
    reporter: Reporter,
    devices: int = 1,
) -> DrawResult:
    method, labeled = method_of(recipe, data, draw), training_images(recipe, data, images, draw)
    run = _run(recipe, method, labeled, draw, out, reporter, devices)
    if run.test is None:
        assert images.test is not None
        run.score_test(images.test, reporter.track)
    seconds = run.record["seconds"]
    return DrawResult(draw, data.title, run.test["accuracy"], run.test["n"], seconds, run)


def _run(
    recipe: Recipe,
    method: Method,
    images: ImageSet,
    draw: int,
    out: Path | None,
    reporter: Reporter,
    devices: int,
) -> Run:
    options = FitOptions(
        method,
        draw,
        recipe.schedule,
        recipe.backbone,
        InputSpec(recipe.size, precision=recipe.precision),
        estimate="none",
        devices=devices,
    )
    return run_fit(
        images,
        options,
        Target(out / f"draw-{draw}" if out is not None else None),
        reporter=replace(reporter, say=lambda text: None),
        command=["reproduce", recipe.name],
    )
