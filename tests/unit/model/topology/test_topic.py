"""The topic trie against a matcher too simple to be wrong."""

from __future__ import annotations

from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokers.engine.core.model.topic import TopicTrie, split

words = st.sampled_from(["a", "b", "", "*", "#"])
patterns = st.lists(words, max_size=6).map(".".join)
keys = st.lists(st.sampled_from(["a", "b", "c", ""]), max_size=7).map(".".join)


def matches(pattern: str, key: str) -> bool:
    @lru_cache
    def from_(p: int, k: int) -> bool:
        if p == len(pattern_words):
            return k == len(key_words)
        if pattern_words[p] == "#":
            return from_(p + 1, k) or (k < len(key_words) and from_(p, k + 1))
        if k == len(key_words):
            return False
        return pattern_words[p] in ("*", key_words[k]) and from_(p + 1, k + 1)

    pattern_words, key_words = split(pattern), split(key)
    return from_(0, 0)


@settings(deadline=None)
@given(st.lists(patterns, max_size=20, unique=True), keys)
def test_matches_as_the_naive_matcher_does(bound: list[str], key: str) -> None:
    trie: TopicTrie[str] = TopicTrie()
    for pattern in bound:
        trie.add(pattern, pattern)
    assert sorted(trie.match(key)) == sorted(pattern for pattern in bound if matches(pattern, key))


@settings(deadline=None)
@given(st.lists(st.tuples(patterns, st.integers(0, 2)), max_size=20), st.data(), keys)
def test_removing_leaves_the_rest_and_prunes(
    bound: list[tuple[str, int]], data: st.DataObject, key: str
) -> None:
    trie: TopicTrie[int] = TopicTrie()
    for pattern, target in bound:
        trie.add(pattern, target)
    kept = data.draw(st.integers(0, len(bound)))
    order = data.draw(st.permutations(bound))
    for pattern, target in order[kept:]:
        trie.remove(pattern, target)

    fresh: TopicTrie[int] = TopicTrie()
    for pattern, target in order[:kept]:
        fresh.add(pattern, target)
    assert sorted(trie.match(key)) == sorted(fresh.match(key))
    assert trie.size() == fresh.size()
    assert trie.empty is (kept == 0)


@pytest.mark.parametrize(
    ("pattern", "key", "expected"),
    [
        ("", "", True),
        ("", ".", False),
        ("#", "", True),
        ("*", "", False),
        ("*", ".", False),
        ("*.*", ".", True),
        ("a.*", "a.", True),
        ("a.#", "a", True),
        ("#.a", "a", True),
        ("a.#.b", "a.b", True),
        ("a.#.b", "a.x.y.b", True),
        ("#.#", "", True),
        ("*.#.*", "a", False),
        ("a..b", "a..b", True),
        ("a.*.b", "a..b", True),
        ("A", "a", False),
    ],
)
def test_examples(pattern: str, key: str, expected: bool) -> None:
    trie: TopicTrie[str] = TopicTrie()
    trie.add(pattern, "q")
    assert trie.match(key) == (["q"] if expected else [])


def test_removing_what_is_not_there_is_an_error_and_changes_nothing() -> None:
    trie: TopicTrie[str] = TopicTrie()
    trie.add("a.b", "q")
    for pattern, target in (("a", "q"), ("a.b.c", "q"), ("a.b", "other"), ("a.*", "q")):
        with pytest.raises(KeyError):
            trie.remove(pattern, target)
    assert trie.match("a.b") == ["q"]


def test_many_hashes_do_not_explode() -> None:
    """A matcher that tries each way for each ``#`` would take longer than the universe here."""
    trie: TopicTrie[str] = TopicTrie()
    trie.add(".".join(["#.a"] * 64), "q")
    assert trie.match(".".join(["a"] * 63 + ["b"] + ["a"] * 63)) == ["q"]
    assert trie.match(".".join(["a"] * 127 + ["b"])) == []
