"""What people call the splits of a data set. Knows names, and neither folders nor arrays."""

import re

# The words by which Hugging Face's `datasets` tells the splits of a folder, and two more: `trainval`, a training split
# that still has the validation images in it, and `holdout`.
WORDS = {
    "train": ("train", "training", "trainval"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation", "holdout"),
}
_SPLITS = {word: split for split, words in WORDS.items() for word in words}
_SPLIT_WORD = re.compile(rf"({'|'.join(_SPLITS)})(set|data|images|imgs)?")
_CAMEL_CASE = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def split_of(name: str) -> tuple[str | None, tuple[str, ...]]:
    """The split that a name names, or None if it names none or several; and its other words, in lower case.

    `Training` is `("train", ())`, `seg_test` is `("test", ("seg",))`, `trainset2` is `("train", ("set",))`.
    """
    splits: set[str] = set()
    others: list[str] = []
    for word in re.findall(r"[^\W\d_]+", _CAMEL_CASE.sub(" ", name).lower()):
        if match := _SPLIT_WORD.fullmatch(word):
            splits.add(_SPLITS[match[1]])
            others += filter(None, match.groups()[1:])
        else:
            others.append(word)
    return (splits.pop() if len(splits) == 1 else None), tuple(others)
