# %% [markdown]
r"""
# 11 · Full runs: your data, your GPUs, the paper's tables

[← 10 · Distilling from detection](10_distilling_from_detection.ipynb)

**Aim.** You will turn a folder of labelled images into a calibrated classifier. You will kill a training and resume it, find out which part of a
training limits its speed, and plan one of the paper's tables at full size: read it, check it, and compute what it costs.

**Prerequisites.** Lessons 02 to 07. A terminal: every command here is meant to be typed there, from the course's folder, where its
Python is active (`source .venv/bin/activate`, on Windows `.venv\Scripts\activate`).

**Time.** About 75 minutes with the exercises. The cells run in about a minute, on a CPU. A full-size table needs a GPU and hours;
this lesson computes how many, and does not spend them.
"""

# %% tags=["setup", "report"]
import contextlib
import io
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# %% tags=["setup", "report"]
import numpy as np
import pandas as pd
import torch
from IPython.display import display

from udlib.figures import plots
from udlib.training.checkpoints import load_checkpoint
from udlib.cli import main
from udlib.datasets.scenes import scenes
from udlib.course.exercises import check, check_guess
from udlib.course.store import load_or_run, profile, shipped, store
from udlib.metrics import mean_average_precision
from udlib.figures.plots import show
from udlib.course.recipes import baseline
from udlib.course.sentences import say

# %% [markdown]
r"""
The other lessons loaded their networks. This one types commands, and some cells measure **your** machine. Those numbers
differ from the ones that you read here, and code writes the sentences from what it measured.

A small helper prints what a terminal shows for `udlib …`, without a new Python for each command. All files go into a folder
that is deleted at the end.
"""

# %% tags=["setup", "report"]
def command(line, first=None, last=0):
    """What a terminal shows for `udlib LINE`, or only its first and last lines; returns the exit code."""
    with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.redirect_stderr(output):
        try:
            main(shlex.split(line))
        except SystemExit as stop:
            code = stop.code or 0
    lines = output.getvalue().splitlines()
    if first is not None and len(lines) > first + last:
        lines[first:len(lines) - last] = ["…"]
    print("\n".join([f"$ udlib {line}", *lines]))
    return code

# %% tags=["setup", "report"]
HERE, WORK = Path.cwd(), tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
os.chdir(WORK.name)
os.environ |= {"UDLIB_PROGRESS": "0", "COLUMNS": "110"}
assert command("doctor", first=6) == 0  # what this machine has

# %% [markdown]
r"""
## 1. First, a picture: what limits the speed of a training

Each image passes through three stations. It is **decoded** (a JPEG becomes pixels), **augmented** (cropped, mirrored, erased,
normalised), and **used for training**. Most published training code opens each JPEG anew in every epoch, in worker processes that run beside
the training. Then the slowest station sets the speed. Without workers the stations run one after the other, and their times
add up. The course decodes a data set once, to a large array of bytes. It takes its crops from this array in the training's own process, on the GPU
if there is one.

### Predict

Make three guesses before you go on.
"""

# %% tags=["learn"]
# how many times as many images a second come from the array as from JPEG files? for example 2
guess_ratio = ...
# a training is killed (kill -9) in its 4th epoch: how many finished epochs are lost?
guess_lost = ...
# GPU-hours for Table 3a: 60 trainings of 20 epochs on 4,509 images of 448 px, at 40 TFLOP/s
guess_hours = ...

# %% [markdown]
r"""
We take a few pictures of 256 × 256 pixels, stored as JPEG, and make training images of 224 × 224 from them in three ways: one
by one from the files, with PIL and torchvision's transforms (`train_transform`); the same from pictures that are already decoded;
and in batches from the array (`BatchAugment`). All three do the same steps: a crop at a random scale, a mirror, random erasing,
normalisation. (They resample a little differently: on a CPU, `BatchAugment` does not smooth before it makes a crop smaller.)
"""

# %% tags=["report"]
from udlib.training.batches import ArrayData, ImagesOnly, load
from udlib.datasets.base import to_memory
from udlib.datasets.transforms import BatchAugment, train_transform

LARGE, SEEN, COUNT = 256, 224, 48
large = scenes("train", size=LARGE, root="large", counts={"train": COUNT})
rows = list(torch.arange(COUNT).split(16))
array = ArrayData(to_memory(large, LARGE), large.targets)  # decoded once
augment, draws = BatchAugment(flip=True, erase=0.5, crop=SEEN), torch.Generator().manual_seed(0)
large.transform = train_transform(SEEN, LARGE)  # one by one
opened = [large.image(i) for i in range(COUNT)]  # PIL images

# %% tags=["learn"]
FILES, OPENED, ARRAY = "JPEG files, one by one", "decoded, one by one", "decoded, in batches"
ways = {
    FILES: lambda: torch.utils.data.DataLoader(ImagesOnly(large), batch_sampler=rows),
    OPENED: lambda: (torch.stack([large.transform(opened[i]) for i in some]) for some in rows),
    ARRAY: lambda: (batch.images for batch in load(
        array, rows, lambda images: augment(images, draws), torch.device("cpu"), 0)),
}

# %% tags=["report"]
def images_per_second(epochs):
    """The median over five turns of each way; they take turns, so that a busy machine slows both."""
    seconds = {name: [] for name in epochs}
    for turn in range(6):
        for name, make in epochs.items():
            start = time.perf_counter()
            seen = sum(len(images) for images in make())
            if turn:  # the first turn warms up
                seconds[name].append((time.perf_counter() - start) / seen)
    return {name: 1 / statistics.median(values) for name, values in seconds.items()}

# %% tags=["learn"]
speed = images_per_second(ways)
ratio = speed[ARRAY] / speed[FILES]
check_guess("images a second from the array, over those from files", guess_ratio, ratio, " times")
assert 0 < ratio < 1000

# %% tags=["report"]
show(plots.bars(list(speed), {"": list(speed.values())}, f"images per second, {SEEN} px, one process"),
     "Bars: images per second from JPEG files one by one, decoded ones one by one, and the decoded array in batches")
say(f"If images are decoded once, {speed[OPENED] / speed[FILES]:.1f} times as many pass per second. If they are also augmented in batches, and "
    f"not one by one, it is another {speed[ARRAY] / speed[OPENED]:.1f} times as many.")

# %% [markdown]
r"""
`make bench` checks that the array is at least three times as fast as the files, at 448 pixels and with pictures as large as VOC's.
`datasets/pixels.py` writes the array to a file that is mapped into memory. It is made once and shared by all later runs. If its making is
killed, it is resumed.

### Exercise 11.1

A GPU trains `gpu` images a second. `workers` processes decode for it, each `decode` images a second, and work while the GPU
does. How many images a second go through a training?
"""

# %% exercise="11.1"
def my_speed(gpu, decode, workers):
    return ...

# %% solution="11.1"
def my_speed(gpu, decode, workers):
    return min(gpu, workers * decode)

# %% mistake="11.1" says="one after the other"
def my_speed(gpu, decode, workers):
    return 1 / (1 / gpu + 1 / (workers * decode))

# %% mistake="11.1" says="that is the sum"
def my_speed(gpu, decode, workers):
    return gpu + workers * decode

# %% mistake="11.1" says="a single worker"
def my_speed(gpu, decode, workers):
    return min(gpu, decode)

# %% tags=["learn"]
check("11.1", my_speed)

# %% [markdown]
r"""
## 2. From a folder to a classifier

![A folder with the splits train, val and test is checked; udlib train fits the weights on train, chooses the epoch and fits the temperature on val, and measures on test; the model's folder serves evaluate, predict and distill.](images/folder_to_model.svg)

Now the whole path, on a folder like one that you might have: a few hundred pictures in the layout of PASCAL VOC. `udlib` reads
VOC, COCO, NUS-WIDE, a CSV of labels beside a folder of images, and what CVAT, Roboflow and LabelImg export. It recognises the layout by
what the folder holds.
"""

# %% tags=["learn"]
COUNTS = {"train": 240, "val": 120, "test": 240}
scenes("train", root="my_images/VOC2007", counts=COUNTS)
for ours in ("truth.npz", "classes.txt", "VERSION"):  # what real VOC does not have
    Path("my_images/VOC2007", ours).unlink()
print(*sorted(str(path) for path in Path("my_images/VOC2007").glob("*")), sep="\n")
assert command("data check my_images") == 0
assert command("data describe my_images") == 0

# %% [markdown]
r"""
Look at a data set before you train on it. `check` opens every file; `describe` counts. Which class is the rarest here? With so few
positives in val, how far would you trust its [average precision](../docs/glossary.md#average-precision-ap)?

`train` needs the [splits](../docs/glossary.md#split) train and val. It chooses the epoch by the mAP on val, fits a
[temperature](../docs/glossary.md#temperature) there, and measures on test, if there is one. It also trains the
[calibration branch](../docs/glossary.md#calibration-branch) at λ = 0.1 (Eq. 12), for the uncertainty maps.
"""

# %% tags=["learn"]
assert command("train my_images --out teacher --network small --epochs 12 --batch 20") == 0

# %% [markdown]
r"""
Is this a good network? No: it has seen 240 pictures for 12 epochs. What matters is what the folder contains, and that the
numbers are honest. The temperature was fitted on val, so its effect is judged on test.
"""

# %% tags=["learn"]
print(*sorted(path.name.split("-")[0] for path in Path("teacher").iterdir()), sep="\n")
log = pd.read_csv("teacher/log.csv")
assert len(log) == 12
log.tail(3).round(4)

# %% [markdown]
r"""
A smaller network learns from it. By default, `distill` does plain [KD](../docs/glossary.md#distillation-knowledge-distillation-kd). With `--alpha 0.5 --beta 0.5` it
uses lesson 07's Eq. 18 as printed in the paper. There, from a random start, the student ended far below KD; section 6 has the numbers.
"""

# %% tags=["learn"]
DISTILL = "distill my_images --teacher teacher --out student"
assert command(f"{DISTILL} --network small_narrow --epochs 12 --batch 20") == 0

# %% tags=["learn"]
image = next(str(path) for path in sorted(Path("my_images/VOC2007/JPEGImages").glob("test_*.jpg")))
assert command(f"predict {image} --model student --top 3") == 0
assert command(f"predict {image} --model teacher --top 3 --map maps") == 0

# %% [markdown]
r"""
The student has no calibration branch, so a map must come from the teacher. In Python, one call loads a model's folder with
everything that is needed to use it: classes, image size, normalisation, weights, calibrator. The weights are stored as safetensors. Nothing is
ever unpickled, so a model from a stranger cannot run code. (The map of such a weak network says little; lesson 06 looks at better ones.)
"""

# %% tags=["learn"]
import udlib
from udlib.datasets.base import load_rgb

model = udlib.load("teacher")
picture = load_rgb(Path(image))
answer = model.predict([picture])
doubt = model.uncertainty_map(picture)

# %% tags=["report"]
from udlib.figures.overlays import attention_grid

show(attention_grid([picture], {"where the two branches disagree": [doubt]},
                    ["\n".join(f"{name} {p:.0%}" for name, p in answer.labels(top=3)[0])], side=3.2),
     "A test picture with its three most probable labels, and the teacher's uncertainty map over it")
assert abs(float(answer.probabilities.max()) - answer.labels(top=1)[0][0][1]) < 1e-6

# %% [markdown]
r"""
## 3. Kill a training and resume it

Long trainings die: a queue's time limit, a power cut, `kill -9`. Here each epoch ends with a checkpoint, which is written in one atomic step. The
tensors go to a file with a new name, and then one small file that names them is replaced. A kill at any moment leaves either the old
checkpoint or the new one, never a half.

The resumed training must be *exactly* the one that was killed. So everything random must be a function of what the checkpoint holds. Here it is
a function of two numbers, [seed](../docs/glossary.md#seed) and epoch: the order of the images, each crop and mirror, dropout. The learning rate is a
function of the step. So there is no random state to save. (One thing we cannot save: with another number of threads, or on another
processor, sums are added in another order. If the queue gives you other cores, the last bits differ.)

We start a training, wait for its third checkpoint, and kill it without a warning.
"""

# %% tags=["report"]
ARGUMENTS = "train my_images --network small_narrow --epochs 20 --batch 20 --erase 0.5 --ema 0.1"
killed = subprocess.Popen([sys.executable, "-m", "udlib", *shlex.split(ARGUMENTS), "--out", "killed"],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def epochs_stored(folder):
    """How many epochs the checkpoint of a training holds, 0 without one."""
    state = Path(folder, "checkpoint", "state.json")
    return len(json.loads(state.read_text())["rows"]) if state.exists() else 0

# %% tags=["learn"]
while epochs_stored("killed") < 3:
    assert killed.poll() is None, "the training ended before it could be killed"
    time.sleep(0.02)
killed.kill()
assert killed.wait() != 0
print(f"killed; its checkpoint holds {epochs_stored('killed')} of 20 epochs")

# %% [markdown]
r"""
The same command goes on from there. We also run the same training without a break, and compare the two bit by bit.
"""

# %% tags=["learn"]
for folder in ("killed", "quiet"):
    assert command(f"{ARGUMENTS} --out {folder}", first=1) == 0

# %% tags=["report"]
from udlib.training.devices import autocast, make_accelerator, resolve_precision

device = make_accelerator().device
weights = [udlib.load(folder).network.state_dict() for folder in ("killed", "quiet")]
equal = all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
assert equal or device.type != "cpu"
assert pd.read_csv("killed/log.csv")["epoch"].tolist() == list(range(1, 21))
say(f"All {len(weights[0])} tensors are **{'equal, bit by bit' if equal else 'close, but not equal to the last bit: this is a GPU'}**. "
    "The kill cost the epoch that was running, and no finished one.")
check_guess("finished epochs lost", guess_lost, 0)

# %% [markdown]
r"""
On a GPU the resumed run is close but not equal, because some sums are added in an order that varies. `make soak` kills
trainings at dozens of random moments, also in the middle of a write.

## 4. Speed: precision, batch, memory

Two choices are easy to try. **bf16** uses numbers of 16 bits with the range of 32 for convolutions; losses and sums stay in
float32. A larger **batch size** keeps a GPU busy, up to the size of its memory. We measure your machine with the course's `small`
network, forward and backward:
"""

# %% tags=["report"]
from udlib.backbones import backbone
from udlib.heads import DualBranchNet

network = DualBranchNet(backbone("small"), 16, calibration=False).to(device, memory_format=torch.channels_last)

# %% tags=["learn"]
def step(batch, precision):
    """Forward and backward pass of random images; returns the seconds."""
    images = torch.randn(batch, 3, 64, 64, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    network.zero_grad()
    start = time.perf_counter()
    with autocast(device, precision):
        loss = network(images).logits.square().mean()
    loss.backward()
    if device.type == "cuda":  # its work is only ordered so far
        torch.cuda.synchronize()
    return time.perf_counter() - start

# %% tags=["report"]
BATCHES = (2, 8, 32, 64) if device.type == "cpu" else (8, 64, 512, 2048)
precisions = dict.fromkeys(["fp32", resolve_precision("auto", device)])  # both, or fp32 alone where bf16 is emulated
rates = {precision: [batch / statistics.median(step(batch, precision) for _ in range(5)) for batch in BATCHES]
         for precision in precisions}
figure = plots.lines(BATCHES, rates, "images in a batch", "images per second")
figure.axes[0].set_xscale("log", base=2)
figure.axes[0].set_ylim(bottom=0)
show(figure, "Forward and backward passes of the small network: images per second over batch size, for each precision")
assert all(value > 0 for values in rates.values() for value in values)

# %% tags=["report"]
best = {name: max(values) for name, values in rates.items()}
gain = f"bf16 processes {best['bf16'] / best['fp32']:.1f} times as many images a second as fp32" if "bf16" in best else \
    "this processor has no bf16"
last = list(rates.values())[-1]
say(f"On this machine ({device.type}), {gain}. A batch of {BATCHES[-1]} processes {last[-1] / last[0]:.1f} times as many images a second as a "
    f"batch of {BATCHES[0]}.")

# %% [markdown]
r"""
A larger batch means fewer steps in an epoch, so it is a different training. People usually scale the learning rate with the
batch (Goyal et al., 2017). This works for SGD, and up to a point. If you change either, choose both anew on validation, for
the *baseline*, before you compare methods.

`--compile` runs the backbone through `torch.compile`. It takes a minute or two at the start, and is worth it for large networks on a GPU.
UD's loss differentiates the head twice, which compiled code cannot do, so the head is not compiled.

### Reading a table of throughput

`python -m tests.benchmarks throughput --out FILE` times a whole training step of UD, including its data, in three ways. **peer** is
what one writes first: float32, each JPEG decoded by one of four worker processes, loops over images. **ours** is `train_distilled`.
**bare** is the two networks alone, on a batch that is already there. These are the course's measurements:
"""

# %% tags=["report"]
def throughput(path):
    """One file of the benchmark as a row: where it was measured, and images per second."""
    content = json.loads(path.read_text())
    made, (steps, *_) = content["provenance"], content["figures"]["throughput"]
    value = steps["values"]
    speeds = {name: value[f"{name}_images_per_second"] for name in ("peer", "ours", "bare")}
    return {"measured on": made["hardware"], "networks": f"{value['teacher']} → {value['student']}", "px": value["side"],
            "batch": value["batch"], "precision": value["precision"], **speeds,
            "ours / bare": speeds["ours"] / speeds["bare"], "ours / peer": speeds["ours"] / speeds["peer"]}

# %% tags=["report"]
from udlib.datasets.base import checkout

measured = pd.DataFrame([throughput(path) for path in sorted((checkout() / "data" / "results").glob("throughput*.json"))])
assert (measured["ours / bare"] < 1.2).all() and (measured["ours / peer"] > 0).all()
measured.set_index("measured on").round(2).T

# %% [markdown]
r"""
Begin with the last rows. *ours / peer* says how much faster all changes together made the training: loops, JPEGs and float32. *ours /
bare* says what data and losses still cost. At 1 they cost nothing, and only a faster network, or a faster machine, makes the
training faster. The images a second alone say little: they depend on the networks, the side and the precision in the same column.

### What fits into memory

If a step is too large for a GPU's memory, `udlib` tries smaller batches and ends with a message that names the batch that fits.
[Feature maps](../docs/glossary.md#feature-map) take most of that memory, because they are kept for the backward pass. They grow with the batch, and with the square of the side.

The images need memory, too. A decoded image takes 3 × side × side bytes. The images stay on the GPU if they take less than half of its
free memory (`ArrayData.to`). Otherwise they are copied there batch by batch.
"""

# %% tags=["report"]
from udlib.course.profiles import COUNTS as PUBLISHED, decoded_bytes

memory = pd.DataFrame([{"data": name, "training images": train, "classes": classes,
                        **{f"GB at {side} px": round(decoded_bytes(train, side) / 1e9, 1) for side in (64, 448, 512)}}
                       for name, (train, _, classes) in PUBLISHED.items() if name not in ("scenes", "digits")]).set_index("data")
assert memory.loc["voc2007", "GB at 512 px"] == 3.9
memory

# %% [markdown]
r"""
### Exercise 11.2

The largest whole side, in pixels, at which `images` decoded pictures take at most half of `free` bytes.
"""

# %% exercise="11.2"
def my_side(images, free):
    return ...

# %% solution="11.2"
def my_side(images, free):
    return int((free / 2 / (3 * images)) ** 0.5)

# %% mistake="11.2" says="all of the free memory"
def my_side(images, free):
    return int((free / (3 * images)) ** 0.5)

# %% mistake="11.2" says="4 bytes a value"
def my_side(images, free):
    return int((free / 2 / (4 * 3 * images)) ** 0.5)

# %% mistake="11.2" says="one value a pixel"
def my_side(images, free):
    return int((free / 2 / images) ** 0.5)

# %% tags=["learn"]
check("11.2", my_side)

# %% [markdown]
r"""
## 5. Many GPUs, many machines

A launcher starts one process per GPU:

```
torchrun --nproc_per_node 4 -m udlib train my_images --network resnet101 --out teacher
accelerate launch --num_processes 4 -m udlib train my_images --network resnet101 --out teacher
```

(On CPUs use `torchrun`: without MPI, `accelerate launch` starts a single process there, whatever number you give it.) For two machines
with four GPUs each, type the following on both. The first machine is called `node0`; data and `--out` are on a disk that both see:

```
torchrun --nnodes 2 --nproc_per_node 4 --rdzv_backend c10d --rdzv_endpoint node0:29500 --rdzv_id 1 -m udlib train …
```

`--batch` counts the images of a step over **all** processes, so the same number means the same training on one GPU or on eight: the
order of the images, their crops and the learning rate are those of one process. Only batch normalisation differs, because each process uses the statistics
of its own share. 16 images on eight GPUs are two each, which is too few for good statistics, and little work for a GPU. To train
*faster*, raise `--batch` with the number of processes (it must be a multiple of it), and raise `--lr` with it. That is the different training
of section 4, and `udlib` does not scale the learning rate for you.

A table of many trainings needs none of this. If each GPU runs its own training, there is nothing to exchange. Give every GPU rows of
its own: `CUDA_VISIBLE_DEVICES=1 udlib reproduce table3a --rows '*v2*' …`.

Two mistakes are common. In the first, the processes do not find each other and train separate models. `udlib` refuses this:
"""

# %% tags=["learn"]
from udlib.training.devices import require_one_world

os.environ["WORLD_SIZE"] = "4"  # as a launcher tells each of four processes
try:
    require_one_world(processes=1)  # but this one sees no other
except RuntimeError as error:
    refused = str(error)
del os.environ["WORLD_SIZE"]
assert "4 separate models" in refused
print(refused)

# %% [markdown]
r"""
The second mistake gives no message: an evaluation that counts images twice. To exchange results, all processes must have the same number of
images. With 13 images and 2 processes, one process gets an image that the other already has. If this image is kept, the metric is
computed from 14 images. If whole batches are filled up, it is computed from even more.

How much does this matter? We take a trained baseline, eight processes with batches of 8, and the first N test images for many N. The last
round is filled up with the first images again, as a sampler does.
"""

# %% tags=["report"]
run = load_or_run(baseline())
labels, probabilities = run.labels("test"), run.probabilities("test")
ROUND = 8 * 8  # images in one round of all processes


def map_of(order):
    """mAP in per cent of these images, some of them twice perhaps."""
    return 100 * float(mean_average_precision(probabilities[order], labels.targets[order], labels.difficult[order]))


def padding_error(count):
    """By how many points mAP is off if the first `count` images are filled up to whole rounds."""
    padded = torch.arange(-(-count // ROUND) * ROUND) % count
    return abs(map_of(padded) - map_of(torch.arange(count)))

# %% tags=["report"]
COUNTED = [n for n in np.geomspace(70, len(labels.targets), 40).round().astype(int).tolist() if n % ROUND]
error = [padding_error(n) for n in COUNTED]
assert np.isfinite(error).all() and padding_error(ROUND) == 0
figure = plots.lines(COUNTED, {"mAP": error}, "images in the test set", "error of the mAP, points")
figure.axes[0].set_xscale("log")
figure.axes[0].lines[0].set_linestyle("none")
show(figure, "The error that counting padded images twice makes in mAP, over the number of images, with eight processes")

# %% tags=["report"]
few, many = (statistics.median(part) for part in (error[:10], error[-10:]))
say(f"The median error is **{few:.2f} points** for the ten smallest sets here ({COUNTED[0]} to {COUNTED[9]} images), and {many:.2f} points for "
    "the ten largest. The first is as large as many published improvements.")

# %% [markdown]
r"""
`training.predict` gathers the results batch by batch and cuts off the surplus, so every image counts once with any number of processes. A
test compares two real processes on 37 images with one process.

### Exercise 11.3

`gathered[r]` lists the values that process `r` of `P` computed: those of images r, r + P, r + 2P, … of the padded order. At the end of that order, the
first images come again until all processes have equally many. Return the mean over the `count` images, each once.
"""

# %% exercise="11.3"
def my_mean(gathered, count):
    return ...

# %% solution="11.3"
def my_mean(gathered, count):
    in_order = [value for turn in zip(*gathered) for value in turn]
    return sum(in_order[:count]) / count

# %% mistake="11.3" says="count twice"
def my_mean(gathered, count):
    values = [value for part in gathered for value in part]
    return sum(values) / len(values)

# %% mistake="11.3" says="cut off too early"
def my_mean(gathered, count):
    values = [value for part in gathered for value in part]
    return sum(values[:count]) / count

# %% mistake="11.3" says="incomplete last round"
def my_mean(gathered, count):
    full = count // len(gathered)
    values = [value for part in gathered for value in part[:full]]
    return sum(values) / max(len(values), 1)

# %% tags=["learn"]
check("11.3", my_mean)

# %% [markdown]
r"""
## 6. A table of the paper, beside your own numbers

`udlib reproduce` holds Tables 1 to 5 of the UD paper as data: every row's recipe, every printed number, and which numbers
contradict others in the same paper. It trains what is missing, teachers first, resumes after a kill, and prints the paper's numbers beside ours.
What do Table 3's rows on ResNet-18 cost on VOC2007, with one seed? `--plan` tells you, and trains nothing.
"""

# %% tags=["learn"]
PLAN = "reproduce table3a --data voc2007 --rows '*18*' --seeds 1 --size full --plan"
assert command(PLAN, first=20, last=7) == 0

# %% [markdown]
r"""
The plan has three parts. First comes the cost: is it measured on your machine, or assumed? (The memory is that of all splits, test included.) Then come the
settings, each with its source: the **paper**, only the **released code**, or **ours**, if neither gives it. Nobody can repeat a
number without such a list. Last comes what still differs. The middle part was left out above; here it is, sorted by source:
"""

# %% tags=["report"]
from udlib.course import paper_tables as paper
from udlib.course.reproduction import jobs_of, recipes_of
from udlib.course.paper_recipes import settings

table3a = paper.table("table3a")
everything = jobs_of(recipes_of(table3a, list(table3a.rows), "voc2007", "full", 1))
sources = pd.DataFrame(settings([job.recipe for job in everything]), columns=["setting", "values", "source", "where"])
for source, part in sources.groupby("source", sort=False):
    say(f"- **{source}**: {', '.join(part['setting'])}")

# %% [markdown]
r"""
Which three of *ours* would you change first, to see whether they matter?

A forecast is a sum. A training step costs three forward passes (one forward, two backward), so a teacher's answer costs a third of
a step of the teacher. The sum is a lower bound: validation, test, decoding and the second derivative of Eq. 15 cost extra.

### Exercise 11.4

GPU-hours for a row that is distilled: `seeds` students, `epochs` epochs of `images` images each. `student` and `teacher` are the images
a second of a *training step* of each network. Every seed has a teacher of its own, trained before, for as many epochs.
"""

# %% exercise="11.4"
def my_hours(images, epochs, seeds, student, teacher):
    return ...

# %% solution="11.4"
def my_hours(images, epochs, seeds, student, teacher):
    per_image = 1 / student + 1 / (3 * teacher) + 1 / teacher  # learn, ask, train the teacher
    return images * epochs * seeds * per_image / 3600

# %% mistake="11.4" says="teachers must be trained too"
def my_hours(images, epochs, seeds, student, teacher):
    return images * epochs * seeds * (1 / student + 1 / (3 * teacher)) / 3600

# %% mistake="11.4" says="speeds do not add up"
def my_hours(images, epochs, seeds, student, teacher):
    return images * epochs * seeds / (student + teacher) / 3600

# %% mistake="11.4" says="in seconds"
def my_hours(images, epochs, seeds, student, teacher):
    return images * epochs * seeds * (1 / student + 1 / (3 * teacher) + 1 / teacher)

# %% tags=["learn"]
check("11.4", my_hours)

# %% [markdown]
r"""
### The results on `scenes`

On `scenes`, with small networks in place of the paper's, the same command needs no GPU; these runs ship with the course. `--show` prints the
table of what is stored. Do not compare the levels (64 px against 448, other images). Compare the differences and their signs. `small` takes the
place of ResNet-18 (and, as a teacher, of VGG-19-BN), `small_narrow` that of MobileNet-v2, and `small_wide` that of ResNet-101.
Lesson 07 explains why UD with the paper's weights ends so far below.
"""

# %% tags=["learn"]
SHOW = "reproduce table3a --data scenes --show --csv table3a.csv --figure table3a.png"
assert command(SHOW, first=16, last=6) == 0

# %% tags=["report"]
show(Path("table3a.png").read_bytes(),
     "Differences to the baseline in the rows of Table 3: the paper's, and ours with intervals")
table = pd.read_csv("table3a.csv")
ours = table[(table["column"] == "mAP") & table["difference"].notna()]
assert {"paper", "ours", "difference_low", "difference_high"} <= set(table.columns)

# %% tags=["report"]
from udlib.figures.text import as_markdown

rows = []
for row in ours.itertuples():
    if np.isfinite(row.difference_low):
        apart = row.paper_difference < row.difference_low or row.paper_difference > row.difference_high
        rows.append([row.row, f"{row.paper_difference:+.2f}", f"{row.difference:+.2f} [{row.difference_low:+.2f}, {row.difference_high:+.2f}]",
                     "outside" if apart else "inside"])
say(as_markdown([["mAP minus the baseline's, points", "paper", "ours", "the paper's number and our interval"], *rows]))

# %% [markdown]
r"""
If the paper's number lies outside our interval, this does not refute the paper: we have other data, other networks, another start. It only says that the claim does
not hold *here* as well. To find out whether it holds *there*, you need the full-size runs.

### Do the printed tables agree with themselves?

Before you compare your numbers with a table, check whether the table agrees with itself. Table 3 has a baseline for each student,
and Table 2 has the same network without the branch. Both have no teacher and no branch, so they should be the same number.
"""

# %% tags=["report"]
def printed_map(table, row):
    return paper.table(table).row(row).cells["mAP"].value


for network in ("ResNet-18", "MobileNet-v2"):
    in_table2 = printed_map("table2a", f"{network}, without branch")
    in_table3 = printed_map("table3a", f"{network}, baseline")
    by_kd = printed_map("table3a", f"{network}, KD from ResNet-101") - in_table3
    assert in_table3 > in_table2
    say(f"- {network} alone on VOC2007: {in_table2:.2f} in Table 2 and {in_table3:.2f} in Table 3, "
        f"{in_table3 - in_table2:.2f} points apart. The paper's gain by KD from ResNet-101 is {by_kd:.2f}.")

# %% [markdown]
r"""
For ResNet-18 the two baselines differ by more than the gain of KD. Next, precision and recall on COCO. F1 is the harmonic mean of the two.
Methods with similar mAP should not change the order of the class-wise CF1 and the overall OF1.
"""

# %% tags=["report"]
coco = pd.DataFrame({row.name: {column: cell.value for column, cell in row.cells.items()}
                     for row in paper.table("table3b").rows}).T
for kind in "CO":
    harmonic = 2 * coco[f"{kind}P"] * coco[f"{kind}R"] / (coco[f"{kind}P"] + coco[f"{kind}R"])
    assert (harmonic - coco[f"{kind}F1"]).abs().max() < 0.02  # every printed F1 is that of its P and R
turned = coco[coco["CF1"] > coco["OF1"]]
say(f"Every F1 agrees with its P and R. OF1 is larger than CF1 in {len(coco) - len(turned)} rows, and smaller in {len(turned)}: "
    f"{'; '.join(turned.index)}. In those rows the class-wise and the overall numbers may have been swapped.")

# %% [markdown]
r"""
### All claims about distillation

`udlib.course.verdicts` holds the papers' claims as data, together with questions of our own. It judges each by a difference that is
[paired by seed](../docs/glossary.md#paired-by-seed). The [verdict](../docs/glossary.md#verdict) is *holds* if the 95 % interval lies on the claimed side of 0, and *reversed* if it lies on the other. "Not
detected" with five seeds means that an effect is smaller than about the spread of the seeds.
"""

# %% tags=["report"]
from udlib.course.report import verdicts
from udlib.course.verdicts import distillation_claims

# in the tests' short profile the runs behind the claims are not stored
claims = distillation_claims() if profile() != "smoke" else []
head, *judged = verdicts(claims)
say(as_markdown([head, *judged]).replace("--:", "---"))
assert len(judged) == len(claims)

# %% [markdown]
r"""
### Exercise 11.5

The table has many intervals, and a 95 % interval misses the truth once in twenty. Of `m` independent intervals, each misses with
chance `miss`. Return two numbers: the chance that at least one of them misses, and the rate at which each may miss so that this
chance is `miss` again.
"""

# %% tags=["learn"] exercise="11.5"
def my_luck(m, miss):
    return ..., ...

# %% solution="11.5"
def my_luck(m, miss):
    none = (1 - miss) ** m
    return 1 - none, 1 - (1 - miss) ** (1 / m)

# %% mistake="11.5" says="the number of misses to expect"
def my_luck(m, miss):
    rate = 1 - (1 - miss) ** (1 / m)
    return m * miss, rate

# %% mistake="11.5" says="the chance that none misses"
def my_luck(m, miss):
    rate = 1 - (1 - miss) ** (1 / m)
    return (1 - miss) ** m, rate

# %% mistake="11.5" says="all of them miss"
def my_luck(m, miss):
    rate = 1 - (1 - miss) ** (1 / m)
    return miss**m, rate

# %% mistake="11.5" says="exactly one misses"
def my_luck(m, miss):
    rate = 1 - (1 - miss) ** (1 / m)
    return m * miss * (1 - miss) ** (m - 1), rate

# %% mistake="11.5" says="Bonferroni"
def my_luck(m, miss):
    return 1 - (1 - miss) ** m, miss / m

# %% mistake="11.5" says="must *not* miss"
def my_luck(m, miss):
    return 1 - (1 - miss) ** m, (1 - miss) ** (1 / m)

# %% mistake="11.5" says="expected a pair"
def my_luck(m, miss):
    return 1 - (1 - miss) ** m

# %% tags=["learn"]
check("11.5", my_luck)

# %% [markdown]
r"""
## 7. What would it cost?

First the figure for Table 3a on VOC2007 with five seeds: the GPU-hours of each row's students, and of the teachers, which the rows share.
"""

# %% tags=["report"]
from udlib.course import profiles as sizes
from udlib.course.reproduction import cost
from udlib.course.explorers import Explorer, Frame


def plan_of(table, data, seeds):
    """The trainings of a table at full size."""
    rows_of = paper.table(table)
    return jobs_of(recipes_of(rows_of, list(rows_of.rows), data, "full", seeds))


work = plan_of("table3a", "voc2007", 5)
check_guess("GPU-hours of Table 3a, if the GPU does what is assumed", guess_hours, cost(work).seconds / 3600, kind="forecast")

# %% tags=["report"]
def frame(table, data, seeds):
    work = plan_of(table, data, seeds)
    hours = {}
    for job in work:
        hours[job.serves] = hours.get(job.serves, 0) + cost([job]).seconds / 3600
    total = cost(work)
    readings = {"trainings": str(len(work)), "GPU-hours": f"{total.seconds / 3600:.1f}",
                "disk": f"{sum(total.disk.values()) / 1e9:.1f} GB", "decoded images": f"{total.memory / 1e9:.1f} GB"}
    alt = f"{table} on {data} with {seeds} seeds: " + ", ".join(f"{name} {value}" for name, value in readings.items())
    return Frame(plots.bars(list(hours), {"": list(hours.values())}, "GPU-hours, one GPU, speed assumed"), alt, readings)

# %% tags=["report"]
first = frame("table3a", "voc2007", 5)
show(first.figure, first.alt)

# %% [markdown]
r"""
### Explore

Choose a table, a data set and a number of seeds.
"""

# %% tags=["report"]
explorer = Explorer({"table": ["table1", "table2a", "table3a", "table4", "table5"], "data": ["voc2007", "coco2014", "nuswide"],
                     "seeds": [1, 3, 5]}, frame, start={"table": "table3a", "seeds": 3}, note=sizes.ASSUMED)
before = explorer.picture.value
explorer.move(data="coco2014")
assert explorer.picture.value != before and "GPU-hours" in explorer.readout.value
explorer.move(data="voc2007")
explorer

# %% [markdown]
r"""
Try COCO with five seeds. A table with honest error bars is expensive there, and this may be why so few papers print a spread. What would you give up: the
seeds, the rows, or the data set? (One answer: five seeds for the two rows that the claim is about.)

### Results of full size

Results on `scenes` and `digits` ship with the course. Your own results on other data are stored in `runs` in your data folder.
"""

# %% tags=["report"]
from udlib.course.profiles import FULL_SIZE

names = {*FULL_SIZE.values(), "vgg19_bn"}
results = [*shipped().states().values(), *(load_checkpoint(path.parent)[1] for path in sorted(store().glob("*/state.json")))]
full = [state for state in results if state["recipe"].get("network") in names]
say(f"Of the {len(results)} results that are stored here, **{len(full)}** are of full size. " + (
    "`udlib reproduce TABLE --data DATA --show` prints them." if full else
    "The course's networks were trained without a GPU. The GPU-hours above rest on assumed speeds: "
    + sizes.ASSUMED.removeprefix("assumed, not measured: ") + "."))

# %% [markdown]
r"""
If you have a GPU, `make gpu` uses it for nine minutes. It runs the tests that need a GPU, times a training step of UD, and trains `photos` at
224 px with hard labels, KD and UD, for as many seeds as fit. It needs the photographs (`udlib data photos --coco ROOT`). For a machine without
a network, `make gpu-pack` writes one folder that holds everything. `udlib gpu --collect gpu-results` adds its results to these:
"""

# %% tags=["report"]
from udlib.course import gpu_results
from udlib.course.store import results_folder

speeds = gpu_results.speeds(gpu_results.read(results_folder() / gpu_results.THROUGHPUT))
trainings = gpu_results.read(results_folder() / gpu_results.PHOTOS)
if not (speeds or trainings):
    say(gpu_results.NO_RESULT.replace("\n", " "))
if speeds:
    display(pd.DataFrame(speeds).set_index("torch.compile").round().astype(int))
if trainings:
    head, *rows = gpu_results.photo_table(trainings)
    say(f"`photos` at 224 px, on one {trainings['machine']['hardware']}. {gpu_results.NOTE}")
    display(pd.DataFrame(rows, columns=head).set_index("network"))

# %% [markdown]
r"""
## 8. Your own folder

A CSV with a column of file names and one of labels is enough. We make a folder of twelve pictures, and then damage it as real folders are damaged.
"""

# %% tags=["report"]
os.makedirs("mine/images", exist_ok=True)
source = sorted(Path("my_images/VOC2007/JPEGImages").glob("train_*.jpg"))[:12]
lines = ["file,split,labels"]
for k, path in enumerate(source):
    shutil.copy(path, f"mine/images/{k}.jpg")
    lines.append(f"{k}.jpg,{'train' if k < 8 else 'val'},{'dog|cat' if k % 2 else 'boat'}")
Path("mine/labels.csv").write_text("\n".join(lines))
assert command("data check mine") == 0

# %% tags=["report"]
Path("mine/images/3.jpg").write_bytes(source[3].read_bytes()[:500])  # half a download
Path("mine/images/5.jpg").unlink()  # listed, and not there
Path("mine/labels.csv").write_text("\n".join(lines).replace("boat", "baot", 1))  # a typing error
code = command("data check mine")
assert code == 1

# %% [markdown]
r"""
One run names every broken file, and nothing was trained on them. `check` exits with 0 exactly where `train` would start. `--missing drop` makes
both go without files that are missing or broken, and prints how many. Columns that occur twice, or a file that is listed in two splits, are
errors too; the message names the line and the remedy. Silent damage is worse than any message. To a computer, a misspelled label is just a new
class. `check` notes it if its name is much like another's. Read the counts of `describe`, too.

Which `--network` should you take? The course's `small` networks train on a laptop, with up to a few thousand small pictures. For photographs take
`resnet18` or `resnet101`. They start from ImageNet and are fine-tuned at 448 px on a GPU; `--crop` adds the crops of the paper's code. `--network timm:NAME` takes any
convolutional network of timm.

What you may need after that:

- **Decisions.** `udlib thresholds DATA --model MODEL` fits, on val, the threshold at which the F1 of each class is highest. `evaluate` and
  `predict` use these from then on, and say so. Measure on test: on val, where they were fitted, they look better than they are, and
  `evaluate` tells you.
- **A report.** `udlib evaluate DATA --html report.html` writes one page: all numbers, the reliability diagram, each class, and the images on which
  the model was most confident and the label says otherwise.
- **Labels that nobody knows.** A cell −1 takes no part in losses, metrics and calibration. A column `weight` weighs an image's loss.
- **More training.** `--from model` begins with the weights of a trained model; with `--new-head` its classes may differ, and those with the same
  name keep their weights.
- **Another program.** `udlib export --model model --format onnx` writes one file that needs no `udlib`; [Serving a model](../docs/serving.md)
  has two short programs.
"""

# %% tags=["report"]
os.chdir(HERE)
WORK.cleanup()
assert not Path(WORK.name).exists() or sys.platform == "win32"

# %% [markdown]
r"""
### Exercise ★★★ (open): a table on a budget

You have one GPU for two days and want to know whether UD's gain over KD in Table 3 holds on VOC2007. Write the plan of a
reproduction that a sceptic would accept: which rows, how many seeds, what is settled before the first training, and which
sentence you may write in each case.

One point each:

1. The cost is computed, teachers included, from a speed that you measured.
2. Few rows with several seeds go before many rows with one.
3. Settings come from the paper, the released code, or validation for the *baseline*, and are listed.
4. You say what "not detected" would allow you to write.

<details><summary>A worked answer</summary>

The claim is UD minus KD: two rows for one student, and their teacher. `udlib reproduce --plan` gives the cost, but from
assumed speeds: I first measure both networks and the decoding. Then exercise 11.4 tells how many seeds fit. I want five,
since with two the t quantile is 12.7. Differences are paired by seed. Before the first training I write down each setting
with its source, the score (mAP, difficult labels left out), and the use of the test images: once. Interval above 0: "UD is
ahead of KD here". It holds 0 and the paper's gain: "we could not tell". It leaves out the paper's gain: "the printed gain
does not appear here, with these settings".

</details>

## Summary

- The slowest station sets the speed. Decode once, augment in batches, and keep the array where the network is.
- A resumed run is the same run only if everything random is a function of what was saved: here, of seed and epoch.
- bf16, channels-last and compilation change the speed and hardly the sums. Another batch size is another training: choose it on
  validation, for the baseline.
- With many processes, count every image once, and make sure that the processes have found each other.
- A reproduction states the source of every setting, compares differences paired by seed, and marks where the paper contradicts itself.
- Six commands lead from a folder to calibrated labels: `check`, `describe`, `train`, `distill`, `evaluate`, `predict`.

## Further reading

- P. Goyal et al., *Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour*, 2017: the linear scaling rule.
- P. Micikevicius et al., *Mixed Precision Training*, ICLR 2018; D. Kalamkar et al., *A Study of BFLOAT16 for Deep Learning Training*, 2019.
- X. Bouthillier et al., *Accounting for Variance in Machine Learning Benchmarks*, MLSys 2021: what seeds do and do not cover.
- J. Dodge et al., *Show Your Work: Improved Reporting of Experimental Results*, EMNLP 2019.
- The documentation of *accelerate*, for launching on several machines.
"""

# %% [markdown]
r"""
## Quiz

What do you know after this lesson?
"""

# %% tags=["report"]
from udlib.course.quizzes import quiz

quiz("11")
