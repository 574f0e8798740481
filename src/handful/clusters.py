"""Run independent jobs on a Ray cluster; the only module that knows Ray (the extra `ray`).

Ray schedules the jobs, and does a job again whose process or machine was lost. What a job leaves
behind is the affair of the caller. Ray is imported only when a cluster is asked for.
"""

import logging
import os
import platform
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, NamedTuple

from handful._version import __version__
from handful.cores import cores, use_cores
from handful.errors import HandfulError
from handful.progress import Reporter, Say, silent

LOCAL = "ray"
CLIENT_PORT = 10001  # Ray's default
TRIES_AGAIN = 3  # how often a job is done again whose process was lost
PATIENCE = 10.0  # seconds in which a cluster must take a connection
AHEAD = 4  # jobs handed over for each that can run at once: bounds what waits in memory
INSTALL = "pip install 'handful[ray]'"
# Ray reads these when a cluster starts: no report of usage goes out, a job that runs out of memory
# again and again ends (by default it is repeated for ever), and jobs have the priority of the
# command (by default niceness 15, with which they hardly run beside other work).
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_task_oom_retries": str(TRIES_AGAIN),
    "RAY_worker_niceness": "0",
}


class Job(NamedTuple):
    """A call of one function."""

    key: Any  # comes back with the result
    what: str  # for messages, such as "shard 3/64"
    arguments: tuple[Any, ...]  # sent to the machine that runs the job


class _Outcome(NamedTuple):
    """What a job sends back."""

    value: Any
    said: list[str]
    error: str  # of a HandfulError; "" without one


@dataclass
class Cluster:
    """A connection to a cluster, within `cluster`."""

    ray: Any
    cpus: float  # of each job
    gpus: float
    at_once: int  # jobs that can run at the same time
    say: Say
    running: dict[Any, Job] = field(default_factory=dict)  # by what Ray returned for it

    def share(self, value: Any) -> Any:
        """A stand-in for a large argument of many jobs, which is sent to each machine once."""
        return self.ray.put(value)

    def results(
        self, function: Callable[..., Any], jobs: Iterable[Job]
    ) -> Iterator[tuple[Any, Any]]:
        """Call `function(*job.arguments, reporter=...)` for each job: (key, value), as they finish.

        What a job says is said here when it has finished. `jobs` is read as jobs finish.

        Raises:
            HandfulError: a job raised it, or its process was lost more than `TRIES_AGAIN` times.
        """
        work = self.ray.remote(_work).options(
            num_cpus=self.cpus, num_gpus=self.gpus, max_retries=TRIES_AGAIN
        )
        given = (__version__, os.getcwd(), int(self.cpus), function)
        for job in jobs:
            while len(self.running) >= AHEAD * self.at_once:
                yield self._next()
            self.running[work.remote(*given, *job.arguments)] = job
        while self.running:
            yield self._next()

    def cancel(self) -> None:
        """Stop the jobs that run."""
        for waiting in self.running:
            with suppress(Exception):  # it has ended, or the cluster is gone
                self.ray.cancel(waiting, force=True)
        self.running.clear()

    def _next(self) -> tuple[Any, Any]:
        (done, *_), _ = self.ray.wait(list(self.running), num_returns=1)
        job = self.running.pop(done)
        try:
            outcome: _Outcome = self.ray.get(done)
        except self.ray.exceptions.RayTaskError as error:
            if "No module named 'handful" in str(error):
                raise HandfulError(
                    f"handful is not installed on the cluster: install version {__version__} on "
                    f"each of its machines"
                ) from error
            raise
        except self.ray.exceptions.RayError as error:
            raise HandfulError(
                f"{job.what} was given up: its process was lost {1 + TRIES_AGAIN} times "
                f"({_first_line(error)}). The same command goes on with what is left; where memory "
                f"is short, give each machine fewer CPUs (ray start --num-cpus)"
            ) from error
        for text in outcome.said:
            self.say(text)
        if outcome.error:
            raise HandfulError(f"{job.what}: {outcome.error}")
        return job.key, outcome.value


def check_address(address: str) -> None:
    """HandfulError for what is no --on; nothing is imported or opened."""
    if address != LOCAL and not (address.startswith("ray://") and _host(address)):
        raise HandfulError(
            f"--on {address!r} is no cluster; --on ray is this machine, or the cluster of "
            f"RAY_ADDRESS, and --on ray://HOST:{CLIENT_PORT} is another"
        )


def check_installed() -> None:
    """HandfulError without Ray; it is not imported."""
    found = find_spec("ray")
    if found is None or found.origin is None:  # without a file it is a folder of that name
        raise HandfulError(f"--on needs Ray, which is not installed here: {INSTALL}")


@contextmanager
def cluster(address: str, say: Say = silent) -> Iterator[Cluster]:
    """Connect to a cluster for the length of the block.

    Args:
        address: "ray" starts one on this machine, with a CPU for each core that this process may
            use; where RAY_ADDRESS is set, as in a job of a cluster, it is that cluster.
            "ray://HOST:PORT" is a cluster elsewhere (Ray Client). A connection of this process
            that is there already is used, and stays.
        say: receives what jobs say.

    Raises:
        HandfulError: Ray is not installed, or there is no cluster at the address.
    """
    check_address(address)
    check_installed()
    import ray
    import ray.exceptions  # so that `ray.exceptions` is there

    own = not ray.is_initialized()
    if own:
        _connect(ray, address)
    nodes = None
    try:
        nodes = _cluster(ray, say)
        yield nodes
    finally:
        if nodes is not None:
            nodes.cancel()
        if own:
            ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    given = os.environ.get("RAY_ADDRESS", "") if address == LOCAL else address
    how: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if given in ("", "local"):
        how |= {"address": "local", "num_cpus": cores(), "include_dashboard": False}
    else:
        how |= {"address": given}
        _check_listening(given)
    with _settings(), _handlers_kept():
        try:
            ray.init(**how)
        except (Exception, SystemExit) as error:  # Ray raises bare ones, too
            if how["address"] == "local":
                raise HandfulError(
                    f"no Ray cluster on this machine: {_first_line(error)}. Where the machine has "
                    f"much other work, the same command may start it later"
                ) from error
            raise HandfulError(
                f"no Ray cluster {given}: {_first_line(error)}. Check the address, that its "
                f"machines have Ray {ray.__version__} and Python {platform.python_version()}, and, "
                f"where it asks for a token, RAY_AUTH_MODE=token and ~/.ray/auth_token"
            ) from error


def _cluster(ray: Any, say: Say) -> Cluster:
    there = ray.cluster_resources()
    cpus, gpus = int(there.get("CPU", 0)), int(there.get("GPU", 0))
    if not cpus:
        raise HandfulError("the Ray cluster has no CPU; add a machine: ray start --address=HEAD")
    if gpus:
        return Cluster(ray, _cpus_beside_a_gpu(ray.nodes()), 1, min(gpus, cpus), say)
    return Cluster(ray, 1, 0, cpus, say)


def _cpus_beside_a_gpu(nodes: list[dict[str, Any]]) -> int:
    """CPUs that every machine with GPUs has for each of them; a task that asks for more waits."""
    there = [node["Resources"] for node in nodes if node["Alive"]]
    shares = [int(one.get("CPU", 0) // one["GPU"]) for one in there if one.get("GPU", 0) >= 1]
    return max(1, min(shares, default=1))


def _host(address: str) -> tuple[str, int] | None:
    """Host and port of "ray://HOST:PORT" or "HOST:PORT"; None for other text."""
    found = re.fullmatch(r"(?:ray://)?\[?([A-Za-z0-9_.:-]+?)\]?(?::(\d{1,5}))?", address)
    if found is None or not (address.startswith("ray://") or found[2]):
        return None
    port = int(found[2] or CLIENT_PORT)
    return (found[1], port) if 0 < port < 2**16 else None


def _check_listening(address: str) -> None:
    """HandfulError where nothing listens: Ray itself would try for two minutes."""
    place = _host(address)
    if place is None:  # such as RAY_ADDRESS=auto
        return
    try:
        socket.create_connection(place, PATIENCE).close()
    except OSError as error:
        raise HandfulError(
            f"nothing answers at {address} ({error.strerror or error}); check the address, and "
            f"that `ray start --head` runs there (ray:// goes to port {CLIENT_PORT})"
        ) from error


@contextmanager
def _settings() -> Iterator[None]:
    """Set what Ray reads from the environment, for the length of the block."""
    own = {name: value for name, value in SETTINGS.items() if name not in os.environ}
    os.environ.update(own)
    try:
        yield
    finally:
        for name in own:
            os.environ.pop(name, None)


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Keep the handler of SIGTERM, which Ray replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300].rstrip(".")


# --- what runs on the machines of the cluster


def _work(
    version: str, folder: str, threads: int, function: Callable[..., Any], *arguments: Any
) -> _Outcome:
    """Call the function with `threads` threads, in the folder of the same path if it is there."""
    from handful import devices

    if version != __version__:
        node = platform.node()
        error = f"{node} has handful {__version__}, and the command {version}; install the same"
        return _Outcome(None, [], error)
    with suppress(OSError):
        os.chdir(folder)
    use_cores(threads)
    devices.use_threads(threads)
    said: list[str] = []
    try:
        return _Outcome(function(*arguments, reporter=Reporter(say=said.append)), said, "")
    except HandfulError as error:
        return _Outcome(None, said, str(error))
