# %% [markdown]
r"""
# 09 · Parallel self-distillation: several specialists, one student

[← 08 · Self-distillation](08_self_distillation.ipynb) · [10 · Distilling from detection →](10_distilling_from_detection.ipynb)

**Aim.** You will cut a graph of labels into groups of classes, train a network for each group, and distil these networks into one
student. Then you will measure how much of its score comes from the teachers, and how much from the rest of the method.

**Prerequisites.** Lessons 01 and 02: co-occurrence, the baseline. Lessons 03 and 04: calibration and how to repair it. Lesson 05:
distillation. Lesson 06: the class map (Grad-CAM).

**Time.** About 75 minutes with the exercises. The cells run in about a minute: the networks are loaded, and only very small
ones are trained.
"""

# %% tags=["setup", "report"]
import numpy as np
import torch

from udlib.course.exercises import assert_measured, check, check_guess
from udlib.course.explorers import PartitionExplorer
from udlib.course.recipes import PARTITIONS, averaged, baseline, parallel, partitioned, two_branch
from udlib.course.sentences import Differences, in_table, in_units, runs, say, spread, stored, trained
from udlib.course.store import arrays, dataset, labels, load_model, load_or_run, needed, profile, recipe
from udlib.figures import label_graphs as graphs, plots
from udlib.figures.plots import show
from udlib.figures.text import as_markdown
from udlib.losses import asymmetric_loss
from udlib.statistics import bootstrap_interval

difference = Differences()  # counts the intervals over seeds that this lesson draws

# %% [markdown]
r"""
This lesson uses `scenes` only. A "[point](../docs/glossary.md#point)" is one per cent. A difference between two recipes is
[paired by seed](../docs/glossary.md#paired-by-seed) and comes with its 95 % t [interval](../docs/glossary.md#interval), over five
seeds, or over three where the text says so. Tables print detected differences in bold.

## 1. First, a picture

A line joins two classes that share images; it is thicker if they share more. On the left, classes of one part are *often* in the
same image (**CGP**, co-occurrence graph partition). On the right, they are *seldom* in the same image (**DGP**, dis-occurrence graph
partition). Dark lines join classes of the same part; light lines are cut.
"""

# %% tags=["report"]
from udlib.methods.parallel import label_affinity

counted = labels(baseline(), "train")  # the training labels, in every profile
names, Y = list(counted.classes), counted.targets.double().numpy()
S = label_affinity(Y.T @ Y, Y.sum(0))  # section 2 takes this line apart
PARTS = PARTITIONS[3, "both"]
CUTS = {"CGP: often together": PARTS["co"], "DGP: seldom together": PARTS["dis"]}
show(graphs.partition_graph(S, names, CUTS),
     "Sixteen classes on a circle, joined by their affinity, with the three parts of CGP and, beside it, of DGP")

# %% tags=["report"]
show(graphs.affinity_blocks(S, names, CUTS),
     "The affinity matrix sorted by the parts of CGP, with bright blocks on the diagonal, and by those of DGP, with dark ones")
same_part = {name: (of := graphs.part_of(parts))[:, None] == of for name, parts in CUTS.items()}
inside = [S[same & ~np.eye(len(S), dtype=bool)].mean() for same in same_part.values()]
assert inside[0] > S.sum() / (len(S) * (len(S) - 1)) > inside[1]  # the mean affinity in CGP's parts, of all pairs, in DGP's parts

# %% [markdown]
r"""
CGP puts the bright cells of the matrix into blocks on the diagonal; DGP keeps them out. The whole method in one picture:

![The classes are cut into parts by co-occurrence and by dis-occurrence; each part has a specialist, and the student learns from the labels and from the logits of both groups of specialists.](images/specialists.svg)

### Predict

**PSD**, parallel [self-distillation](../docs/glossary.md#self-distillation), trains **one network for each of the six parts**, on all
images: its [specialists](../docs/glossary.md#specialist). Then one student of all classes learns from all six. Guess:
"""

# %% tags=["learn"]
# mAP of the specialists, each on its own classes, minus that of one network of all classes; points
guess_specialists = ...
# mAP of the student minus that of the same network without any teacher; points
guess_student = ...
# pooled ECE of a network trained by the asymmetric loss alone; per cent (lesson 02's BCE: about 2)
guess_ece = ...

# %% [markdown]
r"""
## 2. From labels to parts

### The graph

$M = Y^\top Y$ holds, for each pair of classes, the number of images with both, and $N$ the number of images with each class. The
paper divides one by the other, takes the square root, and makes the result symmetric:

$$A_{ij} = \sqrt{M_{ij} / N_j}, \qquad S = \tfrac12 (A + A^\top), \qquad M_{ii} := 0 .$$

$M_{ij} / N_j$ is a rate: *of the images with class $j$, what share has class $i$ too?* It depends on the direction. The square root
raises small rates: 4 % becomes 0.2. We call $S$ the *affinity*.
"""

# %% tags=["learn"]
M, N = Y.T @ Y, Y.sum(0)
assert np.array_equal(M.diagonal(), N)  # every image with a class has that class: no information
together = M - np.diag(N)
A = np.sqrt(together / N)  # NumPy divides column j by N_j
assert np.allclose((A + A.T) / 2, S) and np.allclose(S, S.T) and not S.diagonal().any()
assert S.min() >= 0 and S.max() <= 1  # a rate is at most 1, and so is its root

# %% tags=["report"]
i, j = divmod(int(np.abs(A - A.T).argmax()), len(names))  # the pair with the largest difference of its two directions
say(f"{int(M[i, j])} images show a {names[i]} and a {names[j]}. That is {M[i, j] / N[j]:.0%} of the images with a {names[j]}, and "
    f"{M[i, j] / N[i]:.0%} of the images with a {names[i]}. S is the mean of the two square roots, {S[i, j]:.2f}.")

# %% [markdown]
r"""
### Exercise 09.1

Write $S$ for a label matrix `Y` of shape (N, C), with NumPy or torch. Every class in it has at least one positive.
"""

# %% exercise="09.1"
def my_affinity(Y):
    return ...

# %% solution="09.1"
def my_affinity(Y):
    M, N = Y.T @ Y, Y.sum(0)
    A = (M / N) ** 0.5
    A = A - np.diag(np.diag(A))
    return (A + A.T) / 2

# %% mistake="09.1" says="the diagonal"
def my_affinity(Y):
    A = (Y.T @ Y / Y.sum(0)) ** 0.5
    return (A + A.T) / 2

# %% mistake="09.1" says="not symmetric"
def my_affinity(Y):
    A = (Y.T @ Y / Y.sum(0)) ** 0.5
    return A - np.diag(np.diag(A))

# %% mistake="09.1" says="the root is missing"
def my_affinity(Y):
    A = Y.T @ Y / Y.sum(0)
    A = A - np.diag(np.diag(A))
    return (A + A.T) / 2

# %% mistake="09.1" says="root of the mean"
def my_affinity(Y):
    A = Y.T @ Y / Y.sum(0)
    A = A - np.diag(np.diag(A))
    return ((A + A.T) / 2) ** 0.5

# %% mistake="09.1" says="the number of all images"
def my_affinity(Y):
    A = (Y.T @ Y / len(Y)) ** 0.5
    A = A - np.diag(np.diag(A))
    return (A + A.T) / 2

# %% tags=["learn"]
check("09.1", my_affinity)

# %% [markdown]
r"""
### The cut

Cut a graph in two and add up the weights of the edges that you cut. The smallest such sum often splits off a single vertex. So we
divide by the total weight of each side. The **normalised cut** of a graph $W$ into $P$ and $Q$ is
$\mathrm{cut}(P,Q) / \mathrm{vol}(P) + \mathrm{cut}(P,Q) / \mathrm{vol}(Q)$, where $\mathrm{vol}$ adds up the degrees
$d_i = \sum_j W_{ij}$ of a side. With eight vertices we can try all 127 cuts. We build a graph of three against five, with some noise.
"""

# %% tags=["learn"]
noise = np.triu(np.random.default_rng(0).uniform(-0.08, 0.08, (8, 8)), 1)
W = np.full((8, 8), 0.1)
W[:3, :3] = W[3:, 3:] = 0.5
W = W + noise + noise.T
np.fill_diagonal(W, 0)


def normalised_cut(side):
    """The cost of cutting the vertices where `side` is true from the others."""
    cut = W[np.ix_(side, ~side)].sum()
    return cut / W[side].sum() + cut / W[~side].sum()

# %% tags=["learn"]
sides = [np.array([False, *(bool(n >> bit & 1) for bit in range(7))]) for n in range(1, 128)]
best = min(sides, key=normalised_cut)
assert best.tolist() == [False] * 3 + [True] * 5  # the cheapest cut is the one that we built in

# %% [markdown]
r"""
Sixteen classes and three parts allow millions of cuts. **Spectral clustering** (von Luxburg, 2007) gives each vertex a real number in
place of a side. Then the cheapest answer is the second eigenvector of the normalised Laplacian $L = I - D^{-1/2} W D^{-1/2}$, divided by
$\sqrt{d}$. The sign of an entry is the side of its vertex, and the eigenvalue is a lower bound of the cost.
"""

# %% tags=["learn"]
def laplacian_eigenvectors(W):
    """Eigenvalues of the normalised Laplacian, rising; eigenvectors over the root of the degree."""
    d = W.sum(1)
    values, vectors = np.linalg.eigh(np.eye(len(W)) - W / np.sqrt(np.outer(d, d)))
    return values, vectors / np.sqrt(d)[:, None]


values, vectors = laplacian_eigenvectors(W)
assert np.isclose(values[0], 0) and np.allclose(vectors[:, 0], vectors[0, 0])  # all alike
side = vectors[:, 1] > 0
assert np.array_equal(side, best) or np.array_equal(~side, best)  # one eigenvector for 127 tries
assert values[1] <= normalised_cut(best)
print(np.round(vectors[:, 1], 2))

# %% [markdown]
r"""
For $k$ parts, the first $k$ eigenvectors give each vertex a point, and k-means sorts the points into $k$ clusters.
`cooccurrence_partition` does this eight times and keeps the best clustering. DGP runs the same code on $1 - S$, so it puts classes
that *never* meet into one part.
"""

# %% tags=["learn"]
from udlib.methods.parallel import cooccurrence_partition, disoccurrence_partition

values, vectors = laplacian_eigenvectors(S)
assert cooccurrence_partition(counted.targets, k=3) == PARTS["co"]
assert disoccurrence_partition(counted.targets, k=3) == PARTS["dis"]

# %% tags=["report"]
vectors = vectors * np.where(vectors[names.index("tree")] < 0, -1, 1)  # the sign of an eigenvector is free: trees to the top right
show(graphs.embedding(vectors[:, 1:3], names, PARTS["co"], "eigenvector 2", "eigenvector 3", "the points that k-means sorts"),
     "The sixteen classes at the entries of eigenvectors 2 and 3: kitchen and room left, street and garden top, shore below right")
assert 2 + int(np.diff(values[1:7]).argmax()) == 3 and [round(value, 2) for value in values[2:4]] == [0.71, 0.92]

# %% [markdown]
r"""
`scenes` is drawn place by place: kitchen and room, shore, street and garden. CGP finds parts that look like these places. Why three?
After the first eigenvalue, which is always 0, the largest gap follows number 3, from 0.71 to 0.92: a common sign of three parts.

### How stable is a cut?

A clustering starts from a seed, and labels are a sample. The **adjusted Rand index** compares two partitions: it is 1 if they are the
same, and 0 on average for random ones. For five seeds, and for five samples of images drawn with replacement:
"""

# %% tags=["report"]
from sklearn.metrics import adjusted_rand_score


def agreement(partitions):
    """Mean adjusted Rand index over all pairs of partitions."""
    of = [graphs.part_of(parts) for parts in partitions]
    return np.mean([adjusted_rand_score(a, b) for n, a in enumerate(of) for b in of[:n]])


stable, samples = {}, [Y[np.random.default_rng(n).integers(len(Y), size=len(Y))] for n in range(5)]
for kind, make in {"CGP": cooccurrence_partition, "DGP": disoccurrence_partition}.items():
    stable[kind] = (agreement([make(k=3, seed=seed, cooccurrence=M, counts=N) for seed in range(5)]),
                    agreement([make(k=3, cooccurrence=y.T @ y, counts=y.sum(0)) for y in samples]))
say(as_markdown([["agreement, k = 3", "other seeds", "other images"], *([kind, *(f"{v:.2f}" for v in both)] for kind, both in stable.items())]))
assert profile() == "smoke" or min(*stable["CGP"], stable["DGP"][0]) > 0.95 and stable["DGP"][1] < 0.6

# %% [markdown]
r"""
DGP's parts depend on the sample of images, and CGP's do not. Fixing the seed, as the released code does, makes a result repeatable, but
it does not make the partition a fact about the data.

**Think:** why should $1 - S$ be harder to cut than $S$?

<details><summary>Answer</summary>
Most entries of $S$ are small and some are large, so there are clear groups. In $1 - S$ most entries are large and much alike. Many cuts
then cost nearly the same, and a few images decide which one is the cheapest.
</details>

## 3. The specialists

Each part gets a full network whose head has only the classes of that part. It sees **all** training images, so nearly all its labels
are 0. Therefore the specialists are trained by the **[asymmetric loss](../docs/glossary.md#asymmetric-loss)** (ASL; Ridnik et al., 2021):

$$\mathrm{ASL} = -\sum_i \big[\, y_i \log p_i + (1 - y_i)\, (p_i^m)^{\gamma} \log (1 - p_i^m) \,\big], \qquad
p^m = \max(p - m, 0), \quad \gamma = 4, \; m = 0.05 .$$

Positives count as in BCE. A negative counts less if the network already gives it a low probability, and not at all below the margin
$m$. The weight $(p^m)^\gamma$ is a constant for the gradient, as in the released code.
"""

# %% tags=["learn"]
z = torch.tensor([[2.0, -1.0, -4.0], [0.5, 3.0, -0.3]], dtype=torch.float64)
y = torch.tensor([[1, 0, 0], [0, 1, 1]])
p = torch.sigmoid(z)
pm = (p - 0.05).clamp(min=0)
by_hand = -(y * p.log() + (1 - y) * pm**4 * (1 - pm).log()).sum(1).mean()
assert torch.isclose(by_hand, asymmetric_loss(z, y))
assert asymmetric_loss(torch.tensor([[-4.0]]), torch.tensor([[0]])) == 0  # p = 0.018 < margin
bce = -(y * p.log() + (1 - y) * (1 - p).log()).sum(1).mean()
assert torch.isclose(asymmetric_loss(z, y, gamma_neg=0, margin=0), bce)

# %% tags=["report"]
p_wrong = np.linspace(0, 1, 101)
m = np.clip(p_wrong - 0.05, 0, None)
pushes = {"BCE": p_wrong, "weight p⁴, no margin": p_wrong**5, "ASL": m**4 * p_wrong * (1 - p_wrong) / (1.05 - p_wrong)}
show(plots.lines(p_wrong, pushes, "probability p that the network gives to a label that is not there",
                 "gradient against its logit", "gradient of a negative label", markers=False),
     "Gradient of BCE, of a focal weight and of ASL for a negative: ASL is flat up to one half and falls again near one")
assert pushes["ASL"][50] < 0.05 * pushes["BCE"][50]

# %% [markdown]
r"""
A negative at $p = 0.5$ has almost no gradient. Near $p = 1$ the gradient falls again: there the loss takes the mark for an error.

### What does its minimum look like?

Suppose that a label is present in a share $\pi$ of many images that look alike. Training moves $p$ to where the gradients of positives
and negatives balance:
$\pi (1 - p) = (1 - \pi)\, (p - m)^\gamma\, p (1 - p) / (1 - p + m)$. Solved for $\pi$:

$$\pi(p) = \frac{r}{1 + r}, \qquad r(p) = \frac{(p - m)_+^{\gamma}\; p}{1 - p + m} .$$

For BCE the same steps give $\pi = p$: its minimum *is* the [posterior](../docs/glossary.md#posterior). For ASL it is not.
"""

# %% tags=["learn"]
def posterior_of(p, gamma=4, margin=0.05):
    """The share π of images with the label at which the answer p minimises ASL."""
    r = np.clip(p - margin, 0, None) ** gamma * p / (1 - p + margin)
    return r / (1 + r)


p = torch.linspace(0.02, 0.98, 49, dtype=torch.float64)
pi = torch.from_numpy(posterior_of(p.numpy()))
z = torch.logit(p)[:, None].requires_grad_()
one, none = (torch.full((len(p), 1), value) for value in (1, 0))
expected = (pi * asymmetric_loss(z, one, reduction="none")
            + (1 - pi) * asymmetric_loss(z, none, reduction="none"))
gradient, = torch.autograd.grad(expected.sum(), z)
assert gradient.abs().max() < 1e-9  # the gradient of the library's loss is zero there

# %% tags=["report"]
grid, chances = np.linspace(0.0005, 0.9995, 2000), np.linspace(0, 1, 201)
minimum = {"BCE": chances, "ASL": np.interp(chances, posterior_of(grid), grid)}
at_half = float(np.interp(0.5, chances, minimum["ASL"]))
assert_measured(at_half, 0.80, within=0.01)
assert_measured(float(posterior_of(0.5)), 0.036, within=0.001)
assert np.all(np.diff(posterior_of(grid[grid > 0.05])) > 0)
show(graphs.monotone(chances, minimum, "share π of images with the label", "answer p that minimises the loss",
                     "the minimum of each loss", {"π = 0.5": (0.5, at_half)}),
     "The answer p that minimises each loss over the share of images with the label: the diagonal for BCE, far above it for ASL")

# %% [markdown]
r"""
If a label is present in 3.6 % of such images, ASL is smallest at $p$ = 50 %. If it is present in half of them, ASL is smallest at
$p$ = 80 %. **So ASL asks for wrong probabilities**, and more images do not change that. But the curve rises, so the *order* of the
images is that of the posterior, and the AP does not suffer. The paper counts F1 at a threshold of 0.8, where for ASL a label is as
likely as not. And $\pi(p)$ turns an answer back into a probability, without any data.

### Exercise 09.2

Write that inverse for any $\gamma$ and any margin. It takes numbers or arrays `p` in [0, 1].
"""

# %% exercise="09.2"
def my_posterior(p, gamma, margin):
    return ...

# %% solution="09.2"
def my_posterior(p, gamma, margin):
    r = np.clip(p - margin, 0, None) ** gamma * p / (1 - p + margin)
    return r / (1 + r)

# %% mistake="09.2" says="the odds"
def my_posterior(p, gamma, margin):
    return np.clip(p - margin, 0, None) ** gamma * p / (1 - p + margin)

# %% mistake="09.2" says="without the margin"
def my_posterior(p, gamma, margin):
    r = p**gamma * p / (1 - p)
    return r / (1 + r)

# %% mistake="09.2" says="negative base"
def my_posterior(p, gamma, margin):
    r = (p - margin) ** gamma * p / (1 - p + margin)
    return r / (1 + r)

# %% mistake="09.2" says="factor p"
def my_posterior(p, gamma, margin):
    r = np.clip(p - margin, 0, None) ** gamma / (1 - p + margin)
    return r / (1 + r)

# %% mistake="09.2" says="upside down"
def my_posterior(p, gamma, margin):
    r = np.clip(p - margin, 0, None) ** gamma * p / (1 - p + margin)
    return 1 / (1 + r)

# %% tags=["learn"]
check("09.2", my_posterior)

# %% [markdown]
r"""
### Does a trained network follow the curve?

The curve holds for a network that can give any answer and has seen enough images. So we measure the pooled
[ECE](../docs/glossary.md#ece-expected-calibration-error) of ours, trained by BCE, by ASL, and by ASL with its answers turned back.
"""

# %% tags=["learn"]
plain = runs(two_branch(0.0))  # BCE: the baseline
control = runs(parallel())  # ASL, without any teacher
undone = [torch.from_numpy(posterior_of(run.probabilities().numpy())) for run in control]

# %% tags=["report"]
from udlib.calibration import expected_calibration_error, negative_log_likelihood, reliability_curve

marked = plain[0].labels().targets
shown = {"BCE": plain[0].probabilities(), "ASL": control[0].probabilities(), "ASL, undone": undone[0]}
show(plots.reliability({name: reliability_curve(p, marked, average="pooled") for name, p in shown.items()},
                       "test images, seed 0", smallest=20),
     "Reliability diagrams of BCE, of ASL, whose curve lies far below the diagonal, and of ASL after its own inverse")

# %% tags=["report"]
def pooled_error(answers):
    return expected_calibration_error(answers, marked, average="pooled")


errors = {"BCE": [pooled_error(run.probabilities()) for run in plain],
          "ASL": [pooled_error(run.probabilities()) for run in control], "ASL, undone": [*map(pooled_error, undone)]}
miscalibrated, repaired = difference(errors["ASL"], errors["BCE"]), difference(errors["ASL, undone"], errors["BCE"])
say(as_markdown([["", "pooled ECE, %", "minus BCE, points"], ["BCE", spread(errors["BCE"]), ""],
                 ["ASL", spread(errors["ASL"]), in_table(miscalibrated)],
                 ["ASL, undone", spread(errors["ASL, undone"]), in_table(repaired)]]))
if profile() != "smoke":
    assert round(100 * miscalibrated.mean) == 15 and round(100 * (miscalibrated.mean - repaired.mean)) == 14
assert_measured(100 * np.mean(errors["BCE"]), 2.0, within=0.3)  # what the text beside the guess says
check_guess("pooled ECE of ASL", guess_ece, 100 * np.mean(errors["ASL"]), " %")

# %% [markdown]
r"""
ASL raises the pooled ECE by 15 points. Its inverse takes back 14 of them.

### Do specialists know their classes better?

We compare each specialist, on its classes, with **one** network of all classes that was trained by the same loss ("ASL" above).
"""

# %% tags=["learn"]
students = runs(partitioned()[3, "both"])
SPECIALISTS = students[0].recipe.settings.teachers()  # the classes of each, by name
teachers = [{name: load_or_run(teacher) for name, teacher in needed(run.recipe).items()}
            for run in students]
for networks in teachers:
    assert {name: run.recipe.classes for name, run in networks.items()} == SPECIALISTS

# %% tags=["report"]
from udlib.metrics import average_precision


def class_ap(run):
    """AP of each of a run's classes on the test images, difficult labels left out: (C,)."""
    return average_precision(run.probabilities(), run.labels().targets, run.labels().difficult).numpy()


KINDS = {"co": "CGP", "dis": "DGP"}
ap = {name: np.array([class_ap(run) for run in runs_of]) for name, runs_of in (("ASL", control), ("PSD", students))}
assert np.allclose(np.nanmean(ap["ASL"], 1), [run.metrics["test"]["mAP"] for run in control])
for group, kind in KINDS.items():  # each class from the one specialist that knows it
    ap[kind] = np.full_like(ap["ASL"], np.nan)
    for name in (name for name in SPECIALISTS if name.startswith(group)):
        ap[kind][:, list(SPECIALISTS[name])] = [class_ap(networks[name]) for networks in teachers]

# %% tags=["report"]
gains = {f"{name}: " + " ".join(names[c] for c in part):
         100 * np.nanmean(ap[KINDS[name.split()[0]]][:, list(part)] - ap["ASL"][:, list(part)], 1) for name, part in SPECIALISTS.items()}
if np.isfinite(list(gains.values())).all():
    show(plots.seed_intervals(gains, "mean AP minus that of the generalist, points", zero=True),
         "Each of six specialists minus the network of all classes on the specialist's own classes, five seeds")
every = {group: np.nanmean(ap[kind], 1) for group, kind in KINDS.items()}
ahead = {group: difference(values, np.nanmean(ap["ASL"], 1)) for group, values in every.items()}
say(as_markdown([["all classes: specialists − one network", "mAP, points"],
                 *([f"the three of {KINDS[group]}", in_table(gap)] for group, gap in ahead.items())]))
if profile() != "smoke":
    assert ahead["dis"].verdict == "higher" and ahead["co"].verdict == "not detected" and round(100 * ahead["dis"].mean, 1) == 1.4
check_guess("specialists", guess_specialists, 100 * (ahead["co"].mean + ahead["dis"].mean) / 2, " points")

# %% [markdown]
r"""
Over all classes, DGP's specialists are 1.4 points ahead. For CGP's no difference is detected. And three networks cost three times as
much as one.

## 4. One student

### Two groups of teachers

The [logits](../docs/glossary.md#logit) of CGP's specialists, side by side in the *global* order of the classes, make one answer for all
classes, $z^{co}$. Those of DGP make $z^{dis}$. A part is a list of the global numbers of its classes.

### Exercise 09.3

`logits` is a list of tensors, one for each part, of shape (N, classes of the part). `parts` lists the class numbers of each part, in
the same order. Return (N, C): column $c$ holds the logits of class $c$.
"""

# %% exercise="09.3"
def my_scatter(logits, parts):
    return ...

# %% solution="09.3"
def my_scatter(logits, parts):
    scattered = torch.empty(len(logits[0]), sum(len(part) for part in parts))
    for said, part in zip(logits, parts):
        scattered[:, part] = said
    return scattered

# %% mistake="09.3" says="the order of the parts"
def my_scatter(logits, parts):
    return torch.cat(logits, 1)

# %% mistake="09.3" says="the wrong way round"
def my_scatter(logits, parts):
    order = [c for part in parts for c in part]
    return torch.cat(logits, 1)[:, order]

# %% mistake="09.3" says="exchanged"
def my_scatter(logits, parts):
    scattered = torch.empty(sum(len(part) for part in parts), len(logits[0]))
    for said, part in zip(logits, parts):
        scattered[part] = said.T
    return scattered

# %% mistake="09.3" says="zeros"
def my_scatter(logits, parts):
    scattered = torch.zeros(len(logits[0]), sum(len(part) for part in parts))
    scattered[:, parts[0]] = logits[0]
    return scattered

# %% tags=["learn"]
check("09.3", my_scatter)

# %% tags=["report"]
def scattered_test(networks, group):
    """The test logits of one group of specialists, in global order."""
    z = torch.full((len(marked), len(names)), torch.nan)
    for name, part in SPECIALISTS.items():
        if name.startswith(group):
            z[:, list(part)] = networks[name].test_logits
    return z


group_logits = {group: [scattered_test(networks, group) for networks in teachers] for group in KINDS}
assert all(z.isfinite().all() for group in group_logits.values() for z in group)

# %% [markdown]
r"""
The paper says that the two groups are *complementary*: their answers differ. But two networks that differ only in their seed differ
too. We compare both differences, as root mean squares of $z - z'$ over classes and test images.
"""

# %% tags=["report"]
def apart(a, b):
    return (a - b).square().mean().sqrt().item()


co, dis, seeds = group_logits["co"], group_logits["dis"], range(len(teachers))
distances = {"CGP and DGP": [apart(co[k], dis[k]) for k in seeds],
             "CGP, two seeds": [apart(co[k], co[k - 1]) for k in seeds], "DGP, two seeds": [apart(dis[k], dis[k - 1]) for k in seeds],
             "ASL alone, two seeds": [apart(control[k].test_logits, control[k - 1].test_logits) for k in seeds]}
show(plots.seed_intervals(distances, "root mean square distance of two logits"),
     "Distance of the logits of CGP's and DGP's specialists, and of two seeds of each and of the control")
more = difference(distances["CGP and DGP"], np.mean([distances["CGP, two seeds"], distances["DGP, two seeds"]], axis=0))
assert profile() == "smoke" or more.verdict == "higher"
assert profile() == "smoke" or (round(np.mean(distances["CGP and DGP"]), 1), round(more.mean, 1)) == (1.7, 0.3)

# %% [markdown]
r"""
The logits of CGP and of DGP are 1.7 apart. Two seeds of the same group are nearer to each other, by 0.3. Only this part of the distance
comes from the two kinds of parts.

### The loss

The student learns from the labels, by ASL, and from both groups, by the squared distance of the logits:

$$L = \tfrac12\, \mathrm{ASL}(z, y) + \tfrac12\, \alpha\, \| z - z^{co} \|^2 + \tfrac12\, (1 - \alpha)\, \| z - z^{dis} \|^2 .$$

Here $\alpha = 0.5$; the loss is a sum over classes and a mean over images. By lesson 05, this is distillation at a high temperature:
it also hands on *how sure* the teachers are, and teachers trained by ASL are too sure.
"""

# %% tags=["learn"]
from udlib.methods.parallel import parallel_loss

draw = torch.Generator().manual_seed(0)
z, z_co, z_dis = (torch.randn(4, 5, generator=draw, dtype=torch.float64) for _ in range(3))
y = (torch.rand(4, 5, generator=draw) < 0.3).long()
alpha = 0.3
by_hand = (asymmetric_loss(z, y) / 2 + alpha / 2 * (z - z_co).square().sum(1).mean()
           + (1 - alpha) / 2 * (z - z_dis).square().sum(1).mean())
terms = parallel_loss(z, y, z_co, z_dis, alpha)
assert torch.isclose(by_hand, terms["total"].to(by_hand.dtype), rtol=1e-5)
print({name: round(value.item(), 3) for name, value in terms.items()})

# %% [markdown]
r"""
Let $\bar z = \alpha z^{co} + (1 - \alpha) z^{dis}$ be the mean of the teachers. Then

$$\alpha \| z - z^{co} \|^2 + (1 - \alpha) \| z - z^{dis} \|^2 = \| z - \bar z \|^2 + \alpha (1 - \alpha) \| z^{co} - z^{dis} \|^2 .$$

The last term does not contain $z$. So **the student learns the mean of the teachers and nothing else**.
"""

# %% tags=["learn"]
mean = alpha * z_co + (1 - alpha) * z_dis
rest = alpha * (1 - alpha) / 2 * (z_co - z_dis).square().sum(1).mean()
free = z.clone().requires_grad_()
two = parallel_loss(free, y, z_co, z_dis, alpha)["total"]
from_two, = torch.autograd.grad(two, free)
one_teacher = parallel_loss(free, y, mean, mean, alpha)["total"]
from_mean, = torch.autograd.grad(one_teacher, free)
assert torch.allclose(from_two, from_mean, atol=1e-6)  # the same gradient
assert torch.isclose(two - one_teacher, rest.to(two.dtype), rtol=1e-4)  # the constant
print(f"loss with two teachers {two.item():.4f}, with their mean {one_teacher.item():.4f}; "
      f"constant {rest.item():.4f}; same gradient")

# %% [markdown]
r"""
**Think:** the paper wants to combine two kinds of patterns. What would you measure to tell this mean from the mean of any six networks?

<details><summary>Answer</summary>
Train a second student from six specialists of *random* parts of the same sizes, and compare the two students seed by seed. Section 6
does that.
</details>

### Exercise 09.4

Write the loss for tensors of shape (N, C). `asymmetric_loss(z, y)` is the first term; it is already a sum over classes and a mean over
images. No gradient may flow to the teachers.
"""

# %% exercise="09.4"
def my_loss(z, y, z_co, z_dis, alpha):
    return ...

# %% solution="09.4"
def my_loss(z, y, z_co, z_dis, alpha):
    to_co = (z - z_co.detach()).square().sum(1).mean()
    to_dis = (z - z_dis.detach()).square().sum(1).mean()
    return (asymmetric_loss(z, y) + alpha * to_co + (1 - alpha) * to_dis) / 2

# %% mistake="09.4" says="α stands at the wrong group"
def my_loss(z, y, z_co, z_dis, alpha):
    to_co = (z - z_co.detach()).square().sum(1).mean()
    to_dis = (z - z_dis.detach()).square().sum(1).mean()
    return (asymmetric_loss(z, y) + (1 - alpha) * to_co + alpha * to_dis) / 2

# %% mistake="09.4" says="the halves are missing"
def my_loss(z, y, z_co, z_dis, alpha):
    to_co = (z - z_co.detach()).square().sum(1).mean()
    to_dis = (z - z_dis.detach()).square().sum(1).mean()
    return asymmetric_loss(z, y) + alpha * to_co + (1 - alpha) * to_dis

# %% mistake="09.4" says="detach"
def my_loss(z, y, z_co, z_dis, alpha):
    to_co = (z - z_co).square().sum(1).mean()
    to_dis = (z - z_dis).square().sum(1).mean()
    return (asymmetric_loss(z, y) + alpha * to_co + (1 - alpha) * to_dis) / 2

# %% mistake="09.4" says="means over classes"
def my_loss(z, y, z_co, z_dis, alpha):
    to_co, to_dis = (z - z_co.detach()).square().mean(), (z - z_dis.detach()).square().mean()
    return (asymmetric_loss(z, y) + alpha * to_co + (1 - alpha) * to_dis) / 2

# %% mistake="09.4" says="sum over the images"
def my_loss(z, y, z_co, z_dis, alpha):
    to_co = (z - z_co.detach()).square().sum(1).mean()
    to_dis = (z - z_dis.detach()).square().sum(1).mean()
    return (len(z) * asymmetric_loss(z, y) + alpha * to_co + (1 - alpha) * to_dis) / 2

# %% tags=["learn"]
check("09.4", my_loss)

# %% [markdown]
r"""
### The whole method, live

We train two small specialists of CGP, two of DGP, and a student, on 200 images for two epochs each. Only the steps matter. Each
specialist learns its columns of the labels:
"""

# %% tags=["report"]
from dataclasses import asdict, replace

from accelerate.utils import set_seed

from udlib.training.batches import ArrayData
from udlib.methods.parallel import GROUPS, partitions, scattered
from udlib.methods.supervised import make_network
from udlib.training import fit, mixed_seed
from udlib.workshop import train as train_method

train = arrays(control[0].recipe, "train")
some = ArrayData(train.images[:200], train.targets[:200])
tiny = replace(control[0].recipe.training, epochs=2)
halves = partitions(some.targets, k=2)

# %% tags=["learn"]
def on_labels(model, batch):
    """ASL alone: how a specialist is trained, and the control."""
    return parallel_loss(model(batch.images, calibration=False).logits, batch.targets)


ask = {}
for group, parts in halves.items():
    nets = []
    for number, part in enumerate(parts, 1):
        seed = mixed_seed(tiny.seed, GROUPS.index(group), number)  # a start of its own for each
        set_seed(seed)
        nets.append(make_network(len(part), 0.0, "small_narrow"))
        own_labels = replace(some, targets=some.targets[:, part])
        fit(nets[-1], own_labels, on_labels, replace(tiny, seed=seed))
    ask[group] = scattered(nets, parts)  # asks all networks of the group for their logits

# %% [markdown]
r"""
Then the student. `workshop.train` does the same and reaches the same numbers.
"""

# %% tags=["learn"]
def on_both(model, batch):
    """The student's loss: from the labels, and from both groups' logits for this batch."""
    z = model(batch.images, calibration=False).logits
    return parallel_loss(z, batch.targets, ask["co"](batch).logits, ask["dis"](batch).logits)


set_seed(tiny.seed)
student = make_network(some.targets.shape[1], 0.0, "small_narrow")
by_hand = fit(student, some, on_both, tiny)

# %% tags=["report"]
same = recipe("parallel", network="small_narrow", embedding=512, **asdict(tiny), **halves)
_, library = train_method(same, some)
assert np.allclose(by_hand.column("total"), library.column("total"), rtol=1e-3)
say(as_markdown([["epoch", "total", "asymmetric", "co", "dis"],
                 *([str(row["epoch"]), *(f"{row[name]:.3f}" for name in ("total", "asymmetric", "co", "dis"))] for row in library.rows)]))

# %% [markdown]
r"""
## 5. What do the teachers add?

### What the paper claims

Published mAP, in per cent, without and with the method (Xu et al., 2022). These are the paper's claims; we did not measure them:

| network | without | with | gain |
|---|--:|--:|--:|
| COCO, ResNet-101, 448 px | 81.6 | 83.1 | 1.5 |
| COCO, Query2Label (ResNet-101), 448 px | 84.0 | 84.9 | 0.9 |
| COCO, TResNet-L, 448 px | 86.2 | 87.3 | 1.1 |
| NUS-WIDE, ResNet-101 + TF | 64.1 | 65.8 | 1.7 |
| NUS-WIDE, TResNet-L | 64.7 | 66.5 | 1.8 |

The method brings a loss (ASL), an average of the weights over the last steps (EMA), and $2k + 1$ networks. If the first column lacks any of
these, the gain is not due to the teachers alone. The table has no error bars. And it says nothing about the probabilities.

So we add one thing at a time:

| step | what it changes |
|---|---|
| BCE, averaged − BCE | a shorter warm-up, and the running average of the weights |
| ASL − BCE, averaged | **the loss** |
| PSD − ASL | **the teachers**, and nothing else |

### Exercise 09.5

Before you look at the results: `arms` maps "BCE", "BCE, averaged", "ASL" and "PSD" to a list of scores; entry $k$ of each
comes from seed $k$. Return two numbers: in how many seeds **the teachers** win, and how probable so many wins *or more* are if each
seed is a fair coin. `comb(n, k)` counts the ways to choose k of n. What is the smallest probability that five seeds can give?
"""

# %% tags=["setup", "report"]
from math import comb

# %% exercise="09.5"
def my_wins(arms):
    return ..., ...

# %% solution="09.5"
def my_wins(arms):
    wins = sum(a > b for a, b in zip(arms["PSD"], arms["ASL"]))
    n = len(arms["ASL"])
    return wins, sum(comb(n, k) for k in range(wins, n + 1)) / 2**n

# %% mistake="09.5" says="the loss is counted in"
def my_wins(arms):
    wins = sum(a > b for a, b in zip(arms["PSD"], arms["BCE"]))
    n = len(arms["BCE"])
    return wins, sum(comb(n, k) for k in range(wins, n + 1)) / 2**n

# %% mistake="09.5" says="the seeds that PSD loses"
def my_wins(arms):
    wins = sum(a < b for a, b in zip(arms["PSD"], arms["ASL"]))
    return wins, sum(comb(5, k) for k in range(wins, 6)) / 2**5

# %% mistake="09.5" says="every seed of one arm"
def my_wins(arms):
    wins = sum(a > b for a in arms["PSD"] for b in arms["ASL"])
    return wins, 0.5

# %% mistake="09.5" says="exactly so many"
def my_wins(arms):
    wins = sum(a > b for a, b in zip(arms["PSD"], arms["ASL"]))
    n = len(arms["ASL"])
    return wins, comb(n, wins) / 2**n

# %% mistake="09.5" says="more than so many"
def my_wins(arms):
    wins = sum(a > b for a, b in zip(arms["PSD"], arms["ASL"]))
    n = len(arms["ASL"])
    return wins, sum(comb(n, k) for k in range(wins + 1, n + 1)) / 2**n

# %% mistake="09.5" says="the seed that is lost"
def my_wins(arms):
    wins = sum(a > b for a, b in zip(arms["PSD"], arms["ASL"]))
    return wins, 0.5**wins

# %% mistake="09.5" says="both directions"
def my_wins(arms):
    wins = sum(a > b for a, b in zip(arms["PSD"], arms["ASL"]))
    n = len(arms["ASL"])
    return wins, 2 * sum(comb(n, k) for k in range(wins, n + 1)) / 2**n

# %% tags=["learn"]
check("09.5", my_wins)

# %% [markdown]
r"""
### Results on `scenes`

mAP and F1 leave out [difficult](../docs/glossary.md#difficult) labels. *Difficult* is the mAP on images with at least one of them.
"""

# %% tags=["report"]
from udlib.metrics import precision_recall_f1

arms = {"BCE": plain, "BCE, averaged": runs(averaged()), "ASL": control, "PSD": students}
METRICS = {"mAP": ("mAP", 100, 2), "mAP_difficult": ("mAP, Difficult", 100, 2), "OF1": ("OF1 at 0.5", 100, 2), "OF1 at 0.8": ("OF1 at 0.8", 100, 2),
           "ECE_pooled": ("pooled ECE", 100, 2), "true_CE_pooled": ("pooled true error", 100, 2), "NLL": ("NLL, nats", 1, 4)}


def score(name, key):
    """One metric of one arm on the test images, a value for each seed; NaN where it could not be measured."""
    if key != "OF1 at 0.8":
        return stored(arms[name], key)
    truth = arms[name][0].labels()
    return np.array([precision_recall_f1(run.probabilities(), truth.targets, threshold=0.8, ignore=truth.difficult)["OF1"] for run in arms[name]])

# %% tags=["report"]
STEPS = {"averaging (BCE, averaged − BCE)": ("BCE, averaged", "BCE"), "the loss (ASL − BCE, averaged)": ("ASL", "BCE, averaged"),
         "the teachers (PSD − ASL)": ("PSD", "ASL"), "all of it (PSD − BCE)": ("PSD", "BCE")}
effects = {name: {key: difference(score(a, key), score(b, key)) for key in METRICS} for name, (a, b) in STEPS.items()}
steps = [effects[name]["mAP"].mean for name in STEPS]
assert np.isclose(sum(steps[:3]), steps[3], equal_nan=True)  # three steps make the whole
say(as_markdown([["difference, points (NLL: nats)", *STEPS], *([title, *(in_table(effects[name][key], scale, digits) for name in STEPS)]
                                                               for key, (title, scale, digits) in METRICS.items())]))

# %% tags=["report"]
for key, words in (("mAP", "mAP"), ("ECE_pooled", "pooled ECE")):
    by_step = {name: 100 * (score(a, key) - score(b, key)) for name, (a, b) in STEPS.items()}
    if np.isfinite(list(by_step.values())).all():
        show(plots.seed_intervals(by_step, f"difference in {words}, points", zero=True),
             f"Paired differences in {words} of averaging, of the loss, of the teachers and of all, with 95 per cent intervals")
averaging, loss, teaching, all_of_it = effects.values()
if profile() != "smoke":
    assert [round(100 * step["mAP"].mean, 1) for step in effects.values()] == [-2.4, 4.5, -0.3, 1.9]
    assert [step["mAP"].verdict for step in effects.values()] == ["lower", "higher", "not detected", "higher"]
    assert [round(100 * step["ECE_pooled"].mean, 1) for step in (loss, teaching)] == [15.5, -3.5]
    assert [step["NLL"].verdict for step in (loss, teaching)] == ["higher", "lower"]
    assert [round(100 * loss[key].mean) for key in ("OF1", "OF1 at 0.8")] == [-10, 11]
check_guess("mAP, the teachers", guess_student, 100 * teaching["mAP"].mean, " points")

# %% [markdown]
r"""
**mAP.** PSD is 1.9 points above the BCE baseline; the paper shows gains of 0.9 to 1.8 points. But the teachers are not the reason:
the loss raises the mAP by 4.5 points, the first step lowers it by 2.4, and for the teachers no change is detected. (We cannot say
which part of the first step costs the mAP.)

**Calibration.** The loss raises the pooled ECE by 15.5 points. The teachers lower it by 3.5 points. The NLL rises with the loss and falls with the teachers.

**F1.** The loss lowers OF1 at a threshold of 0.5 by 10 points and raises OF1 at 0.8 by 11. One threshold cannot suit both losses; section 3 shows why.

### After a repair

We compare three repairs: the inverse of section 3, one temperature, and Platt scaling of each class, the last two fitted on validation. BCE
gets them as well, or the comparison would not be fair.
"""

# %% tags=["report"]
def taken_back(run):
    return torch.from_numpy(posterior_of(run.probabilities().numpy()))


REPAIRS = {"as trained": lambda run: run.probabilities(), "ASL's inverse": taken_back,
           "temperature": lambda run: run.recalibrated("temperature"), "Platt": lambda run: run.recalibrated("platt")}
answers = {(name, repair): [mend(run) for run in arm] for name, arm in arms.items() for repair, mend in REPAIRS.items()
          if repair != "ASL's inverse" or name in ("ASL", "PSD")}
pooled = {key: [pooled_error(q) for q in of_seeds] for key, of_seeds in answers.items()}
nats = {key: [negative_log_likelihood(q, marked) for q in of_seeds] for key, of_seeds in answers.items()}
bars = {repair: [100 * np.array(pooled.get((name, repair), [np.nan] * len(plain))) for name in arms] for repair in REPAIRS}
show(plots.interval_bars(list(arms), bars, "pooled ECE on test images, per cent", "as trained, and repaired"),
     "Pooled ECE of the four arms as trained, after ASL's inverse, with a temperature and with Platt scaling")

# %% tags=["report"]
platt = {name: (difference(pooled["PSD", "Platt"], pooled[name, "Platt"]), difference(nats["PSD", "Platt"], nats[name, "Platt"]))
         for name in ("BCE", "ASL")}
say(as_markdown([["both repaired by Platt scaling", "pooled ECE, points", "NLL, nats"],
                 *([f"PSD − {name}", in_table(level), in_table(likely, 1, 4)] for name, (level, likely) in platt.items())]))
if profile() != "smoke":
    assert {(level.verdict, likely.verdict) for level, likely in platt.values()} == {("higher", "lower")}
    assert min(np.mean(pooled[name, "temperature"]) for name in ("ASL", "PSD")) > 0.12

# %% [markdown]
r"""
After Platt scaling, PSD has a slightly higher ECE than BCE and ASL, and a lower NLL. A temperature is not enough: it leaves
$p = 0.5$ where it is, and ASL needs that point to move. Platt scaling also shifts the logits.

### Why not keep the teachers?

The student learns $\bar z$, the mean of the teachers. How good is this mean, and how close does the student come? For comparison we add the
mean of **two** networks trained by ASL from different seeds.
"""

# %% tags=["report"]
from udlib.training.evaluation import measure

truth = plain[0].labels()
answers = {"ASL, one network": [run.test_logits for run in control],
           "ASL, mean of two seeds": [(control[k].test_logits + control[k - 1].test_logits) / 2 for k in seeds],
           "CGP's three": co, "DGP's three": dis, "all six, mean": [(a + b) / 2 for a, b in zip(co, dis)],
           "PSD, the student": [run.test_logits for run in students]}
judged = {name: [measure(z, truth) for z in logits] for name, logits in answers.items()}
level, nats_of = ({name: np.array([each[key] for each in of_seeds]) for name, of_seeds in judged.items()} for key in ("mAP", "NLL"))
say(as_markdown([["mean ± sd over seeds", "mAP, %", "NLL, nats"],
                 *([name, spread(level[name]), spread(nats_of[name], 1, 4)] for name in answers)]))

# %% tags=["report"]
ensemble = difference(level["all six, mean"], level["ASL, one network"])
behind = difference(level["PSD, the student"], level["all six, mean"])
close = [apart(run.test_logits, z) for run, z in zip(students, answers["all six, mean"])]
seconds = [sum(run.provenance["seconds"] for run in (student, *networks.values())) / single.provenance["seconds"]
           for student, networks, single in zip(students, teachers, control)]
if profile() != "smoke":
    assert [round(100 * gap.mean, 1) for gap in (ensemble, behind)] == [4.5, -4.8] and behind.high < 0 < ensemble.low
    assert level["ASL, mean of two seeds"].mean() > max(level[f"{kind}'s three"].mean() for kind in KINDS.values()) + 0.015
    assert [round(np.mean(values), 1) for values in (close, distances["ASL alone, two seeds"])] == [1.1, 1.3]
    assert round(np.median(seconds)) == 3

# %% [markdown]
r"""
The mean of all six is 4.5 points of mAP above one network trained by ASL. The student is 4.8 points below the six, so it **keeps none of this
gain that we can detect**. On test images its logits are 1.1 away from the teachers' mean, almost as far as two seeds of ASL are from each
other (1.3). And two networks of **all** classes are a better ensemble than three specialists.

At test time the student costs one network and not six. Its training, with the six teachers, took about three times as long as ASL alone
(measured on a busy machine).

## 6. Does the partition matter?

We compare PSD with four controls, three seeds each:

- **CGP alone** and **DGP alone**: half of the teachers.
- **Random parts**: parts of the same sizes, but the classes are shuffled (one draw). Only the cut differs from PSD.
- **$k = 1$**: one teacher of all classes. This is "born again" of lesson 08, with PSD's loss.
"""

# %% tags=["report"]
GRID = partitioned()
NAMED = {"PSD: CGP and DGP": (3, "both"), "CGP alone": (3, "CGP"), "DGP alone": (3, "DGP"), "random parts": (3, "random"),
         "k = 1": (1, "whole")}
by_setting = {key: runs(recipes[:3]) for key, recipes in GRID.items()
              if (profile() == "smoke" and key in NAMED.values()) or trained(recipes[:3])}
few = {name: by_setting[key] for name, key in NAMED.items() if key in by_setting}
base = control[: len(few["PSD: CGP and DGP"])]
from_base = {name: 100 * (stored(arm, "mAP") - stored(base, "mAP")) for name, arm in few.items()}
if np.isfinite(list(from_base.values())).all():
    show(plots.seed_intervals(from_base, "mAP minus that of ASL alone, points", zero=True),
         "Paired differences in mAP from ASL alone of PSD and its four controls, three seeds")

# %% tags=["report"]
SHORT = {"mAP": (100, 2), "ECE_pooled": (100, 2), "NLL": (1, 4)}
against = {name: {key: difference(stored(few["PSD: CGP and DGP"], key), stored(arm, key)) for key in SHORT}
           for name, arm in few.items() if name != "PSD: CGP and DGP"}
say(as_markdown([["three seeds", "mAP, points", "pooled ECE, points", "NLL, nats"],
                 *([f"PSD − {name}", *(in_table(gaps_of[key], *SHORT[key]) for key in SHORT)] for name, gaps_of in against.items())]))
if profile() != "smoke":
    assert {name: gaps_of["mAP"].verdict for name, gaps_of in against.items()} == {
        "CGP alone": "not detected", "DGP alone": "higher", "random parts": "not detected", "k = 1": "not detected"}
    assert against["k = 1"]["ECE_pooled"].verdict == "lower"
    assert all(gaps_of["NLL"].verdict == "lower" for gaps_of in against.values())
    assert [round(100 * gap.mean, 1) for gap in (against["DGP alone"]["mAP"], against["k = 1"]["ECE_pooled"])] == [1.3, -2.9]

# %% [markdown]
r"""
Three seeds show no difference in mAP between PSD and random parts, nor between PSD and a single teacher of all
classes. PSD is 1.3 points above DGP alone. Its six teachers do lower the pooled ECE, by 2.9 points against a single one, and its NLL
is lower than that of each of the four. Intervals over three seeds are wide: PSD could still differ by one point of mAP from a
single teacher, and by two from random parts.

## 7. Which classes gain?

The figure compares the specialists and the student with ASL alone, over five seeds. In brackets: the class's part in CGP and in DGP.
"""

# %% tags=["report"]
in_parts = [graphs.part_of(PARTS[group]) + 1 for group in KINDS]
LINES = {"CGP's specialist": "CGP", "DGP's specialist": "DGP", "PSD, the student": "PSD"}
kept = [c for c in np.argsort(-N) if all(np.isfinite(ap[key][:, c] - ap["ASL"][:, c]).all() for key in LINES.values())]
by_class = {title: [difference(ap[key][:, c], ap["ASL"][:, c]) for c in kept] for title, key in LINES.items()}
figure = plots.estimates([f"{names[c]} ({in_parts[0][c]}, {in_parts[1][c]})" for c in kept],
                         {title: tuple(100 * np.array([getattr(gap, end) for gap in gaps]) for end in ("mean", "low", "high"))
                          for title, gaps in by_class.items()}, "AP minus that of ASL alone, points", "the commonest class above")
figure.axes[0].axvline(0, color="black", linewidth=0.8)
show(figure, "Difference in AP from ASL alone of both kinds of specialists and of the student, for each class, with 95 per cent intervals")
if profile() != "smoke":
    words = [gap.verdict for gap in by_class["PSD, the student"]]
    assert [words.count(word) for word in ("higher", "lower", "not detected")] == [5, 2, 9]
    fish = [round(100 * by_class[title][kept.index(names.index("fish"))].mean) for title in LINES]
    assert fish[:2] == [-14, -17]

# %% [markdown]
r"""
A mean over classes hides much: the fish loses 14 and 17 points of AP with the specialists. The student gains in 5 classes and loses in 2;
for the other 9 no difference is detected. Of 16 intervals, about one excludes 0 by chance.

## 8. Where do the teachers look?

The paper reads two patterns from class maps. CGP's teacher looks at a class *together with its companions*: a **joint pattern**. DGP's
teacher has no class for the companions and looks at the class itself: a **category-specific pattern**. We test this for the boat, whose
companions in CGP are ball, bird, fish and umbrella, with four networks of seed 0.
"""

# %% tags=["report"]
from udlib.attention import class_attention, energy_inside
from udlib.datasets.transforms import normalise
from udlib.training.localisation import box_mask

boat = names.index("boat")
at = {group: next(name for name, part in SPECIALISTS.items() if name.startswith(group) and boat in part) for group in KINDS}
NETS = {f"{KINDS[group]}'s teacher": (needed(students[0].recipe)[name], SPECIALISTS[name].index(boat))
        for group, name in at.items()} | {"ASL alone": (control[0].recipe, boat), "PSD": (students[0].recipe, boat)}
nets = {name: (load_model(one), column) for name, (one, column) in NETS.items()}
friends = [names[c] for c in SPECIALISTS[at["co"]] if c != boat]
assert friends == ["ball", "bird", "fish", "umbrella"]

# %% tags=["report"]
first_recipe = control[0].recipe
pictures, data = dataset(first_recipe.data, "test", first_recipe.size, first_recipe.limit), arrays(first_recipe, "test")
rows = [i for i in data.targets[:, boat].nonzero().flatten().tolist() if any(b.name == "boat" for b in pictures.boxes(i))]


def mask_of(wanted):
    """The union of the boxes of these classes, for each image with a boat: bool (n, side, side)."""
    boxes = [[box for box in pictures.boxes(i) if box.name in wanted] for i in rows]
    return torch.stack([box_mask(each, pictures.image_size(i), data.images.shape[-1]) for i, each in zip(rows, boxes)])


on_boat = mask_of(["boat"])
on_friends = mask_of(friends) & ~on_boat  # a pixel of both counts for the boat
assert on_boat.any((1, 2)).all() and not (on_boat & on_friends).any()

# %% tags=["report"]
@torch.inference_mode()
def forward(net, images):
    """The last feature maps and the logits."""
    parts = [net(normalise(part)) for part in images.split(200)]
    return torch.cat([part.features for part in parts]).clone(), torch.cat([part.logits for part in parts]).clone()


features = {name: forward(net, data.images[rows])[0] for name, (net, _) in nets.items()}
maps = {name: class_attention(net.head, features[name], column, net.pooling) for name, (net, column) in nets.items()}
shown_boxes = [[box for box in pictures.boxes(i) if box.name in ("boat", *friends)] for i in rows]
easy = [n for n, boxes in enumerate(shown_boxes) if len({b.name == "boat" for b in boxes if not b.difficult}) == 2][:4]

# %% tags=["report"]
from udlib.figures import overlays

if easy:
    show(overlays.attention_grid([pictures.image(rows[n]) for n in easy], {name: [part[n] for n in easy] for name, part in maps.items()},
                                 ["boat and " + ", ".join(sorted({b.name for b in shown_boxes[n]} - {"boat"})) for n in easy],
                                 [shown_boxes[n] for n in easy]),
         "Four test images with a boat and its companions, with the class map of the boat by four networks")

# %% [markdown]
r"""
These are the first four test images with an easy boat and an easy companion. We measure over **all** test images with a boat: how much of
the map lies in the boat's boxes, and in those of its companions, minus the area of the boxes, which is the share of a flat map? The
intervals are over images, for these four networks only.
"""

# %% tags=["report"]
def excess(name, masks):
    """Energy inside minus area, for each image; NaN where the map is blank or there is no box."""
    area = masks.double().mean((1, 2))
    return torch.where(area > 0, energy_inside(maps[name], masks).double() - area, torch.nan)


def over_images(values):
    """Mean over images with a 95 % bootstrap interval; NaN where nothing was measured."""
    kept = values[values.isfinite()]
    return bootstrap_interval(lambda k: kept[k].mean(), len(kept), 500) if len(kept) > 1 else (np.nan,) * 3


def sign(interval):
    return "higher" if interval[1] > 0 else "lower" if interval[2] < 0 else "not detected"

# %% tags=["report"]
flat, regions = torch.ones(len(rows), 8, 8), {"the boat": on_boat, "its companions": on_friends}
assert torch.allclose(energy_inside(flat, on_boat).double(), on_boat.double().mean((1, 2)), atol=1e-6)  # chance is the area
energy = {(name, where): over_images(excess(name, masks)) for name in nets for where, masks in regions.items()}
shares = {where: tuple(100 * np.array([energy[name, where][k] for name in nets]) for k in range(3)) for where in regions}
figure = plots.estimates(list(nets), shares, "energy inside the boxes minus their area, points", "class map of the boat, seed 0")
figure.axes[0].axvline(0, color="black", linewidth=0.8)
show(figure, "Share of the boat's class map on the boat and on its companions, minus the area, for four networks")
first, second = list(nets)[:2]
on_it, on_others = (over_images(excess(first, masks) - excess(second, masks)) for masks in regions.values())
say(f"CGP's teacher minus DGP's teacher: {in_units(on_it, 100, 1)} on the boat, {in_units(on_others, 100, 1)} on the companions.")
assert profile() == "smoke" or (sign(on_it), sign(on_others)) == ("lower", "not detected")

# %% [markdown]
r"""
CGP's teacher puts less of its map on the boat than DGP's teacher does. On the companions no difference is detected. **So one of the paper's two
patterns shows here:** DGP's teacher looks more at the class itself, but CGP's teacher does not look more at its companions.

### Cover the companions

A map does not say what would happen without the companions. So we paint their boxes in the mean colour of the picture and measure how much
the boat's logit changes. Any cover disturbs a network. As a control we cover the mirror image of the same pixels, where
it touches neither boat nor companion.
"""

# %% tags=["report"]
mirrored = on_friends.flip(2)
fair = (on_friends.any((1, 2)) & ~(mirrored & (on_boat | on_friends)).any(2).any(1)).nonzero().flatten()
images = data.images[rows][fair]
colour = images.double().mean((2, 3), keepdim=True).to(images.dtype)


def covered(masks):
    return torch.where(masks[fair][:, None], colour, images)


drops = {}
for name, (net, column) in nets.items() if len(fair) > 1 else ():
    before, hidden, elsewhere = (forward(net, part)[1][:, column].double() for part in (images, covered(on_friends), covered(mirrored)))
    drops[name] = {"companions": over_images(hidden - before), "mirrored": over_images(elsewhere - before),
                   "companions − mirrored": over_images(hidden - elsewhere)}

# %% tags=["report"]
if drops:
    shown = {what: tuple(np.array([drops[name][what][k] for name in nets]) for k in range(3)) for what in ("companions", "mirrored")}
    figure = plots.estimates(list(nets), shown, "change of the boat's logit", f"{len(fair)} pictures with something covered")
    figure.axes[0].axvline(0, color="black", linewidth=0.8)
    show(figure, "Change of the boat's logit when its companions are covered, and when as much is covered elsewhere")
    say(as_markdown([["network", "covering the companions minus covering elsewhere, logits"],
                     *([name, in_units(drop["companions − mirrored"], 1, 2, "")] for name, drop in drops.items())]))
    assert profile() == "smoke" or {sign(drop["companions − mirrored"]) for drop in drops.values()} == {"not detected"}

# %% [markdown]
r"""
For none of the four networks do we detect that it uses the companions to find the boat.

**Think:** water and sand are signs of a boat as much as an umbrella is, but no box is drawn around them. What would you paint over to find
out how much a network relies on the shore?

<details><summary>Answer</summary>
Everything *outside* the boat's box: swap it for the ground of a street. As a control, swap it for another shore. The cut edges around
the box are the same, and only the place differs.
</details>

## 9. Explore: k and the strategy

CGP and DGP together, and each alone, for each $k$ that was trained, three seeds. Dotted lines: no teacher, one teacher of all classes,
random parts.
"""

# %% tags=["report"]
STRATEGIES = ("both", "CGP", "DGP")
KS = [k for k in (2, 3, 4) if all((k, name) in by_setting for name in STRATEGIES)]
beside = {"no teacher": base} | {name: few[name] for name in ("k = 1", "random parts") if name in few}
SHOWN = {"mAP": "mAP, %", "ECE_pooled": "pooled ECE, %"}
panels = {title: {name: [100 * stored(by_setting[k, name], key) for k in KS] for name in STRATEGIES} for key, title in SHOWN.items()}
dotted = {title: {name: 100 * stored(arm, key).mean() for name, arm in beside.items()} for key, title in SHOWN.items()}
if KS and np.isfinite([values for panel in panels.values() for lines in panel.values() for values in lines]).all():
    show(plots.panels(KS, panels, "number of parts k", dotted),
         "mAP and pooled ECE over k for both partitions, CGP alone and DGP alone, three seeds")
if len(KS) > 1:  # one slope for each seed
    slopes = {key: difference(np.polyfit(KS, [stored(by_setting[k, "both"], key) for k in KS], 1)[0]) for key in SHOWN}
    assert profile() != "course" or [gap.verdict for gap in slopes.values()] == ["not detected", "lower"]
    assert profile() != "course" or round(100 * slopes["ECE_pooled"].mean) == -1

# %% [markdown]
r"""
With one part more in both partitions, the pooled ECE falls by a point. No trend of the mAP is detected.

Now move the sliders; there are scores only where networks were trained. At which $k$ does a part of CGP break up? Can you name any of DGP's
parts?
"""

# %% tags=["report"]
cut = {}
for k in range(1, 6):
    both = partitions(counted.targets, k)  # at k = 1 there is one part, whatever the strategy
    alone = {"both": both, "CGP": {"co": both["co"]}, "DGP": {"dis": both["dis"]} if k > 1 else both}
    cut |= {(k, name): parts for name, parts in alone.items()} | {(k, "random"): partitions(counted.targets, k, "random")}
assert cut[3, "both"] == PARTS and cut[3, "random"] == PARTITIONS[3, "random"]
by_cut = by_setting | {(3, "both"): students}
by_cut |= {(1, strategy): by_setting.get((1, "whole"), []) for strategy in (*STRATEGIES, "random")}

# %% tags=["report"]
explorer = PartitionExplorer(S, names, cut, by_cut, control, start={"k": 3, "strategy": "both"})
assert "mAP" in explorer.readout.value
explorer

# %% [markdown]
r"""
### Exercise ★★★ (open): which claim needs which arm?

Somebody reports that PSD beats a BCE baseline in CF1 at the threshold 0.8, and writes three claims: (1) "teachers of label
groups teach something", (2) "groups from co-occurrence teach more than other groups", (3) "many specialists are needed".
Design the arms. For each claim name the one difference that tests it.

One point each:

1. The loss and the averaging of weights are the same in all arms.
2. There are groups that know nothing about co-occurrence, of the same sizes.
3. Something tells specialists from a plain ensemble.
4. The threshold does not decide the comparison.

<details><summary>A worked answer</summary>

All arms train with ASL and averaged weights: (i) no teacher; (ii) PSD; (iii) PSD with *random* groups, of the sizes of the
true ones, drawn anew for each seed; (iv) the same number of teachers, each of which knows all classes; (v) a single such
teacher. Claim 1 is (ii) minus (i). Claim 2 is (ii) minus (iii), and not (ii) minus (i). For claim 3: (ii) minus (iv) asks
whether they must be specialists, (iv) minus (v) whether they must be many. The threshold of 0.8 favours ASL, which asks for
probabilities far above the posterior. So compare mAP, and F1 at a threshold that each arm chooses on validation.
Report each arm's training time. Five seeds, paired.

</details>

## Summary

- CGP cuts the affinity $S$, and DGP cuts $1 - S$. A partition is an estimate: measure how stable it is under another sample.
- ASL asks for a $p$ far above the posterior. The order of the images does not change, and the loss tells how to undo this.
- Two squared distances to two groups of teachers are, for the student, one distance to their **mean**.
- To make a claim about teachers, compare with the same loss and averaging without them. To make a claim about *partitions*, compare
  with random ones. To claim that a network *uses* something, cover it.

What we found:

- The loss raises the mAP by 4.5 points, and the pooled ECE by 15 points.
- The shorter warm-up and the averaged weights cost two points of mAP in a training of this length.
- The teachers do not change the mAP by an amount that we detect. They lower the pooled ECE by 3.5 points.
- With three seeds, we detect no difference in mAP between PSD's parts, random parts, and a single teacher of all classes.

The numbers behind these sentences:
"""

# %% tags=["report"]
found = {**effects, **{f"PSD − {name} (three seeds)": against[name] for name in ("random parts", "k = 1") if name in against}}
say(as_markdown([["difference", "mAP, points", "pooled ECE, points"],
                 *([name[0].upper() + name[1:], in_table(gap["mAP"]), in_table(gap["ECE_pooled"])] for name, gap in found.items())]))
if profile() != "smoke":
    verdicts = [[gap[key].verdict for key in ("mAP", "ECE_pooled")] for gap in effects.values()]
    assert verdicts[:3] == [["lower", "not detected"], ["higher", "higher"], ["not detected", "lower"]]
    assert {against[name]["mAP"].verdict for name in ("random parts", "k = 1")} == {"not detected"}
say(difference.count())

# %% [markdown]
r"""
Sixteen drawn classes and a small network say little about 80 classes of photographs and TResNet-L. But the *controls* work there too, and
ASL's curve and the mean of the teachers hold wherever these losses are used.

**Next.** In [lesson 10](10_distilling_from_detection.ipynb) the teacher knows *where* the objects are.

## Further reading

- J. Xu et al., *Boosting Multi-Label Image Classification with Complementary Parallel Self-Distillation*, 2022, arXiv 2205.10986: the
  method of this lesson; code at github.com/Robbie-Xu/CPSD.
- T. Ridnik et al., *Asymmetric Loss For Multi-Label Classification*, ICCV 2021.
- U. von Luxburg, *A Tutorial on Spectral Clustering*, Statistics and Computing 17, 2007.
- J. Shi and J. Malik, *Normalized Cuts and Image Segmentation*, IEEE TPAMI 22, 2000.
- L. Hubert and P. Arabie, *Comparing Partitions*, Journal of Classification 2, 1985: the adjusted Rand index.
- N. Charoenphakdee et al., *On Focal Loss for Class-Posterior Probability Estimation*, CVPR 2021: how to turn the answers of such a loss back into posteriors.
- R. Selvaraju et al., *Grad-CAM*, ICCV 2017.
"""

# %% [markdown]
r"""
## Quiz

What do you know after this lesson?
"""

# %% tags=["report"]
from udlib.course.quizzes import quiz

quiz("09")
