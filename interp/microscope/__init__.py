"""A prompt under the microscope: what a model makes of one text, token by token."""
