"""Names of the files in a run folder, and the list of those that a new run replaces."""

from pathlib import Path

from handful.pipeline.replacement import NEW, Layout

MODEL, RECORD = "model.safetensors", "run.json"
LABELS, ISSUES = "labels.csv", "label-issues.csv"
OUT_OF_FOLD, REPORT = "out-of-fold.csv", "report.html"
LABEL_NEXT, IN_DISTRIBUTION = "label-next.csv", "familiar.safetensors"
HISTORY, STAGE_HISTORY = "history.jsonl", "stage-history.jsonl"
CHECKPOINT = "checkpoint"  # folder in a run that is not finished
ASKED = "asked.json"  # in checkpoint/: what an unfinished run was asked, by name
COMMAND = "command.json"  # in it: the command that began the run, as words
FINGERPRINT = "fingerprint.json"  # in it, as soon as a run has acquired the folder
NO_WORK = {FINGERPRINT, COMMAND, ASKED}  # names in it that nothing goes on from
PICTURES, PREDICTIONS = "pictures.json", "predictions.csv"
POOL = "pool.safetensors"
ARTIFACTS = (
    MODEL,
    HISTORY,
    STAGE_HISTORY,
    LABELS,
    ISSUES,
    LABEL_NEXT,
    IN_DISTRIBUTION,
    OUT_OF_FOLD,
    PICTURES,
    PREDICTIONS,
    POOL,
    "draw.json",
    "test.json",
    "confusion.svg",
    REPORT,
)
RUN_LAYOUT = Layout(RECORD, ARTIFACTS)


def holds_work(folder: Path) -> bool:
    """Whether a folder holds anything of an unfinished run that the same command goes on from."""
    saved = [path for build in (folder, folder / NEW) for path in (build / CHECKPOINT).glob("*")]
    return any(path.name not in NO_WORK for path in saved)
