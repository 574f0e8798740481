"""Convert a run in a process of its own, so that PyTorch does not stay in the service's memory."""

import signal
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from handful.errors import HandfulError


def converted(folder: Path) -> bytes:
    """The ONNX model of a run folder for this machine, checked; HandfulError if there is none."""
    context = get_context("spawn")  # a copy of this process would have its locks
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_convert, args=(folder, sending), daemon=True)
    process.start()
    sending.close()
    try:
        found = receiving.recv()
    except EOFError:  # the process has ended without an answer
        process.join()
        if (process.exitcode or 0) < 0:
            raise HandfulError(
                f"the process that converts {folder} was killed, for lack of memory perhaps; "
                f"convert it elsewhere (handful export {folder} --out model/), and serve that"
            ) from None
        raise RuntimeError(f"converting {folder} failed; the lines above say how") from None
    finally:
        process.kill()
        process.join()
        receiving.close()
    if isinstance(found, Exception):
        raise found
    assert isinstance(found, bytes)
    return found


def _convert(folder: Path, sending: "Connection[bytes | Exception, None]") -> None:
    """Send the model, or what the user can mend; another error prints its traceback."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the service, which ends this
    try:
        from handful.exporting.job import checked_model
        from handful.pipeline.run import open_run

        sending.send(checked_model(open_run(folder)))
    except (HandfulError, OSError, MemoryError, ImportError, RuntimeError) as error:
        sending.send(error)
