"""`--web`: a page that runs the model in the browser, with onnxruntime-web beside it.

The page is plain HTML and JavaScript. onnxruntime-web comes from npm, in one version whose content
is known, so that neither a registry nor a mirror can put other code into the page.
"""

import base64
import hashlib
import json
import shlex
import shutil
import subprocess
import tarfile
import tempfile
from importlib.resources import files
from pathlib import Path

from handful.errors import HandfulError
from handful.files import write_text
from handful.onnx_runtime import OnnxModel

WEB = "web"
VERSION = "1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
PAGE = ("index.html", "style.css", "app.js", "pixels.js")
RUNTIME = ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
_SECONDS = 300  # for the download of 33 MB


def write_page(folder: Path, model: Path) -> None:
    """Write the page of a model into the sub-folder `web`.

    HandfulError where onnxruntime-web cannot be fetched.
    """
    place = folder / WEB
    (place / "ort").mkdir(parents=True)
    _fetch_runtime(place / "ort")
    for name in PAGE:
        code = files("handful.exporting").joinpath("web", name).read_text(encoding="utf-8")
        write_text(place / name, code)
    shutil.copyfile(model, place / "model.onnx")
    write_text(place / "about.json", json.dumps(OnnxModel(model).about))


def how_to_open(folder: Path) -> str:
    """How to open the page of an export, from where the path of its folder begins."""
    command = shlex.join(["python", "-m", "http.server", "-d", str(folder / WEB)])
    return (
        f"The page in web/ classifies pictures in the browser: `{command}`, then "
        "http://localhost:8000. Pictures do not leave the browser. It decodes JPEG by the browser, "
        "so probabilities differ a little from those of predict.py."
    )


def _fetch_runtime(place: Path) -> None:
    """Copy the files of onnxruntime-web that the page needs, from the package on npm."""
    npm = shutil.which("npm")
    if npm is None:
        raise HandfulError(
            "--web fetches onnxruntime-web from npm; install Node.js, or leave it out"
        )
    with tempfile.TemporaryDirectory() as temporary:
        command = [npm, "pack", f"onnxruntime-web@{VERSION}", "--silent"]
        try:
            done = subprocess.run(
                command, cwd=temporary, capture_output=True, text=True, timeout=_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise HandfulError(f"npm has not answered in {_SECONDS} seconds; try again") from error
        packages = list(Path(temporary).glob("*.tgz"))
        if done.returncode or len(packages) != 1:
            said = " ".join(done.stderr.split())[-300:] or "no reason given"
            raise HandfulError(
                f"npm could not fetch onnxruntime-web {VERSION}: {said}; check the network"
            )
        unpack(packages[0].read_bytes(), packages[0], place)


def unpack(content: bytes, package: Path, place: Path) -> None:
    """Copy RUNTIME out of a package; HandfulError if its content is not the known one."""
    found = base64.b64encode(hashlib.sha512(content).digest()).decode()
    if found != SHA512:
        raise HandfulError(
            f"what npm gave is not onnxruntime-web {VERSION} (SHA-512 {found[:20]}…); check which "
            f"registry it uses"
        )
    with tarfile.open(package) as archive:
        for name in RUNTIME:
            source = archive.extractfile(f"package/dist/{name}")
            assert source is not None
            (place / name).write_bytes(source.read())
