# %% [markdown]
"""
# 01 · Multi-label data

[← 00 · Start here](00_start_here.ipynb) · [02 · The baseline →](02_baseline_bce.ipynb)

**Aim.** Before we train a network, we look at the pictures and their labels: how many labels there are, which of them appear
together, which are *difficult*, and how certain even a perfect model could be. At the end you can read a data set in VOC's
format, say what its three label states mean, and compute the probability that a label is there at all.

**Prerequisites.** Lesson 00; tensors and slicing in PyTorch; what a probability is.

**Time.** About 40 minutes to read, with the exercises; the cells run in seconds. (The very first time, the lesson draws the
pictures and writes them to disk, which takes about a minute.)
"""

# %% tags=["setup", "report"]
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display

from udlib.datasets import Box, apply_policy, open_dataset, read_truth
from udlib.datasets.annotator import DIFFICULT_BELOW, annotate, marking_probability
from udlib.course.exercises import assert_measured, check, check_guess
from udlib.figures.plots import bars, estimates, heat_map, lines, picture_grid, show
from udlib.course.explorers import Explorer, Frame

# %% [markdown]
"""
This line chooses the data for the whole lesson. Read the lesson once with `scenes`, then change the line and run everything
again.
"""

# %% tags=["learn"]
DATA = "scenes"   # or "digits", or the path of a folder in VOC layout, e.g. VOCdevkit/VOC2007

train = open_dataset(DATA, "train")
N, C = train.targets.shape

# %% tags=["report"]
display(Markdown(f"The training split has **{N:,} pictures** and **{C} classes**: {', '.join(train.classes)}."))

# %% [markdown]
"""
## 1. Look first

*Look at the data before you model it.* This habit helps more than any tool. Here are eighteen random pictures with the boxes of
everything that the annotator marked. A solid blue box is an ordinary object. A dashed orange box is flagged
[difficult](../docs/glossary.md#difficult).
"""

# %% tags=["report"]
def label_line(boxes, longest=21):
    """The classes of these boxes in one line, cut where a title would be too long."""
    line = ", ".join(sorted({box.name for box in boxes})) or "(no label)"
    return line if len(line) <= longest else line[:line.rfind(",", 0, longest)] + ", …"


sample = np.random.default_rng(4).permutation(N)[:18]
boxes = [train.boxes(i) for i in sample]
show(picture_grid([train.image(i) for i in sample], [label_line(b) for b in boxes], boxes),
     f"{len(sample)} training pictures with their labels and boxes; dashed boxes are difficult objects")

# %% [markdown]
"""
Look at them for a minute. Is there something in a picture that has no box? Is there a box where you would not have drawn one? Is
there a picture without any box? All three come up again below.

## 2. Predict

Write your guesses into the next cell *before* you go on. You learn more from a wrong guess that you wrote down than from a
right number that you only read.
"""

# %% tags=["learn"]
guess_labels = None   # how many labels does an average picture have?
guess_ratio = None    # how many times more frequent is the commonest class than the rarest?

# %% [markdown]
r"""
## 3. The label matrix

A [multi-label](../docs/glossary.md#multi-label) picture has a set of labels. With $C$ classes, we write the set as a row of zeros
and ones, with one question per class: *is there a cup? is there a bird?* The rows of all $N$ pictures make the **label matrix**
$Y \in \{0,1\}^{N \times C}$. The whole course works with this table.
"""

# %% tags=["learn"]
Y = train.targets.float()
pd.DataFrame(train.targets[sample[:5]].numpy(), columns=train.classes)

# %% [markdown]
r"""
Two numbers say how full the table is. The **cardinality** is the mean number of labels of a picture,
$\frac1N \sum_n \sum_i y_{ni}$. The **density** is the share of ones, which is the cardinality divided by $C$.
"""

# %% tags=["learn"]
cardinality = Y.sum(1).mean().item()
density = Y.mean().item()
assert abs(density - cardinality / C) < 1e-6
empty = int((Y.sum(1) == 0).sum())

# %% tags=["report"]
display(Markdown(f"A picture has **{cardinality:.2f}** labels on average and {int(Y.sum(1).max())} at most, and "
                 f"{empty} pictures have none. The density is {density:.1%}, so {1 - density:.0%} of the answers are *no*."))

# %% [markdown]
"""
The density matters: a "model" that answers *no* to every question is right most of the time. That is why this course never
reports the share of right answers. The empty rows matter too: the loss of lesson 03 divides by the number of labels.

Now the columns: how often does each class occur?
"""

# %% tags=["report"]
count = train.targets.sum(0)
hard = train.difficult.sum(0)
order = count.argsort(descending=True).tolist()
names = [train.classes[k] for k in order]
figure = bars(names, {"easy": (count - hard)[order], "difficult": hard[order]}, "training pictures with this class")
show(figure, f"Pictures per class, {names[0]} ({count.max()}) to {names[-1]} ({count.min()}), difficult part hatched")

# %% [markdown]
"""
This shape is called a **long tail**: a few classes are common, many are rare. A network learns a rare class from few examples, and
we also *measure* it on few, so its score is both lower and noisier. The hatched part of each bar counts the pictures in which all
objects of the class are difficult. Now your guesses:
"""

# %% tags=["learn"]
ratio = (count.max() / count.min().clamp(min=1)).item()
check_guess("Labels per picture", guess_labels, cardinality)
check_guess("Commonest over rarest class", guess_ratio, ratio)

# %% [markdown]
r"""
## 4. Labels that appear together

Labels need not be independent. How many pictures have class $i$ *and* class $j$? A product $y_{ni}\,y_{nj}$ is 1
exactly when picture $n$ has both, so the sum over pictures is the **co-occurrence matrix**

$$M = Y^\top Y .$$
"""

# %% tags=["learn"]
M = Y.T @ Y
assert torch.equal(M, M.T)                       # "cup and bird" is "bird and cup"
assert torch.equal(M.diagonal().int(), count.int())  # the diagonal counts each class

# %% [markdown]
r"""
Common classes have large counts with everything. For a fair comparison we ask a *conditional* question: among the pictures with
class $i$, what share also has class $j$? That share estimates $P(j \mid i)$. To compute it, keep the rows that have $i$, and take the
mean:
"""

# %% tags=["learn"]
rows_of = [Y[Y[:, i] == 1] for i in range(C)]  # the pictures of each class
conditional_share = torch.stack([rows.mean(0) for rows in rows_of]).nan_to_num()  # nan: no pictures

# %% tags=["report"]
off_diagonal = conditional_share.clone().fill_diagonal_(torch.nan)[order][:, order]
i, j = divmod(off_diagonal.nan_to_num().argmax().item(), C)
show(heat_map(off_diagonal, names, "P(column | row)"),
     f"Share of pictures with the row's class that also have the column's; largest: {names[j]} given {names[i]}")

# %% tags=["report"]
display(Markdown(f"**{off_diagonal[i, j]:.0%}** of the pictures with *{names[i]}* also have *{names[j]}*. Of the pictures with "
                 f"*{names[j]}*, {off_diagonal[j, i]:.0%} have *{names[i]}*. So this matrix is not symmetric, although $M$ is."))

# %% [markdown]
r"""
### More often than by chance?

A high $P(j \mid i)$ may only mean that $j$ is common. If the labels were independent, we would have $P(i, j) = P(i)\,P(j)$.
The ratio of the two sides is called the **lift**. A lift of 1 means "as often as by chance", and 2 means twice as often.
"""

# %% tags=["learn"]
p = Y.mean(0)
lift = (M / N) / (p[:, None] * p[None, :])

# %% [markdown]
"""
A lift from small counts is mostly noise: if we expect one picture and find two, the lift is 2 and means nothing. So we simulate
chance. We give the labels of each class to random pictures. Each class keeps its count, but labels now appear together only by
chance. We repeat this 200 times, to see how far chance alone can go.
"""

# %% tags=["learn"]
def shuffled(labels, generator):
    """The same labels, each class dealt to random pictures."""
    return labels.gather(0, torch.rand(labels.shape, generator=generator).argsort(0))


generator = torch.Generator().manual_seed(0)
luck = torch.stack([(s := shuffled(Y, generator)).T @ s for _ in range(200)])   # (200, C, C)
lowest, expected, highest = luck.amin(0), luck.mean(0), luck.amax(0)

# %% tags=["report"]
a, b = torch.triu_indices(C, C, offset=1)
surprise = (M - expected)[a, b] / luck.std(0)[a, b].clamp(min=0.5)   # in standard deviations of chance
extremes = surprise.argsort(descending=True)[[*range(7), *range(-7, 0)]]
a, b = a[extremes], b[extremes]
figure = estimates([f"{train.classes[i]} + {train.classes[j]}" for i, j in zip(a, b)], {
    "measured": (M[a, b], M[a, b], M[a, b]),
    "by chance: mean and range of 200 shuffles": (expected[a, b], lowest[a, b], highest[a, b])},
    "training pictures with both classes")
show(figure, "The seven pairs that are most above chance, and the seven that are most below")

# %% tags=["report"]
above = int((M > highest).triu(1).sum())
below = int((M < lowest).triu(1).sum())
pairs = C * (C - 1) // 2
best, low_end, high_end = (int(x[a[0], b[0]]) for x in (M, lowest, highest))
display(Markdown(
    f"The pair that is furthest above chance is **{train.classes[a[0]]} and {train.classes[b[0]]}**, with {best} pictures. The "
    f"shuffles gave {low_end} to {high_end}. The lift is {lift[a[0], b[0]]:.1f}. Of {pairs} pairs, {above} appear together more "
    f"often than in any shuffle, and {below} less often. By chance, about {pairs * 2 / 201:.1f} pairs would be outside."))

# %% [markdown]
"""
In `scenes` the reason is simple: a picture shows a place (a street, a shore, a kitchen …), and each place has its typical things. A
network may use that: *where there is sand, a boat is likely*. This helps on average, and it hurts in the one picture without a boat.
Lesson 09 uses this matrix to divide the classes into groups.

## 5. "Difficult", the third state

Annotators of PASCAL VOC did more than draw boxes. They gave flags to the objects. An object can be **truncated** (it goes on beyond
its box, for instance beyond the picture's edge), **occluded** (something stands in front of it; later years added this flag), and
**difficult**: hard to recognise, perhaps only from its surroundings. So a label has three states, and VOC's lists write them as

| state | meaning |
|---|---|
| `1` | at least one object of the class that is *not* difficult |
| `0` | only difficult objects of the class |
| `-1` | no object of the class |

Be careful: in these lists `0` does *not* mean "no". A loader that counts only `1` as a label loses the difficult ones. Ours keeps two
tables instead: `targets` (1 also where all objects are difficult) and `difficult`.
"""

# %% tags=["report"]
def cut_out(dataset, i, box):
    """A square piece of picture i around a box, at least half the picture wide, and the box moved along with it."""
    image = dataset.image(i)
    side = min(max(0.5 * min(image.size), 1.2 * (box.xmax - box.xmin), 1.2 * (box.ymax - box.ymin)), *image.size)
    left = min(max((box.xmin + box.xmax - side) / 2, 0), image.width - side)
    top = min(max((box.ymin + box.ymax - side) / 2, 0), image.height - side)
    moved = Box(box.name, box.xmin - left, box.ymin - top, box.xmax - left, box.ymax - top, difficult=box.difficult)
    return image.crop((int(left), int(top), int(left + side), int(top + side))), [moved]

# %% tags=["report"]
every_box = [(i, box) for i in range(N) for box in train.boxes(i)]
difficult = [(i, box) for i, box in every_box if box.difficult]
examples = [difficult[k] for k in np.random.default_rng(1).permutation(len(difficult))[:12]]
flags = [box.name + " (truncated)" * box.truncated + " (occluded)" * box.occluded for _, box in examples]
if examples:
    pieces, boxes = zip(*(cut_out(train, i, box) for i, box in examples))
    show(picture_grid(pieces, [flag.replace(" (", "\n(", 1) for flag in flags], boxes),
         "Twelve difficult objects, each with its surroundings: " + ", ".join(flags))

# %% [markdown]
"""
Look at each for a second. Which would you have recognised without the title? And which if the surroundings were covered?

Are difficult objects more often truncated or occluded? We compare easy and difficult boxes. (VOC2007 has no flag for occlusion, so
that column is 0 there.)
"""

# %% tags=["report"]
area = [(box.xmax - box.xmin) * (box.ymax - box.ymin) / np.prod(train.image_size(i)) for i, box in every_box]
table = pd.DataFrame({"kind": ["difficult" if box.difficult else "easy" for _, box in every_box],
                      "truncated": [box.truncated for _, box in every_box],
                      "occluded": [box.occluded for _, box in every_box], "share of the picture": area})
by_kind = table.groupby("kind").mean()
display(by_kind.map("{:.1%}".format).assign(boxes=table.kind.value_counts()))
if DATA == "scenes":
    assert by_kind.occluded["difficult"] > 2 * by_kind.occluded["easy"]
    assert abs(by_kind.truncated["difficult"] - by_kind.truncated["easy"]) < 0.02

# %% [markdown]
"""
In `scenes` difficult objects are occluded twice as often as easy ones, and a little smaller. They are truncated about as often.

### Three ways to count a difficult label

How should we count a difficult label? There is no right answer, only three *policies*. Two scores can be compared only if they use
the same policy. `apply_policy` returns the labels and a mask of those to leave out.
"""

# %% tags=["learn"]
rows = {}
for policy in ("positive", "ignore", "negative"):
    targets, ignore = apply_policy(train.targets, train.difficult, policy)
    rows[policy] = {"counted as yes": int(targets[~ignore].sum()), "left out": int(ignore.sum())}
pd.DataFrame(rows).T

# %% tags=["report"]
D = int(train.difficult.sum())
assert rows["positive"]["counted as yes"] - rows["negative"]["counted as yes"] == D
assert rows["ignore"]["counted as yes"] == rows["negative"]["counted as yes"]
display(Markdown(f"The policy decides about **{D}** labels. These are {D / int(train.targets.sum()):.1%} of all positive labels."))

# %% [markdown]
"""
The code that was released with the Uncertainty Distillation paper uses *all three*: difficult labels are **positive**
in training, **ignored** in average precision, and **negative** in precision, recall and F1. So training rewards the network
for finding a difficult object, and then F1 counts the same answer as wrong. Our main protocol uses the first two (VOC's own
evaluation also leaves difficult objects out). Lesson 02 measures how much the other choices change a score.

## 6. What makes an object difficult?

Real annotators do not tell us how sure they were. Here `scenes` helps: the program that drew the pictures knows everything. The
rest of this section and the next two use that knowledge.
"""

# %% tags=["report"]
known = train if train.posterior is not None else open_dataset("scenes", "train")
if known is not train:
    print("The truth of this folder is not known, as for all real data. Sections 6 to 8 show scenes instead.")
truth = read_truth(known.root)
rank = {name: row for row, name in enumerate(known.ids)}
objects = pd.DataFrame({"image": [rank.get(name, -1) for name in truth["ids"][truth["object_image"]]],
                        "name": truth["classes"][truth["object_class"]], "v": truth["object_visibility"].astype(float),
                        "marked": truth["object_marked"], "box": list(truth["object_box"])})
objects = objects[objects.image >= 0]          # the file covers all splits
objects.drop(columns="box").head()

# %% [markdown]
r"""
Each row is one object in a picture, marked or not. Its **visibility** $v \in [0, 1]$ is a product of four factors:

$$v = \min\!\left(1, \frac{\text{size}}{s_0}\right)^{a} \cdot \text{contrast} \cdot
\text{share inside the frame} \cdot \text{share not occluded}$$

One small factor is enough to make an object hard to see, and several multiply: an object that is half outside the frame *and* half
hidden has a quarter of its visibility left. The equation is one line of code:
"""

# %% tags=["learn"]
import inspect

from udlib.datasets.scenes import visibility

print(inspect.getsource(visibility).splitlines()[-1].strip())
assert visibility(1.0, 1.0, 0.5, 0.5) == 0.25                    # two factors of one half
assert visibility(0.9, 0.8, 1, 1) == visibility(0.7, 0.8, 1, 1)  # beyond s₀, size no longer helps

# %% tags=["report"]
sizes = np.array([0.05, 0.10, 0.20, 0.40])
values = visibility(sizes, 1, 1, 1)
pd.DataFrame({"size, share of the picture's side": [f"{s:.0%}" for s in sizes], "v, if all else is perfect": values.round(2)})

# %% [markdown]
r"""
### The simulated annotator

Our annotator looks at an object and marks it with a probability that depends only on its visibility:

$$\pi(v) = \pi_{\min} + \frac{\pi_{\max} - \pi_{\min}}{1 + e^{(c - v)/w}} .$$

A marked object gets the flag *difficult* if its visibility is below a threshold. Here is the formula in code,
with the constants that made this data:
"""

# %% tags=["learn"]
from udlib.datasets.annotator import CENTRE, HIGHEST, LOWEST, WIDTH

grid = np.linspace(0, 1, 101)
pi = LOWEST + (HIGHEST - LOWEST) / (1 + np.exp((CENTRE - grid) / WIDTH))
assert np.allclose(pi, marking_probability(grid))

# %% tags=["report"]
edges = np.linspace(0, 1, 11)
bins = objects.groupby(pd.cut(objects.v, edges, include_lowest=True), observed=True).marked.agg(["mean", "count"])
middle = [interval.mid for interval in bins.index]
margin = 1.96 * np.sqrt(bins["mean"] * (1 - bins["mean"]) / bins["count"])
figure = lines(grid, {"π(v), the rule": pi}, "visibility v", "probability of a mark", markers=False)
axes = figure.axes[0]
axes.errorbar(middle, bins["mean"], yerr=margin, fmt="o", color="black", capsize=3, label="marked in the data, 95 %")
axes.bar(middle, 0.2 * bins["count"] / bins["count"].max(), width=0.09, color="lightgrey", label="objects (no scale)")
axes.axvspan(0, DIFFICULT_BELOW, fill=False, edgecolor="orange", hatch="//", alpha=0.5, label="difficult, if marked")
axes.legend(frameon=False, loc="center right")
show(figure, f"The probability of a mark rises with visibility, {pi[0]:.0%} to {pi[-1]:.0%}; the data follow the rule")

# %% tags=["report"]
below = objects.v < DIFFICULT_BELOW
display(Markdown(
    f"The annotator did not mark **{(~objects.marked).mean():.1%}** of all objects: {(~objects.marked[below]).mean():.0%} of those "
    f"with a visibility below {DIFFICULT_BELOW}, and {(~objects.marked[~below]).mean():.1%} of the others."))

# %% [markdown]
r"""
### The known posterior

A label means *at least one object of this class was marked*. The annotator marks each object independently. So the label is missing
only if **all** objects $o$ of the class were missed. Hence

$$P(y_i = 1 \mid \text{scene}) = 1 - \prod_{o \,\in\, \text{class } i} \bigl(1 - \pi(v_o)\bigr).$$

This is the [posterior](../docs/glossary.md#posterior): the probability of the label for somebody who knows the whole scene, but not
the annotator's random choices. We take the picture with the most uncertain labels:
"""

# %% tags=["learn"]
doubt = (known.posterior * (1 - known.posterior)).sum(1)
i = int(doubt.argmax())
here = objects[objects.image == i]
chance = here.groupby("name").v.apply(lambda v: 1 - np.prod(1 - marking_probability(v)))  # as above
stored = [known.posterior[i, known.classes.index(name)].item() for name in chance.index]
assert np.allclose(chance, stored, atol=1e-5)

# %% [markdown]
"""
The stored posterior equals the one that we computed. Now six annotators look at the same picture:
"""

# %% tags=["report"]
def as_box(name, box, v):
    return Box(name, *map(float, box), difficult=v < DIFFICULT_BELOW)


rng = np.random.default_rng(6)
everything = [as_box(*row) for row in here[["name", "box", "v"]].itertuples(index=False)]
opinions = [[box for box, yes in zip(everything, annotate(here.v, rng)) if yes] for _ in range(6)]
titles = [f"all objects\n{label_line(everything, 32)}"]
titles += [f"annotator {k}\n{label_line(boxes, 32)}" for k, boxes in enumerate(opinions, 1)]
show(picture_grid([known.image(i)] * 7, titles, [everything] + opinions, columns=4, side=2.3),
     "One picture with all its objects, and as six annotators mark it: " + "; ".join(titles).replace("\n", ": "))

# %% [markdown]
"""
The pixels are the same, the labels differ. The data set holds the labels of *one* annotator, and a network learns from them as if
they were the truth. With a thousand annotators, the share that says *yes* should be close to the posterior:
"""

# %% tags=["report"]
marks = np.stack([annotate(here.v, rng) for _ in range(1000)])       # (annotators, objects)
share = {name: marks[:, here.name == name].any(1).mean() for name in chance.index}
pd.DataFrame({
    "visibilities": here.groupby("name").v.apply(lambda v: ", ".join(f"{x:.2f}" for x in v)),
    "marked in the data": here.groupby("name").marked.sum(),
    "label": [int(known.targets[i, known.classes.index(name)]) for name in chance.index],
    "posterior": chance.round(3), "share of yes, 1,000 annotators": pd.Series(share).round(3)})

# %% [markdown]
r"""
One picture proves little, so we annotate *all* pictures again, 200 times. If the posterior is right, the share of *yes*
in $R$ repetitions differs from $P$ only by the binomial noise $\sqrt{P(1-P)/R}$.
"""

# %% tags=["learn"]
R = 200
cell = objects.image * len(known.classes) + objects.name.map(known.classes.index)  # place in Y
yes = np.zeros(known.posterior.numel())
for _ in range(R):
    yes[cell[annotate(objects.v, rng)].unique()] += 1
P = known.posterior.double().numpy().ravel()
open_cases = (P > 0.02) & (P < 0.98)
z = (yes / R - P)[open_cases] / np.sqrt(P * (1 - P) / R)[open_cases]
assert_measured(float(np.sqrt((z ** 2).mean())), 1.0, within=0.05)

# %% tags=["report"]
place = np.digitize(P[open_cases], edges) - 1
stated, again, once = (np.array([values[open_cases][place == k].mean() for k in range(10)])
                       for values in (P, yes / R, known.targets.numpy().ravel()))
reach = 1.96 * np.sqrt(stated * (1 - stated) / np.bincount(place, minlength=10))
figure = lines(stated, {"200 new annotations": again, "the one in the data set": once}, "posterior P(y = 1 | scene)",
               "share of labels that are 1", bands={"the one in the data set": (stated - reach, stated + reach)})
figure.axes[0].axline((0, 0), slope=1, color="black", linewidth=0.8)
show(figure, "The share of labels that are 1, over the posterior: both curves follow the diagonal")

# %% [markdown]
"""
This is your first [reliability diagram](../docs/glossary.md#reliability-diagram): of all labels with a probability of 70 %, about
70 % are present. For the posterior this is true by construction. (About 95 % of the points of a single annotation should lie in the
shaded band.) From lesson 02 on, we replace the posterior by a network's probabilities and ask whether they also lie on the diagonal.

## 7. Even a perfect model makes errors

Suppose that a model outputs exactly the posterior. No model can be better. Still its loss is not zero, because the labels are partly
random. Two scores measure this, and both are 0 at best: the **negative log-likelihood**
([NLL](../docs/glossary.md#nll-negative-log-likelihood)) and the [Brier score](../docs/glossary.md#brier-score). Their *floors*
follow from the posterior alone: the mean of its entropy, and the mean of $P(1-P)$.
"""

# %% tags=["report"]
from udlib.calibration import brier_score, expected_brier_floor, expected_nll_floor, negative_log_likelihood

base_rate = known.targets.float().mean(0).expand(len(known), -1)
sees_all = torch.where(known.posterior > 0, 0.99, 0.0)    # knows all objects, and is sure that the annotator marks them
scores = {name: {"NLL": negative_log_likelihood(p, known.targets), "Brier score": brier_score(p, known.targets)}
          for name, p in {"always the class's frequency": base_rate, "99 % for every class that is there": sees_all,
                          "the posterior": known.posterior}.items()}
scores["floor, from the posterior alone"] = {"NLL": expected_nll_floor(known.posterior),
                                             "Brier score": expected_brier_floor(known.posterior)}
pd.DataFrame(scores).T.round(4)

# %% tags=["report"]
noise = np.sqrt((P * (1 - P) * np.log(np.clip(P, 1e-9, 1) / np.clip(1 - P, 1e-9, 1)) ** 2).sum()) / P.size
gap = scores["the posterior"]["NLL"] - scores["floor, from the posterior alone"]["NLL"]
assert abs(gap) < 4 * noise, f"the posterior misses its own floor by {gap:.5f}, noise is {noise:.5f}"
assert scores["the posterior"]["NLL"] < scores["99 % for every class that is there"]["NLL"]
absent = ((known.posterior > 0) & (known.targets == 0)).sum() / (known.posterior > 0).sum()
display(Markdown(f"The NLL of the posterior equals its floor up to noise ({gap:+.4f} ± {2 * noise:.4f}). The model that knows all "
                 f"objects and answers 99 % is *worse*: {absent:.1%} of the labels to which it gives 99 % are absent."))

# %% [markdown]
"""
Think about the second row of the table. This model sees perfectly, and it is [overconfident](../docs/glossary.md#overconfidence),
because it does not know which labels are uncertain. To know *what* is there is one skill. To know *how sure to be* is another, called
[calibration](../docs/glossary.md#calibration).

(The floor holds for somebody who knows every visibility exactly. A network has only pixels, so its best possible score is no
lower, and in practice higher. For real data, nobody knows the floor. That is why this course uses drawn pictures.)

## 8. Explore

Here are twenty-four objects, from the least visible to the most. From which one on are *you* sure what it is?
"""

# %% tags=["report"]
steps = objects.sort_values("v").iloc[np.linspace(0, len(objects) - 1, 24).astype(int)]
pieces, boxes = zip(*(cut_out(known, o.image, as_box(o.name, o.box, o.v)) for o in steps.itertuples()))
titles = [f"{o.name} {o.v:.2f}\n{'marked' if o.marked else 'MISSED'}" for o in steps.itertuples()]
show(picture_grid(pieces, titles, boxes, columns=8, side=1.2),
     f"Objects in order of visibility; of the first eight {8 - steps.marked[:8].sum()} were missed, of the last eight "
     f"{8 - steps.marked[-8:].sum()}; dashed boxes are below the threshold of difficulty")

# %% [markdown]
"""
Now choose a range of visibility with the slider (click it, then use the arrow keys).
"""

# %% tags=["report"]
objects["range"] = pd.cut(objects.v, edges, include_lowest=True).map(lambda r: f"{max(r.left, 0):.1f} to {r.right:.1f}")
ranges = sorted(objects["range"].unique())


def frame(v_range):
    """Twelve objects of one range of visibility, and how many of all objects in it were marked."""
    group = objects[objects["range"] == v_range]
    few = group.sample(min(12, len(group)), random_state=0)
    pieces, boxes = zip(*(cut_out(known, o.image, as_box(o.name, o.box, o.v)) for o in few.itertuples()))
    figure = picture_grid(pieces, [f"{o.name}\n{'marked' if o.marked else 'MISSED'}" for o in few.itertuples()], boxes)
    readings = {"objects": f"{len(group):,}", "marked": f"{group.marked.mean():.1%}",
                "mean of π(v)": f"{marking_probability(group.v).mean():.1%}"}
    return Frame(figure, f"objects of visibility {v_range}", readings)

# %% tags=["report"]
explorer = Explorer({"visibility": ranges}, frame, note="Dashed boxes: would be flagged difficult.", warm=True)
explorer

# %% [markdown]
"""
Compare the readings: the share of marked objects is close to the mean of π(v), and chance explains the difference. Where that share
is near one half, the label is as random as a coin toss.

## 9. Are the splits alike?

We train a model on one [split](../docs/glossary.md#split), make choices on a second, and report results on a third. If the three
differ, the results say little about each other. We compare the class frequencies, with 95 % intervals:
"""

# %% tags=["report"]
splits = {"train": train}
for name in ("val", "test"):
    try:
        splits[name] = open_dataset(DATA, name)
    except FileNotFoundError:
        print(f"This folder has no complete split '{name}'.")
f = {name: s.targets.float().mean(0)[order] for name, s in splits.items()}
error = {name: (f[name] * (1 - f[name]) / len(s)).sqrt() for name, s in splits.items()}
groups = {name: (f[name], f[name] - 1.96 * error[name], f[name] + 1.96 * error[name]) for name in f}
show(estimates(names, groups, "share of pictures with this class"),
     "Share of pictures with each class in " + ", ".join(splits) + ", with 95 % intervals")

# %% tags=["report"]
others = [name for name in splits if name != "train"]
far = [(f[name] - f["train"]).abs() > 1.96 * (error[name] ** 2 + error["train"] ** 2).sqrt() for name in others]
tests, outside = C * len(others), sum(int(row.sum()) for row in far)
display(Markdown(f"We compared {tests} frequencies with the training split, and **{outside}** of them differ detectably (at 95 %). If "
                 f"all splits come from the same source, about {0.05 * tests:.1f} would differ by chance."))

# %% [markdown]
"""
Remember the second sentence whenever somebody tests many classes and reports the two that "differ".

## 10. The same code, other pixels

Does all this depend on *these* pictures? `digits` is made from scanned handwriting that comes with scikit-learn. These pixels are
real, and the simulated annotator is the same. One argument changes:
"""

# %% tags=["report"]
other_name = "scenes" if DATA == "digits" else "digits"
other = open_dataset(other_name, "train")
few = np.random.default_rng(0).permutation(len(other))[:12]
boxes = [other.boxes(i) for i in few]
show(picture_grid([other.image(i) for i in few], [label_line(b) for b in boxes], boxes),
     f"Twelve training pictures of {other_name} with labels and boxes")

# %% tags=["report"]
n, d = other.targets.sum(0), other.difficult.sum(0)
k = n.argsort(descending=True).tolist()
show(bars([other.classes[c] for c in k], {"easy": (n - d)[k], "difficult": d[k]}, "training pictures with this class"),
     f"Pictures per class of {other_name}, easy and difficult: a long tail here too")
by_data = {Path(DATA).name: (cardinality, D / Y.sum().item()),
           other_name: (other.targets.sum(1).float().mean().item(), (d.sum() / n.sum()).item())}
pd.DataFrame({name: {"labels per picture": f"{labels:.2f}", "difficult labels": f"{share_of:.1%}"}
              for name, (labels, share_of) in by_data.items()}).T

# %% [markdown]
"""
For photographs, put the folder that holds VOC2007's `Annotations`, `ImageSets` and `JPEGImages` into the cell with
`DATA`, for instance `DATA = "VOCdevkit/VOC2007"`, and run the lesson again. Everything works except the posterior, which
nobody knows there.

## 11. A first test of an assumption

The paper rests on an intuition: the more labels a picture has, the likelier some of them are difficult, so a model
should be less confident on crowded pictures. (Its *Assumption 1*, Eq. 8, says this about a model's probabilities, and lesson 04
tests it.) We can measure one part now, without any model and on both data sets: does the *share* of difficult
labels grow with the number of labels?
"""

# %% tags=["learn"]
from udlib.statistics import bootstrap_interval


def share_difficult(dataset, images):
    """Difficult labels among all labels of these pictures."""
    return (dataset.difficult[images].sum() / dataset.targets[images].sum()).item()


def with_labels(dataset, number):
    return (dataset.targets.sum(1) == number).nonzero().ravel()


# %% tags=["report"]
both = {Path(DATA).name: train, other_name: other}
numbers = [k for k in range(1, C) if all(len(with_labels(d, k)) >= len(d) / 50 for d in both.values())]
curves = {}
for name, dataset in both.items():
    groups = [with_labels(dataset, k) for k in numbers]
    intervals = [bootstrap_interval(lambda r, g=g: share_difficult(dataset, g[r]), len(g), samples=300) for g in groups]
    curves[name] = [[getattr(f, part) for f in intervals] for part in ("estimate", "low", "high")]
show(estimates([f"{k} label{'s' * (k > 1)}" for k in numbers], curves, "share of the labels that are difficult"),
     "Share of difficult labels by number of labels, with 95 % intervals: " + "; ".join(
         f"{name} " + ", ".join(f"{x:.1%}" for x in curve[0]) for name, curve in curves.items()))

# %% tags=["learn"]
def difference(dataset, images):
    """Share of difficult labels in pictures with three labels or more, minus that in the others."""
    crowded = dataset.targets[images].sum(1) >= 3
    return share_difficult(dataset, images[crowded]) - share_difficult(dataset, images[~crowded])

# %% tags=["report"]
gaps = {name: bootstrap_interval(lambda r, d=dataset: difference(d, r), len(dataset), samples=300)
        for name, dataset in both.items()}
display(pd.DataFrame({name: {"difficult labels, three labels or more minus fewer, points": f"{100 * gap.estimate:+.1f}",
                             "95 % interval": f"[{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"} for name, gap in gaps.items()}).T)
if DATA in ("scenes", "digits"):
    assert gaps["scenes"].low > 0 and gaps["digits"].low < 0 < gaps["digits"].high

# %% [markdown]
r"""
In `scenes` the share of difficult labels is 3.5 points larger in pictures with three labels or more. In `digits` no difference is
detected. So two data sets need not agree.

Note what we measured: flags of *marked* objects. More labels always mean more chances that *some* label is difficult. The question
was whether each single label is more often difficult. And the result says nothing yet about a model.

## Exercises

Replace each `...`, run the cell, then run the check below it. The solutions are in `solutions`, but you learn more from the hints
of a check.

**Exercise 01.1.** In section 4 we looped over classes. Do it without a loop: from labels `Y` (N, C), return the (C, C)
matrix with $P(j \mid i)$ in row $i$, column $j$. A class without pictures gets a row of zeros.
"""

# %% exercise="01.1"
def conditional(Y):
    """P(j | i) in row i and column j."""
    return ...


# %% solution="01.1"
def conditional(Y):
    """P(j | i) in row i and column j."""
    together = Y.T @ Y
    return together / together.diagonal().clamp(min=1)[:, None]


# %% mistake="01.1" says="divided by the count of the column's class"
def conditional(Y):
    together = Y.T @ Y
    return together / together.diagonal().clamp(min=1)[None, :]


# %% mistake="01.1" says="not by N"
def conditional(Y):
    return Y.T @ Y / len(Y)


# %% mistake="01.1" says="still counts"
def conditional(Y):
    return Y.T @ Y


# %% mistake="01.1" says="a class that has no picture"
def conditional(Y):
    together = Y.T @ Y
    return together / together.diagonal()[:, None]


# %% tags=["learn"]
check("01.1", conditional)

# %% [markdown]
r"""
**Exercise 01.2.** A scene's objects are given as two arrays: the class index and the visibility of each. Return the
posterior $P(y_c = 1 \mid \text{scene})$ of all `C` classes as an array of shape (C,); a class without objects gets 0.
`marking_probability` is π.
"""

# %% exercise="01.2"
def posterior(class_index, visibility, C):
    """P(y_c = 1 | scene) for each of C classes."""
    return ...


# %% solution="01.2"
def posterior(class_index, visibility, C):
    """P(y_c = 1 | scene) for each of C classes."""
    missed = 1 - marking_probability(visibility)
    return np.array([1 - np.prod(missed[class_index == c]) for c in range(C)])


# %% mistake="01.2" says="the chances are summed"
def posterior(class_index, visibility, C):
    return np.array([marking_probability(visibility)[class_index == c].sum() for c in range(C)])


# %% mistake="01.2" says="the chances are multiplied"
def posterior(class_index, visibility, C):
    chance = marking_probability(visibility)
    return np.array([np.prod(chance[class_index == c]) if (class_index == c).any() else 0 for c in range(C)])


# %% mistake="01.2" says="only the most visible object"
def posterior(class_index, visibility, C):
    return np.array([marking_probability(visibility)[class_index == c].max(initial=0) for c in range(C)])


# %% mistake="01.2" says="pass them through marking_probability"
def posterior(class_index, visibility, C):
    return np.array([1 - np.prod(1 - visibility[class_index == c]) for c in range(C)])


# %% tags=["learn"]
check("01.2", posterior)

# %% [markdown]
"""
**Exercise 01.3.** From the boxes of one picture (each has `.name` and `.difficult`), return VOC's state of every class,
in the order of `classes`: 1, 0 (difficult) or -1 (absent). Read the table of section 5 again: when exactly is a class
difficult?
"""

# %% exercise="01.3"
def states(boxes, classes):
    """1, 0 or -1 for each class."""
    return ...


# %% solution="01.3"
def states(boxes, classes):
    """1, 0 or -1 for each class."""
    flags = {name: [box.difficult for box in boxes if box.name == name] for name in classes}
    return [-1 if not flags[name] else 0 if all(flags[name]) else 1 for name in classes]


# %% mistake="01.3" says="only if all of its objects are"
def states(boxes, classes):
    flags = {name: [box.difficult for box in boxes if box.name == name] for name in classes}
    return [-1 if not flags[name] else 0 if any(flags[name]) else 1 for name in classes]


# %% mistake="01.3" says="the last object of a class decides"
def states(boxes, classes):
    state = dict.fromkeys(classes, -1)
    for box in boxes:
        state[box.name] = 0 if box.difficult else 1
    return list(state.values())


# %% mistake="01.3" says="absent is -1"
def states(boxes, classes):
    return [int(any(box.name == name and not box.difficult for box in boxes)) for name in classes]


# %% tags=["learn"]
check("01.3", states)

# %% [markdown]
"""
### Exercise ★★★ (open): are things overlooked in a crowd?

A colleague says: "In pictures with many objects, a larger share of the objects is not marked. So an annotator overlooks
things in a crowd." In `scenes` you know every object, how visible it is, and what was marked. Design a comparison that could
prove your colleague wrong: what do you count, and what do you hold equal?

One point each:

1. You name something else that differs between full and empty pictures and changes the chance of a mark.
2. You compare objects that are alike in it.
3. Your interval comes from resampling pictures, not objects.
4. You say before looking which outcome supports whom.

<details><summary>A worked answer</summary>

In a full picture objects cover each other, and a covered object is marked less often, whatever stands around it. So sort the
objects into narrow bins of visibility. In each bin compare the share marked in full and in empty pictures, and average the
differences over the bins with one set of weights. Take only classes with a single object in the picture: a second cup is a
second chance for the label *cup*. Objects of one picture are not independent, so resample whole pictures for the interval. If
it lies below 0, your colleague is right. If it holds 0, visibility explains enough. In `scenes` the annotator looks at each
object alone, so here we know the answer: about 0.

</details>

## Summary

* A multi-label data set is a table of yes and no, mostly no. A few classes are common and many are rare. Some labels appear together
  more often than by chance; compare with shuffled labels before you believe it.
* A label has three states. The treatment of *difficult* labels is a policy, and every score should state it.
* A label is an annotator's answer, not the truth. In `scenes` the probability of each answer is known: the posterior.
* Even the posterior has a loss above zero. To see everything is one skill, to know how sure to be is another.
* Report each estimate with an interval: pairs, splits and shares all differ by chance.

**Next:** lesson 02 trains the baseline, with one sigmoid per class, and shows which scores judge it.

## Further reading

* M. Everingham, L. Van Gool, C. K. I. Williams, J. Winn, A. Zisserman, *The PASCAL Visual Object Classes (VOC)
  Challenge*, International Journal of Computer Vision 88 (2), 2010: the data set, its annotation and its evaluation.
* L. Song et al., *Handling Difficult Labels for Multi-label Image Classification via Uncertainty Distillation*, ACM MM
  2021: Figure 1 and Section 1 for difficult labels, Section 4.1 for Assumption 1.
* T.-Y. Lin et al., *Microsoft COCO: Common Objects in Context*, ECCV 2014: the larger data set of the same kind.
* A. K. Menon et al., *Multilabel Reductions: What Is My Loss Optimising?*, NeurIPS 2019: what a label's probability
  means to a loss.
* W. Liu, I. W. Tsang, K.-R. Müller, *An Easy-to-hard Learning Paradigm for Multiple Classes and Multiple Labels*, JMLR
  18, 2017: difficulty of labels rather than of images.
"""

# %% [markdown]
r"""
## Quiz

What do you know after this lesson?
"""

# %% tags=["report"]
from udlib.course.quizzes import quiz

quiz("01")
