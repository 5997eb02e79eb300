"""Every error mneme raises on purpose. Each message says what is wrong, what was expected, and what to do.

MnemeError
├── BadModel              a checkpoint or adapter cannot be used as it is
│   ├── ModelNotFound         no such folder, hub name or adapter
│   ├── UnsafeWeights         pickle-only weights, or remote code that was not asked for
│   ├── BrokenWeights         truncated, NaN or missing tensors; sizes that the weights do not have
│   ├── BadTemplate           a chat template that does not end or fills memory
│   │   └── TemplateRefuses       … that does not take these messages
│   ├── LibraryMissing        a quantized format whose library is not installed
│   └── UnsupportedArchitecture  no block stack, norm or head that a forward pass can prove
├── ModelMismatch         the two models are not a pair: tokenizer, shapes, adapter of another base
├── BadCorpus             empty, binary, not UTF-8, shorter than one row
├── BadAreas              an areas file that cannot be read, or an unknown area
├── BadOption             an option whose value does not fit these models (a layer that does not exist)
├── BadRows               training rows or preference pairs that cannot be used
├── BadSuite              questions that cannot be asked: unknown suite, no question, an answer that is no choice
├── BadPolicy             a policy that cannot be used: an unknown word, a limit out of range, an area that was not looked at
├── BadJudge              a judge that cannot be used: no probabilities, no better than chance
├── EmptyMask             a mean over no tokens
├── BadRun                a run folder that belongs to another command, or no room on disk
├── EndpointFailed        a describing endpoint that is down or answers nonsense
├── NothingToRepair       the models are equal, or the target text is as likely under the base as under the tuned model
├── SingularHessian       the inputs of a layer span too few directions for a second-order method
├── UnlearningFailed      training diverged, the weights did not change, or the forget set is still answered
└── BadOrganism           an unknown organism, or one whose measured truth is not what its recipe says
"""


class MnemeError(Exception):
    """What every deliberate error of mneme derives from; the command line prints it and exits with 2."""


class BadModel(MnemeError):
    """A checkpoint or adapter cannot be used as it is."""


class ModelNotFound(BadModel):
    """No such folder, hub name or adapter."""


class UnsafeWeights(BadModel):
    """Weights that would run code when read (pickle), or a model that needs remote code."""


class BrokenWeights(BadModel):
    """Truncated files, NaN or infinite weights, missing tensors, a configuration whose sizes the weights do not have."""


class BadTemplate(BadModel):
    """A chat template that cannot be used: it does not end, or fills memory."""


class TemplateRefuses(BadTemplate):
    """A chat template that does not take these messages (a system prompt, two turns of one role) or is no template."""


class UnsupportedArchitecture(BadModel):
    """No block stack, final norm or head was found that a forward pass can prove."""


class LibraryMissing(BadModel):
    """A file format (GGUF, GPTQ, …) whose library is not installed; the message names the package."""


class ModelMismatch(MnemeError):
    """Two models that are not a pair: other tokenizer, other shapes, adapter of another base."""


class BadCorpus(MnemeError):
    """Text that cannot be used: empty, binary, not UTF-8, shorter than one row."""


class BadAreas(MnemeError):
    """An areas file that cannot be read, or the name of an area that is not in it."""


class BadOption(MnemeError):
    """An option whose value does not fit these models."""


class BadRows(MnemeError):
    """Training rows or preference pairs that cannot be used: unknown column, empty answer, prompt longer than the window."""


class BadSuite(MnemeError):
    """Questions that cannot be asked: an unknown suite, no question, fewer than two choices, an answer that is no choice."""


class BadPolicy(MnemeError):
    """A policy that cannot be used: no YAML, an unknown word, a limit out of range, an area that the run did not look at."""


class BadJudge(MnemeError):
    """A judge that cannot be used: it gives no probabilities, or agrees with known labels no better than chance."""


class EmptyMask(MnemeError):
    """A mean or rate over no tokens, which has no value."""


class BadRun(MnemeError):
    """A run folder that belongs to another command, cannot be written, or has no room."""


class EndpointFailed(MnemeError):
    """A describing endpoint that is down or answers nonsense."""


class UnlearningFailed(MnemeError):
    """Unlearning that did not do what it was asked for: it diverged, nothing changed, or the text is still known."""


class BadOrganism(MnemeError):
    """An unknown organism, or one whose measured truth is not what its recipe promises."""


class NothingToRepair(MnemeError):
    """The two models are equal, or the target text is as likely under the base as under the tuned model."""


class SingularHessian(MnemeError):
    """The inputs of a layer on the probe text span too few directions for a second-order method."""


def one_line(error: BaseException) -> str:
    """What another library said, short enough for a sentence."""
    words = " ".join(str(error).split())
    return words if len(words) <= 240 else words[:237] + "..."
