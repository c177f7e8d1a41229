"""The variants of a sweep, from the overrides that compose them: their stages, dense baselines and names."""

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from src.data import dataset
from src.pipeline import checking, stages
from src.pipeline.stages import Stage
from src.settings.check import UserError
from src.settings.config import Config
from src.settings.sections import Audit

Compose = Callable[[Sequence[str]], Config]


@dataclass(frozen=True)
class Variant:
    """One variant of a sweep. `overrides` is what composes its config; `training` says which of the sweep's trainings
    it is made from, and is empty where there is one only; `own` are the overrides in which it differs from others that
    would have its name; `train_images`, `image_shape` and `notes` are of its data. `refused` is why its steps make no
    sense together or for its model, so that it is not made. What is there as a baseline only was not `asked` for."""

    name: str
    training: str
    overrides: tuple[str, ...]
    config: Config
    chain: tuple[Stage, ...]
    train_images: int
    image_shape: tuple[int, int, int]
    notes: tuple[str, ...]
    own: tuple[str, ...] = ()
    refused: str | None = None
    asked: bool = True

    @property
    def stage(self) -> Stage:
        return self.chain[-1]

    @property
    def is_baseline(self) -> bool:
        return len(self.chain) == 2 and self.config.quant.name == "none"

    @property
    def label(self) -> str:
        return f"{self.training} {self.name}".strip()


def expand(overrides: Sequence[Sequence[str]], compose: Compose, before: Sequence[Variant] = ()) -> tuple[Variant, ...]:
    """The distinct variants, all checked, each with its dense baseline among them; baselines lead their trainings.

    `before` are those that the sweep has already. Of these, what is asked for again is given as it is; what is new gets
    names that tell it from them.
    """
    composed = [(tuple(o), compose(o)) for o in overrides]
    _check_audits([config.audit for _, config in composed])
    groups = {step.group for _, config in composed for step in (*config.transforms, config.quant)}
    found: dict[str, Variant] = {}
    asked: set[str] = set()
    baselines: dict[str, str] = {}
    for own, config in composed:
        variant = _variant(own, config)
        training = variant.chain[0].key
        if training not in baselines:
            others = (o for o in own if group_of(o) not in groups)
            dense = (*others, *(_doing_nothing(group, own) for group in sorted(groups)))
            baseline = _variant(dense, compose(dense))
            baselines[training] = baseline.stage.key
            found[baseline.stage.key] = baseline
        found.setdefault(variant.stage.key, variant)
        asked.add(variant.stage.key)
    variants = [replace(v, asked=key in asked) for key, v in found.items()]
    variants[0] = replace(variants[0], notes=(*variants[0].notes, *_without_effect(composed)))
    order = {key: i for i, key in enumerate(baselines)}
    variants.sort(key=lambda v: order[v.chain[0].key])
    named = _named(variants, before, groups)
    check_any_is_left(named)
    return named


def check_any_is_left(variants: Sequence[Variant]) -> None:
    """Raises `UserError` where all that was asked for is refused, or a baseline that others need."""
    refused = [v for v in variants if v.refused and (v.is_baseline or all(o.refused for o in variants if o.asked))]
    if refused:
        raise UserError(f"{refused[0].label}: {refused[0].refused}")


def _check_audits(audits: Sequence[Audit]) -> None:
    """Raises `UserError` for a sweep over what is read off an artifact, which makes no other one."""
    if len(set(audits)) > 1:
        names = ",".join(sorted({name for audit in audits for name in audit.compressors}))
        raise UserError(f"audit.compressors: takes one list for all variants of a sweep, such as [{names}]")


def _variant(overrides: tuple[str, ...], config: Config) -> Variant:
    data = dataset(config)
    chain = stages.chain(config, data)
    overrides = tuple(o for o in overrides if _acts(o, config))
    of_data = (len(data.train), data.shape, data.notes)
    return Variant(config.name, "", overrides, config, chain, *of_data, refused=checking.refusal(config))


def _doing_nothing(group: str, overrides: Sequence[str]) -> str:
    """The override that chooses `none`, with a plus sign where the option of `overrides` has one."""
    return f"{'+' if any(o.startswith(f'+{group}=') for o in overrides) else ''}{group}=none"


def _acts(override: str, config: Config) -> bool:
    """False of an override that is for other options of its group than the one that `config` has."""
    group, *path = override.partition("=")[0].lstrip("+~").split(".")
    return not path or group not in config.steps or config.steps[group].takes(path)


def _without_effect(composed: Sequence[tuple[tuple[str, ...], Config]]) -> list[str]:
    """A note on each override that is for none of the options that these configs have."""
    acting = {o for overrides, config in composed for o in overrides if _acts(o, config)}
    idle = dict.fromkeys(o for overrides, _ in composed for o in overrides if o not in acting)
    return [f"{override}: makes no difference, since no option chosen here takes it" for override in idle]


def group_of(override: str) -> str:
    """`prune` of `prune=p1`, `+prune.epochs=3` and `prune.layers.pattern=x`."""
    return override.split("=")[0].lstrip("+~").split(".")[0]


def _named(variants: Sequence[Variant], before: Sequence[Variant], groups: Collection[str]) -> tuple[Variant, ...]:
    """`variants` with the labels of their trainings and names that stand for one of them only. What is `before` has its
    own already."""
    known = {v.stage.key: v for v in before}
    new = [v for v in variants if v.stage.key not in known]
    # What all variants of a training share names it; what only some have is theirs: the compressors of the audit, say.
    overrides_of: dict[str, list[set[str]]] = {}
    for v in (*before, *new):
        overrides_of.setdefault(v.chain[0].key, []).append(set(v.overrides))
    shared = {key: set.intersection(*each) for key, each in overrides_of.items()}
    common = set.intersection(*shared.values())
    labels = {v.chain[0].key: v.training for v in before}
    for v in new:
        if (key := v.chain[0].key) not in labels:
            varying = (o for o in v.overrides if o in shared[key] - common and group_of(o) not in groups)
            labels[key] = _unused(" ".join(varying), set(labels.values()))
    new = [replace(v, training=labels[v.chain[0].key]) for v in new]
    known |= {v.stage.key: v for v in _distinctly_named(new, before, shared)}
    return tuple(known[v.stage.key] for v in variants)


def _distinctly_named(
    new: Sequence[Variant], before: Sequence[Variant], shared: Mapping[str, set[str]]
) -> Iterator[Variant]:
    """Where one name would stand for several variants of a training, the overrides in which they differ join it."""
    count = Counter((v.training, v.name) for v in (*before, *new))
    taken = {v.label for v in before}
    for v in new:
        if count[v.training, v.name] > 1:
            own = tuple(o for o in v.overrides if o not in shared[v.chain[0].key] and "." in o.split("=")[0])
            v = replace(v, name=" ".join([v.name, *own]), own=own)
            v = replace(v, name=_unused(v.label, taken).removeprefix(v.training).lstrip())
        taken.add(v.label)
        yield v


def _unused(name: str, taken: Collection[str]) -> str:
    """`name`, or the first of `name 2`, `name 3` … that is not `taken`."""
    numbered = (f"{name} {i}".lstrip() for i in itertools.count(2))
    return next(each for each in itertools.chain([name], numbered) if each not in taken)
