"""What users may give a job instead of an ImageSet and a Reporter."""

from collections.abc import Callable, Sized
from functools import wraps
from inspect import signature
from typing import Any, Concatenate, ParamSpec, TypeVar

from handful.data.image_folder import EarlierLabels
from handful.data.imageset import ImageSet
from handful.data.in_memory import check_not_channels_first, is_path
from handful.data.sources import load
from handful.errors import HandfulError
from handful.progress import QUIET, Reporter, shown
from handful.text import did_you_mean

P = ParamSpec("P")
T = TypeVar("T")


Job = Callable[Concatenate[ImageSet, P], T]


def on_any_images(
    labeled: bool,
    load_after: Callable[[Any, Any, Any], tuple[Any, EarlierLabels | None]] | None = None,
) -> Callable[[Job[P, T]], Callable[Concatenate[Any, P], T]]:
    """Decorate a job on an ImageSet that has the options `labels`, `boxes`, `progress`, `reporter`.

    It then takes what `load` takes as images.

    Args:
        labeled: refuse images without labels, unless the option `after` is given.
        load_after: returns `boxes` and `known` for `load`, of the options `after`, `boxes` and
            `labels`.
    """

    def decorated(job: Job[P, T]) -> Callable[Concatenate[Any, P], T]:
        @wraps(job)
        def done(images: Any, *args: P.args, **named: P.kwargs) -> T:
            options: dict[str, Any] = dict(named)
            labels, boxes = options.pop("labels", None), options.pop("boxes", None)
            progress = options.pop("progress", False)
            if args and isinstance(args[0], Sized) and not isinstance(args[0], str):
                raise HandfulError("labels are given by name, as labels=...")
            _check_options(job, images, args, options)  # before images are read
            with shown(progress) as reporter:
                if reporter is not QUIET:
                    options["reporter"] = reporter
                if not (labels is None and boxes is None and isinstance(images, ImageSet)):
                    needed = labeled and options.get("after") is None
                    earlier: EarlierLabels | None = None
                    if load_after and not needed and not isinstance(images, ImageSet):
                        boxes, earlier = load_after(options["after"], boxes, labels)
                    told: Reporter = options.get("reporter", QUIET)
                    images = load(
                        images,
                        labels,
                        boxes=boxes,
                        known=earlier,
                        labeled=needed,
                        groups=options.get("groups"),
                        track=told.track,
                        say=told.say,
                    )
                whole: Any = job
                result: T = whole(images, *args, **options)
                return result

        return done

    return decorated


def _check_options(job: Any, images: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:
    """TypeError, with the name that may be meant, unless a job takes these arguments."""
    taken = signature(job)
    try:
        taken.bind(images, *args, **options)
    except TypeError as error:
        known = [*taken.parameters, "labels", "boxes", "progress"]
        unknown = next((name for name in options if name not in known), None)
        if unknown is None:
            raise
        hint = did_you_mean(unknown, known) or f" help(handful.{job.__name__}) lists them."
        if unknown in signature(load).parameters:
            hint = f" handful.load(..., {unknown}=...) has it; pass on what that returns."
        raise TypeError(f"{job.__name__}() has no option {unknown!r}.{hint}") from error


def labeled_images(given: Any, labels: Any, channels: int, boxes: Any = None) -> ImageSet:
    """The images to score in what a user gave, with their labels; see `images_of`."""
    if isinstance(given, ImageSet) and labels is None and boxes is None:
        return given
    if not isinstance(given, ImageSet):
        check_not_channels_first(given, channels)
    every: Any = {"labeled": False, "every_class": True}  # images of one class can be scored
    return load(given, labels, keep_leaks=True, boxes=boxes, **every)


def images_of(given: Any, channels: int = 1, boxes: Any = None) -> ImageSet:
    """The images to predict or to score in what a user gave: as `load` takes it, labelled or not.

    Args:
        channels: of the images that the classifier has learned from.
        boxes: as in `load`.
    """
    if isinstance(given, ImageSet):
        if boxes is not None:
            raise HandfulError("boxes is for a folder of photos; give it to load, with the folder")
        return given
    check_not_channels_first(given, channels)
    folders = "ignore" if is_path(given) else None
    return load(given, labeled=False, folders=folders, keep_leaks=True, boxes=boxes)
