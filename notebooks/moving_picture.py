"""Draw the README's moving picture: `python -m notebooks.moving_picture` moves the slider of lesson 03 through every λ.

Each frame is the picture that the explorer of lesson 03 shows, below a drawing of its slider and of three readings. The
GIF stops after two rounds, because a picture that never stops keeps people from reading.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from udlib.course.explorers import LambdaExplorer
from udlib.course.recipes import sweep
from udlib.course.store import load_or_run

FILE = Path(__file__).resolve().parent / "images" / "lambda_explorer.gif"
SECONDS = 1.4  # a frame, long enough to read its numbers
ROUNDS = 2
COLOURS = 96
STRIP = 104  # pixels above the explorer's picture
INK, PALE, KNOB = (26, 26, 26), (150, 150, 150), (0, 90, 156)
READINGS = ("mAP", "ECE, pooled", "ECE, p ≥ 0.5")


def draw_frames(explorer: LambdaExplorer) -> list[Image.Image]:
    """Draw a frame for each position of the slider of λ.

    Args:
        explorer: Its other slider, the seed, stays where it is.
    """
    values = explorer.sliders["λ"].options
    frames = []
    for position, lam in enumerate(values):
        explorer.move(λ=lam)
        seed = explorer.sliders["seed"].value
        picture = Image.open(io.BytesIO(explorer.rendered.picture)).convert("RGB")
        readings = explorer.measure(lam, seed)
        words = "     ".join(f"{name}  {100 * readings[name].estimate:.1f} %" for name in READINGS)
        frame = Image.new("RGB", (picture.width, picture.height + STRIP), "white")
        _draw_strip(ImageDraw.Draw(frame), picture.width, values, position, words)
        frame.paste(picture, (0, STRIP))
        frames.append(frame)
    return frames


def _draw_strip(draw: ImageDraw.ImageDraw, width: int, values: Sequence[float], position: int, words: str) -> None:
    """The slider with a mark for each trained λ, its knob, and the readings below."""
    large, small = (ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size) for size in (19, 15))
    left, right, y = 130, width - 30, 30
    places = [left + (right - left) * k / (len(values) - 1) for k in range(len(values))]
    draw.text((20, y), f"λ = {values[position]:g}", fill=INK, font=large, anchor="lm")
    draw.line([(left, y), (right, y)], fill=PALE, width=4)
    for x, value in zip(places, values, strict=True):
        draw.line([(x, y - 7), (x, y + 7)], fill=PALE, width=2)
        draw.text((x, y + 22), f"{value:g}", fill=INK, font=small, anchor="mm")
    draw.ellipse([places[position] - 10, y - 10, places[position] + 10, y + 10], fill=KNOB)
    draw.text((width / 2, y + 52), words, fill=INK, font=small, anchor="mm")


def save(frames: Sequence[Image.Image], path: Path) -> None:
    """Save the frames as a GIF that all share one palette, so that nothing flickers."""
    palette = frames[-1].quantize(COLOURS)
    first, *others = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    milliseconds = int(1000 * SECONDS)
    # The format counts the repetitions, not the rounds.
    first.save(path, save_all=True, append_images=others, duration=milliseconds, loop=ROUNDS - 1, optimize=True)


if __name__ == "__main__":
    runs = {lam: [load_or_run(recipe) for recipe in recipes[:1]] for lam, recipes in sweep().items()}
    save(draw_frames(LambdaExplorer(runs, warm=False)), FILE)
    print(f"notebooks/images/{FILE.name}: {FILE.stat().st_size / 1e6:.2f} MB")
