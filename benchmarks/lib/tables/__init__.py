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
    groups,
    headline,
    label_problems,
    methods,
    minutes,
    peers,
    pool_shares,
    probes,
    promises,
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
    "minutes": minutes.minutes_grid,
    "timed": minutes.timed,
    "pairs": minutes.pairs,
    "budgets": budgets.budgets,
    "budgets_kept": budgets.budgets_kept,
    "probes": probes.probes,
    "active": active.active,
    "pool_shares": pool_shares.pool_shares,
    "pool_shares_by_source": pool_shares.pool_shares_by_source,
    "peers": peers.peers,
    "coverage": coverage.coverage,
    "coverage_pooled": coverage.coverage_pooled,
    "coverage_auto": coverage.coverage_auto,
    "coverage_auto_in_words": coverage.coverage_auto_in_words,
    "forecast": forecast.forecast,
    "groups": groups.groups,
    "near_copies": groups.near_copies,
    "label_problems": label_problems.label_problems,
    "abstention": promises.abstention,
    "none_of_these": promises.none_of_these,
    "recall": promises.recall,
    "scenes": promises.scenes,
    "guessing": promises.guessing,
    "throughput": speed.throughput,
    "features_speed": speed.features_speed,
    "ingest": speed.ingest,
    "ingest_in_words": speed.ingest_in_words,
}
