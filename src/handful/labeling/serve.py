"""Serve a page on this machine until it is stopped."""

import socket
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from handful.data import decode
from handful.errors import HandfulError
from handful.labeling.server import Page, application
from handful.sockets import LOOPBACK, listening

OPEN_NETWORK = (
    "--host {host} lets other machines reach the page. The connection is not encrypted: whoever "
    "can listen in sees the images, and can take over the page. Add --allow-network if that is "
    "right; else leave --host out, and reach this machine with ssh -L {port}:127.0.0.1:{port}"
)


def check_host(host: str, port: int, allow_network: bool) -> None:
    """HandfulError for a host that others can reach, unless that is allowed."""
    if host not in LOOPBACK and not allow_network:
        raise HandfulError(OPEN_NETWORK.format(host=host, port=port or 8000))


@contextmanager
def listening_server(
    page: Page, host: str, port: int
) -> Iterator[tuple[uvicorn.Server, list[socket.socket], str]]:
    """The server of a page, not running yet, its sockets, which listen, and the address to open.

    Raises:
        HandfulError: the port cannot be used.
    """
    found = listening(host, port, 128, "leave --port out, or give another")
    try:
        port = found.getsockname()[1]
        named = f"[{host}]" if ":" in host else host
        names = {named, "localhost"} if host in LOOPBACK else {named, socket.gethostname()}
        guard = application(page, frozenset(names), port)
        config = uvicorn.Config(
            guard,
            log_level="error",
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            http="h11",
            loop="asyncio",
            timeout_graceful_shutdown=1,
        )
        shown = named if host != "0.0.0.0" else socket.gethostname()
        yield uvicorn.Server(config), [found], f"http://{shown}:{port}/?token={guard.token}"
    finally:
        found.close()


def serve(page: Page, host: str, port: int, browser: bool, say: Callable[[str], None]) -> None:
    """Serve until Ctrl-C; every answered label is on disk, and the label file is written last."""
    try:
        with decode.guarded(), listening_server(page, host, port) as (server, sockets, address):
            say(f"labelling page: {address}")
            if browser:
                threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
            server.run(sockets=sockets)
    except KeyboardInterrupt:
        pass
    finally:
        close(page)


def close(page: Page) -> None:
    """Stop what runs beside the page, and write the label file."""
    page.fitting.stop()
    page.learner.stop()
    page.session.close()
