"""Write the pictures of the README. Run from the repository root: `python docs/make_pictures.py`."""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from clp_hf.data.embedded import GROUPS, embedded_birds


def embedded_birds_picture(path: Path, columns: int = 8, size: int = 96, gap: int = 4, seed: int = 0) -> None:
    """A row of examples for each of the four groups, and one row of the last group's masks."""
    test = embedded_birds(4, 4, 8 * columns * 4, image_size=size, seed=seed)["test"]
    groups = test["group"]
    title = 22
    sheet = Image.new("RGB", (columns * (size + gap) - gap, 5 * (size + title)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for row, name in enumerate([*GROUPS, "masks of the last row"]):
        group = min(row, len(GROUPS) - 1)
        rows = [index for index, value in enumerate(groups) if value == group][:columns]
        top = row * (size + title)
        draw.text((2, top + 3), name.replace("_", " "), fill="black", font=font)
        for column, example in enumerate(test.select(rows)):
            picture = example["mask" if row == len(GROUPS) else "image"].convert("RGB")
            sheet.paste(picture, (column * (size + gap), top + title))
    sheet.save(path, optimize=True)


if __name__ == "__main__":
    embedded_birds_picture(Path(__file__).with_name("embedded_birds.png"))
