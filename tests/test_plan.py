"""Names, baselines and waves of a sweep, from its overrides alone."""

import itertools
from collections.abc import Iterator

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from src import plan, run
from src.config import load


@pytest.fixture
def compose() -> Iterator[plan.Compose]:
    with initialize_config_dir(str(run.CONF), version_base="1.3"):
        yield run._composer([])


def product(**options: str) -> list[list[str]]:
    return [
        [f"{key}={value}" for key, value in zip(options, values, strict=True)]
        for values in itertools.product(*(v.split(",") for v in options.values()))
    ]


@pytest.mark.parametrize(
    "overrides",
    [
        ["prune=p1", "quant=drq"],
        ["prune=p2", "quant=fiq", "quant.representative_images=7", "prune.final_sparsity=0.9"],
        ["experiment=report", "data=digits", "prune=p1", "quant=f16", "seed=3"],
        ["model=resnet8", "prune=magnitude", "train=none"],
        ["experiment=smoke", "train=none", "prune=p2"],
        ["+prune.layers={types: [Dense]}", "prune=p1"],
        ["model=mobilenet_v2", "model.alpha=0.35", "train.epochs=2", "experiment=smoke", "augment.flip=true"],
    ],
    ids=" ".join,
)
def test_what_is_composed_of_parts_is_what_hydra_composes(compose: plan.Compose, overrides: list[str]) -> None:
    whole = hydra_compose("config", overrides, return_hydra_config=True)
    choices = OmegaConf.to_container(whole.hydra.runtime.choices)
    settings = OmegaConf.to_container(OmegaConf.masked_copy(whole, [key for key in whole if key != "hydra"]))
    expected = load(settings, choices)
    found = compose(overrides)
    assert [getattr(found, f) for f in found.__dataclass_fields__ if f != "text"] == [
        getattr(expected, f) for f in expected.__dataclass_fields__ if f != "text"
    ]
    assert OmegaConf.create(found.text) == OmegaConf.create(settings)


def test_a_sweep_that_does_not_ask_for_the_baseline_has_it_first(compose: plan.Compose) -> None:
    variants = plan.expand(product(prune="p1,p2", quant="drq,f16"), compose)
    assert [v.name for v in variants] == ["none-none", "p1-drq", "p1-f16", "p2-drq", "p2-f16"]
    assert [v.is_baseline for v in variants] == [True, False, False, False, False]


def test_twelve_variants_are_three_trainings_in_waves(compose: plan.Compose) -> None:
    variants = plan.expand(product(prune="none,p1,p2", quant="none,drq,fiq,f16"), compose)
    waves = [[job.title for job in wave] for wave in plan.make(variants, None, "all").waves]
    assert waves[0] == ["train"]
    assert sorted(waves[1]) == ["none-drq", "none-f16", "none-fiq", "none-none", "p1", "p2"]
    assert sorted(waves[2]) == sorted(f"{p}-{q}" for p in ("p1", "p2") for q in ("none", "drq", "fiq", "f16"))


def test_each_training_has_a_baseline_and_a_label_of_what_varies(compose: plan.Compose) -> None:
    variants = plan.expand(product(seed="0,1", prune="p1", quant="drq"), compose)
    assert [v.label for v in variants] == ["seed=0 none-none", "seed=0 p1-drq", "seed=1 none-none", "seed=1 p1-drq"]
    assert len({v.chain[0].key for v in variants}) == 2


def test_settings_that_a_scheme_does_not_use_do_not_make_another_variant(compose: plan.Compose) -> None:
    overrides = [["quant=drq", f"quant.representative_images={n}"] for n in (10, 20)]
    assert len({v.stage.key for v in plan.expand(overrides, compose)}) == 2, "the baseline and one drq"
    overrides = [["quant=fiq", f"quant.representative_images={n}"] for n in (10, 20)]
    assert [v.name for v in plan.expand(overrides, compose)] == [
        "none-none",
        "none-fiq quant.representative_images=10",
        "none-fiq quant.representative_images=20",
    ]


@pytest.mark.parametrize(
    ("seconds", "said"), [(8.4, "8 s"), (125, "2 min 5 s"), (12000, "3 h 20 min"), (4e5, "4 days")]
)
def test_durations(seconds: float, said: str) -> None:
    assert plan.duration(seconds) == said
