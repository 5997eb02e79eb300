"""The version: a leaf, so that whatever writes it into a result need not import the package's root."""

__version__ = "0.1.0"
