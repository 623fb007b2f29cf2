# %% [markdown]
r"""
# 05 · Knowledge distillation: labels from a teacher

[← 04 · How calibrated? ECE and its traps](04_ece_analysis.ipynb) · [06 · Uncertainty attention →](06_uncertainty_attention.ipynb)

**Aim.** You will know what a soft label is, what it is worth, and why a teacher that has learned its pictures by heart
has little to say about them. You will derive the paper's distillation loss (Eq. 13), see what a temperature does to it
and what it does not, and measure, with error bars, what a student gains in accuracy *and* in calibration.

**Prerequisites.** Lessons 02 to 04: binary cross-entropy, paired differences, ECE and the known posterior, the branch.

**Time.** About two hours with the exercises. The cells run in a minute or two: networks are loaded, not trained.
"""

# %% tags=["setup"]
import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from udlib import calibration, posthoc
from udlib.figures import overlays, plots
from udlib.datasets.transforms import normalise
from udlib.course.exercises import check, check_choice, check_guess
from udlib.losses import bernoulli_kl, label_smoothing_loss, one_over_k_softmax_loss, ova_loss, pal_n_loss, softmax_kl
from udlib.metrics import mean_average_precision
from udlib.figures.plots import show
from udlib.statistics import bootstrap_interval, paired_difference
from udlib.course.sentences import difference, in_units, percent, say, spread, stored

# %% tags=["setup"]
from udlib.course.store import arrays, dataset, for_profile, load, load_model, load_or_run, profile
from udlib.course.recipes import SEEDS, SWEEP_SEEDS, TEACHERS, TEMPERATURES, baseline, hard_labels, pairs
from udlib.course.recipes import regimes, regimes_distilled, temperatures, two_branch

# %% [markdown]
r"""
This lesson is about `scenes`: its students, and the known posterior it needs, belong to that data set. Section 11
asks the same of photographs. As before, sentences with numbers are written by code, a "point" is one per cent, and
a difference between two recipes is paired by seed and comes with its 95 % t interval. Five seeds, unless a section
says three.
"""

# %% tags=["setup"]
METRICS = {"mAP": "mAP, %", "mAP_difficult": "mAP, Difficult, %", "ECE_pooled": "pooled ECE, %",
           "ECE": "class-wise ECE, %", "true_CE_pooled": "true error, pooled, %", "NLL": "NLL, nats"}
SCALE = {key: 1 if key == "NLL" else 100 for key in METRICS}
DIGITS = {key: 4 if key == "NLL" else 2 for key in METRICS}
drawn = []  # every interval that this lesson draws

# %% tags=["setup"]
def interval(found, scale=100, digits=2):
    """A difference with its 95 % interval, in points (with scale=1 in its own unit)."""
    drawn.append(found)
    return in_units(found, scale, digits, unit="")


def ready(recipes):
    """Whether these runs are stored; in the other profiles everything is trained on the spot."""
    return profile() != "course" or all(load(chosen) is not None for chosen in recipes)

# %% [markdown]
r"""
## 1. First, a picture

Three actors. The **teacher** is the wide network with the calibration branch at λ = 0.1. The **student** is the small
network of the baseline, and it never saw a label: it was trained on what the teacher says about the training images.
The **baseline** is the same small network, trained on the labels.

![The teacher was trained on hard labels before; now its sigmoids are the soft labels of the student, Eq. 13 compares them class by class, and the gradient goes to the student alone.](images/what_kd_hands_on.svg)

We look at validation images, which none of them was trained on. A rule chooses: the label that was marked most
against the odds, the one that was left out most against the odds, and the image whose labels are least certain. The
odds are the known posterior P(y = 1 | scene) of the simulated annotator (lesson 01).
"""

# %%
teachers = [load_or_run(chosen) for chosen in two_branch(0.1, network="small_wide")]
students = [load_or_run(chosen) for chosen in pairs()["small_wide", "small", "KD"]]
baselines = [load_or_run(chosen) for chosen in two_branch(0.0)]
val, test = baselines[0].labels("val"), baselines[0].labels("test")  # classes, targets, difficult, posterior
y, posterior = test.targets.double(), test.posterior.double()  # (N, C)
assert all(r.test_logits.shape == y.shape for r in (*teachers, *students, *baselines))

# %%
odds, marks = val.posterior.double(), val.targets.double()
(lucky, a), (missed, b) = (divmod((sign * (marks - odds)).argmax().item(), len(val.classes)) for sign in (1, -1))
unsure = (odds * (1 - odds)).sum(1).argmax().item()
chosen = {f"marked: {val.classes[a]}": lucky, f"left out: {val.classes[b]}": missed, "least certain": unsure}
pictures = dataset("scenes", "val", 64, baselines[0].recipe.limit)
given = [{"posterior": odds[i], "hard label": marks[i], "teacher": teachers[0].probabilities("val")[i],
          "student": students[0].probabilities("val")[i]} for i in chosen.values()]
show(overlays.answers([pictures.image(i) for i in chosen.values()], val.classes, given, list(chosen)),
     "Three validation images, each beside the posterior, the hard label, the teacher's and the student's probability")

# %% [markdown]
r"""
A **hard label** is 0 or 1. A **soft label** is a probability between them, here the teacher's sigmoid. Two pictures
with the same hard labels get different soft ones: the car in full view, and the car that is a grey smudge.

Where does the teacher side with the hard label, and where with the posterior? And the student, who has seen neither
these labels nor the teacher's answers to these images?

### Predict

The paper reports that distillation helps: on VOC2007, a ResNet-18 goes from 90.48 to 91.41 mAP with a ResNet-101 as its
teacher, on COCO from 75.60 to 76.05 (Table 3; its VOC baseline there is 90.48, in Tables 2 and 5 it is 88.91). It gives
no calibration. Write your guesses for our student; they are scored further down.
"""

# %%
guess_gain = ...  # mAP of the student minus mAP of the baseline, in points; for example -2
guess_ece = ...  # the student's pooled ECE, in per cent; lesson 04 measured the baseline's
guess_T = ...  # the temperature with the highest mAP: 1.0, 3.0 or 5.0

# %% [markdown]
r"""
## 2. What a label is worth

### Nearer to what?

A common explanation of distillation (Menon et al., 2021): *a good teacher gives you the posterior*. A hard label is one
throw of a coin with chance $\pi$ = P(y = 1). It is right on average, and noisy: $\mathbb{E}(y - \pi)^2 = \pi (1 - \pi)$.
A soft label has no coin in it. So we measure the mean squared distance to the posterior of the scene, on the test images.
"""

# %%
def distance(q):
    """Mean squared distance of labels or probabilities (N, C) to the posterior of the test scenes."""
    return ((q - posterior) ** 2).mean().item()


GROUPS = {"teacher": teachers, "student (KD)": students, "baseline": baselines}
near = {name: [distance(r.probabilities()) for r in found] for name, found in GROUPS.items()}
coin = calibration.expected_brier_floor(posterior)  # mean of π(1 − π)
error = ((y - posterior) ** 2).mean(1).std().item() / len(y) ** 0.5
assert abs(distance(y) - coin) < 5 * error  # a hard label is one throw of the coin
pd.DataFrame({"hard label": f"{distance(y):.4f}"} | {name: spread(values, 1, 4) for name, values in near.items()},
             index=["mean squared distance to the posterior"]).T

# %%
averages = {"hard label": distance(y)} | {name: np.mean(values) for name, values in near.items()}
found = difference(near["student (KD)"], near["baseline"])
say(f"Nearest to the posterior of the scene: the **{min(averages, key=averages.get)}**. The student minus the baseline: "
    f"{interval(found, 1, 4)}, **{found.verdict}**. The expected distance of a hard label is {coin:.4f}.")
assert min(averages, key=averages.get) == "hard label"

# %% [markdown]
r"""
The hard label is nearest, but do not throw the teacher away yet. The posterior of the *scene* knows what was drawn: the
cup behind the lamp is there or it is not. A picture of 64 × 64 pixels does not show all of it. What a network can learn
is the posterior **given the picture**, $\mathbb{E}[\pi \,|\, x]$. So a hard label carries two kinds of noise:

$$\mathrm{Var}(y \,|\, x) = \underbrace{\mathbb{E}[\pi (1 - \pi) \,|\, x]}_{\text{the annotator's coin}} +
\underbrace{\mathrm{Var}(\pi \,|\, x)}_{\text{what the picture does not show}}$$

A check by numbers: for pictures that look alike, three in ten scenes hold a cup with $\pi = 0.9$, the others hold none.
"""

# %%
share, chance = torch.tensor([0.3, 0.7]).double(), torch.tensor([0.9, 0.0]).double()  # of scenes that look alike
mean = share @ chance  # E[π | x], all that a network can say
parts = (share @ (chance * (1 - chance)), share @ (chance - mean) ** 2)
assert torch.isclose(sum(parts), mean * (1 - mean))  # the variance of y, which is Bernoulli(mean) for who sees x alone
print(f"variance of the label {mean * (1 - mean):.4f} = coin {parts[0]:.4f} + unseen {parts[1]:.4f}")

# %%
together = distance(torch.stack([r.probabilities() for r in teachers]).mean(0))
assert together <= np.mean(near["teacher"]) + 1e-9  # a mean of five is never farther than the five are on average
say(f"On the test images the annotator's coin is {coin:.4f}. What the pictures do not show is at most {together:.4f}: the "
    "distance of the five teachers' mean, which is the unseen part plus whatever these teachers get wrong. The posterior of "
    "the scene removes the first kind of noise from a label. A teacher, who sees only the picture, removes both, and adds "
    "errors of its own.")

# %% [markdown]
r"""
### Learning from three kinds of labels

Which label is the better one to *learn* from is a matter of experiment. A cheap one: the baseline's features of the
validation images stay fixed, and a linear head is trained on few of them, with one of three labels for the same pictures:
hard labels, the scene's posterior, or the probabilities of a teacher. None of the networks was trained on these images.
Each repetition draws other images and takes the teacher of another seed.
"""

# %%
network = load_model(baseline())


def pooled_features(split):
    """The baseline's pooled features (N, D) of the first 2,000 images of a split."""
    images = arrays(for_profile(baseline()), split).images[:2000]
    with torch.inference_mode():
        return torch.cat([network(normalise(part), calibration=False).pooled for part in images.split(250)]).clone()


features = {split: pooled_features(split) for split in ("val", "test")}
centre, width = features["val"].mean(0), features["val"].std(0) + 1e-6
features = {split: (x - centre) / width for split, x in features.items()}

# %%
def fit_head(x, labels, decay=0.01):
    """A linear head on features x (N, D), trained to the end on labels (N, C) between 0 and 1, with a little decay."""
    head = torch.nn.Linear(x.shape[1], labels.shape[1])
    torch.nn.init.zeros_(head.weight), torch.nn.init.zeros_(head.bias)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=50, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = F.binary_cross_entropy_with_logits(head(x), labels, reduction="none").sum(1).mean()
        (value + decay * head.weight.square().sum()).backward()
        return value + decay * head.weight.square().sum()

    optimizer.step(closure)
    return head

# %%
def judged(head):
    """mAP, pooled true error and NLL of a head on the test images."""
    q, n = torch.sigmoid(head(features["test"]).detach().double()), len(features["test"])
    return (mean_average_precision(q, y[:n], test.difficult[:n]),
            calibration.true_calibration_error(q, posterior[:n], average="pooled"), calibration.negative_log_likelihood(q, y[:n]))


def learned(rows, seed):
    """Scores of heads that learned from these validation images, by the kind of label."""
    labels = {"hard label": marks, "posterior": odds, "teacher": teachers[seed].probabilities("val")}
    return {name: judged(fit_head(features["val"][rows], q[rows].float())) for name, q in labels.items()}

# %%
generator = torch.Generator().manual_seed(5)
sizes = [n for n in (50, 100, 300, 900) if n < len(marks)]
by_label = {n: [learned(torch.randperm(len(marks), generator=generator)[:n], seed) for seed in SEEDS] for n in sizes}
SHOWN = {"mAP, %": (0, 100), "true error, pooled, %": (1, 100), "NLL, nats": (2, 1)}
scores = {title: {name: [[scale * scored[name][k] for scored in by_label[n]] for n in sizes] for name in by_label[sizes[0]][0]}
          for title, (k, scale) in SHOWN.items()}
show(plots.panels(sizes, scores, "labelled images"),
     "mAP, true error and NLL of heads trained on hard labels, on the posterior and on a teacher, against the number of images")

# %%
rows = {}
for n in sizes:
    for title in SHOWN:
        digits = 4 if "NLL" in title else 2
        values = {name: seeds[sizes.index(n)] for name, seeds in scores[title].items()}
        pairs_of = {"posterior − hard": ("posterior", "hard label"), "teacher − hard": ("teacher", "hard label"),
                    "teacher − posterior": ("teacher", "posterior")}
        found = {words: difference(values[a], values[b]) for words, (a, b) in pairs_of.items()}
        rows[n, title] = {words: f"{interval(each, 1, digits)} {each.verdict}" for words, each in found.items()}
pd.DataFrame(rows).T

# %% [markdown]
r"""
Read the table in steps.

- *posterior − hard* is the price of the annotator's coin: the same pictures, the same mean, less noise.
- *teacher − posterior* is the rest of the noise, minus the teacher's own errors. Where the teacher wins, the truth about
  the scene is a *worse* label than a network's opinion of the picture. The teacher also brings what it learned from
  2,000 images elsewhere.
- The intervals are over five repetitions. At the largest size these share nearly all their images, so there the intervals
  say little about other images.
- One choice was not made beforehand. The weight decay of `fit_head` was set after a look at two values, 0.001 and 0.01, on
  these test images. At the smaller one the teacher kept its lead for longer. So trust that the curves may cross, and not
  where they do. Change `decay` and see.
- Look at the true error as the number of images grows. Noise averages out with more images. The teacher's own
  miscalibration does not: it is a **bias**, and the head learns it.

So the sentence of this section becomes: *a good teacher gives you the posterior given the picture, and its own bias on
top*. Less variance for some bias is the trade of every soft label (Zhou et al., 2021; the paper's reference 53).
"""

# %%
def gap(n, name, against, title="true error, pooled, %"):
    return difference(*(scores[title][each][sizes.index(n)] for each in (name, against)))


for title in SHOWN:
    first, last = (gap(n, "teacher", "hard label", title) for n in (sizes[0], sizes[-1]))
    say(f"- {title}, teacher minus hard labels: {first.mean:+.3f} with {sizes[0]} images (**{first.verdict}**), "
        f"{last.mean:+.3f} with {sizes[-1]} (**{last.verdict}**).")

# %% [markdown]
r"""
## 3. A teacher and its training images

There is a catch. In that experiment the teacher had never seen the images that it labelled. In the usual protocol, the
paper's and ours, it labels the **training** images: those on which it was trained to say what the hard labels say. What
does it say there?
"""

# %%
training = arrays(for_profile(baseline()), "train")
learners = {"teacher": load_model(two_branch(0.1, network="small_wide")[0]), "baseline": network}


def on_training(model):
    """A network's probabilities for its own training images, (N, C)."""
    with torch.inference_mode():
        parts = [model(normalise(part), calibration=False).logits for part in training.images.split(250)]
    return torch.sigmoid(torch.cat(parts).double())


at_home = {name: on_training(model) for name, model in learners.items()}
away = {"teacher": teachers[0].probabilities("val"), "baseline": baselines[0].probabilities("val")}

# %%
hard, seen = training.targets.double(), dataset("scenes", "train", 64, baselines[0].recipe.limit).posterior.double()
places = {"its training images": (at_home, hard, seen), "new images (val)": (away, marks, odds)}
rows = {}
for name in learners:
    for place, (said, labels, chances) in places.items():
        q = said[name]
        rows[name, place] = {"NLL of the hard labels": calibration.negative_log_likelihood(q, labels),
                             "mean entropy, nats": torch.distributions.Bernoulli(q).entropy().mean().item(),
                             "below 0.01 or above 0.99, %": 100 * ((q < 0.01) | (q > 0.99)).double().mean().item(),
                             "distance to the posterior": ((q - chances) ** 2).mean().item()}
memory = pd.DataFrame(rows).T
memory.round(4)

# %%
floor = calibration.expected_nll_floor(seen)
for name in learners:
    lost = memory.loc[(name, "its training images"), "NLL of the hard labels"]
    word = "below" if lost < floor else "above"
    say(f"- The {name}'s NLL on its training images is {lost:.4f} nats, **{word}** {floor:.4f}, the floor for someone who knows "
        "the posterior of every scene." + (" Nobody can foresee a coin; whoever beats it has learned the throws by heart."
                                           if lost < floor else ""))

# %% [markdown]
r"""
Where the annotator's coin fell against the odds, we can watch that happen. Take labels by their posterior, and compare
what the teacher says where the coin came up 1 and where it came up 0. Someone who knows only the chances would say the
same in both cases.
"""

# %%
BANDS = {"5 to 30 %": (0.05, 0.3), "30 to 70 %": (0.3, 0.7), "70 to 95 %": (0.7, 0.95)}


def by_coin(q, labels, chances):
    """For each band of the posterior: mean answer where the coin fell on 1, and on 0."""
    inside = [(chances >= low) & (chances < high) for low, high in BANDS.values()]
    return {f"label {side}": [100 * q[band & (labels == side)].mean().item() for band in inside] for side in (1, 0)}


answers = {"teacher, training": by_coin(at_home["teacher"], hard, seen), "teacher, new": by_coin(away["teacher"], marks, odds),
           "baseline, training": by_coin(at_home["baseline"], hard, seen)}
names = [f"{who}, π {band}" for who in answers for band in BANDS]
sides = {side: [value for who in answers for value in answers[who][side]] for side in ("label 1", "label 0")}
show(plots.dots(names, sides, "mean probability, per cent", "the same chance, another throw of the coin"),
     "Mean probability where the label is 1 and where it is 0, for three bands of the posterior, on training and on new images")

# %%
split = {who: np.nanmean(np.subtract(sides["label 1"], sides["label 0"])) for who, sides in answers.items()}
say("Between a coin that fell on 1 and one that fell on 0, at like chances, the answers differ by "
    + ", ".join(f"{value:.0f} points ({who})" for who, value in split.items()) + ".")

# %% [markdown]
r"""
(On new images the gap should be small but not zero: posteriors vary within a band, and they go up with the label.)

So how much better than a hard label is the teacher's answer to a training image? Once more the distance to the
posterior, with an interval over images. One network, seed 0, whose training images we ask about.
"""

# %%
closer = {}
for name, q in at_home.items():
    change = ((q - seen) ** 2 - (hard - seen) ** 2).mean(1)
    closer[name] = bootstrap_interval(lambda images: change[images].mean(), len(change), samples=500)
    drawn.append(closer[name])
    word = "not detected" if closer[name].low <= 0 <= closer[name].high else "nearer" if closer[name].high < 0 else "farther"
    say(f"- The {name}'s answers minus hard labels, squared distance to the posterior on its training images: "
        f"{closer[name].estimate:+.4f} [{closer[name].low:+.4f}, {closer[name].high:+.4f}] (hard labels: "
        f"{((hard - seen) ** 2).mean():.4f}): **{word}**.")

# %% [markdown]
r"""
**Think:** the teacher is asked about the picture as it is and about its mirror image; both were in its training. How
could a teacher give answers about images that it was *not* trained on, without any new images?

<details><summary>Answer</summary>
Cross-fitting: split the training images into two halves, train one teacher on each, and let it label the other half. The price
is that each teacher has seen only half of the images.
</details>

## 4. Eq. 13, beside its line of code

The student's sigmoids $S_i$ are to say what the teacher's sigmoids $T_i$ say. Each label is a Bernoulli variable, and the
distance of two Bernoullis is their Kullback-Leibler divergence:

$$L'_b = \frac1C \sum_{i=1}^{C} \mathrm{KL}\big(T_i \,\|\, S_i\big), \qquad
\mathrm{KL}(p \,\|\, q) = p \log\frac{p}{q} + (1 - p) \log\frac{1 - p}{1 - q} \qquad \text{(Eq. 13)}$$

Two images, three classes, and a loop that leaves nothing out:
"""

# %%
t = torch.tensor([[2.0, -1.0, 0.5], [-0.5, 1.5, -2.0]], dtype=torch.float64)  # the teacher's logits (N, C)
s = torch.tensor([[0.4, -2.0, 0.6], [0.3, 0.2, -1.0]], dtype=torch.float64)  # the student's
by_loop = 0.0
for image in range(2):
    for label in range(3):
        p, q = torch.sigmoid(t[image, label]), torch.sigmoid(s[image, label])
        by_loop += (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()) / (2 * 3)
assert torch.isclose(bernoulli_kl(t, s), by_loop)
print(f"Eq. 13: {by_loop:.6f} nats")

# %% [markdown]
r"""
### KD is binary cross-entropy with soft labels

Take the divergence apart: $\mathrm{KL}(p \,\|\, q) = \big[-p \log q - (1 - p) \log (1 - q)\big] - H(p)$. The bracket is the
binary cross-entropy of lesson 02 with $p$ in place of $y$. The entropy $H(p)$ of the teacher does not depend on the student,
so it has no gradient. In one line:
"""

# %%
p = torch.sigmoid(t)
entropy = torch.distributions.Bernoulli(p).entropy().mean()
assert torch.isclose(bernoulli_kl(t, s), F.binary_cross_entropy_with_logits(s, p) - entropy)

z = s.clone().requires_grad_()
gradient, = torch.autograd.grad(bernoulli_kl(t, z, reduction="none").sum(), z)  # each image's own loss
assert torch.allclose(gradient, (torch.sigmoid(s) - torch.sigmoid(t)) / 3)  # (σ(s) − σ(t)) / C
soft, = torch.autograd.grad(F.binary_cross_entropy_with_logits(z, p, reduction="sum"), z)
assert torch.allclose(soft / 3, gradient)
pd.DataFrame(gradient.numpy(), ["image 1", "image 2"], ["class 1", "class 2", "class 3"]).round(4)

# %% [markdown]
r"""
The gradient is the difference of two probabilities, as it is for hard labels: $(\sigma(s) - y)$ has become $(\sigma(s) -
\sigma(t))$. Three things follow.

- If the teacher is sure, $\sigma(t) \to y$, and distillation *is* training on hard labels. No more is said.
- A hard label is satisfied by an infinite logit only: its pull grows weaker and never ends. A soft label ends at $s = t$.
  Beyond it, the student is pulled back. That may keep a student from becoming too sure.
- Eq. 13 takes the **mean** over classes, Eq. 3 (BCE) the **sum**. Side by side in one loss, they would differ by a factor
  $C$. Here they never stand side by side: the student sees no hard labels, and Adam does not feel a constant factor.
"""

# %%
targets = torch.tensor([[1, 0, 1], [0, 1, 0]])
certain = 40.0 * (2 * targets.double() - 1)  # a teacher that has no doubt and is always right
assert torch.isclose(3 * bernoulli_kl(certain, s), ova_loss(s, targets))  # C times Eq. 13 is Eq. 3


def descend(loss, optimiser, **options):
    """Where 50 steps on a loss lead the student's logits."""
    z = s.clone().requires_grad_()
    steps = optimiser([z], **options)
    for _ in range(50):
        steps.zero_grad()
        loss(z).backward()
        steps.step()
    return z.detach()

# %%
losses_of = {"Eq. 13": lambda z: bernoulli_kl(t, z), "C × Eq. 13": lambda z: 3 * bernoulli_kl(t, z)}
ends = {name: [descend(loss, optimiser, lr=0.05) for loss in losses_of.values()]
        for name, optimiser in (("Adam", torch.optim.Adam), ("SGD", torch.optim.SGD))}
apart = {name: (a - b).abs().max().item() for name, (a, b) in ends.items()}
assert apart["Adam"] < 1e-3 < apart["SGD"]
print("largest distance between the two ends:", {name: round(value, 5) for name, value in apart.items()})

# %% [markdown]
r"""
(One thing is not blind to the factor: clipping of the gradient at a fixed length, as in lesson 03. It bites less on the
smaller loss.)

**Which way round?** KL is not symmetric. KL(student ‖ teacher) has another gradient: it is multiplied by
$\sigma(s)(1 - \sigma(s))$, so it dies where the student is sure, and wrong:
"""

# %%
sure = torch.tensor([[8.0]], dtype=torch.float64, requires_grad=True)  # the student says 0.9997
doubts = torch.tensor([[-1.0]], dtype=torch.float64)  # the teacher says 0.27
forward, = torch.autograd.grad(bernoulli_kl(doubts, sure), sure)
backward, = torch.autograd.grad(bernoulli_kl(sure, doubts), sure)
assert forward > 0.7 and backward < 0.01
print(f"gradient of KL(teacher ‖ student): {forward.item():.4f}   of KL(student ‖ teacher): {backward.item():.4f}")

# %% [markdown]
r"""
## 5. A temperature

Hinton et al. (2015) divide both networks' logits by a temperature $T$ before they compare them, and multiply the loss by
$T^2$. UD does not write it, but its released code uses $T = 3$. In our loss:

$$T^2 \cdot \frac1C \sum_i \mathrm{KL}\big(\sigma(t_i/T) \,\|\, \sigma(s_i/T)\big)$$

What it does to a logit: at higher $T$, probabilities that were all "nearly 1" can be told apart again.
"""

# %%
axis = np.linspace(-10, 10, 101)
show(plots.lines(axis, {f"T = {T:g}": torch.sigmoid(torch.tensor(axis) / T).tolist() for T in TEMPERATURES}, "logit z",
                 "σ(z / T)", "a temperature flattens the sigmoid", markers=False),
     "The sigmoid of z over T for T = 1, 3 and 5: the higher T, the flatter the curve")
said = at_home["teacher"]
logits = torch.logit(said.clamp(1e-7, 1 - 1e-7))
flat = {T: torch.sigmoid(logits / T) for T in TEMPERATURES}
say("The teacher's mean entropy on its training images: " + ", ".join(
    f"{torch.distributions.Bernoulli(q).entropy().mean():.3f} nats at T = {T:g}" for T, q in flat.items()) + ".")

# %% [markdown]
r"""
Now what it does **not** do. At every $T$ the loss is 0 exactly where $s = t$. A student that matches its teacher matches
it at every temperature, so $T$ does not ask for softer answers. (The temperature of lesson 04 does: it divides the
logits when the network is *used*. Here the student is used at $T = 1$, whatever the loss did.) What changes is how much
each disagreement costs. The gradient:

$$\frac{\partial}{\partial s} = \frac{T}{C}\,\big(\sigma(s/T) - \sigma(t/T)\big)$$

One factor $1/T$ comes from the chain rule. The difference of two flattened sigmoids brings another. $T^2$ makes up for
both, and keeps the step's size comparable when $T$ changes.
"""

# %%
for T in (1.0, 3.0, 5.0):
    z = s.clone().requires_grad_()
    gradient, = torch.autograd.grad(bernoulli_kl(t, z, T, reduction="none").sum(), z)
    assert torch.allclose(gradient, T * (torch.sigmoid(s / T) - torch.sigmoid(t / T)) / 3)
    assert torch.isclose(bernoulli_kl(t, t, T), torch.tensor(0.0).double()) and bernoulli_kl(t, s, T) > 0
    print(f"T = {T:g}: gradient norm {gradient.norm():.4f}, without T² {gradient.norm() / T**2:.4f}")

# %% [markdown]
r"""
### Very hot: the logits themselves

For $T \to \infty$ the sigmoid is a straight line around ½ with slope ¼, and the divergence of two Bernoullis near ½ is
$2 (p - q)^2$. So with the factor $T^2$

$$T^2\, \mathrm{KL} \;\longrightarrow\; 2 T^2 \Big( \frac{t - s}{4 T} \Big)^2 = \tfrac18 (t - s)^2 .$$

At high temperature distillation is **regression on logits**. By numbers:
"""

# %%
limit = ((t - s) ** 2).mean().item() / 8
ratios = {T: bernoulli_kl(t, s, T).item() / limit for T in (1.0, 3.0, 5.0, 10.0, 30.0, 100.0)}
assert abs(ratios[100.0] - 1) < 1e-3 and abs(ratios[100.0] - 1) < abs(ratios[10.0] - 1) < abs(ratios[1.0] - 1)
print({f"{T:g}": round(ratio, 4) for T, ratio in ratios.items()})

# %%
student_logit, wanted = np.linspace(-2, 12, 57), 6.0  # the teacher says 0.998
pull = {f"T = {T:g}": (T * (torch.sigmoid(torch.tensor(student_logit) / T) - torch.sigmoid(torch.tensor(wanted / T)))).tolist()
        for T in TEMPERATURES} | {"limit": ((student_logit - wanted) / 4).tolist()}
show(plots.lines(student_logit, pull, "the student's logit s", "C × gradient", "the teacher's logit is 6", markers=False),
     "Gradient against the student's logit for T = 1, 3, 5 and the limit: flat near the teacher at T = 1, a line in the limit")

# %% [markdown]
r"""
At $T = 1$ logits of 4, 6 and 10 are the same to the loss: all mean *yes*. At $T = 5$ a student that says 10 where the
teacher says 6 is corrected, and one that says 4 is pulled up. So a hot loss passes on **how sure** the teacher is, and
with it, whatever is wrong with that.

**Think:** a teacher is overconfident on its training images. What do you expect of its student's calibration at high $T$?

<details><summary>Answer</summary>
It should get worse: a high temperature passes on how sure the teacher is, and so its overconfidence too. Section 8 measures
whether it does.
</details>

### Sigmoids are not a softmax

With a softmax (Eq. 14, next lessons), adding a constant to all logits of an image changes nothing. The limit is the same
squared difference, *centred*. Sigmoids have no such freedom: each logit's level is an answer.
"""

# %%
shifted, hot = t + 1.5, 1000.0
assert torch.isclose(softmax_kl(t, shifted), torch.tensor(0.0).double(), atol=1e-12) and bernoulli_kl(t, shifted) > 0.1
gap_of = t - s
centred = gap_of - gap_of.mean(1, keepdim=True)
assert torch.isclose(softmax_kl(t, s, hot), (centred**2).mean(1).mean() / 2, rtol=1e-2)
print(f"a shift of 1.5: softmax_kl {abs(softmax_kl(t, shifted)):.4f}, bernoulli_kl {bernoulli_kl(t, shifted):.4f}")

# %% [markdown]
r"""
### Exercise 05.1

Which class has the student not learned yet? Write Eq. 13 with a temperature for **each class**: logits of shape (N, C) come in,
and (C,) goes out, the mean over the images times $T^2$. It must be finite at logits of ±200, so work from `F.logsigmoid`, and a
gradient must be able to flow through it.
"""

# %% exercise="05.1"
def my_kl(teacher_logits, student_logits, T):
    return ...

# %% solution="05.1"
def my_kl(teacher_logits, student_logits, T):
    t, s = teacher_logits / T, student_logits / T
    present = torch.sigmoid(t) * (F.logsigmoid(t) - F.logsigmoid(s))
    absent = torch.sigmoid(-t) * (F.logsigmoid(-t) - F.logsigmoid(-s))  # log(1 − σ(z)) = log σ(−z)
    return T**2 * (present + absent).mean(0)

# %% mistake="05.1" says="the mean over the classes too"
def my_kl(teacher_logits, student_logits, T):
    return bernoulli_kl(teacher_logits, student_logits, T)

# %% mistake="05.1" says="one number for each image"
def my_kl(teacher_logits, student_logits, T):
    return bernoulli_kl(teacher_logits, student_logits, T, reduction="none")

# %% mistake="05.1" says="T² is missing"
def my_kl(teacher_logits, student_logits, T):
    t, s = teacher_logits / T, student_logits / T
    present = torch.sigmoid(t) * (F.logsigmoid(t) - F.logsigmoid(s))
    return (present + torch.sigmoid(-t) * (F.logsigmoid(-t) - F.logsigmoid(-s))).mean(0)

# %% mistake="05.1" says="runs the wrong way"
def my_kl(teacher_logits, student_logits, T):
    t, s = student_logits / T, teacher_logits / T
    present = torch.sigmoid(t) * (F.logsigmoid(t) - F.logsigmoid(s))
    return T**2 * (present + torch.sigmoid(-t) * (F.logsigmoid(-t) - F.logsigmoid(-s))).mean(0)

# %% mistake="05.1" says="Take the logs from"
def my_kl(teacher_logits, student_logits, T):
    p, q = torch.sigmoid(teacher_logits / T), torch.sigmoid(student_logits / T)
    return T**2 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean(0)

# %% mistake="05.1" says="cross-entropy"
def my_kl(teacher_logits, student_logits, T):
    soft = torch.sigmoid(teacher_logits / T)
    return T**2 * F.binary_cross_entropy_with_logits(student_logits / T, soft, reduction="none").mean(0)

# %% mistake="05.1" says="the softmax form of distillation"
def my_kl(teacher_logits, student_logits, T):
    p, log_q = (teacher_logits / T).softmax(1), (student_logits / T).log_softmax(1)
    return T**2 * F.kl_div(log_q, p, reduction="none").mean(0)

# %% mistake="05.1" says="the arguments of F.kl_div are swapped"
def my_kl(teacher_logits, student_logits, T):
    log_p, q = F.logsigmoid(teacher_logits / T), torch.sigmoid(student_logits / T)
    return T**2 * F.kl_div(log_p, q, reduction="none").mean(0)

# %% mistake="05.1" says="F.kl_div takes the *log*"
def my_kl(teacher_logits, student_logits, T):
    p, q = torch.sigmoid(teacher_logits / T), torch.sigmoid(student_logits / T)
    return T**2 * F.kl_div(q, p, reduction="none").mean(0)

# %% mistake="05.1" says="a squared error of logits"
def my_kl(teacher_logits, student_logits, T):
    return F.mse_loss(student_logits, teacher_logits, reduction="none").mean(0)

# %% mistake="05.1" says="teacher's logits only"
def my_kl(teacher_logits, student_logits, T):
    t, s = teacher_logits / T, student_logits
    present = torch.sigmoid(t) * (F.logsigmoid(t) - F.logsigmoid(s))
    return T**2 * (present + torch.sigmoid(-t) * (F.logsigmoid(-t) - F.logsigmoid(-s))).mean(0)

# %% mistake="05.1" says="no gradient can flow through a Python number"
def my_kl(teacher_logits, student_logits, T):
    return bernoulli_kl(teacher_logits, student_logits, T).item()

# %%
check("05.1", my_kl)

# %% [markdown]
r"""
## 6. What the student gained

Table 3 of the paper claims that a student of KD is better than the same network trained on labels. It gives mAP and
precision and recall, no error bars in that table, and no calibration. (CF1 and OF1 look swapped in places of part (b), and
its VOC baseline is the label-smoothing figure of Table 5, so read its gains with care.) Ours: five seeds, at $T = 1$, where
student, teacher and baseline of one seed go together.
"""

# %%
levels = {METRICS[key]: {name: spread(stored(found, key), SCALE[key], DIGITS[key]) for name, found in GROUPS.items()}
          for key in METRICS}
pd.DataFrame(levels).T

# %%
def compared(a, b):
    """Every metric of runs `a` minus that of `b`: text and verdict."""
    rows = {}
    for key, title in METRICS.items():
        found = difference(stored(a, key), stored(b, key))
        rows[title.replace(", %", ", points")] = {"difference": interval(found, SCALE[key], DIGITS[key]), "is": found.verdict}
    return pd.DataFrame(rows).T


pd.concat({"student − baseline": compared(students, baselines), "student − teacher": compared(students, teachers)}, axis=1)

# %%
gained, ece = difference(stored(students, "mAP"), stored(baselines, "mAP")), stored(students, "ECE_pooled").mean()
ahead = difference(stored(teachers, "mAP"), stored(baselines, "mAP"))
say(f"The student's mAP against the baseline: {interval(gained)} points, **{gained.verdict}**. The teacher's: "
    f"{interval(ahead)} points, **{ahead.verdict}**.")
if ahead.verdict == "higher":
    say(f"The student covers {percent(gained.mean / ahead.mean)} of the way from the baseline to its teacher.")
check_guess("gain in mAP", guess_gain, 100 * gained.mean, " points")
check_guess("the student's pooled ECE", guess_ece, 100 * ece, " %")

# %%
curves = {name: calibration.reliability_curve(found[0].probabilities(), y, average="pooled") for name, found in GROUPS.items()}
show(plots.reliability(curves, "test images, seed 0", smallest=20),
     "Reliability diagrams of teacher, student and baseline, seed 0")

# %% [markdown]
r"""
**Think:** in section 2 a head inherited the errors of its teacher's probabilities. Is this student as overconfident as its
teacher?

<details><summary>Answer</summary>
No: it is about three points less overconfident than its teacher, and less than the baseline too. Three things differ from
section 2. It learned on training images, where the teacher errs in another way (section 3). It is too small to learn them all by
heart. And a soft label says where to stop (section 4). Which of the three matters most, we have not tested.
</details>

A gain in mAP may have two causes: a softer label is a better label, or this particular teacher knows something. If the
student learned from *this* teacher, it should agree with it more than the baseline does, on images that neither was
trained on.
"""

# %%
apart = {name: [bernoulli_kl(taught.test_logits, r.test_logits).item() for taught, r in zip(teachers, found)]
         for name, found in (("student", students), ("baseline", baselines))}
others = [bernoulli_kl(taught.test_logits, r.test_logits).item() for taught, r in zip(teachers[1:] + teachers[:1], students)]
nearer, own = difference(apart["student"], apart["baseline"]), difference(apart["student"], others)
say(f"KL to the teacher on test images: student {spread(apart['student'], 1, 4)}, baseline {spread(apart['baseline'], 1, 4)}, "
    f"difference {interval(nearer, 1, 4)}: **{nearer.verdict}**.")
say(f"To its own teacher minus to the teacher of another seed: {interval(own, 1, 4)}: **{own.verdict}**. If that is lower, "
    "the student has learned from the one teacher it had, and not only to be a better network.")

# %% [markdown]
r"""
### Exercise 05.2

Did distillation help? `students` and `baselines` hold one mAP for each seed, as fractions, in the same order. Return the
ends of the **paired** 95 % t interval of students minus baselines, and a verdict: `"higher"`, `"lower"` or `"not detected"`.
SciPy's quantile: `student_t.ppf(0.975, n - 1)`.
"""

# %% tags=["setup"]
from scipy.stats import t as student_t

# %% exercise="05.2"
def my_verdict(students, baselines):
    return ..., ..., ...

# %% solution="05.2"
def my_verdict(students, baselines):
    d = np.subtract(students, baselines)
    half = student_t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / len(d) ** 0.5
    low, high = d.mean() - half, d.mean() + half
    return low, high, "higher" if low > 0 else "lower" if high < 0 else "not detected"

# %% mistake="05.2" says="not paired"
def my_verdict(students, baselines):
    a, b = np.asarray(students), np.asarray(baselines)
    half = student_t.ppf(0.975, 2 * len(a) - 2) * ((a.var(ddof=1) + b.var(ddof=1)) / len(a)) ** 0.5
    low, high = a.mean() - b.mean() - half, a.mean() - b.mean() + half
    return low, high, "higher" if low > 0 else "lower" if high < 0 else "not detected"

# %% mistake="05.2" says="1.96"
def my_verdict(students, baselines):
    d = np.subtract(students, baselines)
    half = 1.96 * d.std(ddof=1) / len(d) ** 0.5
    low, high = d.mean() - half, d.mean() + half
    return low, high, "higher" if low > 0 else "lower" if high < 0 else "not detected"

# %% mistake="05.2" says="n − 1"
def my_verdict(students, baselines):
    d = np.subtract(students, baselines)
    half = student_t.ppf(0.975, len(d) - 1) * d.std() / len(d) ** 0.5
    low, high = d.mean() - half, d.mean() + half
    return low, high, "higher" if low > 0 else "lower" if high < 0 else "not detected"

# %% mistake="05.2" says="√n times"
def my_verdict(students, baselines):
    d = np.subtract(students, baselines)
    half = student_t.ppf(0.975, len(d) - 1) * d.std(ddof=1)
    low, high = d.mean() - half, d.mean() + half
    return low, high, "higher" if low > 0 else "lower" if high < 0 else "not detected"

# %% mistake="05.2" says="mean alone"
def my_verdict(students, baselines):
    found = paired_difference(students, baselines)
    return found.low, found.high, "higher" if found.mean > 0 else "lower"

# %% mistake="05.2" says="n − 1 degrees of freedom, not n"
def my_verdict(students, baselines):
    d = np.subtract(students, baselines)
    half = student_t.ppf(0.975, len(d)) * d.std(ddof=1) / len(d) ** 0.5
    low, high = d.mean() - half, d.mean() + half
    return low, high, "higher" if low > 0 else "lower" if high < 0 else "not detected"

# %% mistake="05.2" says="a bootstrap of the differences"
def my_verdict(students, baselines):
    d = np.subtract(students, baselines)
    draws = np.random.default_rng(0).choice(d, (2000, len(d))).mean(1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return low, high, "higher" if low > 0 else "lower" if high < 0 else "not detected"

# %% mistake="05.2" says="convert it to an array first"
def my_verdict(students, baselines):
    d = students - baselines
    half = student_t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / len(d) ** 0.5
    return d.mean() - half, d.mean() + half, "not detected"

# %% mistake="05.2" says="the PairedDifference itself"
def my_verdict(students, baselines):
    return paired_difference(students, baselines)

# %%
check("05.2", my_verdict)

# %% [markdown]
r"""
## 7. When the teacher has nothing to say

By section 4, a teacher that is sure of everything teaches hard labels. So a teacher that has memorised its training
images completely should be worth nothing, however good it is on new ones. The test: train teacher, student and baseline
once more, all without any augmentation. How well do the teachers know their images by heart? Their last training
loss, in nats for each label, tells. The third regime goes the other way: CutOut, which leaves little to overfit.
"""

# %%
REGIMES = {regime: found for (regime, lam), found in regimes().items() if lam == 0}
wanted = {(regime, who): regimes_distilled()[regime, who] for regime in REGIMES for who in ("teacher", "KD")}
wanted |= {(regime, "baseline"): recipes for regime, recipes in REGIMES.items()}
trained = [regime for regime in REGIMES if all(ready(recipes) for (of, _), recipes in wanted.items() if of == regime)]
taught = {key: [load_or_run(chosen) for chosen in recipes] for key, recipes in wanted.items() if key[0] in trained}
assert [r.recipe for r in taught["flips", "KD"]] == [r.recipe for r in students]  # the course's regime
for regime in [regime for regime in REGIMES if regime not in trained]:
    say(f"Still to be trained, by `udlib runs --only 'regimes/{regime}*'`: *{regime}*. The tables below leave it out.")

# %%
last = {regime: [r.history[-1]["ova"] / len(test.classes) for r in taught[regime, "teacher"]] for regime in trained}
say("The teachers' last training loss (BCE), in nats for each label: " + ", ".join(
    f"{spread(values, 1, 4)} ({regime})" for regime, values in last.items()) + f". The posterior's floor is {floor:.4f}.")
OTHERS = [regime for regime in trained if regime != "flips"]
for regime in OTHERS:
    memorised = difference(last[regime], last["flips"])
    say(f"{regime[0].upper() + regime[1:]} minus flips: {interval(memorised, 1, 4)} nats, **{memorised.verdict}**.")

# %%
WHO = ("baseline", "KD", "teacher")
panels = {title: {who: [SCALE[key] * stored(taught[regime, who], key) for regime in trained] for who in WHO}
          for key, title in METRICS.items()}
panels = {title: found for title, found in panels.items() if np.isfinite(list(found.values())).all()}
show(plots.panels(trained, panels, ""),
     "Six scores of baseline, KD student and teacher in each regime of training, with 95 % intervals over seeds")

# %%
pd.concat({f"{regime}: KD − baseline": compared(taught[regime, "KD"], taught[regime, "baseline"]) for regime in trained}, axis=1)

# %% [markdown]
r"""
Two verdicts side by side are not a comparison: one may be detected and the other not, and still the two effects may be
the same. The question is whether the *gain* differs, so we take the difference of the differences, seed by seed.
"""

# %%
for key, title in METRICS.items():
    gains = {regime: stored(taught[regime, "KD"], key) - stored(taught[regime, "baseline"], key) for regime in trained}
    for regime in OTHERS:
        found = difference(gains["flips"], gains[regime])
        unit = "nats" if key == "NLL" else "points"
        say(f"- {title.removesuffix(', %').removesuffix(', nats')}: the change by KD with flips, minus that with {regime}: "
            f"{interval(found, SCALE[key], DIGITS[key])} {unit}, **{found.verdict}**")

# %% [markdown]
r"""
**Think:** how would you tell "the teacher is too sure on its training images" from "the teacher is simply worse"?

<details><summary>Answer</summary>
Change one thing at a time. Keep the teacher, and let it label images that it was not trained on, as in section 2. Or keep the
images, and soften its answers with a temperature, which comes next.
</details>

## 8. The temperature, measured

Eq. 13 at $T \in \{1, 3, 5\}$, from a wide teacher and from one of the student's own size, three seeds. ($T = 1$ of the
wide teacher are the first three students of section 6.) Dotted: the baseline of the same three seeds.
"""

# %%
grid = {teacher: [recipes for (who, _), recipes in temperatures().items() if who == teacher] for teacher in TEACHERS}
whole = [teacher for teacher, found in grid.items() if ready(sum(found, []))]  # trained at every T
by_T = {key: [load_or_run(chosen) for chosen in recipes] for key, recipes in temperatures().items() if key[0] in whole}
beside = baselines[: len(SWEEP_SEEDS)]
for teacher in set(TEACHERS) - set(whole):
    say(f"Still to be trained, by `udlib runs --only 'temperature/{teacher},*'`: the students of *{teacher}*.")
if TEACHERS[0] in whole:
    assert [r.recipe for r in by_T["small_wide", 1.0]] == [r.recipe for r in students[: len(SWEEP_SEEDS)]]

# %%
panels = {title: {teacher: [SCALE[key] * stored(by_T[teacher, T], key) for T in TEMPERATURES] for teacher in whole}
          for key, title in METRICS.items()}
panels = {title: found for title, found in panels.items() if np.isfinite(list(found.values())).all()}
dotted = {METRICS[key]: {"baseline": SCALE[key] * stored(beside, key).mean()} for key in METRICS}
show(plots.panels(list(TEMPERATURES), panels, "temperature T", dotted),
     "Six scores of KD students against the temperature, for each teacher, with 95 % intervals over three seeds")

# %%
def against_one(teacher, T):
    return compared(by_T[teacher, T], by_T[teacher, 1.0])


pd.concat({(teacher, f"T = {T:g} − T = 1"): against_one(teacher, T) for teacher in whole for T in TEMPERATURES[1:]}, axis=1).T

# %% [markdown]
r"""
What does $T$ do to the student's calibration? One number says in which direction it errs: the temperature that lesson 04
would fit to the *finished* student on validation. Above 1 it is too sure, below 1 too timid. This is another temperature
than the one in the loss.
"""

# %%
def fitted(r):
    return posthoc.fit_temperature(r.val_logits, r.labels("val").targets).temperatures[0]


repairs = {f"{teacher}, T = {T:g}": [fitted(r) for r in by_T[teacher, T]] for teacher in whole for T in TEMPERATURES}
repairs |= {"baseline": [fitted(r) for r in beside], "teacher": [fitted(r) for r in teachers[: len(beside)]]}
show(plots.seed_intervals(repairs, "temperature fitted on validation", "how sure are the students? three seeds"),
     "Temperature fitted on validation to students at three T, to the baseline and to the wide teacher, three seeds")

# %%
rows = {}
for name, found in {**{f"{who}, T = {T:g}": by_T[who, T] for who in whole for T in TEMPERATURES}, "baseline": beside}.items():
    repaired = [r.recalibrated("temperature") for r in found]
    rows[name] = {"pooled ECE, %": spread(stored(found, "ECE_pooled")),
                  "after repair, %": spread([calibration.expected_calibration_error(q, y, average="pooled") for q in repaired]),
                  "NLL": spread(stored(found, "NLL"), 1, 4),
                  "NLL after repair": spread([calibration.negative_log_likelihood(q, y) for q in repaired], 1, 4)}
pd.DataFrame(rows).T

# %% [markdown]
r"""
The last column is what a student knows once its sureness has been set right: one number, fitted on validation, the same
chance for everybody.

Which $T$ should one take? Not the best on the test images. Validation chooses, by mAP and by NLL, and the test images
judge what it chose.
"""

# %%
for metric, pick in (("mAP", max), ("NLL", min)):
    for teacher in whole:
        choice = pick(TEMPERATURES, key=lambda T: stored(by_T[teacher, T], metric, "val").mean())
        found = difference(stored(by_T[teacher, choice], metric), stored(beside, metric))
        unit = "nats" if metric == "NLL" else "points"
        say(f"- Taught by *{teacher}*, validation chooses by {metric} **T = {choice:g}**; on test, {metric} minus the baseline: "
            f"{interval(found, SCALE[metric], DIGITS[metric])} {unit}, **{found.verdict}**.")
check_choice("temperature with the best mAP", guess_T, {T: list(stored(by_T[whole[0], T], "mAP")) for T in TEMPERATURES})

# %% [markdown]
r"""
### Exercise 05.3

A file holds the soft labels that a teacher gave at temperature $T$: `soft` $= \sigma(t / T)$, of shape (N, C). The logits $t$ are lost.
Return what this teacher says at $T = 1$, of the same shape.
"""

# %% exercise="05.3"
def my_probabilities(soft, T):
    return ...

# %% solution="05.3"
def my_probabilities(soft, T):
    return torch.sigmoid(T * torch.logit(soft))

# %% mistake="05.3" says="softer still"
def my_probabilities(soft, T):
    return torch.sigmoid(torch.logit(soft) / T)

# %% mistake="05.3" says="these are logits"
def my_probabilities(soft, T):
    return T * torch.logit(soft)

# %% mistake="05.3" says="forgets the chance of *absent*"
def my_probabilities(soft, T):
    return soft**T

# %% mistake="05.3" says="divides by the sum over the classes"
def my_probabilities(soft, T):
    return soft**T / (soft**T).sum(1, keepdim=True)

# %% mistake="05.3" says="a softmax over the classes"
def my_probabilities(soft, T):
    return (T * torch.logit(soft)).softmax(1)

# %% mistake="05.3" says="sigmoid of probabilities"
def my_probabilities(soft, T):
    return torch.sigmoid(T * soft)

# %%
check("05.3", my_probabilities)

# %% [markdown]
r"""
## 9. Explore: teacher, temperature, seed

Three sliders over students that exist. The picture compares the student with the baseline of the same seed.
"""

# %%
from udlib.course.explorers import TeacherExplorer

explorer = TeacherExplorer(by_T, beside, samples=20)
assert explorer.value == (whole[0], 1.0, 0)
try:
    explorer.move(T=2.0)
except ValueError as refused:
    print("no such student:", refused)
else:
    raise AssertionError("a temperature that was never trained must be refused, not interpolated")

# %%
explorer

# %% [markdown]
r"""
- Move $T$ and watch the curve. On which side of the diagonal is the student, and does $T$ move it?
- Find a seed where the order of $T = 1$ and $T = 3$ in mAP is not that of the means. What would one seed have told you?
- The table below the picture: which class did the teacher help least?

## 10. Soft without a teacher: Table 5

Is it the teacher's knowledge that helps, or only that the labels are soft? Table 5 of the paper asks that with three ways
to learn from hard labels, ResNet-18 on VOC2007. Its numbers (mAP): hard labels 88.91, softmax with temperature 90.27,
label smoothing 90.48, 1/k softmax 91.37; and with a teacher 91.46, or 91.67 with attention. All three beat BCE there, the
last one nearly as much as the teacher does. (Its text gives label smoothing 90.8, the table 90.48; and Table 3 lists 90.48
as the *baseline*.) Each loss beside its line of code:

**Softmax with temperature**: the partial softmax of lesson 03 at $z / T$, $T = 3$, on the one and only branch.
"""

# %%
z = torch.tensor([[2.0, -1.0, 0.5, -3.0], [-0.5, 1.5, -2.0, 0.0]], dtype=torch.float64)
k = torch.tensor([[1, 0, 0, 1], [0, 1, 1, 0]])
e = (z / 3).exp()
f = e / (e + ((1 - k) * e).sum(1, keepdim=True))  # a positive against all negatives
by_hand = (-(k * f.log()).sum(1) / k.sum(1)).mean()
assert torch.isclose(by_hand, pal_n_loss(z, k, temperature=3.0))
print(f"softmax, T = 3: {by_hand:.4f} nats")

# %% [markdown]
r"""
**1/k softmax** (Mahajan et al., 2018): all classes in the denominator, and each of an image's $k$ labels is worth $1/k$.
"""

# %%
by_hand = (-(k / k.sum(1, keepdim=True) * z.log_softmax(1)).sum(1)).mean()
assert torch.isclose(by_hand, one_over_k_softmax_loss(z, k))
print(f"1/k softmax: {by_hand:.4f} nats")

# %% [markdown]
r"""
**Label smoothing** for sigmoids: the labels become $\sigma(\pm 9)$, and the loss is Eq. 13 with them. It is a teacher that
says 9 or −9 and never looks at the picture.
"""

# %%
by_hand = bernoulli_kl(9.0 * (2 * k.double() - 1), z)
assert torch.isclose(by_hand, label_smoothing_loss(z, k))
epsilon = 1 / (1 + np.exp(9.0))
print(f"label smoothing: {by_hand:.4f} nats; a label moves by {epsilon:.5f}")

# %% [markdown]
r"""
A label that moves by so little is hardly soft. What does change is that the loss has a minimum at finite logits: ±9,
where $\sigma$ is still steep enough to feel.

**No level, no calibration.** The two softmax losses do not change if a constant is added to all logits of an image. So
training never fixes that constant, and the sigmoid of such a logit means nothing: no ECE, no threshold, no F1. What is
left is the order, so only mAP (of the softmax score) is reported.
"""

# %%
for name, loss in (("softmax, T = 3", lambda z: pal_n_loss(z, k, temperature=3.0)),
                   ("1/k softmax", lambda z: one_over_k_softmax_loss(z, k))):
    assert torch.isclose(loss(z), loss(z + 7.0)), name
assert ova_loss(z + 7.0, k) > ova_loss(z, k) + 1 and label_smoothing_loss(z + 7.0, k) > label_smoothing_loss(z, k)
rivals = {name: [load_or_run(chosen) for chosen in recipes] for name, recipes in hard_labels().items()}
assert all("ECE" not in r.metrics["test"] for name in rivals if "softmax" in name for r in rivals[name])
try:
    rivals["1/k softmax"][0].probabilities()
except ValueError as refused:
    print("refused:", str(refused).split(" were ")[-1])

# %%
gains = {name: 100 * (stored(found, "mAP") - stored(baselines, "mAP"))
         for name, found in {**rivals, "KD, wide teacher": students}.items()}
gains = {name: values for name, values in gains.items() if np.isfinite(values).all()}
show(plots.seed_intervals(gains, "mAP minus the baseline's, points", "hard labels, and a teacher", zero=True),
     "Difference in mAP to the baseline for three losses on hard labels and for KD, with 95 % intervals over five seeds")

# %%
rows = {}
for name, found in {**rivals, "KD, wide teacher": students}.items():
    rows[name] = {}
    for key in ("mAP", "mAP_difficult"):
        change = difference(stored(found, key), stored(baselines, key))
        rows[name] |= {METRICS[key]: spread(stored(found, key)), f"{key} − baseline": interval(change), f"{key} is": change.verdict}
    if name in rivals:
        rest = difference(stored(students, "mAP"), stored(found, "mAP"))
        rows[name] |= {"KD − this, mAP": interval(rest), "KD is": rest.verdict}
pd.DataFrame(rows).T.fillna("")

# %% [markdown]
r"""
### The training, or the score?

Before you believe the softmax rows, ask what was compared. Their mAP ranks images by a *softmax* score, the baseline's by a
sigmoid. A softmax shares one unit among the labels of an image: with three objects each gets about a third, with one object
it gets all. That spoils the ranking of images, whatever the training was. So read **every** network in the same three ways:
the logit as it is, the logit minus its mean over the image's classes, and the softmax. (The paper does not say which it used.)
"""

# %%
READINGS = {"logit": lambda z: z, "logit − image mean": lambda z: z - z.mean(1, keepdim=True), "softmax": lambda z: z.softmax(1)}
READ = {"baseline": baselines} | {name: found for name, found in rivals.items() if "softmax" in name}
ranked = {name: {way: [mean_average_precision(score(r.test_logits.double()), y, test.difficult) for r in found]
                 for way, score in READINGS.items()} for name, found in READ.items()}
assert np.allclose(ranked["baseline"]["logit"], stored(baselines, "mAP"), equal_nan=True)  # a sigmoid keeps the order
assert np.allclose(ranked["1/k softmax"]["softmax"], stored(rivals["1/k softmax"], "mAP"), equal_nan=True)
show(plots.interval_bars(list(READ), {way: [100 * np.array(ranked[name][way]) for name in READ] for way in READINGS},
                         "mAP, per cent", "three ways to read the same networks"),
     "mAP of the baseline and of two softmax losses, each read by its logits, by centred logits and by a softmax")

# %%
rows, fair = {}, {}
for name in list(READ)[1:]:
    for way in READINGS:
        fair[name, way] = difference(ranked[name][way], ranked["baseline"][way])
        rows[name, f"both by {way}"] = {"mAP − baseline": interval(fair[name, way]), "is": fair[name, way].verdict}
costs = difference(ranked["baseline"]["softmax"], ranked["baseline"]["logit"])
say(f"Reading the *baseline* by a softmax changes its mAP by {interval(costs)} points: **{costs.verdict}**. No training was "
    "changed for that.")
pd.DataFrame(rows).T

# %% [markdown]
r"""
The rows "both by softmax" compare trainings; the table before also compares scores. Which of them is "the" comparison? An
application that ranks images of one class needs a score that can be compared across images, and these losses give it none:
that is a cost of the loss. One that ranks the classes of one image is not touched by it.

Label smoothing has a level, so it can be judged in full:
"""

# %%
smoothed = rivals["label smoothing"]
pd.concat({"label smoothing − baseline": compared(smoothed, baselines), "KD − label smoothing": compared(students, smoothed)},
          axis=1)

# %% [markdown]
r"""
**Think:** what would label smoothing with target logits ±2 do to NLL and to ECE? Would its mAP have to change?

<details><summary>Answer</summary>
It asks for probabilities of 0.88 and 0.12 even where the labels are clear. The network becomes underconfident, and most labels are
absent, so the ECE rises to about 0.1 and the NLL rises with it. The mAP depends on the order of the images alone, and a push of all
logits towards ±2 need not change an order.
</details>

### Exercise 05.4

Make the soft labels of sigmoid label smoothing: from `targets` (N, C) of 0 and 1 and a `target_logit` $v$ return (N, C)
probabilities, $\sigma(v)$ where the label is 1 and $\sigma(-v)$ where it is 0.
"""

# %% exercise="05.4"
def my_soft_labels(targets, target_logit):
    return ...

# %% solution="05.4"
def my_soft_labels(targets, target_logit):
    return torch.sigmoid(target_logit * (2 * targets.double() - 1))

# %% mistake="05.4" says="these are logits"
def my_soft_labels(targets, target_logit):
    return target_logit * (2 * targets.double() - 1)

# %% mistake="05.4" says="as for a softmax"
def my_soft_labels(targets, target_logit):
    epsilon = torch.sigmoid(torch.tensor(-target_logit))
    return targets * (1 - epsilon) + (1 - targets) * epsilon / (targets.shape[1] - 1)

# %% mistake="05.4" says="the negatives are still 0"
def my_soft_labels(targets, target_logit):
    return targets * torch.sigmoid(torch.tensor(target_logit))

# %% mistake="05.4" says="not ½"
def my_soft_labels(targets, target_logit):
    return torch.sigmoid(target_logit * targets)

# %% mistake="05.4" says="σ(±v/2)"
def my_soft_labels(targets, target_logit):
    return torch.sigmoid(target_logit * (targets - 0.5))

# %% mistake="05.4" says="a softmax over the classes"
def my_soft_labels(targets, target_logit):
    return (target_logit * (2 * targets.double() - 1)).softmax(1)

# %% mistake="05.4" says="torch.sigmoid takes a tensor, not a float"
def my_soft_labels(targets, target_logit):
    return targets * torch.sigmoid(target_logit) + (1 - targets) * torch.sigmoid(-target_logit)

# %%
check("05.4", my_soft_labels)

# %% [markdown]
r"""
## 11. On photographs

Now the paper's own setting: pretrained networks, photographs, and a teacher that is larger and sees more pixels.
`photos` are the photographs of lesson 03, section 11. The student is an EfficientNet-Lite0 at 128 px. Its teacher
is an EfficientNet-Lite2 that sees the same region of the photograph, with the same flip, at 224 px; it was trained
with CutOut and the branch at λ = 0.1. Both began with ImageNet weights, and the teacher ends ten points of mAP
above a student of hard labels. How many of them does it pass on, and what becomes of the pooled ECE?
"""

# %%
guess_photo_gain = ...  # mAP of the KD student minus mAP of hard labels, in points
guess_photo_ece = ...  # the KD student's pooled ECE, in per cent; that of hard labels is about 2

# %%
from udlib.course.evidence import differences as paired_on, evidence_figure, evidence_table
from udlib.course.measurements import metric_values
from udlib.course.photo_arms import photos
from udlib.figures.text import as_markdown

ARMS = {"hard labels": "baseline", "teacher": "teacher", "KD": "KD"}
on_photos = {name: photos()[arm] for name, arm in ARMS.items()}
HEADS = {"mAP": "mAP, %", "mAP_difficult": "mAP Difficult, %", "ECE_pooled": "pooled ECE, %",
         "overconfidence": "overconfidence, points", "NLL": "NLL, nats"}
say(as_markdown(evidence_table(on_photos, HEADS, "hard labels")))

# %%
gaps = {metric: paired_on(on_photos, "hard labels", metric) for metric in HEADS}
drawn += [f"photographs, {metric}" for metric in HEADS for _ in gaps[metric]]
in_points = {metric: title.split(",")[0] for metric, title in HEADS.items() if metric != "NLL"}
show(evidence_figure(on_photos, in_points, "hard labels"),
     "Differences of the teacher and of its student to hard labels on photographs, with 95 % intervals over five seeds")
check_guess("gain in mAP on photographs", guess_photo_gain, 100 * gaps["mAP"]["KD"].mean, " points")
check_guess("pooled ECE on photographs", guess_photo_ece, 100 * np.mean(metric_values(on_photos["KD"], "ECE_pooled")), " %")

# %% [markdown]
r"""
No gain in the student's mAP is detected: its interval ends at one point, where the teacher is ten ahead. What the
student gains is calibration. Its pooled ECE is half that of hard labels, and even below its teacher's, for which we
have no explanation. Its NLL falls, too. But calibration has a cheap rival. Lesson 04 fits one temperature on
validation, which takes no teacher and a second of work. Is KD still better than hard labels after temperature
scaling?
"""

# %%
rows = [["KD minus hard labels with one temperature", "difference", "is"]]
for metric, scale, digits, unit in (("ECE_pooled", 100, 2, "points"), ("NLL", 1, 4, "nats")):
    rival = metric_values(on_photos["hard labels"], f"test/temperature {metric}")
    found = difference(metric_values(on_photos["KD"], metric), rival)
    assert found.verdict == gaps[metric]["KD"].verdict == "lower" and gaps["mAP"]["KD"].verdict == "not detected"
    rows.append([HEADS[metric].split(",")[0], f"{interval(found, scale, digits)} {unit}", f"**{found.verdict}**"])
say(as_markdown(rows))

# %% [markdown]
r"""
It is. A temperature divides every logit by the same number, while the teacher's answers say something else for each
label of each picture. Whether half a point of pooled ECE is worth training a teacher depends on what you need the
probabilities for.

### Exercise ★★★ (open): predict, then test

You have 2,000 labelled pictures and 10,000 more without labels. A teacher was trained on the labelled ones. The student may
learn from the teacher's answers on (a) the labelled pictures, (b) the others, or (c) both. Predict the order of their mAP and
of their pooled ECE, with a reason for each from sections 2 to 4. Then design the test.

One point each:

1. You use what a teacher says about pictures that it has learned by heart.
2. You use what more pictures average out, and what they do not.
3. All arms take the same number of training steps.
4. A control tells "more pictures" from "soft labels".

<details><summary>A worked answer</summary>

On its own training pictures the teacher repeats much of the hard labels, so (a) adds little softness. On new pictures its
answers are real predictions: (b) passes on what it knows and its errors. More pictures average out the noise of single
labels, and not the teacher's bias. So I predict the best mAP for (c), and for (b) a calibration close to the teacher's on new
pictures, overconfident if the teacher is. The test: equal steps for all arms. Beside them the baseline on hard labels. The
control: round the teacher's answers on the new pictures to 0 and 1. (c) against it is what softness gives; it against the
baseline is what more pictures give. Five seeds, paired.

</details>

## Summary

- A soft label is a probability in place of 0 and 1. KD on sigmoids (Eq. 13) is binary cross-entropy with soft labels, up
  to the teacher's entropy, which has no gradient.
- A hard label is noisy twice: by the annotator's coin and by what the picture does not show. The posterior of the scene
  removes the first. A teacher removes both and adds its own bias, which more images do not average out.
- A teacher that is asked about its own training images repeats what it learned there. As far as it has them by heart,
  its soft labels are hard labels.
- $T$ in the loss does not soften the answer that is asked for. It decides which disagreements count: at $T = 1$ those in
  probability, at high $T$ those in logits. $T^2$ keeps the gradient's size.
- Losses on a softmax alone leave the level of the logits free: no calibration, and no score that compares images. Before
  comparing two trainings, read both in the same way.
- Compare gains by a paired interval, and two gains by the interval of their difference.

What we found:

- On `scenes`, KD raises the mAP by almost one point with flips and by more than two with CutOut. Without augmentation, where the teacher
  knows its training images by heart, no gain is detected.
- KD lowers the pooled ECE, the true calibration error and the NLL in all three regimes.
- On photographs KD halves the pooled ECE, and no change of the mAP is detected.
- Soft labels without a teacher do not raise the mAP.

The numbers behind these sentences:
"""

# %%
for title, metric in (("mAP", "mAP"), ("pooled ECE", "ECE_pooled"), ("true error", "true_CE_pooled"), ("NLL", "NLL")):
    scale, digits, unit = SCALE[metric], DIGITS[metric], "nats" if metric == "NLL" else "points"
    found = {regime: difference(stored(taught[regime, "KD"], metric), stored(taught[regime, "baseline"], metric))
             for regime in trained}
    say(f"- {title}, KD student minus baseline: " + "; ".join(
        f"{regime}: {scale * d.mean:+.{digits}f} [{scale * d.low:+.{digits}f}, {scale * d.high:+.{digits}f}] {unit}, "
        f"**{d.verdict}**" for regime, d in found.items()) + ".")
    wanted = ["not detected", "higher", "higher"] if metric == "mAP" else 3 * ["lower"]
    assert profile() == "smoke" or [d.verdict for d in found.values()] == wanted

# %%
for metric, title in in_points.items():
    found = gaps[metric]["KD"]
    assert metric != "mAP" or found.verdict == "not detected"
    say(f"- On photographs, {title}, KD minus hard labels: {in_units(found)}, **{found.verdict}**.")
for name, found in rivals.items():
    change = difference(stored(found, "mAP"), stored(baselines, "mAP"))
    alike = fair.get((name, "softmax"))
    say(f"- {name}: mAP {100 * change.mean:+.2f} [{100 * change.low:+.2f}, {100 * change.high:+.2f}] points, **{change.verdict}**"
        + (f"; both read by a softmax {100 * alike.mean:+.2f}, **{alike.verdict}**" if alike else "") + ".")
    assert profile() == "smoke" or change.verdict != "higher"
say(f"This lesson has drawn {len(drawn)} intervals. If there were nothing to find, about {len(drawn) / 20:.0f} of them would miss "
    "0 by chance. They are not independent: the same networks stand in many of them.")

# %% [markdown]
r"""
What holds for small networks and small pictures need not hold for a ResNet-101 that teaches a ResNet-18. Section 11 had
ImageNet weights and photographs, but at 128 px. Lesson 11 runs the same recipes at full size.

**Next.** [Lesson 06](06_uncertainty_attention.ipynb): the second thing that the paper lets a teacher pass on, namely where it
looks when it is not sure.

## Further reading

- G. Hinton, O. Vinyals and J. Dean, *Distilling the Knowledge in a Neural Network*, 2015: soft labels, T, and T².
- L. Song et al., *Handling Difficult Labels for Multi-label Image Classification via Uncertainty Distillation*, ACM MM
  2021: Eq. 13, Tables 3 and 5.
- A. K. Menon et al., *A Statistical Perspective on Distillation*, ICML 2021: a teacher as an estimate of the posterior.
- H. Zhou et al., *Rethinking Soft Labels for Knowledge Distillation: A Bias-Variance Tradeoff Perspective*, ICLR 2021.
- R. Müller, S. Kornblith and G. Hinton, *When Does Label Smoothing Help?*, NeurIPS 2019: and when it makes a bad teacher.
- S. Stanton et al., *Does Knowledge Distillation Really Work?*, NeurIPS 2021: how rarely a student matches its teacher.
- T. Kim et al., *Comparing Kullback-Leibler Divergence and Mean Squared Error Loss in Knowledge Distillation*, IJCAI 2021.
- D. Mahajan et al., *Exploring the Limits of Weakly Supervised Pretraining*, ECCV 2018: the 1/k softmax.
- Y. Liu et al., *Multi-Label Image Classification via Knowledge Distillation from Weakly-Supervised Detection*, ACM MM 2018.
"""
