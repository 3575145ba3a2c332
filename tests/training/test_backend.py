import platform

import keras
import pytest
import tensorflow as tf

from melanoma_lab.config.schema.training import Precision
from melanoma_lab.core.errors import UserError
from melanoma_lab.training.hardware import count_available_threads, start_backend
from tests.support.processes import run_python

pytestmark = pytest.mark.component

THREADS = count_available_threads()


def test_the_precision_is_keras_policy():
    try:
        start_backend(threads=THREADS, seed=0, precision=Precision.mixed_bfloat16)
        assert keras.layers.Dense(1).compute_dtype == "bfloat16"
        assert keras.layers.Dense(1).variable_dtype == "float32"
    finally:
        start_backend(threads=THREADS, seed=0, precision=Precision.float32)
    assert keras.layers.Dense(1).compute_dtype == "float32"


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="oneDNN is of x86-64")
@pytest.mark.parametrize("asked", [None, "0"])
def test_onednn_computes_on_every_processor_unless_it_is_switched_off(monkeypatch, asked):
    script = """
from melanoma_lab.core.heavy_imports import load_tensorflow
load_tensorflow()
from tensorflow.python.util import _pywrap_util_port
print(_pywrap_util_port.IsMklEnabled())
"""
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS")
    environment = {} if asked is None else {"TF_ENABLE_ONEDNN_OPTS": asked}
    done = run_python("-c", script, **environment)
    assert done.stdout == f"starting TensorFlow ...\n{asked is None}\n", done.stderr


def test_another_job_of_the_process_may_use_fewer_devices_but_not_more():
    parts = len(tf.config.list_logical_devices("CPU"))
    assert parts == 2  # conftest.py has asked for them
    start_backend(threads=THREADS, seed=0, precision=Precision.float32, devices=1)
    start_backend(threads=THREADS, seed=0, precision=Precision.float32, devices=2)
    with pytest.raises(UserError, match=r"training\.devices=3: TensorFlow already runs .* with 2;"):
        start_backend(threads=THREADS, seed=0, precision=Precision.float32, devices=3)


@pytest.mark.slow
def test_a_task_takes_the_threads_that_one_before_it_took():
    """As when a model of ``training.threads=1`` is asked to predict in the same notebook."""
    script = """
from melanoma_lab.config.schema.training import Precision
from melanoma_lab.core.errors import UserError
from melanoma_lab.training.hardware import count_available_threads, start_backend, choose_threads
assert choose_threads(None) == count_available_threads()
for asked in (1, None, 2):
    try:
        start_backend(threads=choose_threads(asked), seed=0, precision=Precision.float32)
    except UserError as error:
        print(error)
    import tensorflow as tf
    tf.ones(1) + 1
    print(choose_threads(None), choose_threads(None, shared_by=9), choose_threads(5))
"""
    done = run_python("-c", script)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said.count("1 1 5") == 3
    assert said.pop(0) == "starting TensorFlow ..."
    assert said[2].startswith("training.threads=2: TensorFlow already runs in this process with 1;")


@pytest.mark.slow
def test_who_has_computed_before_the_lab_is_told_so():
    script = """
import tensorflow as tf
from melanoma_lab.config.schema.training import Precision
from melanoma_lab.core.errors import UserError
from melanoma_lab.training.hardware import start_backend
tf.ones(1) + 1
try:
    start_backend(threads=1, seed=0, precision=Precision.float32)
except UserError as error:
    print(error)
"""
    assert "with its default number of threads; " in run_python("-c", script).stdout
