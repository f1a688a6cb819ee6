"""The Streamlit explorer of stored runs (install name `interp.apps`)."""
