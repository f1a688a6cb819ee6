"""What stays: studies and the folders that their runs are kept in."""
