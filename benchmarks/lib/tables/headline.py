"""The rows of the README, and every draw of them."""

from benchmarks.lib import record
from benchmarks.lib.tables.shown import accuracy, command, markdown, minutes, percent, published
from handful.text import in_seconds

# Row of the README's table → what it is, and the best figure that a report published for as many
# labels and the same help: none, unlabelled images, ImageNet weights.
HEADLINE = {
    "digits-supervised": ("digits 8x8, 10 labels per class, from scratch", None),
    "digits-deep-propagation": (
        "digits 8x8, with 1,338 unlabelled images, deep label propagation from scratch",
        None,
    ),
    "mnist-supervised": ("MNIST, 10 labels per class, from scratch", 0.8369),
    "mnist-fixmatch": (
        "MNIST, the same with 59,900 unlabelled images, FixMatch from scratch",
        0.97,
    ),
    "mnist-deep-propagation": (
        "MNIST, with the same images, deep label propagation from scratch",
        0.97,
    ),
    "sign-digits-supervised": (
        "Sign Language Digits (photographs), 10 labels per class, from scratch",
        None,
    ),
    "cifar10-jpeg-features": (
        "CIFAR-10 (JPEG), 10 labels per class, linear head on ImageNet features",
        0.2982,
    ),
    "cifar10-jpeg-self-training": (
        "CIFAR-10 (JPEG), the same with 49,900 unlabelled images, self-training",
        0.2982,
    ),
    "cifar10-jpeg-fine-tuning": (
        "CIFAR-10 (JPEG), the last layers of a network fine-tuned on the guesses of a mixture",
        0.2982,
    ),
}
# The same of a row with a budget: its name and budget → what it is, and the reports' best.
HEADLINE_TIMED = {
    ("cifar10-jpeg-simclr backbone=fast size=32 temperature=0.1 then=propagation", "20m"): (
        "CIFAR-10 (JPEG), 10 labels per class, SimCLR on all training images and label "
        "propagation, from scratch",
        0.1984,
    ),
}
# Rows that are only in docs/results.md.
MORE = (
    "sign-digits-auto",
    "tin10-auto",
    "fashion-mnist-auto",
    "cifar10-jpeg-auto",
    "cifar10-jpeg-auto-40",
    "steel-auto",
    "digits-auto",
    "mnist-auto",
    "sign-digits-fine-tuning",
    "tin10-features",
    "tin10-self-training",
    "tin10-fine-tuning",
)


def headline() -> str:
    """Accuracy of every final row that has been run."""
    rows = [
        [what, accuracy(lines), published(report), minutes(lines), command(lines)]
        for name, (what, report) in HEADLINE.items()
        if (lines := record.final("draws", name))
    ]
    for (name, budget), (what, report) in HEADLINE_TIMED.items():
        lines = [
            x for x in record.final("minutes", name, apart="hardware") if x["budget"] == budget
        ]
        if lines := [x for x in lines if x["hardware"] == lines[-1]["hardware"]]:
            time = f"{in_seconds(budget) / 60:g} min"
            rows.append([what, accuracy(lines), published(report), time, command(lines)])
    header = ["task", "test accuracy", "reports' best", "time a draw", "command"]
    return markdown(header, rows)


def draws() -> str:
    """Every final draw of every row, with the estimate from the labels alone where made."""
    rows = []
    for name in (*HEADLINE, *MORE):
        for line in record.final("draws", name):
            figures = line["figures"]
            estimate = figures["estimate"]
            known = percent(estimate["accuracy"]) if estimate else "–"
            interval = (
                f"{percent(estimate['low'])} to {percent(estimate['high'])}" if estimate else ""
            )
            n = f"{figures['n_test']:,}"
            row = [name, line["draw"], percent(figures["test_accuracy"]), n, known, interval]
            rows.append([*row, f"{figures['seconds']:.0f}", line["commit"]])
    header = ["row", "draw", "test accuracy", "images", "estimate", "90 % interval", "s", "commit"]
    return markdown(header, rows)
