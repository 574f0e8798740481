"""handful: the best image classifier that a handful of labels allow, and how good it is."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Classifier", "HandfulError", "ImageSet", "Run", "embed", "fit", "load", "open_run"]

if TYPE_CHECKING:
    from handful.data.imageset import ImageSet
    from handful.data.sources import load
    from handful.embedding import embed
    from handful.errors import HandfulError
    from handful.estimator import Classifier
    from handful.job import fit
    from handful.results import Run, open_run

_HOME = {
    "Classifier": "handful.estimator",
    "HandfulError": "handful.errors",
    "ImageSet": "handful.data.imageset",
    "load": "handful.data.sources",
    "embed": "handful.embedding",
    "fit": "handful.job",
    "Run": "handful.results",
    "open_run": "handful.results",
}


def __getattr__(name: str) -> Any:
    """Import on first use: `import handful` and `handful --help` stay free of torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'handful' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
