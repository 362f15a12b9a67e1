"""`mres_jax.load(...)`: a model that is asked with files and words."""

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, overload

import numpy as np
from jax.typing import DTypeLike
from PIL import Image, ImageOps

from mres_jax.data.images import decode_image
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.tokenizer import Tokenizer
from mres_jax.data.video import FrameSampling, is_clip, open_clip
from mres_jax.errors import BadImageError, ConfigError, MresError, PromptError
from mres_jax.inference.answer import LocalAnswerer
from mres_jax.inference.device import suitable_dtype
from mres_jax.models.registry import LoadedModel, load_adapter, load_model, resolve
from mres_jax.models.vlm import PackedVLM
from mres_jax.nn import use_int8
from mres_jax.protocols import Answer, Clip, Item, Request, Sampling

SHIPPED = "mres-tiny"
Picture = str | os.PathLike[str] | bytes | np.ndarray | Image.Image
Seen = Picture | Clip  # of a video, a path or its bytes will do


class VLM:
    """A vision-language model, ready to be asked.

    Attributes:
      name: what it was loaded as.
      answerer: answers many requests at once.
      facts: what was kept with the weights, for example what the model is made for.
      trained_policy: that its directory says it was trained with, of a mixture the main one; None
        where it does not say.
    """

    def __init__(
        self,
        name: str,
        answerer: LocalAnswerer,
        facts: Mapping[str, Any] | None = None,
        *,
        trained_policy: str | None = None,
    ):
        self.name, self.answerer, self.facts = name, answerer, dict(facts or {})
        self.trained_policy = trained_policy

    @property
    def model(self) -> PackedVLM:
        """The NNX module."""
        return self.answerer.model

    @property
    def spec(self) -> ProcessorSpec:
        """How pictures and text become its input."""
        return self.answerer.spec

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to ids and back."""
        return self.answerer.tokenizer

    @overload
    def answer(
        self,
        images: Seen | Sequence[Seen],
        question: str,
        *,
        policy: str | None = None,
        n: Literal[1] = 1,
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        seed: int = 0,
    ) -> Answer: ...

    @overload
    def answer(
        self,
        images: Seen | Sequence[Seen],
        question: str,
        *,
        policy: str | None = None,
        n: int,
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        seed: int = 0,
    ) -> Answer | list[Answer]: ...

    def answer(
        self,
        images: Seen | Sequence[Seen],
        question: str,
        *,
        policy: str | None = None,
        n: int = 1,
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        seed: int = 0,
    ) -> Answer | list[Answer]:
        """Answers one question.

        Args:
          images: one picture or clip, or several in the order of the prompt: paths, the bytes of
            files, `uint8 [h w 3]`, Pillow's, `Clip`. A video file is sampled as the model does, and
            so is a folder, which is a clip of its pictures; `data.video.open_clip` samples
            otherwise.
          question: the user's text. Control tokens typed in it stay text.
          policy: resolution policy, for example `budget:256`; None takes the model's own.
          n: answers; a list of them when not 1.
          max_new_tokens: of the answer.
          temperature: 0 is greedy.
          top_p: smallest probability that the kept tokens have together.
          top_k: tokens kept, 0 = all.
          seed: of drawn tokens.

        Raises:
          MresError: a bad picture, policy, prompt or number; one line that says what to do.
        """
        request = to_request(images, question, self.spec, policy=policy)
        try:
            sampling = Sampling(
                temperature=temperature, top_p=top_p, top_k=top_k, max_new_tokens=max_new_tokens
            )
        except ValueError as error:
            raise MresError(str(error)) from None
        (answers,) = self.answer_batch([request], n=n, sampling=sampling, seed=seed)
        return answers[0] if n == 1 else answers

    def answer_batch(
        self,
        requests: Sequence[Request],
        *,
        n: int = 1,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> list[list[Answer]]:
        """Answers many requests; see `mres_jax.protocols.Answerer`."""
        return self.answerer.answer(requests, n=n, sampling=sampling, seed=seed)


_SINGLE = (str, bytes, os.PathLike, np.ndarray, Image.Image, Clip)


def to_request(images: Any, question: Any, spec: ProcessorSpec, *, policy: str | None) -> Request:
    """Returns the request that `VLM.answer` makes of what it is given.

    Raises:
      BadImageError: no pictures; as `to_pixels`.
      BadVideoError: as `to_item`.
      PromptError: the question is no text.
    """
    if not isinstance(question, str):
        raise PromptError(f"answer: the question is {question!r}, and no text. Write it.")
    if not isinstance(images, (*_SINGLE, Iterable)):
        raise BadImageError(
            f"answer: images is {images!r}. Give a picture or clip, a list of them, or [] for none."
        )
    pictures = [images] if isinstance(images, _SINGLE) else list(images)
    items = [to_item(picture, spec, name=f"{i}") for i, picture in enumerate(pictures)]
    return Request(id="ask", images=items, question=question, policy=policy)


def to_item(
    seen: Seen,
    spec: ProcessorSpec,
    *,
    name: str,
    fps: float | None = None,
    max_frames: int | None = None,
) -> Item:
    """Returns what a model is asked about: a picture, or a clip sampled as the model does.

    Args:
      seen: a picture or a clip in any form, see `VLM.answer`.
      spec: of the model.
      name: what errors call a picture or clip that has no path.
      fps: frames per second of video instead of the model's; of a folder, those it was taken at.
      max_frames: of a clip, instead of the model's.

    Raises:
      BadImageError: as `to_pixels`.
      BadVideoError: a clip that cannot be read, or whose frames make none.
    """
    if isinstance(seen, np.ndarray | Image.Image) or not is_clip(seen):
        return to_pixels(seen, name=name)  # type: ignore[arg-type]
    sampling = FrameSampling.of(spec, fps=fps, max_frames=max_frames)
    return open_clip(seen, sampling, fps=sampling.fps)  # type: ignore[arg-type]


def to_pixels(picture: Picture, *, name: str) -> np.ndarray:
    """Returns `uint8 [h w 3]`, upright.

    Args:
      picture: a path, the bytes of a file, an array, or a picture of Pillow's.
      name: what errors call a picture that has no path.

    Raises:
      BadImageError: it cannot be decoded, or an array is not `uint8 [h w 3]`.
    """
    if isinstance(picture, Image.Image):
        return decode_image(_png(picture, name), name=name)
    if isinstance(picture, bytes):
        return decode_image(picture, name=name)
    if isinstance(picture, str | os.PathLike):
        return decode_image(picture)
    array = np.asarray(picture)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise BadImageError(
            f"picture {name}: an array of {array.dtype} {list(array.shape)}; give uint8 "
            "[height, width, 3], or a file."
        )
    return array


def from_loaded(name: str, loaded: LoadedModel, **options: Any) -> VLM:
    """Returns the handle of a model in memory; `options` are `LocalAnswerer`'s."""
    options = {"policy": loaded.policy or loaded.spec.default_policy} | options
    answerer = LocalAnswerer(loaded.model, loaded.spec, loaded.tokenizer, **options)
    return VLM(name, answerer, loaded.extra, trained_policy=loaded.policy)


def load(
    model: str | os.PathLike[str] | None = None,
    *,
    dtype: DTypeLike | None = None,
    adapter: str | os.PathLike[str] | None = None,
    weights: str | None = None,
    **options: Any,
) -> VLM:
    """Loads a model and returns its handle.

    Args:
      model: directory (of Hugging Face's layout or a checkpoint of ours) or a hub id
        `org/name[@revision]`; None takes the model that is shipped.
      dtype: of weights and arithmetic; None takes what suits the device, float32 on a CPU where
        it fits and for small models, bfloat16 otherwise.
      adapter: directory of low-rank adapters in `peft`'s format, put on the model.
      weights: `int8` rounds the kernels of linear layers once they are loaded, see `nn.Int8Linear`;
        None keeps them.
      **options: `policy`, `ladder`, `max_context` and `rows` of `LocalAnswerer`.

    Raises:
      CheckpointError: no such model, or a damaged one.
      ConfigError: other `weights`.

    Example:
      `mres_jax.load("Qwen2-VL-2B-Instruct").answer("bill.png", "What is the total?").text`
    """
    if weights not in (None, "int8"):
        raise ConfigError(
            f"load: no weights={weights!r}; 'int8' rounds them, None keeps them as they are."
        )
    name = SHIPPED if model is None else os.fspath(model)
    directory = resolve(model)
    if dtype is None:
        dtype = suitable_dtype(directory)
    loaded = load_model(directory, dtype=dtype)
    if adapter is not None:
        load_adapter(loaded.model, adapter, loaded.family.key_table(loaded.config))
    if weights == "int8":
        use_int8(loaded.model)
    return from_loaded(name, loaded, **options)


# Pillow's modes that a PNG holds, and what the others become; `I` and `F` have no fixed range.
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
_AS_MODES = {
    "La": "LA",
    "RGBa": "RGBA",
    "PA": "RGBA",
    **dict.fromkeys(("RGBX", "CMYK", "YCbCr", "HSV"), "RGB"),
}


def _png(picture: Image.Image, name: str) -> bytes:
    """A picture of Pillow's as a file, so that one decoder alone decides what is seen."""
    upright = ImageOps.exif_transpose(picture)
    if upright.mode in _AS_MODES:
        upright = upright.convert(_AS_MODES[upright.mode])
    elif upright.mode.startswith("I;16") and upright.mode != "I;16":  # Pillow would cut at 255
        upright = Image.fromarray(np.asarray(upright).astype("<u2"))
    if upright.mode not in _PNG_MODES:
        raise BadImageError(
            f"picture {name}: a Pillow picture of mode {upright.mode} has no range that is known "
            "to be black to white. Scale it to 0 to 255 and give it as L or RGB."
        )
    file = io.BytesIO()
    upright.save(file, "PNG", compress_level=0)
    return file.getvalue()
