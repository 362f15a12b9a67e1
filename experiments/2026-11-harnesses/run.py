"""One model, the same questions, three ways: lmms-eval, `mres eval`, `mres serve` with a client.

    make harnesses      # sets up .venv-lmms with lmms-eval and the openai client, then runs this

Offline. The questions are HR-Bench and ScreenSpot-Pro in their released form, made here from
generated documents; lmms-eval reads them by task files of `mres_jax.harness`. Ends with an error
unless all answers are the same, letter for letter. With `--vlmevalkit DIR`, a checkout of
VLMEvalKit, its wrapper asks the server too, see `vlmevalkit.py`.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from typing import Any

import openai
import vlmevalkit
from samples import Copies, make_copies

from mres_jax.data.wire import data_url
from mres_jax.evaluation.benchmarks import load_hr_bench, load_screenspot_pro
from mres_jax.harness import write_task_files

BIN = pathlib.Path(sys.executable).parent
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "JAX_PLATFORMS": "cpu"}
LETTER = "Answer the option letter directly."  # lmms-eval's prompts
POINT = (
    "Identify the UI element for the instruction and output exactly one click point as [x, y] in "
    "normalized coordinates within [0, 1]. Do not output a bounding box.\nInstruction: "
)
Answers = dict[str, str]


def questions(copies: Copies, out: pathlib.Path) -> list[dict[str, Any]]:
    """The questions as rows of `mres eval`, with the texts that lmms-eval asks."""
    rows = []
    for number, row in enumerate(load_hr_bench(copies.hr_bench)):
        (picture,) = row.pictures
        assert isinstance(picture, bytes)
        file = out / f"hr-{number}.png"
        file.write_bytes(picture)
        text = f"{row.prompt.strip()}\n{LETTER}"
        rows.append({"id": f"hr-{number}", "images": [file.name], "question": text})
    for number, row in enumerate(load_screenspot_pro(copies.screens)):
        (picture,) = row.pictures
        file = out / f"screen-{number}.png"
        file.write_bytes(pathlib.Path(str(picture)).read_bytes())
        text = POINT + row.question
        rows.append({"id": f"screen-{number}", "images": [file.name], "question": text})
    return rows


def by_lmms_eval(copies: Copies, out: pathlib.Path, policy: str, length: int) -> Answers:
    """The plug-in, found by its entry point; what the model wrote, before places are rewritten."""
    names = write_task_files(
        out / "tasks",
        {"hrbench4k": str(copies.hr_bench), "screenspot_pro": str(copies.screens)},
    )
    words = ["eval", "--model", "mres_jax", "--tasks", ",".join(names), "--batch_size", "16"]
    words += ["--model_args", f'policy="{policy}",max_new_tokens={length}', "--log_samples"]
    words += ["--gen_kwargs", f"max_new_tokens={length}"]
    words += ["--include_path", str(out / "tasks"), "--output_path", str(out / "lmms")]
    home = {"HF_HOME": str(out / "home")}
    subprocess.run([BIN / "lmms-eval", *words], check=True, env=os.environ | OFFLINE | home)
    answers = {}
    for name, short in zip(names, ("hr", "screen"), strict=True):
        (file,) = (out / "lmms").rglob(f"*samples_{name}.jsonl")
        for sample in map(json.loads, file.read_text().splitlines()):
            (facts,) = sample["token_counts"]
            said = facts.get("model_text", sample["filtered_resps"])
            answers[f"{short}-{sample['doc_id']}"] = said.strip()
    return answers


def by_mres_eval(
    rows: list[dict], out: pathlib.Path, policy: str, length: int, name: str = "eval"
) -> Answers:
    """`mres eval` on a file of questions; nobody scores, so any answer is said to be right."""
    lines = (json.dumps(row | {"answer": "?", "metric": "anls"}) + "\n" for row in rows)
    (out / f"{name}.jsonl").write_text("".join(lines))
    words = ["eval", str(out / f"{name}.jsonl"), "-o", str(out / name), "-p", policy]
    words += ["--max-new-tokens", str(length)]
    subprocess.run([BIN / "mres", *words], check=True, env=os.environ | OFFLINE)
    (file,) = (out / name).rglob("samples.jsonl")
    samples = map(json.loads, file.read_text().splitlines())
    return {sample["id"]: sample["prediction"] for sample in samples}


def by_loader(copies: Copies, out: pathlib.Path, policy: str, length: int) -> Answers:
    """`mres eval` on HR-Bench's own table, with lmms-eval's last line behind each question."""
    (out / "hr.py").write_text(
        "from mres_jax.config import Benchmark, EvalRun\n\n\ndef get_config():\n"
        f"    task = Benchmark(name='hrbench4k', path={str(copies.hr_bench)!r})\n"
        f"    return EvalRun(name='hr', out={str(out / 'loader')!r}, tasks=(task,), "
        f"policies=({policy!r},), suffix={chr(10) + LETTER!r}, max_new_tokens={length})\n"
    )
    subprocess.run([BIN / "mres", "eval", out / "hr.py"], check=True, env=os.environ | OFFLINE)
    (file,) = (out / "loader").rglob("samples.jsonl")
    samples = map(json.loads, file.read_text().splitlines())
    return {f"hr-{sample['id']}": sample["prediction"] for sample in samples}


@contextlib.contextmanager
def served(policy: str) -> Iterator[str]:
    """The address of `mres serve`, while it runs."""
    words = [BIN / "mres", "serve", "--port", "0", "--policy", policy, "--quiet"]
    env = os.environ | OFFLINE | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=env) as server:
        try:
            assert server.stdout is not None
            found = re.search(r"http://\S+", server.stdout.readline())
            if found is None:
                raise SystemExit("mres serve did not start.")
            yield found[0]
        finally:
            server.terminate()


def by_client(rows: list[dict], out: pathlib.Path, url: str, length: int) -> Answers:
    """The `openai` client."""
    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=600)
    model = client.models.list().data[0].id
    answers = {}
    for row in rows:
        picture = data_url((out / row["images"][0]).read_bytes())
        parts = [
            {"type": "image_url", "image_url": {"url": picture}},
            {"type": "text", "text": row["question"]},
        ]
        reply = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": parts}],  # type: ignore[typeddict-item]
            max_tokens=length,
            temperature=0,
        )
        answers[row["id"]] = (reply.choices[0].message.content or "").strip()
    with urllib.request.urlopen(url.removesuffix("/v1") + "/health", timeout=60) as health:
        assert json.load(health)["answered"] == len(rows)
    return answers


def by_vlmevalkit(
    checkout: pathlib.Path | None, rows: list[dict], out: pathlib.Path, url: str, length: int
) -> tuple[list[dict], Answers]:
    """Its wrapper, and the rows about the pictures that it sends; nothing without a checkout."""
    if checkout is None:
        return [], {}
    with urllib.request.urlopen(f"{url}/models", timeout=60) as models:
        name = json.load(models)["data"][0]["id"]
    wrapper = vlmevalkit.open_wrapper(checkout, url, name, length)
    return vlmevalkit.as_sent(wrapper, rows, out), vlmevalkit.ask(wrapper, rows, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", default="budget:64")
    parser.add_argument("--questions", type=int, default=10, help="of HR-Bench, four cycles each")
    parser.add_argument("--elements", type=int, default=24, help="of ScreenSpot-Pro")
    parser.add_argument("--length", type=int, default=24, help="tokens of an answer at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vlmevalkit", type=pathlib.Path, help="a checkout of it")
    parser.add_argument("--keep", help="directory for everything; else a temporary one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        out = pathlib.Path(args.keep or temporary).absolute()
        out.mkdir(parents=True, exist_ok=True)
        numbers = {"questions": args.questions, "elements": args.elements, "seed": args.seed}
        copies = make_copies(out, **numbers)
        rows = questions(copies, out)
        ways = {"mres eval": by_mres_eval(rows, out, args.policy, args.length)}
        loaded = by_loader(copies, out, args.policy, args.length)
        ways["its loader"] = ways["mres eval"] | loaded
        ways["lmms-eval"] = by_lmms_eval(copies, out, args.policy, args.length)
        with served(args.policy) as url:
            ways["openai client"] = by_client(rows, out, url, args.length)
            sent, theirs = by_vlmevalkit(args.vlmevalkit, rows, out, url, args.length)
        bad = compare(rows, ways, args.policy)
        if sent:
            ours = by_mres_eval(sent, out, args.policy, args.length, "sent")
            pair = {"mres eval": ours, "VLMEvalKit (pictures as it sends them)": theirs}
            bad |= compare(sent, pair, args.policy)
            changed = sum(theirs[id] != text for id, text in ways["mres eval"].items())
            print(f"VLMEvalKit's JPEG changes {changed} of {len(rows)} answers")
        sys.exit(bad)


def compare(rows: list[dict], ways: dict[str, Answers], policy: str) -> int:
    """Prints what differs; 1 where something does."""
    bad = 0
    for row in rows:
        said = {way: answers.get(row["id"]) for way, answers in ways.items()}
        if len(set(said.values())) > 1 or None in said.values():
            bad += 1
            print(f"{row['id']}: {said}")
    kinds = len(set(ways["mres eval"].values()))
    print(
        f"{len(rows)} cases under {policy} by {', '.join(ways)}: {len(rows) - bad} the same "
        f"letter for letter ({kinds} different texts), {bad} not"
    )
    return int(bad > 0)


if __name__ == "__main__":
    main()
