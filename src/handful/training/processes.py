"""Start the processes of a training that several devices share, and follow them from outside.

The command starts them and trains nothing itself. So it can show the progress, pass on Ctrl-C, and
end the others when one is lost; the checkpoint is then the last one that was saved.
"""

import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.multiprocessing

from handful import devices
from handful.cores import cores, use_cores
from handful.errors import HandfulError
from handful.progress import QUIET, Reporter, Total
from handful.text import counted
from handful.training.interrupt import graceful_stop
from handful.training.loop import Diverged
from handful.training.process_group import FabricGroup
from handful.training.settings import Settings

INSTALL = "pip install 'handful[ddp]'"
_PASSED_ON = (HandfulError, Diverged)  # exceptions that the command raises too
_FAILED = 1  # exit status of a process that has said why


class Said(NamedTuple):
    """A sentence."""

    text: str


class Begun(NamedTuple):
    """Work that a bar shows has begun."""

    what: str
    total: int


class Moved(NamedTuple):
    """One part of that work is done."""

    total: int


class Ended(NamedTuple):
    """That work is done."""


class Failed(NamedTuple):
    """An exception that a process ended with."""

    at: float  # time.perf_counter()
    kind: int | None  # position in _PASSED_ON
    text: str
    trace: str


class Given(NamedTuple):
    """What every process is told, beside its work."""

    size: int  # number of processes
    meeting: str  # see FabricGroup
    stop: Any  # an event: the user asked to stop
    threads: int


def check_devices(count: int) -> None:
    """Raise HandfulError unless this machine can train on so many devices."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise HandfulError(f"devices must be 1 or more, got {count!r}")
    if count == 1:
        return
    if devices.device().type == "cuda":
        there = torch.cuda.device_count()
        has = counted(there, "GPU")
    else:
        there = cores()
        has = f"no GPU and {counted(there, 'core')}"
    if count > there:
        raise HandfulError(
            f"devices={count} is more than this machine has ({has}); choose at most {there}"
        )
    if not torch.distributed.is_available():
        raise HandfulError("this PyTorch was built without torch.distributed; leave out devices")
    found = find_spec("lightning_fabric")
    if found is None or found.origin is None:  # without a file it is a folder of that name
        raise HandfulError(f"several devices need Lightning Fabric, not installed here: {INSTALL}")


def check_divisible(settings: Settings, count: int) -> None:
    """Raise HandfulError unless a batch of the method can be divided among so many devices."""
    method, schedule = settings.method, settings.schedule
    if count == 1:
        return
    if schedule is None or not getattr(method, "divisible", False):
        raise HandfulError(
            f"{method.name} trains on one device, since its loss is not made for parts of a batch; "
            f"leave out devices"
        )
    if schedule.batch % count:
        lower = schedule.batch // count * count
        near = " or ".join(str(size) for size in (lower, lower + count) if size)
        raise HandfulError(
            f"a batch of {schedule.batch} images is not divisible by {count} devices; choose "
            f"batch={near}, or another number of devices"
        )


def divided(batch: int, count: int) -> str:
    """A batch and its parts in words; empty for one device."""
    if count == 1:
        return ""
    return f" of {batch} images, {batch // count} on each of {count} devices"


def in_processes(
    count: int, function: Callable[..., Any], *arguments: Any, reporter: Reporter
) -> None:
    """Call `function(group, reporter, *arguments)` in `count` new processes, and wait for them.

    Args:
        function: of a module, since the processes import it.
        arguments: sent to the processes with pickle.
        reporter: receives what the process that leads reports.

    Raises:
        HandfulError: the processes raised it, or one of them was lost.
        Diverged: the processes raised it.
        KeyboardInterrupt: the user asked to stop; a training in the processes was saved.
    """
    spawning = torch.multiprocessing.get_context("spawn")
    stop = spawning.Event()
    threads = max(1, torch.get_num_threads() // count)
    devices.free_memory()
    with graceful_stop() as asked_to_stop, tempfile.TemporaryDirectory() as scratch:
        given = Given(count, str(Path(scratch) / "meeting"), stop, threads)
        running: list[Any] = []
        readers: list[Connection] = []
        try:
            with _sigint_ignored():
                for rank in range(count):
                    reader, writer = spawning.Pipe(duplex=False)
                    readers.append(reader)
                    work = (rank, writer, given, function, arguments)
                    running.append(spawning.Process(target=_work, args=work))
                    running[-1].start()
                    writer.close()
            failures = _followed(running, readers, stop, asked_to_stop, reporter)
        finally:
            codes = [process.exitcode for process in running]
            _end(running)
    _check(codes, failures)


@contextmanager
def _sigint_ignored() -> Iterator[None]:
    """A block in which processes are started that ignore Ctrl-C; it is passed on to them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _followed(
    running: list[Any],
    readers: list[Connection],
    stop: Any,
    asked_to_stop: Callable[[], bool],
    reporter: Reporter,
) -> list[Failed]:
    """Pass messages on until all processes have ended, or one has failed; what failed."""
    failures: list[Failed] = []
    begun = False  # a training, of which something is to be saved

    def messages() -> Iterator[Any]:
        nonlocal begun
        while True:
            codes = [process.exitcode for process in running]
            for message in _received(readers):
                if isinstance(message, Failed):
                    failures.append(message)
                else:
                    begun = begun or isinstance(message, Begun)
                    yield message
            ended = None not in codes or any(codes) or bool(failures)
            if ended or (asked_to_stop() and not begun):
                return
            if asked_to_stop():
                stop.set()
            sentinels = [process.sentinel for process in running if process.exitcode is None]
            wait([*readers, *sentinels], 0.1)

    _report(messages(), reporter)
    return failures


def _received(readers: list[Connection]) -> Iterator[Any]:
    """What the processes have sent; readers of ended processes are removed."""
    for reader in list(readers):
        try:
            while reader.poll():
                yield reader.recv()
        except (EOFError, OSError):
            readers.remove(reader)


def _report(messages: Iterator[Any], reporter: Reporter) -> None:
    for message in messages:
        if isinstance(message, Said):
            reporter.say(message.text)
        elif isinstance(message, Begun):
            _show(messages, message, reporter)


def _show(messages: Iterator[Any], begun: Begun, reporter: Reporter) -> None:
    """Show a bar until its end."""
    total = begun.total

    def moves() -> Iterator[None]:
        nonlocal total
        for message in messages:
            if isinstance(message, Ended):
                return
            if isinstance(message, Said):
                reporter.say(message.text)
            elif isinstance(message, Moved):
                total = message.total
                yield

    for _ in reporter.track(moves(), lambda: total, begun.what):
        pass


def _end(running: list[Any]) -> None:
    """End the processes that still run."""
    for process in running:
        if process.is_alive():
            process.kill()
    for process in running:
        process.join()


def _check(codes: list[int | None], failures: list[Failed]) -> None:
    """Raise what the processes raised, or that one was lost.

    Args:
        codes: exit statuses before processes were ended from here; None: it still ran.
    """
    failures = sorted(failures, key=lambda failure: failure.at)
    for failure in failures:
        if failure.kind is not None:
            raise _PASSED_ON[failure.kind](failure.text)
    lost = [code for code in codes if code not in (None, 0, _FAILED)]
    if lost:
        raise HandfulError(
            f"one of the {len(codes)} processes that trained together was lost ({_status(lost[0])})"
            f", and the others were ended; where memory is short, use a smaller batch. The same "
            f"command goes on from the last checkpoint"
        )
    if _FAILED in codes and not failures:
        raise HandfulError(
            "the processes of the training did not start. A script that asks for several devices "
            'has `if __name__ == "__main__":` around its work, since each process reads it'
        )
    if failures:
        first = failures[0]
        raise RuntimeError(f"{first.text}\n\nIn a process of the training:\n{first.trace}")
    if any(codes):
        raise RuntimeError(f"the processes of the training ended with {codes}")


def _status(code: int | None) -> str:
    assert code is not None
    if code < 0:
        with suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit status {code}"


# --- what runs in the processes


def _work(
    rank: int,
    writer: Connection,
    given: Given,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    sys.stdout.flush()
    os.dup2(2, 1)  # libraries may print; the command's output is its answer
    for told in (signal.SIGINT, signal.SIGTERM):  # a group may get them; the parent asks to stop
        signal.signal(told, signal.SIG_IGN)
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    if (loopback := _loopback()) is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    use_cores(max(1, cores() // given.size))
    devices.use_threads(given.threads)

    def asked_to_stop() -> bool:
        parent = multiprocessing.parent_process()
        return given.stop.is_set() or (parent is not None and not parent.is_alive())

    try:
        group = FabricGroup(rank, given.size, given.meeting, asked_to_stop)
        reporter = _sending(writer) if group.leads else QUIET
        with suppress(KeyboardInterrupt), devices.memory_kept():
            function(group, reporter, *arguments)
        group.leave()
    except Exception as error:
        kinds = [n for n, kind in enumerate(_PASSED_ON) if isinstance(error, kind)]
        kind = kinds[0] if kinds else None
        _send(writer, Failed(time.perf_counter(), kind, str(error), traceback.format_exc()))
        sys.exit(_FAILED)


def _loopback() -> str | None:
    """The name of the network interface that only this machine reaches."""
    with suppress(OSError, AttributeError):
        names = [name for _, name in socket.if_nameindex()]
        return next((name for name in ("lo", "lo0") if name in names), None)
    return None


def _sending(writer: Connection) -> Reporter:
    """A reporter that sends what it gets to the process that follows."""

    def say(text: str) -> None:
        _send(writer, Said(text))

    def track(items: Iterable[Any], total: Total, what: str) -> Iterator[Any]:
        def now() -> int:
            return total() if callable(total) else total

        _send(writer, Begun(what, now()))
        try:
            for item in items:
                yield item
                _send(writer, Moved(now()))
        finally:
            _send(writer, Ended())

    return Reporter(track, say)


def _send(writer: Connection, message: Any) -> None:
    with suppress(OSError):  # the process that follows is gone
        writer.send(message)
