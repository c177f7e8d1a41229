"""What this project does with small classifiers of every kind that Keras can make, beside TensorFlow's plain converter.

    python -m scripts.zoo                      all of them (hours); goes on where it was interrupted
    python -m scripts.zoo --sample 40          forty, the same ones every time
    python -m scripts.zoo 'layer/(LSTM|GRU)'   those whose name matches: GROUP/NAME
    python -m scripts.zoo --page               only writes the page of what was found

Results are kept in mlruns/zoo/results.jsonl, and docs/models.md is written anew. What was found with other code of this
project is found again. Exit code 1: a number is not reached.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from scripts.zoo import numbers, page
from scripts.zoo.asking import FORMATS, Asking
from scripts.zoo.numbers import Model

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "mlruns/zoo/results.jsonl"
PAGE = ROOT / "docs/models.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "pattern", nargs="?", default="", help="a regular expression that is searched for in GROUP/NAME"
    )
    parser.add_argument("--sample", type=int, metavar="N", help="N kinds, drawn with a fixed seed")
    parser.add_argument("--keras", choices=("2", "3"), help="models of this Keras only")
    parser.add_argument("--format", choices=FORMATS, help="models in this format only")
    parser.add_argument("--page", action="store_true", help="write the page of what was found, and stop")
    told = parser.parse_args()
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    asking = Asking()
    try:
        kinds = asking.chosen(told.pattern, told.keras, told.sample)
        if not told.page:
            _examine(asking, kinds, [told.format] if told.format else FORMATS)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
    finally:
        asking.end()
    found = list(numbers.read(RESULTS).values())
    all_models = len(FORMATS) * sum(map(len, asking.listed.values()))
    text = page.page(_in_order(found, asking), all_models, asking.left_out, asking.versions)
    PAGE.write_text(text, encoding="utf-8")
    reached = numbers.numbers(found)
    for number in reached:
        print(f"{'' if number.is_enough else 'NOT REACHED  '}{number}")
        for why, models in numbers.reasons(number.missing)[:10]:
            print(f"    {len(models):4}  {why[:200]}  ({', '.join(_name(model) for model in models[:3])})")
    sys.exit(not all(number.is_enough for number in reached))


def _examine(asking: Asking, kinds: Sequence[tuple[str, str]], formats: Sequence[str]) -> None:
    known = numbers.read(RESULTS)
    for done, (keras, kind) in enumerate(kinds, start=1):
        started = time.monotonic()
        models = asking.examine(keras, kind, formats, known)
        for model in models:
            numbers.append(RESULTS, model)
        if models:
            outcomes = "; ".join(f"{model.format} {page.here(model) or page.plain(model)}" for model in models)
            print(
                f"{done:4} of {len(kinds)}  {time.monotonic() - started:4.0f} s  {keras} {kind}: {outcomes}", flush=True
            )


def _in_order(models: Sequence[Model], asking: Asking) -> list[Model]:
    """As the groups of kinds are listed."""
    order = {kind: i for kinds in asking.listed.values() for i, kind in enumerate(kinds)}
    return sorted(models, key=lambda model: (order.get(model.kind, 0), model.keras))


def _name(model: Model) -> str:
    return f"{model.keras} {model.kind} {model.format}"


if __name__ == "__main__":
    main()
