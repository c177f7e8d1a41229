"""Names, baselines, waves and keys of a sweep, from its overrides alone."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, default_composer
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from src.cli.compose import CONF, checked, read
from src.data import dataset
from src.pipeline import checking
from src.sweep import plan
from src.sweep.variant import Compose, expand


@pytest.fixture
def compose() -> Iterator[Compose]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield default_composer()


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
def test_what_is_composed_of_parts_is_what_hydra_composes(compose: Compose, overrides: list[str]) -> None:
    whole = hydra_compose("config", overrides, return_hydra_config=True)
    tasks = OmegaConf.masked_copy(whole, [key for key in whole if key != "hydra"])
    expected = checked(read(tasks, whole.hydra.runtime.choices))
    found = compose(overrides)
    assert found == expected


def test_a_sweep_that_does_not_ask_for_the_baseline_has_it_first(compose: Compose) -> None:
    variants = expand(product(prune="p1,p2", quant="drq,f16"), compose)
    assert [v.name for v in variants] == ["none-none", "p1-drq", "p1-f16", "p2-drq", "p2-f16"]
    assert [v.is_baseline for v in variants] == [True, False, False, False, False]


def test_twelve_variants_are_three_trainings_in_waves(compose: Compose) -> None:
    variants = expand(product(prune="none,p1,p2", quant="none,drq,fiq,f16"), compose)
    waves = [[job.title for job in wave] for wave in plan.make(variants, None, "all").waves]
    assert waves[0] == ["train"]
    assert sorted(waves[1]) == ["none-drq", "none-f16", "none-fiq", "none-none", "p1", "p2"]
    assert sorted(waves[2]) == sorted(f"{p}-{q}" for p in ("p1", "p2") for q in ("none", "drq", "fiq", "f16"))


def test_each_training_has_a_baseline_and_a_label_of_what_varies(compose: Compose) -> None:
    variants = expand(product(seed="0,1", prune="p1", quant="drq"), compose)
    assert [v.label for v in variants] == ["seed=0 none-none", "seed=0 p1-drq", "seed=1 none-none", "seed=1 p1-drq"]
    assert len({v.chain[0].key for v in variants}) == 2


def test_a_group_that_does_nothing_changes_no_name_and_no_key(compose: Compose, tmp_path: Path) -> None:
    overrides = product(prune="none,p1", quant="none,fiq")
    before = expand(overrides, compose)
    shutil.copytree(CONF, tmp_path / "conf")
    shutil.copytree(CONF / "prune", tmp_path / "conf/more", ignore=shutil.ignore_patterns("p?.yaml"))
    config = tmp_path / "conf/config.yaml"
    text = config.read_text(encoding="utf-8").replace(
        "transforms: [narrow, prune]", "transforms: [narrow, prune, more]"
    )
    config.write_text(text.replace("  - prune: none\n", "  - prune: none\n  - more: none\n"), encoding="utf-8")
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(tmp_path / "conf"), version_base="1.3"):
        after = expand(overrides, default_composer())
        told = expand([[*each, "more.epochs=3"] for each in overrides], default_composer())
        (_, acting) = expand([["prune=p1", "more=magnitude", "quant=fiq"]], default_composer())
    assert [variant.name for variant in before] == ["none-none", "none-fiq", "p1-none", "p1-fiq"]
    for variants in (after, told):
        assert [(v.name, v.stage.key) for v in variants] == [(v.name, v.stage.key) for v in before]
    assert told[0].notes == ("more.epochs=3: makes no difference, since no option chosen here takes it",)
    assert acting.name == "p1-magnitude-fiq"
    assert [stage.name for stage in acting.chain] == ["train", "p1", "p1-magnitude", "fiq"]


def test_trainings_of_several_seeds_see_the_same_images(compose: Compose) -> None:
    first, second = (dataset(variant.config) for variant in expand(product(seed="0,1", quant="none"), compose))
    assert first.fingerprint == second.fingerprint
    assert first.test.ids == second.test.ids
    (other,) = expand([["seed=0", "data.seed=1", "quant=none"]], compose)
    assert dataset(other.config).test.ids != first.test.ids


def test_settings_that_a_scheme_does_not_use_do_not_make_another_variant(compose: Compose) -> None:
    overrides = [["quant=drq", f"quant.representative_images={n}"] for n in (10, 20)]
    assert len({v.stage.key for v in expand(overrides, compose)}) == 2, "the baseline and one drq"
    overrides = [["quant=fiq", f"quant.representative_images={n}"] for n in (10, 20)]
    assert [v.name for v in expand(overrides, compose)] == [
        "none-none",
        "none-fiq quant.representative_images=10",
        "none-fiq quant.representative_images=20",
    ]


def test_what_a_sweep_does_later_has_names_and_labels_of_its_own(compose: Compose) -> None:
    first = expand([["quant=fiq", "quant.representative_images=10"]], compose)
    assert [v.label for v in first] == ["none-none", "none-fiq"]
    second = expand([["quant=fiq"], ["quant=drq"]], compose, first)
    assert [v.label for v in second] == ["none-none", "none-fiq 2", "none-drq"], "no override tells it from the first"
    assert second[0] is first[0], "the baseline is the one that the sweep has"
    before = (*first, *second[1:])
    again = expand([["quant=drq"], ["quant=drq", "train.epochs=2"]], compose, before)
    label = "train.epochs=2"
    assert [v.label for v in again] == ["none-none", "none-drq", f"{label} none-none", f"{label} none-drq"]
    assert again[1] is second[2]


# --- What is in a key --------------------------------------------------------------------------------------------

ACCURACY = ["accuracy.train", "accuracy.validation", "accuracy.test"]
VARIANT = ("experiment=smoke", "prune=p1", "quant=fiq")


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    assert before.keys() == after.keys() >= {"train", "p1", "fiq"}
    return [stage for stage in before if after[stage] != before[stage]]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed=1", ["train", "p1", "fiq"]),
        ("train.epochs=9", ["train", "p1", "fiq"]),
        ("train.learning_rate=0.003", ["train", "p1", "fiq"]),
        ("model=resnet8", ["train", "p1", "fiq"]),
        ("augment.shift=0.1", ["train", "p1", "fiq"]),
        ("data.validation=0.2", ["train", "p1", "fiq"]),
        ("data.seed=1", ["train", "p1", "fiq"]),
        ("prune.frequency=5", ["p1", "fiq"]),
        ("quant.representative_images=7", ["fiq"]),
        ("audit.compressors=[xz]", []),
        ("benchmark.threads=2", []),
        ("compare.margin=0.02", []),
        ("reuse=none", []),
        ("tracking.experiment=another", []),
    ],
)
def test_a_setting_changes_the_keys_of_what_depends_on_it(compose: Compose, override: str, expected: list[str]) -> None:
    before, after = (
        {stage.name: stage.key for stage in expand([overrides], compose)[-1].chain}
        for overrides in (VARIANT, (*VARIANT, override))
    )
    assert changed(before, after) == expected


KEYS = """
import json, sys
from src.data import dataset
from hydra import compose as hydra_compose, initialize_config_dir
from src.measure import probes
from src.pipeline import code, keys
from src.sweep.variant import expand
from src.cli.compose import CONF, composer
with initialize_config_dir(str(CONF), version_base="1.3"):
    compose = composer(hydra_compose("config", return_hydra_config=True))
    for line in sys.stdin:
        code.code_version.cache_clear()
        keys.versions.cache_clear()
        variant = expand([line.split()], compose)[-1]
        of = {stage.name: stage.key for stage in variant.chain}
        # Of one file, whatever made it.
        found = {p.name: keys.of_probe(p, "digest", dataset(variant.config)) for p in probes.of(variant.config, "key")}
        print(json.dumps(of | found), flush=True)
"""


class Copy:
    """A copy of this project, with a folder of packages beside it, and a process that tells its keys."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.packages = folder, folder / "packages"
        self.packages.mkdir()
        for part in ("src", "conf", "hydra_plugins"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        self.process = subprocess.Popen(
            [sys.executable, "-c", KEYS],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(self.packages), str(folder)])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.before = self.keys()

    def keys(self) -> dict[str, str]:
        assert self.process.stdin
        assert self.process.stdout
        print(*VARIANT, file=self.process.stdin, flush=True)
        return dict(json.loads(self.process.stdout.readline()))


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    made = Copy(tmp_path_factory.mktemp("copy"))
    yield made
    made.process.communicate()


@pytest.mark.parametrize(
    ("file", "before", "after", "expected"),
    [
        ("methods/fitting.py", "optimizers.AdamW if", "optimizers.Nadam if", ["train", "p1", "fiq"]),
        ("models/small_cnn.py", '"relu"', '"elu"', ["train", "p1", "fiq"]),
        ("data/__init__.py", "- mean", "+ mean", ["train", "p1", "fiq", *ACCURACY, "audit"]),
        ("methods/prune.py", "PolynomialDecay(", "ConstantSparsity(", ["p1", "fiq"]),
        ("methods/convert.py", "batches(32", "batches(16", ["fiq"]),
        ("measure/accuracy.py", "argmax", "argmin", ACCURACY),
        ("measure/predictions.py", "images > 0", "images > 1", ACCURACY),
        ("measure/targets/litert.py", "num_threads=threads", "num_threads=1", ACCURACY),
        ("measure/audit/compressors.py", "preset=6", "preset=7", ["audit"]),
        ("measure/audit/weights.py", "low bits first", "high bits first", []),
        ("measure/latency/processes.py", "PATIENCE_SECONDS = 10", "PATIENCE_SECONDS = 20", []),
        ("methods/convert.py", "int8 weights, activations", "other words", []),
        ("models/resnet8.py", "layers.ReLU", "layers.ELU", []),
        ("results/closing.py", "def close", "def end", []),
    ],
)
def test_code_changes_the_keys_of_what_it_makes(
    copy: Copy, file: str, before: str, after: str, expected: list[str]
) -> None:
    code = copy.folder / "src" / file
    text = code.read_text()
    assert before in text
    code.write_text(text.replace(before, after))
    try:
        assert changed(copy.before, copy.keys()) == expected
    finally:
        code.write_text(text)


@pytest.mark.parametrize(
    ("library", "expected"),
    [
        ("numpy", ["train", "p1", "fiq", *ACCURACY, "audit"]),
        ("tensorflow", ["train", "p1", "fiq"]),
        ("mlflow", []),
        ("rich", []),
    ],
)
def test_libraries_that_matter_change_the_keys(copy: Copy, library: str, expected: list[str]) -> None:
    described = copy.packages / f"{library}-999.0.dist-info/METADATA"
    described.parent.mkdir()
    described.write_text(f"Metadata-Version: 2.1\nName: {library}\nVersion: 999.0\n")
    try:
        assert changed(copy.before, copy.keys()) == expected
    finally:
        shutil.rmtree(described.parent)


@pytest.mark.parametrize(
    ("seconds", "said"), [(8.4, "8 s"), (125, "2 min 5 s"), (12000, "3 h 20 min"), (4e5, "4 days")]
)
def test_durations(seconds: float, said: str) -> None:
    assert plan.duration(seconds) == said


def test_the_plan_in_a_line_names_the_models_and_the_data(compose: Compose) -> None:
    variants = expand(product(model="small_cnn,ds_cnn", quant="none,f16"), compose)
    line = plan.summary(plan.make(variants, None, "all"), 1)
    assert line.startswith("small_cnn, ds_cnn on digits: 4 variants; to make: ")


IMAGES = ["data=image_folder", "data.path=/"]


@pytest.mark.parametrize(
    ("told", "takes", "shape", "advice"),
    [
        (IMAGES, (32, 32, 3), (8, 8, 1), "; set data.image_size=32 and data.channels=3"),
        ([*IMAGES, "data.image_size=8"], (None, None, 1), (8, 8, 3), "; set data.channels=1"),
        (["data=digits"], (32, 32, 1), (8, 8, 1), "; set data.image_size=32"),
        (
            ["data=digits"],
            (32, 32, 3),
            (8, 8, 1),
            "; data=digits has no setting data.channels, so it takes other images: data=image_folder data.path=DIR "
            "data.image_size=32 data.channels=3",
        ),
        (["data=npz", "data.path=x.npz"], (8, 8, 1), (8, 6, 1), "; set data.image_size=8"),
        (IMAGES, (8, 6, 3), (8, 8, 3), "; set data.image_size=[8,6]"),
        (
            IMAGES,
            (None, None, 1),
            (32, 32, 3),
            "; set data.channels=1 and data.image_size, the size that it is meant for",
        ),
    ],
)
def test_the_advice_for_a_model_of_other_images_fits_the_data(
    compose: Compose,
    told: list[str],
    takes: tuple[int | None, ...],
    shape: tuple[int, int, int],
    advice: str,
) -> None:
    data = compose(told).data
    assert checking.remedy(takes, shape, data) == advice
    settings = [word for word in advice.split() if word.startswith("data.") and "=" in word]
    chosen = ["data=image_folder"] if "image_folder" in advice else told
    compose([*chosen, *settings])  # what is advised can be told
