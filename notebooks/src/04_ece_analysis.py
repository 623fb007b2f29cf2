# %% [markdown]
r"""
# 04 · How calibrated? ECE and its traps

[← 03 · A second branch](03_pal_n_calibration.ipynb) · [05 · Knowledge distillation →](05_knowledge_distillation.ipynb)

**Aim.** You will know what calibration means, compute the error that measures it, and know five ways in which that
number misleads. Then you will hold the paper's claims about calibration, and the assumption behind them, against data
where the truth is known.

**Prerequisites.** Lessons 02 and 03: the baseline, the second branch at weight λ, the sweep over λ.

**Time.** About two hours with the exercises. The cells run in less than a minute: networks are loaded, not trained.
"""

# %% tags=["setup"]
import numpy as np
import pandas as pd
import torch
from IPython.display import display

from udlib import calibration, posthoc
from udlib.figures import plots
from udlib.calibration import expected_calibration_error, reliability_curve, true_calibration_error
from udlib.course.exercises import check, check_guess
from udlib.course.store import load_or_run, profile
from udlib.metrics import mean_average_precision
from udlib.figures.plots import show
from udlib.course.recipes import REGIMES, SEEDS, regimes, sweep, tricks
from udlib.course.sentences import difference, in_units, percent, say, spread, stored

# %% [markdown]
r"""
One line decides what this lesson looks at. Come back to it at the end, change it, and run everything again.
"""

# %% tags=["setup"]
DATA = "scenes"  # or "digits", or the path of a folder in VOC layout

# %% [markdown]
r"""
As before, sentences with numbers are written by code. A "point" is one per cent. A difference between two recipes is
**paired by seed** and comes with its 95 % t interval; if the interval holds 0, its verdict is "not detected".
"""

# %% [markdown]
r"""
## 1. First, a picture

We take the networks of lesson 03 and, from lesson 02, the baseline trained with CutOut. Each recipe has five seeds.
"""

# %%
runs = {lam: [load_or_run(chosen) for chosen in recipes] for lam, recipes in sweep(DATA).items()}
cutout = [load_or_run(chosen) for chosen in tricks(DATA)["both"]]
models = {"λ = 0": runs[0.0], "λ = 0.1": runs[0.1], "λ = 1": runs[1.0], "CutOut, λ = 0": cutout}
run = runs[0.0][0]  # the baseline, seed 0
test = run.labels()  # classes, targets, difficult, posterior
p, y = run.probabilities(), test.targets.double()  # (N, C)
truth = None if test.posterior is None else test.posterior.double()
assert p.shape == y.shape == (len(p), len(test.classes))

# %%
curves = {name: reliability_curve(models[name][0].probabilities(), y, average="pooled") for name in ("λ = 0", "λ = 0.1")}
show(plots.reliability(curves, "all labels of all test images, seed 0"),
     "Reliability diagram of the baseline and of λ = 0.1: share of positives over mean predicted probability in 15 bins")

# %% [markdown]
r"""
This is a **reliability diagram**. All predicted probabilities are sorted into 15 bins. Each point is a bin: how sure
the network was that a label is there (horizontal), and how often it was (vertical). On the diagonal 0.9 means 0.9.
Below it the network promises too much. The lower panel counts the entries of each bin; mind its logarithmic axis.

![Predictions are sorted into bins; each bin is a point at its mean probability and its share of positives, and the mean of the distances from the diagonal, weighted by the number of predictions, is the ECE.](images/reliability_bins.svg)

### Predict

The **expected calibration error** (ECE) is the mean distance of the points from the diagonal, weighted by the number
of entries. It can be taken over all labels at once (pooled), or for each class and then averaged (class-wise). Write
three guesses, in per cent. The third is the odd one: imagine a model with answers like these that is *perfectly*
calibrated, and judge it on 200 test images only. Its true error is 0. What will its class-wise ECE be?
"""

# %%
guess_pooled = ...  # the baseline's pooled ECE, in per cent; for example 10
guess_classwise = ...  # the baseline's class-wise ECE
guess_perfect = ...  # the class-wise ECE of a perfectly calibrated model on 200 images

# %% [markdown]
r"""
## 2. What perfect calibration is, and what it is not

The paper (UD) calls a model perfectly calibrated (Eq. 1) if

$$P(y_i = 1 \mid f_i = p) = p \quad \text{for all } p \in [0, 1].$$

Among all answers of 0.7, seven in ten come true. To see what this does and does not ask for, we build a world where
every chance is known, and let three forecasters loose in it. One always names the base rate. One knows each chance.
One knows each chance and exaggerates: it doubles the logit.
"""

# %%
def sigmoid(z):
    return 1 / (1 + np.exp(-z))


generator = np.random.default_rng(0)
logit = generator.normal(-1.5, 2.0, (100_000, 1))
chance = sigmoid(logit)  # the truth of this little world
happened = (generator.random(chance.shape) < chance).astype(float)
forecasters = {"base rate": np.full_like(chance, chance.mean()), "knows the chance": chance,
               "exaggerates": sigmoid(2 * logit)}

# %%
scores = pd.DataFrame({name: {"true error, %": 100 * true_calibration_error(f, chance),
                              "ECE, %": 100 * expected_calibration_error(f, happened),
                              "Brier": calibration.brier_score(f, happened),
                              "NLL, nats": calibration.negative_log_likelihood(f, happened)}
                       for name, f in forecasters.items()}).T
assert (scores["ECE, %"][:2] < 0.5).all() and scores["ECE, %"]["exaggerates"] > 3
assert scores["Brier"].idxmin() == scores["NLL, nats"].idxmin() == "knows the chance"
scores.round(3)

# %% [markdown]
r"""
ECE cannot tell the first forecaster from the second. Both keep their promises, but the first promises nothing: it
is calibrated and useless. **Calibration is not skill.** The Brier score (mean squared error of the probability) and
the NLL (mean log loss, Eq. 3 divided by $C$) see both. They are *proper* scores: on average nothing beats the true
chance.

Murphy (1973) took the Brier score apart. With $K$ groups of equal forecast $\bar f_k$, observed share $\bar y_k$,
weight $w_k$, and base rate $\bar y$:

$$\text{Brier} = \underbrace{\sum_k w_k (\bar f_k - \bar y_k)^2}_{\text{reliability}}
- \underbrace{\sum_k w_k (\bar y_k - \bar y)^2}_{\text{resolution}} + \underbrace{\bar y (1 - \bar y)}_{\text{uncertainty}}$$

The first term is calibration (low is good), the second is what the forecaster can tell apart (high is good), the
third belongs to the world. It is exact if all forecasts of a bin are equal, so we round each to the mean of its bin.
"""

# %%
def murphy(f, outcomes, bins=15):
    curve = reliability_curve(f, outcomes, bins, average="pooled")
    weight, rate = curve.count / curve.count.sum(), outcomes.mean()
    terms = {"reliability": (weight * curve.gap.nan_to_num(0) ** 2).sum().item(),
             "resolution": (weight * (curve.frequency.nan_to_num(rate) - rate) ** 2).sum().item(),
             "uncertainty": rate * (1 - rate)}
    rounded = curve.confidence.numpy()[np.minimum((f * bins).astype(int), bins - 1)]
    return terms | {"Brier, rounded": calibration.brier_score(rounded, outcomes)}


parts = pd.DataFrame({name: murphy(f, happened) for name, f in forecasters.items()}).T
assert np.allclose(parts["reliability"] - parts["resolution"] + parts["uncertainty"], parts["Brier, rounded"], atol=1e-5)
assert parts["resolution"]["exaggerates"] > 0.95 * parts["resolution"]["knows the chance"]
parts.round(4)

# %% [markdown]
r"""
The exaggerating forecaster ranks exactly as the one who knows, and its resolution is nearly as high. Only its
reliability suffers. Such an error can be repaired after training, as section 8 will do. A lack of resolution cannot.

## 3. ECE, by hand

Eq. 2 of the paper, and what one computes in its place. The inner expectation is over the bins $b$ of one class $c$,
with the share of positives $\bar y_{cb}$, the mean probability $\bar f_{cb}$, and $n_{cb}$ of the $N$ images:

$$\mathrm{ECE}(f) = \mathbb{E}_i\, \mathbb{E}_{f_i} \big|\, P(y_i = 1 \mid f_i) - f_i \,\big|
\;\approx\; \frac1C \sum_{c} \sum_b \frac{n_{cb}}{N} \big|\, \bar y_{cb} - \bar f_{cb} \,\big|$$

The pooled ECE drops the index $c$ and bins all $N C$ labels together. Here it is, a table with one row for each bin.
"""

# %%
entries = pd.DataFrame({"f": p.flatten(), "y": y.flatten()})
entries["bin"] = np.minimum((entries["f"] * 15).astype(int), 14)  # f = 1 belongs to the last bin
by_bin = entries.groupby("bin").agg(n=("y", "size"), f=("f", "mean"), y=("y", "mean"))
by_bin["weight"] = by_bin["n"] / by_bin["n"].sum()
by_bin["gap"] = (by_bin["y"] - by_bin["f"]).abs()
pooled_by_hand = (by_bin["weight"] * by_bin["gap"]).sum()
assert np.isclose(pooled_by_hand, expected_calibration_error(p, y, average="pooled"), atol=1e-6)
by_bin.round(4)

# %% [markdown]
r"""
Mind what is binned: $f$ = P(y = 1), from 0 to 1. Work on single-label networks bins the confidence in the *decision*,
$\max(f, 1 - f)$, against the share of right decisions. That folds the diagram at ½: a no of 0.1 and a yes of 0.9 fall
into one bin, where their errors may cancel. So the folded error is never larger.
"""

# %%
folded = expected_calibration_error(torch.maximum(p, 1 - p), ((p >= 0.5) == y.bool()).double(), average="pooled")
assert folded <= pooled_by_hand + 1e-3
print(f"pooled ECE of P(y = 1): {100 * pooled_by_hand:.2f} %   folded: {100 * folded:.2f} %")

# %% [markdown]
r"""
### Exercise 04.1

Write the class-wise ECE for tensors `probabilities` and `targets` of shape (N, C), with `bins` bins of equal width
over [0, 1]. Skip empty bins. A probability of exactly 1 belongs to the last bin.
"""

# %% exercise="04.1"
def my_ece(probabilities, targets, bins):
    return ...

# %% solution="04.1"
def my_ece(probabilities, targets, bins):
    which = (probabilities * bins).long().clamp(max=bins - 1)
    error = 0.0
    for b in range(bins):
        inside = which == b
        count = inside.sum(0)
        gap = ((targets - probabilities) * inside).sum(0).abs() / count.clamp(min=1)
        error = error + count / len(probabilities) * gap
    return error.mean()

# %% mistake="04.1" says="unweighted mean over the bins"
def my_ece(probabilities, targets, bins):
    which = (probabilities * bins).long().clamp(max=bins - 1)
    errors = []
    for f, y, w in zip(probabilities.T, targets.T, which.T):
        gaps = [(y[w == b].double().mean() - f[w == b].mean()).abs() for b in w.unique()]
        errors.append(sum(gaps) / len(gaps))
    return sum(errors) / len(errors)

# %% mistake="04.1" says="cancel"
def my_ece(probabilities, targets, bins):
    which = (probabilities * bins).long().clamp(max=bins - 1)
    errors = []
    for f, y, w in zip(probabilities.T, targets.T, which.T):
        gaps = [(w == b).double().mean() * (y[w == b].double().mean() - f[w == b].mean()) for b in w.unique()]
        errors.append(sum(gaps).abs())
    return sum(errors) / len(errors)

# %% mistake="04.1" says="max(p, 1 − p)"
def my_ece(probabilities, targets, bins):
    confidence, right = torch.maximum(probabilities, 1 - probabilities), (probabilities >= 0.5) == targets.bool()
    return expected_calibration_error(confidence, right.int(), bins)

# %% mistake="04.1" says="NaN"
def my_ece(probabilities, targets, bins):
    which = (probabilities * bins).long().clamp(max=bins - 1)
    error = 0.0
    for b in range(bins):
        inside = (which == b).double()
        gap = ((inside * targets).sum(0) / inside.sum(0) - (inside * probabilities).sum(0) / inside.sum(0)).abs()
        error = error + inside.mean(0) * gap
    return error.mean()

# %% mistake="04.1" says="pooled"
def my_ece(probabilities, targets, bins):
    return expected_calibration_error(probabilities, targets, bins, average="pooled")

# %% mistake="04.1" says="exactly 1"
def my_ece(probabilities, targets, bins):
    error = 0.0
    for b in range(bins):
        inside = (probabilities >= b / bins) & (probabilities < (b + 1) / bins)
        error = error + ((targets - probabilities) * inside).sum(0).abs() / len(probabilities)
    return error.mean()

# %%
check("04.1", my_ece)

# %% [markdown]
r"""
The baseline's two errors, over five seeds. The library agrees with the numbers that were stored with the runs.
"""

# %%
pooled, classwise = stored(runs[0.0], "ECE_pooled"), stored(runs[0.0], "ECE")
assert np.isclose(classwise[0], expected_calibration_error(p, y)) and np.isclose(pooled[0], pooled_by_hand, atol=1e-6)
say(f"**The baseline's ECE: {spread(pooled)} % pooled, {spread(classwise)} % class-wise.**")
check_guess("pooled ECE", guess_pooled, 100 * pooled.mean(), " %")
check_guess("class-wise ECE", guess_classwise, 100 * classwise.mean(), " %")

# %% [markdown]
r"""
## 4. Five traps

### Trap 1: pooling lets errors cancel

Two classes, ten images. The model says 0.6 to everything. The first class comes true 8 times in 10, the second 4
times in 10.
"""

# %%
says = torch.full((10, 2), 0.6, dtype=torch.float64)
marks = torch.tensor([[1.0, 1.0]] * 4 + [[1.0, 0.0]] * 4 + [[0.0, 0.0]] * 2)
both_ways = {average: expected_calibration_error(says, marks, average=average) for average in ("pooled", "classwise")}
assert np.isclose(both_ways["pooled"], 0) and np.isclose(both_ways["classwise"], 0.2)
{average: round(error, 6) for average, error in both_ways.items()}

# %% [markdown]
r"""
One class is promised too little, the other too much, and the pooled error is zero. With bins of equal width the
pooled ECE is *never* above the class-wise one: that is the triangle inequality. Do our classes err in different
directions? The lines join what the baseline says on average to what is true.
"""

# %%
for found in models.values():
    assert (stored(found, "ECE_pooled") <= stored(found, "ECE") + 1e-9).all()  # the triangle inequality
said_mean = torch.stack([r.probabilities().mean(0) for r in runs[0.0]]).mean(0)  # over seeds, a value for each class
excess = said_mean - y.mean(0)
rows = excess.argsort(descending=True).tolist()
show(plots.dots([test.classes[k] for k in rows], {"mean probability": 100 * said_mean[rows],
                                                  "share of positives": 100 * y.mean(0)[rows]},
                "per cent of the test images", "what the baseline says and what is true, mean over seeds"),
     "For each class the mean predicted probability and the share of positives on the test images")

# %%
signs = f"{int((excess > 0).sum())} of {len(excess)} classes get too much probability on average, the others too little"
floors = {average: np.mean([calibration.calibration_noise(r.probabilities(), samples=5, average=average)
                            for r in runs[0.0]]) for average in ("pooled", "classwise")}
say(f"{signs}. Pooled ECE {percent(pooled.mean())}, class-wise {percent(classwise.mean())}. Not all of this difference is "
    f"cancelling: a perfectly calibrated model would show {percent(floors['pooled'])} and {percent(floors['classwise'])}, "
    "because each class alone has fewer labels to estimate from (trap 4).")

# %% [markdown]
r"""
### Trap 2: easy negatives

Most labels of most images are absent, and the network knows. These easy noes fill the first bin, and their gap is
small because there is little room below 0.05. (Small in points: saying 0.01 where 0.02 is true is off by half. ECE
does not see that, NLL does.) With 20 bins, 0.05 and 0.5 are edges.
"""

# %%
curve = reliability_curve(p, y, bins=20, average="pooled")
share, gaps = curve.count / curve.count.sum(), curve.gap.nan_to_num(0)
groups = {"p < 0.05": slice(0, 1), "0.05 to 0.5": slice(1, 10), "p ≥ 0.5": slice(10, 20)}
table = pd.DataFrame({name: {"share of labels, %": 100 * share[of].sum().item(),
                             "mean gap, %": 100 * (share[of] * gaps[of]).sum().item() / max(share[of].sum().item(), 1e-9),
                             "part of the ECE, points": 100 * (share[of] * gaps[of]).sum().item()}
                      for name, of in groups.items()}).T
assert np.isclose(table["share of labels, %"].sum(), 100) and np.isclose(
    table["part of the ECE, points"].sum(), 100 * expected_calibration_error(p, y, 20, "pooled"))
table.round(2)

# %%
confident = stored(runs[0.0], "ECE_confident")
say(f"{percent(share[0].item())} of the labels lie below 0.05. The gap among the confident yeses (p ≥ 0.5) is "
    f"{spread(confident)} %, that of all labels {spread(pooled)} %. Add a thousand classes that never occur and are never "
    "predicted: the second number goes towards zero, and the first stays.")

# %% [markdown]
r"""
`confident_calibration_error` looks at $p \ge 0.5$ alone. Which of the two matters depends on the use: a photo search
shows you the confident yeses.

### Trap 3: the bins

Inside a bin, errors cancel as well. Wide bins hide them, so splitting bins can only raise the estimate; but narrow
bins hold few labels, and then it rises from noise. Equal **width** leaves most bins nearly empty; equal **mass** puts
the same number of labels into each. A library's default is a choice, so say which one you use.
"""

# %%
BINS = (5, 10, 15, 20, 30, 50, 100)
by_bins = {f"equal {binning}": [100 * np.mean([expected_calibration_error(r.probabilities(), y, b, binning=binning)
                                               for r in runs[0.0]]) for b in BINS] for binning in ("width", "mass")}
by_bins["perfect model, width"] = [100 * calibration.calibration_noise(p, samples=5, bins=b) for b in BINS]
show(plots.lines(BINS, by_bins, "number of bins", "class-wise ECE, per cent", "the same networks, other bins"),
     "Class-wise ECE against the number of bins, for equal width and equal mass, and for a perfectly calibrated model")

# %%
nested = [by_bins["equal width"][BINS.index(b)] for b in (5, 10, 50, 100)]  # each splits the bins before it
assert np.all(np.diff(nested) >= -1e-9)
moved = {name: max(values) - min(values) for name, values in by_bins.items()}
say(f"From {BINS[0]} to {BINS[-1]} bins of equal width, the estimate moves by {moved['equal width']:.2f} points, and that of "
    f"a perfectly calibrated model by {moved['perfect model, width']:.2f}. With equal mass it moves by "
    f"{moved['equal mass']:.2f}. The networks are the same throughout.")

# %% [markdown]
r"""
### Trap 4: few images

A class that occurs five times in a bin of ten is far from its 0.6 by chance alone, and ECE takes the *absolute* gap,
so chance never averages out. How much is that? Draw labels from the model's own probabilities. For these labels the
model is perfectly calibrated by construction, and whatever ECE it shows is noise. That is `calibration_noise`.
"""

# %%
draw = torch.bernoulli(p, generator=torch.Generator().manual_seed(0))  # one set of labels from the model's own answers
print(f"labels drawn: ECE {100 * expected_calibration_error(p, draw):.2f} %   "
      f"real labels: ECE {100 * expected_calibration_error(p, y):.2f} %")

# %%
sizes = [len(p) // k for k in (32, 16, 8, 4, 2, 1)]
generator = np.random.default_rng(1)
few = {name: [] for name in ("baseline", "perfect model", *["baseline, posterior for labels"] * (truth is not None))}
for size in sizes:
    picks = [torch.from_numpy(generator.choice(len(p), size, replace=False)) for _ in range(20)]
    few["baseline"].append(100 * np.mean([expected_calibration_error(p[i], y[i]) for i in picks]))
    few["perfect model"].append(100 * np.mean([calibration.calibration_noise(p[i], samples=1, seed=k)
                                                     for k, i in enumerate(picks)]))
    if truth is not None:
        errors = [true_calibration_error(p[i], truth[i]) for i in picks]
        few["baseline, posterior for labels"].append(100 * np.mean(errors))
show(plots.lines(sizes, few, "test images", "class-wise ECE, per cent", "the same network on fewer images"),
     "Class-wise ECE against the number of test images, for the baseline and for a perfectly calibrated model")

# %%
assert few["perfect model"][0] > 2 * few["perfect model"][-1]  # noise shrinks with the number of images
some = [torch.from_numpy(generator.choice(len(p), min(200, len(p)), replace=False)) for _ in range(20)]
perfect = np.mean([calibration.calibration_noise(p[i], samples=1, seed=k) for k, i in enumerate(some)])
above = "more" if perfect > classwise.mean() else "less"
say(f"On {len(some[0])} images a perfectly calibrated model shows a class-wise ECE of **{percent(perfect)}**: {above} than "
    f"the baseline on all {len(p):,} images ({percent(classwise.mean())}). From {sizes[0]} to {sizes[-1]:,} images the noise "
    f"shrinks by a factor of {few['perfect model'][0] / few['perfect model'][-1]:.1f}; $1/\\sqrt{{N}}$ would give "
    f"{32 ** 0.5:.1f}.")
check_guess("perfect model on 200 images", guess_perfect, 100 * perfect, " %")

# %% [markdown]
r"""
So an ECE needs its noise level beside it, and two ECEs from test sets of different size cannot be compared. Do not
simply subtract the noise, though: a bin with a real gap gains far less from noise than a bin without one, because its
sign no longer flips.

If the truth is known, the third line puts the posterior in place of the labels. It falls with $N$ as well. Keep this
in mind for section 5.

### Trap 5: intervals, and the largest gap

A bootstrap interval should hold the truth in 95 of 100 cases. For ECE the usual one, the **percentile** interval,
does not: resampling adds noise to an estimate that is already too high from noise. The **basic** interval reflects
the resampled values about the estimate and so corrects the bias once. We try both 100 times each in a world where
the true error is known: 500 images, 10 classes.
"""

# %%
def world(images, sharpness, generator):
    """Forecasts and chances; sharpness 1 is perfect calibration, 2 exaggerates."""
    logit = generator.normal(-2, 2, (images, 10))
    return sigmoid(sharpness * logit), sigmoid(logit)


def once(sharpness, seed):
    """Estimate, percentile and basic interval on 500 fresh images; one bootstrap serves both."""
    generator = np.random.default_rng(seed)
    f, chance = world(500, sharpness, generator)
    marks = generator.random(f.shape) < chance
    estimate, low, high = calibration.calibration_interval(expected_calibration_error, f, marks, samples=200, seed=seed,
                                                           kind="percentile", average="pooled")
    return estimate, low, high, max(0, 2 * estimate - high), max(0, 2 * estimate - low)

# %%
coverage = {}
for name, sharpness in (("perfect", 1.0), ("a little too sure", 1.25), ("far too sure", 2.0)):
    known = true_calibration_error(*world(100_000, sharpness, np.random.default_rng(0)), average="pooled")
    found = np.array([once(sharpness, seed) for seed in range(100)])
    holds = [(found[:, k] <= known) & (known <= found[:, k + 1]) for k in (1, 3)]
    coverage[name] = {"true error, %": 100 * known, "mean estimate, %": 100 * found[:, 0].mean(),
                      "percentile holds it, %": 100 * holds[0].mean(), "basic holds it, %": 100 * holds[1].mean(),
                      "basic lies below its estimate, %": 100 * (found[:, 4] < found[:, 0]).mean()}
coverage = pd.DataFrame(coverage).T
assert coverage["mean estimate, %"]["perfect"] > 0.5 + coverage["true error, %"]["perfect"]  # biased upwards
assert (coverage["basic holds it, %"][:2] > coverage["percentile holds it, %"][:2] + 10).all()
assert coverage["basic holds it, %"]["perfect"] < 80  # and still no 95 % interval
coverage.round(1)

# %% [markdown]
r"""
(A share from 100 trials is itself uncertain by some points.) Neither deserves the name "95 %" near perfect
calibration. Basic is much the better of the two there; far from it they come closer. Do not be surprised by a basic
interval that lies *wholly below* its estimate: the estimate is biased upwards, and that is the correction at work.
The noise level belongs beside either. For the baseline:
"""

# %%
rows = {}
for average in ("pooled", "classwise"):
    for kind in ("percentile", "basic"):
        found = calibration.calibration_interval(expected_calibration_error, p, y, samples=300, kind=kind, average=average)
        rows[average, kind] = {"ECE, %": 100 * found.estimate, "low": 100 * found.low, "high": 100 * found.high,
                               "a perfect model, %": 100 * calibration.calibration_noise(p, samples=10, average=average)}
intervals = pd.DataFrame(rows).T
outside = [" ".join(name) for name, row in intervals.iterrows() if not row["low"] <= row["ECE, %"] <= row["high"]]
display(intervals.round(2))
say(f"Intervals that leave out their own estimate: {', '.join(outside) or 'none'}.")

# %% [markdown]
r"""
The **maximum calibration error** takes the largest gap in place of the mean. That sounds strict, but the more bins,
the more often a sparse one decides, by luck. Compare it with what a perfectly calibrated model would show.
"""

# %%
coin = torch.Generator().manual_seed(1)


def largest(bins):
    curve = reliability_curve(p, y, bins, "pooled")
    draws = [torch.bernoulli(p, generator=coin) for _ in range(10)]
    perfect = np.mean([calibration.maximum_calibration_error(p, labels, bins, "pooled") for labels in draws])
    return {"bins": bins, "largest gap, %": 100 * calibration.maximum_calibration_error(p, y, bins, "pooled"),
            "a perfect model, %": 100 * perfect, "labels in that bin": int(curve.count[curve.gap.nan_to_num(0).argmax()]),
            "labels in all": p.numel()}


pd.DataFrame([largest(bins) for bins in (5, 15, 50, 200)]).round(1)

# %% [markdown]
r"""
## 5. The truth

In `scenes` and `digits` the annotator is simulated, so P(y = 1 | scene) is known exactly: the **posterior**. With it
in place of the labels, the *true calibration error* compares promise and chance with no annotator's coin in between.
How far are the estimates from it, for every λ and every seed?
"""

# %%
trained = [r for found in runs.values() for r in found]
if truth is None:
    say("These data come without a posterior: nobody knows their true calibration error, and this section stays empty.")
else:
    pairs = {name: (100 * stored(trained, f"true_CE{suffix}"), 100 * stored(trained, f"ECE{suffix}"))
             for name, suffix in (("class-wise", ""), ("pooled", "_pooled"))}
    show(plots.scatter(pairs, "true calibration error, per cent", "estimated ECE, per cent",
                       f"{len(trained)} networks: every λ, every seed"),
         "Estimated ECE over true calibration error, pooled and class-wise, one point for each trained network")

# %%
if truth is not None:
    assert np.isclose(true_calibration_error(p, truth), run.metrics["test"]["true_CE"])
    over = {name: estimate - real for name, (real, estimate) in pairs.items()}
    coins = calibration.expected_brier_floor(truth) / (by_bin["weight"] * by_bin["y"] * (1 - by_bin["y"])).sum()
    say("The estimate is above the truth in " + " and in ".join(
        f"{(d > 0).sum()} of {len(d)} networks ({name}, on average {d.mean():+.2f} points)" for name, d in over.items())
        + ". These are not independent trials: one and the same set of labels judges all networks.")
    say(f"Estimate and truth share {'most' if coins < 0.5 else 'some'} of their noise. Of the variance of the labels within "
        f"the bins, the annotator's coin is {percent(coins)}. The rest is which images happen to be in the test set, and the "
        "posterior does not remove it.")

# %% [markdown]
r"""
That is why the third line of trap 4 fell with $N$. "True" means: true for *these* images. It is the error without
label noise, not the error on endless data.

The posterior also gives **floors**: the NLL and the Brier score that no predictor can undercut on average, because
the annotator's coin cannot be foreseen. How much of the baseline's score is unavoidable?
"""

# %%
floor = {}
if truth is not None:
    floor = {"NLL": calibration.expected_nll_floor(truth), "Brier": calibration.expected_brier_floor(truth)}
    assert np.isclose(floor["NLL"], run.metrics["test"]["NLL_floor"])
    for name, value in floor.items():
        ideal = {"NLL": torch.distributions.Bernoulli(truth).entropy(), "Brier": truth * (1 - truth)}[name]
        assert np.isclose(value, ideal.mean(), atol=1e-5)
    display(pd.DataFrame({name: {"baseline": spread(stored(runs[0.0], name), 1, 4), "floor": f"{value:.4f}",
                                 "floor / baseline, %": f"{100 * value / stored(runs[0.0], name).mean():.0f}"}
                          for name, value in floor.items()}).T)

# %% [markdown]
r"""
The floor is for someone who knows the whole scene. A picture of a few thousand pixels shows less, so expect even the
best network to stay above it. Section 8 will tell how much of the distance is calibration.

## 6. Assumption 1

Why should PAL-N, which knows nothing of calibration, improve it? The paper's argument rests on an assumption (Eq. 8).
If image 1 has at least as many labels as image 2, then for every class $i$

$$P\big( \mathbb{E}[y_{1,i} = 1 \mid f_i(x_1)] \le \mathbb{E}[y_{2,i} = 1 \mid f_i(x_2)] \big) \ge 0.5.$$

In words: *at like confidence, an answer is less often right on an image with more labels*, since many labels mean
small, occluded, difficult objects. That sounds plausible and can be tested. The naive test: sort the answers by the
image's number of labels $\sum_j y_j$, and compare the share of positives.

First in a world without any such effect: 16 independent labels, each with chance 0.12, and a model that always says
0.12. It is perfectly calibrated, and no image is harder than another.
"""

# %%
independent = (torch.rand(200_000, 16, generator=torch.Generator().manual_seed(0)) < 0.12).double()


def others(labels):
    """For each label, the number of OTHER labels of the same image, (N, C)."""
    return labels.sum(1, keepdim=True) - labels


def shares(labels, counts):
    """Share of positives among all labels whose image has that count: 0, 1, … 4."""
    return [labels[counts == k].mean().item() for k in range(5)]

# %%
naive = shares(independent, independent.sum(1, keepdim=True).expand_as(independent))
stratified = shares(independent, others(independent))
assert np.allclose(naive, np.arange(5) / 16)  # exactly k of 16 labels are positive where k are positive
assert np.allclose(stratified, 0.12, atol=0.005)  # no effect
show(plots.lines(range(5), {"all labels of the image": naive, "the other labels only": stratified,
                            "what the model says": [0.12] * 5}, "number of labels counted", "share of positives",
                 "independent labels, a calibrated constant model"),
     "Share of positives rises with the number of all labels and stays flat with the number of other labels")

# %% [markdown]
r"""
The naive test finds a strong effect, of the *opposite* sign, in a world that has none. The reason is plain: $y_i$ is
itself part of the count. An image with many labels is an image where $y_i = 1$ more often, however sure the model
was. Counting only the **other** labels, $\sum_{j \ne i} y_j$, removes this, and the effect is gone.

Now the real networks. Among confident answers ($f \ge 0.5$), in ten bins of $f$, we compare the share of positives
on images with many ($\ge 3$) and with few (0 or 1) other labels, bin by bin, weighted by the number of answers with
many.
"""

# %%
def at_like_confidence(f, outcomes, crowded, sparse, bins=20, minimum=0.5):
    """Mean outcome where `crowded` minus where `sparse`, within bins of f, weighted by the crowded entries."""
    which = (f * bins).long().clamp(max=bins - 1)
    steps, weights = [], []
    for b in which[f >= minimum].unique():
        here = (which == b) & (f >= minimum)
        many, few_ = outcomes[here & crowded], outcomes[here & sparse]
        if len(many) and len(few_):
            steps.append((many.mean() - few_.mean()).item())
            weights.append(len(many))
    return np.average(steps, weights=weights) if steps else np.nan

# %%
total = y.sum(1, keepdim=True).expand_as(y)
strata = {"all labels": (total >= 3, total <= 1), "other labels": (others(y) >= 3, others(y) <= 1)}
effect = {name: [at_like_confidence(r.probabilities(), y, *split) for r in runs[0.0]] for name, split in strata.items()}
tests = {name: difference(values, np.zeros(len(values))) for name, values in effect.items()}
display(pd.DataFrame({name: {"share right, many minus few": in_units(found), "verdict": found.verdict}
                      for name, found in tests.items()}).T)

# %%
crowded, sparse = strata["other labels"]
both = {name: reliability_curve(p, y, 10, "pooled", ignore=~of) for name, of in (("0 or 1 other labels", sparse),
                                                                               ("3 or more", crowded))}
show(plots.reliability(both, "the baseline, by the number of other labels", smallest=20),
     "Reliability curves of the baseline for labels with few and with many other labels on the image")

# %% [markdown]
r"""
Before we believe the second row, we ask what it would show for models that are calibrated for sure. Two are at hand.
One always says its class's base rate on the test images. The other, if the posterior is known, says the posterior
itself: no network can know more than it does.
"""

# %%
controls = {"base rate of the class": (y.mean(0).expand_as(y), 0.0)} | ({} if truth is None else {"posterior": (truth, 0.5)})
assert expected_calibration_error(y.mean(0).expand_as(y), y) < 1e-6  # perfectly calibrated on these images
# bins so narrow that every value of these models stands alone
control = pd.DataFrame({name: {f"by {counted}": 100 * at_like_confidence(f, y, *split, bins=1000, minimum=minimum)
                               for counted, split in strata.items()} for name, (f, minimum) in controls.items()}).T
for counted in strata:
    control.loc["baseline", f"by {counted}"] = 100 * np.mean(effect[counted])
control.round(1)

# %%
told = control.loc["base rate of the class", "by other labels"]
say("In points, many minus few. The base-rate model (among all its answers, since none is confident) is perfectly calibrated "
    f"in the sense of Eq. 1, and its labels still come true {abs(told):.1f} points {'less' if told < 0 else 'more'} often "
    "where there are many others.")
if truth is not None:
    by_others, by_all = control.loc["posterior", "by other labels"], control.loc["posterior", "by all labels"]
    say(f"For the posterior the other labels make a difference of {by_others:+.1f} points: given the scene, the annotator "
        f"marks each object for itself. By *all* labels even this model shows {by_all:+.1f}.")

# %% [markdown]
r"""
The labels of a real data set are not independent. A picture has room for a few objects, which makes one more less
likely where three others are marked; things that belong together make it more likely. Either way the other labels
carry information that a model may lack, and calibration (Eq. 1) does not ask it to have it. And where a false alarm
is another object taken for this one, the right label stands among the others and raises their number. Stratifying
by other labels is free of one confounder, not of all.

A third way uses no labels for sorting: the number of other labels that the network *itself* expects, $\sum_{j \ne i}
f_j$ (above 2.5 against below 1.5). If a model is calibrated given all its own answers, this makes no difference. And
with the posterior in place of the labels, we can ask about chances. In all rows the confidence is alike, so a lower
share right means more overconfidence.
"""

# %%
def own_count(r, outcomes):
    f = r.probabilities()
    return at_like_confidence(f, outcomes, others(f) >= 2.5, others(f) <= 1.5)


asked = {"by other labels": tests["other labels"],
         "by the network's own count": difference([own_count(r, y) for r in runs[0.0]], np.zeros(len(SEEDS)))}
if truth is not None:
    asked["by other labels, posterior"] = difference([at_like_confidence(r.probabilities(), truth, *strata["other labels"])
                                                      for r in runs[0.0]], np.zeros(len(SEEDS)))
    asked["own count, posterior"] = difference([own_count(r, truth) for r in runs[0.0]], np.zeros(len(SEEDS)))
for name, found in asked.items():
    say(f"- *{name}*: {in_units(found)}: on crowded images the share right is **{found.verdict}**")
assert {found.verdict for found in asked.values()} == {"lower"} or profile() == "smoke" or DATA != "scenes"

# %% [markdown]
r"""
What can be concluded? All four rows say "lower": at the same confidence, this network's confident answers are less often right
in crowded pictures, and not only because of how we sorted. That supports the *spirit* of Assumption 1 on these data. It does
not show that difficulty is the cause, nor that Eq. 8 holds for every class,
every model and every data set.

Read word for word, Eq. 8 even says something else: the expectation *given* $f_i$ is a function of $f_i$ alone. If
it rises with $f_i$, as any useful network's does, the claim is that $f_i$ itself tends to be no higher on the image
with more labels. We draw pairs of images, for each class:
"""

# %%
first, second = torch.randint(len(p), (2, 100_000), generator=torch.Generator().manual_seed(0))


def literal(counts):
    """For each class, how often f_i(x1) ≤ f_i(x2) where image 1 counts at least as many labels as image 2."""
    held = (p[first] <= p[second]) & (counts[first] >= counts[second])
    return held.sum(0) / (counts[first] >= counts[second]).sum(0)


for name, counts in (("all labels", total), ("other labels", others(y))):
    values = literal(counts)
    say(f"- Counting *{name}*: at least half of the pairs in {int((values >= 0.5).sum())} of {len(values)} classes (from "
        f"{percent(values.min().item())} to {percent(values.max().item())}).")

# %% [markdown]
r"""
Does the branch act where the assumption says? Then the loss of share right on crowded images should shrink with λ. Five seeds
detect no such change:
"""

# %%
narrowed = {}
for name in ("λ = 0.1", "λ = 1"):
    values = [at_like_confidence(r.probabilities(), y, *strata["other labels"]) for r in models[name]]
    narrowed[name] = difference(np.abs(values), np.abs(effect["other labels"]))
    say(f"- {name}: the size of the effect changes by {in_units(narrowed[name])}: **{narrowed[name].verdict}**")

# %% [markdown]
r"""
**From Eq. 8 to ECE.** The paper's next step (Eq. 9) writes the PAL-N risk with an $\ell_1$ loss and observes: where
many labels are, its target $P(y_i{=}1|x) \cdot \mathbb{E}[1/(1+\sum_{j\ne i} y_j)]$ is small, so $f_i$ is pulled
down. By Assumption 1, the share right is lower there too, so a lower $f_i$ means a lower ECE. The two have, in the
paper's words, "similar regularization of $f_i$". That is a heuristic, and it is fair to take it as one. It gives a
direction and not a size: the factor ½ for two labels has nothing to do with how much less often answers are right.
And the $f$ of the argument is the second branch's softmax, while the ECE we measure is that of the sigmoid branch,
which shares only the backbone. So whether it works is a question for experiments.

## 7. The paper's Fig. 3, with error bars

Fig. 3 of the paper compares confidence and accuracy with and without the branch; its text gives neither numbers nor
error bars for it. Here is our version with five seeds, among all confident yeses ($p \ge 0.5$).
"""

# %%
def yes(r, outcomes):
    """Mean confidence and share right among p ≥ 0.5; NaN where there is none."""
    f = r.probabilities()
    return [values[f >= 0.5].mean().item() for values in (f, outcomes)]


fig3 = {name: np.array([yes(r, y) for r in found]) for name, found in models.items()}
assert np.allclose(fig3["λ = 0"][:, 0] - fig3["λ = 0"][:, 1], stored(runs[0.0], "overconfidence"), equal_nan=True)
show(plots.interval_bars(list(fig3), {label: [100 * values[:, k] for values in fig3.values()] for k, label in
                                      enumerate(("mean confidence", "share right"))},
                         "per cent of the answers with p ≥ 0.5", "confidence and accuracy, five seeds"),
     "Mean confidence and share right among confident answers for λ = 0, 0.1, 1 and for CutOut, with 95 % intervals")

# %%
shrunk = {name: difference(stored(found, "overconfidence"), stored(runs[0.0], "overconfidence"))
          for name, found in models.items() if name != "λ = 0"}
say(f"The baseline's gap is {spread(stored(runs[0.0], 'overconfidence'))} points. Its change against the baseline:")
for name, found in shrunk.items():
    say(f"- {name}: {in_units(found)}: **{found.verdict}**")

# %% [markdown]
r"""
**Think:** the gap compares means over *different* sets of answers, since each network chooses its own yeses. How
could a network narrow the gap without changing a single probability above 0.6?

<details><summary>Answer</summary>
It could push answers between 0.5 and 0.6 below 0.5. They are then no longer among its yeses. If these were right less often
than they claimed, by more than the others, the gap of the remaining ones is smaller.
</details>

## 8. Calibration after training

The rival of any loss that calibrates is a repair afterwards: fit a small map from logits to probabilities on the
**validation** images, and leave the network alone. From stiff to flexible:

- `temperature`: $\sigma(z / T)$, one $T$ for all classes (Guo et al., 2017); `label-temperature`: one for each class;
- `platt`: $\sigma(a z + c)$ for each class; `beta`: three numbers for each class (Kull et al., 2017);
- `isotonic`: any rising line, for each class.

The rule of the house: fit on validation, report on test. The library refuses anything else.
"""

# %%
try:
    run.recalibrated("temperature", fit_on="test")
except ValueError as error:
    print("refused:", error)
else:
    raise AssertionError("a calibrator that is fitted on the images that judge it must be refused")

# %% [markdown]
r"""
A class without a positive on validation gives nothing to fit. It keeps its sigmoid, and the calibrator says so.
Here the second of two classes:
"""

# %%
import warnings

with warnings.catch_warnings(record=True) as heard:
    warnings.simplefilter("always")
    toy = posthoc.fit_label_temperature([[2.0, -1.0], [1.0, -3.0], [-1.0, -2.0], [3.0, 0.0]], [[1, 0], [0, 0], [0, 0], [1, 0]])
assert toy.fallbacks == (1,) and toy.temperatures[1] == 1.0 and len(heard) == 1
print("fallbacks:", toy.fallbacks, "  warning:", heard[0].message)

# %% [markdown]
r"""
Which temperatures come out? $T > 1$ divides logits that were too large: the network was too sure. $T < 1$ would
mean too timid.
"""

# %%
temperatures = {name: [posthoc.fit_temperature(r.val_logits, r.labels("val").targets).temperatures[0] for r in found]
                for name, found in models.items()}
again = torch.sigmoid(run.test_logits.double() / temperatures["λ = 0"][0])
assert torch.allclose(run.recalibrated("temperature"), again)
show(plots.seed_intervals(temperatures, "temperature T", "fitted on validation, five seeds (ticks), 95 % intervals"),
     "Temperatures of the four recipes with 95 % intervals over seeds")

# %%
KINDS = ["none", *posthoc.CALIBRATORS]
SCORES = ["ECE pooled, %", "ECE class-wise, %", "NLL, nats", "mAP, %"] + ["true error class-wise, %"] * (truth is not None)


def judged(r, kind):
    q = r.probabilities() if kind == "none" else r.recalibrated(kind)
    found = [100 * expected_calibration_error(q, y, average="pooled"), 100 * expected_calibration_error(q, y),
             calibration.negative_log_likelihood(q, y), 100 * mean_average_precision(q, y, test.difficult)]
    return found + ([] if truth is None else [100 * true_calibration_error(q, truth)])


after = {name: np.array([[judged(r, kind) for r in found] for kind in KINDS]) for name, found in models.items()}
assert np.allclose(after["λ = 0"][0, :, 0], 100 * pooled)  # models → (kinds, seeds, scores)

# %%
def column(name, kind, score):
    """The five seeds' values of one model after one repair."""
    return after[name][KINDS.index(kind), :, SCORES.index(score)]


SHORT = ["none", "T", "T / class", "Platt", "beta", "isotonic"]
by_score = {score: {name: after[name][:, :, k] for name in models} for k, score in enumerate(SCORES)}
show(plots.panels(SHORT, by_score, "", columns=3),
     "Calibration errors, NLL and mAP of four recipes before and after five kinds of post-hoc calibration")

# %%
pd.DataFrame({(name, kind): {score: spread(column(name, kind, score), 1, 3 if "NLL" in score else 2) for score in SCORES}
              for name in models for kind in KINDS}).T

# %% [markdown]
r"""
One temperature for all classes leaves each class's order, and with it AP, exactly as it was. So do the maps of each
class as long as they rise; isotonic regression makes ties, and ties can move AP. Its NLL may suffer most: it
answers with exact zeros, and one miss there costs dearly.
"""

# %%
for name in models:
    for kind in ("temperature", "label-temperature"):
        assert np.allclose(column(name, kind, "mAP, %"), column(name, "none", "mAP, %"), atol=1e-6)
with_T = {name: (name, "temperature") for name in models}
QUESTIONS = [("the baseline with a temperature against λ = 0.1 as trained", with_T["λ = 0"], ("λ = 0.1", "none")),
             ("the baseline with a temperature against λ = 1 as trained", with_T["λ = 0"], ("λ = 1", "none")),
             ("λ = 0.1 against the baseline, both with a temperature", with_T["λ = 0.1"], with_T["λ = 0"]),
             ("λ = 1 against the baseline, both with a temperature", with_T["λ = 1"], with_T["λ = 0"])]
answers = {}
for question, a, b in QUESTIONS:
    ece, nll = (difference(column(*a, score), column(*b, score)) for score in ("ECE pooled, %", "NLL, nats"))
    answers[question] = {"pooled ECE, points": f"{ece.mean:+.2f} [{ece.low:+.2f}, {ece.high:+.2f}]", "ECE is": ece.verdict,
                         "NLL, nats": f"{nll.mean:+.4f} [{nll.low:+.4f}, {nll.high:+.4f}]", "NLL is": nll.verdict}
pd.set_option("display.max_colwidth", None)
pd.DataFrame(answers).T

# %%
plain = column("λ = 0", "none", "NLL, nats").mean()
gained = {kind: plain - column("λ = 0", kind, "NLL, nats").mean() for kind in KINDS[1:]}
best = max(gained, key=gained.get)
warm = ", ".join(f"{np.mean(values):.2f} ({name})" for name, values in temperatures.items())
say(f"Mean temperatures: {warm}. Repairs change the baseline's NLL by " + ", ".join(f"{-gain:+.4f} ({kind})"
    for kind, gain in gained.items()) + " nats.")
if truth is not None:
    rest = plain - floor["NLL"]
    say(f"The baseline stands {rest:.4f} nats above the floor. The best of five repairs ({best}; chosen by these test "
        f"images, which flatters it a little) closes {percent(gained[best] / rest)} of that distance. What no such map "
        "can close is what the network cannot tell apart: resolution, not reliability.")

# %% [markdown]
r"""
## 9. Three regimes

How much a network can overfit decides what there is to calibrate. The baseline of this course mirrors its images.
Beside it stand a regime without any augmentation and one with CutOut, each without the branch and with λ = 1. These
runs exist for `scenes` only, so this section is about `scenes` whatever `DATA` says.
"""

# %%
by_regime = {key: [load_or_run(chosen) for chosen in recipes] for key, recipes in regimes().items()}
marked = by_regime["flips", 0.0][0].labels().targets
for lam in (0.0, 1.0):
    curves = {name: reliability_curve(by_regime[name, lam][0].probabilities(), marked, average="pooled") for name in REGIMES}
    show(plots.reliability(curves, f"λ = {lam:g}, seed 0", smallest=20),
         f"Reliability curves of three training regimes at λ = {lam:g}")

# %%
NAMES = {"mAP": "mAP, %", "ECE_pooled": "pooled ECE, %", "overconfidence": "overconfidence, points",
         "true_CE_pooled": "true error, pooled, %", "NLL": "NLL, nats"}
scale = {key: 1 if key == "NLL" else 100 for key in NAMES}
panels = {title: {f"λ = {lam:g}": [scale[key] * stored(by_regime[name, lam], key) for name in REGIMES] for lam in (0.0, 1.0)}
          for key, title in NAMES.items()}
panels = {title: found for title, found in panels.items() if np.isfinite(list(found.values())).all()}
show(plots.panels(list(REGIMES), panels, "", columns=3),
     "Five scores of three training regimes, without the branch and at λ = 1, with 95 % intervals over seeds")

# %%
def change(name, key):
    """λ = 1 minus λ = 0 within one regime."""
    return difference(stored(by_regime[name, 1.0], key), stored(by_regime[name, 0.0], key))


contrasts = {}
for name in REGIMES:
    for key, title in NAMES.items():
        found, digits = change(name, key), 4 if key == "NLL" else 2
        middle, low, high = (scale[key] * value for value in found[:3])
        contrasts[name, title] = {f"λ = {lam:g}": spread(stored(by_regime[name, lam], key), scale[key], digits)
                                  for lam in (0.0, 1.0)}
        contrasts[name, title] |= {"λ = 1 minus λ = 0": f"{middle:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]",
                                   "is": found.verdict}
pd.DataFrame(contrasts).T

# %%
levels = {name: 100 * stored(by_regime[name, 0.0], "ECE_pooled").mean() for name in REGIMES}
by_choice = max(levels.values()) - min(levels.values())
by_lam = {name: 100 * change(name, "ECE_pooled").mean for name in REGIMES}
most = max(by_lam, key=lambda name: abs(by_lam[name]))
weighs = "The regime decides more than λ." if by_choice > abs(by_lam[most]) else "λ decides more than the regime."
say(f"Without the branch, the pooled ECE runs from {min(levels.values()):.2f} % (*{min(levels, key=levels.get)}*) to "
    f"{max(levels.values()):.2f} % (*{max(levels, key=levels.get)}*), a range of {by_choice:.2f} points. The largest change "
    f"from λ = 0 to λ = 1 within a regime is {by_lam[most]:+.2f} points (*{most}*). {weighs}")

# %% [markdown]
r"""
## 10. On photographs, beside what people use today

Whoever wants probabilities has more than λ to choose from. On the photographs of lesson 03 (section 11), the same
network learned hard labels in the ways that people use today, with five seeds each: with CutOut, the focal loss
($\gamma = 2$), label smoothing, the asymmetric loss. Beside them stand λ, and two students that have a teacher: KD,
and UD with Eq. 13 summed (lesson 07). Each is judged as it is, and with one temperature from validation.

First the paper's Fig. 3 once more, now with ImageNet weights and photographs, as in the paper.
"""

# %%
from udlib.course.evidence import differences as paired_on, evidence_table
from udlib.course.measurements import metric_values
from udlib.course.photo_arms import photo_branch, photo_calibrators, photo_students
from udlib.figures.text import as_markdown

ON_PHOTOS = {"λ = 0": 0.0, "λ = 0.1": 0.1, "λ = 1": 1.0, "λ = 10": 10.0}
yeses = {name: [yes(r, r.labels().targets.double()) for r in map(load_or_run, photo_branch(lam))] for name, lam in ON_PHOTOS.items()}
show(plots.interval_bars(list(yeses), {label: [[100 * both[k] for both in found] for found in yeses.values()]
                                        for k, label in enumerate(("mean confidence", "share right"))},
                         "per cent of the answers with p ≥ 0.5", "photographs: confidence and accuracy, five seeds"),
     "Mean confidence and share right among confident answers on photographs for λ = 0, 0.1, 1 and 10, with 95 % intervals")

# %% [markdown]
r"""
The network without a branch is far too sure of its yeses: it says 74 % on average, and is right in less than 60 %. With
the branch the paper's figure has a narrower gap. Here no narrowing is detected at the paper's λ = 0.1, nor at 1. At λ = 10
the gap is half as wide.
"""

# %%
narrower = paired_on({name: photo_branch(lam) for name, lam in ON_PHOTOS.items()}, "λ = 0", "overconfidence")
assert [gap.verdict for gap in narrower.values()] == ["not detected", "not detected", "lower"]
for name, gap in narrower.items():
    say(f"- {name}, overconfidence minus that of λ = 0: {in_units(gap)}, **{gap.verdict}**.")

# %%
today = {"hard labels": photo_branch(), **{f"λ = {lam:g}": photo_branch(lam) for lam in (0.1, 1.0, 10.0)}, **photo_calibrators(),
         "KD": photo_students("KD"), "UD, Eq. 13 summed": photo_students(over_classes="sum")}
HEADS = {"mAP": "mAP, %", "ECE_pooled": "pooled ECE, %", "test/temperature ECE_pooled": "with one temperature, %",
         "NLL": "NLL, nats", "test/temperature NLL": "with one temperature, nats"}
say(as_markdown(evidence_table(today, HEADS, "hard labels")))

# %% [markdown]
r"""
Two of these losses were made for something else: the focal and the asymmetric loss weigh the labels, and the pooled ECE of
their probabilities is 8 and 27 %. They rank worse here as well. With label smoothing no change is detected.
λ = 1 lowers the pooled ECE by a tenth of a point, and CutOut by a quarter, with half a point of mAP on top. One
temperature on plain hard labels does more than either.

λ = 10, a hundred times the paper's weight, halves the pooled ECE without a teacher. In pooled ECE it is ahead of the
temperature, and not told from KD or UD. (It says yes less often, and CF1 falls: lesson 03, section 11, where λ = 29 goes
further still.) UD's pooled ECE is below that of every other row but λ = 10, even where those
have a temperature and it has none.
"""

# %%
minus_hard = {metric: paired_on(today, "hard labels", metric) for metric in HEADS}
lowered = {metric: [name for name, gap in gaps.items() if gap.verdict == "lower"] for metric, gaps in minus_hard.items()}
assert lowered["mAP"] == ["focal loss", "asymmetric loss"] and minus_hard["mAP"]["CutOut"].verdict == "higher"
assert lowered["ECE_pooled"] == ["λ = 1", "λ = 10", "CutOut", "KD", "UD, Eq. 13 summed"]
assert minus_hard["ECE_pooled"]["label smoothing"].verdict == minus_hard["mAP"]["label smoothing"].verdict == "not detected"
untouched = metric_values(today["UD, Eq. 13 summed"], "ECE_pooled")
for name in list(today)[:-1]:
    gap = difference(untouched, metric_values(today[name], "test/temperature ECE_pooled"))
    assert gap.verdict == ("not detected" if name == "λ = 10" else "lower")
    say(f"- UD, Eq. 13 summed, as it is, minus *{name}* with one temperature: pooled ECE {in_units(gap)}.")

# %%
for name, verdict in {"λ = 1": "higher", "CutOut": "higher", "λ = 10": "lower"}.items():
    gap = difference(metric_values(today[name], "ECE_pooled"), metric_values(today["hard labels"], "test/temperature ECE_pooled"))
    assert gap.verdict == verdict
    say(f"- {name}, as it is, minus *hard labels* with one temperature: pooled ECE {in_units(gap)}.")
students = {name: difference(metric_values(today["λ = 10"], "ECE_pooled"), metric_values(today[name], "ECE_pooled"))
            for name in ("KD", "UD, Eq. 13 summed")}
assert {gap.verdict for gap in students.values()} == {"not detected"}
for name, gap in students.items():
    say(f"- λ = 10 minus *{name}*: pooled ECE {in_units(gap)}, **{gap.verdict}**.")

# %% [markdown]
r"""
### When the pictures change

A calibrator is fitted on pictures like those of training. What is left of it when a camera is out of focus, or
noisy, or used at dusk? We changed the test photographs in these three ways, at three strengths, and trained and
fitted nothing again.
"""

# %%
SHIFTS = {"blur": "blur", "noise": "noise", "low-light": "low light"}
LINES = {"hard labels": ("hard labels", ""), "with one temperature": ("hard labels", "/temperature"),
         **{name: (name, "") for name in ("λ = 1", "λ = 10", "label smoothing", "UD, Eq. 13 summed")}}


def under(shift, name, kind):
    """The pooled ECE on the photographs as they are and at three strengths of a shift: the seeds of each, in per cent."""
    splits = ["test" + kind, *(f"{shift}-{strength}{kind}" for strength in (1, 2, 3))]
    return [100 * np.array(metric_values(today[name], f"{split} ECE_pooled")) for split in splits]

# %%
shifted = {f"{title}: pooled ECE, %": {name: under(shift, *which) for name, which in LINES.items()} for shift, title in SHIFTS.items()}
show(plots.panels(["as it is", "1", "2", "3"], shifted, "strength of the shift", columns=3),
     "Pooled ECE under blur, noise and low light of three strengths, for six ways to calibrate, five seeds")

# %%
def against_temperature(name, shift, strength):
    """The pooled ECE of one of them minus that of hard labels with one temperature, under a shift."""
    split = f"{shift}-{strength}"
    return difference(metric_values(today[name], f"{split} ECE_pooled"),
                      metric_values(today["hard labels"], f"{split}/temperature ECE_pooled"))


rows = [["pooled ECE minus that of hard labels with one temperature", "strength 1", "strength 2", "strength 3"]]
seen = {}
for name in ("λ = 1", "λ = 10", "UD, Eq. 13 summed"):
    for shift, title in SHIFTS.items():
        gaps = [against_temperature(name, shift, strength) for strength in (1, 2, 3)]
        seen[name, shift] = [gap.verdict for gap in gaps]
        rows.append([f"{name}, {title}", *(f"{in_units(gap, unit='')}: {gap.verdict}" for gap in gaps)])
say(as_markdown(rows).replace("--:", "---"))

# %% [markdown]
r"""
λ = 1 is worse calibrated than one temperature under all three shifts, at all strengths. λ = 10 and UD are ahead of it on
clean photographs and where noise or low light is weak (strength 1). Under blur and under the strongest noise it is ahead of
both, but for λ = 10 under the strongest blur. In between the table has some of each. None of them stays calibrated when the pictures change much. So a calibration error
belongs to its test images, and says little about others.
"""

# %%
assert all(set(seen["λ = 1", shift]) == {"higher"} for shift in SHIFTS)
assert seen["UD, Eq. 13 summed", "blur"] == 3 * ["higher"] and seen["λ = 10", "blur"] == ["higher", "higher", "not detected"]
assert seen["λ = 10", "noise"] == ["lower", "higher", "higher"]
assert seen["λ = 10", "low-light"] == ["lower", "not detected", "not detected"]
assert all(seen["UD, Eq. 13 summed", shift] == ["lower", "not detected", "higher"] for shift in ("noise", "low-light"))

# %% [markdown]
r"""
## 11. Explore: one network, many ECEs

First everything at a glance: five ways to count, three recipes, five numbers of bins. Do the networks ever change
places?
"""

# %%
CHOICES = (5, 10, 15, 30, 60)
VARIANTS = {f"{average}, equal {binning}": {"average": average, "binning": binning}
            for average in ("pooled", "classwise") for binning in ("width", "mass")}
VARIANTS["confident, equal width"] = {"average": "pooled", "minimum": 0.5}
glance = {variant: {name: [[100 * expected_calibration_error(r.probabilities(), y, b, **options) for r in found]
                           for b in CHOICES] for name, found in models.items() if name != "λ = 0.1"}
          for variant, options in VARIANTS.items()}
glance = {variant: found for variant, found in glance.items() if np.isfinite(list(found.values())).all()}
show(plots.panels(CHOICES, glance, "number of bins", columns=3),
     "ECE of three recipes under five variants and five numbers of bins, with 95 % intervals over seeds")

# %% [markdown]
r"""
Now one at a time (seed 0). The readings put three numbers beside each other: the estimate, what a perfectly
calibrated model would show, and the error against the posterior. The picture shows the pooled curve. Find a setting
where noise is more than half of the estimate.
"""

# %%
from udlib.course.explorers import Explorer, Frame


def frame(bins, variant, model):
    f, options = models[model][0].probabilities(), VARIANTS[variant]
    drawn = reliability_curve(f, y, bins, **{**options, "average": "pooled"})
    values = {"estimated ECE": expected_calibration_error(f, y, bins, **options),
              "perfect model": calibration.calibration_noise(f, samples=5, bins=bins, **options)}
    if truth is not None:
        values["true error"] = true_calibration_error(f, truth, bins, **options)
    readings = {name: f"{100 * value:.2f} %" for name, value in values.items()}
    alt = f"{model}, {bins} bins, {variant}: " + ", ".join(f"{name} {value}" for name, value in readings.items())
    return Frame(plots.reliability({model: drawn}, f"{bins} bins, {variant}"), alt, readings)

# %%
explorer = Explorer({"bins": list(CHOICES), "variant": list(VARIANTS), "model": list(models)}, frame, start={"bins": 15},
                    note="Seed 0, test images; every label counts as marked.")
assert explorer.value == (15, "pooled, equal width", "λ = 0") and f"{100 * pooled_by_hand:.2f} %" in explorer.readout.value
explorer

# %% [markdown]
r"""
## 12. Verdicts

`udlib.course.verdicts` holds the paper's claims about its branch as data: two lists of runs, a metric, a direction. Beside
them stand questions of our own. Each is judged by a paired difference over five seeds, on both data sets. *holds*
means that the interval lies on the side that the claim says, *reversed* on the other.
"""

# %%
from udlib.course.verdicts import calibration_claims, judge

for needed in [*sweep().values(), *sweep("digits").values(), tricks()["both"]]:
    for chosen in needed:
        load_or_run(chosen)  # stored already, unless you are the first to ask
claims = calibration_claims()
judgements = []
for claim in claims:
    try:
        judgements.append(judge(claim))
    except (KeyError, ValueError):  # not measured: no confident answer, or no difficult image
        judgements.append(None)

# %%
def row(claim, found):
    measured = ("–", "not measured")
    if found is not None:
        factor, digits, unit = (1, 4, "nats") if "NLL" in claim.metric else (100, 2, "points")
        middle, low, high = (factor * value for value in found.difference[:3])
        measured = (f"{middle:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}] {unit}", found.verdict)
    return {"claim": claim.question, "source": claim.source, "data": claim.data, "difference": measured[0],
            "verdict": measured[1]}


pd.DataFrame([row(claim, found) for claim, found in zip(claims, judgements)])

# %%
counts = pd.Series([found.verdict if found else "not measured" for found in judgements]).value_counts()
say(f"{len(claims)} intervals: " + ", ".join(f"{count} *{word}*" for word, count in counts.items()) + ". If no claim had "
    f"anything in it, about {len(claims) / 20:.1f} of them would miss 0 by chance. They are not independent either: ECE, true "
    "error and NLL look at the same networks.")
drawn = len(tests) + len(asked) - 1 + len(narrowed) + len(shrunk) + 2 * len(answers) + len(contrasts)
drawn += len(narrower) + (len(today) - 1) * (len(HEADS) + 1) + 9 * 2
say(f"Sections 6 to 10 have drawn {drawn} intervals more. An interval that only just misses 0, among so many, proves little.")
ASKED = {"lowers the pooled ECE": ("ECE_pooled",), "lowers the true calibration error": ("true_CE",),
         "lowers the NLL": ("NLL",),
         "helps the *Difficult* subset more than the whole": ("mAP_difficult", "mAP")}
for words, metric in ASKED.items():
    found = {claim.data: judgement.verdict if judgement else "not measured" for claim, judgement in zip(claims, judgements)
             if claim.metric == metric and claim.recipes == sweep(claim.data)[0.1]}
    say(f"- λ = 0.1 {words}: " + ", ".join(f"**{word}** on `{data}`" for data, word in found.items()) + ".")

# %% [markdown]
r"""
Be fair when you read this. "Not detected" is not "there is none": five seeds see an effect of about the size of the
seeds' own spread. The claims take λ = 0.1 as printed, beside a *sum* over the classes; beside the released code's
mean it weighs $C$ times more (lesson 03), so look at λ = 1 in the summary too. And a verdict on small pictures with a
small network says little about ResNet-101 on VOC2007. Lesson 11 shows how to run the same comparison there.

## 13. More exercises

### Exercise 04.2

Fit a temperature yourself, without an optimiser: of the given `temperatures`, take the one with the lowest NLL on
**validation** (`calibration.negative_log_likelihood(probabilities, targets)`). Return it together with the NLL and
the **pooled** ECE on **test**. The test labels may be used to report and for nothing else.
"""

# %% exercise="04.2"
def my_temperature(val_logits, val_targets, test_logits, test_targets, temperatures):
    return ...

# %% solution="04.2"
def my_temperature(val_logits, val_targets, test_logits, test_targets, temperatures):
    def on_val(T):
        return calibration.negative_log_likelihood(torch.sigmoid(val_logits / T), val_targets)

    chosen = min(temperatures, key=on_val)
    q = torch.sigmoid(test_logits / chosen)
    return (chosen, calibration.negative_log_likelihood(q, test_targets),
            expected_calibration_error(q, test_targets, average="pooled"))

# %% mistake="04.2" says="fitted on the test images"
def my_temperature(val_logits, val_targets, test_logits, test_targets, temperatures):
    chosen = min(temperatures, key=lambda T: calibration.negative_log_likelihood(torch.sigmoid(test_logits / T), test_targets))
    q = torch.sigmoid(test_logits / chosen)
    return (chosen, calibration.negative_log_likelihood(q, test_targets),
            expected_calibration_error(q, test_targets, average="pooled"))

# %% mistake="04.2" says="divides the logits"
def my_temperature(val_logits, val_targets, test_logits, test_targets, temperatures):
    chosen = min(temperatures, key=lambda T: calibration.negative_log_likelihood(torch.sigmoid(val_logits * T), val_targets))
    q = torch.sigmoid(test_logits * chosen)
    return (chosen, calibration.negative_log_likelihood(q, test_targets),
            expected_calibration_error(q, test_targets, average="pooled"))

# %% mistake="04.2" says="those of validation"
def my_temperature(val_logits, val_targets, test_logits, test_targets, temperatures):
    chosen = min(temperatures, key=lambda T: calibration.negative_log_likelihood(torch.sigmoid(val_logits / T), val_targets))
    q = torch.sigmoid(val_logits / chosen)
    return (chosen, calibration.negative_log_likelihood(q, val_targets),
            expected_calibration_error(q, val_targets, average="pooled"))

# %% mistake="04.2" says="before the temperature"
def my_temperature(val_logits, val_targets, test_logits, test_targets, temperatures):
    chosen = min(temperatures, key=lambda T: calibration.negative_log_likelihood(torch.sigmoid(val_logits / T), val_targets))
    q = torch.sigmoid(test_logits)
    return (chosen, calibration.negative_log_likelihood(q, test_targets),
            expected_calibration_error(q, test_targets, average="pooled"))

# %% mistake="04.2" says="validation and test are pooled"
def my_temperature(val_logits, val_targets, test_logits, test_targets, temperatures):
    z, y = torch.cat([val_logits, test_logits]), torch.cat([val_targets, test_targets])
    chosen = min(temperatures, key=lambda T: calibration.negative_log_likelihood(torch.sigmoid(z / T), y))
    q = torch.sigmoid(test_logits / chosen)
    return (chosen, calibration.negative_log_likelihood(q, test_targets),
            expected_calibration_error(q, test_targets, average="pooled"))

# %%
check("04.2", my_temperature)

# %% [markdown]
r"""
When yours is right, try `my_temperature(run.val_logits, run.labels("val").targets, run.test_logits, test.targets,
np.arange(0.5, 3, 0.01))` and compare with section 8.

### Exercise 04.3

Write `calibration_noise`: the class-wise ECE that a perfectly calibrated model would show with these
`probabilities`, as the mean over `draws` sets of labels. Draw with `torch.bernoulli(…, generator=generator)`; the
ECE may come from the library.
"""

# %% exercise="04.3"
def my_noise(probabilities, draws, generator):
    return ...

# %% solution="04.3"
def my_noise(probabilities, draws, generator):
    labels = [torch.bernoulli(probabilities, generator=generator) for _ in range(draws)]
    return sum(expected_calibration_error(probabilities, drawn) for drawn in labels) / draws

# %% mistake="04.3" says="thresholded"
def my_noise(probabilities, draws, generator):
    return expected_calibration_error(probabilities, (probabilities >= 0.5).int())

# %% mistake="04.3" says="real labels"
def my_noise(probabilities, draws, generator):
    return expected_calibration_error(probabilities, test.targets)

# %% mistake="04.3" says="a fair coin"
def my_noise(probabilities, draws, generator):
    labels = [torch.bernoulli(torch.full_like(probabilities, 0.5), generator=generator) for _ in range(draws)]
    return sum(expected_calibration_error(probabilities, drawn) for drawn in labels) / draws

# %% mistake="04.3" says="same seed"
def my_noise(probabilities, draws, generator):
    labels = [torch.bernoulli(probabilities) for _ in range(draws)]
    return sum(expected_calibration_error(probabilities, drawn) for drawn in labels) / draws

# %%
check("04.3", my_noise)

# %% [markdown]
r"""
### Exercise 04.4 (optional)

The test of Assumption 1 in its shortest form. Among confident answers (`probabilities >= 0.5`), take the mean of
`targets - probabilities` where the image has at least 3 *other* labels, minus the mean where it has at most 1.
Below 0 means: more overconfident in company.
"""

# %% exercise="04.4"
def my_company_effect(probabilities, targets):
    return ...

# %% solution="04.4"
def my_company_effect(probabilities, targets):
    company = targets.sum(1, keepdim=True) - targets
    confident, residual = probabilities >= 0.5, targets - probabilities
    return residual[confident & (company >= 3)].mean() - residual[confident & (company <= 1)].mean()

# %% mistake="04.4" says="counts the label itself"
def my_company_effect(probabilities, targets):
    company = targets.sum(1, keepdim=True).expand_as(targets)
    confident, residual = probabilities >= 0.5, targets - probabilities
    return residual[confident & (company >= 3)].mean() - residual[confident & (company <= 1)].mean()

# %% mistake="04.4" says="few minus many"
def my_company_effect(probabilities, targets):
    company = targets.sum(1, keepdim=True) - targets
    confident, residual = probabilities >= 0.5, targets - probabilities
    return residual[confident & (company <= 1)].mean() - residual[confident & (company >= 3)].mean()

# %% mistake="04.4" says="all answers"
def my_company_effect(probabilities, targets):
    company = targets.sum(1, keepdim=True) - targets
    residual = targets - probabilities
    return residual[company >= 3].mean() - residual[company <= 1].mean()

# %%
check("04.4", my_company_effect)

# %% [markdown]
r"""
### Exercise ★★★ (open): find the flaw

A paper writes: "On our 500 test images, method B has a class-wise ECE of 3.1 %, the baseline 3.4 %. The 95 % bootstrap
interval of B is [2.9, 3.3] % and leaves out 3.4 %, so B is calibrated better." (The numbers are invented.) Find at least
three flaws, and say what the authors should report.

One point each:

1. You ask what a perfectly calibrated model would show on 500 images.
2. You say what a bootstrap does to an ECE.
3. You compare B with the baseline, pair by pair, and not one interval with one number.
4. You name a cheap rival, or a choice of bins or pooling that could turn the order around.

<details><summary>A worked answer</summary>

With few images even a perfect model has an ECE above 0 (trap 4). If that noise is near 3 %, both methods are as good as
perfect. A resampled set holds images twice, so each bootstrap ECE is too high: the interval does not lie where the true value
does (trap 5). The 3.4 % of the baseline is uncertain too. And one network of each method says nothing about the method: it
takes several seeds, and the interval of the *paired* differences. The authors should give the noise level beside each ECE,
pooled and class-wise, for two numbers of bins; the NLL, which needs no bins; the mAP; and the baseline with one temperature
fitted on validation.

</details>

## Summary

- Calibrated means: of the answers 0.7, seven in ten come true. A base rate is calibrated and useless; proper scores
  (Brier, NLL) see calibration and skill together.
- ECE bins P(y = 1), weights the gaps by the number of labels, and takes their size. Say whether it is pooled or
  class-wise, how many bins, and of what kind.
- Pooling cancels errors, easy negatives dilute them, bins hide or inflate them, few images inflate them, and the
  usual bootstrap interval misses. Always give the noise level beside an ECE.
- A known posterior removes the annotator's coin, not the choice of images.
- A count that contains $y_i$ confounds any test of Assumption 1. Test your test on a model that is calibrated for
  sure.
- A temperature costs one number. A loss that is to calibrate must be compared with it, and with a better-trained
  baseline. On photographs one temperature does more than λ = 1 or CutOut; λ = 10 and students with a teacher do more than the temperature.
- A calibration error belongs to its test images. Under blur, noise or low light the order of the methods changes.

What we found on `scenes`:

- At the printed λ = 0.1 no change of calibration or accuracy is detected.
- λ = 1 lowers the pooled ECE by a quarter of a point, and no change of the mAP is detected. One temperature lowers it by
  almost a point more.
- How the network is trained decides more about its calibration than λ does.

The numbers behind these sentences:
"""

# %%
say(f"- Baseline: ECE {spread(pooled)} % pooled, {spread(classwise)} % class-wise, {spread(confident)} % at p ≥ 0.5.")
say(f"- A perfectly calibrated model on {len(some[0])} images: class-wise ECE {percent(perfect)}.")
HEADLINES = {"pooled ECE": "ECE_pooled", "class-wise true error": "true_CE", "overconfidence": "overconfidence", "mAP": "mAP"}
for lam in (0.1, 1.0):
    found = {name: difference(stored(runs[lam], key), stored(runs[0.0], key)) for name, key in HEADLINES.items()}
    said = [f"{name} {in_units(d)}, **{d.verdict}**" for name, d in found.items() if d.n]
    say(f"- λ = {lam:g} against the baseline: {'; '.join(said)}.")
wins = difference(column("λ = 0", "temperature", "ECE pooled, %") / 100, column("λ = 1", "none", "ECE pooled, %") / 100)
say(f"- A temperature on the baseline against λ = 1 as trained, pooled ECE: {in_units(wins)}, **{wins.verdict}**.")
say("- Share right among confident answers, crowded minus sparse images: " + "; ".join(
    f"{in_units(found)} {name}" for name, found in asked.items() if "posterior" not in name) + ".")
say(f"- Pooled ECE on `scenes`: {weighs[0].lower() + weighs[1:]}")
if DATA == "scenes" and profile() != "smoke":
    changes = {lam: {name: difference(stored(runs[lam], key), stored(runs[0.0], key)).verdict for name, key in HEADLINES.items()}
               for lam in (0.1, 1.0)}
    assert set(changes[0.1].values()) == {"not detected"} and "regime decides" in weighs
    assert (changes[1.0]["pooled ECE"], changes[1.0]["mAP"], wins.verdict) == ("lower", "not detected", "lower")

# %% [markdown]
r"""
To see which of the findings are about our pictures, set `DATA = "digits"` at the top and run the lesson again.

## Further reading

- L. Song et al., *Handling Difficult Labels for Multi-label Image Classification via Uncertainty Distillation*, ACM
  MM 2021: Eq. 1, 2, 8 and 9, and Fig. 3.
- A. H. Murphy, *A New Vector Partition of the Probability Score*, Journal of Applied Meteorology 1973.
- J. Bröcker and L. A. Smith, *Increasing the Reliability of Reliability Diagrams*, Weather and Forecasting 2007:
  how far from the diagonal a calibrated forecaster may stray.
- T. Gneiting and A. E. Raftery, *Strictly Proper Scoring Rules, Prediction, and Estimation*, JASA 2007.
- M. P. Naeini, G. Cooper and M. Hauskrecht, *Obtaining Well Calibrated Probabilities Using Bayesian Binning*, AAAI
  2015: ECE and the maximum calibration error.
- C. Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017: temperature scaling.
- M. Kull, T. Silva Filho and P. Flach, *Beta calibration*, AISTATS 2017.
- J. Nixon et al., *Measuring Calibration in Deep Learning*, CVPR Workshops 2019: class-wise and adaptive bins.
- A. Kumar, P. Liang and T. Ma, *Verified Uncertainty Calibration*, NeurIPS 2019: why binned estimates mislead.
- R. Roelofs et al., *Mitigating Bias in Calibration Error Estimation*, AISTATS 2022: equal mass, and how many bins.
"""
