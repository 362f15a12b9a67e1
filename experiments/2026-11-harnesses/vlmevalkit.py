"""VLMEvalKit's wrapper of OpenAI's protocol, from a checkout, without its other models.

It is on no package index. Its package imports every model it knows, so only the two files that are
needed are imported here; they need `validators` and `sty` beside what lmms-eval brings.

Its wrapper sends every picture as a JPEG, and enlarges those under 100 px a side. What the model is
shown is therefore another picture than the file, and the same question has to be asked about that.
"""

import base64
import importlib
import pathlib
import sys
import types
from typing import Any


def open_wrapper(checkout: pathlib.Path, url: str, model: str, length: int) -> Any:
    """Its `OpenAIWrapper` on a server."""
    for name, folder in (("vlmeval", "vlmeval"), ("vlmeval.api", "vlmeval/api")):
        package = types.ModuleType(name)
        package.__path__ = [str(checkout / folder)]
        sys.modules[name] = package
    wrapper = importlib.import_module("vlmeval.api.gpt").OpenAIWrapper
    options = {"api_base": f"{url}/chat/completions", "key": "none", "retry": 1}
    return wrapper(model=model, temperature=0, max_tokens=length, **options)


def ask(wrapper: Any, rows: list[dict], folder: pathlib.Path) -> dict[str, str]:
    """The answer to each row, asked as VLMEvalKit's datasets ask."""
    answers = {}
    for row in rows:
        picture = {"type": "image", "value": str(folder / row["images"][0])}
        parts = [picture, {"type": "text", "value": row["question"]}]
        code, text, _ = wrapper.generate_inner(parts)
        if code:
            raise SystemExit(f"{row['id']}: VLMEvalKit's wrapper failed with {code}: {text}")
        answers[row["id"]] = text.strip()
    return answers


def as_sent(wrapper: Any, rows: list[dict], folder: pathlib.Path) -> list[dict]:
    """The rows about the pictures that the wrapper sends, taken from its own messages."""
    sent = []
    for row in rows:
        parts = wrapper.prepare_itlist([{"type": "image", "value": str(folder / row["images"][0])}])
        _, _, content = parts[0]["image_url"]["url"].partition(",")
        name = pathlib.Path(row["images"][0]).with_suffix(".jpg").name
        (folder / name).write_bytes(base64.b64decode(content))
        sent.append(row | {"images": [name]})
    return sent
