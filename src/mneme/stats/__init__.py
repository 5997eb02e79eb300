"""Statistics of change: clustered intervals, tests, power, and corrections for many claims. Judged by benchmarks/coverage.py.

A function that would not hold for so few clusters returns `TooFew`; none returns a width of 0 but for identical models.
"""

from mneme.results.record import TooFew
from mneme.stats.bounded import bounded_change
from mneme.stats.clusters import bootstrap_weights, expanded_interval
from mneme.stats.crossed import two_way
from mneme.stats.distributions import normal_cdf, student_t_cdf, student_t_quantile, student_t_two_sided
from mneme.stats.families import balanced_accuracy, benjamini_hochberg, holm, mcnemar_exact
from mneme.stats.loss import Conditions, Detectable, Sample, detectable_loss, item_noise
from mneme.stats.means import clustered_mean, clustered_ratio, difference_of_ratios, paired_mean_change, paired_test
from mneme.stats.power import detectable_change, detectable_mean_change, detectable_shift, stated
from mneme.stats.rates import Rate, clustered_rate, equivalent, paired_change

__all__ = [
    "Conditions",
    "Detectable",
    "Rate",
    "Sample",
    "TooFew",
    "balanced_accuracy",
    "benjamini_hochberg",
    "bootstrap_weights",
    "bounded_change",
    "clustered_mean",
    "clustered_rate",
    "clustered_ratio",
    "detectable_change",
    "detectable_loss",
    "detectable_mean_change",
    "detectable_shift",
    "difference_of_ratios",
    "equivalent",
    "expanded_interval",
    "holm",
    "item_noise",
    "mcnemar_exact",
    "normal_cdf",
    "paired_change",
    "paired_mean_change",
    "paired_test",
    "stated",
    "student_t_cdf",
    "student_t_quantile",
    "student_t_two_sided",
    "two_way",
]
