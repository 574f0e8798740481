"""Pictures of the reports for the documentation, and an accessibility check.

    python -m benchmarks run report_shots shots        # docs/report.webp, docs/report-phone.webp
    python -m benchmarks run report_shots comparison   # docs/comparison.webp
    AXE=node_modules/axe-core/axe.min.js python -m benchmarks run report_shots axe

The report is of the hand signs of sign-digits: six photographs of each class labelled, the others
without a label. The comparison is of two methods on the 8x8 digits. `axe` looks at both and at the
data page, on desktop, phone and dark.
"""

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.lib import arguments, record
from benchmarks.lib.chromium import chromium, scratch
from benchmarks.lib.paths import ROOT
from handful.data.cache import data_folder

DOCS = ROOT / "docs"
NAME = "hand-signs"  # of the folder, as it stands in the report
PER_CLASS = 6
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1120, "height": 1480}


def main() -> None:
    parser = arguments.parser(__doc__)
    parser.add_argument("what", choices=("shots", "comparison", "axe"))
    options = parser.parse_args()
    work = scratch()
    if options.what == "comparison":
        shot(compared(work), "comparison.webp", {"viewport": DESKTOP})
    else:
        photographs(work / NAME)
        page = fitted(work)
        if options.what == "shots":
            shot(page, "report.webp", {"viewport": DESKTOP}, "#accuracy")
            shot(page, "report-phone.webp", {"viewport": PHONE, "color_scheme": "dark"})
        else:
            handful(work, "data", NAME, "--out", "about")
            pages = [page, work / "about" / "data.html", compared(work)]
            figures = accessibility(pages, Path(os.environ["AXE"]).read_text())
            record.append("label", "report accessibility", "final", figures)
            print(figures)
    shutil.rmtree(work, ignore_errors=True)


def photographs(target: Path) -> None:
    """Copy sign-digits: PER_CLASS images of a class into its sub-folder, the others to the top."""
    number = 0
    for folder in sorted((data_folder() / "sign-digits").iterdir()):
        if folder.is_dir():
            files = sorted(folder.iterdir())
            (target / folder.name).mkdir(parents=True)
            for place, path in enumerate(files):
                number += 1
                step, at = len(files) // PER_CLASS, place
                inside = folder.name if at % step == 0 and at < step * PER_CLASS else ""
                shutil.copyfile(path, target / inside / f"IMG_{number:04d}{path.suffix}")


def handful(work: Path, *words: str) -> None:
    """Run a command in the folder, so that no path of this machine stands in a picture."""
    subprocess.run([sys.executable, "-m", "handful", *words], cwd=work, check=True)


def fitted(work: Path) -> Path:
    handful(work, "fit", NAME, "--method", "features", "--out", "run")
    return work / "run" / "report.html"


def compared(work: Path) -> Path:
    options = "--per-class 4 --methods supervised,pseudo_label --draws 5 --set steps=300"
    handful(
        work, "compare", "digits", *options.split(), "--estimate", "none", "--out", "comparison"
    )
    return work / "comparison" / "report.html"


def shot(page: Path, name: str, context: dict[str, Any], upto: str = "") -> None:
    """A picture of a page's first screen; `upto` an element, of all above it and of itself."""
    with chromium(**context) as browser:
        browser.goto(page.as_uri())
        content = browser.screenshot()
        if upto:
            # Four classes are enough for a picture.
            browser.add_style_tag(content=".answers:nth-child(n + 5) { display: none; }")
            box = browser.locator(upto).bounding_box()
            height = int(box["y"] + box["height"])
            browser.set_viewport_size({**context["viewport"], "height": height})
            content = browser.screenshot()
        image = Image.open(io.BytesIO(content)).convert("RGB")
        image.save(DOCS / name, "WEBP", quality=80, method=6)


def accessibility(pages: list[Path], axe: str) -> dict[str, Any]:
    """Findings of axe by impact, over all pages and all ways to look at them."""
    found: dict[str, int] = {}
    rules: set[str] = set()
    contexts = ({}, {"viewport": PHONE}, {"color_scheme": "dark"})
    for page in pages:
        for context in contexts:
            with chromium(bypass_csp=True, **context) as browser:
                browser.goto(page.as_uri())
                browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
                browser.add_script_tag(content=axe)
                for violation in browser.evaluate("axe.run()")["violations"]:
                    impact = violation["impact"]
                    found[impact] = found.get(impact, 0) + len(violation["nodes"])
                    rules.add(f"{violation['id']} ({impact})")
    serious = sum(found.get(impact, 0) for impact in ("serious", "critical"))
    views = len(pages) * len(contexts)
    return {"views": views, "serious": serious, "findings": found, "rules": sorted(rules)}
