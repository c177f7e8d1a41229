"""What transforms and quantization do together, and to which images. Pure functions on predictions."""

from collections.abc import Mapping

import numpy as np

from src.data import Dataset
from src.measure import stats
from src.measure.predictions import Predictions, class_name
from src.measure.stats import Interval
from src.results.comparison import DamagedImage, Effect

SHOWN = 12  # damaged images


def effects(correct: Mapping[tuple[tuple[str, ...], str], np.ndarray], confidence: float) -> tuple[Effect, ...]:
    """What transforms cost under each quantization scheme. `correct`: by (acting transforms, scheme), bool `[n]`, was
    image i classified rightly."""
    costs = []
    for (transforms, scheme), transformed in correct.items():
        alone = correct.get(((), scheme))
        if not transforms or alone is None:
            continue
        extra = None
        dense, unquantized = correct.get(((), "none")), correct.get((transforms, "none"))
        if scheme != "none" and dense is not None and unquantized is not None:
            extra = interaction(dense, unquantized, alone, transformed, confidence)
        costs.append(Effect(transforms, scheme, stats.paired_drop(alone, transformed, confidence).drop, extra))
    return tuple(costs)


def interaction(
    dense: np.ndarray, pruned: np.ndarray, quantized: np.ndarray, both: np.ndarray, confidence: float
) -> Interval:
    """How much more pruning costs once quantized: (quantized - both) - (dense - pruned), each bool `[n]` of the same
    images.

    The interval is the normal one of the mean over images, after one image of +1 and one of -1 are added, as Agresti
    and Min (2005, Statistics in Medicine 24:729-740) do for paired proportions. Without them its width would be 0 where
    no image tells the two apart.
    """
    each = np.subtract(quantized, both, dtype=float) - np.subtract(dense, pruned, dtype=float)
    added = np.concatenate([each, [1.0, -1.0]])
    half = stats.normal_quantile(confidence) * added.std(ddof=1) / np.sqrt(len(added))
    return Interval(float(each.mean()), float(added.mean() - half), float(added.mean() + half))


def damaged(baseline: str, test: Mapping[str, Predictions], data: Dataset) -> tuple[DamagedImage, ...]:
    """The test images that the baseline classifies rightly and most variants don't, the most damaged first. Among
    images that as many variants have wrong, those come first that lost the most probability."""
    dense = test[baseline]
    others = {name: found for name, found in test.items() if name != baseline}
    if not others:
        return ()
    wrong = np.stack([dense.correct & ~found.correct for found in others.values()])
    lost = sum(
        np.where(row, dense.true_confidence - found.true_confidence, 0.0)
        for row, found in zip(wrong, others.values(), strict=True)
    )
    count = wrong.sum(axis=0)
    chosen = np.lexsort((-np.asarray(lost), -count))[:SHOWN]
    chosen = chosen[count[chosen] > 0]
    pixels = data.test.read(chosen)
    return tuple(
        DamagedImage(
            image,
            str(data.test.ids[i]),
            data.classes[dense.labels[i]],
            {
                name: class_name(found.predicted[i], data.classes)
                for name, found in others.items()
                if not found.correct[i]
            },
            float(np.asarray(lost)[i]),
        )
        for i, image in zip(chosen, pixels, strict=True)
    )
