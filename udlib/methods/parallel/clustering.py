"""Partitions of the classes for Parallel Self-Distillation: spectral clustering of a graph of labels.

`udlib.methods.parallel` exports the public functions, beside the method that trains on the parts.

Source: PSD = Xu et al., Parallel Self-Distillation, 2022.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import SpectralClustering
from sklearn.metrics import calinski_harabasz_score
from torch import Tensor

from udlib.files import atomic_write
from udlib.training.checkpoints import fingerprint
from udlib.training.optimization import mixed_seed

# Number of spectral clusterings, of which the best is kept, and k-means starts of each.
SEEDS, RESTARTS = 8, 10
Parts = list[list[int]]


def label_affinity(cooccurrence, counts) -> np.ndarray:
    """Affinity of each pair of labels: S = (A + Aᵀ)/2 with A_ij = sqrt(M_ij / N_j).

    Args:
        cooccurrence: (C, C), M_ij, the number of images with both classes; its diagonal does not matter.
        counts: (C,), N_j, the number of images with class j.

    Returns:
        float64 (C, C) in [0, 1], symmetric, with diagonal 0; a class without positives has affinity 0 to all.

    Raises:
        ValueError: another shape, entries that are negative, not finite or not symmetric, M_ij > N_j.

    Source: PSD.
    """
    M, N = np.array(cooccurrence, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    if M.ndim != 2 or M.shape[0] != M.shape[1] or not len(M):
        raise ValueError(f"cooccurrence has shape {M.shape}: expected (C, C), one row and one column for each class")
    if N.shape != (len(M),):
        raise ValueError(f"counts have shape {N.shape} but cooccurrence has {len(M)} classes: expected ({len(M)},)")
    for name, value in {"cooccurrence": M, "counts": N}.items():
        if len(wrong := np.argwhere(~(np.isfinite(value) & (value >= 0)))):
            where = wrong[0].tolist()
            raise ValueError(f"{name} hold {value[tuple(where)]} at {where}: expected numbers of images, 0 or more")
    np.fill_diagonal(M, 0)
    if len(wrong := np.argwhere(M != M.T)):
        i, j = wrong[0].tolist()
        raise ValueError(
            f"cooccurrence is not symmetric, {M[i, j]:g} at [{i}, {j}] and {M[j, i]:g} at [{j}, {i}]: "
            "count the images with both classes, as Y^T Y does"
        )
    if len(wrong := np.argwhere(M > N)):
        i, j = wrong[0].tolist()
        raise ValueError(
            f"{M[i, j]:g} images hold classes {i} and {j} but only {N[j]:g} hold class {j}: "
            "count both over the same images"
        )
    A = np.sqrt(np.divide(M, N, out=np.zeros_like(M), where=N > 0))
    return (A + A.T) / 2


def cooccurrence_partition(targets=None, k: int = 3, seed: int = 0, cooccurrence=None, counts=None) -> Parts:
    """Partition the classes so that those which often occur in one image share a part (CGP).

    It is a spectral clustering of S (`label_affinity`). Of 8 clusterings with 10 k-means starts each, it keeps the one
    with the best Calinski-Harabasz score of S's rows. k = 1 is one part and k = C one class each, whatever the labels.

    Classes without positives have no place in the graph: each in turn joins the smallest part. A graph that is not
    connected is clustered with a thousandth of its mean affinity added to every pair, so that its eigenvectors are
    defined.

    Args:
        targets: (N, C) labels in {0, 1}; or None together with `cooccurrence`.
        k: number of parts, from 1 to C.
        seed: the same seed gives the same partition.
        cooccurrence: (C, C), number of images with both classes; or None together with `targets`.
        counts: (C,), number of images with each class; default: the diagonal of `cooccurrence`.

    Returns:
        Lists of class indices: each class in exactly one part, parts sorted, ordered by their first class.

    Raises:
        ValueError: k < 1, k > C, 1 < k < C with fewer than k classes that have positives or with no two classes that
            share an image, and as `label_affinity`.

    Example:
        >>> cooccurrence_partition([[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1]], k=2)
        [[0, 1], [2, 3]]

    Source: PSD.
    """
    M, N = _counted(targets, cooccurrence, counts)
    return _partition(label_affinity(M, N), N, k, seed, lambda S: S)


def disoccurrence_partition(targets=None, k: int = 3, seed: int = 0, cooccurrence=None, counts=None) -> Parts:
    """Partition the classes so that those which seldom occur in one image share a part (DGP).

    It is `cooccurrence_partition` on 1 − S. For a sparse graph 1 − S is nearly flat, and another seed may give other
    parts: keep the seed, or use `stored_partition`.

    Args:
        targets: (N, C) labels in {0, 1}; or None together with `cooccurrence`.
        k: number of parts, from 1 to C.
        seed: the same seed gives the same partition.
        cooccurrence: (C, C), number of images with both classes; or None together with `targets`.
        counts: (C,), number of images with each class; default: the diagonal of `cooccurrence`.

    Returns:
        Lists of class indices: each class in exactly one part, parts sorted, ordered by their first class.

    Raises:
        ValueError: as `cooccurrence_partition`.

    Example:
        >>> disoccurrence_partition([[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1]], k=1)
        [[0, 1, 2, 3]]

    Source: PSD.
    """
    M, N = _counted(targets, cooccurrence, counts)
    return _partition(label_affinity(M, N), N, k, seed, lambda S: 1 - S)


def _counted(targets, cooccurrence, counts) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of images M (both classes) and N (each class), from the labels or from `cooccurrence` and `counts`."""
    if (targets is None) == (cooccurrence is None):
        raise ValueError("pass either targets, (N, C) labels, or cooccurrence with counts")
    if targets is None:
        M = np.asarray(cooccurrence, dtype=np.float64)
        if counts is None and M.ndim == 2 and not M.diagonal().any():
            raise ValueError(
                "counts is None and the diagonal of cooccurrence is 0: pass the number of images of each class"
            )
        return M, M.diagonal() if counts is None and M.ndim == 2 else counts
    if counts is not None:
        raise ValueError("counts belong to cooccurrence, and targets are counted anyway: leave counts out")
    Y = np.asarray(targets.cpu() if isinstance(targets, Tensor) else targets)
    if Y.ndim != 2 or 0 in Y.shape:
        raise ValueError(f"targets have shape {Y.shape}: expected (N, C), nothing empty")
    if len(wrong := np.argwhere((Y != 0) & (Y != 1))):
        where = wrong[0].tolist()
        raise ValueError(f"targets hold {Y[tuple(where)]} at {where}: expected only 0 and 1")
    Y = Y.astype(np.float64)  # products of float64 are exact up to 2^53 images, and fast
    return Y.T @ Y, Y.sum(0)


def _partition(S: np.ndarray, counts: np.ndarray, k: int, seed: int, graph: Callable) -> Parts:
    """The k parts of the classes; `graph` makes the affinities to cluster from S."""
    if not 1 <= k <= len(S):
        raise ValueError(f"k is {k}: expected 1 to {len(S)} parts, as there are {len(S)} classes")
    if seed < 0:
        raise ValueError(f"seed is {seed}: expected at least 0")
    if k == 1:
        return [list(range(len(S)))]
    if k == len(S):
        return [[c] for c in range(len(S))]
    present = np.flatnonzero(np.asarray(counts) > 0)
    if len(present) < k:
        raise ValueError(
            f"k is {k} but only {len(present)} of {len(S)} classes have a positive label: use k = {len(present)} or less"
        )
    if not S.any():
        raise ValueError("no two classes ever share an image, so their graph has no edge to cut: use k = 1")
    labels = np.arange(k) if len(present) == k else _clusters(graph(S[np.ix_(present, present)]), k, seed)
    parts = [present[labels == label].tolist() for label in range(k)]
    for absent in sorted({*range(len(S))} - {*present.tolist()}):
        min(parts, key=lambda part: (len(part), part)).append(absent)
    return sorted(sorted(part) for part in parts)


def _clusters(graph: np.ndarray, k: int, seed: int) -> np.ndarray:
    """The spectral clustering with the best Calinski-Harabasz score, the first of equals."""
    edges = graph - np.diag(graph.diagonal())
    if connected_components(edges, directed=False, return_labels=False) > 1:
        edges += 1e-3 * (edges.mean() or 1.0)
    candidates = []
    for attempt in range(SEEDS):
        spectral = SpectralClustering(
            k, affinity="precomputed", n_init=RESTARTS, random_state=mixed_seed(seed, attempt)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about fewer than k clusters, which are not kept
            labels = spectral.fit_predict(edges)
        if len(set(labels)) == k:
            candidates.append((calinski_harabasz_score(graph, labels), -attempt, labels))
    if not candidates:
        raise ValueError(f"spectral clustering found no {k} parts of {len(graph)} classes: use a smaller k")
    return max(candidates, key=lambda candidate: candidate[:2])[2]


def random_partition(parts: Sequence[Sequence[int]], seed: int = 0) -> Parts:
    """Shuffle the classes among parts of the same sizes: the control of a partition.

    Args:
        parts: lists of class indices, a partition of 0 to C − 1.
        seed: of the shuffle.

    Returns:
        Parts of the same sizes, sorted.
    """
    order = torch.randperm(sum(map(len, parts)), generator=torch.Generator().manual_seed(mixed_seed(seed, 1))).tolist()
    return sorted(sorted(order.pop() for _ in part) for part in parts)


def require_partition(parts: Sequence[Sequence[int]], num_classes: int) -> None:
    """Raise ValueError unless the parts are a partition of the classes.

    Args:
        parts: lists of class indices.
        num_classes: C.

    Raises:
        ValueError: a class that is missing, doubled or unknown, an empty part.
    """
    if sorted(c for part in parts for c in part) != list(range(num_classes)) or not all(parts):
        raise ValueError(f"parts {parts} are not a partition of {num_classes} classes: put each into one part")


def stored_partition(path: str | Path, strategy: str, targets, k: int = 3, seed: int = 0) -> Parts:
    """Read a partition from a JSON file; where there is none, compute it and save it first.

    The file names the strategy, k, the seed and the labels of the partition.

    Args:
        path: the file.
        strategy: "CGP" (`cooccurrence_partition`) or "DGP" (`disoccurrence_partition`).
        targets: (N, C) labels in {0, 1}.
        k: number of parts.
        seed: of the clustering.

    Returns:
        Lists of class indices.

    Raises:
        ValueError: a file of another strategy, k, seed or other labels, a damaged file, an unknown strategy, and as
            `cooccurrence_partition`.
        OSError: a file that cannot be written.
    """
    path = Path(path)
    M, N = _counted(targets, None, None)
    labels = fingerprint({"cooccurrence": torch.from_numpy(M), "counts": torch.from_numpy(N)})
    identity = {"format": 1, "strategy": strategy, "k": k, "seed": seed, "classes": len(N), "labels": labels}
    if not path.exists():
        strategies = {"CGP": cooccurrence_partition, "DGP": disoccurrence_partition}
        if strategy not in strategies:
            raise ValueError(f"strategy is '{strategy}': choose one of {', '.join(strategies)}")
        parts = strategies[strategy](k=k, seed=seed, cooccurrence=M, counts=N)
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, json.dumps(identity | {"parts": parts}, indent=1).encode())
        return parts
    try:
        saved = json.loads(path.read_bytes())
        parts = saved.pop("parts")
        require_partition(parts, saved["classes"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"partition '{path}' is damaged ({error}): delete it to have it made again") from error
    if differing := [name for name in identity if saved.get(name) != identity[name]]:
        changes = "; ".join(f"{name}: saved {saved.get(name)!r}, now {identity[name]!r}" for name in differing)
        raise ValueError(
            f"partition '{path}' is of other labels or settings ({changes}): use another file, or delete this one"
        )
    return parts
