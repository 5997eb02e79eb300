"""Preference pairs and training rows: which of them will do harm before training, and what moves while training.

Likelihood displacement (Razin et al. 2025, arXiv 2410.08847): preference training lowers the probability of the preferred
answer. CHES says of which pairs to expect it, a monitor sees it happen, and four fixes prevent it.
"""
