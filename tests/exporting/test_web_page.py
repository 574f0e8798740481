"""`--web`: the page in Chromium gives the answers of predict.py."""

import functools
import http.server
import shutil
import subprocess
import threading
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.lib.made_runs import made_run
from handful.errors import HandfulError
from handful.exporting import job, web_page
from handful.exporting.agreement import run_answers
from handful.exporting.check_images import of_files
from image_files import smooth

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def served(folder):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def photographs(folder, decoded=0.02):
    """Picture files, and how far a probability may be from that of predict.py.

    A browser decodes JPEG otherwise than Pillow, by a value or two: `decoded` is for that.
    """
    turn = Image.Exif()
    turn[0x0112] = 6
    photo = Image.fromarray(smooth(90, 130, seed=1))
    large = Image.fromarray(smooth(600, 900, seed=2))
    clear = photo.convert("RGBA")
    clear.putalpha(Image.fromarray(smooth(90, 130, seed=3)[..., 0]))
    named = {"a.png": (photo, 1e-3), "turned.jpg": (photo, decoded), "large.jpg": (large, decoded),
             "small.png": (photo.resize((9, 7)), 1e-3), "clear.png": (clear, decoded)}  # fmt: skip
    for name, (image, _) in named.items():
        options = {"exif": turn, "quality": 92} if name.endswith("jpg") else {}
        image.save(folder / name, **options)
    return {name: tolerance for name, (_, tolerance) in named.items()}


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no Node.js")
@pytest.mark.parametrize(
    ("width", "height", "to"),
    [(9, 9, (160, 160)), (7, 7, (224, 224)), (300, 300, (160, 160)), (64, 48, (32, 24))],
)
def test_the_page_resizes_as_pillow_does(width, height, to, tmp_path):
    image = Image.fromarray(smooth(height, width, seed=1))
    code = files("handful.exporting").joinpath("web", "pixels.js").read_text(encoding="utf-8")
    (tmp_path / "pixels").write_bytes(image.tobytes())
    script = f"""
        const whole = emptyImage({width}, {height}, 3);
        whole.data.set(require("fs").readFileSync("pixels"));
        process.stdout.write(Buffer.from(resized(whole, {to[0]}, {to[1]}).data));
    """
    done = subprocess.run(
        ["node", "-"], input=(code + script).encode(), cwd=tmp_path, capture_output=True, check=True
    )
    expected = image.resize(to, Image.Resampling.BICUBIC)
    assert np.array_equal(np.frombuffer(done.stdout, np.uint8), np.asarray(expected).ravel())


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
@pytest.mark.skipif(shutil.which("npm") is None, reason="there is no npm")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("network", "aspect", "channels"),
    [
        ({"backbone": "small", "base": 8, "size": 32}, "crop", 3),
        ({"backbone": "small", "base": 8, "size": 32}, "pad", 1),
        ({"backbone": "small", "base": 8, "size": 32}, "stretch", 3),
        ({"backbone": "lite0", "size": 64, "precision": "int8", "frozen": True}, "crop", 3),
    ],
    ids=["crop", "pad in grey", "stretch", "int8"],
)
def test_the_page_answers_as_predict_py_does(network, aspect, channels, tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api")
    run = made_run(**network, aspect=aspect, channels=channels)
    folder = job.export(run, tmp_path / "model", web=True).folder
    photos = tmp_path / "photos"
    photos.mkdir()
    # A value that is rounded to the next step of int8 moves the features by more than it differed.
    allowed = photographs(photos, 0.05 if "precision" in network else 0.02)
    paths = [photos / name for name in allowed]
    expected = run_answers(run.predictor, of_files(paths, run.predictor).pixels).probabilities
    with served(folder / "web") as address, sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--use-fake-device-for-media-stream",
                  "--use-fake-ui-for-media-stream"],
        )  # fmt: skip
        page, problems, hosts = browser.new_page(), [], set()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda asked: hosts.add(asked.url.split("/")[2]))
        page.goto(address)
        for path, shares in zip(paths, expected, strict=True):
            page.set_input_files("#files", path)
            row = f"#answers li:has(small:text-is('{path.name}'))"
            page.wait_for_selector(f"{row} meter")
            found = page.eval_on_selector_all(
                f"{row} [data-share]", "all => all.map((one) => Number(one.dataset.share))"
            )
            label = page.inner_text(f"{row} strong")
            assert label == run.classes[shares.argmax()], path.name
            off = np.abs(np.sort(shares)[::-1] - found).max()
            assert off < allowed[path.name], path.name
        if aspect == "crop" and network["backbone"] == "small":
            page.click("#camera")
            page.wait_for_selector("#answers li:has(small:text-is('camera')) meter")
            page.click("#camera")
        assert problems == []
        assert hosts == {address.split("/")[2], ""} or hosts == {address.split("/")[2]}
        browser.close()


@pytest.mark.thorough
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_mark_of_a_strange_picture_is_on_a_line_of_its_own():
    sync_api = pytest.importorskip("playwright.sync_api")
    with (
        served(files("handful.exporting").joinpath("web")) as address,
        sync_api.sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        fake = "const ort = { env: { wasm: {} }, InferenceSession: {} };"
        page.route("**/ort/*.js", lambda route: route.fulfill(
            body=fake, content_type="text/javascript"))  # fmt: skip
        page.goto(address)
        page.evaluate(
            "answers.append(shown({ shares: [['ox', 1]], strange: true }, 'DSC007492.JPEG'))"
        )
        lines = page.inner_text("#answers").splitlines()
        assert lines[:3] == ["ox", "DSC007492.JPEG", "unlike all pictures that it learned from"]
        browser.close()


def test_a_package_with_other_content_is_not_unpacked(tmp_path):
    package = tmp_path / "other.tgz"
    package.write_bytes(b"something else")
    with pytest.raises(HandfulError, match="is not onnxruntime-web"):
        web_page.unpack(package.read_bytes(), package, tmp_path)


@pytest.mark.thorough
def test_how_the_page_is_opened_is_told_from_where_the_user_is(tmp_path, monkeypatch):
    monkeypatch.setattr(web_page, "_fetch_runtime", lambda place: None)
    monkeypatch.chdir(tmp_path)
    run = made_run("small", base=4, size=8)
    found = job.export(run, Path("my model"), web=True)
    assert "`python -m http.server -d 'my model/web'`, then" in found.remarks[-1]
    assert (tmp_path / "my model/web/index.html").exists()
    card = (tmp_path / "my model/card.md").read_text()  # which lies in the folder
    assert "python -m http.server -d web" in " ".join(card.split())


def test_without_npm_the_page_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(HandfulError, match="install Node.js"):
        web_page.write_page(tmp_path, tmp_path / "model.onnx")
