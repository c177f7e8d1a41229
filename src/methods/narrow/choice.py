"""Which channels stay: those of the highest scores, as many as the model may cost."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from src.methods.narrow.groups import Groups, Of
from src.settings.check import Unfit

Scope = Literal["global", "layer"]
CLOSE = 0.01  # of what the model may cost
Counts = Mapping[int, int]  # how many units of a group stay, by its place


@dataclass(frozen=True)
class Choice:
    """What is asked for: a model that costs the share `keep` of what it does. Of the groups in `shares`, by place, that
    share of channels stays, whatever the others have to give for it."""

    groups: Groups
    keep: float
    of: Of
    scope: Scope
    multiple: int
    shares: Mapping[int, float]

    def units(self, scores: np.ndarray, whole: int) -> np.ndarray:
        """The units that stay, given the score of each, where the model cost `whole`. Raises `Unfit` where it would
        still cost more with one channel in each layer."""
        groups, target = self.groups.groups, self.keep * whole
        orders = [group.units[np.argsort(-scores[group.units], kind="stable")] for group in groups]

        def units(counts: Counts) -> np.ndarray:
            return np.concatenate([order[: counts[place]] for place, order in enumerate(orders)])

        def cost(counts: Counts) -> int:
            return self.groups.cost(self.of, self.groups.stays(units(counts)))

        if (least := cost(self._counts(scores, 0.0))) > target:
            raise Unfit(
                f"narrow.keep={self.keep:g}: takes at least {math.ceil(1e4 * least / whole) / 1e4:g} for this model, "
                "which leaves one channel of each layer that can lose some"
            )
        low, high = 0.0, 1.0
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (middle, high) if cost(self._counts(scores, middle)) <= target else (low, middle)
        below, above = self._counts(scores, low), self._counts(scores, high)
        return units(self._nearest([below, above], cost, target, [len(group.units) for group in groups]))

    def _counts(self, scores: np.ndarray, level: float) -> Counts:
        """For a level from 0, one channel each, to 1, all: under `layer` that share of each group, under `global` the
        channels of that share of all scores, which count in units of the mean of their group, and of no group less
        than a quarter of its share."""
        groups = self.groups.groups
        relative = [scores[group.units] / (scores[group.units].mean() or 1) for group in groups]
        free = [place for place in range(len(groups)) if place not in self.shares]
        threshold = 0.0
        if self.scope == "global" and free:
            threshold = float(np.quantile(np.concatenate([relative[place] for place in free]), 1 - level))
        counts = {}
        for place, group in enumerate(groups):
            size = len(group.units)
            wanted = self.shares.get(place, level) * size
            if self.scope == "global" and place not in self.shares:
                wanted = max(int((relative[place] >= threshold).sum()), wanted / 4) if level else 0
            counts[place] = self._rounded(wanted, size)
        return counts

    def _rounded(self, wanted: float, size: int) -> int:
        """To the next multiple, but for what is less than one, and for all."""
        count = round(wanted / self.multiple) * self.multiple if wanted >= self.multiple else round(wanted)
        return size if wanted >= size else min(max(1, count), size)

    def _nearest(
        self, found: Sequence[Counts], cost: Callable[[Counts], int], target: float, sizes: Sequence[int]
    ) -> Counts:
        """Counts near those that were found, of a cost nearer to the target: one group after the other keeps a multiple
        more or less where this brings the cost nearer, until the difference is nothing beside the target."""
        best = min(found, key=lambda counts: abs(cost(counts) - target))
        distance, tried_all = abs(cost(best) - target), False
        while not tried_all and distance > CLOSE * target:
            tried_all = True
            for place, delta in itertools.product(best, (self.multiple, -self.multiple)):
                if place in self.shares or not 0 < best[place] + delta <= sizes[place]:
                    continue
                tried = {**best, place: best[place] + delta}
                if (there := abs(cost(tried) - target)) < distance:
                    best, distance, tried_all = tried, there, False
                if distance <= CLOSE * target:
                    break
        return best
