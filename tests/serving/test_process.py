"""`handful serve` as a process, and its page in Chromium."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager

import httpx
import pytest
from PIL import Image

from benchmarks.lib.made_runs import made_run
from handful.serving.serve import open_model
from image_files import smooth

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a model, and a photograph beside it."""
    folder = tmp_path_factory.mktemp("model")
    made_run("small", base=4, size=16).to_onnx(folder / "model.onnx")
    Image.fromarray(smooth(60, 80, seed=1)).save(folder / "photo.jpg")
    return folder


@contextmanager
def serving(folder, *options):
    """The process of a service and its address."""
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "handful", "serve", str(folder),
         "--port", "0", *options],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    imported = []
    try:
        for line in process.stderr:
            imported.append(line.rsplit("|", 1)[-1].strip())
            if line.startswith("serving"):
                yield process, line.split()[-1], imported
                break
        else:
            raise RuntimeError("\n".join(imported[-20:]))
    finally:
        if process.poll() is None:
            process.kill()
        process.stderr.close()
        process.wait()


@pytest.mark.thorough
def test_it_serves_an_exported_folder_without_torch_and_stops_when_told(folder):
    with serving(folder) as (process, address, imported):
        answer = httpx.post(f"{address}predict", content=(folder / "photo.jpg").read_bytes())
        assert answer.json()["predictions"][0]["label"].startswith("class ")
        assert "torch" not in imported
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) in (0, 143)


@pytest.mark.thorough
def test_the_file_of_a_model_can_be_served_too(folder):
    classes = [open_model(path, print).classes for path in (folder, folder / "model.onnx")]
    assert classes[0] == classes[1] != ()


@pytest.mark.thorough
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_picture_chosen_on_the_page_is_answered_there(folder):
    sync_api = pytest.importorskip("playwright.sync_api")
    with (
        serving(folder, "--token", "secret") as (_, address, _),
        sync_api.sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page, problems = browser.new_page(), []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(address)
        page.set_input_files("#files", os.fspath(folder / "photo.jpg"))
        page.wait_for_selector("#token", state="visible")
        page.fill("#token", "secret")
        page.set_input_files("#files", os.fspath(folder / "photo.jpg"))
        page.wait_for_selector("#answers li strong")
        assert page.inner_text("#answers li strong").startswith("class ")
        assert problems == []
        browser.close()
