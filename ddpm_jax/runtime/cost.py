"""What a program says of itself before it runs: its work, its memory, its traffic."""

import collections
import math
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp

TRAINING_PASSES = 3
"""A train step costs three forward passes: the backward pass makes two products, for
the gradients of weights and of activations, where the forward pass makes one."""

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
    "ragged-all-to-all",
)


# ---- work ----------------------------------------------------------------------------


def flops(function: Callable, *args) -> int:
    """Return the FLOPs of the matrix products and convolutions of a function.

    Counted as is usual for model FLOP utilisation: multiplication and addition are two,
    a convolution counts its padding, all else is left out. Neither device nor compiler
    have a say: what a program computes twice to save memory counts once.

    Args:
        function: traceable.
        *args: its arguments, or `jax.ShapeDtypeStruct` in their place.
    """
    return _work(jax.make_jaxpr(function)(*args).jaxpr)


def forward_flops(
    apply: Callable,
    shapes,
    image_shape: tuple[int, int, int],
    condition=None,
    float_timesteps: bool = False,
) -> int:
    """Return the FLOPs of a network for one image, see `flops`.

    Training takes `TRAINING_PASSES` times as many.

    Args:
        apply: `(params, x, t, condition) → output`.
        shapes: of the parameters.
        image_shape: (height, width, channels).
        condition: shapes of the condition of one image, by key; None for {}.
        float_timesteps: whether it takes timesteps as float32, else as int32.
    """
    x = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    t = jax.ShapeDtypeStruct((1,), jnp.float32 if float_timesteps else jnp.int32)
    return flops(apply, shapes, x, t, condition or {})


def _work(jaxpr):
    return sum(_work_of(equation) for equation in jaxpr.eqns)


def _work_of(equation):
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        lengths = [equation.invars[0].aval.shape[axis] for axis in contracted]
        return 2 * equation.outvars[0].aval.size * math.prod(lengths)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval
        out_axis = params["dimension_numbers"].rhs_spec[0]
        products = kernel.size // kernel.shape[out_axis]
        return 2 * equation.outvars[0].aval.size * products
    inner = [_work(jaxpr) for jaxpr in _inner(params)]
    if name == "cond":
        return max(inner)  # one of its branches runs
    return params.get("length", 1) * sum(inner) if name == "scan" else sum(inner)


def _inner(params) -> Iterator:
    """Yield the programs among the parameters of an equation: bodies and branches."""
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            jaxpr = getattr(part, "jaxpr", part)
            if hasattr(jaxpr, "eqns"):
                yield jaxpr


# ---- memory --------------------------------------------------------------------------


class Memory(NamedTuple):
    """The bytes that a compiled program needs on each device.

    Attributes:
        arguments: what it is called with.
        outputs: what it returns, those included that take the place of arguments.
        aliased: outputs that take the place of donated arguments.
        temporary: everything in between.
        code: the program itself, where it lies in the device's memory.
    """

    arguments: int
    outputs: int
    aliased: int
    temporary: int
    code: int

    @property
    def peak(self) -> int:
        """All of it at once, as it is reserved when the program is called."""
        new_outputs = self.outputs - self.aliased
        return self.arguments + new_outputs + self.temporary + self.code


def memory(compiled: jax.stages.Compiled) -> Memory | None:
    """Return what the compiler has planned, or None where a backend does not tell."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    return Memory(
        arguments=analysis.argument_size_in_bytes,
        outputs=analysis.output_size_in_bytes,
        aliased=analysis.alias_size_in_bytes,
        temporary=analysis.temp_size_in_bytes,
        code=analysis.generated_code_size_in_bytes,
    )


# ---- traffic -------------------------------------------------------------------------

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.-]+ = (.+?) ([a-z][\w-]*)\((.*)$")
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,<=]*)\]")
_CALLED = re.compile(
    r"\b(?:calls|to_apply|true_computation|false_computation)=%?([\w.-]+)"
)
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
_LOOP = re.compile(r"\bcondition=%?([\w.-]+), body=%?([\w.-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_BOUND = re.compile(r"^\s+%?[\w.-]+ = s32\[\]\S* constant\((\d+)\)", re.M)
_CHANNEL = re.compile(r"\bchannel_id=(\d+)")
_COMMENT = re.compile(r"/\*.*?\*/")


def collective_bytes(hlo_text: str) -> dict[str, int]:
    """Return the bytes that devices exchange in a run of a compiled program, by kind.

    Counted are the results on one device: of an all-reduce the whole sum, of an
    all-gather all that has been gathered, of a reduce-scatter the part that this device
    keeps. What travels through a wire depends on the algorithm; in a ring of n devices
    an all-reduce sends 2(n−1)/n times its result. What a loop exchanges counts as often
    as it is repeated, and what is under way while something else is computed once.

    Args:
        hlo_text: `jax.stages.Compiled.as_text()`.

    Returns:
        Bytes by name of `COLLECTIVES`, those that do not occur left out.
    """
    return _Traffic(hlo_text).count()


class _Traffic:
    """The collectives of a program, found by walking it as it is called."""

    def __init__(self, text):
        self._bodies = {}
        lines, self._entry = [], ""
        for line in text.splitlines():
            if head := _COMPUTATION.match(line):
                lines = self._bodies.setdefault(head[1], [])
                self._entry = head[1] if line.startswith("ENTRY") else self._entry
            elif line.startswith(" "):
                lines.append(line)
        self._bytes = collections.Counter()
        self._counted = set()

    def count(self):
        self._walk(self._entry, 1, fused=False)
        return dict(self._bytes)

    def _walk(self, name, times, *, fused):
        for line in self._bodies.get(name, ()):
            if instruction := _INSTRUCTION.match(_COMMENT.sub("", line)):
                self._visit(*instruction.groups(), times, fused)

    def _visit(self, shape, opcode, rest, times, fused):
        # An asynchronous collective is a start and a done, whose result is the plain
        # one: the start's holds buffers besides.
        kind = opcode.removesuffix("-done")
        called = _CALLED.findall(rest)
        if kind in COLLECTIVES:
            self._add(kind, shape, rest, times, fused)
        elif opcode == "while":
            condition, body = _LOOP.search(rest).groups()
            self._walk(body, times * self._trips(rest, condition), fused=fused)
        elif opcode == "fusion" and called[0].startswith("all-reduce-scatter"):
            self._add("reduce-scatter", shape, rest, times, fused=False)
        elif opcode in ("fusion", "call", "conditional", "async-start"):
            for names in _BRANCHES.findall(rest):
                called += [name.strip(" %") for name in names.split(",")]
            for name in called:
                self._walk(name, times, fused=fused or opcode == "fusion")

    def _add(self, kind, shape, rest, times, fused):
        channel = _CHANNEL.search(rest)
        # The TPU compiler fuses one transfer with all that is computed meanwhile, and
        # writes it down in each of these fusions.
        if fused and channel:
            if (kind, channel[1]) in self._counted:
                return
            self._counted.add((kind, channel[1]))
        self._bytes[kind] += times * _size(shape)

    def _trips(self, rest, condition):
        """Return how often a loop runs; 1 if the program does not tell."""
        if known := _TRIPS.search(rest):
            return int(known[1])
        bounds = _BOUND.findall("\n".join(self._bodies.get(condition, ())))
        return int(bounds[0]) if len(bounds) == 1 else 1


def _size(shape):
    """Return the bytes of a shape, e.g. "(f32[8,16]{1,0}, bf16[4]{0})"."""
    return sum(
        math.ceil(math.prod(map(int, re.findall(r"\d+", axes))) * _bits(dtype) / 8)
        for dtype, axes in _ARRAY.findall(shape)
    )


def _bits(dtype):
    """Return the bits of an element: "bf16" and "f8e4m3fn" begin with their number."""
    digits = re.search(r"\d+", dtype)
    return int(digits[0]) if digits else {"pred": 8}.get(dtype, 0)
