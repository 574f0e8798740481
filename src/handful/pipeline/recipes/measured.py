"""What was measured: means over draws, made from the benchmarks' lines and kept in the package."""

import json
from importlib.resources import files
from typing import NamedTuple

from handful.pipeline.recipes.recipe import Recipe


class Measured(NamedTuple):
    """Test accuracy over n draws."""

    mean: float
    std: float | None  # None for a single draw
    n: int
    minutes: float | None  # a draw; None where its encoder was there already
    on: str  # the data


def measured() -> dict[str, Measured]:
    """Recipe → what was measured; recipes that were not run are not in it."""
    text = (files("handful.pipeline.recipes") / "measured.json").read_text(encoding="utf-8")
    return {name: Measured(**found) for name, found in json.loads(text).items()}


def as_json(recipes: list[Recipe]) -> dict[str, list[dict[str, object]]]:
    """What `handful recipes --json` prints."""
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
