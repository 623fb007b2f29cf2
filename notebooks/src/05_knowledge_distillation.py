# %% [markdown]
r"""
# 05 · Knowledge distillation: labels from a teacher

[← 04 · How calibrated? ECE and its traps](04_ece_analysis.ipynb) · [06 · Uncertainty attention →](06_uncertainty_attention.ipynb)

**Aim.** You will learn what a soft label is worth, derive the paper's distillation loss (Eq. 13), and see what a temperature
changes in it. Then you will measure, with error bars, how a student's accuracy *and* calibration change.

**Prerequisites.** Lessons 02 to 04: binary cross-entropy, paired differences, ECE, the known posterior, the calibration branch.

**Time.** About two hours with the exercises. The cells run in less than a minute: networks are loaded, not trained.
"""

# %% tags=["setup", "report"]
import numpy as np
import torch
from torch.nn import functional as F

from udlib import calibration, posthoc
from udlib.course.exercises import check, check_choice, check_guess
from udlib.course.sentences import Differences, difference as uncounted, in_table, say, spread, stored
from udlib.datasets.transforms import normalise
from udlib.figures import overlays, plots
from udlib.figures.plots import show
from udlib.figures.text import as_markdown
from udlib.losses import bernoulli_kl, label_smoothing_loss, one_over_k_softmax_loss, ova_loss, pal_n_loss
from udlib.metrics import mean_average_precision
from udlib.statistics import paired_difference

# %% tags=["setup", "report"]
from udlib.course.store import arrays, dataset, for_profile, load_model, load_or_run, profile
from udlib.course.recipes import SEEDS, SWEEP_SEEDS, TEACHERS, TEMPERATURES, baseline, hard_labels, pairs
from udlib.course.recipes import regimes, regimes_distilled, temperatures, two_branch

MEASURED = profile() != "smoke"  # in the tests' short profile, networks are trained for a few steps only

# %% [markdown]
r"""
Sections 1 to 10 use `scenes`, whose [posterior](../docs/glossary.md#posterior) is known; section 11 uses photographs. A "point" is
one per cent. Differences are [paired by seed](../docs/glossary.md#paired-by-seed) and come with a 95 % t interval, over five seeds
unless a section says three. Tables print detected differences in bold.
"""

# %% tags=["setup", "report"]
METRICS = {"mAP": ("mAP, points", 100, 2), "mAP_difficult": ("mAP Difficult, points", 100, 2),
           "ECE_pooled": ("pooled ECE, points", 100, 2), "true_CE_pooled": ("true error, pooled, points", 100, 2),
           "NLL": ("NLL, nats", 1, 4)}
difference = Differences()  # counts the intervals over seeds that this lesson draws


def show_differences(pairs_of_runs, metrics):
    """A table of a − b, a row for each pair (a, b) of lists of runs; returns the differences."""
    gaps = {name: {key: difference(stored(a, key), stored(b, key)) for key in metrics} for name, (a, b) in pairs_of_runs.items()}
    say(as_markdown([["difference", *(METRICS[key][0] for key in metrics)],
                     *([name, *(in_table(gap[key], *METRICS[key][1:]) for key in metrics)] for name, gap in gaps.items())]))
    return gaps

# %% [markdown]
r"""
## 1. First, a picture

We compare three networks.

- The **teacher** is the wide network with the [calibration branch](../docs/glossary.md#calibration-branch) at λ = 0.1.
- The **student** is the small network of the baseline. It never saw a hard label: it was trained on the teacher's answers
  to the training images. This is [knowledge distillation](../docs/glossary.md#distillation-knowledge-distillation-kd) (KD).
- The **baseline** is the same small network, trained on the labels.

![The teacher was trained on hard labels before. Its sigmoids are the soft labels of the student. Eq. 13 compares them class by class, and the gradient goes to the student alone.](images/what_kd_hands_on.svg)

A rule picks three validation images: the label with the lowest posterior among the marked ones, the label with the highest
posterior among the omitted ones, and the image whose labels are least certain.
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
shows a car in full view, the other a car that is a grey smudge. Where is the teacher close to the hard label, and where is it
close to the posterior?

### Predict

With a ResNet-101 as its teacher, the paper's ResNet-18 goes from 90.48 to 91.41 mAP on VOC2007 and from 75.60 to 76.05 on COCO
(Table 3; Table 5 has 88.91 for the same ResNet-18 on hard labels, so the gain may be larger). The paper does not report calibration. Write your guesses for our student:
"""

# %% tags=["learn"]
guess_gain = ...  # mAP of the student minus mAP of the baseline, in points; for example -2
guess_ece = ...  # the student's pooled ECE, in per cent; the baseline's is about 2
guess_T = ...  # the temperature with the highest mAP: 1.0, 3.0 or 5.0

# %% [markdown]
r"""
## 2. What a label is worth

A common explanation of distillation (Menon et al., 2021) is that *a good teacher gives you the posterior*. A hard label
is like one throw of a coin that shows 1 with probability $\pi$ = P(y = 1): right on average, but noisy,
$\mathbb{E}(y - \pi)^2 = \pi (1 - \pi)$. A soft label has no such noise. Which label is closer to the posterior of the scene?
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
say(as_markdown([["label", "mean squared distance to the posterior"], ["hard label", f"{distance(y):.4f}"],
                 *([name, spread(values, 1, 4)] for name, values in near.items())]))
change = difference(near["student (KD)"], near["baseline"])
assert distance(y) < min(np.mean(values) for values in near.values())
assert not MEASURED or change.verdict == "lower" and distance(y) < np.mean(near["teacher"]) / 3

# %% [markdown]
r"""
The hard label, by a factor of three. That does not make the teacher useless. The posterior of the *scene* knows everything
that was drawn, for example a cup behind the lamp; the picture does not show all of it. A network can learn only the posterior
**given the picture**, $\mathbb{E}[\pi \,|\, x]$. So a hard label carries two kinds of noise:

$$\mathrm{Var}(y \,|\, x) = \underbrace{\mathbb{E}[\pi (1 - \pi) \,|\, x]}_{\text{the annotator's coin}} +
\underbrace{\mathrm{Var}(\pi \,|\, x)}_{\text{what the picture does not show}}$$

In numbers: of all scenes whose pictures look alike, 30 % contain a cup with $\pi = 0.9$ and the others contain none.
"""

# %% tags=["learn"]
share = torch.tensor([0.3, 0.7]).double()  # of the scenes that look alike
chance = torch.tensor([0.9, 0.0]).double()  # π in each kind of scene
mean = share @ chance  # E[π | x], all that a network can say
coin_part, unseen_part = share @ (chance * (1 - chance)), share @ (chance - mean) ** 2
variance = mean * (1 - mean)  # y given x is Bernoulli(mean)
assert torch.isclose(coin_part + unseen_part, variance)
print(f"variance of the label {variance:.4f} = coin {coin_part:.4f} + unseen {unseen_part:.4f}")

# %% [markdown]
r"""
The posterior of the scene removes only the first kind of noise. A teacher's answers contain neither kind, because a teacher
sees only the picture. But they contain the teacher's own errors.

### Learning from three kinds of labels

Which label is the best to *learn* from? On the baseline's frozen features of a few validation images we train a linear head, with
the hard labels, the posterior of the scene, or a teacher's probabilities. Each repetition draws other images and takes the
teacher of another seed.
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

# %% tags=["learn"]
def measure_head(head):
    """mAP in per cent and pooled true error in points of a head on the test images."""
    q, n = torch.sigmoid(head(features["test"]).detach().double()), len(features["test"])
    true_error = calibration.true_calibration_error(q, posterior[:n], average="pooled")
    return 100 * mean_average_precision(q, y[:n], test.difficult[:n]), 100 * true_error


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
scores = {title: {name: [[run[name][k] for run in by_label[n]] for n in sizes] for name in by_label[sizes[0]][0]}
          for k, title in enumerate(("mAP, %", "true error, pooled, %"))}
show(plots.panels(sizes, scores, "labelled images"),
     "mAP and true error of heads trained on hard labels, on the posterior and on a teacher, against the number of images")

# %% tags=["report"]
COLUMNS = [("posterior", "hard label", "mAP, %"), ("teacher", "posterior", "mAP, %"), ("teacher", "posterior", "true error, pooled, %")]
by_size = {n: [difference(scores[title][a][k], scores[title][b][k]) for a, b, title in COLUMNS] for k, n in enumerate(sizes)}
say(as_markdown([["images", *(f"{a} − {b}: {title.removesuffix(', %')}, points" for a, b, title in COLUMNS)],
                 *([str(n), *(in_table(gap, 1) for gap in gaps)] for n, gaps in by_size.items())]))
if MEASURED:
    verdicts = {n: [gap.verdict for gap in gaps] for n, gaps in by_size.items()}
    assert all(first == "higher" for first, _, _ in verdicts.values())
    assert [verdicts[n][1:] for n in (50, 100, 900)] == [["higher", "lower"], ["higher", "lower"], ["lower", "higher"]]

# %% [markdown]
r"""
- The posterior gives a higher mAP than hard labels at every size: it has no coin.
- With 50 and 100 images the teacher's labels are better still. A network's opinion of the picture teaches more than the truth
  about the scene. (The teacher also brings what it learned from 2,000 other images.)
- With 900 images the order is reversed. More images average out the noise of single labels, but not the teacher's own errors.
  Those are a **bias**, and the head learns it. (Where the curves cross depends on `decay`, which we set after a look at
  these test images: try 0.001.)

So *a good teacher gives you the posterior given the picture, plus its own bias*. Every soft label trades less variance for some
bias (Zhou et al., 2021).

## 3. A teacher and its training images

In that experiment the teacher had never seen the images that it labelled. In the paper's protocol, and ours, the teacher labels
the **training** images, and it was trained to repeat exactly their hard labels. What does it answer there?

We sort the labels into three bands by their posterior. In each band we compare the teacher's mean answer where the annotator's
coin showed 1 and where it showed 0. Someone who knows only the posterior would answer about the same in both cases.
"""

# %% tags=["report"]
training = arrays(for_profile(baseline()), "train")
hard, seen = training.targets.double(), dataset("scenes", "train", 64, baselines[0].recipe.limit).posterior.double()


def on_training(model):
    """A network's probabilities for its own training images, (N, C)."""
    with torch.inference_mode():
        parts = [model(normalise(part), calibration=False).logits for part in training.images.split(250)]
    return torch.sigmoid(torch.cat(parts).double())


at_home = {"teacher": on_training(load_model(two_branch(0.1, network="small_wide")[0])), "baseline": on_training(network)}
memory = {name: calibration.negative_log_likelihood(q, hard) for name, q in at_home.items()}
floor = calibration.expected_nll_floor(seen)  # of someone who knows the posterior of every scene

# %% tags=["report"]
BANDS = {"5 to 30 %": (0.05, 0.3), "30 to 70 %": (0.3, 0.7), "70 to 95 %": (0.7, 0.95)}


def by_coin(q, labels, chances):
    """For each band of the posterior: mean answer where the coin showed 1, and where it showed 0."""
    inside = [(chances >= low) & (chances < high) for low, high in BANDS.values()]
    return {f"label {side}": [100 * q[band & (labels == side)].mean().item() for band in inside] for side in (1, 0)}


answers = {"training": by_coin(at_home["teacher"], hard, seen), "new": by_coin(teachers[0].probabilities("val"), marks, odds)}
sides = {side: [value for where in answers for value in answers[where][side]] for side in ("label 1", "label 0")}
show(plots.dots([f"{where}, π {band}" for where in answers for band in BANDS], sides, "the teacher's mean probability, per cent"),
     "The teacher's mean probability where the label is 1 and where it is 0, for three bands of the posterior, on training and on new images")

# %% tags=["report"]
split = {where: np.nanmean(np.subtract(sides["label 1"], sides["label 0"])) for where, sides in answers.items()}
assert not MEASURED or (round(split["training"]) == 88 and abs(split["new"]) < 10)
of_baseline = by_coin(at_home["baseline"], hard, seen)
assert not MEASURED or round(np.mean(np.subtract(of_baseline["label 1"], of_baseline["label 0"]))) == 58
assert not MEASURED or [round(value, 3) for value in (memory["teacher"], floor, memory["baseline"])] == [0.010, 0.037, 0.044]

# %% [markdown]
r"""
On new images the teacher's answer does not depend on how the coin fell. On its training images it repeats the label: its
answers differ by 88 points. Its NLL there is 0.010 nats. Nobody can predict a coin, so someone who knows every posterior would
have 0.037 nats. A network below this floor must have memorised labels. The small baseline, at 0.044 nats, is above it, but
its answers on training images differ by 58 points too: it has memorised many labels, and the teacher nearly all.

**Think:** how could a teacher label images that it was *not* trained on, without any new images?

<details><summary>Answer</summary>
Use cross-fitting. Split the training images into two halves, train one teacher on each half, and let each teacher label the other
half.
</details>

## 4. Eq. 13 and its code

The student's sigmoids $S_i$ should match the teacher's sigmoids $T_i$. Their distance is the
[KL divergence](../docs/glossary.md#kl-divergence) of two Bernoulli distributions:

$$L'_b = \frac1C \sum_{i=1}^{C} \mathrm{KL}\big(T_i \,\|\, S_i\big), \qquad
\mathrm{KL}(p \,\|\, q) = p \log\frac{p}{q} + (1 - p) \log\frac{1 - p}{1 - q} \qquad \text{(Eq. 13)}$$

($T_i$ is the paper's letter for the teacher's probability; the temperature $T$ of section 5 is something else.) Here it is for two images
and three classes, as a plain loop:
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
binary cross-entropy of lesson 02 with $p$ in place of $y$. The teacher's entropy $H(p)$ has no gradient.
"""

# %% tags=["learn"]
p = torch.sigmoid(t)
entropy = torch.distributions.Bernoulli(p).entropy().mean()
assert torch.isclose(bernoulli_kl(t, s), F.binary_cross_entropy_with_logits(s, p) - entropy)

z = s.clone().requires_grad_()
gradient, = torch.autograd.grad(bernoulli_kl(t, z, reduction="none").sum(), z)
assert torch.allclose(gradient, (torch.sigmoid(s) - torch.sigmoid(t)) / 3)  # (σ(s) − σ(t)) / C

targets = torch.tensor([[1, 0, 1], [0, 1, 0]])
certain = 40.0 * (2 * targets.double() - 1)  # a teacher that has no doubt and is always right
assert torch.isclose(3 * bernoulli_kl(certain, s), ova_loss(s, targets))  # C times Eq. 13 is Eq. 3

# %% [markdown]
r"""
In the gradient, $(\sigma(s) - y)$ has become $(\sigma(s) - \sigma(t))$. Three things follow.

- If the teacher's probabilities are the hard labels, distillation *is* training on hard labels.
- A hard label keeps pushing the logit towards infinity. With a soft label, the loss has its minimum at $s = t$. That may keep a
  student from becoming overconfident.
- Eq. 13 takes the **mean** over classes, and Eq. 3 (BCE) the **sum**. Here the factor $C$ does not matter, because it does not
  change the steps of Adam. In lesson 07 other terms stand beside Eq. 13, and then it does.

## 5. A temperature

Hinton et al. (2015) divide the logits of both networks by a [temperature](../docs/glossary.md#temperature) $T$ and multiply the loss
by $T^2$. The UD paper does not mention a temperature, but its released code uses $T = 3$. The loss and its gradient:

$$T^2 \cdot \frac1C \sum_i \mathrm{KL}\big(\sigma(t_i/T) \,\|\, \sigma(s_i/T)\big), \qquad
\frac{\partial}{\partial s} = \frac{T}{C}\,\big(\sigma(s/T) - \sigma(t/T)\big)$$

The chain rule gives one factor $1/T$, and the flattened sigmoids about another one. The factor $T^2$ makes up for both, so the size
of the gradient stays comparable.

This temperature does **not** ask for softer answers: at every $T$ the loss is 0 exactly where $s = t$. (Lesson 04 divides the
logits when the network is *used*. Our students are used at $T = 1$.) What $T$ changes is how much each disagreement costs.
"""

# %% tags=["learn"]
for T in (1.0, 3.0, 5.0):
    z = s.clone().requires_grad_()
    each_image = bernoulli_kl(t, z, T, reduction="none")
    gradient, = torch.autograd.grad(each_image.sum(), z)
    assert torch.allclose(gradient, T * (torch.sigmoid(s / T) - torch.sigmoid(t / T)) / 3)
    assert torch.isclose(bernoulli_kl(t, t, T), torch.tensor(0.0).double())
    norm = gradient.norm()
    print(f"T = {T:g}: gradient norm {norm:.4f}, without T² {norm / T**2:.4f}")

# %% tags=["report"]
student_logit, teacher_logit = np.linspace(-2, 12, 57), 6.0  # the teacher says 0.998
pull = {f"T = {T:g}": (T * (torch.sigmoid(torch.tensor(student_logit) / T) - torch.sigmoid(torch.tensor(teacher_logit / T)))).tolist()
        for T in TEMPERATURES} | {"limit": ((student_logit - teacher_logit) / 4).tolist()}
show(plots.lines(student_logit, pull, "the student's logit s", "C × gradient", "the teacher's logit is 6", markers=False),
     "Gradient against the student's logit for T = 1, 3, 5 and the limit: flat near the teacher at T = 1, a line in the limit")

# %% [markdown]
r"""
At $T = 1$ the loss hardly distinguishes logits of 4, 6 and 10: all mean *yes*. At $T = 5$ a student that says 10 where the
teacher says 6 is corrected downwards. So a high temperature passes on **how confident** the teacher is.

For $T \to \infty$ the sigmoid becomes a straight line around ½ with slope ¼, where the divergence is $2 (p - q)^2$. So

$$T^2\, \mathrm{KL} \;\longrightarrow\; 2 T^2 \Big( \frac{t - s}{4 T} \Big)^2 = \tfrac18 (t - s)^2 .$$

At a high temperature, distillation is **regression on logits**. The ratio of the loss to this limit:
"""

# %% tags=["learn"]
limit = ((t - s) ** 2).mean().item() / 8
ratios = {T: bernoulli_kl(t, s, T).item() / limit for T in (1.0, 3.0, 5.0, 10.0, 30.0, 100.0)}
assert abs(ratios[100.0] - 1) < 1e-3
assert abs(ratios[100.0] - 1) < abs(ratios[10.0] - 1) < abs(ratios[1.0] - 1)
print({f"{T:g}": round(ratio, 4) for T, ratio in ratios.items()})

# %% [markdown]
r"""
**Think:** a teacher is overconfident on its training images. What do you expect of its student's calibration at high $T$?

<details><summary>Answer</summary>
It should get worse: a high temperature passes on the teacher's overconfidence too. Section 8 measures it.
</details>

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

Table 3 of the paper has no error bars and no calibration. We measure both with five seeds at $T = 1$.
"""

# %% tags=["report"]
gaps = {key: difference(stored(students, key), stored(baselines, key)) for key in METRICS}
ahead = difference(stored(teachers, "mAP"), stored(baselines, "mAP"))
say(as_markdown([["mean ± sd over seeds", *GROUPS, "student − baseline"],
                 *([title.replace("points", "%"), *(spread(stored(runs, key), *scale) for runs in GROUPS.values()), in_table(gaps[key], *scale)]
                   for key, (title, *scale) in METRICS.items())]))
if MEASURED:
    assert [gap.verdict for gap in gaps.values()] == ["higher", "not detected", "lower", "lower", "lower"]
    assert round(100 * gaps["mAP"].mean, 1) == 0.8 and 0.18 < gaps["mAP"].mean / ahead.mean < 0.22
check_guess("gain in mAP", guess_gain, 100 * gaps["mAP"].mean, " points")
check_guess("the student's pooled ECE", guess_ece, 100 * stored(students, "ECE_pooled").mean(), " %")

# %% tags=["report"]
curves = {name: calibration.reliability_curve(runs[0].probabilities(), y, average="pooled") for name, runs in GROUPS.items()}
show(plots.reliability(curves, "test images, seed 0", smallest=20),
     "Reliability diagrams of teacher, student and baseline, seed 0")

# %% [markdown]
r"""
KD raises the student's mAP by 0.8 points, a fifth of the teacher's lead. It also lowers the calibration errors and the
NLL. No change of the mAP on difficult labels is detected.

**Think:** in section 2 a head learned the errors of its teacher's probabilities. Is this student as overconfident as its
teacher?

<details><summary>Answer</summary>
No. It is less overconfident than its teacher, and than the baseline too; section 8 measures this. Three things differ from
section 2. The student learned on training images. It is too small to memorise them all. And a soft label has its minimum at a
finite logit. We have not tested which of the three matters most.
</details>

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

By section 4, a teacher that has memorised its training images completely should be worth nothing, however good it is on new
ones. To test this, we train teacher, student and baseline once more without any augmentation. A third regime goes the other way:
[CutOut](../docs/glossary.md#cutout-random-erasing) makes overfitting hard.
"""

# %% tags=["report"]
REGIMES = {regime: recipes for (regime, lam), recipes in regimes().items() if lam == 0}
recipes_of = {(regime, who): regimes_distilled()[regime, who] for regime in REGIMES for who in ("teacher", "KD")}
recipes_of |= {(regime, "baseline"): recipes for regime, recipes in REGIMES.items()}
by_regime = {key: [load_or_run(recipe) for recipe in recipes] for key, recipes in recipes_of.items()}
last = {regime: np.mean([r.history[-1]["ova"] for r in by_regime[regime, "teacher"]]) / len(test.classes) for regime in REGIMES}
assert [r.recipe for r in by_regime["flips", "KD"]] == [r.recipe for r in students]  # the course's regime
assert not MEASURED or last["no augmentation"] < last["flips"] < floor < last["CutOut"]

# %% tags=["report"]
BY_REGIME = ("mAP", "ECE_pooled", "NLL")
panels = {METRICS[key][0].replace("points", "%"): {who: [METRICS[key][1] * stored(by_regime[regime, who], key) for regime in REGIMES]
                                                   for who in ("baseline", "KD", "teacher")} for key in BY_REGIME}
if np.isfinite([values for panel in panels.values() for lines in panel.values() for values in lines]).all():
    show(plots.panels(list(REGIMES), panels, ""),
         "mAP, pooled ECE and NLL of baseline, KD student and teacher in each regime of training, with 95 % intervals over seeds")
in_regime = show_differences({f"{regime}: KD − baseline": (by_regime[regime, "KD"], by_regime[regime, "baseline"]) for regime in REGIMES},
                             BY_REGIME)
if MEASURED:
    assert [row["mAP"].verdict for row in in_regime.values()] == ["not detected", "higher", "higher"]
    assert {row[key].verdict for row in in_regime.values() for key in BY_REGIME[1:]} == {"lower"}

# %% [markdown]
r"""
The teachers' last training loss is below the floor of section 3 with flips, lower still without augmentation, and above the
floor with CutOut.

KD raises the mAP with flips and with CutOut. Without augmentation no gain is detected. But KD lowers the pooled ECE and the
NLL there too, so that teacher is not worth nothing. That no gain is detected does not prove that the gains
differ: we must test the difference between the two *gains*, seed by seed.
"""

# %% tags=["report"]
gains = {(regime, key): stored(by_regime[regime, "KD"], key) - stored(by_regime[regime, "baseline"], key)
         for regime in REGIMES for key in BY_REGIME[:2]}
versus = {regime: {key: difference(gains["flips", key], gains[regime, key]) for key in BY_REGIME[:2]} for regime in REGIMES if regime != "flips"}
say(as_markdown([["KD's change with flips minus its change with …", "mAP, points", "pooled ECE, points"],
                 *([regime, *map(in_table, row.values())] for regime, row in versus.items())]))
if MEASURED:
    assert {gap.verdict for gap in versus["no augmentation"].values()} == {"not detected"}
    assert {gap.verdict for gap in versus["CutOut"].values()} == {"lower"}
    assert [round(100 * gap.mean, 1) for gap in versus["CutOut"].values()] == [-1.6, -0.2]

# %% [markdown]
r"""
With CutOut, KD raises the mAP by 1.6 points more than with flips, and lowers the pooled ECE by 0.2 points less. Between
flips and no augmentation no difference is detected. So this does not show that a teacher's memory costs its student anything.

**Think:** how would you distinguish "the teacher is too confident on its training images" from "the teacher is simply worse"?

<details><summary>Answer</summary>
Keep the teacher, and let it label images that it was not trained on, as in section 2. Or keep the
images, and soften its answers with a temperature, which comes next.
</details>

## 8. The temperature, measured

We train students at $T \in \{1, 3, 5\}$, from a wide teacher and from one of the student's own size, with three seeds. The
dotted line is their baseline.
"""

# %% tags=["report"]
by_T = {key: [load_or_run(recipe) for recipe in recipes] for key, recipes in temperatures().items()}
beside = baselines[: len(SWEEP_SEEDS)]
panels = {METRICS[key][0].replace("points", "%"): {teacher: [METRICS[key][1] * stored(by_T[teacher, T], key) for T in TEMPERATURES]
                                                   for teacher in TEACHERS} for key in BY_REGIME}
dotted = {METRICS[key][0].replace("points", "%"): {"baseline": METRICS[key][1] * stored(beside, key).mean()} for key in BY_REGIME}
if np.isfinite([values for panel in panels.values() for lines in panel.values() for values in lines]).all():
    show(plots.panels(list(TEMPERATURES), panels, "temperature T", dotted),
         "mAP, pooled ECE and NLL of KD students against the temperature, for each teacher, with 95 % intervals over three seeds")

# %% tags=["report"]
hotter = show_differences({f"{teacher}: T = {T:g} − T = 1": (by_T[teacher, T], by_T[teacher, 1.0])
                           for teacher in TEACHERS for T in TEMPERATURES[1:]}, BY_REGIME)
if MEASURED:
    assert {tuple(gap.verdict for gap in row.values()) for row in hotter.values()} == {("lower", "higher", "higher")}
    ends = [sorted(round(100 * row[key].mean, 1) for row in hotter.values())[::3] for key in BY_REGIME[:2]]
    assert ends == [[-3.8, -2.4], [0.8, 1.7]]

# %% [markdown]
r"""
A higher temperature hurts these students. Against $T = 1$, it lowers the mAP by 2.4 to 3.8 points and raises the pooled
ECE by 0.8 to 1.7 points.

In which direction do the students err? The temperature that lesson 04 would fit to the *trained* student says it: above 1 the
student is overconfident, below 1 underconfident.
"""

# %% tags=["learn"]
def fit_T(r):
    return posthoc.fit_temperature(r.val_logits, r.labels("val").targets).temperatures[0]

# %% tags=["report"]
repairs = {f"{teacher}, T = {T:g}": [fit_T(r) for r in by_T[teacher, T]] for teacher in TEACHERS for T in TEMPERATURES}
repairs |= {"baseline": [fit_T(r) for r in beside], "teacher": [fit_T(r) for r in teachers[: len(beside)]]}
show(plots.seed_intervals(repairs, "temperature fitted on validation", "how overconfident are the students? three seeds"),
     "Temperature fitted on validation to students at three T, to the baseline and to the wide teacher, three seeds")
choices = {pick(TEMPERATURES, key=lambda T: stored(by_T[teacher, T], metric, "val").mean())
           for metric, pick in (("mAP", max), ("NLL", min)) for teacher in TEACHERS}
assert not MEASURED or choices == {1.0}
assert not MEASURED or np.mean(repairs["small_wide, T = 1"]) < np.mean(repairs["baseline"]) < np.mean(repairs["teacher"])
assert not MEASURED or all(1 < np.mean(repairs[f"{who}, T = 1"]) < np.mean(repairs[f"{who}, T = {T}"]) for who in TEACHERS for T in (3, 5))
check_choice("temperature with the best mAP", guess_T, {T: list(stored(by_T[TEACHERS[0], T], "mAP")) for T in TEMPERATURES})

# %% [markdown]
r"""
All students are overconfident, and more so at high $T$. Validation picks $T = 1$ for both teachers, by mAP and by NLL.

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

The picture compares a student with the baseline of the same seed. On which side of the diagonal is the student, and does $T$ move
it? Which class has the largest calibration error? (A calibration error may lie at the end of its interval, or outside: it is measured
too high by chance, and the interval corrects that, lesson 04.)
"""

# %% tags=["report"]
from udlib.course.explorers import TeacherExplorer

explorer = TeacherExplorer(by_T, beside, samples=20)
assert explorer.value == (TEACHERS[0], 1.0, 0)
explorer

# %% [markdown]
r"""
## 10. Soft labels without a teacher: Table 5

Does the teacher's knowledge help, or does it help that the labels are soft? The paper compares three ways to learn from hard
labels alone, for a ResNet-18 on VOC2007:

| the paper's Table 5 | mAP |
|---|--:|
| hard labels (BCE) | 88.91 |
| softmax with temperature | 90.27 |
| label smoothing | 90.48 |
| 1/k softmax | 91.37 |
| a teacher (KD) | 91.46 |
| a teacher, with attention | 91.67 |

All three beat BCE there, and the 1/k softmax nearly reaches the teacher.

- **Softmax with temperature** is the [partial softmax](../docs/glossary.md#partial-softmax) of lesson 03 at $z / T$, $T = 3$,
  on a network with a single branch.
- **1/k softmax** (Mahajan et al., 2018) has all classes in the denominator. Each of an image's $k$ labels has the weight $1/k$.
- **Label smoothing** for sigmoids replaces the labels by $\sigma(\pm 9)$ and uses Eq. 13. A label moves by only 0.0001, but the
  loss now has its minimum at finite logits.
"""

# %% tags=["learn"]
z = torch.tensor([[2.0, -1.0, 0.5, -3.0], [-0.5, 1.5, -2.0, 0.0]], dtype=torch.float64)
k = torch.tensor([[1, 0, 0, 1], [0, 1, 1, 0]])
e = (z / 3).exp()
f = e / (e + ((1 - k) * e).sum(1, keepdim=True))  # a positive against all negatives
softmax_with_temperature = (-(k * f.log()).sum(1) / k.sum(1)).mean()
assert torch.isclose(softmax_with_temperature, pal_n_loss(z, k, temperature=3.0))

one_over_k = (-(k / k.sum(1, keepdim=True) * z.log_softmax(1)).sum(1)).mean()
assert torch.isclose(one_over_k, one_over_k_softmax_loss(z, k))

label_smoothing = bernoulli_kl(9.0 * (2 * k.double() - 1), z)  # a "teacher" that says 9 or −9
assert torch.isclose(label_smoothing, label_smoothing_loss(z, k))

# %% [markdown]
r"""
**The softmax losses give no calibration.** They do not change if a constant is added to all logits of an image. So the sigmoid of
such a logit means nothing, and we report only the mAP (of the softmax score).
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
gains = {name: 100 * (stored(runs, "mAP") - stored(baselines, "mAP"))
         for name, runs in {**rivals, "KD, wide teacher": students}.items()}
gains = {name: values for name, values in gains.items() if np.isfinite(values).all()}
show(plots.seed_intervals(gains, "mAP minus the baseline's, points", "three losses on hard labels, and KD", zero=True),
     "Difference in mAP to the baseline for three losses on hard labels and for KD, with 95 % intervals over five seeds")
assert not MEASURED or [round(gains[name].mean()) for name in ("softmax, T = 3", "1/k softmax")] == [-15, -9]

# %% [markdown]
r"""
### The training or the score?

The two softmax losses lie 15 and 9 points below the baseline. But their mAP ranks images by a *softmax*, and the baseline's by a
sigmoid. A softmax shares a total of 1 among the labels of an image: with three objects each gets about a third, with one object
it gets everything. That spoils the ranking of images, whatever the training was. So we read **every** network in the same ways.
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
fair = {f"{name} − baseline, both by softmax": difference(ranked[name]["softmax"], ranked["baseline"]["softmax"]) for name in list(READ)[1:]}
fair["baseline by softmax − baseline by logit"] = difference(ranked["baseline"]["softmax"], ranked["baseline"]["logit"])
say(as_markdown([["difference", "mAP, points"], *([name, in_table(gap)] for name, gap in fair.items())]))
assert not MEASURED or [gap.verdict for gap in fair.values()] == ["lower", "not detected", "lower"]
assert not MEASURED or [round(100 * gap.mean) for gap in fair.values()][::2] == [-5, -10]

# %% [markdown]
r"""
Reading the *baseline* by a softmax costs it ten points, although the network is the same. With both networks read by a softmax,
no difference between the 1/k softmax and the baseline is detected, and softmax with temperature is still 5 points lower. Who ranks
the images of one class needs a score that can be compared across images, and these losses give none. Who ranks the classes of one
image does not need it.

Label smoothing gives probabilities:
"""

# %% tags=["report"]
smoothing = rivals["label smoothing"]
smooth = show_differences({"label smoothing − baseline": (smoothing, baselines), "KD − label smoothing": (students, smoothing)}, METRICS)
if MEASURED:
    assert {gap.verdict for gap in smooth["label smoothing − baseline"].values()} == {"not detected"}
    assert [gap.verdict for gap in smooth["KD − label smoothing"].values()] == 2 * ["not detected"] + 3 * ["lower"]

# %% [markdown]
r"""
No difference between label smoothing and the baseline is detected in any metric. KD is better calibrated than both.

**Think:** what would label smoothing with target logits ±2 do to NLL and to ECE? Would its mAP have to change?

<details><summary>Answer</summary>
It asks for probabilities of 0.88 and 0.12 even where the labels are clear. Most labels are absent, so the ECE rises to about 0.1,
and the NLL rises with it. The mAP depends on the order of the images alone, which need not change.
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

Now the paper's own setting: pretrained networks, photographs, and a teacher that is larger and sees more pixels. `photos` are the
photographs of lesson 03, section 11. The student is an EfficientNet-Lite0 at 128 px, the teacher an EfficientNet-Lite2 at 224 px,
trained with CutOut and the calibration branch at λ = 0.1. Both start from ImageNet weights. The teacher's mAP is ten points above
that of a student of hard labels. How many of these points does the student gain, and what happens to its pooled ECE?
"""

# %% tags=["learn"]
guess_photo_gain = ...  # mAP of the KD student minus mAP of hard labels, in points
guess_photo_ece = ...  # the KD student's pooled ECE, in per cent; that of hard labels is about 2

# %% tags=["report"]
from udlib.course.evidence import differences as paired_on, evidence_figure, show_evidence
from udlib.course.measurements import metric_values
from udlib.course.photo_arms import photos

ARMS = {"hard labels": "baseline", "teacher": "teacher", "KD": "KD"}
on_photos = {name: photos()[arm] for name, arm in ARMS.items()}
HEADS = {"mAP": "mAP, %", "mAP_difficult": "mAP Difficult, %", "ECE_pooled": "pooled ECE, %",
         "overconfidence": "overconfidence, points", "NLL": "NLL, nats"}
show_evidence(on_photos, HEADS, "hard labels")

# %% tags=["report"]
on = {metric: paired_on(on_photos, "hard labels", metric) for metric in HEADS}
difference.drawn += [gap for row in on.values() for gap in row.values()]
show(evidence_figure(on_photos, {metric: title.split(",")[0] for metric, title in HEADS.items() if metric != "NLL"}, "hard labels"),
     "Differences of the teacher and of its student from hard labels on photographs, with 95 % intervals over five seeds")
check_guess("gain in mAP on photographs", guess_photo_gain, 100 * on["mAP"]["KD"].mean, " points")
check_guess("pooled ECE on photographs", guess_photo_ece, 100 * np.mean(metric_values(on_photos["KD"], "ECE_pooled")), " %")
assert on["mAP"]["KD"].verdict == "not detected" and round(100 * on["mAP"]["teacher"].mean) == 10
assert on["ECE_pooled"]["KD"].verdict == on["NLL"]["KD"].verdict == on["overconfidence"]["KD"].verdict == "lower"

# %% [markdown]
r"""
KD does not detectably change the student's mAP: the interval ends at one point. But KD halves the pooled ECE, from 1.9 to 1.0 %,
and lowers the NLL and the overconfidence. The student's pooled ECE is even below its teacher's, and we have no explanation for
that.

Temperature scaling is a cheaper way to calibrate (lesson 04): it needs no teacher. Is KD still better than hard labels after it?
"""

# %% tags=["report"]
rows = [["KD − hard labels after temperature scaling", "difference"]]
for metric, scale, digits in (("ECE_pooled", 100, 2), ("NLL", 1, 4)):
    rival = metric_values(on_photos["hard labels"], f"test/temperature {metric}")
    rest = difference(metric_values(on_photos["KD"], metric), rival)
    assert rest.verdict == "lower"
    rows.append([METRICS[metric][0], in_table(rest, scale, digits)])
say(as_markdown(rows))

# %% [markdown]
r"""
Yes. KD's pooled ECE is half a point lower, and its NLL is lower too.

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

- KD on sigmoids (Eq. 13) is binary cross-entropy with soft labels, up to a term without gradient.
- A hard label has two kinds of noise: the annotator's coin, and what the picture does not show. A teacher's answers contain
  neither, but they contain its own bias. More images do not average out a bias.
- On its training images a teacher repeats the labels that it has memorised.
- The temperature in the loss decides which disagreements count: at $T = 1$ those in probability, at high $T$ those in logits.
- A loss on a softmax alone gives no calibration, and no score that can be compared across images. Before you compare two
  trainings, read both networks in the same way.
- Judge whether two gains differ by the interval of their difference.

What we found:

- On photographs KD halves the pooled ECE, from 1.9 to 1.0 %. No change of the mAP is detected. Temperature scaling alone
  does not reach this ECE.
- On `scenes` KD raises the mAP by 0.8 points with flips and by 2.4 with CutOut. Without augmentation no gain is detected, but no
  difference from the gain with flips either. KD lowers the pooled ECE and the NLL in all three regimes.
- At $T = 3$ and $5$ the student's mAP is lower and its pooled ECE higher than at $T = 1$.
- Soft labels without a teacher do not raise the mAP.

The numbers behind these sentences, with 95 % intervals:
"""

# %% tags=["report"]
found = {f"Photographs, KD − hard labels: {title}": gap["KD"] for title, gap in (("mAP", on["mAP"]), ("pooled ECE", on["ECE_pooled"]))}
found |= {f"Scenes, {row}: mAP": gap["mAP"] for row, gap in in_regime.items()}
found["Scenes, wide teacher, T = 3 − T = 1: mAP"] = hotter["small_wide: T = 3 − T = 1"]["mAP"]
found |= {f"Scenes, {name} − baseline: mAP": uncounted(stored(runs, "mAP"), stored(baselines, "mAP")) for name, runs in rivals.items()}
say(as_markdown([["difference", "points"], *([name, in_table(gap)] for name, gap in found.items())]))
ece = [round(100 * np.mean(metric_values(on_photos[name], "ECE_pooled")), 1) for name in ("hard labels", "KD")]
assert ece == [1.9, 1.0]
if MEASURED:
    assert [round(100 * row["mAP"].mean, 1) for row in list(in_regime.values())[1:]] == [0.8, 2.4]
    assert all(uncounted(stored(runs, "mAP"), stored(baselines, "mAP")).verdict != "higher" for runs in rivals.values())
say(difference.count())

# %% [markdown]
r"""
These networks and pictures are small; the results need not hold for a ResNet-101 that teaches a ResNet-18.

**Next.** KD hands on how sure the teacher is of each label. It does not hand on *where* in the picture the teacher is unsure. The
paper wants to teach that too, by a map of the places where the two heads of the teacher disagree: the uncertainty map.
[Lesson 06](06_uncertainty_attention.ipynb) computes this map and measures what it shows, and lesson 07 teaches it to a student.

## Further reading

- G. Hinton, O. Vinyals and J. Dean, *Distilling the Knowledge in a Neural Network*, 2015: soft labels, T, and T².
- L. Song et al., *Handling Difficult Labels for Multi-label Image Classification via Uncertainty Distillation*, ACM MM
  2021: Eq. 13, Tables 3 and 5.
- A. K. Menon et al., *A Statistical Perspective on Distillation*, ICML 2021: a teacher as an estimate of the posterior.
- H. Zhou et al., *Rethinking Soft Labels for Knowledge Distillation: A Bias-Variance Tradeoff Perspective*, ICLR 2021.
- R. Müller, S. Kornblith and G. Hinton, *When Does Label Smoothing Help?*, NeurIPS 2019.
- D. Mahajan et al., *Exploring the Limits of Weakly Supervised Pretraining*, ECCV 2018: the 1/k softmax.
"""

# %% [markdown]
r"""
## Quiz

What do you know after this lesson?
"""

# %% tags=["report"]
from udlib.course.quizzes import quiz

quiz("05")
