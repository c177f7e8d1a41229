"""docs/models.md: what the zoo has found, as a table that a reader can search."""

import re
from collections.abc import Mapping, Sequence

from scripts.zoo.numbers import DENSE, Model, numbers

TOP = """# Which models it takes

Written by `python -m scripts.zoo`, which makes small classifiers with every layer, activation, initializer and operator
of Keras 3 and Keras 2 (`tf_keras`), puts them together in several ways, saves each in three formats, and has this
project compress them. Search this page for the name of your layer.

- *plain converter*: what `tf.lite.TFLiteConverter` alone gives of four schemes (float, dynamic range, full integer,
  float16), with an open batch, else with a batch of 1.
- *here*: 12 are the four dense variants and the pruned ones; 4 are the dense ones, with the reason why there are no
  others. One pruning is run for each model, for one epoch.
- *difference*: the largest one between the float artifact and the model's own predictions, as a share of the largest
  prediction.
"""
FORMATS = {"keras": "`.keras`", "h5": "`.h5`", "savedmodel": "SavedModel"}
LONGEST = 160  # characters of a reason
OF_ONE_RUN = ((r"model\.path=\S*: ", ""), (r"loc\(.*", "…"), (r"(/[\w.-]+){2,}", "…"), (r"0x[0-9a-f]+|_\d{3,}", "…"))


def page(
    models: Sequence[Model], all_models: int, left_out: Mapping[str, Mapping[str, str]], versions: Mapping[str, str]
) -> str:
    """`models` are those that were tried, of `all_models`. `left_out` (kinds that are in no model, with the reason) and
    `versions` are by Keras."""
    parts = [TOP, "## The numbers\n", f"{len(models):,} of {all_models:,} models were tried, {_with(versions)}.\n"]
    parts += [f"- {'' if number.is_enough else '**not reached** '}{number}" for number in numbers(models)]
    groups: dict[str, list[Model]] = {}
    for model in models:
        groups.setdefault(model.kind.partition("/")[0], []).append(model)
    for group, members in groups.items():
        parts += ["", f"## {TITLES.get(group, group)}\n", *_table(members)]
    parts += [
        "",
        "## Left out\n",
        "What stands in no model of the zoo, and why.\n",
        "| | Keras | why |",
        "|---|---|---|",
    ]
    for keras, kinds in left_out.items():
        rows = [(name.partition("/")[2], why) for name, why in kinds.items()]
        parts += [f"| {_cell(name)} | {keras} | {_cell(why)} |" for name, why in rows]
    return "\n".join(parts) + "\n"


TITLES = {
    "layer": "Layers",
    "activation": "Activations",
    "initializer": "Initializers",
    "operator": "Operators between tensors",
    "ops": "Functions of `keras.ops`",
    "structure": "Ways to put a model together",
    "custom": "Custom objects",
    "application": "Applications",
}


def _with(versions: Mapping[str, str]) -> str:
    return " and ".join(f"Keras {version}" for version in versions.values())


def _table(models: Sequence[Model]) -> list[str]:
    """A line for each kind, Keras and outcome; formats with one outcome share a line."""
    lines: dict[tuple[str, ...], list[Model]] = {}
    for model in models:
        name = model.kind.partition("/")[2]
        lines.setdefault((name, model.keras, plain(model), here(model)), []).append(model)
    rows = ["| | Keras | format | plain converter | here | difference |", "|---|---|---|---|---|---|"]
    for (name, keras, plainly, outcome), members in sorted(lines.items()):
        formats = " ".join(FORMATS[model.format] for model in members)
        found = [model.difference for model in members if model.is_there and model.difference is not None]
        difference = f"{max(found):.0e}" if found else ""
        rows.append(f"| {_cell(name)} | {keras} | {formats} | {_cell(plainly)} | {_cell(outcome)} | {difference} |")
    return rows


def plain(model: Model) -> str:
    """Such as `4`, `4 with a batch of 1`, `3, not full integer: died of SIGSEGV`."""
    if not model.is_there:
        return (
            f"Keras can't make or save it: {model.made.get('saved', {}).get(model.format) or model.made.get('why', '')}"
        )
    if unreadable := [answer["unreadable"] for answer in model.plain if "unreadable" in answer]:
        return f"can't be loaded: {_short(unreadable[0])}"
    taken = model.plainly
    of_one = " with a batch of 1" if any(answer["takes"] == "batch of 1" for answer in taken) else ""
    lacking = [answer for answer in model.plain if "scheme" in answer and "takes" not in answer]
    if not lacking:
        return f"{len(taken)}{of_one}"
    if not taken:
        return f"0: {_short(lacking[0]['why'])}"
    names = {"none": "float", "drq": "dynamic range", "fiq": "full integer", "f16": "float16"}
    listed = ", ".join(names[answer["scheme"]] for answer in lacking)
    return f"{len(taken)}{of_one}, not {listed}: {_short(lacking[0]['why'])}"


def here(model: Model) -> str:
    if not model.is_there:
        return ""
    if model.crash:
        return f"crashed: {model.crash}"
    whys = [_short(answer["why"]) for answer in model.here if "why" in answer]
    if any(answer.get("refused") for answer in model.here):
        return f"refused: {whys[0]}"
    twelve = model.dense == DENSE and model.pruned
    count = "12" if twelve else f"{model.dense}"
    training = "" if model.trained_as_in_the_original else f"; in training {model.here_of('training')}"
    return count + (f": {whys[0]}" if whys and not twelve else "") + training


def _short(line: str) -> str:
    """Without what is of one run only, such as paths, and not longer than a cell."""
    line = " ".join(line.split()).rpartition("batch of 1: ")[2]
    for pattern, instead in OF_ONE_RUN:
        line = re.sub(pattern, instead, line)
    return line if len(line) <= LONGEST else line[:LONGEST].rsplit(" ", 1)[0] + " …"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
