"""Help in plain text of 80 columns: what a command does, examples, then options in groups.

Typer would lay it out with rich, which takes as long to import as all else that a help needs.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from inspect import Parameter, Signature, cleandoc, signature
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from handful.cli.options import DATA, EXPERT, RESULT, TIME
from handful.cli.verbosity import set_verbosity
from handful.errors import HandfulError
from handful.text import some_of

_GROUPS = ("Options", DATA, TIME, RESULT, EXPERT)
_WIDTH = 80

Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", help="Print the result, warnings and errors only.", rich_help_panel=RESULT
    ),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", help="Print how the result came about.", rich_help_panel=RESULT
    ),
]


class HelpCommand(TyperCommand):
    """A command whose help is plain text, without types and negative flags."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As that of typer; HandfulError, in a line, for words that the command does not take."""
        ctx.allow_extra_args = True
        super().parse_args(ctx, args)
        if ctx.args:
            raise HandfulError(_too_many(self, ctx.args))
        return []

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.width = min(formatter.width, _WIDTH)
        self.format_usage(ctx, formatter)
        for part in cleandoc(self.help or "").split("\n\n"):
            formatter.write_paragraph()
            if part.startswith("    ") or part.startswith("handful "):
                for line in part.splitlines():
                    formatter.write(f"  {line.strip()}\n")
            else:
                formatter.write_text(" ".join(part.split()))
        _write_options(self.get_params(ctx), formatter)


class HelpGroup(TyperGroup):
    """A group of commands with such a help, which lists them in a line or two each."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.width = min(formatter.width, _WIDTH)
        self.format_usage(ctx, formatter)
        for part in cleandoc(self.help or "").split("\n\n"):
            formatter.write_paragraph()
            formatter.write_text(" ".join(part.split()))
        _write_options(self.get_params(ctx), formatter)
        commands = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        rows = [(name, _first_line(command)) for name, command in commands if command is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _too_many(command: TyperCommand, extra: Sequence[str]) -> str:
    """What is wrong with words that follow the arguments of a command."""
    shown = some_of([repr(word) for word in extra], 2)
    if not any(parameter.name == "source" for parameter in command.params):
        return f"{command.name} does not take {shown} (handful {command.name} --help tells more)"
    return (
        f"{command.name} takes one SOURCE, and more words follow it: {shown}; of many photos give "
        f"their folder, or a list of them: a CSV with a column file"
    )


def _write_options(parameters: Sequence[Any], formatter: Any) -> None:
    """Write the options in groups, one line or two each."""
    every = [row for row in map(_row, parameters) if row is not None]
    for name in _GROUPS:
        rows = [(left, right) for group, left, right in every if group == name]
        if rows:
            with formatter.section(name):
                formatter.write_dl(rows, col_max=24)


def _first_line(command: Any) -> str:
    """Return what a command does, in a sentence."""
    sentence: str = cleandoc(command.help or "").partition("\n")[0]
    return sentence.replace("`", "")


def _row(parameter: Any) -> tuple[str, str, str] | None:
    """Return (group, option, help) of an option; None for an argument."""
    if parameter.param_type_name != "option" or parameter.hidden:
        return None
    names = sorted(parameter.opts, key=len)
    shown = ", ".join(names)
    if not (parameter.is_flag or parameter.count):
        shown += f" {parameter.metavar or parameter.name.rstrip('_').upper()}"
    elif parameter.secondary_opts and parameter.default:
        shown = parameter.secondary_opts[0]
    elif parameter.default is None and parameter.secondary_opts:
        shown += f", {parameter.secondary_opts[0]}"
    said = parameter.help or ""
    given = parameter.default
    if (
        parameter.show_default
        and given is not None
        and not callable(given)
        and not isinstance(given, bool)
    ):
        said += f" [{given}]"
    if parameter.required:
        said += " [needed]"
    return parameter.rich_help_panel or "Options", shown, said


def with_verbosity(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with the options --quiet and --verbose."""
    parameters = list(signature(command, eval_str=True).parameters.values())
    keyword = Parameter.KEYWORD_ONLY
    own = [
        Parameter("quiet", keyword, default=False, annotation=Quiet),
        Parameter("verbose", keyword, default=False, annotation=Verbose),
    ]

    @wraps(command)
    def called(*, quiet: bool, verbose: bool, **given: Any) -> None:
        set_verbosity(quiet, verbose)
        command(**given)

    every = [one.replace(kind=keyword) for one in parameters] + own
    called.__signature__ = Signature(every)  # type: ignore[attr-defined]
    called.__annotations__ = {one.name: one.annotation for one in every}
    return called
