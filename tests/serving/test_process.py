"""`handful serve` as a process, and its page in Chromium."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

import handful
from benchmarks.lib.made_runs import made_run
from handful.errors import HandfulError
from handful.exporting.job import checked_model
from handful.onnx_runtime import OnnxModel
from handful.pipeline.run import open_run
from handful.serving import conversion
from handful.serving.serve import open_model
from image_files import smooth
from lazy_imports import fresh_python
from tiny import stripes

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
def test_a_run_is_converted_without_torch_in_the_process_that_serves_it(tmp_path):
    quick = {"steps": 2, "batch": 8, "backbone.base": 4}
    handful.fit(stripes(), "supervised", settings=quick, estimate="none", out=tmp_path / "run")
    code = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from handful.serving.serve import open_model\n"
        "model = open_model(Path('run'), print)\n"
        "images = np.zeros((1, *model.session.get_inputs()[0].shape[1:]), np.uint8)\n"
        "assert 'torch' not in sys.modules\n"
        "print(model.answer(images).probabilities.tolist())\n"
    )
    done = fresh_python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    model = OnnxModel(checked_model(open_run(tmp_path / "run")))
    images = np.zeros((1, *model.session.get_inputs()[0].shape[1:]), np.uint8)
    assert done.stdout.splitlines()[-1] == str(model.answer(images).probabilities.tolist())


def killed(folder, sending):
    os.kill(os.getpid(), signal.SIGKILL)


def faulty(folder, sending):
    sys.exit(1)


def asking(folder, sending):
    sending.send(HandfulError(f"{folder} is no run"))


@pytest.mark.thorough
def test_a_run_that_cannot_be_read_is_the_error_that_it_was(monkeypatch, tmp_path):
    (tmp_path / "model.safetensors").mkdir()
    (tmp_path / "run.json").mkdir()  # reading either is an error of the system
    with pytest.raises((HandfulError, OSError)):
        conversion.converted(tmp_path)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "convert, error, said",
    [
        (killed, HandfulError, "the process that converts here was killed, for lack of memory"),
        (faulty, RuntimeError, "converting here failed; the lines above say how"),
        (asking, HandfulError, "here is no run"),
    ],
)
def test_why_a_run_is_not_converted_is_told(monkeypatch, convert, error, said):
    monkeypatch.setattr(conversion, "_convert", convert)
    with pytest.raises(error, match=said) as raised:
        conversion.converted(Path("here"))
    assert raised.type is error


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


@pytest.mark.thorough
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_page_marks_a_picture_that_is_unlike_all_others(folder):
    sync_api = pytest.importorskip("playwright.sync_api")
    strange = [False, None, True]
    with serving(folder) as (_, address, _), sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        answers = [
            {"label": "ox", "none_of_these": one, "probabilities": {"ox": 1.0}} for one in strange
        ]
        waiting = list(answers)
        page.route(
            "**/predict", lambda route: route.fulfill(json={"predictions": [waiting.pop(0)]})
        )
        page.goto(address)
        for shown in range(1, 4):
            page.set_input_files("#files", os.fspath(folder / "photo.jpg"))
            page.wait_for_function("n => answers.children.length === n", arg=shown)
        lines = [text.splitlines() for text in page.locator("#answers li").all_inner_texts()]
        assert [one[:2] for one in lines] == 3 * [["ox", "photo.jpg"]]
        mark = "unlike all pictures that it learned from"
        assert [mark in one for one in lines] == [True, False, False]  # the latest is first
        browser.close()
