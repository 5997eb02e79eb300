"""Statistics of change: clustered intervals, paired tests, their corrections. numpy only; seeds are arguments."""

from mneme.stats.clusters import bootstrap_weights, ratio_of_sums, ratios_of_sums, standard_error
from mneme.stats.distributions import normal_cdf, student_t_cdf, student_t_quantile
from mneme.stats.paired import balanced_accuracy, benjamini_hochberg, holm, mcnemar_exact
from mneme.stats.rates import Rate, clustered_mean, clustered_rate, equivalent, paired_change, paired_mean_change

__all__ = [
    "Rate",
    "balanced_accuracy",
    "benjamini_hochberg",
    "bootstrap_weights",
    "clustered_mean",
    "clustered_rate",
    "equivalent",
    "holm",
    "mcnemar_exact",
    "normal_cdf",
    "paired_change",
    "paired_mean_change",
    "ratio_of_sums",
    "ratios_of_sums",
    "standard_error",
    "student_t_cdf",
    "student_t_quantile",
]
