# %% [markdown]
r"""
# 10 · Distilling from detection: boxes nobody drew

[← 09 · Parallel self-distillation](09_parallel_self_distillation.ipynb) · [11 · Full runs →](11_full_runs.ipynb)

**Aim.** You will look inside a detector that never saw a box, measure how well it finds things all the same, and hand its knowledge
to a plain classifier in two ways. The method is that of Liu et al. (2018), "the paper" of this lesson; we call it **WSD**, weakly-supervised
detection distilled. And you will ask the question that ends this course: *what* should a teacher teach, and what does
each answer cost?

**Prerequisites.** Lesson 02: the baseline, BCE, AP. Lessons 03 and 04: calibration. Lesson 05: distillation from a classifier, which is
the control here. Lessons 08 and 09 for the closing comparison.

**Time.** About 100 minutes with the exercises. The cells run in about a minute: the networks are loaded, and only very small
ones are trained.
"""

# %% tags=["setup"]
import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from udlib.figures import label_graphs as graphs, plots, boxes as regions
from udlib.course.exercises import check, check_guess
from udlib.course.explorers import ProposalExplorer
from udlib.course.store import arrays, dataset, for_profile, load_model, needed, profile, recipe
from udlib.figures.plots import show
from udlib.course.recipes import baseline, detection, distilled, pairs, partitioned, restart_controls, restarted, two_branch
from udlib.statistics import paired_difference
from udlib.course.sentences import Differences, in_units, runs, say, spread, stored, trained

# %% [markdown]
r"""
As before, sentences with numbers are written by code; a "point" is one per cent; a difference between two recipes is **paired by seed**
and comes with its 95 % t interval, over five seeds, or over three where the text says so. If the interval holds 0, its verdict is "not
detected".
"""

# %% tags=["setup"]
difference = Differences()  # counts the intervals over seeds that this lesson draws

# %% tags=["setup"]
ARMS = detection()  # the recipes of this lesson, by name
base, teachers, students = runs(two_branch(0.0)), runs(ARMS["teacher, grid"]), runs(ARMS["both"])

# %% [markdown]
r"""
## 1. First, a picture

Eight test images. In each, and for each of its labels, the box to which a detector gives most. Solid blue: at least half right, as
detection counts it (section 2). Dashed red: not. **This detector was trained on labels alone: "there is a boat somewhere in
here."** Nobody ever told it where.
"""

# %%
from dataclasses import asdict, replace

from udlib.methods.detection.evaluation import detect, matched, objects_of
from udlib.datasets.proposals import grid_proposals

chosen = for_profile(ARMS["teacher, grid"][0])
detector, whole = load_model(chosen), arrays(chosen, "test")
count = min(1000, len(whole.targets))
few = replace(whole, images=whole.images[:count], targets=whole.targets[:count], difficult=whole.difficult[:count],
              proposals=grid_proposals(count))
pictures = dataset(chosen.data, "test", chosen.size, chosen.limit).subset(range(count))
names, truth = list(pictures.classes), objects_of(pictures)

# %%
found = detect(detector, few)
overlap, _ = matched(found, truth)  # IoU of each box with the nearest object of its class
order = found.scores.argsort(descending=True, stable=True).tolist()
first = {}  # the best-scored box of each image and class
for n in order:
    first.setdefault((int(found.image[n]), int(found.classes[n])), n)
RIGHT = 0.5


def boxes_of(row, classes):
    """The best box of each of these classes: (box, name, whether it is right)."""
    return [(found.boxes[n].tolist(), names[c], bool(overlap[n] >= RIGHT)) for c in classes for n in [first[row, c]]]

# %%
easy = (few.targets.bool() & ~few.difficult).any(1).nonzero().flatten().tolist()
eight = easy[:8]  # the first eight with an easy label, whatever they show
present = [few.targets[row].nonzero().flatten().tolist() for row in eight]
show(regions.detections([pictures.image(row) for row in eight], [boxes_of(row, labels) for row, labels in zip(eight, present)], columns=4),
     "Eight test images with the box that the detector prefers for each label, blue where it fits an object and red where it does not")

# %% [markdown]
r"""
### Predict

Guess before you go on:
"""

# %%
guess_corloc = ...  # of the images with a class, in how many does its best box fit (IoU ≥ 0.5)? mean over classes, per cent
guess_student = ...  # mAP of the classifier that this detector teaches, minus that of the baseline; points
guess_beyond = ...  # mAP of that classifier minus that of one taught by a *classifier* (KD, lesson 05); points

# %% [markdown]
r"""
## 2. Where might it be?

### Proposals

A detector of this kind (**WSDDN**, weakly-supervised deep detection network; Bilen and Vedaldi, 2016) does not invent boxes. It is given
some, the *proposals*, and weighs them. Liu et al. take EdgeBoxes. The course has three kinds:

| kind | what it is | costs |
|---|---|---|
| `grid` | windows at four scales, each overlapping the next by half; the same in every image | nothing |
| `selective-search` | segments of similar colour and texture, joined step by step (Uijlings et al., 2013) | OpenCV, milliseconds an image |
| `boxes` | the boxes that the annotators drew, without their names | the annotators' labour: an upper bound, not a method |
"""

# %%
from udlib.datasets.proposals import DIVISIONS, grid

picture = pictures.image(eight[0])
drawn = {n: grid([n]).tolist()[::1 if n < 3 else 3] for n in DIVISIONS[1:]}
show(regions.detections([picture] * len(drawn), [[(box, "", True) for box in boxes] for boxes in drawn.values()],
                      [f"{(2 * n - 1) ** 2} of side 1/{n}" + (", a third drawn" if n > 2 else "") for n in drawn], columns=3),
     "One picture with the windows of the grid at the three scales below the whole picture")
say(f"With the whole picture, {len(grid())} windows, the same for every picture.")

# %% [markdown]
r"""
### When is a box right?

Detection measures the fit of two boxes by their **intersection over union** (IoU): the area that they share, over the area that they
cover together. From 0.5 on a box counts as right.

### Exercise 10.1

Write the IoU of two boxes `(x1, y1, x2, y2)`.
"""

# %% exercise="10.1"
def my_iou(a, b):
    return ...

# %% solution="10.1"
def my_iou(a, b):
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)

# %% mistake="10.1" says="clip both at 0"
def my_iou(a, b):
    width, height = (min(a[k + 2], b[k + 2]) - max(a[k], b[k]) for k in (0, 1))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)

# %% mistake="10.1" says="counts the intersection twice"
def my_iou(a, b):
    width, height = (max(min(a[k + 2], b[k + 2]) - max(a[k], b[k]), 0) for k in (0, 1))
    return width * height / sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))

# %% mistake="10.1" says="the smaller box"
def my_iou(a, b):
    width, height = (max(min(a[k + 2], b[k + 2]) - max(a[k], b[k]), 0) for k in (0, 1))
    return width * height / min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))

# %% mistake="10.1" says="a pixel is added"
def my_iou(a, b):
    width, height = (max(min(a[k + 2], b[k + 2]) - max(a[k], b[k]) + 1, 0) for k in (0, 1))
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
    return width * height / (sum(areas) - width * height)

# %%
check("10.1", my_iou)

# %% [markdown]
r"""
### What a set of proposals can reach at best

No detector can find what is not among its proposals. So measure them first, without any network: of the objects that are not difficult, how many have
some proposal with at least this IoU?
"""

# %%
from torchvision.ops import box_iou

from udlib.datasets.proposals import proposals


def nearest(boxes, row):
    """Of each object of an image that is not difficult, the best IoU that some proposal has."""
    own = truth.boxes[(truth.image == row) & ~truth.difficult]
    return box_iou(boxes, own).amax(0).numpy() if len(own) else np.zeros(0)


reach = {f"grid to 1/{n}, boxes: {len(grid(DIVISIONS[:n]))}": np.concatenate([nearest(grid(DIVISIONS[:n]), row) for row in range(count)])
         for n in (1, 2, 3, 4)}

# %%
try:
    searched = proposals(pictures.subset(range(min(count, 300))), "selective-search")
    own = [searched.of(torch.tensor([row])).boxes for row in range(len(searched))]
    reach[f"selective search, boxes: {searched.counts.double().mean():.0f}"] = np.concatenate([*map(nearest, own, range(len(own)))])
except RuntimeError as error:  # no OpenCV here
    own = []
    print(error)
thresholds = np.linspace(0.1, 0.9, 17)
share = {name: [100 * np.mean(best >= t) for t in thresholds] for name, best in reach.items()}
show(plots.lines(thresholds, share, "IoU at least", "objects with such a box, per cent", "what proposals can reach"),
     "Share of objects with a proposal of at least a given IoU, for the grid up to each scale, and selective search where there is one")

# %%
full = reach[f"grid to 1/4, boxes: {len(grid())}"]
say(f"With all four scales, {np.mean(full >= RIGHT):.0%} of the objects have a window with IoU 0.5 or more; whoever looks at the whole "
    f"picture alone has one for {np.mean(reach['grid to 1/1, boxes: 1'] >= RIGHT):.0%}.")
missed = truth.boxes[~truth.difficult]
area = ((missed[:, 2] - missed[:, 0]) * (missed[:, 3] - missed[:, 1])).numpy()
sizes = np.concatenate([area[((truth.image == row)[~truth.difficult]).numpy()] for row in range(count)])
if (full < RIGHT).any() and (full >= RIGHT).any():
    say(f"What the grid misses is small: objects without such a window take {np.median(sizes[full < RIGHT]):.1%} of the picture (median), the others "
        f"{np.median(sizes[full >= RIGHT]):.1%}.")

# %% [markdown]
r"""
## 3. A detector from labels

### Two questions for each box

![Of the scores of three boxes, one softmax runs over the classes of each box and another over the boxes of each class; their product, added up over the boxes, is the probability of each class in the image.](images/two_softmaxes.svg)

The backbone makes a map of the image. Of each box, the map's cells are pooled to a small fixed size (**RoI pooling**, maximum; a RoI is a *region of interest*) and go through two
layers, to a feature $f_r$. Two heads stand on it, each with a number for each box $r$ and class $k$, and each with a softmax of its own:

$$S^c_{rk} = \frac{e^{M^c_{rk}}}{\sum_j e^{M^c_{rj}}} \;\text{(which class is this box?)}, \qquad
S^d_{rk} = \frac{e^{M^d_{rk}}}{\sum_s e^{M^d_{sk}}} \;\text{(which box is this class?)}, \qquad p_k = \sum_r S^c_{rk} S^d_{rk} .$$

$p_k$ is a mean of $S^c_{\cdot k}$ with weights that add up to 1, so it is a probability. The loss is the baseline's BCE of $p$ and the labels of
the *image*. To make $p_k$ large, $M^d$ must put its weight on boxes where $S^c$ says $k$. **Nothing asks that such a box frame the object.** That it often does is a
hope, and section 4 measures it.

### Exercise 10.2

Write $p$ (C,) for the boxes of one image; `Mc` and `Md` are tensors (R, C).
"""

# %% exercise="10.2"
def my_p(Mc, Md):
    return ...

# %% solution="10.2"
def my_p(Mc, Md):
    return (Mc.softmax(1) * Md.softmax(0)).sum(0)

# %% mistake="10.2" says="exchanged"
def my_p(Mc, Md):
    return (Mc.softmax(0) * Md.softmax(1)).sum(0)

# %% mistake="10.2" says="both softmaxes run over classes"
def my_p(Mc, Md):
    return (Mc.softmax(1) * Md.softmax(1)).sum(0)

# %% mistake="10.2" says="both softmaxes run over the boxes"
def my_p(Mc, Md):
    return (Mc.softmax(0) * Md.softmax(0)).sum(0)

# %% mistake="10.2" says="mean over the boxes"
def my_p(Mc, Md):
    return (Mc.softmax(1) * Md.softmax(0)).mean(0)

# %% mistake="10.2" says="the best box alone"
def my_p(Mc, Md):
    return (Mc.softmax(1) * Md.softmax(0)).amax(0)

# %%
check("10.2", my_p)

# %%
from udlib.datasets.transforms import normalise

image = normalise(few.images[eight[0]][None])[0]
said = regions.region_scores(detector, image, grid())
assert torch.allclose(said.classes.sum(1), torch.ones(len(grid()))) and torch.allclose(said.regions.sum(0), torch.ones(len(names)))
with torch.inference_mode():
    by_library = torch.sigmoid(detector(image[None], grid_proposals(1).of(torch.tensor([0]))).logits[0])
assert torch.allclose(said.p, by_library, atol=1e-5) and said.p.max() <= 1

# %% [markdown]
r"""
### How many boxes does it take to say two things?

$S^c$ is a softmax over classes, so one box can be sure of one class only. Summed over classes, $\sum_k p_k \le \sum_r \sum_k S^c_{rk} = R$: **an
image with one box has $\sum_k p_k = 1$ and cannot be sure of two things at once.** It takes as many boxes as things. Look at what becomes of a picture's
answers when the detector has one window, the whole picture. (It was trained with all 84, so part of the change is that this is new to it.)
"""

# %%
one = regions.region_scores(detector, image, grid([1]))
assert torch.isclose(one.p.sum(), torch.tensor(1.0)) and said.p.sum() <= len(grid())
several = next((row for row in easy if (few.targets[row].bool() & ~few.difficult[row]).sum() >= 2), easy[0])
image = normalise(few.images[several][None])[0]
told = {"84 windows": regions.region_scores(detector, image, grid()).p, "the whole picture": regions.region_scores(detector, image, grid([1])).p}
top = told["84 windows"].argsort(descending=True)[:6].tolist()
show(plots.dots([names[c] + " (labelled)" * int(few.targets[several, c]) for c in top],
                {name: p[top].tolist() for name, p in told.items()}, "p of the class"),
     "What the detector says of one picture with several things, through all windows and through one, the whole picture")

# %% [markdown]
r"""
### The two softmaxes as maps

Let each box spread its number evenly over its own area, and add up. $S^c$ lights up wherever a box *would be* the class, $S^d$ where the detector
*looks* for it. Their product makes $p$.
"""

# %%
from udlib.figures import overlays

shown = [(row, c) for row in easy[:40] for c in (few.targets[row].bool() & ~few.difficult[row]).nonzero().flatten().tolist()][::7][:3]
maps = {"$S^c$": [], "$S^d$": [], "product": []}
for row, c in shown:
    part = regions.region_scores(detector, normalise(few.images[row][None])[0], grid())
    for name, weights in zip(maps, (part.classes, part.regions, part.shares)):
        maps[name].append(regions.evidence(grid(), weights[:, c], 32).numpy())
show(overlays.attention_grid([pictures.image(row) for row, _ in shown], maps, [names[c] for _, c in shown],
                             [[b for b in pictures.boxes(row) if b.name == names[c]] for row, c in shown], side=1.5),
     "Three pictures, with where the class scores of the boxes lie, where the region scores lie, and where their product does")

# %% [markdown]
r"""
## 4. Does it find things?

Two measures. **CorLoc** of a class: of the images with an easy object of it, the share in which the best-scored box has IoU ≥ 0.5 with an object of that
class; one number is the mean over classes. It takes the label as known. **Detection mAP**: all boxes of a class from all images, ranked by score, right where they fit an object that was not
found before. It has to know what is there, too.

CorLoc needs a yardstick. At the bottom, someone who always answers "the whole picture"; at the top, someone who knows the truth but has
our grid alone.
"""

# %%
from udlib.methods.detection.evaluation import Detections, correct_localisation
from udlib.datasets.proposals import WHOLE

pairs_of = torch.cartesian_prod(torch.arange(count), torch.arange(len(names)))
lazy = Detections(*pairs_of.T, torch.tensor(WHOLE).expand(len(pairs_of), 4), torch.ones(len(pairs_of)))
near = box_iou(grid(), truth.boxes)
oracle = Detections(truth.image, truth.classes, grid()[near.argmax(0)], near.amax(0))
located = {name: correct_localisation(which, truth, len(names)).numpy() for name, which in
           {"the whole picture": lazy, "the detector": found, "best window of the grid": oracle}.items()}

# %%
by_corloc = np.argsort(-np.nan_to_num(located["the detector"]))
show(plots.dots([names[c] for c in by_corloc], {name: 100 * values[by_corloc] for name, values in located.items()},
                "CorLoc, per cent", f"the first {count} test images, seed 0"),
     "CorLoc of each class: for the whole picture, for the detector, and for the best window of the grid")
corloc = {"CorLoc": stored(teachers, "CorLoc"), "detection mAP": stored(teachers, "detection_mAP")}
say("Over all test images and seeds: " + ", ".join(f"{name} {spread(values)} %" for name, values in corloc.items())
    + f". On these {count} images, the whole picture would reach a CorLoc of {np.nanmean(located['the whole picture']):.0%}, the best windows "
    f"{np.nanmean(located['best window of the grid']):.0%}. (Section 2 counted objects; this counts images and averages over classes.)")
check_guess("CorLoc", guess_corloc, 100 * corloc["CorLoc"].mean(), " %")

# %% [markdown]
r"""
### How is it wrong?

A label only asks that *something* in the box give the class away. So a detector from labels has two temptations: the part that says most (a face
for a cat), and the surroundings that go along (water for a boat). Sort the wrong boxes of seed 0 by how they lie to the nearest object of their class:
"""

# %%
def kind_of(row, c):
    """How the best box of a class lies to the object of that class that it meets most."""
    box, own = found.boxes[first[row, c]], truth.boxes[(truth.image == row) & (truth.classes == c)]
    if not len(own):
        return None
    inside = (torch.minimum(box[2:], own[:, 2:]) - torch.maximum(box[:2], own[:, :2])).clamp(min=0).prod(1)
    areas, mine = (own[:, 2:] - own[:, :2]).prod(1), (box[2:] - box[:2]).prod()
    n = int((inside / (areas + mine - inside)).argmax())
    if inside[n] / (areas[n] + mine - inside[n]) >= RIGHT:
        return "right"
    return "around it" if inside[n] > 0.8 * areas[n] else "a part of it" if inside[n] > 0.8 * mine else \
        "overlapping it" if inside[n] > 0 else "elsewhere"

# %%
sorted_out = pd.Series([kind_of(row, c) for row in range(count) for c in
                        (few.targets[row].bool() & ~few.difficult[row]).nonzero().flatten().tolist()]).dropna()
shares = (sorted_out.value_counts() / len(sorted_out)).reindex(["right", "a part of it", "around it", "overlapping it", "elsewhere"]).fillna(0)
assert np.isclose(shares.sum(), 1)
show(plots.bars(list(shares.index), {"best boxes": (100 * shares).tolist()}, "share of the labels, per cent", "how the best box lies"),
     "How the detector's best boxes lie to the nearest object: right, a part, around it, overlapping it or elsewhere")
worst = shares.drop("right").idxmax()
say(f"The commonest fault here: **{worst}** ({shares[worst]:.0%} of all labels). A very small object can only be *around it*: the smallest window takes "
    "1/16 of the picture. The rest is the detector's choice, or the steps of the grid.")

# %% [markdown]
r"""
*Think!* Multiple windows around one object all have a good $S^c$. Does the loss reward the *tightest* of them?

## 5. What to hand on: features

The student is a plain classifier that sees whole images. It has no boxes at test time. But *while it learns* it can be asked about boxes. In **stage 1** it
pools the same regions from its own map, through two layers of its own that are thrown away afterwards, and learns the teacher's
features of them, without any label. With $R_b$ boxes in image $b$ of $B$:

$$L_f = \frac{1}{2B} \sum_b \frac{1}{R_b} \sum_{r} \big\| f^T_{br} - f^S_{br} \big\|^2 .$$

### Exercise 10.3

Write it for features (M, D) of all boxes of a batch; `image` (M,) says to which of the `images` images a box belongs. Images may have different numbers
of boxes. No gradient may flow to the teacher.
"""

# %% exercise="10.3"
def my_feature_loss(teacher, student, image, images):
    return ...

# %% solution="10.3"
def my_feature_loss(teacher, student, image, images):
    apart = (teacher.detach() - student).square().sum(1)
    return sum(apart[image == b].mean() for b in range(images)) / (2 * images)

# %% mistake="10.3" says="a mean over all regions"
def my_feature_loss(teacher, student, image, images):
    return (teacher.detach() - student).square().sum(1).mean() / 2

# %% mistake="10.3" says="the half is missing"
def my_feature_loss(teacher, student, image, images):
    apart = (teacher.detach() - student).square().sum(1)
    return sum(apart[image == b].mean() for b in range(images)) / images

# %% mistake="10.3" says="divide by their number R_b"
def my_feature_loss(teacher, student, image, images):
    return (teacher.detach() - student).square().sum() / (2 * images)

# %% mistake="10.3" says="a mean over the features"
def my_feature_loss(teacher, student, image, images):
    apart = (teacher.detach() - student).square().mean(1)
    return sum(apart[image == b].mean() for b in range(images)) / (2 * images)

# %% mistake="10.3" says="detach its features"
def my_feature_loss(teacher, student, image, images):
    apart = (teacher - student).square().sum(1)
    return sum(apart[image == b].mean() for b in range(images)) / (2 * images)

# %%
check("10.3", my_feature_loss)

# %%
from udlib.methods.detection.losses import region_feature_loss

draw = torch.Generator().manual_seed(0)
f_T, f_S = torch.randn(6, 3, generator=draw), torch.randn(6, 3, generator=draw)
of = torch.tensor([0, 0, 0, 1, 1, 1])
by_hand = (f_T - f_S).square().sum() / (2 * 2 * 3)  # B = 2, R = 3: with as many boxes in each image, the paper's Eq. 3
assert torch.isclose(by_hand, region_feature_loss(f_T, f_S, of, images=2))

# %% [markdown]
r"""
## 6. What to hand on: predictions

In **stage 2** the student starts from the backbone that stage 1 gave. It learns from the labels, and from what the teacher says of the image, sharpened:

$$q_k = \sum_r \mathrm{softmax}_C(2 M^c)_{rk}\; \mathrm{softmax}_R(2 M^d)_{rk}, \qquad
L = \mathrm{BCE}(\sigma(z), y) + \mathrm{BCE}(\sigma(a \odot z), q) .$$

(Sums over classes, means over images.) Two things are new against lesson 05. The teacher is **sharpened**, where
we would have raised a temperature to soften it. And the student's logits are scaled, by a number $a_k$ for each class that is **learned**, from
0.2 on.

What does sharpening do to the detector's answers?
"""

# %%
from udlib.calibration import expected_calibration_error, reliability_curve
from udlib.methods.detection.losses import detection_logits


@torch.inference_mode()
def answers(sharpen):
    """The detector's probabilities of the first test images, with both softmaxes sharpened."""
    parts = []
    for rows in torch.arange(count).split(250):
        of = few.proposals.of(rows)
        said = detector(normalise(few.images[rows]), of)
        parts.append(torch.sigmoid(detection_logits(said.class_scores, said.region_scores, of.image, len(rows), sharpen)))
    return torch.cat(parts).double()

# %%
sharper = {f"s = {s:g}": answers(s) for s in (1, 2, 4)}
show(plots.reliability({name: reliability_curve(p, few.targets, average="pooled") for name, p in sharper.items()},
                       "the detector, seed 0", smallest=10),
     "Reliability diagrams of the detector's answers as trained, and sharpened twofold and fourfold")
for name, p in sharper.items():
    yes, no = p[few.targets.bool()].mean(), p[~few.targets.bool()].mean()
    error = expected_calibration_error(p, few.targets, average="pooled")
    say(f"- {name}: mean answer {yes:.2f} where the label is there and {no:.3f} where it is not; pooled ECE {100 * error:.2f} %.")

# %% [markdown]
r"""
### What does the second term ask for?

Take one class, and images that all look alike: the label is there with chance $\pi$, and the teacher says $q$. The student has one logit $z$. It stands
still where

$$\sigma(z) - \pi + a\,(\sigma(a z) - q) = 0 .$$

Suppose the teacher is honest, $q = \pi$. If $a = 1$, then $\sigma(z) = \pi$ and all is well. But if $a = 0.2$, then $\sigma(az)$ lies
near one half, and the second term pulls $z$ *outwards*, until the scaled answer comes closer to $q$.
"""

# %%
def content(pi, q, a):
    """The answer σ(z) at which the student stands still: the left side rises with z, so halve an interval around its zero."""
    low, high = np.full_like(pi, -40.0), np.full_like(pi, 40.0)
    sigma = lambda z: 1 / (1 + np.exp(-z))
    for _ in range(60):
        z = (low + high) / 2
        above = sigma(z) - pi + a * (sigma(a * z) - q) > 0
        low, high = np.where(above, low, z), np.where(above, z, high)
    return sigma(z)

# %%
chances = np.linspace(0.01, 0.99, 99)
asked = {f"a = {a:g}": content(chances, chances, a) for a in (0.2, 0.5, 1.0, 2.0)}
assert np.allclose(asked["a = 1"], chances, atol=1e-6)
z = torch.logit(torch.from_numpy(asked["a = 0.2"])).requires_grad_()  # does the library's loss stand still there, too?
y = q = torch.from_numpy(chances)
both = F.binary_cross_entropy_with_logits(z, y, reduction="sum") + F.binary_cross_entropy_with_logits(0.2 * z, q, reduction="sum")
assert torch.autograd.grad(both, z)[0].abs().max() < 1e-6
show(graphs.monotone(chances, asked, "chance π that the label is there, and the teacher's q", "answer where the student is content",
                     "an honest teacher, through a scale"),
     "The answer that the student settles at over the label's chance, for an honest teacher and several fixed scales")

# %% [markdown]
r"""
But $a$ is learned. Its own gradient is $z(\sigma(az) - q)$: it moves until $\sigma(az)$ meets $q$. With one kind of images, that is a perfect
peace: $z = \mathrm{logit}\,\pi$ and $a = \mathrm{logit}\,q / \mathrm{logit}\,\pi$ satisfy **both** terms (unless $\pi$ is one half), and the teacher has taught nothing. So
$a_k$ is a *temperature, fitted to the teacher, for each class*. What it absorbs is a common **factor** of the logits: how sure the class's teacher is. A common
*shift* it does not absorb, for it has no bias. And where images differ, the teacher pulls wherever its logits are no multiple of what the labels say.
"""

# %%
pi, q = torch.tensor([0.7], dtype=torch.float64), torch.tensor([0.9], dtype=torch.float64)
z, a = torch.logit(pi).requires_grad_(), (torch.logit(q) / torch.logit(pi)).requires_grad_()
peace = F.binary_cross_entropy_with_logits(z, pi) + F.binary_cross_entropy_with_logits(a * z, q)
assert max(g.abs().max() for g in torch.autograd.grad(peace, [z, a])) < 1e-12
print(f"z = {z.item():.3f}, a = {a.item():.3f}: both gradients are zero, whatever the teacher says")

# %% [markdown]
r"""
### Where did $a$ end?

Each student's last row in its history has the scale of every class.
"""

# %%
scales = np.array([[run.history[-1][f"scale {k}"] for k in range(len(names))] for run in students])
ends = [paired_difference(column, np.zeros(len(column))) for column in scales.T]
by_scale = np.argsort(-scales.mean(0))
figure = plots.estimates([names[c] for c in by_scale], {"a": tuple(np.array([getattr(ends[c], part) for c in by_scale])
                                                         for part in ("mean", "low", "high"))}, "learned scale a")
figure.axes[0].axvline(0.2, color="black", linewidth=0.8, linestyle=":")
figure.axes[0].axvline(1, color="black", linewidth=0.8)
show(figure, "The learned scale of each class over seeds, with its start at 0.2 as a dotted line and 1 as a solid one")
low, high = names[by_scale[-1]], names[by_scale[0]]
say(f"It starts at 0.2 (dotted) and ends between {scales.mean(0).min():.2f} ({low}) and {scales.mean(0).max():.2f} ({high}). Below 1, the student's "
    "own logits are larger than those of its sharpened teacher; above 1, smaller.")

# %% [markdown]
r"""
### Exercise 10.4

Write the loss for tensors `z`, `y`, `q` (N, C) and `a` (C,): the sum over classes, the mean over images. No gradient may flow to `q`; `a` is learned. `F.binary_cross_entropy_with_logits(logits, targets, reduction="none")` gives
the BCE of each entry.
"""

# %% exercise="10.4"
def my_student_loss(z, a, y, q):
    return ...

# %% solution="10.4"
def my_student_loss(z, a, y, q):
    labels = F.binary_cross_entropy_with_logits(z, y, reduction="none")
    taught = F.binary_cross_entropy_with_logits(a * z, q.detach(), reduction="none")
    return (labels + taught).sum(1).mean()

# %% mistake="10.4" says="the scale a is missing"
def my_student_loss(z, a, y, q):
    labels = F.binary_cross_entropy_with_logits(z, y, reduction="none")
    return (labels + F.binary_cross_entropy_with_logits(z, q.detach(), reduction="none")).sum(1).mean()

# %% mistake="10.4" says="the scale is at both terms"
def my_student_loss(z, a, y, q):
    labels = F.binary_cross_entropy_with_logits(a * z, y, reduction="none")
    return (labels + F.binary_cross_entropy_with_logits(a * z, q.detach(), reduction="none")).sum(1).mean()

# %% mistake="10.4" says="detach q"
def my_student_loss(z, a, y, q):
    labels = F.binary_cross_entropy_with_logits(z, y, reduction="none")
    return (labels + F.binary_cross_entropy_with_logits(a * z, q, reduction="none")).sum(1).mean()

# %% mistake="10.4" says="rounded to 0 and 1"
def my_student_loss(z, a, y, q):
    labels = F.binary_cross_entropy_with_logits(z, y, reduction="none")
    return (labels + F.binary_cross_entropy_with_logits(a * z, (q > 0.5).double(), reduction="none")).sum(1).mean()

# %% mistake="10.4" says="means over classes"
def my_student_loss(z, a, y, q):
    labels = F.binary_cross_entropy_with_logits(z, y)
    return labels + F.binary_cross_entropy_with_logits(a * z, q.detach())

# %%
check("10.4", my_student_loss)

# %% [markdown]
r"""
### The whole method, live

A very small detector and its student, on 200 images for a few epochs. The result will be poor; only the steps matter. First the detector, by hand: its loss
is one line.
"""

# %%
from accelerate.utils import set_seed

from udlib.backbones import backbone
from udlib.training.batches import ArrayData
from udlib.methods.detection.network import Detector
from udlib.losses import ova_loss
from udlib.training import fit
from udlib.workshop import train as train_method

train = arrays(base[0].recipe, "train")
some = ArrayData(train.images[:200], train.targets[:200], proposals=grid_proposals(len(train.images[:200])))
tiny = replace(base[0].recipe.training, epochs=3)
plain = recipe("detection", multi_scale=False, network="small_narrow", embedding=512, **asdict(tiny))

# %%
def on_labels(model, batch):
    """WSDDN: BCE of p, from the labels of whole images."""
    return {"total": ova_loss(model(batch.images, batch.regions).logits, batch.targets)}


set_seed(tiny.seed)
small = Detector(backbone("small_narrow"), len(names), plain.settings.hidden, plain.settings.pool)
by_hand = fit(small, some, on_labels, tiny)
_, library = train_method(plain.but(part="teacher"), some)
assert np.allclose(by_hand.column("total"), library.column("total"), rtol=1e-3)
print([round(value, 3) for value in by_hand.column("total")])

# %%
student, steps = train_method(plain, some, teachers={"teacher": small})
rows = pd.DataFrame(steps.rows)
assert rows["stage"].tolist() == [1, 2, 2] and not hasattr(student, "regions")  # the region layers are gone
rows[["epoch", "stage", "total", "labels", "predictions"]].round(3)  # stage 1 has no labels

# %% [markdown]
r"""
## 7. What does it bring?

### What the paper claims

Published mAP, per cent (Liu et al., 2018). They are claims to test, and none of ours:
"""

# %%
CLAIMED = pd.DataFrame({"student without": [70.9, 70.9, 55.6], "student with": [74.6, 76.3, 60.1], "teacher": [78.6, 81.1, 58.2]},
                       index=["COCO", "COCO, boxes of Faster R-CNN", "NUS-WIDE"])
CLAIMED["gain"] = (CLAIMED["student with"] - CLAIMED["student without"]).round(1)
assert CLAIMED["gain"].min() > 0
CLAIMED

# %% [markdown]
r"""
What a careful reader asks of such a table:

1. **Would any teacher do?** A student is compared with no teacher at all. But lesson 05 has shown a plain classifier teaching a network of its own
   size. So the control is **KD from a classifier with the same backbone**. It is not a perfect one: KD's student learns from soft labels alone, WSD's from
   the labels too; and WSD has a feature stage, a scale, sharpening, and a teacher that trains on images of three sizes. WSD − KD is the difference of two
   *systems*. A closer control follows the stages below: a classifier that teaches through WSD's own stage 2.
2. **How large is chance?** There is no error bar.
3. **What became of the probabilities?** Only mAP and F1 are printed.
4. **Which stage is it?** Stage 1 takes a quarter of the epochs here. Each stage alone is a control, too.

Our student has as many epochs as the baseline, both stages together.

### Exercise 10.5

Before you look: could five seeds see it? `arms` maps "baseline", "detector", "KD" and "WSD" to a list of scores, entry $k$ of each from
seed $k$; KD's teacher is a classifier with the detector's backbone. Somebody hopes that **WSD** adds `gain` beyond such a plain teacher, in
the student. Return how many seeds it takes, at least two, until the 95 % t interval of that difference reaches no further than
± `gain`, if the differences go on to spread as they do here. The quantile is `student_t.ppf(0.975, n - 1)`.
"""

# %% tags=["setup"]
from scipy.stats import t as student_t

# %% exercise="10.5"
def my_seeds(arms, gain):
    return ...

# %% solution="10.5"
def my_seeds(arms, gain):
    spread = np.subtract(arms["WSD"], arms["KD"]).std(ddof=1)
    n = 2
    while student_t.ppf(0.975, n - 1) * spread / n**0.5 > gain:
        n = n + 1
    return n

# %% mistake="10.5" says="1.96"
def my_seeds(arms, gain):
    spread = np.subtract(arms["WSD"], arms["KD"]).std(ddof=1)
    n = 2
    while 1.96 * spread / n**0.5 > gain:
        n = n + 1
    return n

# %% mistake="10.5" says="keeps the t of the seeds that are there"
def my_seeds(arms, gain):
    spread = np.subtract(arms["WSD"], arms["KD"]).std(ddof=1)
    n = 2
    while student_t.ppf(0.975, 4) * spread / n**0.5 > gain:
        n = n + 1
    return n

# %% mistake="10.5" says="a 90 % interval"
def my_seeds(arms, gain):
    spread = np.subtract(arms["WSD"], arms["KD"]).std(ddof=1)
    n = 2
    while student_t.ppf(0.95, n - 1) * spread / n**0.5 > gain:
        n = n + 1
    return n

# %% mistake="10.5" says="a plain teacher is the control"
def my_seeds(arms, gain):
    spread = np.subtract(arms["WSD"], arms["baseline"]).std(ddof=1)
    n = 2
    while student_t.ppf(0.975, n - 1) * spread / n**0.5 > gain:
        n = n + 1
    return n

# %% mistake="10.5" says="the spread of one arm"
def my_seeds(arms, gain):
    spread = np.std(arms["WSD"], ddof=1)
    n = 2
    while student_t.ppf(0.975, n - 1) * spread / n**0.5 > gain:
        n = n + 1
    return n

# %% mistake="10.5" says="divides by n"
def my_seeds(arms, gain):
    spread = np.subtract(arms["WSD"], arms["KD"]).std()
    n = 2
    while student_t.ppf(0.975, n - 1) * spread / n**0.5 > gain:
        n = n + 1
    return n

# %% mistake="10.5" says="one seed too few"
def my_seeds(arms, gain):
    spread = np.subtract(arms["WSD"], arms["KD"]).std(ddof=1)
    n = 2
    while student_t.ppf(0.975, n - 1) * spread / n**0.5 > gain:
        n = n + 1
    return n - 1

# %%
check("10.5", my_seeds)

# %% [markdown]
r"""
### What `scenes` shows

mAP and F1 leave difficult labels out, the *Difficult* row is mAP on images with at least one, and calibration counts every label as
marked. How the detector trains (three image sizes, no dropout) was chosen by the mAP of one detector on validation; nothing was chosen on
the test images.
"""

# %%
METRICS = {"mAP": ("mAP, %", 100, 2), "mAP_difficult": ("mAP, Difficult, %", 100, 2), "CF1": ("CF1, %", 100, 2), "OF1": ("OF1, %", 100, 2),
           "ECE_pooled": ("ECE pooled, %", 100, 2), "true_CE_pooled": ("true error pooled, %", 100, 2), "NLL": ("NLL, nats", 1, 4)}
kd = runs(pairs()["small", "small", "KD"])
arms = {"baseline": base, "detector": teachers, "KD": kd, "WSD": students}
pd.DataFrame({title: {name: spread(stored(found, key), scale, digits) for name, found in arms.items()}
              for key, (title, scale, digits) in METRICS.items()}).T

# %%
STEPS = {"WSD − baseline": ("WSD", "baseline"), "a plain teacher (KD − baseline)": ("KD", "baseline"),
         "beyond a plain teacher (WSD − KD)": ("WSD", "KD"), "detector − baseline": ("detector", "baseline"), "WSD − its detector": ("WSD", "detector")}
effects = {name: {key: difference(stored(arms[a], key), stored(arms[b], key)) for key in METRICS} for name, (a, b) in STEPS.items()}


def told_of(found, key):
    title, scale, digits = METRICS[key]
    return f"{in_units(found, scale, digits, '')} {found.verdict}"


pd.DataFrame({title: {name: told_of(effects[name][key], key) for name in STEPS} for key, (title, _, _) in METRICS.items()}).T

# %%
for key, words in (("mAP", "mAP"), ("ECE_pooled", "pooled ECE")):
    gaps = {name: 100 * (stored(arms[a], key) - stored(arms[b], key)) for name, (a, b) in STEPS.items()}
    if np.isfinite(list(gaps.values())).all():
        show(plots.seed_intervals(gaps, f"difference in {words}, points", zero=True),
             f"Paired differences in {words} of the student, its detector, and a plain teacher's student, with 95 per cent intervals")

# %%
by_labels = CLAIMED.drop("COCO, boxes of Faster R-CNN")["gain"]
brought, beyond = effects["WSD − baseline"], effects["beyond a plain teacher (WSD − KD)"]
say(f"**mAP.** The student against the baseline: {in_units(brought['mAP'])}, **{brought['mAP'].verdict}**. (The paper, from labels alone: "
    f"{by_labels.min():+.1f} to {by_labels.max():+.1f} points.) Against KD from a classifier with the same backbone: "
    f"{in_units(beyond['mAP'])}, **{beyond['mAP'].verdict}**.")
say({"higher": "**WSD ranks better than KD from a plain classifier.**", "lower": "**KD from a plain classifier ranks better.**"}.get(
    beyond["mAP"].verdict, "**That WSD ranks better than KD from a plain classifier is not detected here.**"))
say(f"The detector itself against the baseline: {in_units(effects['detector − baseline']['mAP'])}, "
    f"**{effects['detector − baseline']['mAP'].verdict}**; the student against its detector: {in_units(effects['WSD − its detector']['mAP'])}, "
    f"**{effects['WSD − its detector']['mAP'].verdict}**.")
say(f"**Calibration.** Pooled ECE, WSD − baseline: {in_units(brought['ECE_pooled'])}, **{brought['ECE_pooled'].verdict}**; true error: "
    f"{in_units(brought['true_CE_pooled'])}, **{brought['true_CE_pooled'].verdict}**; NLL: {in_units(brought['NLL'], 1, 4, ' nats')}, "
    f"**{brought['NLL'].verdict}**.")
check_guess("mAP, the student", guess_student, 100 * brought["mAP"].mean, " points")
check_guess("mAP, beyond a classifier", guess_beyond, 100 * beyond["mAP"].mean, " points")

# %% [markdown]
r"""
### Which stage?

Three seeds of a student with one stage's teaching alone: *features* goes on with labels alone after stage 1; *predictions* starts from random
weights and has all epochs for stage 2. (It has five seeds, which the next section needs; here it is judged by the same three.)
"""

# %%
alone_of = {name: runs(ARMS[name]) for name in ("features", "predictions")}
parts = {name: found_[:3] for name, found_ in (alone_of | {"both": students}).items()}
few_base = base[:len(parts["both"])]
for key, words in (("mAP", "mAP"), ("NLL", "NLL")):
    scale, unit = (100, "points") if key == "mAP" else (1, "nats")
    gaps = {name: scale * (stored(found_, key) - stored(few_base, key)) for name, found_ in parts.items()}
    if np.isfinite(list(gaps.values())).all():
        show(plots.seed_intervals(gaps, f"{words} minus that of the baseline, {unit}", zero=True),
             f"Paired differences in {words} from the baseline of features alone, predictions alone and both, three seeds")

# %%
for name in ("features", "predictions"):
    alone = difference(stored(parts[name], "mAP"), stored(few_base, "mAP"))
    more = difference(stored(parts["both"], "mAP"), stored(parts[name], "mAP"))
    say(f"- *{name}* alone − baseline: mAP {in_units(alone)}, **{alone.verdict}**. *Both* − *{name}*: {in_units(more)}, **{more.verdict}** "
        "(three seeds).")

# %% [markdown]
r"""
### Is it the detector?

The closest control: the same stage 2 with its labels and its learned scale, but the **baseline** answers in the detector's place
(`taught_by="classifier"`): no boxes, no stage 1. Five seeds on both sides. What is left between the two is *whose* answers are
taught. (The detector's are sharpened, and it trained on images of three sizes.)
"""

# %%
through_2 = {"baseline": base, "from a detector": alone_of["predictions"], "from a classifier": runs(ARMS["classifier"])}
SAME = {"from a detector − baseline": ("from a detector", "baseline"), "from a classifier − baseline": ("from a classifier", "baseline"),
        "from a detector − from a classifier": ("from a detector", "from a classifier")}
same = {name: {key: difference(stored(through_2[a], key), stored(through_2[b], key)) for key in METRICS} for name, (a, b) in SAME.items()}
pd.DataFrame({title: {name: told_of(same[name][key], key) for name in SAME} for key, (title, _, _) in METRICS.items()}).T

# %%
gaps = {name: 100 * (stored(through_2[a], "mAP") - stored(through_2[b], "mAP")) for name, (a, b) in SAME.items()}
if np.isfinite(list(gaps.values())).all():
    show(plots.seed_intervals(gaps, "difference in mAP, points", zero=True),
         "Paired differences in mAP of students of stage 2 alone, taught by a detector and by a classifier, with 95 per cent intervals")
isolated = same["from a detector − from a classifier"]
say(f"In the same stage 2, a detector's answers minus a classifier's: mAP {in_units(isolated['mAP'])}, **{isolated['mAP'].verdict}**; NLL "
    f"{in_units(isolated['NLL'], 1, 4, ' nats')}, **{isolated['NLL'].verdict}**. " + {
        "higher": "The detector's answers are worth more for the ranking than the classifier's.",
        "lower": "For the ranking, the classifier is the better teacher."}.get(
        isolated["mAP"].verdict, "That a *detector* teaches the ranking better than a classifier is not detected here."))

# %% [markdown]
r"""
### Look at single pictures

The paper shows the three classes that a network ranks first, with and without its teacher. Here are the first four test images of which the baseline and
the student rank *different* three, so the choice has a rule. ✓ is labelled. Numbers are probabilities.
"""

# %%
p = {"baseline": base[0].probabilities()[:count], "WSD's student": students[0].probabilities()[:count], "its detector": answers(1)}
tops = {name: values.argsort(1, descending=True)[:, :3].sort(1).values for name, values in p.items()}
other = (tops["baseline"] != tops["WSD's student"]).any(1).nonzero().flatten().tolist()[:4]
if other:
    show(regions.top_predictions([pictures.image(row) for row in other],
                                 [boxes_of(row, tops["its detector"][row].tolist()) for row in other],
                                 [{name: values[row] for name, values in p.items()} for row in other], names, few.targets[other]),
         "Four pictures with the detector's boxes of its first three classes, and the first three classes of three networks")

# %% [markdown]
r"""
## 8. Do better boxes teach better?

The paper replaces EdgeBoxes by boxes of a *supervised* detector: its teacher gains 2.5 points on COCO, its student 1.7. Our extremes: the grid, which
knows nothing, and the annotated boxes, which know every object (and no name). Selective search stands between them in what it knows; its results ship. Three seeds.
"""

# %%
KINDS = {"grid": ("teacher, grid", "both"), "boxes": ("teacher, boxes", "both, boxes")}
if profile() != "smoke" and all(trained(ARMS[name]) for name in ("teacher, selective-search", "both, selective-search")):
    KINDS["selective search"] = ("teacher, selective-search", "both, selective-search")
by_kind = {kind: [runs(ARMS[name][:3]) for name in pair] for kind, pair in KINDS.items()}

# %%
rows = {kind: {"detector's mAP, %": spread(stored(who, "mAP")), "CorLoc, %": spread(stored(who, "CorLoc")),
               "detection mAP, %": spread(stored(who, "detection_mAP")), "student's mAP, %": spread(stored(taught, "mAP")),
               "student's NLL, nats": spread(stored(taught, "NLL"), 1, 4)} for kind, (who, taught) in by_kind.items()}
pd.DataFrame(rows).T

# %%
for kind, (who, taught) in by_kind.items():
    if kind != "grid":
        better = {what: difference(stored(found_, key), stored(against, key)) for what, found_, against, key in
                  (("the detector's mAP", who, by_kind["grid"][0], "mAP"), ("its CorLoc", who, by_kind["grid"][0], "CorLoc"),
                   ("the student's mAP", taught, by_kind["grid"][1], "mAP"))}
        say(f"- *{kind}* − *grid*: " + "; ".join(f"{what} {in_units(d)}, **{d.verdict}**" for what, d in better.items()) + " (three seeds).")

# %% [markdown]
r"""
The detector of *boxes* is given the annotated boxes of the **test** images as well, so its own mAP is no classifier's score. Its student sees no box at test time.
*Think!* With annotated boxes the teacher knows *where* every object is, before it has learned anything. Which knowledge can a student take over that never
sees a box at test time?

## 9. Which classes gain?

The paper's robustness figure sorts classes by frequency and finds gains for rare and common ones, small and large ones alike. Ours, five seeds, with KD
from a plain classifier beside it.
"""

# %%
from udlib.metrics import average_precision


def class_ap(run):
    """AP of each class on the test images, difficult labels left out: (C,)."""
    found_ = run.labels()
    return average_precision(run.probabilities(), found_.targets, found_.difficult).numpy()


ap = {name: np.array([class_ap(run) for run in arms[name]]) for name in arms}
assert np.allclose(np.nanmean(ap["WSD"], 1), stored(students, "mAP"), atol=1e-6)
N = base[0].labels("train").targets.sum(0).numpy()

# %%
from udlib.methods.detection.evaluation import object_areas

SIZE = 100 * object_areas(dataset(chosen.data, "train", chosen.size, chosen.limit)).numpy()  # per cent of the picture
gain = {name: 100 * (ap[name] - ap["baseline"]) for name in ("WSD", "KD")}
of_class = {name: [difference(row, np.zeros(len(row))) for row in rows.T] for name, rows in gain.items()}
measured = np.isfinite(gain["WSD"]).all(0) & np.isfinite(gain["KD"]).all(0)


def sorted_by(values):
    """The classes that could be measured, the largest value first, and each arm's gain there with its interval."""
    kept = [c for c in np.argsort(-np.nan_to_num(values)) if measured[c]]
    return kept, {f"{name} − baseline": tuple(np.array([getattr(found_[c], part) for c in kept]) for part in ("mean", "low", "high"))
                  for name, found_ in of_class.items()}

# %%
for what, values, unit in (("frequency", N, " images"), ("size", SIZE, " %")):
    kept, drawn = sorted_by(values)
    labels = [f"{names[c]}: {values[c]:.0f}{unit}" if what == "frequency" else f"{names[c]}: {values[c]:.1f}{unit}" for c in kept]
    figure = plots.estimates(labels, drawn, "difference in AP, points", f"by {what}, the largest above")
    figure.axes[0].axvline(0, color="black", linewidth=0.8)
    show(figure, f"Gain in AP of each class over the baseline, for WSD's student and for KD's, classes sorted by {what}")

# %%
from scipy.stats import spearmanr


def trend(values, rows):
    """Mean rank correlation over seeds with its t interval, both on Fisher's scale, which keeps them within 1."""
    of_seeds = np.arctanh([spearmanr(values[measured], row[measured]).statistic for row in rows])
    found_ = difference(of_seeds, np.zeros(len(of_seeds)))
    return found_._replace(**{end: np.tanh(getattr(found_, end)) for end in ("mean", "low", "high")})


for what, values in (("frequency", N), ("size of its objects", SIZE)):
    for name in gain:
        found_ = trend(values, gain[name])
        say(f"- {name}: rank correlation of a class's gain with the {what}: {in_units(found_, 1, 2, '')}: **{found_.verdict}**.")

# %% [markdown]
r"""
"Not detected" is no proof of robustness: sixteen classes and five seeds cannot see a weak trend.

### Whom does it fail?

A mean over classes and seeds hides much. Take the class that WSD treats worst, seed by seed, and ask what the detector could do for it: how often does the grid
hold a window that fits such an object?
"""

# %%
worst = int(np.nanargmin(np.where(measured, gain["WSD"].mean(0), np.nan)))
by_seed = {name: 100 * ap[name][:, worst] for name in ap}
if np.isfinite(list(by_seed.values())).all():
    show(plots.seed_intervals(by_seed, f"AP of the class '{names[worst]}', per cent"),
         f"AP of {names[worst]} for the baseline, the detector, and the students of KD and of WSD, five seeds each")
within = located["best window of the grid"]
rest = difference(np.nanmean(np.delete(gain["WSD"], worst, axis=1), 1), np.zeros(len(students)))
say(f"For *{names[worst]}*, WSD − baseline is {gain['WSD'][:, worst].mean():+.1f} points of AP on average. In {within[worst]:.0%} of the cases "
    f"the best window of the grid fits such an object; over all classes it is {np.nanmean(within):.0%}.")
say(f"Over the *other* classes WSD's student gains {in_units(rest, 1)}, **{rest.verdict}**. (The class was singled out after looking, so take this "
    "as a lead and not as a result.)")

# %%
for name in gain:
    found_ = trend(np.nan_to_num(within), gain[name])
    say(f"- {name}: rank correlation of a class's gain with the share of its objects that a window fits: {in_units(found_, 1, 2, '')}: "
        f"**{found_.verdict}**.")
levels = {"detector": stored(teachers, "mAP"), "student": stored(students, "mAP"), "baseline": stored(base, "mAP")}
say("And seeds differ. mAP by seed: " + "; ".join(f"{name} {', '.join(f'{100 * value:.1f}' for value in found_)} (standard deviation "
    f"{100 * found_.std(ddof=1):.1f})" for name, found_ in levels.items()) + ".")

# %% [markdown]
r"""
A square window around a tall, thin thing holds mostly something else: a natural suspect. But mind what the trend over all classes says of it, and which other
classes few windows fit. The grid would have to be changed to test it. *Think!* How? Could one see on *validation*, before a student is trained, for which classes its teacher will be a bad one? And what does the spread over seeds say about
the choice of a teacher's settings by a single seed, as we made it?
"""

# %% [markdown]
r"""
## 10. What it costs

At test time the student is as large as the baseline. The detector needs boxes, pools each of them, and sends it through two layers. Both side by
side, in this very process:
"""

# %%
import time

from udlib.methods.supervised import make_network
from udlib.training import predict

plain_net = make_network(len(names), 0.0, "small")
some_test = replace(few, images=few.images[:256], targets=few.targets[:256], difficult=None, proposals=grid_proposals(len(few.images[:256])))


def seconds(model):
    start = time.perf_counter()
    predict(model, some_test)
    return time.perf_counter() - start

# %%
pairs_of_times = np.array([(seconds(detector), seconds(plain_net)) for _ in range(6)])[1:]  # the first is a warm-up
ratio = pairs_of_times[:, 0] / pairs_of_times[:, 1]
size_of = {name: sum(w.numel() for w in net.parameters()) for name, net in (("detector", detector), ("student", plain_net))}

# %%
say(f"Time of the detector over that of the student, for the same images: {np.median(ratio):.1f} (median of five pairs, {ratio.min():.1f} to "
    f"{ratio.max():.1f}), with {len(grid())} boxes an image. Parameters: {size_of['detector']:,} against {size_of['student']:,}.")
assert np.median(ratio) > 1 and size_of["detector"] > size_of["student"]

# %% [markdown]
r"""
## 11. Explore: other boxes for the same detector

One trained detector, and other places for it to look. It was trained with all four scales of the grid; what does it make of fewer windows, or of the
annotated boxes? Look for a picture where a thing is *seen* ($p$ is large) and *not found* (the IoU is small), and for one where fewer windows change
the answer.
"""

# %%
rows = easy[:12]
offered = {f"grid to 1/{n}": [grid(DIVISIONS[:n])] * len(rows) for n in (4, 3, 2, 1)}
noted = proposals(pictures.subset(rows), "boxes")
offered["boxes"] = [noted.of(torch.tensor([k])).boxes for k in range(len(rows))]
begin = {"picture": rows[0], "class": names[int((few.targets[rows[0]].bool() & ~few.difficult[rows[0]]).nonzero()[0])]}
explorer = ProposalExplorer(detector, pictures, rows, offered, few.images.shape[-1], start=begin)
before = explorer.picture.value
explorer.move(proposals="boxes")
assert explorer.picture.value != before and "best IoU among all boxes" in explorer.readout.value
explorer.move(proposals="grid to 1/4")
explorer

# %% [markdown]
r"""
## 12. What should a teacher teach?

Here are the answers of this course on one table: the same small network, the same images, the same measures, five seeds each.

| system | what the teacher teaches | lesson |
|---|---|---|
| baseline | nothing | 02 |
| KD, wide | its sigmoids; a network four times as large | 05 |
| KD, same size | its sigmoids | 05 |
| UD as printed | sigmoids, calibration branch, uncertainty attention at β = 0.5; wide teacher | 07 |
| UD, β = 0.005 | the same, at the β that validation chose | 07 |
| self-distillation | UD from itself, after a restart | 08 |
| PSD | the logits of six specialists; asymmetric loss, averaged weights | 09 |
| WSD | features of boxes, and what boxes say together | 10 |
"""

# %%
from udlib.course.verdicts import best_beta

assert profile() == "smoke" or best_beta() == 0.005
SYSTEMS = {"baseline": two_branch(0.0), "KD, wide": distilled("KD"), "KD, same size": pairs()["small", "small", "KD"],
           "UD as printed": pairs()["small_wide", "small", "UD"], "UD, β = 0.005": distilled(beta=0.005),
           "self-distillation": restarted()["UD"], "PSD": partitioned()[3, "both"], "WSD": ARMS["both"]}
every = {name: runs(recipes) for name, recipes in SYSTEMS.items()}
assert len({len(found_) for found_ in every.values()}) == 1 and all(run.recipe.network == "small" for of in every.values() for run in of)

# %%
from udlib.course.profiles import seconds as forecast


def trainings(one):
    """The recipe and all networks that must be trained before it."""
    return [one, *(earlier for teacher in needed(one).values() for earlier in trainings(teacher))]


def cost(one):
    """Forecast training time of a recipe with its teachers, over the baseline's."""
    return sum(map(forecast, trainings(one))) / forecast(baseline())


assert cost(baseline()) == 1 and len(trainings(SYSTEMS["PSD"][0])) == 7

# %%
closing = {title: {name: spread(stored(found_, key), scale, digits) for name, found_ in every.items()}
           for key, (title, scale, digits) in METRICS.items() if key not in ("CF1", "OF1")}
closing["networks trained"] = {name: str(len(trainings(recipes[0]))) for name, recipes in SYSTEMS.items()}
closing["training cost, × baseline"] = {name: f"{cost(recipes[0]):.1f}" for name, recipes in SYSTEMS.items()}
closing["test cost, × baseline"] = dict.fromkeys(SYSTEMS, "1")
pd.DataFrame(closing)

# %% [markdown]
r"""
(Training cost is the forecast of the library, from speeds of the networks measured for the course, teachers counted in; the seconds of single
runs come from machines that were more or less busy.)
"""

# %%
final = {key: {name: difference(stored(every[name], key), stored(every["baseline"], key)) for name in SYSTEMS if name != "baseline"}
         for key in ("mAP", "true_CE_pooled")}
for key, words, apart in (("mAP", "mAP", "UD as printed"), ("true_CE_pooled", "pooled true calibration error", "PSD")):  # one would squeeze the rest
    drawn = {name: 100 * (stored(every[name], key) - stored(every["baseline"], key)) for name in SYSTEMS if name not in ("baseline", apart)}
    if np.isfinite(list(drawn.values())).all():
        show(plots.seed_intervals(drawn, f"{words} minus that of the baseline, points", zero=True),
             f"Paired differences in {words} from the baseline for every system but {apart}, five seeds")
    say(f"Left out of this figure: {apart}, {words} {in_units(final[key][apart])}.")

# %% [markdown]
r"""
### And after a repair?

A temperature, fitted on validation, costs a second and needs no teacher. Does anybody's calibration survive it as an advantage? The NLL then judges sorting and scale
together, where one factor can set the scale right. It cannot for PSD: its loss asks for a shift (lesson 09), so Platt scaling, with a factor and a shift for
each class, stands beside it.
"""

# %%
from udlib.calibration import negative_log_likelihood

marked = base[0].labels().targets
REPAIRS = ("temperature", "platt")
mended = {(name, kind): [run.recalibrated(kind) for run in found_] for name, found_ in every.items() for kind in REPAIRS}
pooled = {key: np.array([expected_calibration_error(q, marked, average="pooled") for q in of]) for key, of in mended.items()}
nats = {key: np.array([negative_log_likelihood(q, marked) for q in of]) for key, of in mended.items()}
bars = {"as trained": [100 * stored(every[name], "ECE_pooled") for name in every]}
bars |= {kind: [100 * pooled[name, kind] for name in every] for kind in REPAIRS}
show(plots.interval_bars(list(every), bars, "pooled ECE on test images, per cent"),
     "Pooled ECE of every system as trained, with one temperature, and with Platt scaling, both fitted on validation")

# %%
left = {(name, kind): (difference(pooled[name, kind], pooled["baseline", kind]), difference(nats[name, kind], nats["baseline", kind]))
        for name, kind in mended if name != "baseline"}
pd.DataFrame({f"{what}, {kind}": {name: f"{in_units(left[name, kind][k], scale, digits, '')} {left[name, kind][k].verdict}" for name in every if name != "baseline"}
              for kind in REPAIRS for k, what, scale, digits in ((0, "ECE, points", 100, 2), (1, "NLL, nats", 1, 4))})

# %%
ranked = sorted(final["mAP"], key=lambda name: -final["mAP"][name].mean)
ahead = [name for name in ranked if final["mAP"][name].verdict == "higher"]
better = {(k, kind): [name for name in ranked if left[name, kind][k].verdict == "lower"] for k in (0, 1) for kind in REPAIRS}
say("**Higher mAP than the baseline is detected for:** "
    + (", ".join(f"{name} ({100 * final['mAP'][name].mean:+.1f})" for name in ahead) or "nobody") + ".")
for kind in REPAIRS:
    say(f"**Both repaired by {kind}, against the baseline:** lower pooled ECE: {', '.join(better[0, kind]) or 'nobody'}; lower NLL: "
        f"{', '.join(better[1, kind]) or 'nobody'}.")

# %%
best, second = ranked[:2]
top = difference(stored(every[best], "mAP"), stored(every[second], "mAP"))
say(f"The highest mean mAP has *{best}*, then *{second}*; the difference of these two is {in_units(top)}, **{top.verdict}**. (It was chosen after "
    "looking, so the interval is too kind.)")
longer = difference(stored(every["self-distillation"], "mAP"), stored(runs(restart_controls()["80 epochs"]), "mAP"))
say(f"Self-distillation has 80 epochs, in two halves. Minus 80 epochs in one schedule, on labels alone: {in_units(longer)}, **{longer.verdict}**.")

# %% [markdown]
r"""
Before you crown anyone: self-distillation trains twice the epochs. PSD changes the loss and the averaging as well as the teacher (lesson 09). KD's wide teacher is
another network altogether. The fairer contrasts of this course hold all but one thing still, and they stand in the lessons' own tables and in
the README. *Think!* Which of them would you want to see at full size first?

### Exercise ★★★ (open): does *where* help?

WSD's teacher has looked at boxes. Suppose that its student beats the student of a plain classifier with the same backbone. Is
that because the teacher knows *where* things are? Design at least two arms that keep all of WSD and take away only the
places. Predict each outcome if places matter, and if they do not.

One point each:

1. An arm has boxes without information, in the same number.
2. An arm breaks the link between a box and its content, in the student's features.
3. Your predictions differ between the two cases.
4. You check that your change has not broken the teacher as a classifier.

<details><summary>A worked answer</summary>

Arm 1: the detector is trained with random boxes, as many and as large as the proposals, drawn anew for each image. Arm 2: the
normal teacher, but in the feature loss the student's boxes of an image are permuted, so that each box learns the features of
another one. If places matter, arm 1 finds objects worse (measure CorLoc), and its student is worse than WSD's; and arm 2
harms. If they do not, all students end alike, although the CorLoc of the teachers differs: then what helps is a teacher that
averages over many crops. First I compare the *teachers'* mAP: a teacher that classifies worse would explain a worse student
without any place. All arms get the same number of steps, and five paired seeds.

</details>

## Summary

- A softmax over classes and one over boxes, multiplied and summed, turn labels of images into scores of boxes. They reward a box that
  *gives the class away*, and not one that fits.
- No detector finds what is not among its proposals. Measure what they can reach before you measure the detector, and give CorLoc a yardstick below and above.
- The learned scale is a temperature for each class, fitted to the teacher. It absorbs how sure the teacher is, and not a bias.
- A claim about a *kind* of teacher needs a plain teacher as its control, and the closer the rest of the two systems, the more the contrast says.
- At test time a student costs what the baseline does; what differs is what was paid before.

What we found:

- Trained on labels of images alone, the detector puts its first box on the object in about one image in six.
- No gain in mAP by WSD over the baseline is detected, while a plain teacher of the same size gives one and a half points.
- Beyond a plain teacher, WSD changes nothing in mAP that we detect, and its calibration error is larger.
- The cheapest student here is that of a plain teacher of the student's own size: twice the baseline's training.

The numbers behind these sentences:
"""

# %%
say(f"- CorLoc {spread(corloc['CorLoc'])} %, detection mAP {spread(corloc['detection mAP'])} %, from labels alone.")
for name, found_ in effects.items():
    say(f"- {name}: " + "; ".join(f"{METRICS[key][0].split(',')[0]} {told_of(found_[key], key)}" for key in ("mAP", "true_CE_pooled", "NLL")) + ".")
if profile() != "smoke":
    seen = [(found_["mAP"].verdict, found_["true_CE_pooled"].verdict) for found_ in effects.values()]
    assert seen[:3] == [("not detected", "lower"), ("higher", "lower"), ("not detected", "higher")]
    assert min(ranked, key=lambda name: cost(SYSTEMS[name][0])) == "KD, same size"
say("- In the same stage 2, answers of a detector minus those of a classifier: " + "; ".join(
    f"{METRICS[key][0].split(',')[0]} {told_of(isolated[key], key)}" for key in ("mAP", "true_CE_pooled", "NLL")) + ".")
for name in ranked:
    say(f"- {name}, against the baseline: mAP {in_units(final['mAP'][name])}, **{final['mAP'][name].verdict}**; training cost "
        f"{cost(SYSTEMS[name][0]):.1f} times the baseline's.")
say("- " + difference.count())

# %% [markdown]
r"""
Drawn pictures of 64 pixels, maps of 8 × 8 cells and a small network trained from nothing say little about photographs at 448 pixels. The *controls* carry over, and so does
the algebra of the scale.

## Further reading

- Y. Liu et al., *Multi-Label Image Classification via Knowledge Distillation from Weakly-Supervised Detection*, ACM MM 2018: the method of this lesson.
- H. Bilen and A. Vedaldi, *Weakly Supervised Deep Detection Networks*, CVPR 2016: the teacher.
- R. Girshick, *Fast R-CNN*, ICCV 2015: RoI pooling.
- J. Uijlings et al., *Selective Search for Object Recognition*, IJCV 104, 2013.
- T. Deselaers et al., *Weakly Supervised Localization and Learning with Generic Knowledge*, IJCV 100, 2012: CorLoc.
- C. Zitnick and P. Dollár, *Edge Boxes*, ECCV 2014: the proposals of the paper.
"""
