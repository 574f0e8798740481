"""Write measured.json of the recipes from the lines in benchmarks/results/recipes.jsonl.

A line of other settings than the recipe has today is of the past: it stays, and does not count.

python benchmarks/measured.py          # rewrite what changed
python benchmarks/measured.py --check  # exit 1 if anything would change
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import record
from handful.methods.base import as_json
from handful.methods.self_supervised import SelfSupervised
from handful.pipeline.recipes import RECIPES
from handful.pipeline.recipes.recipe import Data, Recipe

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "src" / "handful" / "pipeline" / "recipes" / "measured.json"


def measured(recipe: Recipe, lines: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Over the last line of every draw, on the first of the recipe's data that was measured."""
    own = [line for line in lines if made_by(recipe, line)]
    for data in recipe.data:
        last = {line["draw"]: line for line in own if line["on"] == data.title}
        if not last:
            continue
        accuracies = [line["figures"]["test_accuracy"] for line in last.values()]
        seconds = mean(line["figures"]["seconds"] for line in last.values())
        return {
            "mean": round(mean(accuracies), 5),
            "std": round(stdev(accuracies), 5) if len(accuracies) > 1 else None,
            "n": len(accuracies),
            "minutes": None if encoder_was_there(recipe, data, seconds) else round(seconds / 60, 4),
            "on": data.title,
        }
    return None


def encoder_was_there(recipe: Recipe, data: Data, seconds: float) -> bool:
    """Whether runs that each need an encoder of their own took too little time to have made it."""
    own = isinstance(recipe.method, SelfSupervised) and not data.per_class
    return own and recipe.schedule is not None and seconds < 30 * recipe.minutes


def made_by(recipe: Recipe, line: dict[str, Any]) -> bool:
    """Whether a line is of the recipe as it is today, as far as both say what was set.

    Not compared are fields that came after the line was written, what a recipe leaves to its
    method, size, precision, copies, and what a named pipeline does.
    """
    if line["name"] != recipe.name:
        return False
    backbone = recipe.backbone
    today = {
        "method": as_json(recipe.method),
        "schedule": None if recipe.schedule is None else asdict(recipe.schedule),
        "backbone": None if backbone is None else asdict(backbone),
    }
    for part, wanted in json.loads(json.dumps(today)).items():
        found = line["settings"][part]
        if wanted and found:
            both = wanted.keys() & found.keys() - {"seed"}  # a method's own seed is the draw's
            if any(found[key] != wanted[key] for key in both):
                return False
    return True


def text() -> str:
    lines = record.read("recipes")
    if strange := {line["name"] for line in lines} - set(RECIPES):
        raise SystemExit(f"lines of recipes that do not exist: {', '.join(sorted(strange))}")
    found = {name: measured(recipe, lines) for name, recipe in RECIPES.items()}
    return json.dumps({k: v for k, v in found.items() if v is not None}, indent=1) + "\n"


def main() -> None:
    stale = not TARGET.exists() or TARGET.read_text() != text()
    if "--check" in sys.argv:
        sys.exit(f"run python benchmarks/measured.py: {TARGET} is stale" if stale else 0)
    if stale:
        TARGET.write_text(text())


if __name__ == "__main__":
    main()
