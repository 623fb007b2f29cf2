"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from udlib.datasets.layouts import Source

DATA = "A folder of labelled images in a known layout (VOC, …), or scenes, digits or photos, which the course knows by name."
BY_NETWORK = "default: what suits the network"
Data = Annotated[str, typer.Argument(metavar="DATA", help=DATA)]
Out = Annotated[
    Path, typer.Option(metavar="FOLDER", help="Folder for the model; the same command resumes a stopped training.")
]
Model = Annotated[Path, typer.Option(metavar="FOLDER", envvar="UDLIB_MODEL", help="The trained model.")]
Network = Annotated[
    str | None,
    typer.Option(
        help="small_narrow, small, small_wide (for 64 px and a CPU), efficientnet_lite0, _lite1, _lite2 (fine-tuned at "
        "224 px; need no download), resnet18, resnet101, vgg19_bn or mobilenet_v2 (fine-tuned at 448 px, on a GPU), or "
        "timm:NAME, any convolutional network of timm; default: that of --from, or small."
    ),
]
Size = Annotated[int | None, typer.Option(min=16, help=f"Side of the square images in pixels; {BY_NETWORK}.")]
Epochs = Annotated[int | None, typer.Option(min=1, help=f"Times through the training images; {BY_NETWORK}.")]
Batch = Annotated[int | None, typer.Option(min=2, help=f"Images per step; {BY_NETWORK}.")]
Lr = Annotated[float | None, typer.Option(help=f"Highest learning rate; {BY_NETWORK}.")]
HeadLr = Annotated[
    float | None, typer.Option(help=f"Highest learning rate of everything except the backbone; {BY_NETWORK}.")
]
Freeze = Annotated[
    int | None,
    typer.Option(min=0, help=f"Do not train the stem and this many of the network's first stages; {BY_NETWORK}."),
]
Start = Annotated[
    Path | None,
    typer.Option(
        "--from",
        "--start",
        metavar="FOLDER",
        help="A trained model, with whose weights the training begins: of the same classes, or with --new-head of others. "
        "Its network and its size are the defaults.",
    ),
]
NewHead = Annotated[
    bool,
    typer.Option(
        "--new-head",
        help="Let the model of --from know other classes, or another order: those with the same name keep their weights.",
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        help=f"Pretrained weights: torchvision's, such as IMAGENET1K_V1, efficientnet_lite's IMAGENET1K, timm's pretrained "
        f"(which it may have to download) or a .safetensors file of them, or none; {BY_NETWORK}."
    ),
]
Seed = Annotated[
    int, typer.Option(min=0, max=2**32 - 1, help="The same seed gives the same model, bit for bit on a CPU.")
]
Flip = Annotated[bool, typer.Option(help="Mirror images at random; not for letters, left and right hands, …")]
Crop = Annotated[
    bool,
    typer.Option(
        "--crop",
        help="Train on crops at random scales and places, out of images 8/7 as large "
        "(512 px for 448), as the paper's code does.",
    ),
]
Ema = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        help="Keep a running average of the weights over this share of all steps, "
        "0.065 say; 0: the weights as they are.",
    ),
]
Compile = Annotated[bool, typer.Option("--compile", help="Use torch.compile; worth it for large networks on a GPU.")]
Erase = Annotated[float, typer.Option(min=0, max=1, help="Chance of random erasing (CutOut).")]
Difficult = Annotated[
    str, typer.Option(help="What VOC's difficult labels count as in training: positive, ignore, negative.")
]
Keep = Annotated[str, typer.Option(help="Which epoch's weights: best (mAP on val) or last.")]
Calibrate = Annotated[
    str,
    typer.Option(
        help="Fitted on val: temperature, label-temperature, platt, beta, isotonic, none. "
        "All but temperature are fitted class by class, and need more images."
    ),
]
Tensorboard = Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard's events too, beside log.csv.")]
Csv = Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the numbers to this file, too.")]
Missing = Annotated[
    str,
    typer.Option(
        metavar="drop|fail",
        help="Images whose file is missing or cannot be decoded: fail, or drop them and say how many. To find them, drop "
        "decodes every image once more.",
    ),
]
Batches = Annotated[int | None, typer.Option("--batch", min=1, help="Images at a time; default: as in its training.")]
Only = Annotated[str | None, typer.Option(metavar="PATTERN", help="Groups by name, e.g. digits* (or one run's key).")]


def chosen(data: str, missing: str) -> str | Source:
    """The data set of a command, read as its option --missing says.

    Raises ValueError for another value of that, and for a name of the course's sets that is a folder here, too.
    """
    from udlib.datasets import find_dataset
    from udlib.datasets.layouts import require_no_own_folder

    require_no_own_folder(data)
    return find_dataset(data, missing="drop") if require_drop_or_fail(missing) == "drop" else data


def require_drop_or_fail(missing: str) -> str:
    """The value of --missing, or ValueError for any but its two."""
    if missing not in ("drop", "fail"):
        raise ValueError(f"--missing is '{missing}': expected drop or fail")
    return missing


def require_writable(*files: Path | None) -> None:
    """Refuse, before any work is done, a file to be written that has no folder, or that is one itself."""
    for file in filter(None, files):
        if not file.parent.is_dir():
            raise FileNotFoundError(f"'{file}' cannot be written: there is no folder '{file.parent}'")
        if file.is_dir():
            raise IsADirectoryError(f"'{file}' cannot be written: it is a folder")


def model_to_start_from(folder: Path | None, new_head: bool, out: Path):
    """What `train_model` takes as its start, or None; ValueError for options that do not go together."""
    from udlib.models import load
    from udlib.workshop import NewHead as WithNewHead

    if folder is None:
        if new_head:
            raise ValueError("--new-head needs a model whose head it replaces: name its folder with --from")
        return None
    if folder.expanduser().resolve() == out.expanduser().resolve():
        raise ValueError(f"--from and --out are both '{out}': name another folder for the new model with --out")
    model = load(folder)
    return WithNewHead(model) if new_head else model
