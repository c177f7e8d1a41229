"""A folder of whatever images a person has gives the same data set, or one line that says why not."""

import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.data import Dataset, image_folder
from src.data.image_folder import ImageFolder
from src.settings.check import UserError

TAKES = "takes a folder with one folder per class, or with train/ and test/ of such folders"
REAL = Path(os.environ.get("CIFAR10_900", Path(__file__).parents[2] / "../shared/data/cifar10-900"))


def fill(folder: Path, count: int = 10, seed: int = 0, format_: str = "png") -> Path:
    """`count` images with pixels of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng([seed, *folder.name.encode()])
    for i in range(count):
        Image.fromarray(generator.integers(0, 256, (12, 9, 3), dtype=np.uint8)).save(folder / f"{i:02}.{format_}")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("cat", "dog"):
        fill(tmp_path / "animals" / name)
    return tmp_path / "animals"


def load(root: Path | str, seed: int = 0, **settings) -> Dataset:
    return image_folder.load(ImageFolder(path=str(root), image_size=8, seed=seed, **{"cache": None, **settings}))


def line(root: Path | str, **settings) -> str:
    with pytest.raises(UserError) as caught:
        load(root, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def ids(data: Dataset) -> set[str]:
    return set().union(*(split.ids for split in data.splits().values()))


# --- Layouts ---------------------------------------------------------------------------------------------------


def test_one_folder_per_class(root):
    data = load(root)
    assert data.classes == ("cat", "dog")
    assert data.shape == (8, 8, 3)
    assert [len(split) for split in data.splits().values()] == [14, 2, 4]
    assert len(ids(data)) == 20
    for split in data.splits().values():
        np.testing.assert_array_equal(split.labels, [int(name.startswith("dog")) for name in split.ids])
        assert np.bincount(split.labels).tolist() == [len(split) // 2] * 2
    assert data.notes == data.rejected == ()


def test_train_and_test(tmp_path):
    for section, count in (("train", 10), ("test", 4)):
        for name in ("cat", "dog"):
            fill(tmp_path / section / name, count, seed=count)
    data = load(tmp_path)
    assert [len(split) for split in data.splits().values()] == [18, 2, 8]
    assert all(name.startswith("test/") for name in data.test.ids)


@pytest.mark.parametrize("folder", ["validation", "val", "valid"])
def test_train_validation_and_test(tmp_path, folder):
    for section, count in (("train", 10), ("test", 4), (folder, 3)):
        for name in ("cat", "dog"):
            fill(tmp_path / section / name, count, seed=count)
    fill(tmp_path / "unlabelled" / "x")
    data = load(tmp_path)
    assert [len(split) for split in data.splits().values()] == [20, 6, 8]
    assert data.notes[0] == "not used, beside train/ and test/: unlabelled"
    assert data.notes[1:] == (
        ("taken as train: train/, test: test/, validation: " + folder + "/",) if folder != "validation" else ()
    )
    assert load(tmp_path, seed=1).fingerprint == data.fingerprint


def splits(root: Path, *folders: str, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    """Class folders of different images in each of `folders`, which are train, test and validation by turns."""
    for i, folder in enumerate(folders):
        for name in classes:
            fill(root / folder / name, count=10 - 2 * i, seed=i)
    return root


@pytest.mark.parametrize(
    ("train", "test", "validation"),
    [
        ("Training", "Testing", "Validation"),
        ("TRAIN", "TEST", "VAL"),
        ("training_set", "test_set", "valid_set"),
        ("train_images", "test_images", "dev_images"),
        ("TrainData", "TestData", "ValData"),
        ("trainset", "testset", "valset"),
        ("train2017", "holdout", "val2017"),
        ("training", "evaluation", "validation"),
        ("trainval", "eval", "dev"),
        ("Final_Training/Images", "Final_Test/Images", "Final_Val/Images"),  # German traffic signs
        ("seg_train/seg_train", "seg_test/seg_test", "seg_val/seg_val"),  # Intel's scenes on Kaggle
        ("asl_alphabet_train/asl_alphabet_train", "asl_alphabet_test", "asl_alphabet_val"),
        ("data/data/Train", "data/data/Test", "data/data/Valid"),
        ("images/train", "images/test", "images/val"),
    ],
    ids=lambda folder: folder.replace("/", "-"),
)
def test_splits_by_their_usual_names(tmp_path, train, test, validation):
    plain = load(splits(tmp_path / "plain", "train", "test", "validation"))
    assert plain.notes == ()
    data = load(splits(tmp_path / "other", train, test, validation))
    assert data.fingerprint == plain.fingerprint
    assert [len(split) for split in data.splits().values()] == [20, 12, 16]
    assert data.notes[-1] == f"taken as train: {train}/, test: {test}/, validation: {validation}/"


def test_a_link_back_is_no_nest(tmp_path):
    (tmp_path / "again").symlink_to(tmp_path)
    assert line(tmp_path) == f"data.path={tmp_path}: one class only (again); takes at least two class folders"


def test_a_folder_in_a_folder_is_opened_and_said(tmp_path):
    """As archives unpack."""
    for name in ("cat", "dog"):
        fill(tmp_path / "images" / "images" / name)
    fill(tmp_path / "images" / "@eaDir" / "cat")
    (tmp_path / "images" / "LICENSE.txt").write_text("words")
    data = load(tmp_path)
    assert data.classes == ("cat", "dog")
    assert data.notes == ("read from images/images/, which is all that the folder holds",)
    fill(tmp_path / "images")  # now a class with images of its own
    assert line(tmp_path) == f"data.path={tmp_path}: one class only (images); takes at least two class folders"


@pytest.mark.parametrize("other", ["training", "train_images", "TRAIN_SET"])
def test_two_folders_for_one_split_are_refused(tmp_path, other):
    splits(tmp_path, "train", "test", other)
    first, second = sorted(("train", other))
    assert line(tmp_path) == (
        f"data.path={tmp_path}: {first}/ and {second}/ could each be the train split; takes one folder for each split"
    )


def test_two_data_sets_are_refused_and_one_by_the_plain_name_is_not(tmp_path):
    splits(tmp_path, "rgb_train", "rgb_test", "depth_train", "depth_test")
    assert line(tmp_path).endswith(
        ": depth_train/ and rgb_train/ could each be the train split; takes one folder for each split"
    )
    splits(tmp_path, "train", "test")
    data = load(tmp_path)
    assert {name.split("/")[0] for name in ids(data)} == {"train", "test"}
    assert data.notes == ("not used, beside train/ and test/: depth_test, depth_train, rgb_test, rgb_train",)


def test_unlabelled_images_beside_a_split_do_not_make_it_ambiguous(tmp_path):
    splits(tmp_path, "train", "test")
    fill(tmp_path / "test_images")
    assert [len(split) for split in load(tmp_path).splits().values()] == [18, 2, 16]


def test_splits_without_class_folders_are_no_classes(tmp_path):
    """Images of unknown classes, in folders of splits: a classifier would learn which split an image is in."""
    for name in ("train", "test1"):
        fill(tmp_path / name)
    assert line(tmp_path) == (
        f"data.path={tmp_path}: test1/ and train/ are named like splits, and no training split of class folders is "
        f"among them; {TAKES} (data.classes=[test1,train] if they are the classes)"
    )
    assert load(tmp_path, classes=("test1", "train")).classes == ("test1", "train")


def test_a_class_may_be_called_train(tmp_path):
    for name in ("bus", "test", "train"):
        fill(tmp_path / name)
    data = load(tmp_path)
    assert data.classes == ("bus", "test", "train")
    assert data.notes == ("test/ and train/ are taken as classes: no training split of class folders is among them",)
    fill(tmp_path / "train" / "steam")
    fill(tmp_path / "test" / "steam")
    assert load(tmp_path, classes=("bus", "test", "train")).classes == ("bus", "test", "train")
    assert line(tmp_path).endswith("one class only (steam); takes at least two class folders")


def test_one_word_of_a_split_in_a_class_name_means_nothing(tmp_path):
    for name in ("bullet train/jp", "bullet train/fr", "tram", "Val d'Isère", "test strip"):
        fill(tmp_path / name)
    data = load(tmp_path)
    assert data.classes == ("Val d'Isère", "bullet train", "test strip", "tram")


@pytest.mark.parametrize(
    "folders",
    [
        ("fold_a/cat", "fold_a/dog", "fold_b/cat", "fold_b/dog"),
        ("Normal/images", "Normal/masks", "Viral/images", "Viral/masks"),
        ("cat/train", "cat/test", "dog/train", "dog/test"),
        ("rps/data/paper", "rps/data/rock", "rps-test-set/data/paper", "rps-test-set/data/rock"),
        ("train/fold_a/cat", "train/fold_a/dog", "train/fold_b/cat", "train/fold_b/dog", "test/fold_a", "test/fold_b"),
    ],
    ids=lambda folders: folders[0].replace("/", "-"),
)
def test_classes_that_hold_the_same_folders_are_refused(tmp_path, folders):
    for folder in folders:
        fill(tmp_path / folder)
    first, second = (os.path.dirname(folders[i]).removesuffix("/data") for i in (0, 2))
    said = line(tmp_path)
    assert said.startswith(f"data.path={tmp_path}: {first}/ and {second}/ hold the same folders (")
    assert said.endswith(f"{TAKES} (data.classes=[…] if they are the classes)")
    names = tuple(os.path.basename(name) for name in (first, second))
    assert set(load(tmp_path, classes=names).classes) == set(names)


def test_one_folder_in_each_class_is_none(tmp_path):
    for name in ("cat/images", "dog/images", "dog/old"):
        fill(tmp_path / name)
    assert load(tmp_path).classes == ("cat", "dog")


CLUTTER = [
    "@eaDir", "#recycle", "#snapshot", "@tmp", "@Recycle", "@Recently-Snapshot", ".@__thumb", "~snapshot", ".snapshot",
    ".AppleDouble", "__MACOSX", ".Trash-1000", ".Spotlight-V100", "Network Trash Folder", "$RECYCLE.BIN",
    "System Volume Information", "lost+found", ".ipynb_checkpoints", ".git", "__pycache__",
]  # fmt: skip


@pytest.mark.parametrize("layout", ["", "train/", "test/"])
def test_what_a_system_an_archiver_or_a_file_server_keeps_is_no_class_and_no_image(tmp_path, layout):
    splits(tmp_path, "train", "test") if layout else splits(tmp_path, ".")
    before = load(tmp_path)
    for name in CLUTTER:
        fill(tmp_path / layout / name)
        fill(tmp_path / layout / "cat" / name / "00.png", 1)
    for ending in (":Zone.Identifier", "@SynoEAStream", "@SynoResource"):
        (tmp_path / layout / "cat" / f"00.png{ending}").write_text("words")
    (tmp_path / layout / "cat" / "Thumbs.db").write_text("words")
    after = load(tmp_path)
    assert after.fingerprint == before.fingerprint
    assert after.notes == after.rejected == before.notes == ()


def test_folders_within_a_class_folder_belong_to_the_class(root):
    fill(root / "cat" / "tabby" / "old", 3, seed=1)
    data = load(root)
    assert len(ids(data)) == 23
    assert "cat/tabby/old/00.png" in ids(data)


def test_hidden_files_and_those_of_file_managers_are_ignored(root):
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._00.png"):
        (root / "cat" / name).write_bytes(b"x")
    fill(root / ".thumbnails")
    fill(root / "__MACOSX" / "cat")
    fill(root / "cat" / ".cache")
    (root / "README.txt").write_text("beside the classes")
    data = load(root)
    assert data.classes == ("cat", "dog")
    assert len(ids(data)) == 20
    assert data.notes == ()


def test_links_are_followed_and_loops_are_not(root, tmp_path):
    shutil.move(root / "cat", tmp_path / "elsewhere")
    (root / "cat").symlink_to(tmp_path / "elsewhere")
    (root / "dog" / "again").symlink_to(root / "dog")
    (root / "dog" / "up").symlink_to(root)
    (root / "dog" / "nowhere.png").symlink_to(tmp_path / "missing.png")
    (root / "dog" / "itself.png").symlink_to(root / "dog" / "itself.png")
    os.mkfifo(root / "dog" / "pipe.png")
    (root / "fox").symlink_to(root / "fox")
    data = load(root)
    # All cats are dogs as well, by the link upwards: each folder is entered once for a class, and the rest is noted.
    assert data.classes == ("cat", "dog")
    assert {name for name in ids(data) if name.startswith("cat/")} == {f"cat/{i:02}.png" for i in range(10)}
    assert any("more than one class" in note for note in data.notes)
    assert data.rejected == (
        "dog/itself.png: Too many levels of symbolic links",
        "dog/nowhere.png: No such file or directory",
        "dog/up/fox: Too many levels of symbolic links",
    )


def test_odd_paths(tmp_path):
    root = tmp_path / "my images\n(new)"
    for name in ("größe", "two words", "new\nline", "日本"):
        fill(root / name)
    Image.new("RGB", (9, 9)).save(root / "two words" / "a \n\t'b\".png")
    (root / "日本" / os.fsdecode(b"\xff\xfe.png")).write_bytes((root / "日本" / "00.png").read_bytes()[:99])
    data = load(root)
    assert data.classes == ("größe", "new\\nline", "two words", "日本")
    assert len(ids(data)) == 41
    assert "two words/a \\n\\t'b\".png" in ids(data)
    assert len(data.rejected) == 1
    assert data.rejected[0].startswith("日本/\\udcff\\udcfe.png: ")
    for text in (*data.classes, *ids(data), *data.notes, *data.rejected):
        assert text.isprintable()
        text.encode()


# --- Classes ---------------------------------------------------------------------------------------------------


def test_class_names_are_sorted_as_text_as_keras_does_and_numbers_are_noted(tmp_path):
    for name in ("0", "1", "2", "10"):
        fill(tmp_path / name)
    data = load(tmp_path)
    assert data.classes == ("0", "1", "10", "2")
    assert "data.classes=[…] gives another order" in data.notes[0]


def test_classes_can_be_given_in_another_order(tmp_path):
    for name in ("0", "1", "2", "10"):
        fill(tmp_path / name)
    data = load(tmp_path, classes=("2", "10", "0"))
    assert data.classes == ("2", "10", "0")
    assert data.notes == ()
    np.testing.assert_array_equal(
        data.test.labels, [["2", "10", "0"].index(name.split("/")[0]) for name in data.test.ids]
    )


def test_the_same_accents_in_two_spellings_are_one_class(tmp_path):
    """macOS keeps accents apart from their letters, Linux keeps them as they came."""
    for section, name in (("train", "caf\u00e9"), ("test", "cafe\u0301")):
        fill(tmp_path / section / name, seed=len(section))
        fill(tmp_path / section / "tea", seed=len(section))
    assert load(tmp_path).classes == ("caf\u00e9", "tea")


# --- Splits, order and fingerprint -----------------------------------------------------------------------------


def test_a_seed_decides_the_splits(root):
    assert load(root).train.ids == load(root).train.ids
    assert load(root).fingerprint == load(root).fingerprint
    assert set(load(root).test.ids) != set(load(root, seed=1).test.ids)
    assert load(root).fingerprint != load(root, seed=1).fingerprint


def test_moving_renaming_and_touching_change_nothing(root, tmp_path):
    before = load(root)
    shutil.move(root, tmp_path / "moved")
    for path in (tmp_path / "moved").rglob("*.png"):
        os.utime(path, (0, 0))
        path.rename(path.with_name(f"renamed {path.name}"))
    after = load(tmp_path / "moved")
    assert after.fingerprint == before.fingerprint
    np.testing.assert_array_equal(after.train.read(np.arange(14)), before.train.read(np.arange(14)))


@pytest.mark.parametrize(
    "settings",
    [{"image_size": 9}, {"channels": 1}, {"resize": "area"}, {"crop": True}, {"test": 0.3}],
    ids=lambda settings: next(iter(settings)),
)
def test_settings_that_change_the_pixels_or_splits_change_the_fingerprint(root, settings):
    before = load(root).fingerprint
    config = ImageFolder(**{"path": str(root), "image_size": 8, "cache": None, **settings})
    assert image_folder.load(config).fingerprint != before


@pytest.mark.parametrize("change", ["byte", "class name", "class of an image", "image more"])
def test_content_changes_the_fingerprint(root, change):
    before = load(root).fingerprint
    if change == "byte":
        path = root / "cat" / "00.png"
        path.write_bytes(path.read_bytes() + b"\0")  # after the end of the image: the same pixels
    elif change == "class name":
        (root / "cat").rename(root / "kitten")
    elif change == "class of an image":
        (root / "cat" / "00.png").rename(root / "dog" / "x.png")
    else:
        Image.new("RGB", (9, 9)).save(root / "cat" / "more.png")
    assert load(root).fingerprint != before


@pytest.mark.parametrize("settings", [{"memory_gib": 0}, {"memory_gib": 0, "cache_gib": 0}, {}, {"cache_gib": 0}])
def test_memory_and_cache_do_not_change_the_data(root, tmp_path, settings):
    expected = load(root)
    for _ in range(2):
        data = load(root, cache=str(tmp_path / "cache"), **settings)
        assert data.fingerprint == expected.fingerprint
        for split, wanted in zip(data.splits().values(), expected.splits().values(), strict=True):
            assert split.ids == wanted.ids
            for (images, labels), (images_wanted, labels_wanted) in zip(
                split.batches(3), wanted.batches(3), strict=True
            ):
                np.testing.assert_array_equal(images, images_wanted)
                np.testing.assert_array_equal(labels, labels_wanted)


def test_a_set_kept_for_one_size_does_not_answer_for_another(root, tmp_path):
    cache = str(tmp_path / "cache")
    load(root, cache=cache)
    config = ImageFolder(path=str(root), image_size=6, cache=cache)
    assert next(image_folder.load(config).test.batches(2))[0].shape == (2, 6, 6, 3)


def test_pixels_and_labels_are_those_that_keras_loads(root):
    keras = pytest.importorskip("tf_keras")
    loaded = keras.utils.image_dataset_from_directory(root, image_size=(8, 8), shuffle=False, batch_size=None)
    expected = dict(
        zip(("/".join(Path(p).parts[-2:]) for p in loaded.file_paths), loaded.as_numpy_iterator(), strict=True)
    )
    data = load(root, resize="tf_bilinear")
    for split in data.splits().values():
        for image, label, name in zip(split.read(np.arange(len(split))), split.labels, split.ids, strict=True):
            np.testing.assert_array_equal(image, np.rint(expected[name][0]))
            assert label == expected[name][1]


# --- Notes -----------------------------------------------------------------------------------------------------


def test_unreadable_files_are_named_and_left_out(root):
    (root / "cat" / "a.jpg").write_bytes(b"")
    (root / "cat" / "b.jpg").write_text("words")
    (root / "dog" / "c.png").write_bytes((root / "dog" / "00.png").read_bytes()[:150])
    (root / "dog" / "d.txt").write_text("words")
    data = load(root)
    assert len(ids(data)) == 20
    assert data.notes[0].startswith(
        "4 of 24 files are unreadable and left out: cat/a.jpg (empty file), cat/b.jpg (not an image"
    )
    assert data.notes[0].endswith(", … (all in unreadable.txt beside the report)")
    assert [entry.split(": ")[0] for entry in data.rejected] == ["cat/a.jpg", "cat/b.jpg", "dog/c.png", "dog/d.txt"]


def test_files_with_the_ending_of_another_format_are_read_and_noted(root):
    (root / "cat" / "00.png").rename(root / "cat" / "00.jpg")
    (root / "cat" / "01.png").rename(root / "cat" / "01.txt")
    (root / "cat" / "02.png").rename(root / "cat" / "02")
    data = load(root)
    assert len(ids(data)) == 20
    assert data.notes == ("1 files hold another format than their names say: cat/00.jpg (PNG)",)


def test_duplicates_across_splits_are_noted_by_content(tmp_path):
    for section in ("train", "test"):
        for name in ("cat", "dog"):
            fill(tmp_path / section / name, seed=len(section))
    original = Image.open(tmp_path / "train" / "cat" / "03.png")
    original.save(tmp_path / "test" / "cat" / "copy.bmp")  # other bytes, the same pixels
    data = load(tmp_path)
    (note,) = [note for note in data.notes if "more than one split" in note]
    assert note.startswith("1 distinct images are in more than one split: train/cat/03.png (")
    assert note.endswith("= test/cat/copy.bmp (test)")


def test_rare_classes_are_noted(tmp_path):
    fill(tmp_path / "common", 50)
    fill(tmp_path / "rare", 4)
    (note,) = load(tmp_path).notes
    assert note.endswith("a tenth of the images of the largest (common 50): rare 4")


# --- What can't be used ----------------------------------------------------------------------------------------


def test_no_such_folder():
    assert line("/nowhere") == f"data.path=/nowhere: no such folder; {TAKES}"


def test_a_file_instead_of_a_folder(root):
    path = root / "cat" / "00.png"
    assert line(path) == f"data.path={path}: is a file; {TAKES}"


def test_a_folder_without_folders(root):
    assert line(root / "cat") == f"data.path={root}/cat: no folder in it; {TAKES}"


def test_one_class_only(root):
    shutil.rmtree(root / "dog")
    assert line(root) == f"data.path={root}: one class only (cat); takes at least two class folders"


def test_a_class_folder_without_images(root):
    (root / "empty").mkdir()
    assert line(root) == f"data.path={root}: class folder 'empty' is empty; takes at least one image in each"


def test_a_folder_of_text_files(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(3):
            (tmp_path / name / f"{i}.txt").write_text("words")
    assert line(tmp_path) == (
        f"data.path={tmp_path}: class folder 'a' has no image among its 3 files, such as 0.txt; "
        "takes at least one in each"
    )


def test_a_class_of_which_nothing_can_be_decoded(root):
    for path in (root / "dog").iterdir():
        path.write_bytes(path.read_bytes()[:150])  # the header of an image, and not its pixels
    assert line(root).startswith(f"data.path={root}: class folder 'dog' has no readable image, such as 00.png: ")


def test_what_a_scan_can_tell_needs_no_decoding(root, monkeypatch):
    def refused(*_, **__):
        raise AssertionError("decoded")

    monkeypatch.setattr(image_folder, "decode", refused)
    (root / "empty").mkdir()
    assert "is empty" in line(root)


def test_too_few_images_of_a_class(root):
    fill(root / "fox", 2)
    assert line(root).startswith(f"data.path={root}: class 'fox' has 2 usable images; takes at least 3 of each class")


def test_train_without_test(tmp_path):
    for name in ("cat", "dog"):
        fill(tmp_path / "train" / name)
        fill(tmp_path / "val" / name)
    assert line(tmp_path) == (
        f"data.path={tmp_path}: train/ without test/; {TAKES} "
        "(a link named test will do; data.classes=[train,…] if it is a class)"
    )


def test_train_and_test_with_different_classes(tmp_path):
    for name in ("train/cat", "train/dog", "test/cat", "test/fox", "test/dog"):
        fill(tmp_path / name)
    assert line(tmp_path) == f"data.path={tmp_path}: train/ has no class folder 'fox'; takes the same in each"


def test_classes_that_are_not_there(root):
    assert line(root, classes=("cat", "cow")) == (
        f"data.classes: no class folder 'cow' in {root}; takes names from cat, dog"
    )
    assert (
        line(root, classes=("cat", "cat", "dog")) == "data.classes=cat,cat,dog: names a folder twice; takes each once"
    )


# --- Anything ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_no_file_is_too_broken(root, tmp_path, seed):
    """Files of every format, cut off, with bytes changed, with others' endings: read or named, never a crash."""
    generator = np.random.default_rng(seed)
    whole = Image.fromarray(generator.integers(0, 256, (24, 24, 3), dtype=np.uint8))
    formats = ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM", "ICO", "PCX", "SGI", "QOI"]
    wrong = set()
    for i in range(60):
        format_ = str(generator.choice(formats))
        path = root / "cat" / f"fuzz {i} ü\n.{generator.choice(['jpg', 'png', 'gif', 'txt', 'tif', format_.lower()])}"
        whole.save(path, format_)
        data = bytearray(path.read_bytes())
        match i % 4:
            case 0:
                data = data[: int(generator.integers(0, len(data) // 2))]
                wrong.add(path.name)
            case 1:
                for at in generator.integers(0, len(data), 8):
                    data[at] = int(generator.integers(0, 256))
            case 2:  # the first bytes hold the dimensions
                for at in generator.integers(4, 40, 6):
                    data[at] = 0xFF
            case _:
                data = bytearray(generator.bytes(len(data)))
                wrong.add(path.name)
        path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow; pytest undoes what the module sets
        data = load(root)
    rejected = {entry.rsplit(": ", 1)[0] for entry in data.rejected}
    assert len(ids(data)) + len(rejected) == 80
    assert rejected >= {f"cat/{name}".replace("\n", "\\n") for name in wrong}
    assert data.notes[0].startswith(f"{len(rejected)} of 80 files are unreadable and left out: cat/fuzz")
    for split in data.splits().values():
        assert sum(len(labels) for _, labels in split.batches(16)) == len(split)


@pytest.mark.skipif(not REAL.is_dir(), reason="no cifar10-900; CIFAR10_900=DIR names another place")
def test_cifar10_as_a_folder(tmp_path):
    data = image_folder.load(ImageFolder(path=str(REAL), cache=str(tmp_path)))
    assert data.shape == (32, 32, 3)
    assert data.classes == ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    assert [len(split) for split in data.splits().values()] == [4050, 450, 900]
    assert np.bincount(data.validation.labels).tolist() == [45] * 10
    assert data.notes == data.rejected == ()
    again = image_folder.load(ImageFolder(path=str(REAL), cache=str(tmp_path)))
    assert again.fingerprint == data.fingerprint
    np.testing.assert_array_equal(again.test.read(np.arange(900)), data.test.read(np.arange(900)))
