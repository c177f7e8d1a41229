"""What a file is that should hold a Keras model, told by its first bytes and its table of contents, without
TensorFlow."""

import json
import zipfile
from pathlib import Path

FORMATS = "a .keras or .h5 file or a SavedModel folder, as model.save leaves them"

HDF5 = b"\x89HDF\r\n\x1a\n"
ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # the second is of an empty one
KERAS_ARCHIVE = {"config.json", "metadata.json", "model.weights.h5"}
# What else there is, by its first bytes: what it is, and what to do about it where that is known.
STARTS = (
    (b"version https://git-lfs", "a Git LFS pointer", "`git lfs pull` fetches the file itself"),
    (b"\x1f\x8b", "a file compressed by gzip", "unpack it first"),
    (b"BZh", "a file compressed by bzip2", "unpack it first"),
    (b"\xfd7zXZ", "a file compressed by xz", "unpack it first"),
    (b"7z\xbc\xaf", "a file compressed by 7-Zip", "unpack it first"),
    (b"Rar!", "a file compressed by RAR", "unpack it first"),
    (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9", "a PyTorch file", ""),
    (b"\x80", "a pickle, as PyTorch and scikit-learn write them", ""),
)
READ = 1024  # bytes


def refusal(path: Path) -> str | None:
    """Why there is no Keras model at `path`, as a phrase that goes on from its name; None where there may be one.

    Raises `OSError` where it can't be read.
    """
    if path.is_dir():
        return None if (path / "saved_model.pb").is_file() else f"is a folder without saved_model.pb; takes {FORMATS}"
    if not path.is_file():
        return f"is neither a file nor a folder; takes {FORMATS}"
    with path.open("rb") as file:
        start = file.read(READ)
    if start.startswith(HDF5):
        return _of_hdf5(path)
    if start.startswith(ZIP) and not zipfile.is_zipfile(path):  # whose table of contents is at its end
        return f"can't be read: it is a zip file that is cut off; takes {FORMATS}"
    what, remedy = _of_archive(path) if start.startswith(ZIP) else _of_other(path, start)
    return f"is no Keras model but {what}; {remedy or f'takes {FORMATS}'}" if what else None


def keras_version(path: Path) -> str:
    """Of the Keras that saved a file or folder which `refusal` has nothing against."""
    if path.is_dir():
        return "2"
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("metadata.json"))["keras_version"]
    import h5py

    with h5py.File(path, "r") as file:
        return str(file.attrs.get("keras_version", "2"))


def _of_hdf5(path: Path) -> str | None:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            whole = "model_config" in file.attrs
    except OSError as error:
        return f"can't be read: it is an HDF5 file that is cut off or damaged ({error}); takes {FORMATS}"
    return None if whole else f"holds weights without the model; takes {FORMATS}"


def _of_archive(path: Path) -> tuple[str, str]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if set(names) >= KERAS_ARCHIVE:
        return "", ""
    if any(name.endswith("data.pkl") for name in names):
        return "a PyTorch file", ""
    if any(name.endswith(("saved_model.pb", ".keras", ".h5", ".hdf5")) for name in names):
        return "a zip file around a model", "unpack it first"
    return f"a zip file of {', '.join(names[:3]) or 'nothing'}{', …' if len(names) > 3 else ''}", ""


def _of_other(path: Path, start: bytes) -> tuple[str, str]:
    if not start.strip(b"\0"):
        return ("a file of zero bytes, as a download that broke off leaves it" if start else "an empty file"), ""
    for magic, what, remedy in STARTS:
        if start.startswith(magic):
            return what, remedy
    if start[4:8] == b"TFL3":
        return "a .tflite file, which is converted already", ""
    if path.name == "saved_model.pb":
        return "a part of a SavedModel", f"takes its folder, {path.parent}"
    if start[8:10] == b'{"':  # after the length of a header
        return "a safetensors file, which holds weights without the model", ""
    if start[:1] == b"\x08" and start[2:3] in (b"\x12", b"\x3a", b"\x42"):
        # A protocol buffer whose first field is a version, and whose second says who wrote it or is the network.
        return "an ONNX model", ""
    if _is_text(start):
        page = start.lstrip(b"\xef\xbb\xbf \t\r\n")[:14].lower().startswith((b"<!doctype html", b"<html"))
        return ("a web page" if page else "a text file"), ""
    return "a file of another kind", ""


def _is_text(start: bytes) -> bool:
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.end < len(start) or len(start) < READ:  # not a character that was cut in two
            return False
        text = start[: error.start].decode("utf-8")
    return all(character.isprintable() or character.isspace() for character in text)
