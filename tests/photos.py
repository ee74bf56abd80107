"""The real photos of the test data, with their labels."""

import csv
from pathlib import Path

MAIN = 33  # photos of each main label of the clothing; the others have ten or fewer


def listed(folder: Path, name: str) -> list[tuple[Path, str]]:
    if name == "grocery":
        rows = csv.DictReader((folder / "grocery/labels.csv").read_text().splitlines())
        return [(folder / "grocery" / row["path"], row["class"]) for row in rows]
    rows = list(csv.DictReader((folder / "clothing/images.csv").read_text().splitlines()))
    labels = [row["label"] for row in rows]
    main = {label for label in labels if labels.count(label) >= MAIN}
    images = folder / "clothing/images"
    return [(images / f"{r['image']}.jpg", r["label"]) for r in rows if r["label"] in main]
