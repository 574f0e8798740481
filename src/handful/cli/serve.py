"""`handful serve`: answer over HTTP which class a picture is of."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from handful.cli.early_checks import check_left
from handful.cli.options import AllowNetwork, Host
from handful.text import for_terminal


def serve(
    run: Annotated[
        Path,
        typer.Argument(
            help="A folder that `handful fit` or `handful export` left, or a model file in it."
        ),
    ],
    port: Annotated[int, typer.Option(help="Port; 0: a free one.", min=0, max=65535)] = 8000,
    host: Host = "127.0.0.1",
    allow_network: AllowNetwork = False,
    name: Annotated[
        list[str] | None,
        typer.Option(
            help="Another name by which it may be called, as in --name cats.example.org behind a "
            "proxy; may be repeated.",
            metavar="HOST",
            show_default=False,
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            help="Only requests with the header `Authorization: Bearer TOKEN` get an answer. Other "
            "users of a machine see what is typed: set the variable instead.",
            envvar="HANDFUL_TOKEN",
            show_default=False,
        ),
    ] = None,
    abstain: Annotated[
        float | None,
        typer.Option(
            help="Give a label only where at least this share of labels is right, as in 0.95.",
            show_default=False,
        ),
    ] = None,
    none_of_these: Annotated[
        bool,
        typer.Option(
            "--none-of-these", help="Give no label to images unlike any that the run has seen."
        ),
    ] = False,
    max_mb: Annotated[int, typer.Option(help="Megabytes of a request, at most.", min=1)] = 32,
    seconds: Annotated[
        float, typer.Option(help="Time for a request; then it is told to come again.", min=0.1)
    ] = 30.0,
) -> None:
    """Serve a run: POST pictures to /predict, or drop them on the page at /.

    /predict takes the bytes of one picture, or a form with several files, and answers in JSON.
    /healthz tells whether it runs, /metrics what was asked of it, for Prometheus. Ctrl-C stops it,
    and requests that run then are answered.

    Example: handful serve run/ & curl --data-binary @cat.jpg http://127.0.0.1:8000/predict
    """
    check_left(run, "`handful fit` or `handful export`")

    from handful.serving.guard import Limits
    from handful.serving.serve import (
        check_host,
        check_token,
        names_of,
        open_model,
        service_of,
    )
    from handful.serving.serve import serve as serve_model
    from handful.sockets import LOOPBACK, listening

    def say(text: str) -> None:
        print(for_terminal(text), file=sys.stderr, flush=True)

    check_host(host, allow_network)
    check_token(token)
    found = listening(host, port, 2048, "give another --port, or 0 for any")
    try:
        model = open_model(run, say)
        limits = Limits(body=max_mb * 2**20, seconds=seconds)
        service = service_of(model, abstain, none_of_these, limits)
    except BaseException:
        found.close()
        raise
    port = found.getsockname()[1]
    if host not in LOOPBACK and token is None:
        say("everybody in this network can use the service: there is no --token")
    shown = f"[{host}]" if ":" in host else host
    say(f"serving {run} at http://{shown}:{port}/")
    serve_model(service, [found], names_of(host, port, name or []), token)
