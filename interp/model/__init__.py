"""A model as it is: sites, families, weights, the hooked subject and its backends."""
