"""Images as they come: what is sound is converted, the rest refused with a reason."""

import io
import re
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms

from melanoma_lab.data import decoding
from melanoma_lab.data.cache import compute_file_digests, load_pixels
from melanoma_lab.data.decoding import MAX_SIDE, decode_image, describe_picture, read_picture

pytestmark = pytest.mark.unit

#: Every level of 16 bits that matters, dark to bright, 32 x 32.
RAMP = np.linspace(0, 65535, 32 * 32).round().astype(np.uint16).reshape(32, 32)
EIGHT_BITS = np.rint(RAMP / 257).astype(np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(pixels, colour_type, *more, size=None):
    """A PNG by hand: Pillow writes no colour of 16 bits."""
    height, width = size or pixels.shape[:2]
    bits = 8 * pixels.itemsize
    big_endian = pixels.astype(pixels.dtype.newbyteorder(">"))
    rows = b"".join(b"\0" + row.tobytes() for row in big_endian)
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    ends = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join([ends[0], *more, ends[1]])


@pytest.fixture
def saved(tmp_path):
    """A function that writes a file of given bytes, or as Pillow saves a picture."""

    def save(content, name="picture.png", **options):
        if isinstance(content, bytes):
            (tmp_path / name).write_bytes(content)
        else:
            picture = content if isinstance(content, Image.Image) else Image.fromarray(content)
            picture.save(tmp_path / name, **options)
        return str(tmp_path / name)

    return save


def shown(path, size=32):
    return decode_image(path, size)


@pytest.mark.parametrize("name", ["grey.png", "grey.tif"])
def test_grey_of_16_bits_is_scaled_and_not_clipped(saved, name):
    pixels = shown(saved(RAMP, name))
    for channel in range(3):
        np.testing.assert_array_equal(pixels[..., channel], EIGHT_BITS)


@pytest.mark.parametrize(
    ("order", "photometric", "expected"),
    [("<", 1, EIGHT_BITS), (">", 1, EIGHT_BITS), ("<", 0, 255 - EIGHT_BITS)],
)
def test_grey_tiffs_of_either_byte_order_and_meaning_of_zero(saved, order, photometric, expected):
    pixels = shown(saved(_tiff(RAMP, order, photometric), "grey.tif"))
    np.testing.assert_array_equal(pixels[..., 0], expected)


def _tiff(pixels, order, photometric, sample_format=1):
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    height, width = pixels.shape
    short, tags = 3, {
        256: width, 257: height, 258: 8 * pixels.itemsize, 259: 1, 262: photometric, 277: 1,
        278: height, 279: len(data), 339: sample_format,
    }  # fmt: skip
    tags[273] = 8 + 2 + 12 * (len(tags) + 1) + 4  # where the pixels begin
    entries = b"".join(
        struct.pack(order + "HHIHH", tag, short, 1, value, 0) for tag, value in sorted(tags.items())
    )
    head = b"II*\0" if order == "<" else b"MM\0*"
    count = struct.pack(order + "H", len(tags))
    return head + struct.pack(order + "I", 8) + count + entries + bytes(4) + data


def test_colour_of_16_bits_keeps_its_upper_8(saved):
    colour = np.stack([RAMP, RAMP[::-1], RAMP.T], axis=-1)
    np.testing.assert_array_equal(shown(saved(png(colour, 2))), colour >> 8)


@pytest.mark.parametrize(
    ("pixels", "mode"), [(RAMP.astype(np.int32), "I"), (EIGHT_BITS.astype(np.float32), "F")]
)
def test_pixels_of_unknown_range_are_refused(saved, pixels, mode):
    with pytest.raises(ValueError, match=rf"mode {mode}\), of unknown range"):
        shown(saved(pixels, "wide.tif"))


def test_signed_pixels_are_refused(saved):
    with pytest.raises(ValueError, match="of unknown range"):
        shown(saved(_tiff(RAMP.astype(np.int16), "<", 1, sample_format=2), "signed.tif"))


@pytest.mark.parametrize(("name", "tolerance"), [("red.jpg", 2), ("red.tif", 0)])
def test_cmyk_is_converted_and_adobes_inverted_jpegs_are_understood(saved, name, tolerance):
    red = Image.new("CMYK", (32, 32), (0, 255, 255, 0))  # Pillow saves a JPEG as Adobe does
    pixels = shown(saved(red, name)).astype(int)
    assert np.abs(pixels - [255, 0, 0]).max() <= tolerance


@pytest.mark.parametrize("name", ["half.png", "half.webp", "half.tif"])
def test_transparency_is_laid_on_white(saved, name):
    layer = Image.new("RGBA", (32, 32), (255, 0, 0, 128))
    layer.putpixel((0, 0), (10, 20, 30, 0))  # hidden colours stay hidden
    options = {"lossless": True, "exact": True} if name.endswith("webp") else {}
    pixels = shown(saved(layer, name, **options))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[9, 9].tolist() == [255, 127, 127]


def test_a_transparent_colour_is_white_too(saved):
    pixels = np.full((32, 32, 3), 100, np.uint8)
    pixels[:16] = (0, 200, 0)
    key = chunk(b"tRNS", struct.pack(">HHH", 0, 200, 0))
    assert shown(saved(png(pixels, 2, key)))[0, 0].tolist() == [255, 255, 255]
    key = chunk(b"tRNS", struct.pack(">H", 65535 // 3))
    grey = np.full((32, 32), 65535 // 3, np.uint16)
    grey[16:] = 0
    found = shown(saved(png(grey, 0, key)))
    assert (found[0, 0, 0], found[31, 0, 0]) == (255, 0)


@pytest.mark.parametrize("name", ["palette.png", "palette.gif"])
def test_palettes_with_and_without_transparency(saved, name):
    picture = Image.new("P", (32, 32), 1)
    picture.putpalette([0, 0, 0, 10, 200, 30])
    assert shown(saved(picture, name))[0, 0].tolist() == [10, 200, 30]
    assert shown(saved(picture, name, transparency=1))[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("name", ["moving.gif", "moving.webp", "moving.png", "pages.tif"])
def test_the_first_of_several_pictures_counts(saved, name):
    first, *rest = (Image.new("RGB", (32, 32), colour) for colour in ("red", "lime", "blue"))
    options = {"lossless": True} if name.endswith("webp") else {}
    path = saved(first, name, save_all=True, append_images=rest, **options)
    with Image.open(path) as opened:
        assert opened.n_frames == 3
    assert shown(path)[0, 0].tolist() == [255, 0, 0]


#: What a viewer shows of a picture whose upper left quarter is white, by EXIF orientation.
CORNERS = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}


@pytest.mark.parametrize("name", ["turned.jpg", "turned.png", "turned.webp", "turned.tif"])
@pytest.mark.parametrize("orientation", CORNERS)
def test_the_cameras_orientation_is_applied_once(saved, name, orientation):
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:10, :20] = 255
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = saved(pixels, name, exif=exif)
    down, right = CORNERS[orientation]
    quarters = shown(path)[4::24, 4::24, 0] > 128
    assert quarters.sum() == 1
    assert quarters[down, right]
    upright = (40, 20) if orientation < 5 else (20, 40)
    assert read_picture(path).size == upright


def test_broken_exif_does_not_cost_the_picture(saved):
    plain = shown(saved(NOISE, "plain.png"))
    for broken in (b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(20), b"x"):
        np.testing.assert_array_equal(shown(saved(NOISE, "broken.png", exif=broken)), plain)


def test_one_pixel_is_a_picture(saved):
    assert (shown(saved(Image.new("RGB", (1, 1), (7, 8, 9)))) == (7, 8, 9)).all()


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ((9_500, 9_500), "too large"),
        ((30_000, 30_000), "too large"),
        ((2**31 - 1, 2**31 - 1), "too large"),
        ((MAX_SIDE + 1, 1), "too large"),  # few pixels, and a giant while it is resized
        ((1, MAX_SIDE + 1), "too large"),
    ],
)
def test_a_bomb_is_refused_by_the_size_it_declares(saved, monkeypatch, size, reason):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    path = saved(png(np.zeros((1, 1, 3), np.uint8), 2, size=size))
    with pytest.raises(ValueError, match=reason):
        decode_image(path, 32)


def test_a_giant_is_decoded_while_no_other_is(saved, monkeypatch):
    monkeypatch.setattr(decoding, "LARGE_PICTURE", 100)
    held, upright = [], decoding._upright

    def watched(picture):
        held.append(decoding._large_picture_lock.locked())
        return upright(picture)

    monkeypatch.setattr(decoding, "_upright", watched)
    shown(saved(NOISE))
    shown(saved(NOISE[:10, :10]))
    assert held == [True, False]


FORMATS = {
    "a.jpg": {},
    "progressive.jpg": {"progressive": True},
    "a.png": {},
    "a.webp": {},
    "lossless.webp": {"lossless": True},
    "a.tif": {},
    "lzw.tif": {"compression": "tiff_lzw"},
    "a.bmp": {},
    "a.gif": {},
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_a_file_that_was_cut_short_is_refused(saved, tmp_path, name, kept):
    path = saved(NOISE, name, **FORMATS[name])
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ValueError, match=r"."):
        decode_image(path, 32)


@pytest.mark.filterwarnings("ignore::UserWarning")  # as the module does outside pytest
@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
def test_damage_gives_pixels_or_a_reason_and_the_same_at_every_size(tmp_path_factory, name, data):
    whole = io.BytesIO()
    kind = {"jpg": "JPEG", "tif": "TIFF"}.get(name.split(".")[1], name.split(".")[1])
    Image.fromarray(NOISE).save(whole, kind, **FORMATS[name])
    content = bytearray(whole.getvalue())
    head = st.integers(0, min(300, len(content) - 1))  # where a format's structure is
    place = head | st.integers(0, len(content) - 1)
    for at, value in data.draw(st.lists(st.tuples(place, st.integers(0, 255)), max_size=8)):
        content[at] = value
    path = tmp_path_factory.getbasetemp() / f"damaged-{name}"
    path.write_bytes(content)
    reasons = {size: reason_of(str(path), size) for size in (16, 128)}
    assert len(set(reasons.values())) == 1, "the audit and the training disagree"
    assert "\n" not in reasons[16]


def reason_of(path, size):
    """Why a file is refused; empty where it is not."""
    try:
        assert decode_image(path, size).shape == (size, size, 3)
    except ValueError as error:
        return str(error) or "no reason at all"
    return ""


def test_programs_are_not_images(saved):
    path = saved(Image.new("RGB", (9, 9)), "a.eps")
    with Image.open(path) as opened:
        assert opened.format == "EPS"  # Pillow would, by an interpreter
    with pytest.raises(ValueError, match="not an image"):
        shown(path)


def test_the_content_counts_and_not_the_name(saved, tmp_path):
    jpeg = io.BytesIO()
    Image.fromarray(NOISE).save(jpeg, "JPEG")
    path = saved(jpeg.getvalue(), "really_a_jpeg.png")
    assert describe_picture(path) == ("JPEG", 40, 40, "")


def test_a_failing_disk_is_no_damaged_image(saved, monkeypatch):
    path = saved(NOISE)

    def fail(*_args, **_options):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(OSError, match="Input/output error"):
        decode_image(path, 16)


def test_too_little_memory_is_no_damaged_image(saved, monkeypatch):
    path = saved(NOISE)

    def fail(*_args, **_options):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "load", fail)
    with pytest.raises(MemoryError):
        decode_image(path, 16)


def test_a_colour_profile_is_named_and_not_applied(saved):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain = saved(NOISE, "plain.png")
    for profile, said in (
        (srgb, ""),
        (srgb.replace(b"s\0R\0G\0B", b"w\0i\0d\0e"), "colour profile 'wide"),
        (b"no profile", ""),
    ):
        path = saved(NOISE, "profile.png", icc_profile=profile)
        assert describe_picture(path)[3].startswith(said) is True
        assert bool(describe_picture(path)[3]) is bool(said)
        np.testing.assert_array_equal(shown(path), shown(plain))
    assert "CMYK" in describe_picture(saved(Image.new("CMYK", (9, 9)), "a.jpg"))[3]


def test_the_same_file_gives_the_same_pixels_whatever_the_threads(saved, tmp_path):
    paths = [saved(np.roll(NOISE, k, axis=0), f"{k}.jpg") for k in range(12)]
    paths += [saved(np.roll(RAMP, k, axis=0), f"{k}.tif") for k in range(12)]
    digests = compute_file_digests(paths, 4)
    one, many = (
        load_pixels(paths, digests, size=16, cache=tmp_path / str(threads), threads=threads)
        for threads in (1, 8)
    )
    np.testing.assert_array_equal(one.images, many.images)


def test_no_reason_names_a_python_class_alone(saved):
    """A reason is for people; what Pillow says of these is."""
    for content in (b"\xff\xd8\xff\xe0", b"GIF89a", b"BM", b"II*\0", b"RIFF\0\0\0\0WEBP"):
        with pytest.raises(ValueError, match=r"\w") as caught:
            decode_image(saved(content), 16)
        assert not re.fullmatch(r"[A-Z]\w+Error", str(caught.value))
