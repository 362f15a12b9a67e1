"""What the TPU kernels cost, from the real TPU compiler on a machine without a TPU.

The compiler writes the final instruction bundles of each kernel. The cores are in order and issue
one bundle a cycle, so their count bounds the time from below; waiting for memory is not in it.
"""

import os
import pathlib
import re
import tempfile
from typing import Literal, NamedTuple

import jax
import numpy as np
from jax.experimental import topologies
from mres_kernels.decode_attention.pallas_tpu import attend_cache, choose_block
from mres_kernels.varlen_attention.pallas_tpu import Tiles, _backward, _forward
from mres_kernels.varlen_attention.pallas_tpu._sizes import choose, share_heads
from mres_kernels.varlen_attention.plan import make_plan

DUMPS = tempfile.TemporaryDirectory(prefix="llo")


def load_compiler(*, dump: bool) -> None:
    """Says how the compiler shall run, before the first compile.

    Args:
      dump: whether it writes the bundles of each kernel, which `measure` reads. Slow for programs
        of more than a kernel.
    """
    if dump:
        os.environ["LIBTPU_INIT_ARGS"] = (
            f"--xla_jf_dump_to={DUMPS.name} --xla_jf_dump_llo_text=true "
            "--xla_jf_dump_category_filter=utilization,codegen "
            "--xla_jf_dump_llo_pass_label_regex=final.*"
        )
    os.environ |= {
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_SKIP_MDS_QUERY": "1",  # it would look for the machine's description in a cloud
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_STDERR_LOG_LEVEL": "3",
        "TPU_MIN_LOG_LEVEL": "3",
    }
    jax.config.update("jax_platforms", "cpu")


class Chip(NamedTuple):
    """One core of a generation.

    Attributes:
      topology: as the compiler names it.
      operations: of its matrix units in a cycle, bfloat16; a multiply-add is two.
    """

    topology: str
    operations: int


# Four matrix units of 128 x 128 up to v5p; then two of 256 x 256 that take two rows a cycle.
CHIPS = {
    "v4": Chip("v4:2x2x1", 4 * 128**2 * 2),
    "v5e": Chip("v5e:2x2", 4 * 128**2 * 2),
    "v5p": Chip("v5p:2x2x1", 4 * 128**2 * 2),
    "v6e": Chip("v6e:2x2", 2 * 256**2 * 2 * 2),
    "tpu7x": Chip("tpu7x:2x2x1", 2 * 256**2 * 2 * 2),
}
PRODUCTS = {"forward": 2, "backward": 5, "d_kv": 4, "d_q": 3, "decode": 2}  # of a tile
WANTED = {"backward": ("d_q", "d_k", "d_v"), "d_kv": ("d_k", "d_v"), "d_q": ("d_q",)}
Pass = Literal["forward", "backward", "d_kv", "d_q", "decode"]
DECODED_ROWS = 32  # sequences that a case of `decode` continues by one token each


class Case(NamedTuple):
    """One kernel for one chip.

    Attributes:
      chip: a name of `CHIPS`.
      which: the pass over the tiles; `decode` is the other op.
      head_dim: channels.
      num_heads: query heads.
      num_kv_heads: key/value heads.
      length: rows of the pack; positions of a cache.
      dtype: of the inputs.
      tiles: sizes of a step; the tuned ones when None.
    """

    chip: str
    which: Pass
    head_dim: int
    num_heads: int = 8
    num_kv_heads: int = 8
    length: int = 8192
    dtype: str = "bfloat16"
    tiles: Tiles | None = None

    @property
    def name(self) -> str:
        heads = f"{self.num_heads}/{self.num_kv_heads}"
        kind = f"{self.chip} {self.which} {self.dtype} heads {heads} of {self.head_dim}"
        sizes = "" if self.tiles is None else ", tiles " + "x".join(map(str, self.tiles))
        return f"{kind}, {self.length} rows{sizes}"


class Program(NamedTuple):
    """A compiled kernel.

    Attributes:
      tiles: sizes of a step.
      full: bundles of a step without a mask.
      masked: of one with.
      rest: all other bundles, of which a step runs few.
    """

    tiles: Tiles
    full: int
    masked: int
    rest: int

    def share_of_peak(self, case: Case) -> float:
        """Operations of full steps over what the core could do in their time.

        At most 1: where the matrix units take longer than the bundles, they set the pace.
        """
        scores = self.tiles.q * self.tiles.kv * self.tiles.heads
        operations = 2 * PRODUCTS[case.which] * scores * case.head_dim
        return min(operations / self.full / CHIPS[case.chip].operations, 1.0)


def mesh_of(chip: str) -> jax.sharding.Mesh:
    """One device of a chip that is not here."""
    devices = topologies.get_topology_desc(
        platform="tpu", topology_name=CHIPS[chip].topology
    ).devices
    axis = (jax.sharding.AxisType.Auto,)
    return jax.sharding.Mesh(np.array(devices[:1]), ("x",), axis_types=axis)


def compile_for(chip: str, function, arguments):
    """Compiles a function of arrays or of trees of them, given as shapes."""
    mesh = mesh_of(chip)
    where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), arguments
    )
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return jax.jit(function).lower(*shapes).compile()


def is_taken(case: Case) -> bool:
    """Whether attention makes this pass: its backward is one pass, or two where that is too big."""
    if case.which in ("forward", "decode"):
        return True
    queries = jax.ShapeDtypeStruct((case.length, case.num_heads, case.head_dim), case.dtype)
    with jax.sharding.use_abstract_mesh(mesh_of(case.chip).abstract_mesh):
        fits = _backward.resident_heads(queries, 1) > 0
    return fits == (case.which == "backward")


def measure(case: Case) -> Program:
    """Compiles the kernel alone, in its own layout, and counts."""
    clear()
    compile_for(case.chip, *_kernel_of(case))
    tiles = _tiles_of(case)
    heads = share_heads(case.num_heads, case.num_kv_heads, tiles.heads)
    return _count(tiles._replace(heads=heads[0] * heads[1]))


def clear() -> None:
    """Forgets the kernels compiled so far."""
    for path in pathlib.Path(DUMPS.name).iterdir():
        path.unlink()


def bodies_of(name: str) -> tuple[list[int], int]:
    """Counts what a kernel does with a tile.

    Args:
      name: of the kernel; `*` stands for anything.

    Returns:
      Bundles of each body that works on a tile, fewest first (two where tiles under a mask have
      their own), and of the kernel.
    """
    dumps = pathlib.Path(DUMPS.name)
    (bundles,) = dumps.glob(f"{name}[0-9]-final_bundles.txt")
    (use,) = dumps.glob(f"{name}final_hlo-static-per-bundle-utilization.txt")
    regions, total = _regions(bundles.read_text())
    products = _products(use.read_text())
    counted = [(end - start, start, end, sum(products[start:end])) for start, end in regions]
    counted = [region for region in counted if region[3]]
    most = max((region[3] for region in counted), default=0)

    def holds_another(region):
        return any(
            other != region
            and region[1] <= other[1]
            and other[2] <= region[2]
            and other[3] >= 0.9 * most / 2
            for other in counted
        )

    inner = sorted((r for r in counted if not holds_another(r)), key=lambda r: -r[3])[:2]
    return sorted(region[0] for region in inner), total


def _kernel_of(case: Case):
    """A function and the shapes of its arguments."""
    t, width = case.length, case.head_dim
    g, group = case.num_kv_heads, case.num_heads // case.num_kv_heads
    tiles = _tiles_of(case)

    def array(*shape, dtype=case.dtype):
        return jax.ShapeDtypeStruct(shape, dtype)

    queries, keys, values = array(g, group, width, t), array(g, t, width), array(g, width, t)
    sums = array(g, group, 1, t, dtype="float32")
    plan = jax.eval_shape(make_plan, array(t, dtype="int32"))

    def forward(queries, keys, values, plan):
        return _forward.attend(queries, keys, values, plan, tiles=tiles)

    def backward(arrays, plan):
        wanted = WANTED[case.which]
        return _backward.pass_over(arrays, plan, wanted, tiles=tiles, scale=0.125)

    def decode(queries, keys, values, lengths):
        return attend_cache(queries, keys, values, lengths, 1, block=tiles.kv)

    if case.which == "forward":
        return forward, (queries, keys, values, plan)
    if case.which == "decode":
        m = DECODED_ROWS
        cache, lengths = array(2, m, g, t, width), array(m, dtype="int32")
        return decode, (array(m, g, group, width), cache, cache, lengths)
    return backward, ((queries, keys, keys, queries, sums, sums), plan)


def _tiles_of(case: Case) -> Tiles:
    """As the library would choose them."""
    if case.which == "decode":
        shape = 1, 1, case.num_kv_heads, case.length, case.head_dim
        return Tiles(1, choose_block(jax.ShapeDtypeStruct(shape, case.dtype)), case.num_heads)
    queries = jax.ShapeDtypeStruct((case.length, case.num_heads, case.head_dim), case.dtype)
    which = "forward" if case.which == "forward" else "backward"
    with jax.sharding.use_abstract_mesh(mesh_of(case.chip).abstract_mesh):
        tiles = case.tiles or choose(which, queries)
        if case.which == "backward":
            tiles = tiles._replace(heads=_backward.resident_heads(queries, tiles.heads))
    return tiles


def _count(tiles: Tiles) -> Program:
    """Reads the dumps of one of our kernels, which has a body for full and one for masked steps."""
    bodies, total = bodies_of("*_attention*")
    if len(bodies) < 2:
        raise RuntimeError("cannot tell masked steps from full ones.")
    full, masked = bodies
    return Program(tiles, full, masked, total - full - masked)


def _regions(text: str) -> tuple[list[tuple[int, int]], int]:
    """First bundle and end of each conditional region, and the number of bundles."""
    ends, branches, address = {}, [], 0
    for line in text.splitlines():
        match = re.match(r"\s*(?:0x)?([0-9a-f]+)\s.*:", line)
        if not match:
            continue
        address = int(match[1], 16)
        for region in re.findall(r"Start(?:/End empty)? region (\d+)", line):
            ends.setdefault(int(region), address)
        for region in re.findall(r"sbr\.rel .*?target = \$region(\d+)", line):
            branches.append((address, int(region)))
    regions = {(start, ends[r]) for start, r in branches if r in ends and ends[r] > start}
    return sorted(regions), address + 1


def _products(text: str) -> list[int]:
    """Matrix products that each bundle starts."""
    head = re.search(r"CAPAC\w+:\s*\n(.*)\n", text)
    if head is None:
        raise RuntimeError("the compiler's table of units has another form than expected.")
    column = [name.strip() for name in head[1].split(",")].index("MATMUL")
    rows = text.split("UTILIZATION:")[1].strip().splitlines()
    return [int(row.split()[column]) for row in rows if row.strip()]
