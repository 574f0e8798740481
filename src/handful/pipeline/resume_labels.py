"""Continue from the labels and settings of an earlier run.

Labels once given are not lost: those of the earlier run stay unless the new ones say otherwise.
Where each label came from is kept beside it, since an estimate may only count labels of images
that were picked at random.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from handful.csv_files import read_csv
from handful.data.class_names import normalized
from handful.data.imageset import ImageSet, sorted_classes
from handful.errors import HandfulError
from handful.methods.base import Method
from handful.models.classifier import BackboneSpec
from handful.pipeline.artifacts import LABEL_NEXT, LABELS
from handful.pipeline.options import FitOptions
from handful.pipeline.run import Run, pixel_marks
from handful.progress import Say, silent

ORIGINS = ("random", "chosen", "unknown")


@dataclass(frozen=True, eq=False)
class Known:
    """Labels with their origins, by image name."""

    labels: dict[str, str]
    origins: dict[str, str]


def read_labels(folder: Path) -> Known:
    """What `labels.csv` in a run folder holds; HandfulError if it is missing or damaged."""
    path = folder / LABELS
    try:
        rows = read_csv(path)
        labels = {row["file"]: row["label"] for row in rows}
        origins = {row["file"]: row["origin"] for row in rows}
    except FileNotFoundError:
        raise HandfulError(f"{path} is missing; is {folder} a run folder?") from None
    except KeyError as error:
        raise HandfulError(f"{path} is damaged ({error!r}); restore it or fit again") from None
    strange = sorted(set(origins.values()) - set(ORIGINS))
    if strange:
        raise HandfulError(
            f"{path} names the origin {strange[0]!r}; known are {', '.join(ORIGINS)}"
        )
    return Known(labels, origins)


def suggested_origins(earlier: Run) -> dict[str, str]:
    """How the images that a run suggested for labelling were found: "random" or "chosen".

    By name, and by the pixels too: whoever labels by moving files into class folders gives them
    other names.
    """
    rows = earlier.record.get("label_next") or []
    return {
        row[key]: "random" if row["why"] == "random" else "chosen"
        for row in rows
        for key in ("pixels", "file")
    }


def with_earlier_labels(images: ImageSet, earlier: Run, say: Say = silent) -> ImageSet:
    """`images` with the labels of an earlier run added; where both have one, the new one wins.

    Their origins are in the result too. `say` is told how many labels are new, kept and changed.
    """
    if earlier.folder is None:
        raise HandfulError(
            "the labels of a run are in its folder, and this one has none; fit with out"
        )
    known = read_labels(earlier.folder)
    names = images.names
    old = [normalized(known.labels.get(name) or "") or None for name in names]
    fresh = [images.classes[k] if k >= 0 else None for k in images.labels]
    merged = [new if new is not None else before for new, before in zip(fresh, old, strict=True)]
    present = {label for label in merged if label is not None}
    classes = sorted_classes(present | set(images.classes))
    images = images.relabeled(classes)
    index = {name: k for k, name in enumerate(classes)}
    labels = np.array([-1 if label is None else index[label] for label in merged], np.int64)

    pairs = list(zip(fresh, old, strict=True))
    added = sum(new is not None and before is None for new, before in pairs)
    kept = sum(new is None and before is not None for new, before in pairs)
    changed = sum(new != before for new, before in pairs if new and before)
    gone = len(set(known.labels) - set(names))
    say(f"{added} labels are new, {kept} are kept from {earlier.folder}")
    if changed:
        say(f"{changed} labels differ from those of {earlier.folder}; the new ones count")
    if gone:
        say(f"{gone} images that {earlier.folder} had labels for are not here any more")
    suggested = suggested_origins(earlier)
    origins = {
        name: known.origins.get(name) or suggested.get(name) or suggested.get(mark) or "unknown"
        for name, mark in zip(names, pixel_marks(images), strict=True)
    }
    joined = [
        origins[name] for name, pair in zip(names, pairs, strict=True) if pair[0] and not pair[1]
    ]
    if chosen := joined.count("chosen"):
        say(
            f"{chosen} of the new labels are of images that {LABEL_NEXT} chose: they train, but do "
            f"not count in the estimate; {joined.count('random')} are of images it drew at random"
        )
    return replace(images.with_labels(labels), origins={**origins, **images.origins})


def with_earlier_options(options: FitOptions, earlier: Run, say: Say = silent) -> FitOptions:
    """`options` with those of an earlier run where none are given."""
    before = earlier_settings(earlier, options.method, options.init, options.backbone)
    settings, budget = before.pop("settings"), before.pop("budget", None)
    if options.budget is not None:
        settings.pop("schedule.steps", None)
        budget = options.budget
    elif {"steps", "schedule.steps"} & options.settings.keys():
        budget = None
    if options.estimate == "none":
        before.pop("prior", None)
    elif options.prior is None and "prior" in before:
        say(f"class shares are those of {earlier.folder}; --prior labels drops them")
    names = ("method", "backbone", "prior")
    again = {k: before[k] for k in names if k in before and getattr(options, k) is None}
    looked = {
        k: before[k]
        for k in ("size", "aspect", "flips")
        if k in before and getattr(options.inputs, k) is None
    }
    inputs = replace(options.inputs, **looked)
    settings = settings | dict(options.settings)
    return replace(options, inputs=inputs, settings=settings, budget=budget, **again)


def earlier_settings(
    earlier: Run,
    method: str | Method | None = None,
    init: Path | str | None = None,
    backbone: str | BackboneSpec | None = None,
) -> dict[str, Any]:
    """The arguments of `fit` that repeat what an earlier run did, as its record has them.

    Where another `method` is asked for, or the earlier run chose its own, only how the images are
    looked at and how common the classes are is repeated: more labels may change the choice. A
    folder to start from, `init`, says itself what the network is and how it looks. Where a budget
    bought the steps it is the budget that is repeated.

    Raises:
        HandfulError: the run started from such a folder, and none is given; or weights from a hub
            would be fetched because a record names them, and no `backbone` is typed.
    """
    record = earlier.record
    if backbone is None and init is None and record["backbone"]["name"].startswith("timm:"):
        name = record["backbone"]["name"]
        raise HandfulError(
            f"{earlier.folder} was trained with {name}, whose weights may have to be downloaded; "
            f"if you want that, give --backbone {name}"
        )
    again = {"given": record.get("prior"), "unlabeled": "unlabeled"}
    prior = again.get(record.get("prior_from", "labels"))
    beside = {} if prior is None else {"prior": prior}
    chosen = method is None and record.get("choice")
    if chosen or method not in (None, record["method"]["name"]):
        looked = record["input"]
        repeated = {"aspect": looked["aspect"], "flips": looked["flips"], "settings": {}}
        return repeated | beside
    started = record.get("init") and not record.get("stage")
    if started and init is None:
        raise HandfulError(
            f"{earlier.folder} started from a backbone that had learned before; give its folder "
            f"again, with --init, or another --method"
        )
    network = record["backbone"]
    settings = {key: str(value) for key, value in record["method"].items() if key != "name"}
    settings |= {f"schedule.{key}": str(value) for key, value in (record["schedule"] or {}).items()}
    budget = record["training"].get("budget")
    if budget is not None and record["schedule"] and not record.get("choice"):
        del settings["schedule.steps"]  # which it bought: it is what was asked for
        beside["budget"] = budget
    settings |= {f"backbone.{key}": str(value) for key, value in network.get("options", {}).items()}
    if init is not None:
        settings = {k: v for k, v in settings.items() if not k.startswith("backbone.")}
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
