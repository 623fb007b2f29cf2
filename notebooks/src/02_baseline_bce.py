# %% [markdown]
r"""
# 02 · The baseline: binary cross-entropy

[← 01 · Multi-label data](01_multilabel_data.ipynb) · [03 · A second branch →](03_pal_n_calibration.ipynb)

**Aim.** You will know the loss that every later lesson is compared with, and every number that judges a
multi-label classifier. You will compute each of them by hand once, and see how much a score changes when only the
rules of counting change.

**Prerequisites.** Lesson 01: labels, difficult labels, the simulated annotator. A little PyTorch.

**Time.** About 90 minutes with the exercises. The cells run in a minute or two: networks that take minutes to train
are loaded, not trained.
"""

# %% tags=["setup", "report"]
import numpy as np
import pandas as pd
import sklearn.metrics
import torch
from IPython.display import display
from torch.nn import functional as F

# %% tags=["setup", "report"]
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
Choose the data set here. At the end, come back, change it, and run everything again.
"""

# %% tags=["setup", "learn"]
DATA = "scenes"  # or "digits", or the path of a folder in VOC layout

# %% [markdown]
r"""
The cells measure every number below when you run the lesson, and code writes the sentences that hold these numbers: `say` shows a
sentence, `spread` is mean ± standard deviation over seeds, and `in_units` is a difference with its 95 %
[interval](../docs/glossary.md#interval). Scores are in per cent, and a "point" is one per cent.
"""

# %% [markdown]
r"""
## 1. First, a picture

We first look at a trained network, and say later how it was trained. `load_or_run` finds its stored result: the
[logits](../docs/glossary.md#logit) of every test image. A [sigmoid](../docs/glossary.md#sigmoid-softmax) turns each logit into a
probability.
"""

# %% tags=["learn"]
run = load_or_run(baseline(DATA))
test = run.labels("test")  # classes, targets, difficult, posterior
pictures = dataset(run.recipe.data, "test", run.recipe.size, run.recipe.limit)
p = run.probabilities("test")
assert p.shape == test.targets.shape == (len(pictures), len(test.classes))

# %% tags=["report"]
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

Write two guesses before you go on; a later cell scores them. [mAP](../docs/glossary.md#map-mean-average-precision) is the usual
score. It is 100 % if, for every class, all positives are ranked above all negatives. A network that ranks at random gets about the
share of positives.
"""

# %% tags=["learn"]
guess_map = ...  # the baseline's mAP on the test images, in per cent; for example 50
guess_policy = ...  # by how many points it changes if difficult labels count as positives

# %% [markdown]
r"""
## 2. One question per class

![One image goes through backbone, pooling and head to a logit for each class; a sigmoid makes it a probability, and the target of the class makes a loss, which is added up over the classes.](images/from_image_to_loss.svg)

A picture can hold a car *and* a tree, so the classes do not compete. The simple solution is **one versus all** (OVA): $C$
independent yes-or-no classifiers that share one [backbone](../docs/glossary.md#backbone). Class $i$ has a logit $z_i$, and

$$f_i = \sigma(z_i) = \frac{1}{1 + e^{-z_i}}$$

is the predicted probability that label $i$ is present. Two images and three classes are enough to show everything:
"""

# %% tags=["learn"]
z = torch.tensor([[2.0, -1.0, 0.5], [-0.5, 1.5, -2.0]], dtype=torch.float64)  # logits (N, C)
y = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]], dtype=torch.float64)  # targets (N, C)
f = torch.sigmoid(z)
names = {"index": ["image 1", "image 2"], "columns": ["class 1", "class 2", "class 3"]}
pd.DataFrame(f.numpy(), **names).round(3)

# %% [markdown]
r"""
The loss is the [binary cross-entropy](../docs/glossary.md#binary-cross-entropy-bce) of each question, summed over the questions
(Eq. 3 of the uncertainty distillation paper, UD; the minus sign belongs to the whole sum):

$$\ell_{\mathrm{OVA}} = - \sum_{i=1}^{C} \big[\, y_i \log f_i + (1 - y_i) \log (1 - f_i) \,\big]$$

The more probability a question gives to the wrong answer, the larger its loss. Here is the equation as a line of code:
"""

# %% tags=["learn"]
per_image = -(y * f.log() + (1 - y) * (1 - f).log()).sum(1)  # Eq. 3: one number for each image
by_probabilities = per_image.mean()
print("loss of each image:", per_image.numpy().round(3))
print("mean:", round(by_probabilities.item(), 4))

# %% [markdown]
r"""
That line is right on paper and fails on a computer. In single precision $\sigma(100)$ *is* 1, so $\log(1 - f)$ is
$\log 0$. This is what the formula gives for two very confident answers, each once right and once wrong:
"""

# %% tags=["learn"]
sure = torch.tensor([100.0, 100.0, -100.0, -100.0])
truth = torch.tensor([1.0, 0.0, 0.0, 1.0])
s = torch.sigmoid(sure)
naive = -(truth * s.log() + (1 - truth) * (1 - s).log())
stable = truth * F.softplus(-sure) + (1 - truth) * F.softplus(sure)
assert not torch.isfinite(naive[:2]).any()
assert torch.allclose(stable, torch.tensor([0.0, 100.0, 0.0, 100.0]))
columns = {"logit": sure, "label": truth, "from probabilities": naive, "from logits": stable}
pd.DataFrame(columns).round(3)

# %% [markdown]
r"""
One `nan` in one label of one image destroys the whole network at the next step. The solution is to work with the logits and
never compute $f$:

$$-\log \sigma(z) = \log(1 + e^{-z}) = \mathrm{softplus}(-z), \qquad -\log (1 - \sigma(z)) = \mathrm{softplus}(z).$$

`softplus` is computed so that it neither overflows nor rounds to zero where it matters.

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

# %% tags=["learn"]
check("02.1", my_ova_loss)

# %% [markdown]
r"""
We compute the same number in four ways: from probabilities, from logits in the shortest form ($\mathrm{softplus}(z) - y z$; check
it with $y = 0$ and $y = 1$), with our library, and with PyTorch's own loss.
"""

# %% tags=["learn"]
by_logits = (F.softplus(z) - y * z).sum(1).mean()
by_library = ova_loss(z, y)
by_torch = F.binary_cross_entropy_with_logits(z, y, reduction="sum") / len(z)
for other in (by_logits, by_library, by_torch):
    assert torch.isclose(other, by_probabilities, rtol=1e-9)
print("all four:", round(by_torch.item(), 6))

# %% [markdown]
r"""
PyTorch's default, `reduction="mean"`, also divides by the number of classes. So does the paper's released code; Eq. 3 does not. The
difference is only a factor $C$, but it decides how much *another* loss term weighs beside this one: a weight of 0.1 next to the sum
is as weak as $0.1 / C$ next to the mean. Lesson 03 uses this.
"""

# %% tags=["learn"]
averaged = ova_loss(z, y, scale="released")
assert torch.isclose(averaged, F.binary_cross_entropy_with_logits(z, y))
assert torch.isclose(averaged * z.shape[1], by_library)
print(f"sum over classes {by_library.item():.4f} = "
      f"{z.shape[1]} × mean over classes {averaged.item():.4f}")

# %% [markdown]
r"""
## 3. The gradient

The derivative of Eq. 3 with respect to one logit is simply the error:

$$\frac{\partial \ell_{\mathrm{OVA}}}{\partial z_i} = f_i - y_i .$$

Autograd confirms it. The loss is a mean over images, hence the factor $N$.
"""

# %% tags=["learn"]
leaf = z.clone().requires_grad_()
ova_loss(leaf, y).backward()
assert torch.allclose(len(z) * leaf.grad, f - y)
pd.DataFrame((len(z) * leaf.grad).numpy(), **names).round(3)

# %% tags=["report"]
axis = torch.linspace(-6, 6, 121)
answer = torch.sigmoid(axis)
show(plots.lines(axis, {"loss, label present": F.softplus(-axis), "loss, label absent": F.softplus(axis),
                        "gradient, label present": answer - 1, "gradient, label absent": answer},
                 "logit", "nats, and nats per unit of logit", "one label's loss and its gradient", markers=False),
     "Loss falls towards zero as the logit moves to the right side; its gradient runs between -1 and 0, or 0 and 1")

# %% [markdown]
r"""
Look at both ends of the curves. A confident mistake has a gradient of size 1, and no mistake has a larger one. A correct answer
also has a gradient. It gets smaller and smaller, but it is **never zero**: as long as training goes on, a label marked 1 is pushed
towards $f = 1$. That is true of the car in the middle of the picture, and also of the grey smudge that an annotator happened to
mark. The paper calls this over-training on [difficult labels](../docs/glossary.md#difficult).

On the other hand, the loss has a good property. If images that look alike are labelled 1 in seven cases of ten, the best single
answer is exactly 0.7:
"""

# %% tags=["learn"]
answers = torch.linspace(0.01, 0.99, 99)
expected_loss = -(0.7 * answers.log() + 0.3 * (1 - answers).log())
best_answer = answers[expected_loss.argmin()].item()
assert abs(best_answer - 0.7) < 1e-3
print("the expected loss is smallest at f =", round(best_answer, 2))

# %% [markdown]
r"""
So with endless data, binary cross-entropy asks for the true probabilities. But a training set shows each picture with *one* label,
and a flexible network can memorise that label. Lessons 03 and 04 measure how far its probabilities are then from the truth.

## 4. Training

Here are ten training steps on 64 images, with every part visible: forward, loss, backward, step. The loss is in
[nats](../docs/glossary.md#nat).
"""

# %% tags=["learn"]
from udlib.backbones import backbone
from udlib.datasets.transforms import normalise
from udlib.heads import DualBranchNet

train = arrays(run.recipe, "train")  # uint8 images (N, 3, H, W) in memory, and their targets
images, targets = normalise(train.images[:64]), train.targets[:64].float()
torch.manual_seed(0)
network = DualBranchNet(backbone("small"), len(test.classes), calibration=False)
optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)

# %% tags=["learn"]
losses = []
for step in range(10):
    loss = ova_loss(network(images).logits, targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert losses[-1] < losses[0]

# %% tags=["report"]
show(plots.lines(range(1, 11), {"loss": losses}, "step", "loss, nats per image", "ten steps on 64 images"),
     "The training loss of the same 64 images over ten steps of Adam")
say(f"A network that answers ½ to every question has a loss of $C \\log 2$ = {len(test.classes) * np.log(2):.2f} "
    f"nats per image. Ours went from {losses[0]:.2f} to {losses[-1]:.2f}.")

# %% [markdown]
r"""
The real training is the same loop with more images. Each image is changed a little at random each time (`scenes` are mirrored,
`digits` are shifted). The learning rate warms up and then falls along a cosine.

One training tells us little, because another random start gives another network. So the course trains each recipe with
**five [seeds](../docs/glossary.md#seed)** and reports the mean and the spread.
"""

# %% tags=["report"]
runs = [load_or_run(baseline(DATA, seed)) for seed in SEEDS]
times = [r.provenance["seconds"] for r in runs]
say(f"Each of the {len(runs)} networks saw {len(train.targets):,} images in each of {run.recipe.training.epochs} epochs. "
    f"One training lasted {np.mean(times):.0f} seconds ({run.provenance['hardware']}, {run.provenance['precision']}).")

# %% [markdown]
r"""
Did the networks learn, and did they learn too much? The history of a run holds the loss on the training images and, every few
epochs, the loss on the validation images. The validation loss is stored as a mean over classes. We multiply it by $C$, so that both
are Eq. 3.
"""

# %% tags=["report"]
histories = [[row for row in r.history if "mAP" in row] for r in runs]  # epochs with a validation
epochs = [row["epoch"] for row in histories[0]]
curves = {"training": np.array([[row["total"] for row in rows] for rows in histories]),
          "validation": np.array([[row["NLL"] * len(test.classes) for row in rows] for rows in histories])}
means = {name: values.mean(0) for name, values in curves.items()}
stds = {name: values.std(0, ddof=1) for name, values in curves.items()}
bands = {name: (means[name] - stds[name], means[name] + stds[name]) for name in curves}
show(plots.lines(epochs, means, "epoch", "loss, nats per image", "mean ± std over five seeds", bands=bands),
     "Training and validation loss over the epochs, with a band of one standard deviation over seeds")

# %% tags=["report"]
lowest = int(means["validation"].argmin())
at_end = {name: f"{values[-1]:.2f}" for name, values in means.items()}
turn = "is still at its lowest at the end" if lowest == len(epochs) - 1 else \
    f"was lowest after epoch {epochs[lowest]} ({means['validation'][lowest]:.2f}) and has risen since"
say(f"At the end, the loss is {at_end['training']} nats for a training image and {at_end['validation']} nats for a validation "
    f"image. The validation loss {turn}.")

# %% [markdown]
r"""
Be careful when you compare the curves. The training loss is measured *while* the network changes and on randomly changed pictures,
so it is a little too high. A gap between the curves is normal: a network knows its training images better than others. A validation
loss that *rises* shows that the network has become overconfident.

## 5. Judging a ranking: average precision

Take one class and sort the images by its score. A good network puts the positives on top. Go down the list, and at each rank ask
two questions. What share of the images so far is right (**precision**)? And what share of all positives have we seen (**recall**)?
"""

# %% tags=["learn"]
letters = [f"image {letter}" for letter in "ABCDEFGH"]
ranking = pd.DataFrame({"score": [.45, .95, .10, .70, .90, .60, .20, .30],
                        "label": [0, 1, 0, 1, 0, 1, 1, 0]}, index=letters)
ranking = ranking.sort_values("score", ascending=False)
ranking["rank"] = range(1, 9)
ranking["hits so far"] = ranking["label"].cumsum()
ranking["precision"] = ranking["hits so far"] / ranking["rank"]
ranking["recall"] = ranking["hits so far"] / ranking["label"].sum()
ranking.round(3)

# %% [markdown]
r"""
[Average precision](../docs/glossary.md#average-precision-ap) (AP) is the mean of the precision *at the positives*. The rows with
label 1 have precision 1/1, 2/3, 3/4 and 4/7. The negatives matter only because they make these numbers smaller.
"""

# %% tags=["learn"]
ap_by_hand = ranking["precision"][ranking["label"] == 1].mean()
assert np.isclose(ap_by_hand, (1 / 1 + 2 / 3 + 3 / 4 + 4 / 7) / 4)
ap_by_library = metrics.average_precision(ranking[["score"]].values, ranking[["label"]].values)
assert np.isclose(ap_by_hand, ap_by_library.item())
print(f"AP = {ap_by_hand:.4f}")

# %% [markdown]
r"""
AP depends on the order alone: if we add 3 to every logit, it stays the same. So it does not tell us whether 0.9 *means* 0.9.

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

# %% tags=["learn"]
check("02.2", my_average_precision)

# %% [markdown]
r"""
Now the whole test set. VOC's protocol leaves difficult labels out of the ranking, so they are neither right nor wrong. We take
the class with the middle AP and compute it three times: from the definition, with our library, and with scikit-learn.
"""

# %% tags=["learn"]
ap = metrics.average_precision(p, test.targets, ignore=test.difficult)  # one number for each class
order = [int(k) for k in ap.argsort() if not ap[k].isnan()]
worst, middle, best = order[0], order[len(order) // 2], order[-1]
easy = ~test.difficult[:, middle]
scores, truth = p[easy, middle].numpy(), test.targets[easy, middle].numpy()
by_hand = np.mean([truth[scores >= score].mean() for score in scores[truth == 1]])
assert np.isclose(by_hand, ap[middle].item())
assert np.isclose(by_hand, sklearn.metrics.average_precision_score(truth, scores))
print(f"{test.classes[middle]}: {truth.sum()} positives, {len(truth)} images, "
      f"AP {100 * by_hand:.2f} %")

# %% tags=["report"]
def curve(k):
    easy = ~test.difficult[:, k]
    precision, recall, _ = sklearn.metrics.precision_recall_curve(test.targets[easy, k], p[easy, k])
    return recall[::-1], precision[::-1]


show(plots.precision_recall({f"{test.classes[k]}, AP {100 * ap[k]:.1f} %": curve(k) for k in (best, middle, worst)},
                            "the best, the middle and the worst class"),
     f"Precision over recall for {test.classes[best]}, {test.classes[middle]} and {test.classes[worst]}")

# %% [markdown]
r"""
The mean of AP over the classes is **mAP**. A rare class counts as much as a frequent one.
"""

# %% tags=["report"]
maps = [r.metrics["test"]["mAP"] for r in runs]
assert np.isclose(maps[0], ap[~ap.isnan()].mean())
of_maps = summary(maps)
say(f"**The baseline's mAP is {spread(maps)} %** over {of_maps.n} seeds (best {percent(of_maps.best)}, worst "
    f"{percent(of_maps.worst)}). A random ranking would reach about {percent(test.targets.double().mean())}. With seed 0, the "
    f"best class is {test.classes[best]} ({percent(ap[best])}) and the worst {test.classes[worst]} ({percent(ap[worst])}).")

# %% tags=["learn"]
check_guess("mAP", guess_map, 100 * of_maps.mean, " %")

# %% [markdown]
r"""
Loss and mAP measure different things, and they need not be best after the same epoch.
"""

# %% tags=["report"]
validation_map = np.array([[row["mAP"] for row in rows] for rows in histories]).mean(0)
highest = int(validation_map.argmax())
say(f"On validation, the loss was lowest after epoch {epochs[lowest]}. The mAP was highest after epoch {epochs[highest]}, with "
    f"{100 * validation_map[highest]:.2f} %; at the end it was {100 * validation_map[-1]:.2f} %.")
assert DATA != "scenes" or profile() == "smoke" or lowest < highest

# %% [markdown]
r"""
So on `scenes` the order of the images still improved while the probabilities already got worse.

A class without a positive in the test set has nothing to rank. Our AP is NaN there, and mAP is the mean over
the classes that have positives. Check this in any library you use: some return 0, and that lowers the mean unnoticed.
"""

# %% tags=["learn"]
scores_of_two, labels_of_two = [[.9, .3], [.8, .6], [.2, .1]], [[1, 0], [0, 0], [1, 0]]
two_classes = metrics.average_precision(scores_of_two, labels_of_two)
assert two_classes[1].isnan()
assert metrics.mean_average_precision(scores_of_two, labels_of_two) == two_classes[0]
two_classes

# %% [markdown]
r"""
## 6. Judging decisions: CP, CR, CF1, OP, OR, OF1

If you *use* a classifier, you must say *yes* or *no*, and for that you need a threshold. Here are four images and three classes.
p ≥ 0.5 is a *yes*:
"""

# %% tags=["learn"]
small_p = torch.tensor([[.9, .2, .4], [.4, .6, .1], [.3, .7, .45], [.2, .8, .3]])
small_y = torch.tensor([[1, 0, 1], [1, 0, 0], [1, 0, 1], [0, 1, 0]])
yes = small_p >= 0.5
right = yes & small_y.bool()
counts = pd.DataFrame({"right": right.sum(0), "yes": yes.sum(0), "labelled": small_y.sum(0)},
                      index=["car", "tree", "bird"])
counts["precision"] = (counts["right"] / counts["yes"]).fillna(0)  # 0/0 counts as 0
counts["recall"] = counts["right"] / counts["labelled"]
counts.round(3)

# %% [markdown]
r"""
[CP, CR and CF1](../docs/glossary.md#cp-cr-cf1-and-op-or-of1) are computed **per class**: average the columns, then combine. OP, OR
and OF1 are **overall**: sum the counts, then divide once. F1 is the harmonic mean of the two numbers before it.
"""

# %% tags=["learn"]
CP, CR = counts["precision"].mean(), counts["recall"].mean()
OP = counts["right"].sum() / counts["yes"].sum()
OR = counts["right"].sum() / counts["labelled"].sum()
CF1, OF1 = 2 * CP * CR / (CP + CR), 2 * OP * OR / (OP + OR)
by_hand = {"CP": CP, "CR": CR, "CF1": CF1, "OP": OP, "OR": OR, "OF1": OF1}
by_library = metrics.precision_recall_f1(small_p, small_y)
assert all(np.isclose(by_hand[name], by_library[name]) for name in by_hand)
pd.DataFrame([by_hand]).round(3)

# %% [markdown]
r"""
There is a trap: **CF1 is not the mean of the classes' F1**, which scikit-learn calls macro F1. Here *car* has a high precision and
a low recall, and *tree* the opposite. Each alone has a poor F1. In CP and CR, the strength of one makes up for the weakness of the
other.
"""

# %% tags=["learn"]
macro_f1 = sklearn.metrics.f1_score(small_y, yes, average="macro", zero_division=0)
assert macro_f1 < CF1
print(f"CF1 {CF1:.3f}, mean of the classes' F1 {macro_f1:.3f}, OF1 {OF1:.3f}")

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

# %% tags=["learn"]
check("02.3", my_cf1)

# %% [markdown]
r"""
The paper also reports **top-3**: only the three most probable labels of each image may be a *yes*, and only if they reach the
threshold. That can only lower the recall, and it mostly raises the precision. Here is the baseline under both rules, in per cent,
mean ± std over seeds:
"""

# %% tags=["report"]
NAMES = ["CP", "CR", "CF1", "OP", "OR", "OF1"]
table = pd.DataFrame({rule: {name: spread([r.metrics["test"][name + suffix] for r in runs]) for name in NAMES}
                      for rule, suffix in (("all labels", ""), ("top-3", "_top3"))})
again = metrics.precision_recall_f1(p, test.targets, top_k=3, ignore=test.difficult)
assert np.isclose(again["CF1"], run.metrics["test"]["CF1_top3"])
table.T

# %% tags=["report"]
cut = ((p >= 0.5).sum(1) > 3).double().mean().item()
say(f"Top-3 changes only the images with more than three *yes* answers. These are {percent(cut)} of the test images (seed 0). On "
    "MS-COCO, with its 80 classes and crowded pictures, it matters more.")

# %% [markdown]
r"""
## 7. The rules of counting

There are several kinds of mAP. Benchmarks read the curve in different ways:

- **non-interpolated**: the precision at each positive, as above (this course, scikit-learn, COCO-style papers);
- **voc07-11point**: at recall 0, 0.1, …, 1 take the best precision at that recall or a higher one, and average the
  eleven;
- **voc10-area**: replace each precision by the best one at the same or a higher recall, then take the area.

They also treat difficult labels in different ways: such a label is left out (`ignore`, VOC's rule), a `positive`, or a `negative`.
Here are nine scores of the *same* five networks:
"""

# %% tags=["learn"]
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
One thing is certain: the best precision at the same or a higher recall is never below the precision itself. So the area variant is
never below ours.
"""

# %% tags=["report"]
for policy in POLICIES:
    assert (grid["voc10-area", policy] >= grid["non-interpolated", policy]).all()
shifts = {f"{variant}, {policy}": 100 * (values - grid["non-interpolated", "ignore"])
          for (variant, policy), values in grid.items() if "ignore" == policy or variant == "non-interpolated"}
del shifts["non-interpolated, ignore"]
show(plots.seed_intervals(shifts, "change of mAP, in points", "other rules, same networks", zero=True),
     "By how many points mAP moves under other AP variants and difficulty policies, with 95 % intervals over seeds")

# %% tags=["report"]
policy_shift = paired_difference(grid["non-interpolated", "positive"], grid["non-interpolated", "ignore"])
rule, largest = max(shifts.items(), key=lambda item: abs(item[1].mean()))
deviation = 100 * np.std(maps, ddof=1)
say(f"If difficult labels count as positives, the mAP changes by {in_units(policy_shift)}. The largest of these changes is that "
    f"of *{rule}*: {largest.mean():+.2f} points. The standard deviation over seeds is only {deviation:.2f} points.")
assert DATA != "scenes" or profile() == "smoke" or abs(largest.mean()) > 5 * deviation

# %% tags=["learn"]
check_guess("policy", guess_policy, 100 * abs(policy_shift.mean), " points")

# %% [markdown]
r"""
On `scenes` the rules change the mAP far more than the random start does. Do not compare two mAPs before you know how each was
counted.

The released code of the paper treats difficult labels as *positive* in training, *ignore* in AP and *negative* in F1. That is a
choice, not a mistake. But a paper must report it, because it changes F1 as well:
"""

# %% tags=["report"]
pd.DataFrame({policy: {name: spread([r.metrics["test"][name + suffix] for r in runs]) for name in ("CF1", "OF1")}
              for policy, suffix in (("ignore", ""), ("positive", "_positive"), ("negative", "_negative"))})

# %% [markdown]
r"""
## 8. The baseline's errors

The paper's *Difficult* subset holds the images with at least one difficult label. There the AP counts difficult labels as
positives. For the comparison we do the same on all test images.
"""

# %% tags=["report"]
hard = metrics.difficult_subset(test.difficult)
if not hard.any():  # a data set without difficult labels: everything below then speaks of all images
    hard[:] = True
on_all = torch.stack([metrics.average_precision(r.probabilities(), test.targets) for r in runs])
on_hard = torch.stack([metrics.average_precision(r.probabilities()[hard], test.targets[hard]) for r in runs])
both = ~(on_all.isnan() | on_hard.isnan()).any(0)  # classes with positives in both
change = paired_difference(on_hard[:, both].mean(1), on_all[:, both].mean(1))
assert np.isclose(on_hard[0].nanmean(), run.metrics["test"].get("mAP_difficult", on_hard[0].nanmean()))

# %% tags=["report"]
sorted_rows = on_all.mean(0).nan_to_num(0).argsort(descending=True).tolist()
by_class = {"all test images": 100 * on_all.mean(0)[sorted_rows], "Difficult subset": 100 * on_hard.mean(0)[sorted_rows]}
show(plots.dots([test.classes[k] for k in sorted_rows], by_class,
                "AP in per cent, mean over seeds", "every class, on all images and on the Difficult subset"),
     "AP of each class on all test images and on the Difficult subset")

# %% tags=["report"]
everywhere, in_subset = test.targets.double().mean(), test.targets[hard].double().mean()
say(f"The subset has {int(hard.sum()):,} of {len(hard):,} images. The mAP is {spread(on_hard[:, both].mean(1))} % there and "
    f"{spread(on_all[:, both].mean(1))} % on all images, a difference of {in_units(change)}. A random ranking would reach about "
    f"the share of positives: {percent(in_subset)} there and {percent(everywhere)} on all images.")
assert DATA != "scenes" or profile() == "smoke" or (change.verdict == "lower" and in_subset > everywhere)

# %% [markdown]
r"""
On `scenes` the mAP of the subset is lower, although a random ranking would be better there than on all images.

We can also ask about single labels: of all labels that are present, what share does the network find at 0.5 (their recall)? VOC
flags each object as truncated, occluded or difficult. Here a label carries a flag if *all* its objects do.
"""

# %% tags=["report"]
FLAGS = ["truncated", "occluded", "difficult"]
objects = pd.DataFrame([[n, test.classes.index(box.name), *(getattr(box, flag) for flag in FLAGS)]
                        for n in range(len(pictures)) for box in pictures.boxes(n)], columns=["image", "class", *FLAGS])
present = objects.groupby(["image", "class"])[FLAGS].all().reset_index()
assert len(present) == int(test.targets.sum())  # one row for every positive label
where = torch.tensor(present[["image", "class"]].values)
hits = np.stack([r.probabilities()[where[:, 0], where[:, 1]] >= 0.5 for r in runs])

# %% tags=["report"]
kinds = {"no flag": ~present[FLAGS].any(axis=1), **{flag: present[flag] for flag in FLAGS}}
kinds = {name: rows.values for name, rows in kinds.items() if rows.any()}
recall = {name: hits[:, rows].mean(1) for name, rows in kinds.items()}
display(pd.DataFrame({"labels": {name: rows.sum() for name, rows in kinds.items()},
                      "recall, %": {name: spread(values) for name, values in recall.items()}}))
if DATA == "scenes" and profile() != "smoke":
    assert min(recall, key=lambda name: recall[name].mean()) == "difficult"

# %% [markdown]
r"""
On `scenes` the network finds seven in ten of the labels without a flag, and one in four of the difficult ones.

Now the opposite error. These are the network's most confident **false positives**: a high probability for a class
that is not among the labels. Look at the pictures before you read on. Is the network always wrong?
"""

# %% tags=["report"]
wrong = (p * (test.targets == 0)).flatten().argsort(descending=True)[:200]  # numbers of (image, class) pairs
rows, columns = wrong // p.shape[1], wrong % p.shape[1]
show(plots.picture_grid([pictures.image(int(n)) for n in rows[:12]],
                        [f"{test.classes[k]}? {p[n, k]:.2f}" for n, k in zip(rows[:12], columns[:12])]),
     "Twelve test images, each with the class that the network wrongly sees in it and its probability")

# %% tags=["report"]
if test.posterior is None:
    say("Nobody knows what the annotators of these images overlooked. A false positive may be an object without a label.")
else:
    unmarked = (test.posterior[rows, columns] > 0).double().mean()
    by_chance = (test.posterior[test.targets == 0] > 0).double().mean()
    say(f"In this data set we know the truth. Of the {len(wrong)} most confident false positives, **{percent(unmarked)} are "
        f"objects that are in the picture but that the annotator did not mark**. Among all absent labels, the share is "
        f"{percent(by_chance)}.")
    assert DATA != "scenes" or profile() == "smoke" or unmarked > 0.5 > 10 * by_chance

# %% [markdown]
r"""
So on `scenes`, half of these "errors" are objects that are really there. The loss punishes the network although it is right.

For the others there are two possible explanations: **look-alikes** (an orange that looks like a ball) and **context** (a kitchen
without a cup in which the network sees one). Each row of the map is a class that is absent. Each column is a class that is present.
The colour is the mean probability that the network gives to the absent class.
"""

# %% tags=["report"]
there = test.targets.bool() if test.posterior is None else test.posterior > 0
alarms = [[p[there[:, d] & ~there[:, c], c].mean().item() for d in range(p.shape[1])] for c in range(p.shape[1])]
false_alarm = pd.DataFrame(alarms, test.classes, test.classes)  # NaN on the diagonal: present and absent at once
show(plots.heat_map(false_alarm, test.classes, "mean probability of the absent class",
                    "row: absent class; column: present class"),
     "How much probability each absent class gets, by the class that is present")

# %% tags=["report"]
labels = train.targets.double()
together = labels.T @ labels / labels.sum(0).clamp(min=1)  # P(row's class | column's class) in training
context = pd.DataFrame(together.numpy(), test.classes, test.classes)
pairs = pd.DataFrame({"alarm": false_alarm.stack(), "context": context.stack()}).dropna()
agreement = pairs["alarm"].corr(pairs["context"], method="spearman")
surprise = pairs["alarm"].rank() - pairs["context"].rank()  # more alarms than the context explains

# %% tags=["report"]
def listed(series):
    return "; ".join(f"*{c}* where there is *{d}* ({percent(pairs['alarm'][c, d])})" for c, d in series.index)


say(f"The strongest false alarms are {listed(pairs['alarm'].nlargest(3))}. The rank correlation between the false alarms and the "
    f"share of training images in which both classes appear is {agreement:.2f}, over all pairs. Compared with this context, the "
    f"most surprising pairs are {listed(surprise.nlargest(3))}.")
assert DATA != "scenes" or profile() == "smoke" or agreement > 0.8

# %% [markdown]
r"""
On `scenes` the context explains most of the false alarms: a class gets a false alarm mostly beside the classes with which it
appeared in training. Look at the surprising pairs: do these classes look alike, in shape or in colour?

## 9. What do training tricks add? The paper's Table 1

Before the paper adds its own method, it measures two training tricks.
[CutOut](../docs/glossary.md#cutout-random-erasing), or random erasing, covers a random rectangle of every second picture, so that
the network cannot rely on a single detail. **Cosine decay** lowers the learning rate along a cosine. In print, for ResNet-101 on
VOC2007, mAP in per cent:
"""

# %% tags=["report"]
pd.DataFrame({"mAP": ["93.30 ± 0.06", "93.56 ± 0.11", "93.65 ± 0.06", "93.75 ± 0.08"],
              "best": [93.41, 93.74, 93.76, 93.86], "worst": [93.22, 93.38, 93.56, 93.60]},
             index=pd.Index([1, 2, 3, 4], name="row of Table 1"))

# %% [markdown]
r"""
Check marks say which row has which trick, but they are garbled in the text we have, so we do not guess. There are four
combinations. We train all of them on `scenes`, with five seeds each. Without cosine decay, the learning rate drops once, to a tenth
for the last third of the steps. With cosine decay, there is a short warm-up first.
"""

# %% tags=["report"]
trick_runs = {name: [load_or_run(recipe) for recipe in recipes] for name, recipes in tricks().items()}
trick_maps = {name: [r.metrics["test"]["mAP"] for r in rs] for name, rs in trick_runs.items()}
summaries = {name: summary(values) for name, values in trick_maps.items()}
pd.DataFrame({"mAP, %": {name: spread(values) for name, values in trick_maps.items()},
              "best": {name: round(100 * s.best, 2) for name, s in summaries.items()},
              "worst": {name: round(100 * s.worst, 2) for name, s in summaries.items()}})

# %% tags=["report"]
show(plots.seed_intervals({name: 100 * np.array(values) for name, values in trick_maps.items()}, "mAP in per cent",
                          "four recipes, five seeds each (ticks), mean and 95 % interval"),
     "mAP of the four combinations of CutOut and cosine decay on scenes")

# %% [markdown]
r"""
If two intervals overlap, the comparison is still open. Runs with the same seed share their initial weights and the order of the
images, so we look at the [paired differences](../docs/glossary.md#paired-by-seed), seed by seed. If the 95 % interval of their mean
holds 0, we say *not detected*. This does not mean that there is no difference, only that five seeds do not show one. And we compute
four intervals: even if no trick had any effect, one of the four would sometimes exclude 0.
"""

# %% tags=["report"]
contrasts = {"CutOut alone": ("CutOut", "neither"), "cosine decay alone": ("cosine decay", "neither"),
             "both tricks": ("both", "neither"), "CutOut on top of cosine decay": ("both", "cosine decay")}
gains = {name: np.subtract(trick_maps[a], trick_maps[b]) for name, (a, b) in contrasts.items()}
intervals = {name: paired_difference(trick_maps[a], trick_maps[b]) for name, (a, b) in contrasts.items()}
show(plots.seed_intervals({name: 100 * gain for name, gain in gains.items()}, "gain in mAP, in points",
                          "paired by seed", zero=True),
     "Paired differences of mAP with 95 % intervals; the vertical line marks no difference")

# %% tags=["report"]
display(pd.DataFrame({f"{name}: {a} minus {b}": {"mAP": in_units(intervals[name]), "verdict": intervals[name].verdict}
                      for name, (a, b) in contrasts.items()}).T)
assert profile() == "smoke" or {gap.verdict for gap in intervals.values()} == {"higher"}

# %% [markdown]
r"""
On `scenes` each trick raises the mAP, by 2.5 and 2.0 points, and both together by 3.9. The means that the paper prints lie within
half a point of each other.

**Think:** the paper's ResNet-101 starts from ImageNet weights, our small network from random ones. Which of the two can gain more
from a trick?

<details><summary>Answer</summary>
The random start. A pretrained network already has features that a trick against overfitting would help to find, so there is
less left to gain. Both tricks also act through many epochs, and fine-tuning is short. This is an expectation; we have not
measured it here.
</details>

An interval over seeds asks: would another random start give the same answer on *these* test images? The choice of test images is
random as well. The **bootstrap** draws test images with replacement, again and again, and measures how much the difference between
two fixed networks changes.
"""

# %% tags=["learn"]
a, b = (trick_runs[name][0].probabilities() for name in ("both", "neither"))
marks = trick_runs["both"][0].labels()


def gain(rows):
    scores = [metrics.mean_average_precision(q[rows], marks.targets[rows], marks.difficult[rows])
              for q in (a, b)]
    return scores[0] - scores[1]


over_images = bootstrap_interval(gain, len(a), samples=200)
assert np.isclose(over_images.estimate, gains["both tricks"][0])

# %% tags=["report"]
widths = [100 * (d.high - d.low) for d in (over_images, intervals["both tricks"])]
say(f"Both tricks minus neither, seed 0 alone: {in_units(over_images)} over resampled test images. This interval is "
    f"{widths[0]:.2f} points wide. The interval over seeds is {widths[1]:.2f} points wide.")
assert profile() == "smoke" or widths[1] > 2 * widths[0]

# %% [markdown]
r"""
Here the choice of the seeds adds more uncertainty than the choice of the test images.

### The same four recipes, judged by their probabilities

mAP depends only on the order. Three numbers judge the probabilities themselves. **NLL** is the mean log loss of a label (Eq. 3
divided by $C$). **ECE** is the mean gap between a predicted probability and the share of cases in which the label is present (Eq.
2; here pooled over all labels). *Overconfidence* is the gap among the confident *yes* answers alone: their mean probability minus
the share that is right. For all three, lower is better.
"""

# %% tags=["report"]
calibration = {name: {key: [r.metrics["test"][key] for r in rs] for key in ("NLL", "ECE_pooled", "overconfidence")}
               for name, rs in trick_runs.items()}
pd.DataFrame({name: {"NLL, nats": f"{np.mean(values['NLL']):.4f} ± {np.std(values['NLL'], ddof=1):.4f}",
                     "ECE, %": spread(values["ECE_pooled"]), "overconfidence, points": spread(values["overconfidence"])}
              for name, values in calibration.items()}).T

# %% tags=["report"]
ece = paired_difference(calibration["both"]["ECE_pooled"], calibration["cosine decay"]["ECE_pooled"])
ranking_gain, floor = intervals["CutOut on top of cosine decay"], trick_runs["both"][0].metrics["test"]["NLL_floor"]
say(f"CutOut on top of cosine decay changes the ECE by {in_units(ece)} and the mAP by {in_units(ranking_gain)}. The annotator of "
    f"`scenes` is simulated, so we also know the lowest NLL that a predictor can have on average: {floor:.4f} nats.")
assert profile() == "smoke" or (ece.verdict, ranking_gain.verdict) == ("lower", "higher")

# %% [markdown]
r"""
CutOut was made for accuracy, and it lowers the calibration error as well, without a loss for it. Remember this in lesson 03: a
new loss has to be compared with a well-trained baseline.

## 10. The same on other pictures

Our own program draws `scenes`, so a finding there may be true of our program only. `digits` is composed from
scanned handwriting. There we repeat one comparison: CutOut on top of cosine decay.
"""

# %% tags=["report"]
digits_runs = {name: [load_or_run(recipe) for recipe in tricks("digits")[name]] for name in ("cosine decay", "both")}
digits_maps = {name: [r.metrics["test"]["mAP"] for r in rs] for name, rs in digits_runs.items()}
elsewhere = paired_difference(digits_maps["both"], digits_maps["cosine decay"])
pd.DataFrame({"mAP, %": {name: spread(values) for name, values in digits_maps.items()}})

# %% tags=["report"]
display(pd.DataFrame({data: {"mAP with CutOut minus without": in_units(gap), "verdict": gap.verdict}
                      for data, gap in {"scenes": ranking_gain, "digits": elsewhere}.items()}).T)
assert profile() == "smoke" or (ranking_gain.verdict, elsewhere.verdict) == ("higher", "not detected")

# %% [markdown]
r"""
CutOut raises the mAP on `scenes` by two points, and on `digits` no gain is detected. So the effect of a trick depends on the
pictures.

## 11. Explore: the threshold

The threshold of 0.5 is a convention. The figure shows all thresholds together; the sliders below show one at a time.
"""

# %% tags=["report"]
fine = np.arange(1, 100) / 100
decisions = {seed: pd.DataFrame([metrics.precision_recall_f1(r.probabilities(), test.targets, t, ignore=test.difficult)
                                 for t in fine], index=fine) for seed, r in zip(SEEDS, runs)}
mean_of = sum(decisions.values()) / len(decisions)
assert (np.diff(mean_of["CR"]) <= 0).all() and (np.diff(mean_of["OR"]) <= 0).all()  # a higher threshold never finds more
show(plots.lines(fine, {name: mean_of[name] for name in ("CP", "CR", "CF1", "OF1")}, "threshold", "score",
                 "mean over five seeds", markers=False),
     "CP rises and CR falls as the threshold grows; CF1 and OF1 have their highest point in between")

# %% tags=["report"]
peak = mean_of["CF1"].idxmax()
say(f"On the test images CF1 is highest at a threshold of {peak:.2f}: {percent(mean_of['CF1'].max())}. At 0.50 it is "
    f"{percent(mean_of.loc[0.5, 'CF1'])}. As the threshold rises, recall can only fall. Precision mostly rises, but not always.")

# %% [markdown]
r"""
Move the sliders. Each threshold is one point on each curve: per class (CP over CR) and overall (OP over OR).
Is the best threshold of one seed also good for the others?
"""

# %% tags=["report"]
from udlib.course.explorers import Explorer, Frame


def frame(threshold, seed):
    table = decisions[seed]
    now = table.loc[threshold]
    figure = plots.precision_recall({"per class": (table["CR"], table["CP"]), "overall": (table["OR"], table["OP"])},
                                    f"threshold {threshold:.2f}, seed {seed}",
                                    {"per class": (now["CR"], now["CP"]), "overall": (now["OR"], now["OP"])})
    readings = {name: f"{100 * now[name]:.1f} %" for name in NAMES}
    return Frame(figure, ", ".join(f"{name} {value}" for name, value in readings.items()), readings)

# %% tags=["report"]
explorer = Explorer({"threshold": [float(t) for t in fine[4::5]], "seed": list(SEEDS)}, frame, start={"threshold": 0.5},
                    note="Computed at the thresholds 0.05, 0.10, …, 0.95 on the test images.")
assert explorer.value == (0.5, 0)
explorer

# %% [markdown]
r"""
### Exercise 02.4 (optional)

We found the best threshold above on the *test* images, and read its CF1 off the same images, so it looks better than it is.
(Exercise 03.3 does it properly.) If the probabilities are calibrated, we need not search for a threshold at all. A *no* to a label
that is present costs `miss`. A *yes* to a label that is absent costs 1. Return for each label of `probabilities` (N, C) the decision
with the lower expected cost, `True` for a *yes*.
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

# %% tags=["learn"]
check("02.4", my_decisions)

# %% [markdown]
r"""
When your function is right, try `my_decisions(p, 4)`. How many more labels are a *yes* than at 0.5?

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
with the precision and the recall of each. The NLL shows which of the two has the better probabilities.

</details>

## Summary

- Binary cross-entropy asks $C$ separate questions. Its gradient is the error, $f - y$, and it is never exactly zero.
- Compute it from logits. Report whether you sum or average over the classes, because this decides the weight of other loss terms.
- AP judges the order of one class, CP to OF1 judge decisions at a threshold, NLL and ECE judge the probabilities. None of
  them replaces the others.
- CF1 combines the means of precision and recall; it is not the mean of F1.
- A score means little without its rules: the AP variant, the treatment of difficult labels, the threshold.
- A "false positive" may be a label that the annotator missed. And the mAPs of two subsets may differ because their shares of
  positives differ.
- Compare recipes seed by seed, with an interval. "Not detected" is a result.

What we found on `scenes`:

- The baseline reaches a mAP of 75 %, and of 71 % on the *Difficult* subset.
- At $p \ge 0.5$ it finds seven in ten of the labels without a flag, and one in four of the difficult ones.
- CutOut adds two points of mAP. On `digits` no gain is detected.

The numbers behind these sentences:
"""

# %% tags=["report"]
display(pd.DataFrame({"recall at 0.5, %": {name: spread(values) for name, values in recall.items()}}).T)
say(f"The mAP of the baseline is {spread(maps)} %, and {spread(on_hard[:, both].mean(1))} % on the *Difficult* subset. If difficult "
    f"labels count as positives, it changes by {in_units(policy_shift)}. CutOut on top of cosine decay changes the mAP on `scenes` by "
    f"{in_units(ranking_gain)}, and on `digits` by {in_units(elsewhere)}.")
if DATA == "scenes" and profile() != "smoke":
    assert round(100 * np.mean(maps)) == 75 and round(100 * on_hard[:, both].mean().item()) == 71
    assert round(10 * np.mean(recall["no flag"])) == 7 and round(4 * np.mean(recall["difficult"])) == 1
    assert (ranking_gain.verdict, elsewhere.verdict) == ("higher", "not detected")

# %% [markdown]
r"""
To see which findings depend on our pictures, set `DATA = "digits"` at the top and run the lesson again.

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

# %% [markdown]
r"""
## Quiz

What do you know after this lesson?
"""

# %% tags=["report"]
from udlib.course.quizzes import quiz

quiz("02")

# %% [markdown]
r"""
The next quiz joins lessons 00 to 02.
"""

# %% tags=["report"]
quiz("block 1")
