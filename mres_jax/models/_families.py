"""The families of models, each imported when it is first asked for."""

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from mres_jax.data.spec import ProcessorSpec
from mres_jax.errors import CheckpointError, suggest
from mres_jax.models.key_table import KeyTable
from mres_jax.models.vlm import PackedVLM


@dataclasses.dataclass(frozen=True)
class Family:
    """One family of models; its modules are imported when they are first asked for.

    Attributes:
      model_type: as in `config.json`.
      package: with `config`, `model`, `processor` and `convert`.
      model_name: class in `package.model`.
      config_name: class in `package.config`.
    """

    model_type: str
    package: str
    model_name: str
    config_name: str

    @property
    def Model(self) -> type[PackedVLM]:
        """The class of the assembled model."""
        return getattr(self._module("model"), self.model_name)

    def make_spec(self, config: Any, *args: Any, **kwargs: Any) -> ProcessorSpec:
        """See `make_spec` of the family's processor."""
        return self._module("processor").make_spec(config, *args, **kwargs)

    def preprocessor_to_hf(self, spec: ProcessorSpec) -> dict[str, Any] | None:
        """Contents of a `preprocessor_config.json`; None of families with pixel limits alone."""
        make = getattr(self._module("processor"), "preprocessor_to_hf", None)
        return make(spec) if make else None

    def processor_to_hf(self, spec: ProcessorSpec) -> dict[str, Any] | None:
        """Contents of a `processor_config.json`, for families whose processor needs one."""
        make = getattr(self._module("processor"), "processor_to_hf", None)
        return make(spec) if make else None

    def config_from_hf(
        self, content: Mapping[str, Any], preprocessor: Mapping[str, Any] | None = None
    ) -> Any:
        """Configuration out of the contents of a `config.json`."""
        return self._module("convert").config_from_hf(content, preprocessor)

    def config_to_hf(self, config: Any) -> dict[str, Any]:
        """Contents of a `config.json`."""
        return self._module("convert").config_to_hf(config)

    def key_table(self, config: Any) -> KeyTable:
        """File keys of the parameters."""
        return self._module("convert").key_table(config)

    @property
    def architecture(self) -> str:
        """Class of the assembled model in Hugging Face's files."""
        return self._module("convert").ARCHITECTURE

    @property
    def processor_class(self) -> str:
        """Class of its processor there."""
        return self._module("convert").PROCESSOR

    def check_export(self, config: Any) -> None:
        """Raises `CheckpointError` for a variant that the Hugging Face family does not have."""
        self._module("convert").check_export(config)

    def skeleton(self, config: Any, *, dtype: DTypeLike = jnp.float32) -> PackedVLM:
        """The model with shapes in place of arrays."""
        make: Any = self.Model  # each family narrows `config`
        return nnx.eval_shape(lambda: make(config, dtype=dtype, rngs=nnx.Rngs(0)))

    def _module(self, name: str) -> Any:
        return importlib.import_module(f"{self.package}.{name}")


FAMILIES: Mapping[str, Family] = {
    family.model_type: family
    for family in (
        Family("qwen2_vl", "mres_jax.models.qwen2_vl", "Qwen2VL", "Qwen2VLConfig"),
        Family("qwen2_5_vl", "mres_jax.models.qwen2_5_vl", "Qwen2_5VL", "Qwen2_5VLConfig"),
        Family("qwen3_vl", "mres_jax.models.qwen3_vl", "Qwen3VL", "Qwen3VLConfig"),
        Family(
            "llava_qwen",
            "mres_jax.models.nativeres_llava",
            "NativeResLlava",
            "NativeResLlavaConfig",
        ),
        Family("llava", "mres_jax.models.llava", "Llava", "LlavaConfig"),
        Family("llava_next", "mres_jax.models.llava_next", "LlavaNext", "LlavaNextConfig"),
        Family("llava_hr", "mres_jax.models.llava_hr", "LlavaHR", "LlavaHRConfig"),
        Family("smolvlm", "mres_jax.models.smolvlm", "SmolVLM", "SmolVLMConfig"),
    )
}


def family_of(config: Any) -> Family:
    """The family of a configuration object."""
    for family in FAMILIES.values():
        if type(config).__name__ == family.config_name:
            return family
    raise CheckpointError(f"{type(config).__name__} is not the configuration of a known family.")


def family_in(content: Mapping[str, Any], where: Any) -> Family:
    """The family of the contents of a `config.json`.

    LLaVA-HR calls itself `llava`, as LLaVA does; its own fields tell them apart.

    Raises:
      CheckpointError: there is none; names the nearest.
    """
    name = content.get("model_type")
    if name in ("llava", "llava_llama"):
        name = "llava_hr" if content.get("is_multipath_encoder") else "llava"
    return family_named(name, where)


def family_named(model_type: Any, where: Any) -> Family:
    """The family of a `model_type`.

    Raises:
      CheckpointError: there is none; names the nearest.
    """
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    hint = suggest(str(model_type), FAMILIES)
    raise CheckpointError(
        f"{where}: model_type {model_type!r} is not supported{hint}; have {', '.join(FAMILIES)}."
    )
