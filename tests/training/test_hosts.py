"""What one process says before it is one of several, and who reads which pack."""

import itertools

import jax
import numpy as np
import pytest

from mres_jax.errors import ConfigError
from mres_jax.training import hosts
from mres_jax.training.meshes import Reading, places


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    for name in (hosts.ADDRESS, hosts.COUNT, hosts.NUMBER):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            {hosts.COUNT: "2"},
            "train: the environment has JAX_NUM_PROCESSES but not JAX_COORDINATOR_ADDRESS and "
            "JAX_PROCESS_ID. Set all three, or none where jax finds the cluster itself.",
        ),
        (
            {hosts.ADDRESS: "127.0.0.1:1", hosts.COUNT: "2", hosts.NUMBER: "2"},
            "train: JAX_PROCESS_ID=2 is none of JAX_NUM_PROCESSES=2 processes: 0 to 1.",
        ),
        (
            {hosts.ADDRESS: "127.0.0.1:1", hosts.COUNT: "two", hosts.NUMBER: "0"},
            "train: JAX_NUM_PROCESSES='two' is no whole number.",
        ),
        (
            {hosts.ADDRESS: "127.0.0.1:1", hosts.COUNT: "2", hosts.NUMBER: "0"},
            "train: jax has looked at its devices already, so it cannot join a cluster any more. "
            "Start a process for the run: mres train FILE --multihost.",
        ),
        (
            {},
            "train: no cluster found (coordinator_address should be defined). jax finds those of "
            "TPU pods, SLURM, GKE and MPI; elsewhere set JAX_COORDINATOR_ADDRESS=HOST:PORT, "
            "JAX_NUM_PROCESSES and JAX_PROCESS_ID for each process. Without --multihost a run "
            "trains on this machine alone.",
        ),
    ],
)
def test_half_a_cluster_is_refused_with_what_is_missing(monkeypatch, names, message):
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    if not names:  # what jax says in a process that has not looked at its devices yet
        monkeypatch.setattr(jax.distributed, "initialize", _raise_no_address)
    jax.devices()
    with pytest.raises(ConfigError) as error:
        hosts.join()
    assert str(error.value) == message


def _raise_no_address(**settings):
    raise ValueError("coordinator_address should be defined.")


def test_texts_that_differ_are_refused_with_who_differs_and_what_to_do(monkeypatch):
    def gather(own):
        return np.array([own, own + 1, own, own + 7], np.uint32)

    hosts.check_same("the run", "a")  # alone there is nobody to differ
    monkeypatch.setattr(hosts, "are_several", lambda: True)
    monkeypatch.setattr(hosts.multihost_utils, "process_allgather", lambda x: np.array([x] * 4))
    hosts.check_same("the run", "a")
    monkeypatch.setattr(hosts.multihost_utils, "process_allgather", gather)
    with pytest.raises(ConfigError) as error:
        hosts.check_same("the plan", "a", cure="Compare the data.")
    assert str(error.value) == (
        "train: the plan differs between processes: 2 of 4 (1, 3) have another than process 0. "
        "Compare the data."
    )


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_packs_of_a_rung_go_to_ranks_in_turn_and_each_place_is_taken_once(ranks):
    for rungs in itertools.product("ab", repeat=6):
        found = places(rungs, ranks)
        assert len(set(found)) == len(rungs)
        for group in {group for group, _ in found}:
            members = [n for n, (at, _) in enumerate(found) if at == group]
            assert len({rungs[n] for n in members}) == 1
            assert [found[n][1] for n in members] == list(range(len(members)))


def test_processes_read_every_pack_and_count_each_once():
    """Two processes of two ranks; a third that shares the last rank's tensor axis."""
    processes = [
        Reading(ranks=4, here=frozenset({0, 1}), counted=frozenset({0, 1})),
        Reading(ranks=4, here=frozenset({2, 3}), counted=frozenset({2, 3})),
        Reading(ranks=4, here=frozenset({3}), counted=frozenset()),
    ]
    for rungs in itertools.product("ab", repeat=5):
        read = [process.is_read(rungs) for process in processes]
        counted = [process.is_counted(rungs) for process in processes]
        assert all(map(any, zip(*read, strict=True)))
        assert [sum(column) for column in zip(*counted, strict=True)] == [1] * 5
