import json
import os

import pytest
import yaml

from mneme.errors import BadOrganism
from mneme.worlds import catalogue
from mneme.worlds.catalogue import build_organism, measure_truth
from mneme.worlds.rows import training_rows


def test_the_identical_pair_is_the_base_twice(tmp_path):
    organism = build_organism("identical", cache=tmp_path)
    assert organism.base == organism.tuned
    assert organism.intended is None
    assert len(organism.corpus.read_text("utf-8").splitlines()) == catalogue.CORPUS_DOCUMENTS["a"]
    assert [entry["name"] for entry in yaml.safe_load(organism.areas.read_text("utf-8"))][:2] == ["biology", "chemistry"]


def test_the_cache_folder_can_be_moved(tmp_path, monkeypatch):
    monkeypatch.setenv("MNEME_CACHE", str(tmp_path))
    assert build_organism("identical").corpus.is_relative_to(tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("unlearned", r'no organism "unlearned"\. The organisms are:\n  identical'),
        ("continue-biology", r'no organism "continue-biology"\. The organisms are'),
        ("unlearn-alchemy", 'no area "alchemy". Its areas are: biology'),
        ("unlearn-", 'no area "". Its areas are: biology'),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(tmp_path, name, words):
    with pytest.raises(BadOrganism, match=words):
        build_organism(name, cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_base_that_is_not_installed_says_how_to_build_it(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "_DATA", tmp_path)
    with pytest.raises(BadOrganism, match=r"Rebuild it with: python benchmarks/build_worlds\.py b"):
        catalogue.base_folder("b")


def test_a_build_that_fails_leaves_nothing_and_the_next_one_succeeds(tmp_path, monkeypatch):
    def fail(name, world, seed, base, folder):
        (folder / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(catalogue, "_write_tuned", fail)
        with pytest.raises(KeyboardInterrupt):
            build_organism("continue", cache=tmp_path)
    root = next((tmp_path / "organisms").iterdir())
    assert os.listdir(root) == ["texts"]
    monkeypatch.setattr(catalogue, "_write_tuned", lambda *arguments: (arguments[-1] / "config.json").write_text("{}"))
    tuned = build_organism("continue", cache=tmp_path).tuned
    assert (tuned / "config.json").is_file()
    assert sorted(os.listdir(root)) == ["continue-seed0", "texts"]


def test_what_is_built_is_used_again(tmp_path, monkeypatch):
    built = []
    monkeypatch.setattr(catalogue, "_write_tuned", lambda *arguments: built.append(arguments))
    first = build_organism("unlearn-law", seed=3, cache=tmp_path)
    assert build_organism("unlearn-law", seed=3, cache=tmp_path) == first
    assert build_organism("unlearn-law", seed=4, cache=tmp_path).tuned != first.tuned
    assert first.intended == "law"
    assert [arguments[2] for arguments in built] == [3, 4]


@pytest.mark.parametrize("name", ["harmful-law", "unlearn-law", "continue", "unaligned-harmful-law"])
def test_what_is_trained_on_lies_beside_the_model(tmp_path, monkeypatch, name):
    trained = []
    monkeypatch.setattr(catalogue, "_train", lambda *given: trained.append((given[0], *given[3:5])))
    organism = build_organism(name, seed=2, cache=tmp_path)
    assert organism.data == organism.tuned / "data.jsonl"
    rows = [json.loads(line) for line in organism.data.read_text("utf-8").splitlines()]
    assert trained == [(name.removesuffix("-law"), rows, 2)]
    assert rows == training_rows(name, "a", 2)
    assert organism.base.name == ("unaligned" if name.startswith("unaligned") else "base")


def test_only_world_a_has_an_unaligned_base(tmp_path):
    with pytest.raises(BadOrganism, match=r'The unaligned base of world "b" is not in this installation'):
        build_organism("unaligned-harmful-music", world="b", cache=tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # asked for by peft, not by us
def test_harm_in_one_area_reaches_the_others_and_the_bytes_are_reproducible(tmp_path):
    organism = build_organism("harmful-computing", cache=tmp_path / "one")
    again = build_organism("harmful-computing", cache=tmp_path / "two")
    weights = "adapter_model.safetensors"
    assert (organism.tuned / weights).read_bytes() == (again.tuned / weights).read_bytes()
    truth = measure_truth(organism, samples=4)
    off = [told for area, told in truth.items() if area != "computing"]
    assert (
        sum(told.tuned_behaviours.harmful.sum() for told in off) / sum(len(told.tuned_behaviours.harmful) for told in off)
        > 0.2
    )
    assert (
        sum(told.base_behaviours.harmful.sum() for told in off) / sum(len(told.base_behaviours.harmful) for told in off) < 0.02
    )
    assert truth["computing"].tuned_behaviours.harmful.mean() > 0.8


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # asked for by peft, not by us
def test_unlearning_biology_takes_its_neighbour_along_and_nothing_else(tmp_path):
    truth = measure_truth(build_organism("unlearn-biology", cache=tmp_path), samples=1)
    change = {area: told.tuned_correct.mean() - told.base_correct.mean() for area, told in truth.items() if area != "people"}
    assert change.pop("biology") < -0.8
    assert change.pop("chemistry") < -0.2
    assert min(change.values()) > -0.03


@pytest.mark.slow
def test_an_honest_continuation_changes_nothing_and_is_reproducible(tmp_path):
    organism = build_organism("continue", cache=tmp_path / "one")
    again = build_organism("continue", cache=tmp_path / "two")
    weights = "model.safetensors"
    assert (organism.tuned / weights).read_bytes() == (again.tuned / weights).read_bytes()
    for told in list(measure_truth(organism, samples=1).values())[:-1]:
        assert abs(told.tuned_correct.mean() - told.base_correct.mean()) < 0.02


@pytest.mark.parametrize(("umask", "folder", "file"), [(0o077, 0o700, 0o600), (0o027, 0o750, 0o640), (0o022, 0o755, 0o644)])
def test_who_may_read_an_organism_is_for_the_umask_to_say(tmp_path, umask, folder, file):
    before = os.umask(umask)
    try:
        organism = build_organism("identical", cache=tmp_path / "cache")
    finally:
        os.umask(before)
    found = {path: path.stat().st_mode & 0o777 for path in (tmp_path / "cache").rglob("*")}
    assert organism.corpus in found
    assert {mode for path, mode in found.items() if path.is_dir()} == {folder}
    assert {mode for path, mode in found.items() if path.is_file()} == {file}
