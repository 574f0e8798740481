"""Measured accuracies of the recipes: means over draws, from the results of the benchmarks."""

import json
from importlib.resources import files
from typing import NamedTuple

from handful.pipeline.recipes.recipe import Recipe


class Measured(NamedTuple):
    """Test accuracy over n draws."""

    mean: float
    std: float | None  # None for a single draw
    n: int
    minutes: float | None  # per draw; None where the encoder came from the cache
    on: str  # title of the data


def measured() -> dict[str, Measured]:
    """Return recipe name → measured accuracy, for the recipes that were run."""
    text = (files("handful.pipeline.recipes") / "measured.json").read_text(encoding="utf-8")
    return {name: Measured(**found) for name, found in json.loads(text).items()}


def as_json(recipes: list[Recipe]) -> dict[str, list[dict[str, object]]]:
    """Return the output of `handful recipes --json`."""
    known = measured()
    return {
        "recipes": [
            {
                "name": recipe.name,
                "report": recipe.report or None,
                "published": recipe.published,
                "measured": known[recipe.name]._asdict() if recipe.name in known else None,
                "command": recipe.command,
            }
            for recipe in recipes
        ]
    }
