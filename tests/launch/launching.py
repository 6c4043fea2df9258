"""Running the launchers: where they are, what they are given, a stand-in for Python."""

import pathlib
import subprocess
import sys

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
NASTY = """--name=it's "two" $HOME `id` $(id) $$ \\ & ; * é"""
TRAINING = ["python", "-m", "ddpm_jax.main"]
TPU = ["--name=t", "--project=p", "--zone=z"]
PLACE = ["--bucket=runs", "--type=v5litepod-16"]

# Prints what it was given, and waits for SIGTERM.
STAND_IN = f"""#!{sys.executable} -S
import os, signal, sys, time
rank, told = os.environ.get("JAX_PROCESS_ID", "0"), []
stubborn = "--stubborn" in sys.argv
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
print("rank", rank, "of", os.environ.get("JAX_NUM_PROCESSES"), *sys.argv[1:], sep="|")
print(os.environ.get("JAX_COORDINATOR_ADDRESS"), flush=True)
if f"--dies={{rank}}" in sys.argv:
    sys.exit(3)
if f"--ends={{rank}}" in sys.argv:
    sys.exit(0)
deadline = time.monotonic() + 10
while (stubborn or not told) and time.monotonic() < deadline:
    time.sleep(0.02)
time.sleep(0.3)  # a second signal would come now
print("told", len(told), flush=True)
sys.exit(143 if "--status=143" in sys.argv else 0)
"""


def executable(path, text):
    path.write_text(text)
    path.chmod(0o755)
    return path


def launch(script, *arguments, env, cwd=None):
    """Run a launcher to its end."""
    return subprocess.run(
        ["bash", str(LAUNCH / script), *map(str, arguments)],
        env=env,
        cwd=cwd or env["HOME"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
