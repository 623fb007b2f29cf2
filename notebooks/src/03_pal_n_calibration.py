# %% [markdown]
r"""
# 03 · A second branch: PAL-N and calibration

[← 02 · The baseline](02_baseline_bce.ipynb) · [04 · How calibrated? ECE and its traps →](04_ece_analysis.ipynb)

**Aim.** You will know the paper's first idea: a second head with another loss, PAL-N, which should keep the network from being
overconfident about [difficult](../docs/glossary.md#difficult) labels. You will derive the best answer to that loss, find a gap
between the theory and the formula, and measure with error bars what the branch changes.

**Prerequisites.** Lesson 02: binary cross-entropy, mAP, ECE, paired differences. The softmax.

**Time.** About two and a half hours with the exercises. The networks are loaded, not trained.
"""

# %% tags=["setup", "report"]
from itertools import product

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from udlib import losses
from udlib.course.exercises import check, check_choice
from udlib.course.recipes import NETWORKS, SEEDS, baseline, by_size, scales, sweep, tricks, two_branch
from udlib.course.sentences import difference, in_table, say, spread, stored
from udlib.course.store import arrays, dataset, load_model, load_or_run, profile

# %% tags=["setup", "report"]
from udlib.course.evidence import contrast_table, differences, show_contrasts, train_missing
from udlib.datasets.transforms import normalise
from udlib.figures import plots
from udlib.figures.plots import show
from udlib.figures.text import as_markdown
from udlib.losses import ova_loss, pal_n_loss, partial_softmax
from udlib.statistics import paired_difference

# %% [markdown]
r"""
Choose the data set here. Code writes the sentences that hold measured numbers. A "point" is one per cent.
"""

# %% tags=["setup", "learn"]
DATA = "scenes"  # or "digits", or the path of a folder in VOC layout

# %% [markdown]
r"""
## 1. First, a picture

Among all difficult labels of the test images, we take the one where the baseline's probability lies furthest above the known
[posterior](../docs/glossary.md#posterior), the chance that the annotator marks this object at all (lesson 01).
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
This worst case proves nothing. We now take every *yes* ($p \geq 0.5$) of five baselines, and compare the mean probability with
the share of these answers that are right. The difference is the [overconfidence](../docs/glossary.md#overconfidence).
"""

# %% tags=["learn"]
baselines = [load_or_run(baseline(DATA, seed)) for seed in SEEDS]
yes = [r.probabilities() >= 0.5 for r in baselines]
confidence = np.array([r.probabilities()[sure].mean().item() for r, sure in zip(baselines, yes)])
right = np.array([test.targets[sure].double().mean().item() for sure in yes])

# %% tags=["report"]
too_sure = stored(baselines, "overconfidence")
assert np.allclose(confidence - right, too_sure, equal_nan=True)
say(f"Over five seeds, the mean probability of a *yes* is {spread(confidence)} %, and {spread(right)} % of these answers are "
    f"right. The **overconfidence** is {spread(too_sure)} points."
    if np.isfinite(too_sure).all() else "Some of these networks never reach 0.5, so they have no confident answers to judge.")

# %% [markdown]
r"""
The paper's explanation: binary cross-entropy pulls every marked label towards 1, a grey smudge too, until the network has memorised
it. The paper adds a [calibration branch](../docs/glossary.md#calibration-branch): a second head, whose loss depends on *how many*
labels an image has. This loss is multiplied by a weight $\lambda$.

![Backbone and pooling are shared by two branches: the classification branch with BCE, and the calibration branch with PAL-N, whose loss is multiplied by λ before both are added.](images/two_branches.svg)

### Predict

We train with $\lambda$ = 0 (the baseline), 0.03, 0.1 (the paper's choice), 0.3, 1, 3 and 10, five seeds each. On `digits`, with 0,
0.1 and 1. Guess now: which $\lambda$ gives the highest mAP, and which the lowest pooled ECE?
"""

# %% tags=["learn"]
guess_map = ...  # the λ with the highest mAP on the test images
guess_ece = ...  # the λ with the lowest pooled ECE

# %% [markdown]
r"""
## 2. Pick a label, solve an easy problem

With one label per image we would take a softmax over the classes, and its cross-entropy. The **pick-all-labels** loss
([PAL](../docs/glossary.md#pal-pal-n)) takes each positive of an image in turn as if it were the only label. The normalised form,
PAL-N, divides by the number of positives (Eq. 4):

$$\ell_{\mathrm{PAL\text{-}N}} = - \sum_{i=1}^{C} \frac{y_i}{\sum_j y_j} \log f_i$$

Here $f_i$ comes from a softmax. Section 4 says from which one.
"""

# %% tags=["learn"]
y = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0])  # one image: three of five labels are present
f = torch.tensor([0.50, 0.10, 0.20, 0.15, 0.05])  # what a softmax says about it
pal_n = -(y / y.sum() * f.log()).sum()  # Eq. 4
print(f"PAL-N of this image: {pal_n:.4f} nats")

# %% [markdown]
r"""
The weights $y_i / \sum_j y_j$ are those of a random choice: **pick one positive at random**. So Eq. 4 must be the mean loss over
many random picks.
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
In PAL-N, an image with one label weighs as much as an image with five. In binary cross-entropy, every label weighs the same.

**Think:** in which of the two losses does a single label of a crowded image count for more?

<details><summary>Answer</summary>
In binary cross-entropy. In PAL-N, each of five labels counts a fifth of what the only label of an image counts.
</details>

## 3. The best answer to each loss (Proposition 1)

Imagine endless pictures that all look the same, labelled by annotators who differ. Which answer has the lowest mean loss? For binary
cross-entropy it is the share of pictures with label $i$, the **marginal** $P(y_i = 1)$ (Eq. 5, lesson 02). For PAL-N it is,
says Proposition 1 (Eq. 6-7):

$$P(z' = i) = P(y_i = 1) \cdot \mathbb{E}\Big[\frac{1}{1 + \sum_{j \neq i} y_j} \,\Big|\, y_i = 1\Big].$$

This is the chance that we pick label $i$. A label that often appears together with others gets less than its marginal.

We test this in a small world with three classes, in which we know the probability of each set of labels.
"""

# %% tags=["setup", "learn"]
NAMES = ["cup", "book", "lamp"]
LABELS = torch.tensor([y for y in product([0, 1], repeat=3) if any(y)])  # the seven non-empty sets
JOINT = torch.tensor([0.16, 0.10, 0.06, 0.22, 0.18, 0.08, 0.20], dtype=torch.float64)  # P(set)
assert torch.isclose(JOINT.sum(), torch.tensor(1.0).double())
pd.DataFrame(LABELS.numpy(), columns=NAMES).assign(probability=JOINT.numpy())

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
The marginals add up to the mean number of labels. The $z'$ add up to one, because we pick one label.

Now we search the logits with the lowest mean loss. For PAL-N we use a **full softmax**, with all classes in the denominator.
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

# %% tags=["learn"]
one_over_k = losses.one_over_k_softmax_loss
assert torch.allclose(torch.sigmoid(minimise(ova_loss, JOINT)), marginals)
assert torch.allclose(minimise(one_over_k, JOINT).softmax(0), z_prime)
print("best answers: sigmoids give P(y = 1), the full softmax gives P(z' = i)")

# %% [markdown]
r"""
Proposition 1 holds. But the paper trains its branch with another softmax.

## 4. The partial softmax

![For an image with a cup and a book, each positive has all classes in the denominator of its full softmax, and only itself and the two negatives in the denominator of its partial softmax.](images/partial_softmax.svg)

In a full softmax the positives of one image compete: the cup's probability can only grow if the book's shrinks, although both
are right. In the paper's [partial softmax](../docs/glossary.md#partial-softmax) a positive competes only with the negatives
$C_n$ (Eq. 10):

$$f_i = \frac{e^{z_i}}{e^{z_i} + \sum_{j \in C_n} e^{z_j}}, \qquad
L_{ps} = -\frac{1}{|C_p|} \sum_{i \in C_p} \log f_i \quad \text{(Eq. 11)}.$$
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
The two positives of image 2 need not add up to one.

### One masked logsumexp

A loop over positives is slow, and $e^{z}$ overflows for large $z$. A little algebra solves both problems:

$$-\log f_i = \log\Big(1 + \frac{\sum_{j \in C_n} e^{z_j}}{e^{z_i}}\Big) = \mathrm{softplus}\big(\mathrm{LSE}_{C_n}(z) - z_i\big),
\qquad \mathrm{LSE}_{C_n}(z) = \log \sum_{j \in C_n} e^{z_j}.$$

All positives of an image share one $\mathrm{LSE}_{C_n}$, so we mask the positives and compute it once. Two edge cases need a
decision. **Without positives** the loss is 0, with gradient 0. **Without negatives** a positive has no rival: $f_i = 1$, and the
loss is 0 as well.
"""

# %% tags=["learn"]
lse = z.masked_fill(y == 1, -torch.inf).logsumexp(1, keepdim=True)
by_softplus = (y * F.softplus(lse - z)).sum(1) / y.sum(1)
assert torch.allclose(by_softplus, per_image)
huge = 1e4 * z.float()
assert torch.isfinite(pal_n_loss(huge, y)) and not torch.isfinite(huge.exp()).all()
leaf = torch.randn(2, 3, generator=generator).requires_grad_()
edge = torch.tensor([[0, 0, 0], [1, 1, 1]])  # no positives; no negatives
pal_n_loss(leaf, edge).backward()
assert pal_n_loss(leaf, edge) == 0 and (leaf.grad == 0).all()
assert partial_softmax(leaf, edge).tolist() == [[0, 0, 0], [1, 1, 1]]
print("the same losses:", by_softplus.numpy().round(4))

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
Two mistakes that this check looks for are real. The code released with the paper inverts its mask, so that in today's PyTorch all classes enter
the denominator of the first positive. And it divides by the number of labels of the *last* image of the batch. Our library
computes what the paper prints.

### The gradient

Let $q_j$ be a softmax over the negatives alone. The gradient of Eq. 11 is

$$\frac{\partial L_{ps}}{\partial z_i} = -\frac{1 - f_i}{|C_p|} \;\; (i \in C_p), \qquad
\frac{\partial L_{ps}}{\partial z_j} = q_j \cdot \frac{1}{|C_p|} \sum_{i \in C_p} (1 - f_i) \;\; (j \in C_n).$$

Each positive is pulled up in proportion to $1 - f_i$, the part that it still lacks. The negatives are pushed down by the same
total. So the gradients of an image add up to zero, and adding the same number to all its logits changes nothing. (With the
rival of the exercise, it would.)
"""

# %% tags=["learn"]
leaf = z.clone().requires_grad_()
(len(z) * pal_n_loss(leaf, y)).backward()  # the loss is a mean over images, hence the factor
q = z.masked_fill(y == 1, -torch.inf).softmax(1)
pull = y * (1 - f) / y.sum(1, keepdim=True)
assert torch.allclose(leaf.grad, q * pull.sum(1, keepdim=True) - pull)  # the formula
assert torch.allclose(leaf.grad.sum(1), torch.zeros(2).double())  # they cancel in each image
shift = torch.tensor([[5.0], [-3.0]]).double()
assert torch.isclose(pal_n_loss(z + shift, y), pal_n_loss(z, y))
assert not torch.isclose(ova_loss(z + shift, y), ova_loss(z, y))
print(f"PAL-N before and after: {pal_n_loss(z, y):.4f}, {pal_n_loss(z + shift, y):.4f};"
      f" binary cross-entropy: {ova_loss(z, y):.4f}, {ova_loss(z + shift, y):.4f}")

# %% [markdown]
r"""
So this branch ranks the classes of an image, but it cannot say "0.7 for the cup". That is why the new loss gets a second head. It
can change the classifier's probabilities **only through the features that both heads share**.

## 5. The theory does not fit the partial softmax

Proposition 1 is about a loss in which $f$ depends on the picture alone. The denominator of the partial softmax also depends on
the labels $y$, which the network cannot know. Is $z'$ still the best answer?
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

# %% [markdown]
r"""
The best answer to the full softmax is $z'$. For the partial softmax it is something else, and in one case we can derive it.

Compare two pictures that differ in two labels only: the first, $y$, has $i$ but not $j$, and the second, $y'$, has $j$ but not $i$.
In both, $i$ and $j$ meet in a denominator of the same size. The first pulls $i$ up against $j$ with a force proportional to
$P(y)\, e^{z_j}$, and the second pulls the other way with $P(y')\, e^{z_i}$. If the labels are **independent given the picture**,
then $P(y) / P(y') = o_i / o_j$ with the [odds](../docs/glossary.md#odds) $o_i = P(y_i = 1)/P(y_i = 0)$. So all such pairs are in balance at once (and the loss is convex, so this is its minimum) at

$$e^{z_i} \propto o_i, \qquad \text{that is,} \qquad
z_i = \mathrm{logit}\, P(y_i = 1) + \text{the same number for all classes.}$$

Up to a shift, these are the logits that binary cross-entropy asks for. They do not depend on the number of labels. This argument
is ours, so we check it:
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
Its labels depend on each other: which labels an image has says something about the others.
</details>

### Exercise 03.2

Write Eq. 7 for all classes. `labels` (M, C) holds 0 and 1 and lists the sets of a joint distribution, the empty set may be among them, and
`probabilities` (M,) says how probable each is. The answer has shape (C,). No loop is needed.
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
posterior is known. Eq. 7 then needs the distribution of the number of other labels. We add the other classes one at a time.
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
PAL-N learns nothing from an image without labels, so we divide $z'$ by its sum: *given at least one label*.

How far is the trained branch's softmax from each candidate? We sum the absolute differences over the classes (0: equal, 2:
nothing in common), on test images where at least two classes are possible. The candidates come from the **true posterior**, and
from the **same network's sigmoids**, where it does not matter how good the network is.
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
if DATA == "scenes" and profile() != "smoke":
    for by_name in measured.values():
        pairs = list(zip(by_name["z', Eq. 7"], by_name["normalised odds"]))
        assert min(by_name, key=lambda name: np.mean(by_name[name])) == "normalised odds" and len(pairs) == 6
        assert {difference(to_z_prime, to_odds).verdict for to_z_prime, to_odds in pairs} == {"higher"}

# %% tags=["report"]
if measured:
    figure = plots.panels(list(with_branch), {f"from {source}": measured[source] for source in sorted(measured)}, "λ")
    for axes in figure.axes[:len(measured)]:
        axes.set(ylim=(0, None), ylabel="distance")
    figure.tight_layout()
    show(figure, "Distance between the branch's softmax and z', normalised probabilities and normalised odds, over λ")
else:
    say("These runs were stored without the logits of the second branch, so there is nothing to compare here.")

# %% [markdown]
r"""
On `scenes` both comparisons agree: of the three candidates the normalised odds come nearest, and not $z'$.

Is the loss the reason? We need a **control**: the same features and labels, where only the loss differs. We freeze the baseline's
backbone and fit three linear heads on its pooled features: sigmoids with binary cross-entropy, a full softmax, and a partial
softmax. They learn from *validation* images, which the backbone has not memorised, resampled five times. The candidates come from
the first head.
"""

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
KINDS, control = {"full softmax": one_over_k, "partial softmax": pal_n_loss}, {"full softmax": [], "partial softmax": []}
if DATA in ("scenes", "digits"):  # their baseline's network ships
    network = load_model(baseline(DATA))
    with torch.no_grad():
        parts = {split: arrays(run.recipe, split).images[:2000].split(250) for split in ("val", "test")}
        seen, unseen = [torch.cat([network(normalise(x), calibration=False).pooled for x in xs]) for xs in parts.values()]
    seen, unseen = ((x - seen.mean(0)) / (seen.std(0) + 1e-6) for x in (seen, unseen[several[:2000]]))
    labelled = run.labels("val").targets
    for _ in range(5):
        rows = torch.randint(len(seen), (len(seen),), generator=generator)  # the same for all three heads
        wanted = candidates(fit_head(ova_loss, seen[rows], labelled[rows])(unseen).detach().double().sigmoid())
        for kind, loss in KINDS.items():
            answer = fit_head(loss, seen[rows], labelled[rows])(unseen).detach().double().softmax(1)
            control[kind].append({name: (answer - q).abs().sum(1).mean().item() for name, q in wanted.items()})

# %% tags=["report"]
frames = {kind: pd.DataFrame(rows) for kind, rows in control.items() if rows}
if DATA == "scenes" and profile() != "smoke":
    nearest = {kind: rows.mean().idxmin() for kind, rows in frames.items()}
    assert nearest == {"full softmax": "z', Eq. 7", "partial softmax": "normalised odds"}
# mean ± standard deviation of the distance over the five draws; empty for a folder, whose networks do not ship
pd.DataFrame({kind: rows.agg(lambda v: spread(v, scale=1)) for kind, rows in frames.items()}).T

# %% [markdown]
r"""
So the loss is the reason: the full softmax ends nearest to $z'$, and the partial softmax nearest to the normalised odds. For
independent labels, the branch is asked for something that the classifier already knows. It may still help, because it sends a
second gradient into the shared features.

## 6. Two branches (Eq. 12)

Both [heads](../docs/glossary.md#head) stand on the pooled features. The calibration branch is FC → BN → ReLU → FC, and the
losses are added:

$$L = L_b + \lambda\, L_{ps}$$

The partial softmax needs the labels, so at test time the branch is dropped. The classifier's logits stay the same.
"""

# %% tags=["learn"]
from udlib.backbones import backbone
from udlib.heads import DualBranchNet
from udlib.losses import dual_branch_loss

train = arrays(run.recipe, "train")
images, targets = normalise(train.images[:64]), train.targets[:64].float()
torch.manual_seed(0)
network = DualBranchNet(backbone("small"), len(test.classes), embedding=128).eval()
both, alone = network(images), network(images, calibration=False)
assert alone.calibration_logits is None and torch.equal(both.logits, alone.logits)
loss = dual_branch_loss(both, targets, lam=0.1)
assert torch.isclose(loss["total"], loss["ova"] + 0.1 * loss["pal_n"])  # Eq. 12
network.head

# %% [markdown]
r"""
## 7. Sums and means: what does λ multiply?

The paper prints binary cross-entropy as a **sum** over the classes. The released code takes the **mean**, and halves the total.
With a mean, the same $\lambda$ weighs $C$ times more:

$$\frac{1}{2}\Big(\frac{L_b}{C} + \lambda L_{ps}\Big) = \frac{1}{2C}\big(L_b + C \lambda\, L_{ps}\big).$$
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
The factor $1/(2C)$ in front of the whole loss should not matter, because Adam divides each step by the size of the gradient.
That gives a prediction: on `scenes`, with 16 classes, "released, 0.1" should end like "paper, 1.6". One thing may spoil it:
training clips the whole gradient at a fixed length. So we train both scales also **without clipping**, with the same seeds.
"""

# %% tags=["report"]
POINTS = {"mAP": "mAP, points", "ECE_pooled": "pooled ECE, points"}
scaled = train_missing({name.replace("lambda", "λ ="): recipes for name, recipes in scales().items()})
LEFT, RIGHT, FREE = "released, λ = 0.1", "paper, λ = 1.6", ", no clipping"
of_clipping = {"released 0.1 minus paper 1.6": (LEFT, RIGHT), "the same, without clipping": (LEFT + FREE, RIGHT + FREE),
               "released 0.1: with clipping minus without": (LEFT, LEFT + FREE),
               "paper 1.6: with clipping minus without": (RIGHT, RIGHT + FREE),
               "released 0.1 minus paper 0.1": (LEFT, "paper, λ = 0.1")}
of_clipping = {question: (scaled[ours], scaled[theirs]) for question, (ours, theirs) in of_clipping.items()}
show_contrasts(of_clipping, POINTS)
gaps = [differences({"ours": ours, "theirs": theirs}, "theirs", "ECE_pooled")["ours"] for ours, theirs in of_clipping.values()]
if profile() != "smoke":
    assert [gap.verdict for gap in gaps] == ["lower", "not detected", "not detected", "higher", "lower"]
    assert gaps[2][:3] == (0, 0, 0) and -0.003 < gaps[0].mean < -0.002 and all(
        "**" not in row[1] for row in contrast_table(of_clipping, POINTS)[1:])

# %% [markdown]
r"""
With clipping the prediction fails: the pooled ECE of "released, 0.1" is about a quarter of a point lower. Without clipping no
difference is detected, so clipping was the reason. It raises the pooled ECE in the paper's scale, and never acts in the released
one. "Equal up to a factor" is true of the loss, but not always of the *training*.

**Think:** why does clipping act in one scale only?

<details><summary>Answer</summary>
It cuts a gradient that is longer than a fixed length. In the paper's scale every gradient is $2C$ times longer.
</details>

## 8. The sweep

Now everything is fixed except $\lambda$. The figure shows means with 95 % intervals; each tick is a network. The dotted line is a
network **without** a branch, trained with [CutOut](../docs/glossary.md#cutout-random-erasing) (lesson 02).
*True error* is the calibration error against the known posterior. The
[NLL](../docs/glossary.md#nll-negative-log-likelihood) is in hundredths of a nat, to fit the other scales.
"""

# %% tags=["report"]
PANELS = {"mAP, %": "mAP", "mAP Difficult, %": "mAP_difficult", "ECE class-wise, %": "ECE", "ECE pooled, %": "ECE_pooled",
          "true error pooled, %": "true_CE_pooled", "NLL, 0.01 nats": "NLL"}
PANELS = {title: key for title, key in PANELS.items() if key in run.metrics["test"]}
cutout = [load_or_run(recipe) for recipe in tricks(DATA)["both"]] if DATA in ("scenes", "digits") else None
curves = {title: {"two branches": [100 * stored(runs, key) for runs in grid.values()]} for title, key in PANELS.items()}
dotted = {title: {"CutOut, no branch": 100 * stored(cutout or grid[0.0], key).mean()} for title, key in PANELS.items()}
show(plots.panels(list(grid), curves, "λ", dotted if cutout else None),
     f"{'; '.join(PANELS)} over λ, with intervals over seeds, and a dotted line for CutOut without the second branch")

# %% [markdown]
r"""
The paired differences are more precise: the network of each seed at $\lambda$ minus the network of the same seed at 0.
"""

# %% tags=["report"]
def row_of(name, ours, theirs):
    """A row of a table: the paired difference in each of the panels, in points."""
    return [name, *(in_table(difference(stored(ours, key), stored(theirs, key))) for key in PANELS.values())]


HEAD = ["difference [95 % interval], **bold** where it is detected", *(title.replace(", %", ", points") for title in PANELS)]
say(as_markdown([HEAD, *(row_of(f"λ = {lam:g} minus λ = 0", grid[lam], grid[0.0]) for lam in grid if lam > 0)]))

# %% tags=["report"]
verdicts = {key: {lam: difference(stored(runs, key), stored(grid[0.0], key)).verdict for lam, runs in grid.items() if lam > 0}
            for key in PANELS.values()}
if DATA == "scenes" and profile() != "smoke":
    lower = {key: [lam for lam, verdict in by_lam.items() if verdict == "lower"] for key, by_lam in verdicts.items()}
    assert list(grid) == [0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0] and sum(map(len, lower.values())) == 14
    assert all(lower[key] == [0.3, 1.0, 3.0, 10.0] for key in ("ECE", "ECE_pooled", "true_CE_pooled"))
    assert lower["NLL"] == [1.0, 10.0] and not lower["mAP"] and not lower["mAP_difficult"]
    assert "higher" not in {verdict for by_lam in verdicts.values() for verdict in by_lam.values()}
    assert -0.013 < difference(stored(grid[10.0], "ECE_pooled"), stored(grid[0.0], "ECE_pooled")).mean < -0.008
    assert all((stored(grid[lam], "mAP") - stored(grid[0.0], "mAP")).mean() < -0.01 for lam in (3.0, 10.0))

# %% [markdown]
r"""
On `scenes`, 14 of 36 differences are detected; chance alone would give about two.

- From $\lambda = 0.3$ on, the branch lowers all three calibration errors. At 10 the pooled ECE is about one point lower.
- The NLL is lower at 1 and at 10.
- No change of the mAP is detected, but at 3 and 10 its mean is more than a point lower and its interval barely holds 0.
- At the paper's $\lambda = 0.1$ nothing is detected.

**Think:** a network that always answers with the frequency of each class has an ECE near 0 and recognises nothing. Which columns of
the table would show that a network gave up knowledge?

<details><summary>Answer</summary>
mAP, which falls when the order of the images gets worse, and the NLL, which measures calibration and knowledge together.
</details>
"""

# %% tags=["learn"]
mAPs = {lam: stored(runs, "mAP") for lam, runs in grid.items()}
ECEs = {lam: stored(runs, "ECE_pooled") for lam, runs in grid.items()}
check_choice("mAP", guess_map, mAPs)
check_choice("pooled ECE", guess_ece, ECEs, higher_is_better=False)

# %% [markdown]
r"""
### Which λ would you have chosen?

The best $\lambda$ on the test curves is the best partly by luck. An honest search chooses on **validation** and reports on **test**
([splits](../docs/glossary.md#split)).
"""

# %% tags=["learn"]
def best_on_validation(key, best):
    means = {lam: stored(runs, key, "val").mean() for lam, runs in grid.items()}
    return best(means, key=means.get)


choices = {"mAP": best_on_validation("mAP", max), "NLL": best_on_validation("NLL", min)}
choices

# %% [markdown]
r"""
On `scenes`, the choice by mAP is $\lambda = 0.03$, and on test it changes nothing that five seeds detect. The choice by NLL is
$\lambda = 10$, the largest we trained, and on test it lowers every calibration error. CutOut is a simpler rival:
"""

# %% tags=["report"]
most = max(grid)
pairs = {f"λ = {most:g} minus λ = 0": (grid[most], grid[0.0])}
if cutout:
    pairs |= {"CutOut, no branch, minus λ = 0": (cutout, grid[0.0]), f"λ = {most:g} minus CutOut": (grid[most], cutout)}
say(as_markdown([HEAD, *(row_of(name, *pair) for name, pair in pairs.items())]))
if DATA == "scenes" and profile() != "smoke":
    assert choices == {"mAP": 0.03, "NLL": 10.0} and {by_lam[0.03] for by_lam in verdicts.values()} == {"not detected"}
    assert difference(stored(grid[10.0], "ECE_pooled"), stored(cutout, "ECE_pooled")).verdict == "not detected"
    gained, calmed = (difference(stored(cutout, key), stored(grid[0.0], key)) for key in ("mAP", "ECE_pooled"))
    assert gained.low > 0.015 and calmed.high < -0.01

# %% [markdown]
r"""
On `scenes`, CutOut raises the mAP by two points and lowers the pooled ECE by more than a point. The branch at $\lambda = 10$ is
about as well calibrated (no difference is detected), but it does not raise the mAP.

### What happens to both terms during training

Both terms of Eq. 12 on the training images, for the smallest and the largest $\lambda$:
"""

# %% tags=["report"]
shown = [lam for lam in grid if lam > 0]
shown = shown[:1] + shown[-1:]
both_terms = {f"{name}, λ = {lam:g}": np.mean([[row[key] for row in r.history] for r in grid[lam]], axis=0)
              for lam in shown for name, key in (("binary cross-entropy", "ova"), ("PAL-N", "pal_n"))}
epochs = range(1, len(grid[shown[0]][0].history) + 1)
show(plots.lines(epochs, both_terms, "epoch", "nats per training image", "mean over five seeds", markers=False),
     "Binary cross-entropy and PAL-N over the epochs of training, for a small and a large λ")
final = {lam: [r.history[-1]["ova"] for r in grid[lam]] for lam in (0.0, shown[-1])}
assert DATA != "scenes" or profile() == "smoke" or difference(final[shown[-1]], final[0.0]).verdict == "higher"

# %% [markdown]
r"""
A term near zero means that the network has memorised its training labels. On `scenes`, the classifier at $\lambda = 10$ fits them
less tightly than the baseline. A network that memorises less tends to be less confident. Every regulariser works like this, and
CutOut is one.

**Think:** the two PAL-N curves differ much less than their $\lambda$ do. Why?

<details><summary>Answer</summary>
The calibration branch's own layers get their gradient from PAL-N alone, and Adam divides each gradient by its size, so a factor
hardly changes their steps. $\lambda$ matters for the backbone, where the gradients of both losses are added.
</details>

### Exercise 03.3

Write the honest search as a function. `val` and `test` map each λ to a list of mAPs (fractions), one for each seed, in the same
order; 0.0 is among the keys, and may be the best. Choose the λ with the best mean on validation, and return four numbers: that λ, and on **test** the mean
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
## 9. Other sizes, another pooling

The paper says that the branch helps networks of every size, and most of all on images with *Difficult* labels (Table 2).
`small_narrow` has about a quarter of the weights of `small`, and `small_wide` four times as many. The released code takes the
**maximum** over the feature map, and we take the average ([pooling](../docs/glossary.md#pooling)).
"""

# %% tags=["report"]
branched = {network: (by_size()[network, 0.1], by_size()[network, 0.0]) for network in NETWORKS}
branched["small, max pooling"] = tuple(two_branch(lam, pooling="max") for lam in (0.1, 0.0))
train_missing({name: [*ours, *theirs] for name, (ours, theirs) in branched.items()})
columns = {"mAP": "mAP, points", "mAP_difficult": "mAP Difficult, points", "ECE_pooled": "pooled ECE, points"}
show_contrasts(branched, columns, "λ = 0.1 minus λ = 0 on scenes, five seeds")
assert "**" not in "".join(text for row in contrast_table(branched, columns)[1:] for text in row) or profile() == "smoke"

# %% [markdown]
r"""
At the printed $\lambda = 0.1$ the branch has no detected effect at any size, nor with max pooling.

## 10. The same on other pictures

`digits` is composed from scanned handwriting. There we trained three values of $\lambda$.
"""

# %% tags=["report"]
KEYS = {"mAP": "mAP, points", "ECE_pooled": "pooled ECE, points", "ECE": "class-wise ECE, points"}
swept = {data: train_missing(sweep(data)) for data in ("scenes", "digits")}
show_contrasts({f"{data}, λ = {lam:g} minus λ = 0": (swept[data][lam], swept[data][0.0])
                for lam in (0.1, 1.0) for data in swept}, KEYS)
if profile() != "smoke":
    for data, of_lam in swept.items():
        for key in KEYS:
            zero, weak, strong = (stored(map(load_or_run, of_lam[lam]), key) for lam in (0.0, 0.1, 1.0))
            assert difference(weak, zero).verdict == "not detected"
            assert difference(strong, zero).verdict == ("not detected" if key == "mAP" else "lower")

# %% [markdown]
r"""
Both data sets agree. At $\lambda = 0.1$ nothing is detected. At $\lambda = 1$ the pooled ECE is about 0.3 points lower, the
class-wise ECE is lower as well, and no change of the mAP is detected. "Not detected" does not mean "no effect": an effect may
be there, too small for five seeds.

## 11. On photographs, the paper's case

The paper's networks start from ImageNet and learn from photographs. We do the same at a size that two processor cores can train:
`photos` are the 2,693 pictures of COCO's validation set that show a person, with 29 classes. The network is an EfficientNet-Lite0
with ImageNet weights, [fine-tuned](../docs/glossary.md#fine-tuning) at 128 px for ten epochs.
[The data page](../data/README.md#on-photos) says how we chose this setup.
"""

# %% tags=["report"]
from udlib.course.evidence import evidence_figure, show_evidence
from udlib.course.measurements import metric_values
from udlib.course.photo_arms import photo_sweep

on_photos = {f"λ = {lam:g}" if lam else "baseline": recipes for lam, recipes in photo_sweep().items()}
HEADS = {"mAP": "mAP, %", "mAP_difficult": "mAP Difficult, %", "ECE_pooled": "pooled ECE, %",
         "overconfidence": "overconfidence, points", "NLL": "NLL, nats", "CF1": "CF1 at p ≥ 0.5, %"}
show_evidence(on_photos, HEADS, "baseline", "Photographs, test split, five seeds")
in_figure = {"mAP": "mAP", "ECE_pooled": "pooled ECE", "overconfidence": "overconfidence"}
show(evidence_figure(on_photos, in_figure, "baseline"),
     "Differences of six values of λ to the baseline on photographs, each with a 95 % interval over five seeds")

# %% [markdown]
r"""
- At the paper's $\lambda = 0.1$ no change is detected. From 1 on, the pooled ECE is lower. From 3 on, the overconfidence is lower
  too.
- At $\lambda = 10$ both are about half the baseline's. No change of the mAP is detected, and the mAP of the images with difficult
  labels is higher. So we see the better calibration that the paper reports, but at a hundred times its weight.
- A less confident network says *yes* less often. At $\lambda = 10$ CF1, which counts $p \geq 0.5$ as a *yes*, is two and a half
  points lower.
- At $\lambda = 29$ the pooled ECE is less than a third of the baseline's. But the mAP is a point lower than at 10, and the NLL is
  higher.

Why 29? The released code's $\lambda = 1$ beside a mean over 29 classes is 29 in the paper's scale (section 7). We added it after we
had seen four seeds at 10. Validation would have chosen 10, by mAP and by NLL. The gain on difficult images is detected at 0.3
and at 10, but not at 1, 3 or 29, and these are a few of many intervals. We have not tested why a large $\lambda$ improves the calibration.
"""

# %% tags=["report"]
gaps = {key: differences(on_photos, "baseline", key) for key in HEADS}
seen = {key: [gap.verdict for gap in by_name.values()] for key, by_name in gaps.items()}
assert {of_lam[0] for of_lam in seen.values()} == set(seen["mAP"]) == {"not detected"}
assert seen["ECE_pooled"] == 2 * ["not detected"] + 4 * ["lower"] and seen["CF1"][-2:] == ["lower", "lower"]
assert seen["overconfidence"] == 3 * ["not detected"] + 3 * ["lower"] and -0.03 < gaps["CF1"]["λ = 10"].mean < -0.02
assert [name for name, gap in gaps["mAP_difficult"].items() if gap.verdict == "higher"] == ["λ = 0.3", "λ = 10"]
means = {key: {name: np.mean(metric_values(recipes, key)) for name, recipes in on_photos.items()}
         for key in ("ECE_pooled", "overconfidence", "val mAP", "val NLL")}
assert all(0.4 < means[key]["λ = 10"] / means[key]["baseline"] < 0.6 for key in ("ECE_pooled", "overconfidence"))
assert means["ECE_pooled"]["λ = 29"] < means["ECE_pooled"]["baseline"] / 3
assert max(means["val mAP"], key=means["val mAP"].get) == min(means["val NLL"], key=means["val NLL"].get) == "λ = 10"
heavier = {"λ = 29 minus λ = 10": (on_photos["λ = 29"], on_photos["λ = 10"])}
heads = {**POINTS, "NLL": "NLL, nats"}
show_contrasts(heavier, heads)
assert all("**" in cell for cell in contrast_table(heavier, heads)[1][1:])

# %% [markdown]
r"""
## 12. Explore

Now look at single networks, with one slider for $\lambda$ and one for the [seed](../docs/glossary.md#seed). The smallest $\lambda$
stays in the picture. Noise makes an ECE too large, most of all the class-wise one, and its interval corrects for that: so an
estimate may lie above its own interval (lesson 04, trap 5).
"""

# %% tags=["report"]
from udlib.course.explorers import LambdaExplorer

explorer = LambdaExplorer(grid)
assert explorer.value == (0.0, 0)

# %% tags=["report"]
explorer

# %% [markdown]
r"""
- Find a seed at which $\lambda = 1$ has a lower pooled ECE than $\lambda = 0$, but also a lower mAP. At which seed do both get
  better?
- *ECE, class-wise, if perfect* is what a perfectly calibrated network would show. How much of the class-wise ECE is left to
  explain?
- Which class is the most overconfident (last column)? Is it the same class at every $\lambda$?

The next explorer shows the networks of section 11. At the start, the class-wise ECE lies above its own interval.
"""

# %% tags=["report"]
photo_explorer = LambdaExplorer({lam: [load_or_run(r) for r in recipes] for lam, recipes in photo_sweep().items()})
noisy = photo_explorer.measure(0.0, 0)["ECE, class-wise"]
assert noisy.estimate > noisy.high
photo_explorer

# %% [markdown]
r"""
- Move $\lambda$ from 0 to 10. Which changes more, the mAP or the pooled ECE? Is it the same at another seed?
- Find a class with few photographs. Does its average precision change more with the seed or with $\lambda$?

### Exercise 03.4 (optional)

Somebody trained with the released mean at weight `released`, on `num_classes` classes. Return the $\lambda$ that
gives the same gradient, up to a factor, in the paper's scale (section 7).
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

Arm 1: the branch gets the labels of *another* image, shuffled anew in each epoch. Arm 2: no branch, stopped at the epoch at which
its training BCE equals the final one of $\lambda = 10$. Under (b) both arms are about as well calibrated as $\lambda = 10$. Under
(a) neither is. Compare pooled ECE, overconfidence and mAP, each paired with $\lambda = 10$ by seed. But arm 1 may spoil the
features: then its mAP falls, and its calibration says little.

</details>

## Summary

- PAL-N picks one positive at random and solves a single-label problem. With a **full** softmax its best answer is $z'$: the chance
  that each label is the one picked.
- With the paper's **partial** softmax and labels that are independent given the picture, it is the classifier's own logits, up to
  a shift.
- The branch cannot give a probability. It is dropped at test time, and acts only through the shared features.
- A value of $\lambda$ says little without the scale of the other loss.
- At the printed $\lambda = 0.1$ no change is detected, neither on `scenes` nor on photographs.
- On `scenes`, from 0.3 on the calibration error is lower, and no change of the mAP is detected. CutOut lowers the pooled ECE
  about as much as $\lambda = 10$, and it raises the mAP.
- On photographs, at 10, the pooled ECE is half the baseline's and no change of the mAP is detected, but CF1 is lower.
- Choose $\lambda$ on validation, report on test, pair by seed, and say how many intervals you computed.

The numbers behind these findings:
"""

# %% tags=["report"]
scenes, simple = swept["scenes"], train_missing(tricks())["both"]
contrasts = {f"scenes, λ = {lam:g} minus λ = 0": (scenes[lam], scenes[0.0]) for lam in (0.1, 1.0, 10.0)}
contrasts |= {"scenes, CutOut minus λ = 0": (simple, scenes[0.0]), "scenes, λ = 10 minus CutOut": (scenes[10.0], simple)}
contrasts |= {f"photographs, λ = {lam:g} minus λ = 0": (photo_sweep()[lam], photo_sweep()[0.0]) for lam in (0.1, 10.0)}
show_contrasts(contrasts, POINTS)
if profile() != "smoke":
    bold = {row[0]: ["**" in cell for cell in row[1:]] for row in contrast_table(contrasts, POINTS)[1:]}
    assert list(bold.values()) == [[False, False], [False, True], [False, True], [True, True], [True, False],
                                   [False, False], [False, True]]

# %% [markdown]
r"""
Lesson 04 examines the paper's argument from PAL-N to calibration, and gives a verdict on each claim about the branch.

## Further reading

- L. Song et al., *Handling Difficult Labels for Multi-label Image Classification via Uncertainty Distillation*, ACM
  MM 2021: sections 4.1 and 4.2, Table 2, Fig. 3.
- A. K. Menon et al., *Multilabel reductions: what is my loss optimising?*, NeurIPS 2019: where Proposition 1 comes from.
- D. Mahajan et al., *Exploring the Limits of Weakly Supervised Pretraining*, ECCV 2018: the 1/k softmax.
"""

# %% [markdown]
r"""
## Quiz

What do you know after this lesson?
"""

# %% tags=["report"]
from udlib.course.quizzes import quiz

quiz("03")
