"""Makes the README's picture from what the demo left: `make demo ARGS=--once && .venv/bin/python docs/pictures.py`."""

from pathlib import Path

from PIL import Image

DEMO = Path("demo")
SHOWN = (
    ("flange", "good", "000"),
    ("flange", "dent", "000"),
    ("flange", "rust", "000"),
    ("flange", "crack", "000"),
    ("cloth", "good", "000"),
    ("cloth", "hole", "000"),
    ("cloth", "foreign_fibre", "000"),
)
EDGE, GAP = 180, 4
TARGET = Path("docs/images/verdicts.jpg")


def main() -> None:
    """Parts above, the service's heatmaps of them below."""
    sheet = Image.new("RGB", (len(SHOWN) * (EDGE + GAP) - GAP, 2 * EDGE + GAP), "white")
    for column, (category, defect, name) in enumerate(SHOWN):
        part = DEMO / "parts" / category / "test" / defect / f"{name}.png"
        heatmap = DEMO / "heatmaps" / f"{category}-{defect}-{name}.png"
        for row, file in enumerate((part, heatmap)):
            tile = Image.open(file).convert("RGB").resize((EDGE, EDGE), Image.Resampling.LANCZOS)
            sheet.paste(tile, (column * (EDGE + GAP), row * (EDGE + GAP)))
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(TARGET, quality=88)


if __name__ == "__main__":
    main()
