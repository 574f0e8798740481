"""`handful label --export`: one static file to label images where handful cannot run.

The file holds thumbnails of images drawn at random; no suggestion is shown, so all labels are
blind. They stay in that browser until they are downloaded as a CSV that `fit` reads.
"""

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from handful.data import decode
from handful.data.decode import Unreadable
from handful.errors import HandfulError
from handful.files import write_text
from handful.labeling.marks import class_name
from handful.labeling.photos import FolderPhotos, encoded
from handful.labeling.session import in_random_order, shown_name
from handful.labeling.start import keys_of

SIDE = 320  # pixels of a thumbnail's longer side
LARGEST = 200 * 2**20  # bytes of the page
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="content-security-policy" content="default-src 'none'; img-src data: blob:; \
script-src 'sha256-{script_hash}'; style-src 'sha256-{style_hash}'; base-uri 'none'; \
form-action 'none'">
<title>{title}</title><style>{style}</style></head>
<body><header><h1>{title}</h1><p id="saving" role="status"></p>
<button type="button" id="download" class="main">Download labels.csv</button></header>
<main id="work"><div id="frame"></div><p id="caption"></p>
<div id="classes" role="group" aria-label="Classes"></div>
<p class="row"><label for="new">New class</label> <input id="new" maxlength="100">
<button type="button" id="add">Add</button>
<button type="button" id="unsure">Unsure <kbd>Space</kbd></button>
<button type="button" id="undo">Undo <kbd>⌫</kbd></button></p></main>
<script type="application/json" id="data">{data}</script>
<script type="module">{script}</script></body></html>
"""


def export_page(
    source: str, target: Path, classes: Sequence[str], most: int, follow_links: bool = False
) -> int:
    """Write the page; return the number of images in it.

    Args:
        classes: to start with; more can be typed on the page.
        most: images, drawn at random as the random sample of a session is.

    Raises:
        HandfulError: the folder has no readable image, or the page would be too large.
    """
    photos = FolderPhotos(source, follow_links)
    names: list[str] = []
    for name in classes:
        names.append(class_name(name, names))
    images: list[dict[str, str]] = []
    size = 0
    with decode.guarded():
        for number in in_random_order(photos.names):
            if len(images) == most:
                break
            try:
                picture = encoded(decode.read_within(photos.root / photos.names[number], SIDE))
            except Unreadable:
                continue
            text = base64.b64encode(picture.content).decode()
            size += len(text)
            if size > LARGEST:
                raise HandfulError(
                    f"{len(images)} images take {LARGEST >> 20} MB; give --most {len(images)}"
                )
            images.append(
                {"file": photos.names[number], "shown": shown_name(photos.names[number]),
                 "picture": f"data:{picture.kind};base64,{text}"}
            )  # fmt: skip
    if not images:
        raise HandfulError(f"{source} holds no image that can be read")
    write_text(target, page_of(images, names, f"handful label {source}"))
    return len(images)


def page_of(images: Sequence[dict[str, str]], classes: Sequence[str], title: str) -> str:
    """The page as text. No name in it can become markup or script."""
    folder = files("handful.labeling").joinpath("page")
    script = folder.joinpath("static.js").read_text("utf-8")
    style = folder.joinpath("style.css").read_text("utf-8")
    key = hashlib.sha256("\n".join(image["file"] for image in images).encode(errors="replace"))
    value = {
        "images": images,
        "classes": classes,
        "keys": keys_of(classes),
        "key": key.hexdigest()[:16],
    }
    data = json.dumps(value).replace("<", "\\u003c").replace("&", "\\u0026")
    return PAGE.format(
        script_hash=_hash(script),
        style_hash=_hash(style),
        title=html.escape(shown_name(title)),
        style=style,
        script=script,
        data=data,
    )


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
