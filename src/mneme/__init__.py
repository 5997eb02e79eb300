"""mneme: what a fine-tune did to a language model beyond its purpose."""

__version__ = "0.1.0"
