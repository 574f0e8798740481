"""Reports C and E: CIFAR-10 with 100 labels, and with all of them."""

from dataclasses import replace

from handful.methods.schedule import Schedule
from handful.methods.self_training import SelfTraining
from handful.methods.supervised import Supervised
from handful.models.classifier import BackboneSpec
from handful.pipeline.recipes.recipe import Data, Recipe, epochs

# The copy as JPEG files has lost the order of the images, so "the first 100" becomes a draw.
FIRST_100 = (
    Data("cifar10", "CIFAR-10, first 100 labels", first=100),
    Data("cifar10-jpeg", "CIFAR-10 (JPEG), 10 labels per class", per_class=10),
)
ALL = (
    Data("cifar10", "CIFAR-10, all labels"),
    Data("cifar10-jpeg", "CIFAR-10 (JPEG), all labels"),
)

# Report C.
resnet18 = Recipe(
    "cifar100labels-resnet18",
    report="C",
    what="ResNet-18 from scratch on 100 labels, no augmentation",
    data=FIRST_100,
    method=Supervised(augment="none"),
    backbone=BackboneSpec("resnet18"),
    schedule=Schedule(
        steps=epochs(100, 100, batch=10),
        batch=10,
        optimizer="adam",
        lr=1e-3,
        weight_decay=0.0,
        decay="step",
        decay_every=epochs(30, 100, batch=10),
        average=0.0,
    ),
    published=0.1940,
    correction="The report's rate of 0.1 is a hundred times too high for Adam, and its images were "
    "not normalised.",
    minutes=5.0,
)
transfer = replace(
    resnet18,
    name="cifar100labels-transfer",
    what="ImageNet weights, all layers trained (EfficientNet-Lite0 in place of ResNet-18)",
    backbone=BackboneSpec("lite0"),
    size=128,
    published=0.2982,
    correction="The report fed 32 pixels to a network made for 224; here images are enlarged to "
    "128. The network is the one whose weights come with the install.",
    minutes=6.0,
)
augment = replace(
    resnet18,
    name="cifar100labels-augment",
    what="cifar100labels-resnet18 with flips and padded crops",
    method=Supervised(augment="flip-crop"),
    published=0.1984,
    correction="The report's rate of 0.1 is a hundred times too high for Adam.",
)
weak = replace(
    resnet18,
    name="cifar100labels-weak",
    what="49,900 unlabelled images too: self-training on ImageNet features",
    method=SelfTraining(),
    backbone=BackboneSpec("lite0", {"stages": 3}),
    schedule=None,
    size=160,
    published=None,
    correction="Asked of the report and left unanswered. The first draw also computes the features "
    "of 60,000 images, about 15 minutes.",
    minutes=1.0,
)

# Report E. Every recipe adds one thing to the one before it.
BATCH, TRAINED = 32, 40_000
adam = Schedule(
    steps=epochs(10, TRAINED, BATCH),
    batch=BATCH,
    optimizer="adam",
    lr=1e-3,
    weight_decay=0.0,
    decay="constant",
    average=0.0,
    validation=0.2,
    looks=25,
)
decayed = replace(adam, weight_decay=1e-5)
longer = replace(decayed, steps=epochs(25, TRAINED, BATCH))
cnn = Recipe(
    "cifar10-cnn",
    report="E",
    what="three convolutions, 40,000 labels to train on and 10,000 to look at",
    data=ALL,
    method=Supervised(augment="none"),
    backbone=BackboneSpec("cifar-cnn"),
    schedule=adam,
    published=0.7177,
    correction="Every improvement of the report was chosen by its test accuracy; here the chain is "
    "run as it stands.",
    minutes=3.0,
)
decay = replace(
    cnn,
    name="cifar10-cnn-decay",
    what="+ weight decay of 1e-5, as Adam's L2",
    schedule=decayed,
    published=0.7289,
)
dropout = replace(
    decay,
    name="cifar10-cnn-dropout",
    what="+ dropout of a half, twice; 25 epochs from here on",
    backbone=BackboneSpec("cifar-cnn", {"dropout": 0.5}),
    schedule=longer,
    published=0.7445,
    minutes=7.0,
)
augmented = replace(
    dropout,
    name="cifar10-cnn-augment",
    what="+ flips, brightness, contrast and saturation by a fifth",
    method=Supervised(augment="flip-jitter"),
    published=0.7550,
    correction="In the report each image kept one frozen augmentation for all epochs, validation "
    "images too; here every view is new and validation images are plain.",
    minutes=9.0,
)
nobias = replace(
    augmented,
    name="cifar10-cnn-nobias",
    what="- biases of convolutions and dense layers",
    backbone=BackboneSpec("cifar-cnn", {"dropout": 0.5, "bias": False}),
    published=0.7663,
)
norm = replace(
    nobias,
    name="cifar10-cnn-norm",
    what="+ BatchNorm after every convolution; rate 7e-4",
    backbone=BackboneSpec("cifar-cnn", {"dropout": 0.5, "bias": False, "norm": True}),
    schedule=replace(longer, lr=7e-4),
    published=0.7770,
    minutes=10.0,
)
seeds = replace(
    norm,
    name="cifar10-cnn-seeds",
    what="ten seeds of cifar10-cnn-norm, the curves of each and their band",
    published=None,
    correction="The report ran one seed.",
    draws=10,
)

# Beyond the reports: all 50,000 labels, as far up as an hour on two cores reaches.
# airbench94 trains with a batch of 1,024, rate 1.5 and weight decay 1.3e-3 (its sums written as
# means); half the batch at half the rate takes as long and steps twice as often. Its network is
# narrower, 64 and 256 channels: see benchmarks/log/recipes.md.
FAST_BATCH = 500
fast = Recipe(
    "cifar10-fast",
    report="",
    what="a network made for speed, 50,000 labels, 36 epochs",
    data=ALL,
    method=Supervised(augment="flip-crop-cut", label_smoothing=0.2),
    backbone=BackboneSpec("fast", {"base": 128, "width": 384, "shifted": True}),
    schedule=Schedule(
        steps=epochs(36, 50_000, FAST_BATCH),
        batch=FAST_BATCH,
        lr=0.75,
        momentum=0.85,
        weight_decay=1.3e-3,
        decay="linear",
        warmup=0.23,
        average=0.99,
        looks=36,
    ),
    precision="bf16",
    minutes=55.0,
    draws=3,
    on_devices=True,
)

RECIPES = (
    resnet18,
    transfer,
    augment,
    weak,
    cnn,
    decay,
    dropout,
    augmented,
    nobias,
    norm,
    seeds,
    fast,
)
