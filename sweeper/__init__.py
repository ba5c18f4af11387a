"""Find, by measurement, how to serve a language model with the least energy within its limits."""

__version__ = "0.1.0"
