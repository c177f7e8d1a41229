"""The groups of channels that can go, and what a model costs once some of them have gone."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from src.methods.narrow.coupling import DEPTHWISE, HELD, Coupling, Slots
from src.models.checkpoint import kernels

Of = Literal["multiply_adds", "parameters"]


@dataclass(frozen=True)
class Group:
    """Channels of layers that are tied to one another. `units` are the sets of atoms of which one goes as a whole, each
    by its number; `layers` make them."""

    units: np.ndarray
    layers: tuple[str, ...]


class Groups:
    """Of a model, whose layers `takes` may lose channels, of these only such as are tied to the atoms `ranked`, unless
    it is None. `unit` gives the number of each atom's unit, 0 where it stays. `whole` says of each layer that stays
    whole why it does."""

    def __init__(self, found: Coupling, takes: Collection[str], ranked: np.ndarray | None = None) -> None:
        self.found = found
        makers = {path: slots for path, slots in found.slots.items() if slots.is_maker}
        held = list(found.held)
        held += [(slots.makes, "not taken by the policy") for path, slots in makers.items() if path not in takes]
        free = _components(found.atoms, found.ties)
        if ranked is not None:
            scoreless = ~np.isin(free, free[ranked])
            held += [
                (slots.makes[scoreless[slots.makes]], "scaled by no batch normalization") for slots in makers.values()
            ]
        reasons = {int(free[HELD]): "tied to the images"}
        for atoms, why in held:
            for unit in np.unique(free[atoms]):
                reasons.setdefault(int(unit), why)
        stays = np.isin(free, list(reasons))
        self.unit = np.where(stays, HELD, free + 1)
        self.whole = {
            path: reasons[int(free[slots.makes][stays[slots.makes]][0])]
            for path, slots in makers.items()
            if stays[slots.makes].all() and path in takes
        }
        self.groups = self._groups(makers)

    def _groups(self, makers: Mapping[str, Slots]) -> tuple[Group, ...]:
        """Units that one layer makes are of one group."""
        made = {path: np.unique(self.unit[slots.makes]) for path, slots in makers.items()}
        made = {path: units[units != HELD] for path, units in made.items()}
        made = {path: units for path, units in made.items() if len(units)}
        size = int(self.unit.max()) + 1
        of = _components(size, [(units[:-1], units[1:]) for units in made.values()])
        layers: dict[int, list[str]] = {}
        for path, units in made.items():
            layers.setdefault(int(of[units[0]]), []).append(path)
        every = np.unique(np.concatenate(list(made.values()))) if made else np.zeros(0, int)
        return tuple(Group(every[of[every] == number], tuple(paths)) for number, paths in layers.items())

    def stays(self, units: np.ndarray) -> np.ndarray:
        """Of each atom whether it stays, once only `units` and what is held do."""
        return np.isin(self.unit, units) | (self.unit == HELD)

    def cost(self, of: Of, stays: np.ndarray) -> int:
        """Multiply-adds of one image, or parameters, of the model of which those atoms stay."""
        total = 0
        for slots in self.found.slots.values():
            takes, makes = int(stays[slots.takes].sum()), int(stays[slots.makes].sum())
            total += _multiply_adds(slots, takes, makes) if of == "multiply_adds" else _parameters(slots, takes, makes)
        for layer, positions in self.found.other.values():
            weights = kernels(layer) if of == "multiply_adds" else layer.weights
            count = sum(math.prod(weight.shape) for weight in weights)
            total += count * (positions if of == "multiply_adds" else 1)
        return total


def _multiply_adds(slots: Slots, takes: int, makes: int) -> int:
    layer = slots.layer
    area = math.prod(getattr(layer, "kernel_size", (1,)))
    kind = type(layer).__name__
    if kind in DEPTHWISE:
        return slots.positions * area * makes
    if kind.startswith("SeparableConv"):
        return slots.positions * takes * layer.depth_multiplier * (area + makes)
    return slots.positions * area * takes * makes if slots.is_maker else 0


def _parameters(slots: Slots, takes: int, makes: int) -> int:
    layer = slots.layer
    area = math.prod(getattr(layer, "kernel_size", (1,)))
    kind = type(layer).__name__
    bias = makes if getattr(layer, "use_bias", False) else 0
    if kind in DEPTHWISE:
        return area * makes + bias
    if kind.startswith("SeparableConv"):
        return takes * layer.depth_multiplier * (area + makes) + bias
    if slots.is_maker:
        return area * takes * makes + bias
    return sum(math.prod(weight.shape) for weight in layer.weights) * takes // len(slots.takes)


def _components(count: int, ties: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The number of the connected component of each of `count` nodes."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ones, others = (np.concatenate([np.zeros(0, int), *(tie[i] for tie in ties)]) for i in (0, 1))
    edges = coo_array((np.ones(len(ones), bool), (ones, others)), (count, count))
    labels: np.ndarray = connected_components(edges, directed=False)[1]
    return labels
