"""The command line: each command parses its options, calls one function and prints the result.

Every command has a file here and a place in `COMMANDS`. Slow imports are made inside the commands.
"""

import io
import os
import sys
import traceback
import warnings
from typing import Annotated, NoReturn

import typer

from handful._version import __version__
from handful.cli.bug_report import bug_report
from handful.cli.cache import cache
from handful.cli.compare import compare
from handful.cli.data import data
from handful.cli.embed import embed
from handful.cli.evaluate import evaluate
from handful.cli.export import export
from handful.cli.failures import (
    INTERRUPTED,
    TERMINATED,
    sigterm_as_interrupt,
    stopped_message,
    user_message,
)
from handful.cli.fit import fit
from handful.cli.help import HelpCommand, HelpGroup, with_verbosity
from handful.cli.label import label
from handful.cli.labels import labels
from handful.cli.merge import merge
from handful.cli.methods import methods
from handful.cli.predict import predict
from handful.cli.pretrain import pretrain
from handful.cli.recipes import recipes
from handful.cli.report import report
from handful.cli.reproduce import reproduce
from handful.cli.serve import serve
from handful.cli.verbosity import quiet
from handful.errors import HandfulError
from handful.progress import Important
from handful.text import for_terminal

# In the order of the help.
COMMANDS = (
    label, fit, predict, export, serve, data, report, evaluate, methods, compare, embed, merge,
    pretrain, recipes, reproduce, cache, bug_report,
)  # fmt: skip

START = """\
handful trains an image classifier from a few labels, and says how good it is.

Start with one of these:

  handful label photos/                look at your photos and label some of them
  handful fit photos/                  train on labelled photos, classify the others
  handful predict photos-run/ more/    classify more photos

Without photos of your own: handful fit digits --per-class 10
All commands: handful --help. Options of one: handful fit --help."""

app = typer.Typer(
    name="handful",
    cls=HelpGroup,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Train the best image classifier that a handful of labels allow, and know how good it is.

    Try it: handful fit digits --per-class 10""",
)
for command in COMMANDS:
    app.command(cls=HelpCommand)(with_verbosity(command))
app.add_typer(labels, name="labels")


@app.callback(invoke_without_command=True)
def _main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", "-V", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"handful {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(START)
    else:
        _set_font_cache()


def main() -> None:
    """Run the command line.

    Exit status: 0 success, 1 a fault of handful (with a traceback), 2 an error that the user can
    repair, 130 interrupted, 143 terminated.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name need not be valid Unicode
    with sigterm_as_interrupt() as terminated, warnings.catch_warnings():
        warnings.showwarning = _print_warning
        try:
            if app(standalone_mode=False) == INTERRUPTED:  # how newer typers report Ctrl-C
                raise KeyboardInterrupt
            if terminated:  # the command kept what it had
                sys.exit(TERMINATED)
        except typer.Exit as done:
            sys.exit(done.exit_code)
        except (typer.Abort, KeyboardInterrupt):
            _print_error(stopped_message(sys.argv[1:]))
            sys.exit(TERMINATED if terminated else INTERRUPTED)
        except Exception as error:
            _exit_with(error)


def _set_font_cache() -> None:
    """Let matplotlib keep its list of fonts in handful's cache, unless MPLCONFIGDIR is set.

    This is done by the command line only: a library must not change the environment.
    """
    from handful.data.cache import cache_folder

    try:
        os.environ.setdefault("MPLCONFIGDIR", str(cache_folder() / "matplotlib"))
    except (RuntimeError, HandfulError):  # no home folder: matplotlib uses a temporary folder
        return


def _exit_with(error: Exception) -> NoReturn:
    """Print one line for an error that the user can repair, else a traceback; then exit."""
    message = user_message(error)
    if message is None:
        traceback.print_exc()
        _print_error(
            "This is a fault in handful, not in what you gave it. Please report it with the "
            "lines above, the command, and what `handful bug-report` prints."
        )
        sys.exit(1)
    if os.environ.get("HANDFUL_DEBUG"):
        traceback.print_exc()
    _print_error(f"Error: {message}")
    sys.exit(2)


def _print_warning(message: Warning | str, *where: object, **more: object) -> None:
    """Print a warning as a sentence; with --quiet only those of handful, which are important."""
    if not quiet() or isinstance(getattr(message, "args", [""])[0], Important):
        _print_error(str(message))


def _print_error(text: str) -> None:
    print(for_terminal(text), file=sys.stderr)
