"""Draws the sample images that `make demo` runs on: `python -m training.sample_images`."""

from pathlib import Path

from PIL import Image

from training.scenes import draw_scene

FOLDER = Path("workflow_blocks/sample_images")
# Seeds that training never draws, chosen for what they show.
SEEDS = {
    "clutter": 4_000_004,
    "gradient": 4_000_032,
    "night": 4_000_018,
    "stars": 4_000_022,
}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, seed in SEEDS.items():
        Image.fromarray(draw_scene(seed).image).save(FOLDER / f"{name}.jpg", quality=88)


if __name__ == "__main__":
    main()
