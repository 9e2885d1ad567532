"""Answers follow from seed and prompt alone."""

from __future__ import annotations

import pytest

from deploy.engine.answers import Answer, answer_to


def answer(prompt="a b c", seed=0, *, most=50, least=0, mean=20.0, ignore_eos=False) -> Answer:
    return answer_to(prompt.split(), seed, max_tokens=most, min_tokens=least, mean_tokens=mean, ignore_eos=ignore_eos)


def test_the_same_prompt_and_seed_give_the_same_text_and_others_do_not():
    assert answer().text() == answer().text()
    texts = {answer(f"prompt {index}", seed, ignore_eos=True).text() for index in range(20) for seed in range(5)}
    assert len(texts) == 100


def test_the_pieces_are_the_text_and_each_is_a_token():
    whole = answer(ignore_eos=True)
    assert "".join(whole.word(index) for index in range(50)) == whole.text()
    assert len(whole.text().split()) == 50
    assert whole.finish_reason == "length"


def test_lengths_have_the_mean_that_is_set_and_end_by_themselves():
    lengths = [answer(f"prompt {index}", most=10**6).tokens for index in range(4000)]
    assert sum(lengths) / len(lengths) == pytest.approx(20, rel=0.05)
    assert {answer(f"prompt {index}", most=10**6).finish_reason for index in range(50)} == {"stop"}
    assert answer(mean=1.0).tokens == 1


def test_lengths_keep_their_bounds():
    found = [answer(f"prompt {index}", most=30, least=10) for index in range(200)]
    assert all(10 <= one.tokens <= 30 for one in found)
    assert all((one.tokens == 30) == (one.finish_reason == "length") or one.tokens == 30 for one in found)
    assert {one.finish_reason for one in found} == {"stop", "length"}
