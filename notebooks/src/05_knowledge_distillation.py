# %% [markdown]
r"""
# 05 · Knowledge distillation: labels from a teacher

[← 04 · How calibrated? ECE and its traps](04_ece_analysis.ipynb) · [06 · Uncertainty attention →](06_uncertainty_attention.ipynb)

**Aim.** You will learn what a soft label is and what it is worth. You will see why a teacher that has memorised its
training images can teach little about them. You will derive the paper's distillation loss (Eq. 13) and see what a
temperature changes in it. Then you will measure, with error bars, how a student's accuracy *and* calibration change.

**Prerequisites.** Lessons 02 to 04: binary cross-entropy, paired differences, ECE, the known posterior, the calibration branch.

**Time.** About two hours with the exercises. The cells run in a minute or two: networks are loaded, not trained.
"""

# %% tags=["setup", "report"]
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

# %% tags=["setup", "report"]
from udlib.course.store import arrays, dataset, for_profile, load_model, load_or_run, profile
from udlib.course.recipes import SEEDS, SWEEP_SEEDS, TEACHERS, TEMPERATURES, baseline, hard_labels, pairs
from udlib.course.recipes import regimes, regimes_distilled, temperatures, two_branch

# %% [markdown]
r"""
Most of this lesson uses `scenes`, because it needs the known [posterior](../docs/glossary.md#posterior). Section 11
repeats the main experiment on photographs. As before, code writes the sentences with numbers. A "point" is one per
cent. Differences between two recipes are [paired by seed](../docs/glossary.md#paired-by-seed) and come with a 95 % t
interval, over five seeds unless a section says three.
"""

# %% tags=["setup", "report"]
METRICS = {"mAP": "mAP, %", "mAP_difficult": "mAP, Difficult, %", "ECE_pooled": "pooled ECE, %",
           "ECE": "class-wise ECE, %", "true_CE_pooled": "true error, pooled, %", "NLL": "NLL, nats"}
SCALE = {key: 1 if key == "NLL" else 100 for key in METRICS}
DIGITS = {key: 4 if key == "NLL" else 2 for key in METRICS}
intervals = []  # every interval that this lesson draws

# %% tags=["setup", "report"]
def interval(change, scale=100, digits=2):
    """A difference with its 95 % interval, in points (with scale=1 in its own unit)."""
    intervals.append(change)
    return in_units(change, scale, digits, unit="")

# %% [markdown]
r"""
## 1. First, a picture

We compare three networks.

- The **teacher** is the wide network with the [calibration branch](../docs/glossary.md#calibration-branch) at λ = 0.1.
- The **student** is the small network of the baseline. It never saw a hard label: it was trained on the teacher's answers
  to the training images. This is [knowledge distillation](../docs/glossary.md#distillation-knowledge-distillation-kd) (KD).
- The **baseline** is the same small network, trained on the labels.

![The teacher was trained on hard labels before. Its sigmoids are the soft labels of the student. Eq. 13 compares them class by class, and the gradient goes to the student alone.](images/what_kd_hands_on.svg)

We look at three validation images. None of the networks was trained on them. A rule picks them: the label with the
lowest posterior among the marked ones, the label with the highest posterior among the omitted ones, and the image whose
labels are least certain. The posterior P(y = 1 | scene) is that of the simulated annotator (lesson 01).
"""

# %% tags=["learn"]
teachers = [load_or_run(recipe) for recipe in two_branch(0.1, network="small_wide")]
students = [load_or_run(recipe) for recipe in pairs()["small_wide", "small", "KD"]]
baselines = [load_or_run(recipe) for recipe in two_branch(0.0)]
val, test = baselines[0].labels("val"), baselines[0].labels("test")
y, posterior = test.targets.double(), test.posterior.double()  # (N, C)
assert all(r.test_logits.shape == y.shape for r in (*teachers, *students, *baselines))

# %% tags=["report"]
odds, marks = val.posterior.double(), val.targets.double()
(lucky, a), (missed, b) = (divmod((sign * (marks - odds)).argmax().item(), len(val.classes)) for sign in (1, -1))
unsure = (odds * (1 - odds)).sum(1).argmax().item()
examples = {f"marked: {val.classes[a]}": lucky, f"omitted: {val.classes[b]}": missed, "least certain": unsure}
pictures = dataset("scenes", "val", 64, baselines[0].recipe.limit)
columns = [{"posterior": odds[i], "hard label": marks[i], "teacher": teachers[0].probabilities("val")[i],
            "student": students[0].probabilities("val")[i]} for i in examples.values()]
show(overlays.answers([pictures.image(i) for i in examples.values()], val.classes, columns, list(examples)),
     "Three validation images. Beside each: its posterior, its hard labels, and the probabilities of the teacher and the student")

# %% [markdown]
r"""
A **hard label** is 0 or 1. A **soft label** is a probability between 0 and 1, here the teacher's
[sigmoid](../docs/glossary.md#sigmoid-softmax). Two pictures with the same hard labels can get different soft labels: one
shows a car in full view, the other a car that is a grey smudge.

Where is the teacher close to the hard label, and where is it close to the posterior? How does the student compare?

### Predict

The paper reports that distillation raises the mAP. On VOC2007, a ResNet-18 goes from 90.48 to 91.41 with a ResNet-101 as
its teacher. On COCO it goes from 75.60 to 76.05 (Table 3; the VOC baseline is 90.48 there and 88.91 in Tables 2 and 5).
The paper does not report calibration. Write your guesses for our student. They are scored further down.
"""

# %% tags=["learn"]
guess_gain = ...  # mAP of the student minus mAP of the baseline, in points; for example -2
guess_ece = ...  # the student's pooled ECE, in per cent; lesson 04 measured the baseline's
guess_T = ...  # the temperature with the highest mAP: 1.0, 3.0 or 5.0

# %% [markdown]
r"""
## 2. What a label is worth

### Which label is closest to the posterior?

A common explanation of distillation (Menon et al., 2021) is that *a good teacher gives you the posterior*. A hard label
is like one throw of a coin that shows 1 with probability $\pi$ = P(y = 1). It is right on average, but noisy:
$\mathbb{E}(y - \pi)^2 = \pi (1 - \pi)$. A soft label has no such noise. So we measure the mean squared distance of each
kind of label to the posterior of the scene, on the test images.
"""

# %% tags=["learn"]
def distance(q):
    """Mean squared distance of labels or probabilities (N, C) to the posterior."""
    return ((q - posterior) ** 2).mean().item()


coin = calibration.expected_brier_floor(posterior)  # mean of π(1 − π)
error = ((y - posterior) ** 2).mean(1).std().item() / len(y) ** 0.5
assert abs(distance(y) - coin) < 5 * error  # a hard label is one throw of the coin

# %% tags=["report"]
GROUPS = {"teacher": teachers, "student (KD)": students, "baseline": baselines}
near = {name: [distance(r.probabilities()) for r in runs] for name, runs in GROUPS.items()}
pd.DataFrame({"hard label": f"{distance(y):.4f}"} | {name: spread(values, 1, 4) for name, values in near.items()},
             index=["mean squared distance to the posterior"]).T

# %% tags=["report"]
averages = {"hard label": distance(y)} | {name: np.mean(values) for name, values in near.items()}
change = difference(near["student (KD)"], near["baseline"])
say(f"The **{min(averages, key=averages.get)}** is closest to the posterior of the scene. The difference between the student and "
    f"the baseline is {interval(change, 1, 4)}: **{change.verdict}**. The expected distance of a hard label is {coin:.4f}.")
assert min(averages, key=averages.get) == "hard label"
assert profile() == "smoke" or change.verdict == "lower"

# %% [markdown]
r"""
The hard label is closer to the posterior than any network's answer. Does that make the teacher useless? No. The posterior
of the *scene* knows everything that was drawn, for example a cup behind the lamp. A picture of 64 × 64 pixels does not
show all of it. A network can learn only the posterior **given the picture**, $\mathbb{E}[\pi \,|\, x]$. So a hard label
carries two kinds of noise:

$$\mathrm{Var}(y \,|\, x) = \underbrace{\mathbb{E}[\pi (1 - \pi) \,|\, x]}_{\text{the annotator's coin}} +
\underbrace{\mathrm{Var}(\pi \,|\, x)}_{\text{what the picture does not show}}$$

We check this with numbers. Suppose that of all scenes whose pictures look alike, 30 % contain a cup with $\pi = 0.9$ and
the others contain none.
"""

# %% tags=["learn"]
share = torch.tensor([0.3, 0.7]).double()  # of the scenes that look alike
chance = torch.tensor([0.9, 0.0]).double()  # π in each kind of scene
mean = share @ chance  # E[π | x], all that a network can say
coin_part, unseen_part = share @ (chance * (1 - chance)), share @ (chance - mean) ** 2
variance = mean * (1 - mean)  # y given x is Bernoulli(mean)
assert torch.isclose(coin_part + unseen_part, variance)
print(f"variance of the label {variance:.4f} = coin {coin_part:.4f} + unseen {unseen_part:.4f}")

# %% tags=["report"]
together = distance(torch.stack([r.probabilities() for r in teachers]).mean(0))
assert together <= np.mean(near["teacher"]) + 1e-9  # a mean of five is never farther than the five are on average
say(f"On the test images the noise of the annotator's coin is {coin:.4f}. The noise from what the pictures do not show is at most "
    f"{together:.4f}. That is the squared distance of the five teachers' mean, which also contains the teachers' own errors.")
say("The posterior of the scene removes only the first kind of noise. A teacher sees only the picture. Its answers contain "
    "neither kind of noise, but they contain its own errors.")

# %% [markdown]
r"""
### Learning from three kinds of labels

Which kind of label is the best to *learn* from? We answer with a small experiment. We freeze the baseline's features of
the validation images, and train a linear head on a few of these images. The head gets one of three kinds of labels for
the same pictures: the hard labels, the posterior of the scene, or the probabilities of a teacher. None of the networks was
trained on these images. Each repetition draws different images and uses the teacher of another seed.
"""

# %% tags=["report"]
network = load_model(baseline())


def pooled_features(split):
    """The baseline's pooled features (N, D) of the first 2,000 images of a split."""
    images = arrays(for_profile(baseline()), split).images[:2000]
    with torch.inference_mode():
        return torch.cat([network(normalise(part), calibration=False).pooled for part in images.split(250)]).clone()


features = {split: pooled_features(split) for split in ("val", "test")}
centre, width = features["val"].mean(0), features["val"].std(0) + 1e-6
features = {split: (x - centre) / width for split, x in features.items()}

# %% tags=["learn"]
def fit_head(x, labels, decay=0.01):
    """A linear head on features (N, D), trained to convergence on labels (N, C)."""
    head = torch.nn.Linear(x.shape[1], labels.shape[1])
    torch.nn.init.zeros_(head.weight), torch.nn.init.zeros_(head.bias)
    steps = torch.optim.LBFGS(head.parameters(), max_iter=50, line_search_fn="strong_wolfe")

    def closure():
        steps.zero_grad()
        bce = F.binary_cross_entropy_with_logits(head(x), labels, reduction="none").sum(1).mean()
        loss = bce + decay * head.weight.square().sum()
        loss.backward()
        return loss

    steps.step(closure)
    return head

# %% tags=["report"]
def measure_head(head):
    """mAP, pooled true error and NLL of a head on the test images."""
    q, n = torch.sigmoid(head(features["test"]).detach().double()), len(features["test"])
    return (mean_average_precision(q, y[:n], test.difficult[:n]),
            calibration.true_calibration_error(q, posterior[:n], average="pooled"), calibration.negative_log_likelihood(q, y[:n]))

# %% tags=["learn"]
def scores_by_label(rows, seed):
    """Scores of three heads that learned from these validation images, by the kind of label."""
    teacher = teachers[seed].probabilities("val")
    labels = {"hard label": marks, "posterior": odds, "teacher": teacher}
    heads = {name: fit_head(features["val"][rows], q[rows].float()) for name, q in labels.items()}
    return {name: measure_head(head) for name, head in heads.items()}

# %% tags=["report"]
generator = torch.Generator().manual_seed(5)
sizes = [n for n in (50, 100, 300, 900) if n < len(marks)]
by_label = {n: [scores_by_label(torch.randperm(len(marks), generator=generator)[:n], seed) for seed in SEEDS] for n in sizes}
SHOWN = {"mAP, %": (0, 100), "true error, pooled, %": (1, 100), "NLL, nats": (2, 1)}
scores = {title: {name: [[scale * run[name][k] for run in by_label[n]] for n in sizes] for name in by_label[sizes[0]][0]}
          for title, (k, scale) in SHOWN.items()}
show(plots.panels(sizes, scores, "labelled images"),
     "mAP, true error and NLL of heads trained on hard labels, on the posterior and on a teacher, against the number of images")

# %% tags=["report"]
rows = {}
PAIRS = {"posterior − hard": ("posterior", "hard label"), "teacher − hard": ("teacher", "hard label"),
         "teacher − posterior": ("teacher", "posterior")}
for n in sizes:
    for title in SHOWN:
        digits = 4 if "NLL" in title else 2
        values = {name: seeds[sizes.index(n)] for name, seeds in scores[title].items()}
        changes = {words: difference(values[a], values[b]) for words, (a, b) in PAIRS.items()}
        rows[n, title] = {words: f"{interval(each, 1, digits)} {each.verdict}" for words, each in changes.items()}
pd.DataFrame(rows).T

# %% [markdown]
r"""
What the table shows:

- *posterior − hard* compares labels without and with the annotator's coin. The posterior gives the higher mAP at every size.
- *teacher − posterior* compares two labels without the coin. The teacher's labels also lack the second kind of noise, but
  contain the teacher's errors. With 50 and 100 images the teacher's labels are the better ones: a network's opinion of the
  picture teaches more than the truth about the scene. (The teacher also brings what it learned from 2,000 other images.)
- With 900 images the order of teacher and posterior is reversed. More images average out the noise of single labels. They
  do not average out the teacher's own errors. Those are a **bias**, and the head learns it.

Two cautions. The five repetitions at the largest size share nearly all their images, so those intervals say little about
other images. And we set the weight decay of `fit_head` after a look at two values, 0.001 and 0.01, on these test images.
With the smaller value the teacher stayed ahead for longer. So trust that the curves may cross, but not where they cross.
Change `decay` and see.

So we correct the sentence from above: *a good teacher gives you the posterior given the picture, plus its own bias*. Every
soft label trades less variance for some bias (Zhou et al., 2021; the paper's reference 53).
"""

# %% tags=["report"]
def gap(n, name, against, title="true error, pooled, %"):
    return difference(*(scores[title][each][sizes.index(n)] for each in (name, against)))


for title in SHOWN:
    first, last = (gap(n, "teacher", "hard label", title) for n in (sizes[0], sizes[-1]))
    say(f"- {title}, teacher minus hard labels: {first.mean:+.3f} with {sizes[0]} images (**{first.verdict}**), "
        f"{last.mean:+.3f} with {sizes[-1]} (**{last.verdict}**).")
better = {title: "higher" if "mAP" in title else "lower" for title in SHOWN}
assert profile() == "smoke" or all(gap(n, "teacher", "posterior", title).verdict == better[title]
                                   for n in (50, 100) for title in SHOWN)
assert profile() == "smoke" or all(gap(900, "teacher", "posterior", title).verdict not in ("not detected", better[title])
                                   for title in SHOWN)

# %% [markdown]
r"""
## 3. A teacher and its training images

In that experiment the teacher had never seen the images that it labelled. The usual protocol, the paper's and ours, is
different: the teacher labels the **training** images. It was trained to repeat the hard labels of exactly these images.
So what does it answer there?
"""

# %% tags=["report"]
training = arrays(for_profile(baseline()), "train")
learners = {"teacher": load_model(two_branch(0.1, network="small_wide")[0]), "baseline": network}


def on_training(model):
    """A network's probabilities for its own training images, (N, C)."""
    with torch.inference_mode():
        parts = [model(normalise(part), calibration=False).logits for part in training.images.split(250)]
    return torch.sigmoid(torch.cat(parts).double())


at_home = {name: on_training(model) for name, model in learners.items()}
away = {"teacher": teachers[0].probabilities("val"), "baseline": baselines[0].probabilities("val")}

# %% tags=["report"]
hard, seen = training.targets.double(), dataset("scenes", "train", 64, baselines[0].recipe.limit).posterior.double()
places = {"its training images": (at_home, hard, seen), "new images (val)": (away, marks, odds)}
rows = {}
for name in learners:
    for place, (probabilities, labels, chances) in places.items():
        q = probabilities[name]
        rows[name, place] = {"NLL of the hard labels": calibration.negative_log_likelihood(q, labels),
                             "mean entropy, nats": torch.distributions.Bernoulli(q).entropy().mean().item(),
                             "below 0.01 or above 0.99, %": 100 * ((q < 0.01) | (q > 0.99)).double().mean().item(),
                             "distance to the posterior": ((q - chances) ** 2).mean().item()}
memory = pd.DataFrame(rows).T
memory.round(4)

# %% tags=["report"]
floor = calibration.expected_nll_floor(seen)
for name in learners:
    nll = memory.loc[(name, "its training images"), "NLL of the hard labels"]
    word = "below" if nll < floor else "above"
    say(f"- On its training images the {name} has an NLL of {nll:.4f} nats. That is **{word}** {floor:.4f}, the NLL of someone who "
        "knows the posterior of every scene." + (" Nobody can predict a coin. A network below this floor has memorised labels."
                                                 if nll < floor else ""))

# %% [markdown]
r"""
We can watch this memory. We sort the labels into three bands by their posterior. In each band we compare the network's
mean answer where the annotator's coin showed 1 and where it showed 0. Someone who knows only the posterior would give
about the same answer in both cases.
"""

# %% tags=["report"]
BANDS = {"5 to 30 %": (0.05, 0.3), "30 to 70 %": (0.3, 0.7), "70 to 95 %": (0.7, 0.95)}


def by_coin(q, labels, chances):
    """For each band of the posterior: mean answer where the coin showed 1, and where it showed 0."""
    inside = [(chances >= low) & (chances < high) for low, high in BANDS.values()]
    return {f"label {side}": [100 * q[band & (labels == side)].mean().item() for band in inside] for side in (1, 0)}


answers = {"teacher, training": by_coin(at_home["teacher"], hard, seen), "teacher, new": by_coin(away["teacher"], marks, odds),
           "baseline, training": by_coin(at_home["baseline"], hard, seen)}

# %% tags=["report"]
names = [f"{who}, π {band}" for who in answers for band in BANDS]
sides = {side: [value for who in answers for value in answers[who][side]] for side in ("label 1", "label 0")}
show(plots.dots(names, sides, "mean probability, per cent", "same posterior, different label"),
     "Mean probability where the label is 1 and where it is 0, for three bands of the posterior, on training and on new images")

# %% tags=["report"]
split = {who: np.nanmean(np.subtract(sides["label 1"], sides["label 0"])) for who, sides in answers.items()}
say("At similar posteriors, the mean answer where the label is 1 differs from the mean answer where it is 0 by "
    + ", ".join(f"{value:.0f} points ({who})" for who, value in split.items()) + ".")
assert profile() == "smoke" or split["teacher, training"] > 80 and abs(split["teacher, new"]) < 10

# %% [markdown]
r"""
On new images the teacher's answer does not depend on how the coin fell. On its training images it repeats the label.

Is the teacher's answer to a training image still better than a hard label? We measure the distance to the posterior once
more, with an interval over images, for the networks of seed 0.
"""

# %% tags=["report"]
closer = {}
for name, q in at_home.items():
    change = ((q - seen) ** 2 - (hard - seen) ** 2).mean(1)
    closer[name] = bootstrap_interval(lambda images: change[images].mean(), len(change), samples=500)
    intervals.append(closer[name])
    word = "not detected" if closer[name].low <= 0 <= closer[name].high else "closer" if closer[name].high < 0 else "farther"
    say(f"- The {name}'s answers minus hard labels, squared distance to the posterior on its training images: "
        f"{closer[name].estimate:+.4f} [{closer[name].low:+.4f}, {closer[name].high:+.4f}] (hard labels: "
        f"{((hard - seen) ** 2).mean():.4f}): **{word}**.")

# %% [markdown]
r"""
So the teacher's answers to its training images are a little closer to the posterior than hard labels are.

**Think:** the teacher labels each training picture and its mirror image; both were in its training. How could a teacher
label images that it was *not* trained on, without any new images?

<details><summary>Answer</summary>
Use cross-fitting. Split the training images into two halves, train one teacher on each half, and let each teacher label the other
half. The price is that each teacher has seen only half of the images.
</details>

## 4. Eq. 13 and its code

The student's sigmoids $S_i$ should match the teacher's sigmoids $T_i$. Each label is a Bernoulli variable. We measure the
distance between two Bernoulli distributions by their [KL divergence](../docs/glossary.md#kl-divergence):

$$L'_b = \frac1C \sum_{i=1}^{C} \mathrm{KL}\big(T_i \,\|\, S_i\big), \qquad
\mathrm{KL}(p \,\|\, q) = p \log\frac{p}{q} + (1 - p) \log\frac{1 - p}{1 - q} \qquad \text{(Eq. 13)}$$

Here it is for two images and three classes, as a plain loop:
"""

# %% tags=["learn"]
t = torch.tensor([[2.0, -1.0, 0.5], [-0.5, 1.5, -2.0]]).double()  # the teacher's logits (N, C)
s = torch.tensor([[0.4, -2.0, 0.6], [0.3, 0.2, -1.0]]).double()  # the student's
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

We can split the divergence: $\mathrm{KL}(p \,\|\, q) = \big[-p \log q - (1 - p) \log (1 - q)\big] - H(p)$. The bracket is the
binary cross-entropy of lesson 02 with $p$ in place of $y$. The teacher's entropy $H(p)$ does not depend on the student, so
it has no gradient. In code:
"""

# %% tags=["learn"]
p = torch.sigmoid(t)
entropy = torch.distributions.Bernoulli(p).entropy().mean()
assert torch.isclose(bernoulli_kl(t, s), F.binary_cross_entropy_with_logits(s, p) - entropy)

z = s.clone().requires_grad_()
each_image = bernoulli_kl(t, z, reduction="none")
gradient, = torch.autograd.grad(each_image.sum(), z)
assert torch.allclose(gradient, (torch.sigmoid(s) - torch.sigmoid(t)) / 3)  # (σ(s) − σ(t)) / C
soft, = torch.autograd.grad(F.binary_cross_entropy_with_logits(z, p, reduction="sum"), z)
assert torch.allclose(soft / 3, gradient)
pd.DataFrame(gradient.numpy(), ["image 1", "image 2"], ["class 1", "class 2", "class 3"]).round(4)

# %% [markdown]
r"""
The gradient is the difference of two probabilities, as it is for hard labels: $(\sigma(s) - y)$ has become $(\sigma(s) -
\sigma(t))$. Three things follow.

- If the teacher's probabilities approach the hard labels, $\sigma(t) \to y$, then distillation *is* training on hard labels.
- With a hard label, the loss keeps pushing the logit towards infinity. With a soft label, the loss has its minimum at
  $s = t$, and the gradient changes sign there. That may keep a student from becoming overconfident.
- Eq. 13 takes the **mean** over classes, and Eq. 3 (BCE) takes the **sum**. If one loss contained both terms, the factor
  $C$ would matter. Here it does not: the student sees no hard labels, and a constant factor does not change the steps of Adam.
"""

# %% tags=["learn"]
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

# %% tags=["learn"]
eq_13, times_C = (lambda z: bernoulli_kl(t, z)), (lambda z: 3 * bernoulli_kl(t, z))
apart = {}  # the largest distance between the two ends
for name, optimiser in (("Adam", torch.optim.Adam), ("SGD", torch.optim.SGD)):
    a, b = (descend(loss, optimiser, lr=0.05) for loss in (eq_13, times_C))
    apart[name] = (a - b).abs().max().item()
assert apart["Adam"] < 1e-3 < apart["SGD"]
print("largest distance between the two ends:", {name: round(d, 5) for name, d in apart.items()})

# %% [markdown]
r"""
(The factor matters in one place: clipping the gradient at a fixed length, as in lesson 03. It clips less with the smaller
loss.)

**In which direction?** KL is not symmetric. The gradient of KL(student ‖ teacher) contains the factor
$\sigma(s)(1 - \sigma(s))$. So it nearly vanishes where the student is confident, even if the student is wrong:
"""

# %% tags=["learn"]
sure = torch.tensor([[8.0]], dtype=torch.float64, requires_grad=True)  # the student says 0.9997
doubts = torch.tensor([[-1.0]], dtype=torch.float64)  # the teacher says 0.27
forward, = torch.autograd.grad(bernoulli_kl(doubts, sure), sure)
backward, = torch.autograd.grad(bernoulli_kl(sure, doubts), sure)
assert forward > 0.7 and backward < 0.01
print(f"gradient of KL(teacher ‖ student): {forward.item():.4f}")
print(f"gradient of KL(student ‖ teacher): {backward.item():.4f}")

# %% [markdown]
r"""
## 5. A temperature

Hinton et al. (2015) divide the logits of both networks by a [temperature](../docs/glossary.md#temperature) $T$ before they
compare them, and multiply the loss by $T^2$. The UD paper does not mention a temperature, but its released code uses
$T = 3$. In our loss:

$$T^2 \cdot \frac1C \sum_i \mathrm{KL}\big(\sigma(t_i/T) \,\|\, \sigma(s_i/T)\big)$$

At higher $T$, probabilities that were all close to 1 become distinguishable again:
"""

# %% tags=["report"]
axis = np.linspace(-10, 10, 101)
show(plots.lines(axis, {f"T = {T:g}": torch.sigmoid(torch.tensor(axis) / T).tolist() for T in TEMPERATURES}, "logit z",
                 "σ(z / T)", "a temperature flattens the sigmoid", markers=False),
     "The sigmoid of z over T for T = 1, 3 and 5: the higher T, the flatter the curve")
on_train = at_home["teacher"]
logits = torch.logit(on_train.clamp(1e-7, 1 - 1e-7))
flat = {T: torch.sigmoid(logits / T) for T in TEMPERATURES}
say("The teacher's mean entropy on its training images: " + ", ".join(
    f"{torch.distributions.Bernoulli(q).entropy().mean():.3f} nats at T = {T:g}" for T, q in flat.items()) + ".")

# %% [markdown]
r"""
A temperature does **not** ask for softer answers. At every $T$ the loss is 0 exactly where $s = t$, so a student that
matches its teacher matches it at every temperature. (The temperature of lesson 04 is different: it divides the logits
when the network is *used*. Our students are used at $T = 1$, whatever the loss did.) What $T$ changes is how much each
disagreement costs. The gradient is

$$\frac{\partial}{\partial s} = \frac{T}{C}\,\big(\sigma(s/T) - \sigma(t/T)\big)$$

The chain rule gives one factor $1/T$. The difference of two flattened sigmoids is smaller by about another $1/T$. The
factor $T^2$ makes up for both, so the size of the gradient stays comparable when $T$ changes.
"""

# %% tags=["learn"]
for T in (1.0, 3.0, 5.0):
    z = s.clone().requires_grad_()
    each_image = bernoulli_kl(t, z, T, reduction="none")
    gradient, = torch.autograd.grad(each_image.sum(), z)
    assert torch.allclose(gradient, T * (torch.sigmoid(s / T) - torch.sigmoid(t / T)) / 3)
    assert torch.isclose(bernoulli_kl(t, t, T), torch.tensor(0.0).double())
    assert bernoulli_kl(t, s, T) > 0
    norm = gradient.norm()
    print(f"T = {T:g}: gradient norm {norm:.4f}, without T² {norm / T**2:.4f}")

# %% [markdown]
r"""
### High temperatures compare the logits themselves

For $T \to \infty$ the sigmoid becomes a straight line around ½ with slope ¼. The divergence of two Bernoulli distributions
near ½ is $2 (p - q)^2$. So with the factor $T^2$

$$T^2\, \mathrm{KL} \;\longrightarrow\; 2 T^2 \Big( \frac{t - s}{4 T} \Big)^2 = \tfrac18 (t - s)^2 .$$

At a high temperature, distillation is **regression on logits**. The ratio of the loss to this limit:
"""

# %% tags=["learn"]
limit = ((t - s) ** 2).mean().item() / 8
ratios = {T: bernoulli_kl(t, s, T).item() / limit for T in (1.0, 3.0, 5.0, 10.0, 30.0, 100.0)}
assert abs(ratios[100.0] - 1) < 1e-3
assert abs(ratios[100.0] - 1) < abs(ratios[10.0] - 1) < abs(ratios[1.0] - 1)
print({f"{T:g}": round(ratio, 4) for T, ratio in ratios.items()})

# %% tags=["report"]
student_logit, teacher_logit = np.linspace(-2, 12, 57), 6.0  # the teacher says 0.998
pull = {f"T = {T:g}": (T * (torch.sigmoid(torch.tensor(student_logit) / T) - torch.sigmoid(torch.tensor(teacher_logit / T)))).tolist()
        for T in TEMPERATURES} | {"limit": ((student_logit - teacher_logit) / 4).tolist()}
show(plots.lines(student_logit, pull, "the student's logit s", "C × gradient", "the teacher's logit is 6", markers=False),
     "Gradient against the student's logit for T = 1, 3, 5 and the limit: flat near the teacher at T = 1, a line in the limit")

# %% [markdown]
r"""
At $T = 1$ the loss hardly distinguishes logits of 4, 6 and 10: all mean *yes*. At $T = 5$ a student that says 10 where the
teacher says 6 is corrected downwards, and one that says 4 is corrected upwards. So a high temperature passes on **how
confident** the teacher is, including any overconfidence.

**Think:** a teacher is overconfident on its training images. What do you expect of its student's calibration at high $T$?

<details><summary>Answer</summary>
It should get worse. A high temperature passes on the teacher's confidence, and so its overconfidence too. Section 8 measures
whether it does.
</details>

### Sigmoids are not a softmax

With a softmax (Eq. 14, next lessons), adding a constant to all logits of an image changes nothing. So the limit is the
squared difference of the *centred* logits. With sigmoids, adding a constant changes every answer.
"""

# %% tags=["learn"]
shifted, hot = t + 1.5, 1000.0
assert torch.isclose(softmax_kl(t, shifted), torch.tensor(0.0).double(), atol=1e-12)
assert bernoulli_kl(t, shifted) > 0.1
centred = (t - s) - (t - s).mean(1, keepdim=True)
assert torch.isclose(softmax_kl(t, s, hot), (centred**2).mean(1).mean() / 2, rtol=1e-2)
print(f"after a shift of 1.5: softmax_kl {abs(softmax_kl(t, shifted)):.4f}, "
      f"bernoulli_kl {bernoulli_kl(t, shifted):.4f}")

# %% [markdown]
r"""
### Exercise 05.1

Which class has the student not learned yet? Write Eq. 13 with a temperature for **each class**. Logits of shape (N, C) come in.
Return (C,), the mean over the images times $T^2$. It must be finite at logits of ±200, so work from `F.logsigmoid`. It must also
let a gradient flow through it.
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

# %% tags=["learn"]
check("05.1", my_kl)

# %% [markdown]
r"""
## 6. What the student gained

Table 3 of the paper claims that a student of KD is better than the same network trained on labels. The table reports mAP,
precision and recall. It has no error bars and no calibration. (Read its gains with care: CF1 and OF1 look swapped in places
of part (b), and its VOC baseline is the label-smoothing figure of Table 5.) We test the claim with five seeds at $T = 1$.
The student, the teacher and the baseline of one seed belong together.
"""

# %% tags=["report"]
levels = {METRICS[key]: {name: spread(stored(runs, key), SCALE[key], DIGITS[key]) for name, runs in GROUPS.items()}
          for key in METRICS}
pd.DataFrame(levels).T

# %% tags=["report"]
def compared(a, b):
    """Every metric of runs `a` minus that of `b`: text and verdict."""
    rows = {}
    for key, title in METRICS.items():
        change = difference(stored(a, key), stored(b, key))
        rows[title.replace(", %", ", points")] = {"difference": interval(change, SCALE[key], DIGITS[key]), "is": change.verdict}
    return pd.DataFrame(rows).T


pd.concat({"student − baseline": compared(students, baselines), "student − teacher": compared(students, teachers)}, axis=1)

# %% tags=["report"]
gain, ece = difference(stored(students, "mAP"), stored(baselines, "mAP")), stored(students, "ECE_pooled").mean()
ahead = difference(stored(teachers, "mAP"), stored(baselines, "mAP"))
say(f"The student's mAP minus the baseline's: {interval(gain)} points, **{gain.verdict}**. The teacher's mAP minus the baseline's: "
    f"{interval(ahead)} points, **{ahead.verdict}**.")
if ahead.verdict == "higher":
    say(f"The student covers {percent(gain.mean / ahead.mean)} of the way from the baseline to its teacher.")
check_guess("gain in mAP", guess_gain, 100 * gain.mean, " points")
check_guess("the student's pooled ECE", guess_ece, 100 * ece, " %")

# %% tags=["report"]
curves = {name: calibration.reliability_curve(runs[0].probabilities(), y, average="pooled") for name, runs in GROUPS.items()}
show(plots.reliability(curves, "test images, seed 0", smallest=20),
     "Reliability diagrams of teacher, student and baseline, seed 0")

# %% [markdown]
r"""
KD raises the student's mAP by 0.8 points, a fifth of the teacher's lead. It also lowers every calibration error and the
NLL. No change of the mAP on difficult labels is detected.

**Think:** in section 2 a head learned the errors of its teacher's probabilities. Is this student as overconfident as its
teacher?

<details><summary>Answer</summary>
No. It is about three points less overconfident than its teacher, and less than the baseline too. Three things differ from
section 2. The student learned on training images, where the teacher makes other errors (section 3). It is too small to memorise
them all. And a soft label has its minimum at a finite logit (section 4). We have not tested which of the three matters most.
</details>

A gain in mAP may have two causes: a softer label is a better label, or this particular teacher knows something. If the
student learned from *this* teacher, then on test images it should agree with it more than the baseline does, and more
than it agrees with the teacher of another seed.
"""

# %% tags=["report"]
apart = {name: [bernoulli_kl(teacher.test_logits, r.test_logits).item() for teacher, r in zip(teachers, runs)]
         for name, runs in (("student", students), ("baseline", baselines))}
others = [bernoulli_kl(teacher.test_logits, r.test_logits).item() for teacher, r in zip(teachers[1:] + teachers[:1], students)]
nearer, own = difference(apart["student"], apart["baseline"]), difference(apart["student"], others)
say(f"KL to the teacher on test images: student {spread(apart['student'], 1, 4)}, baseline {spread(apart['baseline'], 1, 4)}, "
    f"difference {interval(nearer, 1, 4)}: **{nearer.verdict}**.")
say(f"The student's KL to its own teacher minus its KL to the teacher of another seed: {interval(own, 1, 4)}: **{own.verdict}**.")
assert profile() == "smoke" or (nearer.verdict, own.verdict) == ("lower", "not detected")

# %% [markdown]
r"""
The student agrees with its teacher more than the baseline does. But no difference between its own teacher and that of
another seed is detected. So we have no evidence that it learned what only this one teacher knows.

### Exercise 05.2

Did distillation help? `students` and `baselines` hold one mAP for each seed, as fractions, in the same order. Return the
ends of the **paired** 95 % t interval of students minus baselines, and a verdict: `"higher"`, `"lower"` or `"not detected"`.
SciPy's quantile: `student_t.ppf(0.975, n - 1)`.
"""

# %% tags=["setup", "report"]
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

# %% tags=["learn"]
check("05.2", my_verdict)

# %% [markdown]
r"""
## 7. A teacher that has memorised its training images

By section 4, a teacher whose answers equal the hard labels teaches the hard labels. So a teacher that has memorised its
training images completely should be worth nothing, however good it is on new ones. To test this, we train teacher,
student and baseline once more without any augmentation. A third regime goes the other way:
[CutOut](../docs/glossary.md#cutout-random-erasing) makes overfitting hard. The teachers' last training loss shows how well
they have memorised their images.
"""

# %% tags=["report"]
REGIMES = {regime: recipes for (regime, lam), recipes in regimes().items() if lam == 0}
recipes_of = {(regime, who): regimes_distilled()[regime, who] for regime in REGIMES for who in ("teacher", "KD")}
recipes_of |= {(regime, "baseline"): recipes for regime, recipes in REGIMES.items()}
by_regime = {key: [load_or_run(recipe) for recipe in recipes] for key, recipes in recipes_of.items()}
assert [r.recipe for r in by_regime["flips", "KD"]] == [r.recipe for r in students]  # the course's regime

# %% tags=["report"]
last = {regime: [r.history[-1]["ova"] / len(test.classes) for r in by_regime[regime, "teacher"]] for regime in REGIMES}
say("The teachers' last training loss (BCE), in nats for each label: " + ", ".join(
    f"{spread(values, 1, 4)} ({regime})" for regime, values in last.items()) + ". Someone who knows the posterior has "
    f"{floor:.4f}.")
OTHERS = [regime for regime in REGIMES if regime != "flips"]
for regime in OTHERS:
    excess = difference(last[regime], last["flips"])
    say(f"{regime[0].upper() + regime[1:]} minus flips: {interval(excess, 1, 4)} nats, **{excess.verdict}**.")

# %% tags=["report"]
WHO = ("baseline", "KD", "teacher")
panels = {title: {who: [SCALE[key] * stored(by_regime[regime, who], key) for regime in REGIMES] for who in WHO}
          for key, title in METRICS.items()}
panels = {title: series for title, series in panels.items() if np.isfinite(list(series.values())).all()}
show(plots.panels(list(REGIMES), panels, ""),
     "Six scores of baseline, KD student and teacher in each regime of training, with 95 % intervals over seeds")

# %% tags=["report"]
pd.concat({f"{regime}: KD − baseline": compared(by_regime[regime, "KD"], by_regime[regime, "baseline"]) for regime in REGIMES}, axis=1)

# %% [markdown]
r"""
KD raises the mAP with flips and with CutOut. Without augmentation no gain is detected. Does that prove that the gains
differ? No: one effect may be detected and the other not, although both have the same size. We must test the difference
between the two *gains*, seed by seed.
"""

# %% tags=["report"]
gains = {(regime, key): stored(by_regime[regime, "KD"], key) - stored(by_regime[regime, "baseline"], key)
         for regime in REGIMES for key in METRICS}
verdicts = {}
for key, title in METRICS.items():
    for regime in OTHERS:
        change = difference(gains["flips", key], gains[regime, key])
        verdicts[key, regime] = change.verdict
        unit = "nats" if key == "NLL" else "points"
        say(f"- {title.removesuffix(', %').removesuffix(', nats')}: the change by KD with flips, minus that with {regime}: "
            f"{interval(change, SCALE[key], DIGITS[key])} {unit}, **{change.verdict}**")
for (key, regime), verdict in verdicts.items():
    if profile() != "smoke" and key in ("mAP", "ECE_pooled"):
        assert verdict == ("lower" if regime == "CutOut" else "not detected"), (key, regime)

# %% [markdown]
r"""
With CutOut, KD raises the mAP by 1.6 points more than with flips, and lowers the pooled ECE by 0.2 points less. Between
flips and no augmentation, no difference in KD's gain is detected in any metric. So this experiment does not show that a
teacher's memory costs its student anything.

**Think:** how would you distinguish "the teacher is too confident on its training images" from "the teacher is simply worse"?

<details><summary>Answer</summary>
Change one thing at a time. Keep the teacher, and let it label images that it was not trained on, as in section 2. Or keep the
images, and soften its answers with a temperature, which comes next.
</details>

## 8. The temperature, measured

We train students with Eq. 13 at $T \in \{1, 3, 5\}$, from a wide teacher and from a teacher of the student's own size, with
three seeds. (The students of the wide teacher at $T = 1$ are the first three students of section 6.) The dotted line is
the baseline of the same three seeds.
"""

# %% tags=["report"]
by_T = {key: [load_or_run(recipe) for recipe in recipes] for key, recipes in temperatures().items()}
beside = baselines[: len(SWEEP_SEEDS)]
assert [r.recipe for r in by_T["small_wide", 1.0]] == [r.recipe for r in students[: len(SWEEP_SEEDS)]]

# %% tags=["report"]
panels = {title: {teacher: [SCALE[key] * stored(by_T[teacher, T], key) for T in TEMPERATURES] for teacher in TEACHERS}
          for key, title in METRICS.items()}
panels = {title: series for title, series in panels.items() if np.isfinite(list(series.values())).all()}
baseline_lines = {METRICS[key]: {"baseline": SCALE[key] * stored(beside, key).mean()} for key in METRICS}
show(plots.panels(list(TEMPERATURES), panels, "temperature T", baseline_lines),
     "Six scores of KD students against the temperature, for each teacher, with 95 % intervals over three seeds")

# %% tags=["report"]
def against_one(teacher, T):
    return compared(by_T[teacher, T], by_T[teacher, 1.0])


pd.concat({(teacher, f"T = {T:g} − T = 1"): against_one(teacher, T) for teacher in TEACHERS for T in TEMPERATURES[1:]}, axis=1).T

# %% tags=["report"]
for teacher in TEACHERS:
    for T in TEMPERATURES[1:]:
        for key, verdict in (("mAP", "lower"), ("ECE_pooled", "higher"), ("NLL", "higher")):
            change = difference(stored(by_T[teacher, T], key), stored(by_T[teacher, 1.0], key))
            assert profile() == "smoke" or change.verdict == verdict, (teacher, T, key)

# %% [markdown]
r"""
A higher temperature hurts these students. Against $T = 1$, it lowers the mAP by 2.4 to 3.8 points and raises the pooled
ECE by 0.8 to 1.7 points.

In which direction do the students err? One number says it: the temperature that lesson 04 would fit on validation to the
*trained* student. Above 1 the student is overconfident, below 1 it is underconfident. This temperature is not the one in
the loss.
"""

# %% tags=["learn"]
def fit_T(r):
    return posthoc.fit_temperature(r.val_logits, r.labels("val").targets).temperatures[0]

# %% tags=["report"]
repairs = {f"{teacher}, T = {T:g}": [fit_T(r) for r in by_T[teacher, T]] for teacher in TEACHERS for T in TEMPERATURES}
repairs |= {"baseline": [fit_T(r) for r in beside], "teacher": [fit_T(r) for r in teachers[: len(beside)]]}
show(plots.seed_intervals(repairs, "temperature fitted on validation", "how overconfident are the students? three seeds"),
     "Temperature fitted on validation to students at three T, to the baseline and to the wide teacher, three seeds")

# %% tags=["report"]
rows = {}
for name, runs in {**{f"{who}, T = {T:g}": by_T[who, T] for who in TEACHERS for T in TEMPERATURES}, "baseline": beside}.items():
    recalibrated = [r.recalibrated("temperature") for r in runs]
    rows[name] = {"pooled ECE, %": spread(stored(runs, "ECE_pooled")),
                  "after repair, %": spread([calibration.expected_calibration_error(q, y, average="pooled") for q in recalibrated]),
                  "NLL": spread(stored(runs, "NLL"), 1, 4),
                  "NLL after repair": spread([calibration.negative_log_likelihood(q, y) for q in recalibrated], 1, 4)}
pd.DataFrame(rows).T

# %% [markdown]
r"""
"After repair" means after [temperature scaling](../docs/glossary.md#temperature) with that number. It
removes about half of the pooled ECE or more, and then the students at $T = 5$ have the lowest. Their NLL stays above that
at $T = 1$.

Which $T$ should one take? We must not pick the best one on the test images. We pick $T$ on validation, by mAP or by NLL,
and report the test score of the picked one.
"""

# %% tags=["report"]
for metric, pick in (("mAP", max), ("NLL", min)):
    for teacher in TEACHERS:
        choice = pick(TEMPERATURES, key=lambda T: stored(by_T[teacher, T], metric, "val").mean())
        change = difference(stored(by_T[teacher, choice], metric), stored(beside, metric))
        unit = "nats" if metric == "NLL" else "points"
        say(f"- With the teacher *{teacher}*, validation picks **T = {choice:g}** by {metric}. On test, {metric} minus the baseline's: "
            f"{interval(change, SCALE[metric], DIGITS[metric])} {unit}, **{change.verdict}**.")
        assert profile() == "smoke" or choice == 1.0
check_choice("temperature with the best mAP", guess_T, {T: list(stored(by_T[TEACHERS[0], T], "mAP")) for T in TEMPERATURES})

# %% [markdown]
r"""
Validation picks $T = 1$ for both teachers, by both scores.

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

# %% tags=["learn"]
check("05.3", my_probabilities)

# %% [markdown]
r"""
## 9. Explore: teacher, temperature, seed

Three sliders choose among the trained students. The picture compares the student with the baseline of the same seed.
"""

# %% tags=["report"]
from udlib.course.explorers import TeacherExplorer

explorer = TeacherExplorer(by_T, beside, samples=20)
assert explorer.value == (TEACHERS[0], 1.0, 0)
try:
    explorer.move(T=2.0)
except ValueError as refused:
    print("no such student:", refused)
else:
    raise AssertionError("a temperature that was never trained must be refused, not interpolated")

# %% tags=["report"]
explorer

# %% [markdown]
r"""
- Move $T$ and watch the curve. On which side of the diagonal is the student, and does $T$ move it?
- Find a seed where $T = 3$ has the higher mAP, although the mean at $T = 1$ is higher. Is there one?
- Look at the table below the picture. Which class did the teacher help least?

## 10. Soft labels without a teacher: Table 5

Does the teacher's knowledge help, or does it help that the labels are soft? Table 5 of the paper asks this with three
ways to learn from hard labels, for a ResNet-18 on VOC2007:

| the paper's Table 5 | mAP |
|---|--:|
| hard labels (BCE) | 88.91 |
| softmax with temperature | 90.27 |
| label smoothing | 90.48 |
| 1/k softmax | 91.37 |
| a teacher (KD) | 91.46 |
| a teacher, with attention | 91.67 |

All three rivals beat BCE there, and the 1/k softmax nearly reaches the teacher. (The paper's text gives 90.8 for label
smoothing, the table 90.48; Table 3 lists 90.48 as the *baseline*.) Here are the three losses in code.

**Softmax with temperature** is the [partial softmax](../docs/glossary.md#partial-softmax) of lesson 03 at $z / T$, $T = 3$,
on a network with a single branch.
"""

# %% tags=["learn"]
z = torch.tensor([[2.0, -1.0, 0.5, -3.0], [-0.5, 1.5, -2.0, 0.0]], dtype=torch.float64)
k = torch.tensor([[1, 0, 0, 1], [0, 1, 1, 0]])
e = (z / 3).exp()
f = e / (e + ((1 - k) * e).sum(1, keepdim=True))  # a positive against all negatives
by_hand = (-(k * f.log()).sum(1) / k.sum(1)).mean()
assert torch.isclose(by_hand, pal_n_loss(z, k, temperature=3.0))
print(f"softmax, T = 3: {by_hand:.4f} nats")

# %% [markdown]
r"""
**1/k softmax** (Mahajan et al., 2018) has all classes in the denominator. Each of an image's $k$ labels has the weight $1/k$.
"""

# %% tags=["learn"]
by_hand = (-(k / k.sum(1, keepdim=True) * z.log_softmax(1)).sum(1)).mean()
assert torch.isclose(by_hand, one_over_k_softmax_loss(z, k))
print(f"1/k softmax: {by_hand:.4f} nats")

# %% [markdown]
r"""
**Label smoothing** for sigmoids replaces the labels by $\sigma(\pm 9)$ and uses Eq. 13. It is like a teacher that answers 9
or −9 without looking at the picture.
"""

# %% tags=["learn"]
by_hand = bernoulli_kl(9.0 * (2 * k.double() - 1), z)
assert torch.isclose(by_hand, label_smoothing_loss(z, k))
epsilon = 1 / (1 + np.exp(9.0))
print(f"label smoothing: {by_hand:.4f} nats; a label moves by {epsilon:.5f}")

# %% [markdown]
r"""
A label that moves by 0.0001 is hardly soft. But the loss now has its minimum at finite logits, at ±9.

**The softmax losses give no calibration.** They do not change if a constant is added to all logits of an image. So training
does not determine that constant, and the sigmoid of such a logit means nothing. There is no ECE, no threshold and no F1. Only
the order has a meaning, so we report only the mAP (of the softmax score).
"""

# %% tags=["learn"]
temperature_softmax = lambda z: pal_n_loss(z, k, temperature=3.0)
for loss in (temperature_softmax, lambda z: one_over_k_softmax_loss(z, k)):
    assert torch.isclose(loss(z), loss(z + 7.0))  # a constant changes nothing
for loss in (ova_loss, label_smoothing_loss):
    assert loss(z + 7.0, k) > loss(z, k) + 1

# %% tags=["report"]
rivals = {name: [load_or_run(recipe) for recipe in recipes] for name, recipes in hard_labels().items()}
assert all("ECE" not in r.metrics["test"] for name in rivals if "softmax" in name for r in rivals[name])
try:
    rivals["1/k softmax"][0].probabilities()
except ValueError as refused:
    print("refused:", str(refused).split(" were ")[-1])

# %% tags=["report"]
gains = {name: 100 * (stored(runs, "mAP") - stored(baselines, "mAP"))
         for name, runs in {**rivals, "KD, wide teacher": students}.items()}
gains = {name: values for name, values in gains.items() if np.isfinite(values).all()}
show(plots.seed_intervals(gains, "mAP minus the baseline's, points", "three losses on hard labels, and KD", zero=True),
     "Difference in mAP to the baseline for three losses on hard labels and for KD, with 95 % intervals over five seeds")

# %% tags=["report"]
rows = {}
for name, runs in {**rivals, "KD, wide teacher": students}.items():
    rows[name] = {}
    for key in ("mAP", "mAP_difficult"):
        change = difference(stored(runs, key), stored(baselines, key))
        rows[name] |= {METRICS[key]: spread(stored(runs, key)), f"{key} − baseline": interval(change), f"{key} is": change.verdict}
    if name in rivals:
        rest = difference(stored(students, "mAP"), stored(runs, "mAP"))
        rows[name] |= {"KD − this, mAP": interval(rest), "KD is": rest.verdict}
pd.DataFrame(rows).T.fillna("")

# %% [markdown]
r"""
### The training or the score?

The two softmax losses lie 15 and 9 points below the baseline. But these rows do not compare like with like. Their mAP ranks
images by a *softmax* score, and the baseline's by a sigmoid. A softmax shares a total of 1 among the labels of an image:
with three objects each gets about a third, with one object it gets everything. That spoils the ranking of images, whatever
the training was. So we read **every** network in the same three ways: by the logit, by the logit minus its mean over the
image's classes, and by the softmax. (The paper does not say which score it used.)
"""

# %% tags=["learn"]
READINGS = {"logit": lambda z: z,
            "logit − image mean": lambda z: z - z.mean(1, keepdim=True),
            "softmax": lambda z: z.softmax(1)}


def mAPs(runs, score):
    """The mAP of each run, with its images ranked by a score of the logits."""
    return [mean_average_precision(score(r.test_logits.double()), y, test.difficult) for r in runs]

# %% tags=["report"]
READ = {"baseline": baselines} | {name: runs for name, runs in rivals.items() if "softmax" in name}
ranked = {name: {way: mAPs(runs, score) for way, score in READINGS.items()} for name, runs in READ.items()}
assert np.allclose(ranked["baseline"]["logit"], stored(baselines, "mAP"), equal_nan=True)  # a sigmoid keeps the order
assert np.allclose(ranked["1/k softmax"]["softmax"], stored(rivals["1/k softmax"], "mAP"), equal_nan=True)
show(plots.interval_bars(list(READ), {way: [100 * np.array(ranked[name][way]) for name in READ] for way in READINGS},
                         "mAP, per cent", "three ways to read the same networks"),
     "mAP of the baseline and of two softmax losses, each read by its logits, by centred logits and by a softmax")

# %% tags=["report"]
rows, fair = {}, {}
for name in list(READ)[1:]:
    for way in READINGS:
        fair[name, way] = difference(ranked[name][way], ranked["baseline"][way])
        rows[name, f"both by {way}"] = {"mAP − baseline": interval(fair[name, way]), "is": fair[name, way].verdict}
costs = difference(ranked["baseline"]["softmax"], ranked["baseline"]["logit"])
say(f"Reading the *baseline* by a softmax changes its mAP by {interval(costs)} points: **{costs.verdict}**. The network is the same.")
assert profile() == "smoke" or [fair[name, "softmax"].verdict for name in list(READ)[1:]] == ["lower", "not detected"]
pd.DataFrame(rows).T

# %% [markdown]
r"""
The rows "both by softmax" compare the trainings alone; the table before also compares the scores. With both networks read by
a softmax, no difference between the 1/k softmax and the baseline is detected, and softmax with temperature is still 5 points
lower. Which comparison counts? An application that ranks the images of one class needs a score that can be compared across
images. These losses give none, and that is a cost of the loss. An application that ranks the classes of one image does not
pay this cost.

Label smoothing gives probabilities, so we can compare all metrics:
"""

# %% tags=["report"]
smoothing = rivals["label smoothing"]
pd.concat({"label smoothing − baseline": compared(smoothing, baselines), "KD − label smoothing": compared(students, smoothing)},
          axis=1)

# %% [markdown]
r"""
No difference between label smoothing and the baseline is detected in any metric. KD is better calibrated than both.

**Think:** what would label smoothing with target logits ±2 do to NLL and to ECE? Would its mAP have to change?

<details><summary>Answer</summary>
It asks for probabilities of 0.88 and 0.12 even where the labels are clear. The network becomes underconfident. Most labels are
absent, so the ECE rises to about 0.1, and the NLL rises with it. The mAP depends on the order of the images alone. Moving all
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

# %% tags=["learn"]
check("05.4", my_soft_labels)

# %% [markdown]
r"""
## 11. On photographs

Now we use the paper's own setting: pretrained networks, photographs, and a teacher that is larger and sees more pixels.
`photos` are the photographs of lesson 03, section 11. The student is an EfficientNet-Lite0 at 128 px. The teacher is an
EfficientNet-Lite2 at 224 px. It sees the same region of the photograph, with the same flip. It was trained with CutOut and
the calibration branch at λ = 0.1. Both networks start from ImageNet weights. The teacher's mAP is ten points higher than that
of a student of hard labels. How many of these points does the student gain, and what happens to its pooled ECE?
"""

# %% tags=["learn"]
guess_photo_gain = ...  # mAP of the KD student minus mAP of hard labels, in points
guess_photo_ece = ...  # the KD student's pooled ECE, in per cent; that of hard labels is about 2

# %% tags=["report"]
from udlib.course.evidence import differences as paired_on, evidence_figure, evidence_table
from udlib.course.measurements import metric_values
from udlib.course.photo_arms import photos
from udlib.figures.text import as_markdown

ARMS = {"hard labels": "baseline", "teacher": "teacher", "KD": "KD"}
on_photos = {name: photos()[arm] for name, arm in ARMS.items()}
HEADS = {"mAP": "mAP, %", "mAP_difficult": "mAP Difficult, %", "ECE_pooled": "pooled ECE, %",
         "overconfidence": "overconfidence, points", "NLL": "NLL, nats"}
say(as_markdown(evidence_table(on_photos, HEADS, "hard labels")))

# %% tags=["report"]
gaps = {metric: paired_on(on_photos, "hard labels", metric) for metric in HEADS}
intervals += [f"photographs, {metric}" for metric in HEADS for _ in gaps[metric]]
in_points = {metric: title.split(",")[0] for metric, title in HEADS.items() if metric != "NLL"}
show(evidence_figure(on_photos, in_points, "hard labels"),
     "Differences of the teacher and of its student from hard labels on photographs, with 95 % intervals over five seeds")
check_guess("gain in mAP on photographs", guess_photo_gain, 100 * gaps["mAP"]["KD"].mean, " points")
check_guess("pooled ECE on photographs", guess_photo_ece, 100 * np.mean(metric_values(on_photos["KD"], "ECE_pooled")), " %")
assert gaps["mAP"]["KD"].verdict == "not detected" and gaps["ECE_pooled"]["KD"].verdict == gaps["NLL"]["KD"].verdict == "lower"

# %% [markdown]
r"""
KD does not detectably change the student's mAP: the interval ends at one point, although the teacher is ten points ahead.
KD improves the calibration. It halves the pooled ECE, from 1.9 to 1.0 %, and lowers the NLL and the overconfidence. The
student's pooled ECE is even below its teacher's, and we have no explanation for that.

But temperature scaling is a cheaper way to calibrate (lesson 04). It fits one number on validation, needs no teacher, and
takes a second. Is KD still better than hard labels after temperature scaling?
"""

# %% tags=["report"]
rows = [["KD minus hard labels after temperature scaling", "difference", "is"]]
for metric, scale, digits, unit in (("ECE_pooled", 100, 2, "points"), ("NLL", 1, 4, "nats")):
    rival = metric_values(on_photos["hard labels"], f"test/temperature {metric}")
    change = difference(metric_values(on_photos["KD"], metric), rival)
    assert change.verdict == "lower"
    rows.append([HEADS[metric].split(",")[0], f"{interval(change, scale, digits)} {unit}", f"**{change.verdict}**"])
say(as_markdown(rows))

# %% [markdown]
r"""
Yes. KD's pooled ECE is half a point lower, and its NLL is lower too. A temperature divides every logit by the same number,
while the teacher's answers differ for each label of each picture. Whether half a point of pooled ECE is worth training a
teacher depends on what you need the probabilities for.

### Exercise ★★★ (open): predict, then test

You have 2,000 labelled pictures and 10,000 more without labels. A teacher was trained on the labelled ones. The student may
learn from the teacher's answers on (a) the labelled pictures, (b) the others, or (c) both. Predict the order of their mAP and
of their pooled ECE, with a reason for each from sections 2 to 4. Then design the test.

One point each:

1. You use what a teacher says about pictures that it has memorised.
2. You use what more pictures average out, and what they do not.
3. All arms take the same number of training steps.
4. A control separates "more pictures" from "soft labels".

<details><summary>A worked answer</summary>

On its own training pictures the teacher mostly repeats the hard labels, so (a) adds little softness. On new pictures its
answers are real predictions: (b) passes on what it knows, and its errors. More pictures average out the noise of single
labels, but not the teacher's bias. So I predict the best mAP for (c). For (b) I predict a calibration close to the teacher's on
new pictures: overconfident if the teacher is. The test: equal steps for all arms, with the baseline on hard labels beside them.
The control: round the teacher's answers on the new pictures to 0 and 1. (c) minus the control shows what softness gives. The
control minus the baseline shows what more pictures give. Five seeds, paired.

</details>

## Summary

- A soft label is a probability in place of 0 or 1. KD on sigmoids (Eq. 13) is binary cross-entropy with soft labels, up
  to the teacher's entropy, which has no gradient.
- A hard label has two kinds of noise: the annotator's coin, and what the picture does not show. The posterior of the scene
  removes the first. A teacher's answers contain neither, but they contain its own bias. More images do not average out a bias.
- On its own training images a teacher repeats the labels that it has memorised. There its soft labels are close to hard labels.
- The temperature $T$ in the loss does not ask for softer answers. It decides which disagreements count: at $T = 1$ those in
  probability, at high $T$ those in logits. The factor $T^2$ keeps the size of the gradient comparable.
- A loss on a softmax alone does not determine the level of the logits. It gives no calibration, and no score that can be
  compared across images. Before you compare two trainings, read both networks in the same way.
- Judge a gain by a paired interval. Judge whether two gains differ by the interval of their difference.

What we found:

- On photographs KD halves the pooled ECE, from 1.9 to 1.0 %. No change of the mAP is detected. Temperature scaling alone
  does not reach this ECE.
- On `scenes` KD raises the mAP by 0.8 points with flips and by 2.4 points with CutOut. Without augmentation, where the teacher
  has memorised its training images, no gain is detected. But no difference from the gain with flips is detected either.
- On `scenes` KD lowers the pooled ECE, the true calibration error and the NLL in all three regimes.
- At $T = 3$ and $5$ the student's mAP is lower and its pooled ECE higher than at $T = 1$.
- Soft labels without a teacher do not raise the mAP.

The numbers behind these sentences:
"""

# %% tags=["report"]
rows = [["KD student minus baseline", *REGIMES]]
for title, metric in (("mAP", "mAP"), ("pooled ECE", "ECE_pooled"), ("true error", "true_CE_pooled"), ("NLL", "NLL")):
    scale, digits, unit = SCALE[metric], DIGITS[metric], "nats" if metric == "NLL" else "points"
    changes = [difference(stored(by_regime[regime, "KD"], metric), stored(by_regime[regime, "baseline"], metric))
               for regime in REGIMES]
    rows.append([f"{title}, {unit}", *(f"{scale * d.mean:+.{digits}f} [{scale * d.low:+.{digits}f}, {scale * d.high:+.{digits}f}], "
                                       f"**{d.verdict}**" for d in changes)])
    expected = ["not detected", "higher", "higher"] if metric == "mAP" else 3 * ["lower"]
    assert profile() == "smoke" or [d.verdict for d in changes] == expected
say(as_markdown(rows))

# %% tags=["report"]
for metric, title in in_points.items():
    change = gaps[metric]["KD"]
    say(f"- On photographs, {title}, KD minus hard labels: {in_units(change)}, **{change.verdict}**.")
for name, runs in rivals.items():
    change = difference(stored(runs, "mAP"), stored(baselines, "mAP"))
    alike = fair.get((name, "softmax"))
    say(f"- {name} minus baseline: mAP {100 * change.mean:+.2f} [{100 * change.low:+.2f}, {100 * change.high:+.2f}] points, "
        f"**{change.verdict}**" + (f"; both read by a softmax {100 * alike.mean:+.2f}, **{alike.verdict}**" if alike else "") + ".")
    assert profile() == "smoke" or change.verdict != "higher"
say(f"This lesson shows {len(intervals)} intervals. If no method had any effect, about {len(intervals) / 20:.0f} of them would miss "
    "0 by chance. They are not independent: many of them use the same networks.")

# %% [markdown]
r"""
These are results for small networks and small pictures. They need not hold for a ResNet-101 that teaches a ResNet-18.
Section 11 had ImageNet weights and photographs, but at 128 px. Lesson 11 runs the same recipes at full size.

**Next.** [Lesson 06](06_uncertainty_attention.ipynb) is about the second thing that the paper passes from teacher to student: a
map of where the network is uncertain.

## Further reading

- G. Hinton, O. Vinyals and J. Dean, *Distilling the Knowledge in a Neural Network*, 2015: soft labels, T, and T².
- L. Song et al., *Handling Difficult Labels for Multi-label Image Classification via Uncertainty Distillation*, ACM MM
  2021: Eq. 13, Tables 3 and 5.
- A. K. Menon et al., *A Statistical Perspective on Distillation*, ICML 2021: a teacher as an estimate of the posterior.
- H. Zhou et al., *Rethinking Soft Labels for Knowledge Distillation: A Bias-Variance Tradeoff Perspective*, ICLR 2021.
- R. Müller, S. Kornblith and G. Hinton, *When Does Label Smoothing Help?*, NeurIPS 2019: also on why it makes a worse teacher.
- S. Stanton et al., *Does Knowledge Distillation Really Work?*, NeurIPS 2021: a student rarely matches its teacher.
- T. Kim et al., *Comparing Kullback-Leibler Divergence and Mean Squared Error Loss in Knowledge Distillation*, IJCAI 2021.
- D. Mahajan et al., *Exploring the Limits of Weakly Supervised Pretraining*, ECCV 2018: the 1/k softmax.
- Y. Liu et al., *Multi-Label Image Classification via Knowledge Distillation from Weakly-Supervised Detection*, ACM MM 2018.
"""
