"""Sockets that listen, for the pages and services of handful."""

import socket

from handful.errors import HandfulError

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})  # hosts that only this machine reaches


def listening(host: str, port: int, waiting: int, advice: str) -> socket.socket:
    """Return a socket that listens.

    Args:
        waiting: connections that may wait to be accepted.
        advice: what to do where the port cannot be used.

    Raises:
        HandfulError: the port cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sends small answers at once: else each waits 40 ms (Nagle).
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(waiting)
    except (OSError, OverflowError) as error:
        found.close()
        reason = getattr(error, "strerror", None) or error
        raise HandfulError(f"port {port} of {host} cannot be used: {reason}; {advice}") from error
    return found
