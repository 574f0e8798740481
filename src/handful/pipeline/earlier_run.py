"""Continue from the labels and settings of an earlier run.

Labels of the earlier run are kept unless a new label replaces them. The origin of each label is
kept too, since an estimate may only count labels of images that were drawn at random.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from handful import models
from handful.csv_files import read_csv
from handful.data.boxes.crop_store import boxes_in
from handful.data.boxes.options import Boxes, boxes_of
from handful.data.class_names import normalized
from handful.data.grouping.rules import AUTO, FOLDER, NONE, check_rule, safe_to_repeat
from handful.data.image_folder import EarlierLabels, classes_for_folders
from handful.data.imageset import ImageSet, sorted_classes
from handful.data.labels.columns import CONFIRMED, MARK
from handful.errors import HandfulError
from handful.evaluation.label_shift import UNLABELED
from handful.methods.base import Method
from handful.models.classifier import BackboneSpec
from handful.pipeline.artifacts import LABELS
from handful.pipeline.options import FitOptions
from handful.pipeline.run import Run, open_run, pixel_fingerprints
from handful.pipeline.summary import labels_by_folder
from handful.progress import Important, Say, silent
from handful.text import counted, some_names

ORIGINS = ("random", "chosen", "unknown")


@dataclass(frozen=True, eq=False)
class KnownLabels:
    """Labels with their origins, by image name."""

    labels: dict[str, str]
    origins: dict[str, str]
    pixels: dict[str, str]  # hashes; "" where the file has none
    confirmed: frozenset[str]  # images whose label a person looked at again, and it stands

    def of_equal_pixels(self, pixels: dict[str, str]) -> "KnownLabels":
        """Those of images whose pixels are as they were."""
        same = {name for name, mark in self.pixels.items() if mark and pixels.get(name) == mark}
        labels, origins, marks = (
            {name: one[name] for name in one if name in same}
            for one in (self.labels, self.origins, self.pixels)
        )
        return KnownLabels(labels, origins, marks, self.confirmed & same)


def read_labels(folder: Path) -> KnownLabels:
    """Read `labels.csv` of a run folder; HandfulError if it is missing or damaged."""
    path = folder / LABELS
    try:
        rows = read_csv(path)
        labels = {row["file"]: row["label"] for row in rows}
        origins = {row["file"]: row["origin"] for row in rows}
        pixels = {row["file"]: row.get("pixels") or "" for row in rows}
        confirmed = frozenset(row["file"] for row in rows if row.get(MARK) == CONFIRMED)
    except FileNotFoundError:
        raise HandfulError(f"{path} is missing; is {folder} a run folder?") from None
    except KeyError as error:
        raise HandfulError(f"{path} is damaged ({error!r}); restore it or fit again") from None
    unknown = sorted(set(origins.values()) - set(ORIGINS))
    if unknown:
        raise HandfulError(
            f"{path} names the origin {unknown[0]!r}; known are {', '.join(ORIGINS)}"
        )
    return KnownLabels(labels, origins, pixels, confirmed)


def suggested_origins(earlier: Run) -> dict[str, str]:
    """Return how a run picked the images that it suggested for labelling: "random" or "chosen".

    Keys are file names, and hashes of the pixels: files that a user moved into class folders have
    other names.
    """
    rows = earlier.record.get("label_next") or []
    return {
        row[key]: "random" if row["why"] == "random" else "chosen"
        for row in rows
        for key in ("pixels", "file")
    }


def how_to_load(
    after: Run | Path | str, boxes: Any, labels: Any, folders: str | None = None
) -> tuple[Boxes | None, EarlierLabels | None]:
    """Return the options `boxes` and `known` with which `load` reads images after a run.

    Labels of the run are kept. The names of sub-folders are new labels only where the run took its
    own labels from them, where images were moved into folders named like its classes, or where
    `folders` says that they are classes.

    Args:
        boxes, labels, folders: as `load` takes them.

    Raises:
        HandfulError: the labels of the run are of crops, and no boxes are given; or its labels.csv
            is missing or damaged.
    """
    earlier = after if isinstance(after, Run) else open_run(after)
    boxes = cut_again(boxes, earlier)
    if labels is not None or folders == "classes" or _by_folder(earlier):
        return boxes, None
    known = read_labels(earlier.folder).labels if earlier.folder is not None else {}
    new = classes_for_folders(known, earlier.record["data"]["classes"])
    return boxes, EarlierLabels(str(earlier.folder or "the earlier run"), new)


def _by_folder(earlier: Run) -> bool:
    if earlier.folder is None:
        return bool(earlier.record["data"]["labels_by_folder"])
    return labels_by_folder(earlier.record, read_labels(earlier.folder).labels)


def with_earlier_labels(images: ImageSet, earlier: Run, say: Say = silent) -> ImageSet:
    """Return the images with labels and origins of an earlier run added; new labels win.

    The name of a crop says which box of a file it is, so with another file it may be another crop:
    a label of a crop is kept only where its pixels are as they were.

    `say` gets the numbers of new, kept, dropped and changed labels.

    Raises:
        HandfulError: the earlier run has no folder, its labels.csv is missing or damaged, or no
            image has a label.
    """
    if earlier.folder is None:
        raise HandfulError(
            "the labels of a run are in its folder, and this run has none; fit with out=..."
        )
    known = read_labels(earlier.folder)
    names = images.names
    fingerprints = pixel_fingerprints(images)
    missing = len(set(known.labels) - set(names))
    cut, dropped = boxes_in(images) is not None, 0
    if cut:
        named = len(known.labels) - missing
        known = known.of_equal_pixels(dict(zip(names, fingerprints, strict=True)))
        dropped = named - len(known.labels)
    earlier_labels = [normalized(known.labels.get(name) or "") or None for name in names]
    new_labels = [images.classes[k] if k >= 0 else None for k in images.labels]
    merged = [
        new if new is not None else before
        for new, before in zip(new_labels, earlier_labels, strict=True)
    ]
    present = {label for label in merged if label is not None}
    if not present:
        raise HandfulError(_none_labeled(images, earlier, bool(known.labels)))
    classes = sorted_classes(present | set(images.classes))
    images = images.relabeled(classes)
    index = {name: k for k, name in enumerate(classes)}
    labels = np.array([-1 if label is None else index[label] for label in merged], np.int64)

    pairs = list(zip(new_labels, earlier_labels, strict=True))
    added = sum(new is not None and before is None for new, before in pairs)
    kept = sum(before is not None and new in (None, before) for new, before in pairs)
    changed = sum(new != before for new, before in pairs if new and before)
    say(
        f"{counted(added, 'label')} {_is(added)} new, {kept:,} {_is(kept)} kept from "
        f"{earlier.folder}"
    )
    if dropped:
        say(
            f"{counted(dropped, 'label')} of {earlier.folder} {_is(dropped)} not kept: the crops "
            f"of these names show something else now; give the same file of boxes and the same "
            f"--padding to keep them"
        )
    if changed:
        say(
            f"{counted(changed, 'label')} {'differs' if changed == 1 else 'differ'} from "
            f"{earlier.folder}; what is given now counts"
        )
    if other := _other_classes(images, new_labels, known, earlier):
        say(Important(other))
    if missing:
        lost = f"{counted(missing, 'image')} that {earlier.folder} had labels for"
        say(Important(f"{lost} {_is(missing)} missing now"))
    suggested = suggested_origins(earlier)
    origins = {
        name: known.origins.get(name)
        or (None if cut else suggested.get(name))
        or suggested.get(fingerprint)
        or "unknown"
        for name, fingerprint in zip(names, fingerprints, strict=True)
    }
    origins |= images.origins
    if told := _origins_in_words(
        [origins[name] for name, (new, before) in zip(names, pairs, strict=True)
         if new and not before]
    ):  # fmt: skip
        say(told)
    confirmed = images.confirmed | {
        name
        for name, (new, before) in zip(names, pairs, strict=True)
        if before is not None and new in (None, before) and name in known.confirmed
    }
    by_folder = (images.labels_by_folder or not any(new_labels)) and (
        not kept or labels_by_folder(earlier.record, known.labels)
    )
    return replace(
        images.with_labels(labels),
        origins=origins,
        confirmed=confirmed,
        labels_by_folder=by_folder,
    )


def _none_labeled(images: ImageSet, earlier: Run, labeled: bool) -> str:
    """Why there is nothing to learn from, and what to do."""
    had = "has no label either"
    if labeled:
        had = "has labels for other images only"
    classes = any("/" in name for name in images.names)
    return (
        f"{images.source or 'what was given'} gives none of its {counted(len(images), 'image')} a "
        f"label, and {earlier.folder} {had}; give a table with --labels"
        f"{', or --folders classes if its sub-folders are classes' * classes}"
    )


def _other_classes(
    images: ImageSet, new: Sequence[str | None], known: KnownLabels, earlier: Run
) -> str:
    """What to say where no class that is given now is one of the earlier run; else ""."""
    given, before = {label for label in new if label}, {*map(normalized, known.labels.values())}
    if not given or not before or given & before:
        return ""
    ignore = "; if the sub-folders are no classes: --folders ignore"
    return (
        f"none of the classes that are given now ({some_names(sorted(given), 5)}) is one of "
        f"{earlier.folder} ({some_names(sorted(before), 5)}){ignore * images.labels_by_folder}"
    )


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def _origins_in_words(origins: Sequence[str]) -> str:
    """How the images of new labels were picked; "" where all labels count in the estimate."""
    counts = Counter(origins)
    if not counts["chosen"]:
        return ""
    picked = [f"{counts['random']} at random", f"{counts['chosen']} chosen or with a suggestion"]
    picked += [f"{counts['unknown']} not known"] * bool(counts["unknown"])
    return (
        f"how the images of the new labels were picked: {', '.join(picked)}; labels of chosen ones "
        f"train, but do not count in the estimate"
    )


def with_earlier_options(options: FitOptions, earlier: Run, say: Say = silent) -> FitOptions:
    """Return the options, with those of an earlier run filled in where none are given."""
    before = earlier_settings(earlier, options.method, options.init, options.backbone)
    settings, budget = before.pop("settings"), before.pop("budget", None)
    if options.schedule is not None:
        settings, budget = _without("schedule.", settings), None
    given = options.backbone
    if isinstance(given, BackboneSpec) or given not in (None, before.get("backbone")):
        settings = _without("backbone.", settings)
    if options.budget is not None:
        settings.pop("schedule.steps", None)
        if earlier.record.get("choice"):
            settings.pop("steps", None)
        budget = options.budget
    elif {"steps", "schedule.steps"} & options.settings.keys():
        budget = None
    if options.estimate == "none" and before.get("prior") == UNLABELED:
        before.pop("prior")
    elif options.prior is None and "prior" in before:
        say(f"class shares are those of {earlier.folder}; --prior labels drops them")
    names = ("method", "backbone", "prior")
    again = {k: before[k] for k in names if k in before and getattr(options, k) is None}
    repeated = {
        k: before[k]
        for k in ("size", "aspect", "flips")
        if k in before and getattr(options.inputs, k) is None
    }
    inputs = replace(options.inputs, **repeated)
    if options.groups is None:
        again["groups"] = earlier_groups(earlier)
    settings = settings | dict(options.settings)
    return replace(options, inputs=inputs, settings=settings, budget=budget, **again)


def earlier_groups(earlier: Run) -> str | None:
    """The `groups` that an earlier run was given; None where it was given none.

    Raises:
        HandfulError: it is a regular expression that may take very long to match.
    """
    rule = (earlier.record.get("groups") or {}).get("asked", AUTO)
    if rule == AUTO:
        return None
    check_rule(rule)
    if rule not in (NONE, FOLDER) and not safe_to_repeat(rule):
        raise HandfulError(
            f"{earlier.folder} was made with --groups {rule}, which may take very long for some "
            f"names; to use it again, give --groups again, or another one"
        )
    return str(rule)


def cut_again(boxes: Any, earlier: Run) -> Boxes | None:
    """Return boxes as `load` takes them, cut as those of an earlier run where nothing else is asked
    for.

    Raises:
        HandfulError: the labels of the earlier run are of crops, and no boxes are given.
    """
    given, cut = boxes_of(boxes), earlier.record["data"].get("boxes")
    if cut is None:
        return given
    if given is None:
        raise HandfulError(
            f"{earlier.folder or 'the earlier run'} learned from crops, and its labels are theirs; "
            f"give the boxes again, with --boxes {cut['file']}"
        )
    if given.min_confidence is None:
        given = replace(given, min_confidence=cut["min_confidence"])
    return given.as_in(cut)


def _without(prefix: str, settings: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in settings.items() if not key.startswith(prefix)}


def earlier_settings(
    earlier: Run,
    method: str | Method | None = None,
    init: Path | str | None = None,
    backbone: str | BackboneSpec | None = None,
) -> dict[str, Any]:
    """Return the arguments of `fit` that repeat an earlier run, read from its record.

    With another `method`, or where the earlier run used `auto` (an interim run always did), only
    aspect, flips, class shares and what the user fixed for `auto` are repeated: with more labels
    another method may be selected. With `init`, network and size come from that folder. Where a
    budget set the number of steps, the budget is repeated.

    Raises:
        HandfulError: the earlier run started from pre-trained weights, and no `init` is given; or
            its network would be downloaded from a hub, and no `backbone` is typed.
    """
    record = earlier.record
    network = record["backbone"]
    name = models.full_name(network["name"], network["options"])
    if backbone is None and init is None and models.may_download(name):
        raise HandfulError(
            f"{earlier.folder} was trained with {name}, whose weights may have to be downloaded; "
            f"to allow that, give --backbone {name}"
        )
    fixed = record.get("fixed", {}).get("settings", {})
    others = [record["method"].get("embed_backbone", ""), *map(str, fixed.values())]
    if downloaded := [one for one in others if isinstance(one, str) and models.may_download(one)]:
        raise HandfulError(
            f"{earlier.folder} used {downloaded[0]}, whose weights may have to be downloaded; to "
            f"allow that, leave --after out and give --method fine_tuning with "
            f"--set embed_backbone={downloaded[0]}"
        )
    again = {"given": record.get("prior"), "unlabeled": "unlabeled"}
    prior = again.get(record.get("prior_from", "labels"))
    beside = {} if prior is None else {"prior": prior}
    selected_itself = method is None and (record.get("choice") or record.get("interim"))
    if selected_itself or method not in (None, record["method"]["name"]):
        inputs = record["input"]
        repeated = {"aspect": inputs["aspect"], "flips": inputs["flips"], "settings": {}}
        if selected_itself:
            fixed = record.get("fixed", {})
            settings = dict(fixed.get("settings", {}))
            settings.pop("frozen_parts", None)  # of earlier versions
            repeated["settings"] = settings if init is None else _without("backbone.", settings)
            pretrained = network["options"].get("networks", network["name"])
            if init is None and fixed.get("backbone") in (network["name"], pretrained):
                repeated["backbone"] = fixed["backbone"]
        return repeated | beside
    started = record.get("init") and not record.get("stage")
    if started and init is None:
        raise HandfulError(
            f"{earlier.folder} started from a pre-trained backbone; give its folder again, with "
            f"--init, or another --method"
        )
    settings = {key: str(value) for key, value in record["method"].items() if key != "name"}
    if settings.pop("frozen_parts", None) is not None:  # of earlier versions
        settings["trained_layers"] = "all"
    settings |= {f"schedule.{key}": str(value) for key, value in (record["schedule"] or {}).items()}
    budget = record["training"].get("budget")
    if budget is not None and record["schedule"] and not record.get("choice"):
        del settings["schedule.steps"]  # they followed from the budget
        beside["budget"] = budget
    settings |= {f"backbone.{key}": str(value) for key, value in network.get("options", {}).items()}
    if init is not None:
        settings = _without("backbone.", settings)
        repeated = {"method": record["method"]["name"], "flips": record["input"]["flips"]}
        return repeated | {"settings": settings} | beside
    repeated = {
        "method": record["method"]["name"],
        "backbone": network["name"],
        "size": record["input"]["size"],
        "aspect": record["input"]["aspect"],
        "flips": record["input"]["flips"],
        "settings": settings,
    }
    return repeated | beside
