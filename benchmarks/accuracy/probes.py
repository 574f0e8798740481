"""Probes of frozen encoders, each from several seeds: does pre-training without labels pay?

    python -m benchmarks run probes tin10                       # every case, seeds 0-4
    python -m benchmarks run probes tin10 --cases cmc --seeds 1000-1001 --dev 1000

The encoders are those of the recipes `<source>-random`, `-autoencoder`, `-supervised`, `-cmc` and
`-cmc-nce`; `random-split` is the untrained pair of networks that cmc starts from, which has twice
the features of `random`. Each is frozen, its hash is compared before and after, and three probes
read its features of all labelled images: a linear one on standardised features, L2 strength chosen
out of fold, run to convergence; the reports' head of two layers; the nearest 20 images. A cell is
one case from one seed; one that has its line is not run again.
"""

import argparse
import json
import time
from dataclasses import replace

import torch
from torch import nn

import handful
from benchmarks.lib import arguments, record
from benchmarks.lib.cells import in_development
from handful.evaluation.probes import PROBES, accuracy, frozen_features
from handful.methods.base import Task, body
from handful.methods.self_supervised import SelfSupervised
from handful.pipeline.options import InputSpec
from handful.pipeline.pretrain import cached_pretraining
from handful.pipeline.recipes import find
from handful.pipeline.recipes.recipe import Recipe
from handful.pipeline.recipes.reproduce import method_of, open_data, training_images
from handful.pipeline.setup import prepare
from handful.training.trainer import train_task

CASES = ("random", "random-split", "autoencoder", "supervised", "cmc", "cmc-nce")


def main() -> None:
    options = parse()
    kind = "dev" if options.dev else "final"
    seeds = range(options.seeds[0], options.seeds[-1] + 1)
    if (kind == "final") != (max(seeds) < 1000):
        raise SystemExit("seeds below 1000 are final; development seeds start at 1000, with --dev")
    for seed in seeds:
        for case in options.cases or CASES:
            name = f"{options.source}-{case}"
            if not options.again and record.recorded("probes", name, kind, seed):
                print(f"{name}, seed {seed}: kept", flush=True)
                continue
            figures = measure(recipe_of(options.source, case), seed, options.dev)
            print(f"{name}, seed {seed}: {json.dumps(figures)}", flush=True)
            if not options.dry:
                record.append("probes", name, kind, figures, draw=seed)


def recipe_of(source: str, case: str) -> Recipe:
    if case != "random-split":
        return find(f"{source}-{case}")
    recipe = find(f"{source}-cmc")
    assert recipe.schedule is not None
    return replace(recipe, schedule=replace(recipe.schedule, steps=0))


def measure(recipe: Recipe, seed: int, dev: int) -> dict[str, object]:
    """Accuracy of every probe on the test part, or on a part cut from the labelled images."""
    data, images = open_data(recipe)
    if dev:
        images = in_development(images, dev)
    assert images.test is not None
    begun = time.perf_counter()
    network, task, figures = encoder(recipe, seed, training_images(recipe, data, images, seed))
    seconds = time.perf_counter() - begun
    labeled = task.images[task.images.labeled]
    known, queries = (
        frozen_features(network, part, task.size, task.aspect, "fp32")
        for part in (labeled, images.test)
    )
    labels, answers = torch.from_numpy(labeled.labels), torch.from_numpy(images.test.labels)
    for name, probe in PROBES.items():
        head = probe(known.float(), labels, len(task.classes), seed)
        figures[name] = round(accuracy(head, queries, answers), 5)
    return figures | {"features": known.shape[1], "n_test": len(answers), "seconds": round(seconds)}


def encoder(
    recipe: Recipe, seed: int, images: handful.ImageSet
) -> tuple[nn.Module, Task, dict[str, object]]:
    """The network to be probed, the task it learned from, and what is known of it already."""
    method = method_of(recipe, recipe.data[0], seed)
    chosen, task = prepare(
        images,
        method,
        schedule=recipe.schedule,
        backbone=recipe.backbone,
        inputs=InputSpec(recipe.size, precision=recipe.precision),
    )
    if isinstance(method, SelfSupervised):
        made = cached_pretraining(chosen, task, lambda text: print(text, flush=True))
        parts = body(replace(task, backbone=made.backbone, init=made.init))
        health = {key: round(value, 4) for key, value in made.record["health"].items()}
        return nn.Sequential(*parts), task, {"health": health, "collapse": made.record["collapse"]}
    model = train_task(chosen, task, seed).predictor.model
    return nn.Sequential(model.normalize, model.backbone), task, {}


def parse() -> argparse.Namespace:
    parser = arguments.parser(__doc__)
    parser.add_argument("source", choices=("tin10", "stl10"))
    parser.add_argument("--cases", nargs="*", choices=CASES)
    parser.add_argument(
        "--seeds", default="0-4", type=lambda text: [int(x) for x in text.split("-")]
    )
    parser.add_argument("--dev", type=int, default=0, metavar="N", help="cut N labelled images off")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--dry", action="store_true", help="print only, write no line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
