"""The tables of README.md and docs/: what stands between `<!-- table NAME -->` and `<!-- end -->`.

One module a subject; a table is a function of nothing, from the lines in results/ to Markdown.
"""

from collections.abc import Callable
from functools import partial

from benchmarks.lib.tables import (
    active,
    budgets,
    coverage,
    curves,
    forecast,
    gap,
    headline,
    label,
    label_problems,
    methods,
    minutes,
    peers,
    probes,
    recipes,
    regret,
    speed,
)
from handful.methods import METHODS

TABLES: dict[str, Callable[[], str]] = {
    "headline": headline.headline,
    "draws": headline.draws,
    "recipes": recipes.recipes,
    "twins": recipes.twins,
    "simclr_seeds": recipes.simclr_seeds,
    "gap": gap.gap,
    **{f"settings_{name}": partial(methods.method_settings, name) for name in METHODS},
    **{f"figures_{name}": partial(methods.method_figures, name) for name in METHODS},
    "curves": curves.curves,
    "regret": regret.regret,
    "regret_in_words": regret.regret_in_words,
    "minutes": minutes.minutes_grid,
    "timed": minutes.timed,
    "pairs": minutes.pairs,
    "budgets": budgets.budgets,
    "budgets_kept": budgets.budgets_kept,
    "probes": probes.probes,
    "active": active.active,
    "peers": peers.peers,
    "coverage": coverage.coverage,
    "coverage_pooled": coverage.coverage_pooled,
    "forecast": forecast.forecast,
    "label_problems": label_problems.label_problems,
    "throughput": speed.throughput,
    "features_speed": speed.features_speed,
    "label_keys": label.keys,
    "label_sessions": label.label_sessions,
    "label_curve": label.curve,
    "label_times": label.times,
    "label_safe": label.safe,
    "ingest": speed.ingest,
    "ingest_in_words": speed.ingest_in_words,
}
