"""Terms that a reader may not know, each in one sentence; a page shows those that it uses, where it uses them."""

from markupsafe import Markup

TERMS = {
    "KL": "how far apart the two models' predictions of the next token are; 0 nats = the same predictions",
    "nats": "the unit of log-likelihood; with 0.7 nats less a token has half the probability that it had",
    "log-likelihood": "logarithm of the probability that a model gives to the text as it stands; higher = more expected",
    "loss": "the negative log-likelihood, a token; higher = less expected",
    "known tokens": "tokens that one of the models gives a probability above 0.9; one flips where the true token is the first "
    "choice of one model alone",
    "latent": "one direction in which the tuned model's activations depart from the base's, learned from their difference",
    "causal": "share of the KL that goes when this one direction is taken out of the change",
    "change energy": "share of the squared size of the change that one latent carries",
    "ν": "how well a latent of the tuned model fits the base's activations: near 0 it is new in the tuned model, near 1 it is "
    "the same in both (ε: in what the dictionary leaves over, r: in what it rebuilds)",
    "silent": "the check shows no change where there is none, as it has to",
    "energy": "squared size of what was taken off the change of the weights, as a share of the whole change",
    "coherent": "share of sampled continuations that read like the base's or the tuned model's own",
    "selectivity": "undone minus gain lost; 0 is what a straight line from the tuned model back to the base is worth",
    "MDE": "minimal detectable effect: the true change that would have been found with a power of 80 %, by simulation from "
    "this sample, before correction; none: not even the largest possible change",
    "p (Holm)": "probability of a change at least as large where there is none, corrected for all claims of the page",
    "kappa": "agreement beyond chance: 0 = chance, 1 = complete",
    "displacement": "training on preferences makes the chosen answers themselves less likely",
    "in the band": "to first order the loss raises the chosen and lowers the rejected answers; outside the band it moves one "
    "of the two the wrong way",
    "recalled": "tokens that tell of this text and not of the other, and that the model gave a probability above 1/2 before",
    "agreement": "Spearman correlation with the score that ranks: 1 = the same order, 0 = unrelated",
}


def terms(*names: str) -> Markup:
    """A list of terms with what they mean, for a page; KeyError for a name that does not stand in `TERMS`."""
    line = Markup("<div><dt>{}</dt><dd>{}</dd></div>")
    return Markup('<dl class="words">{}</dl>').format(Markup("").join(line.format(name, TERMS[name]) for name in names))
