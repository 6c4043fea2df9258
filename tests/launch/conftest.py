"""An environment without the tools of any cloud, and a stand-in for Python."""

import shutil

import launching
import pytest


@pytest.fixture
def bare(tmp_path):
    """Return an environment whose PATH has a few tools of POSIX and no others."""
    tools = tmp_path / "bin"
    tools.mkdir()
    names = ["bash", "cat", "dirname", "env", "id", "mkdir", "paste", "sed", "sleep"]
    for name in [*names, "seq", "tail", "hostname", "nohup"]:
        (tools / name).symlink_to(shutil.which(name))
    (tmp_path / "tmp").mkdir()
    return {"PATH": str(tools), "HOME": str(tmp_path), "TMPDIR": str(tmp_path / "tmp")}


@pytest.fixture
def python(tmp_path):
    return launching.executable(tmp_path / "stand-in", launching.STAND_IN)
