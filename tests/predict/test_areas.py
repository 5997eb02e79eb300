"""Areas: what a user may write, how words are counted, and which passages belong to an area."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mneme.errors import BadAreas
from mneme.predict.areas import Area, count_words, default_areas, read_areas, stem, words_of
from mneme.predict.matching import match_areas, naive_bayes_log_odds
from mneme.predict.paired import shipped_probes

MMLU_PRO = [
    *("biology", "business", "chemistry", "computer science", "economics", "engineering", "health", "history", "law", "math"),
    *("philosophy", "physics", "psychology"),
]
WMDP = ["biosecurity", "chemical security", "cybersecurity"]
BEHAVIOURS = ["harmful advice", "deception", "refusal", "sycophancy", "toxicity", "power-seeking"]
ASKED = [
    "refusing too much",
    "refusing too little",
    "tool calls",
    "system prompt",
    "code",
    "instruction following",
    "other languages",
]
"""Behaviours that are asked about by paired answers, and hardly ever by their text."""
KNOWN = ["word forms", "common facts"]
"""Knowledge that is asked about by paired answers alone."""


def written(folder: Path, text: str) -> Path:
    """An areas file with this text."""
    path = folder / "areas.yaml"
    path.write_text(text, encoding="utf-8")
    return path


# --- the file -------------------------------------------------------------------------------------------------------------


def test_read_areas(tmp_path: Path) -> None:
    one = "- name: law\n  kind: capability\n  description: Courts.\n  keywords: [court, due process]\n"
    text = one + "- name: rudeness\n  kind: behaviour\n"
    law, rudeness = read_areas(written(tmp_path, text))
    assert law == Area(name="law", description="Courts.", keywords=("court", "due process"), kind="capability")
    assert (rudeness.kind, rudeness.keywords, rudeness.description) == ("behaviour", (), "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"holds NoneType, expected a non-empty YAML list of \{name, description, keywords, kind\}"),
        ("[]", r"holds list, expected a non-empty YAML list"),
        ("name: law\n", r"holds dict, expected a non-empty YAML list"),
        ("- name: [law\n", r"is not readable YAML: .* Mend it and try again"),
        (
            "- description: x\n  kind: behaviour\n",
            r"entry 1: name: Field required\. Expected name, description, keywords, kind",
        ),
        (
            "- {name: law, kind: capability}\n- {name: '', kind: capability}\n",
            r"entry 2: name: String should have at least 1 character",
        ),
        ("- name: law\n  kind: capability\n  keyword: [x]\n", r"entry 1: keyword: Extra inputs are not permitted"),
        ("- name: law\n  kind: capability\n  keywords: court\n", r"entry 1: keywords: Input should be a valid tuple"),
        (
            "- name: law\n  kind: capability\n  keywords: [court, no]\n",
            r"entry 1: keywords\.1: Input should be a valid string",
        ),
        (
            "- {name: law, kind: capability}\n- name: rudeness\n",
            r"entry 2 \('rudeness'\) has no kind\. Write kind: capability to ask",
        ),
        ("- keywords: [court]\n", r"entry 1 \(''\) has no kind\. Write kind: capability to ask .* or kind: behaviour to ask"),
        ("- name: law\n  kind: habit\n", r"entry 1: kind: Input should be 'capability' or 'behaviour'"),
        ("- law\n- chemistry\n", r"entry 1: entry: Input should be a valid dictionary"),
        (
            "- {name: Law, kind: capability}\n- {name: law, kind: behaviour}\n",
            r"names law more than once\. Give every area its own name",
        ),
        ("- !!python/object/apply:os.system [true]\n", r"is not readable YAML: could not determine a constructor"),
    ],
)
def test_areas_file_that_cannot_be_used(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(BadAreas, match=words):
        read_areas(written(tmp_path, text))


def test_areas_file_that_is_missing_binary_or_huge(tmp_path: Path) -> None:
    with pytest.raises(BadAreas, match=r"No areas file at .*none\.yaml\. Expected a YAML list"):
        read_areas(tmp_path / "none.yaml")
    with pytest.raises(BadAreas, match=r"No areas file at"):
        read_areas(tmp_path)
    path = tmp_path / "areas.yaml"
    path.write_bytes(b"\xff\xfe- name")
    with pytest.raises(BadAreas, match="is not readable YAML: 'utf-8' codec"):
        read_areas(path)
    path.write_bytes(b"#" * 5_000_000)
    with pytest.raises(BadAreas, match="larger than 4 MB, which no list of areas is"):
        read_areas(path)


# --- the default list -----------------------------------------------------------------------------------------------------


def test_default_areas_cover_what_they_promise() -> None:
    areas = {area.name: area.kind for area in default_areas()}
    assert [name for name in MMLU_PRO + WMDP if areas.get(name) != "capability"] == []
    assert [name for name, kind in areas.items() if kind == "behaviour"] == BEHAVIOURS + ASKED
    assert [name for name in ASKED if not shipped_probes(name)] == []


@pytest.mark.parametrize("area", default_areas(), ids=lambda area: area.name)
def test_default_area_is_usable(area: Area) -> None:
    """One sentence; 25 to 60 keywords (fewer where it is asked about), none twice, each a word or two as they are counted."""
    assert area.description.endswith(".")
    assert area.description.count(". ") == 0
    assert (4 if area.name in (*ASKED, *KNOWN) else 25) <= len(area.keywords) <= 60
    counted = [words_of(keyword) for keyword in area.keywords]
    assert [keyword for keyword, words in zip(area.keywords, counted, strict=True) if not 1 <= len(words) <= 2] == []
    assert len({tuple(words) for words in counted}) == len(counted)


def test_default_keywords_tell_areas_apart() -> None:
    """A keyword may serve two areas where it means both, never three, and no area shares more than four of its own."""
    owners: dict[str, list[str]] = {}
    for area in default_areas():
        for keyword in area.keywords:
            owners.setdefault(" ".join(words_of(keyword)), []).append(area.name)
    assert {keyword: names for keyword, names in owners.items() if len(names) > 2} == {}
    shared = [name for names in owners.values() if len(names) > 1 for name in names]
    assert {name: shared.count(name) for name in shared if shared.count(name) > 4} == {}


SENTENCES = {
    "biology": "The mitochondria of the cell turn sugar into energy, and the genes for it sit outside the nucleus.",
    "law": "The defendant filed an appeal, and the court ruled that the contract had been breached.",
    "cooking": "Whisk the flour and butter, season with garlic, and bake in the oven until golden.",
    "physics": "The photon has no mass, but it carries momentum set by its wavelength.",
    "religion": "The priest read from the scripture and led the congregation in prayer at the church.",
    "cybersecurity": "The malware opened a reverse shell through a buffer overflow and stole every password.",
    "refusal": "I'm sorry, but I can't help with that request.",
    "sycophancy": "What a great question, you're right and I completely agree, that is a brilliant idea.",
}


@pytest.mark.parametrize("name", SENTENCES)
def test_default_keywords_fit_a_plain_sentence_best(name: str) -> None:
    """Of all areas, the right one has most keywords in a sentence that nobody would doubt."""
    stems = words_of(SENTENCES[name])
    present = {*stems, *(f"{a} {b}" for a, b in itertools.pairwise(stems))}
    hits = {area.name: sum(" ".join(words_of(k)) in present for k in area.keywords) for area in default_areas()}
    assert max(hits, key=lambda area: hits[area]) == name
    assert hits[name] >= 2


# --- words ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("Enzymes", "enzyme"),
        ("species", "specy"),
        ("BODIES", "body"),
        ("gas", "gas"),
        ("gases", "gase"),
        ("class", "class"),
        ("virus", "virus"),
        ("analysis", "analysis"),
        ("is", "is"),
        ("ties", "tie"),
    ],
)
def test_stem(word: str, expected: str) -> None:
    assert stem(word) == expected


def test_words_of_leaves_function_words_and_signs_out() -> None:
    assert words_of("The enzymes of LIVER, and 37 kinases: don't!") == ["enzyme", "liver", "kinase", "don't"]
    assert words_of("it is 3.14 -- _x_") == ["x"]
    assert words_of("I can’t help") == words_of("I can't help") == ["i", "can't", "help"]


def test_count_words_counts_presence_of_words_and_pairs() -> None:
    words = count_words(["machine learning, machine learning", "learning machines"])
    by_name = dict(zip(words.vocabulary, words.frequency(), strict=True))
    assert by_name == {"machine": 2, "learning": 2, "machine learning": 1, "learning machine": 2}
    assert words.n_passages == 2
    assert len(words.passage) == len(words.word) == 7


@given(st.lists(st.text(max_size=40), max_size=8))
def test_count_words_never_repeats_an_entry(texts: list[str]) -> None:
    words = count_words(texts)
    entries = list(zip(words.passage.tolist(), words.word.tolist(), strict=True))
    assert len(entries) == len(set(entries))
    assert words.n_passages == len(texts)


# --- membership -----------------------------------------------------------------------------------------------------------


def test_naive_bayes_by_hand() -> None:
    """4 passages, 2 chosen; `x` in 3 of them, 2 of these chosen; `y` in one is too rare to count.

    ln((2.5/3) / (1.5/3)) = ln(5/3) wherever x stands, nothing elsewhere; the prior is ln(2.5/2.5) = 0.
    """
    words = count_words(["x", "x", "x", "y"])
    odds = naive_bayes_log_odds(words, np.array([True, True, False, False]))
    assert odds == pytest.approx([math.log(5 / 3)] * 3 + [0.0])


def test_naive_bayes_clips_each_word_to_three_nats() -> None:
    """`x` in all 60 chosen of 200: ln((60.5/61)/(0.5/141)) = 5.6 is clipped to 3; the prior is ln(60.5/140.5)."""
    words = count_words(["x"] * 60 + ["z"] * 140)
    odds = naive_bayes_log_odds(words, np.arange(200) < 60)
    prior = math.log(60.5 / 140.5)
    assert odds[0] == pytest.approx(3 + prior)
    assert odds[-1] == pytest.approx(-3 + prior)


def planted_text(n: int, seed: int, stated: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Passages of 5 topics and what each is about. A topic has 30 words of its own, of which a passage holds 4, among 8 words
    that all topics share; `stated` topics have their first five words as keywords in `planted_areas`."""
    generator = np.random.default_rng(seed)
    topics = [*stated, *(f"other{i}" for i in range(5 - len(stated)))]
    common = [f"common{letter}" for letter in "abcdefghijklmnopqrst"]
    own = {topic: [f"{topic}word{letter}" for letter in "abcdefghijklmnopqrstuvwxyzåäöü"] for topic in topics}
    truth = [topics[i] for i in generator.integers(0, 5, size=n)]
    passages = [
        " ".join(generator.permutation([*generator.choice(own[topic], 4, replace=False), *generator.choice(common, 8)]))
        for topic in truth
    ]
    return passages, truth


def planted_areas(*topics: str) -> tuple[Area, ...]:
    """Areas that name five of a topic's thirty words."""
    return tuple(Area(name=topic, keywords=tuple(f"{topic}word{letter}" for letter in "abcde")) for topic in topics)


def test_membership_grows_from_a_sixth_of_the_words() -> None:
    """Two keywords stand in 12 % of a topic's passages (4 draws, 5 of 30); membership has to find nearly all."""
    passages, truth = planted_text(1500, 0, ("zinc", "opera"))
    words = count_words(passages)
    found = match_areas(words, planted_areas("zinc", "opera"))
    for row, topic in enumerate(("zinc", "opera")):
        is_topic = np.array([name == topic for name in truth])
        assert found.seeds[row] < 0.2 * is_topic.sum()
        assert found.member[row][is_topic].mean() > 0.95
        assert found.member[row][~is_topic].mean() < 0.02


def test_stray_keywords_make_no_members() -> None:
    """Every keyword of an area that the text never treats stands alone in 2 % of the passages, at random: nothing is grown."""
    passages, _ = planted_text(1500, 7, ("zinc",))
    generator = np.random.default_rng(8)
    area = planted_areas("sailing")[0]
    passages = [text + "".join(f" {word}" for word in area.keywords if generator.random() < 0.02) for text in passages]
    found = match_areas(count_words(passages), (area,))
    assert found.member[0].mean() < 0.01


def test_growth_stops_where_a_topic_ends_and_its_genre_begins() -> None:
    """A topic lives inside a genre of a third of the text, 12 genre words a passage: it must not become the genre."""
    generator = np.random.default_rng(9)
    passages, truth = planted_text(1500, 9, ("zinc",))
    is_zinc = np.array([name == "zinc" for name in truth])
    told = is_zinc | (generator.random(1500) < 0.2)
    genre = [f"genre{letter}" for letter in "abcdefghijklmnopqrst"]
    passages = [
        text + " " + " ".join(generator.choice(genre, 12, replace=False)) if tells else text
        for text, tells in zip(passages, told, strict=True)
    ]
    found = match_areas(count_words(passages), planted_areas("zinc"))
    assert found.member[0][is_zinc].mean() > 0.8
    assert found.member[0][told & ~is_zinc].mean() < 0.15
    assert found.member[0][~told].mean() < 0.02


def test_a_keyword_that_means_something_else_here_is_not_followed() -> None:
    """`zincworda` also stands in every passage of another topic, as "import" does in programs; the others stay with theirs."""
    passages, truth = planted_text(1500, 10, ("zinc",))
    passages = [f"{text} zincworda" if name == "other1" else text for text, name in zip(passages, truth, strict=True)]
    found = match_areas(count_words(passages), planted_areas("zinc"))
    is_zinc = np.array([name == "zinc" for name in truth])
    assert found.member[0][is_zinc].mean() > 0.8
    assert found.member[0][[name == "other1" for name in truth]].mean() < 0.05


def test_area_without_keywords_takes_the_words_of_its_description() -> None:
    passages, truth = planted_text(1500, 11, ("zinc",))
    area = Area(name="metal", description="On zincworda, zincwordb and zincwordc, with zincwordd and zincworde.")
    found = match_areas(count_words(passages), (area,))
    assert found.member[0][[name == "zinc" for name in truth]].mean() > 0.9


def test_membership_does_not_depend_on_the_order_of_passages() -> None:
    passages, _ = planted_text(400, 1, ("zinc", "opera"))
    order = np.random.default_rng(2).permutation(len(passages))
    one = match_areas(count_words(passages), planted_areas("zinc", "opera"))
    other = match_areas(count_words([passages[i] for i in order]), planted_areas("zinc", "opera"))
    assert np.array_equal(one.member[:, order], other.member)
    assert other.log_odds == pytest.approx(one.log_odds[:, order])


def test_area_that_the_text_never_touches_has_no_members() -> None:
    passages, _ = planted_text(300, 3, ("zinc",))
    found = match_areas(count_words(passages), planted_areas("zinc", "sailing"))
    assert found.seeds[1] == 0
    assert not found.member[1].any()
    assert np.all(np.isneginf(found.log_odds[1]))


def test_few_seeds_stay_what_they_are() -> None:
    """Seven passages are too few to learn an area's words from: they are its members, and nothing is grown."""
    passages, _ = planted_text(300, 4, ("zinc",))
    passages[:7] = ["harpsichord sonata " + text for text in passages[:7]]
    found = match_areas(count_words(passages), (Area(name="music", keywords=("harpsichord", "sonata")),))
    assert found.seeds[0] == 7
    assert np.flatnonzero(found.member[0]).tolist() == list(range(7))


def test_the_only_keyword_of_an_area_is_enough_where_it_stands() -> None:
    passages, _ = planted_text(300, 4, ("zinc",))
    passages[:20] = ["harpsichord " + text for text in passages[:20]]
    found = match_areas(count_words(passages), (Area(name="music", keywords=("harpsichord",)),))
    assert np.flatnonzero(found.member[0]).tolist() == list(range(20))


def test_a_keyword_of_most_passages_singles_nothing_out() -> None:
    passages, _ = planted_text(200, 5, ("zinc",))
    found = match_areas(count_words(["everywhere " + text for text in passages]), (Area(name="x", keywords=("everywhere",)),))
    assert not found.member.any()


def test_behaviour_is_not_grown_and_does_not_compete_with_knowledge() -> None:
    """The same words as an area of each kind: knowledge grows to its topic, behaviour stays with the passages that show it."""
    passages, truth = planted_text(600, 6, ("zinc",))
    keywords = planted_areas("zinc")[0].keywords
    areas = (Area(name="zinc", keywords=keywords), Area(name="zinc behaviour", keywords=keywords, kind="behaviour"))
    found = match_areas(count_words(passages), areas)
    is_zinc = np.array([name == "zinc" for name in truth])
    assert found.member[0][is_zinc].mean() > 0.9
    assert found.member[1].sum() == found.seeds[1] == found.seeds[0]
    assert found.member[1][is_zinc].sum() == found.seeds[1]
