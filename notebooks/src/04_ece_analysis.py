# %% [markdown]
r"""
# 04 · How calibrated? ECE and its traps

[← 03 · A second branch](03_pal_n_calibration.ipynb) · [05 · Knowledge distillation →](05_knowledge_distillation.ipynb)

**Aim.** You will know what calibration means, compute the error that measures it, and know five ways in which that
number misleads. Then you will test the paper's claims about calibration, and the assumption behind them, on data whose
true probabilities are known.

**Prerequisites.** Lessons 02 and 03: the baseline, the second branch at weight λ, the sweep over λ.

**Time.** Up to two hours with the exercises. The networks are loaded, not trained.
"""

# %% tags=["setup", "report"]
import numpy as np
import pandas as pd
import torch

from udlib import calibration, posthoc
from udlib.figures import plots
from udlib.calibration import expected_calibration_error, reliability_curve, true_calibration_error
from udlib.course.exercises import check, check_guess
from udlib.course.store import load_or_run, profile
from udlib.metrics import mean_average_precision
from udlib.figures.plots import show
from udlib.figures.text import as_markdown
from udlib.course.recipes import REGIMES, SEEDS, regimes, sweep, tricks
from udlib.course.sentences import difference, in_table, percent, say, spread, stored

# %% [markdown]
r"""
Choose the data set here.
"""

# %% tags=["setup", "learn"]
DATA = "scenes"  # or "digits", or the path of a folder in VOC layout

# %% tags=["report"]
def show_gaps(head, gaps, scale=100):
    """A table of differences, paired by seed."""
    rows = [[name, in_table(gap, scale) if gap.n else "–"] for name, gap in gaps.items()]
    say(as_markdown([[head, "points [95 % interval], **bold** where 0 lies outside"], *rows]))

# %% [markdown]
r"""
Code writes the sentences that hold measured numbers. A "point" is one per cent. Differences between two recipes are
[paired by seed](../docs/glossary.md#paired-by-seed).

## 1. First, a picture

We take the networks of lesson 03, and the baseline with CutOut of lesson 02.
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
and each point is a bin: its mean probability, and the share of its labels that are present. Below the diagonal the network is
overconfident. The lower panel counts the labels in each bin.

![Predictions are sorted into bins; each bin is a point at its mean probability and its share of positives, and the mean of the distances from the diagonal, weighted by the number of predictions, is the ECE.](images/reliability_bins.svg)

### Predict

The [expected calibration error (ECE)](../docs/glossary.md#ece-expected-calibration-error) is the mean distance of the points from
the diagonal, weighted by the number of labels in each bin. We can compute it over all labels at once (*pooled*), or for each
class and then take the mean ([*class-wise*](../docs/glossary.md#class-wise-and-pooled)).

Write three guesses. For the third, imagine a model with such probabilities that is *perfectly* calibrated. Its true error is 0.
What will its class-wise ECE be on only 200 test images?
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

Of all labels that get a probability of 0.7, seven in ten are present. We build a world in which every chance is known, with three
forecasters. One always gives the base rate, the overall share of positives. One knows each chance. One knows each chance and
exaggerates: it doubles the logit.
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
The ECE cannot tell the first two forecasters apart. The first is calibrated and useless, because it gives the same number every
time. **Calibration is not skill.**

The [Brier score](../docs/glossary.md#brier-score) (mean squared error of the probability) and the
[NLL](../docs/glossary.md#nll-negative-log-likelihood) (mean log loss) measure both. They are *proper* scores: on average, no
forecast scores better than the true chance.

Murphy (1973) split the Brier score into three terms. With $K$ groups of equal forecast $\bar f_k$, observed share $\bar y_k$,
weight $w_k$, and base rate $\bar y$:

$$\text{Brier} = \underbrace{\sum_k w_k (\bar f_k - \bar y_k)^2}_{\text{reliability}}
- \underbrace{\sum_k w_k (\bar y_k - \bar y)^2}_{\text{resolution}} + \underbrace{\bar y (1 - \bar y)}_{\text{uncertainty}}$$

The first term measures calibration (low is good), the second how well the forecaster separates cases (high is good). The equation is
exact if each forecast is replaced by the mean of its bin.
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
The exaggerating forecaster separates the cases nearly as well as the one who knows each chance. Only its reliability is worse, and
that we can repair after training (section 8). We cannot repair a lack of resolution.

## 3. ECE, by hand

This is Eq. 2 of the paper, and the estimate that is computed in its place. In class $c$, bin $b$ holds $n_{cb}$ of the $N$ images,
with the share of positives $\bar y_{cb}$ and the mean probability $\bar f_{cb}$:

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
We bin $f$ = P(y = 1). Work on single-label networks bins the confidence in the *decision*, $\max(f, 1 - f)$. Then a *no* with
$f = 0.1$ and a *yes* with $f = 0.9$ fall into the same bin, and their errors may cancel.

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
pooled ECE is *never* above the class-wise one, by the triangle inequality. Do the classes of our baseline err in different
directions?
"""

# %% tags=["report"]
for group in models.values():
    assert (stored(group, "ECE_pooled") <= stored(group, "ECE") + 1e-9).all()  # the triangle inequality
mean_p = torch.stack([r.probabilities().mean(0) for r in runs[0.0]]).mean(0)  # over seeds, a value for each class
excess = mean_p - y.mean(0)
rows = excess.argsort(descending=True).tolist()
bars = {"mean probability": 100 * mean_p[rows], "share of positives": 100 * y.mean(0)[rows]}
show(plots.dots([test.classes[k] for k in rows], bars, "per cent of the test images", "the baseline, mean over seeds"),
     "For each class the mean predicted probability and the share of positives on the test images")
floors = [np.mean([calibration.calibration_noise(r.probabilities(), samples=5, average=average) for r in runs[0.0]])
          for average in ("pooled", "classwise")]
say(f"{int((excess > 0).sum())} of {len(excess)} classes get too much probability, the others too little. These errors cancel in "
    f"the pooled ECE ({percent(pooled.mean())}), but not in the class-wise ECE ({percent(classwise.mean())}). That explains only a "
    f"part: even a perfectly calibrated model would show {percent(floors[0])} and {percent(floors[1])} (trap 4).")

# %% [markdown]
r"""
### Trap 2: easy negatives

Most labels of most images are absent, and the network knows it. These easy negatives fill the first bin. Their gap is small,
because there is little room below 0.05. We use 20 bins here, so that 0.05 and 0.5 are edges.
"""

# %% tags=["report"]
curve = reliability_curve(p, y, bins=20, average="pooled")
share, gaps = curve.count / curve.count.sum(), curve.gap.nan_to_num(0)
groups = {"p < 0.05": slice(0, 1), "0.05 to 0.5": slice(1, 10), "p ≥ 0.5": slice(10, 20)}
rows = [["", "share of labels, %", "mean gap, %", "part of the ECE, points"]]
for name, of in groups.items():
    labels, part = 100 * share[of].sum().item(), 100 * (share[of] * gaps[of]).sum().item()
    rows.append([name, f"{labels:.1f}", f"{100 * part / max(labels, 1e-9):.2f}", f"{part:.2f}"])
say(as_markdown(rows))
assert np.isclose((share * gaps).sum(), expected_calibration_error(p, y, 20, "pooled"))
confident = stored(runs[0.0], "ECE_confident")
say(f"The ECE of the confident answers (p ≥ 0.5) is {spread(confident)} %, and that of all labels is {spread(pooled)} %. If we "
    "added a thousand classes that never occur and are never predicted, the second would go towards zero, and the first would stay.")

# %% [markdown]
r"""
Which of the two matters depends on the use: a photo search shows you the confident answers.

### Trap 3: the bins

Errors cancel inside a bin as well, so splitting a bin can only raise the estimate. But narrow bins hold few labels, and then noise
raises the estimate. Most bins of equal **width** are nearly empty. Bins of equal **mass** hold the same number of labels each. So
report which bins you use.
"""

# %% tags=["report"]
BINS = (5, 10, 15, 20, 30, 50, 100)
by_bins = {f"equal {binning}": [100 * np.mean([expected_calibration_error(r.probabilities(), y, b, binning=binning)
                                               for r in runs[0.0]]) for b in BINS] for binning in ("width", "mass")}
by_bins["perfect model, width"] = [100 * calibration.calibration_noise(p, samples=5, bins=b) for b in BINS]
show(plots.lines(BINS, by_bins, "number of bins", "class-wise ECE, per cent", "the same networks, other bins"),
     "Class-wise ECE against the number of bins, for equal width and equal mass, and for a perfectly calibrated model")
nested = [by_bins["equal width"][BINS.index(b)] for b in (5, 10, 50, 100)]  # each splits the bins before it
assert np.all(np.diff(nested) >= -1e-9)
reach = {name: max(values) - min(values) for name, values in by_bins.items()}
say(f"From {BINS[0]} to {BINS[-1]} bins, the estimate for the same networks changes by {reach['equal width']:.2f} points (equal "
    f"width) or {reach['equal mass']:.2f} (equal mass), and that of a perfect model by {reach['perfect model, width']:.2f}.")

# %% [markdown]
r"""
### Trap 4: few images

Suppose that the true share of a bin is 0.6 and that the bin holds ten labels. By chance, five of them may be present. ECE takes
the *absolute* gap, so such errors do not average out. We draw labels from the model's own probabilities. For these labels it is
perfectly calibrated by construction, so all of its ECE is noise. `calibration_noise` computes this.
"""

# %% tags=["learn"]
coins = torch.Generator().manual_seed(0)
draw = torch.bernoulli(p, generator=coins)  # one set of labels from the model's own probabilities
print(f"labels from the model: ECE {100 * expected_calibration_error(p, draw):.2f} %   "
      f"real labels: ECE {100 * expected_calibration_error(p, y):.2f} %")

# %% tags=["report"]
sizes = [len(p) // k for k in (32, 16, 8, 4, 2, 1)]
generator = np.random.default_rng(1)
few = {"baseline": [], "perfect model": []}
for size in [*sizes, min(200, len(p))]:
    picks = [torch.from_numpy(generator.choice(len(p), size, replace=False)) for _ in range(20)]
    noise = [calibration.calibration_noise(p[i], samples=1, seed=k) for k, i in enumerate(picks)]
    few["perfect model"].append(100 * np.mean(noise))
    few["baseline"].append(100 * np.mean([expected_calibration_error(p[i], y[i]) for i in picks]))
perfect = few["perfect model"].pop() / 100  # on 200 images
few["baseline"].pop()
show(plots.lines(sizes, few, "test images", "class-wise ECE, per cent", "the same network on fewer images"),
     "Class-wise ECE against the number of test images, for the baseline and for a perfectly calibrated model")
assert few["perfect model"][0] > 2 * few["perfect model"][-1]  # noise shrinks with the number of images
assert DATA != "scenes" or profile() == "smoke" or perfect > classwise.mean()

# %% tags=["learn"]
check_guess("perfect model on 200 images", guess_perfect, 100 * perfect, " %")

# %% [markdown]
r"""
On `scenes`, a perfectly calibrated model shows a larger class-wise ECE on 200 images than the baseline shows on all 4,000. So report
the noise level beside an ECE, and do not compare the ECEs of test sets of different sizes.

### Trap 5: intervals

A bootstrap [interval](../docs/glossary.md#interval) should hold the truth in 95 of 100 cases. The usual one, the **percentile**
interval, does not do this for ECE: the estimate is already too high because of noise, and resampling adds more noise. The
**basic** interval mirrors the resampled values at the estimate, and so corrects the bias once. We try both 100 times in a world
where the true error is known, with 500 images and 10 classes.
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
Near perfect calibration, neither interval holds the truth in 95 % of the cases. There the basic one is much better. Estimates lie
**outside their own interval**: a percentile interval may lie wholly above its estimate, because resampling adds noise, and a basic
interval wholly below, because it corrects for noise. Neither is a mistake. For the baseline, this happens to the class-wise ECE:
"""

# %% tags=["report"]
rows = [["", "ECE, %", "95 % interval", "a perfect model, %"]]
outside = set()
for average in ("pooled", "classwise"):
    level = calibration.calibration_noise(p, samples=10, average=average)
    for kind in ("percentile", "basic"):
        result = calibration.calibration_interval(expected_calibration_error, p, y, samples=300, kind=kind, average=average)
        estimate, low, high = (100 * value for value in result[:3])
        outside |= set() if low <= estimate <= high else {average}
        rows.append([f"{average}, {kind}", f"{estimate:.2f}", f"[{low:.2f}, {high:.2f}]", f"{100 * level:.2f}"])
say(as_markdown(rows))
largest = calibration.maximum_calibration_error(p, torch.bernoulli(p, generator=coins), 200, "pooled")
assert DATA != "scenes" or profile() == "smoke" or (outside == {"classwise"} and largest > 0.15)

# %% [markdown]
r"""
(The **maximum calibration error** takes the largest gap. With 200 bins, even a perfect model shows one of more than 15 %.)

## 5. The true calibration error

In `scenes` and `digits` the annotator is simulated, so P(y = 1 | scene) is known exactly: the
[posterior](../docs/glossary.md#posterior). The *true calibration error* uses it in place of the labels. How far are the estimates
from it, for every λ and every seed?
"""

# %% tags=["report"]
every_run = [r for group in runs.values() for r in group]
if truth is None:
    say("These data come without a posterior, so nobody knows the true calibration error, and this section stays empty.")
else:
    assert np.isclose(true_calibration_error(p, truth), run.metrics["test"]["true_CE"])
    pairs = {name: (100 * stored(every_run, f"true_CE{suffix}"), 100 * stored(every_run, f"ECE{suffix}"))
             for name, suffix in (("class-wise", ""), ("pooled", "_pooled"))}
    show(plots.scatter(pairs, "true calibration error, per cent", "estimated ECE, per cent",
                       f"{len(every_run)} networks: every λ, every seed"),
         "Estimated ECE over true calibration error, pooled and class-wise, one point for each trained network")
    over = {name: estimate - real for name, (real, estimate) in pairs.items()}
    coin_share = calibration.expected_brier_floor(truth) / (by_bin["weight"] * by_bin["y"] * (1 - by_bin["y"])).sum()
    assert DATA != "scenes" or profile() == "smoke" or (
        all(abs(d.mean()) < 0.05 for d in over.values()) and (over["class-wise"] > 0).mean() > 0.9 and coin_share < 0.25)

# %% [markdown]
r"""
On `scenes` the mean difference is below 0.05 points. The class-wise estimate lies above the truth in nearly all networks. "True"
means: true for *these* images. The annotator's randomness is less than a quarter of the variance of the labels within the bins, and
the posterior removes only that. The choice of test images remains.

The posterior also gives **floors** for the NLL and the Brier score: nobody can predict the annotator's random choice. How much of
the baseline's score is unavoidable?
"""

# %% tags=["report"]
floor = {}
if truth is not None:
    floor = {"NLL": calibration.expected_nll_floor(truth), "Brier": calibration.expected_brier_floor(truth)}
    assert np.isclose(floor["NLL"], run.metrics["test"]["NLL_floor"])
    ideal = {"NLL": torch.distributions.Bernoulli(truth).entropy(), "Brier": truth * (1 - truth)}
    assert all(np.isclose(value, ideal[name].mean(), atol=1e-5) for name, value in floor.items())
    say(as_markdown([["", "baseline", "floor"], *([name, spread(stored(runs[0.0], name), 1, 4), f"{value:.4f}"]
                                                  for name, value in floor.items())]))
    assert DATA != "scenes" or profile() == "smoke" or all(
        value < 0.25 * stored(runs[0.0], name).mean() for name, value in floor.items())

# %% [markdown]
r"""
On `scenes` the floor is less than a quarter of the baseline's score. (It holds for a predictor that knows the whole scene, and a
small picture shows less.)

## 6. Assumption 1

PAL-N was not made for calibration. Why should it improve it? The paper's argument rests on an assumption (Eq. 8). If image 1 has
at least as many labels as image 2, then for every class $i$

$$P\big( \mathbb{E}[y_{1,i} = 1 \mid f_i(x_1)] \le \mathbb{E}[y_{2,i} = 1 \mid f_i(x_2)] \big) \ge 0.5.$$

In words: *at equal confidence, an answer is less often right on an image with more labels*, because many labels mean small,
occluded, difficult objects. The naive test sorts the answers by the image's number of labels $\sum_j y_j$ and compares the share
of positives. We first run it in a world without such an effect: 16 independent labels with chance 0.12, and a model that always
answers 0.12.
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
The naive test finds a strong effect, of the *opposite* sign, in a world that has none. The reason: $y_i$ is itself part of the
count. If we count only the **other** labels, $\sum_{j \ne i} y_j$, the effect is gone.

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
show_gaps("share right, many minus few", {f"counting {name}": gap for name, gap in tests.items()})

# %% [markdown]
r"""
Can we believe the second row? We test the test on two models that are calibrated for sure: one always answers the base rate of the
class, the other answers the posterior. No network can know more than that.
"""

# %% tags=["report"]
controls = {"base rate of the class": (y.mean(0).expand_as(y), 0.0)} | ({} if truth is None else {"posterior": (truth, 0.5)})
assert expected_calibration_error(y.mean(0).expand_as(y), y) < 1e-6  # perfectly calibrated on these images
# bins so narrow that every value of these models stands alone
control = {name: {counted: 100 * at_like_confidence(f, y, *split, bins=1000, minimum=minimum)
                  for counted, split in strata.items()} for name, (f, minimum) in controls.items()}
control["baseline"] = {counted: 100 * np.mean(effect[counted]) for counted in strata}
say(as_markdown([["share right, many minus few, points", *(f"counting {counted}" for counted in strata)],
                 *([name, *(f"{value:+.1f}" for value in values.values())] for name, values in control.items())]))
if DATA == "scenes" and profile() != "smoke":
    assert -8.5 < control["base rate of the class"]["other labels"] < -7 and control["baseline"]["other labels"] < -20
    assert abs(control["posterior"]["other labels"]) < 0.5 < 12 < control["posterior"]["all labels"]

# %% [markdown]
r"""
For the posterior, the number of other labels makes no difference, because the annotator marks each object on its own. But the
base-rate model shows -8 points, although it is perfectly calibrated: a picture has room for a few objects, so one more is less
likely beside three others. Eq. 1 does not require that a model knows this.

So a third test uses no labels for sorting. It sorts by the number of other labels that the network *itself* expects,
$\sum_{j \ne i} f_j$ (above 2.5 against below 1.5). And we can use the posterior in place of the labels.
"""

# %% tags=["report"]
def own_count(r, outcomes):
    f = r.probabilities()
    return at_like_confidence(f, outcomes, others(f) >= 2.5, others(f) <= 1.5)


zeros = np.zeros(len(SEEDS))
by_count = {}
for name, outcomes in {"": y, **({} if truth is None else {", posterior": truth})}.items():
    of_others = [at_like_confidence(r.probabilities(), outcomes, *strata["other labels"]) for r in runs[0.0]]
    by_count[f"by other labels{name}"] = difference(of_others, zeros)
    by_count[f"by the network's own count{name}"] = difference([own_count(r, outcomes) for r in runs[0.0]], zeros)
show_gaps("share right, crowded minus sparse images", by_count)
if DATA == "scenes" and profile() != "smoke":
    assert all(gap.high < 0 and -0.22 < gap.mean < -0.11 for gap in by_count.values())

# %% [markdown]
r"""
On `scenes`, at the same confidence, the network's answers are 12 to 21 points less often right in crowded pictures. The way of
sorting cannot explain all of this. That supports the *idea* of Assumption 1 on these data. It does not show that difficulty is the
cause.

Read literally, Eq. 8 says something else. The expectation *given* $f_i$ is a function of $f_i$ alone, and it rises with $f_i$. So
Eq. 8 says that $f_i$ itself tends to be no higher on the image with more labels. We test this on pairs of images:
"""

# %% tags=["learn"]
first, second = torch.randint(len(p), (2, 100_000), generator=torch.Generator().manual_seed(0))


def literal(counts):
    """For each class, how often f_i(x1) ≤ f_i(x2) where image 1 has at least as many labels."""
    held = (p[first] <= p[second]) & (counts[first] >= counts[second])
    return held.sum(0) / (counts[first] >= counts[second]).sum(0)


holds_in = {name: int((literal(counts) >= 0.5).sum())
            for name, counts in (("all labels", total), ("other labels", others(y)))}
assert DATA != "scenes" or profile() == "smoke" or list(holds_in.values()) == [4, 15]
print("Eq. 8 holds in so many of", p.shape[1], "classes, counting", holds_in)

# %% [markdown]
r"""
If the branch acts as the assumption says, its answers lose less on crowded images as λ grows. Five seeds detect no such change:
"""

# %% tags=["report"]
narrowed = {}
for name in ("λ = 0.1", "λ = 1"):
    values = [at_like_confidence(r.probabilities(), y, *strata["other labels"]) for r in models[name]]
    narrowed[name] = difference(np.abs(values), np.abs(effect["other labels"]))
show_gaps("size of the effect, minus that at λ = 0", narrowed)
if DATA == "scenes" and profile() != "smoke":
    assert {gap.verdict for gap in narrowed.values()} == {"not detected"}

# %% [markdown]
r"""
**From Eq. 8 to ECE.** The paper's next step (Eq. 9) writes the PAL-N risk with an $\ell_1$ loss. Where an image has many labels,
the target $P(y_i{=}1|x) \cdot \mathbb{E}[1/(1+\sum_{j\ne i} y_j)]$ is small, so $f_i$ is pulled down. By Assumption 1 the share
right is lower there too, so a lower $f_i$ means a lower ECE. But this $f$ is the softmax of the second branch, while we measure the
sigmoids, which share only the backbone. So experiments must decide.

## 7. The paper's Fig. 3, with error bars

Fig. 3 of the paper compares confidence and accuracy with and without the branch. Here is our version, for all answers with
$p \ge 0.5$.
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
shrunk = {name: difference(stored(group, "overconfidence"), stored(runs[0.0], "overconfidence"))
          for name, group in models.items() if name != "λ = 0"}
show_gaps("overconfidence (the gap between both bars), minus the baseline's", shrunk)
if DATA == "scenes" and profile() != "smoke":
    assert [gap.verdict for gap in shrunk.values()] == ["not detected", "lower", "lower"]

# %% [markdown]
r"""
On `scenes` no change is detected at the paper's λ = 0.1. λ = 1 narrows the gap by one point, and CutOut by five.

**Think:** the gap compares means over *different* sets of answers, since each network decides which answers are a *yes*. How
could a network narrow the gap without changing any probability above 0.6?

<details><summary>Answer</summary>
It could push answers between 0.5 and 0.6 below 0.5. If these were right less often than they claimed, by more than the others,
the gap of the remaining ones is smaller.
</details>

## 8. Calibration after training

We can also repair the probabilities afterwards: we fit a small map from logits to probabilities on the **validation** images and
leave the network as it is. From the least to the most flexible map:

- `temperature`: $\sigma(z / T)$ with one [temperature](../docs/glossary.md#temperature) $T$ for all classes (Guo et al., 2017);
  `label-temperature`: one for each class;
- `platt`: $\sigma(a z + c)$ for each class; `beta`: three numbers for each class (Kull et al., 2017);
- `isotonic`: any rising line, for each class.
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

# %% [markdown]
r"""
One temperature keeps the order of the images in each class, and with it the AP. So do all maps of a class that rise. Isotonic
regression makes ties, and ties can change the AP. It also answers with exact zeros, and a label that is present after all then
costs a lot of NLL.
"""

# %% tags=["report"]
def compared(a, b):
    """Pooled ECE and NLL of one model after one repair, minus those of another, paired by seed."""
    return [difference(column(*a, score), column(*b, score)) for score in ("ECE pooled, %", "NLL, nats")]


T = {name: (name, "temperature") for name in models}
contrasts_T = {"baseline with a temperature, minus λ = 0.1 as trained": compared(T["λ = 0"], ("λ = 0.1", "none")),
               "baseline with a temperature, minus λ = 1 as trained": compared(T["λ = 0"], ("λ = 1", "none")),
               "λ = 0.1 minus the baseline, both with a temperature": compared(T["λ = 0.1"], T["λ = 0"]),
               "λ = 1 minus the baseline, both with a temperature": compared(T["λ = 1"], T["λ = 0"])}
say(as_markdown([["difference [95 % interval], **bold** where it is detected", "pooled ECE, points", "NLL, nats"],
                 *([question, in_table(ece, 1), in_table(nll, 1, 4)] for question, (ece, nll) in contrasts_T.items())]))
if DATA == "scenes" and profile() != "smoke":
    assert [[gap.verdict for gap in gaps] for gaps in contrasts_T.values()] == [
        ["lower", "lower"], ["lower", "lower"], ["not detected", "not detected"], ["lower", "not detected"]]

# %% tags=["report"]
for name in models:
    for kind in ("temperature", "label-temperature"):
        assert np.allclose(column(name, kind, "mAP, %"), column(name, "none", "mAP, %"), atol=1e-6)
plain = column("λ = 0", "none", "NLL, nats").mean()
gains = {kind: plain - column("λ = 0", kind, "NLL, nats").mean() for kind in KINDS[1:]}
best = max(gains, key=gains.get)
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
0.8 points lower than that of λ = 1, and its NLL is lower too. If both get a temperature, λ = 1 has a slightly lower pooled ECE.

All mean temperatures are above 1, so the networks were overconfident. Even the best map removes less than a tenth of the distance to
the floor. The rest is a lack of resolution, which no such map can repair.

## 9. Three regimes

The baseline mirrors its training images at random. Here we add a regime without any augmentation and one with CutOut, each without
the branch and with λ = 1. (These runs exist for `scenes` only.)
"""

# %% tags=["report"]
by_regime = {key: [load_or_run(recipe) for recipe in recipes] for key, recipes in regimes().items()}
NAMES = {"mAP": "mAP, %", "ECE_pooled": "pooled ECE, %", "overconfidence": "overconfidence, points",
         "true_CE_pooled": "true error, pooled, %", "NLL": "NLL, nats"}
panels = {title: {f"λ = {lam:g}": [(1 if key == "NLL" else 100) * stored(by_regime[name, lam], key) for name in REGIMES]
                  for lam in (0.0, 1.0)} for key, title in NAMES.items()}
panels = {title: lines for title, lines in panels.items() if np.isfinite(list(lines.values())).all()}
show(plots.panels(list(REGIMES), panels, "", columns=3),
     "Five scores of three training regimes, without the branch and at λ = 1, with 95 % intervals over seeds")
ece = {place: 100 * stored(group, "ECE_pooled").mean() for place, group in by_regime.items()}
by_lam = [abs(ece[name, 1.0] - ece[name, 0.0]) for name in REGIMES]
if profile() != "smoke":
    assert round(ece["no augmentation", 0.0], 1) == 3.4 and round(ece["CutOut", 0.0], 1) == 0.8
    assert 0.2 < max(by_lam) < 0.3

# %% [markdown]
r"""
The augmentation matters far more than λ. Without the branch, the pooled ECE falls from 3.4 % (no augmentation) to 0.8 % (CutOut).
The largest change from λ = 0 to λ = 1 within a regime is a quarter of a point.

## 10. On photographs, with today's alternatives

On the photographs of lesson 03 (section 11), we trained the same network in the ways that people use today: CutOut, the focal loss
($\gamma = 2$), label smoothing, and the [asymmetric loss](../docs/glossary.md#asymmetric-loss). We compare them with λ, and with two
students that have a teacher: KD, and UD with Eq. 13 summed (lesson 07). We judge each as it is, and with one temperature from
validation.

First, the paper's Fig. 3 once more, now on photographs.
"""

# %% tags=["report"]
from udlib.course.evidence import differences as paired_on, evidence_table
from udlib.course.measurements import metric_values
from udlib.course.photo_arms import photo_branch, photo_calibrators, photo_students

ON_PHOTOS = {"λ = 0": 0.0, "λ = 0.1": 0.1, "λ = 1": 1.0, "λ = 10": 10.0}
photo_yes = {name: np.array([yes(r, r.labels().targets.double()) for r in map(load_or_run, photo_branch(lam))])
             for name, lam in ON_PHOTOS.items()}
show(plots.interval_bars(list(photo_yes), {label: [100 * values[:, k] for values in photo_yes.values()]
                                           for k, label in enumerate(("mean confidence", "share right"))},
                         "per cent of the answers with p ≥ 0.5", "photographs: confidence and accuracy, five seeds"),
     "Mean confidence and share right among confident answers on photographs for λ = 0, 0.1, 1 and 10, with 95 % intervals")
narrower = paired_on({name: photo_branch(lam) for name, lam in ON_PHOTOS.items()}, "λ = 0", "overconfidence")
assert [gap.verdict for gap in narrower.values()] == ["not detected", "not detected", "lower"]
assert (photo_yes["λ = 0"].mean(0) * 100).round().tolist()[0] == 74 and photo_yes["λ = 0"].mean(0)[1] < 0.6

# %% [markdown]
r"""
Without a branch, the mean confidence in a *yes* is 74 %, and less than 60 % of these answers are right. No narrowing of this gap is
detected at the paper's λ = 0.1, nor at 1. At λ = 10 the gap is about half as wide.
"""

# %% tags=["report"]
today = {"hard labels": photo_branch(), **{f"λ = {lam:g}": photo_branch(lam) for lam in (0.1, 1.0, 10.0)}, **photo_calibrators(),
         "KD": photo_students("KD"), "UD, Eq. 13 summed": photo_students(over_classes="sum")}
HEADS = {"mAP": "mAP, %", "ECE_pooled": "pooled ECE, %", "test/temperature ECE_pooled": "with one temperature, %",
         "NLL": "NLL, nats", "test/temperature NLL": "with one temperature, nats"}
say(as_markdown(evidence_table(today, HEADS, "hard labels")))

# %% [markdown]
r"""
- The focal and the asymmetric loss have a pooled ECE of 8 and 27 %, and a lower mAP. Label smoothing changes nothing that five seeds
  detect.
- λ = 1 lowers the pooled ECE by a tenth of a point. CutOut lowers it by a quarter of a point and raises the mAP by half a point.
  One temperature on plain hard labels lowers it more than either.
- λ = 10, a hundred times the paper's weight, halves the pooled ECE without a teacher. It is lower than with the temperature, and no
  difference to KD or UD is detected. But CF1 falls (lesson 03, section 11).
- UD, without any temperature, has a lower pooled ECE than every other row *with* a temperature, except λ = 10, where no difference
  is detected.
"""

# %% tags=["report"]
minus_hard = {metric: paired_on(today, "hard labels", metric) for metric in HEADS}
lowered = {metric: [name for name, gap in gaps.items() if gap.verdict == "lower"] for metric, gaps in minus_hard.items()}
assert lowered["mAP"] == ["focal loss", "asymmetric loss"] and minus_hard["mAP"]["CutOut"].verdict == "higher"
assert lowered["ECE_pooled"] == ["λ = 1", "λ = 10", "CutOut", "KD", "UD, Eq. 13 summed"]
assert minus_hard["ECE_pooled"]["label smoothing"].verdict == minus_hard["mAP"]["label smoothing"].verdict == "not detected"
as_it_is, warm = ({name: metric_values(recipes, metric) for name, recipes in today.items()}
                  for metric in ("ECE_pooled", "test/temperature ECE_pooled"))
rivals = {f"{name} minus hard labels with one temperature": difference(as_it_is[name], warm["hard labels"])
          for name in ("λ = 1", "CutOut", "λ = 10")}
rivals |= {f"λ = 10 minus {name}": difference(as_it_is["λ = 10"], as_it_is[name]) for name in ("KD", "UD, Eq. 13 summed")}
show_gaps("pooled ECE", rivals)
assert [gap.verdict for gap in rivals.values()] == ["higher", "higher", "lower", "not detected", "not detected"]
for name in list(today)[:-1]:
    gap = difference(as_it_is["UD, Eq. 13 summed"], warm[name])
    assert gap.verdict == ("not detected" if name == "λ = 10" else "lower")

# %% [markdown]
r"""
### When the pictures change

Does a calibrator still work when a camera is out of focus, or noisy, or used at dusk? We changed the test photographs in these
three ways, each at three strengths. We did not train or fit anything again.
"""

# %% tags=["report"]
SHIFTS = {"blur": "blur", "noise": "noise", "low-light": "low light"}
LINES = {"hard labels": ("hard labels", ""), "with one temperature": ("hard labels", "/temperature"),
         **{name: (name, "") for name in ("λ = 1", "λ = 10", "label smoothing", "UD, Eq. 13 summed")}}


def ece_of(name, split):
    """The pooled ECE of each seed on the photographs of a split, in per cent."""
    return 100 * np.array(metric_values(today[name], f"{split} ECE_pooled"))


shifted = {f"{title}: pooled ECE, %": {line: [ece_of(name, split + kind) for split in ("test", *(f"{shift}-{k}" for k in (1, 2, 3)))]
                                       for line, (name, kind) in LINES.items()} for shift, title in SHIFTS.items()}
show(plots.panels(["as it is", "1", "2", "3"], shifted, "strength of the shift", columns=3),
     "Pooled ECE under blur, noise and low light of three strengths, for six ways to calibrate, five seeds")

# %% tags=["report"]
moved = {(name, shift): [difference(ece_of(name, f"{shift}-{k}"), ece_of("hard labels", f"{shift}-{k}/temperature"))
                         for k in (1, 2, 3)] for name in ("λ = 1", "λ = 10", "UD, Eq. 13 summed") for shift in SHIFTS}
rows = [["pooled ECE minus that of hard labels with one temperature, points", "strength 1", "strength 2", "strength 3"]]
rows += [[f"{name}, {SHIFTS[shift]}", *(in_table(gap, 1) for gap in gaps)] for (name, shift), gaps in moved.items()]
say(as_markdown(rows).replace("--:", "---"))
seen = {place: [gap.verdict for gap in gaps] for place, gaps in moved.items()}
assert all(seen["λ = 1", shift] == 3 * ["higher"] for shift in SHIFTS)
assert seen["UD, Eq. 13 summed", "blur"] == 3 * ["higher"] and seen["λ = 10", "blur"] == ["higher", "higher", "not detected"]
assert seen["λ = 10", "noise"] == ["lower", "higher", "higher"]
assert seen["λ = 10", "low-light"] == ["lower", "not detected", "not detected"]
assert all(seen["UD, Eq. 13 summed", shift] == ["lower", "not detected", "higher"] for shift in ("noise", "low-light"))

# %% [markdown]
r"""
- λ = 1 is worse calibrated than one temperature under all three shifts, at all strengths.
- On clean photographs, and under noise or low light of strength 1, λ = 10 and UD are better calibrated than one temperature.
- Under blur the temperature is better than UD at all strengths, and better than λ = 10 at strengths 1 and 2. It is also better than
  both under the strongest noise.

A calibration error belongs to its test images and says little about others.

## 11. Explore: one network, many ECEs

The readings show the estimate, what a perfectly calibrated model would show, and the error against the posterior; the picture shows
the pooled curve. Find a setting where noise is more than half of the estimate.
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
VARIANTS = {f"{average}, equal {binning}": {"average": average, "binning": binning}
            for average in ("pooled", "classwise") for binning in ("width", "mass")}
VARIANTS["confident, equal width"] = {"average": "pooled", "minimum": 0.5}
explorer = Explorer({"bins": [5, 10, 15, 30, 60], "variant": list(VARIANTS), "model": list(models)}, frame, start={"bins": 15},
                    note="Seed 0, test images; every label counts as marked.")
assert explorer.value == (15, "pooled, equal width", "λ = 0") and f"{100 * pooled_by_hand:.2f} %" in explorer.readout.value
explorer

# %% [markdown]
r"""
## 12. Verdicts

Each claim of the paper about its branch, and each question of our own, gets a [verdict](../docs/glossary.md#verdict) from a paired
difference over five seeds. It *holds* if the interval lies on the claimed side of 0.
"""

# %% tags=["report"]
from udlib.course.evidence import train_missing
from udlib.course.report import verdicts
from udlib.course.verdicts import calibration_claims

for data in ("scenes", "digits"):
    train_missing(sweep(data))
train_missing({"CutOut": tricks()["both"]})
claims = calibration_claims()
rows = verdicts(claims)
say(as_markdown(rows).replace("--:", "---"))
if profile() != "smoke":
    held = [row[0] for row in rows[1:] if row[-1] == "**holds**"]
    assert (len(held), len(claims)) == (5, 23) and all("λ = 1 " in question or "CutOut" in question for question in held)
    at_printed = {row[-1] for claim, row in zip(claims, rows[1:]) if claim.recipes == sweep(claim.data)[0.1]}
    assert at_printed == {"**not detected**"}

# %% [markdown]
r"""
Five of 23 claims hold; about one would by chance. They are about λ = 1 and about CutOut. λ = 0.1 has no detected effect in
any claim, on either data set.

"Not detected" does not mean "no effect": five seeds can detect an effect of about the size of the seeds' own spread. And a verdict
on a small network says little about ResNet-101 on VOC2007. Lesson 11 shows how to run the comparison there.

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
perfect. A resampled set holds images twice, so each bootstrap ECE is too high (trap 5). The 3.4 % of the baseline is uncertain
too. And one network says nothing about its method: it takes several seeds, and the interval of the *paired* differences. The
authors should give the noise level beside each ECE, pooled and class-wise, for two numbers of bins; the NLL, which needs no bins;
the mAP; and the baseline with one temperature fitted on validation.

</details>

## Summary

- A base rate is calibrated and useless. Proper scores (Brier, NLL) measure calibration and skill together.
- Pooling lets errors cancel, easy negatives dilute them, bins hide or inflate them, and few images inflate them. The usual bootstrap
  interval does not hold the true error. Say how an ECE was computed, and give its noise level.
- A count that contains $y_i$ confounds any test of Assumption 1. Test your test on a model that is calibrated for sure.
- On `scenes`, at the printed λ = 0.1 no change of calibration or accuracy is detected. λ = 1 lowers the pooled ECE by a quarter of
  a point, and no change of the mAP is detected. One temperature lowers it by almost a point more. The augmentation changes it
  far more than λ does.
- On photographs one temperature does more than λ = 1 or CutOut. λ = 10 and students with a teacher do more than the temperature.
  Under blur, noise or low light the order of the methods changes.

The numbers behind the findings on `scenes`:
"""

# %% tags=["report"]
HEADLINES = {"pooled ECE": "ECE_pooled", "class-wise true error": "true_CE", "overconfidence": "overconfidence", "mAP": "mAP"}
changes = {f"{name}, λ = {lam:g} minus λ = 0": difference(stored(runs[lam], key), stored(runs[0.0], key))
           for lam in (0.1, 1.0) for name, key in HEADLINES.items()}
wins = difference(column("λ = 0", "temperature", "ECE pooled, %") / 100, column("λ = 1", "none", "ECE pooled, %") / 100)
show_gaps("", {**changes, "pooled ECE, baseline with a temperature minus λ = 1 as trained": wins})
if DATA == "scenes" and profile() != "smoke":
    found = [gap.verdict for gap in changes.values()]
    assert found == [*4 * ["not detected"], "lower", "lower", "lower", "not detected"] and -0.01 < wins.mean < -0.007
    assert wins.verdict == "lower" and -0.003 < changes["pooled ECE, λ = 1 minus λ = 0"].mean < -0.002

# %% [markdown]
r"""
To see which findings depend on our pictures, set `DATA = "digits"` at the top and run the lesson again.

## Further reading

- L. Song et al., *Handling Difficult Labels for Multi-label Image Classification via Uncertainty Distillation*, ACM
  MM 2021: Eq. 1, 2, 8 and 9, and Fig. 3.
- A. H. Murphy, *A New Vector Partition of the Probability Score*, Journal of Applied Meteorology 1973.
- T. Gneiting and A. E. Raftery, *Strictly Proper Scoring Rules, Prediction, and Estimation*, JASA 2007.
- C. Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017: temperature scaling.
- M. Kull, T. Silva Filho and P. Flach, *Beta calibration*, AISTATS 2017.
- J. Nixon et al., *Measuring Calibration in Deep Learning*, CVPR Workshops 2019: class-wise and adaptive bins.
- A. Kumar, P. Liang and T. Ma, *Verified Uncertainty Calibration*, NeurIPS 2019: why binned estimates mislead.
- R. Roelofs et al., *Mitigating Bias in Calibration Error Estimation*, AISTATS 2022.
"""

# %% [markdown]
r"""
## Quiz

What do you know after this lesson?
"""

# %% tags=["report"]
from udlib.course.quizzes import quiz

quiz("04")

# %% [markdown]
r"""
The next quiz joins lessons 03 and 04.
"""

# %% tags=["report"]
quiz("block 2")
