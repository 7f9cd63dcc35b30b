"""Variables that Open MPI is started with."""

from __future__ import annotations

import os

import pytest

from mpi_dcasgd.drivers.mpi_variables import VARIABLES, for_start


def test_what_the_user_has_set_stays_and_the_rest_is_there_for_the_start_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    links, idle = "OMPI_MCA_btl_tcp_links", "OMPI_MCA_mpi_yield_when_idle"
    monkeypatch.setenv(links, "4")
    monkeypatch.delenv(idle, raising=False)
    with for_start():
        assert (os.environ[links], os.environ[idle]) == ("4", VARIABLES[idle])
    assert os.environ[links] == "4"
    assert idle not in os.environ
