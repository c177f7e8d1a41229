"""Every kind of image file has one defined result, or one defined reason."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from src.data.decode import MAX_PIXELS, UnreadableError, _straight, decode, resize

# Pillow warns as well; the module says why it silences that, and pytest undoes it.
pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF", "ignore:Image size")

COLOUR = (200, 30, 60)
LUMA = round(0.299 * 200 + 0.587 * 30 + 0.114 * 60)  # ITU-R 601


def encoded(image: Image.Image, format_: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def pixels(data: bytes, size: int = 8, channels: int = 3, how: str = "bilinear", crop: bool = False) -> np.ndarray:
    return decode(data, (size, size), channels, how, crop)[0]


def png(width: int, height: int, bits: int, colour_type: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


LOSSLESS = ("PNG", "BMP", "GIF", "TIFF", "PPM", "PCX", "SGI", "QOI", "ICO")


@pytest.mark.parametrize("format_", [*LOSSLESS, "WEBP", "JPEG", "JPEG2000", "AVIF"])
def test_a_colour_survives_in_every_format(format_):
    options = {"lossless": True} if format_ == "WEBP" else {"quality": 95} if format_ in ("JPEG", "AVIF") else {}
    image = pixels(encoded(Image.new("RGB", (20, 14), COLOUR), format_, **options))
    assert image.shape == (8, 8, 3)
    assert image.dtype == np.uint8
    np.testing.assert_allclose(image, np.broadcast_to(COLOUR, image.shape), atol=0 if format_ in LOSSLESS else 4)


def test_format_is_that_of_the_content():
    assert decode(encoded(Image.new("L", (4, 4)), "PNG"), (4, 4), 1, "bilinear", False)[1] == "PNG"


def test_one_channel_is_luma():
    for format_ in ("PNG", "JPEG"):
        image = pixels(encoded(Image.new("RGB", (16, 16), COLOUR), format_), channels=1)
        assert image.shape == (8, 8, 1)
        np.testing.assert_allclose(image, LUMA, atol=2)


@pytest.mark.parametrize("format_", ["PNG", "JPEG"])
def test_gray_becomes_three_equal_channels(format_):
    np.testing.assert_array_equal(pixels(encoded(Image.new("L", (16, 16), 77), format_)), 77)


def test_one_bit_images_are_black_and_white():
    image = Image.new("1", (16, 16))
    image.paste(1, (8, 0, 16, 16))
    found = pixels(encoded(image, "PNG"), size=16)
    assert (found[:, :8] == 0).all()
    assert (found[:, 8:] == 255).all()


@pytest.mark.parametrize(
    "image",
    [
        Image.new("RGBA", (8, 8), (0, 0, 0, 0)),
        Image.new("RGBA", (8, 8), (200, 30, 60, 0)),
        Image.new("LA", (8, 8), (0, 0)),
    ],
)
def test_what_is_transparent_is_white(image):
    np.testing.assert_array_equal(pixels(encoded(image, "PNG")), 255)


def test_half_transparent_black_is_gray():
    np.testing.assert_allclose(pixels(encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 128)), "PNG")), 127, atol=1)


@pytest.mark.parametrize(("mode", "transparent"), [("P", 0), ("RGB", (0, 0, 0)), ("L", 0)])
def test_a_transparent_colour_is_white(mode, transparent):
    np.testing.assert_array_equal(pixels(encoded(Image.new(mode, (8, 8), 0), "PNG", transparency=transparent)), 255)


def test_palettes_become_colours():
    image = Image.new("P", (8, 8), 3)
    image.putpalette([0] * 9 + list(COLOUR))
    np.testing.assert_array_equal(pixels(encoded(image, "PNG")), np.broadcast_to(COLOUR, (8, 8, 3)))


@pytest.mark.parametrize("format_", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(format_):
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    np.testing.assert_allclose(pixels(encoded(cyan, format_)), np.broadcast_to((0, 255, 255), (8, 8, 3)), atol=3)


@pytest.mark.parametrize("format_", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_clipped(format_):
    values = np.arange(0, 0x10000, 0x400, dtype=np.uint16).reshape(8, 8)
    image = pixels(encoded(Image.fromarray(values), format_), channels=1)
    np.testing.assert_array_equal(image[..., 0], values // 256)


def test_sixteen_bit_colour_is_scaled():
    row = b"\0" + struct.pack(">HHH", 0xFFFF, 0x8000, 0x0100) * 4
    np.testing.assert_array_equal(pixels(png(4, 4, 16, 2, row * 4), size=4), np.broadcast_to((255, 128, 1), (4, 4, 3)))


def test_pixels_without_an_agreed_range_are_refused():
    with pytest.raises(UnreadableError, match="floating-point"):
        pixels(encoded(Image.new("F", (8, 8), 0.5), "TIFF"))
    with pytest.raises(UnreadableError, match="beyond 16 bits"):
        pixels(encoded(Image.new("I", (8, 8), 70_000), "TIFF"))


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(format_, orientation):
    quadrants = np.zeros((64, 64), np.uint8)
    quadrants[:32, :32], quadrants[:32, 32:], quadrants[32:, :32] = 250, 170, 90
    image = Image.fromarray(quadrants).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, format_, exif=exif)
    expected = np.asarray(
        ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("L").resize((2, 2), Image.Resampling.BOX)
    )
    np.testing.assert_allclose(pixels(data, size=16, channels=1)[4::8, 4::8, 0], expected, atol=8)


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("how", ["bilinear", "area", "tf_bilinear"])
def test_height_and_width_may_differ(format_, orientation, crop, how):
    """As Pillow gives the turned image: its whole, or its largest central part of that form."""
    across, down = np.meshgrid(np.linspace(0, 250, 120), np.linspace(0, 250, 80))
    image = Image.fromarray(np.stack([across, down, 0 * across], -1).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, format_, exif=exif)
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    for height, width in ((10, 6), (6, 10), (40, 5)):
        found = decode(data, (height, width), 3, how, crop)[0]
        assert found.shape == (height, width, 3)
        scale = min(turned.width / width, turned.height / height)
        part = ImageOps.fit(turned, (round(scale * width), round(scale * height))) if crop else turned
        expected = np.asarray(part.resize((width, height), Image.Resampling.BOX))
        np.testing.assert_allclose(found, expected, atol=25 if how == "tf_bilinear" else 12)


def test_broken_exif_is_ignored():
    data = encoded(Image.new("RGB", (16, 16), COLOUR), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    np.testing.assert_allclose(pixels(data), np.broadcast_to(COLOUR, (8, 8, 3)), atol=4)


@pytest.mark.parametrize("format_", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animated_files_give_their_first_frame(format_):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("white", "black", "red")]
    data = encoded(frames[0], format_, save_all=True, append_images=frames[1:])
    assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == 3
    np.testing.assert_allclose(pixels(data), 255, atol=3)


def test_stretching_keeps_all_and_cropping_keeps_the_centre():
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 255
    data = encoded(Image.fromarray(wide), "PNG")
    np.testing.assert_array_equal(pixels(data, size=10, channels=1, crop=True), 255)
    assert pixels(data, size=10, channels=1).mean() == pytest.approx(255 / 3, abs=3)


@pytest.mark.parametrize("how", ["bilinear", "bicubic", "lanczos", "area"])
def test_shrinking_averages(how):
    """A checkerboard of single pixels is gray from afar; without antialiasing it would be black or white."""
    board = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    image = pixels(encoded(Image.fromarray(board), "PNG"), size=16, channels=1, how=how)
    np.testing.assert_allclose(image, 127.5, atol=3)


def test_nearest_takes_single_pixels():
    board = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    assert set(np.unique(pixels(encoded(Image.fromarray(board), "PNG"), size=16, channels=1, how="nearest"))) <= {
        0,
        255,
    }


def test_decoding_a_jpeg_at_a_fraction_of_its_size_changes_little():
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 256, (24, 24, 3), dtype=np.uint8))
    photo = coarse.resize((640, 640), Image.Resampling.BICUBIC)
    data = encoded(photo, "JPEG", quality=90)
    whole = np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize((64, 64), Image.Resampling.BILINEAR))
    assert np.abs(pixels(data, size=64).astype(int) - whole).mean() < 1.5


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"these are words\n" * 9, "not an image"),
        (b"\0\0\0\x18ftypheic" + bytes(99), "HEIC"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (png(60_000, 60_000, 8, 2, b"\0"), f"at most {MAX_PIXELS:,}"),
        (png(9_460, 9_460, 8, 2, b"\0"), f"9460 x 9460 pixels, takes at most {MAX_PIXELS:,}"),
        (png(0, 0, 8, 2, b"\0"), "."),
        (encoded(Image.effect_noise((64, 64), 50), "JPEG")[:-600], "truncated"),
    ],
    ids=["empty", "text", "HEIC", "EPS", "bomb", "one-pixel-too-many", "no-pixels", "truncated"],
)
def test_every_reason_is_a_few_words(data, reason):
    with pytest.raises(UnreadableError, match=reason) as caught:
        pixels(data)
    assert 0 < len(str(caught.value)) <= 120
    assert "\n" not in str(caught.value)


def test_a_decompression_bomb_needs_no_memory():
    """In a process that may not have 512 MiB, where the 60,000 x 60,000 pixels of the header would be 10 GiB."""
    program = (
        "import resource, sys\n"
        "from src.data.decode import UnreadableError, decode\n"
        "limit = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize() + (512 << 20)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "try:\n    decode(sys.stdin.buffer.read(), (8, 8), 3, 'bilinear', False)\n"
        "except UnreadableError as error:\n    print(error)\n"
    )
    if sys.platform != "linux":
        pytest.skip("limits memory through /proc")
    bombs = [png(60_000, 60_000, 8, 2, b"\0"), png(9_460, 9_460, 8, 6, b"\0")]
    bmp = bytearray(encoded(Image.new("RGB", (8, 8)), "BMP"))
    bmp[18:26] = struct.pack("<ii", 60_000, 60_000)
    for bomb in [*bombs, bytes(bmp)]:
        done = subprocess.run([sys.executable, "-c", program], input=bomb, capture_output=True, check=True)
        assert f"at most {MAX_PIXELS:,}" in done.stdout.decode()


@pytest.mark.parametrize(("height", "width", "size"), [(224, 224, 96), (37, 53, 32), (20, 20, 64), (33, 50, 50)])
def test_tf_bilinear_is_that_of_tensorflow(height, width, size):
    tf = pytest.importorskip("tensorflow")
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = np.rint(tf.image.resize(values, (size, size)))
    np.testing.assert_array_equal(
        pixels(encoded(Image.fromarray(values), "PNG"), size=size, how="tf_bilinear"), expected
    )
    np.testing.assert_array_equal(resize(values[None], (size, size), "tf_bilinear")[0], expected)


def test_a_jpeg_is_decoded_like_tensorflow_does_with_its_accurate_dct():
    tf = pytest.importorskip("tensorflow")
    data = encoded(Image.effect_noise((64, 64), 60).convert("RGB"), "JPEG", quality=80)
    expected = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
    np.testing.assert_array_equal(pixels(data, size=64), expected)


@pytest.mark.parametrize("how", ["bilinear", "tf_bilinear"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_the_straight_way_through_a_jpeg_gives_what_pillow_gives(monkeypatch, mode, how):
    """Or the same reason: of sound files, cut ones, changed ones and ones with something behind them."""
    generator = np.random.default_rng(0)

    def either(data: bytes, size: int, channels: int) -> np.ndarray | str:
        try:
            return pixels(data, size, channels, how)
        except UnreadableError as error:
            return str(error)

    straight, straightly = _straight, 0
    for case in range(150):
        side = int(generator.choice([16, 31, 64]))
        coarse = generator.integers(0, 256, (6, 6, len(Image.new(mode, (1, 1)).getbands())), dtype=np.uint8)
        image = Image.fromarray(coarse.squeeze(), mode=mode).resize((side, side))
        quality, subsampling = int(generator.integers(20, 100)), int(generator.integers(3))
        data = encoded(image, "JPEG", quality=quality, subsampling=subsampling, progressive=case % 4 == 1)
        if case % 3 == 1:
            data = data[: generator.integers(len(data))]
        elif case % 3 == 2:
            changed = bytearray(data + b"behind" * (case % 2))
            changed[generator.integers(len(data))] = generator.integers(256)
            data = bytes(changed)
        size, channels = side if case % 2 else 24, 3 if case % 5 else 1
        found = either(data, size, channels)
        straightly += bool(data) and straight(data, (size, size), channels, how, False) is not None
        with monkeypatch.context() as without:
            without.setattr("src.data.decode._straight", lambda *_: None)
            np.testing.assert_array_equal(found, either(data, size, channels))
    assert straightly >= 10 if mode != "CMYK" else straightly == 0


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_arrays_are_resized_channel_by_channel(channels):
    colours = np.array([10, 100, 200, 250], np.uint8)[:channels]
    image = np.broadcast_to(colours, (2, 6, 6, channels))
    np.testing.assert_array_equal(resize(image, (4, 4), "bilinear"), np.broadcast_to(colours, (2, 4, 4, channels)))


def test_arrays_of_the_right_size_are_left_alone():
    image = np.random.default_rng(0).integers(0, 256, (2, 6, 6, 3), dtype=np.uint8)
    assert resize(image, (6, 6), "bilinear") is image
