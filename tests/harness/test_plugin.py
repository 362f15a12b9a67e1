"""The entry point, against a stand-in for lmms-eval with its own base class and records."""

import abc
import dataclasses
import importlib.metadata
import pathlib
import sys
import tomllib
import types

import pytest

from mres_jax.errors import MresError
from mres_jax.harness import plugin

ROOT = pathlib.Path(__file__).parents[2]


class Lmms(abc.ABC):
    """What a model of lmms-eval has to be."""

    is_simple = True

    def __init__(self):
        self.task_dict = {}

    @abc.abstractmethod
    def generate_until(self, requests): ...

    @abc.abstractmethod
    def generate_until_multi_round(self, requests): ...

    @abc.abstractmethod
    def loglikelihood(self, requests): ...


@dataclasses.dataclass
class TokenCounts:
    input_tokens: int | None = None
    output_tokens: int | None = None

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)


@dataclasses.dataclass
class GenerationResult:
    text: str
    token_counts: TokenCounts | None = None


@dataclasses.dataclass
class ModelManifest:
    model_id: str
    chat_class_path: str


@pytest.fixture
def lmms_eval(monkeypatch):
    modules = {
        "lmms_eval": {},
        "lmms_eval.api": {},
        "lmms_eval.models": {},
        "lmms_eval.api.model": {"lmms": Lmms},
        "lmms_eval.api.instance": {
            "TokenCounts": TokenCounts,
            "GenerationResult": GenerationResult,
        },
        "lmms_eval.models.registry_v2": {"ModelManifest": ModelManifest},
    }
    for name, content in modules.items():
        module = types.ModuleType(name)
        vars(module).update(content, __path__=[])
        monkeypatch.setitem(sys.modules, name, module)
    plugin._chat_class.cache_clear()
    yield
    plugin._chat_class.cache_clear()


def test_the_entry_point_leads_to_a_chat_model_of_the_harness(lmms_eval):
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (entry,) = tables["project"]["entry-points"]["lmms_eval.models"].items()
    point = importlib.metadata.EntryPoint(*entry, group="lmms_eval.models")
    manifest = point.load()()
    module, _, name = manifest.chat_class_path.rpartition(".")
    model = getattr(importlib.import_module(module), name)
    assert manifest.model_id == "mres_jax"
    assert issubclass(model, Lmms)
    assert model.is_simple is False


def test_answers_carry_token_counts_and_what_was_looked_at(lmms_eval, vlm, ask, documents):
    model = plugin.MResChat(vlm=vlm, max_new_tokens=3, batch_size="1")
    model.task_dict = {"toy": {"test": documents}}
    (result,) = model.generate_until([ask(0)])
    assert isinstance(result, GenerationResult)
    assert result.token_counts is not None
    logged = result.token_counts.to_dict()
    assert logged["input_tokens"] == logged["visual_tokens"] + logged["text_tokens"]
    assert logged["views"][0]["tokens"] == logged["visual_tokens"]
    assert logged["output_tokens"] <= 3


def test_what_it_cannot_do_is_named_with_the_task(lmms_eval, vlm, ask):
    model = plugin.MResChat(vlm=vlm)
    with pytest.raises(MresError, match=r"toy weighs given answers"):
        model.loglikelihood([ask(0)])
    with pytest.raises(MresError, match=r"toy asks in several rounds"):
        model.generate_until_multi_round([ask(0)])


def test_the_plugin_can_be_imported_without_lmms_eval():
    with pytest.raises(AttributeError, match="no attribute 'Chat'"):
        _ = plugin.Chat
    with pytest.raises(ModuleNotFoundError, match="lmms_eval"):
        plugin.manifest()
