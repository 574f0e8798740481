"""Pictures of the labelling page for the documentation, a recording, and an accessibility check.

    python -m benchmarks run label_shots shots
    AXE=node_modules/axe-core/axe.min.js python -m benchmarks run label_shots axe

The pictures are of tin10 as it is labelled by the keyboard: docs/label.webp (desktop),
docs/label-tiles.webp, docs/label-phone.webp, docs/label-dark.webp, and the recording
docs/label-session.webp. `axe` looks at each way to label, on desktop, phone and dark, with German
and Chinese class names and with 200 classes (npm install axe-core).
"""

import io
import os
import shutil
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.lib import arguments, record
from benchmarks.lib.chromium import Annotator, chromium, labelling, scratch, unlabelled_copy
from benchmarks.lib.paths import ROOT

DOCS = ROOT / "docs"
PHONE = {"width": 390, "height": 844}
FRAMES = 75  # of the recording, at 5 a second


def main() -> None:
    parser = arguments.parser(__doc__)
    parser.add_argument("what", choices=("shots", "axe"))
    parser.add_argument("--images", type=int, default=2_000)
    options = parser.parse_args()
    work = scratch()
    truth = unlabelled_copy("tin10", work / "photos", options.images)
    if options.what == "shots":
        shots(work, truth)
    else:
        figures = accessibility(work, truth, Path(os.environ["AXE"]).read_text())
        record.append("label", "accessibility", "final", figures)
        print(figures)
    shutil.rmtree(work, ignore_errors=True)


def shots(work: Path, truth: dict[str, str]) -> None:
    with labelling(work / "photos", work) as (_, address, _), chromium() as page:
        page.goto(address)
        page.wait_for_selector("#frame img")
        annotator = Annotator(page, truth, wait=0.4)
        page.evaluate("document.getElementById('target').value = '95'")
        page.dispatch_event("#target", "change")
        while annotator.labels < 60 or not ready(page):
            annotator.one()
        frames = []
        while len(frames) < FRAMES * 2 // 3:
            before = annotator.labels
            annotator.wait = 0.0
            annotator.one()
            page.wait_for_timeout(350)
            if annotator.labels > before:
                frames.append(page.screenshot())
        save(page.screenshot(), "label.webp")
        page.keyboard.press("Shift+P")
        page.wait_for_function(
            "() => Number(document.getElementById('grid').dataset.page ?? 0) > 0"
        )
        save(page.screenshot(), "label-tiles.webp")
        while len(frames) < FRAMES:
            frames.append(page.screenshot())
            page.wait_for_timeout(200)
            if len(frames) % 8 == 0:
                page.keyboard.press("Enter")
        page.emulate_media(color_scheme="dark")
        page.keyboard.press("Escape")
        page.wait_for_timeout(1500)
        save(page.screenshot(), "label-dark.webp")
        page.emulate_media(color_scheme="light")
        page.set_viewport_size(PHONE)
        page.wait_for_timeout(500)
        save(page.screenshot(), "label-phone.webp")
    recording([Image.open(io.BytesIO(frame)).convert("RGB") for frame in frames])


def ready(page: Any) -> bool:
    """Whether there is an estimate, a suggestion and an offer to show."""
    return page.evaluate(
        "window.handful.state.learner.estimate !== null && window.handful.state.offers.length > 0"
        " && window.handful.one.current !== null && window.handful.one.current.suggestion !== null"
    )


def save(content: bytes, name: str) -> None:
    Image.open(io.BytesIO(content)).convert("RGB").save(DOCS / name, "WEBP", quality=80, method=6)


def recording(frames: list[Image.Image]) -> None:
    small = [frame.resize((800, 500), Image.Resampling.LANCZOS) for frame in frames]
    small[0].save(
        DOCS / "label-session.webp", "WEBP", save_all=True, append_images=small[1:],
        duration=200, loop=0, quality=55, method=4, minimize_size=True,
    )  # fmt: skip


def accessibility(work: Path, truth: dict[str, str], axe: str) -> dict[str, Any]:
    """Findings of axe by impact, over all views that are looked at."""
    found: dict[str, int] = {}
    looked, rules = 0, set()
    many = ",".join(["Bär", "Hündin", "大熊猫", "车"] + [f"Klasse {n}" for n in range(196)])
    for number, (classes, context) in enumerate([
        ("", {}),
        ("", {"viewport": PHONE, "has_touch": True}),
        ("", {"color_scheme": "dark"}),
        (many, {}),
        (many, {"viewport": PHONE, "color_scheme": "dark"}),
    ]):  # fmt: skip
        place = work / str(number)
        place.mkdir()
        options = ["--classes", classes] if classes else []
        with (
            labelling(work / "photos", place, *options) as (_, address, _),
            chromium(bypass_csp=True, **context) as page,
        ):
            page.goto(address)
            page.wait_for_selector("#frame img")
            views = [look(page, axe)]
            annotator = Annotator(page, truth)
            annotator.classes = classes.split(",") if classes else []
            while annotator.labels < 24:
                annotator.one()
            page.wait_for_function(
                "() => window.handful.state.learner.estimate !== null", timeout=180_000
            )
            views.append(look(page, axe))
            page.keyboard.press("/")
            views.append(look(page, axe))
            page.keyboard.press("Escape")
            page.evaluate("window.handful.tiles.unsure()")
            page.wait_for_function(
                "() => Number(document.getElementById('grid').dataset.page ?? 0) > 0"
            )
            page.keyboard.press("x")
            views.append(look(page, axe))
            page.keyboard.press("Escape")
            page.click("#to-done")
            views.append(look(page, axe))
            for view in views:
                looked += 1
                for one in view:
                    found[one["impact"]] = found.get(one["impact"], 0) + 1
                    rules.add(one["id"])
                    print(number, one["impact"], one["id"], one["nodes"], flush=True)
    serious = found.get("serious", 0) + found.get("critical", 0)
    return {"views": looked, "serious_or_critical": serious, "by_impact": found,
            "rules": sorted(rules)}  # fmt: skip


def look(page: Any, axe: str) -> list[dict[str, Any]]:
    page.evaluate(axe)
    return page.evaluate(
        "async () => (await axe.run(document)).violations.map(v => ({id: v.id, impact: v.impact,"
        " nodes: v.nodes.slice(0, 3).map(n => n.target.join(' '))}))"
    )


if __name__ == "__main__":
    main()
