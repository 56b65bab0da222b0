"""Which cluster a run joins, and what is said at once of an address that cannot be joined."""

import socket
import time
from pathlib import Path

import pytest

from cluster import private
from cluster.connecting import connect
from configs.errors import UserError
from configs.schema import LaunchConfig


@pytest.fixture(autouse=True)
def no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No `ray start` was called here."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://127.0.0.1:8265", "is an address of a dashboard, for `ray job submit`"),
        ("ray://127.0.0.1:10001", "is an address of Ray's client"),
        ("head", "is not HOST:PORT"),
        ("auto", "but no `ray start` was called on this machine"),
    ],
)
@pytest.mark.parametrize("source", ["RAY_ADDRESS", "launch.address"])
def test_an_address_that_no_run_can_join(source: str, address: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if source == "RAY_ADDRESS":
        monkeypatch.setenv("RAY_ADDRESS", address)
    launch = LaunchConfig(address=address if source == "launch.address" else None)
    with pytest.raises(UserError) as refused:
        connect(launch, {})
    assert f"{source}={address}" in str(refused.value)
    assert said in str(refused.value)
    assert len(str(refused.value).splitlines()) == 2


def test_a_cluster_that_has_gone_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    began = time.monotonic()
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError, match=f"no Ray cluster answers at {address}, from RAY_ADDRESS"):
        connect(LaunchConfig(), {})
    monkeypatch.delenv("RAY_ADDRESS")
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(address)
    with pytest.raises(UserError, match=f"no Ray cluster answers at {address}, from the last `ray start`"):
        connect(LaunchConfig(), {})
    assert time.monotonic() - began < 15


def test_a_temporary_folder_too_long_for_sockets_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, is_long in (("/tmp", False), ("/scratch/users/someone", False), ("/" + "a" * 60, True)):
        monkeypatch.setenv("RAY_TMPDIR", folder)
        assert (private._short_temp_dir() is not None) == is_long
