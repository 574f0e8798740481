"""Commands that change what a user has, killed at forty moments each: what is lost.

    python -m benchmarks run strikes
    python -m benchmarks run strikes --only predict-into

`predict --into` sorts photographs into folders that hold files of the user's; `fit --overwrite`
puts a run in the place of one into whose list labels were typed. Half of the moments are SIGKILL,
half SIGTERM. The strikes are those of tests/pipeline/test_sorting_kill.py and
tests/pipeline/test_kill.py. A line each in results/robustness.jsonl has after how many moments a
label, a model or a photograph was missing, or how many files were, added up.
"""

import os
import signal
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.lib import arguments
from benchmarks.lib.paths import import_from_tests

# Processes that are struck import this file anew, so the rest is imported where it is needed.
LOSSES = {
    "predict-into": {
        "originals": "originals_lost",
        "own": "own_files_lost",
        "copies": "copies_lost",
        "torn": "files_torn",
        "unfinished": "unfinished",
    },
    "fit-overwrite": {
        "originals": "originals_lost",
        "labels": "labels_lost",
        "models": "models_lost",
        "unfinished": "unfinished",
    },
}


def predict_into(root: Path, moments: int) -> Counter:
    import test_sorting_kill

    return test_sorting_kill.strike_predict_into(root, moments)


def fit_overwrite(root: Path, moments: int) -> Counter:
    import test_kill

    found: Counter = Counter()
    for sent in (signal.SIGKILL, signal.SIGTERM):
        (root / sent.name).mkdir()
        found += test_kill.strike_overwrites(root / sent.name, sent, moments // 2)
    return found


def main() -> None:
    from benchmarks.lib import record

    parser = arguments.parser(__doc__)
    parser.add_argument("--only", choices=LOSSES)
    parser.add_argument("--moments", type=int, default=40)
    parser.add_argument("--kind", choices=("dev", "final"), default="dev")
    options = parser.parse_args()
    import_from_tests()
    for name, strike in (("predict-into", predict_into), ("fit-overwrite", fit_overwrite)):
        if options.only in (None, name):
            with tempfile.TemporaryDirectory() as root:
                os.environ["HANDFUL_CACHE"] = f"{root}/cache"
                found = strike(Path(root), options.moments)
            figures = {"moments": found["moments"], "signals": ["SIGKILL", "SIGTERM"]}
            figures |= {shown: found[what] for what, shown in LOSSES[name].items()}
            line = record.append("robustness", f"{name}-struck", options.kind, figures)
            print(line["figures"], flush=True)


if __name__ == "__main__":
    main()
