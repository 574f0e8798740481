"""Class shares among the unlabelled images of a task, seen by a head that learned the labels only.

A model that aligned its pseudo-labels to class shares predicts these shares again, right or wrong.
"""

from handful.methods.base import Fitted, Method, Task
from handful.methods.class_shares import ClassShares
from handful.methods.deep_propagation import DeepPropagation
from handful.methods.ensemble import Ensemble
from handful.methods.fine_tuning import FineTuning
from handful.methods.first_features import shares_seen


def pool_shares(method: Method, task: Task, precision: str) -> ClassShares | None:
    """The class shares with their uncertainty; None for a trained method that aligns to none."""
    aligned = isinstance(method, FineTuning | DeepPropagation | Ensemble) or getattr(
        method, "align", False
    )
    return shares_seen(task, precision) if aligned or isinstance(method, Fitted) else None
