"""What ships with the workbench: trained models, prompt sets (install name `interp.data`)."""

from pathlib import Path

FOLDER = Path(__file__).parent
"""The folder of shipped files: `FOLDER / "othello" / "gpt-4x128"`."""
