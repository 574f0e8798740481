"""Open a model, and serve it until it is stopped."""

import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import uvicorn

from handful.cores import cores
from handful.data import decode
from handful.data.decoding.value_range import Ranges, Scale, ValueRange
from handful.errors import HandfulError
from handful.onnx_runtime import OnnxModel
from handful.serving.conversion import converted
from handful.serving.guard import Limits
from handful.serving.service import Service, application
from handful.sockets import LOOPBACK
from handful.text import not_promised, promise_of

MODEL = "model.onnx"
GRACE = 10  # seconds that running requests have when the service is stopped
OPEN_NETWORK = (
    "--host {host} lets other machines reach the service. The connection is not encrypted. Add "
    "--allow-network if that is right, with --token unless everybody there may use it; else leave "
    "--host out"
)


def check_host(host: str, allow_network: bool) -> None:
    """HandfulError for a host that others can reach, unless that is allowed."""
    if host not in LOOPBACK and not allow_network:
        raise HandfulError(OPEN_NETWORK.format(host=host))


def check_token(token: str | None) -> None:
    """HandfulError for a token that no request can carry."""
    if token is not None and not (
        token.isascii() and token.isprintable() and token.split() == [token]
    ):
        raise HandfulError(
            "the token is empty, or has spaces or letters that a header cannot carry; take ASCII "
            "letters and digits, as `python -c 'import secrets; print(secrets.token_urlsafe())'` "
            "prints them"
        )


def open_model(folder: Path, say: Callable[[str], None]) -> OnnxModel:
    """The model in a folder that `handful export` left, or that of a run, converted and checked.

    `folder` may be the file of a model, too, such as model-int8.onnx.
    """
    if folder.is_file():
        return OnnxModel(folder)
    if (folder / MODEL).is_file():
        return OnnxModel(folder / MODEL)
    say(
        "converting the run, which takes some seconds; `handful export` does it once, and its "
        "folder can be served, too"
    )
    return OnnxModel(converted(folder))


def threshold(model: OnnxModel, target: float) -> float:
    """The confidence from which on the share `target` of the answers is right.

    HandfulError where the labels of the run do not support it.
    """
    if not 0 < target < 1:
        raise HandfulError(
            f"--abstain is how often answers are to be right, got {target}; try 0.95"
        )
    known = model.about["abstentions"]
    found = promise_of(known, target)
    if found is None:
        raise HandfulError(not_promised(known, target, "serve without --abstain"))
    return float(found["threshold"])


def scale_of(ranges: Mapping[str, Any]) -> Scale | None:
    """The range of images of more than 8 bits, from what the model says of its input."""

    def of(kind: str) -> ValueRange | None:
        return (
            ValueRange(ranges[kind][0], ranges[kind][1], kind == "real") if kind in ranges else None
        )

    whole, real = of("whole"), of("real")
    return Ranges(whole, real) if whole and real else whole or real


def service_of(
    model: OnnxModel, abstain: float | None, none_of_these: bool, limits: Limits
) -> Service:
    """The service of a model; HandfulError where it does not support what is asked."""
    if none_of_these and model.about["none_of_these"] is None:
        raise HandfulError(
            "this model does not tell what is none of its classes: its run has seen too few images"
        )
    return Service(
        model,
        scale_of(model.about["input"]["ranges"]),
        threshold=0.0 if abstain is None else threshold(model, abstain),
        none_of_these=none_of_these,
        limits=limits,
        decoders=cores(),
    )


def serve(
    service: Service,
    sockets: list[socket.socket],
    names: frozenset[str] | None,
    token: str | None,
) -> None:
    """Serve until SIGINT or SIGTERM; requests that run then are answered."""
    config = uvicorn.Config(
        application(service, names, token),
        log_level="error",
        access_log=False,
        server_header=False,
        ws="none",
        loop="asyncio",
        timeout_graceful_shutdown=GRACE,
    )
    try:
        with decode.guarded():
            uvicorn.Server(config).run(sockets=sockets)
    except KeyboardInterrupt:
        pass
    finally:
        for one in sockets:
            one.close()


def names_of(host: str, port: int, more: list[str]) -> frozenset[str] | None:
    """The names by which the service may be called; None is any, where others may reach it."""
    if host not in LOOPBACK and not more:
        return None
    own = ("127.0.0.1", "localhost", "[::1]")
    return frozenset({f"{name}:{port}" for name in own} | {name.lower() for name in more})
