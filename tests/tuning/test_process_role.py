"""What Keras Tuner's variables make of a process."""

import pytest

from melanoma_lab.core.errors import UserError
from melanoma_lab.tuning.distributed.process_role import ProcessRole, read_role

pytestmark = pytest.mark.unit

WHOLE = {
    "KERASTUNER_TUNER_ID": "worker1",
    "KERASTUNER_ORACLE_IP": "10.0.0.7",
    "KERASTUNER_ORACLE_PORT": "8000",
}


def test_without_variables_a_process_searches_by_itself():
    assert read_role({"HOME": "/"}) is None
    assert read_role(dict.fromkeys(WHOLE, "")) is None


@pytest.mark.parametrize(
    ("name", "is_chief"), [("chief", True), ("the-chief-0", True), ("worker1", False)]
)
def test_the_name_decides_as_it_does_for_keras_tuner(name, is_chief, monkeypatch):
    from keras_tuner.src.distribute.utils import is_chief_oracle

    environment = WHOLE | {"KERASTUNER_TUNER_ID": name}
    role = read_role(environment)
    assert role == ProcessRole(name, "10.0.0.7", 8000, shares=is_chief)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    assert role.is_chief is is_chief is is_chief_oracle()


@pytest.mark.parametrize("missing", WHOLE)
def test_half_a_role_is_refused_and_the_missing_half_is_named(missing):
    some = {key: value for key, value in WHOLE.items() if key != missing}
    with pytest.raises(UserError, match=f"set, but not {missing}"):
        read_role(some)


@pytest.mark.parametrize("port", ["http", "0", "65536", "-1", "8000.0"])
def test_a_port_is_a_port(port):
    with pytest.raises(UserError, match="expected a port, 1 to 65535"):
        read_role(WHOLE | {"KERASTUNER_ORACLE_PORT": port})


def test_an_address_of_the_sixth_version_is_put_in_brackets():
    assert ProcessRole("chief", "::1", 80).address == "[::1]:80"


def test_a_worker_that_its_chief_has_started_shares_the_machine():
    assert not read_role(WHOLE).shares
    assert read_role(WHOLE | {"MELANOMA_LAB_CHIEF": "123"}).shares
