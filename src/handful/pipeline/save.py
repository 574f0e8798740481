"""Write the files of a run folder beside model and record."""

import shutil
from pathlib import Path

from handful.data.imageset import ImageSet
from handful.pipeline.artifacts import PICTURES, PREDICTIONS, STAGE_HISTORY
from handful.pipeline.grouping import Grouping
from handful.pipeline.pool_answers import for_pool
from handful.pipeline.pool_images import save_pool
from handful.pipeline.pretrained import HISTORY
from handful.pipeline.record import Decision, FitRequest, record_of
from handful.pipeline.run import Run
from handful.pipeline.run_tables import (
    save_issues,
    save_label_next,
    save_labels,
    save_out_of_fold,
)
from handful.pipeline.thumbnails import save_pictures
from handful.training.trainer import TrainingResult


def run_of(
    images: ImageSet,
    request: FitRequest,
    decision: Decision,
    learned: TrainingResult,
    grouping: Grouping,
    seconds: float = 0.0,
) -> Run:
    """Return the run of a decision that was trained on all labels, not saved yet."""
    record = record_of(images, request, decision, learned, seconds)
    record["groups"] = grouping.as_json(decision.assessment)
    if record["estimate"] is not None:
        caveats = grouping.caveats(decision.assessment)
        record["estimate"]["caveats"] = [*caveats, *record["estimate"]["caveats"]]
    return Run(record, learned.predictor)


def save_artifacts(
    run: Run,
    decision: Decision,
    request: FitRequest,
    folder: Path,
    pictures: bool,
    answers: bool = True,
) -> None:
    """Write the files of the run folder beside model and record: tables and thumbnails.

    Args:
        answers: predict the images without a label, and list those to label next.
    """
    task, assessment = decision.task, decision.assessment
    pretrained = decision.pretrained.folder if decision.pretrained is not None else None
    save_labels(task.images, folder, request.origins)
    answering = for_pool(run, decision, request) if answers else run
    if answers and len(task.images.unlabeled):
        pool = task.images[task.images.unlabeled]
        answering.predict(pool, task.track).to_csv(folder / PREDICTIONS)
        if answering is not run:
            save_pool(pool, folder)
    # The cache, where the pre-training is, may have been cleared meanwhile.
    if pretrained is not None and (pretrained / HISTORY).exists():
        shutil.copyfile(pretrained / HISTORY, folder / STAGE_HISTORY)
    if answers:
        run.record["label_next"] = save_label_next(
            answering, task, request.seed, folder, task.track
        )
    if assessment is not None:
        if (doubted := assessment.doubted(task.images)) is not None:
            save_issues(doubted, task.images, folder)
        save_out_of_fold(assessment.probabilities, task.images, folder)
    if pictures:
        save_thumbnails(decision, request, folder)
    else:
        (folder / PICTURES).unlink(missing_ok=True)


def save_thumbnails(decision: Decision, request: FitRequest, folder: Path) -> None:
    """Write the thumbnails of the report of a run, whose tables the folder holds."""
    assessment, pretrained = decision.assessment, decision.pretrained
    save_pictures(
        folder,
        decision.task,
        decision.settings.method,
        None if assessment is None else assessment.probabilities,
        (None if assessment is None else assessment.doubted(decision.task.images)) or [],
        request.seed,
        None if pretrained is None else pretrained.folder,
    )
