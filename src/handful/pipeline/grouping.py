"""Group the images of a fit, as typed or as found, and say what that does to the estimate."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from handful.data.grouping.find import Found, find_groups
from handful.data.grouping.rules import AUTO, NONE, grouped_by_rule, linked
from handful.data.imageset import ImageSet
from handful.pipeline.assess import Assessment
from handful.progress import Reporter
from handful.text import NO_FIGURE, withheld

FEWEST_ALONE = 20  # images without another of their scene below which no figure is given
SHOWN = 3  # signs named in a sentence, at most


@dataclass(frozen=True, eq=False)
class Grouping:
    """How the labelled images of a fit are grouped."""

    asked: str  # none, auto, folder or a regular expression
    by: str  # "source", "copies", "found" or the rule
    labels: int
    scenes: int  # groups among the labelled images
    found: Found | None = None  # where groups were looked for

    def as_json(self, assessment: Assessment | None) -> dict[str, Any]:
        """For the record of the run."""
        found = self.found
        likely = None if found is None or found.likely is None else found.likely
        return {
            "asked": self.asked,
            "by": self.by,
            "labels": self.labels,
            "scenes": self.scenes,
            "signs": [] if found is None else list(found.signs),
            "likely": None if likely is None else len(np.unique(likely)),
            "likely_signs": [] if found is None else list(found.likely_signs),
            "likely_accuracy": self.accuracy_if_likely(assessment),
        }

    def accuracy_if_likely(self, assessment: Assessment | None) -> float | None:
        """The estimate, if the groups that are likely are true; None where too few images tell.

        Images that are alone in their likely group were predicted without any other image of their
        scene, whatever the folds were. So the estimate is moved by how much less often they are
        right than all images.
        """
        if assessment is None or assessment.estimate.accuracy is None:
            return None
        if self.found is None or self.found.likely is None:
            return None
        number = np.unique(self.found.likely, return_inverse=True)[1]
        counted = np.array([origin != "chosen" for origin in assessment.origins])
        alone = (np.bincount(number)[number] == 1) & counted
        if min(alone.sum(), (counted & ~alone).sum()) < FEWEST_ALONE:
            return None
        right = assessment.out.right
        shift = float(right[alone].mean() - right[counted].mean())
        return min(max(assessment.estimate.accuracy + shift, 0.0), 1.0)

    def caveats(self, assessment: Assessment | None) -> list[str]:
        """What was found, what it means for the estimate, and what to do, for each kind of groups.

        Args:
            assessment: with the estimate whose caveats they are; None: none was made.
        """
        if self.found is None:
            return []
        told = []
        if self.found.signs:
            told.append(
                f"{self._shown(self.found.signs)}. Images of one scene are kept together, so the "
                f"figure is for new scenes. If these images have nothing to do with each other, "
                f'fit with --groups none (in Python groups="none")'
            )
        if self.found.likely is not None:
            scenes = len(np.unique(self.found.likely))
            told.append(
                f"perhaps the {self.labels:,} labelled images show only {scenes:,} scenes: judging "
                f"by {_listed(self.found.likely_signs)}, some seem to belong together. This is not "
                f"sure, so each counts by itself. {self._if_likely(assessment)}. To keep them "
                f"together, fit with --groups folder, --groups REGEX or a column group in the "
                f"label file"
            )
        return told

    def said(self) -> str:
        """A sentence on the groups that were found, before they are used; empty without."""
        if self.found is None or not self.found.signs:
            return ""
        return f"{self._shown(self.found.signs)}; images of one scene are kept together"

    def _shown(self, signs: tuple[str, ...]) -> str:
        return (
            f"the {self.labels:,} labelled images show about {self.scenes:,} scenes, judging by "
            f"{_listed(signs)}"
        )

    def _if_likely(self, assessment: Assessment | None) -> str:
        """What the groups that are likely would mean for the figure."""
        then, why = self.accuracy_if_likely(assessment), "unknown"
        if assessment is not None:
            why = withheld(assessment.estimate.figures)
        if assessment is None or then is None or why in NO_FIGURE:
            return "If they do, the figure may be too high"
        now = assessment.estimate.accuracy
        if now is not None and then >= now:
            return (
                "Images that seem to belong to no other are recognised as often, so the figure "
                "should hold"
            )
        rather = "" if why else f" rather than {100 * float(now or 0):.0f} %"
        return f"If they do, the figure for new scenes is about {100 * then:.0f} %{rather}"


def group_images(
    images: ImageSet, rule: str | None, wanted: bool, reporter: Reporter
) -> tuple[ImageSet, Grouping]:
    """Return the images, grouped, and how.

    Args:
        rule: none, auto (also None), folder or a regular expression. Groups that the source gives,
            in a column of the label file for example, count whatever the rule.
        wanted: whether groups are looked for with auto: without folds they change nothing.
    """
    asked = rule or AUTO
    found = None
    if images.grouped_by == "source" and images.groups is not None:
        if rule not in (None, AUTO):
            reporter.say(f"groups come with the images, so --groups {rule} is not used")
    elif asked not in (NONE, AUTO):
        if images.grouped_by != asked:
            images = grouped_by_rule(images, asked)
    elif asked == AUTO and wanted:
        found = find_groups(images[images.labeled], reporter.track)
        images = _with_found(images, found)
    labels = len(images.labeled)
    groups = None if images.groups is None else images.groups[images.labeled]
    scenes = labels if groups is None else len(np.unique(groups))
    by = "copies" if images.groups is None else images.grouped_by
    grouping = Grouping(asked, by, labels, scenes, found)
    if said := grouping.said():
        reporter.say(said)
    elif by == asked:
        reporter.say(f"the {labels:,} labels are of {scenes:,} groups, by --groups {asked}")
    return images, grouping


def _with_found(images: ImageSet, found: Found) -> ImageSet:
    """The images with the groups that were found among the labelled ones joined."""
    if not found.signs:
        return images
    parts = [images] if images.test is None else [images, images.test]
    before = [part.groups for part in parts if part.groups is not None]
    total = sum(map(len, parts))
    groups = np.concatenate(before) if len(before) == len(parts) else np.arange(total)
    first: dict[int, int] = {}
    labeled = images.labeled.tolist()
    pairs = [
        (first.setdefault(int(g), at), at) for g, at in zip(found.groups, labeled, strict=True)
    ]
    groups = linked(groups, np.array(pairs, np.int64).reshape(-1, 2))
    n = len(images)
    test = images.test and replace(images.test, groups=groups[n:], grouped_by="found")
    return replace(images, groups=groups[:n], grouped_by="found", test=test)


def _listed(signs: tuple[str, ...]) -> str:
    more = f" and {len(signs) - SHOWN} more signs" if len(signs) > SHOWN else ""
    return "; ".join(signs[:SHOWN]) + more
