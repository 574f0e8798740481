"""The record of a fit, `run.json`: what was made of what, how, and how good it is."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch

from handful import devices, models
from handful._version import __version__
from handful.data.imageset import ImageSet
from handful.evaluation.label_shift import LABELED
from handful.methods.base import Task, as_json
from handful.pipeline.assess import Judged
from handful.pipeline.auto.select import Choice
from handful.pipeline.pretrained import Pretrained
from handful.pipeline.run import Run
from handful.training.plan import Plan
from handful.training.settings import Settings
from handful.training.trainer import TrainingResult


@dataclass(frozen=True)
class Asked:
    """What a fit was asked for beside images, method and settings."""

    seed: int
    origin: Sequence[str]  # of every label: random, chosen or unknown
    estimate: bool
    prior: Mapping[str, float] | str | None
    shares: Sequence[float] | None  # of the classes among new images, where they are given
    budget: float | None  # seconds
    after: Run | None
    command: Sequence[str]


class Decided(NamedTuple):
    """What is fitted to all labels, how, and what the labels told of it beforehand."""

    chosen: Settings
    task: Task
    planned: Plan
    judged: Judged | None  # None where no estimate was asked for
    choice: Choice | None = None  # None where a method was asked for
    stage: Pretrained | None = None  # without labels, before
    before: Settings | None = None  # of that stage


def record_of(
    images: ImageSet, asked: Asked, decided: Decided, learned: TrainingResult, seconds: float
) -> dict[str, Any]:
    """Its keys are in docs/design.md. Test score and images to label next come later."""
    chosen, task, _, judged, choice, stage, before = decided
    backbone = learned.predictor.model.backbone
    record: dict[str, Any] = {
        "handful": __version__,
        "command": list(asked.command),
        "seed": asked.seed,
        "seconds": round(seconds, 2),
        "data": {
            "source": images.source,
            "images": len(images) + (len(images.test) if images.test is not None else 0),
            "labeled": len(images.labeled),
            "unlabeled": len(images.unlabeled),
            "test": len(images.test) if images.test is not None else 0,
            "classes": list(images.classes),
            "hash": task.images.hash,
        },
        "method": as_json(chosen.method),
        "schedule": chosen.as_json()["schedule"],
        "backbone": {
            **asdict(chosen.backbone),
            "parameters": sum(p.numel() for p in backbone.parameters()),
            "weights": models.fingerprint(backbone),
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
            "threads": learned.plan.threads,
            "precision": learned.plan.precision,
            "seconds": round(learned.seconds, 2),
            "collapse": asdict(learned.collapse) if learned.collapse is not None else None,
            "remark": learned.remark,
            "budget": asked.budget,
        },
        "estimate": judged.estimate.as_json(images.classes) if judged is not None else None,
        "label_issues": len(judged.issues) if judged is not None else None,
        "forecast": [asdict(row) for row in judged.forecast] if judged is not None else [],
        "label_next": [],
        "test": None,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "choice": _choice_rows(choice, judged),
        "init": task.init.hash if task.init is not None else None,
        "stage": None,
        "prior": _shares_by_name(judged, images.classes),
        "prior_from": "given" if isinstance(asked.prior, Mapping) else asked.prior or LABELED,
        "after": _earlier(asked.after),
    }
    if stage is not None and before is not None:
        record |= {"method": as_json(before.method), "schedule": stage.record["schedule"]}
        record["backbone"] |= asdict(before.backbone)
        record["stage"] = stage.record["training"] | {"collapse": stage.record["collapse"]}
    return record


def _choice_rows(choice: Choice | None, judged: Judged | None) -> list[dict[str, Any]]:
    """A row for every method that was tried; none where one was asked for."""
    if choice is None or judged is None:
        return []
    rows = []
    for tried, verdict in zip(choice.tried, choice.verdicts, strict=True):
        own = tried is choice.winner
        found = judged.estimate if own else judged.of(tried.out)
        rows.append(
            {
                "method": tried.candidate.method,
                "backbone": tried.candidate.backbone,
                "size": tried.candidate.size,
                **{key: getattr(found, key) for key in ("accuracy", "low", "high", "level")},
                "seconds": round(tried.seconds, 2),
                "verdict": verdict,
                "chosen": own,
            }
        )
    return rows


def _shares_by_name(judged: Judged | None, classes: Sequence[str]) -> dict[str, float] | None:
    if judged is None or judged.shares is None:
        return None
    return dict(zip(classes, judged.shares, strict=True))


def _earlier(after: Run | None) -> dict[str, Any] | None:
    """What is kept of the run that this one follows."""
    if after is None:
        return None
    return {
        "fingerprint": after.record["fingerprint"],
        "labeled": after.record["data"]["labeled"],
        "estimate": after.estimate,
    }
