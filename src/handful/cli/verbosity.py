"""How much the command that runs prints: --quiet and --verbose."""

from handful.errors import HandfulError

_asked = {"quiet": False, "verbose": False}


def set_verbosity(quiet: bool, verbose: bool) -> None:
    """Set what commands print: with `quiet` results only, with `verbose` how they came about.

    Raises:
        HandfulError: both are set.
    """
    if quiet and verbose:
        raise HandfulError("--quiet and --verbose exclude each other; leave one of them out")
    _asked.update(quiet=quiet, verbose=verbose)


def quiet() -> bool:
    return _asked["quiet"]


def verbose() -> bool:
    return _asked["verbose"]
