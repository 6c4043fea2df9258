"""Output never ends the work: closed terminals, full disks, other alphabets."""

import errno
import os
import pty
import subprocess
import sys

import pytest

from ddpm_jax.runtime import console

PROGRAM = """
import os, sys
from ddpm_jax.runtime import console
{before}
for _ in range(3):
    console.say("steps … ε̂ \\udce9")
    console.say_error("an error … \\udce9")
    console.say_at_once("at once …")
open(sys.argv[1], "w").write("went on")
"""


def run(tmp_path, before="", encoding="utf-8", **streams):
    done = tmp_path / "done"
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(before=before), done],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        check=False,
        **streams,
    )
    assert result.returncode == 0, result.stderr
    assert done.read_text() == "went on"
    return result


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_what_the_encoding_lacks_is_escaped(tmp_path, encoding):
    result = run(tmp_path, encoding=encoding)
    line = result.stdout.decode(encoding).splitlines()[0]
    assert line.endswith("\\udce9")
    shown = "steps … ε̂ " if encoding == "utf-8" else "steps \\u2026 \\u03b5\\u0302 "
    assert line.startswith(shown)


def test_a_full_disk_under_the_log(tmp_path):
    with open("/dev/full", "w") as full:
        run(tmp_path, stdout=full, stderr=full)


def test_a_closed_terminal(tmp_path):
    """As after `disown`: writing to it gives EIO."""
    ours, theirs = pty.openpty()
    os.close(ours)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        os.write(theirs, b"x")
    run(tmp_path, stdout=theirs, stderr=theirs)
    os.close(theirs)


def test_a_reader_that_has_gone_away(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    run(tmp_path, stdout=writing, stderr=writing)
    os.close(writing)


@pytest.mark.parametrize(
    "before", ["sys.stdout.close(); sys.stderr.close()", "sys.stdout = None"]
)
def test_no_stream_at_all(tmp_path, before):
    run(tmp_path, before=before)


def test_quietly_nothing_is_said_and_errors_are_told(capsys):
    with console.quietly():
        console.say("one")
        console.say_error("two")
    console.say("three")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("three\n", "two\n")
