"""Make an installable package of the weights of a timm model, which handful then finds by name.

    python scripts/make_backbone_package.py vit_small_patch14_dinov2.lvd142m dinov2-s package/ \
        --licence Apache-2.0 --source "https://github.com/facebookresearch/dinov2"
    pip install package/
    handful fit photos/ --labels labels.csv --backbone dinov2-s

The weights come from timm, that is from its cache or a hub; from a file with --weights; or are
random with --random, to try the format. The folder that is written holds a pyproject.toml, one
module and one safetensors file. One upload of it to a package index gives the network to everyone.
"""

import argparse
import hashlib
import json
import re
import sys
from pathlib import Path

import timm
from safetensors.torch import load_file, save_file

PROJECT = """[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = {package}
version = {version}
description = {description}
license = {licence}
requires-python = ">=3.11"

[project.entry-points."handful.backbones"]
{name} = "{module}:BACKBONE"

[tool.hatch.build.targets.wheel]
packages = ["{module}"]
"""

MODULE = '''"""{description}"""

from pathlib import Path

BACKBONE = {{
    **{described},
    "file": Path(__file__).with_name("weights.safetensors"),
}}
'''


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,60}", options.name):
        sys.exit(f"NAME has lower-case letters, digits, '.', '_' and '-', got {options.name!r}")
    if options.out.exists():
        sys.exit(f"{options.out} exists; name a new folder")
    ready = not (options.random or options.weights)
    network = timm.create_model(options.model, pretrained=ready, num_classes=0)
    if options.weights:
        network.load_state_dict(load_file(options.weights))
    module = "handful_backbone_" + re.sub(r"\W", "_", options.name)
    folder = options.out / module
    folder.mkdir(parents=True)
    file = folder / "weights.safetensors"
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, file)
    expects = network.pretrained_cfg
    described = {
        "architecture": options.model.split(".")[0],
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "input_size": expects["input_size"][-1],
        "mean": list(expects["mean"]),
        "std": list(expects["std"]),
        "interpolation": expects["interpolation"],
        "licence": options.licence,
        "source": options.source,
    }
    description = f"Weights of {options.model} as the backbone {options.name} of handful"
    (folder / "__init__.py").write_text(
        MODULE.format(description=description, described=json.dumps(described, indent=4)),
        encoding="utf-8",
    )
    project = PROJECT.format(
        package=json.dumps(f"handful-backbone-{options.name}"),
        version=json.dumps(options.version),
        description=json.dumps(description),
        licence=json.dumps(options.licence),
        name=json.dumps(options.name),
        module=module,
    )
    (options.out / "pyproject.toml").write_text(project, encoding="utf-8")
    size = file.stat().st_size / 1e6
    print(f"{options.out}: {options.name}, {size:.1f} MB; next: pip install {options.out}")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="timm's name of the model, weights included")
    parser.add_argument("name", help="the name for --backbone")
    parser.add_argument("out", type=Path, help="the new folder")
    parser.add_argument("--licence", required=True, help="of the weights, as an SPDX expression")
    parser.add_argument("--source", required=True, help="where the weights come from")
    parser.add_argument("--version", default="1.0")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--weights", type=Path, help="a safetensors file with the weights")
    weights.add_argument("--random", action="store_true", help="random weights")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
