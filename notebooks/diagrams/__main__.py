"""Draw the diagrams: `python -m notebooks.diagrams [--only PATTERN]`, the lessons' names as in `notebooks/build.py`."""

import argparse
from pathlib import Path

from notebooks.diagrams.catalogue import diagrams, drawn

IMAGES = Path(__file__).resolve().parents[1] / "images"

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--only", default="*", help="lessons whose name matches, e.g. 02")
for name, draw in diagrams(parser.parse_args().only).items():
    (IMAGES / f"{name}.svg").write_bytes(drawn(draw).svg(name))
    print(f"notebooks/images/{name}.svg", flush=True)
