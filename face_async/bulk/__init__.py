"""Many calls at once, within the service's limits."""
