"""How LLaVA's conversations are written."""

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
CHATML = ChatTemplate(
    system="You are a helpful assistant.",
    turn_open="<|im_start|>{role}\n",
    turn_close="<|im_end|>\n",
    image_open="",
    image_close="",
    after_images="\n",
)


def template_for(token_id: Callable[[str], int]) -> tuple[ChatTemplate, int, int]:
    """Returns the template of a vocabulary, the id that ends an answer and the one that pads.

    A vocabulary with `</s>` is Llama's, one with `<|im_end|>` a later one's.
    """
    try:
        end = token_id("</s>")
    except CheckpointError:
        return CHATML, token_id("<|im_end|>"), token_id("<|endoftext|>")
    for name in ("<pad>", "<unk>"):
        try:
            return VICUNA_V1, end, token_id(name)
        except CheckpointError:
            continue
    return VICUNA_V1, end, end
