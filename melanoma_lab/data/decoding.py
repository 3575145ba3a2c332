"""Decode image files to RGB pixels, or refuse them with a reason.

=====================  ============================================================================
EXIF orientation       applied; EXIF that cannot be read is ignored
several pictures       the first is used: of an animation, of a TIFF's pages, of a phone's MPO
grey, palette, CMYK    converted to RGB; CMYK by Pillow's plain formula, also Adobe's inverted JPEGs
16 bits                scaled to 8 bits, never clipped
transparent            put on white, as viewers and browsers show it
colour profile (ICC)   not applied, as in TensorFlow, Pillow and OpenCV; the audit names it
32 bits, floats        refused: the file does not say which value is white
truncated              refused: half a photograph may not show the labelled lesion
=====================  ============================================================================

The format is found from a file's content, not from the ending of its name. Only the formats in
``FORMATS`` are allowed, because Pillow would pass an EPS file to an interpreter of programs.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from melanoma_lab.config.schema.data import Resize
from melanoma_lab.data.image_files import IMAGE_FORMATS

#: Part of the cache key of decoded pixels: increase it if the same file would get other pixels.
DECODING_VERSION: Final = 2
FORMATS: Final = tuple(sorted(set(IMAGE_FORMATS.values())))  # JPEG includes MPO
#: Largest number of pixels that a file may declare: Pillow's limit for decompression bombs.
MAX_PIXELS: Final = 89_478_485
#: Largest width or height (JPEG's limit): resizing a line of 80 million pixels would take 40 GB.
MAX_SIDE: Final = 65_535
#: Largest size of a file in bytes: enough for MAX_PIXELS of four uncompressed 16-bit channels.
MAX_BYTES: Final = 2**30
#: Pictures of more pixels than this are decoded one at a time, whatever the number of threads.
LARGE_PICTURE: Final = 2**24
#: Background of transparent pictures, RGBA.
BACKGROUND: Final = (255, 255, 255, 255)

#: Modes that Pillow converts correctly to RGB or RGBA.
_CONVERTIBLE: Final = frozenset(
    {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB"}
)
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # tags of TIFF
_large_picture_lock = threading.Lock()

# Pillow only warns of a likely decompression bomb; here it is an error. Its other warnings, such
# as of truncated EXIF, do not concern the pixels. They are ignored, so that an image is decoded
# even if the process turns warnings into errors.
warnings.simplefilter("error", Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


def decode_image(path: str, size: int, resize: Resize = Resize.squash) -> NDArray[np.uint8]:
    """Decode an image file and resize it to a square: uint8, shape (size, size, 3), RGB.

    Resizing is bilinear; when shrinking, the filter is widened to avoid aliasing. The errors are
    those of ``read_picture``.
    """
    # A JPEG far larger than needed is decoded at 1/2, 1/4 or 1/8 of its size, which is faster.
    picture = read_picture(path, at_least=2 * size)
    return np.asarray(make_square(picture, size, resize))


def make_square(
    picture: Image.Image,
    size: int,
    resize: Resize,
    resampling: Image.Resampling = Image.Resampling.BILINEAR,
) -> Image.Image:
    """Resize a picture in mode RGB to a square with sides of ``size`` pixels."""
    match resize:
        case Resize.squash:
            return picture.resize((size, size), resampling)
        case Resize.crop:
            return ImageOps.fit(picture, (size, size), resampling)
        case Resize.pad:
            return ImageOps.pad(picture, (size, size), resampling, color=0)


def read_for_display(path: str, longest: int, resize: Resize) -> Image.Image:
    """Decode the part of a picture that a network sees, upright, with its original proportions.

    The result is the whole picture, the square in its middle, or a square with black on two sides;
    its longest side has at most ``longest`` pixels. The errors are those of ``read_picture``.
    """
    picture = read_picture(path, at_least=2 * longest)
    match resize:
        case Resize.squash:
            scale = min(1, longest / max(picture.size))
            width, height = (max(1, round(side * scale)) for side in picture.size)
            return picture.resize((width, height), Image.Resampling.LANCZOS)
        case Resize.crop:
            side = min(*picture.size, longest)
        case Resize.pad:
            side = min(max(picture.size), longest)
    return make_square(picture, side, resize, Image.Resampling.LANCZOS)


def read_picture(path: str, at_least: int | None = None) -> Image.Image:
    """Decode the picture in a file, upright and in mode RGB.

    Args:
        at_least: a JPEG may be decoded at a reduced size, but with at least this many pixels on
            each side; None: full size.

    Raises:
        ValueError: the content cannot be decoded; the message says why.
        OSError: the file cannot be opened or read.
    """
    with _open_picture(path) as picture:
        if at_least is not None:
            picture.draft("RGB", (at_least, at_least))
        with (
            _large_picture_lock if picture.width * picture.height > LARGE_PICTURE else nullcontext()
        ):
            return _to_rgb(_upright(picture))


def describe_picture(path: str) -> tuple[str, int, int, str]:
    """Return Pillow's name of an image's format, its stored width and height, and a note.

    The note says why the colours may differ from the photographed ones; it is empty if they do not.
    """
    with _open_picture(path) as picture:
        return picture.format or "", picture.width, picture.height, _describe_colours(picture)


@contextmanager
def _open_picture(path: str) -> Iterator[Image.Image]:
    """Open a file of acceptable size without decoding it; raise errors as ``decode_image`` does."""
    try:
        _check_bytes(os.stat(path).st_size)  # noqa: PTH116
        with open(path, "rb") as file, Image.open(file, formats=FORMATS) as picture:  # noqa: PTH123
            _check_size(*picture.size)
            yield picture
    except UnidentifiedImageError as error:
        with open(path, "rb") as file:  # noqa: PTH123
            empty = not file.read(1)
        raise ValueError("an empty file" if empty else "not an image") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"too large: more than {MAX_PIXELS:,} pixels") from error
    except MemoryError:
        raise  # not the file's fault
    except OSError as error:
        if error.errno is not None:
            raise  # the disk failed, not the decoder
        raise ValueError(str(error) or "damaged") from error
    except Exception as error:  # damaged bytes make Pillow raise anything: struct.error, KeyError
        reason = str(error) if isinstance(error, ValueError | SyntaxError) else ""
        raise ValueError(reason or f"damaged ({type(error).__name__})") from error


def _check_bytes(n: int) -> None:
    """Refuse a file that is too large to be read into memory, as Pillow does with any WebP."""
    if n > MAX_BYTES:
        raise ValueError(f"too large: more than {MAX_BYTES >> 20:,} MiB")


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise ValueError(f"too large: {width}x{height} pixels")


def _upright(picture: Image.Image) -> Image.Image:
    """Decode a picture and apply its EXIF orientation."""
    picture.load()  # first, because Pillow turns a TIFF itself and removes its orientation
    try:
        orientation = picture.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001 - broken EXIF raises anything; the pixels are fine
        return picture
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return picture if turn is None else picture.transpose(turn)


def _to_rgb(picture: Image.Image) -> Image.Image:
    """Convert a picture of any supported mode to RGB, with transparent pixels on white."""
    if picture.mode.startswith("I;16"):
        return _from_16_bits(picture)
    if picture.mode not in _CONVERTIBLE:
        raise ValueError(f"pixels of 32 bits or signed (mode {picture.mode}), of unknown range")
    if not picture.has_transparency_data:
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    layer = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, BACKGROUND), layer).convert("RGB")


def _from_16_bits(picture: Image.Image) -> Image.Image:
    """Convert a grey picture of 16 (or 12) bits to RGB by scaling; Pillow would clip it."""
    tags: Any = getattr(picture, "tag_v2", {})
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    grey = np.asarray(picture).astype(np.float32) / (2**bits - 1)
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero; Pillow inverts only 8-bit pictures
        grey = 1 - grey
    key = picture.info.get("transparency")  # PNG: one grey value means transparent
    if isinstance(key, int):
        grey[np.asarray(picture) == key] = 1
    return Image.fromarray(np.rint(255 * grey).astype(np.uint8)).convert("RGB")


def _describe_colours(picture: Image.Image) -> str:
    """Note why the colours may differ from the photographed ones; return "" if they do not."""
    if picture.mode == "CMYK":
        return "CMYK, converted without a colour profile"
    name = _profile_name(picture.info.get("icc_profile"))
    return f"colour profile {name!r} is not applied" if name and "srgb" not in name.lower() else ""


def _profile_name(profile: object) -> str:
    """Return the name of a colour profile; empty if it cannot be read."""
    if not isinstance(profile, bytes) or not profile:
        return ""
    import io

    from PIL import ImageCms

    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.getProfileDescription(opened).strip()
    except (OSError, ImageCms.PyCMSError):
        return ""
