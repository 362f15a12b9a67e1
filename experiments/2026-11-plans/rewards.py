"""Plans training by rewards on slices that are not here, into rewards.csv.

python experiments/2026-11-plans/rewards.py [--only TEXT]

Needs the TPU compiler (`pip install 'mres-jax[aot]'`) and no weights: the backbone is its
configuration alone. What stands in the file is not done again.
"""

import argparse
import csv
import json
import pathlib
import shlex
import subprocess
import sys

from mres_jax.models.qwen2_5_vl.config import qwen2_5_vl
from mres_jax.models.registry import family_of

HERE = pathlib.Path(__file__).parent
RESULTS = HERE / "rewards.csv"
BACKBONE = pathlib.Path("runs/plans/qwen2.5-vl-7b")
MRES = "import sys; from mres_jax.cli import main; sys.exit(main())"
GB = 1e9
CELLS = {  # name -> options
    "frozen backbone, 128 frames": ("configs/resadapt/paper.py", "--topology", "v6e-32"),
    "joint, 64 frames": ("configs/resadapt/joint.py", "--topology", "v5e-32"),
    "joint, 64 frames, gathered once": (
        "configs/resadapt/joint.py",
        *("--topology", "v5e-32", "--gather_for_answers=True"),
    ),
    "joint, 64 frames, gathered once, tensor of 4": (
        "configs/resadapt/joint.py",
        *("--topology", "v5e-32", "--gather_for_answers=True"),
        *("--mesh.fsdp=8", "--mesh.tensor=4"),
    ),
}


def rows_of(name: str, options: tuple[str, ...], plan: dict) -> list[dict]:
    """A row for each part of a step, and one for the step."""
    command = shlex.join(["mres", "plan", *options])
    found = []
    for phase in plan["phases"].values():
        memory, seconds = phase["memory"], phase["seconds"]
        found.append(
            {
                "run": name,
                "topology": plan["topology"],
                "part": phase["name"],
                "contents": phase["contents"],
                "times": phase["times"],
                "parameters GB": round(memory["parameters"] / GB, 3),
                "optimiser GB": round(memory["optimiser"] / GB, 3),
                "inputs GB": round(memory["packs"] / GB, 3),
                "temporaries GB": round(memory["other"] / GB, 3),
                "spare GB": round(memory["spare"] / GB, 3),
                **{f"{part} s": round(value, 4) for part, value in seconds.items()},
                "sent GB": round(sum(phase["sent"].values()) / GB, 2),
                "command": command,
            }
        )
    whole = {"part": "step", "contents": f"{plan['rollouts']} answers, {plan['prompt']}"}
    whole |= {"times": plan["steps"], "step s": plan["step_s"], "hours": plan["hours"]}
    whole |= {"compile s": round(plan["compile_s"]), "command": command}
    return [*found, {"run": name, "topology": plan["topology"], **whole}]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default="", help="cells whose name has this in it")
    args = parser.parse_args()
    config = qwen2_5_vl("7b")
    BACKBONE.mkdir(parents=True, exist_ok=True)
    content = json.dumps(family_of(config).config_to_hf(config))
    (BACKBONE / "config.json").write_text(content)
    done: list[dict] = []
    if RESULTS.is_file():
        done = list(csv.DictReader(RESULTS.open(newline="")))
    for name, options in CELLS.items():
        if args.only not in name or any(row["run"] == name for row in done):
            continue
        command = [*options, f"--backbone={BACKBONE}", "--json"]
        print(name, shlex.join(["mres", "plan", *command]), flush=True)
        said = subprocess.run(
            [sys.executable, "-c", MRES, "plan", *command], stdout=subprocess.PIPE, check=True
        )
        done += rows_of(name, options, json.loads(said.stdout))
        names = list(dict.fromkeys(key for row in done for key in row))
        with RESULTS.open("w", newline="") as file:
            writer = csv.DictWriter(file, names, lineterminator="\n")
            writer.writeheader()
            writer.writerows(done)


if __name__ == "__main__":
    main()
