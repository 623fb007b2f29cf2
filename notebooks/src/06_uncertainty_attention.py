# %% [markdown]
r"""
# 06 · Uncertainty attention

[← 05 · Knowledge distillation](05_knowledge_distillation.ipynb) · [07 · Uncertainty distillation →](07_uncertainty_distillation.ipynb)

**Aim.** The student of lesson 05 learned how sure its teacher is of each label, but not *where* in the picture the teacher is
unsure. The paper (UD) teaches that by a map, the *uncertainty attention*: it shows where the two heads of a network disagree. You
will derive this map, compute it without a backward pass to the feature map, and read its sign. Then you will measure two things
that single pictures cannot show. Does the disagreement of the heads measure uncertainty? And does the map lie where the uncertain
objects are?

**Prerequisites.** Lessons 03 and 04: the calibration branch, the known posterior, paired differences. Lesson 05: a teacher
and its student.

**Time.** About two hours with the exercises. The cells run in a minute or two.
"""

# %% tags=["setup", "report"]
import numpy as np
import pandas as pd
import torch
from IPython.display import display
from scipy.stats import rankdata, spearmanr
from torch.nn import functional as F

from udlib.figures import overlays, plots
from udlib.attention import class_attention, energy_inside, pointing_game, uncertainty_attention
from udlib.datasets.base import Box
from udlib.course.exercises import assert_measured, check, check_guess
from udlib.training.localisation import box_mask
from udlib.losses import attention_loss, softmax_kl
from udlib.figures.plots import show

# %% tags=["setup", "report"]
from udlib.datasets import read_truth
from udlib.datasets.annotator import DIFFICULT_BELOW
from udlib.datasets.transforms import normalise
from udlib.course.store import arrays, dataset, load_model, load_or_run, profile
from udlib.course.recipes import baseline, distilled, two_branch
from udlib.statistics import bootstrap_interval
from udlib.course.sentences import difference, percent, say

# %% [markdown]
r"""
This lesson uses `scenes` alone: it needs boxes, [difficult](../docs/glossary.md#difficult) flags and the
[posterior](../docs/glossary.md#posterior). As before, code writes the sentences with numbers, a "point" is one per cent,
and an interval covers 95 %.
"""

# %% tags=["setup", "report"]
def ranged(interval, scale=1, digits=3, sign="+"):
    """A number with its interval, in words."""
    middle, low, high = (f"{scale * value:{sign}.{digits}f}" for value in interval[:3])
    return f"{middle} [{low}, {high}]" if np.isfinite(interval[0]) else "–"


def in_points(interval):
    return f"{ranged(interval, 100, 1)} points"


def rank_correlation(a, b):
    """Spearman's ρ: the correlation of the ranks; NaN where one side is constant."""
    a, b = (np.asarray(part, float) for part in (a, b))
    return spearmanr(a, b).statistic if np.ptp(a) > 0 and np.ptp(b) > 0 else np.nan

# %% tags=["setup", "report"]
def over_images(values, samples=300):
    """Mean over images with its bootstrap interval; images where nothing could be measured are left out."""
    values = torch.as_tensor(values, dtype=torch.float64)
    values = values[values.isfinite()]
    return bootstrap_interval(lambda i: values[i].mean(), max(len(values), 1), samples) if len(values) else (np.nan,) * 3

# %% [markdown]
r"""
## 1. First, pictures, chosen by rule

Among a thousand maps there is always one that shows what we hoped for. So we fix two rules before we look. Rule A takes
the three images where the teacher's heads disagree most. Rule B draws three images at random, with seed 0. We use the
first 1,000 test images and five networks of seed 0.
"""

# %% tags=["report"]
LOOK = 1000
MADE_BY = {"teacher": two_branch(0.1, network="small_wide")[0], "before UD": baseline().but(lam=0.1),
           "KD + distribution": distilled("KD + distribution")[0], "UD": distilled("UD")[0]}
nets = {name: load_model(made_by) for name, made_by in MADE_BY.items()}
plain = load_model(baseline())  # no calibration branch: class attention only
recipe = load_or_run(MADE_BY["before UD"]).recipe  # at the size of the profile
recipe = recipe.but(limit=min(LOOK, recipe.limit or LOOK))
pictures, data = dataset(recipe.data, "test", recipe.size, recipe.limit), arrays(recipe, "test")
y, hard = pictures.targets.double(), pictures.difficult

# %% tags=["learn"]
@torch.inference_mode()
def look(net):
    """Logits of both heads, feature maps and uncertainty maps of all images."""
    batches = [net(normalise(images)) for images in data.images.split(100)]
    logits = torch.cat([batch.logits for batch in batches])
    calibration_logits = torch.cat([batch.calibration_logits for batch in batches])
    features = torch.cat([batch.features for batch in batches])
    maps = uncertainty_attention(net.head, features, net.pooling)
    return [part.clone() for part in (logits, calibration_logits, features, maps)]

# %% tags=["report"]
views = {name: look(net) for name, net in nets.items()}
maps = {name: view[3] for name, view in views.items()}
kl = {name: softmax_kl(view[1], view[0], reduction="none") for name, view in views.items()}

# %% tags=["report"]
rule_a = kl["teacher"].argsort(descending=True)[:3].tolist()
rule_b = np.random.default_rng(0).choice(len(y), 3, replace=False).tolist()
rows = rule_a + rule_b
logits, _, features, _ = views["teacher"]
top = logits.argmax(1)
of_class = class_attention(nets["teacher"].head, features, top, nets["teacher"].pooling, relu=False)
assert all(len(part) == len(y) == recipe.limit for part in (of_class, *maps.values()))

# %% tags=["report"]
def title(i):
    rule, k = "A" if i in rule_a else "B", top[i]
    return f"{rule}: {pictures.classes[k]}, p = {logits[i, k].sigmoid():.2f}\nKL = {kl['teacher'][i]:.3f}"


def grid(columns, titles, rows=rows):
    """Pictures in rows, with the map of each column over them."""
    maps_of_rows = {name: [part[i] for i in rows] for name, part in columns.items()}
    return overlays.attention_grid([pictures.image(i) for i in rows], maps_of_rows, titles, [pictures.boxes(i) for i in rows])


show(grid({"attention of that class": of_class, "uncertainty attention": maps["teacher"]}, [title(i) for i in rows]),
     "Six test images by two rules, each beside the teacher's attention of its most probable class and its uncertainty map")

# %% [markdown]
r"""
The left column shows the picture with its boxes: solid for easy objects, dashed for difficult ones. The middle column
shows the evidence for the most probable class. The right column shows where the two heads disagree. Purple inside solid
contours is positive, green inside dashed contours is negative. Each map has its own scale. Is the uncertainty where you
expected it?

### Predict

Write three guesses. The *disagreement* of an image is the [KL divergence](../docs/glossary.md#kl-divergence) between its
two heads.
"""

# %% tags=["learn"]
guess_rank = ...  # rank correlation of the disagreement with the image's NLL, from −1 to 1
guess_entropy = ...  # the same for a simple score: the entropy of the sigmoids
guess_energy = ...  # share of the uncertainty map in a difficult label's boxes, % (chance: about 7)

# %% [markdown]
r"""
## 2. Attention of a class

Grad-CAM (Selvaraju et al., 2017) asks which cells of the last [feature map](../docs/glossary.md#feature-map)
$Z \in \mathbb{R}^{D \times h \times w}$ support a class $k$. It weights each channel by the mean gradient of the logit,
and keeps what is positive:

$$\alpha_c = \frac{1}{hw} \sum_{h,w} \frac{\partial z_k}{\partial Z_{chw}}, \qquad
A_{hw} = \mathrm{ReLU}\Big( \sum_c \alpha_c Z_{chw} \Big)$$

Our classifier is linear in the mean of each channel, $z_k = b_k + \sum_c W_{kc} \bar Z_c$. So the gradient is
$W_{kc} / hw$ at every cell, and the map is a sum of channels, weighted by the classifier's own weights.
"""

# %% tags=["learn"]
net, some = nets["teacher"], features[rows]
cells = some[0, 0].numel()
classifier = net.head.classification
by_hand = torch.einsum("nc,nchw->nhw", classifier.weight[top[rows]], some) / cells
assert torch.allclose(by_hand, of_class[rows], rtol=1e-3, atol=1e-4)
with_relu = class_attention(net.head, some, top[rows])
assert torch.allclose(with_relu, by_hand.relu(), rtol=1e-3, atol=1e-4)
sums, evidence = by_hand.sum((1, 2)), logits[rows, top[rows]] - classifier.bias[top[rows]]
assert torch.allclose(sums, evidence, rtol=1e-3, atol=1e-3)
pd.DataFrame({"sum of the map": sums.tolist(), "logit minus bias": evidence.tolist()},
             index=[f"image {i}" for i in rows]).round(2)

# %% [markdown]
r"""
Without the ReLU the cells of the map *add up* to the logit minus the bias. The ReLU hides the cells that speak against
the class, and then the sum no longer holds.

### Exercise 06.1

Write Grad-CAM without ReLU, for average pooling, through the **pooled** vector: pool, run the head, differentiate the
logit of class `k`, weight the channels. `head(pooled)` gives the pair (logits, calibration logits). Return (N, h, w).
Think first: what is $\partial \bar Z_c / \partial Z_{chw}$?
"""

# %% exercise="06.1"
def my_class_map(head, features, k):
    return ...

# %% solution="06.1"
def my_class_map(head, features, k):
    pooled = features.mean((2, 3)).detach().requires_grad_()
    gradient, = torch.autograd.grad(head(pooled)[0][:, k].sum(), pooled)
    alpha = gradient / features[0, 0].numel()  # each cell moves its mean by 1/hw
    return torch.einsum("nc,nchw->nhw", alpha, features)

# %% mistake="06.1" says="the mean over the cells"
def my_class_map(head, features, k):
    pooled = features.mean((2, 3)).detach().requires_grad_()
    gradient, = torch.autograd.grad(head(pooled)[0][:, k].sum(), pooled)
    return torch.einsum("nc,nchw->nhw", gradient, features)

# %% mistake="06.1" says="ReLU on the weights"
def my_class_map(head, features, k):
    pooled = features.mean((2, 3)).detach().requires_grad_()
    gradient, = torch.autograd.grad(head(pooled)[0][:, k].sum(), pooled)
    return torch.einsum("nc,nchw->nhw", gradient.relu() / features[0, 0].numel(), features)

# %% mistake="06.1" says="gradient of the probability"
def my_class_map(head, features, k):
    pooled = features.mean((2, 3)).detach().requires_grad_()
    gradient, = torch.autograd.grad(torch.sigmoid(head(pooled)[0])[:, k].sum(), pooled)
    return torch.einsum("nc,nchw->nhw", gradient / features[0, 0].numel(), features)

# %% mistake="06.1" says="all classes"
def my_class_map(head, features, k):
    pooled = features.mean((2, 3)).detach().requires_grad_()
    gradient, = torch.autograd.grad(head(pooled)[0].sum(), pooled)
    return torch.einsum("nc,nchw->nhw", gradient / features[0, 0].numel(), features)

# %% tags=["learn"]
check("06.1", my_class_map)

# %% [markdown]
r"""
## 3. Attention of a disagreement

![Both branches answer from the same pooled features; the gradient of the KL divergence of their softmaxes gives each channel of the feature map a weight, and the weighted sum of the channels is the uncertainty map.](images/uncertainty_map.svg)

The paper replaces the logit by another number. One network has two heads on the same features. Let $T^a$ be the softmax of
its calibration logits and $T^o$ the softmax of its classification logits. Then the
[uncertainty map](../docs/glossary.md#attention-map) is

$$w_c = \sum_{h,w} \frac{\partial\, \mathrm{KL}(T^a \,\|\, T^o)}{\partial Z_{chw}} \quad (15), \qquad
A_{hw} = \sum_c w_c Z_{chw} \quad (16)$$

Eq. 15 is printed with $T^a$ and $S^o_i$: the teacher's calibration head against the student's classifier. We think that this
is a slip. The text speaks of the two branches of *one* network, and each network has its own map in Eq. 17. (The text
also calls the classifier's output a distribution, so we take its softmax.) There is no mean, no ReLU and no normalisation.
Here are both equations literally, with a gradient at every cell.
"""

# %% tags=["learn"]
def pool(z, pooling):
    return z.mean((2, 3)) if pooling == "avg" else z.amax((2, 3))


def literal_map(head, z, pooling):
    """Eq. 15 and 16 as printed: full autograd to all D × h × w cells."""
    z = z.detach().clone().requires_grad_()
    logits, calibration_logits = head(pool(z, pooling))
    each_image = softmax_kl(calibration_logits, logits, reduction="none")
    gradient, = torch.autograd.grad(each_image.sum(), z)  # images do not mix: one sum for all
    w = gradient.sum((2, 3))  # Eq. 15
    return torch.einsum("nc,nchw->nhw", w, z.detach()), w  # Eq. 16

# %% [markdown]
r"""
### No backward pass to the feature map is needed

Let $p_c$ be the pooled channel. By the chain rule, $\partial \mathrm{KL} / \partial Z_{chw} = (\partial \mathrm{KL} /
\partial p_c)\,(\partial p_c / \partial Z_{chw})$. With average [pooling](../docs/glossary.md#pooling) the last factor is
$1/hw$ at each of the $hw$ cells. With maximum pooling it is 1 at one cell and 0 elsewhere (ties share the 1). In both cases
it sums to one, so

$$\sum_{h,w} \frac{\partial \mathrm{KL}}{\partial Z_{chw}} = \frac{\partial \mathrm{KL}}{\partial p_c}.$$

The gradient has to go through the two small heads only, to $D$ numbers instead of $D \times h \times w$. We check this
against the literal version, for both poolings.
"""

# %% tags=["learn"]
exact = net.head.double()
for pooling in ("avg", "max"):
    full, w = literal_map(exact, some.double(), pooling)
    p = pool(some.double(), pooling).requires_grad_()
    direct, = torch.autograd.grad(softmax_kl(*reversed(exact(p)), reduction="none").sum(), p)
    assert torch.allclose(direct, w, rtol=1e-6, atol=1e-9)  # the identity
    ours = uncertainty_attention(exact, some.double(), pooling)
    assert torch.allclose(ours, full, rtol=1e-6, atol=1e-9)
net.head.float()
per_image = direct.numel() // len(rows)
print(f"{per_image} gradients for each image instead of {some[0].numel():,}, and the same map")

# %% [markdown]
r"""
### What the sign means

For average pooling, $A_{hw} / hw = \sum_c Z_{chw}\, \partial \mathrm{KL} / \partial Z_{chw}$. This is a derivative with a
meaning. **Increase** all features of one cell by one per cent, and the KL changes by $0.01\, A_{hw}/hw$. If the cell is
positive, the heads then disagree more. If it is negative, they agree more. We test this at one cell.
"""

# %% tags=["learn"]
def kl_with(z, cell, factor):
    """The KL of each image after the features of one cell were multiplied."""
    z = z.clone()
    z[:, :, cell[0], cell[1]] *= factor
    logits, calibration_logits = net.head(pool(z, "avg"))
    return softmax_kl(calibration_logits, logits, reduction="none")


net.head.double()
larger, smaller = (kl_with(some.double(), (3, 4), 1 + step) for step in (1e-5, -1e-5))
slopes = (larger - smaller) / 2e-5
expected = uncertainty_attention(net.head, some.double())[:, 3, 4] / cells
net.head.float()
assert torch.allclose(slopes, expected, rtol=1e-3, atol=1e-7)

# %% tags=["report"]
pd.DataFrame({"change of the KL, measured": slopes.tolist(), "A / hw": expected.tolist()}, index=[f"image {i}" for i in rows])

# %% tags=["report"]
signs = {name: {"positive cells, %": 100 * (part > 0).double().mean().item(),
                "maps without a positive cell": int((part.amax((1, 2)) <= 0).sum()),
                "maps without a negative cell": int((part.amin((1, 2)) >= 0).sum()),
                "KL, median": kl[name].median().item(), "KL, mean": kl[name].mean().item()} for name, part in maps.items()}
sign_table = pd.DataFrame(signs).T
assert sign_table["positive cells, %"].between(0, 100).all() and (sign_table["KL, mean"] >= 0).all()
sign_table.round(4)

# %% [markdown]
r"""
So "high attention" can mean two opposite things. A picture that shows only the size of the attention hides the sign.
We keep both signs.

### Exercise 06.2

Write the divergence of Eq. 15 for each image: KL(softmax of the calibration logits ‖ softmax of the logits), shape (N,).
"""

# %% exercise="06.2"
def my_divergence(calibration_logits, logits):
    return ...

# %% solution="06.2"
def my_divergence(calibration_logits, logits):
    log_p, log_q = calibration_logits.log_softmax(1), logits.log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).sum(1)

# %% mistake="06.2" says="wrong direction"
def my_divergence(calibration_logits, logits):
    log_p, log_q = calibration_logits.log_softmax(1), logits.log_softmax(1)
    return (log_q.exp() * (log_q - log_p)).sum(1)

# %% mistake="06.2" says="sigmoid"
def my_divergence(calibration_logits, logits):
    p, q = torch.sigmoid(calibration_logits), torch.sigmoid(logits)
    return (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(1)

# %% mistake="06.2" says="sum over the classes"
def my_divergence(calibration_logits, logits):
    log_p, log_q = calibration_logits.log_softmax(1), logits.log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).mean(1)

# %% mistake="06.2" says="one KL for each image"
def my_divergence(calibration_logits, logits):
    log_p, log_q = calibration_logits.log_softmax(1), logits.log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).sum(1).mean()

# %% tags=["learn"]
check("06.2", my_divergence)

# %% [markdown]
r"""
## 4. Is disagreement uncertainty?

The paper argues as follows: one head aims at accuracy, the other at calibration, so their difference shows which label the
network is uncertain about. Before we trust a map of the KL, we ask what the KL can show at all. Here are five small cases
with three classes: cup, lamp and fish.
"""

# %% tags=["learn"]
def entropy(p):
    """Of independent labels, in nats: (N, C) → (N,)."""
    return (torch.special.entr(p) + torch.special.entr(1 - p)).sum(1)

# %% tags=["learn"]
CASES = {  # calibration logits, logits
    "sure, heads agree": ([9.0, -9.0, -9.0], [9.0, -9.0, -9.0]),
    "cup or lamp? both heads unsure": ([0.0, 0.0, -9.0], [0.0, 0.0, -9.0]),
    "calibration logits shifted by 5": ([5.0, 5.0, -4.0], [0.0, 0.0, -9.0]),
    "sure of the cup, unsure of the lamp": ([9.0, 1.0, -9.0], [9.0, 0.0, -9.0]),
    "sure of both, cup and lamp": ([9.0, 7.0, -9.0], [9.0, 9.0, -9.0])}
rows_of_cases = {}
for name, pair in CASES.items():
    c, z = (torch.tensor([part]) for part in pair)
    rows_of_cases[name] = {"KL of the heads": softmax_kl(c, z).item(),
                           "entropy of the sigmoids": entropy(torch.sigmoid(z)).item()}
cases_table = pd.DataFrame(rows_of_cases).T
cases_table.round(4)

# %% tags=["report"]
kl_column, entropy_column = cases_table["KL of the heads"], cases_table["entropy of the sigmoids"]
assert (kl_column.iloc[:4] < 0.001).all() and kl_column.iloc[4] > 0.3
assert entropy_column.iloc[1] > 1.3 and entropy_column.iloc[3] > 0.6 and entropy_column.iloc[4] < 0.01

# %% [markdown]
r"""
The KL can miss uncertainty for three reasons, and it can be large without any uncertainty for a fourth.

- **Both heads can be unsure in the same way.** They use the same features. Lesson 03 found that PAL-N asks for another
  scale of the logits but for much the same ranking of the classes. Where both heads say ½, the KL is 0.
- **A softmax ignores the level of the logits.** Adding a constant to all logits changes nothing, although every sigmoid
  changes.
- **A softmax depends mostly on the largest logits.** Beside a label with logit 9, a label with logit 0 has a softmax of
  about 0.0001. Its sigmoid is ½, so it is as uncertain as a label can be, but the KL hardly changes with it. Pictures with
  several labels are exactly what this course is about.
- **Sure labels share a total of 1.** With two sure labels the softmax splits 1 between them. If the heads split it
  differently, the KL is large (last row), although no label is in doubt.

The next figure shows the KL over the images. For most of them it is close to 0.
"""

# %% tags=["report"]
runs = [load_or_run(recipe) for recipe in two_branch(0.1)]  # five seeds, both heads' logits on all test images
test = runs[0].labels()
targets, posterior = test.targets.double(), test.posterior.double()
divergence = [softmax_kl(run.test_calibration_logits.double(), run.test_logits.double(), reduction="none") for run in runs]
LEVELS = np.linspace(0, 100, 101)
curves = {f"seed {run.recipe.training.seed}": np.percentile(d, LEVELS) for run, d in zip(runs, divergence)}
show(plots.lines(LEVELS, curves, "per cent of the test images, sorted", "KL of the heads, nats", "two branches, λ = 0.1",
                 markers=False),
     "KL of the two heads against the share of images below it, five seeds: flat for most images, steep at the end")

# %% tags=["report"]
largest = [d.sort(descending=True).values for d in divergence]
tenth = np.array([(d[:len(d) // 10].sum() / d.sum()).item() for d in largest])
assert (tenth > 0.1).all()
say(f"The median KL is {np.mean([d.median() for d in divergence]):.4f} nats, the mean {np.mean([d.mean() for d in divergence]):.4f}, "
    f"and the largest {max(d.max() for d in divergence):.2f}. The tenth of the images with the largest KL holds "
    f"{percent(tenth.mean())} of the total KL (mean over five seeds).")
again, before = views["before UD"][0].double(), runs[0].test_logits[:len(y)].double()
assert torch.corrcoef(torch.stack([again.flatten(), before.flatten()]))[0, 1] > 0.98  # the network and its stored run agree

# %% tags=["report"]
crowd = [[((run.probabilities() >= 0.9).sum(1)[subset] >= 2).double().mean().item() for subset in
          (d.argsort(descending=True)[:len(d) // 10], slice(None))] for run, d in zip(runs, divergence)]
crowd = difference(*np.array(crowd).T)
say(f"Images with two or more *sure* labels (sigmoid at least 0.9) are more frequent where the KL is large. Their share in the "
    f"tenth with the largest KL, minus their share in all images, is {in_points(crowd)}, **{crowd.verdict}**.")
assert profile() == "smoke" or crowd.verdict == "higher"

# %% [markdown]
r"""
### Comparison with what it should follow

If the KL measures uncertainty, images with a large KL should be hard images. We measure how hard an image is in six ways.

- The annotator: the number of difficult labels, and the entropy of the posterior. No network can be less uncertain than
  the posterior.
- The network: its [NLL](../docs/glossary.md#nll-negative-log-likelihood) and its
  [Brier score](../docs/glossary.md#brier-score), summed over the classes.
- The number of labels, which Assumption 1 takes as a sign of difficulty.
- The squared distance of the sigmoids to the posterior: the network's error without the annotator's coin.

We compare the KL with three scores that need no second head: the entropy of the sigmoids, summed over the classes; 1 − the
largest sigmoid; and the entropy of the classifier's softmax. Each number is Spearman's **rank correlation** over all test
images.
"""

# %% tags=["learn"]
def scores_of(run, disagreement):
    """Four scores of uncertainty for each image."""
    p, q = run.probabilities(), run.test_logits.double().softmax(1)
    return {"KL of the heads": disagreement, "entropy of the sigmoids": entropy(p),
            "1 − largest sigmoid": 1 - p.amax(1),
            "entropy of the softmax": torch.special.entr(q).sum(1)}

# %% tags=["learn"]
def yardsticks_of(run):
    """Six measures of how hard each image is."""
    p, logits = run.probabilities(), run.test_logits.double()
    nll = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1)
    return {"number of labels": targets.sum(1), "difficult labels": test.difficult.sum(1),
            "entropy of the posterior": entropy(posterior), "NLL": nll,
            "Brier score": (p - targets).square().sum(1),
            "distance to the posterior": (p - posterior).square().sum(1)}

# %% tags=["report"]
all_scores = [scores_of(run, d) for run, d in zip(runs, divergence)]
all_yards = [yardsticks_of(run) for run in runs]
SCORES, YARDS = list(all_scores[0]), list(all_yards[0])
rho = {s: {t: np.array([rank_correlation(scores[s], yards[t]) for scores, yards in zip(all_scores, all_yards)])
           for t in YARDS} for s in SCORES}
estimates = {s: np.array([difference(rho[s][t])[:3] for t in YARDS]).T for s in SCORES}
show(plots.estimates(YARDS, estimates, "rank correlation over images (mean and interval over five seeds)"),
     "Rank correlation of four uncertainty scores with six yardsticks, mean and 95 % interval over five seeds")

# %% tags=["report"]
def row(name):
    gap = difference(rho["KL of the heads"][name], rho["entropy of the sigmoids"][name])
    return {"KL of the heads": ranged(difference(rho["KL of the heads"][name])),
            "entropy of the sigmoids": ranged(difference(rho["entropy of the sigmoids"][name])),
            "KL minus entropy": ranged(gap), "verdict": gap.verdict}


display(pd.DataFrame({name: row(name) for name in YARDS}).T)
nll = [rho[s]["NLL"].mean() for s in ("KL of the heads", "entropy of the sigmoids")]
check_guess("rank correlation of the KL with the NLL", guess_rank, nll[0])
check_guess("rank correlation of the entropy with the NLL", guess_entropy, nll[1])
assert profile() == "smoke" or all(row(name)["verdict"] == "lower" for name in YARDS)

# %% [markdown]
r"""
The KL follows all six measures less than the entropy of the sigmoids does. With the NLL, its rank correlation is 0.15 and
that of the entropy is 0.43.

Two checks remain. First, all five networks were measured on the same images. So these intervals cover the chance of
training, but not the chance of drawing images. For seed 0 we also resample the images. Second, NLL and entropy are sums
over the classes, and both grow with the number of labels. A score that only counts objects would look good. So we also
compare images with the same number of labels.
"""

# %% tags=["learn"]
def within(score, yard, groups):
    """Rank correlation within groups of 20 or more images, averaged with the groups' sizes."""
    sizes, values = [], []
    for g in groups.unique():
        same = groups == g
        value = rank_correlation(score[same], yard[same])
        if same.sum() >= 20 and np.isfinite(value):
            sizes.append(int(same.sum())), values.append(value)
    return np.average(values, weights=sizes) if sizes else np.nan

# %% tags=["report"]
label_count, TWO = targets.sum(1), ("KL of the heads", "entropy of the sigmoids")
assert np.isnan(within(label_count, all_yards[0]["NLL"], label_count))  # a score that only counts is constant within a group
assert np.isclose(within(all_yards[0]["NLL"], 2 * all_yards[0]["NLL"], label_count), 1)
stratified = {s: {t: difference([within(scores[s], yards[t], label_count) for scores, yards in zip(all_scores, all_yards)])
                  for t in YARDS[1:]} for s in TWO}
display(pd.DataFrame({s: {t: ranged(value) for t, value in part.items()} for s, part in stratified.items()}))

# %% tags=["report"]
resampled = {s: bootstrap_interval(lambda i: rank_correlation(all_scores[0][s][i], all_yards[0]["NLL"][i]),
                                   len(label_count), 300) for s in TWO}
say("Rank correlation with the NLL for seed 0, with intervals over resampled images: " + "; ".join(
    f"{s} {ranged(value)}" for s, value in resampled.items()) + ".")
ahead = {t: stratified[TWO[1]][t].mean > stratified[TWO[0]][t].mean for t in YARDS[1:]}
assert profile() == "smoke" or [t for t in ahead if not ahead[t]] == ["difficult labels"]
assert profile() == "smoke" or resampled[TWO[0]][2] < resampled[TWO[1]][1]

# %% [markdown]
r"""
Both checks confirm the result for the NLL. Among images with the same number of labels the entropy also stays ahead in
every other measure but one: the number of difficult labels follows the KL a little more (0.07 against 0.02).

### Which label?

The paper also says that the difference shows *which label* is uncertain. So we ask about each label. The score of a label is
$|T^a_k - T^o_k|$, the distance of the two softmaxes. How well does it find the labels that the classifier gets wrong (at a
threshold of ½)? We report the AUROC: the probability that a wrong label has a higher score than a right one. Chance is ½.
Among the *present* labels, we also ask whether the score finds the difficult ones.
"""

# %% tags=["learn"]
def auroc(score, positive):
    """Chance that a positive entry has a higher score than a negative one; ties count half."""
    n, ranks = int(positive.sum()), rankdata(score)
    rest = len(ranks) - n
    return (ranks[positive.numpy()].sum() - n * (n + 1) / 2) / (n * rest) if n and rest else np.nan


four = torch.tensor([0.1, 0.4, 0.4, 0.9])
assert auroc(four, torch.tensor([False, False, True, True])) == 0.875

# %% tags=["learn"]
def label_scores(run):
    """Three scores of uncertainty for each label of each image."""
    a = run.test_calibration_logits.double().softmax(1)
    o, p = run.test_logits.double().softmax(1), run.probabilities()
    return {"distance of the softmaxes": (a - o).abs(),
            "the larger softmax alone": torch.maximum(a, o),
            "entropy of the label's sigmoid": torch.special.entr(p) + torch.special.entr(1 - p)}

# %% tags=["report"]
present, aurocs = targets.bool(), {}
for run in runs:
    wrong = (run.probabilities() >= 0.5) != present
    for name, score in label_scores(run).items():
        aurocs.setdefault((name, "wrong, among all labels"), []).append(auroc(score.flatten(), wrong.flatten()))
        aurocs.setdefault((name, "difficult, among present labels"), []).append(auroc(score[present], test.difficult[present]))
table = pd.Series({key: ranged(difference(values), sign="") for key, values in aurocs.items()}).unstack()
display(table.loc[list(label_scores(runs[0]))])

# %% tags=["report"]
pair = {goal: difference(aurocs["distance of the softmaxes", goal], aurocs["entropy of the label's sigmoid", goal])
        for goal in table.columns}
say("Distance of the softmaxes minus the label's own entropy, AUROC: " + "; ".join(
    f"{goal}: {ranged(value)}, **{value.verdict}**" for goal, value in pair.items()) + ".")
extra = difference(*(aurocs[name, "wrong, among all labels"]
                     for name in ("distance of the softmaxes", "the larger softmax alone")))
say(f"Distance of the softmaxes minus the larger softmax alone, wrong labels: {ranged(extra)}, **{extra.verdict}**.")
assert profile() == "smoke" or [value.verdict for value in pair.values()] == ["lower", "lower"] and extra.mean < 0.01

# %% [markdown]
r"""
The label's own entropy finds wrong labels better (0.89) than the distance of the softmaxes does (0.78). Among present labels
the distance is even below chance for difficult ones (0.41).

The middle row is a control without any disagreement in it. Most labels have a softmax near 0 in both heads, so their distance is
near 0 too. A label with a large softmax is more likely to be a wrong one. This control reaches almost the same AUROC: the
disagreement adds less than 0.01.

**Think:** in section 1, rule A chose the images with the largest KL. Are you uncertain about these images?

<details><summary>Answer</summary>
Look at them again: many show objects that nobody would doubt. The KL is large where the two branches disagree, and they answer different
questions. One gives each label a probability, the other shares a total of 1 among the labels. So they also disagree where an image
has several labels.
</details>

## 5. Does the map lie where the objects are?

A weak score may still have a good map. We need numbers for "lies on". The usual two come from work on Grad-CAM:

- **Pointing game** (Zhang et al., 2016): does the highest cell lie inside the object's boxes?
- **Energy** (Wang et al., 2020): what share of the map's positive part lies inside?

We resize the map to the picture. The mask is the union of the boxes of one label. A tiny example, 2 × 2:
"""

# %% tags=["learn"]
tiny = torch.tensor([[[3.0, 1.0], [-8.0, 0.0]]])
mask = box_mask([Box("cup", 0, 0, 1, 2)], (2, 2), 2)[None]  # the left half of 2 × 2 pixels
assert mask[0].tolist() == [[True, False], [True, False]]
assert pointing_game(tiny, mask).tolist() == [True]  # 3 is the highest cell
assert energy_inside(tiny, mask).item() == 0.75  # 3 of 3 + 1; the −8 does not count
flat = torch.ones(1, 2, 2)
assert energy_inside(flat, mask) == mask.double().mean() == 0.5  # a flat map scores the area
assert energy_inside(-tiny, mask) == 1.0  # the negative part, by a change of sign
energy_inside(tiny, mask), pointing_game(tiny, mask)

# %% [markdown]
r"""
Both numbers need a chance level. The energy of a flat map is the **area** of the mask, as a share of the picture. A cell drawn
at random hits with the same probability. So a large box is easy to hit.

### Exercise 06.3

Write the energy of one map: `heat` (h, w) of either sign, `mask` bool (H, W), usually larger. Resize the **map** with
`F.interpolate(…, mode="bilinear", align_corners=False)`, which wants (N, C, h, w); then keep the positive part.
"""

# %% exercise="06.3"
def my_energy(heat, mask):
    return ...

# %% solution="06.3"
def my_energy(heat, mask):
    large = F.interpolate(heat[None, None], mask.shape, mode="bilinear", align_corners=False)[0, 0]
    positive = large.relu()
    return positive[mask].sum() / positive.sum()

# %% mistake="06.3" says="the mask was shrunk"
def my_energy(heat, mask):
    small = F.interpolate(mask[None, None].double(), size=heat.shape, mode="nearest")[0, 0].bool()
    return heat.relu()[small].sum() / heat.relu().sum()

# %% mistake="06.3" says="negative cells count"
def my_energy(heat, mask):
    large = F.interpolate(heat[None, None], size=mask.shape, mode="bilinear", align_corners=False)[0, 0]
    return large.abs()[mask].sum() / large.abs().sum()

# %% mistake="06.3" says="before the map was resized"
def my_energy(heat, mask):
    large = F.interpolate(heat.relu()[None, None], size=mask.shape, mode="bilinear", align_corners=False)[0, 0]
    return large[mask].sum() / large.sum()

# %% mistake="06.3" says="how much of the mask"
def my_energy(heat, mask):
    large = F.interpolate(heat[None, None], size=mask.shape, mode="bilinear", align_corners=False)[0, 0]
    return (large[mask] > 0).double().mean()

# %% tags=["learn"]
check("06.3", my_energy)

# %% [markdown]
r"""
### Five seeds, all test images

A case is one label of one image. It is *difficult* if all objects of that class in the image are difficult. We measure two
maps for each network and seed: the class attention of that label (with ReLU), and the uncertainty map of the image. The
class attention is our positive control: if it does not find its object, the measure is broken.
"""

# %% tags=["report"]
FIVE = {"teacher": two_branch(0.1, network="small_wide"), "KD + distribution": distilled("KD + distribution"),
        "UD": distilled("UD")}
five = {name: [load_or_run(recipe) for recipe in recipes] for name, recipes in FIVE.items()}
GROUPS = ("easy", "difficult")


def measure(name, metric):
    """One localisation measure of all seeds; NaN where it does not exist."""
    return np.array([run.metrics["test"].get(metric, np.nan) for run in five[name]])

# %% tags=["report"]
table = {}
for name in five:
    for of_what in ("class", "uncertainty"):
        for group in GROUPS:
            metrics = {"pointing, %": f"{of_what}_pointing_{group}", "energy, %": f"{of_what}_energy_{group}",
                       "area, %": f"area_{group}"}
            table[name, f"{of_what} attention", group] = {words: 100 * measure(name, metric).mean()
                                                          for words, metric in metrics.items()}
pd.DataFrame(table).T.round(1)

# %% [markdown]
r"""
Class attention finds its objects: its energy is about three times the area. The uncertainty map is close to the area.

Before we compare the networks, we look at how good they are. A map of a network that has not learnt its classes explains
little.
"""

# %% tags=["report"]
def quality(of_runs):
    return {words: np.array([run.metrics["test"].get(key, np.nan) for run in of_runs])
            for words, key in (("mAP", "mAP"), ("ECE, pooled", "ECE_pooled"), ("true error, pooled", "true_CE_pooled"))}


levels = {name: quality(of_runs) for name, of_runs in {**five, "before UD": runs}.items()}
display(pd.DataFrame({name: {words: ranged(difference(values), 100, 1, "") for words, values in part.items()}
                      for name, part in levels.items()}).T)
costs = {words: difference(levels["UD"][words], levels["KD + distribution"][words]) for words in levels["UD"]}
say("The table is in per cent, with intervals over five seeds. UD minus KD + distribution: " + "; ".join(
    f"{words} {in_points(cost)}, **{cost.verdict}**" for words, cost in costs.items()) + ".")
assert profile() == "smoke" or costs["mAP"].mean < -0.15

# %% tags=["report"]
bars = {f"{kind} attention, {group}": [100 * (measure(name, f"{kind}_energy_{group}") - measure(name, f"area_{group}"))
                                       for name in five] for kind in ("class", "uncertainty") for group in GROUPS}
show(plots.interval_bars(list(five), bars, "energy minus area, points", "above chance by"),
     "Energy inside the boxes minus their area, of class and uncertainty attention, easy and difficult labels, three networks")

# %% tags=["report"]
excess = {(name, group): difference(measure(name, f"uncertainty_energy_{group}"), measure(name, f"area_{group}"))
          for name in five for group in GROUPS}
say("**Uncertainty attention, energy minus area:** " + "; ".join(
    f"{name}, {group} labels {in_points(change)}, **{change.verdict}**" for (name, group), change in excess.items()) + ".")
energy = measure("teacher", "uncertainty_energy_difficult")
assert_measured(100 * np.nanmean(measure("teacher", "area_difficult")), 7, 1)  # the chance level that the guess mentions
check_guess("energy in difficult labels' boxes", guess_energy, 100 * np.nanmean(energy), " %")
assert profile() == "smoke" or all(change.verdict == "higher" and change.mean < 0.05 for change in excess.values())

# %% tags=["report"]
empty = {}
for name, view in views.items():
    case = y.nonzero()
    class_maps = class_attention(nets[name].head, view[2][case[:, 0]], case[:, 1], nets[name].pooling, relu=False)
    empty[name] = (class_maps.amax((1, 2)) <= 0).double().mean().item()
assert all(0 <= part <= 1 for part in empty.values())
say("A class map whose cells are all negative is blank after the ReLU. It loses the pointing game and is left out of the "
    "energy. So the energy of a network with many blank maps describes only some of its labels. Their share among the labels "
    "of the first images, seed 0: " + ", ".join(f"{name} {percent(part)}" for name, part in empty.items()) + ".")

# %% [markdown]
r"""
The UD student is a much worse classifier here: its mAP is 20 points below that of KD + distribution. Lesson 07 asks why. The
uncertainty map of every network lies on the objects more than chance, by at most four points.

Does more of the map lie on difficult labels than on easy ones? Difficult objects are small, so their energy is lower
whatever the map does. We can compare *differences* from chance or *ratios* to chance. These are two questions, and the
answers may differ: a small box cannot exceed its area by many points, but it can exceed it by a large factor.
"""

# %% tags=["learn"]
def excess_of(name, group):
    return measure(name, f"uncertainty_energy_{group}") - measure(name, f"area_{group}")


def ratio_of(name, group):
    return measure(name, f"uncertainty_energy_{group}") / measure(name, f"area_{group}")

# %% tags=["report"]
hardness = {name: {f"energy {words} area, difficult minus easy": difference(of(name, "difficult"), of(name, "easy"))
                   for words, of in (("minus", excess_of), ("over", ratio_of))} for name in five}
display(pd.DataFrame({name: {q: f"{ranged(d)}, {d.verdict}" for q, d in part.items()} for name, part in hardness.items()}).T)
verdicts_of = {name: [change.verdict for change in part.values()] for name, part in hardness.items()}
assert profile() == "smoke" or verdicts_of == {"teacher": ["lower", "higher"], "KD + distribution": ["lower", "lower"],
                                               "UD": ["lower", "lower"]}

# %% [markdown]
r"""
For the teacher the two questions have opposite answers: by difference, less of the map lies on difficult labels; by ratio, more.
Whoever reports only one of them chooses the answer. For both students the ratio is lower too.

### A stricter chance level

The area is the chance level of a map that knows nothing. But objects stand mostly in the lower middle of our pictures, and a
map that always points there scores above the area without looking at the picture. So we also judge each map by the boxes of
**another** image. What remains of its score comes from the usual place of objects. We use the seed-0 networks and the first
1,000 images again.
"""

# %% tags=["report"]
cases = [(i, k) for i, k in y.nonzero().tolist()]
masks = torch.stack([box_mask([b for b in pictures.boxes(i) if b.name == pictures.classes[k]], pictures.image_size(i),
                              data.images.shape[-1]) for i, k in cases])
of, kind = (torch.tensor(part) for part in zip(*cases))
area, difficult = masks.double().mean((1, 2)), hard[of, kind]
other = torch.randperm(len(y), generator=torch.Generator().manual_seed(0)).roll(1)  # whose map is judged instead


def by_image(values, subset):
    """The mean over each image's cases in the subset, NaN where it has none: (N,)."""
    kept = subset & values.isfinite()
    total, count = (torch.zeros(len(y), dtype=torch.float64).index_add(0, of[kept], part.double()[kept]) for part in
                    (values, torch.ones_like(values)))
    return total / count

# %% tags=["report"]
own_and_other = {}
for group, subset in (("easy", ~difficult), ("difficult", difficult)):
    for words, sign in (("positive part", 1), ("negative part", -1)):
        own, habit = (energy_inside(sign * maps["teacher"][i], masks) for i in (of, other[of]))
        columns = {"area": area, "another image's map": habit, "own map": own, "own minus another's": own - habit}
        own_and_other[f"{words}, {group}"] = {what: over_images(by_image(values, subset)) for what, values in columns.items()}
own_and_other = pd.DataFrame(own_and_other).T
detected = own_and_other["own minus another's"].map(lambda value: value[1] > 0)
assert profile() == "smoke" or detected.tolist() == [name.startswith("negative") for name in detected.index]
own_and_other.map(lambda value: ranged(value, 100, 1, ""))

# %% [markdown]
r"""
The table is in per cent (the last column in points), for the teacher of seed 0, with intervals over images. For the
*positive* part, no difference between the image's own map and another image's map is detected. The *negative* part does
lie on the objects, above all on easy ones: there it is 11 points above another image's map. A negative cell brings the
heads closer together, so the map shows clear objects as places where the heads agree.

### Objects or background?

The simulated annotator leaves some objects unmarked (lesson 01). The truth file lists them too. So every pixel belongs to
one of four regions: an easy marked object, a difficult marked object, an unmarked object, or background. For each region
we divide its share of the map by its share of the picture. A ratio of 1 is chance.
"""

# %% tags=["report"]
truth, width = read_truth(pictures.root), data.images.shape[-1]
number = {name: i for i, name in enumerate(pictures.ids)}
boxes_of = {group: [[] for _ in pictures.ids] for group in ("easy", "difficult", "unmarked")}
for image, marked, clear, corners in zip(truth["ids"][truth["object_image"]], truth["object_marked"],
                                         truth["object_visibility"] >= DIFFICULT_BELOW, truth["object_box"]):
    if image in number:
        group = ("easy" if clear else "difficult") if marked else "unmarked"
        boxes_of[group][number[image]].append(Box("", *map(float, corners)))

# %% tags=["report"]
regions, covered = {}, torch.zeros(len(y), width, width, dtype=torch.bool)
for group, boxes_by_image in boxes_of.items():
    union = torch.stack([box_mask(boxes, pictures.image_size(i), width) for i, boxes in enumerate(boxes_by_image)])
    regions[group] = union & ~covered  # where boxes overlap, the first region counts
    covered |= union
regions["background"] = ~covered
assert torch.stack(list(regions.values())).sum(0).eq(1).all()  # each pixel in one region

# %% tags=["learn"]
def density(part, region):
    """A region's share of a map's positive part over its share of the picture."""
    share, space = energy_inside(part, region).double(), region.double().mean((1, 2))
    kept = (space > 0) & share.isfinite()  # the images that have this region
    share, space = share[kept], space[kept]
    if not len(share):
        return (np.nan,) * 3
    return bootstrap_interval(lambda i: share[i].sum() / space[i].sum(), len(share), 200)

# %% tags=["report"]
assert np.allclose(density(torch.ones_like(maps["teacher"]), regions["background"]), 1)  # a flat map is at chance everywhere
parts = {"positive part": maps["teacher"], "negative part": -maps["teacher"],
         "another image's positive part": maps["teacher"][other]}
densities = {words: np.array([density(part, region) for region in regions.values()]).T for words, part in parts.items()}
show(plots.estimates(list(regions), densities, "share of the map / share of the picture (1 = chance)", "teacher, seed 0"),
     "How much of the map's positive and negative part lies on easy, difficult and unmarked objects and on the background")

# %% tags=["report"]
def verdict(interval, level=1.0):
    return "more" if interval[1] > level else "less" if interval[2] < level else "not detected"


for words in ("positive part", "negative part"):
    columns = dict(zip(regions, densities[words].T))
    say(f"**{words.capitalize()}**, ratio to chance: " + "; ".join(
        f"{name} {ranged(c, digits=2, sign='')}, **{verdict(c)}**" for name, c in columns.items()) + ".")
share = {words: np.nanmean(energy_inside(part, regions["background"])) for words, part in list(parts.items())[:2]}
say(f"In all, {percent(share['positive part'])} of the positive part lies on the background, which is "
    f"{percent(regions['background'].double().mean().item())} of the picture.")

# %% [markdown]
r"""
Most of the positive part lies on the background. Objects get a little more of it than chance, unmarked objects most.

## 6. Before and after UD

Fig. 4 of the paper shows the uncertainty attention of a teacher, of a student trained without UD, and of a student trained
with it, for a few pictures. The paper says that the regions after UD meet expectations better. It gives no number. (Its
teacher is a self-distilled ResNet-101, its student another ResNet-101; our teacher and student differ in size.) We ask two
questions. Does the student's map become like the teacher's? And does it lie better on the objects?

For the first question we need a measure that does not depend on scale: the correlation of the two maps of one image over
their cells. It is what is left of Eq. 17 when both maps are standardised: then
$\|\tilde A_T - \tilde A_S\|^2 = 2hw\,(1 - r)$.
"""

# %% tags=["learn"]
def map_correlation(a, b):
    """Correlation of two maps of the same image over their cells, (N,); 0 for a flat map."""
    a, b = (part.flatten(1).double() for part in (a, b))
    a, b = (part - part.mean(1, keepdim=True) for part in (a, b))
    a, b = (F.normalize(part, dim=1, eps=1e-30) for part in (a, b))
    return (a * b).sum(1)

# %% tags=["report"]
a, b = maps["teacher"].double(), maps["before UD"].double()
steady = (a.flatten(1).std(1) > 1e-6) & (b.flatten(1).std(1) > 1e-6)  # without the flattest maps, where rounding errors dominate
assert torch.allclose(map_correlation(a, 3 * a + 1)[steady], torch.ones(1, dtype=torch.float64), atol=1e-4)
apart = attention_loss(a, b, normalize=True, reduction="none")
assert torch.allclose(apart.square()[steady], (2 * cells * (1 - map_correlation(a, b)))[steady], atol=1e-3)

# %% tags=["report"]
correlations = {name: map_correlation(maps["teacher"], part) for name, part in maps.items() if name != "teacher"}
averages = {name: over_images(values) for name, values in correlations.items()}
averages["another image's map"] = over_images(map_correlation(maps["teacher"], maps["teacher"][other]))
show(plots.estimates(list(averages), {"teacher": np.array(list(averages.values())).T}, "correlation with the teacher's map",
                     "seed 0, mean over images"),
     "Mean correlation of each student's uncertainty map with the teacher's, with intervals over images")

# %% [markdown]
r"""
The student before UD has never seen the teacher's answers. Its correlation is what two trainings on the same pictures have in
common. "KD + distribution" has learnt the teacher's answers (Eq. 13 and 14) but never saw a map. So the difference between it
and UD is the effect of the attention term. (Only the networks of seed 0 are stored. The intervals run over images, and say
nothing about other seeds.)
"""

# %% tags=["report"]
STEPS = {"UD minus before UD": ("UD", "before UD"), "KD + distribution minus before UD": ("KD + distribution", "before UD"),
         "UD minus KD + distribution": ("UD", "KD + distribution")}
steps = {words: over_images(correlations[a] - correlations[b]) for words, (a, b) in STEPS.items()}
direction = {words: "higher" if step[1] > 0 else "lower" if step[2] < 0 else "not detected" for words, step in steps.items()}
for words, step in steps.items():
    say(f"- {words}: correlation {ranged(step)}, **{direction[words]}**.")
assert profile() == "smoke" or list(direction.values()) == ["lower", "lower", "not detected"]

# %% tags=["report"]
columns = {name: maps[name] for name in ("teacher", "before UD", "KD + distribution", "UD")}
titles = [f"{'A' if i in rule_a else 'B'}, correlations\n" + ", ".join(f"{values[i]:.2f}" for values in correlations.values())
        for i in rows]
show(grid(columns, titles),
     "Uncertainty maps of the teacher, the student before UD, by KD + distribution and by UD, for six images by two rules")

# %% [markdown]
r"""
The attention term does not detectably change the correlation with the teacher's map. Both distilled students correlate with
it *less* than the student before UD does.

The numbers above each picture are the correlations with the teacher's map, in the order of the columns. The first three
pictures come from rule A, the others from rule B. What would Fig. 4 look like if somebody picked the pictures from a thousand?
Here are the image with the largest gain and the image with the largest loss. Each would make a fine figure, and neither is
evidence.
"""

# %% tags=["report"]
gain = correlations["UD"] - correlations["before UD"]
extremes = [int(gain.argmax()), int(gain.argmin())]
assert gain[extremes[0]] > 0 > gain[extremes[1]]  # both stories have a picture
titles = [f"{words}: {gain[i]:+.2f}" for words, i in zip(("largest gain", "largest loss"), extremes)]
show(grid(columns, titles, extremes),
     "The image where UD brings the map closest to the teacher's, and the image where UD moves it furthest away")

# %% [markdown]
r"""
### Does the map lie better on the objects?

We measure "meets expectations" as in section 5, on all test images and five seeds, paired. The first rows show what the
attention term adds. The others compare the UD student with its teacher. Remember the mAPs above.
"""

# %% tags=["report"]
rows_of = {}
for against in ("KD + distribution", "teacher"):
    for metric in ("uncertainty_energy", "uncertainty_pointing", "class_energy", "class_pointing"):
        for group in GROUPS:
            change = difference(measure("UD", f"{metric}_{group}"), measure(against, f"{metric}_{group}"))
            question = f"UD minus {against}", f"{metric.replace('_', ' ')}, {group}"
            rows_of[question] = {"difference": in_points(change), "verdict": change.verdict}
display(pd.DataFrame(rows_of).T)
verdicts = pd.Series([part["verdict"] for part in rows_of.values()])
say(f"Of {len(verdicts)} differences, " + ", ".join(f"{n} are *{word}*" for word, n in verdicts.value_counts().items())
    + f". If nothing had changed, about {len(verdicts) / 20:.1f} of the intervals would miss 0 by chance.")
assert profile() == "smoke" or "higher" not in verdicts.values

# %% tags=["report"]
above_area = {name: {group: over_images(by_image(energy_inside(part[of], masks) - area, subset)) for group, subset in
                     (("easy", ~difficult), ("difficult", difficult))} for name, part in maps.items()}
say("For the student before UD we have seed 0 only. Energy minus area, with intervals over images: " + "; ".join(
    f"{name} {in_points(part['easy'])} on easy and {in_points(part['difficult'])} on difficult labels"
    for name, part in above_area.items()) + ".")

# %% [markdown]
r"""
The answer is no: 14 of the 16 differences are lower, and none is higher.

## 7. Which images dominate Eq. 17?

$L_{att} = \|A_T - A_S\|$ compares raw maps. A map is a gradient times a feature. Where the heads agree, the KL and its
gradient are near zero, and so is the map. How much do the maps differ in size?
"""

# %% tags=["report"]
norms = {name: part.flatten(1).norm(dim=1).double() for name, part in maps.items()}
sizes = pd.DataFrame({name: {**{f"{q}th percentile": np.percentile(part, q) for q in (10, 50, 90, 99)},
                             "largest": part.max().item(), "rank correlation with the KL": rank_correlation(part, kl[name])}
                      for name, part in norms.items()}).T
same = maps["teacher"].double()
assert np.isclose(attention_loss(3 * same, same), 2 * norms["teacher"].mean(), rtol=1e-4)  # thrice the scale costs ‖2A‖
assert attention_loss(3 * same, same, normalize=True) < 1e-3  # standardised, the scale is gone
sizes.round(3)

# %% [markdown]
r"""
So the raw loss gives some images much more weight than others. We sort the images by what they add to the loss between the
teacher and the student before UD, and add up. The option `normalize=True` of our library standardises each map first.
"""

# %% tags=["report"]
losses = {name: attention_loss(maps["teacher"], maps["before UD"], normalize=flag, reduction="none").double()
          for name, flag in (("raw, Eq. 17", False), ("standardised", True))}
cumulative = {name: 100 * np.append(0, np.cumsum(np.sort(part)[::-1])) / part.sum().item() for name, part in losses.items()}
shares = 100 * np.arange(len(y) + 1) / len(y)
assert all(np.isclose(part[-1], 100) and part[len(y) // 2] >= 49 for part in cumulative.values())
show(plots.lines(shares, cumulative | {"all images alike": shares}, "per cent of the images, largest loss first",
                 "per cent of the loss", "which images dominate the attention loss", markers=False),
     "Cumulative share of the attention loss over the share of images, for raw and for standardised maps")

# %% tags=["report"]
tenths = {name: part[len(y) // 10] for name, part in cumulative.items()}
follows = {name: rank_correlation(part, kl["teacher"]) for name, part in losses.items()}
say("The tenth of the images with the largest loss makes up " + " and ".join(f"{tenths[name]:.0f} % of the loss ({name})" for name in losses)
    + ". The rank correlation of an image's loss with the teacher's KL is "
    + " and ".join(f"{follows[name]:+.2f} ({name})" for name in losses) + ".")

# %% [markdown]
r"""
A student can make the loss small in two ways: with a map like the teacher's, or with a small map. A student whose map is
zero everywhere has the loss $\|A_T\|$, whatever it has learned. So we compare every attention loss with that of a blank map.
(With standardised maps a blank map has the loss $\sqrt{hw}$, and a map without any correlation has $\sqrt{2hw}$.)
"""

# %% tags=["report"]
blank = torch.zeros_like(maps["teacher"])
rivals = {name: part for name, part in maps.items() if name != "teacher"} | {"a blank map": blank}
loss_to_teacher = {name: attention_loss(maps["teacher"], part, reduction="none").double() for name, part in rivals.items()}
assert torch.allclose(loss_to_teacher["a blank map"], norms["teacher"], rtol=1e-4)
display(pd.DataFrame({name: {"Eq. 17, mean": part.mean().item(), "median": part.median().item(),
                             "size of the map, median": rivals[name].flatten(1).norm(dim=1).median().item()}
                      for name, part in loss_to_teacher.items()}).T.round(3))
for name in ("before UD", "KD + distribution", "UD"):
    change = over_images(loss_to_teacher[name] - loss_to_teacher["a blank map"])
    word = "lower" if change[2] < 0 else "higher" if change[1] > 0 else "not detected"
    say(f"- {name} minus a blank map, Eq. 17: {ranged(change, digits=2)}, **{word}**.")
    assert profile() == "smoke" or word == "higher"

# %% [markdown]
r"""
All three students have a larger loss than a blank map. The UD student comes close to it, and its maps are the smallest by
far. So it has lowered Eq. 17 mainly by making its maps small.

Is it good that a few images dominate the loss? There are two views. The raw loss gives weight to the images where the
teacher's heads disagree, and a loss about uncertainty may want that. But it nearly ignores all other images. The
standardised loss gives every image the same weight. It asks the student to copy even a map that is almost zero and
consists mostly of rounding errors. Lesson 07 asks which of the two makes the better student.

## 8. Explore

Section 6 shows the maps of the six pictures side by side. Here you see one picture at a time. The middle panel shows the map.
The right panel shows what both heads say: the sigmoid, its softmax, and the calibration branch's softmax. Find a picture
where a sigmoid is near ½ and both softmaxes are near 0. (A frame is drawn when you first look at it, which takes a moment.)
"""

# %% tags=["report"]
from udlib.course.explorers import AttentionExplorer

networks = {"teacher": nets["teacher"], "before UD": nets["before UD"], "UD": nets["UD"], "baseline": plain}
explorer = AttentionExplorer(networks, pictures, rows, data.images.shape[-1])
assert explorer.value == (rows[0], "teacher", "uncertainty") and f"{kl['teacher'][rows[0]]:.3f} nats" in explorer.readout.value
explorer

# %% [markdown]
r"""
## 9. One more exercise

### Exercise 06.4

Find the chance level of the pointing game exactly, without a random draw. `maps` (N, H, W) and `masks` bool (N, H, W)
have the same size. Judge **every** map by the mask of every *other* image, and return the mean of these N (N − 1) hits.
"""

# %% exercise="06.4"
def my_chance(maps, masks):
    return ...

# %% solution="06.4"
def my_chance(maps, masks):
    highest = maps.flatten(1).argmax(1)
    hits = masks.flatten(1)[:, highest].double()  # (mask's image, map's image)
    return (hits.sum() - hits.diagonal().sum()) / (len(maps) * (len(maps) - 1))

# %% mistake="06.4" says="own mask"
def my_chance(maps, masks):
    highest = maps.flatten(1).argmax(1)
    return masks.flatten(1)[:, highest].double().mean()

# %% mistake="06.4" says="the area"
def my_chance(maps, masks):
    return masks.double().mean()

# %% mistake="06.4" says="score itself"
def my_chance(maps, masks):
    return pointing_game(maps, masks).double().mean()

# %% mistake="06.4" says="one pairing"
def my_chance(maps, masks):
    return pointing_game(maps.roll(1, 0), masks).double().mean()

# %% tags=["learn"]
check("06.4", my_chance)

# %% [markdown]
r"""
When yours is right, resize the teacher's maps to the picture, take the masks of the cases, and compare with the area and
with section 5.

### Exercise ★★★ (open): find the flaw

"Most of the positive part of our uncertainty maps lies inside the boxes of the objects. So the network is uncertain about the
objects, and its student should look there." The claim has a step about the place and one about the meaning. What would refute
each?

One point each:

1. You compare with a chance level that knows where objects tend to lie.
2. You ask what a map without any uncertainty in it would score.
3. You test uncertainty against something that is known to be uncertain.
4. You name a simple rival measure.

<details><summary>A worked answer</summary>

The place. The area is a first chance level. Objects tend to lie in the same region, so the strict level takes the map of
*another* picture. The mean of the feature map is a map as well, with no uncertainty in it.
If it scores as high, the boxes say nothing about uncertainty.

The meaning. The map shows where the two heads disagree, and the KL of two softmaxes misses a doubt that both heads share. In
`scenes` we know the posterior of each label. Which follows the entropy of the posterior over the pictures: the KL, or the entropy
of the sigmoids? For the place, compare objects with a posterior near ½ with sure ones of the same size. Only if the former get
more of the map does the map show *which* object is doubtful.

</details>

## Summary

- Grad-CAM weights channels by the mean gradient of a logit. For a linear head on average pooling the map, without ReLU,
  adds up to the logit minus the bias.
- Uncertainty attention replaces the logit by the KL of one network's two heads. It needs only the gradient to the pooled
  vector. More of the features of a positive cell would raise the disagreement; more of those of a negative cell would lower it.
- The KL of two softmaxes misses a doubt that both heads share, the level of the logits, and a doubtful label beside a sure one.
  Test a measure of uncertainty against something that is uncertain, and against simpler measures.
- A share inside a box needs a chance level. The area is a weak one, another image's map a strict one. Difficult objects are
  small: differences and ratios are two questions.
- Pictures chosen by hand prove nothing. State the rule first.
- With raw maps, the images with a large KL dominate the loss. With standardised maps, all images have the same weight. A
  student can lower the raw loss by making its map small, so compare it with the loss of a blank map.

What we found:

- The disagreement of the two heads follows an image's NLL only weakly (rank correlation 0.15). The entropy of the sigmoids is
  simpler, needs one head, and follows it much better (0.43).
- Class attention lies on the objects. The energy of the uncertainty attention is 2.5 to 2.8 points above the area for the
  teacher. Its positive part lies on the objects no more than another image's map does.
- Almost three quarters of the positive part lie on the background.
- The attention term of UD does not move the maps onto the objects. Seven of eight measures get lower.
- The attention term does not detectably change the correlation with the teacher's map (one seed).

The numbers behind these sentences:
"""

# %% tags=["report"]
for name in TWO:
    yards = ("NLL", "entropy of the posterior", "difficult labels")
    text = ", ".join(f"{t} {ranged(difference(rho[name][t]))}" for t in yards)
    say(f"- {name[0].upper() + name[1:]}, rank correlation over images: {text}.")
control = {group: difference(measure("teacher", f"class_energy_{group}"), measure("teacher", f"area_{group}"))
           for group in GROUPS}
for what, changes in (("Class", control), ("Uncertainty", {group: excess["teacher", group] for group in GROUPS})):
    say(f"- {what} attention of the teacher, energy minus area: " + ", ".join(f"{in_points(changes[g])} ({g})" for g in GROUPS) + ".")
text = "; ".join(f"{name} {in_points(value)}" for name, value in own_and_other["own minus another's"].items())
say(f"- The teacher's own map minus another image's, energy: {text}.")

# %% tags=["report"]
say(f"- {percent(share['positive part'])} of the positive part of the teacher's maps lies on the background.")
say("- Correlation with the teacher's map, seed 0: " + ", ".join(
    f"{name} {values.nanmean():.2f}" for name, values in correlations.items()) + ".")
by_term = {metric: part["verdict"] for (what, metric), part in rows_of.items() if what == "UD minus KD + distribution"}
say("- What the attention term changes: " + "; ".join(f"{m} **{w}**" for m, w in by_term.items()) + ".")
if profile() != "smoke":
    assert difference(rho[TWO[0]]["NLL"]).mean < 0.2 < 0.4 < difference(rho[TWO[1]]["NLL"]).mean
    assert share["positive part"] > 0.7 and sorted(by_term.values()) == 7 * ["lower"] + ["not detected"]
intervals = [len(YARDS) * (len(SCORES) + 1), 2 * len(stratified["KL of the heads"]), len(TWO), 1, len(aurocs) + 3, 12, 3,
             len(excess), 2 * len(five), own_and_other.size, 3 * len(regions), 4, len(steps), len(rows_of), 8]
say(f"- This lesson shows about {sum(intervals)} intervals. One in twenty misses the truth by chance. So trust what repeats over "
    "measures, networks and seeds, and not a single row.")

# %% [markdown]
r"""
Our networks are small, their maps have 8 × 8 cells, and our pictures are drawn by a program. The questions carry over to other
data; the numbers need not.

**Next.** The paper uses these maps to *teach*, not to find objects, and a map may teach well whatever it shows.
[Lesson 07](07_uncertainty_distillation.ipynb) adds the map to what a student learns, on photographs, and measures the student's
scores.

## Further reading

- L. Song et al., *Handling Difficult Labels for Multi-label Image Classification via Uncertainty Distillation*, ACM MM
  2021: section 4.3.2, Eq. 15 to 17, and Fig. 4.
- R. R. Selvaraju et al., *Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization*, ICCV 2017.
- B. Zhou et al., *Learning Deep Features for Discriminative Localization*, CVPR 2016: maps that add up to the logit.
- J. Zhang et al., *Top-down Neural Attention by Excitation Backprop*, ECCV 2016: the pointing game.
- H. Wang et al., *Score-CAM*, CVPR Workshops 2020: the energy-based pointing game.
- J. Adebayo et al., *Sanity Checks for Saliency Maps*, NeurIPS 2018: convincing maps of networks that know nothing.
- S. Zagoruyko and N. Komodakis, *Paying More Attention to Attention*, ICLR 2017: distilling attention maps.
- A. Malinin and M. Gales, *Predictive Uncertainty Estimation via Prior Networks*, NeurIPS 2018: kinds of uncertainty.
"""

# %% [markdown]
r"""
## Quiz

What do you know after this lesson?
"""

# %% tags=["report"]
from udlib.course.quizzes import quiz

quiz("06")
