"""Model files cut short or with bytes altered at random: each is used, or answered in few lines, and none hangs."""

import random
import shutil
from pathlib import Path

import pytest
from artifacts import SCHEMES, Tiny
from conftest import Place

SEED, CASES = 17, 300
# In parts, so that no process of pytest is left alone with all of them.
PARTS = [
    range(9),
    *(pytest.param(range(start, start + 30), marks=pytest.mark.long) for start in (9, 39, 69)),
    *(pytest.param(range(start, start + 67), marks=pytest.mark.exhaustive) for start in (99, 166, 233)),
]
FEW_LINES = 3
COMMANDS = {
    "audit": ("src.audit", "{}"),
    "benchmark": ("src.benchmark", "{}", "seconds=0.1", "instances=3", "rounds=3", "operators=false"),
    "saved": ("src.run", "model=saved", "model.path={}", "train=none", "prune=none", "quant=drq", "plan=true"),
}


@pytest.fixture(scope="module")
def whole(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Of each command the files that it takes."""
    import keras
    import tf_keras

    folder = tmp_path_factory.mktemp("whole")
    for name, kind in {"two": tf_keras, "three": keras}.items():
        image = kind.Input((8, 8, 1))
        x = kind.layers.Conv2D(4, 3, activation="relu")(image)
        x = kind.layers.Flatten()(kind.layers.BatchNormalization()(x))
        model = kind.Model(image, kind.layers.Dense(10, activation="softmax")(x))
        model.save(folder / f"{name}.keras")
        model.save(folder / f"{name}.h5")
        if kind is tf_keras:
            model.save(folder / "folder", save_format="tf")
    models = [*(folder / f"{name}.{end}" for name in ("two", "three") for end in ("keras", "h5")), folder / "folder"]
    files = [tiny.files[scheme] for scheme in SCHEMES]
    return {"audit": files, "benchmark": files, "saved": models}


def damage(source: Path, target: Path, draw: random.Random) -> str:
    """Puts a damaged copy of a file, or of one file of a folder, at `target`; says what was done to it."""
    if source.is_dir():
        shutil.copytree(source, target)
        inside = sorted(file for file in target.rglob("*") if file.is_file() and file.stat().st_size)
        target = draw.choice(inside)
        content = bytearray(target.read_bytes())
    else:
        content = bytearray(source.read_bytes())
    where = [draw.randrange(len(content)) for _ in range(draw.choice((1, 4, 40)))]
    kind = draw.choice(("cut", "altered", "altered at its head", "zeros"))
    if kind == "cut":
        del content[where[0] :]
    elif kind == "zeros":
        end = min(len(content), where[0] + 512)
        content[where[0] : end] = bytes(end - where[0])
    else:
        for place in where:
            content[place if kind == "altered" else place % 256] = draw.randrange(256)
    target.write_bytes(content)
    return f"{source.name}, {target.name} {kind} at {where}"


@pytest.mark.parametrize("cases", PARTS, ids=str)
def test_a_damaged_file_is_used_or_answered_in_few_lines(
    whole: dict[str, list[Path]], place: Place, cases: range
) -> None:
    badly = []
    for number in cases:
        draw = random.Random(f"{SEED} {number}")
        name = list(COMMANDS)[number % len(COMMANDS)]
        source = draw.choice(whole[name])
        file = place.folder / f"{number}{source.suffix}"
        what = damage(source, file, draw)
        module, *arguments = (part.format(file) for part in COMMANDS[name])
        done = place.run(*arguments, module=module, timeout=300)
        # A file that can't be run is a line of the benchmark's table: the others are measured.
        told = "error: " in done.stderr or (name == "benchmark" and f"{number}: " in done.stdout)
        crashed = "Traceback" in done.stderr or done.returncode not in (0, 1, 2)
        if crashed or (done.returncode and not (told and len(done.stderr.splitlines()) <= FEW_LINES)):
            badly.append(f"{number} {name}: {what}: exit code {done.returncode}: {done.stderr[-600:]}")
    assert not badly, "\n".join(badly)
