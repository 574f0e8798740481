"""Run `handful fit` on the labels of a session, and read what it answers.

The fit is a process of its own: it may take all the memory it needs, and the page goes on.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

from handful.csv_files import read_csv
from handful.data.source_names import default_run_folder
from handful.errors import HandfulError
from handful.files import read_json
from handful.output import later_folders, next_folder
from handful.pipeline.artifacts import PREDICTIONS, RECORD, REPORT
from handful.text import FEW, about_right, in_seconds, shell_command

NOTHING_YET = "not started"
LONGEST = 2_000  # characters of a line
WIDTH = 10_000  # columns: the fit breaks no line of what it says, the page does
EARLIER = Path("run")  # where earlier versions put the run of a page
OVERWRITE = "--overwrite"
RUNS = "runs"  # name of the setting that keeps them in the journal
Runs = Mapping[str, list[str]]  # absolute folder → the command that a page began there, as words


def runs_of(kept: Any) -> Runs:
    """The runs in a journal, which may be from elsewhere; what is no command is left out."""
    items = kept.items() if isinstance(kept, dict) else ()
    return {str(folder): list(map(str, one)) for folder, one in items if isinstance(one, list)}


def run_folder(source: str, table: Path, after: Path | None, made: Runs) -> Path:
    """Where the run of a page goes: where `fit` puts its own, or beside a run that is there.

    A run that a page with this label file made is replaced, any other run stays.

    Args:
        after: the run that it goes on from, which stays.
        made: the runs that pages with this label file began.
    """
    if after is None and _by_earlier_version(source, table):
        return EARLIER
    usual = default_run_folder(source) if after is None else after
    places = chain([usual] if after is None else [], later_folders(usual))
    return next(place for place in places if not os.path.lexists(place) or _own(place, made))


def _own(run: Path, made: Runs) -> bool:
    """Whether a page began the run in a folder, and nothing else has put one there since."""
    begun = made.get(str(run.resolve()))
    if begun is None:
        return False
    return not (run / RECORD).exists() or _command(run) == _without_overwrite(begun)


def _command(run: Path) -> list[str] | None:
    """The command that made a run, as words; None where its record does not say it."""
    try:
        record = read_json(run / RECORD)
    except HandfulError:  # damaged
        return None
    command = record.get("command") if isinstance(record, dict) else None
    return _without_overwrite(map(str, command)) if isinstance(command, list) else None


def _without_overwrite(words: Iterable[str]) -> list[str]:
    return [word for word in words if word != OVERWRITE]


def _by_earlier_version(source: str, table: Path) -> bool:
    """Whether EARLIER holds a run of these images and this label file."""
    made = _command(EARLIER) if (EARLIER / RECORD).exists() else None
    if made is None:
        return False
    words, made = _words(source, table, EARLIER), made[:6]
    try:
        return made[::2] == words[::2] and all(
            Path(one).expanduser().resolve() == Path(other).expanduser().resolve()
            for one, other in zip(made[1::2], words[1::2], strict=True)
        )
    except (OSError, RuntimeError, ValueError):  # the record of a stranger's run names no path
        return False


def _words(source: str, table: Path, run: Path) -> list[str]:
    return ["fit", source, "--labels", str(table), "--out", str(run)]


class Fitting:
    """One fit at a time, and the predictions of the last one."""

    def __init__(
        self,
        source: str,
        table: Path,
        run: Path | None,
        options: list[str],
        after: Path | None = None,
        made: Runs = MappingProxyType({}),
    ) -> None:
        """Prepare; nothing is started.

        Args:
            run: the folder that was asked for; by default `run_folder`.
            options: further options of `fit`, such as --folders or --after.
            made: the runs that pages with this label file began.
        """
        self.source, self.table, self.options = source, table, options
        self._asked, self._after, self.made = run, after, dict(made)
        self.run = run or run_folder(source, table, after, self.made)
        self.lines: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False
        self._lock = threading.Lock()
        self._predictions: tuple[float, dict[str, list[tuple[str, float]]]] | None = None

    def command(self, budget: str) -> list[str]:
        """The command of the fit, as words after `handful`."""
        words = _words(self.source, self.table, self.run)
        if budget:
            in_seconds(budget)
            words += ["--budget", budget]
        if (self.run / RECORD).exists():
            words.append(OVERWRITE)
        return words + self.options

    def start(self, budget: str) -> None:
        """Start the fit; HandfulError if one is running, or the budget is no time."""
        with self._lock:
            if self.running:
                raise HandfulError("a fit is running; wait for it, or stop it")
            # Another command may have made a run meanwhile.
            self.run = self._asked or run_folder(self.source, self.table, self._after, self.made)
            words = self.command(budget)
            self.made[str(self.run.resolve())] = words
            self.lines, self._stopped = [shell_command(*words)], False
            self._process = subprocess.Popen(
                [sys.executable, "-m", "handful", *words],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                errors="replace",
                env={**os.environ, "NO_COLOR": "1", "COLUMNS": str(WIDTH), "TERM": "dumb"},
            )
            threading.Thread(target=self._read, args=(self._process,), daemon=True).start()

    def stop(self) -> None:
        """End the fit; it goes on where it was when it is started again."""
        if self._process is not None and self.running:
            self._stopped = True
            self._process.terminate()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def state(self) -> dict[str, Any]:
        """How far the fit is, and what the last one found."""
        code = None if self._process is None else self._process.poll()
        state: dict[str, Any] = {
            "running": self.running,
            "failed": code not in (None, 0) and not self._stopped,
            "stopped": self._stopped,
            "lines": self.lines,
            "run": str(self.run),
            "result": None,
            "report": None,
            "commands": [],
        }
        if not self.running and (self.run / RECORD).exists():
            state["result"] = self._result()
            if (self.run / REPORT).exists():
                state["report"] = str(self.run / REPORT)
            state["commands"] = [
                shell_command("predict", self.run, self.source, "--into", "sorted/"),
                shell_command("predict", self.run, self.source, "--out", "predictions.csv"),
                shell_command("fit", self.source, "--labels", self.table, "--after", self.run,
                              "--out", next_folder(self.run)),
            ]  # fmt: skip
        return state

    def bins(self) -> dict[str, list[tuple[str, float]]]:
        """Class → (image name, confidence) of the images that the last fit answered, surest first.

        Empty without a fit.
        """
        path = self.run / PREDICTIONS
        try:
            changed = path.stat().st_mtime
        except FileNotFoundError:
            return {}
        if self._predictions is None or self._predictions[0] != changed:
            found: dict[str, list[tuple[str, float]]] = {}
            for row in read_csv(path):
                if row["label"]:
                    found.setdefault(row["label"], []).append(
                        (row["file"], float(row["confidence"]))
                    )
            for rows in found.values():
                rows.sort(key=lambda pair: -pair[1])
            self._predictions = changed, found
        return self._predictions[1]

    def _result(self) -> dict[str, Any] | None:
        try:
            record = read_json(self.run / RECORD)
            estimate = record["estimate"] or {}
            return {
                "method": record["method"]["name"],
                "labels": record["data"]["labeled"],
                "accuracy": estimate.get("accuracy"),
                "said": about_right(estimate) if estimate else "",
                "few": estimate.get("n", FEW) < FEW,
            }
        except (HandfulError, KeyError, TypeError):
            return None

    def _read(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            text = line.rstrip().replace("Ctrl-C", "Stop")  # the button that does the same
            if text:
                self.lines.append(text[:LONGEST])
                del self.lines[1:-200]
