# %% [markdown]
"""
# 00 · Start here

[01 · Multi-label data →](01_multilabel_data.ipynb)

**Aim.** In a few minutes you will know that your machine is ready, see a network name several things in one picture, and
know where the course goes from there.

**Prerequisites.** Some Python. If you have trained a network in PyTorch before, you have everything you need.

**Time.** About ten minutes. The cells themselves run in seconds, on a laptop, without a network connection and without a GPU.

To run a cell, click into it and press <kbd>Shift</kbd>+<kbd>Enter</kbd>. Start with the next one.
"""

# %% tags=["setup"]
import numpy as np
import torch

from udlib.datasets.drawing import CLASSES
from udlib.datasets.scenes import record
from udlib.course.exercises import check, check_guess
from udlib.figures.plots import picture_grid, prediction, show

# %% [markdown]
"""
## One picture, several answers

Here is a picture that no network has seen in training. Before you read on: which things can you name in it?
"""

# %% tags=["setup"]
scene = record(17, "test", size=64)
large = record(17, "test", size=448)

# %%
show(picture_grid([large.image, scene.image], ["for your eyes: 448 px", "for the network: 64 px"], columns=2, side=3.2),
     "One test scene, drawn at 448 and at 64 pixels")

# %% [markdown]
"""
Write your answer down. The next cell holds your guess: *how many* different classes of things are in the picture?
"""

# %%
my_guess = None  # for example 2

# %% [markdown]
"""
A **multi-label** classifier answers one yes-or-no question per class: *is there a boat? is there a bird? …* Each answer is a
probability of its own, so they need not add up to one. The next cell loads a small network that was trained on 2,000 such
pictures (lesson 02 trains it) and asks it.
"""

# %%
from udlib.datasets.transforms import normalise
from udlib.course.store import load_model
from udlib.course.recipes import baseline

model = load_model(baseline("scenes"))
pixels = torch.from_numpy(scene.image).permute(2, 0, 1)[None]  # (1, 3, 64, 64), uint8
with torch.no_grad():
    logits = model(normalise(pixels), calibration=False).logits[0]
probabilities = torch.sigmoid(logits)
assert probabilities.shape == (len(CLASSES),) and bool(((probabilities > 0) & (probabilities < 1)).all())

# %%
drawn = {thing.name for thing in scene.objects}
hard = drawn - {thing.name for thing in scene.objects if not thing.difficult}
show(prediction(scene.image, CLASSES, probabilities, [c in drawn for c in CLASSES], [c in hard for c in CLASSES],
                title="what the network says"),
     "The scene, and the ten largest class probabilities; the classes that were drawn are filled")

# %% [markdown]
"""
Filled bars are classes that really were drawn, so a good network has long filled bars and short empty ones. Orange with stripes
marks a thing that is *difficult* to see: small, hidden, cut off by the frame, or faint. These are what this course is about.

Because this picture was drawn by a program, its truth is known. Did you count right?
"""

# %%
check_guess("Classes in the picture", my_guess, len(drawn))

# %% [markdown]
"""
## Confident is not the same as right

Below are eight more test pictures. Under each stand the classes that the network is at least 50 % sure of, with a ✓ for
those that were drawn and a ✗ for the others.
"""

# %%
def predict(scene):
    """Class probabilities of one scene, as a dictionary."""
    pixels = torch.from_numpy(scene.image).permute(2, 0, 1)[None]
    with torch.no_grad():
        p = torch.sigmoid(model(normalise(pixels), calibration=False).logits[0])
    return dict(zip(CLASSES, p.tolist()))


# %% tags=["cover"]
def verdict(scene, threshold=0.5):
    """The classes above the threshold, each marked as right or wrong."""
    names = {thing.name for thing in scene.objects}
    said = sorted((-p, name) for name, p in predict(scene).items() if p >= threshold)
    return "\n".join(f"{'✓' if name in names else '✗'} {name} {-p:.2f}" for p, name in said[:3]) or "(nothing)"


scenes = [record(k, "test") for k in range(40, 48)]
show(picture_grid([s.image for s in scenes], [verdict(s) for s in scenes], columns=4, side=2.2),
     "Eight test scenes with the classes the network predicts, marked right or wrong")

# %% [markdown]
"""
When a forecaster says "70 % chance of rain" on a hundred days, it should rain on about seventy of them. A network whose
probabilities keep that promise is **calibrated**. Networks often are not: they learn the labels of *difficult* things by heart
and become surer than they have a right to be. Two questions run through the course:

1. **Can a second branch keep a network honest?** (*Uncertainty Distillation*, ACM MM 2021: the calibration branch.)
2. **What should a teacher network teach a student**: its answers, its doubts, or where in the picture it doubts?
"""

# %% [markdown]
"""
## Move something

Slide the threshold. A low one finds more (recall) and is wrong more often (precision); no threshold is right for everyone.
"""

# %%
from udlib.course.explorers import Explorer, Frame

crowd = [record(k, "test") for k in range(100, 400)]
truth = np.array([[c in {t.name for t in s.objects} for c in CLASSES] for s in crowd])
images = torch.stack([torch.from_numpy(s.image).permute(2, 0, 1) for s in crowd])
with torch.no_grad():
    said = torch.sigmoid(model(normalise(images), calibration=False).logits).numpy()


# %%
def at_threshold(threshold):
    """The eight scenes judged at one threshold, with precision and recall over three hundred."""
    yes = said >= threshold
    precision, recall = (yes & truth).sum() / max(yes.sum(), 1), (yes & truth).sum() / truth.sum()
    figure = picture_grid([s.image for s in scenes], [verdict(s, threshold) for s in scenes], columns=4, side=2.0)
    return Frame(figure, f"predictions at threshold {threshold}", {
        "threshold": f"{threshold:.2f}", "precision": f"{precision:.0%}", "recall": f"{recall:.0%}"})


explorer = Explorer({"threshold": [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95]}, at_threshold,
                    start={"threshold": 0.5}, note="Measured on 300 test scenes; every drawn thing counts.")
explorer

# %% [markdown]
"""
The same at a glance, without the slider:
"""

# %%
from udlib.figures.plots import lines

thresholds = np.linspace(0.05, 0.95, 19)
precision = [(truth & (said >= t)).sum() / max((said >= t).sum(), 1) for t in thresholds]
recall = [(truth & (said >= t)).sum() / truth.sum() for t in thresholds]
assert all(a >= b for a, b in zip(recall, recall[1:])), "recall can only fall as the threshold rises"
show(lines(thresholds, {"precision": precision, "recall": recall}, "threshold", "share",
           "A higher threshold: fewer answers, more of them right"),
     "Precision and recall over the threshold, on 300 test scenes")

# %% [markdown]
"""
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


# %%
check("00.1", predicted_labels)

# %% [markdown]
"""
## The map

| lesson | question |
|---|---|
| 00 Start here | Does everything run? |
| 01 Multi-label data | What is a label, and what makes one difficult? |
| 02 The BCE baseline | How good is the plain method, and by which measure? |
| 03 PAL-N calibration | What does a second branch learn, and what does λ do? |
| 04 ECE analysis | How honest are the probabilities, and how would one know? |
| 05 Knowledge distillation | What is in a soft label? |
| 06 Uncertainty attention | Where in the picture does a network doubt? |
| 07 Uncertainty distillation | Does a student gain from a teacher's doubts? |
| 08 Self-distillation | Can a network be its own teacher? |
| 09 Parallel self-distillation | Do many small teachers help? |
| 10 Distilling from detection | What can a detector teach that never saw a box? |
| 11 Full runs | How does all of this run at full size, on your data? |

Each lesson has the same shape: a guess, a picture, the idea, each equation beside the line of code that *is* it, then evidence
with error bars, something to move, and exercises.

## How the numbers are made

* Every experiment is described by a *recipe*. `load_or_run(recipe)` loads its result if it ships with the course, and trains it
  otherwise, telling you first what that will cost. `load_or_run(recipe, retrain=True)` always trains.
* Comparisons use at least five seeds and show intervals. "Not detected" and "the other way round" are results too.
* The environment variable `UDLIB_PROFILE` sets the size of everything: `smoke` (a few steps, to see that it runs), `course`
  (the default), `full` (448 px, torchvision's networks, a GPU).

The next cell says what your machine will use.
"""

# %%
from udlib.training.devices import make_accelerator, resolve_precision
from udlib.course.store import profile

device = make_accelerator().device
print(f"profile: {profile()} · device: {device.type} · precision: {resolve_precision('auto', device)} · "
      f"torch {torch.__version__.split('+')[0]} · threads: {torch.get_num_threads()}")

# %% [markdown]
"""
If that line appeared, you are ready. `udlib doctor` in a terminal tells more, and says what to do if something is missing.

## Summary

* A multi-label classifier gives one probability per class and picture; they do not add up to one.
* Where the cut is made (the threshold) trades precision for recall.
* A probability is a promise; *calibration* asks whether it is kept, and *difficult* labels are where it breaks first.

**Next:** lesson 01 looks at the data before any model does.

## Further reading

* L. Song et al., *Handling Difficult Labels for Multi-label Image Classification via Uncertainty Distillation*, ACM MM 2021:
  the paper this course follows.
* C. Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017: why confident networks need checking.
* M. Everingham et al., *The PASCAL Visual Object Classes (VOC) Challenge*, IJCV 2010: where "difficult" labels come from.
"""
