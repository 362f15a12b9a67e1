"""What a user calls a model -> a directory: a path, a hub id, or the name of a shipped model."""

import errno
import os
import pathlib
import re

from etils import epath

from mres_jax.errors import CheckpointError, RunError

SHIPPED = ("mres-tiny",)
# No code, no pickles: what these names hold is read as data.
DESCRIBING = ("*.json", "tokenizer*", "*.jinja", "*.txt")
ALLOWED = ("*.safetensors", *DESCRIBING)
_HUB_ID = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def shipped_directory(name: str = SHIPPED[0]) -> pathlib.Path:
    """Where a shipped model lies in this installation.

    Raises:
      CheckpointError: the installation came without it.
    """
    path = pathlib.Path(__file__).parent / "shipped" / name.replace("-", "_")
    if not (path / "config.json").is_file():
        raise CheckpointError(
            f"{name}: its weights are not part of this installation ({path} is missing). Install "
            "the package again, or name a model directory or a hub id org/name."
        )
    return path


def resolve(
    model: str | os.PathLike[str] | None = None, *, weights: bool = True
) -> pathlib.Path | epath.Path:
    """Returns the directory of a model; one from the hub is fetched or taken from its cache.

    Args:
      model: a directory (`gs://` too), a hub id `org/name[@revision]`, `mres-tiny`, or None for
        the last.
      weights: whether these are wanted; without them little is fetched.

    Raises:
      CheckpointError: there is no such model, or the hub cannot be reached; says what to do.
    """
    text = SHIPPED[0] if model is None else str(os.fspath(model))
    if text in SHIPPED:
        return shipped_directory(text)
    if re.match(r"https?://", text):
        raise CheckpointError(f"{text}: is the address of a server, not a model directory.")
    if "://" in text:
        try:
            return epath.Path(text)
        except KeyError:  # what it raises for a scheme without a backend
            raise CheckpointError(
                f"{text}: no storage of that kind is read; have gs:// and s3://, a directory, or a "
                "hub id org/name[@revision]."
            ) from None
    path = pathlib.Path(text).expanduser()
    if path.exists():
        return path
    match = _HUB_ID.fullmatch(text)
    if match is None:
        raise CheckpointError(
            f"{text}: no such directory, and not a hub id org/name[@revision] or {SHIPPED[0]}."
        )
    return _fetch(match["repo"], match["revision"], [*(ALLOWED if weights else DESCRIBING)])


def _fetch(repo: str, revision: str | None, patterns: list[str]) -> pathlib.Path:
    """Downloads one commit of a repository, or takes it from the cache when there is no network."""
    import huggingface_hub
    from huggingface_hub import errors as hub

    name = f"{repo}@{revision}" if revision else repo
    try:
        commit = revision if revision and _COMMIT.fullmatch(revision) else None
        if commit is None:
            commit = huggingface_hub.HfApi().model_info(repo, revision=revision, timeout=10).sha
        return pathlib.Path(
            huggingface_hub.snapshot_download(repo, revision=commit, allow_patterns=patterns)
        )
    except hub.GatedRepoError as error:
        raise CheckpointError(
            f"{name}: its licence must be accepted on huggingface.co, then `hf auth login`."
        ) from error
    except hub.RevisionNotFoundError as error:
        raise CheckpointError(f"{name}: the repository has no such revision.") from error
    except hub.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{name}: no such directory here and no such repository on the hub (or it is private)."
        ) from error
    except Exception as error:  # no network has many names: the client's, the hub's, the system's
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(f"{name}: {error.strerror} while downloading. Free space.") from error
        return _from_cache(repo, revision, patterns, name, error)


def _from_cache(
    repo: str, revision: str | None, patterns: list[str], name: str, why: Exception
) -> pathlib.Path:
    import huggingface_hub

    try:
        return pathlib.Path(
            huggingface_hub.snapshot_download(
                repo, revision=revision, allow_patterns=patterns, local_files_only=True
            )
        )
    except Exception as error:
        raise CheckpointError(
            f"{name}: no such directory here, not in the cache, and the hub cannot be reached "
            f"({type(why).__name__}). Where there is a network run `hf download {repo}` and give "
            "the directory that it prints."
        ) from error
