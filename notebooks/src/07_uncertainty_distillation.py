# %% [markdown]
r"""
# 07 · Uncertainty distillation, term by term

**Aim.** You will assemble the loss of uncertainty distillation (UD, Eq. 18) from its three terms, see which part of
the student each term can move and how hard it pulls there, and measure with error bars what each term gives: in
accuracy, and in calibration, which the paper leaves out.

**Prerequisites.** Lesson 05 (soft labels, KD) and lesson 06 (the uncertainty attention map). From lessons 02 to 04:
mAP, ECE and the true calibration error, differences paired by seed.

**Time.** About two and a half hours with the exercises. The cells run in about a minute: networks are loaded, not
trained.
"""

# %% tags=["setup"]
import numpy as np
import pandas as pd
import torch
from IPython.display import display
from scipy.stats import t as student_t
from torch.nn import functional as F

# %% tags=["setup"]
from udlib import losses
from udlib.figures import plots
from udlib.course import recipes
from udlib.course.exercises import check, check_guess
from udlib.course.measurements import metric_values
from udlib.course.store import arrays, for_profile, load, load_model, load_or_run, profile
from udlib.figures.plots import show
from udlib.course.recipes import distilled, two_branch
from udlib.course.sentences import difference, in_units, say, spread, stored

pd.set_option("display.max_colwidth", None, "display.max_columns", None)

# %% [markdown]
r"""
This lesson is about `scenes`, and in section 10 also about photographs. Sentences with numbers are written by code, as before. A "point" is one per cent. Each
difference between two recipes is **paired by seed** (same seed, same start, same batches) and comes with its 95 % t
interval. The lesson draws many intervals, so it keeps count of them: in twenty, one misses 0 by chance.
"""

# %% tags=["setup"]
DRAWN = []  # every interval of this lesson, to be counted at its end


def compare(ours, theirs, metric, split="test"):
    """`metric` of one recipe's runs minus another's, paired by seed, and counted."""
    DRAWN.append(metric)
    return difference(stored(ours, metric, split), stored(theirs, metric, split))

# %% tags=["setup"]
METRICS = {"mAP": "mAP", "mAP_difficult": "mAP, Difficult", "ECE_pooled": "ECE, pooled", "ECE": "ECE, class-wise",
           "true_CE_pooled": "true error, pooled", "NLL": "NLL"}


def worded(found, metric="mAP"):
    """A difference with its 95 % interval, in points, or in nats for the NLL."""
    factor, digits, unit = (1, 4, "nats") if metric == "NLL" else (100, 2, "points")
    return f"{in_units(found, factor, digits, unit='')} {unit}"

# %% tags=["setup"]
def in_cell(found, metric="mAP"):
    """The same for a cell of a table, with the verdict and without the unit."""
    return f"{worded(found, metric).rsplit(' ', 1)[0]}: {found.verdict}"


def level(found, metric):
    """The level of a metric over the seeds, in per cent, or in nats for the NLL."""
    return spread(stored(found, metric), *((1, 4) if metric == "NLL" else (100, 2)))


HEADS = {metric: f"{title}, {'nats' if metric == 'NLL' else 'points'}" for metric, title in METRICS.items()}

# %% tags=["setup"]
def trained(chosen):
    """The runs of these recipes, or None where the course has not trained all of them (yet)."""
    found = [load_or_run(each) if profile() == "smoke" else load(for_profile(each)) for each in chosen]
    return None if any(run is None for run in found) else found


def near(rows):
    """Only the rows within 10 points of the baseline's mAP; a row far away would squeeze all others into one spot."""
    level_of = {name: stored(found, "mAP").mean() for name, found in rows.items()}
    return {name: found for name, found in rows.items() if abs(level_of[name] - stored(baseline, "mAP").mean()) < 0.1}

# %% [markdown]
r"""
## 1. First, a picture

A student (`small`) can learn from the labels alone: that is the baseline, lesson 02. Or it can learn from a teacher,
here the wider network `small_wide`, which was trained on the same images with the calibration branch at λ = 0.1. First
the two ends of the road, five seeds each.
"""

# %%
models = {"baseline": two_branch(0.0), "KD": distilled("KD"), "KD + distribution": distilled("KD + distribution"),
          "UD, β = 0.5": distilled("UD"), "teacher": two_branch(0.1, network="small_wide")}
models = {name: [load_or_run(chosen) for chosen in found] for name, found in models.items()}
baseline, printed = models["baseline"], models["UD, β = 0.5"]
ends = {name: 100 * stored(models[name], "mAP") for name in ("baseline", "teacher")}
show(plots.seed_intervals(ends, "mAP on the test images, per cent", "five seeds (ticks) and 95 % intervals"),
     "mAP of the baseline and of the wider teacher over five seeds, with 95 % intervals")

# %% [markdown]
r"""
Between them, one hopes, stand three students of that teacher. Each is told a little more than the one before, and none
sees a hard label:

![Teacher and student are compared in their sigmoids by Eq. 13, in the softmax of their calibration logits by Eq. 14 and in their uncertainty maps by Eq. 17; KD has the first term, KD + distribution the first two, UD all three.](images/three_students.svg)

| student | is told | loss |
|---|---|---|
| **KD** | the teacher's sigmoids | $L'_b$ (Eq. 13) |
| **KD + distribution** | its calibration softmax too | $L'_b + \alpha L'_{ps}$ (and Eq. 14) |
| **UD** | its uncertainty attention map too | $L'_b + \alpha L'_{ps} + \beta L_{att}$ (Eq. 18) |

The paper prints $\alpha = \beta = 0.5$. That is our first UD student. (Its networks start from ImageNet weights; ours
start from random ones. Keep that difference in mind.)

### Predict

How many points of mAP will KD give over the baseline? How many will UD with the printed weights give *beyond* KD? And
of that student's loss at the end of training, what share will the attention term $\beta L_{att}$ be? Write your guesses
before you read on.
"""

# %%
guess_kd = ...  # mAP of KD minus mAP of the baseline, in points
guess_ud = ...  # mAP of UD minus mAP of KD, in points
guess_share = ...  # β · attention over the total loss in the last epoch, in per cent

# %%
show(plots.seed_intervals({name: 100 * stored(found, "mAP") for name, found in models.items()},
                          "mAP on the test images, per cent", "five seeds (ticks) and 95 % intervals"),
     "mAP of the baseline, three students and their teacher over five seeds, with 95 % intervals")
chance = baseline[0].labels().targets.double().mean().item()
gap = compare(printed, baseline, "mAP")
say(f"UD with the printed weights: mAP {level(printed, 'mAP')} %, baseline {level(baseline, 'mAP')} %; the difference is "
    f"{worded(gap)}, **{gap.verdict}**. (A ranking by lot reaches about {100 * chance:.0f} %, the mean share of positives.)")

# %% [markdown]
r"""
The ticks show whether the five seeds agree. And it is no slip of the code: the same function with $\beta = 0$ trains the
row above it, and section 2 takes it apart line by line. What to do? A weight is a choice, and choices are made on
**validation**. We trained UD with smaller $\beta$ too, five seeds each, and take the best of those above 0.
"""

# %%
by_beta = {value: trained(found) for (name, value), found in recipes.weights().items() if name == "beta"}
by_beta = {value: found for value, found in by_beta.items() if found is not None}
on_val = {value: stored(found, "mAP", "val").mean() for value, found in by_beta.items() if value > 0}
beta = max(on_val, key=on_val.get)
teachers = models.pop("teacher")
models |= {"UD, β chosen": by_beta[beta], "teacher": teachers}
say("mAP on validation: " + ", ".join(f"β = {value:g}: {100 * mean:.1f} %" for value, mean in on_val.items())
    + f". So *UD, β chosen* has **β = {beta:g}**.")

# %%
shown = near(models)
for metric, title in (("mAP", "mAP"), ("ECE_pooled", "pooled ECE")):
    show(plots.seed_intervals({name: 100 * stored(found, metric) for name, found in shown.items()},
                              f"{title} on the test images, per cent", "five seeds (ticks) and 95 % intervals"),
         f"{title} of the baseline, the students near it and their teacher over five seeds, with 95 % intervals")
absent = ", ".join(name for name in models if name not in shown) or "none"
say(f"Left out here, since they lie more than 10 points from the baseline's mAP: {absent}.")

# %% [markdown]
r"""
The intervals above belong to each row alone. Whether two rows differ is a question of **pairs**: the student of seed 3
has the teacher of seed 3, the start of baseline 3, and its batches. The figure takes the ladder step by step, with the
chosen $\beta$. The table has the printed one as well.
"""

# %%
STEPS = {"KD − baseline": ("KD", "baseline"), "+ distribution": ("KD + distribution", "KD"),
         "+ attention, β chosen": ("UD, β chosen", "KD + distribution"), "UD, β chosen − KD": ("UD, β chosen", "KD"),
         "UD, β chosen − baseline": ("UD, β chosen", "baseline"),
         "+ attention, β = 0.5": ("UD, β = 0.5", "KD + distribution"), "UD, β = 0.5 − KD": ("UD, β = 0.5", "KD"),
         "UD, β = 0.5 − baseline": ("UD, β = 0.5", "baseline")}
ladder = {step: {metric: compare(models[ours], models[theirs], metric) for metric in METRICS}
          for step, (ours, theirs) in STEPS.items()}

# %%
drawn = list(STEPS)[:5]  # those without the printed β
inside = {METRICS[metric]: [100 * np.array([ladder[step][metric][k] for step in drawn]) for k in range(3)]
          for metric in ("mAP", "ECE_pooled", "true_CE_pooled")}
figure = plots.estimates(drawn, inside, "points", "what each step changes, paired by seed, 95 % intervals")
figure.axes[0].axvline(0, color="black", linewidth=0.8)
show(figure, "Paired differences of mAP, pooled ECE and true pooled error for each step from baseline to UD")

# %%
table = {step: {HEADS[metric]: in_cell(found, metric) for metric, found in row.items()} for step, row in ladder.items()}
display(pd.DataFrame(table).T)
check_guess("KD over the baseline", guess_kd, 100 * ladder["KD − baseline"]["mAP"].mean, " points")
check_guess("UD as printed beyond KD", guess_ud, 100 * ladder["UD, β = 0.5 − KD"]["mAP"].mean, " points")

# %%
for step in drawn[:4]:
    said = [f"{METRICS[metric]} **{found.verdict}**" for metric, found in ladder[step].items()]
    say(f"- *{step}*: {', '.join(said)}.")
trades = {step: (row["mAP"].verdict, row["true_CE_pooled"].verdict) for step, row in ladder.items()}
both = [step for step, found in trades.items() if found in (("lower", "lower"), ("higher", "higher"))]
say("Steps where accuracy and calibration part ways, mAP and true error both up or both down: "
    + (", ".join(f"*{step}*" for step in both) or "none") + ".")
room = compare(teachers, baseline, "mAP")
if room.verdict == "higher":
    closed = {name: (stored(models[name], "mAP") - stored(baseline, "mAP")).mean() / room.mean for name in list(shown)[1:-1]}
    say("Of the mean distance in mAP between baseline and teacher, " + ", ".join(
        f"{name} closes {100 * part:.0f} %" for name, part in closed.items()) + ". (Below 0: it falls behind the baseline.)")

# %% [markdown]
r"""
Keep these verdicts in mind. The rest of the lesson asks *why* they are what they are: what the terms compute, what
they can move, and how hard they pull. Then it asks whether the picture changes with other teachers, other students,
other weights.

## 2. The loss, one term at a time

### 2.1 KD on the sigmoids (Eq. 13)

Each sigmoid is a coin with two sides. The teacher's coin for class $i$ is $T_i^o$, the student's is $S_i^o$, and

$$L'_b = \frac{1}{C} \sum_{i=1}^{C} \mathrm{KL}\big(T_i^o \,\|\, S_i^o\big).$$

Two images and three classes, word for word, with loops. Beside it stands the one line of the library.
"""

# %%
T_o = torch.tensor([[2.0, -1.0, 0.5], [-3.0, 0.2, 1.0]])  # the teacher's logits, 2 images and 3 classes
S_o = torch.tensor([[1.0, -0.5, -0.5], [-1.0, 1.2, 1.0]])  # the student's


def kl(p, q):
    """Of two distributions, each a list of probabilities that adds up to 1."""
    return sum(a * np.log(a / b) for a, b in zip(p, q))


coins = [[kl([a, 1 - a], [b, 1 - b]) for a, b in zip(t, s)] for t, s in zip(T_o.sigmoid().tolist(), S_o.sigmoid().tolist())]
by_hand = np.mean([np.mean(of_image) for of_image in coins])  # mean over the classes, then over the images
assert np.isclose(by_hand, losses.bernoulli_kl(T_o, S_o).item())  # Eq. 13
print(f"by hand {by_hand:.6f}   losses.bernoulli_kl {losses.bernoulli_kl(T_o, S_o):.6f} nats")

# %% [markdown]
r"""
A KL divergence is a cross-entropy minus the teacher's own entropy. The teacher is a constant, so its entropy is one
too, and the gradient is that of binary cross-entropy with soft targets: student minus teacher, for each class.
"""

# %%
z = S_o.clone().requires_grad_()
soft_target = F.binary_cross_entropy_with_logits(z, T_o.sigmoid())  # mean over classes and images
entropy = F.binary_cross_entropy_with_logits(T_o, T_o.sigmoid())  # a number of the teacher alone
assert torch.isclose(soft_target - entropy, losses.bernoulli_kl(T_o, z))
slope, = torch.autograd.grad(losses.bernoulli_kl(T_o, z), z)
assert torch.allclose(slope, (S_o.sigmoid() - T_o.sigmoid()) / S_o.numel(), atol=1e-6)
say(f"The teacher's entropy here is {entropy:.3f} nats: no student can bring the cross-entropy below it, "
    "while the divergence can reach 0.")

# %% [markdown]
r"""
Mind the $1/C$. Eq. 3, the loss on hard labels, *sums* over the classes; Eq. 13 *averages*. Taken alone, a constant
factor in front of a whole loss hardly matters to Adam, which divides each step by the gradient's own size. (It still
decides how often the gradient is clipped.) Beside a second term it matters.

### 2.2 The prediction distribution (Eq. 14)

The calibration branch ends in a softmax over all classes, $T^a$ and $S^a$. It is *one* distribution for each image:

$$L'_{ps} = \mathrm{KL}\big(T^a \,\|\, S^a\big) = \sum_{i=1}^{C} T_i^a \log \frac{T_i^a}{S_i^a}.$$

In training on hard labels the branch had a *partial* softmax (Eq. 10), which needs the labels to know the negatives.
Here no labels are needed, and the paper takes the full one.
"""

# %%
by_hand = np.mean([kl(t, s) for t, s in zip(T_o.softmax(1).tolist(), S_o.softmax(1).tolist())])
assert np.isclose(by_hand, losses.softmax_kl(T_o, S_o).item(), atol=1e-6)  # Eq. 14: a sum over classes, a mean over images
slope, = torch.autograd.grad(losses.softmax_kl(T_o, z), z)
assert torch.allclose(slope, (S_o.softmax(1) - T_o.softmax(1)) / len(S_o), atol=1e-6)  # no 1/C here
shifted = S_o + 7.0  # the same number added to all logits of an image
assert torch.isclose(losses.softmax_kl(T_o, shifted), losses.softmax_kl(T_o, S_o), atol=1e-5)
assert losses.bernoulli_kl(T_o, shifted) > losses.bernoulli_kl(T_o, S_o) + 1
say(f"All logits raised by 7: Eq. 14 stays at {losses.softmax_kl(T_o, shifted):.3f}, Eq. 13 goes from "
    f"{losses.bernoulli_kl(T_o, S_o):.3f} to {losses.bernoulli_kl(T_o, shifted):.3f} nats.")

# %% [markdown]
r"""
So the second term says nothing about *how probable* the labels are, only which of them compete, and how evenly. The
levels come from Eq. 13 alone. And since Eq. 14 is not divided by $C$, its pull on one logit is up to $C$ times that
of Eq. 13. The printed $\alpha = 0.5$ belongs to this pair of conventions; with Eq. 13 summed it would weigh $C$ times
less.

### 2.3 The attention (Eq. 15 to 17)

Lesson 06 in two lines: each network has its own map, $A_{hw} = \sum_c w_c Z_{chw}$. Here $Z$ is its last feature map
and $w$ the gradient of the divergence between its own two branches with respect to the pooled features. The term is
the distance of the two maps:

$$L_{att} = \| A_T - A_S \| = \sqrt{\textstyle\sum_{hw} (A_{T,hw} - A_{S,hw})^2},$$

one norm for each image, then the mean over images.
"""

# %%
draw = torch.Generator().manual_seed(0)
A_T, A_S = (torch.randn(2, 4, 4, generator=draw) for _ in range(2))
pairs_of_maps = [(t.flatten().tolist(), s.flatten().tolist()) for t, s in zip(A_T, A_S)]
norms = [sum((a - b) ** 2 for a, b in zip(t, s)) ** 0.5 for t, s in pairs_of_maps]
assert np.isclose(np.mean(norms), losses.attention_loss(A_T, A_S).item())  # Eq. 17
large = torch.randn(2, 8, 8, generator=draw)  # a teacher with a finer map: resized bilinearly to the student's cells
halved = F.interpolate(large[:, None], size=(4, 4), mode="bilinear", align_corners=False)[:, 0]
assert torch.isclose(losses.attention_loss(large, A_S), losses.attention_loss(halved, A_S))
print(f"by hand {np.mean(norms):.6f}   losses.attention_loss {losses.attention_loss(A_T, A_S):.6f}")

# %% [markdown]
r"""
A norm and a *squared* norm look alike and behave differently. The gradient of a norm has length 1, whether the
maps are far apart or nearly equal: a pull that never tires. The gradient of the square shrinks with the distance.
"""

# %%
def pull_at(distance, **options):
    """Length of the term's gradient at a student's map this far from the teacher's (one image)."""
    student = (A_T[:1] + distance * F.normalize(A_S[:1].flatten(), dim=0).view(1, 4, 4)).requires_grad_()
    slope, = torch.autograd.grad(losses.attention_loss(A_T[:1], student, **options), student)
    return slope.norm().item()


distances = np.linspace(0.05, 3, 25)
forces = {"norm (Eq. 17)": [pull_at(d) for d in distances],
          "mean square (released code)": [pull_at(d, scale="released") for d in distances]}
assert np.allclose(forces["norm (Eq. 17)"], 1, atol=1e-4)
assert np.allclose(forces["mean square (released code)"], 2 * distances / 16, atol=1e-4)  # 16 cells
show(plots.lines(distances, forces, "distance of the two maps", "length of the gradient", "how hard the term pulls",
                 markers=False), "The gradient of the norm has length 1 at any distance; that of the mean square grows with it")

# %% [markdown]
r"""
**Think:** what does a pull of constant strength do to a student that has *almost* the teacher's map, late in training?
And what if it can never reach that map, because it has half as many channels?

### Exercise 07.1

Write Eq. 17. The maps are (N, H, W) and (N, h, w). Where the sizes differ, resize the *teacher's* map bilinearly
(`F.interpolate` wants a channel dimension, and `align_corners=False`). One Frobenius norm for each image, then the
mean. The result must stay differentiable, also where the two maps are equal.
"""

# %% exercise="07.1"
def my_attention_term(teacher_map, student_map):
    return ...

# %% solution="07.1"
def my_attention_term(teacher_map, student_map):
    size = student_map.shape[1:]
    target = F.interpolate(teacher_map[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    return torch.linalg.vector_norm((target - student_map).flatten(1), dim=1).mean()

# %% mistake="07.1" says="norm squared"
def my_attention_term(teacher_map, student_map):
    target = F.interpolate(teacher_map[:, None], size=student_map.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    return (target - student_map).square().sum((1, 2)).mean()

# %% mistake="07.1" says="mean over all cells"
def my_attention_term(teacher_map, student_map):
    target = F.interpolate(teacher_map[:, None], size=student_map.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    return F.mse_loss(student_map, target)

# %% mistake="07.1" says="one norm over the whole batch"
def my_attention_term(teacher_map, student_map):
    target = F.interpolate(teacher_map[:, None], size=student_map.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    return torch.linalg.vector_norm(target - student_map)

# %% mistake="07.1" says="the student's map was resized"
def my_attention_term(teacher_map, student_map):
    grown = F.interpolate(student_map[:, None], size=teacher_map.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    return torch.linalg.vector_norm((teacher_map - grown).flatten(1), dim=1).mean()

# %% mistake="07.1" says="NaN"
def my_attention_term(teacher_map, student_map):
    target = F.interpolate(teacher_map[:, None], size=student_map.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    return (target - student_map).square().sum((1, 2)).sqrt().mean()

# %% mistake="07.1" says="an L1 loss"
def my_attention_term(teacher_map, student_map):
    target = F.interpolate(teacher_map[:, None], size=student_map.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    return F.l1_loss(student_map, target)

# %% mistake="07.1" says="a norm of each row"
def my_attention_term(teacher_map, student_map):
    target = F.interpolate(teacher_map[:, None], size=student_map.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    return torch.linalg.vector_norm(target - student_map, dim=2).mean()

# %% mistake="07.1" says="the maps are normalised first"
def my_attention_term(teacher_map, student_map):
    target = F.interpolate(teacher_map[:, None], size=student_map.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    return losses.attention_loss(target, student_map, normalize="l2")

# %% mistake="07.1" says="a cosine distance"
def my_attention_term(teacher_map, student_map):
    target = F.interpolate(teacher_map[:, None], size=student_map.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    return (1 - F.cosine_similarity(target.flatten(1), student_map.flatten(1))).mean()

# %% mistake="07.1" says="pooled to one number first"
def my_attention_term(teacher_map, student_map):
    target = F.interpolate(teacher_map[:, None], size=student_map.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    return (target.mean((1, 2)) - student_map.mean((1, 2))).abs().mean()

# %%
check("07.1", my_attention_term)

# %% [markdown]
r"""
### 2.4 All together (Eq. 18)

$$L = L'_b + \alpha L'_{ps} + \beta L_{att}, \qquad \alpha = \beta = 0.5.$$

Now with real networks: the teacher, and its student by UD, both of seed 0. The batch holds 64 training images and **no
targets at all**. If the loss needed a hard label anywhere, it would stop here.
"""

# %%
from udlib.attention import uncertainty_attention, uncertainty_attention_of
from udlib.training.batches import Batch
from udlib.datasets.transforms import normalise
from udlib.methods.distillation import answers, distillation_loss

teacher_recipe, ud_recipe = two_branch(0.1, network="small_wide")[0], distilled("UD")[0]
teacher, student = load_model(teacher_recipe), load_model(ud_recipe)
training_images = arrays(for_profile(teacher_recipe), "train").images
rows = torch.arange(64)
batch = Batch(normalise(training_images[rows]), None, None, rows)  # images, targets, ignored labels, rows
terms = distillation_loss(teacher)(student, batch)  # α = β = 0.5
print({name: round(value.item(), 4) for name, value in terms.items()})

# %%
with torch.no_grad():
    taught = teacher(batch.images)
told = student(batch.images)
teacher_map = uncertainty_attention(teacher.head, taught.features)  # the teacher's own branches, its own features
student_map = uncertainty_attention_of(told)  # likewise the student's, and differentiable
L_b = losses.bernoulli_kl(taught.logits, told.logits)  # Eq. 13
L_ps = losses.softmax_kl(taught.calibration_logits, told.calibration_logits)  # Eq. 14
L_att = losses.attention_loss(teacher_map, student_map)  # Eq. 17
assert torch.isclose(terms["total"], L_b + 0.5 * L_ps + 0.5 * L_att, rtol=1e-3)  # Eq. 18
by_library = losses.uncertainty_distillation_loss(taught, told, 0.5, 0.5, teacher_map, student_map)
assert all(torch.isclose(by_library[name], terms[name], rtol=1e-3) for name in terms)

# %% [markdown]
r"""
In `udlib/methods/distillation.py` the same lines stand in `distillation_loss`. The teacher answers in inference mode
and in eval mode, so nothing that it says can carry a gradient back to it, and its batch statistics do not move.
"""

# %%
said = answers(teacher)(batch)  # what a student is told: logits, calibration logits, map
terms["total"].backward()
parts = {name: part for name, part in said._asdict().items() if part is not None}
assert not any(part.requires_grad for part in parts.values())  # the teacher is a constant
assert all(weight.grad is None for weight in teacher.parameters()) and not teacher.training
assert any(weight.grad is not None for weight in student.parameters())
student.zero_grad()
print("told:", {name: tuple(part.shape) for name, part in parts.items()})

# %% [markdown]
r"""
Which part of the *student* can each term move? We take the gradient of one term at a time, with respect to the weights
of the backbone, of the classifier, and of the calibration branch.
"""

# %%
PARTS = {"backbone": student.backbone, "classifier": student.head.classification,
         "calibration branch": student.head.calibration}


def reach(found):
    """Length of each term's gradient in each part of the student; None where a term does not touch a part."""
    table = {}
    for term in ("classification", "calibration", "attention"):
        for part, module in PARTS.items():
            slopes = torch.autograd.grad(found[term], list(module.parameters()), retain_graph=True, allow_unused=True)
            slopes = [slope.norm() for slope in slopes if slope is not None]
            table.setdefault(term, {})[part] = torch.stack(slopes).norm().item() if slopes else None
    return table

# %%
moved = reach(distillation_loss(teacher)(student, batch))
constant = reach(distillation_loss(teacher, through_weights=False)(student, batch))
assert moved["classification"]["calibration branch"] is None and moved["calibration"]["classifier"] is None
assert all(moved[term]["backbone"] is not None for term in moved) and None not in moved["attention"].values()
assert constant["attention"]["classifier"] is constant["attention"]["calibration branch"] is None
rows_of = moved | {"attention, w held constant": constant["attention"]}
pd.DataFrame({term: {part: "–" if found is None else f"{found:.3g}" for part, found in row.items()}
              for term, row in rows_of.items()}).T

# %% [markdown]
r"""
(Lengths of the unweighted terms' gradients; a dash is an exact nothing.) Eq. 13 never touches the calibration branch,
and Eq. 14 never touches the classifier. The attention term reaches everything: its weights $w$ are a gradient *through*
both heads, so they too can be moved to make the map right. The classifier, the only head that is used at inference,
hears two voices then: Eq. 13 asks for good answers, Eq. 17 for a good map.

The last row is the other reading of Eq. 15: compute $w$, and hold it constant (`through_weights=False`). It is cheaper,
since no second derivative is needed. Then the term can move the backbone only. The paper does not say which it means.
Section 3 compares the two.

### Exercise 07.2

Which images cost the student most? Assemble Eq. 18 for **each image**: return shape (N,), without the mean over the batch. `teacher`
and `student` have `.logits` and `.calibration_logits`; the three terms may come from `losses` (look at what `reduction` does there).
The check gives you a teacher through which a gradient *could* flow. It must not.
"""

# %% exercise="07.2"
def my_ud_loss(teacher, student, alpha, beta, teacher_map, student_map):
    return ...

# %% solution="07.2"
def my_ud_loss(teacher, student, alpha, beta, teacher_map, student_map):
    classification = losses.bernoulli_kl(teacher.logits.detach(), student.logits, reduction="none")
    calibration = losses.softmax_kl(
        teacher.calibration_logits.detach(), student.calibration_logits, reduction="none")
    attention = losses.attention_loss(teacher_map.detach(), student_map, reduction="none")
    return classification + alpha * calibration + beta * attention

# %% mistake="07.2" says="the mean over the images"
def my_ud_loss(teacher, student, alpha, beta, teacher_map, student_map):
    return losses.uncertainty_distillation_loss(
        teacher, student, alpha, beta, teacher_map, student_map)["total"]

# %% mistake="07.2" says="a gradient flows into the teacher's logits"
def my_ud_loss(teacher, student, alpha, beta, teacher_map, student_map):
    classification = losses.bernoulli_kl(teacher.logits, student.logits, reduction="none")
    calibration = losses.softmax_kl(
        teacher.calibration_logits, student.calibration_logits, reduction="none")
    attention = losses.attention_loss(teacher_map, student_map, reduction="none")
    return classification + alpha * calibration + beta * attention

# %% mistake="07.2" says="into the teacher's map"
def my_ud_loss(teacher, student, alpha, beta, teacher_map, student_map):
    classification = losses.bernoulli_kl(teacher.logits.detach(), student.logits, reduction="none")
    calibration = losses.softmax_kl(
        teacher.calibration_logits.detach(), student.calibration_logits, reduction="none")
    attention = losses.attention_loss(teacher_map, student_map, reduction="none")
    return classification + alpha * calibration + beta * attention

# %% mistake="07.2" says="α stands on the wrong term"
def my_ud_loss(teacher, student, alpha, beta, teacher_map, student_map):
    classification = losses.bernoulli_kl(teacher.logits.detach(), student.logits, reduction="none")
    calibration = losses.softmax_kl(
        teacher.calibration_logits.detach(), student.calibration_logits, reduction="none")
    attention = losses.attention_loss(teacher_map.detach(), student_map, reduction="none")
    return alpha * classification + calibration + beta * attention

# %% mistake="07.2" says="not 1 − α − β"
def my_ud_loss(teacher, student, alpha, beta, teacher_map, student_map):
    classification = losses.bernoulli_kl(teacher.logits.detach(), student.logits, reduction="none")
    calibration = losses.softmax_kl(
        teacher.calibration_logits.detach(), student.calibration_logits, reduction="none")
    attention = losses.attention_loss(teacher_map.detach(), student_map, reduction="none")
    return (1 - alpha - beta) * classification + alpha * calibration + beta * attention

# %% mistake="07.2" says="not 1 − α"
def my_ud_loss(teacher, student, alpha, beta, teacher_map, student_map):
    classification = losses.bernoulli_kl(teacher.logits.detach(), student.logits, reduction="none")
    calibration = losses.softmax_kl(
        teacher.calibration_logits.detach(), student.calibration_logits, reduction="none")
    attention = losses.attention_loss(teacher_map.detach(), student_map, reduction="none")
    return (1 - alpha) * classification + alpha * calibration + beta * attention

# %% mistake="07.2" says="runs the wrong way"
def my_ud_loss(teacher, student, alpha, beta, teacher_map, student_map):
    classification = losses.bernoulli_kl(student.logits, teacher.logits.detach(), reduction="none")
    calibration = losses.softmax_kl(
        student.calibration_logits, teacher.calibration_logits.detach(), reduction="none")
    attention = losses.attention_loss(teacher_map.detach(), student_map, reduction="none")
    return classification + alpha * calibration + beta * attention

# %% mistake="07.2" says="mean over all cells"
def my_ud_loss(teacher, student, alpha, beta, teacher_map, student_map):
    classification = losses.bernoulli_kl(teacher.logits.detach(), student.logits, reduction="none")
    calibration = losses.softmax_kl(
        teacher.calibration_logits.detach(), student.calibration_logits, reduction="none")
    attention = (student_map - teacher_map.detach()).square().mean((1, 2))
    return classification + alpha * calibration + beta * attention

# %% mistake="07.2" says="one norm over the whole batch"
def my_ud_loss(teacher, student, alpha, beta, teacher_map, student_map):
    classification = losses.bernoulli_kl(teacher.logits.detach(), student.logits, reduction="none")
    calibration = losses.softmax_kl(
        teacher.calibration_logits.detach(), student.calibration_logits, reduction="none")
    attention = torch.linalg.vector_norm(teacher_map.detach() - student_map)
    return classification + alpha * calibration + beta * attention

# %% mistake="07.2" says="the same number for every image"
def my_ud_loss(teacher, student, alpha, beta, teacher_map, student_map):
    classification = losses.bernoulli_kl(teacher.logits.detach(), student.logits, reduction="none")
    calibration = losses.softmax_kl(
        teacher.calibration_logits.detach(), student.calibration_logits, reduction="none")
    attention = losses.attention_loss(teacher_map.detach(), student_map)
    return classification + alpha * calibration + beta * attention

# %% mistake="07.2" says="a binary cross-entropy with soft targets"
def my_ud_loss(teacher, student, alpha, beta, teacher_map, student_map):
    classification = F.binary_cross_entropy_with_logits(
        student.logits, torch.sigmoid(teacher.logits.detach()), reduction="none").mean(1)
    calibration = losses.softmax_kl(
        teacher.calibration_logits.detach(), student.calibration_logits, reduction="none")
    attention = losses.attention_loss(teacher_map.detach(), student_map, reduction="none")
    return classification + alpha * calibration + beta * attention

# %% mistake="07.2" says="this loss takes hard labels, 0 or 1"
def my_ud_loss(teacher, student, alpha, beta, teacher_map, student_map):
    classification = losses.ova_loss(student.logits, torch.sigmoid(teacher.logits.detach()))
    calibration = losses.softmax_kl(
        teacher.calibration_logits.detach(), student.calibration_logits, reduction="none")
    attention = losses.attention_loss(teacher_map.detach(), student_map, reduction="none")
    return classification + alpha * calibration + beta * attention

# %%
check("07.2", my_ud_loss)

# %% [markdown]
r"""
## 3. Which term pulls hardest?

$\alpha = \beta = 0.5$ looks as if the two extra terms had the same say, and the first one twice as much. Weights say
little as long as we do not know what they multiply. All three terms meet at the backbone's last feature map $Z$, so
there we compare their gradients, image by image, for three students: one that is still untrained, one trained without
the attention term, and the UD student with the printed weights.

For the attention term with $w$ held constant the length is known before we measure. The gradient of the norm has
length 1, and $A = \sum_c w_c Z_c$ passes it on to channel $c$ with factor $w_c$. So an image's pull is exactly
$\beta \|w\|$: **its strength does not depend on the teacher at all, only its direction does.** The strength is how much
the student's own two branches disagree, as seen from its features. The whole gradient adds how $w$ itself changes.
"""

# %%
from udlib.methods import method_of

torch.manual_seed(0)
untrained = method_of("distillation").build(for_profile(ud_recipe), taught.logits.shape[1])
for module in untrained.modules():
    if hasattr(module, "momentum"):
        module.momentum = 1.0  # batch normalisation takes over the statistics of one batch, as in a first step
with torch.no_grad():
    untrained.train()(batch.images)
students = {"untrained": untrained.eval(), "KD + distribution": load_model(distilled("KD + distribution")[0]),
            "UD, β = 0.5": student}
SHARES = {"paper": {"classification": 1.0, "calibration": 0.5, "attention": 0.5}}  # what multiplies each term in the total

# %%
def weighted_terms(net, scale="paper", whole=True, **options):
    """The net's answer to the batch, and the three terms times what they weigh in the total."""
    seen = net(batch.images)
    found = losses.uncertainty_distillation_loss(taught, seen, teacher_map=teacher_map, scale=scale,
                                                 student_map=uncertainty_attention_of(seen, whole), **options)
    return seen, {term: SHARES[scale][term] * found[term] for term in SHARES[scale]}

# %%
def pulls(net, scale="paper", whole=True, **options):
    """For each term, the length of its gradient at Z for each image: the terms are means over images, hence the factor."""
    seen, found = weighted_terms(net, scale, whole, **options)
    slopes = {term: torch.autograd.grad(value, seen.features, retain_graph=True)[0] for term, value in found.items()}
    return {term: len(batch.images) * slope.flatten(1).norm(dim=1) for term, slope in slopes.items()}


def disagreement(net):
    """‖w‖ of each image: the gradient of KL(calibration ‖ classification) at the pooled features (Eq. 15)."""
    pooled = net(batch.images).pooled.detach().requires_grad_()
    logits, calibration_logits = net.head(pooled)
    log_p, log_q = calibration_logits.log_softmax(1), logits.log_softmax(1)
    return torch.autograd.grad((log_p.exp() * (log_p - log_q)).sum(), pooled)[0].norm(dim=1)

# %%
pulled = {name: pulls(net) for name, net in students.items()}
direct = {name: pulls(net, whole=False)["attention"] for name, net in students.items()}
for name, net in students.items():
    assert torch.allclose(direct[name], 0.5 * disagreement(net), rtol=1e-2, atol=1e-6)  # β ‖w‖
bars = {term: [pulled[name][term].numpy() for name in students] for term in SHARES["paper"]}
bars["attention, w held constant"] = [direct[name].numpy() for name in students]
figure = plots.interval_bars(list(students), bars, "length of the weighted term's gradient at Z",
                             "who pulls how hard, mean over 64 images, 95 % intervals over images")
figure.axes[0].set_xscale("log")
show(figure, "Gradient length at the last feature map of the weighted terms, for three students, on a logarithmic axis")

# %% [markdown]
r"""
What an optimiser feels is the gradient of the batch's mean in the backbone's weights, where images may pull against
each other. So here are the shares of the loss itself, of the pull at $Z$, and of the gradient in the backbone's
weights. The last row is a cosine: does the attention term want to go where Eq. 13 wants to go (1), somewhere
unrelated (0), or back (−1)?
"""

# %%
def in_backbone(net):
    """Each weighted term's gradient in the backbone's weights, in one long row."""
    _, found = weighted_terms(net)
    weights = list(net.backbone.parameters())
    return {term: torch.cat([slope.flatten() for slope in torch.autograd.grad(value, weights, retain_graph=True)])
            for term, value in found.items()}

# %%
rows_of = {}
for name, net in students.items():
    values, slopes = weighted_terms(net)[1], in_backbone(net)
    sizes = {"of the loss": {term: value.item() for term, value in values.items()},
             "of the pull at Z": {term: length.mean().item() for term, length in pulled[name].items()},
             "of the backbone's gradient": {term: slope.norm().item() for term, slope in slopes.items()}}
    rows_of[name] = {(where, term): f"{100 * size / sum(found.values()):.0f} %" for where, found in sizes.items()
                     for term, size in found.items()}
    rows_of[name]["", "cosine"] = f"{F.cosine_similarity(slopes['attention'], slopes['classification'], dim=0):+.2f}"
pd.DataFrame(rows_of)

# %%
lead = {name: max(found, key=lambda term: found[term].mean()) for name, found in pulled.items()}
times = {name: (found["attention"].mean() / found["classification"].mean()).item() for name, found in pulled.items()}
for name in students:
    say(f"- *{name}*: the **{lead[name]}** term pulls hardest at the last feature map; the attention's pull is "
        f"{times[name]:.3g} times that of the classification term.")
say("This is one batch of one seed, in eval mode: enough for orders of magnitude, not for second digits.")

# %% [markdown]
r"""
Three reasons why such terms can be far from equal. Eq. 13 is divided by $C$ and Eq. 14 is not. The gradients of Eq. 13 and 14
reach $Z$ through an *average* over the cells, and so arrive thinly spread; the map of Eq. 16 takes $Z$ as it is. And
the pull of the norm does not fade as the maps come closer, while those of the divergences do as the answers do.
Pretrained networks of another size will have other numbers: the balance is a matter of scales, and scales travel badly.

### Exercise 07.3

So set the weight by the pull. `pull_b`, `pull_ps` and `pull_att` hold the length of each **unweighted** term's gradient, one number for
each image (Eq. 13, 14 and 17). Return the $\beta$ at which the weighted attention term has the given `share` of the whole pull, all
three terms together, each with its mean over the images. A `share` of 0.2 is one fifth.
"""

# %% exercise="07.3"
def my_beta(pull_b, pull_ps, pull_att, alpha, share):
    return ...

# %% solution="07.3"
def my_beta(pull_b, pull_ps, pull_att, alpha, share):
    b, ps, att = pull_b.mean(), pull_ps.mean(), pull_att.mean()
    others = b + alpha * ps
    return share / (1 - share) * others / att  # β·att = share · (others + β·att)

# %% mistake="07.3" says="the share of what the other two pull"
def my_beta(pull_b, pull_ps, pull_att, alpha, share):
    b, ps, att = pull_b.mean(), pull_ps.mean(), pull_att.mean()
    return share * (b + alpha * ps) / att

# %% mistake="07.3" says="α is missing"
def my_beta(pull_b, pull_ps, pull_att, alpha, share):
    b, ps, att = pull_b.mean(), pull_ps.mean(), pull_att.mean()
    return share / (1 - share) * (b + ps) / att

# %% mistake="07.3" says="the share of the weights"
def my_beta(pull_b, pull_ps, pull_att, alpha, share):
    return share / (1 - share) * (1 + alpha)

# %% mistake="07.3" says="a mean of ratios"
def my_beta(pull_b, pull_ps, pull_att, alpha, share):
    ratios = (pull_b + alpha * pull_ps) / pull_att
    return share / (1 - share) * ratios.mean()

# %% mistake="07.3" says="upside down"
def my_beta(pull_b, pull_ps, pull_att, alpha, share):
    b, ps, att = pull_b.mean(), pull_ps.mean(), pull_att.mean()
    return (1 - share) / share * (b + alpha * ps) / att

# %%
check("07.3", my_beta)

# %% [markdown]
r"""
A term that dominates need not do harm, if it points in a useful direction. So: does it?

### A step that is no gradient

Hold $w$ constant, and `backward()` gives only a part of the gradient of $L_{att}$: when the network moves, $w$ moves too.
Nothing promises that a step against this part makes the term *fall*. We take the student one step along the negative
direction, of several lengths, on the same 64 images, and ask for the term again. Beside it: the whole gradient.
"""

# %%
import copy

STEP_LENGTHS = (0.0, 0.003, 0.01, 0.03, 0.1)


def attention_of(net, whole=True):
    return losses.attention_loss(teacher_map, uncertainty_attention_of(net(batch.images), whole))

# %%
def after_steps(net, whole):
    """The attention term after one step of each length against its gradient, and that gradient's direction."""
    slopes = torch.autograd.grad(attention_of(net, whole), list(net.parameters()), allow_unused=True)
    slopes = [torch.zeros_like(weight) if slope is None else slope for weight, slope in zip(net.parameters(), slopes)]
    length, found = torch.cat([slope.flatten() for slope in slopes]).norm(), []
    for eta in STEP_LENGTHS:
        moved_net = copy.deepcopy(net)
        for weight, slope in zip(moved_net.parameters(), slopes):
            weight.data -= eta * slope / length
        found.append(attention_of(moved_net).item())
    return found, torch.cat([slope.flatten() for slope in slopes]) / length

# %%
walks = {name: {kind: after_steps(net, whole) for kind, whole in (("w held constant", False), ("whole gradient", True))}
         for name, net in students.items()}
for found in walks.values():
    short, exact = found["w held constant"], found["whole gradient"]
    assert np.isclose(short[0][0], exact[0][0], rtol=1e-3)  # one value,
    assert not torch.allclose(short[1], exact[1])  # and two slopes
paths = {f"{name}, {kind}": np.array(path) / path[0] for name, found in walks.items() if name != "untrained"
         for kind, (path, _) in found.items()}
figure = plots.lines(range(len(STEP_LENGTHS)), paths, "length of the step", "attention term over its start",
                     "one step against the attention term")
figure.axes[0].set_xticks(range(len(STEP_LENGTHS)), [f"{eta:g}" for eta in STEP_LENGTHS])
figure.axes[0].legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
show(figure, "The attention term after one step of five lengths, for two students, with w held constant and whole")

# %%
for name, found in walks.items():
    cosine = (found["w held constant"][1] @ found["whole gradient"][1]).item()
    for kind, (path, _) in found.items():
        direction = "falls" if path[2] < path[0] else "does not fall"
        say(f"- *{name}*, {kind}: after a step of {STEP_LENGTHS[2]:g} the term **{direction}** ({path[0]:.3f} → "
            f"{path[2]:.3f}).")
    say(f"    - cosine between the two directions: {cosine:+.2f}")

# %% [markdown]
r"""
Where the first kind "does not fall", its step is no descent on this term at all. Then the term is not a goal that the
student approaches but a force that shakes it. That is why the library takes the whole gradient. (One batch of one seed,
and Adam's step is not a plain gradient step: a hint at a mechanism, not a proof.) The test is training itself:
"""

# %%
shaken = trained(distilled(seeds=recipes.SWEEP_SEEDS, through_weights=False))
if shaken is None:
    say("The course has not trained a student with w held constant yet; this comparison will fill itself.")
else:
    for metric in ("mAP", "true_CE_pooled", "NLL"):
        found = compare(shaken, printed[:len(shaken)], metric)
        say(f"- w held constant − whole gradient, α = β = 0.5, {len(shaken)} seeds: {METRICS[metric]} "
            f"{worded(found, metric)}, **{found.verdict}**.")
    for name, found in (("w held constant", shaken), ("whole gradient", printed)):
        first, last = (np.mean([run.history[k]["attention"] for run in found]) for k in (0, -1))
        say(f"- {name}: the attention term goes from {first:.2f} in the first epoch to {last:.2f} in the last.")

# %% [markdown]
r"""
## 4. The terms during training

Each run keeps the mean of every term in each epoch. Here are the five UD students with the printed weights, and then
those with the chosen $\beta$; bands run from the lowest seed to the highest. The last line is what a student would pay
whose map is *zero everywhere*: the mean norm of the teacher's maps (seed 0).
"""

# %%
def curve(found, term):
    """A term of the loss in each epoch, (seeds, epochs)."""
    return np.array([[row[term] for row in run.history] for run in found])


@torch.no_grad()
def maps_of(net, images):
    return torch.cat([uncertainty_attention(net.head, net.backbone(normalise(part))) for part in images.split(100)])


pictures = {"training": training_images[:400], "test": arrays(for_profile(teacher_recipe), "test").images[:400]}
of_teacher = {split: maps_of(teacher, images) for split, images in pictures.items()}
zero_map = of_teacher["training"].flatten(1).norm(dim=1).mean().item()

# %%
names = {"classification": "classification (Eq. 13)", "calibration": "α · calibration (Eq. 14)",
         "attention": "β · attention (Eq. 17)"}
weights_of = {"UD, β = 0.5": SHARES["paper"], "UD, β chosen": SHARES["paper"] | {"attention": beta}}
curves = {name: {term: size * curve(models[name], term) for term, size in weights.items()}
          for name, weights in weights_of.items()}
epochs = np.arange(1, len(printed[0].history) + 1)

# %%
for name, found in curves.items():
    means = {names[term]: values.mean(0) for term, values in found.items()}
    bands = {names[term]: (values.min(0), values.max(0)) for term, values in found.items()}
    level_line = {"β · attention of a zero map": np.full(len(epochs), weights_of[name]["attention"] * zero_map)}
    figure = plots.lines(epochs, means | level_line, "epoch", "weighted term, training images", f"{name}, five seeds",
                         bands=bands, markers=False)
    figure.axes[0].set_yscale("log")
    figure.axes[0].legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    show(figure, f"{name}: the three weighted terms over the epochs of training, logarithmic axis, with the seeds' range")

# %%
trend = {name: {term: difference(values[:, -1], values[:, 0]) for term, values in found.items()}
         for name, found in curves.items()}
for name, found in trend.items():
    DRAWN += list(found)
    for term, change in found.items():
        first, last = (curves[name][term][:, k].mean() for k in (0, -1))
        lowest = 1 + int(curves[name][term].mean(0).argmin())
        say(f"- *{name}*, {names[term]}: {first:.3g} in the first epoch, {last:.3g} in the last, **{change.verdict}** "
            f"(paired by seed). The mean is lowest in epoch {lowest} of {len(epochs)}.")
share = 100 * curves["UD, β = 0.5"]["attention"][:, -1] / curve(printed, "total")[:, -1]
say(f"With the printed weights, the attention term is {spread(share, 1, 1)} % of the loss in the last epoch.")
check_guess("share of the attention", guess_share, share.mean(), " %")

# %% [markdown]
r"""
Eq. 13 stands in the loss of every student, alone or in company. So we can ask how near each of them came to the
teacher's sigmoids, on the training images, when it had to serve other terms as well.
"""

# %%
distilled_ones = {name: found for name, found in models.items() if name not in ("baseline", "teacher")}
fit = {name: curve(found, "classification")[:, -1] for name, found in distilled_ones.items()}
show(plots.seed_intervals(fit, "Eq. 13 in the last epoch, training images, nats", "how near to the teacher's sigmoids"),
     "The classification term in the last epoch for each student, five seeds, with 95 % intervals")
for name in list(distilled_ones)[1:]:
    DRAWN.append("Eq. 13")
    found = difference(fit[name], fit["KD"])
    say(f"- *{name}* − KD: {found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}] nats, **{found.verdict}**.")
by_fit = sorted(fit, key=lambda name: fit[name].mean())
by_map = sorted(fit, key=lambda name: -stored(models[name], "mAP").mean())
say(f"Sorted by Eq. 13, nearest first: {', '.join(by_fit)}. Sorted by mAP on test: {', '.join(by_map)}. The two orders are "
    f"**{'the same' if by_fit == by_map else 'not the same'}**.")

# %% [markdown]
r"""
If the orders agree, the simplest reading is that the extra terms cost the student part of what it could have learned
from the teacher's answers, in a training of this length.

Now the attention term itself. If a term of a loss rises while the loss is being minimised, that need not be a bug: the
total is minimised, not each term. And $L_{att}$ compares maps in their own units. A map is a sum of *features times
gradients*, so it has a scale that training changes; a growing network's map grows. There are two ways to lower the
term. One is to *match* the teacher's map. The other is to *silence* one's own: if the two branches agree, $w$ and the
map vanish, and the student pays the line of the zero map. A large map in a wrong place costs more than no map at all.

Which of the two happened can be looked up. For the three students of section 3, on 400 training and 400 test images: the
size of their maps, the distance to the teacher's, and the **correlation** of the two maps over the cells, which does
not care for scale.
"""

# %%
def agreement(ours, theirs):
    ours, theirs = ours.flatten(1), theirs.flatten(1)
    centred = [part - part.mean(1, keepdim=True) for part in (ours, theirs)]
    return {"norm of its map": ours.norm(dim=1).mean().item(), "norm of the teacher's": theirs.norm(dim=1).mean().item(),
            "distance (Eq. 17)": (ours - theirs).norm(dim=1).mean().item(),
            "correlation of the maps": F.cosine_similarity(*centred).mean().item()}

# %%
seen = {(name, split): agreement(maps_of(net, images), of_teacher[split]) for name, net in students.items()
        for split, images in pictures.items()}
for found in seen.values():
    assert abs(found["norm of its map"] - found["norm of the teacher's"]) <= found["distance (Eq. 17)"] + 1e-3
pd.DataFrame(seen).T.round(3)

# %%
for name in ("KD + distribution", "UD, β = 0.5"):
    found = seen[name, "training"]
    better = "below" if found["distance (Eq. 17)"] < zero_map else "above"
    size = found["norm of its map"] / found["norm of the teacher's"]
    say(f"- *{name}*, seed 0: its map is {size:.2g} times the size of the teacher's, its branches disagree by a mean ‖w‖ "
        f"of {disagreement(students[name]).mean():.2g}; distance {found['distance (Eq. 17)']:.3g}, **{better}** the "
        f"{zero_map:.3g} of a zero map; "
        f"correlation {found['correlation of the maps']:+.2f} on training images, "
        f"{seen[name, 'test']['correlation of the maps']:+.2f} on test images.")
for name in ("UD, β = 0.5", "UD, β chosen"):
    for group in ("easy", "difficult"):
        found = compare(models[name], models["KD + distribution"], f"uncertainty_energy_{group}")
        say(f"- *{name}* − KD + distribution, five seeds: share of the uncertainty map inside the boxes of {group} labels "
            f"(lesson 06) {worded(found)}, **{found.verdict}**.")

# %% [markdown]
r"""
So the table says whether the term does its own job, to make the student's map like the teacher's, and the lines below
it whether that makes the map look at the objects of the labels more. Neither is yet a gain in accuracy. A correlation
near that of *KD + distribution*, with a much smaller map, would mean: silenced, not matched.

A remedy for the scale is `normalize=True`: each map is standardised (mean 0, standard deviation 1) before the norm.
Then $\|A_T - A_S\|^2 = 2 n (1 - r)$ for an image with $n$ cells and correlation $r$, and the term measures the pattern
alone.
"""

# %%
one, other = of_teacher["training"][:50], maps_of(students["KD + distribution"], pictures["training"][:50])
r = F.cosine_similarity(*(part.flatten(1) - part.flatten(1).mean(1, keepdim=True) for part in (one, other)))
squared = losses.attention_loss(one, other, normalize=True, reduction="none") ** 2
varied = one.flatten(1).std(1).minimum(other.flatten(1).std(1)) > 1e-6  # a flat map has no pattern to compare
assert torch.allclose(squared[varied], (2 * one[0].numel() * (1 - r))[varied], rtol=1e-2, atol=1e-2)
standardised = trained(distilled(normalize=True))
if standardised is None:
    say("The course has not trained a student on standardised maps yet, so this remedy is explained and not judged.")
else:
    for metric in METRICS:
        found = compare(standardised, models["KD + distribution"], metric)
        say(f"- standardised maps (β = 0.5) − KD + distribution: {METRICS[metric]} {worded(found, metric)}, "
            f"**{found.verdict}**")

# %% [markdown]
r"""
## 5. Table 2: does the branch help networks of every size?

Before any student, the paper asks whether the calibration branch (hard labels, Eq. 12) helps, and says: yes, for large
and small networks, and for the *Difficult* images more than for all. Its printed mAP on VOC2007, without and with the
branch, all and *Difficult*: ResNet-18 88.91 → 89.50 and 83.77 → 84.72; MobileNet-v2 90.00 → 90.37 and 85.49 → 85.71.
(So for MobileNet-v2 its own numbers say the opposite: 0.22 points on *Difficult*, 0.37 on all.) Lessons 03 and 04 asked
this for `small`; `small_narrow` has about a quarter of its weights, `small_wide` four times as many. (Levels in per
cent, differences in points.)
"""

# %%
assert round(85.71 - 85.49, 2) == 0.22 and round(90.37 - 90.00, 2) == 0.37  # MobileNet-v2 in the paper's Table 2a
sized = {key: trained(found) for key, found in recipes.by_size().items()}
table = {}
for network in recipes.NETWORKS:
    without, with_branch = sized[network, 0.0], sized[network, 0.1]
    if without is None or with_branch is None:
        say(f"`{network}` is still to be trained; its rows will fill themselves.")
        continue
    table[network, "λ = 0"] = {HEADS[metric]: level(without, metric) for metric in METRICS}
    table[network, "λ = 0.1"] = {HEADS[metric]: level(with_branch, metric) for metric in METRICS}
    gains = {metric: compare(with_branch, without, metric) for metric in METRICS}
    table[network, "difference"] = {HEADS[metric]: in_cell(found, metric) for metric, found in gains.items()}
pd.DataFrame(table).T

# %%
def more_for_difficult(ours, theirs):
    """The gain on Difficult images minus the gain on all, seed by seed."""
    DRAWN.append("Difficult more")
    gain = {metric: stored(ours, metric) - stored(theirs, metric) for metric in ("mAP", "mAP_difficult")}
    return difference(gain["mAP_difficult"], gain["mAP"])


for network in dict.fromkeys(network for network, _ in table):
    extra = more_for_difficult(sized[network, 0.1], sized[network, 0.0])
    say(f"- `{network}`, branch against none, the change of mAP on *Difficult* minus that on all: {worded(extra)}, "
        f"**{extra.verdict}**.")
for name in ("KD", "UD, β chosen"):
    extra = more_for_difficult(models[name], baseline)
    say(f"- *{name}* against the baseline, *Difficult* minus all: {worded(extra)}, **{extra.verdict}**.")

# %% [markdown]
r"""
## 6. Table 3: two teachers, two students

The heart of the paper's evidence: students ResNet-18 and MobileNet-v2, teachers VGG-19 and ResNet-101, KD and UD, on
VOC2007 and COCO. It claims that UD beats KD, that KD beats the baseline, and that a better teacher makes a better
student. These are its printed mAPs.
"""

# %%
columns = ["data", "student", "teacher", "baseline (Table 3)", "KD", "UD", "baseline (Table 2)"]
in_print = pd.DataFrame([
    ("VOC2007", "ResNet-18", "VGG-19", 90.48, 90.99, 91.24, 88.91),
    ("VOC2007", "ResNet-18", "ResNet-101", 90.48, 91.41, 91.67, 88.91),
    ("VOC2007", "MobileNet-v2", "VGG-19", 90.89, 91.46, 91.78, 90.00),
    ("VOC2007", "MobileNet-v2", "ResNet-101", 90.89, 92.01, 92.22, 90.00),
    ("COCO", "ResNet-18", "VGG-19", 75.60, 75.90, 76.12, 74.31),
    ("COCO", "ResNet-18", "ResNet-101", 75.60, 76.05, 77.19, 74.31),
    ("COCO", "MobileNet-v2", "VGG-19", 77.33, 77.67, 77.92, 75.99),
    ("COCO", "MobileNet-v2", "ResNet-101", 77.33, 77.77, 78.12, 75.99)], columns=columns)
in_print["KD − baseline"] = (in_print["KD"] - in_print["baseline (Table 3)"]).round(2)
in_print["UD − KD"] = (in_print["UD"] - in_print["KD"]).round(2)
in_print["Table 3 − Table 2"] = (in_print["baseline (Table 3)"] - in_print["baseline (Table 2)"]).round(2)
assert (in_print["UD − KD"] > 0).all() and (in_print["Table 3 − Table 2"] > 0).all()
in_print

# %%
doubt, gain = in_print["Table 3 − Table 2"], in_print["UD − KD"]
say(f"In all {len(in_print)} rows UD stands above KD, by {gain.min():.2f} to {gain.max():.2f} points; no row has error bars. "
    f"Read the last column with a pencil: the *same* network without a teacher differs between Tables 2 and 3 by "
    f"{doubt.min():.2f} to {doubt.max():.2f} points. In {int((doubt > in_print['KD − baseline']).sum())} of the rows that is "
    "more than KD is said to give. (ResNet-18's 90.48 is also what Table 5 prints for label smoothing.)")

# %% [markdown]
r"""
One more check with a pencil, on COCO's precision and recall over all labels. F1 is the harmonic mean of P and R, which
any printed row must obey. And methods of similar mAP should not swap the order of class-wise and overall F1.
"""

# %%
COCO = """ResNet-18|Baseline 81.10 61.92 70.22 84.29 67.25 74.81
ResNet-18|ML-GCN 85.12 66.50 74.66 80.92 61.24 69.72
ResNet-18|KD,VGG-19 81.61 62.58 70.84 84.00 67.90 75.10
ResNet-18|UD,VGG-19 81.75 62.80 71.04 83.98 68.26 75.31
ResNet-18|KD,ResNet-101 81.24 62.33 70.54 84.51 67.66 75.15
ResNet-18|UD,ResNet-101 87.23 66.46 75.44 84.33 60.75 70.62
MobileNet-v2|Baseline 83.22 62.50 71.39 86.55 67.41 75.79
MobileNet-v2|ML-GCN 83.65 62.14 71.30 86.88 67.07 75.70
MobileNet-v2|KD,VGG-19 83.72 62.78 71.76 86.73 67.77 76.09
MobileNet-v2|UD,VGG-19 84.08 62.85 71.93 87.47 67.48 76.19
MobileNet-v2|KD,ResNet-101 78.07 64.23 70.48 81.14 73.55 77.16
MobileNet-v2|UD,ResNet-101 87.20 68.00 76.41 83.85 63.38 72.20"""

# %%
cells = {row.rsplit(" ", 6)[0]: [float(x) for x in row.rsplit(" ", 6)[1:]] for row in COCO.splitlines()}
coco = pd.DataFrame(cells, index=["CP", "CR", "CF1", "OP", "OR", "OF1"]).T
for kind in "CO":
    harmonic = 2 * coco[f"{kind}P"] * coco[f"{kind}R"] / (coco[f"{kind}P"] + coco[f"{kind}R"])
    assert (harmonic - coco[f"{kind}F1"]).abs().max() < 0.02  # every printed F1 is that of its P and R
turned = coco[coco["CF1"] > coco["OF1"]]
named = "; ".join(name.replace("|", " with ").replace(",", " from ") for name in turned.index)
say(f"Every F1 fits its own P and R. But in {len(coco) - len(turned)} rows OF1 is the larger one, and in {len(turned)} it is "
    f"CF1: {named}. Those rows look as if their two triples had changed places. Read naively, CF1 would jump by "
    f"{turned['CF1'].max() - coco.drop(turned.index)['CF1'].max():.1f} points and OF1 would fall.")

# %% [markdown]
r"""
Now ours, with the teachers `small_wide` and `small` (both at λ = 0.1) and the students `small` and `small_narrow`. F1 at
$p \ge 0.5$, over all labels and over the top-3; difficult labels are left out of mAP and F1, and count as marked in every
calibration error. What is not trained yet is listed, not guessed.
"""

# %%
taught_by = {key: trained(found) for key, found in recipes.pairs().items()}
taught_by["small_wide", "small", "KD + distribution"] = models["KD + distribution"]
taught_by["small_wide", "small", "UD, β chosen"] = models["UD, β chosen"]
bases = {network: sized[network, 0.0] for network in recipes.STUDENTS}
waiting = [f"{who} → {pupil} by {method}" for (who, pupil, method), found in taught_by.items() if found is None]
waiting += [f"{network} alone" for network, found in bases.items() if found is None]
taught_by = {(who, pupil, "UD, β = 0.5" if method == "UD" else method): found for (who, pupil, method), found
             in taught_by.items() if found is not None and bases[pupil] is not None}
PAIRS = list(dict.fromkeys((who, pupil) for who, pupil, _ in taught_by))
say(f"Trained with five seeds: {len(PAIRS)} pairs of teacher and student. Still to be trained: "
    f"{', '.join(waiting) or 'nothing'}.")

# %%
table3 = {}
for network, alone in bases.items():
    if alone is not None:
        table3[network, "–", "baseline"] = alone
        table3 |= {(network, who, method): found for (who, pupil, method), found in taught_by.items() if pupil == network}


def rows_for(metrics):
    """Mean ± standard deviation of each metric, a row for each student, teacher and method."""
    frame = pd.DataFrame({key: {title: level(found, metric) for metric, title in metrics.items()}
                          for key, found in table3.items()}).T
    return frame.rename_axis(["student", "teacher", "method"])

# %%
F1 = ["CP", "CR", "CF1", "OP", "OR", "OF1"]
display(rows_for({"mAP": "mAP"} | {name: name for name in F1}))
display(rows_for({f"{name}_top3": f"{name}, top-3" for name in F1}))
display(rows_for({metric: title for metric, title in METRICS.items() if "mAP" not in metric}))

# %%
CONTRASTS = {"KD − baseline": ("KD", "baseline"), "KD + distribution − KD": ("KD + distribution", "KD"),
             "UD, β chosen − KD": ("UD, β chosen", "KD"), "UD, β chosen − baseline": ("UD, β chosen", "baseline"),
             "UD, β = 0.5 − KD": ("UD, β = 0.5", "KD"), "UD, β = 0.5 − baseline": ("UD, β = 0.5", "baseline")}
ASKED = {"mAP": "mAP", "CF1": "CF1", "OF1": "OF1", "ECE_pooled": "ECE, pooled", "true_CE_pooled": "true error, pooled",
         "NLL": "NLL"}


def runs_of(pair, method):
    return bases[pair[1]] if method == "baseline" else taught_by.get((*pair, method))


contrasts = {(f"{pair[0]} → {pair[1]}", contrast): {metric: compare(runs_of(pair, ours), runs_of(pair, theirs), metric)
             for metric in ASKED} for pair in PAIRS for contrast, (ours, theirs) in CONTRASTS.items()
             if runs_of(pair, ours) is not None and runs_of(pair, theirs) is not None}

# %%
kept = {key: found for key, found in contrasts.items() if "0.5" not in key[1]}  # the printed β: in the table below
drawn = {ASKED[metric]: [100 * np.array([found[metric][k] for found in kept.values()]) for k in range(3)]
         for metric in ("mAP", "CF1", "ECE_pooled")}
figure = plots.estimates([f"{contrast}\n{pair}" for pair, contrast in kept], drawn, "points",
                         "paired differences, 95 % t intervals over five seeds")
figure.axes[0].axvline(0, color="black", linewidth=0.8)
show(figure, "Paired differences of mAP, CF1 and pooled ECE for each pair and contrast that is trained, without the printed β")

# %%
heads = {metric: title + (", nats" if metric == "NLL" else ", points") for metric, title in ASKED.items()}
display(pd.DataFrame({key: {heads[metric]: in_cell(found[metric], metric) for metric in ASKED}
                      for key, found in contrasts.items()}).T)
for contrast in CONTRASTS:
    for metric in ("mAP", "true_CE_pooled"):
        words = pd.Series([found[metric].verdict for key, found in contrasts.items() if key[1] == contrast]).value_counts()
        say(f"- *{contrast}*, {ASKED[metric]}: " + (", ".join(f"{n} × {word}" for word, n in words.items()) or "–") + ".")

# %% [markdown]
r"""
Look at F1 beside mAP. F1 cuts at 0.5, so it feels a *level* that mAP does not see. A student that has become more
cautious finds fewer labels at that threshold even if its ranking is as good (lesson 02).

Does the better teacher make the better student? First the teachers themselves, then the pupils of the one against the
pupils of the other.
"""

# %%
own = compare(teachers, sized["small", 0.1], "mAP")
say(f"The teachers themselves, `small_wide` − `small`: mAP {worded(own)}, **{own.verdict}**. Their pupils:")
count = 0
for pupil in recipes.STUDENTS:
    for method in ("KD", "UD, β = 0.5"):
        ours, theirs = (taught_by.get((who, pupil, method)) for who in ("small_wide", "small"))
        if ours is not None and theirs is not None:
            count += 1
            mean_ap, error = (compare(ours, theirs, metric) for metric in ("mAP", "true_CE_pooled"))
            say(f"- `{pupil}` by {method}: mAP {worded(mean_ap)}, **{mean_ap.verdict}**; true error, pooled {worded(error)}, "
                f"**{error.verdict}**.")
say(f"{count} of 4 comparisons are trained.")

# %% [markdown]
r"""
### Elsewhere

One data set and one regime of training are one case. The same three networks (`small` alone, by KD, by UD as printed, from
`small_wide`) on `digits`, whose pixels nobody here drew, and on `scenes` in the two other regimes: without any augmentation, where
networks overfit, and with CutOut, where there is little left to calibrate.
"""

# %%
elsewhere = {"digits": (recipes.two_branch(0.0, "digits"), *(distilled(terms, "digits") for terms in recipes.PAIR_TERMS))}
elsewhere |= {regime: (recipes.regimes()[regime, 0.0], *(recipes.regimes_distilled()[regime, terms] for terms in recipes.PAIR_TERMS))
              for regime in recipes.REGIMES}
found = {place: [trained(chosen) for chosen in three] for place, three in elsewhere.items()}
if missing := [place for place, three in found.items() if None in three]:
    say(f"Still to be trained, and left out: {', '.join(missing)}.")
found = {place: three for place, three in found.items() if None not in three}

# %%
ASIDE = {metric: title for metric, title in ASKED.items() if metric not in ("CF1", "OF1")}
gains = {(place, contrast): {metric: compare(ours, theirs, metric) for metric in ASIDE}
         for place, (alone, kd, ud) in found.items()
         for contrast, ours, theirs in (("KD − baseline", kd, alone), ("UD, β = 0.5 − KD", ud, kd))}
pd.DataFrame({key: {heads[metric]: in_cell(found_here[metric], metric) for metric in ASIDE} for key, found_here in gains.items()}).T

# %%
drawn = {ASIDE[metric]: [100 * np.array([gains[place, "KD − baseline"][metric][k] for place in found]) for k in range(3)]
         for metric in ("mAP", "ECE_pooled", "true_CE_pooled")}
if np.isfinite(list(drawn.values())).all():
    figure = plots.estimates(list(found), drawn, "points", "KD − baseline: paired differences, 95 % t intervals over five seeds")
    figure.axes[0].axvline(0, color="black", linewidth=0.8)
    show(figure, "Paired differences by KD in mAP, pooled ECE and pooled true error on digits and in three regimes on scenes")

# %% [markdown]
r"""
## 7. Table 5: soft labels without a teacher

A student that learns from a teacher should be held against whatever else softens labels. The paper's Table 5 does so
(ResNet-18, VOC2007): a partial softmax with temperature 3, label smoothing for sigmoids (logits of ±9), and the 1/k
softmax (lesson 03). It ranks UD first. The two softmax rows train a network whose logits have no level. So they have
a mAP, ranked by their softmax, but neither F1 nor calibration.
"""

# %%
rivals = {name: [load_or_run(chosen) for chosen in found] for name, found in recipes.hard_labels().items()}
table5 = {"hard labels (baseline)": baseline} | rivals
table5 |= {"UD without attention": models["KD + distribution"], "UD, β = 0.5": printed, "UD, β chosen": models["UD, β chosen"]}
in_paper = ["88.91 ± 0.10", "90.27 ± 0.24", "90.48 ± 0.12", "91.37 ± 0.09", "91.46 ± 0.05", "91.67 ± 0.09", "–"]
shown = near(table5)
show(plots.seed_intervals({name: 100 * stored(found, "mAP") for name, found in shown.items()},
                          "mAP on the test images, per cent", "five seeds (ticks) and 95 % intervals"),
     "mAP of the ways to train one student that lie near the baseline, over five seeds, with 95 % intervals")
say(f"Further than 10 points away, and so only in the table: {', '.join(set(table5) - set(shown)) or 'none'}.")

# %%
rows_of = {}
for (name, found), number in zip(table5.items(), in_paper):
    rows_of[name] = {"mAP": level(found, "mAP"), "paper, VOC2007": number}
    for metric in ("mAP", "ECE_pooled", "NLL"):
        levelled = np.isfinite(stored(found, metric)).all() and found is not baseline
        gained = compare(found, baseline, metric) if levelled else None
        rows_of[name][f"{HEADS[metric]}, − baseline"] = in_cell(gained, metric) if gained else "–"
pd.DataFrame(rows_of).T

# %% [markdown]
r"""
The question behind the table is whether the *teacher* is needed. So UD should be compared with the best of the
rivals, chosen on **validation** (chosen on test, it would look better than it is), and judged on test.
"""

# %%
on_val = {name: stored(found, "mAP", "val").mean() for name, found in rivals.items()}
rival = max(on_val, key=on_val.get)
for name in ("UD without attention", "UD, β = 0.5", "UD, β chosen"):
    found = compare(table5[name], rivals[rival], "mAP")
    say(f"- *{name}* against *{rival}* (the rival best on validation): {worded(found)}, **{found.verdict}**.")
found = compare(models["KD"], rivals[rival], "mAP")
say(f"- And plain *KD* against it: {worded(found)}, **{found.verdict}**.")
say("- The paper's last two rows, without and with attention, differ by 0.21 points, with standard deviations of 0.05 and "
    "0.09.")

# %% [markdown]
r"""
## 8. The weights α and β

The paper sets $\alpha = \beta = 0.5$ "empirically" and shows no sweep. Ours: $\beta$ over four values with five seeds,
$\alpha = 0.5$. The dotted line is KD.
"""

# %%
factor = {metric: 1 if metric == "NLL" else 100 for metric in METRICS}
panels = {HEADS[metric].replace("points", "%"): {"UD": [factor[metric] * stored(found, metric) for found in by_beta.values()]}
          for metric in METRICS}
lines = {HEADS[metric].replace("points", "%"): {"KD": factor[metric] * stored(models["KD"], metric).mean()}
         for metric in METRICS}
panels = {title: found for title, found in panels.items() if np.isfinite(list(found.values())).all()}
show(plots.panels(list(by_beta), panels, "β", references=lines, columns=3),
     "Six scores of the UD student against β, five seeds, with 95 % intervals, beside KD")

# %%
for value in (value for value in by_beta if value > 0):
    found = {metric: compare(by_beta[value], by_beta[0.0], metric) for metric in ("mAP", "true_CE_pooled", "NLL")}
    said = "; ".join(f"{METRICS[metric]} {worded(d, metric)}, **{d.verdict}**" for metric, d in found.items())
    say(f"- β = {value:g} against β = 0: {said}.")
helps = [value for value in by_beta if value > 0 and compare(by_beta[value], by_beta[0.0], "mAP").verdict == "higher"]
say(f"Values of β at which the attention term raises mAP detectably: {', '.join(f'{v:g}' for v in helps) or 'none'}.")

# %% [markdown]
r"""
And $\alpha$, with no attention at all ($\beta = 0$). At $\alpha = 0$ this is plain KD. These have **three seeds**, whose
t quantile is above 4 (five seeds: below 3), so their intervals are wide.
"""

# %%
assert student_t.ppf(0.975, 2) > 4 > 3 > student_t.ppf(0.975, 4)
by_alpha = {value: trained(found) for (name, value), found in recipes.weights().items() if name == "alpha"}
absent = [f"α = {value:g}" for value, found in by_alpha.items() if found is None]
by_alpha = {value: found for value, found in by_alpha.items() if found is not None}
say("Trained: " + ", ".join(f"α = {value:g} (mAP {level(found, 'mAP')} %, true error {level(found, 'true_CE_pooled')} %)"
    for value, found in by_alpha.items()) + f". Still to be trained: {', '.join(absent) or 'nothing'}.")
for value in (value for value in by_alpha if value > 0):
    found = {metric: compare(by_alpha[value], by_alpha[0.0], metric) for metric in ("mAP", "true_CE_pooled", "NLL")}
    said = "; ".join(f"{METRICS[metric]} {worded(d, metric)}, **{d.verdict}**" for metric, d in found.items())
    say(f"- α = {value:g} against α = 0: {said}.")

# %% [markdown]
r"""
A weight that is good for mAP need not be good for calibration. If the two disagree, no table can choose for you: say
first what the network is for.

### Exercise 07.4

This section drew many intervals, and a 95 % interval misses the truth once in twenty. Of `m` independent intervals, each misses with
chance `miss`. Return two numbers: the chance that at least one of them misses, and the rate at which each may miss so that this
chance is `miss` again.
"""

# %% exercise="07.4"
def my_luck(m, miss):
    return ..., ...

# %% solution="07.4"
def my_luck(m, miss):
    none = (1 - miss) ** m
    return 1 - none, 1 - (1 - miss) ** (1 / m)

# %% mistake="07.4" says="the number of misses to expect"
def my_luck(m, miss):
    rate = 1 - (1 - miss) ** (1 / m)
    return m * miss, rate

# %% mistake="07.4" says="the chance that none misses"
def my_luck(m, miss):
    rate = 1 - (1 - miss) ** (1 / m)
    return (1 - miss) ** m, rate

# %% mistake="07.4" says="all of them miss"
def my_luck(m, miss):
    rate = 1 - (1 - miss) ** (1 / m)
    return miss**m, rate

# %% mistake="07.4" says="exactly one misses"
def my_luck(m, miss):
    rate = 1 - (1 - miss) ** (1 / m)
    return m * miss * (1 - miss) ** (m - 1), rate

# %% mistake="07.4" says="Bonferroni"
def my_luck(m, miss):
    return 1 - (1 - miss) ** m, miss / m

# %% mistake="07.4" says="must *not* miss"
def my_luck(m, miss):
    return 1 - (1 - miss) ** m, (1 - miss) ** (1 / m)

# %% mistake="07.4" says="expected a pair"
def my_luck(m, miss):
    return 1 - (1 - miss) ** m

# %%
check("07.4", my_luck)

# %% [markdown]
r"""
## 9. What the released code does instead

The authors' code (LcDog/ud) leaves the paper in these terms. None of it makes the paper wrong, but whoever compares
numbers should know.

| | paper | released code |
|---|---|---|
| temperature of both divergences | none printed (1) | 3, with a factor $T^2 = 9$ |
| classification term | $L'_b$ | one half of it |
| weights | α = β = 0.5 | (½ Eq. 13 + α Eq. 14) / 2 + β·attention, with α = 1, β = 0.1 |
| attention distance | norm for each image | mean of the squares over all cells |
| weights of the channels | $w_c$ | softmax of $w$ over the channels |
| pooling | not stated | global max |

`scale="released"` of our losses is the repaired version of the sums and factors. It changes the balance between the
terms. How much? The pulls of section 3 once more, for the same three students:
"""

# %%
options = {"alpha": 1.0, "beta": 0.1, "temperature": 3.0}
SHARES["released"] = {"classification": 0.5, "calibration": 0.5 * options["alpha"], "attention": options["beta"]}
whole = losses.uncertainty_distillation_loss(taught, told, teacher_map=teacher_map, student_map=student_map,
                                             scale="released", **options)
assert torch.isclose(whole["total"], sum(SHARES["released"][term] * whole[term] for term in SHARES["released"]))
as_released = {name: pulls(net, "released", **options) for name, net in students.items()}

# %%
balance = {(name, scale): {term: f"{100 * length.mean() / sum(part.mean() for part in found.values()):.1f} %"
                           for term, length in found.items()}
           for name in students for scale, found in (("paper", pulled[name]), ("released", as_released[name]))}
pd.DataFrame(balance).T.rename_axis(["share of the pull at Z", "scale"])

# %%
features = taught.features
pooled = taught.pooled.clone().requires_grad_()
logits, calibration_logits = teacher.head(pooled)
log_p, log_q = calibration_logits.log_softmax(1), logits.log_softmax(1)
w, = torch.autograd.grad((log_p.exp() * (log_p - log_q)).sum(), pooled)
assert torch.allclose(torch.einsum("nc,nchw->nhw", w, features), teacher_map, rtol=1e-2, atol=1e-3)  # Eq. 16
softened = torch.einsum("nc,nchw->nhw", w.softmax(1), features)  # the released code's weights
plain = features.mean(1)  # mean activation: no uncertainty in it at all
close = {"the paper's map": teacher_map, "the released map": softened}
r = {name: agreement(found, plain)["correlation of the maps"] for name, found in close.items()}
say("Correlation with the plain mean of the feature map, teacher, 64 images: " + ", ".join(
    f"{name} {value:+.2f}" for name, value in r.items()) + f". Weights after the softmax run from "
    f"{w.softmax(1).min() * w.shape[1]:.2f} to {w.softmax(1).max() * w.shape[1]:.2f} times their mean.")

# %% [markdown]
r"""
If the released map correlates almost fully with the mean activation, it says where the features are *active*, not
where the branches disagree. A student that copies it learns plain attention transfer (Zagoruyko and Komodakis, 2017),
which is a fine method, but another one.

## 10. So why?

UD with the printed weights loses accuracy, and so far nothing says why. There are four suspects, and an experiment
for each. Most change one setting:

| suspect | the experiment |
|---|---|
| the start | pretrained networks: ImageNet weights, and photographs |
| a term | leave out the attention ($\beta = 0$), or the distribution ($\alpha = 0$) |
| the balance of the terms | *sum* Eq. 13 over the classes, as Eq. 3 does, where the paper prints a mean; or the released factors and map |
| the pace | let $\beta$ rise slowly from 0 to 0.5; or divide the learning rate by ten |

Each variant has five seeds, and KD stands beside it with the same start, teacher, batches and epochs. The
photographs are those of lesson 03, section 11: an EfficientNet-Lite0 at 128 px learns from an EfficientNet-Lite2 at
224 px. `scenes` are our drawings. The list was written down before any student on photographs was trained. For
`scenes`, some of its rows were known from sections 1 to 9.

The idea behind the third row is one line. A sum is $C$ times a mean, so with $\alpha = \beta = 0.5$

$$C L'_b + \alpha L'_{ps} + \beta L_{att} \;=\; C \Big( L'_b + \tfrac{\alpha}{C} L'_{ps} + \tfrac{\beta}{C} L_{att} \Big).$$

To sum Eq. 13 is to make both other weights $C$ times smaller, up to a factor in front of everything. On the batch
of section 2:
"""

# %%
C = taught.logits.shape[1]
both_maps = {"teacher_map": teacher_map, "student_map": student_map}
with_sum = losses.uncertainty_distillation_loss(taught, told, 0.5, 0.5, over_classes="sum", **both_maps)["total"]
with_mean = losses.uncertainty_distillation_loss(taught, told, 0.5 / C, 0.5 / C, **both_maps)["total"]
assert torch.isclose(with_sum, C * with_mean)
equal = ", ".join(f"{0.5 / count:.3f} with {count} classes" for count in (C, 29, 80))
say(f"A weight of 0.5 beside the sum is, beside the mean, {equal}.")

# %% [markdown]
r"""
Predict: on photographs, UD as printed ends six points of mAP below KD. How many of them come back when Eq. 13 is
summed over the 29 classes?
"""

# %%
guess_summed = ...  # mAP of UD with Eq. 13 summed minus mAP of UD as printed, in points

# %%
from udlib.course.evidence import differences as paired_on, evidence_table
from udlib.course.photo_arms import causes, summed_without_attention
from udlib.figures.text import as_markdown

NAMES = {"photos": "photographs, ImageNet weights", "scenes": "scenes, random start"}
variants = {}
for data in NAMES:
    variants[data] = {name: recipes_of for (start, name), recipes_of in causes(data).items() if start == "first"}
    variants[data]["hard labels, λ = 0.1"] = variants[data].pop("hard labels")
    for recipes_of in variants[data].values():
        trained(recipes_of)  # where they are not stored: a few steps, in the tests

# %%
minus_kd = {data: paired_on(variants[data], "KD", "mAP") for data in NAMES}
bars = {NAMES[data]: [[100 * gap[k] for gap in gaps.values()] for k in range(3)] for data, gaps in minus_kd.items()}
figure = plots.estimates(list(minus_kd["photos"]), bars, "mAP minus that of KD, points", "paired by seed, 95 % intervals")
figure.axes[0].axvline(0, color="black", linewidth=0.8)
figure.axes[0].legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.01, 1))  # inside, it would hide a point
show(figure, "mAP of each variant of UD, and of hard labels, minus that of KD, on photographs and on scenes")

# %%
def beside(runs_of, heads, reference):
    """Several variants beside one of them: means, and the changes that are detected; every change is counted."""
    DRAWN.extend((len(runs_of) - 1) * list(heads))
    return as_markdown(evidence_table(runs_of, heads, reference))


SHOWN_HEADS = {"mAP": "mAP, %", "mAP_difficult": "mAP Difficult, %", "ECE_pooled": "pooled ECE, %", "NLL": "NLL, nats"}
for data, title in NAMES.items():
    say(f"**{title}**\n\n" + beside(variants[data], SHOWN_HEADS, "KD"))
regained = {data: paired_on(variants[data], "UD", "mAP")["UD, Eq. 13 summed"] for data in NAMES}
check_guess("mAP that comes back on photographs", guess_summed, 100 * regained["photos"].mean, " points")

# %% [markdown]
r"""
What the photographs say about each suspect:

- **The start.** These networks began with ImageNet weights, as the paper's do, and UD lost six points all the same. So
  a random start alone does not explain the loss.
- **A term.** Without the attention term five of the six points are back. Without the distribution UD falls to about a
  third of KD's mAP. That is a surprise. A likely reason: Eq. 14, too, teaches which labels are there, and beside an
  averaged Eq. 13 it does most of that work. We have not tested this.
- **The balance.** With Eq. 13 summed, all six points are back: no difference to KD is detected. The released factors
  and map bring back four.
- **The pace.** A $\beta$ that rises slowly to the printed 0.5 brings back four points, so a late attention term does
  less harm. With a tenth of the learning rate mAP ends at 11 %; but KD was not trained at that rate, so this variant
  says little about UD.
"""

# %%
assert [name for name, gap in minus_kd["photos"].items() if gap.verdict != "lower"] == ["UD, Eq. 13 summed", "hard labels, λ = 0.1"]
minus_ud = paired_on(variants["photos"], "UD", "mAP")
assert [name for name, gap in minus_ud.items() if gap.verdict == "lower"] == ["UD, no distribution", "UD, lr / 10"]
for data, title in NAMES.items():
    gap = minus_kd[data]["UD, Eq. 13 summed"]
    say(f"- {title}: UD as printed minus KD {worded(minus_kd[data]['UD'])}; summing brings back {worded(regained[data])}; the gap to "
        f"KD that remains is {worded(gap)}, **{gap.verdict}**.")

# %% [markdown]
r"""
On `scenes`, from a random start, more is lost and most of it comes back in the same way. Two to three points below
KD remain with the sum. To see which term takes those, one more student was trained on both data sets, after all
this was known: Eq. 13 summed, and no attention term.
"""

# %%
FREE = "UD, Eq. 13 summed, no attention"
HEADS_ONCE = SHOWN_HEADS | {"overconfidence": "overconfidence, points"}
with_sum_of = {}
for data, title in NAMES.items():
    recipes_of = summed_without_attention(data)
    trained(recipes_of)
    with_sum_of[data] = {name: variants[data][name] for name in ("hard labels, λ = 0.1", "KD")} | {
        FREE: recipes_of, "UD, Eq. 13 summed": variants[data]["UD, Eq. 13 summed"]}
    say(f"**{title}**\n\n" + beside(with_sum_of[data], HEADS_ONCE, FREE))

# %%
term = {data: {m: paired_on(with_sum_of[data], FREE, m)["UD, Eq. 13 summed"] for m in HEADS_ONCE} for data in NAMES}
for data, title in NAMES.items():
    gap = paired_on(with_sum_of[data], "KD", "mAP")[FREE]
    say(f"- {title}: without the attention term, mAP minus KD {worded(gap)}, **{gap.verdict}**. What the term changes: "
        + "; ".join(f"{HEADS_ONCE[m].split(',')[0]} {worded(d, m)}, **{d.verdict}**" for m, d in term[data].items()) + ".")
assert paired_on(with_sum_of["photos"], "KD", "mAP")[FREE].verdict == "not detected"
assert [d.verdict for d in term["photos"].values()] == ["not detected", "not detected", "lower", "lower", "lower"]

# %% [markdown]
r"""
Now the cause can be said. **Weights of 0.5 belong beside a summed Eq. 13. The paper averages it over the classes,
so both other terms weigh $C$ times more. The attention term then costs most of the lost accuracy, the distribution
the rest.** With the sum and no attention term, nothing is lost on either data set that five seeds can detect.

And what does the attention term give? Better calibration. Beside the sum it lowers the pooled ECE, the
overconfidence and the NLL on both data sets. On photographs no cost in mAP is detected; on `scenes` it costs one to
four points. So UD with Eq. 13 summed is the best calibrated student of the tables just above, and on photographs as
accurate as KD. (Beside an averaged Eq. 13, the distribution does the same: "UD, no attention" has an even lower
pooled ECE on photographs, and pays for it with a point of mAP.)

How does it stand beside hard labels and a temperature?
"""

# %%
summed_ud, hard = (with_sum_of["photos"][name] for name in ("UD, Eq. 13 summed", "hard labels, λ = 0.1"))
rivals_of_ud = {"hard labels": (hard, ""), "hard labels, one temperature": (hard, "test/temperature "), "KD": (variants["photos"]["KD"], "")}
rows, verdict = [["on photographs, UD with Eq. 13 summed, minus", *SHOWN_HEADS.values()]], {}
for other, (runs_of, prefix) in rivals_of_ud.items():  # a temperature keeps every order, and so mAP
    gaps = {m: difference(metric_values(summed_ud, m), metric_values(runs_of, m if "mAP" in m else prefix + m)) for m in SHOWN_HEADS}
    DRAWN += list(gaps)
    verdict[other] = [gap.verdict for gap in gaps.values()]
    rows.append([other, *(in_cell(gap, m) for m, gap in gaps.items())])
say(as_markdown(rows).replace("--:", "---"))
assert verdict["hard labels"] == verdict["hard labels, one temperature"] == ["not detected", "higher", "lower", "lower"]
assert verdict["KD"] == ["not detected", "not detected", "lower", "not detected"]

# %% [markdown]
r"""
It ranks *Difficult* images better than hard labels do, and it is better calibrated than hard labels with their
temperature. The paper claims more, namely that UD beats KD in mAP; here no difference is detected, neither on all
images nor on the *Difficult* ones.

### From a student that is trained already

On `scenes` all variants were trained from a second start, too: the student of hard labels at λ = 0.1 after its 40
epochs. From there each of them trains for 40 more.
"""

# %%
again = {name: recipes_of for (start, name), recipes_of in causes("scenes").items() if start == "trained"}
for recipes_of in again.values():
    trained(recipes_of)
say(beside(again, HEADS_ONCE, "KD"))

# %%
to_kd = {m: paired_on(again, "KD", m) for m in ("mAP", "ECE_pooled")}
if profile() != "smoke":
    above = [name for name, gap in to_kd["mAP"].items() if gap.verdict == "higher"]
    assert above == ["UD, Eq. 13 summed", "UD released"] and to_kd["mAP"]["UD"].verdict == "lower"
    assert to_kd["ECE_pooled"]["UD, Eq. 13 summed"].verdict == "lower" and to_kd["ECE_pooled"]["UD released"].verdict != "lower"
    assert min(again, key=lambda name: np.mean(metric_values(again[name], "ECE_pooled"))) in ("UD", "UD, β ramped up")
for name in ("UD", "UD, Eq. 13 summed", "UD released"):
    say(f"- *{name}* minus KD, from a trained student: mAP {worded(to_kd['mAP'][name])}, **{to_kd['mAP'][name].verdict}**; "
        f"pooled ECE {worded(to_kd['ECE_pooled'][name])}, **{to_kd['ECE_pooled'][name].verdict}**.")

# %% [markdown]
r"""
So the start matters as well. From a trained student, UD as printed loses one point to KD, not twenty-three; with
the sum it gains a little over KD, with the released factors nearly a point. That is the order that the paper
reports. Eighty epochs make hard labels and KD overconfident, and there the attention term shows most: with it, as
printed, the pooled ECE stays below half a per cent, where KD's is three.

### Does the attention term do its own job?

It asks the student's map to become the teacher's (Eq. 17). So we measured on the test photographs, on 4 × 4 cells,
how the two maps agree: their correlation, their distance, and how large each is.
"""

# %%
MAPS = {"map_correlation": "correlation", "map_distance": "distance ‖A_T − A_S‖", "map_norm": "size ‖A_S‖"}
with_maps = {name: variants["photos"][name] for name in ("UD, no attention", "UD")}
with_maps |= {name: with_sum_of["photos"][name] for name in (FREE, "UD, Eq. 13 summed")}
say(beside(with_maps, MAPS, "UD, no attention"))
teacher_size = np.mean(metric_values(with_maps["UD"], "teacher_map_norm"))
say(f"The teacher's maps have size {teacher_size:.2f} on average: a student whose map is zero everywhere has exactly this distance.")

# %% [markdown]
r"""
With the term the student's map is four times smaller than without it. It is no more *like* the teacher's: no change
in the correlation is detected, and it stays near 0. One line shows why that is the easy way. For two maps of one
image,

$$\|A_T - A_S\|^2 = \|A_T\|^2 + \|A_S\|^2 - 2 \langle A_T, A_S \rangle.$$

When the maps have little in common, the last part is near 0, and the distance falls fastest when $A_S$ shrinks. So
the student does not learn where its teacher is uncertain. Its own map only becomes small. We do not know why a
student with a small map is less overconfident.
"""

# %%
for name, alone in (("UD", "UD, no attention"), ("UD, Eq. 13 summed", FREE)):
    gap = {m: difference(metric_values(with_maps[name], m), metric_values(with_maps[alone], m)) for m in MAPS}
    assert gap["map_correlation"].verdict == "not detected" and gap["map_norm"].verdict == "lower"
    size, apart = (np.mean(metric_values(with_maps[name], m)) for m in ("map_norm", "map_distance"))
    assert apart > teacher_size and np.mean(metric_values(with_maps[alone], "map_norm")) > 3 * size
    say(f"- *{name}*, change of the correlation: {in_units(gap['map_correlation'], 1, 3, unit='')}. Distance {apart:.2f}; from the two "
        f"sizes alone, √({teacher_size:.2f}² + {size:.2f}²) = {np.hypot(teacher_size, size):.2f}.")

# %% [markdown]
r"""
### A student to keep

The trained network of UD with Eq. 13 summed (seed 0) ships in half precision, so that you can use it without the
photographs of `photos`. Here it sees two pictures that come with scikit-learn. Look at them and at its 29 classes,
and predict: which labels will be the most probable, and how probable?
"""

# %%
from udlib.course.sample_photos import answers_on_samples, draw_maps_on_samples, photo_student, sample_photos

photo_network = photo_student()
print(", ".join(photo_network.classes))
show(draw_maps_on_samples(photo_network), "A palace and a flower, each with the student's uncertainty map and its map of the first label")

# %%
answers = answers_on_samples(photo_network, top=3)
for name, photo in sample_photos().items():
    labels_of_photo = ", ".join(f"{label} {100 * p:.1f} %" for label, p in answers[name].items())
    say(f"- {name}: {labels_of_photo}. ({photo.credit})")
assert max(max(labels_of_photo.values()) for labels_of_photo in answers.values()) < 0.1

# %% [markdown]
r"""
Neither a palace nor a flower is among its classes, and no label gets even 10 %. A softmax over the classes could
not answer like that: its probabilities must add up to 1. The maps have 4 × 4 cells, so expect no outlines.

Where you have the photographs, here are its maps on three of them:
"""

# %% tags=["photo"]
from udlib.course.photo_cells import show_photographs
from udlib.course.explorers import AttentionExplorer
from udlib.datasets.photos import photos as photographs

show_photographs(lambda: AttentionExplorer({"student": photo_network.network}, photographs("test"), [0, 5, 9], 240, crop=128))

# %% [markdown]
r"""
## 11. Explore: any method, pair and metric

The figures of sections 1 and 6 showed some metrics at a glance. Here are more, one setting at a time, and every seed has
a tick: does the sign of a difference hang on one of them? The last slider leaves out UD with the printed $\beta$, whose
row may squeeze all the others into one spot.
"""

# %%
from udlib.course.explorers import Explorer, Frame

SHOWN = ["mAP", "mAP_difficult", "CF1", "OF1", "CF1_top3", "OF1_top3", "ECE_pooled", "ECE", "true_CE_pooled", "NLL"]
BY_NAME = {f"{who} → {pupil}": (who, pupil) for who, pupil in PAIRS}


def methods_of(pair, rows):
    who, pupil = BY_NAME[pair]
    order = ["KD", "KD + distribution", "UD, β chosen"] + ["UD, β = 0.5"] * (rows == "all")
    return {"baseline": bases[pupil]} | {name: taught_by[who, pupil, name] for name in order
                                         if (who, pupil, name) in taught_by}

# %%
def frame(pair, metric, against, rows):
    factor, digits, unit = (1, 4, "nats") if metric == "NLL" else (100, 2, "points")
    found = methods_of(pair, rows)
    gaps = {f"{name} − {against}": factor * (stored(runs, metric) - stored(found[against], metric))
            for name, runs in found.items() if name != against}
    gaps = {name: values for name, values in gaps.items() if np.isfinite(values).all()}
    readings = {name: level(runs, metric) for name, runs in found.items()}
    alt = f"{pair}, {metric}: " + ", ".join(f"{name} {value}" for name, value in readings.items())
    lines = [["difference", *(f"seed {k}" for k in range(5)), "verdict"]]
    lines += [[name, *(f"{value:+.{digits}f}" for value in values), difference(values, 0 * values).verdict]
              for name, values in gaps.items()]
    figure = plots.seed_intervals(gaps, f"{metric}, {unit}", f"{pair}: paired by seed", zero=True)
    return Frame(figure, alt, readings, lines)

# %%
explorer = Explorer({"teacher → student": list(BY_NAME), "metric": SHOWN, "against": ["baseline", "KD"],
                     "rows": ["without β = 0.5", "all"]}, frame,
                    note="Test images, five seeds, 95 % t intervals. What you look at here is not counted below.")
assert explorer.value[1:] == ("mAP", "baseline", "without β = 0.5") and level(models["KD"], "mAP") in explorer.readout.value
explorer

# %% [markdown]
r"""
Find a metric in which two methods change places. Then mind what you have just done: with four sliders and many
settings, something will always look interesting.

## 12. Verdicts, and the ledger of equations

`udlib.course.verdicts` holds the paper's claims about distillation as data, beside questions of our own. Each is judged by a
paired difference. *holds* means that the interval lies on the side that the claim says, *reversed* on the other.
"""

# %%
from udlib.course.report import verdicts
from udlib.course.verdicts import best_beta, distillation_claims

assert beta == best_beta()
head, *judged = verdicts(distillation_claims())
DRAWN += [row[0] for row in judged if row[3] != "–"]
say(as_markdown([head, *judged]).replace("--:", "---"))

# %%
words = pd.Series([row[-1].strip("*") for row in judged]).value_counts()
say(f"{len(judged)} claims: " + ", ".join(f"{count} *{word}*" for word, count in words.items()) + ".")
say(f"This lesson has drawn {len(DRAWN)} intervals in all. If nothing had any effect, about {len(DRAWN) / 20:.0f} of them "
    "would miss 0 by chance, and many look at the same networks, so they err together.")

# %% [markdown]
r"""
A plain "UD" has the weights as printed. Be fair in both directions. "Not detected" with five seeds means an
effect smaller than about the seeds' own spread, not none. "Reversed" means: reversed *here*, for small pictures and small
networks. Section 10 has the same question for pretrained networks on photographs, with the same answer for the weights as printed.
The authors' own networks and pictures are larger, and their released code weighs the attention quite differently (section 9).
Lesson 11 shows how to run the same comparison at full size.

The last table is a ledger: every equation of the paper, the function that computes it, the lesson and the test that
prove it, and how the released code departs.
"""

# %%
from udlib.course import ledger

say(as_markdown(ledger.rows()).replace("--:", "---"))

# %% [markdown]
r"""
### Exercise ★★★ (open): choose β

You distil by UD on your own pictures, with another network. You can afford sixty trainings of a student. How do you find
$\beta$, and how do you decide whether to use the attention term at all?

One point each:

1. You measure pulls before you choose a grid.
2. $\beta = 0$ and plain KD are among the arms, with the same teacher, start and batches.
3. The choice is made on validation, by a score that fits the use, as a mean over seeds.
4. The report is one paired interval on test, and you say in advance what it must show.

<details><summary>A worked answer</summary>

The printed 0.5 belongs to other networks: with ours it costs accuracy. So I measure on one batch the pull of each term at the
last feature map, for an untrained and for a trained student. With exercise 07.3 I set a grid at which the attention has, say,
1, 3, 10 and 30 % of the pull. With $\beta = 0$ and KD that makes six arms. I ask one teacher for each of five seeds: thirty
trainings, half of what I have. I choose by the mean over seeds on validation. The rest pays for five *fresh* seeds of the
chosen $\beta$ and of $\beta = 0$: seeds that chose are not used to report. I keep the term if the paired interval on test
lies above 0; else I take the simpler loss.

</details>

## Summary

- Eq. 18 has three terms and no hard label. The teacher is a constant: eval mode, no gradient.
- Eq. 13 averages over the classes and sets the *levels*. Eq. 14 sums, and does not care for levels. Eq. 17 is a norm,
  not a square: its pull never fades.
- Eq. 13 moves backbone and classifier, Eq. 14 backbone and calibration branch. Eq. 17 moves everything, or, with $w$ held
  constant, the backbone alone, with strength $\beta\|w\|$ whoever the teacher is.
- Weights of 0.5 are no equal shares. Measure the gradient before you call a term small.
- UD as printed loses accuracy because its weights belong beside a *summed* Eq. 13, and the paper averages it. Then both other
  terms weigh $C$ times more: the attention term costs most of the lost accuracy, the distribution the rest.
- With Eq. 13 summed, UD is as accurate as KD on photographs, and two to three points below it on `scenes`; it is better
  calibrated on both. The attention term has a part in that, but it does not make the student's map like the teacher's.
- A gradient that holds part of a term constant need not lead downhill. Take a step and look.
- A term may rise while the total falls. Maps have a scale; compare patterns by correlation, or standardise.
- Accuracy and calibration can move against each other. Report both.
- A method that softens labels has rivals without a teacher. Choose the rival, and every weight, on validation.
- Tables can contradict each other. Check the baseline before the gain.

And what we measured here:
"""

# %%
for step in ("KD − baseline", "+ distribution", "+ attention, β chosen", "+ attention, β = 0.5"):
    found = {metric: ladder[step][metric] for metric in ("mAP", "ECE_pooled", "true_CE_pooled", "NLL")}
    said = "; ".join(f"{METRICS[metric]} {worded(d, metric)}, **{d.verdict}**" for metric, d in found.items())
    say(f"- *{step}* (`small_wide` → `small`): {said}.")
say(f"- β chosen on validation among {len(on_val)}: {beta:g}. The printed β = 0.5 ends at mAP {level(printed, 'mAP')} %.")
say("- Pull of the attention at the last feature map over that of Eq. 13 (seed 0): " + ", ".join(
    f"{times[name]:.3g} ({name})" for name in students) + ".")
change = trend["UD, β = 0.5"]["attention"]
say(f"- With the printed weights, the attention term at the end of training against its start: **{change.verdict}**.")
found = compare(models["UD, β chosen"], rivals[rival], "mAP")
say(f"- UD, β chosen, against the best rival without a teacher (*{rival}*): mAP {worded(found)}, **{found.verdict}**.")

# %% [markdown]
r"""
**Next.** A network can be its own teacher: lesson 08.

## Further reading

- L. Song et al., *Handling Difficult Labels for Multi-label Image Classification via Uncertainty Distillation*, ACM
  MM 2021: Eq. 13 to 18, Tables 2, 3 and 5.
- G. Hinton, O. Vinyals and J. Dean, *Distilling the Knowledge in a Neural Network*, 2015.
- S. Zagoruyko and N. Komodakis, *Paying More Attention to Attention*, ICLR 2017: maps of normalised activations.
- R. R. Selvaraju et al., *Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization*, ICCV
  2017.
- R. Müller, S. Kornblith and G. Hinton, *When Does Label Smoothing Help?*, NeurIPS 2019: soft labels without a
  teacher, and what they cost a teacher.
- J. H. Cho and B. Hariharan, *On the Efficacy of Knowledge Distillation*, ICCV 2019: better teachers do not always
  make better students.
- S. Stanton et al., *Does Knowledge Distillation Really Work?*, NeurIPS 2021: students that improve without
  imitating.
- Z. Chen et al., *GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask Networks*, ICML
  2018: weighing terms by their gradients.
"""
