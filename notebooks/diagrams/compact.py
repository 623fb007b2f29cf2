"""A diagram's SVG in half the bytes, with nothing that an eye could miss."""

import re

FONTS = {"DejaVuSans-Bold-": "b", "DejaVuSans-": "g", "Cm": "c"}  # the short names of letters begin so
FINE = 16  # letters are drawn in 64ths of a pixel at 100 pixels; a quarter is a fortieth of a point in ordinary text
NUMBER = r"-?\d+(?:\.\d+)?"


def compact(text: str) -> str:
    """The same picture without indentation and names of groups, with rounded places and letters drawn in relative steps."""
    text = re.sub(r"^ +| +$", "", text, flags=re.M)
    text = re.sub(r"<!DOCTYPE[^>]*>\n", "", text)
    version = re.search(r"Matplotlib v[\d.]+", text)
    text = re.sub(r"<metadata>.*</metadata>", f"<!-- {version[0]} -->" if version else "", text, flags=re.S)
    text = re.sub(r'<g id="[a-z]+2?d?_\d+">', "<g>", text)
    text = re.sub(r"<g>\n(<path [^>]*/>)\n</g>", r"\1", text)
    text = text.replace("; stroke-linejoin: miter", "").replace("stroke-dashoffset: 0; ", "")
    text = re.sub(r"translate\([^)]*\)", lambda found: re.sub(NUMBER, lambda n: f"{float(n[0]):.4g}", found[0]), text)
    text = re.sub(r'transform="translate\((\S+) (\S+)\)"/>', shift, text)
    for font, short in FONTS.items():
        text = re.sub(rf'((?:path id="|href="#)){font}', rf"\1{short}", text)
    outline = re.compile(r'(<path id="[^"]*" d=")([^"]*)(" transform="scale\()0\.015625\)')
    text = outline.sub(lambda found: f"{found[1]}{letter(found[2])}{found[3]}{FINE / 64:g})", text)
    return re.sub(r' d="[^"]*"', lambda found: re.sub(r"-?\d+\.\d{3,}", hundredth, found[0]), text)


def hundredth(found: re.Match) -> str:
    """A number of a path, rounded."""
    return f"{round(float(found[0]), 2):g}"


def shift(found: re.Match) -> str:
    """A move of a letter as attributes; one by less than a tenth of a pixel at 100 pixels is none."""
    moves = {"x": round(float(found[1]), 1), "y": round(float(found[2]), 1)}
    return "".join(f'{name}="{value:g}" ' for name, value in moves.items() if value).rstrip() + "/>"


def letter(outline: str) -> str:
    """The outline of a letter in relative steps of whole units; it has lines, parabolas and cubic curves only."""
    x = y = 0
    steps = []
    start = (0, 0)
    for command, numbers in re.findall(r"([MLQCz])([^MLQCz]*)", outline):
        places = [round(float(n) / FINE) for n in numbers.split()]
        moves = "".join(f"{n - (y if k % 2 else x): d}" for k, n in enumerate(places)).strip()
        if command == "z":
            x, y = start
            steps.append("z")
            continue
        steps.append(command.lower() + moves)
        x, y = places[-2:]
        if command == "M":
            start = (x, y)
    return "".join(steps)
