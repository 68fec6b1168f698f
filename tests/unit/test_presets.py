"""The tiny preset: it can spell every class name, and it says so where two would become one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTokenizer

from saadi.diffusion import presets
from saadi.diffusion.base import class_probabilities, prompt_table
from saadi.diffusion.generator import (
    Generator,
    build_tiny,
    encode_prompts,
    learn_words,
    load_generator,
    save_generator,
    token_ids,
)
from saadi.errors import BadInput

NAMES = ["grasper", "bipolar", "L-hook", "Nadelhalter (groß)", "鉗子", "ножницы", "tool_7", "🔪", "x"]


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    return build_tiny()


def prompts(names: list[str]) -> list[str]:
    return [f"a laparoscopic image of a {name}" for name in names]


def test_prompts_of_any_script_get_ids_of_their_own_and_the_empty_prompt_comes_last(generator: Generator) -> None:
    table = prompt_table(generator, prompts(NAMES))
    assert table.shape == (len(NAMES) + 1, presets.PROMPT_TOKENS)
    assert len({tuple(row) for row in table.tolist()}) == len(NAMES) + 1
    tokenizer = generator.tokenizer
    assert table[-1].tolist() == [tokenizer.bos_token_id] + [tokenizer.eos_token_id] * (presets.PROMPT_TOKENS - 1)


def test_no_byte_becomes_the_unknown_token(generator: Generator) -> None:
    tokenizer = generator.tokenizer
    everything = bytes(range(33, 127)).decode() + "äßçñøжш鉗子手術器具🔪"
    for letter in everything:
        inside = tokenizer(letter).input_ids[1:-1]
        assert inside, letter
        assert tokenizer.unk_token_id not in inside, letter


def test_end_of_text_is_not_two_which_older_encoders_read_as_a_flag(generator: Generator) -> None:
    config = generator.text_encoder.config
    assert generator.tokenizer.eos_token_id == config.eos_token_id != 2


def test_different_names_give_different_embeddings(generator: Generator) -> None:
    first, second = encode_prompts(generator, prompts(["grasper", "bipolar"]))
    assert first.shape == (presets.PROMPT_TOKENS, presets.TEXT_WIDTH)
    assert not torch.allclose(first, second, atol=1e-3)


def test_a_learnt_word_is_one_token_and_survives_saving(tmp_path: Path) -> None:
    torch.manual_seed(0)
    taught = build_tiny()
    before = encode_prompts(taught, prompts(["retractor"]))
    learn_words(taught, ["grasper", "grasper", "image"], 3)  # "image" is known already
    assert len(taught.tokenizer) == len(build_tiny().tokenizer) + 1
    assert taught.tokenizer.tokenize("A Grasper")[-1] == "grasper"
    assert len(taught.tokenizer.tokenize("graspers")) > 1
    torch.testing.assert_close(encode_prompts(taught, prompts(["retractor"])), before)
    save_generator(taught, tmp_path)
    opened = load_generator(tmp_path)
    torch.testing.assert_close(
        encode_prompts(opened, prompts(["grasper"])), encode_prompts(taught, prompts(["grasper"]))
    )


def test_too_long_a_prompt_is_refused_not_cut(generator: Generator) -> None:
    with pytest.raises(BadInput, match=r"^prompt 'z{60}': 62 tokens, the text encoder takes 40; shorten"):
        token_ids(generator, ["short", "z" * 60])


@pytest.mark.parametrize(
    "names", [["Hook", "hook"], ["a  b", "a b"], ["tool1", "tool 1"], ["a-b", "a - b"], ["x", ""], ["x", "x"]]
)
def test_two_classes_that_become_one_prompt_are_refused(names: list[str], generator: Generator) -> None:
    with pytest.raises(BadInput, match=r"are the same to the text encoder; rename a class$"):
        prompt_table(generator, ["y", *names])


def test_ids_survive_saving_and_older_readers_files_agree(generator: Generator, tmp_path: Path) -> None:
    save_generator(generator, tmp_path)
    reopened = StableDiffusionPipeline.from_pretrained(tmp_path, use_safetensors=True, local_files_only=True).tokenizer
    (tmp_path / "tokenizer" / "tokenizer.json").unlink()
    older = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer", local_files_only=True)
    for prompt in prompts(NAMES):
        expected = generator.tokenizer(prompt).input_ids
        assert reopened(prompt).input_ids == expected
        assert older(prompt).input_ids == expected
    assert reopened.model_max_length == older.model_max_length == presets.PROMPT_TOKENS


def test_class_probabilities_between_the_data_and_equality() -> None:
    labels = np.array([0, 0, 0, 1])
    np.testing.assert_allclose(class_probabilities(labels, 0.0), 0.25)
    np.testing.assert_allclose(class_probabilities(labels, 1.0), [1 / 6, 1 / 6, 1 / 6, 1 / 2])
    weights = np.array([1, 1, 1, 3**0.5])
    np.testing.assert_allclose(class_probabilities(labels, 0.5), weights / weights.sum())
