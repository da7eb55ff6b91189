"""Nothing held out is trained on, and the split is the same everywhere."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergrad import datasets

DOMAINS = {"prose": datasets.cpython_prose, "code": datasets.cpython_code}


@pytest.fixture(scope="module", params=list(DOMAINS))
def domain(request):
    return DOMAINS[request.param]()


def telling_lines(texts):
    return {line.strip() for text in texts for line in text.split("\n") if len(line.strip()) >= 40}


def test_both_sides_have_text(domain):
    train, heldout = (sum(map(len, side)) for side in (domain.train, domain.heldout))
    assert train > 100_000
    assert 0.04 < heldout / (train + heldout) < 0.2
    assert all(text.strip() for text in domain.train + domain.heldout)


def test_no_document_twice(domain):
    texts = domain.train + domain.heldout
    assert len({" ".join(text.split()) for text in texts}) == len(texts)


def test_no_heldout_document_is_known_from_training(domain):
    known = telling_lines(domain.train)
    for text in domain.heldout:
        lines = telling_lines([text])
        assert len(lines & known) <= 0.6 * len(lines), text[:200]


def test_heldout_prose_paragraphs_are_new():
    domain = datasets.cpython_prose()
    trained = {" ".join(p.split()) for text in domain.train for p in text.split("\n\n")}
    heldout = {" ".join(p.split()) for text in domain.heldout for p in text.split("\n\n")}
    assert not {p for p in heldout & trained if len(p) >= 20}


def test_the_split_is_deterministic(domain):
    assert DOMAINS[domain.name]() == domain


def test_prose_is_not_in_the_code():
    code = telling_lines(datasets.cpython_code().train)
    prose = telling_lines(datasets.cpython_prose().heldout)
    assert len(prose & code) < 0.05 * len(prose)


def test_code_leaves_out_tests_and_applications():
    domain = datasets.cpython_code()
    text = "\n".join(domain.train + domain.heldout)
    assert "class TextWrapper" in text  # textwrap
    assert "class IdbAdapter" not in text
    assert "class EditorWindow" not in text
    assert "class FixerError" not in text  # lib2to3
    assert "build_time_vars = {" not in text  # how this interpreter was built


DOCUMENTS = [f"this is document number {i}, unlike {i * i} others\n" * 2 for i in range(200)]


def test_split_does_not_depend_on_order_or_company():
    whole = datasets.split("a", DOCUMENTS)
    shuffled = random.Random(0).sample(DOCUMENTS, len(DOCUMENTS))
    assert datasets.split("a", shuffled).heldout == whole.heldout
    fewer = datasets.split("a", DOCUMENTS[:150])
    assert set(fewer.heldout) == set(whole.heldout) & set(DOCUMENTS[:150])


def test_split_drops_repeats_and_blanks():
    domain = datasets.split("a", [*DOCUMENTS, "", "\n \n", *DOCUMENTS, DOCUMENTS[0] + "\n"])
    assert len(domain.train) + len(domain.heldout) == len(DOCUMENTS)


def test_near_copies_move_to_training():
    whole = datasets.split("a", DOCUMENTS)
    document = whole.heldout[0]
    domain = datasets.split("a", [*DOCUMENTS, *(document + f"one line, {i}\n" for i in range(40))])
    assert document in domain.train
    assert document not in domain.heldout


def test_split_of_two_documents_has_both_sides():
    domain = datasets.split("a", ["one", "two"])
    assert len(domain.train) == len(domain.heldout) == 1


def test_split_errors():
    with pytest.raises(ValueError, match="a: 1 documents are too few"):
        datasets.split("a", ["one", " one\n"])
    with pytest.raises(ValueError, match="share"):
        datasets.split("a", ["one", "two"], share=1.0)
    same = "a long line that says the same thing in both documents\n" * 3
    with pytest.raises(ValueError, match="near copy"):
        datasets.split("a", [same + "x", same + "y"])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: datasets.split("a", "one text"),
            TypeError,
            "documents: expected texts, got a sin",
        ),
        (lambda: datasets.split("a", ["x", b"y"]), TypeError, r"documents\[1\]: .*str, got bytes"),
        (lambda: datasets.split("a", ["x", None]), TypeError, r"documents\[1\]: .*, got NoneType"),
        (lambda: datasets.split("a", ["x"], "0.1"), TypeError, r"share: expected .* got '0\.1'"),
        (lambda: datasets.parts(b"x"), TypeError, "text: expected a str, got bytes"),
        (lambda: datasets.parts("x", 1.5), TypeError, r"size: .*positive integer, got 1\.5"),
        (lambda: datasets.parts("x", 0), ValueError, "size: expected a positive integer, got 0"),
    ],
)
def test_arguments_of_the_wrong_kind_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


@given(
    text=st.lists(st.sampled_from(["word", "\n", "\n\n", " ", "\n \n", "    x"])).map("".join),
    size=st.integers(1, 20),
)
def test_parts_join_to_the_text(text, size):
    found = datasets.parts(text, size)
    assert "".join(found) == text
    assert all(len(part) >= size for part in found[:-1])
