"""Where a device spent its time, from the trace that JAX's profiler writes."""

import collections
import gzip
import json
import pathlib
import re
from collections.abc import Iterable

KINDS = {
    # What kernels are named on NVIDIA's GPUs; the first that fits counts.
    "attention": r"fmha|flash|sdpa|mha_",
    "convolutions": r"conv(?!ert)|fprop|dgrad|wgrad|implicit_gemm",
    "products": r"gemm|cutlass|nvjet|\bdot|cublas",
    "copies and layouts": r"copy|transpose|memcpy|memset|concat|nchw|nhwc",
    "reductions": r"reduc|softmax|norm",
    "elementwise": r"fusion|elementwise|triton",
}
REST = "the rest"


def shares(folder: pathlib.Path) -> dict[str, float]:
    """Return the share of each kind in the time of all kernels; {} without a device.

    Args:
        folder: that `jax.profiler.trace` wrote to.
    """
    traces = sorted(pathlib.Path(folder).rglob("*.trace.json.gz"))
    if not traces:
        return {}
    with gzip.open(traces[-1], "rt") as file:
        return of_events(json.load(file)["traceEvents"])


def of_events(events: Iterable[dict]) -> dict[str, float]:
    """Return the shares of kinds, of events in Chrome's format of traces.

    Counted are complete events ("X") of streams of devices, so that kernels are counted
    and not the modules and steps that enclose them.
    """
    devices, streams = set(), set()
    for event in events:
        if event.get("ph") == "M":
            told = event.get("args", {}).get("name", "")
            if event["name"] == "process_name" and "/device:" in told:
                devices.add(event["pid"])
            if event["name"] == "thread_name" and told.startswith("Stream"):
                streams.add((event["pid"], event["tid"]))
    taken = collections.Counter()
    for event in events:
        if (
            event.get("ph") == "X"
            and event["pid"] in devices
            and (event["pid"], event["tid"]) in streams
        ):
            taken[kind(event["name"])] += event["dur"]
    total = sum(taken.values())
    return {name: taken[name] / total for name in (*KINDS, REST)} if total else {}


def kind(kernel: str) -> str:
    """Return the kind of a kernel, by its name."""
    found = (k for k, words in KINDS.items() if re.search(words, kernel.lower()))
    return next(found, REST)
