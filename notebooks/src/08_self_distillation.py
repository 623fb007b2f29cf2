# %% [markdown]
r"""
# 08 · Self-distillation: can a network teach itself?

[← 07 · Uncertainty distillation](07_uncertainty_distillation.ipynb) · [09 · Parallel self-distillation →](09_parallel_self_distillation.ipynb)

**Aim.** You will train a network that becomes its own teacher, say in which sense nothing can come of it and what happens
all the same, and take apart what is due to the teacher and what only to a second, longer round of training.

**Prerequisites.** Lessons 02 to 04: the baseline, the second branch at weight λ, calibration. From lessons 05 to 07 the three
terms of the distillation loss; section 4 recalls them.

**Time.** About 90 minutes with the exercises. The cells run in about a minute: the networks are loaded, and only very small
ones are trained.
"""

# %% tags=["setup"]
import copy
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import torch
from IPython.display import display

from udlib.figures import plots
from udlib.course.exercises import assert_measured, check, check_guess
from udlib.course.store import arrays, for_profile, labels, load, load_model, load_or_run, profile
from udlib.figures.plots import show
from udlib.course.recipes import pairs, restart_controls, restarted, two_branch
from udlib.course.sentences import Differences, in_units, say, spread

# %% [markdown]
r"""
This lesson is about `scenes`. Its runs have two halves and were trained for this data set only. As before, sentences with
numbers are written by code; a "point" is one per cent; a difference between two recipes is **paired by seed** and comes with its
95 % t interval over five seeds. If the interval holds 0, its verdict is "not detected".
"""

# %% tags=["setup"]
difference = Differences()  # counts the intervals over seeds that this lesson draws

# %% [markdown]
r"""
## 1. First, a picture

The paper (UD) trains for 80 epochs in two halves. At epoch 40 the learning rate goes back to its start. We trained that
twice: once with hard labels in both halves, and once so that from epoch 41 on the network learns from *itself*, as it was at
its best in the first half.

![The learning rate restarts after 40 of 80 epochs; the last weights go on as the student, and a copy of the best weights on validation becomes its teacher.](images/restart.svg)
"""

# %%
once = [load_or_run(chosen) for chosen in two_branch(0.1)]  # 40 epochs: the two-branch network of lesson 03
again = {name: [load_or_run(chosen) for chosen in recipes] for name, recipes in restarted().items()}
HALF = again["UD"][0].recipe.training.epochs  # epochs of each half


def curve(found, name, after=0):
    """Epochs that have this number, and its values there: one row for each run."""
    rows = [[row for row in run.history if name in row and row["epoch"] > after] for run in found]
    return [row["epoch"] for row in rows[0]], np.array([[row[name] for row in of_run] for of_run in rows])


assert list(again) == ["hard labels", "UD"] and all(len(run.history) == 2 * HALF for run in again["UD"])

# %%
seed0 = {name: found[:1] for name, found in again.items()}
pictures = {"learning rate": {"both": curve(seed0["UD"], "lr")},
            "training loss, logarithmic": {"hard labels": curve(seed0["hard labels"], "total"),
                                           "UD": curve(seed0["UD"], "total", after=HALF)},
            "validation mAP, per cent": {name: (curve(found, "mAP")[0], 100 * curve(found, "mAP")[1])
                                         for name, found in seed0.items()}}
show(plots.trajectories(pictures, "epoch", marks=[HALF], logarithmic=["training loss, logarithmic"]),
     "Learning rate, training loss and validation mAP of seed 0 over both halves, on hard labels and by UD")

# %% [markdown]
r"""
The dotted line is the restart. The two losses after it have different units (Eq. 12 and Eq. 18), so compare their shapes and
not their heights. Look at the validation mAP in the ten epochs after the restart: what does a large learning rate do to a network
that is trained already?

### Predict

Three guesses before you go on, in points of the test images. How much mAP does the restart **alone** give, on hard labels, over
stopping at epoch 40? How much does UD give **on top of** it? And how much does the pooled ECE change by the restart alone?
(Negative: it falls.)
"""

# %%
guess_restart = ...  # mAP of 40 + 40 epochs on hard labels, minus mAP of 40 epochs; for example 1
guess_distilled = ...  # mAP of the self-taught network, minus mAP of 40 + 40 epochs on hard labels
guess_ece = ...  # pooled ECE of 40 + 40 epochs on hard labels, minus that of 40 epochs

# %% [markdown]
r"""
## 2. A network as its own teacher

Distillation wants a teacher, and a good one is large and costs a training of its own. So people tried the nearest network at
hand, the student itself:

- *Born-again networks* (Furlanello et al., 2018): train a network, then train a fresh one of the same shape on its answers. Repeat.
- *Snapshot distillation* (Yang et al., 2019): one long training with restarts; the end of one cycle teaches the next. The weights go on.
- *Be your own teacher* (Zhang et al., 2019): the deep layers teach the shallow ones while both train. Not our subject.

UD takes the second (section 5.3.2 and Table 4): 80 epochs of cosine annealing with one restart. The best network of the first
40 epochs teaches the other 40. Here is Table 4, mAP in per cent on VOC2007. Beside it stand the same backbones in Table 2, trained
on hard labels without and with the calibration branch.
"""

# %%
TABLE_4 = pd.DataFrame({"without UD": [93.78, 89.15, 90.10], "with UD": [94.27, 90.81, 91.34],
                        "Table 2, no branch": [93.75, 88.91, 90.00], "Table 2, branch": [94.11, 89.50, 90.37]},
                       index=["ResNet-101", "ResNet-18", "MobileNet-v2"])
TABLE_4["gain"] = (TABLE_4["with UD"] - TABLE_4["without UD"]).round(2)
assert TABLE_4["gain"].tolist() == [0.49, 1.66, 1.24]
TABLE_4

# %% [markdown]
r"""
Three things should make a reader careful.

1. The text says that ResNet-18 and MobileNet-v2 gain 0.6 points. Their printed rows differ by more than twice as much. One of
   the two is a slip.
2. Did the rows *without UD* train for 80 epochs with the restart too? The text does not say. If they did not, the table compares
   a teacher *and* a second training with neither. Their numbers lie near those of Table 2, which has 20 epochs.
3. Only mAP is printed. A restart may overfit, and a soft teacher may prevent that; a reader would like to see calibration.

So our experiment has three arms and not two: 40 epochs; 40 + 40 epochs on hard labels; 40 + 40 with UD in the second half.

## 3. The protocol, line by line

### The learning rate

Plain cosine annealing over $T$ steps (Loshchilov and Hutter, 2017) falls from the peak to 0 on half a cosine:
$\eta_t = \tfrac12 \eta_{\max} (1 + \cos(\pi t / T))$. A *warm restart* puts $t$ back to 0 and leaves the weights where they are.
The course trains from a random start and so warms up first, in each half: `training.learning_rate` rises for a quarter of
the steps, and then falls as above. It is a function of the step alone, so a restart is nothing but a second call.
"""

# %%
from udlib.training import learning_rate

config = again["UD"][0].recipe.training
epochs, stored = curve(again["UD"], "lr")  # a row keeps the rate of its epoch's last step
steps = len(labels(once[0].recipe, "train").targets) // config.batch_size  # steps of an epoch
ours = [learning_rate((epoch + 1) * steps - 1, HALF * steps, config) for epoch in range(HALF)]
assert np.allclose(stored, 2 * ours)  # the same list twice: both halves are alike
print(f"{config.schedule}: the rate of the first and of the last step is {learning_rate(0, HALF * steps, config):.1e} and "
      f"{learning_rate(HALF * steps - 1, HALF * steps, config):.1e}, the peak is {config.lr:.1e}")

# %% [markdown]
r"""
### Exercise 08.1

Write a schedule with one restart, for `step` = 0, 1, … up to 2·`half` − 1. Each half has `half` steps, of which the first
`warm` warm up. With `s` the step within its half: the rate is `peak * (s + 1) / warm` while `s < warm`, and after that half a
cosine, `peak / 2 * (1 + cos(π u))`, where `u` runs from 0 at `s = warm` towards 1 at `s = half`.
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

# %%
check("08.1", my_rate)

# %% [markdown]
r"""
### The two halves

The whole method is `udlib/methods/self_distillation.py`. Here are its lines, one idea to a cell, live on 300 images with the
smallest network and two epochs to each half. The result will be poor; only the steps matter.

The network and the loss of the first half, Eq. 12 with λ = 0.1:
"""

# %%
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

# %%
set_seed(tiny.seed)
model = make_network(some.targets.shape[1], 0.1, "small_narrow")
first = fit(model, some, supervised_loss(0.1), tiny, watch=watch)
assert "ova" in first.rows[-1] and first.best_epoch is not None

# %% [markdown]
r"""
The restart. The **teacher** is a copy that gets the weights of the best epoch on *validation*. The **student** is the network
itself, and keeps its *last* weights. If the last epoch was the best, the two are equal.
"""

# %%
teacher = copy.deepcopy(model)
teacher.load_state_dict(first.best_weights)
taught = distillation_loss(teacher, alpha=0.5, beta=0.5)  # Eq. 18: no hard label in it
equal = all(torch.equal(a, b) for a, b in zip(teacher.state_dict().values(), model.state_dict().values()))
assert equal or first.best_epoch < tiny.epochs
print(f"best epoch of the first half: {first.best_epoch} of {tiny.epochs}; teacher and student are "
      f"{'equal' if equal else 'different'}")

# %% [markdown]
r"""
The second half: the same `fit` with another loss. A call of `fit` brings a fresh Adam and the schedule from its start, which is
all there is to a restart. The seed changes, or the images would come in the same order as before.
"""

# %%
second = fit(model, some, taught, replace(tiny, seed=mixed_seed(tiny.seed, 2)), watch=watch)
whole = recipe("self_distillation", lam=0.1, network="small_narrow", embedding=512, **asdict(tiny))
_, library = train_method(whole, some, watch=watch)
by_hand = first.column("total") + second.column("total")
assert np.allclose(by_hand, library.column("total"), rtol=1e-4)  # our five lines are the library's method
pd.DataFrame(library.rows)[["epoch", "half", "lr", "total", "ova", "classification", "calibration", "attention"]].round(5)

# %% [markdown]
r"""
With `distil=False` the second `fit` gets `supervised_loss` again. That is the control. Does the first half of each stored run
repeat the 40 epochs of lesson 03, as it should? It has the same seed, the same loss, the same batches.
"""

# %%
def validated(found, name="mAP"):
    """The validation numbers of the first half, a row for each run."""
    epochs, values = curve(found, name)
    return values[:, np.array(epochs) <= HALF]


apart = {name: np.abs(validated(found) - validated(once)).max() for name, found in again.items()}
say("Largest difference in validation mAP between the first half and the 40 epochs of lesson 03, over all seeds: "
    + ", ".join(f"{100 * value:.3f} points ({name})" for name, value in apart.items())
    + (". The three arms share their first half, number by number, and differ in what comes after it."
       if max(apart.values()) < 1e-6 else ". They are repetitions of one recipe, and not exact copies."))

# %%
best_first = [epochs[int(row.argmax())] for epochs, row in zip([curve(once, "mAP")[0]] * len(once), validated(again["UD"]))]
last_is_best = sum(epoch == HALF for epoch in best_first)
say(f"The best epoch of the first half, by validation mAP every five epochs: {', '.join(map(str, best_first))} (seeds 0 to "
    f"{len(best_first) - 1}). In {last_is_best} of {len(best_first)} seeds the teacher **is** the network with which the second "
    "half begins.")

# %% [markdown]
r"""
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

# %%
check("08.2", my_teacher)

# %% [markdown]
r"""
## 4. Nothing to learn?

Eq. 18 adds three terms, all between teacher $T$ and student $S$ on the same image:

$$L = \underbrace{\tfrac1C \textstyle\sum_i \mathrm{KL}(T^o_i \,\|\, S^o_i)}_{\text{Eq. 13, the sigmoids}}
+ \alpha \underbrace{\mathrm{KL}(T^a \,\|\, S^a)}_{\text{Eq. 14, the branch's softmax}}
+ \beta \underbrace{\| A_T - A_S \|}_{\text{Eq. 17, the attention}}$$

Each is at least 0, and each **is** 0 if the student equals the teacher. So self-distillation begins at the best point that its
loss has. We take the network that ships with the course, 40 epochs at λ = 0.1, as both.
"""

# %%
from udlib.attention import uncertainty_attention, uncertainty_attention_of
from udlib.datasets.transforms import normalise
from udlib.losses import attention_loss, bernoulli_kl, softmax_kl

teacher = load_model(once[0].recipe)  # seed 0, in eval mode
student, images = copy.deepcopy(teacher), normalise(train.images[:64])


def terms(images):
    """Eq. 13, 14 and 17 between the teacher and the student, in whatever mode they are."""
    t, s = teacher(images), student(images)
    maps = uncertainty_attention(teacher.head, t.features).detach(), uncertainty_attention_of(s)
    return {"Eq. 13": bernoulli_kl(t.logits, s.logits).item(),
            "Eq. 14": softmax_kl(t.calibration_logits, s.calibration_logits).item(), "Eq. 17": attention_loss(*maps).item()}

# %%
zero = terms(images)
assert max(zero.values()) < 1e-5  # the same network, the same mode, the same pictures
flipped = terms(images.flip(3))
assert max(flipped.values()) < 1e-5  # and of a mirrored picture the teacher is asked about the mirrored picture
student.train()
noisy = terms(images)  # batch normalisation now uses this batch's own mean and variance
student.eval()
assert noisy["Eq. 13"] > 0 and noisy["Eq. 14"] > 0
pd.DataFrame({"eval mode": zero, "eval mode, mirrored": flipped, "student in train mode": noisy}).T.round(6)

# %% [markdown]
r"""
Mirroring does not help: the teacher sees what the student sees. Train mode does. A batch normalisation layer then scales
each channel by the mean and variance of *this batch* in place of the running ones. So the student's answer to a picture
depends on the other pictures of its batch, and the teacher's does not. The smaller the batch, the louder this noise.

The gradient tells the same: in eval mode it vanishes, up to rounding.
"""

# %%
def gradient_norm(training):
    """Norm of the gradient of Eq. 18 at student = teacher."""
    student.load_state_dict(teacher.state_dict())
    student.train(training).zero_grad()
    distillation_loss(teacher)(student, Batch(images, None, None, torch.arange(len(images))))["total"].backward()
    squares = [p.grad.square().sum() for p in student.parameters() if p.grad is not None]
    student.load_state_dict(teacher.state_dict())  # train mode has moved the running statistics
    return torch.stack(squares).sum().sqrt().item()


in_eval, in_train = gradient_norm(False), gradient_norm(True)
assert in_eval < 1e-3 * in_train
print(f"norm of the gradient: {in_eval:.1e} in eval mode, {in_train:.1e} in train mode")

# %%
SIZES = (8, 16, 32, 64)
pool, loud = normalise(train.images[:192]), {"Eq. 13": [], "Eq. 14": []}
student.train()
for size in SIZES:
    found = [terms(part) for part in pool.split(size) if len(part) == size]
    for name, values in loud.items():
        values.append(np.mean([row[name] for row in found]))
student.eval().load_state_dict(teacher.state_dict())
figure = plots.lines(SIZES, loud, "images in a batch", "nats", "train mode: the student disagrees with itself")
figure.axes[0].set(xscale="log", yscale="log")
figure.axes[0].set_xticks(SIZES, SIZES)
figure.axes[0].minorticks_off()
show(figure, "Eq. 13 and Eq. 14 between a network in train mode and itself in eval mode fall with the size of the batch")

# %%
shrinks = {name: values[0] / values[-1] for name, values in loud.items()}
say(f"From batches of {SIZES[0]} to batches of {SIZES[-1]}, the terms shrink by a factor of "
    + " and ".join(f"{factor:.1f} ({name})" for name, factor in shrinks.items())
    + f". The variance of a batch's mean alone would shrink by {SIZES[-1] / SIZES[0]:.0f}.")
assert_measured(shrinks["Eq. 13"], 11, within=6)

# %% [markdown]
r"""
How steep is each term close to the teacher? We move every weight of the student by a little noise, $\varepsilon$ times the spread
of its layer's weights, and look at the gradient of each term, in eval mode.
"""

# %%
def gradients(epsilon, images):
    """Norm of each term's gradient where the student's weights are off by this share."""
    student.load_state_dict(teacher.state_dict())
    torch.manual_seed(0)
    with torch.no_grad():
        for p in student.parameters():
            p.add_(epsilon * p.std(correction=0) * torch.randn_like(p))
    found = distillation_loss(teacher)(student.eval(), Batch(images, None, None, torch.arange(len(images))))
    norms = {}
    for term in ("classification", "calibration", "attention"):
        parts = torch.autograd.grad(found[term], list(student.parameters()), retain_graph=True, allow_unused=True)
        norms[term] = torch.stack([g.square().sum() for g in parts if g is not None]).sum().sqrt().item()
    return norms

# %%
NEAR = (0.0003, 0.001, 0.003, 0.01)
steep = pd.DataFrame([gradients(epsilon, images[:32]) for epsilon in NEAR], index=NEAR)
named = {"Eq. 13": "classification", "Eq. 14": "calibration", "Eq. 17": "attention"}
figure = plots.lines(NEAR, {name: steep[term] for name, term in named.items()}, "how far off the weights are, share of their spread",
                     "norm of the gradient", "close to the teacher")
figure.axes[0].set(xscale="log", yscale="log")
show(figure, "Norms of the gradients of Eq. 13, 14 and 17 over the distance of the student's weights from its teacher's")
fades = steep.iloc[-1] / steep.iloc[0]
assert fades["attention"] < 0.5 * fades["classification"]  # a norm's slope does not fade, a divergence's does
louder = (0.5 * steep["attention"] / steep["classification"]).round(1).tolist()
say(f"With β = 0.5, the attention's gradient is {louder[-1]:,.0f} times that of the sigmoids at a distance of {NEAR[-1]:g}, and "
    f"{louder[0]:,.0f} times at {NEAR[0]:g}.")

# %% [markdown]
r"""
The divergences of Eq. 13 and 14 are smooth, and their gradients fade as the student comes near: a bowl. Eq. 17 as printed is a norm
and not a squared norm: a cone, about as steep beside its tip as further up. So close to the teacher it is the loudest of the three, and
steps of a fixed size cannot come to rest at its tip. (At the tip itself `attention_loss` takes a slope of 0.) Lesson 06 looks at this
term more closely.

So in train mode there is always some gradient, of a random direction. And small gradients do not mean small steps. Adam divides a gradient by its own
running size, so the first step of a fresh Adam moves *every* weight by about the learning rate, however small the loss. Plain
gradient descent would hardly move.
"""

# %%
def one_step(make, rate):
    """The median over all weights of how far one step moves them, in units of the learning rate."""
    student.load_state_dict(teacher.state_dict())
    optimizer = make(student.train().parameters(), lr=rate)
    distillation_loss(teacher)(student, Batch(images, None, None, torch.arange(len(images))))["total"].backward()
    optimizer.step()
    student.zero_grad()
    moved = [(a - b).detach().abs().flatten() for a, b in zip(student.parameters(), teacher.parameters())]
    return torch.cat(moved).median().item() / rate


moved = {make.__name__: one_step(make, 1e-4) for make in (torch.optim.SGD, torch.optim.Adam)}
assert 0.9 < moved["Adam"] < 1.1 and moved["SGD"] < 0.1
print(" ".join(f"{name}: the median weight moves by {value:.2g} × the learning rate." for name, value in moved.items()))

# %% [markdown]
r"""
Now let it walk: eight Adam steps on batches of 32, at the restart's first rate, and at the peak rate that it warms up to. The
picture shows how far the student's answers are then from the teacher's (in eval mode, on validation images).
"""

# %%
unseen = normalise(val.images[:64])
with torch.no_grad():
    expected = teacher(unseen).logits


def away():
    """Eq. 13 between the teacher and the student in eval mode, on held-out images."""
    with torch.no_grad():
        return bernoulli_kl(expected, student.eval()(unseen).logits).item()


def batch(step, size=32):
    """The training images of one step."""
    rows = torch.arange(step * size, (step + 1) * size) % len(train.targets)
    return Batch(normalise(train.images[rows]), None, None, rows)

# %%
def walk(rate, steps=8):
    """How far the student is from the teacher before and after each of some Adam steps on Eq. 18."""
    student.load_state_dict(teacher.state_dict())
    optimizer, loss_fn, path = torch.optim.Adam(student.parameters(), lr=rate), distillation_loss(teacher), [away()]
    for step in range(steps):
        optimizer.zero_grad()
        loss_fn(student.train(), batch(step))["total"].backward()
        optimizer.step()
        path.append(away())
    return path

# %%
rates = {"the first rate": learning_rate(0, HALF * steps, config), "the peak rate": config.lr}
walked = {f"{name}, {rate:.1e}": walk(rate) for name, rate in rates.items()}
assert all(values[0] < 1e-6 < values[-1] for values in walked.values())  # it starts at the minimum and leaves it
show(plots.lines(range(9), walked, "step", "Eq. 13 on held-out images, nats", "away from the best point of the loss"),
     "Distance of the student from its teacher over eight Adam steps, at the restart's first and at its peak rate")

# %% [markdown]
r"""
This is the loss's bump in the first picture. **The learning rate, not the lesson, throws the student off its place.** Then
the rate falls, and the student settles somewhere near its teacher, because that is what the loss asks for. Whatever it gains on the
way, it gains by *not* arriving: a student at loss 0 answers as its teacher does, on every training image.

*Think!* Would a self-taught student move at all with plain gradient descent, no batch normalisation and no dropout? And if it
started from random weights?

## 5. What could there be to gain?

### A known result: shrinkage

Start from fresh weights in place of the teacher's, and take the simplest learner there is. Ridge regression with kernel matrix
$K = U \operatorname{diag}(d) U^\top$ and penalty $\lambda$ (the penalty, not the branch's weight) answers, on its $n$ training points,

$$\hat y = K (K + \lambda I)^{-1} y = U \operatorname{diag}\!\Big(\frac{d_j}{d_j + \lambda}\Big) U^\top y .$$

Direction $j$ of the labels is shrunk by $s_j = d_j / (d_j + \lambda)$. Now let $\hat y$ be the labels of the next fit, and so on. After
$t$ fits the factor is $s_j^{\,t}$. That is the whole derivation. What it says (Mobahi et al., 2020): **self-distillation is a stronger
regulariser**, and of a special kind, since directions with small $d_j$ die first and only a few large ones are left.
"""

# %%
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

# %%
y = truth + noise * generator.normal(size=len(x))
for rounds in (1, 2, 7):
    factors = (d / (d + 0.1)) ** rounds
    assert np.allclose(refit(y, 0.1, rounds), U @ (factors * (U.T @ y)), atol=1e-6)  # the formula is what refitting does
assert np.allclose((d / (d + 1e-9))[d > 1e-3] ** 5, 1, atol=1e-4)  # hardly a penalty: five fits change nothing
size = np.logspace(-2, 2, 60)
shrunk = {f"{rounds} fit{'s' * (rounds > 1)}": (size / (size + 1)) ** rounds for rounds in (1, 2, 5, 20)}
figure = plots.lines(size, shrunk, "size of the direction, d / penalty", "what is left of it", markers=False)
figure.axes[0].set_xscale("log")
show(figure, "The factor that is left of a direction over its size, after one, two, five and twenty fits")

# %% [markdown]
r"""
The more rounds, the steeper and further to the right the cut. Without a penalty nothing happens at all: a teacher that repeats its
labels exactly hands on the same labels.

Is a stronger regulariser good? That depends on how strong it was. For fixed $x$, the expected error against the truth has a
bias and a variance, both exact: $\frac1n \sum_j (1 - s_j^t)^2 c_j^2 + \frac{\sigma^2}{n} \sum_j s_j^{2t}$ with
$c = U^\top \text{truth}$ and noise $\sigma$.
"""

# %%
def expected_error(penalty, rounds):
    """Mean squared distance from the truth at the training points, averaged over the labels' noise."""
    s = (d / (d + penalty)) ** rounds
    return (((1 - s) * (U.T @ truth)) ** 2).mean() + noise**2 * (s**2).mean()


draws = [((refit(truth + noise * generator.normal(size=len(x)), 0.1, 3) - truth) ** 2).mean() for _ in range(400)]
assert np.isclose(np.mean(draws), expected_error(0.1, 3), rtol=0.1)  # drawn 400 times, it is the same number
ROUNDS = np.arange(1, 16)
by_penalty = {f"penalty {p:g}": [expected_error(p, t) for t in ROUNDS] for p in (0.1, 0.3, 1.0, 3.0)}
figure = plots.lines(ROUNDS, by_penalty, "number of fits (1 is the teacher)", "expected squared error", "teaching itself")
figure.axes[0].set_yscale("log")
figure.axes[0].legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
show(figure,
     "Expected squared error over the number of fits for four penalties: it falls first where the penalty is weak")

# %%
PENALTIES = np.logspace(-2, 1, 61)
alone = min(expected_error(p, 1) for p in PENALTIES)
taught_best = min((expected_error(p, t), t) for p in PENALTIES for t in ROUNDS)
weak, strong = by_penalty["penalty 0.1"], by_penalty["penalty 3"]
assert np.argmin(weak) > 0 and np.argmin(strong) == 0  # helps where the teacher overfits, hurts where it does not
assert taught_best[0] <= alone < 1.2 * taught_best[0]
say(f"With the weakest penalty the student of round {ROUNDS[np.argmin(weak)]} is best: error {min(weak):.4f} after {weak[0]:.4f}. "
    f"With the strongest, each round makes it worse. If the penalty itself is tuned, one fit reaches {alone:.4f} and any number "
    f"of fits reaches {taught_best[0]:.4f} (at {taught_best[1]}).")

# %% [markdown]
r"""
So in this model self-distillation helps a teacher that **overfits**, and does most of what a better-chosen penalty would have done in one
fit. Keep both in mind for the experiment. And keep in mind what differs there: the student starts at the teacher's weights, not
from nothing, and our training has no weight decay.

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

# %%
check("08.3", my_shrinkage)

# %% [markdown]
r"""
### A known hope: softer labels are truer labels

A hard label is one throw of the annotator's coin: $y = 1$ with chance $\pi$, the posterior. A network trained on many such throws may
know $\pi$ better than the throw does. Then its answers on the *training* images are the better labels (Menon et al., 2021). On
`scenes` we know $\pi$ and can look. We ask the shipped teacher (seed 0) about its own training images, and about validation images
as a control.
"""

# %%
splits = {split: labels(once[0].recipe, split) for split in ("train", "val")}
soft = {split: predict(teacher, data).logits.double().sigmoid() for split, data in (("train", train), ("val", val))}
hard = {split: found.targets.double() for split, found in splits.items()}
posterior = {split: found.posterior.double() for split, found in splits.items()}
coin = (posterior["train"] * (1 - posterior["train"])).mean()
thrown = (hard["train"] - posterior["train"]).square()
assert abs(thrown.mean() - coin) < 5 * thrown.std() / len(thrown) ** 0.5  # the labels are throws of this coin

# %%
pi = posterior["train"]
doubtful = (pi > 0.02) & (pi < 0.98)
GROUPS = {"all labels": torch.ones_like(doubtful), "doubtful, 0.02 < π < 0.98": doubtful, "the others": ~doubtful,
          "marked difficult": splits["train"].difficult}
rows = {}
for name, of in GROUPS.items():
    away = {who: (said - pi)[of].square().mean().item() if of.any() else np.nan
            for who, said in (("hard labels", hard["train"]), ("soft labels", soft["train"]))}
    rows[name] = {"share, %": 100 * of.double().mean().item()} | {f"{who}: distance": value for who, value in away.items()}
rows = pd.DataFrame(rows).T
nearer = rows["soft labels: distance"] / rows["hard labels: distance"].clip(lower=1e-9)
assert_measured(nearer["doubtful, 0.02 < π < 0.98"], 0.83, within=0.16)  # softness pays where there was doubt
assert_measured(min(nearer["the others"], 99), 36, within=34)  # and not where there was none
rows.round(4)

# %% [markdown]
r"""
"Distance" is the mean of $(q - \pi)^2$, over all labels of the training images. Read the rows one by one. Where the annotator
might have decided either way, softness can pay. Where nothing was in doubt, a hard label is right and anything softer can only be
worse; and most labels are of this kind. Resampling the images tells whether the sum of both is in anybody's favour.
"""

# %%
from udlib.statistics import bootstrap_interval

nearer = ((hard["train"] - pi).square() - (soft["train"] - pi).square()).mean(1)  # per image; above 0: soft is nearer
gain = bootstrap_interval(lambda rows: nearer[rows].mean(), len(nearer), samples=500)
say("On average over all labels the teacher's soft labels are "
    + ("**nearer** to the posterior than the hard ones" if gain.low > 0 else "**further** from the posterior than the hard ones"
       if gain.high < 0 else "**neither nearer nor further** from the posterior, as far as these images can tell")
    + f": the mean of squares changes by {-gain.estimate:+.4f} [{-gain.high:+.4f}, {-gain.low:+.4f}] (bootstrap over images; one "
    f"network). The coin itself accounts for {coin:.4f}.")

# %% [markdown]
r"""
A network with enough room learns the throws by heart. How much of them did this one? That can be measured. If it knew only the
picture, its error $p - \pi$ would have nothing to do with the coin's error $y - \pi$. If it repeated its labels, both would be equal. So the
slope of one on the other,

$$m = \frac{\sum (p - \pi)(y - \pi)}{\sum (y - \pi)^2},$$

says **which share of the coin the network has learned by heart**: 0 is nothing, 1 is everything. On validation images, whose
labels it has never seen, $m$ must be about 0.
"""

# %%
def by_heart(p, y, pi):
    """The slope m, for each set of rows: a function of the images that are drawn."""
    above, below = ((p - pi) * (y - pi)).sum(1), (y - pi).square().sum(1)
    return lambda rows: (above[rows].sum() / below[rows].sum()).item()


memory = {split: bootstrap_interval(by_heart(soft[split], hard[split], posterior[split]), len(hard[split]), samples=500)
          for split in soft}
same = by_heart(hard["train"], hard["train"], pi), by_heart(pi, hard["train"], pi)
assert np.isclose(same[0](slice(None)), 1) and np.isclose(same[1](slice(None)), 0)
for split, found in memory.items():
    say(f"- {split}: m = {found.estimate:.2f} [{found.low:.2f}, {found.high:.2f}]")
assert_measured(memory["train"].estimate, 0.58, within=0.2)
assert_measured(memory["val"].estimate, 0.0, within=0.1)

# %% [markdown]
r"""
This is what lesson 04 called overfitting, seen from inside, and the limit of a teacher that was trained on the very labels it is to
improve. Its soft labels are, for that share, the hard labels again. What if hard and soft labels are mixed, as many recipes do?
"""

# %%
WEIGHTS = np.linspace(0, 1, 11)
mixed = [(w * soft["train"] + (1 - w) * hard["train"] - pi).square().mean().item() for w in WEIGHTS]
best_weight = WEIGHTS[int(np.argmin(mixed))]
show(plots.lines(WEIGHTS, {"mean squared distance": mixed}, "weight of the soft label", "distance from the posterior",
                 "hard, soft, and between"),
     "Mean squared distance of mixed labels from the posterior, over the weight of the soft label")
say(f"The mixture nearest to the posterior gives the soft label a weight of {best_weight:.1f}: distance {min(mixed):.4f}, against "
    f"{mixed[0]:.4f} (hard) and {mixed[-1]:.4f} (soft). Eq. 18 takes a weight of 1.")

# %% [markdown]
r"""
*Think!* The posterior decided that weight, and nobody has it outside of a simulation. How would you choose it on real data?

### Exercise 08.4

Write $m$ for tensors `p`, `y` and `pi` of shape (N, C): how much of the coin a network has learned by heart.
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

# %%
check("08.4", my_memory)

# %% [markdown]
r"""
## 6. The experiment

Three arms, five seeds, and the same first half for all. So there are three differences, and each answers another question:

| difference | what it contains |
|---|---|
| restart on hard labels − 40 epochs | more training with a restart, and no teacher |
| restart with UD − restart on hard labels | **the teacher**, everything else alike |
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

# %%
check("08.5", my_share)

# %% [markdown]
r"""
Now the scores. The paper prints mAP only; calibration, F1 and NLL are ours. mAP and F1 leave difficult labels out, the
*Difficult* column is mAP on images with at least one, and calibration counts every label as marked. Nothing was
chosen on the test images: each run ends with its last epoch.
"""

# %%
arms = {"40 epochs": once, "restart, hard labels": again["hard labels"], "restart, UD": again["UD"]}
METRICS = {"mAP": ("mAP, %", 100, 2), "mAP_difficult": ("mAP, Difficult, %", 100, 2), "CF1": ("CF1, %", 100, 2),
           "OF1": ("OF1, %", 100, 2), "ECE": ("ECE class-wise, %", 100, 2), "ECE_pooled": ("ECE pooled, %", 100, 2),
           "true_CE": ("true error class-wise, %", 100, 2), "true_CE_pooled": ("true error pooled, %", 100, 2),
           "overconfidence": ("overconfidence, points", 100, 2), "NLL": ("NLL, nats", 1, 4)}


def score(found, metric):
    """One metric on the test images, a value for each seed; NaN where it could not be measured."""
    return np.array([run.metrics["test"].get(metric, np.nan) for run in found])


pd.DataFrame({title: {name: spread(score(found, key), scale, digits) for name, found in arms.items()}
              for key, (title, scale, digits) in METRICS.items()}).T

# %%
CONTRASTS = {"restart − 40 epochs": ("restart, hard labels", "40 epochs"),
             "UD − restart": ("restart, UD", "restart, hard labels"), "UD − 40 epochs": ("restart, UD", "40 epochs")}
effects = {name: {key: difference(score(arms[a], key), score(arms[b], key)) for key in METRICS}
           for name, (a, b) in CONTRASTS.items()}


def told(found, key):
    title, scale, digits = METRICS[key]
    return f"{in_units(found, scale, digits, '')} {found.verdict}"


for key in ("mAP", "NLL"):  # the first two add up to the third
    assert np.isclose(sum(effects[name][key].mean for name in list(CONTRASTS)[:2]), effects["UD − 40 epochs"][key].mean,
                      equal_nan=True)
pd.DataFrame({title: {name: told(effects[name][key], key) for name in CONTRASTS} for key, (title, _, _) in METRICS.items()}).T

# %%
def gaps(key, scale=100):
    """The seeds' differences of each contrast, for a figure; contrasts that could not be measured are left out."""
    found = {name: scale * (score(arms[a], key) - score(arms[b], key)) for name, (a, b) in CONTRASTS.items()}
    return {name: values for name, values in found.items() if np.isfinite(values).all()}


for key, words in (("mAP", "mAP"), ("ECE_pooled", "pooled ECE"), ("true_CE_pooled", "pooled true error")):
    if found := gaps(key):
        show(plots.seed_intervals(found, f"difference in {words}, points", zero=True),
             f"Paired differences in {words} between the three arms, five seeds and 95 per cent intervals")

# %%
alone, on_top, both = (effects[name] for name in CONTRASTS)
say(f"**mAP.** The restart alone: {in_units(alone['mAP'])}, **{alone['mAP'].verdict}**. UD on top of it: "
    f"{in_units(on_top['mAP'])}, **{on_top['mAP'].verdict}**. Together: {in_units(both['mAP'])}, **{both['mAP'].verdict}**. "
    f"(Table 4 prints {', '.join(f'{gain:+.2f}' for gain in TABLE_4['gain'])} points for its three networks.)")
say(f"**Calibration.** Pooled ECE by the restart alone {in_units(alone['ECE_pooled'])}, **{alone['ECE_pooled'].verdict}**; by UD on "
    f"top of it {in_units(on_top['ECE_pooled'])}, **{on_top['ECE_pooled'].verdict}**. Overconfidence: "
    f"**{alone['overconfidence'].verdict}** by the restart, **{on_top['overconfidence'].verdict}** by UD. NLL: "
    f"**{alone['NLL'].verdict}** and **{on_top['NLL'].verdict}**.")
if alone["mAP"].verdict == "higher" and alone["NLL"].verdict == "higher":
    say("A table of mAP alone, as Table 4 is, shows the restart's gain and hides its price.")
check_guess("mAP, restart alone", guess_restart, 100 * alone["mAP"].mean, " points")
check_guess("mAP, UD on top", guess_distilled, 100 * on_top["mAP"].mean, " points")
check_guess("pooled ECE, restart alone", guess_ece, 100 * alone["ECE_pooled"].mean, " points")

# %% [markdown]
r"""
### Would a temperature have done it?

Lesson 04 asked this of the branch, and it is fair to ask it here: one number, fitted on validation, costs nothing. If
two arms still differ after each has its own temperature, the difference is more than one of scale.
"""

# %%
from udlib.calibration import expected_calibration_error, negative_log_likelihood

repaired = {"ECE pooled, %": {}, "NLL, nats": {}}
for name, found in arms.items():
    for run in found:
        q, marked = run.recalibrated("temperature"), run.labels().targets
        repaired["ECE pooled, %"].setdefault(name, []).append(100 * expected_calibration_error(q, marked, average="pooled"))
        repaired["NLL, nats"].setdefault(name, []).append(negative_log_likelihood(q, marked))
for title, values in repaired.items():
    digits = 4 if "NLL" in title else 2
    found = {name: difference(values[a], values[b]) for name, (a, b) in CONTRASTS.items()}
    say(f"- {title}, each with its own temperature: " + ", ".join(f"{name} {spread(seeds, 1, digits)}" for name, seeds in
        values.items()) + ". " + "; ".join(f"{name}: {in_units(d, 1, digits, '')}, **{d.verdict}**" for name, d in found.items()) + ".")

# %% [markdown]
r"""
### How far did the student go?

Section 4 said that a self-taught student is thrown off and drawn back. The stored answers tell how far it ended from where it
started: the mean absolute change of a probability on the test images. The yardstick is two networks of different seeds.
"""

# %%
start = [run.probabilities() for run in once]
travelled = {name: [100 * (run.probabilities() - p).abs().mean().item() for run, p in zip(found, start)]
             for name, found in arms.items() if found is not once}
travelled["another seed"] = [100 * (start[k] - start[k - 1]).abs().mean().item() for k in range(len(start))]
show(plots.seed_intervals(travelled, "mean change of a probability, points", "from the network of epoch 40"),
     "Mean absolute change of test probabilities from epoch 40 to the end of each arm, and between two seeds")
apart = difference(np.array(travelled["restart, UD"]) / 100, np.array(travelled["restart, hard labels"]) / 100)
say(f"By UD against on hard labels, the distance travelled is {in_units(apart)}: **{apart.verdict}**. Two seeds are "
    f"{np.mean(travelled['another seed']):.2f} points apart, the self-taught student and its start "
    f"{np.mean(travelled['restart, UD']):.2f}.")

# %% [markdown]
r"""
### What it costs

Two halves take twice the steps. The teacher's answers come on top, but with mirroring alone each image has just two views, so they are
computed once and looked up. The seconds are those of the epochs on a busy machine, so take them as rough. "Needs" counts the
training of whatever must exist first.
"""

# %%
def cost(*groups):
    """Seconds of training, summed over what is needed, relative to 40 epochs; a value for each seed."""
    return np.sum([[run.provenance["seconds"] for run in found] for found in groups], 0) / [
        run.provenance["seconds"] for run in once]


price = {name: np.median(cost(found)) for name, found in arms.items()}
say("Training time against that of 40 epochs (median over seeds): " + ", ".join(f"{name} × {value:.1f}" for name, value in
    price.items()) + ". By count of steps it is × 1, × 2 and × 2.")

# %% [markdown]
r"""
### Taking it apart

Each of the two effects still has two parts. "The restart alone" is more training *and* a restart. "UD on top" is the teacher's
sigmoids *and* the two terms of the calibration branch. Two more controls separate them, and Table 4 has neither: 80 epochs in a
single schedule, and a second half by KD alone (Eq. 13, so α = β = 0).
"""

# %%
kept = {name: recipes for name, recipes in restart_controls().items()
        if profile() == "smoke" or all(load(for_profile(chosen)) for chosen in recipes)}
controls = {f"restart, {name}" if name == "KD" else name: [load_or_run(chosen) for chosen in recipes]
            for name, recipes in kept.items()}
if missing := [name for name in restart_controls() if name not in kept]:
    say(f"Not trained yet, and left out below: {', '.join(missing)}. `udlib runs --only 'restart/*'` trains what is missing.")

# %%
PARTS = {"more steps, one schedule": ("80 epochs", "40 epochs"), "the restart itself": ("restart, hard labels", "80 epochs"),
         "the teacher's sigmoids": ("restart, KD", "restart, hard labels"),
         "the calibration branch's terms": ("restart, UD", "restart, KD")}
all_arms = arms | controls
parts = {name: {key: difference(score(all_arms[a], key), score(all_arms[b], key)) for key in METRICS}
         for name, (a, b) in PARTS.items() if {a, b} <= set(all_arms)}
if parts:
    display(pd.DataFrame({title: {f"{name} ({' − '.join(PARTS[name])})": told(found[key], key) for name, found in parts.items()}
                          for key, (title, _, _) in METRICS.items()}))

# %%
drawn = {name: 100 * (score(all_arms[a], "ECE_pooled") - score(all_arms[b], "ECE_pooled"))
         for name, (a, b) in PARTS.items() if name in parts}
if drawn and np.isfinite(list(drawn.values())).all():
    show(plots.seed_intervals(drawn, "difference in pooled ECE, points", zero=True),
         "Paired differences in pooled ECE of the parts of self-distillation, five seeds and 95 per cent intervals")
for name, found in parts.items():
    say(f"- *{name}*: mAP **{found['mAP'].verdict}**, pooled ECE **{found['ECE_pooled'].verdict}**, "
        f"NLL **{found['NLL'].verdict}**.")

# %% [markdown]
r"""
## 7. Through the epochs

All five seeds, on validation images every five epochs. The band spans the seeds.
"""

# %%
drawn = {title: {name: (curve(found, key)[0], scale * curve(found, key)[1]) for name, found in again.items()}
         for title, key, scale in (("validation mAP, per cent", "mAP", 100), ("validation NLL, nats", "NLL", 1))}
epochs, fit_to = curve(again["hard labels"], "ova")
drawn["BCE on the training images (hard labels)"] = {"hard labels": (epochs, fit_to)}
show(plots.trajectories(drawn, "epoch", marks=[HALF], logarithmic=["BCE on the training images (hard labels)"]),
     "Validation mAP and NLL of both arms and training BCE of the hard-label arm over two halves, five seeds")

# %%
def at(found, name, epoch):
    """A validation number at an epoch, a value for each run."""
    where, values = curve(found, name)
    return values[:, where.index(epoch)]


for name, found in again.items():
    change = {key: difference(at(found, key, 2 * HALF), at(found, key, HALF)) for key in ("mAP", "NLL")}
    say(f"- *{name}*, epoch {2 * HALF} minus epoch {HALF} on validation: mAP {in_units(change['mAP'])}, "
        f"**{change['mAP'].verdict}**; NLL {in_units(change['NLL'], 1, 4, ' nats')}, **{change['NLL'].verdict}**.")
    if profile() != "smoke":
        assert change["NLL"].verdict == {"hard labels": "higher", "UD": "lower"}.get(name, change["NLL"].verdict)
last, middle = fit_to[:, -1].mean(), fit_to[:, HALF - 1].mean()
say(f"- The training BCE on hard labels goes from {middle:.3f} at the end of the first half to {last:.3f} at the end of the second: "
    + ("the second half fits the training labels more closely." if last < middle else "no closer fit in the second half."))

# %% [markdown]
r"""
Hard labels raise the validation NLL while no change of mAP is detected. So their second half overfits as in lessons 02 and 04: the
ranking holds, and the probabilities become overconfident. With UD the NLL falls. Its teacher's answers are softer than the labels,
and keep the student from growing surer than its teacher was. Is the student exactly as sure as its teacher?
"""

# %%
say(f"Overconfidence on the test images, restart with UD minus epoch {HALF}: {in_units(both['overconfidence'])}, "
    f"**{both['overconfidence'].verdict}**.")
if both["overconfidence"].verdict == "lower":
    say("So the student is *less* sure than the network that taught it. A copy would not be. A student that does not arrive at its "
        "teacher is shrunk, as in section 5.")
    for name in [name for name in ("the teacher's sigmoids", "the calibration branch's terms") if name in parts]:
        found = parts[name]["overconfidence"]
        say(f"- What *{name}* add to that, over the arm without: {in_units(found)}, **{found.verdict}**.")
else:
    say("That a teacher's softness is handed on would show here as no difference.")

# %% [markdown]
r"""
Which epoch would a careful user keep?
"""

# %%
kept = {}
for name, found in again.items():
    where = np.array(curve(found, "mAP")[0])
    kept[name] = {"best by mAP": where[curve(found, "mAP")[1].argmax(1)], "best by NLL": where[curve(found, "NLL")[1].argmin(1)]}
table = pd.DataFrame({(name, by): [int(epoch) for epoch in values] for name, chosen in kept.items()
                      for by, values in chosen.items()}).T
table.columns = [f"seed {k}" for k in table.columns]
assert table.to_numpy().max() <= 2 * HALF
table

# %%
late = {name: {by: int((values > HALF).sum()) for by, values in chosen.items()} for name, chosen in kept.items()}
say("; ".join(f"*{name}*: in {found['best by mAP']} of {table.shape[1]} seeds the best validation mAP, and in {found['best by NLL']} "
              "the best validation NLL, lies in the second half" for name, found in late.items()) + ".")

# %% [markdown]
r"""
## 8. Fresh weights, or another teacher

Born-again networks start anew. The teacher is again the network of lesson 03 (40 epochs, λ = 0.1, same shape); the student starts from
random weights and learns 40 epochs from it, by KD (Eq. 13 alone) or by UD (Eq. 18). "Random" is a word to check: student and
teacher have the same seed here.
"""

# %%
born = {}
for who, lam in (("teacher", 0.1), ("student by KD", 0.0)):  # KD needs no calibration branch, so the student has none
    set_seed(0)
    born[who] = make_network(len(splits["train"].classes), lam, "small", embedding=once[0].recipe.embedding).state_dict()
assert len(born["student by KD"]) < len(born["teacher"])
assert all(torch.equal(value, born["teacher"][name]) for name, value in born["student by KD"].items())
print("one seed, one start: the born-again student sets out from where its teacher once set out")

# %% [markdown]
r"""
It sees the batches in the same order, too. So this is a second life with other labels. Beside it stands a **wider** teacher of
another architecture (hard labels, λ = 0.1), which lessons 05 and 07 are about, by KD and by UD. Rows by the same
loss differ in the teacher alone.
"""

# %%
wide = [load_or_run(chosen) for chosen in two_branch(0.1, network="small_wide")]
taught_by = {f"{name}, {terms}": (teacher, "small", terms) for name, teacher in
             (("born again", "small"), ("wider teacher", "small_wide")) for terms in ("KD", "UD")}
trained = {name: profile() == "smoke" or all(load(for_profile(chosen)) for chosen in pairs()[key])
          for name, key in taught_by.items()}
students = {name: [load_or_run(chosen) for chosen in pairs()[key]] for name, key in taught_by.items() if trained[name]}
others = {"restart, UD": again["UD"], **students}
if missing := [name for name in taught_by if not trained[name]]:
    say(f"Not trained yet, and left out below: {', '.join(missing)}. `udlib runs --only 'distilled/*'` trains what is missing.")

# %%
ASKED = ("mAP", "ECE_pooled", "true_CE_pooled", "NLL")
against = {name: {key: difference(score(found, key), score(once, key)) for key in ASKED} for name, found in others.items()}
pd.DataFrame({METRICS[key][0]: {f"{name} − 40 epochs": told(found[key], key) for name, found in against.items()}
              for key in ASKED})

# %%
shown = {"restart, hard labels": again["hard labels"], **others}
shown = {name: 100 * (score(found, "mAP") - score(once, "mAP")) for name, found in shown.items()}
near = {name: values for name, values in shown.items() if values.mean() > -5}  # the collapsed ones would set the scale
if near and np.isfinite(list(near.values())).all():
    show(plots.seed_intervals(near, "mAP minus that of 40 epochs, points", zero=True),
         "Paired differences in mAP from 40 epochs on hard labels, for each way to go on that did not collapse, five seeds")
if far := [f"*{name}* ({values.mean():+.1f} points)" for name, values in shown.items() if name not in near]:
    say(f"Left out, since they lie far to the left: {', '.join(far)}.")

# %%
needs = {"restart, hard labels": [again["hard labels"]], "restart, UD": [again["UD"]]}
needs |= {name: [once if name.startswith("born again") else wide, found] for name, found in students.items()}
say("Training time, with the teacher's, against that of 40 epochs: " + ", ".join(
    f"{name} × {np.median(cost(*groups)):.1f}" for name, groups in needs.items()) + ".")

# %%
LIKE = (("born again, KD", "restart, UD"), ("born again, UD", "restart, UD"), ("wider teacher, KD", "born again, KD"), ("wider teacher, UD", "restart, UD"))
versus = {}
for pair in (pair for pair in LIKE if set(pair) <= set(others)):
    said = versus[pair] = {key: difference(*(score(others[name], key) for name in pair)) for key in ("mAP", "ECE_pooled", "NLL")}
    say(f"- *{pair[0]}* minus *{pair[1]}*: mAP {in_units(said['mAP'])}, **{said['mAP'].verdict}**; pooled ECE "
        f"{in_units(said['ECE_pooled'])}, **{said['ECE_pooled'].verdict}**; NLL {in_units(said['NLL'], 1, 4, ' nats')}, "
        f"**{said['NLL'].verdict}**.")

# %% [markdown]
r"""
Mind what is alike and what is not. The restart goes on from trained weights, the born-again student starts from nothing: both have 80
epochs behind them in all, counting the teacher. *Born again, UD* against the restart differs in the start alone; *born again, KD* differs in
the loss too (Eq. 13 for Eq. 18). A student of the wider teacher has cost more, since a wide epoch takes longer.

## 9. Explore: two halves, five seeds

The figures above show all seeds at once. Here you see one run beside its counterpart: choose what the second half learns from, the
seed, and what is drawn. Look for a seed in which validation mAP and validation NLL would keep different epochs.
"""

# %%
from udlib.course.explorers import Explorer, Frame

DRAWN = {"validation mAP, per cent": ("mAP", 100), "validation NLL, nats": ("NLL", 1)}

# %%
def frame(second_half, seed, drawn):
    key, scale = DRAWN[drawn]
    lines = {name: (curve(found[seed:seed + 1], key)[0], scale * curve(found[seed:seed + 1], key)[1])
             for name, found in again.items() if name in ("hard labels", second_half)}
    run, (where, values) = again[second_half][seed], lines[second_half]
    best = where[int((values[0].argmax if key == "mAP" else values[0].argmin)())]
    readings = {"best epoch": str(best), f"at epoch {HALF}": f"{values[0][where.index(HALF)]:.3f}", "at the end": f"{values[0][-1]:.3f}"}
    readings |= {f"test {METRICS[k][0]}": f"{METRICS[k][1] * run.metrics['test'].get(k, np.nan):.{METRICS[k][2]}f}" for k in ASKED}
    alt = f"{drawn} with {second_half} in the second half, seed {seed}: " + ", ".join(f"{n} {v}" for n, v in readings.items())
    panels = {drawn: lines, "learning rate": {second_half: curve([run], "lr")}}
    return Frame(plots.trajectories(panels, "epoch", marks=[HALF]), alt, readings)

# %%
explorer = Explorer({"second half": list(again), "seed": list(range(len(once))), "drawn": list(DRAWN)}, frame,
                    start={"second half": "UD"}, note="Validation images every five epochs; readings on the test images.")
before = explorer.picture.value
explorer.move(drawn="validation NLL, nats")
assert explorer.picture.value != before and "test mAP" in explorer.readout.value
explorer.move(drawn="validation mAP, per cent")
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
same start, another teacher. The second half against the third is no test: it holds one more restart. If training longer is
all there is, all three arms end alike. If soft labels help but their source does not matter, (ii) and (iii) are alike and
above (i). Shrinkage predicts that each round acts as a stronger penalty: it helps as long as the network overfits, then it
harms, so there should be a last useful generation. Five seeds are paired.

</details>

## Summary

- Self-distillation takes the best self so far as the teacher. UD's protocol: hard labels, restart of the learning rate, Eq. 18.
- At student = teacher, Eq. 18 is 0 and so is its gradient in eval mode. Batch noise in train mode makes a small gradient, and a
  fresh Adam turns small gradients into full steps. The restart moves the student, the loss draws it back.
- In ridge regression, round $t$ shrinks a direction by $(d / (d + \lambda))^t$: a stronger regulariser. It helps a teacher that overfits,
  and much of it could be had by tuning the penalty.
- A teacher trained on the labels it is to improve has learned part of the annotator's coin by heart. Its soft labels are truer
  where the label was in doubt, and less true where it was not.
- A claim about distillation needs the control that trains as long, with the restart and without the teacher.

What we found:

- On `scenes` a restart alone raises the mAP by half a point, and makes the network much more overconfident.
- With UD after the restart the mAP rises by another half a point, and the calibration error ends below that of 40 epochs.
- A student that starts anew gains almost two points by KD from a teacher of its own size. By UD with the printed weights it
  loses twenty; lesson 07 says why.

The numbers behind these sentences:
"""

# %%
for name, found in effects.items():
    said = [f"mAP {in_units(found['mAP'])}, **{found['mAP'].verdict}**",
            f"pooled ECE {in_units(found['ECE_pooled'])}, **{found['ECE_pooled'].verdict}**",
            f"pooled true error {in_units(found['true_CE_pooled'])}, **{found['true_CE_pooled'].verdict}**",
            f"NLL {in_units(found['NLL'], 1, 4, ' nats')}, **{found['NLL'].verdict}**"]
    say(f"- {name}: {'; '.join(said)}.")
    wanted = {"restart − 40 epochs": "higher", "UD − restart": "lower", "UD − 40 epochs": "lower"}.get(name)
    assert profile() == "smoke" or not wanted or (found["mAP"].verdict, found["ECE_pooled"].verdict) == ("higher", wanted)
for name in students:
    say(f"- {name} − 40 epochs: mAP {in_units(against[name]['mAP'])}, **{against[name]['mAP'].verdict}**.")
if profile() != "smoke":
    assert against["born again, KD"]["mAP"].verdict == "higher" and against["born again, UD"]["mAP"].high < -0.15
say(f"- The teacher (seed 0) has learned {100 * memory['train'].estimate:.0f} % of the coin of its training labels by heart.")
say("- " + difference.count())

# %% [markdown]
r"""
One small network on small pictures, trained from nothing, says little about ResNet-101 fine-tuned on VOC2007. The *control* carries over:
lesson 11 shows how to run all three arms there.

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
- S. Stanton et al., *Does Knowledge Distillation Really Work?*, NeurIPS 2021: how seldom a student matches its teacher.
- R. Das and S. Sanghavi, *Understanding Self-Distillation in the Presence of Label Noise*, ICML 2023.
"""
