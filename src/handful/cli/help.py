"""Help of a command: what it does, examples, then options in groups, one line or two each."""

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, Signature, cleandoc, signature
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from handful.cli.options import DATA, EXPERT, RESULT, TIME
from handful.cli.terminal import set_verbosity

_GROUPS = ("Options", DATA, TIME, RESULT, EXPERT)
_WIDTH = 80

Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Print the result and errors only.", rich_help_panel=RESULT),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", help="Print how the result came about.", rich_help_panel=RESULT
    ),
]


class HelpCommand(TyperCommand):
    """A command whose help is plain text of 80 columns, without types and negative flags."""

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
        for name in _GROUPS:
            rows = [row for row in map(_row, self.get_params(ctx)) if row and row[0] == name]
            if rows:
                with formatter.section(name):
                    formatter.write_dl([(left, right) for _, left, right in rows], col_max=24)


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
