"""Step 8 of the audit: who writes the words of a latent, key words offline or a language model behind an endpoint."""

import numpy as np

from mneme.audit.job import Job
from mneme.audit.records import Describe
from mneme.describe.description import Description, describe_offline
from mneme.describe.endpoint import describe_with
from mneme.models.client import endpoint_of
from mneme.runs import Arrays


def describer(job: Job, name: str) -> Describe:
    """What writes the words of the latent `name`. Words of an endpoint are a stage: a resumed run asks nothing twice.

    Errors of what is returned: EndpointFailed.
    """
    endpoint = endpoint_of(job.describe)
    if endpoint is None:
        return describe_offline

    def ask(
        shown: list[str],
        held_out: list[str],
        background: list[str],
        promoted: list[str],
        suppressed: list[str],
        fires_at: list[str],
    ) -> Description:
        clues = (promoted, suppressed, fires_at)

        def compute() -> Arrays:
            said = describe_with(endpoint, shown, held_out, background, *clues, seed=job.seed)
            return {"text": np.array(said.text), "score": np.array([] if said.score is None else [said.score])}

        stage = f"describe-{name}"
        stored = job.run.stage(stage, compute)
        # One line of the timings for all latents.
        job.run.seconds["describe"] = job.run.seconds.get("describe", 0.0) + job.run.seconds.pop(stage)
        score = float(stored["score"][0]) if stored["score"].size else None
        return Description(str(stored["text"]), describe_offline(shown, held_out, background, *clues).key_words, score)

    return ask
