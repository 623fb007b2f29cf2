"""`udlib export`: a trained model as a file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from udlib.cli.options import Model


def export(
    model: Model = Path("model"),
    form: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="onnx|torch-export",
            help="onnx: for ONNX Runtime and many other programs; torch-export: for torch.export.load.",
        ),
    ] = "onnx",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The file to write; default: the name of the model's folder with .onnx or .pt2, beside the folder.",
        ),
    ] = None,
) -> None:
    """Write a trained model as one file that needs no udlib, with all that its use needs beside it as JSON.

    The file holds the network: prepared images in, logits out, any number of images at once. The JSON file says how an image
    is prepared (orientation, size, mean, deviation), how logits become calibrated probabilities, and each class's threshold.
    What was written is read again, and its logits are compared with the model's.

    ONNX needs three packages: pip install onnx onnxscript onnxruntime.

    Example: udlib export --model voc07 --format onnx --out voc07.onnx
    """
    from udlib.models import load
    from udlib.models.export import FORMATS, export, require_form

    require_form(form)
    trained = load(model)
    folder = model.expanduser().resolve()
    files = export(trained, out or folder.with_name(folder.name + FORMATS[form].ending), form)
    print(f"written: {files.model} ({files.model.stat().st_size / 1e6:,.1f} MB) and {files.description}")
    print(f"its logits differ from the model's by at most {files.difference:.1g}, on random images")
