"""A mechanistic interpretability workbench: everything it finds is a direction at a site."""

__version__ = "0.1.0"
