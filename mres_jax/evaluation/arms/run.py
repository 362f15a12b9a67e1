"""An evaluation from its run file to its summary: every arm asked, what is there already kept."""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mres_jax.config import EvalRun, to_json
from mres_jax.errors import MresError
from mres_jax.evaluation.arms.asking import Asker, Asking
from mres_jax.evaluation.arms.contestants import (
    Contestant,
    Entrant,
    files_digest,
    policies_of,
    warn_of_policies,
)
from mres_jax.evaluation.arms.folders import FORMAT, ArmFolder, to_bytes
from mres_jax.evaluation.arms.overview import OVERVIEW, overview_files
from mres_jax.evaluation.arms.results import RUN, ArmResult, read_arm
from mres_jax.evaluation.arms.tasks import EvalTask, open_task
from mres_jax.files import check_directory, write_together
from mres_jax.inference.show import file_stem
from mres_jax.interrupts import Stop
from mres_jax.protocols import Sampling

LOCK = ".lock"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArmName:
    """Which arm."""

    model: str
    task: str
    policy: str
    seed: int

    @property
    def folder(self) -> str:
        """Where it stands in the directory of its evaluation."""
        return f"{self.model}/{self.task}/{file_stem(self.policy)}-seed{self.seed}"


def run_evaluation(
    run: EvalRun,
    entrants: Mapping[str, Entrant],
    *,
    versions: Mapping[str, str],
    log: Callable[[str], None] = lambda line: None,
) -> list[ArmResult]:
    """Asks whatever is not answered yet, and returns all arms; none where a signal ended it.

    SIGTERM and Ctrl-C end it after the batch that is being asked; the same call goes on.

    Args:
      run: the evaluation.
      entrants: its models by name.
      versions: that answers depend on; an evaluation goes on under the same ones only.
      log: takes lines about what goes on.

    Raises:
      MresError: what is there is of another configuration; a task, a policy or a picture that
        cannot be used. What was answered before stays.
      RunError: the disk is full or refuses.
    """
    out = check_directory(run.out)
    policies = {
        name: policies_of(entrant, run.crossed_policies) for name, entrant in entrants.items()
    }
    tasks = {
        (i, seed): open_task(task, seed, limit=run.limit)
        for i, task in enumerate(run.tasks)
        for seed in run.seeds
    }
    arms = [
        ArmName(model=model, task=task.name, policy=policy, seed=seed)
        for model in entrants
        for (_, seed), task in tasks.items()
        for policy in policies[model]
    ]
    _check_folders(arms)
    with _alone(out), Stop("ending after this batch") as stop:
        for name, entrant in entrants.items():
            contestant = entrant.open()
            warn_of_policies(contestant, policies[name])
            askings = [
                _asking(run, contestant, run.tasks[i], task, seed, policies[name], versions, log)
                for (i, seed), task in tasks.items()
            ]
            for asking in askings:
                asking.begin()  # refuses before anything that is there is touched
            if name == next(iter(entrants)):
                _announce(run, arms)
            for asking in askings:
                asking.run(stopped=lambda: stop.asked is not None)
            if stop.asked:
                log(f"{run.name}: stopped by {stop.asked}; run it again and it goes on")
                return []
        results = [read_arm(run.name, out / arm.folder) for arm in arms]
        write_together(out, overview_files(run.name, results, root=out))
    return results


def _announce(run: EvalRun, arms: Sequence[ArmName]) -> None:
    """Writes what is going to be there; the overview of what was there before goes, all of it."""
    out = pathlib.Path(run.out)
    for name in OVERVIEW:
        (out / name).unlink(missing_ok=True)
    content = {"run": json.loads(to_json(run)), "arms": [arm.folder for arm in arms]}
    write_together(out, {RUN: to_bytes({"format": FORMAT, **content})})


def _sampling(run: EvalRun) -> Sampling:
    return Sampling(temperature=run.temperature, top_p=run.top_p, max_new_tokens=run.max_new_tokens)


def _asking(
    run: EvalRun,
    contestant: Contestant,
    source: Any,
    task: EvalTask,
    seed: int,
    policies: Sequence[str],
    versions: Mapping[str, str],
    log: Callable[[str], None],
) -> Asking:
    """One task, to be asked of one model under all its policies."""
    sampling = _sampling(run)
    identity = {
        "model": {"name": contestant.name, **contestant.identity},
        "task": {
            "name": task.name,
            "num_questions": task.num_questions,
            "questions_sha256": task.digest,
        },
        "seed": seed,
        "sampling": dataclasses.asdict(sampling) | {"stop": []},
        "suffix": run.suffix,
        "batch": run.batch,
        "versions": dict(versions),
    }
    made = {"source": contestant.source, "task": json.loads(to_json(source))}
    folders = {}
    for policy in policies:
        arm = ArmName(model=contestant.name, task=task.name, policy=policy, seed=seed)
        folders[policy] = ArmFolder(
            pathlib.Path(run.out) / arm.folder,
            identity | {"policy": policy, "policy_files_sha256": files_digest(policy)},
            made,
            num_questions=task.num_questions,
            batch=run.batch,
            questions=task.texts,
        )
    asker = Asker(contestant.answerer, contestant.spec, sampling, seed, run.suffix)
    return Asking(task, folders, asker, run.batch, log)


def _check_folders(arms: Sequence[ArmName]) -> None:
    folders = [arm.folder for arm in arms]
    for arm in arms:
        if folders.count(arm.folder) > 1:
            raise MresError(f"eval: two arms would be written to {arm.folder}. Leave one out.")


@contextlib.contextmanager
def _alone(out: pathlib.Path) -> Iterator[None]:
    """Lets one process write into a directory; it is free again however that one ends."""
    out.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with (out / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise MresError(f"eval {out}: another evaluation is writing there.") from None
        yield
