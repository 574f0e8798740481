"""Keep the best classifier so far in the run folder while `auto` goes on."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from handful.methods.base import Fitted
from handful.pipeline.artifacts import PREDICTIONS, RUN_LAYOUT
from handful.pipeline.assess import assess
from handful.pipeline.auto.candidates import HEADS_WITH_POOL
from handful.pipeline.auto.evaluated import Evaluated
from handful.pipeline.auto.select import Selection
from handful.pipeline.grouping import Grouping
from handful.pipeline.last_fit import train_on_all_labels
from handful.pipeline.record import Decision, FitRequest
from handful.pipeline.replacement import BETTER, already_replaced, put_in_place
from handful.pipeline.run import Run, read_record, write_run
from handful.pipeline.save import run_of, save_artifacts, save_thumbnails
from handful.pipeline.summary import group_count
from handful.progress import Say, silent
from handful.text import counted, so_far, withheld


@dataclass(eq=False)
class BestSoFar:
    """The interim run in a folder, replaced whenever a better head on features is known.

    A trained network is not fitted to all labels before the choice is made: that takes too long.

    Args:
        folder: holds an interim run.
    """

    folder: Path
    request: FitRequest
    grouping: Grouping
    pictures: bool
    say: Say
    _kept: dict[str, Any] = field(init=False)  # record of the interim run

    def __post_init__(self) -> None:
        self._kept = read_record(self.folder)

    def consider(self, selection: Selection) -> None:
        """Replace the interim run if a better one is known, or the pool can be predicted now."""
        best = selection.selected
        if not isinstance(best.settings.method, Fitted):
            return
        images, answers = best.task.images, _pool_is_known(selection)
        assessment = None
        if self.request.estimate:
            assessment = assess(
                best.out, self.request.origins, self.request.shares, selection.for_correction
            )
        accuracy = None if assessment is None else assessment.estimate.accuracy
        if not self._is_better(best, accuracy) and (
            answers <= (self.folder / PREDICTIONS).exists()
        ):
            return
        decision = Decision(best.settings, best.task, best.candidate.plan, assessment, selection)
        decision, learned = train_on_all_labels(decision, self.request, None, silent)
        run = run_of(images, self.request, decision, learned, self.grouping)
        fingerprint = self._kept["fingerprint"]
        run.record |= {"fingerprint": fingerprint, "interim": True}
        built = self.folder / BETTER
        shutil.rmtree(built, ignore_errors=True)  # what a killed process began
        built.mkdir()
        save_artifacts(run, decision, self.request, built, False, answers)
        write_run(run, built, learned.history)
        put_in_place(self.folder, RUN_LAYOUT, self.say, BETTER)
        already_replaced(self.folder, fingerprint)
        before, self._kept = self._kept["estimate"], run.record
        self._report(run, answers)
        self._explain(run.estimate, before, selection)
        if self.pictures:  # large photos take seconds: the answers are there before
            save_thumbnails(decision, self.request, self.folder)

    def _is_better(self, found: Evaluated, accuracy: float | None) -> bool:
        """Return whether a head has learned more labels than the kept one, or is right more often.

        Where a fit goes on, the heads are evaluated again, and the kept one may be ahead of them.
        """
        kept = self._kept
        if len(found.task.images.labeled) > kept["data"]["labeled"]:
            return True
        if found.candidate.method == kept["method"]["name"]:
            return False
        before = (kept["estimate"] or {}).get("accuracy")
        return before is None or accuracy is None or accuracy > before

    def explain(self, run: Run, selection: Selection) -> None:
        """Say why the figure of the final run is below that of the kept one, if it is."""
        self._explain(run.estimate, self._kept["estimate"], selection)

    def _explain(
        self,
        now: Mapping[str, Any] | None,
        before: Mapping[str, Any] | None,
        selection: Selection,
    ) -> None:
        if now is not None and before is not None:
            if told := why_lower(now, before, len(selection.evaluated)):
                self.say(told)

    def _report(self, run: Run, answers: bool) -> None:
        figure = (
            "" if run.estimate is None else f": {so_far(run.estimate, group_count(run.record))}"
        )
        others, pool = "", run.record["data"]["unlabeled"]
        if answers and pool:
            others = f"; {counted(pool, 'other image')} classified: {self.folder / PREDICTIONS}"
        self.say(f"best so far, {run.record['method']['name']}{figure}{others}")


def why_lower(now: Mapping[str, Any], before: Mapping[str, Any], tried: int) -> str:
    """Why an accuracy is below the one that was said before; "" where none of both is said so.

    Args:
        now, before: estimates as in run.json.
        tried: number of methods that the present one was selected from.
    """
    if withheld(now) or withheld(before):
        return ""
    least, most = (round(100 * one["accuracy"]) for one in (now, before))
    if least >= most:
        return ""
    choice = f", and this one allows for the choice among the {tried} methods that were tried"
    return (
        f"about {least} % is below the {most} % said before: an estimate moves by chance"
        f"{choice * (tried > 1)}"
    )


def _pool_is_known(selection: Selection) -> bool:
    """Return whether the features of all images without a label are in the cache."""
    pool = len(selection.selected.task.images.unlabeled)
    for this in selection.evaluated:
        if this.candidate.method in HEADS_WITH_POOL and this.candidate.backbone == (
            selection.selected.candidate.backbone
        ):
            return int(this.candidate.settings["limit"]) >= pool
    return False
