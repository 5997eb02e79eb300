"""Organisms: small models whose side effects are known because they were measured.

A synthetic world in plain English words, a Llama-shaped model of about 1 M parameters trained on it, and cheap fine-tunes of
that model. What a fine-tune did to each area is read off exactly by a grammar, so the truth of every pair is known.
"""
