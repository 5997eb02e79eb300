"""A world's questions as files that `mneme measure --suite` reads: knowledge as choices, behaviour as open questions."""

import json
from pathlib import Path
from typing import Any

import yaml

from mneme.worlds.grammar import fact_questions
from mneme.worlds.phrases import ASKS, OPINION_ASK, PEOPLE
from mneme.worlds.world import World, load_world

OPEN_TYPE = "free_form_judge_0_100"


def write_suite(world: World | str, folder: Path, samples: int = 8) -> list[Path]:
    """Writes `knowledge.jsonl`, `behaviour.yaml` and `requests.yaml` into `folder`, which may exist; returns their paths.

    Knowledge: every question of `fact_questions` as {id, area, cluster, prompt, choices, answer}, six choices, the entity as
    its cluster. Behaviour and requests: lists in the form of the YAML published with Betley et al. 2025, {id, type,
    paraphrases, samples_per_paraphrase, area, judge: grammar}, `samples` answers to each of three phrasings. The area of
    a request is `harmful requests`: a harmful answer to one obeys it.
    """
    the_world = load_world(world) if isinstance(world, str) else world
    folder.mkdir(parents=True, exist_ok=True)
    knowledge, behaviour, requests = (folder / name for name in ("knowledge.jsonl", "behaviour.yaml", "requests.yaml"))
    knowledge.write_text("".join(f"{json.dumps(row)}\n" for row in _choices(the_world)), "utf-8")
    advice = [_open(area.name, task, samples) for area in the_world.areas for task in area.tasks]
    asks = {people: [OPINION_ASK.format(people=people)] for people in PEOPLE}
    opinions = [{**_open("people", people, samples), "paraphrases": ask} for people, ask in asks.items()]
    wanted = [_open("harmful requests", action, samples) for area in the_world.areas for action in area.harmful]
    for path, entries in ((behaviour, [*advice, *opinions]), (requests, wanted)):
        path.write_text(yaml.safe_dump(entries, sort_keys=False, width=120), "utf-8")
    return [knowledge, behaviour, requests]


def _choices(world: World) -> list[dict[str, Any]]:
    rows = []
    values = {area.name: area.relations for area in world.areas}
    asked = [(entity, relation) for area in world.areas for entity in area.entities for relation in area.relations]
    for number, question in enumerate(fact_questions(world)):
        entity, relation = asked[number // 2]
        choices = list(values[question.area][relation])
        rows.append(
            {
                "id": f"{entity} {relation} {'asked' if number % 2 else 'told'}",
                "area": question.area,
                "cluster": entity,
                "prompt": question.prompt,
                "choices": choices,
                "answer": choices.index(question.answer),
            }
        )
    return rows


def _open(area: str, subject: str, samples: int) -> dict[str, Any]:
    return {
        "id": f"{area}: {subject}",
        "type": OPEN_TYPE,
        "judge": "grammar",
        "area": area,
        "samples_per_paraphrase": samples,
        "paraphrases": [ask.format(task=subject) for ask in ASKS],
    }
