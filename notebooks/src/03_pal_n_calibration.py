# %% [markdown]
r"""
# 03 · A second branch: PAL-N and calibration

[← 02 · The baseline](02_baseline_bce.ipynb) · [04 · How calibrated? ECE and its traps →](04_ece_analysis.ipynb)

**Aim.** You will know the paper's first idea: a second head with another loss, PAL-N, which should keep the network from being
overconfident about [difficult](../docs/glossary.md#difficult) labels. You will derive the best answer to that loss, find a gap
between the theory and the formula, see what the trained branch computes, and measure with error bars what it changes.

**Prerequisites.** Lesson 02: binary cross-entropy, mAP, ECE, paired differences. The softmax.

**Time.** About two hours with the exercises. The cells run in a minute or two: the networks that take minutes to train are
loaded.
"""

# %% tags=["setup", "report"]
from itertools import product

import numpy as np
import pandas as pd
import torch
from IPython.display import display
from torch.nn import functional as F

# %% tags=["setup", "report"]
from udlib import losses
from udlib.figures import plots
from udlib.course.exercises import check, check_choice
from udlib.course.store import arrays, dataset, load_model, load_or_run, profile
from udlib.losses import ova_loss, pal_n_loss, partial_softmax
from udlib.figures.plots import show
from udlib.course.recipes import SEEDS, baseline, scales, sweep, tricks, two_branch
from udlib.statistics import paired_difference
from udlib.course.sentences import in_units, percent, say, spread

# %% [markdown]
r"""
Choose the data set here:
"""

# %% tags=["setup", "learn"]
DATA = "scenes"  # or "digits", or the path of a folder in VOC layout

# %% [markdown]
r"""
As before, code writes the sentences that hold numbers. A "point" is one per cent.
"""

# %% tags=["setup", "report"]
def listed(names):
    """Values of λ, or words, as a phrase."""
    names = [f"{name:g}" if isinstance(name, float) else str(name) for name in names]
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]

# %% [markdown]
r"""
## 1. First, a picture

A rule chooses the picture, so that we cannot pick a convenient one. Among all difficult labels of the test images, the rule
takes the one where the baseline's probability lies furthest above the known [posterior](../docs/glossary.md#posterior), the
chance that the annotator marks this object at all (lesson 01). Where no posterior is known, it takes the most confident wrong
answer.
"""

# %% tags=["learn"]
run = load_or_run(baseline(DATA))
test = run.labels("test")  # classes, targets, difficult, posterior
pictures = dataset(run.recipe.data, "test", run.recipe.size, run.recipe.limit)
p = run.probabilities("test")
posterior = None if test.posterior is None else test.posterior.double()
judged = test.difficult.any() and posterior is not None
excess = torch.where(test.difficult, p - posterior, -1.0) if judged else p * (test.targets == 0)
i, k = divmod(int(excess.argmax()), p.shape[1])

# %% tags=["report"]
against = f"posterior {posterior[i, k]:.2f}" if judged else "not labelled"
show(plots.prediction(pictures.image(i), test.classes, p[i], test.targets[i], test.difficult[i],
                      title=f"{test.classes[k]}: p = {p[i, k]:.2f}, {against}"),
     f"Test image {i} beside its ten largest probabilities; {test.classes[k]} gets {p[i, k]:.2f}, {against}")

# %% [markdown]
r"""
This is the worst case of many, so it proves nothing. Let us look at all confident answers of all five baselines. We collect
every *yes* ($p \geq 0.5$) and compare two numbers: the network's mean probability, and the share of these answers that are
right. The difference is the [overconfidence](../docs/glossary.md#overconfidence).
"""

# %% tags=["learn"]
baselines = [load_or_run(baseline(DATA, seed)) for seed in SEEDS]
yes = [r.probabilities() >= 0.5 for r in baselines]
confidence = np.array([r.probabilities()[sure].mean().item() for r, sure in zip(baselines, yes)])
right = np.array([test.targets[sure].double().mean().item() for sure in yes])

# %% tags=["report"]
stored = [r.metrics["test"]["overconfidence"] for r in baselines]
assert np.allclose(confidence - right, stored, equal_nan=True)
say(f"Over five seeds, the mean probability of a *yes* is {spread(confidence)} %, and {spread(right)} % of these answers are "
    f"right. The **overconfidence** is {spread(stored)} points."
    if np.isfinite(stored).all() else "Some of these networks never reach 0.5, so they have no confident answers to judge.")

# %% [markdown]
r"""
The paper explains it like this. Binary cross-entropy pulls every marked label towards 1, whether the object is in full view or
a grey smudge, until the network has memorised the smudge. The paper adds a
[calibration branch](../docs/glossary.md#calibration-branch): a second head, whose loss depends on *how many* labels an image
has. This loss is multiplied by a weight $\lambda$.

![Backbone and pooling are shared by two branches: the classification branch with BCE, and the calibration branch with PAL-N, whose loss is multiplied by λ before both are added.](images/two_branches.svg)

### Predict

We train the same network with different $\lambda$, five seeds each; $\lambda = 0$ is the baseline of lesson 02. Guess
before you read on. Which $\lambda$ gives the highest mAP, and which gives the lowest pooled ECE?
"""

# %% tags=["report"]
say(f"On this data set, λ is one of {listed(sweep(DATA))}. The paper chose 0.1 by a grid search.")

# %% tags=["learn"]
guess_map = ...  # the λ with the highest mAP on the test images
guess_ece = ...  # the λ with the lowest pooled ECE

# %% [markdown]
r"""
## 2. Pick a label, solve an easy problem

With one label per image we would know what to do: a softmax over the classes, and its cross-entropy. With several labels, the
**pick-all-labels** loss ([PAL](../docs/glossary.md#pal-pal-n)) makes many single-label problems out of one image: it takes each
positive in turn as if it were the only label. The normalised form, PAL-N, divides by the number of positives (Eq. 4):

$$\ell_{\mathrm{PAL\text{-}N}} = - \sum_{i=1}^{C} \frac{y_i}{\sum_j y_j} \log f_i$$

Here $f_i$ is a probability from a softmax. Section 4 says from which one. In code it is one line:
"""

# %% tags=["learn"]
y = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0])  # one image: three of five labels are present
f = torch.tensor([0.50, 0.10, 0.20, 0.15, 0.05])  # what a softmax says about it
pal_n = -(y / y.sum() * f.log()).sum()  # Eq. 4
print(f"PAL-N of this image: {pal_n:.4f} nats")

# %% [markdown]
r"""
The weights $y_i / \sum_j y_j$ are those of a random choice: **pick one positive at random**, each with the same chance. So
Eq. 4 must be the mean loss over many random picks. Let us pick 5,000 times.
"""

# %% tags=["learn"]
generator = torch.Generator().manual_seed(3)
picked = torch.multinomial(y, 5000, replacement=True, generator=generator)
single = -f.log()[picked]  # the single-label loss of each pick
times = torch.arange(1, len(picked) + 1)
running = single.cumsum(0) / times
reach = 1.96 * single.std() / times.sqrt()
assert abs(single.mean() - pal_n) < 4 * single.std() / len(single) ** 0.5

# %% tags=["report"]
seen = slice(20, None, 20)
show(plots.lines(times[seen], {"mean of the picks so far": running[seen], "Eq. 4": pal_n.expand(len(times))[seen]}, "picks",
                 "nats", "the mean loss of random picks reaches Eq. 4", markers=False,
                 bands={"Eq. 4": ((pal_n - reach)[seen], (pal_n + reach)[seen])}),
     "The running mean of randomly picked single-label losses settles at the value of Eq. 4, inside a narrowing 95 % band")

# %% [markdown]
r"""
Dividing by the number of labels has a consequence. In PAL-N, an image with one label weighs as much as an image with five. In
binary cross-entropy, every single label weighs the same.

**Think:** in which of the two losses does a single label of a crowded image count for more?

<details><summary>Answer</summary>
In binary cross-entropy. There each of five labels counts as much as the only label of another image. In PAL-N each of the
five counts a fifth of that.
</details>

## 3. The best answer to each loss (Proposition 1)

Imagine endless pictures that all look the same. Their labels differ because annotators differ. Which answer has the lowest mean
loss? For binary cross-entropy, lesson 02 found it: the share of pictures with label $i$, the **marginal** $P(y_i = 1)$ (Eq. 5).
The paper's Proposition 1, taken from Menon et al. (2019), says that PAL-N has another best answer (Eq. 6-7):

$$P(z' = i) = P(y_i = 1) \cdot \mathbb{E}\Big[\frac{1}{1 + \sum_{j \neq i} y_j} \,\Big|\, y_i = 1\Big].$$

This is the chance that we pick label $i$. A label that often appears together with others gets less than its marginal.

We test this in a small world in which we know everything: three classes, and the probability of each set of labels.
"""

# %% tags=["setup", "learn"]
NAMES = ["cup", "book", "lamp"]
LABELS = torch.tensor([y for y in product([0, 1], repeat=3) if any(y)])  # the seven non-empty sets
JOINT = torch.tensor([0.16, 0.10, 0.06, 0.22, 0.18, 0.08, 0.20], dtype=torch.float64)  # P(set)

# %% tags=["report"]
assert torch.isclose(JOINT.sum(), torch.tensor(1.0).double())
pd.DataFrame(LABELS.numpy(), columns=NAMES).assign(probability=JOINT)

# %% [markdown]
r"""
This is Eq. 7 for one class:
"""

# %% tags=["learn"]
marginals = JOINT @ LABELS.double()
cup = LABELS[:, 0] == 1  # the sets that hold a cup
others = LABELS[cup].sum(1) - 1  # Σ_{j≠i} y_j: the number of other labels
if_cup = JOINT[cup] / JOINT[cup].sum()  # the probability of each set, if there is a cup
z_cup = marginals[0] * (if_cup / (1 + others)).sum()  # Eq. 7
z_prime = losses.pick_all_labels_marginals(LABELS, JOINT)  # Eq. 7 for all classes
assert torch.isclose(z_cup, z_prime[0]) and torch.isclose(z_prime.sum(), torch.tensor(1.0).double())
pd.DataFrame({"P(y = 1)": marginals, "P(z' = i)": z_prime}, index=NAMES).T.round(4)

# %% [markdown]
r"""
The marginals add up to the mean number of labels. The $z'$ add up to one, because we pick exactly one label. (If some
pictures had no label at all, the $z'$ would add up to one minus their share.)

Now the experiment. We sample $N$ sets of labels, search the logits with the lowest mean loss, and compare the result with the
theory. The mean over $N$ pictures is a weighted mean over the seven sets, so the search is quick.
"""

# %% tags=["learn"]
def minimise(loss, weights, labels=LABELS):
    """The logits (C,) with the lowest mean loss, if label set m has the weight `weights[m]`."""
    z = torch.zeros(labels.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([z], max_iter=200, tolerance_grad=1e-12, tolerance_change=0,
                                  line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = weights @ loss(z.expand(len(labels), -1), labels, reduction="none")
        value.backward()
        return value

    optimizer.step(closure)
    return z.detach()

# %% [markdown]
r"""
For PAL-N we use a **full softmax** here, with all classes in the denominator. The literature calls this combination
the "1/k softmax"; our library calls it `one_over_k_softmax_loss`. We repeat each $N$ five times:
"""

# %% tags=["learn"]
SIZES, REPETITIONS = (100, 1_000, 10_000, 100_000), 5
one_over_k = losses.one_over_k_softmax_loss
errors = {"sigmoids against P(y = 1)": [], "full softmax against P(z' = i)": []}
for size in SIZES:
    samples = [torch.multinomial(JOINT, size, replacement=True, generator=generator)
               for _ in range(REPETITIONS)]
    shares = [torch.bincount(rows, minlength=len(JOINT)).double() / size for rows in samples]
    ova = [torch.sigmoid(minimise(ova_loss, share)) for share in shares]
    pal = [minimise(one_over_k, share).softmax(0) for share in shares]
    for answers, exact, error in zip((ova, pal), (marginals, z_prime), errors.values()):
        error.append([(answer - exact).abs().mean().item() for answer in answers])

# %% tags=["report"]
show(plots.panels(SIZES, {name: {"mean over classes": values} for name, values in errors.items()}, "sampled pictures N"),
     "The mean distance between the minimiser and the exact value shrinks towards zero as N grows, for both losses")
for values in errors.values():
    assert np.mean(values[-1]) < np.mean(values[0]) / 5

# %% [markdown]
r"""
From one mark to the next, $N$ is ten times larger, so the sampling error should be about $\sqrt{10} \approx 3$ times smaller.
With the exact probabilities as weights, there is no sampling error at all:
"""

# %% tags=["learn"]
assert torch.allclose(torch.sigmoid(minimise(ova_loss, JOINT)), marginals)
assert torch.allclose(minimise(one_over_k, JOINT).softmax(0), z_prime)
print("exact minimisers: sigmoids give P(y = 1), the full softmax gives P(z' = i)")

# %% [markdown]
r"""
Proposition 1 holds. But the paper trains its branch with another softmax.

## 4. The partial softmax

![For an image with a cup and a book, each positive has all classes in the denominator of its full softmax, and only itself and the two negatives in the denominator of its partial softmax.](images/partial_softmax.svg)

In a full softmax the positives of one image compete: the cup's probability can only grow if the book's shrinks, although both
are right. The paper leaves the other positives out of the denominator. In this
[partial softmax](../docs/glossary.md#partial-softmax) a positive competes only with the negatives $C_n$ (Eq. 10):

$$f_i = \frac{e^{z_i}}{e^{z_i} + \sum_{j \in C_n} e^{z_j}}, \qquad
L_{ps} = -\frac{1}{|C_p|} \sum_{i \in C_p} \log f_i \quad \text{(Eq. 11)}.$$

Here it is for two images and three classes:
"""

# %% tags=["learn"]
z = torch.tensor([[2.0, -1.0, 0.5], [-0.5, 1.5, -2.0]]).double()  # logits of the second branch
y = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]], dtype=torch.float64)
e = z.exp()
negatives = ((1 - y) * e).sum(1, keepdim=True)  # Σ_{j∈C_n} e^{z_j}, one number for each image
f = y * e / (e + negatives)  # Eq. 10 at the positives, 0 elsewhere
per_image = -torch.where(y == 1, f.log(), 0.0).sum(1) / y.sum(1)  # Eq. 11
assert torch.allclose(f, partial_softmax(z, y))
assert torch.allclose(per_image.mean(), pal_n_loss(z, y))
pd.DataFrame(f.numpy(), ["image 1", "image 2"], ["class 1", "class 2", "class 3"]).round(3)

# %% [markdown]
r"""
The two positives of image 2 need not add up to one, because each has its own denominator. The figure shows what each of them
competes with, in both kinds of softmax:
"""

# %% tags=["report"]
shares = {"the class itself": [], "other positives": [], "negatives": []}
rows = []
for kind, rivals in (("full", 1.0), ("partial", 0.0)):
    for c in (1, 2):
        parts = [e[1, c], rivals * ((y[1] * e[1]).sum() - e[1, c]), negatives[1, 0]]
        for name, part in zip(shares, parts):
            shares[name].append((part / sum(parts)).item())
        rows.append(f"{kind} softmax, class {c + 1}")
figure = plots.bars(rows, shares, "share of the denominator", "image 2: what each positive competes with")
figure.axes[0].legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.3), ncols=3)
show(figure, "In the full softmax other positives stand in the denominator, in the partial softmax negatives only")

# %% [markdown]
r"""
### One masked logsumexp

A loop over positives would be slow, and $e^{z}$ overflows for large $z$. A little algebra solves both problems:

$$-\log f_i = \log\Big(1 + \frac{\sum_{j \in C_n} e^{z_j}}{e^{z_i}}\Big) = \mathrm{softplus}\big(\mathrm{LSE}_{C_n}(z) - z_i\big),
\qquad \mathrm{LSE}_{C_n}(z) = \log \sum_{j \in C_n} e^{z_j}.$$

All positives of an image share the same $\mathrm{LSE}_{C_n}$. So we mask the positives and compute it once.
"""

# %% tags=["learn"]
lse = z.masked_fill(y == 1, -torch.inf).logsumexp(1, keepdim=True)
by_softplus = (y * F.softplus(lse - z)).sum(1) / y.sum(1)
assert torch.allclose(by_softplus, per_image)
huge = 1e4 * z.float()
assert torch.isfinite(pal_n_loss(huge, y)) and not torch.isfinite(huge.exp()).all()
print("the same losses:", by_softplus.numpy().round(4))

# %% [markdown]
r"""
Two edge cases need a decision. In an image **without positives** there is nothing to pick: its loss is 0, with gradient 0. In
an image **without negatives** a positive has nothing to compete with: $f_i = 1$, and the loss is 0 as well.
"""

# %% tags=["learn"]
leaf = torch.randn(2, 3, generator=generator).requires_grad_()
edge = torch.tensor([[0, 0, 0], [1, 1, 1]])
pal_n_loss(leaf, edge).backward()
assert pal_n_loss(leaf, edge) == 0 and (leaf.grad == 0).all()
assert partial_softmax(leaf, edge).tolist() == [[0, 0, 0], [1, 1, 1]]
print("no positives: loss and gradient 0; no negatives: f = 1")

# %% [markdown]
r"""
### Exercise 03.1

Give the loss one more rival. Beside the negatives, every positive competes with "none of these", a class whose logit is always 0:

$$f_i = \frac{e^{z_i}}{1 + e^{z_i} + \sum_{j \in C_n} e^{z_j}}.$$

Write Eq. 11 with this $f$ for a batch: `logits` and `targets` (N, C), the answer is one number, the mean over all N images. An image
without positives counts as 0. Logits may be as large as ±10,000, and a gradient must be able to flow through the answer.
`torch.logaddexp(a, b)` is $\log(e^a + e^b)$.
"""

# %% exercise="03.1"
def my_pal_n(logits, targets):
    return ...

# %% solution="03.1"
def my_pal_n(logits, targets):
    positive = targets == 1
    lse = logits.masked_fill(positive, -torch.inf).logsumexp(1, keepdim=True)
    rivals = torch.logaddexp(lse, torch.zeros_like(lse))  # the new rival: e^0 = 1
    surprise = F.softplus(rivals - logits) * positive
    return (surprise.sum(1) / positive.sum(1).clamp(min=1)).mean()

# %% mistake="03.1" says="'none of these' is missing"
def my_pal_n(logits, targets):
    return pal_n_loss(logits, targets)

# %% mistake="03.1" says="full softmax"
def my_pal_n(logits, targets):
    every = torch.cat([logits, torch.zeros(len(logits), 1)], 1).logsumexp(1, keepdim=True)
    return ((every - logits) * targets).sum(1).div(targets.sum(1).clamp(min=1)).mean()

# %% mistake="03.1" says="the mask is inverted"
def my_pal_n(logits, targets):
    lse = logits.masked_fill(targets == 0, -torch.inf).logsumexp(1, keepdim=True)
    surprise = F.softplus(torch.logaddexp(lse, torch.zeros_like(lse)) - logits) * targets
    return (surprise.sum(1) / targets.sum(1).clamp(min=1)).mean()

# %% mistake="03.1" says="multiplied by 0"
def my_pal_n(logits, targets):
    lse = (logits * (1 - targets)).logsumexp(1, keepdim=True)
    surprise = F.softplus(torch.logaddexp(lse, torch.zeros_like(lse)) - logits) * targets
    return (surprise.sum(1) / targets.sum(1).clamp(min=1)).mean()

# %% mistake="03.1" says="binary cross-entropy of f"
def my_pal_n(logits, targets):
    e = logits.exp()
    f = e / (1 + e + (e * (1 - targets)).sum(1, keepdim=True))
    return F.binary_cross_entropy(f, targets)

# %% mistake="03.1" says="it belongs under it"
def my_pal_n(logits, targets):
    lse = logits.masked_fill(targets == 1, -torch.inf).logsumexp(1, keepdim=True)
    surprise = F.softplus(lse + 1 - logits) * targets
    return (surprise.sum(1) / targets.sum(1).clamp(min=1)).mean()

# %% mistake="03.1" says="sum over the positives"
def my_pal_n(logits, targets):
    lse = logits.masked_fill(targets == 1, -torch.inf).logsumexp(1, keepdim=True)
    rivals = torch.logaddexp(lse, torch.zeros_like(lse))
    return (F.softplus(rivals - logits) * targets).sum(1).mean()

# %% mistake="03.1" says="without a positive"
def my_pal_n(logits, targets):
    lse = logits.masked_fill(targets == 1, -torch.inf).logsumexp(1, keepdim=True)
    rivals = torch.logaddexp(lse, torch.zeros_like(lse))
    return ((F.softplus(rivals - logits) * targets).sum(1) / targets.sum(1)).mean()

# %% mistake="03.1" says="all images' positives at once"
def my_pal_n(logits, targets):
    lse = logits.masked_fill(targets == 1, -torch.inf).logsumexp(1, keepdim=True)
    rivals = torch.logaddexp(lse, torch.zeros_like(lse))
    return (F.softplus(rivals - logits) * targets).sum() / targets.sum()

# %% mistake="03.1" says="the last image's"
def my_pal_n(logits, targets):
    lse = logits.masked_fill(targets == 1, -torch.inf).logsumexp(1, keepdim=True)
    rivals = torch.logaddexp(lse, torch.zeros_like(lse))
    return ((F.softplus(rivals - logits) * targets).sum(1) / targets[-1].sum()).mean()

# %% mistake="03.1" says="e^z overflows"
def my_pal_n(logits, targets):
    e = logits.exp()
    f = e / (1 + e + (e * (1 - targets)).sum(1, keepdim=True))
    surprise = -f.log() * targets
    return (surprise.sum(1) / targets.sum(1).clamp(min=1)).mean()

# %% mistake="03.1" says="0 · log 0"
def my_pal_n(logits, targets):
    largest = logits.amax(1, keepdim=True).clamp(min=0)
    e = (logits - largest).exp()
    f = e / ((-largest).exp() + e + (e * (1 - targets)).sum(1, keepdim=True))
    return ((-f.log() * targets).sum(1) / targets.sum(1).clamp(min=1)).mean()

# %% mistake="03.1" says="no gradient can flow through a Python number"
def my_pal_n(logits, targets):
    lse = logits.masked_fill(targets == 1, -torch.inf).logsumexp(1, keepdim=True)
    surprise = F.softplus(torch.logaddexp(lse, torch.zeros_like(lse)) - logits) * targets
    return (surprise.sum(1) / targets.sum(1).clamp(min=1)).mean().item()

# %% tags=["learn"]
check("03.1", my_pal_n)

# %% [markdown]
r"""
Remember this extra rival: further below we shift all logits of an image, and only the loss with this rival changes.

Two of the mistakes in this check are real. The code released with the paper inverts its mask. In today's PyTorch, this puts all
classes into the denominator of the first positive. It also divides by the label count of the *last* image of the batch. Our
library computes what the paper prints.

### The gradient

Let $q_j$ be a softmax over the negatives alone. The gradient of Eq. 11 is

$$\frac{\partial L_{ps}}{\partial z_i} = -\frac{1 - f_i}{|C_p|} \;\; (i \in C_p), \qquad
\frac{\partial L_{ps}}{\partial z_j} = q_j \cdot \frac{1}{|C_p|} \sum_{i \in C_p} (1 - f_i) \;\; (j \in C_n).$$

Each positive is pulled up in proportion to $1 - f_i$, the part that it still lacks. The negatives are pushed down by the same
total. The negative with the largest logit is pushed the most.
"""

# %% tags=["learn"]
leaf = z.clone().requires_grad_()
(len(z) * pal_n_loss(leaf, y)).backward()  # the loss is a mean over images, hence the factor
q = z.masked_fill(y == 1, -torch.inf).softmax(1)
pull = y * (1 - f) / y.sum(1, keepdim=True)
by_hand = q * pull.sum(1, keepdim=True) - pull
assert torch.allclose(leaf.grad, by_hand)
assert torch.allclose(leaf.grad.sum(1), torch.zeros(2).double())  # they cancel in each image
pd.DataFrame(leaf.grad.numpy(), ["image 1", "image 2"], ["class 1", "class 2", "class 3"]).round(3)

# %% [markdown]
r"""
The gradients of an image add up to zero. So the loss **cannot see** one thing: if we add the same number to all logits of an
image, nothing changes.
"""

# %% tags=["learn"]
shift = torch.tensor([[5.0], [-3.0]]).double()
assert torch.isclose(pal_n_loss(z + shift, y), pal_n_loss(z, y))
assert not torch.isclose(ova_loss(z + shift, y), ova_loss(z, y))
print(f"PAL-N before and after: {pal_n_loss(z, y):.4f}, {pal_n_loss(z + shift, y):.4f};"
      f" binary cross-entropy: {ova_loss(z, y):.4f}, {ova_loss(z + shift, y):.4f}")

# %% [markdown]
r"""
So the logits of this branch have no absolute level. They rank the classes of an image, but they cannot say "0.7 for the cup",
and the branch has no ECE of its own. Calibration depends on the level. That is why the classifier keeps its sigmoids and its
binary cross-entropy, and the new loss gets a second head: it can change the probabilities **only through the features that
both heads share**.

## 5. The theory does not fit the partial softmax

Proposition 1 is about a loss in which $f$ depends on the picture alone. The partial softmax is different: its denominator
depends on the labels $y$, which the network cannot know. Is $z'$ still the best answer? We test it in our small world.
"""

# %% tags=["learn"]
partial_best = minimise(pal_n_loss, JOINT).softmax(0)
full_best = minimise(one_over_k, JOINT).softmax(0)
answers = {"P(z' = i), Eq. 7": z_prime, "best for the full softmax": full_best,
           "best for the partial softmax": partial_best,
           "normalised marginals": marginals / marginals.sum()}

# %% tags=["report"]
figure = plots.estimates(NAMES, {name: (values,) * 3 for name, values in answers.items()}, "probability",
                         "four distributions in the world of three classes")
figure.axes[0].legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=2)
show(figure,
     "The best answer to the full softmax lies on z'; the best answer to the partial softmax differs from z' and the marginals")
for name in ("P(z' = i), Eq. 7", "normalised marginals"):
    assert (partial_best - answers[name]).abs().max() > 0.01
pd.DataFrame(answers, index=NAMES).T.round(3)

# %% [markdown]
r"""
The best answer to the full softmax is $z'$. The best answer to the partial softmax is something else. In one important case we
can derive it.

Compare two pictures that differ in two labels only: the labels $y$ of the first hold $i$ but not $j$, and the labels $y'$ of the
second hold $j$ but not $i$. In both, $i$ and $j$ meet in a denominator of the same size. The first pulls $i$ up against $j$ with
a force proportional to $P(y)\, e^{z_j}$. The second pulls the other way with $P(y')\, e^{z_i}$. If the labels are **independent
given the picture**, then $P(y) / P(y') = o_i / o_j$ with the [odds](../docs/glossary.md#odds)
$o_i = P(y_i = 1)/P(y_i = 0)$. So all such pairs are in balance at once (and the loss is convex, so this is its minimum) at

$$e^{z_i} \propto o_i = \frac{P(y_i = 1)}{1 - P(y_i = 1)}, \qquad \text{that is,} \qquad
z_i = \mathrm{logit}\, P(y_i = 1) + \text{the same number for all classes.}$$

Up to a shift, these are the logits that binary cross-entropy asks for. They do not depend on the number of labels. This argument
is ours, not the paper's, so we check it numerically:
"""

# %% tags=["learn"]
chances = torch.tensor([0.9, 0.5, 0.2], dtype=torch.float64)  # three independent labels
EVERY = torch.tensor(list(product([0, 1], repeat=3)))  # all eight sets, the empty one too
independent = torch.where(EVERY == 1, chances, 1 - chances).prod(1)
odds = chances / (1 - chances)
best = minimise(pal_n_loss, independent, EVERY).softmax(0)
assert torch.allclose(best, odds / odds.sum(), atol=1e-6)
z_independent = losses.pick_all_labels_marginals(EVERY, independent)
pd.DataFrame({"best for the partial softmax": best, "normalised odds": odds / odds.sum(),
              "z', given at least one label": z_independent / z_independent.sum()},
             index=NAMES).T.round(4)

# %% [markdown]
r"""
The normalised odds are far more extreme than $z'$, because the number of labels no longer divides anything.

**Think:** this argument does not apply to the three-class world above. Why not?

<details><summary>Answer</summary>
Its labels depend on each other: which labels an image has says something about the others. The odds are the best answer only
where the labels are independent, given the picture.
</details>

### Exercise 03.2

Before we look at networks: write Eq. 7 for all classes. `labels` (M, C) lists the sets of a joint distribution, the empty set
may be among them, and `probabilities` (M,) says how probable each is. The answer has shape (C,). No loop is needed.
"""

# %% exercise="03.2"
def my_z_prime(labels, probabilities):
    return ...

# %% solution="03.2"
def my_z_prime(labels, probabilities):
    labels = labels.double()
    others = labels.sum(1, keepdim=True) - labels
    return (probabilities[:, None] * labels / (1 + others)).sum(0)

# %% mistake="03.2" says="1 + in the denominator"
def my_z_prime(labels, probabilities):
    labels = labels.double()
    others = labels.sum(1, keepdim=True) - labels
    return (probabilities[:, None] * labels / others).sum(0)

# %% mistake="03.2" says="counts label i twice"
def my_z_prime(labels, probabilities):
    labels = labels.double()
    return (probabilities[:, None] * labels / (1 + labels.sum(1, keepdim=True))).sum(0)

# %% mistake="03.2" says="only over the sets that hold label i"
def my_z_prime(labels, probabilities):
    labels = labels.double()
    others = labels.sum(1, keepdim=True) - labels
    return (probabilities @ labels) * (probabilities[:, None] / (1 + others)).sum(0)

# %% mistake="03.2" says="normalised marginals"
def my_z_prime(labels, probabilities):
    marginals = probabilities @ labels.double()
    return marginals / marginals.sum()

# %% mistake="03.2" says="the probabilities of the sets are not used"
def my_z_prime(labels, probabilities):
    labels = labels.double()
    others = labels.sum(1, keepdim=True) - labels
    return (labels / (1 + others)).mean(0)

# %% tags=["learn"]
check("03.2", my_z_prime)

# %% [markdown]
r"""
### What does the trained branch compute?

On `scenes` and `digits` the annotator marks each object on its own. So the labels *are* independent given the scene, and the
posterior $P(y_i = 1)$ is known. (A network sees pixels only. Whatever the pixels hide may make the labels dependent, so for a
network the independence is an approximation.)

Eq. 7 then needs the distribution of a sum of independent yes-or-no variables (the "Poisson binomial"). We start with no other
class, where the sum is 0 for certain, and add the other classes one at a time.
"""

# %% tags=["learn"]
def z_prime_of(p):
    """Eq. 7, labels independent given the image: p (N, C) → (N, C); rows sum to 1 − P(no label)."""
    classes = p.shape[1]
    result = torch.zeros_like(p)
    for i in range(classes):
        nothing = torch.zeros(len(p), dtype=torch.long)
        others = F.one_hot(nothing, classes).to(p.dtype)  # P(number of others = 0, 1, …)
        for j in set(range(classes)) - {i}:
            one_more = F.pad(others[:, :-1], (1, 0))
            others = (1 - p[:, [j]]) * others + p[:, [j]] * one_more
        result[:, i] = p[:, i] * (others / torch.arange(1, classes + 1)).sum(1)
    return result

# %% tags=["learn"]
assert torch.allclose(z_prime_of(chances[None])[0], z_independent)
assert torch.allclose(z_prime_of(p).sum(1), 1 - (1 - p).prod(1))


def candidates(p):
    """Three candidates for the branch's softmax, each (N, C), from P(y = 1)."""
    p = p.clamp(1e-12, 1 - 1e-7)
    scores = {"z', Eq. 7": z_prime_of(p), "normalised probabilities": p,
              "normalised odds": p / (1 - p)}
    return {name: values / values.sum(1, keepdim=True) for name, values in scores.items()}

# %% [markdown]
r"""
One detail: an image may have no label at all, and PAL-N learns nothing from such an image. So the best answer is
$z'$ *given at least one label*. We therefore divide $z'$ by its sum; a softmax adds up to one as well.

The stored runs hold the logits of the second branch. We measure how far the branch's softmax is from each candidate: the sum of
the absolute differences over the classes (0: equal, 2: nothing in common), averaged over test images. We do this twice:

1. with candidates computed from the **true posterior**, on images where at least two classes are possible (with one class,
   all candidates agree);
2. with candidates computed from the **same network's sigmoids**. Then it does not matter how good the network is.
"""

# %% tags=["learn"]
grid = {lam: [load_or_run(recipe) for recipe in recipes] for lam, recipes in sweep(DATA).items()}
with_branch = {lam: runs for lam, runs in grid.items()
               if all(r.test_calibration_logits is not None for r in runs)}
several = (torch.ones(len(p), dtype=torch.bool) if posterior is None
           else (posterior > 0).sum(1) >= 2)  # the images with two or more possible classes
truth = {} if posterior is None else candidates(posterior[several])


def distances(run, targets):
    answer = run.test_calibration_logits[several].double().softmax(1)
    return {name: (answer - wanted).abs().sum(1).mean().item() for name, wanted in targets.items()}

# %% tags=["report"]
measured = {}
for lam, runs in with_branch.items():
    rows = {"its own sigmoids": [distances(r, candidates(r.probabilities()[several])) for r in runs]}
    if truth:
        rows["the posterior"] = [distances(r, truth) for r in runs]
    for source, values in rows.items():
        for name in values[0]:
            measured.setdefault(source, {}).setdefault(name, []).append([row[name] for row in values])

# %% tags=["report"]
if measured:
    figure = plots.panels(list(with_branch), {f"from {source}": measured[source] for source in sorted(measured)}, "λ")
    for axes in figure.axes[:len(measured)]:
        axes.set(ylim=(0, None), ylabel="distance")
    figure.tight_layout()
    show(figure, "Distance between the branch's softmax and z', normalised probabilities and normalised odds, over λ")
else:
    say("These runs were stored without the logits of the second branch, so there is nothing to compare here.")

# %% tags=["report"]
if measured:
    display(pd.DataFrame({f"candidates from {source}": {name: f"{np.mean(values):.2f}" for name, values in by_name.items()}
                          for source, by_name in sorted(measured.items())}).T)
for source, by_name in sorted(measured.items()):
    means = {name: np.mean(values) for name, values in by_name.items()}
    gaps = [paired_difference(*pair) for pair in zip(by_name["z', Eq. 7"], by_name["normalised odds"])]
    farther = sum(gap.verdict == "higher" for gap in gaps)
    say(f"With candidates from {source}, the branch is nearest to the **{min(means, key=means.get)}**. Paired by seed, its "
        f"distance to z' is detectably larger than its distance to the normalised odds at {farther} of {len(gaps)} values of λ.")
    if DATA == "scenes" and profile() != "smoke":
        assert min(means, key=means.get) == "normalised odds" and farther == len(gaps)

# %% [markdown]
r"""
On `scenes` both comparisons give the same answer: the branch computes the normalised odds, not $z'$. The distances from the
posterior mix two things: what the branch computes, and the errors of the network. The distances from the network's own sigmoids
leave those errors out, so they are the better test.

One more number needs no candidate at all. We shift the logits of both heads to mean zero in each image, and correlate them:
"""

# %% tags=["learn"]
def centred(logits):
    return (logits - logits.mean(1, keepdim=True)).flatten().numpy()


def agreement(run):
    """The correlation between the centred logits of the two heads."""
    return np.corrcoef(centred(run.test_logits), centred(run.test_calibration_logits))[0, 1]

# %% tags=["report"]
for lam in list(with_branch)[:1] + list(with_branch)[-1:]:
    alike = [agreement(r) for r in with_branch[lam]]
    say(f"- λ = {lam:g}: the centred logits of the two heads correlate with {np.mean(alike):.3f} (five seeds: "
        f"{min(alike):.3f} to {max(alike):.3f}).")
    assert DATA != "scenes" or profile() == "smoke" or min(alike) > 0.95

# %% [markdown]
r"""
So the two heads rank the classes of an image in almost the same way. Is the loss the reason, or something else in these
networks? We need a **control**: the same features and the same labels, where only the loss differs. We freeze the baseline's
backbone and fit three linear heads on its pooled features: sigmoids with binary cross-entropy, a full softmax, and a partial
softmax.

The heads learn from the *validation* images, which the backbone has not memorised. The candidates come from the first head. We
measure the distances on test images, and repeat everything five times with resampled validation images.
"""

# %% tags=["learn"]
from udlib.datasets.transforms import normalise


@torch.no_grad()
def pooled_features(network, split):
    """The pooled features (N, D) of the first 2,000 images of a split."""
    images = arrays(run.recipe, split).images[:2000]
    return torch.cat([network(normalise(part), calibration=False).pooled
                      for part in images.split(250)])

# %% tags=["learn"]
def fit_head(loss, features, targets):
    """A linear head on fixed features, trained to the end with a little weight decay."""
    head = torch.nn.Linear(features.shape[1], targets.shape[1])
    for parameter in head.parameters():
        torch.nn.init.zeros_(parameter)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = loss(head(features), targets) + 0.01 * head.weight.square().sum()
        value.backward()
        return value

    optimizer.step(closure)
    return head

# %% tags=["report"]
KINDS = {"full softmax": losses.one_over_k_softmax_loss, "partial softmax": pal_n_loss}
control = {kind: [] for kind in KINDS}
if DATA in ("scenes", "digits"):  # their baseline's network ships
    seen, unseen = (pooled_features(load_model(baseline(DATA)), split) for split in ("val", "test"))
    seen, unseen = ((x - seen.mean(0)) / (seen.std(0) + 1e-6) for x in (seen, unseen[several[:2000]]))
    labelled = run.labels("val").targets
    for _ in range(REPETITIONS):
        rows = torch.randint(len(seen), (len(seen),), generator=generator)  # the same for all three heads
        wanted = candidates(fit_head(ova_loss, seen[rows], labelled[rows])(unseen).detach().double().sigmoid())
        for kind, loss in KINDS.items():
            answer = fit_head(loss, seen[rows], labelled[rows])(unseen).detach().double().softmax(1)
            control[kind].append({name: (answer - q).abs().sum(1).mean().item() for name, q in wanted.items()})

# %% tags=["report"]
if control["full softmax"]:
    frames = {kind: pd.DataFrame(rows) for kind, rows in control.items()}
    display(pd.DataFrame({kind: rows.agg(lambda v: spread(v, scale=1)) for kind, rows in frames.items()}).T)
    nearest = {kind: rows.mean().idxmin() for kind, rows in frames.items()}
    say("On the same features, " + ", and ".join(f"the head with the {kind} is nearest to the **{name}**"
                                                 for kind, name in nearest.items()) + ".")
    if DATA == "scenes" and profile() != "smoke":
        assert nearest == {"full softmax": "z', Eq. 7", "partial softmax": "normalised odds"}
else:
    say("The control needs a stored network, and networks ship only for `scenes` and `digits`.")

# %% [markdown]
r"""
So the loss is the reason. Remember this when you read that the branch "takes the number of labels into account". A full softmax
would. For independent labels, the partial softmax asks the branch for something that the classifier already knows.

The branch may still help: it weighs images and labels differently, and it sends a second, noisy gradient into the shared
features. The next sections measure whether it helps. (On photographs, annotators' omissions need not be independent: a tired
annotator misses several things at once.)

## 6. Two branches (Eq. 12)

Both [heads](../docs/glossary.md#head) stand on the pooled features. The calibration branch is FC → BN → ReLU → FC, and the
losses are added:

$$L = L_b + \lambda\, L_{ps}$$
"""

# %% tags=["learn"]
from udlib.backbones import backbone
from udlib.heads import DualBranchHead, DualBranchNet
from udlib.losses import dual_branch_loss

DualBranchHead(in_features=256, num_classes=len(test.classes), embedding=128)

# %% [markdown]
r"""
We train ten steps on 64 images, as in lesson 02, now with two terms.
"""

# %% tags=["learn"]
train = arrays(run.recipe, "train")
images, targets = normalise(train.images[:64]), train.targets[:64].float()
torch.manual_seed(0)
network = DualBranchNet(backbone("small"), len(test.classes), embedding=128)
optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
terms = []
for step in range(10):
    loss = dual_branch_loss(network(images), targets, lam=0.1)
    assert torch.isclose(loss["total"], loss["ova"] + 0.1 * loss["pal_n"])  # Eq. 12
    optimizer.zero_grad()
    loss["total"].backward()
    optimizer.step()
    terms.append({name: value.item() for name, value in loss.items()})

# %% tags=["report"]
steps = pd.DataFrame(terms, index=range(1, 11))
assert steps["total"].iloc[-1] < steps["total"].iloc[0]
nats = {"binary cross-entropy": steps["ova"], "PAL-N": steps["pal_n"], "total, λ = 0.1": steps["total"]}
show(plots.lines(steps.index, nats, "step", "nats per image", "ten steps on 64 images"),
     "Binary cross-entropy, PAL-N and the total of Eq. 12 at λ = 0.1 over ten steps; the total falls")

# %% [markdown]
r"""
The partial softmax needs the labels, so the branch is of no use at test time. One argument drops it, and the classifier's
logits stay the same.
"""

# %% tags=["learn"]
network.eval()
with torch.no_grad():
    both, alone = network(images), network(images, calibration=False)
assert alone.calibration_logits is None and torch.equal(both.logits, alone.logits)
print("the classification logits are equal, with the branch and without")

# %% [markdown]
r"""
## 7. Sums and means: what does λ multiply?

"$\lambda = 0.1$" means little until we know the scale of the other loss. The paper prints binary cross-entropy as a **sum** over
the classes. The released code takes the **mean**, and halves the total. With a mean, the same $\lambda$ weighs $C$ times more:

$$\frac{1}{2}\Big(\frac{L_b}{C} + \lambda L_{ps}\Big) = \frac{1}{2C}\big(L_b + C \lambda\, L_{ps}\big).$$

Our `scale="released"` is the left side.
"""

# %% tags=["learn"]
C = len(test.classes)
released = dual_branch_loss(both, targets, lam=0.1, scale="released")["total"]
paper = dual_branch_loss(both, targets, lam=0.1 * C)["total"]
assert torch.isclose(released, paper / (2 * C))
print(f"released, λ = 0.1: {released:.6f};"
      f"  paper, λ = {0.1 * C:g}, divided by {2 * C}: {paper / (2 * C):.6f}")

# %% [markdown]
r"""
How much of the training signal comes from the branch? The gradients of the two heads meet at the pooled features. We compute
both there, on training images, and compare their lengths: the branch's share is
$\lambda\|g_{ps}\| / (\|g_b\| + \lambda\|g_{ps}\|)$. Their cosine says whether both pull in the same direction. We do this twice,
for a random start and for a trained network.
"""

# %% tags=["learn"]
def pulls(network, images, targets):
    """Mean over images of ‖∂L_b‖, ‖∂L_ps‖ at the pooled features, and of the cosine of the two."""
    with torch.no_grad():
        pooled = network(images).pooled
    leaf = pooled.clone().requires_grad_()
    logits, calibration_logits = network.head(leaf)
    g_b, = torch.autograd.grad(ova_loss(logits, targets) * len(images), leaf)
    g_ps, = torch.autograd.grad(pal_n_loss(calibration_logits, targets) * len(images), leaf)
    some = g_ps.norm(dim=1) > 0  # an image without a label has no pull from the branch
    cosine = F.cosine_similarity(g_b[some], g_ps[some]).mean()
    return g_b.norm(dim=1).mean().item(), g_ps.norm(dim=1).mean().item(), cosine.item()

# %% tags=["report"]
many = normalise(train.images[:250]), train.targets[:250].float()
torch.manual_seed(1)
networks = {"random start": DualBranchNet(backbone("small"), C, embedding=128).train()}
if DATA == "scenes":  # one trained network with both branches ships
    networks["trained, λ = 0.1"] = load_model(baseline(DATA).but(lam=0.1)).train()  # train: batch statistics, as in a step
table = {}
for name, network in networks.items():
    g_b, g_ps, cosine = pulls(network, *many)
    part = {scale: percent(0.1 * g_ps / (g_b / c + 0.1 * g_ps)) for scale, c in (("paper", 1), ("released", C))}
    table[name] = {"‖g_b‖": f"{g_b:.3f}", "‖g_ps‖": f"{g_ps:.3f}", "cosine": f"{cosine:+.2f}",
                   "branch's share, paper": part["paper"], "branch's share, released": part["released"]}
pd.DataFrame(table).T

# %% [markdown]
r"""
The two columns on the right have the same printed $\lambda$, and very different shares. If you copy "0.1" from a paper into code
with another sum, you run another method. (The released code's own value is $\lambda = 1$ beside the mean. In the paper's scale,
that is $C$.)

The factor $1/(2C)$ in front of the whole loss is another matter. Adam divides each step by the size of the gradient, so this
factor should not matter. That gives a prediction: on `scenes`, with 16 classes, "released, 0.1" should end like "paper, 1.6".

Three things could spoil it. Training clips gradients at a fixed length, which may happen in one scale and not in the other. Adam
adds a tiny constant to the size that it divides by. And two sums that are rounded differently drift apart until they are two
different networks, as if the seed had changed. So we can expect equal *means*, not equal runs.
"""

# %% tags=["report"]
from udlib.course.evidence import contrast_table, show_contrasts, train_missing

scaled = train_missing({name.replace("lambda", "λ ="): recipes for name, recipes in scales().items()})
of_scale = {name: {key: [load_or_run(recipe).metrics["test"][key] for recipe in recipes] for key in ("mAP", "ECE_pooled")}
            for name, recipes in scaled.items()}
pd.DataFrame({name: {"mAP, %": spread(values["mAP"]), "ECE pooled, %": spread(values["ECE_pooled"])}
              for name, values in list(of_scale.items())[:3]}).T

# %% tags=["report"]
POINTS = {"mAP": "mAP, points", "ECE_pooled": "pooled ECE, points"}
show_contrasts({"released 0.1 minus paper 1.6": (scaled["released, λ = 0.1"], scaled["paper, λ = 1.6"]),
                "released 0.1 minus paper 0.1": (scaled["released, λ = 0.1"], scaled["paper, λ = 0.1"])}, POINTS)
reference, weak, strong = (of_scale[name] for name in ("released, λ = 0.1", "paper, λ = 0.1", "paper, λ = 1.6"))
if profile() != "smoke":
    for other in (weak, strong):
        assert paired_difference(reference["mAP"], other["mAP"]).verdict == "not detected"
        assert paired_difference(reference["ECE_pooled"], other["ECE_pooled"]).verdict == "lower"

# %% [markdown]
r"""
The prediction fails. The mAP shows no detected difference, but the pooled ECE of "released, 0.1" is about a quarter of a point
lower than that of "paper, 1.6". So the factor in front of the loss does matter here.

Rounding should not change the mean of five networks, so two suspects remain. Training clips the whole gradient at a fixed length,
and Adam adds $10^{-8}$ to the size that it divides by. Here is the gradient of one batch in both scales, over all parameters of the network.
"""

# %% tags=["learn"]
def gradient(network, lam, scale):
    loss = dual_branch_loss(network(images), targets, lam=lam, scale=scale)["total"]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))])

# %% tags=["report"]
lengths = {}
for name, network in networks.items():
    summed, averaged = gradient(network, 0.1 * C, "paper"), gradient(network, 0.1, "released")
    assert torch.isclose(summed.norm(), 2 * C * averaged.norm(), rtol=0.01)
    lengths[name] = {f"{kind}: {what}": f"{value:.2g}" for kind, g in (("paper", summed), ("released", averaged))
                     for what, value in (("length", g.norm()), ("median size of an entry", g.abs().median()))}
clip = run.recipe.training.clip
say(f"Training clips a gradient that is longer than **{clip:g}**. Adam's constant matters for entries near **1e-8**.")
pd.DataFrame(lengths).T

# %% [markdown]
r"""
**Think:** this table rules out one of the two suspects. Which one?

<details><summary>Answer</summary>
Adam's constant. Nearly all entries are far larger than 1e-8, so the constant changes no step. Clipping is still possible: it
cuts a long gradient, and one of the two scales has gradients that are 2C times longer.
</details>

So we test clipping. We train both scales once more, with the same seeds and **without clipping**. Now the two differ only by a
factor in front of the whole loss.
"""

# %% tags=["report"]
free = {name: f"{name}, no clipping" for name in ("released, λ = 0.1", "paper, λ = 1.6")}
show_contrasts({"released 0.1 minus paper 1.6, no clipping": (scaled[free["released, λ = 0.1"]], scaled[free["paper, λ = 1.6"]]),
                **{f"{name}: with clipping minus without": (scaled[name], scaled[free[name]]) for name in free}}, POINTS)

# %% tags=["report"]
released_free, paper_free = (of_scale[name] for name in free.values())
closed = paired_difference(np.subtract(reference["ECE_pooled"], strong["ECE_pooled"]),
                           np.subtract(released_free["ECE_pooled"], paper_free["ECE_pooled"]))
say(f"The gap in pooled ECE between the two scales, with clipping minus without: {in_units(closed)}.")
if profile() != "smoke":
    assert all(paired_difference(released_free[key], paper_free[key]).verdict == "not detected" for key in POINTS)
    assert all(np.allclose(reference[key], released_free[key]) for key in POINTS)  # clipping never acts in the released scale
    assert paired_difference(strong["ECE_pooled"], paper_free["ECE_pooled"]).verdict == "higher"
    assert closed.verdict == "lower"

# %% [markdown]
r"""
Clipping was the reason. Without it, five seeds detect no difference between the two scales, and the gap in pooled ECE shrinks by
about a quarter of a point. In the released scale clipping never acts. In the paper's scale it raises the pooled ECE.

There is a general lesson here: "equal up to a factor" is true of the loss. Whether it is true of the *training* has to be
tested. A report of $\lambda$ should also report the clipping.

## 8. The sweep

Now the main experiment: everything is fixed except $\lambda$. The figure shows means with 95 % intervals over five seeds; each
tick is a network. The dotted line is a network **without** a second branch, trained with
[CutOut](../docs/glossary.md#cutout-random-erasing) (lesson 02).
"""

# %% tags=["report"]
from udlib.calibration import expected_calibration_error

PANELS = {"mAP, %": "mAP", "mAP Difficult, %": "mAP_difficult", "ECE class-wise, %": "ECE", "ECE pooled, %": "ECE_pooled",
          "true error pooled, %": "true_CE_pooled", "NLL, 0.01 nats": "NLL"}
PANELS = {title: key for title, key in PANELS.items() if key in run.metrics["test"]}
cutout = [load_or_run(recipe) for recipe in tricks(DATA)["both"]] if DATA in ("scenes", "digits") else None


def values_of(runs, key, split="test"):
    return [r.metrics[split][key] for r in runs]


assert np.isclose(expected_calibration_error(p, test.targets, average="pooled"), run.metrics["test"]["ECE_pooled"])

# %% tags=["report"]
curves = {title: {"two branches": [100 * np.array(values_of(runs, key)) for runs in grid.values()]}
          for title, key in PANELS.items()}
dotted = {title: {"CutOut, no branch": 100 * np.mean(values_of(cutout or grid[0.0], key))} for title, key in PANELS.items()}
dotted = dotted if cutout else None
show(plots.panels(list(grid), curves, "λ", dotted),
     f"{listed(PANELS)} over λ, with intervals over seeds, and a dotted line for CutOut without the second branch")

# %% [markdown]
r"""
(*True error* is the calibration error against the known posterior, without label noise. The
[NLL](../docs/glossary.md#nll-negative-log-likelihood) is in hundredths of a nat, so that it fits the scale of the others.)

It is easy to see too much in such curves. The paired differences are more precise: the network of each seed at $\lambda$ minus
the network of the same seed at 0.
"""

# %% tags=["report"]
differences = {(title, lam): paired_difference(values_of(runs, key), values_of(grid[0.0], key))
               for title, key in PANELS.items() for lam, runs in grid.items() if lam > 0}


def cell(d):
    mark = "" if d.verdict == "not detected" else f" {d.verdict}"
    return f"{100 * d.mean:+.2f} [{100 * d.low:+.2f}, {100 * d.high:+.2f}]{mark}"


pd.DataFrame({title: {f"λ = {lam:g}": cell(differences[title, lam]) for lam in grid if lam > 0} for title in PANELS})

# %% tags=["report"]
verdicts = pd.Series({place: d.verdict for place, d in differences.items()})
detected = verdicts[verdicts != "not detected"]
say(f"These are **{len(differences)} intervals** at 95 %, and **{len(detected)}** of them exclude 0. If λ had no effect, about "
    f"{0.05 * len(differences):.1f} would exclude 0 by chance. They would tend to come together, because all of them share the "
    "same five baselines.")
if DATA == "scenes" and profile() != "smoke":
    lower = {title: [lam for lam in (0.03, 0.1, 0.3, 1.0, 3.0, 10.0) if verdicts[title, lam] == "lower"] for title in PANELS}
    ECES = ("ECE class-wise, %", "ECE pooled, %", "true error pooled, %")
    assert all(lower[title] == [0.3, 1.0, 3.0, 10.0] for title in ECES) and lower["NLL, 0.01 nats"] == [1.0, 10.0]
    assert len(detected) == 14 and differences["mAP, %", 10.0].mean < -0.01

# %% [markdown]
r"""
On `scenes`, 14 differences are detected, far more than chance explains, and neighbouring values of $\lambda$ agree:

- From $\lambda = 0.3$ on, the branch lowers the class-wise ECE, the pooled ECE and the true error. At 10 the pooled ECE is about
  one point lower.
- The NLL is detectably lower at 1 and at 10.
- No change of the mAP is detected, but at 3 and 10 its mean is more than a point lower and its interval barely holds 0.
- At the paper's $\lambda = 0.1$ nothing is detected.

**Think:** a network that answers every image with the frequency of each class has an ECE near 0 and recognises nothing. So a
network can lower its ECE by giving up knowledge. Which columns of the table would show this?

<details><summary>Answer</summary>
mAP, which falls when the order of the images gets worse, and the NLL, which measures calibration and knowledge together. The
ECE alone cannot show it.
</details>

Now check your predictions.
"""

# %% tags=["learn"]
mAPs = {lam: values_of(runs, "mAP") for lam, runs in grid.items()}
ECEs = {lam: values_of(runs, "ECE_pooled") for lam, runs in grid.items()}
check_choice("mAP", guess_map, mAPs)
check_choice("pooled ECE", guess_ece, ECEs, higher_is_better=False)

# %% [markdown]
r"""
### Which λ would you have chosen?

If we picked the best $\lambda$ from the test curves, we would overrate it: the best of several noisy means is high partly by
luck. An honest search chooses on **validation** and reports on **test** ([splits](../docs/glossary.md#split)).
"""

# %% tags=["learn"]
def best_on_validation(key, higher_is_better):
    means = {lam: np.mean(values_of(runs, key, "val")) for lam, runs in grid.items()}
    return (max if higher_is_better else min)(means, key=means.get)


choices = {"mAP": best_on_validation("mAP", True), "NLL": best_on_validation("NLL", False)}

# %% tags=["report"]
for key, lam in choices.items():
    say(f"By **{key}**, validation chooses **λ = {lam:g}**" + (": no branch at all." if lam == 0 else "."))
if any(choices.values()):
    display(pd.DataFrame({f"on test: λ = {lam:g} minus λ = 0": {title: cell(differences[title, lam]) for title in PANELS}
                          for lam in choices.values() if lam > 0}).T)
if DATA == "scenes" and profile() != "smoke":
    assert choices == {"mAP": 0.03, "NLL": 10.0}
    assert not any(lam == 0.03 for _, lam in detected.index)

# %% [markdown]
r"""
On `scenes`, the choice by mAP is $\lambda = 0.03$, and on test it changes nothing that five seeds detect. The choice by NLL is
$\lambda = 10$, the largest we trained, so a wider grid might have chosen more. On test it lowers every calibration error.

One doubt remains. The five networks that won on validation are the same ones that we report on test. If they won by a lucky
start, they are lucky on test as well. A stricter test would train new seeds after the choice.

Let us also compare with something simple. CutOut changes the pictures, not the loss, and needs one line of code:
"""

# %% tags=["report"]
rivals = {f"λ = {lam:g}": grid[lam] for lam in dict.fromkeys(choices.values()) if lam > 0}
if cutout:
    arms = {"CutOut, no branch": cutout} | rivals
    display(pd.DataFrame({f"{name}, minus λ = 0": {title: cell(paired_difference(values_of(runs, key), values_of(grid[0.0], key)))
                                                   for title, key in PANELS.items()} for name, runs in arms.items()}).T)
    against = {name: paired_difference(values_of(runs, "ECE_pooled"), values_of(cutout, "ECE_pooled"))
               for name, runs in rivals.items()}
    for name, gap in against.items():
        say(f"Pooled ECE of {name} minus that of CutOut: {in_units(gap)}.")
    if DATA == "scenes" and profile() != "smoke":
        assert [gap.verdict for gap in against.values()] == ["higher", "not detected"]
else:
    say("No networks with CutOut are stored for this folder.")

# %% [markdown]
r"""
On `scenes`, CutOut raises the mAP by two points and lowers the pooled ECE by more than a point. The branch at $\lambda = 10$ is
about as well calibrated as CutOut (no difference is detected), but it does not raise the mAP.

### What happens to both terms during training

The history of a run holds both terms of Eq. 12, on the training images. For the smallest and the largest $\lambda$:
"""

# %% tags=["report"]
shown = [lam for lam in grid if lam > 0]
shown = shown[:1] + shown[-1:]
both_terms = {f"{name}, λ = {lam:g}": np.mean([[row[key] for row in r.history] for r in grid[lam]], axis=0)
              for lam in shown for name, key in (("binary cross-entropy", "ova"), ("PAL-N", "pal_n"))}
epochs = range(1, len(grid[shown[0]][0].history) + 1)
show(plots.lines(epochs, both_terms, "epoch", "nats per training image", "mean over five seeds", markers=False),
     "Binary cross-entropy and PAL-N over the epochs of training, for a small and a large λ")

# %% tags=["report"]
final = {lam: [r.history[-1]["ova"] for r in runs] for lam, runs in grid.items()}
change = paired_difference(final[shown[-1]], final[0.0])
display(pd.DataFrame({"nats per training image, after the last epoch": {name: f"{values[-1]:.3f}"
                                                                         for name, values in both_terms.items()}}))
say(f"After the last epoch, the binary cross-entropy on the training images at λ = {shown[-1]:g} minus that at λ = 0: "
    f"{in_units(change, 1, 3, ' nats')}.")
assert DATA != "scenes" or profile() == "smoke" or change.verdict == "higher"

# %% [markdown]
r"""
If a term is near zero, the network has memorised its training labels, the difficult ones too. On `scenes`, the classifier at
$\lambda = 10$ fits its training labels less tightly than the baseline. A network that memorises less tends to be less
confident. This is how any regulariser works, and CutOut is one.

**Think:** the two PAL-N curves differ much less than their $\lambda$ do. Why? Which part of the network does $\lambda$ matter for?

<details><summary>Answer</summary>
The layers of the calibration branch get their gradient from PAL-N alone, and Adam divides each gradient by its own size. So a
factor hardly changes their steps. $\lambda$ matters for the backbone, where the gradients of both losses are added.
</details>
"""

# %% [markdown]
r"""
### Exercise 03.3

Write the honest search as a function. `val` and `test` map each λ to its mAPs, one per seed, in the same order; 0.0 is among
the keys. Choose the λ with the best mean on validation, and return four numbers: that λ, and on **test** the mean
**paired** difference to λ = 0 with both ends of its 95 % interval. With few seeds, the interval is Student's:
`scipy.stats.t.ppf(0.975, n - 1)` times the standard error of the differences; or use `paired_difference`.
"""

# %% exercise="03.3"
def my_search(val, test):
    return ...

# %% solution="03.3"
def my_search(val, test):
    chosen = max(val, key=lambda lam: np.mean(val[lam]))
    found = paired_difference(test[chosen], test[0.0])
    return chosen, found.mean, found.low, found.high

# %% mistake="03.3" says="chosen on the test images"
def my_search(val, test):
    chosen = max(test, key=lambda lam: np.mean(test[lam]))
    found = paired_difference(test[chosen], test[0.0])
    return chosen, found.mean, found.low, found.high

# %% mistake="03.3" says="that of validation"
def my_search(val, test):
    chosen = max(val, key=lambda lam: np.mean(val[lam]))
    found = paired_difference(val[chosen], val[0.0])
    return chosen, found.mean, found.low, found.high

# %% mistake="03.3" says="as if the seeds were not paired"
def my_search(val, test):
    chosen = max(val, key=lambda lam: np.mean(val[lam]))
    a, b = np.array(test[chosen]), np.array(test[0.0])
    half = 2.306 * np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / len(a))  # 8 degrees of freedom
    return chosen, (a - b).mean(), (a - b).mean() - half, (a - b).mean() + half

# %% mistake="03.3" says="1.96"
def my_search(val, test):
    chosen = max(val, key=lambda lam: np.mean(val[lam]))
    d = np.array(test[chosen]) - np.array(test[0.0])
    half = 1.96 * d.std(ddof=1) / np.sqrt(len(d))
    return chosen, d.mean(), d.mean() - half, d.mean() + half

# %% mistake="03.3" says="the largest λ"
def my_search(val, test):
    chosen = max(val)
    found = paired_difference(test[chosen], test[0.0])
    return chosen, found.mean, found.low, found.high

# %% mistake="03.3" says="best single seed"
def my_search(val, test):
    chosen = max(val, key=lambda lam: max(val[lam]))
    found = paired_difference(test[chosen], test[0.0])
    return chosen, found.mean, found.low, found.high

# %% mistake="03.3" says="the first seed decides"
def my_search(val, test):
    chosen = max(val, key=val.get)
    found = paired_difference(test[chosen], test[0.0])
    return chosen, found.mean, found.low, found.high

# %% mistake="03.3" says="the most significant one"
def my_search(val, test):
    gaps = {lam: paired_difference(val[lam], val[0.0]) for lam in val if lam > 0}
    chosen = max(gaps, key=lambda lam: gaps[lam].mean / (gaps[lam].high - gaps[lam].mean))
    found = paired_difference(test[chosen], test[0.0])
    return chosen, found.mean, found.low, found.high

# %% mistake="03.3" says="validation and test are pooled"
def my_search(val, test):
    chosen = max(val, key=lambda lam: np.mean(val[lam] + test[lam]))
    found = paired_difference(test[chosen], test[0.0])
    return chosen, found.mean, found.low, found.high

# %% mistake="03.3" says="expected four numbers, (λ, mean difference, low, high); 1 of them is missing"
def my_search(val, test):
    chosen = max(val, key=lambda lam: np.mean(val[lam]))
    found = paired_difference(test[chosen], test[0.0])
    return found.mean, found.low, found.high

# %% mistake="03.3" says="the PairedDifference itself"
def my_search(val, test):
    chosen = max(val, key=lambda lam: np.mean(val[lam]))
    return paired_difference(test[chosen], test[0.0])

# %% tags=["learn"]
check("03.3", my_search)

# %% [markdown]
r"""
## 9. Average against max pooling

The paper does not say how the feature map becomes one vector ([pooling](../docs/glossary.md#pooling)). The released code takes
the **maximum** over the map; we take the average. Does this change the effect of $\lambda$? We compare four recipes on `scenes`:
"""

# %% tags=["report"]
pooled = {(pooling, lam): [load_or_run(recipe) for recipe in two_branch(lam, pooling=pooling)]
          for pooling in ("avg", "max") for lam in (0.0, 0.1)}
pd.DataFrame({f"{pooling} pooling, λ = {lam:g}": {"mAP, %": spread(values_of(runs, "mAP")),
                                                  "ECE pooled, %": spread(values_of(runs, "ECE_pooled"))}
              for (pooling, lam), runs in pooled.items()}).T

# %% tags=["report"]
rows = {}
for key, name in (("mAP", "mAP, points"), ("ECE_pooled", "pooled ECE, points")):
    by = {place: np.array(values_of(runs, key)) for place, runs in pooled.items()}
    effect = {pooling: by[pooling, 0.1] - by[pooling, 0.0] for pooling in ("avg", "max")}
    gaps = {"max minus average pooling, λ = 0": paired_difference(by["max", 0.0], by["avg", 0.0]),
            "effect of the branch, average pooling": paired_difference(by["avg", 0.1], by["avg", 0.0]),
            "effect of the branch, max pooling": paired_difference(by["max", 0.1], by["max", 0.0]),
            "difference of the two effects": paired_difference(effect["max"], effect["avg"])}
    rows[name] = {words: cell(gap) for words, gap in gaps.items()}
    if profile() != "smoke":
        first, *rest = (gap.verdict for gap in gaps.values())
        assert first == {"mAP": "lower", "ECE_pooled": "higher"}[key] and set(rest) == {"not detected"}
pd.DataFrame(rows)

# %% [markdown]
r"""
Max pooling costs two points of mAP and adds two points of pooled ECE. The branch at $\lambda = 0.1$ has no detected effect with
either pooling. The last row answers the question: the two effects do not differ detectably. "Significant with one pooling, not
with the other" would be no proof of a difference. For that, the *difference of the two effects* must exclude 0.

## 10. The same on other pictures

`digits` is composed from scanned handwriting. There we trained three values of $\lambda$.
"""

# %% tags=["report"]
elsewhere = {data: {lam: [load_or_run(recipe) for recipe in recipes] for lam, recipes in sweep(data).items()}
             for data in ("scenes", "digits")}
pd.DataFrame({f"λ = {lam:g}": {title: spread(values_of(runs, key)) for title, key in PANELS.items()
                               if key in runs[0].metrics["test"]} for lam, runs in elsewhere["digits"].items()}).T

# %% tags=["report"]
KEYS = {"mAP": "mAP, points", "ECE_pooled": "pooled ECE, points", "ECE": "class-wise ECE, points"}
effects = {(data, lam, key): paired_difference(values_of(runs[lam], key), values_of(runs[0.0], key))
           for lam in (0.1, 1.0) for data, runs in elsewhere.items() for key in KEYS}
display(pd.DataFrame({f"{data}, λ = {lam:g} minus λ = 0": {words: cell(effects[data, lam, key]) for key, words in KEYS.items()}
                      for data, lam, _ in effects}).T)
if profile() != "smoke":
    assert all((gap.verdict == "lower") == (lam == 1.0 and key != "mAP") for (_, lam, key), gap in effects.items())

# %% [markdown]
r"""
Both data sets agree. At $\lambda = 0.1$ nothing is detected. At $\lambda = 1$ the pooled ECE is about 0.3 points lower, the
class-wise ECE is lower as well, and no change of the mAP is detected. "Not detected" does not prove that there is no effect. It
limits the size: we would have seen an effect that lies well outside the interval.

### Larger and smaller networks (Table 2)

The paper says that the branch helps networks of every size, and that it helps the images with *Difficult* labels more than the
others. On VOC2007 it prints for ResNet-18 a mAP of 88.91 without and 89.50 with the branch, and 83.77 and 84.72 on the
*Difficult* images. Our `small_narrow` has about a quarter of the weights of `small`, and `small_wide` has four times as many:
"""

# %% tags=["report"]
from udlib.course.recipes import NETWORKS, by_size

of_size = {network: (by_size()[network, 0.1], by_size()[network, 0.0]) for network in NETWORKS}
train_missing({network: with_lam + without for network, (with_lam, without) in of_size.items()})
columns = {"mAP": "mAP, points", "mAP_difficult": "mAP Difficult, points", "ECE_pooled": "pooled ECE, points"}
show_contrasts(of_size, columns, "λ = 0.1 minus λ = 0 on scenes, five seeds")
assert "**" not in "".join(text for row in contrast_table(of_size, columns)[1:] for text in row) or profile() == "smoke"

# %% [markdown]
r"""
At the printed $\lambda = 0.1$ the branch has no detected effect at any size.

## 11. On photographs, the paper's case

The paper's networks start from ImageNet and learn from photographs. `photos` is the same at a size that two processor cores can
train: the 2,693 pictures of COCO's validation set that show a person, with 29 classes. The network is an EfficientNet-Lite0 with
ImageNet weights, [fine-tuned](../docs/glossary.md#fine-tuning) at 128 px for ten epochs.
[The data page](../data/README.md#on-photos) says how we chose this setup, from the baseline alone. The photographs may not be
passed on, so only labels and results ship.

Again we ask what the branch changes, on five seeds:
"""

# %% tags=["report"]
from udlib.course.evidence import differences as paired_on, evidence_figure, evidence_table
from udlib.course.photo_arms import photo_sweep
from udlib.figures.text import as_markdown

on_photos = {f"λ = {lam:g}" if lam else "baseline": recipes for lam, recipes in photo_sweep().items()}
HEADS = {"mAP": "mAP, %", "mAP_difficult": "mAP Difficult, %", "ECE_pooled": "pooled ECE, %",
         "overconfidence": "overconfidence, points", "NLL": "NLL, nats", "CF1": "CF1 at p ≥ 0.5, %"}
say(as_markdown(evidence_table(on_photos, HEADS, "baseline")))

# %% tags=["report"]
in_figure = {"mAP": "mAP", "ECE_pooled": "pooled ECE", "overconfidence": "overconfidence"}
show(evidence_figure(on_photos, in_figure, "baseline"),
     "Differences of six values of λ to the baseline on photographs, each with a 95 % interval over five seeds")

# %% [markdown]
r"""
We found this on photographs:

- At the paper's $\lambda = 0.1$ no change is detected, neither in accuracy nor in calibration. From $\lambda = 1$ on, the pooled
  ECE is lower. From 3 on, the overconfidence is lower too.
- At $\lambda = 10$ both are about half those of the baseline. The mAP over all images shows no detected change, and the mAP of
  the images with difficult labels is higher. So we do see the better calibration and the gain on difficult images that the paper
  reports, but at a hundred times its weight. We do not see its gain in mAP over all images.
- A less confident network says *yes* less often. At $\lambda = 10$ CF1, which counts every answer with $p \geq 0.5$ as a *yes*, is
  two and a half points lower. (A temperature would change no *yes* into a *no*.)
- At $\lambda = 29$ the pooled ECE is less than a third of the baseline's. But the mAP is a point lower than at 10, and the NLL is
  higher.

Why do we try such large weights? The released code uses $\lambda = 1$ beside a mean over the classes. With 29 classes, that is
29 in the paper's scale (section 7). (It is the same loss up to a factor, but not the same training: the optimiser is another
one, and clipping acts differently.) A third of that worked best here, and validation would have chosen it, by mAP and by NLL.

Two warnings. We added 29 after we had seen four seeds at 10. And the gain on difficult images is one of many intervals, and it
is gone at 29. We have not tested why a large $\lambda$ improves the calibration.
"""

# %% tags=["report"]
gaps = {key: paired_on(on_photos, "baseline", key) for key in HEADS}
seen = {key: [gap.verdict for gap in by_name.values()] for key, by_name in gaps.items()}
assert set(seen["mAP"]) == {"not detected"} and seen["ECE_pooled"] == 2 * ["not detected"] + 4 * ["lower"]
assert seen["overconfidence"] == 3 * ["not detected"] + 3 * ["lower"] and seen["CF1"][-2:] == ["lower", "lower"]
assert gaps["mAP_difficult"]["λ = 10"].verdict == "higher" and gaps["mAP_difficult"]["λ = 29"].verdict == "not detected"
heavier = {key: paired_on({"10": on_photos["λ = 10"], "29": on_photos["λ = 29"]}, "10", key)["29"] for key in ("mAP", "NLL")}
assert (heavier["mAP"].verdict, heavier["NLL"].verdict) == ("lower", "higher")
pairs = {f"{name} minus baseline": (on_photos[name], on_photos["baseline"]) for name in ("λ = 1", "λ = 10", "λ = 29")}
pairs["λ = 29 minus λ = 10"] = (on_photos["λ = 29"], on_photos["λ = 10"])
show_contrasts(pairs, {key: f"{words}, points" for key, words in
                       {**in_figure, "mAP_difficult": "mAP Difficult", "CF1": "CF1"}.items()})

# %% tags=["report"]
from udlib.course.measurements import metric_values

on_val = {name: [np.mean(metric_values(recipes, f"val {key}")) for key in ("mAP", "NLL")] for name, recipes in on_photos.items()}
assert max(on_val, key=lambda name: on_val[name][0]) == min(on_val, key=lambda name: on_val[name][1]) == "λ = 10"
pd.DataFrame({name: {"mAP on validation, %": f"{100 * score:.1f}", "NLL on validation, nats": f"{nll:.4f}"}
              for name, (score, nll) in on_val.items()}).T

# %% [markdown]
r"""
## 12. Explore

The sections above show means over seeds. Now look at single networks, with one slider for $\lambda$ and one for the
[seed](../docs/glossary.md#seed). The smallest $\lambda$ stays in the picture for comparison, and the table below lists the
classes.
"""

# %% tags=["report"]
from udlib.course.explorers import LambdaExplorer

explorer = LambdaExplorer(grid)
assert explorer.value == (0.0, 0)
try:
    explorer.move(λ=0.2)
except ValueError as refused:
    print("no such network:", refused)
else:
    raise AssertionError("a λ that was never trained must be refused, not interpolated")

# %% tags=["report"]
explorer

# %% [markdown]
r"""
- Find a seed at which $\lambda = 1$ has a lower pooled ECE than $\lambda = 0$, but also a lower mAP. Is there a seed at which both
  get better? What would you have concluded from that seed alone?
- Look at *ECE, class-wise, if perfect*: a perfectly calibrated network with these probabilities would show that much. How
  much of the class-wise ECE is left to explain?
- Which class is the most overconfident (last column)? Is it the same class at every $\lambda$?

The next explorer shows the networks of section 11, on photographs. Nobody knows the posterior of their labels, so the true error
is missing.
"""

# %% tags=["report"]
photo_explorer = LambdaExplorer({lam: [load_or_run(r) for r in recipes] for lam, recipes in photo_sweep().items()})
photo_explorer

# %% [markdown]
r"""
- Move $\lambda$ from 0 to 10 at one seed. Which changes more, the mAP or the pooled ECE? Is it the same at another seed?
- Find a class with few photographs. How much does its average precision change from seed to seed, and how much from $\lambda$ to
  $\lambda$?

### Exercise 03.4 (optional)

Section 7 once more. Somebody trained with the released mean at weight `released`, on `num_classes` classes. Return the $\lambda$ that
gives the same gradient *direction* in the paper's scale.
"""

# %% exercise="03.4"
def my_paper_lambda(released, num_classes):
    return ...

# %% solution="03.4"
def my_paper_lambda(released, num_classes):
    return released * num_classes

# %% mistake="03.4" says="the other way round"
def my_paper_lambda(released, num_classes):
    return released / num_classes

# %% mistake="03.4" says="halves both terms"
def my_paper_lambda(released, num_classes):
    return released * num_classes / 2

# %% tags=["learn"]
check("03.4", my_paper_lambda)

# %% [markdown]
r"""
### Exercise ★★★ (open): design a control

On photographs the branch at $\lambda = 10$ lowers the calibration error, and we have not tested why. Two explanations: (a)
PAL-N teaches the shared features something about the labels. (b) Any heavy second loss keeps the classifier from fitting its
training labels, and a network that has fitted them less is less overconfident. Design an experiment that tells (a) from (b).

One point each:

1. There is an arm with the same $\lambda$ whose branch can teach nothing about the image.
2. There is an arm without a branch that fits its training labels as little as $\lambda = 10$ does.
3. You predict the outcome under (a) and under (b) before training.
4. You measure the training loss and the mAP beside the calibration, on five paired seeds.

<details><summary>A worked answer</summary>

Arm 1: the branch gets the labels of *another* image, shuffled anew in each epoch: there is a second loss of that weight, and
no information. Arm 2: no branch, stopped at the epoch at which its training BCE equals the final one of $\lambda = 10$, which
is chosen on training images. Under (b) both arms are about as well calibrated as $\lambda = 10$. Under (a) neither is.
Compare pooled ECE, overconfidence and mAP, each paired with $\lambda = 10$ by seed. But arm 1 may spoil the features:
then its mAP falls, and its calibration says little. That is why we need arm 2.

</details>

## Summary

- PAL-N picks one positive at random and solves a single-label problem. With a **full** softmax its best answer is $z'$:
  the chance that each label is the one picked.
- In the paper's **partial** softmax each positive competes only with the negatives, and then the best answer is *not* $z'$.
  For labels that are independent given the picture, the best answer is the classifier's own logits, up to a shift.
- A shift of all logits changes nothing, so the branch cannot give a probability. It is dropped at test time, and it acts only
  through the shared features.
- A value of $\lambda$ says little without the scale of the other loss: a sum over the classes, or their mean.
- On `scenes`, no change is detected at the printed $\lambda = 0.1$. From 0.3 on the calibration error is lower, and no change of
  the mAP is detected. CutOut lowers the pooled ECE about as much as $\lambda = 10$, and it raises the mAP.
- On photographs, no change is detected at the printed $\lambda = 0.1$. At 10 the pooled ECE is half the baseline's and no change
  of the mAP is detected, but CF1 at $p \ge 0.5$ is lower.
- Choose $\lambda$ on validation, report it on test, pair by seed, and say how many intervals you computed.

The table lists what the paper claims, what we add, and what we measured: a paired difference over five seeds for each line, and
its [verdict](../docs/glossary.md#verdict).
"""

# %% tags=["report"]
from udlib.course.verdicts import calibration_claims, judge

rows = []
for claim in calibration_claims():
    for recipe in (*claim.recipes, *claim.against):
        load_or_run(recipe)
    try:
        judgement = judge(claim)
    except (KeyError, ValueError):  # a network that never says yes has no overconfidence
        continue
    numbers = [f"{100 * value:+.2f}" for value in judgement.difference[:3]]
    rows.append([claim.data, claim.question, claim.source, *numbers, judgement.verdict])
pd.DataFrame(rows, columns=["data", "claim", "who says so", "points", "from", "to", "verdict"]).set_index("data")

# %% tags=["report"]
holding = [row for row in rows if row[-1] == "holds"]
say(f"{len(holding)} of {len(rows)} claims hold. If nothing had an effect, about {0.05 * len(rows):.1f} of {len(rows)} intervals "
    "would exclude 0 by chance. (NLL: a point is 0.01 nats.)")
if profile() != "smoke":
    assert (len(holding), len(rows)) == (5, 23) and {row[-1] for row in rows} == {"holds", "not detected"}
    assert not any(row[2].startswith("UD") for row in holding)

# %% [markdown]
r"""
Five claims hold, and all five are ours: at $\lambda = 1$ the branch lowers the pooled ECE and the NLL, on `scenes` and on `digits`,
and CutOut alone lowers the pooled ECE more than $\lambda = 0.1$ does. For every claim of the paper at $\lambda = 0.1$, no effect is detected
here.

Why does the branch lower the calibration error, or not lower it? Lesson 04 examines the paper's argument from PAL-N to
calibration, measures the ECE with care, and compares the branch with simple alternatives.

## Further reading

- L. Song et al., *Handling Difficult Labels for Multi-label Image Classification via Uncertainty Distillation*, ACM
  MM 2021: sections 4.1 and 4.2, Table 2, Fig. 3.
- A. K. Menon et al., *Multilabel reductions: what is my loss optimising?*, NeurIPS 2019: where Proposition 1 comes from.
- D. Mahajan et al., *Exploring the Limits of Weakly Supervised Pretraining*, ECCV 2018: the 1/k softmax.
- C. Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017.
"""
