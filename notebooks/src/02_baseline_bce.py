# %% [markdown]
r"""
# 02 · The baseline: binary cross-entropy

[← 01 · Multi-label data](01_multilabel_data.ipynb) · [03 · A second branch →](03_pal_n_calibration.ipynb)

**Aim.** You will know the loss that every later lesson is measured against, and every number that judges a
multi-label classifier. You will compute each of them by hand once, and see how far a score moves when nothing changes
but the rules of counting.

**Prerequisites.** Lesson 01: labels, difficult labels, the simulated annotator. A little PyTorch.

**Time.** About 90 minutes with the exercises. The cells run in a minute or two: networks that take minutes to train
are loaded, not trained.
"""

# %% tags=["setup"]
import numpy as np
import pandas as pd
import sklearn.metrics
import torch
from IPython.display import display
from torch.nn import functional as F

# %% tags=["setup"]
from udlib import metrics
from udlib.figures import plots
from udlib.datasets import apply_policy
from udlib.course.exercises import check, check_guess
from udlib.course.store import arrays, dataset, load_or_run, profile
from udlib.losses import ova_loss
from udlib.figures.plots import show
from udlib.course.recipes import SEEDS, baseline, tricks
from udlib.statistics import bootstrap_interval, paired_difference, summary
from udlib.course.sentences import in_units, percent, say, spread

# %% [markdown]
r"""
One line decides what this lesson looks at. Come back to it at the end, change it, and run everything again.
"""

# %% tags=["setup"]
DATA = "scenes"  # or "digits", or the path of a folder in VOC layout

# %% [markdown]
r"""
Every number below is measured when you run the lesson, so the sentences with numbers are written by code as well: `say`
shows a sentence, `spread` is mean ± standard deviation over seeds, `in_units` a difference with its 95 % interval. Scores are
printed in per cent, and a "point" is one per cent.
"""

# %% [markdown]
r"""
## 1. First, a picture

Here is a network at work before we say how it was trained. `load_or_run` finds its stored result: the **logits** of
every test image. A sigmoid turns each logit into a probability.
"""

# %%
run = load_or_run(baseline(DATA))
test = run.labels("test")  # classes, targets, difficult, posterior
pictures = dataset(run.recipe.data, "test", run.recipe.size, run.recipe.limit)
p = run.probabilities("test")
assert p.shape == test.targets.shape == (len(pictures), len(test.classes))

# %%
suits = (test.targets.sum(1) == 3) & (test.difficult.sum(1) == 1)  # three labels, one of them difficult
i = int(suits.int().argmax())
labelled = [name for name, present in zip(test.classes, test.targets[i]) if present]
show(plots.prediction(pictures.image(i), test.classes, p[i], test.targets[i], test.difficult[i], title="a test image"),
     f"Test image {i} with the labels {', '.join(labelled)}, beside its ten largest predicted probabilities")

# %% [markdown]
r"""
Each bar answers its own question, so the bars need not add up to one. The dotted line is the usual threshold: at 0.5
or above the network says *yes*.

### Predict

Write two guesses before you go on; they are scored further down. `mAP` is the score of the field: 100 % means that
for every class all positives are ranked above all negatives, and a network that ranks at random gets about the share
of positives.
"""

# %%
guess_map = ...  # the baseline's mAP on the test images, in per cent; for example 50
guess_policy = ...  # and by how many points it moves if difficult labels count as positives, instead of being left out

# %% [markdown]
r"""
## 2. One question per class

![One image goes through backbone, pooling and head to a logit for each class; a sigmoid makes it a probability, and the target of the class makes a loss, which is added up over the classes.](images/from_image_to_loss.svg)

A picture can hold a car *and* a tree, so the classes do not compete. The plain way out is **one versus all** (OVA):
$C$ independent yes-or-no classifiers that share one backbone. Class $i$ has a logit $z_i$, and

$$f_i = \sigma(z_i) = \frac{1}{1 + e^{-z_i}}$$

is the predicted probability that label $i$ is present. Two images and three classes are enough to see all of it.
"""

# %%
z = torch.tensor([[2.0, -1.0, 0.5], [-0.5, 1.5, -2.0]], dtype=torch.float64)  # logits (N, C)
y = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]], dtype=torch.float64)  # targets (N, C)
f = torch.sigmoid(z)
named = {"index": ["image 1", "image 2"], "columns": ["class 1", "class 2", "class 3"]}
pd.DataFrame(f.numpy(), **named).round(3)

# %% [markdown]
r"""
The loss is the binary cross-entropy of each question, summed over the questions (Eq. 3 of the uncertainty
distillation paper, UD; the minus sign belongs to the whole sum):

$$\ell_{\mathrm{OVA}} = - \sum_{i=1}^{C} \big[\, y_i \log f_i + (1 - y_i) \log (1 - f_i) \,\big]$$

Each question pays for the probability it gave to the wrong answer. Here is the equation as a line of code.
"""

# %%
per_image = -(y * f.log() + (1 - y) * (1 - f).log()).sum(1)  # Eq. 3: one number for each image
by_probabilities = per_image.mean()
print("loss of each image:", per_image.numpy().round(3), " mean:", round(by_probabilities.item(), 4))

# %% [markdown]
r"""
That line is right on paper and wrong in a computer. In single precision $\sigma(100)$ *is* 1, so $\log(1 - f)$ is
$\log 0$. Look at what the formula makes of two very sure answers, each once right and once wrong.
"""

# %%
sure = torch.tensor([100.0, 100.0, -100.0, -100.0])
truth = torch.tensor([1.0, 0.0, 0.0, 1.0])
s = torch.sigmoid(sure)
naive = -(truth * s.log() + (1 - truth) * (1 - s).log())
stable = truth * F.softplus(-sure) + (1 - truth) * F.softplus(sure)
assert not torch.isfinite(naive[:2]).any() and torch.allclose(stable, torch.tensor([0.0, 100.0, 0.0, 100.0]))
pd.DataFrame({"logit": sure, "label": truth, "from probabilities": naive, "from logits": stable}).round(3)

# %% [markdown]
r"""
One `nan` in one label of one image, and the whole network is lost after the next step. The way out is never to form
$f$:

$$-\log \sigma(z) = \log(1 + e^{-z}) = \mathrm{softplus}(-z), \qquad -\log (1 - \sigma(z)) = \mathrm{softplus}(z),$$

and `softplus` is computed so that it neither overflows nor rounds to zero where it matters.

### Exercise 02.1

Write Eq. 3 from logits for a whole batch: `logits` and `targets` are (N, C) tensors, the answer is one number.
**Sum** over the classes, then take the **mean** over the images. Use `F.softplus`, but no ready-made loss.
"""

# %% exercise="02.1"
def my_ova_loss(logits, targets):
    return ...

# %% solution="02.1"
def my_ova_loss(logits, targets):
    per_label = targets * F.softplus(-logits) + (1 - targets) * F.softplus(logits)
    return per_label.sum(1).mean()

# %% mistake="02.1" says="mean over the classes"
def my_ova_loss(logits, targets):
    per_label = targets * F.softplus(-logits) + (1 - targets) * F.softplus(logits)
    return per_label.mean()

# %% mistake="02.1" says="±200"
def my_ova_loss(logits, targets):
    f = torch.sigmoid(logits)
    return -(targets * f.log() + (1 - targets) * (1 - f).log()).sum(1).mean()

# %% mistake="02.1" says="sign"
def my_ova_loss(logits, targets):
    per_label = targets * F.logsigmoid(logits) + (1 - targets) * F.logsigmoid(-logits)
    return per_label.sum(1).mean()

# %%
check("02.1", my_ova_loss)

# %% [markdown]
r"""
Four ways to one number: from probabilities, from logits in the shortest form ($\mathrm{softplus}(z) - y z$: convince
yourself with $y = 0$ and $y = 1$), our library, and PyTorch's own loss.
"""

# %%
by_logits = (F.softplus(z) - y * z).sum(1).mean()
by_library = ova_loss(z, y)
by_torch = F.binary_cross_entropy_with_logits(z, y, reduction="sum") / len(z)
for other in (by_logits, by_library, by_torch):
    assert torch.isclose(other, by_probabilities, rtol=1e-9)
print("all four:", round(by_torch.item(), 6))

# %% [markdown]
r"""
PyTorch's default, `reduction="mean"`, divides by the number of classes too. The paper's released code does the same,
Eq. 3 does not. It is only a factor $C$, but it decides what *another* loss term weighs beside this one: a weight of
0.1 next to the sum is as weak as $0.1 / C$ next to the mean. Lesson 03 will need this.
"""

# %%
averaged = ova_loss(z, y, scale="released")
assert torch.isclose(averaged, F.binary_cross_entropy_with_logits(z, y))
assert torch.isclose(averaged * z.shape[1], by_library)
print(f"sum over classes {by_library.item():.4f} = {z.shape[1]} × mean over classes {averaged.item():.4f}")

# %% [markdown]
r"""
## 3. What the gradient says

Differentiate Eq. 3 with respect to one logit and everything cancels but the error itself:

$$\frac{\partial \ell_{\mathrm{OVA}}}{\partial z_i} = f_i - y_i .$$

Let autograd confirm it. The loss is a mean over images, hence the factor $N$.
"""

# %%
leaf = z.clone().requires_grad_()
ova_loss(leaf, y).backward()
assert torch.allclose(len(z) * leaf.grad, f - y)
pd.DataFrame((len(z) * leaf.grad).numpy(), **named).round(3)

# %%
axis = torch.linspace(-6, 6, 121)
answer = torch.sigmoid(axis)
show(plots.lines(axis, {"loss, label present": F.softplus(-axis), "loss, label absent": F.softplus(axis),
                        "gradient, label present": answer - 1, "gradient, label absent": answer},
                 "logit", "nats, and nats per unit of logit", "one label's loss and its gradient", markers=False),
     "Loss falls towards zero as the logit moves to the right side; its gradient runs between -1 and 0, or 0 and 1")

# %% [markdown]
r"""
Read it from the far ends. A confident mistake pulls with force 1, and no mistake ever pulls harder. A correct answer
is pulled too, less and less, and the pull **never stops**: a label marked 1 is pushed towards $f = 1$ for as long as
training goes on. That holds for the car in the middle of the picture and for the grey smudge that an annotator
happened to mark. This is what the paper means by over-training on difficult labels.

In defence of the loss: if images that look alike are labelled 1 in seven cases of ten, the best single answer is
exactly 0.7.
"""

# %%
answers = torch.linspace(0.01, 0.99, 99)
expected_loss = -(0.7 * answers.log() + 0.3 * (1 - answers).log())
best_answer = answers[expected_loss.argmin()].item()
assert abs(best_answer - 0.7) < 1e-3
print("the expected loss is smallest at f =", round(best_answer, 2))

# %% [markdown]
r"""
So with endless data, binary cross-entropy asks for honest probabilities. A training set shows each picture with *one*
label, though, and a flexible network can learn that label by heart. How honest the result is, lesson 03 and 04
measure.

## 4. Training

Ten steps, live, on 64 images. Nothing is hidden: forward, loss, backward, step.
"""

# %%
from udlib.backbones import backbone
from udlib.datasets.transforms import normalise
from udlib.heads import DualBranchNet

train = arrays(run.recipe, "train")  # uint8 images (N, 3, H, W) in memory, and their targets
images, targets = normalise(train.images[:64]), train.targets[:64].float()
torch.manual_seed(0)
network = DualBranchNet(backbone("small"), len(test.classes), calibration=False)
optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)

# %%
losses = []
for step in range(10):
    loss = ova_loss(network(images).logits, targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert losses[-1] < losses[0]

# %%
show(plots.lines(range(1, 11), {"loss": losses}, "step", "loss, nats per image", "ten steps on 64 images"),
     "The training loss of the same 64 images over ten steps of Adam")
say(f"A network that answers ½ to every question pays $C \\log 2$ = {len(test.classes) * np.log(2):.2f} nats an "
    f"image. Ours went from {losses[0]:.2f} to {losses[-1]:.2f}.")

# %% [markdown]
r"""
The real training is the same loop with more images, altered a little at random each time they are seen (`scenes` are
mirrored, `digits` shifted), and a learning rate that warms up and then falls along a cosine. One training tells us
little, because another random start gives another network. So the course trains each recipe with **five seeds** and
reports the mean and the spread.
"""

# %%
runs = [load_or_run(baseline(DATA, seed)) for seed in SEEDS]
took = [r.provenance["seconds"] for r in runs]
say(f"Each of the {len(runs)} networks saw {len(train.targets):,} images in each of {run.recipe.training.epochs} epochs; "
    f"one training took {np.mean(took):.0f} seconds ({run.provenance['hardware']}, {run.provenance['precision']}).")

# %% [markdown]
r"""
Did they learn, and did they learn too much? The history has the loss on the training images, and every few epochs the
loss on the validation images. Validation reports the mean over classes; times $C$ it is Eq. 3 and can stand beside
the training loss.
"""

# %%
measured = [[row for row in r.history if "mAP" in row] for r in runs]  # epochs with a validation
epochs = [row["epoch"] for row in measured[0]]
curves = {"training": np.array([[row["total"] for row in rows] for rows in measured]),
          "validation": np.array([[row["NLL"] * len(test.classes) for row in rows] for rows in measured])}
means = {name: values.mean(0) for name, values in curves.items()}
stds = {name: values.std(0, ddof=1) for name, values in curves.items()}
bands = {name: (means[name] - stds[name], means[name] + stds[name]) for name in curves}
show(plots.lines(epochs, means, "epoch", "loss, nats per image", "mean ± std over five seeds", bands=bands),
     "Training and validation loss over the epochs, with a band of one standard deviation over seeds")

# %%
lowest = int(means["validation"].argmin())
at_end = {name: f"{values[-1]:.2f}" for name, values in means.items()}
turn = "is still at its lowest at the end" if lowest == len(epochs) - 1 else \
    f"was lowest after epoch {epochs[lowest]} ({means['validation'][lowest]:.2f}) and has risen since"
say(f"At the end a training image costs {at_end['training']} nats and a validation image {at_end['validation']}. "
    f"The validation loss {turn}.")

# %% [markdown]
r"""
Mind two things when you compare the curves. The training loss is taken *while* the network changes and on altered
pictures, so it reads a little high. And a gap between the curves is not yet a fault: it says that the network knows
its training images better than others, as we all do. A validation loss that *rises* is the sign of answers that have
become too sure.

## 5. Judging a ranking: average precision

Take one class and sort the images by its score. A good network puts the positives on top. Walk down the list and at
each rank ask two questions: how many of the images so far are right (**precision**), and how many of all positives
have we met (**recall**)?
"""

# %%
ranking = pd.DataFrame({"score": [.45, .95, .10, .70, .90, .60, .20, .30], "label": [0, 1, 0, 1, 0, 1, 1, 0]},
                       index=[f"image {letter}" for letter in "ABCDEFGH"]).sort_values("score", ascending=False)
ranking["rank"] = range(1, 9)
ranking["hits so far"] = ranking["label"].cumsum()
ranking["precision"] = ranking["hits so far"] / ranking["rank"]
ranking["recall"] = ranking["hits so far"] / ranking["label"].sum()
ranking.round(3)

# %% [markdown]
r"""
**Average precision** (AP) is the mean of the precision *at the positives*. The rows with label 1 have precision 1/1,
2/3, 3/4 and 4/7; what stands at the negatives enters only through these.
"""

# %%
ap_by_hand = ranking["precision"][ranking["label"] == 1].mean()
assert np.isclose(ap_by_hand, (1 / 1 + 2 / 3 + 3 / 4 + 4 / 7) / 4)
assert np.isclose(ap_by_hand, metrics.average_precision(ranking[["score"]].values, ranking[["label"]].values).item())
print(f"AP = {ap_by_hand:.4f}")

# %% [markdown]
r"""
AP looks at the order alone: add 3 to every logit and it stays what it was. It therefore says nothing about whether
0.9 *means* 0.9.

### Exercise 02.2

Write AP for one class with one sort and one cumulative sum. `scores` and `targets` are tensors of shape (N,). A class
without a positive has no AP: return NaN for it (the mean of nothing is NaN in PyTorch anyway).
"""

# %% exercise="02.2"
def my_average_precision(scores, targets):
    return ...

# %% solution="02.2"
def my_average_precision(scores, targets):
    hits = targets[scores.argsort(descending=True)].double()
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
    return precision[hits == 1].mean()

# %% mistake="02.2" says="ascending"
def my_average_precision(scores, targets):
    hits = targets[scores.argsort()].double()
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
    return precision[hits == 1].mean()

# %% mistake="02.2" says="interpolated"
def my_average_precision(scores, targets):
    hits = targets[scores.argsort(descending=True)].double()
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
    best_further_on = precision.flip(0).cummax(0).values.flip(0)
    return best_further_on[hits == 1].mean()

# %% mistake="02.2" says="number of positives"
def my_average_precision(scores, targets):
    hits = targets[scores.argsort(descending=True)].double()
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
    return (precision * hits).sum() / len(hits)

# %%
check("02.2", my_average_precision)

# %% [markdown]
r"""
Now the whole test set. VOC's protocol leaves difficult labels out of the ranking: neither right nor wrong. We take
the class with the middle AP and compute it three times: from the definition, word for word; with our library; with
scikit-learn.
"""

# %%
ap = metrics.average_precision(p, test.targets, ignore=test.difficult)  # one number for each class
order = [int(k) for k in ap.argsort() if not ap[k].isnan()]
worst, middle, best = order[0], order[len(order) // 2], order[-1]
counted = ~test.difficult[:, middle]
scores, truth = p[counted, middle].numpy(), test.targets[counted, middle].numpy()
by_hand = np.mean([truth[scores >= score].mean() for score in scores[truth == 1]])
assert np.isclose(by_hand, ap[middle].item())
assert np.isclose(by_hand, sklearn.metrics.average_precision_score(truth, scores))
print(f"{test.classes[middle]}: {truth.sum()} positives among {len(truth)} images, AP {100 * by_hand:.2f} %")

# %%
def curve(k):
    counted = ~test.difficult[:, k]
    precision, recall, _ = sklearn.metrics.precision_recall_curve(test.targets[counted, k], p[counted, k])
    return recall[::-1], precision[::-1]


show(plots.precision_recall({f"{test.classes[k]}, AP {100 * ap[k]:.1f} %": curve(k) for k in (best, middle, worst)},
                            "the best, the middle and the worst class"),
     f"Precision over recall for {test.classes[best]}, {test.classes[middle]} and {test.classes[worst]}")

# %% [markdown]
r"""
The mean of AP over the classes is **mAP**. Every class counts the same, however rare.
"""

# %%
maps = [r.metrics["test"]["mAP"] for r in runs]
assert np.isclose(maps[0], ap[~ap.isnan()].mean())
found = summary(maps)
say(f"**The baseline's mAP: {spread(maps)} %** over {found.n} seeds (best {percent(found.best)}, worst "
    f"{percent(found.worst)}). A ranking at random would get about {percent(test.targets.double().mean())}. With seed 0, the "
    f"best class is {test.classes[best]} ({percent(ap[best])}), the worst {test.classes[worst]} ({percent(ap[worst])}).")
check_guess("mAP", guess_map, 100 * found.mean, " %")

# %% [markdown]
r"""
Loss and mAP are different judges, and they need not agree on when to stop.
"""

# %%
validation_map = np.array([[row["mAP"] for row in rows] for rows in measured]).mean(0)
highest = int(validation_map.argmax())
agree = "Here the two agree." if highest == lowest else \
    "The order of the images can still improve while the probabilities get worse, and the other way round."
say(f"On validation, the loss was lowest after epoch {epochs[lowest]} and mAP highest after epoch {epochs[highest]}: "
        f"{100 * validation_map[highest]:.2f} %, against {100 * validation_map[-1]:.2f} % at the end. {agree}")

# %% [markdown]
r"""
A class without a single positive in the test set has nothing to rank. Our AP is NaN there, and mAP is the mean over
the classes that have positives. Check this in any library you use: a 0 in its place silently lowers the mean.
"""

# %%
two_classes = metrics.average_precision([[.9, .3], [.8, .6], [.2, .1]], [[1, 0], [0, 0], [1, 0]])
assert two_classes[1].isnan()
assert metrics.mean_average_precision([[.9, .3], [.8, .6], [.2, .1]], [[1, 0], [0, 0], [1, 0]]) == two_classes[0]
two_classes

# %% [markdown]
r"""
## 6. Judging decisions: CP, CR, CF1, OP, OR, OF1

To *use* a classifier one must say yes or no, so here a threshold comes in. Four images and three classes, p ≥ 0.5 is
a yes:
"""

# %%
small_p = torch.tensor([[.9, .2, .4], [.4, .6, .1], [.3, .7, .45], [.2, .8, .3]])
small_y = torch.tensor([[1, 0, 1], [1, 0, 0], [1, 0, 1], [0, 1, 0]])
said_yes = small_p >= 0.5
right = said_yes & small_y.bool()
counts = pd.DataFrame({"right": right.sum(0), "said yes": said_yes.sum(0), "labelled": small_y.sum(0)},
                      index=["car", "tree", "bird"])
counts["precision"] = (counts["right"] / counts["said yes"]).fillna(0)  # 0/0: nothing claimed, counted as 0
counts["recall"] = counts["right"] / counts["labelled"]
counts.round(3)

# %% [markdown]
r"""
**Per class** (C…): average the columns, then combine. **Overall** (O…): sum the counts, then divide once. F1 is the
harmonic mean of the two numbers before it.
"""

# %%
CP, CR = counts["precision"].mean(), counts["recall"].mean()
OP = counts["right"].sum() / counts["said yes"].sum()
OR = counts["right"].sum() / counts["labelled"].sum()
by_hand = {"CP": CP, "CR": CR, "CF1": 2 * CP * CR / (CP + CR), "OP": OP, "OR": OR, "OF1": 2 * OP * OR / (OP + OR)}
by_library = metrics.precision_recall_f1(small_p, small_y)
assert all(np.isclose(by_hand[name], by_library[name]) for name in by_hand)
pd.DataFrame([by_hand]).round(3)

# %% [markdown]
r"""
A trap: **CF1 is not the mean of the classes' F1**, which is what scikit-learn calls macro F1. Here the car is precise
and misses much, the tree is the other way round. Each alone has a poor F1, but in CP and CR their faults make up for
each other.
"""

# %%
macro_f1 = sklearn.metrics.f1_score(small_y, said_yes, average="macro", zero_division=0)
assert macro_f1 < by_hand["CF1"]
print(f"CF1 {by_hand['CF1']:.3f}, mean of the classes' F1 {macro_f1:.3f}, OF1 {by_hand['OF1']:.3f}")

# %% [markdown]
r"""
### Exercise 02.3

Write CF1 for tensors `probabilities` and `targets` of shape (N, C). A probability of exactly 0.5 counts as a yes, and
0/0 as 0.
"""

# %% exercise="02.3"
def my_cf1(probabilities, targets):
    return ...

# %% solution="02.3"
def my_cf1(probabilities, targets):
    said_yes, present = probabilities >= 0.5, targets.bool()
    right = (said_yes & present).sum(0)
    CP = (right / said_yes.sum(0).clamp(min=1)).mean()
    CR = (right / present.sum(0).clamp(min=1)).mean()
    return 2 * CP * CR / (CP + CR)

# %% mistake="02.3" says="mean of the classes' F1"
def my_cf1(probabilities, targets):
    said_yes, present = probabilities >= 0.5, targets.bool()
    right = (said_yes & present).sum(0)
    return (2 * right / (said_yes.sum(0) + present.sum(0))).mean()

# %% mistake="02.3" says="micro"
def my_cf1(probabilities, targets):
    said_yes, present = probabilities >= 0.5, targets.bool()
    right = (said_yes & present).sum()
    return 2 * right / (said_yes.sum() + present.sum())

# %%
check("02.3", my_cf1)

# %% [markdown]
r"""
The paper also reports **top-3**: of each image only the three most probable labels may be a yes, and only if they
reach the threshold. That can only lower recall, and mostly raises precision. The baseline under both, in per cent,
mean ± std over seeds:
"""

# %%
NAMES = ["CP", "CR", "CF1", "OP", "OR", "OF1"]
table = pd.DataFrame({rule: {name: spread([r.metrics["test"][name + suffix] for r in runs]) for name in NAMES}
                      for rule, suffix in (("all labels", ""), ("top-3", "_top3"))})
again = metrics.precision_recall_f1(p, test.targets, top_k=3, ignore=test.difficult)
assert np.isclose(again["CF1"], run.metrics["test"]["CF1_top3"])
table.T

# %%
cut = ((p >= 0.5).sum(1) > 3).double().mean().item()
say(f"Top-3 can only change images with more than three yeses: {percent(cut)} of the test images (seed 0). On MS-COCO, "
    "with its 80 classes and crowded pictures, it matters more.")

# %% [markdown]
r"""
## 7. The rules of counting

"mAP" is not one number. Benchmarks differ in how they read the curve:

- **non-interpolated**: the precision at each positive, as above (this course, scikit-learn, COCO-style papers);
- **voc07-11point**: at recall 0, 0.1, …, 1 take the best precision at that recall or further on, and average the
  eleven;
- **voc10-area**: replace each precision by the best one further on, then take the area.

And they differ in what a difficult label is: left out (`ignore`, VOC's rule), a `positive`, or a `negative`. Nine
scores of the *same* five networks:
"""

# %%
def score(r, variant, policy):
    targets, ignore = apply_policy(test.targets, test.difficult, policy)
    return metrics.mean_average_precision(r.probabilities(), targets, ignore, variant)


POLICIES = ("ignore", "positive", "negative")
grid = {(variant, policy): np.array([score(r, variant, policy) for r in runs])
        for variant in metrics.AP_VARIANTS for policy in POLICIES}
assert np.allclose(grid["non-interpolated", "ignore"], maps)
pd.Series({rule: spread(values) for rule, values in grid.items()}).unstack()[list(POLICIES)]

# %% [markdown]
r"""
One order is certain: the best precision further on is never below the precision here, so the area variant is never
below ours.
"""

# %%
for policy in POLICIES:
    assert (grid["voc10-area", policy] >= grid["non-interpolated", policy]).all()
shifts = {f"{variant}, {policy}": 100 * (values - grid["non-interpolated", "ignore"])
          for (variant, policy), values in grid.items() if "ignore" == policy or variant == "non-interpolated"}
del shifts["non-interpolated, ignore"]
show(plots.seed_intervals(shifts, "change of mAP, in points", "other rules, same networks", zero=True),
     "By how many points mAP moves under other AP variants and difficulty policies, with 95 % intervals over seeds")

# %%
policy_shift = paired_difference(grid["non-interpolated", "positive"], grid["non-interpolated", "ignore"])
rule, moved = max(shifts.items(), key=lambda item: abs(item[1].mean()))
luck = 100 * np.std(maps, ddof=1)
weighs = "Rules weigh more than luck here" if abs(moved.mean()) > luck else "Luck weighs more than rules here"
say(f"Counting difficult labels as positives moves mAP by {in_units(policy_shift)}. The largest of these moves is that of "
    f"*{rule}*, {moved.mean():+.2f} points; the standard deviation over seeds is {luck:.2f}. {weighs}. Never compare two mAPs "
    "before you know how each was counted.")
check_guess("policy", guess_policy, 100 * abs(policy_shift.mean), " points")

# %% [markdown]
r"""
The released code of the paper uses *positive* in training, *ignore* in AP and *negative* in F1. That is a choice, not
a mistake, but it must be said, because F1 moves as well:
"""

# %%
pd.DataFrame({policy: {name: spread([r.metrics["test"][name + suffix] for r in runs]) for name in ("CF1", "OF1")}
              for policy, suffix in (("ignore", ""), ("positive", "_positive"), ("negative", "_negative"))})

# %% [markdown]
r"""
## 8. Where the baseline errs

The paper's *Difficult* subset holds the images with at least one difficult label. We compute AP there with difficult
labels as positives, and so on all test images beside it.
"""

# %%
hard = metrics.difficult_subset(test.difficult)
if not hard.any():  # a data set without difficult labels: everything below then speaks of all images
    hard[:] = True
on_all = torch.stack([metrics.average_precision(r.probabilities(), test.targets) for r in runs])
on_hard = torch.stack([metrics.average_precision(r.probabilities()[hard], test.targets[hard]) for r in runs])
both = ~(on_all.isnan() | on_hard.isnan()).any(0)  # classes with positives in both
change = paired_difference(on_hard[:, both].mean(1), on_all[:, both].mean(1))
assert np.isclose(on_hard[0].nanmean(), run.metrics["test"].get("mAP_difficult", on_hard[0].nanmean()))

# %%
sorted_rows = on_all.mean(0).nan_to_num(0).argsort(descending=True).tolist()
by_class = {"all test images": 100 * on_all.mean(0)[sorted_rows], "Difficult subset": 100 * on_hard.mean(0)[sorted_rows]}
show(plots.dots([test.classes[k] for k in sorted_rows], by_class,
                "AP in per cent, mean over seeds", "every class, on all images and on the Difficult subset"),
     "AP of each class on all test images and on the Difficult subset")

# %%
everywhere, there = test.targets.double().mean(), test.targets[hard].double().mean()
endings = {"lower": "and still ends lower.", "higher": "and stays ahead.", "not detected": "and loses the lead."}
say(f"The subset has {int(hard.sum()):,} of {len(hard):,} images. mAP is {spread(on_hard[:, both].mean(1))} % there and "
    f"{spread(on_all[:, both].mean(1))} % on all images, {in_units(change)}: **{change.verdict}**. Mind what is compared: "
    f"a random ranking scores about the share of positives, {percent(there)} there and {percent(everywhere)} on all "
    f"images. The subset starts ahead {endings[change.verdict]}")

# %% [markdown]
r"""
A fairer question about single labels: of all labels that are present, what share does the network find at 0.5 (their
recall)? VOC flags each object as truncated, occluded or difficult; a label carries a flag here if *all* its objects
do.
"""

# %%
FLAGS = ["truncated", "occluded", "difficult"]
objects = pd.DataFrame([[n, test.classes.index(box.name), *(getattr(box, flag) for flag in FLAGS)]
                        for n in range(len(pictures)) for box in pictures.boxes(n)], columns=["image", "class", *FLAGS])
present = objects.groupby(["image", "class"])[FLAGS].all().reset_index()
assert len(present) == int(test.targets.sum())  # one row for every positive label
where = torch.tensor(present[["image", "class"]].values)
yes = np.stack([r.probabilities()[where[:, 0], where[:, 1]] >= 0.5 for r in runs])

# %%
kinds = {"no flag": ~present[FLAGS].any(axis=1), **{flag: present[flag] for flag in FLAGS}}
kinds = {name: rows.values for name, rows in kinds.items() if rows.any()}
recall = {name: yes[:, rows].mean(1) for name, rows in kinds.items()}
display(pd.DataFrame({"labels": {name: rows.sum() for name, rows in kinds.items()},
                      "recall, %": {name: spread(values) for name, values in recall.items()}}))
lowest_recall = min(recall, key=lambda name: recall[name].mean())
say(f"The lowest recall is that of the group *{lowest_recall}*.")

# %% [markdown]
r"""
Now the opposite error. These are the network's most confident **false positives**: a high probability for a class
that is not among the labels. Look at the pictures before you read on. Is the network always wrong?
"""

# %%
wrong = (p * (test.targets == 0)).flatten().argsort(descending=True)[:200]  # numbers of (image, class) pairs
rows, columns = wrong // p.shape[1], wrong % p.shape[1]
show(plots.picture_grid([pictures.image(int(n)) for n in rows[:12]],
                        [f"{test.classes[k]}? {p[n, k]:.2f}" for n, k in zip(rows[:12], columns[:12])]),
     "Twelve test images, each with the class that the network wrongly sees in it and its probability")

# %%
if test.posterior is None:
    say("Nobody knows what the annotators of these images overlooked: a false positive may be an object without a label.")
else:
    drawn = (test.posterior[rows, columns] > 0).double().mean()
    by_chance = (test.posterior[test.targets == 0] > 0).double().mean()
    say(f"In this data set the truth is known. Of the {len(wrong)} most confident false positives, **{percent(drawn)} are "
        f"objects that were drawn but that the annotator did not mark**; among all absent labels they are "
        f"{percent(by_chance)}. The label says 0, the picture says 1: for these the network is "
        + ("punished for being right." if drawn > by_chance else "no better than chance."))

# %% [markdown]
r"""
The others need another explanation. Two come to mind: **look-alikes** (an orange for a ball) and **context** (a cup
in a kitchen where no cup is). The map takes only images where the row's class is truly absent, and shows the mean
probability it gets when the column's class is there.
"""

# %%
there = test.targets.bool() if test.posterior is None else test.posterior > 0
given = [[p[there[:, d] & ~there[:, c], c].mean().item() for d in range(p.shape[1])] for c in range(p.shape[1])]
false_alarm = pd.DataFrame(given, test.classes, test.classes)  # NaN on the diagonal: present and absent at once
show(plots.heat_map(false_alarm, test.classes, "mean probability of the absent class",
                    "row: absent class; column: what is there"),
     "How much probability each absent class gets, by the class that is present")

# %%
held = train.targets.double()
together = held.T @ held / held.sum(0).clamp(min=1)  # P(row's class | column's class) in training
context = pd.DataFrame(together.numpy(), test.classes, test.classes)
pairs = pd.DataFrame({"alarm": false_alarm.stack(), "context": context.stack()}).dropna()
agreement = pairs["alarm"].corr(pairs["context"], method="spearman")
surprise = pairs["alarm"].rank() - pairs["context"].rank()  # alarms more often than company explains

# %%
def listed(chosen):
    return "; ".join(f"*{c}* where there is *{d}* ({percent(pairs['alarm'][c, d])})" for c, d in chosen.index)


say(f"The strongest false alarms: {listed(pairs['alarm'].nlargest(3))}. Over all pairs, the rank correlation with how often "
    f"the two classes share a training image is {agreement:.2f}: company explains "
    f"{'a good part' if agreement > 0.3 else 'little'} of it. The pairs that stand out most against their company: "
    f"{listed(surprise.nlargest(3))}. Are these look-alikes, in shape or in colour?")

# %% [markdown]
r"""
## 9. What are tricks worth? The paper's Table 1

Before the paper adds anything of its own, it asks what two training tricks are worth: **CutOut** (random erasing: a
random rectangle of each second picture is overwritten, so that no single detail decides) and **cosine decay** of the
learning rate. In print, ResNet-101 on VOC2007, mAP in per cent:
"""

# %%
pd.DataFrame({"mAP": ["93.30 ± 0.06", "93.56 ± 0.11", "93.65 ± 0.06", "93.75 ± 0.08"],
              "best": [93.41, 93.74, 93.76, 93.86], "worst": [93.22, 93.38, 93.56, 93.60]},
             index=pd.Index([1, 2, 3, 4], name="row of Table 1"))

# %% [markdown]
r"""
The check marks that say which row has which trick are scrambled in the text we have, so we do not guess. There are
four combinations, and we train all of them on `scenes`, with five seeds each. Without cosine decay, the learning rate
drops once, to a tenth for the last third of the steps; with it, a short warm-up comes first.
"""

# %%
trick_runs = {name: [load_or_run(chosen) for chosen in recipes] for name, recipes in tricks().items()}
trick_maps = {name: [r.metrics["test"]["mAP"] for r in rs] for name, rs in trick_runs.items()}
found = {name: summary(values) for name, values in trick_maps.items()}
pd.DataFrame({"mAP, %": {name: spread(values) for name, values in trick_maps.items()},
              "best": {name: round(100 * s.best, 2) for name, s in found.items()},
              "worst": {name: round(100 * s.worst, 2) for name, s in found.items()}})

# %%
show(plots.seed_intervals({name: 100 * np.array(values) for name, values in trick_maps.items()}, "mAP in per cent",
                          "four recipes, five seeds each (ticks), mean and 95 % interval"),
     "mAP of the four combinations of CutOut and cosine decay on scenes")

# %% [markdown]
r"""
Two intervals that overlap do not settle a comparison. Runs with the same seed share their initial weights and the
order of the images, so the right question is about the **paired differences**, seed by seed. If the 95 % interval of
their mean holds 0, we say *not detected*: that is not "there is none", only that five seeds cannot tell. And we draw
four intervals: even if no trick did anything, now and then one of four would miss 0.
"""

# %%
contrasts = {"CutOut alone": ("CutOut", "neither"), "cosine decay alone": ("cosine decay", "neither"),
             "both tricks": ("both", "neither"), "CutOut on top of cosine decay": ("both", "cosine decay")}
gains = {name: np.subtract(trick_maps[a], trick_maps[b]) for name, (a, b) in contrasts.items()}
intervals = {name: paired_difference(trick_maps[a], trick_maps[b]) for name, (a, b) in contrasts.items()}
show(plots.seed_intervals({name: 100 * gain for name, gain in gains.items()}, "gain in mAP, in points",
                          "paired by seed", zero=True),
     "Paired differences of mAP with 95 % intervals; the vertical line marks no difference")

# %%
for name, (a, b) in contrasts.items():
    say(f"- *{name}* ({a} against {b}): {in_units(intervals[name])}: **{intervals[name].verdict}**")

# %% [markdown]
r"""
The means that the paper prints lie within half a point of each other. **Think:** its ResNet-101 starts from ImageNet
weights, our small network from random ones. Which has more to gain from a trick?

<details><summary>Answer</summary>
The random start. A pretrained network already has features that a trick against overfitting would help to find, so there is
less left to gain. Both tricks also act through many epochs, and fine-tuning is short. This is an expectation; we have not
measured it here.
</details>

An interval over seeds asks: would another random start tell the same story on *these* test images? The other source
of chance is the test set. The **bootstrap** draws test images with replacement, again and again, and looks at how
much the difference between two given networks moves.
"""

# %%
a, b = (trick_runs[name][0].probabilities() for name in ("both", "neither"))
marks = trick_runs["both"][0].labels()


def gain(rows):
    scores = [metrics.mean_average_precision(q[rows], marks.targets[rows], marks.difficult[rows]) for q in (a, b)]
    return scores[0] - scores[1]


over_images = bootstrap_interval(gain, len(a), samples=200)
assert np.isclose(over_images.estimate, gains["both tricks"][0])

# %%
widths = [100 * (d.high - d.low) for d in (over_images, intervals["both tricks"])]
doubt = "the choice of test images" if widths[0] > widths[1] else "the choice of seeds"
say(f"Both tricks against neither, seed 0 alone: {in_units(over_images)} over resampled test images (estimate and "
    f"interval). This interval is {widths[0]:.2f} points wide, that over seeds {widths[1]:.2f}: here {doubt} adds more doubt.")

# %% [markdown]
r"""
### The same four recipes, judged by their probabilities

mAP sees the order only. Two numbers look at the probabilities themselves: **NLL**, the mean log loss of a label (Eq.
3 divided by $C$), and **ECE**, the mean gap between a predicted probability and the share of cases in which it comes
true (Eq. 2; here pooled over all labels). *Overconfidence* is the gap among the confident yeses alone: mean
probability minus share that was right. Of all three, lower is better.
"""

# %%
calibration = {name: {key: [r.metrics["test"][key] for r in rs] for key in ("NLL", "ECE_pooled", "overconfidence")}
               for name, rs in trick_runs.items()}
pd.DataFrame({name: {"NLL, nats": f"{np.mean(found['NLL']):.4f} ± {np.std(found['NLL'], ddof=1):.4f}",
                     "ECE, %": spread(found["ECE_pooled"]), "overconfidence, points": spread(found["overconfidence"])}
              for name, found in calibration.items()}).T

# %%
ece = paired_difference(calibration["both"]["ECE_pooled"], calibration["cosine decay"]["ECE_pooled"])
ranking_gain, floor = intervals["CutOut on top of cosine decay"], trick_runs["both"][0].metrics["test"]["NLL_floor"]
say(f"With CutOut on top of cosine decay, ECE changes by {in_units(ece)} (**{ece.verdict}**) and mAP by "
    f"{in_units(ranking_gain)} (**{ranking_gain.verdict}**). Because the annotator of `scenes` is simulated, we also know "
    f"the NLL that no predictor can undercut on average: {floor:.4f} nats.")

# %% [markdown]
r"""
A trick that was made for accuracy may change calibration too, with no loss made for it. Keep this in mind in lesson
03: a new loss has to be compared with a baseline that is trained with care.

## 10. The same on pictures nobody here drew

`scenes` comes from our own program, so a finding there may be a finding about our program. `digits` is composed from
scanned handwriting. The one contrast that we repeat there is CutOut on top of cosine decay.
"""

# %%
digits_runs = {name: [load_or_run(chosen) for chosen in tricks("digits")[name]] for name in ("cosine decay", "both")}
digits_maps = {name: [r.metrics["test"]["mAP"] for r in rs] for name, rs in digits_runs.items()}
elsewhere = paired_difference(digits_maps["both"], digits_maps["cosine decay"])
pd.DataFrame({"mAP, %": {name: spread(values) for name, values in digits_maps.items()}})

# %%
verdicts = {elsewhere.verdict, ranking_gain.verdict}
agree = "Both data sets give the same answer." if len(verdicts) == 1 else \
    "The data sets contradict each other." if "not detected" not in verdicts else \
    "Found on one data set only, it is no law: what a trick is worth depends on the pictures."
say(f"On `digits`, CutOut changes mAP by {in_units(elsewhere)} (**{elsewhere.verdict}**); on `scenes` it was "
    f"{in_units(ranking_gain)} (**{ranking_gain.verdict}**). {agree}")

# %% [markdown]
r"""
## 11. Explore: the threshold

Why 0.5? No law says so. First all thresholds at a glance, then one at a time.
"""

# %%
fine = np.arange(1, 100) / 100
decisions = {seed: pd.DataFrame([metrics.precision_recall_f1(r.probabilities(), test.targets, t, ignore=test.difficult)
                                 for t in fine], index=fine) for seed, r in zip(SEEDS, runs)}
mean_of = sum(decisions.values()) / len(decisions)
assert (np.diff(mean_of["CR"]) <= 0).all() and (np.diff(mean_of["OR"]) <= 0).all()  # fewer yeses never find more
show(plots.lines(fine, {name: mean_of[name] for name in ("CP", "CR", "CF1", "OF1")}, "threshold", "score",
                 "mean over five seeds", markers=False),
     "CP rises and CR falls as the threshold grows; CF1 and OF1 have their highest point in between")

# %%
peak = mean_of["CF1"].idxmax()
say(f"On the test images CF1 is highest at a threshold of {peak:.2f} ({percent(mean_of['CF1'].max())}; at 0.50 it is "
    f"{percent(mean_of.loc[0.5, 'CF1'])}). Recall can only fall as the threshold rises; precision mostly rises, but need not.")

# %% [markdown]
r"""
Move the sliders. Watch how one threshold is one point on each curve: per class (CP over CR) and overall (OP over OR).
Does the best threshold for one seed suit the others?
"""

# %%
from udlib.course.explorers import Explorer, Frame


def frame(threshold, seed):
    table = decisions[seed]
    now = table.loc[threshold]
    figure = plots.precision_recall({"per class": (table["CR"], table["CP"]), "overall": (table["OR"], table["OP"])},
                                    f"threshold {threshold:.2f}, seed {seed}",
                                    {"per class": (now["CR"], now["CP"]), "overall": (now["OR"], now["OP"])})
    readings = {name: f"{100 * now[name]:.1f} %" for name in NAMES}
    return Frame(figure, ", ".join(f"{name} {value}" for name, value in readings.items()), readings)

# %%
explorer = Explorer({"threshold": [float(t) for t in fine[4::5]], "seed": list(SEEDS)}, frame, start={"threshold": 0.5},
                    note="Computed at the thresholds 0.05, 0.10, …, 0.95 on the test images.")
assert explorer.value == (0.5, 0)
explorer

# %% [markdown]
r"""
### Exercise 02.4 (optional)

The best threshold above was found on the *test* images, and its CF1 was read off the same images: that flatters. (Exercise 03.3 does it
properly.) Where probabilities can be trusted, a threshold need not be searched at all. A label that is present and gets a no
costs `miss`; one that is absent and gets a yes costs 1. Return for each label of `probabilities` (N, C) the decision with the lower
expected cost, `True` for a yes.
"""

# %% exercise="02.4"
def my_decisions(probabilities, miss):
    return ...

# %% solution="02.4"
def my_decisions(probabilities, miss):
    return probabilities * miss >= 1 - probabilities  # a no costs p · miss, a yes costs 1 − p

# %% mistake="02.4" says="the costs change nothing"
def my_decisions(probabilities, miss):
    return probabilities >= 0.5

# %% mistake="02.4" says="upside down"
def my_decisions(probabilities, miss):
    return probabilities >= miss / (1 + miss)

# %% mistake="02.4" says="the threshold is 1/miss"
def my_decisions(probabilities, miss):
    return probabilities * miss >= 1

# %% mistake="02.4" says="the threshold is the cost itself"
def my_decisions(probabilities, miss):
    return probabilities >= miss

# %% mistake="02.4" says="yes and no are exchanged"
def my_decisions(probabilities, miss):
    return probabilities * miss < 1 - probabilities

# %% mistake="02.4" says="no decisions"
def my_decisions(probabilities, miss):
    return probabilities * miss - (1 - probabilities)

# %%
check("02.4", my_decisions)

# %% [markdown]
r"""
When yours is right, try `my_decisions(p, 4)`. How many labels more are a yes than at 0.5?

### Exercise ★★★ (open): find the flaw

"Networks A and B have the same mAP. At the threshold 0.5, B has a CF1 that is four points higher, on five seeds, detected. So
B tells the classes apart better." (The numbers are invented.) What is wrong with the conclusion? Design the comparison that
would decide it.

One point each:

1. You say what mAP measures that does not depend on a threshold.
2. You name a difference between A and B that changes CF1 at 0.5 and no ranking.
3. You give each network a threshold of its own, and choose it where it may be chosen.
4. You say what you would conclude if the gap closes, and if it stays.

<details><summary>A worked answer</summary>

mAP judges the order of the images within each class, CF1 judges decisions. Raise all logits of B by the same number: its mAP
stays, and its CF1 changes. So B may rank no better. Choose a threshold for each network and each seed by CF1 on
**validation**, and compare CF1 on the test images, paired by seed. If the gap closes, A needed another threshold, not another
training. If it stays although the mAPs agree, the two differ in ways that mAP averages away: look at the classes one by one,
with the precision and the recall of each. NLL tells whether B's level is also the more honest one.

</details>

## Summary

- Binary cross-entropy asks $C$ separate questions. Its gradient is $f - y$: the error, and it never stops pulling.
- Compute it from logits. Say whether you sum or average over the classes, since other loss terms stand beside it.
- AP judges one class's order, CP to OF1 judge decisions at a threshold, NLL and ECE judge the probabilities. None of
  them stands for the others.
- CF1 combines the means of precision and recall; it is not the mean of F1.
- A score without its rules (AP variant, difficulty policy, threshold) is half a number.
- A "false positive" may be a label that the annotator missed, and a gap between two subsets may be a gap in their
  shares of positives.
- Compare recipes seed by seed, with an interval. "Not detected" is a result.

What we found on `scenes`:

- The baseline reaches a mAP of 75 %, and of 71 % on the *Difficult* subset.
- At $p \ge 0.5$ it finds seven in ten of the labels without a flag, and one in four of the difficult ones.
- CutOut adds two points of mAP. On `digits` no gain is detected.

The numbers behind these sentences:
"""

# %%
say(f"- mAP of the baseline: {spread(maps)} %; on the *Difficult* subset {spread(on_hard[:, both].mean(1))} %.")
say("- Recall at 0.5, per cent: " + "; ".join(f"*{name}* {spread(values)}" for name, values in recall.items()) + ".")
say(f"- Counting difficult labels as positives moves mAP by {in_units(policy_shift)}.")
say(f"- CutOut on top of cosine decay, on mAP: `scenes` {in_units(ranking_gain)}, `digits` {in_units(elsewhere)}.")
if DATA == "scenes" and profile() != "smoke":
    assert round(100 * np.mean(maps)) == 75 and round(100 * on_hard[:, both].mean()) == 71
    assert round(10 * np.mean(recall["no flag"])) == 7 and round(4 * np.mean(recall["difficult"])) == 1
    assert (ranking_gain.verdict, elsewhere.verdict) == ("higher", "not detected")

# %% [markdown]
r"""
To see which of the findings are about our pictures, set `DATA = "digits"` at the top and run the lesson again.

## Further reading

- L. Song et al., *Handling Difficult Labels for Multi-label Image Classification via Uncertainty Distillation*, ACM
  MM 2021: Eq. 3, Table 1 and the *Difficult* columns of Table 2.
- M. Everingham et al., *The Pascal Visual Object Classes (VOC) Challenge*, IJCV 2010: the protocol, its AP and its
  difficult objects.
- T.-Y. Lin et al., *Microsoft COCO: Common Objects in Context*, ECCV 2014.
- A. K. Menon et al., *Multilabel reductions: what is my loss optimising?*, NeurIPS 2019: what one-versus-all is
  consistent with.
- T. DeVries and G. W. Taylor, *Improved Regularization of Convolutional Neural Networks with Cutout*, arXiv 2017; Z.
  Zhong et al., *Random Erasing Data Augmentation*, arXiv 2017.
- I. Loshchilov and F. Hutter, *SGDR: Stochastic Gradient Descent with Warm Restarts*, 2016: cosine decay.
- The documentation of scikit-learn (*Precision, recall and F-measures*; `average_precision_score`) and of
  torchmetrics (*Multilabel average precision*).
"""
