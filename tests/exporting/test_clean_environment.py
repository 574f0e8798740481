"""The exported folder in an environment that has what it asks for, and no torch and no handful."""

import subprocess
import sys
import venv
from importlib.metadata import distribution, requires

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image

from benchmarks.lib.made_runs import made_run
from handful.exporting import job
from handful.exporting.agreement import run_answers
from handful.exporting.check_images import of_files
from image_files import smooth

NEEDED = ("numpy", "pillow", "onnxruntime")


def with_needs(names):
    """The names of these packages, and of all that they need."""
    found, left = set(), list(names)
    while left:
        name = left.pop()
        if name.lower() not in found:
            found.add(name.lower())
            wanted = [Requirement(text) for text in requires(name) or ()]
            left += [one.name for one in wanted if one.marker is None or one.marker.evaluate()]
    return found


@pytest.fixture
def python(tmp_path):
    """An interpreter with NEEDED alone, linked from this environment: no network is needed."""
    venv.create(tmp_path / "venv", with_pip=False)
    (site,) = (tmp_path / "venv").glob("lib/*/site-packages")
    for name in with_needs(NEEDED):
        for file in distribution(name).files or ():
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (site / top).exists():
                (site / top).symlink_to(distribution(name).locate_file(top))
    return tmp_path / "venv" / "bin" / "python"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="it makes symbolic links")
def test_predict_py_needs_numpy_pillow_and_onnxruntime_only(python, tmp_path):
    run = made_run("lite0", stages=2, size=64, frozen=True, head="mlp")
    folder = job.export(run, tmp_path / "model").folder
    photos = tmp_path / "photos"
    photos.mkdir()
    turn = Image.Exif()
    turn[0x0112] = 8
    Image.fromarray(smooth(300, 200, seed=1)).save(photos / "a.jpg", exif=turn)
    Image.fromarray(smooth(70, 90, seed=2)).save(photos / "b.webp")

    def ran(*words, status=0):
        done = subprocess.run([python, "-I", *words], capture_output=True, text=True, cwd=folder)
        assert done.returncode == status, done.stderr
        return done.stdout

    ran("-c", "import torch", status=1)
    ran("-c", "import handful", status=1)
    program = "import runpy, sys; sys.path.insert(0, '.'); sys.argv = {!r}; " + (
        "runpy.run_path('predict.py', run_name='__main__')"
    )
    assert "classes are equal: True" in ran("-c", program.format(["predict.py", "--check"]))
    rows = ran("-c", program.format(["predict.py", str(photos)])).splitlines()
    pixels = of_files([photos / "a.jpg", photos / "b.webp"], run.predictor).pixels
    expected = run_answers(run.predictor, pixels).probabilities
    for row, shares in zip(rows[1:], expected, strict=True):
        found = np.array(row.split(",")[3:], float)
        assert np.abs(found - shares).max() < 1e-3
        assert found.argmax() == shares.argmax()
