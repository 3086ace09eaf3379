"""Two clusters for all tests of this folder, started when the first test asks for one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from slurm.cluster import Cluster, find_hindrance
from slurm.launching import Study, make_study, pack_once

FOLDER = Path(__file__).resolve().parent


@contextmanager
def run_cluster(accounting: bool) -> Iterator[Cluster]:
    if hindrance := find_hindrance(accounting):
        pytest.skip(hindrance)
    # Not under pytest's own folders: their paths can be too long for sockets.
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as base:
        cluster = Cluster(Path(base), accounting)
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Without accounting, as many real ones are: sacct refuses."""
    with run_cluster(accounting=False) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def cluster_with_accounting() -> Iterator[Cluster]:
    with run_cluster(accounting=True) as cluster:
        yield cluster


@pytest.fixture(scope="session", params=["no accounting", "accounting"])
def any_cluster(request: pytest.FixtureRequest) -> Cluster:
    """One, then the other: for what must not depend on accounting."""
    accounting = request.param == "accounting"
    found = request.getfixturevalue("cluster_with_accounting" if accounting else "cluster")
    assert isinstance(found, Cluster)
    return found


@pytest.fixture(scope="session")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packs of all studies of these tests."""
    return pack_once(tmp_path_factory.mktemp("packs"))


@pytest.fixture
def new_study(cluster: Cluster, packs: Path, tmp_path: Path) -> Iterator[Callable[[str], Study]]:
    """Makes the study of a test from its file's text; the queue is empty before and after."""
    cluster.clear()
    yield partial(make_study, tmp_path / "study", packs, cluster)
    cluster.clear()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker("slurm")
            if item.path.name != "test_cluster.py":  # whole studies, in processes of their own
                item.add_marker("slow")
