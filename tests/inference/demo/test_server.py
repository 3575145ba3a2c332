import importlib.util
import socket

import pytest

from melanoma_lab.core.errors import UserError
from melanoma_lab.inference.demo import server

pytestmark = pytest.mark.unit


def test_a_port_that_is_taken_is_named():
    with server.bind_socket("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(UserError, match=rf"demo.port={port}: in use on 127.0.0.1"):
            server.bind_socket("127.0.0.1", port)
        assert server.format_address(first) == f"http://127.0.0.1:{port}"
    server.bind_socket("127.0.0.1", port).close()  # free again at once


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.name.invalid", "a" * 70])
def test_what_is_no_address_here_is_named(host):
    with pytest.raises(UserError, match=rf"demo.host={host}: not an address of this machine"):
        server.bind_socket(host, 0)


EVERY = "0.0.0.0"  # noqa: S104 - for this test, and a port that nobody knows


@pytest.mark.parametrize(
    ("host", "own"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), (EVERY, False), ("ward3", False)],
)
def test_who_can_reach_it(host, own):
    assert server.is_loopback(host) is own


def test_every_address_becomes_one_for_a_browser():
    with server.bind_socket(EVERY, 0) as every:
        assert server.format_address(every) == f"http://127.0.0.1:{every.getsockname()[1]}"
    if socket.has_ipv6:
        try:
            with server.bind_socket("::1", 0) as six:
                assert server.format_address(six) == f"http://[::1]:{six.getsockname()[1]}"
        except UserError:
            pytest.skip("this machine has no IPv6")


def test_a_missing_extra_is_told_with_the_command(monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "waitress" else there(name)
    )
    with pytest.raises(
        UserError, match=r"demo needs waitress: .*python -m pip install .*\[demo\]'"
    ):
        server.check_demo_installed()
