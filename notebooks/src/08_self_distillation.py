# %% [markdown]
r"""
# 08 · Self-distillation: can a network teach itself?

[← 07 · Uncertainty distillation](07_uncertainty_distillation.ipynb) · [09 · Parallel self-distillation →](09_parallel_self_distillation.ipynb)

**Aim.** In lesson 07, UD as printed lost six points of mAP to KD on photographs, but only one when the student started from a
trained network. In this lesson the student is a trained network from the start: it becomes its own teacher. You will see why its
loss starts at zero, and why the network moves nevertheless. Then you will separate the effect of the teacher from the effect of
longer training.

**Prerequisites.** Lessons 02 to 04: the baseline, the calibration branch at weight λ, calibration. Lessons 05 to 07: the three
terms of the distillation loss; section 4 recalls them.

**Time.** About 90 minutes with the exercises. The cells run in about a minute: the networks are loaded, and only very small
ones are trained.
"""

# %% tags=["setup", "report"]
import copy
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import torch

from udlib.figures import plots
from udlib.course.exercises import assert_measured, check, check_guess
from udlib.course.measurements import metric_values
from udlib.course.store import arrays, labels, load_model, load_or_run, profile
from udlib.figures.plots import show
from udlib.course.recipes import pairs, restart_controls, restarted, two_branch
from udlib.course.sentences import Differences, in_table, in_units, say, spread
from udlib.figures.text import as_markdown

# %% [markdown]
r"""
This lesson's experiment uses `scenes`. As before, code writes the sentences with numbers, and a "point" is one per cent. A
difference between two recipes is [paired by seed](../docs/glossary.md#paired-by-seed) and comes with its 95 % t interval over
five seeds. If the [interval](../docs/glossary.md#interval) contains 0, its verdict is "not detected".
"""

# %% tags=["setup", "report"]
difference = Differences()  # counts the intervals over seeds that this lesson draws

# %% [markdown]
r"""
## 1. First, a picture

[Self-distillation](../docs/glossary.md#self-distillation) takes an earlier state of the student as its teacher. The paper (UD)
trains for 80 epochs in two halves. After epoch 40 the learning rate goes back to its start: a
[restart](../docs/glossary.md#restart). We trained two versions. One uses hard labels in both halves. In the other, from
epoch 41 on, the network learns from *itself*: from its best state in the first half.

![The learning rate restarts after 40 of 80 epochs; the last weights go on as the student, and a copy of the best weights on validation becomes its teacher.](images/restart.svg)
"""

# %% tags=["report"]
once = [load_or_run(each) for each in two_branch(0.1)]  # 40 epochs: the two-branch network of lesson 03
again = {name: [load_or_run(each) for each in recipes] for name, recipes in restarted().items()}
HALF = again["UD"][0].recipe.training.epochs  # epochs of each half


def curve(runs, name, after=0):
    """Epochs that have this number, and its values there: one row for each run."""
    rows = [[row for row in run.history if name in row and row["epoch"] > after] for run in runs]
    return [row["epoch"] for row in rows[0]], np.array([[row[name] for row in of_run] for of_run in rows])


assert list(again) == ["hard labels", "UD"] and all(len(run.history) == 2 * HALF for run in again["UD"])

# %% tags=["report"]
seed0 = {name: runs[:1] for name, runs in again.items()}
pictures = {"learning rate": {"both": curve(seed0["UD"], "lr")},
            "training loss, logarithmic": {"hard labels": curve(seed0["hard labels"], "total"),
                                           "UD": curve(seed0["UD"], "total", after=HALF)},
            "validation mAP, per cent": {name: (curve(runs, "mAP")[0], 100 * curve(runs, "mAP")[1])
                                         for name, runs in seed0.items()}}
show(plots.trajectories(pictures, "epoch", marks=[HALF], logarithmic=["training loss, logarithmic"]),
     "Learning rate, training loss and validation mAP of seed 0 over both halves, on hard labels and by UD")

# %% [markdown]
r"""
The dotted line marks the restart. After it the two losses have different units (Eq. 12 and Eq. 18), so compare their shapes
and not their heights. Look at the validation mAP in the ten epochs after the restart. What does a large learning rate do to
a trained network?

### Predict

Write three guesses, in points on the test images. How much mAP do 40 more epochs after a restart give, on hard labels? How much
mAP does UD give **on top of** that? And how much do the 40 more epochs on hard labels change the pooled ECE? (A negative
number means that it falls.)
"""

# %% tags=["learn"]
guess_restart = ...  # mAP of 40 + 40 epochs on hard labels, minus mAP of 40 epochs; for example 1
guess_distilled = ...  # mAP of self-distillation by UD, minus mAP of 40 + 40 epochs on hard labels
guess_ece = ...  # pooled ECE of 40 + 40 epochs on hard labels, minus that of 40 epochs

# %% [markdown]
r"""
## 2. A network as its own teacher

Distillation needs a teacher. A good teacher is large and needs a training of its own. A cheaper teacher is the student itself:

- *Born-again networks* (Furlanello et al., 2018): train a network, then train a new one of the same shape on its answers. Repeat.
- *Snapshot distillation* (Yang et al., 2019): one long training with restarts. The end of one cycle teaches the next, and the
  weights go on.
- *Be your own teacher* (Zhang et al., 2019): the deep layers teach the shallow ones while both train. We do not study this.

UD uses the second (section 5.3.2 and Table 4): 80 epochs of cosine annealing with one restart. The best network of the first
40 epochs teaches the other 40. Here is Table 4, mAP in per cent on VOC2007. Beside it are the same backbones from Table 2, trained
on hard labels without and with the calibration branch.
"""

# %% tags=["report"]
TABLE_4 = pd.DataFrame({"without UD": [93.78, 89.15, 90.10], "with UD": [94.27, 90.81, 91.34],
                        "Table 2, no branch": [93.75, 88.91, 90.00], "Table 2, branch": [94.11, 89.50, 90.37]},
                       index=["ResNet-101", "ResNet-18", "MobileNet-v2"])
TABLE_4["gain"] = (TABLE_4["with UD"] - TABLE_4["without UD"]).round(2)
assert TABLE_4["gain"].tolist() == [0.49, 1.66, 1.24]
TABLE_4

# %% [markdown]
r"""
Read this table with care, for three reasons.

1. The text says that ResNet-18 and MobileNet-v2 gain 0.6 points. In the table they gain more than twice as much. One of the two
   is a mistake.
2. The text does not say whether the rows *without UD* were trained for 80 epochs with the restart too. If not, the table compares
   a teacher *and* a second training with neither. Their numbers are close to those of Table 2, which has 20 epochs.
3. The table has only mAP. A restart may overfit, and a soft teacher may prevent that. Calibration would show it.

So our experiment has three arms instead of two: 40 epochs; 40 + 40 epochs on hard labels; 40 + 40 epochs with UD in the second
half. Section 6 adds two more controls.

## 3. The protocol, line by line

### The learning rate

Cosine annealing over $T$ steps (Loshchilov and Hutter, 2017) falls from the peak to 0 on half a cosine:
$\eta_t = \tfrac12 \eta_{\max} (1 + \cos(\pi t / T))$. A *warm restart* sets $t$ back to 0 and keeps the weights. Our networks
start from random weights, so each half begins with a warm-up: `training.learning_rate` rises for a quarter of the steps, and then
falls as above. It depends on the step alone, so a restart only means to call it again from step 0.
"""

# %% tags=["learn"]
from udlib.training import learning_rate

config = again["UD"][0].recipe.training
epochs, run_rates = curve(again["UD"], "lr")  # a row keeps the rate of its epoch's last step
steps = len(labels(once[0].recipe, "train").targets) // config.batch_size  # steps of an epoch
ours = [learning_rate((epoch + 1) * steps - 1, HALF * steps, config) for epoch in range(HALF)]
assert np.allclose(run_rates, 2 * ours)  # the same list twice: both halves are alike
first, last = (learning_rate(step, HALF * steps, config) for step in (0, HALF * steps - 1))
print(f"{config.schedule}: first step {first:.1e}, last step {last:.1e}, peak {config.lr:.1e}")

# %% [markdown]
r"""
### Exercise 08.1

Write a schedule with one restart, for `step` = 0, 1, … up to 2·`half` − 1. Each half has `half` steps, of which the first
`warm` warm up. Let `s` be the step within its half. While `s < warm` the rate is `peak * (s + 1) / warm`. After that it is
`peak / 2 * (1 + cos(π u))`, where `u` runs from 0 at `s = warm` towards 1 at `s = half`.
"""

# %% exercise="08.1"
def my_rate(step, half, warm, peak):
    return ...

# %% solution="08.1"
def my_rate(step, half, warm, peak):
    s = step % half
    if s < warm:
        return peak * (s + 1) / warm
    return peak / 2 * (1 + np.cos(np.pi * (s - warm) / (half - warm)))

# %% mistake="08.1" says="no restart"
def my_rate(step, half, warm, peak):
    if step < warm:
        return peak * (step + 1) / warm
    return peak / 2 * (1 + np.cos(np.pi * (step - warm) / (2 * half - warm)))

# %% mistake="08.1" says="second half has no warm-up"
def my_rate(step, half, warm, peak):
    if step < warm:
        return peak * (step + 1) / warm
    s, start = (step, warm) if step < half else (step - half, 0)
    return peak / 2 * (1 + np.cos(np.pi * (s - start) / (half - start)))

# %% mistake="08.1" says="twice the peak"
def my_rate(step, half, warm, peak):
    s = step % half
    if s < warm:
        return peak * (s + 1) / warm
    return peak * (1 + np.cos(np.pi * (s - warm) / (half - warm)))

# %% mistake="08.1" says="a whole cosine"
def my_rate(step, half, warm, peak):
    s = step % half
    if s < warm:
        return peak * (s + 1) / warm
    return peak / 2 * (1 + np.cos(2 * np.pi * (s - warm) / (half - warm)))

# %% mistake="08.1" says="one step late"
def my_rate(step, half, warm, peak):
    s = step if step <= half else step - half - 1
    if s < warm:
        return peak * (s + 1) / warm
    return peak / 2 * (1 + np.cos(np.pi * (s - warm) / (half - warm)))

# %% tags=["learn"]
check("08.1", my_rate)

# %% [markdown]
r"""
### The two halves

The whole method is in `udlib/methods/self_distillation.py`. Here are its lines, one idea to a cell. We run them on 300 images with
the smallest network and two epochs for each half. The result will be poor; only the steps matter.

This is the network and the loss of the first half, Eq. 12 with λ = 0.1:
"""

# %% tags=["report"]
from accelerate.utils import set_seed

from udlib.training.batches import ArrayData, Batch
from udlib.methods.distillation import distillation_loss
from udlib.methods import recipe
from udlib.methods.supervised import make_network, supervised_loss
from udlib.training import Watch, fit, mixed_seed, on_validation, predict
from udlib.workshop import train as train_method

train, val = (arrays(once[0].recipe, split) for split in ("train", "val"))
some, held_out = (ArrayData(data.images[:k], data.targets[:k]) for data, k in ((train, 300), (val, 100)))
tiny = replace(config, epochs=2)
watch = Watch(on_validation(held_out, tiny))

# %% tags=["learn"]
set_seed(tiny.seed)
model = make_network(some.targets.shape[1], 0.1, "small_narrow")
first = fit(model, some, supervised_loss(0.1), tiny, watch=watch)
assert "ova" in first.rows[-1] and first.best_epoch is not None

# %% [markdown]
r"""
Now the restart. The **teacher** is a copy with the weights of the best epoch on *validation*. The **student** is the network
itself with its *last* weights. If the last epoch was the best one, the two are equal.
"""

# %% tags=["learn"]
teacher = copy.deepcopy(model)
teacher.load_state_dict(first.best_weights)
ud_loss = distillation_loss(teacher, alpha=0.5, beta=0.5)  # Eq. 18: no hard label in it
pairs_of_weights = zip(teacher.state_dict().values(), model.state_dict().values())
equal = all(torch.equal(a, b) for a, b in pairs_of_weights)
assert equal or first.best_epoch < tiny.epochs
print(f"best epoch of the first half: {first.best_epoch} of {tiny.epochs}; "
      f"teacher and student are {'equal' if equal else 'different'}")

# %% [markdown]
r"""
The second half calls the same `fit` with another loss. Each call of `fit` starts with a new Adam and at the beginning of the
schedule. That is all that a restart is. The [seed](../docs/glossary.md#seed) changes, so that the images come in a new order.
"""

# %% tags=["learn"]
second_config = replace(tiny, seed=mixed_seed(tiny.seed, 2))
second = fit(model, some, ud_loss, second_config, watch=watch)
by_hand = first.column("total") + second.column("total")

# %% tags=["report"]
whole = recipe("self_distillation", lam=0.1, network="small_narrow", embedding=512, **asdict(tiny))
_, library = train_method(whole, some, watch=watch)
assert np.allclose(by_hand, library.column("total"), rtol=1e-4)  # our lines are the library's method
pd.DataFrame(library.rows)[["epoch", "half", "lr", "total", "ova", "classification", "calibration", "attention"]].round(5)

# %% [markdown]
r"""
With `distil=False` the second `fit` gets `supervised_loss` again. That is our control. The first half of each stored run has the
same seed, the same loss and the same batches as the 40 epochs of lesson 03. So it should repeat them exactly.
"""

# %% tags=["report"]
def first_half(runs, name="mAP"):
    """The validation numbers of the first half, a row for each run."""
    epochs, values = curve(runs, name)
    return values[:, np.array(epochs) <= HALF]


apart = {name: np.abs(first_half(runs) - first_half(once)).max() for name, runs in again.items()}
say("Largest difference in validation mAP between the first half and the 40 epochs of lesson 03, over all seeds: "
    + ", ".join(f"{100 * value:.3f} points ({name})" for name, value in apart.items()) + ".")
assert profile() == "smoke" or max(apart.values()) < 1e-6

# %% tags=["report"]
best_first = [epochs[int(row.argmax())] for epochs, row in zip([curve(once, "mAP")[0]] * len(once), first_half(again["UD"]))]
last_is_best = sum(epoch == HALF for epoch in best_first)
say(f"The best epoch of the first half, by validation mAP every five epochs, is {', '.join(map(str, best_first))} for seeds 0 to "
    f"{len(best_first) - 1}. In {last_is_best} of {len(best_first)} seeds the teacher equals the student at the start of the second "
    "half.")

# %% [markdown]
r"""
So the three arms share their first half exactly, and differ only in what comes after it.

### Exercise 08.2

Choose the teacher. `rows` is a history as above: dicts with "epoch", "half" and "total" (the training loss), and some of them
with "mAP", the validation mAP. It holds both halves. `test_map` maps an epoch to its mAP on the test images. Return the
**epoch** of the teacher: the best of the *first* half on validation. A NaN never wins.
"""

# %% exercise="08.2"
def my_teacher(rows, test_map):
    return ...

# %% solution="08.2"
def my_teacher(rows, test_map):
    judged = [row for row in rows if row["half"] == 1 and "mAP" in row and not np.isnan(row["mAP"])]
    return max(judged, key=lambda row: row["mAP"])["epoch"]

# %% mistake="08.2" says="last epoch of the first half"
def my_teacher(rows, test_map):
    return [row["epoch"] for row in rows if row["half"] == 1][-1]

# %% mistake="08.2" says="test images"
def my_teacher(rows, test_map):
    return max((row["epoch"] for row in rows if row["half"] == 1), key=test_map.get)

# %% mistake="08.2" says="second half"
def my_teacher(rows, test_map):
    judged = [row for row in rows if "mAP" in row and not np.isnan(row["mAP"])]
    return max(judged, key=lambda row: row["mAP"])["epoch"]

# %% mistake="08.2" says="lowest training loss"
def my_teacher(rows, test_map):
    return min((row for row in rows if row["half"] == 1), key=lambda row: row["total"])["epoch"]

# %% mistake="08.2" says="NaN"
def my_teacher(rows, test_map):
    judged = [row for row in rows if row["half"] == 1 and "mAP" in row]
    return judged[int(np.argmax([row["mAP"] for row in judged]))]["epoch"]

# %% tags=["learn"]
check("08.2", my_teacher)

# %% [markdown]
r"""
## 4. Is there anything to learn?

Eq. 18 adds three terms, all between teacher $T$ and student $S$ on the same image:

$$L = \underbrace{\tfrac1C \textstyle\sum_i \mathrm{KL}(T^o_i \,\|\, S^o_i)}_{\text{Eq. 13, the sigmoids}}
+ \alpha \underbrace{\mathrm{KL}(T^a \,\|\, S^a)}_{\text{Eq. 14, the branch's softmax}}
+ \beta \underbrace{\| A_T - A_S \|}_{\text{Eq. 17, the attention}}$$

Each term is at least 0, and each **is** 0 if the student equals the teacher. So self-distillation starts at the minimum of its
loss. We check this with the stored network of 40 epochs at λ = 0.1, as teacher and as student.
"""

# %% tags=["learn"]
from udlib.attention import uncertainty_attention, uncertainty_attention_of
from udlib.datasets.transforms import normalise
from udlib.losses import attention_loss, bernoulli_kl, softmax_kl

teacher = load_model(once[0].recipe)  # seed 0, in eval mode
student, images = copy.deepcopy(teacher), normalise(train.images[:64])


def terms(images):
    t, s = teacher(images), student(images)
    map_t = uncertainty_attention(teacher.head, t.features).detach()
    map_s = uncertainty_attention_of(s)
    return {"Eq. 13": bernoulli_kl(t.logits, s.logits).item(),
            "Eq. 14": softmax_kl(t.calibration_logits, s.calibration_logits).item(),
            "Eq. 17": attention_loss(map_t, map_s).item()}

# %% tags=["learn"]
zero = terms(images)
assert max(zero.values()) < 1e-5  # the same network, the same mode, the same pictures
flipped = terms(images.flip(3))
assert max(flipped.values()) < 1e-5  # both see the mirrored picture
student.train()
noisy = terms(images)  # batch normalisation now uses this batch's own mean and variance
student.eval()
assert noisy["Eq. 13"] > 0 and noisy["Eq. 14"] > 0
cases = {"eval mode": zero, "eval mode, mirrored": flipped, "student in train mode": noisy}
pd.DataFrame(cases).T.round(6)

# %% [markdown]
r"""
Mirroring the picture changes nothing: the teacher sees what the student sees. Train mode does change the loss. There, a batch
normalisation layer scales each channel by the mean and variance of *this batch* instead of the running ones. So the student's
answer to a picture depends on the other pictures of its batch, and the teacher's does not. Smaller batches give more of this
noise.

In eval mode the gradient vanishes too, up to rounding. In train mode it does not:
"""

# %% tags=["learn"]
def gradient_norm(training):
    """Norm of the gradient of Eq. 18 at student = teacher."""
    student.load_state_dict(teacher.state_dict())
    student.train(training).zero_grad()
    batch = Batch(images, None, None, torch.arange(len(images)))
    distillation_loss(teacher)(student, batch)["total"].backward()
    squares = [p.grad.square().sum() for p in student.parameters() if p.grad is not None]
    student.load_state_dict(teacher.state_dict())  # train mode has moved the running statistics
    return torch.stack(squares).sum().sqrt().item()


in_eval, in_train = gradient_norm(False), gradient_norm(True)
assert in_eval < 1e-3 * in_train
print(f"norm of the gradient: {in_eval:.1e} in eval mode, {in_train:.1e} in train mode")

# %% tags=["report"]
SIZES = (8, 16, 32, 64)
pool, noise_of = normalise(train.images[:192]), {"Eq. 13": [], "Eq. 14": []}
student.train()
for size in SIZES:
    rows = [terms(part) for part in pool.split(size) if len(part) == size]
    for name, values in noise_of.items():
        values.append(np.mean([row[name] for row in rows]))
student.eval().load_state_dict(teacher.state_dict())
figure = plots.lines(SIZES, noise_of, "images in a batch", "nats", "the same network in train mode and in eval mode")
figure.axes[0].set(xscale="log", yscale="log")
figure.axes[0].set_xticks(SIZES, SIZES)
figure.axes[0].minorticks_off()
show(figure, "Eq. 13 and Eq. 14 between a network in train mode and itself in eval mode fall with the size of the batch")

# %% tags=["report"]
shrinks = {name: values[0] / values[-1] for name, values in noise_of.items()}
say(f"From batches of {SIZES[0]} to batches of {SIZES[-1]}, the terms shrink by a factor of "
    + " and ".join(f"{factor:.1f} ({name})" for name, factor in shrinks.items())
    + f". The variance of a batch's mean alone would shrink by a factor of {SIZES[-1] / SIZES[0]:.0f}.")
assert_measured(shrinks["Eq. 13"], 11, within=6)

# %% [markdown]
r"""
How steep is each term close to the teacher? We add a little noise to every weight of the student: $\varepsilon$ times the spread
of the weights of its layer. Then we look at the gradient of each term, in eval mode.
"""

# %% tags=["learn"]
def gradients(epsilon, images):
    """Norm of each term's gradient where the student's weights are off by this share."""
    student.load_state_dict(teacher.state_dict())
    torch.manual_seed(0)
    with torch.no_grad():
        for p in student.parameters():
            p.add_(epsilon * p.std(correction=0) * torch.randn_like(p))
    batch, norms = Batch(images, None, None, torch.arange(len(images))), {}
    loss_terms = distillation_loss(teacher)(student.eval(), batch)
    for term in ("classification", "calibration", "attention"):
        weights, options = list(student.parameters()), {"retain_graph": True, "allow_unused": True}
        parts = torch.autograd.grad(loss_terms[term], weights, **options)
        squares = [g.square().sum() for g in parts if g is not None]
        norms[term] = torch.stack(squares).sum().sqrt().item()
    return norms

# %% tags=["report"]
NEAR = (0.0003, 0.001, 0.003, 0.01)
slopes = pd.DataFrame([gradients(epsilon, images[:32]) for epsilon in NEAR], index=NEAR)
term_of = {"Eq. 13": "classification", "Eq. 14": "calibration", "Eq. 17": "attention"}
figure = plots.lines(NEAR, {name: slopes[term] for name, term in term_of.items()},
                     "distance of the weights, share of their spread", "norm of the gradient", "close to the teacher")
figure.axes[0].set(xscale="log", yscale="log")
show(figure, "Norms of the gradients of Eq. 13, 14 and 17 over the distance of the student's weights from its teacher's")
fades = slopes.iloc[-1] / slopes.iloc[0]
assert fades["attention"] < 0.5 * fades["classification"]  # a norm's slope does not fade, a divergence's does
ratio = (0.5 * slopes["attention"] / slopes["classification"]).round(1).tolist()
say(f"With β = 0.5, the attention's gradient is {ratio[-1]:,.0f} times that of the sigmoids at a distance of {NEAR[-1]:g}, and "
    f"{ratio[0]:,.0f} times at {NEAR[0]:g}.")

# %% [markdown]
r"""
The divergences of Eq. 13 and 14 are smooth: their gradients fade as the student comes near its teacher, as at the bottom of a bowl.
Eq. 17 as printed is a norm, not a squared norm. Its gradient does not fade, as on a cone. So close to the teacher it dominates, and
steps of a fixed size cannot settle at its minimum. (At the minimum itself `attention_loss` takes a slope of 0.) Lesson 06 looks at
this term more closely.

So in train mode there is always some gradient. Even a small gradient gives a large step: Adam divides each gradient by its own
running size, so the first step of a new Adam moves *every* weight by about the learning rate, however small the loss. Plain
gradient descent would hardly move.
"""

# %% tags=["learn"]
def one_step(make, rate):
    """How far one step moves the median weight, in units of the learning rate."""
    student.load_state_dict(teacher.state_dict())
    optimizer = make(student.train().parameters(), lr=rate)
    batch = Batch(images, None, None, torch.arange(len(images)))
    distillation_loss(teacher)(student, batch)["total"].backward()
    optimizer.step()
    student.zero_grad()
    pairs_of_weights = zip(student.parameters(), teacher.parameters())
    moves = [(a - b).detach().abs().flatten() for a, b in pairs_of_weights]
    return torch.cat(moves).median().item() / rate

# %% tags=["report"]
moves = {make.__name__: one_step(make, 1e-4) for make in (torch.optim.SGD, torch.optim.Adam)}
assert 0.9 < moves["Adam"] < 1.1 and moves["SGD"] < 0.1
print(" ".join(f"{name}: the median weight moves by {value:.2g} × the learning rate." for name, value in moves.items()))

# %% [markdown]
r"""
Now we take eight Adam steps on batches of 32, once at the restart's first rate, and once at the peak rate that it warms up to. The
figure shows how far the student's answers are then from the teacher's (in eval mode, on validation images).
"""

# %% tags=["learn"]
unseen = normalise(val.images[:64])
with torch.no_grad():
    teacher_logits = teacher(unseen).logits


def away():
    """Eq. 13 between the teacher and the student in eval mode, on validation images."""
    with torch.no_grad():
        return bernoulli_kl(teacher_logits, student.eval()(unseen).logits).item()


def batch(step, size=32):
    """The training images of one step."""
    rows = torch.arange(step * size, (step + 1) * size) % len(train.targets)
    return Batch(normalise(train.images[rows]), None, None, rows)

# %% tags=["learn"]
def walk(rate, steps=8):
    """Distance of the student from the teacher before and after each Adam step on Eq. 18."""
    student.load_state_dict(teacher.state_dict())
    optimizer = torch.optim.Adam(student.parameters(), lr=rate)
    loss_fn, path = distillation_loss(teacher), [away()]
    for step in range(steps):
        optimizer.zero_grad()
        loss_fn(student.train(), batch(step))["total"].backward()
        optimizer.step()
        path.append(away())
    return path

# %% tags=["report"]
rates = {"the first rate": learning_rate(0, HALF * steps, config), "the peak rate": config.lr}
walks = {f"{name}, {rate:.1e}": walk(rate) for name, rate in rates.items()}
assert all(values[0] < 1e-6 < values[-1] for values in walks.values())  # it starts at the minimum and leaves it
show(plots.lines(range(9), walks, "step", "Eq. 13 on validation images, nats", "the student leaves the minimum of its loss"),
     "Distance of the student from its teacher over eight Adam steps, at the restart's first and at its peak rate")

# %% [markdown]
r"""
This explains the bump of the loss in the first picture. **The large learning rate moves the student away from its teacher.**
Then the rate falls, and the loss brings the student back towards its teacher. A student at loss 0 would answer every training image
as its teacher does. So whatever the student gains, it gains because it does *not* arrive there.

**Think.** Would a student of itself move at all with plain gradient descent, no batch normalisation and no dropout? And if it
started from random weights?

<details><summary>Answer</summary>

No. Its loss starts at its minimum, where the gradient is exactly 0, and plain gradient descent multiplies the learning rate by
that. From random weights it moves, since it disagrees with its teacher, and it moves *towards* the teacher: a born-again network
(section 8).

</details>

## 5. What could there be to gain?

### A known result: shrinkage

Now let the student start from new weights, and take a very simple learner. Ridge regression with kernel matrix
$K = U \operatorname{diag}(d) U^\top$ and penalty $\lambda$ (here the penalty, not the branch's weight) answers, on its $n$ training points,

$$\hat y = K (K + \lambda I)^{-1} y = U \operatorname{diag}\!\Big(\frac{d_j}{d_j + \lambda}\Big) U^\top y .$$

It shrinks direction $j$ of the labels by $s_j = d_j / (d_j + \lambda)$. Now let $\hat y$ be the labels of the next fit, and so on. After
$t$ fits the factor is $s_j^{\,t}$. So **self-distillation is a stronger regulariser** (Mobahi et al., 2020). It removes directions
with small $d_j$ first, and only a few with large $d_j$ remain.
"""

# %% tags=["learn"]
generator = np.random.default_rng(0)
x = np.sort(generator.uniform(0, 1, 60))
truth = np.sin(2 * np.pi * x) + 0.5 * np.sin(6 * np.pi * x)
noise = 0.5
K = np.exp(-((x[:, None] - x) ** 2) / (2 * 0.05**2))
d, U = np.linalg.eigh(K)
d = np.clip(d, 0, None)  # rounding makes some of them negative


def refit(y, penalty, rounds):
    """Fits to fits: round 1 is the teacher, round 2 its student, and so on."""
    for _ in range(rounds):
        y = K @ np.linalg.solve(K + penalty * np.eye(len(K)), y)
    return y

# %% tags=["learn"]
y = truth + noise * generator.normal(size=len(x))
for rounds in (1, 2, 7):
    factors = (d / (d + 0.1)) ** rounds
    formula = U @ (factors * (U.T @ y))
    assert np.allclose(refit(y, 0.1, rounds), formula, atol=1e-6)
assert np.allclose((d / (d + 1e-9))[d > 1e-3] ** 5, 1, atol=1e-4)  # hardly a penalty

# %% tags=["report"]
size = np.logspace(-2, 2, 60)
factors_left = {f"{rounds} fit{'s' * (rounds > 1)}": (size / (size + 1)) ** rounds for rounds in (1, 2, 5, 20)}
figure = plots.lines(size, factors_left, "size of the direction, d / penalty", "what is left of it", markers=False)
figure.axes[0].set_xscale("log")
show(figure, "The factor that is left of a direction over its size, after one, two, five and twenty fits")

# %% [markdown]
r"""
With more rounds the curve is steeper and lies further to the right. Without a penalty nothing changes: a teacher that repeats its
labels exactly passes on the same labels.

Is a stronger regulariser better? That depends on how strong it was. For fixed $x$, the expected error against the truth has a
bias and a variance. Both are exact: $\frac1n \sum_j (1 - s_j^t)^2 c_j^2 + \frac{\sigma^2}{n} \sum_j s_j^{2t}$ with
$c = U^\top \text{truth}$ and noise $\sigma$.
"""

# %% tags=["learn"]
def expected_error(penalty, rounds):
    """Mean squared distance from the truth at the training points, over the labels' noise."""
    s = (d / (d + penalty)) ** rounds
    return (((1 - s) * (U.T @ truth)) ** 2).mean() + noise**2 * (s**2).mean()


def one_error():
    """The same from one draw of the labels, for penalty 0.1 and three rounds."""
    return ((refit(truth + noise * generator.normal(size=len(x)), 0.1, 3) - truth) ** 2).mean()


assert np.isclose(np.mean([one_error() for _ in range(400)]), expected_error(0.1, 3), rtol=0.1)

# %% tags=["report"]
ROUNDS = np.arange(1, 16)
by_penalty = {f"penalty {p:g}": [expected_error(p, t) for t in ROUNDS] for p in (0.1, 0.3, 1.0, 3.0)}
figure = plots.lines(ROUNDS, by_penalty, "number of fits (1 is the teacher)", "expected squared error", "error of repeated fits")
figure.axes[0].set_yscale("log")
figure.axes[0].legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
show(figure,
     "Expected squared error over the number of fits for four penalties: it falls first where the penalty is weak")

# %% tags=["report"]
PENALTIES = np.logspace(-2, 1, 61)
one_fit = min(expected_error(p, 1) for p in PENALTIES)
many_fits = min((expected_error(p, t), t) for p in PENALTIES for t in ROUNDS)
weak, strong = by_penalty["penalty 0.1"], by_penalty["penalty 3"]
assert np.argmin(weak) > 0 and np.argmin(strong) == 0  # helps where the teacher overfits, hurts where it does not
assert many_fits[0] <= one_fit < 1.2 * many_fits[0]
say(f"With the weakest penalty the student of round {ROUNDS[np.argmin(weak)]} is best: its error is {min(weak):.4f}, and the "
    f"teacher's is {weak[0]:.4f}. With the strongest penalty, each round makes the error larger. If we also tune the penalty, one fit "
    f"reaches {one_fit:.4f}, and many fits reach {many_fits[0]:.4f} (in round {many_fits[1]}).")

# %% [markdown]
r"""
So in this model self-distillation helps a teacher that **overfits**, and a better penalty would achieve most of this in one fit.
Our experiment differs in two ways: its student starts at the teacher's weights, and its training has no weight decay.

### Exercise 08.3

Write the factor that is left of a direction with eigenvalue `d` of the kernel matrix after `rounds` fits with this `penalty`.
One round is the teacher alone.
"""

# %% exercise="08.3"
def my_shrinkage(d, penalty, rounds):
    return ...

# %% solution="08.3"
def my_shrinkage(d, penalty, rounds):
    return (d / (d + penalty)) ** rounds

# %% mistake="08.3" says="one fit with a larger penalty"
def my_shrinkage(d, penalty, rounds):
    return d / (d + rounds * penalty)

# %% mistake="08.3" says="one round too many"
def my_shrinkage(d, penalty, rounds):
    return (d / (d + penalty)) ** (rounds + 1)

# %% mistake="08.3" says="what is lost"
def my_shrinkage(d, penalty, rounds):
    return 1 - (d / (d + penalty)) ** rounds

# %% mistake="08.3" says="singular value"
def my_shrinkage(d, penalty, rounds):
    return (d**2 / (d**2 + penalty)) ** rounds

# %% tags=["learn"]
check("08.3", my_shrinkage)

# %% [markdown]
r"""
### A known hope: soft labels are closer to the truth

A hard label is one throw of the annotator's coin: $y = 1$ with probability $\pi$, the posterior. A network trained on many such
throws may know $\pi$ better than one throw does. Then its answers on the *training* images are better labels (Menon et al., 2021). On
`scenes` we know $\pi$ and can check. We ask the stored teacher (seed 0) about its own training images, and about validation images
as a control.
"""

# %% tags=["report"]
splits = {split: labels(once[0].recipe, split) for split in ("train", "val")}
soft = {split: predict(teacher, data).logits.double().sigmoid() for split, data in (("train", train), ("val", val))}
hard = {split: part.targets.double() for split, part in splits.items()}
posterior = {split: part.posterior.double() for split, part in splits.items()}
coin = (posterior["train"] * (1 - posterior["train"])).mean()
coin_errors = (hard["train"] - posterior["train"]).square()
assert abs(coin_errors.mean() - coin) < 5 * coin_errors.std() / len(coin_errors) ** 0.5  # the labels are throws of this coin

# %% tags=["report"]
pi = posterior["train"]
doubtful = (pi > 0.02) & (pi < 0.98)
GROUPS = {"all labels": torch.ones_like(doubtful), "doubtful, 0.02 < π < 0.98": doubtful, "the others": ~doubtful,
          "marked difficult": splits["train"].difficult}
rows = {}
for name, of in GROUPS.items():
    far_off = {who: (q - pi)[of].square().mean().item() if of.any() else np.nan
               for who, q in (("hard labels", hard["train"]), ("soft labels", soft["train"]))}
    rows[name] = {"share, %": 100 * of.double().mean().item()} | {f"{who}: distance": value for who, value in far_off.items()}
rows = pd.DataFrame(rows).T
nearer = rows["soft labels: distance"] / rows["hard labels: distance"].clip(lower=1e-9)
assert_measured(nearer["doubtful, 0.02 < π < 0.98"], 0.83, within=0.16)  # soft labels are closer where there was doubt
assert_measured(min(nearer["the others"], 99), 36, within=34)  # and not where there was none
rows.round(4)

# %% [markdown]
r"""
"Distance" is the mean of $(q - \pi)^2$ over the labels of the training images. Where the posterior leaves doubt, the soft labels are
closer to it than the hard ones (0.078 against 0.093). Where there is no doubt, a hard label is right and the soft one is further
away. Most labels are of this second kind. To see which effect wins in total, we resample the images.
"""

# %% tags=["report"]
from udlib.statistics import bootstrap_interval

nearer = ((hard["train"] - pi).square() - (soft["train"] - pi).square()).mean(1)  # per image; above 0: soft is closer
gain = bootstrap_interval(lambda rows: nearer[rows].mean(), len(nearer), samples=500)
word = "closer" if gain.low > 0 else "further away" if gain.high < 0 else "not detected"
say(f"Over all labels, soft minus hard labels, mean squared distance to the posterior: {-gain.estimate:+.4f} "
    f"[{-gain.high:+.4f}, {-gain.low:+.4f}], **{word}** (bootstrap over images; one network). The annotator's coin alone gives "
    f"{coin:.4f}.")
assert profile() == "smoke" or word == "not detected"

# %% [markdown]
r"""
So in total, the soft labels are not detectably closer to the posterior.

A large enough network can memorise the annotator's throws. How many of them has this one memorised? We can measure that. If it knew
only the picture, its error $p - \pi$ would have nothing to do with the coin's error $y - \pi$. If it repeated its labels, both errors
would be equal. So the slope of one on the other,

$$m = \frac{\sum (p - \pi)(y - \pi)}{\sum (y - \pi)^2},$$

says **which share of the coin's error the network has memorised**: 0 is nothing, 1 is everything. On validation images, whose
labels it has never seen, $m$ must be about 0.
"""

# %% tags=["learn"]
def memory_of(p, y, pi):
    """The slope m as a function of the images that are used."""
    above, below = ((p - pi) * (y - pi)).sum(1), (y - pi).square().sum(1)
    return lambda rows: (above[rows].sum() / below[rows].sum()).item()


repeats = memory_of(hard["train"], hard["train"], pi)  # a network that repeats its labels
knows = memory_of(pi, hard["train"], pi)  # a network that knows the posterior
assert np.isclose(repeats(slice(None)), 1) and np.isclose(knows(slice(None)), 0)

# %% tags=["report"]
memory = {split: bootstrap_interval(memory_of(soft[split], hard[split], posterior[split]), len(hard[split]), samples=500)
          for split in soft}
for split, m in memory.items():
    say(f"- {split}: m = {m.estimate:.2f} [{m.low:.2f}, {m.high:.2f}]")
assert_measured(memory["train"].estimate, 0.58, within=0.2)
assert_measured(memory["val"].estimate, 0.0, within=0.1)

# %% [markdown]
r"""
The network has memorised 58 % of the coin's error. This is the overfitting of lesson 04, seen from inside. It limits a teacher that
was trained on the very labels that it should improve: to that share, its soft labels are the hard labels again. What if we mix hard
and soft labels, as many recipes do?
"""

# %% tags=["report"]
WEIGHTS = np.linspace(0, 1, 11)
mixed = [(w * soft["train"] + (1 - w) * hard["train"] - pi).square().mean().item() for w in WEIGHTS]
best_weight = WEIGHTS[int(np.argmin(mixed))]
show(plots.lines(WEIGHTS, {"mean squared distance": mixed}, "weight of the soft label", "distance from the posterior",
                 "mixtures of hard and soft labels"),
     "Mean squared distance of mixed labels from the posterior, over the weight of the soft label")
say(f"The mixture closest to the posterior gives the soft label a weight of {best_weight:.1f}. Its distance is {min(mixed):.4f}; that "
    f"of the hard labels is {mixed[0]:.4f} and that of the soft labels {mixed[-1]:.4f}. Eq. 18 uses soft labels only.")

# %% [markdown]
r"""
**Think.** We picked this weight with the posterior, which nobody knows outside of a simulation. How would you choose it on real
data?

<details><summary>Answer</summary>

Train a student for each of a few weights and choose on validation, whose labels the teacher has not seen, by the score
that you need. A proper score such as the NLL fits best: in expectation, over new labels, it is lowest at the posterior.

</details>

### Exercise 08.4

Write $m$ for tensors `p`, `y` and `pi` of shape (N, C): which share of the coin's error a network has memorised.
"""

# %% exercise="08.4"
def my_memory(p, y, pi):
    return ...

# %% solution="08.4"
def my_memory(p, y, pi):
    return ((p - pi) * (y - pi)).sum() / (y - pi).square().sum()

# %% mistake="08.4" says="the wrong way round"
def my_memory(p, y, pi):
    return ((p - pi) * (y - pi)).sum() / (p - pi).square().sum()

# %% mistake="08.4" says="knows the picture"
def my_memory(p, y, pi):
    p, y = p - p.mean(), y - y.mean()
    return (p * y).sum() / y.square().sum()

# %% mistake="08.4" says="correlation"
def my_memory(p, y, pi):
    return ((p - pi) * (y - pi)).sum() / ((p - pi).square().sum() * (y - pi).square().sum()).sqrt()

# %% mistake="08.4" says="subtract the posterior from p"
def my_memory(p, y, pi):
    return (p * (y - pi)).sum() / (y - pi).square().sum()

# %% tags=["learn"]
check("08.4", my_memory)

# %% [markdown]
r"""
## 6. The experiment

Three arms and five seeds, with the same first half for all. So there are three differences, and each answers another question:

| difference | what it contains |
|---|---|
| restart on hard labels − 40 epochs | 40 more epochs after a restart, without a teacher |
| restart with UD − restart on hard labels | **the teacher**, everything else is the same |
| restart with UD − 40 epochs | both together |

### Exercise 08.5

Before you look: write the analysis. `arms` maps "40 epochs", "restart, hard labels" and "restart, UD" to a list of scores, entry $k$
of each from seed $k$. The whole method gains something over 40 epochs. Return the share of this mean gain that is due to
**distillation alone**, as a fraction.
"""

# %% exercise="08.5"
def my_share(arms):
    return ...

# %% solution="08.5"
def my_share(arms):
    names = ("40 epochs", "restart, hard labels", "restart, UD")
    forty, hard, soft = (np.mean(arms[name]) for name in names)
    return (soft - hard) / (soft - forty)

# %% mistake="08.5" says="the restart's share"
def my_share(arms):
    names = ("40 epochs", "restart, hard labels", "restart, UD")
    forty, hard, soft = (np.mean(arms[name]) for name in names)
    return (hard - forty) / (soft - forty)

# %% mistake="08.5" says="has the restart in it"
def my_share(arms):
    gain = np.subtract(arms["restart, UD"], arms["40 epochs"])
    return gain.mean() / gain.mean()

# %% mistake="08.5" says="the teacher's gain beside the restart's"
def my_share(arms):
    names = ("40 epochs", "restart, hard labels", "restart, UD")
    forty, hard, soft = (np.mean(arms[name]) for name in names)
    return (soft - hard) / (hard - forty)

# %% mistake="08.5" says="the teacher's gain in mAP"
def my_share(arms):
    names = ("40 epochs", "restart, hard labels", "restart, UD")
    forty, hard, soft = (np.mean(arms[name]) for name in names)
    return soft - hard

# %% mistake="08.5" says="a mean of shares"
def my_share(arms):
    forty, hard, soft = (np.array(arms[name]) for name in ("40 epochs", "restart, hard labels", "restart, UD"))
    return ((soft - hard) / (soft - forty)).mean()

# %% mistake="08.5" says="upside down"
def my_share(arms):
    names = ("40 epochs", "restart, hard labels", "restart, UD")
    forty, hard, soft = (np.mean(arms[name]) for name in names)
    return (soft - forty) / (soft - hard)

# %% tags=["learn"]
check("08.5", my_share)

# %% [markdown]
r"""
Now the scores. The paper prints mAP only; we add calibration, [F1](../docs/glossary.md#cp-cr-cf1-and-op-or-of1) and NLL. mAP and F1
leave out [difficult](../docs/glossary.md#difficult) labels. mAP *Difficult* is the mAP on images with at least one. Calibration counts
every label as marked. Nothing was chosen on the test images: each run ends with its last epoch.
"""

# %% tags=["report"]
arms = {"40 epochs": once, "restart, hard labels": again["hard labels"], "restart, UD": again["UD"]}
METRICS = {"mAP": ("mAP, %", 100, 2), "mAP_difficult": ("mAP, Difficult, %", 100, 2), "CF1": ("CF1, %", 100, 2),
           "OF1": ("OF1, %", 100, 2), "ECE": ("ECE class-wise, %", 100, 2), "ECE_pooled": ("ECE pooled, %", 100, 2),
           "true_CE": ("true error class-wise, %", 100, 2), "true_CE_pooled": ("true error pooled, %", 100, 2),
           "overconfidence": ("overconfidence, points", 100, 2), "NLL": ("NLL, nats", 1, 4)}


def score(runs, metric):
    """One metric on the test images, a value for each seed; NaN where it does not exist."""
    return np.array([run.metrics["test"].get(metric, np.nan) for run in runs])


pd.DataFrame({title: {name: spread(score(runs, key), scale, digits) for name, runs in arms.items()}
              for key, (title, scale, digits) in METRICS.items()}).T

# %% tags=["report"]
CONTRASTS = {"restart − 40 epochs": ("restart, hard labels", "40 epochs"),
             "UD − restart": ("restart, UD", "restart, hard labels"), "UD − 40 epochs": ("restart, UD", "40 epochs")}
effects = {name: {key: difference(score(arms[a], key), score(arms[b], key)) for key in METRICS}
           for name, (a, b) in CONTRASTS.items()}


def rows_of(effects_of, keys):
    """Rows of differences, one for each metric, with a column for each name."""
    rows = [["difference [95 % interval], **bold** where it is detected", *effects_of]]
    return rows + [[METRICS[key][0], *(in_table(effect[key], *METRICS[key][1:]) for effect in effects_of.values())] for key in keys]

# %% tags=["report"]
for key in ("mAP", "NLL"):  # the first two add up to the third
    assert np.isclose(sum(effects[name][key].mean for name in list(CONTRASTS)[:2]), effects["UD − 40 epochs"][key].mean,
                      equal_nan=True)
say(as_markdown(rows_of(effects, METRICS)))

# %% tags=["report"]
def gaps(key, scale=100):
    """The seeds' differences of each contrast, for a figure; contrasts that could not be measured are left out."""
    by_contrast = {name: scale * (score(arms[a], key) - score(arms[b], key)) for name, (a, b) in CONTRASTS.items()}
    return {name: values for name, values in by_contrast.items() if np.isfinite(values).all()}


for key, words in (("mAP", "mAP"), ("ECE_pooled", "pooled ECE"), ("true_CE_pooled", "pooled true error")):
    if by_contrast := gaps(key):
        show(plots.seed_intervals(by_contrast, f"difference in {words}, points", zero=True),
             f"Paired differences in {words} between the three arms, five seeds and 95 per cent intervals")

# %% tags=["report"]
alone, on_top, both = (effects[name] for name in CONTRASTS)
say(f"(For comparison, Table 4 prints mAP gains of {', '.join(f'{gain:+.2f}' for gain in TABLE_4['gain'])} points for its networks.)")
check_guess("mAP, 40 more epochs on hard labels", guess_restart, 100 * alone["mAP"].mean, " points")
check_guess("mAP, UD on top", guess_distilled, 100 * on_top["mAP"].mean, " points")
check_guess("pooled ECE, 40 more epochs on hard labels", guess_ece, 100 * alone["ECE_pooled"].mean, " points")
verdicts = {key: [effect[key].verdict for effect in (alone, on_top, both)] for key in METRICS}
assert profile() == "smoke" or verdicts["mAP"] == ["higher", "higher", "higher"]
for key in ("ECE_pooled", "true_CE_pooled", "overconfidence", "NLL"):
    assert profile() == "smoke" or verdicts[key] == ["higher", "lower", "lower"]

# %% [markdown]
r"""
On hard labels, the second half raises the mAP by 0.65 points. It also doubles the pooled ECE, from 2.1 to 4.3 %, and makes the
network much more [overconfident](../docs/glossary.md#overconfidence). With UD in the second half the mAP is another 0.57 points higher,
and the pooled ECE is only 0.4 %. A table with mAP alone, such as Table 4, shows neither of these changes of the calibration.

### Would temperature scaling do the same?

Lesson 04 asked this about the branch, and we ask it here too: [temperature scaling](../docs/glossary.md#temperature) fits one number on
validation and costs nothing. If two arms still differ after each has its own temperature, they differ in more than scale.
"""

# %% tags=["report"]
from udlib.calibration import expected_calibration_error, negative_log_likelihood

rescaled = {"ECE pooled, %": {}, "NLL, nats": {}}
for name, runs in arms.items():
    for run in runs:
        q, marked = run.recalibrated("temperature"), run.labels().targets
        rescaled["ECE pooled, %"].setdefault(name, []).append(100 * expected_calibration_error(q, marked, average="pooled"))
        rescaled["NLL, nats"].setdefault(name, []).append(negative_log_likelihood(q, marked))

# %% tags=["report"]
for title, values in rescaled.items():
    digits = 4 if "NLL" in title else 2
    changes = {name: difference(values[a], values[b]) for name, (a, b) in CONTRASTS.items()}
    say(f"- {title}, each with its own temperature: " + ", ".join(f"{name} {spread(seeds, 1, digits)}" for name, seeds in
        values.items()) + ". " + "; ".join(f"{name}: {in_units(d, 1, digits, '')}, **{d.verdict}**" for name, d in changes.items()) + ".")
    assert profile() == "smoke" or [d.verdict for d in changes.values()] == ["higher", "lower", "lower"]

# %% [markdown]
r"""
No. A temperature repairs most of the harm that the second half on hard labels does, but UD still has the lowest pooled ECE and NLL.

### How far did the student move?

Section 4 says that the learning rate moves the student away and the loss brings it back. How far from its start does it end? We
measure the mean absolute change of a probability on the test images. For comparison we take two networks of different seeds.
"""

# %% tags=["report"]
start = [run.probabilities() for run in once]
distances = {name: [100 * (run.probabilities() - p).abs().mean().item() for run, p in zip(runs, start)]
             for name, runs in arms.items() if runs is not once}
distances["another seed"] = [100 * (start[k] - start[k - 1]).abs().mean().item() for k in range(len(start))]
show(plots.seed_intervals(distances, "mean change of a probability, points", "distance from the network of epoch 40"),
     "Mean absolute change of test probabilities from epoch 40 to the end of each arm, and between two seeds")
apart = difference(np.array(distances["restart, UD"]) / 100, np.array(distances["restart, hard labels"]) / 100)
say(f"The student by UD ends {np.mean(distances['restart, UD']):.2f} points from its start. Two seeds are "
    f"{np.mean(distances['another seed']):.2f} points apart. The distance by UD minus that on hard labels: {in_units(apart)}, "
    f"**{apart.verdict}**.")

# %% [markdown]
r"""
### What it costs

Two halves take twice the steps. UD also needs the teacher's answers. With mirroring alone each image has just two views, so we
compute these answers once and look them up. The seconds were measured on a busy machine, so take them as rough.
"""

# %% tags=["report"]
def cost(*groups):
    """Seconds of training, summed over what is needed, relative to 40 epochs; a value for each seed."""
    return np.sum([[run.provenance["seconds"] for run in runs] for runs in groups], 0) / [
        run.provenance["seconds"] for run in once]


price = {name: np.median(cost(runs)) for name, runs in arms.items()}
say("Training time relative to 40 epochs (median over seeds): " + ", ".join(f"{name} × {value:.1f}" for name, value in
    price.items()) + ". By count of steps it is × 1, × 2 and × 2.")

# %% [markdown]
r"""
### Separating the parts

Each of the two effects still has two parts. The second half on hard labels is more training *and* a restart. UD is the teacher's
sigmoids *and* the two terms of the calibration branch. Two more controls separate them: 80 epochs in a single schedule, and a
second half by KD alone (Eq. 13, so α = β = 0). Table 4 has neither. The last row compares the whole method with the 80 epochs.
"""

# %% tags=["report"]
controls = {f"restart, {name}" if name == "KD" else name: [load_or_run(each) for each in recipes]
            for name, recipes in restart_controls().items()}

# %% tags=["report"]
PARTS = {"more steps, one schedule": ("80 epochs", "40 epochs"), "the restart itself": ("restart, hard labels", "80 epochs"),
         "the teacher's sigmoids": ("restart, KD", "restart, hard labels"),
         "the calibration branch's terms": ("restart, UD", "restart, KD"), "the whole method": ("restart, UD", "80 epochs")}
all_arms = arms | controls
parts = {name: {key: difference(score(all_arms[a], key), score(all_arms[b], key)) for key in METRICS}
         for name, (a, b) in PARTS.items()}
say(as_markdown(rows_of({f"{name} ({' − '.join(PARTS[name])})": effect for name, effect in parts.items()}, METRICS)))

# %% tags=["report"]
gaps_of_parts = {name: 100 * (score(all_arms[a], "ECE_pooled") - score(all_arms[b], "ECE_pooled")) for name, (a, b) in PARTS.items()}
if np.isfinite(list(gaps_of_parts.values())).all():
    show(plots.seed_intervals(gaps_of_parts, "difference in pooled ECE, points", zero=True),
         "Paired differences in pooled ECE of the parts of self-distillation, five seeds and 95 per cent intervals")
expected = {"mAP": ["higher", "lower", "higher", "lower", "lower"], "ECE_pooled": ["higher", "higher", "lower", "lower", "lower"],
            "NLL": ["higher", "higher", "lower", "lower", "lower"]}
for key, words in expected.items():
    assert profile() == "smoke" or [effect[key].verdict for effect in parts.values()] == words, key

# %% [markdown]
r"""
More training raises the mAP most: 80 epochs in one schedule gain 2.4 points over 40 epochs, and double the pooled ECE. The restart
itself costs 1.8 points of mAP. The teacher's sigmoids raise the mAP by 1.4 points and lower the pooled ECE by 2.8 points. The
branch's terms lower the pooled ECE by another 1.1 points and cost 0.9 points of mAP.

So self-distillation by UD calibrates the network, but it is not the best way to spend 80 epochs if only mAP counts: its mAP is
1.2 points below that of 80 epochs on hard labels in one schedule.

## 7. Through the epochs

The next figure shows all five seeds, on validation images every five epochs. The band covers the range of the seeds.
"""

# %% tags=["report"]
panels = {title: {name: (curve(runs, key)[0], scale * curve(runs, key)[1]) for name, runs in again.items()}
          for title, key, scale in (("validation mAP, per cent", "mAP", 100), ("validation NLL, nats", "NLL", 1))}
epochs, train_bce = curve(again["hard labels"], "ova")
panels["BCE on the training images (hard labels)"] = {"hard labels": (epochs, train_bce)}
show(plots.trajectories(panels, "epoch", marks=[HALF], logarithmic=["BCE on the training images (hard labels)"]),
     "Validation mAP and NLL of both arms and training BCE of the hard-label arm over two halves, five seeds")

# %% tags=["report"]
def at(runs, name, epoch):
    """A validation number at an epoch, a value for each run."""
    where, values = curve(runs, name)
    return values[:, where.index(epoch)]


for name, runs in again.items():
    change = {key: difference(at(runs, key, 2 * HALF), at(runs, key, HALF)) for key in ("mAP", "NLL")}
    say(f"- *{name}*, epoch {2 * HALF} minus epoch {HALF} on validation: mAP {in_units(change['mAP'])}, "
        f"**{change['mAP'].verdict}**; NLL {in_units(change['NLL'], 1, 4, ' nats')}, **{change['NLL'].verdict}**.")
    assert profile() == "smoke" or change["NLL"].verdict == {"hard labels": "higher", "UD": "lower"}[name]
last, middle = train_bce[:, -1].mean(), train_bce[:, HALF - 1].mean()
say(f"- The training BCE on hard labels is {middle:.3f} at the end of the first half and {last:.3f} at the end of the second.")
assert profile() == "smoke" or last < middle

# %% [markdown]
r"""
On hard labels the validation NLL rises, and no change of mAP is detected. So this second half overfits as in lessons 02 and 04: the
order of the images stays, and the probabilities become overconfident. With UD the NLL falls. The teacher's answers are softer than
the labels, and keep the student from becoming more confident than its teacher was. Is the student exactly as confident as its
teacher?
"""

# %% tags=["report"]
say(f"Overconfidence on the test images, restart with UD minus epoch {HALF}: {in_units(both['overconfidence'])}, "
    f"**{both['overconfidence'].verdict}**.")
for name in ("the teacher's sigmoids", "the calibration branch's terms"):
    effect = parts[name]["overconfidence"]
    say(f"- The effect of *{name}* on the overconfidence: {in_units(effect)}, **{effect.verdict}**.")
    assert profile() == "smoke" or effect.verdict == "lower"

# %% [markdown]
r"""
The student is *less* overconfident than the network of epoch 40, by 7 points. A copy of its teacher would not be. This fits section 5, where
refitting shrinks the answers, but we have not tested that this is the cause.

Which epoch would a careful user keep?
"""

# %% tags=["report"]
best_epochs = {}
for name, runs in again.items():
    where = np.array(curve(runs, "mAP")[0])
    best_epochs[name] = {"best by mAP": where[curve(runs, "mAP")[1].argmax(1)],
                         "best by NLL": where[curve(runs, "NLL")[1].argmin(1)]}
table = pd.DataFrame({(name, by): [int(epoch) for epoch in values] for name, choices in best_epochs.items()
                      for by, values in choices.items()}).T
table.columns = [f"seed {k}" for k in table.columns]
assert table.to_numpy().max() <= 2 * HALF
table

# %% tags=["report"]
late = {name: {by: int((values > HALF).sum()) for by, values in choices.items()} for name, choices in best_epochs.items()}
for name, count in late.items():
    say(f"- *{name}*: the best validation mAP lies in the second half in {count['best by mAP']} of {table.shape[1]} seeds, the best "
        f"validation NLL in {count['best by NLL']}.")
assert profile() == "smoke" or (late["hard labels"]["best by NLL"], late["UD"]["best by NLL"]) == (0, len(once))

# %% [markdown]
r"""
By the NLL, a user would stop after the first half on hard labels, and train to the end with UD.

## 8. New weights, or another teacher

Born-again networks start anew. The teacher is again the network of lesson 03 (40 epochs, λ = 0.1, same shape). The student starts
from random weights and learns from it for 40 epochs, by KD (Eq. 13 alone) or by UD (Eq. 18). But student and teacher have the same
seed here. So do they start from the same weights?
"""

# %% tags=["report"]
starts = {}
for who, lam in (("teacher", 0.1), ("student by KD", 0.0)):  # KD needs no calibration branch, so the student has none
    set_seed(0)
    starts[who] = make_network(len(splits["train"].classes), lam, "small", embedding=once[0].recipe.embedding).state_dict()
assert len(starts["student by KD"]) < len(starts["teacher"])
assert all(torch.equal(value, starts["teacher"][name]) for name, value in starts["student by KD"].items())
print("yes: the born-again student starts from the weights from which its teacher started")

# %% [markdown]
r"""
It also sees the batches in the same order. So its training differs from its teacher's only in the labels and the loss.
For comparison we add a **wider** teacher of another architecture (hard labels, λ = 0.1), which lessons 05 and 07 use, by KD and by UD. Rows with the same loss
differ only in the teacher.
"""

# %% tags=["report"]
wide = [load_or_run(each) for each in two_branch(0.1, network="small_wide")]
teachers_of = {f"{name}, {loss}": (network, "small", loss) for name, network in
               (("born again", "small"), ("wider teacher", "small_wide")) for loss in ("KD", "UD")}
students = {name: [load_or_run(each) for each in pairs()[key]] for name, key in teachers_of.items()}
others = {"restart, UD": again["UD"], **students}

# %% tags=["report"]
ASKED = ("mAP", "ECE_pooled", "true_CE_pooled", "NLL")
against = {name: {key: difference(score(runs, key), score(once, key)) for key in ASKED} for name, runs in others.items()}
say(as_markdown(rows_of({f"{name} − 40 epochs": effect for name, effect in against.items()}, ASKED)))

# %% tags=["report"]
gains = {"restart, hard labels": again["hard labels"], **others}
gains = {name: 100 * (score(runs, "mAP") - score(once, "mAP")) for name, runs in gains.items()}
close = {name: values for name, values in gains.items() if values.mean() > -5}  # the collapsed ones would set the scale
if close and np.isfinite(list(close.values())).all():
    show(plots.seed_intervals(close, "mAP minus that of 40 epochs, points", zero=True),
         "Paired differences in mAP from 40 epochs on hard labels, for each method that did not collapse, five seeds")
if far := [f"*{name}* ({values.mean():+.1f} points)" for name, values in gains.items() if name not in close]:
    say(f"The figure leaves out {' and '.join(far)}, which lie far to the left.")

# %% tags=["report"]
needs = {"restart, hard labels": [again["hard labels"]], "restart, UD": [again["UD"]]}
needs |= {name: [once if name.startswith("born again") else wide, runs] for name, runs in students.items()}
say("Training time, including the teacher's, relative to 40 epochs: " + ", ".join(
    f"{name} × {np.median(cost(*groups)):.1f}" for name, groups in needs.items()) + ".")

# %% tags=["report"]
LIKE = (("born again, KD", "restart, UD"), ("born again, UD", "restart, UD"), ("wider teacher, KD", "born again, KD"),
        ("wider teacher, UD", "restart, UD"))
versus = {}
for pair in LIKE:
    change = versus[pair] = {key: difference(*(score(others[name], key) for name in pair)) for key in ("mAP", "ECE_pooled", "NLL")}
    say(f"- *{pair[0]}* minus *{pair[1]}*: mAP {in_units(change['mAP'])}, **{change['mAP'].verdict}**; pooled ECE "
        f"{in_units(change['ECE_pooled'])}, **{change['ECE_pooled'].verdict}**; NLL {in_units(change['NLL'], 1, 4, ' nats')}, "
        f"**{change['NLL'].verdict}**.")
assert profile() == "smoke" or [versus[pair]["mAP"].verdict for pair in LIKE] == ["higher", "lower", "not detected", "lower"]

# %% [markdown]
r"""
*Born again, KD* has a mAP 0.6 points above the restart with UD, and a pooled ECE 0.8 points higher. No difference in mAP between the
wider teacher and the teacher of the student's own size is detected, by KD.

These rows differ in more than one thing. The restart goes on from trained weights, and the born-again student starts from random
ones; both take 80 epochs in all, counting the teacher. *Born again, UD* and the restart differ only in the start. *Born again, KD*
also differs in the loss (Eq. 13 instead of Eq. 18). A student of the wider teacher costs more, because a wide epoch takes longer.

## 9. On photographs

The paper made its Table 4 with photographs and ImageNet weights. So we repeat it in the setup of lesson 07: an EfficientNet-Lite0 learns
for 10 epochs, the learning rate restarts, and 10 more epochs follow. In the second half it learns from labels, from itself by KD, or from
itself by UD as printed. The first half is the same for all three.

**Predict.** On `scenes`, UD after the restart ended 0.57 points of mAP above hard labels. And on photographs?
"""

# %% tags=["learn"]
guess_photo_ud = ...  # mAP after the restart, UD minus hard labels, in points

from udlib.course import evidence, photo_arms
from udlib.course.photo_tables import photo_table

restarts = photo_arms.photo_restarts()
on_photos = {"10 epochs": photo_arms.photo_branch(0.1)}
on_photos |= {f"restart, {name}": recipes for name, recipes in restarts.items()}
HEADS = {"mAP": "mAP, %", "ECE_pooled": "pooled ECE, %", "NLL": "NLL, nats",
         "overconfidence": "overconfidence, points"}
evidence.show_evidence(evidence.train_missing(on_photos), HEADS, "restart, hard labels",
                       "Photographs, test split, five seeds")

# %% tags=["report"]
steps = {"restart on hard labels − 10 epochs": ("restart, hard labels", "10 epochs"),
         "KD − hard labels, after the restart": ("restart, KD", "restart, hard labels"),
         "UD − hard labels, after the restart": ("restart, UD", "restart, hard labels"),
         "UD − KD, after the restart": ("restart, UD", "restart, KD"), "UD − 10 epochs": ("restart, UD", "10 epochs")}
evidence.show_contrasts({name: (on_photos[a], on_photos[b]) for name, (a, b) in steps.items()}, HEADS)
photo_gaps = {name: {metric: difference(*(metric_values(on_photos[arm], metric) for arm in pair)) for metric in HEADS}
              for name, pair in steps.items()}
check_guess("UD minus hard labels", guess_photo_ud, 100 * photo_gaps["UD − hard labels, after the restart"]["mAP"].mean, " points")

# %% tags=["report"]
say("**Table 4 of the paper beside ours.**\n\n" + as_markdown(photo_table("table4")))

# %% [markdown]
r"""
Here more training on labels does harm: the second half costs two points of mAP and nearly doubles the pooled ECE. After ten epochs this
network has learnt what it can from 1,316 photographs, and then it overfits. KD from itself prevents that: its mAP is 2.1 points above
that of labels. But no difference from the network of epoch 10 is detected, so ten epochs of KD bring back what a restart destroys, and
we see them add nothing. UD as printed ends 1.1 points *below* epoch 10, and 1.2 below KD. That is a small loss beside the six points of lesson 07; there a
trained start also left a loss of about one point.

The paper's Table 4 has a gain for UD over hard labels after the restart. Here none is detected (+0.9 points, with an interval that
just contains 0). And even a detected one would not mean that self-distillation helps: the comparison that matters to a user is with
stopping after the first half.

**Think.** In the paper's Table 4 the rows without UD might have been trained without a restart, or with one. Which of the two would
make the printed gain of UD more impressive, given what we found here?

<details><summary>Answer</summary>

Without the restart. If the restart itself costs accuracy, then hard labels after a restart are an easy opponent, as on our photographs. A gain
over a network that stopped in time is harder to reach.

</details>
"""

# %% tags=["report"]
verdicts_on_photos = {name: gaps["mAP"].verdict for name, gaps in photo_gaps.items()}
assert list(verdicts_on_photos.values()) == ["lower", "higher", "not detected", "lower", "lower"]
against_ten = difference(*(metric_values(on_photos[name], "mAP") for name in ("restart, KD", "10 epochs")))
assert against_ten.verdict == "not detected"
assert all(photo_gaps[f"{name} − hard labels, after the restart"]["ECE_pooled"].verdict == "lower" for name in ("KD", "UD"))
say(f"KD after the restart minus 10 epochs: mAP {in_units(against_ten)}, **{against_ten.verdict}**.")

# %% [markdown]
r"""
## 10. Explore: two halves, five seeds

The figures above show all seeds at once. Here you see one run beside its counterpart: choose what the second half learns from, the
seed, and what is drawn. Find a seed where the best epoch by validation mAP is not the best by validation NLL.
"""

# %% tags=["report"]
from udlib.course.explorers import Explorer, Frame

DRAWN = {"validation mAP, %": ("mAP", 100), "validation NLL, nats": ("NLL", 1)}

# %% tags=["report"]
def frame(second_half, seed, drawn):
    key, scale = DRAWN[drawn]
    lines = {name: (curve(runs[seed:seed + 1], key)[0], scale * curve(runs[seed:seed + 1], key)[1])
             for name, runs in again.items() if name in ("hard labels", second_half)}
    run, (where, values) = again[second_half][seed], lines[second_half]
    best = where[int((values[0].argmax if key == "mAP" else values[0].argmin)())]
    readings = {"best epoch": str(best), f"at epoch {HALF}": f"{values[0][where.index(HALF)]:.3f}", "at the end": f"{values[0][-1]:.3f}"}
    readings |= {f"test {METRICS[k][0]}": f"{METRICS[k][1] * run.metrics['test'].get(k, np.nan):.{METRICS[k][2]}f}" for k in ASKED}
    alt = f"{drawn} with {second_half} in the second half, seed {seed}: " + ", ".join(f"{n} {v}" for n, v in readings.items())
    panels = {drawn: lines, "learning rate": {second_half: curve([run], "lr")}}
    return Frame(plots.trajectories(panels, "epoch", marks=[HALF]), alt, readings)

# %% tags=["report"]
explorer = Explorer({"second half": list(again), "seed": list(range(len(once))), "drawn": list(DRAWN)}, frame,
                    start={"second half": "UD"}, note="Validation images every five epochs; readings on the test images.")
before = explorer.picture.value
explorer.move(drawn="validation NLL, nats")
assert explorer.picture.value != before and "test mAP" in explorer.readout.value
explorer.move(drawn="validation mAP, %")
explorer

# %% [markdown]
r"""
### Exercise ★★★ (open): a third half

A friend trains a third half: the student of this lesson becomes the teacher, the learning rate restarts, Eq. 18 once more.
Its mAP is higher than that of the second half, on five seeds. "Each generation learns from a better teacher," says your
friend. Design the arms that test this sentence, and predict what each shows.

One point each:

1. A control trains as long, with the same restarts, and without any teacher.
2. An arm changes the *teacher* of the third half, and nothing else.
3. You use what shrinkage predicts for more rounds.
4. You name the difference that tests the sentence.

<details><summary>A worked answer</summary>

Three arms, all with a third half: (i) hard labels in halves two and three; (ii) as my friend has it; (iii) like (ii), but the
teacher of the third half is still the one of the *first*. The sentence is about (ii) minus (iii): same length, same loss,
same start, another teacher. The second half against the third is no test: it contains one more restart. If only longer training
helps, all three arms end alike. If soft labels help but their source does not matter, (ii) and (iii) are alike and
above (i). Shrinkage predicts that each round acts as a stronger penalty. It helps as long as the network overfits, and then it
harms, so there should be a last useful generation. Five seeds are paired.

</details>

## Summary

- In self-distillation the teacher is the best earlier state of the student. UD's protocol: hard labels, a restart of the learning
  rate, then Eq. 18.
- Where student and teacher are equal, Eq. 18 is 0, and so is its gradient in eval mode. In train mode the noise of the batches gives
  a small gradient, and a new Adam turns it into full steps. The large learning rate moves the student away, and the loss brings it back.
- In ridge regression, round $t$ shrinks a direction by $(d / (d + \lambda))^t$: a stronger regulariser. It helps a teacher that overfits.
  A tuned penalty helps almost as much.
- A teacher that was trained on the labels that it should improve has memorised part of the annotator's coin. Its soft labels are closer to
  the posterior where the label was in doubt, and further away where it was not.
- A claim about distillation needs controls that train as long: with the restart and without the teacher, and without the restart.

What we found on `scenes`, and in the last but one point on photographs:

- On hard labels, 40 more epochs after a restart raise the mAP by 0.65 points and double the pooled ECE.
- With UD in these 40 epochs the mAP is another 0.57 points higher, and the pooled ECE is 0.4 %, below that of 40 epochs (2.1 %).
- 80 epochs on hard labels in one schedule reach a mAP 1.2 points above UD's, with a pooled ECE of 4.1 %. So UD gains calibration and
  not accuracy, compared with the same number of steps.
- On photographs a second half on hard labels costs two points of mAP. KD from itself prevents this loss; over stopping after
  the first half no gain is detected. UD as printed ends 1.1 points below it.
- A born-again student gains 1.8 points by KD over its teacher of the same size. By UD with the printed weights it loses 20 points;
  lesson 07 explains why.

The numbers behind these sentences:
"""

# %% tags=["report"]
for name, effect in effects.items():
    texts = [f"mAP {in_units(effect['mAP'])}, **{effect['mAP'].verdict}**",
             f"pooled ECE {in_units(effect['ECE_pooled'])}, **{effect['ECE_pooled'].verdict}**",
             f"pooled true error {in_units(effect['true_CE_pooled'])}, **{effect['true_CE_pooled'].verdict}**",
             f"NLL {in_units(effect['NLL'], 1, 4, ' nats')}, **{effect['NLL'].verdict}**"]
    say(f"- {name}: {'; '.join(texts)}.")
whole_effect = parts["the whole method"]
say(f"- UD − 80 epochs in one schedule: mAP {in_units(whole_effect['mAP'])}, **{whole_effect['mAP'].verdict}**; pooled ECE "
    f"{in_units(whole_effect['ECE_pooled'])}, **{whole_effect['ECE_pooled'].verdict}**.")
for name in students:
    say(f"- {name} − 40 epochs: mAP {in_units(against[name]['mAP'])}, **{against[name]['mAP'].verdict}**.")

# %% tags=["report"]
if profile() != "smoke":
    assert against["born again, KD"]["mAP"].verdict == "higher" and against["born again, UD"]["mAP"].high < -0.15
say(f"- The teacher (seed 0) has memorised {100 * memory['train'].estimate:.0f} % of the coin's error in its training labels.")
say("- " + difference.count())

# %% [markdown]
r"""
These were one small network on small pictures, and one on photographs at 128 px, where the two data sets do not agree about a longer training.
Neither says much about ResNet-101 fine-tuned on VOC2007. But the *controls* carry over: lesson 11 shows how to run all three arms there.

## Further reading

- L. Song et al., *Handling Difficult Labels for Multi-label Image Classification via Uncertainty Distillation*, ACM MM 2021: section
  5.3.2 and Table 4.
- T. Furlanello et al., *Born-Again Neural Networks*, ICML 2018.
- C. Yang et al., *Snapshot Distillation: Teacher-Student Optimization in One Generation*, CVPR 2019.
- L. Zhang et al., *Be Your Own Teacher*, ICCV 2019.
- I. Loshchilov and F. Hutter, *SGDR: Stochastic Gradient Descent with Warm Restarts*, ICLR 2017.
- H. Mobahi, M. Farajtabar and P. Bartlett, *Self-Distillation Amplifies Regularization in Hilbert Space*, NeurIPS 2020.
- A. K. Menon et al., *A Statistical Perspective on Distillation*, ICML 2021: soft labels as estimates of the posterior.
- Z. Zhang and M. Sabuncu, *Self-Distillation as Instance-Specific Label Smoothing*, NeurIPS 2020.
- S. Stanton et al., *Does Knowledge Distillation Really Work?*, NeurIPS 2021: a student rarely matches its teacher.
- R. Das and S. Sanghavi, *Understanding Self-Distillation in the Presence of Label Noise*, ICML 2023.
"""

# %% [markdown]
r"""
## Quiz

What do you know after this lesson?
"""

# %% tags=["report"]
from udlib.course.quizzes import quiz

quiz("08")

# %% [markdown]
r"""
The next quiz joins lessons 05 to 08.
"""

# %% tags=["report"]
quiz("block 3")
