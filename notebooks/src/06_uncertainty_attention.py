# %% [markdown]
r"""
# 06 · Uncertainty attention

[← 05 · Knowledge distillation](05_knowledge_distillation.ipynb) · [07 · Uncertainty distillation →](07_uncertainty_distillation.ipynb)

**Aim.** You will see where a network looks, and where its two heads disagree: the *uncertainty attention* of the paper
(UD). You will derive it, compute it without a pass to the feature map, and read its sign. Then you will measure two
things that pictures cannot show: whether the disagreement of the heads is a measure of uncertainty, and whether the map
lies where the uncertain things are.

**Prerequisites.** Lessons 03 and 04: the calibration branch, the known posterior, paired differences. The idea of a
teacher and its student: lesson 05.

**Time.** About two hours with the exercises. The cells run in a minute or two.
"""

# %% tags=["setup"]
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

# %% tags=["setup"]
from udlib.datasets import read_truth
from udlib.datasets.annotator import DIFFICULT_BELOW
from udlib.datasets.transforms import normalise
from udlib.course.store import arrays, dataset, load_model, load_or_run, profile
from udlib.course.recipes import baseline, distilled, two_branch
from udlib.statistics import bootstrap_interval
from udlib.course.sentences import difference, percent, say

# %% [markdown]
r"""
This lesson is about `scenes` alone: it needs boxes, difficult flags, and the posterior. As before, sentences with
numbers are written by code, a "point" is one per cent, and an interval covers 95 %.
"""

# %% tags=["setup"]
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

# %% tags=["setup"]
def over_images(values, samples=300):
    """Mean over images with its bootstrap interval; images where nothing could be measured are left out."""
    values = torch.as_tensor(values, dtype=torch.float64)
    values = values[values.isfinite()]
    return bootstrap_interval(lambda i: values[i].mean(), max(len(values), 1), samples) if len(values) else (np.nan,) * 3

# %% [markdown]
r"""
## 1. First, pictures, chosen by rule

Maps are seductive: among a thousand there is always one that shows what we hoped for. So we fix two rules before we
look. Rule A takes the three images where the heads of the teacher disagree most. Rule B draws three images at random,
with seed 0. We look at the first 1,000 test images and at five networks of seed 0.
"""

# %%
LOOK = 1000
MADE_BY = {"teacher": two_branch(0.1, network="small_wide")[0], "before UD": baseline().but(lam=0.1),
           "KD + distribution": distilled("KD + distribution")[0], "UD": distilled("UD")[0]}
nets = {name: load_model(chosen) for name, chosen in MADE_BY.items()}
plain = load_model(baseline())  # no calibration branch: class attention only
recipe = load_or_run(MADE_BY["before UD"]).recipe  # at the size of the profile
recipe = recipe.but(limit=min(LOOK, recipe.limit or LOOK))
pictures, data = dataset(recipe.data, "test", recipe.size, recipe.limit), arrays(recipe, "test")
y, hard = pictures.targets.double(), pictures.difficult

# %%
@torch.inference_mode()
def look(net):
    """Logits of both heads, the feature maps and the uncertainty maps of all images; copies, free of inference mode."""
    seen = [net(normalise(images)) for images in data.images.split(100)]
    kept = [torch.cat([getattr(part, name) for part in seen]) for name in ("logits", "calibration_logits", "features")]
    maps = uncertainty_attention(net.head, kept[2], net.pooling)
    return [part.clone() for part in (*kept, maps)]


views = {name: look(net) for name, net in nets.items()}
maps = {name: view[3] for name, view in views.items()}
kl = {name: softmax_kl(view[1], view[0], reduction="none") for name, view in views.items()}

# %%
rule_a = kl["teacher"].argsort(descending=True)[:3].tolist()
rule_b = np.random.default_rng(0).choice(len(y), 3, replace=False).tolist()
rows = rule_a + rule_b
logits, _, features, _ = views["teacher"]
top = logits.argmax(1)
of_class = class_attention(nets["teacher"].head, features, top, nets["teacher"].pooling, relu=False)
assert all(len(part) == len(y) == recipe.limit for part in (of_class, *maps.values()))

# %%
def title(i):
    rule, k = "A" if i in rule_a else "B", top[i]
    return f"{rule}: {pictures.classes[k]}, p = {logits[i, k].sigmoid():.2f}\nKL = {kl['teacher'][i]:.3f}"


def grid(columns, titles, rows=rows):
    """Pictures in rows, with the map of each column over them."""
    chosen = {name: [part[i] for i in rows] for name, part in columns.items()}
    return overlays.attention_grid([pictures.image(i) for i in rows], chosen, titles, [pictures.boxes(i) for i in rows])


show(grid({"attention of that class": of_class, "uncertainty attention": maps["teacher"]}, [title(i) for i in rows]),
     "Six test images by two rules, each beside the teacher's attention of its most probable class and its uncertainty map")

# %% [markdown]
r"""
Left, the picture with its boxes: solid for easy objects, dashed for difficult ones. In the middle, the evidence for the
most probable class. On the right, where the two heads disagree. Purple within solid lines is positive, green within
dashed lines negative; each map has its own scale. Is the uncertainty where you would have put it?

### Predict

Write three guesses. An image's *disagreement* is the KL between its two heads.
"""

# %%
guess_rank = ...  # rank correlation of the disagreement with the image's loss (NLL), between −1 and 1
guess_entropy = ...  # the same for a simple score: the entropy of the sigmoids
guess_energy = ...  # share of the uncertainty map that lies in a difficult label's boxes, per cent (chance: about 7)

# %% [markdown]
r"""
## 2. Attention of a class

Grad-CAM (Selvaraju et al., 2017) asks which cells of the last feature map $Z \in \mathbb{R}^{D \times h \times w}$ speak
for a class $k$. It weighs each channel by the mean gradient of the logit, and keeps what is positive:

$$\alpha_c = \frac{1}{hw} \sum_{h,w} \frac{\partial z_k}{\partial Z_{chw}}, \qquad
A_{hw} = \mathrm{ReLU}\Big( \sum_c \alpha_c Z_{chw} \Big)$$

Our classifier is linear on the mean of each channel, $z_k = b_k + \sum_c W_{kc} \bar Z_c$. So the gradient is
$W_{kc} / hw$ at every cell, and the map is a weighted sum of channels with the classifier's own weights.
"""

# %%
net, some = nets["teacher"], features[rows]
cells = some[0, 0].numel()
classifier = net.head.classification
by_hand = torch.einsum("nc,nchw->nhw", classifier.weight[top[rows]], some) / cells
assert torch.allclose(by_hand, of_class[rows], rtol=1e-3, atol=1e-4)
assert torch.allclose(class_attention(net.head, some, top[rows]), by_hand.relu(), rtol=1e-3, atol=1e-4)
sums, evidence = by_hand.sum((1, 2)), logits[rows, top[rows]] - classifier.bias[top[rows]]
assert torch.allclose(sums, evidence, rtol=1e-3, atol=1e-3)
pd.DataFrame({"sum of the map": sums.tolist(), "logit minus bias": evidence.tolist()},
             index=[f"image {i}" for i in rows]).round(2)

# %% [markdown]
r"""
Without the ReLU the map *adds up*: its cells share out the logit, less the bias. With the ReLU the cells that speak
against the class are hidden, and the sum is lost.

### Exercise 06.1

Write Grad-CAM without ReLU, for average pooling, through the **pooled** vector: pool, run the head, differentiate the
logit of class `k`, weigh the channels. `head(pooled)` gives the pair (logits, calibration logits). Return (N, h, w).
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

# %%
check("06.1", my_class_map)

# %% [markdown]
r"""
## 3. Attention of a disagreement

![Both branches answer from the same pooled features; the gradient of the KL divergence of their softmaxes gives each channel of the feature map a weight, and the weighted sum of the channels is the uncertainty map.](images/uncertainty_map.svg)

The paper puts another number in the place of the logit. One network has two heads on the same features; let $T^a$ be
the softmax of its calibration logits, $T^o$ the softmax of its classification logits. Then

$$w_c = \sum_{h,w} \frac{\partial\, \mathrm{KL}(T^a \,\|\, T^o)}{\partial Z_{chw}} \quad (15), \qquad
A_{hw} = \sum_c w_c Z_{chw} \quad (16)$$

Eq. 15 is printed with $T^a$ and $S^o_i$, the teacher's calibration head against the student's classifier. We read this
as a slip: the text speaks of the two branches of *one* network, and each network has a map of its own in Eq. 17. (It
also calls the classifier's output a distribution, so we take its softmax.) There is no mean, no ReLU and no
normalisation. Here it is literally, with a gradient at every cell.
"""

# %%
def pool(z, pooling):
    return z.mean((2, 3)) if pooling == "avg" else z.amax((2, 3))


def literal_map(head, z, pooling):
    """Eq. 15 and 16 as printed: full autograd to all D × h × w cells."""
    z = z.detach().clone().requires_grad_()
    logits, calibration_logits = head(pool(z, pooling))
    divergence = softmax_kl(calibration_logits, logits, reduction="none").sum()  # images do not mix: one sum for all
    gradient, = torch.autograd.grad(divergence, z)
    w = gradient.sum((2, 3))  # Eq. 15
    return torch.einsum("nc,nchw->nhw", w, z.detach()), w  # Eq. 16

# %% [markdown]
r"""
### No pass to the feature map is needed

Let $p_c$ be the pooled channel. By the chain rule, $\partial \mathrm{KL} / \partial Z_{chw} = (\partial \mathrm{KL} /
\partial p_c)\,(\partial p_c / \partial Z_{chw})$. For the mean, the last factor is $1/hw$ at each of the $hw$ cells. For
the maximum it is 1 at one cell and 0 elsewhere (ties share the 1). Either way it sums to one, and

$$\sum_{h,w} \frac{\partial \mathrm{KL}}{\partial Z_{chw}} = \frac{\partial \mathrm{KL}}{\partial p_c}.$$

So the gradient has to go through two small heads only, to $D$ numbers instead of $D \times h \times w$. We prove it
against the literal version, for both poolings.
"""

# %%
exact = net.head.double()
for pooling in ("avg", "max"):
    full, w = literal_map(exact, some.double(), pooling)
    p = pool(some.double(), pooling).requires_grad_()
    direct, = torch.autograd.grad(softmax_kl(*reversed(exact(p)), reduction="none").sum(), p)
    assert torch.allclose(direct, w, rtol=1e-6, atol=1e-9)  # the identity
    assert torch.allclose(uncertainty_attention(exact, some.double(), pooling), full, rtol=1e-6, atol=1e-9)
net.head.float()
print(f"{direct.numel() // len(rows)} gradients for each image instead of {some[0].numel():,}, and the same map")

# %% [markdown]
r"""
### What the sign says

For average pooling, $A_{hw} / hw = \sum_c Z_{chw}\, \partial \mathrm{KL} / \partial Z_{chw}$. That is a derivative with
a meaning: **turn up** all features of one cell by one per cent, and the KL changes by $0.01\, A_{hw}/hw$. At a positive
cell the heads then disagree more. At a negative cell they agree more: what stands there reconciles them. A test:
"""

# %%
def kl_with(z, cell, factor):
    """The KL of each image after the features of one cell were multiplied."""
    turned = z.clone()
    turned[:, :, cell[0], cell[1]] *= factor
    logits, calibration_logits = net.head(pool(turned, "avg"))
    return softmax_kl(calibration_logits, logits, reduction="none")


net.head.double()
slopes = (kl_with(some.double(), (3, 4), 1 + 1e-5) - kl_with(some.double(), (3, 4), 1 - 1e-5)) / 2e-5
expected = uncertainty_attention(net.head, some.double())[:, 3, 4] / cells
net.head.float()
assert torch.allclose(slopes, expected, rtol=1e-3, atol=1e-7)
pd.DataFrame({"change of the KL, measured": slopes.tolist(), "A / hw": expected.tolist()}, index=[f"image {i}" for i in rows])

# %%
signs = {name: {"positive cells, %": 100 * (part > 0).double().mean().item(),
                "maps without a positive cell": int((part.amax((1, 2)) <= 0).sum()),
                "maps without a negative cell": int((part.amin((1, 2)) >= 0).sum()),
                "KL, median": kl[name].median().item(), "KL, mean": kl[name].mean().item()} for name, part in maps.items()}
shown = pd.DataFrame(signs).T
assert shown["positive cells, %"].between(0, 100).all() and (shown["KL, mean"] >= 0).all()
shown.round(4)

# %% [markdown]
r"""
So "high attention" may mean two things, and a picture with one colour for "large" hides half of it. Keep both.

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

# %%
check("06.2", my_divergence)

# %% [markdown]
r"""
## 4. Is disagreement uncertainty?

The paper's reasoning: one head cares for accuracy, the other for calibration, so their difference shows which label the
network is uncertain about. Before we trust a map of the KL, we ask what the KL can see at all. Five small cases with
three classes, say cup, lamp and fish.
"""

# %%
def entropy(p):
    """Of independent labels, in nats: (N, C) → (N,)."""
    return (torch.special.entr(p) + torch.special.entr(1 - p)).sum(1)

# %%
CASES = {"sure, heads agree": ([9.0, -9.0, -9.0], [9.0, -9.0, -9.0]),  # calibration logits, logits
         "cup or lamp? both heads unsure": ([0.0, 0.0, -9.0], [0.0, 0.0, -9.0]),
         "calibration logits shifted by 5": ([5.0, 5.0, -4.0], [0.0, 0.0, -9.0]),
         "sure of the cup, unsure of the lamp": ([9.0, 1.0, -9.0], [9.0, 0.0, -9.0]),
         "sure of both, cup and lamp": ([9.0, 7.0, -9.0], [9.0, 9.0, -9.0])}
told = {}
for name, pair in CASES.items():
    c, z = (torch.tensor([part]) for part in pair)
    told[name] = {"KL of the heads": softmax_kl(c, z).item(), "entropy of the sigmoids": entropy(torch.sigmoid(z)).item()}
told = pd.DataFrame(told).T
assert (told["KL of the heads"].iloc[:4] < 0.001).all() and told["entropy of the sigmoids"].iloc[1] > 1.3
assert told["entropy of the sigmoids"].iloc[3] > 0.6 and told["KL of the heads"].iloc[4] > 0.3
assert told["entropy of the sigmoids"].iloc[4] < 0.01
told.round(4)

# %% [markdown]
r"""
Three reasons why the KL may miss what we are after, and one why it may find what we are not after.

- **Two heads can be unsure in the same way.** They stand on the same features. Lesson 03 found that PAL-N asks for
  another scale of the logits but for much the same ranking of the classes. Where both say ½, the KL is 0.
- **A softmax forgets the level.** Adding a constant to all logits changes nothing, though every sigmoid moves.
- **A softmax looks at the top.** Beside a label with logit 9, one with logit 0 has a softmax of a few ten-thousandths.
  Its sigmoid is ½, nothing could be less certain, and the KL does not feel it. A picture with several labels is just the
  case that this course is about.
- **Sure labels must share.** With two sure labels the softmax has to split its one among them. If the heads split it
  differently, the KL is large (last row), although nobody doubts anything.

Here is what the KL looks like over the images: for most of them it is next to nothing.
"""

# %%
runs = [load_or_run(chosen) for chosen in two_branch(0.1)]  # five seeds, both heads' logits on all test images
test = runs[0].labels()
targets, posterior = test.targets.double(), test.posterior.double()
divergence = [softmax_kl(run.test_calibration_logits.double(), run.test_logits.double(), reduction="none") for run in runs]
LEVELS = np.linspace(0, 100, 101)
curves = {f"seed {run.recipe.training.seed}": np.percentile(d, LEVELS) for run, d in zip(runs, divergence)}
show(plots.lines(LEVELS, curves, "per cent of the test images, sorted", "KL of the heads, nats", "two branches, λ = 0.1",
                 markers=False),
     "KL of the two heads against the share of images below it, five seeds: flat for most images, steep at the end")

# %%
largest = [d.sort(descending=True).values for d in divergence]
tenth = np.array([(d[:len(d) // 10].sum() / d.sum()).item() for d in largest])
assert (tenth > 0.1).all()
say(f"Median KL: {np.mean([d.median() for d in divergence]):.4f} nats, mean {np.mean([d.mean() for d in divergence]):.4f}, "
    f"largest {max(d.max() for d in divergence):.2f}. The tenth of the images with the largest KL holds {percent(tenth.mean())} "
    "of it (mean over five seeds).")
again, stored = views["before UD"][0].double(), runs[0].test_logits[:len(y)].double()
assert torch.corrcoef(torch.stack([again.flatten(), stored.flatten()]))[0, 1] > 0.98  # the network and its stored run agree

# %%
crowd = [[((run.probabilities() >= 0.9).sum(1)[chosen] >= 2).double().mean().item() for chosen in
          (d.argsort(descending=True)[:len(d) // 10], slice(None))] for run, d in zip(runs, divergence)]
crowd = difference(*np.array(crowd).T)
say(f"Images with two or more *sure* labels (sigmoid at least 0.9): their share in the tenth with the largest KL, minus "
    f"their share in all images, is {in_points(crowd)}, **{crowd.verdict}**.")

# %% [markdown]
r"""
### Against what it should follow

If the KL measures uncertainty, images with a large KL should be hard images. Hard by what? We take six yardsticks. The
annotator's own: the number of difficult labels, and the entropy of the posterior, which is the uncertainty that no network
can undercut. The network's: its NLL (Eq. 3) and its Brier score, summed over the classes. And the number of labels,
which Assumption 1 uses as a stand-in for difficulty. Last, the squared distance of the sigmoids to the posterior: the
error without the annotator's coin.

Beside the KL stand scores that need no second head: the entropy of the sigmoids, summed over the classes; 1 − the largest
sigmoid; and the entropy of the classifier's softmax. Each entry is Spearman's **rank correlation** over all test images.
"""

# %%
def scores_of(run, disagreement):
    p = run.probabilities()
    return {"KL of the heads": disagreement, "entropy of the sigmoids": entropy(p), "1 − largest sigmoid": 1 - p.amax(1),
            "entropy of the softmax": torch.special.entr(run.test_logits.double().softmax(1)).sum(1)}


def yardsticks_of(run):
    p = run.probabilities()
    nll = F.binary_cross_entropy_with_logits(run.test_logits.double(), targets, reduction="none").sum(1)
    return {"number of labels": targets.sum(1), "difficult labels": test.difficult.sum(1),
            "entropy of the posterior": entropy(posterior), "NLL": nll, "Brier score": (p - targets).square().sum(1),
            "distance to the posterior": (p - posterior).square().sum(1)}

# %%
all_scores = [scores_of(run, d) for run, d in zip(runs, divergence)]
all_yards = [yardsticks_of(run) for run in runs]
SCORES, YARDS = list(all_scores[0]), list(all_yards[0])
rho = {s: {t: np.array([rank_correlation(scores[s], yards[t]) for scores, yards in zip(all_scores, all_yards)])
           for t in YARDS} for s in SCORES}
found = {s: np.array([difference(rho[s][t])[:3] for t in YARDS]).T for s in SCORES}
show(plots.estimates(YARDS, found, "rank correlation over images (mean and interval over five seeds)"),
     "Rank correlation of four uncertainty scores with six yardsticks, mean and 95 % interval over five seeds")

# %%
def row(name):
    gap = difference(rho["KL of the heads"][name], rho["entropy of the sigmoids"][name])
    return {"KL of the heads": ranged(difference(rho["KL of the heads"][name])),
            "entropy of the sigmoids": ranged(difference(rho["entropy of the sigmoids"][name])),
            "KL minus entropy": ranged(gap), "verdict": gap.verdict}


display(pd.DataFrame({name: row(name) for name in YARDS}).T)
nll = [rho[s]["NLL"].mean() for s in ("KL of the heads", "entropy of the sigmoids")]
check_guess("rank correlation of the KL with the NLL", guess_rank, nll[0])
check_guess("rank correlation of the entropy with the NLL", guess_entropy, nll[1])

# %% [markdown]
r"""
Five networks judged on one and the same set of images: the intervals above hold the luck of training, not that of the
images. For seed 0 we resample the images. And one trap is left: NLL and entropy are sums over the classes, and both grow
with the number of labels. A score that merely counts objects would look good. So we also compare within groups of images
with equally many labels.
"""

# %%
def within(score, yard, groups):
    """Rank correlation among images of the same group, averaged with the groups' sizes; groups of 20 or more."""
    strata = [groups == g for g in groups.unique()]
    found = [(int(same.sum()), rank_correlation(score[same], yard[same])) for same in strata if same.sum() >= 20]
    found = [(n, r) for n, r in found if np.isfinite(r)]
    return np.average([r for _, r in found], weights=[n for n, _ in found]) if found else np.nan

# %%
counted, TWO = targets.sum(1), ("KL of the heads", "entropy of the sigmoids")
assert np.isnan(within(counted, all_yards[0]["NLL"], counted))  # a score that only counts has nothing left to say
assert np.isclose(within(all_yards[0]["NLL"], 2 * all_yards[0]["NLL"], counted), 1)
stratified = {s: {t: difference([within(scores[s], yards[t], counted) for scores, yards in zip(all_scores, all_yards)])
                  for t in YARDS[1:]} for s in TWO}
display(pd.DataFrame({s: {t: ranged(value) for t, value in part.items()} for s, part in stratified.items()}))

# %%
resampled = {s: bootstrap_interval(lambda i: rank_correlation(all_scores[0][s][i], all_yards[0]["NLL"][i]),
                                   len(counted), 300) for s in TWO}
say("Seed 0, intervals over resampled images, rank correlation with the NLL: " + "; ".join(
    f"{s} {ranged(value)}" for s, value in resampled.items()) + ".")
gaps = {t: difference(rho["KL of the heads"][t], rho["entropy of the sigmoids"][t]).verdict for t in YARDS[1:]}
words = {word: [t for t, v in gaps.items() if v == word] for word in ("lower", "higher", "not detected")}
say("Against the entropy of the sigmoids, the KL's rank correlation is " + "; ".join(
    f"**{word}** for {', '.join(names)}" for word, names in words.items() if names) + ".")

# %% [markdown]
r"""
### Which label?

The paper says more: the difference shows *which label* is uncertain. That is a claim about labels, so we ask each label.
The score is $|T^a_k - T^o_k|$, the distance of the two softmaxes. How well does it pick out the labels on which the
classifier is wrong (at ½)? We give the AUROC, the chance that a wrong label has a higher score than a right one; ½ is
chance. And among the *present* labels: does it pick out the difficult ones?
"""

# %%
def auroc(score, chosen):
    """Chance that a chosen entry has a higher score than another one; ties count half. NaN where a side is empty."""
    n, ranks = int(chosen.sum()), rankdata(score)
    rest = len(ranks) - n
    return (ranks[chosen.numpy()].sum() - n * (n + 1) / 2) / (n * rest) if n and rest else np.nan


assert auroc(torch.tensor([0.1, 0.4, 0.4, 0.9]), torch.tensor([False, False, True, True])) == 0.875


def label_scores(run):
    a, o, p = run.test_calibration_logits.double().softmax(1), run.test_logits.double().softmax(1), run.probabilities()
    return {"distance of the softmaxes": (a - o).abs(), "the larger softmax alone": torch.maximum(a, o),
            "entropy of the label's sigmoid": torch.special.entr(p) + torch.special.entr(1 - p)}

# %%
present, asked = targets.bool(), {}
for run in runs:
    wrong = (run.probabilities() >= 0.5) != present
    for name, score in label_scores(run).items():
        asked.setdefault((name, "wrong, among all labels"), []).append(auroc(score.flatten(), wrong.flatten()))
        asked.setdefault((name, "difficult, among present labels"), []).append(auroc(score[present], test.difficult[present]))
table = pd.Series({key: ranged(difference(values), sign="") for key, values in asked.items()}).unstack()
display(table.loc[list(label_scores(runs[0]))])
pair = {goal: difference(asked["distance of the softmaxes", goal], asked["entropy of the label's sigmoid", goal])
        for goal in table.columns}
say("Distance of the softmaxes against the label's own entropy: " + "; ".join(
    f"{goal}: {ranged(value)}, **{value.verdict}**" for goal, value in pair.items()) + ".")
extra = difference(*(asked[name, "wrong, among all labels"]
                     for name in ("distance of the softmaxes", "the larger softmax alone")))
say(f"And against the size of the softmax alone, which knows no disagreement: {ranged(extra)}, **{extra.verdict}**.")

# %% [markdown]
r"""
The middle row is the control. Most labels have a softmax near 0 in both heads and so no room to differ: a label that gets
any mass at all is more likely to be a wrong one. What the distance knows beyond this is the last sentence above.

**Think:** in section 1, rule A chose the images with the largest KL. Are these the images where you are uncertain?

<details><summary>Answer</summary>
Look at them again: many show objects that nobody would doubt. The KL is large where the two branches disagree, and they answer different
questions: one gives each label a probability, the other shares a single unit among the labels. They disagree where an
image has several labels, too.
</details>

## 5. Does the map lie where the objects are?

A weak score may still have a good map. We need numbers for "lies on". The usual two come from work on Grad-CAM:

- **Pointing game** (Zhang et al., 2016): does the highest cell lie inside the object's boxes?
- **Energy** (Wang et al., 2020): what share of the map's positive part lies inside?

The map is resized to the picture, the mask is the union of the boxes of one label. A tiny example, 2 × 2:
"""

# %%
tiny = torch.tensor([[[3.0, 1.0], [-8.0, 0.0]]])
mask = box_mask([Box("cup", 0, 0, 1, 2)], (2, 2), 2)[None]  # the left half of a picture of 2 × 2 pixels
assert mask[0].tolist() == [[True, False], [True, False]]
assert pointing_game(tiny, mask).tolist() == [True]  # 3 is the highest cell
assert energy_inside(tiny, mask).item() == 0.75  # 3 of 3 + 1; the −8 does not count
assert energy_inside(torch.ones(1, 2, 2), mask) == mask.double().mean() == 0.5  # a flat map scores the area
assert energy_inside(-tiny, mask) == 1.0  # the negative part, by a change of sign
energy_inside(tiny, mask), pointing_game(tiny, mask)

# %% [markdown]
r"""
Neither number means anything without its level of chance. A flat map's energy is the **area** of the mask; so is the
hit rate of a cell drawn at random. A large box is easy to hit.

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

# %%
check("06.3", my_energy)

# %% [markdown]
r"""
### Five seeds, all test images

A case is one label of one image. It is *difficult* if all objects of that class in the image are difficult. For each
network and seed the runs hold both measures, of the class attention of that very label (with ReLU) and of the image's
one uncertainty map. The class attention is our positive control: if even that does not find its object, the measure is
broken.
"""

# %%
FIVE = {"teacher": two_branch(0.1, network="small_wide"), "KD + distribution": distilled("KD + distribution"),
        "UD": distilled("UD")}
five = {name: [load_or_run(chosen) for chosen in recipes] for name, recipes in FIVE.items()}
GROUPS = ("easy", "difficult")


def measured(name, metric):
    """One localisation measure of all seeds; NaN where it could not be taken."""
    return np.array([run.metrics["test"].get(metric, np.nan) for run in five[name]])

# %%
table = {}
for name in five:
    for of_what in ("class", "uncertainty"):
        for group in GROUPS:
            metrics = {"pointing, %": f"{of_what}_pointing_{group}", "energy, %": f"{of_what}_energy_{group}",
                       "area, %": f"area_{group}"}
            table[name, f"{of_what} attention", group] = {words: 100 * measured(name, metric).mean()
                                                          for words, metric in metrics.items()}
pd.DataFrame(table).T.round(1)

# %% [markdown]
r"""
Before you compare networks, look at how good they are. A map of a network that has not learnt its classes explains
little. (What happens to the student's scores, and why, is the subject of lesson 07.)
"""

# %%
def quality(found):
    return {words: np.array([run.metrics["test"].get(key, np.nan) for run in found])
            for words, key in (("mAP", "mAP"), ("ECE, pooled", "ECE_pooled"), ("true error, pooled", "true_CE_pooled"))}


good = {name: quality(found) for name, found in {**five, "before UD": runs}.items()}
display(pd.DataFrame({name: {words: ranged(difference(values), 100, 1, "") for words, values in part.items()}
                      for name, part in good.items()}).T)
costs = {words: difference(good["UD"][words], good["KD + distribution"][words]) for words in good["UD"]}
say("Per cent, with intervals over five seeds. UD minus KD + distribution: " + "; ".join(
    f"{words} {in_points(cost)}, **{cost.verdict}**" for words, cost in costs.items()) + ".")

# %%
bars = {f"{kind} attention, {group}": [100 * (measured(name, f"{kind}_energy_{group}") - measured(name, f"area_{group}"))
                                       for name in five] for kind in ("class", "uncertainty") for group in GROUPS}
show(plots.interval_bars(list(five), bars, "energy minus area, points", "above chance by"),
     "Energy inside the boxes minus their area, of class and uncertainty attention, easy and difficult labels, three networks")

# %%
excess = {(name, group): difference(measured(name, f"uncertainty_energy_{group}"), measured(name, f"area_{group}"))
          for name in five for group in GROUPS}
say("**Uncertainty attention, energy minus area** (higher or lower than chance?): " + "; ".join(
    f"{name}, {group} labels {in_points(found)}, **{found.verdict}**" for (name, group), found in excess.items()) + ".")
energy = measured("teacher", "uncertainty_energy_difficult")
assert_measured(100 * np.nanmean(measured("teacher", "area_difficult")), 7, 1)  # the level of chance that the guess was told
check_guess("energy in difficult labels' boxes", guess_energy, 100 * np.nanmean(energy), " %")

# %%
empty = {}
for name, view in views.items():
    case = y.nonzero()
    found = class_attention(nets[name].head, view[2][case[:, 0]], case[:, 1], nets[name].pooling, relu=False)
    empty[name] = (found.amax((1, 2)) <= 0).double().mean().item()
assert all(0 <= part <= 1 for part in empty.values())
say("A class map whose cells are all negative is blank after the ReLU. It loses the pointing game and is left out of the "
    "energy, so a network with many such maps is judged by a selection. Their share among the labels of the first images, "
    "seed 0: " + ", ".join(f"{name} {percent(part)}" for name, part in empty.items()) + ".")

# %% [markdown]
r"""
Is there more of it on difficult labels than on easy ones? Mind how you ask. Difficult objects are small, so their energy
is lower whatever the map does. One may compare *differences* to chance, or *ratios*. These are two questions, and they
need not have the same answer: a small box cannot exceed its area by many points, but it can do so many times over.
"""

# %%
def excess_of(name, group):
    return measured(name, f"uncertainty_energy_{group}") - measured(name, f"area_{group}")


def ratio_of(name, group):
    return measured(name, f"uncertainty_energy_{group}") / measured(name, f"area_{group}")

# %%
hardness = {name: {f"energy {words} area, difficult minus easy": difference(of(name, "difficult"), of(name, "easy"))
                   for words, of in (("minus", excess_of), ("over", ratio_of))} for name in five}
display(pd.DataFrame({name: {q: f"{ranged(d)}, {d.verdict}" for q, d in part.items()} for name, part in hardness.items()}).T)
agree = all(len({found.verdict for found in part.values()}) == 1 for part in hardness.values())
say("The two ways of asking " + ("give the same verdicts here." if agree else "do **not** give the same verdicts here: whoever "
    "reports one of them alone has chosen the answer."))

# %% [markdown]
r"""
### A stricter chance level

"Area" is the chance level of a map that knows nothing. But a map can know a habit: objects stand in the lower middle of
our pictures, and attention that always points there scores without looking. The remedy is to judge each map by the
boxes of **another** image. What remains of the score is habit. For this we go back to the seed-0 networks and the first
1,000 images.
"""

# %%
cases = [(i, k) for i, k in y.nonzero().tolist()]
masks = torch.stack([box_mask([b for b in pictures.boxes(i) if b.name == pictures.classes[k]], pictures.image_size(i),
                              data.images.shape[-1]) for i, k in cases])
of, kind = (torch.tensor(part) for part in zip(*cases))
area, difficult = masks.double().mean((1, 2)), hard[of, kind]
other = torch.randperm(len(y), generator=torch.Generator().manual_seed(0)).roll(1)  # whose map is judged instead


def by_image(values, chosen):
    """The mean over each image's chosen cases, NaN where it has none: (N,)."""
    kept = chosen & values.isfinite()
    total, count = (torch.zeros(len(y), dtype=torch.float64).index_add(0, of[kept], part.double()[kept]) for part in
                    (values, torch.ones_like(values)))
    return total / count

# %%
judged = {}
for group, chosen in (("easy", ~difficult), ("difficult", difficult)):
    for words, sign in (("positive part", 1), ("negative part", -1)):
        own, habit = (energy_inside(sign * maps["teacher"][i], masks) for i in (of, other[of]))
        columns = {"area": area, "another image's map": habit, "own map": own, "own minus another's": own - habit}
        judged[f"{words}, {group}"] = {what: over_images(by_image(values, chosen)) for what, values in columns.items()}
judged = pd.DataFrame(judged).T
judged.map(lambda found: ranged(found, 100, 1, ""))

# %% [markdown]
r"""
In per cent (the last column in points), for the teacher of seed 0, with intervals over images. Look at the *negative*
rows as well. Evidence for a clear object brings both heads to the same answer, so there is a reason to expect the
negative part on easy objects: it says "here we agree".

### Objects, or what lies between?

The simulated annotator leaves some objects unmarked (lesson 01), and the truth file knows them. So every pixel belongs to
one of four regions: an easy marked object, a difficult marked one, an unmarked one, or background. Which region holds how
much of the map, against its area? A ratio of 1 is chance.
"""

# %%
truth, width = read_truth(pictures.root), data.images.shape[-1]
number = {name: i for i, name in enumerate(pictures.ids)}
drawn = {group: [[] for _ in pictures.ids] for group in ("easy", "difficult", "unmarked")}
for image, marked, clear, corners in zip(truth["ids"][truth["object_image"]], truth["object_marked"],
                                         truth["object_visibility"] >= DIFFICULT_BELOW, truth["object_box"]):
    if image in number:
        group = ("easy" if clear else "difficult") if marked else "unmarked"
        drawn[group][number[image]].append(Box("", *map(float, corners)))

# %%
regions, covered = {}, torch.zeros(len(y), width, width, dtype=torch.bool)
for group, found in drawn.items():
    union = torch.stack([box_mask(boxes, pictures.image_size(i), width) for i, boxes in enumerate(found)])
    regions[group] = union & ~covered  # where boxes overlap, the first region counts
    covered |= union
regions["background"] = ~covered
assert torch.stack(list(regions.values())).sum(0).eq(1).all()  # each pixel in one region

# %%
def density(part, region):
    """Share of a map's positive part in the region over the region's share of the picture, over images that have it."""
    share, space = energy_inside(part, region).double(), region.double().mean((1, 2))
    kept = (space > 0) & share.isfinite()
    share, space = share[kept], space[kept]
    if not len(share):
        return (np.nan,) * 3
    return bootstrap_interval(lambda i: share[i].sum() / space[i].sum(), len(share), 200)

# %%
assert np.allclose(density(torch.ones_like(maps["teacher"]), regions["background"]), 1)  # a flat map is at chance everywhere
parts = {"positive part": maps["teacher"], "negative part": -maps["teacher"],
         "another image's positive part": maps["teacher"][other]}
dense = {words: np.array([density(part, region) for region in regions.values()]).T for words, part in parts.items()}
show(plots.estimates(list(regions), dense, "share of the map / share of the picture (1 = chance)", "teacher, seed 0"),
     "How much of the map's positive and negative part lies on easy, difficult and unmarked objects and on the background")

# %%
def verdict(found, level=1.0):
    return "more" if found[1] > level else "less" if found[2] < level else "a difference is not detected"


for words in ("positive part", "negative part"):
    columns = dict(zip(regions, dense[words].T))
    say(f"**{words.capitalize()}** (more or less than chance?): " + "; ".join(
        f"{name} {ranged(c, digits=2, sign='')}, **{verdict(c)}**" for name, c in columns.items()) + ".")
share = {words: np.nanmean(energy_inside(part, regions["background"])) for words, part in list(parts.items())[:2]}
say(f"In all, {percent(share['positive part'])} of the positive part lies on the background, which is "
    f"{percent(regions['background'].double().mean().item())} of the picture.")

# %% [markdown]
r"""
## 6. Before and after UD

Fig. 4 of the paper shows a few pictures: the uncertainty attention of a teacher, of a student trained without UD, and of
one trained with it, and says that the regions then meet expectations better. There is no number beside it. (Its teacher
is a self-distilled ResNet-101, its student another ResNet-101; ours are of two sizes.) We ask two questions: does the
student's map become like the teacher's? And does it sit better?

For the first we need a measure that knows no scale: the correlation of the two maps of one image, cell by cell. It is
what is left of Eq. 17 when both maps are standardised: then $\|\tilde A_T - \tilde A_S\|^2 = 2hw\,(1 - r)$.
"""

# %%
def alike(a, b):
    """Correlation of two maps of the same image over their cells, (N,); 0 for a flat map."""
    a, b = (part.flatten(1).double() for part in (a, b))
    a, b = (F.normalize(part - part.mean(1, keepdim=True), dim=1, eps=1e-30) for part in (a, b))
    return (a * b).sum(1)


a, b = maps["teacher"].double(), maps["before UD"].double()
steady = (a.flatten(1).std(1) > 1e-6) & (b.flatten(1).std(1) > 1e-6)  # all but the flattest, where rounding rules
assert torch.allclose(alike(a, 3 * a + 1)[steady], torch.ones(1, dtype=torch.float64), atol=1e-4)
apart = attention_loss(a, b, normalize=True, reduction="none")
assert torch.allclose(apart.square()[steady], (2 * cells * (1 - alike(a, b)))[steady], atol=1e-3)

# %%
alikeness = {name: alike(maps["teacher"], part) for name, part in maps.items() if name != "teacher"}
found = {name: over_images(values) for name, values in alikeness.items()}
found["another image's map"] = over_images(alike(maps["teacher"], maps["teacher"][other]))
show(plots.estimates(list(found), {"teacher": np.array(list(found.values())).T}, "correlation with the teacher's map",
                     "seed 0, mean over images"),
     "Mean correlation of each student's uncertainty map with the teacher's, with intervals over images")

# %% [markdown]
r"""
The student before UD has never met the teacher: its correlation is what two trainings on the same pictures share. "KD +
distribution" has learnt the teacher's answers (Eq. 13 and 14) but never saw a map. So the last step, from there to UD, is
what the attention term itself does. (Only the networks of seed 0 are stored. The intervals run over images; they say
nothing about other seeds.)
"""

# %%
STEPS = {"UD minus before UD": ("UD", "before UD"), "KD + distribution minus before UD": ("KD + distribution", "before UD"),
         "UD minus KD + distribution": ("UD", "KD + distribution")}
steps = {words: over_images(alikeness[a] - alikeness[b]) for words, (a, b) in STEPS.items()}
for words, step in steps.items():
    say(f"- {words}: correlation {ranged(step)}, **{'higher' if step[1] > 0 else 'lower' if step[2] < 0 else 'not detected'}**.")

# %%
columns = {name: maps[name] for name in ("teacher", "before UD", "KD + distribution", "UD")}
said = [f"{'A' if i in rule_a else 'B'}, correlations\n" + ", ".join(f"{values[i]:.2f}" for values in alikeness.values())
        for i in rows]
show(grid(columns, said),
     "Uncertainty maps of the teacher, the student before UD, by KD + distribution and by UD, for six images by two rules")

# %% [markdown]
r"""
Above each picture are the correlations with the teacher's map, in the order of the columns. Three come from rule A,
three from rule B. Would Fig. 4 look the same if somebody had chosen from a thousand? We can tell: here are the largest
gain and the largest loss. Both make a fine figure, and neither says anything.
"""

# %%
gain = alikeness["UD"] - alikeness["before UD"]
extremes = [int(gain.argmax()), int(gain.argmin())]
assert gain[extremes[0]] > 0 > gain[extremes[1]]  # every story has its picture
titles = [f"{words}: {gain[i]:+.2f}" for words, i in zip(("largest gain", "largest loss"), extremes)]
show(grid(columns, titles, extremes),
     "The image whose map comes closer to the teacher's by UD more than any other, and the one whose map moves furthest away")

# %% [markdown]
r"""
### Does it sit better?

"Meets our expectations" can be measured as in section 5, on all test images and five seeds, paired. The first rows ask
what the attention term adds, the others compare the UD student with its teacher. Read them beside the mAPs above.
"""

# %%
rows_of = {}
for against in ("KD + distribution", "teacher"):
    for metric in ("uncertainty_energy", "uncertainty_pointing", "class_energy", "class_pointing"):
        for group in GROUPS:
            found = difference(measured("UD", f"{metric}_{group}"), measured(against, f"{metric}_{group}"))
            question = f"UD minus {against}", f"{metric.replace('_', ' ')}, {group}"
            rows_of[question] = {"difference": in_points(found), "verdict": found.verdict}
display(pd.DataFrame(rows_of).T)
verdicts = pd.Series([part["verdict"] for part in rows_of.values()])
say(f"{len(verdicts)} intervals: " + ", ".join(f"{n} *{word}*" for word, n in verdicts.value_counts().items())
    + f". If nothing had changed, about {len(verdicts) / 20:.1f} of them would miss 0 by chance.")

# %%
seated = {name: {group: over_images(by_image(energy_inside(part[of], masks) - area, chosen)) for group, chosen in
                 (("easy", ~difficult), ("difficult", difficult))} for name, part in maps.items()}
say("And the student before UD, for which only seed 0 can be asked (energy minus area, intervals over images): " + "; ".join(
    f"{name} {in_points(part['easy'])} on easy and {in_points(part['difficult'])} on difficult labels"
    for name, part in seated.items()) + ".")

# %% [markdown]
r"""
## 7. Which images does Eq. 17 listen to?

$L_{att} = \|A_T - A_S\|$ compares raw maps. A map is a gradient times a feature: where the heads agree, both the KL and
its gradient are near zero, and so is the map. How different are the sizes?
"""

# %%
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
So the raw loss weighs images, though nobody wrote a weight. Sort the images by what they add to the loss, between the
teacher and the student before UD, and add up. `normalize=True` standardises each map first, as an option of our library.
"""

# %%
losses = {name: attention_loss(maps["teacher"], maps["before UD"], normalize=flag, reduction="none").double()
          for name, flag in (("raw, Eq. 17", False), ("standardised", True))}
added = {name: 100 * np.append(0, np.cumsum(np.sort(part)[::-1])) / part.sum().item() for name, part in losses.items()}
shares = 100 * np.arange(len(y) + 1) / len(y)
assert all(np.isclose(part[-1], 100) and part[len(y) // 2] >= 49 for part in added.values())
show(plots.lines(shares, added | {"all images alike": shares}, "per cent of the images, largest loss first",
                 "per cent of the loss", "who dominates the attention loss", markers=False),
     "Cumulated share of the attention loss over the share of images, for raw and for standardised maps")

# %%
tenths = {name: part[len(y) // 10] for name, part in added.items()}
follows = {name: rank_correlation(part, kl["teacher"]) for name, part in losses.items()}
say("A tenth of the images makes up " + " and ".join(f"{tenths[name]:.0f} % of the loss ({name})" for name in losses)
    + ". Rank correlation of an image's loss with the teacher's KL: "
    + ", ".join(f"{follows[name]:+.2f} ({name})" for name in losses) + ".")

# %% [markdown]
r"""
One way to make the loss small is to have the teacher's map. Another is to have a small one: a student whose map is zero
everywhere pays $\|A_T\|$, whatever it knows. So an attention loss belongs beside that of a blank map. (For standardised
maps a blank one is no way out: it pays $\sqrt{hw}$, where a map without any correlation pays $\sqrt{2hw}$.)
"""

# %%
blank = torch.zeros_like(maps["teacher"])
compared = {name: part for name, part in maps.items() if name != "teacher"} | {"a blank map": blank}
paid = {name: attention_loss(maps["teacher"], part, reduction="none").double() for name, part in compared.items()}
assert torch.allclose(paid["a blank map"], norms["teacher"], rtol=1e-4)
display(pd.DataFrame({name: {"Eq. 17, mean": part.mean().item(), "median": part.median().item(),
                             "size of the map, median": compared[name].flatten(1).norm(dim=1).median().item()}
                      for name, part in paid.items()}).T.round(3))
for name in ("before UD", "KD + distribution", "UD"):
    saved = over_images(paid[name] - paid["a blank map"])
    said = "lower" if saved[2] < 0 else "higher" if saved[1] > 0 else "not detected to differ"
    say(f"- {name} against a blank map, Eq. 17: {ranged(saved, digits=2)}, **{said}**.")

# %% [markdown]
r"""
The weighing by images can be read in two ways. The raw loss listens to the images where the teacher's heads disagree, and that is what a
loss about uncertainty might want. Or: it listens to a few images, and to nothing else. The standardised loss gives every
image the same say, and asks the student to copy the map of an image even where the teacher's KL is a hair above zero and
its map is the shape of a rounding error. Which of the two makes the better student is a question for lesson 07.

## 8. Explore

At a glance first: the networks' maps of the six pictures stood in section 6. Now one frame at a time. The middle panel
shows the map, the right one what both heads say: the sigmoid, its softmax, and the calibration branch's softmax. Find a
picture where a sigmoid is near ½ and both softmaxes pass it over. (A frame is drawn when you first look at it, which
takes a moment, and kept.)
"""

# %%
from udlib.course.explorers import AttentionExplorer

shown = {"teacher": nets["teacher"], "before UD": nets["before UD"], "UD": nets["UD"], "baseline": plain}
explorer = AttentionExplorer(shown, pictures, rows, data.images.shape[-1])
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

# %%
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

The place. Objects may fill much of a picture, so the area is a first chance level. Objects tend to lie in the same region, so
the strict level takes the map of *another* picture. The mean of the feature map is a map as well, with no uncertainty in it.
If it scores as high, the boxes say nothing about uncertainty.

The meaning. The map shows where the two heads disagree, and the KL of two softmaxes misses a doubt that both heads share. In
`scenes` we know the posterior of each label. Which follows its entropy over the pictures: the KL, or the entropy of the
sigmoids? For the place, compare objects with a posterior near ½ with sure ones of the same size: only if the former get more
of the map does the map show *which* object is doubtful.

</details>

## Summary

- Grad-CAM weighs channels by the mean gradient of a logit. For a linear head on average pooling the map, without ReLU,
  adds up to the logit minus the bias.
- Uncertainty attention puts the KL of one network's two heads in the place of the logit. The gradient to the pooled
  vector is all it needs. A positive cell would raise the disagreement if it grew, a negative cell would lower it.
- The KL of two softmaxes sees neither shared doubt, nor the level of the logits, nor a doubtful label beside a sure one.
  Test a measure of uncertainty against something that is uncertain, and against simpler measures.
- A share inside a box means nothing without its chance level; the area is the weak one, another image's map the strict
  one. Difficult objects are small: differences and ratios are two questions.
- Pictures chosen by hand prove nothing. State the rule first.
- Raw maps weigh images by their KL; standardised maps weigh all alike. A raw loss can be lowered by shrinking the map, so
  compare it with that of a blank one.

What we found:

- The disagreement of the two heads follows an image's NLL only weakly. The entropy of the sigmoids, which is simpler and
  needs one head, follows it much better.
- Class attention lies on the objects. Uncertainty attention lies there only a little more than chance, and its positive part no
  more than another image's map does.
- Almost three quarters of the positive part lie on the background.
- The attention term of UD does not move any of these maps onto the objects. Most of them move away.

The numbers behind these sentences:
"""

# %%
for name in TWO:
    asked_of = ("NLL", "entropy of the posterior", "difficult labels")
    followed = ", ".join(f"{t} {ranged(difference(rho[name][t]))}" for t in asked_of)
    say(f"- {name[0].upper() + name[1:]}, rank correlation over images: {followed}.")
control = {group: difference(measured("teacher", f"class_energy_{group}"), measured("teacher", f"area_{group}"))
           for group in GROUPS}
for what, found in (("Class", control), ("Uncertainty", {group: excess["teacher", group] for group in GROUPS})):
    say(f"- {what} attention of the teacher, energy minus area: " + ", ".join(f"{in_points(found[g])} ({g})" for g in GROUPS) + ".")
habits = judged["own minus another's"]
said = "; ".join(f"{name} {in_points(found)}" for name, found in habits.items())
say(f"- The teacher's own map minus another image's, energy: {said}.")

# %%
say(f"- Background: {percent(share['positive part'])} of the positive part of the teacher's maps.")
say("- Correlation with the teacher's map, seed 0: " + ", ".join(
    f"{name} {values.nanmean():.2f}" for name, values in alikeness.items()) + ".")
added_by = {metric: part["verdict"] for (what, metric), part in rows_of.items() if what == "UD minus KD + distribution"}
say("- What the attention term does to where maps sit: " + "; ".join(f"{m} **{w}**" for m, w in added_by.items()) + ".")
if profile() != "smoke":
    assert difference(rho[TWO[0]]["NLL"]).mean < 0.2 < 0.4 < difference(rho[TWO[1]]["NLL"]).mean
    assert share["positive part"] > 0.7 and "higher" not in added_by.values()
intervals = [len(YARDS) * (len(SCORES) + 1), 2 * len(stratified["KL of the heads"]), len(TWO), 1, len(asked) + 3, 12, 3,
             len(excess), 2 * len(five), judged.size, 3 * len(regions), 4, len(steps), len(rows_of), 8]
say(f"- This lesson has drawn about {sum(intervals)} intervals. One in twenty misses by chance: trust what repeats over "
    "yardsticks, networks and seeds, not a single row.")

# %% [markdown]
r"""
Be fair. The paper uses these maps to *teach*, not to find objects, and a map may teach well whatever it shows: that is
measured by the student's scores, in lesson 07. Our networks are small, their maps have 8 × 8 cells, and our pictures are
drawn. What carries over is the list of questions.

## Further reading

- L. Song et al., *Handling Difficult Labels for Multi-label Image Classification via Uncertainty Distillation*, ACM MM
  2021: section 4.3.2, Eq. 15 to 17, and Fig. 4.
- R. R. Selvaraju et al., *Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization*, ICCV 2017.
- B. Zhou et al., *Learning Deep Features for Discriminative Localization*, CVPR 2016: maps that add up to the logit.
- J. Zhang et al., *Top-down Neural Attention by Excitation Backprop*, ECCV 2016: the pointing game.
- H. Wang et al., *Score-CAM*, CVPR Workshops 2020: the energy-based pointing game.
- J. Adebayo et al., *Sanity Checks for Saliency Maps*, NeurIPS 2018: convincing maps of networks that know nothing.
- S. Zagoruyko and N. Komodakis, *Paying More Attention to Attention*, ICLR 2017: attention as something to distil.
- A. Malinin and M. Gales, *Predictive Uncertainty Estimation via Prior Networks*, NeurIPS 2018: kinds of uncertainty.
"""
