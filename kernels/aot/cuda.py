"""What the GPU kernels take, from the real CUDA compiler on a machine without a GPU.

    python kernels/aot/cuda.py [--grid] [--write] [CASE ...]

Compiles each kernel alone for chips that are not here, assembles it and reads the report: registers
and spills of a thread, shared memory of a block, matrix instructions in the code; then programs of
all passes for the bytes that they need beside their arguments. Measured values are kept for one
version of jax and of the assembler in `budgets/`; what is over 3 % more fails, and so does a spill
where there was none. Other versions are compiled and shown, but not compared. `--write` keeps what
is measured; `--grid` takes all cases; words choose those whose name holds all of them.
"""

import argparse
import functools
import importlib.metadata
import itertools
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from typing import Literal, NamedTuple

# ruff: noqa: E402
DUMPS = tempfile.TemporaryDirectory(prefix="cuda")
os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",  # of a driver that is not here
    "JAX_ENABLE_COMPILATION_CACHE": "0",  # a cached kernel is not dumped
    "XLA_FLAGS": f"--xla_dump_to={DUMPS.name} --xla_dump_emitter_re=.*",
    "MOSAIC_GPU_DUMP_TO": DUMPS.name,
    "LLVM_DISABLE_SYMBOLIZATION": "1",  # of the disassembler's absence: two thirds of all time
    "TF_CPP_MIN_LOG_LEVEL": "3",
}

import jax
import jax.numpy as jnp
import kept
import numpy as np
from jax.experimental import topologies
from mres_kernels.varlen_attention import (
    make_plan,
    pallas_gpu,
    pallas_triton,
    varlen_attention,
)

ASSEMBLER = "nvidia-cuda-nvcc"  # the package of ptxas
VERSIONS = {name: importlib.metadata.version(name) for name in ("jax", ASSEMBLER)}
KEPT = kept.FOLDER / f"jax-{VERSIONS['jax']}-ptxas-{VERSIONS[ASSEMBLER]}.json"
LONG = 65_536  # rows


class Chip(NamedTuple):
    """A GPU as the compiler wants it described; what only places memory is left out."""

    kind: str
    capability: tuple[int, int]
    cores: int
    clock_ghz: float
    memory_bytes: int
    bytes_per_second: int
    cache_bytes: int
    shared_bytes: int  # of a multiprocessor


CHIPS = {
    "sm_80": Chip(
        "NVIDIA A100-SXM4-80GB", (8, 0), 108, 1.41, 80 << 30, 2039 * 10**9, 40 << 20, 164 << 10
    ),
    "sm_90": Chip("NVIDIA H200", (9, 0), 132, 1.98, 141 << 30, 4800 * 10**9, 50 << 20, 228 << 10),
    "sm_100": Chip(
        "NVIDIA B200", (10, 0), 148, 1.965, 180 << 30, 8000 * 10**9, 126 << 20, 228 << 10
    ),
}
MATRIX = r"wgmma\.mma_async|mma\.sync|tcgen05\.mma"  # instructions
Pass = Literal["forward", "d_q", "d_kv"]
Implementation = Literal["pallas_gpu", "pallas_triton"]


class Case(NamedTuple):
    """The kernels of one pass for one chip.

    Attributes:
      chip: a name of `CHIPS`.
      implementation: whose.
      which: the pass.
      head_dim: channels.
      num_heads: query heads.
      num_kv_heads: key/value heads.
      length: rows of the pack.
      dtype: of the inputs.
    """

    chip: str
    implementation: Implementation
    which: Pass
    head_dim: int
    num_heads: int = 16
    num_kv_heads: int = 16
    length: int = 8192
    dtype: str = "bfloat16"

    @property
    def name(self) -> str:
        heads = f"heads {self.num_heads}/{self.num_kv_heads} of {self.head_dim}"
        return (
            f"{self.chip} {self.implementation} {self.which} {self.dtype} {heads}, "
            f"{self.length} rows"
        )


WIDTHS = (64, 72, 80, 96, 128, 256)
PASSES = ("forward", "d_q", "d_kv")
WHERE = (("sm_90", "pallas_gpu"), *((chip, "pallas_triton") for chip in CHIPS))
QUICK = (
    *(Case(*where, which, width) for where in WHERE for which in PASSES for width in (80, 128)),
    *(Case("sm_90", "pallas_gpu", which, 256) for which in PASSES),
    *(Case(*where, which, 128, 32, 8, LONG) for where in WHERE for which in PASSES),
)
GRID = (
    *(
        Case(*where, which, width, *heads)
        for where, which, width, heads in itertools.product(
            WHERE, PASSES, WIDTHS, ((16, 16), (32, 8))
        )
        if where[1] != "pallas_gpu" or width % 16 == 0  # it fills 72 up to 80
    ),
    *(
        Case(chip, "pallas_triton", which, width, dtype="float32")
        for chip, which, width in itertools.product(CHIPS, PASSES, WIDTHS)
    ),
)


MEMORY = tuple((*where, *heads) for where in WHERE for heads in ((16, 16, 80), (32, 8, 128)))


class Kernel(NamedTuple):
    """What one compiled kernel takes.

    Attributes:
      registers: of a thread.
      spilled_bytes: of a thread, stores and loads.
      shared_bytes: of a block.
      matrix_instructions: in its code.
    """

    registers: int
    spilled_bytes: int
    shared_bytes: int
    matrix_instructions: int


def describe(chip: Chip) -> str:
    """The compiler's text form of a GPU."""
    major, minor = chip.capability
    return f"""gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: {48 << 10}
  shared_memory_per_block_optin: {chip.shared_bytes - (1 << 10)}
  shared_memory_per_core: {chip.shared_bytes}
  threads_per_core_limit: 2048
  core_count: {chip.cores}
  fpus_per_core: {64 if chip.capability == (8, 0) else 128}
  block_dim_limit_x: {2**31 - 1}
  block_dim_limit_y: {2**16 - 1}
  block_dim_limit_z: {2**16 - 1}
  memory_bandwidth: {chip.bytes_per_second}
  l2_cache_size: {chip.cache_bytes}
  clock_rate_ghz: {chip.clock_ghz}
  device_memory_size: {chip.memory_bytes}
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  registers_per_core_limit: {1 << 16}
  registers_per_block_limit: {1 << 16}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 8 }}
device_description_str: "{chip.kind}"
"""


@functools.cache
def mesh_of(chip: str) -> jax.sharding.Mesh:
    """One GPU that is not here."""
    devices = topologies.get_topology_desc(
        platform="cuda", topology_name=chip, topology="1x1x1", target_config=describe(CHIPS[chip])
    ).devices
    axis = (jax.sharding.AxisType.Auto,)
    return jax.sharding.Mesh(np.array(devices[:1]), ("x",), axis_types=axis)


def measure(case: Case) -> dict[str, Kernel]:
    """Compiles the kernels of a case, and reads what they take, by name."""
    for path in pathlib.Path(DUMPS.name).iterdir():
        path.unlink()
    compile_for(case.chip, *_pass_of(case))
    return _read()


def compile_for(chip: str, function, arguments):
    """Compiles a function of arrays or of trees of them, given as shapes."""
    mesh = mesh_of(chip)
    where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), arguments
    )
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return jax.jit(function).lower(*shapes).compile()


def measure_memory(
    chip: str, implementation: Implementation, h: int, g: int, width: int
) -> dict[str, dict[str, int]]:
    """Temporary bytes of attention and its gradients over one pack of `LONG` rows."""
    q, kv = (jax.ShapeDtypeStruct((LONG, n, width), jnp.bfloat16) for n in (h, g))
    ids = jax.ShapeDtypeStruct((LONG,), jnp.int32)

    def train(q, k, v, ids, d_out):
        plan = make_plan(ids)
        call = lambda *x: varlen_attention(*x, plan, implementation=implementation)  # noqa: E731
        out, pull = jax.vjp(call, q, k, v)
        return out, pull(d_out)

    memory = compile_for(chip, train, (q, kv, kv, ids, q)).memory_analysis()
    name = f"{chip} {implementation} heads {h}/{g} of {width}, {LONG} rows, all passes"
    return {name: {"temporary_bytes": memory.temp_size_in_bytes}}


def _pass_of(case: Case):
    """A function and the shapes of its arguments."""
    t, h, g, width = case.length, case.num_heads, case.num_kv_heads, case.head_dim

    def array(*shape, dtype=case.dtype):
        return jax.ShapeDtypeStruct(shape, dtype)

    q, kv, sums = array(t, h, width), array(t, g, width), array(h, t, dtype="float32")
    plan = jax.eval_shape(make_plan, array(t, dtype="int32"))
    if case.implementation == "pallas_gpu":
        from mres_kernels.varlen_attention.pallas_gpu import _backward, _forward

        tiles = pallas_gpu.choose(case.which, width)
    else:
        from mres_kernels.varlen_attention.pallas_triton import _backward, _forward

        tiles = pallas_triton.choose(case.which, q)
    options = {"scale": 0.125, "tiles": tiles}
    if case.which == "forward":
        return functools.partial(_forward.forward, **options), (q, kv, kv, plan)
    passes = {"d_q": _backward.query_gradient, "d_kv": _backward.key_gradients}
    return functools.partial(passes[case.which], **options), (q, kv, kv, q, sums, sums, plan)


def _read() -> dict[str, Kernel]:
    """Assembles what was dumped."""
    found = {}
    for path in sorted(pathlib.Path(DUMPS.name).glob("*.ptx")):
        code = path.read_text()
        entry = re.search(r"\.entry (varlen_attention\w*)", code)
        if entry is None:
            continue
        report = _assemble(path, re.findall(r"\.target (\w+)", code)[0])
        spills = re.findall(r"(\d+) bytes spill", report.split("bytes stack frame")[1])
        name = entry[1].removesuffix("_mosaic_gpu_kernel")
        found[name] = Kernel(
            registers=int(re.findall(r"Used (\d+) registers", report)[0]),
            spilled_bytes=sum(map(int, spills)),
            shared_bytes=_shared_bytes(name),
            matrix_instructions=len(re.findall(MATRIX, code)),
        )
    if not found:
        raise RuntimeError("the compiler wrote no code of a kernel of ours.")
    return found


@functools.cache
def _assembler() -> pathlib.Path:
    files = importlib.metadata.files(ASSEMBLER) or ()
    return next(pathlib.Path(str(f.locate())) for f in files if f.name == "ptxas")


def _assemble(path: pathlib.Path, target: str) -> str:
    command = [_assembler(), "-v", f"-arch={target}", path, "-o", os.devnull]
    return subprocess.run(command, check=True, capture_output=True, text=True).stderr


def _shared_bytes(name: str) -> int:
    """Of a block, from what starts the kernel."""
    dumps = pathlib.Path(DUMPS.name)
    for path in dumps.glob(f"{name}_*.mlir-passes.log"):
        with path.open() as lines:
            sizes = (re.search(r"dynamic_shared_memory_size %c(\d+)", line) for line in lines)
            return int(next(size[1] for size in sizes if size))
    (path,) = dumps.glob("*.thunk_sequence.txt")
    size = re.search(rf"{name} .*shared_memory: (\d+) bytes", path.read_text())
    if size is None:
        raise RuntimeError(f"{path.name}: no {name} in it.")
    return int(size[1])


def without_matrices(found: dict[str, dict]) -> list[str]:
    """One line for each kernel that multiplies matrices without the instructions for it."""
    return [
        f"{name}: no matrix instructions."
        for name, values in found.items()
        if values.get("matrix_instructions") == 0 and "float32" not in name
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("words", nargs="*", help="of the names of cases; default: all")
    parser.add_argument("--grid", action="store_true", help="all cases")
    parser.add_argument("--write", action="store_true", help="keep what is measured")
    args = parser.parse_args()
    cases = dict.fromkeys((*QUICK, *(GRID if args.grid else ())))
    cases = [case for case in cases if all(word in case.name for word in args.words)]
    found, lines = {}, []
    for case in cases:
        try:
            kernels = measure(case)
        except Exception as error:
            lines.append(f"{case.name}: {type(error).__name__}: {str(error).splitlines()[0]}")
            print(lines[-1], flush=True)
            continue
        for name, kernel in kernels.items():
            key = f"{case.name}: {name}"
            found[key] = kernel._asdict()
            print(key, json.dumps(found[key]), flush=True)
    for case in MEMORY:
        if all(word in f"{case} memory" for word in args.words):
            found |= measure_memory(*case)
            print(*list(found.items())[-1], flush=True)
    table = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    compiled = f"{len(found)} cases compiled, {len(lines)} not"
    if args.write:
        KEPT.write_text(kept.render(table | found) + "\n")
        print(compiled)
    elif not table:
        print(f"{compiled}; no budgets for {VERSIONS}, nothing compared")
    else:
        over = kept.over_budget(table, found, shown=("matrix_instructions",))
        over += without_matrices(found)
        lines += over
        print(*lines, sep="\n")
        print(f"{compiled}, {len(over)} over budget")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
