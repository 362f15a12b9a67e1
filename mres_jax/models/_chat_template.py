"""Our templates as Jinja, for `apply_chat_template` of `transformers`."""

import re
from collections.abc import Callable

from mres_jax.data.conversations import ROLES
from mres_jax.data.spec import ChatTemplate

# One view per picture; `after_images` stands after the last picture of a turn if text follows it.
_JINJA = (
    "{{- @START@ }}",
    "{%- for message in messages %}",
    "{%- if loop.first and message['role'] != 'system' %}{{- @SYSTEM@ }}{%- endif %}",
    "{{- @ROLE@ }}",
    "{%- if message['role'] == 'assistant' %}{{- @OPEN@ }}{%- endif %}",
    "{%- if message['role'] != 'assistant' and (message['content'] is string or message['content']"
    "[0]['type'] != 'image') %}{{- @BEFORE@ }}{%- endif %}",
    "{%- if message['content'] is string %}{{- message['content'] }}{%- else %}",
    "{%- set turn = namespace(last=-1) %}",
    "{%- for part in message['content'] %}",
    "{%- if part['type'] == 'image' %}{%- set turn.last = loop.index0 %}{%- endif %}{%- endfor %}",
    "{%- for part in message['content'] %}",
    "{%- if part['type'] == 'image' %}{{- @VIEW@ }}",
    "{%- if loop.index0 == turn.last and not loop.last %}{{- @AFTER@ }}{%- endif %}",
    "{%- elif part['type'] == 'video' %}{{- @CLIP@ }}",
    "{%- elif part['type'] == 'text' %}{{- part['text'] }}",
    "{%- else %}{{- raise_exception('no place for a part of type ' ~ part['type']) }}",
    "{%- endif %}{%- endfor %}{%- endif %}",
    "{{- @CLOSE@ }}{%- endfor %}",
    "{%- if add_generation_prompt %}{{- @ANSWER@ }}{%- endif %}",
)


def chat_template(
    template: ChatTemplate, image: str, clip: str | None = None, *, is_bare: bool = False
) -> str:
    """Returns a template as Jinja.

    Args:
      template: ours.
      image: the placeholder of one view of a picture.
      clip: that of a whole clip; what its views take in the text is left to the processor. None
        where the model takes none: a part that is one is refused then.
      is_bare: whether a picture or clip is its placeholder alone, and the processor of
        `transformers` adds what stands around.
    """
    opening = _quoted(template.turn_open).replace("{role}", "' + message['role'] + '")
    closing = _quoted(template.turn_close)
    if template.roles:
        opening, closing = _by_role(template.opening), _by_role(template.closing)
    system = template.opening("system") + str(template.system) + template.closing("system")
    around = ("", "") if is_bare else (template.clip_open, template.clip_close)
    words = {
        "START": template.start and _quoted(template.start),
        "ROLE": opening,
        "OPEN": template.answer_open and _quoted(template.answer_open),
        "ANSWER": _quoted(template.opening("assistant")),
        "SYSTEM": template.system is not None and _quoted(system),
        "VIEW": _quoted(image if is_bare else template.image_open + image + template.image_close),
        "CLIP": clip and _quoted(clip.join(around)),
        "AFTER": _quoted(template.after_images),
        "BEFORE": template.before_text and _quoted(template.before_text),
        "CLOSE": closing,
    }
    absent = [f"@{name}@" for name, text in words.items() if not text]
    parts = [part for part in _JINJA if not any(name in part for name in absent)]
    return re.sub(r"@(\w+)@", lambda match: str(words[match[1]]), "".join(parts)) + "\n"


def _by_role(text: Callable[[str], str]) -> str:
    """A Jinja expression for what depends on the role of a message."""
    table = ", ".join(f"'{role}': {_quoted(text(role))}" for role in ROLES)
    return f"{{{table}}}[message['role']]"


def _quoted(text: str) -> str:
    """A Jinja string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"
