"""Step 8 of the audit: who writes the words of a latent, key words offline or a language model behind an endpoint."""

from mneme.audit.records import Describe
from mneme.describe.description import Description, describe_offline
from mneme.describe.endpoint import describe_with
from mneme.models.client import Endpoint


def describer(endpoint: Endpoint | None, seed: int) -> Describe:
    """What writes the words of a latent: the checked endpoint that `--describe` names, or None = offline.

    Errors of what is returned: EndpointFailed.
    """
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
        said = describe_with(endpoint, shown, held_out, background, *clues, seed=seed)
        return Description(said.text, describe_offline(shown, held_out, background, *clues).key_words, said.score)

    return ask
