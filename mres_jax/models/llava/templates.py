"""How LLaVA's conversations are written."""

import dataclasses
from collections.abc import Callable

from mres_jax.data.spec import ChatTemplate
from mres_jax.errors import CheckpointError

# `vicuna_v1` of LLaVA. Between the control tokens and the picture everything is one text: the
# pieces of a sentence-piece vocabulary depend on what stands before them.
VICUNA_V1 = ChatTemplate(
    start="<s>",
    system=(
        "A chat between a curious user and an artificial intelligence assistant. The assistant "
        "gives helpful, detailed, and polite answers to the user's questions."
    ),
    turn_open="",
    turn_close="",
    roles=(("system", "", " "), ("user", "USER: ", " "), ("assistant", "ASSISTANT:", "</s>")),
    answer_open=" ",
    image_open="",
    image_close="",
    after_images="\n",
    is_joined=True,
)
# Of llava-hf/llava-v1.6-mistral-7b-hf.
MISTRAL = dataclasses.replace(
    VICUNA_V1,
    system=None,
    roles=(
        ("system", "<<SYS>>\n", "\n<</SYS>>\n\n"),
        ("user", "[INST] ", " [/INST]"),
        ("assistant", "", "</s> "),
    ),
)
CHATML = ChatTemplate(
    system="You are a helpful assistant.",
    turn_open="<|im_start|>{role}\n",
    turn_close="<|im_end|>\n",
    image_open="",
    image_close="",
    after_images="\n",
)


def template_for(
    token_id: Callable[[str], int], model_type: str = "llama"
) -> tuple[ChatTemplate, int, int]:
    """Returns the template of a vocabulary, the id that ends an answer and the one that pads.

    A vocabulary with `</s>` is Llama's or Mistral's, which `model_type` tells apart; one with
    `<|im_end|>` a later one's.
    """
    template = MISTRAL if model_type == "mistral" else VICUNA_V1
    try:
        end = token_id("</s>")
    except CheckpointError:
        return CHATML, token_id("<|im_end|>"), token_id("<|endoftext|>")
    for name in ("<pad>", "<unk>"):
        try:
            return template, end, token_id(name)
        except CheckpointError:
            continue
    return template, end, end
