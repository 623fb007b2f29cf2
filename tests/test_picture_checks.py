"""`udlib data check` names pictures that are read otherwise than they may look: held sideways, transparent, or of 12 bits."""

import numpy as np
import pytest
from commands import udlib_command
from PIL import Image
from trees import csv_tree

from udlib.datasets.orientation import TAG
from udlib.datasets.picture_checks import Picture, examine, oddities

RAMP = np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8)


def save(pixels, path, **options):
    Image.fromarray(pixels).save(path, **options)
    return examine(path)


def write_deep_colour(path, values):
    """A PNG of 16 bits a channel and three channels, which Pillow reads and does not write."""
    import struct
    import zlib

    height, width = values.shape
    rows = b"".join(b"\0" + np.repeat(row, 3).astype(">u2").tobytes() for row in values)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    written = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(written))


def test_the_bits_of_grey_and_of_colour_are_those_of_the_largest_value(tmp_path):
    for bits in (8, 10, 12, 14, 16):
        values = (RAMP.astype(np.uint32) * (2**bits - 1) // 4095).astype(np.uint16)
        for ending in ("png", "tif"):
            assert save(values, tmp_path / f"a.{ending}").bits == bits
        write_deep_colour(tmp_path / "colour.png", values)
        assert examine(tmp_path / "colour.png").bits == bits
    assert save(RAMP.astype(np.uint8), tmp_path / "a.png").bits == 0


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_picture_is_transparent_where_any_pixel_is(tmp_path, mode):
    clear, opaque = Image.new("RGBA", (4, 4), (255, 0, 0, 255)), Image.new("RGBA", (4, 4), (255, 0, 0, 255))
    clear.putpixel((1, 1), (255, 0, 0, 0))
    for image, transparent in ((clear, True), (opaque, False)):
        image.convert(mode).save(tmp_path / "a.png") if mode != "P" else image.quantize().save(tmp_path / "a.png")
        assert examine(tmp_path / "a.png").transparent == transparent


def test_what_is_usual_is_not_worth_a_note(tmp_path):
    pictures = [Picture("a"), Picture("b", bits=16), Picture("c", bits=15), Picture("d", "broken")]
    assert not list(oddities([tmp_path / picture.digest for picture in pictures], pictures))


def test_check_notes_each_kind_once_with_its_number_and_its_first_file(tmp_path):
    root = csv_tree(tmp_path / "set", 24)
    images, exif = root / "images", Image.Exif()
    exif[TAG] = 8
    for i in (3, 5, 7):
        with Image.open(images / f"{i:04d}.jpg") as image:
            image.save(images / f"{i:04d}.jpg", exif=exif)
    Image.fromarray(RAMP).save(images / "0009.jpg", "PNG")
    Image.new("RGBA", (8, 8), (9, 9, 9, 0)).save(images / "0011.jpg", "PNG")
    code, out, _ = udlib_command("data", "check", root)
    lines = out.splitlines()
    assert code == 0 and lines[-1] == "nothing is wrong (3 notes)"
    assert lines[0].startswith(
        f"note  3 images (first: '{images / '0003.jpg'}') have an EXIF orientation: the rule is 'exif'"
    )
    assert lines[1].startswith(f"note  1 image (first: '{images / '0011.jpg'}') has transparent pixels")
    assert f"1 image (first: '{images / '0009.jpg'}') is stored with 16 bits a channel" in lines[2]
    assert "no value is above 4095" in lines[2] and "multiply the values by 16" in lines[2]
