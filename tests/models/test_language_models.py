"""The language models: no look ahead where none is claimed, the leak where it is asked for, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

CONF = Path(__file__).parents[2] / "conf/model"
MODELS = ("transformer_lm", "gpt2", "lstm", "encoder_decoder")
CONTEXT, VOCABULARY = 12, 20


def build(name: str, **changes: Any) -> nn.Module:
    torch.manual_seed(0)
    node = OmegaConf.merge(OmegaConf.load(CONF / f"{name}.yaml"), changes)
    return instantiate(node)((CONTEXT,), VOCABULARY)


def change(model: nn.Module, place: int) -> Tensor:
    """How much each position's logits change, (T,), when the token at `place` does."""
    tokens = torch.randint(VOCABULARY, (3, CONTEXT), generator=torch.Generator().manual_seed(1))
    other = tokens.clone()
    other[:, place] = (other[:, place] + 1) % VOCABULARY
    with torch.no_grad():
        return (model(tokens) - model(other)).abs().amax((0, 2))


@pytest.mark.parametrize("name", MODELS)
def test_a_causal_model_sees_no_later_token(name: str) -> None:
    model = build(name, dropout=0.0)
    assert model.causal
    for training in (False, True):  # the two take different paths through torch
        model.train(training)
        for place in (1, 5, CONTEXT - 1):
            changed = change(model, place)
            assert float(changed[:place].max()) == 0.0
            assert float(changed[place:].min()) > 0.0


def test_the_leak_of_the_released_encoder_decoder(caplog: pytest.LogCaptureFixture) -> None:
    model = build("encoder_decoder", leak_targets=True).eval()
    assert not model.causal
    assert "model.leak_targets=true" in caplog.text
    assert float(change(model, CONTEXT - 1)[: CONTEXT - 1].min()) > 1e-3
    sound = build("encoder_decoder")
    assert sorted(map(str, sound.state_dict())) == sorted(map(str, model.state_dict()))  # the switch adds no weight


@pytest.mark.parametrize("name", MODELS)
def test_shapes_gradients_and_shorter_sequences(name: str) -> None:
    model = build(name)
    logits = model(torch.randint(VOCABULARY, (2, CONTEXT - 3)))
    assert logits.shape == (2, CONTEXT - 3, VOCABULARY)
    logits.logsumexp(-1).mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    with pytest.raises(ValueError, match=r"input_shape=\(3, 8, 8\): it takes token sequences"):
        instantiate(OmegaConf.load(CONF / f"{name}.yaml"))((3, 8, 8), 10)


@pytest.mark.parametrize("name", ["transformer_lm", "lstm"])
def test_tied_embeddings_are_one_tensor(name: str) -> None:
    tied, free = build(name, tie_embeddings=True), build(name, tie_embeddings=False)
    assert tied.head.weight is tied.tokens.weight
    assert free.head.weight is not free.tokens.weight


def test_sinusoidal_positions_by_hand() -> None:
    from vrbench.models.sequence import sinusoidal_positions

    table = sinusoidal_positions(3, 4)
    angles = torch.tensor([2.0, 2.0 / 100.0])
    expected = torch.stack([angles.sin(), angles.cos()], dim=1).flatten()
    torch.testing.assert_close(table[2], expected)
    torch.testing.assert_close(table[0], torch.tensor([0.0, 1.0, 0.0, 1.0]))


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("transformer_lm", {"heads": 3}, "heads=3: must divide width=128"),
        ("gpt2", {"size": "huge"}, "size=huge: must be one of tiny, mini, small, 124M"),
        ("gpt2", {"width": 65}, "heads=2: must divide width=65"),
        ("encoder_decoder", {"heads": 1, "width": 31}, "width=31: sinusoidal positions need an even width"),
        ("pretrained", {"path": None}, "path=null: give a folder"),
        ("pretrained", {"path": "./absent"}, r"path=\./absent: no such folder"),
        ("pretrained", {"path": "nobody/nothing"}, "path=nobody/nothing: no causal language model can be loaded"),
    ],
)
def test_bad_options_are_refused(name: str, changes: dict[str, Any], says: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        build(name, **changes)


def test_gpt2_sizes() -> None:
    model = build("gpt2", layers=1)
    config = model.network.config
    assert (config.n_layer, config.n_embd, config.n_head, config.n_positions) == (1, 64, 2, CONTEXT)
    assert config.resid_pdrop == config.embd_pdrop == config.attn_pdrop == 0.1


def test_gpt2_without_masks_is_gpt2_bit_for_bit() -> None:
    """transformers' own `sdpa` makes none either, but asks each time whether it has to."""
    from vrbench.models.gpt2 import UNMASKED

    model = build("gpt2").eval()
    tokens = torch.randint(VOCABULARY, (3, CONTEXT), generator=torch.Generator().manual_seed(0))
    found = {}
    for name in (UNMASKED, "sdpa", "eager"):
        model.network.set_attn_implementation(name)
        found[name] = [model(tokens[:, :length]).detach() for length in (1, 5, CONTEXT)]
    assert all(map(torch.equal, found[UNMASKED], found["sdpa"]))
    torch.testing.assert_close(found[UNMASKED], found["eager"], rtol=1e-4, atol=1e-5)
