# %% [markdown]
r"""
# 09 · Parallel self-distillation: several specialists, one student

[← 08 · Self-distillation](08_self_distillation.ipynb) · [10 · Distilling from detection →](10_distilling_from_detection.ipynb)

**Aim.** You will go from counts of labels to a graph, from cuts of the graph to teachers that know a few classes each, and from
these to one student. And you will say how much of its score is due to the teachers, and how much to the loss and the averaging
that come with them.

**Prerequisites.** Lessons 01 and 02: co-occurrence, the baseline. Lessons 03 and 04: calibration and its repair. Lesson 05:
distillation, and its limit at high temperature. From lesson 06 the class map (Grad-CAM).

**Time.** About 100 minutes with the exercises. The cells run in about a minute: the networks are loaded, and only very small
ones are trained.
"""

# %% tags=["setup"]
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
This lesson is about `scenes`, whose partitions stand in its recipes. As before, sentences with numbers are written by code; a
"point" is one per cent; a difference between two recipes is **paired by seed** and comes with its 95 % t interval, over five
seeds, or over three where the text says so. If the interval holds 0, its verdict is "not detected".
"""

# %% tags=["setup"]
difference = Differences()  # counts the intervals over seeds that this lesson draws

# %% [markdown]
r"""
## 1. First, a picture

Sixteen classes on a circle. A line joins two classes that share images, the thicker the more often. On the left the classes
are cut into three parts so that classes of one part *often* stand together (**CGP**, co-occurrence graph partition). On the right,
the same circle is cut so that classes of one part *seldom* do (**DGP**, dis-occurrence graph partition). Dark lines stay inside a part,
light lines are cut.
"""

# %%
from udlib.methods.parallel import label_affinity

counted = labels(baseline(), "train")  # the training labels, in every profile
names, Y = list(counted.classes), counted.targets.double().numpy()
S = label_affinity(Y.T @ Y, Y.sum(0))  # section 2 takes this line apart
PARTS = PARTITIONS[3, "both"]
CUTS = {"CGP: often together": PARTS["co"], "DGP: seldom together": PARTS["dis"]}
show(graphs.partition_graph(S, names, CUTS),
     "Sixteen classes on a circle, joined by their affinity, with the three parts of CGP and, beside it, of DGP")

# %%
show(graphs.affinity_blocks(S, names, CUTS),
     "The affinity matrix sorted by the parts of CGP, with bright blocks on the diagonal, and by those of DGP, with dark ones")

# %% [markdown]
r"""
Same numbers, two orders. CGP gathers the bright cells into blocks on the diagonal, DGP sweeps them out of the blocks.

The whole method in one picture:

![The classes are cut into parts by co-occurrence and by dis-occurrence; each part has a specialist, and the student learns from the labels and from the logits of both groups of specialists.](images/specialists.svg)

### Predict

The method trains **a network for each of the six parts**, on all images. These are its *specialists*. Then one student of all
classes learns from all six. Guess before you go on:
"""

# %%
guess_specialists = ...  # mAP of the specialists, each on its own classes, minus that of one network of all classes; points
guess_student = ...  # mAP of the student minus that of the same network without any teacher, points
guess_ece = ...  # pooled ECE of a network trained by the asymmetric loss alone, per cent (lesson 02's BCE: about 2)

# %% [markdown]
r"""
## 2. From labels to parts

### The graph

Count first. $M = Y^\top Y$ holds the number of images with both classes, $N$ the number with each class. The paper divides one
by the other, takes the root, and makes it symmetric:

$$A_{ij} = \sqrt{M_{ij} / N_j}, \qquad S = \tfrac12 (A + A^\top), \qquad M_{ii} := 0 .$$

$M_{ij} / N_j$ is a rate: *of the images with class $j$, how many have class $i$ too?* It has a direction. A rare class may stand
beside a common one nearly always, and the common one still be seen without it.
"""

# %%
M, N = Y.T @ Y, Y.sum(0)
assert np.array_equal(M.diagonal(), N)  # a class is in every image that it is in: no information, so out with it
together = M - np.diag(N)
A = np.sqrt(together / N)  # NumPy divides column j by N_j
assert np.allclose((A + A.T) / 2, S) and np.allclose(S, S.T) and not S.diagonal().any()
assert S.min() >= 0 and S.max() <= 1  # a rate is at most 1, and so is its root
i, j = divmod(int(np.abs(A - A.T).argmax()), len(names))  # the pair with the largest difference of its two directions
say(f"{int(M[i, j])} images show a {names[i]} and a {names[j]}. That is {M[i, j] / N[j]:.0%} of the images with a {names[j]} and "
    f"{M[i, j] / N[i]:.0%} of those with a {names[i]}; S is the mean of the two roots, {S[i, j]:.2f}.")

# %% [markdown]
r"""
Why the root? It lifts small rates: a rate of 4 % becomes 0.2. So the graph is denser than the
rates, and one cut costs nearly as much as another. *Think!* Would you rather use the rate over what chance would give,
$M_{ij} n / (N_i N_j)$? What would that do to rare classes?

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

# %%
check("09.1", my_affinity)

# %% [markdown]
r"""
### The cut

Cut a graph in two and add up the weights of the edges that you cut. The smallest such sum often splits off a single vertex, so one
divides by what each side has in all. The **normalised cut** of a graph $W$ into $P$ and $Q$ is
$\mathrm{cut}(P,Q) / \mathrm{vol}(P) + \mathrm{cut}(P,Q) / \mathrm{vol}(Q)$, where vol adds up the degrees $d_i = \sum_j W_{ij}$ of a side.
For eight vertices we can try all 127 cuts. We plant the answer: three against five, with some noise.
"""

# %%
noise = np.triu(np.random.default_rng(0).uniform(-0.08, 0.08, (8, 8)), 1)
W = np.full((8, 8), 0.1)
W[:3, :3] = W[3:, 3:] = 0.5
W = W + noise + noise.T
np.fill_diagonal(W, 0)


def normalised_cut(side):
    """What it costs to part the vertices where `side` is true from the others."""
    cut = W[np.ix_(side, ~side)].sum()
    return cut / W[side].sum() + cut / W[~side].sum()

# %%
sides = [np.array([False, *(bool(n >> bit & 1) for bit in range(7))]) for n in range(1, 128)]
best = min(sides, key=normalised_cut)
assert best.tolist() == [False] * 3 + [True] * 5  # the cheapest of all cuts is the planted one
say(f"The cheapest cut costs {normalised_cut(best):.3f}, the median one {np.median([*map(normalised_cut, sides)]):.3f}.")

# %% [markdown]
r"""
Sixteen classes and three parts make millions of cuts, and COCO has 80 classes. **Spectral clustering** (von Luxburg, 2007) replaces the search by an
eigenproblem. Let a vertex have a real number in place of a side. Then the cheapest answer is the second eigenvector of the
normalised Laplacian $L = I - D^{-1/2} W D^{-1/2}$, divided by $\sqrt{d}$. Its sign is the side, and its eigenvalue is a lower
bound of the cost.
"""

# %%
def laplacian_eigenvectors(W):
    """Eigenvalues of the normalised Laplacian in rising order, and its eigenvectors over the root of the degree."""
    d = W.sum(1)
    values, vectors = np.linalg.eigh(np.eye(len(W)) - W / np.sqrt(np.outer(d, d)))
    return values, vectors / np.sqrt(d)[:, None]


values, vectors = laplacian_eigenvectors(W)
assert np.isclose(values[0], 0) and np.allclose(vectors[:, 0], vectors[0, 0])  # the first one says nothing: all alike
side = vectors[:, 1] > 0
assert np.array_equal(side, best) or np.array_equal(~side, best)  # 127 tries, or one eigenvector
assert values[1] <= normalised_cut(best)
print(np.round(vectors[:, 1], 2))

# %% [markdown]
r"""
For $k$ parts one takes the first $k$ eigenvectors, gives each vertex the point that they make, and runs k-means on the points. Here are
eigenvectors 2 and 3 of our graph. `cooccurrence_partition` does this with scikit-learn, eight times from different seeds, and
keeps the clustering with the best Calinski-Harabasz score.
"""

# %%
from udlib.methods.parallel import cooccurrence_partition, disoccurrence_partition

values, vectors = laplacian_eigenvectors(S)
vectors = vectors * np.where(vectors[names.index("tree")] < 0, -1, 1)  # the sign of an eigenvector is free: trees to the top right
assert cooccurrence_partition(counted.targets, k=3) == PARTS["co"]
assert disoccurrence_partition(counted.targets, k=3) == PARTS["dis"]
show(graphs.embedding(vectors[:, 1:3], names, PARTS["co"], "eigenvector 2", "eigenvector 3", "where k-means looks"),
     "The sixteen classes at the entries of eigenvectors 2 and 3: kitchen and room left, street and garden top, shore below right")
gap = 2 + int(np.diff(values[1:7]).argmax())
say(f"The eigenvalues begin with {', '.join(f'{value:.2f}' for value in values[:6])}. After the first, which is 0 for every connected "
    f"graph, the largest gap follows number {gap}: a common sign that {gap} parts are a natural choice.")

# %% [markdown]
r"""
Whoever knows how `scenes` is drawn will recognise its places: kitchen and room, shore, street and garden. The fish lies
between two of them (one swims, one is food). So here CGP's parts mean something. DGP runs the same code on $1 - S$:
classes that *never* meet are drawn together. What did each cut achieve?
"""

# %%
def mean_inside(parts):
    """Mean affinity of two classes of the same part."""
    of = graphs.part_of(parts)
    return S[(of[:, None] == of) & ~np.eye(len(S), dtype=bool)].mean()


cuts = CUTS | {"random, sizes of CGP": PARTITIONS[3, "random"]["co"], "random, sizes of DGP": PARTITIONS[3, "random"]["dis"]}
inside = pd.Series({name: mean_inside(parts) for name, parts in cuts.items()})
overall = S.sum() / (len(S) * (len(S) - 1))
assert inside.iloc[0] > overall > inside.iloc[1]
say("Mean affinity inside the parts: " + ", ".join(f"{value:.2f} ({name})" for name, value in inside.items())
    + f". Over all pairs it is {overall:.2f}.")

# %% [markdown]
r"""
### How stable is a cut?

A clustering has a seed, and labels are a sample. If another seed or another sample gives other parts, "the" partition is
an accident. The **adjusted Rand index** compares two partitions: 1 for the same, 0 on average for random ones. We measure four things
for each $k$: a single clustering under another seed; the best of eight (what the library keeps) under another seed; the best of
eight on other images (drawn with replacement); and the agreement with the places of the generator.
"""

# %%
from sklearn.cluster import SpectralClustering
from sklearn.metrics import adjusted_rand_score

from udlib.datasets.scenes import CONTEXTS

MAKE = {"CGP": (cooccurrence_partition, lambda S: S), "DGP": (disoccurrence_partition, lambda S: 1 - S - np.eye(len(S)))}
share = pd.DataFrame({place: pd.Series(at.objects) / sum(at.objects.values()) * at.chance for place, at in CONTEXTS.items()})
home = share.loc[names].fillna(0).to_numpy().argmax(1)  # the place where most objects of a class stand


def agreement(partitions):
    """Mean adjusted Rand index over all pairs of partitions, each an array of part numbers."""
    return np.mean([adjusted_rand_score(a, b) for n, a in enumerate(partitions) for b in partitions[:n]])

# %%
def stability(name, k, tries=5):
    """The four agreements of one strategy and k."""
    make, graph = MAKE[name]
    single = [SpectralClustering(k, affinity="precomputed", n_init=1, random_state=seed).fit_predict(graph(S))
              for seed in range(tries)]
    kept = [graphs.part_of(make(k=k, seed=seed, cooccurrence=M, counts=N)) for seed in range(tries)]
    drawn = [Y[np.random.default_rng(n).integers(len(Y), size=len(Y))] for n in range(tries)]
    other = [graphs.part_of(make(k=k, cooccurrence=y.T @ y, counts=y.sum(0))) for y in drawn]
    return {"one clustering, other seed": agreement(single), "best of 8, other seed": agreement(kept),
            "best of 8, other images": agreement(other), "the places": adjusted_rand_score(kept[0], home)}


stable = pd.DataFrame({(name, f"k = {k}"): stability(name, k) for name in MAKE for k in (2, 3, 4, 5)}).T
assert stable.max().max() <= 1 and adjusted_rand_score(home, home) == 1
stable.round(2)

# %%
three = stable.xs("k = 3", level=1)
say(f"At k = 3, keeping the best of eight gives an agreement across seeds of {three.iloc[0, 1]:.2f} (CGP) and {three.iloc[1, 1]:.2f} "
    f"(DGP). Across samples of images it is {three.iloc[0, 2]:.2f} and {three.iloc[1, 2]:.2f}: "
    + ("**DGP depends more on the sample than CGP.**" if three.iloc[1, 2] < three.iloc[0, 2] - 0.05 else
       "the two depend on the sample about alike.")
    + f" With the places, CGP agrees at {three.iloc[0, 3]:.2f} and DGP at {three.iloc[1, 3]:.2f}. (Few tries, so take the second "
    "decimal lightly.)")

# %% [markdown]
r"""
So fixing the seed and saving the partition, as the released code must, makes a result repeatable. It does not make the partition a
fact about the data. *Think!* Why should $1 - S$ be harder to cut than $S$? Look at how many of its entries are close to one another.

## 3. The specialists

Each part gets a full network whose head knows only that part. It sees **all** training images; one without any of its
classes is all negatives. It is trained by the **asymmetric loss** (ASL; Ridnik et al., 2021), since with few classes nearly all
labels are 0:

$$\mathrm{ASL} = -\sum_i \big[\, y_i \log p_i + (1 - y_i)\, (p_i^m)^{\gamma} \log (1 - p_i^m) \,\big], \qquad
p^m = \max(p - m, 0), \quad \gamma = 4, \; m = 0.05 .$$

Positives count as in BCE. A negative counts the less, the easier it is, and not at all below the margin $m$. The weight
$(p^m)^\gamma$ is a constant for the gradient, as in the released code.
"""

# %%
z = torch.tensor([[2.0, -1.0, -4.0], [0.5, 3.0, -0.3]], dtype=torch.float64)
y = torch.tensor([[1, 0, 0], [0, 1, 1]])
p = torch.sigmoid(z)
pm = (p - 0.05).clamp(min=0)
by_hand = -(y * p.log() + (1 - y) * pm**4 * (1 - pm).log()).sum(1).mean()
assert torch.isclose(by_hand, asymmetric_loss(z, y))
assert asymmetric_loss(torch.tensor([[-4.0]]), torch.tensor([[0]])) == 0  # p = 0.018: below the margin, and no loss at all
assert torch.isclose(asymmetric_loss(z, y, gamma_neg=0, margin=0), -(y * p.log() + (1 - y) * (1 - p).log()).sum(1).mean())

# %%
certain = np.linspace(0, 1, 101)
m = np.clip(certain - 0.05, 0, None)
pushes = {"BCE": certain, "weight p⁴, no margin": certain**5, "ASL": m**4 * certain * (1 - certain) / (1.05 - certain)}
show(plots.lines(certain, pushes, "probability p that the network gives to a label that is not there",
                 "gradient against its logit", "how hard a negative pushes", markers=False),
     "Gradient of BCE, of a focal weight and of ASL for a negative: ASL is flat up to one half and falls again near one")
assert pushes["ASL"][50] < 0.05 * pushes["BCE"][50]

# %% [markdown]
r"""
A negative at $p = 0.5$ hardly pushes at all. On the right, ASL lets go again: a "negative" that the network is sure to see is
taken for a wrong label. Nothing of the kind holds for positives.

### What does its minimum look like?

Suppose a label is 1 with chance $\pi$ in all images that look alike. Training pulls $p$ to the point where pushes from both kinds
balance: $\pi (1 - p) = (1 - \pi)\, (p - m)^\gamma\, p (1 - p) / (1 - p + m)$. Solved for $\pi$:

$$\pi(p) = \frac{r}{1 + r}, \qquad r(p) = \frac{(p - m)_+^{\gamma}\; p}{1 - p + m} .$$

For BCE the same steps give $\pi = p$: its minimum *is* the posterior. For ASL it is not.
"""

# %%
def posterior_of(p, gamma=4, margin=0.05):
    """The label's chance π at which ASL is content with the answer p."""
    r = np.clip(p - margin, 0, None) ** gamma * p / (1 - p + margin)
    return r / (1 + r)


p = torch.linspace(0.02, 0.98, 49, dtype=torch.float64)
pi = torch.from_numpy(posterior_of(p.numpy()))
z = torch.logit(p)[:, None].requires_grad_()
one, none = (torch.full((len(p), 1), value) for value in (1, 0))
expected = pi * asymmetric_loss(z, one, reduction="none") + (1 - pi) * asymmetric_loss(z, none, reduction="none")
gradient, = torch.autograd.grad(expected.sum(), z)
assert gradient.abs().max() < 1e-9  # the library's loss stands still there

# %%
grid = np.linspace(0.0005, 0.9995, 2000)
m = np.clip(grid - 0.05, 0, None)
risk = lambda pi: -(pi * np.log(grid) + (1 - pi) * m**4 * np.log(1 - m))
chances = np.linspace(0, 1, 201)
content = {"BCE": chances, "ASL": np.interp(chances, posterior_of(grid), grid),
           "ASL, weight not constant": [grid[risk(pi).argmin()] for pi in chances]}
at_half = float(np.interp(0.5, chances, content["ASL"]))
assert_measured(at_half, 0.80, within=0.01)
assert_measured(float(posterior_of(0.5)), 0.036, within=0.001)
show(graphs.monotone(chances, content, "chance π that the label is there", "answer p where the loss is content",
                     "what each loss asks for", {"π = 0.5": (0.5, at_half)}),
     "The answer p that minimises each loss over the label's chance: the diagonal for BCE, far above it for ASL")

# %%
say(f"A label that is there in {posterior_of(0.5):.1%} of the cases is answered with 50 %. One that is there every other time is "
    f"answered with {at_half:.0%}. And from {posterior_of(1.0):.0%} on, no answer is high enough. **ASL asks for wrong probabilities**, "
    "however many images there are.")

# %% [markdown]
r"""
Two things follow. The map rises, so the *ranking* of one class's images is that of the posterior, and AP is not hurt by it. And a
threshold on $p$ means something else than usual: the paper counts F1 at 0.8 and not at 0.5, and the figure shows why that is a good
place.

Since we know the map, we can undo it: $\pi(p)$ takes an answer back to a chance, with no data at all. Lesson 04 fitted its maps on
validation; this one comes from the loss.

### Exercise 09.2

Write that inverse for a focusing power and a margin of any size. It takes numbers or arrays `p` in [0, 1].
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

# %%
check("09.2", my_posterior)

# %% [markdown]
r"""
### Does a trained network obey?

The curve holds for a network that can answer anything and has seen enough. Ours is small, has 2,000 images, and learns some by
heart. So look: the baseline (BCE) and the same network trained by ASL, and the latter's answers taken back.
"""

# %%
from udlib.calibration import expected_calibration_error, negative_log_likelihood, reliability_curve

plain, control = runs(two_branch(0.0)), runs(parallel())  # BCE, the baseline; ASL without any teacher
marked = plain[0].labels().targets
undone = [torch.from_numpy(posterior_of(run.probabilities().numpy())) for run in control]
shown = {"BCE": plain[0].probabilities(), "ASL": control[0].probabilities(), "ASL, undone": undone[0]}
show(plots.reliability({name: reliability_curve(p, marked, average="pooled") for name, p in shown.items()},
                       "test images, seed 0", smallest=20),
     "Reliability diagrams of BCE, of ASL, whose curve hangs far below the diagonal, and of ASL taken back by its own inverse")

# %%
def pooled_error(answers):
    return expected_calibration_error(answers, marked, average="pooled")


errors = {"BCE": [pooled_error(run.probabilities()) for run in plain],
          "ASL": [pooled_error(run.probabilities()) for run in control], "ASL, undone": [*map(pooled_error, undone)]}
miscalibrated, repaired = difference(errors["ASL"], errors["BCE"]), difference(errors["ASL, undone"], errors["BCE"])
say("Pooled ECE, per cent: " + ", ".join(f"{name} {spread(found)}" for name, found in errors.items()) + ".")
say(f"ASL minus BCE: {in_units(miscalibrated)}, **{miscalibrated.verdict}**. Undone, minus BCE: {in_units(repaired)}, "
    f"**{repaired.verdict}**. What is left after the inverse is what this network has wrong in any case.")
assert_measured(100 * np.mean(errors["BCE"]), 2.0, within=0.3)  # what the guess was told
check_guess("pooled ECE of ASL", guess_ece, 100 * np.mean(errors["ASL"]), " %")

# %% [markdown]
r"""
### Do specialists know their classes better?

The hope is that a network with fewer classes to care for learns each of them better. Here it can be tested: each of the six specialists
against **one** network of all classes by the same loss (the column "ASL" above), on the specialist's own classes. A specialist starts
from random weights of its own, so its pairing with a control is one of name only; the interval holds all the same.
"""

# %%
from udlib.metrics import average_precision

students = runs(partitioned()[3, "both"])
SPECIALISTS = students[0].recipe.settings.teachers()  # the classes of each, by name
teachers = [{name: load_or_run(teacher) for name, teacher in needed(run.recipe).items()} for run in students]
assert all({name: run.recipe.classes for name, run in found.items()} == SPECIALISTS for found in teachers)

# %%
def class_ap(run):
    """AP of each of a run's classes on the test images, difficult labels left out: (C,)."""
    found = run.labels()
    return average_precision(run.probabilities(), found.targets, found.difficult).numpy()


ap = {"ASL": np.array([class_ap(run) for run in control]), "PSD": np.array([class_ap(run) for run in students])}
assert np.allclose(np.nanmean(ap["ASL"], 1), [run.metrics["test"]["mAP"] for run in control])

# %%
KINDS = {"co": "CGP", "dis": "DGP"}
for group, kind in KINDS.items():  # each class from the one specialist that knows it
    ap[kind] = np.full_like(ap["ASL"], np.nan)
    for k, found in enumerate(teachers):
        for name, part in SPECIALISTS.items():
            if name.startswith(group):
                ap[kind][k, list(part)] = class_ap(found[name])


def own(name):
    """Mean AP of one specialist on its classes, and of the control on the same ones, a row for each seed."""
    kind, part = KINDS[name.split()[0]], list(SPECIALISTS[name])
    return np.nanmean([ap[kind][:, part], ap["ASL"][:, part]], 2).T

# %%
scored = {name: own(name) for name in SPECIALISTS}
CALLED = {name: f"{name}: " + " ".join(names[c] for c in part) for name, part in SPECIALISTS.items()}
gains = {CALLED[name]: 100 * (values[:, 0] - values[:, 1]) for name, values in scored.items()}
if np.isfinite(list(gains.values())).all():
    show(plots.seed_intervals(gains, "mean AP minus that of the generalist, points", zero=True),
         "Each of six specialists minus the network of all classes on the specialist's own classes, five seeds")

# %%
every = {group: np.nanmean(ap[kind], 1) for group, kind in KINDS.items()}
ahead = {group: difference(values, [run.metrics["test"]["mAP"] for run in control]) for group, values in every.items()}
for name, values in scored.items():
    found = difference(values[:, 0], values[:, 1])
    say(f"- {CALLED[name]}: {in_units(found)}, **{found.verdict}**")
for group, kind in KINDS.items():
    say(f"All classes from the three specialists of {kind} together, minus the one network: mAP {in_units(ahead[group])}, "
        f"**{ahead[group].verdict}**.")
between = difference(every["co"], every["dis"])
say(f"CGP's specialists minus DGP's: {in_units(between)}, **{between.verdict}**.")
check_guess("specialists", guess_specialists, 100 * (ahead["co"].mean + ahead["dis"].mean) / 2, " points")

# %% [markdown]
r"""
Do not miss the price in this comparison: three networks stand against one. And a mean over a part can hide its classes, so look
at each:
"""

# %%
order = np.argsort(-N)
in_parts = [graphs.part_of(PARTS[group]) + 1 for group in KINDS]


def by_class(a, b):
    """Difference in AP of each class, commonest first: the classes that could be measured, and (mean, low, high) in points."""
    kept = [c for c in order if np.isfinite(ap[a][:, c] - ap[b][:, c]).all()]
    found = [difference(ap[a][:, c], ap[b][:, c]) for c in kept]
    return kept, found, tuple(100 * np.array([getattr(d, part) for d in found]) for part in ("mean", "low", "high"))

# %%
alone = {kind: by_class(kind, "ASL") for kind in KINDS.values()}
kept = alone["CGP"][0]
figure = plots.estimates([f"{names[c]} ({in_parts[0][c]}, {in_parts[1][c]})" for c in kept],
                         {f"{kind}'s specialist": ends for kind, (_, _, ends) in alone.items()}, "difference in AP, points",
                         "specialist minus generalist, the commonest class above")
figure.axes[0].axvline(0, color="black", linewidth=0.8)
show(figure, "Difference in AP between the specialists and the network of all classes, for each class, with 95 per cent intervals")

# %% [markdown]
r"""
(In brackets: the numbers of the class's parts, CGP's before DGP's.) Does every class gain from company that is small? Take the class that
loses most, and ask who could have helped it. Shared *features* would be one way: a network that knows several things of one colour
has more reason, and more examples, to learn that colour. We know the hues that `scenes` draws with.
"""

# %%
from udlib.datasets.drawing import KINDS as DRAWN

hue = np.array([DRAWN[name].hue for name in names])
far = np.abs(hue[:, None] - hue)
kin = (np.minimum(far, 1 - far) < 0.06) & ~np.eye(len(names), dtype=bool)  # hues lie on a circle
near_by = {kind: (kin & (part[:, None] == part)).sum(1) for kind, part in zip(KINDS.values(), in_parts)}  # kin of the same part
lost = {kind: (ap[kind] - ap["ASL"]).mean(0) for kind in KINDS.values()}
worst = int(np.argmin(np.nan_to_num(lost["CGP"] + lost["DGP"])))
say(f"The class with the lowest change, over both kinds of parts: **{names[worst]}**, {100 * lost['CGP'][worst]:+.1f} points in CGP and "
    f"{100 * lost['DGP'][worst]:+.1f} in DGP. Classes of its colour: {', '.join(np.array(names)[kin[worst]]) or 'none'}. In its part of CGP "
    f"stand {near_by['CGP'][worst]} of them, in its part of DGP {near_by['DGP'][worst]}.")

# %%
from scipy.stats import spearmanr


def correlation(of_seeds):
    """The mean of correlations with its 95 % t interval over seeds, both on Fisher's scale, which keeps them within 1."""
    found = difference(np.arctanh(of_seeds), np.zeros(len(of_seeds)))
    return found._replace(**{end: np.tanh(getattr(found, end)) for end in ("mean", "low", "high")})

# %%
company = np.concatenate([near_by[kind] / kin.sum(1).clip(1) for kind in KINDS.values()])
gained = np.concatenate([ap[kind] - ap["ASL"] for kind in KINDS.values()], axis=1)
told_apart = np.tile(kin.any(1), 2) & np.isfinite(gained).all(0)  # classes without kin cannot lose any
ranks = [spearmanr(company[told_apart], row[told_apart]).statistic for row in gained]
trend = correlation(ranks)
say(f"Over all classes and both kinds of parts, the rank correlation of a class's gain with the share of its kin in its part is, by seed, "
    f"{in_units(trend, 1, 2, '')}: " + {"higher": "**company of one colour helps.**", "lower": "company of one colour *hurts*."}.get(
    trend.verdict, "**not detected.** One class's story is no law.")
    + " This idea came from looking at these very numbers, so it would need other data to be tested.")

# %% [markdown]
r"""
*Think!* A network of all classes is told about oranges while it learns fish. Give one reason why that should help with fish, and one why
it should hurt.

## 4. One student

### What the teachers say together

The specialists of CGP answer for different classes. Put side by side in the *global* order, they make one answer to all classes,
$z^{co}$, and so do those of DGP, $z^{dis}$. A part lists the global numbers of its classes; that is all the bookkeeping there is.

### Exercise 09.3

`logits` is a list of tensors, one for each part, of shape (N, classes of the part); `parts` the list of class numbers, in the same order.
Return (N, C): column $c$ holds what was said of class $c$.
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

# %%
check("09.3", my_scatter)

# %%
def scattered_test(found, group):
    """The test logits of one group of specialists, in global order."""
    chosen = {name: part for name, part in SPECIALISTS.items() if name.startswith(group)}
    z = torch.full((len(marked), len(names)), torch.nan)
    for name, part in chosen.items():
        z[:, list(part)] = found[name].test_logits
    return z


said = {group: [scattered_test(found, group) for found in teachers] for group in KINDS}
assert all(z.isfinite().all() for found in said.values() for z in found)
boat, number = names.index("boat"), next(n for n, part in enumerate(PARTS["co"], 1) if names.index("boat") in part)
assert torch.equal(said["co"][0][:, boat], teachers[0][f"co {number}"].test_logits[:, PARTS["co"][number - 1].index(boat)])

# %% [markdown]
r"""
Is the pair *complementary*, as the paper has it? CGP's answer to "is there a boat?" comes from a network that also knows fish and
umbrella; DGP's from one that knows lamp and orange. They will differ. But so do two networks that differ in nothing but the
seed. That is the yardstick: the root mean square of $z - z'$, over classes and test images.
"""

# %%
def apart(a, b):
    return (a - b).square().mean().sqrt().item()


others = range(len(teachers))
distances = {"CGP and DGP": [apart(said["co"][k], said["dis"][k]) for k in others],
             "CGP, two seeds": [apart(said["co"][k], said["co"][k - 1]) for k in others],
             "DGP, two seeds": [apart(said["dis"][k], said["dis"][k - 1]) for k in others],
             "ASL alone, two seeds": [apart(control[k].test_logits, control[k - 1].test_logits) for k in others]}
show(plots.seed_intervals(distances, "root mean square distance of two logits"),
     "Distance of the logits of CGP's and DGP's specialists, and of two seeds of each and of the control")
more = difference(distances["CGP and DGP"], np.mean([distances["CGP, two seeds"], distances["DGP, two seeds"]], axis=0))
say(f"CGP against DGP, minus the mean of two seeds of each: {in_units(more, 1, 3, '')}, **{more.verdict}**. "
    + ("What the kind of part adds to the difference between two trainings is that much, and no more." if more.verdict == "higher"
       else "Two kinds of parts do not differ by more than two seeds do, as far as this can tell."))

# %% [markdown]
r"""
### The loss

The student has all classes. It learns from the labels, by ASL, and from both groups by squared distance of logits ($\alpha = 0.5$,
sums over classes, means over images; teachers in eval mode, no gradient to them):

$$L = \tfrac12\, \mathrm{ASL}(z, y) + \tfrac12\, \alpha\, \| z - z^{co} \|^2 + \tfrac12\, (1 - \alpha)\, \| z - z^{dis} \|^2 .$$

From lesson 05 we know a squared distance of logits: it is the limit of distillation at high temperature. It hands on *how sure* the
teachers are. And how sure is that? They were trained by ASL too.
"""

# %%
from udlib.methods.parallel import parallel_loss

draw = torch.Generator().manual_seed(0)
z, z_co, z_dis = (torch.randn(4, 5, generator=draw, dtype=torch.float64) for _ in range(3))
y = (torch.rand(4, 5, generator=draw) < 0.3).long()
alpha = 0.3
by_hand = (asymmetric_loss(z, y) / 2 + alpha / 2 * (z - z_co).square().sum(1).mean()
           + (1 - alpha) / 2 * (z - z_dis).square().sum(1).mean())
assert torch.isclose(by_hand, parallel_loss(z, y, z_co, z_dis, alpha)["total"].to(by_hand.dtype), rtol=1e-5)
print({name: round(value.item(), 3) for name, value in parallel_loss(z, y, z_co, z_dis, alpha).items()})

# %% [markdown]
r"""
A line of algebra says more. With the mean $\bar z = \alpha z^{co} + (1 - \alpha) z^{dis}$ of the teachers,

$$\alpha \| z - z^{co} \|^2 + (1 - \alpha) \| z - z^{dis} \|^2 = \| z - \bar z \|^2 + \alpha (1 - \alpha) \| z^{co} - z^{dis} \|^2 ,$$

and the last term does not hold $z$. So **the student learns from the mean of the teachers and from nothing else**. What the two
groups disagree on adds a constant to the loss.
"""

# %%
mean = alpha * z_co + (1 - alpha) * z_dis
rest = alpha * (1 - alpha) / 2 * (z_co - z_dis).square().sum(1).mean()
free = z.clone().requires_grad_()
two = parallel_loss(free, y, z_co, z_dis, alpha)["total"]
from_two, = torch.autograd.grad(two, free)
one_teacher = parallel_loss(free, y, mean, mean, alpha)["total"]
from_mean, = torch.autograd.grad(one_teacher, free)
assert torch.allclose(from_two, from_mean, atol=1e-6) and torch.isclose(two - one_teacher, rest.to(two.dtype), rtol=1e-4)
print(f"two teachers {two.item():.4f}, their mean {one_teacher.item():.4f}, the rest {rest.item():.4f}; the gradient is the same")

# %% [markdown]
r"""
*Think!* Two kinds of patterns are to be combined, says the paper. In which sense does a mean of two logits combine them? And what
would you measure to tell it from the mean of any six networks?

How much of the loss is left to the labels? The history of the shipped students tells:
"""

# %%
last = pd.DataFrame([run.history[-1] for run in students])
labelled, taught = last["asymmetric"] / 2, (last["co"] + last["dis"]) / 4
assert np.allclose(labelled + taught, last["total"], rtol=1e-3)
say(f"In the last epoch, the labels' term makes {spread(labelled / last['total'])} % of the loss, the teachers' terms the rest. "
    "(Part of the latter is the constant above, which no student can remove.)")

# %% [markdown]
r"""
### Exercise 09.4

Write the loss for tensors of shape (N, C). `asymmetric_loss(z, y)` is the first term, already a sum over classes and a mean over
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

# %%
check("09.4", my_loss)

# %% [markdown]
r"""
### The whole method, live

Five small networks on 200 images, two epochs each: two specialists of CGP, two of DGP, one student. The result will be poor;
only the steps matter. First the parts, then the specialists, each on its columns of the labels:
"""

# %%
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

# %%
def on_labels(model, batch):
    """ASL alone: how a specialist is trained, and the control."""
    return parallel_loss(model(batch.images, calibration=False).logits, batch.targets)


asks = {}
for group, parts in halves.items():
    nets = []
    for number, part in enumerate(parts, 1):
        seed = mixed_seed(tiny.seed, GROUPS.index(group), number)  # a start of its own for each
        set_seed(seed)
        nets.append(make_network(len(part), 0.0, "small_narrow"))
        fit(nets[-1], replace(some, targets=some.targets[:, part]), on_labels, replace(tiny, seed=seed))
    asks[group] = scattered(nets, parts)  # asks all networks of the group, and scatters what they say

# %% [markdown]
r"""
Then the student. That is all: `workshop.train` does the same, and arrives at the same numbers.
"""

# %%
def on_both(model, batch):
    """The student's loss: the labels, and what both groups say of this batch."""
    z = model(batch.images, calibration=False).logits
    return parallel_loss(z, batch.targets, asks["co"](batch).logits, asks["dis"](batch).logits)


set_seed(tiny.seed)
student = make_network(some.targets.shape[1], 0.0, "small_narrow")
by_hand = fit(student, some, on_both, tiny)
_, library = train_method(recipe("parallel", network="small_narrow", embedding=512, **asdict(tiny), **halves), some)
assert np.allclose(by_hand.column("total"), library.column("total"), rtol=1e-3)
pd.DataFrame(library.rows)[["epoch", "total", "asymmetric", "co", "dis"]].round(3)

# %% [markdown]
r"""
## 5. What do the teachers add?

### What the paper claims

Published mAP on MS-COCO and NUS-WIDE, in per cent, without and with the method (Xu et al., 2022). They are claims to test, and none
of ours:
"""

# %%
CLAIMED = pd.DataFrame(
    {"without": [81.6, 84.0, 86.2, 64.1, 64.7], "with": [83.1, 84.9, 87.3, 65.8, 66.5]},
    index=["COCO, ResNet-101, 448 px", "COCO, Query2Label (ResNet-101), 448 px", "COCO, TResNet-L, 448 px",
           "NUS-WIDE, ResNet-101 + TF", "NUS-WIDE, TResNet-L"])
CLAIMED["gain"] = (CLAIMED["with"] - CLAIMED["without"]).round(1)
assert CLAIMED["gain"].min() > 0
CLAIMED

# %% [markdown]
r"""
What a careful reader asks of such a table:

1. **What else differs between the columns?** The method comes with a loss (ASL), with an average of the weights over the
   last steps (EMA), and with the cost of $2k + 1$ networks. If the first column lacks any of these, the gain is not the teachers'.
2. **How large is chance?** There is no error bar. Gains of one or two points need one.
3. **What became of the probabilities?** Only mAP and F1 are printed, F1 at a threshold of 0.8. Section 3 has told us why 0.8.

So our experiment climbs in steps, each named by what it changes:

| step | what it changes |
|---|---|
| BCE, averaged − BCE | a shorter warm-up, and the running average of the weights |
| ASL − BCE, averaged | **the loss** |
| PSD − ASL | **the teachers**, everything else alike |

### Exercise 09.5

Before you look: the simplest test there is. `arms` maps "BCE", "BCE, averaged", "ASL" and "PSD" to a list of scores, entry $k$ of each
from seed $k$. Return two numbers: in how many seeds **the teachers** win, and how probable so many wins *or more* are if each
seed is a fair coin. `comb(n, k)` counts the ways to choose k of n. What is the smallest chance that five seeds can give?
"""

# %% tags=["setup"]
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

# %%
check("09.5", my_wins)

# %% [markdown]
r"""
### What `scenes` shows

mAP and F1 leave difficult labels out, the *Difficult* column is mAP on images with at least one, and calibration counts every label as
marked. Nothing was chosen on the test images: each run ends with its last epoch.
"""

# %%
from udlib.metrics import precision_recall_f1

arms = {"BCE": plain, "BCE, averaged": runs(averaged()), "ASL": control, "PSD": students}
METRICS = {"mAP": ("mAP, %", 100, 2), "mAP_difficult": ("mAP, Difficult, %", 100, 2), "CF1": ("CF1 at 0.5, %", 100, 2),
           "OF1": ("OF1 at 0.5, %", 100, 2), "CF1 at 0.8": ("CF1 at 0.8, %", 100, 2), "OF1 at 0.8": ("OF1 at 0.8, %", 100, 2),
           "ECE": ("ECE class-wise, %", 100, 2), "ECE_pooled": ("ECE pooled, %", 100, 2),
           "true_CE": ("true error class-wise, %", 100, 2), "true_CE_pooled": ("true error pooled, %", 100, 2),
           "NLL": ("NLL, nats", 1, 4)}

# %%
def numbers_of(run):
    """A run's metrics on the test images, with F1 at the paper's threshold beside that at one half."""
    found = run.labels()
    strict = precision_recall_f1(run.probabilities(), found.targets, threshold=0.8, ignore=found.difficult)
    return run.metrics["test"] | {f"{name} at 0.8": strict[name] for name in ("CF1", "OF1")}


measured = {name: [numbers_of(run) for run in found] for name, found in arms.items()}


def score(name, key):
    """One metric of one arm, a value for each seed; NaN where it could not be measured."""
    return np.array([numbers.get(key, np.nan) for numbers in measured[name]])

# %%
pd.DataFrame({title: {name: spread(score(name, key), scale, digits) for name in arms}
              for key, (title, scale, digits) in METRICS.items()}).T

# %%
STEPS = {"averaging (BCE, averaged − BCE)": ("BCE, averaged", "BCE"), "the loss (ASL − BCE, averaged)": ("ASL", "BCE, averaged"),
         "the teachers (PSD − ASL)": ("PSD", "ASL"), "all of it (PSD − BCE)": ("PSD", "BCE")}
effects = {name: {key: difference(score(a, key), score(b, key)) for key in METRICS} for name, (a, b) in STEPS.items()}
for key in ("mAP", "NLL"):  # three steps make the whole
    parts = [effects[name][key].mean for name in STEPS]
    assert np.isclose(sum(parts[:3]), parts[3], equal_nan=True)


def told(found, key):
    title, scale, digits = METRICS[key]
    return f"{in_units(found, scale, digits, '')} {found.verdict}"


pd.DataFrame({title: {name: told(effects[name][key], key) for name in STEPS} for key, (title, _, _) in METRICS.items()}).T

# %%
def gaps(key, scale=100):
    """The seeds' differences of each step, for a figure; steps that could not be measured are left out."""
    found = {name: scale * (score(a, key) - score(b, key)) for name, (a, b) in STEPS.items()}
    return {name: values for name, values in found.items() if np.isfinite(values).all()}


for key, words in (("mAP", "mAP"), ("ECE_pooled", "pooled ECE"), ("true_CE_pooled", "pooled true error")):
    if found := gaps(key):
        show(plots.seed_intervals(found, f"difference in {words}, points", zero=True),
             f"Paired differences in {words} of averaging, of the loss, of the teachers and of all, with 95 per cent intervals")

# %%
averaging, loss, teaching, all_of_it = effects.values()
say(f"**mAP.** Averaging: {in_units(averaging['mAP'])}, **{averaging['mAP'].verdict}**. The loss: {in_units(loss['mAP'])}, "
    f"**{loss['mAP'].verdict}**. The teachers: {in_units(teaching['mAP'])}, **{teaching['mAP'].verdict}**. Together: "
    f"{in_units(all_of_it['mAP'])}, **{all_of_it['mAP'].verdict}**. (The paper's table: "
    f"{CLAIMED['gain'].min():+.1f} to {CLAIMED['gain'].max():+.1f} points.)")
wrong = all_of_it["mAP"].mean - teaching["mAP"].mean
say(f"Whoever reads PSD − BCE as the teachers' gain is wrong by {100 * wrong:+.2f} points here.")
say("(The first step changes two things at once, a shorter warm-up and the average, and nothing here parts them.)")
say(f"**Calibration.** Pooled ECE by the loss: {in_units(loss['ECE_pooled'])}, **{loss['ECE_pooled'].verdict}**; by the teachers: "
    f"{in_units(teaching['ECE_pooled'])}, **{teaching['ECE_pooled'].verdict}**. NLL: **{loss['NLL'].verdict}** and "
    f"**{teaching['NLL'].verdict}**.")
say(f"**F1.** At 0.5 the loss changes OF1 by {in_units(loss['OF1'])}, at 0.8 by {in_units(loss['OF1 at 0.8'])}: "
    "section 3 says why one threshold cannot suit both losses.")
check_guess("mAP, the teachers", guess_student, 100 * teaching["mAP"].mean, " points")

# %% [markdown]
r"""
### Repaired

A probability that is wrong in a known way can be set right. Three ways: the inverse of section 3, which needs no data; one
temperature, fitted on validation; Platt scaling of each class, fitted on validation too. BCE gets the fitted ones as well, or the
comparison would not be fair.
"""

# %%
def taken_back(run):
    return torch.from_numpy(posterior_of(run.probabilities().numpy()))


REPAIRS = {"as trained": lambda run: run.probabilities(), "ASL's inverse": taken_back,
           "temperature": lambda run: run.recalibrated("temperature"), "Platt": lambda run: run.recalibrated("platt")}
mended = {(name, repair): [mend(run) for run in found] for name, found in arms.items() for repair, mend in REPAIRS.items()
          if repair != "ASL's inverse" or name in ("ASL", "PSD")}
pooled = {key: [pooled_error(q) for q in found] for key, found in mended.items()}
nats = {key: [negative_log_likelihood(q, marked) for q in found] for key, found in mended.items()}
table = {"ECE pooled, %": {key: spread(values) for key, values in pooled.items()},
         "NLL, nats": {key: spread(values, 1, 4) for key, values in nats.items()}}
pd.DataFrame(table).unstack().swaplevel(axis=1).sort_index(axis=1).reindex(list(arms)).fillna("")

# %%
bars = {repair: [100 * np.array(pooled.get((name, repair), [np.nan] * len(plain))) for name in arms] for repair in REPAIRS}
show(plots.interval_bars(list(arms), bars, "pooled ECE on test images, per cent", "as trained, and repaired"),
     "Pooled ECE of the four arms as trained, taken back by ASL's inverse, with a temperature and with Platt scaling")
for repair in ("temperature", "Platt"):
    levels = {name: difference(pooled["PSD", repair], pooled[name, repair]) for name in ("BCE", "ASL")}
    likely = {name: difference(nats["PSD", repair], nats[name, repair]) for name in ("BCE", "ASL")}
    say(f"- With {repair}: PSD's pooled ECE minus that of " + ", of ".join(f"{name} {in_units(found)}, **{found.verdict}**"
        for name, found in levels.items()) + "; NLL minus that of " + ", of ".join(
        f"{name} {in_units(found, 1, 4, ' nats')}, **{found.verdict}**" for name, found in likely.items()) + ".")

# %% [markdown]
r"""
A temperature has one fixed point, $p = 0.5$, and ASL needs that very point moved. Platt scaling can shift, so it can come
closer. *Think!* On which side of ASL's curve does a single temperature have to fail?

### Why not keep the teachers?

The mean of the teachers, $\bar z$, is what the student aims at. As a classifier it costs six networks at test time, the student one. How
much of it arrives? Beside it the mean of **two** networks by ASL of different seeds, the cheapest of all ensembles.
"""

# %%
from udlib.training.evaluation import measure

found = plain[0].labels()
answers = {"ASL, one network": [run.test_logits for run in control],
           "ASL, mean of two seeds": [(control[k].test_logits + control[k - 1].test_logits) / 2 for k in others],
           "CGP's three": said["co"], "DGP's three": said["dis"],
           "all six, mean": [(a + b) / 2 for a, b in zip(said["co"], said["dis"])],
           "PSD, the student": [run.test_logits for run in students]}
judged = {name: [measure(z, found) for z in logits] for name, logits in answers.items()}
ensembles = pd.DataFrame({METRICS[key][0]: {name: spread([one.get(key, np.nan) for one in of], *METRICS[key][1:]) for name, of in judged.items()}
                          for key in ("mAP", "mAP_difficult", "ECE_pooled", "true_CE_pooled", "NLL")})
ensembles

# %%
def of(name, key="mAP"):
    return np.array([one[key] for one in judged[name]])


behind = difference(of("PSD, the student"), of("all six, mean"))
ensemble = difference(of("all six, mean"), of("ASL, one network"))

# %%
pair, trio = of("ASL, mean of two seeds").mean(), np.mean([of(f"{kind}'s three").mean() for kind in KINDS.values()])
close = [apart(run.test_logits, z) for run, z in zip(students, answers["all six, mean"])]
say(f"The six together, minus one network by ASL: mAP {in_units(ensemble)}, **{ensemble.verdict}**. The student minus the six: "
    f"{in_units(behind)}, **{behind.verdict}**.")
if ensemble.verdict == "higher":
    say(f"Of the ensemble's gain the student keeps {teaching['mAP'].mean / ensemble.mean:.0%} (a ratio of two means, without an interval)."
        if teaching["mAP"].verdict == "higher" else "Of the ensemble's gain, nothing is detected in the student.")
say(f"Two networks of **all** classes, averaged, reach {100 * pair:.2f} mAP; three specialists {100 * trio:.2f}, on average over both kinds; "
    f"all six {100 * of('all six, mean').mean():.2f}. (Means alone: the pairs share networks, so an interval would be too narrow.)")
say(f"On test images the student's logits are {np.mean(close):.2f} (root mean square) from the teachers' mean; two seeds by ASL are "
    f"{np.mean(distances['ASL alone, two seeds']):.2f} apart.")

# %% [markdown]
r"""
On test images the student lies almost as far from its teachers as two seeds lie from each other. There are two possible reasons: it did
not learn what it was shown, or what it learned on training images does not carry over. The training history has the first, the stored logits the second. (The history is
the mean over the last epoch, with batch normalisation in train mode and before the weights are averaged, so compare roughly.)
"""

# %%
shown_in = {group: np.sqrt(last[group].to_numpy() / len(names)) for group in KINDS}  # a sum over classes: per class, then the root
new = {group: np.array([apart(run.test_logits, z) for run, z in zip(students, said[group])]) for group in KINDS}
carried = {group: difference(new[group], shown_in[group]) for group in KINDS}
for group, kind in KINDS.items():
    say(f"- Root mean square distance of a logit from that of {kind}: {spread(shown_in[group], 1)} in training, {spread(new[group], 1)} on test "
        f"images; the difference is {in_units(carried[group], 1, 2, '')}, **{carried[group].verdict}** on test.")
say(f"The two groups themselves are {np.mean(distances['CGP and DGP']):.2f} apart on test images, so a student in their middle would be "
    f"{np.mean(distances['CGP and DGP']) / 2:.2f} from each.")

# %% [markdown]
r"""
### What it costs

At test time the student is as large as the baseline. Training takes $2k + 1$ networks of that size. The seconds were taken on a busy
machine, so take them as rough.
"""

# %%
def seconds(found):
    return np.array([run.provenance["seconds"] for run in found])


of_teachers = np.array([sum(run.provenance["seconds"] for run in found.values()) for found in teachers])
say(f"Training PSD with its teachers took {np.median((seconds(students) + of_teachers) / seconds(control)):.1f} times as long as ASL alone "
    f"(median over seeds). By the number of networks it is {len(SPECIALISTS) + 1} times.")

# %% [markdown]
r"""
## 6. Is it the partition?

The paper's point is not *that* there are teachers but *which*: complementary parts, cut by co-occurrence and against it. So
four controls, three seeds each:

- **CGP alone**, **DGP alone**: half of the teachers.
- **Random parts**: as many teachers of the same sizes, classes shuffled (one draw). They differ from PSD in nothing but the cut.
- **$k = 1$**: one teacher, of all classes. Plain self-distillation from fresh weights, as "born again" in lesson 08, with this loss.
"""

# %%
GRID = partitioned()
NAMED = {"PSD: CGP and DGP": (3, "both"), "CGP alone": (3, "CGP"), "DGP alone": (3, "DGP"), "random parts": (3, "random"),
         "k = 1": (1, "whole")}
by_setting = {key: runs(recipes[:3]) for key, recipes in GRID.items()
              if (profile() == "smoke" and key in NAMED.values()) or trained(recipes[:3])}
few = {name: by_setting[key] for name, key in NAMED.items() if key in by_setting}
if missing := [name for name in NAMED if name not in few]:
    say(f"Not trained yet, and left out below: {', '.join(missing)}. `udlib runs --only 'parallel/*'` trains what is missing.")

# %%
base = control[: len(few["PSD: CGP and DGP"])]
for key, words in (("mAP", "mAP"), ("ECE_pooled", "pooled ECE")):
    drawn = {name: 100 * (stored(found, key) - stored(base, key)) for name, found in few.items()}
    if np.isfinite(list(drawn.values())).all():
        show(plots.seed_intervals(drawn, f"{words} minus that of ASL alone, points", zero=True),
             f"Paired differences in {words} from ASL alone of PSD and its four controls, three seeds")

# %%
against = {name: {key: difference(stored(few["PSD: CGP and DGP"], key), stored(found, key)) for key in ("mAP", "ECE_pooled", "NLL")}
           for name, found in few.items() if name != "PSD: CGP and DGP"}
for name, found in against.items():
    say(f"- *PSD* minus *{name}*: mAP {in_units(found['mAP'])}, **{found['mAP'].verdict}**; pooled ECE "
        f"{in_units(found['ECE_pooled'])}, **{found['ECE_pooled'].verdict}**; NLL {in_units(found['NLL'], 1, 4, ' nats')}, "
        f"**{found['NLL'].verdict}**.")
if "random parts" in against:
    verdict = against["random parts"]["mAP"].verdict
    say("**Does the partition matter?** " + {
        "higher": "Against parts at random the cut by co-occurrence has the higher mAP here: the partition counts.",
        "lower": "Parts at random have the *higher* mAP here: whatever helps, it is not the partition."}.get(
        verdict, "Against parts at random no difference in mAP is detected with three seeds: what helps, if anything does, would be "
                 "several teachers and not their parts. A small effect of the cut may hide in the interval."))

# %% [markdown]
r"""
Mind how wide these intervals are: with three seeds, the factor of a t interval is 4.3 where five seeds have 2.8. An effect of a few
tenths cannot be excluded by them.

## 7. Which classes gain?

The student minus ASL alone, for each class, five seeds. Classes stand by their frequency, the commonest above; the digits are the numbers of
their parts, CGP's before DGP's.
"""

# %%
gain = 100 * (ap["PSD"] - ap["ASL"])
kept, found, ends = by_class("PSD", "ASL")
figure = plots.estimates([f"{names[c]} ({in_parts[0][c]}, {in_parts[1][c]})" for c in kept], {"PSD − ASL": ends},
                         "difference in AP, points", "gain of each class, the commonest above")
figure.axes[0].axvline(0, color="black", linewidth=0.8)
show(figure, "Difference in AP between PSD and ASL for each class with 95 per cent intervals, sorted by frequency")

# %%
verdicts = pd.Series([d.verdict for d in found]).value_counts()
say("Classes with a " + ", with a ".join(f"{word} AP: {verdicts.get(word, 0)}" for word in ("higher", "lower"))
    + f"; no difference detected: {verdicts.get('not detected', 0)}. With {len(kept)} intervals, about "
    f"{len(kept) / 20:.1f} would miss 0 by chance.")
ranks = [spearmanr(N[kept], row[kept]).statistic for row in gain]
trend = correlation(ranks)
say(f"Rank correlation of a class's gain with its frequency, by seed: {in_units(trend, 1, 2, '')}: "
    + {"higher": "common classes gain **more**.", "lower": "rare classes gain **more**."}.get(trend.verdict, "a trend is **not detected**."))

# %%
sizes = {group: np.array([len(PARTS[group][n - 1]) for n in number]) for group, number in zip(KINDS, in_parts)}
for group, kind in KINDS.items():
    ranks = [spearmanr(sizes[group][kept], row[kept]).statistic for row in gain]
    trend = correlation(ranks)
    say(f"- With the size of the part in {kind}: {in_units(trend, 1, 2, '')}, **{trend.verdict}**.")
ranks = [spearmanr(row[kept], (a + b)[kept]).statistic for row, a, b in zip(gain, *(ap[kind] - ap["ASL"] for kind in KINDS.values()))]
trend = correlation(ranks)
say(f"- With what its two specialists gained over the generalist: {in_units(trend, 1, 2, '')}, **{trend.verdict}**. "
    + ("The student inherits its teachers' strengths and their weaknesses." if trend.verdict == "higher" else ""))

# %% [markdown]
r"""
## 8. Where do the teachers look?

The paper shows class maps and reads two patterns from them. CGP's teacher looks at a class *together with what goes along with it*, a **joint
pattern**; DGP's teacher, to whom its companions are no classes at all, looks at the class itself, a **category-specific pattern**. We take the boat. In CGP
it stands with things of the shore, in DGP mostly with things that are never there. Four networks of seed 0:
"""

# %%
from udlib.attention import class_attention, energy_inside
from udlib.datasets.transforms import normalise
from udlib.training.localisation import box_mask

at = {group: next(name for name, part in SPECIALISTS.items() if name.startswith(group) and boat in part) for group in KINDS}
NETS = {f"{KINDS[group]}'s teacher": (needed(students[0].recipe)[name], SPECIALISTS[name].index(boat))
        for group, name in at.items()} | {"ASL alone": (control[0].recipe, boat), "PSD": (students[0].recipe, boat)}
nets = {name: (load_model(chosen), column) for name, (chosen, column) in NETS.items()}
friends = [names[c] for c in SPECIALISTS[at["co"]] if c != boat]
say(f"With the boat in CGP's part: {', '.join(friends)}. In DGP's: "
    + ", ".join(names[c] for c in SPECIALISTS[at["dis"]] if c != boat) + ".")

# %%
chosen = control[0].recipe
pictures, data = dataset(chosen.data, "test", chosen.size, chosen.limit), arrays(chosen, "test")
rows = [i for i in data.targets[:, boat].nonzero().flatten().tolist() if any(b.name == "boat" for b in pictures.boxes(i))]

# %%
def boxes_of(i, wanted):
    return [box for box in pictures.boxes(i) if box.name in wanted]


def mask_of(wanted):
    """The union of the boxes of these classes, for each image with a boat: bool (n, side, side)."""
    return torch.stack([box_mask(boxes_of(i, wanted), pictures.image_size(i), data.images.shape[-1]) for i in rows])


on_boat = mask_of(["boat"])
on_friends = mask_of(friends) & ~on_boat  # a pixel of both counts for the boat
assert on_boat.any((1, 2)).all() and not (on_boat & on_friends).any()

# %%
@torch.inference_mode()
def seen(net, images):
    """The last feature maps and the logits."""
    found = [net(normalise(part)) for part in images.split(200)]
    return torch.cat([f.features for f in found]).clone(), torch.cat([f.logits for f in found]).clone()


looked = {name: seen(net, data.images[rows]) for name, (net, _) in nets.items()}
maps = {name: class_attention(net.head, looked[name][0], column, net.pooling) for name, (net, column) in nets.items()}
easy = [n for n, i in enumerate(rows) if any(not b.difficult for b in boxes_of(i, ["boat"]))
        and any(not b.difficult for b in boxes_of(i, friends))][:4]  # the first four, whatever they show

# %%
from udlib.figures import overlays

if easy:
    show(overlays.attention_grid([pictures.image(rows[n]) for n in easy], {name: [part[n] for n in easy] for name, part in maps.items()},
                                 ["boat and " + ", ".join(sorted({b.name for b in boxes_of(rows[n], friends)})) for n in easy],
                                 [boxes_of(rows[n], ["boat", *friends]) for n in easy]),
         "Four test images with a boat and its companions, with the class map of the boat by four networks")

# %% [markdown]
r"""
These are the first four test images with an easy boat and an easy companion, so nobody chose them for what they show. Do you see the two
patterns? Four pictures decide nothing. Over **all** test images with a boat: how much of the map lies in the boat's boxes, and
how much in its companions' boxes, each minus the area of these boxes (the share of a map that looks everywhere)? Intervals are over images,
for these four networks; another seed might look elsewhere.
"""

# %%
def excess(name, masks):
    """Energy inside minus area, for each image; NaN where the map is blank or there is no box."""
    area = masks.double().mean((1, 2))
    return torch.where(area > 0, energy_inside(maps[name], masks).double() - area, torch.nan)


def over_images(values):
    """Mean over images with a 95 % bootstrap interval; NaN where nothing was measured."""
    kept = values[values.isfinite()]
    return bootstrap_interval(lambda k: kept[k].mean(), len(kept), 500) if len(kept) > 1 else (np.nan,) * 3

# %%
flat = torch.ones(len(rows), 8, 8)
assert torch.allclose(energy_inside(flat, on_boat).double(), on_boat.double().mean((1, 2)), atol=1e-6)  # chance is the area
regions = {"the boat": on_boat, "its companions": on_friends}
energy = {(name, where): over_images(excess(name, masks)) for name in nets for where, masks in regions.items()}
drawn = {where: tuple(100 * np.array([energy[name, where][k] for name in nets]) for k in range(3)) for where in regions}
figure = plots.estimates(list(nets), drawn, "energy inside the boxes minus their area, points", "class map of the boat, seed 0")
figure.axes[0].axvline(0, color="black", linewidth=0.8)
show(figure, "Share of the boat's class map on the boat and on its companions, minus the area, for four networks")

# %%
def sign(found):
    return "higher" if found[1] > 0 else "lower" if found[2] < 0 else "not detected"


first, second = list(nets)[:2]
contrast = {where: over_images(excess(first, masks) - excess(second, masks)) for where, masks in regions.items()}
for where, found in contrast.items():
    say(f"- On {where}, {first} minus {second}: {in_units(found, 100, 1)}, **{sign(found)}** "
        "(the same images, those where both maps have a positive part).")

# %%
story = sign(contrast["its companions"]) == "higher" and sign(contrast["the boat"]) == "lower"
signs = {where: sign(found) for where, found in contrast.items()}
say("The paper's two patterns would show as *higher* on the companions and *lower* on the boat. " + (
    "**Both are seen here.**" if story else f"Here it is **{signs['its companions']}** on the companions and **{signs['the boat']}** on "
    "the boat."))
blank = {name: (part.amax((1, 2)) <= 0).double().mean().item() for name, part in maps.items()}
say("Maps that are blank after the ReLU, and left out: " + ", ".join(f"{name} {share:.0%}" for name, share in blank.items()) + ".")

# %% [markdown]
r"""
### Cover the companions

A map says where the evidence *lies*, but not what would happen without it. So we ask directly: paint the companions' boxes in the
picture's mean colour. By how much does the boat's logit fall? Covering anything disturbs a network, so the control covers the mirror image of
the same pixels, in pictures where that meets neither boat nor companion.
"""

# %%
mirrored = on_friends.flip(2)
fair = (on_friends.any((1, 2)) & ~(mirrored & (on_boat | on_friends)).any(2).any(1)).nonzero().flatten()
images = data.images[rows][fair]
colour = images.double().mean((2, 3), keepdim=True).to(images.dtype)


def covered(masks):
    return torch.where(masks[fair][:, None], colour, images)


drops = {}
for name, (net, column) in nets.items() if len(fair) > 1 else ():
    before, hidden, elsewhere = (seen(net, part)[1][:, column].double() for part in (images, covered(on_friends), covered(mirrored)))
    drops[name] = {"companions": over_images(hidden - before), "mirrored": over_images(elsewhere - before),
                   "companions − mirrored": over_images(hidden - elsewhere)}

# %%
if drops:
    shown = {what: tuple(np.array([drops[name][what][k] for name in nets]) for k in range(3)) for what in ("companions", "mirrored")}
    figure = plots.estimates(list(nets), shown, "change of the boat's logit", f"{len(fair)} pictures with something covered")
    figure.axes[0].axvline(0, color="black", linewidth=0.8)
    show(figure, "Change of the boat's logit when its companions are covered, and when as much is covered elsewhere")
for name, found in drops.items():
    effect = found["companions − mirrored"]
    say(f"- {name}: covering the companions, minus covering elsewhere: {in_units(effect, 1, 2, '')} logits, **{sign(effect)}**.")

# %% [markdown]
r"""
*Think!* Water and sand tell of boats as well as an umbrella does, and no box is drawn around them. Every network here can see
them. What would you paint over to find out how much of the boat is the shore?

## 9. Explore: k and the strategy

First the whole grid at a glance: CGP and DGP together and each alone, for each $k$ that was trained, three seeds. Dotted lines:
no teacher, one teacher of all classes, random parts.
"""

# %%
STRATEGIES = ("both", "CGP", "DGP")
KS = [k for k in (2, 3, 4) if all((k, name) in by_setting for name in STRATEGIES)]
beside = {"no teacher": base} | {name: few[name] for name in ("k = 1", "random parts") if name in few}
panels, dotted = {}, {}
for key in ("mAP", "ECE_pooled", "true_CE_pooled"):
    title, scale, _ = METRICS[key]
    panels[title] = {name: [scale * stored(by_setting[k, name], key) for k in KS] for name in STRATEGIES}
    dotted[title] = {name: scale * stored(found, key).mean() for name, found in beside.items()}
if KS and np.isfinite([values for panel in panels.values() for found in panel.values() for values in found]).all():
    show(plots.panels(KS, panels, "number of parts k", dotted),
         "mAP, pooled ECE and pooled true error over k for both partitions, CGP alone and DGP alone, three seeds")
if missing := [k for k in (2, 3, 4) if k not in KS]:
    say(f"Not trained yet: k = {', '.join(map(str, missing))}. `udlib runs --only 'parallel/*'` trains it.")

# %%
if len(KS) > 1:
    on_val = {k: np.mean([run.metrics["val"]["mAP"] for run in by_setting[k, "both"]]) for k in KS}
    k = max(on_val, key=on_val.get)
    found = difference(stored(by_setting[k, "both"], "mAP"), stored(base, "mAP"))
    say(f"Validation mAP chooses k = {k}; on test, that minus no teacher: {in_units(found)}, **{found.verdict}** (three seeds).")
    for name in STRATEGIES[1:]:  # runs of one seed are no independent pairs: first the mean over k, then the pairs of seeds
        alone = difference(*(np.mean([stored(by_setting[k, s], "mAP") for k in KS], axis=0) for s in ("both", name)))
        say(f"The mean over k = {', '.join(map(str, KS))}, both partitions minus {name} alone: {in_units(alone)}, **{alone.verdict}** "
            f"({alone.n} seeds).")
    for key, what in (("mAP", "mAP"), ("ECE_pooled", "pooled ECE"), ("true_CE_pooled", "true error")):
        trend = difference(np.polyfit(KS, [stored(by_setting[k, "both"], key) for k in KS], 1)[0])  # one slope for each seed
        say(f"One part more changes the {what} by {in_units(trend)}: " + {"higher": "**it rises with k**.", "lower": "**it falls with k**."}.get(
            trend.verdict, "**no trend is detected**."))

# %% [markdown]
r"""
Now move the sliders. Every $k$ has its graph and its parts; numbers stand beside it only where networks were trained.
Look for a $k$ at which a part of CGP falls apart, and for DGP's parts: can you give any of them a name?
"""

# %%
cut = {}
for k in range(1, 6):
    both = partitions(counted.targets, k)  # at k = 1 there is one part, whatever the strategy
    alone = {"both": both, "CGP": {"co": both["co"]}, "DGP": {"dis": both["dis"]} if k > 1 else both}
    cut |= {(k, name): parts for name, parts in alone.items()} | {(k, "random"): partitions(counted.targets, k, "random")}
assert cut[3, "both"] == PARTS and cut[3, "random"] == PARTITIONS[3, "random"]
found = by_setting | {(3, "both"): students} | {(1, strategy): by_setting.get((1, "whole"), []) for strategy in ("both", "CGP", "DGP", "random")}

# %%
explorer = PartitionExplorer(S, names, cut, found, control, start={"k": 3, "strategy": "both"})
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
probabilities far above the chance of a label. So compare mAP, and F1 at a threshold that each arm chooses on validation.
Teachers that cost nothing do not exist: report each arm's training time. Five seeds, paired.

</details>

## Summary

- Labels make a graph: $S$ from rates of co-occurrence. CGP cuts it where classes seldom meet, DGP cuts $1 - S$. The second eigenvector of the
  Laplacian does for the cut what trying all of them would do.
- A partition is an estimate. Ask it for its stability under another seed *and* under another sample.
- ASL asks for $p$ far above the chance of a label. The ranking is safe, the probabilities are not, and a threshold of 0.8 is its one half. The
  loss itself says how to take them back.
- The squared distances to two groups of teachers are, for the student, the distance to their **mean**. What the groups disagree on is a constant.
- PSD brings a loss, an average and teachers. A claim about teachers needs the control with the same loss and average and without them. A claim about
  *partitions* needs random ones.
- A map shows where evidence lies. To say that a network *uses* something, cover it.

What we found:

- The gain in mAP comes from the loss: ASL raises it by four and a half points, and costs fifteen points of pooled ECE.
- Averaging the weights costs two points of mAP in a training of this length.
- The teachers add nothing to the mAP that we detect. They take back three and a half points of the ECE.
- Random parts, and a single teacher of all classes, do as well as PSD's parts, as far as three seeds can tell.

The numbers behind these sentences:
"""

# %%
for group, kind in KINDS.items():
    say(f"- Specialists of {kind} minus one network of all classes: mAP {in_units(ahead[group])}, **{ahead[group].verdict}**.")
for name, found in effects.items():
    say(f"- {name[0].upper() + name[1:]}: " + "; ".join(f"{METRICS[key][0].split(',')[0]} {told(found[key], key)}"
        for key in ("mAP", "ECE_pooled", "true_CE_pooled", "NLL")) + ".")
if profile() != "smoke":
    seen = [[found[key].verdict for key in ("mAP", "ECE_pooled")] for found in effects.values()]
    assert seen[:3] == [["lower", "not detected"], ["higher", "higher"], ["not detected", "lower"]]
    assert {against[name]["mAP"].verdict for name in ("random parts", "k = 1")} == {"not detected"}
for name, found in against.items():
    say(f"- PSD minus {name}: mAP {in_units(found['mAP'])}, **{found['mAP'].verdict}** (three seeds).")
say(f"- The boat's map, {first} minus {second}: on the boat **{sign(contrast['the boat'])}**, on its companions "
    f"**{sign(contrast['its companions'])}**.")
say("- " + difference.count())

# %% [markdown]
r"""
Sixteen classes, drawn pictures and a small network trained from nothing say little about 80 classes of photographs and TResNet-L. The
*controls* carry over, and so does the arithmetic: ASL's curve and the mean of the teachers hold wherever these losses are used.

## Further reading

- J. Xu et al., *Boosting Multi-Label Image Classification with Complementary Parallel Self-Distillation*, 2022, arXiv 2205.10986: the
  method of this lesson; code at github.com/Robbie-Xu/CPSD.
- T. Ridnik et al., *Asymmetric Loss For Multi-Label Classification*, ICCV 2021.
- U. von Luxburg, *A Tutorial on Spectral Clustering*, Statistics and Computing 17, 2007.
- J. Shi and J. Malik, *Normalized Cuts and Image Segmentation*, IEEE TPAMI 22, 2000.
- L. Hubert and P. Arabie, *Comparing Partitions*, Journal of Classification 2, 1985: the adjusted Rand index.
- T.-Y. Lin et al., *Focal Loss for Dense Object Detection*, ICCV 2017: where the weight comes from.
- N. Charoenphakdee et al., *On Focal Loss for Class-Posterior Probability Estimation*, CVPR 2021: taking a loss's answers back to posteriors.
- R. Selvaraju et al., *Grad-CAM*, ICCV 2017.
"""
