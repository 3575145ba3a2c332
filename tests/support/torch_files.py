"""Files as PyTorch writes them, instruction by instruction, and as it never does."""

import io
import struct
import zipfile

MAGIC = 0x1950A86A20F9469CFC6C
STORAGE = {"<f4": "FloatStorage", "<i8": "LongStorage", "<f8": "DoubleStorage"}


def pickled(*parts):
    """One pickle of protocol 2 from pieces of instructions."""
    return b"\x80\x02" + b"".join(parts) + b"."


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def text(value):
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value):
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes((value.bit_length() // 8) + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def dictionary(items):
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def ordered(items):
    """An ordered dictionary with an attribute, as a state dictionary has one."""
    filled = b"(" + b"".join(text(key) + value for key, value in items.items()) + b"u"
    return (
        name("collections", "OrderedDict") + b")R" + filled + dictionary({"_metadata": b"N"}) + b"b"
    )


def tensor(key, length, shape, strides, *, offset=0, dtype="<f4", legacy=True):
    identity = b"(" + text("storage") + name("torch", STORAGE[dtype]) + text(key) + text("cpu")
    identity += number(length) + (b"N" if legacy else b"") + b"tQ"
    hooks = name("collections", "OrderedDict") + b")R"
    return (
        name("torch._utils", "_rebuild_tensor_v2")
        + b"("
        + identity
        + number(offset)
        + numbers(shape)
        + numbers(strides)
        + b"\x89"
        + hooks
        + b"tR"
    )


def plain(found, storages, *, begin=MAGIC):
    """The old format: description and storages, key -> (bytes, length that is written down)."""
    platform = dictionary({"protocol_version": number(1001), "little_endian": b"\x88"})
    keys = b"](" + b"".join(map(text, storages)) + b"e"
    content = pickled(number(begin)) + pickled(number(1001)) + pickled(platform) + pickled(found)
    content += pickled(keys)
    for raw, length in storages.values():
        content += struct.pack("<q", length) + raw
    return content


def zipped(found, storages, *, compression=zipfile.ZIP_STORED):
    """The format since PyTorch 1.6."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("weights/data.pkl", pickled(found))
        archive.writestr("weights/byteorder", "little")
        for key, (raw, _) in storages.items():
            archive.writestr(f"weights/data/{key}", raw)
        archive.writestr("weights/version", "3\n")
    return file.getvalue()


def saved(arrays, *, archive=False):
    """A state dictionary of arrays, as ``torch.save`` writes it."""
    items, storages = {}, {}
    for i, (key, array) in enumerate(arrays.items()):
        strides = [stride // array.itemsize for stride in array.strides]
        items[key] = tensor(
            str(i), array.size, array.shape, strides, dtype=array.dtype.str, legacy=not archive
        )
        storages[str(i)] = array.tobytes(), array.size
    return (zipped if archive else plain)(ordered(items), storages)
