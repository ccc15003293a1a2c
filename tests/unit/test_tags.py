"""Tags carry any text to any cloud and back."""

import re

from hypothesis import given
from hypothesis import strategies as st

from tango_cloud.core import tags


@given(st.text())
def test_encoded_text_fits_the_strictest_cloud(text: str) -> None:
    assert re.fullmatch(r"[a-z0-9_-]{0,63}", tags.encode(text))


@given(st.text())
def test_what_can_be_decoded_is_the_text_itself(text: str) -> None:
    assert tags.decode(tags.encode(text)) in (text, None)


@given(st.text(alphabet="abcXYZ_-. é", max_size=8))
def test_short_text_is_never_lost(text: str) -> None:
    assert tags.decode(tags.encode(text)) == text


@given(st.lists(st.text(min_size=1), unique=True, max_size=20))
def test_different_texts_have_different_tags(texts: list[str]) -> None:
    assert len({tags.encode(text) for text in texts}) == len(texts)


def test_a_name_too_long_keeps_its_head_and_stays_unique() -> None:
    first, second = tags.encode("a" * 100), tags.encode("a" * 101)
    assert first.startswith("aaaa")
    assert first != second
    assert tags.decode(first) is None


def test_foreign_tags_are_not_decoded() -> None:
    for tag in ("Upper", "_zz_", "_110000_", "_41", "a b", "_61_"):
        assert tags.decode(tag) is None
