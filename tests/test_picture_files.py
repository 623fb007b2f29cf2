"""`udlib predict` looks at every image of a folder, and says what it passes over."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from commands import udlib_command
from PIL import Image, UnidentifiedImageError

import udlib
from udlib.cli.picture_files import select
from udlib.datasets import decoding
from udlib.datasets.decoding import is_heic, load_rgb, upright_size
from udlib.datasets.orientation import TAG
from udlib.heads import DualBranchNet
from udlib.methods.base import make_network
from udlib.models import TrainedModel, save_trained

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99)
AVIF = b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf" + bytes(99)


@pytest.fixture(autouse=True)
def without_heif(monkeypatch):
    monkeypatch.setenv("UDLIB_PROGRESS", "0")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as if the package were not installed


@pytest.fixture
def phone(tmp_path):
    """A folder as a phone's: photographs, one without an ending, HEIC, a film, a note, a hidden file, subfolders."""
    folder = tmp_path / "phone"
    for path in ("a.JPG", "b.png", "trip/c.jpeg", "trip/deep/d.webp", ".thumbnails/e.jpg"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(folder / path)
    Image.new("RGB", (8, 8)).save(folder / "without", "JPEG")
    for path, content in (("IMG_1.HEIC", HEIC), ("trip/IMG_2.heic", HEIC), ("f.mp4", b"film"), ("n.txt", b"note")):
        (folder / path).write_bytes(content)
    for path in ("empty", "report.pdf", "old.mpg", ".DS_Store"):
        (folder / path).write_bytes(b"")
    return folder


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    net = DualBranchNet(udlib.backbones.backbone("small_narrow"), 2)
    return save_trained(tmp_path / "model", TrainedModel(net, "small_narrow", ("cat", "dog"), 16))


def names(paths, folder):
    return [path.relative_to(folder).as_posix() for path in paths]


def test_every_file_of_a_folder_is_an_image_or_is_counted(phone):
    selection = select([phone], recursive=False)
    assert names(selection.images, phone) == ["a.JPG", "b.png", "without"]
    assert names(selection.heic, phone) == ["IMG_1.HEIC"] and names(selection.folders, phone) == ["trip"]
    assert names(selection.others, phone) == ["empty", "f.mp4", "n.txt", "old.mpg", "report.pdf"]
    heic, others, folders = selection.sentences()
    assert heic.startswith("skipped 1 photograph ('") and '`pip install "udlib[heic]"`' in heic
    assert others.startswith(f"skipped 5 files ('{phone / 'empty'}' first)")
    assert folders == f"skipped 1 subfolder ('{phone / 'trip'}'): --recursive looks into them"


def test_recursive_looks_into_every_subfolder_and_follows_no_circle(phone):
    (phone / "trip" / "again").symlink_to(phone)
    selection = select([phone], recursive=True)
    assert names(selection.images, phone) == ["a.JPG", "b.png", "trip/c.jpeg", "trip/deep/d.webp", "without"]
    assert names(selection.heic, phone) == ["IMG_1.HEIC", "trip/IMG_2.heic"] and not selection.folders


def test_a_folder_without_any_image_is_refused_with_what_it_holds(phone, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").touch()
    with pytest.raises(FileNotFoundError, match=r"holds no images: .*\(skipped 1 file \('.*a.txt'\)"):
        select([tmp_path / "notes"], recursive=False)
    assert select([phone / "n.txt"], recursive=False).images == [phone / "n.txt"]  # what is named is taken


def test_predict_says_what_it_skips_and_its_exit_code_tells_of_unread_photographs(phone, model):
    code, out, err = udlib_command("predict", phone, "--model", model, "--top", "1")
    assert code == 1 and out.count("\n") == 3 and err.count("udlib: skipped ") == 3
    code, out, err = udlib_command("predict", phone, "--model", model, "--top", "1", "--recursive")
    assert code == 1 and out.count("\n") == 5 and "2 photographs" in err and "subfolder" not in err
    for path in (phone / "IMG_1.HEIC", phone / "trip" / "IMG_2.heic"):
        path.unlink()
    code, out, err = udlib_command("predict", phone, "--model", model, "--top", "1", "--recursive")
    assert code == 0 and out.count("\n") == 5 and "skipped 5 files" in err


def test_a_heic_file_that_is_named_gets_the_package_that_reads_it_whatever_its_ending(phone, model):
    (phone / "renamed.jpg").write_bytes(HEIC)
    for name in ("IMG_1.HEIC", "renamed.jpg"):
        code, out, err = udlib_command("predict", phone / name, "--model", model)
        assert code == 1 and out == "" and err.count("\n") == 1
        assert "is in HEIC format" in err and '`pip install "udlib[heic]"`' in err
    (phone / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    assert "HEIC" not in udlib_command("predict", phone / "broken.jpg", "--model", model)[2]


def test_where_the_package_is_installed_heic_is_read_like_any_image(phone, model, monkeypatch):
    """A stand-in for pillow-heif: from its registration on, Pillow opens such files."""
    registered, real = [], Image.open

    def opened(path, *options):
        if not is_heic(path):
            return real(path, *options)
        if not registered:
            raise UnidentifiedImageError(f"cannot identify image file '{path}'")
        return Image.new("RGB", (8, 4), "blue")

    package = SimpleNamespace(register_heif_opener=lambda: registered.append(True))
    monkeypatch.setitem(sys.modules, "pillow_heif", package)
    monkeypatch.setattr(decoding.Image, "open", opened)
    assert load_rgb(phone / "IMG_1.HEIC").size == (8, 4) and registered
    assert udlib_command("predict", phone, "--model", model, "--top", "1")[0] == 0
    assert names(select([phone], recursive=False).images, phone)[0] == "IMG_1.HEIC"


def test_heic_is_told_by_its_first_bytes(tmp_path):
    for content, expected in ((HEIC, True), (AVIF, False), (b"", False), (b"\xff\xd8", False)):
        (tmp_path / "x").write_bytes(content)
        assert is_heic(tmp_path / "x") == expected
    assert not is_heic(tmp_path / "nowhere")


def heic_set(root, orientation=1):
    """A CSV data set of photographs in HEIC format, and the same one in PNG format; returns both folders."""
    heif = pytest.importorskip("pillow_heif", reason="the extra heic is not installed")
    folders, draw = [root / "heic", root / "png"], np.random.default_rng(0)
    exif = Image.Exif()
    exif[TAG] = orientation
    rows = []
    for i in range(12):
        image = Image.fromarray(
            np.kron(draw.integers(0, 255, (4, 6, 3), dtype=np.uint8), np.ones((16, 16, 1), np.uint8))
        )
        for folder in folders:
            folder.mkdir(exist_ok=True)
        heif.from_pillow(image).save(folders[0] / f"{i}.heic", quality=90, exif=exif.tobytes())
        load_rgb(folders[0] / f"{i}.heic").save(folders[1] / f"{i}.png")
        rows.append(f"{{}},{('train', 'val', 'test')[i % 3]},{i // 3 % 2},{i // 6}")
    for folder in folders:
        lines = [row.format(f"{i}.{folder.name}") for i, row in enumerate(rows)]
        (folder / "labels.csv").write_text("\n".join(["file,split,cat,dog", *lines]))
    return folders


@pytest.mark.parametrize("orientation", [1, 6, 3])
def test_real_heic_photographs_are_checked_predicted_and_measured_as_their_pixels_in_png(
    tmp_path, orientation, monkeypatch
):
    monkeypatch.delitem(sys.modules, "pillow_heif", raising=False)
    heic, png = heic_set(tmp_path, orientation)
    torch.manual_seed(0)
    network = make_network(2, 0.0, "small_narrow", embedding=4)
    folder = save_trained(tmp_path / "model", TrainedModel(network, "small_narrow", ("cat", "dog"), 32))
    assert udlib_command("data", "check", heic)[0] == 0
    assert load_rgb(heic / "0.heic").size == upright_size(heic / "0.heic")
    outputs = []
    for data in (heic, png):
        code, out, err = udlib_command("predict", data, "--model", folder, "--csv", tmp_path / f"{data.name}.csv")
        assert code == 0 and "labels.csv" in err, "the other file is counted"
        lines = (tmp_path / f"{data.name}.csv").read_text().replace(str(data), "").replace(".heic", ".png").splitlines()
        code, out, _ = udlib_command("evaluate", data, "--model", folder)
        assert code == 0
        outputs.append((sorted(lines), out))
    assert outputs[0] == outputs[1] and len(outputs[0][0]) == 13
