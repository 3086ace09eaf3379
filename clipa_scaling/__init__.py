"""Study how CLIP training scales with model size and token length."""

__version__ = "0.1.0"
