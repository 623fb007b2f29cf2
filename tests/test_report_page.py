"""The page of `udlib evaluate --html`: one file, every picture described, every name escaped, the right mistakes."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch
from commands import udlib_command
from PIL import Image
from tiny_voc import CLASSES, write_tiny_voc

import udlib
from udlib.datasets.base import MultiLabelDataset
from udlib.datasets.voc import VOC
from udlib.figures.report_page import Mistake, escaped, mistakes, page, table
from udlib.methods.base import make_network
from udlib.metrics import average_precision
from udlib.models import TrainedModel, save_trained
from udlib.posthoc import fit_temperature
from udlib.workshop import evaluation_page, numbers_of
from udlib.workshop.report import MOST

pytestmark = pytest.mark.usefixtures("terminal")

NASTY = ('<script>alert("x")</script>', "cat & 'dog'", "a\x00b\ud800")
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """What a page holds: its elements, its pictures, its tables and its text; every element must be closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.images, self.links, self.open, self.text, self.rows = [], [], [], [], [], []
        self.feed(text)
        assert self.open == [], self.open

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        self.links += [
            value for name, value in attributes if name in ("src", "href", "action", "srcset", "data", "poster")
        ]
        assert not any(name.startswith("on") for name in values)
        if tag == "img":
            self.images.append(values)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open[-1:] in (["td"], ["th"]):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A data set, and an untrained model with a calibrator."""
    folder = tmp_path_factory.mktemp("place")
    write_tiny_voc(folder / "data", {"val": 16, "test": 24})
    torch.manual_seed(1)
    model = TrainedModel(make_network(3, 0.1, "small_narrow", embedding=8), "small_narrow", CLASSES, 24)
    val = VOC(folder / "data", "val")
    save_trained(folder / "model", replace(model, calibrator=fit_temperature(model.logits(val), val.targets)))
    return folder


@pytest.fixture(scope="module")
def written(place):
    code, out, err = udlib_command(
        "evaluate", place / "data", "--model", place / "model", "--html", place / "report.html"
    )
    assert code == 0 and err == "" and f"written: {place / 'report.html'}" in out
    return (place / "report.html").read_text(encoding="utf-8"), out


def test_the_page_is_one_file_without_scripts_that_loads_nothing(written):
    found = Page(written[0])
    assert all(link.startswith("data:image/") for link in found.links) and found.links
    assert {"script", "link", "iframe", "object", "style"} & set(found.tags) == {"style"}
    assert "url(" not in written[0] and "@import" not in written[0] and "default-src 'none'" in written[0]
    assert '<html lang="en">' in written[0] and found.tags.count("h1") == found.tags.count("title") == 1


def test_every_picture_has_a_description_and_can_be_decoded(written):
    images = Page(written[0]).images
    assert len(images) > 3 and len({image["alt"] for image in images}) == len(images)
    for image in images:
        assert len(image["alt"].split()) > 6
        with Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))) as decoded:
            decoded.load()


def test_the_table_holds_the_numbers_that_the_command_prints(written):
    rows = {row[0]: row[1:] for row in Page(written[0]).rows}
    printed = re.findall(r"^(\S.*?)  +([\d.-]+) +([\d.-]+)$", written[1], re.M)
    assert len(printed) > 10
    for name, before, after in printed:
        assert rows[name] == [before, after]


def test_each_class_has_a_row_with_its_average_precision(place, written):
    model, test = udlib.load(place / "model"), VOC(place / "data", "test")
    rows = {row[0]: row[1:] for row in Page(written[0]).rows}
    ap = average_precision(model.predict(test.paths).probabilities, test.targets, test.difficult)
    counts = (test.targets.bool() & ~test.difficult).sum(0)
    for name, value, count in zip(CLASSES, ap.tolist(), counts.tolist()):
        assert rows[name][:3] == [str(count), f"{100 * value:.1f}", "50.0"]


def test_the_diagram_is_described_point_by_point(written):
    (alt,) = [image["alt"] for image in Page(written[0]).images if image["alt"].startswith("Reliability diagram")]
    points = re.findall(r"at a mean probability of \d+ % \d+ % of ([\d,]+) labels are positive", alt)
    assert sum(map(int, points)) == 2 * 24 * 3 and "Uncalibrated: at" in alt and "Calibrated: at" in alt


def dataset(folder, count, targets, difficult=None, names=("cat", "dog")):
    paths = [folder / f"{i}.png" for i in range(count)]
    for i, path in enumerate(paths):
        Image.new("RGB", (8, 8), (10 * i % 255, 0, 0)).save(path)
    return MultiLabelDataset(names, [path.stem for path in paths], paths, targets=targets, difficult=difficult)


def model(names=("cat", "dog"), **parts):
    torch.manual_seed(0)
    return TrainedModel(make_network(len(names), 0.0, "small_narrow", embedding=4), "small_narrow", names, 16, **parts)


def described(text):
    """(image, label, per cent, there) of every thumbnail, in order."""
    pattern = r'alt="(\w+): the model gives (\w+) ([\d.]+) %, and the label is (not )?there\."'
    return [(name, label, float(p), not negated) for name, label, p, negated in re.findall(pattern, text)]


def test_mistakes_are_those_of_the_thresholds_the_most_confident_first_and_without_difficult_labels(tmp_path):
    p = torch.tensor([[0.9, 0.1], [0.6, 0.05], [0.95, 0.5], [0.99, 0.02], [0.4, 0.3]], dtype=torch.float64)
    targets = torch.tensor([[0, 1], [0, 1], [0, 0], [0, 1], [1, 0]])
    difficult = torch.zeros(5, 2, dtype=torch.bool)
    difficult[3, 1] = True
    images = dataset(tmp_path, 5, targets, difficult)
    found = described(evaluation_page(model(thresholds=(0.7, 0.5)), images, torch.logit(p)))
    assert found == [
        ("3", "cat", 99.0, False),
        ("2", "cat", 95.0, False),
        ("0", "cat", 90.0, False),
        ("2", "dog", 50.0, False),
        ("1", "dog", 5.0, True),
        ("0", "dog", 10.0, True),
        ("4", "cat", 40.0, True),
    ]


def test_of_many_mistakes_the_first_dozen_is_shown_and_of_none_it_is_said(tmp_path):
    count = MOST + 5
    logits = torch.arange(1.0, count + 1)[:, None].repeat(1, 2) / 4
    images = dataset(tmp_path, count, torch.zeros(count, 2).index_fill(1, torch.tensor([1]), 1))
    text = evaluation_page(model(), images, logits)
    assert [name for name, *_ in described(text)] == [str(i) for i in range(count - 1, 4, -1)]
    assert "There are none." in text


def test_names_are_escaped_wherever_they_stand(tmp_path):
    images = dataset(tmp_path, 4, torch.tensor([[1, 0, 0]] * 4), names=NASTY)
    images.ids = ['x" onerror="alert(1)', "<b>", "</title>", "&amp;"]
    text = evaluation_page(model(NASTY), images, torch.tensor([[-3.0, 3, 2]] * 4), title="<i>model</i> of ../\udcff")
    found = Page(text)
    assert "script" not in found.tags and "i" not in found.tags and "b" not in found.tags
    assert {row[0] for row in found.rows} >= {NASTY[0], NASTY[1], "a\ufffdb\ufffd"}
    assert 'x" onerror="alert(1)' in "".join(found.text) and "&amp;" in "".join(found.text)
    text.encode("utf-8")


def test_a_model_whose_logits_have_no_level_has_a_page_without_decisions(place):
    soft = replace(udlib.load(place / "model"), read_as="softmax", calibrator=None)
    test = VOC(place / "data", "test")
    text = evaluation_page(soft, test)
    assert "Precision, recall and F1 count" not in text and Page(text).rows
    assert set(numbers_of(soft, soft.logits(test), test)) == {"uncalibrated"}


def test_a_page_that_cannot_be_written_is_refused_before_anything_is_measured(place):
    words = ("evaluate", place / "data", "--model", place / "model", "--html", place / "none" / "report.html")
    code, out, err = udlib_command(*words)
    assert code == 2 and out == "" and "there is no folder" in err


def test_the_pieces_of_a_page():
    assert table([["a", "b"], ["<", "1"]], "c") == (
        "<table>\n<caption>c</caption>\n"
        '<tr><th scope="col">a</th><th scope="col">b</th></tr>\n<tr><th scope="row">&lt;</th><td>1</td></tr>\n</table>'
    )
    assert escaped("ü\u200c\u00a0'") == "ü\u200c\u00a0&#x27;" and mistakes([], "none") == "<p>none</p>"
    one = Mistake(Image.new("RGBA", (900, 300)), "a", "cat", 0.987, True)
    (image,) = Page(page("t", [mistakes([one], "")])).images
    assert image["alt"] == "a: the model gives cat 98.7 %, and the label is there." and image["width"] == "176"


def test_help_names_the_page():
    text = " ".join(udlib_command("evaluate", "--help")[1].replace("│", " ").split())
    assert "--html" in text and "one file that needs no other" in text
