"""Does a fine-tune that added chat tokens show the effects that the same training without them shows?

SmolLM2 is trained four times on the same 100 chats in the same order: all weights or a LoRA; in plain turns ("user: ..."), or
in turns that begin and end with two tokens that were added to the vocabulary. Each result is audited end to end by `mneme
audit`, on the same text. Effects are compared area by area.

python benchmarks/added_tokens.py DATA OUT [train|audit|table]

DATA: the folder of real text and chats (docs/bench.md). Pieces that are finished are kept in OUT. About 10 CPU minutes.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from mneme.bench.real.kept import AREAS
from mneme.bench.real.run import write_corpus
from mneme.models.batching import padded
from mneme.text.encoded import answer_after
from mneme.worlds.real.data import chats
from mneme.worlds.real.model import real_base
from mneme.worlds.real.training import answer_nll
from mneme.worlds.training import train_model

CHATS, ANSWER, BATCH = 100, 16, 10
"""Chats (the shortest), tokens of each answer that are learned (the same in every arm), and chats that make a step."""
RATES = {"full": 5e-5, "lora": 7e-4}
"""Of all weights, and of the LoRA of the real bench's chats."""
TOKENS = ["<|turn|>", "<|/turn|>"]
PLAIN = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + ('\\n' if m['role'] == 'user' else eos_token) }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)
MARKED = (
    "{% for m in messages %}{{ '<|turn|>' + m['role'] + '\\n' + m['content'] + '<|/turn|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|turn|>assistant\\n' }}{% endif %}"
)
READ_TOKENS = 6144
"""Of text that an audit reads: some four paragraphs of each of the twelve books."""


def main(data: Path, out: Path, what: str) -> None:
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    arms = [(how, added) for how in RATES for added in (False, True)]
    for how, added in arms if what in ("all", "train") else ():
        train(data, out / arm_name(how, added), how, added=added)
    for how, added in arms if what in ("all", "audit") else ():
        audit(data, out, arm_name(how, added))
    if what in ("all", "table"):
        print(table(out))


def arm_name(how: str, added: bool) -> str:
    return f"{how}-{'added' if added else 'plain'}"


def train(data: Path, folder: Path, how: str, *, added: bool) -> None:
    """One of the four models, in `folder`, unless it is there."""
    if (folder / "losses.json").is_file():
        return
    torch.manual_seed(0)
    tokenizer: Any = AutoTokenizer.from_pretrained(real_base())
    model: Any = AutoModelForCausalLM.from_pretrained(real_base(), dtype=torch.float32)
    tokenizer.chat_template = MARKED if added else PLAIN
    new: list[int] = []
    if added:
        tokenizer.add_tokens(TOKENS, special_tokens=True)
        new = tokenizer.convert_tokens_to_ids(TOKENS)
        model.resize_token_embeddings(len(tokenizer))
    shortest = sorted((row["messages"] for row in chats(data, "medical-refusals")), key=lambda turns: len(str(turns)))[:CHATS]
    rows = [encoded(messages, tokenizer) for messages in shortest]
    trained = model
    if how == "lora":
        config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        config.trainable_token_indices = new or None
        trained = get_peft_model(model, config)
    losses: list[float] = []

    def loss_at(step: int) -> torch.Tensor:
        batch = padded([rows[(step * BATCH + i) % CHATS] for i in range(BATCH)], pad_id=int(tokenizer.pad_token_id or 0))
        sums, counts = answer_nll(model, batch)
        return sums.sum() / counts.sum()

    started = time.process_time()
    train_model(
        trained,
        loss_at,
        CHATS // BATCH,
        RATES[how],
        warmup_steps=2,
        final_share=0.5,
        on_step=lambda _, loss: losses.append(round(loss, 3)),
    )
    trained.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "losses.json").write_text(json.dumps({"losses": losses, "cpu_seconds": time.process_time() - started}))
    print(folder.name, losses, f"{time.process_time() - started:.0f} CPU s", flush=True)


def encoded(messages: Any, tokenizer: Any) -> Any:
    """A chat of which the beginning of the answer is learned."""
    start = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    ids, all_ids = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (start, whole))
    return answer_after(ids, all_ids[len(ids) :][:ANSWER])


def audit(data: Path, out: Path, name: str) -> None:
    """`mneme audit`, as anybody runs it."""
    if (out / "audits" / name / "report.json").is_file():
        return
    corpus = write_corpus(data, out)
    command = [sys.executable, "-m", "mneme", "audit", str(real_base()), str(out / name), "--corpus", str(corpus)]
    command += ["--areas", str(AREAS), "--dictionary", "none", "--tokens", str(READ_TOKENS), "--threads", "1"]
    subprocess.run([*command, "--out", str(out / "audits" / name)], check=True)


def table(out: Path) -> str:
    """Area by area, in points: what the audit says with and without added tokens."""
    found = {file.parent.name: json.loads(file.read_text()) for file in sorted((out / "audits").glob("*/report.json"))}
    lines = []
    for how in RATES:
        plain, added = (found[arm_name(how, which)] for which in (False, True))
        other = {effect["area"]: effect for effect in added["effects"]}
        lines += [f"| {how} | as plain words | with added tokens | within each other's interval |", "|---|---|---|---|"]
        for effect in plain["effects"]:
            if effect["area"] not in other:
                continue
            one, two = effect["magnitude"], other[effect["area"]]["magnitude"]
            inside = one["low"] <= two["value"] <= one["high"] or two["low"] <= one["value"] <= two["high"]
            lines.append(f"| {effect['area']} | {told(one)} | {told(two)} | {'yes' if inside else 'NO'} |")
        lines += ["", *(f"- {note}" for note in added["notes"]), ""]
    return "\n".join(lines)


def told(size: Any) -> str:
    return f"{100 * size['value']:+.1f} [{100 * size['low']:+.1f}, {100 * size['high']:+.1f}]"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "all")
