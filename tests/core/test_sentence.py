import pytest

from gateway_trio.core.sentence import body_sentence, sentence


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": {"message": "Bad key", "code": "x"}}, "Bad key"),
        ({"error": "model not found"}, "model not found"),
        ({"message": "Bad key", "type": "x"}, "Bad key"),
        ({"detail": "Not Found"}, "Not Found"),
        ({"detail": [{"loc": []}]}, ""),
        ({"error": {"code": 1}}, ""),
        ({}, ""),
        (None, ""),
        ("plain\n text\x1b[0m\x00", "plain text [0m"),
        ("  <html>no</html>", ""),
        ("down \ud83d", "down \ufffd"),
        ("x" * 300, "x" * 300),
        ("x" * 301, "x" * 299 + "…"),
        (" " * 5000 + "x", "…"),
        ("x" + " " * 5000, "x…"),
    ],
)
def test_what_a_provider_says(body, said):
    assert sentence(body) == said


def test_the_key_is_in_no_sentence_also_where_it_is_cut():
    assert sentence({"error": "bad key sk-12345678."}, "sk-12345678") == "bad key ***."
    assert "sk" not in sentence("x" * 295 + "sk-12345678", "sk-12345678")


def test_the_key_is_in_no_sentence_also_where_the_text_is_cut_before_it_is_looked_at():
    for blanks in range(4070, 4110):
        said = sentence("bad" + " " * blanks + "sk-12345678" + " " * 5000, "sk-12345678")
        assert "sk" not in said, blanks
        assert said.startswith("bad")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": {"message": "down \\ud83d"}}', "down \ufffd"),
        (b"not json", "not json"),
        (b"caf\xe9", "caf\ufffd"),
        (b"[" * 60_000, "[" * 299 + "…"),
        (b"", ""),
    ],
)
def test_what_a_body_says(body, said):
    assert body_sentence(body) == said
