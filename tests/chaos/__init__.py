"""Kill everything at every step: afterwards one pass of `reconcile` leaves nothing wrong."""
