"""Tokens of the page: read from a file in one clear form, told apart by name, and tried only so often."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.dashboard.steer_tokens import MOST_KNOWN, SHORTEST_TOKEN, RateLimit, SteerTokenError, SteerTokens, read

ANNA, OTTO = "a" * SHORTEST_TOKEN, "o" * SHORTEST_TOKEN


def test_a_token_names_its_holder_and_is_not_kept(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"# who may steer\nanna {ANNA}\n\n  otto   {OTTO}  \n")
    tokens = read(file)
    assert (tokens.holder(ANNA), tokens.holder(OTTO)) == ("anna", "otto")
    for wrong in ("", "anna", ANNA[:-1], ANNA + "a", f"{ANNA} ", "\udcff"):
        assert tokens.holder(wrong) is None
    assert ANNA not in repr(vars(tokens))


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        ("", "no token in it"),
        ("# anna\n", "no token in it"),
        (f"{ANNA}\n", "line 1: not NAME TOKEN"),
        (f"anna {ANNA} x\n", "line 1: not NAME TOKEN"),
        (f"änna {ANNA}\n", "line 1: not NAME TOKEN"),
        (f"anna {ANNA}\notto short\n", "line 2: the token of otto has fewer than"),
        (f"anna {ANNA}\nanna {OTTO}\n", "line 2: the name or the token of anna is there twice"),
        (f"anna {ANNA}\notto {ANNA}\n", "line 2: the name or the token of otto is there twice"),
    ],
)
def test_a_flawed_file_is_one_line_without_a_token(tmp_path: Path, text: str, flaw: str) -> None:
    file = tmp_path / "tokens"
    file.write_text(text)
    with pytest.raises(SteerTokenError, match=flaw) as raised:
        read(file)
    line = str(raised.value)
    assert line.startswith(str(file))
    assert not any(token in line for token in (ANNA, OTTO))
    assert "\n" not in line


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    for name in ("none", ".", "bytes"):
        with pytest.raises(SteerTokenError, match="cannot be read"):
            read(tmp_path / name)


def test_tries_come_back_with_time_and_for_each_key_by_itself() -> None:
    limit = RateLimit(count=2, per_s=60.0)
    for _ in range(2):
        assert limit.wait_s("a", 0.0) == 0.0
        limit.take("a", 0.0)
    assert limit.wait_s("a", 0.0) == 30.0
    assert limit.wait_s("b", 0.0) == 0.0
    assert limit.wait_s("a", 29.0) == pytest.approx(1.0)
    assert limit.wait_s("a", 30.0) == 0.0
    # A clock that went back gives nothing away and takes nothing.
    limit.take("a", 30.0)
    assert limit.wait_s("a", 10.0) == 30.0


def test_the_limit_keeps_a_bounded_number_of_keys() -> None:
    limit = RateLimit(count=1, per_s=60.0)
    for number in range(MOST_KNOWN + 1):
        limit.take(str(number), 0.0)
    assert limit.wait_s("0", 0.0) == 0.0
    assert limit.wait_s(str(MOST_KNOWN), 0.0) == 60.0


def test_an_empty_set_of_tokens_has_no_holder() -> None:
    assert SteerTokens({}).holder("") is None
