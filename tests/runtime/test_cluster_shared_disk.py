"""What two processes, here two threads, see of a directory."""

import concurrent.futures
import threading

import pytest

from ddpm_jax.core import errors
from ddpm_jax.runtime.cluster import shared_disk

PATIENCE = 0.3  # seconds


class Group:
    """Two threads in the place of the two processes of `runtime.distributed`."""

    def __init__(self):
        self._here = threading.local()
        self._meeting = threading.Barrier(2, timeout=30)
        self._values = [None, None]

    def run(self, work, *arguments):
        """Return `work(argument)` of both, or what it raised."""

        def run_as(process):
            self._here.process = process
            try:
                return work(arguments[process])
            except errors.Refusal as refusal:
                return refusal

        with concurrent.futures.ThreadPoolExecutor(2) as executor:
            return list(executor.map(run_as, (0, 1)))

    def count(self):
        return 2

    def is_first(self):
        return self._here.process == 0

    def all_values(self, value):
        self._values[self._here.process] = value
        self._meeting.wait()
        values = list(self._values)
        self._meeting.wait()
        return values

    def from_first(self, value):
        return self.all_values(value)[0]

    def barrier(self, name):
        self.all_values(name)


@pytest.fixture
def group(monkeypatch):
    group = Group()
    monkeypatch.setattr(shared_disk, "distributed", group)
    return group


def check(folder):
    shared_disk.check(folder, PATIENCE)


def test_a_directory_that_both_see(group, tmp_path):
    assert group.run(check, tmp_path, tmp_path) == [None, None]
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_another_one_there_is_refused_by_both(group, tmp_path):
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    refusals = group.run(check, *folders)
    for folder, refusal in zip(folders, refusals, strict=True):
        assert isinstance(refusal, errors.Refusal)
        assert f"{folder} of process 0 is not what process 1 sees" in str(refusal)
        assert "a disk that all hosts share" in str(refusal)
        assert list(folder.iterdir()) == []


def test_a_network_disk_may_be_late(group, tmp_path):
    disk, view = tmp_path / "disk", tmp_path / "view"
    disk.mkdir()
    appears = threading.Timer(PATIENCE, view.symlink_to, [disk])
    appears.start()
    found = group.run(lambda folder: shared_disk.check(folder, 30), disk, view)
    appears.join()
    assert found == [None, None]


def test_one_process_has_nothing_to_compare(tmp_path):
    shared_disk.check(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()
