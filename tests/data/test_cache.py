"""What is known of files is found out once, and no damage to what was kept ever shows in the pixels."""

import errno
import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.data import cache_folder as subject
from src.data.cache import read_files
from src.data.decode import UnreadableError, decode
from src.data.files import Files
from src.settings.check import UserError

SHAPE = (8, 8, 3)
ROW = 8 * 8 * 3
PLENTY = 1 << 30


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "images"
    made.mkdir()
    for i in range(12):
        values = np.random.default_rng(i).integers(0, 256, (10, 10, 3), dtype=np.uint8)
        Image.fromarray(values).save(made / f"{i:02}.png")
    (made / "05.png").write_bytes(b"not an image")
    return made


@pytest.fixture(autouse=True)
def _trust_files_at_once(monkeypatch):
    monkeypatch.setattr(subject, "SETTLED_NS", 0)


def listed(folder: Path) -> Files:
    """Names, sizes and times of the files, as a scan has them; the scan happens after the files have settled."""
    stats = [(s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in (path.stat() for path in sorted(folder.iterdir()))]
    newest = max(max(stat[1:]) for stat in stats)
    return Files(str(folder), [path.name for path in sorted(folder.iterdir())], np.array(stats), newest + 1)


def plain(data: bytes) -> tuple[np.ndarray, str]:
    return decode(data, (8, 8), 3, "bilinear", False)


def read(folder: Path, cache: Path | None, decoder=plain, memory=0, limit=PLENTY):
    files = listed(folder)
    contents, reader, notes = read_files(files, decoder, SHAPE, "rules", memory, cache, limit)
    readable = np.array([row for row, reason in enumerate(contents.reasons) if not reason])
    return contents, reader(readable), notes


class Counting:
    """The decoder, counting how often it is asked; `shift` gives it pixels of its own, as another image size would."""

    def __init__(self, shift: int = 0) -> None:
        self.count, self.shift = 0, shift

    def __call__(self, data: bytes) -> tuple[np.ndarray, str]:
        self.count += 1
        image, format_ = plain(data)
        return image + np.uint8(self.shift), format_


@pytest.mark.parametrize("memory", [0, PLENTY])
@pytest.mark.parametrize("limit", [0, PLENTY])
@pytest.mark.parametrize("cached", [False, True])
def test_pixels_are_the_same_wherever_they_come_from(folder, tmp_path, memory, limit, cached):
    expected = np.stack([plain(path.read_bytes())[0] for path in sorted(folder.iterdir()) if path.stem != "05"])
    for _ in range(2):
        contents, images, notes = read(folder, tmp_path / "cache" if cached else None, memory=memory, limit=limit)
        np.testing.assert_array_equal(images, expected)
        assert contents.reasons[5] == "not an image in a known format"
        assert contents.formats[0] == "PNG"
        assert notes == []


def test_a_second_run_decodes_nothing(folder, tmp_path):
    _, first, _ = read(folder, tmp_path / "cache")
    counting = Counting()
    _, again, _ = read(folder, tmp_path / "cache", counting)
    assert counting.count == 0
    np.testing.assert_array_equal(again, first)


def test_a_second_scan_of_a_set_too_large_to_keep_decodes_nothing(folder, tmp_path):
    files = listed(folder)
    first, *_ = read_files(files, plain, SHAPE, "rules", 0, tmp_path / "cache", 0)
    counting = Counting()
    again, *_ = read_files(files, counting, SHAPE, "rules", 0, tmp_path / "cache", 0)
    assert counting.count == 0
    np.testing.assert_array_equal(again.digests, first.digests)
    assert again.reasons == first.reasons


def test_only_what_changed_is_decoded(folder, tmp_path):
    read(folder, tmp_path / "cache")
    Image.new("RGB", (10, 10), "red").save(folder / "03.png")
    Image.new("RGB", (10, 10), "blue").save(folder / "00a.png")
    (folder / "07.png").unlink()
    counting = Counting()
    contents, images, _ = read(folder, tmp_path / "cache", counting)
    assert counting.count == 2
    fresh, expected, _ = read(folder, None)
    np.testing.assert_array_equal(images, expected)
    np.testing.assert_array_equal(contents.digests, fresh.digests)


def test_a_change_that_keeps_size_and_mtime_is_seen(folder, tmp_path):
    _, before, _ = read(folder, tmp_path / "cache")
    path = folder / "00.png"
    status = path.stat()
    path.write_bytes(b"x" * status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    contents, after, _ = read(folder, tmp_path / "cache")
    assert contents.reasons[0]
    np.testing.assert_array_equal(after, before[1:])


def test_a_file_written_just_before_the_scan_is_not_trusted_by_the_next(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(subject, "SETTLED_NS", 10**15)
    read(folder, tmp_path / "cache")
    counting = Counting()
    read(folder, tmp_path / "cache", counting)
    assert counting.count == 12


def test_damaged_rows_are_decoded_anew_and_mended(folder, tmp_path):
    _, expected, _ = read(folder, tmp_path / "cache")
    (data,) = (tmp_path / "cache").glob("*.u8")
    whole = data.read_bytes()
    data.write_bytes(whole[: 3 * ROW] + b"?" * ROW + whole[4 * ROW :])
    counting = Counting()
    _, images, _ = read(folder, tmp_path / "cache", counting)
    assert counting.count == 1
    np.testing.assert_array_equal(images, expected)
    assert data.read_bytes() == whole


@pytest.mark.parametrize("damage", ["truncated", "deleted", "longer"])
def test_a_damaged_data_file_is_made_again(folder, tmp_path, damage):
    _, expected, _ = read(folder, tmp_path / "cache")
    (data,) = (tmp_path / "cache").glob("*.u8")
    if damage == "deleted":
        data.unlink()
    else:
        data.write_bytes(data.read_bytes()[: -1 if damage == "truncated" else None] + b"more" * (damage == "longer"))
    _, images, _ = read(folder, tmp_path / "cache")
    np.testing.assert_array_equal(images, expected)
    assert data.stat().st_size == 12 * ROW


@pytest.mark.parametrize("damage", [b"", b"PK\3\4 not a zip", None])
def test_a_damaged_manifest_is_made_again(folder, tmp_path, damage):
    _, expected, _ = read(folder, tmp_path / "cache")
    (manifest,) = (tmp_path / "cache").glob("*.npz")
    whole = manifest.read_bytes()
    middle = len(whole) // 2
    manifest.write_bytes(whole[:middle] + b"?" * 40 + whole[middle + 40 :] if damage is None else damage)
    _, images, _ = read(folder, tmp_path / "cache")
    np.testing.assert_array_equal(images, expected)
    counting = Counting()
    read(folder, tmp_path / "cache", counting)
    assert counting.count == 0


def test_a_process_that_reads_what_another_deletes_goes_on(folder, tmp_path):
    _, expected, _ = read(folder, None)
    _, reader, _ = read_files(listed(folder), plain, SHAPE, "rules", 0, tmp_path / "cache", PLENTY)
    shutil.rmtree(tmp_path / "cache")
    np.testing.assert_array_equal(reader(np.array([0, 1, 2])), expected[:3])


def test_the_least_recently_used_makes_room(folder, tmp_path):
    limit = 25 * ROW  # two sets of twelve

    def decoded(which: int) -> int:
        counting = Counting(which)
        read_files(listed(folder), counting, SHAPE, f"rules {which}", 0, tmp_path / "cache", limit)
        return counting.count

    assert [decoded(which) for which in (1, 2, 1, 3)] == [12, 12, 0, 12]  # the second made room for the third
    assert [decoded(which) for which in (3, 1, 2)] == [0, 0, 11]  # of one it is still known that it is no image
    assert sum(path.stat().st_size for path in (tmp_path / "cache").glob("*.u8")) <= limit


def test_leftovers_of_killed_builds_are_cleared_away_when_old(folder, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    for name in ("old.tmp", "new.tmp"):
        (cache / name).write_bytes(b"half")
    os.utime(cache / "old.tmp", (0, 0))
    read(folder, cache)
    assert not (cache / "old.tmp").exists()
    assert (cache / "new.tmp").exists()


def test_a_full_disk_costs_the_cache_and_nothing_else(folder, tmp_path, monkeypatch):
    expected = read(folder, None)[1]
    usage = shutil.disk_usage(tmp_path)._replace(free=ROW)
    monkeypatch.setattr(subject.shutil, "disk_usage", lambda path: usage)
    _, images, notes = read(folder, tmp_path / "cache")
    np.testing.assert_array_equal(images, expected)
    assert "no room" in notes[0]
    assert not list((tmp_path / "cache").glob("*.u8")) + list((tmp_path / "cache").glob("*.tmp"))


def test_a_cache_that_cannot_be_written_is_one_line(folder, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        UserError, match=r"^data\.cache=.*/file/cache: .*; takes a folder that can be written, or null$"
    ):
        read(folder, tmp_path / "file" / "cache")


def test_a_file_that_a_failing_disk_does_not_give_is_an_error(folder, monkeypatch):
    def failing(descriptor: int, count: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "read", failing)
    with pytest.raises(UserError, match=r"0\d\.png: can't be read \(Input/output error\)"):
        read(folder, None)


def test_a_file_that_may_not_be_read_is_noted_until_it_may(folder, tmp_path, monkeypatch):
    allowed = os.open

    def denied(path, *arguments, **settings):
        if str(path).endswith("03.png"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return allowed(path, *arguments, **settings)

    monkeypatch.setattr(os, "open", denied)
    assert read(folder, tmp_path / "cache")[0].reasons[3] == "Permission denied"
    monkeypatch.setattr(os, "open", allowed)
    assert read(folder, tmp_path / "cache")[0].reasons[3] == ""


def test_a_file_that_changes_under_a_running_job_is_an_error(folder):
    _, reader, _ = read_files(listed(folder), plain, SHAPE, "rules", 0, None, 0)
    Image.new("RGB", (10, 10)).save(folder / "00.png")
    with pytest.raises(UserError, match=r"00\.png: changed since this run began"):
        reader(np.array([0]))
    (folder / "01.png").unlink()
    with pytest.raises(UserError, match=r"01\.png: changed since this run began.*No such file"):
        reader(np.array([1]))


def test_an_error_in_one_thread_reaches_the_caller(folder):
    def broken(data: bytes) -> tuple[np.ndarray, str]:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        read(folder, None, broken)


def test_files_larger_than_any_image_are_not_read(folder, tmp_path):
    with (folder / "99.png").open("wb") as file:
        file.truncate(2 << 30)  # sparse: takes no room on disk
    contents, _, _ = read(folder, None)
    assert contents.reasons[-1] == "a file of 2.0 GiB, takes at most 1"


def test_two_processes_at_once_leave_one_whole_cache(folder, tmp_path):
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        first, second = pool.starmap(_read_in_process, [(folder, tmp_path / "cache")] * 2)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, read(folder, None)[1])
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == [".lock", ".npz", ".u8"]


def _read_in_process(folder: Path, cache: Path) -> np.ndarray:
    return read(folder, cache)[1]


def test_unreadable_is_what_a_decoder_says():
    with pytest.raises(UnreadableError):
        plain(b"")
