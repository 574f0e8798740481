"""`handful recipes`: list the results of the reports beside our own."""

from handful.cli.options import AsJson


def recipes(as_json: AsJson = False) -> None:
    """List every recipe: what a report published, what we measured, on what, how to run it.

    "Ours" is the mean of the test accuracy over draws of labels, and its standard deviation.

    Example: handful recipes
    """
    from handful.cli.terminal import print_json, print_recipes
    from handful.pipeline.recipes import RECIPES
    from handful.pipeline.recipes.measured import as_json as listed
    from handful.pipeline.recipes.measured import measured

    every = list(RECIPES.values())
    if as_json:
        print_json(listed(every))
    else:
        print_recipes(every, measured())
