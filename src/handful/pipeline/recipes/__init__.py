"""All recipes by name: results of five student reports, reproduced and corrected.

A recipe is data. `handful recipes` lists the recipes beside measured figures, and `handful
reproduce NAME` runs one. `python -m benchmarks resources` writes
the figures to `measured.json`.
"""

from handful.errors import HandfulError
from handful.pipeline.recipes import cifar10, mnist, stl10
from handful.pipeline.recipes.recipe import Data, Recipe, epochs
from handful.text import did_you_mean

__all__ = ["RECIPES", "Data", "Recipe", "epochs", "find"]

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe for recipe in (*mnist.RECIPES, *cifar10.RECIPES, *stl10.RECIPES)
}


def find(name: str) -> Recipe:
    """Return the recipe of a name; HandfulError with a suggestion for an unknown name."""
    if name not in RECIPES:
        raise HandfulError(
            f"no recipe {name!r}.{did_you_mean(name, RECIPES)} `handful recipes` lists them"
        )
    return RECIPES[name]
