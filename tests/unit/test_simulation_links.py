"""Shared links, several servers, chunks and 16-bit messages, against closed forms."""

from __future__ import annotations

import pickle
import re
from typing import Any

import numpy as np
import pytest

from mpi_dcasgd.drivers.simulation.cluster import (
    Cluster,
    Crashes,
    Network,
    ServerTimes,
    parse_cluster,
)
from mpi_dcasgd.drivers.simulation.delays import Exponential, Gamma
from mpi_dcasgd.drivers.simulation.engine import Engine
from mpi_dcasgd.drivers.simulation.link import SharedLink
from mpi_dcasgd.drivers.simulation.linked_engine import LinkedEngine, engine_of
from mpi_dcasgd.drivers.simulation.network import Exchange
from mpi_dcasgd.drivers.simulation.timing import CountingSite, simulate_timing
from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.rules.admission import StaleSynchronous

SIZE = 100


def cycle_s(cluster: Cluster, workers: int = 1, updates: int = 200) -> float:
    """Return the seconds of a worker's cycle, over the second half of the updates."""
    site = CountingSite(workers, updates)
    engine = engine_of(cluster, workers, SIZE, 0, site)
    engine.run(updates // 2)  # the first pull is free, and equal workers begin in step
    begun = engine.now
    engine.run()
    return (engine.now - begun) * workers / (updates - updates // 2)


def test_what_is_on_its_way_together_shares_the_link_and_is_alone_at_full_rate() -> None:
    link = SharedLink(10.0, 100.0)
    link.begin(0.0, (0, 0, 0), 100.0)
    assert link.next_s() == (10.0, 0)
    link.begin(5.0, (1, 0, 0), 100.0)  # 50 bytes are left of the other, at half the rate
    assert link.next_s() == (15.0, 0)
    assert link.end(15.0) == (0, 0, 0)
    assert link.next_s() == (20.0, 1)
    assert link.end(20.0) == (1, 0, 0)
    assert link.next_s() is None
    assert link.carried == 200.0


def test_a_message_that_begins_late_gets_a_smaller_share_until_the_others_are_through() -> None:
    link = SharedLink(10.0, 100.0, late_share=0.25)
    link.begin(0.0, (0, 0, 0), 100.0)
    link.begin(5.0, (1, 0, 0), 100.0)  # 50 bytes are left of the other, at 8 a second
    assert link.next_s() == (5.0 + 50 / 8, 0)
    link.end(5.0 + 50 / 8)
    assert link.next_s() == (20.0, 1), "it has the rest of the time to itself"


def test_a_message_is_no_faster_than_its_own_end_of_the_network() -> None:
    link = SharedLink(10.0, 4.0)
    link.begin(0.0, (0, 0, 0), 8.0)
    link.begin(0.0, (1, 0, 0), 8.0)
    assert link.next_s() == (2.0, 0)
    link.begin(0.0, (2, 0, 0), 8.0)  # from three on the shared end is the narrower one
    assert link.next_s() == (pytest.approx(2.4), 0)


def test_workers_in_step_slow_down_each_others_messages() -> None:
    shared = Cluster(network=Network(server_bytes_per_s=1000.0, share_cv=0.0))
    assert cycle_s(shared) == pytest.approx(1 + 2 * 0.1)
    assert cycle_s(shared, 3, 300) == pytest.approx(1 + 2 * 0.3, rel=0.01)
    own = Cluster(network=Network(bytes_per_s=1000.0))
    assert cycle_s(own, 3, 300) == pytest.approx(1 + 2 * 0.1, rel=0.01)


@pytest.mark.parametrize(
    ("exchange", "times"),
    [
        ({}, 1),
        ({"servers": 4}, 4),
        ({"element_bytes": 2}, 2),
        ({"servers": 4, "element_bytes": 2}, 8),
        ({"chunk_bytes": 10}, 1),
        ({"servers": 2, "chunk_bytes": 10}, 2),
    ],
    ids=str,
)
def test_a_saturated_link_carries_its_bandwidth(exchange: dict[str, Any], times: int) -> None:
    # By itself a link carries 10 pushes a second, and as many replies at the same time.
    cluster = Cluster(
        delays=Gamma(task_cv=0.5),
        network=Network(latency_s=0.001, server_bytes_per_s=1000.0),
        server=ServerTimes(bytes_per_s=4000.0),
        exchange=Exchange(**exchange),
    )
    assert 200 / cycle_s(cluster, 200, 6000) == pytest.approx(10 * times, rel=0.08)
    assert cluster.carriage(SIZE).pushes_per_s == 10 * times


def test_servers_share_what_depends_on_the_size_and_nothing_else() -> None:
    server = ServerTimes(service_s=0.1, bytes_per_s=250.0)
    rates = [
        simulate_timing(
            Cluster(server=server, exchange=Exchange(servers=servers)),
            100,
            2000,
            message_bytes=SIZE,
        ).updates_per_s
        for servers in (1, 4)
    ]
    assert rates == [pytest.approx(1 / 0.5, rel=0.01), pytest.approx(1 / 0.2, rel=0.01)]


def test_servers_agree_on_the_order_in_two_messages() -> None:
    network = Network(latency_s=0.25, server_bytes_per_s=1e9)
    assert cycle_s(Cluster(network=network)) == pytest.approx(1.5)
    several = Cluster(network=network, exchange=Exchange(servers=2))
    assert cycle_s(several) == pytest.approx(2.0)
    free = Cluster(network=Network(latency_s=0.25), exchange=Exchange(servers=2))
    assert cycle_s(free) == pytest.approx(2.0)


def test_16_bits_halve_messages_and_not_the_update() -> None:
    cluster = Cluster(
        network=Network(bytes_per_s=1000.0),
        server=ServerTimes(bytes_per_s=1000.0),
        exchange=Exchange(element_bytes=2),
    )
    assert cycle_s(cluster) == pytest.approx(1 + 2 * 0.05 + 0.1)


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        # Updated as it comes in: the last chunk's update and the last chunk's reply are left.
        (2000.0, 1 + 0.1 + 0.005 + 0.01),
        # A slow update holds up the rest. It begins with the first chunk.
        (50.0, 1 + 0.01 + 2.0 + 0.01),
    ],
)
def test_chunks_overlap_receiving_updating_and_replying(service: float, expected: float) -> None:
    network, server = Network(server_bytes_per_s=1000.0), ServerTimes(bytes_per_s=service)
    assert cycle_s(Cluster(network=network, server=server)) == pytest.approx(1.2 + SIZE / service)
    exchange = Exchange(chunk_bytes=10)
    chunks = Cluster(network=network, server=server, exchange=exchange)
    assert cycle_s(chunks) == pytest.approx(expected)


@pytest.mark.parametrize(("others", "overlaps"), [(0, True), (20, False)])
def test_a_push_that_comes_in_slowly_is_not_begun_while_others_would_wait(
    others: int, overlaps: bool
) -> None:
    # Of 100 s. The workers beside it, on the server's host, push every 1 / 20 s.
    cluster = Cluster(
        network=Network(bytes_per_s=1.0, local=others),
        server=ServerTimes(bytes_per_s=10_000.0),
        exchange=Exchange(chunk_bytes=10),
    )
    site = CountingSite(others + 1, 10**9)
    engine = LinkedEngine(cluster, others + 1, SIZE, 0, site)
    while engine.accounts[others].updates < 3:
        engine.run(1)
    # The reply of the last chunk takes 10 s more; the rest of it another 90, or none.
    cycle = engine.now / 3
    assert (cycle < 130) == overlaps
    assert site.version >= 3 + others * int(engine.now * 0.95)


def test_a_first_push_of_which_nothing_measurable_is_left_is_not_looked_at_for_ever() -> None:
    # What was left of it, 1e-16 s, was too short for the clock to move on.
    network = Network(bytes_per_s=25e6, server_bytes_per_s=25e6)
    cluster = Cluster(
        delays=Gamma(mean_s=0.25, machine_cv=0.0),
        network=network,
        server=ServerTimes(service_s=1e-5),
        exchange=Exchange(chunk_bytes=500_000),
    )
    for seed in range(60):
        engine = LinkedEngine(cluster, 2, 5_339_840, seed, CountingSite(2, 1))
        engine.run()
        assert engine._looks < 10


def test_chunks_that_are_no_chunks_change_nothing() -> None:
    network, server = Network(server_bytes_per_s=500.0), ServerTimes(service_s=0.02)
    delays = Gamma(task_cv=0.5)
    one, other = (
        simulate_timing(
            Cluster(delays=delays, network=network, server=server, exchange=exchange),
            9,
            500,
            message_bytes=SIZE,
        )
        for exchange in (Exchange(), Exchange(chunk_bytes=SIZE))
    )
    assert one == other


def test_workers_on_the_servers_host_take_none_of_its_link() -> None:
    network = Network(latency_s=0.1, server_bytes_per_s=1000.0, local=1)
    assert cycle_s(Cluster(network=network)) == pytest.approx(1.0)
    # The one beside it has the link to itself, and goes on as if it were alone.
    timing = simulate_timing(Cluster(network=network), 2, 2000, message_bytes=SIZE)
    assert timing.workers_busy == pytest.approx([1.0, 1 / 1.4], rel=0.01)


HARD = Cluster(
    delays=Exponential(),
    crashes=Crashes(every_s=3.0, repair_s=1.0),
    network=Network(latency_s=0.01, bytes_per_s=800.0, server_bytes_per_s=1000.0, local=1),
    server=ServerTimes(bytes_per_s=800.0),
    exchange=Exchange(chunk_bytes=30),
)


@pytest.mark.parametrize("chunk_bytes", [None, 30])
@pytest.mark.parametrize("admission", [None, StaleSynchronous(bound=1)], ids=["any", "ssp"])
def test_crashes_and_workers_that_wait_neither_stop_nor_repeat_anything(
    chunk_bytes: int | None, admission: Any
) -> None:
    exchange = Exchange(chunk_bytes=chunk_bytes)
    cluster = Cluster(
        delays=HARD.delays,
        crashes=HARD.crashes,
        network=HARD.network,
        server=HARD.server,
        exchange=exchange,
    )
    timing = simulate_timing(cluster, 6, 3000, message_bytes=SIZE, admission=admission)
    assert timing.updates == 3000
    assert timing.crashes > 100
    assert timing.server_busy <= 1.0 + 1e-9
    assert timing.link_busy <= 1.0 + 1e-9


def test_it_goes_on_where_its_state_was_taken() -> None:
    whole = LinkedEngine(HARD, 6, SIZE, 3, CountingSite(6, 400))
    whole.run()
    begun = LinkedEngine(HARD, 6, SIZE, 3, CountingSite(6, 400))
    begun.run(150)
    state = pickle.loads(pickle.dumps((begun.state_dict(), begun._site)))
    resumed = LinkedEngine(HARD, 6, SIZE, 3, state[1])
    resumed.load_state_dict(state[0])
    resumed.run()
    assert resumed.state_dict() == whole.state_dict()


def test_a_cluster_without_them_has_the_engine_of_before() -> None:
    plain = Cluster(network=Network(latency_s=0.1, bytes_per_s=1e3), server=ServerTimes())
    assert type(engine_of(plain, 2, SIZE, 0, CountingSite(2, 1))) is Engine


def test_equal_workers_in_step_use_one_direction_of_the_link_at_a_time() -> None:
    # All finish their pushes at once and then wait for their replies together.
    cluster = Cluster(network=Network(server_bytes_per_s=1000.0, share_cv=0.0))
    assert 50 / cycle_s(cluster, 50, 1000) == pytest.approx(50 / (1 + 2 * 50 * 0.1), rel=0.01)
    # It takes little to have both used.
    cluster = Cluster(network=Network(server_bytes_per_s=1000.0, share_cv=0.1))
    assert 50 / cycle_s(cluster, 50, 1000) == pytest.approx(10, rel=0.05)


@pytest.mark.parametrize(("bytes_per_s", "at_a_time"), [(None, 1), (1000.0, 1), (300.0, 4)])
def test_pushes_in_chunks_come_in_as_many_at_a_time_as_fill_the_link(
    bytes_per_s: float | None, at_a_time: int
) -> None:
    # In step and with equal shares, as above, where one direction stands still at a time.
    network = Network(bytes_per_s=bytes_per_s, server_bytes_per_s=1000.0, share_cv=0.0)
    cluster = Cluster(network=network, exchange=Exchange(chunk_bytes=10))
    engine = LinkedEngine(cluster, 50, SIZE, 0, CountingSite(50, 1000))
    most = 0
    while not engine._site.done:
        engine.run(1)
        most = max(most, engine._in.count)
    assert most == at_a_time
    assert 50 / cycle_s(cluster, 50, 1000) == pytest.approx(10, rel=0.05)


def test_unequal_shares_have_the_mean_and_spread_that_were_asked_for() -> None:
    link = SharedLink(1.0, 1.0, 0.25, (3, 0))
    weights = []
    for _ in range(4000):
        link.begin(0.0, (0, 0, 0), 1.0)
        weights.append(link._weights)
        link.end(link.next_s()[0])  # type: ignore[index]
    assert np.mean(weights) == pytest.approx(1.0, abs=0.02)
    assert np.std(weights) == pytest.approx(0.25, abs=0.02)
    # However they are shared, the link carries its bandwidth.
    for worker in range(10):
        link.begin(5000.0, (worker, 0, 0), 7.0)
    ends = []
    while (due := link.next_s()) is not None:
        ends.append(due[0])
        link.end(due[0])
    assert ends[-1] == pytest.approx(5000.0 + 70.0)
    assert ends[0] < 5000.0 + 60.0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"exchange": {"servers": 0}}, "exchange.servers: got 0 (a whole number); "),
        (
            {"exchange": {"element_bytes": 3}},
            "exchange.element_bytes: got 3 (a whole number); allowed: one of 2, 4",
        ),
        ({"exchange": {"chunk_bytes": 0}}, "exchange.chunk_bytes: got 0 (a whole number); "),
        ({"network": {"server_bytes_per_s": 0}}, "network.server_bytes_per_s: got 0 (a whole "),
        ({"network": {"local": 1}, "exchange": {"servers": 2}}, "network.local: got 1 with 2 serv"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        parse_cluster("cluster", settings)


def test_a_ring_has_its_latencies_and_the_backward_pass_hides_some_of_it() -> None:
    network = Network(latency_s=1.0, bytes_per_s=100.0, allreduce="ring")
    assert network.allreduce_s(100, 4) == 6.0 + 1.5
    assert Network(bytes_per_s=100.0, hidden_s=1.0).allreduce_s(100, 4) == 0.5
    assert Network(bytes_per_s=100.0, hidden_s=2.0).allreduce_s(100, 4) == 0.0
