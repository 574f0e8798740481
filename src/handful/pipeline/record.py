"""Build the record of a fit, `run.json`, from the request, the decision and the training."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch

from handful import devices, models
from handful._version import __version__
from handful.data.boxes.crop_store import boxes_in
from handful.data.imageset import ImageSet
from handful.data.source_names import redacted
from handful.evaluation.accuracy_estimate import LEVEL, seen_out_of_fold
from handful.evaluation.label_shift import LABELED
from handful.methods.base import Task, as_json
from handful.onnx_runtime import VERSION as ONNX_RUNTIME_VERSION
from handful.pipeline.assess import Assessment
from handful.pipeline.auto.candidates import Candidate
from handful.pipeline.auto.select import Selection
from handful.pipeline.pretrained import Pretrained
from handful.pipeline.run import Run
from handful.training.plan import Plan
from handful.training.settings import Settings
from handful.training.trainer import TrainingResult


@dataclass(frozen=True)
class FitRequest:
    """What a fit was asked to do, beside its images, method and settings."""

    seed: int
    origins: Sequence[str]  # of every label: random, chosen or unknown
    estimate: bool  # whether an estimate is wanted
    prior: Mapping[str, float] | str | None
    shares: Sequence[float] | None  # of the classes among new images, where they are given
    budget: float | None  # seconds
    after: Run | None
    command: Sequence[str]
    fixed: Mapping[str, Any]  # what restricts `auto`, see FitOptions.fixed
    devices: int = 1  # that train together


class Decision(NamedTuple):
    """Selected method, training plan and cross-validated assessment."""

    settings: Settings
    task: Task
    plan: Plan | None  # None: several devices measure it when they train
    assessment: Assessment | None  # None: no estimate was requested
    selection: Selection | None = None  # None: the user named the method
    pretrained: Pretrained | None = None  # outcome of self-supervised pre-training
    pretraining: Settings | None = None  # settings of that pre-training


def record_of(
    images: ImageSet,
    request: FitRequest,
    decision: Decision,
    learned: TrainingResult,
    seconds: float,
) -> dict[str, Any]:
    """Return the content of run.json; docs/design.md lists its keys.

    `test` and `label_next` are filled in later.
    """
    settings, task, _, assessment, selection, pretrained, pretraining = decision
    backbone = learned.predictor.model.backbone
    doubted = assessment.doubted(task.images) if assessment is not None else None
    record: dict[str, Any] = {
        "handful": __version__,
        "command": [redacted(word) for word in request.command],
        "seed": request.seed,
        "seconds": round(seconds, 2),
        "data": {
            "source": redacted(images.source),
            "images": len(images) + (len(images.test) if images.test is not None else 0),
            "labeled": len(images.labeled),
            "unlabeled": len(images.unlabeled),
            "test": len(images.test) if images.test is not None else 0,
            "classes": list(images.classes),
            "hash": task.images.hash,
            "boxes": boxes_in(images),
            "whole": None,
            "labels_by_folder": images.labels_by_folder,
        },
        "method": as_json(settings.method),
        "schedule": settings.as_json()["schedule"],
        "backbone": {
            **asdict(settings.backbone),
            "parameters": sum(p.numel() for p in backbone.parameters()),
            "weights": models.fingerprint(backbone),
            "origins": models.origins(backbone),
        },
        "input": {
            "size": task.size,
            "channels": task.channels,
            "aspect": task.aspect,
            "flips": task.flips,
            "value_range": learned.predictor.value_range,
        },
        "training": {
            "steps": learned.steps,
            "turns": [list(turn) for turn in learned.schedule_progress.reschedules],
            "images_seen": learned.images_seen,
            "device": devices.device().type,
            "devices": request.devices,
            "batch_per_device": _batch_per_device(settings, request.devices),
            "threads": learned.plan.threads,
            "precision": learned.plan.precision,
            "engine": learned.predictor.engine,
            "seconds": round(learned.seconds, 2),
            "collapse": asdict(learned.collapse) if learned.collapse is not None else None,
            "remark": learned.remark,
            "budget": request.budget,
        },
        "estimate": assessment.estimate.as_json(images.classes) if assessment is not None else None,
        "members": _members(selection, learned),
        "label_issues": None if doubted is None else len(doubted),
        "forecast": [asdict(row) for row in assessment.forecast] if assessment is not None else [],
        "label_next": [],
        "test": None,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "onnxruntime": ONNX_RUNTIME_VERSION,
        },
        "choice": _selection_rows(selection, request.origins),
        "fixed": request.fixed if selection is not None else {},
        "init": task.init.hash if task.init is not None else None,
        "stage": None,
        "prior": _shares_by_name(assessment, images.classes),
        "prior_from": "given" if isinstance(request.prior, Mapping) else request.prior or LABELED,
        "after": _earlier_run(request.after),
    }
    if pretrained is not None and pretraining is not None:
        record |= {"method": as_json(pretraining.method), "schedule": pretrained.record["schedule"]}
        record["backbone"] |= asdict(pretraining.backbone)
        record["stage"] = pretrained.record["training"] | {
            "collapse": pretrained.record["collapse"]
        }
    return record


def _members(selection: Selection | None, learned: TrainingResult) -> list[dict[str, Any]]:
    """Return what each member of an ensemble is; none of a single classifier."""
    if selection is None:
        return []
    return [
        {
            "method": as_json(one.settings.method),
            "backbone": asdict(one.settings.backbone),
            "size": one.task.size,
            "precision": fitted.predictor.precision_here() if fitted.predictor.frozen else "fp32",
            "engine": fitted.predictor.engine,
        }
        for one, fitted in zip(selection.selected.members, learned.members, strict=True)
    ]


def _batch_per_device(settings: Settings, devices: int) -> int | None:
    return None if settings.schedule is None else settings.schedule.batch // devices


def _selection_rows(selection: Selection | None, origins: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row for every candidate; none where the user named the method.

    Accuracy and interval are those out of fold, on the folds that all candidates share, without
    any correction: so the differences between rows are the ones that were compared.
    """
    if selection is None:
        return []
    rows = [
        {
            **_candidate_row(evaluated.candidate, evaluated.seconds, verdict),
            **seen_out_of_fold(evaluated.out, origins, LEVEL),
            "chosen": evaluated is selection.selected,
        }
        for evaluated, verdict in zip(selection.evaluated, selection.verdicts, strict=True)
    ]
    nothing = {"accuracy": None, "low": None, "high": None, "level": LEVEL}
    rows += [
        {**_candidate_row(left.candidate, left.seconds, left.why), **nothing, "chosen": False}
        for left in selection.left
    ]
    return rows


def _candidate_row(candidate: Candidate, seconds: float, verdict: str) -> dict[str, Any]:
    return {
        "method": candidate.method,
        "backbone": candidate.backbone,
        "size": candidate.size,
        "seconds": round(seconds, 2),
        "verdict": verdict,
    }


def _shares_by_name(
    assessment: Assessment | None, classes: Sequence[str]
) -> dict[str, float] | None:
    if assessment is None or assessment.shares is None:
        return None
    return dict(zip(classes, assessment.shares, strict=True))


def _earlier_run(after: Run | None) -> dict[str, Any] | None:
    """Return fingerprint, number of labels and estimate of the run given as `after`."""
    if after is None:
        return None
    return {
        "fingerprint": after.record["fingerprint"],
        "labeled": after.record["data"]["labeled"],
        "estimate": after.estimate,
    }
