"""The command line: parse, call one function, print. Slow imports wait until they are needed.

Every command is a file here, and a line in `COMMANDS`.
"""

import io
import os
import sys
import traceback
from typing import Annotated, NoReturn

import typer

from handful._version import __version__
from handful.cli.cache import cache
from handful.cli.compare import compare
from handful.cli.data import data
from handful.cli.embed import embed
from handful.cli.evaluate import evaluate
from handful.cli.failures import INTERRUPTED, TERMINATED, mendable, terminating
from handful.cli.fit import fit
from handful.cli.predict import predict
from handful.cli.pretrain import pretrain
from handful.cli.recipes import recipes
from handful.cli.report import report
from handful.cli.reproduce import reproduce
from handful.data.cache import cache_folder
from handful.errors import HandfulError
from handful.text import for_terminal

# In the order of the help.
COMMANDS = (
    fit, data, compare, report, recipes, reproduce, predict, evaluate, embed, pretrain, cache,
)  # fmt: skip

app = typer.Typer(
    name="handful",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Train the best image classifier that a handful of labels allow, and know how good it is.

    Try it: `handful fit digits --per-class 10 --out run/`""",
)
for command in COMMANDS:
    app.command()(command)


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"handful {__version__}")
        raise typer.Exit


def main() -> None:
    """Exit status: 0 done, 2 the user can mend it, 1 our fault (traceback), 130 interrupted, 143
    terminated."""
    _keep_out_of_the_home()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name need not be valid Unicode
    with terminating() as terminated:
        try:
            if app(standalone_mode=False) == INTERRUPTED:  # how newer typers report Ctrl-C
                raise KeyboardInterrupt
        except typer.Exit as done:
            sys.exit(done.exit_code)
        except (typer.Abort, KeyboardInterrupt):
            _complain("stopped; the same command goes on from the last checkpoint")
            sys.exit(TERMINATED if terminated else INTERRUPTED)
        except Exception as error:
            _report(error)


def _keep_out_of_the_home() -> None:
    """Where matplotlib keeps its list of fonts: in handful's cache, unless it was told where.

    Only for the command line. A library may not change the settings of the program it is part of.
    """
    try:
        os.environ.setdefault("MPLCONFIGDIR", str(cache_folder() / "matplotlib"))
    except (RuntimeError, HandfulError):  # no home: matplotlib then takes a temporary folder
        return


def _report(error: Exception) -> NoReturn:
    """One line for what the user can mend; a traceback for what is our fault."""
    message = mendable(error)
    if message is None:
        traceback.print_exc()
        _complain(
            "This is a fault in handful, not in what you gave it. Please report it with the "
            "lines above, the command, and what `handful --version` prints."
        )
        sys.exit(1)
    if os.environ.get("HANDFUL_DEBUG"):
        traceback.print_exc()
    _complain(f"Error: {message}")
    sys.exit(2)


def _complain(text: str) -> None:
    print(for_terminal(text), file=sys.stderr)
