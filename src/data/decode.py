"""From the bytes of one image file, of whatever kind, to uint8 pixels of one size. Knows Pillow, and no folders.

Pillow says what is an image and what its pixels are. simplejpeg is a shorter way to the same ones."""

import base64
import functools
import io
import logging
import threading
import warnings
from contextlib import nullcontext
from typing import Literal

import numpy as np
import PIL
from PIL import Image, UnidentifiedImageError, features

try:
    import simplejpeg
except ImportError:  # in an exported folder, where Pillow is enough
    simplejpeg = None

RULES = 1  # raise it when the same bytes come out as other pixels
# Part of every cache key: all that the pixels depend on besides the bytes and the arguments of `decode`.
_VERSIONS = f"Pillow {PIL.__version__} {features.version('jpg')} simplejpeg {getattr(simplejpeg, '__version__', '')}"
IDENTITY = f"{RULES} {_VERSIONS}"

Resize = Literal["bilinear", "bicubic", "lanczos", "area", "nearest", "tf_bilinear"]

# Pixel formats with a signature, those that this build of Pillow has. EPS is left out because Pillow runs Ghostscript
# on it, TGA because anything can look like one.
Image.init()
FORMATS: list[str] = [
    name
    for name in (
        "JPEG",
        "PNG",
        "GIF",
        "BMP",
        "TIFF",
        "WEBP",
        "AVIF",
        "JPEG2000",
        "PPM",
        "ICO",
        "PCX",
        "QOI",
        "SGI",
        "PSD",
    )
    if name in Image.OPEN
]
MAX_PIXELS = 89_478_485  # what Pillow calls a decompression bomb: 256 MiB as RGB
MAX_BYTES = 1 << 30
FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "area": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,  # `tf_bilinear` is not one of Pillow's
}
# Smooth and antialiased: for these Pillow may first shrink by whole factors, by DCT scaling or by averages, and the
# result can't be told from the slow one. The others mean exact pixels.
SCALED_DECODING = ("bilinear", "bicubic", "lanczos")
ORIENTATION = 0x0112  # the EXIF tag
TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# However many threads decode, only one of them holds an image of more than this.
_LARGE_PIXELS = 1 << 24
_large = threading.Lock()

# A line per image about odd metadata, and at DEBUG one per PNG chunk, would drown what a run says. Of decompression
# bombs Pillow warns where `decode` refuses.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.INFO)


class UnreadableError(Exception):
    """Not an image that can be used; the message is the reason, in a few words."""


def decode(data: bytes, size: tuple[int, int], channels: int, resize: str, crop: bool) -> tuple[np.ndarray, str]:
    """The pixels of an image file, uint8 `[*size, channels]`, and the name of its format. `size` is height and width.

    - Alpha and transparent colours are composited on white.
    - 16-bit channels are divided by 256. 32-bit integers must fit in 16 bits; floats have no agreed range: refused.
    - CMYK, palettes and others become RGB, or luma (ITU-R 601) for one channel; colour profiles are ignored.
    - The EXIF orientation is applied. Animated files give their first frame.
    - A JPEG at least four times too large is decoded at half, a quarter or an eighth of its size (DCT scaling) where
      that leaves at least twice what is asked for, with the filters of `SCALED_DECODING`.

    JPEGs come out as from `tf.io.decode_jpeg(…, dct_method="INTEGER_ACCURATE")`; what TensorFlow and Keras do unless
    told otherwise is a coarser DCT, which differs by one level on average and up to about five.

    Raises `UnreadableError` for anything else.
    """
    if not data:
        raise UnreadableError("empty file")
    if (decoded := _straight(data, size, channels, resize, crop)) is not None:
        return decoded, "JPEG"
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            pixels = image.width * image.height
            if pixels > MAX_PIXELS:
                raise UnreadableError(f"{image.width} x {image.height} pixels, takes at most {MAX_PIXELS:,} in all")
            kind = image.format or ""
            with _large if pixels > _LARGE_PIXELS else nullcontext():
                return _sized(image, size, channels, resize, crop), kind
    except UnreadableError:
        raise
    except UnidentifiedImageError:
        raise UnreadableError(_unknown(data)) from None
    except Image.DecompressionBombError:
        raise UnreadableError(f"too many pixels, takes at most {MAX_PIXELS:,}") from None
    except MemoryError:
        raise UnreadableError("needs more memory than there is") from None
    except Exception as error:  # a broken file makes Pillow's plugins raise SyntaxError, struct.error, IndexError, …
        reason = " ".join(str(error).split())
        raise UnreadableError(f"{reason or type(error).__name__}"[:120]) from None


def opens(path: str) -> bool:
    """Whether the header is that of an image; the pixels are not looked at."""
    try:
        with Image.open(path, formats=FORMATS):
            return True
    except Exception:  # as in `decode`
        return False


def resize(images: np.ndarray, size: tuple[int, int], method: str) -> np.ndarray:
    """uint8 `[n, height, width, channels]`, any number of channels, to `[n, *size, channels]`."""
    if images.shape[1:3] == size:
        return images
    made = np.empty((len(images), *size, images.shape[3]), np.uint8)
    for image, out in zip(images, made, strict=True):
        if images.shape[3] == 3:
            out[:] = np.asarray(_resized(Image.fromarray(image), size, method, crop=False))
            continue
        for channel in range(images.shape[3]):
            out[..., channel] = np.asarray(_resized(Image.fromarray(image[..., channel]), size, method, crop=False))
    return made


def as_png(pixels: np.ndarray) -> str:
    """An image as base64 of a PNG file. `pixels`: uint8 `[height, width, 1 or 3]`."""
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _straight(data: bytes, size: tuple[int, int], channels: int, resize: str, crop: bool) -> np.ndarray | None:
    """What a sound JPEG becomes that Pillow is not needed for; None of any other.

    Straight into an array: half of Pillow's time goes into opening a file and packing the pixels that it keeps."""
    # FF E1 can't be in the coded pixels: it marks the segment of EXIF or XMP, either of which may turn the image.
    if simplejpeg is None or not data.startswith(b"\xff\xd8\xff") or b"\xff\xe1" in data:
        return None
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        as_it_is = (height, width) == size
        if not as_it_is and (resize != "tf_bilinear" or crop or height * width > _LARGE_PIXELS):
            return None
        if (space, channels) not in (("YCbCr", 3), ("Gray", 3), ("Gray", 1)):
            return None
        pixels = simplejpeg.decode_jpeg(data, "RGB" if channels == 3 else "GRAY")
        return pixels if as_it_is else _tf_bilinear(pixels, size)
    except ValueError:  # damaged; or only odd, which Pillow allows for
        return None


def _sized(image: Image.Image, size: tuple[int, int], channels: int, resize: str, crop: bool) -> np.ndarray:
    if image.format == "JPEG" and resize in SCALED_DECODING:
        height, width = _before_turning(image, size)
        if image.width >= 4 * width and image.height >= 4 * height:
            image.draft(None, (2 * width, 2 * height))
    image.load()  # which turns a TIFF
    plain = _resized(_plain(image, channels), _before_turning(image, size), resize, crop)
    if (orientation := _orientation(image)) in TRANSPOSE:
        plain = plain.transpose(TRANSPOSE[orientation])
    pixels = np.asarray(plain)
    return pixels if pixels.ndim == 3 else np.broadcast_to(pixels[..., None], (*size, channels))


def _before_turning(image: Image.Image, size: tuple[int, int]) -> tuple[int, int]:
    """The size that becomes `size` where the orientation is applied: four of them turn an image on its side."""
    return size[::-1] if _orientation(image) >= 5 else size


def _plain(image: Image.Image, channels: int) -> Image.Image:
    """8-bit gray or RGB; gray may remain where RGB is asked for, which makes resizing cheaper."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise UnreadableError("32-bit pixels beyond 16 bits, save it with 8 or 16 bits")
        return Image.fromarray((values >> 8).astype(np.uint8))
    if image.mode == "F":
        raise UnreadableError("floating-point pixels, save it with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    wanted = "L" if channels == 1 or image.mode in ("1", "L") else "RGB"
    return image if image.mode == wanted else image.convert(wanted)


def _resized(image: Image.Image, size: tuple[int, int], method: str, crop: bool) -> Image.Image:
    height, width = size
    box = None
    if crop:
        box = _central(image, height, width)
    elif image.size == (width, height):
        return image
    if method == "tf_bilinear":
        return Image.fromarray(_tf_bilinear(np.asarray(image.crop(box) if box else image), size))
    gap = 3.0 if method in SCALED_DECODING else None
    return image.resize((width, height), FILTERS[method], box=box, reducing_gap=gap)


def _central(image: Image.Image, height: int, width: int) -> tuple[int, int, int, int]:
    """The largest part around the centre that is as much wider than high as `width` is than `height`."""
    across = min(image.width, max(1, round(image.height * width / height)))
    down = min(image.height, max(1, round(image.width * height / width)))
    left, top = (image.width - across) // 2, (image.height - down) // 2
    return left, top, left + across, top + down


def _tf_bilinear(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 `[height, width]` or `[height, width, 3]` to `[*size]` or `[*size, 3]`: each pixel from the four nearest to
    its centre, like TensorFlow's and TFLite's ResizeBilinear with half-pixel centres, rounded."""
    height, width, channels = (*image.shape, 1)[:3]
    values = image.reshape(height, width * channels)
    for axis, (length, step) in enumerate(((height, 1), (width, channels))):
        lower, upper, weight = _taps(length, size[axis], step)
        low = values.take(lower, axis).astype(np.float32, copy=False)
        values = np.subtract(values.take(upper, axis), low, dtype=np.float32)
        values *= weight if axis else weight[:, None]
        values += low
    return np.rint(values, out=values).astype(np.uint8).reshape(*size, *image.shape[2:])


@functools.lru_cache(maxsize=64)
def _taps(length: int, size: int, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of `size` pixels the two of `length` that it lies between, and the weight of the second; as indices of
    each of the `step` values that a pixel has, one after another: `[size * step]`."""
    centre = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(length / size) - np.float32(0.5)
    lower = np.floor(centre)
    upper = np.minimum(np.ceil(centre), length - 1)
    of_pixel = np.arange(step)

    def indices(pixels: np.ndarray) -> np.ndarray:
        return (pixels.astype(np.intp)[:, None] * step + of_pixel).ravel()

    return indices(np.maximum(lower, 0)), indices(upper), np.repeat(centre - lower, step)


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # broken metadata does not spoil the pixels
        return 1


def _unknown(data: bytes) -> str:
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"mif1", b"msf1"):
        return "HEIC, which Pillow does not read: save it as JPEG"
    return "not an image in a known format"
