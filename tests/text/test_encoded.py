"""What counts of a text, by hand: never the first token, since nothing predicts it."""

from mneme.text.encoded import Encoded, answer_after, counted_tokens, text_numbers, whole_text


def test_what_counts_by_hand() -> None:
    assert whole_text([4, 5, 6]) == Encoded((4, 5, 6), (False, True, True))
    assert whole_text([]) == Encoded((), ())
    assert answer_after([4], [5, 6]) == Encoded((4, 5, 6), (False, True, True))
    assert answer_after([], [5, 6]) == Encoded((5, 6), (False, True))
    assert answer_after([4, 5], []) == Encoded((4, 5), (False, False))


def test_prompt_and_beginning() -> None:
    text = answer_after([4, 5], [6, 7])
    assert text.prompt == (4, 5)
    assert whole_text([4]).prompt == (4,)
    assert text.first(3) == Encoded((4, 5, 6), (False, False, True))
    assert text.first(None) == text


def test_counts_and_numbers_of_texts() -> None:
    texts = [whole_text([1, 2, 3]), whole_text([1]), answer_after([1, 2], [3])]
    assert counted_tokens(texts).tolist() == [2, 0, 1]
    assert text_numbers(texts).tolist() == [0, 0, 2]
