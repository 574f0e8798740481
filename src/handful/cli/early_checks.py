"""Check what was typed before anything slow is imported, and before any work."""

from pathlib import Path

from handful.errors import HandfulError
from handful.text import did_you_mean, similar_file

# As in `handful.methods.METHODS`, which takes seconds to import; a test compares them.
METHOD_NAMES = (
    "supervised", "features", "mlp_head", "self_training", "propagation", "gaussian_mixture",
    "fine_tuning", "deep_propagation", "pseudo_label", "mean_teacher", "uda", "fixmatch",
    "softmatch", "autoencoder", "simclr", "vicreg", "cmc",
)  # fmt: skip
_CHOICES = {
    "method": ("auto", *METHOD_NAMES),
    "estimate": ("folds", "none"),
    "precision": ("auto", "int8", "fp32", "bf16"),
    "aspect": ("crop", "pad", "stretch"),
}


def check_choices(**given: str | None) -> None:
    """Raise HandfulError for a value that an option does not take; None is not checked."""
    for name, value in given.items():
        known = _CHOICES[name]
        if value is not None and value not in known:
            question = did_you_mean(value, known) if name == "method" else ""
            hint = (
                f".{question} There are {', '.join(known)}"
                if question
                else (f"; choose one of {', '.join(known)}")
            )
            raise HandfulError(f"no {name} {value!r}{hint}")


def check_folders_given(labels: Path | None, *folders: Path | None) -> None:
    """Raise HandfulError unless the label file and the folders of earlier work exist."""
    if labels is not None and not labels.expanduser().exists():
        raise HandfulError(f"no file {str(labels)!r}; check the path{similar_file(labels)}")
    for folder in folders:
        if folder is not None and not folder.expanduser().is_dir():
            raise HandfulError(f"no folder {str(folder)!r}; check the path{similar_file(folder)}")


def check_left(folder: Path, by: str) -> None:
    """Raise HandfulError unless there is anything at the place of what a command left."""
    if not folder.expanduser().exists():
        raise HandfulError(
            f"no folder {str(folder)!r}; give the folder that {by} left{similar_file(folder)}"
        )


def check_run_folder(out: Path) -> None:
    """Raise HandfulError if `out` is a file, or a folder with files that no run left."""
    if out.is_symlink() and not out.exists():
        raise HandfulError(f"{out} is a link to nothing; give --out another folder")
    if out.exists() and not out.is_dir():
        raise HandfulError(f"{out} is a file; give --out a folder that is new or empty")
    if not out.exists():
        return
    names = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    if any((out / stage / "run.json").exists() for stage in (".new", ".better")):
        return  # a replacement that was interrupted, and is finished first
    if names and not names & {"run.json", "checkpoint"}:
        raise HandfulError(f"{out} holds other files; give --out a folder that is new or empty")


def check_cluster(on: str | None, **excluded: object) -> None:
    """Raise HandfulError for a wrong --on, without Ray, or with an option that excludes it.

    Args:
        excluded: such options, by name; None and False are not given.
    """
    if on is None:
        return
    from handful.clusters import check_address, check_installed

    check_address(on)
    check_installed()
    for name, value in excluded.items():
        if value not in (None, False):
            option = f"--{name.replace('_', '-')}"
            raise HandfulError(f"--on does not go with {option}; leave one of the two out")
