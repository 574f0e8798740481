"""`handful export`: write the folder of an exported model, and leave it only if it agrees."""

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from handful.data.imageset import ImageSet
from handful.errors import HandfulError
from handful.exporting import check_images
from handful.exporting.agreement import (
    Agreement,
    answers_here,
    check_answers,
    check_files,
    read_files,
)
from handful.exporting.card import card, front_matter
from handful.exporting.quantize import quantized
from handful.exporting.web_page import how_to_open, write_page
from handful.files import write_text
from handful.onnx_runtime import OnnxModel
from handful.output import check_new_folder, new_folder
from handful.pipeline.model_file import save_predictor
from handful.pipeline.onnx_model import onnx_model
from handful.pipeline.run import Run
from handful.progress import QUIET, Reporter
from handful.text import counted

MODEL, CHECK, CARD = "model.onnx", "check.npz", "card.md"
INT8, HUB_CARD, WEIGHTS = "model-int8.onnx", "README.md", "model.safetensors"
CODE = ("predict.py", "pictures.py")


@dataclass(frozen=True)
class Exported:
    """What was left, and how well it agrees with the run."""

    folder: Path
    agreement: Agreement
    remarks: tuple[str, ...]


def export(
    run: Run,
    out: Path,
    *,
    images: ImageSet | None = None,
    keep_images: bool = True,
    int8: bool = False,
    hub: bool = False,
    web: bool = False,
    reporter: Reporter = QUIET,
) -> Exported:
    """Write a folder with the model of a run that needs neither handful nor torch.

    Args:
        out: a folder that is new or empty; it is there whole, or not at all.
        images: images to check it on; by default those of the run, where they are still there.
        keep_images: whether images of the run may be among those in check.npz.
        int8: leave a smaller model, too, if it is as accurate.
        web: leave a page that runs the model in the browser; needs npm and the network.
        hub: leave the layout of the Hugging Face hub: a card with front matter, and safetensors.

    Raises:
        HandfulError: `out` holds files, or the exported model does not answer as the run does.
    """
    check_new_folder(out)
    reporter.say("converting the network, which takes some seconds")
    content = run.to_onnx()
    with new_folder(out) as folder:
        (folder / MODEL).write_bytes(content)
        for name in CODE:
            code = files("handful.exporting").joinpath("folder", name).read_text(encoding="utf-8")
            write_text(folder / name, code)
        agreement, remarks = _check(run, folder, images, keep_images)
        if int8:
            reporter.say("making the int8 model, and comparing it on the labelled images")
            smaller = quantized(run, content, images)
            remarks.append(smaller.said)
            if smaller.content is not None:
                (folder / INT8).write_bytes(smaller.content)
        if web:
            write_page(folder, folder / MODEL)
        in_folder = [how_to_open(Path())] if web else []  # of the card, which lies in the folder
        text = card(run, agreement, [*remarks, *in_folder])
        if hub:
            write_text(folder / HUB_CARD, front_matter(run) + text)
            save_predictor(run.predictor, folder / WEIGHTS)
        else:
            write_text(folder / CARD, text)
        _check_itself(folder)
    typed = [how_to_open(out)] if web else []
    return Exported(out, agreement, (*remarks, *typed))


def checked_model(run: Run) -> bytes:
    """The ONNX model of a run for this machine; HandfulError where it answers otherwise."""
    content = onnx_model(run.record, run.predictor, run.known(), elsewhere=False)
    images = [check_images.of_run(run).pixels, check_images.made(run.predictor)]
    check_answers(OnnxModel(content), run.predictor, np.concatenate(images), run.known())
    return content


def _check(
    run: Run, folder: Path, images: ImageSet | None, keep_images: bool
) -> tuple[Agreement, list[str]]:
    """Compare the model in the folder with the run, and write what `predict.py --check` needs."""
    predictor, known = run.predictor, run.known()
    model = OnnxModel(folder / MODEL)
    own = check_images.of_run(run, images)
    made = check_images.made(predictor)
    whole = check_answers(model, predictor, np.concatenate([own.pixels, made]), known)
    with tempfile.TemporaryDirectory() as place:
        contents = check_images.made_files()
        made_files = read_files(Path(place), contents, predictor)
        loaded = [check_files(found, predictor) for found in (own, made_files)]
    agreement = Agreement(whole.images, whole.worst, *map(sum, zip(*loaded, strict=True)))
    kept = own.pixels[: check_images.KEPT] if keep_images and len(own.pixels) else made
    arrays = {"images": kept, "probabilities": model.answer(kept).probabilities}
    for name, pixels in zip(contents, made_files.pixels, strict=True):
        arrays[f"file {name}"] = np.frombuffer(contents[name], np.uint8)
        arrays[name] = pixels
    np.savez_compressed(folder / CHECK, **arrays)  # type: ignore[arg-type]
    return agreement, _remarks(run, model, own.pixels)


def _remarks(run: Run, model: OnnxModel, images: np.ndarray) -> list[str]:
    """What the comparison does not show."""
    if not len(images):
        return [
            "The images that the run learned from are not where they were, so it was checked on "
            "made images only; --images FOLDER names others."
        ]
    if run.predictor.precision_here() != "bf16":
        return []
    found, here = model.answer(images).probabilities, answers_here(run.predictor, images)
    worst = float(np.abs(found - here.probabilities).max())
    other = int((found.argmax(1) != here.probabilities.argmax(1)).sum())
    return [
        f"On the machine of the export, handful itself computes in bf16, which is less exact: its "
        f"probabilities for {len(images)} images of the run are up to {worst:.3f} from those of "
        f"this model, which computes in 32 bits, and {counted(other, 'image')} of them "
        f"{'has' if other == 1 else 'have'} another class."
    ]


def _check_itself(folder: Path) -> None:
    """Run `predict.py --check` as a user would; HandfulError where it fails."""
    command = [sys.executable, CODE[0], "--check"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["nothing"]
        raise HandfulError(
            f"predict.py --check failed in the exported folder ({said[-1][:300]}), so nothing was "
            f"written; please report it, with what `handful --version` and `pip list` print"
        )
