import pytest

from melanoma_lab.config.schema.training import Precision, Training
from melanoma_lab.core.errors import UserError
from melanoma_lab.training import hardware
from melanoma_lab.training.hardware import (
    Gpu,
    Hardware,
    require_device_count,
    resolve_hardware_options,
)

pytestmark = pytest.mark.unit

BF16 = frozenset({"sse2", "avx512f", "avx512_bf16"})
AMX = frozenset({"avx512f", "amx_bf16", "amx_tile"})
PLAIN = frozenset({"sse2", "avx2", "avx512f"})
NOTHING = frozenset[str]()
H100, A100, T4, V100 = (9, 0), (8, 0), (7, 5), (7, 0)
GTX1080, OTHER = (6, 1), None


@pytest.mark.parametrize(
    ("flags", "capabilities", "expected"),
    [
        (BF16, [], "mixed_bfloat16"),
        (AMX, [], "mixed_bfloat16"),
        # Emulated in 512-bit registers, slower than float32.
        (PLAIN, [], "float32"),
        # Not Linux, or an ARM processor, whose lines have other names.
        (NOTHING, [], "float32"),
        (NOTHING, [H100], "mixed_bfloat16"),
        (NOTHING, [A100], "mixed_bfloat16"),
        (NOTHING, [T4], "mixed_float16"),
        (NOTHING, [V100, V100], "mixed_float16"),
        # Where there is a GPU the processor does not count.
        (BF16, [T4], "mixed_float16"),
        (BF16, [GTX1080], "float32"),
        (BF16, [OTHER], "float32"),
        # The weakest decides.
        (NOTHING, [A100, T4], "mixed_float16"),
        (NOTHING, [GTX1080, H100], "float32"),
        (NOTHING, [A100, OTHER], "float32"),
    ],
)
def test_the_best_precision_is_computed_in_hardware(flags, capabilities, expected):
    gpus = tuple(Gpu("a GPU", capability) for capability in capabilities)
    assert Hardware("a processor", flags, gpus).best_precision(depthwise=False) is Precision(
        expected
    )


def test_depthwise_convolutions_are_left_in_float32_on_a_processor_alone():
    assert Hardware("", BF16, ()).best_precision(depthwise=True) is Precision.float32
    on_gpu = Hardware("", BF16, (Gpu("a GPU", A100),))
    assert on_gpu.best_precision(depthwise=True) is Precision.mixed_bfloat16


@pytest.mark.parametrize(
    ("gpus", "devices", "expected"),
    [
        ((), 1, "EPYC"),
        ((), 2, "2 parts of EPYC"),
        ((Gpu("T4", T4), Gpu("L4", A100)), 1, "T4"),
        ((Gpu("T4", T4), Gpu("L4", A100)), 2, "2 GPUs: T4, L4"),
    ],
)
def test_devices_are_named(gpus, devices, expected):
    assert Hardware("EPYC", NOTHING, gpus).describe(devices) == expected


@pytest.fixture
def here(monkeypatch):
    """Pretend to be on a machine."""

    def pretend(*capabilities, flags=BF16):
        gpus = tuple(Gpu("a GPU", capability) for capability in capabilities)
        monkeypatch.setattr(hardware, "detect_hardware", lambda: Hardware("EPYC", flags, gpus))

    return pretend


def test_auto_and_all_come_to_what_there_is(here):
    asked = Training(precision=Precision.auto, devices=None)
    here()
    found = resolve_hardware_options(asked, threads=4)
    assert (found.precision, found.devices) == (Precision.mixed_bfloat16, 1)
    here(T4, T4)
    found = resolve_hardware_options(asked, threads=4)
    assert (found.precision, found.devices) == (Precision.mixed_float16, 2)
    named = Training(precision=Precision.float32, devices=1)
    assert resolve_hardware_options(named, threads=4) == named


def test_tensorflow_is_not_asked_where_nothing_depends_on_it(monkeypatch):
    monkeypatch.setattr(hardware, "detect_hardware", lambda: pytest.fail("loads TensorFlow"))
    resolve_hardware_options(Training(precision=Precision.mixed_float16), threads=1)


@pytest.mark.parametrize(
    ("capabilities", "devices", "there"),
    [
        ([T4, T4], 4, "2 GPUs; received 4"),
        ([T4], 2, "1 GPU; received 2"),
        ([], 8, "no GPU and 4 processor threads; received 8"),
    ],
)
def test_more_devices_than_there_are_is_a_mistake(here, capabilities, devices, there):
    here(*capabilities)
    with pytest.raises(UserError, match=rf"training\.devices: expected at most .*{there}"):
        resolve_hardware_options(Training(devices=devices), threads=4)


def test_all_devices_must_divide_the_batch(here):
    here(T4, T4, T4)
    with pytest.raises(UserError, match=r"a multiple of training\.devices=3"):
        resolve_hardware_options(Training(devices=None, batch_size=32), threads=4)


def test_all_is_no_number_before_the_machine_was_asked():
    assert require_device_count(Training(devices=2)) == 2
    with pytest.raises(ValueError, match="Expected a number of devices"):
        require_device_count(Training(devices=None))


def test_linux_tells_the_processors_flags(monkeypatch, tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(
        "processor\t: 0\nmodel name\t: First\nflags\t\t: fpu avx512_bf16\n\n"
        "processor\t: 1\nmodel name\t: Second\nflags\t\t: fpu\n"
    )
    monkeypatch.setattr(hardware, "Path", lambda _: cpuinfo)
    facts = hardware._cpuinfo()
    assert (facts["model name"], facts["flags"]) == ("First", "fpu avx512_bf16")
    cpuinfo.unlink()
    assert hardware._cpuinfo() == {}
