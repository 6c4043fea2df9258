"""What is read from programs: work against closed forms and PyTorch, bytes counted."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import network as build_network
from ddpm_jax.config import reading
from ddpm_jax.models import functional
from ddpm_jax.runtime import cost
from ddpm_jax.runtime import sharding as meshes

ROOT = pathlib.Path(__file__).parents[2]


def shape(*axes, dtype="float32"):
    return jax.ShapeDtypeStruct(axes, dtype)


# ---- work ----------------------------------------------------------------------------


def convolve(x, kernel, **options):
    return jax.lax.conv_general_dilated(
        x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), **options
    )


@pytest.mark.parametrize(
    ("function", "shapes", "products"),
    [
        (jnp.matmul, [(3, 5), (5, 7)], 3 * 5 * 7),
        (jnp.matmul, [(4, 3, 5), (4, 5, 7)], 4 * 3 * 5 * 7),
        (convolve, [(2, 8, 8, 6), (3, 3, 6, 10)], 2 * 4 * 4 * 10 * 9 * 6),
        (
            functools.partial(convolve, feature_group_count=2),
            [(2, 8, 8, 6), (3, 3, 3, 10)],
            2 * 4 * 4 * 10 * 9 * 3,
        ),
        (jnp.add, [(3, 5), (3, 5)], 0),
    ],
)
def test_flops_have_their_closed_form(function, shapes, products):
    args = [shape(*axes) for axes in shapes]
    assert cost.flops(function, *args) == 2 * products
    # However deep they lie in the program.
    assert cost.flops(jax.checkpoint(jax.jit(function)), *args) == 2 * products


def test_flops_of_loops_and_branches():
    def repeated(x):
        return jax.lax.scan(lambda h, _: (h @ x, None), x, length=7)[0]

    def either(x):
        return jax.lax.cond(x[0, 0] > 0, lambda h: h @ h @ h, lambda h: h @ h, x)

    once = 2 * 6**3
    assert cost.flops(repeated, shape(6, 6)) == 7 * once
    assert cost.flops(either, shape(6, 6)) == 2 * once


def test_training_takes_three_passes():
    """Exactly so wherever the input needs a gradient too: but for the first layer."""

    def loss(x, first, second):
        return jnp.sum(jnp.tanh(x @ first) @ second)

    args = shape(4, 5), shape(5, 6), shape(6, 7)
    assert cost.flops(jax.value_and_grad(loss, (0, 1, 2)), *args) == (
        cost.TRAINING_PASSES * cost.flops(loss, *args)
    )


def test_flops_of_a_network_are_those_that_pytorch_counts():
    """The network of Improved DDPM for CIFAR-10, counted without running either."""
    torch = pytest.importorskip("torch")
    from torch.utils import flop_counter

    from ddpm_jax.convert import mapping, torch_reference
    from ddpm_jax.convert.formats import FORMATS

    config = reading.from_file(str(ROOT / "configs" / "cifar10_iddpm.py"))
    facts = build_data.DataInfo((32, 32, 3), 256, 50_000, 10, (), "")
    network = build_network.network(config, facts)
    ours = {
        path: np.broadcast_to(np.float32(0), leaf.shape)
        for path, leaf in functional.by_path(network.shapes).items()
    }
    shapes = {path: array.shape for path, array in ours.items()}
    fields = dict(reading.leaves(config.to_dict()))
    theirs = {}
    for entry in FORMATS["openai"].entries(shapes, fields):
        theirs |= mapping.to_theirs(entry, ours[entry.path])
    # Tensors of the device "meta" have shapes alone.
    with torch.device("meta"), flop_counter.FlopCounterMode(display=False) as counter:
        torch_reference.openai_unet(
            {name: torch.empty(array.shape) for name, array in theirs.items()},
            torch.empty(1, 3, 32, 32),
            torch.empty(1),
            num_res_blocks=config.model.num_res_blocks,
            num_heads=config.model.num_heads,
        )
    counted = cost.forward_flops(network.apply, network.shapes, (32, 32, 3), False)
    assert counted == counter.get_total_flops()


# ---- memory --------------------------------------------------------------------------


def test_memory_of_each_device():
    mesh = meshes.make_mesh(1, 8)
    split = jax.sharding.NamedSharding(mesh, PartitionSpec("fsdp"))
    state = jax.ShapeDtypeStruct((64, 32), "float32", sharding=split)
    step = jax.jit(lambda x, y: (x + 1, y * 2), donate_argnums=0)
    memory = cost.memory(step.lower(state, state).compile())
    part = 64 * 32 * 4 // 8
    table = 2 * 8  # the pointers to the two results
    assert memory.arguments == 2 * part
    assert memory.aliased == part
    assert 2 * part <= memory.outputs <= 2 * part + table
    new = memory.outputs - memory.aliased
    assert memory.peak == 2 * part + new + memory.temporary + memory.code


def test_memory_that_is_not_told():
    class Silent:
        def memory_analysis(self):
            return None

    assert cost.memory(Silent()) is None


# ---- traffic -------------------------------------------------------------------------


def exchanged(function, times=1):
    """Return what a function of a row [16, 8] on each of 8 devices exchanges."""
    mesh = meshes.make_mesh(8, 1)
    sharded = jax.shard_map(
        function,
        mesh=mesh,
        in_specs=PartitionSpec("data"),
        out_specs=PartitionSpec(),
        check_vma=False,
    )

    def repeated(x):
        if times == 1:
            return sharded(x)
        return jax.lax.scan(
            lambda total, part: (total + jnp.sum(sharded(part)), None), 0.0, x
        )[0]

    whole = (8 * 16, 8) if times == 1 else (times, 8 * 16, 8)
    return cost.collective_bytes(
        jax.jit(repeated).lower(shape(*whole)).compile().as_text()
    )


ROWS = 16 * 8 * 4  # bytes of what a device holds
RING = [(i, (i + 1) % 8) for i in range(8)]


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (lambda x: jax.lax.psum(x, "data"), {"all-reduce": ROWS}),
        (lambda x: jax.lax.all_gather(x, "data"), {"all-gather": 8 * ROWS}),
        (
            lambda x: jax.lax.psum_scatter(x, "data", tiled=True),
            {"reduce-scatter": ROWS // 8},
        ),
        (
            lambda x: jax.lax.all_to_all(x, "data", 0, 0, tiled=True),
            {"all-to-all": ROWS},
        ),
        (lambda x: jax.lax.ppermute(x, "data", RING), {"collective-permute": ROWS}),
        (lambda x: x, {}),
    ],
)
def test_bytes_of_each_kind_of_collective(function, wanted):
    assert exchanged(function) == wanted


def test_a_loop_exchanges_as_often_as_it_is_repeated():
    assert exchanged(lambda x: jax.lax.psum(x, "data"), times=5) == {
        "all-reduce": 5 * ROWS
    }


# As the compilers for GPUs and TPUs write it, which need not be here.
PROGRAM = """\
HloModule jit_step, is_scheduled=true, entry_computation_layout={()->f32[]}

%fused_computation.1 (param_0: bf16[2,32]) -> (bf16[2,32], bf16[8,32]) {
  %param_0 = bf16[2,32]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %all-gather.1 = bf16[8,32]{1,0:T(8,128)(2,1)} all-gather(%param_0), channel_id=7
}

%async_collective_fusion.2 (param_0.2: bf16[2,32]) -> bf16[8,32] {
  %param_0.2 = bf16[2,32]{1,0} parameter(0)
  ROOT %all-gather.2 = bf16[8,32]{1,0:S(1)} all-gather(%param_0.2), channel_id=7
}

%all-reduce-scatter.3 (param_0.3: f32[64,16]) -> f32[8,16] {
  %param_0.3 = f32[64,16]{1,0} parameter(0)
  %all-reduce.3 = f32[64,16]{1,0} all-reduce(%param_0.3), channel_id=8, to_apply=%add
  ROOT %dynamic-slice.3 = f32[8,16]{1,0} dynamic-slice(%all-reduce.3)
}

%condition (state: (s32[], f32[4])) -> pred[] {
  %state = (s32[]{:T(128)}, f32[4]{0}) parameter(0)
  %constant.4 = s32[]{:T(128)} constant(6)
  %counter = s32[]{:T(128)} get-tuple-element(%state), index=0
  ROOT %lt.4 = pred[]{:T(512)} compare(%counter, %constant.4), direction=LT
}

%body (state.1: (s32[], f32[4])) -> (s32[], f32[4]) {
  %state.1 = (s32[]{:T(128)}, f32[4]{0}) parameter(0)
  %get.1 = f32[4]{0} get-tuple-element(%state.1), index=1
  %permute-start = (f32[4]{0}, f32[4]{0}, u32[], u32[]) collective-permute-start(%get.1), channel_id=1
  %permute-done = f32[4]{0} collective-permute-done(%permute-start)
  %permute-start.1 = (f32[4]{0}, f32[4]{0}, u32[], u32[]) collective-permute-start(%get.1), channel_id=1
  %permute-done.1 = f32[4]{0} collective-permute-done(%permute-start.1)
  ROOT %tuple.1 = (s32[], f32[4]{0}) tuple(%get.1, %permute-done.1)
}

%branch (x.5: s4[10]) -> s4[10] {
  %x.5 = s4[10]{0} parameter(0)
  ROOT %all-to-all.5 = s4[10]{0} all-to-all(%x.5), channel_id=11
}

%wrapped (x.6: c64[3]) -> c64[24] {
  %x.6 = c64[3]{0} parameter(0)
  ROOT %all-gather.6 = c64[24]{0} all-gather(%x.6), channel_id=12
}

ENTRY %main (x: f32[8]) -> f32[] {
  %x = f32[8]{0} parameter(0)
  %all-reduce.7 = (f32[]{:T(128)}, bf16[3,5]{1,0}, pred[9]{0}, /*index=3*/f8e4m3fn[7]{0}) all-reduce(%x, %x), channel_id=2, metadata={op_name="jit(f)/all-reduce(x)"}
  %all-reduce-start.8 = (f32[6]{0}, f32[2]{0}) all-reduce-start(%x), channel_id=3
  %all-reduce-done.8 = (f32[6]{0}, f32[2]{0}) all-reduce-done(%all-reduce-start.8)
  %fusion.1 = (bf16[2,32]{1,0}, bf16[8,32]{1,0}) fusion(%x), kind=kCustom, calls=%fused_computation.1
  %fusion.2 = bf16[8,32]{1,0} fusion(%fusion.1), kind=kCustom, calls=%async_collective_fusion.2
  %fusion.3 = f32[8,16]{1,0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.3
  %while.4 = (s32[]{:T(128)}, f32[4]{0}) while(%x), condition=%condition, body=%body
  %conditional.5 = s4[10]{0} conditional(%x, %x), branch_computations={%branch}
  %async-start.6 = ((c64[3]{0}), c64[24]{0}, u32[]) async-start(%x), calls=%wrapped
  %async-done.6 = c64[24]{0} async-done(%async-start.6)
  %get.8 = f32[6]{0} get-tuple-element(%all-reduce-done.8), index=0
  ROOT %sum = f32[] constant(0)
}
"""  # noqa: E501 - lines as they are printed


def test_bytes_of_asynchronous_fused_and_repeated_collectives():
    assert cost.collective_bytes(PROGRAM) == {
        "all-reduce": (4 + 2 * 15 + 9 + 7) + 4 * 8,
        "all-gather": 2 * 8 * 32 + 8 * 24,  # a fusion's once, though written twice
        "reduce-scatter": 4 * 8 * 16,
        "collective-permute": 6 * 2 * 16,  # two, in a loop of six
        "all-to-all": 5,
    }
