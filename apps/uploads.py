"""The limit of uploads: the widget says it, and the server refuses more."""

LARGEST = 10
"""In megabytes of 2^20 bytes, as Streamlit counts them."""
