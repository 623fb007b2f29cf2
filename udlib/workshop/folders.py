"""The folder that a training on one's own data works in: one training at a time, and nothing of anybody else's."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from udlib.models import TrainedModel, load
from udlib.training.checkpoints import remove_stale, require_same

# What a training leaves in its folder before there is a model.
OURS = {"checkpoint", "log.csv", "partitions", "tensorboard"}


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Make a folder and hold it against other trainings: ValueError where one has it, OSError where it cannot be written."""
    lock, new = out / ".lock", not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        held = FileLock(lock, timeout=0)
        held.acquire()
    except NotImplementedError:  # a disk without locks
        pass
    except Timeout:
        raise ValueError(f"another training is running in '{out}': wait for it, or name another folder") from None
    except OSError as error:
        raise OSError(f"cannot write in folder '{out}' ({error.strerror}): name another one") from error
    try:
        yield
    finally:
        with suppress(OSError):  # Windows keeps a file that is open
            lock.unlink()
        held.release()
        if new:
            with suppress(OSError):  # it holds a model, then, or a training to go on with
                out.rmdir()


def require_ours(out: Path) -> None:
    """Refuse a folder that holds neither a model nor an unfinished training: ValueError."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"'{out}' is a file: name a folder")
    names = [path.name for path in out.iterdir()] if out.is_dir() and not (out / "state.json").is_file() else []
    if foreign := sorted(name for name in names if name not in OURS and not name.startswith(("tensors-", "."))):
        raise ValueError(f"'{out}' holds '{foreign[0]}', but no model and no unfinished training: name a new folder")


def finished_model(out: Path, record: Mapping[str, Any], defaults: Mapping[str, Any]) -> TrainedModel | None:
    """The model that the folder holds already, if it is just this one; ValueError where it is another.

    `defaults` says what a field is that the model's record lacks, since an earlier version wrote it.
    """
    if not (out / "state.json").is_file():
        return None
    model = load(out)
    _require_no_more_epochs(model.training, record, out, defaults)
    require_same(model.training, record, out, defaults)
    remove_stale(out)  # a kill may have come between the model and this
    shutil.rmtree(out / "checkpoint", ignore_errors=True)
    return model


def _require_no_more_epochs(
    finished: Mapping[str, Any], record: Mapping[str, Any], out: Path, defaults: Mapping[str, Any]
) -> None:
    """Refuse more epochs of the training that the folder holds, and say how to go on with its model: ValueError.

    The learning rate reaches its end with the last epoch, so a training of 40 epochs is no part of one of 60. What could be
    added is another training, which begins with the model's weights.
    """
    done, wished = finished.get("epochs", 0), record["epochs"]
    try:
        require_same(finished, {**record, "epochs": done}, out, defaults)
    except ValueError:
        return  # it is another training in other respects, too
    if wished > done:
        more = wished - done
        raise ValueError(
            f"the training in '{out}' is finished: its learning rate has fallen to its end over {done} epochs, so {more} more "
            f"cannot be added to it; begin a training of {more} with its weights (--from {out} --epochs {more}; in Python "
            f"start=udlib.load({str(out)!r})) or train all {wished} from the beginning, in another folder (--out)"
        )
