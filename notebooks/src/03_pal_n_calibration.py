# %% [markdown]
r"""
# 03 · A second branch: PAL-N and calibration

[← 02 · The baseline](02_baseline_bce.ipynb) · [04 · How calibrated? ECE and its traps →](04_ece_analysis.ipynb)

**Aim.** You will know the paper's first idea: a second head with another loss, PAL-N, that is meant to keep the network
from being too sure of difficult labels. You will derive what that loss asks for, find a gap between the theory and the
formula, see what the trained branch really computes, and measure with error bars what it changes.

**Prerequisites.** Lesson 02: binary cross-entropy, mAP, ECE, paired differences. The softmax.

**Time.** About two hours with the exercises. The cells run in a minute or two: networks that take minutes to
train are loaded.
"""

# %% tags=["setup"]
from itertools import product

import numpy as np
import pandas as pd
import torch
from IPython.display import display
from torch.nn import functional as F

# %% tags=["setup"]
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
One line decides what this lesson looks at.
"""

# %% tags=["setup"]
DATA = "scenes"  # or "digits", or the path of a folder in VOC layout

# %% [markdown]
r"""
As before, sentences with numbers are written by code. A "point" is one per cent.
"""

# %% tags=["setup"]
def listed(names):
    """Values of λ, or words, as a phrase."""
    names = [f"{name:g}" if isinstance(name, float) else str(name) for name in names]
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]

# %% [markdown]
r"""
## 1. First, a picture

We let a rule choose it, so that nobody can say we picked it by hand. Among all difficult labels of the test images,
take the one where the baseline's probability lies furthest above the known posterior, the chance that the annotator
marks this object at all (lesson 01). Where no posterior is known, take the most confident wrong answer.
"""

# %%
run = load_or_run(baseline(DATA))
test = run.labels("test")  # classes, targets, difficult, posterior
pictures = dataset(run.recipe.data, "test", run.recipe.size, run.recipe.limit)
p = run.probabilities("test")
posterior = None if test.posterior is None else test.posterior.double()
judged = test.difficult.any() and posterior is not None
excess = torch.where(test.difficult, p - posterior, -1.0) if judged else p * (test.targets == 0)
i, k = divmod(int(excess.argmax()), p.shape[1])

# %%
against = f"posterior {posterior[i, k]:.2f}" if judged else "not labelled"
show(plots.prediction(pictures.image(i), test.classes, p[i], test.targets[i], test.difficult[i],
                      title=f"{test.classes[k]}: p = {p[i, k]:.2f}, {against}"),
     f"Test image {i} beside its ten largest probabilities; {test.classes[k]} gets {p[i, k]:.2f}, {against}")

# %% [markdown]
r"""
That is the worst case of many, so it proves nothing. What about all confident answers, of all five baselines? Collect
every *yes* ($p \geq 0.5$) and compare two numbers: how sure the network was on average, and how often it was right.
"""

# %%
baselines = [load_or_run(baseline(DATA, seed)) for seed in SEEDS]
yes = [r.probabilities() >= 0.5 for r in baselines]
confidence = np.array([r.probabilities()[sure].mean().item() for r, sure in zip(baselines, yes)])
right = np.array([test.targets[sure].double().mean().item() for sure in yes])
stored = [r.metrics["test"]["overconfidence"] for r in baselines]
assert np.allclose(confidence - right, stored, equal_nan=True)
say(f"Over five seeds, a confident answer is given with {spread(confidence)} % on average, and {spread(right)} % of them "
    f"are right. The gap, **overconfidence**, is {spread(stored)} points."
    if np.isfinite(stored).all() else "Some of these networks never reach 0.5, so they have no confident answers to judge.")

# %% [markdown]
r"""
The paper's diagnosis: binary cross-entropy keeps pulling a marked label towards 1, the grey smudge like the car in full
view, until the network knows the smudge by heart. Its remedy is a second branch with a loss that feels *how many* labels
an image has, and weighs in with a factor $\lambda$.

![Backbone and pooling are shared by two branches: the classification branch with BCE, and the calibration branch with PAL-N, whose loss is multiplied by λ before both are added.](images/two_branches.svg)

### Predict

We train the same network with different $\lambda$, five seeds each; $\lambda = 0$ is the baseline of lesson 02. Guess
before you read on. Which $\lambda$ ends with the highest mAP, and which with the lowest pooled ECE?
"""

# %%
say(f"On this data set, λ is one of {listed(sweep(DATA))}. The paper chose 0.1 by a grid search.")

# %%
guess_map = ...  # the λ with the highest mAP on the test images
guess_ece = ...  # the λ with the lowest pooled ECE

# %% [markdown]
r"""
## 2. Pick a label, solve an easy problem

With one label per image we would know what to do: a softmax over the classes, and its cross-entropy. With several
labels, the **pick-all-labels** loss makes many single-label problems out of one image: take each positive in turn as if
it were the only label. The normalised form, PAL-N, divides by their number (Eq. 4):

$$\ell_{\mathrm{PAL\text{-}N}} = - \sum_{i=1}^{C} \frac{y_i}{\sum_j y_j} \log f_i$$

Here $f_i$ is a probability from some softmax; which one exactly is the question of section 4. One line of code:
"""

# %%
y = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0])  # one image: three of five labels are present
f = torch.tensor([0.50, 0.10, 0.20, 0.15, 0.05])  # what a softmax says about it
pal_n = -(y / y.sum() * f.log()).sum()  # Eq. 4
print(f"PAL-N of this image: {pal_n:.4f} nats")

# %% [markdown]
r"""
The weights $y_i / \sum_j y_j$ are a lottery: **pick one positive at random**, each with the same chance. So Eq. 4 must
be the average loss of somebody who does pick at random. Let us do so a few thousand times.
"""

# %%
generator = torch.Generator().manual_seed(3)
picked = torch.multinomial(y, 5000, replacement=True, generator=generator)
single = -f.log()[picked]  # the single-label loss of each pick
times = torch.arange(1, len(picked) + 1)
running = single.cumsum(0) / times
reach = 1.96 * single.std() / times.sqrt()
assert abs(single.mean() - pal_n) < 4 * single.std() / len(single) ** 0.5

# %%
seen = slice(20, None, 20)
show(plots.lines(times[seen], {"mean of the picks so far": running[seen], "Eq. 4": pal_n.expand(len(times))[seen]}, "picks",
                 "nats", "one positive at random, again and again", markers=False,
                 bands={"Eq. 4": ((pal_n - reach)[seen], (pal_n + reach)[seen])}),
     "The running mean of randomly picked single-label losses settles at the value of Eq. 4, inside a narrowing 95 % band")

# %% [markdown]
r"""
Note what dividing by the number of labels does. An image with one label and an image with five labels weigh the
same; in binary cross-entropy each single label does.

**Think:** in which of the two losses does a single label of a crowded image count for more?

<details><summary>Answer</summary>
In binary cross-entropy. There each of five labels counts as much as the only label of another image. In PAL-N each of the
five counts a fifth of that.
</details>

## 3. What the two losses ask for (Proposition 1)

Imagine endless pictures that all look the same, with labels that differ because annotators do. What answer is best? For
binary cross-entropy, lesson 02 found it: the share of pictures with label $i$, the **marginal** $P(y_i = 1)$ (Eq. 5). The
paper's Proposition 1, taken from Menon et al. (2019), says that PAL-N is best answered by other numbers (Eq. 6-7):

$$P(z' = i) = P(y_i = 1) \cdot \mathbb{E}\Big[\frac{1}{1 + \sum_{j \neq i} y_j} \,\Big|\, y_i = 1\Big].$$

This is the chance that label $i$ is the one we pick. A label that usually comes in company gets less than its marginal.
We need a small world in which we know everything: three classes, and the probability of each set of labels.
"""

# %% tags=["setup"]
NAMES = ["cup", "book", "lamp"]
LABELS = torch.tensor([y for y in product([0, 1], repeat=3) if any(y)])  # the seven sets with at least one label
JOINT = torch.tensor([0.16, 0.10, 0.06, 0.22, 0.18, 0.08, 0.20], dtype=torch.float64)  # how probable each is

# %%
assert torch.isclose(JOINT.sum(), torch.tensor(1.0).double())
pd.DataFrame(LABELS.numpy(), columns=NAMES).assign(probability=JOINT)

# %% [markdown]
r"""
Eq. 7 for one class, word for word:
"""

# %%
marginals = JOINT @ LABELS.double()
cup = LABELS[:, 0] == 1  # the sets that hold a cup
others = LABELS[cup].sum(1) - 1  # Σ_{j≠i} y_j: its company
given_cup = JOINT[cup] / JOINT[cup].sum()  # how probable each set is, given that there is a cup
z_cup = marginals[0] * (given_cup / (1 + others)).sum()  # Eq. 7
z_prime = losses.pick_all_labels_marginals(LABELS, JOINT)  # Eq. 7 for all classes
assert torch.isclose(z_cup, z_prime[0]) and torch.isclose(z_prime.sum(), torch.tensor(1.0).double())
pd.DataFrame({"P(y = 1)": marginals, "P(z' = i)": z_prime}, index=NAMES).T.round(4)

# %% [markdown]
r"""
The marginals add up to the mean number of labels; the $z'$ add up to one, because exactly one label is picked. (If some
pictures had no label at all, the $z'$ would add up to one minus their share.)

Now the experiment. Sample $N$ sets of labels, look for the logits with the least mean loss, and see what they say. The mean
over $N$ pictures is a weighted mean over the seven kinds of sets, so the search is quick.
"""

# %%
def minimise(loss, weights, labels=LABELS):
    """The logits (C,) with the least mean loss, if label set m has the weight `weights[m]`."""
    z = torch.zeros(labels.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([z], max_iter=200, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = weights @ loss(z.expand(len(labels), -1), labels, reduction="none")
        value.backward()
        return value

    optimizer.step(closure)
    return z.detach()

# %% [markdown]
r"""
For PAL-N we take a **full softmax** here, with all classes in the denominator. The literature calls this combination
the "1/k softmax"; in our library it is `one_over_k_softmax_loss`. Five repetitions for each $N$:
"""

# %%
SIZES, REPETITIONS = (100, 1_000, 10_000, 100_000), 5
errors = {"sigmoids against P(y = 1)": [], "full softmax against P(z' = i)": []}
for size in SIZES:
    drawn = [torch.multinomial(JOINT, size, replacement=True, generator=generator) for _ in range(REPETITIONS)]
    shares = [torch.bincount(rows, minlength=len(JOINT)) / size for rows in drawn]
    ova = [torch.sigmoid(minimise(ova_loss, share.double())) for share in shares]
    pal = [minimise(losses.one_over_k_softmax_loss, share.double()).softmax(0) for share in shares]
    for found, exact, kept in zip((ova, pal), (marginals, z_prime), errors.values()):
        kept.append([(each - exact).abs().mean().item() for each in found])

# %%
show(plots.panels(SIZES, {name: {"mean over classes": values} for name, values in errors.items()}, "sampled pictures N"),
     "The mean distance between the minimiser and the exact value shrinks towards zero as N grows, for both losses")
for values in errors.values():
    assert np.mean(values[-1]) < np.mean(values[0]) / 5

# %% [markdown]
r"""
From one mark to the next $N$ grows tenfold, and sampling error should shrink by about $\sqrt{10} \approx 3$. With the exact
probabilities as weights nothing is left of it.
"""

# %%
assert torch.allclose(torch.sigmoid(minimise(ova_loss, JOINT)), marginals)
assert torch.allclose(minimise(losses.one_over_k_softmax_loss, JOINT).softmax(0), z_prime)
print("exact minimisers: sigmoids give P(y = 1), the full softmax gives P(z' = i)")

# %% [markdown]
r"""
Proposition 1 holds. But the loss in the paper's experiments has another softmax.

## 4. The partial softmax

![For an image with a cup and a book, each positive has all classes in the denominator of its full softmax, and only itself and the two negatives in the denominator of its partial softmax.](images/partial_softmax.svg)

In a full softmax the positives of one image fight each other: the cup's probability can only grow if the book's
shrinks, although both are right. The paper takes the other positives out (Eq. 10). A positive competes with the negatives
alone, $C_n$:

$$f_i = \frac{e^{z_i}}{e^{z_i} + \sum_{j \in C_n} e^{z_j}}, \qquad
L_{ps} = -\frac{1}{|C_p|} \sum_{i \in C_p} \log f_i \quad \text{(Eq. 11)}.$$

Two images, three classes:
"""

# %%
z = torch.tensor([[2.0, -1.0, 0.5], [-0.5, 1.5, -2.0]], dtype=torch.float64)  # logits of the second branch
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
In image 2 the two positives need not add up to one: each has its own denominator. Who competes with whom, in the second
image and in both kinds of softmax:
"""

# %%
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

A loop over positives would be slow, and $e^{z}$ overflows for large $z$. Both problems vanish with a little algebra:

$$-\log f_i = \log\Big(1 + \frac{\sum_{j \in C_n} e^{z_j}}{e^{z_i}}\Big) = \mathrm{softplus}\big(\mathrm{LSE}_{C_n}(z) - z_i\big),
\qquad \mathrm{LSE}_{C_n}(z) = \log \sum_{j \in C_n} e^{z_j}.$$

All positives of an image share the same $\mathrm{LSE}_{C_n}$, so it is computed once, over logits in which the positives
are masked out.
"""

# %%
lse = z.masked_fill(y == 1, -torch.inf).logsumexp(1, keepdim=True)
by_softplus = (y * F.softplus(lse - z)).sum(1) / y.sum(1)
assert torch.allclose(by_softplus, per_image)
huge = 1e4 * z.float()
assert torch.isfinite(pal_n_loss(huge, y)) and not torch.isfinite(huge.exp()).all()
print("the same losses:", by_softplus.numpy().round(4))

# %% [markdown]
r"""
Two edge cases need a decision. An image **without positives** has nothing to pick: it contributes 0, with gradient 0. An
image **without negatives** has no rivals: $f_i = 1$ and the loss is 0 as well.
"""

# %%
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

# %%
check("03.1", my_pal_n)

# %% [markdown]
r"""
Keep this rival in mind for the shift of all logits below. With it, who notices the shift?

Two of the mistakes are not invented. The code released with the paper inverts its mask in a way that, in today's PyTorch,
puts all classes into the denominator of the first positive, and divides by the label count of the *last* image of the
batch. Our library computes what the paper prints.

### Where it pulls

Let $q_j$ be a softmax over the negatives alone. The gradient of Eq. 11 is

$$\frac{\partial L_{ps}}{\partial z_i} = -\frac{1 - f_i}{|C_p|} \;\; (i \in C_p), \qquad
\frac{\partial L_{ps}}{\partial z_j} = q_j \cdot \frac{1}{|C_p|} \sum_{i \in C_p} (1 - f_i) \;\; (j \in C_n).$$

Each positive is pulled up by its own share of what it still lacks. The negatives are pushed down by the same total,
the loudest one most.
"""

# %%
leaf = z.clone().requires_grad_()
(len(z) * pal_n_loss(leaf, y)).backward()  # the loss is a mean over images, hence the factor
q = z.masked_fill(y == 1, -torch.inf).softmax(1)
pull = y * (1 - f) / y.sum(1, keepdim=True)
by_hand = q * pull.sum(1, keepdim=True) - pull
assert torch.allclose(leaf.grad, by_hand)
assert torch.allclose(leaf.grad.sum(1), torch.zeros(2).double())  # pull and push cancel in each image
pd.DataFrame(leaf.grad.numpy(), ["image 1", "image 2"], ["class 1", "class 2", "class 3"]).round(3)

# %% [markdown]
r"""
Pull and push of an image add up to zero, and that tells us what this loss **cannot** see. Move all logits of an image up by
the same amount, and nothing changes:
"""

# %%
shift = torch.tensor([[5.0], [-3.0]]).double()
assert torch.isclose(pal_n_loss(z + shift, y), pal_n_loss(z, y))
assert not torch.isclose(ova_loss(z + shift, y), ova_loss(z, y))
print(f"PAL-N before and after: {pal_n_loss(z, y):.4f}, {pal_n_loss(z + shift, y):.4f};"
      f" binary cross-entropy: {ova_loss(z, y):.4f}, {ova_loss(z + shift, y):.4f}")

# %% [markdown]
r"""
So the logits of this branch have no absolute level. They rank the classes of an image; they cannot say "0.7 for the cup",
and an ECE of their own does not exist. Calibration is a matter of level. That is why the classifier keeps its sigmoids
and its binary cross-entropy, and the new loss sits on a second head: it can act on the probabilities **only through the
features that both heads share**.

## 5. A gap, and what fills it

Proposition 1 speaks of a loss in which $f$ depends on the picture alone. The partial softmax breaks that: its denominator
depends on the labels $y$, which the network cannot know. Does the best answer survive? We ask our small world.
"""

# %%
partial_best = minimise(pal_n_loss, JOINT).softmax(0)
full_best = minimise(losses.one_over_k_softmax_loss, JOINT).softmax(0)
answers = {"P(z' = i), Eq. 7": z_prime, "best for the full softmax": full_best,
           "best for the partial softmax": partial_best, "normalised marginals": marginals / marginals.sum()}
figure = plots.estimates(NAMES, {name: (values,) * 3 for name, values in answers.items()}, "probability",
                         "four distributions in the world of three classes")
figure.axes[0].legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=2)
show(figure,
     "The full softmax's best answer lies on z'; that of the partial softmax lies apart, and apart from the marginals")
for name in ("P(z' = i), Eq. 7", "normalised marginals"):
    assert (partial_best - answers[name]).abs().max() > 0.01
pd.DataFrame(answers, index=NAMES).T.round(3)

# %% [markdown]
r"""
The full softmax finds $z'$, the partial softmax does not. So what does it look for? In one important case there is a
clean answer, and you can follow it in your head.

Compare a picture whose labels $y$ hold $i$ but not $j$ with one whose labels $y'$ hold $j$ but not $i$, all else equal. In
both, $i$ and $j$ meet in a denominator of the same size. The first pulls $i$ up against $j$ with a force proportional to
$P(y)\, e^{z_j}$, the second the other way with $P(y')\, e^{z_i}$. If the labels are **independent given the
picture**, then $P(y) / P(y') = o_i / o_j$ with the *odds* $o_i = P(y_i = 1)/P(y_i = 0)$. So all such pairs are in balance at
once (and the loss is convex, so this is its minimum) at

$$e^{z_i} \propto o_i = \frac{P(y_i = 1)}{1 - P(y_i = 1)}, \qquad \text{that is,} \qquad
z_i = \mathrm{logit}\, P(y_i = 1) + \text{the same number for all classes.}$$

Those are the logits that binary cross-entropy asks for, up to a shift. No number of labels is left in them. The argument
is ours, not the paper's, so let a machine check it:
"""

# %%
chances = torch.tensor([0.9, 0.5, 0.2], dtype=torch.float64)  # three independent labels
EVERY = torch.tensor(list(product([0, 1], repeat=3)))  # all eight sets, the empty one too
independent = torch.where(EVERY == 1, chances, 1 - chances).prod(1)
odds = chances / (1 - chances)
best = minimise(pal_n_loss, independent, EVERY).softmax(0)
assert torch.allclose(best, odds / odds.sum(), atol=1e-6)
z_independent = losses.pick_all_labels_marginals(EVERY, independent)
pd.DataFrame({"best for the partial softmax": best, "normalised odds": odds / odds.sum(),
              "z', given at least one label": z_independent / z_independent.sum()}, index=NAMES).T.round(4)

# %% [markdown]
r"""
The normalised odds are far more extreme than $z'$: dividing by the number of labels is gone.

**Think:** the three-class world above is not of this kind. What differs there?

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

# %%
check("03.2", my_z_prime)

# %% [markdown]
r"""
### And the real network?

On `scenes` and `digits` the annotator marks each object on its own, so labels *are* independent given the scene, and the
posterior $P(y_i = 1)$ is known. (A network sees pixels only. What they hide may tie labels together, so for a network the
independence is an approximation.) Then Eq. 7 needs the distribution of a sum of independent yes-or-no variables (the
"Poisson binomial"): start with "zero others, for certain", and let the other classes in one at a time.
"""

# %%
def z_prime_of(p):
    """Eq. 7 for labels that are independent given the image: p (N, C) → (N, C). A row sums to 1 − P(no label)."""
    classes = p.shape[1]
    result = torch.zeros_like(p)
    for i in range(classes):
        others = F.one_hot(torch.zeros(len(p), dtype=torch.long), classes).to(p.dtype)  # P(number of others = 0, 1, …)
        for j in set(range(classes)) - {i}:
            one_more = F.pad(others[:, :-1], (1, 0))
            others = (1 - p[:, [j]]) * others + p[:, [j]] * one_more
        result[:, i] = p[:, i] * (others / torch.arange(1, classes + 1)).sum(1)
    return result

# %%
assert torch.allclose(z_prime_of(chances[None])[0], z_independent)
assert torch.allclose(z_prime_of(p).sum(1), 1 - (1 - p).prod(1))


def candidates(p):
    """What the softmax of the branch might be after, from P(y = 1): three distributions over the classes of each image."""
    p = p.clamp(1e-12, 1 - 1e-7)
    found = {"z', Eq. 7": z_prime_of(p), "normalised probabilities": p, "normalised odds": p / (1 - p)}
    return {name: values / values.sum(1, keepdim=True) for name, values in found.items()}

# %% [markdown]
r"""
One convention must be said. An image may end without any label, and then PAL-N learns nothing from it. So its best answer is
$z'$ *given at least one label*: we divide $z'$ by its sum, as a softmax sums to one as well.

The stored runs hold the logits of the second branch. How far is their softmax from each candidate? We sum the absolute
differences over the classes (0: equal, 2: nothing in common), and take the mean over test images. First with the candidates
computed from the **true posterior**, on images where at least two classes are possible (with one class all
candidates agree). Then with the candidates computed from the **same network's own sigmoids**, which leaves out of the
question how good the network is.
"""

# %%
grid = {lam: [load_or_run(chosen) for chosen in recipes] for lam, recipes in sweep(DATA).items()}
with_branch = {lam: runs for lam, runs in grid.items() if all(r.test_calibration_logits is not None for r in runs)}
several = torch.ones(len(p), dtype=torch.bool) if posterior is None else (posterior > 0).sum(1) >= 2
truth = {} if posterior is None else candidates(posterior[several])


def distances(run, targets):
    said = run.test_calibration_logits[several].double().softmax(1)
    return {name: (said - wanted).abs().sum(1).mean().item() for name, wanted in targets.items()}

# %%
measured = {}
for lam, runs in with_branch.items():
    rows = {"its own sigmoids": [distances(r, candidates(r.probabilities()[several])) for r in runs]}
    if truth:
        rows["the posterior"] = [distances(r, truth) for r in runs]
    for source, found in rows.items():
        for name in found[0]:
            measured.setdefault(source, {}).setdefault(name, []).append([row[name] for row in found])

# %%
if measured:
    figure = plots.panels(list(with_branch), {f"from {source}": measured[source] for source in sorted(measured)}, "λ")
    for axes in figure.axes[:len(measured)]:
        axes.set(ylim=(0, None), ylabel="distance")
    figure.tight_layout()
    show(figure, "Distance between the branch's softmax and z', normalised probabilities and normalised odds, over λ")
else:
    say("These runs were stored without the logits of the second branch: there is nothing to compare here.")

# %%
for source in sorted(measured):
    means = {name: np.mean(values) for name, values in measured[source].items()}
    gaps = [paired_difference(*pair) for pair in zip(measured[source]["z', Eq. 7"], measured[source]["normalised odds"])]
    counts = {word: sum(g.verdict == word for g in gaps) for word in ("higher", "lower", "not detected")}
    say(f"- Candidates from {source}: the branch is nearest to the **{min(means, key=means.get)}**. Mean over λ and seeds: "
        + ", ".join(f"{name} {value:.2f}" for name, value in means.items())
        + f". Paired by seed, the distance to z' against that to the normalised odds is higher at {counts['higher']} of "
        f"{len(gaps)} values of λ, lower at {counts['lower']}, and not told apart at {counts['not detected']}.")

# %% [markdown]
r"""
The distances from the posterior mix two things: what the branch is after, and how far the network errs about the picture.
Those from its own sigmoids leave the second out, so they are the fairer answer. One more number needs no candidate at
all: shift both heads' logits of each image to mean zero, and correlate them.
"""

# %%
def centred(logits):
    return (logits - logits.mean(1, keepdim=True)).flatten().numpy()


for lam in list(with_branch)[:1] + list(with_branch)[-1:]:
    alike = [np.corrcoef(centred(r.test_logits), centred(r.test_calibration_logits))[0, 1] for r in with_branch[lam]]
    say(f"- λ = {lam:g}: the two heads' centred logits correlate with {np.mean(alike):.3f} (five seeds: {min(alike):.3f} to "
        f"{max(alike):.3f}).")

# %% [markdown]
r"""
Is that the doing of the loss, or of something else in these networks? A **control**: the same features, the same labels, and only
the loss differs. We freeze the baseline's backbone and fit three linear heads on its pooled features: sigmoids with binary
cross-entropy, a full softmax, and a partial softmax. They learn from the *validation* images, which the backbone has not learned by
heart. The candidates come from the first head, the distances are taken on test images, and all is repeated five times with
resampled validation images.
"""

# %%
from udlib.datasets.transforms import normalise


@torch.no_grad()
def pooled_features(network, split):
    """The pooled features (N, D) of the first 2,000 images of a split."""
    images = arrays(run.recipe, split).images[:2000]
    return torch.cat([network(normalise(part), calibration=False).pooled for part in images.split(250)])

# %%
def fit_head(loss, features, targets):
    """A linear head on fixed features, trained to the end; a little weight decay keeps it finite."""
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

# %%
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
            said = fit_head(loss, seen[rows], labelled[rows])(unseen).detach().double().softmax(1)
            control[kind].append({name: (said - q).abs().sum(1).mean().item() for name, q in wanted.items()})

# %%
if control["full softmax"]:
    found = {kind: pd.DataFrame(rows) for kind, rows in control.items()}
    display(pd.DataFrame({kind: rows.agg(lambda v: spread(v, scale=1)) for kind, rows in found.items()}).T)
    say("On the same features, " + " and ".join(f"the {kind} ends nearest to the **{rows.mean().idxmin()}**"
                                                for kind, rows in found.items()) + ".")
else:
    say("The control needs a stored network, which ships for `scenes` and `digits` only.")

# %% [markdown]
r"""
Keep this in mind when you read that the branch "takes the number of labels into account". The full softmax would. The
partial softmax, on independent labels, asks its branch for what the classifier knows already. It may still help: it
weighs images and labels differently, and it is a second, noisy teacher of the features. Whether it does is a question for
measurement. (On photographs, annotators' omissions need not be independent: one who is tired misses several
things at once.)

## 6. Two branches (Eq. 12)

Both heads stand on the pooled features. The calibration branch is FC → BN → ReLU → FC, and the losses are added:

$$L = L_b + \lambda\, L_{ps}$$
"""

# %%
from udlib.backbones import backbone
from udlib.heads import DualBranchHead, DualBranchNet
from udlib.losses import dual_branch_loss

DualBranchHead(in_features=256, num_classes=len(test.classes), embedding=128)

# %% [markdown]
r"""
Ten live steps on 64 images, as in lesson 02, now with two terms.
"""

# %%
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

# %%
steps = pd.DataFrame(terms, index=range(1, 11))
assert steps["total"].iloc[-1] < steps["total"].iloc[0]
drawn = {"binary cross-entropy": steps["ova"], "PAL-N": steps["pal_n"], "total, λ = 0.1": steps["total"]}
show(plots.lines(steps.index, drawn, "step", "nats per image", "ten steps on 64 images"),
     "Binary cross-entropy, PAL-N and the total of Eq. 12 at λ = 0.1 over ten steps; the total falls")

# %% [markdown]
r"""
The partial softmax needs the labels, so the branch is of no use at test time. It is dropped by an argument, and the
classifier does not notice.
"""

# %%
network.eval()
with torch.no_grad():
    both, alone = network(images), network(images, calibration=False)
assert alone.calibration_logits is None and torch.equal(both.logits, alone.logits)
print("the classification logits are equal, with the branch and without")

# %% [markdown]
r"""
## 7. Sums and means: what λ weighs

"$\lambda = 0.1$" means nothing until we say beside *what*. The paper prints binary cross-entropy as a **sum** over the
classes. The released code takes the **mean**, and halves the total. Beside a mean, the same $\lambda$ weighs $C$ times more:

$$\frac{1}{2}\Big(\frac{L_b}{C} + \lambda L_{ps}\Big) = \frac{1}{2C}\big(L_b + C \lambda\, L_{ps}\big).$$

Our `scale="released"` is the left side.
"""

# %%
C = len(test.classes)
released = dual_branch_loss(both, targets, lam=0.1, scale="released")["total"]
paper = dual_branch_loss(both, targets, lam=0.1 * C)["total"]
assert torch.isclose(released, paper / (2 * C))
print(f"released, λ = 0.1: {released:.6f};  paper, λ = {0.1 * C:g}, divided by {2 * C}: {paper / (2 * C):.6f}")

# %% [markdown]
r"""
How much of the training signal comes from the branch? The heads' gradients meet at the pooled features. We compute
both there, on training images, and compare their lengths: the branch's share is $\lambda\|g_{ps}\| / (\|g_b\| + \lambda\|g_{ps}\|)$.
The cosine says whether the two pull the same way. Once at a random start, and once at the end of training.
"""

# %%
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

# %%
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
The two columns on the right are the same printed $\lambda$. Whoever copies "0.1" from a paper into code with another
sum copies another method. (The released code's own value is $\lambda = 1$ beside the mean: in the paper's scale, that is
$C$.)

The overall factor $1/(2C)$ is another matter: Adam divides each step by the gradient's own size, so it should not care. Hence a
prediction: on `scenes`, with 16 classes, "released, 0.1" should end like "paper, 1.6". What could spoil it? Gradients
are clipped at a fixed length, which bites in one scale and not in the other; Adam adds a tiny constant to that size; and two sums that are rounded differently drift
apart until they are two different networks, as if the seed had changed. So we may expect equal *averages*, not equal runs.
"""

# %%
scaled = {name.replace("lambda", "λ ="): [load_or_run(chosen) for chosen in recipes] for name, recipes in scales().items()}
of_scale = {name: {key: [r.metrics["test"][key] for r in runs] for key in ("mAP", "ECE_pooled")}
            for name, runs in scaled.items()}
of_scale_table = pd.DataFrame({name: {"mAP, %": spread(found["mAP"]), "ECE pooled, %": spread(found["ECE_pooled"])}
                               for name, found in of_scale.items()}).T
of_scale_table[:3]

# %%
reference, weak, strong = (of_scale[name] for name in ("released, λ = 0.1", "paper, λ = 0.1", "paper, λ = 1.6"))
told_apart = []
for key, name in (("mAP", "mAP"), ("ECE_pooled", "pooled ECE")):
    same, other = paired_difference(reference[key], strong[key]), paired_difference(reference[key], weak[key])
    told_apart += [name] if same.verdict != "not detected" else []
    say(f"- {name}, released 0.1 against paper **1.6**: {in_units(same)}: **{same.verdict}**; against paper **0.1**: "
        f"{in_units(other)}: **{other.verdict}**.")
say(f"The prediction **fails** in {listed(told_apart)}: the factor in front is not as harmless as argued." if told_apart else
    "The prediction stands, as far as five seeds can tell: the width of the intervals says how far that is.")

# %% [markdown]
r"""
Now look at the suspects. Training clips the whole gradient at a fixed length, and Adam adds $10^{-8}$ to the size it divides by.
Here is the gradient of one batch in both scales, over all parameters of the network.
"""

# %%
def gradient(network, lam, scale):
    loss = dual_branch_loss(network(images), targets, lam=lam, scale=scale)["total"]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))])


lengths = {}
for name, network in networks.items():
    summed, averaged = gradient(network, 0.1 * C, "paper"), gradient(network, 0.1, "released")
    assert torch.isclose(summed.norm(), 2 * C * averaged.norm(), rtol=0.01)
    lengths[name] = {f"{kind}: {what}": f"{value:.2g}" for kind, g in (("paper", summed), ("released", averaged))
                     for what, value in (("length", g.norm()), ("median size of an entry", g.abs().median()))}
clip = run.recipe.training.clip
say(f"A gradient longer than **{clip:g}** is clipped; an entry near **1e-8** feels Adam's constant.")
pd.DataFrame(lengths).T

# %% [markdown]
r"""
**Think:** which of the two suspects can this table clear?

<details><summary>Answer</summary>
Adam's constant. Nearly all entries are far larger than 1e-8, so the constant changes no step. Clipping stays a suspect: it
cuts a long gradient, and one of the two scales has gradients that are 2C times longer.
</details>

So we ask clipping. Both scales once more, with the same seeds and **without clipping**: now a factor in front of the whole
loss is all that is left between them.
"""

# %%
of_scale_table[3:]

# %%
freed, held = (of_scale[f"{name}, no clipping"] for name in ("released, λ = 0.1", "paper, λ = 1.6"))
left_over = {}
for key, name in (("mAP", "mAP"), ("ECE_pooled", "pooled ECE")):
    without = left_over[name] = paired_difference(freed[key], held[key])
    by_clip = {kind: paired_difference(a[key], b[key]) for kind, a, b in (("paper 1.6", strong, held),
                                                                        ("released 0.1", reference, freed))}
    say(f"- {name}, no clipping, released 0.1 against paper 1.6: {in_units(without)}: **{without.verdict}**. What clipping "
        "does: " + "; ".join(f"{kind} {in_units(d)}, **{d.verdict}**" for kind, d in by_clip.items()) + ".")

# %%
cleared = all(d.verdict == "not detected" for d in left_over.values())
closed = paired_difference(np.subtract(reference["ECE_pooled"], strong["ECE_pooled"]),
                           np.subtract(freed["ECE_pooled"], held["ECE_pooled"]))
say(("Without clipping, five seeds cannot tell the two scales apart. " if cleared else
     "Without clipping the two scales still differ, so clipping alone is not the answer. ")
    + f"Their gap in pooled ECE, with clipping minus without: {in_units(closed)}: **{closed.verdict}**.")

# %% [markdown]
r"""
The lesson is the general one: "equal up to a factor" holds for the loss. Whether it holds for the *training* has to be
tested, and whoever reports a $\lambda$ should report the clipping, too.

## 8. The sweep

Now the main experiment: everything is fixed but $\lambda$. Means with 95 % intervals over five seeds; each tick is a
network. The dotted line is a network **without** a second branch, trained with CutOut (lesson 02).
"""

# %%
from udlib.calibration import expected_calibration_error

PANELS = {"mAP, %": "mAP", "mAP Difficult, %": "mAP_difficult", "ECE class-wise, %": "ECE", "ECE pooled, %": "ECE_pooled",
          "true error pooled, %": "true_CE_pooled", "NLL, 0.01 nats": "NLL"}
PANELS = {title: key for title, key in PANELS.items() if key in run.metrics["test"]}
cutout = [load_or_run(chosen) for chosen in tricks(DATA)["both"]] if DATA in ("scenes", "digits") else None


def values_of(runs, key, split="test"):
    return [r.metrics[split][key] for r in runs]


assert np.isclose(expected_calibration_error(p, test.targets, average="pooled"), run.metrics["test"]["ECE_pooled"])

# %%
curves = {title: {"two branches": [100 * np.array(values_of(runs, key)) for runs in grid.values()]}
          for title, key in PANELS.items()}
dotted = {title: {"CutOut, no branch": 100 * np.mean(values_of(cutout or grid[0.0], key))} for title, key in PANELS.items()}
dotted = dotted if cutout else None
show(plots.panels(list(grid), curves, "λ", dotted),
     f"{listed(PANELS)} over λ, with intervals over seeds, and a dotted line for CutOut without the second branch")

# %% [markdown]
r"""
(*True error* is the calibration error against the known posterior, with no label noise in it. NLL is in hundredths of a nat, to
share a scale with the rest.) Curves with error bars invite us to see what we hope for. The paired differences are sharper:
each seed's network at $\lambda$ minus the same seed's network at 0.
"""

# %%
differences = {(title, lam): paired_difference(values_of(runs, key), values_of(grid[0.0], key))
               for title, key in PANELS.items() for lam, runs in grid.items() if lam > 0}


def cell(d):
    mark = "" if d.verdict == "not detected" else f" {d.verdict}"
    return f"{100 * d.mean:+.2f} [{100 * d.low:+.2f}, {100 * d.high:+.2f}]{mark}"


pd.DataFrame({title: {f"λ = {lam:g}": cell(differences[title, lam]) for lam in grid if lam > 0} for title in PANELS})

# %%
verdicts = pd.Series({place: d.verdict for place, d in differences.items()})
found = verdicts[verdicts != "not detected"]
kinds = found.groupby([found.index.get_level_values(0), found], sort=False)
named = [f"{title.split(',')[0]} {word} at λ = {listed([lam for _, lam in rows.index])}" for (title, word), rows in kinds]
chance = 0.05 * len(differences)
say(f"We drew **{len(differences)} intervals** at 95 %. If λ did nothing at all, about {chance:.1f} of them would still "
    "miss 0, and not spread evenly: all share the same five baselines, so they err together. "
    f"**{len(found)}** miss 0" + (": " + "; ".join(named) if named else "") + ". "
    + ("That is no more than chance may give." if len(found) <= 2 * chance else
       "That is more than chance is likely to give, so look for neighbouring values of λ that agree."))

# %% [markdown]
r"""
**Think:** somebody who answers every image with the frequency of each class has an ECE near 0 and finds nothing. So a lower ECE
can be bought with knowledge. Which columns of the table would show the price?

<details><summary>Answer</summary>
mAP, which falls when the order of the images gets worse, and the NLL, which measures calibration and knowledge together. The
ECE alone cannot show it.
</details>

Now your predictions.
"""

# %%
check_choice("mAP", guess_map, {lam: values_of(runs, "mAP") for lam, runs in grid.items()})
check_choice("pooled ECE", guess_ece, {lam: values_of(runs, "ECE_pooled") for lam, runs in grid.items()},
             higher_is_better=False)

# %% [markdown]
r"""
### Which λ would you have chosen?

Reading the best $\lambda$ off the test curves would flatter it: the best of several noisy means is high partly by
luck. An honest search chooses on **validation** and reports on **test**.
"""

# %%
def chosen_by(key, higher_is_better):
    means = {lam: np.mean(values_of(runs, key, "val")) for lam, runs in grid.items()}
    return (max if higher_is_better else min)(means, key=means.get)


choices = {"mAP": chosen_by("mAP", True), "NLL": chosen_by("NLL", False)}
for key, lam in choices.items():
    if lam == 0:
        say(f"- By **{key}**, validation chooses λ = 0: no branch at all.")
        continue
    told = "; ".join(f"{title} {cell(differences[title, lam])}" for title in PANELS)
    edge = " It is the largest we trained, so a wider grid might have chosen more." if lam == max(grid) else ""
    say(f"- By **{key}**, validation chooses **λ = {lam:g}**.{edge} On test, against λ = 0: {told}.")

# %% [markdown]
r"""
One doubt remains even here. The same five networks that won on validation are judged on test. If they won by a lucky
start, they take that luck along. A stricter test would train new seeds after the choice.

And compare with something simple. CutOut changes the pictures, not the loss, and costs one line:
"""

# %%
rivals = {f"λ = {lam:g}": grid[lam] for lam in dict.fromkeys(choices.values()) if lam > 0}
if cutout:
    compared = {"CutOut, no branch": cutout} | rivals
    display(pd.DataFrame({name: {title: cell(paired_difference(values_of(runs, key), values_of(grid[0.0], key)))
                                 for title, key in PANELS.items()} for name, runs in compared.items()}).T)
    for name, runs in rivals.items():
        against = paired_difference(values_of(runs, "ECE_pooled"), values_of(cutout, "ECE_pooled"))
        say(f"Pooled ECE, {name} (validation's choice) against CutOut: {in_units(against)}: **{against.verdict}**.")
else:
    say("For this folder no networks with CutOut are at hand.")

# %% [markdown]
r"""
### What the terms do meanwhile

The history of a run holds both terms of Eq. 12, on the training images. For the smallest and the largest $\lambda$:
"""

# %%
shown = [lam for lam in grid if lam > 0]
shown = shown[:1] + shown[-1:]
both_terms = {f"{name}, λ = {lam:g}": np.mean([[row[key] for row in r.history] for r in grid[lam]], axis=0)
              for lam in shown for name, key in (("binary cross-entropy", "ova"), ("PAL-N", "pal_n"))}
epochs = range(1, len(grid[shown[0]][0].history) + 1)
show(plots.lines(epochs, both_terms, "epoch", "nats per training image", "mean over five seeds", markers=False),
     "Binary cross-entropy and PAL-N over the epochs of training, for a small and a large λ")

# %%
final = {lam: [r.history[-1]["ova"] for r in runs] for lam, runs in grid.items()}
change = paired_difference(final[shown[-1]], final[0.0])
say("At the end of training: " + "; ".join(f"{name} {values[-1]:.3f}" for name, values in both_terms.items()) + ".")
say(f"Against λ = 0, binary cross-entropy on the training images ends {change.mean:+.3f} nats [{change.low:+.3f}, "
    f"{change.high:+.3f}] at λ = {shown[-1]:g}: **{change.verdict}**. "
    + {"higher": "The classifier fits its training labels less tightly. Whatever makes a network memorise less tends "
                 "to make it less sure as well; that is how any regulariser works, CutOut among them.",
       "lower": "The classifier fits its training labels more tightly, which tends to make it surer, not more honest.",
       "not detected": "So it is not plain that the branch keeps the classifier from fitting its labels."}[change.verdict])

# %% [markdown]
r"""
A term near zero means that the network has learned its training labels by heart, the difficult ones too.

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

# %%
check("03.3", my_search)

# %% [markdown]
r"""
## 9. Average against max pooling

The paper does not say how the feature map becomes one vector; the released code takes the **maximum** over the map, we take the
average. Does the answer about $\lambda$ depend on it? Four recipes on `scenes`:
"""

# %%
pooled = {(pooling, lam): [load_or_run(chosen) for chosen in two_branch(lam, pooling=pooling)]
          for pooling in ("avg", "max") for lam in (0.0, 0.1)}
pd.DataFrame({f"{pooling} pooling, λ = {lam:g}": {"mAP, %": spread(values_of(runs, "mAP")),
                                                  "ECE pooled, %": spread(values_of(runs, "ECE_pooled"))}
              for (pooling, lam), runs in pooled.items()}).T

# %%
for key, name in (("mAP", "mAP"), ("ECE_pooled", "pooled ECE")):
    by = {place: np.array(values_of(runs, key)) for place, runs in pooled.items()}
    of_max = paired_difference(by["max", 0.0], by["avg", 0.0])
    gain = {pooling: by[pooling, 0.1] - by[pooling, 0.0] for pooling in ("avg", "max")}
    effects = {pooling: paired_difference(by[pooling, 0.1], by[pooling, 0.0]) for pooling in gain}
    apart = paired_difference(gain["max"], gain["avg"])
    say(f"- {name}: max against average pooling, {in_units(of_max)}: **{of_max.verdict}**. The branch's effect is "
        f"{in_units(effects['avg'])} (**{effects['avg'].verdict}**) with average and {in_units(effects['max'])} "
        f"(**{effects['max'].verdict}**) with max pooling; the difference of the two effects: **{apart.verdict}**.")

# %% [markdown]
r"""
The last word of each line is the one that counts. "Significant with one pooling, not with the other" is no proof that
they differ; for that, the *difference of the differences* must be told from 0.

## 10. The same on pictures nobody here drew

`digits` is composed from scanned handwriting. There we trained three values of $\lambda$.
"""

# %%
elsewhere = {data: {lam: [load_or_run(chosen) for chosen in recipes] for lam, recipes in sweep(data).items()}
             for data in ("scenes", "digits")}
pd.DataFrame({f"λ = {lam:g}": {title: spread(values_of(runs, key)) for title, key in PANELS.items()
                               if key in runs[0].metrics["test"]} for lam, runs in elsewhere["digits"].items()}).T

# %%
for lam in (0.1, 1.0):
    for key, name in (("mAP", "mAP"), ("ECE_pooled", "pooled ECE"), ("ECE", "class-wise ECE")):
        found = {data: paired_difference(values_of(runs[lam], key), values_of(runs[0.0], key))
                 for data, runs in elsewhere.items()}
        say(f"- λ = {lam:g}, {name}: " + "; ".join(f"`{data}` {in_units(d)}, **{d.verdict}**" for data, d in found.items()) + ".")

# %% [markdown]
r"""
"Not detected" on both does not prove that there is nothing. It bounds it: an effect well outside both intervals would
have been seen.

### Larger and smaller networks (Table 2)

The paper says that the branch helps networks of every size, and the images with *Difficult* labels more than all images. On
VOC2007 it prints for ResNet-18 a mAP of 88.91 without and 89.50 with the branch, and 83.77 and 84.72 on the *Difficult* images.
`small_narrow` has about a quarter of the weights of `small`, and `small_wide` four times as many:
"""

# %%
from udlib.course.evidence import contrast_table, show_contrasts, train_missing
from udlib.course.recipes import NETWORKS, by_size

of_size = {network: (by_size()[network, 0.1], by_size()[network, 0.0]) for network in NETWORKS}
train_missing({network: with_branch + without for network, (with_branch, without) in of_size.items()})
columns = {"mAP": "mAP, points", "mAP_difficult": "mAP Difficult, points", "ECE_pooled": "pooled ECE, points"}
show_contrasts(of_size, columns, "λ = 0.1 minus λ = 0 on scenes, five seeds")
assert "**" not in "".join(cell for row in contrast_table(of_size, columns)[1:] for cell in row) or profile() == "smoke"

# %% [markdown]
r"""
At the printed λ = 0.1 the branch changes nothing that five seeds detect, at any size.

## 11. On photographs, where the paper asks

The paper's networks start from ImageNet and see photographs. `photos` is that at a size which two processor cores can train: the
2,693 pictures of COCO's validation set that show a person, with 29 classes, and an EfficientNet-Lite0 with ImageNet weights,
fine-tuned at 128 px for ten epochs. [The data page](../data/README.md#on-photos) says how this regime was chosen, by the
baseline alone. The photographs may not be passed on, so only labels and results ship.

The question is the same: what does the branch change, on five seeds?
"""

# %%
from udlib.course.evidence import differences as paired_on, evidence_figure, evidence_table
from udlib.course.photo_arms import photo_sweep
from udlib.figures.text import as_markdown

on_photos = {f"λ = {lam:g}" if lam else "baseline": recipes for lam, recipes in photo_sweep().items()}
HEADS = {"mAP": "mAP, %", "mAP_difficult": "mAP Difficult, %", "ECE_pooled": "pooled ECE, %",
         "overconfidence": "overconfidence, points", "NLL": "NLL, nats", "CF1": "CF1 at p ≥ 0.5, %"}
say(as_markdown(evidence_table(on_photos, HEADS, "baseline")))

# %%
drawn = {"mAP": "mAP", "ECE_pooled": "pooled ECE", "overconfidence": "overconfidence"}
show(evidence_figure(on_photos, drawn, "baseline"),
     "Differences of six values of λ to the baseline on photographs, each with a 95 % interval over five seeds")

# %% [markdown]
r"""
What the photographs say:

- At the paper's $\lambda = 0.1$ no change is detected, neither in accuracy nor in calibration. The pooled ECE is lower from
  $\lambda = 1$ on, and the overconfidence from 3 on.
- At $\lambda = 10$ both are about half those of the baseline. The mAP over all images is not told from the baseline's, and that
  of the images with difficult labels is higher. So the better calibration and the gain on difficult images that the paper
  reports do appear here, at a hundred times the weight that it prints. Its gain in mAP over all images does not.
- A network that is less sure says yes less often. At $\lambda = 10$ CF1, which counts a yes from $p = 0.5$ on, is two and a half
  points lower. (A temperature leaves each yes as it is.)
- At $\lambda = 29$ the pooled ECE is less than a third of the baseline's. But the mAP is a point below that at 10, and the NLL higher.

Why try such large weights? Section 7: the released code's $\lambda = 1$ stands beside a mean over the classes, which with 29
classes is 29 in the paper's scale. (It is the same loss up to a factor, and not the same training: its optimiser is another
one, and clipping bites differently.) A third of that did best here, and validation would have chosen it, by mAP and by NLL.

Two warnings. 29 was added when four seeds at 10 had been seen. And the gain on difficult images is one of many intervals,
and gone at 29. Why a heavy branch calibrates we have not tested.
"""

# %%
gaps = {key: paired_on(on_photos, "baseline", key) for key in HEADS}
seen = {key: [gap.verdict for gap in found.values()] for key, found in gaps.items()}
assert set(seen["mAP"]) == {"not detected"} and seen["ECE_pooled"] == 2 * ["not detected"] + 4 * ["lower"]
assert seen["overconfidence"] == 3 * ["not detected"] + 3 * ["lower"] and seen["CF1"][-2:] == ["lower", "lower"]
assert gaps["mAP_difficult"]["λ = 10"].verdict == "higher" and gaps["mAP_difficult"]["λ = 29"].verdict == "not detected"
heavier = {key: paired_on({"10": on_photos["λ = 10"], "29": on_photos["λ = 29"]}, "10", key)["29"] for key in ("mAP", "NLL")}
assert (heavier["mAP"].verdict, heavier["NLL"].verdict) == ("lower", "higher")
for name in ("λ = 1", "λ = 10", "λ = 29"):
    say(f"- {name}: " + "; ".join(f"{words} {in_units(gaps[key][name])}" for key, words in
                                  {**drawn, "mAP_difficult": "mAP Difficult", "CF1": "CF1"}.items()) + ".")
say(f"- λ = 29 minus λ = 10: mAP {in_units(heavier['mAP'])}.")

# %%
from udlib.course.measurements import metric_values

on_val = {name: [np.mean(metric_values(recipes, f"val {key}")) for key in ("mAP", "NLL")] for name, recipes in on_photos.items()}
assert max(on_val, key=lambda name: on_val[name][0]) == min(on_val, key=lambda name: on_val[name][1]) == "λ = 10"
say("On validation, mAP in per cent and NLL in nats: " + "; ".join(
    f"{name} {100 * found[0]:.1f} and {found[1]:.4f}" for name, found in on_val.items()) + ".")

# %% [markdown]
r"""
## 12. Explore

You have seen the whole sweep at a glance. Now look at single networks: a slider for $\lambda$ and one for the seed. The
smallest $\lambda$ stays in the picture for comparison, and the table below lists the classes.
"""

# %%
from udlib.course.explorers import LambdaExplorer

explorer = LambdaExplorer(grid)
assert explorer.value == (0.0, 0)
try:
    explorer.move(λ=0.2)
except ValueError as refused:
    print("no such network:", refused)
else:
    raise AssertionError("a λ that was never trained must be refused, not interpolated")

# %%
explorer

# %% [markdown]
r"""
- Find a seed at which $\lambda = 1$ has a lower pooled ECE than $\lambda = 0$ but a lower mAP as well. Is there one at which it
  gains on both? What would you have concluded from that seed alone?
- Look at *ECE, class-wise, if perfect*: a perfectly calibrated network with these probabilities would show that much. How
  much of the class-wise ECE is left to explain?
- Which class is the most over-confident (last column), and is it so at every $\lambda$?

The same for the networks of section 11, on photographs. Their labels have no known truth, so the true error is missing.
"""

# %%
photo_explorer = LambdaExplorer({lam: [load_or_run(r) for r in recipes] for lam, recipes in photo_sweep().items()})
photo_explorer

# %% [markdown]
r"""
- Move $\lambda$ from 0 to 10 at one seed. Which moves more, the mAP or the pooled ECE? Does another seed agree?
- Find a class with few photographs. How much does its average precision jump from seed to seed, beside what $\lambda$ does to it?

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

# %%
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
Compare pooled ECE, overconfidence and mAP, each paired with $\lambda = 10$ by seed. Mind that arm 1 may spoil the features:
then its mAP falls, and its calibration says little. That is why arm 2 is there.

</details>

## Summary

- PAL-N picks one positive at random and solves a single-label problem. With a **full** softmax its best answer is $z'$:
  the chance of each label to be the one picked.
- The paper's **partial** softmax sets each positive against the negatives alone, and then the best answer is *not* $z'$.
  For labels that are independent given the picture it is the classifier's own logits, up to a shift.
- A shift of all logits changes nothing, so the branch cannot state a probability. It is dropped at test time and acts
  through the shared features only.
- $\lambda$ has no meaning without the sums and means beside it.
- On photographs five seeds see nothing at the printed $\lambda = 0.1$. At 10 the pooled ECE is halved and no change of the mAP is
  detected, but CF1 at $p \ge 0.5$ is lower.
- Choose $\lambda$ on validation, report it on test, pair by seed, and say how many intervals you drew.

What the paper claims, and what we measured (a paired difference over five seeds for each line; "holds", "reversed", or not
detected):
"""

# %%
from udlib.course.verdicts import calibration_claims, judge

rows = []
for claim in calibration_claims():
    for chosen in (*claim.recipes, *claim.against):
        load_or_run(chosen)
    try:
        found = judge(claim)
    except (KeyError, ValueError):  # a network that never says yes has no overconfidence
        continue
    numbers = [f"{100 * value:+.2f}" for value in found.difference[:3]]
    rows.append([claim.data, claim.question, claim.source, *numbers, found.verdict])
pd.DataFrame(rows, columns=["data", "claim", "who says so", "points", "from", "to", "verdict"]).set_index("data")

# %%
told = pd.Series([row[-1] for row in rows]).value_counts()
say(f"Of {len(rows)} claims: " + ", ".join(f"{count} *{verdict}*" for verdict, count in told.items()) + ". With that many "
    f"intervals, about {0.05 * len(rows):.1f} would miss 0 if nothing at all were going on. (NLL: a point is 0.01 nats.)")

# %% [markdown]
r"""
Why does the branch do what it does, or not do it? Lesson 04 takes the paper's argument from PAL-N to calibration apart,
measures ECE with care, and puts simple alternatives beside it.

## Further reading

- L. Song et al., *Handling Difficult Labels for Multi-label Image Classification via Uncertainty Distillation*, ACM
  MM 2021: sections 4.1 and 4.2, Table 2, Fig. 3.
- A. K. Menon et al., *Multilabel reductions: what is my loss optimising?*, NeurIPS 2019: where Proposition 1 comes from.
- D. Mahajan et al., *Exploring the Limits of Weakly Supervised Pretraining*, ECCV 2018: the 1/k softmax.
- C. Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017.
"""
