"""`handful methods`: what each method needs, when to use it, and what it reached."""

from typing import Annotated

import typer

from handful.cli.options import AsJson


def methods(
    name: Annotated[
        str | None, typer.Argument(help="One method; all of them by default.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the methods: what each needs, when to use it, and the accuracy that we measured.

    Without --method, `handful fit` chooses one of them itself.

    handful methods
    handful methods self_training
    """
    from handful.cli.terminal import print_json, print_methods
    from handful.pipeline.method_list import described

    rows = described(name)
    if as_json:
        print_json([row._asdict() for row in rows])
    else:
        print_methods(rows)
