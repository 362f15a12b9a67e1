"""Which policies a server takes: those it can follow, and files of its machine by its operator."""

import pytest
from flax import nnx

from mres_jax.cli import main
from mres_jax.errors import CheckpointError, PolicyError
from mres_jax.protocols import Request, Sampling
from mres_jax.resolution.allocator.config import AllocatorConfig
from mres_jax.resolution.allocator.network import AllocatorNetwork
from mres_jax.resolution.allocator.store import save_allocator
from mres_jax.resolution.task_policy import choice_file
from mres_jax.serving import LocalBackend, PolicyRule, UpstreamBackend
from mres_jax.testing.serving import chat_body as chat, random_picture as picture, serving


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Of an allocator that sees through `mres-tiny`."""
    sizes = {"frame_size": 128, "question_size": 128, "hidden_size": 32, "head_dim": 16}
    counts = {"num_layers": 1, "num_heads": 2, "num_temporal_heads": 1}
    network = AllocatorNetwork(AllocatorConfig(**sizes, **counts), rngs=nnx.Rngs(0))
    directory = tmp_path_factory.mktemp("allocator") / "a"
    save_allocator(directory, network, features="mres-tiny")
    return directory


@pytest.fixture
def local(vlm, limits):
    return lambda policy: LocalBackend(
        vlm, name="tiny", rule=PolicyRule(policy, True), limits=limits
    )


def upstream(vlm, limits, policy):
    url = "http://127.0.0.1:9/v1"
    return UpstreamBackend(url, spec=vlm.spec, rule=PolicyRule(policy, True), limits=limits)


def test_an_allocator_is_served_as_it_answers(local, limits, vlm, weights):
    policy = f"allocator,weights={weights},retention=0.5"
    images = [picture(0, 48, 64), picture(1, 40, 24)]
    request = Request(id="x", images=images, question="what is it", policy=policy)
    ((answer,),) = vlm.answerer.answer([request], sampling=Sampling(max_new_tokens=6))
    with serving(local(policy), limits=limits) as served:
        status, _, content = served.ask(chat(*images, "what is it"))
        assert status == 200, content
        assert content["choices"][0]["message"]["content"] == answer.text
        assert content["mres"]["visual_tokens"] == answer.cost.visual_tokens
        assert 0 < content["mres"]["retention_ratio"] <= 0.5
        assert content["mres"]["ms"]["allocator"] > 0
        assert served.ask(chat("what is it"))[0] == 200
        assert served.ask(chat(images[0], "what", policy=f"allocator,weights={weights}"))[0] == 200
        assert served.ask(chat(images[0], "x" * 900))[0] == 400


@pytest.mark.parametrize("policy", ["zoom", "zoom,window=0.5,source=gradient"])
def test_what_asks_twice_is_refused_when_it_starts_and_when_it_is_asked_for(
    local, served, vlm, limits, policy, tmp_path
):
    file = tmp_path / "choice.json"
    file.write_bytes(choice_file(policy, {}))
    for refused in (policy, f"task,file={file}"):
        for start in (local, lambda text: upstream(vlm, limits, text)):
            with pytest.raises(PolicyError, match=r"it asks twice, and a server .* Use mres ask"):
                start(refused)
    status, _, content = served.ask(chat("what", policy=policy))
    assert (status, content["error"]["param"]) == (400, "policy")
    assert "it asks twice" in content["error"]["message"]


def test_what_looks_first_is_refused_before_another_server_and_without_its_weights(
    local, vlm, limits, weights
):
    with pytest.raises(PolicyError, match=r"not done here\. Serve without --upstream, or choose"):
        upstream(vlm, limits, f"allocator,weights={weights}")
    with pytest.raises(CheckpointError, match="nowhere"):
        local("allocator,weights=nowhere")


def test_files_of_the_servers_machine_are_its_operators_to_name(
    local, limits, served, weights, tmp_path
):
    """Whether such a file exists is not told either."""
    for named in (f"allocator,weights={weights}", "task,file=/etc/passwd", "task,file=/nowhere"):
        status, _, content = served.ask(chat(picture(0), "what", policy=named))
        assert (status, content["error"]["code"]) == (403, "policy_not_allowed")
        assert "is of the server's machine; requests may name only what" in str(content)
    file = tmp_path / "choice.json"
    file.write_bytes(choice_file("budget:6", {}))
    with serving(local(f"task,file={file}"), limits=limits) as other:
        for more in ({}, {"policy": f"task,file={file}"}, {"policy": "native"}):
            assert other.ask(chat(picture(0), "what", **more))[0] == 200


def test_help_lists_what_is_served(capsys):
    assert main(["serve", "--help"]) == 0
    text = capsys.readouterr().out
    assert "allocator,weights=DIR" in text
    assert "zoom" not in text
