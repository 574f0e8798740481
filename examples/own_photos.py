"""Own photos: train on a folder of which a few images are labelled, and sort the rest.

    python examples/own_photos.py photos/ run/

Sub-folders of photos/ are classes; images at the top or in unlabeled/ have no label.
"""

import sys
from pathlib import Path

import handful


def main(photos: Path, out: Path, **options: object) -> None:
    images = handful.load(photos)
    print(
        f"{len(images.labeled)} of {len(images)} images have a label: {', '.join(images.classes)}"
    )

    run = handful.fit(images, out=out, **options)  # by default what suits the images, in 3 minutes
    low, high = run.estimate["low"], run.estimate["high"]
    if low is None:  # too few labels to tell
        print(run.estimate["how"])
    else:
        print(f"on new images like these it should be right {low:.0%} to {high:.0%} of the time")

    predictions = run.predict(images[images.unlabeled])
    for name, label, confidence in zip(
        predictions.names, predictions.labels, predictions.confidence, strict=True
    ):
        print(f"{name}: {label} ({confidence:.0%} sure)")
    predictions.into_folders(photos, out / "sorted")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
