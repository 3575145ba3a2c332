"""From an image file to pixels: what is sound is converted, the rest is refused with a reason.

=====================  ============================================================================
turned by the camera   EXIF's orientation is applied; EXIF that cannot be read counts as none
several pictures       the first counts: of an animation, of a TIFF's pages, of a phone's MPO
grey, palette, CMYK    as RGB; CMYK by Pillow's plain formula, Adobe's inverted JPEGs included
16 bits                scaled to 8, never clipped
transparent            laid on white, as viewers and browsers show it
colour profile (ICC)   not applied, as TensorFlow, Pillow and OpenCV do not; the audit names it
32 bits, floats        refused: nothing in the file says which value is white
cut short              refused: half a photograph is not the lesion that the label is about
=====================  ============================================================================

A file's content counts, not the ending of its name. Formats are those of ``FORMATS`` and no other:
Pillow would hand an EPS file to an interpreter of programs.
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

from melanoma_lab.config.schema.dataset import Resize

#: Part of every key of decoded pixels: raise it when the same file would come out as others.
DECODING_VERSION: Final = 2
FORMATS: Final = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")  # MPO comes with JPEG
#: Most pixels that a file may say it has (Pillow's own limit for what may be a bomb), and most
#: along a side (JPEG's limit): resizing a line of 80 million pixels would take 40 GB.
MAX_PIXELS: Final = 89_478_485
MAX_SIDE: Final = 65_535
#: Bytes of a file: room for so many pixels of 16 bits and four channels without compression.
MAX_BYTES: Final = 2**30
#: Pictures of more pixels than this are decoded one at a time, whatever the number of threads.
LARGE_PICTURE: Final = 2**24
#: What shows through a transparent picture.
BACKGROUND: Final = (255, 255, 255, 255)

#: Modes whose conversion to RGB or RGBA by Pillow is right.
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
_one_giant = threading.Lock()

# A likely bomb is refused here, where Pillow only warns. Its other warnings are of what does not
# touch the picture, such as half an EXIF; whether they are printed must not decide what is read.
warnings.simplefilter("error", Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


def decode_image(path: str, size: int, resize: Resize = Resize.squash) -> NDArray[np.uint8]:
    """Decode one image file and resize it to a square.

    Resizing is bilinear with the support widened when shrinking, so nothing aliases.

    Args:
        path: an image file.
        size: side in pixels.
        resize: what becomes of its proportions.

    Returns:
        uint8, shape (size, size, 3), RGB.

    Raises:
        ValueError: the content cannot be decoded; the message says why.
        OSError: the file cannot be opened or read.
    """
    # A JPEG far larger than needed is decoded at a half, quarter or eighth: much faster.
    picture = read_picture(path, at_least=2 * size)
    return np.asarray(make_square(picture, size, resize))


def make_square(
    picture: Image.Image,
    size: int,
    resize: Resize,
    resampling: Image.Resampling = Image.Resampling.BILINEAR,
) -> Image.Image:
    """A picture as a square.

    Args:
        picture: in mode RGB.
        size: side in pixels.
        resize: what becomes of its proportions.
        resampling: the filter.
    """
    match resize:
        case Resize.squash:
            return picture.resize((size, size), resampling)
        case Resize.crop:
            return ImageOps.fit(picture, (size, size), resampling)
        case Resize.pad:
            return ImageOps.pad(picture, (size, size), resampling, color=0)


def resize_for_display(picture: Image.Image, longest: int, resize: Resize) -> Image.Image:
    """What a network sees of a picture, in its true proportions and at most so large.

    Args:
        picture: in mode RGB.
        longest: side in pixels.
        resize: what becomes of its proportions where the network sees it.

    Returns:
        All of the picture, the square in its middle, or a square with black on two sides.
    """
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
    """The picture in a file, upright, in mode RGB.

    Args:
        path: an image file.
        at_least: a JPEG may come smaller than it is, but not below so many pixels a side.

    Raises:
        ValueError: the content cannot be decoded; the message says why.
        OSError: the file cannot be opened or read.
    """
    with _open_picture(path) as picture:
        if at_least is not None:
            picture.draft("RGB", (at_least, at_least))
        with _one_giant if picture.width * picture.height > LARGE_PICTURE else nullcontext():
            return _rgb(_upright(picture))


def describe_picture(path: str) -> tuple[str, int, int, str]:
    """Format, width, height and what is to be known of the colours.

    Args:
        path: an image file that can be decoded.

    Returns:
        The format as Pillow calls it; the width and height in pixels, as stored; and a sentence
        where the colours may not be what the photographer saw, else nothing.
    """
    with _open_picture(path) as picture:
        return picture.format or "", picture.width, picture.height, _colours(picture)


@contextmanager
def _open_picture(path: str) -> Iterator[Image.Image]:
    """A file whose declared size is bearable, not decoded yet; every failure as decode's."""
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
        raise  # says nothing about the file
    except OSError as error:
        if error.errno is not None:
            raise  # neither does this: the disk failed, not the decoder
        raise ValueError(str(error) or "damaged") from error
    except Exception as error:  # damaged bytes make Pillow raise anything: struct.error, KeyError
        reason = str(error) if isinstance(error, ValueError | SyntaxError) else ""
        raise ValueError(reason or f"damaged ({type(error).__name__})") from error


def _check_bytes(n: int) -> None:
    """Refuse a file that Pillow must not read whole, as it does a WebP of any size."""
    if n > MAX_BYTES:
        raise ValueError(f"too large: more than {MAX_BYTES >> 20:,} MiB")


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise ValueError(f"too large: {width}x{height} pixels")


def _upright(picture: Image.Image) -> Image.Image:
    """The picture as the photographer held the camera; decodes it."""
    picture.load()  # first: Pillow turns a TIFF itself, and then it must not be turned again
    try:
        orientation = picture.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001 - broken EXIF raises anything; the picture is whole
        return picture
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return picture if turn is None else picture.transpose(turn)


def _rgb(picture: Image.Image) -> Image.Image:
    """Any sound mode as RGB, transparency laid on white."""
    if picture.mode.startswith("I;16"):
        return _from_16_bits(picture)
    if picture.mode not in _CONVERTIBLE:
        raise ValueError(f"pixels of 32 bits or signed (mode {picture.mode}), of unknown range")
    if not picture.has_transparency_data:
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    layer = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, BACKGROUND), layer).convert("RGB")


def _from_16_bits(picture: Image.Image) -> Image.Image:
    """Grey of 16 bits a pixel (or 12), as Pillow keeps it; it would clip, this scales."""
    tags: Any = getattr(picture, "tag_v2", {})
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    grey = np.asarray(picture).astype(np.float32) / (2**bits - 1)
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero; Pillow turns that over for 8 bits only
        grey = 1 - grey
    key = picture.info.get("transparency")  # PNG: the one grey that is transparent
    if isinstance(key, int):
        grey[np.asarray(picture) == key] = 1
    return Image.fromarray(np.rint(255 * grey).astype(np.uint8)).convert("RGB")


def _colours(picture: Image.Image) -> str:
    """What makes the colours differ from those that were photographed."""
    if picture.mode == "CMYK":
        return "CMYK, converted without a colour profile"
    name = _profile_name(picture.info.get("icc_profile"))
    return f"colour profile {name!r} is not applied" if name and "srgb" not in name.lower() else ""


def _profile_name(profile: object) -> str:
    """What a colour profile calls itself; empty where there is none that can be read."""
    if not isinstance(profile, bytes) or not profile:
        return ""
    import io

    from PIL import ImageCms

    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.getProfileDescription(opened).strip()
    except (OSError, ImageCms.PyCMSError):
        return ""
