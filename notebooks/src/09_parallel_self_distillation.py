# %% [markdown]
r"""
# 09 · Parallel self-distillation: several specialists, one student

[← 08 · Self-distillation](08_self_distillation.ipynb) · [10 · Distilling from detection →](10_distilling_from_detection.ipynb)

**Aim.** You will turn counts of labels into a graph, cut the graph into groups of classes, train a network for each group, and
distil these networks into one student. Then you will measure how much of the student's score comes from its teachers, and how
much from the loss and the averaging of weights that come with the method.

**Prerequisites.** Lessons 01 and 02: co-occurrence, the baseline. Lessons 03 and 04: calibration and how to repair it. Lesson 05:
distillation, and its limit at high temperature. Lesson 06: the class map (Grad-CAM).

**Time.** About 100 minutes with the exercises. The cells run in about a minute: the networks are loaded, and only very small
ones are trained.
"""

# %% tags=["setup", "report"]
import numpy as np
import pandas as pd
import torch

from udlib.figures import label_graphs as graphs, plots
from udlib.course.exercises import assert_measured, check, check_guess
from udlib.course.explorers import PartitionExplorer
from udlib.course.store import arrays, dataset, labels, load_model, load_or_run, needed, profile, recipe
from udlib.losses import asymmetric_loss
from udlib.figures.plots import show
from udlib.course.recipes import PARTITIONS, averaged, baseline, parallel, partitioned, two_branch
from udlib.statistics import bootstrap_interval
from udlib.course.sentences import Differences, in_units, runs, say, spread, stored, trained

# %% [markdown]
r"""
This lesson uses `scenes` only. As before, code writes the sentences with numbers, and a "[point](../docs/glossary.md#point)" is one
per cent. A difference between two recipes is [paired by seed](../docs/glossary.md#paired-by-seed) and comes with its 95 %
t [interval](../docs/glossary.md#interval), over five seeds, or over three where the text says so. If the interval holds 0, the
verdict is "not detected". Tables print detected differences in bold.
"""

# %% tags=["setup", "report"]
from udlib.figures.text import as_markdown

difference = Differences()  # counts the intervals over seeds that this lesson draws


def in_table(gap, scale=100, digits=2):
    """A difference with its interval, for a table: bold where it is detected."""
    words = in_units(gap, scale, digits, "")
    return f"**{words}**" if gap.verdict in ("higher", "lower") else words

# %% [markdown]
r"""
## 1. First, a picture

The circle shows sixteen classes. A line joins two classes that share images; it is thicker if they share more. On the left, the
classes are cut into three parts so that classes of one part are *often* in the same image (**CGP**, co-occurrence graph partition).
On the right, they are cut so that classes of one part are *seldom* in the same image (**DGP**, dis-occurrence graph partition). Dark
lines join classes of the same part; light lines are cut.
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

# %% [markdown]
r"""
Both matrices hold the same numbers in a different order. CGP puts the bright cells into blocks on the diagonal; DGP keeps them out of the blocks.

The whole method in one picture:

![The classes are cut into parts by co-occurrence and by dis-occurrence; each part has a specialist, and the student learns from the labels and from the logits of both groups of specialists.](images/specialists.svg)

### Predict

The method is called **PSD**, parallel [self-distillation](../docs/glossary.md#self-distillation). It trains **one network for each of
the six parts**, on all images: its [specialists](../docs/glossary.md#specialist). Then one student of all classes learns from all
six. Guess before you go on:
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

We start with two counts. $M = Y^\top Y$ holds, for each pair of classes, the number of images with both. $N$ holds the number of
images with each class. The paper divides one by the other, takes the square root, and makes the result symmetric:

$$A_{ij} = \sqrt{M_{ij} / N_j}, \qquad S = \tfrac12 (A + A^\top), \qquad M_{ii} := 0 .$$

$M_{ij} / N_j$ is a rate: *of the images with class $j$, what share has class $i$ too?* It depends on the direction. Nearly all images of a
rare class may also show a common one, while most images of the common class do not show the rare one. We call $S$ the *affinity*.
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
Why the square root? It raises small rates: 4 % becomes 0.2. The weights become more alike, so that one cut costs nearly as much as
another. *Think!* You could instead divide the rate by what chance would give: $M_{ij} n / (N_i N_j)$. What would that do to rare classes?

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
divide it by the total weight of each side. The **normalised cut** of a graph $W$ into $P$ and $Q$ is
$\mathrm{cut}(P,Q) / \mathrm{vol}(P) + \mathrm{cut}(P,Q) / \mathrm{vol}(Q)$, where $\mathrm{vol}$ adds up the degrees
$d_i = \sum_j W_{ij}$ of a side. A graph of eight vertices has only 127 cuts, so we can try them all. We build the graph so that we know
the answer: three vertices against five, with some noise.
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

# %% tags=["report"]
say(f"The cheapest cut costs {normalised_cut(best):.3f}, the median cut {np.median([*map(normalised_cut, sides)]):.3f}.")

# %% [markdown]
r"""
Sixteen classes and three parts allow millions of cuts, and COCO has 80 classes. **Spectral clustering** (von Luxburg, 2007) replaces
the search by an eigenproblem. It gives each vertex a real number in place of a side. Then the cheapest answer is the second
eigenvector of the normalised Laplacian $L = I - D^{-1/2} W D^{-1/2}$, divided by $\sqrt{d}$. The sign of an entry is the side of its vertex, and the
eigenvalue is a lower bound of the cost.
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
For $k$ parts we take the first $k$ eigenvectors. Their entries give each vertex a point, and k-means sorts the points into $k$ clusters.
`cooccurrence_partition` does this with scikit-learn, eight times from different seeds, and keeps the clustering with the best
Calinski-Harabasz score. The figure shows eigenvectors 2 and 3 of our graph.
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
gap = 2 + int(np.diff(values[1:7]).argmax())
assert gap == 3
say(f"The first eigenvalues are {', '.join(f'{value:.2f}' for value in values[:6])}. The first one is 0 for every connected graph. After "
    f"it, the largest gap follows number {gap}. This is a common sign that {gap} parts are a natural choice.")

# %% [markdown]
r"""
`scenes` is drawn place by place: kitchen and room, shore, street and garden. CGP finds parts that look like these places. The fish
belongs to two of them, because it swims at the shore and is food in the kitchen. DGP runs the same code on $1 - S$, so it puts classes
that *never* meet into one part. We compare the mean affinity inside the parts:
"""

# %% tags=["learn"]
def mean_inside(parts):
    """Mean affinity of two classes of the same part."""
    of = graphs.part_of(parts)
    return S[(of[:, None] == of) & ~np.eye(len(S), dtype=bool)].mean()


# %% tags=["report"]
RANDOM = PARTITIONS[3, "random"]
cuts = CUTS | {"random, sizes of CGP": RANDOM["co"], "random, sizes of DGP": RANDOM["dis"]}
inside = pd.Series({name: mean_inside(parts) for name, parts in cuts.items()})
overall = S.sum() / (len(S) * (len(S) - 1))
assert inside.iloc[0] > overall > inside.iloc[1]
say(as_markdown([["classes of the same part", "mean affinity"], *([name, f"{value:.2f}"] for name, value in inside.items()),
                 ["all pairs", f"{overall:.2f}"]]))

# %% [markdown]
r"""
### How stable is a cut?

A clustering starts from a seed, and labels are a sample. If another seed or another sample gives other parts, the partition is an accident. The
**adjusted Rand index** compares two partitions: it is 1 if they are the same, and 0 on average for random ones. For each $k$ we measure the agreement of

- single clusterings from different seeds,
- the best of eight clusterings, which the library keeps, from different seeds,
- the best of eight, on different images (drawn with replacement),
- the partition and the places that `scenes` is drawn from.
"""

# %% tags=["report"]
from sklearn.cluster import SpectralClustering
from sklearn.metrics import adjusted_rand_score

from udlib.datasets.scenes import CONTEXTS

MAKE = {"CGP": (cooccurrence_partition, lambda S: S), "DGP": (disoccurrence_partition, lambda S: 1 - S - np.eye(len(S)))}
share = pd.DataFrame({place: pd.Series(at.objects) / sum(at.objects.values()) * at.chance for place, at in CONTEXTS.items()})
home = share.loc[names].fillna(0).to_numpy().argmax(1)  # the place where most objects of a class stand


def agreement(partitions):
    """Mean adjusted Rand index over all pairs of partitions, each an array of part numbers."""
    return np.mean([adjusted_rand_score(a, b) for n, a in enumerate(partitions) for b in partitions[:n]])

# %% tags=["report"]
def stability(name, k, tries=5):
    """The four agreements of one strategy and k."""
    make, graph = MAKE[name]
    single = [SpectralClustering(k, affinity="precomputed", n_init=1, random_state=seed).fit_predict(graph(S))
              for seed in range(tries)]
    kept = [graphs.part_of(make(k=k, seed=seed, cooccurrence=M, counts=N)) for seed in range(tries)]
    samples = [Y[np.random.default_rng(n).integers(len(Y), size=len(Y))] for n in range(tries)]
    other = [graphs.part_of(make(k=k, cooccurrence=y.T @ y, counts=y.sum(0))) for y in samples]
    return {"one clustering, other seed": agreement(single), "best of 8, other seed": agreement(kept),
            "best of 8, other images": agreement(other), "the places": adjusted_rand_score(kept[0], home)}


stable = pd.DataFrame({(name, f"k = {k}"): stability(name, k) for name in MAKE for k in (2, 3, 4, 5)}).T
assert stable.max().max() <= 1 and adjusted_rand_score(home, home) == 1
stable.round(2)

# %% tags=["report"]
co, dis = stable.loc[("CGP", "k = 3")], stable.loc[("DGP", "k = 3")]
say(f"At k = 3, the best of eight clusterings has an agreement of {co.iloc[1]:.2f} (CGP) and {dis.iloc[1]:.2f} (DGP) between seeds. Between "
    f"samples of images it is {co.iloc[2]:.2f} and {dis.iloc[2]:.2f}. **So DGP's parts depend on the sample, and CGP's do not.** With the "
    f"places, the agreement is {co.iloc[3]:.2f} for CGP and {dis.iloc[3]:.2f} for DGP. (There are five tries, so the second decimal "
    "means little.)")
if profile() != "smoke":
    assert min(co.iloc[1], dis.iloc[1], co.iloc[2]) > 0.95 and dis.iloc[2] < 0.6

# %% [markdown]
r"""
The released code has to fix the seed and save the partition. That makes a result repeatable, but it does not make the partition a fact
about the data. *Think!* Why should $1 - S$ be harder to cut than $S$? Look at how many of its entries are close to one another.

## 3. The specialists

Each part gets a full network whose head has only the classes of that part. It sees **all** training images, also those without any of
its classes. With few classes nearly all labels are 0. So they are trained by the
**[asymmetric loss](../docs/glossary.md#asymmetric-loss)** (ASL; Ridnik et al., 2021):

$$\mathrm{ASL} = -\sum_i \big[\, y_i \log p_i + (1 - y_i)\, (p_i^m)^{\gamma} \log (1 - p_i^m) \,\big], \qquad
p^m = \max(p - m, 0), \quad \gamma = 4, \; m = 0.05 .$$

Positives count as in BCE. A negative counts less if the network already gives it a low probability. Below the margin $m$ it does not count
at all. The weight $(p^m)^\gamma$ is a constant for the gradient, as in the released code.
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
A negative at $p = 0.5$ has almost no gradient. Near $p = 1$ the gradient of ASL falls again: if the network is sure of a label that is
marked as absent, the loss takes the mark for an error. Positives have no such rule.

### What does its minimum look like?

Suppose that many images look alike, and that a label is present in a share $\pi$ of them. Training moves $p$ to the point where the
gradients of the positives and of the negatives balance:
$\pi (1 - p) = (1 - \pi)\, (p - m)^\gamma\, p (1 - p) / (1 - p + m)$. Solved for $\pi$:

$$\pi(p) = \frac{r}{1 + r}, \qquad r(p) = \frac{(p - m)_+^{\gamma}\; p}{1 - p + m} .$$

For BCE the same steps give $\pi = p$: its minimum *is* the [posterior](../docs/glossary.md#posterior). For ASL it is not.
"""

# %% tags=["learn"]
def posterior_of(p, gamma=4, margin=0.05):
    """The share π of images with the label at which the answer p minimises ASL."""
    r = np.clip(p - margin, 0, None) ** gamma * p / (1 - p + margin)
    return r / (1 + r)


# %% tags=["report"]
p = torch.linspace(0.02, 0.98, 49, dtype=torch.float64)
pi = torch.from_numpy(posterior_of(p.numpy()))
z = torch.logit(p)[:, None].requires_grad_()
one, none = (torch.full((len(p), 1), value) for value in (1, 0))
expected = pi * asymmetric_loss(z, one, reduction="none") + (1 - pi) * asymmetric_loss(z, none, reduction="none")
gradient, = torch.autograd.grad(expected.sum(), z)
assert gradient.abs().max() < 1e-9  # the gradient of the library's loss is zero there

# %% tags=["report"]
grid = np.linspace(0.0005, 0.9995, 2000)
m = np.clip(grid - 0.05, 0, None)
risk = lambda pi: -(pi * np.log(grid) + (1 - pi) * m**4 * np.log(1 - m))
chances = np.linspace(0, 1, 201)
minimum = {"BCE": chances, "ASL": np.interp(chances, posterior_of(grid), grid),
           "ASL, weight not constant": [grid[risk(pi).argmin()] for pi in chances]}
at_half = float(np.interp(0.5, chances, minimum["ASL"]))
assert_measured(at_half, 0.80, within=0.01)
assert_measured(float(posterior_of(0.5)), 0.036, within=0.001)
show(graphs.monotone(chances, minimum, "share π of images with the label", "answer p that minimises the loss",
                     "the minimum of each loss", {"π = 0.5": (0.5, at_half)}),
     "The answer p that minimises each loss over the share of images with the label: the diagonal for BCE, far above it for ASL")

# %% tags=["report"]
say(f"If a label is present in {posterior_of(0.5):.1%} of such images, the mean ASL is smallest at p = 50 %. If it is present in half "
    f"of them, it is smallest at p = {at_half:.0%}. Above a share of {posterior_of(1.0):.0%}, "
    "ASL pushes p towards 1. **So ASL asks for wrong probabilities**, and "
    "more images do not change that.")

# %% [markdown]
r"""
Two things follow. First, the curve rises, so ASL puts the images of one class in the same *order* as the posterior does, and the AP does not suffer. Second,
a threshold of $p = 0.5$ no longer means "as likely as not"; for ASL that point is at $p = 0.8$. The paper counts F1 at a threshold of 0.8.

We know the curve, so we can undo it: $\pi(p)$ turns an answer back into a probability, and needs no data. Lesson 04 fitted its
repairs on validation; this one comes from the loss itself.

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

The curve holds for a network that can give any answer and has seen enough images. Ours is small, has 2,000 images, and learns some of
them by heart. So we measure the pooled [ECE](../docs/glossary.md#ece-expected-calibration-error) of three sets of answers: the
baseline's (BCE), those of the same network trained by ASL, and ASL's answers after the inverse.
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

# %% tags=["report"]
say("ASL raises the pooled ECE by 15 points. Its inverse takes back 14 of them. What is left is the error of this network itself.")
if profile() != "smoke":
    assert round(100 * miscalibrated.mean) == 15 and round(100 * (miscalibrated.mean - repaired.mean)) == 14
assert_measured(100 * np.mean(errors["BCE"]), 2.0, within=0.3)  # what the text beside the guess says
check_guess("pooled ECE of ASL", guess_ece, 100 * np.mean(errors["ASL"]), " %")

# %% [markdown]
r"""
### Do specialists know their classes better?

A network with fewer classes might learn each of them better. We test this: each of the six specialists against **one** network of all
classes, trained by the same loss ("ASL" above), on the classes of the specialist. A specialist starts from random weights
of its own, so it has nothing in common with the control of the same seed but the number of the seed. The interval is valid all the same.
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
    truth = run.labels()
    return average_precision(run.probabilities(), truth.targets, truth.difficult).numpy()


ap = {"ASL": np.array([class_ap(run) for run in control]), "PSD": np.array([class_ap(run) for run in students])}
assert np.allclose(np.nanmean(ap["ASL"], 1), [run.metrics["test"]["mAP"] for run in control])

# %% tags=["report"]
KINDS = {"co": "CGP", "dis": "DGP"}
for group, kind in KINDS.items():  # each class from the one specialist that knows it
    ap[kind] = np.full_like(ap["ASL"], np.nan)
    for k, networks in enumerate(teachers):
        for name, part in SPECIALISTS.items():
            if name.startswith(group):
                ap[kind][k, list(part)] = class_ap(networks[name])


def own(name):
    """Mean AP of one specialist on its classes, and of the control on the same ones, a row for each seed."""
    kind, part = KINDS[name.split()[0]], list(SPECIALISTS[name])
    return np.nanmean([ap[kind][:, part], ap["ASL"][:, part]], 2).T

# %% tags=["report"]
scored = {name: own(name) for name in SPECIALISTS}
CALLED = {name: f"{name}: " + " ".join(names[c] for c in part) for name, part in SPECIALISTS.items()}
gains = {CALLED[name]: 100 * (values[:, 0] - values[:, 1]) for name, values in scored.items()}
if np.isfinite(list(gains.values())).all():
    show(plots.seed_intervals(gains, "mean AP minus that of the generalist, points", zero=True),
         "Each of six specialists minus the network of all classes on the specialist's own classes, five seeds")

# %% tags=["report"]
every = {group: np.nanmean(ap[kind], 1) for group, kind in KINDS.items()}
ahead = {group: difference(values, [run.metrics["test"]["mAP"] for run in control]) for group, values in every.items()}
rows = [[CALLED[name], in_table(difference(values[:, 0], values[:, 1]))] for name, values in scored.items()]
rows += [[f"all classes: the three specialists of {kind}", in_table(ahead[group])] for group, kind in KINDS.items()]
between = difference(every["co"], every["dis"])
say(as_markdown([["specialist minus one network of all classes", "mAP, points"], *rows,
                 ["CGP's specialists minus DGP's, all classes", in_table(between)]]))

# %% tags=["report"]
say("Over all classes, DGP's specialists are 1.4 points ahead of the one network. For CGP's specialists no difference is detected.")
if profile() != "smoke":
    assert ahead["dis"].verdict == "higher" and ahead["co"].verdict == "not detected" and between.verdict == "lower"
    assert round(100 * ahead["dis"].mean, 1) == 1.4
check_guess("specialists", guess_specialists, 100 * (ahead["co"].mean + ahead["dis"].mean) / 2, " points")

# %% [markdown]
r"""
This comparison sets three networks against one, so the specialists cost three times as much. A mean over a part can also hide its classes. So
look at each class:
"""

# %% tags=["report"]
order = np.argsort(-N)
in_parts = [graphs.part_of(PARTS[group]) + 1 for group in KINDS]


def by_class(a, b):
    """Difference in AP of each class, commonest first: the classes that could be measured, and (mean, low, high) in points."""
    kept = [c for c in order if np.isfinite(ap[a][:, c] - ap[b][:, c]).all()]
    gaps = [difference(ap[a][:, c], ap[b][:, c]) for c in kept]
    return kept, gaps, tuple(100 * np.array([getattr(gap, part) for gap in gaps]) for part in ("mean", "low", "high"))

# %% tags=["report"]
alone = {kind: by_class(kind, "ASL") for kind in KINDS.values()}
kept = alone["CGP"][0]
figure = plots.estimates([f"{names[c]} ({in_parts[0][c]}, {in_parts[1][c]})" for c in kept],
                         {f"{kind}'s specialist": ends for kind, (_, _, ends) in alone.items()}, "difference in AP, points",
                         "specialist minus generalist, the commonest class above")
figure.axes[0].axvline(0, color="black", linewidth=0.8)
show(figure, "Difference in AP between the specialists and the network of all classes, for each class, with 95 per cent intervals")

# %% [markdown]
r"""
(The numbers in brackets are the class's part in CGP and its part in DGP.) Some classes lose. We take the class that loses most and ask
which other classes could have helped it. They could help through shared *features*: a network that knows several things of one
colour has more examples from which to learn that colour. We know the hues that `scenes` uses.
"""

# %% tags=["report"]
from udlib.datasets.drawing import KINDS as DRAWN

hue = np.array([DRAWN[name].hue for name in names])
far = np.abs(hue[:, None] - hue)
kin = (np.minimum(far, 1 - far) < 0.06) & ~np.eye(len(names), dtype=bool)  # hues lie on a circle
near_by = {kind: (kin & (part[:, None] == part)).sum(1) for kind, part in zip(KINDS.values(), in_parts)}  # kin of the same part
change = {kind: (ap[kind] - ap["ASL"]).mean(0) for kind in KINDS.values()}
worst = int(np.argmin(np.nan_to_num(change["CGP"] + change["DGP"])))
alike = ", ".join(np.array(names)[kin[worst]]) or "no other class"
say(f"The class that loses most is **{names[worst]}**: its AP changes by {100 * change['CGP'][worst]:+.1f} points in CGP and by "
    f"{100 * change['DGP'][worst]:+.1f} in DGP. Of its colour are {alike}. Its part of CGP holds {near_by['CGP'][worst]} of these, its part "
    f"of DGP {near_by['DGP'][worst]}.")

# %% tags=["report"]
from scipy.stats import spearmanr


def correlation(of_seeds):
    """The mean of correlations with its 95 % t interval over seeds, both on Fisher's scale, which keeps them within 1."""
    gap = difference(np.arctanh(of_seeds), np.zeros(len(of_seeds)))
    return gap._replace(**{end: np.tanh(getattr(gap, end)) for end in ("mean", "low", "high")})

# %% tags=["report"]
company = np.concatenate([near_by[kind] / kin.sum(1).clip(1) for kind in KINDS.values()])
gained = np.concatenate([ap[kind] - ap["ASL"] for kind in KINDS.values()], axis=1)
comparable = np.tile(kin.any(1), 2) & np.isfinite(gained).all(0)  # classes without kin cannot lose any
ranks = [spearmanr(company[comparable], row[comparable]).statistic for row in gained]
trend = correlation(ranks)
say("Over all classes and both groups, a class gains more if more of the classes of its colour are in its part. The rank correlation is "
    f"{in_units(trend, 1, 2, '')}. We found this idea by looking at these numbers, so it has to be tested on other data.")
if profile() != "smoke":
    assert names[worst] == "fish" and trend.verdict == "higher"

# %% [markdown]
r"""
*Think!* A network of all classes sees labels of oranges while it learns fish. Give one reason why this should help with fish, and one
why it should hurt.

## 4. One student

### Two groups of teachers

Each specialist of CGP answers for its own classes. If we put their [logits](../docs/glossary.md#logit) side by side, in the *global* order of the
classes, they make one answer for all classes, $z^{co}$. The specialists of DGP make $z^{dis}$. A part is a list of the global numbers of
its classes, and this list is all that we need.

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
boat, number = names.index("boat"), next(n for n, part in enumerate(PARTS["co"], 1) if names.index("boat") in part)
assert torch.equal(group_logits["co"][0][:, boat],
                   teachers[0][f"co {number}"].test_logits[:, PARTS["co"][number - 1].index(boat)])

# %% [markdown]
r"""
The paper says that the two groups are *complementary*. In CGP, the network that answers for the boat also knows the fish and the umbrella. In DGP, it
knows the lamp and the orange. So the two answers differ. But two networks that differ only in their seed differ too. We
compare both differences. The measure is the root mean square of $z - z'$ over classes and test images.
"""

# %% tags=["report"]
def apart(a, b):
    return (a - b).square().mean().sqrt().item()


co, dis, seeds = group_logits["co"], group_logits["dis"], range(len(teachers))
distances = {"CGP and DGP": [apart(co[k], dis[k]) for k in seeds],
             "CGP, two seeds": [apart(co[k], co[k - 1]) for k in seeds],
             "DGP, two seeds": [apart(dis[k], dis[k - 1]) for k in seeds],
             "ASL alone, two seeds": [apart(control[k].test_logits, control[k - 1].test_logits) for k in seeds]}
show(plots.seed_intervals(distances, "root mean square distance of two logits"),
     "Distance of the logits of CGP's and DGP's specialists, and of two seeds of each and of the control")

# %% tags=["report"]
more = difference(distances["CGP and DGP"], np.mean([distances["CGP, two seeds"], distances["DGP, two seeds"]], axis=0))
say(f"The logits of CGP and of DGP are {np.mean(distances['CGP and DGP']):.2f} apart. Two seeds of the same group are nearer to each "
    f"other, by {more.mean:.2f} [{more.low:.2f}, {more.high:.2f}]. Only this part of the distance comes from the two kinds of parts.")
assert profile() == "smoke" or more.verdict == "higher"

# %% [markdown]
r"""
### The loss

The student has all classes. It learns from the labels, by ASL, and from both groups, by the squared distance of the logits:

$$L = \tfrac12\, \mathrm{ASL}(z, y) + \tfrac12\, \alpha\, \| z - z^{co} \|^2 + \tfrac12\, (1 - \alpha)\, \| z - z^{dis} \|^2 .$$

Here $\alpha = 0.5$. The loss is a sum over classes and a mean over images. The teachers are in eval mode and get no gradient.

Lesson 05 showed that the squared distance of logits is the limit of distillation at high temperature. It also hands on *how
sure* the teachers are. The teachers were trained by ASL too, so their probabilities are too high.
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

The last term does not contain $z$. So **the student learns the mean of the teachers and nothing else**. The disagreement of the two
groups only adds a constant to the loss.
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
*Think!* The paper wants to combine two kinds of patterns. In which sense does a mean of two logits combine them? What would you
measure to tell it from the mean of any six networks?

The history of the stored students shows how the loss splits into labels and teachers:
"""

# %% tags=["report"]
last = pd.DataFrame([run.history[-1] for run in students])
from_labels, from_teachers = last["asymmetric"] / 2, (last["co"] + last["dis"]) / 4
assert np.allclose(from_labels + from_teachers, last["total"], rtol=1e-3)
say(f"In the last epoch, the labels make up {spread(from_labels / last['total'])} % of the loss. The rest comes from the teachers. (A "
    "part of that rest is the constant above, which no student can remove.)")

# %% [markdown]
r"""
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

We train five small networks on 200 images for two epochs each: two specialists of CGP, two of DGP, one student. The result will be
poor; only the steps matter. First come the parts, then the specialists, each on its columns of the labels:
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
pd.DataFrame(library.rows)[["epoch", "total", "asymmetric", "co", "dis"]].round(3)

# %% [markdown]
r"""
## 5. What do the teachers add?

### What the paper claims

Published mAP on MS-COCO and NUS-WIDE, in per cent, without and with the method (Xu et al., 2022). These are the paper's claims; we did
not measure them:
"""

# %% tags=["report"]
CLAIMED = pd.DataFrame(
    {"without": [81.6, 84.0, 86.2, 64.1, 64.7], "with": [83.1, 84.9, 87.3, 65.8, 66.5]},
    index=["COCO, ResNet-101, 448 px", "COCO, Query2Label (ResNet-101), 448 px", "COCO, TResNet-L, 448 px",
           "NUS-WIDE, ResNet-101 + TF", "NUS-WIDE, TResNet-L"])
CLAIMED["gain"] = (CLAIMED["with"] - CLAIMED["without"]).round(1)
assert CLAIMED["gain"].min() > 0
CLAIMED

# %% [markdown]
r"""
Three questions about such a table:

1. **What else differs between the columns?** The method brings a loss (ASL), an average of the weights over the last steps (EMA), and the
   cost of $2k + 1$ networks. If the first column lacks any of these, the gain is not due to the teachers alone.
2. **How large is the spread over seeds?** The table has no error bars. Gains of one or two points need them.
3. **What happened to the probabilities?** The paper prints only mAP and F1, and F1 at a threshold of 0.8. Section 3 explains the 0.8.

So we add one thing at a time:

| step | what it changes |
|---|---|
| BCE, averaged − BCE | a shorter warm-up, and the running average of the weights |
| ASL − BCE, averaged | **the loss** |
| PSD − ASL | **the teachers**, and nothing else |

### Exercise 09.5

Before you look at the results, do the simplest test. `arms` maps "BCE", "BCE, averaged", "ASL" and "PSD" to a list of scores; entry $k$ of each
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

mAP and F1 leave out [difficult](../docs/glossary.md#difficult) labels. *Difficult* is the mAP on images with at least one of them. Calibration
counts every label as it is marked. We chose nothing on the test images: each run ends with its last epoch.
"""

# %% tags=["report"]
from udlib.metrics import precision_recall_f1

arms = {"BCE": plain, "BCE, averaged": runs(averaged()), "ASL": control, "PSD": students}
METRICS = {"mAP": ("mAP, %", 100, 2), "mAP_difficult": ("mAP, Difficult, %", 100, 2), "CF1": ("CF1 at 0.5, %", 100, 2),
           "OF1": ("OF1 at 0.5, %", 100, 2), "CF1 at 0.8": ("CF1 at 0.8, %", 100, 2), "OF1 at 0.8": ("OF1 at 0.8, %", 100, 2),
           "ECE": ("ECE, class-wise, %", 100, 2), "ECE_pooled": ("ECE, pooled, %", 100, 2),
           "true_CE": ("true error, class-wise, %", 100, 2), "true_CE_pooled": ("true error, pooled, %", 100, 2),
           "NLL": ("NLL, nats", 1, 4)}

# %% tags=["report"]
def numbers_of(run):
    """A run's metrics on the test images, with F1 at the paper's threshold beside that at one half."""
    truth = run.labels()
    strict = precision_recall_f1(run.probabilities(), truth.targets, threshold=0.8, ignore=truth.difficult)
    return run.metrics["test"] | {f"{name} at 0.8": strict[name] for name in ("CF1", "OF1")}


measured = {name: [numbers_of(run) for run in arm] for name, arm in arms.items()}


def score(name, key):
    """One metric of one arm, a value for each seed; NaN where it could not be measured."""
    return np.array([numbers.get(key, np.nan) for numbers in measured[name]])

# %% tags=["report"]
pd.DataFrame({title: {name: spread(score(name, key), scale, digits) for name in arms}
              for key, (title, scale, digits) in METRICS.items()}).T

# %% tags=["report"]
STEPS = {"averaging (BCE, averaged − BCE)": ("BCE, averaged", "BCE"), "the loss (ASL − BCE, averaged)": ("ASL", "BCE, averaged"),
         "the teachers (PSD − ASL)": ("PSD", "ASL"), "all of it (PSD − BCE)": ("PSD", "BCE")}
effects = {name: {key: difference(score(a, key), score(b, key)) for key in METRICS} for name, (a, b) in STEPS.items()}
for key in ("mAP", "NLL"):  # three steps make the whole
    parts = [effects[name][key].mean for name in STEPS]
    assert np.isclose(sum(parts[:3]), parts[3], equal_nan=True)
say(as_markdown([["difference, points (NLL: nats)", *STEPS],
                 *([title.removesuffix(", %"), *(in_table(effects[name][key], scale, digits) for name in STEPS)]
                   for key, (title, scale, digits) in METRICS.items())]))

# %% tags=["report"]
def gaps(key, scale=100):
    """The seeds' differences of each step, for a figure; steps that could not be measured are left out."""
    by_step = {name: scale * (score(a, key) - score(b, key)) for name, (a, b) in STEPS.items()}
    return {name: values for name, values in by_step.items() if np.isfinite(values).all()}


for key, words in (("mAP", "mAP"), ("ECE_pooled", "pooled ECE"), ("true_CE_pooled", "pooled true error")):
    if by_step := gaps(key):
        show(plots.seed_intervals(by_step, f"difference in {words}, points", zero=True),
             f"Paired differences in {words} of averaging, of the loss, of the teachers and of all, with 95 per cent intervals")

# %% tags=["report"]
averaging, loss, teaching, all_of_it = effects.values()
if profile() != "smoke":
    assert [round(100 * step["mAP"].mean, 1) for step in effects.values()] == [-2.4, 4.5, -0.3, 1.9]
    assert [step["mAP"].verdict for step in effects.values()] == ["lower", "higher", "not detected", "higher"]
    assert [round(100 * step["ECE_pooled"].mean, 1) for step in (loss, teaching)] == [15.5, -3.5]
    assert [step["NLL"].verdict for step in (loss, teaching)] == ["higher", "lower"]
    assert [round(100 * loss[key].mean) for key in ("OF1", "OF1 at 0.8")] == [-10, 11]
    assert CLAIMED["gain"].min() == 0.9 and CLAIMED["gain"].max() == 1.8
check_guess("mAP, the teachers", guess_student, 100 * teaching["mAP"].mean, " points")

# %% [markdown]
r"""
**mAP.** PSD is 1.9 points above the BCE baseline; the paper's table shows gains of 0.9 to 1.8 points. But the teachers are not the reason:
the loss raises the mAP by 4.5 points, the first step lowers it by 2.4, and for the teachers no change is detected. (The first step has
a shorter warm-up and averages the weights. We cannot say which of the two costs the mAP.)

**Calibration.** The loss raises the pooled ECE by 15.5 points. The teachers lower it by 3.5 points. The NLL rises with the loss and falls with the teachers.

**F1.** The loss lowers OF1 at a threshold of 0.5 by 10 points and raises OF1 at 0.8 by 11. One threshold cannot suit both losses; section 3 shows why.
"""

# %% [markdown]
r"""
### After a repair

We know what is wrong with these probabilities, so we can repair them. We compare three repairs: the inverse of section 3, which needs no data;
one temperature, fitted on validation; and Platt scaling of each class, also fitted on validation. BCE gets the two fitted repairs as
well, or the comparison would not be fair.
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
table = {"ECE, pooled, %": {key: spread(values) for key, values in pooled.items()},
         "NLL, nats": {key: spread(values, 1, 4) for key, values in nats.items()}}
pd.DataFrame(table).unstack().swaplevel(axis=1).sort_index(axis=1).reindex(list(arms)).fillna("")

# %% tags=["report"]
bars = {repair: [100 * np.array(pooled.get((name, repair), [np.nan] * len(plain))) for name in arms] for repair in REPAIRS}
show(plots.interval_bars(list(arms), bars, "pooled ECE on test images, per cent", "as trained, and repaired"),
     "Pooled ECE of the four arms as trained, after ASL's inverse, with a temperature and with Platt scaling")
rows, signs = [], {}
for repair in ("temperature", "Platt"):
    for name in ("BCE", "ASL"):
        level = difference(pooled["PSD", repair], pooled[name, repair])
        likely = difference(nats["PSD", repair], nats[name, repair])
        rows.append([f"{repair}: PSD − {name}", in_table(level), in_table(likely, 1, 4)])
        signs[repair, name] = (level.verdict, likely.verdict)
say(as_markdown([["both repaired by", "pooled ECE, points", "NLL, nats"], *rows]))
if profile() != "smoke":
    assert signs["Platt", "BCE"] == signs["Platt", "ASL"] == ("higher", "lower")

# %% [markdown]
r"""
After Platt scaling, PSD has a slightly higher ECE than BCE and ASL, and a lower NLL. A temperature is not enough: it leaves
$p = 0.5$ where it is, and ASL needs that point to move. Platt scaling also shifts the logits. *Think!* On which side of ASL's curve does
a single temperature fail?

### Why not keep the teachers?

The student learns $\bar z$, the mean of the teachers. As a classifier this mean costs six networks at test time; the student costs one. How
good is the mean, and how close does the student come? For comparison we add the cheapest ensemble: the mean of **two** networks trained by ASL from different seeds.
"""

# %% tags=["report"]
from udlib.training.evaluation import measure

truth = plain[0].labels()
answers = {"ASL, one network": [run.test_logits for run in control],
           "ASL, mean of two seeds": [(control[k].test_logits + control[k - 1].test_logits) / 2 for k in seeds],
           "CGP's three": co, "DGP's three": dis, "all six, mean": [(a + b) / 2 for a, b in zip(co, dis)],
           "PSD, the student": [run.test_logits for run in students]}
judged = {name: [measure(z, truth) for z in logits] for name, logits in answers.items()}
keys = ("mAP", "mAP_difficult", "ECE_pooled", "true_CE_pooled", "NLL")
pd.DataFrame({METRICS[key][0]: {name: spread([numbers.get(key, np.nan) for numbers in of_seeds], *METRICS[key][1:])
                                for name, of_seeds in judged.items()} for key in keys})

# %% tags=["report"]
def of(name, key="mAP"):
    return np.array([one[key] for one in judged[name]])


behind = difference(of("PSD, the student"), of("all six, mean"))
ensemble = difference(of("all six, mean"), of("ASL, one network"))

# %% tags=["report"]
pair, trio = of("ASL, mean of two seeds").mean(), np.mean([of(f"{kind}'s three").mean() for kind in KINDS.values()])
close = [apart(run.test_logits, z) for run, z in zip(students, answers["all six, mean"])]
say(f"The mean of all six is {in_units(ensemble)} of mAP above one network trained by ASL. **The student keeps none of this gain that we can "
    f"detect**: it is {-100 * behind.mean:.2f} points [{-100 * behind.high:.2f}, {-100 * behind.low:.2f}] below the six.")
say(f"Two networks of **all** classes reach a mAP of {100 * pair:.2f} % as an ensemble. Three specialists reach {100 * trio:.2f} % (the mean of "
    f"both groups), and all six {100 * of('all six, mean').mean():.2f} %. (These are means without intervals: the pairs of networks overlap.)")
say(f"On test images the student's logits are {np.mean(close):.2f} away from the teachers' mean (root mean square). Two seeds of ASL are "
    f"{np.mean(distances['ASL alone, two seeds']):.2f} apart.")
if profile() != "smoke":
    assert [ensemble.verdict, behind.verdict, teaching["mAP"].verdict] == ["higher", "lower", "not detected"]

# %% [markdown]
r"""
On test images the student is almost as far from its teachers as two seeds are from each other. There are two possible reasons: it did
not learn the teachers' answers on the training images, or what it learned there does not hold on new images. The training history tells
the first, the stored logits tell the second. (The history is the mean over the last epoch, with batch normalisation in
train mode and before the weights are averaged, so this is a rough comparison.)
"""

# %% tags=["report"]
shown_in = {group: np.sqrt(last[group].to_numpy() / len(names)) for group in KINDS}  # a sum over classes: per class, then the root
on_test = {group: np.array([apart(run.test_logits, z) for run, z in zip(students, group_logits[group])]) for group in KINDS}
carried = {group: difference(on_test[group], shown_in[group]) for group in KINDS}
say(as_markdown([["student's distance from", "in training", "on test images", "difference"],
                 *([kind, spread(shown_in[group], 1), spread(on_test[group], 1), in_table(carried[group], 1)] for group, kind in KINDS.items())]))
middle = np.mean(distances["CGP and DGP"])
say(f"The two groups are {middle:.2f} apart on test images, so a student exactly between them would be {middle / 2:.2f} away from "
    "each. **Most of the student's distance is there in training already;** the step to new images adds about 0.2.")
if profile() != "smoke":
    assert {(gap.verdict, round(gap.mean, 1)) for gap in carried.values()} == {("higher", 0.2)}

# %% [markdown]
r"""
### What it costs

At test time the student is as large as the baseline. Training takes $2k + 1$ networks of that size. The seconds below were measured on a busy
machine, so they are rough.
"""

# %% tags=["report"]
def seconds(of_seeds):
    return np.array([run.provenance["seconds"] for run in of_seeds])


of_teachers = np.array([sum(run.provenance["seconds"] for run in networks.values()) for networks in teachers])
say(f"Training PSD with its teachers took {np.median((seconds(students) + of_teachers) / seconds(control)):.1f} times as long as ASL alone "
    f"(median over seeds). It trains {len(SPECIALISTS) + 1} networks instead of one.")

# %% [markdown]
r"""
## 6. Does the partition matter?

The paper's point is *which* teachers to take: two complementary groups, cut by co-occurrence and against it. So we compare PSD with four controls, three seeds each:

- **CGP alone** and **DGP alone**: half of the teachers.
- **Random parts**: the same number of teachers with parts of the same sizes, but the classes are shuffled (one draw). Only the cut differs from PSD.
- **$k = 1$**: one teacher of all classes. This is plain self-distillation from fresh weights, as "born again" in lesson 08, with PSD's loss.
"""

# %% tags=["report"]
GRID = partitioned()
NAMED = {"PSD: CGP and DGP": (3, "both"), "CGP alone": (3, "CGP"), "DGP alone": (3, "DGP"), "random parts": (3, "random"),
         "k = 1": (1, "whole")}
by_setting = {key: runs(recipes[:3]) for key, recipes in GRID.items()
              if (profile() == "smoke" and key in NAMED.values()) or trained(recipes[:3])}
few = {name: by_setting[key] for name, key in NAMED.items() if key in by_setting}

# %% tags=["report"]
base = control[: len(few["PSD: CGP and DGP"])]
for key, words in (("mAP", "mAP"), ("ECE_pooled", "pooled ECE")):
    from_base = {name: 100 * (stored(arm, key) - stored(base, key)) for name, arm in few.items()}
    if np.isfinite(list(from_base.values())).all():
        show(plots.seed_intervals(from_base, f"{words} minus that of ASL alone, points", zero=True),
             f"Paired differences in {words} from ASL alone of PSD and its four controls, three seeds")

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

# %% [markdown]
r"""
**Does the partition matter?** Three seeds show no difference in mAP between PSD and random parts, nor between PSD and a single teacher of all
classes. PSD is 1.3 points above DGP alone. Its six teachers do lower the pooled ECE, by 2.9 points against a single one.

These intervals are wide: a t interval has a factor of 4.3 with three seeds and of 2.8 with five. They cannot exclude an effect of a few tenths
of a point.

## 7. Which classes gain?

The figure shows the student minus ASL alone for each class, over five seeds. The commonest class is at the top. The numbers in brackets are the
class's part in CGP and its part in DGP.
"""

# %% tags=["report"]
gain = 100 * (ap["PSD"] - ap["ASL"])
kept, class_gaps, ends = by_class("PSD", "ASL")
figure = plots.estimates([f"{names[c]} ({in_parts[0][c]}, {in_parts[1][c]})" for c in kept], {"PSD − ASL": ends},
                         "difference in AP, points", "gain of each class, the commonest above")
figure.axes[0].axvline(0, color="black", linewidth=0.8)
show(figure, "Difference in AP between PSD and ASL for each class with 95 per cent intervals, sorted by frequency")

# %% tags=["report"]
verdicts = pd.Series([gap.verdict for gap in class_gaps]).value_counts()
say(f"The AP is higher for {verdicts.get('higher', 0)} classes and lower for {verdicts.get('lower', 0)}. For the other "
    f"{verdicts.get('not detected', 0)} no difference is detected. Of {len(kept)} intervals, about {len(kept) / 20:.1f} would exclude 0 by chance.")
counts = [spearmanr(N[kept], row[kept]).statistic for row in gain]
trends = {"its frequency": correlation(counts)}
for group, kind, part in zip(KINDS, KINDS.values(), in_parts):
    sizes = np.array([len(PARTS[group][n - 1]) for n in part])
    trends[f"the size of its part in {kind}"] = correlation([spearmanr(sizes[kept], row[kept]).statistic for row in gain])
of_both = zip(gain, *(ap[kind] - ap["ASL"] for kind in KINDS.values()))
trends["what its two specialists gain"] = correlation([spearmanr(row[kept], (a + b)[kept]).statistic for row, a, b in of_both])

# %% tags=["report"]
say(as_markdown([["a class's gain, against", "rank correlation"], *([name, in_table(gap, 1)] for name, gap in trends.items())]))
say("Common classes gain more than rare ones. A class also gains more if its own two specialists are good at it, and less if its part in DGP is "
    "large.")
if profile() != "smoke":
    assert [gap.verdict for gap in trends.values()] == ["higher", "not detected", "lower", "higher"]

# %% [markdown]
r"""
## 8. Where do the teachers look?

The paper shows class maps and reads two patterns from them. CGP's teacher looks at a class *together with its companions*: a **joint
pattern**. DGP's teacher has no class for the companions and looks at the class itself: a **category-specific pattern**. We test this for
the boat. In CGP its part holds things of the shore; in DGP it holds mostly things that are never there. We use four networks of seed 0.
"""

# %% tags=["report"]
from udlib.attention import class_attention, energy_inside
from udlib.datasets.transforms import normalise
from udlib.training.localisation import box_mask

at = {group: next(name for name, part in SPECIALISTS.items() if name.startswith(group) and boat in part) for group in KINDS}
NETS = {f"{KINDS[group]}'s teacher": (needed(students[0].recipe)[name], SPECIALISTS[name].index(boat))
        for group, name in at.items()} | {"ASL alone": (control[0].recipe, boat), "PSD": (students[0].recipe, boat)}
nets = {name: (load_model(one), column) for name, (one, column) in NETS.items()}
friends = [names[c] for c in SPECIALISTS[at["co"]] if c != boat]
say(f"CGP's part holds the boat and its companions: {', '.join(friends)}. DGP's part holds the boat and "
    + ", ".join(names[c] for c in SPECIALISTS[at["dis"]] if c != boat) + ".")

# %% tags=["report"]
first_recipe = control[0].recipe
pictures = dataset(first_recipe.data, "test", first_recipe.size, first_recipe.limit)
data = arrays(first_recipe, "test")
rows = [i for i in data.targets[:, boat].nonzero().flatten().tolist() if any(b.name == "boat" for b in pictures.boxes(i))]

# %% tags=["report"]
def boxes_of(i, wanted):
    return [box for box in pictures.boxes(i) if box.name in wanted]


def mask_of(wanted):
    """The union of the boxes of these classes, for each image with a boat: bool (n, side, side)."""
    return torch.stack([box_mask(boxes_of(i, wanted), pictures.image_size(i), data.images.shape[-1]) for i in rows])


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
easy = [n for n, i in enumerate(rows) if any(not b.difficult for b in boxes_of(i, ["boat"]))
        and any(not b.difficult for b in boxes_of(i, friends))][:4]  # the first four, whatever they show

# %% tags=["report"]
from udlib.figures import overlays

if easy:
    show(overlays.attention_grid([pictures.image(rows[n]) for n in easy], {name: [part[n] for n in easy] for name, part in maps.items()},
                                 ["boat and " + ", ".join(sorted({b.name for b in boxes_of(rows[n], friends)})) for n in easy],
                                 [boxes_of(rows[n], ["boat", *friends]) for n in easy]),
         "Four test images with a boat and its companions, with the class map of the boat by four networks")

# %% [markdown]
r"""
These are the first four test images with an easy boat and an easy companion; nobody picked them for what they show. Do you see the two
patterns? Four pictures do not decide it, so we measure over **all** test images with a boat. How much of the map lies in the boat's
boxes, and how much in the boxes of its companions? From each share we subtract the area of the boxes, which is the share of a flat map.
The intervals are over images, for these four networks only. Another seed might look elsewhere.
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

# %% tags=["report"]
flat = torch.ones(len(rows), 8, 8)
assert torch.allclose(energy_inside(flat, on_boat).double(), on_boat.double().mean((1, 2)), atol=1e-6)  # chance is the area
regions = {"the boat": on_boat, "its companions": on_friends}
energy = {(name, where): over_images(excess(name, masks)) for name in nets for where, masks in regions.items()}
shares = {where: tuple(100 * np.array([energy[name, where][k] for name in nets]) for k in range(3)) for where in regions}
figure = plots.estimates(list(nets), shares, "energy inside the boxes minus their area, points", "class map of the boat, seed 0")
figure.axes[0].axvline(0, color="black", linewidth=0.8)
show(figure, "Share of the boat's class map on the boat and on its companions, minus the area, for four networks")

# %% tags=["report"]
def sign(interval):
    return "higher" if interval[1] > 0 else "lower" if interval[2] < 0 else "not detected"


first, second = list(nets)[:2]
contrast = {where: over_images(excess(first, masks) - excess(second, masks)) for where, masks in regions.items()}
on_it, on_others = contrast["the boat"], contrast["its companions"]
say(f"CGP's teacher puts less of its map on the boat than DGP's teacher does: the difference is {in_units(on_it, 100, 1)}. On the companions, no "
    f"difference is detected: {in_units(on_others, 100, 1)}. **So one of the paper's two patterns shows here:** DGP's teacher looks more at "
    "the class itself, but CGP's teacher does not look more at its companions.")
if profile() != "smoke":
    assert (sign(on_it), sign(on_others)) == ("lower", "not detected")

# %% tags=["report"]
blank = {name: (part.amax((1, 2)) <= 0).double().mean().item() for name, part in maps.items()}
say("Maps that are blank after the ReLU are left out: " + ", ".join(f"{share:.0%} of those of {name}" for name, share in blank.items()) + ".")

# %% [markdown]
r"""
### Cover the companions

A map says where the evidence *is*. It does not say what would happen without it. So we test that directly: we paint the companions' boxes in the
mean colour of the picture and measure how much the boat's logit changes. Any cover disturbs a network. As a control, we therefore cover the mirror image
of the same pixels, in pictures where it touches neither boat nor companion.
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
    say("For none of the four networks do we detect that it uses the companions to find the boat.")
    assert profile() == "smoke" or {sign(drop["companions − mirrored"]) for drop in drops.values()} == {"not detected"}

# %% [markdown]
r"""
*Think!* Water and sand are signs of a boat as much as an umbrella is, but no box is drawn around them. Every network here can see
them. What would you paint over to find out how much a network relies on the shore?

## 9. Explore: k and the strategy

First the whole grid: CGP and DGP together, and each alone, for each $k$ that was trained, three seeds. The dotted lines stand for no teacher, one
teacher of all classes, and random parts.
"""

# %% tags=["report"]
STRATEGIES = ("both", "CGP", "DGP")
KS = [k for k in (2, 3, 4) if all((k, name) in by_setting for name in STRATEGIES)]
beside = {"no teacher": base} | {name: few[name] for name in ("k = 1", "random parts") if name in few}
panels, dotted = {}, {}
for key in ("mAP", "ECE_pooled", "true_CE_pooled"):
    title, scale, _ = METRICS[key]
    panels[title] = {name: [scale * stored(by_setting[k, name], key) for k in KS] for name in STRATEGIES}
    dotted[title] = {name: scale * stored(arm, key).mean() for name, arm in beside.items()}
if KS and np.isfinite([values for panel in panels.values() for lines in panel.values() for values in lines]).all():
    show(plots.panels(KS, panels, "number of parts k", dotted),
         "mAP, pooled ECE and pooled true error over k for both partitions, CGP alone and DGP alone, three seeds")

# %% tags=["report"]
if len(KS) > 1:
    on_val = {k: np.mean([run.metrics["val"]["mAP"] for run in by_setting[k, "both"]]) for k in KS}
    k = max(on_val, key=on_val.get)
    over_k = {name: np.mean([stored(by_setting[k, name], "mAP") for k in KS], axis=0) for name in STRATEGIES}  # pairs are seeds, not runs
    grid_gaps = {f"k = {k}, chosen on validation, minus no teacher: mAP": difference(stored(by_setting[k, "both"], "mAP"), stored(base, "mAP"))}
    grid_gaps |= {f"both partitions minus {name} alone, mean over k: mAP": difference(over_k["both"], over_k[name]) for name in STRATEGIES[1:]}
    for key, what in (("mAP", "mAP"), ("ECE_pooled", "pooled ECE"), ("true_CE_pooled", "pooled true error")):
        slopes = np.polyfit(KS, [stored(by_setting[k, "both"], key) for k in KS], 1)[0]  # one for each seed
        grid_gaps[f"change with one part more: {what}"] = difference(slopes)
    say(as_markdown([["three seeds", "points"], *([name, in_table(gap)] for name, gap in grid_gaps.items())]))
    say("With one part more the calibration errors fall by a point. No trend of the mAP is detected.")
    assert profile() != "course" or [gap.verdict for gap in grid_gaps.values()][3:] == ["not detected", "lower", "lower"]

# %% [markdown]
r"""
Now move the sliders. Every $k$ has its graph and its parts; there are scores only where networks were trained. Look for a $k$ at which a part
of CGP breaks up. Can you name any of DGP's parts?
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
before = explorer.picture.value
explorer.move(k=5, strategy="DGP")
assert explorer.picture.value != before and "no number to show" in explorer.readout.value
explorer.move(k=3, strategy="both")
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
Teachers that cost nothing do not exist: report each arm's training time. Five seeds, paired.

</details>

## Summary

- Labels make a graph: $S$ comes from rates of co-occurrence. CGP cuts $S$ and DGP cuts $1 - S$. The eigenvectors of the Laplacian replace the search through
  all cuts.
- A partition is an estimate. Measure how stable it is under another seed *and* under another sample.
- ASL asks for a $p$ far above the posterior. The order of the images does not change, the probabilities are wrong, and its $p = 0.8$ means "as likely as
  not". The loss tells how to undo this.
- Two squared distances to two groups of teachers are, for the student, one distance to their **mean**. The groups' disagreement is a constant.
- PSD brings a loss, an average of weights, and teachers. To make a claim about teachers, compare with the same loss and average without
  them. To make a claim about *partitions*, compare with random ones.
- A map shows where the evidence is. To claim that a network *uses* something, cover it.

What we found:

- The loss raises the mAP by 4.5 points, and the pooled ECE by 15 points.
- The shorter warm-up and the averaged weights cost two points of mAP in a training of this length.
- The teachers do not change the mAP by an amount that we detect. They lower the pooled ECE by 3.5 points.
- With three seeds, we detect no difference in mAP between PSD's parts, random parts, and a single teacher of all classes.

The numbers behind these sentences:
"""

# %% tags=["report"]
TOP = ("mAP", "ECE_pooled", "true_CE_pooled", "NLL")
say(as_markdown([["difference, points (NLL: nats)", *(METRICS[key][0].removesuffix(", %") for key in TOP)],
                 *([name[0].upper() + name[1:], *(in_table(gap[key], *METRICS[key][1:]) for key in TOP)] for name, gap in effects.items())]))
say(as_markdown([["difference", "mAP, points"],
                 *([f"Specialists of {kind} − one network of all classes", in_table(ahead[group])] for group, kind in KINDS.items()),
                 *([f"PSD − {name} (three seeds)", in_table(gap["mAP"])] for name, gap in against.items())]))
if profile() != "smoke":
    verdicts = [[gap[key].verdict for key in ("mAP", "ECE_pooled")] for gap in effects.values()]
    assert verdicts[:3] == [["lower", "not detected"], ["higher", "higher"], ["not detected", "lower"]]
    assert {against[name]["mAP"].verdict for name in ("random parts", "k = 1")} == {"not detected"}
say(difference.count())

# %% [markdown]
r"""
We used sixteen classes, drawn pictures and a small network trained from random weights. This says little about 80 classes of photographs and
TResNet-L. But the *controls* work there too, and so does the arithmetic: ASL's curve and the mean of the teachers hold wherever these
losses are used.

## Further reading

- J. Xu et al., *Boosting Multi-Label Image Classification with Complementary Parallel Self-Distillation*, 2022, arXiv 2205.10986: the
  method of this lesson; code at github.com/Robbie-Xu/CPSD.
- T. Ridnik et al., *Asymmetric Loss For Multi-Label Classification*, ICCV 2021.
- U. von Luxburg, *A Tutorial on Spectral Clustering*, Statistics and Computing 17, 2007.
- J. Shi and J. Malik, *Normalized Cuts and Image Segmentation*, IEEE TPAMI 22, 2000.
- L. Hubert and P. Arabie, *Comparing Partitions*, Journal of Classification 2, 1985: the adjusted Rand index.
- T.-Y. Lin et al., *Focal Loss for Dense Object Detection*, ICCV 2017: the source of the weight.
- N. Charoenphakdee et al., *On Focal Loss for Class-Posterior Probability Estimation*, CVPR 2021: how to turn the answers of such a loss back into posteriors.
- R. Selvaraju et al., *Grad-CAM*, ICCV 2017.
"""
