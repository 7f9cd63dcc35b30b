"""Variables that Open MPI is started with."""

from __future__ import annotations

import os

import pytest

from mpi_dcasgd.drivers.mpi_variables import COMMON, for_start

LINKS, FLAGS = "OMPI_MCA_btl_tcp_links", "OMPI_MCA_btl_tcp_flags"
PIECES = "OMPI_MCA_pml_ob1_send_pipeline_depth"
IDLE = "OMPI_MCA_mpi_yield_when_idle"


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (LINKS, FLAGS, PIECES, IDLE):
        monkeypatch.delenv(name, raising=False)


def test_what_the_user_has_set_stays_and_the_rest_is_there_for_the_start_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(LINKS, "4")
    with for_start(asynchronous=False):
        assert (os.environ[LINKS], os.environ[IDLE]) == ("4", COMMON[IDLE])
    assert os.environ[LINKS] == "4"
    assert IDLE not in os.environ


@pytest.mark.parametrize(("asynchronous", "here"), [(True, FLAGS), (False, LINKS)])
def test_one_of_the_two_ways_to_send_both_ways_at_a_time_is_taken(
    asynchronous: bool, here: str
) -> None:
    with for_start(asynchronous=asynchronous):
        assert {name for name in (LINKS, FLAGS) if name in os.environ} == {here}
        assert (PIECES in os.environ) == asynchronous


@pytest.mark.parametrize("asynchronous", [True, False])
@pytest.mark.parametrize(("given", "other"), [(LINKS, FLAGS), (FLAGS, LINKS)])
def test_whoever_has_chosen_one_of_them_does_not_get_the_other(
    asynchronous: bool, given: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(given, "1")
    with for_start(asynchronous=asynchronous):
        assert other not in os.environ
        assert PIECES not in os.environ
