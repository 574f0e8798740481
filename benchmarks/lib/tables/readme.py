"""What the README, the questions and the reference show."""

from statistics import mean

from benchmarks.lib import record
from benchmarks.lib.tables.shown import Line, accuracy, markdown, minutes

DEFAULT = "the default"
# Row of `draws` → what a reader makes of it: the images, what else was there, and the method.
SHORT = {
    "sign-digits-auto": ("photos of ten hand signs", "10 of each class", DEFAULT),
    "tin10-auto": ("small photos of ten kinds of things", "10 of each class", DEFAULT),
    "steel-auto": ("photos of six kinds of flaws in steel", "10 of each class", DEFAULT),
    "cifar10-jpeg-auto": ("tiny photos of ten kinds (CIFAR-10)", "10 of each class", DEFAULT),
    "fashion-mnist-auto": ("small pictures of ten kinds of clothes", "10 of each class", DEFAULT),
    "mnist-deep-propagation": (
        "handwritten digits",
        "10 of each class, and 59,900 images without",
        "`deep_propagation`",
    ),
}


def headline_short() -> str:
    """A few tasks that say what to expect."""
    rows = [
        [images, labels, method, accuracy(lines), minutes(lines)]
        for name, (images, labels, method) in SHORT.items()
        if (lines := record.final("draws", name))
    ]
    header = ["images", "labels", "method", "right on new images", "time, one core"]
    return markdown(header, rows)


def faq_labels() -> str:
    """Accuracy of `features` by source and labels per class."""
    cells: dict[str, dict[int, list[float]]] = {}
    for line in record.final("curves"):
        made = line["settings"]
        if made["method"]["name"] == "features":
            row = cells.setdefault(made["source"], {})
            row.setdefault(made["per_class"], []).append(line["figures"]["test_accuracy"])
    counts = (2, 4, 10, 25, 100)
    rows = [
        [source, *(f"{100 * mean(found[n]):.0f} %" if n in found else "–" for n in counts)]
        for source, found in sorted(cells.items())
    ]
    return markdown(["images", *(f"{n} labels a class" for n in counts)], rows)


def fit_screen() -> str:
    """What `handful fit` printed at its end, in the last such run, timed or not."""
    lines = [one for one in record.read("first_classifier") if one["name"] in ("cold", "screen")]
    return f"```text\n{lines[-1]['figures']['screen']}\n```\n" if lines else ""


def first_in_words() -> str:
    """How soon the first classifier is there, and all images are classified."""
    said = []
    for name, when in (("cold", "the first time"), ("warm", "the second time")):
        if lines := first_classifier(name):
            found = lines[-1]["figures"]
            said.append(
                f"{when} the first classifier was there after {found['first_seconds']:.1f} seconds "
                f"and all photos were classified after {found['classified_seconds']:.1f}"
            )
    if not said:
        return ""
    images, labels = (lines[-1]["figures"][key] for key in ("images", "labels"))
    return (
        f"{images:,} photographs of twelve megapixels with {labels} labels, on two cores: "
        f"{'; '.join(said)}.\n"
    )


def first_classifier(name: str) -> list[Line]:
    return record.final("first_classifier", name)


def commands() -> str:
    """The help of every command."""
    import typer

    from handful.cli import app

    group = typer.main.get_command(app)
    parts = []
    found = {}
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found |= {f"{name} {key}": one for key, one in inner.items()} if inner else {name: command}
    for name, command in found.items():
        context = typer.Context(command, info_name=f"handful {name}", terminal_width=80)
        parts.append(f"## handful {name}\n\n```text\n{command.get_help(context).rstrip()}\n```\n")
    return "\n".join(parts)
