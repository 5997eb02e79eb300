"""The callback in three trainers: what it logs, that it disturbs nothing, that it stops, and that it keeps to its share."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForLanguageModeling, Trainer, TrainingArguments
from transformers.trainer_callback import TrainerCallback

from mneme import SideEffects
from mneme.errors import BadOption
from mneme.models.adapters import lora_config
from mneme.watch.looks import Look
from mneme.worlds.catalogue import Organism, build_organism

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")  # TRL's and peft's own affair


@pytest.fixture(scope="module")
def organism() -> Organism:
    return build_organism("unlearn-biology")


def texts(organism: Organism) -> list[str]:
    return organism.corpus.read_text("utf-8").splitlines()[:64]


def arguments(kind: Any, folder: Path, **named: Any) -> Any:
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "max_steps": 4,
        "learning_rate": 1e-3,
        "report_to": [],
        "save_strategy": "no",
        "use_cpu": True,
        "logging_steps": 2,
        "disable_tqdm": True,
        "seed": 3,
    }
    return kind(**(settings | named))


def trainer(organism: Organism, folder: Path, callbacks: Sequence[TrainerCallback], **named: Any) -> Trainer:
    model = AutoModelForCausalLM.from_pretrained(organism.base, dtype=torch.float32)
    model.config.attention_dropout = 0.1  # random numbers are drawn in every step
    tokenizer = AutoTokenizer.from_pretrained(organism.base)
    rows = Dataset.from_list([{"input_ids": tokenizer(text)["input_ids"][:48]} for text in texts(organism)])
    return Trainer(
        model,
        arguments(TrainingArguments, folder, **named),
        train_dataset=rows,
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        processing_class=tokenizer,
        callbacks=list(callbacks),
    )


def watch(organism: Organism, **named: Any) -> SideEffects:
    settings: dict[str, Any] = {"corpus": organism.corpus, "areas": organism.areas, "share": None, "tokens": 1024, "every": 2}
    return SideEffects(**(settings | named))


class Seen(TrainerCallback):
    """What listens to the trainer's log, and the state of the model at every step."""

    def __init__(self) -> None:
        self.logs: list[dict[str, float]] = []
        self.modes: list[bool] = []

    def on_log(self, _args: Any, _state: Any, _control: Any, logs: Any = None, **_given: Any) -> None:
        self.logs.append(dict(logs))

    def on_step_begin(self, _args: Any, _state: Any, _control: Any, model: Any = None, **_given: Any) -> None:
        self.modes.append(model.training and all(weight.requires_grad for weight in model.parameters()))


def test_plain_trainer_trains_the_same_weights_and_logs_through_its_own_logger(organism: Organism, tmp_path: Path) -> None:
    seen = Seen()
    looking = watch(organism, base=organism.base)
    with_looks = trainer(organism, tmp_path / "one", [seen, looking])
    with_looks.train()
    alone = Seen()
    without = trainer(organism, tmp_path / "two", [alone])
    without.train()
    for one, other in zip(with_looks.model.parameters(), without.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert seen.modes == alone.modes
    assert seen.modes[1:] == [True] * 3
    assert [look.step for look in looking.looks] == [2, 4]
    told = [logs for logs in seen.logs if "side_effects/affected" in logs]
    assert len(told) == 2
    assert sum("loss" in logs for logs in seen.logs) == 2, "the trainer's own lines are all there"
    assert [entry["step"] for entry in with_looks.state.log_history if "side_effects/affected" in entry] == [2, 4]


def test_metrics_are_in_tensorboard_files(organism: Organism, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "logs"))
    trainer(organism, tmp_path / "one", [watch(organism)], report_to=["tensorboard"]).train()
    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    names = [name for name in events.Tags()["scalars"] if "side_effects" in name]
    assert any(name.endswith("side_effects/affected") for name in names)
    assert [event.step for event in events.Scalars(names[0])] == [2, 4]


def test_supervised_trainer_with_an_adapter_stops_by_policy_and_keeps_what_passed(organism: Organism, tmp_path: Path) -> None:
    from trl import SFTConfig, SFTTrainer

    def policy(look: Look) -> str | None:
        return "enough" if look.step == 2 else None

    looking = watch(organism, every=1, policy=policy, keep=True)
    training = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(organism.base, dtype=torch.float32),
        arguments(SFTConfig, tmp_path, max_length=48, save_strategy="steps", save_steps=100),
        train_dataset=Dataset.from_list([{"text": text} for text in texts(organism)]),
        processing_class=AutoTokenizer.from_pretrained(organism.base),
        peft_config=lora_config(2),
        callbacks=[looking],
    )
    training.train()
    assert training.state.global_step == 2
    assert [look.breach for look in looking.looks] == [None, "enough"]
    assert looking.best_checkpoint is not None
    assert (Path(looking.best_checkpoint) / "adapter_model.safetensors").is_file()
    assert training.state.best_model_checkpoint == looking.best_checkpoint


def test_preference_trainer_tells_whether_chosen_answers_fall(organism: Organism, tmp_path: Path) -> None:
    from trl import DPOConfig, DPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(organism.base)
    words = [text.split() for text in texts(organism)]
    rows = [
        {"prompt": " ".join(own[:6]), "chosen": " " + " ".join(own[6:12]), "rejected": " " + " ".join(other[6:11])}
        for own, other in zip(words, reversed(words), strict=True)
        if len(own) > 12 and own[6:11] != other[6:11]
    ]
    looking = watch(organism, every=4)
    training = DPOTrainer(
        AutoModelForCausalLM.from_pretrained(organism.base, dtype=torch.float32),
        args=arguments(DPOConfig, tmp_path, learning_rate=5e-3),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=lora_config(2),
        callbacks=[looking],
    )
    training.train()
    metrics = looking.looks[-1].metrics()
    assert metrics["side_effects/chosen_change"] != 0
    assert 0 <= metrics["side_effects/displaced"] <= 1


def test_share_of_training_time_is_kept(organism: Organism, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    looking = watch(organism, share=0.001, every=1)
    training = trainer(organism, tmp_path, [looking])
    training.train()
    assert looking.looks == []
    assert "not one look fits" in caplog.text
    assert looking._before is None  # and the base was not read for nothing
    assert training.state.global_step == 4


def test_mixed_precision_is_read_as_the_weights_are(organism: Organism, tmp_path: Path) -> None:
    looking = watch(organism)
    trainer(organism, tmp_path, [looking], bf16=True).train()
    assert [look.step for look in looking.looks] == [2, 4]


def test_training_that_goes_on_needs_its_base(organism: Organism, tmp_path: Path) -> None:
    trainer(organism, tmp_path, [], max_steps=2, save_strategy="steps", save_steps=2).train()
    again = trainer(organism, tmp_path, [watch(organism)])
    with pytest.raises(BadOption, match="no longer the base"):
        again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    looking = watch(organism, base=organism.base)
    trainer(organism, tmp_path, [looking]).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert [look.step for look in looking.looks] == [4]


@pytest.mark.parametrize("named", [{"share": 0.0}, {"share": 1.5}, {"every": 0}])
def test_options_that_cannot_be(organism: Organism, named: dict[str, Any]) -> None:
    with pytest.raises(BadOption):
        watch(organism, **named)


def test_metrics_are_json() -> None:
    look = Look(step=1, effects=(), chosen_change=-1.0, displaced=0.5, seconds=0.1)
    assert json.loads(json.dumps(look.metrics()))["side_effects/displaced"] == 0.5
