# %% [markdown]
r"""
# 04 · How calibrated? ECE and its traps

[← 03 · A second branch](03_pal_n_calibration.ipynb) · [05 · Knowledge distillation →](05_knowledge_distillation.ipynb)

**Aim.** You will know what calibration means, compute the error that measures it, and know five ways in which that
number misleads. Then you will test the paper's claims about calibration, and the assumption behind them, on data whose
true probabilities are known.

**Prerequisites.** Lessons 02 and 03: the baseline, the second branch at weight λ, the sweep over λ.

**Time.** About two hours with the exercises. The cells run in less than a minute: networks are loaded, not trained.
"""

# %% tags=["setup", "report"]
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
from udlib.figures.text import as_markdown
from udlib.course.recipes import REGIMES, SEEDS, regimes, sweep, tricks
from udlib.course.sentences import difference, in_units, percent, say, spread, stored

# %% [markdown]
r"""
Choose the data set here. At the end, come back, change it, and run everything again.
"""

# %% tags=["setup", "learn"]
DATA = "scenes"  # or "digits", or the path of a folder in VOC layout

# %% [markdown]
r"""
As before, code writes the sentences that hold numbers. A "point" is one per cent. A difference between two recipes is
[paired by seed](../docs/glossary.md#paired-by-seed) and comes with its 95 % t interval. If the interval holds 0, the difference
is "not detected".
"""

# %% [markdown]
r"""
## 1. First, a picture

We take the networks of lesson 03, and the baseline with CutOut of lesson 02. Each recipe has five seeds.
"""

# %% tags=["learn"]
runs = {lam: [load_or_run(recipe) for recipe in recipes] for lam, recipes in sweep(DATA).items()}
cutout = [load_or_run(recipe) for recipe in tricks(DATA)["both"]]
models = {"λ = 0": runs[0.0], "λ = 0.1": runs[0.1], "λ = 1": runs[1.0], "CutOut, λ = 0": cutout}
run = runs[0.0][0]  # the baseline, seed 0
test = run.labels()  # classes, targets, difficult, posterior
p, y = run.probabilities(), test.targets.double()  # (N, C)
truth = None if test.posterior is None else test.posterior.double()
assert p.shape == y.shape == (len(p), len(test.classes))

# %% tags=["report"]
curves = {name: reliability_curve(models[name][0].probabilities(), y, average="pooled") for name in ("λ = 0", "λ = 0.1")}
show(plots.reliability(curves, "all labels of all test images, seed 0"),
     "Reliability diagram of the baseline and of λ = 0.1: share of positives over mean predicted probability in 15 bins")

# %% [markdown]
r"""
This is a [reliability diagram](../docs/glossary.md#reliability-diagram). All predicted probabilities are sorted into 15 bins,
and each point is a bin. The horizontal axis shows the mean probability in the bin, the vertical axis the share of labels that
are present. On the diagonal, 0.9 means 0.9. Below the diagonal the network is overconfident. The lower panel counts the labels
in each bin, on a logarithmic axis.

![Predictions are sorted into bins; each bin is a point at its mean probability and its share of positives, and the mean of the distances from the diagonal, weighted by the number of predictions, is the ECE.](images/reliability_bins.svg)

### Predict

The [expected calibration error (ECE)](../docs/glossary.md#ece-expected-calibration-error) is the mean distance of the points from
the diagonal, weighted by the number of labels in each bin. We can compute it over all labels at once (*pooled*), or for each
class and then take the mean ([*class-wise*](../docs/glossary.md#class-wise-and-pooled)).

Write three guesses, in per cent. For the third, imagine a model with probabilities like these that is *perfectly* calibrated,
and judge it on only 200 test images. Its true error is 0. What will its class-wise ECE be?
"""

# %% tags=["learn"]
guess_pooled = ...  # the baseline's pooled ECE, in per cent; for example 10
guess_classwise = ...  # the baseline's class-wise ECE
guess_perfect = ...  # the class-wise ECE of a perfectly calibrated model on 200 images

# %% [markdown]
r"""
## 2. What perfect calibration means

The paper (UD) calls a model perfectly calibrated (Eq. 1) if

$$P(y_i = 1 \mid f_i = p) = p \quad \text{for all } p \in [0, 1].$$

Of all labels that get a probability of 0.7, seven in ten are present. To see what this requires and what it does not, we build a
world in which every chance is known, with three forecasters. One always gives the base rate, the overall share of positives. One
knows each chance. One knows each chance and exaggerates: it doubles the logit.
"""

# %% tags=["learn"]
def sigmoid(z):
    return 1 / (1 + np.exp(-z))


generator = np.random.default_rng(0)
logit = generator.normal(-1.5, 2.0, (100_000, 1))
chance = sigmoid(logit)  # the truth of this little world
happened = (generator.random(chance.shape) < chance).astype(float)
forecasters = {"base rate": np.full_like(chance, chance.mean()), "knows the chance": chance,
               "exaggerates": sigmoid(2 * logit)}

# %% tags=["report"]
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
The ECE of the first two forecasters is almost 0, so it cannot tell them apart. The first is calibrated and useless, because it
gives the same number every time. **Calibration is not skill.**

The [Brier score](../docs/glossary.md#brier-score) (mean squared error of the probability) and the
[NLL](../docs/glossary.md#nll-negative-log-likelihood) (mean log loss, Eq. 3 divided by $C$) measure both. They are *proper*
scores: on average, no forecast scores better than the true chance.

Murphy (1973) split the Brier score into three terms. With $K$ groups of equal forecast $\bar f_k$, observed share $\bar y_k$,
weight $w_k$, and base rate $\bar y$:

$$\text{Brier} = \underbrace{\sum_k w_k (\bar f_k - \bar y_k)^2}_{\text{reliability}}
- \underbrace{\sum_k w_k (\bar y_k - \bar y)^2}_{\text{resolution}} + \underbrace{\bar y (1 - \bar y)}_{\text{uncertainty}}$$

The first term measures calibration (low is good). The second measures how well the forecaster separates cases (high is good). The
third depends only on the world. The equation is exact if all forecasts of a bin are equal, so we replace each forecast by the
mean of its bin.
"""

# %% tags=["learn"]
def murphy(f, outcomes, bins=15):
    curve = reliability_curve(f, outcomes, bins, average="pooled")
    weight, rate = curve.count / curve.count.sum(), outcomes.mean()
    spread_of_bins = (curve.frequency.nan_to_num(rate) - rate) ** 2
    terms = {"reliability": (weight * curve.gap.nan_to_num(0) ** 2).sum().item(),
             "resolution": (weight * spread_of_bins).sum().item(),
             "uncertainty": rate * (1 - rate)}
    rounded = curve.confidence.numpy()[np.minimum((f * bins).astype(int), bins - 1)]
    return terms | {"Brier, rounded": calibration.brier_score(rounded, outcomes)}

# %% tags=["report"]
parts = pd.DataFrame({name: murphy(f, happened) for name, f in forecasters.items()}).T
assert np.allclose(parts["reliability"] - parts["resolution"] + parts["uncertainty"], parts["Brier, rounded"], atol=1e-5)
assert parts["resolution"]["exaggerates"] > 0.95 * parts["resolution"]["knows the chance"]
parts.round(4)

# %% [markdown]
r"""
The exaggerating forecaster ranks the cases exactly like the one who knows each chance, and its resolution is nearly as high. Only
its reliability is worse. We can repair such an error after training (section 8). We cannot repair a lack of resolution.

## 3. ECE, by hand

This is Eq. 2 of the paper, with the estimate that is computed in its place. The estimate sums over the bins $b$ of each class
$c$. A bin has the share of positives $\bar y_{cb}$, the mean probability $\bar f_{cb}$, and $n_{cb}$ of the $N$ images:

$$\mathrm{ECE}(f) = \mathbb{E}_i\, \mathbb{E}_{f_i} \big|\, P(y_i = 1 \mid f_i) - f_i \,\big|
\;\approx\; \frac1C \sum_{c} \sum_b \frac{n_{cb}}{N} \big|\, \bar y_{cb} - \bar f_{cb} \,\big|$$

The pooled ECE drops the index $c$ and bins all $N C$ labels together. Here we compute it, with one row for each bin:
"""

# %% tags=["learn"]
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
We bin $f$ = P(y = 1), from 0 to 1. Work on single-label networks does something else: it bins the confidence in the *decision*,
$\max(f, 1 - f)$, and compares it with the share of right decisions. This folds the diagram at ½: a *no* with $f = 0.1$ and a
*yes* with $f = 0.9$ fall into the same bin, and their errors may cancel. So the folded error is never larger.
"""

# %% tags=["learn"]
right = ((p >= 0.5) == y.bool()).double()
folded = expected_calibration_error(torch.maximum(p, 1 - p), right, average="pooled")
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

# %% tags=["learn"]
check("04.1", my_ece)

# %% [markdown]
r"""
Here are both errors of the baseline, over five seeds. The library agrees with the numbers that are stored with the runs.
"""

# %% tags=["report"]
pooled, classwise = stored(runs[0.0], "ECE_pooled"), stored(runs[0.0], "ECE")
assert np.isclose(classwise[0], expected_calibration_error(p, y)) and np.isclose(pooled[0], pooled_by_hand, atol=1e-6)
say(f"The baseline's ECE is **{spread(pooled)} % pooled** and **{spread(classwise)} % class-wise**.")

# %% tags=["learn"]
check_guess("pooled ECE", guess_pooled, 100 * pooled.mean(), " %")
check_guess("class-wise ECE", guess_classwise, 100 * classwise.mean(), " %")

# %% [markdown]
r"""
## 4. Five traps

### Trap 1: pooling lets errors cancel

Take two classes and ten images. The model gives 0.6 to everything. The first class is present in 8 of 10 images, the second in 4
of 10.
"""

# %% tags=["learn"]
answers = torch.full((10, 2), 0.6, dtype=torch.float64)
marks = torch.tensor([[1.0, 1.0]] * 4 + [[1.0, 0.0]] * 4 + [[0.0, 0.0]] * 2)
both_ways = {average: expected_calibration_error(answers, marks, average=average)
             for average in ("pooled", "classwise")}
assert np.isclose(both_ways["pooled"], 0) and np.isclose(both_ways["classwise"], 0.2)
{average: round(error, 6) for average, error in both_ways.items()}

# %% [markdown]
r"""
The first class gets too little probability, the second too much, and the pooled error is zero. With bins of equal width the
pooled ECE is *never* above the class-wise one, by the triangle inequality.

Do the classes of our baseline err in different directions? In the figure, each line joins a class's mean probability and its
share of positives.
"""

# %% tags=["report"]
for group in models.values():
    assert (stored(group, "ECE_pooled") <= stored(group, "ECE") + 1e-9).all()  # the triangle inequality
mean_p = torch.stack([r.probabilities().mean(0) for r in runs[0.0]]).mean(0)  # over seeds, a value for each class
excess = mean_p - y.mean(0)
rows = excess.argsort(descending=True).tolist()
show(plots.dots([test.classes[k] for k in rows], {"mean probability": 100 * mean_p[rows],
                                                  "share of positives": 100 * y.mean(0)[rows]},
                "per cent of the test images", "the baseline's mean probability and the true share, mean over seeds"),
     "For each class the mean predicted probability and the share of positives on the test images")

# %% tags=["report"]
floors = {average: np.mean([calibration.calibration_noise(r.probabilities(), samples=5, average=average)
                            for r in runs[0.0]]) for average in ("pooled", "classwise")}
say(f"On average, {int((excess > 0).sum())} of {len(excess)} classes get too much probability, and the others get too little. So "
    f"errors cancel in the pooled ECE ({percent(pooled.mean())}), but not in the class-wise ECE ({percent(classwise.mean())}). "
    f"Cancelling explains only a part of this difference: even a perfectly calibrated model would show "
    f"{percent(floors['pooled'])} and {percent(floors['classwise'])}, because one class has fewer labels than all together "
    "(trap 4).")

# %% [markdown]
r"""
### Trap 2: easy negatives

Most labels of most images are absent, and the network knows it. These easy negatives fill the first bin. Their gap is small,
because there is little room below 0.05. (It is small in points only: a forecast of 0.01 is off by half if the truth is 0.02. ECE
does not show that; NLL does.) We use 20 bins here, so that 0.05 and 0.5 are edges.
"""

# %% tags=["report"]
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

# %% tags=["report"]
confident = stored(runs[0.0], "ECE_confident")
say(f"{percent(share[0].item())} of the labels get a probability below 0.05. The ECE of the confident answers (p ≥ 0.5) is "
    f"{spread(confident)} %, and that of all labels is {spread(pooled)} %. If we added a thousand classes that never occur and "
    "are never predicted, the second number would go towards zero, and the first would stay.")

# %% [markdown]
r"""
`confident_calibration_error` uses only the labels with $p \ge 0.5$. Which of the two numbers matters depends on the use: a photo
search shows you the confident answers.

### Trap 3: the bins

Errors cancel inside a bin as well. Wide bins hide them, so splitting a bin can only raise the estimate. But narrow bins hold few
labels, and then noise raises the estimate. Most bins of equal **width** are nearly empty. Bins of equal **mass** hold the same
number of labels each. A library's default is also a choice, so report which bins you use.
"""

# %% tags=["report"]
BINS = (5, 10, 15, 20, 30, 50, 100)
by_bins = {f"equal {binning}": [100 * np.mean([expected_calibration_error(r.probabilities(), y, b, binning=binning)
                                               for r in runs[0.0]]) for b in BINS] for binning in ("width", "mass")}
by_bins["perfect model, width"] = [100 * calibration.calibration_noise(p, samples=5, bins=b) for b in BINS]
show(plots.lines(BINS, by_bins, "number of bins", "class-wise ECE, per cent", "the same networks, other bins"),
     "Class-wise ECE against the number of bins, for equal width and equal mass, and for a perfectly calibrated model")

# %% tags=["report"]
nested = [by_bins["equal width"][BINS.index(b)] for b in (5, 10, 50, 100)]  # each splits the bins before it
assert np.all(np.diff(nested) >= -1e-9)
reach = {name: max(values) - min(values) for name, values in by_bins.items()}
say(f"The networks are the same throughout. From {BINS[0]} to {BINS[-1]} bins of equal width, their estimate changes by "
    f"{reach['equal width']:.2f} points, and with equal mass by {reach['equal mass']:.2f}. The estimate of a perfectly "
    f"calibrated model changes by {reach['perfect model, width']:.2f} points.")

# %% [markdown]
r"""
### Trap 4: few images

Suppose that the true share of a bin is 0.6 and that the bin holds ten labels. By chance, five of them may be present. ECE takes
the *absolute* gap, so such chance errors do not average out. How large is this effect? We draw labels from the model's own
probabilities. For these labels the model is perfectly calibrated by construction, so all of its ECE is noise.
`calibration_noise` computes this.
"""

# %% tags=["learn"]
coins = torch.Generator().manual_seed(0)
draw = torch.bernoulli(p, generator=coins)  # one set of labels from the model's own probabilities
print(f"labels from the model: ECE {100 * expected_calibration_error(p, draw):.2f} %   "
      f"real labels: ECE {100 * expected_calibration_error(p, y):.2f} %")

# %% tags=["report"]
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

# %% tags=["report"]
assert few["perfect model"][0] > 2 * few["perfect model"][-1]  # noise shrinks with the number of images
some = [torch.from_numpy(generator.choice(len(p), min(200, len(p)), replace=False)) for _ in range(20)]
perfect = np.mean([calibration.calibration_noise(p[i], samples=1, seed=k) for k, i in enumerate(some)])
above = "more" if perfect > classwise.mean() else "less"
say(f"On {len(some[0])} images a perfectly calibrated model shows a class-wise ECE of **{percent(perfect)}**. This is {above} than "
    f"the baseline shows on all {len(p):,} images ({percent(classwise.mean())}). From {sizes[0]} to {sizes[-1]:,} images, the "
    f"noise shrinks by a factor of {few['perfect model'][0] / few['perfect model'][-1]:.1f}. A noise that goes with "
    f"$1/\\sqrt{{N}}$ would shrink by {32 ** 0.5:.1f}.")

# %% tags=["learn"]
check_guess("perfect model on 200 images", guess_perfect, 100 * perfect, " %")

# %% [markdown]
r"""
So report the noise level beside an ECE, and do not compare the ECEs of test sets of different sizes. Do not simply subtract the
noise either: noise adds far less to a bin with a real gap than to a bin without one, because the sign of a real gap no longer
flips.

Where the truth is known, the third line uses the posterior in place of the labels. It also falls with $N$. Section 5 says why.

### Trap 5: intervals, and the largest gap

A bootstrap [interval](../docs/glossary.md#interval) should hold the truth in 95 of 100 cases. The usual one, the **percentile**
interval, does not do this for ECE: the estimate is already too high because of noise, and resampling adds more noise. The
**basic** interval mirrors the resampled values at the estimate, and so corrects the bias once. We try both 100 times each in a
world where the true error is known, with 500 images and 10 classes.
"""

# %% tags=["learn"]
def world(images, sharpness, generator):
    """Forecasts and chances; sharpness 1 is perfect calibration, 2 exaggerates."""
    logit = generator.normal(-2, 2, (images, 10))
    return sigmoid(sharpness * logit), sigmoid(logit)


def once(sharpness, seed):
    """Estimate, percentile and basic interval on 500 new images; one bootstrap serves both."""
    generator = np.random.default_rng(seed)
    f, chance = world(500, sharpness, generator)
    marks = generator.random(f.shape) < chance
    estimate, low, high = calibration.calibration_interval(
        expected_calibration_error, f, marks, samples=200, seed=seed, kind="percentile",
        average="pooled")
    return estimate, low, high, max(0, 2 * estimate - high), max(0, 2 * estimate - low)

# %% tags=["report"]
coverage = {}
for name, sharpness in (("perfect", 1.0), ("a little overconfident", 1.25), ("far overconfident", 2.0)):
    known = true_calibration_error(*world(100_000, sharpness, np.random.default_rng(0)), average="pooled")
    trials = np.array([once(sharpness, seed) for seed in range(100)])
    holds = [(trials[:, k] <= known) & (known <= trials[:, k + 1]) for k in (1, 3)]
    coverage[name] = {"true error, %": 100 * known, "mean estimate, %": 100 * trials[:, 0].mean(),
                      "percentile holds it, %": 100 * holds[0].mean(), "basic holds it, %": 100 * holds[1].mean(),
                      "basic lies below its estimate, %": 100 * (trials[:, 4] < trials[:, 0]).mean()}
coverage = pd.DataFrame(coverage).T
assert coverage["mean estimate, %"]["perfect"] > 0.5 + coverage["true error, %"]["perfect"]  # biased upwards
assert (coverage["basic holds it, %"][:2] > coverage["percentile holds it, %"][:2] + 10).all()
assert coverage["basic holds it, %"]["perfect"] < 80  # and still no 95 % interval
coverage.round(1)

# %% [markdown]
r"""
(A share from 100 trials is itself uncertain by some points.) Near perfect calibration, neither interval holds the truth in 95 %
of the cases. There the basic one is much better; far from perfect calibration, the two are closer. A basic interval can lie
*wholly below* its estimate. This is no mistake: the estimate is too high, and the interval corrects it. Report the noise level
beside either. For the baseline:
"""

# %% tags=["report"]
rows = {}
for average in ("pooled", "classwise"):
    for kind in ("percentile", "basic"):
        result = calibration.calibration_interval(expected_calibration_error, p, y, samples=300, kind=kind, average=average)
        rows[average, kind] = {"ECE, %": 100 * result.estimate, "low": 100 * result.low, "high": 100 * result.high,
                               "a perfect model, %": 100 * calibration.calibration_noise(p, samples=10, average=average)}
intervals = pd.DataFrame(rows).T
outside = [" ".join(name) for name, row in intervals.iterrows() if not row["low"] <= row["ECE, %"] <= row["high"]]
display(intervals.round(2))
say(f"Intervals that do not hold their own estimate: {', '.join(outside) or 'none'}.")

# %% [markdown]
r"""
The **maximum calibration error** takes the largest gap in place of the mean. That sounds strict, but with many bins a nearly empty
bin often decides it by chance. Compare it with what a perfectly calibrated model would show:
"""

# %% tags=["report"]
coin = torch.Generator().manual_seed(1)


def largest(bins):
    curve = reliability_curve(p, y, bins, "pooled")
    draws = [torch.bernoulli(p, generator=coin) for _ in range(10)]
    mean_gap = np.mean([calibration.maximum_calibration_error(p, labels, bins, "pooled") for labels in draws])
    return {"bins": bins, "largest gap, %": 100 * calibration.maximum_calibration_error(p, y, bins, "pooled"),
            "a perfect model, %": 100 * mean_gap, "labels in that bin": int(curve.count[curve.gap.nan_to_num(0).argmax()]),
            "labels in all": p.numel()}


pd.DataFrame([largest(bins) for bins in (5, 15, 50, 200)]).round(1)

# %% [markdown]
r"""
## 5. The true calibration error

In `scenes` and `digits` the annotator is simulated, so P(y = 1 | scene) is known exactly: the
[posterior](../docs/glossary.md#posterior). The *true calibration error* uses it in place of the labels. It compares probability
with chance, without the randomness of the annotator. How far are the estimates from it, for every λ and every seed?
"""

# %% tags=["report"]
every_run = [r for group in runs.values() for r in group]
if truth is None:
    say("These data come without a posterior, so nobody knows the true calibration error, and this section stays empty.")
else:
    pairs = {name: (100 * stored(every_run, f"true_CE{suffix}"), 100 * stored(every_run, f"ECE{suffix}"))
             for name, suffix in (("class-wise", ""), ("pooled", "_pooled"))}
    show(plots.scatter(pairs, "true calibration error, per cent", "estimated ECE, per cent",
                       f"{len(every_run)} networks: every λ, every seed"),
         "Estimated ECE over true calibration error, pooled and class-wise, one point for each trained network")

# %% tags=["report"]
if truth is not None:
    assert np.isclose(true_calibration_error(p, truth), run.metrics["test"]["true_CE"])
    over = {name: estimate - real for name, (real, estimate) in pairs.items()}
    coin_share = calibration.expected_brier_floor(truth) / (by_bin["weight"] * by_bin["y"] * (1 - by_bin["y"])).sum()
    display(pd.DataFrame({name: {"estimate above the truth": f"{(d > 0).sum()} of {len(d)} networks",
                                 "estimate minus truth, mean, points": f"{d.mean():+.2f}"} for name, d in over.items()}).T)
    say(f"The annotator's randomness is {percent(coin_share)} of the variance of the labels within the bins. The rest depends on "
        "which images are in the test set, and the posterior does not remove it.")
    if DATA == "scenes" and profile() != "smoke":
        assert all(abs(d.mean()) < 0.05 for d in over.values()) and (over["class-wise"] > 0).mean() > 0.9 and coin_share < 0.3

# %% [markdown]
r"""
On `scenes` the estimate is close to the truth: the mean difference is below 0.05 points. The class-wise estimate lies above the
truth in nearly all networks. (The networks are not independent trials, because all are judged by the same set of labels.)

Estimate and truth share most of their noise, namely the choice of test images. That is why the third line of trap 4 also fell
with $N$. "True" means: true for *these* images. It is the error without label noise, not the error on endless data.

The posterior also gives **floors** for the NLL and the Brier score. No predictor can be below them on average, because nobody can
predict the annotator's random choice. How much of the baseline's score is unavoidable?
"""

# %% tags=["report"]
floor = {}
if truth is not None:
    floor = {"NLL": calibration.expected_nll_floor(truth), "Brier": calibration.expected_brier_floor(truth)}
    assert np.isclose(floor["NLL"], run.metrics["test"]["NLL_floor"])
    for name, value in floor.items():
        ideal = {"NLL": torch.distributions.Bernoulli(truth).entropy(), "Brier": truth * (1 - truth)}[name]
        assert np.isclose(value, ideal.mean(), atol=1e-5)
    assert DATA != "scenes" or profile() == "smoke" or all(
        value < 0.25 * stored(runs[0.0], name).mean() for name, value in floor.items())
    display(pd.DataFrame({name: {"baseline": spread(stored(runs[0.0], name), 1, 4), "floor": f"{value:.4f}",
                                 "floor / baseline, %": f"{100 * value / stored(runs[0.0], name).mean():.0f}"}
                          for name, value in floor.items()}).T)

# %% [markdown]
r"""
On `scenes` the floor is less than a quarter of the baseline's score. It holds for a predictor that knows the whole scene. A
picture of a few thousand pixels shows less, so even the best network stays above it. Section 8 measures how much of the distance
is due to calibration.

## 6. Assumption 1

PAL-N was not made for calibration. Why should it improve it? The paper's argument rests on an assumption (Eq. 8). If image 1 has
at least as many labels as image 2, then for every class $i$

$$P\big( \mathbb{E}[y_{1,i} = 1 \mid f_i(x_1)] \le \mathbb{E}[y_{2,i} = 1 \mid f_i(x_2)] \big) \ge 0.5.$$

In words: *at equal confidence, an answer is less often right on an image with more labels*, because many labels mean small,
occluded, difficult objects. That sounds plausible, and we can test it. The naive test sorts the answers by the image's number of
labels $\sum_j y_j$ and compares the share of positives.

We first run it in a world without any such effect: 16 independent labels, each with chance 0.12, and a model that always answers
0.12. The model is perfectly calibrated, and no image is harder than another.
"""

# %% tags=["learn"]
coins = torch.Generator().manual_seed(0)
independent = (torch.rand(200_000, 16, generator=coins) < 0.12).double()


def others(labels):
    """For each label, the number of OTHER labels of the same image, (N, C)."""
    return labels.sum(1, keepdim=True) - labels


def shares(labels, counts):
    """Share of positives among all labels whose image has that count: 0, 1, … 4."""
    return [labels[counts == k].mean().item() for k in range(5)]

# %% tags=["report"]
naive = shares(independent, independent.sum(1, keepdim=True).expand_as(independent))
stratified = shares(independent, others(independent))
assert np.allclose(naive, np.arange(5) / 16)  # exactly k of 16 labels are positive where k are positive
assert np.allclose(stratified, 0.12, atol=0.005)  # no effect
show(plots.lines(range(5), {"all labels of the image": naive, "the other labels only": stratified,
                            "the model's answer": [0.12] * 5}, "number of labels counted", "share of positives",
                 "independent labels, a calibrated constant model"),
     "Share of positives rises with the number of all labels and stays flat with the number of other labels")

# %% [markdown]
r"""
The naive test finds a strong effect, of the *opposite* sign, in a world that has none. The reason is simple: $y_i$ is itself part
of the count. An image with many labels is an image where $y_i = 1$ more often, whatever the model answers. If we count only the
**other** labels, $\sum_{j \ne i} y_j$, the effect is gone.

Now the real networks. We take the confident answers ($f \ge 0.5$) and sort them into ten bins of $f$. In each bin we compare the
share of positives on images with many ($\ge 3$) and with few (0 or 1) other labels. Then we average over the bins, weighted by the
number of answers with many.
"""

# %% tags=["learn"]
def at_like_confidence(f, outcomes, crowded, sparse, bins=20, minimum=0.5):
    """Mean outcome, `crowded` minus `sparse`, within bins of f, weighted by the crowded entries."""
    which = (f * bins).long().clamp(max=bins - 1)
    steps, weights = [], []
    for b in which[f >= minimum].unique():
        here = (which == b) & (f >= minimum)
        many, few_ = outcomes[here & crowded], outcomes[here & sparse]
        if len(many) and len(few_):
            steps.append((many.mean() - few_.mean()).item())
            weights.append(len(many))
    return np.average(steps, weights=weights) if steps else np.nan

# %% tags=["report"]
total = y.sum(1, keepdim=True).expand_as(y)
strata = {"all labels": (total >= 3, total <= 1), "other labels": (others(y) >= 3, others(y) <= 1)}
effect = {name: [at_like_confidence(r.probabilities(), y, *split) for r in runs[0.0]] for name, split in strata.items()}
tests = {name: difference(values, np.zeros(len(values))) for name, values in effect.items()}
display(pd.DataFrame({f"counting {name}": {"share right, many minus few": in_units(gap), "verdict": gap.verdict}
                      for name, gap in tests.items()}).T)

# %% tags=["report"]
crowded, sparse = strata["other labels"]
both = {name: reliability_curve(p, y, 10, "pooled", ignore=~of) for name, of in (("0 or 1 other labels", sparse),
                                                                               ("3 or more", crowded))}
show(plots.reliability(both, "the baseline, by the number of other labels", smallest=20),
     "Reliability curves of the baseline for labels with few and with many other labels on the image")

# %% [markdown]
r"""
Can we believe the second row? We first test the test, on models that are calibrated for sure. We have two. One always answers the
base rate of the class on the test images. The other, where the posterior is known, answers the posterior; no network can know
more than that.
"""

# %% tags=["report"]
controls = {"base rate of the class": (y.mean(0).expand_as(y), 0.0)} | ({} if truth is None else {"posterior": (truth, 0.5)})
assert expected_calibration_error(y.mean(0).expand_as(y), y) < 1e-6  # perfectly calibrated on these images
# bins so narrow that every value of these models stands alone
control = pd.DataFrame({name: {f"by {counted}": 100 * at_like_confidence(f, y, *split, bins=1000, minimum=minimum)
                               for counted, split in strata.items()} for name, (f, minimum) in controls.items()}).T
for counted in strata:
    control.loc["baseline", f"by {counted}"] = 100 * np.mean(effect[counted])
control.round(1)

# %% tags=["report"]
constant = control.loc["base rate of the class", "by other labels"]
say("The numbers are points, many minus few. The base-rate model (among all its answers, because none is confident) is perfectly "
    f"calibrated in the sense of Eq. 1. Still, its labels are present {abs(constant):.1f} points {'less' if constant < 0 else 'more'} "
    "often where there are many others.")
if truth is not None:
    by_others, by_all = control.loc["posterior", "by other labels"], control.loc["posterior", "by all labels"]
    say(f"For the posterior, the number of other labels makes a difference of {by_others:+.1f} points, because the annotator marks "
        f"each object on its own. If we count *all* labels, even this model shows {by_all:+.1f} points.")

# %% [markdown]
r"""
The labels of a real data set are not independent. A picture has room for a few objects, so one more is less likely where three
others are marked. Things that belong together make one more likely. Either way the other labels carry information that a model
may lack, and calibration (Eq. 1) does not require that the model has it. There is another problem: when the network mistakes one
object for another, the right label is among the others and raises their number. So counting the other labels removes one
confounder, not all of them.

A third test uses no labels for sorting. It sorts by the number of other labels that the network *itself* expects,
$\sum_{j \ne i} f_j$ (above 2.5 against below 1.5). If a model is calibrated given all its own answers, this makes no difference.
And where the posterior is known, we can use it in place of the labels. In all rows the confidence is alike, so a lower share right
means more overconfidence.
"""

# %% tags=["learn"]
def own_count(r, outcomes):
    f = r.probabilities()
    return at_like_confidence(f, outcomes, others(f) >= 2.5, others(f) <= 1.5)

# %% tags=["report"]
zeros = np.zeros(len(SEEDS))
by_count = {"by other labels": tests["other labels"],
            "by the network's own count": difference([own_count(r, y) for r in runs[0.0]], zeros)}
if truth is not None:
    by_count["by other labels, posterior"] = difference([at_like_confidence(r.probabilities(), truth, *strata["other labels"])
                                                         for r in runs[0.0]], zeros)
    by_count["by the network's own count, posterior"] = difference([own_count(r, truth) for r in runs[0.0]], zeros)
display(pd.DataFrame({name: {"share right, crowded minus sparse images": in_units(gap), "verdict": gap.verdict}
                      for name, gap in by_count.items()}).T)
assert {gap.verdict for gap in by_count.values()} == {"lower"} or profile() == "smoke" or DATA != "scenes"

# %% [markdown]
r"""
On `scenes` all four rows say "lower": at the same confidence, the network's confident answers are 12 to 21 points less often right
in crowded pictures. The way of sorting cannot explain all of this. That supports the *idea* of Assumption 1 on these data. It does
not show that difficulty is the cause. Nor does it show that Eq. 8 holds for every class, every model and every data set.

Read literally, Eq. 8 even says something else. The expectation *given* $f_i$ is a function of $f_i$ alone. For any useful network
it rises with $f_i$. Then Eq. 8 says that $f_i$ itself tends to be no higher on the image with more labels. We draw pairs of images
and test this for each class:
"""

# %% tags=["learn"]
first, second = torch.randint(len(p), (2, 100_000), generator=torch.Generator().manual_seed(0))


def literal(counts):
    """For each class, how often f_i(x1) ≤ f_i(x2) where image 1 has at least as many labels."""
    held = (p[first] <= p[second]) & (counts[first] >= counts[second])
    return held.sum(0) / (counts[first] >= counts[second]).sum(0)

# %% tags=["report"]
by_class = {name: literal(counts) for name, counts in (("all labels", total), ("other labels", others(y)))}
display(pd.DataFrame({f"counting {name}": {"classes with at least half of the pairs": f"{(v >= 0.5).sum()} of {len(v)}",
                                           "lowest": percent(v.min().item()), "highest": percent(v.max().item())}
                      for name, v in by_class.items()}).T)
if DATA == "scenes" and profile() != "smoke":
    assert [int((values >= 0.5).sum()) for values in by_class.values()] == [4, 15]

# %% [markdown]
r"""
On `scenes` the literal Eq. 8 holds for 4 of 16 classes if we count all labels, and for 15 of 16 if we count the other labels.

Does the branch act where the assumption says it does? Then its answers should lose less on crowded images as λ grows. Five seeds
detect no such change:
"""

# %% tags=["report"]
narrowed = {}
for name in ("λ = 0.1", "λ = 1"):
    values = [at_like_confidence(r.probabilities(), y, *strata["other labels"]) for r in models[name]]
    narrowed[name] = difference(np.abs(values), np.abs(effect["other labels"]))
display(pd.DataFrame({name: {"size of the effect, minus that at λ = 0": in_units(gap), "verdict": gap.verdict}
                      for name, gap in narrowed.items()}).T)
if DATA == "scenes" and profile() != "smoke":
    assert {gap.verdict for gap in narrowed.values()} == {"not detected"}

# %% [markdown]
r"""
**From Eq. 8 to ECE.** The paper's next step (Eq. 9) writes the PAL-N risk with an $\ell_1$ loss. Where an image has many labels,
the target $P(y_i{=}1|x) \cdot \mathbb{E}[1/(1+\sum_{j\ne i} y_j)]$ is small, so $f_i$ is pulled down. By Assumption 1 the share
right is lower there too, so a lower $f_i$ means a lower ECE. In the paper's words, the two have "similar regularization of $f_i$".

This is a heuristic. It gives a direction, but no size: the factor ½ for two labels has nothing to do with how much less often the
answers are right. And the $f$ of the argument is the softmax of the second branch, while we measure the ECE of the sigmoid branch,
which shares only the backbone. So experiments must show whether it works.

## 7. The paper's Fig. 3, with error bars

Fig. 3 of the paper compares confidence and accuracy with and without the branch. The paper gives neither numbers nor error bars
for it. Here is our version with five seeds, for all confident answers ($p \ge 0.5$).
"""

# %% tags=["learn"]
def yes(r, outcomes):
    """Mean confidence and share right among p ≥ 0.5; NaN where there is none."""
    f = r.probabilities()
    return [values[f >= 0.5].mean().item() for values in (f, outcomes)]

# %% tags=["report"]
fig3 = {name: np.array([yes(r, y) for r in group]) for name, group in models.items()}
assert np.allclose(fig3["λ = 0"][:, 0] - fig3["λ = 0"][:, 1], stored(runs[0.0], "overconfidence"), equal_nan=True)
show(plots.interval_bars(list(fig3), {label: [100 * values[:, k] for values in fig3.values()] for k, label in
                                      enumerate(("mean confidence", "share right"))},
                         "per cent of the answers with p ≥ 0.5", "confidence and accuracy, five seeds"),
     "Mean confidence and share right among confident answers for λ = 0, 0.1, 1 and for CutOut, with 95 % intervals")

# %% tags=["report"]
shrunk = {name: difference(stored(group, "overconfidence"), stored(runs[0.0], "overconfidence"))
          for name, group in models.items() if name != "λ = 0"}
say(f"The baseline's overconfidence, the gap between both bars, is {spread(stored(runs[0.0], 'overconfidence'))} points.")
display(pd.DataFrame({name: {"overconfidence, minus that of the baseline": in_units(gap), "verdict": gap.verdict}
                      for name, gap in shrunk.items()}).T)
if DATA == "scenes" and profile() != "smoke":
    assert [gap.verdict for gap in shrunk.values()] == ["not detected", "lower", "lower"]

# %% [markdown]
r"""
On `scenes` no change is detected at the paper's λ = 0.1. λ = 1 narrows the gap by one point, and CutOut by five.

**Think:** the gap compares means over *different* sets of answers, since each network decides which answers are a *yes*. How
could a network narrow the gap without changing a single probability above 0.6?

<details><summary>Answer</summary>
It could push answers between 0.5 and 0.6 below 0.5. They are then no longer a *yes*. If these were right less often
than they claimed, by more than the others, the gap of the remaining ones is smaller.
</details>

## 8. Calibration after training

Instead of a loss that calibrates, we can repair the probabilities afterwards: we fit a small map from logits to probabilities on
the **validation** images and leave the network as it is. From the least to the most flexible map:

- `temperature`: $\sigma(z / T)$ with one [temperature](../docs/glossary.md#temperature) $T$ for all classes (Guo et al., 2017);
  `label-temperature`: one for each class;
- `platt`: $\sigma(a z + c)$ for each class; `beta`: three numbers for each class (Kull et al., 2017);
- `isotonic`: any rising line, for each class.

The rule of this course: fit on validation, report on test. The library refuses anything else.
"""

# %% tags=["learn"]
try:
    run.recalibrated("temperature", fit_on="test")
except ValueError as error:
    print("refused:", error)
else:
    raise AssertionError("a calibrator that is fitted on the images that judge it must be refused")

# %% [markdown]
r"""
If a class has no positive on validation, there is nothing to fit. It keeps its sigmoid, and the calibrator says so.
Here this happens to the second of two classes:
"""

# %% tags=["learn"]
import warnings

with warnings.catch_warnings(record=True) as messages:
    warnings.simplefilter("always")
    toy = posthoc.fit_label_temperature([[2.0, -1.0], [1.0, -3.0], [-1.0, -2.0], [3.0, 0.0]],
                                        [[1, 0], [0, 0], [0, 0], [1, 0]])
assert toy.fallbacks == (1,) and toy.temperatures[1] == 1.0 and len(messages) == 1
print("fallbacks:", toy.fallbacks, "  warning:", messages[0].message)

# %% [markdown]
r"""
Which temperatures do we get? $T > 1$ divides logits that were too large: the network was overconfident. $T < 1$ would
mean that it was underconfident.
"""

# %% tags=["learn"]
def fit_one(r):
    return posthoc.fit_temperature(r.val_logits, r.labels("val").targets).temperatures[0]


temperatures = {name: [fit_one(r) for r in group] for name, group in models.items()}
again = torch.sigmoid(run.test_logits.double() / temperatures["λ = 0"][0])
assert torch.allclose(run.recalibrated("temperature"), again)

# %% tags=["report"]
show(plots.seed_intervals(temperatures, "temperature T", "fitted on validation, five seeds (ticks), 95 % intervals"),
     "Temperatures of the four recipes with 95 % intervals over seeds")

# %% tags=["report"]
KINDS = ["none", *posthoc.CALIBRATORS]
SCORES = ["ECE pooled, %", "ECE class-wise, %", "NLL, nats", "mAP, %"] + ["true error class-wise, %"] * (truth is not None)


def scores_of(r, kind):
    q = r.probabilities() if kind == "none" else r.recalibrated(kind)
    values = [100 * expected_calibration_error(q, y, average="pooled"), 100 * expected_calibration_error(q, y),
              calibration.negative_log_likelihood(q, y), 100 * mean_average_precision(q, y, test.difficult)]
    return values + ([] if truth is None else [100 * true_calibration_error(q, truth)])


after = {name: np.array([[scores_of(r, kind) for r in group] for kind in KINDS]) for name, group in models.items()}
assert np.allclose(after["λ = 0"][0, :, 0], 100 * pooled)  # models → (kinds, seeds, scores)

# %% tags=["report"]
def column(name, kind, score):
    """The five seeds' values of one model after one repair."""
    return after[name][KINDS.index(kind), :, SCORES.index(score)]


SHORT = ["none", "T", "T / class", "Platt", "beta", "isotonic"]
by_score = {score: {name: after[name][:, :, k] for name in models} for k, score in enumerate(SCORES)}
show(plots.panels(SHORT, by_score, "", columns=3),
     "Calibration errors, NLL and mAP of four recipes before and after five kinds of post-hoc calibration")

# %% tags=["report"]
pd.DataFrame({(name, kind): {score: spread(column(name, kind, score), 1, 3 if "NLL" in score else 2) for score in SCORES}
              for name in models for kind in KINDS}).T

# %% [markdown]
r"""
One temperature for all classes leaves the order of the images in each class as it was, and with it the AP. So do the maps of each
class as long as they rise. Isotonic regression makes ties, and ties can change the AP. Its NLL may get worse: it answers with
exact zeros, and a label that is present after all then costs a lot.
"""

# %% tags=["report"]
for name in models:
    for kind in ("temperature", "label-temperature"):
        assert np.allclose(column(name, kind, "mAP, %"), column(name, "none", "mAP, %"), atol=1e-6)
with_T = {name: (name, "temperature") for name in models}
QUESTIONS = [("baseline with a temperature, minus λ = 0.1 as trained", with_T["λ = 0"], ("λ = 0.1", "none")),
             ("baseline with a temperature, minus λ = 1 as trained", with_T["λ = 0"], ("λ = 1", "none")),
             ("λ = 0.1 minus the baseline, both with a temperature", with_T["λ = 0.1"], with_T["λ = 0"]),
             ("λ = 1 minus the baseline, both with a temperature", with_T["λ = 1"], with_T["λ = 0"])]
contrasts_T = {question: [difference(column(*a, score), column(*b, score)) for score in ("ECE pooled, %", "NLL, nats")]
               for question, a, b in QUESTIONS}

# %% tags=["report"]
def bold(gap, scale, digits):
    """A difference with its interval, bold where it is detected."""
    words = in_units(gap, scale, digits, "")
    return f"**{words}**" if gap.verdict in ("higher", "lower") else words


rows = [["difference [95 % interval], **bold** where it is detected", "pooled ECE, points", "NLL, nats"]]
rows += [[question, bold(ece, 1, 2), bold(nll, 1, 4)] for question, (ece, nll) in contrasts_T.items()]
say(as_markdown(rows))
if DATA == "scenes" and profile() != "smoke":
    assert [[gap.verdict for gap in gaps] for gaps in contrasts_T.values()] == [
        ["lower", "lower"], ["lower", "lower"], ["not detected", "not detected"], ["lower", "not detected"]]

# %% tags=["report"]
plain = column("λ = 0", "none", "NLL, nats").mean()
gains = {kind: plain - column("λ = 0", kind, "NLL, nats").mean() for kind in KINDS[1:]}
best = max(gains, key=gains.get)
display(pd.DataFrame({kind: {"change of the baseline's NLL, nats": f"{-gain:+.4f}"} for kind, gain in gains.items()}))
say("Mean temperatures: " + ", ".join(f"{np.mean(values):.2f} ({name})" for name, values in temperatures.items()) + ".")
if truth is not None:
    rest = plain - floor["NLL"]
    say(f"The baseline's NLL is {rest:.4f} nats above the floor. The best of the five maps ({best}) removes "
        f"{percent(gains[best] / rest)} of this distance.")
    if DATA == "scenes" and profile() != "smoke":
        assert best == "beta" and gains[best] / rest < 0.1 and gains["isotonic"] < 0
        assert all(np.mean(values) > 1 for values in temperatures.values())

# %% [markdown]
r"""
On `scenes` one temperature on the baseline does more than the branch: its pooled ECE is 1.1 points lower than that of λ = 0.1 and
0.8 points lower than that of λ = 1, and its NLL is lower too. If both get a temperature, λ = 1 has a slightly lower pooled ECE than
the baseline, and no difference of the NLL is detected.

The mean temperature of every recipe is above 1: the networks are overconfident. The best map is `beta` (we chose it on these test images, so it
looks a little better than it is). It removes less than a tenth of the distance to the floor. Isotonic regression makes the NLL
worse. The rest of the distance is a lack of resolution, and no such map can repair that.

## 9. Three regimes

The amount of overfitting decides how much calibration there is to gain. The baseline of this course mirrors its training images at
random. Here we add a regime without any augmentation and one with CutOut, each without the branch and with λ = 1. These
runs exist for `scenes` only, so this section is about `scenes`, whatever `DATA` is.
"""

# %% tags=["report"]
by_regime = {key: [load_or_run(recipe) for recipe in recipes] for key, recipes in regimes().items()}
scene_labels = by_regime["flips", 0.0][0].labels().targets
for lam in (0.0, 1.0):
    curves = {name: reliability_curve(by_regime[name, lam][0].probabilities(), scene_labels, average="pooled")
              for name in REGIMES}
    show(plots.reliability(curves, f"λ = {lam:g}, seed 0", smallest=20),
         f"Reliability curves of three training regimes at λ = {lam:g}")

# %% tags=["report"]
NAMES = {"mAP": "mAP, %", "ECE_pooled": "pooled ECE, %", "overconfidence": "overconfidence, points",
         "true_CE_pooled": "true error, pooled, %", "NLL": "NLL, nats"}
scale = {key: 1 if key == "NLL" else 100 for key in NAMES}
panels = {title: {f"λ = {lam:g}": [scale[key] * stored(by_regime[name, lam], key) for name in REGIMES] for lam in (0.0, 1.0)}
          for key, title in NAMES.items()}
panels = {title: lines for title, lines in panels.items() if np.isfinite(list(lines.values())).all()}
show(plots.panels(list(REGIMES), panels, "", columns=3),
     "Five scores of three training regimes, without the branch and at λ = 1, with 95 % intervals over seeds")

# %% tags=["report"]
def change(name, key):
    """λ = 1 minus λ = 0 within one regime."""
    return difference(stored(by_regime[name, 1.0], key), stored(by_regime[name, 0.0], key))


contrasts = {}
for name in REGIMES:
    for key, title in NAMES.items():
        gap, digits = change(name, key), 4 if key == "NLL" else 2
        contrasts[name, title] = {f"λ = {lam:g}": spread(stored(by_regime[name, lam], key), scale[key], digits)
                                  for lam in (0.0, 1.0)}
        contrasts[name, title] |= {"λ = 1 minus λ = 0": in_units(gap, scale[key], digits, ""), "verdict": gap.verdict}
pd.DataFrame(contrasts).T

# %% tags=["report"]
levels = {name: 100 * stored(by_regime[name, 0.0], "ECE_pooled").mean() for name in REGIMES}
by_choice = max(levels.values()) - min(levels.values())
by_lam = {name: 100 * change(name, "ECE_pooled").mean for name in REGIMES}
most = max(by_lam, key=lambda name: abs(by_lam[name]))
say(f"Without the branch, the pooled ECE goes from {min(levels.values()):.2f} % (*{min(levels, key=levels.get)}*) to "
    f"{max(levels.values()):.2f} % (*{max(levels, key=levels.get)}*), a range of {by_choice:.2f} points. The largest change "
    f"from λ = 0 to λ = 1 within a regime is {by_lam[most]:+.2f} points (*{most}*).")
assert profile() == "smoke" or by_choice > 5 * abs(by_lam[most])

# %% [markdown]
r"""
The regime matters far more than λ for the calibration. Without the branch, the pooled ECE falls from 3.4 % (no augmentation) to
0.8 % (CutOut). The largest change from λ = 0 to λ = 1 within a regime is a quarter of a point.

## 10. On photographs, with today's alternatives

There are other ways than λ to get good probabilities. On the photographs of lesson 03 (section 11), we trained the same network on
hard labels in the ways that people use today, with five seeds each: CutOut, the focal loss ($\gamma = 2$), label smoothing, and the
[asymmetric loss](../docs/glossary.md#asymmetric-loss). We compare them with λ, and with two students that have a teacher: KD, and UD
with Eq. 13 summed (lesson 07). We judge each one as it is, and with one temperature from validation.

First, the paper's Fig. 3 once more, now with ImageNet weights and photographs, as in the paper.
"""

# %% tags=["report"]
from udlib.course.evidence import differences as paired_on, evidence_table
from udlib.course.measurements import metric_values
from udlib.course.photo_arms import photo_branch, photo_calibrators, photo_students

ON_PHOTOS = {"λ = 0": 0.0, "λ = 0.1": 0.1, "λ = 1": 1.0, "λ = 10": 10.0}
photo_yes = {name: [yes(r, r.labels().targets.double()) for r in map(load_or_run, photo_branch(lam))]
             for name, lam in ON_PHOTOS.items()}
show(plots.interval_bars(list(photo_yes), {label: [[100 * both[k] for both in pairs_of] for pairs_of in photo_yes.values()]
                                           for k, label in enumerate(("mean confidence", "share right"))},
                         "per cent of the answers with p ≥ 0.5", "photographs: confidence and accuracy, five seeds"),
     "Mean confidence and share right among confident answers on photographs for λ = 0, 0.1, 1 and 10, with 95 % intervals")

# %% [markdown]
r"""
Without a branch, the network is far too confident: its mean confidence in a *yes* is 74 %, and less than 60 % of these answers are
right. In the paper's figure the gap is narrower with the branch. Here no narrowing is detected at the paper's λ = 0.1, nor at 1. At
λ = 10 the gap is half as wide.
"""

# %% tags=["report"]
narrower = paired_on({name: photo_branch(lam) for name, lam in ON_PHOTOS.items()}, "λ = 0", "overconfidence")
assert [gap.verdict for gap in narrower.values()] == ["not detected", "not detected", "lower"]
pd.DataFrame({name: {"overconfidence, minus that of λ = 0": in_units(gap), "verdict": gap.verdict}
              for name, gap in narrower.items()}).T

# %% tags=["report"]
today = {"hard labels": photo_branch(), **{f"λ = {lam:g}": photo_branch(lam) for lam in (0.1, 1.0, 10.0)}, **photo_calibrators(),
         "KD": photo_students("KD"), "UD, Eq. 13 summed": photo_students(over_classes="sum")}
HEADS = {"mAP": "mAP, %", "ECE_pooled": "pooled ECE, %", "test/temperature ECE_pooled": "with one temperature, %",
         "NLL": "NLL, nats", "test/temperature NLL": "with one temperature, nats"}
say(as_markdown(evidence_table(today, HEADS, "hard labels")))

# %% [markdown]
r"""
What the table shows:

- The focal and the asymmetric loss were not made for calibration, because they weight the labels. The pooled ECE of their
  probabilities is 8 and 27 %. Their mAP is lower here as well.
- Label smoothing changes nothing that five seeds detect.
- λ = 1 lowers the pooled ECE by a tenth of a point. CutOut lowers it by a quarter of a point and raises the mAP by half a point.
  One temperature on plain hard labels lowers it more than either.
- λ = 10, a hundred times the paper's weight, halves the pooled ECE without a teacher. Its pooled ECE is lower than with the
  temperature, and no difference to KD or UD is detected. (It says *yes* less often, and CF1 falls. Lesson 03, section 11, shows
  this, and also λ = 29, which lowers the pooled ECE even more.)
- UD, without any temperature, has a lower pooled ECE than every other row *with* a temperature, except λ = 10, where no difference
  is detected.

The paired differences behind this:
"""

# %% tags=["report"]
minus_hard = {metric: paired_on(today, "hard labels", metric) for metric in HEADS}
lowered = {metric: [name for name, gap in gaps.items() if gap.verdict == "lower"] for metric, gaps in minus_hard.items()}
assert lowered["mAP"] == ["focal loss", "asymmetric loss"] and minus_hard["mAP"]["CutOut"].verdict == "higher"
assert lowered["ECE_pooled"] == ["λ = 1", "λ = 10", "CutOut", "KD", "UD, Eq. 13 summed"]
assert minus_hard["ECE_pooled"]["label smoothing"].verdict == minus_hard["mAP"]["label smoothing"].verdict == "not detected"
as_trained = metric_values(today["UD, Eq. 13 summed"], "ECE_pooled")
gaps_of_ud = {f"UD, Eq. 13 summed, minus {name} with one temperature":
              difference(as_trained, metric_values(today[name], "test/temperature ECE_pooled")) for name in list(today)[:-1]}
for name, gap in gaps_of_ud.items():
    assert gap.verdict == ("not detected" if "λ = 10 " in name else "lower")
pd.DataFrame({name: {"pooled ECE": in_units(gap), "verdict": gap.verdict} for name, gap in gaps_of_ud.items()}).T

# %% tags=["report"]
with_T_on_hard = metric_values(today["hard labels"], "test/temperature ECE_pooled")
rivals = {f"{name} minus hard labels with one temperature": difference(metric_values(today[name], "ECE_pooled"), with_T_on_hard)
          for name in ("λ = 1", "CutOut", "λ = 10")}
assert [gap.verdict for gap in rivals.values()] == ["higher", "higher", "lower"]
students = {f"λ = 10 minus {name}": difference(metric_values(today["λ = 10"], "ECE_pooled"), metric_values(today[name], "ECE_pooled"))
            for name in ("KD", "UD, Eq. 13 summed")}
assert {gap.verdict for gap in students.values()} == {"not detected"}
pd.DataFrame({name: {"pooled ECE": in_units(gap), "verdict": gap.verdict} for name, gap in {**rivals, **students}.items()}).T

# %% [markdown]
r"""
### When the pictures change

A calibrator is fitted on pictures like those of training. Does it still work when a camera is out of focus, or noisy, or used at
dusk? We changed the test photographs in these three ways, each at three strengths. We did not train or fit anything again.
"""

# %% tags=["report"]
SHIFTS = {"blur": "blur", "noise": "noise", "low-light": "low light"}
LINES = {"hard labels": ("hard labels", ""), "with one temperature": ("hard labels", "/temperature"),
         **{name: (name, "") for name in ("λ = 1", "λ = 10", "label smoothing", "UD, Eq. 13 summed")}}


def under(shift, name, kind):
    """The pooled ECE on the photographs as they are and at three strengths of a shift: the seeds of each, in per cent."""
    splits = ["test" + kind, *(f"{shift}-{strength}{kind}" for strength in (1, 2, 3))]
    return [100 * np.array(metric_values(today[name], f"{split} ECE_pooled")) for split in splits]

# %% tags=["report"]
shifted = {f"{title}: pooled ECE, %": {name: under(shift, *which) for name, which in LINES.items()} for shift, title in SHIFTS.items()}
show(plots.panels(["as it is", "1", "2", "3"], shifted, "strength of the shift", columns=3),
     "Pooled ECE under blur, noise and low light of three strengths, for six ways to calibrate, five seeds")

# %% tags=["report"]
def against_temperature(name, shift, strength):
    """The pooled ECE of one of them minus that of hard labels with one temperature, under a shift."""
    split = f"{shift}-{strength}"
    return difference(metric_values(today[name], f"{split} ECE_pooled"),
                      metric_values(today["hard labels"], f"{split}/temperature ECE_pooled"))


rows = [["pooled ECE minus that of hard labels with one temperature, points", "strength 1", "strength 2", "strength 3"]]
seen = {}
for name in ("λ = 1", "λ = 10", "UD, Eq. 13 summed"):
    for shift, title in SHIFTS.items():
        gaps = [against_temperature(name, shift, strength) for strength in (1, 2, 3)]
        seen[name, shift] = [gap.verdict for gap in gaps]
        rows.append([f"{name}, {title}", *(bold(gap, 100, 2) for gap in gaps)])
say(as_markdown(rows).replace("--:", "---"))

# %% [markdown]
r"""
- λ = 1 is worse calibrated than one temperature under all three shifts, at all strengths.
- On clean photographs, and under weak noise or low light (strength 1), λ = 10 and UD are better calibrated than one temperature.
- Under blur the temperature is better than UD at all strengths, and better than λ = 10 at strengths 1 and 2.
- Under the strongest noise the temperature is better than both. Under the strongest low light it is better than UD, and no
  difference to λ = 10 is detected.
- Under noise and low light of strength 2 the results are mixed.

No method stays calibrated when the pictures change much. A calibration error belongs to its test images and says little about
others.
"""

# %% tags=["report"]
assert all(set(seen["λ = 1", shift]) == {"higher"} for shift in SHIFTS)
assert seen["UD, Eq. 13 summed", "blur"] == 3 * ["higher"] and seen["λ = 10", "blur"] == ["higher", "higher", "not detected"]
assert seen["λ = 10", "noise"] == ["lower", "higher", "higher"]
assert seen["λ = 10", "low-light"] == ["lower", "not detected", "not detected"]
assert all(seen["UD, Eq. 13 summed", shift] == ["lower", "not detected", "higher"] for shift in ("noise", "low-light"))

# %% [markdown]
r"""
## 11. Explore: one network, many ECEs

First an overview: five ways to compute the ECE, three recipes, five numbers of bins. Does the order of the recipes ever change?
"""

# %% tags=["report"]
CHOICES = (5, 10, 15, 30, 60)
VARIANTS = {f"{average}, equal {binning}": {"average": average, "binning": binning}
            for average in ("pooled", "classwise") for binning in ("width", "mass")}
VARIANTS["confident, equal width"] = {"average": "pooled", "minimum": 0.5}
glance = {variant: {name: [[100 * expected_calibration_error(r.probabilities(), y, b, **options) for r in group]
                           for b in CHOICES] for name, group in models.items() if name != "λ = 0.1"}
          for variant, options in VARIANTS.items()}
glance = {variant: lines for variant, lines in glance.items() if np.isfinite(list(lines.values())).all()}
show(plots.panels(CHOICES, glance, "number of bins", columns=3),
     "ECE of three recipes under five variants and five numbers of bins, with 95 % intervals over seeds")

# %% [markdown]
r"""
Now look at one network at a time (seed 0). The readings show the estimate, what a perfectly calibrated model would show, and the
error against the posterior. The picture shows the pooled curve. Find a setting where noise is more than half of the estimate.
"""

# %% tags=["report"]
from udlib.course.explorers import Explorer, Frame


def frame(bins, variant, model):
    f, options = models[model][0].probabilities(), VARIANTS[variant]
    curve_here = reliability_curve(f, y, bins, **{**options, "average": "pooled"})
    values = {"estimated ECE": expected_calibration_error(f, y, bins, **options),
              "perfect model": calibration.calibration_noise(f, samples=5, bins=bins, **options)}
    if truth is not None:
        values["true error"] = true_calibration_error(f, truth, bins, **options)
    readings = {name: f"{100 * value:.2f} %" for name, value in values.items()}
    alt = f"{model}, {bins} bins, {variant}: " + ", ".join(f"{name} {value}" for name, value in readings.items())
    return Frame(plots.reliability({model: curve_here}, f"{bins} bins, {variant}"), alt, readings)

# %% tags=["report"]
explorer = Explorer({"bins": list(CHOICES), "variant": list(VARIANTS), "model": list(models)}, frame, start={"bins": 15},
                    note="Seed 0, test images; every label counts as marked.")
assert explorer.value == (15, "pooled, equal width", "λ = 0") and f"{100 * pooled_by_hand:.2f} %" in explorer.readout.value
explorer

# %% [markdown]
r"""
## 12. Verdicts

`udlib.course.verdicts` holds the paper's claims about its branch as data: two lists of runs, a metric, a direction. We add
questions of our own. Each claim gets a [verdict](../docs/glossary.md#verdict) from a paired difference over five seeds, on both
data sets. It *holds* if the interval lies on the claimed side of 0, and it is *reversed* if it lies on the other side.
"""

# %% tags=["report"]
from udlib.course.verdicts import calibration_claims, judge

for recipes in [*sweep().values(), *sweep("digits").values(), tricks()["both"]]:
    for recipe in recipes:
        load_or_run(recipe)  # stored already, unless you are the first to ask
claims = calibration_claims()
judgements = []
for claim in claims:
    try:
        judgements.append(judge(claim))
    except (KeyError, ValueError):  # not measured: no confident answer, or no difficult image
        judgements.append(None)

# %% tags=["report"]
def row(claim, judgement):
    cells = ("–", "not measured")
    if judgement is not None:
        factor, digits, unit = (1, 4, " nats") if "NLL" in claim.metric else (100, 2, " points")
        cells = (in_units(judgement.difference, factor, digits, unit), judgement.verdict)
    return {"claim": claim.question, "source": claim.source, "data": claim.data, "difference": cells[0], "verdict": cells[1]}


pd.set_option("display.max_colwidth", None)
pd.DataFrame([row(claim, judgement) for claim, judgement in zip(claims, judgements)])

# %% tags=["report"]
counts = pd.Series([judgement.verdict if judgement else "not measured" for judgement in judgements]).value_counts()
say(f"{counts.get('holds', 0)} of {len(claims)} claims hold. If nothing had an effect, about {len(claims) / 20:.1f} of the intervals "
    "would exclude 0 by chance. They are not independent either: ECE, true error and NLL are computed from the same networks.")
more = len(tests) + len(by_count) - 1 + len(narrowed) + len(shrunk) + 2 * len(contrasts_T) + len(contrasts)
more += len(narrower) + (len(today) - 1) * (len(HEADS) + 1) + 9 * 2
say(f"Sections 6 to 10 hold {more} more intervals. Among so many, an interval that only just excludes 0 proves little.")
if profile() != "smoke":
    assert counts.to_dict() == {"not detected": 18, "holds": 5}
    at_printed = [judgement.verdict for claim, judgement in zip(claims, judgements)
                  if claim.recipes == sweep(claim.data)[0.1]]
    assert at_printed and set(at_printed) == {"not detected"}

# %% [markdown]
r"""
No claim about λ = 0.1, on either data set, has a detected effect: not on the pooled ECE, the true calibration error or the NLL, and
not on the *Difficult* images. The claims that hold are about λ = 1 and about CutOut.

Be careful when you read this. "Not detected" does not mean "no effect": five seeds can detect an effect of about the size of the
seeds' own spread. The claims take λ = 0.1 as printed, beside a *sum* over the classes. Beside the released code's mean it weighs $C$
times more (lesson 03), so also look at λ = 1. And a verdict on small pictures with a small network says little about ResNet-101 on
VOC2007. Lesson 11 shows how to run the same comparison there.

## 13. More exercises

### Exercise 04.2

Fit a temperature yourself, without an optimiser: of the given `temperatures`, take the one with the lowest NLL on
**validation** (`calibration.negative_log_likelihood(probabilities, targets)`). Return it together with the NLL and
the **pooled** ECE on **test**. Use the test labels to report and for nothing else.
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

# %% tags=["learn"]
check("04.2", my_temperature)

# %% [markdown]
r"""
When your function is right, try `my_temperature(run.val_logits, run.labels("val").targets, run.test_logits, test.targets,
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

# %% tags=["learn"]
check("04.3", my_noise)

# %% [markdown]
r"""
### Exercise 04.4 (optional)

The test of Assumption 1 in its shortest form. Among confident answers (`probabilities >= 0.5`), take the mean of
`targets - probabilities` where the image has at least 3 *other* labels, minus the mean where it has at most 1.
Below 0 means: more overconfident on images with many other labels.
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

# %% tags=["learn"]
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

- A model is calibrated if, of all labels that get a probability of 0.7, seven in ten are present. A base rate is calibrated and
  useless. Proper scores (Brier, NLL) measure calibration and skill together.
- ECE sorts P(y = 1) into bins and averages the size of the gaps, weighted by the number of labels. Report whether it is pooled or
  class-wise, how many bins, and of what kind.
- Pooling lets errors cancel, easy negatives dilute them, bins hide or inflate them, and few images inflate them. The usual
  bootstrap interval does not hold the true error. Always give the noise level beside an ECE.
- A known posterior removes the annotator's randomness, but not the choice of images.
- A count that contains $y_i$ confounds any test of Assumption 1. Test your test on a model that is calibrated for
  sure.
- A temperature is a single number. Compare any loss that should calibrate with it, and with a better-trained
  baseline. On photographs one temperature does more than λ = 1 or CutOut. λ = 10 and students with a teacher do more than the
  temperature.
- A calibration error belongs to its test images. Under blur, noise or low light the order of the methods changes.

What we found on `scenes`:

- At the printed λ = 0.1 no change of calibration or accuracy is detected.
- λ = 1 lowers the pooled ECE by a quarter of a point, and no change of the mAP is detected. One temperature lowers it by
  almost a point more.
- The augmentation of the training images changes the calibration far more than λ does.

The numbers behind these sentences:
"""

# %% tags=["report"]
HEADLINES = {"pooled ECE": "ECE_pooled", "class-wise true error": "true_CE", "overconfidence": "overconfidence", "mAP": "mAP"}
changes = {lam: {name: difference(stored(runs[lam], key), stored(runs[0.0], key)) for name, key in HEADLINES.items()}
           for lam in (0.1, 1.0)}
display(pd.DataFrame({f"λ = {lam:g} minus λ = 0": {name: in_units(gap) if gap.n else "–" for name, gap in gaps.items()}
                      for lam, gaps in changes.items()}).T)
wins = difference(column("λ = 0", "temperature", "ECE pooled, %") / 100, column("λ = 1", "none", "ECE pooled, %") / 100)
say(f"The baseline's ECE is {spread(pooled)} % pooled, {spread(classwise)} % class-wise, and {spread(confident)} % at p ≥ 0.5. A "
    f"perfectly calibrated model on {len(some[0])} images shows a class-wise ECE of {percent(perfect)}. The pooled ECE of the "
    f"baseline with a temperature, minus that of λ = 1 as trained, is {in_units(wins)}.")
if DATA == "scenes" and profile() != "smoke":
    verdicts = {lam: {name: gap.verdict for name, gap in gaps.items()} for lam, gaps in changes.items()}
    assert set(verdicts[0.1].values()) == {"not detected"}
    assert (verdicts[1.0]["pooled ECE"], verdicts[1.0]["mAP"], wins.verdict) == ("lower", "not detected", "lower")

# %% [markdown]
r"""
To see which findings depend on our pictures, set `DATA = "digits"` at the top and run the lesson again.

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
