"""What speaks for a method and against it, in general; the figures beside it speak for the case."""

import inspect
from typing import NamedTuple

from handful.methods import METHODS


class Note(NamedTuple):
    what: str  # a clause: what it does
    good: str = ""
    bad: str = ""
    unlabeled: bool = True  # whether it learns from images without a label


NOTES = {
    "supervised": Note(
        "trains a network on the labelled images alone",
        "It assumes little about the images and needs no other weights. Symbols, scans and other "
        "images unlike photographs suit it.",
        "It learns nothing from unlabelled images, and on photographs a handful of labels is too "
        "little to learn what a pre-trained network has learned already.",
        unlabeled=False,
    ),
    "features": Note(
        "fits a linear head on the features of a network that stays as it is",
        "Seconds rather than minutes once the features are computed, hardly any setting to get "
        "wrong, and a thorough estimate. Hard to beat on photographs with few labels.",
        "The features stay as they are: where images look unlike photographs, or classes differ "
        "in details, more labels help it less than others. It ignores unlabelled images.",
        unlabeled=False,
    ),
    "mlp_head": Note(
        "fits two layers on features of a frozen network",
        "As cheap as features, and it can bend where one linear layer cannot.",
        "With a handful of labels it bends to chance. It ignores unlabelled images.",
        unlabeled=False,
    ),
    "self_training": Note(
        "fits a linear head on the features of a frozen network, then again on its own confident "
        "guesses",
        "As cheap as features, and unlabelled images sharpen the borders between classes.",
        "It believes itself: where the first guesses are wrong in a regular way, it repeats them. "
        "A class that is rare among the unlabelled images can be swallowed.",
    ),
    "propagation": Note(
        "spreads labels to similar images along a graph of features, then fits a head to them",
        "It follows clusters of any shape; strong where the classes lie apart in the features.",
        "Where classes overlap, labels leak across. It needs many unlabelled images of the same "
        "kind.",
    ),
    "fine_tuning": Note(
        "trains a pre-trained network further",
        "It adapts to what the images are, and gains most as labels grow.",
        "The slowest of its kind, and with very few labels it can fall behind a head on fixed "
        "features.",
    ),
    "deep_propagation": Note(
        "spreads labels over a graph of similar images, has a network learn them, and makes the "
        "next graph from what that sees",
        "A whole group of images that a network on its own takes for the wrong class is put right "
        "by the graph.",
        "It begins in pixels, so images must be alike there: photographs are not. A graph takes "
        "time that grows with the square of the images.",
    ),
    "pseudo_label": Note(
        "trains a network on labels and on its own guesses",
        "The simplest of its kind.",
        "It believes itself: early mistakes are learned.",
    ),
    "mean_teacher": Note(
        "trains a network to agree with its own average over the past",
        "Steady: the average guesses better than the network at any one step.",
        "It gains less than methods with strong augmentation, and doubles the passes.",
    ),
    "uda": Note(
        "trains a network to guess the same for an image and for a strongly augmented view of it",
        "It learns whole guesses, sharpened, not only the likeliest class.",
        "Many steps, and an augmentation that changes the class teaches it wrongly.",
    ),
    "fixmatch": Note(
        "trains a network to repeat its confident guesses under strong augmentation",
        "Guesses count only above its threshold, so that early mistakes teach it less.",
        "Slow on two cores. Below its threshold images count for nothing, and a collapse into few "
        "classes is possible: the share of images used and the classes guessed tell.",
    ),
    "softmatch": Note(
        "trains a network to repeat its guesses under strong augmentation, the surer the more",
        "Every unlabelled image counts a little, and no threshold has to be chosen.",
        "Slow on two cores, and it believes itself: watch the classes guessed.",
    ),
    "simclr": Note(
        "pre-trains a network without labels to recognise an image in two augmented views",
        "It learns from unlabelled images alone; the labels come last and can be very few.",
        "It needs long pre-training and large batches, and its augmentations must fit the images.",
    ),
    "vicreg": Note(
        "pre-trains a network without labels to see two augmented views alike, none like another",
        "It needs no other images to compare with, so small batches serve it.",
        "It needs long pre-training, and its augmentations must fit the images.",
    ),
    "cmc": Note(
        "pre-trains a network without labels to match the brightness of an image to its colours",
        "Its two views need no strong augmentation.",
        "It needs colour, and long pre-training.",
    ),
    "autoencoder": Note(
        "pre-trains a network without labels to redraw its input",
        "Cheap and steady.",
        "What it takes to redraw an image is not what tells classes apart.",
    ),
}


def note(method: str) -> Note:
    """What is known of a method: of one that is not listed, the first line of its file."""
    if method in NOTES:
        return NOTES[method]
    made = METHODS.get(method)
    module = inspect.getmodule(made) if made is not None else None
    first = ((module.__doc__ if module else "") or "").strip().split("\n")[0]
    return Note(first.partition(": ")[2].rstrip("."))
