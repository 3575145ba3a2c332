"""Files from elsewhere that come to far more than they are, or are damaged, are refused.

Each with little memory. Networks: tests/models/test_safe_loading.py; weights of PyTorch:
tests/models/test_torch_file.py.
"""

import io
import json
import os
import struct
import zlib

import numpy as np
import pytest
import yaml
from PIL import Image

from melanoma_lab.config.compose import compose_config
from melanoma_lab.core import untrusted_files
from melanoma_lab.core.errors import UserError
from melanoma_lab.data import tables
from melanoma_lab.data.decoding import MAX_BYTES, decode_image, describe_picture
from melanoma_lab.data.tables import check_table, read_manifest, read_table
from melanoma_lab.evaluation.predictions import Predictions
from melanoma_lab.inference.model_source import (
    read_advice,
    read_appearance,
    read_model_folder,
    read_run_id,
)
from melanoma_lab.tracking.offline_store import RECORD_FILE, RunRecord
from tests.support.memory import at_most
from tests.support.processes import run_command

pytestmark = pytest.mark.integration

MIB = 2**20


def laughs(levels=9, width=9):
    """Nested aliases: some hundred bytes that stand for width ** levels words."""
    lines = ["a0: &a0 [" + ",".join(["ha"] * width) + "]"]
    aliases = [",".join([f"*a{i}"] * width) for i in range(levels - 1)]
    lines += [f"a{i}: &a{i} [{them}]" for i, them in enumerate(aliases, 1)]
    return "\n".join(lines) + "\n"


def merged(levels=9, width=9):
    """Mappings that are merged into each other as often."""
    lines = ["a0: &a0 {ha: 1}"]
    aliases = [",".join([f"*a{i}"] * width) for i in range(levels - 1)]
    lines += [f"a{i}: &a{i} {{<<: [{them}]}}" for i, them in enumerate(aliases, 1)]
    return "\n".join(lines) + "\n"


YAML = {
    "laughs": (laughs(), "its aliases are expanded"),
    "laughs as a flavor": ("flavors: &f\n  x: &x [1, 1, 1]\n" + laughs(), "aliases are expanded"),
    "merged": (merged(), "its aliases are expanded"),
    "values": ("a: [" + "1," * 60_000 + "]", "more than 50,000 values"),
    "deep": ("a: " + "[" * 100_000, "levels deep"),
    "deep in blocks": ("- " * 100_000, "levels deep"),
    "deep in keys": ("? " * 100_000, "levels deep"),
    "within itself": ("a: &a [*a]", r"alias \*a inside its own definition"),
    "a number of base 60": ("a: " + ":".join(["1"] * 300_000), "a number of more than 300 digits"),
    "a tagged number": ("a: !!int '" + "1: " * 100_000 + "1'", "a number of more than 300 digits"),
    "long": ("a: " + "b" * 2 * MIB, "expected at most 1 MiB"),
    "a key twice": ("a: 1\na: 2\n", "key a occurs twice"),
    "a list": ("[a, b]", "expected keys and values in YAML. Received list"),
    "a number for a key": ("1: 2", "expected keys and values"),
    "cut": ("a: [", "cannot be read as YAML"),
    "runs code": ("a: !!python/object/apply:os.mkdir [sprung]", "cannot be read as YAML"),
    "no text": (b"\xff\xfe\x00", "expected text in UTF-8"),
}

JSON = {
    "deep": ("[" * 1_000_000, "more than 100 levels deep"),
    "deep in objects": ('{"a":' * 1_000_000, "more than 100 levels deep"),
    "values": ('{"a": [' + "[]," * 2_100_000 + "[]]}", "more than 2,000,000 values"),
    "a key twice": ('{"version": 1, "version": 1}', "key version occurs twice"),
    "NaN": ('{"version": 1, "limit": NaN}', "expected finite numbers, received NaN"),
    "infinite": ('{"version": 1, "limit": 1e999}', "expected finite numbers, received 1e999"),
    "endless": ('{"version": 1, "limit": ' + "9" * 4000 + "}", "expected finite numbers, received"),
    "cut": ('{"version": 1', "delimiter"),
    "quotes": ('"' + '\\"' * 250_000, "Unterminated string"),
    "no text": (b'{"a": "\xff"}', "expected text in UTF-8"),
}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(("content", "told"), YAML.values(), ids=YAML)
def test_a_yaml_file_is_refused(tmp_path, monkeypatch, content, told):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "MLmodel", content)
    with at_most(256 * MIB), pytest.raises(UserError, match=told) as refused:
        read_model_folder(tmp_path)
    assert str(path) in str(refused.value)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("read", [lambda path: read_run_id(path.parent), untrusted_files.read_yaml])
def test_so_it_is_by_every_reader(tmp_path, read):
    with at_most(256 * MIB), pytest.raises(UserError, match="its aliases are expanded"):
        read(write(tmp_path / "MLmodel", laughs()))


@pytest.mark.parametrize(("content", "told"), JSON.values(), ids=JSON)
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("audit.json", untrusted_files.read_json),
        (RECORD_FILE, RunRecord.read),
        ("advice.json", lambda path: read_advice(path.parent)),
        ("appearance.json", lambda path: read_appearance(path.parent)),
    ],
)
def test_a_json_file_is_refused(tmp_path, name, read, content, told):
    path = write(tmp_path / name, content)
    too_long = name.startswith(("adv", "app")) and len(content) > MIB
    with at_most(512 * MIB), pytest.raises(UserError) as refused:
        read(path)
    assert str(path) in str(refused.value)
    assert ("expected at most 1 MiB" if too_long else told) in str(refused.value)


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path / "missing", tmp_path):
        with pytest.raises(UserError, match="no such file"):
            untrusted_files.read_json(path)
        with pytest.raises(UserError, match="no such file"):
            check_table(path)


def test_what_is_sound_is_read(tmp_path):
    """Aliases that repeat little, as PyYAML writes a list that stands in two places."""
    names = ["melanoma", "nevus"]
    path = write(tmp_path / "MLmodel", yaml.safe_dump({"a": names, "b": [names, names]}))
    assert "*id001" in path.read_text()
    assert untrusted_files.read_yaml(path) == {"a": names, "b": [names, names]}
    content = {"a": [1.5, -(2**63), None, "[[[" * 1000, '"{'], "b": {"c": {}}}
    assert untrusted_files.read_json(write(tmp_path / "a.json", json.dumps(content))) == content
    nested = json.loads("[" * 100 + "]" * 100)
    assert untrusted_files.parse_json(json.dumps(nested)) == nested


@pytest.mark.parametrize(
    "change",
    [
        {"metrics": 3},
        {"metrics": [{"key": "a"}]},
        {"metrics": [{"key": "a", "value": "x", "timestamp": 1, "step": 1}]},
        {"tags": ["a"]},
        {"params": {"a": 1}},
        {"start_time": "yesterday"},
        {"unknown": 1},
        {"name": None},
    ],
)
def test_a_kept_run_of_another_kind_is_refused(tmp_path, change):
    sound = RunRecord("id", "name", "study", "uri", None, 1, {"a": "b"}, {"c": "d"})
    sound.write(tmp_path / RECORD_FILE)
    assert RunRecord.read(tmp_path / RECORD_FILE) == sound
    content = json.loads((tmp_path / RECORD_FILE).read_text()) | change
    (tmp_path / RECORD_FILE).write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"expected a run that was kept on disk.*elsewhere"):
        RunRecord.read(tmp_path / RECORD_FILE)


def sparse(path, size, start=b""):
    """A file with nothing but zeros after its start; it takes no room on the disk."""
    with path.open("wb") as file:
        file.write(start)
        file.truncate(size)
    return path


TABLES = {
    "gigabytes": (lambda path: sparse(path, 2**31), "expected a table of at most"),
    "an endless line": (
        lambda path: sparse(path, 200 * MIB, b"image_id,label\n"),
        "a line of more than 1 MiB",
    ),
    "cells": (
        lambda path: write(path, b"image_id,label\n" + b"a,b,c,d,\n" * 4_100_000),
        "more than 20,000,000 cells",
    ),
    "columns": (lambda path: write(path, "a," * 20_000 + "\n"), "more than 10,000 columns"),
}


@pytest.mark.parametrize(("make", "told"), TABLES.values(), ids=TABLES)
@pytest.mark.parametrize(
    "read",
    [
        read_table,
        read_manifest,
        Predictions.read,
    ],
    ids=["dataset's", "run's images", "run's predictions"],
)
def test_a_table_is_refused(tmp_path, read, make, told):
    path = make(tmp_path / "table.csv")
    with at_most(128 * MIB), pytest.raises((UserError, ValueError), match=told) as refused:
        read(path)
    assert str(path) in str(refused.value)


def test_a_cell_that_never_ends_is_refused(tmp_path):
    """Of a gigabyte it would take six; here the file alone is more than the memory it may take."""
    path = write(tmp_path / "table.csv", b'image_id,label\n"' + b"a few words\n" * 8_000_000)
    with at_most(64 * MIB), pytest.raises(UserError, match=r"table.csv: line .* field limit"):
        read_table(path)


def test_lines_and_cells_are_counted_across_the_pieces_that_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_CHUNK", 7)
    monkeypatch.setattr(tables, "MAX_LINE_BYTES", 12)
    monkeypatch.setattr(tables, "MAX_CELLS", 12)
    monkeypatch.setattr(tables, "MAX_COLUMNS", 5)
    write(tmp_path / "sound", "aaaa,bbbb,cc\n" * 4)
    check_table(tmp_path / "sound")
    for name, text, told in (
        ("line", "a,b\n" + "a" * 13, "a line of"),
        ("cells", "aaaa,bbbb,cc\n" * 5, "cells"),
        ("columns", "aa,bb,c,d,e,", "columns"),
    ):
        with pytest.raises(UserError, match=told):
            check_table(write(tmp_path / name, text))


PRESETS = {
    "laughs": (laughs(), "its aliases are expanded"),
    "deep": ("a: " + "[" * 10_000, "levels deep"),
    "long": ("#" * 2 * MIB, "expected at most 1 MiB"),
    "references": (
        "study: ${a0}\na20: ha\n"
        + "".join(f"a{i}: {3 * f'${{a{i + 1}}}'}\n" for i in range(19, -1, -1)),
        "references",
    ),
}


@pytest.mark.parametrize(("content", "told"), PRESETS.values(), ids=PRESETS)
def test_a_preset_is_refused(tmp_path, content, told):
    path = write(tmp_path / "experiment" / "bomb.yaml", "# @package _global_\n" + content)
    with at_most(256 * MIB), pytest.raises(UserError, match=told) as refused:
        compose_config(["+experiment=bomb"], tmp_path)
    assert str(path) in str(refused.value)


def test_references_of_several_files_are_counted_together(tmp_path):
    overrides = [f"+a{i}='${{a{i + 1}}}${{a{i + 1}}}${{a{i + 1}}}'" for i in range(29)]
    with (
        at_most(256 * MIB),
        pytest.raises(UserError, match=r"has \d+ references"),
    ):
        compose_config([*overrides, "study='${a0}'"])


def test_a_preset_with_aliases_and_references_is_taken(tmp_path):
    text = (
        "# @package _global_\nstudy: mine_${seed}\nsplit:\n  seed: &n 3\nseed: *n\n"
        "tracking:\n  unsent: ${study}/unsent\n"
    )
    write(tmp_path / "experiment" / "mine.yaml", text)
    config, _ = compose_config(["+experiment=mine"], tmp_path)
    assert (config.seed, config.study, config.tracking.unsent) == (3, "mine_3", "mine_3/unsent")


def chunk(kind, content):
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png(*, width=8, height=8, lines=None, extra=b""):
    """A PNG of one grey, with fewer lines than it says, or with further chunks."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    content = zlib.compress((b"\0" + b"\x80" * width) * (lines or height))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra
        + chunk(b"IDAT", content) + chunk(b"IEND", b"")
    )  # fmt: skip


def zeros(megabytes):
    packer = zlib.compressobj(9)
    return b"".join([packer.compress(bytes(MIB)) for _ in range(megabytes)] + [packer.flush()])


def frames(kind, n=3000):
    """An animation of many pictures, the first of which counts."""
    content = io.BytesIO()
    pictures = [Image.new("L", (64, 64), 128 + i % 2) for i in range(n)]
    pictures[0].save(content, kind, save_all=True, append_images=pictures[1:])
    return content.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(lambda: png(width=60_000, height=60), id="wide but sound"),
        pytest.param(lambda: png(extra=chunk(b"tEXt", b"a\0" + b"b" * 30 * MIB)), id="text"),
        pytest.param(lambda: frames("GIF"), id="GIF"),
        pytest.param(lambda: frames("TIFF", 500), id="TIFF"),
        pytest.param(lambda: frames("WEBP", 500), id="WebP"),
    ],
)
def test_a_picture_with_much_around_it_is_read_with_little_memory(tmp_path, content):
    path = write(tmp_path / "a.png", content())
    with at_most(256 * MIB):
        pixels = decode_image(str(path), 8)
        assert describe_picture(str(path))[1] >= 8
    np.testing.assert_allclose(pixels, 128, atol=2)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (lambda: png(extra=chunk(b"zTXt", b"a\0\0" + zeros(300))), "Decompressed data too large"),
        (lambda: png(extra=chunk(b"iCCP", b"a\0\0" + zeros(300))), "Decompressed data too large"),
        (lambda: png(width=60_000, height=60_000, lines=1), "too large"),
        (lambda: png(width=70_000, height=1), "too large: 70000x1 pixels"),
    ],
    ids=["text", "profile", "pixels", "a line"],
)
def test_a_picture_that_unpacks_to_gigabytes_is_refused(tmp_path, content, told):
    path = write(tmp_path / "a.png", content())
    with at_most(128 * MIB), pytest.raises(ValueError, match=told):
        decode_image(str(path), 8)


def test_a_picture_of_gigabytes_is_refused_before_it_is_read(tmp_path):
    path = sparse(tmp_path / "a.webp", MAX_BYTES + 1, b"RIFF\xff\xff\xff\x7fWEBPVP8X")
    with at_most(256 * MIB), pytest.raises(ValueError, match="too large: more than 1,024 MiB"):
        decode_image(str(path), 8)


@pytest.mark.parametrize(
    ("words", "name", "told"),
    [
        (["predict", "model=.", "images=."], "MLmodel", "its aliases are expanded"),
        (["--config-dir=.", "+experiment=a"], "experiment/a.yaml", "its aliases are expanded"),
        (["sync", "tracking.unsent=."], f"kept/{RECORD_FILE}", "cannot be read as JSON"),
    ],
)
def test_a_command_says_what_is_wrong_and_where(tmp_path, words, name, told):
    write(tmp_path / name, laughs())
    write(tmp_path / "a.png", png())
    done = run_command(*words, folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert told in done.stderr
    assert name in done.stderr
    assert "Traceback" not in done.stderr
