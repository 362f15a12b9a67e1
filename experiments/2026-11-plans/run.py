"""Plans the recipes on slices that are not here, one compile after the other, into results.csv.

python experiments/2026-11-plans/run.py [--only TEXT] [--list]

Needs the TPU compiler (`pip install 'mres-jax[aot]'`). What stands in the file is not done again,
so a run that was cut short goes on.
"""

import argparse
import csv
import json
import pathlib
import shlex
import subprocess
import sys
from typing import Any, NamedTuple

HERE = pathlib.Path(__file__).parent
RESULTS = HERE / "results.csv"
MRES = "import sys; from mres_jax.cli import main; sys.exit(main())"
GB = 1e9
RECIPES = {
    "NativeRes-LLaVA 7B stage 2": "configs/nativeres_llava/stage2.py",
    "LLaVA-HR-7B stage 2": "configs/llava_hr/stage2.py",
    "Qwen2.5-VL-7B whole": "configs/qwen2_5_vl/full.py",
    "Qwen2.5-VL-7B LoRA": "configs/qwen2_5_vl/lora.py",
    "Qwen3-VL-8B whole": "configs/qwen3_vl/full.py",
}
STAGE1 = {
    "NativeRes-LLaVA 7B stage 1": "configs/nativeres_llava/stage1.py",
    "LLaVA-HR-7B stage 1": "configs/llava_hr/stage1.py",
}
SCALED = "Qwen2.5-VL-7B whole"
OTHERS = (("v5p-1024", 32, 16), ("v6e-256", 16, 16))


class Cell(NamedTuple):
    """One plan: a recipe on a slice."""

    recipe: str
    file: str
    topology: str
    data: int
    fsdp: int

    @property
    def command(self) -> list[str]:
        """Arguments of `mres`; as many packs for a chip on every slice."""
        packs = self.data * self.fsdp
        if "llava_hr/stage2" in self.file:
            packs *= 8
        return [
            *("plan", self.file, "--topology", self.topology, "--phase", "train"),
            *(f"--mesh.data={self.data}", f"--mesh.fsdp={self.fsdp}", f"--accumulation={packs}"),
        ]


def cells() -> list[Cell]:
    """The recipes where they are at home, weak scaling, larger slices, first stages."""
    found = [Cell(n, f, "gpu:h200x8", 1, 8) for n, f in RECIPES.items()]
    found += [Cell(n, f, "v5e-16", 1, 16) for n, f in RECIPES.items()]
    found += [Cell(SCALED, RECIPES[SCALED], f"v5e-{n}", n // 16, 16) for n in (256, 64, 32, 128)]
    for topology, data in (("v5p-1024", 32), ("v6e-256", 16), ("v5e-256", 16)):
        found += [Cell(n, f, topology, data, 16) for n, f in RECIPES.items() if n != SCALED]
    found += [Cell(SCALED, RECIPES[SCALED], f"v5e-{n}", 1, n) for n in (256, 64)]
    found += [Cell(SCALED, RECIPES[SCALED], *rest) for rest in OTHERS]
    found += [Cell(n, f, "v5e-16", 1, 16) for n, f in STAGE1.items()]
    return found


def row(cell: Cell, plan: dict[str, Any]) -> dict[str, Any]:
    """A line of the table; GB and s of one chip."""
    memory, seconds = plan["memory"], plan["seconds"]
    sizes = ("parameters", "optimiser", "packs", "activations", "other", "total", "limit")
    return {
        "recipe": cell.recipe,
        "topology": plan["slice_name"],
        "chips": plan["chips"],
        "hosts": plan["hosts"],
        "mesh": " ".join(f"{name}={size}" for name, size in plan["mesh"].items() if size > 1),
        "packs": plan["packs_per_step"],
        "patches": plan["rung"][0],
        "tokens": plan["rung"][1],
        **{f"{name} GB": _digits(memory[name], GB) for name in sizes},
        "fits": plan["fits"],
        "model FLOPs": _digits(plan["model_flops"]),
        "device FLOPs": _digits(plan["device_flops"]),
        "sent GB": _digits(sum(plan["sent"].values()), GB) if seconds else "",
        "sent": "; ".join(f"{k}: {v / GB:.3f}" for k, v in sorted(plan["sent"].items())),
        **{f"{name} s": _digits(seconds.get(name)) for name in ("products", "memory", "exchanges")},
        "step s": _digits(plan["step_s"]),
        "mfu": _digits(plan["mfu"]),
        "compile s": _digits(plan["compile_s"]),
        "proposals": "; ".join(plan["proposals"]),
        "command": shlex.join(["mres", *cell.command]),
    }


def _digits(value: float | None, unit: float = 1.0) -> str:
    return "" if value is None else f"{value / unit:.4g}"


def main() -> None:
    """Plans what is not in the file yet."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="text that the command must have")
    parser.add_argument("--list", action="store_true", help="print the commands, plan nothing")
    args = parser.parse_args()
    done = []
    if RESULTS.exists():
        with RESULTS.open() as file:
            done = list(csv.DictReader(file))
    known = {line["command"] for line in done}
    for cell in cells():
        command = shlex.join(["mres", *cell.command])
        if args.only not in command or command in known:
            continue
        print(command, flush=True)
        if args.list:
            continue
        ran = subprocess.run(
            [sys.executable, "-c", MRES, *cell.command, "--json"],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if ran.returncode:
            continue  # the command has said why
        line = row(cell, json.loads(ran.stdout))
        is_new = not RESULTS.exists()
        with RESULTS.open("a", newline="") as file:
            writer = csv.DictWriter(file, line, lineterminator="\n")
            if is_new:
                writer.writeheader()
            writer.writerow(line)
        print({k: line[k] for k in ("total GB", "fits", "step s", "mfu", "compile s")}, flush=True)


if __name__ == "__main__":
    main()
