"""Reports A and B: MNIST with 10 labels of each digit."""

from dataclasses import replace

from handful.methods.schedule import Schedule
from handful.methods.simclr import SimCLR
from handful.methods.supervised import Supervised
from handful.methods.uda import UDA
from handful.models.classifier import BackboneSpec
from handful.pipeline.recipes.as_run import NormalizedTwice
from handful.pipeline.recipes.recipe import Data, Recipe, epochs

MNIST = (Data("mnist", "MNIST, 10 labels per class", per_class=10),)
TRAINED = 80  # labelled images left by the 20 kept for validation
COPIES = 10  # of each labelled image by each of five pipelines
PREPARED = TRAINED * (1 + 5 * COPIES)

# Report A. Evaluated after every epoch, since its patience counts epochs.
adam = Schedule(
    steps=epochs(20, TRAINED, batch=20),
    batch=20,
    optimizer="adam",
    lr=1e-3,
    weight_decay=0.0,
    decay="constant",
    average=0.0,
    validation=0.2,
    looks=20,
)
cnn = Recipe(
    "mnist-cnn",
    report="A",
    what="three convolutions, 80 labels to train on and 20 to look at",
    data=MNIST,
    method=Supervised(augment="none"),
    backbone=BackboneSpec("cnn"),
    schedule=adam,
    published=0.8369,
    minutes=0.1,
)
mlp = replace(
    cnn,
    name="mnist-mlp",
    what="four dense layers, 80 labels to train on, stopped by the other 20",
    backbone=BackboneSpec("mlp"),
    schedule=replace(adam, patience=10),
    published=0.7021,
    correction="The report's text says 0.7021, its log 0.6915.",
)
NEVER_TRAINED = "The report prepared the copies and never trained on them."
cnn_augmented = replace(
    cnn,
    name="mnist-cnn-augmented",
    what=f"mnist-cnn on {PREPARED:,} images: ten copies under each of five augmentations",
    copies=COPIES,
    schedule=replace(adam, steps=epochs(20, PREPARED, batch=20)),
    published=None,
    correction=f"{NEVER_TRAINED} Its copies were normalised twice and turned over black.",
    minutes=1.0,
)
mlp_augmented = replace(
    mlp,
    name="mnist-mlp-augmented",
    what=f"mnist-mlp on {PREPARED:,} images: the copies of mnist-cnn-augmented",
    copies=COPIES,
    schedule=replace(adam, patience=10, steps=epochs(20, PREPARED, batch=20)),
    published=None,
    correction=NEVER_TRAINED,
    minutes=0.7,
)

# Report A, SimCLR: network, batch, views, published test accuracy, minutes of the first draw.
IMAGES = 60_000
SIMCLR = (
    ("resnet", 128, "simclr", 0.77, 12.0),
    ("resnet", 256, "simclr", 0.78, 12.0),
    ("resnet", 512, "simclr", 0.37, 12.0),
    ("basic", 128, "simclr", 0.71, 4.0),
    ("basic", 512, "simclr", 0.53, 4.0),
    ("resnet", 128, "simclr-flip", 0.81, 11.0),
    ("resnet", 256, "simclr-flip", 0.78, 11.0),
    ("resnet", 512, "simclr-flip", 0.50, 11.0),
    ("basic", 128, "simclr-flip", 0.80, 3.0),
    ("basic", 512, "simclr-flip", 0.61, 3.0),
    ("complex", 128, "simclr-flip", 0.88, 13.0),
    ("complex", 512, "simclr-flip", 0.81, 13.0),
)


def simclr(encoder: str, batch: int, views: str, published: float, minutes: float) -> Recipe:
    """Return a recipe: five epochs of SimCLR, then a two-layer head on the frozen encoder."""
    kind, seen = ("crop", "cropped") if views == "simclr-flip" else ("full", "cropped and blurred")
    return Recipe(
        f"mnist-simclr-{encoder}-{batch}-{kind}",
        report="A",
        what=f"SimCLR, {encoder} encoder, batch {batch}, views {seen}; frozen, two layers on top",
        data=MNIST,
        method=SimCLR(then="mlp_head", augment=views),
        backbone=BackboneSpec(f"{encoder}-encoder"),
        schedule=Schedule(
            steps=epochs(5, IMAGES, batch),
            batch=batch,
            optimizer="adam",
            lr=1e-3,
            weight_decay=0.0,
            decay="constant",
            average=0.0,
        ),
        published=published,
        correction="The report's encoder saw digits whose bytes had wrapped around, mirrored ones "
        "too, and its loss lacked negatives of the same view. One encoder serves all draws: the "
        "first takes nearly all of the minutes.",
        minutes=minutes,
    )


def self_trained(encoder: str, batch: int, views: str, which: str) -> Recipe:
    """Return a recipe of SIMCLR with self-training on its features instead of the two layers."""
    row = next(row for row in SIMCLR if row[:3] == (encoder, batch, views))
    return replace(
        simclr(*row),
        name=f"mnist-simclr-{encoder}-{batch}-self-training",
        what=f"{which}, frozen; self-training on its features in place of two layers",
        method=SimCLR(then="self_training", augment=views),
        published=None,
        correction="Beyond the report: two layers on 100 labels cannot use all the encoder knows.",
    )


simclr_best_of_report = self_trained("complex", 128, "simclr-flip", "the report's best encoder")
simclr_best_of_ours = self_trained("resnet", 128, "simclr", "our best of these encoders")

# Report B: all 100 labels are trained on.
labels_schedule = Schedule(
    steps=epochs(20, 100, batch=64),
    batch=64,
    optimizer="adam",
    lr=1e-3,
    weight_decay=0.0,
    decay="constant",
    average=0.0,
)
augmented_schedule = replace(labels_schedule, steps=epochs(20, 5_000, batch=64))
simple_cnn = Recipe(
    "mnist-simple-cnn",
    report="B",
    what="two convolutions, 100 labels, no augmentation",
    data=MNIST,
    method=Supervised(augment="none"),
    backbone=BackboneSpec("simple-cnn"),
    schedule=labels_schedule,
    published=0.79,
    correction="Three results of the report came from three different draws of labels.",
    minutes=0.1,
)
simple_cnn_augmented = replace(
    simple_cnn,
    name="mnist-simple-cnn-augmented",
    what="two convolutions, 100 labels, 5,000 augmented images an epoch",
    method=Supervised(augment="digits"),
    schedule=augmented_schedule,
    published=None,
    correction="Promised by the report, never run.",
    minutes=2.0,
)
deep_cnn = replace(
    simple_cnn_augmented,
    name="mnist-deep-cnn",
    what="six convolutions, 100 labels, 5,000 augmented images an epoch",
    backbone=BackboneSpec("deep-cnn"),
    schedule=replace(augmented_schedule, lr=1e-4),
    published=0.23,
    correction="0.23 is an artefact: training images were normalised twice, test images once "
    "(mnist-deep-cnn-as-run). Here all are normalised once.",
    minutes=3.0,
)
deep_cnn_as_run = replace(
    deep_cnn,
    name="mnist-deep-cnn-as-run",
    what="mnist-deep-cnn with the report's bug: training images normalised twice, test images once",
    method=NormalizedTwice(augment="digits"),
    correction="The bug behind 0.23; with it our network ends at chance, below that. Not a setting "
    "to use.",
)

# A labelled batch of 10 and six unlabelled images for each: 60 for the report's 64. Without a
# warm-up the simple CNN's rate is too much for the deep one: see benchmarks/log/recipes.md.
uda = Schedule(steps=5_500, batch=10, lr=0.003, weight_decay=5e-4, average=0.99)
uda_simple = replace(uda, steps=5_000, lr=0.03)
BETWEEN = (
    "The report clamped pixels in [-1, 1] before RandAugment, drew it once for a whole batch, "
    "divided both sides of the divergence by the temperature and dropped the rate by hand while "
    "watching images of its own labels. Here a step is an optimiser step and the rate starts at"
)
sure = UDA(
    unlabeled_weight=1.1,
    unlabeled_ratio=6,
    temperature=0.4,
    threshold=0.8,
    augment="digits",
    weak="none",
    strong="randaugment",
)
every = replace(sure, threshold=0.0)
uda_deep_cnn = Recipe(
    "mnist-uda-deep-cnn",
    report="B",
    what="UDA on the deep CNN: every pseudo-label counts, sharpened by 0.4",
    data=MNIST,
    method=every,
    backbone=BackboneSpec("deep-cnn"),
    schedule=uda,
    published=0.97,
    correction=f"{BETWEEN} {uda.lr}.",
    minutes=10.0,
)
uda_simple_cnn = replace(
    uda_deep_cnn,
    name="mnist-uda-simple-cnn",
    what="UDA on the simple CNN: every pseudo-label counts, sharpened by 0.3",
    method=replace(every, temperature=0.3),
    backbone=BackboneSpec("simple-cnn"),
    schedule=uda_simple,
    published=0.88,
    correction=f"{BETWEEN} {uda_simple.lr}.",
    minutes=7.0,
)
uda_threshold = replace(
    uda_deep_cnn,
    name="mnist-uda-threshold",
    what="UDA on the deep CNN: only pseudo-labels above 0.8 count",
    method=sure,
    published=None,
    correction="The report divided the prediction instead of the target by the temperature, "
    "stepped the schedule by batches and broke when a single image passed.",
)


def labels_only(recipe: Recipe, network: str, correction: str) -> Recipe:
    """Return a recipe that trains on the labels alone, for as many steps as `recipe`."""
    return replace(
        recipe,
        name=f"{recipe.name}-labels",
        what=f"the labels-only twin of UDA on the {network}: same steps, rate, augmented labels",
        method=Supervised(augment=every.augment),
        published=None,
        correction=correction,
        minutes=1.0,
    )


uda_simple_cnn_labels = labels_only(
    uda_simple_cnn, "simple CNN", "The report set UDA beside the network on plain images."
)
uda_deep_cnn_labels = labels_only(
    uda_deep_cnn, "deep CNN", "The report set UDA beside the 0.23 that is an artefact."
)

RECIPES = (
    mlp,
    cnn,
    mlp_augmented,
    cnn_augmented,
    *(simclr(*row) for row in SIMCLR),
    simclr_best_of_report,
    simclr_best_of_ours,
    simple_cnn,
    simple_cnn_augmented,
    uda_simple_cnn,
    uda_simple_cnn_labels,
    deep_cnn,
    uda_deep_cnn,
    uda_deep_cnn_labels,
    uda_threshold,
    deep_cnn_as_run,
)
