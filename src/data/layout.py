"""How a folder of images is laid out: which of its folders are classes, which are splits, and which are neither.

Knows names of folders and what they hold, and no pixels. Of unusual names a note says what they were taken for; what
could mean two things is refused.
"""

import itertools
import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from src.data import EXAMPLES, shown
from src.data.decode import opens
from src.data.split_names import split_of
from src.settings.check import UserError
from src.settings.plain import as_utf8

TAKES = "takes a folder with one folder per class, or with train/ and test/ of such folders"
# Words that don't name a data set: `train_images/` and `test/` are splits of the same one, `train/` and `masks_test/`
# are not.
CONTENT = {"set", "sets", "data", "dataset", "images", "image", "img", "imgs", "split", "folder"}
# What systems, archivers and file servers put beside people's files and hide from them, in lower case.
CLUTTER = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),  # Windows
    *("icon\r", "__macosx", "network trash folder", "temporary items"),  # macOS
    *("lost+found", "__pycache__", "pax_global_header"),  # Linux, Python, tar
    *("@eadir", "@tmp", "@sharebin", "@sharesnap", "#recycle", "#snapshot"),  # Synology
    *("@recycle", "@recently-snapshot", "~snapshot"),  # QNAP, NetApp
}
CLUTTER_ENDINGS = (":zone.identifier", "@synoeastream", "@synoresource")  # what Windows and Synology keep of one file


def find_sections(root: str, classes: Sequence[str] | None, key: str) -> tuple[dict[str, str], list[str]]:
    """For each split the folder, relative to `root`, of its class folders, or that of all, under the name ""; notes.

    The name of a folder says which split it is. A training split also has to hold class folders: without any, folders
    that happen to be called train and test are classes like others. Folders that `classes` names are classes.
    """
    base = _unwrapped(root, "", key)
    notes = [f"read from {shown(base)}/, which is all that the folder holds"] if base else []
    inside = sorted(folders(os.path.join(root, base), key))
    named = [name for name in inside if split_of(name)[0]]
    if classes is not None and set(map(_composed, classes)) <= set(map(class_name, inside)):
        named = [name for name in named if class_name(name) not in map(_composed, classes)]
    full = {name for name in named if folders(os.path.join(root, base, name), key)}
    splits = _splits(named, full, key)
    if not splits:
        if len(named) > 1 and named == inside:
            raise UserError(
                f"{key}: {listed(named)} are named like splits, and no training split of class folders is among them; "
                f"{TAKES} (data.classes=[{','.join(map(shown, named))}] if they are the classes)"
            )
        if len(named) > 1:
            notes.append(f"{listed(named)} are taken as classes: no training split of class folders is among them")
        return {"": base}, notes
    train = shown(splits["train"])
    if "test" not in splits:
        raise UserError(
            f"{key}: {train}/ without test/; {TAKES} (a link named test will do; data.classes=[{train},…] if it is a "
            "class)"
        )
    if unused := [shown(name) for name in inside if name not in splits.values()]:
        notes.append(f"not used, beside {train}/ and {shown(splits['test'])}/: {', '.join(unused)}")
    sections = {split: _unwrapped(root, os.path.join(base, name), key) for split, name in splits.items()}
    if any(split != folder for split, folder in sections.items()):
        notes.append("taken as " + ", ".join(f"{split}: {shown(folder)}/" for split, folder in sections.items()))
    return sections, notes


def find_classes(root: str, given: Sequence[str] | None, inside: Mapping[str, Collection[str]], key: str) -> list[str]:
    """Class names, those `given` or all, the same in every section; `inside`: the folders in each section's folder."""
    names = {section: {class_name(name) for name in folders} for section, folders in inside.items()}
    every = set.union(*names.values())
    if given is not None:
        classes = [_composed(name) for name in given]
        for section, there in names.items():
            if missing := [name for name in classes if name not in there]:
                raise UserError(
                    f"data.classes: no class folder {shown(os.path.join(section, missing[0]))!r} in "
                    f"{shown(root)}; takes names from {some(sorted(there))}"
                )
        if len(set(classes)) < len(classes):
            raise UserError(f"data.classes={','.join(classes)}: names a folder twice; takes each once")
    else:
        classes = sorted(every)
        for section, there in names.items():
            if there != every:
                lacks = some([repr(name) for name in sorted(every - there)])
                raise UserError(f"{key}: {shown(section)}/ has no class folder {lacks}; takes the same in each")
    if not classes:
        raise UserError(f"{key}: no folder in it; {TAKES}")
    if len(classes) == 1:
        raise UserError(f"{key}: one class only ({shown(classes[0])}); takes at least two class folders")
    return classes


def refuse_shared(below: Mapping[str, Collection[str]], key: str) -> None:
    """Raises `UserError` if class folders hold the same folders, which look like the classes then. One that they share,
    such as the `images/` of Tiny ImageNet, is fine: no class is alone.

    `below`: for each class folder the folders within it that hold files, relative to it.
    """
    count = Counter(itertools.chain.from_iterable(below.values()))
    shared = {name: {folder for folder in within if count[folder] > 1} for name, within in below.items()}
    for one, other in itertools.combinations([name for name, within in shared.items() if len(within) > 1], 2):
        if len(both := sorted(shared[one] & shared[other])) > 1:
            raise UserError(
                f"{key}: {listed((one, other))} hold the same folders ({some(list(map(shown, both)))}) and look like "
                f"parts of one data set, not like classes; {TAKES} (data.classes=[…] if they are the classes)"
            )


def folders(path: str, key: str) -> list[str]:
    """The names of the folders in a folder that may be splits or classes. Raises `UserError` if it can't be listed."""
    try:
        with os.scandir(path) as entries:
            return [entry.name for entry in entries if not is_clutter(entry.name) and _is_folder(entry)]
    except FileNotFoundError:
        raise UserError(f"{key}: no such folder; {TAKES}") from None
    except NotADirectoryError:
        raise UserError(f"{key}: is a file; {TAKES}") from None
    except OSError as error:
        raise UserError(f"{key}: {shown(path)} can't be listed ({error.strerror}); {TAKES}") from None


def is_clutter(name: str) -> bool:
    """Whether a file or folder is a system's own, or hidden."""
    return name.startswith(".") or name.lower() in CLUTTER or name.lower().endswith(CLUTTER_ENDINGS)


def class_name(folder: str) -> str:
    """A folder's name, the same in every locale and whether a file system keeps accents composed (Linux) or apart
    (macOS)."""
    return _composed(as_utf8(folder))


def _composed(name: str) -> str:
    """A name with its accents composed, however they were typed."""
    return unicodedata.normalize("NFC", name)


def some(names: Sequence[str]) -> str:
    """The first few of many names."""
    return ", ".join(names[:EXAMPLES]) + ", …" * (len(names) > EXAMPLES)


def listed(names: Iterable[str]) -> str:
    """Two folders or more, as a sentence names them."""
    *first, last = (f"{shown(name)}/" for name in names)
    return f"{', '.join(first)} and {last}"


def _splits(named: Sequence[str], full: set[str], key: str) -> dict[str, str]:
    """The folder of each split, in the order train, test, validation; none if no training split is among `named`, of
    which those in `full` hold folders."""
    data_sets: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for name in named:
        split, others = split_of(name)
        subject = tuple(word for word in others if word not in CONTENT)
        data_sets.setdefault(subject, {}).setdefault(str(split), []).append(name)
    trained = {
        subject: splits
        for subject, splits in data_sets.items()
        # `bullet_train/` alone may be a class; `train/`, whatever is missing beside it, is a split.
        if not full.isdisjoint(splits.get("train", ())) and (len(splits) > 1 or not subject)
    }
    if () in trained:
        trained = {(): trained[()]}
    chosen = {}
    for split in ("train", "test", "validation"):
        names = [name for splits in trained.values() for name in splits.get(split, ())]
        names = [name for name in names if name in full] or names
        if len(names) > 1:
            raise UserError(f"{key}: {listed(names)} could each be the {split} split; takes one folder for each split")
        if names:
            chosen[split] = names[0]
    return chosen


def _unwrapped(root: str, folder: str, key: str) -> str:
    """`folder`. Where it holds nothing but one folder, as archives leave it (`data/data/cat`): the first folder further
    in that holds several."""
    inner, seen = folder, set()
    while (path := os.path.realpath(os.path.join(root, inner))) not in seen:
        seen.add(path)
        names = folders(path, key)
        if len(names) > 1:
            return inner
        split = split_of(names[0])[0] if names else None
        if not names or (split and split != split_of(os.path.basename(path))[0]) or _has_images(path):
            break  # nothing further in, one split without the others, or images of this folder
        inner = os.path.join(inner, names[0])
    return folder


def _has_images(path: str) -> bool:
    with os.scandir(path) as entries:
        return any(not is_clutter(entry.name) and entry.is_file() and opens(entry.path) for entry in entries)


def _is_folder(entry: os.DirEntry) -> bool:
    # `DirEntry.is_dir` raises for a link to itself; `isdir` asks the file system about each of a million images.
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()
