import keras
import pytest
import tensorflow as tf

from melanoma_lab.config.schema.training import Precision
from melanoma_lab.errors import UserError
from melanoma_lab.training.backend import available_threads, start_backend

THREADS = available_threads()


def test_the_precision_is_keras_policy():
    try:
        start_backend(threads=THREADS, seed=0, precision=Precision.mixed_bfloat16)
        assert keras.layers.Dense(1).compute_dtype == "bfloat16"
        assert keras.layers.Dense(1).variable_dtype == "float32"
    finally:
        start_backend(threads=THREADS, seed=0, precision=Precision.float32)
    assert keras.layers.Dense(1).compute_dtype == "float32"


def test_another_job_of_the_process_may_use_fewer_devices_but_not_more():
    parts = len(tf.config.list_logical_devices("CPU"))
    assert parts == 2  # conftest.py has asked for them
    start_backend(threads=THREADS, seed=0, precision=Precision.float32, devices=1)
    start_backend(threads=THREADS, seed=0, precision=Precision.float32, devices=2)
    with pytest.raises(UserError, match=r"training\.devices=3: TensorFlow already runs .* with 2;"):
        start_backend(threads=THREADS, seed=0, precision=Precision.float32, devices=3)
