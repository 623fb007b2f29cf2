"""What comes with a checkout of the project and not with the installed package: lessons, quizzes and stored results.

Nothing here imports PyTorch, so that `udlib doctor` can say it where PyTorch is broken.
"""

from __future__ import annotations

from pathlib import Path

LESSON = "notebooks/00_start_here.ipynb"
RESULTS = "data/results/metrics.csv"
QUIZZES = "docs/quizzes"
HOW = "clone the project and run `make lab` in it, or install it from there with `pip install -e .`"


def own_checkout() -> Path | None:
    """The checkout that this package is installed from, if it holds the lessons."""
    folder = Path(__file__).resolve().parents[2]
    return folder if (folder / LESSON).is_file() else None


def checkout_around() -> Path | None:
    """A checkout that the working folder lies in, whichever package is installed."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / LESSON).is_file()), None)


def missing_lessons() -> str | None:
    """Where the lessons come from, in a sentence, for an installation without them; None where they are here."""
    if own_checkout() is not None:
        return None
    return f"the lessons are not here: they come with a checkout of the project; {_remedy()}"


def quizzes_folder() -> Path:
    """The folder of the quizzes: of the checkout that this package is installed from, or that the working folder lies in.

    Raises:
        FileNotFoundError: Where there is none; it says where the quizzes come from.
    """
    checkouts = [folder for folder in (own_checkout(), checkout_around()) if folder is not None]
    folders = [folder / QUIZZES for folder in checkouts if (folder / QUIZZES).is_dir()]
    if folders:
        return folders[0]
    if checkouts:
        raise FileNotFoundError(
            f"the checkout '{checkouts[0]}' has no folder {QUIZZES}: `git checkout -- {QUIZZES}` brings it back"
        )
    raise FileNotFoundError(f"the quizzes are not here: they come with a checkout of the project; {HOW}")


def missing_results(folder: Path) -> str | None:
    """Where the stored results come from, in a sentence; None where they are here.

    Args:
        folder: Where the results that ship are looked for.
    """
    if (folder / Path(RESULTS).name).is_file():
        return None
    if own_checkout() is not None:
        return (
            "the course's stored results are not in the checkout, so that every recipe is trained anew: "
            "`git checkout -- data/results` brings them back"
        )
    return (
        "the course's stored results are not here, so that every recipe is trained anew: they come with a checkout of the "
        f"project; {_remedy(results=True)}"
    )


def _remedy(results: bool = False) -> str:
    around = checkout_around()
    if around is None:
        return HOW
    other = ", or set UDLIB_DATA to its folder 'data'" if results else ""
    return f"'{around}' is one, and this package is not installed from it: run `make lab` or `pip install -e .` there{other}"
