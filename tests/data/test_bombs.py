"""Files made to take much memory or time are read or refused within bounds, by two workers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import bombs
from handful.data.decode import Unreadable, guarded, inspect


def outcome(path: Path) -> str:
    try:
        inspect(path)
    except Unreadable as error:
        return str(error)
    return ""


def right(expected: str, said: str) -> bool:
    return expected == "*" or (said.startswith(expected) if expected else not said)


@pytest.mark.parametrize("name", bombs.FAST)
def test_a_small_bomb_is_read_or_refused_with_the_reason(tmp_path, name):
    bombs.write(tmp_path, (name,))
    with guarded():
        said = outcome(tmp_path / name)
    assert right(bombs.BOMBS[name][1], said), said


@pytest.mark.slow
def test_sixty_bombs_cost_less_than_900_megabytes_and_ten_seconds_each(tmp_path):
    bombs.write(tmp_path / "bombs")
    figures = run(tmp_path / "bombs", tmp_path / "cache")
    assert len(figures["found"]) == len(bombs.BOMBS) >= 60
    for name, (_, expected) in bombs.BOMBS.items():
        assert right(expected, figures["found"][name]), (name, figures["found"][name])
    assert figures["memory_mb"] <= 900
    assert max(max(times) for times in figures["seconds"].values()) <= 10


def run(folder: Path, cache: Path) -> dict:
    script = Path(__file__).parents[1] / "bomb_run.py"
    done = subprocess.run(
        [sys.executable, str(script), str(folder)],
        env={**os.environ, "HANDFUL_CACHE": str(cache)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
