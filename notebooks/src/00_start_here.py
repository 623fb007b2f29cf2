# %% [markdown]
r"""
# 00 · Start here

[01 · Multi-label data →](01_multilabel_data.ipynb)

**Aim.** In a few minutes you will know that your machine is ready, see a network name several things in one picture, and
know what the course teaches.

**Prerequisites.** Some Python. If you have trained a network in PyTorch before, you have everything you need.

**Time.** About ten minutes. The cells themselves run in seconds, on a laptop, without a network connection and without a GPU.

To run a cell, click into it and press <kbd>Shift</kbd>+<kbd>Enter</kbd>. Start with the next one. A cell that only draws or
reports is collapsed; click it to see its code.
"""

# %% [markdown]
r"""
Are you on Google Colab? Then write the address of your copy of the project into the next cell and run it. Everywhere else it does
nothing. [Open it anywhere](../docs/open_anywhere.md) says more, also about Binder and VS Code.
"""

# %% tags=["report"]
import sys

if "google.colab" in sys.modules:  # on Google Colab only: fetch the course with its results, and install the package
    import os
    import subprocess

    REPOSITORY = ""  # fill in the address of your copy of the project
    FOLDER = "/content/udlib"
    if not REPOSITORY:
        raise ValueError("write the address of your copy of the project into REPOSITORY, then run this cell again")
    if not os.path.isdir(FOLDER):
        subprocess.run(["git", "clone", "--depth", "1", REPOSITORY, FOLDER], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--editable", FOLDER], check=True)
    sys.path.insert(0, FOLDER)  # so that no restart is needed
    os.chdir(f"{FOLDER}/notebooks")

# %% tags=["setup", "report"]
import numpy as np
import torch

from udlib.datasets.drawing import CLASSES
from udlib.datasets.scenes import record
from udlib.course.exercises import check, check_guess
from udlib.figures.plots import picture_grid, prediction, show

# %% [markdown]
r"""
## One picture, several answers

No network has seen this picture in training. Before you read on: which things can you name in it?
"""

# %% tags=["setup", "report"]
scene = record(17, "test", size=64)
large = record(17, "test", size=448)

# %% tags=["report"]
show(picture_grid([large.image, scene.image], ["for your eyes: 448 px", "for the network: 64 px"], columns=2, side=3.2),
     "One test scene, drawn at 448 and at 64 pixels")

# %% [markdown]
r"""
Write your answer down. Then put a number into the next cell: *how many* different classes of things are in the picture?
"""

# %% tags=["learn"]
my_guess = None  # for example 2

# %% [markdown]
r"""
A **[multi-label](../docs/glossary.md#multi-label)** classifier answers one yes-or-no question per class: *is there a boat? is there a bird? …* Each answer is a
probability of its own, so the probabilities need not add up to one. The next cell loads a small network that was trained on 2,000 such
pictures (lesson 02 trains it) and gives it the picture. The network computes a [logit](../docs/glossary.md#logit) for each class, and the
[sigmoid](../docs/glossary.md#sigmoid-softmax) turns it into a probability.
"""

# %% tags=["learn"]
from udlib.datasets.transforms import normalise
from udlib.course.store import load_model
from udlib.course.recipes import baseline

model = load_model(baseline("scenes"))
pixels = torch.from_numpy(scene.image).permute(2, 0, 1)[None]  # (1, 3, 64, 64), uint8
with torch.no_grad():
    logits = model(normalise(pixels), calibration=False).logits[0]
probabilities = torch.sigmoid(logits)
assert probabilities.shape == (len(CLASSES),)
assert bool(((probabilities > 0) & (probabilities < 1)).all())

# %% tags=["report"]
present = {thing.name for thing in scene.objects}
hard = present - {thing.name for thing in scene.objects if not thing.difficult}
show(prediction(scene.image, CLASSES, probabilities, [c in present for c in CLASSES], [c in hard for c in CLASSES],
                title="the network's ten largest probabilities"),
     "The scene, and the ten largest class probabilities; the classes that were drawn are filled")

# %% [markdown]
r"""
The bars of classes that were really drawn are filled. So a good network has long filled bars and short empty ones. Orange with stripes
marks a thing that is *[difficult](../docs/glossary.md#difficult)* to see: small, hidden, cut off by the frame, or faint. This course is about such things.

A program drew this picture, so we know what is in it. Did you count right?
"""

# %% tags=["learn"]
check_guess("Classes in the picture", my_guess, len(present))

# %% [markdown]
r"""
## Confident is not the same as right

Below are eight more test pictures. The text below each lists up to three classes to which the network gives a probability of at least 50 %. A ✓ marks
a class that was drawn, a ✗ one that was not.
"""

# %% tags=["learn"]
def predict(scene):
    """Class probabilities of one scene, as a dictionary."""
    pixels = torch.from_numpy(scene.image).permute(2, 0, 1)[None]
    with torch.no_grad():
        p = torch.sigmoid(model(normalise(pixels), calibration=False).logits[0])
    return dict(zip(CLASSES, p.tolist()))


# %% tags=["cover", "report"]
def verdict(scene, threshold=0.5):
    """The classes above the threshold, each marked as right or wrong."""
    names = {thing.name for thing in scene.objects}
    answers = sorted((-p, name) for name, p in predict(scene).items() if p >= threshold)
    return "\n".join(f"{'✓' if name in names else '✗'} {name} {-p:.2f}" for p, name in answers[:3]) or "(nothing)"


scenes = [record(k, "test") for k in range(40, 48)]
show(picture_grid([s.image for s in scenes], [verdict(s) for s in scenes], columns=4, side=2.2),
     "Eight test scenes with the classes the network predicts, marked right or wrong")

# %% [markdown]
r"""
If a forecaster says "70 % chance of rain" on a hundred days, it should rain on about seventy of them. A network is
**[calibrated](../docs/glossary.md#calibration)** if this holds for its probabilities. Often it does not: networks learn the labels of *difficult* things by heart,
and their probabilities become too extreme. The course asks two questions:

1. **Can a second branch keep the probabilities right?** (*Uncertainty Distillation*, ACM MM 2021: the [calibration branch](../docs/glossary.md#calibration-branch).)
2. **What should a teacher network teach a student**: its answers, its uncertainty, or the places in the picture where it is uncertain?
"""

# %% [markdown]
r"""
## Move something

Move the threshold with the slider. A low threshold finds more of the things (higher recall), but more of its answers are wrong (lower precision). Which one
is best depends on the task.
"""

# %% tags=["report"]
from udlib.course.explorers import Explorer, Frame

crowd = [record(k, "test") for k in range(100, 400)]
truth = np.array([[c in {t.name for t in s.objects} for c in CLASSES] for s in crowd])
images = torch.stack([torch.from_numpy(s.image).permute(2, 0, 1) for s in crowd])
with torch.no_grad():
    answers = torch.sigmoid(model(normalise(images), calibration=False).logits).numpy()


# %% tags=["report"]
def at_threshold(threshold):
    """The eight scenes judged at one threshold, with precision and recall over three hundred."""
    yes = answers >= threshold
    precision, recall = (yes & truth).sum() / max(yes.sum(), 1), (yes & truth).sum() / truth.sum()
    figure = picture_grid([s.image for s in scenes], [verdict(s, threshold) for s in scenes], columns=4, side=2.0)
    return Frame(figure, f"predictions at threshold {threshold}", {
        "threshold": f"{threshold:.2f}", "precision": f"{precision:.0%}", "recall": f"{recall:.0%}"})


explorer = Explorer({"threshold": [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95]}, at_threshold,
                    start={"threshold": 0.5}, note="Measured on 300 test scenes; every drawn thing counts.")
explorer

# %% [markdown]
r"""
The same without the slider:
"""

# %% tags=["learn"]
from udlib.figures.plots import lines

thresholds = np.linspace(0.05, 0.95, 19)
precision = [(truth & (answers >= t)).sum() / max((answers >= t).sum(), 1) for t in thresholds]
recall = [(truth & (answers >= t)).sum() / truth.sum() for t in thresholds]

# %% tags=["report"]
assert all(a >= b for a, b in zip(recall, recall[1:])), "recall can only fall as the threshold rises"
show(lines(thresholds, {"precision": precision, "recall": recall}, "threshold", "share",
           "A higher threshold: fewer answers, more of them right"),
     "Precision and recall over the threshold, on 300 test scenes")

# %% [markdown]
r"""
## Your first exercise

Exercises look like the next cell: replace the `...`, run it, then run the check below it. A check knows the classic mistakes and
tells you which one it saw. Solutions are in the folder `solutions`, but try first.

**Exercise 00.1.** Given the probabilities of one picture (a dictionary from class to probability), return the *set* of classes
whose probability is **at least** the threshold.
"""

# %% exercise="00.1"
def predicted_labels(probabilities, threshold=0.5):
    return ...


# %% solution="00.1"
def predicted_labels(probabilities, threshold=0.5):
    return {name for name, p in probabilities.items() if p >= threshold}


# %% mistake="00.1" says="single most probable"
def predicted_labels(probabilities, threshold=0.5):
    return {max(probabilities, key=probabilities.get)}


# %% mistake="00.1" says="exactly at the threshold"
def predicted_labels(probabilities, threshold=0.5):
    return {name for name, p in probabilities.items() if p > threshold}


# %% mistake="00.1" says="a set of names"
def predicted_labels(probabilities, threshold=0.5):
    return [p >= threshold for p in probabilities.values()]


# %% tags=["learn"]
check("00.1", predicted_labels)

# %% [markdown]
r"""
## The lessons

| lesson | question |
|---|---|
| 00 Start here | Does everything run? |
| 01 Multi-label data | What is a label, and what makes one difficult? |
| 02 The BCE baseline | How good is the plain method, and by which measure? |
| 03 PAL-N calibration | What does a second branch learn, and what does λ do? |
| 04 ECE analysis | How well do the probabilities fit, and how do we measure it? |
| 05 Knowledge distillation | What is in a soft label? |
| 06 Uncertainty attention | Where in the picture is a network uncertain? |
| 07 Uncertainty distillation | Does a student gain from its teacher's uncertainty? |
| 08 Self-distillation | Can a network be its own teacher? |
| 09 Parallel self-distillation | Do several specialised teachers help? |
| 10 Distilling from detection | What can a detector teach that was trained without boxes? |
| 11 Full runs | How does all of this run at full size, on your data? |

![The ideas of the course: labels train a network, whose probabilities are measured and corrected; then the network becomes a teacher and passes on its probabilities, its calibration branch's answers and an uncertainty map; other teachers follow.](images/concept_map.svg)

Each box is an idea, with the number of its lesson. Each arrow says what one idea does for another. The
[cheat sheet](../docs/cheatsheet/README.md) has the losses, the metrics and the traps on one page.

Each lesson has the same parts: a guess, a picture, the idea, each equation beside the line of code that *is* it, then results
with error bars, something to move, and exercises. The [glossary](../docs/glossary.md) explains every term.

## How the numbers are made

* A *recipe* describes each experiment. `load_or_run(recipe)` loads its result if it ships with the course. Otherwise it tells you what the
  training will cost, and trains. `load_or_run(recipe, retrain=True)` always trains.
* Comparisons use at least five [seeds](../docs/glossary.md#seed), or say that they use fewer, and show intervals. "Not detected" and "reversed" are results too.
* The environment variable `UDLIB_PROFILE` sets the size of everything: `smoke` (a few steps, to see that it runs), `course`
  (the default), `full` (448 px, torchvision's networks, a GPU).

The next cell prints what your machine will use.
"""

# %% tags=["report"]
from udlib.training.devices import make_accelerator, resolve_precision
from udlib.course.store import profile

device = make_accelerator().device
print(f"profile: {profile()} · device: {device.type} · precision: {resolve_precision('auto', device)} · "
      f"torch {torch.__version__.split('+')[0]} · threads: {torch.get_num_threads()}")

# %% [markdown]
"""
If that line appeared, you are ready. `udlib doctor` in a terminal tells you more, and what to do if something is missing.

## Summary

* A multi-label classifier gives one probability per class and picture. They need not add up to one.
* A higher threshold lowers the recall and usually raises the precision.
* *Calibration* asks whether 70 % really means seven in ten. Labels of *difficult* things are the first suspects when it does not.

**Next:** lesson 01 looks at the data before any model does.

## Further reading

* L. Song et al., *Handling Difficult Labels for Multi-label Image Classification via Uncertainty Distillation*, ACM MM 2021:
  the paper this course follows.
* C. Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017: modern networks are often overconfident.
* M. Everingham et al., *The PASCAL Visual Object Classes (VOC) Challenge*, IJCV 2010: the source of the "difficult" labels.
"""

# %% [markdown]
r"""
## Quiz

What do you know after this lesson?
"""

# %% tags=["report"]
from udlib.course.quizzes import quiz

quiz("00")
