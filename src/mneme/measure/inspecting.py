"""Inspect tasks on a model that is already in memory: a model interface of our own, no second copy, adapters included."""

import hashlib
import math
import os
from pathlib import Path
from typing import Any

from inspect_ai import eval as inspect_eval
from inspect_ai._util.error import PrerequisiteError
from inspect_ai.model import ChatMessage, GenerateConfig, ModelAPI, ModelOutput, ModelUsage, get_model, modelapi
from inspect_ai.scorer import value_to_float
from inspect_ai.tool import ToolChoice, ToolInfo

from mneme.errors import BadSuite, TemplateRefuses
from mneme.measure.stages import Sampling
from mneme.measure.subjects import Loaded, Subject
from mneme.models.sampling import generate
from mneme.text.chat import render_chat, without_opening

_VERDICTS = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}


_present: dict[str, tuple[Loaded, Sampling]] = {}
"""What Inspect's model of that name answers with while a task runs: Inspect makes its models by name, from plain values."""


@modelapi(name="mneme")
class _InMemory(ModelAPI):  # type: ignore[misc]
    """Answers with the loaded model. The draw depends on the seed and the prompt alone, not on the order of the samples."""

    def __init__(self, model_name: str, **options: Any) -> None:
        super().__init__(model_name, **options)
        self._loaded, self._sampling = _present[model_name]

    def max_connections(self) -> int:
        return 1

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        if tools and tool_choice != "none":
            raise ValueError("the task offers tools, which this model interface does not have")
        tokenizer = self._loaded.tokenizer
        prompt = _rendered([{"role": message.role, "content": message.text} for message in input], tokenizer)
        read = len(tokenizer(prompt)["input_ids"])
        room = config.max_tokens or self._sampling.max_tokens
        if self._loaded.max_positions is not None:
            room = min(room, self._loaded.max_positions - read)
        if room < 1:
            raise ValueError(f"the prompt has {read} tokens, which leaves no room for an answer")
        digest = int(hashlib.sha256(prompt.encode()).hexdigest()[:12], 16)
        temperature = self._sampling.temperature if config.temperature is None else config.temperature
        answer = generate(
            self._loaded.parts,
            tokenizer,
            [prompt],
            max_new_tokens=room,
            temperature=temperature,
            seed=self._sampling.seed * 1_000_003 + digest,
        )[0].strip()
        written = len(tokenizer(answer)["input_ids"])
        output = ModelOutput.from_content(self.model_name, answer)
        output.usage = ModelUsage(input_tokens=read, output_tokens=written, total_tokens=read + written)
        return output


def run_inspect(task: str, subject: Subject, sampling: Sampling, log_dir: Path) -> list[dict[str, Any]]:
    """Runs `task` (a registered name, FILE.py or FILE.py@task) and gives the score of every sample; the logs are kept.

    A grade that could not be read is None, never 0. Raises BadSuite where the task cannot be run to its end.
    """
    name, at, of = task.partition("@")
    if Path(name).is_file():  # Inspect looks for files below the working directory by a relative pattern
        task = f"{os.path.relpath(name)}{at}{of}"
    _present[subject.label] = (subject.loaded(), sampling)
    try:
        model = get_model(f"mneme/{subject.label}", memoize=False)
        logs = inspect_eval(
            task, model=model, log_dir=str(log_dir), display="none", fail_on_error=False, seed=sampling.seed, log_format="json"
        )
    except (PrerequisiteError, LookupError, ValueError, OSError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise BadSuite(f"Inspect cannot run {task} ({reason}). Give FILE.py@TASK or the name of an installed task.") from error
    finally:
        del _present[subject.label]
    rows: list[dict[str, Any]] = []
    for log in logs:
        if log.status != "success" or not log.samples:
            reason = log.error.message if log.error else "no sample"
            raise BadSuite(f"Inspect ended {log.eval.task} with status {log.status} ({reason}). Run it with `inspect eval`.")
        failed = next((sample.error.message for sample in log.samples if sample.error), "")
        scorers = list(dict.fromkeys(name for sample in log.samples for name in sample.scores or {}))
        if not scorers and failed:
            raise BadSuite(f"every sample of Inspect's task {log.eval.task} failed, the first with: {failed}")
        for name in scorers:
            scores = [(sample.scores or {}).get(name) for sample in log.samples]
            rows.append(
                {
                    "area": str(log.eval.task),
                    "measure": name,
                    "primary": name == scorers[0],
                    "ids": [str(sample.id) for sample in log.samples],
                    "values": [None if score is None else _number(score.value) for score in scores],
                }
            )
    if not rows:
        raise BadSuite(f"Inspect's task {task} gives no score. Give a task with a scorer.")
    return rows


def _number(value: Any) -> float | None:
    """A grade as a number; None where it is none."""
    if isinstance(value, str) and value in _VERDICTS:
        return _VERDICTS[value]
    if not isinstance(value, str | bool | int | float):
        return None
    found = float(value_to_float()(value))
    return None if math.isnan(found) else found


def _rendered(messages: list[dict[str, str]], tokenizer: Any) -> str:
    """A conversation up to where the assistant begins."""
    if not tokenizer.chat_template:
        return "\n".join(f"{message['role']}: {message['content']}" for message in messages) + "\nassistant:"
    try:
        text = render_chat(messages, tokenizer, add_generation_prompt=True)
    except TemplateRefuses as error:
        raise ValueError(f"the chat template refuses this conversation ({error})") from error
    return without_opening(text, tokenizer)
